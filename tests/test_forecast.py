"""The forecast command: its files, its methods, what it refuses, and how it resumes."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilstm import load_checkpoint

sys.path.insert(0, str(Path(__file__).parent.parent))
from experiments import common, forecast, forecast_lstm, sunspots
from experiments import forecast_methods as ways
from experiments.series import find_season

ROOT = Path(__file__).parent.parent
SUNSPOTS = sunspots.DATA
FILES = {"config.json", "history.csv", "forecast.csv", "results.json", "loss.png", "forecast.png", "checkpoint"}
SHORT = ["--epochs", "1", "--seeds", "2", "--quiet"]
KINDS = ["last_value", "drift", "ar", "arma", "smoothing", "lstm", "average"]  # of a series without a season


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def monthly(rows=72, start=2015):
    """Lines of a CSV file: a trend, a season of twelve months, noise."""
    rng = np.random.default_rng(0)
    months = np.arange(rows)
    values = 50 + months / 4 + 12 * np.sin(2 * np.pi * months / 12) + rng.normal(size=rows)
    return ["month,units", *(f"{start + k // 12}-{k % 12 + 1:02d},{v:.3f}" for k, v in enumerate(values))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run on a real series: (folder, what main returned, what it printed)."""
    out = tmp_path_factory.mktemp("forecast")
    (out / "results.json").write_text("of a run before")
    (out / "config.json").write_text("of a run before")
    printed = []
    results = forecast.main([str(SUNSPOTS), "--horizon", "5", "--out", str(out), *SHORT[:-1]], report=printed.append)
    return out, results, "\n".join(printed)


def test_a_run_on_a_real_series_writes_its_files(finished):
    out, results, printed = finished
    found = {path.name for path in out.iterdir() if not path.name.startswith("model.ckpt-")}
    assert found == FILES | {"members"}
    assert json.loads((out / "results.json").read_text()) == results
    assert results["season"] == 1
    assert list(results["test"]) == KINDS
    assert all(set(one) == {"mase", "rmse"} for one in results["test"].values())
    assert 0 <= results["coverage"] <= 1
    assert results["sentence"] in printed
    assert re.search(r"LSTM (is \d+ % better than|adds nothing)", results["sentence"])
    assert (out / "forecast.png").stat().st_size > 10_000


def test_the_file_holds_the_future_rows_alone(finished):
    out, results, _ = finished
    rows = read(out / "forecast.csv")
    assert [row["date"] for row in rows] == ["2009", "2010", "2011", "2012", "2013"]
    assert list(rows[0]) == ["date", "forecast", "lower", "upper", *results["test"]]
    for row in rows:
        assert float(row["lower"]) <= float(row["forecast"]) <= float(row["upper"])
        assert row["forecast"] == row[results["chosen"]]
        assert float(row["last_value"]) == 2.9  # of 2008


def test_every_member_opens_with_its_transform(finished):
    out, _, _ = finished
    folders = [out, *sorted((out / "members").iterdir())]
    assert len(folders) == 2 * 4  # two seeds: validated with two noises, for the held-out part, for the future
    for folder in folders:
        opened = load_checkpoint(folder)
        wanted = {*ways.Transform._fields, "mean", "std", "window", "autoregression"}
        assert set(opened.extra) == wanted
        assert opened.model(opened.params, np.zeros((1, 3, 1))).shape == (1, 3, 1)


def test_a_checkpoint_forecasts_without_the_command(finished):
    """The first member of the final fit, from its extra alone, as the how-to page says."""
    out, results, _ = finished
    values = sunspots.sunspots()[1]
    change = results["validation"]["lstm"]["change"]
    transform = next(one for one in ways.transforms(values.min(), 1, 100) if str(one) == change)
    noise = next(n for n in forecast.NOISES if (out / "members" / f"final-{n:g}-1").exists())
    member = forecast_lstm.train(values, transform, noise, 0, epochs=1)
    opened = load_checkpoint(out)
    assert opened.extra["mean"] == member.mean
    np.testing.assert_array_equal(opened.params["dense"]["kernel"], member.result.params["dense"]["kernel"])


def test_what_is_held_out_chooses_nothing():
    """Other held-out rows change the scores, but neither the plan nor the forecast of these rows."""
    values = sunspots.sunspots()[1][-120:] + 1
    other = np.concatenate([values[:-6], np.linspace(500, 900, 6)])
    options = {"season": 1, "seeds": 1, "epochs": 1}
    (first, before, _), (second, after, _) = (forecast.forecast(one, 6, **options) for one in (values, other))
    for key in ("validation", "weights", "chosen", "season"):
        assert first[key] == second[key]
    np.testing.assert_array_equal(before.chosen, after.chosen)
    np.testing.assert_array_equal(before.upper, after.upper)
    assert first["test"] != second["test"]


def test_a_held_out_part_that_has_no_logarithm():
    """The rows before it are positive: without its sign, the forecast of all rows would take their logarithm."""
    values = np.concatenate([np.exp(np.arange(40) / 20), [-1.0, 0, 2, 3]])
    results, _, future = forecast.forecast(values, 4, season=1, seeds=1, epochs=1)
    assert np.isfinite(future.chosen).all()
    assert not [name for name in results["weights"] if "log" in name]


def test_a_killed_run_resumes_to_the_same_forecast(tmp_path):
    (tmp_path / "units.csv").write_text("\n".join(monthly()))
    command = [sys.executable, "-m", "experiments.forecast", str(tmp_path / "units.csv"), "--horizon", "6", *SHORT]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    forecast.main([*command[3:], "--out", str(whole)])
    process = subprocess.Popen([*command, "--out", str(killed)], cwd=ROOT)
    while not list(killed.glob("members/test-*/checkpoint")):  # after the validation
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "forecast.csv").exists()
    forecast.main([*command[3:], "--out", str(killed), "--resume"])
    for name in ("forecast.csv", "results.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def test_resume_refuses_another_run(tmp_path, capsys):
    path, out = tmp_path / "units.csv", tmp_path / "out"
    path.write_text("\n".join(monthly()))
    command = [str(path), "--horizon", "6", *SHORT, "--out", str(out)]
    forecast.main(command)
    with pytest.raises(SystemExit):
        forecast.main([*command, "--resume", "--horizon", "7"])
    assert "of a run with horizon 6, got 7" in capsys.readouterr().err
    path.write_text("\n".join(monthly(73)))
    with pytest.raises(SystemExit):
        forecast.main([*command, "--resume"])
    assert "of a run with data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "options", "wanted"),
    [
        (monthly(20), ["--horizon", "12"], "units.csv: column 'units': got 20 rows, wanted at least 34 for a hor"),
        (monthly(40), ["--horizon", "12", "--season", "12"], "wanted at least 48 for .* a season of 12"),
        (["units", *["7"] * 40], ["--horizon", "4"], "all rows before those held out are 7, wanted a series that"),
        (["units", *["7"] * 36, "1", "2", "3", "4"], ["--horizon", "4"], "all rows before those held out are 7"),
        (monthly(), ["--horizon", "0"], "--horizon: must be at least 1"),
        (monthly(), ["--horizon", "3", "--seed", "-1"], "--seed: must be at least 0, got -1"),
        (monthly(), ["--horizon", "3", "--learning-rate", "nan"], "--learning-rate: must be a number of at least 0"),
        (monthly(), ["--horizon", "3", "--interval", "80"], "--interval must be above 0 and below 1, got 80.0"),
        (monthly(), ["--horizon", "3", "--season", "year"], "--season must be auto or a whole number of at least 1"),
        (monthly(), ["--horizon", "3", "--column", "unit"], "units.csv: --column 'unit' .*did you mean 'units'"),
    ],
)
def test_what_cannot_be_forecast_is_refused_before_anything_is_written(tmp_path, capsys, lines, options, wanted):
    (tmp_path / "units.csv").write_text("\n".join(lines))
    with pytest.raises(SystemExit) as stopped:
        forecast.main([str(tmp_path / "units.csv"), *options, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert re.search(wanted, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_out_is_not_the_folder_of_the_file(tmp_path, capsys, monkeypatch):
    """A new run removes the files of the run before, by names that a person may have given to a file as well."""
    (tmp_path / "results.csv").write_text("\n".join(monthly()))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        forecast.main(["results.csv", "--horizon", "6", *SHORT, "--out", "."])
    assert "results.csv: is in --out ., wanted another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_out_is_no_file(tmp_path, capsys):
    (tmp_path / "units.csv").write_text("\n".join(monthly()))
    with pytest.raises(SystemExit):
        forecast.main([str(tmp_path / "units.csv"), "--horizon", "6", *SHORT, "--out", str(tmp_path / "units.csv")])
    assert "units.csv is a file, wanted a folder" in capsys.readouterr().err


def test_what_else_is_in_out_stays(tmp_path):
    own = [tmp_path / "out" / name for name in ("sales.csv", "holiday.png")]
    (tmp_path / "out").mkdir()
    for path in [*own, tmp_path / "out" / "sweep.png"]:
        path.write_text("kept")
    with pytest.raises(SystemExit, match=r"holds sweep.png, but no config.json of an experiment, so it was not"):
        common.prepare(tmp_path / "out", resume=False)
    assert len(list(tmp_path.glob("out/*"))) == 3
    (tmp_path / "out" / "config.json").write_text("{}")
    common.prepare(tmp_path / "out", resume=False)
    assert sorted(tmp_path.glob("out/*")) == sorted(own)


def test_a_new_run_removes_every_file_that_a_run_writes(finished, tmp_path):
    out, _, _ = finished
    for path in out.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    common.prepare(tmp_path, resume=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**60])
def test_the_unit_of_the_series_changes_nothing(unit):
    """Errors of tiny values were all too small to tell the methods apart."""
    values = sunspots.sunspots()[1][-60:]
    (first, _, before), (second, _, after) = (
        forecast.forecast(one, 4, season=1, seeds=1, epochs=1) for one in (values, values * unit)
    )
    assert first["chosen"] == second["chosen"]
    np.testing.assert_allclose(list(second["weights"].values()), list(first["weights"].values()), atol=0.02)
    np.testing.assert_allclose(after.chosen / unit, before.chosen, rtol=1e-3)


def test_mase_and_rmse_by_hand():
    found = forecast.score(np.array([1.0, 2, 4, 1, 5, 5]), np.array([2.0, 2]), np.array([3.0, 5]), 3)
    # a season before: 1 -> 1, 2 -> 5, 4 -> 5: a mean of 4 / 3
    assert found == pytest.approx({"mase": 2 / (4 / 3), "rmse": np.sqrt(5)})


# --- the methods ----------------------------------------------------------------------------------------------


@given(
    st.integers(0, 10**6), st.booleans(), st.sampled_from(["", "difference"]), st.booleans(), st.integers(2, 5),
    st.integers(1, 7),
)  # fmt: skip
def test_a_change_is_undone(seed, log, seasonal, first, season, horizon):
    values = np.exp(np.random.default_rng(seed).normal(size=30))
    transform = ways.Transform(log, seasonal, first, season)
    changed = transform.stages(values)[-1]
    back = transform.undo(values[:-horizon], changed[len(changed) - horizon :])
    np.testing.assert_allclose(back, values[-horizon:], rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_autoregression_has_the_lowest_aic_of_all(seed):
    rng = np.random.default_rng(seed)
    series = np.zeros(120)
    for t in range(2, 120):
        series[t] = 2 + 1.2 * series[t - 1] - 0.6 * series[t - 2] + rng.normal()
    found = ways.fit_linear(series, 1)
    aics = {}
    for order in range(17):
        rows = np.column_stack([np.ones(104), *(series[16 - lag : 120 - lag] for lag in range(1, order + 1))])
        solution, *_ = np.linalg.lstsq(rows, series[16:], rcond=None)
        squares, used = np.sum((series[16:] - rows @ solution) ** 2), order + 2
        aics[order] = 104 * np.log(squares / 104) + 2 * used * 104 / (104 - used - 1)
        if order == len(found.coefficients):
            np.testing.assert_allclose([found.constant, *found.coefficients], solution, rtol=1e-6)  # the ridge is 1e-10
    assert len(found.coefficients) == min(aics, key=aics.get)
    latest = series[::-1][: len(found.coefficients)]
    assert found.next(series) == pytest.approx(found.constant + latest @ found.coefficients)


@pytest.mark.parametrize("log", [False, True])
def test_trend_and_season_without_noise_go_on(log):
    time_ = np.arange(72)
    series = 10 + 0.1 * time_ + 2 * np.tile([1.0, -2, 3, -2], 18)
    values = np.exp(series / 5) if log else series
    for method in (
        lambda v: ways.smoothing(v, 8, season=4, log=log, trend=True),
        lambda v: ways.autoregression(v, 8, ways.Transform(log, "difference", False, 4)),
    ):
        np.testing.assert_allclose(method(values[:64]), values[64:], rtol=2e-3)


@pytest.mark.parametrize("season", [4, 5])
def test_seasonal_means_are_taken_off_and_added_again(season):
    parts = np.random.default_rng(0).normal(size=season)
    values = np.exp(0.02 * np.arange(40) + np.resize(parts, 40))
    transform = ways.Transform(True, "means", True, season)
    np.testing.assert_allclose(transform.stages(values)[-1], 0.02, rtol=1e-9)  # the slope alone is left
    after = np.exp(0.02 * np.arange(40, 47) + np.resize(parts, 47)[40:])
    np.testing.assert_allclose(transform.undo(values, np.full(7, 0.02)), after, rtol=1e-9)


def test_a_moving_average_is_divided_out_and_forecast():
    """The airline model, whose one-step errors the method finds to a tenth of their size."""
    noise = np.random.default_rng(0).normal(size=400)
    changes = noise - 0.5 * np.append(0, noise[:-1])
    changes[4:] -= 0.7 * changes[:-4].copy()  # (1 - 0.5 B)(1 - 0.7 B^4)
    np.testing.assert_allclose(ways.divide(ways.divide(changes, 1, 0.5), 4, 0.7), noise, atol=1e-9)
    values = ways.Transform(False, "difference", True, 4).undo(np.arange(5.0), changes)
    transform = ways.Transform(False, "difference", True, 4)
    off = [ways.autoregression(values[:k], 1, transform, moving=True)[0] - values[k] for k in range(340, 400)]
    assert np.std(np.array(off) + noise[340:]) < 0.15


def test_the_season_is_found():
    rng = np.random.default_rng(0)
    walk = rng.normal(size=240).cumsum()
    assert find_season(walk, 1, 60) == 1
    assert find_season(walk, 12, 60) == 1
    assert find_season(sunspots.sunspots()[1], 1, 60) == 1  # a cycle of no fixed length
    assert find_season(np.exp(np.arange(60) / 10), 1, 20) == 1  # differences that are alike at every lag
    for season in (4, 7, 12):
        values = walk / 3 + 10 * np.tile(rng.normal(size=season), 240 // season + 1)[:240]
        assert find_season(values, 1, 60) == season
    weak = 2 * np.tile(rng.normal(size=12), 20) + 3 * rng.normal(size=240)
    assert (find_season(weak, 1, 60), find_season(weak, 12, 60)) == (1, 12)  # the calendar helps


def test_origins_end_before_what_they_forecast():
    assert ways.origins(100, 10, 1) == [90, 85, 80, 75, 70, 65, 60, 55]
    assert ways.origins(60, 12, 12) == [48, 42, 36, 30]
    assert ways.origins(40, 1, 1) == [39, 38, 37, 36, 35, 34, 33, 32]


def test_the_average_weighs_by_the_third_power_and_is_a_median():
    weight = ways.weights(np.array([1.0, 2.0, np.inf]))
    np.testing.assert_allclose(weight, [8 / 9, 1 / 9, 0])
    forecasts = np.array([[1.0, 9], [2, 8], [3, 7], [np.nan, np.inf]])
    assert ways.weighted_median(forecasts, np.array([0.2, 0.25, 0.55, 0])).tolist() == [3, 7]
    assert ways.weighted_median(forecasts, np.array([0.3, 0.3, 0.4, 0])).tolist() == [2, 8]


def test_the_interval_holds_the_wanted_part_of_the_errors():
    errors = np.arange(1.0, 10)[:, None]  # nine errors of one step: 80 % of ten is the eighth
    assert ways.conformal(errors, 0.8) == [8]
    growing = np.sqrt(np.arange(1, 5)) * np.ones((6, 1))
    np.testing.assert_allclose(ways.conformal(growing, 0.8), growing[0], rtol=1e-9)
    rng = np.random.default_rng(0)
    for power in (0.0, 0.5):
        scale = np.arange(1, 13) ** power
        width = ways.conformal(np.abs(rng.normal(size=(400, 12))) * scale, 0.8)
        np.testing.assert_allclose(width, 1.2816 * scale, rtol=0.1)  # the normal distribution's


def test_the_lstm_leads_where_no_line_can_follow():
    """A logistic map: the next value is a parabola of the last, so that no linear method comes near."""
    values = [0.3]
    for _ in range(199):
        values.append(3.8 * values[-1] * (1 - values[-1]))
    noisy = np.array(values) + 0.01 * np.random.default_rng(0).normal(size=200)
    results, _, _ = forecast.forecast(noisy, 1, season=1, test=1, seeds=1)
    errors = {kind: one["mae"] for kind, one in results["validation"].items()}
    simple = min(errors[kind] for kind in ("last_value", "drift", "ar", "arma", "smoothing"))
    assert errors["lstm"] < 0.6 * simple
    assert errors["average"] < 0.8 * simple
    assert max(results["weights"], key=results["weights"].get).startswith("lstm")


# --- what people hand over ------------------------------------------------------------------------------------

TINY = {"seeds": 1, "epochs": 1, "units": 2}


@pytest.mark.parametrize("dtype", [np.uint32, np.int16, np.float32, object])
def test_the_dtype_of_the_values_decides_nothing(dtype):
    rng = np.random.default_rng(0)
    values = np.round(100 + np.arange(60) * 0.6 + 25 * np.sin(np.arange(60) * np.pi / 6) + rng.normal(size=60))
    wanted, *_ = forecast.forecast(values, 6, **TINY)
    if dtype is object:
        with pytest.raises(ValueError, match="forecast: values: wanted numbers, got dtype object"):
            forecast.forecast(values.astype(dtype), 6, **TINY)
        return
    found, *_ = forecast.forecast(values.astype(dtype), 6, **TINY)
    assert found["season"] == wanted["season"] == 12
    assert found["test"] == wanted["test"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"interval": 80}, r"interval must be in \(0, 1\), got 80"),
        ({"interval": 0}, r"interval must be in \(0, 1\), got 0"),
        ({"test": 0}, "test must be a positive whole number, got 0"),
        ({"season": 0}, "season must be a positive whole number, got 0"),
        ({"seeds": 0}, "seeds must be a positive whole number, got 0"),
        ({"unit": 3}, r"unknown options \['unit'\], the known ones are units"),
        ({"season": 600}, "a season of 600 rows, wanted at most 500"),
        ({"values": np.full(60, np.nan)}, "values must be one series of finite numbers"),
        ({"values": np.ones((60, 2))}, "values must be one series of finite numbers"),
    ],
)
def test_options_out_of_range_are_refused_in_python_too(option, message):
    values = option.pop("values", np.sin(np.arange(60.0)))
    with pytest.raises(ValueError, match=rf"^forecast: .*{message}"):
        forecast.forecast(values, 6, **{**TINY, **option})


def test_a_season_that_is_too_long_is_said(tmp_path):
    seconds, rows = 30, 8640
    starts = np.datetime64("2024-01-01T00:00:00") + np.arange(rows) * np.timedelta64(seconds, "s")
    load = 50 + 10 * np.sin(2 * np.pi * np.arange(rows) * seconds / 86400)
    lines = [f"{str(start).replace('T', ' ')},{value:.3f}" for start, value in zip(starts, load, strict=True)]
    (tmp_path / "load.csv").write_text("\n".join(["time,load", *lines]))
    out = tmp_path / "out"
    argv = [str(tmp_path / "load.csv"), "--horizon", "6", "--out", str(out), "--quiet"]
    results = forecast.main([*argv, "--seeds", "1", "--epochs", "1", "--units", "2"], report=lambda text: None)
    assert results["notes"] == [
        "the usual season of 2880 rows is longer than 500, the most that is looked for: take means over several rows"
    ]


def test_a_file_among_the_members_is_left_alone(tmp_path):
    (tmp_path / "units.csv").write_text("\n".join(monthly()))
    (tmp_path / "out" / "members").mkdir(parents=True)
    (tmp_path / "out" / "members" / ".DS_Store").write_text("kept")
    argv = [str(tmp_path / "units.csv"), "--horizon", "6", "--out", str(tmp_path / "out"), "--quiet"]
    forecast.main([*argv, "--seeds", "1", "--epochs", "1", "--units", "2"], report=lambda text: None)
    assert (tmp_path / "out" / "members" / ".DS_Store").read_text() == "kept"


def test_a_run_of_fit_is_not_removed(tmp_path):
    (tmp_path / "units.csv").write_text("\n".join(monthly()))
    out = tmp_path / "out"
    out.mkdir()
    for name in ("model.ckpt-1.index", "history.csv"):
        (out / name).write_text("precious")
    with pytest.raises(SystemExit, match=r"but no config.json of an experiment"):
        forecast.main([str(tmp_path / "units.csv"), "--horizon", "6", "--out", str(out), "--quiet"])
    assert (out / "model.ckpt-1.index").read_text() == (out / "history.csv").read_text() == "precious"
    (tmp_path / "config.json").write_text("{}")  # of an experiment in the folder above
    with pytest.raises(SystemExit, match=r"but no config.json of an experiment"):
        common.prepare(out, resume=False)
    common.prepare(out, False, tmp_path)
    assert not list(out.iterdir())
