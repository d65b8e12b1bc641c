"""TensorFlow 2: an object-based checkpoint of the matching Keras model, and back; TensorFlow is not needed.

Such a checkpoint is the file format of `minilstm.tensorbundle` with other names, and one string tensor more: a graph of
the objects that were saved, written as a protocol buffer. TensorFlow walks that graph from its root along the names of
attributes and fills the variables it meets. ``tf.train.Checkpoint(model=model)`` walks

    legacy tf.keras    model/layer_with_weights-0/cell/kernel            counted over layers that have weights
                       model/layer-0                                     counted over all
    Keras 3            model/_functional/_operations/1/cell/kernel       counted over all, 0 is the input

and the graph written here holds both ways to every variable, so that both Kerases find all they have:
``restore(prefix).assert_consumed()`` holds for either.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import reading, tensorbundle
from ..checkpoint import EXTRA, MODEL, prefix_of
from ..layers import Dropout, Sequential
from ..reading import LIMITS, Limits, from_json
from ..tensorbundle.wire import each_message
from .format import DTYPES, Loaded, checked_params, described, model_and_extra, names_of, run_lines
from .infer import Options, shapes_of
from .keras_config import code_of, from_keras_config, layer_names, stack_lines
from .keras_graph import GRAPH, Layers, keys_by_layer
from .keras_layers import array_names, directions, keras_parts, keras_weights
from .keras_rows import Row, filled, inferred, names_in, places_of, weighted_parts
from .object_graph import Node, encode
from .parts import Part, weights_of

SUFFIXES: tuple[str, ...] = ()
RUNTIME = "tensorflow"
RUNS = DTYPES
VALUE = ".ATTRIBUTES/VARIABLE_VALUE"
METADATA = "keras_metadata.pb"  # in a SavedModel of tf.keras
MODELS = (b"_tf_keras_sequential", b"_tf_keras_network")
ROOT = b"root"  # the path of the object that was saved


def save(path: str | os.PathLike[str], model: Sequential, params: dict[str, Any], *, extra: Any = None) -> str:
    """Write an object-based checkpoint.

    Parameters
    ----------
    path : path
        A prefix such as ``runs/keras.ckpt``. No ``checkpoint`` file is written: the prefix is what to restore.
    model : Sequential
        What Keras can express: see `minilstm.export.keras`.
    params : dict
        Its parameters, of one dtype.
    extra : optional
        Anything JSON can hold; it is stored beside the weights, as is the model's description.

    Returns
    -------
    str
        The lines of Python that build the ``tf.keras`` model, restore it and define ``forward(inputs)``.

    Raises
    ------
    ValueError
        For parameters that do not fit, and for an option that Keras lacks: the message names it.
    """
    where = "export.tf2.save"
    params = checked_params(model, params, where)
    parts = keras_parts(model, where)
    graph, tensors = _objects(parts, params)
    texts = {name: text.encode() for name, text in described(model, extra).items()}
    strings = {name: np.asarray(text, object) for name, text in {GRAPH: graph, **texts}.items()}
    tensorbundle.write(path, {**tensors, **strings})
    restore = f"tf.train.Checkpoint(model=model).restore({os.fspath(path)!r}).assert_consumed()"
    return code_of("import tensorflow as tf", [*stack_lines(parts, params, "tf.keras"), restore])


@reading.reader
def load(
    prefix: str | os.PathLike[str], model: Sequential | None = None, *, options: Options | None = None,
    limits: Limits = LIMITS,
) -> Loaded:  # fmt: skip
    """Read an object-based checkpoint of a Keras model, written here or by TensorFlow.

    Parameters
    ----------
    prefix : path
        Or a folder: a SavedModel's, or that of checkpoints, whose newest is read.
    model : Sequential, optional
        What the weights are for; needed if the file does not describe it, as the SavedModel of a ``tf.keras`` model
        does. Layers are matched in their order. An optimizer's slots and everything else that was saved are left aside.
    options : Options, optional
        In place of a model that the file does not describe: what names and shapes do not tell of it. A UserWarning
        names the layers without weights, of which such a file does not say what they do.
    limits : Limits, optional
        What the file may claim.

    Returns
    -------
    Loaded
        ``(model, params, extra)``.

    Raises
    ------
    ValueError
        Without a model, or if the file does not fit it.
    FileNotFoundError, CheckpointError
        As `minilstm.tensorbundle.read`.
    """
    where = prefix_of(prefix)
    tensors = tensorbundle.read(where)
    texts = {name: np.asarray(tensors[name], object).item() for name in (MODEL, EXTRA) if name in tensors}

    @functools.cache
    def in_file() -> Layers:
        if GRAPH not in tensors:
            raise ValueError(f"{where}: not an object-based checkpoint: it has no {GRAPH}")
        return keys_by_layer(tensors[GRAPH].item(), shapes_of(tensors), where, limits)

    def infer(given: Options) -> Sequential:
        if in_file().beside is not None:
            hint = "weights alone do not tell what is done with it; give load the model"
            raise ValueError(f"{where}: the layers are not all that was saved: there is {in_file().beside}; {hint}")
        rows: dict[str, Row] = {}
        bare = []
        for k, keys in enumerate(in_file().keys):
            rows |= {f"layer_{len(rows)}": keys} if keys else {}
            bare += [] if keys else [k]
        found = inferred(rows, tensors, given, where)
        which = f"layers {bare}, without weights" if in_file().lists_all else "any layer without weights"
        if bare or not in_file().lists_all:
            what = "which such a file does not describe: right for an input or a Dropout, wrong for any other layer"
            warnings.warn(f"{where}: left out: {which}, {what}", UserWarning, stacklevel=3)
        return found

    config = _config_beside(where, limits) if model is None and MODEL not in texts else None
    if config is not None:
        model = from_keras_config(config, where)
    model, extra = model_and_extra(texts, model, where, infer, options, limits=limits)
    return Loaded(model, filled(model, list(filter(None, in_file().keys)), tensors, where), extra)


def mapping(model: Sequential) -> dict[str, list[str]]:
    """The path of each part's weights in our tree, with the keys of the variables they become."""
    parts = weighted_parts(model, "export.tf2")
    return names_of(places_of(parts, _own_keys(parts)))


def mapping_in(prefix: str | os.PathLike[str], model: Sequential) -> dict[str, list[str]]:
    """The same for a checkpoint that `load` took: with the keys that are really in it."""
    where = prefix_of(prefix)
    with tensorbundle.open(where) as bundle:
        shapes = {name: bundle.info(name).shape for name in bundle}
        layers = keys_by_layer(bundle[GRAPH].item(), shapes, where)
    return names_of(places_of(weighted_parts(model, "export.tf2"), list(filter(None, layers.keys))))


def is_object_based(prefix: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint was written by TensorFlow 2's ``tf.train.Checkpoint``, or by `save`."""
    return any(name == GRAPH for name, *_ in tensorbundle.list_variables(prefix))


def opened(code: str) -> Callable[[np.ndarray], np.ndarray]:
    """The ``forward`` of the lines that `save` returned, from array to array; ImportError without TensorFlow."""
    forward = run_lines(code, RUNTIME)["forward"]
    return lambda inputs: np.asarray(forward(inputs))


def _config_beside(prefix: str, limits: Limits) -> dict[str, Any] | None:
    """The configuration of the model that ``tf.keras`` stores beside the variables of a SavedModel; None elsewhere.

    The file is a message whose field 1 is repeated, an object of Keras: its path is field 3, its class field 4, its
    JSON field 5. Raises ValueError for a model that is a class of its own: what it computes is in no file.
    """
    folder, inner = os.path.split(os.path.dirname(prefix))
    path = os.path.join(folder, METADATA)
    if inner != "variables" or not os.path.exists(path):
        return None
    with reading.reading(path):
        objects = each_message(reading.content(path, limits), 1)
        root = next((one for one in objects if one.text(3) == ROOT), None)
        if root is None or root.text(4) not in MODELS:
            kind = "nothing" if root is None else root.text(4).decode("utf-8", "replace")
            raise ValueError(f"what was saved is {kind}, wanted a keras.Sequential or a keras.Model of layers in a row")
        return from_json(root.text(5), limits)


# --- the object graph -----------------------------------------------------------------------------------------


def _own_keys(parts: list[Part]) -> list[dict[str, str]]:
    """The keys that `save` gives to the variables of parts with weights."""
    return [{name: _key(k, part, name) for name in array_names(part)} for k, part in enumerate(parts)]


def _objects(parts: list[Part], params: dict[str, Any]) -> tuple[bytes, dict[str, np.ndarray]]:
    """The object graph of ``tf.train.Checkpoint(model=model)``, and the variables by their keys."""
    nodes = [Node({}), Node({}, ("save_counter", f"save_counter/{VALUE}"))]
    tensors = {f"save_counter/{VALUE}": np.asarray(1, np.int64)}

    def add(node: Node) -> int:
        nodes.append(node)
        return len(nodes) - 1

    model: dict[str, int] = {}
    operations = {"0": add(Node({}))}  # the input
    weighted = 0
    for number, (part, layer_name) in enumerate(zip(parts, layer_names(parts), strict=True)):
        held = {}
        for folder, one in directions(part):
            arrays = keras_weights(one, weights_of(params, one))
            variables = {}
            for name in names_in(part, folder):
                key = _key(weighted, part, folder + name)
                variables[name] = add(Node({}, (f"{layer_name}/{folder}{name}", key)))
                tensors[key] = arrays[name]
            held[folder.removesuffix("/")] = {"cell": add(Node(variables))} if part.is_cell else variables
        if part.backward is not None:
            children = {folder: add(Node(cell)) for folder, cell in held.items()}
        elif part.is_cell:
            children = held[""]
        else:  # Keras 3 keeps the main array under a private name
            children = held[""] | {f"_{name}": node for name, node in held[""].items() if name != "bias"}
        layer = add(Node(children))
        model[f"layer-{number}"] = operations[str(number + 1)] = layer
        if not isinstance(part.layer, Dropout):
            model[f"layer_with_weights-{weighted}"] = layer
            weighted += 1
    model["_functional"] = add(Node({"_operations": add(Node(operations))}))
    nodes[0] = Node({"model": add(Node(model)), "save_counter": 1})
    return encode(nodes), tensors


def _key(number: int, part: Part, array: str) -> str:
    folder, _, name = array.rpartition("/")
    inner = f"{folder}/" * bool(folder) + "cell/" * part.is_cell
    return f"model/layer_with_weights-{number}/{inner}{name}/{VALUE}"
