"""The layers of a Keras model: as ``config.json`` says them, as lines of Python, and back.

An option that is not written keeps Keras's default. An option that is read, is not the default and has no counterpart
here is refused by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..cells import ACTIVATIONS, LSTMCell
from ..layers import RNN, Bidirectional, Dense, Dropout, Embedding, Sequential
from ..shapes import params_dtype
from ..variants import GRUCell
from .parts import Part, activation_name, check_distinct, features_in, weights_of

KNOWN = ("InputLayer", "LSTM", "GRU", "Bidirectional", "Dense", "Embedding", "Dropout")
WANTED = {  # what an option must be, if a layer has it
    "recurrent_activation": "sigmoid",
    "use_bias": True,
    "stateful": False,
    "time_major": False,
    "return_state": False,
    "mask_zero": False,
    "merge_mode": "concat",
}
# What Keras does in training alone, and has no counterpart here. The other layers compute the same without it.
NOISE = ("SpatialDropout1D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization")
DROPS = ("dropout", "recurrent_dropout", "noise_shape")
ENDS = ("_regularizer", "_constraint")
KERAS = ("keras.", "tf_keras.", "tensorflow.")  # how the modules of Keras's own classes begin


def keras_config(parts: list[Part], params: dict[str, Any]) -> dict[str, Any]:
    """The ``config.json`` of a ``keras.Sequential``, ready to build: every layer knows its input's shape."""
    shape, dtype, input_dtype = _input(parts, params)
    names, of_input = layer_names(parts), "input_layer"
    while of_input in names:
        of_input += "_"
    layers = [_layer("InputLayer", {"batch_shape": shape, "dtype": input_dtype, "name": of_input})]
    build = {"input_shape": shape}
    for part, name in zip(parts, names, strict=True):
        class_name, options = _options(part)
        config = {"name": name, "trainable": True, "dtype": dtype, **options}
        if class_name == "Bidirectional":
            inner_class, inner = options["layer"]
            config["layer"] = _layer(inner_class, {"trainable": True, "dtype": dtype, **inner})
        layers.append(_layer(class_name, config) | {"build_config": {"input_shape": shape}})
        if isinstance(part.layer, Embedding):
            shape = [*shape, part.layer.units]
        elif not isinstance(part.layer, Dropout):
            kept = shape[:-1] if part.return_sequences else shape[:-2]
            shape = [*kept, part.layer.units * len(part.directions)]
    config = {"name": "sequential", "trainable": True, "dtype": dtype, "layers": layers}
    config["build_input_shape"] = build["input_shape"]
    return _layer("Sequential", config, "keras") | {"build_config": build}


def code_of(import_line: str, lines: list[str]) -> str:
    """The code whose `lines` make a ``model``, with the function ``forward`` that runs it."""
    return "\n".join([import_line, "", *lines, "", "def forward(inputs):", "    return model(inputs)", ""])


def stack_lines(parts: list[Part], params: dict[str, Any], module: str) -> list[str]:
    """The lines that build the same model; `module` is ``keras`` or ``tf.keras``."""
    shape, dtype, input_dtype = _input(parts, params)
    lines = [f"    {module}.Input({tuple(shape[1:])}, dtype={input_dtype!r}),"]
    for part, name in zip(parts, layer_names(parts), strict=True):
        class_name, options = _options(part)
        lines.append(f"    {_constructor(class_name, {'name': name, **options}, dtype, module)},")
    return [f"model = {module}.Sequential([", *lines, "])"]


def _constructor(class_name: str, options: dict[str, Any], dtype: str, module: str) -> str:
    """The call that makes a layer; the layer in a Bidirectional is made in it."""
    if dtype != "float32":  # Keras's default
        options = {**options, "dtype": dtype}
    texts = {key: repr(value) for key, value in options.items()}
    if class_name == "Bidirectional":
        inner_class, inner = options["layer"]
        texts["layer"] = _constructor(inner_class, inner, dtype, module)
    return f"{module}.layers.{class_name}({', '.join(f'{key}={text}' for key, text in texts.items())})"


def layer_names(parts: list[Part]) -> list[str]:
    """The parts' names as Keras takes them, without slashes; ValueError if two become the same."""
    names = [part.name.replace("/", "_") for part in parts]
    check_distinct(names, "export.keras")
    return names


def _input(parts: list[Part], params: dict[str, Any]) -> tuple[list[int | None], str, str]:
    """The input's shape, the model's dtype, and the input's dtype."""
    dtype = str(params_dtype(params, np.float32))
    if isinstance(parts[0].layer, Embedding):
        return [None, None], dtype, "int64"
    first = next(part for part in parts if weights_of(params, part))
    return [None, None, features_in(first, weights_of(params, first))], dtype, dtype


def _options(part: Part) -> tuple[str, dict[str, Any]]:
    """The class of a Keras layer and its options, without the defaults of Keras.

    The option ``layer`` of a Bidirectional is such a pair too.
    """
    layer = part.layer
    if isinstance(layer, Dropout):
        return "Dropout", {"rate": layer.rate}
    if isinstance(layer, Embedding):
        return "Embedding", {"input_dim": layer.vocabulary, "output_dim": layer.units}
    options = {"units": layer.units, "activation": activation_name(layer.activation, "export.keras.save")}
    if part.runner is None:
        return "Dense", options
    options["return_sequences"] = part.return_sequences
    if part.kind == "GRU":
        options["reset_after"] = layer.reset_after
    if part.backward is not None:
        return "Bidirectional", {"merge_mode": "concat", "layer": (part.kind, options)}
    return part.kind, options | ({"go_backwards": True} if part.runner.reverse else {})


def _layer(class_name: str, config: dict[str, Any], module: str = "keras.layers") -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None}


# --- reading --------------------------------------------------------------------------------------------------


def from_keras_config(config: dict[str, Any], where: str) -> Sequential:
    """The model that a ``config.json`` describes, with ``forget_bias=0``: Keras adds none at run time.

    A softmax at its end is left out, and a UserWarning says so: here losses and samplers want logits. So is what does
    something in training alone, except a Dropout.

    Raises
    ------
    ValueError
        For anything but known layers in a row, and for an option without counterpart: the message names it.
    """
    kind, inner = config.get("class_name"), config["config"]
    if kind == "Sequential":
        row = inner if isinstance(inner, list) else inner["layers"]  # a list before Keras 2.2.3
    elif kind in ("Functional", "Model"):
        row = _in_a_row(inner, where)
    else:
        raise ValueError(f"{where}: the model must be a keras.Sequential or a keras.Model of layers, got {kind!r}")
    layers: list[dict[str, Any]] = []
    idle: list[str] = []
    for layer in map(unwrapped, row):
        below = layers[-1] if layers else {}
        idle += _in_training(layer)
        if layer["class_name"] in NOISE:
            continue
        if layer["class_name"] == "Activation" and _is_linear_dense(below):
            layers[-1] = {**below, "config": {**below["config"], "activation": layer["config"]["activation"]}}
        elif layer["class_name"] != "InputLayer":
            layers.append(layer)
    if idle:
        text = f"{where}: left out, as in training alone it does something: {', '.join(dict.fromkeys(idle))}"
        warnings.warn(text, UserWarning, stacklevel=2)
    if layers and (layers[-1]["class_name"], layers[-1]["config"].get("activation")) == ("Dense", "softmax"):
        options = layers[-1]["config"]
        warnings.warn(
            f"{where}: the last layer, {options.get('name')!r}, has activation='softmax', which is left out: the model "
            "gives logits, and their softmax is what Keras gives",
            UserWarning,
            stacklevel=2,
        )
        layers[-1] = {**layers[-1], "config": {**options, "activation": "linear"}}
    return Sequential(*(_read_layer(layer, where) for layer in layers))


def unwrapped(layer: dict[str, Any]) -> dict[str, Any]:
    """The layer in a TimeDistributed, if it does the same there: to every step alone."""
    inner = layer["config"]["layer"] if layer["class_name"] == "TimeDistributed" else {}
    if inner.get("class_name") not in ("Dense", "Dropout", "Activation"):
        return layer
    return {**layer, **inner, "config": {**inner["config"], "name": layer["config"].get("name")}}


def _in_training(layer: dict[str, Any]) -> Iterator[str]:
    """What a layer does in training alone, for which there is no counterpart here."""
    options = layer["config"]
    if layer["class_name"] in NOISE:
        yield f"the {layer['class_name']} {options.get('name')!r}"
    both = layer["class_name"] == "Bidirectional"
    inners = [options.get("layer"), options.get("backward_layer")] if both else [layer]
    for inner in filter(None, inners):
        for option in (*DROPS, *(option for option in inner["config"] if option.endswith(ENDS))):
            if inner["config"].get(option):
                yield f"{option}={inner['config'][option]!r} of {options.get('name')!r}"


def _is_linear_dense(layer: dict[str, Any]) -> bool:
    return layer.get("class_name") == "Dense" and layer["config"].get("activation") in (None, "linear")


def _in_a_row(config: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """The layers of a ``keras.Model`` from its one input to its one output; ValueError if it branches anywhere."""
    after: dict[str | None, dict[str, Any]] = {}
    for layer in config["layers"]:
        source = _source(layer, where)
        if source in after:
            taken = f"both take the output of {source!r}" if source else "are both inputs"
            names = f"{after[source]['name']!r} and {layer['name']!r}"
            raise ValueError(f"{where}: {names} {taken}; wanted a model whose layers are in a row")
        after[source] = layer
    row, last = [], None
    while last in after:
        row.append(after.pop(last))
        last = row[-1]["name"]
    outputs = config["output_layers"]
    ends = outputs if outputs and isinstance(outputs[0], list) else [outputs]
    if after or last is None or [end[::2] for end in ends] != [[last, 0]]:
        raise ValueError(f"{where}: the outputs are {outputs}; wanted that of the last layer in a row, {last!r}")
    return row


def _source(layer: dict[str, Any], where: str) -> str | None:
    """The layer whose output a layer of a ``keras.Model`` takes, in the words of Keras 2 or 3; None for the input."""
    nodes = layer["inbound_nodes"]
    if layer["class_name"] == "InputLayer" and not nodes:
        return None
    node, options = nodes[0] if len(nodes) == 1 else [], {}
    if isinstance(node, dict):  # of Keras 3
        options = node["kwargs"]
        places = [one["config"]["keras_history"] if isinstance(one, dict) else [] for one in node["args"]]
    else:
        places = [node] if node and isinstance(node[0], str) else node
        options = places[0][3] if len(places) == 1 and len(places[0]) == 4 else {}
    if len(places) != 1 or places[0][2:3] != [0] or any(options.values()):
        told = "is called more than once, or with more than one input, or with options"
        raise ValueError(f"{where}: {layer['name']!r} {told}; wanted a model whose layers are in a row")
    return str(places[0][0])


def _read_layer(layer: dict[str, Any], where: str) -> Any:
    class_name, options = layer["class_name"], layer["config"]
    name = options.get("name")
    _check_options(layer, KNOWN, where)
    if class_name == "Dropout":
        return Dropout(options["rate"], name=name)
    if class_name == "Embedding":
        return Embedding(options["input_dim"], options["output_dim"], name=name)
    if class_name == "Bidirectional":
        return _read_bidirectional(options, name, where)
    if class_name == "Dense":
        activation = options.get("activation")
        return Dense(options["units"], activation=None if activation == "linear" else activation, name=name)
    runner = _read_runner(layer, name)
    if runner.reverse and runner.return_sequences:
        raise ValueError(f"{where}: layer {name!r} has go_backwards=True and returns sequences, then reversed")
    return runner


def _check_options(layer: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    """Raise ValueError for a layer of another class, or with an option that has no counterpart here."""
    class_name, options = layer["class_name"], layer["config"]
    name = options.get("name")
    if class_name not in known:
        raise ValueError(f"{where}: layer {name!r} is a {class_name}, wanted one of {known}")
    registered, module = layer.get("registered_name"), layer.get("module")
    if registered not in (None, class_name) or not (module is None or f"{module}.".startswith(KERAS)):
        raise ValueError(f"{where}: layer {name!r} is {registered or module!r}, a class of its own, wanted Keras's")
    for option, wanted in WANTED.items():
        if options.get(option, wanted) != wanted:
            raise ValueError(f"{where}: layer {name!r} has {option}={options[option]!r}, wanted {wanted!r}")
    activation = options.get("activation")
    if activation not in (None, *ACTIVATIONS):
        raise ValueError(f"{where}: layer {name!r} has activation={activation!r}, wanted one of {sorted(ACTIVATIONS)}")


def _read_runner(layer: dict[str, Any], name: str | None) -> RNN:
    """An LSTM or GRU of a known configuration; Keras's GRU has `reset_after` unless it says otherwise."""
    options = layer["config"]
    units, activation = options["units"], options.get("activation") or "linear"
    cell: Any = LSTMCell(units, forget_bias=0.0, activation=activation) if layer["class_name"] == "LSTM" else None
    if cell is None:
        cell = GRUCell(units, activation=activation, reset_after=options.get("reset_after", True))
    sequences, backwards = options.get("return_sequences", False), options.get("go_backwards", False)
    return RNN(cell, return_sequences=sequences, reverse=backwards, name=name)


def _read_bidirectional(options: dict[str, Any], name: str | None, where: str) -> Bidirectional:
    """Both directions, of which the second is not always written: it is then a copy of the first."""
    found: list[RNN] = []
    for key, backwards in (("layer", False), ("backward_layer", True)):
        inner = options["layer"] if key == "layer" else options.get(key)
        if inner is None:
            continue
        _check_options(inner, ("LSTM", "GRU"), where)
        found.append(_read_runner(inner, None))
        if found[-1].reverse != backwards:
            told = f"go_backwards={found[-1].reverse} in its {key}, wanted {backwards}"
            raise ValueError(f"{where}: layer {name!r} has {told}")
    return Bidirectional(*found, name=name)
