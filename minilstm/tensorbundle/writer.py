"""Writing a checkpoint: byte for byte what TensorFlow's SaveV2 writes for the same tensors in the order of their names.

The tensors' bytes go to one data file, back to back, and the index says where. Both files are written under temporary
names and flushed to the disk before anything that exists is touched. Then they are given their names, in four steps,
each flushed before the next:

    1  the temporary names themselves
    2  an existing index of this prefix is removed
    3  the data file is renamed
    4  the index is renamed

There is no way to exchange two files at once. Without an index in between, there is never an index without its data,
or with another checkpoint's data. What a crash leaves is therefore, after each step:

    before 2    what was there before: the old checkpoint, or nothing
    2, 3        no index; and all of the new checkpoint, partly under temporary names. `open_bundle` finds it there.
                TensorFlow does not: to it the prefix does not exist until it is saved again.
    4           the new checkpoint

So a prefix that could be read before a save can be read after it, however the save ended, and what is read is the old
or the new checkpoint, never a mixture. A prefix has one writer at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from minilstm import files
from minilstm.tensorbundle import crc32c, dtypes
from minilstm.tensorbundle.paths import checked_prefix, data_path, index_path
from minilstm.tensorbundle.proto import Entry, Header, encode_entry, encode_header
from minilstm.tensorbundle.strings import encode_strings, to_bytes
from minilstm.tensorbundle.table import encode_table

_PIECE = 1 << 20  # bytes checked and written at once, small enough to be still in the cache for the second
_SUPPORTED = ", ".join(dtypes.WRITABLE)


def write(prefix: str | os.PathLike[str], tensors: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
    """Write a checkpoint, and no state file (see `state.publish`).

    Parameters
    ----------
    prefix : str or path
        ``runs/model.ckpt-600`` for the files ``runs/model.ckpt-600.index`` and
        ``runs/model.ckpt-600.data-00000-of-00001``. Missing folders are made; an existing checkpoint is replaced.
    tensors : dict of name to array, or pairs of them
        In any order; they are stored in the order of their names. Arrays of any shape (also []), contiguous or not, in
        either byte order; strings as bytes, as str (stored in UTF-8) or as objects that are bytes or str. At most one
        array is copied at a time, and only if it holds strings, is not C-contiguous or is not little-endian.

    Raises
    ------
    TypeError, ValueError
        If there is no tensor, or a name or an array cannot be stored. Nothing is written then.
    OSError
        If the disk refuses. What can be read under the prefix afterwards is the old checkpoint or the new one.

    Examples
    --------
    >>> import tempfile
    >>> from minilstm import tensorbundle
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tensorbundle.write(f"{folder}/m", {"rnn/bias": np.zeros(4, np.float32), "global_step": np.array(7)})
    ...     [(name, str(dtype), shape) for name, dtype, shape in tensorbundle.list_variables(f"{folder}/m")]
    [('global_step', 'int64', ()), ('rnn/bias', 'float32', (4,))]
    """
    path = checked_prefix("write", prefix)
    checked = _checked(tensors)
    folder, index, data = os.path.dirname(path), index_path(path), data_path(path, 0, 1)
    files.make_directory(folder)
    replacing = os.path.exists(index)
    if replacing:
        files.sweep(index, data)
    # Without an index, the temporary files of a save that was interrupted may be the old checkpoint: they are swept
    # only when the new one is complete.
    anything_there = replacing or bool(files.temporaries(index))
    token = files.new_token()
    new_index, new_data = files.temporary_name(index, token), files.temporary_name(data, token)
    complete = False
    try:
        _write_temporaries(index, data, token, checked)
        files.fsync_directory(folder)  # 1
        complete = True
        if replacing:
            files.remove(index)  # 2
            files.fsync_directory(folder)
        files.replace(new_data, data)  # 3
        files.fsync_directory(folder)
        files.replace(new_index, index)  # 4
        files.fsync_directory(folder)
    except BaseException:
        # The temporary files are of no use, unless the checkpoint that they replace may no longer be complete.
        if not (complete and anything_there and not os.path.exists(index)):
            files.discard(new_index, new_data)
        raise
    files.sweep(index, data)


def _write_temporaries(index: str, data: str, token: str, tensors: list[tuple[bytes, NDArray[Any]]]) -> None:
    """Write and flush both files under their temporary names."""
    with files.open_temporary(data, token) as data_file:
        entries = [(name, encode_entry(_write_tensor(data_file, array))) for name, array in tensors]
        files.fsync_file(data_file)
    header = encode_header(Header(num_shards=1, producer=1))
    with files.open_temporary(index, token) as index_file:
        index_file.write(encode_table([(b"", header), *entries]))
        files.fsync_file(index_file)


def _write_tensor(file: BinaryIO, array: NDArray[Any]) -> Entry:
    """Append a tensor to the data file; returns its entry."""
    code, offset = dtypes.code_of(array.dtype), file.tell()
    assert code is not None  # `_checked` made sure of that
    if code == dtypes.STRING:
        pieces, crc = encode_strings(array)
        file.writelines(pieces)
    else:
        stored, crc = dtypes.to_octets(array), 0
        for start in range(0, stored.size, _PIECE):
            octets = stored[start : start + _PIECE]
            crc = crc32c.update(crc, octets)
            file.write(octets.data)
    return Entry(code, array.shape, offset=offset, size=file.tell() - offset, crc32c=crc32c.mask(crc))


def _checked(tensors: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> list[tuple[bytes, NDArray[Any]]]:
    """The names in UTF-8 and the arrays, in the order in which they are stored, or an error."""
    checked: dict[bytes, NDArray[Any]] = {}
    for name, value in tensors.items() if isinstance(tensors, Mapping) else tensors:
        if not isinstance(name, str):
            raise TypeError(f"write: a tensor's name must be a str, got {name!r}")
        if not name:
            raise ValueError("write: a tensor's name must not be empty")
        try:
            key = name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"write: the name {name!r} cannot be written in UTF-8: {error.reason}") from error
        if key in checked:
            raise ValueError(f"write: there are two tensors named {name!r}, want each name once")
        checked[key] = _checked_array(name, value)
    if not checked:
        raise ValueError("write: there are no tensors, want at least one")
    return sorted(checked.items(), key=lambda item: item[0])


def _checked_array(name: str, value: Any) -> NDArray[Any]:
    if type(value) is not np.ndarray and isinstance(value, np.ma.MaskedArray):  # NumPy loads np.ma when asked for it
        raise TypeError(f"write: {name!r} is a masked array, want a plain one: its mask cannot be stored")
    try:
        array = np.asarray(value)
        if array.dtype.kind in "SU" and not isinstance(value, np.ndarray):
            array = np.array(value, dtype=object)  # NumPy's own strings lose the NULs at their ends
    except ValueError as error:
        raise ValueError(f"write: {name!r} cannot be made an array: {error}") from error
    code = dtypes.code_of(array.dtype)
    if code is None:
        raise TypeError(f"write: {name!r} has dtype {array.dtype}, want one of {_SUPPORTED}")
    if code == dtypes.STRING:
        for element in array.flat if array.dtype.kind in "OUT" else ():
            try:
                to_bytes(element)
            except TypeError as error:
                raise TypeError(f"write: {name!r} has {error}, want one of the dtypes {_SUPPORTED}") from error
            except ValueError as error:
                raise ValueError(f"write: {name!r} has an element that cannot be stored: {error}") from error
    return array
