"""Copy memory: the task, its baseline, a short run."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from minilstm import load_checkpoint, losses

sys.path.insert(0, str(Path(__file__).parent.parent))
from experiments import copying, tasks_memory
from experiments.tasks_memory import Run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run: (folder, what main returned, what it printed)."""
    out = tmp_path_factory.mktemp("copying")
    printed = []
    flags = ["--length", "5", "--epochs", "3", "--units", "16"]
    results = copying.main(["--out", str(out), *flags], report=printed.append)
    return out, results, "\n".join(printed)


@pytest.mark.parametrize("length", [1, 6])
def test_the_ten_symbols_are_repeated_after_the_marker(length):
    inputs, labels = copying.batch(np.random.default_rng(0), 200, length)
    assert inputs.shape == (200, length + 20, 10)
    assert inputs.dtype == np.float32
    assert (inputs.sum(axis=-1) == 1).all()
    read = inputs.argmax(axis=-1)
    assert set(np.unique(read[:, :10])) == set(range(1, 9))
    assert (read[:, 10 : 9 + length] == 0).all()
    assert (read[:, 9 + length] == 9).all()
    assert (read[:, 10 + length :] == 0).all()
    assert read[:, 10 + length :].shape[1] == 10
    assert (labels[:, : length + 10] == 0).all()
    np.testing.assert_array_equal(labels[:, length + 10 :], read[:, :10])


@pytest.mark.parametrize("length", [5, 100])
def test_the_baseline_is_reached_without_memory_and_beaten_with_it(length):
    _, labels = copying.batch(np.random.default_rng(0), 4000, length)
    certain = 50.0
    logits = np.zeros((*labels.shape, 9))
    logits[..., 0] = certain  # blanks ...
    logits[:, -10:, 0] = -certain  # ... and equal chances for the eight symbols
    found = copying.scores(logits, labels)
    assert found["test_cross_entropy"] == pytest.approx(copying.TASK.baseline(length), rel=1e-6)
    assert found["test_recall"] == pytest.approx(1 / 8, abs=0.01)
    assert copying.scores(certain * np.eye(9)[labels], labels)["test_recall"] == 1
    assert copying.scores(certain * np.eye(9)[labels], labels)["test_cross_entropy"] < 1e-9


def test_the_baseline_at_delay_100_is_the_published_one():
    assert copying.TASK.baseline(100) == pytest.approx(0.1733, abs=5e-5)


def test_a_run_writes_its_files(finished):
    out, results, printed = finished
    wanted = {"config.json", "history.csv", "results.json", "curves.png", "checkpoint"}
    assert {path.name for path in out.iterdir() if not path.name.startswith("model.ckpt-")} == wanted
    assert json.loads((out / "results.json").read_text()) == results
    assert json.loads((out / "config.json").read_text())["settings"]["forget_bias"] == ["chrono"]
    assert results["memoryless"] == pytest.approx(10 * np.log(8) / 25)
    assert results["test_cross_entropy"] < 0.5 * np.log(9)  # blanks are learned first
    assert "recall" in printed


def test_the_checkpoint_scores_without_the_script(finished):
    out, results, _ = finished
    loaded = load_checkpoint(out)
    inputs, labels = tasks_memory.test_data(copying.TASK, Run(**loaded.extra))
    outputs = loaded.model(loaded.params, inputs[:500])
    part = losses.softmax_cross_entropy(outputs, labels[:500])
    assert part == pytest.approx(results["test_cross_entropy"], rel=0.05)
    assert loaded.model.layers[0].cell.bias_initializer.max_time == 25  # all steps of a sequence


def test_the_default_chrono_can_be_changed(tmp_path):
    flags = ["--length", "2", "--epochs", "1", "--units", "4", "--forget-bias", "1", "--quiet"]
    results = copying.main(["--out", str(tmp_path), *flags])
    assert results["settings"][0]["forget_bias"] == 1.0
    assert load_checkpoint(tmp_path).model.layers[0].cell.forget_bias == 1
