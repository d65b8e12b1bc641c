"""Options, declared once: the argument, the attribute, the description and what is shown are the same thing."""

import inspect

import numpy as np
import pytest

import minilstm
from minilstm import (
    LSTM,
    RNN,
    Adam,
    BasicLSTMCell,
    BasicRNNCell,
    Bidirectional,
    CoupledLSTMCell,
    Dense,
    Dropout,
    DropoutWrapper,
    Embedding,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    ResidualWrapper,
    Sequential,
    from_config,
)
from minilstm.options import declared

RECIPES = [
    LSTMCell(3, forget_bias=0.5, use_peepholes=True, cell_clip=2.0, num_proj=2, proj_clip=1.5, activation="relu"),
    BasicLSTMCell(3, forget_bias=0.5, name="mine"),
    BasicRNNCell(3, activation="relu"),
    GRUCell(3, bias_initializer="zeros", reset_after=True),
    CoupledLSTMCell(3, forget_bias=0.25),
    DropoutWrapper(LSTMCell(3), input_keep_prob=0.5, variational_recurrent=True),
    ResidualWrapper(LSTMCell(3)),
    MultiRNNCell([LSTMCell(3), GRUCell(2)], name="stack"),
    RNN(LSTMCell(3), backprop="readable", reverse=True, learn_initial_state=True, recompute=5, name="runner"),
    Bidirectional(LSTMCell(3), GRUCell(2), name="both"),
    Dense(2, activation="tanh", initializer="orthogonal"),
    Embedding(7, 3, initializer="zeros"),
    Dropout(0.25, name="drop"),
]
IDS = [type(recipe).__name__ for recipe in RECIPES]


def options_of(recipe):
    return {field.name: getattr(recipe, field.name) for field in declared(recipe)}


@pytest.mark.parametrize("recipe", RECIPES, ids=IDS)
def test_every_argument_is_an_attribute_and_an_entry_of_the_description(recipe):
    arguments = set(inspect.signature(type(recipe)).parameters) - {"num_units"}
    assert set(options_of(recipe)) == arguments
    keys = set(recipe.config()) - {recipe.kind}
    assert keys == {"inner" if name == "cell" and recipe.kind == "cell" else name for name in arguments}


@pytest.mark.parametrize("recipe", RECIPES, ids=IDS)
def test_the_options_make_the_same_recipe_again(recipe):
    again = type(recipe)(**options_of(recipe))
    assert again.config() == recipe.config()
    assert repr(again) == repr(recipe)


@pytest.mark.parametrize("recipe", RECIPES[:4], ids=IDS[:4])
def test_what_is_shown_makes_the_same_recipe_again(recipe):
    """All but initializers, which are not shown."""
    again = eval(repr(recipe), vars(minilstm))
    assert repr(again) == repr(recipe)
    assert {**again.config(), "bias_initializer": None} == {**recipe.config(), "bias_initializer": None}


def test_help_shows_all_options_of_an_lstm_with_their_defaults():
    found = inspect.signature(LSTM).parameters
    assert found["forget_bias"].default == 1.0
    assert found["return_sequences"].default is True
    assert set(found) == set(inspect.signature(RNN).parameters) - {"cell"} | set(inspect.signature(LSTMCell).parameters)
    assert "forget_bias" in str(inspect.signature(LSTM))


def test_two_recipes_with_the_same_options_are_two():
    assert LSTMCell(3) != LSTMCell(3)
    assert len({LSTMCell(3), LSTMCell(3)}) == 2


def test_a_basic_cell_does_not_offer_what_it_has_not():
    with pytest.raises(TypeError, match="use_peepholes"):
        BasicLSTMCell(3, use_peepholes=True)
    assert "use_peepholes" not in BasicLSTMCell(3).config()


@pytest.mark.parametrize(("old", "new"), [("bptt", "fast"), ("reference", "readable"), ("autograd", "autograd")])
def test_the_old_words_for_backprop_are_accepted_and_written(old, new):
    layers = [LSTM(3, backprop=word) for word in (old, new)]
    assert [layer.backprop for layer in layers] == [new, new]
    assert [layer.config()["backprop"] for layer in layers] == [old, old]  # the bytes of checkpoints stay
    assert from_config(Sequential(layers[0]).config()).layers[0].backprop == new


def test_optimizers_show_every_option():
    assert repr(Adam(0.5)) == (
        f"Adam(learning_rate=0.5, beta1={float(np.float32(0.9))}, beta2={float(np.float32(0.999))}, "
        f"epsilon={float(np.float32(1e-8))})"
    )
