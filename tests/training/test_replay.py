"""Guards: an exploding gradient is told of, a number that is not finite stops the run and can be looked at again."""

import re
import subprocess
import sys
import warnings

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import assert_trees_equal
from test_resume import contents

from minilstm import (
    LSTM,
    RNN,
    SGD,
    Dense,
    Dropout,
    DropoutWrapper,
    Embedding,
    LSTMCell,
    Sequential,
    fit,
    latest_checkpoint,
    load_checkpoint,
    losses,
    tbptt,
    value_and_grad,
)
from minilstm.cli import main
from minilstm.params import flatten_names
from minilstm.training import loop

RNG = np.random.default_rng(9)
INPUTS = RNG.normal(size=(6, 8, 2)).astype(np.float32)
TARGETS = INPUTS[..., :1] * np.float32(0.5)
CELL = DropoutWrapper(LSTMCell(3), output_keep_prob=0.8)
MODEL = Sequential(RNN(CELL), Dropout(0.2), Dense(1))
PARAMS = MODEL.init(0, 2)
HUGE = np.float32(1e25)  # its square is no float32


def batches(bad, factor=HUGE, key="targets"):
    """A callable source whose batch of the step `bad` is out of all proportion."""

    def data(step):
        batch = {"inputs": INPUTS, "targets": TARGETS}
        return {**batch, key: batch[key] * factor} if step == bad else batch

    return data


def run(directory, data, **options):
    options = {"optimizer": SGD(0.1), "epochs": 3, "steps_per_epoch": 3, "seed": 4, **options}
    with np.errstate(all="ignore"):
        return fit(MODEL, PARAMS, losses.mse, data, checkpoint_dir=directory, **options)


def stopped(directory, data, **options):
    """The message of a run that met a number that is not finite."""
    with pytest.raises(FloatingPointError) as caught:
        run(directory, data, **options)
    return str(caught.value)


# --- what the error says, and what it leaves ------------------------------------------------------------------


def test_a_loss_names_step_and_epoch_and_how_to_replay(run_dir):
    message = stopped(run_dir, batches(5))
    assert message.startswith("fit: the loss is inf at step 5 (epoch 2); try a smaller learning_rate or clip_norm. ")
    assert f"Checkpoints already in {str(run_dir)!r} are untouched" in message
    assert message.endswith(f"replay the step with: minilstm replay {run_dir / 'failed-5'}")
    assert load_checkpoint(run_dir).step == 3


def test_a_gradient_names_the_step_and_the_first_parameter(run_dir):
    """The loss is finite: its derivative is not."""
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError) as caught:
        fit(
            params={"a": np.ones(2), "deep": {"b": np.zeros(2), "c": np.zeros(1)}}, data=[{"x": INPUTS}] * 3,
            loss_fn=lambda p, batch, state, rng: (anp.sum(p["a"]) + anp.sum(anp.sqrt(p["deep"]["b"])), state),
            optimizer=SGD(1e-9), epochs=1, steps_per_epoch=3, checkpoint_dir=run_dir,
        )  # fmt: skip
    message = str(caught.value)
    assert message.startswith("fit: the gradient of deep/b is not finite at step 0 (epoch 1)")
    assert "replay" not in message  # a user's own function cannot be stored
    assert not run_dir.exists()


def test_what_was_saved_stays_and_the_run_resumes_once_the_cause_is_gone(run_dir):
    stopped(run_dir, batches(5), checkpoint_every=1)
    before = contents(run_dir)
    assert latest_checkpoint(run_dir) == str(run_dir / "model.ckpt-5")  # not the failed one
    rest = run(run_dir, batches(None), resume=True, checkpoint_every=1, max_to_keep=None)
    after = contents(run_dir)
    assert {name: after[name] for name in before if name.startswith(("failed", "model.ckpt-5"))} == {
        name: content for name, content in before.items() if name.startswith(("failed", "model.ckpt-5"))
    }
    assert_trees_equal(rest.params, run(None, batches(None)).params)


def test_a_run_that_fails_at_once_leaves_the_dump_alone(run_dir):
    stopped(run_dir, batches(0))
    assert {name.partition(".")[0] for name in contents(run_dir)} == {"failed-0"}
    assert latest_checkpoint(run_dir) is None
    run(run_dir, batches(None))  # it is no run that would have to be resumed


def test_without_a_directory_nothing_is_said_of_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = stopped(None, batches(2))
    assert message == "fit: the loss is inf at step 2 (epoch 1); try a smaller learning_rate or clip_norm"
    assert not any(tmp_path.iterdir())


def test_a_loss_of_ones_own_is_stopped_without_a_dump(run_dir):
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError) as caught:
        fit(MODEL, PARAMS, lambda o, y, w=None: losses.mse(o, y, w) * np.inf, (INPUTS, TARGETS), optimizer=SGD(0.1),
            epochs=1, checkpoint_dir=run_dir)  # fmt: skip
    assert "replay" not in str(caught.value)
    assert not run_dir.exists() or not contents(run_dir)


def test_the_parameters_of_the_failed_step_are_those_before_it(run_dir):
    stopped(run_dir, batches(5))
    kept = load_checkpoint(run_dir / "failed-5")
    assert_trees_equal(kept.params, run(None, batches(None), epochs=1, steps_per_epoch=5).params)
    assert kept.step == 5
    assert kept.model.config() == MODEL.config()


# --- minilstm replay ------------------------------------------------------------------------------------------


def report(capsys, prefix):
    """What `minilstm replay` prints: (first line, {name: rest of its line})."""
    assert main(["replay", str(prefix)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, *lines = out.splitlines()
    return first, dict(line.strip().split(": ", 1) for line in lines)


def test_it_prints_where_the_numbers_are_not_finite(run_dir, capsys):
    stopped(run_dir, batches(5))
    first, lines = report(capsys, run_dir / "failed-5")
    assert first == "step 5: loss inf"
    names = flatten_names(PARAMS)
    wanted = {f"{kind} {name}" for kind in ("parameter", "gradient of") for name in names}
    assert set(lines) == {"inputs", "targets", *wanted}
    assert lines["targets"] == f"largest {np.abs(TARGETS * HUGE).max():.3g}"
    assert not any("NOT FINITE" in line for name, line in lines.items() if not name.startswith("gradient"))


@pytest.mark.parametrize("kind", ["numbers", "labels"])
def test_it_counts_what_is_not_finite_also_where_the_loss_is(kind, run_dir, capsys):
    """All outputs are 0 and so is the loss's trouble; but what comes back through 1e20 twice is no float32."""
    if kind == "numbers":
        model, data, loss = Sequential(LSTM(3), Dense(2), Dense(1)), (INPUTS, TARGETS), losses.mse
    else:
        labels = RNG.integers(0, 5, size=(6, 8))
        data = {"inputs": labels, "targets": labels, "weights": np.ones((6, 8)), "sequence_length": np.full(6, 7)}
        model, loss = Sequential(Embedding(5, 2), LSTM(3), Dense(2), Dense(5)), losses.softmax_cross_entropy
    params = model.init(0, 2)
    params["rnn"]["lstm_cell"]["kernel"][:] = 0
    for name in ("dense", "dense_1"):
        params[name]["kernel"][:] = 1e20 * np.arange(1, 1 + params[name]["kernel"].shape[1])
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError) as caught:
        fit(model, params, loss, data, optimizer=SGD(0.1), epochs=1, checkpoint_dir=run_dir)
    bad = {"gradient of rnn/lstm_cell/kernel", "gradient of rnn/lstm_cell/bias"}
    bad |= {"gradient of embedding/embeddings"} if kind == "labels" else set()
    message = r"fit: the (.*) is not finite at step 0 \(epoch 1\).*minilstm replay (\S*failed-0)"
    found = re.fullmatch(message, str(caught.value))
    assert found, caught.value
    assert found[1] in bad
    first, lines = report(capsys, found[2])
    value = float(first.removeprefix("step 0: loss "))
    assert value == pytest.approx(np.log(5) if kind == "labels" else np.mean(TARGETS**2), rel=1e-6)
    assert {name for name, line in lines.items() if "NOT FINITE" in line} == bad
    order = np.random.default_rng([0, 1, 0]).permutation(6)
    with np.errstate(all="ignore"):
        if kind == "numbers":
            step = lambda p: losses.mse(model(p, INPUTS[order]), TARGETS[order])  # noqa: E731
        else:
            step = lambda p: loss(model(p, labels[order], sequence_length=np.full(6, 7)), labels[order])  # noqa: E731
        bias = value_and_grad(step)(params)[1]["rnn"]["lstm_cell"]["bias"]
    count = np.sum(~np.isfinite(bias))
    assert count > 0
    assert lines["gradient of rnn/lstm_cell/bias"].endswith(f", {count} of 12 NOT FINITE")
    assert lines["parameter dense_1/kernel"] == f"largest {params['dense_1']['kernel'].max():.3g}"


KEPT = {
    "plain": ({"inputs": INPUTS, "targets": TARGETS}, {"batch_size": 3}),
    "windows": ({"inputs": INPUTS, "targets": TARGETS}, {"tbptt": tbptt(3, 5), "batch_size": 6}),
    "lengths": ({"inputs": INPUTS, "targets": TARGETS, "sequence_length": np.full(6, 5)}, {"batch_size": 3}),
    "weights": ({"inputs": INPUTS, "targets": TARGETS, "weights": np.arange(48).reshape(6, 8)}, {"batch_size": 3}),
}


@pytest.mark.parametrize("kind", KEPT)
def test_it_runs_the_very_step_again_with_its_masks_and_state(kind, run_dir, capsys, monkeypatch):
    """A finite step that is made to fail: what replay computes are the numbers of the run, to the last bit."""
    seen, original = [], loop.global_norm

    def norm(grads):
        seen.append(grads)
        return np.nan if len(seen) == 6 else original(grads)

    monkeypatch.setattr(loop, "global_norm", norm)
    monkeypatch.setattr(loop, "flatten_names", lambda tree: {"w": np.array(np.nan)})
    data, options = KEPT[kind]
    with pytest.raises(FloatingPointError, match=r"gradient of w is not finite at step 5"):
        fit(MODEL, PARAMS, losses.mse, data, optimizer=SGD(0.1), epochs=3, seed=4,
            checkpoint_dir=run_dir, **options)  # fmt: skip
    _, lines = report(capsys, run_dir / "failed-5")
    for name, grad in flatten_names(seen[5]).items():
        assert lines[f"gradient of {name}"] == f"largest {np.abs(grad).max():.3g}"
    kept = load_checkpoint(run_dir / "failed-5")
    assert any(name.startswith("minilstm/failed/state/") for name in kept.others) == (kind == "windows")


def test_the_command_works_in_a_shell_of_its_own(run_dir):
    stopped(run_dir, batches(5))
    command = [sys.executable, "-m", "minilstm", "replay", str(run_dir / "failed-5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("step 5: loss inf\n")


def test_it_refuses_what_is_no_failed_step(run_dir, capsys):
    run(run_dir, batches(None), epochs=1)
    prefix = latest_checkpoint(run_dir)
    assert main(["replay", prefix]) == 2
    assert capsys.readouterr().err == f"minilstm replay: {prefix} holds no failed step of fit\n"
    assert main(["replay", str(run_dir / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


# --- exploding gradients --------------------------------------------------------------------------------------


def test_an_exploding_gradient_is_told_of_once_and_the_run_goes_on():
    with pytest.warns(RuntimeWarning, match=r"fit: the gradient's norm at step 4 is \S+e\+0\d") as caught:
        result = run(None, batches(4, np.float32(1e6)), optimizer=SGD(1e-12))
    assert result.step == 9
    assert len(caught) == 1
    message = str(caught[0].message)
    assert message.endswith("times the mean of its epoch; clip_norm would bound it")
    assert caught[0].filename == __file__ or caught[0].filename.endswith("test_replay.py")  # the call of fit


def test_the_warning_has_the_norm_and_how_many_times_the_mean_it_is():
    usual = run(None, batches(None), optimizer=SGD(1e-12), epochs=2, steps_per_epoch=4).history["grad_norm"][1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = run(None, batches(7, np.float32(1e6)), optimizer=SGD(1e-12), epochs=2, steps_per_epoch=4).history
    norm, times = re.search(r"norm at step 7 is (\S+), (\S+) times the mean", str(caught[0].message)).groups()
    assert float(norm) == pytest.approx(4 * history["grad_norm"][1], rel=0.01)  # the other three are too small to see
    assert float(times) == pytest.approx(float(norm) / usual, rel=0.3)  # dropout makes every step's norm another


@pytest.mark.parametrize(("bad", "factor"), [(4, 300), (3, 1e6), (0, 1e6)])
def test_no_warning_below_a_thousand_times_and_at_the_first_step_of_an_epoch(bad, factor):
    run(None, batches(bad, np.float32(factor)), optimizer=SGD(1e-12))  # a warning would be an error
