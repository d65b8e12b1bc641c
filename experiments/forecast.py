"""Forecast a column of a CSV file: an ensemble of LSTMs beside simple methods, chosen by validation.

    python -m experiments.forecast sales.csv --column units --horizon 12

The last rows are held out for the report alone. Before them, every method forecasts from several origins; its mean
absolute error there is its weight in the average. An LSTM enters the average only if it is validated better than all
simple methods. Then everything is fitted again on all rows. The choice and the intervals come from the validation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from . import common
from .forecast_data import Series, read_series
from .forecast_lstm import Member, Settings, ensemble, train
from .forecast_methods import (
    CLEARLY, Method, Transform, conformal, find_season, fit_changed, origins, simple_methods, transforms, weighted_median,
    weights,
)  # fmt: skip

LSTMS = {"lstm": False, "ar_lstm": True}  # whether an autoregression takes the linear part
Candidate = tuple[str, str]  # kind of method, change of the series


class Plan(NamedTuple):
    """What the validation chose."""

    season: int
    methods: dict[Candidate, Method]
    transform: Transform  # for the LSTMs: that of the best autoregression
    weight: dict[Candidate, float]  # in the average
    best: dict[str, Candidate]  # the candidate of each kind with the lowest validated error
    errors: dict[str, float]  # validated mean absolute error, by kind and of the average
    chosen: str  # a kind, or average
    widths: np.ndarray  # half width of the interval [steps]; of logarithms if `log`
    log: bool


class Forecast(NamedTuple):
    """Forecasts [steps] by kind, the chosen one and its interval, and the LSTMs."""

    by_kind: dict[str, np.ndarray]
    chosen: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    members: dict[str, list[Member]]


Trainer = Callable[[np.ndarray, Transform, str, str], list[Member]]  # (values, transform, kind of LSTM, stage)


def attempt(method: Method, values: np.ndarray, steps: int) -> np.ndarray:
    """Return a method's forecast, NaN where it has none."""
    try:
        with np.errstate(all="ignore"):
            return method(values, steps)
    except np.linalg.LinAlgError:
        return np.full(steps, np.nan)


def plan(values: np.ndarray, steps: int, season: int, level: float, trainer: Trainer, tick: Callable[[], Any]) -> Plan:
    """Validate all methods by forecasts from several origins inside `values`, and choose."""
    known = origins(len(values), steps, season)
    truth = np.stack([values[origin : origin + steps] for origin in known])
    methods = {
        (kind, change): method
        for kind, by_change in simple_methods(values, season, min(known)).items()
        for change, method in by_change.items()
    }
    ahead: dict[Candidate, list[np.ndarray]] = {candidate: [] for candidate in methods}
    for origin in known:
        for candidate, method in methods.items():
            ahead[candidate].append(attempt(method, values[:origin], steps))
        tick()
    found = {candidate: np.stack(forecasts) for candidate, forecasts in ahead.items()}

    def error(forecasts: np.ndarray) -> float:
        return float(np.mean(np.abs(forecasts - truth))) if np.isfinite(forecasts).all() else np.inf

    errors = {candidate: error(forecasts) for candidate, forecasts in found.items()}
    simplest = min(errors.values())
    change = min((c for c in errors if c[0] == "ar"), key=lambda c: errors[c])[1]
    transform = next(one for one in transforms(values, season, min(known)) if str(one) == change)
    enough = {candidate: True for candidate in found}
    for kind in LSTMS:
        members = trainer(values[: min(known)], transform, kind, "validation")
        found[kind, change] = ensemble(members, [values[:origin] for origin in known], steps)
        errors[kind, change] = error(found[kind, change])
        enough[kind, change] = errors[kind, change] <= simplest
    weight = weights(np.array([errors[c] if enough[c] else np.inf for c in found]))
    average = weighted_median(np.stack(list(found.values())), weight)
    kinds = dict.fromkeys(kind for kind, _ in found)
    best = {kind: min((c for c in found if c[0] == kind), key=lambda c: errors[c]) for kind in kinds}
    by_kind = {kind: errors[candidate] for kind, candidate in best.items()} | {"average": error(average)}
    single = min(best, key=lambda kind: by_kind[kind])
    chosen = single if by_kind["average"] > CLEARLY * by_kind[single] else "average"
    shares = {c: float(w) for c, w in zip(found, weight, strict=True)}
    log = sum(w for c, w in shares.items() if c[1].startswith("log")) > 0.5
    if chosen != "average":
        log = best[chosen][1].startswith("log")
    told = average if chosen == "average" else found[best[chosen]]
    off = np.abs(np.log(told) - np.log(truth)) if log else np.abs(told - truth)
    return Plan(season, methods, transform, shares, best, by_kind, chosen, conformal(off, level), log)


def follow(values: np.ndarray, steps: int, made: Plan, trainer: Trainer, stage: str, tick: Callable[[], Any]) -> Forecast:
    """Fit everything on `values` and forecast as planned."""
    found = {candidate: attempt(method, values, steps) for candidate, method in made.methods.items()}
    tick()
    members = {kind: trainer(values, made.transform, kind, stage) for kind in LSTMS}
    for kind, trained in members.items():
        found[kind, str(made.transform)] = ensemble(trained, [values], steps)[0]
    sound = {candidate: ahead for candidate, ahead in found.items() if np.isfinite(ahead).all()}
    weight = np.array([made.weight[candidate] for candidate in sound])
    by_kind = {kind: found[candidate] for kind, candidate in made.best.items()}
    by_kind["average"] = weighted_median(np.stack(list(sound.values())), weight)
    chosen = by_kind[made.chosen] if np.isfinite(by_kind[made.chosen]).all() else by_kind["average"]
    widths = made.widths[:steps]
    if made.log:
        return Forecast(by_kind, chosen, chosen * np.exp(-widths), chosen * np.exp(widths), members)
    return Forecast(by_kind, chosen, chosen - widths, chosen + widths, members)


def check(values: np.ndarray, horizon: int, test: int, season: int | None, usual: int) -> int:
    """Return the season; raises ValueError for a series that is constant, or too short to be held out and validated."""
    if np.ptp(values) == 0:
        raise ValueError(f"all {len(values)} values are {values[0]:g}, wanted a series that changes")
    steps, rows = max(horizon, test), len(values) - test
    least = max(10, 2 * (season or 1))
    if rows - steps < least:
        raise ValueError(
            f"has {len(values)} values; a horizon of {horizon} with {test} held out"
            f"{f' and a season of {season}' if season else ''} needs {steps + test + least}"
        )
    return season if season is not None else find_season(values[:rows], usual, (rows - steps) // 2)


def score(values: np.ndarray, truth: np.ndarray, ahead: np.ndarray, season: int) -> dict[str, float]:
    """Return MASE (the mean absolute error over that of the seasonal naive forecast one season ahead) and RMSE."""
    scale = float(np.mean(np.abs(values[season:] - values[:-season]))) or float(np.mean(np.abs(np.diff(values))))
    off = ahead - truth
    return {"mase": float(np.mean(np.abs(off))) / scale, "rmse": float(np.sqrt(np.mean(off**2)))}


def forecast(
    values: np.ndarray, horizon: int, *, season: int | None = None, usual_season: int = 1, test: int | None = None,
    seeds: int = 3, interval: float = 0.8, seed: int = 0, settings: Settings = Settings(), out: Path | None = None,
    resume: bool = False, quiet: bool = True,
) -> tuple[dict[str, Any], Forecast, Forecast]:  # fmt: skip
    """Plan, score on the held-out rows, forecast; returns what results.json holds, and both forecasts.

    `season` None means that it is looked for, first `usual_season`. With `out`, checkpoints of all members go there.
    """
    test = horizon if test is None else test
    season = check(values, horizon, test, season, usual_season)
    rows, steps = values[: len(values) - test], max(horizon, test)
    total = len(origins(len(rows), steps, season)) + 2 + 3 * len(LSTMS) * seeds
    with tqdm(total=total, desc="forecast", unit="fit", disable=True if quiet else None) as bar:

        def trainer(values: np.ndarray, transform: Transform, kind: str, stage: str) -> list[Member]:
            members = []
            for k in range(seeds):
                folder = None if out is None else out / "members" / f"{kind}-{stage}-{k}"
                if out is not None and (kind, stage, k) == ("lstm", "final", 0):
                    folder = out
                members.append(train(values, transform, LSTMS[kind], seed + k, settings, folder, resume))
                bar.set_description(f"{stage}, {kind}")
                bar.update()
            return members

        made = plan(rows, steps, season, interval, trainer, bar.update)
        held_out = follow(rows, test, made, trainer, "test", bar.update)
        future = follow(values, horizon, made, trainer, "final", bar.update)
    truth = values[len(rows) :]
    scores = {kind: score(rows, truth, ahead, season) for kind, ahead in held_out.by_kind.items()}
    results = {
        "season": season, "horizon": horizon, "chosen": made.chosen, "test_rows": test, "test": scores,
        "coverage": float(np.mean((held_out.lower <= truth) & (truth <= held_out.upper))), "interval": interval,
        "validation": {
            kind: {"mae": error, "change": made.best.get(kind, ("", ""))[1]} for kind, error in made.errors.items()
        },
        "weights": {" ".join(c).strip(): round(w, 4) for c, w in made.weight.items() if w >= 5e-4},
        "sentence": sentence(scores, rows, made),
    }  # fmt: skip
    return results, held_out, future


def sentence(scores: dict[str, dict[str, float]], rows: np.ndarray, made: Plan) -> str:
    """Say whether the LSTM was worth it: the better validated kind beside the best simple method on the held-out part."""
    mase = {kind: one["mase"] for kind, one in scores.items()}
    lstm = min(LSTMS, key=lambda kind: made.errors[kind])
    simple = min((kind for kind in mase if kind not in (*LSTMS, "average")), key=lambda kind: mase[kind])
    name = simple.replace("_", " ")
    if simple in ("ar", "arma"):
        change = next(one for one in transforms(rows, made.season, len(rows)) if str(one) == made.best[simple][1])
        name = f"{simple.upper()}({len(fit_changed(rows, change, simple == 'arma')[0].coefficients)})"
    name = name if simple != "smoothing" else "exponential smoothing"
    if mase[lstm] < mase[simple]:
        better = 100 * (1 - mase[lstm] / mase[simple])
        return f"The LSTM is {better:.0f} % better than the best simple method, {name}, on the held-out part."
    return f"{name} is better here (MASE {mase[simple]:.2f}, the LSTM {mase[lstm]:.2f}); the LSTM adds nothing."


def write_files(out: Path, series: Series, results: dict[str, Any], held_out: Forecast, future: Forecast) -> None:
    """Write forecast.csv and the two pictures."""
    from minilstm import plotting  # matplotlib is slow to load, and only needed here

    rows, horizon, test = len(series.values), results["horizon"], results["test_rows"]
    steps = [series.label(rows + k) if series.date else k + 1 for k in range(horizon)]
    columns = [future.chosen, future.lower, future.upper, *future.by_kind.values()]
    header = ("date" if series.date else "step", "forecast", "lower", "upper", *future.by_kind)
    common.write_csv(out / "forecast.csv", header, zip(steps, *(column.tolist() for column in columns), strict=True))
    member = future.members["lstm"][0].result
    plotting.save(plotting.plot_loss(member.history), out / "loss.png")
    ax = plotting.new_axes(11.0, 4.0)
    ax.spines[["top", "right"]].set_visible(False)
    first = max(0, rows - test - max(8 * (horizon + test), 60))
    ax.plot(np.arange(first, rows), series.values[first:], color=plotting.TRUTH, linewidth=1.4, label=series.name)
    parts = (("held out", plotting.FORECAST, rows - test, held_out), ("future", plotting.FREE, rows, future))
    for label, colour, start, part in parts:
        times = np.arange(start, start + len(part.chosen))
        ax.fill_between(times, part.lower, part.upper, color=colour, alpha=0.2, linewidth=0)
        ax.plot(times, part.chosen, color=colour, linewidth=1.6, label=f"forecast, {label}")
    ax.axvline(rows - test - 0.5, color=plotting.TRUTH, linewidth=0.8, linestyle=":")
    ticks = np.unique(np.linspace(first, rows + horizon - 1, 7).astype(int))
    ax.set_xticks(ticks, [series.label(int(tick)) for tick in ticks])
    title = f"{series.name}: {results['chosen'].replace('_', ' ')}, with {results['interval']:.0%} intervals"
    ax.set(xlabel=series.date or "row", ylabel=series.name, title=title)
    ax.grid(True, alpha=0.25, linewidth=0.6)
    ax.legend(frameon=False, loc="upper left", fontsize="small")
    plotting.save(ax, out / "forecast.png")


def text_of(results: dict[str, Any]) -> str:
    """The table of the methods on the held-out part, and what was found."""
    lines = [
        (kind.replace("_", " "), f"{one['mase']:.3f}", f"{one['rmse']:.4g}", f"{results['validation'][kind]['mae']:.4g}",
         results["validation"][kind]["change"] or "-")
        for kind, one in results["test"].items()
    ]  # fmt: skip
    table = common.table(("method", "MASE", "RMSE", "validated MAE", "change of the series"), lines)
    what = f"season {results['season']}" if results["season"] > 1 else "no season"
    covered = f"{results['coverage']:.0%} of {results['test_rows']} held-out rows are inside the {results['interval']:.0%} interval"
    return "\n".join([table, "", f"{what}; forecast.csv holds: {results['chosen'].replace('_', ' ')}; {covered}", *results["notes"],
                      results["sentence"]])  # fmt: skip


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the command; returns what results.json holds."""
    defaults = Settings()
    flags = common.parser("experiments.forecast", "Forecast a column of a CSV file.", **defaults._asdict())
    flags.add_argument("file", help="CSV file, or - for the standard input")
    flags.add_argument("--column", help="column to forecast; may be left out if only one holds numbers")
    flags.add_argument("--date", help="column of dates; default: the first that reads as dates")
    flags.add_argument("--season", default="auto", help="rows in a season, 1 for none; auto looks for it")
    flags.add_argument("--horizon", type=common.positive, required=True, help="rows to forecast")
    flags.add_argument("--test", type=common.positive, help="rows held out for the report; default: one horizon")
    flags.add_argument("--seeds", type=common.positive, default=3, help="LSTMs in an ensemble, from --seed on")
    flags.add_argument("--interval", type=float, default=0.8, help="part of future values that the interval should hold")
    args = common.parse(flags, argv)
    try:
        series = read_series(args.file, args.column, args.date)
        season = None if args.season == "auto" else common.positive(args.season)
        test = args.test or args.horizon
        check(series.values, args.horizon, test, season, series.usual_season)
    except ValueError as error:
        text = str(error)
        flags.error(text if text.startswith((args.file, "standard input")) else f"{args.file}: {text}")
    if not 0 < args.interval < 1:
        flags.error(f"--interval must be above 0 and below 1, got {args.interval}")
    args.data = hashlib.sha256(series.values.tobytes()).hexdigest()[:16]
    refuse_another(args, flags)
    for folder in () if args.resume else (args.out / "members").glob("*"):
        common.prepare(folder, resume=False)
    common.begin(args)
    settings = Settings(args.units, args.layers, args.epochs, args.learning_rate)
    results, held_out, future = forecast(
        series.values, args.horizon, season=season, usual_season=series.usual_season, test=test, seeds=args.seeds,
        interval=args.interval, seed=args.seed, settings=settings, out=args.out, resume=args.resume, quiet=args.quiet,
    )  # fmt: skip
    results["notes"] = series.notes
    write_files(args.out, series, results, held_out, future)
    common.finish(args, results, text_of(results), report)
    return results


def refuse_another(args: Any, flags: Any) -> None:
    """End the program if --resume would continue a run of other settings or other data."""
    path = args.out / "config.json"
    if args.resume and path.exists():
        before = json.loads(path.read_text())["settings"]
        now = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
        free = ("command", "resume", "quiet", "out", "file")
        other = [f"{key} {before.get(key)!r} -> {value!r}" for key, value in now.items() if key not in free and before.get(key) != value]
        if other:
            flags.error(f"--resume: {path} is of another run: {', '.join(other)}")


if __name__ == "__main__":
    main()
