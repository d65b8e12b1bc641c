"""How the settings of `experiments.sunspots` were chosen: rolling-origin validation inside 1700-1920.

    python -m experiments.sunspots_settings

No year after 1920 is used. Each fold trains on all years before its own twenty and forecasts those one year ahead; the
folds start in 1781, 1791, ..., 1901. A setting's score is the mean over folds of the median over seeds of the
average relative variance. AR(12), AR(2) and persistence stand in the same table, fitted on the same years.

The grid is what remained of a coarser search, also inside 1700-1920, over window, loss, scaling and regularisation.
Differences below 0.005 are within the noise of seeds and folds; and as the best of many, the best score flatters.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from . import common
from .sunspots import LAST_TRAINING_YEAR, Settings, arv, one_year_ahead, simple_forecasts, sunspots, train

FOLD_YEARS = 20
FIRST_YEARS = tuple(range(1781, 1902, FOLD_YEARS // 2))
GRID: dict[str, Sequence[Any]] = {  # what is not named here has its default
    "units": (8, 16),
    "epochs": (30, 40, 60),
    "noise": (0.0, 0.1),
}
SEEDS = (100, 101, 102)  # not those that the experiment reports


def fold(first_year: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers up to the end of a fold; which of them train; which of them are forecast."""
    years, numbers = sunspots()
    inside = years < min(first_year + FOLD_YEARS, LAST_TRAINING_YEAR + 1)
    years, numbers = years[inside], numbers[inside]
    return numbers, years < first_year, years >= first_year


def validate(job: tuple[Settings, int, int]) -> float:
    """The ARV of one setting, one fold, one seed."""
    settings, first_year, seed = job
    numbers, training, held_out = fold(first_year)
    result, scaling = train(numbers[training], settings, seed, progress=False)
    forecast = one_year_ahead(result.params, numbers, settings, scaling)
    return arv(numbers[held_out], forecast[held_out])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the grid on all cores and print the table, best first."""
    flags = argparse.ArgumentParser(
        prog="python -m experiments.sunspots_settings", description="Choose settings inside 1700-1920.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    flags.add_argument("--out", type=Path, default=Path("runs") / "sunspots_settings", help="folder of validation.csv")
    flags.add_argument("--workers", type=common.positive, default=os.cpu_count() or 1, help="processes")
    args = flags.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    grid = [Settings(**dict(zip(GRID, values, strict=True))) for values in itertools.product(*GRID.values())]
    jobs = list(itertools.product(grid, FIRST_YEARS, SEEDS))
    started = time.perf_counter()
    with ProcessPoolExecutor(args.workers) as pool:
        found = np.array(list(pool.map(validate, jobs, chunksize=4)))
    medians = np.median(found.reshape(len(grid), len(FIRST_YEARS), len(SEEDS)), axis=2)
    names = [", ".join(f"{name} {getattr(settings, name):g}" for name in GRID) for settings in grid]
    rows = list(zip(names, medians, strict=True))
    for name in ("ar12", "ar2", "persistence"):
        by_fold = []
        for first_year in FIRST_YEARS:
            numbers, training, held_out = fold(first_year)
            by_fold.append(arv(numbers[held_out], simple_forecasts(numbers, training)[name][held_out]))
        rows.append((name, np.array(by_fold)))
    rows.sort(key=lambda row: float(np.mean(row[1])))
    header = ("settings", "mean", *map(str, FIRST_YEARS))
    lines = [(name, f"{by_fold.mean():.4f}", *(f"{value:.3f}" for value in by_fold)) for name, by_fold in rows]
    print(common.table(header, lines))
    print(f"\n{len(jobs)} runs in {time.perf_counter() - started:.0f} s; the best is what experiments.sunspots uses")
    common.write_csv(args.out / "validation.csv", header, [(f'"{line[0]}"', *line[1:]) for line in lines])


if __name__ == "__main__":
    main()
