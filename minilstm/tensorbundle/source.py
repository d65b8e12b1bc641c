"""Reading files of unknown origin."""

from __future__ import annotations

import os
import stat

from minilstm.tensorbundle.errors import CheckpointError


class SourceFile:
    """A regular file, read in pieces; a context manager.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    CheckpointError
        If it is a folder, a pipe or a device: reading those may wait for ever. As in all methods, the caller adds the
        path to the message.
    """

    def __init__(self, path: str) -> None:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise CheckpointError("not a regular file")
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by __exit__)
        self.size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> SourceFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read_at(self, offset: int, size: int) -> bytes:
        """Read `size` bytes, which must be there.

        Raises
        ------
        CheckpointError
            If they are not; no memory is allocated for them then.
        """
        if offset + size > self.size:
            raise CheckpointError(f"{size} bytes at {offset} do not fit into a file of {self.size}: it is truncated")
        data = bytearray(size)
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target` with the bytes at `offset`."""
        self._file.seek(offset)
        filled = 0
        while filled < len(target):
            count = self._file.readinto(target[filled:])
            if not count:
                raise CheckpointError(f"the file ends {len(target) - filled} bytes early: something is rewriting it")
            filled += count
