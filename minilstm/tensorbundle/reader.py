"""Reading a checkpoint: the index first, then the tensors that the caller requests.

A file may be hostile. Sizes are compared with the sizes of the files before any memory is allocated, every checksum is
verified, and any fault of the bytes raises CheckpointError.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minilstm import files
from minilstm.tensorbundle import dtypes
from minilstm.tensorbundle.errors import CheckpointError, about
from minilstm.tensorbundle.index import Stored, read_index
from minilstm.tensorbundle.paths import as_prefix, checked_prefix, data_path, index_path
from minilstm.tensorbundle.proto import Entry
from minilstm.tensorbundle.source import SourceFile
from minilstm.tensorbundle.values import check_end, read_entry

_OVERLAP_ALLOWED = 64 << 20


class TensorInfo(NamedTuple):
    """What the index says about a tensor."""

    name: str
    dtype: np.dtype[Any]  # as the array will have it: object for strings
    shape: tuple[int, ...]
    dtype_name: str  # as TensorFlow calls it: "float32", "string", "bfloat16"
    nbytes: int  # in the data files
    crc32c: int | None  # of those bytes, masked, as stored; None for a partitioned variable, whose parts have their own
    shard: int  # the data file, counted from 0, and the place in it (of the first part)
    offset: int
    parts: int  # 1, or more for a partitioned variable


class Bundle:
    """An open checkpoint: a read-only mapping of names to arrays, which reads an array when it is requested.

    No file stays open, so there is nothing to close; a ``with`` block is accepted all the same.

    Attributes
    ----------
    prefix : str
        As it was given.
    num_shards : int
        The number of data files.
    """

    def __init__(self, prefix: str, token: str | None = None) -> None:
        # With a token: the temporary files of a save that was interrupted (see `open_bundle`).
        self.prefix = prefix
        self._token = token
        self.index_path = index_path(prefix) if token is None else files.temporary_name(index_path(prefix), token)
        header, self._tensors = read_index(self.index_path)
        self.num_shards = header.num_shards
        self._big_endian = header.endianness == 1

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __repr__(self) -> str:
        return f"<Bundle {self.prefix!r}: {len(self)} tensors>"

    def keys(self) -> list[str]:
        """The tensors' names, in the order of their UTF-8 bytes; a partitioned variable once, under its full name."""
        return list(self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def _stored(self, name: str) -> Stored:
        try:
            return self._tensors[name]
        except KeyError:
            raise KeyError(f"{self.prefix} has no tensor {name!r}") from None

    def info(self, name: str) -> TensorInfo:
        """Describe a tensor, from the index alone.

        Raises
        ------
        KeyError
            If there is none of that name.
        """
        stored = self._stored(name)
        entry, pieces = stored.entry, stored.pieces
        return TensorInfo(
            name=name,
            dtype=dtypes.in_memory(entry.dtype),
            shape=entry.shape,
            dtype_name=dtypes.NAMES[entry.dtype],
            nbytes=sum(piece.size for piece in pieces),
            crc32c=None if stored.parts else entry.crc32c,
            shard=pieces[0].shard_id,
            offset=pieces[0].offset,
            parts=len(pieces),
        )

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read one tensor.

        Returns
        -------
        array
            Of the stored shape, in native byte order; strings as an object array of bytes.

        Raises
        ------
        KeyError
            If there is none of that name.
        CheckpointError
            If the data file is missing or too short, or the bytes contradict their checksum.
        """
        stored = self._stored(name)
        if not stored.parts:
            return self._read(name, stored.entry, keep=True)
        self._check_overlap(stored.pieces)
        whole = np.empty(stored.entry.shape, dtypes.in_memory(stored.entry.dtype))
        for region, part in stored.parts:
            whole[region] = self._read(name, part, keep=True)
        return whole

    def verify(self, name: str) -> None:
        """Check a tensor's bytes against its checksum, in little memory whatever its size.

        Raises
        ------
        KeyError, CheckpointError
            As reading the tensor would.
        """
        for piece in self._stored(name).pieces:
            self._read(name, piece, keep=False)

    def check_files(self) -> None:
        """Check that the data files are there and long enough, without reading them.

        Raises
        ------
        CheckpointError
            If one is not.
        """
        ends: dict[int, tuple[int, str]] = {}  # data file -> the end of its last tensor, and that tensor's name
        for name, stored in self._tensors.items():
            for piece in stored.pieces:
                ends[piece.shard_id] = max(ends.get(piece.shard_id, (0, name)), (piece.offset + piece.size, name))
        for shard, (end, name) in ends.items():
            with self._data_file(shard, name) as file:
                check_end(file, end)

    def read_all(self) -> dict[str, NDArray[Any]]:
        """Read every tensor; see `__getitem__`."""
        self._check_overlap(piece for stored in self._tensors.values() for piece in stored.pieces)
        return {name: self[name] for name in self}

    def _data_path(self, shard: int) -> str:
        path = data_path(self.prefix, shard, self.num_shards)
        if self._token is not None:
            temporary = files.temporary_name(path, self._token)
            if os.path.exists(temporary):  # else it was renamed before the save was interrupted
                return temporary
        return path

    @contextlib.contextmanager
    def _data_file(self, shard: int, name: str) -> Iterator[SourceFile]:
        """A data file, open to read a tensor from; every message names both."""
        path = self._data_path(shard)
        try:
            with about(f"{path}: tensor {name!r}"), SourceFile(path) as file:
                yield file
        except FileNotFoundError as error:
            said = f"the index {self.index_path} says that tensor {name!r} is in it"
            raise CheckpointError(f"{path}: not there, but {said}") from error

    def _check_overlap(self, entries: Iterable[Entry]) -> None:
        """Refuse tensors that together are much larger than the files they claim to be in.

        Tensors may share bytes of a file, but a small file in which thousands do would fill any memory.
        """
        claimed, shards = 0, set()
        for entry in entries:
            claimed += entry.size
            shards.add(entry.shard_id)
        if claimed <= _OVERLAP_ALLOWED:
            return
        there = sum(os.path.getsize(path) for path in map(self._data_path, shards) if os.path.exists(path))
        if claimed > 2 * there + _OVERLAP_ALLOWED:
            raise CheckpointError(f"{self.index_path}: tensors of {claimed} bytes in data files of {there} bytes")

    def _read(self, name: str, entry: Entry, keep: bool) -> NDArray[Any]:
        with self._data_file(entry.shard_id, name) as file:
            return read_entry(file, entry, self._big_endian, keep)


def open_bundle(prefix: str | os.PathLike[str]) -> Bundle:
    """Open a checkpoint: read its index, and nothing else.

    If saving over an existing checkpoint was interrupted after the old one was taken away and before the new one had
    its name (see `writer`), the new one is found under its temporary names, verified as a whole, and opened.

    Parameters
    ----------
    prefix : str or path
        ``runs/model.ckpt-600`` for the files ``runs/model.ckpt-600.index`` and ``runs/model.ckpt-600.data-...``; the
        name of one of these files is accepted too.

    Raises
    ------
    FileNotFoundError
        If there is no index.
    CheckpointError
        If the index is damaged.
    """
    path = checked_prefix("open", as_prefix(prefix))
    try:
        return Bundle(path)
    except FileNotFoundError:
        interrupted = _interrupted(path)
        if interrupted is None:
            raise FileNotFoundError(errno.ENOENT, "no checkpoint there: no such file", index_path(path)) from None
        return interrupted


def _interrupted(prefix: str) -> Bundle | None:
    """The newest complete checkpoint among the temporary files of a prefix."""
    for _, token in files.temporaries(index_path(prefix)):
        with contextlib.suppress(CheckpointError, FileNotFoundError):  # cut off in the middle, or gone
            bundle = Bundle(prefix, token)
            for name in bundle:
                bundle.verify(name)
            return bundle
    return None


def read(prefix: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read a whole checkpoint.

    Parameters
    ----------
    prefix : str or path
        As for `open_bundle`.

    Returns
    -------
    dict
        Every tensor by name, in the order of the names' UTF-8 bytes. bfloat16 is ``ml_dtypes.bfloat16`` if that
        package is installed, else the uint16 of its bits; strings are object arrays of bytes.

    Raises
    ------
    FileNotFoundError
        If there is no index.
    CheckpointError
        If anything is damaged or missing.
    """
    return open_bundle(prefix).read_all()


def list_variables(prefix: str | os.PathLike[str]) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    """Name, dtype and shape of every tensor, sorted by name; the index alone is read.

    Raises
    ------
    FileNotFoundError, CheckpointError
        As for `open_bundle`.
    """
    bundle = open_bundle(prefix)
    return [(name, bundle.info(name).dtype, bundle.info(name).shape) for name in bundle]
