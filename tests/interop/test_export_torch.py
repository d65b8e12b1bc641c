"""What `minilstm.export.torch` writes, in real PyTorch; and what PyTorch writes, here."""

import numpy as np
import pytest
import safetensors.torch
import torch
from export.cases import EXAMPLES, cases, make, simple
from helpers import assert_close, assert_trees_close, assert_trees_equal, named_leaves
from hypothesis import given, settings

from minilstm import (
    LSTM,
    RNN,
    SGD,
    Adam,
    Bidirectional,
    Dense,
    Embedding,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    Sequential,
    load_checkpoint,
    losses,
    value_and_grad,
)
from minilstm.export import torch as export
from minilstm.export.convert import convert
from minilstm.export.infer import Options

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning"),
]


@settings(max_examples=EXAMPLES)
@given(case=cases(projections=True, reverse=True, grus=(True,), both_ways=True))
def test_outputs_are_ours_and_weights_come_back_bit_for_bit(tmp_path_factory, case):
    path = tmp_path_factory.mktemp("torch") / "model.safetensors"
    code = export.save(path, case.model, case.params)
    assert_close(export.opened(code)(case.inputs), case.outputs, 2e-6)
    loaded = export.load(path)
    assert loaded.model.config() == case.model.config()
    assert_trees_equal(loaded.params, case.params)


def test_a_stack_is_one_module_with_the_keys_of_nn_lstm(tmp_path):
    cells = [LSTMCell(4, num_proj=2, forget_bias=bias) for bias in (0.5, 2.0)]
    case = make(Sequential(RNN(MultiRNNCell(cells), name="encoder"), Dense(1)))
    path = tmp_path / "model.safetensors"
    export.save(path, case.model, case.params, extra={"scaling": [1.5, 2.5]})
    state = safetensors.torch.load_file(path)
    wanted = torch.nn.ModuleDict(
        {"encoder": torch.nn.LSTM(2, 4, num_layers=2, proj_size=2), "dense": torch.nn.Linear(2, 1)}
    ).state_dict()
    assert {name: value.shape for name, value in state.items()} == {n: value.shape for n, value in wanted.items()}
    assert state["encoder.bias_hh_l1"].tolist() == [0.0] * 4 + [2.0] * 4 + [0.0] * 8
    assert export.load(path).extra == {"scaling": [1.5, 2.5]}


def test_a_model_made_in_pytorch_reads_with_both_of_its_biases(tmp_path):
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(4, 5, num_layers=2, batch_first=True)
    modules = torch.nn.ModuleDict({"embed": torch.nn.Embedding(9, 4), "rnn": lstm, "out": torch.nn.Linear(5, 3)})
    inputs = np.random.default_rng(0).integers(0, 9, (3, 6))
    with torch.no_grad():
        wanted = modules["out"](modules["rnn"](modules["embed"](torch.from_numpy(inputs)))[0]).numpy()
    path = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file(modules.state_dict(), path)
    cells = [LSTMCell(5, forget_bias=0.0) for _ in range(2)]
    model = Sequential(Embedding(9, 4, name="embed"), RNN(MultiRNNCell(cells)), Dense(3, name="out"))
    assert_close(model(export.load(path, model).params, inputs), wanted, 2e-6)
    with pytest.raises(ValueError, match="no description of the model"):
        export.load(path)
    with pytest.raises(ValueError, match=r"has no .*dense.weight.*\(the file has .*out.weight"):
        export.load(path, Sequential(*model.layers[:2], Dense(3)))
    with pytest.raises(ValueError, match=r"no place for out\.bias, out\.weight"):
        export.load(path, Sequential(*model.layers[:2]))
    lines = []
    assert convert(path, tmp_path / "ours.npz", options=Options(dense_activation="linear"), report=lines.append)
    assert any("rnn/multi_rnn_cell/cell_1/lstm_cell: kernel, bias <- rnn.weight_ih_l1" in line for line in lines)


@pytest.mark.parametrize("optimizer", [SGD(0.1), Adam(0.01, epsilon=1e-4)], ids=["SGD", "Adam"])
def test_a_training_step_moves_the_same_weights_to_the_same_place(tmp_path, optimizer):
    case = simple(forget_bias=0.5)
    targets = np.random.default_rng(1).normal(size=case.outputs.shape).astype(np.float32)
    loss, grads = value_and_grad(lambda p: losses.mse(case.model(p, case.inputs), targets))(case.params)
    wanted, _ = optimizer.update(case.params, grads, optimizer.init(case.params))

    namespace = {}
    exec(export.save(tmp_path / "model.safetensors", case.model, case.params), namespace)
    modules = namespace["model"].train()
    modules["rnn"].bias_hh_l0.requires_grad_(False)  # the forget bias is no weight of ours
    free = [weight for weight in modules.parameters() if weight.requires_grad]
    if isinstance(optimizer, SGD):
        theirs = torch.optim.SGD(free, optimizer.learning_rate)
    else:  # PyTorch adds epsilon to the root of the corrected v
        eps = optimizer.epsilon / np.sqrt(1 - optimizer.beta2)
        theirs = torch.optim.Adam(free, optimizer.learning_rate, betas=(optimizer.beta1, optimizer.beta2), eps=eps)
    their_loss = torch.nn.functional.mse_loss(namespace["forward"](case.inputs), torch.from_numpy(targets))
    their_loss.backward()
    theirs.step()
    assert_close(their_loss.item(), loss, 2e-7)
    safetensors.torch.save_file(modules.state_dict(), tmp_path / "trained.safetensors")
    trained = export.load(tmp_path / "trained.safetensors", case.model).params
    assert_trees_close(trained, wanted, 3e-7)
    assert np.abs(trained["rnn"]["lstm_cell"]["bias"] - case.params["rnn"]["lstm_cell"]["bias"]).min() > 1e-6


def test_both_biases_trained_come_back_as_their_sum(tmp_path):
    case = simple(forget_bias=0.5)
    path = tmp_path / "model.safetensors"
    export.save(path, case.model, case.params)
    state = safetensors.torch.load_file(path)
    state["rnn.bias_hh_l0"] += torch.arange(12) / 8
    safetensors.torch.save_file(state, path)
    moved = export.load(path, case.model).params["rnn"]["lstm_cell"]["bias"]
    i, f, g, o = np.split(np.arange(12) / 8, 4)
    assert_close(moved, case.params["rnn"]["lstm_cell"]["bias"] + np.concatenate([i, g, f, o]), 3e-7)


def test_float64_stays_float64(tmp_path):
    case = make(Sequential(LSTM(3), Dense(2, activation="softsign")), dtype=np.float64)
    outputs = export.opened(export.save(tmp_path / "m.safetensors", case.model, case.params))(case.inputs)
    assert outputs.dtype == np.float64
    assert_close(outputs, case.outputs, 1e-14)
    assert_trees_equal(export.load(tmp_path / "m.safetensors").params, case.params)


def test_a_cut_file_is_a_valueerror(tmp_path):
    case = simple()
    path = tmp_path / "model.safetensors"
    export.save(path, case.model, case.params)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        export.load(path)


def test_a_plain_rnn_is_no_lstm_of_other_sizes(tmp_path):
    path, module = tmp_path / "theirs.safetensors", torch.nn.RNN(5, 8)
    safetensors.torch.save_file(torch.nn.ModuleDict({"rnn": module}).state_dict(), path)
    with pytest.raises(ValueError, match=r"rnn\.weight_ih_l0 has shape \(8, 5\).*: 1 x 8 rows: a plain RNN"):
        convert(path, tmp_path / "ours.npz", options=Options(activation="tanh"))
    with pytest.raises(ValueError, match=r"rnn\.weight_hh_l0 has shape \(8, 8\).*: 1 x 8 rows: a plain RNN"):
        export.load(path, Sequential(LSTM(2)))
    assert not (tmp_path / "ours.npz").exists()


def test_a_gru_is_no_lstm_of_other_sizes_and_no_gru_of_the_other_formula(tmp_path):
    path = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file(torch.nn.ModuleDict({"rnn": torch.nn.GRU(5, 8)}).state_dict(), path)
    with pytest.raises(ValueError, match=r"rnn\.weight_hh_l0 has shape \(24, 8\).*: 3 x 8 rows: a GRU"):
        export.load(path, Sequential(LSTM(6)))
    with pytest.raises(ValueError, match="'rnn' has reset_after=False, and torch"):
        export.load(path, Sequential(RNN(GRUCell(8))))
    with pytest.raises(ValueError, match=r"no rnn.weight_ih_l0_reverse, .*"):
        export.load(path, Sequential(Bidirectional(GRUCell(8, reset_after=True), name="rnn")))


# --- GRUs, and both directions --------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_module_of_pytorch_comes_here_and_goes_back_with_its_names(tmp_path, kind, bidirectional, layers):
    torch.manual_seed(layers)
    module = getattr(torch.nn, kind)(3, 4, num_layers=layers, batch_first=True, bidirectional=bidirectional)
    modules = torch.nn.ModuleDict({"rnn": module, "out": torch.nn.Linear(4 * (1 + bidirectional), 2)})
    if kind == "LSTM":  # so that no bias is folded
        for name, weight in module.named_parameters():
            if "bias_hh" in name:
                torch.nn.init.zeros_(weight)
    inputs = np.random.default_rng(0).normal(size=(3, 6, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = modules["out"](module(torch.from_numpy(inputs))[0]).numpy()
    path, checkpoint, back = (str(tmp_path / name) for name in ("theirs.safetensors", "ours.ckpt", "back.safetensors"))
    safetensors.torch.save_file(modules.state_dict(), path)
    lines = []
    assert convert(path, checkpoint, options=Options(dense_activation="linear"), report=lines.append)
    loaded = load_checkpoint(checkpoint)
    assert_close(loaded.model(loaded.params, inputs), wanted, 2e-6)
    assert convert(checkpoint, back, report=lines.append)
    assert sum(line.startswith("verified") for line in lines) == 2
    state = safetensors.torch.load_file(back)
    assert state.keys() == modules.state_dict().keys()
    assert all(torch.equal(state[name], weight) for name, weight in modules.state_dict().items())
    modules.load_state_dict(state)


def test_bidirectional_layers_with_other_names_or_sizes_are_modules_of_their_own(tmp_path):
    def saved(*names, units=(3, 3)):
        layers = [Bidirectional(LSTMCell(n), name=name) for n, name in zip(units, names, strict=False)]
        case = make(Sequential(*layers, Dense(1)))
        path = tmp_path / "m.safetensors"
        code = export.save(path, case.model, case.params)
        assert_close(export.opened(code)(case.inputs), case.outputs, 2e-6)
        assert_trees_equal(export.load(path).params, case.params)
        return sorted({name.rpartition(".")[0] for name in safetensors.torch.load_file(path)} - {"dense"})

    assert saved("a/cell_0", "a/cell_1") == ["a"]
    assert saved("a/cell_0") == ["a/cell_0"]
    assert saved("a/cell_1", "a/cell_0") == ["a/cell_1", "a/cell_0"][::-1]
    assert saved("a/cell_0", "b/cell_1") == ["a/cell_0", "b/cell_1"]
    assert saved("a/cell_0", "a/cell_1", units=(3, 2)) == ["a/cell_0", "a/cell_1"]
    clash = make(Sequential(RNN(LSTMCell(3), name="a"), Bidirectional(LSTMCell(3), name="a/cell_0"),
                            Bidirectional(LSTMCell(3), name="a/cell_1")))  # fmt: skip
    with pytest.raises(ValueError, match="two layers would both be called 'a'"):
        export.save(tmp_path / "clash.safetensors", clash.model, clash.params)


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("cell", [lambda: LSTMCell(3, num_proj=2), lambda: GRUCell(3, reset_after=True)])
def test_the_last_output_of_both_directions_is_that_of_their_ends(tmp_path, cell, time_major):
    both = (RNN(cell(), return_sequences=False, time_major=time_major) for _ in range(2))
    case = make(Sequential(Bidirectional(*both), Dense(1)))
    code = export.save(tmp_path / "m.safetensors", case.model, case.params)
    assert_close(export.opened(code)(case.inputs), case.outputs, 2e-6)


@pytest.mark.parametrize("backprop", ["fast", "autograd"])
@pytest.mark.parametrize("both_ways", [False, True])
def test_the_gradients_of_a_gru_with_reset_after_are_those_of_pytorch(tmp_path, both_ways, backprop):
    runners = [RNN(GRUCell(4, reset_after=True), backprop=backprop) for _ in range(1 + both_ways)]
    case = make(Sequential(Bidirectional(*runners) if both_ways else runners[0], Dense(2)), dtype=np.float64)
    targets = np.random.default_rng(1).normal(size=case.outputs.shape)
    loss, grads = value_and_grad(lambda p: losses.mse(case.model(p, case.inputs), targets))(case.params)

    namespace = {}
    exec(export.save(tmp_path / "m.safetensors", case.model, case.params), namespace)
    modules = namespace["model"].train()
    their_loss = torch.nn.functional.mse_loss(namespace["forward"](case.inputs), torch.from_numpy(targets))
    their_loss.backward()
    theirs = {name: weight.grad for name, weight in modules.named_parameters()}
    safetensors.torch.save_file(theirs, tmp_path / "grads.safetensors")
    assert_close(their_loss.item(), loss, 1e-14)
    found = export.load(tmp_path / "grads.safetensors", case.model).params
    assert_trees_close(found, grads, 1e-13)
    assert min(np.abs(g).max() for _, g in named_leaves(grads)) > 1e-4
