"""The loops that numba compiles: equal to NumPy's and to the readable pass, and left out where they are not wanted."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from helpers import assert_close, assert_trees_close, error, largest, layer_gradients, named_leaves
from hypothesis import given
from hypothesis import strategies as st
from strategies import FORGET_BIASES
from test_kernels import (  # noqa: F401 - collected here again: float32 is compiled, all others are not
    case,
    test_a_generated_step_equals_a_differentiated_one,
    test_a_second_sweep_over_one_pass_gives_the_same_bits,
    test_long_sequences_are_worked_off_in_pieces_that_fit_together,
    test_nan_and_infinity_are_seen,
    test_passes_of_one_shape_may_be_open_at_the_same_time,
    test_results_share_no_memory,
    test_results_that_are_held_stay_as_they_were,
    test_the_fast_pass_equals_the_reference,
    test_truncated_backpropagation_needs_the_memory_of_its_window,
    test_two_models_trained_in_two_threads_are_those_trained_one_after_the_other,
)

import minilstm
from minilstm import LSTM, compiled, kernels, value_and_grad
from minilstm.compiled import BOUND, DENOMINATOR, NUMERATOR, CompiledLoops
from minilstm.loops import Loops
from minilstm.params import tree_map

pytestmark = pytest.mark.interop


@pytest.fixture(autouse=True)
def compiled_loops(monkeypatch):
    """Wanted in every test of this file, whatever the environment says, and no workspace from before."""
    monkeypatch.setenv("MINILSTM_COMPILED", "1")
    monkeypatch.setattr(kernels, "_free", {})
    assert compiled.applies(np.float32), f"numba {numba.__version__} is installed, and must be used"


def moderate(*sizes, seed=0):
    """A case in float32 whose weights do not saturate the gates, so that rounding errors stay small."""
    params, inputs, state = case(*sizes, seed=seed, dtype=np.float32)
    kernel = params["lstm_cell"]["kernel"]
    kernel /= np.sqrt(len(kernel)).astype(np.float32)
    return params, inputs, state


def pulled_back(layer, params, inputs, state, seed):
    """Outputs and final state, and the gradients of their sums with random weights."""

    def function(tree):
        outputs, final = layer.apply(tree["params"], tree["inputs"], state=tree["state"])
        rng = np.random.default_rng(seed)
        weighted = [(rng.normal(size=a.shape).astype(np.float32) * a).sum() for a in (outputs, *final)]
        return sum(weighted), (outputs, final)

    (_, results), grads = value_and_grad(function, has_aux=True)({"params": params, "inputs": inputs, "state": state})
    return results, grads


def loops_made(monkeypatch):
    """The classes of loops that new workspaces take, as they take them."""
    made = []
    for cls in (Loops, CompiledLoops):
        monkeypatch.setattr(kernels, cls.__name__, lambda *a, cls=cls, **k: made.append(cls) or cls(*a, **k))
    return made


SIZES = st.tuples(
    st.integers(1, 5),
    st.integers(1, 8),
    st.sampled_from([1, 2, 20, kernels.FOLD_INPUTS, kernels.FOLD_INPUTS + 1, 200]),
    st.sampled_from([1, 2, 3, 5, 8, 16, 17, 33, 40]),
)


@given(SIZES, FORGET_BIASES, st.integers(0, 999))
def test_compiled_loops_equal_numpys_and_the_readable_pass(sizes, forget_bias, seed):
    data = moderate(*sizes, seed=seed)
    layer = LSTM(sizes[3], forget_bias=forget_bias)
    found = pulled_back(layer, *data, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILSTM_COMPILED", "0")
        numpys = pulled_back(layer, *data, seed)
    readable = pulled_back(LSTM(sizes[3], forget_bias=forget_bias, backprop="reference"), *data, seed)
    assert_trees_close(found, numpys, 1e-6)
    assert_trees_close(found, readable, 1e-6)
    assert largest(readable[1]) > 1e-3


@pytest.mark.parametrize("batch", [1, 4])
def test_a_long_sequence_stays_close(batch):
    """To the same sequence in float64."""
    data = moderate(batch, 200, 3, 16)
    found = pulled_back(LSTM(16), *data, 0)
    exact = pulled_back(LSTM(16), *(tree_map(lambda x: x.astype(np.float64), tree) for tree in data), 0)
    assert_trees_close(found, exact, 2e-6)


def test_the_fraction_is_tanh():
    """In float32, over all of where it is not 1, and at the points around which cases are told apart."""
    edges = np.nextafter(np.float32(BOUND), np.float32([0, 20]))
    x = np.concatenate([np.linspace(-12, 12, 200_001), edges, -edges, [0, 1e-30, -1e-30]]).astype(np.float32)
    z = np.concatenate([np.full_like(x, 20), x, np.zeros_like(x), np.full_like(x, 20)])  # gates i and o are 1
    c, h = np.empty_like(x), np.empty_like(x)
    compiled._compiled().forward_step(z, np.zeros_like(x), c, h)
    wanted = np.tanh(x.astype(np.float64))
    assert_close(c, wanted, 5e-7, "tanh(j)")
    assert_close(h, np.tanh(wanted), 5e-7, "tanh(c)")
    assert not c[x == 0].any()
    square = np.linspace(0, BOUND, 20_001) ** 2
    fraction = np.sqrt(square) * np.polyval(NUMERATOR[::-1], square) / np.polyval(DENOMINATOR[::-1], square)
    assert error(fraction, np.tanh(np.sqrt(square))) < 1e-7


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_run_is_seen(batch, bad):
    """A weight that is not finite: the compiled loops and the readable pass agree on what is left finite.

    They need not agree on the rest: a saturated gate has the slope 0 in one and 1e-7 in the other, times infinity.
    """
    params, inputs, state = moderate(batch, 6, 2, 5)
    params["lstm_cell"]["kernel"][0, 7] = bad
    with np.errstate(all="ignore"):
        found = layer_gradients(LSTM(5), params, inputs, state)
        readable = layer_gradients(LSTM(5, backprop="reference"), params, inputs, state)
    for (name, ours), (_, theirs) in zip(named_leaves(found), named_leaves(readable), strict=True):
        finite = np.isfinite(theirs)
        assert np.array_equal(np.isfinite(ours), finite), f"{name}: ours {ours}, readable {theirs}"
        assert_close(np.where(finite, ours, 0), np.where(finite, theirs, 0), 1e-6, name)
    assert np.isnan(found[0][0]) == np.isnan(bad)
    assert not np.isfinite(found[1]["inputs"]).all()


@pytest.mark.parametrize("setting", ["0", "1", None])
def test_the_environment_is_honoured(setting, monkeypatch):
    if setting is None:
        monkeypatch.delenv("MINILSTM_COMPILED")
    else:
        monkeypatch.setenv("MINILSTM_COMPILED", setting)
    made = loops_made(monkeypatch)
    layer_gradients(LSTM(4), *moderate())
    assert made == [Loops if setting == "0" else CompiledLoops]
    monkeypatch.setenv("MINILSTM_COMPILED", "0")  # from one pass to the next too: kept workspaces know their kind
    layer_gradients(LSTM(4), *moderate())
    assert made[-1] is Loops


def test_float64_is_never_compiled(monkeypatch):
    assert not compiled.applies(np.float64)
    made = loops_made(monkeypatch)
    layer_gradients(LSTM(4), *case(dtype=np.float64))
    assert made == [Loops]


def test_without_numba_numpys_loops_run(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    compiled._compiled.cache_clear()
    try:
        made = loops_made(monkeypatch)
        layer_gradients(LSTM(4), *moderate())
        assert made == [Loops]
    finally:
        compiled._compiled.cache_clear()


def test_a_numba_that_cannot_be_imported_is_a_warning(monkeypatch):
    """As one that does not go with the installed NumPy."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: object())
    monkeypatch.setitem(sys.modules, "numba", None)  # importing it is an ImportError
    compiled._compiled.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="numba is installed, but cannot be used"):
            assert not compiled.applies(np.float32)
    finally:
        monkeypatch.undo()
        compiled._compiled.cache_clear()


def test_where_nothing_can_be_cached_it_is_compiled_all_the_same(monkeypatch):
    asked = []

    def refuse(numba, cache):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return "compiled"

    monkeypatch.setattr(compiled, "_compile", refuse)
    assert compiled._compiled.__wrapped__() == "compiled"
    assert asked == [True, False]


def test_numba_is_loaded_by_the_first_pass_that_can_use_it():
    code = """if True:
        import sys
        import numpy as np
        from minilstm import LSTM
        layer = LSTM(3)
        for dtype, loaded in ((np.float64, False), (np.float32, True)):
            layer(layer.init(0, 2, dtype), np.ones((2, 4, 2), dtype))
            assert ("numba" in sys.modules) == loaded, dtype
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(minilstm.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)
