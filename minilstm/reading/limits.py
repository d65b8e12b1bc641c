"""What a file may claim before memory is allocated for it."""

from __future__ import annotations

from typing import NamedTuple

from ..tensorbundle.errors import CheckpointError


class Limits(NamedTuple):
    """What a file may claim; give a reader others if a file that you trust is beyond them.

    `file` is the size in bytes of a file that is read as a whole, `unpacked` how many bytes compressed data may have
    beyond the size of the file, `objects` the number of arrays in it or of nodes in a graph. For JSON texts, `text` is
    the length in characters, `items` the number of values and `depth` how deeply they are nested.
    """

    file: int = 16 << 30
    unpacked: int = 4 << 30
    objects: int = 100_000
    text: int = 64 << 20
    items: int = 4_000_000
    depth: int = 100


LIMITS = Limits()


def check_limit(what: str, found: int, limit: int) -> None:
    """Raise CheckpointError if `found`, which takes the place of ``{}`` in `what`, is above a limit.

    >>> check_limit("{} arrays", 3, limit=2)
    Traceback (most recent call last):
    minilstm.tensorbundle.errors.CheckpointError: 3 arrays, the limit is 2
    """
    if found > limit:
        raise CheckpointError(f"{what.format(found)}, the limit is {limit}")
