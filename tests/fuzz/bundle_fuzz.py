"""Mutated checkpoints: each is refused with CheckpointError, or read as what its own index says it is.

    python -m tests.fuzz.bundle_fuzz --count 20000 --seed 0

Half of the mutations are blind. The others make the checksums right again, so that what they damage is seen by the
parser and not by the checksum: entries and headers rewritten field by field, block contents rearranged, Snappy elements
made up, data and their checksums changed together. A case is a function of (seed, number), so one that fails can be run
alone: ``--only NUMBER``. The state file is mutated as well.

What counts as a failure: any exception but CheckpointError, more than ten seconds, a blindly damaged checkpoint read as
something else than what was saved, or an array that is not what the index announces.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import os
import random
import signal
import struct
import tempfile
from pathlib import Path

import numpy as np

from minilstm import tensorbundle
from minilstm.tensorbundle import CheckpointError, crc32c, proto, strings, table
from minilstm.tensorbundle.varint import decode_varint, encode_varint

SECONDS = 10
INTERESTING = [0, 1, 2, 4, 7, 8, 10, 14, 16, 127, 128, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32, 2**62, 2**63]
GOLDEN = {
    "notebook_adam": "model.ckpt-5",
    "partitioned": "model.ckpt",
    "sharded2": "model.ckpt",
    "snappy_index": "lstm-12",
}


class BaseCheckpoint:
    """A sound checkpoint to start from."""

    def __init__(self, prefix):
        self.index = Path(f"{prefix}.index").read_bytes()
        self.shards = {path.name[len(prefix.name) :]: path.read_bytes() for path in prefix.parent.glob("*.data-*")}
        self.tensors = tensorbundle.read(prefix)
        self.items = list(table.read_table(Bytes(self.index)))


class Bytes:
    """A table's source in memory."""

    def __init__(self, data):
        self.data, self.size = data, len(data)

    def read_at(self, offset, size):
        return self.data[offset : offset + size]


def bases(folder):
    """Checkpoints of every kind: one written here, and those of TensorFlow that are small."""
    written = folder / "written"
    tensorbundle.write(
        written,
        {
            "empty": np.zeros((0, 3), np.float16),
            "flags": np.array([True, False]),
            "global_step": np.array(600, np.int64),
            "rnn/lstm_cell/bias": np.arange(8, dtype=np.float32),
            "rnn/lstm_cell/kernel": np.linspace(-1, 1, 24).reshape(3, 8),
            "rnn/lstm_cell/kernel/Adam": np.zeros((3, 8), np.complex64),
            "words": np.array([[b"one", b"", b"three" * 30]], object),
        },
    )
    yield BaseCheckpoint(written)
    golden = Path(__file__).resolve().parents[1] / "golden" / "checkpoints"
    for folder, prefix in GOLDEN.items():
        yield BaseCheckpoint(golden / folder / prefix)


# Bytes


def mutate_bytes(draw, data):
    """Damage anywhere: a few random edits."""
    mutated = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        at, size = draw.randrange(len(mutated) + 1), min(draw.choice([1, 1, 2, 4, 8, 40]), len(mutated))
        kind = draw.randrange(7)
        if kind == 0 and mutated:
            mutated[at % len(mutated)] ^= 1 << draw.randrange(8)
        elif kind == 1 and mutated:
            mutated[at % len(mutated)] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
        elif kind == 2:
            del mutated[at : at + size]
        elif kind == 3:
            mutated[at:at] = draw.randbytes(size)
        elif kind == 4:
            start = draw.randrange(len(mutated) - size + 1)
            mutated[at : at + size] = mutated[start : start + size]
        elif kind == 5:
            del mutated[at:]
        else:
            mutated[at:at] = encode_varint(draw.choice(INTERESTING))
    return bytes(mutated)


# Messages


def mutate_message(draw, data, depth=0):
    """Rewrite a message field by field, so that most of it still parses."""
    fields, at = [], 0
    try:
        while at < len(data):
            start = at
            tag, at = decode_varint(data, at, len(data))
            if tag & 7 == 0:
                _, at = decode_varint(data, at, len(data))
            elif tag & 7 == 2:
                size, at = decode_varint(data, at, len(data))
                at += size
            else:
                at += 4 if tag & 7 == 5 else 8
            fields.append((tag, data[start:at]))
    except CheckpointError:
        return mutate_bytes(draw, data)
    for _ in range(draw.choice([1, 1, 2])):
        kind, place = draw.randrange(6), draw.randrange(len(fields) + 1)
        if kind == 0:
            del fields[place : place + 1]
        elif kind == 1 and fields:
            fields.insert(place, draw.choice(fields))
        elif kind == 2:
            number = draw.randrange(1, 9)
            fields.insert(place, (number << 3, encode_varint(number << 3) + encode_varint(draw.choice(INTERESTING))))
        elif kind == 3:
            draw.shuffle(fields)
        elif place < len(fields):
            tag, field = fields[place]
            if tag & 7 == 0:
                field = encode_varint(tag) + encode_varint(draw.choice([*INTERESTING, draw.randrange(1000)]))
            elif tag & 7 == 2:
                inner = field[len(encode_varint(tag)) :]
                size, start = decode_varint(inner, 0, len(inner))
                content = mutate_message(draw, inner[start : start + size], depth + 1) if depth < 3 else b""
                field = encode_varint(tag) + encode_varint(len(content)) + content
            else:
                field = field[:-4] + draw.randbytes(4)
            fields[place] = tag, field
    return b"".join(field for _, field in fields)


def mutate_items(draw, items):
    """Other entries, in a table that is sound."""
    items = list(items)
    for _ in range(draw.choice([1, 1, 2, 4])):
        place, kind = draw.randrange(len(items)) if items else 0, draw.randrange(8)
        if not items or kind == 0:
            items.insert(place, (draw.randbytes(draw.randrange(6)), draw.randbytes(draw.randrange(30))))
        elif kind == 1:
            del items[place]
        elif kind == 2:
            items[place] = mutate_bytes(draw, items[place][0]), items[place][1]
        elif kind == 3:
            items[place] = items[place][0], draw.choice(items)[1]
        elif kind == 4:
            items[place] = items[place][0], mutate_bytes(draw, items[place][1])
        else:
            items[place] = items[place][0], mutate_message(draw, items[place][1])
    if draw.random() < 0.9:
        items = sorted(dict(items).items())
    return table.encode_table(items)


# Blocks


def mutate_blocks(draw, base):
    """Other block contents, each with a right checksum."""
    items = base.items
    cuts = sorted({0, len(items), *(draw.randrange(len(items) + 1) for _ in range(draw.randrange(3)))})
    output, index = bytearray(), table.BlockBuilder(1)
    victim = draw.choice(["data", "data", "index", "metaindex", "snappy", "none"])
    for start, stop in itertools.pairwise(cuts):
        builder = table.BlockBuilder(draw.choice([1, 2, 16]))
        for key, value in items[start:stop]:
            builder.add(key, value)
        contents, kind = builder.contents(), 0
        if victim == "data":
            contents = mutate_contents(draw, contents)
        elif victim == "snappy":
            contents, kind = compressed(draw, contents), 1
        handle = append_block(output, contents, kind)
        index.add(builder.last_key + draw.choice([b"", b"\xff"]), handle)
    metaindex = table.BlockBuilder(1).contents()
    footer = append_block(output, mutate_contents(draw, metaindex) if victim == "metaindex" else metaindex)
    footer += append_block(output, mutate_contents(draw, index.contents()) if victim == "index" else index.contents())
    return bytes(output) + footer.ljust(40, b"\0") + table.MAGIC


def append_block(output, contents, kind=0):
    handle = encode_varint(len(output)) + encode_varint(len(contents))
    stored = contents + bytes([kind])
    output += stored + crc32c.mask(crc32c.crc32c(stored)).to_bytes(4, "little")
    return handle


def mutate_contents(draw, contents):
    if draw.random() < 0.5:
        return mutate_bytes(draw, contents)
    count = int.from_bytes(contents[-4:], "little")
    restarts = list(struct.unpack_from(f"<{count}I", contents, len(contents) - 4 - 4 * count))
    entries = contents[: len(contents) - 4 - 4 * count]
    if draw.random() < 0.5:
        entries = mutate_bytes(draw, entries)
    else:
        restarts.insert(draw.randrange(count + 1), draw.choice([0, 1, len(entries), draw.randrange(len(entries) + 1)]))
    return entries + struct.pack(f"<{len(restarts) + 1}I", *restarts, draw.choice([len(restarts), count]))


def compressed(draw, contents):
    """Snappy elements, right ones or made up."""
    elements = bytearray(encode_varint(draw.choice([len(contents)] * 4 + INTERESTING)))
    at = 0
    while at < len(contents):
        size = min(draw.randrange(1, 61), len(contents) - at)
        elements += bytes([(size - 1) << 2]) + contents[at : at + size]
        at += size
        if draw.random() < 0.1:
            elements += draw.choice([bytes([draw.randrange(256)]), draw.randbytes(3), b"\xfe\xff\xff", b"\xff" * 5])
    return bytes(elements)


# Data


def mutate_data_and_checksum(draw, base):
    """A tensor's bytes changed, and the checksum in its entry with them: another checkpoint, and maybe no sound one."""
    shards, items = dict(base.shards), list(base.items)
    place = draw.randrange(1, len(items))
    key, value = items[place]
    entry = proto.decode_entry(value)
    suffix = f".data-{entry.shard_id:05d}-of-{len(shards):05d}"
    data = bytearray(shards[suffix])
    mutated = mutate_bytes(draw, bytes(data[entry.offset : entry.offset + entry.size]))
    if entry.dtype != 7 or draw.random() < 0.3:
        mutated = mutated[: entry.size].ljust(entry.size, b"\0")
    shards[suffix] = bytes(data) + mutated
    crc = crc32c.crc32c(mutated)
    if entry.dtype == 7:  # what the reader will compute, if it gets so far

        def read(at, size):
            return mutated[at : at + size]

        with contextlib.suppress(CheckpointError):
            _, crc = strings.decode_strings(read, len(mutated), 3, keep=False)
    entry = entry._replace(offset=len(data), size=len(mutated), crc32c=crc32c.mask(crc))
    items[place] = key, proto.encode_entry(entry)
    return table.encode_table(items), shards


# Running


def mutated(draw, base):
    """A mutated checkpoint: its index, its data files, and whether it must be noticed or harmless."""
    kind = draw.randrange(10)
    if kind < 3:
        return mutate_bytes(draw, base.index), base.shards, True
    if kind < 5:
        shards = dict(base.shards)
        suffix = draw.choice(sorted(shards))
        shards[suffix] = mutate_bytes(draw, shards[suffix])
        return base.index, shards, True
    if kind < 7:
        return mutate_items(draw, base.items), base.shards, False
    if kind < 9:
        return mutate_blocks(draw, base), base.shards, False
    return (*mutate_data_and_checksum(draw, base), False)


def assert_names_the_file(error, prefix):
    """The message of an error must begin with the file it is about."""
    assert str(error).startswith(prefix), f"the message does not begin with the file: {error}"


def check(prefix, original, must_be_harmless):
    """Read a checkpoint in every way; what came of it."""
    try:
        bundle = tensorbundle.open(prefix)
    except CheckpointError as error:
        assert_names_the_file(error, prefix)
        with contextlib.suppress(CheckpointError):
            tensorbundle.latest(os.path.dirname(prefix))
        return "index refused"
    result, arrays = "read", {}
    for name in bundle:
        try:
            bundle.verify(name)
        except CheckpointError as error:
            assert_names_the_file(error, prefix)
            result = "tensor refused"
            try:
                bundle[name]
            except CheckpointError:
                continue
            raise AssertionError(f"{name!r} is refused by verify and read all the same") from None
        try:
            array = arrays[name] = bundle[name]
        except CheckpointError as error:  # parts that overlap are refused only where they are joined
            if bundle.info(name).parts > 1:
                result = "tensor refused"
                continue
            raise AssertionError(f"{name!r} is verified and refused all the same") from error
        info = bundle.info(name)
        assert array.shape == info.shape
        assert array.dtype == info.dtype
        assert array.dtype == object or array.nbytes == info.nbytes
        assert array.dtype != object or all(type(element) is bytes for element in array.flat)
    if must_be_harmless and result == "read":
        assert list(arrays) == list(original)
        for name, array in arrays.items():
            wanted = original[name]
            assert array.dtype == wanted.dtype
            assert array.shape == wanted.shape
            assert array.tolist() == wanted.tolist() if array.dtype == object else array.tobytes() == wanted.tobytes()
        return "harmless"
    with contextlib.suppress(CheckpointError):
        tensorbundle.read(prefix)
        bundle.check_files()
    return result


@contextlib.contextmanager
def time_limit(seconds):
    """Raise TimeoutError after this time, if the system has alarms."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def late(*_):
        raise TimeoutError(f"more than {seconds} seconds")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def run(count, seed, only=None):
    """Run `count` cases; returns how often each outcome occurred."""
    outcomes = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        starts = list(bases(Path(folder)))
        state = b'model_checkpoint_path: "fuzzed"\nall_model_checkpoint_paths: "fuzzed"\n'
        for number in range(count) if only is None else [only]:
            draw = random.Random(f"{seed}:{number}")
            base = draw.choice(starts)
            index, shards, must_be_harmless = mutated(draw, base)
            prefix = os.path.join(folder, "fuzzed")
            for suffix, content in [(".index", index), *shards.items()]:
                Path(prefix + suffix).write_bytes(content)
            Path(folder, "checkpoint").write_bytes(mutate_bytes(draw, state))
            try:
                with time_limit(SECONDS):
                    outcomes[check(prefix, base.tensors, must_be_harmless)] += 1
                    try:
                        tensorbundle.all_checkpoints(folder)
                    except CheckpointError:
                        outcomes["state file refused"] += 1
            except Exception as error:
                raise AssertionError(f"case {number} of seed {seed}: {type(error).__name__}: {error}") from error
            for suffix in shards:
                os.remove(prefix + suffix)
    return outcomes


def main(run=run, about=__doc__):
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this one case")
    options = parser.parse_args()
    run(10, -1)  # everything is imported and every table made
    before = peak_megabytes()
    outcomes = run(options.count, options.seed, options.only)
    for outcome, times in outcomes.most_common():
        print(f"{times:8d}  {outcome}")
    print(f"{peak_megabytes() - before:8.1f}  MB of memory over the start")


def peak_megabytes():
    """The most memory this process has had, in MB; 0 where that is not known."""
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
