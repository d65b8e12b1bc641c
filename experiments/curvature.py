"""Follow the curvature of the loss along training: the largest eigenvalues of its Hessian, with clipping and without.

    python -m experiments.curvature
    python -m experiments.curvature --tasks sunspots --learning-rate 1

Two small LSTMs are trained by gradient descent in float64: the sunspots on all windows at once, and the adding problem
with momentum on new batches. Every ``--every`` steps the largest eigenvalues of the Hessian are computed from products
(`minilstm.hessian_vector_product`), on sequences that stay the same: all windows of the sunspots, 200 sequences of the
adding problem. Alignment is the absolute cosine between the gradient and the eigenvector of the largest eigenvalue.

Along an eigenvector of a quadratic loss, gradient descent is stable while its eigenvalue is below 2 / rate, with
momentum m below 2 (1 + m) / rate. Without clipping, the largest eigenvalue rises to that bound and stays there, as
Cohen et al. 2021 (arXiv 2103.00065) found in other networks. Clipped steps are shorter, so it can be above.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minilstm import Momentum, Sequential, fit, hessian_vector_product, losses, value_and_grad
from minilstm.data import sliding_windows
from minilstm.params import tree_map

from . import adding, common, eigenvalues, sunspots, tasks_memory

Batch = tuple[np.ndarray, np.ndarray]  # inputs [sequences, time, features], targets
UNITS, LENGTH, MEASURED_SEQUENCES = 8, 30, 200  # the last two of the adding problem
CLIPPED, UNCLIPPED = "clipped", "not clipped"


class Task(NamedTuple):
    """A model, the batches it learns from, the batch on which the Hessian is measured, and how it is trained."""

    model: Sequential
    params: Any
    batch: Callable[[int], Batch]
    measured: Batch
    learning_rate: float
    momentum: float
    clip_norm: float

    def loss(self, params: Any, inputs: np.ndarray, targets: np.ndarray) -> Any:
        """The mean squared error."""
        return losses.mse(self.model(params, inputs), targets)


class Point(NamedTuple):
    """What is measured after `step` steps; `eigenvalues` are the largest ones, the largest first."""

    step: int
    loss: float
    grad_norm: float
    alignment: float
    eigenvalues: list[float]


class Trace(NamedTuple):
    """The points of one run, and why it ended early (empty if it did not)."""

    points: list[Point]
    ended: str


def sunspots_task(seed: int) -> Task:
    """The model of `experiments.sunspots`, smaller, on all windows of its training years at once."""
    years, numbers = sunspots.sunspots()
    numbers = numbers[years <= sunspots.LAST_TRAINING_YEAR]
    settings = sunspots.Settings(units=UNITS)
    scaling = sunspots.scaling_for(numbers, settings)
    standard = scaling.standardise(sliding_windows(numbers, settings.window + 1)[..., None])
    every = scaling.input_scale * standard[:, :-1], scaling.output_scale * standard[:, 1:]
    model = sunspots.build(settings)
    params = model.init(seed, input_dim=1, dtype=np.float64)
    return Task(model, params, lambda step: every, every, learning_rate=0.5, momentum=0.0, clip_norm=0.05)


def adding_task(seed: int) -> Task:
    """The model of `experiments.adding` on short sequences."""
    task, run = adding.task(), tasks_memory.Run(LENGTH, 1.0, seed)
    model, params = tasks_memory.build(task, run, UNITS, layers=1)
    draw = tasks_memory.training_batches(task, run)
    wide = lambda tree: tree_map(lambda leaf: leaf.astype(np.float64), tree)  # noqa: E731
    measured = task.batch(np.random.default_rng([seed, 3]), MEASURED_SEQUENCES, LENGTH)
    rates: dict[str, Any] = {"learning_rate": 0.3, "momentum": 0.9, "clip_norm": 1.0}
    return Task(model, wide(params), lambda step: wide(draw(step)), wide(measured), **rates)


TASKS: dict[str, Callable[[int], Task]] = {"sunspots": sunspots_task, "adding": adding_task}
STEPS = {"sunspots": 600, "adding": 1500}


def measure(task: Task, params: Any, step: int, count: int) -> Point:
    """Loss, norm of the gradient, alignment and the `count` largest eigenvalues at `params`."""
    multiply = hessian_vector_product(task.loss)

    def product(vector: np.ndarray) -> np.ndarray:
        return eigenvalues.flat(multiply(params, eigenvalues.as_tree(vector, params), *task.measured)[2])

    loss, grads = value_and_grad(task.loss)(params, *task.measured)
    gradient = eigenvalues.flat(grads)
    values, vectors = eigenvalues.largest(product, gradient.size, count)
    norm = float(np.linalg.norm(gradient))
    return Point(step, float(loss), norm, float(abs(gradient @ vectors[:, 0]) / norm), values.tolist())


def follow(task: Task, steps: int, every: int, clip: bool, count: int, seed: int = 0) -> Trace:
    """Train, and measure at the start and every `every` steps. A run ends early if a number is no longer finite."""
    points, ended = [measure(task, task.params, 0, count)], ""

    def look(result: Any) -> None:
        points.append(measure(task, result.params, result.step, count))

    try:
        with np.errstate(over="ignore", invalid="ignore"):
            fit(
                task.model, task.params, losses.mse, task.batch, optimizer=Momentum(task.learning_rate, task.momentum),
                epochs=steps // every, steps_per_epoch=every, clip_norm=task.clip_norm if clip else None, seed=seed,
                callbacks=[look], progress=False,
            )  # fmt: skip
    except FloatingPointError as error:  # of fit, and of a product of the Hessian
        ended = str(error)
    return Trace(points, ended)


def stable_below(task: Task) -> float:
    """The largest eigenvalue at which unclipped steps on a quadratic loss do not grow."""
    return 2 * (1 + task.momentum) / task.learning_rate


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the experiment; returns what results.json holds."""
    flags = common.program("experiments.curvature", "Follow the curvature of the loss along training.")
    common.add_output_flags(flags)
    flags.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS), help="what to train on")
    flags.add_argument("--seed", type=int, default=0, help="seed of weights and batches")
    flags.add_argument("--steps", type=common.positive, help=f"updates of the weights (default: {STEPS})")
    flags.add_argument("--every", type=common.positive, default=25, help="steps between two measurements")
    flags.add_argument("--count", type=common.positive, default=2, help="eigenvalues to compute, the largest ones")
    flags.add_argument("--learning-rate", type=float, help="of every task, instead of its own")
    flags.add_argument("--clip-norm", type=float, help="of every task, instead of its own")
    args = common.parse(flags, argv)
    started = time.perf_counter()
    common.begin(args)
    own = {name: getattr(args, name) for name in ("learning_rate", "clip_norm") if getattr(args, name) is not None}
    tasks = {name: TASKS[name](args.seed)._replace(**own) for name in dict.fromkeys(args.tasks)}
    traces: dict[str, dict[str, Trace]] = {}
    for name, task in tasks.items():
        for label in (UNCLIPPED, CLIPPED):
            options = args.steps or STEPS[name], args.every, label == CLIPPED, args.count, args.seed
            traces.setdefault(name, {})[label] = follow(task, *options)
    results: dict[str, Any] = {"method": eigenvalues.method(), "seed": args.seed}
    for name, task in tasks.items():
        found = {label.replace(" ", "_"): summary(trace) for label, trace in traces[name].items()}
        results[name] = {"stable_below": stable_below(task), "clip_norm": task.clip_norm, **found}
    write_history(args.out / "history.csv", traces, args.count)
    draw(args.out / "curvature.png", tasks, traces)
    work = f"eigenvalues by {results['method']}, {time.perf_counter() - started:.0f} s; files:"
    common.finish(args, results, f"{results_table(results, list(tasks))}\n\n{work}", report)
    return results


def summary(trace: Trace) -> dict[str, Any]:
    """The ends of a run and its highest eigenvalue."""
    last, top = trace.points[-1], [point.eigenvalues[0] for point in trace.points]
    found = {"step": last.step, "loss": last.loss, "largest_at_start": top[0], "largest_of_all": max(top)}
    found |= {"largest_at_end": top[-1], "alignment_at_end": last.alignment}
    return {**found, **({"ended": trace.ended} if trace.ended else {})}


def results_table(results: dict[str, Any], names: Sequence[str]) -> str:
    """A row for each run."""
    keys = ("largest_at_start", "largest_of_all", "largest_at_end", "alignment_at_end")
    rows = []
    for name in names:
        for label in (UNCLIPPED, CLIPPED):
            found = results[name][label.replace(" ", "_")]
            step = f"{found['step']}{' (not finite after it)' if 'ended' in found else ''}"
            numbers = [results[name]["stable_below"], *(found[key] for key in keys)]
            rows.append((f"{name}, {label}", step, f"{found['loss']:.4g}", *(f"{x:.3g}" for x in numbers)))
    head = ("run", "step", "loss", "stable below", "eigenvalue at the start", "highest", "at the end", "alignment")
    return common.table(head, rows)


def write_history(path: Path, traces: dict[str, dict[str, Trace]], count: int) -> None:
    """Write a row for each point."""
    numbered = [f"eigenvalue_{k + 1}" for k in range(count)]
    header = ("task", "clipping", "step", "loss", "grad_norm", "alignment", *numbered)
    rows = [(name, label, *point[:4], *point.eigenvalues) for name, runs in traces.items()
            for label, trace in runs.items() for point in trace.points]  # fmt: skip
    common.write_csv(path, header, rows)


def draw(path: Path, tasks: dict[str, Task], traces: dict[str, dict[str, Trace]]) -> None:
    """Draw a column for each task: the loss, the two largest eigenvalues with their bound, and the alignment."""
    from matplotlib.figure import Figure  # slow to load, and only needed here

    from minilstm import plotting

    figure = Figure(figsize=(5.2 * len(tasks), 7), layout="constrained")
    axes = figure.subplots(3, len(tasks), sharex="col", squeeze=False)
    for column, (name, task) in enumerate(tasks.items()):
        losses_ax, values_ax, alignment_ax = axes[:, column]
        for (label, trace), colour in zip(traces[name].items(), (plotting.FORECAST, plotting.FREE), strict=True):
            steps = [point.step for point in trace.points]
            losses_ax.plot(steps, [point.loss for point in trace.points], color=colour, label=label)
            tops = [point.eigenvalues[:2] for point in trace.points]
            values_ax.plot(steps, [top[0] for top in tops], color=colour)
            values_ax.plot(steps, [top[-1] for top in tops], ":", color=colour)
            alignment_ax.plot(steps, [point.alignment for point in trace.points], color=colour)
        values_ax.axhline(stable_below(task), color=plotting.TRUTH, linestyle="--", linewidth=1, label="stable below")
        losses_ax.set(title=name, ylabel="loss", yscale="log")
        values_ax.set(ylabel="eigenvalues (dotted: the second)")
        alignment_ax.set(ylabel="alignment", xlabel="step", ylim=(-0.03, 1.03))
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, alpha=0.25, linewidth=0.6)
    axes[0, 0].legend(frameon=False)
    axes[1, 0].legend(frameon=False)
    plotting.save(axes[0, 0], path)


if __name__ == "__main__":
    main()
