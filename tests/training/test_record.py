"""What a run was started with: what resume refuses, what it lets through, and the words for it."""

import numpy as np
import pytest
from helpers import assert_trees_equal

from minilstm import (
    LSTM,
    RNN,
    SGD,
    Adam,
    AdamW,
    Bidirectional,
    CheckpointError,
    Dense,
    Dropout,
    DropoutWrapper,
    LSTMCell,
    Momentum,
    ResidualWrapper,
    Sequential,
    fit,
    load_checkpoint,
    losses,
    save_checkpoint,
    schedules,
    tbptt,
    tensorbundle,
)
from minilstm.training import record

RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(10, 6, 1)).astype(np.float32)
TARGETS = np.cumsum(INPUTS, axis=1) * np.float32(0.3)
MODEL = Sequential(LSTM(4), Dense(1))


def run(directory=None, data=(INPUTS, TARGETS), model=MODEL, loss=losses.mse, **options):
    options = {"optimizer": Adam(0.01), "epochs": 2, "batch_size": 4, **options}  # three steps an epoch
    return fit(model, model.init(0, 1), loss, data, checkpoint_dir=directory, **options)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def mae(outputs, targets, weights=None):
    return losses.mse(outputs, targets, weights)


def batches(step):
    return INPUTS[:4], TARGETS[:4]


def longer_batches(step):
    return INPUTS[:5], TARGETS[:5]


def loss_fn(params, batch, state, rng):
    return losses.mse(MODEL(params, batch[0]), batch[1]), state


def other_loss_fn(params, batch, state, rng):
    return loss_fn(params, batch, state, rng)


class Shifted(Adam):
    """A rule of one's own."""

    def rule(self, rate, w, g, m, v):
        return super().rule(rate, w, g + 1, m, v)


class Own(Adam):
    """An update of one's own."""

    def update(self, params, grads, state, donate=False):
        return super().update(params, grads, state)


MODELS = {
    "forget bias": (Sequential(LSTM(4, forget_bias=0.0), Dense(1)), "layers[0].cell.forget_bias is 1.0, now 0.0"),
    "activation": (Sequential(LSTM(4, activation="relu"), Dense(1)), "layers[0].cell.activation is 'tanh', now 'relu'"),
    "cell clip": (Sequential(LSTM(4, cell_clip=0.1), Dense(1)), "layers[0].cell.cell_clip is None, now 0.1"),
    "reverse": (Sequential(LSTM(4, reverse=True), Dense(1)), "layers[0].reverse is False, now True"),
    "Dense": (Sequential(LSTM(4), Dense(1, activation="tanh")), "layers[1].activation is None, now 'tanh'"),
    "Dropout": (Sequential(LSTM(4), Dropout(0.5), Dense(1)), "layers is [RNN, Dense], now [RNN, Dropout, Dense]"),
    "wrapper": (
        Sequential(RNN(DropoutWrapper(LSTMCell(4), input_keep_prob=0.5)), Dense(1)),
        "layers[0].cell is LSTMCell, now DropoutWrapper",
    ),
}  # fmt: skip
# what is changed -> (the options of the first call, of the second, the line of the error)
CHANGES = {
    **{f"model: {name}": ({}, {"model": model}, f"model: started with {line}")
       for name, (model, line) in MODELS.items()},
    "rate": ({}, {"optimizer": Adam(0.1)}, "learning_rate: started with 0.01, now 0.1"),
    "beta": ({}, {"optimizer": Adam(0.01, beta2=0.5)}, "beta2: started with 0.999, now 0.5"),
    "class": ({}, {"optimizer": AdamW(0.01)}, "optimizer: started with Adam, now AdamW"),
    "its own option": ({}, {"optimizer": AdamW(0.01)}, "weight_decay: started with nothing, now 0.004"),
    "rule": ({}, {"optimizer": Shifted(0.01)}, "optimizer: started with Adam, now test_record.Shifted"),
    "rule, back": ({"optimizer": Shifted(0.01)}, {}, "optimizer: started with test_record.Shifted, now Adam"),
    "update": ({}, {"optimizer": Own(0.01)}, "optimizer: started with Adam, now test_record.Own"),
    "nesterov": (
        {"optimizer": Momentum(0.01, 0.9)}, {"optimizer": Momentum(0.01, 0.9, use_nesterov=True)},
        "use_nesterov: started with False, now True",
    ),
    "schedule": (
        {"optimizer": SGD(schedules.cosine(0.1, 9))}, {"optimizer": SGD(schedules.cosine(0.1, 10))},
        "learning_rate: started with cosine(final=0.0, rate=0.1, steps=9), now cosine(final=0.0, rate=0.1, steps=10)",
    ),
    "schedule of a schedule": (
        {"optimizer": SGD(schedules.warm_up(schedules.constant(0.1), 5))},
        {"optimizer": SGD(schedules.warm_up(schedules.constant(0.2), 5))},
        "learning_rate: started with warm_up(schedule=constant(rate=0.1), steps=5), now warm_up(",
    ),
    "own schedule": (
        {"optimizer": SGD(0.1)}, {"optimizer": SGD(lambda step: 0.1)},
        "learning_rate: started with 0.1, now the function test_record.<lambda>",
    ),
    "batch_size": ({}, {"batch_size": 5}, "batch_size: started with 4, now 5"),
    "tbptt": (
        {"tbptt": tbptt(2)}, {"tbptt": tbptt(2, 3)}, "tbptt: started with stride=2, window=2, now stride=2, window=3",
    ),
    "no tbptt": ({"tbptt": tbptt(2)}, {}, "tbptt: started with stride=2, window=2, now None"),
    "clip_norm": ({}, {"clip_norm": 1.0}, "clip_norm: started with None, now 1.0"),
    "clip_value": ({"clip_value": 0.5}, {"clip_value": np.float32(1)}, "clip_value: started with 0.5, now 1.0"),
    "ema_decay": ({"ema_decay": 0.5}, {"ema_decay": 0.9}, "ema_decay: started with 0.5, now 0.9"),
    "seed": ({}, {"seed": np.int64(1)}, "seed: started with 0, now 1"),
    "loss": ({}, {"loss": mae}, "loss: started with minilstm.losses.mse, now test_record.mae"),
    "rows": (
        {}, {"data": (INPUTS[:9], TARGETS[:9])},
        "data: started with arrays of inputs float32 [10, 6, 1], targets float32 [10, 6, 1], now arrays of inputs",
    ),
    "weights": (
        {}, {"data": (INPUTS, TARGETS, np.ones((10, 6), np.float32))},
        "targets float32 [10, 6, 1], weights float32 [10, 6]",
    ),
    "kind of data": (
        {}, {"data": batches, "steps_per_epoch": 3},
        "now function of inputs float32 [4, 6, 1], targets float32 [4, 6, 1]",
    ),
    "first batch": (
        {"data": batches, "steps_per_epoch": 3}, {"data": longer_batches, "steps_per_epoch": 3}, "float32 [5, 6, 1]",
    ),
    "steps_per_epoch": (
        {"data": batches, "steps_per_epoch": 3}, {"data": batches, "steps_per_epoch": 4},
        "steps_per_epoch: started with 3, now 4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_goes_on_only_as_it_was_started(change, run_dir):
    first, second, line = CHANGES[change]
    run(run_dir, epochs=1, **first)
    before = contents(run_dir)
    with pytest.raises(CheckpointError) as caught:
        run(run_dir, resume=True, **second)
    text = str(caught.value)
    assert text.startswith(f"fit: {run_dir}/model.ckpt-")
    assert line in text
    assert "resume_changes=(...)" in text
    assert contents(run_dir) == before


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_named_may_differ_and_is_what_the_run_goes_on_with(change, run_dir):
    first, second, line = CHANGES[change]
    name = line.partition(":")[0]
    if " " in name or change == "its own option":
        name = "optimizer" if change == "its own option" else "data"
    names = ["data", "steps_per_epoch", "batch_size"] if change == "kind of data" else [name]
    run(run_dir, epochs=1, **first)
    run(run_dir, resume=True, resume_changes=names, **second)
    again = run(run_dir, epochs=3, resume=True, **second)  # from here on, nothing differs
    assert len(again.history["loss"]) == 3
    if change != "update":  # a subclass that only wraps `update` may come and go
        with pytest.raises(CheckpointError, match="started in another way"):
            run(run_dir, epochs=4, resume=True, **first)


def test_every_difference_is_listed_at_once(run_dir):
    run(run_dir, epochs=1)
    with pytest.raises(CheckpointError) as caught:
        run(run_dir, resume=True, optimizer=AdamW(0.1), batch_size=5, seed=3, clip_norm=1, resume_changes=["seed"],
            model=Sequential(LSTM(4, forget_bias=0.5), Dense(1, activation="tanh")))  # fmt: skip
    names = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:-1]]
    assert sorted(names) == sorted(
        ["model", "model", "clip_norm", "batch_size", "optimizer", "learning_rate", "weight_decay"]
    )


def test_another_structure_cannot_go_on_even_if_it_is_named(run_dir):
    run(run_dir, epochs=1)
    before = contents(run_dir)
    other = Sequential(LSTM(5), Dense(1))
    with pytest.raises(CheckpointError) as caught:
        run(run_dir, resume=True, model=other, optimizer=SGD(0.1), resume_changes=["model", "optimizer"])
    assert "shape of dense/kernel: wanted (5, 1), got (4, 1)" in str(caught.value)
    assert "optimizer: the checkpoint holds AdamState, but this optimizer wants SGDState" in str(caught.value)
    assert contents(run_dir) == before


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("learning_rat", "did you mean 'learning_rate'"), ("batchsize", "did you mean 'batch_size'"),
        ("weight_decays", "did you mean 'weight_decay'"), ("zzz", "got 'zzz'$"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_refused_before_anything_is_written(name, hint, run_dir):
    with pytest.raises(ValueError, match=f"fit: resume_changes must name .*{hint}"):
        run(run_dir, resume_changes=[name])
    assert not run_dir.exists()


def test_one_name_alone_needs_no_list(run_dir):
    run(run_dir, epochs=1)
    run(run_dir, resume=True, optimizer=Adam(0.5), resume_changes="learning_rate")


def test_what_may_always_change(run_dir):
    run(run_dir, epochs=1)
    run(run_dir, resume=True, epochs=3, validation_data=(INPUTS, TARGETS), early_stopping=2, checkpoint_every=2,
        max_to_keep=1, callbacks=[lambda result: None], extra={"mean": 1}, progress=False)  # fmt: skip
    run(run_dir, resume=True, epochs=4, model=Sequential(LSTM(4, backprop="bptt", initializer="zeros"), Dense(1)))


def test_a_changed_rate_acts_from_the_resume_on(run_dir):
    """The same numbers as with a schedule that says so."""
    whole = run(optimizer=SGD(lambda step: 0.1 if step < 3 else 0.3))
    run(run_dir, epochs=1, optimizer=SGD(0.1))
    rest = run(run_dir, resume=True, optimizer=SGD(0.3), resume_changes=["learning_rate"])
    assert_trees_equal(rest.params, whole.params)


class Killed(Exception):
    pass


def killed_at(steps):
    """Adam that dies at an update, and is otherwise Adam."""

    class Dying(Adam):
        def update(self, params, grads, state, donate=False):
            if state.step == steps:
                raise Killed
            return super().update(params, grads, state)

    return Dying(0.01)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"batch_size": 2}), ({}, {"seed": 1}), ({}, {"data": (INPUTS[:6], TARGETS[:6])}),
        ({}, {"tbptt": tbptt(3)}),
    ],
)  # fmt: skip
def test_what_decides_the_next_batch_changes_between_epochs_only(first, second, run_dir):
    name = next(iter(second))
    with pytest.raises(Killed):
        run(run_dir, optimizer=killed_at(2), checkpoint_every=1, **first)
    before = contents(run_dir)
    with pytest.raises(CheckpointError, match=rf"{name}: .* within one; first run to its end .*\(epochs=1\)"):
        run(run_dir, resume=True, resume_changes=[name], **second)
    assert contents(run_dir) == before
    run(run_dir, epochs=1, resume=True, **first)
    run(run_dir, resume=True, resume_changes=[name], **second)


# --- files without a record, and other processes ---------------------------------------------------------------


def rewritten(directory, change):
    """The newest checkpoint of a folder, with another record of its training."""
    import json

    prefix = load_checkpoint(directory).prefix
    tensors = dict(tensorbundle.read(prefix))
    training = json.loads(tensors["minilstm/training"].item())
    change(training)
    tensors["minilstm/training"] = np.asarray(json.dumps(training).encode(), object)
    tensorbundle.write(prefix, tensors)


def as_before(training):
    """As it was written before there was a record."""
    del training["started"], training["counted_from"]


@pytest.mark.parametrize("early_stopping", [None, 3])
def test_a_file_without_a_record_goes_on_and_says_so(early_stopping, run_dir):
    options = {"validation_data": (INPUTS, TARGETS), "early_stopping": early_stopping, "ema_decay": 0.5}
    whole = run(epochs=3, **options)
    run(run_dir, epochs=1, **options)
    rewritten(run_dir, as_before)
    with pytest.warns(UserWarning, match="model.ckpt-3 does not say what the run was started with") as caught:
        rest = run(run_dir, epochs=3, resume=True, **options)
    assert caught[0].filename == __file__
    assert_trees_equal(rest._replace(baselines={}), whole._replace(baselines={}))


def test_without_a_record_model_and_average_are_compared_all_the_same(run_dir):
    run(run_dir, epochs=1)
    rewritten(run_dir, as_before)
    with (
        pytest.warns(UserWarning, match="does not say"),
        pytest.raises(CheckpointError, match=r"forget_bias is 1.0(.|\n)*ema_decay: started with None, now 0.5"),
    ):
        run(run_dir, resume=True, model=MODELS["forget bias"][0], ema_decay=0.5)


def test_another_pass_is_said_because_the_bits_may_differ(run_dir, monkeypatch):
    monkeypatch.setattr(record, "fast_pass", lambda dtype: "compiled")
    run(run_dir, epochs=1)
    monkeypatch.setattr(record, "fast_pass", lambda dtype: "numpy")
    with pytest.warns(UserWarning, match="was trained with the compiled pass, and this process uses the numpy one"):
        run(run_dir, resume=True)


@pytest.mark.parametrize(
    "started",
    [None, 3, {}, {"arguments": {}}, {"arguments": 1, "optimizer": {}, "pass": ""}, {"arguments": {}, "optimizer": []}],
)
def test_a_damaged_record_is_an_error_with_the_path(started, run_dir):
    run(run_dir, epochs=1)
    rewritten(run_dir, lambda training: training.update(started=started))
    if started is None:
        with pytest.warns(UserWarning, match="does not say"):
            run(run_dir, resume=True)
        return
    with pytest.raises(CheckpointError, match=r"fit: .*model.ckpt-3: tensor minilstm/training: "):
        run(run_dir, resume=True)


def test_functions_have_the_name_they_are_imported_by():
    assert record.name_of(losses.mse) == "minilstm.losses.mse"
    assert record.name_of(mae) == "test_record.mae"
    assert record.name_of(None) is None


def test_loss_fn_is_compared_by_its_name(run_dir):
    options = {"params": MODEL.init(0, 1), "data": (INPUTS, TARGETS), "optimizer": Adam(0.1), "checkpoint_dir": run_dir}
    fit(loss_fn=loss_fn, epochs=1, **options)
    with pytest.raises(CheckpointError, match=r"loss_fn: started with .*loss_fn, now .*other_loss_fn"):
        fit(loss_fn=other_loss_fn, epochs=2, resume=True, **options)
    fit(loss_fn=loss_fn, epochs=2, resume=True, **options)


@pytest.mark.parametrize(
    ("schedule", "changed"),
    [
        (schedules.constant, [(0.1,), (0.2,)]),
        (schedules.exponential, [(0.1, 5, 0.5), (0.2, 5, 0.5), (0.1, 6, 0.5), (0.1, 5, 0.6), (0.1, 5, 0.5, True)]),
        (schedules.piecewise, [([1], [0.1, 0.2]), ([2], [0.1, 0.2]), ([1], [0.1, 0.3])]),
        (schedules.cosine, [(0.1, 5), (0.2, 5), (0.1, 6), (0.1, 5, 0.1)]),
        (schedules.halving, [(0.1, 1, 2), (0.2, 1, 2), (0.1, 2, 2), (0.1, 1, 3), (0.1, 1, 2, 0.1)]),
        (schedules.warm_up, [(schedules.constant(0.1), 5), (schedules.constant(0.2), 5), (schedules.constant(0.1), 6)]),
    ],
)
def test_a_schedule_is_known_by_its_name_and_all_its_numbers(schedule, changed):
    described = [record.plain(schedule(*arguments)) for arguments in changed]
    assert all(found["schedule"] == schedule.__name__ for found in described)
    assert all(described.count(found) == 1 for found in described)
    assert record.plain(schedule(*changed[0])) == described[0]


# --- load_checkpoint(like=model) -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_model_with_other_options_does_not_fit_the_file(name, tmp_path):
    other, line = MODELS[name]
    save_checkpoint(tmp_path / "m", MODEL.init(0, 1), model=MODEL)
    place, values = line.split(" is ")
    old, new = values.split(", now ")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "m", like=other)
    assert f"{place}: wanted {new}, got {old}" in str(caught.value)
    assert_trees_equal(load_checkpoint(tmp_path / "m", like=other.init(0, 1)).params, MODEL.init(0, 1))


def test_shapes_and_options_are_listed_in_one_error(tmp_path):
    save_checkpoint(tmp_path / "m", MODEL.init(0, 1), model=MODEL)
    other = Sequential(LSTM(5, forget_bias=0.0, cell_clip=1.0), Dense(1))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "m", like=other)
    options = [f"layers[0].cell.{name}" for name in ("forget_bias", "cell_clip", "units")]
    for part in ("shape of dense/kernel", *options):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "same",
    [
        Sequential(LSTM(4, backprop="bptt"), Dense(1)), Sequential(LSTM(4, initializer="zeros"), Dense(1)),
        Sequential(LSTM(4), Dense(1, bias_initializer="glorot_uniform")), Sequential(LSTM(4, name="rnn"), Dense(1)),
    ],
)  # fmt: skip
def test_what_does_not_change_outputs_does_not_count(same, tmp_path):
    save_checkpoint(tmp_path / "m", MODEL.init(0, 1), model=MODEL)
    assert load_checkpoint(tmp_path / "m", like=same).notes == ()


def test_wrappers_and_directions_are_compared_too(tmp_path):
    def model(bias=1.0, keep=0.5):
        wrapped = ResidualWrapper(DropoutWrapper(LSTMCell(3, forget_bias=bias), output_keep_prob=keep))
        return Sequential(Bidirectional(LSTM(3)), Dense(3), RNN(wrapped))

    save_checkpoint(tmp_path / "m", model().init(0, 1), model=model())
    load_checkpoint(tmp_path / "m", like=model())
    for other, line in (
        (model(bias=0.0), "forget_bias: wanted 0.0, got 1.0"),
        (model(keep=0.9), "output_keep_prob: wanted 0.9, got 0.5"),
        (Sequential(Bidirectional(LSTM(3, forget_bias=0.0)), *model().layers[1:]), "[0].forward.cell.forget_bias"),
    ):
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(tmp_path / "m", like=other)
        assert line in str(caught.value)


def test_a_model_that_cannot_be_described_is_not_compared_and_that_is_said(tmp_path):
    save_checkpoint(tmp_path / "m", MODEL.init(0, 1), model=MODEL)
    other = Sequential(LSTM(4, activation=lambda x: x), Dense(1))
    assert "were not compared" in load_checkpoint(tmp_path / "m", like=other).notes[0]


# --- numbers out of range --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("epochs", "batch_size", "steps_per_epoch", "checkpoint_every", "early_stopping")
          for value in (0, -1, 2.5, np.inf, np.nan, "3", True)],
        *[("max_to_keep", value) for value in (-1, 1.5, "3", np.inf)],
        *[("seed", value) for value in (-1, 0.5, "x", None, [1, 2])],
        ("epochs", None), ("batch_size", None), ("clip_norm", "1"), ("clip_value", 0), ("clip_norm", np.nan),
        ("ema_decay", "0.9"), ("callbacks", len), ("callbacks", [3]),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused_by_name_before_anything_is_done(name, value, run_dir):
    with pytest.raises(ValueError, match=rf"fit: {name} must be "):
        run(run_dir, **{name: value})
    assert not run_dir.exists()


@pytest.mark.parametrize(
    ("name", "value"), [*[("max_to_keep", v) for v in (-1, 1.5, "3")], *[("step", v) for v in (-1, 2.5, "3", True)]]
)
def test_save_checkpoint_refuses_them_too(name, value, tmp_path):
    with pytest.raises(ValueError, match=rf"save_checkpoint: {name} must be a whole number of 0 or more, got "):
        save_checkpoint(tmp_path / "m", MODEL.init(0, 1), **{name: value})
    assert not list(tmp_path.iterdir())


def test_whole_numbers_of_any_kind_are_taken(run_dir):
    result = run(run_dir, epochs=np.int64(2), batch_size=4.0, seed=np.uint8(3), max_to_keep=np.int32(1))
    assert_trees_equal(result.params, run(seed=3).params)


@pytest.mark.parametrize("options", [{}, {"validation_data": (INPUTS[:4], TARGETS[:4]), "early_stopping": 5}], ids=len)
def test_a_resumed_run_ends_with_the_files_of_one_that_never_stopped(tmp_path, options):
    """All bytes, what is under minilstm/ too."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"

    def leave(result):
        if len(result.history["loss"]) == 3:
            raise SystemExit

    run(whole, epochs=4, checkpoint_every=3, **options)
    with pytest.raises(SystemExit):
        run(resumed, epochs=4, checkpoint_every=3, callbacks=[leave], **options)
    run(resumed, epochs=4, checkpoint_every=3, resume=True, **options)
    for path in whole.glob("model.ckpt*"):
        assert path.read_bytes() == (resumed / path.name).read_bytes(), path.name
