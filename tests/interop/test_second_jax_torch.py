"""Products of the Hessian against JAX's ``jvp(grad)`` and PyTorch's double backward, in float64."""

import numpy as np
import pytest
from helpers import assert_trees_close, largest
from hypothesis import given, settings
from strategies import networks
from test_tangents import case_of, direction_like, inner

from minilstm import LSTM, Dense, LSTMState, Sequential, hessian_vector_product, jvp, losses, value_and_grad
from minilstm.params import tree_leaves, tree_map

pytestmark = pytest.mark.interop


def outputs_of(np_like, sigmoid, activation, clip, cell, params, inputs, state, lengths):
    """Outputs and final state of an LSTM with all options, in JAX or PyTorch; inputs are [batch, time, features]."""
    batch, time, _ = inputs.shape
    (c, h), outputs = state, []
    for t in range(time):
        z = np_like.concatenate([inputs[:, t], h], 1) @ params["kernel"] + params["bias"]
        z_i, z_j, z_f, z_o = (z[:, n * cell.units : (n + 1) * cell.units] for n in range(4))
        z_f = z_f + cell.forget_bias
        if cell.use_peepholes:
            z_i, z_f = z_i + params["w_i_diag"] * c, z_f + params["w_f_diag"] * c
        new_c = sigmoid(z_f) * c + sigmoid(z_i) * activation(z_j)
        if cell.cell_clip is not None:
            new_c = clip(new_c, cell.cell_clip)
        if cell.use_peepholes:
            z_o = z_o + params["w_o_diag"] * new_c
        new_h = sigmoid(z_o) * activation(new_c)
        if cell.num_proj is not None:
            new_h = new_h @ params["projection"]["kernel"]
        if cell.proj_clip is not None:
            new_h = clip(new_h, cell.proj_clip)
        live = np.ones((batch, 1)) if lengths is None else (t < lengths)[:, None].astype(float)
        live = np_like.asarray(live)
        outputs.append(new_h * live)
        c, h = new_c * live + c * (1 - live), new_h * live + h * (1 - live)
    return np_like.stack(outputs, 1), c, h


def weighed(results, seed, np_like):
    """The loss of `helpers.RandomLoss` of outputs, c and h."""
    rng = np.random.default_rng([seed, 77])
    total = 0.0
    for leaf in results:
        p, q = (np_like.asarray(rng.normal(size=tuple(leaf.shape))) for _ in range(2))
        total = total + (p * leaf + 0.5 * q * leaf * leaf).sum()
    return total


@pytest.fixture(scope="session")
def jax():
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


def in_jax(jax, network, tree, vector):
    """Loss, gradient and product by ``jvp`` of ``value_and_grad``."""
    jnp = jax.numpy
    activations = {"linear": lambda x: x, "softsign": lambda x: x / (1 + jnp.abs(x)), "tanh": jnp.tanh}
    activation = activations.get(network.cell.activation) or getattr(jax.nn, network.cell.activation)
    clip = lambda x, bound: jnp.clip(x, -bound, bound)  # noqa: E731

    def loss(tree):
        params = tree["params"][network.cell.name]
        results = outputs_of(
            jnp, jax.nn.sigmoid, activation, clip, network.cell, params, tree["inputs"], tree["state"], network.lengths
        )
        return weighed(results, network.seed, jnp)

    (value, grads), (_, product) = jax.jvp(jax.value_and_grad(loss), (tree,), (vector,))
    return value, *(tree_map(np.asarray, part) for part in (grads, product))


def in_torch(network, tree, vector):
    """The same by two backward passes, the first of which is traced."""
    import torch

    activation = {"linear": lambda x: x, "softsign": torch.nn.functional.softsign}.get(network.cell.activation)
    activation = activation or getattr(torch, network.cell.activation)
    clip = lambda x, bound: torch.clamp(x, -bound, bound)  # noqa: E731
    tensors = tree_map(lambda leaf: torch.tensor(leaf, requires_grad=True), tree)
    results = outputs_of(
        torch, torch.sigmoid, activation, clip, network.cell, tensors["params"][network.cell.name], tensors["inputs"],
        tensors["state"], network.lengths,
    )  # fmt: skip
    value = weighed(results, network.seed, torch)
    leaves = tree_leaves(tensors)
    grads = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
    slope = sum((g * torch.tensor(v)).sum() for g, v in zip(grads, tree_leaves(vector), strict=True))
    product = torch.autograd.grad(slope, leaves, allow_unused=True, materialize_grads=True)

    def as_tree(tensors):
        found = iter(tensors)
        return tree_map(lambda _: next(found).detach().numpy(), tree)

    return value.detach().numpy(), as_tree(grads), as_tree(product)


@pytest.mark.parametrize("backprop", ["fast", "readable"])
@settings(max_examples=20)
@given(network=networks())
def test_a_product_is_jaxs_and_pytorchs(jax, backprop, network):
    loss, tree = case_of(network, backprop)
    vector = direction_like(tree, network.seed)
    found = hessian_vector_product(loss)(tree, vector)
    for theirs in (in_jax(jax, network, tree, vector), in_torch(network, tree, vector)):
        assert_trees_close(found, theirs, 1e-10)


def test_a_product_of_pytorchs_own_lstm_with_a_dense_layer():
    """`torch.nn.LSTM` itself, behind whose name the fused kernels are, on its differentiable path."""
    import torch

    rng = np.random.default_rng(0)
    model = Sequential(LSTM(5, forget_bias=0.0), Dense(1))
    params = tree_map(lambda w: rng.normal(0, 0.5, w.shape), model.init(0, 3, np.float64))
    x, y = rng.normal(size=(4, 6, 3)), rng.normal(size=(4, 6, 1))
    vector = direction_like(params, 0)
    _, _, product = hessian_vector_product(lambda p: losses.mse(model(p, x), y))(params, vector)

    lstm = torch.nn.LSTM(3, 5, batch_first=True, dtype=torch.float64)
    order = np.concatenate([np.arange(5) + 5 * n for n in (0, 2, 1, 3)])  # i, j, f, o to i, f, g, o

    def theirs(tree):
        kernel, bias = (tree["rnn"]["lstm_cell"][name] for name in ("kernel", "bias"))
        parts = kernel[:3].T[order], kernel[3:].T[order], bias[order], np.zeros(20)
        return [torch.tensor(np.ascontiguousarray(part)) for part in parts]

    weights = [weight.requires_grad_() for weight in theirs(params)]
    dense = [torch.tensor(params["dense"][name], requires_grad=True) for name in ("kernel", "bias")]
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    outputs, _ = torch.func.functional_call(lstm, dict(zip(names, weights, strict=True)), torch.tensor(x))
    loss = ((outputs @ dense[0] + dense[1] - torch.tensor(y)) ** 2).mean()
    leaves = [*weights[:3], *dense]
    grads = torch.autograd.grad(loss, leaves, create_graph=True)
    vectors = [*theirs(vector)[:3], *(torch.tensor(vector["dense"][name]) for name in ("kernel", "bias"))]
    slope = sum((g * v).sum() for g, v in zip(grads, vectors, strict=True))
    second = [tensor.numpy() for tensor in torch.autograd.grad(slope, leaves)]
    ours = [*(part.numpy() for part in theirs(product)[:3]), product["dense"]["kernel"], product["dense"]["bias"]]
    assert_trees_close(ours, second, 1e-10)
    assert largest(second) > 1e-2


def test_a_jvp_is_jaxs(jax):
    rng = np.random.default_rng(0)
    layer = LSTM(4)
    params = tree_map(lambda w: rng.normal(0, 0.5, w.shape), layer.init(0, 2, np.float64))
    x, state = rng.normal(size=(3, 5, 2)), LSTMState(*rng.normal(size=(2, 3, 4)))
    vector = direction_like(params, 0)
    jnp = jax.numpy

    def theirs(params):
        weights = params["lstm_cell"]
        return outputs_of(jnp, jax.nn.sigmoid, jnp.tanh, None, layer.cell, weights, x, state, None)

    value, tangent = jvp(lambda p: list(layer.apply(p, x, state)))(params, vector)
    wanted = jax.jvp(theirs, (params,), (vector,))
    for found, reference in zip((value, tangent), wanted, strict=True):
        assert_trees_close(tree_leaves(found), [np.asarray(leaf) for leaf in reference], 1e-10)
    slope = inner(value_and_grad(lambda p: (layer(p, x, state=state)).sum())(params)[1], vector)
    assert abs(slope - tangent[0].sum()) < 1e-10
