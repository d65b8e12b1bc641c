"""ONNX: a self-contained model for inference, and its weights back.

    inputs                    [batch, time, features], or [batch, time] of int64 before an Embedding
    sequence_length           [batch] int32, optional: past it an LSTM's outputs are 0 and its state is carried through
    <layer>/initial_h, _c     [1, batch, units], optional: zeros, or the learned initial state

    outputs                   what the model returns
    <layer>/final_h, _c       [1, batch, units]: feed them back to continue the sequence

The optional inputs are initializers, which ONNX lets a caller override; their defaults are for one sequence and are
expanded to the batch in the graph. Batch and time are free. An LSTM node reads time first and gives
[time, directions, batch, units], so there is a transposition before and after it. A model for inference needs no
Dropout, so none is written.

A `sequence_length` of 0 has the meaning that it has in TensorFlow and here: outputs of 0, and the initial state carried
through. What the node alone does then is up to each runtime, so the graph makes sure of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import files, reading
from ..layers import Dropout, Embedding, Sequential
from ..optional import library
from ..reading import LIMITS, Limits, check_limit
from ..shapes import params_dtype
from .format import Loaded, Place, assembled, checked_params, described, model_and_extra, names_of, run_lines
from .infer import Options
from .layout import Weights, from_onnx
from .onnx_graph import build, tensor_names
from .parts import Part, activation_name, parts_of
from .shapes import onnx_shapes

SUFFIXES: tuple[str, ...] = (".onnx",)
RUNTIME = "onnxruntime"
RUNS: tuple[str, ...] = ("float32",)
UNSUPPORTED = {
    "GRUCell": "only LSTMs are written for ONNX (PyTorch and Keras have GRUs)",
    "Bidirectional": "only LSTMs of one direction are written for ONNX (PyTorch and Keras have both)",
    "num_proj": "an ONNX LSTM has no projection (PyTorch has)",
    "cell_clip": "an ONNX LSTM's clip bounds the gates' sums, not the cell",
    "proj_clip": "an ONNX LSTM has no projection",
    "time_major": "the exported model takes [batch, time, features]",
}


def save(path: str | os.PathLike[str], model: Sequential, params: dict[str, Any], *, extra: Any = None) -> str:
    """Write an ONNX model.

    Parameters
    ----------
    path : path
        Such as ``model.onnx``.
    model : Sequential
        Of LSTM, Dense and Embedding; peepholes, `reverse` and learned initial states included.
    params : dict
        Its parameters, of one dtype. (onnxruntime runs LSTMs in float32 alone.)
    extra : optional
        Anything JSON can hold; it is stored in the model's metadata, as is the model's description.

    Returns
    -------
    str
        The lines of Python that run it with onnxruntime, as ``forward(inputs, **optional)``.

    Raises
    ------
    ValueError
        For parameters that do not fit, and for an option that ONNX lacks: the message names it.
    ImportError
        Without onnx.
    """
    where = "export.onnx.save"
    params = checked_params(model, params, where)
    parts = _onnx_parts(model, where)
    texts = described(model, extra)
    onnx = library("onnx", where)
    proto = build(onnx, parts, params, texts)
    onnx.checker.check_model(proto, full_check=True)
    files.write_bytes(path, proto.SerializeToString(deterministic=True))
    shape, dtype = "[batch, time, features]", str(params_dtype(params, np.float32))
    if isinstance(parts[0].layer, Embedding):
        shape, dtype = "[batch, time]", "int64"
    return "\n".join(
        [
            "import numpy as np",
            "import onnxruntime",
            "",
            "options = onnxruntime.SessionOptions()",
            "options.log_severity_level = 3  # errors alone: every optional input would be warned of",
            f"session = onnxruntime.InferenceSession({os.fspath(path)!r}, options)",
            "",
            f"def forward(inputs, **optional):  # {shape}",
            f"    feeds = {{'inputs': np.asarray(inputs, np.{dtype}), **optional}}",
            "    return session.run(['outputs'], feeds)[0]",
            "",
        ]
    )


@reading.reader
def load(
    path: str | os.PathLike[str], model: Sequential | None = None, *, options: Options | None = None,
    limits: Limits = LIMITS,
) -> Loaded:  # fmt: skip
    """Read the weights of a model that `save` wrote.

    Parameters
    ----------
    path : path
    model : Sequential, optional
        What the weights are for; default what `save` described in the file. The initializers are looked up by the
        names that `save` gives them.
    options : Options, optional
        Not used: the names in files of other programs tell too little.
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
    ImportError
        Without onnx.
    """
    where = os.fspath(path)
    onnx = library("onnx", "export.onnx.load")
    data = reading.content(path, limits)
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf has errors of its own for damaged files
        raise ValueError(f"{where}: no whole ONNX model: {error}") from error
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    hint = "only files that export.onnx.save wrote can be read"
    model, extra = model_and_extra(texts, model, where, hint=hint, limits=limits)
    places = _places(model, where)
    # Not every initializer is a weight: the graph has constants too.
    arrays = _arrays(onnx, proto, {name for place in places for name in place.names.values()}, limits)
    return Loaded(model, assembled(model, places, arrays, where), extra)


def _arrays(onnx: Any, proto: Any, wanted: set[str], limits: Limits) -> dict[str, np.ndarray]:
    """The initializers that are wanted, by name; ValueError for one whose bytes are in another file."""
    check_limit("{} initializers", len(proto.graph.initializer), limits.objects)
    arrays: dict[str, np.ndarray] = {}
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ValueError(f"initializer {tensor.name!r} takes its bytes from another file, which is never read")
        if tensor.name in wanted:
            if tensor.name in arrays:
                raise ValueError(f"two initializers have the name {tensor.name!r}")
            try:
                arrays[tensor.name] = onnx.numpy_helper.to_array(tensor)
            except Exception as error:  # onnx has errors of its own too
                raise ValueError(f"initializer {tensor.name!r} is no whole array: {error}") from error
    return arrays


def mapping(model: Sequential) -> dict[str, list[str]]:
    """The path of each part's weights in our tree, with the names of the initializers they become."""
    return names_of(_places(model, "export.onnx"))


def opened(code: str) -> Callable[..., np.ndarray]:
    """The ``forward`` of the lines that `save` returned, which takes optional inputs by name.

    Raises ImportError without onnxruntime.
    """
    forward = run_lines(code, RUNTIME)["forward"]
    return lambda inputs, **optional: np.asarray(forward(inputs, **optional))


def _onnx_parts(model: Sequential, where: str) -> list[Part]:
    parts = [part for part in parts_of(model, where, UNSUPPORTED) if not isinstance(part.layer, Dropout)]
    for part in parts:
        activation_name(getattr(part.layer, "activation", None), where)
    return parts


def _places(model: Sequential, where: str) -> list[Place]:
    places = []
    for part in _onnx_parts(model, where):
        names = {key: f"{part.name}/{key}" for key in tensor_names(part)}
        places.append(Place(part.path, names, partial(_own_weights, part), part.check(onnx_shapes)))
        if part.initial_state:
            names = {key: f"{part.name}/initial_{key}" for key in "ch"}
            places.append(Place(part.initial_state, names, _own_state))
    return places


def _own_weights(part: Part, tensors: Weights) -> Weights:
    return from_onnx(part.layer, tensors) if part.is_cell else tensors


def _own_state(tensors: Weights) -> Weights:
    return {key: tensor.reshape(-1) for key, tensor in tensors.items()}
