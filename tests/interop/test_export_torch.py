"""What `minilstm.export.torch` writes, in real PyTorch; and what PyTorch writes, here."""

import numpy as np
import pytest
import safetensors.torch
import torch
from export.cases import EXAMPLES, cases, make, simple
from helpers import assert_close, assert_trees_close, assert_trees_equal
from hypothesis import given, settings

from minilstm import LSTM, RNN, SGD, Adam, Dense, Embedding, LSTMCell, MultiRNNCell, Sequential, losses, value_and_grad
from minilstm.export import torch as export
from minilstm.export.convert import convert
from minilstm.export.infer import Options

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning"),
]


@settings(max_examples=EXAMPLES)
@given(case=cases(projections=True, reverse=True))
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


@pytest.mark.parametrize(
    ("module", "looks_like"),
    [(torch.nn.GRU(5, 8), "3 x 8 rows: a GRU"), (torch.nn.RNN(5, 8), "1 x 8 rows: a plain RNN")],
    ids=["GRU", "RNN"],
)
def test_another_recurrent_layer_is_no_lstm_of_other_sizes(tmp_path, module, looks_like):
    path = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file(torch.nn.ModuleDict({"rnn": module}).state_dict(), path)
    rows = module.weight_ih_l0.shape[0]
    with pytest.raises(ValueError, match=rf"rnn\.weight_ih_l0 has shape \({rows}, 5\).*: {looks_like}"):
        convert(path, tmp_path / "ours.npz", options=Options(activation="tanh"))
    with pytest.raises(ValueError, match=rf"rnn\.weight_hh_l0 has shape \({rows}, 8\).*: {looks_like}"):
        export.load(path, Sequential(LSTM(rows // 4)))
    assert not (tmp_path / "ours.npz").exists()


def test_a_bidirectional_lstm_is_refused_by_name(tmp_path):
    path = tmp_path / "theirs.safetensors"
    module = torch.nn.LSTM(5, 8, bidirectional=True)
    safetensors.torch.save_file(torch.nn.ModuleDict({"rnn": module}).state_dict(), path)
    with pytest.raises(ValueError, match=r"_reverse belongs to a bidirectional layer"):
        convert(path, tmp_path / "ours.npz", options=Options(activation="tanh"))
