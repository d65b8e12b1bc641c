"""Second derivatives by hand against the trace, central differences of the gradient, and real TensorFlow's numbers."""

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from helpers import (
    GOLDEN,
    RandomLoss,
    assert_close,
    assert_trees_close,
    assert_trees_equal,
    golden_layer,
    largest,
    named_leaves,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import networks
from test_wrappers import nested_networks

from minilstm import (
    LSTM,
    RNN,
    Bidirectional,
    Dense,
    Dropout,
    Embedding,
    GRUCell,
    LSTMCell,
    LSTMState,
    MultiRNNCell,
    Sequential,
    bptt,
    hessian_vector_product,
    jvp,
    losses,
    value_and_grad,
)
from minilstm.activations import ACTIVATIONS, Activation
from minilstm.fast import lstm as fast_lstm
from minilstm.fast.activations import ONE_TANH_OF_DOUBLES
from minilstm.fast.loops import CACHE_BYTES
from minilstm.params import tree_leaves, tree_map
from minilstm.second import tangents

DERIVED = ("fast", "readable")
GOLDEN_CASES = [
    "a_notebook_f64", "c_basic_f64", "d_peephole_f64", "e_proj_f64", "f_full_f64", "g_relu_f64", "g_sigmoid_f64",
    "h_multi_f64", "i_dynamic_f64", "i_static_f64",
]  # fmt: skip


def inner(a, b):
    """The inner product of two trees."""
    return sum(anp.sum(x * y) for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True))


def direction_like(tree, seed):
    """A random direction of length 1."""
    rng = np.random.default_rng([seed, 8])
    direction = tree_map(lambda leaf: rng.normal(size=leaf.shape), tree)
    length = np.sqrt(inner(direction, direction))
    return tree_map(lambda leaf: (leaf / length).astype(leaf.dtype), direction)


def along(tree, direction, step):
    """`tree` moved along a direction."""
    return tree_map(lambda leaf, d: leaf + step * d, tree, direction)


def with_leaves(tree, leaves):
    """A tree with other leaves."""
    leaves = iter(leaves)
    return tree_map(lambda _: next(leaves), tree)


def case_of(network, backprop, layer=None):
    """(loss, tree) of a network: a loss of all outputs and final states, and params, inputs and initial state."""
    layer = RNN(network.cell, backprop=backprop) if layer is None else layer
    weigh = RandomLoss(network.seed)
    rng = getattr(network, "rng", None)

    def loss(tree):
        outputs, final = layer.apply(tree["params"], tree["inputs"], tree["state"], network.lengths, rng)
        return weigh([outputs, final])

    return loss, {"params": {network.cell.name: network.params}, "inputs": network.inputs, "state": network.state}


def reverse_over_reverse(loss, tree, vector):
    """The product of the Hessian and a vector, from two backward passes."""
    return value_and_grad(lambda tree: inner(value_and_grad(loss)(tree)[1], vector))(tree)[1]


def sides(network, tree):
    """On which side of its kinks each number of an LSTM is: clips, relu and softsign."""
    tape = bptt.Tape()
    inputs = np.swapaxes(tree["inputs"], 0, 1)
    params = tree["params"][network.cell.name]
    weights = [params.get(name) for name in bptt.WEIGHTS[:-1]] + [params.get("projection", {}).get("kernel")]
    bptt.lstm_sequence(
        inputs, *tree["state"], *weights, cell=network.cell, sequence_length=network.lengths, tape=tape
    )
    cell, found = network.cell, []
    for step in tape.steps:
        found += [np.abs(step.unclipped_c) <= (cell.cell_clip or np.inf), step.j > 0, step.a > 0]
        found.append(np.abs(step.unclipped_h) <= (cell.proj_clip or np.inf))
    return np.concatenate([part.ravel() for part in found])


# --- products of the Hessian ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backprop", DERIVED)
@given(network=networks())
def test_products_equal_the_trace_in_every_order(backprop, network):
    loss, tree = case_of(network, backprop)
    traced_loss, _ = case_of(network, "autograd")
    vector = direction_like(tree, network.seed)
    traced = reverse_over_reverse(traced_loss, tree, vector)
    assume(largest(traced) > 1e-4)  # there is something to disagree about
    value, grads, product = hessian_vector_product(loss)(tree, vector)
    traced_value, traced_grads = value_and_grad(traced_loss)(tree)
    assert_close(value, traced_value, 1e-10, "loss")
    assert_trees_close(grads, traced_grads, 1e-10)
    assert_trees_close({"forward over reverse": product}, {"forward over reverse": traced}, 1e-10)
    over_reverse = reverse_over_reverse(loss, tree, vector)
    assert_trees_close({"reverse over reverse": over_reverse}, {"reverse over reverse": traced}, 1e-10)
    over_forward = value_and_grad(lambda tree: jvp(loss)(tree, vector)[1])(tree)[1]
    assert_trees_close({"reverse over forward": over_forward}, {"reverse over forward": traced}, 1e-10)


@pytest.mark.parametrize("backprop", DERIVED)
def test_one_forward_pass_serves_two_sweeps_with_tangents(backprop):
    rnn = RNN(LSTMCell(3), backprop=backprop)
    rng = np.random.default_rng(1)
    weights, x, g = rnn.init(0, 2, np.float64)["lstm_cell"], rng.normal(size=(2, 4, 2)), rng.normal(size=(2, 4, 3))

    def two_sweeps(kernel):
        pull, _ = autograd.make_vjp(lambda kernel: rnn({"lstm_cell": {**weights, "kernel": kernel}}, x))(kernel)
        return pull(g), pull(2 * g)

    values, tangents_of_both = jvp(two_sweeps)(weights["kernel"], rng.normal(size=weights["kernel"].shape))
    for first, second in (values, tangents_of_both):
        assert np.abs(first).max() > 1e-3
        assert_close(second, 2 * first, 1e-13)


def test_products_of_large_steps_equal_those_of_the_readable_pass():
    """Gates by exp, and sources of two steps at a time."""
    units, batch = 40, 96
    assert 4 * units * batch > ONE_TANH_OF_DOUBLES
    assert CACHE_BYTES // (8 * units * batch * 8) == 2
    rng = np.random.default_rng(4)
    params, inputs = LSTM(units).init(0, 3, np.float64), rng.normal(size=(batch, 5, 3))
    vector, targets = direction_like(params, 5), rng.normal(size=(batch, 5, units))
    fast, readable = (
        hessian_vector_product(lambda p, b=b: anp.sum(LSTM(units, backprop=b)(p, inputs) * targets))(params, vector)
        for b in DERIVED
    )
    assert largest(readable[2]) > 1e-2
    assert_trees_close(fast, readable, 1e-11)


@pytest.mark.parametrize("backprop", DERIVED)
@given(network=networks())
def test_products_equal_central_differences_of_the_derived_gradient(backprop, network):
    loss, tree = case_of(network, backprop)
    vector = direction_like(tree, network.seed)
    places = [along(tree, vector, step) for step in (1e-4, 5e-5, 0.0, -5e-5, -1e-4)]
    first, *others = (sides(network, place) for place in places)
    assume(all(np.array_equal(first, other) for other in others))  # a kink between them has no derivative
    far, near, _, near_below, far_below = (value_and_grad(loss)(place)[1] for place in places)
    numeric = tree_map(  # with the error of the step's fourth power
        lambda a, b, c, d: (8 * (b - c) - (a - d)) / 6e-4, far, near, near_below, far_below
    )
    assert_trees_close(hessian_vector_product(loss)(tree, vector)[2], numeric, 1e-6)


@pytest.mark.parametrize("backprop", DERIVED)
@given(network=networks())
def test_the_hessian_is_symmetric(backprop, network):
    loss, tree = case_of(network, backprop)
    u, v = (direction_like(tree, network.seed + n) for n in (1, 2))
    h_u, h_v = (hessian_vector_product(loss)(tree, w)[2] for w in (u, v))
    size = np.sqrt(inner(h_u, h_u) * inner(v, v)) + np.sqrt(inner(h_v, h_v) * inner(u, u))
    assert abs(inner(u, h_v) - inner(v, h_u)) <= 1e-12 * size


@pytest.mark.parametrize("backprop", DERIVED)
@given(network=networks())
def test_the_tangent_of_outputs_and_states_is_the_traces(backprop, network):
    _, tree = case_of(network, backprop)
    vector = direction_like(tree, network.seed)

    def results(backprop):
        layer = RNN(network.cell, backprop=backprop)
        return lambda tree: layer.apply(tree["params"], tree["inputs"], tree["state"], network.lengths)

    value, tangent = jvp(results(backprop))(tree, vector)
    traced_value, traced_tangent = jvp(results("autograd"))(tree, vector)
    assert_trees_close(value, traced_value, 1e-12)
    assert_trees_close(tangent, traced_tangent, 1e-12)
    assert type(tangent[1]) is LSTMState
    gradient = value_and_grad(lambda tree: RandomLoss(1)(list(results(backprop)(tree))))(tree)[1]
    slope = jvp(lambda tree: RandomLoss(1)(list(results(backprop)(tree))))(tree, vector)[1]
    assert_close(slope, inner(gradient, vector), 1e-10, "slope")


@pytest.mark.parametrize("filler", [1e3, np.nan, np.inf])
@pytest.mark.parametrize("backprop", DERIVED)
@given(network=networks())
def test_inputs_past_the_end_change_no_bit_of_a_product(backprop, filler, network):
    assume(network.lengths is not None and (network.lengths < network.inputs.shape[1]).any())
    dirty = network.inputs.copy()
    for row, length in enumerate(network.lengths):
        dirty[row, length:] = filler
    loss, tree = case_of(network, backprop)
    vector = direction_like(tree, network.seed)
    clean = hessian_vector_product(loss)(tree, vector)
    assert_trees_equal(hessian_vector_product(loss)({**tree, "inputs": dirty}, vector), clean)


@pytest.mark.parametrize("backprop", DERIVED)
@given(network=nested_networks())
def test_products_of_nested_cells_equal_the_trace(backprop, network):
    """Stacks, residuals, dropout with its masks held, GRUs and plain RNNs among LSTMs."""
    loss, tree = case_of(network, backprop)
    traced_loss, _ = case_of(network, "autograd")
    vector = direction_like(tree, network.seed)
    traced = reverse_over_reverse(traced_loss, tree, vector)
    assert_trees_close(hessian_vector_product(loss)(tree, vector)[2], traced, 1e-10)
    assert_trees_close(reverse_over_reverse(loss, tree, vector), traced, 1e-10)


@pytest.mark.parametrize("backprop", DERIVED)
@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_products_are_tensorflows(name, backprop):
    """Committed numbers; tests/interop/test_second_tensorflow.py makes them again."""
    _, arrays, layer, tree, cotangents = golden_layer(name, backprop)

    def loss(tree):
        results = layer.apply(tree["params"], tree["inputs"], tree["state"], arrays.get("sequence_length"))
        return sum(anp.sum(p * (a + 0.5 * a * a)) for a, p in zip(tree_leaves(results), cotangents, strict=True))

    with np.load(GOLDEN / "second.npz") as file:
        stored = {key.removeprefix(f"{name}/"): file[key] for key in file if key.startswith(f"{name}/")}
    leaves = dict(named_leaves(tree))
    assert {f"{kind}/{path}" for path in leaves for kind in ("vector", "product")} == stored.keys()
    vector = with_leaves(tree, [stored[f"vector/{path}"] for path in leaves])
    for product in (hessian_vector_product(loss)(tree, vector)[2], reverse_over_reverse(loss, tree, vector)):
        for path, leaf in named_leaves(product):
            assert_close(leaf, stored[f"product/{path}"], 1e-12, path)


# --- through every layer, by autograd's own functions ---------------------------------------------------------


def whole_model(backprop):
    """Every layer, and a cell of each kind."""
    cell = MultiRNNCell([LSTMCell(4, num_proj=3, use_peepholes=True), LSTMCell(3)])
    return Sequential(
        Embedding(7, 3),
        RNN(cell, backprop=backprop, learn_initial_state=True),
        Dropout(0.3),
        Bidirectional(RNN(LSTMCell(3), backprop=backprop), RNN(GRUCell(2), backprop=backprop)),
        Dense(4, activation="tanh"),
        LSTM(5, backprop=backprop, return_sequences=False, reverse=True),
        Dense(2),
    )


def model_case(backprop, loss=losses.mse):
    rng = np.random.default_rng(4)
    model = whole_model(backprop)
    params = tree_map(lambda w: rng.normal(0, 0.6, w.shape), model.init(0, dtype=np.float64))
    labels, lengths = rng.integers(0, 7, (3, 6)), [6, 2, 4]
    targets = rng.integers(0, 2, 3) if loss is losses.softmax_cross_entropy else rng.random((3, 2))

    def function(params):
        return loss(model.apply(params, labels, None, lengths, rng=9)[0], targets, np.array([1.0, 0.5, 2.0]))

    return function, params


@pytest.mark.parametrize("loss", [losses.mse, losses.sigmoid_cross_entropy, losses.softmax_cross_entropy])
@pytest.mark.parametrize("backprop", DERIVED)
def test_products_of_a_whole_model_equal_the_trace(backprop, loss):
    function, params = model_case(backprop, loss)
    traced, _ = model_case("autograd", loss)
    vector = direction_like(params, 2)
    wanted = reverse_over_reverse(traced, params, vector)
    assert largest(wanted) > 1e-3
    value, grads, product = hessian_vector_product(function)(params, vector)
    assert_close(value, traced(params), 1e-13, "loss")
    assert_trees_close(grads, value_and_grad(traced)(params)[1], 1e-12)
    assert_trees_close(product, wanted, 1e-12)
    for name, leaf in named_leaves(wanted):
        assert np.max(np.abs(leaf)) > 1e-6, name
    assert_trees_close(reverse_over_reverse(function, params, vector), wanted, 1e-12)


@pytest.mark.parametrize("backprop", DERIVED)
def test_autograds_own_operators_take_the_derived_pass_twice(backprop):
    function, params = model_case(backprop)
    vector = direction_like(params, 3)
    wanted = reverse_over_reverse(model_case("autograd")[0], params, vector)
    assert_trees_close(autograd.make_hvp(function)(params)[0](vector), wanted, 1e-12)
    value, tangent = autograd.make_jvp(autograd.grad(function))(params)(vector)
    assert_trees_close(value, value_and_grad(function)(params)[1], 1e-13)
    assert_trees_close(tangent, wanted, 1e-12)


@pytest.mark.parametrize("backprop", DERIVED)
def test_flat_vectors_have_hessians(backprop):
    layer = LSTM(2, backprop=backprop)
    inputs = np.random.default_rng(0).normal(size=(2, 4, 1))

    def loss(flat):
        weights = {"kernel": anp.reshape(flat[:24], (3, 8)), "bias": flat[24:]}
        return anp.sum(layer({"lstm_cell": weights}, inputs) ** 2)

    flat = np.random.default_rng(1).normal(size=32)
    vector = np.random.default_rng(2).normal(size=32)
    whole = autograd.hessian(loss)(flat)
    assert_close(whole, whole.T, 1e-14, "symmetry")
    assert largest(whole) > 1e-2
    assert_close(autograd.hessian_vector_product(loss)(flat, vector), whole @ vector, 1e-13, "hessian_vector_product")
    assert_close(autograd.grad(lambda w: vector @ autograd.grad(loss)(w))(flat), whole @ vector, 1e-13, "grad of grad")
    assert_close(hessian_vector_product(loss)(flat, vector)[2], whole @ vector, 1e-13, "our own")


@pytest.mark.parametrize("backprop", DERIVED)
def test_a_variable_that_only_weighs_the_loss_is_derived_through_the_gradient(backprop):
    """The second derivative with respect to a weight of the loss and an input: only the cotangent is traced twice."""
    layer = LSTM(3, backprop=backprop)
    params = layer.init(0, 2, np.float64)
    x, y = (np.random.default_rng(n).normal(size=(2, 4, width)) for n, width in ((0, 2), (1, 3)))

    def mixed(backprop):
        layer.backprop = backprop
        slope = lambda y: value_and_grad(lambda x: anp.sum(layer(params, x) * y))(x)[1]  # noqa: E731
        vector = np.random.default_rng(2).normal(size=x.shape)
        return value_and_grad(lambda y: anp.sum(slope(y) * vector))(y)[1], jvp(slope)(y, y)[1]

    for found, wanted in zip(mixed(backprop), mixed("autograd"), strict=True):
        assert_close(found, wanted, 1e-13)


@pytest.mark.parametrize("backprop", DERIVED)
@pytest.mark.parametrize(("first", "then"), [("params", "inputs"), ("inputs", "params"), ("state", "inputs")])
def test_mixed_second_derivatives(first, then, backprop):
    """The gradient with respect to one part of the tree moves with another."""
    rng = np.random.default_rng(0)
    cell = LSTMCell(3)
    params = {"lstm_cell": tree_map(lambda w: rng.normal(0, 0.6, w.shape), cell.init(0, 2, np.float64))}
    state = LSTMState(*rng.normal(0, 0.5, (2, 2, 3)))
    tree = {"params": params, "inputs": rng.normal(size=(2, 4, 2)), "state": state}
    vectors = direction_like(tree, 5)

    def mixed(backprop):
        layer = RNN(cell, backprop=backprop)

        def slope(part):
            outer = {**tree, then: part}
            loss = lambda part: RandomLoss(1)(list(layer.apply(**{**outer, first: part})))  # noqa: E731
            return value_and_grad(loss)(outer[first])[1]

        backwards = value_and_grad(lambda part: inner(slope(part), vectors[first]))(tree[then])[1]
        return backwards, jvp(slope)(tree[then], vectors[then])[1]

    for found, wanted in zip(mixed(backprop), mixed("autograd"), strict=True):
        assert_trees_close(found, wanted, 1e-12)
        assert largest(wanted) > 1e-3


@pytest.mark.parametrize("backprop", DERIVED)
def test_two_gradients_after_one_forward_pass_have_their_own_second_derivatives(backprop):
    layer = LSTM(3, backprop=backprop)
    params, inputs = layer.init(0, 2, np.float64), np.random.default_rng(0).normal(size=(2, 4, 2))

    def norms(backprop):
        layer.backprop = backprop

        def function(params):
            pull, _ = autograd.make_vjp(lambda p: layer(p, inputs))(params)
            rng = np.random.default_rng(1)
            first, second = (pull(rng.normal(size=(2, 4, 3))) for _ in range(2))
            return inner(first, first) + 2 * inner(second, second) + inner(first, second)

        return value_and_grad(function)(params)

    for found, wanted in zip(norms(backprop), norms("autograd"), strict=True):
        assert_trees_close(found, wanted, 1e-12)


@pytest.mark.parametrize("backprop", DERIVED)
def test_third_derivatives_are_refused_and_name_the_trace(backprop):
    layer = LSTM(2, backprop=backprop)
    inputs = np.ones((1, 3, 1))
    params = layer.init(0, 1, np.float64)
    vector = direction_like(params, 0)
    loss = lambda p: anp.sum(layer(p, inputs) ** 2)  # noqa: E731
    product = lambda p: inner(hessian_vector_product(loss)(p, vector)[2], vector)  # noqa: E731
    for function in (
        lambda: value_and_grad(product)(params),
        lambda: jvp(product)(params, vector),
        lambda: value_and_grad(lambda p: inner(reverse_over_reverse(loss, p, vector), vector))(params),
        lambda: jvp(lambda p: jvp(loss)(p, vector)[1])(params, vector),
    ):
        with pytest.raises(NotImplementedError, match='backprop="autograd"'):
            function()
    layer.backprop = "autograd"
    assert largest(value_and_grad(product)(params)[1]) > 1e-6


def test_a_leaf_that_the_loss_does_not_use_has_a_product_of_zeros():
    params = {"used": np.array([1.0, 2.0], np.float32), "unused": np.ones((2, 3), np.float32)}
    value, grads, product = hessian_vector_product(lambda p: anp.sum(p["used"] ** 3))(params, params)
    assert value == 9
    assert_trees_equal(grads, {"used": np.array([3.0, 12.0], np.float32), "unused": np.zeros((2, 3), np.float32)})
    assert_trees_equal(product, {"used": np.array([6.0, 24.0], np.float32), "unused": np.zeros((2, 3), np.float32)})


def test_aux_comes_back_as_it_is_and_random_draws_are_made_once():
    layer, x = Sequential(LSTM(3), Dropout(0.5)), np.ones((2, 4, 1))
    params, rng = layer.init(0, 1, np.float64), np.random.default_rng(0)

    def loss(params):
        outputs, state = layer.apply(params, x, rng=rng)
        return anp.sum(outputs**2), (state, "text")

    (value, (state, text)), grads, _ = hessian_vector_product(loss, has_aux=True)(params, params)
    rng = np.random.default_rng(0)
    (wanted, (wanted_state, _)), wanted_grads = value_and_grad(loss, has_aux=True)(params)
    assert value == wanted
    assert text == "text"
    assert type(state["rnn"].c) is np.ndarray
    assert_trees_close(state, wanted_state, 1e-15)
    assert_trees_close(grads, wanted_grads, 1e-14)


@pytest.mark.parametrize("product", [hessian_vector_product, jvp])
def test_vectors_that_do_not_fit_are_refused(product):
    params = {"w": np.ones(2), "b": np.ones((1, 2))}
    find = product(lambda p: anp.sum(p["w"] * p["b"]))
    for vector, message in (
        ({"w": np.ones(2)}, "vector does not fit params: trees differ"),
        ({"w": np.ones(2), "b": np.ones(2)}, r"vector has a leaf \(2,\) where params has \(1, 2\)"),
        ({"w": np.ones(2), "b": np.ones((1, 2), int)}, "vector: every leaf must be a floating array"),
    ):
        with pytest.raises(ValueError, match=f"{product.__name__}: {message}"):
            find(params, vector)
    with pytest.raises(ValueError, match=f"{product.__name__}: params: every parameter must be a floating array"):
        find({"w": np.ones(2, int), "b": np.ones((1, 2))}, params)


def test_the_tangent_of_a_result_that_does_not_move_is_zero_and_that_of_a_whole_number_is_none():
    value, tangent = jvp(lambda w: {"moves": 2 * w, "still": np.ones(3), "count": 7, "label": np.array([1])})(
        np.array(3.0), np.array(1.0)
    )
    assert (value["moves"], tangent["moves"], value["count"]) == (6, 2, 7)
    assert tangent["still"].tolist() == [0, 0, 0]
    assert tangent["count"] is tangent["label"] is None


def test_the_product_itself_may_be_used_where_something_else_is_derived():
    """A second derivative inside of another trace is an error only if its own derivative is asked for."""
    layer = LSTM(2)
    params, inputs = layer.init(0, 1, np.float64), np.ones((1, 3, 1))
    vector = direction_like(params, 0)

    def function(scale):
        _, _, product = hessian_vector_product(lambda p: anp.sum(layer(p, inputs) ** 2))(params, vector)
        return scale * inner(product, vector)

    value, slope = value_and_grad(function)(np.array(2.0))
    assert value == 2 * slope


@pytest.mark.parametrize("backprop", DERIVED)
def test_what_was_kept_along_one_direction_is_not_used_for_another(backprop):
    rng = np.random.default_rng(0)
    cell, inputs = LSTMCell(3), rng.normal(size=(4, 2, 2))
    weights = [rng.normal(0, 0.6, shape) for shape in ((5, 12), (12,))]
    values = inputs, *rng.normal(0, 0.5, (2, 2, 3)), *weights
    given, directions = rng.normal(size=(4, 2, 3)), [rng.normal(size=value.shape) for value in values]
    given = given, *rng.normal(size=(2, 2, 3))
    if backprop == "fast":
        functions = fast_lstm.fast_sequence, fast_lstm.fast_tangents, fast_lstm.fast_gradient_tangents
        options = {"forget_bias": 1.0, "loan": fast_lstm.Loan(cell)}
        options["loan"].twice = True
    else:
        functions = bptt.lstm_sequence, tangents.lstm_tangents, tangents.lstm_gradient_tangents
        options = {"cell": cell, "tape": bptt.Tape()}
        values, directions = ([*x, *[None] * 4] for x in (values, directions))
    forward, push, push_gradients = functions
    forward(*values, **options)
    others = [None if value is None else 2 * value for value in values]
    wanted = push_gradients(None, None, None, *directions, *given, *values, **options)
    push(*others, *values, **options)
    found = push_gradients(None, None, None, *directions, *given, *values, **options)
    assert_trees_equal(found, wanted)


# --- activations and cells without a second derivative --------------------------------------------------------


def test_an_activation_without_a_second_derivative_is_traced_for_it(monkeypatch):
    slow = Activation(lambda x: anp.sin(x), lambda y: np.sqrt(1 - y * y))  # right for the small numbers here
    monkeypatch.setitem(ACTIVATIONS, "sine", slow)
    rng = np.random.default_rng(0)
    inputs = rng.normal(0, 0.3, (2, 4, 1))

    def results(backprop):
        layer = LSTM(3, activation="sine", backprop=backprop)
        params = layer.init(0, 1, np.float64)
        loss = lambda p: anp.sum(layer(p, inputs) ** 2)  # noqa: E731
        vector = direction_like(params, 1)
        return hessian_vector_product(loss)(params, vector), reverse_over_reverse(loss, params, vector)

    assert_trees_close(results("fast"), results("autograd"), 1e-12)
    calls = []
    original = bptt.lstm_backward
    monkeypatch.setattr(bptt, "lstm_backward", lambda *a, **k: calls.append(1) or original(*a, **k))
    layer = LSTM(3, activation="sine")
    value_and_grad(lambda p: anp.sum(layer(p, inputs)))(layer.init(0, 1, np.float64))
    assert calls == [1]  # a first derivative alone is still the derived one


@pytest.mark.parametrize("activation", [lambda x: anp.tanh(x) ** 3, anp.sin])
def test_an_activation_of_your_own_has_second_derivatives(activation):
    layer = LSTM(3, activation=activation)
    rng = np.random.default_rng(0)
    params = tree_map(lambda w: rng.normal(0, 0.6, w.shape), layer.init(0, 1, np.float64))
    inputs = rng.normal(size=(2, 4, 1))
    loss = lambda p: anp.sum(layer(p, inputs) ** 2)  # noqa: E731
    vector = direction_like(params, 1)
    numeric = tree_map(
        lambda a, b: (a - b) / 2e-5, *(value_and_grad(loss)(along(params, vector, s))[1] for s in (1e-5, -1e-5))
    )
    assert_trees_close(hessian_vector_product(loss)(params, vector)[2], numeric, 1e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
@given(x=st.lists(st.floats(-3, 3).filter(lambda x: abs(x) > 1e-3), min_size=1, max_size=5))
def test_the_second_derivative_of_an_activation_is_that_of_its_derivative(name, x):
    function, derivative, second = ACTIVATIONS[name]
    x = np.array(x)
    y, above, below = (function(x + step) for step in (0, 1e-5, -1e-5))
    moved = (derivative(above).astype(float) - derivative(below)) / 2e-5
    assert_close(second(y) * derivative(y), moved, 1e-8)  # by the chain rule, with respect to x


# --- what is computed, and what is kept -----------------------------------------------------------------------


def test_a_product_takes_one_forward_and_one_backward_sweep_with_their_tangents(monkeypatch):
    counts = {}
    for module, name in ((LSTMCell, "step"), (tangents, "step_tangent"), (tangents, "step_back_tangent")):
        original = getattr(module, name)

        def counted(*args, name=name, original=original):
            counts[name] = counts.get(name, 0) + 1
            return original(*args)

        monkeypatch.setattr(module, name, counted)
    monkeypatch.setattr(bptt, "has_derivation", lambda cell: True)
    layer = LSTM(3, use_peepholes=True)
    params, inputs = layer.init(0, 2), np.ones((2, 5, 2), np.float32)
    loss = lambda p: anp.sum(layer(p, inputs) ** 2)  # noqa: E731
    hessian_vector_product(loss)(params, params)
    assert counts == {"step": 5, "step_tangent": 5, "step_back_tangent": 5}
    counts.clear()
    reverse_over_reverse(loss, params, params)
    assert counts == {"step": 5, "step_tangent": 5, "step_back_tangent": 5}


def test_nothing_is_kept_for_second_derivatives_unless_they_are_asked_for():
    layer = LSTM(3, use_peepholes=True, backprop="readable")
    tapes = []
    original = bptt.Tape

    class Watched(original):
        def __init__(self):
            super().__init__()
            tapes.append(self)

    bptt.Tape = Watched
    try:
        value_and_grad(lambda p: anp.sum(layer(p, np.ones((2, 5, 2), np.float32))))(layer.init(0, 2))
    finally:
        bptt.Tape = original
    assert [(len(tape.steps), tape.tangents) for tape in tapes] == [(5, None)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("backprop", DERIVED)
@given(network=networks())
def test_products_keep_the_dtype_and_are_contiguous(backprop, dtype, network):
    loss, tree = case_of(network.astype(dtype), backprop)
    value, *trees = hessian_vector_product(loss)(tree, direction_like(tree, 0))
    assert value.dtype == dtype
    for name, leaf in named_leaves(trees):
        assert leaf.dtype == dtype, name
        assert leaf.flags.c_contiguous, name
    for leaf in tree_leaves(reverse_over_reverse(loss, tree, direction_like(tree, 0))):
        assert leaf.dtype == dtype


@given(networks(smooth=True))
def test_float32_products_are_close_to_float64(network):
    loss, tree = case_of(network, "fast")
    vector = direction_like(tree, 0)
    exact = hessian_vector_product(loss)(tree, vector)[2]
    assume(largest(exact) < 1e3)
    single, single_tree = case_of(network.astype(np.float32), "fast")
    as_single = tree_map(lambda leaf: leaf.astype(np.float32), vector)
    assert_trees_close(hessian_vector_product(single)(single_tree, as_single)[2], exact, 2e-4)
