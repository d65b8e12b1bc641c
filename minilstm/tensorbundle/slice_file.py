"""Reading TensorFlow's first format, V1, which TensorFlow 0.x and ``Saver(write_version=V1)`` write.

A checkpoint is one file, or several shards; there is no index beside it. Each file is a sorted table (see `table`):

    key ""                what there is: every tensor's name, shape and dtype, and which slices of it are in this file
    key of a slice        the numbers of the slice (the keys are those of a partitioned variable in V2: see `slices`)

A tensor that is not partitioned has one slice, all of it. The values are the messages in `slice_proto`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minilstm.tensorbundle import dtypes, snappy
from minilstm.tensorbundle.bundle import Bundle, TensorInfo
from minilstm.tensorbundle.errors import CheckpointError, about
from minilstm.tensorbundle.index import check_version, label
from minilstm.tensorbundle.proto import Extent
from minilstm.tensorbundle.shapes import check_shape, item_size
from minilstm.tensorbundle.slice_proto import SavedTensor, decode_meta, decode_slice, why_unreadable
from minilstm.tensorbundle.slices import Region, part_key, tile
from minilstm.tensorbundle.source import SourceFile
from minilstm.tensorbundle.table import Table

_WHAT = "a checkpoint of TensorFlow's first format, which is one file without .index"


class _Part(NamedTuple):
    """A slice of a tensor: its place in the tensor, and the file it is in."""

    region: Region
    extents: tuple[Extent, ...]
    shard: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(cut.stop - cut.start for cut in self.region)


class _Sliced(NamedTuple):
    """A tensor of the checkpoint."""

    key: bytes  # its name in UTF-8
    shape: tuple[int, ...]
    dtype: int
    parts: tuple[_Part, ...]


class SliceBundle(Bundle):
    """An open checkpoint of TensorFlow's first format.

    Parameters
    ----------
    prefix : str
        As it was given.
    paths : list of str
        The file, or all the shards, in order.

    Raises
    ------
    FileNotFoundError
        If one is missing.
    CheckpointError
        If one is damaged or of another kind, or they contradict one another.
    """

    format = "V1"

    def __init__(self, prefix: str, paths: Sequence[str]) -> None:
        self.prefix = prefix
        self.num_shards = len(paths)
        self._paths = list(paths)
        self._tables: list[Table] = []
        found: dict[bytes, list[tuple[int, SavedTensor]]] = {}
        size = 0
        for shard, path in enumerate(paths):
            with about(path), SourceFile(path) as file, about(f"read as {_WHAT}"):
                table = Table(file)
                size += file.size
                for tensor in _tensors_of(table.find(file, b"")):
                    found.setdefault(tensor.name, []).append((shard, tensor))
                self._tables.append(table)
        self._tensors: dict[str, _Sliced] = {}
        for key in sorted(found):
            with about(f"{paths[found[key][0][0]]}: {label(key)}"):
                self._tensors[_name(key)] = _merged(key, found[key], size)
        unreadable = {name: why_unreadable(stored.dtype) for name, stored in self._tensors.items()}
        self.unreadable = {name: why for name, why in unreadable.items() if why}

    def info(self, name: str) -> TensorInfo:
        """See `Bundle.info`; the bytes are those of the array, since the file's own need not be read."""
        stored: _Sliced = self._stored(name)
        size = math.prod(stored.shape) * item_size(stored.dtype)
        return TensorInfo(
            name=name,
            dtype=dtypes.in_memory(stored.dtype),
            shape=stored.shape,
            dtype_name=dtypes.name_of(stored.dtype),
            nbytes=None if stored.dtype == dtypes.STRING else size,
            crc32c=None,
            shard=stored.parts[0].shard,
            offset=0,
            parts=len(stored.parts),
        )

    def __getitem__(self, name: str) -> NDArray[Any]:
        stored: _Sliced = self._readable(name, self._paths[0])
        # The parts come first: their bytes are there, while the shape of the whole is a claim.
        arrays = [self._read(name, stored, part) for part in stored.parts]
        if len(arrays) == 1:
            return arrays[0]
        whole = np.empty(stored.shape, dtypes.in_memory(stored.dtype))
        for part, array in zip(stored.parts, arrays, strict=True):
            whole[part.region] = array
        return whole

    def verify(self, name: str) -> None:
        """See `Bundle.verify`; the block that a part is in, and the part, are in memory."""
        stored: _Sliced = self._readable(name, self._paths[0])
        for part in stored.parts:
            self._read(name, stored, part)

    def check_files(self) -> None:
        """See `Bundle.check_files`; what opened has a whole table, whose end is the end of the file."""
        for path in self._paths:
            with about(path):
                try:
                    SourceFile(path).close()
                except FileNotFoundError:
                    raise CheckpointError("not there any more") from None

    def _read(self, name: str, stored: _Sliced, part: _Part) -> NDArray[Any]:
        path = self._paths[part.shard]
        with about(f"{path}: tensor {name!r}"), SourceFile(path) as file:
            value = self._tables[part.shard].find(file, part_key(stored.key, part.extents))
            if value is None:
                raise CheckpointError(f"its slice {part.extents} is missing")
            return decode_slice(value, stored.key, part.extents, stored.dtype, part.shape)


def _tensors_of(value: bytes | None) -> list[SavedTensor]:
    """The tensors that a file lists under the key ""."""
    if value is None:
        raise CheckpointError("there is no list of its tensors")
    with about("the list of its tensors is damaged"):
        tensors, (_, min_consumer, bad_consumers) = decode_meta(value)
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise CheckpointError("a tensor is in it twice")
    check_version(min_consumer, bad_consumers)
    return tensors


def _name(key: bytes) -> str:
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError:
        raise CheckpointError("the name is not UTF-8") from None


def _merged(key: bytes, found: list[tuple[int, SavedTensor]], size: int) -> _Sliced:
    """One tensor of what the files say about it, in files of `size` bytes together."""
    _, first = found[0]
    for shard, tensor in found:
        if (tensor.shape, tensor.dtype) != (first.shape, first.dtype):
            of_other = f"{dtypes.name_of(tensor.dtype)} of shape {list(tensor.shape)}"
            wanted = f"{dtypes.name_of(first.dtype)} of {list(first.shape)}"
            raise CheckpointError(f"in file {shard} it is {of_other}, want {wanted}")
    check_shape(first.shape, first.dtype)
    if math.prod(first.shape) > snappy.MOST_A_BYTE_YIELDS * size:  # an element takes a byte or more
        raise CheckpointError(f"files of {size} bytes cannot hold shape {list(first.shape)}")
    slices = [(shard, extents) for shard, tensor in found for extents in tensor.slices]
    regions = tile(first.shape, [extents for _, extents in slices])
    parts = [_Part(region, extents, shard) for region, (shard, extents) in zip(regions, slices, strict=True)]
    return _Sliced(key, first.shape, first.dtype, tuple(parts))
