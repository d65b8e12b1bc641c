"""``minilstm convert`` between all formats with every library there: each result is run; damage is a ValueError."""

import itertools

import numpy as np
import pytest
from export.cases import EXAMPLES, make, simple
from export.worker import Worker
from helpers import assert_trees_equal

from minilstm import LSTM, Dense, Dropout, Embedding, Sequential, load_checkpoint, save_checkpoint
from minilstm.export import keras, npz, onnx, torch
from minilstm.export.convert import convert
from minilstm.params import flatten_names

pytestmark = pytest.mark.interop
FILES = {
    "tf": "m.ckpt", "tf1.0": "old.ckpt", "tf2": "objects.ckpt", "torch": "m.safetensors", "keras": "m.keras",
    "weights": "m.weights.h5", "onnx": "m.onnx", "npz": "m.npz",
}  # fmt: skip


def run_convert(worker, source, target, to):
    """The lines that the command reports, from a process where TensorFlow runs eagerly."""
    code = f"""
from minilstm.export.convert import convert
lines = []
assert convert({str(source)!r}, {str(target)!r}, to={to!r}, report=lines.append)
results["lines"] = np.array("\\n".join(lines))
"""
    return str(worker.run(code)["lines"])


@pytest.mark.parametrize("forget_bias", [0.0, 0.5])
def test_every_format_becomes_every_other_and_is_verified(tmp_path, forget_bias):
    layers = Embedding(6, 3), LSTM(4, forget_bias=forget_bias), Dropout(0.5), LSTM(2, forget_bias=forget_bias), Dense(2)
    case = make(Sequential(*layers))
    start = save_checkpoint(tmp_path / "start.ckpt", case.params, model=case.model, extra={"words": "abc"})
    sources = {}
    with Worker(TF_USE_LEGACY_KERAS="0") as worker:
        for kind, file in FILES.items():
            to = kind if kind in ("tf1.0", "tf2") else None
            lines = run_convert(worker, start, tmp_path / file, to)
            assert "verified: a random batch (3, 7) gives our outputs" in lines, lines
            assert "not verified" not in lines
            sources[kind] = tmp_path / file
        for (kind, source), target in itertools.product(sources.items(), ("m.onnx", "m.safetensors", "m.weights.h5")):
            lines = run_convert(worker, source, tmp_path / f"from-{kind}" / target, None)
            assert "\nverified: a random batch" in lines, lines
    for kind, source in sources.items():
        assert convert(source, tmp_path / f"back-from-{kind}.ckpt", report=lambda line: None)
        back = load_checkpoint(tmp_path / f"back-from-{kind}.ckpt")
        assert (back.model.config(), back.extra) == (case.model.config(), {"words": "abc"})
        if forget_bias == 0 or kind not in ("keras", "weights", "tf2"):
            assert_trees_equal(back.params, case.params)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes_are_verified_where_the_library_runs_them(tmp_path, dtype):
    case = make(Sequential(LSTM(3, forget_bias=0.5), Dense(1)), dtype=dtype)
    start = save_checkpoint(tmp_path / "start.ckpt", case.params, model=case.model)
    with Worker(TF_USE_LEGACY_KERAS="0") as worker:
        for kind in ("torch", "keras", "weights", "tf2", "onnx", "npz"):
            lines = run_convert(worker, start, tmp_path / FILES[kind], "tf2" if kind == "tf2" else None)
            if kind == "onnx":
                assert f"not verified: onnxruntime runs LSTMs in float32 alone, and this is {np.dtype(dtype)}" in lines
            else:
                assert "\nverified: a random batch (3, 7, 2) gives our outputs, to" in lines, lines
        assert np.dtype(dtype) == flatten_names(npz.load(tmp_path / "m.npz").params)["dense/bias"].dtype


@pytest.mark.parametrize(
    ("module", "name"),
    [(torch, "m.safetensors"), (keras, "m.keras"), (keras, "m.weights.h5"), (onnx, "m.onnx"), (npz, "m.npz")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damage_anywhere_is_a_valueerror_that_names_the_file_or_does_not_matter(tmp_path, module, name):
    case = simple(forget_bias=0.5)
    path = tmp_path / name
    module.save(path, case.model, case.params, extra={"words": ["a", "b"]})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for attempt in range(10 * EXAMPLES):
        damaged = bytearray(whole)
        if attempt % 2:
            del damaged[rng.integers(len(whole)) :]
        else:
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            module.load(path)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 3 * EXAMPLES
    assert all(name in message for message in messages)
