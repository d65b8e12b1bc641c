"""The sunspots experiment: its files, its scores, and how it resumes."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import minilstm
from minilstm import load_checkpoint

sys.path.insert(0, str(Path(__file__).parent.parent))
from experiments import readme, sunspots, sunspots_settings

FILES = {"config.json", "history.csv", "forecast.csv", "results.json", "loss.png", "forecast.png", "checkpoint"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run: (folder, what main returned, what it printed)."""
    out = tmp_path_factory.mktemp("sunspots")
    (out / "results.json").write_text("of a run before")
    (out / "config.json").write_text("of a run before")
    printed = []
    options = ["--out", str(out), "--epochs", "12", "--seeds", "2", "--ensemble", "3"]
    results = sunspots.main(options, report=printed.append)
    return out, results, "\n".join(printed)


def test_the_numbers_are_the_classic_series():
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


def test_a_run_writes_its_files_and_removes_the_old_ones(finished):
    out, results, printed = finished
    assert {path.name for path in out.iterdir() if not path.name.startswith("model.ckpt-")} == FILES
    assert json.loads((out / "results.json").read_text()) == results
    for name in FILES:
        assert str(out / name) in printed


def test_results_have_every_seed_and_every_span(finished):
    _, results, printed = finished
    assert set(results["arv"]) == {"lstm", "ensemble", "persistence", "ar2", "ar12"}
    assert results["arv"]["lstm"] == results["lstm_by_seed"]["0"]
    assert list(results["lstm_by_seed"]) == ["0", "1"]
    assert results["lstm_by_seed"]["0"] != results["lstm_by_seed"]["1"]
    for name in ("lstm_median", "lstm_mean", "lstm_sd"):
        assert list(results[name]) == ["1921-1955", "1956-1979", "1980-2008"]
    for scores in results["arv"].values():
        assert list(scores) == ["1921-1955", "1956-1979", "1980-2008"]
    for label in ("LSTM, seed 1", "LSTM, median", "LSTM, standard deviation", "LSTM, ensemble of 3", "AR(12)"):
        assert label in printed


def test_median_mean_and_deviation_are_over_seeds():
    by_seed = [dict.fromkeys(sunspots.SPANS, value) for value in (0.1, 0.2, 0.6)]
    found = sunspots.over_seeds(by_seed)
    assert found["lstm_median"]["1921-1955"] == pytest.approx(0.2)
    assert found["lstm_mean"]["1956-1979"] == pytest.approx(0.3)
    assert found["lstm_sd"]["1980-2008"] == pytest.approx(0.07**0.5)
    assert sunspots.over_seeds(by_seed[:1])["lstm_sd"]["1921-1955"] == 0


def test_forecast_csv_agrees_with_the_scores_and_continues_for_thirty_years(finished):
    out, results, _ = finished
    with open(out / "forecast.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    years = np.array([int(row["year"]) for row in rows])
    assert years.tolist() == list(range(1724, 2039))
    known = [row for row in rows if 1921 <= int(row["year"]) <= 1955]
    for column, name in (("prediction", "lstm"), ("ensemble", "ensemble")):
        errors = [float(row["truth"]) - float(row[column]) for row in known]
        assert np.mean(np.square(errors)) / 1495.6 == pytest.approx(results["arv"][name]["1921-1955"])
    for row in rows[-30:]:
        assert (row["truth"], row["ensemble"]) == ("", "")
        assert float(row["prediction"]) >= 0


def test_the_ensemble_is_the_mean_of_its_members_forecasts(tmp_path):
    """In sunspot numbers. Each member is trained again by `train` with its seed."""
    options = ["--epochs", "1", "--seeds", "1", "--ensemble", "3", "--seed", "7", "--quiet"]
    sunspots.main(["--out", str(tmp_path), *options])
    years, numbers = sunspots.sunspots()
    settings = sunspots.Settings(epochs=1)
    members = []
    for seed in (7, 8, 9):
        result, scaling = sunspots.train(numbers[years <= 1920], settings, seed, progress=False)
        members.append(sunspots.one_year_ahead(result.params, numbers, settings, scaling)[-1])
    with open(tmp_path / "forecast.csv", newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["year"] == "2008")
    assert len({round(member, 3) for member in members}) == 3
    assert float(row["ensemble"]) == pytest.approx(np.mean(members))
    assert float(row["prediction"]) == pytest.approx(members[0])


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


def test_a_resumed_run_ends_like_a_run_never_stopped(tmp_path):
    options = ["--seeds", "1", "--ensemble", "1", "--quiet", "--epochs", "20"]
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


def captured_batches(monkeypatch, numbers, settings, seed=3, counted=None):
    """The function from step to batch that `train` passes to `fit`, without training."""
    captured = []
    monkeypatch.setattr(sunspots, "fit", lambda model, params, loss, data, **options: captured.append(data))
    sunspots.train(numbers, settings, seed, counted)
    return captured[0]


def test_amplitude_scales_windows_and_weighs_them_so_that_errors_count_alike(monkeypatch):
    """A window multiplied by a is a**power times as large in the loss, and so are its errors."""
    _, numbers = sunspots.sunspots()
    plain = sunspots.Settings(noise=0.0, amplitude=0.0)
    scaling = sunspots.scaling_for(numbers[:221], plain)
    powered, weights = [], []
    for settings in (plain, plain._replace(amplitude=0.3)):
        _, targets, weight = captured_batches(monkeypatch, numbers[:221], settings)(5)
        powered.append(scaling.mean + scaling.std * targets[..., 0] / scaling.output_scale)
        weights.append(weight)
    np.testing.assert_array_equal(weights[0], np.tile(np.arange(24) >= plain.warm_up, (32, 1)))
    ratio = (powered[1].max(axis=1) / powered[0].max(axis=1))[:, None]
    np.testing.assert_allclose(powered[1], ratio * powered[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(weights[1], weights[0] / ratio**2, rtol=1e-9)
    assert np.std(np.log(ratio)) == pytest.approx(0.3 * plain.power, rel=0.3)


def test_noise_is_on_the_inputs_alone(monkeypatch):
    _, numbers = sunspots.sunspots()
    quiet, noisy = (
        captured_batches(monkeypatch, numbers[:221], sunspots.Settings(noise=noise, amplitude=0.0))(9)
        for noise in (0.0, 0.15)
    )
    np.testing.assert_array_equal(noisy[1], quiet[1])
    assert np.std(noisy[0] - quiet[0]) == pytest.approx(0.15 * sunspots.Settings().input_scale, rel=0.1)


def test_years_that_do_not_count_teach_nothing(monkeypatch):
    """Other numbers in these years change no weighted target. The model reads them only before later years."""
    _, numbers = sunspots.sunspots()
    numbers = numbers[:221]
    counted = np.ones(221, bool)
    counted[76:98] = False
    changed = np.where(counted, numbers, 5 * numbers)
    settings = sunspots.Settings(noise=0.0, amplitude=0.0)
    batches = [captured_batches(monkeypatch, series, settings, counted=counted) for series in (numbers, changed)]
    differed = 0
    for step in range(20):
        (_, targets, weights), (_, other_targets, other_weights) = (batch(step) for batch in batches)
        assert weights.any(axis=1).all()
        np.testing.assert_array_equal(weights, other_weights)
        np.testing.assert_array_equal(weights[..., None] * targets, other_weights[..., None] * other_targets)
        differed += np.sum(targets != other_targets)
    assert differed > 0


def test_layers_are_stacked_under_tensorflows_names():
    model = sunspots.build(sunspots.Settings(layers=2))
    assert list(model.init(0, input_dim=1)["rnn"]["multi_rnn_cell"]) == ["cell_0", "cell_1"]


def test_settings_are_validated_on_years_before_the_test_years():
    _, numbers = sunspots.sunspots()
    folds = sunspots_settings.folds()
    assert list(folds) == ["high cycles", "1781", "1801", "1821", "1841", "1861", "1881", "1901"]
    for name, (known, training, held_out) in folds.items():
        np.testing.assert_array_equal(known, numbers[: len(known)])
        assert len(known) == len(training) == len(held_out) <= 221  # 1700 to 1920
        np.testing.assert_array_equal(training, ~held_out)
        if name == "high cycles":
            assert known[training].max() == 122
            assert known[held_out].max() == 154.4
        else:
            assert training.sum() == int(name) - 1700
            assert held_out[-20:].all()
    assert not set(sunspots_settings.SEEDS) & set(range(10))
    defaults = sunspots.Settings()
    for name, values in sunspots_settings.GRID.items():
        assert getattr(defaults, name) in values


def test_high_cycles_weigh_as_much_as_all_rolling_folds_together():
    assert sunspots_settings.score(np.array([0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4])) == pytest.approx(0.22142857)


def test_the_settings_script_prints_every_setting_and_the_simple_forecasts(tmp_path, monkeypatch, capsys):
    grid = {"units": (2,), "epochs": (1,), "noise": (0.0,), "amplitude": (0.0, 0.15)}
    monkeypatch.setattr(sunspots_settings, "GRID", grid)
    monkeypatch.setattr(sunspots_settings, "SEEDS", (100, 101))
    monkeypatch.setattr(sunspots_settings, "ProcessPoolExecutor", InThisProcess)
    sunspots_settings.main(["--out", str(tmp_path)])
    with open(tmp_path / "validation.csv", newline="") as file:
        rows = {row["settings"]: row for row in csv.DictReader(file)}
    scaled = "units 2, epochs 1, noise 0, amplitude 0.15"
    assert set(rows) == {"ar2", "ar12", "persistence", scaled, scaled.replace("0.15", "0")}
    scores = [float(row["score"]) for row in rows.values()]
    assert scores == sorted(scores)
    printed = capsys.readouterr().out
    for name, row in rows.items():
        assert re.search(rf"^\| {re.escape(name)} +\| {row['score']} ", printed, flags=re.MULTILINE)
        halves = float(row["high cycles"]) / 2, float(row["rolling origin"]) / 2
        assert float(row["score"]) == pytest.approx(sum(halves), abs=1e-3)
    assert float(rows[scaled]["single runs"]) > float(rows[scaled]["score"])  # as for every convex loss


class InThisProcess:
    """Replaces ProcessPoolExecutor."""

    def __init__(self, workers):
        assert workers >= 1

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def map(self, function, jobs, chunksize):
        return map(function, jobs)


def test_the_readme_says_how_the_ensemble_and_the_median_compare():
    arvs = {"ensemble": (0.75, 0.2, 0.55), "ar12": (1.0, 0.1, 0.5)}
    results = {
        "arv": {name: dict(zip(sunspots.SPANS, values, strict=True)) for name, values in arvs.items()},
        "lstm_median": dict(zip(sunspots.SPANS, (0.9, 0.11, 0.4), strict=True)),
    }
    assert readme.verdict(results) == (
        "Compared with AR(12), the error of the ensemble is 25 % lower on 1921-1955, 100 % higher on 1956-1979 and "
        "10 % higher on 1980-2008. The error of the median seed is 10 % lower on 1921-1955, 10 % higher on 1956-1979 "
        "and 20 % lower on 1980-2008."
    )


def test_decode_is_the_inverse_of_standardise():
    _, numbers = sunspots.sunspots()
    scaling = sunspots.scaling_for(numbers[:221], sunspots.Settings())
    outputs = scaling.output_scale * scaling.standardise(numbers)
    np.testing.assert_allclose(scaling.decode(outputs), numbers, atol=1e-9)
    assert scaling.decode(np.array([-100.0]))[0] == 0
