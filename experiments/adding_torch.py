"""Compare minilstm with torch.nn.LSTM on the adding problem: the same initial weights, batches and steps.

    python -m experiments.adding_torch --symmetric --seeds 5            (pip install '.[bench]' installs PyTorch)

The two take turns, an epoch each, so that other work on the machine disturbs both. The time covers everything between
the first step and the last: drawing batches, training, and the validation loss after every epoch. It is given as wall
time and as processor time, which a busy machine disturbs less. The two versions of Adam add epsilon in different
places, and sums are rounded differently. So two runs from equal weights drift apart, and both losses are printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minilstm import FitResult, Sequential, losses, predict
from minilstm.export.layout import to_torch

from . import adding, common, tasks_memory
from .tasks_memory import PREDICTED_AT_ONCE, STEPS_PER_EPOCH, Batch, Run, Task


class TorchModel:
    """A copy of a model of `tasks_memory.build` with one LSTM cell: ``nn.LSTM`` and ``nn.Linear``, the same weights."""

    def __init__(self, model: Sequential, params: Any, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        cell, weights, dense = model.layers[0].cell, params["rnn"]["lstm_cell"], params["dense"]
        self.lstm = torch.nn.LSTM(cell.input_dim(weights), cell.units, batch_first=True)
        self.dense = torch.nn.Linear(*dense["kernel"].shape)
        modules = torch.nn.ModuleDict({"lstm": self.lstm, "dense": self.dense})
        tensors = {f"lstm.{name}_l0": value for name, value in to_torch(cell, weights).items()}
        tensors |= {"dense.weight": dense["kernel"].T, "dense.bias": dense["bias"]}
        modules.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in tensors.items()})
        self.lstm.bias_hh_l0.requires_grad_(False)  # it holds the forget bias; our cell has one trained bias too
        self.trained = [weight for weight in modules.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.Adam(self.trained)

    def _outputs(self, inputs: np.ndarray) -> Any:
        return self.dense(self.lstm(self.torch.from_numpy(inputs))[0][:, -1])

    def step(self, batch: Batch, rate: float) -> None:
        """One step of Adam."""
        inputs, targets = batch
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        self.torch.nn.functional.mse_loss(self._outputs(inputs), self.torch.from_numpy(targets)).backward()
        self.torch.nn.utils.clip_grad_norm_(self.trained, tasks_memory.CLIP_NORM)
        self.optimizer.step()

    def __call__(self, params: Any, inputs: np.ndarray) -> np.ndarray:
        """The outputs, so that `minilstm.predict` can call this like a model; `params` is ignored."""
        with self.torch.inference_mode():
            return self._outputs(inputs).numpy()


def compare(task: Task, run: Run, units: int, epochs: int, learning_rate: float, threads: int) -> dict[str, float]:
    """Train one run with both, in turns; returns test losses and seconds."""
    model, params = tasks_memory.build(task, run, units, layers=1)
    peer = TorchModel(model, params, threads)
    batches, rates = tasks_memory.training_batches(task, run), tasks_memory.learning_rates(learning_rate, epochs)
    validation = tasks_memory.validation_data(task, run)
    marks = [clocks()]  # ours begins, PyTorch begins, ours begins, ..., PyTorch ends

    def peers_turn(result: FitResult) -> None:
        marks.append(clocks())
        for step in range(result.step - STEPS_PER_EPOCH, result.step):
            peer.step(batches(step), rates(step))
        losses.mse(predict(peer, None, validation[0], PREDICTED_AT_ONCE), validation[1])  # as fit does
        marks.append(clocks())

    options: dict[str, Any] = {"callbacks": [peers_turn], "progress": False}
    result = tasks_memory.train(task, run, model, params, epochs, learning_rate, **options)
    inputs, targets = tasks_memory.test_data(task, run)
    durations = np.diff(marks, axis=0)
    (seconds, cpu_seconds), (torch_seconds, torch_cpu_seconds) = durations[::2].sum(axis=0), durations[1::2].sum(axis=0)
    return {
        "test_mse": float(losses.mse(predict(model, result.params, inputs, PREDICTED_AT_ONCE), targets)),
        "torch_test_mse": float(losses.mse(predict(peer, None, inputs, PREDICTED_AT_ONCE), targets)),
        "seconds": float(seconds),
        "torch_seconds": float(torch_seconds),
        "cpu_seconds": float(cpu_seconds),
        "torch_cpu_seconds": float(torch_cpu_seconds),
    }


def clocks() -> tuple[float, float]:
    """Wall time and processor time, in seconds."""
    return time.perf_counter(), time.process_time()


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the comparison; returns what results.json holds."""
    description = "Compare minilstm with PyTorch on the adding problem."
    flags = tasks_memory.parser("experiments.adding_torch", description, **adding.DEFAULTS)
    flags.add_argument("--symmetric", action="store_true", help="numbers in [-1, 1] instead of [0, 1]")
    flags.add_argument("--threads", type=common.positive, default=1, help="threads of PyTorch")
    args = common.parse(flags, argv)
    if args.layers != 1 or args.resume:
        flags.error("this comparison takes neither --layers above 1 nor --resume")
    task = adding.task(args.symmetric)
    runs = tasks_memory.runs_of(args)
    common.begin(args)
    found: dict[str, dict[str, float]] = {}
    for run in runs:
        found[str(run)] = compare(task, run, args.units, args.epochs, args.learning_rate, args.threads)
        if not args.quiet:
            report(f"{run}: done")
    results: dict[str, Any] = {}
    for name in next(iter(found.values())):
        values = [scores[name] for scores in found.values()]
        results[name] = sum(values) if name.endswith("seconds") else float(np.median(values))
    results["ratio"] = results["seconds"] / results["torch_seconds"]
    results["cpu_ratio"] = results["cpu_seconds"] / results["torch_cpu_seconds"]
    results["runs"] = found
    header = ("run", "MSE", "PyTorch", "seconds", "PyTorch", "processor seconds", "PyTorch")
    rows = [
        (run, *(f"{value:.5f}" if "mse" in name else f"{value:.1f}" for name, value in scores.items()))
        for run, scores in found.items()
    ]
    ratios = f"wall time {results['ratio']:.2f}, processor time {results['cpu_ratio']:.2f}"
    text = f"{common.table(header, rows)}\n\nminilstm over PyTorch: {ratios}; files:"
    common.finish(args, results, text, report)
    return results


if __name__ == "__main__":
    main()
