"""Opening a checkpoint of either format.

A prefix names a checkpoint of today's format if there is an index of it. Otherwise it may be a file of the first
format, or what comes before ``-00000-of-00002`` in the names of its shards. A state file has ``-?????-of-00002`` in
their place, and that opens them too, as does the name of any one of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilstm import files
from minilstm.tensorbundle.bundle import Bundle
from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.paths import as_prefix, checked_prefix, index_path
from minilstm.tensorbundle.reader import IndexedBundle

_SHARD = re.compile(r"(.+)-(?:[0-9]{5}|\?{5})-of-([0-9]{5})", re.DOTALL)


def open_bundle(prefix: str | os.PathLike[str]) -> Bundle:
    """Open a checkpoint: read which tensors there are, and nothing else.

    If saving over an existing checkpoint was interrupted after the old one was taken away and before the new one had
    its name (see `writer`), the new one is found under its temporary names, verified as a whole, and opened.

    Parameters
    ----------
    prefix : str or path
        ``runs/model.ckpt-600`` for the files ``runs/model.ckpt-600.index`` and ``runs/model.ckpt-600.data-...``; or of
        TensorFlow's first format, V1, for the file ``runs/model.ckpt-600``, or ``runs/model.ckpt-600-00000-of-00002``
        and the other shards. The name of one of these files is accepted too.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If the index, or the list of tensors in a V1 file, is damaged.
    """
    path = checked_prefix("open", as_prefix(prefix))
    try:
        return IndexedBundle(path)
    except FileNotFoundError:
        found = _interrupted(path) or _first_format(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no checkpoint there: no such file", index_path(path)) from None
        return found


def _first_format(prefix: str) -> Bundle | None:
    """The checkpoint of the format V1 that a prefix names, or None."""
    paths = slice_files(prefix)
    if not paths:
        return None
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        raise CheckpointError(f"{missing[0]}: not there, but other shards of {prefix} are")
    from minilstm.tensorbundle.slice_file import SliceBundle  # most programs meet no file of the first format

    return SliceBundle(prefix, paths)


def slice_files(prefix: str) -> list[str]:
    """The files of the V1 checkpoint that a prefix names, in order, whether they are there or not; [] if none is.

    Raises
    ------
    CheckpointError
        If there are shards of two checkpoints.
    """
    shard = _SHARD.fullmatch(prefix)
    if shard is None and os.path.exists(prefix):
        return [] if os.path.isdir(prefix) else [prefix]
    folder, base = os.path.split(shard[1] if shard else prefix)
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        names = os.listdir(folder or os.curdir)
    counts = {match[2] for name in names if (match := _SHARD.fullmatch(name)) and match[1] == base}
    if shard is not None:
        counts &= {shard[2]}
    if len(counts) > 1:
        raise CheckpointError(f"{prefix}: there are shards of {' and of '.join(sorted(counts))}; name one of them")
    return [
        os.path.join(folder, f"{base}-{number:05d}-of-{count}") for count in counts for number in range(int(count))
    ]


def _interrupted(prefix: str) -> Bundle | None:
    """The newest complete checkpoint among the temporary files of a prefix."""
    for _, token in files.temporaries(index_path(prefix)):
        with contextlib.suppress(CheckpointError, FileNotFoundError):  # cut off in the middle, or gone
            bundle = IndexedBundle(prefix, token)
            for name in bundle:
                bundle.verify(name)
            return bundle
    return None


def read(prefix: str | os.PathLike[str], skip_unreadable: bool = False) -> dict[str, NDArray[Any]]:
    """Read a whole checkpoint.

    Parameters
    ----------
    prefix : str or path
        As for `open_bundle`.
    skip_unreadable : bool, default False
        Whether to leave out tensors that cannot be read, because no array can hold them (`Bundle.unreadable`) or
        because they are damaged, instead of raising CheckpointError. At least one must be left.

    Returns
    -------
    dict
        Every tensor by name, in the order of the names' UTF-8 bytes. Strings are object arrays of bytes; quantized
        numbers are the integers that they are stored as, and integers of 2 or 4 bits are int8 or uint8. bfloat16 and
        the floats of 8 or 4 bits are those of ``ml_dtypes`` if that package is installed, else the unsigned integers
        of their bits.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If anything is damaged or missing; the message names the first tensor that cannot be read.
    """
    return open_bundle(prefix).read_all(skip_unreadable)


def list_variables(prefix: str | os.PathLike[str]) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    """Name, dtype (void if no array can hold it) and shape of every tensor, sorted by name; their bytes are not read.

    Raises
    ------
    FileNotFoundError, CheckpointError
        As for `open_bundle`.
    """
    bundle = open_bundle(prefix)
    return [(name, bundle.info(name).dtype, bundle.info(name).shape) for name in bundle]
