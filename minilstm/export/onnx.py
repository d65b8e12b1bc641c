"""ONNX: a self-contained model for inference, and its weights back.

    inputs                    [batch, time, features], or [batch, time] of int64 before an Embedding
    sequence_length           [batch] int32, optional: past it an LSTM's outputs are 0 and its state is carried through
    <layer>/initial_h, _c     [1, batch, units], optional: zeros, or the learned initial state

    outputs                   what the model returns
    <layer>/final_h, _c       [1, batch, units]: feed them back to go on

The optional inputs are initializers, which ONNX lets a caller override; their defaults are for one sequence and are
expanded to the batch in the graph. Batch and time are free. An LSTM node reads time first and gives
[time, directions, batch, units], so each stands between transpositions. A Dropout is nothing in a model for inference.

`sequence_length` of 0 is made to mean what it does in TensorFlow and here: outputs of 0, and the initial state carried
through; the node alone leaves that to each runtime.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import files
from ..layers import Dropout, Embedding, Sequential
from ..layers.base import params_dtype
from .layout import Weights, from_onnx
from .onnx_graph import build, tensor_names
from .parts import (
    Loaded,
    Part,
    activation_name,
    assemble,
    checked_params,
    converted,
    described,
    forward_of,
    library,
    model_and_extra,
    parts_of,
    refuse,
    take,
)

UNSUPPORTED = {
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
        Anything JSON can hold; it goes into the model's metadata, as does the model's description.

    Returns
    -------
    str
        The lines of Python that run it with onnxruntime, as ``forward(inputs, **optional)``.

    Raises
    ------
    ValueError
        For parameters that do not fit, and for an option that ONNX has not: the message names it.
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
    embedded, dtype = isinstance(parts[0].layer, Embedding), str(params_dtype(params, np.float32))
    return "\n".join(
        [
            "import numpy as np",
            "import onnxruntime",
            "",
            "options = onnxruntime.SessionOptions()",
            "options.log_severity_level = 3  # errors alone: every optional input would be warned of",
            f"session = onnxruntime.InferenceSession({os.fspath(path)!r}, options)",
            "",
            "def forward(inputs, **optional):  # " + ("[batch, time]" if embedded else "[batch, time, features]"),
            f"    feeds = {{'inputs': np.asarray(inputs, np.{'int64' if embedded else dtype}), **optional}}",
            "    return session.run(['outputs'], feeds)[0]",
            "",
        ]
    )


def load(path: str | os.PathLike[str], model: Sequential | None = None) -> Loaded:
    """Read the weights of a model that `save` wrote.

    Parameters
    ----------
    path : path
    model : Sequential, optional
        What the weights are for; default what `save` described in the file. The initializers are looked up by the
        names that `save` gives them.

    Returns
    -------
    Loaded
        ``(model, params, extra)``.

    Raises
    ------
    ValueError
        Without a model, or where the file does not fit it.
    ImportError
        Without onnx.
    """
    where = f"export.onnx.load: {os.fspath(path)}"
    onnx = library("onnx", "export.onnx.load")
    with open(path, "rb") as file:
        data = file.read()
    try:
        proto = onnx.load_model_from_string(data)
        arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        texts = {entry.key: entry.value for entry in proto.metadata_props}
    except Exception as error:  # whatever protobuf and onnx say of damage
        raise ValueError(f"{where}: no whole ONNX model: {error}") from error
    model, extra = model_and_extra(texts, model, where, "only files that export.onnx.save wrote can be read")
    weights: dict[str, Weights] = {}
    for part in _onnx_parts(model, where):
        names = {key: f"{part.name}/{key}" for key in tensor_names(part)}
        if names:
            weights[part.path] = converted(_own_weights, part, take(arrays, names, where), where)
        if part.initial_state:
            state = take(arrays, {key: f"{part.name}/initial_{key}" for key in "ch"}, where)
            weights[part.initial_state] = {key: value.reshape(-1) for key, value in state.items()}
    return Loaded(model, assemble(model, weights, where), extra)


def mapping(model: Sequential) -> dict[str, list[str]]:
    """Where each part's weights lie in our tree, and the names of the initializers they become."""
    names = {}
    for part in _onnx_parts(model, "export.onnx"):
        names[part.path] = [f"{part.name}/{key}" for key in tensor_names(part)]
        if part.initial_state:
            names[part.initial_state] = [f"{part.name}/initial_{key}" for key in "ch"]
    return names


def opened(code: str) -> Callable[..., np.ndarray]:
    """The ``forward`` of the lines that `save` returned, which takes optional inputs by name.

    Raises ImportError without onnxruntime.
    """
    library("onnxruntime", "running the exported model", "pip install onnxruntime")
    forward = forward_of(code)
    return lambda inputs, **optional: np.asarray(forward(inputs, **optional))


def _onnx_parts(model: Sequential, where: str) -> list[Part]:
    parts = [part for part in parts_of(model, where) if not isinstance(part.layer, Dropout)]
    for part in parts:
        refuse(part, UNSUPPORTED, where)
        activation_name(getattr(part.layer, "activation", None), where)
    return parts


def _own_weights(part: Part, tensors: Weights) -> Weights:
    return from_onnx(part.layer, tensors) if part.is_lstm else tensors
