"""Zip files and NumPy's ``.npy``, read with `Limits`, and bytes as an array.

.npy    magic, version, a header such as {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)}, the bytes
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..reading import LIMITS, Limits, check_limit

PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the only compressions that NumPy and Keras write
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def zipped(contents: Mapping[str, bytes]) -> bytes:
    """A zip of these files. Every file is dated 1980-01-01, so that the same model gives the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def unzipped(data: bytes, limits: Limits = LIMITS, only: tuple[str, ...] | None = None) -> dict[str, bytes]:
    """The files in a zip by name, or `only` some of them, all of which must be there.

    Raises ValueError for a name that is there twice, a compression other than deflate, and what is beyond `limits`;
    nothing is unpacked before. For a damaged zip, also what `zipfile` raises.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = {info.filename: info for info in archive.infolist() if only is None or info.filename in only}
        check_limit("{} files in a zip", len(archive.infolist()), limits.objects)
        if only is None and len(found) != len(archive.infolist()):
            raise ValueError("a zip that has two files of one name")
        if only is not None and set(found) != set(only):
            raise ValueError(f"a zip without {', '.join(sorted(set(only) - set(found)))}")
        strange = [name for name, info in found.items() if info.compress_type not in PLAIN]
        if strange:
            raise ValueError(f"{strange[0]!r} in the zip is compressed in another way than deflate")
        claimed = sum(info.file_size for info in found.values())
        check_limit("a zip that unpacks to {} bytes", claimed, len(data) + limits.unpacked)
        return {name: archive.read(info) for name, info in found.items()}


def from_npy(data: bytes) -> np.ndarray:
    """The array in the bytes of a ``.npy`` file; ValueError unless it has as many bytes as its shape says."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"an array of version {version}, wanted one of {list(HEADERS)}")
    shape, is_fortran, dtype = HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which is never read")
    return as_array_of(memoryview(data)[stream.tell() :], dtype, shape, "F" if is_fortran else "C")


def as_array_of(data: memoryview, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    """A view of bytes as an array, whose claims are compared with the number of bytes first."""
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"a shape must be of whole numbers, got {shape}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {tuple(shape)} and dtype {dtype} in {len(data)} bytes")
    return np.ndarray(tuple(shape), dtype, buffer=data, order=order)
