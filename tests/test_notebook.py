"""The experiment that compares the printed numbers of two documents with ours."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from experiments import notebook, notebook_figures


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run: (folder, what main returned, what it printed)."""
    out = tmp_path_factory.mktemp("notebook")
    printed = []
    results = notebook.main(["--out", str(out)], report=printed.append)
    return out, results, "\n".join(printed)


def test_every_print_with_known_weights_is_compared_and_agrees():
    found = notebook.comparisons()
    assert len(found) == len(notebook_figures.FIRST_STEP) + len(notebook_figures.SECOND_STEP) + 3 + 2
    for one in found:
        assert 0 < one.difference <= one.tolerance, one.what  # 0 would be a comparison with itself


def test_results_count_the_agreements_and_show_the_effect_of_the_forget_bias(finished):
    out, results, printed = finished
    assert json.loads((out / "results.json").read_text()) == results
    assert results["agree"] == results["compared"] == 16
    gaps = list(results["without_forget_bias"].values())
    assert gaps[0] < 1e-7
    assert min(gaps[1:]) > 0.02
    assert "16 of 16 arrays agree" in printed


def test_the_table_holds_every_printed_number_beside_ours(finished):
    out, _, printed = finished
    with open(out / "notebook.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16 * 21 - 3  # the last row of one print was cut off
    first = next(row for row in rows if row["what"] == "forget gate f step 1")
    assert first["printed"] == "0.73197675"
    assert float(first["ours"]) == pytest.approx(0.73197675, abs=6e-9)
    assert "0.73197675  0.47829704  0.14818873  |  0.73197675  0.47829704  0.14818873" in printed


def test_a_difference_is_noticed():
    one = notebook.comparisons()[0]
    wrong = one._replace(ours=one.ours + np.eye(7, 3) * 1e-7)
    assert wrong.difference == pytest.approx(1e-7, rel=0.1)
    assert "largest difference 1.0e-07" in notebook.side_by_side(wrong)


def test_the_pictures_are_drawn(finished):
    for name in ("gates.png", "forget_bias.png"):
        data = (finished[0] / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 20_000


def test_quiet_prints_nothing_and_config_has_the_versions(tmp_path, monkeypatch):
    for draw in ("draw_notebook", "draw_thread"):
        monkeypatch.setattr(notebook, draw, lambda path: None)
    printed = []
    notebook.main(["--out", str(tmp_path / "run"), "--quiet"], report=printed.append)
    assert not printed
    assert json.loads((tmp_path / "run" / "config.json").read_text())["versions"]["numpy"] == np.__version__
