"""What `experiments.benchmark` makes of its measurements: tables, two CSV files and a plot."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import os
import platform
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
    """Numbers by (peer, task, shape), one for each round; calling it gives the median, NaN where there is none."""

    def __init__(self) -> None:
        self.values: dict[Key, list[float]] = {}

    def add(self, peer: str, task: str, shape: Shape, value: float) -> None:
        """One more round's number."""
        self.values.setdefault((peer, task, shape), []).append(value)

    def __call__(self, peer: str, task: str, shape: Shape) -> float:
        return float(np.median(self.values.get((peer, task, shape), [np.nan])))

    def ratio(self, key: Key, base: Key) -> float:
        """The median of one number over another of the same round: what slows a whole round down drops out."""
        if key not in self.values or base not in self.values:
            return np.nan
        return float(np.median(np.divide(self.values[key], self.values[base])))

    def shapes(self, task: str, among: Sequence[Shape]) -> list[Shape]:
        """Those shapes for which some peer has a number."""
        return [shape for shape in among if any(key[1:] == (task, shape) for key in self.values)]

    @classmethod
    def read(cls, path: Path) -> Measurements:
        """What `write` wrote."""
        found = cls()
        with open(path, newline="") as file:
            for peer, task, *shape, _, value in itertools.islice(csv.reader(file), 1, None):
                found.add(peer, task, tuple(map(int, shape)), float(value))
        return found

    def write(self, path: Path, unit: str) -> None:
        """All rounds as a CSV file."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("peer", "task", "time", "batch", "input", "units", "round", unit))
        for (peer, task, shape), values in self.values.items():
            if shape:
                writer.writerows((peer, task, *shape, turn, value) for turn, value in enumerate(values, 1))
        common.files.write_text(str(path), text.getvalue())


class Results:
    """Everything a run has measured: durations in milliseconds, peak memory in MiB."""

    def __init__(self, present: list[str], absent: list[str], rounds: int) -> None:
        self.present, self.absent, self.rounds = present, absent, rounds
        self.time, self.memory = Measurements(), Measurements()

    @property
    def others(self) -> list[str]:
        """The other libraries."""
        return [peer for peer in self.present if peer not in (OURS, COMPILED, TRACED)]

    def fastest(self, task: str, shape: Shape) -> Key:
        """That of them whose median is lowest."""
        keys = [(peer, task, shape) for peer in self.others if (peer, task, shape) in self.time.values]
        return min(keys, key=lambda key: self.time(*key), default=("", task, shape))

    def over_fastest(self, peer: str, task: str, shapes: Sequence[Shape]) -> list[float]:
        """A peer's ratio to the fastest of the other libraries, for each shape."""
        return [self.time.ratio((peer, task, shape), self.fastest(task, shape)) for shape in shapes]

    @classmethod
    def read(cls, folder: Path) -> Results:
        """What `report` wrote to `folder`, but for the peers that were not there."""
        found = cls([], [], 0)
        found.time, found.memory = (Measurements.read(folder / name) for name in (TIMES_FILE, MEMORY_FILE))
        measured = {peer for peer, _, _ in found.time.values}
        found.present = [peer for peer in PEERS if peer in measured]
        found.rounds = max(map(len, found.time.values.values()))
        return found

    def large_product(self) -> float:
        """Floating-point operations a millisecond in a large matrix product, in the round where it was fastest."""
        return 2 * LARGE**3 / min(self.time.values.get((NUMPY, "large product", ()), [np.nan]))


def report(out: Path, results: Results, shapes: Sequence[Shape], times: Sequence[int], units: Sequence[int]) -> None:
    """Print all tables; write them to `out`, with the numbers in benchmark.csv and benchmark_memory.csv, and the plot.

    `shapes` are those of the step; `times` and `units` are what grew at batch 32, 1 input and 32 units or 50 steps.
    """
    parts = [headline(results), *steps(results, shapes)]
    for task, title, rival in (
        ("forward", "Forward alone", FASTEST), ("generate", "One generated step at batch 1", TORCH),
    ):  # fmt: skip
        measured = list(dict.fromkeys(key[2] for key in results.time.values if key[1] == task))
        if measured:
            parts += [f"{title}, milliseconds", comparison(results, task, measured, rival)]
    parts += [*toy(results), *memory(results, shapes), *growth(results, times, units)]
    text = "\n\n".join(parts)
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    common.files.write_text(str(out / TABLES_FILE), text + "\n")
    results.time.write(out / TIMES_FILE, "milliseconds")
    results.memory.write(out / MEMORY_FILE, "mebibytes")
    draw(out / "benchmark.png", results, shapes)


def headline(results: Results) -> str:
    """Date, processor, rounds, versions, and who was not there."""
    modules = dict.fromkeys(module for peer in results.present for module in PEERS[peer].modules)
    parts = [processor(), f"{os.cpu_count()} cores", f"{THREADS} threads", f"rounds: {results.rounds}"]
    parts += [f"Python {platform.python_version()}", f"NumPy {np.__version__}"]
    parts += [f"{module} {version(module)}" for module in modules]
    parts += [f"a large matrix product in NumPy: {results.large_product() / 1e6:.1f} GFLOP/s"]
    text = f"{time.strftime('%Y-%m-%d')}, {', '.join(parts)}"
    return text + (f"\n\nNot installed: {', '.join(results.absent)}" if results.absent else "")


def processor() -> str:
    """What the processor calls itself: ratios differ from one kind to the next."""
    with contextlib.suppress(OSError):  # Linux tells nowhere else
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def version(module: str) -> str:
    """The installed version of a module."""
    return common.minilstm.__version__ if module == "minilstm" else metadata.version(module)


def cells(*values: float) -> list[str]:
    """Three digits of each; "-" for what was not measured."""
    return ["-" if np.isnan(x) else f"{x:.3f}" if x < 1 else f"{x:.2f}" if x < 100 else f"{x:.0f}" for x in values]


def geometric_mean(ratios: Any) -> Any:
    """Along the first dimension: of ratios, the mean of twice and half is one."""
    return np.exp(np.mean(np.log(ratios), axis=0))


def comparison(results: Results, task: str, shapes: Sequence[Shape], rival: str = FASTEST) -> str:
    """The times of all peers, and the ratios of ours to those of one, or of the fastest of the other libraries."""
    present = [peer for peer in results.present if task in {key[1] for key in results.time.values if key[0] == peer}]
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
    """The training step: times and ratios; what its matrix products take alone, and the trace over the derived pass."""
    shapes = results.time.shapes("products", among)  # where the products are, the step was asked for
    if not shapes:
        return
    yield "One training step, milliseconds; the fastest is that of the other libraries"
    yield comparison(results, "step", shapes)
    rows, rate = [], results.large_product()
    for shape in shapes:
        ours, products, limit = (OURS, "step", shape), (NUMPY, "products", shape), step_operations(shape) / rate
        ratios = [results.time.ratio(products, base) for base in (results.fastest("step", shape), ours)]
        ratios += [limit / results.time(*ours)]
        ratios += [results.time.ratio((TRACED, "step", shape), base) for base in (ours, products)]
        rows.append((str(shape), *cells(results.time(*products), limit, *ratios)))
    yield (
        "The step's matrix products alone, at their own shapes, milliseconds; the limit is the time of as many "
        "operations at the rate of a large product"
    )
    ratio_titles = ("products over fastest", "products over minilstm", "limit over minilstm")
    yield common.table((SHAPE, "products", "limit", *ratio_titles, "trace over minilstm", "trace over products"), rows)


def toy(results: Results) -> Iterator[str]:
    """The toy program: seconds and memory, and both over those of others."""
    window, batch, _, units = TOY
    rows = []
    for peer in results.present:
        key = (peer, "toy", TOY)
        if key in results.time.values:
            ratios = (results.time.ratio(key, results.fastest("toy", TOY)),
                      results.memory.ratio(key, (TORCH, "toy", TOY)))  # fmt: skip
            rows.append((peer, *cells(results.time(*key) / 1e3, ratios[0], results.memory(*key), ratios[1])))
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
    """How our step's time and memory grow with the steps and with the units."""
    for peer in (OURS, COMPILED):
        if (peer, "truncated", (times[0], 32, 1, 32)) not in results.memory.values:
            continue
        rows = []
        for unit, shapes in (
            ("steps", [(n, 32, 1, 32) for n in times]), ("units", [(50, 32, 1, n) for n in units])
        ):  # fmt: skip
            for n, shape in zip(times if unit == "steps" else units, shapes, strict=True):
                step = results.time(peer, "step", shape)
                over_first = results.time.ratio((peer, "step", shape), (peer, "step", shapes[0]))
                truncated = results.memory(peer, "truncated", shape) if unit == "steps" else np.nan
                rows.append((f"{n} {unit}", *cells(step, over_first, results.memory(peer, "memory", shape), truncated)))
        yield f"How the step of {peer} grows (batch 32, 1 input; 32 units or 50 steps)"
        titles = ("milliseconds", "over the first", "peak memory, MiB", f"in windows of {WINDOW} steps, MiB")
        yield common.table(("", *titles), rows)


def draw(path: Path, results: Results, among: Sequence[Shape]) -> None:
    """Bars of the training step's time in other libraries over minilstm's; nothing where it was not measured."""
    from minilstm import plotting

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
