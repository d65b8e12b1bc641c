"""Plots of losses, forecasts, gates and gradients. The only module that imports matplotlib.

Every function draws on `ax` if it is given, otherwise on a new figure, and returns the axes. None changes a style, a
backend or other global state, or uses ``pyplot``, so all work without a screen. ``save(ax, path)`` writes the file.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Each gate has the same colour in every plot. The colours differ also for people who cannot tell red from green (Okabe
# and Ito 2008).
GATE_COLOURS = {"i": "#0072B2", "j": "#009E73", "f": "#D55E00", "o": "#CC79A7"}
TRUTH, FORECAST, FREE = "#555555", "#0072B2", "#D55E00"
SHADES = ("#56B4E9", "#F0E442", "#CC79A7")


def new_axes(width: float = 8.0, height: float = 3.5) -> Axes:
    """Return axes on a new figure of `width` by `height` inches."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def save(ax: Axes, path: str | os.PathLike[str], dpi: int = 120) -> None:
    """Write the figure of `ax` to `path`; the file name's extension says the format."""
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    figure.savefig(path, dpi=dpi)


def _clean_axes(ax: Axes | None, width: float = 8.0, height: float = 3.5) -> Axes:
    """Return `ax`, or new axes, with a light grid and without the frame's top and right sides."""
    ax = new_axes(width, height) if ax is None else ax
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, alpha=0.25, linewidth=0.6)
    return ax


def plot_loss(
    history: Mapping[str, Sequence[float]], ax: Axes | None = None, baselines: Mapping[str, float] | None = None
) -> Axes:
    """Plot training and validation loss over epochs on a logarithmic scale.

    `history` is that of what `fit` returns; `baselines` (name -> loss) are drawn as horizontal lines.
    """
    if not hasattr(history, "get"):
        raise ValueError(f"plot_loss: history must be a dict, such as result.history, got {history!r:.80}")
    ax = _clean_axes(ax)
    for key, label, colour in (("loss", "training", FORECAST), ("val_loss", "validation", FREE)):
        values = history.get(key, ())
        if len(values):
            ax.plot(np.arange(1, len(values) + 1), values, color=colour, label=label)
    for (name, value), style in zip((baselines or {}).items(), itertools.cycle(("--", ":", "-."))):
        ax.axhline(value, color=TRUTH, linestyle=style, linewidth=1, label=name)
    ax.set(xlabel="epoch", ylabel="loss", yscale="log", title="Loss")
    ax.legend(frameon=False)
    return ax


def plot_forecast(
    times: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    ax: Axes | None = None,
    *,
    spans: Mapping[str, tuple[float, float]] | None = None,
    free_times: np.ndarray | None = None,
    free: np.ndarray | None = None,
    xlabel: str = "time",
    ylabel: str = "value",
    title: str = "Forecast",
) -> Axes:
    """Plot true values and their prediction over time.

    `spans` (name -> first and last time) are shaded. `free` is a forecast at `free_times` that was fed its own outputs.
    """
    if (free is None) != (free_times is None):
        missing = "free" if free is None else "free_times"
        raise ValueError(f"plot_forecast: free and free_times belong together, and {missing} is missing")
    ax = _clean_axes(ax, 11.0, 4.0)
    for (name, (first, last)), colour in zip((spans or {}).items(), itertools.cycle(SHADES)):
        ax.axvspan(first - 0.5, last + 0.5, color=colour, alpha=0.18, linewidth=0, label=name)
    ax.plot(times, truth, color=TRUTH, linewidth=1.4, label="truth")
    ax.plot(times, prediction, color=FORECAST, linewidth=1.2, label="one step ahead")
    if free is not None and free_times is not None:
        ax.plot(free_times, free, color=FREE, linewidth=1.4, linestyle="--", label="running free")
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    ax.margins(x=0.01)
    ax.legend(frameon=False, ncols=3, loc="upper left", fontsize="small")
    low, high = ax.get_ylim()
    ax.set_ylim(top=high + 0.25 * (high - low))  # room for the legend
    return ax


def plot_continuation(series: np.ndarray, forecast: np.ndarray, start: int, ax: Axes | None = None) -> Axes:
    """Plot a series ``[time]``, and a forecast ``[steps]`` that begins at time step `start` of the series."""
    if np.ndim(series) != 1 or np.ndim(forecast) != 1:
        shapes = f"{np.shape(series)} and {np.shape(forecast)}"
        raise ValueError(f"plot_continuation: series and forecast must be [time] and [steps], got {shapes}")
    ax = _clean_axes(ax, 9.0, 3.2)
    ax.plot(np.arange(len(series)), series, color=TRUTH, linewidth=1.4, label="truth")
    ax.plot(start + np.arange(len(forecast)), forecast, color=FREE, linewidth=1.6, linestyle="--", label="running free")
    ax.axvspan(start, start + len(forecast) - 1, color=SHADES[0], alpha=0.15, linewidth=0)
    ax.set(xlabel="time step")
    ax.margins(x=0.01)
    ax.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return ax


def plot_gates(trace: Mapping[str, Any], ax: Axes | None = None, *, sequence: int = 0) -> Axes:
    """Plot the activity of the gates i, j, f, o over time for one sequence: the mean over units, and their range.

    `trace` is what `minilstm.gate_activations` returns: arrays ``[batch, time, units]``. `sequence` is the row to plot.
    """
    ax = _clean_axes(ax)
    for gate, colour in GATE_COLOURS.items():
        values = np.asarray(trace[gate])[sequence]
        steps = np.arange(len(values))
        ax.plot(steps, values.mean(axis=1), color=colour, label=gate)
        ax.fill_between(steps, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.12, linewidth=0)
    low, high = ax.get_ylim()
    ax.set(xlabel="time step", ylabel="activity", ylim=(min(low, -1.05), max(high, 1.05)), title="Gates")
    ax.legend(frameon=False, ncols=4)
    return ax


def plot_gradient_flow(flow: Mapping[str, Any], ax: Axes | None = None, *, label: str | None = None) -> Axes:
    """Plot the norms of dc and dh (over batch and units) at every step, on a logarithmic scale.

    `flow` is what `minilstm.gradient_flow` returns: arrays ``[batch, time, units]``. To compare several flows, plot
    them on the same `ax`, each with its own `label`.
    """
    ax = _clean_axes(ax)
    colour = f"C{len(ax.lines) // 2}"
    for name, style in (("dc", "-"), ("dh", "--")):
        values = np.asarray(flow[name])
        norms = np.sqrt(np.sum(values**2, axis=(0, 2)))
        shown = f"|{name}|" if label is None else f"|{name}|, {label}"
        ax.plot(np.arange(len(norms)), np.where(norms > 0, norms, np.nan), style, color=colour, label=shown)
    ax.set(xlabel="time step", ylabel="norm", yscale="log", title="What flows back")
    ax.legend(frameon=False)
    return ax
