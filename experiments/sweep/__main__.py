"""Run any experiment over a grid or random draws of its flags, and over seeds, on all cores or on a cluster.

    python -m experiments.sweep experiments.sunspots --grid units=4,8 --seeds 3 -- --seeds 1 --ensemble 1
    python -m experiments.sweep experiments.adding --random 20 --draw learning-rate=log:1e-3:3e-2 -- --length 50
    python -m experiments.sweep experiments.adding --grid units=8,16 --backend dask --address tcp://head:8786

Every run gets the arguments after ``--``. Each run has its own folder in --out. As soon as it ends, results.csv gets a
row with its flags, the numbers of its results.json, its time and its status. The same command resumes a sweep that was
stopped: it skips the runs that succeeded, and repeats from the beginning the runs that failed. Needs joblib, and
distributed for ``--backend dask``: ``pip install '.[sweep]'``; ``--backend ray`` also needs Ray: ``pip install ray``.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
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
from .points import DRAWS, Point, parse_all, parse_draw, parse_grid, varying
from .points import points as expand
from .results import FAILED, OK, Results, Row, is_result

LARGE_RATIO = 4.0  # of the largest number to the smallest; from here on, an axis is logarithmic
MOST_TICKS = 6  # values of a flag that are named below its axis


def parser() -> argparse.ArgumentParser:
    """The flags of the sweep."""
    flags = common.program(
        "experiments.sweep", "Run an experiment over a grid or random draws of its flags, and over seeds.",
        usage="%(prog)s EXPERIMENT [flags of the sweep] [-- flags of every run]",
    )  # fmt: skip
    common.add_output_flags(flags)
    flags.add_argument("experiment", help="a module with a main(argv), such as experiments.sunspots")
    repeated: dict[str, Any] = {"action": "append", "default": []}
    flags.add_argument(
        "--grid", **repeated, metavar="FLAG=VALUE,...",
        help="try each value; for a switch, true and false; may be repeated",
    )  # fmt: skip
    flags.add_argument("--draw", **repeated, metavar="FLAG=DRAW", help=f"draw values: {DRAWS}; may be repeated")
    flags.add_argument("--random", type=common.positive, default=0, help="number of draws")
    flags.add_argument("--seeds", type=common.positive, default=1, help="runs of each setting, from --seed on")
    flags.add_argument("--seed", type=int, default=0, help="the first seed, and the seed of the draws")
    flags.add_argument("--backend", choices=workers.BACKENDS, default="local", help="where to run")
    flags.add_argument("--jobs", type=common.positive, default=os.cpu_count(), help="processes on this machine")
    flags.add_argument("--address", help="of a running Dask scheduler or Ray cluster; it must see the folder --out")
    flags.add_argument("--metric", help="the column to summarise; by default the first that has a number")
    switch = argparse.BooleanOptionalAction
    flags.add_argument("--resume", action=switch, default=True, help="resume the sweep in --out, or start again")
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
    if fixed:
        args.command += " -- " + shlex.join(fixed)
    args.every_run = fixed
    if args.metric is not None and not is_result(args.metric):
        flags.error(f"--metric {args.metric} is a column of the sweep itself; wanted a number of the experiment")
    common.begin(args)
    try:
        results = Results(args.out / "results.csv")
    except ValueError as error:
        flags.error(str(error))
    finished = {command for command, row in results.latest().items() if row["status"] == OK}
    left = [point for point in points if point.command not in finished]
    with tqdm(total=len(points), initial=len(points) - len(left), unit="run", disable=args.quiet or None) as bar:
        if left:
            for row in workers.run_all(left, args.out.resolve(), args.backend, args.jobs, args.address):
                results.append(row)
                bar.update()
                if row["status"] == FAILED and not args.quiet:
                    bar.write(f"failed: {row['command']}: {row['message']}", file=sys.stderr)

    latest = results.latest()
    rows = [latest[point.command] for point in points]
    if args.metric is not None and any(row["status"] == OK for row in rows) and args.metric not in held(rows):
        flags.error(f"--metric {args.metric}: no run has it; there are {', '.join(held(rows)) or 'no numbers'}")
    found = summary(points, rows, args.metric or first_metric(rows))
    common.write_json(args.out / "results.json", found)
    draw(args.out / "sweep.png", points, rows, found["metric"])
    if not args.quiet:
        report(table(found))
        report(f"\n{found['metric']}; {len(rows)} runs, {len(left)} of them now, {found['failed']} failed; files:")
        for path in sorted(path for path in args.out.iterdir() if path.is_file()):
            report(f"  {path}")
    return found


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments before the first ``--``, and the arguments after it."""
    words = list(argv)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def points_of(args: argparse.Namespace, fixed: list[str]) -> list[Point]:
    """The points that the flags request. Raises ValueError or ImportError."""
    if not callable(getattr(importlib.import_module(args.experiment), "main", None)):
        raise ValueError(f"{args.experiment}: wanted a module with a function main(argv), found none in it")
    grid, draws = parse_all("--grid", parse_grid, args.grid), parse_all("--draw", parse_draw, args.draw)
    return expand(args.experiment, fixed, grid, draws, args.random, args.seed, args.seeds)


def first_metric(rows: Sequence[Row]) -> str | None:
    """The first column with a number, after the flags, of the first run that succeeded; None if no run did."""
    return next(iter(held(rows)), None)


def held(rows: Sequence[Row]) -> list[str]:
    """The columns in which a run has a number."""
    return list(dict.fromkeys(name for row in rows for name, text in row.items() if text and is_result(name)))


def value(row: Row, metric: str | None) -> float:
    """The number of a run, or NaN if it has none."""
    return float(row.get(metric or "") or np.nan)


def summary(points: Sequence[Point], rows: Sequence[Row], metric: str | None) -> dict[str, Any]:
    """For each setting, in the order of the points: the number of seeds that succeeded, and the spread of `metric`."""
    settings = []
    for setting, group in itertools.groupby(zip(points, rows, strict=True), key=lambda pair: pair[0].setting):
        values = [value(row, metric) for _, row in group]
        found = np.array([one for one in values if not np.isnan(one)])
        spread = {name: float(getattr(np, name)(found)) for name in ("median", "mean", "min", "max") if len(found)}
        if len(found) > 1:
            spread["sd"] = float(found.std(ddof=1))
        settings.append({"flags": setting, "runs": len(values), "numbers": len(found), **spread})
    failed = sum(row["status"] == FAILED for row in rows)
    return {"metric": metric, "runs": len(rows), "failed": failed, "settings": settings}


def table(found: dict[str, Any]) -> str:
    """The summary, a row per setting."""
    columns = ("median", "mean", "sd", "min", "max")
    header = [*(f"--{flag}" for flag in found["settings"][0]["flags"]), "runs", *columns]
    rows = []
    for setting in found["settings"]:
        spread = [f"{setting[column]:.4g}" if column in setting else "-" for column in columns]
        rows.append([*setting["flags"].values(), f"{setting['numbers']} of {setting['runs']}", *spread])
    return common.table(header, rows)


def draw(path: Path, points: Sequence[Point], rows: Sequence[Row], metric: str | None) -> None:
    """Draw the metric over each flag that varies: a dot per run, and a line through the medians of a grid."""
    from minilstm import plotting  # matplotlib is slow to load, and only needed here

    flags = varying(points) or ["seed"]
    values = np.array([value(row, metric) for row in rows])
    known = ~np.isnan(values)
    panels = common.panels(len(flags), 2 + 3.2 * len(flags), 3.6)
    for ax, flag in zip(panels, flags, strict=True):
        places = places_of([point.flags[flag] for point in points])
        x = np.array([places[point.flags[flag]] for point in points])
        if is_wide(x):
            ax.set_xscale("log")
        if len(places) <= MOST_TICKS:
            ax.set_xticks(list(places.values()), list(places))
            ax.minorticks_off()
        ax.plot(x, values, "o", color=plotting.FORECAST, alpha=0.5, label="a run")
        if len(places) < len(points) / 2:
            groups = {place: values[known & (x == place)] for place in np.unique(x)}
            medians = [np.median(group) if len(group) else np.nan for group in groups.values()]
            ax.plot(list(groups), medians, color=plotting.FREE, label="median")
        ax.set(xlabel=f"--{flag}")
    if known.any() and is_wide(values[known]):
        panels[0].set_yscale("log")
    panels[0].set(ylabel=metric or "no run succeeded")
    labels = panels[0].get_legend_handles_labels()
    panels[0].figure.legend(*labels, frameon=False, ncols=2, loc="outside upper right", fontsize="small")
    plotting.save(panels[0], path)


def places_of(texts: Sequence[str]) -> dict[str, float]:
    """The place of each value of a flag on its axis: its number, or 0, 1, 2, ... if some value is a word."""
    try:
        return {text: float(text) for text in texts}
    except ValueError:
        return {text: float(place) for place, text in enumerate(dict.fromkeys(texts))}


def is_wide(numbers: np.ndarray) -> bool:
    """Whether an axis of these numbers should be logarithmic."""
    return bool(min(numbers) > 0 and max(numbers) / min(numbers) >= LARGE_RATIO)


if __name__ == "__main__":
    main()
