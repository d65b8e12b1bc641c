"""The benchmark of second derivatives: minilstm's part, the turns of the peers, and the table."""

import contextlib
import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close, assert_trees_close

from minilstm.params import tree_map

sys.path.insert(0, str(Path(__file__).parents[1]))
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import second, work

SMALL = (4, 3, 2, 5)
ANSWERS = {
    ("minilstm", "gradient"): 2.0, ("minilstm", "second"): 5.0, ("torch", "second"): 40.0, ("jax", "second"): 10.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def numpy_alone(monkeypatch):
    monkeypatch.setenv("MINILSTM_COMPILED", "0")


def test_the_product_is_how_the_gradient_moves_along_the_vector():
    (x, y), *_ = work.batches(SMALL)
    loss, grads, product = second.outcome_of("minilstm", SMALL, x, y)
    objective, params, vector = second._in_minilstm(SMALL)
    wide = [tree_map(lambda leaf: leaf.astype(np.float64), tree) for tree in (params, vector)]
    from minilstm import value_and_grad

    value, gradient = value_and_grad(objective)(wide[0], x, y)
    assert_close(loss, value, 1e-6)
    assert_trees_close(grads, second._from_minilstm(gradient), 1e-5)
    moved = [tree_map(lambda w, v, e=e: w + e * v, *wide) for e in (1e-4, -1e-4)]
    ahead, before = (value_and_grad(objective)(tree, x, y)[1] for tree in moved)
    wanted = tree_map(lambda a, b: (a - b) / 2e-4, ahead, before)
    assert_trees_close(product, second._from_minilstm(wanted), 1e-5)
    assert max(np.abs(array).max() for array in product.values()) > 0.1


def test_both_jobs_are_timed(monkeypatch):
    monkeypatch.setattr(work, "SECONDS", 0.01)
    for job in (second.PRODUCT, second.GRADIENT):
        assert 0 < work.do("minilstm", job, SMALL) < 5000


def test_the_peers_take_turns_and_the_table_has_medians_of_ratios(tmp_path, monkeypatch, capsys):
    calls, slow = [], iter([1] * 12 + [10] * 12 + [1] * 12)

    class Worker(contextlib.nullcontext):
        def __init__(self, peer):
            super().__init__(self)
            self.peer = peer

        def do(self, job):
            if job[0] == "large product":
                return 1.0
            calls.append((self.peer, *job))
            return ANSWERS[self.peer, job[0]] * next(slow)

    monkeypatch.setattr(benchmark, "Worker", Worker)
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name, *rest: 1)
    monkeypatch.setattr(benchmark, "headline", lambda known: f"of {', '.join(known.present)}")
    benchmark.main(["--second", "--out", str(tmp_path), "--rounds", "3", "--peers", "jax", "torch"])
    turn = [("minilstm", "gradient"), ("minilstm", "second"), ("torch", "second"), ("jax", "second")]
    assert calls == [(*pair, shape) for shape in second.SHAPES for pair in turn] * 3
    text = (tmp_path / "second.md").read_text()
    assert text in capsys.readouterr().out
    assert text.startswith("of minilstm, torch, jax\n\nThe product of the Hessian")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    assert rows[0][1:4] == ["minilstm", "torch", "jax"]
    assert rows[0][4:] == ["minilstm's gradient", "minilstm over fastest", "product over gradient"]
    assert rows[2] == ["(50, 32, 1, 32)", "5.00", "40.00", "10.00", "2.00", "0.500", "2.50"]
    assert rows[-1][0] == "geometric mean of 3"
    assert rows[-1][-2:] == ["0.500", "2.50"]
    with open(tmp_path / "second.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert len(written) == 3 * 3 * 4
    assert [row["milliseconds"] for row in written[:4]] == ["2.0", "20.0", "2.0", "5.0"]


def test_without_other_libraries_there_is_no_ratio():
    text = second.table({SMALL: {("minilstm", "gradient"): [2.0], ("minilstm", "second"): [5.0]}})
    assert text.splitlines()[2].split("|")[1:-1][-2].strip() == "-"
