"""The index of a checkpoint, read and judged as a whole: which tensors there are, and where.

Everything that can be wrong without looking at the data files is found here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from minilstm.tensorbundle.dtypes import NAMES, STRING, name_of, why_unreadable
from minilstm.tensorbundle.errors import CheckpointError, about
from minilstm.tensorbundle.proto import Entry, Header, decode_entry, decode_header
from minilstm.tensorbundle.shapes import LARGEST, check_shape, item_size
from minilstm.tensorbundle.slices import Region, part_key, tile
from minilstm.tensorbundle.source import SourceFile
from minilstm.tensorbundle.table import read_table

_VERSION = 1  # of the format, as its consumer
_MAX_INDEX = 1 << 30  # bytes: more than ten million variables


class Stored(NamedTuple):
    """A tensor of the index: its entry, and for a partitioned one the parts and their places."""

    entry: Entry
    parts: tuple[tuple[Region, Entry], ...] = ()

    @property
    def why_unreadable(self) -> str:
        """Why no array can hold it; empty if one can."""
        return why_unreadable(self.entry.dtype)

    @property
    def pieces(self) -> list[Entry]:
        """The entries that have bytes in a data file: the parts, or the tensor's own."""
        return [part for _, part in self.parts] or [self.entry]


def read_index(path: str) -> tuple[Header, dict[str, Stored]]:
    """Read an index file.

    Returns
    -------
    tuple
        The header, and the tensors in the order of their UTF-8 names.

    Raises
    ------
    FileNotFoundError
        If there is none.
    CheckpointError
        If there is anything wrong with it; the message names the file and, if it is about one, the tensor.
    """
    with about(path), SourceFile(path) as file:
        if file.size > _MAX_INDEX:
            raise CheckpointError(f"{file.size} bytes are more than any index has")
        return _judged(read_table(file))


def _judged(items: Iterator[tuple[bytes, bytes]]) -> tuple[Header, dict[str, Stored]]:
    key, value = next(items, (None, b""))
    if key != b"":
        raise CheckpointError("there is no header")
    header = _judged_header(value)
    entries = {}
    for key, value in items:
        with about(label(key)):
            entries[key] = _judged_entry(decode_entry(value), header)
    # The parts of a variable have entries of their own, but are no tensors.
    claimed = {part_key(key, extents) for key, entry in entries.items() for extents in entry.slices}
    tensors = {}
    for key, entry in entries.items():
        if key not in claimed:
            with about(label(key)):
                try:
                    name = key.decode("utf-8")
                except UnicodeDecodeError:
                    if key[0] == 0:  # a part whose variable is not there
                        continue
                    raise CheckpointError("the name is not UTF-8") from None
                tensors[name] = Stored(entry, _parts(key, entry, entries) if entry.slices else ())
    return header, tensors


def label(key: bytes) -> str:
    """A tensor, by its key or its name in UTF-8, as messages spell it."""
    return f"tensor {key.decode('utf-8', 'backslashreplace')!r}"


def _judged_header(value: bytes) -> Header:
    with about("the header is damaged"):
        header = decode_header(value)
    if header.num_shards < 1:
        raise CheckpointError(f"the header counts {header.num_shards} data files")
    if header.endianness not in (0, 1):
        raise CheckpointError(f"the header says byte order {header.endianness}, neither little (0) nor big (1)")
    check_version(header.min_consumer, header.bad_consumers)
    return header


def check_version(min_consumer: int, bad_consumers: tuple[int, ...]) -> None:
    """Raise CheckpointError if a file, of either format, is not for readers like this one."""
    if min_consumer > _VERSION or _VERSION in bad_consumers:
        wanted = f"version {min_consumer} or more and none of {list(bad_consumers)}"
        raise CheckpointError(f"written for newer readers: it wants {wanted}, this is version {_VERSION}")


def _judged_entry(entry: Entry, header: Header) -> Entry:
    check_shape(entry.shape, entry.dtype)
    if not 0 <= entry.shard_id < header.num_shards:
        raise CheckpointError(f"data file {entry.shard_id} of {header.num_shards}")
    if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > LARGEST:
        raise CheckpointError(f"{entry.size} bytes at offset {entry.offset}")
    elements, item = math.prod(entry.shape), item_size(entry.dtype)
    if entry.slices or why_unreadable(entry.dtype):
        return entry  # only its parts have bytes; and how many bytes it should have is not known
    if entry.dtype == STRING and entry.size < elements + 4:  # a length takes at least one byte
        raise CheckpointError(f"{entry.size} bytes cannot hold {elements} strings")
    if entry.dtype != STRING and entry.size != elements * item:
        wanted = f"{elements * item} for shape {list(entry.shape)} of {NAMES[entry.dtype]}"
        raise CheckpointError(f"{entry.size} bytes, want {wanted}")
    return entry


def _parts(key: bytes, whole: Entry, entries: dict[bytes, Entry]) -> tuple[tuple[Region, Entry], ...]:
    """The parts of a partitioned variable, each with its place."""
    joined = []
    for extents, region in zip(whole.slices, tile(whole.shape, whole.slices), strict=True):
        part = entries.get(part_key(key, extents))
        shape = tuple(cut.stop - cut.start for cut in region)
        if part is None or part.slices:
            raise CheckpointError(f"the slice {extents} is missing")
        if part.dtype != whole.dtype or part.shape != shape:
            found = f"{name_of(part.dtype)} of shape {list(part.shape)}"
            raise CheckpointError(f"the slice {extents} is {found}, want {name_of(whole.dtype)} of {list(shape)}")
        joined.append((region, part))
    return tuple(joined)
