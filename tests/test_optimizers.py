"""Ten steps of each optimizer against real TensorFlow's, slots too; then what every optimizer has to do."""

import numpy as np
import pytest
from helpers import assert_close, assert_trees_equal, golden, golden_cases

from minilstm import SGD, Adagrad, Adam, AdamW, Momentum, RMSProp, schedules, value_and_grad
from minilstm.fast.adam import JOINED, PIECE
from minilstm.optimizers import CenteredRMSPropState
from minilstm.params import tree_map

CLASSES = {
    "GradientDescentOptimizer": (SGD, {}),
    "MomentumOptimizer": (Momentum, {"momentum": "Momentum"}),
    "AdagradOptimizer": (Adagrad, {"accumulator": "Adagrad"}),
    "RMSPropOptimizer": (RMSProp, {"mean_square": "RMSProp", "momentum": "RMSProp_1"}),
    "AdamOptimizer": (Adam, {"m": "Adam", "v": "Adam_1"}),
}
CENTERED = {"mean_square": "RMSProp", "mean_gradient": "RMSProp_1", "momentum": "RMSProp_2"}
TENSORFLOW = [name for name in golden_cases() if name.startswith("k_tf1_")]

# One line for each optimizer: the tests below run over all of them.
TABLE = [
    SGD(0.1),
    SGD(schedules.exponential(0.2, 100, 0.5)),
    Momentum(0.02, 0.9),
    Momentum(0.02, 0.9, use_nesterov=True),
    Adagrad(0.5),
    RMSProp(0.01),
    RMSProp(0.005, momentum=0.5),
    RMSProp(0.01, centered=True, epsilon=1e-4),
    Adam(0.05),
    AdamW(0.05, weight_decay=1e-5),
]
IDS = [f"{k}-{type(optimizer).__name__}" for k, optimizer in enumerate(TABLE)]


def row(arrays, kind, n):
    """Row n of a golden case's values or gradients as a tree."""
    return {p: arrays[f"{kind}/{p}"][n] for p in ("w", "b", "V")}


@pytest.mark.parametrize("name", TENSORFLOW)
def test_ten_steps_are_tensorflows(name):
    case, arrays = golden(name)
    cls, slots = CLASSES[case["optimizer"]]
    slots = CENTERED if case["options_effective"].get("centered") else slots
    optimizer = cls(**case["options_given"])
    tolerance = 1e-12 if case["dtype"] == "float64" else 1e-6
    params = row(arrays, "value", 0)
    state = optimizer.init(params)
    for n in range(11):
        for p, value in params.items():
            assert_close(value, arrays[f"value/{p}"][n], tolerance, f"{p} after {n} steps")
            assert value.dtype == case["dtype"], p
            for field, slot in slots.items():
                found = getattr(state, field)[p]
                assert_close(found, arrays[f"slot/{p}/{slot}"][n], tolerance, f"{p}/{slot} after {n} steps")
                assert found.dtype == case["dtype"], slot
        for power in {"beta1_power", "beta2_power"} & set(getattr(state, "_fields", ())):
            found, wanted = getattr(state, power), arrays[f"slot/{power}"][n]
            assert found.dtype == np.float32
            assert found == wanted, f"{power} after {n} steps"
        assert state.step == n
        if n < 10:
            params, state = optimizer.update(params, row(arrays, "grad", n), state)
    recorded = {key for key in arrays if key.startswith("slot/")}
    compared = {f"slot/{p}/{slot}" for p in "wbV" for slot in slots.values()}
    assert recorded - compared <= {"slot/beta1_power", "slot/beta2_power"}
    if compared:
        assert compared <= recorded


def test_every_optimizer_of_tensorflow_has_a_case_in_both_dtypes():
    cases = [golden(name)[0] for name in TENSORFLOW]
    assert {case["optimizer"] for case in cases} == set(CLASSES)
    assert {case["optimizer"] for case in cases if case["dtype"] == "float32"} >= set(CLASSES) - {"AdagradOptimizer"}


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("k_keras_adamw", AdamW(0.0625, 0.5, 0.75, epsilon=1e-7, weight_decay=0.125)),
        ("k_keras_adam_bigeps", Adam(0.0625, 0.5, 0.75, epsilon=0.125)),
    ],
)
def test_ten_steps_are_kerass(name, optimizer):
    _, arrays = golden(name)
    params = row(arrays, "value", 0)
    state = optimizer.init(params)
    for n in range(10):
        params, state = optimizer.update(params, row(arrays, "grad", n), state)
        for p, value in params.items():
            assert_close(value, arrays[f"value/{p}"][n + 1], 1e-7, f"{p} after {n + 1} steps")


def test_adams_epsilon_is_not_pytorchs():
    _, arrays = golden("k_torch_adam_bigeps")
    optimizer, params = Adam(0.0625, 0.5, 0.75, epsilon=0.125), row(arrays, "value", 0)
    params, _ = optimizer.update(params, row(arrays, "grad", 0), optimizer.init(params))
    assert np.abs(params["w"] - arrays["value/w"][1]).max() > 1e-3


def parabola(tree):
    x, y = tree["x"], tree["deep"][0]
    return (x[0] - 0.3) ** 2 + 2 * (x[1] + 0.2) ** 2 + 0.5 * (y - 0.7) ** 2


def rosenbrock(tree):
    x, y = tree["x"]
    return 0.1 * ((1 - x) ** 2 + 5 * (y - x**2) ** 2)


@pytest.mark.parametrize("optimizer", TABLE, ids=IDS)
def test_reaches_the_minimum_of_a_parabola(optimizer):
    params = {"x": np.array([1.0, -1.0]), "deep": [np.array(0.0)]}
    params = minimize(optimizer, parabola, params, 600)
    np.testing.assert_allclose(params["x"], [0.3, -0.2], atol=0.02)
    np.testing.assert_allclose(params["deep"][0], 0.7, atol=0.02)


@pytest.mark.parametrize("optimizer", TABLE, ids=IDS)
def test_gets_far_down_rosenbrocks_valley(optimizer):
    start = {"x": np.array([-0.6, 0.8])}
    end = minimize(optimizer, rosenbrock, start, 1500)
    assert rosenbrock(end) < 0.02 * rosenbrock(start)


def minimize(optimizer, function, params, steps):
    state = optimizer.init(params)
    gradient = value_and_grad(function)
    for _ in range(steps):
        params, state = optimizer.update(params, gradient(params)[1], state)
    assert state.step == steps
    return params


@pytest.mark.parametrize("optimizer", TABLE, ids=IDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_update_keeps_dtypes_and_structure_and_changes_nothing_that_came_in(optimizer, dtype):
    params = {"a": {"w": np.ones((2, 3), dtype)}, "b": [np.full(4, 2, dtype)]}
    grads = {"b": [np.full(4, 0.5, dtype)], "a": {"w": np.full((2, 3), -1, dtype)}}  # another order of keys
    state = optimizer.init(params)
    kept = {"a": {"w": np.ones((2, 3), dtype)}, "b": [np.full(4, 2, dtype)]}, optimizer.init(params)
    new, new_state = optimizer.update(params, grads, state)
    assert_trees_equal((params, state), kept)
    assert type(new_state) is type(state)
    assert (state._fields[0], new_state.step) == ("step", 1)
    assert new["a"]["w"].dtype == new["b"][0].dtype == dtype
    assert (new["a"]["w"] > 1).all()  # downhill, each by its own gradient
    assert (new["b"][0] < 2).all()


def steps_of_adam(optimizer, start, grads, donate):
    """Parameters, m and v after a step for each of `grads`, and the states in between."""
    params, states = {"w": start}, [optimizer.init({"w": start})]
    for grad in grads:
        options = {"donate": True} if donate else {}
        params, state = optimizer.update(params, {"w": grad}, states[-1], **options)
        states.append(state)
    return (params["w"], states[-1].m["w"], states[-1].v["w"]), states


@pytest.mark.parametrize("optimizer", [Adam(0.05), AdamW(0.05, weight_decay=0.1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (3,), (2, PIECE // 2 + 1)])
def test_a_donated_state_is_overwritten_and_gives_the_same_bits(optimizer, dtype, shape):
    rng = np.random.default_rng(0)
    start, *grads = (np.asarray(rng.normal(size=shape), dtype) for _ in range(4))
    kept = [x.copy() for x in (start, *grads)]
    plain, _ = steps_of_adam(optimizer, start, grads, donate=False)
    donated, states = steps_of_adam(optimizer, start, grads, donate=True)
    for found, wanted in zip(donated, plain, strict=True):
        assert found.shape == shape
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, wanted)
    for x, wanted in zip((start, *grads), kept, strict=True):  # the state alone is given away
        np.testing.assert_array_equal(x, wanted)
    for state in states[1:]:  # a small array is not worth it
        assert np.shares_memory(states[0].m["w"], state.m["w"]) == (start.size > JOINED)
        assert np.shares_memory(states[0].v["w"], state.v["w"]) == (start.size > JOINED)


def test_a_donated_state_that_cannot_be_written_to_is_left_alone():
    optimizer, params, grads = Adam(0.05), {"w": np.ones((2, 3))}, {"w": np.full((2, 3), 0.5)}
    wanted, wanted_state = optimizer.update(params, grads, optimizer.init(params))
    read_only, transposed = np.zeros((2, 3)), np.zeros((3, 2)).T
    read_only.flags.writeable = False
    state = optimizer.init(params)._replace(m={"w": read_only}, v={"w": transposed})
    new, new_state = optimizer.update(params, grads, state, donate=True)
    assert_trees_equal((new, new_state), (wanted, wanted_state))
    assert not read_only.any()
    assert not transposed.any()


@pytest.mark.parametrize("optimizer", TABLE, ids=IDS)
def test_a_gradient_of_another_structure_is_refused(optimizer):
    params = {"a": np.ones(2), "b": np.ones(2)}
    with pytest.raises(ValueError, match="'b'"):
        optimizer.update(params, {"a": np.ones(2)}, optimizer.init(params))


def test_adagrads_initial_accumulator_is_the_one_option_that_tensorflow_does_not_round():
    assert Adagrad(0.1).init({"w": np.zeros(2)}).accumulator["w"].tolist() == [0.1, 0.1]


def test_a_rate_may_depend_on_the_step():
    optimizer, params = SGD(lambda step: [1.0, 0.25][step]), {"w": np.array([4.0])}
    params, state = optimizer.update(params, {"w": np.array([1.0])}, optimizer.init(params))
    assert params["w"] == 3
    params, _ = optimizer.update(params, {"w": np.array([1.0])}, state)
    assert params["w"] == 2.75


def test_repr_names_the_class_and_its_rate():
    assert repr(SGD(0.5)) == "SGD(learning_rate=0.5)"
    assert repr(Adam(0.5)).startswith("Adam(learning_rate=0.5, ")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0.0), "SGD: learning_rate must be positive, got 0.0"),
        (lambda: SGD(-1), "learning_rate"),
        (lambda: SGD(np.nan), "learning_rate"),
        (lambda: Adam(0.1, beta1=1.0), r"Adam: beta1 must be in \[0, 1\), got 1.0"),
        (lambda: Adam(0.1, beta2=1.5), "beta2"),
        (lambda: Adam(0.1, epsilon=-1e-8), "epsilon"),
        (lambda: AdamW(0.1, weight_decay=-0.1), "weight_decay"),
        (lambda: Momentum(0.1, -0.5), "Momentum: momentum"),
        (lambda: RMSProp(0.1, decay=-0.1), "RMSProp: decay"),
        (lambda: RMSProp(0.1, momentum=-0.1), "RMSProp: momentum"),
        (lambda: Adagrad(0.1, initial_accumulator_value=0.0), "initial_accumulator_value"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def tree_of(k, b):
    return {"dense": {"kernel": k, "bias": b}}


WEIGHTS = tree_of(np.zeros((2, 3), np.float32), np.zeros(3, np.float32))
STRANGE_GRADS = [
    (tree_of(np.ones((3, 2)), np.ones(3)), r"grads: dense/kernel must have the shape .* \(2, 3\), got \(3, 2\)"),
    (tree_of(np.ones((2, 3)), np.ones((3, 1))), r"grads: dense/bias must have .* \(3,\), got \(3, 1\)"),
    (tree_of(np.ones((2, 1)), np.ones(3)), r"grads: dense/kernel must have .* \(2, 3\), got \(2, 1\)"),
    (tree_of(np.ones((2, 3)), 0.5), r"grads: dense/bias must have .* \(3,\), got \(\)"),
    (tree_of(np.ones((2, 3), np.complex64), np.ones(3)), "grads: dense/kernel: wanted numbers, got dtype complex64"),
    (tree_of(np.ma.masked_array(np.ones((2, 3)), True), np.ones(3)), "grads: dense/kernel: a masked array"),
    ({"dense": np.ones(3)}, "grads must be like params: trees differ at dense: wanted keys"),
]


@pytest.mark.parametrize("optimizer", TABLE, ids=IDS)
@pytest.mark.parametrize(("grads", "message"), STRANGE_GRADS)
def test_gradients_that_do_not_fit_are_refused(optimizer, grads, message):
    """NumPy would broadcast some of them, and Adam would take the kernel's transpose for the kernel."""
    with pytest.raises(ValueError, match=rf"^{type(optimizer).__name__}\.update: {message}"):
        optimizer.update(WEIGHTS, grads, optimizer.init(WEIGHTS))


@pytest.mark.parametrize("optimizer", TABLE, ids=IDS)
def test_other_numbers_are_taken_in_the_dtype_of_the_parameter(optimizer):
    rng = np.random.default_rng(0)
    plain = tree_of(*(rng.integers(-9, 9, shape).astype(np.float32) for shape in ((2, 3), 3)))
    wanted, _ = optimizer.update(WEIGHTS, plain, optimizer.init(WEIGHTS))
    for turn in (np.float64, np.int16, np.ma.masked_array, np.asfortranarray):
        grads = tree_of(*map(turn, plain["dense"].values()))
        found, state = optimizer.update(WEIGHTS, grads, optimizer.init(WEIGHTS))
        assert_trees_equal(found, wanted)
        assert found["dense"]["kernel"].dtype == np.float32
        assert state.step == 1


@pytest.mark.parametrize("optimizer", TABLE, ids=IDS)
def test_the_state_of_another_model_or_optimizer_is_refused(optimizer):
    other = optimizer.init(tree_of(np.zeros((3, 2), np.float32), np.zeros(3, np.float32)))
    if len(other) > 1:
        with pytest.raises(ValueError, match=r"update: state\.\w+: dense/kernel must have the shape of its parameter"):
            optimizer.update(WEIGHTS, WEIGHTS, other)
    for another in TABLE:
        state = another.init(WEIGHTS)
        if type(state) is not type(optimizer.init(WEIGHTS)):
            with pytest.raises(ValueError, match=rf"update: state must be the \w+State .* got {type(state).__name__}"):
                optimizer.update(WEIGHTS, WEIGHTS, state)
    with pytest.raises(ValueError, match=r"update: state must be the .* got NoneType"):
        optimizer.update(WEIGHTS, WEIGHTS, None)


@pytest.mark.parametrize("optimizer", TABLE, ids=IDS)
def test_parameters_that_are_no_floating_arrays_are_refused(optimizer):
    state = optimizer.init(WEIGHTS)
    for kernel in (np.zeros((2, 3), int), 1, "no"):
        with pytest.raises(ValueError, match="update: params: dense/kernel must be a floating array"):
            optimizer.update(tree_of(kernel, np.zeros(3, np.float32)), WEIGHTS, state)


@pytest.mark.parametrize("optimizer", TABLE, ids=IDS)
def test_a_number_is_a_parameter_too(optimizer):
    """`value_and_grad` takes one."""
    params = {"w": 1.5, "v": np.float32(2)}
    _, grads = value_and_grad(lambda p: p["w"] ** 2 + p["v"])(params)
    found, _ = optimizer.update(params, grads, optimizer.init(params))
    assert 0 < found["w"] < 1.5
    assert found["v"] < 2
    assert (np.asarray(found["w"]).dtype, found["v"].dtype) == (np.float64, np.float32)


class Doubled(Momentum):
    """A subclass with a state of its own."""

    def init(self, params):
        return CenteredRMSPropState(0, *(tree_map(np.zeros_like, params) for _ in range(3)))

    def rule(self, rate, w, g, *slots):
        return w - rate * g, *(slot + g for slot in slots)


def test_a_subclass_may_have_another_state():
    optimizer = Doubled(0.1, 0.9)
    params, state = optimizer.update(WEIGHTS, WEIGHTS, optimizer.init(WEIGHTS))
    assert type(optimizer.update(params, WEIGHTS, state)[1]) is CenteredRMSPropState
