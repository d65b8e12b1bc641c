"""Reading a checkpoint of the format V2: the index first, then the tensors that the caller requests.

A file may be hostile. Sizes are compared with the sizes of the files before any memory is allocated, every checksum is
verified, and any fault of the bytes raises CheckpointError.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilstm import files
from minilstm.tensorbundle import dtypes
from minilstm.tensorbundle.bundle import Bundle, TensorInfo
from minilstm.tensorbundle.errors import CheckpointError, about
from minilstm.tensorbundle.index import Stored, read_index
from minilstm.tensorbundle.paths import data_path, index_path
from minilstm.tensorbundle.proto import Entry
from minilstm.tensorbundle.source import SourceFile
from minilstm.tensorbundle.values import check_end, read_entry

_OVERLAP_ALLOWED = 64 << 20


class IndexedBundle(Bundle):
    """An open checkpoint of today's format, V2: an index, and data files."""

    format = "V2"

    def __init__(self, prefix: str, token: str | None = None) -> None:
        # With a token: the temporary files of a save that was interrupted (see `open_bundle`).
        self.prefix = prefix
        self._token = token
        self.index_path = index_path(prefix) if token is None else files.temporary_name(index_path(prefix), token)
        header, self._tensors = read_index(self.index_path)
        self.num_shards = header.num_shards
        self._big_endian = header.endianness == 1
        self.unreadable = {name: why for name, stored in self._tensors.items() if (why := stored.why_unreadable)}

    def info(self, name: str) -> TensorInfo:
        """See `Bundle.info`; the index says it all."""
        stored: Stored = self._stored(name)
        entry, pieces = stored.entry, stored.pieces
        return TensorInfo(
            name=name,
            dtype=dtypes.in_memory(entry.dtype),
            shape=entry.shape,
            dtype_name=dtypes.name_of(entry.dtype),
            nbytes=sum(piece.size for piece in pieces),
            crc32c=None if stored.parts else entry.crc32c,
            shard=pieces[0].shard_id,
            offset=pieces[0].offset,
            parts=len(pieces),
        )

    def __getitem__(self, name: str) -> NDArray[Any]:
        stored: Stored = self._readable(name, self.index_path)
        if not stored.parts:
            return self._read(name, stored.entry, keep=True)
        self._check_overlap(stored.pieces)
        whole = np.empty(stored.entry.shape, dtypes.in_memory(stored.entry.dtype))
        for region, part in stored.parts:
            whole[region] = self._read(name, part, keep=True)
        return whole

    def verify(self, name: str) -> None:
        """See `Bundle.verify`; at most a megabyte is in memory."""
        stored: Stored = self._readable(name, self.index_path)
        for piece in stored.pieces:
            self._read(name, piece, keep=False)

    def check_files(self) -> None:
        """See `Bundle.check_files`."""
        ends: dict[int, tuple[int, str]] = {}  # data file -> the end of its last tensor, and that tensor's name
        for name, stored in self._tensors.items():
            for piece in stored.pieces:
                ends[piece.shard_id] = max(ends.get(piece.shard_id, (0, name)), (piece.offset + piece.size, name))
        for shard, (end, name) in ends.items():
            with self._data_file(shard, name) as file:
                check_end(file, end)

    def read_many(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """See `Bundle.read_many`."""
        names = list(names)
        self._check_overlap(piece for name in names for piece in self._stored(name).pieces)
        return super().read_many(names)

    def read_all(self, skip_unreadable: bool = False) -> dict[str, NDArray[Any]]:
        """See `Bundle.read_all`."""
        self._check_overlap(piece for stored in self._tensors.values() for piece in stored.pieces)
        return super().read_all(skip_unreadable)

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
        sizes: dict[int, int] = {}
        claimed = 0
        for entry in entries:
            if entry.shard_id not in sizes:
                path = self._data_path(entry.shard_id)
                sizes[entry.shard_id] = os.path.getsize(path) if os.path.exists(path) else 0
            if entry.offset + entry.size <= sizes[entry.shard_id]:  # else reading it raises its own error
                claimed += entry.size
        there = sum(sizes.values())
        if claimed > 2 * there + _OVERLAP_ALLOWED:
            raise CheckpointError(f"{self.index_path}: tensors of {claimed} bytes in data files of {there} bytes")

    def _read(self, name: str, entry: Entry, keep: bool) -> NDArray[Any]:
        with self._data_file(entry.shard_id, name) as file:
            return read_entry(file, entry, self._big_endian, keep)
