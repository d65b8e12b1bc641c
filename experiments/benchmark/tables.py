"""The measurements of `experiments.benchmark` as tables, two CSV files and a plot."""

from __future__ import annotations

import csv
import os
import platform
import re
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .. import common
from .peers import PEERS, Compiled, Minilstm, PyTorch, Traced
from .work import LARGE, NUMPY, THREADS, TOY, WINDOW, Shape, step_operations

OURS, COMPILED, TRACED, TORCH = Minilstm.name, Compiled.name, Traced.name, PyTorch.name
SHAPE, FASTEST = "time, batch, input, units", "fastest"
TABLES_FILE, TIMES_FILE, MEMORY_FILE = "benchmark.md", "benchmark.csv", "benchmark_memory.csv"
Key = tuple[str, str, Shape]  # peer, task, shape


class Measurements:
    """Numbers by (peer, task, shape), one per round. Calling it returns the median, NaN if nothing was measured."""

    def __init__(self) -> None:
        self.values: dict[Key, list[float]] = {}

    def add(self, peer: str, task: str, shape: Shape, value: float) -> None:
        """Add the number of one more round."""
        self.values.setdefault((peer, task, shape), []).append(value)

    def __call__(self, peer: str, task: str, shape: Shape) -> float:
        return float(np.median(self.values.get((peer, task, shape), [np.nan])))

    def ratio(self, key: Key, base: Key) -> float:
        """The median over rounds of one number divided by another: a slow round slows both, and cancels."""
        if key not in self.values or base not in self.values:
            return np.nan
        return float(np.median(np.divide(self.values[key], self.values[base])))

    def shapes(self, task: str, among: Sequence[Shape]) -> list[Shape]:
        """The shapes for which some peer has a number."""
        return [shape for shape in among if any(key[1:] == (task, shape) for key in self.values)]

    @classmethod
    def read(cls, path: Path) -> Measurements:
        """Read a file of `write`."""
        found = cls()
        with open(path, newline="") as file:
            _, *rows = csv.reader(file)
        for peer, task, *shape, _, value in rows:
            found.add(peer, task, tuple(map(int, shape)), float(value))
        return found

    def write(self, path: Path, unit: str) -> None:
        """Write all rounds as a CSV file."""
        rows = [
            (peer, task, *shape, turn, value)
            for (peer, task, shape), values in self.values.items() if shape
            for turn, value in enumerate(values, 1)
        ]  # fmt: skip
        common.write_csv(path, ("peer", "task", "time", "batch", "input", "units", "round", unit), rows)


class Results:
    """Everything that a run has measured: durations in milliseconds, peak memory in MiB."""

    def __init__(self, present: list[str], absent: list[str], rounds: int) -> None:
        self.present, self.absent, self.rounds = present, absent, rounds
        self.time, self.memory = Measurements(), Measurements()

    def fastest(self, task: str, shape: Shape) -> Key:
        """The key of the other library with the lowest median time."""
        others = [(peer, task, shape) for peer in self.present if peer not in (OURS, COMPILED, TRACED)]
        keys = [key for key in others if key in self.time.values]
        return min(keys, key=lambda key: self.time(*key), default=("", task, shape))

    def over_fastest(self, peer: str, task: str, shapes: Sequence[Shape]) -> list[float]:
        """The ratio of a peer to the fastest of the other libraries, for each shape."""
        return [self.time.ratio((peer, task, shape), self.fastest(task, shape)) for shape in shapes]

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Read the files of `report` in `folder`. They do not name the peers that were not installed."""
        found = cls([], [], 0)
        found.time, found.memory = (Measurements.read(folder / name) for name in (TIMES_FILE, MEMORY_FILE))
        measured = {peer for peer, _, _ in found.time.values}
        found.present = [peer for peer in PEERS if peer in measured]
        found.rounds = max(map(len, found.time.values.values()))
        return found

    def large_product(self) -> float:
        """Floating-point operations per millisecond of a large matrix product, in the fastest round."""
        return 2 * LARGE**3 / min(self.time.values.get((NUMPY, "large product", ()), [np.nan]))


def report(out: Path, results: Results, shapes: Sequence[Shape], times: Sequence[int], units: Sequence[int]) -> None:
    """Print all tables, and write to `out`: the tables, the numbers (benchmark.csv, benchmark_memory.csv) and the plot.

    `shapes` are the shapes of the training step. For the table of growth, `times` are the numbers of steps (at batch
    32, 1 input, 32 units), and `units` the numbers of units (at batch 32, 1 input, 50 steps).
    """
    parts = [headline(results), *steps(results, shapes)]
    titles = {"forward": "Forward alone, milliseconds", "generate": "One generated step at batch 1, milliseconds"}
    for task, title in titles.items():
        measured = list(dict.fromkeys(key[2] for key in results.time.values if key[1] == task))
        if measured:
            parts += [title, comparison(results, task, measured, FASTEST if task == "forward" else TORCH)]
    parts += [*toy(results), *memory(results, shapes), *growth(results, times, units)]
    text = "\n\n".join(parts)
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    common.files.write_text(str(out / TABLES_FILE), text + "\n")
    results.time.write(out / TIMES_FILE, "milliseconds")
    results.memory.write(out / MEMORY_FILE, "mebibytes")
    draw(out / "benchmark.png", results, shapes)


def headline(results: Results) -> str:
    """Date, processor, rounds, versions, and the peers that are not installed."""
    modules = dict.fromkeys(module for peer in results.present for module in PEERS[peer].modules)
    parts = [processor(), f"{os.cpu_count()} cores", f"{THREADS} threads", f"rounds: {results.rounds}"]
    parts += [f"Python {platform.python_version()}", f"NumPy {np.__version__}"]
    parts += [f"{module} {version(module)}" for module in modules]
    parts += [f"a large matrix product in NumPy: {results.large_product() / 1e6:.1f} GFLOP/s"]
    text = f"{time.strftime('%Y-%m-%d')}, {', '.join(parts)}"
    return text + (f"\n\nNot installed: {', '.join(results.absent)}" if results.absent else "")


def processor() -> str:
    """The name of the processor; ratios differ between processors."""
    cpuinfo = Path("/proc/cpuinfo")  # the only place where Linux names it
    names = re.findall(r"^model name\s*: (.+)$", cpuinfo.read_text() if cpuinfo.exists() else "", re.MULTILINE)
    return names[0] if names else platform.processor() or platform.machine()


def version(module: str) -> str:
    """The installed version of a module."""
    return common.minilstm.__version__ if module == "minilstm" else metadata.version(module)


def cells(*values: float) -> list[str]:
    """Three digits of each value; "-" if it was not measured."""
    return ["-" if np.isnan(x) else f"{x:.3f}" if x < 1 else f"{x:.2f}" if x < 100 else f"{x:.0f}" for x in values]


def geometric_mean(ratios: Any) -> Any:
    """The geometric mean along the first dimension: for ratios, 2 and 1/2 have the mean 1."""
    return np.exp(np.mean(np.log(ratios), axis=0))


def comparison(results: Results, task: str, shapes: Sequence[Shape], rival: str = FASTEST) -> str:
    """The times of all peers, and the ratios of ours to one rival, or to the fastest of the other libraries."""
    present = [peer for peer in results.present if any(key[:2] == (peer, task) for key in results.time.values)]
    ours = [name for name in (OURS, COMPILED) if name in present]
    rows, ratios = [], []
    for shape in shapes:
        base = results.fastest(task, shape) if rival == FASTEST else (rival, task, shape)
        ratios.append([results.time.ratio((name, task, shape), base) for name in ours])
        times = [results.time(peer, task, shape) for peer in present]
        rows.append((str(shape), *cells(*times, *ratios[-1])))
    means = geometric_mean(ratios)
    rows.append((f"geometric mean of {len(shapes)}", *[""] * len(present), *cells(*means)))
    return common.table((SHAPE, *present, *(f"{name} over {rival}" for name in ours)), rows)


def steps(results: Results, among: Sequence[Shape]) -> Iterator[str]:
    """The training step: times and ratios, its matrix products alone, and autograd's trace over the derived pass."""
    shapes = results.time.shapes("products", among)  # the products are measured whenever the step is
    if not shapes:
        return
    yield 'One training step, milliseconds; "fastest" is the fastest of the other libraries'
    yield comparison(results, "step", shapes)
    rows, rate = [], results.large_product()
    for shape in shapes:
        ours, products, limit = (OURS, "step", shape), (NUMPY, "products", shape), step_operations(shape) / rate
        ratios = [results.time.ratio(products, base) for base in (results.fastest("step", shape), ours)]
        ratios += [limit / results.time(*ours)]
        ratios += [results.time.ratio((TRACED, "step", shape), base) for base in (ours, products)]
        rows.append((str(shape), *cells(results.time(*products), limit, *ratios)))
    yield (
        "The step's matrix products alone, at their own shapes, milliseconds; the limit is the time of the "
        "same operations at the rate of a large product"
    )
    ratio_titles = ("products over fastest", "products over minilstm", "limit over minilstm")
    yield common.table((SHAPE, "products", "limit", *ratio_titles, "trace over minilstm", "trace over products"), rows)


def toy(results: Results) -> Iterator[str]:
    """The toy program: seconds, over the fastest library's; and memory, over PyTorch's."""
    window, batch, _, units = TOY
    rows = []
    for peer in results.present:
        key = (peer, "toy", TOY)
        if key in results.time.values:
            over_fastest = results.time.ratio(key, results.fastest("toy", TOY))
            over_torch = results.memory.ratio(key, (TORCH, "toy", TOY))
            rows.append((peer, *cells(results.time(*key) / 1e3, over_fastest, results.memory(*key), over_torch)))
    if rows:
        yield f"A toy program from start to saved weights: {units} units, batches of {batch} windows of {window} years"
        yield common.table(("", "seconds", "over fastest", "peak memory, MiB", "over torch"), rows)


def memory(results: Results, among: Sequence[Shape]) -> Iterator[str]:
    """The peak memory of a process that trains."""
    shapes = results.memory.shapes("memory", among)
    peers = [peer for peer in results.present if (peer, "memory", among[-1]) in results.memory.values]
    if peers:
        rows = [(str(shape), *cells(*(results.memory(peer, "memory", shape) for peer in peers))) for shape in shapes]
        yield "Peak memory of the training step, whole process, MiB"
        yield common.table((SHAPE, *peers), rows)


def growth(results: Results, times: Sequence[int], units: Sequence[int]) -> Iterator[str]:
    """The growth of our step's time and memory with the steps and with the units."""
    by_steps = {f"{n} steps": (n, 32, 1, 32) for n in times}
    by_units = {f"{n} units": (50, 32, 1, n) for n in units}
    for peer in (OURS, COMPILED):
        if (peer, "truncated", (times[0], 32, 1, 32)) not in results.memory.values:
            continue
        rows = []
        for shapes in (by_steps, by_units):
            first = (peer, "step", next(iter(shapes.values())))
            for label, shape in shapes.items():
                step = (peer, "step", shape)
                truncated = results.memory(peer, "truncated", shape) if shapes is by_steps else np.nan
                values = (results.time(*step), results.time.ratio(step, first), results.memory(peer, "memory", shape))
                rows.append((label, *cells(*values, truncated)))
        yield f"How the step of {peer} grows (batch 32, 1 input; 32 units or 50 steps)"
        titles = ("milliseconds", "over the first", "peak memory, MiB", f"in windows of {WINDOW} steps, MiB")
        yield common.table(("", *titles), rows)


def draw(path: Path, results: Results, among: Sequence[Shape]) -> None:
    """Draw bars: the training step's time in other libraries over minilstm's. Without measurements, draw nothing."""
    from minilstm import plotting  # matplotlib is slow to load, and only needed here

    shapes = results.time.shapes("products", among)
    shown = [peer for peer in results.present if peer not in (OURS, TRACED)]
    if not shapes or OURS not in results.present or not shown:
        return
    ax = plotting.new_axes(10, 4)
    width = 0.8 / len(shown)
    for n, name in enumerate(shown):
        heights = [results.time.ratio((name, "step", shape), (OURS, "step", shape)) for shape in shapes]
        ax.bar(np.arange(len(shapes)) + (n - (len(shown) - 1) / 2) * width, heights, width, label=name)
    ax.set_xticks(range(len(shapes)), [", ".join(map(str, shape)) for shape in shapes])
    ax.axhline(1, color="#555555", linewidth=0.8)
    ax.set(ylabel="time over minilstm's", xlabel="time steps, batch, inputs, units", title="One training step")
    ax.legend(frameon=False)
    plotting.save(ax, path)
