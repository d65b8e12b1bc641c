"""The adding problem: the task, the runs of a command, the files, how a run resumes; and the same steps in PyTorch."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from minilstm import load_checkpoint, losses, predict

sys.path.insert(0, str(Path(__file__).parent.parent))
from experiments import adding, adding_torch, tasks_memory
from experiments.tasks_memory import Run

FILES = {"config.json", "history.csv", "results.json", "curves.png", "checkpoint"}
SHORT = ["--length", "10", "--epochs", "5"]


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """One short run: (folder, what main returned, what it printed)."""
    out = tmp_path_factory.mktemp("adding")
    (out / "results.json").write_text("of a run before")
    (out / "config.json").write_text("of a run before")
    printed = []
    results = adding.main(["--out", str(out), *SHORT], report=printed.append)
    return out, results, "\n".join(printed)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two lengths, two starts of the forget gate, two seeds: (folder, what main returned, what it printed)."""
    out = tmp_path_factory.mktemp("several")
    flags = ["--length", "4", "6", "--forget-bias", "1", "chrono", "--seeds", "2", "--seed", "3", "--epochs", "1"]
    printed = []
    results = adding.main(["--out", str(out), "--units", "3", *flags], report=printed.append)
    return out, results, "\n".join(printed)


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("length", [2, 7, 10])
def test_the_target_is_the_sum_of_two_marked_numbers_one_in_each_half(length, low):
    inputs, targets = adding.batch(np.random.default_rng(0), 500, length, low)
    numbers, marks = inputs[..., 0], inputs[..., 1]
    assert inputs.shape == (500, length, 2)
    assert inputs.dtype == targets.dtype == np.float32
    assert set(np.unique(marks)) <= {0, 1}
    half = length // 2
    for part in (marks[:, :half], marks[:, half:]):
        assert (part.sum(axis=1) == 1).all()
        assert (part.sum(axis=0) > 0).all()  # every step of each half can be marked
    assert low <= numbers.min() < low + 0.01
    assert 0.99 < numbers.max() <= 1
    np.testing.assert_allclose(targets[:, 0], [row[mark == 1].sum() for row, mark in zip(numbers, marks, strict=True)],
                               atol=1e-6)  # fmt: skip


@pytest.mark.parametrize(("symmetric", "baseline"), [(False, 1 / 6), (True, 2 / 3)])
def test_the_baseline_is_the_error_of_the_best_constant(symmetric, baseline):
    task = adding.task(symmetric)
    _, targets = task.batch(np.random.default_rng(1), 40000, 5)
    errors = (targets - (0.0 if symmetric else 1.0)) ** 2
    assert task.baseline(5) == pytest.approx(baseline)
    assert abs(errors.mean() - baseline) < 4 * errors.std() / np.sqrt(len(errors))


def test_training_validation_and_test_sequences_differ_and_depend_on_seed_and_step():
    task, run = adding.task(), Run(10, 1.0, 0)
    batches = tasks_memory.training_batches(task, run)
    drawn = [batches(0), batches(1), tasks_memory.validation_data(task, run), tasks_memory.test_data(task, run)]
    drawn.append(tasks_memory.training_batches(task, run._replace(seed=1))(0))
    firsts = [inputs[0, :, 0].tolist() for inputs, _ in drawn]
    assert len({tuple(first) for first in firsts}) == 5
    np.testing.assert_array_equal(batches(1)[0], drawn[1][0])


def test_a_run_writes_its_files_and_removes_the_old_ones(single):
    out, results, printed = single
    assert {path.name for path in out.iterdir() if not path.name.startswith("model.ckpt-")} == FILES
    assert json.loads((out / "results.json").read_text()) == results
    assert json.loads((out / "config.json").read_text())["settings"]["length"] == [10]
    for name in FILES:
        assert str(out / name) in printed


def test_a_short_sequence_is_learned_in_seconds(single):
    _, results, _ = single
    assert results["baseline_mse"] == pytest.approx(1 / 6)
    assert results["test_mse"] < 0.1 * results["baseline_mse"]


def test_the_curve_has_a_validation_loss_for_every_epoch(single):
    out, results, _ = single
    with open(out / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [100, 200, 300, 400, 500]
    assert float(rows[-1]["val_loss"]) == pytest.approx(results["test_mse"], rel=0.2)


def test_the_checkpoint_adds_without_the_script(single):
    out, results, _ = single
    loaded = load_checkpoint(out)
    assert loaded.extra == {"length": 10, "forget_bias": 1.0, "seed": 0}
    inputs, targets = tasks_memory.test_data(adding.task(), Run(**loaded.extra))
    outputs = predict(loaded.model, loaded.params, inputs)
    assert losses.mse(outputs, targets) == pytest.approx(results["test_mse"], rel=1e-5)


def test_one_command_makes_several_runs(several):
    out, results, printed = several
    settings = [(setting["length"], setting["forget_bias"]) for setting in results["settings"]]
    assert settings == [(4, 1.0), (4, "chrono"), (6, 1.0), (6, "chrono")]
    for setting in results["settings"]:
        found = [scores["test_mse"] for scores in setting["by_seed"].values()]
        assert list(setting["by_seed"]) == ["3", "4"]
        assert found[0] != found[1]
        assert setting["scores"]["test_mse"] == pytest.approx(np.mean(found))  # the median of two
        assert setting["scores"]["worst_test_mse"] == max(found)
    assert results["test_mse"] == results["settings"][0]["scores"]["test_mse"]
    assert results["settings"][0]["scores"] != results["settings"][1]["scores"]
    folders = {path.name for path in out.iterdir() if path.is_dir()}
    assert len(folders) == 8
    assert "length-6_chrono_seed-4" in folders
    assert all((out / folder / "history.csv").exists() for folder in folders)
    assert "length 6, chrono, seed 4" in printed


def test_each_of_several_runs_has_its_own_checkpoint(several):
    out, _, _ = several
    loaded = load_checkpoint(out / "length-6_chrono_seed-4")
    assert loaded.extra == {"length": 6, "forget_bias": "chrono", "seed": 4}
    cell = loaded.model.layers[0].cell
    assert cell.forget_bias == 0
    assert cell.bias_initializer.max_time == 6
    assert load_checkpoint(out / "length-6_forget-bias-1_seed-4").model.layers[0].cell.forget_bias == 1


def test_the_picture_has_a_panel_per_length_and_a_line_per_run(monkeypatch, tmp_path):
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: saved.append(figure))
    curves = {Run(length, bias, seed): [0.2, 0.1] for length in (50, 100) for bias in (1.0, 0.0) for seed in (0, 1, 2)}
    curves[Run(100, 0.0, 2)] = [0.3, 0.25]
    tasks_memory.draw(adding.task(), curves, tmp_path / "curves.png")
    (figure,) = saved
    assert [ax.get_title() for ax in figure.axes] == ["length 50", "length 100"]
    for ax in figure.axes:
        *lines, baseline = ax.get_lines()
        assert len(lines) == 6
        assert len({line.get_color() for line in lines}) == 2
        assert baseline.get_ydata()[0] == pytest.approx(1 / 6)
    assert figure.axes[1].get_lines()[5].get_xdata().tolist() == [100, 200]
    assert figure.axes[1].get_lines()[5].get_ydata().tolist() == [0.3, 0.25]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "forget bias 1", "forget bias 0", "without memory",
    ]  # fmt: skip


def test_a_resumed_run_ends_like_a_run_never_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr(tasks_memory, "STEPS_PER_EPOCH", 20)
    flags = ["--length", "4", "--units", "3", "--quiet", "--epochs", "15"]
    whole = adding.main(["--out", str(tmp_path / "a"), *flags])

    class Stopped(Exception):
        pass

    def stop(result):
        if result.step == 240:  # of 300, between two saves
            raise Stopped

    task, run = adding.task(), Run(4, 1.0, 0)
    model, params = tasks_memory.build(task, run, units=3, layers=1)
    with pytest.raises(Stopped):
        tasks_memory.train(task, run, model, params, 15, adding.DEFAULTS["learning_rate"],
                           callbacks=[stop], checkpoint_dir=tmp_path / "b", checkpoint_every=200)  # fmt: skip
    resumed = adding.main(["--out", str(tmp_path / "b"), *flags, "--resume"])
    assert resumed == whole
    texts = [(tmp_path / folder / "history.csv").read_text() for folder in "ab"]
    whole_rows, resumed_rows = ([row.rsplit(",", 1)[0] for row in text.splitlines()] for text in texts)  # no timings
    assert resumed_rows == whole_rows


def test_two_layers_also_answer_after_the_last_step():
    task, run = adding.task(), Run(6, "chrono", 0)
    model, params = tasks_memory.build(task, run, units=3, layers=2)
    assert set(params["rnn"]["multi_rnn_cell"]) == {"cell_0", "cell_1"}
    assert model(params, task.batch(np.random.default_rng(0), 5, 6)[0]).shape == (5, 1)


def test_an_impossible_length_is_refused_before_old_files_are_removed(tmp_path):
    (tmp_path / "results.json").write_text("precious")
    with pytest.raises(ValueError, match="adding: length must be at least 2, got 1"):
        adding.main(["--out", str(tmp_path), "--length", "10", "1"])
    assert (tmp_path / "results.json").read_text() == "precious"


@pytest.mark.parametrize("value", ["nan", "inf", "one"])
def test_a_forget_bias_is_a_number_or_chrono(value, capsys):
    with pytest.raises(SystemExit):
        adding.main(["--forget-bias", value])
    assert "--forget-bias" in capsys.readouterr().err


@pytest.mark.interop
@pytest.mark.parametrize("forget_bias", [1.0, "chrono"])
def test_pytorch_takes_the_same_steps(forget_bias):
    pytest.importorskip("torch")
    scores = adding_torch.compare(
        adding.task(), Run(8, forget_bias, 0), units=4, epochs=1, learning_rate=1e-3, threads=1
    )
    assert scores["torch_test_mse"] == pytest.approx(scores["test_mse"], rel=1e-3)
    assert min(scores["seconds"], scores["torch_seconds"]) > 0


@pytest.mark.interop
def test_the_comparison_with_pytorch_writes_its_results(tmp_path):
    pytest.importorskip("torch")
    printed = []
    results = adding_torch.main(["--out", str(tmp_path), "--length", "4", "--epochs", "1"], report=printed.append)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert results["ratio"] == pytest.approx(results["seconds"] / results["torch_seconds"])
    assert "| length 4, forget bias 1, seed 0 |" in "\n".join(printed)
