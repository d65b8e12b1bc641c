"""The table of hand-overs: each form in which an array may come, and each place that takes one.

A new form is a row of `FORMS` or `REFUSED`, a new place a row of `CONSUMERS`. tests/test_handovers.py compares every
pair with plain arrays, and docs/reference/handovers.md shows what it finds.
"""

from typing import Any, NamedTuple

import numpy as np

from minilstm import (
    LSTM,
    SGD,
    Dense,
    Embedding,
    LSTMCell,
    Sequential,
    fit,
    gate_activations,
    generate,
    gradcheck,
    gradient_flow,
    losses,
    predict,
    tbptt,
    value_and_grad,
)
from minilstm.data import BucketedBatches, contiguous_batches, pad_sequences, sliding_windows

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5, 2)).astype(np.float32)
Y = RNG.normal(size=(12, 5, 1)).astype(np.float32)
BITS = (RNG.random((12, 5, 1)) < 0.4).astype(np.int64)
LABELS = RNG.integers(0, 3, (12, 5))
WEIGHTS = RNG.integers(0, 2, (12, 5))
LENGTHS = RNG.integers(1, 6, 12)
RESET = RNG.integers(0, 2, 12)
MODEL = Sequential(LSTM(4), Dense(1))
PARAMS = MODEL.init(0, 2)
WORDS = Sequential(Embedding(3, 2), LSTM(4), Dense(3))
WORD_PARAMS = WORDS.init(0)


class Tensor:
    """As a PyTorch tensor that needs a gradient: NumPy may not read it before `detach` and `cpu`."""

    def __init__(self, array, ready=False):
        self.array, self.ready = array, ready

    def detach(self):
        return self

    def cpu(self):
        return Tensor(self.array, ready=True)

    def __array__(self, dtype=None, copy=None):
        assert self.ready, "can't call numpy() on a tensor that requires grad"
        return np.asarray(self.array, dtype)


class Frame:
    """As a pandas object."""

    def __init__(self, array):
        self.array = array

    def to_numpy(self):
        return self.array


class ArrayLike:
    """As an array of another library, which NumPy can read."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


class Unreadable:
    """As a tensor that its library does not give to NumPy: sparse, of a dtype of its own, or being traced."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Got unsupported ScalarType BFloat16")


# Every form in which one array may come.
FORMS = {
    "an array": lambda a: a,
    "float64, or int32 of whole numbers": lambda a: a.astype(np.float64 if a.dtype.kind == "f" else np.int32),
    "a list of arrays": list,
    "a tuple of arrays": tuple,
    "nested lists": lambda a: a.tolist(),
    "a list of PyTorch tensors": lambda a: [Tensor(part) for part in a],
    "a PyTorch tensor that needs a gradient": Tensor,
    "a pandas object": Frame,
    "another library's array": ArrayLike,
    "a memoryview": lambda a: memoryview(np.ascontiguousarray(a)),
    "Fortran order": np.asfortranarray,
    "read-only": lambda a: np.broadcast_to(a, a.shape),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "every second row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "a masked array without a mask": np.ma.asarray,
}
# Whole numbers in other dtypes.
WHOLE_FORMS = {
    dtype: lambda a, dtype=dtype: a.astype(dtype) for dtype in ("int8", "uint8", "int16", "uint32", "int64", "uint64")
}
# What is no array of numbers, and a word of the message.
REFUSED = {
    "sequences of different lengths": (lambda a: [*a[:-1], a[-1][:-1]] if a.ndim > 1 else [*a[:-1], [1]], "pad_seq"),
    "masked entries": (lambda a: np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) == 1), "masked array"),
    "objects": (lambda a: np.where(a > 0, a, None), "objects"),
    "text": (lambda a: a.astype(str), "np.unique"),
    "complex numbers": (lambda a: a.astype(complex), "complex"),
    "a pandas object with masked entries": (
        lambda a: Frame(np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) == 1)), "masked array"),
    "what NumPy cannot read": (lambda a: Unreadable(), "Unreadable: Got unsupported"),
    "dates": (lambda a: a.astype("timedelta64[s]") + np.datetime64("2020-01-01"), "dates"),
}


class Consumer(NamedTuple):
    """A place that takes an array: who is named by its errors, the array, and a call with the array in a given form."""

    where: str
    array: Any
    call: Any
    whole: bool = False  # whether whole numbers of any dtype are right
    exact: bool = True  # whether the result has the same bits: the dtype of what comes has no effect
    tree: bool = False  # whether a list is a tree of parameters here


def trained(data=(X, Y), **options):
    start = {"optimizer": SGD(0.1), "epochs": 2, "batch_size": 5, "model": MODEL, "params": PARAMS, "progress": False}
    options = {**start, **options}
    return fit(options.pop("model"), options.pop("params"), options.pop("loss", losses.mse), data, **options)


def batch(**arrays):
    return {"inputs": X, "targets": Y, **arrays}


def words(**options):
    return {"model": WORDS, "params": WORD_PARAMS, "loss": losses.softmax_cross_entropy, **options}


def of_next_input(form):
    return generate(MODEL, PARAMS, X, 3, next_input=lambda output: form(np.repeat(output, 2, axis=1)))


def through_a_callable(form):
    return trained(lambda step: (form(X[:5]), Y[:5]), steps_per_epoch=2).params


CELL = {"inputs": X, "layer": LSTM(4), "params": PARAMS["rnn"]}
STATE = np.tanh(X[:, 0] @ np.ones((2, 4), np.float32))
SAME = np.ones((12, 5, 4), np.float32)
OUTPUTS = np.repeat(X, 2, axis=2)[..., :3]

# Group: the places in it.
CONSUMERS = {
    "fit": [
        Consumer("fit: data: inputs", X, lambda form: trained((form(X), Y)).params),
        Consumer("fit: data: targets", Y, lambda form: trained((X, form(Y))).params),
        Consumer("fit: data: weights", WEIGHTS, lambda form: trained((X, Y, form(WEIGHTS))).params, whole=True),
        Consumer("fit: data: sequence_length", LENGTHS, lambda form: (
            trained(batch(sequence_length=form(LENGTHS))).params), whole=True),
        Consumer("fit: data: targets", LABELS, lambda form: (
            trained((LABELS, form(LABELS)), **words()).params), whole=True),
        Consumer("fit: data: inputs", LABELS, lambda form: (
            trained((form(LABELS), LABELS), **words()).params), whole=True),
        Consumer("fit: data, batch of step 0: inputs", X[:5], through_a_callable),
        Consumer("fit: validation_data: inputs", X, lambda form: trained(validation_data=(form(X), Y)).history),
        Consumer("fit: validation_data: targets", Y, lambda form: trained(validation_data=(X, form(Y))).history),
    ],
    "tbptt": [
        Consumer("fit: data: inputs", X, lambda form: trained((form(X), Y), tbptt=tbptt(2)).params),
        Consumer("fit: data: sequence_length", LENGTHS, lambda form: (
            trained(batch(sequence_length=form(LENGTHS)), tbptt=tbptt(2, 3)).params), whole=True),
        Consumer("fit: data: weights", WEIGHTS, lambda form: (
            trained(batch(weights=form(WEIGHTS)), tbptt=tbptt(2, 3)).params), whole=True),
        Consumer("fit: data, batch of step 0: reset", RESET, lambda form: trained(
            lambda step: batch(reset=form(RESET)), steps_per_epoch=2, tbptt=tbptt(5)).params, whole=True),
    ],
    "predict, generate": [
        Consumer("predict: inputs", X, lambda form: predict(MODEL, PARAMS, form(X), batch_size=5)),
        Consumer("predict: inputs", LABELS, lambda form: predict(WORDS, WORD_PARAMS, form(LABELS)), whole=True),
        Consumer("generate: primer", X, lambda form: (
            generate(MODEL, PARAMS, form(X), 3, next_input=lambda output: np.repeat(output, 2, axis=1)))),
        Consumer("generate: next_input's result", X[:, 0], of_next_input),
    ],
    "losses": [
        Consumer("mse: outputs", X, lambda form: losses.mse(form(X), X[::-1]), exact=False),
        Consumer("mse: targets", X, lambda form: losses.mse(X[::-1], form(X))),
        Consumer("mse: targets", BITS, lambda form: losses.mse(Y, form(BITS)), whole=True),
        Consumer("mse: weights", WEIGHTS, lambda form: losses.mse(Y, Y[::-1], form(WEIGHTS)), whole=True),
        Consumer("softmax_cross_entropy: outputs", X, lambda form: (
            losses.softmax_cross_entropy(form(X), LABELS.clip(0, 1))), exact=False),
        Consumer("softmax_cross_entropy: targets", LABELS, lambda form: (
            losses.softmax_cross_entropy(OUTPUTS, form(LABELS))), whole=True),
        Consumer("sigmoid_cross_entropy: targets", BITS, lambda form: (
            losses.sigmoid_cross_entropy(Y, form(BITS))), whole=True),
        Consumer("sigmoid_cross_entropy: weights", WEIGHTS, lambda form: (
            losses.sigmoid_cross_entropy(Y, BITS, form(WEIGHTS))), whole=True),
    ],
    "padding and cutting": [
        Consumer("pad_sequences: sequences: sequence 1", X[0], lambda form: (
            pad_sequences([X[1][:3], form(X[0])])), exact=False),
        Consumer("BucketedBatches: inputs: sequence 0", X[0], lambda form: (
            BucketedBatches([form(X[0])], [X[0]], 1)(0)), exact=False),
        Consumer("contiguous_batches: stream", X[:, 0], lambda form: (
            contiguous_batches(form(X[:, 0]), 2, 3)(1)), exact=False),
        Consumer("contiguous_batches: targets", LABELS[:, 0], lambda form: (
            contiguous_batches(X[:, 0], 2, 3, form(LABELS[:, 0]))(0)), whole=True, exact=False),
        Consumer("sliding_windows: series", X[:, 0], lambda form: sliding_windows(form(X[:, 0]), 4), exact=False),
    ],
    "a layer or model": [
        Consumer("LSTM.apply: inputs", X, lambda form: MODEL.apply(PARAMS, form(X))),
        Consumer("LSTM.apply: sequence_length", LENGTHS, lambda form: (
            MODEL.apply(PARAMS, X, sequence_length=form(LENGTHS))), whole=True),
        Consumer("LSTM.apply: state", STATE, lambda form: (
            LSTM(4).apply(PARAMS["rnn"], X, state=(form(STATE), STATE)))),
        Consumer("Dense.apply: inputs", X, lambda form: Dense(1).apply(Dense(1).init(0, 2), form(X))[0]),
        Consumer("Embedding.apply: inputs", LABELS, lambda form: WORDS.apply(WORD_PARAMS, form(LABELS)), whole=True),
        Consumer("LSTMCell: bias_initializer", SAME[0, 0], lambda form: (
            LSTMCell(1, bias_initializer=form(SAME[0, 0])).init(0, 2))),
    ],
    "a look inside": [
        Consumer("gate_activations: inputs", X, lambda form: gate_activations(**{**CELL, "inputs": form(X)})),
        Consumer("gate_activations: sequence_length", LENGTHS, lambda form: (
            gate_activations(**CELL, sequence_length=form(LENGTHS))["h"].tolist()), whole=True),
        Consumer("gradient_flow: d_outputs", SAME, lambda form: gradient_flow(**CELL, d_outputs=form(SAME))),
        Consumer("gradient_flow: d_state", STATE, lambda form: (
            gradient_flow(**CELL, d_outputs=SAME, d_state=(form(STATE), STATE)))),
        Consumer("LSTM.apply: sequence_length", LENGTHS[:3], lambda form: [row.largest for row in gradcheck.report(
            LSTM(1), batch=3, time=5, entries=1, sequence_length=form(LENGTHS[:3])).rows], whole=True),
    ],
    "parameters": [
        Consumer("LSTM.apply: params", PARAMS["rnn"]["lstm_cell"]["kernel"], lambda form: MODEL.apply({
            **PARAMS, "rnn": {"lstm_cell": {name: form(array) for name, array in PARAMS["rnn"]["lstm_cell"].items()}},
        }, X)[0], exact=False),
        Consumer("value_and_grad: params", X, lambda form: (
            value_and_grad(lambda p: (p["w"] * p["w"]).sum())({"w": form(X)})), exact=False, tree=True),
    ],
}  # fmt: skip
# Parameters are arrays and nothing else: a list is a tree, and a copy would hide that gradients belong to the original.
ONLY_ARRAYS = {"parameters"}


def forms_of(consumer, refused=False):
    """The forms to try in a place: name -> change."""
    if refused:
        forms = {name: change for name, (change, _) in REFUSED.items()}
    else:
        forms = {**FORMS, **(WHOLE_FORMS if consumer.whole else {})}
    is_tree = lambda change: consumer.tree and isinstance(change(consumer.array), (list, tuple))  # noqa: E731
    return {name: change for name, change in forms.items() if not is_tree(change)}


def is_taken(consumer, form, change):
    """Whether a place takes a form: True with the same numbers, False if it refuses it by name; else an error."""
    try:
        found = consumer.call(change)
    except ValueError as error:
        if str(error).startswith(consumer.where):
            return False
        raise AssertionError(f"{consumer.where}, given as {form}, is not named") from error
    wanted = consumer.call(lambda a: a)
    for a, b in zip(_arrays(found), _arrays(wanted), strict=True):
        assert a.shape == b.shape, (consumer.where, form)
        if consumer.exact:
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes()), f"{consumer.where}, given as {form}: other bits"
        else:
            a, b = a.astype(np.float64), b.astype(np.float64)
            bound = 1e-6 * max(1.0, np.max(np.abs(b), initial=0.0))  # float32 against float64 of a few operations
            assert np.max(np.abs(a - b), initial=0.0) <= bound, f"{consumer.where}, given as {form}: other numbers"
    return True


def _arrays(result):
    if isinstance(result, dict):
        return [array for part in result.values() for array in _arrays(part)]
    if isinstance(result, (list, tuple)):
        return [array for part in result for array in _arrays(part)]
    return [] if result is None else [np.asarray(result)]


def table():
    """What docs/reference/handovers.md shows: a row for each form, a column for each group, in Markdown."""
    lines = ["| | " + " | ".join(CONSUMERS) + " |", "|---" * (len(CONSUMERS) + 1) + "|"]
    for form, change in {**FORMS, **{name: change for name, (change, _) in REFUSED.items()}}.items():
        cells = []
        for consumers in CONSUMERS.values():
            trees = [one.tree and isinstance(change(one.array), (list, tuple)) for one in consumers]
            taken = {is_taken(one, form, change) for one, tree in zip(consumers, trees, strict=True) if not tree}
            cells.append({frozenset([True]): "taken", frozenset([False]): "refused"}.get(frozenset(taken), "some"))
        lines.append(f"| {form} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def messages():
    """(form, the error of `fit` for inputs in it) of everything that is refused."""
    for form, (change, _) in REFUSED.items():
        try:
            trained((change(X), Y))
        except ValueError as error:
            yield form, str(error)


def places():
    """(group, names of arguments) as the errors give them."""
    for group, consumers in CONSUMERS.items():
        yield group, list(dict.fromkeys(consumer.where for consumer in consumers))
