"""Bad input: a ValueError that names the argument, what came and what was wanted, before anything is written."""

import copy

import numpy as np
import pytest

from minilstm import (
    LSTM,
    RNN,
    Adam,
    BasicLSTMCell,
    BasicRNNCell,
    Bidirectional,
    CheckpointError,
    Dense,
    Dropout,
    DropoutWrapper,
    Embedding,
    GRUCell,
    LSTMCell,
    LSTMState,
    MultiRNNCell,
    ResidualWrapper,
    Sequential,
    fit,
    generate,
    load_checkpoint,
    losses,
    predict,
    split_gates,
)
from minilstm.params import flatten_names, tree_map, unflatten_names

MODEL = Sequential(LSTM(4), Dense(2))
PARAMS = MODEL.init(0, 3)
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(6, 5, 3))
TARGETS = np.zeros((6, 5, 2))
LABELS = np.zeros((6, 5), int)


def refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (INPUTS[0], r"LSTM.apply: inputs must be \[batch, time, features\], got shape \(5, 3\)"),
        (INPUTS[None], r"inputs must be \[batch, time, features\], got shape \(1, 6, 5, 3\)"),
        (np.float64(1), r"inputs must be \[batch, time, features\], got shape \(\)"),
        (INPUTS[..., :2], r"LSTM.apply: inputs must have 3 features, got shape \(6, 5, 2\)"),
        (INPUTS[:0], r"inputs must not be empty, got shape \(0, 5, 3\)"),
        (INPUTS[:, :0], r"inputs must not be empty, got shape \(6, 0, 3\)"),
        (INPUTS.astype(int), "LSTM.apply: inputs must be floating point, got int64"),
        (INPUTS > 0, "inputs must be floating point, got bool"),
        (INPUTS.astype(complex), "inputs: wanted numbers, got dtype complex128: complex numbers"),
        (INPUTS.tolist()[0], r"got shape \(5, 3\)"),
    ],
)
def test_inputs_of_a_wrong_rank_size_or_kind_are_refused(inputs, message):
    refused(lambda: MODEL(PARAMS, inputs), message)


def test_a_time_major_layer_says_so():
    layer = LSTM(4, time_major=True)
    refused(lambda: layer(PARAMS["rnn"], INPUTS[0]), r"inputs must be \[time, batch, features\], got shape \(5, 3\)")


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 2, 3], r"sequence_length must be 6 whole numbers \(one a sequence\), got shape \(3,\)"),
        (np.full((6, 1), 2), r"got shape \(6, 1\)"),
        ([1.0] * 6, "of float64"),
        ([0, 1, 2, 3, 4, 6], "sequence_length must be from 0 to 5, got 0 to 6"),
        ([0, 1, 2, 3, 4, -1], "got -1 to 4"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths, message):
    refused(lambda: MODEL(PARAMS, INPUTS, sequence_length=lengths), message)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ((np.zeros((6, 4)),), "LSTM.apply: state does not fit the cell"),
        (np.zeros((2, 6, 4)), "state does not fit the cell"),
        ((np.zeros((6, 3)), np.zeros((6, 4))), r"state must have shapes .*\(6, 4\).*got .*\(6, 3\)"),
        ((np.zeros((1, 4)), np.zeros((1, 4))), r"got .*\(1, 4\)"),
        ((np.zeros((6, 4), int), np.zeros((6, 4))), "state must be floating point, got int64"),
    ],
)
def test_states_that_do_not_fit_are_refused(state, message):
    refused(lambda: LSTM(4).apply(PARAMS["rnn"], INPUTS, state=state), message)


@pytest.mark.parametrize("value", [0, -1, 2.5, "3", None, True, np.nan])
def test_sizes_that_are_no_positive_whole_numbers_are_refused(value):
    got = f"must be a positive whole number, got {value!r}"
    for cls in (LSTMCell, BasicLSTMCell, LSTM, Dense):
        name = "LSTMCell" if cls is LSTM else cls.__name__
        refused(lambda cls=cls: cls(value), f"{name}: units {got}")
    refused(lambda: Embedding(value, 3), f"Embedding: vocabulary {got}")
    refused(lambda: Embedding(3, value), f"Embedding: units {got}")
    refused(lambda: LSTMCell(3).init(0, value), f"LSTMCell.init: input_dim {got}")
    refused(lambda: Dense(3).init(0, value), f"Dense.init: input_dim {got}")
    if value is not None:
        refused(lambda: LSTMCell(3, num_proj=value), f"LSTMCell: num_proj {got}")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LSTMCell(3, cell_clip=0), "LSTMCell: cell_clip must be positive, got 0"),
        (lambda: LSTMCell(3, cell_clip=np.nan), "cell_clip must be positive, got nan"),
        (lambda: LSTMCell(3, num_proj=2, proj_clip=-1.0), "proj_clip must be positive, got -1.0"),
        (lambda: LSTMCell(3, proj_clip=1.0), "proj_clip=1.0 needs num_proj"),
        (lambda: LSTMCell(3, forget_bias=np.inf), "forget_bias must be a finite number, got inf"),
        (lambda: LSTMCell(3, activation="Tanh"), "activation must be a function or one of .*'tanh'.*got 'Tanh'"),
        (lambda: Dense(3, activation=3), "Dense: activation must be .* got 3"),
        (lambda: Dropout(1.0), r"Dropout: rate must be in \[0, 1\), got 1.0"),
        (lambda: Dropout(-0.1), "got -0.1"),
        (lambda: RNN(LSTMCell(3), backprop="quick"), "RNN: backprop must be one of .*got 'quick'"),
        (lambda: LSTM(3, name=""), "LSTM: name must be a non-empty path"),
        (lambda: Dense(3, name="minilstm/x"), "does not start with 'minilstm', got 'minilstm/x'"),
        (lambda: Dense(3, name="a//b"), "got 'a//b'"),
        (lambda: Sequential(), "at least one layer"),
        (lambda: Sequential(LSTM(3), LSTMCell(3)), r"every argument must be a layer, got LSTMCell\(3\)"),
        (lambda: Sequential(Dense(3), Dense(3, name="dense")), "two layers have the name 'dense'"),
        (lambda: Sequential(Dense(3, name="a"), Dense(3, name="a/kernel")).init(0, 2), "names clash"),
        (lambda: MODEL.init(0, 3, np.int32), "dtype must be floating, got int32"),
        (lambda: split_gates(np.zeros((3, 6))), r"multiple of 4, got shape \(3, 6\)"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, message):
    refused(make, message)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (np.array([[0, 5]]), "Embedding.apply: inputs must be from 0 to 4, got 0 to 5"),
        (np.array([[-1, 2]]), "got -1 to 2"),
        (np.array([[0.0, 1.0]]), "inputs must be whole numbers, got float64"),
        (np.zeros((0, 3), int), r"inputs must not be empty, got shape \(0, 3\)"),
    ],
)
def test_an_embedding_refuses_what_is_no_row(indices, message):
    layer = Embedding(5, 2)
    refused(lambda: layer(layer.init(0), indices), message)


def test_parameters_of_another_model_are_refused_by_name():
    refused(lambda: MODEL({}, INPUTS), "lstm_cell")
    refused(lambda: MODEL({"rnn": PARAMS["rnn"]}, INPUTS), "kernel")
    listed = tree_map(lambda w: w.tolist(), PARAMS)
    refused(lambda: MODEL(listed, INPUTS), r"LSTM\.apply: params: lstm_cell/kernel must be a floating array, got list")
    refused(lambda: MODEL({**PARAMS, "dense": listed["dense"]}, INPUTS), r"Dense\.apply: params: .*, got list")
    refused(lambda: Sequential(Dense(2))({"dense": {"kernel": np.zeros((3, 2))}}, INPUTS), "bias")
    kernel = PARAMS["dense"]["kernel"].view(np.recarray)  # an array that may behave in another way
    message = r"Dense\.apply: params: kernel must be a floating array, got recarray"
    refused(lambda: MODEL({**PARAMS, "dense": {**PARAMS["dense"], "kernel": kernel}}, INPUTS), message)


SHAPED = {  # for four features: what NumPy would have broadcast, and what it would not
    "LSTM": (LSTM(3, use_peepholes=True, num_proj=2), "lstm_cell"),
    "learned state": (LSTM(3, learn_initial_state=True), "initial_state"),
    "GRU": (RNN(GRUCell(3)), "gru_cell/candidate"),
    "RNN": (RNN(BasicRNNCell(3)), "basic_rnn_cell"),
    "stack": (RNN(MultiRNNCell([DropoutWrapper(LSTMCell(3)), ResidualWrapper(LSTMCell(3))])), "multi_rnn_cell/cell_1"),
    "Bidirectional": (Bidirectional(LSTMCell(3)), "bw/lstm_cell"),
    "Dense": (Dense(3), ""),
    "Embedding": (Embedding(4, 3), ""),
}


@pytest.mark.parametrize("backprop", ["fast", "readable", "autograd"])
@pytest.mark.parametrize("name", SHAPED)
def test_parameters_of_another_shape_are_refused_by_name(name, backprop):
    layer, folder = SHAPED[name]
    inputs = RNG.integers(0, 4, (2, 5)) if name == "Embedding" else RNG.normal(size=(2, 5, 4)).astype(np.float32)
    if isinstance(layer, RNN):
        layer = copy.copy(layer)
        layer.backprop = backprop
    params = layer.init(0, 4)
    layer(params, inputs)
    changed = [path for path in flatten_names(params) if path.startswith(folder)]
    assert changed
    for path in changed:
        right = flatten_names(params)[path]
        wrong = [right[None], right[..., :1], right[..., 0], np.concatenate([right, right], axis=-1), right.T]
        for array in wrong:
            if array.shape != right.shape:
                tree = unflatten_names({**flatten_names(params), path: array})
                refused(lambda tree=tree: layer(tree, inputs), r"\w+\.apply: (inputs must have|params: )")
    tree = unflatten_names({key: value for key, value in flatten_names(params).items() if key != changed[-1]})
    refused(lambda: layer(tree, inputs), r"\w+\.apply: params")


def test_weights_that_a_cell_would_ignore_are_refused():
    """A plain cell with the weights of one with peepholes would give other numbers than the model they are from."""
    rich = LSTM(3, use_peepholes=True)
    refused(lambda: LSTM(3)(rich.init(0, 3), INPUTS), r"LSTM\.apply: params: lstm_cell/w_f_diag is not expected; ")


def test_weights_that_no_layer_reads_are_refused():
    more = {**PARAMS, "dense_1": PARAMS["dense"]}
    message = r": params: no layer reads \['dense_1'\]; the model has \['dense', 'rnn'\]"
    refused(lambda: predict(MODEL, more, INPUTS), "^predict" + message)
    refused(lambda: generate(MODEL, more, INPUTS, 2), "^generate" + message)
    options = {"optimizer": Adam(0.01), "epochs": 1, "progress": False}
    refused(lambda: fit(MODEL, more, losses.mse, (INPUTS, TARGETS), **options), "^fit" + message)
    MODEL(more, INPUTS)  # a loss function may have more weights than the model


def test_options_that_are_set_later_decide_on_the_shapes():
    layer = Dense(2)
    layer(layer.init(0, 3), INPUTS)
    layer.units = 4
    assert layer(layer.init(0, 3), INPUTS).shape[-1] == 4


def test_a_cell_of_ones_own_may_have_what_it_likes():
    class Mine(LSTMCell):
        def init(self, seed, input_dim, dtype=np.float32):
            return {**super().init(seed, input_dim, dtype), "more": np.ones((), dtype)}

    layer = RNN(Mine(3))
    layer(layer.init(0, 3), INPUTS)


def test_a_state_of_an_unknown_layer_is_refused():
    state = LSTMState(np.zeros((6, 4)), np.zeros((6, 4)))
    refused(lambda: MODEL.apply(PARAMS, INPUTS, state={"dense": state}), r"state names \['dense'\]")


# --- fit: and nothing is written ------------------------------------------------------------------------------

NAN = INPUTS.copy()
NAN[4, 2, 1] = np.nan
INFINITE = TARGETS.copy()
INFINITE[5, 0, 1] = -np.inf


def no_batch(step):
    return {"inputs": INPUTS[:0], "targets": TARGETS[:0]}


BAD_FITS = {
    "rank": ({"data": (INPUTS[..., 0], TARGETS)}, r"inputs must be \[batch, time, features\], got shape \(6, 5\)"),
    "features": ({"data": (INPUTS[..., :2], TARGETS)}, r"inputs must have 3 features, got shape \(6, 5, 2\)"),
    "empty": ({"data": (INPUTS[:0], TARGETS[:0])}, r"fit: data: inputs must not be empty, got shape \(0, 5, 3\)"),
    "no time": ({"data": (INPUTS[:, :0], TARGETS[:, :0])}, r"inputs must not be empty, got shape \(6, 0, 3\)"),
    "empty batch": ({"data": no_batch, "steps_per_epoch": 1}, "batch of step 0: inputs must not be empty"),
    "nan": ({"data": (NAN, TARGETS)}, r"fit: data: inputs holds nan at \(4, 2, 1\)"),
    "infinite": ({"data": (INPUTS, INFINITE)}, r"fit: data: targets holds -inf at \(5, 0, 1\)"),
    "nan later": ({"data": lambda step: (NAN, TARGETS), "steps_per_epoch": 1}, "batch of step 0: inputs holds nan"),
    "sizes": ({"data": (INPUTS, TARGETS[:5])}, "same number of sequences, got {'inputs': 6, 'targets': 5}"),
    "targets": ({"data": (INPUTS, TARGETS[..., :1])}, r"mse: targets must have the shape of outputs \(6, 5, 2\)"),
    "label": (
        {"data": (INPUTS, LABELS + 2), "loss": losses.softmax_cross_entropy},
        "softmax_cross_entropy: targets must be labels from 0 to 1, got 2 to 2",
    ),
    "weights": ({"data": (INPUTS, TARGETS, np.ones((6, 4)))}, r"weights must have shape \(6, 5\)"),
    "lengths": (
        {"data": {"inputs": INPUTS, "targets": TARGETS, "sequence_length": np.full(6, 7)}},
        "sequence_length must be from 0 to 5",
    ),
    "no targets": ({"data": {"inputs": INPUTS}}, "targets"),
    "no inputs": (
        {"data": {"x": INPUTS, "y": TARGETS}},
        r"fit: data: wanted a dict with 'inputs'.*got a dict with keys",
    ),
    "a number": ({"data": 3}, "fit: data must be arrays, a callable or an iterable of batches, got int"),
    "no data": ({"data": None}, "fit: data is missing"),
    "no params": ({"params": None}, "fit: params is missing"),
    "no loss": ({"loss": None}, "fit: wanted model and loss, or loss_fn"),
    "both": ({"loss_fn": lambda *a: 0.0}, "loss_fn replaces model and loss"),
    "epochs": ({"epochs": 0}, "fit: epochs must be a positive whole number, got 0"),
    "half an epoch": ({"epochs": 1.5}, "got 1.5"),
    "batch_size": ({"batch_size": 0}, "fit: batch_size must be a positive whole number, got 0"),
    "checkpoint_every": ({"checkpoint_every": 0}, "fit: checkpoint_every must be a positive whole number, got 0"),
    "clip_norm": ({"clip_norm": 0.0}, "clip_norm must be positive"),
    "steps_per_epoch": ({"steps_per_epoch": 3}, "steps_per_epoch is for a callable or an iterable"),
    "no steps": ({"data": no_batch}, "steps_per_epoch must be at least 1"),
    "too few": (
        {"data": iter([(INPUTS, TARGETS)]), "steps_per_epoch": 2},
        "data ended after 1 batches, wanted one for step 1",
    ),
    "validation nan": ({"validation_data": (NAN, TARGETS)}, "fit: validation_data: inputs holds nan"),
    "validation empty": (
        {"validation_data": (INPUTS[:0], TARGETS[:0])},
        "fit: validation_data: inputs must not be empty",
    ),
    "validation features": ({"validation_data": (INPUTS[..., :1], TARGETS)}, "inputs must have 3 features"),
    "extra": ({"extra": {"scaler": object()}}, "extra must be what JSON can hold"),
    "no name": (
        {"model": Sequential(LSTM(4, activation=lambda x: x), Dense(2))},
        "no registered name",
    ),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_fit_refuses_bad_input_before_anything_is_written(case, run_dir):
    changes, message = BAD_FITS[case]
    arguments = {"model": MODEL, "params": PARAMS, "loss": losses.mse, "data": (INPUTS, TARGETS), **changes}
    options = {"optimizer": Adam(), "epochs": 2, "checkpoint_dir": run_dir, **arguments}
    refused(lambda: fit(**options), message)
    assert not run_dir.exists()


@pytest.mark.parametrize("place", ["data", "validation"])
def test_one_bad_label_is_found_before_anything_is_written(place, run_dir):
    """Also where every step is saved and the bad label comes late."""
    bad = LABELS.copy()
    bad[np.random.default_rng([0, 1, 0]).permutation(6)[-1], 3] = 2  # in the last batch of the first epoch
    data = {"data": (INPUTS, bad)} if place == "data" else {"data": (INPUTS, LABELS), "validation_data": (INPUTS, bad)}
    options = {"optimizer": Adam(), "epochs": 1, "batch_size": 1, "checkpoint_dir": run_dir, "checkpoint_every": 1}
    refused(
        lambda: fit(MODEL, PARAMS, losses.softmax_cross_entropy, **data, **options),
        r"softmax_cross_entropy: targets must be labels from 0 to 1, got \d to 2",
    )
    assert not run_dir.exists()


def test_a_checkpoint_that_does_not_fit_the_model_changes_nothing(run_dir):
    options = {"optimizer": Adam(), "checkpoint_dir": run_dir}
    fit(MODEL, PARAMS, losses.mse, (INPUTS, TARGETS), epochs=1, **options)
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    other = Sequential(LSTM(5), Dense(2))
    with pytest.raises(
        CheckpointError, match=r"shape of rnn/lstm_cell/kernel: wanted \(8, 20\), got \(7, 16\)"
    ) as caught:
        fit(other, other.init(0, 3), losses.mse, (INPUTS, TARGETS), epochs=2, resume=True, **options)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_checkpoint(run_dir, like=other)
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before


def test_a_loss_for_whole_batches_is_tried_on_one():
    """Two sequences are tried first, to save memory; what refuses so few may take a batch."""
    sizes = []

    def loss(outputs, targets, weights=None):
        sizes.append(len(outputs))
        assert len(outputs) == 3, "a fixed size"
        return losses.mse(outputs, targets, weights)

    fit(MODEL, PARAMS, loss, (INPUTS, TARGETS), optimizer=Adam(), epochs=1, batch_size=3, progress=False)
    assert sizes[:2] == [2, 3]
