"""Sequential: layers one after the other, and a model back from its description."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from autograd.tracer import getval

from .. import cells
from ..arguments import as_generator, check_dtype
from ..options import class_name
from ..params import flatten_names, get_path, set_path, tree_size
from ..shapes import features_of, known_shapes, shapes_alone
from ..variants import BasicRNNCell, CoupledLSTMCell, GRUCell
from ..wrappers import DropoutWrapper, MultiRNNCell, ResidualWrapper, check_distinct
from .base import Array, Layer, Params
from .bidirectional import Bidirectional
from .feedforward import Dense, Dropout, Embedding
from .recurrent import RNN

MOST_LAYERS = 1000  # in a description, and cells in a stack: each takes more memory than its text
FORMAT = 1  # version of the description that `config` gives and `from_config` takes


class Sequential:
    """A stack of layers. Their names are TensorFlow's: ``rnn``, ``rnn_1``, ``dense``, ... counted here.

    Parameters
    ----------
    *layers : Layer

    Raises
    ------
    ValueError
        Without layers, or if two of them have the same name or are the same object.

    Examples
    --------
    >>> from minilstm.layers import LSTM
    >>> model = Sequential(LSTM(32), Dense(1))
    >>> params = model.init(seed=0, input_dim=1)
    >>> {name: array.shape for name, array in flatten_names(params).items()}
    {'rnn/lstm_cell/kernel': (33, 128), 'rnn/lstm_cell/bias': (128,), 'dense/kernel': (32, 1), 'dense/bias': (1,)}
    """

    def __init__(self, *layers: Any) -> None:
        if not layers:
            raise ValueError("Sequential: at least one layer is wanted, got none")
        for layer in layers:
            if not isinstance(layer, Layer):
                raise ValueError(f"Sequential: every argument must be a layer, got {layer!r}")
        check_distinct([cell for layer in layers for cell in cells_of(layer)], "Sequential")
        with_weights = [id(layer) for layer in layers if not isinstance(layer, Dropout)]
        if len(set(with_weights)) != len(with_weights):
            raise ValueError(
                "Sequential: one layer object is in two places; its weights would be shared, which a parameter tree "
                "cannot hold. Make a new layer for each place"
            )
        if len({_is_time_major(layer) for layer in layers if layer.recurrent}) > 1:
            raise ValueError("Sequential: either all recurrent layers must have time_major=True, or none")
        self.layers = layers
        self.names = _count_names(layers)
        self._recurrent = frozenset(name for name, layer in zip(self.names, layers, strict=True) if layer.recurrent)

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """New parameters: a nested dict whose paths are TensorFlow's variable names.

        `seed` is anything ``np.random.default_rng`` takes; `input_dim` is the number of input features, needed unless
        the model starts with an `Embedding`.
        """
        dtype, rng = check_dtype(dtype, "Sequential.init"), as_generator(seed, "Sequential.init")
        params: dict[str, Any] = {}
        for name, layer in zip(self.names, self.layers, strict=True):
            weights = layer.init(rng, input_dim, dtype)
            if weights:  # a layer without parameters has no entry
                try:
                    set_path(params, name, weights)
                except ValueError as error:
                    raise ValueError(f"Sequential.init: {error}") from None
            input_dim = layer.output_dim(input_dim)
        return params

    def shapes(self, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """The tree that `init` makes, of arrays that cannot be written to and take no memory, whatever their size.

        Raises ValueError for sizes that no array can have.
        """
        twin = copy.copy(self)
        twin.layers = tuple(shapes_alone(list(self.layers)))
        return twin.init(0, input_dim, dtype)

    def apply(
        self, params: Params, inputs: Array, state: Any = None, sequence_length: Any = None, rng: Any = None
    ) -> tuple[Array, dict[str, Any]]:
        """Apply every layer in turn.

        Parameters
        ----------
        params : dict
            What `init` made.
        inputs : array [batch, time, features]
        state : dict, optional
            ``{layer name: state}`` of recurrent layers; a layer that is not named starts from its initial state.
        sequence_length : integer array [batch], optional
        rng : optional
            Given in training: dropout then acts. Anything ``np.random.default_rng`` takes; with an int or a list of
            ints the result is a pure function of the arguments.

        Returns
        -------
        (outputs, state)
            outputs ``[batch, time, features]``; state ``{layer name: state}`` of the recurrent layers.
        """
        state = {} if state is None else state
        if not isinstance(state, dict):
            raise ValueError(f"Sequential.apply: state must be {{layer name: state}}, got {type(state).__name__}")
        if not state.keys() <= self._recurrent:
            unknown = sorted(state.keys() - self._recurrent)
            raise ValueError(f"Sequential.apply: state names {unknown}, which are no recurrent layers here")
        is_random = rng is not None and any(layer.is_random for layer in self.layers)
        rng = as_generator(rng, "Sequential.apply", "rng") if is_random else None
        new_state = {}
        outputs = inputs
        for name, layer in zip(self.names, self.layers, strict=True):
            weights = get_path(params, name)
            if weights is None:
                weights = {} if isinstance(getval(params), dict) else params  # the layer says what it wants
            outputs, layer_state = layer.apply(weights, outputs, state.get(name), sequence_length, rng)
            if layer.recurrent:
                new_state[name] = layer_state
        return outputs, new_state

    def __call__(self, params: dict[str, Any], inputs: Array, **options: Any) -> Array:
        """`apply`, the outputs alone."""
        return self.apply(params, inputs, **options)[0]

    def initial_state(self, params: dict[str, Any], batch: int) -> dict[str, Any]:
        """``{layer name: state}`` that sequences start from if no state is given."""
        named = zip(self.names, self.layers, strict=True)
        return {name: layer.initial_state(get_path(params, name), batch) for name, layer in named if layer.recurrent}

    @property
    def is_time_major(self) -> bool:
        """Whether inputs are ``[time, batch, ...]``."""
        return any(_is_time_major(layer) for layer in self.layers)

    def check_stepwise(self, where: str) -> None:
        """Raise ValueError unless the model can read a sequence in pieces, one after the other, with its state carried.

        That needs recurrent layers that run forwards and return sequences, of inputs ``[batch, time, ...]``.
        """
        for name, layer in zip(self.names, self.layers, strict=True):
            if layer.recurrent and getattr(layer, "return_sequences", True) is False:
                raise ValueError(f"{where} needs outputs of every step, but layer {name!r} has return_sequences=False")
            if layer.recurrent and getattr(layer, "reverse", True):  # a Bidirectional has no such option
                raise ValueError(f"{where} carries the state forwards in time, but layer {name!r} runs backwards")
        if self.is_time_major:
            raise ValueError(f"{where} takes models of [batch, time, features], but this one has time_major=True")

    def check_all_used(self, params: dict[str, Any], where: str) -> None:
        """Raise ValueError if params hold weights that no layer reads: those of another model, or of an option that
        this one does not have. A user's own layer or cell may read all that is under its name.

        `apply` does not ask, because a loss function may have weights of its own beside the model's.
        """
        known = {name.split("/")[0] for name in self.names}
        held = params if isinstance(params, dict) else {}  # `apply` says what else it wants
        unused = sorted(str(name) for name in held if name not in known)
        if unused:
            raise ValueError(f"{where}: params: no layer reads {unused}; the model has {sorted(known)}")
        read: set[str] = set()
        for name, layer in zip(self.names, self.layers, strict=True):
            weights = get_path(params, name)
            try:
                shapes = known_shapes(layer, _input_dim(layer, weights))
            except ValueError:  # they do not fit at all, as `apply` will say
                shapes = None
            read.update(flatten_names(weights if shapes is None else shapes, name))
        unused = sorted(flatten_names(held).keys() - read)
        if unused:
            raise ValueError(f"{where}: params: no layer reads {unused}: is an option of the model missing?")

    def input_dim(self, params: dict[str, Any]) -> int | None:
        """The number of input features that `params` were made for; or None if the first weights do not tell."""
        for name, layer in zip(self.names, self.layers, strict=True):
            if isinstance(layer, (RNN, Bidirectional, Dense, Embedding)):
                return _input_dim(layer, get_path(params, name))
        return None

    def config(self) -> dict[str, Any]:
        """A JSON-able description, from which `from_config` builds the model again.

        Raises ValueError for a subclass with an `apply` of its own, and if a function without a registered name is part
        of the model.
        """
        if class_name(self) != "Sequential":
            got = f"{class_name(self)}, whose changes a description cannot hold"
            raise ValueError(f"Sequential.config: self must be a plain Sequential, got {got}")
        named = zip(self.names, self.layers, strict=True)
        return {"format": FORMAT, "layers": [{**layer.config(), "name": name} for name, layer in named]}

    def summary(self, params: dict[str, Any]) -> str:
        """A table of names, shapes and counts as text."""
        flat = flatten_names(params)
        width = max([len("total"), *map(len, flat)])
        rows = [f"{name:<{width}}  {array.shape!s:<14} {array.size:>10,}" for name, array in flat.items()]
        total = tree_size(params)
        return "\n".join([*rows, f"{'total':<{width}}  {'':<14} {total:>10,}"])

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"


def _is_time_major(layer: Layer) -> bool:
    return bool(getattr(layer.forward if isinstance(layer, Bidirectional) else layer, "time_major", False))


def _input_dim(layer: Layer, weights: Any) -> int | None:
    """The number of input features that the weights of one layer were made for, or None if they do not tell."""
    if isinstance(layer, Bidirectional):
        layer, weights = layer.forward, get_path(weights, "fw")
    if isinstance(layer, RNN):
        return features_of(layer.cell, get_path(weights, layer.cell.name))
    kernel = get_path(weights, "kernel")
    return kernel.shape[0] if isinstance(layer, (Dense, Embedding)) and hasattr(kernel, "shape") else None


def cells_of(layer: Layer) -> list[Any]:
    """The cells of a layer, each object once: a Bidirectional may use one cell for both directions."""
    if isinstance(layer, Bidirectional):
        return list({id(part.cell): part.cell for part in (layer.forward, layer.backward)}.values())
    return [layer.cell] if isinstance(layer, RNN) else []


def _count_names(layers: tuple[Layer, ...]) -> list[str]:
    """The name of each layer: its own, or its default name, with _1, _2, ... for the second, third, ... of its kind."""
    names: list[str] = []
    counts: dict[str, int] = {}
    for layer in layers:
        name = layer.name
        if name is None:
            base = layer.default_name
            count = counts.get(base, 0)
            counts[base] = count + 1
            name = f"{base}_{count}" if count else base
        if name in names:
            raise ValueError(f"Sequential: two layers have the name {name!r}; give one of them another")
        names.append(name)
    return names


CELLS = {
    cell.__name__: cell
    for cell in (
        cells.LSTMCell, cells.BasicLSTMCell, BasicRNNCell, GRUCell, CoupledLSTMCell, DropoutWrapper, ResidualWrapper,
    )
}
LAYERS: dict[str, type[Layer]] = {
    layer.__name__: layer for layer in (RNN, Bidirectional, Dense, Embedding, Dropout)
}


def from_config(config: dict[str, Any]) -> Sequential:
    """The model that `Sequential.config` described.

    Raises
    ------
    ValueError
        If the description is of a later format or not one at all.
    """
    try:
        if not isinstance(config, dict):
            raise TypeError(f"wanted a dict, got {type(config).__name__}")
        if config["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {config['format']!r}")
        if len(config["layers"]) > MOST_LAYERS:
            raise ValueError(f"{len(config['layers'])} layers, the limit is {MOST_LAYERS}")
        return Sequential(*(_layer_from_config(layer) for layer in config["layers"]))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"from_config: config is not a model description of minilstm: {error}") from error


def _layer_from_config(config: dict[str, Any]) -> Layer:
    options = dict(config)
    layer = LAYERS[options.pop("layer")]
    if layer is RNN:
        options["cell"] = _cell_from_config(options["cell"])
    for direction in {"forward", "backward"} & options.keys():
        options[direction] = _layer_from_config(options[direction])
    return layer(**options)


def _cell_from_config(config: dict[str, Any]) -> Any:
    options = dict(config)
    kind = options.pop("cell")
    if kind == "MultiRNNCell":
        if len(options["cells"]) > MOST_LAYERS:
            raise ValueError(f"{len(options['cells'])} cells in a stack, the limit is {MOST_LAYERS}")
        return MultiRNNCell([_cell_from_config(cell) for cell in options.pop("cells")], **options)
    if "inner" in options:
        return CELLS[kind](_cell_from_config(options.pop("inner")), **options)
    return CELLS[kind](**options)
