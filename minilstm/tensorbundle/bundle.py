"""An open checkpoint, whatever its format: a read-only mapping of names to arrays."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minilstm.tensorbundle.errors import CheckpointError


class TensorInfo(NamedTuple):
    """What a checkpoint says about a tensor, without its bytes."""

    name: str
    dtype: np.dtype[Any]  # as the array will have it: object for strings, void if no array can hold it
    shape: tuple[int, ...]
    dtype_name: str  # as TensorFlow calls it: "float32", "string", "bfloat16"
    nbytes: int | None  # in the data files; None for the strings of a V1 file, which does not say
    crc32c: int | None  # of those bytes, masked, as stored; None for several parts, and in a V1 file
    shard: int  # the data file, counted from 0, and the place in it (of the first part; in a V1 file 0)
    offset: int
    parts: int  # 1, or more for a partitioned variable


class Bundle(abc.ABC):
    """An open checkpoint: a read-only mapping of names to arrays, which reads an array when it is requested.

    No file stays open, so there is nothing to close; a ``with`` block is accepted all the same.

    Attributes
    ----------
    prefix : str
        As it was given.
    format : str
        "V2", an index and data files; or "V1", TensorFlow's first format.
    num_shards : int
        The number of data files.
    unreadable : dict
        The tensors that no array can hold, by name, and why. They are names of the mapping like others, but reading one
        raises CheckpointError.
    """

    format: str
    prefix: str
    num_shards: int
    unreadable: dict[str, str]
    _tensors: Mapping[str, Any]  # what each format knows of them, in the order of `keys`

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 (nothing to do, in any format)
        pass

    def __repr__(self) -> str:
        return f"<Bundle {self.prefix!r}: {len(self)} tensors>"

    def keys(self) -> list[str]:
        """The tensors' names, in the order of their UTF-8 bytes; a partitioned variable once, under its full name."""
        return list(self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    @abc.abstractmethod
    def info(self, name: str) -> TensorInfo:
        """Describe a tensor, without reading it.

        Raises
        ------
        KeyError
            If there is none of that name.
        """

    @abc.abstractmethod
    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read one tensor.

        Returns
        -------
        array
            Of the stored shape, in native byte order; strings as an object array of bytes.

        Raises
        ------
        KeyError
            If there is none of that name.
        CheckpointError
            If no array can hold it, the data file is missing or too short, or the bytes contradict their checksum.
        """

    @abc.abstractmethod
    def verify(self, name: str) -> None:
        """Check a tensor's bytes against its checksum, in little memory (V1: in that of the block they are in).

        Raises
        ------
        KeyError, CheckpointError
            As reading the tensor would.
        """

    @abc.abstractmethod
    def check_files(self) -> None:
        """Check that the data files are there and long enough, without reading them.

        Raises
        ------
        CheckpointError
            If one is not.
        """

    def read_many(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Read these tensors; see `__getitem__`."""
        return {name: self[name] for name in names}

    def read_all(self, skip_unreadable: bool = False) -> dict[str, NDArray[Any]]:
        """Read every tensor; see `__getitem__`.

        Parameters
        ----------
        skip_unreadable : bool
            Whether to leave out what cannot be read, because no array can hold it or because it is damaged, instead of
            raising CheckpointError.
        """
        if not skip_unreadable:
            return self.read_many(self)
        tensors, fault = {}, None
        for name in self:
            try:
                tensors[name] = self[name]
            except CheckpointError as error:
                fault = error
        if fault is not None and not tensors:
            raise fault
        return tensors

    def _stored(self, name: str) -> Any:
        try:
            return self._tensors[name]
        except KeyError:
            raise KeyError(f"{self.prefix} has no tensor {name!r}") from None

    def _readable(self, name: str, path: str) -> Any:
        """What is known of a tensor; CheckpointError, which begins with the path, if no array can hold it."""
        stored = self._stored(name)
        if name in self.unreadable:
            raise CheckpointError(f"{path}: tensor {name!r} cannot be read: {self.unreadable[name]}")
        return stored
