"""The exercises in code: each check accepts the solution on its page and rejects wrong answers by name."""

import contextlib
import io
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "exercises"
PAGES = sorted(FOLDER.glob("*.md"))
CELL = re.compile(
    r"^```\{code-cell\}[^\n]*\n(?:---\n(?P<options>.*?)\n---\n)?(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
ANSWERS = ("forward", "backward", "truncated", "adam_step")  # the names of the reader's functions, on pages a to f

SWAPPED = ("dz_i = dc * j * i * (1 - i)\n        dz_j = dc * i * (1 - j * j)",
           "dz_j = dc * j * i * (1 - i)\n        dz_i = dc * i * (1 - j * j)")  # fmt: skip
LOST_DH = ("d_inputs[t], dh = np.split(d_x_and_h, [x_t.shape[1]], axis=1)",
           "d_inputs[t], dh = np.split(d_x_and_h, [x_t.shape[1]], axis=1)[0], 0 * dh")  # fmt: skip
LOST_DC = ("        dc = dc * f\n", "        dc = 0 * dc\n")
SWEEP = "the sweep first goes wrong at step {}, gate {}"
BACKWARD = [
    (SWAPPED, SWEEP.format("4 of 0..4", "i")),
    (("[dz_i, dz_j, dz_f, dz_o]", "[dz_i, dz_f, dz_j, dz_o]"), SWEEP.format("4 of 0..4", "j")),
    (LOST_DH, SWEEP.format("3 of 0..4", "i")),
    (LOST_DC, SWEEP.format("3 of 0..4", "i")),
    (("d_bias += dz.sum(axis=0)", "d_bias += dz.mean(axis=0)"), "WRONG"),
]
WRONG = {  # page -> (a piece of the solution, what to write instead), and what the check then says
    "a_forward": [
        (("z_i, z_j, z_f, z_o = np", "z_i, z_f, z_j, z_o = np"), "step 0: j is wrong"),
        (("z_i, z_j, z_f, z_o = np", "z_o, z_j, z_f, z_i = np"), "step 0: i is wrong"),
        (("c = f * c + i * j", "c = i * j"), "step 1: c is wrong"),
        (("np.concatenate([x_t, h]", "np.concatenate([x_t, 0 * h]"), "step 1: i is wrong"),
        (("z_f + forget_bias", "z_f"), "step 0: f is wrong"),
    ],
    "b_backward": BACKWARD,
    "c_peepholes": [
        *(pair for pair in BACKWARD[:3]),
        ((" + dz_o * w_o", ""), SWEEP.format("4 of 0..4", "i")),
        ((" + dz_i * w_i + dz_f * w_f", ""), SWEEP.format("3 of 0..4", "i")),
        (("(dz_o * c).sum", "(dz_o * c_prev).sum"), "w_o_diag"),
    ],
    "d_mend": BACKWARD,
    "e_truncation": [
        (SWAPPED, SWEEP.format("4 of 0..4", "i")),
        (LOST_DH, SWEEP.format("3 of 0..4", "i")),
        (LOST_DC, SWEEP.format("3 of 0..4", "i")),
        (("max(0, len(tape) - window), ", ""), "window 3: kernel of gate i is wrong"),
        (("max(0, len(tape) - window)", "len(tape) - window"), "window 11: not the whole pass over 9 steps"),
    ],
    "f_adam": [
        (("rate * np.sqrt(1 - beta2**t) / (1 - beta1**t)", "rate"), "update 2: w is wrong"),
        (("beta2 * v + (1 - beta2) * g**2", "beta2 * v + (1 - beta2) * np.abs(g)"), "update 1: v is wrong"),
        (("beta1 * m + (1 - beta1) * g", "(1 - beta1) * g"), "update 2: m is wrong"),
        (("(np.sqrt(v) + epsilon)", "(np.sqrt(v) + epsilon * np.sqrt(1 - beta2**t))"), "update 1: w is wrong"),
    ],
}


def run(code, names):
    """What a cell prints. A cell's last line may end with a semicolon, as in a notebook."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, names)
    return printed.getvalue()


@pytest.fixture(scope="module", params=PAGES, ids=lambda path: path.stem)
def page(request):
    """(name, names after all cells but the solution, what these cells print, the solution)."""
    names, printed, solution = {}, "", None
    for found in CELL.finditer(request.param.read_text()):
        if "solution" in (found["options"] or ""):
            assert solution is None
            solution = found["code"]
        else:
            printed += run(found["code"], names)
    return request.param.stem, names, printed, solution


def verdict(names, code):
    """Whether the check accepts the function that this code defines, and what it prints."""
    names = dict(names)
    code = re.sub(r"^assert check\(.*\n", "", code, flags=re.MULTILINE)
    run(code, names)
    answer = next(names[name] for name in re.findall(r"^def (\w+)\(", code, re.MULTILINE) if name in ANSWERS)
    result = []
    printed = run("result.append(check(answer))", {**names, "result": result, "answer": answer})
    return getattr(result[0], "agrees", result[0]), printed


def test_every_page_has_wrong_answers():
    assert {path.stem for path in PAGES} == set(WRONG)


def test_the_stub_runs_and_is_told_what_is_wrong(page):
    _, _, printed, _ = page
    assert "wrong" in printed.lower()


def test_the_solution_passes_its_check(page):
    _, names, _, solution = page
    assert verdict(names, solution)[0] is True
    run(solution, dict(names))  # with its own assertion


def test_wrong_answers_are_rejected_by_name(page):
    name, names, _, solution = page
    for (right, wrong), message in WRONG[name]:
        assert solution.count(right) == 1, right
        accepted, printed = verdict(names, solution.replace(right, wrong))
        assert accepted is False, wrong
        assert message in printed, f"{wrong}\n{printed}"
