"""minilstm beside PyTorch, JAX, Keras on TensorFlow and autograd's trace, on the same work, in one run.

    python -m experiments.benchmark            (pip install '.[bench]' installs the peers)

Every measurement is made in processes of its own, with two threads; the peers take turns, round after round, and the
median over rounds is what counts. Machines differ and are noisy: read the ratios, not the milliseconds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from . import common

Shape = tuple[int, ...]  # time, batch, input, units

SHAPES: tuple[Shape, ...] = (
    (50, 32, 1, 32), (50, 32, 64, 128), (35, 20, 200, 200), (100, 64, 128, 256), (35, 20, 650, 650), (200, 1, 1, 16),
)  # fmt: skip
GENERATION_UNITS = (32, 64, 128)
TIMES = (50, 200, 800, 3200)  # at batch 32, 1 input, 32 units
UNITS = (32, 64, 128, 256, 512)  # at 50 steps, batch 32, 1 input
THREADS = 2
BATCHES = 8  # different batches that are fed in turn
SECONDS = 1.5  # spent on each measurement in a process, after a warm-up
TOY_STEPS, TOY_WINDOW, TOY_BATCH, TOY_UNITS = 500, 48, 32, 32
DISTRIBUTIONS = {"jax": "jax", "torch": "torch", "keras": "keras", "minilstm": "minilstm"}


# --- in a process of its own ----------------------------------------------------------------------------------


def median_time(call: Callable[[int], Any]) -> float:
    """The median duration of ``call(n)`` in milliseconds: three to warm up, then as many as fit."""
    for n in range(3):
        call(n)
    durations: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(durations) < 5 or (time.perf_counter() < end and len(durations) < 1000):
        start = time.perf_counter()
        call(len(durations))
        durations.append(time.perf_counter() - start)
    return float(np.median(durations) * 1e3)


def batches(shape: Shape) -> list[tuple[np.ndarray, np.ndarray]]:
    """The batches that every peer is fed: inputs ``[batch, time, input]``, targets ``[batch, time, 1]``."""
    steps, batch, inputs, _ = shape
    rng = np.random.default_rng(0)
    draw = [rng.standard_normal((batch, steps, width)) for _ in range(BATCHES) for width in (inputs, 1)]
    return [(x.astype(np.float32), y.astype(np.float32)) for x, y in zip(draw[::2], draw[1::2], strict=True)]


def measure(peer: str, task: str, shape: Shape) -> float:
    """Milliseconds of one training step, forward pass or generation step."""
    from .peers import PEERS

    model = PEERS[peer](shape[2], shape[3])
    fed = batches(shape)
    if task == "step":
        return median_time(lambda n: model.step(*fed[n % BATCHES]))
    return median_time(lambda n: getattr(model, task)(fed[n % BATCHES][0]))


def gemm_rate() -> float:
    """The best rate of a large float32 matrix product in NumPy, in floating-point operations a millisecond."""
    a = np.ones((1536, 1536), np.float32)
    return 2 * 1536**3 / min(median_time(lambda n: a @ a) for _ in range(2))


def step_operations(shape: Shape) -> int:
    """Floating-point operations in the matrix products of a training step: forward, and twice that backward.

    The gradient with respect to the inputs is not needed, and not counted.
    """
    steps, batch, inputs, units = shape
    kernel = 2 * steps * batch * 4 * units
    return kernel * (2 * inputs + 3 * units) + 3 * 2 * steps * batch * units


def toy(peer: str) -> None:
    """A toy program from the import to the saved weights: windows of yearly sunspots, 500 steps of Adam."""
    from .peers import PEERS
    from .sunspots import DATA

    numbers = np.loadtxt(DATA, delimiter=",", skiprows=1)[:, 1]
    series = ((numbers - numbers.mean()) / numbers.std()).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(series, TOY_WINDOW + 1)
    rng = np.random.default_rng(0)
    model = PEERS[peer](1, TOY_UNITS)
    for _ in range(TOY_STEPS):
        chosen = windows[rng.integers(0, len(windows), TOY_BATCH)][..., None]
        model.step(np.ascontiguousarray(chosen[:, :-1]), np.ascontiguousarray(chosen[:, 1:]))
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)


# --- the run --------------------------------------------------------------------------------------------------


def in_process(*arguments: str) -> tuple[str, float, float]:
    """Run this module as a worker: what it printed, seconds from start to end, peak memory in MiB."""
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS))}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.benchmark", *arguments], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"experiments.benchmark {' '.join(arguments)} failed with exit code {process.returncode}")
    return printed, time.perf_counter() - start, usage.ru_maxrss / 1024


def jobs_for(peer: str) -> list[tuple[str, Shape]]:
    """What a peer is measured at: (task, shape)."""
    jobs: list[tuple[str, Shape]] = [("step", shape) for shape in SHAPES]
    if peer == "autograd's trace":
        return jobs
    jobs += [("forward", shape) for shape in SHAPES]
    jobs += [("generate", (1, 1, 1, units)) for units in GENERATION_UNITS]
    if peer == "minilstm":
        jobs += [("step", (steps, 32, 1, 32)) for steps in TIMES] + [("step", (50, 32, 1, units)) for units in UNITS]
    return list(dict.fromkeys(jobs))


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything and print the tables."""
    from .peers import PEERS

    flags = argparse.ArgumentParser(prog="python -m experiments.benchmark", description=__doc__.split("\n")[0])
    flags.add_argument("--out", type=Path, default=Path("runs") / "benchmark", help="folder of the tables and the plot")
    flags.add_argument("--rounds", type=common.positive, default=3, help="how often the peers take their turn")
    flags.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS), help="who is measured")
    flags.add_argument("--tasks", nargs="+", default=["step", "forward", "generate", "toy", "memory"], help="what is")
    flags.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    args = flags.parse_args(argv)
    if args.worker:
        return work(args.worker)
    present = [name for name in args.peers if importlib.util.find_spec(PEERS[name].module)]
    absent = [name for name in args.peers if name not in present]
    times: dict[tuple[str, str, Shape], list[float]] = {}
    toys: dict[str, list[tuple[float, float]]] = {name: [] for name in present}
    rates = []
    for _ in range(args.rounds):
        rates.append(float(in_process("--worker", "gemm")[0]))
        for name in present:
            jobs = [job for job in jobs_for(name) if job[0] in args.tasks]
            printed, _, _ = in_process("--worker", "times", name, json.dumps(jobs))
            for (task, shape), milliseconds in zip(jobs, json.loads(printed), strict=True):
                times.setdefault((name, task, shape), []).append(milliseconds)
            if "toy" in args.tasks and name != "autograd's trace":
                toys[name].append(in_process("--worker", "toy", name)[1:])
    memory = {}
    if "memory" in args.tasks:
        for name in present:
            for shape in SHAPES:
                memory[name, shape] = in_process("--worker", "times", name, json.dumps([("step", shape)]))[2]
    medians = {key: float(np.median(values)) for key, values in times.items()}
    report(args.out, present, absent, medians, toys, memory, float(np.max(rates)))


def work(arguments: list[str]) -> None:
    """What a worker process does."""
    kind, *rest = arguments
    if kind == "gemm":
        print(gemm_rate())
    elif kind == "toy":
        toy(rest[0])
    else:
        print(json.dumps([measure(rest[0], task, tuple(shape)) for task, shape in json.loads(rest[1])]))


def report(
    out: Path,
    present: list[str],
    absent: list[str],
    medians: dict[tuple[str, str, Shape], float],
    toys: dict[str, list[tuple[float, float]]],
    memory: dict[tuple[str, Shape], float],
    rate: float,
) -> None:
    """Print all tables, and write them, a CSV and a plot to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"{environment()}; {', '.join(f'{name} {version(name)}' for name in present)}"]
    lines += [f"not installed: {', '.join(absent)}"] if absent else []
    others = [name for name in present if name not in ("minilstm", "autograd's trace")]
    titles = {"step": "One training step", "forward": "Forward alone", "generate": "One generated step"}
    for task, title in titles.items():
        shapes = sorted({key[2] for key in medians if key[1] == task and key[0] != "minilstm"}, key=_order)
        if not shapes:
            continue
        rows = []
        for shape in shapes:
            values = [medians.get((name, task, shape)) for name in present]
            ratio = _ratio(medians, task, shape, others)
            limit = [f"{step_operations(shape) / rate:.2f}"] if task == "step" else []
            rows.append((str(shape), *("-" if v is None else f"{v:.2f}" for v in values), *limit, f"{ratio:.2f}"))
        if task == "step":
            ratios = [_ratio(medians, task, shape, others) for shape in shapes if shape != SHAPES[-1]]
            rows.append(("geometric mean of the first five", *[""] * (len(present) + 1), f"{_geometric(ratios):.2f}"))
        header = ["time, batch, input, units", *present, *(["GEMM limit"] if task == "step" else []), "ratio"]
        lines += ["", f"{title}, milliseconds; ratio: minilstm over the fastest peer", "", common.table(header, rows)]
    toy_rows = [
        (name, *(f"{np.median(column):.2f}" for column in np.array(runs).T)) for name, runs in toys.items() if runs
    ]
    if toy_rows:
        lines += ["", "A toy program from start to saved weights", ""]
        lines.append(common.table(("", "seconds", "peak memory, MiB"), toy_rows))
    if memory:
        shapes = list(SHAPES)
        rows = [(str(shape), *(f"{memory[name, shape]:.0f}" for name in present)) for shape in shapes]
        lines += ["", "Peak memory of the training step, MiB", ""]
        lines.append(common.table(("time, batch, input, units", *present), rows))
    growth: list[tuple[Shape, str]] = [((steps, 32, 1, 32), f"{steps} steps") for steps in TIMES]
    growth += [((50, 32, 1, units), f"{units} units") for units in UNITS]
    rows = [(label, f"{medians['minilstm', 'step', shape]:.2f}") for shape, label in growth
            if ("minilstm", "step", shape) in medians]  # fmt: skip
    if rows:
        lines += ["", "How minilstm's step grows (batch 32, 1 input; 32 units or 50 steps)", ""]
        lines.append(common.table(("", "milliseconds"), rows))
    text = "\n".join(lines)
    print(text)
    common.files.write_text(str(out / "benchmark.md"), text + "\n")
    csv = [(name, task, *shape, value) for (name, task, shape), value in medians.items()]
    common.write_csv(out / "benchmark.csv", ("peer", "task", "time", "batch", "input", "units", "milliseconds"), csv)
    draw(out / "benchmark.png", present, medians)


def environment() -> str:
    """The date, the processor count, Python and NumPy."""
    today = time.strftime("%Y-%m-%d")
    python = f"Python {platform.python_version()}, NumPy {np.__version__}"
    return f"{today}, {os.cpu_count()} cores, {THREADS} threads, {python}"


def version(name: str) -> str:
    """The installed version of a peer."""
    from .peers import PEERS

    module = PEERS[name].module
    return metadata.version(DISTRIBUTIONS[module]) if module != "minilstm" else common.minilstm.__version__


def draw(path: Path, present: list[str], medians: dict[tuple[str, str, Shape], float]) -> None:
    """Bars of the training step's time relative to minilstm's."""
    from minilstm import plotting

    ax = plotting.new_axes(10, 4)
    shown = [name for name in present if name != "autograd's trace"]
    for n, name in enumerate(shown):
        heights = [medians.get((name, "step", s), np.nan) / medians["minilstm", "step", s] for s in SHAPES]
        ax.bar(np.arange(len(SHAPES)) + (n - len(shown) / 2) * 0.2, heights, 0.2, label=name)
    ax.set_xticks(range(len(SHAPES)), [", ".join(map(str, shape)) for shape in SHAPES])
    ax.axhline(1, color="#555555", linewidth=0.8)
    ax.set(ylabel="time over minilstm's", xlabel="time steps, batch, inputs, units", title="One training step")
    ax.legend(frameon=False)
    plotting.save(ax, path)


def _ratio(medians: dict[Any, float], task: str, shape: Shape, others: list[str]) -> float:
    fastest = min((medians[name, task, shape] for name in others if (name, task, shape) in medians), default=np.nan)
    return medians["minilstm", task, shape] / fastest


def _geometric(ratios: list[float]) -> float:
    return float(np.exp(np.mean(np.log(ratios))))


def _order(shape: Shape) -> tuple[int, Shape]:
    return (SHAPES.index(shape), ()) if shape in SHAPES else (len(SHAPES), shape)


if __name__ == "__main__":
    main()
