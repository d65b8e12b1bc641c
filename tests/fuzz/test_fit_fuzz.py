"""`fit`, from random data in random forms to parameters, against the same three steps written plainly.

`plain_training` has no line of minilstm. Cells that are not plain LSTMs are compared with autograd's trace of their own
step (backprop="autograd") under the same plain update rules.

The bound. Each number of the result comes from at most N roundings one after the other: 3 updates, each a forward and a
backward pass of T steps through L layers, whose longest sum has K terms, with about 20 further operations a step. So
N = 3 * 2 * T * L * (K + 20), and the error is at most N * u relative to the largest number, times how much the network
itself amplifies an error. Gates and activations have slopes of at most 1, and the weights here are small, so that
factor is near 1. Adam divides by sqrt(v) + epsilon: an error d of a gradient near 0 becomes learning_rate * d /
epsilon, and its cases have an epsilon of 1e-3 for that. In float32 there are no kinks (clips, relu), at which a
rounding error decides.
"""

import os

import numpy as np
import pytest
from handovers import FORMS
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_training import clipped, loss, model, update

from minilstm import (
    LSTM,
    RNN,
    SGD,
    Adagrad,
    Adam,
    BasicRNNCell,
    Bidirectional,
    CoupledLSTMCell,
    Dense,
    Dropout,
    DropoutWrapper,
    Embedding,
    GRUCell,
    LSTMCell,
    Momentum,
    MultiRNNCell,
    ResidualWrapper,
    RMSProp,
    Sequential,
    fit,
    losses,
    value_and_grad,
)
from minilstm.params import flatten_names, tree_map, unflatten_names

COUNT = 20_000 if os.environ.get("MINILSTM_FULL") else 300
LOSSES = ("mse", "softmax_cross_entropy", "sigmoid_cross_entropy")
OPTIMIZERS = {
    "SGD": (SGD, {"learning_rate": 0.1}),
    "Momentum": (Momentum, {"learning_rate": 0.05, "momentum": 0.9}),
    "Nesterov": (Momentum, {"learning_rate": 0.05, "momentum": 0.8, "use_nesterov": True}),
    "Adagrad": (Adagrad, {"learning_rate": 0.1}),
    "RMSProp": (RMSProp, {"learning_rate": 0.02, "decay": 0.8, "momentum": 0.5, "epsilon": 1e-6}),
    "Adam": (Adam, {"learning_rate": 0.01, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3}),
}


@st.composite
def plans(draw):
    """A description of a run, in plain values; numbers come from `seed`."""
    smooth = draw(st.booleans())
    plan = {
        "dtype": draw(st.sampled_from(["float32", "float64"])) if smooth else "float64",
        "optimizer": draw(st.sampled_from(sorted(OPTIMIZERS))),
        "loss": draw(st.sampled_from(LOSSES)),
        "time": draw(st.integers(1, 5)),
        "features": draw(st.integers(1, 3)),
        "outputs": draw(st.integers(1, 3)),
        "sequences": draw(st.integers(3, 7)),
        "lengths": draw(st.booleans()),
        "weights": draw(st.booleans()),
        "time_major": draw(st.booleans()),
        "last_only": draw(st.booleans()),
        "clip_norm": draw(st.sampled_from([None, None, 0.05, 10.0])),
        "form": draw(st.sampled_from(sorted(FORMS))),
        "backprop": draw(st.sampled_from(["fast", "fast", "readable", "autograd"])),
        "seed": draw(st.integers(0, 2**16)),
        "embedding": draw(st.booleans()),
    }
    cells = []
    for _ in range(draw(st.integers(1, 2))):
        options = {"forget_bias": draw(st.sampled_from([0.0, 1.0, -0.5]))}
        options["activation"] = draw(st.sampled_from(["tanh", "tanh", "sigmoid", "softsign"] + ["relu"] * (not smooth)))
        if draw(st.booleans()):
            options["use_peepholes"] = draw(st.booleans())
            if draw(st.booleans()):
                options["num_proj"] = draw(st.integers(1, 3))
            if not smooth:
                options["cell_clip"] = draw(st.sampled_from([None, 0.2]))
                if "num_proj" in options:
                    options["proj_clip"] = draw(st.sampled_from([None, 0.1]))
        both = draw(st.integers(0, 3)) == 0
        reverse = draw(st.booleans()) and not both
        cells.append({"units": draw(st.integers(1, 4)), "options": options, "both": both, "reverse": reverse})
    plan["cells"] = cells
    plan["dropout"] = draw(st.sampled_from([None, None, 0.4]))
    plan["activation"] = draw(st.sampled_from([None, None, "tanh"]))
    return plan


def built(plan):
    """The model of a plan, and the same for `plain_training.model`."""
    layers, plain = [], []
    if plan["embedding"]:
        layers.append(Embedding(5, plan["features"], name="table"))
        plain.append(("embedding", "table", {}))
    for n, cell in enumerate(plan["cells"]):
        of_layer = {"return_sequences": not plan["last_only"] or n < len(plan["cells"]) - 1}
        more = {"time_major": plan["time_major"], "backprop": plan["backprop"]}
        if cell["both"]:
            inner = RNN(LSTMCell(cell["units"], **cell["options"]), **of_layer, **more)
            layers.append(Bidirectional(inner, name=f"layer{n}"))
            plain.append(("bidirectional", f"layer{n}", {**cell["options"], **of_layer}))
        else:
            of_layer["reverse"] = cell["reverse"]
            layers.append(LSTM(cell["units"], **cell["options"], **of_layer, **more, name=f"layer{n}"))
            plain.append(("lstm", f"layer{n}", {**cell["options"], **of_layer}))
        if plan["dropout"]:
            layers.append(Dropout(plan["dropout"]))
            plain.append(("dropout", "", {"rate": plan["dropout"]}))
    layers.append(Dense(plan["outputs"], activation=plan["activation"], name="head"))
    plain.append(("dense", "head", {"activation": plan["activation"]}))
    return Sequential(*layers), plain


def drawn(plan):
    """(parameters, batch) of a plan, whose numbers are exact in its dtype."""
    rng, dtype = np.random.default_rng(plan["seed"]), np.dtype(plan["dtype"])
    size, time = plan["sequences"], plan["time"]
    network, _ = built(plan)
    params = network.init(0, plan["features"], np.float64)
    params = tree_map(lambda w: rng.normal(0, 0.4, w.shape).astype(dtype), params)
    shape = (size,) if plan["last_only"] else (size, time)
    batch = {
        "inputs": rng.integers(0, 5, (size, time)) if plan["embedding"] else
        rng.normal(size=(size, time, plan["features"])).astype(dtype),
        "targets": rng.integers(0, plan["outputs"], shape) if plan["loss"] == LOSSES[1] else
        rng.random((*shape, plan["outputs"])).astype(dtype),
    }  # fmt: skip
    if plan["weights"]:
        batch["weights"] = rng.integers(0, 3, shape).astype(dtype)
        batch["weights"].reshape(size, -1)[:, 0] += dtype.type(0.25)  # no batch without a weight
    if plan["lengths"]:
        batch["sequence_length"] = rng.integers(0, time + 1, size)
    return params, batch


def batches(plan, batch):
    """The three batches of an epoch, in the documented order: default_rng([seed, 1, epoch])."""
    size = plan["sequences"]
    order = np.random.default_rng([plan["seed"], 1, 0]).permutation(size)
    each = -(-size // 3)
    return [{key: value[order[k : k + each]] for key, value in batch.items()} for k in range(0, size, each)], each


def fitted(plan, network, params, batch, optimizer):
    options = {"optimizer": optimizer, "epochs": 1, "seed": plan["seed"], "clip_norm": plan["clip_norm"]}
    options["progress"] = False
    form = FORMS[plan["form"]]
    given = {key: form(value) for key, value in batch.items()}
    if not plan["time_major"]:
        return fit(network, params, plan["loss"], given, batch_size=batches(plan, batch)[1], **options)

    def swapped(step):
        part = batches(plan, batch)[0][step]
        swap = {key: value.swapaxes(0, 1) if value.ndim > 1 else value for key, value in part.items()}
        if plan["last_only"]:
            swap["targets"] = part["targets"]
        return {key: form(value) for key, value in swap.items()}

    steps = len(batches(plan, batch)[0])
    return fit(network, params, losses.get(plan["loss"]), swapped, steps_per_epoch=steps, **options)


def trained_plainly(plan, params, batch, loss_of):
    """(parameters, mean loss of the epoch) after plain steps; ``loss_of(params, batch, rng)`` is differentiated."""
    kind, options = plan["optimizer"], OPTIMIZERS[plan["optimizer"]][1]
    flat = {name: w.astype(np.float64) for name, w in flatten_names(params).items()}
    slots = {name: {} for name in flat}
    total, entries = 0.0, 0.0
    for step, part in enumerate(batches(plan, batch)[0]):
        rng = np.random.default_rng([plan["seed"], 0, step])
        derive = value_and_grad(lambda tree, part=part, rng=rng: loss_of(tree, part, rng))
        value, grads = derive(unflatten_names(flat))
        count = np.sum(part["weights"]) if "weights" in part else len(part["inputs"])
        count *= plan["time"] if "weights" not in part and not plan["last_only"] else 1
        total, entries = total + float(value) * count, entries + count
        grads = clipped(flatten_names(grads), plan["clip_norm"])
        kind = "Momentum" if kind == "Nesterov" else kind
        flat = {name: update(kind, options, w, grads[name], slots[name], step + 1) for name, w in flat.items()}
    return flat, total / entries


def bound(plan):
    widest = max([4 + 3 + 1, *(cell["units"] + 8 for cell in plan["cells"])])
    roundings = 3 * 2 * plan["time"] * (len(plan["cells"]) + 1) * (widest + 20)
    return roundings * np.finfo(plan["dtype"]).eps / 2


def compare(plan, result, flat, mean_loss):
    tolerance = bound(plan)
    found = flatten_names(result.params)
    assert found.keys() == flat.keys()
    for name, wanted in flat.items():
        assert found[name].dtype == plan["dtype"]
        difference = np.max(np.abs(found[name] - wanted)) / max(1.0, np.max(np.abs(wanted)))
        assert difference <= tolerance, f"{name}: off by {difference:.3g}, above {tolerance:.3g}"
    assert result.step == 3 if plan["sequences"] % 3 == 0 else result.step <= 3
    difference = abs(result.history["loss"][0] - mean_loss) / max(1.0, abs(mean_loss))
    assert difference <= tolerance, f"loss: off by {difference:.3g}, above {tolerance:.3g}"


# A gradient that is ten thousand times as large as the one before is right, and what `fit` says about it too.
EXPLODES = pytest.mark.filterwarnings("ignore:fit. the gradient's norm:RuntimeWarning")


@EXPLODES
@given(plans())
@settings(max_examples=COUNT)
def test_three_steps_of_fit_are_three_plain_steps(plan):
    network, plain = built(plan)
    params, batch = drawn(plan)
    optimizer_class, options = OPTIMIZERS[plan["optimizer"]]
    result = fitted(plan, network, params, batch, optimizer_class(**options))

    def loss_of(tree, part, rng):
        lengths = part.get("sequence_length", np.full(len(part["inputs"]), plan["time"]))
        x = part["inputs"] if plan["embedding"] else part["inputs"].astype(np.float64)
        outputs = model(plain, tree, x, lengths, rng, plan["time_major"])
        return loss(plan["loss"], outputs, part["targets"], part.get("weights"))

    compare(plan, result, *trained_plainly(plan, params, batch, loss_of))


OTHER_CELLS = {
    "gru": lambda n: GRUCell(n),
    "rnn": lambda n: BasicRNNCell(n),
    "coupled": lambda n: CoupledLSTMCell(n, forget_bias=0.5),
    "stack": lambda n: MultiRNNCell([LSTMCell(n, use_peepholes=True), GRUCell(2)]),
    "residual": lambda n: MultiRNNCell([LSTMCell(n), ResidualWrapper(LSTMCell(n))]),
    "dropout": lambda n: DropoutWrapper(LSTMCell(n), input_keep_prob=0.7, output_keep_prob=0.8, state_keep_prob=0.9),
    "variational": lambda n: DropoutWrapper(LSTMCell(n), output_keep_prob=0.6, variational_recurrent=True),
}


@EXPLODES
@given(plans(), st.sampled_from(sorted(OTHER_CELLS)), st.booleans())
@settings(max_examples=COUNT // 3)
def test_three_steps_with_another_cell_are_three_plain_steps_of_its_trace(plan, cell, learned):
    plan = {**plan, "time_major": False, "dropout": None, "dtype": "float64"}

    def network(backprop):
        options = {"backprop": backprop, "learn_initial_state": learned, "return_sequences": not plan["last_only"]}
        first = [Embedding(5, plan["features"])] if plan["embedding"] else []
        inner = OTHER_CELLS[cell](plan["cells"][0]["units"])
        return Sequential(*first, RNN(inner, **options), Dense(plan["outputs"], activation=plan["activation"]))

    fast, traced = network(plan["backprop"]), network("autograd")
    rng = np.random.default_rng(plan["seed"])
    params = tree_map(lambda w: rng.normal(0, 0.4, w.shape), fast.init(0, plan["features"], np.float64))
    _, batch = drawn(plan)
    optimizer_class, options = OPTIMIZERS[plan["optimizer"]]
    result = fitted(plan, fast, params, batch, optimizer_class(**options))

    def loss_of(tree, part, rng):
        outputs = traced.apply(tree, part["inputs"], sequence_length=part.get("sequence_length"), rng=rng)[0]
        return loss(plan["loss"], outputs, part["targets"], part.get("weights"))

    compare(plan, result, *trained_plainly(plan, params, batch, loss_of))
