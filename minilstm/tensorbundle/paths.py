"""The files of a checkpoint: ``PREFIX.index`` and ``PREFIX.data-SSSSS-of-NNNNN``."""

from __future__ import annotations

import contextlib
import os
import re

_SUFFIX = re.compile(r"\.index|\.meta|\.data-[0-9]{5,}-of-[0-9]{5,}")
_SUFFIX_AT_END = re.compile(rf"(?<=[^/\\])(?:{_SUFFIX.pattern})\Z")


def index_path(prefix: str) -> str:
    """The file that says which tensors there are and where."""
    return f"{prefix}.index"


def data_path(prefix: str, shard: int, num_shards: int) -> str:
    """The file that holds the bytes of the tensors of one shard."""
    return f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"


def checked_prefix(function: str, prefix: str | os.PathLike[str]) -> str:
    """The prefix as a str.

    Raises
    ------
    TypeError
        If it is not a path.
    ValueError
        If it ends in a folder and so names no files; the message begins with the name of the `function` called.
    """
    path = os.fspath(prefix)
    if not isinstance(path, str):
        raise TypeError(f"{function}: prefix must be a str or a path of str, got {path!r}")
    if not os.path.basename(path):
        raise ValueError(f"{function}: prefix must end in a file name such as 'model.ckpt', got {path!r}")
    return path


def as_prefix(path: str | os.PathLike[str]) -> str:
    """The prefix of a checkpoint that is named by one of its files, such as ``m.ckpt.index``; else the path as it is.

    A name that looks like such a file but is the prefix of a checkpoint of its own stays.
    """
    name = os.fspath(path)
    match = _SUFFIX_AT_END.search(name) if isinstance(name, str) else None
    return name[: match.start()] if match and os.path.isfile(name) and not os.path.exists(index_path(name)) else name


def checkpoint_files(prefix: str) -> list[str]:
    """The files of a checkpoint that exist, the index (without which the others are useless) first."""
    folder, base = os.path.split(prefix)
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        names = os.listdir(folder or os.curdir)
    found = [name for name in names if name.startswith(base) and _SUFFIX.fullmatch(name, len(base))]
    found.sort(key=lambda name: (not name.endswith(".index"), name))
    return [os.path.join(folder, name) for name in found]
