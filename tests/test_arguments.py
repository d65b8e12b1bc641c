"""Every argument of every public function and class, with everything that it cannot be: refused by name.

An attack calls each of `CALLS` with one argument replaced. It must be refused by a message that begins with the name of
the function or class and names the argument, unless the value is one that the argument may have (`MAY_BE`).
"""

import inspect
import json
import math

import numpy as np
import pytest

import minilstm
from minilstm import (
    LSTM,
    RNN,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    BasicLSTMCell,
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
    bptt,
    clip_by_global_norm,
    clip_by_value,
    ema_update,
    fit,
    from_config,
    gate_activations,
    generate,
    global_norm,
    gradcheck,
    gradient_flow,
    hessian_vector_product,
    initializers,
    jvp,
    latest_checkpoint,
    load_checkpoint,
    losses,
    pack_gates,
    predict,
    sampler,
    save_checkpoint,
    schedules,
    split_gates,
    tbptt,
    value_and_grad,
)
from minilstm.data import BucketedBatches, contiguous_batches, pad_sequences, sliding_windows

WRONG = {
    "text": "1", "no text": "", "bytes": b"1", "None": None, "nan": math.nan, "inf": math.inf, "-inf": -math.inf,
    "a list": [1.0, 2.0], "an empty list": [], "a tuple": (1.0,), "a dict": {}, "-1": -1, "0": 0, "0.0": 0.0,
    "2.5": 2.5, "1": 1, "1.0": 1.0, "2": 2, "1e400 as a whole number": 10**400, "True": True, "a class": LSTM,
    "a complex number": 1j, "an object": object(), "a function": lambda *args: "?", "an array of one": np.ones(1),
    "an array of text": np.array(["a", "b"]), "objects": np.array([None, 1], object),
    "an array without dimensions": np.array(math.nan),
}  # fmt: skip


def is_number(v):
    return isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e300


def whole(least):
    return lambda v: is_number(v) and isinstance(v, int) and v >= least


def within(test):
    return lambda v: is_number(v) and test(v)


def or_none(may_be):
    return lambda v: v is None or may_be(v)


SIZE, COUNT = whole(1), whole(0)
POSITIVE, NOT_NEGATIVE = within(lambda v: v > 0), within(lambda v: v >= 0)
BELOW_1, KEEP, SHARE = within(lambda v: 0 <= v < 1), within(lambda v: 0 < v <= 1), within(lambda v: 0 <= v <= 1)
FINITE = within(lambda v: True)
FLAG = lambda v: isinstance(v, (int, float)) and v in (0, 1) and not isinstance(v, float)  # noqa: E731
FUNCTION = lambda v: callable(v) and not isinstance(v, type)  # noqa: E731
NEVER = lambda v: False  # noqa: E731
NAME = or_none(lambda v: isinstance(v, str) and v == "1")
INITIALIZER = lambda v: FUNCTION(v) or is_number(v) or isinstance(v, (list, tuple)) or (  # noqa: E731
    isinstance(v, np.ndarray) and v.dtype == float and np.isfinite(v).all()
)  # the shapes of arrays are checked by `init`
SEED = lambda v: v is None or (type(v) is int and v >= 0) or (isinstance(v, list) and not v)  # noqa: E731
BOUND = lambda v: POSITIVE(v) or v in (math.inf, 10**400) if not isinstance(v, np.ndarray) else False  # noqa: E731
RATE = lambda v: POSITIVE(v) or FUNCTION(v)  # noqa: E731
ANY = lambda v: True  # noqa: E731
TREE = lambda v: v is None or isinstance(v, (list, tuple, dict, int, float)) or (  # noqa: E731
    isinstance(v, np.ndarray) and v.dtype == float
)  # of leaves that are numbers
ROUND = lambda least: lambda v: is_number(v) and v >= least and v == int(v)  # noqa: E731 (1e3 epochs are a number)
EMPTY = lambda v: isinstance(v, list) and not v  # noqa: E731
TEXT = lambda v: isinstance(v, str) and v != ""  # noqa: E731
DTYPE = lambda v: v is None or v is float  # noqa: E731

LAYER = {"name": NAME}
CELL = {**LAYER, "units": SIZE, "activation": FUNCTION, "initializer": INITIALIZER, "bias_initializer": INITIALIZER}
X = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
MODEL = Sequential(LSTM(2), Dense(2))
PARAMS = MODEL.init(0, 2)
GRADS = {"w": np.ones((2, 3), np.float32)}
LABELS = np.array([[0, 1, 0, 1]] * 3)


def init(recipe):
    return lambda seed=0, input_dim=2, dtype=np.float32: recipe.init(seed, input_dim, dtype)


def backward(params, inputs, state, d_outputs, d_state):
    weights, options = [params["kernel"], params["bias"], *[None] * 4], {"cell": LSTMCell(2), "tape": bptt.Tape()}
    bptt.lstm_sequence(inputs, *state, *weights, **options)
    sweep = bptt.lstm_backward(d_outputs, *d_state, inputs, *weights, **options)
    d_params = {"kernel": sweep.weights[0], "bias": sweep.weights[1]}
    return d_params, sweep.inputs, (sweep.c, sweep.h), sweep.dz


def saved():
    return save_checkpoint("1", PARAMS)


INIT = {"seed": SEED, "input_dim": SIZE, "dtype": DTYPE}
# Name: (function, its other arguments, what each argument may be).
CALLS = {
    "LSTMCell": (LSTMCell, {"units": 2}, {
        **CELL, "forget_bias": FINITE, "use_peepholes": FLAG, "cell_clip": or_none(POSITIVE), "num_proj": or_none(SIZE),
    }),
    "LSTMCell with a projection": (LSTMCell, {"units": 2, "num_proj": 1}, {"proj_clip": or_none(POSITIVE)}),
    "BasicLSTMCell": (BasicLSTMCell, {"units": 2}, {**CELL, "forget_bias": FINITE}),
    "BasicRNNCell": (BasicRNNCell, {"units": 2}, CELL),
    "GRUCell": (GRUCell, {"units": 2}, {**CELL, "bias_initializer": or_none(INITIALIZER), "reset_after": FLAG}),
    "CoupledLSTMCell": (CoupledLSTMCell, {"units": 2}, {**CELL, "forget_bias": FINITE}),
    "DropoutWrapper": (DropoutWrapper, {"cell": LSTMCell(2)}, {
        "cell": NEVER, "input_keep_prob": KEEP, "output_keep_prob": KEEP, "state_keep_prob": KEEP,
        "variational_recurrent": FLAG,
    }),
    "ResidualWrapper": (ResidualWrapper, {}, {"cell": NEVER}),
    "MultiRNNCell": (MultiRNNCell, {"cells": [LSTMCell(2)]}, {"cells": NEVER, "name": NAME}),
    "RNN": (RNN, {"cell": LSTMCell(2)}, {
        **LAYER, "cell": NEVER, "backprop": NEVER, "return_sequences": FLAG, "reverse": FLAG, "time_major": FLAG,
        "learn_initial_state": FLAG,
    }),
    "LSTM": (LSTM, {"units": 2}, {"units": SIZE, "reverse": FLAG, "forget_bias": FINITE}),
    "Bidirectional": (Bidirectional, {"forward": LSTMCell(2)}, {
        **LAYER, "forward": NEVER, "backward": lambda v: v is None,
    }),
    "Dense": (Dense, {"units": 2}, {**CELL, "activation": or_none(FUNCTION)}),
    "Embedding": (Embedding, {"vocabulary": 3, "units": 2}, {
        **LAYER, "vocabulary": SIZE, "units": SIZE, "initializer": INITIALIZER,
    }),
    "Dropout": (Dropout, {"rate": 0.5}, {**LAYER, "rate": BELOW_1}),
    "Sequential": (lambda layer: Sequential(layer), {}, {"layer": NEVER}),
    "LSTMCell.init": (init(LSTMCell(2)), {}, INIT),
    "GRUCell.init": (init(GRUCell(2)), {}, INIT),
    "GRUCell.init with reset_after": (init(GRUCell(2, reset_after=True)), {}, INIT),
    "BasicRNNCell.init": (init(BasicRNNCell(2)), {}, INIT),
    "Dense.init": (init(Dense(2)), {}, INIT),
    "Embedding.init": (init(Embedding(3, 2)), {}, {"seed": SEED, "dtype": DTYPE}),
    "Sequential.init": (init(MODEL), {}, {"seed": SEED, "dtype": DTYPE}),
    "MultiRNNCell.init": (init(MultiRNNCell([LSTMCell(2)])), {}, {"seed": SEED}),
    "Sequential.apply": (lambda **o: MODEL.apply(**o), {"params": PARAMS, "inputs": X}, {
        "params": NEVER, "inputs": NEVER, "state": lambda v: v is None or isinstance(v, dict),
        "sequence_length": lambda v: v is None,
    }),
    "LSTM.apply": (lambda **o: LSTM(2).apply(**o), {"params": PARAMS["rnn"], "inputs": X}, {
        "params": NEVER, "inputs": NEVER, "state": lambda v: v is None, "sequence_length": lambda v: v is None,
    }),
    "Dense.apply": (lambda **o: Dense(2).apply(**o), {"params": PARAMS["dense"], "inputs": X}, {
        "params": NEVER, "inputs": lambda v: isinstance(v, list) and len(v) == 2,
    }),
    "Dropout.apply": (lambda **o: Dropout(0.5).apply(**o), {"params": {}, "inputs": X}, {"rng": SEED}),
    "SGD": (SGD, {}, {"learning_rate": RATE}),
    "Momentum": (Momentum, {"learning_rate": 0.1, "momentum": 0.9}, {
        "learning_rate": RATE, "momentum": SHARE, "use_nesterov": FLAG,
    }),
    "Adagrad": (Adagrad, {"learning_rate": 0.1}, {"learning_rate": RATE, "initial_accumulator_value": POSITIVE}),
    "RMSProp": (RMSProp, {"learning_rate": 0.1}, {
        "learning_rate": RATE, "decay": BELOW_1, "momentum": SHARE, "epsilon": NOT_NEGATIVE, "centered": FLAG,
    }),
    "Adam": (Adam, {}, {"learning_rate": RATE, "beta1": BELOW_1, "beta2": BELOW_1, "epsilon": NOT_NEGATIVE}),
    "AdamW": (AdamW, {}, {"weight_decay": NOT_NEGATIVE}),
    "SGD, at a step": (lambda learning_rate: SGD(lambda step: learning_rate).rate(3), {}, {
        "learning_rate": NOT_NEGATIVE,
    }),
    "constant": (schedules.constant, {}, {"rate": NOT_NEGATIVE}),
    "exponential": (schedules.exponential, {"rate": 0.1, "decay_steps": 10, "decay_rate": 0.5}, {
        "rate": NOT_NEGATIVE, "decay_steps": POSITIVE, "decay_rate": POSITIVE, "staircase": FLAG,
    }),
    "piecewise": (schedules.piecewise, {"boundaries": [100], "rates": [0.1, 0.01]}, {
        "boundaries": lambda v: isinstance(v, (tuple, np.ndarray)) and np.shape(v) == (1,),
        "rates": lambda v: isinstance(v, list) and len(v) == 2,
    }),
    "cosine": (schedules.cosine, {"rate": 0.1, "steps": 100}, {
        "rate": NOT_NEGATIVE, "steps": POSITIVE, "final": NOT_NEGATIVE,
    }),
    "warm_up": (schedules.warm_up, {"schedule": schedules.constant(1), "steps": 10}, {
        "schedule": FUNCTION, "steps": POSITIVE,
    }),
    "halving": (schedules.halving, {"rate": 0.1, "full_epochs": 2, "steps_per_epoch": 10}, {
        "rate": NOT_NEGATIVE, "full_epochs": COUNT, "steps_per_epoch": SIZE, "decay": POSITIVE,
    }),
    "Constant": (initializers.Constant, {}, {"value": FINITE}),
    "Uniform": (initializers.Uniform, {}, {"limit": NOT_NEGATIVE}),
    "Orthogonal": (initializers.Orthogonal, {}, {"gain": FINITE}),
    "Chrono": (initializers.Chrono, {}, {"max_time": within(lambda v: v > 2)}),
    "clip_by_value": (clip_by_value, {"grads": GRADS, "clip_value": 1.0}, {
        "clip_value": BOUND, "grads": TREE,
    }),
    "clip_by_global_norm": (clip_by_global_norm, {"grads": GRADS, "clip_norm": 1.0}, {"clip_norm": BOUND}),
    "global_norm": (global_norm, {}, {"tree": TREE}),
    "ema_update": (ema_update, {"averaged": GRADS, "params": GRADS, "decay": 0.5}, {
        "averaged": NEVER, "params": NEVER, "decay": SHARE,
    }),
    "value_and_grad": (value_and_grad, {}, {"function": FUNCTION}),
    "hessian_vector_product": (hessian_vector_product, {}, {"function": FUNCTION}),
    "jvp": (jvp, {}, {"function": FUNCTION}),
    "value_and_grad, its flag": (value_and_grad, {"function": abs}, {"has_aux": FLAG}),
    "sliding_windows": (sliding_windows, {"series": np.arange(9.0), "length": 3}, {
        "series": NEVER, "length": SIZE, "stride": SIZE,
    }),
    "contiguous_batches": (
        contiguous_batches, {"stream": np.arange(9.0), "batch_size": 2, "num_steps": 2}, {
            "stream": NEVER, "batch_size": SIZE, "num_steps": SIZE, "targets": lambda v: v is None,
        }),
    "pad_sequences": (pad_sequences, {"sequences": [[1, 2], [3]]}, {
        "sequences": NEVER, "length": or_none(whole(2)),
    }),
    "BucketedBatches": (BucketedBatches, {"inputs": [[1, 2], [3]], "targets": [[1, 2], [3]], "batch_size": 1}, {
        "inputs": NEVER, "targets": NEVER, "batch_size": SIZE, "seed": COUNT,
    }),
    "mse": (losses.mse, {"outputs": X, "targets": X}, {
        "outputs": NEVER, "targets": NEVER, "weights": lambda v: v is None,
    }),
    "sigmoid_cross_entropy": (losses.sigmoid_cross_entropy, {"outputs": X, "targets": X > 0}, {
        "outputs": NEVER, "targets": NEVER, "weights": lambda v: v is None,
    }),
    "softmax_cross_entropy": (losses.softmax_cross_entropy, {"outputs": X, "targets": LABELS}, {
        "outputs": NEVER, "targets": NEVER, "weights": lambda v: v is None,
    }),
    "predict": (predict, {"model": MODEL, "params": PARAMS, "inputs": X}, {
        "model": NEVER, "params": NEVER, "inputs": NEVER, "batch_size": or_none(SIZE), "progress": or_none(FLAG),
    }),
    "generate": (generate, {"model": MODEL, "params": PARAMS, "primer": X, "steps": 2}, {
        "model": NEVER, "params": NEVER, "primer": NEVER, "steps": whole(0), "next_input": lambda v: v is None,
        "state": lambda v: v is None or isinstance(v, dict), "rng": SEED,
    }),
    "sampler": (sampler, {}, {"temperature": NOT_NEGATIVE, "top_k": or_none(SIZE)}),
    "gate_activations": (gate_activations, {"layer": LSTM(2), "params": PARAMS["rnn"], "inputs": X}, {
        "layer": NEVER, "params": NEVER, "inputs": NEVER, "state": lambda v: v is None,
        "sequence_length": lambda v: v is None,
    }),
    "gradient_flow": (
        gradient_flow, {"layer": LSTM(2), "params": PARAMS["rnn"], "inputs": X, "d_outputs": X}, {
            "layer": NEVER, "params": NEVER, "inputs": NEVER, "d_outputs": NEVER, "d_state": lambda v: v is None,
            "state": lambda v: v is None, "sequence_length": lambda v: v is None,
        }),
    "report": (gradcheck.report, {"model": LSTM(1), "time": 2, "batch": 1, "entries": 1}, {
        "model": NEVER, "input_dim": or_none(SIZE), "batch": SIZE, "time": SIZE, "seed": SEED,
        "sequence_length": lambda v: v is None, "entries": SIZE, "params": lambda v: v is None,
    }),
    "report_backward": (gradcheck.report_backward, {"cell": LSTMCell(2), "backward": backward}, {
        "cell": NEVER, "backward": NEVER, "input_dim": SIZE, "batch": SIZE, "time": SIZE, "entries": SIZE,
    }),
    "pack_gates": (pack_gates, dict.fromkeys("ijfo", np.ones((2, 3))), dict.fromkeys("ijfo", NEVER)),
    "split_gates": (split_gates, {}, {"kernel": NEVER}),
    "from_config": (from_config, {}, {"config": NEVER}),
    "fit": (fit, {
        "model": MODEL, "params": PARAMS, "loss": "mse", "data": (X, X), "optimizer": SGD(0.1), "epochs": 1,
    }, {
        "model": NEVER, "params": NEVER, "loss": NEVER, "data": NEVER, "optimizer": NEVER, "tbptt": lambda v: v is None,
        "validation_data": lambda v: v is None,
    }),
    "fit, its options": (fit, {
        "model": MODEL, "params": PARAMS, "loss": "mse", "data": (X, X), "optimizer": SGD(0.1), "epochs": 1,
        "validation_data": (X, X),
    }, {
        "epochs": ROUND(1), "batch_size": ROUND(1), "seed": ROUND(0), "loss_fn": lambda v: v is None,
        "steps_per_epoch": lambda v: v is None, "clip_norm": or_none(POSITIVE), "clip_value": or_none(POSITIVE),
        "early_stopping": or_none(ROUND(1)), "ema_decay": or_none(BELOW_1), "progress": or_none(FLAG), "resume": FLAG,
        "callbacks": EMPTY, "checkpoint_dir": or_none(TEXT), "checkpoint_every": or_none(ROUND(1)),
        "max_to_keep": or_none(ROUND(0)), "resume_changes": EMPTY,
    }),
    "save_checkpoint": (save_checkpoint, {"prefix": "m", "params": PARAMS}, {
        "prefix": TEXT, "opt_state": lambda v: v is None, "step": or_none(COUNT), "model": lambda v: v is None,
        "max_to_keep": or_none(COUNT), "names": NEVER,
    }),
    "latest_checkpoint": (latest_checkpoint, {}, {"directory": TEXT}),
    "load_checkpoint": (lambda **o: load_checkpoint(**{"prefix_or_directory": saved(), **o}), {}, {
        "prefix_or_directory": TEXT, "strict": FLAG,
    }),
    "tbptt": (
        lambda **o: fit(MODEL, PARAMS, "mse", (X, X), optimizer=SGD(0.1), epochs=1, tbptt=tbptt(**o)), {"stride": 2}, {
            "stride": lambda v: SIZE(v), "window": lambda v: v is None or whole(2)(v),
        }),
}  # fmt: skip
TOO_LARGE = 10**400  # a size may be any whole number; what does not fit into memory is NumPy's to say
SPEAK_FOR = {  # who speaks where the function only passes the argument on
    "LSTM": ("LSTMCell", "LSTM"),
    "Sequential.init": ("Sequential.init", "LSTMCell.init"),
    "Sequential.apply": ("Sequential.apply", "LSTM.apply"),
    "predict": ("predict", "LSTM.apply", "Sequential.apply"),
    "generate": ("generate", "LSTM.apply", "Sequential.apply"),
    "report": ("report", "Sequential", "LSTM.apply", "LSTMCell.init", "Sequential.apply"),
    "fit": ("fit", "value_and_grad", "LSTM.apply", "Sequential.apply", "mse"),
    "tbptt": ("tbptt",),
}


def attacks():
    for name, (_, _, may_be) in CALLS.items():
        for argument in may_be:
            yield pytest.param(name, argument, id=f"{name}-{argument}")


def says_who_and_what(error, name, argument):
    speakers = SPEAK_FOR.get(name, (name.split(" ")[0].rstrip(","),))
    text = str(error)
    begins = any(text.startswith((f"{who}:", f"{who} ", f"{who}.")) for who in speakers)
    return isinstance(error, (ValueError, TypeError)) and begins and argument.removesuffix("_initializer") in text


@pytest.mark.parametrize(("name", "argument"), list(attacks()))
def test_what_an_argument_cannot_be_is_refused_by_name(name, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, others, may_be = CALLS[name]
    faults = []
    for what, value in WRONG.items():
        if isinstance(value, int) and value == TOO_LARGE and may_be[argument](7):
            continue
        try:
            function(**{**others, argument: value})
        except Exception as error:
            allowed = may_be[argument](value)
            if allowed or not says_who_and_what(error, name, argument):
                faults.append(f"{what}: {type(error).__name__}: {error}{' (but it may be)' if allowed else ''}")
        else:
            if not may_be[argument](value):
                faults.append(f"{what}: accepted")
    assert not faults, "\n".join(["", *faults])


NUMBERS = {  # an argument and a number that it may be
    (LSTMCell, "units"): 2, (LSTMCell, "forget_bias"): 0.5, (LSTMCell, "cell_clip"): 0.5, (LSTMCell, "num_proj"): 1,
    (Dense, "units"): 2, (Dropout, "rate"): 0.25, (DropoutWrapper, "input_keep_prob"): 0.5, (SGD, "learning_rate"): 0.5,
    (Adam, "beta1"): 0.5, (RMSProp, "epsilon"): 0.25, (schedules.constant, "rate"): 0.5, (schedules.cosine, "steps"): 8,
    (initializers.Uniform, "limit"): 0.5, (clip_by_value, "clip_value"): 0.5, (clip_by_global_norm, "clip_norm"): 0.5,
    (sliding_windows, "length"): 3, (sliding_windows, "stride"): 2, (pad_sequences, "length"): 4,
    (contiguous_batches, "batch_size"): 2, (predict, "batch_size"): 2, (generate, "steps"): 3, (sampler, "top_k"): 2,
    (sampler, "temperature"): 0.5, (LSTMCell, "use_peepholes"): True, (RNN, "reverse"): True,
}  # fmt: skip


def shown(result):
    """What a call made, in a form that can be compared."""
    if hasattr(result, "config"):
        return json.dumps(result.config())
    if callable(result):
        try:
            return repr(result(3))
        except TypeError:
            return ""
    return repr(result if not hasattr(result, "inputs") else result.inputs)


@pytest.mark.parametrize(("function", "argument"), list(NUMBERS), ids=lambda part: getattr(part, "__name__", part))
def test_scalars_and_arrays_without_dimensions_are_numbers(function, argument):
    number = NUMBERS[function, argument]
    others = next(others for called, others, _ in CALLS.values() if called is function)
    wanted = shown(function(**{**others, argument: number}))
    kinds = {bool: [np.bool_], int: [np.int64, np.uint8], float: [np.float32, np.float64]}[type(number)]
    for kind in kinds:
        for form in (kind(number), np.array(number, kind)):
            assert shown(function(**{**others, argument: form})) == wanted, repr(form)


def test_every_public_name_is_attacked():
    """Each function or class of ``minilstm.__all__`` is in `CALLS`, or is named here with where it is tested."""
    elsewhere = {
        "Checkpoint", "CheckpointError", "FitResult", "LSTMState", "Layer", "Optimizer",  # what is returned, bases
        "trace",  # the old name of gate_activations
    }  # fmt: skip
    called = {name.split(" ")[0].rstrip(",:") for name in CALLS}
    public = {name for name in minilstm.__all__ if callable(getattr(minilstm, name))}
    assert public - called - elsewhere == set()
    assert not elsewhere & called
    for module in (initializers, schedules, losses):
        own = {n for n, v in vars(module).items() if inspect.isroutine(v) and not n.startswith("_")}
        own = {n for n in own if getattr(getattr(module, n), "__module__", "") == module.__name__}
        assert own - called <= {"get", "describe", "option", "check_range"}, module
