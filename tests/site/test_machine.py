"""The machine page: what its JavaScript computes is what minilstm computes, and its buttons show it."""

import json
import re
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest

from minilstm import LSTM, SGD, gate_activations, gradient_flow, value_and_grad

STATIC = Path(__file__).parents[2] / "docs" / "_static"
SCRIPTS = ("lstm.js", "machine_lines.js", "machine.js")


def random_setting(rng):
    """A setting of the page, with weights from small to large."""
    size = 10 ** rng.uniform(-1, 0.7)
    return {
        "kernel": rng.normal(0, size, (3, 8)).tolist(),
        "bias": rng.normal(0, size, 8).tolist(),
        "forgetBias": float(rng.uniform(-4, 4)),
        "inputs": rng.normal(0, 2, 3).tolist(),
        "target": rng.uniform(-1, 1, 2).tolist(),
        "rate": float(10 ** rng.uniform(-2, 1)),
    }


def by_minilstm(setting):
    """The numbers that the page must have."""
    layer = LSTM(2, forget_bias=setting["forgetBias"])
    params = {name: np.array(setting[name]) for name in ("kernel", "bias")}
    x, target = np.array(setting["inputs"])[None, :, None], np.array(setting["target"])

    def loss(variables):
        last = layer({"lstm_cell": variables["params"]}, variables["x"])[0, -1]
        return 0.5 * anp.sum((last - target) ** 2)

    value, grads = value_and_grad(loss)({"params": params, "x": x})
    seen = gate_activations(layer, {"lstm_cell": params}, x)
    d_outputs = np.zeros((1, 3, 2))
    d_outputs[0, -1] = seen["h"][0, -1] - target
    flow = gradient_flow(layer, {"lstm_cell": params}, x, d_outputs)
    sgd = SGD(setting["rate"])
    updated, _ = sgd.update(params, grads["params"], sgd.init(params))
    return {
        **{name: seen[name][0] for name in "ijfoch"},
        "loss": value,
        "dc": flow["dc"][0],
        "dh": flow["dh"][0],
        "dz": np.concatenate([flow[f"dz_{gate}"][0] for gate in "ijfo"], axis=1),
        "dKernel": grads["params"]["kernel"],
        "dBias": grads["params"]["bias"],
        "dInputs": grads["x"][0, :, 0],
        "kernel": updated["kernel"],
        "bias": updated["bias"],
    }


RUN = """setting => {
    const run = machineRun(setting);
    const gates = Object.fromEntries([...'ijfoch'].map(name => [name, run.steps.map(step => step[name])]));
    const { dc, dh, dz, dKernel, dBias } = run.flow;
    const { loss, dInputs, kernel, bias } = run;
    return { ...gates, loss, dc, dh, dz, dKernel, dBias, dInputs, kernel, bias };
}"""


def compare(page, settings):
    for setting in settings:
        found, wanted = page.evaluate(RUN, setting), by_minilstm(setting)
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-9, err_msg=f"{name} of {setting}")


def test_two_hundred_random_settings_are_minilstms(visit):
    rng = np.random.default_rng(0)
    settings = [random_setting(rng) for _ in range(200)]
    compare(visit("machine.html").page, settings)


PLANTED = [  # in machine.js; tests/site/test_gradient_flow.py plants mistakes in lstm.js
    ("h - target[u]", "target[u] - h"),
    ("t === last ? errors", "t === 0 ? errors"),
    ("sum + e * e / 2", "sum + e * e"),
    ("d * kernel[0][column]", "d * kernel[1][column]"),
    ("w - rate * flow", "w + rate * flow"),
    ("b - rate * flow.dBias", "b - flow.dBias"),
]


def test_the_comparison_sees_every_planted_mistake(browser):
    sources = [(STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS]
    settings = [random_setting(np.random.default_rng(1))]
    for right, wrong in PLANTED:
        assert sources[-1].count(right) == 1, right
        page = browser.new_page()
        for source in sources:
            page.add_script_tag(content=source.replace(right, wrong))
        with pytest.raises(AssertionError, match="Mismatched elements"):
            compare(page, settings)
        page.close()


def press(page, name, times=1):
    """Press a button with the keyboard, as a reader without a mouse would."""
    for _ in range(times):
        page.locator(f"#machine-{name}").focus()
        page.keyboard.press("Space")


def shown(number):
    """The page's way to write a number."""
    size = abs(number)
    form = "d" if size == 0 else ".0e" if size < 1e-3 else ".3f" if size < 0.1 else ".2f"
    digits = f"{int(number):d}" if size == 0 else f"{number:{form}}"
    return re.sub(r"e-0?", "e-", digits).replace("-", "\N{MINUS SIGN}")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_lines_and_the_drawing_show_minilstms_numbers(visit, width):
    visited = visit("machine.html", width)
    page = visited.page
    setting = json.loads(page.locator("#machine-data").text_content())["setting"]
    wanted = by_minilstm(setting)
    results = {}  # the number at the end of each line: (direction, step, place) -> [unit 0, unit 1]
    for _ in range(3 * 9 + 1):
        press(page, "forward")
        collect(page, results)
    for _ in range(3 * 11):
        press(page, "back")
        collect(page, results)
    for t in range(3):
        last = t == 2
        for name, place in {"i": 2, "j": 3, "f": 4, "c": 5, "o": 6, "h": 8}.items():
            assert results["Forward", t, place] == [shown(value) for value in wanted[name][t]], (name, t)
        if last:
            assert results["Back", t, 0] == [shown(value) for value in wanted["dh"][t]]
        assert results["Back", t, 3] == [shown(value) for value in wanted["dc"][t]]
        for place, block in ((4, 3), (6, 2), (7, 1), (8, 0)):
            dz = wanted["dz"][t][2 * block : 2 * block + 2]
            assert results["Back", t, place] == [shown(value) for value in dz]
    drawn = texts(page, "#machine-drawing .derivative")
    for name in ("dh", "dc"):
        for value in wanted[name].ravel():
            assert f"d {shown(value)}" in drawn, name
    rows = np.vstack([wanted["dKernel"], wanted["dBias"]])  # 4 rows, and two columns for each gate
    by_gate = [rows[:, 2 * k : 2 * k + 2] for k in range(4)]
    assert texts(page, "#machine-weights small") == [f"d {shown(value)}" for value in np.ravel(by_gate)]
    assert visited.faults == []


def texts(page, selector):
    return page.evaluate("selector => [...document.querySelectorAll(selector)].map(e => e.textContent)", selector)


def collect(page, results):
    """Read the line that is lit."""
    caption = page.locator("#machine-caption").text_content()
    direction, step = caption.split(",")[0], int(caption.split("step ")[1][0])
    rows = page.locator("#machine-lines tr")
    lit = page.evaluate("[...document.querySelectorAll('#machine-lines tr')].findIndex(r => r.matches('.lit'))")
    cells = rows.nth(lit).locator("td").all_inner_texts()
    results[direction, step, lit] = [cell.split("=")[-1].strip() for cell in cells]


def test_an_update_is_minilstms_and_the_loss_falls(visit):
    page = visit("machine.html").page
    setting = json.loads(page.locator("#machine-data").text_content())["setting"]
    wanted = by_minilstm(setting)
    press(page, "all-forward")
    press(page, "all-back")
    press(page, "update")
    now = page.evaluate("document.getElementById('machine').machine.setting")
    np.testing.assert_allclose(now["kernel"], wanted["kernel"], rtol=1e-9)
    np.testing.assert_allclose(now["bias"], wanted["bias"], rtol=1e-9)
    after = by_minilstm({**setting, **now})["loss"]
    assert after < wanted["loss"]
    summary = page.locator("#machine-summary").text_content()
    assert f"the loss went from {wanted['loss']:#.4g} to {after:#.4g}" in summary
    assert page.locator("#machine-weights input").first.input_value() == f"{wanted['kernel'][0, 0]:.4f}".rstrip("0")


def test_a_field_changes_what_is_computed(visit):
    page = visit("machine.html").page
    setting = json.loads(page.locator("#machine-data").text_content())["setting"]
    page.get_by_label("x₀").fill("2")
    page.get_by_label("gate f, bias, to unit 1").fill("-1.5")
    page.get_by_label("forget bias", exact=True).fill("3")
    page.keyboard.press("Tab")
    press(page, "all-forward")
    setting["inputs"][0], setting["bias"][5], setting["forgetBias"] = 2, -1.5, 3
    assert page.evaluate("document.getElementById('machine').machine.setting") == setting
    assert f"{by_minilstm(setting)['loss']:#.4g}" in page.locator("#machine-summary").text_content()


def test_a_button_that_may_not_be_pressed_does_nothing(visit):
    page = visit("machine.html").page
    before = page.locator("#machine-summary").text_content()
    for name in ("back", "update", "undo"):
        assert page.locator(f"#machine-{name}").get_attribute("aria-disabled") == "true"
        press(page, name)
        assert page.locator("#machine-summary").text_content() == before


def test_the_page_compares_itself_with_minilstm(visit):
    text = visit("machine.html").page.locator("#machine-check").text_content()
    assert float(text.rstrip(".").rsplit(" ", 1)[1]) < 1e-12


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_in_the_drawing_leaves_it(visit, width, scheme):
    page = visit("machine.html", width, scheme).page
    for name in ("random", "all-forward", "all-back"):
        press(page, name)
    outside = page.evaluate("""() => {
        const frame = document.getElementById('machine-plot').getBoundingClientRect();
        return [...document.querySelectorAll('#machine-drawing text, #machine-drawing rect')].filter(part => {
            const box = part.getBoundingClientRect();
            return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
        }).map(part => part.textContent || part.dataset.part);
    }""")
    assert outside == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
