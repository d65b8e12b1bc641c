"""The ONNX graph of a model: its inputs, outputs, constants and nodes, as `minilstm.export.onnx` describes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import __version__
from ..layers import Embedding
from ..params import get_path
from ..shapes import params_dtype
from .layout import Weights, to_onnx
from .parts import Part, activation_name, features_in, weights_of

OPSET = 17
IR_VERSION = 8
ACTIVATIONS = {"tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu", "softsign": "Softsign", "linear": "Affine"}
NO_LENGTH = np.iinfo(np.int32).max  # the default of sequence_length; the graph cuts it to the length of the sequence


def build(onnx: Any, parts: list[Part], params: dict[str, Any], texts: dict[str, str]) -> Any:
    """The ``ModelProto`` of these parts; `onnx` is the library, `texts` go into the metadata."""
    graph = _Graph(onnx, parts, params)
    for part in parts:
        graph.add(part, params)
    return graph.model(texts)


def tensor_names(part: Part) -> tuple[str, ...]:
    """The names of a part's initializers, which its own name precedes."""
    if part.is_cell:
        return ("W", "R", "B", "P") if part.layer.use_peepholes else ("W", "R", "B")
    return ("embeddings",) if isinstance(part.layer, Embedding) else ("kernel", "bias")


class _Graph:
    """The graph as it grows: `at` is the name of the last part's output, `shape` its shape."""

    def __init__(self, onnx: Any, parts: list[Part], params: dict[str, Any]) -> None:
        self.onnx = onnx
        self.dtype = params_dtype(params, np.float32)
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.states: list[Any] = []  # the final states, which are outputs
        self.at = "inputs"
        self.shape: list[Any] = ["batch", "time"]
        if isinstance(parts[0].layer, Embedding):
            self._declare(self.inputs, "inputs", self.shape, np.int64)
        else:
            self.shape.append(features_in(parts[0], weights_of(params, parts[0])))
            self._declare(self.inputs, "inputs", self.shape)
        if any(part.is_cell for part in parts):
            self._lengths()

    def add(self, part: Part, params: dict[str, Any]) -> None:
        """Append a part."""
        weights = weights_of(params, part)
        tensors = to_onnx(part.layer, weights) if part.is_cell else weights
        names = [self._constant(f"{part.name}/{key}", tensors[key]) for key in tensor_names(part)]
        if part.is_cell:
            self._lstm(part, names, get_path(params, part.initial_state) if part.initial_state else None)
        elif isinstance(part.layer, Embedding):
            self.at = self._node("Gather", [names[0], self.at], f"{part.name}/rows")
            self.shape = [*self.shape, part.layer.units]
        else:
            product = self._node("MatMul", [self.at, names[0]], f"{part.name}/product")
            self.at = self._node("Add", [product, names[1]], f"{part.name}/sum")
            activation = activation_name(part.layer.activation, "export.onnx.save")
            if activation != "linear":
                self.at = self._node(ACTIVATIONS[activation], [self.at], f"{part.name}/activation")
            self.shape = [*self.shape[:-1], part.layer.units]

    def model(self, texts: dict[str, str]) -> Any:
        """The finished model."""
        helper = self.onnx.helper
        outputs: list[Any] = []
        self._declare(outputs, self._node("Identity", [self.at], "outputs"), self.shape)
        initializers = list(self.initializers.values())
        graph = helper.make_graph(self.nodes, "minilstm", self.inputs, outputs + self.states, initializers)
        model = helper.make_model(
            graph, producer_name="minilstm", producer_version=__version__,
            opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
        )  # fmt: skip
        helper.set_model_props(model, texts)
        return model

    def _declare(self, values: list[Any], name: str, shape: list[Any], dtype: Any = None) -> None:
        """Append an input or an output of the graph; the default `dtype` is the weights'."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        values.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))

    def _constant(self, name: str, array: Any, dtype: Any = None) -> str:
        """An initializer of this name, made if there is none yet."""
        if name not in self.initializers:
            self.initializers[name] = self.onnx.numpy_helper.from_array(np.array(array, dtype, order="C"), name)
        return name

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node with one output, which is also its name."""
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def _lengths(self) -> None:
        """Compute the lengths ``[batch]`` of the sequences, and which are 0, ``[1, batch, 1]``."""
        self._declare(self.inputs, "sequence_length", ["lengths"], np.int32)
        self._constant("sequence_length", [NO_LENGTH], np.int32)
        self._node("Shape", ["inputs"], "batch_size", start=0, end=1)
        self._node("Shape", ["inputs"], "time_size", start=1, end=2)
        self._node("Cast", ["time_size"], "time_steps", to=self.onnx.TensorProto.INT32)
        self._node("Min", ["sequence_length", "time_steps"], "cut_length")
        self._node("Expand", ["cut_length", "batch_size"], "lengths")
        self._node("Equal", ["lengths", self._constant("no_steps", [0], np.int32)], "has_no_steps")
        self._node("Unsqueeze", ["has_no_steps", self._constant("outer_axes", [0, 2], np.int64)], "is_empty")

    def _lstm(self, part: Part, tensors: list[str], learned: Weights | None) -> None:
        name, units = part.name, part.layer.units
        ends = self._constant("one", [1], np.int64), self._constant(f"{name}/units", [units], np.int64)
        shape = self._node("Concat", [ends[0], "batch_size", ends[1]], f"{name}/state_shape", axis=0)
        states = [self._initial_state(name, key, units, shape, learned) for key in "hc"]
        x = self._node("Transpose", [self.at], f"{name}/time_major", perm=[1, 0, 2])
        w, r, b, *p = tensors
        steps = [f"{name}/{key}" for key in ("Y", "Y_h", "Y_c")]
        node = self.onnx.helper.make_node(
            "LSTM", [x, w, r, b, "lengths", *states, *p], steps, name=f"{name}/LSTM", hidden_size=units,
            direction="reverse" if part.runner is not None and part.runner.reverse else "forward",
            **_activations(activation_name(part.layer.activation, "export.onnx.save")),
        )  # fmt: skip
        self.nodes.append(node)
        for key, state, final in zip("hc", states, steps[1:], strict=True):
            carried = self._node("Where", ["is_empty", state, final], f"{name}/final_{key}")
            self._declare(self.states, carried, [1, "batch", units])
        if part.return_sequences:
            squeezed = self._node("Squeeze", [steps[0], self._constant("axis_1", [1], np.int64)], f"{name}/steps")
            self.at = self._node("Transpose", [squeezed], f"{name}/outputs", perm=[1, 0, 2])
            self.shape = ["batch", "time", units]
        else:
            zero = self._constant("zero", 0, self.dtype)
            last = self._node("Where", ["is_empty", zero, steps[1]], f"{name}/last")
            self.at = self._node("Squeeze", [last, self._constant("axis_0", [0], np.int64)], f"{name}/outputs")
            self.shape = ["batch", units]

    def _initial_state(self, name: str, key: str, units: int, shape: str, learned: Weights | None) -> str:
        """One part of the state, an optional input, expanded to the batch."""
        default = np.zeros(units, self.dtype) if learned is None else learned[key]
        state = self._constant(f"{name}/initial_{key}", default.reshape(1, 1, units))
        self._declare(self.inputs, state, [1, f"{name}/states", units])
        return self._node("Expand", [state, shape], f"{name}/start_{key}")


def _activations(activation: str) -> dict[str, Any]:
    """The attributes of an LSTM node with this activation; ``Affine`` with alpha 1 and beta 0 is the identity."""
    name = ACTIVATIONS[activation]
    attributes: dict[str, Any] = {"activations": ["Sigmoid", name, name]}
    if name == "Affine":
        attributes |= {"activation_alpha": [1.0, 1.0], "activation_beta": [0.0, 0.0]}
    return attributes
