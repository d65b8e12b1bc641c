"""scipy's Lanczos finds the eigenvalues that NumPy finds in the whole matrix, and that the power iteration finds."""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close

sys.path.insert(0, str(Path(__file__).parents[2]))
from experiments import curvature, eigenvalues

pytestmark = pytest.mark.interop


def test_lanczos_is_chosen_and_finds_what_the_power_iteration_finds(monkeypatch):
    assert eigenvalues.method() == "lanczos"
    task = curvature.TASKS["sunspots"](1)
    points = [curvature.measure(task, task.params, 0, count=2)]
    monkeypatch.setattr(eigenvalues, "method", lambda: "power_iteration")
    points.append(curvature.measure(task, task.params, 0, count=2))
    assert_close(points[0].eigenvalues, points[1].eigenvalues, 1e-4)
    assert points[0].alignment == pytest.approx(points[1].alignment, abs=1e-3)
    assert points[0].eigenvalues[0] > points[0].eigenvalues[1] > 0


@pytest.mark.parametrize("values", [(3, 2, -5, 1, 0, -1), (-1, -2, -3, -4, -5, -6)])
def test_lanczos_takes_the_largest_with_its_sign(values):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    matrix = basis @ np.diag(values) @ basis.T
    found, vectors = eigenvalues.largest(lambda v: matrix @ v, 6, 2)
    assert_close(found, sorted(values, reverse=True)[:2], 1e-9)
    assert abs(basis[:, 0] @ vectors[:, 0]) == pytest.approx(1)


def test_a_product_that_is_not_finite_is_refused():
    with pytest.raises(FloatingPointError, match="largest: product returned a number that is not finite"):
        eigenvalues.largest(lambda v: v * np.nan, 4, 1)
