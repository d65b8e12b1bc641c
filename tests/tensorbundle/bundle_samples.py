"""The checkpoints that real TensorFlow wrote, with what it reads from them, for the tests in this folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from minilstm.tensorbundle import crc32c
from minilstm.tensorbundle.proto import Entry, Header, encode_entry, encode_header
from minilstm.tensorbundle.table import encode_table

CHECKPOINTS = Path(__file__).resolve().parents[1] / "golden" / "checkpoints"
FOLDERS = sorted(path.name for path in CHECKPOINTS.iterdir() if path.is_dir())
FULL = os.environ.get("MINILSTM_FULL") == "1"  # long counts instead of short ones

# TensorFlow's object-based savers order the data by their object graph, and parts and shards are not written here.
FIRST_FORMAT = {"v1_adam", "v1_dtypes", "v1_partitioned", "v1_sharded"}
NOT_BY_NAME = {"partitioned", "sharded2", "snappy_index", "tf2_manager", "tf2_object"} | FIRST_FORMAT
WITH_BFLOAT16 = {"dtypes", "dtypes_nostring"}


def manifest(folder):
    return json.loads((CHECKPOINTS / folder / "manifest.json").read_text())


def prefix_of(folder):
    return CHECKPOINTS / folder / manifest(folder)["prefix"]


def files_of(prefix):
    """Index and data of a checkpoint of one shard."""
    return Path(f"{prefix}.index").read_bytes(), Path(f"{prefix}.data-00000-of-00001").read_bytes()


def put(prefix, index, data):
    """Write the two files of a checkpoint of one shard."""
    Path(f"{prefix}.index").write_bytes(index)
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
    return str(prefix)


def same(a, b):
    """Whether two dicts of arrays are the same to the bit: names, shapes, dtypes, NaN payloads, signs of zero."""
    return list(a) == list(b) and all(same_array(a[name], b[name]) for name in a)


def same_array(a, b):
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()


def tensors_of_every_kind():
    """A small checkpoint with something of everything."""
    return {
        "a/bias": np.arange(4, dtype=np.float32),
        "a/kernel": np.linspace(-1, 1, 6).reshape(2, 3),
        "a/kernel/Adam": np.zeros((2, 3), np.float16),
        "empty": np.zeros((0, 3), np.int16),
        "flags": np.array([True, False, True]),
        "global_step": np.array(7, np.int64),
        "names": np.array([[b"one", b""], [b"\x00\xff", "µ".encode() * 130]], object),
        "z": np.array(1 - 2j, np.complex64),
    }


def put_items(prefix, items, *shards):
    """Write a checkpoint of any index entries, raw or as messages, all block checksums right, and any data files."""
    encoded = []
    for key, value in items:
        if isinstance(value, Header):
            value = encode_header(value)
        elif isinstance(value, Entry):
            value = encode_entry(value)
        encoded.append((key, value))
    Path(f"{prefix}.index").write_bytes(encode_table(encoded))
    for number, data in enumerate(shards):
        Path(f"{prefix}.data-{number:05d}-of-{len(shards):05d}").write_bytes(data)
    return str(prefix)


def checksum(*pieces):
    """The checksum an entry stores for these bytes."""
    return crc32c.mask(crc32c.crc32c(b"".join(pieces)))
