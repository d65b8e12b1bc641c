"""The benchmark beyond the plain cell: the cases of `breadth_cases`, and plain LSTMs of random sizes.

    python -m experiments.benchmark --breadth --rounds 2 --seed 0

The peers take turns as in the rest of the benchmark. Each number is the better of all rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import common
from .breadth_cases import CASES, TENSORFLOW
from .peers import Compiled, Jax, Minilstm, PyTorch
from .tables import cells, geometric_mean
from .work import Shape

OURS, COMPILED = Minilstm.name, Compiled.name
RANDOM_PEERS = (PyTorch.name, Jax.name)
LARGEST_WORK = 2e10  # multiplications of a random shape's step: some seconds at most
TABLES_FILE, TIMES_FILE = "breadth.md", "breadth.csv"

Times = dict[str, dict[str, list[float]]]  # case, peer: milliseconds of each round


def random_shapes(seed: int, count: int) -> list[Shape]:
    """`count` sizes of plain LSTMs, each number drawn on a logarithmic scale: 10 to 400 steps, batches of 1 to 256, 1
    to 300 inputs, 8 to 700 units.
    """
    rng, shapes = np.random.default_rng(seed), list[Shape]()
    ranges = ((10, 400), (1, 256), (1, 300), (8, 700))
    while len(shapes) < count:
        drawn = tuple(round(float(np.exp(rng.uniform(np.log(low), np.log(high))))) for low, high in ranges)
        time, batch, inputs, units = drawn
        if 3 * time * batch * (inputs + units) * 4 * units <= LARGEST_WORK:
            shapes.append(drawn)
    return shapes


def measure(
    worker: Callable[[str], Any], present: Sequence[str], rounds: int, chosen: Sequence[str], shapes: Sequence[Shape]
) -> Times:
    """The times of the chosen cases and random sizes. ``worker(peer)`` is a process that does jobs of a peer."""
    times: Times = {}
    ours = [peer for peer in (OURS, COMPILED) if peer in present]
    jobs: list[tuple[str, Any, tuple[str, ...]]]
    jobs = [(case, ("breadth", [case]), CASES[case].peers) for case in chosen]
    jobs += [(str(shape), ("step", shape), RANDOM_PEERS) for shape in shapes]
    for turn in range(rounds):
        for name, job, others in jobs:
            print(f"breadth: round {turn + 1} of {rounds}, {name}", flush=True)
            for peer in [*ours, *(other for other in others if other in present)]:
                with worker(peer) as process:
                    times.setdefault(name, {}).setdefault(peer, []).append(process.do(job))
    return times


def table(times: Times, names: Sequence[str], title: str) -> str:
    """The best time of every peer, and the ratios; their geometric means at the bottom."""
    best = {name: {peer: min(values) for peer, values in times[name].items()} for name in names}
    peers = list(dict.fromkeys(peer for name in names for peer in best[name]))
    ours = [peer for peer in (OURS, COMPILED) if peer in peers]
    rows, ratios = [], []
    for name in names:
        others = [value for peer, value in best[name].items() if peer not in ours]
        fastest = min(others, default=np.nan)
        found = [best[name].get(peer, np.nan) for peer in peers]
        ratio = [best[name][peer] / fastest for peer in ours]
        if len(ours) == 2:
            ratio.append(best[name][COMPILED] / best[name][OURS])
        ratios.append(ratio)
        size = str(CASES[name].shape) if name in CASES else ""
        rows.append((name, size, *cells(*found), *cells(*ratio)))
    for label, summary in (("geometric mean", geometric_mean(ratios)), ("highest", np.max(ratios, axis=0))):
        rows.append((f"{label} of {len(names)}", "", *[""] * len(peers), *cells(*summary)))
    columns = [f"{peer} over fastest" for peer in ours] + ["compiled over NumPy"] * (len(ours) == 2)
    return f"{title}\n\n" + common.table(("case", "time, batch, input, units", *peers, *columns), rows)


def report(out: Path, times: Times, headline: str) -> None:
    """Print the two tables; write them and all numbers to `out`."""
    parts = [headline]
    title = 'milliseconds, the better of all rounds; "fastest" is the fastest of the other libraries'
    for names, what in (
        ([name for name in times if name in CASES], "Beyond the plain cell"),
        ([name for name in times if name not in CASES], "Plain LSTMs of random sizes (time, batch, input, units)"),
    ):
        if names:
            parts.append(table(times, names, f"{what}, {title}"))
    text = "\n\n".join(parts)
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    common.files.write_text(str(out / TABLES_FILE), text + "\n")
    rows = [(name, peer, turn, value) for name, peers in times.items() for peer, values in peers.items()
            for turn, value in enumerate(values, 1)]  # fmt: skip
    common.write_csv(out / TIMES_FILE, ("case", "peer", "round", "milliseconds"), rows)


def peers_of_breadth() -> dict[str, tuple[str, ...]]:
    """Every peer, and the modules that it needs."""
    known = (Minilstm, Compiled, PyTorch, Jax)
    return {**{peer.name: peer.modules for peer in known}, TENSORFLOW: ("tensorflow", "tf_keras")}
