"""The arrays and texts in an HDF5 file of Keras, which may refer to no other file.

HDF5 has four ways to take data from elsewhere: a dataset whose bytes are in another file of any kind (external
storage), one put together from other datasets (virtual), and links, external ones and soft ones. A file of weights
needs none of them. It also has datasets of any size whose bytes were never written, and read as zeros.
"""

from __future__ import annotations

import io
import re
import struct
from typing import Any

import numpy as np

from ..optional import library
from ..reading import LIMITS, Limits, check_limit

DEFLATE = 1032  # no compression of HDF5's own makes bytes fewer by more than this
PLAIN = re.compile(r"IEEE_F(16|32|64)(LE|BE)|STD_[IU](8|16|32|64)(LE|BE)")  # the types that are read
FOLDERS = ("layers/", "minilstm/")  # the only ones from which anything is read


def read_hdf5(data: bytes, limits: Limits = LIMITS) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays under ``layers/`` by name, and the texts under ``minilstm/``.

    Raises ValueError for anything that refers to another file or another place, for arrays whose bytes are not in the
    file, and for what is beyond `limits`; for damage also OSError and the other errors of h5py. ImportError without
    h5py.
    """
    h5py = library("h5py", "export.keras.read")
    arrays: dict[str, np.ndarray] = {}
    texts: dict[str, str] = {}
    with h5py.File(io.BytesIO(data), "r") as file:
        datasets = _datasets(h5py, file, limits)
        plain = [kind for name, kind in vars(h5py.h5t).items() if PLAIN.fullmatch(name)]
        claimed = sum(_check_stored(name, dataset, plain) for name, dataset in datasets.items())
        check_limit("arrays of {} bytes", claimed, len(data) + limits.unpacked)
        for name, dataset in datasets.items():
            if name.startswith("layers/"):
                arrays[name] = np.asarray(dataset[()])
            elif dataset.shape == () and h5py.check_string_dtype(dataset.dtype) is not None:
                texts[name] = _text(name, dataset, data)
    return arrays, texts


def _text(name: str, dataset: Any, data: bytes) -> str:
    """The one text of a dataset.

    Its bytes are in a heap, and h5py is not asked for them: in a heap whose sizes are damaged, HDF5 walks for ever.
    A dataset has the text's length, the heap's address and a number there; a heap has a head of 16 bytes, and each of
    its objects one that ends with the object's size, which is filled up to a multiple of 8.
    """
    if dataset.dtype.kind == "S":  # of a fixed length, which is not in a heap
        return bytes(dataset[()]).decode()
    at = dataset.id.get_offset()
    length, heap, number = struct.unpack_from("<IQI", data, at)
    magic, size = struct.unpack_from("<4s4xQ", data, heap)
    at, end = heap + 16, min(heap + size, len(data))
    while magic == b"GCOL" and at + 16 <= end:
        found, size = struct.unpack_from("<H6xQ", data, at)
        if found == number and length <= size <= end - at - 16:
            return data[at + 16 : at + 16 + length].decode()
        if found == 0:
            break
        at += 16 + (size + 7) // 8 * 8
    raise ValueError(f"{name!r}: the text is not where the file says that it is")


def _datasets(h5py: Any, file: Any, limits: Limits) -> dict[str, Any]:
    """The datasets in `FOLDERS` by name; a link of any other kind than a hard one is refused wherever it is."""
    found: dict[str, Any] = {}
    groups = [("", file)]
    seen = 0
    while groups:
        folder, group = groups.pop()
        for key in group:
            seen += 1
            check_limit("{} names in an HDF5 file", seen, limits.objects)
            name = f"{folder}{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise ValueError(f"{name!r} is a link to another place or file, which is never followed")
            check_limit(f"{name!r}: {{}} folders in one another", name.count("/"), limits.depth)
            node = group[key]
            if isinstance(node, h5py.Group):
                groups.append((f"{name}/", node))
            elif isinstance(node, h5py.Dataset) and name.startswith(FOLDERS):
                found[name] = node
    return found


def _check_stored(name: str, dataset: Any, plain: list[Any]) -> int:
    """The number of bytes that a dataset has in memory; ValueError unless they are in the file, as `plain` numbers."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name!r} takes its bytes from {'another file' if dataset.external else 'other datasets'}")
    size = int(dataset.nbytes)
    is_text = dataset.dtype.kind in "OS"
    # The exact type: of a float of other widths than it has bits, HDF5's conversion does not end.
    if dataset.shape != () if is_text else not any(dataset.id.get_type() == kind for kind in plain):
        raise ValueError(f"{name!r} has shape {dataset.shape} and dtype {dataset.dtype}, wanted numbers or one text")
    stored = int(dataset.id.get_storage_size())
    packed = dataset.compression is not None or bool(dataset.id.get_create_plist().get_nfilters())
    if size > stored * (DEFLATE if packed else 1):
        raise ValueError(f"{name!r} has {size} bytes, of which {stored} are in the file")
    return size
