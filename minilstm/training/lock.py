"""One run a folder: a file ``fit.lock`` with the process that trains there."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import stat
from collections.abc import Iterator
from typing import Any

from .. import files
from ..reading import from_json

LOCK_FILE = "fit.lock"


class RunLock:
    """A context in which no other `fit` may use a folder, which is made if it is missing.

    The lock names its process and host. A lock is stale if its process ended without removing it, which can be told on
    the same host: it is then taken over. It is removed at the end of the context, however that ends.

    Raises
    ------
    ValueError
        At the start, if another process, or this one, trains in the folder.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.path = os.path.join(directory, LOCK_FILE)
        self.pid = os.getpid()
        self.text = json.dumps({"pid": self.pid, "host": platform.node(), "started": _started(os.getpid())})
        self._is_new_folder = False

    def __enter__(self) -> RunLock:
        self._is_new_folder = not os.path.isdir(self.directory)
        files.make_directory(self.directory)
        with _alone(self.directory):
            for _ in range(100):  # each turn, another process has taken over a stale lock a moment before
                if self._created():
                    return self
                held = self._read()
                if held is not None:
                    self._take_away(held)
        raise ValueError(f"fit: {self.path}: many runs try to start here at once")

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            with open(self.path, encoding="utf-8") as file:
                is_mine = file.read(4096) == self.text and os.getpid() == self.pid  # and not a child of it
            if is_mine:
                files.remove(self.path)
            if self._is_new_folder:  # nothing was saved: the folder is empty, or this fails
                os.rmdir(self.directory)

    def _created(self) -> bool:
        """Create the lock, whole from its first moment on; False if there is one."""
        token = files.new_token()
        name = files.temporary_name(self.path, token)
        try:
            with files.open_temporary(self.path, token) as file:
                file.write(self.text.encode())
            try:
                os.link(name, self.path)
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                if os.path.lexists(self.path):
                    return False
                os.replace(name, self.path)
            return True
        finally:
            files.discard(name)

    def _read(self) -> str | None:
        """The text of a stale lock, or None if it has gone; ValueError if the lock is held, or cannot be read."""
        try:
            if not stat.S_ISREG(os.lstat(self.path).st_mode):
                raise ValueError(f"fit: {self.path} is not a file; remove it")
            with open(self.path, encoding="utf-8", errors="replace") as file:
                text = file.read(4096)
        except FileNotFoundError:
            return None
        try:
            holder = from_json(text)
            pid, host, started = holder["pid"], holder["host"], holder["started"]
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"fit: {self.path} is not a lock of fit; remove it if no run uses the folder") from None
        if host == platform.node() and not _is_alive(pid, started):
            return text
        where = "this process" if (pid, host) == (os.getpid(), platform.node()) else f"process {pid} on {host}"
        raise ValueError(
            f"fit: checkpoint_dir {self.directory!r} is in use by {where}; wait for its end or choose another "
            f"directory (if no run is left there, remove {self.path})"
        )

    def _take_away(self, stale: str) -> None:
        """Remove a lock with this text, and no other that was made meanwhile."""
        aside = f"{self.path}.{files.new_token()}"
        try:
            os.replace(self.path, aside)
        except FileNotFoundError:
            return
        with open(aside, encoding="utf-8", errors="replace") as file:
            is_stale = file.read(4096) == stale
        if not is_stale:  # put the new lock of another process back
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path)
        files.remove(aside)


@contextlib.contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Let one process, or thread, at a time look at the lock of a folder: two could take over a stale one at once.

    The system releases this when a process dies. Where it has no such locks, `_take_away` alone has to do.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _started(pid: int) -> Any:
    """When a process began, in the clock ticks of Linux; elsewhere None. A later process may have the same number."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _is_alive(pid: Any, started: Any) -> bool:
    """Whether the process that wrote a lock is still there; True if that cannot be told."""
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0 or os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return started is None or _started(pid) in (None, started)
