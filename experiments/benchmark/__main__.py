"""Compare minilstm with PyTorch, JAX, Keras on TensorFlow and autograd's trace, on the same work, in one run.

    python -m experiments.benchmark            (pip install '.[bench]' installs the peers)
    python -m experiments.benchmark --breadth  (other cells, lengths, whole models, random sizes: see breadth.py)
    python -m experiments.benchmark --second   (products of the Hessian with a vector: see second.py)

Each peer has its own processes, on two cores with two threads. For each size the peers take turns, one right after the
other, so that a slow minute of the machine slows all of them. There are several rounds, each with new processes. A
table shows the medians of all rounds. A ratio is also a median over rounds, of two times from the same round. Machines
differ and are noisy: read the ratios, not the milliseconds. POSIX reports the peak memory of a process to its parent;
the benchmark does not run on Windows.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from .. import common
from . import breadth, second
from .breadth_cases import CASES, TENSORFLOW
from .peers import PEERS, Minilstm, Traced
from .tables import Results, headline, report
from .work import NUMPY, THREADS, TOY, Job, Shape

ROOT = Path(__file__).resolve().parent.parent.parent
SHAPES: tuple[Shape, ...] = (
    (50, 32, 1, 32), (50, 32, 64, 128), (35, 20, 200, 200), (100, 64, 128, 256), (35, 20, 650, 650), (200, 1, 1, 16),
)  # fmt: skip
GENERATION_UNITS = (32, 64, 128)
TIMES = (50, 200, 800, 3200)  # at batch 32, 1 input, 32 units
UNITS = (32, 64, 128, 256, 512)  # at 50 steps, batch 32, 1 input
GROWTH: tuple[Shape, ...] = (*((steps, 32, 1, 32) for steps in TIMES), *((50, 32, 1, units) for units in UNITS[1:]))
TASKS = ("step", "forward", "generate", "toy", "memory", "growth")
SETTLE = 0.2  # seconds before each measurement: the threads of BLAS spin for a tenth of a second after a product
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def command(peer: str) -> dict[str, Any]:
    """The arguments of `subprocess.Popen` for a process that measures a peer."""
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(THREADS))}
    if peer == TENSORFLOW:
        environment |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    else:
        environment |= Minilstm.environment if peer == NUMPY else PEERS[peer].environment
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed peers have byte code: let minilstm write its own
    arguments = [sys.executable, "-m", "experiments.benchmark.work", peer]
    return {"args": arguments, "cwd": ROOT, "env": environment, "text": True}


def failure(peer: str, code: int | None, errors: IO[str]) -> RuntimeError:
    """The exception for a process of the peer that ended with `code`."""
    errors.seek(0)
    return RuntimeError(f"benchmark: {peer} ended with {code}:\n{errors.read()[-2000:]}")


class Worker:
    """A process that waits for timed jobs, so that peers can take turns without starting again."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process: subprocess.Popen[str] = subprocess.Popen(**command(peer), **pipes)

    def do(self, job: Job) -> float:
        """Do a job; returns its milliseconds."""
        time.sleep(SETTLE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the process has ended, so there is no answer either
            print(json.dumps(job), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise failure(self.peer, self.process.wait(), self.errors)
        return float(answer)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()  # closes its input; without more jobs the process ends
        self.errors.close()


def in_process(peer: str, jobs: Sequence[Job]) -> tuple[list[float], float, float]:
    """Do jobs in one process; returns the numbers it printed, milliseconds from start to end, peak memory in MiB."""
    with contextlib.ExitStack() as files:
        wanted, output, errors = (files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
        wanted.writelines(json.dumps(job) + "\n" for job in jobs)
        wanted.seek(0)
        start = time.perf_counter()
        process = subprocess.Popen(**command(peer), stdin=wanted, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        elapsed = (time.perf_counter() - start) * 1e3
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise failure(peer, process.returncode, errors)
        output.seek(0)
        printed = [float(line) for line in output]
    unit = 1024**2 if sys.platform == "darwin" else 1024  # of ru_maxrss: bytes on a Mac, else kilobytes
    return printed, elapsed, usage.ru_maxrss / unit


def timed_jobs(peer: str, tasks: Sequence[str]) -> list[Job]:
    """The jobs that a peer's process measures in every round."""
    jobs: list[Job] = [("step", shape) for shape in SHAPES if "step" in tasks]
    if peer == NUMPY:
        return [("large product", ()), *(("products", shape) for _, shape in jobs)]
    if peer == Traced.name:
        return jobs
    jobs += [("forward", shape) for shape in SHAPES if "forward" in tasks]
    jobs += [("generate", (1, 1, 1, units)) for units in GENERATION_UNITS if "generate" in tasks]
    if issubclass(PEERS[peer], Minilstm):
        jobs += [("step", shape) for shape in GROWTH if "growth" in tasks]
    return list(dict.fromkeys(jobs))


def memory_jobs(peer: str, tasks: Sequence[str]) -> list[Job]:
    """The jobs whose peak memory is measured, each in a new process."""
    jobs: list[Job] = [("memory", shape) for shape in SHAPES if "memory" in tasks]
    if issubclass(PEERS[peer], Minilstm) and peer != Traced.name and "growth" in tasks:
        jobs += [("memory", shape) for shape in GROWTH]
        jobs += [("truncated", (steps, 32, 1, 32)) for steps in TIMES]
    return list(dict.fromkeys(jobs))


def measure(results: Results, tasks: Sequence[str], rounds: int) -> None:
    """Fill `results`: the peers take turns `rounds` times. Memory does not vary and is measured once."""
    todo = {peer: timed_jobs(peer, tasks) for peer in [NUMPY, *results.present]}
    every = list(dict.fromkeys(job for own in todo.values() for job in own))
    jobs = [job for shape in dict.fromkeys(job[1] for job in every) for job in every if job[1] == shape]
    for turn in range(rounds):
        print(f"benchmark: round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        with contextlib.ExitStack() as open_workers:
            workers = {peer: open_workers.enter_context(Worker(peer)) for peer, own in todo.items() if own}
            for job in jobs:
                for peer, worker in workers.items():
                    if job in todo[peer]:
                        results.time.add(peer, *job, worker.do(job))
        for peer in results.present:
            if "toy" in tasks and peer != Traced.name:
                _, elapsed, memory = in_process(peer, [("toy", TOY)])
                results.time.add(peer, "toy", TOY, elapsed)
                results.memory.add(peer, "toy", TOY, memory)
    for peer in results.present:
        print(f"benchmark: memory, {peer}", file=sys.stderr, flush=True)
        for job in memory_jobs(peer, tasks):
            results.memory.add(peer, *job, in_process(peer, [job])[2])


def found_peers(args: Any, every: dict[str, tuple[str, ...]]) -> tuple[list[str], str]:
    """The peers to measure, of those in `every` with their modules; and the headline of the tables."""
    wanted = {peer: modules for peer, modules in every.items() if peer in {*args.peers, TENSORFLOW}}
    present = [peer for peer, modules in wanted.items() if all(map(importlib.util.find_spec, modules))]
    known = Results([peer for peer in present if peer in PEERS], [p for p in wanted if p not in present], args.rounds)
    with Worker(NUMPY) as worker:
        known.time.add(NUMPY, "large product", (), worker.do(("large product", ())))
    return present, headline(known)


def measure_breadth(args: Any) -> None:
    """The cases of `breadth` instead of the plain cell at chosen sizes."""
    present, text = found_peers(args, breadth.peers_of_breadth())
    shapes = breadth.random_shapes(args.seed, args.random_sizes)
    times = breadth.measure(Worker, present, args.rounds, args.cases, shapes)
    breadth.report(args.out, times, f"{text}, random sizes of seed {args.seed}")


def measure_second(args: Any) -> None:
    """The products of `second`. minilstm is always measured."""
    args.peers = [Minilstm.name, *args.peers]
    present, text = found_peers(args, second.peers_of_second())
    second.report(args.out, second.measure(Worker, present, args.rounds, second.SHAPES), text)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print the tables; write the tables, two CSV files and a plot."""
    flags = common.program("experiments.benchmark", (__doc__ or "").split("\n")[0])
    flags.add_argument("--out", type=common.home, default="runs/benchmark", help="folder of the tables and the plot")
    flags.add_argument("--rounds", type=common.positive, default=3, help="number of turns that each peer takes")
    flags.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS), help="the libraries to measure")
    flags.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, help="the tasks to measure")
    flags.add_argument("--breadth", action="store_true", help="measure other cells and models, and random sizes")
    flags.add_argument("--second", action="store_true", help="measure products of the Hessian with a vector")
    flags.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), help="with --breadth: the cases")
    flags.add_argument("--random-sizes", type=int, default=12, help="with --breadth: how many random sizes")
    flags.add_argument("--seed", type=int, default=0, help="with --breadth: of the random sizes")
    args = flags.parse_args(argv)
    if args.breadth or args.second:
        (measure_second if args.second else measure_breadth)(args)
        return
    chosen = list(dict.fromkeys(args.peers))
    present = [peer for peer in chosen if all(map(importlib.util.find_spec, PEERS[peer].modules))]
    results = Results(present, [peer for peer in chosen if peer not in present], args.rounds)
    measure(results, args.tasks, args.rounds)
    report(args.out, results, SHAPES, TIMES, UNITS)


if __name__ == "__main__":
    main()
