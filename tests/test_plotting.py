"""Pictures: what is drawn is what was given, all of it is in sight, and nothing global is touched."""

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minilstm import LSTM, gate_activations, gradient_flow, plotting

RNG = np.random.default_rng(21)
BATCH, TIME, UNITS = 3, 6, 4
GATES = {gate: RNG.uniform(-1, 1, (BATCH, TIME, UNITS)) for gate in "ijfo"}
FLOW = {"dc": RNG.normal(size=(BATCH, TIME, UNITS)), "dh": RNG.normal(size=(BATCH, TIME, 2))}
HISTORY = {"loss": [1.5, 0.75, 0.5], "val_loss": [2.0, 1.0, 0.875], "step": [1, 2, 3]}
SERIES = np.sin(np.arange(30.0))

DRAWINGS = {
    "plot_loss": lambda ax=None: plotting.plot_loss(HISTORY, ax, baselines={"naive": 1.25}),
    "plot_forecast": lambda ax=None: plotting.plot_forecast(np.arange(30.0), SERIES, SERIES + 0.1, ax),
    "plot_continuation": lambda ax=None: plotting.plot_continuation(SERIES, SERIES[:7] / 2, 20, ax),
    "plot_gates": lambda ax=None: plotting.plot_gates(GATES, ax),
    "plot_gradient_flow": lambda ax=None: plotting.plot_gradient_flow(FLOW, ax),
}


def lines(ax):
    """label -> (x, y) of every line."""
    return {line.get_label(): tuple(np.asarray(line.get_data(), float)) for line in ax.lines}


def in_sight(ax):
    """Check that every finite point of every line is within the axes."""
    (left, right), (bottom, top) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    for label, (x, y) in lines(ax).items():
        if len(x) and not label.startswith("_"):
            if label != "naive":  # which goes from edge to edge, in parts of the width
                assert left <= np.nanmin(x) <= np.nanmax(x) <= right, label
            assert bottom <= np.nanmin(y) <= np.nanmax(y) <= top, label


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_given_ax_is_drawn_on_and_returned(name):
    figure = Figure()
    ax, other = figure.subplots(1, 2)
    assert DRAWINGS[name](ax) is ax
    assert ax.lines
    assert not other.lines
    assert ax.get_legend() is not None
    assert legend(ax) == [label for label in lines(ax) if not label.startswith("_")]
    in_sight(ax)


@pytest.mark.parametrize("name", DRAWINGS)
def test_without_an_ax_a_figure_of_its_own_is_made(name):
    first, second = DRAWINGS[name](), DRAWINGS[name]()
    assert isinstance(first, Axes)
    assert isinstance(first.get_figure(), Figure)
    assert first.get_figure() is not second.get_figure()
    assert len(first.lines) == len(second.lines)


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_saved_as_png(name, tmp_path):
    path = tmp_path / "picture.png"
    plotting.save(DRAWINGS[name](), path, dpi=40)
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[12:16] == b"IHDR"
    assert len(data) > 1000
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]


def test_the_ending_of_the_name_is_the_format_and_dpi_the_size(tmp_path):
    ax = plotting.new_axes(5.0, 2.0)
    plotting.save(ax, tmp_path / "a.svg")
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()[:600]
    plotting.save(ax, str(tmp_path / "b.png"), dpi=50)
    header = (tmp_path / "b.png").read_bytes()[16:24]
    assert (int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")) == (250, 100)


@pytest.mark.parametrize("name", DRAWINGS)
def test_no_style_is_changed(name):
    before = dict(matplotlib.rcParams)
    DRAWINGS[name]()
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_never_loaded_and_no_screen_is_needed(tmp_path):
    program = f"""
import sys
import numpy as np
from minilstm import plotting
x = np.arange(4.0)
plotting.plot_loss({{"loss": [2.0, 1.0]}})
plotting.plot_forecast(x, x, x)
plotting.plot_continuation(x, x, 2)
plotting.plot_gates({{gate: np.ones((1, 4, 2)) for gate in "ijfo"}})
ax = plotting.plot_gradient_flow({{"dc": np.ones((1, 4, 2)), "dh": np.ones((1, 4, 2))}})
plotting.save(ax, {str(tmp_path / "x.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MPLBACKEND")}
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, env=environment)


# --- plot_loss ------------------------------------------------------------------------------------------------


def test_plot_loss_draws_both_losses_over_epochs_from_1():
    ax = plotting.plot_loss(HISTORY)
    drawn = lines(ax)
    assert drawn.keys() == {"training", "validation"}
    for label, key in (("training", "loss"), ("validation", "val_loss")):
        assert drawn[label][0].tolist() == [1, 2, 3]
        assert drawn[label][1].tolist() == HISTORY[key]
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")


@pytest.mark.parametrize("history", [{"loss": [3.0, 2.0]}, {"loss": [3.0, 2.0], "val_loss": []}])
def test_plot_loss_needs_no_validation(history):
    assert lines(plotting.plot_loss(history)).keys() == {"training"}


def test_plot_loss_takes_arrays():
    ax = plotting.plot_loss({key: np.array(values) for key, values in HISTORY.items()})
    assert lines(ax)["validation"][1].tolist() == HISTORY["val_loss"]


@pytest.mark.parametrize("count", [1, 5, 7])
def test_plot_loss_draws_every_baseline(count):
    baselines = {f"baseline {n}": 0.5 + n for n in range(count)}
    drawn = lines(plotting.plot_loss(HISTORY, baselines=baselines))
    assert {label: y.tolist() for label, (_, y) in drawn.items() if label.startswith("baseline")} == {
        label: [value, value] for label, value in baselines.items()
    }


# --- plot_forecast, plot_continuation -------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, -50.0, 300.0])
def test_plot_forecast_draws_truth_prediction_and_the_free_run_and_cuts_nothing_off(shift):
    times, truth = np.arange(1800, 1830.0), SERIES + shift
    free_times, free = np.arange(1830, 1840.0), SERIES[:10] * 3 + shift
    ax = plotting.plot_forecast(times, truth, truth + 0.5, free_times=free_times, free=free, xlabel="year", ylabel="n",
                                title="Spots")  # fmt: skip
    drawn = lines(ax)
    assert drawn.keys() == {"truth", "one step ahead", "running free"}
    for label, (x, y) in {"truth": (times, truth), "one step ahead": (times, truth + 0.5),
                          "running free": (free_times, free)}.items():  # fmt: skip
        assert drawn[label][0].tolist() == x.tolist()
        assert drawn[label][1].tolist() == y.tolist()
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("year", "n", "Spots")
    in_sight(ax)


def test_plot_forecast_without_a_free_run_keeps_negative_values_in_sight():
    ax = plotting.plot_forecast(np.arange(30.0), SERIES - 9, SERIES - 8)
    assert lines(ax).keys() == {"truth", "one step ahead"}
    in_sight(ax)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_plot_forecast_shades_every_span(count):
    spans = {f"span {n}": (10.0 * n, 10.0 * n + 9) for n in range(count)}
    ax = plotting.plot_forecast(np.arange(60.0), np.ones(60), np.ones(60), spans=spans)
    shaded = {patch.get_label(): (patch.get_extents(), patch) for patch in ax.patches}
    assert shaded.keys() == spans.keys()
    for label, (first, last) in spans.items():
        patch = shaded[label][1]
        assert (patch.get_x(), patch.get_x() + patch.get_width()) == (first - 0.5, last + 0.5)
    assert len({patch.get_facecolor() for _, patch in shaded.values()}) == min(count, 3)
    assert set(spans) <= set(legend(ax))


def test_plot_continuation_begins_the_forecast_at_its_step():
    ax = plotting.plot_continuation(SERIES, SERIES[:7] / 2, 20)
    drawn = lines(ax)
    assert drawn["truth"][0].tolist() == list(range(30))
    assert drawn["truth"][1].tolist() == SERIES.tolist()
    assert drawn["running free"][0].tolist() == list(range(20, 27))
    assert drawn["running free"][1].tolist() == (SERIES[:7] / 2).tolist()
    (span,) = ax.patches
    assert (span.get_x(), span.get_x() + span.get_width()) == (20, 26)
    in_sight(ax)


# --- plot_gates, plot_gradient_flow ---------------------------------------------------------------------------


@pytest.mark.parametrize("sequence", [0, 2])
def test_plot_gates_draws_the_mean_and_the_range_of_one_sequence(sequence):
    ax = plotting.plot_gates(GATES, sequence=sequence)
    drawn = lines(ax)
    assert list(drawn) == ["i", "j", "f", "o"]
    for (gate, (x, y)), band, line in zip(drawn.items(), ax.collections, ax.lines, strict=True):
        values = GATES[gate][sequence]
        assert x.tolist() == list(range(TIME))
        assert y.tolist() == values.mean(axis=1).tolist()
        box = band.get_paths()[0].get_extents()
        assert (box.x0, box.x1, box.y0, box.y1) == (0, TIME - 1, values.min(), values.max())
        assert line.get_color() == plotting.GATE_COLOURS[gate]
    assert len({line.get_color() for line in ax.lines}) == 4


def test_plot_gates_draws_a_trace_that_ends_early():
    layer = LSTM(3)
    inputs = RNG.normal(size=(2, 5, 2)).astype(np.float32)
    seen = gate_activations(layer, layer.init(0, 2), inputs, sequence_length=[5, 2])
    (_, y) = lines(plotting.plot_gates(seen, sequence=1))["f"]
    assert np.isfinite(y).tolist() == [True, True, False, False, False]


def test_plot_gates_keeps_an_unbounded_gate_in_sight():
    """With relu the new input j has no bound."""
    layer = LSTM(3, activation="relu")
    params = layer.init(0, 2)
    params["lstm_cell"]["bias"][3:6] = 4
    ax = plotting.plot_gates(gate_activations(layer, params, np.ones((1, 5, 2), np.float32)))
    assert lines(ax)["j"][1].max() > 2
    in_sight(ax)


def test_plot_gradient_flow_draws_norms_over_batch_and_units():
    ax = plotting.plot_gradient_flow(FLOW)
    drawn = lines(ax)
    assert list(drawn) == ["|dc|", "|dh|"]
    for name in ("dc", "dh"):
        x, y = drawn[f"|{name}|"]
        assert x.tolist() == list(range(TIME))
        for t in range(TIME):
            assert y[t] == pytest.approx(np.linalg.norm(FLOW[name][:, t].ravel()), rel=1e-14)
    assert ax.get_yscale() == "log"


def test_plot_gradient_flow_compares_several_on_one_ax():
    ax = plotting.plot_gradient_flow(FLOW, label="b = 0.5")
    plotting.plot_gradient_flow({name: 2 * d for name, d in FLOW.items()}, ax, label="b = 2")
    drawn = lines(ax)
    assert list(drawn) == ["|dc|, b = 0.5", "|dh|, b = 0.5", "|dc|, b = 2", "|dh|, b = 2"]
    assert np.allclose(drawn["|dc|, b = 2"][1], 2 * drawn["|dc|, b = 0.5"][1], rtol=1e-14)
    colours = [line.get_color() for line in ax.lines]
    assert colours[0] == colours[1] != colours[2] == colours[3]


def test_plot_gradient_flow_leaves_out_what_is_zero():
    """A logarithm has no 0: a gradient that never arrives is a gap, not a fall to the bottom."""
    layer = LSTM(3)
    d_outputs = np.zeros((2, 6, 3))
    d_outputs[:, 3] = 1
    flow = gradient_flow(layer, layer.init(0, 2), RNG.normal(size=(2, 6, 2)).astype(np.float32), d_outputs)
    for _, y in lines(plotting.plot_gradient_flow(flow)).values():
        assert np.isfinite(y).tolist() == [True] * 4 + [False] * 2
        assert (y[:4] > 0).all()
