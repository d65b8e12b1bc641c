"""The benchmark: its peers do the same work, its processes are the right ones, its tables are correct."""

import contextlib
import csv
import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close, assert_trees_close, assert_trees_equal

sys.path.insert(0, str(Path(__file__).parents[1]))
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import peers, work
from experiments.benchmark import tables as tables_module

PROCESSES = pytest.mark.skipif(not hasattr(os, "wait4"), reason="a child's peak memory is told by POSIX alone")
TIME = {"minilstm": 2.0, "minilstm, compiled": 1.0, "torch": 4.0, "jax": 8.0, "autograd's trace": 40.0, "NumPy": 0.5}
MEMORY = {"minilstm": 50.0, "minilstm, compiled": 150.0, "torch": 400.0, "jax": 300.0, "autograd's trace": 90.0}


@pytest.fixture(autouse=True)
def numpy_alone(monkeypatch):
    monkeypatch.setenv("MINILSTM_COMPILED", "0")


def numbers(name, out):
    """The numbers of a CSV file: {(peer, task, shape): the median over rounds}."""
    with open(out / name) as file:
        rows = list(csv.DictReader(file))
    unit = "milliseconds" if name == "benchmark.csv" else "mebibytes"
    shape = lambda row: tuple(int(row[key]) for key in ("time", "batch", "input", "units"))  # noqa: E731
    found = {}
    for row in rows:
        values = found.setdefault((row["peer"], row["task"], shape(row)), [])
        values.append(float(row[unit]))
        assert int(row["round"]) == len(values)
    return {key: np.median(values) for key, values in found.items()}


def tables(out):
    """The tables in benchmark.md: {title: rows of cells}."""
    blocks = (out / "benchmark.md").read_text().split("\n\n")
    read = lambda block: [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()]  # noqa: E731
    return {title: read(block) for title, block in itertools.pairwise(blocks) if block.startswith("|")}


def test_all_peers_get_the_same_batches():
    first, second = work.batches((5, 3, 2, 4)), work.batches((5, 3, 2, 4))
    assert_trees_equal(first, second)
    assert len(first) == work.BATCHES
    assert {(x.shape, y.shape) for x, y in first} == {((3, 5, 2), (3, 5, 1))}
    assert {array.dtype for pair in first for array in pair} == {np.dtype(np.float32)}
    assert len({x.tobytes() for x, _ in first}) == work.BATCHES


def test_our_peers_train_on_the_mean_squared_error():
    (x, y), *_ = work.batches((6, 4, 2, 3))
    derived, traced = peers.Minilstm(2, 3), peers.Traced(2, 3)
    assert derived.model.layers[0].uses_derivation
    assert not traced.model.layers[0].uses_derivation
    expected = np.mean((derived.forward(x) - y) ** 2)
    losses = [[peer.step(x, y) for _ in range(5)] for peer in (derived, traced)]
    assert_close(losses[0][0], expected, 1e-6)
    assert_close(losses[0], losses[1], 1e-6)
    assert losses[0][-1] < losses[0][0]
    assert_trees_close(derived.params, traced.params, 1e-5)


def test_generation_carries_its_state():
    peer = peers.Minilstm(1, 4)
    x = np.ones((1, 1, 1), np.float32)
    steps = [peer.generate(x)[0, 0, 0] for _ in range(3)]
    assert_close(steps, peer.forward(np.ones((1, 3, 1), np.float32))[0, :, 0], 1e-6)


def test_a_peer_in_the_wrong_environment_is_refused(monkeypatch):
    monkeypatch.setattr("minilstm.fast.compiled.can_compile", lambda dtype: False)
    with pytest.raises(RuntimeError, match=r"minilstm, compiled: a process for it needs .*'MINILSTM_COMPILED': '1'"):
        peers.Compiled(1, 2)
    monkeypatch.setattr("minilstm.fast.compiled.can_compile", lambda dtype: True)
    with pytest.raises(RuntimeError, match=r"minilstm: a process for it needs .*'MINILSTM_COMPILED': '0'"):
        peers.Minilstm(1, 2)


@pytest.mark.parametrize("inputs", [3, 200])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("large", [False, True])
def test_the_bare_products_are_those_of_a_step(large, inputs, batch, monkeypatch):
    """The counted operations are the operations of a step, and of the bias row of the kernel.

    With a large kernel, only the product for the gradient has that row.
    """
    monkeypatch.setattr("minilstm.fast.row_workspace.LARGE_KERNEL", 0 if large else 1 << 20)
    counted = []

    class Counting(np.ndarray):
        def __array_ufunc__(self, ufunc, method, *args, **kwargs):
            assert ufunc is np.matmul
            counted.append(2 * args[0].shape[0] * args[0].shape[1] * args[1].shape[1])

        def __array_function__(self, function, types, args, kwargs):
            assert function is np.dot
            counted.append(2 * args[0].size * args[1].size // args[0].shape[1])

    original = np.ones
    monkeypatch.setattr(np, "ones", lambda *args: original(*args).view(Counting))
    time, units = 4, 5
    work.products((time, batch, inputs, units))()
    bias = (1 if large else 2) * 2 * time * batch * 4 * units
    assert sum(counted) == work.step_operations((time, batch, inputs, units)) + bias
    assert len(counted) == 2 * time + 4 + (large or inputs == 200)


def test_the_operations_of_a_step_are_counted_by_hand():
    forward = 7 * 3 * (2 + 5) * 20 + 7 * 3 * 5 * 1  # multiplications: [x, h] by the kernel, h by Dense's
    backward_kernel = forward
    backward_states = 7 * 3 * 20 * 5 + 7 * 3 * 5
    assert work.step_operations((7, 3, 2, 5)) == 2 * (forward + backward_kernel + backward_states)


@PROCESSES
def test_jobs_are_measured_in_a_new_process():
    shape = (3, 2, 1, 4)
    printed, elapsed, memory = benchmark.in_process("minilstm", [("memory", shape), ("truncated", (120, 2, 1, 4))])
    assert printed == [0, 0]
    assert elapsed > 100  # an interpreter and NumPy take longer
    assert 20 < memory < 1000


def test_processes_may_write_byte_code_as_installed_peers_have_it(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    for peer in ("minilstm", "torch", "NumPy"):
        assert "PYTHONDONTWRITEBYTECODE" not in benchmark.command(peer)["env"]


def test_a_timed_job_gives_a_duration(monkeypatch):
    monkeypatch.setattr(work, "SECONDS", 0.01)
    for task in ("step", "forward", "generate", "products"):
        shape = (1, 1, 1, 4)
        assert 0 < work.do("minilstm", task, shape) < 1000, task


@PROCESSES
def test_a_worker_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"(?s)benchmark: minilstm ended with 1:.*no_such_task"):
        benchmark.in_process("minilstm", [("no_such_task", (1, 1, 1, 1))])
    with benchmark.Worker("minilstm") as worker:
        for _ in range(2):  # the second call says it again
            with pytest.raises(RuntimeError, match=r"(?s)benchmark: minilstm ended with 1:.*no_such_task"):
                worker.do(("no_such_task", (1, 1, 1, 1)))


@PROCESSES
def test_a_worker_does_several_jobs_and_ends():
    with benchmark.Worker("minilstm") as worker:
        for task in ("step", "forward"):
            assert 0 < worker.do((task, (1, 1, 1, 4))) < 1000
    assert worker.process.returncode == 0


def test_the_trace_is_measured_in_training_only():
    assert {task for task, _ in benchmark.timed_jobs("autograd's trace", benchmark.TASKS)} == {"step"}
    assert {task for task, _ in benchmark.timed_jobs("torch", benchmark.TASKS)} == {"step", "forward", "generate"}
    assert ("step", (3200, 32, 1, 32)) in benchmark.timed_jobs("minilstm", ["growth"])
    assert ("step", (3200, 32, 1, 32)) not in benchmark.timed_jobs("torch", ["growth"])
    assert benchmark.timed_jobs("minilstm", ["toy"]) == []
    for peer in ("minilstm", "torch", "NumPy"):
        jobs = benchmark.timed_jobs(peer, benchmark.TASKS)
        assert len(set(jobs)) == len(jobs)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """main with invented measurements. Keras is not installed, and the second of three rounds is slow."""
    calls = []

    rounds = []

    class Worker(contextlib.nullcontext):
        def __init__(self, peer):
            super().__init__(self)
            self.peer = peer
            if peer == "NumPy":
                rounds.append(10 if len(rounds) == 1 else 1)

        def do(self, job):
            calls.append((self.peer, job))
            return rounds[-1] * TIME[self.peer]

    def in_process(peer, jobs):
        calls.extend((peer, job) for job in jobs)
        factor = rounds[-1] if rounds else 1
        return [0.0 for _ in jobs], factor * 1000 * TIME[peer], MEMORY.get(peer, 0.0)

    monkeypatch.setattr(benchmark, "in_process", in_process)
    monkeypatch.setattr(benchmark, "Worker", Worker)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in ("keras", "tensorflow") else 1)
    monkeypatch.setattr(tables_module, "version", lambda module: "1.2")

    def run(*arguments):
        benchmark.main(["--out", str(tmp_path), *arguments])
        return tmp_path, calls

    return run


def test_the_peers_take_turns_and_medians_count(measured):
    out, calls = measured("--tasks", "step")
    one_round = [("NumPy", ("large product", ()))]
    for shape in benchmark.SHAPES:
        turn = ["minilstm", "minilstm, compiled", "autograd's trace", "torch", "jax"]
        one_round += [("NumPy", ("products", shape)), *((peer, ("step", shape)) for peer in turn)]
    assert calls == one_round * 3
    times = numbers("benchmark.csv", out)
    assert times["minilstm", "step", (50, 32, 1, 32)] == 2.0
    assert times["minilstm, compiled", "step", (200, 1, 1, 16)] == 1.0
    assert {task for _, task, _ in times} == {"step", "products"}


def test_ratios_are_over_the_fastest_of_the_other_libraries(measured, capsys):
    out, _ = measured("--rounds", "1")
    text = (out / "benchmark.md").read_text()
    assert capsys.readouterr().out == text
    assert "Not installed: keras (tensorflow)" in text
    assert "torch 1.2" in text
    assert text.split(", ")[1] == tables_module.processor() != ""
    found = tables(out)
    step = next(rows for title, rows in found.items() if title.startswith("One training step"))
    assert step[0][1:] == [
        "minilstm", "minilstm, compiled", "autograd's trace", "torch", "jax", "minilstm over fastest",
        "minilstm, compiled over fastest",
    ]  # fmt: skip
    assert step[2] == ["(50, 32, 1, 32)", "2.00", "1.00", "40.00", "4.00", "8.00", "0.500", "0.250"]
    assert step[-1] == ["geometric mean of 6", *[""] * 5, "0.500", "0.250"]
    bare = next(rows for title, rows in found.items() if title.startswith("The step's matrix products alone"))
    rate = 2 * work.LARGE**3 / 0.5
    limit = work.step_operations((100, 64, 128, 256)) / rate
    assert bare[5] == ["(100, 64, 128, 256)", *tables_module.cells(0.5, limit, 0.125, 0.25, limit / 2, 20.0, 80.0)]
    toy = next(rows for title, rows in found.items() if title.startswith("A toy program"))
    assert toy[2] == ["minilstm", "2.00", "0.500", "50.00", "0.125"]
    assert toy[-1] == ["jax", "8.00", "2.00", "300", "0.750"]
    generated = next(rows for title, rows in found.items() if title.startswith("One generated step"))
    assert generated[0][-2:] == ["minilstm over torch", "minilstm, compiled over torch"]
    growth = next(rows for title, rows in found.items() if title.startswith("How the step of minilstm grows"))
    assert growth[5] == ["3200 steps", "2.00", "1.00", "50.00", "50.00"]
    assert growth[-1] == ["512 units", "2.00", "1.00", "50.00", "-"]
    assert numbers("benchmark_memory.csv", out)["torch", "toy", work.TOY] == 400
    assert (out / "benchmark.png").stat().st_size > 5000


def test_written_results_can_be_read(measured):
    out, _ = measured()
    found = tables_module.Results.read(out)
    assert found.present == ["minilstm", "minilstm, compiled", "autograd's trace", "torch", "jax"]
    assert found.rounds == 3
    assert found.time.values["torch", "step", (50, 32, 1, 32)] == [4.0, 40.0, 4.0]  # the second round is slow
    assert found.memory("torch", "toy", work.TOY) == 400
    assert found.fastest("toy", work.TOY) == ("torch", "toy", work.TOY)


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds():
    shape, results = (1, 1, 1, 1), tables_module.Results(["minilstm", "torch", "jax"], [], 3)
    for peer, values in (("minilstm", [1, 20, 6]), ("torch", [2, 100, 3]), ("jax", [1, 5, 5])):
        for value in values:
            results.time.add(peer, "step", shape, value)
    ours = ("minilstm", "step", shape)
    assert results.fastest("step", shape) == ("torch", "step", shape)  # by the medians, 3 and 5
    assert results.time.ratio(ours, ("torch", "step", shape)) == 0.5  # the ratio of the medians is 2
    assert np.isnan(results.time.ratio(ours, results.fastest("forward", shape)))


def test_peers_and_tasks_are_selected(measured):
    out, calls = measured("--rounds", "1", "--peers", "minilstm", "torch", "--tasks", "generate", "toy")
    assert {peer for peer, _ in calls} == {"NumPy", "minilstm", "torch"}
    assert {job[0] for _, job in calls} == {"large product", "generate", "toy"}
    assert [title.split()[1] for title in tables(out)] == ["generated", "toy"]
    assert not (out / "benchmark.png").exists()


def test_minilstm_can_be_measured_alone(measured):
    out, _ = measured("--rounds", "1", "--peers", "minilstm", "--tasks", "step")
    step = next(iter(tables(out).values()))
    assert step[2] == ["(50, 32, 1, 32)", "2.00", "-"]


def test_the_toy_program_trains_and_saves_with_nothing_but_its_library(monkeypatch):
    """The process loads no other library, because its start is measured too."""
    monkeypatch.setattr(work, "TOY_STEPS", 30)
    fed, saved = [], []

    class Peer:
        def __init__(self, inputs, units):
            self.shape = (inputs, units)

        def step(self, x, y):
            fed.append((x.shape, y.shape, float(np.abs(x[:, 1:] - y[:, :-1]).max())))

        def save(self, folder):
            saved.append((Path(folder).is_dir(), self.shape))

    monkeypatch.setitem(work.PEERS, "own", Peer)
    work.toy("own")
    assert fed == [((32, 48, 1), (32, 48, 1), 0.0)] * 30  # targets are the inputs one year later
    assert saved == [(True, (1, 32))]
    code = "import sys, experiments.benchmark.work; print('minilstm' in sys.modules, 'autograd' in sys.modules)"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=benchmark.ROOT, capture_output=True, text=True, check=True).stdout
    assert found.split() == ["False", "False"]
