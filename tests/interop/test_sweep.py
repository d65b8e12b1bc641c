"""Sweeps with joblib and Dask: the numbers are the same everywhere, and none is lost when a worker dies."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import dask
import distributed
import pytest
from joblib.externals.loky import get_reusable_executor

sys.path.insert(0, str(Path(__file__).parents[2]))
from experiments.sweep import __main__ as sweep
from experiments.sweep.results import Results

pytestmark = pytest.mark.interop

ADDING = ["experiments.adding", "--grid", "units=2,3", "--grid", "learning-rate=1e-2,3e-2", "--seeds", "2"]
SMALL = ["--", "--length", "4", "--epochs", "1"]
DEADLY = '''
import argparse, json, os, pathlib, signal

def main(argv):
    flags = argparse.ArgumentParser()
    flags.add_argument("--x", type=int)
    flags.add_argument("--seed", type=int)
    flags.add_argument("--out", type=pathlib.Path)
    flags.add_argument("--quiet", action="store_true")
    args = flags.parse_args(argv)
    if args.x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if args.x == 3:
        raise ValueError("three is bad")
    threads = os.environ["OPENBLAS_NUM_THREADS"]
    (args.out / "results.json").write_text(json.dumps({"square": args.x**2, "threads": int(threads)}))
'''


def rows_of(out):
    """The results of the sweep by command: every column except the time, with all digits."""
    latest = Results(out / "results.csv").latest()
    return {command: {name: text for name, text in row.items() if name != "seconds"} for command, row in latest.items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The sweep with one point at a time."""
    out = tmp_path_factory.mktemp("alone")
    summary = sweep.main([*ADDING, "--jobs", "1", "--quiet", "--out", str(out), *SMALL])
    rows = rows_of(out)
    assert len(rows) == 8
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert len({row["test_mse"] for row in rows.values()}) == 8  # there is something to disagree about
    return summary, rows


def test_two_processes_find_the_same_as_one(alone, run_dir):
    summary = sweep.main([*ADDING, "--jobs", "2", "--quiet", "--out", str(run_dir), *SMALL])
    assert (summary, rows_of(run_dir)) == alone


def test_a_sweep_resumes_on_another_backend(alone, run_dir):
    """Half of it in processes of this machine, the rest on a Dask cluster that the sweep starts."""
    options = ["--jobs", "2", "--quiet", "--out", str(run_dir)]
    sweep.main([*ADDING, "--seeds", "1", *options, *SMALL])
    assert len(rows_of(run_dir)) == 4
    summary = sweep.main([*ADDING, *options, "--backend", "dask", *SMALL])
    assert (summary, rows_of(run_dir)) == alone
    assert len(Results(run_dir / "results.csv").rows) == 8


def test_killing_one_of_two_dask_workers_loses_nothing(alone, run_dir):
    killed = []

    def kill(cluster):
        """Send SIGKILL to a worker process once a row is written and both workers run a point."""
        while not killed:
            rows = (run_dir / "results.csv").read_text().count("\n") if (run_dir / "results.csv").exists() else 0
            if rows >= 2 and len(list(run_dir.glob("*/starts"))) == 2:
                killed.append(cluster.workers[0].pid)
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.001)

    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "300 s"}),  # a busy machine restarts a worker slowly
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="CRITICAL"
        ) as cluster,
    ):
        assassin = threading.Thread(target=kill, args=(cluster,), daemon=True)
        assassin.start()
        address = ["--backend", "dask", "--address", cluster.scheduler_address]
        summary = sweep.main([*ADDING, *address, "--quiet", "--out", str(run_dir), *SMALL])
        assert killed, "the sweep ended before both workers were seen at work"
    assert (summary, rows_of(run_dir)) == alone
    assert not list(run_dir.glob("*/starts"))


@pytest.mark.parametrize("backend", ["local", "dask"])
def test_a_point_that_kills_its_worker_is_recorded_and_the_others_run(backend, run_dir, tmp_path, monkeypatch):
    (tmp_path / "sweep_deadly.py").write_text(DEADLY)
    get_reusable_executor().shutdown(wait=True)  # its processes would import from the folder of an earlier test
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ["--jobs", "2", "--backend", backend, "--quiet", "--out", str(run_dir)]
    found = sweep.main(["sweep_deadly", "--grid", "x=1,2,3,4", "--seeds", "2", *options])
    assert (found["runs"], found["failed"]) == (8, 4)
    rows = {command.partition(" --")[2]: row for command, row in rows_of(run_dir).items()}
    for seed in (0, 1):
        assert rows[f"x=1 --seed={seed}"]["square"] == "1"
        assert rows[f"x=2 --seed={seed}"]["message"] == "the worker process died 3 times while this was running"
        assert rows[f"x=3 --seed={seed}"]["message"] == "ValueError: three is bad"
        assert (rows[f"x=4 --seed={seed}"]["square"], rows[f"x=4 --seed={seed}"]["threads"]) == ("16", "1")
    assert json.loads((run_dir / "results.json").read_text()) == found
