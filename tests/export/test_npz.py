"""``.npz`` files: every model, every bit, no pickle."""

import numpy as np
import pytest
from helpers import assert_trees_equal

from minilstm import RNN, Bidirectional, Dense, GRUCell, LSTMCell, Sequential
from minilstm.export import npz


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_model_comes_back_bit_for_bit(tmp_path, dtype):
    model = Sequential(RNN(GRUCell(3)), Bidirectional(LSTMCell(2)), Dense(1, name="file"))
    params = model.init(0, 2, dtype=dtype)
    code = npz.save(tmp_path / "m.npz", model, params, extra={"words": ["a", "ß"]})
    loaded = npz.load(tmp_path / "m.npz")
    assert (loaded.model.config(), loaded.extra) == (model.config(), {"words": ["a", "ß"]})
    assert_trees_equal(loaded.params, params)
    namespace = {}
    exec(code, namespace)
    with namespace["arrays"] as arrays:
        assert np.array_equal(arrays["file/kernel"], params["file"]["kernel"])


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = Sequential(Dense(2))
    for name in ("a.npz", "b.npz"):
        npz.save(tmp_path / name, model, model.init(0, 3))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_file_of_another_kind_is_a_valueerror(tmp_path):
    (tmp_path / "m.npz").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match=r"m\.npz: damaged, or of another kind \(BadZipFile"):
        npz.load(tmp_path / "m.npz")
    np.savez(tmp_path / "m.npz", **{"dense/kernel": np.zeros((1, 1)), "dense/bias": np.zeros(1)})
    with pytest.raises(ValueError, match="give the model"):
        npz.load(tmp_path / "m.npz")
    assert npz.load(tmp_path / "m.npz", Sequential(Dense(1))).params["dense"]["bias"].tolist() == [0]
