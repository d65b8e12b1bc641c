"""The arrays and texts in an HDF5 file of Keras, which may refer to no other file.

HDF5 has four ways to take data from elsewhere: a dataset whose bytes are in another file of any kind (external
storage), one put together from other datasets (virtual), and links, external ones and soft ones. A file of weights
needs none of them. It also has datasets of any size whose bytes were never written, and read as zeros.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ..optional import library
from ..reading import LIMITS, Limits, check_limit

DEFLATE = 1032  # no compression of HDF5's own makes bytes fewer by more than this
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
        claimed = sum(_check_stored(name, dataset) for name, dataset in datasets.items())
        check_limit("arrays of {} bytes", claimed, len(data) + limits.unpacked)
        for name, dataset in datasets.items():
            if name.startswith("layers/"):
                arrays[name] = np.asarray(dataset[()])
            elif dataset.shape == () and h5py.check_string_dtype(dataset.dtype) is not None:
                texts[name] = dataset[()].decode()
    return arrays, texts


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


def _check_stored(name: str, dataset: Any) -> int:
    """The number of bytes that a dataset has in memory; ValueError unless they are in the file itself."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name!r} takes its bytes from {'another file' if dataset.external else 'other datasets'}")
    size = int(dataset.nbytes)
    is_text = dataset.dtype.kind in "OS"
    if dataset.dtype.kind not in "fiuOS" or (is_text and dataset.shape != ()):
        raise ValueError(f"{name!r} has shape {dataset.shape} and dtype {dataset.dtype}, wanted numbers or one text")
    stored = int(dataset.id.get_storage_size())
    packed = dataset.compression is not None or bool(dataset.id.get_create_plist().get_nfilters())
    if size > stored * (DEFLATE if packed else 1):
        raise ValueError(f"{name!r} has {size} bytes, of which {stored} are in the file")
    return size
