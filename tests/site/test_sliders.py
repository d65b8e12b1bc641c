"""The sliders in the chapters: their numbers are minilstm's, and they move by keyboard."""

import json

import numpy as np
import pytest

from minilstm import LSTM, LSTMCell, value_and_grad


def set_slider(page, name, value):
    page.evaluate(
        "([id, value]) => { const slider = document.getElementById(id); slider.value = value;"
        " slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        [name, value],
    )


def test_the_step_is_minilstms(visit):
    visited = visit("tutorial/01_one_step.html")
    page = visited.page
    cell = json.loads(page.locator("#one-step").get_attribute("data-cell"))
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, c, h = rng.integers(-20, 21) / 10, rng.integers(-20, 21) / 10, rng.integers(-10, 11) / 10
        for name, value in (("step-x", x), ("step-c", c), ("step-h", h)):
            set_slider(page, name, value)
        params = {name: np.array(cell[name], float) for name in ("kernel", "bias")}
        step = LSTMCell(1, forget_bias=cell["forgetBias"]).step(params, *(np.array([[v]]) for v in (x, c, h)))
        for name in "ijfoch":
            found = page.locator(f"#one-step tr[data-name={name}] td").last.text_content()
            exact = page.evaluate("([cell, x, c, h]) => oneStep(cell, x, c, h)", [cell, x, c, h])[name]
            assert exact == pytest.approx(getattr(step, name).item(), rel=1e-9)
            assert float(found.replace("\N{MINUS SIGN}", "-")) == pytest.approx(exact, abs=6e-4)
    assert visited.faults == []


@pytest.mark.parametrize(("steps", "bias"), [(30, 1.0), (5, 0.0), (150, 2.0), (199, 4.0)])
def test_truncation_misses_what_minilstm_misses(visit, steps, bias):
    visited = visit("tutorial/06_gradient_flow.html")
    page = visited.page
    data = json.loads(page.locator("#truncation-data").text_content())
    set_slider(page, "cut-steps", steps)
    set_slider(page, "cut-bias", bias)

    units, time = len(data["bias"]) // 4, len(data["inputs"])
    layer = LSTM(units, forget_bias=bias)
    params = {"lstm_cell": {name: np.array(data[name]) for name in ("kernel", "bias")}}
    inputs = np.array(data["inputs"])[None]

    def kernel_gradient(start):
        _, state = layer.apply(params, inputs[:, :start]) if start else (None, None)
        last = lambda params: (layer.apply(params, inputs[:, start:], state)[0][:, -1] / np.sqrt(units)).sum()  # noqa: E731
        return value_and_grad(last)(params)[1]["lstm_cell"]["kernel"]

    full = kernel_gradient(0)
    wanted = np.linalg.norm(kernel_gradient(time - steps) - full) / np.linalg.norm(full)
    found = page.evaluate("([cell, inputs]) => missingShares(cell, inputs)",
                          [{**data, "forgetBias": bias}, data["inputs"]])[steps - 1]  # fmt: skip
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-12)
    text = page.locator(".cut-summary").text_content()
    number = text.split("Missing: ")[1].split()[0]
    shown = float(number) / 100 if "%" in text else float(number)
    assert shown == pytest.approx(wanted, rel=0.06)
    assert visited.faults == []


@pytest.mark.parametrize(("name", "slider", "result"), [
    ("tutorial/01_one_step.html", "step-x", "#one-step table"),
    ("tutorial/06_gradient_flow.html", "cut-steps", ".cut-summary"),
])  # fmt: skip
def test_a_slider_moves_by_key_on_a_phone(visit, name, slider, result):
    page = visit(name, 390).page
    before = page.locator(result).text_content()
    page.locator(f"#{slider}").press("ArrowRight")
    assert page.locator(result).text_content() != before
