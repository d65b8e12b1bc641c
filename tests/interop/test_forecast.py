"""The gallery of forecasts: AutoETS and AutoARIMA of statsforecast beside ours, on series of R and of statsmodels."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from experiments import forecast, forecast_gallery

pytestmark = pytest.mark.interop
CHOSEN_ON = {"AirPassengers", "co2", "lynx", "Nile", "UKgas", "nottem"}


def test_every_series_of_the_list_loads_and_none_chose_the_defaults():
    with open(forecast_gallery.SERIES, newline="") as file:
        listed = list(csv.DictReader(file))
    assert [row["series"] for row in listed if int(row["origins"]) < 3] == ["lh", "oil", "livestock"]  # too short for 3
    assert len({row["series"] for row in listed} - CHOSEN_ON) == len(listed) == 34
    for row in listed:
        values = forecast_gallery.load(row["package"], row["series"])
        assert np.isfinite(values).all()
        horizon = forecast_gallery.HORIZONS[int(row["season"])]
        forecast.check(values[: len(values) - (int(row["origins"]) - 1) * horizon], horizon, horizon, None)
    elnino = forecast_gallery.load("statsmodels", "elnino")
    assert (len(elnino), elnino[0], elnino[12]) == (61 * 12, 23.11, 24.19)  # a row a year: 1950 and 1951 in January


def test_one_series_is_measured_beside_statsforecast(tmp_path, monkeypatch):
    from statsforecast.models import AutoETS

    monkeypatch.setattr(forecast_gallery, "forecast", lambda *a, **k: forecast.forecast(*a, **k, seeds=1, epochs=1))
    (tmp_path / "one.csv").write_text("package,series,season,origins\ndatasets,USAccDeaths,12,3\n")
    monkeypatch.setattr(forecast_gallery, "SERIES", tmp_path / "one.csv")
    monkeypatch.setattr(forecast_gallery, "PAGE", tmp_path / "page.md")
    arguments = ["--out", str(tmp_path / "out")]
    text = forecast_gallery.main(arguments, report=lambda line: None)
    with open(tmp_path / "out" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["series"], row["origin"], row["rows"]) for row in rows] == [
        ("USAccDeaths", str(k), str(60 - 12 * k)) for k in range(3)
    ]
    values = forecast_gallery.load("datasets", "USAccDeaths")
    past, truth = values[:-12], values[-12:]
    scale = np.mean(np.abs(past[12:] - past[:-12]))
    theirs = AutoETS(season_length=12).forecast(y=past, h=12)["mean"]
    assert float(rows[0]["AutoETS"]) == pytest.approx(np.mean(np.abs(theirs - truth)) / scale)
    assert float(rows[0]["seasonal naive"]) == pytest.approx(np.mean(np.abs(past[-12:] - truth)) / scale)
    assert text == (tmp_path / "page.md").read_text()
    assert text.count("| USAccDeaths") == 1
    monkeypatch.setattr(forecast_gallery, "measure", None)  # a second run measures nothing again
    assert forecast_gallery.main(arguments, report=lambda line: None) == text
