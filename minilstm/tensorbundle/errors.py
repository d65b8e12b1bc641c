"""The one error that the content of a checkpoint can cause."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint is damaged, incomplete or not a checkpoint; the message names the file and the tensor.

    Whatever bytes a file holds, reading it either succeeds or raises this error. Three other faults have errors of
    their own: a file that is not there (FileNotFoundError), a wrong argument (ValueError, TypeError) and a disk that
    fails (OSError).
    """


class about:
    """Begin the message of every CheckpointError raised in the block with `what`: a file or a tensor.

    >>> with about("m.index"), about("tensor 'a'"):
    ...     raise CheckpointError("4 bytes, want 8")
    Traceback (most recent call last):
    minilstm.tensorbundle.errors.CheckpointError: m.index: tensor 'a': 4 bytes, want 8
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, CheckpointError):
            raise CheckpointError(f"{self.what}: {error}") from error
