"""Forecast thirty years with one trained model in minilstm, TensorFlow, Keras, PyTorch and onnxruntime.

    python -m experiments.export_forecast

Trains the model of `experiments.sunspots` and exports it with `minilstm.export`. In each library the model then reads
its own forecasts for the thirty years after the last known year. A library that is not installed is left out, and the
line that installs it is printed. To have them all:
pip install 'minilstm[export]' tensorflow keras torch safetensors onnxruntime
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minilstm.export import keras, onnx, tf2, torch

from . import common
from .sunspots import FREE_YEARS, LAST_TRAINING_YEAR, Scaling, Settings, build, free_run, sunspots, train

EXPORTS: dict[str, tuple[Any, str]] = {
    "TensorFlow": (tf2, "tensorflow.ckpt"),
    "Keras": (keras, "model.keras"),
    "PyTorch": (torch, "model.safetensors"),
    "onnxruntime": (onnx, "model.onnx"),
}
MARKERS = "osD^"


def free_run_elsewhere(
    run: Callable[[np.ndarray], np.ndarray], numbers: np.ndarray, settings: Settings, scaling: Scaling, steps: int
) -> np.ndarray:
    """`experiments.sunspots.free_run` for a model without a state, which reads the whole sequence again at every step.

    `run` maps inputs ``[1, time, 1]`` to outputs ``[1, time, 1]``.
    """
    read = scaling.inputs(numbers[-settings.window :])
    forecasts: list[np.ndarray] = []
    for _ in range(steps):
        outputs = run(read.astype(np.float32)[None, :, None])
        forecasts.append(scaling.decode(outputs[:, -1, 0]))
        read = np.append(read, scaling.inputs(forecasts[-1]))
    return np.concatenate(forecasts)


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> dict[str, np.ndarray]:
    """Run the experiment; returns the forecasts by library, ours under "minilstm"."""
    description = "Forecast the same thirty years of sunspots in every library."
    flags = common.parser("experiments.export_forecast", description, **Settings()._asdict())
    args = common.parse(flags, argv)
    if args.resume:
        flags.error("this experiment does not resume")
    settings = Settings(args.units, args.layers, epochs=args.epochs, learning_rate=args.learning_rate)
    years, numbers = sunspots()
    common.begin(args)
    training = numbers[years <= LAST_TRAINING_YEAR]
    result, scaling = train(training, settings, args.seed, progress=False if args.quiet else None)
    forecasts = {"minilstm": free_run(result.params, numbers, settings, scaling, FREE_YEARS)}
    missing = []
    for name, (module, file) in EXPORTS.items():
        try:
            code = module.save(args.out / file, build(settings), result.params, extra={"scaling": scaling._asdict()})
            forecasts[name] = free_run_elsewhere(module.opened(code), numbers, settings, scaling, FREE_YEARS)
        except ImportError as error:
            missing.append(str(error))
    free_years = np.arange(years[-1] + 1, years[-1] + 1 + FREE_YEARS)
    write_files(args.out, free_years, forecasts)
    if not args.quiet:
        paths = [f"  {path}" for path in sorted(args.out.iterdir())]
        report("\n".join([forecasts_table(free_years, forecasts), *missing, *paths]))
    return forecasts


def forecasts_table(years: np.ndarray, forecasts: dict[str, np.ndarray]) -> str:
    """A row per year, and the largest difference between each library and ours."""
    rows = [(str(year), *(f"{values[k]:.4f}" for values in forecasts.values())) for k, year in enumerate(years)]
    differences = [f"{np.max(np.abs(values - forecasts['minilstm'])):.1e}" for values in forecasts.values()]
    return common.table(("year", *forecasts), [*rows, ("largest difference", *differences)])


def write_files(out: Path, years: np.ndarray, forecasts: dict[str, np.ndarray]) -> None:
    """Write forecast.csv and forecast.png."""
    from minilstm import plotting  # matplotlib is slow to load, and only needed here

    common.write_csv(out / "forecast.csv", ("year", *forecasts), list(zip(years, *forecasts.values(), strict=True)))
    ax = plotting.new_axes()
    ax.plot(years, forecasts["minilstm"], color=plotting.FORECAST, alpha=0.5, label="minilstm")
    others = [name for name in forecasts if name != "minilstm"]
    for k, name in enumerate(others):  # markers of different years, or they would hide each other
        shown = slice(k, None, len(others))
        ax.plot(years[shown], forecasts[name][shown], MARKERS[k], markersize=5, label=name)
    ax.set(xlabel="year", ylabel="sunspot number", title="One model, forecasts of every library")
    ax.margins(y=0.2)
    ax.legend(frameon=False, ncols=len(forecasts), loc="upper center")
    plotting.save(ax, out / "forecast.png")


if __name__ == "__main__":
    main()
