"""The benchmark beyond the plain cell: every case is what its name says, and the tables are correct."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_trees_equal

from minilstm import Bidirectional, DropoutWrapper, Embedding, GRUCell, LSTMCell, MultiRNNCell, ResidualWrapper

sys.path.insert(0, str(Path(__file__).parents[1]))
from experiments.benchmark import breadth, breadth_cases
from experiments.benchmark.breadth_cases import CASES, TENSORFLOW, Case, minilstm_model, step_of


@pytest.fixture(autouse=True)
def numpy_alone(monkeypatch):
    monkeypatch.setenv("MINILSTM_COMPILED", "0")


def test_there_are_twenty_cases_and_each_has_a_rival():
    assert len(CASES) == 20
    assert all(case.peers and set(case.peers) <= {"torch", TENSORFLOW} for case in CASES.values())


def test_models_are_what_the_names_say():
    cell = {name: getattr(minilstm_model(name).layers[0], "cell", None) for name in CASES}
    assert isinstance(cell["GRU"], GRUCell)
    assert cell["projection to half"].num_proj == 64
    assert cell["peepholes"].use_peepholes
    assert cell["cell_clip"].cell_clip == 3
    assert isinstance(cell["output and state dropout"], DropoutWrapper)
    assert isinstance(cell["three residual cells"], MultiRNNCell)
    assert [type(inner) for inner in cell["three residual cells"].cells] == [ResidualWrapper] * 3
    assert isinstance(minilstm_model("bidirectional").layers[0], Bidirectional)
    assert not minilstm_model("last output").layers[0].return_sequences
    letters = minilstm_model("two layers, 96 letters").layers
    assert isinstance(letters[0], Embedding)
    assert (letters[0].vocabulary, letters[-1].units, len(letters)) == (96, 96, 4)
    assert type(cell["1024 units"]) is LSTMCell
    assert cell["1024 units"].units == 1024


@pytest.mark.parametrize("name", CASES)
def test_every_case_makes_its_step(name, monkeypatch):
    """At a small size; each step changes the loss's parameters, and prediction returns outputs."""
    monkeypatch.setitem(CASES, name, Case((6, 3, 4, 4), CASES[name].peers))
    step = step_of("minilstm", name)
    results = [step() for _ in range(3)]
    if name == "predict":
        assert results[0].shape == (3, 6, 1)
    batches = breadth_cases.batches(name)
    first, again = (next(batches) for _ in range(2))
    assert not np.array_equal(first[0], again[0])
    assert (first[2] is not None) == name.startswith("lengths")
    assert first[0].dtype.kind == ("i" if breadth_cases.reads_words(name) else "f")
    assert (first[0].dtype == np.float64) == (name == "float64")


def test_random_sizes_come_from_the_seed_and_stay_in_their_ranges():
    shapes = breadth.random_shapes(3, 12)
    assert shapes == breadth.random_shapes(3, 12)
    assert shapes != breadth.random_shapes(4, 12)
    assert len(shapes) == 12
    for time, batch, inputs, units in shapes:
        assert 10 <= time <= 400
        assert 1 <= batch <= 256
        assert 1 <= inputs <= 300
        assert 8 <= units <= 700


ANSWERS = {"minilstm": 3.0, "minilstm, compiled": 2.0, "torch": 4.0, "jax": 5.0, TENSORFLOW: 6.0}


class Stub:
    """A worker that answers with fixed numbers."""

    def __init__(self, peer):
        self.peer = peer

    def do(self, job):
        return ANSWERS[self.peer] * (2 if job == ("breadth", ["GRU"]) else 1)


def test_the_tables_have_the_better_round_and_the_ratios_to_the_fastest_other(tmp_path, capsys):
    turns = iter([1, 1, 1, 1, 2, 2, 2, 2] * 2)

    @contextlib.contextmanager
    def worker(peer):
        stub, slower = Stub(peer), next(turns, 1)
        yield type("Slower", (), {"do": lambda self, job: stub.do(job) * slower})()

    present = [*breadth.peers_of_breadth()]
    times = breadth.measure(worker, present, 2, ["GRU", "peepholes"], [(20, 2, 1, 8)])
    assert list(times["peepholes"]) == ["minilstm", "minilstm, compiled", TENSORFLOW]
    assert list(times["(20, 2, 1, 8)"]) == ["minilstm", "minilstm, compiled", "torch", "jax"]
    assert all(len(values) == 2 for peers in times.values() for values in peers.values())
    fixed = {name: {peer: [2 * ANSWERS[peer], ANSWERS[peer]] for peer in found} for name, found in times.items()}
    breadth.report(tmp_path, fixed, "A headline")
    text = (tmp_path / "breadth.md").read_text()
    assert text in capsys.readouterr().out + "\n"
    split = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    rows = {row[0]: row[1:] for row in split}
    assert rows["GRU"][-3:] == ["0.750", "0.500", "0.667"]
    assert rows["peepholes"][-3:] == ["0.500", "0.333", "0.667"]
    assert rows["geometric mean of 2"][-3:] == ["0.612", "0.408", "0.667"]
    assert rows["highest of 2"][-3:] == ["0.750", "0.500", "0.667"]
    assert rows["(20, 2, 1, 8)"][-3:] == ["0.750", "0.500", "0.667"]
    lines = (tmp_path / "breadth.csv").read_text().splitlines()
    assert lines[0] == "case,peer,round,milliseconds"
    assert len(lines) == 1 + 2 * (5 - 1 + 3 + 4)


def test_batches_are_the_same_for_every_peer():
    assert_trees_equal(list(next(breadth_cases.batches("GRU"))[:2]), list(next(breadth_cases.batches("GRU"))[:2]))
