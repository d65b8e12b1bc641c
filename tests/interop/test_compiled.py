"""The pass that numba compiles: equal to NumPy's and to the readable one, and left out where it is not wanted."""

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from helpers import assert_close, assert_trees_close, assert_trees_equal, error, largest, layer_gradients, named_leaves
from hypothesis import assume, given
from hypothesis import strategies as st
from rounding import float32_bound
from strategies import FORGET_BIASES
from test_lstm import (  # noqa: F401 - collected here again: float32 is compiled, all others are not
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
from test_optimizers import steps_of_adam

import minilstm
from minilstm import LSTM, Dense, LSTMState, value_and_grad
from minilstm.fast import compiled, loans
from minilstm.fast import lstm as fast_lstm
from minilstm.fast.adam import PIECE
from minilstm.fast.compiled import dense, functions, workers, workspace
from minilstm.fast.compiled.functions import BOUND, CHUNK, DENOMINATOR, DEPTH, LARGE, LONG_CHUNK, NUMERATOR
from minilstm.fast.compiled.tile import COLUMNS, ROWS, tile
from minilstm.fast.memory import Pool
from minilstm.fast.workspace import FOLD_INPUTS
from minilstm.params import tree_map

pytestmark = pytest.mark.interop


@pytest.fixture(autouse=True)
def _compiled_pass(monkeypatch):
    """Wanted in every test of this file, whatever the environment says, and no workspace from before."""
    monkeypatch.setenv("MINILSTM_COMPILED", "1")
    monkeypatch.setattr(loans, "_pool", Pool(loans.KEPT))
    assert compiled.can_compile(np.float32), f"numba {numba.__version__} is installed, and must be used"


@pytest.fixture
def three_parts(monkeypatch):
    """Batches are worked off in three parts by three threads, however small they are."""
    monkeypatch.setattr(workers, "count", lambda: 3)
    monkeypatch.setattr(workspace, "SHARED", 0)
    monkeypatch.setattr(workspace, "LEAST_ROWS", 1)


def moderate(*sizes, seed=0):
    """A case in float32 whose weights do not saturate the gates, so that rounding errors stay small."""
    params, inputs, state = case(*sizes, seed=seed, dtype=np.float32)
    kernel = params["lstm_cell"]["kernel"]
    kernel /= np.sqrt(len(kernel)).astype(np.float32)
    params["lstm_cell"]["bias"] /= 2
    return params, inputs, state


def in_float64(data):
    return tuple(tree_map(lambda x: x.astype(np.float64), tree) for tree in data)


def pulled_back(layer, params, inputs, state, seed):
    """Outputs and final state, and the gradients of their sums with random weights."""

    def function(tree):
        outputs, final = layer.apply(tree["params"], tree["inputs"], state=tree["state"])
        rng = np.random.default_rng(seed)
        weighted = [(rng.normal(size=a.shape).astype(np.float32) * a).sum() for a in (outputs, *final)]
        return sum(weighted), (outputs, final)

    (_, results), grads = value_and_grad(function, has_aux=True)({"params": params, "inputs": inputs, "state": state})
    return results, grads


def forget_what_is_installed():
    compiled._is_installed.cache_clear()
    compiled.workspace_class.cache_clear()


def workspaces_made(monkeypatch):
    """Which kinds of new workspaces are made, as they are made."""
    made = []
    numpys = fast_lstm.ColumnWorkspace
    monkeypatch.setattr(fast_lstm, "ColumnWorkspace", lambda *a: made.append("NumPy") or numpys(*a))
    cls = compiled.workspace_class()
    monkeypatch.setattr(compiled, "workspace_class", lambda: cls and (lambda *a: made.append("compiled") or cls(*a)))
    return made


SIZES = st.tuples(
    st.integers(1, 5),
    st.integers(1, 8),
    st.sampled_from([1, 2, 20, FOLD_INPUTS, FOLD_INPUTS + 1, 200]),
    st.sampled_from([1, 2, 3, 5, 8, 16, 17, 33, 40]),
)


@given(SIZES, FORGET_BIASES, st.integers(0, 999))
def test_the_compiled_pass_is_as_exact_as_numpys(sizes, forget_bias, seed):
    """Both to the readable pass in float64, or as far from it as rounding explains here: tests/rounding.py."""
    data = moderate(*sizes, seed=seed)
    layer = LSTM(sizes[3], forget_bias=forget_bias)
    found = pulled_back(layer, *data, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILSTM_COMPILED", "0")
        numpys = pulled_back(layer, *data, seed)
    reference = LSTM(sizes[3], forget_bias=forget_bias, backprop="readable")
    exact = pulled_back(reference, *in_float64(data), seed)
    for results in (found, numpys):
        assert_within_rounding(layer, data, seed, results, exact, 1e-6)
    assume(largest(exact[1]) > 1e-4)  # there is something to disagree about


def assert_within_rounding(layer, data, seed, found, exact, tolerance):
    """Errors are at most `tolerance`, or what rounding explains."""
    params, inputs, state = data
    outputs, final = exact[0]
    rng = np.random.default_rng(seed)
    cotangents = [rng.normal(size=a.shape).astype(np.float32) for a in (outputs, *final)]
    network = SimpleNamespace(cell=layer.cell, params=params["lstm_cell"], inputs=inputs, state=state, lengths=None)
    names = {"0/0": "outputs", "0/1/c": "c", "0/1/h": "h", "1/inputs": "gradient of x", "1/state/c": "gradient of c",
             "1/state/h": "gradient of h"}  # fmt: skip
    for (path, a), (_, b) in zip(named_leaves(found), named_leaves(exact), strict=True):
        if error(a, b) > tolerance:
            place = np.unravel_index(np.argmax(np.abs(a - b)), b.shape)
            name = names.get(path, path.replace("1/params", "rnn"))
            bound = float32_bound(network, cotangents, name, place)
            assert abs(a[place] - b[place]) <= bound, f"{path}: error {error(a, b):.3g}, bound {bound:.3g}"


def test_the_rounding_of_a_known_network_is_within_its_bound():
    """The gradient of one weight is off by 1.04e-6 here, where 1e-6 is usual."""
    data, layer = moderate(1, 6, 2, 5, seed=458), LSTM(5, forget_bias=2.25)
    exact = pulled_back(LSTM(5, forget_bias=2.25, backprop="readable"), *in_float64(data), 458)
    found = pulled_back(layer, *data, 458)
    for tolerance in (1e-6, 0):  # with 0 all of them are held against their bounds
        assert_within_rounding(layer, data, 458, found, exact, tolerance)
    found[1]["params"]["lstm_cell"]["kernel"][0, 0] += 2e-4
    with pytest.raises(AssertionError, match="bound"):
        assert_within_rounding(layer, data, 458, found, exact, 1e-6)


@given(SIZES, st.integers(0, 999))
def test_lengths_are_as_exact_as_in_numpys_pass(sizes, seed):
    """And the c of a sequence that has ended is carried to the last bit."""
    params, inputs, state = moderate(*sizes, seed=seed)
    lengths = np.random.default_rng(seed).integers(0, sizes[1] + 1, sizes[0])
    layer, call = LSTM(sizes[3]), {"sequence_length": lengths}
    (_, (outputs, final)), grads = layer_gradients(layer, params, inputs, state, seed, **call)
    exact = layer_gradients(LSTM(sizes[3], backprop="readable"), *in_float64((params, inputs, state)), seed, **call)
    assert_trees_close(((outputs, final), grads), (exact[0][1], exact[1]), 2e-5)
    dirty = inputs.copy()
    for row, length in enumerate(lengths):
        dirty[row, length:] = np.nan
        alone = LSTM(sizes[3]).apply(params, inputs[row : row + 1], LSTMState(*(part[row : row + 1] for part in state)),
                                     [length])[1]  # fmt: skip
        assert_trees_equal(alone.c[0], final.c[row])
    assert_trees_equal(layer_gradients(layer, params, dirty, state, seed, **call)[0][1], (outputs, final))


def one_step(z, c_before, c, h):
    functions.step_cell(z, c_before, c)
    functions.step_output(z[3 * len(c) :], c, h)


def test_a_gate_far_past_its_bound_is_shut_to_the_last_bit():
    """In vectors and in what is left of them."""
    units = 3 * COLUMNS + 1
    c_before = np.linspace(-3, 3, units, dtype=np.float32)
    c, h = np.empty_like(c_before), np.empty_like(c_before)
    for beyond in (1001.0, 1e20, 1e30, np.inf):
        z = np.repeat(np.array([-beyond, 0.3, beyond, -beyond], np.float32), units)
        one_step(z, c_before, c, h)
        assert_trees_equal(c, c_before)
        assert not h.any()


@given(
    st.integers(1, 200),
    st.sampled_from([1, 2, DEPTH, DEPTH + 3]),
    st.sampled_from([1, COLUMNS - 1, COLUMNS, 2 * COLUMNS + 1]),
    st.booleans(),
    st.integers(0, 999),
)
def test_products_of_a_dense_layer(n, depth, columns, shared, seed):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    x, kernel, g = draw(n, depth), draw(depth, columns), draw(n, columns)
    exact = lambda a, b: a.astype(np.float64) @ b.astype(np.float64)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "count", lambda: 3)
        patch.setattr(dense, "SHARED", 0 if shared else 1 << 40)
        found = dense.rows_times(x, kernel), dense.rows_times(g, kernel.T), dense.transposed_times(x, g)
    wanted = exact(x, kernel), exact(g, kernel.T), exact(x.T, g)
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b, 1e-6 * max(n, depth, columns) ** 0.5)  # the errors of a sum add up like a random walk
        assert a.dtype == np.float32
        assert a.flags.c_contiguous


def test_a_dense_layer_next_to_compiled_passes_does_not_wake_blas(monkeypatch):
    """Its products are compiled, and equal to NumPy's."""
    made = []
    for name in ("rows_times", "transposed_times"):
        original = getattr(dense, name)
        monkeypatch.setattr(dense, name, lambda *a, n=name, f=original: made.append(n) or f(*a))
    rng = np.random.default_rng(0)
    x, layer = rng.normal(size=(9, 40, 30)).astype(np.float32), Dense(50)
    params = layer.init(0, 30)
    run = lambda tree: (layer(tree["params"], tree["x"]) ** 2).sum()  # noqa: E731
    found = value_and_grad(run)({"params": params, "x": x})
    assert sorted(made) == ["rows_times", "rows_times", "transposed_times"]
    monkeypatch.setenv("MINILSTM_COMPILED", "0")
    wanted = value_and_grad(run)({"params": params, "x": x})
    assert_trees_close(found[1], wanted[1], 2e-6)
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    assert len(made) == 3


@pytest.mark.parametrize("batch", [1, 4])
def test_a_long_sequence_stays_close(batch):
    """To the same sequence in float64."""
    data = moderate(batch, 200, 3, 16)
    found = pulled_back(LSTM(16), *data, 0)
    exact = pulled_back(LSTM(16), *in_float64(data), 0)
    assert_trees_close(found, exact, 2e-6)


def test_the_fraction_is_tanh():
    """In float32, over all of where it is not 1, and at the points around which cases are told apart."""
    edges = np.nextafter(np.float32(BOUND), np.float32([0, 20]))
    x = np.concatenate([np.linspace(-12, 12, 200_001), edges, -edges, [0, 1e-30, -1e-30]]).astype(np.float32)
    z = np.concatenate([np.full_like(x, 20), x, np.zeros_like(x), np.full_like(x, 20)])  # gates i and o are 1
    c, h = np.empty_like(x), np.empty_like(x)
    one_step(z, np.zeros_like(x), c, h)
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
        readable = layer_gradients(LSTM(5, backprop="readable"), params, inputs, state)
    for (name, ours), (_, theirs) in zip(named_leaves(found), named_leaves(readable), strict=True):
        finite = np.isfinite(theirs)
        assert np.array_equal(np.isfinite(ours), finite), f"{name}: ours {ours}, readable {theirs}"
        assert_close(np.where(finite, ours, 0), np.where(finite, theirs, 0), 1e-6, name)
    assert np.isnan(found[0][0]) == np.isnan(bad)
    assert not np.isfinite(found[1]["inputs"]).all()


@given(
    st.integers(1, ROWS), st.integers(1, 40), st.booleans(), st.booleans(), st.integers(0, 3), st.integers(0, 999)
)
def test_a_tile_is_a_product(rows, depth, transposed, adds, padding, seed):
    """Of operands within larger arrays, and nothing around the tile is touched."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    a = draw(depth, rows + padding) if transposed else draw(rows, depth + padding)
    b, out = draw(depth, COLUMNS), draw(rows + 2, COLUMNS + padding)
    wanted = out.astype(np.float64)
    left = a[:, :rows].T if transposed else a[:, :depth]
    wanted[1:-1, :COLUMNS] = adds * wanted[1:-1, :COLUMNS] + left.astype(np.float64) @ b
    steps = (1, a.shape[1]) if transposed else (a.shape[1], 1)
    run_tile(rows, a.ravel(), *steps, b.ravel(), out.reshape(-1), out.shape[1], depth, adds)
    assert_close(out, wanted, 1e-6)
    assert np.array_equal(out[[0, -1]], wanted[[0, -1]].astype(np.float32))


@numba.njit
def run_tile(rows, a, a_row, a_step, b, out, out_row, depth, adds):
    tile(rows, a, 0, a_row, a_step, b, 0, out, out_row, out_row, depth, adds)


@given(
    st.integers(1, 3 * ROWS + 1),
    st.sampled_from([1, 2, DEPTH, DEPTH + 1, 2 * DEPTH + 3]),
    st.sampled_from([1, COLUMNS - 1, COLUMNS, COLUMNS + 1]),
    st.integers(0, 999),
)
def test_products_of_all_sizes(rows, depth, columns, seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((rows, depth), (depth, columns)))
    panels = np.zeros((workspace.panel_count(columns), depth, COLUMNS), np.float32)
    other = panels.copy()
    functions.pack(b, np.ones(columns, np.float32), panels, 0)
    functions.pack_transposed(np.ascontiguousarray(b.T), other)
    assert np.array_equal(panels, other)
    functions.unpack(panels, found := np.empty_like(b), False)
    assert np.array_equal(found, b)
    out = np.empty((rows, len(panels) * COLUMNS), np.float32)
    functions.product(a, 0, depth, panels, out, False)
    wanted = a.astype(np.float64) @ b
    assert_close(out[:, :columns] / np.sqrt(depth), wanted / np.sqrt(depth), 2e-6)
    assert not out[:, columns:].any()


@given(
    st.sampled_from([1, 2, CHUNK, CHUNK + 1, 3 * CHUNK - 1]),
    st.sampled_from([1, ROWS - 1, ROWS, ROWS + 1, 40]),
    st.integers(1, 3),
    st.data(),
)
def test_the_kernels_gradient_in_pieces(steps, rows, panels, data):
    check_gradient(steps, rows, panels, data.draw(st.integers(0, 999)))


@pytest.mark.parametrize("steps", [1, LONG_CHUNK, 2 * LONG_CHUNK + 1])
def test_the_gradient_of_a_large_kernel(steps):
    """Its pieces are longer."""
    rows = 530
    panels = LARGE // (rows * COLUMNS) + 1  # the width of a panel is that of the processor
    check_gradient(steps, rows, panels, 0)


def check_gradient(steps, rows, panels, seed):
    """Of two times as many steps, one after the other: the second is added to the first."""
    rng = np.random.default_rng(seed)
    columns, dz = (
        [rng.normal(size=(steps, width)).astype(np.float32) for _ in range(2)] for width in (rows, panels * COLUMNS)
    )
    out = np.full((panels, rows, COLUMNS), np.nan, np.float32)
    for number in range(2):
        functions.kernel_gradient(columns[number], 0, dz[number], number > 0, out)
    wanted = sum(x.T.astype(np.float64) @ y for x, y in zip(columns, dz, strict=True))
    found = np.concatenate(list(out), axis=1)
    assert_close(found / np.sqrt(steps), wanted / np.sqrt(steps), 2e-6)


@given(st.integers(1, 70), st.integers(1, 100), st.integers(0, 999))
def test_a_matrix_goes_into_panels_and_back(rows, columns, seed):
    rng = np.random.default_rng(seed)
    matrix, scale = rng.normal(size=(rows, columns)).astype(np.float32), rng.normal(size=columns).astype(np.float32)
    panels, back = np.zeros((-(-columns // COLUMNS), rows + 2, COLUMNS), np.float32), np.full_like(matrix, np.nan)
    transposed = np.zeros((-(-rows // COLUMNS), columns, COLUMNS), np.float32)
    functions.pack(matrix, scale, panels, 2)
    functions.pack_transposed(matrix, transposed)
    np.testing.assert_array_equal(np.concatenate(list(panels[:, 2:]), axis=1)[:, :columns], matrix * scale)
    np.testing.assert_array_equal(np.concatenate(list(transposed), axis=1)[:, :rows], matrix.T)
    for adds, wanted in ((False, matrix * scale), (True, 2 * (matrix * scale))):
        functions.unpack(np.ascontiguousarray(panels[:, 2:]), back, adds)
        np.testing.assert_array_equal(back, wanted)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_parts_of_a_batch_give_what_the_whole_gives(batch, three_parts, monkeypatch):
    """Outputs, states and all that belongs to a sequence to the bit; sums over the batch in another order."""
    data = moderate(batch, 9, 4, 20)
    results, grads = pulled_back(LSTM(20), *data, 0)
    monkeypatch.setattr(loans, "_pool", Pool(loans.KEPT))
    monkeypatch.setattr(workers, "count", lambda: 1)
    of_whole, grads_of_whole = pulled_back(LSTM(20), *data, 0)
    assert_trees_equal(results, of_whole)
    assert_trees_close(grads.pop("params"), grads_of_whole.pop("params"), 1e-6)
    assert_trees_equal(grads, grads_of_whole)


def test_the_same_bits_whichever_thread_comes_first(three_parts):
    data = moderate(7, 30, 4, 33)
    first = pulled_back(LSTM(33), *data, 0)
    for _ in range(20):
        assert_trees_equal(pulled_back(LSTM(33), *data, 0), first)


def test_two_models_trained_in_two_threads_while_each_uses_three(three_parts):
    test_two_models_trained_in_two_threads_are_those_trained_one_after_the_other(np.float32)


def test_small_passes_are_not_shared(monkeypatch):
    monkeypatch.setattr(workers, "count", lambda: 8)
    parts = lambda *sizes: len(workspace.CompiledWorkspace(*sizes, np.float32).parts)  # noqa: E731
    assert parts(50, 32, 1, 32) == 1
    assert parts(100, 64, 64, 128) == 8
    assert parts(100, 20, 64, 128) == 5
    assert parts(2000, 1, 64, 128) == 1


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_piece_is_done_once(threads):
    done = []
    workers.share([lambda n=n: done.append(n) for n in range(40)], threads)
    assert sorted(done) == list(range(40))


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_what_a_piece_raises_is_raised(failing):
    barrier = threading.Barrier(3, timeout=60)  # each of three threads has one piece

    def piece(n):
        barrier.wait()
        if n == failing:
            raise MemoryError(n)

    with pytest.raises(MemoryError, match=str(failing)):
        workers.share([lambda n=n: piece(n) for n in range(3)], 3)
    done = []
    workers.share([lambda: done.append(1)], 3)
    assert done == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_after_a_fork_the_child_has_threads_of_its_own():
    code = """if True:
        import os, threading
        from minilstm.fast.compiled import workers
        def both_at_once():
            barrier = threading.Barrier(2, timeout=60)
            workers.share([barrier.wait, barrier.wait], 2)
        both_at_once()
        child = os.fork()
        both_at_once()
        if child:
            assert os.waitpid(child, 0)[1] == 0
    """
    run_python(code)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"OPENBLAS_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}, 3),
        ({"OMP_NUM_THREADS": "2,1"}, 2),
        ({"OPENBLAS_NUM_THREADS": "0", "OMP_NUM_THREADS": "many"}, None),
        ({}, None),
    ],
)
def test_as_many_threads_as_blas_is_told_to_use(environment, wanted, monkeypatch):
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert workers.count() == (wanted or cores)


@pytest.mark.parametrize(("features", "width", "rows"), [({"sse2": True, "avx": True}, 8, 6), ({"sse2": True}, 4, 6)])
def test_processors_with_narrower_registers(features, width, rows, tmp_path):
    """What would be compiled there, run here."""
    code = f"""if True:
        import llvmlite.binding
        features = llvmlite.binding.FeatureMap({features!r})
        llvmlite.binding.get_host_cpu_features = lambda: features
        import numpy as np
        from minilstm.fast.compiled import functions, tile, workspace
        assert (tile.WIDTH, tile.COLUMNS, tile.ROWS) == ({width}, {2 * width}, {rows})
        a, b = (np.random.default_rng(0).normal(size=shape).astype(np.float32) for shape in ((15, 70), (70, 37)))
        panels = np.zeros((workspace.panel_count(37), 70, tile.COLUMNS), np.float32)
        functions.pack(b, np.ones(37, np.float32), panels, 0)
        out = np.empty((15, len(panels) * tile.COLUMNS), np.float32)
        functions.product(a, 0, 70, panels, out, False)
        assert np.abs(out[:, :37] - a.astype(float) @ b).max() < 2e-5
    """
    run_python(code, NUMBA_CACHE_DIR=str(tmp_path))


def run_python(code, **environment):
    environment = {**os.environ, "PYTHONPATH": str(Path(minilstm.__file__).parents[1]), **environment}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)


@pytest.mark.parametrize("setting", ["0", "1", None])
def test_the_environment_is_honoured(setting, monkeypatch):
    if setting is None:
        monkeypatch.delenv("MINILSTM_COMPILED")
    else:
        monkeypatch.setenv("MINILSTM_COMPILED", setting)
    made = workspaces_made(monkeypatch)
    layer_gradients(LSTM(4), *moderate())
    assert made == ["NumPy" if setting == "0" else "compiled"]
    monkeypatch.setenv("MINILSTM_COMPILED", "0")  # from one pass to the next too: kept workspaces know their kind
    layer_gradients(LSTM(4), *moderate())
    assert made[-1] == "NumPy"


def test_float64_is_never_compiled(monkeypatch):
    assert not compiled.can_compile(np.float64)
    made = workspaces_made(monkeypatch)
    layer_gradients(LSTM(4), *case(dtype=np.float64))
    assert made == ["NumPy"]


def test_a_large_kernel_is_left_to_numpy(monkeypatch):
    monkeypatch.setattr(compiled, "LARGEST", 6 * 16)
    made = workspaces_made(monkeypatch)
    layer_gradients(LSTM(4), *moderate(3, 5, 2, 4))
    layer_gradients(LSTM(4), *moderate(3, 5, 3, 4))
    assert made == ["compiled", "NumPy"]


def test_without_numba_numpys_pass_runs(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    forget_what_is_installed()
    try:
        made = workspaces_made(monkeypatch)
        layer_gradients(LSTM(4), *moderate())
        assert made == ["NumPy"]
    finally:
        monkeypatch.undo()
        forget_what_is_installed()


def test_a_numba_that_cannot_be_imported_is_a_warning(monkeypatch):
    """As one that does not go with the installed NumPy."""
    for name in [name for name in sys.modules if name.startswith("minilstm.fast.compiled.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: object())
    monkeypatch.setitem(sys.modules, "numba", None)  # importing it is an ImportError
    forget_what_is_installed()
    try:
        with pytest.warns(RuntimeWarning, match="numba is installed, but cannot be used"):
            assert not compiled.can_compile(np.float32)
    finally:
        monkeypatch.undo()
        forget_what_is_installed()


def test_where_nothing_can_be_cached_it_is_compiled_all_the_same(monkeypatch):
    asked, original = [], numba.njit

    def refuse(cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return original(**options)

    monkeypatch.setattr(numba, "njit", refuse)
    assert functions.compiled(functions.FAST)(lambda x: x + 1)(2) == 3
    assert asked == [True, False]


@given(st.sampled_from([1, 7, 64, 1000, PIECE + 3]), st.booleans(), st.integers(0, 999))
def test_the_compiled_adam_has_numpys_bits(entries, donate, seed):
    rng = np.random.default_rng(seed)
    start, *grads = (rng.normal(size=entries, scale=rng.choice([1e-9, 1, 1e9])).astype(np.float32) for _ in range(5))
    found, _ = steps_of_adam(minilstm.Adam(0.05), start, grads, donate)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "adam_loop", lambda dtype: None)
        wanted, _ = steps_of_adam(minilstm.Adam(0.05), start, grads, donate)
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_compiled_adam_passes_on_what_is_not_finite(bad):
    grad = np.array([1, bad, 1], np.float32)
    (w, *_), _ = steps_of_adam(minilstm.Adam(0.05), np.ones(3, np.float32), [grad], donate=True)
    assert np.isfinite(w).tolist() == [True, False, True]


def test_adam_is_compiled_in_float32_once_a_pass_has_loaded_numba(monkeypatch):
    assert compiled.adam_loop(np.float32) is not None
    assert compiled.adam_loop(np.float64) is None
    monkeypatch.setenv("MINILSTM_COMPILED", "0")
    assert compiled.adam_loop(np.float32) is None
    run_python("import numpy as np; from minilstm.fast import compiled; assert compiled.adam_loop(np.float32) is None")


def test_a_layer_gives_the_same_bits_before_and_after_a_pass_is_compiled():
    """A run that is resumed in a new process is to go on with the bits it would have had."""
    code = """if True:
        import sys
        import numpy as np
        from minilstm import LSTM, Dense, value_and_grad
        rng = np.random.default_rng(0)
        dense, lstm = Dense(1), LSTM(3)
        params, x = dense.init(0, 301), rng.normal(size=(40, 50, 301)).astype(np.float32)
        derive = value_and_grad(lambda params, x: (dense(params, x) ** 2).sum())
        before = dense(params, x), derive(params, x)[1]["kernel"]
        assert "numba" not in sys.modules
        lstm(lstm.init(0, 2), np.ones((2, 4, 2), np.float32))
        assert "numba" in sys.modules
        after = dense(params, x), derive(params, x)[1]["kernel"]
        for found, wanted in zip(after, before):
            np.testing.assert_array_equal(found, wanted)
    """
    run_python(code)


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
    run_python(code)
