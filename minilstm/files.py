"""Durable files: every call that changes the disk on behalf of something worth keeping goes through here.

A file is never changed in place. It is written under a temporary name in the same folder, flushed to the disk and
renamed over the old one, and then the folder is flushed, because a rename is a change of the folder:

>>> import os, tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     path = os.path.join(folder, "notes.json")
...     write_text(path, "{}")
...     write_text(path, '{"step": 1}')
...     print(os.listdir(folder))
['notes.json']

The steps are separate functions, called through this module (``files.replace(...)``), so that a test can record
their order and make each of them fail in turn. A temporary name ends in ``.minilstm-<8 hex digits>.tmp``: this is how
`sweep` recognises and removes the files of a killed process. One path has one writer at a time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from typing import BinaryIO

_TEMPORARY = re.compile(r"\.minilstm-([0-9a-f]{8})\.tmp")


def new_token() -> str:
    """Eight random hex digits, which mark the temporary files of one save."""
    return secrets.token_hex(4)


def temporary_name(path: str, token: str) -> str:
    """The name under which `path` is written before it is complete."""
    return f"{path}.minilstm-{token}.tmp"


def temporaries(path: str) -> list[tuple[str, str]]:
    """The temporary files of `path` that exist, as (name, token), the newest first."""
    folder, base = os.path.split(path)
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder or os.curdir) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name, len(base)) if entry.name.startswith(base) else None
            if match:
                with contextlib.suppress(FileNotFoundError):  # renamed by its writer a moment ago
                    written = entry.stat(follow_symlinks=False).st_mtime_ns
                    found.append((written, os.path.join(folder, entry.name), match[1]))
    return [(name, token) for _, name, token in sorted(found, reverse=True)]


def make_directory(path: str) -> None:
    """Create a folder and the missing ones above it, each flushed into the folder that holds it."""
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):  # made by another process meanwhile; or "a/" once "a" is there
            os.mkdir(folder)
        fsync_directory(os.path.dirname(folder))


def open_temporary(path: str, token: str) -> BinaryIO:
    """Create the temporary file of `path` for writing; it must not exist."""
    return open(temporary_name(path, token), "xb")


def fsync_file(file: BinaryIO) -> None:
    """Hand everything written so far to the disk, and wait for it."""
    file.flush()
    os.fsync(file.fileno())


def replace(source: str, target: str) -> None:
    """Rename `source` to `target` atomically, replacing a file of that name."""
    os.replace(source, target)


def remove(path: str) -> None:
    """Remove a file; if it is not there, do nothing."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def fsync_directory(path: str) -> None:
    """Hand the names in a folder (what was created, renamed, removed) to the disk, and wait for it."""
    if os.name == "nt":  # Windows opens no folders, and orders such changes itself
        return
    descriptor = os.open(path or os.curdir, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # this file system cannot flush folders
            raise
    finally:
        os.close(descriptor)


def sweep(*paths: str) -> None:
    """Remove the temporary files that killed writers of these paths left, and no others."""
    for path in paths:
        for name, _ in temporaries(path):
            remove(name)


def discard(*names: str) -> None:
    """Remove files after a failure, whose own error must not be replaced by another."""
    for name in names:
        with contextlib.suppress(OSError):
            remove(name)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file so that at every moment, also after a power cut, either the old or the new one is there.

    Parameters
    ----------
    path : str or path
        The folder must exist.
    data : bytes
        The whole content.

    Raises
    ------
    OSError
        If the disk refuses. The old file is then untouched, unless the very last step, flushing the folder, failed:
        then it may be either.
    """
    path = os.fspath(path)
    token = new_token()
    sweep(path)
    try:
        with open_temporary(path, token) as file:
            file.write(data)
            fsync_file(file)
        replace(temporary_name(path, token), path)
    except BaseException:
        discard(temporary_name(path, token))
        raise
    fsync_directory(os.path.dirname(path))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8 as `write_bytes` does; line ends stay as they are."""
    write_bytes(path, text.encode("utf-8"))
