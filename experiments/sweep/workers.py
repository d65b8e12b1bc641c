"""Run the points of a sweep in local processes, or on the workers of a Dask or Ray cluster.

joblib runs the points. Locally it uses its loky processes. For a cluster it uses threads of this process; each thread
submits a point to the cluster's own scheduler and waits. joblib's own backends for Dask and Ray are not used: the first
waits for ever for a task that the scheduler has given up, the second returns no result before the last (joblib 1.6, Ray
2.60).

No result is lost when a worker dies. Dask and Ray start its point again on another worker. Locally a dead process ends
all processes of the pool; the points that were running are then started again one by one, which shows which of them
kills its process. A file in the folder of a point counts the starts that did not end. After `MOST_DEATHS` of them the
point is recorded as failed. So all workers must see the folder.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from minilstm.optional import library

from .points import Point
from .results import COLUMNS, FAILED, OK, numbers

ROOT = str(Path(__file__).resolve().parent.parent.parent)
BACKENDS = ("local", "dask", "ray")
MOST_DEATHS = 3  # the number of deaths that a Dask scheduler allows a task
MOST_WAITING = 500  # points submitted to a cluster at once; each waits in a thread here
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
INSTALL = "pip install 'minilstm[sweep]'"
STARTS = "starts"
LONGEST_MESSAGE = 2000  # characters; Python's csv reads no field of more than 131,072
CHECK_SECONDS = 60.0  # between checks of a Dask cluster while a result is missing
LOST_WORKER_SECONDS = 300  # before a lost Dask worker is replaced

_one_at_a_time = threading.Lock()  # autograd has one stack of traces per process, and a worker may have threads


def run_point(point: Point, out: Path) -> dict[str, Any]:
    """Run a point in this process, in its own folder in `out`; returns its row. An exception becomes a failed row."""
    with _one_at_a_time:
        folder = out / point.name
        folder.mkdir(parents=True, exist_ok=True)
        died = starts(point, out)
        if died >= MOST_DEATHS:
            return row(point, FAILED, 0.0, f"the worker process died {died} times while this was running")
        (folder / STARTS).write_text(str(died + 1))
        started = time.perf_counter()
        printed = io.StringIO()
        found: dict[str, Any] = {}
        try:
            with contextlib.redirect_stderr(printed):
                main = importlib.import_module(point.experiment).main
                main([*point.arguments, "--out", str(folder), "--quiet"])
            found = numbers(json.loads((folder / "results.json").read_text()))
            status, message = OK, ""
        except (Exception, SystemExit) as error:
            status, message = FAILED, explain(error, printed.getvalue())
            traceback.print_exc(file=printed)
        seconds = time.perf_counter() - started
        (folder / "stderr.txt").write_text(printed.getvalue())
        (folder / STARTS).unlink()
        return row(point, status, seconds, message) | found


def row(point: Point, status: str, seconds: float, message: str) -> dict[str, Any]:
    """A row of the results, without the numbers."""
    values = (point.command, status, f"{seconds:.2f}", message)
    flags = {f"--{flag}": value for flag, value in point.flags.items()}
    return dict(zip(COLUMNS, values, strict=True)) | flags


def explain(error: BaseException, printed: str) -> str:
    """The error in one line; for an experiment that ended with an exit code, the last line that it printed."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, SystemExit) and not isinstance(error.code, str):
        text = (printed.strip() or f"ended with exit code {error.code}").splitlines()[-1]
    return text[:LONGEST_MESSAGE].encode("utf-8", "backslashreplace").decode()  # half a character is in no file


def starts(point: Point, out: Path) -> int:
    """The number of times that the point was started in this sweep and did not end."""
    path = out / point.name / STARTS
    text = path.read_text() if path.exists() else ""
    return int(text) if text.isdecimal() else 0  # torn by a kill


def run_all(
    points: Sequence[Point], out: Path, backend: str = "local", jobs: int = 1, address: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the row of each point when the point ends.

    Parameters
    ----------
    points : sequence of Point
    out : Path
        The sweep's folder; absolute if workers may have another current folder.
    backend : {"local", "dask", "ray"}
    jobs : int
        Processes at once on this machine.
    address : str or None
        The address of a running cluster, for "dask" and "ray"; None starts `jobs` workers on this machine.
    """
    for point in points:
        (out / point.name / STARTS).unlink(missing_ok=True)  # left over from a sweep that was stopped
    if backend == "local":
        yield from in_processes(points, out, jobs)
        return
    cluster = {"dask": dask_cluster, "ray": ray_cluster}[backend]
    with cluster(out, jobs, address) as run:
        joblib = library("joblib", "experiments.sweep", INSTALL)
        threads = joblib.Parallel(
            n_jobs=min(len(points), MOST_WAITING), backend="threading", batch_size=1, return_as="generator_unordered"
        )
        yield from threads(joblib.delayed(run)(point) for point in points)


def in_processes(points: Sequence[Point], out: Path, jobs: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of all points from `jobs` processes on this machine, with one BLAS thread each."""
    joblib = library("joblib", "experiments.sweep", INSTALL)
    died = library("joblib.externals.loky.process_executor", "experiments.sweep", INSTALL).TerminatedWorkerError
    left = {point.command: point for point in points}
    while left:
        suspects = [point for point in left.values() if starts(point, out)]
        batch, at_once = (suspects[:1], 1) if suspects else (list(left.values()), jobs)
        with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
            processes = joblib.Parallel(  # with n_jobs=1 joblib would run points in this process
                n_jobs=max(at_once, 2), pre_dispatch=at_once, batch_size=1, return_as="generator_unordered"
            )
        before = len(left)
        try:
            for found in processes(joblib.delayed(run_point)(point, out) for point in batch):
                del left[found["command"]]
                yield found
        except died:
            if len(left) == before and not any(starts(point, out) for point in batch):
                raise  # no point caused this


@contextlib.contextmanager
def dask_cluster(out: Path, jobs: int, address: str | None) -> Iterator[Callable[[Point], dict[str, Any]]]:
    """Yield a function that runs a point on a Dask cluster and waits for its row."""
    distributed = library("distributed", "--backend dask", INSTALL)
    with contextlib.ExitStack() as stack:
        cluster = None
        if address is None:
            # After Dask's default of 15 seconds, a worker that restarts slowly would be closed, and its point with it.
            patience = {"distributed.deploy.lost-worker-timeout": f"{LOST_WORKER_SECONDS} s"}
            stack.enter_context(library("dask", "--backend dask", INSTALL).config.set(patience))
            cluster = stack.enter_context(distributed.LocalCluster(
                n_workers=jobs, threads_per_worker=1, processes=True, env=ONE_THREAD, dashboard_address=None,
                silence_logs="CRITICAL",
            ))  # fmt: skip
        client = stack.enter_context(distributed.Client(address or cluster, set_as_default=False))

        def run(point: Point) -> dict[str, Any]:
            for _ in range(MOST_DEATHS):
                future = client.submit(run_point, point, out, pure=False)
                while True:
                    try:
                        return future.result(timeout=CHECK_SECONDS)
                    except distributed.TimeoutError:
                        if cluster is not None:
                            cluster.scale(jobs)  # replaces a worker that its nanny no longer restarts
                    except distributed.KilledWorker as error:  # perhaps another point killed its workers
                        message = explain(error, "")
                        break
            return row(point, FAILED, 0.0, message)

        yield run


@contextlib.contextmanager
def ray_cluster(out: Path, jobs: int, address: str | None) -> Iterator[Callable[[Point], dict[str, Any]]]:
    """Yield a function that runs a point on a Ray cluster and waits for its row."""
    ray = library("ray", "--backend ray", "pip install ray")
    folders = filter(None, [ROOT, os.environ.get("PYTHONPATH")])  # where a worker finds the modules of this process
    ray.init(
        address=address, num_cpus=jobs if address is None else None, include_dashboard=None if address else False,
        log_to_driver=False, runtime_env={"env_vars": {**ONE_THREAD, "PYTHONPATH": os.pathsep.join(folders)}},
    )  # fmt: skip
    remote = ray.remote(max_retries=MOST_DEATHS)(run_point)

    def run(point: Point) -> dict[str, Any]:
        try:
            return ray.get(remote.remote(point, out))
        except ray.exceptions.RayError as error:
            return row(point, FAILED, 0.0, explain(error, ""))

    try:
        yield run
    finally:
        ray.shutdown()
