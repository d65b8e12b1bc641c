"""What the memory tasks share: the runs of a command, how a run is trained and scored, the picture and the table.

A run has one length, one start of the forget gate and one seed. Every step draws a new batch, a function of the seed
and the step. So a run can be resumed, and no sequence is seen twice.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minilstm import Adam, Dense, FitResult, Sequential, fit, predict, schedules
from minilstm.initializers import Chrono

from . import common

Batch = tuple[np.ndarray, np.ndarray]  # inputs [sequences, time, features], targets

BATCH_SIZE = 32
STEPS_PER_EPOCH = 100  # every batch is new: an epoch is only a unit of counting, one point of the curve
CLIP_NORM = 1.0
VALIDATION_SEQUENCES, TEST_SEQUENCES = 1000, 10000
PREDICTED_AT_ONCE = 250  # sequences; a pass keeps all its steps in memory
CHRONO = "chrono"


class Task(NamedTuple):
    """A task: its batches, its loss, its scores, and the loss without memory."""

    title: str  # of the picture
    batch: Callable[[np.random.Generator, int, int], Batch]  # (rng, sequences, length)
    loss: Callable[..., Any]
    loss_name: str  # on the axis of the picture and in the table
    scale: str  # of that axis: "log" if the loss falls by powers of ten, else "linear"
    scores: Callable[[np.ndarray, np.ndarray], dict[str, float]]  # (outputs, targets)
    headline: str  # the name of the score that is the loss
    baseline_name: str
    baseline: Callable[[int], float]  # length -> the loss of the best answers without memory
    outputs: int
    every_step: bool  # an output at every step, or after the last one only


class Run(NamedTuple):
    """What distinguishes one run of a command from the others."""

    length: int
    forget_bias: float | str  # the cell's, or "chrono"
    seed: int

    def __str__(self) -> str:
        return f"length {self.length}, {gate_in_words(self.forget_bias)}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """The name of the run's own folder, if a command has several runs."""
        return str(self).replace(", ", "_").replace(" ", "-")


def gate_in_words(forget_bias: float | str) -> str:
    """How the forget gate starts, in words."""
    return CHRONO if isinstance(forget_bias, str) else f"forget bias {forget_bias:g}"


def parser(
    module: str, description: str, length: int, forget_bias: float | str, **defaults: Any
) -> argparse.ArgumentParser:
    """The flags of every experiment that trains, and the flags of the memory tasks."""
    flags = common.parser(module, description, **defaults)
    flags.add_argument("--length", type=common.positive, nargs="+", default=[length], help="one or several")
    flags.add_argument(
        "--forget-bias", type=forget_bias_or_chrono, nargs="+", default=[forget_bias],
        help="one or several starts of the forget gate: numbers, or chrono (which depends on the length)",
    )  # fmt: skip
    flags.add_argument("--seeds", type=common.positive, default=1, help="number of seeds to train, from --seed on")
    return flags


def forget_bias_or_chrono(text: str) -> float | str:
    """A finite number or the word chrono, for argparse."""
    if text == CHRONO:
        return text
    value = float(text)
    if not np.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number or {CHRONO}, got {text}")
    return value


def build(task: Task, run: Run, units: int, layers: int) -> tuple[Sequential, Any]:
    """The model (LSTM cells and one Dense) and its initial weights."""
    inputs, _ = task.batch(np.random.default_rng(run.seed), 1, run.length)
    _, time_steps, features = inputs.shape
    options: dict[str, Any] = {"forget_bias": run.forget_bias}
    if run.forget_bias == CHRONO:
        options = {"forget_bias": 0.0, "bias_initializer": Chrono(time_steps)}
    recurrent = common.lstm(units, layers, return_sequences=task.every_step, **options)
    model = Sequential(recurrent, Dense(task.outputs))
    return model, model.init(run.seed, input_dim=features)


def training_batches(task: Task, run: Run) -> Callable[[int], Batch]:
    """A function from the step to its batch, which depends on the seed and the step alone."""
    return lambda step: task.batch(np.random.default_rng([run.seed, 2, step]), BATCH_SIZE, run.length)


def validation_data(task: Task, run: Run) -> Batch:
    """The sequences that the curve is measured on."""
    return task.batch(np.random.default_rng([run.seed, 3]), VALIDATION_SEQUENCES, run.length)


def test_data(task: Task, run: Run) -> Batch:
    """The sequences that are used once, after the last step."""
    return task.batch(np.random.default_rng([run.seed, 4]), TEST_SEQUENCES, run.length)


def learning_rates(rate: float, epochs: int) -> schedules.Schedule:
    """From `rate` to 0 along half a cosine."""
    return schedules.cosine(rate, epochs * STEPS_PER_EPOCH)


def train(
    task: Task, run: Run, model: Sequential, params: Any, epochs: int, learning_rate: float, **fit_options: Any
) -> FitResult:
    """Train one run; further options go to `fit`. The `batch_size` here is for the validation data only."""
    return fit(
        model, params, task.loss, training_batches(task, run), optimizer=Adam(learning_rates(learning_rate, epochs)),
        epochs=epochs, steps_per_epoch=STEPS_PER_EPOCH, seed=run.seed, clip_norm=CLIP_NORM,
        validation_data=validation_data(task, run), batch_size=PREDICTED_AT_ONCE, extra=run._asdict(), **fit_options,
    )  # fmt: skip


def runs_of(args: argparse.Namespace) -> list[Run]:
    """A run for every length, start of the forget gate and seed."""
    seeds = range(args.seed, args.seed + args.seeds)
    return [Run(*values) for values in dict.fromkeys(itertools.product(args.length, args.forget_bias, seeds))]


def main(task: Task, args: argparse.Namespace, report: Callable[[str], None]) -> dict[str, Any]:
    """Train, score, write and print what the flags request; returns what results.json holds."""
    started = time.perf_counter()
    models = {run: build(task, run, args.units, args.layers) for run in runs_of(args)}
    common.begin(args)
    curves: dict[Run, list[float]] = {}
    scores: dict[Run, dict[str, float]] = {}
    for run, (model, params) in models.items():
        folder = args.out
        if len(models) > 1:
            folder = args.out / run.folder
            common.prepare(folder, args.resume, args.out)
        run_started = time.perf_counter()
        result = train(
            task, run, model, params, args.epochs, args.learning_rate, progress=False if args.quiet else None,
            checkpoint_dir=folder, checkpoint_every=10 * STEPS_PER_EPOCH, resume=args.resume,
        )  # fmt: skip
        curves[run] = result.history["val_loss"]
        inputs, targets = test_data(task, run)
        scores[run] = task.scores(predict(model, result.params, inputs, PREDICTED_AT_ONCE), targets)
        if not args.quiet:
            shown = ", ".join(f"{name.replace('_', ' ')} {value:.5f}" for name, value in scores[run].items())
            report(f"{run}: {shown}, {time.perf_counter() - run_started:.0f} s")
    results = summary(task, scores)
    draw(task, curves, args.out / "curves.png")
    work = f"{len(models)} x {args.epochs * STEPS_PER_EPOCH} steps, {time.perf_counter() - started:.0f} s; files:"
    common.finish(args, results, f"\n{results_table(task, results)}\n\n{work}", report)
    return results


def summary(task: Task, scores: dict[Run, dict[str, float]]) -> dict[str, Any]:
    """Median and worst over seeds for every length and start of the forget gate; at the top level, the first ones."""
    names = next(iter(scores.values()))
    settings = []
    for (length, forget_bias), group in itertools.groupby(scores, key=lambda run: (run.length, run.forget_bias)):
        by_seed = {str(run.seed): scores[run] for run in group}
        figures = {name: float(np.median([found[name] for found in by_seed.values()])) for name in names}
        figures[f"worst_{task.headline}"] = max(found[task.headline] for found in by_seed.values())
        figures[task.baseline_name] = task.baseline(length)
        settings.append({"length": length, "forget_bias": forget_bias, "scores": figures, "by_seed": by_seed})
    return {**settings[0]["scores"], "settings": settings}


def results_table(task: Task, results: dict[str, Any]) -> str:
    """A row for each length and start of the forget gate."""
    rows = []
    for setting in results["settings"]:
        label = f"length {setting['length']}, {gate_in_words(setting['forget_bias'])}"
        names = (task.headline, f"worst_{task.headline}", task.baseline_name)
        rows.append((label, str(len(setting["by_seed"])), *(f"{setting['scores'][name]:.5f}" for name in names)))
    return common.table(("setting", "seeds", f"median test {task.loss_name}", "worst", "without memory"), rows)


def draw(task: Task, curves: dict[Run, list[float]], path: Path) -> None:
    """Draw the validation loss over steps: a panel per length, a colour per start of the gate, a line per seed."""
    from minilstm import plotting  # matplotlib is slow to load, and only needed here

    lengths = list(dict.fromkeys(run.length for run in curves))
    gates = list(dict.fromkeys(run.forget_bias for run in curves))
    colours = dict(zip(gates, itertools.cycle((plotting.FORECAST, plotting.FREE, *plotting.SHADES))))
    panels = common.panels(len(lengths), max(7.0, 3.6 * len(lengths)), 3.8)
    for ax, length in zip(panels, lengths, strict=True):
        for forget_bias in gates:
            drawn = [curve for run, curve in curves.items() if run[:2] == (length, forget_bias)]
            steps = STEPS_PER_EPOCH * np.arange(1, len(drawn[0]) + 1)
            lines = ax.plot(steps, np.transpose(drawn), color=colours[forget_bias], linewidth=1.2, alpha=0.8)
            lines[0].set_label(gate_in_words(forget_bias))
        ax.axhline(task.baseline(length), color=plotting.TRUTH, linestyle="--", linewidth=1, label="without memory")
        ax.set(title=f"length {length}", xlabel=f"step of {BATCH_SIZE} sequences", yscale=task.scale)
    panels[0].set_ylabel(f"{task.loss_name} on new sequences")
    panels[0].legend(frameon=False)
    panels[0].figure.suptitle(task.title)
    plotting.save(panels[0], path)
