"""Forecast a column of a CSV file: an ensemble of LSTMs beside simple methods, averaged by validation.

    python -m experiments.forecast sales.csv --column units --horizon 12

The last rows are held out for the report alone. Before them every method forecasts from several origins, and its errors
there are its weight in the average that is returned. Then everything is fitted again on all rows. The intervals, too,
come from the validation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from minilstm.arguments import check_number, check_whole
from minilstm.arrays import as_array

from . import common
from . import forecast_methods as ways
from .forecast_lstm import OPTIONS, Member, ensemble, train
from .series import Series, find_season, read_series

NOISES = (0.5, 0.1)  # of the LSTMs' inputs: much for what is nearly linear, little for what is not
Trainer = Callable[[np.ndarray, ways.Transform, float, str], list[Member]]  # (values, transform, noise, stage)


class Plan(NamedTuple):
    """What the validation chose. Methods are called by kind and change of the series, such as ``ar: log``."""

    methods: dict[str, ways.Method]
    transform: ways.Transform  # of the best autoregression, to which the LSTMs add
    noise: float
    weight: dict[str, float]  # of each method in the average
    best: dict[str, str]  # the method of each kind with the lowest validated error
    errors: dict[str, float]  # validated mean absolute errors: of every kind, and of the average
    chosen: str  # average, or the kind that is clearly better
    widths: np.ndarray  # half width of the interval [steps]; on a logarithmic scale if `log`
    log: bool


class Forecast(NamedTuple):
    """Forecasts [steps]: by kind of method; the chosen one with its interval. And the first LSTM."""

    by_kind: dict[str, np.ndarray]
    chosen: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    first: Member


def validate(values: np.ndarray, steps: int, season: int, level: float, trainer: Trainer, lowest: float) -> Plan:
    """Let all methods forecast from several origins inside `values`, and choose. `lowest` is that of all rows."""
    known = ways.origins(len(values), steps, season)
    histories = [values[:origin] for origin in known]
    truth = np.stack([values[origin : origin + steps] for origin in known])
    methods = ways.simple_methods(lowest, season, min(known))
    found = {name: np.stack([ways.attempt(one, past, steps) for past in histories]) for name, one in methods.items()}

    def error_of(forecasts: np.ndarray) -> float:
        return float(np.nan_to_num(np.mean(np.abs(forecasts - truth)), nan=np.inf))

    errors = {name: error_of(forecasts) for name, forecasts in found.items()}
    change = min((name for name in errors if name.startswith("ar: ")), key=lambda name: errors[name])[4:]
    transform = next(one for one in ways.transforms(lowest, season, min(known)) if str(one) == change)
    lstm = f"lstm: {change}"  # trained once, on what all origins know
    by_noise = {one: ensemble(trainer(histories[-1], transform, one, "validation"), histories, steps) for one in NOISES}
    noise = min(NOISES, key=lambda one: error_of(by_noise[one]))
    found[lstm], errors[lstm] = by_noise[noise], error_of(by_noise[noise])
    weight = dict(zip(found, ways.weights(np.array(list(errors.values()))).tolist(), strict=True))
    average = ways.weighted_median(np.stack(list(found.values())), np.array(list(weight.values())))
    best = {name.partition(":")[0]: name for name in sorted(found, key=lambda name: -errors[name])}
    by_kind = {kind: errors[best[kind]] for kind in dict.fromkeys(name.partition(":")[0] for name in found)}
    by_kind["average"] = error_of(average)
    chosen = min(by_kind, key=lambda kind: by_kind[kind] * (1 if kind == "average" else ways.CLEARLY))
    told = average if chosen == "average" else found[best[chosen]]
    logs = {name for name in found if ": log" in name}
    log = best[chosen] in logs if chosen != "average" else sum(weight[name] for name in logs) > 0.5
    log = log and bool((told > 0).all())
    off = np.abs(np.log(told) - np.log(truth)) if log else np.abs(told - truth)
    return Plan(methods, transform, noise, weight, best, by_kind, chosen, ways.conformal(off, level), log)


def follow(plan: Plan, values: np.ndarray, steps: int, trainer: Trainer, stage: str) -> Forecast:
    """Fit everything on `values` and forecast as planned."""
    found = {name: ways.attempt(method, values, steps) for name, method in plan.methods.items()}
    members = trainer(values, plan.transform, plan.noise, stage)
    found[f"lstm: {plan.transform}"] = ensemble(members, [values], steps)[0]
    sound = [name for name, ahead in found.items() if np.isfinite(ahead).all()]
    share = np.array([plan.weight[name] for name in sound])
    average = ways.weighted_median(np.stack([found[name] for name in sound]), share)
    by_kind = {kind: found[plan.best[kind]] for kind in plan.errors if kind != "average"} | {"average": average}
    chosen = by_kind[plan.chosen] if np.isfinite(by_kind[plan.chosen]).all() else average
    width = plan.widths[:steps]
    lower, upper = (chosen * np.exp(side * width) if plan.log else chosen + side * width for side in (-1, 1))
    return Forecast(by_kind, chosen, lower, upper, members[0])


def check(values: np.ndarray, horizon: int, test: int, season: int | None, where: str = "forecast: values") -> None:
    """Raise ValueError for a series that is constant, or too short to hold rows out and to validate before them."""
    if season is not None and season > ways.MOST_SEASON:
        most = f"at most {ways.MOST_SEASON}; with means over several rows a season is shorter"
        raise ValueError(f"{where}: a season of {season} rows, wanted {most}")
    needed = max(horizon, test) + test + max(10, 2 * (season or 1))
    if len(values) < needed:
        why = f"a horizon of {horizon}, {test} rows held out" + (f" and a season of {season}" if season else "")
        raise ValueError(f"{where}: got {len(values)} rows, wanted at least {needed} for {why}")
    if np.ptp(values[: len(values) - test]) == 0:
        raise ValueError(f"{where}: all rows before those held out are {values[0]:g}, wanted a series that changes")


def score(values: np.ndarray, truth: np.ndarray, ahead: np.ndarray, season: int) -> dict[str, float]:
    """Return MASE (the mean absolute error over that of repeating a season inside `values`) and RMSE."""
    scale = float(np.mean(np.abs(values[season:] - values[:-season]))) or float(np.mean(np.abs(np.diff(values))))
    off = ahead - truth
    return {"mase": float(np.mean(np.abs(off))) / scale, "rmse": float(np.sqrt(np.mean(off**2)))}


def forecast(
    values: np.ndarray, horizon: int, *, season: int | None = None, usual_season: int = 1, test: int | None = None,
    seeds: int = 3, interval: float = 0.8, seed: int = 0, out: Path | None = None, resume: bool = False,
    quiet: bool = True, **options: Any,
) -> tuple[dict[str, Any], Forecast, Forecast]:  # fmt: skip
    """Validate, score on the held-out rows, forecast; returns what results.json holds, and both forecasts.

    Without `season` it is looked for, first `usual_season`. With `out`, the checkpoints of all members go there. Other
    options go to `train`. Raises ValueError for values that are not one finite series, and for an option out of range.
    """
    values = as_array(values, "forecast: values").astype(np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"forecast: values must be one series of finite numbers, got {values!r:.80}")
    test = horizon if test is None else test
    sizes = {"horizon": horizon, "test": test, "seeds": seeds, "season": 1 if season is None else season}
    horizon, test, seeds, _ = (check_whole(size, name, "forecast") for name, size in sizes.items())
    interval = check_number(interval, "interval", "forecast", above=0, below=1)
    unknown = sorted(options.keys() - OPTIONS.keys())
    if unknown:
        raise ValueError(f"forecast: unknown options {unknown}, the known ones are {', '.join(OPTIONS)}")
    check(values, horizon, test, season)
    rows, truth, steps = values[:-test], values[-test:], max(horizon, test)
    season = season or find_season(rows, usual_season, min((len(rows) - steps) // 2, ways.MOST_SEASON))
    with tqdm(total=(len(NOISES) + 2) * seeds, unit="LSTM", disable=True if quiet else None) as bar:

        def trainer(values: np.ndarray, transform: ways.Transform, noise: float, stage: str) -> list[Member]:
            members = []
            for k in range(seeds):
                bar.set_description(stage)
                folder = out if out is None or (stage, k) == ("final", 0) else out / f"members/{stage}-{noise:g}-{k}"
                members.append(train(values, transform, noise, seed + k, folder, resume, **options))
                bar.update()
            return members

        plan = validate(rows, steps, season, interval, trainer, values.min())
        held_out = follow(plan, rows, test, trainer, "test")
        future = follow(plan, values, horizon, trainer, "final")
    scores = {kind: score(rows, truth, ahead, season) for kind, ahead in held_out.by_kind.items()}
    covered = float(np.mean((held_out.lower <= truth) & (truth <= held_out.upper)))
    changes = {kind: name.partition(": ")[2] for kind, name in plan.best.items()}
    results = {
        "season": season, "horizon": horizon, "chosen": plan.chosen, "test": scores, "coverage": covered,
        "interval": interval, "held_out": test, "sentence": sentence(rows, scores, plan),
        "validation": {kind: {"mae": error, "change": changes.get(kind, "")} for kind, error in plan.errors.items()},
        "weights": {name: round(share, 4) for name, share in plan.weight.items()},
    }  # fmt: skip
    return results, held_out, future


def sentence(rows: np.ndarray, scores: dict[str, dict[str, float]], plan: Plan) -> str:
    """Say whether the LSTM was worth it, beside the best simple method on the held-out part."""
    mase = {kind: one["mase"] for kind, one in scores.items() if kind != "average"}
    best = min((kind for kind in mase if kind != "lstm"), key=lambda kind: mase[kind])
    name = {"arma": "ARMA"}.get(best, best.replace("_", " "))
    if best == "ar":
        changed, constants = plan.transform.stages(rows)[-1], ways.CONSTANTS[len(plan.transform.lags)]
        name = f"AR({len(ways.fit_linear(changed, plan.transform.cycle, constants).coefficients)})"
    if mase["lstm"] < mase[best]:
        percent = f"{100 * (1 - mase['lstm'] / mase[best]):.0f} %"
        return f"The LSTM is {percent} better than the best simple method, {name}, on the held-out part."
    return f"{name[0].upper()}{name[1:]} is better here; the LSTM adds nothing."


def write_files(out: Path, series: Series, results: dict[str, Any], held_out: Forecast, future: Forecast) -> None:
    """Write forecast.csv and the two pictures."""
    from minilstm import plotting  # matplotlib is slow to load, and only needed here

    rows, horizon, test = len(series.values), results["horizon"], results["held_out"]
    steps = [series.label(rows + k) if series.date else k + 1 for k in range(horizon)]
    columns = [column.tolist() for column in (future.chosen, future.lower, future.upper, *future.by_kind.values())]
    header = ("date" if series.date else "step", "forecast", "lower", "upper", *future.by_kind)
    common.write_csv(out / "forecast.csv", header, zip(steps, *columns, strict=True))
    baselines = {"the autoregression alone": future.first.alone}
    plotting.save(plotting.plot_loss(future.first.result.history, baselines=baselines), out / "loss.png")
    ax = common.panels(1, 11.0, 4.0)[0]
    start = max(0, rows - test - max(10 * horizon, 60))
    for label, colour, part in (("held out", plotting.FORECAST, held_out), ("future", plotting.FREE, future)):
        times = np.arange(len(part.chosen)) + (rows if part is future else rows - test)
        ax.fill_between(times, part.lower, part.upper, color=colour, alpha=0.2, linewidth=0)
        ax.plot(times, part.chosen, color=colour, linewidth=1.6, label=f"forecast, {label}")
    ax.plot(np.arange(start, rows), series.values[start:], color=plotting.TRUTH, linewidth=1.2, label=series.name)
    ax.axvline(rows - test - 0.5, color=plotting.TRUTH, linewidth=0.8, linestyle=":")
    apart = -(-(rows + horizon - start) // (7 * results["season"])) * results["season"]
    ticks = range(start, rows + horizon, apart)
    ax.set_xticks(ticks, [series.label(tick) for tick in ticks])
    title = f"{results['chosen'].replace('_', ' ')}, {results['interval']:.0%} interval"
    ax.set(xlabel=series.date or "row", ylabel=series.name, title=title)
    ax.legend(frameon=False, loc="upper left", fontsize="small")
    plotting.save(ax, out / "forecast.png")


def text_of(results: dict[str, Any]) -> str:
    """The table of methods, and what was found."""
    lines = []
    for (kind, one), before in zip(results["test"].items(), results["validation"].values(), strict=True):
        numbers = (f"{one['mase']:.3f}", f"{one['rmse']:.4g}", f"{before['mae']:.4g}")
        lines.append((kind.replace("_", " "), *numbers, before["change"]))
    told = [
        *results["notes"], f"season: {results['season']} rows" if results["season"] > 1 else "season: none",
        f"forecast.csv: {results['chosen'].replace('_', ' ')}; its {results['interval']:.0%} interval holds "
        f"{results['coverage']:.0%} of the {results['held_out']} held-out rows", results["sentence"],
    ]  # fmt: skip
    return "\n".join([common.table(("method", "MASE", "RMSE", "validated MAE", "on the"), lines), "", *told])


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the command; returns what results.json holds."""
    flags = common.parser("experiments.forecast", "Forecast a column of a CSV file.", **OPTIONS)
    flags.add_argument("file", help="CSV file, or - for the standard input")
    flags.add_argument("--column", help="column to forecast, if more than one holds numbers")
    flags.add_argument("--date", help="column of dates, if not the first that reads as dates")
    flags.add_argument("--season", default="auto", help="rows in a season; 1: none; auto: looked for")
    flags.add_argument("--horizon", type=common.positive, required=True, help="rows to forecast")
    flags.add_argument("--test", type=common.positive, help="rows held out for the report, if not one horizon")
    flags.add_argument("--seeds", type=common.positive, default=3, help="LSTMs in an ensemble, from --seed on")
    flags.add_argument("--interval", type=float, default=0.8, help="part of the future that the interval should hold")
    args = common.parse(flags, argv)
    if not 0 < args.interval < 1:
        flags.error(f"--interval must be above 0 and below 1, got {args.interval}")
    if args.season != "auto" and not (args.season.isdecimal() and int(args.season) > 0):
        flags.error(f"--season must be auto or a whole number of at least 1, got {args.season!r}")
    season, test = None if args.season == "auto" else int(args.season), args.test or args.horizon
    try:
        series = read_series(args.file, args.column, args.date)
        check(series.values, args.horizon, test, season, f"{args.file}: column {series.name!r}")
        if args.file != "-" and Path(args.file).resolve().parent == args.out.resolve():
            raise ValueError(f"{args.file}: is in --out {args.out}, wanted another folder for the files of the run")
    except ValueError as error:
        flags.error(str(error))
    args.data = hashlib.sha256(series.values.tobytes()).hexdigest()[:16]
    config = args.out / "config.json"
    if args.resume and config.exists():
        before, free = json.loads(config.read_text())["settings"], ("out", "quiet", "resume", "command", "file")
        for name in [name for name, value in vars(args).items() if name not in free and before.get(name) != value][:1]:
            flags.error(f"--resume: {config} is of a run with {name} {before.get(name)!r}, got {getattr(args, name)!r}")
    for folder in filter(Path.is_dir, (args.out / "members").glob("*")):
        common.prepare(folder, args.resume, args.out)
    common.begin(args)
    results, held_out, future = forecast(
        series.values, args.horizon, season=season, usual_season=series.usual_season, test=test, seeds=args.seeds,
        interval=args.interval, seed=args.seed, out=args.out, resume=args.resume, quiet=args.quiet,
        **{name: getattr(args, name) for name in OPTIONS},
    )  # fmt: skip
    results["notes"] = series.notes
    if args.season == "auto" and series.usual_season > ways.MOST_SEASON:
        longest = f"longer than {ways.MOST_SEASON}, the most that is looked for: take means over several rows"
        results["notes"].append(f"the usual season of {series.usual_season} rows is {longest}")
    write_files(args.out, series, results, held_out, future)
    common.finish(args, results, text_of(results), report)
    return results


if __name__ == "__main__":
    main()
