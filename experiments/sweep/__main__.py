"""Any experiment over a grid or random draws of its flags, and over seeds, on all cores or on a cluster.

    python -m experiments.sweep experiments.sunspots --grid units=4,8 --grid noise=0,0.1 --seeds 3 -- --seeds 1
    python -m experiments.sweep experiments.adding --random 20 --draw learning-rate=log:1e-3:3e-2 -- --length 50
    python -m experiments.sweep experiments.adding --grid units=8,16 --backend dask --address tcp://head:8786

Arguments behind ``--`` are given to every run. Each run has a folder of its own in --out; its flags, the numbers of its
results.json, its time and how it ended are a row of results.csv as soon as it ends. The same command goes on where it
was stopped: what ended well is not run again, what failed is, from its beginning. Needs joblib, and distributed for
``--backend dask``: ``pip install '.[sweep]'``; for ``--backend ray`` also Ray: ``pip install ray``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .. import common
from . import workers
from .points import DRAWS, Point, parse_draw, parse_grid, varying
from .points import points as expand
from .results import COLUMNS, FAILED, OK, Results, Row

LARGE_RATIO = 4.0  # of the largest number to the smallest: from it on, an axis is logarithmic
MOST_TICKS = 6  # values of a flag that are named below its axis


def parser() -> argparse.ArgumentParser:
    """The flags of the sweep."""
    flags = argparse.ArgumentParser(
        prog="python -m experiments.sweep",
        usage="%(prog)s EXPERIMENT [flags of the sweep] [-- flags of every run]",
        description="An experiment over a grid or random draws of its flags, and over seeds.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flags.add_argument("experiment", help="a module with a main(argv), such as experiments.sunspots")
    flags.add_argument(
        "--grid", action="append", default=[], metavar="FLAG=VALUE,...",
        help="try each value, of a switch true and false; may be repeated",
    )  # fmt: skip
    flags.add_argument(
        "--draw", action="append", default=[], metavar="FLAG=DRAW",
        help=f"draw a value: {DRAWS}; may be repeated",
    )  # fmt: skip
    flags.add_argument("--random", type=common.positive, default=0, help="how many draws")
    flags.add_argument("--seeds", type=common.positive, default=1, help="runs of each setting, with seeds from --seed")
    flags.add_argument("--seed", type=int, default=0, help="the first seed, and that of the draws")
    flags.add_argument("--backend", choices=workers.BACKENDS, default="local", help="where the runs are")
    flags.add_argument("--jobs", type=common.positive, default=os.cpu_count(), help="processes on this machine")
    flags.add_argument("--address", help="of a running Dask scheduler or Ray cluster; it must see the folder --out")
    flags.add_argument("--metric", help="the number that is summed up, by its column; default: the first that is found")
    flags.add_argument("--out", type=Path, default=Path("runs") / "sweep", help="folder for all files")
    flags.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=True,
        help="go on with the sweep in --out; otherwise start afresh",
    )  # fmt: skip
    flags.add_argument("--quiet", action="store_true", help="no progress bar, no table")
    return flags


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the sweep; returns what results.json holds."""
    own, fixed = split(sys.argv[1:] if argv is None else argv)
    flags = parser()
    args = common.parse(flags, own)
    try:
        points = points_of(args, fixed)
    except (ValueError, ImportError) as error:
        flags.error(str(error))
    if args.address is not None and args.backend == "local":
        flags.error("--address needs --backend dask or --backend ray")
    common.prepare(args.out, args.resume)
    common.write_config(args.out, {**vars(args), "command": whole_command(args.command, fixed), "every_run": fixed})
    results = Results(args.out / "results.csv")
    finished = {command for command, row in results.latest().items() if row["status"] == OK}
    left = [point for point in points if point.command not in finished]
    with tqdm(
        total=len(points), initial=len(points) - len(left), unit="run", disable=True if args.quiet else None
    ) as bar:
        if left:
            for row in workers.run_all(left, args.out.resolve(), args.backend, args.jobs, args.address):
                results.append(row)
                bar.update()
                if row["status"] == FAILED and not args.quiet:
                    bar.write(f"failed: {row['command']}: {row['message']}", file=sys.stderr)

    latest = results.latest()
    rows = [latest[point.command] for point in points]
    found = summary(points, rows, args.metric or first_metric(rows))
    common.write_json(args.out / "results.json", found)
    draw(args.out / "sweep.png", points, rows, found["metric"])
    if not args.quiet:
        report(table(found))
        report(f"\n{found['metric']}; {len(rows)} runs, {len(left)} of them now, {found['failed']} failed; files:")
        for path in sorted(path for path in args.out.iterdir() if path.is_file()):
            report(f"  {path}")
    return found


def whole_command(command: str, fixed: Sequence[str]) -> str:
    """The command with what stands behind ``--``."""
    return " ".join([command, "--", shlex.join(fixed)]) if fixed else command


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments before the first ``--``, and those behind it."""
    words = list(argv)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def points_of(args: argparse.Namespace, fixed: list[str]) -> list[Point]:
    """The points that the flags ask for. Raises ValueError or ImportError."""
    if not callable(getattr(importlib.import_module(args.experiment), "main", None)):
        raise ValueError(f"{args.experiment}: wanted a module with a function main(argv), found none in it")
    grid, draws = {}, {}
    for text in args.grid:
        flag, values = parse_grid(text)
        if flag in grid:
            raise ValueError(f"--grid {text}: --{flag} is there twice")
        grid[flag] = values
    for text in args.draw:
        flag, draw_of = parse_draw(text)
        if flag in draws:
            raise ValueError(f"--draw {text}: --{flag} is there twice")
        draws[flag] = draw_of
    return expand(args.experiment, fixed, grid, draws, args.random, args.seed, args.seeds)


def first_metric(rows: Sequence[Row]) -> str | None:
    """The first column of the first run that ended well, behind its flags; None where none did."""
    for row in rows:
        names = [name for name in row if name not in COLUMNS and not name.startswith("--") and row[name]]
        if row["status"] == OK and names:
            return names[0]
    return None


def value(row: Row, metric: str | None) -> float:
    """A run's number; NaN where it has none."""
    return float(row.get(metric or "") or np.nan) if row["status"] == OK else float("nan")


def summary(points: Sequence[Point], rows: Sequence[Row], metric: str | None) -> dict[str, Any]:
    """Per setting, in the order of the points: how many seeds ended well, and the spread of `metric` over them."""
    by_setting: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for point, row in zip(points, rows, strict=True):
        setting = tuple((flag, text) for flag, text in point.flags.items() if flag != "seed")
        by_setting.setdefault(setting, []).append(value(row, metric))
    settings = []
    for setting, values in by_setting.items():
        found = np.array([one for one in values if not np.isnan(one)])
        spread = {
            "median": float(np.median(found)), "mean": float(found.mean()), "min": float(found.min()),
            "max": float(found.max()),
        } if len(found) else {}  # fmt: skip
        if len(found) > 1:
            spread["sd"] = float(found.std(ddof=1))
        settings.append({"flags": dict(setting), "runs": len(values), "numbers": len(found), **spread})
    failed = sum(row["status"] == FAILED for row in rows)
    return {"metric": metric, "runs": len(rows), "failed": failed, "settings": settings}


def table(found: dict[str, Any]) -> str:
    """The summary, a row for each setting."""
    columns = ("median", "mean", "sd", "min", "max")
    header = [*(f"--{flag}" for flag in found["settings"][0]["flags"]), "runs", *columns]
    rows = [
        [*setting["flags"].values(), f"{setting['numbers']} of {setting['runs']}",
         *(f"{setting[column]:.4g}" if column in setting else "-" for column in columns)]
        for setting in found["settings"]
    ]  # fmt: skip
    return common.table(header, rows)


def draw(path: Path, points: Sequence[Point], rows: Sequence[Row], metric: str | None) -> None:
    """The metric over each flag that varies, a dot for each run and a line through the medians of a grid."""
    from matplotlib.figure import Figure  # slow to load, and only needed here

    from minilstm import plotting

    flags = varying(points) or ["seed"]
    values = np.array([value(row, metric) for row in rows])
    figure = Figure(figsize=(2 + 3.2 * len(flags), 3.6), layout="constrained")
    for ax, flag in zip(figure.subplots(1, len(flags), sharey=True, squeeze=False)[0], flags, strict=True):
        texts = [point.flags[flag] for point in points]
        names = list(dict.fromkeys(texts))
        numeric = [number(name) for name in names]
        if None in numeric:
            places = dict(zip(names, map(float, range(len(names))), strict=True))
        else:
            places = {name: place for name, place in zip(names, numeric, strict=True) if place is not None}
            if is_wide(list(places.values())):
                ax.set_xscale("log")
        if len(names) <= MOST_TICKS:
            ax.set_xticks(list(places.values()), names)
            ax.minorticks_off()
        ax.plot([places[text] for text in texts], values, "o", color=plotting.FORECAST, alpha=0.5, label="a run")
        if len(names) < len(points) / 2:
            ordered = sorted(places.items(), key=lambda item: item[1])
            groups = [values[[text == name for text in texts]] for name, _ in ordered]
            medians = [np.median(known) if len(known := group[~np.isnan(group)]) else np.nan for group in groups]
            ax.plot([place for _, place in ordered], medians, color=plotting.FREE, label="median")
        ax.set(xlabel=f"--{flag}")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, alpha=0.25, linewidth=0.6)
    first = figure.axes[0]
    known = values[~np.isnan(values)]
    if len(known) and is_wide(list(known)):
        first.set_yscale("log")
    first.set(ylabel=metric or "no run ended well")
    labels = first.get_legend_handles_labels()
    figure.legend(*labels, frameon=False, ncols=2, loc="outside upper right", fontsize="small")
    plotting.save(first, path)


def number(text: str) -> float | None:
    """The number that a flag's value is, or None."""
    try:
        return float(text)
    except ValueError:
        return None


def is_wide(numbers: Sequence[float]) -> bool:
    """Whether an axis of these numbers should be logarithmic."""
    return min(numbers) > 0 and max(numbers) / min(numbers) >= LARGE_RATIO


if __name__ == "__main__":
    main()
