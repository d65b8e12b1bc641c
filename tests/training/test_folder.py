"""What happens around a run's folder: files that are lost or cut short, other files in it, a second process."""

import contextlib
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_trees_equal

import minilstm
from minilstm import LSTM, Adam, CheckpointError, Dense, Sequential, fit, load_checkpoint, losses, save_checkpoint
from minilstm.export import convert, npz
from minilstm.training import lock

RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(10, 6, 1)).astype(np.float32)
TARGETS = np.cumsum(INPUTS, axis=1) * np.float32(0.3)
MODEL = Sequential(LSTM(4), Dense(1))
PARAMS = MODEL.init(0, 1)


def run(directory=None, **options):
    options = {"optimizer": Adam(0.01), "epochs": 4, "batch_size": 4, **options}  # three steps an epoch
    return fit(MODEL, PARAMS, losses.mse, (INPUTS, TARGETS), checkpoint_dir=directory, **options)


def contents(directory):
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def steps_in(directory):
    names = [path.name.removesuffix(".index") for path in Path(directory).glob("model.ckpt-*.index")]
    return sorted(int(name.rpartition("-")[2]) for name in names)


def truncate(path, share=0.5):
    os.truncate(path, int(os.path.getsize(path) * share))


def data_of(directory, step):
    return directory / f"model.ckpt-{step}.data-00000-of-00001"


class Killed(Exception):
    pass


# --- which checkpoint a run goes on from -----------------------------------------------------------------------


@pytest.mark.parametrize("state", ["missing", "damaged"])
def test_a_folder_with_checkpoints_is_a_run_also_without_its_state_file(state, run_dir):
    run(run_dir, epochs=3)
    if state == "missing":
        (run_dir / "checkpoint").unlink()
    else:
        (run_dir / "checkpoint").write_bytes(b"\xff nonsense")
    before = contents(run_dir)
    with pytest.raises(ValueError, match="already holds a run; pass resume=True"):
        run(run_dir)
    assert contents(run_dir) == before
    with pytest.warns(UserWarning, match=rf"goes on from model.ckpt-9, .*state file 'checkpoint' is {state}") as caught:
        rest = run(run_dir, resume=True)
    assert caught[0].filename == __file__
    assert_trees_equal(rest.params, run().params)
    assert load_checkpoint(run_dir).step == 12
    assert steps_in(run_dir) == [3, 6, 9, 12]


def test_one_checkpoint_without_a_state_file_leaves_no_question(run_dir):
    """A kill between the first save and its publication leaves such a folder: this is no reason for a warning."""
    run(run_dir, epochs=1)
    (run_dir / "checkpoint").unlink()
    assert_trees_equal(run(run_dir, resume=True).params, run().params)


@pytest.mark.parametrize("how", ["data truncated", "data gone", "index truncated", "index gone", "a byte flipped"])
def test_the_newest_that_is_whole_is_found_and_said(how, run_dir):
    run(run_dir, epochs=3)
    data, index = data_of(run_dir, 9), run_dir / "model.ckpt-9.index"
    if how == "a byte flipped":
        spoilt = bytearray(data.read_bytes())
        spoilt[len(spoilt) // 2] ^= 1
        data.write_bytes(spoilt)
    elif how.endswith("truncated"):
        truncate(data if "data" in how else index)
    else:
        (data if "data" in how else index).unlink()
    with pytest.warns(UserWarning, match=r"goes on from model.ckpt-6, .*checkpoint \(not whole: model.ckpt-9"):
        rest = run(run_dir, resume=True)
    assert_trees_equal(rest.params, run().params)
    assert rest.history == run().history


def test_files_of_the_newest_that_are_gone_altogether_are_said(run_dir):
    run(run_dir, epochs=3)
    for path in run_dir.glob("model.ckpt-9.*"):
        path.unlink()
    with pytest.warns(UserWarning, match="goes on from model.ckpt-6, .*names model.ckpt-9, which is not there"):
        rest = run(run_dir, resume=True)
    assert_trees_equal(rest.params, run().params)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("state", [True, False])
def test_if_none_is_whole_nothing_is_touched(state, resume, run_dir):
    run(run_dir, max_to_keep=1, epochs=2)
    truncate(data_of(run_dir, 6))
    if not state:
        (run_dir / "checkpoint").unlink()
    before = contents(run_dir)
    wanted = "none of its checkpoints is whole, so nothing was changed.*model.ckpt-6"
    with pytest.raises(ValueError, match=wanted if resume else "already holds a run"):
        run(run_dir, resume=resume)
    assert contents(run_dir) == before


def test_a_save_that_was_never_published_is_the_newest(run_dir, monkeypatch):
    from minilstm.training.folder import RunFolder

    original = RunFolder.publish

    def publish(self, prefix, step, max_to_keep):
        if step == 9:
            raise Killed
        original(self, prefix, step, max_to_keep)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "publish", publish)
        with pytest.raises(Killed):
            run(run_dir)
    assert load_checkpoint(run_dir).step == 6
    seen = []
    rest = run(run_dir, resume=True, callbacks=[lambda result: seen.append(result.step)])
    assert seen == [12]
    assert_trees_equal(rest.params, run().params)
    assert load_checkpoint(run_dir).step == 12


# --- what else is in the folder --------------------------------------------------------------------------------


def test_a_second_save_in_the_folder_is_neither_resumed_from_nor_removed(run_dir):
    def keep_best(result):
        save_checkpoint(run_dir / "best", result.params, model=MODEL)
        save_checkpoint(run_dir / "mine", result.params, step=result.step, max_to_keep=None)

    run(run_dir, epochs=3, callbacks=[keep_best], max_to_keep=2)
    rest = run(run_dir, resume=True, callbacks=[keep_best], max_to_keep=2)
    assert_trees_equal(rest.params, run().params)
    assert steps_in(run_dir) == [9, 12]
    assert sorted(path.name for path in run_dir.glob("*.index")) == [
        "best.index", "mine-12.index", "mine-3.index", "mine-6.index", "mine-9.index", "model.ckpt-12.index",
        "model.ckpt-9.index",
    ]  # fmt: skip
    assert_trees_equal(load_checkpoint(run_dir / "best").params, rest.params)


@pytest.mark.parametrize("name", ["model.ckpt", "model.ckpt-7"])
def test_a_converted_file_in_the_folder_is_neither_resumed_from_nor_removed(name, run_dir, tmp_path):
    run(run_dir, epochs=2)
    npz.save(tmp_path / "e.npz", MODEL, MODEL.init(9, 1))
    convert.convert(tmp_path / "e.npz", run_dir / name, report=lambda line: None)
    with contextlib.nullcontext() if name == "model.ckpt" else pytest.warns(UserWarning, match="not written by fit"):
        rest = run(run_dir, resume=True, max_to_keep=1)
    assert_trees_equal(rest.params, run().params)
    assert steps_in(run_dir) == [12] if name == "model.ckpt" else [7, 12]
    assert_trees_equal(load_checkpoint(run_dir / name).params, MODEL.init(9, 1))
    assert load_checkpoint(run_dir).step == 12


def test_a_folder_of_other_checkpoints_is_no_run_to_resume(run_dir):
    save_checkpoint(run_dir / "pretrained.ckpt", PARAMS, model=MODEL, step=5)
    before = contents(run_dir)
    with pytest.raises(ValueError, match=r"pretrained.ckpt-5 was not written by fit"):
        run(run_dir, resume=True)
    with pytest.raises(ValueError, match="already holds a run"):
        run(run_dir)
    assert contents(run_dir) == before


def test_a_folder_whose_checkpoints_were_all_removed_is_started_again_only_if_that_is_said(run_dir):
    run(run_dir)
    for path in run_dir.glob("model.ckpt-*"):
        path.unlink()
    before = contents(run_dir)
    with pytest.raises(CheckpointError, match=r"state file 'checkpoint' names model.ckpt-\d+, which is not there"):
        run(run_dir, resume=True)
    assert contents(run_dir) == before
    run(run_dir, epochs=1)
    assert_trees_equal(run(run_dir, resume=True).params, run().params)
    assert (run_dir / "history.csv.kept").read_bytes() == before["history.csv"]


def test_an_old_checkpoint_from_a_backup_is_removed_in_its_turn(run_dir, tmp_path):
    run(run_dir, epochs=1)
    shutil.copytree(run_dir, tmp_path / "backup")
    run(run_dir, epochs=3, resume=True, max_to_keep=1)
    for path in (tmp_path / "backup").glob("model.ckpt-*"):
        shutil.copy(path, run_dir)
    run(run_dir, epochs=4, resume=True, max_to_keep=2)
    assert steps_in(run_dir) == [9, 12]


# --- what a kill leaves ----------------------------------------------------------------------------------------


def test_the_next_save_removes_what_a_kill_during_the_clean_up_left(run_dir, monkeypatch):
    from minilstm.tensorbundle import state

    def remove(prefix):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(state, "remove", remove)
        with pytest.raises(Killed):
            run(run_dir, epochs=3, max_to_keep=1)
    (run_dir / "model.ckpt-2.data-00000-of-00001").write_bytes(b"what was left of a checkpoint without its index")
    (run_dir / "model.ckpt-5.index.minilstm-0123abcd.tmp").write_bytes(b"what was left of a save")
    assert steps_in(run_dir) == [3, 6]  # of which one should be there
    rest = run(run_dir, resume=True, max_to_keep=1)
    assert_trees_equal(rest.params, run().params)
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "checkpoint", "history.csv", "model.ckpt-12.data-00000-of-00001", "model.ckpt-12.index",
    ]  # fmt: skip


def test_pieces_of_a_first_save_are_no_run(run_dir):
    run_dir.mkdir()
    (run_dir / "model.ckpt-3.index.minilstm-0123abcd.tmp").write_bytes(b"torn")
    run(run_dir)
    assert not list(run_dir.glob("*.tmp"))


# --- two at once -----------------------------------------------------------------------------------------------


def holder(directory, ready, done):
    def wait(result):
        ready.set()
        done.wait(60)

    run(directory, callbacks=[wait], epochs=1)


def test_a_folder_in_use_is_refused_at_once(run_dir):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=holder, args=(run_dir, ready, done))
    process.start()
    try:
        assert ready.wait(60)
        before = contents(run_dir)
        for resume in (True, False):
            with pytest.raises(ValueError, match=rf"in use by process {process.pid} on {platform.node()}; wait"):
                run(run_dir, resume=resume)
        assert contents(run_dir) == before
    finally:
        done.set()
        process.join(60)
    assert not (run_dir / lock.LOCK_FILE).exists()
    run(run_dir, resume=True)


def test_a_second_run_in_the_same_process_is_refused_too(run_dir):
    def again(result):
        with pytest.raises(ValueError, match="is in use by this process"):
            run(run_dir, resume=True)

    run(run_dir, epochs=1, callbacks=[again])


@pytest.mark.parametrize("attempt", range(25))  # without a guard, one in 14 went wrong
def test_one_of_many_that_start_at_once_gets_the_folder(run_dir, attempt):
    """Also where a stale lock is taken over."""
    run_dir.mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    stale = {"pid": gone.pid, "host": platform.node(), "started": 1}
    (run_dir / lock.LOCK_FILE).write_text(json.dumps(stale))
    start, leave, got, refused = threading.Barrier(8), threading.Barrier(8), [], []

    def enter():
        start.wait()
        try:
            with lock.RunLock(str(run_dir)):
                got.append(1)
                leave.wait()
        except ValueError as error:
            refused.append(str(error))
            leave.wait()

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    assert list(run_dir.iterdir()) == []


@pytest.mark.parametrize(
    "change", [{}, {"started": 1}, {"pid": os.getpid(), "started": 1}], ids=["ended", "ended, too", "another since"]
)
def test_a_lock_of_a_process_that_ended_is_taken_over(change, run_dir):
    if "pid" in change and not os.path.exists("/proc/self/stat"):
        pytest.skip("only Linux tells when a process began")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    run_dir.mkdir()
    holder = {"pid": ended.pid, "host": platform.node(), "started": None, **change}
    (run_dir / "fit.lock").write_text(json.dumps(holder))
    assert_trees_equal(run(run_dir).params, run().params)
    assert not (run_dir / "fit.lock").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"pid": 1, "host": "another", "started": None}), "in use by process 1 on another; wait .* remove "),
        ("", "is not a lock of fit; remove it if no run"), ("[]", "is not a lock"), ('{"pid": 3}', "is not a lock"),
        (json.dumps({"pid": "x", "host": platform.node(), "started": None}), "in use by process x"),
    ],
)  # fmt: skip
def test_a_lock_that_cannot_be_judged_is_respected(text, message, run_dir):
    run_dir.mkdir()
    (run_dir / "fit.lock").write_text(text)
    with pytest.raises(ValueError, match=f"fit: .*{message}"):
        run(run_dir)
    assert contents(run_dir) == {"fit.lock": text.encode()}


def test_a_pipe_in_the_place_of_the_lock_does_not_hang(run_dir):
    run_dir.mkdir()
    os.mkfifo(run_dir / "fit.lock")
    with pytest.raises(ValueError, match=r"fit.lock is not a file; remove it"):
        run(run_dir)


@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt, SystemExit, MemoryError])
def test_the_lock_is_released_on_every_exception(error, run_dir):
    def fail(result):
        assert (run_dir / "fit.lock").exists()
        raise error

    with pytest.raises(error):
        run(run_dir, callbacks=[fail])
    assert not (run_dir / "fit.lock").exists()


def test_a_run_that_fails_before_its_first_save_leaves_no_folder(run_dir):
    with pytest.raises(FloatingPointError), np.errstate(all="ignore"):
        fit(params=PARAMS, data=(INPUTS, TARGETS), loss_fn=lambda p, b, s, r: (MODEL(p, b[0]).sum() * np.inf, s),
            optimizer=Adam(0.1), epochs=1, checkpoint_dir=run_dir)  # fmt: skip
    assert not run_dir.exists()


def test_a_killed_process_leaves_a_lock_that_does_not_stop_the_next(run_dir):
    script = (
        "import os, signal, sys; sys.path[:0] = [sys.argv[2]]; import test_folder\n"
        "test_folder.run(sys.argv[1], callbacks=[lambda result: os.kill(os.getpid(), signal.SIGKILL)])\n"
    )
    paths = os.pathsep.join([str(Path(minilstm.__file__).parents[1]), str(Path(__file__).parents[1])])
    process = subprocess.run(
        [sys.executable, "-c", script, run_dir, Path(__file__).parent], env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == -9, process.stderr
    assert (run_dir / "fit.lock").exists()
    assert_trees_equal(run(run_dir, resume=True).params, run().params)
    assert not (run_dir / "fit.lock").exists()


# --- the folder's name -----------------------------------------------------------------------------------------


def test_a_relative_folder_is_the_one_at_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def leave(result):
        monkeypatch.chdir(tmp_path / "elsewhere")

    run("runs/a", callbacks=[leave])
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert steps_in(tmp_path / "runs/a") == [3, 6, 9, 12]
    assert len((tmp_path / "runs/a/history.csv").read_text().splitlines()) == 5


# --- what is read on resume ------------------------------------------------------------------------------------


def spoilt(directory, change):
    """The newest checkpoint, with other tensors or another record; its prefix."""
    prefix = load_checkpoint(directory).prefix
    tensors = dict(minilstm.tensorbundle.read(prefix))
    training = json.loads(tensors["minilstm/training"].item())
    change(tensors, training)
    tensors["minilstm/training"] = np.asarray(json.dumps(training).encode(), object)
    minilstm.tensorbundle.write(prefix, tensors)
    return prefix


def tensor(name, value):
    return lambda tensors, training: tensors.update({name: value(tensors[name])})


def noted(**values):
    return lambda tensors, training: training.update(values)


def placed(**values):
    return lambda tensors, training: training["place"].update(values)


KERNEL = "rnn/lstm_cell/kernel"
FAULTS = {
    "scalar slots": (tensor(f"{KERNEL}/Adam", lambda w: w[0, 0]), "no whole AdamState; .*of another shape: rnn/"),
    "integer slots": (tensor(f"{KERNEL}/Adam", lambda w: w.astype(np.int32)), "m of the optimizer.*dtype"),
    "wide slots": (tensor(f"{KERNEL}/Adam_1", lambda w: w.astype(np.float64)), "v of the optimizer.*dtype"),
    "a slot missing": (lambda tensors, training: tensors.pop(f"{KERNEL}/Adam"), "no whole AdamState"),
    "a scalar average": (tensor(f"{KERNEL}/ExponentialMovingAverage", lambda w: w[0, 0]), "shape"),
    "an average missing": (
        lambda tensors, training: tensors.pop(f"{KERNEL}/ExponentialMovingAverage"), "averages do not belong to every"
    ),
    "another best": (tensor(f"minilstm/best/{KERNEL}", lambda w: w[:-1]), "shape"),
    "half a best": (lambda tensors, training: tensors.pop(f"minilstm/best/{KERNEL}"), "missing"),
    "no step": (lambda tensors, training: tensors.pop("global_step"), "global_step"),
    "a step below 0": (tensor("global_step", lambda step: np.asarray(-1)), "global_step"),
    "power 1": (tensor("beta1_power", lambda power: np.float32(1)), r"beta1_power must be a number in \[0, 1\)"),
    "power nan": (tensor("beta2_power", lambda power: np.float32(np.nan)), "beta2_power must be"),
    "two powers": (
        tensor("beta2_power", lambda power: np.float32([0.1, 0.2])), "no whole AdamState; .*beta2_power are not",
    ),
    "epoch as text": (placed(epoch="1"), "epoch must be a number, got '1'"),
    "epoch -1": (placed(epoch=-1), "epoch must be a number"),
    "batch 0.5": (placed(batch=0.5), "batch must be a number"),
    "batch of 400 digits": (placed(batch=10**400), "batch must be a number"),
    "sum of 400 digits": (placed(loss_sum=10**400), "loss_sum must be a number"),
    "batch null": (placed(batch=None), "batch must be a number"),
    "sum as text": (placed(loss_sum="x"), "loss_sum must be a number"),
    "another key": (placed(other=1), "other"),
    "place null": (noted(place=None), "training"),
    "place a list": (noted(place=[1]), "training"),
    "history null": (noted(history=None), "history must hold loss"),
    "history a list": (noted(history=[]), "history must hold loss"),
    "history of text": (noted(history={"loss": ["1"], "grad_norm": [1.0]}), "loss must be a list of numbers"),
    "history null in it": (noted(history={"loss": None, "grad_norm": [1.0]}), "loss must be a list of numbers"),
    "history too short": (noted(history={"loss": [], "grad_norm": []}), "loss has 0 entries after 1 epochs"),
    "history with half a character": (
        noted(history={"loss": [1.0], "grad_norm": [1.0], "\ud800": [1.0]}), "'.ud800' is not the name of a loss"
    ),
    "history of epochs": (
        noted(history={"loss": [1.0], "grad_norm": [1.0], "epoch": [1.0]}), "'epoch' is not the name of a loss"
    ),
    "counted from text": (noted(counted_from="x"), "counted_from must be"),
    "steps null": (noted(steps=None), "steps must be"),
    "carried of another kind": (noted(carried={"rnn": ["set", 0]}), "training"),
    "carried without arrays": (noted(carried={"rnn": ["LSTMState", 0, 0]}), "training"),
    "carried of one": (noted(carried={"rnn": ["LSTMState"]}), "training"),
    "another state": (noted(state=3), "holds 3"),
}  # fmt: skip


class Dying(Adam):
    def update(self, params, grads, state):
        if state.step == 5:
            raise Killed
        return super().update(params, grads, state)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_makes_no_sense_is_an_error_with_the_path(fault, run_dir):
    change, message = FAULTS[fault]
    options = {"ema_decay": 0.5, "validation_data": (INPUTS[:4], TARGETS[:4]), "early_stopping": 5}
    with pytest.raises(Killed):  # within the second epoch, so that best is of the first
        run(run_dir, checkpoint_every=1, max_to_keep=1, **{**options, "optimizer": Dying(0.01)})
    prefix = spoilt(run_dir, change)
    before = contents(run_dir)
    with pytest.raises(CheckpointError, match=rf"(?s)^fit: {run_dir}.*{os.path.basename(prefix)}.*{message}"):
        run(run_dir, resume=True, checkpoint_every=1, max_to_keep=1, **options)
    assert contents(run_dir) == before


@pytest.mark.parametrize("name", ["params/dense/bias", "m/dense/kernel", "v/dense/kernel", "beta1_power"])
def test_a_run_that_has_ended_and_lost_something_is_an_error_too(name, run_dir):
    rate = Adam(lambda step: 0.01 if step < 3 else 3.0)
    options = {"optimizer": rate, "validation_data": (INPUTS, TARGETS), "early_stopping": 2, "max_to_keep": 1}
    run(run_dir, **options)
    spoilt(run_dir, lambda tensors, training: tensors.pop(f"minilstm/last/{name}"))
    with pytest.raises(CheckpointError, match=r"fit: .*model.ckpt-9: tensor minilstm/training: KeyError"):
        run(run_dir, resume=True, **{**options, "early_stopping": 9})


@pytest.mark.parametrize("name", ["params/dense/kernel", "m/dense/kernel"])
def test_a_run_that_has_ended_with_another_shape_is_an_error_too(name, run_dir):
    options = {"validation_data": (INPUTS, TARGETS), "early_stopping": 2, "max_to_keep": 1}
    run(run_dir, **{**options, "optimizer": Adam(lambda step: 0.01 if step < 3 else 3.0)})

    def smaller(tensors, training):
        tensors[f"minilstm/last/{name}"] = tensors[f"minilstm/last/{name}"][:1]

    spoilt(run_dir, smaller)
    with pytest.raises(CheckpointError, match=r"(?s)fit: .*model.ckpt-9: tensor minilstm/training: .*dense/kernel"):
        run(run_dir, resume=True, **{**options, "optimizer": Adam(lambda step: 0.01), "early_stopping": 9})


def test_a_folder_that_was_moved_goes_on_there(run_dir, tmp_path):
    run(run_dir, epochs=2)
    shutil.move(run_dir, tmp_path / "moved")
    assert_trees_equal(run(tmp_path / "moved", resume=True).params, run().params)
