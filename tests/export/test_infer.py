"""Models from names and shapes: what they tell is taken, what they do not tell is asked for."""

import pytest

from minilstm import (
    LSTM,
    RNN,
    BasicLSTMCell,
    Bidirectional,
    Dense,
    Embedding,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    Sequential,
)
from minilstm.export.infer import Options, in_checkpoint, model_from
from minilstm.export.keras import in_weights_h5
from minilstm.export.keras_config import from_keras_config
from minilstm.export.keras_layers import merged
from minilstm.export.torch import in_state_dict
from minilstm.params import flatten_names

KNOWN = Options(forget_bias=0.5, activation="tanh", dense_activation="linear")


def shapes(model, input_dim=2):
    return {name: array.shape for name, array in flatten_names(model.init(0, input_dim)).items()}


@pytest.mark.parametrize(
    "model",
    [
        Sequential(LSTM(3, forget_bias=0.5), Dense(1)),
        Sequential(RNN(BasicLSTMCell(3, forget_bias=0.5), name="enc/inner")),
        Sequential(Embedding(9, 4), RNN(MultiRNNCell([LSTMCell(3, forget_bias=0.5) for _ in range(11)]))),
        Sequential(LSTM(4, forget_bias=0.5, num_proj=2, use_peepholes=True), Dense(5), Dense(2), Dense(5)),
        Sequential(*(LSTM(2, forget_bias=0.5) for _ in range(12))),
        Sequential(LSTM(3, name="z", forget_bias=0.5), LSTM(4, name="a", forget_bias=0.5), Dense(1)),
    ],
    ids=["plain", "basic", "stack", "options", "numbered", "by width"],
)
def test_a_model_is_told_by_its_checkpoint(model):
    found = model_from(in_checkpoint(dict(reversed(shapes(model).items())), "here"), KNOWN, "here")
    assert found.config() == model.config()


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        (Options(), "--forget-bias, --activation, --dense-activation; give them"),
        (Options(forget_bias=0.0, activation="tanh"), "--dense-activation; give it"),
    ],
)
def test_what_weights_do_not_tell_is_asked_for(known, asked):
    found = in_checkpoint(shapes(Sequential(LSTM(3), Dense(1))), "here")
    with pytest.raises(ValueError, match=f"weights alone do not tell {asked}"):
        model_from(found, known, "here")


def test_clips_are_taken_from_the_options():
    found = in_checkpoint(shapes(Sequential(LSTM(3, num_proj=2))), "here")
    cell = model_from(found, KNOWN._replace(cell_clip=1.5, proj_clip=2.5), "here").layers[0].cell
    assert (cell.cell_clip, cell.proj_clip, cell.num_proj) == (1.5, 2.5, 2)


def test_an_order_that_widths_do_not_tell_is_no_answer():
    model = Sequential(LSTM(2, name="encoder"), LSTM(2, name="decoder"))
    with pytest.raises(ValueError, match=r"leave 2 orders of the layers encoder \(2 to 2\), decoder \(2 to 2\)"):
        model_from(in_checkpoint(shapes(model), "here"), KNOWN, "here")
    model = Sequential(LSTM(2), Dense(3))
    broken = {**shapes(model), "dense/kernel": (7, 3)}
    with pytest.raises(ValueError, match="leave 0 orders"):
        model_from(in_checkpoint(broken, "here"), KNOWN, "here")
    with pytest.raises(ValueError, match="no layer that is known here"):
        model_from([], KNOWN, "here")


@pytest.mark.parametrize(
    "arrays",
    [
        {"rnn/gru_cell/gates/kernel": (4, 4), "rnn/gru_cell/gates/bias": (4,)},
        {"scale": (3,)},
        {"embedding/table": (3, 4)},
    ],
)
def test_a_strange_name_in_a_checkpoint_is_refused(arrays):
    with pytest.raises(ValueError, match=r"here: .* is neither an LSTM cell, nor Dense, nor Embedding"):
        in_checkpoint(arrays, "here")
    with pytest.raises(ValueError, match="needs kernel and bias, got"):
        in_checkpoint({"rnn/lstm_cell/kernel": (4, 4)}, "here")


def test_a_state_dict_tells_its_modules():
    arrays = {"emb.weight": (9, 4), "out.weight": (2, 3), "out.bias": (2,)}
    for depth, width in ((0, 4), (1, 3)):
        arrays |= {f"rnn.weight_ih_l{depth}": (20, width), f"rnn.weight_hh_l{depth}": (20, 3)}
        arrays |= {f"rnn.bias_{side}_l{depth}": (20,) for side in ("ih", "hh")} | {f"rnn.weight_hr_l{depth}": (3, 5)}
    model = model_from(in_state_dict(arrays, "here"), KNOWN, "here")
    cells = [LSTMCell(5, num_proj=3, forget_bias=0.5) for _ in range(2)]
    wanted = Sequential(Embedding(9, 4, name="emb"), RNN(MultiRNNCell(cells)), Dense(2, name="out"))
    assert model.config() == wanted.config()
    with pytest.raises(ValueError, match="both weights and both biases"):
        in_state_dict({"rnn.weight_ih_l0": (4, 1), "rnn.weight_hh_l0": (4, 1)}, "here")
    with pytest.raises(ValueError, match="no Linear with a bias"):
        in_state_dict({"out.weight": (4, 1)}, "here")


def test_a_weights_file_of_keras_tells_its_layers():
    arrays = {"layers/lstm/cell/vars/0": (2, 12), "layers/lstm/cell/vars/1": (3, 12), "layers/lstm/cell/vars/2": (12,)}
    arrays |= {"layers/dense/vars/0": (3, 4), "layers/dense/vars/1": (4,)}
    model = model_from(in_weights_h5(arrays, "here"), KNOWN, "here")
    assert model.config() == Sequential(LSTM(3, forget_bias=0.5, name="lstm"), Dense(4)).config()


GRU_LAYER = {"vars/0": (2, 9), "vars/1": (3, 9), "vars/2": (2, 9)}
BOTH = {f"{way}/cell/{key}": shape for way in ("forward_layer", "backward_layer") for key, shape in GRU_LAYER.items()}


def in_layer(layer, arrays):
    return {f"layers/{layer}/{key}": shape for key, shape in arrays.items()}


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_weights_file_of_keras_tells_a_gru_its_formula_and_both_directions(reset_after):
    bias = (2, 9) if reset_after else (9,)
    arrays = {**in_layer("gru/cell", GRU_LAYER), "layers/gru/cell/vars/2": bias, **in_layer("bidirectional", BOTH)}
    arrays |= {f"layers/bidirectional/{way}_layer/cell/vars/0": (3, 9) for way in ("forward", "backward")}
    arrays |= {"layers/dense/vars/0": (6, 4), "layers/dense/vars/1": (4,)}
    model = model_from(in_weights_h5(arrays, "here"), KNOWN._replace(forget_bias=None), "here")
    cell = GRUCell(3, reset_after=reset_after)
    both = Bidirectional(GRUCell(3, reset_after=True), name="bidirectional")
    assert model.config() == Sequential(RNN(cell, name="gru"), both, Dense(4)).config()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"layers/simple_rnn/cell/vars/0": (2, 3)}, "belongs to no LSTM, GRU, Dense or Embedding"),
        ({"layers/gru/cell/vars/3": (2, 3)}, "belongs to no LSTM, GRU, Dense or Embedding"),
        ({"layers/bidirectional/vars/0": (2, 3)}, "belongs to no LSTM, GRU, Dense or Embedding"),
        ({"layers/lstm/forward_layer/cell/vars/0": (2, 3)}, "belongs to no LSTM, GRU, Dense or Embedding"),
        (in_layer("lstm/cell", GRU_LAYER), r"lstm/kernel .* an LSTM of 3 units wants \(2, 12\): 3 x 3 columns: a GRU"),
        (
            in_layer("gru/cell", {"vars/0": (2, 12), "vars/1": (3, 12), "vars/2": (12,)}),
            r"gru/kernel .* a GRU of 3 units wants \(2, 9\): 4 x 3 columns: an LSTM",
        ),
        ({**in_layer("gru/cell", GRU_LAYER), "layers/gru/cell/vars/2": (3, 9)}, r"gru/bias .* wants \(2, 9\)"),
        (
            {**in_layer("bidirectional", BOTH), "layers/bidirectional/backward_layer/cell/vars/2": (9,)},
            "the two directions of bidirectional differ",
        ),
        (
            {name: shape for name, shape in in_layer("bidirectional", BOTH).items() if "backward" not in name},
            "forward_layer/kernel .* is neither",
        ),
    ],
)
def test_arrays_that_are_no_layer_of_keras_are_refused(arrays, message):
    with pytest.raises(ValueError, match=f"here: .*{message}"):
        in_weights_h5(arrays, "here")


def test_how_the_outputs_of_a_last_bidirectional_are_joined_is_not_guessed():
    found = in_weights_h5(in_layer("bidirectional", BOTH), "here")
    with pytest.raises(ValueError, match=r"here: the model ends with a Bidirectional, .* merge_mode"):
        merged(model_from(found, KNOWN, "here"), "here")


KERAS_GRU = {"units": 3, "activation": "tanh", "return_sequences": True, "go_backwards": False}


def keras_model(**options):
    config = {"name": "both", "merge_mode": "concat", **options}
    return {"class_name": "Sequential", "config": {"layers": [{"class_name": "Bidirectional", "config": config}]}}


def keras_gru(**options):
    return {"class_name": "GRU", "config": {**KERAS_GRU, **options}}


def test_a_configuration_of_keras_tells_both_directions():
    wanted = Sequential(Bidirectional(GRUCell(3, reset_after=True), name="both")).config()
    back = keras_gru(go_backwards=True)
    for config in (keras_model(layer=keras_gru()), keras_model(layer=keras_gru(), backward_layer=back)):
        assert from_keras_config(config, "here").config() == wanted
    other = keras_gru(go_backwards=True, reset_after=False, units=4)
    found = from_keras_config(keras_model(layer=keras_gru(), backward_layer=other), "here").layers[0]
    assert (found.backward.cell.units, found.backward.cell.reset_after, found.backward.reverse) == (4, False, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": keras_gru(go_backwards=True)}, "'both' has go_backwards=True in its layer, wanted False"),
        ({"layer": keras_gru(), "backward_layer": keras_gru()}, "go_backwards=False in its backward_layer, wanted"),
        ({"layer": keras_gru(), "merge_mode": "ave"}, "'both' has merge_mode='ave', wanted 'concat'"),
        ({"layer": keras_gru(), "merge_mode": None}, "'both' has merge_mode=None, wanted 'concat'"),
        ({"layer": keras_gru(stateful=True)}, "stateful=True, wanted False"),
        ({"layer": keras_gru(), "backward_layer": keras_gru(activation="gelu")}, "activation='gelu'"),
    ],
)
def test_a_configuration_that_has_no_counterpart_is_refused(options, message):
    with pytest.raises(ValueError, match=f"here: layer .*{message}"):
        from_keras_config(keras_model(**options), "here")


def module(blocks, units, width, name="rnn", depth=0, end=""):
    shapes = {"weight_ih": (blocks * units, width), "weight_hh": (blocks * units, units)}
    shapes |= {"bias_ih": (blocks * units,), "bias_hh": (blocks * units,)}
    return {f"{name}.{key}_l{depth}{end}": shape for key, shape in shapes.items()}


def test_a_state_dict_tells_grus_and_both_directions():
    arrays = module(3, 5, 2, "gru") | module(3, 5, 5, "gru", 1)
    for end in ("", "_reverse"):
        arrays |= module(4, 3, 5, "zwei", 0, end) | module(4, 3, 6, "zwei", 1, end) | module(3, 4, 6, "drei", 0, end)
    model = model_from(in_state_dict(arrays, "here"), KNOWN, "here")
    grus = [GRUCell(5, reset_after=True) for _ in range(2)]
    assert model.config() == Sequential(
        RNN(MultiRNNCell(grus), name="gru"),
        *(Bidirectional(LSTMCell(3, forget_bias=0.5), name=f"zwei/cell_{n}") for n in range(2)),
        Bidirectional(GRUCell(4, reset_after=True), name="drei"),
    ).config()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (module(4, 3, 2, end="_reverse"), "rnn has the backward direction of a layer, and not the forward one"),
        (module(4, 3, 2) | module(4, 2, 2, end="_reverse"), "the two directions of rnn differ"),
        (module(4, 3, 2) | module(3, 3, 2, end="_reverse"), "the two directions of rnn differ"),
        (module(4, 3, 2) | module(4, 3, 2, end="_reverse") | module(4, 3, 6, depth=1), "the two directions of rnn"),
        (
            module(4, 3, 2) | module(4, 3, 2, end="_reverse")
            | module(4, 3, 3, depth=1) | module(4, 3, 3, depth=1, end="_reverse"),
            "cell 0 of rnn gives 6 features, and cell 1 takes 3",
        ),
    ],
)  # fmt: skip
def test_directions_that_do_not_fit_each_other_are_refused(arrays, message):
    with pytest.raises(ValueError, match=f"here: {message}"):
        in_state_dict(arrays, "here")
