"""Initial values: the distribution, the seed, the dtype, and the way into a config and back."""

import numpy as np
import pytest
from helpers import assert_trees_equal

from minilstm import LSTM, Dense, Sequential, from_config, initializers, split_gates
from minilstm.initializers import Chrono, Constant, GlorotUniform, Orthogonal, Uniform, Zeros


def draw(initializer, shape, seed=0, dtype=np.float64):
    return initializer(np.random.default_rng(seed), shape, dtype)


def test_zeros_and_constant_are_what_they_say():
    assert not draw(Zeros(), (2, 3)).any()
    assert (draw(Constant(0.25), (2, 3)) == 0.25).all()


@pytest.mark.parametrize(
    ("initializer", "limit"), [(Uniform(0.1), 0.1), (Uniform(), 0.05), (GlorotUniform(), np.sqrt(6 / (50 + 200)))]
)
def test_uniform_ones_fill_their_interval_evenly(initializer, limit):
    values = draw(initializer, (50, 200))
    assert np.abs(values).max() <= limit
    assert values.min() < -0.99 * limit
    assert values.max() > 0.99 * limit
    assert abs(values.mean()) < 0.02 * limit
    assert abs(values.std() / limit - 1 / np.sqrt(3)) < 0.01


def test_glorot_counts_a_vector_twice():
    values = draw(GlorotUniform(), (3000,))
    assert np.sqrt(6 / 6000) * 0.99 < np.abs(values).max() <= np.sqrt(6 / 6000)


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7)])
def test_orthogonal_matrices_have_orthonormal_rows_or_columns(shape):
    matrix = draw(Orthogonal(gain=2.0), shape) / 2
    product = matrix @ matrix.T if shape[0] <= shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-14)
    assert (np.sign(np.diag(np.linalg.qr(draw(Orthogonal(), (30, 30)))[1])) > 0).any()  # no sign is preferred ...
    assert (np.sign(np.diag(np.linalg.qr(draw(Orthogonal(), (30, 30)))[1])) < 0).any()  # ... on the diagonal


def test_orthogonal_wants_a_matrix():
    with pytest.raises(ValueError, match=r"two dimensions, got \(3,\)"):
        draw(Orthogonal(), (3,))


def test_chrono_spreads_how_long_units_remember_evenly_up_to_the_longest_time():
    gates = split_gates(draw(Chrono(50), (4 * 4000,)))
    times = np.exp(gates["f"])  # a forget gate sigmoid(log(u)) = u / (1 + u) forgets over 1 + u steps
    assert 1 <= times.min() < 1.1
    assert 48.9 < times.max() < 49
    assert abs(times.mean() - 25) < 4 * 48 / np.sqrt(12 * 4000)
    np.testing.assert_array_equal(gates["i"], -gates["f"])
    assert not gates["j"].any()
    assert not gates["o"].any()


def test_chrono_goes_into_a_cell_and_its_description():
    model = Sequential(LSTM(3, forget_bias=0.0, bias_initializer=Chrono(max_time=20)))
    params = from_config(model.config()).init(5, input_dim=2)
    assert_trees_equal(params, model.init(5, input_dim=2))
    assert (split_gates(params["rnn"]["lstm_cell"]["bias"])["f"] > 0).all()


@pytest.mark.parametrize("max_time", [2, 0, -5, np.inf, np.nan])
def test_chrono_wants_a_time_above_two(max_time):
    with pytest.raises(ValueError, match="Chrono: max_time must be above 2"):
        Chrono(max_time)


@pytest.mark.parametrize("shape", [(8, 4), (6,), ()])
def test_chrono_is_for_the_bias_of_an_lstm(shape):
    with pytest.raises(ValueError, match=r"Chrono: shape must be \(4 \* units,\), as an LSTM's bias has, got"):
        draw(Chrono(20), shape)


@pytest.mark.parametrize("initializer", [Uniform(0.1), GlorotUniform(), Orthogonal()], ids=str)
def test_a_seed_decides_and_float32_is_float64_rounded(initializer):
    exact = draw(initializer, (4, 6), seed=3)
    assert_trees_equal(draw(initializer, (4, 6), seed=3), exact)
    assert np.abs(draw(initializer, (4, 6), seed=4) - exact).max() > 0.01
    assert_trees_equal(draw(initializer, (4, 6), seed=3, dtype=np.float32), exact.astype(np.float32))


@pytest.mark.parametrize(
    "initializer", [Zeros(), Constant(0.5), Uniform(0.3), GlorotUniform(), Orthogonal(2.0), Chrono(100)], ids=str
)
def test_an_initializer_comes_back_from_its_description(initializer):
    described = initializers.describe(initializer, "test")
    assert initializers.get(described) == initializer


@pytest.mark.parametrize("name", ["zeros", "constant", "uniform", "glorot_uniform", "orthogonal"])
def test_every_name_is_known(name):
    assert draw(initializers.get(name), (3, 3), dtype=np.float32).dtype == np.float32


def test_a_number_an_array_and_a_function_are_initializers_too():
    assert (draw(initializers.get(0.5), (2, 2)) == 0.5).all()
    given = np.arange(4.0).reshape(2, 2)
    copy = draw(initializers.get(given), (2, 2), dtype=np.float32)
    assert copy.dtype == np.float32
    copy[0] = 9
    assert given[0, 0] == 0
    own = LSTM(2, initializer=lambda rng, shape, dtype: np.full(shape, 0.1, dtype)).init(0, 1)
    assert (own["lstm_cell"]["kernel"] == np.float32(0.1)).all()


def test_an_array_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"initializer: the array given has shape \(2, 2\), wanted \(3, 4\)"):
        Dense(4, initializer=np.zeros((2, 2))).init(0, 3)


@pytest.mark.parametrize("spec", ["glorot", {"name": "glorot"}, {}, None, object()])
def test_an_unknown_initializer_is_refused_with_the_known_ones(spec):
    with pytest.raises(ValueError, match=r"bias_initializer: got .* wanted one of .*glorot_uniform"):
        Dense(2, bias_initializer=spec)


def test_a_function_without_a_name_cannot_be_described():
    with pytest.raises(ValueError, match="no registered name"):
        initializers.describe(initializers.get(lambda rng, shape, dtype: np.zeros(shape)), "test")
