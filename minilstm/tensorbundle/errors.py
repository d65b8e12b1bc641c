"""The one error that the content of a checkpoint can cause."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint is damaged, incomplete or not one; the message names the file and the tensor.

    Whatever bytes a file holds, reading it either succeeds or raises this. It is not used for files that are not
    there at all (FileNotFoundError), nor for wrong arguments (ValueError, TypeError), nor for disks that fail
    (OSError).
    """
