"""Programs of TensorFlow 1.x save, and two lines here go on: the same outputs, the same training, and back.

Names of versions that no longer run are given to the Saver: it writes variables under any names.
"""

import numpy as np
import pytest
from helpers import assert_close

from minilstm import (
    RNN,
    Adam,
    BasicLSTMCell,
    Bidirectional,
    Dense,
    DropoutWrapper,
    Embedding,
    GRUCell,
    LSTMCell,
    Momentum,
    MultiRNNCell,
    RMSProp,
    Sequential,
    clip_by_global_norm,
    load_checkpoint,
    losses,
    save_checkpoint,
    tensorbundle,
    value_and_grad,
)
from minilstm.checkpoint.past_names import old_name
from minilstm.params import flatten_names

pytestmark = pytest.mark.interop

BATCH, TIME, FEATURES, UNITS, STEPS = 4, 6, 3, 5, 5
V1, V2 = 1, 2
INPUTS = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)
OURS = {"Adam": Adam(0.05), "Momentum": Momentum(0.2, 0.9), "RMSProp": RMSProp(0.01, momentum=0.5)}


def theirs(tf, name):
    return {
        "Adam": lambda: tf.train.AdamOptimizer(0.05),
        "Momentum": lambda: tf.train.MomentumOptimizer(0.2, 0.9),
        "RMSProp": lambda: tf.train.RMSPropOptimizer(0.01, momentum=0.5),
    }[name]()


def of_0x(name):
    """A variable's name in TensorFlow 0.x."""
    for today, then in {
        "bidirectional_rnn/fw": "BiRNN/FW", "bidirectional_rnn/bw": "BiRNN/BW",
        "rnn/multi_rnn_cell/cell_": "RNN/MultiRNNCell/Cell", "rnn/": "RNN/", "basic_lstm_cell": "BasicLSTMCell",
        "lstm_cell/projection/kernel": "LSTMCell/W_P_0", "lstm_cell/kernel": "LSTMCell/W_0",
        "lstm_cell/bias": "LSTMCell/B", "lstm_cell/w_": "LSTMCell/W_", "gru_cell/gates/": "GRUCell/Gates/",
        "gru_cell/candidate/": "GRUCell/Candidate/", "BasicLSTMCell/kernel": "BasicLSTMCell/Linear/Matrix",
        "BasicLSTMCell/bias": "BasicLSTMCell/Linear/Bias", "s/kernel": "s/Linear/Matrix", "s/bias": "s/Linear/Bias",
        "Candidate/kernel": "Candidate/Linear/Matrix", "Candidate/bias": "Candidate/Linear/Bias",
    }.items():  # fmt: skip
        name = name.replace(today, then)
    for gate in "ifo":
        name = name.replace(f"W_{gate}_diag", f"W_{gate.upper()}_diag")
    return name


def run_by_their(tf, cell, backward=None):
    """The outputs of a cell of theirs, or of two for both directions."""
    x = tf.constant(INPUTS)
    if backward is None:
        return tf.nn.dynamic_rnn(cell, x, dtype=tf.float32)[0]
    outputs, _ = tf.nn.bidirectional_dynamic_rnn(cell, backward, x, dtype=tf.float32)
    return tf.concat(outputs, -1)


def cells(tf):
    return tf.nn.rnn_cell


# What a program of theirs builds, the layers of ours, and what the file calls today's names.
KINDS = {
    "today": (
        lambda tf: run_by_their(tf, cells(tf).LSTMCell(UNITS, use_peepholes=True, num_proj=2, forget_bias=0.5)),
        lambda: RNN(LSTMCell(UNITS, use_peepholes=True, num_proj=2, forget_bias=0.5)), lambda name: name,
    ),
    "0.x": (
        lambda tf: run_by_their(tf, cells(tf).BasicLSTMCell(UNITS, forget_bias=0.5)),
        lambda: RNN(BasicLSTMCell(UNITS, forget_bias=0.5)), of_0x,
    ),
    "0.x, two cells": (
        lambda tf: run_by_their(tf, cells(tf).MultiRNNCell([
            cells(tf).BasicLSTMCell(UNITS), cells(tf).LSTMCell(4, use_peepholes=True, num_proj=2)])),
        lambda: RNN(MultiRNNCell([BasicLSTMCell(UNITS), LSTMCell(4, use_peepholes=True, num_proj=2)])), of_0x,
    ),
    "0.x, GRU": (lambda tf: run_by_their(tf, cells(tf).GRUCell(UNITS)), lambda: RNN(GRUCell(UNITS)), of_0x),
    "1.0": (
        lambda tf: run_by_their(tf, cells(tf).LSTMCell(UNITS, num_proj=2)),
        lambda: RNN(LSTMCell(UNITS, num_proj=2)), lambda name: old_name(name, set()),
    ),
    "1.0, GRU": (
        lambda tf: run_by_their(tf, cells(tf).GRUCell(UNITS)), lambda: RNN(GRUCell(UNITS)),
        lambda name: old_name(name, set()),
    ),
    "1.0, a cell with a name": (
        lambda tf: run_by_their(tf, cells(tf).LSTMCell(UNITS, name="hidden2")),
        lambda: RNN(LSTMCell(UNITS, name="hidden2")), lambda name: old_name(name, {"hidden2"}),
    ),
    "with :0": (
        lambda tf: run_by_their(tf, cells(tf).BasicLSTMCell(UNITS)), lambda: RNN(BasicLSTMCell(UNITS)),
        lambda name: f"{name}:0",
    ),
    "cudnn": (
        lambda tf: run_by_their(tf, cells(tf).MultiRNNCell([
            cells(tf).BasicLSTMCell(UNITS, forget_bias=0.0, name="cudnn_compatible_lstm_cell") for _ in range(2)])),
        lambda: RNN(MultiRNNCell([LSTMCell(UNITS, forget_bias=0.0) for _ in range(2)])), lambda name: name,
    ),
    "both directions, 0.x": (
        lambda tf: run_by_their(tf, cells(tf).BasicLSTMCell(UNITS), cells(tf).BasicLSTMCell(UNITS)),
        lambda: Bidirectional(BasicLSTMCell(UNITS), BasicLSTMCell(UNITS)),
        of_0x,
    ),
}  # fmt: skip


def trained_there(tf, build, optimizer, rename, prefix, scope=None, version=V2):
    """Train, save and train on; the outputs when it was saved, and the variables at the end, by today's names."""
    with tf.Graph().as_default(), tf.Session() as session:
        with tf.variable_scope(scope or tf.get_variable_scope()):
            outputs = build(tf)
            y = tf.layers.dense(outputs, 2)
            count = tf.train.get_or_create_global_step()
            step = theirs(tf, optimizer).minimize(tf.reduce_mean(tf.square(y - 0.3)), global_step=count)
        session.run(tf.global_variables_initializer())
        rng = np.random.default_rng(1)
        for variable in tf.trainable_variables():
            variable.load(rng.normal(0, 0.4, variable.shape.as_list()).astype(np.float32), session)
        for _ in range(STEPS):
            session.run(step)
        names = {rename(variable.op.name): variable for variable in tf.global_variables()}
        tf.train.Saver(names, write_version=version).save(session, str(prefix), global_step=STEPS)
        found = session.run(y)
        for _ in range(STEPS):
            session.run(step)
        return found, {variable.op.name: session.run(variable) for variable in tf.trainable_variables()}


def trained_here(model, loaded, optimizer):
    """The parameters after as many steps more."""
    gradient = value_and_grad(lambda params: ((model(params, INPUTS) - 0.3) ** 2).mean())
    params, state = loaded.params, loaded.opt_state
    for _ in range(STEPS):
        params, state = OURS[optimizer].update(params, gradient(params)[1], state)
    return flatten_names(params)


@pytest.mark.parametrize("optimizer", OURS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_lines_go_on_as_tensorflow_does(tf, tmp_path, kind, optimizer):
    build, layer, rename = KINDS[kind]
    version = V1 if kind.startswith("0.x") else V2
    wanted, after = trained_there(tf, build, optimizer, rename, tmp_path / "m", version=version)

    model = Sequential(layer(), Dense(2))
    loaded = load_checkpoint(tmp_path, like=model)

    assert (loaded.step, loaded.notes, loaded.others) == (STEPS, (), {})
    assert_close(model(loaded.params, INPUTS), wanted, 2e-6)
    found = trained_here(model, loaded, optimizer)
    assert len(found) == len(after)
    for name, array in found.items():
        same = name if name in after else name.replace("lstm_cell", "cudnn_compatible_lstm_cell")
        assert_close(array, after[same], 1e-5, name)


@pytest.mark.parametrize("optimizer", OURS)
def test_below_a_scope_that_the_optimizer_is_in_too(tf, tmp_path, optimizer):
    build, layer, _ = KINDS["today"]
    wanted, after = trained_there(tf, build, optimizer, lambda name: name, tmp_path / "m", scope="net")
    names = {name for name, *_ in tensorbundle.list_variables(tmp_path / f"m-{STEPS}")}
    assert any(name.startswith("net/net/") for name in names)
    assert "net/global_step" in names

    model = Sequential(layer(), Dense(2))
    loaded = load_checkpoint(tmp_path, like=model, scope="net")

    assert (loaded.step, loaded.notes, loaded.others) == (STEPS, (), {})
    assert_close(model(loaded.params, INPUTS), wanted, 2e-6)
    for name, array in trained_here(model, loaded, optimizer).items():
        assert_close(array, after[f"net/{name}"], 1e-5, name)


# --- a whole program ------------------------------------------------------------------------------------------

WORDS, WIDTH, HIDDEN = 11, 4, 6
TEXT = np.random.default_rng(2).integers(0, WORDS, (BATCH, TIME + 1))


class Program:
    """A language model as the tutorials of TensorFlow 1.x write it."""

    def __init__(self, tf):
        self.tf, self.graph = tf, tf.Graph()
        with self.graph.as_default(), tf.variable_scope("Model"):
            self.words = tf.placeholder(tf.int32, [None, TIME])
            self.targets = tf.placeholder(tf.int32, [None, TIME])
            self.keep_prob = tf.placeholder(tf.float32, [])
            embedding = tf.get_variable("embedding", [WORDS, WIDTH])
            wrapped = [
                tf.nn.rnn_cell.DropoutWrapper(
                    tf.nn.rnn_cell.BasicLSTMCell(HIDDEN, forget_bias=0.0), output_keep_prob=self.keep_prob
                )
                for _ in range(2)
            ]
            inputs = tf.nn.embedding_lookup(embedding, self.words)
            hidden, _ = tf.nn.dynamic_rnn(tf.nn.rnn_cell.MultiRNNCell(wrapped), inputs, dtype=tf.float32)
            weights = tf.get_variable("softmax_w", [HIDDEN, WORDS])
            bias = tf.get_variable("softmax_b", [WORDS], initializer=tf.zeros_initializer())
            logits = tf.tensordot(hidden, weights, 1) + bias
            entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=self.targets, logits=logits)
            self.loss = tf.reduce_mean(entropies)
            self.rate = tf.Variable(0.0, trainable=False, name="lr")
            variables = tf.trainable_variables()
            # As one array each: on slices, Momentum would leave the words alone that a batch lacks.
            gradients = [tf.convert_to_tensor(each) for each in tf.gradients(self.loss, variables)]
            gradients, _ = tf.clip_by_global_norm(gradients, 0.25)
            self.count = tf.train.get_or_create_global_step()
            self.step = tf.train.MomentumOptimizer(self.rate, 0.9).apply_gradients(
                zip(gradients, variables, strict=True), global_step=self.count
            )
            self.new_rate = tf.placeholder(tf.float32, [])
            self.set_rate = tf.assign(self.rate, self.new_rate)
            self.saver = tf.train.Saver()
            self.init = tf.global_variables_initializer()

    def train(self, steps, restore=None, save=None, weights=None):
        """Train for some steps; the losses before each."""
        found = []
        with self.tf.Session(graph=self.graph) as session:
            session.run(self.init)
            if restore is not None:
                self.saver.restore(session, str(restore))
            for variable in self.graph.get_collection("trainable_variables") if weights is not None else ():
                variable.load(weights[variable.op.name], session)
            for _ in range(steps):
                session.run(self.set_rate, {self.new_rate: rate_at(int(session.run(self.count)))})
                feed = {self.words: TEXT[:, :-1], self.targets: TEXT[:, 1:], self.keep_prob: 1.0}
                found.append(session.run([self.loss, self.step], feed)[0])
            if save is not None:
                self.saver.save(session, str(save), global_step=self.count)
        return found

    def new_weights(self):
        rng = np.random.default_rng(3)
        variables = self.graph.get_collection("trainable_variables")
        return {v.op.name: rng.normal(0, 0.3, v.shape.as_list()).astype(np.float32) for v in variables}


def rate_at(step):
    """The learning rate, decayed every ten steps."""
    return np.float32(0.5 * 0.8 ** (step // 10))


THEIR_NAMES = {
    "Model/embedding": "Model/embedding/embeddings",
    "Model/softmax_w": "Model/dense/kernel",
    "Model/softmax_b": "Model/dense/bias",
}


def test_a_program_of_theirs_goes_on_here_and_there_again(tf, tmp_path):
    program = Program(tf)
    weights = program.new_weights()
    alone = program.train(60, weights=weights)
    there = program.train(20, weights=weights, save=tmp_path / "theirs" / "model.ckpt")

    model = Sequential(
        Embedding(WORDS, WIDTH),
        RNN(MultiRNNCell([DropoutWrapper(BasicLSTMCell(HIDDEN, forget_bias=0.0)) for _ in range(2)])),
        Dense(WORDS),
    )
    loaded = load_checkpoint(tmp_path / "theirs", like=model, scope="Model", rename=THEIR_NAMES)

    assert (loaded.step, list(loaded.others), loaded.notes) == (20, ["Model/lr"], ())
    params, state = loaded.params, loaded.opt_state
    momentum = Momentum(rate_at, 0.9)
    gradient = value_and_grad(
        lambda p: losses.softmax_cross_entropy(model(p, TEXT[:, :-1]), TEXT[:, 1:])
    )
    here = []
    for _ in range(20):
        loss, grads = gradient(params)
        params, state = momentum.update(params, clip_by_global_norm(grads, 0.25)[0], state)
        here.append(loss)

    # Back under the names of the program, with the one variable that no model has.
    ours = save_checkpoint(tmp_path / "ours" / "m", params, opt_state=state)
    back = {ours.removeprefix("Model/"): name for name, ours in THEIR_NAMES.items()}
    tensors = {"Model/lr": loaded.others["Model/lr"]}
    for name, array in tensorbundle.read(ours).items():
        variable = name.removesuffix("/Momentum")
        is_slot = "/Momentum" if variable != name else ""
        as_theirs = back.get(variable, f"Model/{variable}") + is_slot
        tensors[f"Model/{as_theirs}" if is_slot else as_theirs] = array
    tensorbundle.write(tmp_path / "back" / "model.ckpt-40", tensors)

    again = program.train(20, restore=tmp_path / "back" / "model.ckpt-40")
    assert alone[0] - alone[-1] > 0.1  # it does learn
    np.testing.assert_allclose([*there, *here, *again], alone, atol=1e-4, rtol=0)
