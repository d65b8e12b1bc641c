"""Files as bytes, and whatever goes wrong with their content as one kind of error."""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable
from typing import Any, TypeVar

from ..tensorbundle.errors import CheckpointError
from ..tensorbundle.paths import as_prefix
from .limits import LIMITS, Limits, check_limit

Function = TypeVar("Function", bound=Callable[..., Any])
READERS: list[str] = []  # the full names of all functions that `reader` marks


class reading:
    """In this block every error about the content of a file becomes a CheckpointError that begins with `path`.

    Errors of the disk (OSError) and of a missing library (ImportError) stay what they are. A message that begins with
    the path already stays as it is.

    >>> with reading("m.keras"):
    ...     {}["config"]
    Traceback (most recent call last):
    minilstm.tensorbundle.errors.CheckpointError: m.keras: damaged, or of another kind (KeyError: 'config')
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(as_prefix(path))

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, ImportError) or _is_of_the_disk(error):
            return
        text = str(error)
        if isinstance(error, ValueError) and text.startswith(self.path):
            return
        if isinstance(error, RecursionError):
            text = "damaged: it is nested too deeply"
        elif isinstance(error, MemoryError):
            text = f"too large for the memory there is{text and f': {text}'}"
        elif not isinstance(error, ValueError):
            text = f"damaged, or of another kind ({type(error).__name__}: {error})"
        raise CheckpointError(f"{self.path}: {text}") from error


def _is_of_the_disk(error: Exception) -> bool:
    """Whether an OSError is one; libraries raise a bare one about the content, without a number."""
    return isinstance(error, OSError) and not (type(error) is OSError and error.errno is None)


def reader(function: Function) -> Function:
    """Mark a function whose first argument is the path of a file that it reads: it runs in a `reading` block."""

    @functools.wraps(function)
    def disciplined(path: str | os.PathLike[str], *args: Any, **options: Any) -> Any:
        with reading(path):
            return function(path, *args, **options)

    READERS.append(f"{function.__module__}.{function.__qualname__}")
    return disciplined  # type: ignore[return-value]


def content(path: str | os.PathLike[str], limits: Limits = LIMITS) -> bytes:
    """All bytes of a regular file; CheckpointError for a pipe or a device, and for a file beyond ``limits.file``."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder, wanted a file", os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{os.fspath(path)}: not a regular file")
    check_limit("a file of {} bytes", status.st_size, limits.file)
    with open(path, "rb") as file:
        return file.read()
