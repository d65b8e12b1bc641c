"""The points of a sweep, its file of results, one run of a point, and a whole sweep with runs in this process.

The tests that need joblib and Dask are in tests/interop/test_sweep.py.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))
from experiments.sweep import __main__ as sweep
from experiments.sweep import points, workers
from experiments.sweep.results import COLUMNS, Results, numbers

EXPERIMENT = '''
import argparse, json, pathlib
from experiments import common

def main(argv):
    flags = argparse.ArgumentParser(prog="python -m product")
    flags.add_argument("--x", type=float)
    flags.add_argument("--seed", type=int)
    flags.add_argument("--out", type=pathlib.Path)
    flags.add_argument("--quiet", action="store_true")
    flags.add_argument("--negate", action="store_true")
    flags.add_argument("--bad", type=float)
    args = common.parse(flags, argv)
    common.write_config(args.out, vars(args))
    if args.x == args.bad:
        raise ValueError("this one,\\nis \\"bad\\"")
    sign = -1 if args.negate else 1
    results = {"score": {"mean": sign * args.x * (args.seed + 1)}, "name": "product", "good": True}
    (args.out / "results.json").write_text(json.dumps(results))
'''


@pytest.fixture
def product(tmp_path, monkeypatch):
    """The name of an experiment that multiplies."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "sweep_product.py").write_text(EXPERIMENT)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield "sweep_product"
    sys.modules.pop("sweep_product", None)


@pytest.fixture
def runs_here(monkeypatch):
    """Run points in this process, in reverse order, instead of with joblib; returns the names of points that ran."""
    ran = []

    def run_all(points, out, backend, jobs, address):
        for point in reversed(points):
            ran.append(point.name)
            yield workers.run_point(point, out)

    monkeypatch.setattr(workers, "run_all", run_all)
    return ran


def points_of(grid=(), draws=(), random=0, seed=0, seeds=1, fixed=()):
    return points.points(
        "experiments.some", list(fixed), dict(map(points.parse_grid, grid)),
        dict(map(points.parse_draw, draws)), random, seed, seeds,
    )  # fmt: skip


# --- points -----------------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_with_seeds_fastest():
    found = points_of(grid=["units=8,16", "--learning-rate=1e-3,5e-3"], seed=3, seeds=2, fixed=["--length", "50"])
    assert len(found) == 8
    assert found[1].command == (
        "python -m experiments.some --length 50 --units=8 --learning-rate=1e-3 --seed=4"
    )
    assert [point.flags["units"] for point in found] == ["8"] * 4 + ["16"] * 4
    assert points.varying(found) == ["units", "learning-rate"]


def test_every_point_has_its_own_folder():
    found = points_of(grid=["text=a/b,a_b", "size=1,2"], seeds=2) + points_of(grid=["text=a/b,a_b"], fixed=["--deep"])
    names = [point.name for point in found]
    assert len(set(names)) == len(names)
    assert all("/" not in name for name in names)
    assert names[0].startswith("text=a_b,size=1,seed=0-")


def test_switches_are_given_or_left_out():
    given, left_out = points_of(grid=["use-peepholes=true,false"])
    assert given.arguments == ("--use-peepholes", "--seed=0")
    assert left_out.arguments == ("--seed=0",)


@given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 2**31))
def test_draws_are_within_bounds_and_a_longer_sweep_begins_like_a_shorter_one(random, more, seed):
    draws = ["rate=log:1e-4:1e-2", "noise=uniform:-1:1", "units=int:4:9", "cell=choice:a:b"]
    found = points_of(draws=draws, random=random, seed=seed)
    assert points_of(draws=draws, random=random + more, seed=seed)[: len(found)] == found
    for point in found:
        assert 1e-4 <= float(point.flags["rate"]) <= 1e-2
        assert -1 <= float(point.flags["noise"]) <= 1
        assert 4 <= int(point.flags["units"]) <= 9
        assert point.flags["cell"] in "ab"


def test_logarithmic_draws_are_even_over_the_decades_and_integers_reach_both_ends():
    found = points_of(draws=["rate=log:1e-4:1e-2", "units=int:1:3"], random=400)
    assert 0.4 < np.mean([float(point.flags["rate"]) < 1e-3 for point in found]) < 0.6
    assert {point.flags["units"] for point in found} == {"1", "2", "3"}


def test_draws_that_repeat_are_run_once():
    assert len(points_of(draws=["units=int:1:2"], random=50)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": ["units"]}, "--grid: wanted FLAG=VALUE,VALUE,..., got 'units'"),
        ({"grid": ["units=8,,9"]}, "--grid units=8,,9: wanted values that differ and are not empty"),
        ({"grid": ["units=8,8"]}, "wanted values that differ"),
        ({"grid": ["seed=1,2"]}, "--grid seed=1,2: --seed is given by the sweep"),
        ({"draws": ["rate=1e-3"], "random": 2}, "--draw rate=1e-3: wanted uniform:LOW:HIGH"),
        ({"draws": ["rate=log:0:1"], "random": 2}, "for log above 0, got 0 and 1"),
        ({"draws": ["rate=uniform:2:1"], "random": 2}, "wanted LOW <= HIGH"),
        ({"draws": ["units=int:1:2.5"], "random": 2}, "whole ones for int"),
        ({"draws": ["rate=uniform:0:nan"], "random": 2}, "both finite"),
        ({"draws": ["rate=uniform:0:1"]}, "--random N and --draw FLAG=... need each other"),
        ({"random": 3}, "--random N and --draw FLAG=... need each other"),
        ({"grid": ["a=1"], "draws": ["a=int:1:2"], "random": 1}, "got a in both"),
    ],
)
def test_impossible_sweeps_are_refused(options, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is compared literally
        points_of(**options)
    assert message in str(error.value)


# --- the file of results ----------------------------------------------------------------------------------------


def row(command, status="ok", **more):
    return {"command": command, "status": status, "seconds": "1.00", "message": "", **more}


def test_rows_are_on_the_disk_at_once_and_are_read_again(tmp_path):
    results = Results(tmp_path / "results.csv")
    results.append(row("a", **{"--x": "1,5", "mse": 0.1 + 0.2}))
    results.append(row("b", "failed", message='said "no", twice'))
    again = Results(tmp_path / "results.csv")  # the first is still open
    assert [found["command"] for found in again.rows] == ["a", "b"]
    assert float(again.rows[0]["mse"]) == 0.1 + 0.2
    assert again.rows[0]["--x"] == "1,5"
    assert again.rows[1]["message"] == 'said "no", twice'
    assert again.rows[1]["mse"] == ""


def test_a_new_column_keeps_the_rows_before(tmp_path):
    results = Results(tmp_path / "results.csv")
    results.append(row("a", "failed"))
    results.append(row("b", mse=2.0))
    assert Results(tmp_path / "results.csv").header == [*COLUMNS, "mse"]
    assert results.latest()["b"]["mse"] == "2.0"
    assert len(Results(tmp_path / "results.csv").rows) == 2


def test_the_newest_row_of_a_command_counts(tmp_path):
    results = Results(tmp_path / "results.csv")
    results.append(row("a", "failed"))
    results.append(row("a", mse=1.0))
    assert Results(tmp_path / "results.csv").latest()["a"]["status"] == "ok"


def test_after_a_kill_only_whole_rows_are_read(tmp_path):
    """The file is cut at every byte, as a kill may leave it. It is then opened, and a row is added."""
    path = tmp_path / "results.csv"
    results = Results(path)
    for command in ("a", "b"):
        results.append(row(command, **{"mse": 1.5, "--x": "ä"}))
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        torn = Results(path)
        assert len(torn.rows) == max(data[:length].count(b"\n") - 1, 0)
        torn.append(row("c", **{"mse": 2.5, "--x": "ä"}))
        commands = [found["command"] for found in Results(path).rows]
        assert commands == [*("a", "b")[: len(torn.rows) - 1], "c"]
        assert all(found["mse"] in ("1.5", "2.5") for found in Results(path).rows)


def test_a_row_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="one line of text, got line breaks in message"):
        Results(tmp_path / "results.csv").append({**row("a"), "message": "two\nlines"})


def test_another_file_is_not_taken_for_results(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("year,truth\n1700,5\n")
    with pytest.raises(ValueError, match=r"results\.csv: wanted a sweep's results, got the columns year, truth"):
        Results(path)
    assert path.read_text() == "year,truth\n1700,5\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("1.5", "1.5,7"), "line 2 is damaged: repair or remove it, or start with --no-res"),
        (lambda text: text.replace(",1.5", ""), "line 2 is damaged"),
        (lambda text: text.replace("1.5", "one"), "line 2 is damaged"),
        (lambda text: text.replace("failed", "fine"), "line 3 is damaged"),
        (lambda text: text.replace("a,ok", '"a,ok'), "is damaged: unexpected end of data"),
        (lambda text: "\ufeff" + text, "wanted a sweep's results"),
        (lambda text: text.replace(",mse", ",command"), "wanted a sweep's results"),
        (lambda text: text.replace("a,ok", "a" * 200_000 + ",ok"), "line 2 is damaged: field larger than"),
    ],
)
def test_a_damaged_file_of_results_is_named_and_left_alone(tmp_path, damage, message, product, capsys):
    path = tmp_path / "out" / "results.csv"
    path.parent.mkdir()
    results = Results(path)
    results.append(row("a", mse=1.5))
    results.append(row("b", "failed"))
    damaged = damage(path.read_text())
    path.write_text(damaged)
    with pytest.raises(ValueError, match=message) as error:
        Results(path)
    assert str(error.value).startswith(f"{path}: ")
    with pytest.raises(SystemExit) as ended:
        run_sweep(product, tmp_path / "out")
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert path.read_text() == damaged


def test_a_file_of_results_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "results.csv"
    path.write_bytes(b"command,status\xff\n")
    with pytest.raises(ValueError, match=f"^{path}: "):
        Results(path)


def test_names_of_results_cannot_be_those_of_the_sweep(tmp_path):
    found = numbers({"command": 1, "status": 2.5, "seconds": 3, "message": 4, "--x": 5, "mse": 6})
    assert found == {
        "results/command": 1, "results/status": 2.5, "results/seconds": 3, "results/message": 4, "results/--x": 5,
        "mse": 6,
    }  # fmt: skip
    results = Results(tmp_path / "results.csv")
    results.append({**row("a"), **found})
    assert Results(tmp_path / "results.csv").latest()["a"]["results/status"] == "2.5"
    with pytest.raises(ValueError, match="two results would be in the column 'results/status'"):
        numbers({"status": 1, "results": {"status": 2}})
    for name in ("two\nlines", "\ud800", "\x1b[2J"):
        with pytest.raises(ValueError, match="must be one line of text"):
            numbers({name: 1})


def test_numbers_are_found_in_nested_results():
    results = {"arv": {"lstm": {"a": 0.5}, "ar12": {"a": 1}}, "name": "x", "done": True, "all": [1, 2], "none": None}
    assert numbers(results) == {"arv/lstm/a": 0.5, "arv/ar12/a": 1}


# --- one run of a point -----------------------------------------------------------------------------------------


def test_a_run_leaves_its_numbers_and_its_command(product, tmp_path):
    (point,) = points.points(product, ["--negate"], {"x": ["2"]}, {}, 0, 3, 1)
    found = workers.run_point(point, tmp_path)
    assert found["status"] == "ok"
    assert (found["--x"], found["--seed"], found["score/mean"]) == ("2", "3", -8.0)
    assert "name" not in found
    config = json.loads((tmp_path / point.name / "config.json").read_text())
    assert config["command"] == f"python -m product --negate --x=2 --seed=3 --out {tmp_path / point.name} --quiet"


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        (["--bad", "2"], 'ValueError: this one, is "bad"'),
        (["--wrong"], "python -m product: error: unrecognized arguments: --wrong"),
    ],
)
def test_a_run_that_fails_is_a_row_with_its_message(product, tmp_path, capsys, fixed, message):
    (point,) = points.points(product, fixed, {"x": ["2"]}, {}, 0, 0, 1)
    found = workers.run_point(point, tmp_path)
    assert (found["status"], found["message"]) == ("failed", message)
    assert "Traceback" in (tmp_path / point.name / "stderr.txt").read_text()
    assert capsys.readouterr().err == ""
    assert workers.starts(point, tmp_path) == 0


def test_a_point_whose_process_died_three_times_is_recorded_as_failed(product, tmp_path):
    (point,) = points.points(product, [], {"x": ["2"]}, {}, 0, 0, 1)
    folder = tmp_path / point.name
    folder.mkdir()
    (folder / "starts").write_text("2")
    assert workers.run_point(point, tmp_path)["status"] == "ok"  # two deaths are allowed
    (folder / "starts").write_text("3")
    found = workers.run_point(point, tmp_path)
    assert (found["status"], found["message"]) == ("failed", "the worker process died 3 times while this was running")


@pytest.mark.parametrize(
    ("backend", "module", "line"),
    [
        ("local", "joblib", r"pip install 'minilstm\[sweep\]'"),
        ("dask", "distributed", r"pip install 'minilstm\[sweep\]'"),
        ("ray", "ray", "pip install ray"),
    ],
)
def test_a_missing_library_is_reported_with_the_line_that_installs_it(monkeypatch, tmp_path, backend, module, line):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=line):
        list(workers.run_all(points_of(grid=["x=1"]), tmp_path, backend))


# --- a whole sweep ----------------------------------------------------------------------------------------------


def run_sweep(product, out, *options, fixed=()):
    printed = []
    flags = [product, "--out", str(out), "--grid", "x=1,2,4", "--seeds", "2", *options, "--", *fixed]
    return sweep.main(flags, report=printed.append), "\n".join(printed)


def test_a_sweep_ends_with_a_table_a_picture_and_its_files(product, runs_here, run_dir):
    found, printed = run_sweep(product, run_dir)
    assert json.loads((run_dir / "results.json").read_text()) == found
    assert (found["metric"], found["runs"], found["failed"]) == ("score/mean", 6, 0)
    four = found["settings"][2]
    assert four == {
        "flags": {"x": "4"}, "runs": 2, "numbers": 2, "median": 6.0, "mean": 6.0, "min": 4.0, "max": 8.0,
        "sd": pytest.approx(8**0.5),
    }  # fmt: skip
    assert "| 4   | 2 of 2 |      6 |    6 |  2.828 |   4 |   8 |" in printed
    assert (run_dir / "sweep.png").stat().st_size > 5_000
    settings = json.loads((run_dir / "config.json").read_text())["settings"]
    assert settings["grid"] == ["x=1,2,4"]


def test_the_same_command_repeats_only_failed_runs(product, runs_here, run_dir):
    found, printed = run_sweep(product, run_dir, fixed=["--bad", "2"])
    assert (found["failed"], found["settings"][1]["numbers"]) == (2, 0)
    assert "| 2   | 0 of 2 |      - |" in printed
    assert len(runs_here) == 6
    run_sweep(product, run_dir, fixed=["--bad", "2"])
    assert [name.split(",")[0] for name in runs_here[6:]] == ["x=2", "x=2"]
    run_sweep(product, run_dir, fixed=["--bad", "3"])  # another command
    assert len(runs_here) == 8 + 6


def test_a_sweep_killed_while_it_wrote_resumes(product, runs_here, run_dir, tmp_path):
    whole, _ = run_sweep(product, tmp_path / "whole")
    first, _ = run_sweep(product, run_dir)
    path = run_dir / "results.csv"
    path.write_bytes(path.read_bytes()[:-25])  # within the last row
    del runs_here[:]
    assert run_sweep(product, run_dir)[0] == first == whole
    assert len(runs_here) == 1
    with open(path, newline="") as file:
        assert len(list(csv.DictReader(file))) == 6


def test_a_wider_grid_keeps_old_runs_and_no_resume_does_not(product, runs_here, run_dir):
    run_sweep(product, run_dir)
    found, _ = run_sweep(product, run_dir, "--seeds", "3", "--metric", "score/mean")
    assert len(runs_here) == 6 + 3
    assert found["settings"][0]["max"] == 3.0
    run_sweep(product, run_dir, "--no-resume")
    assert len(runs_here) == 9 + 6


def test_random_draws_and_switches_are_drawn_in_the_picture(product, runs_here, run_dir):
    flags = [product, "--out", str(run_dir), "--random", "3", "--draw", "x=log:0.1:100", "--grid", "negate=true,false"]
    found = sweep.main([*flags, "--quiet"], report=pytest.fail)
    assert [len(setting["flags"]) for setting in found["settings"]] == [2] * 6
    assert min(setting["min"] for setting in found["settings"]) < 0 < max(s["max"] for s in found["settings"])
    assert (run_dir / "sweep.png").stat().st_size > 5_000


def test_a_result_called_command_does_not_end_the_sweep(product, runs_here, run_dir, tmp_path):
    code = tmp_path / "code" / "sweep_product.py"
    code.write_text(code.read_text().replace('"name": "product"', '"command": 1, "status": 0.5'))
    found, _ = run_sweep(product, run_dir)
    assert (found["runs"], found["failed"]) == (6, 0)
    run_sweep(product, run_dir, "--metric", "results/status")
    assert len(runs_here) == 6


def test_a_metric_that_no_run_has_is_refused_and_no_run_is_lost(product, runs_here, run_dir, capsys):
    with pytest.raises(SystemExit) as ended:
        run_sweep(product, run_dir, "--metric", "loss")
    assert ended.value.code == 2
    assert "--metric loss: no run has it; there are score/mean" in capsys.readouterr().err
    run_sweep(product, run_dir, "--metric", "score/mean")
    assert len(runs_here) == 6


def test_a_message_that_no_file_can_hold_is_held_and_a_long_one_shortened():
    assert workers.explain(ValueError("\ud800" + "a" * 10_000), "").startswith(r"ValueError: \ud800aaa")
    assert len(workers.explain(SystemExit(2), "a" * 10_000)) == 2000


def test_a_torn_count_of_starts_is_none(product, tmp_path):
    (point,) = points.points(product, [], {"x": ["2"]}, {}, 0, 0, 1)
    (tmp_path / point.name).mkdir()
    (tmp_path / point.name / "starts").write_text("tor\n")
    assert workers.run_point(point, tmp_path)["status"] == "ok"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["experiments.notebook", "--metric", "status"], "--metric status is a column of the sweep itself"),
        (["experiments.notebook", "--metric", "command"], "--metric command is a column of the sweep itself"),
        (["experiments.nothing"], "No module named 'experiments.nothing'"),
        (["experiments.benchmark.peers"], "experiments.benchmark.peers: wanted a module with a function main(argv)"),
        (["experiments.notebook", "--grid", "units"], "--grid: wanted FLAG=VALUE"),
        (["experiments.notebook", "--grid", "a=1", "--grid", "a=2"], "--a is there twice"),
        (["experiments.notebook", "--address", "tcp://head:8786"], "--address needs --backend dask or --backend ray"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_written(flags, message, run_dir, capsys):
    with pytest.raises(SystemExit):
        sweep.main([*flags, "--out", str(run_dir)])
    assert message in capsys.readouterr().err
    assert not run_dir.exists()


@pytest.mark.parametrize("fixed", [["--seed", "5"], ["--seed=5"], ["--out", "x"], ["--units", "8"], ["--rate=1"]])
def test_what_the_sweep_sets_is_not_set_twice(fixed):
    draws = dict([points.parse_draw("rate=uniform:0.1:1")])
    with pytest.raises(ValueError, match=r"sweep: --\w+ is set by the sweep itself, got it among"):
        points.points("running_sum", fixed, {"units": ["2", "3"]}, draws, 1, 0, 1)
    assert points.points("running_sum", ["--steps", "3"], {"units": ["2", "3"]}, draws, 1, 0, 1)


@pytest.mark.parametrize("text", ["x=uniform:12345:12346", "x=log:0.99999:1", "x=uniform:1e-9:1.00001e-9", "x=log:7:7"])
def test_a_draw_stays_within_its_bounds(text):
    low, high = map(float, text.split(":")[1:])
    rng = np.random.default_rng(0)
    _, draw = points.parse_draw(text)
    assert all(low <= float(draw(rng)) <= high for _ in range(50))


def test_a_whole_number_is_drawn_exactly():
    _, draw = points.parse_draw("x=int:9007199254740993:9007199254740993")
    assert draw(np.random.default_rng(0)) == "9007199254740993"
