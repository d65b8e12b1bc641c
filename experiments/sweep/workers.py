"""Where a sweep's points run: local processes, or the workers of a Dask or Ray cluster.

joblib runs them: in its loky processes here; for a cluster, in threads of this process that each hand a point to the
cluster's own scheduler and wait. joblib's backends of these names are not used: the Dask one waits for ever for a task
that the scheduler has given up, the Ray one shows no result before the last (joblib 1.6, Ray 2.60).

A worker that dies costs no result. Dask and Ray start its point again elsewhere; here all processes of the pool go
down with it, and what was running is started again, alone, so that it is seen which point brings its process down. A
file in the point's folder counts the starts that did not end, and a point that took `MOST_DEATHS` processes with it is
recorded as failed. The folder must therefore be one that all workers see.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from minilstm.optional import library

from .points import Point
from .results import FAILED, OK, numbers

BACKENDS = ("local", "dask", "ray")
MOST_DEATHS = 3  # as many as a Dask scheduler forgives a task
MOST_WAITING = 500  # points that a cluster is handed at once; each waits in a thread here
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
INSTALL = "pip install 'minilstm[sweep]'"
STARTS = "starts"
CHECK_SECONDS = 60.0  # between looks at a Dask cluster whose result does not come
LOST_WORKER_SECONDS = 300  # before a Dask worker that does not come back is replaced

_one_at_a_time = threading.Lock()  # a process has one stack of autograd traces, and a cluster's worker may have threads


def run_point(point: Point, out: Path) -> dict[str, Any]:
    """Run a point in this process, in its own folder below `out`; its row. Whatever it raises becomes a failed row."""
    with _one_at_a_time:
        folder = out / point.name
        folder.mkdir(parents=True, exist_ok=True)
        died = starts(point, out)
        if died >= MOST_DEATHS:
            return row(point, FAILED, 0.0, f"the worker process died {died} times while this was running")
        (folder / STARTS).write_text(str(died + 1))
        started = time.perf_counter()
        printed = io.StringIO()
        found: dict[str, float] = {}
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
        return row(point, status, seconds, message, found)


def row(
    point: Point, status: str, seconds: float, message: str, found: Mapping[str, float] = MappingProxyType({})
) -> dict[str, Any]:
    """A row of the results."""
    flags = {f"--{flag}": value for flag, value in point.flags.items()}
    return {
        "command": point.command, "status": status, "seconds": f"{seconds:.2f}", "message": message, **flags, **found,
    }  # fmt: skip


def explain(error: BaseException, printed: str) -> str:
    """What went wrong, in a line; of an experiment that left with an exit code, the last line it printed."""
    if isinstance(error, SystemExit) and not isinstance(error.code, str):
        return (printed.strip() or f"left with exit code {error.code}").splitlines()[-1]
    return " ".join(f"{type(error).__name__}: {error}".split())


def starts(point: Point, out: Path) -> int:
    """How many times the point was started in this sweep without coming to an end."""
    path = out / point.name / STARTS
    return int(path.read_text() or 0) if path.exists() else 0


def run_all(
    points: Sequence[Point], out: Path, backend: str = "local", jobs: int = 1, address: str | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of all points, as they come.

    Parameters
    ----------
    points : sequence of Point
    out : Path
        The sweep's folder; absolute, where workers may have another current folder.
    backend : {"local", "dask", "ray"}
    jobs : int
        Processes at once, of this machine.
    address : str or None
        Of a running cluster, for "dask" and "ray"; None starts one of `jobs` workers on this machine.
    """
    for point in points:
        (out / point.name / STARTS).unlink(missing_ok=True)  # of a sweep that was stopped
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
    """The rows of all points from `jobs` processes of this machine, with one BLAS thread each."""
    joblib = library("joblib", "experiments.sweep", INSTALL)
    died = library("joblib.externals.loky.process_executor", "experiments.sweep", INSTALL).TerminatedWorkerError
    left = {point.command: point for point in points}
    while left:
        suspects = [point for point in left.values() if starts(point, out)]
        batch, at_once = (suspects[:1], 1) if suspects else (list(left.values()), jobs)
        with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
            processes = joblib.Parallel(  # with n_jobs=1 joblib would run points in this very process
                n_jobs=max(at_once, 2), pre_dispatch=at_once, batch_size=1, return_as="generator_unordered"
            )
        before = len(left)
        try:
            for found in processes(joblib.delayed(run_point)(point, out) for point in batch):
                del left[found["command"]]
                yield found
        except died:
            if len(left) == before and not any(starts(point, out) for point in batch):
                raise  # no point is to blame


@contextlib.contextmanager
def dask_cluster(out: Path, jobs: int, address: str | None) -> Iterator[Callable[[Point], dict[str, Any]]]:
    """A function that runs a point on a Dask cluster and waits for its row."""
    distributed = library("distributed", "--backend dask", INSTALL)
    with contextlib.ExitStack() as stack:
        cluster = None if address else stack.enter_context(local_dask(jobs))
        client = stack.enter_context(distributed.Client(address or cluster, set_as_default=False))

        def run(point: Point) -> dict[str, Any]:
            for _ in range(MOST_DEATHS):
                future = client.submit(run_point, point, out, pure=False)
                while True:
                    try:
                        return future.result(timeout=CHECK_SECONDS)
                    except distributed.TimeoutError:
                        if cluster is not None:
                            cluster.scale(jobs)  # replaces a worker whose nanny has given up restarting it
                    except distributed.KilledWorker as error:  # given up; perhaps another point killed its workers
                        message = explain(error, "")
                        break
            return row(point, FAILED, 0.0, message)

        yield run


@contextlib.contextmanager
def local_dask(jobs: int) -> Iterator[Any]:
    """A Dask cluster of `jobs` worker processes on this machine."""
    dask = library("dask", "--backend dask", INSTALL)
    distributed = library("distributed", "--backend dask", INSTALL)
    # After Dask's own 15 seconds a busy machine's restarting worker would be closed, and its point with it.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": f"{LOST_WORKER_SECONDS} s"}),
        distributed.LocalCluster(
            n_workers=jobs, threads_per_worker=1, processes=True, env=ONE_THREAD, dashboard_address=None,
            silence_logs="CRITICAL",
        ) as cluster,
    ):  # fmt: skip
        yield cluster


@contextlib.contextmanager
def ray_cluster(out: Path, jobs: int, address: str | None) -> Iterator[Callable[[Point], dict[str, Any]]]:
    """A function that runs a point on a Ray cluster and waits for its row."""
    ray = library("ray", "--backend ray", "pip install ray")
    ray.init(
        address=address, num_cpus=jobs if address is None else None, include_dashboard=None if address else False,
        log_to_driver=False, runtime_env={"env_vars": {**ONE_THREAD, "PYTHONPATH": os.pathsep.join(import_path())}},
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


def import_path() -> list[str]:
    """Folders from which a worker imports what this process imports from its current folder."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    return [root, *filter(None, [os.environ.get("PYTHONPATH")])]
