"""Forecast yearly sunspot numbers one year ahead: an LSTM beside persistence and autoregression.

    python -m experiments.sunspots

Trains on 1700-1920 and scores 1921-1955, 1956-1979 and 1980-2008 as average relative variance: the mean squared error
divided by 1495.6, the variance of 1700-1979. This follows Weigend, Huberman and Rumelhart 1990. The settings below were
chosen inside 1700-1920 alone, by ``python -m experiments.sunspots_settings``.

Several seeds are trained. ``--seeds`` of them are reported one by one. The ensemble's forecast is the mean of the
forecasts of ``--ensemble`` seeds, in sunspot numbers. Sunspot numbers are scored, so the ensemble's squared error is at
most the mean of its members' squared errors. A mean taken before the power is undone would be lower, and high maxima
are forecast too low already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minilstm import Adam, Dense, FitResult, Sequential, fit, generate, losses, predict, schedules
from minilstm.data import sliding_windows

from . import common

DATA = Path(__file__).parent / "data" / "sunspots.csv"
LAST_TRAINING_YEAR = 1920
SPANS = {"1921-1955": (1921, 1955), "1956-1979": (1956, 1979), "1980-2008": (1980, 2008)}
VARIANCE = 1495.6  # of 1700-1979: the divisor of the published comparisons
FREE_YEARS = 30
BATCH_SIZE = 32
STEPS_PER_EPOCH = 10  # batches are random windows: an epoch is only a unit of counting
CLIP_NORM = 1.0


class Settings(NamedTuple):
    """The settings: units, epochs, noise and amplitude from the grid of `sunspots_settings`, the others by trying."""

    units: int = 12
    layers: int = 1
    window: int = 24  # years that one forecast sees
    warm_up: int = 6  # the first years of a window, whose forecasts do not count in training
    epochs: int = 40  # of STEPS_PER_EPOCH batches; more overfit
    learning_rate: float = 3e-3  # falls to 0 along half a cosine
    power: float = 0.7  # numbers are raised to it before they are standardised: lowers the high maxima
    input_scale: float = 2.0  # the model reads the standardised number times this
    output_scale: float = 0.5  # and predicts the standardised number times this
    noise: float = 0.0  # standard deviation of noise on the standardised inputs while training
    amplitude: float = 0.15  # training windows are multiplied by exp(amplitude * N(0, 1)): cycles of other heights


class Scaling(NamedTuple):
    """The way from sunspot numbers to what the model reads, and back; saved with the model."""

    power: float
    mean: float
    std: float
    input_scale: float
    output_scale: float

    def standardise(self, numbers: np.ndarray) -> np.ndarray:
        """Sunspot numbers, raised to the power, with mean 0 and standard deviation 1 over the training years."""
        return (numbers**self.power - self.mean) / self.std

    def inputs(self, numbers: np.ndarray) -> np.ndarray:
        """Sunspot numbers as the model reads them."""
        return self.input_scale * self.standardise(numbers)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """The model's outputs as sunspot numbers, which are never negative."""
        standard = outputs.astype(np.float64) / self.output_scale
        return np.maximum(self.mean + self.std * standard, 0) ** (1 / self.power)


def sunspots() -> tuple[np.ndarray, np.ndarray]:
    """Years 1700 to 2008 and the sunspot number of each."""
    years, numbers = np.loadtxt(DATA, delimiter=",", skiprows=1, unpack=True)
    return years.astype(int), numbers


def scaling_for(numbers: np.ndarray, settings: Settings) -> Scaling:
    """The scaling for these training numbers."""
    powered = numbers**settings.power
    mean, std = float(powered.mean()), float(powered.std())
    return Scaling(settings.power, mean, std, settings.input_scale, settings.output_scale)


def build(settings: Settings) -> Sequential:
    """The model: an LSTM with the default options of its cell, and one Dense."""
    return Sequential(common.lstm(settings.units, settings.layers), Dense(1))


def train(
    numbers: np.ndarray, settings: Settings, seed: int, counted: np.ndarray | None = None, **fit_options: Any
) -> tuple[FitResult, Scaling]:
    """Train on a series of numbers; further options go to `fit`.

    `counted` (booleans, one a year; default: all True) marks the years to learn from. The other years are neither in
    the scaling nor in the loss; the model only reads them before later years.
    """
    counted = np.ones(len(numbers), bool) if counted is None else counted
    scaling = scaling_for(numbers[counted], settings)
    windows = sliding_windows(numbers, settings.window + 1)[..., None]
    weights = sliding_windows(counted, settings.window + 1)[:, 1:] & (np.arange(settings.window) >= settings.warm_up)
    useful = weights.any(axis=1)
    windows, weights = windows[useful], weights[useful]

    def batch(step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Random windows, each higher or lower, with noise. A function of (seed, step), so a run can resume."""
        rng = np.random.default_rng([seed, 2, step])
        chosen = rng.integers(0, len(windows), BATCH_SIZE)
        noise = settings.noise * rng.standard_normal((BATCH_SIZE, settings.window, 1))
        factor = np.exp(settings.amplitude * rng.standard_normal((BATCH_SIZE, 1)))
        standard = scaling.standardise(factor[..., None] * windows[chosen])
        # Errors grow with factor ** power. The weight cancels that, so high windows do not count for more.
        weight = weights[chosen] * factor ** (-2 * settings.power)
        return scaling.input_scale * (standard[:, :-1] + noise), scaling.output_scale * standard[:, 1:], weight

    model = build(settings)
    rate = schedules.cosine(settings.learning_rate, settings.epochs * STEPS_PER_EPOCH)
    result = fit(
        model, model.init(seed, input_dim=1), losses.mse, batch, optimizer=Adam(rate), epochs=settings.epochs,
        steps_per_epoch=STEPS_PER_EPOCH, seed=seed, clip_norm=CLIP_NORM,
        extra={"scaling": scaling._asdict(), "window": settings.window}, **fit_options,
    )  # fmt: skip
    return result, scaling


def one_year_ahead(params: Any, numbers: np.ndarray, settings: Settings, scaling: Scaling) -> np.ndarray:
    """Forecast each year from the `window` years before it; NaN for the first years."""
    windows = sliding_windows(scaling.inputs(numbers)[:-1], settings.window)[..., None]
    outputs = predict(build(settings), params, windows)[:, -1, 0]
    return np.concatenate([np.full(settings.window, np.nan), scaling.decode(outputs)])


def autoregression(numbers: np.ndarray, lags: int, training: np.ndarray) -> np.ndarray:
    """One-step forecasts of AR(lags) with a constant, fitted by least squares on the years where `training` is True."""
    rows = np.column_stack([np.ones(len(numbers) - lags), sliding_windows(numbers[:-1], lags)])
    inside = training[lags:]
    coefficients, *_ = np.linalg.lstsq(rows[inside], numbers[lags:][inside], rcond=None)
    return np.concatenate([np.full(lags, np.nan), rows @ coefficients])


def simple_forecasts(numbers: np.ndarray, training: np.ndarray) -> dict[str, np.ndarray]:
    """The forecasts that an LSTM must beat."""
    return {
        "persistence": np.concatenate([[np.nan], numbers[:-1]]),
        "ar2": autoregression(numbers, 2, training),
        "ar12": autoregression(numbers, 12, training),
    }


def arv(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Average relative variance: mean squared error over the variance of 1700-1979."""
    return float(np.mean((truth - prediction) ** 2) / VARIANCE)


def scores(years: np.ndarray, numbers: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """The ARV on each test span."""
    inside = {name: (years >= first) & (years <= last) for name, (first, last) in SPANS.items()}
    return {name: arv(numbers[span], prediction[span]) for name, span in inside.items()}


def free_run(params: Any, numbers: np.ndarray, settings: Settings, scaling: Scaling, steps: int) -> np.ndarray:
    """Forecast `steps` years after the last of `numbers`; the model reads its own forecasts."""
    primer = scaling.inputs(numbers[-settings.window :])[None, :, None]
    # An output becomes a sunspot number, at least 0, and then the next input.
    outputs = generate(build(settings), params, primer, steps, next_input=lambda x: scaling.inputs(scaling.decode(x)))
    return scaling.decode(outputs[0, :, 0])


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the experiment; returns what results.json holds."""
    defaults = Settings()
    flags = common.parser("experiments.sunspots", "Forecast yearly sunspots one year ahead.", **defaults._asdict())
    flags.add_argument("--window", type=common.positive, default=defaults.window, help="years that one forecast sees")
    flags.add_argument("--warm-up", type=int, default=defaults.warm_up, help="first years of a window, not in the loss")
    flags.add_argument("--power", type=float, default=defaults.power, help="power of the numbers before scaling")
    flags.add_argument("--input-scale", type=float, default=defaults.input_scale, help="factor on what is read")
    flags.add_argument("--output-scale", type=float, default=defaults.output_scale, help="factor on what is predicted")
    flags.add_argument("--noise", type=float, default=defaults.noise, help="noise on the inputs while training")
    flags.add_argument("--amplitude", type=float, default=defaults.amplitude, help="spread of factors on windows")
    flags.add_argument("--seeds", type=common.positive, default=5, help="number of seeds to report, from --seed on")
    flags.add_argument("--ensemble", type=common.positive, default=10, help="seeds in the ensemble, from --seed on")
    args = common.parse(flags, argv)
    settings = Settings(**{name: getattr(args, name) for name in Settings._fields})
    started = time.perf_counter()
    years, numbers = sunspots()
    training = years <= LAST_TRAINING_YEAR
    common.begin(args)

    options: dict[str, Any] = {"progress": False if args.quiet else None}
    saved = {"checkpoint_dir": args.out, "checkpoint_every": 10 * STEPS_PER_EPOCH, "resume": args.resume}
    kept, scaling = train(numbers[training], settings, args.seed, **options, **saved)
    predictions = [one_year_ahead(kept.params, numbers, settings, scaling)]
    for seed in range(args.seed + 1, args.seed + max(args.seeds, args.ensemble)):
        result, _ = train(numbers[training], settings, seed, **options)
        predictions.append(one_year_ahead(result.params, numbers, settings, scaling))

    ensemble = np.mean(predictions[: args.ensemble], axis=0)
    simple = simple_forecasts(numbers, training)
    by_seed = [scores(years, numbers, prediction) for prediction in predictions[: args.seeds]]
    forecasts = {"lstm": predictions[0], "ensemble": ensemble, **simple}
    results = {
        "arv": {name: scores(years, numbers, forecast) for name, forecast in forecasts.items()},
        "lstm_by_seed": {str(args.seed + k): score for k, score in enumerate(by_seed)},
        **over_seeds(by_seed),
        "ensemble_size": args.ensemble,
        "seed": args.seed,
        "step": kept.step,
    }
    free = free_run(kept.params, numbers, settings, scaling, FREE_YEARS)
    baselines = {name: loss(numbers, forecast, training, scaling) for name, forecast in simple.items()}
    write_files(args.out, years, numbers, predictions[: args.ensemble], free, kept.history, baselines)
    summary = f"average relative variance, {len(predictions)} runs, {time.perf_counter() - started:.0f} s; files:"
    common.finish(args, results, f"{results_table(results)}\n\n{summary}", report)
    return results


def over_seeds(by_seed: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median, mean and sample standard deviation (0 for one seed) over seeds, on each span."""
    values = {span: [score[span] for score in by_seed] for span in SPANS}
    return {
        "lstm_median": {span: float(np.median(found)) for span, found in values.items()},
        "lstm_mean": {span: float(np.mean(found)) for span, found in values.items()},
        "lstm_sd": {span: float(np.std(found, ddof=min(1, len(found) - 1))) for span, found in values.items()},
    }


def loss(numbers: np.ndarray, forecast: np.ndarray, training: np.ndarray, scaling: Scaling) -> float:
    """The training loss that the model would have with these forecasts."""
    known = training & np.isfinite(forecast)
    errors = scaling.standardise(numbers[known]) - scaling.standardise(np.maximum(forecast[known], 0))
    return float(np.mean((scaling.output_scale * errors) ** 2))


def write_files(
    out: Path, years: np.ndarray, numbers: np.ndarray, members: Sequence[np.ndarray], free: np.ndarray,
    history: dict[str, list[float]], baselines: dict[str, float],
) -> None:  # fmt: skip
    """Write forecast.csv and the two pictures; the first of `members` is the run that was saved."""
    from minilstm import plotting  # matplotlib is slow to load, and only needed here

    known = np.isfinite(members[0])
    free_years = np.arange(years[-1] + 1, years[-1] + 1 + len(free))
    ensemble = np.mean(members, axis=0)
    rows = [*zip(years[known], numbers[known], members[0][known], ensemble[known], strict=True)]
    rows += [(year, "", value, "") for year, value in zip(free_years, free, strict=True)]
    common.write_csv(out / "forecast.csv", ("year", "truth", "prediction", "ensemble"), rows)
    plotting.save(plotting.plot_loss(history, baselines=baselines), out / "loss.png")
    ax = plotting.plot_forecast(
        years, numbers, ensemble, spans=SPANS, free_times=free_years, free=free, xlabel="year", ylabel="sunspot number",
        title=f"Yearly sunspots, trained on 1700-1920: the mean of {len(members)} LSTMs; one of them running free",
    )  # fmt: skip
    plotting.save(ax, out / "forecast.png")


def results_table(results: dict[str, Any]) -> str:
    """A row for each seed, for median, mean and deviation, for the ensemble and for the simple forecasts."""
    arvs, median, mean = results["arv"], results["lstm_median"], results["lstm_mean"]
    found = {f"LSTM, seed {seed}": score for seed, score in results["lstm_by_seed"].items()}
    found |= {"LSTM, median": median, "LSTM, mean": mean, "LSTM, standard deviation": results["lstm_sd"]}
    found |= {f"LSTM, ensemble of {results['ensemble_size']}": arvs["ensemble"]}
    found |= {"AR(12)": arvs["ar12"], "AR(2)": arvs["ar2"], "persistence": arvs["persistence"]}
    rows = [(name, *(f"{score[span]:.3f}" for span in SPANS)) for name, score in found.items()]
    return common.table(("forecast", *SPANS), rows)


if __name__ == "__main__":
    main()
