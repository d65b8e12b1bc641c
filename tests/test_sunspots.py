"""The main job: what it writes, what it scores, how it goes on."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import minilstm
from minilstm import load_checkpoint

sys.path.insert(0, str(Path(__file__).parent.parent))
from experiments import sunspots, sunspots_settings

FILES = {"config.json", "history.csv", "forecast.csv", "results.json", "loss.png", "forecast.png", "checkpoint"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run: (folder, what main returned, what it printed)."""
    out = tmp_path_factory.mktemp("sunspots")
    (out / "results.json").write_text("of a run before")
    printed = []
    results = sunspots.main(["--out", str(out), "--epochs", "12", "--seeds", "2"], report=printed.append)
    return out, results, "\n".join(printed)


def test_the_figures_are_the_classic_series():
    years, numbers = sunspots.sunspots()
    assert (years[0], years[-1], len(years)) == (1700, 2008, 309)
    assert numbers[years == 1957] == pytest.approx(190.2)
    assert np.var(numbers[years <= 1979]) == pytest.approx(sunspots.VARIANCE, abs=0.05)


def test_the_simple_forecasts_score_as_published():
    years, numbers = sunspots.sunspots()
    forecasts = sunspots.simple_forecasts(numbers, years <= 1920)
    found = {name: sunspots.scores(years, numbers, forecast) for name, forecast in forecasts.items()}
    assert found["ar12"]["1921-1955"] == pytest.approx(0.130, abs=5e-4)
    assert found["ar12"]["1956-1979"] == pytest.approx(0.368, abs=5e-4)
    assert found["ar2"]["1921-1955"] == pytest.approx(0.189, abs=5e-4)
    assert found["persistence"]["1956-1979"] == pytest.approx(0.965, abs=5e-4)


def test_all_files_are_there_and_the_old_ones_are_gone(finished):
    out, results, printed = finished
    assert {path.name for path in out.iterdir() if not path.name.startswith("model.ckpt-")} == FILES
    assert json.loads((out / "results.json").read_text()) == results
    for name in FILES:
        assert str(out / name) in printed


def test_results_have_every_seed_and_every_span(finished):
    _, results, printed = finished
    assert set(results["arv"]) == {"lstm", "persistence", "ar2", "ar12"}
    assert results["arv"]["lstm"] == results["lstm_by_seed"]["0"]
    assert list(results["lstm_by_seed"]) == ["0", "1"]
    assert results["lstm_by_seed"]["0"] != results["lstm_by_seed"]["1"]
    for scores in (*results["arv"].values(), results["lstm_median"]):
        assert list(scores) == ["1921-1955", "1956-1979", "1980-2008"]
    assert "LSTM, seed 1" in printed
    assert "AR(12)" in printed


def test_forecast_csv_agrees_with_the_scores_and_runs_thirty_years_on(finished):
    out, results, _ = finished
    with open(out / "forecast.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    years = np.array([int(row["year"]) for row in rows])
    assert years.tolist() == list(range(1724, 2039))
    known = [row for row in rows if 1921 <= int(row["year"]) <= 1955]
    errors = [float(row["truth"]) - float(row["prediction"]) for row in known]
    assert np.mean(np.square(errors)) / 1495.6 == pytest.approx(results["arv"]["lstm"]["1921-1955"])
    assert all(row["truth"] == "" and float(row["prediction"]) >= 0 for row in rows[-30:])


def test_the_checkpoint_forecasts_without_the_script(finished):
    """The model and the scaling are in the file."""
    out, _, _ = finished
    loaded = load_checkpoint(out)
    scaling = sunspots.Scaling(**loaded.extra["scaling"])
    _, numbers = sunspots.sunspots()
    last = scaling.inputs(numbers[-loaded.extra["window"] - 1 : -1])[None, :, None]
    forecast = scaling.decode(loaded.model(loaded.params, last)[0, -1])
    with open(out / "forecast.csv", newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["year"] == "2008")
    assert forecast[0] == pytest.approx(float(row["prediction"]), rel=1e-5)


def test_config_names_the_command_and_the_versions(finished):
    config = json.loads((finished[0] / "config.json").read_text())
    assert config["settings"]["epochs"] == 12
    assert config["versions"]["minilstm"] == minilstm.__version__
    assert {"numpy", "autograd", "python"} <= config["versions"].keys()
    assert config["command"]


def test_a_resumed_run_ends_like_one_never_stopped(tmp_path):
    options = ["--seeds", "1", "--quiet", "--epochs", "20"]
    whole = sunspots.main(["--out", str(tmp_path / "a"), *options])
    years, numbers = sunspots.sunspots()
    settings = sunspots.Settings(epochs=20)

    class Stopped(Exception):
        pass

    def stop(result):
        if result.step == 130:  # of 200, between two saves
            raise Stopped

    with pytest.raises(Stopped):
        sunspots.train(numbers[years <= 1920], settings, 0, callbacks=[stop], checkpoint_dir=tmp_path / "b",
                       checkpoint_every=100)  # fmt: skip
    resumed = sunspots.main(["--out", str(tmp_path / "b"), *options, "--resume"])
    assert resumed == whole
    texts = [(tmp_path / folder / "history.csv").read_text() for folder in "ab"]
    whole_rows, resumed_rows = ([row.rsplit(",", 1)[0] for row in text.splitlines()] for text in texts)  # no timings
    assert resumed_rows == whole_rows


def test_settings_are_validated_before_the_test_years():
    for first_year in sunspots_settings.FIRST_YEARS:
        numbers, training, held_out = sunspots_settings.fold(first_year)
        assert len(numbers) <= 221  # 1700 to 1920
        assert training.sum() == first_year - 1700
        assert held_out.sum() == 20
        assert not (training & held_out).any()
    assert not set(sunspots_settings.SEEDS) & set(range(5))
    defaults = sunspots.Settings()
    for name, values in sunspots_settings.GRID.items():
        assert getattr(defaults, name) in values


def test_scaling_goes_there_and_back():
    _, numbers = sunspots.sunspots()
    scaling = sunspots.scaling_for(numbers[:221], sunspots.Settings())
    outputs = scaling.output_scale * scaling.standardise(numbers)
    np.testing.assert_allclose(scaling.decode(outputs), numbers, atol=1e-9)
    assert scaling.decode(np.array([-100.0]))[0] == 0
