"""Choose the settings of `experiments.sunspots` by validation inside 1700-1920.

    python -m experiments.sunspots_settings

Years after 1920 are cut off first. The rule: the score of a setting is the mean of two average relative variances
(ARV; lower is better). Both are for the mean forecast of five seeds, one year ahead:

- high cycles: models learn from all of 1700-1920 except 1776-1797, 1834-1855 and 1868-1877, and forecast these years.
  They hold the highest maxima: up to 154, while the other years end at 122. Sooner or later a forecast meets a maximum
  above all that the model has learnt from.
- rolling origin: models learn from all years before a fold and forecast the twenty years of the fold. Seven folds begin
  in 1781, 1801, ..., 1901; the ARV is the mean over them.

The setting with the lowest score becomes the default of the experiment, which reports seeds 0 to 4 and the ensemble of
seeds 0 to 9. The rule judges the ensemble because the ensemble is the headline, and because it depends less on the
seeds than a single run. The table also has the same score for single runs (the mean over seeds), and AR(12), AR(2) and
persistence, fitted on the same years.

History. First came an exploration inside 1700-1920, of about 190 settings, before any test year was scored. It found
window, loss and scaling, and recommended noise and amplitude together, judged by these two numbers. A first protocol
chose among units, epochs and noise alone, by thirteen overlapping folds without the high cycles: 8 units, 40 epochs, no
noise. On the test years the median of its five seeds was 0.094, 0.398, 0.219, where AR(12) has 0.130, 0.368, 0.198.
This second protocol was fixed with that knowledge, and before any other score on the test years. Differences below
0.005 are within the noise of seeds and folds. The best score of many is too good: it was chosen for being the best.

The second protocol chose 12 units, 40 epochs, no noise and amplitude 0.15, all at an end of the grid. The grid was not
widened: that would have been a third protocol.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from . import common
from .sunspots import LAST_TRAINING_YEAR, Settings, arv, one_year_ahead, simple_forecasts, sunspots, train

FOLD_YEARS = 20
FIRST_YEARS = tuple(range(1781, 1902, FOLD_YEARS))
HIGH_CYCLES = ((1776, 1797), (1834, 1855), (1868, 1877))
GRID: dict[str, Sequence[Any]] = {  # settings that are not named here have their defaults
    "units": (8, 12),
    "epochs": (40, 60),
    "noise": (0.0, 0.1, 0.15),
    "amplitude": (0.0, 0.15),
}
SEEDS = (100, 101, 102, 103, 104)  # other seeds than the experiment reports


class Fold(NamedTuple):
    """Numbers up to the last year of the fold; which years are learnt from, and which are scored. Arrays [years]."""

    numbers: np.ndarray
    training: np.ndarray
    held_out: np.ndarray


def folds() -> dict[str, Fold]:
    """The fold of the high cycles, and the rolling-origin folds by their first year."""
    years, numbers = sunspots()
    known = years <= LAST_TRAINING_YEAR
    years, numbers = years[known], numbers[known]
    high = np.any([(years >= first) & (years <= last) for first, last in HIGH_CYCLES], axis=0)
    found = {"high cycles": Fold(numbers, ~high, high)}
    for first_year in FIRST_YEARS:
        inside = years < first_year + FOLD_YEARS
        found[str(first_year)] = Fold(numbers[inside], years[inside] < first_year, years[inside] >= first_year)
    return found


def score(by_fold: np.ndarray) -> float:
    """The rule, from the ARV of each fold in the order of `folds`."""
    high_cycles, rolling_origin = by_fold[0], by_fold[1:]
    return float((high_cycles + rolling_origin.mean()) / 2)


def forecast(job: tuple[Settings, Fold, int]) -> np.ndarray:
    """Forecast the held-out years of one fold one year ahead, with one setting and one seed."""
    settings, (numbers, training, held_out), seed = job
    end = np.flatnonzero(training)[-1] + 1
    result, scaling = train(numbers[:end], settings, seed, training[:end], progress=False)
    return one_year_ahead(result.params, numbers, settings, scaling)[held_out]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the grid on all cores and print the table, best first."""
    flags = common.program("experiments.sunspots_settings", "Choose the settings of the sunspots inside 1700-1920.")
    flags.add_argument("--out", type=common.home, default="runs/sunspots_settings", help="folder of validation.csv")
    flags.add_argument("--workers", type=common.positive, default=os.cpu_count() or 1, help="processes")
    args = flags.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    tests = folds()
    grid = [Settings()._replace(**dict(zip(GRID, values, strict=True))) for values in itertools.product(*GRID.values())]
    keys = list(itertools.product(grid, tests, SEEDS))
    jobs = [(settings, tests[name], seed) for settings, name, seed in keys]
    with ProcessPoolExecutor(args.workers) as pool:
        forecasts = dict(zip(keys, pool.map(forecast, jobs, chunksize=4), strict=True))

    rows = []  # name, ARVs of the ensemble by fold, score of single runs
    truth = {name: fold.numbers[fold.held_out] for name, fold in tests.items()}
    for settings in grid:
        runs = {name: [forecasts[settings, name, seed] for seed in SEEDS] for name in tests}
        ensemble = [arv(truth[name], np.mean(runs[name], axis=0)) for name in tests]
        single = [np.mean([arv(truth[name], run) for run in runs[name]]) for name in tests]
        label = ", ".join(f"{name} {getattr(settings, name):g}" for name in GRID)
        rows.append((label, np.array(ensemble), f"{score(np.array(single)):.4f}"))
    simple = {name: simple_forecasts(fold.numbers, fold.training) for name, fold in tests.items()}
    for label in ("ar12", "ar2", "persistence"):
        by_fold = [arv(truth[name], simple[name][label][fold.held_out]) for name, fold in tests.items()]
        rows.append((label, np.array(by_fold), ""))
    rows.sort(key=lambda row: score(row[1]))
    header = ("settings", "score", "single runs", "rolling origin", *tests)
    lines = [
        (label, f"{score(by_fold):.4f}", single, *(f"{x:.3f}" for x in (by_fold[1:].mean(), *by_fold)))
        for label, by_fold, single in rows
    ]
    print(common.table(header, lines))
    print(f"\n{len(jobs)} runs in {time.perf_counter() - started:.0f} s; the best is what experiments.sunspots uses")
    common.write_csv(args.out / "validation.csv", header, lines)


if __name__ == "__main__":
    main()
