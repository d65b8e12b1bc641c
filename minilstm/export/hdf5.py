"""The arrays and texts in an HDF5 file of Keras, which may refer to no other file.

Keras 3 has its weights in the folder ``layers``. The older files, which Keras 2, ``tf.keras`` and a ``model.save`` to
``.h5`` write, have the names of layers and weights, in their order, as attributes:

    /                    model_config: JSON, keras_version        in a file of weights alone, layer_names are here
    /model_weights       layer_names: ["lstm", "dense"]
    /model_weights/lstm  weight_names: ["lstm/lstm_cell/kernel:0", ...], which are datasets below this group
    /optimizer_weights   left aside

HDF5 has four ways to take data from elsewhere: a dataset whose bytes are in another file of any kind (external
storage), one put together from other datasets (virtual), and links, external ones and soft ones. A file of weights
needs none of them. It also has datasets of any size whose bytes were never written, and read as zeros.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..optional import library
from ..reading import LIMITS, Limits, check_limit
from ..tensorbundle.source import SourceFile

DEFLATE = 1032  # no compression of HDF5's own makes bytes fewer by more than this
PLAIN = re.compile(r"IEEE_F(16|32|64)(LE|BE)|STD_[IU](8|16|32|64)(LE|BE)")  # the types that are read
FOLDERS = ("layers/", "minilstm/")  # of a file of Keras 3: the only ones from which anything is read
ASIDE = ("optimizer/", "metrics/", "seed_generator/")  # its state of a training
TEXTS = ("model_config", "keras_version")  # of an older file
MAGIC = b"\x89HDF\r\n\x1a\n"
HEAP = b"GCOL\1"


class Content(NamedTuple):
    """What is in a file; `layers` are the names of each layer's arrays in order, if the file has them as attributes.
    `bare` are the names of the layers that have none.
    """

    arrays: dict[str, np.ndarray]
    texts: dict[str, str]
    layers: dict[str, list[str]] | None = None
    bare: tuple[str, ...] = ()


def is_hdf5(path: str) -> bool:
    """Whether a file begins as HDF5 does."""
    with SourceFile(path) as file:
        return file.size > len(MAGIC) and file.read_at(0, len(MAGIC)) == MAGIC


def read_hdf5(data: bytes, limits: Limits = LIMITS) -> Content:
    """The arrays under ``layers/`` by name and the texts under ``minilstm/``; of an older file its layers' arrays by
    their full names, the texts ``model_config`` and ``keras_version``, and `Content.layers`.

    Raises ValueError for anything that refers to another file or another place, for arrays whose bytes are not in the
    file, and for what is beyond `limits`; for damage also OSError and the other errors of h5py. ImportError without
    h5py.
    """
    h5py = library("h5py", "export.keras.read")
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(io.BytesIO(data), "r") as file:
        _check_heaps(data, file)
        datasets = _datasets(h5py, file, limits)
        layers = _layers(h5py, file, limits)
        texts = {}
        if layers is None:
            wanted = {name for name in datasets if name.startswith(FOLDERS)}
            others = sorted(name for name in datasets.keys() - wanted if not name.startswith(ASIDE))
            if others and "layers" in file:
                raise ValueError(f"the model holds {others[0]!r} besides its layers, so it is no row of layers")
        else:
            wanted = {name for names in layers.values() for name in names}
            texts = {name: text for name in TEXTS for text in _attribute(h5py, file, name) or ()}
            missing = sorted(wanted - datasets.keys())
            if missing:
                raise ValueError(f"the file has no {', '.join(missing[:5])}, which an attribute names")
        datasets = {name: dataset for name, dataset in datasets.items() if name in wanted}
        plain = [kind for name, kind in vars(h5py.h5t).items() if PLAIN.fullmatch(name)]
        claimed = sum(_check_stored(name, dataset, plain, data) for name, dataset in datasets.items())
        check_limit("arrays of {} bytes", claimed, len(data) + limits.unpacked)
        for name, dataset in datasets.items():
            if layers is not None or name.startswith("layers/"):
                arrays[name] = np.asarray(dataset[()])
            elif dataset.shape == () and h5py.check_string_dtype(dataset.dtype) is not None:
                texts[name] = bytes(dataset[()]).decode()
        filled = {name.split("/")[1] for name in arrays} if layers is None else {k for k, v in layers.items() if v}
        bare = [name for name in (_folders(file) if layers is None else layers) if name not in filled]
    return Content(arrays, texts, layers, tuple(bare))


def _folders(file: Any) -> list[str]:
    """The folders of the layers of a file of Keras 3, which are called after their classes."""
    return list(file["layers"]) if "layers" in file else []


def _check_heaps(data: bytes, file: Any) -> None:
    """Raise ValueError for a damaged heap, in which texts are: HDF5 would walk through it for ever.

    A heap has a head of 16 bytes, and each of its objects one that ends with the object's size, which is filled up to a
    multiple of 8. The object of number 0 is what is free; its size counts its head, too. If it were 0, HDF5 would stay
    where it is.
    """
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("addresses and sizes of other widths than 8 bytes")
    start, end = data.find(HEAP), 0
    while start >= 0:
        at, end = start + 16, start + int.from_bytes(data[start + 8 : start + 16], "little")
        while at + 16 <= min(end, len(data)):
            number, size = struct.unpack_from("<H6xQ", data, at)
            if number == 0 and size < 16:
                raise ValueError("damaged: a heap of texts with free space of no size")
            at += 16 + (size + 7) // 8 * 8 if number else size
        start = data.find(HEAP, start + 1)
        if not at <= end <= len(data) or 0 <= start < end:
            raise ValueError("damaged: a heap of texts with sizes that do not fit")


def _layers(h5py: Any, file: Any, limits: Limits) -> dict[str, list[str]] | None:
    """The full names of each layer's arrays, as the attributes of an older file have them; None for another file."""
    folder = "model_weights/" if "model_weights" in file else ""
    top = file[folder or "/"]
    names = list(_names(h5py, top, "layer_names"))
    if not names and "layer_names" not in top.attrs:
        return None
    layers = {name: [f"{folder}{name}/{w}" for w in _names(h5py, top[name], "weight_names")] for name in names}
    check_limit("{} names of weights", sum(map(len, layers.values())), limits.objects)
    if len(layers) != len(names):
        raise ValueError(f"layer_names are not distinct: {names}")
    return layers


def _names(h5py: Any, group: Any, attribute: str) -> Iterator[str]:
    """A list of names; one that is too long for an attribute is in several, which are numbered."""
    whole = _attribute(h5py, group, attribute)
    if whole is not None:
        yield from whole
        return
    count = 0
    while (part := _attribute(h5py, group, f"{attribute}{count}")) is not None:
        yield from part
        count += 1


def _attribute(h5py: Any, node: Any, name: str) -> list[str] | None:
    """The texts of an attribute, which may be one or a list; None if there is none of this name."""
    if name not in node.attrs:
        return None
    found = node.attrs.get_id(name)
    if 0 in found.shape:  # an empty list has Keras's default dtype
        return []
    if len(found.shape) > 1 or h5py.check_string_dtype(found.dtype) is None:
        raise ValueError(f"the attribute {name!r} has shape {found.shape} and dtype {found.dtype}, wanted texts")
    texts = np.ravel(np.asarray(node.attrs[name], object))
    return [text.decode() if isinstance(text, bytes) else str(text) for text in texts]


def _datasets(h5py: Any, file: Any, limits: Limits) -> dict[str, Any]:
    """The datasets by name; a link of any other kind than a hard one is refused wherever it is."""
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
            elif isinstance(node, h5py.Dataset):
                found[name] = node
    return found


def _check_stored(name: str, dataset: Any, plain: list[Any], data: bytes) -> int:
    """The number of bytes that a dataset has in memory; ValueError unless they are in the file, as `plain` numbers."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name!r} takes its bytes from {'another file' if dataset.external else 'other datasets'}")
    size = int(dataset.nbytes)
    is_text = dataset.dtype.kind in "OS"
    # The exact type: of a float of other widths than it has bits, HDF5's conversion does not end.
    if dataset.shape != () if is_text else not any(dataset.id.get_type() == kind for kind in plain):
        raise ValueError(f"{name!r} has shape {dataset.shape} and dtype {dataset.dtype}, wanted numbers or one text")
    start = dataset.id.get_offset()
    if dataset.dtype.kind == "O" and start is not None:  # its length, then where it is; HDF5 asks for the memory first
        length = int.from_bytes(data[start : start + 4], "little")
        if length > len(data):
            raise ValueError(f"{name!r} is a text of {length} bytes in a file of {len(data)}")
    stored = int(dataset.id.get_storage_size())
    packed = dataset.compression is not None or bool(dataset.id.get_create_plist().get_nfilters())
    if size > stored * (DEFLATE if packed else 1):
        raise ValueError(f"{name!r} has {size} bytes, of which {stored} are in the file")
    return size
