"""Forecasts without a network, and what chooses among all forecasts: rolling-origin validation and its errors.

A method is a function ``(values [time], horizon) -> forecasts [horizon]`` that fits itself to `values`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

Method = Callable[[np.ndarray, int], np.ndarray]
MOST_ROWS = 1500  # that autoregression and smoothing look back
MOST_SEASON = MOST_ROWS // 3  # rows: three seasons are needed to tell one
MOST_LAGS = 16  # of an autoregression, or one more than the season
CONSTANTS = ((True,), (False, True), (False,))  # of an autoregression, by the number of differences: the AIC chooses
THETAS = (0.0, 0.3, 0.5, 0.7, 0.85)  # of moving averages
MOST_ORIGINS = 8
POWER = 3  # of the validated error, by which the weight of a method falls
CLEARLY = 1.3  # a method is returned alone if the validated error of the average is larger by this factor


class Transform(NamedTuple):
    """A reversible change of a series: logarithm, season, difference over one step."""

    log: bool = False
    seasonal: str = ""  # "difference" over a season; "means": the mean of each part of the season is taken off
    first: bool = False
    season: int = 1

    @property
    def lags(self) -> list[int]:
        """The lags of the differences, in their order."""
        return [self.season] * (self.seasonal == "difference") + [1] * self.first

    @property
    def cycle(self) -> int:
        """The season that is left in the changed series, or 1."""
        return 1 if self.seasonal == "means" else self.season

    def start(self, values: np.ndarray, ahead: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return the series, or its logarithm, and the seasonal means (or zeros), `ahead` steps longer."""
        series = np.log(values) if self.log else np.asarray(values, float)
        means = np.zeros(1)
        if self.seasonal == "means":
            edge, ones = self.season // 2, np.ones(self.season - 1)
            around = np.r_[0.5, ones, 0.5] if self.season % 2 == 0 else np.r_[ones, 1.0]
            off = series[edge : len(series) - edge] - np.convolve(series, around / self.season, "valid")
            part = (np.arange(len(off)) + edge) % self.season
            means = np.array([off[part == k].mean() for k in range(self.season)])
        return series, np.resize(means - means.mean(), len(series) + ahead)

    def stages(self, values: np.ndarray) -> list[np.ndarray]:
        """Return the series before the differences, and after each, which makes it shorter by its lag."""
        series, means = self.start(values)
        found = [series - means]
        for lag in self.lags:
            found.append(found[-1][lag:] - found[-1][:-lag])
        return found

    def undo(self, values: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """Return `ahead`, forecasts [horizon] of the changed series, as forecasts of the series after `values`."""
        for lag, stage in zip(self.lags[::-1], self.stages(values)[-2::-1], strict=False):
            whole = np.concatenate([stage[-lag:], ahead])
            for step in range(lag, len(whole)):
                whole[step] += whole[step - lag]
            ahead = whole[lag:]
        ahead = ahead + self.start(values, len(ahead))[1][len(values) :]
        return np.exp(np.minimum(ahead, 700)) if self.log else ahead

    def __str__(self) -> str:
        parts = ["log"] * self.log + ["seasonal means off"] * (self.seasonal == "means")
        return ", ".join(parts + [f"difference {lag}" for lag in self.lags]) or "as it is"


def transforms(lowest: float, season: int, shortest: int) -> list[Transform]:
    """Return the changes that a series allows by its lowest value, its season, and the rows that are known at least."""
    logs = (False, True) if lowest > 0 else (False,)
    seasonals = ("", "difference", "means") if season > 1 and shortest >= 2 * season + 4 else ("",)
    return [Transform(*choice, season) for choice in itertools.product(logs, seasonals, (False, True))]


def attempt(method: Method, values: np.ndarray, horizon: int) -> np.ndarray:
    """Return a method's forecast, NaN if there is none."""
    try:
        with np.errstate(all="ignore"):
            return method(values, horizon)
    except np.linalg.LinAlgError:
        return np.full(horizon, np.nan)


def repeat(values: np.ndarray, horizon: int, season: int = 1) -> np.ndarray:
    """Repeat the last season, or the last value."""
    return np.resize(values[-season:], horizon)


def drift(values: np.ndarray, horizon: int) -> np.ndarray:
    """Go on along the line through the first and the last value."""
    return values[-1] + (values[-1] - values[0]) / (len(values) - 1) * np.arange(1, horizon + 1)


class Linear(NamedTuple):
    """An autoregression: a constant, and the coefficients of the values 1, 2, ... steps before."""

    constant: float
    coefficients: np.ndarray
    aic: float = np.inf

    def next(self, series: np.ndarray) -> np.ndarray:
        """Return the forecast of the step after `series` [..., time]."""
        return self.constant + series[..., series.shape[-1] - len(self.coefficients) :] @ self.coefficients[::-1]


def fit_linear(series: np.ndarray, cycle: int, constants: Sequence[bool] = (True,)) -> Linear:
    """Fit AR(p) by least squares; p, and whether there is a constant, have the lowest corrected AIC."""
    most = min(max(cycle + 1, MOST_LAGS), len(series) // 4)
    rows, target = len(series) - most, series[most:]
    lagged = [series[most - lag : len(series) - lag] for lag in range(1, most + 1)]
    best = Linear(0.0, np.zeros(0))
    for constant in constants:
        matrix = np.stack([np.ones(rows)] * constant + lagged, axis=1)
        gram = matrix.T @ matrix
        lower = np.linalg.cholesky(gram + np.diag(1e-10 * np.diag(gram) + 1e-300))
        along = np.linalg.solve(lower, matrix.T @ target)  # one factor serves every order: they are nested
        left = target @ target - np.concatenate([[0.0], np.cumsum(along**2)])  # sum of squared errors, by order
        used = np.arange(len(left)) + 1.0
        penalty = 2 * used * rows / np.maximum(rows - used - 1, 1)
        aic = rows * np.log(np.maximum(left, 1e-10 * left[0] + 1e-300)) + penalty
        aic[(used > rows - 3) | (used <= constant)] = np.inf
        order = int(np.argmin(aic))
        if aic[order] < best.aic:
            found = np.linalg.solve(lower[:order, :order].T, along[:order])
            best = Linear(float(found[0]) if constant else 0.0, found[int(constant) :], aic[order])
    return best


def divide(series: np.ndarray, lag: int, theta: float) -> np.ndarray:
    """Return the series from which a moving average is divided out: each value plus `theta` times the result before."""
    whole = np.array(series, float)
    for step in range(lag, len(whole) if theta else 0):
        whole[step] += theta * whole[step - lag]
    return whole


def autoregression(values: np.ndarray, horizon: int, transform: Transform, moving: bool = False) -> np.ndarray:
    """Forecast the changed series by AR(p), and undo the change.

    With `moving` by ARMA: moving averages over a step and over a season are divided out first, with all of `THETAS`.
    """
    values = values[-MOST_ROWS:]
    series, constants = transform.stages(values)[-1], CONSTANTS[len(transform.lags)]
    best, moved, whole, cycle = Linear(0.0, np.zeros(0)), (0.0, 0.0), series, transform.cycle
    for pair in itertools.product(THETAS, THETAS if cycle > 1 else (0.0,)) if moving else [moved]:
        divided = divide(divide(series, 1, pair[0]), cycle, pair[1])
        fitted = fit_linear(divided, cycle, constants)
        fitted = fitted._replace(aic=fitted.aic + 2 * np.count_nonzero(pair))
        if fitted.aic < best.aic:
            best, moved, whole = fitted, pair, divided
    for _ in range(horizon):
        whole = np.append(whole, best.next(whole))
    for lag, theta in zip((1, cycle), moved, strict=True):
        whole = np.concatenate([whole[:lag], whole[lag:] - theta * whole[:-lag]])
    return transform.undo(values, whole[len(series) :])


def smoothing(values: np.ndarray, horizon: int, season: int, log: bool, trend: bool) -> np.ndarray:
    """Exponential smoothing of level, damped trend and season, with the weights of a grid that forecast best."""
    series = (np.log(values) if log else np.asarray(values, float))[-MOST_ROWS:]
    betas, dampings = ((0.0, 0.03, 0.1, 0.3), (0.8, 0.9, 0.95, 0.98, 1.0)) if trend else ((0.0,), (1.0,))
    gammas = (0.0, 0.05, 0.15, 0.3, 0.6) if season > 1 else (0.0,)
    grid = ((0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 0.99), betas, gammas, dampings)
    alpha, beta, gamma, damping = (axis.ravel() for axis in np.meshgrid(*grid, indexing="ij"))
    beta, gamma = alpha * beta, gamma * (1 - alpha)
    start = series[: min(3, len(series) // season) * season] if season > 1 else series[:10]
    slope = np.polyfit(np.arange(len(start)), start, 1)[0]
    if season > 1 and len(start) > season:  # the season itself has a slope
        slope = (start[-season:].mean() - start[:season].mean()) / (len(start) - season)
    line = start.mean() + slope * (np.arange(len(start)) - (len(start) - 1) / 2)
    seasons = np.zeros((season, len(alpha)))
    if season > 1:
        seasons += (start - line).reshape(-1, season).mean(axis=0)[:, None]
    level, slopes, squares = line[0] - slope + 0 * alpha, slope * trend + 0 * alpha, 0 * alpha
    for step, value in enumerate(series):
        slopes = damping * slopes
        error = value - level - slopes - seasons[step % season]
        squares += error**2
        level, slopes = level + slopes + alpha * error, slopes + beta * error
        seasons[step % season] += gamma * error
    best, steps = int(np.argmin(squares)), np.arange(horizon)
    trended = level[best] + slopes[best] * np.cumsum(damping[best] ** (steps + 1))
    ahead = trended + seasons[(len(series) + steps) % season, best]
    return np.exp(np.minimum(ahead, 700)) if log else ahead


def simple_methods(lowest: float, season: int, shortest: int) -> dict[str, Method]:
    """Return all candidates; their names begin with the kind, and a colon before the change of the series."""
    changes = transforms(lowest, season, shortest)
    found: dict[str, Method] = {"last_value": repeat, "drift": drift}
    if season > 1:
        found["seasonal_naive"] = partial(repeat, season=season)
    found |= {f"ar: {one}": partial(autoregression, transform=one) for one in changes}
    found |= {f"arma: {one}": partial(autoregression, transform=one, moving=True) for one in changes}
    for log, trend in itertools.product(dict.fromkeys(one.log for one in changes), (False, True)):
        name = f"smoothing: {'log, ' if log else ''}{'trend' if trend else 'level'}"
        found[name] = partial(smoothing, season=season, log=log, trend=trend)
    return found


def origins(rows: int, horizon: int, season: int) -> list[int]:
    """Return how many rows are known at each origin of the validation: at most eight, half a horizon apart."""
    least = max(2 * season, 10)
    found = [rows - horizon - k * max(1, horizon // 2) for k in range(MOST_ORIGINS)]
    return [origin for k, origin in enumerate(found) if origin >= (max(rows // 2, least) if k else least)]


def weights(errors: np.ndarray) -> np.ndarray:
    """Return the weight of each method in the average from its validated mean absolute error."""
    least = 1e-12 * errors.min(initial=1.0, where=errors > 0)  # as small as the series may be
    found = (np.maximum(errors.min(), least) / np.maximum(errors, least)) ** POWER
    return found / found.sum()


def weighted_median(forecasts: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the median over the first axis of forecasts [methods, ...]: half of the weight is below it."""
    order = np.argsort(forecasts, axis=0)
    half = np.argmax(np.cumsum(weight[order], axis=0) >= 0.5 * weight.sum(), axis=0)
    return np.take_along_axis(np.take_along_axis(forecasts, order, 0), half[None], 0)[0]


def conformal(errors: np.ndarray, level: float) -> np.ndarray:
    """Return the half width [horizon] of the interval that holds a part `level` of absolute errors [origins, horizon].

    The errors of all steps are pooled, each divided by the power of the step that fits their growth.
    """
    steps = np.arange(1, errors.shape[1] + 1)
    typical = np.log(errors.mean(axis=0) + 1e-12 * errors.max() + 1e-300)
    growth = steps ** (np.clip(np.polyfit(np.log(steps), typical, 1)[0], 0, 1) if len(steps) > 1 else 0.0)
    scaled = np.sort((errors / growth).ravel())
    return growth * scaled[min(len(scaled), int(np.ceil((len(scaled) + 1) * level))) - 1]
