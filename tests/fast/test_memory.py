"""Memory that is used again: never while anybody can still read it."""

import gc
import itertools
import subprocess
import sys
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilstm import LSTM, RNN, Adam, Dense, GRUCell, Sequential, losses, value_and_grad
from minilstm.fast import loans, memory
from minilstm.fast.memory import LINE, RECYCLED, Pool, aligned, copy_rows, recycled
from minilstm.params import tree_leaves, tree_map

ENTRIES = RECYCLED // 4  # of float32: the smallest array that is recycled


@pytest.fixture
def pool(monkeypatch):
    """A pool of the test's own."""
    own = Pool(8 * RECYCLED)
    monkeypatch.setattr(memory, "_pool", own)
    return own


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 0, 4), (2 * ENTRIES,), (3, 7, 1001)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("make", [aligned, recycled])
def test_arrays_are_what_np_empty_makes(make, shape, dtype):
    array = make(shape, dtype)
    wanted = np.empty(shape, dtype)
    assert type(array) is np.ndarray
    assert (array.shape, array.dtype) == (wanted.shape, wanted.dtype)
    assert array.flags.writeable
    assert array.flags.c_contiguous
    if array.nbytes >= (1 if make is aligned else RECYCLED):
        assert address(array) % LINE == 0


@pytest.mark.parametrize("small", [0, memory.SMALL])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 40)), start=st.integers(0, 2))
def test_rows_are_copied_as_numbers_are(dtype, small, shape, start):
    """From one order of the leading axes to the other, out of the midst of an array into that of another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "SMALL", small)
        check_rows(dtype, shape, start)


def check_rows(dtype, shape, start):
    a, b, row = shape
    source = np.random.default_rng(0).normal(size=(a, b + start, row)).astype(dtype)
    source[0, 0, 0] = np.nan
    target = np.zeros((b, a + 2, row), dtype)
    copy_rows(target[:, 1:-1], source[:, start:].transpose(1, 0, 2))
    wanted = np.zeros_like(target)
    np.copyto(wanted[:, 1:-1], source[:, start:].transpose(1, 0, 2))
    assert target.tobytes() == wanted.tobytes()


def test_memory_is_used_again_by_the_next_array_of_the_size(pool):
    first = recycled((ENTRIES,), np.float32)
    where = address(first)
    del first
    second = recycled((2, ENTRIES // 4), np.float64)  # of other shape and dtype
    assert address(second) == where
    assert address(recycled((ENTRIES,), np.float32)) != where


VIEWS = {
    "slice": lambda x: x[3:7],
    "transposed": lambda x: x.reshape(2, -1).T,
    "of another dtype": lambda x: x.view(np.int32),
    "of a view": lambda x: x[1:].reshape(-1, 1)[::2].T[0],
    "broadcast": lambda x: np.broadcast_to(x, (2, x.size)),
    "memoryview": lambda x: memoryview(x),
    "without a copy": lambda x: np.frombuffer(x, np.float32),
    "strided": lambda x: np.lib.stride_tricks.sliding_window_view(x, 3),
    "flat iterator": lambda x: x.flat,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_holds_the_memory_as_the_array_does(pool, view):
    array = recycled((ENTRIES,), np.float32)
    where = address(array)
    held = view(array)
    del array
    assert pool.kept == 0
    assert address(recycled((ENTRIES,), np.float32)) != where
    del held
    gc.collect()
    assert where in [address(block) for blocks in pool.free.values() for block, _ in blocks]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans()), max_size=60), st.integers(0, 5))
def test_what_is_held_never_changes_and_what_is_kept_is_bounded(moves, limit):
    """Any order of making, viewing and dropping: every array has its own memory, filled with its own number."""
    whole, memory._pool = memory._pool, Pool(limit * RECYCLED)
    try:
        held = []
        for number, (size, drop, as_view) in enumerate(moves):
            array = recycled((ENTRIES * (1 + size),), np.float32)
            array[:] = number
            held.append((array[5::7] if as_view else array, number))
            del array
            del held[: drop if len(held) > drop else 0]
            for kept, wanted in held:
                assert np.all(kept == wanted)
            free = [block for block, _ in itertools.chain(*memory._pool.free.values())]
            assert memory._pool.kept == sum(block.size for block in free) <= limit * RECYCLED
            assert len({address(block) for block in free}) == len(free)
            assert all(memory._pool.free.values())
    finally:
        memory._pool = whole


def test_what_was_given_back_long_ago_goes_first(pool):
    blocks = [np.empty(n * RECYCLED, np.uint8) for n in (3, 2, 3, 1, 1)]  # two more than the pool may keep
    twos = weakref.ref(blocks[1])
    while blocks:
        block = blocks.pop(0)
        pool.give_back(block.size, block, block.size)
        del block
    assert {size // RECYCLED: len(free) for size, free in pool.free.items()} == {3: 2, 1: 2}
    assert pool.kept == pool.limit
    assert twos() is None


def test_a_cycle_that_the_collector_ends_while_a_block_is_taken_gives_its_memory_back(pool, monkeypatch):
    recycled((2 * ENTRIES,), np.float32)
    cycle = [recycled((ENTRIES,), np.float32)]
    cycle.append(cycle)
    del cycle
    pop = pool._pop

    def collect_first(key):  # within `take`, and so within its lock
        gc.collect()
        return pop(key)

    monkeypatch.setattr(pool, "_pop", collect_first)
    recycled((2 * ENTRIES,), np.float32)
    assert RECYCLED in pool.free


def test_threads_never_share_memory(pool):
    wrong = []

    def work(number):
        rng = np.random.default_rng(number)
        held = []
        for _ in range(300):
            array = recycled((ENTRIES * int(rng.integers(1, 3)),), np.float32)
            array[:] = number
            held.append(array[:: int(rng.integers(1, 4))])
            if len(held) > 3:
                held.pop(int(rng.integers(0, 4)))
            wrong.extend(x for x in held if not np.all(x == number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert pool.kept == sum(size for blocks in pool.free.values() for _, size in blocks) <= pool.limit


def test_what_training_steps_return_stays_as_it_was():
    """Parameters, slots, gradients, outputs and views of them, held over later steps of the same shapes."""
    model, optimizer = Sequential(LSTM(80), Dense(20)), Adam(1e-2)
    rng = np.random.default_rng(0)
    params = model.init(0, input_dim=140)
    state, held = optimizer.init(params), []
    for _ in range(6):
        x, y = (rng.standard_normal((16, 60, n), np.float32) for n in (140, 20))
        derive = value_and_grad(lambda params, x, y: losses.mse(model(params, x), y))
        grads = derive(params, x, y)[1]
        params, state = optimizer.update(params, grads, state)
        d_inputs = value_and_grad(lambda x, p=params, y=y: losses.mse(model(p, x), y))(x)[1]
        results = (params, grads, (state.m, state.v), model(params, x), d_inputs)
        views = tree_map(lambda x: x[1::3].T, results)
        assert sum(x.nbytes >= RECYCLED for x in tree_leaves(results)) >= 6  # there is something to be recycled
        held.append(((results, views), tree_map(np.copy, (results, views))))
        del results, views, grads, d_inputs
        for kept, wanted in held:
            for x, y in zip(tree_leaves(kept), tree_leaves(wanted), strict=True):
                np.testing.assert_array_equal(x, y)
        if len(held) == 4:
            del held[0]


def test_the_end_of_the_interpreter_is_quiet():
    program = (
        "import sys, numpy as np; from minilstm.fast import memory\n"
        "held = memory.recycled((1 << 20,), np.float32); cycle = [held]; cycle.append(cycle)\n"
        "sys.held = held; memory.more = memory.recycled((1 << 20,), np.float32)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not done.stderr


def resident(action):
    """The bytes, in megabytes, that are allocated after `action` and were not before."""
    tracemalloc.start()
    action()
    gc.collect()
    found = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return found / 1e6


@pytest.mark.parametrize("layer", [LSTM(64), RNN(GRUCell(64)), LSTM(64, num_proj=32)], ids=["LSTM", "GRU", "options"])
def test_workspaces_that_wait_are_bounded_in_bytes(layer, monkeypatch):
    """Long sequences of many lengths: each length has its own workspace, and the oldest are given back."""
    params = layer.init(seed=0, input_dim=2)
    loss = value_and_grad(lambda p, x: np.mean(layer(p, x)[0] ** 2))

    def passes():
        for time in range(400, 440):
            loss(params, np.ones((8, time, 2), np.float32))

    passes()  # what is made once
    monkeypatch.setattr(loans, "_pool", Pool(30 << 20))
    assert 15 < resident(passes) < 40  # a workspace has 3 to 8 MB, and its views 1 to 2
    assert 15e6 < loans._pool.kept <= 30 << 20
    monkeypatch.setattr(loans, "_pool", Pool(0))
    assert resident(passes) < 5


def test_the_usual_bound_is_256_megabytes():
    assert loans._pool.limit == 256 << 20
