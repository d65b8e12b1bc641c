"""The tables of docs/experiments.md come from the results of finished runs."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from experiments import gallery, notebook

ROOT = Path(__file__).parent.parent
TASK = {
    "settings": [
        {
            "length": length,
            "forget_bias": forget_bias,
            "scores": {"test_mse": mse, "baseline_mse": 1 / 6},
            "by_seed": {"0": {}, "1": {}},
        }
        for length, forget_bias, mse in ((100, 1.0, 0.002), (200, 0.0, 0.05))
    ]
}
SPAN_SCORES = {"1921-1955": 0.1, "1956-1979": 0.4, "1980-2008": 0.2}
SUNSPOTS = {"arv": {"ar12": {"1921-1955": 0.13, "1956-1979": 0.37, "1980-2008": 0.2}, "ensemble": SPAN_SCORES},
            "lstm_median": SPAN_SCORES}  # fmt: skip
BESIDE_PYTORCH = {
    "test_mse": 0.0003, "torch_test_mse": 0.0004, "seconds": 12.0, "torch_seconds": 20.0, "runs": {"a": {}},
}  # fmt: skip
CHARACTERS_BESIDE_PYTORCH = {
    "bits_per_character": {"minilstm": 1.97, "torch": 1.96}, "seconds": {"minilstm": 130.0, "torch": 100.0},
}  # fmt: skip
CHARACTERS = {"bits_per_character": {"lstm": 2.1, "unigram": 4.8, "trigram": 2.9}}


def write_run(folder, command, results):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"command": command, "date": "2026-01-31"}))
    (folder / "results.json").write_text(json.dumps(results))


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- begin: gallery -->\nold\n<!-- end: gallery -->\nafter\n")
    return path


def test_the_page_holds_numbers_baselines_commands_and_dates(tmp_path, page):
    runs = tmp_path / "runs"
    write_run(runs / "b", "python -m experiments.adding --resume --length 100 200 --out 'a b' --quiet", TASK)
    write_run(runs / "a", "python -m experiments.char_lm", CHARACTERS)
    write_run(runs / "c", "python -m experiments.sunspots --seeds 5", SUNSPOTS)
    write_run(runs / "d", "python -m experiments.adding_torch --symmetric", BESIDE_PYTORCH)
    write_run(runs / "e", "python -m experiments.char_lm_torch", CHARACTERS_BESIDE_PYTORCH)
    said = []
    gallery.main(["--runs", str(runs), "--page", str(page)], report=said.append)
    text = page.read_text()
    assert text.startswith("before\n<!-- begin: gallery -->\n|")
    assert text.endswith("|\n<!-- end: gallery -->\nafter\n")
    assert "old" not in text
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["adding", "test MSE, median of 2, length 200, forget bias 0", "0.05", "0.167", "no memory"] in cells
    assert ["sunspots", "relative variance 1956-1979, LSTM, median of seeds", "0.4", "0.37", "AR(12)"] in cells
    assert ["char_lm", "bits per held-out character", "2.1", "2.9", "trigram"] in cells
    assert ["adding_torch", "test MSE, one seed", "0.0003", "0.0004", "PyTorch"] in cells
    assert ["char_lm_torch", "wall time, s", "130", "100", "PyTorch"] in cells
    assert ["adding", "`python -m experiments.adding --length 100 200`", "2026-01-31"] in cells


def test_folders_without_a_finished_run_are_named(tmp_path, page):
    runs = tmp_path / "runs"
    write_run(runs / "good", "python -m experiments.char_lm", CHARACTERS)
    write_run(runs / "other", "python -m experiments.benchmark", {})
    (runs / "unfinished").mkdir()
    said = []
    gallery.main(["--runs", str(runs), "--page", str(page)], report=said.append)
    assert [line for line in said if "other" in line and "left out" in line]
    assert [line for line in said if "unfinished" in line and "left out" in line]


def test_without_any_run_the_page_stays_as_it_is(tmp_path, page):
    before = page.read_text()
    (tmp_path / "runs").mkdir()
    with pytest.raises(SystemExit, match="no finished run"):
        gallery.main(["--runs", str(tmp_path / "runs"), "--page", str(page)], report=lambda line: None)
    assert page.read_text() == before


def test_wrong_results_raise_an_error_that_names_them(tmp_path):
    write_run(tmp_path / "run", "python -m experiments.sunspots", CHARACTERS)
    with pytest.raises(ValueError, match=r"run/results\.json: not the results of sunspots: no 'arv'"):
        gallery.read_run(tmp_path / "run")


def test_a_real_run_is_read(tmp_path, monkeypatch):
    out = tmp_path / "notebook"
    for draw in ("draw_notebook", "draw_thread"):  # pictures have no numbers, and take a second
        monkeypatch.setattr(notebook, draw, lambda path: None)
    notebook.main(["--out", str(out), "--quiet"])
    run = gallery.read_run(out)
    assert run.command == "python -m experiments.notebook"
    assert [one.baseline > one.ours for one in run.headlines] == [True] * 4


def test_the_committed_page_has_the_markers():
    text = (ROOT / "docs" / "experiments.md").read_text()
    assert text.count("<!-- begin: gallery -->") == text.count("<!-- end: gallery -->") == 1
