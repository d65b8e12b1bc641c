"""The experiment on curvature: its eigenvalues are those of a dense Hessian, its runs, its files."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close

from minilstm import LSTM, Dense, Sequential, hessian_vector_product, value_and_grad
from minilstm.params import tree_map

sys.path.insert(0, str(Path(__file__).parent.parent))
from experiments import curvature, eigenvalues
from experiments.curvature import CLIPPED, UNCLIPPED, Task

FILES = {"config.json", "results.json", "history.csv", "curvature.png"}


@pytest.fixture(autouse=True)
def numpy_alone(monkeypatch):
    monkeypatch.setenv("MINILSTM_COMPILED", "0")
    monkeypatch.setattr(eigenvalues, "method", lambda: "power_iteration")


def tiny(backprop="fast", units=2):
    """A model of 35 parameters on 5 steps, as a task."""
    rng = np.random.default_rng(3)
    model = Sequential(LSTM(units, backprop=backprop), Dense(1))
    params = tree_map(lambda w: rng.normal(0, 0.7, w.shape), model.init(0, input_dim=1, dtype=np.float64))
    batch = rng.normal(size=(4, 5, 1)), rng.normal(size=(4, 5, 1))
    return Task(model, params, lambda step: batch, batch, learning_rate=0.125, momentum=0.0, clip_norm=0.01)


def dense_hessian(task, step=1e-5):
    """Central differences of the gradient of autograd's trace: no second derivative of ours."""
    vector = eigenvalues.flat(task.params)

    def gradient(at):
        return eigenvalues.flat(value_and_grad(task.loss)(eigenvalues.as_tree(at, task.params), *task.measured)[1])

    moves = step * np.eye(vector.size)
    return np.stack([(gradient(vector + move) - gradient(vector - move)) / (2 * step) for move in moves])


def matrix_with(values, seed=0):
    """A symmetric matrix with these eigenvalues, and the eigenvector of the first."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return basis @ np.diag(values) @ basis.T, basis[:, 0]


def test_a_point_has_the_eigenvalues_of_the_dense_hessian_and_its_alignment():
    traced = tiny("autograd")
    values, vectors = np.linalg.eigh(dense_hessian(traced))
    assert values[0] < -0.01  # a saddle: the sign of an eigenvalue matters
    point = curvature.measure(tiny(), tiny().params, 7, count=3)
    assert point.step == 7
    assert_close(point.eigenvalues, values[:-4:-1], 1e-5)
    loss, grads = value_and_grad(traced.loss)(traced.params, *traced.measured)
    gradient = eigenvalues.flat(grads)
    assert point.loss == pytest.approx(float(loss))
    assert point.grad_norm == pytest.approx(np.linalg.norm(gradient))
    assert point.alignment == pytest.approx(abs(gradient @ vectors[:, -1]) / np.linalg.norm(gradient), abs=2e-3)
    assert 0.05 < point.alignment < 0.999


MANY_NEGATIVE = (3, 2, *range(-12, -4))


@pytest.mark.parametrize("values", [MANY_NEGATIVE, (3, 2, -5, 1, 0, -1), (3, 2, 1, 0.5, 0, 0.1), (-1, -2, -3, -4, -5)])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_largest_eigenvalue_is_the_largest_with_its_sign(values, count):
    matrix, vector = matrix_with(values)
    found, vectors = eigenvalues.power_iteration(lambda v: matrix @ v, len(values), count)
    assert_close(found, sorted(values, reverse=True)[:count], 1e-5)
    assert abs(vector @ vectors[:, 0]) == pytest.approx(1, abs=1e-5)
    assert vectors.shape == (len(values), count)


def test_a_vector_becomes_a_tree_and_back():
    params = tiny().params
    vector = np.arange(eigenvalues.flat(params).size, dtype=float)
    tree = eigenvalues.as_tree(vector, params)
    np.testing.assert_array_equal(eigenvalues.flat(tree), vector)
    product = hessian_vector_product(tiny().loss)(params, tree, *tiny().measured)[2]
    assert tree_map(np.shape, product) == tree_map(np.shape, params)


@pytest.mark.parametrize("count", [0, 4])
def test_a_count_that_the_matrix_has_not_is_refused(count):
    with pytest.raises(ValueError, match=r"largest: count must be in 1 \.\. 3, as the matrix has 4 rows, got"):
        eigenvalues.largest(lambda v: v, 4, count)


def test_products_that_are_not_finite_and_searches_without_an_end_are_refused(monkeypatch):
    with pytest.raises(FloatingPointError, match="largest: product returned a number that is not finite"):
        eigenvalues.largest(lambda v: v * np.nan, 4, 1)
    monkeypatch.setattr(eigenvalues, "SWEEPS", 2)
    matrix, _ = matrix_with(np.linspace(1, 2, 40))
    with pytest.raises(RuntimeError, match="power_iteration: after 2 sweeps"):
        eigenvalues.power_iteration(lambda v: matrix @ v, 40, 1)


def test_a_run_takes_the_steps_of_gradient_descent_with_clipping_and_without():
    task = tiny()
    for clip, most in ((False, np.inf), (True, task.clip_norm)):
        params = task.params
        losses = []
        for _ in range(4):
            _, grads = value_and_grad(task.loss)(params, *task.measured)
            factor = min(1.0, most / np.linalg.norm(eigenvalues.flat(grads)))
            assert (factor < 1) == clip
            params = tree_map(lambda w, g, factor=factor: w - task.learning_rate * factor * g, params, grads)
            losses.append(float(task.loss(params, *task.measured)))
        points = curvature.follow(task, 4, 2, clip, count=1).points
        assert [point.step for point in points] == [0, 2, 4]
        assert_close([point.loss for point in points[1:]], losses[1::2], 1e-12)


@pytest.mark.filterwarnings("ignore:fit. the gradient's norm")
def test_a_run_that_diverges_says_so_and_keeps_its_points():
    trace = curvature.follow(tiny()._replace(learning_rate=lambda step: 1e38), 40, 2, False, count=1)
    assert "is not finite" in trace.ended or "fit: the loss is" in trace.ended
    assert trace.points[0].step == 0
    assert "ended" in curvature.summary(trace)
    assert not curvature.follow(tiny(), 2, 2, False, count=1).ended


def test_faults_other_than_divergence_are_not_swallowed():
    with pytest.raises(ValueError, match="largest: count must be in"):
        curvature.follow(tiny(), 2, 2, False, count=400)


@pytest.fixture
def small(monkeypatch):
    """Fewer windows, sequences and units, for a test of the files."""
    monkeypatch.setattr(curvature.sunspots, "LAST_TRAINING_YEAR", 1735)
    for name, value in (("MEASURED_SEQUENCES", 10), ("UNITS", 2), ("LENGTH", 6)):
        monkeypatch.setattr(curvature, name, value)


def test_the_experiment_writes_its_files(tmp_path, small):
    printed = []
    flags = ["--out", str(tmp_path), "--steps", "4", "--every", "2", "--count", "1", "--clip-norm", "0.02"]
    results = curvature.main(flags, report=printed.append)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert results["method"] == "power_iteration"
    assert results["sunspots"]["stable_below"] == 4
    assert results["adding"]["stable_below"] == pytest.approx(2 * 1.9 / 0.3)
    with open(tmp_path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    runs = [(name, label) for name in ("sunspots", "adding") for label in (UNCLIPPED, CLIPPED)]
    assert [(row["task"], row["clipping"], row["step"]) for row in rows] == [
        (*run, str(step)) for run in runs for step in (0, 2, 4)
    ]
    for name, label in runs:
        own = [row for row in rows if (row["task"], row["clipping"]) == (name, label)]
        found = results[name][label.replace(" ", "_")]
        assert found["loss"] == float(own[-1]["loss"])
        assert found["largest_of_all"] == max(float(row["eigenvalue_1"]) for row in own)
        assert f"{name}, {label}" in printed[0]
        assert 0 <= found["alignment_at_end"] <= 1
    assert rows[0]["loss"] == rows[3]["loss"]
    assert rows[2]["loss"] != rows[5]["loss"]


def test_one_task_can_have_another_learning_rate(tmp_path, small):
    flags = ["--out", str(tmp_path), "--steps", "2", "--every", "2", "--tasks", "sunspots", "--learning-rate", "0.2"]
    results = curvature.main([*flags, "--quiet"], report=pytest.fail)
    assert results["sunspots"]["stable_below"] == 10
    assert "adding" not in results
