"""Layers and Sequential: shapes, names, states, options, seeds, and descriptions that lead back."""

import json

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.core import make_vjp
from helpers import assert_close, assert_trees_close, assert_trees_equal, layer_gradients, named_leaves

from minilstm import (
    LSTM,
    RNN,
    BasicLSTMCell,
    Dense,
    Dropout,
    Embedding,
    LSTMCell,
    LSTMState,
    Sequential,
    from_config,
    value_and_grad,
)
from minilstm.fast import affine as fast_affine
from minilstm.fast.affine import SMALL_PRODUCT
from minilstm.params import flatten_names, tree_map

RNG = np.random.default_rng(8)
INPUTS = RNG.normal(size=(3, 5, 2))
LENGTHS = [3, 5, 0]


def random_params(layer, input_dim=2, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return tree_map(lambda w: rng.normal(0, 0.5, w.shape).astype(dtype), layer.init(0, input_dim, dtype))


# --- RNN ------------------------------------------------------------------------------------------------------


def test_lstm_hands_its_options_to_the_runner_and_to_the_cell():
    layer = LSTM(4, name="encoder", return_sequences=False, forget_bias=0.5, num_proj=3, activation="relu")
    assert isinstance(layer, RNN)
    assert (layer.name, layer.return_sequences, layer.output_dim(2)) == ("encoder", False, 3)
    assert (layer.cell.name, layer.cell.forget_bias, layer.cell.activation) == ("lstm_cell", 0.5, "relu")
    assert LSTM(4, reverse=True, time_major=True, backprop="autograd").config()["reverse"] is True


def test_time_major_is_the_same_with_the_axes_swapped():
    batch_major, time_major = LSTM(3), LSTM(3, time_major=True)
    params = random_params(batch_major)
    a, state_a = batch_major.apply(params, INPUTS, sequence_length=LENGTHS)
    b, state_b = time_major.apply(params, np.swapaxes(INPUTS, 0, 1), sequence_length=LENGTHS)
    assert_trees_equal((np.swapaxes(b, 0, 1), state_b), (a, state_a))


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_reverse_runs_each_sequence_from_its_end(lengths):
    params = random_params(LSTM(3))
    outputs, state = LSTM(3, reverse=True).apply(params, INPUTS, sequence_length=lengths)
    for row, length in enumerate(lengths or [5] * 3):
        alone, last = LSTM(3).apply(params, INPUTS[row : row + 1, :length][:, ::-1]) if length else (None, None)
        if length:
            assert_close(outputs[row, :length], alone[0, ::-1], 1e-14, f"row {row}")
            assert_close(state.h[row], last.h[0], 1e-14)
        assert not outputs[row, length:].any()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [3, 5, 1]], ids=["full", "lengths"])
def test_without_return_sequences_the_last_valid_output_comes_out(lengths, reverse):
    params = random_params(LSTM(3))
    outputs, state = LSTM(3, return_sequences=False, reverse=reverse).apply(params, INPUTS, sequence_length=lengths)
    assert_trees_equal(outputs, state.h)
    everything = LSTM(3, reverse=reverse).apply(params, INPUTS, sequence_length=lengths)[0]
    for row, length in enumerate(lengths or [5] * 3):
        assert_trees_equal(outputs[row], everything[row, 0 if reverse else length - 1])


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"return_sequences": False}, {"learn_initial_state": True}])
def test_every_option_of_the_runner_has_the_gradient_of_the_trace(options):
    for lengths in (None, [3, 5, 1]):
        params = random_params(LSTM(3, **options))
        results = [
            layer_gradients(LSTM(3, backprop=backprop, **options), params, INPUTS, sequence_length=lengths)
            for backprop in ("fast", "autograd")
        ]
        assert_trees_close(*results, 1e-12)
        assert all(np.abs(grad).max() > 1e-3 for _, grad in named_leaves(results[0][1]))


def test_the_state_carries_a_sequence_over_windows():
    layer, params = LSTM(3), random_params(LSTM(3))
    whole, last = layer.apply(params, INPUTS)
    first, state = layer.apply(params, INPUTS[:, :2])
    second, state = layer.apply(params, INPUTS[:, 2:], state=state)
    assert_trees_equal((np.concatenate([first, second], axis=1), state), (whole, last))


def test_any_pair_is_a_state_and_none_is_zeros():
    layer, params = LSTM(3), random_params(LSTM(3))
    zeros = np.zeros((3, 3))
    assert_trees_equal(layer.apply(params, INPUTS, state=[zeros, zeros]), layer.apply(params, INPUTS))
    c, h = RNG.normal(size=(2, 3, 3))
    assert_trees_equal(layer.apply(params, INPUTS, (c, h)), layer.apply(params, INPUTS, LSTMState(c=c, h=h)))


def test_a_learned_initial_state_is_used_where_none_is_given():
    layer = LSTM(3, num_proj=2, learn_initial_state=True)
    fresh = layer.init(0, 2)
    assert {k: v.shape for k, v in fresh["initial_state"].items()} == {"c": (3,), "h": (2,)}
    assert not fresh["initial_state"]["c"].any()
    params = random_params(layer)
    c, h = (np.tile(params["initial_state"][key], (3, 1)) for key in "ch")
    assert_trees_equal(layer(params, INPUTS), layer(params, INPUTS, state=(c, h)))
    other = layer(params, INPUTS, state=(np.zeros((3, 3)), np.zeros((3, 2))))
    assert np.abs(layer(params, INPUTS) - other).max() > 0.01


def test_repr_says_how_gradients_are_made():
    assert repr(LSTM(3)) == "LSTM(LSTMCell(3)) [hand-derived backpropagation]"
    assert "autograd's trace" in repr(LSTM(3, backprop="autograd"))
    assert "autograd's trace" in repr(LSTM(3, activation=lambda x: anp.tanh(x)))
    assert "hand-derived" in repr(RNN(BasicLSTMCell(2), backprop="readable"))


@pytest.mark.parametrize("backprop", ["fast", "readable"])
def test_a_cell_without_a_derivation_is_traced_and_never_refused(backprop):
    params = random_params(LSTM(3))
    own = LSTM(3, activation=lambda x: anp.tanh(x), backprop=backprop)
    assert_trees_close(layer_gradients(own, params, INPUTS), layer_gradients(LSTM(3), params, INPUTS), 1e-12)


def test_a_subclass_with_a_step_of_its_own_is_not_differentiated_by_the_wrong_formula():
    class Doubled(LSTMCell):
        def __call__(self, params, x_t, state, masks=None):
            output, state = super().__call__(params, x_t, state)
            return 2 * output, state

    params = random_params(LSTM(3))
    doubled = RNN(Doubled(3))(params, INPUTS)
    assert_close(doubled, 2 * LSTM(3)(params, INPUTS), 1e-15)


# --- Dense, Embedding, Dropout --------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, SMALL_PRODUCT // 4 - 1, SMALL_PRODUCT // 4, 20_000])
@pytest.mark.parametrize("units", [1, 3])
def test_dense_of_any_size_is_one_product(rows, units):
    rng = np.random.default_rng(1)
    x, kernel, bias, g = (rng.normal(size=shape) for shape in ((rows, 4), (4, units), units, (rows, units)))
    pull, outputs = make_vjp(lambda args: fast_affine.affine(*args), (x, kernel, bias))
    assert_close(outputs, x @ kernel + bias, 1e-12)
    for found, wanted in zip(pull(g), (g @ kernel.T, x.T @ g, g.sum(0)), strict=True):
        assert_close(found, wanted, 1e-12)


@pytest.mark.parametrize("activation", [None, "tanh", "relu", "sigmoid"])
def test_dense_is_an_affine_map_of_the_last_dimension(activation):
    layer = Dense(4, activation=activation)
    params = random_params(layer)
    z = np.einsum("btf,fu->btu", INPUTS, params["kernel"]) + params["bias"]
    wanted = {None: z, "tanh": np.tanh(z), "relu": z * (z > 0), "sigmoid": 1 / (1 + np.exp(-z))}[activation]
    assert_close(layer(params, INPUTS), wanted, 1e-14)
    assert_close(layer(params, INPUTS[:, 0]), wanted[:, 0], 1e-14)
    assert not layer.init(0, 2)["bias"].any()


def test_denses_gradient_equals_central_differences():
    layer = Dense(3, activation="tanh")
    params = random_params(layer)
    tree = {"params": params, "inputs": INPUTS.copy()}
    (loss, _), grads = layer_gradients(layer, params, tree["inputs"])
    for (name, leaf), (_, grad) in zip(named_leaves(tree), named_leaves(grads), strict=True):
        for k in range(0, leaf.size, 4):
            place = np.unravel_index(k, leaf.shape)
            kept = leaf[place]
            leaf[place] = kept + 1e-6
            above = layer_gradients(layer, params, tree["inputs"])[0][0]
            leaf[place] = kept
            assert abs((above - loss) / 1e-6 - grad[place]) < 2e-5, name


def test_embedding_takes_rows_and_adds_gradients_up_where_rows_repeat():
    layer = Embedding(4, 2)
    params = {"embeddings": np.arange(8.0).reshape(4, 2)}
    indices = np.array([[3, 0, 3], [3, 1, 1]])
    assert layer(params, indices).tolist() == [[[6, 7], [0, 1], [6, 7]], [[6, 7], [2, 3], [2, 3]]]
    weights = np.arange(12.0).reshape(2, 3, 2)
    _, grads = value_and_grad(lambda p: anp.sum(layer(p, indices) * weights))(params)
    wanted = np.zeros((4, 2))
    for place in np.ndindex(2, 3):
        wanted[indices[place]] += weights[place]
    assert_trees_equal(grads, {"embeddings": wanted})


def test_a_subclass_that_draws_in_its_apply_gets_a_generator():
    """Dense says that it does not draw, and gets no generator; a subclass with its own `apply` has not said so."""

    class NoisyDense(Dense):
        def apply(self, params, inputs, state=None, sequence_length=None, rng=None):
            outputs, state = super().apply(params, inputs, state, sequence_length, rng)
            return outputs + (0 if rng is None else rng.normal(size=outputs.shape)), state

    inputs = np.ones((2, 3, 1), np.float32)
    for layer, is_random in ((Dense(2), False), (NoisyDense(2), True)):
        model = Sequential(layer)
        params = model.init(0, 1)
        assert layer.is_random == is_random
        assert (model(params, inputs, rng=1) != model(params, inputs)).any() == is_random


def test_dropout_acts_only_while_training():
    layer, x = Dropout(0.25), np.ones((400, 100))
    assert_trees_equal(layer({}, x), x)
    dropped = layer({}, x, rng=3)
    assert set(np.unique(dropped)) == {0, 1 / 0.75}
    assert abs((dropped == 0).mean() - 0.25) < 0.01
    assert_trees_equal(layer({}, x, rng=3), dropped)
    assert (layer({}, x, rng=4) != dropped).any()
    assert_trees_equal(layer({}, x.astype(np.float32), rng=3) == 0, dropped == 0)
    assert layer({}, x.astype(np.float32), rng=3).dtype == np.float32
    assert_trees_equal(Dropout(0.0)({}, x, rng=3), x)


# --- Sequential -----------------------------------------------------------------------------------------------


def test_names_are_tensorflows_and_counted_per_kind():
    model = Sequential(LSTM(3), RNN(BasicLSTMCell(4)), Dropout(0.1), Dense(2), LSTM(2, name="enc/inner"), Dense(1))
    assert model.names == ["rnn", "rnn_1", "dropout", "dense", "enc/inner", "dense_1"]
    shapes = {name: leaf.shape for name, leaf in flatten_names(model.init(0, 5)).items()}
    assert shapes == {
        "rnn/lstm_cell/kernel": (8, 12), "rnn/lstm_cell/bias": (12,),
        "rnn_1/basic_lstm_cell/kernel": (7, 16), "rnn_1/basic_lstm_cell/bias": (16,),
        "dense/kernel": (4, 2), "dense/bias": (2,),
        "enc/inner/lstm_cell/kernel": (4, 8), "enc/inner/lstm_cell/bias": (8,),
        "dense_1/kernel": (2, 1), "dense_1/bias": (1,),
    }  # fmt: skip


def test_a_model_is_its_layers_one_after_the_other():
    first, second, head = LSTM(3), LSTM(4), Dense(2)
    model = Sequential(first, second, head)
    params = random_params(model)
    outputs, state = model.apply(params, INPUTS)
    a, state_a = first.apply(params["rnn"], INPUTS)
    b, state_b = second.apply(params["rnn_1"], a)
    assert_trees_equal(outputs, head(params["dense"], b))
    assert_trees_equal(state, {"rnn": state_a, "rnn_1": state_b})
    assert_trees_equal(model(params, INPUTS), outputs)


def test_a_models_state_is_by_layer_and_may_be_partial():
    model = Sequential(LSTM(3), LSTM(4))
    params = random_params(model)
    _, state = model.apply(params, INPUTS)
    outputs, _ = model.apply(params, INPUTS, state={"rnn_1": state["rnn_1"]})
    wanted = model.layers[1](params["rnn_1"], model.layers[0](params["rnn"], INPUTS), state=state["rnn_1"])
    assert_trees_equal(outputs, wanted)
    with pytest.raises(ValueError, match=r"state names \['lstm'\]"):
        model.apply(params, INPUTS, state={"lstm": state["rnn"]})


def test_a_seeded_model_is_a_pure_function():
    model = Sequential(LSTM(3), Dropout(0.5), LSTM(3), Dropout(0.5), Dense(2))
    assert_trees_equal(model.init(4, 2), model.init(4, 2))
    params = model.init(4, 2)
    assert np.abs(params["rnn"]["lstm_cell"]["kernel"][:3] - params["rnn_1"]["lstm_cell"]["kernel"][:3]).max() > 0.1
    a = model(params, INPUTS, rng=[1, 0, 7])
    assert_trees_equal(model(params, INPUTS, rng=[1, 0, 7]), a)
    assert np.abs(model(params, INPUTS, rng=[1, 0, 8]) - a).max() > 1e-3
    assert np.abs(model(params, INPUTS) - a).max() > 1e-3
    twice = Sequential(Dropout(0.5), Dropout(0.5))
    assert abs((twice({}, np.ones((100, 100)), rng=0) == 0).mean() - 0.75) < 0.02  # two layers, two draws


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("given", [np.float32, np.float64])
def test_the_parameters_decide_the_dtype(dtype, given):
    model = Sequential(LSTM(3, num_proj=2), Dropout(0.5), Dense(2, activation="tanh"))
    params = random_params(model, dtype=dtype)
    state = {"rnn": LSTMState(np.ones((3, 3), given), np.ones((3, 2), given))}
    outputs, state = model.apply(params, INPUTS.astype(given), state=state, sequence_length=[5, 2, 0], rng=0)
    for name, leaf in named_leaves((outputs, state)):
        assert leaf.dtype == dtype, name
        assert leaf.flags.c_contiguous, name


def test_summary_lists_names_shapes_and_the_count():
    model = Sequential(LSTM(32), Dense(1))
    text = model.summary(model.init(0, 1))
    assert "rnn/lstm_cell/kernel  (33, 128)" in text
    assert text.splitlines()[-1].split() == ["total", "4,385"]


def test_input_dim_is_read_off_the_parameters():
    for model, input_dim in [(Sequential(LSTM(3, num_proj=2), Dense(1)), 5), (Sequential(Dropout(0.1), Dense(2)), 4)]:
        assert model.input_dim(model.init(0, input_dim)) == input_dim


def test_a_model_comes_back_from_its_description():
    model = Sequential(
        Embedding(7, 3),
        LSTM(4, use_peepholes=True, num_proj=3, cell_clip=3.0, proj_clip=1.0, forget_bias=0.5, activation="softsign",
             initializer={"name": "uniform", "limit": 0.1}, learn_initial_state=True),
        RNN(BasicLSTMCell(5, name="mine"), name="enc/inner", reverse=True, backprop="autograd"),
        Dropout(0.2),
        Dense(2, activation="tanh", bias_initializer={"name": "constant", "value": 0.5}),
    )  # fmt: skip
    config = json.loads(json.dumps(model.config()))
    again = from_config(config)
    assert again.config() == model.config()
    assert_trees_equal(again.init(3), model.init(3))
    params, indices = random_params(model), np.array([[0, 6, 2], [3, 3, 1]])
    assert_trees_equal(again(params, indices, rng=5), model(params, indices, rng=5))


@pytest.mark.parametrize("config", [None, {}, {"format": 2, "layers": []}, {"format": 1, "layers": [{"layer": "GRU"}]}])
def test_what_is_no_description_is_refused(config):
    with pytest.raises(ValueError, match="not a model description"):
        from_config(config)


def test_a_function_without_a_name_cannot_be_described():
    for model in (Sequential(LSTM(2, activation=lambda x: x)), Sequential(Dense(2, activation=np.sin))):
        with pytest.raises(ValueError, match="no registered name"):
            model.config()


def test_an_embedding_of_a_single_label_has_a_gradient():
    layer = Embedding(4, 3)
    params = layer.init(0)
    _, grads = value_and_grad(lambda p: anp.sum(layer(p, np.array(2))))(params)
    assert grads["embeddings"].tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0]]


def test_a_layer_around_a_cell_without_config_says_so():
    class Mine:
        name, output_size, state_size = "mine", 2, 2

        def zero_state(self, batch, dtype):
            return np.zeros((batch, 2), dtype)

    with pytest.raises(ValueError, match=r"RNN.config: Mine has no config"):
        RNN(Mine()).config()
