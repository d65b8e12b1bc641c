"""`fit` against PyTorch: the same model, data and three steps of SGD or Momentum, with lengths by packing."""

import itertools
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilstm import LSTM, SGD, Dense, Momentum, Sequential, fit
from minilstm.gates import split_gates
from minilstm.params import flatten_names, tree_map

pytestmark = pytest.mark.interop
COUNT = 500 if os.environ.get("MINILSTM_FULL") else 30
LOSSES = ("mse", "softmax_cross_entropy", "sigmoid_cross_entropy")


@st.composite
def plans(draw):
    return {
        "units": draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)),
        "forget_bias": draw(st.sampled_from([0.0, 1.0])),
        "loss": draw(st.sampled_from(LOSSES)),
        "momentum": draw(st.sampled_from([0.0, 0.9])),
        "last_only": draw(st.booleans()),
        "lengths": draw(st.booleans()),
        "time": draw(st.integers(1, 5)),
        "features": draw(st.integers(1, 3)),
        "outputs": draw(st.integers(2, 3)),
        "sequences": draw(st.sampled_from([3, 6, 5])),
        "seed": draw(st.integers(0, 2**16)),
    }


class Network(torch.nn.Module):
    """LSTM layers and a Linear; the weights come from minilstm's parameters."""

    def __init__(self, plan, params):
        super().__init__()
        self.plan = plan
        sizes = [plan["features"], *plan["units"]]
        self.lstms = torch.nn.ModuleList(
            torch.nn.LSTM(a, b, batch_first=True).double() for a, b in itertools.pairwise(sizes)
        )
        self.linear = torch.nn.Linear(plan["units"][-1], plan["outputs"]).double()
        with torch.no_grad():
            for n, lstm in enumerate(self.lstms):
                weights = params[f"layer{n}"]["lstm_cell"]
                rows, columns = lstm.input_size, split_gates(weights["kernel"])
                kernel = np.concatenate([columns[gate] for gate in "ifjo"], axis=1)
                bias = split_gates(weights["bias"])
                bias = {**bias, "f": bias["f"] + plan["forget_bias"]}
                lstm.weight_ih_l0[:] = torch.from_numpy(kernel[:rows].T.copy())
                lstm.weight_hh_l0[:] = torch.from_numpy(kernel[rows:].T.copy())
                lstm.bias_ih_l0[:] = torch.from_numpy(np.concatenate([bias[gate] for gate in "ifjo"]))
                lstm.bias_hh_l0[:] = 0
                lstm.bias_hh_l0.requires_grad_(False)  # minilstm has one bias
            self.linear.weight[:] = torch.from_numpy(params["head"]["kernel"].T.copy())
            self.linear.bias[:] = torch.from_numpy(params["head"]["bias"])

    def forward(self, x, lengths):
        pack = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        for lstm in self.lstms:
            pack, (last, _) = lstm(pack)
        outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(pack, batch_first=True, total_length=x.shape[1])
        return self.linear(last[0] if self.plan["last_only"] else outputs)

    def weights(self):
        """Named as minilstm names them, in its layout."""
        found = {}
        for n, lstm in enumerate(self.lstms):
            kernel = torch.cat([lstm.weight_ih_l0, lstm.weight_hh_l0], dim=1).detach().numpy().T
            i, f, j, o = np.split(kernel, 4, axis=1)
            found[f"layer{n}/lstm_cell/kernel"] = np.concatenate([i, j, f, o], axis=1)
            i, f, j, o = np.split(lstm.bias_ih_l0.detach().numpy(), 4)
            found[f"layer{n}/lstm_cell/bias"] = np.concatenate([i, j, f - self.plan["forget_bias"], o])
        found["head/kernel"] = self.linear.weight.detach().numpy().T
        found["head/bias"] = self.linear.bias.detach().numpy()
        return found


def torch_loss(plan, outputs, targets):
    if plan["loss"] == "mse":
        return torch.nn.functional.mse_loss(outputs, targets)
    if plan["loss"] == "sigmoid_cross_entropy":
        return torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets)
    return torch.nn.functional.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1))


@pytest.mark.filterwarnings("ignore:fit. the gradient's norm:RuntimeWarning")  # it is right
@given(plans())
@settings(max_examples=COUNT)
def test_three_steps_of_fit_are_three_steps_of_pytorch(plan):
    """Bound: as in tests/fuzz/test_fit_fuzz.py, N = 3 * 2 * T * L * (K + 20) roundings of float64."""
    rng = np.random.default_rng(plan["seed"])
    size, time = plan["sequences"], plan["time"]
    layers = [
        LSTM(units, forget_bias=plan["forget_bias"], name=f"layer{n}", return_sequences=not (
            plan["last_only"] and n == len(plan["units"]) - 1))
        for n, units in enumerate(plan["units"])
    ]  # fmt: skip
    network = Sequential(*layers, Dense(plan["outputs"], name="head"))
    params = tree_map(lambda w: rng.normal(0, 0.4, w.shape), network.init(0, plan["features"], np.float64))
    shape = (size,) if plan["last_only"] else (size, time)
    is_label = plan["loss"] == "softmax_cross_entropy"
    inputs = rng.normal(size=(size, time, plan["features"]))
    targets = rng.integers(0, plan["outputs"], shape) if is_label else rng.random((*shape, plan["outputs"]))
    lengths = rng.integers(1, time + 1, size) if plan["lengths"] else np.full(size, time)
    rate = 0.125  # a number that float32 holds exactly, as momentum below
    momentum = float(np.float32(plan["momentum"]))
    optimizer = Momentum(rate, momentum) if momentum else SGD(rate)
    each = -(-size // 3)
    batch = {"inputs": torch.from_numpy(inputs), "targets": torch.from_numpy(targets)}  # tensors are data too
    if plan["lengths"]:
        batch["sequence_length"] = torch.from_numpy(lengths)
    options = {"optimizer": optimizer, "epochs": 1, "batch_size": each, "seed": plan["seed"], "progress": False}
    found = flatten_names(fit(network, params, plan["loss"], batch, **options).params)

    theirs = Network(plan, params)
    trained = [p for p in theirs.parameters() if p.requires_grad]
    steps = torch.optim.SGD(trained, lr=rate, momentum=momentum)
    order = np.random.default_rng([plan["seed"], 1, 0]).permutation(size)
    for start in range(0, size, each):
        rows = order[start : start + each]
        steps.zero_grad()
        outputs = theirs(torch.from_numpy(inputs[rows]), torch.from_numpy(lengths[rows]))
        torch_loss(plan, outputs, torch.from_numpy(targets[rows])).backward()
        steps.step()
    bound = 3 * 2 * time * (len(layers) + 1) * (12 + 20) * np.finfo(np.float64).eps / 2
    for name, wanted in theirs.weights().items():
        difference = np.max(np.abs(found[name] - wanted)) / max(1.0, np.max(np.abs(wanted)))
        assert difference <= bound, f"{name}: off by {difference:.3g}, above {bound:.3g}"
