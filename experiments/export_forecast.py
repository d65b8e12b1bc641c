"""One trained model, thirty years of forecasts, in TensorFlow, Keras, PyTorch, onnxruntime and here.

    python -m experiments.export_forecast

Trains the model of `experiments.sunspots`, exports it with `minilstm.export`, and lets each library feed the model with
its own forecasts for the thirty years behind the last known one. A library that is not installed is left out, and the
line that installs it is printed. To have them all: pip install 'minilstm[export]' tensorflow keras torch onnxruntime
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
    """`experiments.sunspots.free_run` with the model as a function of the whole sequence up to now, without a state.

    `run` takes inputs ``[1, time, 1]`` and returns outputs ``[1, time, 1]``.
    """
    read = list(scaling.inputs(numbers[-settings.window :]))
    forecasts = []
    for _ in range(steps):
        output = run(np.array(read, np.float32)[None, :, None])[:, -1, 0]
        forecasts.append(scaling.decode(output)[0])
        read.append(scaling.inputs(np.array(forecasts[-1:]))[0])
    return np.array(forecasts)


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> dict[str, np.ndarray]:
    """Run the experiment; returns the forecasts by library, ours under "minilstm"."""
    defaults = Settings()
    description = "The same thirty years of sunspots from every library."
    args = common.parser("experiments.export_forecast", description, **defaults._asdict()).parse_args(argv)
    settings = defaults._replace(
        units=args.units, layers=args.layers, epochs=args.epochs, learning_rate=args.learning_rate
    )
    years, numbers = sunspots()
    common.prepare(args.out, args.resume)
    result, scaling = train(
        numbers[years <= LAST_TRAINING_YEAR], settings, args.seed, progress=False if args.quiet else None
    )
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
        report(forecasts_table(free_years, forecasts))
        for line in missing:
            report(line)
        for path in sorted(args.out.iterdir()):
            report(f"  {path}")
    return forecasts


def forecasts_table(years: np.ndarray, forecasts: dict[str, np.ndarray]) -> str:
    """A row a year, and how far each library strays from ours at most."""
    rows = [(str(year), *(f"{values[k]:.4f}" for values in forecasts.values())) for k, year in enumerate(years)]
    strays = [f"{np.max(np.abs(values - forecasts['minilstm'])):.1e}" for values in forecasts.values()]
    return common.table(("year", *forecasts), [*rows, ("largest difference", *strays)])


def write_files(out: Path, years: np.ndarray, forecasts: dict[str, np.ndarray]) -> None:
    """forecast.csv and forecast.png."""
    from minilstm import plotting  # matplotlib is slow to load, and only needed here

    common.write_csv(out / "forecast.csv", ("year", *forecasts), list(zip(years, *forecasts.values(), strict=True)))
    ax = plotting.new_axes()
    ax.plot(years, forecasts["minilstm"], color=plotting.FORECAST, alpha=0.5, label="minilstm")
    others = [name for name in forecasts if name != "minilstm"]
    for k, name in enumerate(others):  # each on years of its own: they would hide each other
        shown = slice(k, None, len(others))
        ax.plot(years[shown], forecasts[name][shown], MARKERS[k], markersize=5, label=name)
    ax.set(xlabel="year", ylabel="sunspot number", title="One model, forecasts of every library")
    ax.margins(y=0.2)
    ax.legend(frameon=False, ncols=len(forecasts), loc="upper center")
    plotting.save(ax, out / "forecast.png")


if __name__ == "__main__":
    main()
