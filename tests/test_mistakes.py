"""What people do with models, cells and optimizers without meaning to: it is done right, or refused by name."""

import copy
import pickle
from collections import namedtuple

import numpy as np
import pytest
from helpers import assert_close, assert_trees_equal

from minilstm import (
    LSTM,
    RNN,
    SGD,
    Adam,
    AdamW,
    BasicRNNCell,
    Bidirectional,
    CoupledLSTMCell,
    Dense,
    DropoutWrapper,
    Embedding,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    ResidualWrapper,
    Sequential,
    clip_by_global_norm,
    fit,
    from_config,
    generate,
    global_norm,
    gradcheck,
    initializers,
    load_checkpoint,
    losses,
    predict,
    sampler,
    save_checkpoint,
    schedules,
    value_and_grad,
)
from minilstm.activations import ACTIVATIONS, Activation
from minilstm.cells import Cell
from minilstm.params import set_path, tree_leaves

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(3, 4, 2)).astype(np.float32)
TARGETS = np.zeros((3, 4, 1), np.float32)

# --- weights that no layer reads ------------------------------------------------------------------------------

STACK = Sequential(
    Bidirectional(LSTM(3)), RNN(ResidualWrapper(LSTMCell(6)), name="enc"),
    RNN(MultiRNNCell([GRUCell(3), LSTMCell(2)]), name="enc/rnn"), Dense(1),
)  # fmt: skip


def use(name, model, params):
    calls = {
        "predict": lambda: predict(model, params, INPUTS),
        "generate": lambda: generate(model, params, INPUTS[..., :1], 2),
        "fit": lambda: fit(model, params, losses.mse, (INPUTS, TARGETS), optimizer=AdamW(0.1), epochs=1),
    }
    return calls[name]()


@pytest.mark.parametrize("function", ["predict", "generate", "fit"])
def test_a_learned_state_that_the_model_does_not_read_is_refused(function):
    width = 1 if function == "generate" else 2
    learned = Sequential(LSTM(4, learn_initial_state=True), Dense(1)).init(0, width)
    message = rf"^{function}: params: no layer reads \['rnn/initial_state/c', 'rnn/initial_state/h'\]: is an option"
    with pytest.raises(ValueError, match=message):
        use(function, Sequential(LSTM(4), Dense(1)), learned)


@pytest.mark.parametrize(
    "path", ["dense/extra", "enc/old", "enc/rnn/old", "bidirectional_rnn/fw/initial_state/c", "enc/lstm_cell/w_i_diag"]
)
def test_a_weight_that_no_layer_reads_is_named_wherever_it_is(path):
    params = STACK.init(0, 2)
    predict(STACK, params, INPUTS)
    set_path(params, path, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=rf"predict: params: no layer reads \['{path}'\]"):
        predict(STACK, params, INPUTS)


def test_a_users_own_layer_reads_what_it_likes():
    class Scaled(Dense):
        def apply(self, params, inputs, state=None, sequence_length=None, rng=None):
            return super().apply({key: params[key] for key in ("kernel", "bias")}, inputs)[0] * params["by"], None

    model = Sequential(LSTM(4), Scaled(1))
    params = model.init(0, 2)
    params["dense"]["by"] = np.float32([3])
    assert predict(model, params, INPUTS).shape == (3, 4, 1)


def test_an_option_that_is_set_later_changes_which_weights_fit():
    cell = LSTMCell(4)
    layer = RNN(cell)
    params = layer.init(0, 2)
    layer(params, INPUTS)
    cell.use_peepholes = True
    with pytest.raises(ValueError, match="lstm_cell/w_f_diag is missing"):
        layer(params, INPUTS)
    again = pickle.loads(pickle.dumps(layer))
    assert again(layer.init(0, 2), INPUTS).shape == copy.deepcopy(layer)(layer.init(0, 2), INPUTS).shape


# --- classes of a user's own ----------------------------------------------------------------------------------


class Tenfold(LSTM):
    def apply(self, *args, **options):
        outputs, state = super().apply(*args, **options)
        return 10 * outputs, state


class Doubled(LSTMCell):
    def step(self, params, x_t, c, h):
        return super().step(params, x_t, 2 * c, h)


Doubled.__name__ = Doubled.__qualname__ = "LSTMCell"


class Forgetful(LSTM):
    """Only made in another way."""

    def __init__(self, units):
        super().__init__(units, forget_bias=0.0)


class Named(LSTM):
    default_name = "mine"


class Renamed(Sequential):
    def apply(self, *args, **options):
        return super().apply(*args, **options)


@pytest.mark.parametrize("layer", [Tenfold(3), RNN(Doubled(3)), Bidirectional(Tenfold(3)), Named(3)])
def test_a_class_that_computes_something_else_is_not_saved_as_the_one_it_changes(layer, tmp_path):
    model = Sequential(layer, Dense(1))
    with pytest.raises(ValueError, match=r"save_checkpoint: model must be made of minilstm's layers.*test_mistakes\."):
        save_checkpoint(tmp_path / "m", model.init(0, 2), model=model)
    assert not list(tmp_path.iterdir())


def test_a_model_of_a_users_own_class_is_not_described():
    with pytest.raises(ValueError, match=r"Sequential.config: self must be a plain Sequential, got test_mistakes"):
        Renamed(LSTM(3)).config()


def test_a_class_that_is_only_made_in_another_way_is_saved_as_what_it_is(tmp_path):
    model = Sequential(Forgetful(3), Bidirectional(Forgetful(2)), Dense(1))
    params = model.init(0, 2)
    loaded = load_checkpoint(save_checkpoint(tmp_path / "m", params, model=model))
    assert_trees_equal(loaded.model(loaded.params, INPUTS), model(params, INPUTS))


def test_a_direction_keeps_its_class():
    both = Bidirectional(Tenfold(3))
    assert type(both.forward) is type(both.backward) is Tenfold
    params = both.init(0, 2)
    single = Tenfold(3)
    assert_trees_equal(both(params, INPUTS)[..., :3], single(params["fw"], INPUTS))
    assert not single.reverse


def test_an_initial_state_of_a_users_own_is_used():
    class Ones(LSTM):
        def initial_state(self, params, batch):
            return tuple(np.ones((batch, 3), np.float32) for _ in range(2))

    layer = Ones(3)
    params = layer.init(0, 2)
    assert_trees_equal(layer(params, INPUTS), layer.apply(params, INPUTS, state=layer.initial_state(params, 3))[0])


def test_a_rule_of_a_users_own_is_used_in_adam_too():
    class Signs(Adam):
        def rule(self, rate, w, g, m, v):
            return w - 0.5 * np.sign(g), m, v

    params, optimizer = {"w": np.ones(2)}, Signs(1e-3)
    new, _ = optimizer.update(params, {"w": np.array([3.0, -3.0])}, optimizer.init(params))
    assert new["w"].tolist() == [0.5, 1.5]


# --- rates, seeds, initializers -------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [-0.025, -1, 1e300, np.inf, np.nan])
def test_a_rate_below_zero_or_without_end_is_refused_at_its_step(rate):
    with pytest.raises(ValueError, match=r"SGD: learning_rate\(step=7\)"):
        SGD(lambda step: rate).rate(7)


@pytest.mark.parametrize("rate", [-1.0, "0.1", None])
def test_a_rate_that_is_set_later_is_checked_too(rate):
    optimizer = SGD(0.1)
    optimizer.learning_rate = rate
    with pytest.raises(ValueError, match="SGD: learning_rate must be 0 or more"):
        optimizer.rate(0)


@pytest.mark.parametrize("seed", [True, False, np.True_])
def test_a_switch_is_no_seed(seed):
    """``training=False`` of Keras must not draw dropout masks."""
    model = Sequential(RNN(DropoutWrapper(LSTMCell(4), output_keep_prob=0.5)))
    params = model.init(0, 2)
    with pytest.raises(ValueError, match=r"Sequential.apply: rng must be"):
        model(params, INPUTS, rng=seed)
    with pytest.raises(ValueError, match=r"Sequential.init: seed must be"):
        model.init(seed, 2)


@pytest.mark.parametrize("kind", [GRUCell, BasicRNNCell, CoupledLSTMCell, Dense])
def test_chrono_is_for_the_gates_of_an_lstm(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__}: bias_initializer: Chrono makes the bias of an LSTMCell"):
        kind(4, bias_initializer=initializers.Chrono(10))
    assert LSTMCell(4, bias_initializer=initializers.Chrono(10)).init(0, 2)["bias"].any()


def test_an_initializer_keeps_the_array_that_it_was_given():
    given = np.zeros(8)
    cell = LSTMCell(2, bias_initializer=given)
    given += 5
    assert not cell.init(0, 3)["bias"].any()


@pytest.mark.parametrize("value", [True, False, 1e39, np.full(8, 1e39)])
def test_what_no_weight_can_be_is_refused(value):
    with pytest.raises(ValueError, match=r"LSTMCell: bias_initializer: (wanted numbers|every number must be finite)"):
        LSTMCell(2, bias_initializer=value).init(0, 3)


@pytest.mark.parametrize("kind", [initializers.Constant, initializers.Uniform, initializers.Orthogonal])
def test_an_initializer_refuses_what_a_dtype_cannot_hold(kind):
    cell = LSTMCell(2, initializer=kind(1e39))
    with pytest.raises(ValueError, match=rf"{kind.__name__}: \w+: every number must be finite in float32"):
        cell.init(0, 3)
    assert np.isfinite(cell.init(0, 3, np.float64)["kernel"]).all()


@pytest.mark.parametrize("schedule", [
    schedules.constant(0.5), schedules.exponential(0.1, 10, 0.5, staircase=True), schedules.piecewise([3], [0.1, 0.01]),
    schedules.warm_up(schedules.cosine(0.2, 100), 5), schedules.halving(0.5, 1, 4),
])  # fmt: skip
def test_an_optimizer_with_a_schedule_goes_to_another_process(schedule):
    again = pickle.loads(pickle.dumps(Adam(schedule)))
    assert [again.rate(step) for step in (0, 3, 4, 50)] == [Adam(schedule).rate(step) for step in (0, 3, 4, 50)]


def test_boundaries_must_increase():
    with pytest.raises(ValueError, match="piecewise: boundaries must increase"):
        schedules.piecewise([5, 5], [1, 2, 3])


# --- results that are arrays of their own ---------------------------------------------------------------------


def test_two_gradients_are_two_arrays():
    _, grads = value_and_grad(lambda p: ((p["w"] + p["b"]) ** 2).sum())({"w": np.ones(2), "b": np.ones(2)})
    grads["w"] *= 0.5
    assert grads["b"].tolist() == [4, 4]


@pytest.mark.parametrize(
    "cell", [LSTMCell(4), GRUCell(4), BasicRNNCell(4), CoupledLSTMCell(4), MultiRNNCell([LSTMCell(4)])],
    ids=lambda cell: type(cell).__name__,
)  # fmt: skip
def test_an_output_is_not_the_state(cell):
    output, state = cell(cell.init(0, 2), INPUTS[:, 0], cell.zero_state(3))
    before = [leaf.copy() for leaf in tree_leaves(state)]
    output *= 0
    assert_trees_equal(tree_leaves(state), before)


def test_predict_copies_what_a_model_returns():
    buffer = np.empty((2, 3))

    def model(params, x):
        return np.multiply(x, 2, out=buffer[: len(x)])

    inputs = np.arange(15.0).reshape(5, 3)
    assert_trees_equal(predict(model, {}, inputs, batch_size=2), 2 * inputs)


# --- numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.float16(1e-4), np.float16(6e4), np.float32(1e-23), np.float32(1e25)])
@pytest.mark.parametrize("count", [1, 4])
def test_the_norm_of_tiny_and_huge_gradients(value, count):
    assert global_norm({"w": np.full(count, value)}) == pytest.approx(float(value) * count**0.5, rel=1e-6)


def test_the_norm_of_what_is_no_number():
    assert global_norm({"w": np.float64([1e170, 1e170])}) == pytest.approx(1e170 * 2**0.5)
    assert global_norm({"w": np.float32([np.inf, 1])}) == np.inf
    assert np.isnan(global_norm({"w": np.float32([np.nan, 1])}))
    assert global_norm({"w": np.zeros(3)}) == global_norm({"w": np.zeros(0)}) == global_norm({}) == 0
    grads, norm = clip_by_global_norm({"w": np.float32([1e-23])}, 1e-30)
    assert norm == pytest.approx(1e-23)
    assert_close(grads["w"].astype(np.float64), np.array([1e-30]), 1e-6)


def test_a_residual_has_one_width():
    cell = ResidualWrapper(LSTMCell(4))
    with pytest.raises(ValueError, match=r"ResidualWrapper: x_t must have the shape of the output \(1, 4\), got"):
        cell(LSTMCell(4).init(0, 1), np.array([[10.0]]), cell.zero_state(1))


def test_top_k_is_at_most_k_labels():
    logits = np.array([[2.0, 1.0, 2.0, 2.0, -3.0]])
    for k in (1, 2):
        drawn = {int(sampler(top_k=k)(logits, np.random.default_rng(n))[0]) for n in range(60)}
        assert len(drawn) == k
        assert drawn < {0, 2, 3}


def test_a_named_state_is_read_by_its_names():
    layer, (c, h) = LSTM(3), RNG.normal(size=(2, 3, 3)).astype(np.float32)
    params = layer.init(0, 2)
    swapped = namedtuple("swapped", "h c")(h, c)
    assert_trees_equal(layer.apply(params, INPUTS, state=swapped), layer.apply(params, INPUTS, state=(c, h)))


# --- gradcheck, and cells of a user's own ---------------------------------------------------------------------


def test_gradcheck_reports_on_a_time_major_model():
    assert gradcheck.report(LSTM(3, time_major=True), batch=3, time=5, sequence_length=[5, 3, 1]).agrees


@pytest.mark.parametrize("layer", [LSTM(3, learn_initial_state=True), Bidirectional(LSTM(2, learn_initial_state=True))])
def test_gradcheck_reports_on_a_learned_initial_state(layer):
    report = gradcheck.report(Sequential(Embedding(5, 2), layer))
    assert report.agrees
    learned = [row for row in report.rows if "initial_state/" in row.name]
    assert len(learned) >= 2
    assert all(row.largest > 0 for row in learned)


@pytest.mark.parametrize("kind", [LSTMCell, GRUCell, BasicRNNCell])
def test_a_registered_activation_works_in_every_cell(kind, monkeypatch):
    mine = Activation(lambda x: x / 2, lambda y: np.full_like(y, 0.5))
    monkeypatch.setitem(ACTIVATIONS, "mine", mine)
    assert gradcheck.report(RNN(kind(3, activation="mine"))).agrees


class Counted(Cell):
    """Its state is a dict."""

    default_name, output_size = "counted", 3
    state_size = {"sum": 3, "count": 1}  # noqa: RUF012

    def zero_state(self, batch, dtype=np.float32):
        return {name: np.zeros((batch, width), dtype) for name, width in self.state_size.items()}

    def init(self, seed, input_dim=None, dtype=np.float32):
        return {"w": np.ones((input_dim, 3), dtype)}

    def __call__(self, params, x_t, state, masks=None):
        total = x_t @ params["w"] + state["sum"]
        return total / (state["count"] + 1), {"sum": total, "count": state["count"] + 1}


def test_a_state_may_be_a_dict():
    layer = RNN(Counted(), learn_initial_state=True)
    params = layer.init(0, 2)
    assert set(params["initial_state"]) == {"sum", "count"}
    assert_close(layer(params, INPUTS)[:, -1], np.repeat(INPUTS.mean(axis=1).sum(-1)[:, None], 3, 1), 1e-5)
    dropped = RNN(DropoutWrapper(Counted(), state_keep_prob=0.5))
    assert dropped(dropped.init(0, 2), INPUTS, rng=0).shape == (3, 4, 3)


def test_what_a_layer_is_asked_for_is_named():
    both = Bidirectional(LSTMCell(3))
    with pytest.raises(ValueError, match=r"Bidirectional.apply: state must be a pair \(fw, bw\)"):
        both.apply(both.init(0, 2), INPUTS, state=(None,))
    with pytest.raises(ValueError, match=r"Bidirectional.initial_state: params must hold 'fw'"):
        both.initial_state({}, 3)
    with pytest.raises(ValueError, match=r"^RNN.initial_state: params must be"):
        RNN(LSTMCell(4)).initial_state(None, 3)
    assert Dense(2).init(0, 4, ">f4")["kernel"].dtype.isnative
    with pytest.raises(ValueError, match=r"SGD.update: grads must be like params: .*keys \['a'\], got \[1, 'a'\]"):
        SGD().update({"a": np.ones(1)}, {"a": np.ones(1), 1: np.ones(1)}, SGD().init({}))


def test_a_description_of_a_users_class_is_refused_when_read():
    with pytest.raises(ValueError, match=r"test_mistakes.Tenfold"):
        from_config(Sequential(Tenfold(3)).config())
