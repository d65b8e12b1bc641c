"""The page with the sliders: its JavaScript computes what minilstm computes, and draws it."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from minilstm import LSTM, clip_by_global_norm, gradient_flow, value_and_grad

SCRIPT = Path(__file__).parents[2] / "docs" / "_static" / "lstm.js"
PAGE = SCRIPT.with_name("gradient_flow.js")
SLIDERS = {"forget-bias": 1.0, "length": 200, "clip": 2.0}  # their first positions; the last value of clip is "off"


PLANTED = [  # a line of the script, and a mistake in it
    ("value + dOutputs[t][u]", "dOutputs[t][u]"),  # nothing comes back from the next step
    ("value * a[u] * o[u] * (1 - o[u])", "value * a[u] * o[u]"),
    ("value + dh[u] * o[u] * (1 - a[u] * a[u])", "value + dh[u] * o[u] * (1 - a[u])"),
    ("value * j[u] * i[u] * (1 - i[u])", "value * i[u] * (1 - i[u])"),
    ("value * i[u] * (1 - j[u] * j[u])", "value * i[u]"),
    ("value * before.c[u] * f[u] * (1 - f[u])", "value * steps[t].c[u] * f[u] * (1 - f[u])"),
    ("[...dzI, ...dzJ, ...dzF, ...dzO]", "[...dzI, ...dzF, ...dzJ, ...dzO]"),
    ("dKernel[k][column] += value * d", "dKernel[k][column] = value * d"),
    ("flow.dBias[column] += d;", "flow.dBias[column] += d / steps.length;"),
    ("cell.kernel[inputDim + u][column]", "cell.kernel[u][column]"),
    ("value * f[u]); // (6)", "value); // (6)"),
    ("sigmoid(value + cell.forgetBias)", "sigmoid(value)"),
]


@pytest.fixture
def script(browser):
    """An empty page with the functions of both scripts."""
    page = browser.new_page()
    page.add_script_tag(path=SCRIPT)
    page.add_script_tag(path=PAGE)
    yield page
    page.close()


def javascript_cell(params, forget_bias):
    """The cell in the form that the script takes, as JSON-able values."""
    weights = {name: array.tolist() for name, array in params["lstm_cell"].items()}
    return {**weights, "forgetBias": forget_bias}


def compare_backward(page, units, input_dim, time, forget_bias):
    """Raise AssertionError unless the script on this page and minilstm agree on one random network."""
    rng = np.random.default_rng(0)
    layer = LSTM(units, forget_bias=forget_bias)
    params = {"lstm_cell": {"kernel": rng.normal(0, 0.6, (input_dim + units, 4 * units)),
                            "bias": rng.normal(0, 0.6, 4 * units)}}  # fmt: skip
    inputs, d_outputs = rng.normal(size=(1, time, input_dim)), rng.normal(size=(1, time, units))

    arguments = [javascript_cell(params, forget_bias), inputs[0].tolist(), d_outputs[0].tolist()]
    found = page.evaluate("([cell, inputs, dOutputs]) => backward(cell, forward(cell, inputs), dOutputs)", arguments)

    flow = gradient_flow(layer, params, inputs, d_outputs)
    _, grads = value_and_grad(lambda params: (layer(params, inputs) * d_outputs).sum())(params)
    wanted = {
        "dc": flow["dc"][0],
        "dh": flow["dh"][0],
        "dz": np.concatenate([flow[f"dz_{gate}"][0] for gate in "ijfo"], axis=1),
        "dKernel": grads["lstm_cell"]["kernel"],
        "dBias": grads["lstm_cell"]["bias"],
    }
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert np.abs(array).max() > 1e-3, f"{name}: nothing to compare"
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("units", "input_dim", "time", "forget_bias"), [(1, 1, 1, 1.0), (3, 2, 7, 0.0), (5, 3, 40, 2.5), (4, 1, 60, -1.0)]
)
def test_the_backward_pass_is_minilstms(script, units, input_dim, time, forget_bias):
    compare_backward(script, units, input_dim, time, forget_bias)


def test_the_comparison_sees_every_planted_mistake(browser):
    source = SCRIPT.read_text(encoding="utf-8")
    for right, wrong in PLANTED:
        assert source.count(right) == 1, right
        page = browser.new_page()
        page.add_script_tag(content=source.replace(right, wrong))
        with pytest.raises(AssertionError, match="Mismatched elements"):
            compare_backward(page, units=3, input_dim=2, time=7, forget_bias=0.5)
        page.close()


@pytest.mark.parametrize(("norm", "bound"), [(5.0, 1.0), (0.5, 1.0), (1.0, 1.0), (2.0, math.inf)])
def test_the_factor_is_that_of_clip_by_global_norm(script, norm, bound):
    found = script.evaluate("([norm, bound]) => clipFactor(norm, bound ?? Infinity)",
                            [norm, bound if math.isfinite(bound) else None])  # fmt: skip
    grads, _ = clip_by_global_norm({"w": np.array([norm])}, bound)
    assert found == pytest.approx(grads["w"][0] / norm, rel=1e-15)


def set_sliders(page, positions):
    """Move the sliders as a user would: each move sends an event to the page."""
    for name, value in positions.items():
        page.evaluate(
            "([id, value]) => { const slider = document.getElementById(id); slider.value = value;"
            " slider.dispatchEvent(new Event('input', { bubbles: true })); }",
            [name, value],
        )


def drawn_norms(page, name):
    """The powers of ten that a curve shows, read back from its path and the labels of the axis."""
    labels = page.evaluate(
        "[...document.querySelectorAll('#flow-plot text[text-anchor=end]')]"
        ".map(text => [text.textContent.slice(2), Number(text.getAttribute('y')) - 4])"
    )
    plain = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    (low, y_low), (high, y_high) = ((int(power.translate(plain)), y) for power, y in (labels[0], labels[-1]))
    path = page.locator(f"#{name}").get_attribute("d")
    y = np.array([float(value) for value in re.findall(r",(-?[\d.]+)", path)])
    return low + (high - low) * (y - y_low) / (y_high - y_low)


@pytest.mark.parametrize(
    "moved",
    [{}, {"forget-bias": 0.0}, {"forget-bias": 4.0}, {"length": 30}, {"clip": -1.0},
     {"forget-bias": 2.5, "length": 120, "clip": -2.0}],
)  # fmt: skip
def test_the_plot_shows_minilstms_norms(visit, moved):
    visited = visit("gradient_flow.html")
    data = json.loads(visited.page.locator("#flow-data").text_content())
    positions = SLIDERS | moved
    set_sliders(visited.page, moved)

    time, units = positions["length"], len(data["bias"]) // 4
    layer = LSTM(units, forget_bias=positions["forget-bias"])
    params = {"lstm_cell": {"kernel": np.array(data["kernel"]), "bias": np.array(data["bias"])}}
    inputs, d_outputs = np.array(data["inputs"])[None, :time], np.zeros((1, time, units))
    d_outputs[:, -1] = 1 / np.sqrt(units)
    _, grads = value_and_grad(lambda params: (layer(params, inputs) * d_outputs).sum())(params)
    clip_norm = math.inf if positions["clip"] == SLIDERS["clip"] else 10.0 ** positions["clip"]
    clipped, norm = clip_by_global_norm(grads, clip_norm)
    factor = clipped["lstm_cell"]["bias"][-1] / grads["lstm_cell"]["bias"][-1]
    flow = gradient_flow(layer, params, inputs, d_outputs)

    computed = visited.page.evaluate(
        "([cell, inputs, bound]) => gradientFlow(cell, inputs, bound ?? Infinity)",
        [javascript_cell(params, positions["forget-bias"]), inputs[0].tolist(),
         clip_norm if math.isfinite(clip_norm) else None],
    )  # fmt: skip
    for name in ("dc", "dh"):
        norms = np.linalg.norm(flow[name][0], axis=1)
        np.testing.assert_allclose(computed[name], norms, rtol=1e-6, err_msg=name)
        drawn = drawn_norms(visited.page, f"flow-{name}")
        np.testing.assert_allclose(drawn, np.log10(factor * norms), rtol=0, atol=2e-3, err_msg=name)  # 0.02 of a pixel
    assert computed["weightNorm"] == pytest.approx(norm, rel=1e-6)
    assert computed["factor"] == pytest.approx(factor, rel=1e-6)
    assert visited.page.locator("#flow-unclipped").count() == (factor < 1)
    assert visited.faults == []


def test_the_page_compares_itself_with_minilstm(visit):
    text = visit("gradient_flow.html").page.locator("#flow-check").text_content()
    assert float(re.search(r"at most (\S+) of", text)[1]) < 1e-6


def test_a_slider_says_its_value_and_moves_by_key(visit):
    page = visit("gradient_flow.html", width=390).page
    for name, shown in (("forget-bias", "1.1"), ("length", "199 steps"), ("clip", "79.4")):
        slider = page.locator(f"#{name}")
        before = page.locator("#flow-dc").get_attribute("d")
        slider.press("ArrowRight" if name == "forget-bias" else "ArrowLeft")
        assert page.locator(f"#{name}-value").text_content() == shown
        assert slider.get_attribute("aria-valuetext") == shown
        if name != "clip":  # a bound of 79 clips nothing here
            assert page.locator("#flow-dc").get_attribute("d") != before
