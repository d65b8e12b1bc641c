"""How the settings of `experiments.sunspots` were chosen: rolling-origin validation inside 1700-1920.

    python -m experiments.sunspots_settings

No year after 1920 is read. Each fold trains on all years before its own twenty and forecasts those one year ahead; the
folds start in 1821, 1841, ..., 1901. A setting's score is the mean over folds of the median over seeds of the
average relative variance. AR(12), AR(2) and persistence stand in the same table, fitted on the same years.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from . import common
from .sunspots import LAST_TRAINING_YEAR, Settings, arv, one_year_ahead, simple_forecasts, sunspots, train

FOLD_YEARS = 20
FIRST_YEARS = tuple(range(1821, 1920, FOLD_YEARS))
GRID: dict[str, Sequence[Any]] = {
    "units": (8, 16),
    "window": (24,),
    "epochs": (60,),
    "learning_rate": (3e-3,),
    "power": (0.7, 1.0),
    "output_scale": (0.5, 1.0),
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
    flags = common.parser("experiments.sunspots_settings", "Choose settings inside 1700-1920.", **Settings()._asdict())
    flags.add_argument("--workers", type=common.positive, default=2)
    args = flags.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    grid = [Settings(*values) for values in itertools.product(*(GRID[name] for name in Settings._fields))]
    jobs = list(itertools.product(grid, FIRST_YEARS, SEEDS))
    started = time.perf_counter()
    with ProcessPoolExecutor(args.workers) as pool:
        found = np.array(list(pool.map(validate, jobs, chunksize=4)))
    medians = np.median(found.reshape(len(grid), len(FIRST_YEARS), len(SEEDS)), axis=2)
    names = [", ".join(f"{name} {value:g}" for name, value in settings._asdict().items()) for settings in grid]
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
