"""Forecasts without a network, and what chooses among all forecasts: rolling-origin validation and its errors.

A method is a function ``(values [time], horizon) -> forecasts [horizon]`` that fits itself to `values`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

Method = Callable[[np.ndarray, int], np.ndarray]
MOST_ROWS = 1500  # that least squares and smoothing look back
MOST_ORIGINS = 8
POWER = 6  # of the validated error, by which the weight of a method falls
CLEARLY = 1.1  # how much larger the validated error of the average must be for a single method to be chosen
THETAS = (0.0, 0.3, 0.5, 0.7, 0.85)
MOST_LAGS = 16  # of an autoregression, or one more than the season


class Transform(NamedTuple):
    """A reversible change of a series: logarithm, difference over a season, difference over one step."""

    log: bool = False
    seasonal: bool = False
    first: bool = False
    season: int = 1

    @property
    def lags(self) -> list[int]:
        """The lags of the differences, in the order in which they are taken."""
        return [self.season] * self.seasonal + [1] * self.first

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return the changed series; a difference makes it shorter by its lag."""
        series = np.log(values) if self.log else np.asarray(values, float)
        for lag in self.lags:
            series = series[lag:] - series[:-lag]
        return series

    def undo(self, values: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """Return `ahead`, forecasts [horizon] of the changed series, as forecasts of the series after `values`."""
        stages = [self._replace(seasonal=False, first=False).apply(values)]
        for lag in self.lags:
            stages.append(stages[-1][lag:] - stages[-1][:-lag])
        for lag, stage in zip(self.lags[::-1], stages[-2::-1], strict=True):
            whole = np.concatenate([stage[-lag:], ahead])
            for step in range(lag, len(whole)):
                whole[step] += whole[step - lag]
            ahead = whole[lag:]
        return np.exp(np.minimum(ahead, 700)) if self.log else ahead

    def __str__(self) -> str:
        return ", ".join(["log"] * self.log + [f"difference {lag}" for lag in self.lags]) or "as it is"


def transforms(values: np.ndarray, season: int, shortest: int) -> list[Transform]:
    """Return the changes that the series allows. A seasonal difference must leave some of the `shortest` rows."""
    logs = (False, True) if values.min() > 0 else (False,)
    seasonals = (False, True) if season > 1 and shortest >= 2 * season + 4 else (False,)
    return [Transform(*choice, season) for choice in itertools.product(logs, seasonals, (False, True))]


def autocorrelation(series: np.ndarray, lag: int) -> float:
    """The autocorrelation at a lag, without bias towards 0."""
    centred = series - series.mean()
    return float(np.mean(centred[lag:] * centred[:-lag]) / np.mean(centred**2))


def find_season(values: np.ndarray, usual: int, longest: int) -> int:
    """Return the season of a series, or 1: a lag at which its differences repeat, and again at two and three times it.

    The least of the three autocorrelations must be 0.5, but 0.2 is enough for the `usual` season of the calendar.
    """
    changes = np.diff(values)
    least = [1.0, 0.0]
    for lag in range(2, longest + 1):
        multiples = [k * lag for k in (1, 2, 3) if k * lag < len(changes) - 3]
        least.append(min(autocorrelation(changes, k) for k in multiples))
    if 1 < usual <= longest and least[usual] > 0.2:
        return usual
    peaks = [k for k in range(2, longest) if least[k] >= max(0.5, least[k - 1], least[k + 1])]
    return next((k for k in peaks if least[k] > 0.9 * max(least[2:])), 1)


def last_value(values: np.ndarray, horizon: int) -> np.ndarray:
    """Repeat the last value."""
    return np.full(horizon, values[-1])


def seasonal_naive(values: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Repeat the last season."""
    return np.resize(values[-season:], horizon)


def drift(values: np.ndarray, horizon: int) -> np.ndarray:
    """Go on along the line through the first and the last value."""
    return values[-1] + (values[-1] - values[0]) / (len(values) - 1) * np.arange(1, horizon + 1)


class Linear(NamedTuple):
    """An autoregression of a series from which moving averages were divided out; see `fit_linear`."""

    constant: float
    coefficients: np.ndarray  # of lags 1, 2, ...
    thetas: dict[int, float]  # by lag

    def ahead(self, series: np.ndarray, horizon: int) -> np.ndarray:
        """Return forecasts [horizon] of the series."""
        whole = np.concatenate([divide(series, self.thetas), np.zeros(horizon)])
        order = len(self.coefficients)
        for step in range(len(series), len(whole)):
            whole[step] = self.constant + self.coefficients @ whole[step - order : step][::-1]
        for lag, theta in self.thetas.items():
            whole[lag:] = whole[lag:] - theta * whole[:-lag]
        return whole[len(series) :]


def divide(series: np.ndarray, thetas: Mapping[int, float]) -> np.ndarray:
    """Divide the moving averages ``1 - theta B^lag`` out of a series, with zeros before its start."""
    series = np.array(series, float)
    for lag, theta in thetas.items():
        for start in range(lag, len(series) if theta else 0, lag):
            piece = series[start : start + lag]
            piece += theta * series[start - lag : start - lag + len(piece)]
    return series


def fit_linear(series: np.ndarray, season: int, drifts: Sequence[bool] = (True,), moving: bool = False) -> Linear:
    """Fit AR(p) by least squares; p, the constant and the moving averages are those with the lowest corrected AIC.

    With `moving`, a moving average over one step and one over a season are divided out first, with all pairs of
    `THETAS`: what is left of ARMA(p, 1) is an autoregression.
    """
    most = min(max(season + 1, MOST_LAGS), len(series) // 4)
    rows = len(series) - most
    lowest, best = np.inf, Linear(0.0, np.zeros(0), {})
    pairs = itertools.product(THETAS, THETAS if season > 1 else (0.0,)) if moving else [(0.0, 0.0)]
    for theta, seasonal in pairs:
        thetas = {lag: one for lag, one in ((1, theta), (season, seasonal)) if one}
        divided = divide(series, thetas)
        lagged = [divided[most - lag : len(divided) - lag] for lag in range(1, most + 1)]
        target = divided[most:]
        for constant in drifts:
            matrix = np.stack([np.ones(rows)] * constant + lagged, axis=1)
            gram = matrix.T @ matrix
            lower = np.linalg.cholesky(gram + np.diag(1e-10 * np.diag(gram) + 1e-300))
            along = np.linalg.solve(lower, matrix.T @ target)  # one factor serves every order: they are nested
            left = target @ target - np.concatenate([[0.0], np.cumsum(along**2)])
            used = np.arange(len(left)) + 1 + len(thetas)
            spare = np.maximum(rows - used - 1, 1)
            aic = rows * np.log(np.maximum(left, 1e-10 * left[0] + 1e-300)) + 2 * used * rows / spare
            aic[(used > rows - 3) | (np.arange(len(left)) < constant)] = np.inf
            order = int(np.argmin(aic))
            if aic[order] < lowest:
                found = np.linalg.solve(lower[:order, :order].T, along[:order])
                lowest = aic[order]
                best = Linear(float(found[0]) if constant else 0.0, found[int(constant) :], thetas)
    return best


def fit_changed(values: np.ndarray, transform: Transform, moving: bool = False) -> tuple[Linear, np.ndarray, float]:
    """Return `fit_linear` of the changed series, that series without its level, and the level."""
    series = transform.apply(values)
    level = 0.0 if transform.lags else float(series.mean())
    drifts = {0: (True,), 1: (False, True), 2: (False,)}[len(transform.lags)]
    return fit_linear(series - level, transform.season, drifts, moving), series - level, level


def linear(values: np.ndarray, horizon: int, transform: Transform, moving: bool = False) -> np.ndarray:
    """Forecast the changed series by `fit_linear`, and undo the change."""
    fitted, series, level = fit_changed(values[-MOST_ROWS:], transform, moving)
    return transform.undo(values[-MOST_ROWS:], level + fitted.ahead(series, horizon))


def smoothing(values: np.ndarray, horizon: int, season: int, log: bool, trend: bool) -> np.ndarray:
    """Exponential smoothing of level, damped trend and season, with the weights of a grid that forecast best."""
    series = (np.log(values) if log else np.asarray(values, float))[-MOST_ROWS:]
    grid = [(0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 0.99), (0.0, 0.03, 0.1, 0.3) if trend else (0.0,),
            (0.0, 0.05, 0.15, 0.3, 0.6) if season > 1 else (0.0,), (0.8, 0.9, 0.95, 0.98, 1.0) if trend else (1.0,)]  # fmt: skip
    alpha, beta, gamma, damping = (axis.ravel() for axis in np.meshgrid(*grid, indexing="ij"))
    beta, gamma = alpha * beta, gamma * (1 - alpha)
    start = series[: min(3, len(series) // season) * season] if season > 1 else series[:10]
    slope = np.polyfit(np.arange(len(start)), start, 1)[0] if len(start) > 1 else 0.0
    if season > 1 and len(start) > season:
        slope = (start[-season:].mean() - start[:season].mean()) / (len(start) - season)
    line = start.mean() + slope * (np.arange(len(start)) - (len(start) - 1) / 2)
    seasons = np.zeros((season, len(alpha)))
    if season > 1:
        seasons += (start - line).reshape(-1, season).mean(axis=0)[:, None]
    level, slopes = np.full(len(alpha), line[0] - slope), np.full(len(alpha), slope * trend)
    squares = np.zeros(len(alpha))
    for step, value in enumerate(series):
        slopes = damping * slopes
        level = level + slopes
        error = value - level - seasons[step % season]
        squares += error**2
        level, slopes = level + alpha * error, slopes + beta * error
        seasons[step % season] += gamma * error
    best = int(np.argmin(squares))
    steps = np.arange(horizon)
    trended = slopes[best] * np.cumsum(damping[best] ** (steps + 1))
    ahead = level[best] + trended + seasons[(len(series) + steps) % season, best]
    return np.exp(np.minimum(ahead, 700)) if log else ahead


def simple_methods(values: np.ndarray, season: int, shortest: int) -> dict[str, dict[str, Method]]:
    """Return the candidates of every kind, by kind and by the change of the series."""
    changes = transforms(values, season, shortest)
    found: dict[str, dict[str, Method]] = {"last_value": {"": last_value}, "drift": {"": drift}}
    if season > 1:
        found["seasonal_naive"] = {"": partial(seasonal_naive, season=season)}
    found["ar"] = {str(one): partial(linear, transform=one) for one in changes}
    found["arma"] = {str(one): partial(linear, transform=one, moving=True) for one in changes}
    found["smoothing"] = {
        ("log, " if log else "") + ("trend" if trend else "level"):
        partial(smoothing, season=season, log=log, trend=trend)
        for log in dict.fromkeys(one.log for one in changes) for trend in (False, True)
    }  # fmt: skip
    return found


def origins(rows: int, horizon: int, season: int) -> list[int]:
    """How many rows are known at each origin of the validation, latest first: at most eight, half a horizon apart."""
    found = [rows - horizon - k * max(1, horizon // 2) for k in range(MOST_ORIGINS)]
    least = max(rows // 2, 2 * season, 10)
    return [origin for k, origin in enumerate(found) if origin >= (max(2 * season, 10) if k == 0 else least)]


def weights(errors: np.ndarray) -> np.ndarray:
    """Return the weight of each method in the average from its validated mean absolute error."""
    errors = np.where(np.isfinite(errors), np.maximum(errors, 1e-12), np.inf)
    found = (errors.min() / errors) ** POWER
    return found / found.sum()


def weighted_median(forecasts: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the median over the first axis of forecasts [methods, ...]."""
    order = np.argsort(forecasts, axis=0)
    half = np.argmax(np.cumsum(weight[order], axis=0) >= 0.5 * weight.sum(), axis=0)
    return np.take_along_axis(np.take_along_axis(forecasts, order, 0), half[None], 0)[0]


def conformal(errors: np.ndarray, level: float) -> np.ndarray:
    """Return the half width [horizon] of the interval that holds a part `level` of absolute errors [origins, horizon].

    The errors of all steps are compared after they are divided by a power of the step that fits their growth.
    """
    steps = np.arange(1, errors.shape[1] + 1)
    typical = np.log(errors.mean(axis=0) + 1e-12 * errors.max() + 1e-300)
    power = np.polyfit(np.log(steps), typical, 1)[0] if len(steps) > 1 else 0.0
    growth = steps ** np.clip(power, 0, 1)
    scaled = np.sort((errors / growth).ravel())
    return growth * scaled[min(len(scaled), int(np.ceil((len(scaled) + 1) * level))) - 1]
