"""The ``.safetensors`` format, in NumPy alone.

A file is the length of the header in 8 bytes, the header in JSON, and the bytes of all tensors without gaps:

    {"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..reading import LIMITS, Limits, check_limit, from_json
from ..tensorbundle import dtypes
from .arrays import as_array_of

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?", "BF16": "<u2",
}  # fmt: skip


def encode(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a ``.safetensors`` file."""
    kinds = {np.dtype(code): kind for kind, code in DTYPES.items() if kind != "BF16"}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in tensors.items():
        offsets = [at, at := at + tensor.nbytes]
        kind = kinds[tensor.dtype.newbyteorder("<")]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers then begin at a multiple of 8
    little = (tensor.astype(tensor.dtype.newbyteorder("<"), copy=False) for tensor in tensors.values())
    return b"".join([len(text).to_bytes(8, "little"), text, *(tensor.tobytes() for tensor in little)])


def decode(data: bytes, limits: Limits = LIMITS) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors and the metadata in the bytes of a ``.safetensors`` file.

    bfloat16 is ``ml_dtypes.bfloat16`` if that package is installed, else the same numbers as float32.

    Raises ValueError for a tensor of another dtype, of another number of bytes than its shape says, for gaps and
    overlaps, and for what is beyond `limits`.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise ValueError(f"a header of {size} bytes does not fit into a file of {len(data)}")
    header = from_json(data[8 : 8 + size], limits)
    metadata = header.pop("__metadata__", {})
    if not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("metadata must be texts")
    check_limit("{} tensors", len(header), limits.objects)
    tensors, at, body = {}, 0, memoryview(data)[8 + size :]
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        kind, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if kind not in DTYPES:
            raise ValueError(f"tensor {name!r} is of dtype {kind}, wanted one of {sorted(DTYPES)}")
        if start != at or not at <= stop <= len(body):
            raise ValueError(f"tensor {name!r} is at bytes {start} to {stop} of {len(body)}, wanted it to be at {at}")
        try:
            array = as_array_of(body[start:stop], np.dtype(DTYPES[kind]), shape)
        except ValueError as error:
            raise ValueError(f"tensor {name!r}: {error}") from error
        tensors[name], at = (_bfloat16(array) if kind == "BF16" else array), stop
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes after the last tensor")
    return {name: tensors[name] for name in header}, metadata


def _bfloat16(bits: np.ndarray) -> np.ndarray:
    kind = dtypes.in_memory(dtypes.BFLOAT16)
    if kind == np.uint16:  # without ml_dtypes: a bfloat16 is the first half of a float32
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.view(kind)
