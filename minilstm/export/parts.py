"""A model as a row of parts that other libraries have too: LSTMs of one cell each, Dense, Embedding, Dropout.

A runner around a `MultiRNNCell` becomes one part a cell, named ``rnn/cell_0``, ``rnn/cell_1``, ...; a `DropoutWrapper`
becomes Dropout before or behind the cell it wraps. What has no counterpart anywhere is refused here, what one library
lacks is refused by its own module; the message always names the option.

A file that can hold more than weights also holds the model's description, under the names that checkpoints use, so
that it can be read back without further knowledge.
"""

from __future__ import annotations

import difflib
import importlib
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..cells import BasicLSTMCell, LSTMCell, registered_name
from ..checkpoint import OWN
from ..layers import RNN, Dense, Dropout, Embedding, Sequential, from_config
from ..params import flatten_names, get_path, set_path, unflatten_names
from ..wrappers import DropoutWrapper, MultiRNNCell

MODEL, EXTRA = OWN + "model", OWN + "extra"
ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)  # what a damaged zip can raise
DTYPES = ("float32", "float64", "float16")


class Loaded(NamedTuple):
    """What reading an exported file gives: the model, its parameters, and the `extra` that was saved with it."""

    model: Sequential
    params: dict[str, Any]
    extra: Any = None


class Part(NamedTuple):
    """One layer as the other libraries see it.

    `layer` is an LSTMCell, Dense, Embedding or Dropout; `path` says where its weights lie in the parameter tree,
    `owner` which layer of the model it comes from. The rest is for an LSTM: the runner it belongs to, and the path of
    its learned initial state where it has one.
    """

    name: str
    layer: Any
    owner: str
    path: str = ""
    runner: RNN | None = None
    return_sequences: bool = True
    initial_state: str = ""

    @property
    def is_lstm(self) -> bool:
        """Whether the layer is an LSTM cell."""
        return isinstance(self.layer, LSTMCell)

    def options(self) -> dict[str, Any]:
        """The options that some library may lack, with their values; those of an LSTM's runner too."""
        if not self.is_lstm:
            return {}
        cell = ("activation", "use_peepholes", "num_proj", "cell_clip", "proj_clip")
        runner = ("reverse", "time_major", "learn_initial_state")
        return {key: getattr(self.layer, key) for key in cell} | {key: getattr(self.runner, key) for key in runner}


def parts_of(model: Sequential, where: str) -> list[Part]:
    """The parts of a model, in the order in which they act.

    Raises
    ------
    ValueError
        For a layer, cell or wrapper that has no counterpart; `where` begins the message.
    """
    if not isinstance(model, Sequential):
        raise ValueError(f"{where}: model must be a Sequential, got {type(model).__name__}")
    parts: list[Part] = []
    for name, layer in zip(model.names, model.layers, strict=True):
        if isinstance(layer, RNN):
            parts += _runner_parts(name, layer, where)
        elif isinstance(layer, (Dense, Embedding, Dropout)):
            parts.append(Part(name, layer, name, name))
        else:
            raise ValueError(f"{where}: {name!r} is a {type(layer).__name__}, which cannot be exported")
    names = [part.name for part in parts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{where}: two layers would both be called {twice[0]!r}; give one of them another name")
    return parts


def _runner_parts(name: str, runner: RNN, where: str) -> list[Part]:
    learned = f"{name}/initial_state" if runner.learn_initial_state else ""
    path = f"{name}/{runner.cell.name}"
    if not isinstance(runner.cell, MultiRNNCell):
        return _cell_parts(Part(name, runner.cell, name, path, runner, runner.return_sequences, learned), where)
    parts = []
    for n, cell in enumerate(runner.cell.cells):
        last = n + 1 == len(runner.cell.cells)
        part = Part(
            f"{name}/cell_{n}", cell, name, f"{path}/cell_{n}/{cell.name}", runner,
            runner.return_sequences or not last, learned and f"{learned}/cell_{n}",
        )  # fmt: skip
        parts += _cell_parts(part, where)
    return parts


def _cell_parts(part: Part, where: str) -> list[Part]:
    """The LSTM that is the innermost cell of `part`, between the Dropouts that its wrappers are."""
    cell = part.layer
    if type(cell) in (LSTMCell, BasicLSTMCell):
        return [part]
    if not isinstance(cell, DropoutWrapper):
        raise ValueError(f"{where}: {part.name!r} is a {type(cell).__name__}, which cannot be exported")
    if cell.variational_recurrent or cell.state_keep_prob != 1:
        option = "variational_recurrent" if cell.variational_recurrent else "state_keep_prob"
        raise ValueError(
            f"{where}: {part.name!r} has a DropoutWrapper with {option}={getattr(cell, option)}, which cannot be "
            f"exported; only input_keep_prob and output_keep_prob can"
        )
    inner = _cell_parts(part._replace(layer=cell.cell), where)
    for side, keep in (("input", cell.input_keep_prob), ("output", cell.output_keep_prob)):
        if keep != 1:
            dropout = Part(_fresh(f"{part.name}/{side}_dropout", inner), Dropout(1 - keep), part.owner)
            inner.insert(0 if side == "input" else len(inner), dropout)
    return inner


def _fresh(name: str, parts: list[Part]) -> str:
    """`name`, numbered where wrappers in wrappers would give it twice."""
    count = sum(part.name.startswith(name) for part in parts)
    return f"{name}_{count}" if count else name


def refuse(part: Part, unsupported: Mapping[str, str], where: str) -> None:
    """Raise ValueError if `part` uses an option named in `unsupported`, whose values say why it cannot.

    ``activation`` stands for any LSTM activation other than tanh.
    """
    for option, value in part.options().items():
        used = value != "tanh" if option == "activation" else value not in (None, False)
        if option in unsupported and used:
            raise ValueError(f"{where}: {part.name!r} has {option}={value!r}, and {unsupported[option]}")


def activation_name(activation: Any, where: str) -> str:
    """The registered name of an activation, ``linear`` for None; ValueError for a function without one."""
    return registered_name(activation, where) or "linear"


def weights_of(params: dict[str, Any], part: Part) -> dict[str, Any]:
    """The weights of a part, an empty dict where it has none."""
    return (get_path(params, part.path) or {}) if part.path else {}


def features_in(part: Part, weights: dict[str, Any]) -> int:
    """How many features go into a part; for an Embedding the number of rows. `weights` are its own."""
    if part.is_lstm:
        return int(part.layer.input_dim(weights))
    return int(weights["embeddings" if isinstance(part.layer, Embedding) else "kernel"].shape[0])


def checked_params(model: Sequential, params: dict[str, Any], where: str) -> dict[str, Any]:
    """`params` as C-contiguous NumPy arrays in the model's own order, of one floating dtype.

    Raises
    ------
    ValueError
        That lists everything missing, extra or of another shape, or more than one dtype.
    """
    flat = {name: np.asarray(value) for name, value in flatten_names(params).items()}
    dtypes = sorted({str(value.dtype) for value in flat.values()})
    if len(dtypes) != 1 or dtypes[0] not in DTYPES:
        raise ValueError(f"{where}: all parameters must have one dtype of {DTYPES}, got {dtypes or 'no parameters'}")
    try:
        input_dim = model.input_dim(params)
    except (KeyError, TypeError, IndexError):
        input_dim = None
    wanted = {name: value.shape for name, value in flatten_names(model.init(0, input_dim or 1)).items()}
    faults = []
    for name, shape in wanted.items():
        if name not in flat:
            near = difflib.get_close_matches(name, flat, n=3)
            faults.append(f"missing: {name} {shape}" + (f" (there is {', '.join(near)})" if near else ""))
        elif flat[name].shape != shape:
            faults.append(f"shape of {name}: wanted {shape}, got {flat[name].shape}")
    faults += [f"extra: {name} {value.shape}" for name, value in flat.items() if name not in wanted]
    if faults:
        raise ValueError(f"{where}: the parameters do not fit the model:\n  " + "\n  ".join(faults))
    return unflatten_names({name: np.array(flat[name], order="C") for name in wanted})


def assemble(model: Sequential, weights: dict[str, dict[str, Any]], where: str) -> dict[str, Any]:
    """A parameter tree from the weights of each part, by path; checked against the model."""
    params: dict[str, Any] = {}
    for path, tree in weights.items():
        set_path(params, path, tree)
    return checked_params(model, params, where)


def take(tensors: Mapping[str, Any], names: Mapping[str, str], where: str) -> dict[str, Any]:
    """``{key: tensors[name]}`` for every ``key: name``; ValueError naming all that is missing and what is near."""
    missing = [name for name in names.values() if name not in tensors]
    if missing:
        near = {close for name in missing for close in difflib.get_close_matches(name, tensors, n=2)}
        hint = f" (the file has {', '.join(sorted(near))})" if near else ""
        raise ValueError(f"{where}: the file has no {', '.join(missing)}{hint}")
    return {key: np.asarray(tensors[name]) for key, name in names.items()}


def converted(function: Callable[..., Any], part: Part, arrays: dict[str, Any], where: str) -> dict[str, Any]:
    """``function(part, arrays)``; ValueError with the arrays' shapes where they are not those of such a layer."""
    try:
        return dict(function(part, arrays))
    except (ValueError, IndexError) as error:
        shapes = {name: np.shape(array) for name, array in arrays.items()}
        raise ValueError(f"{where}: {part.name!r} cannot have arrays of the shapes {shapes}: {error}") from error


# --- descriptions ---------------------------------------------------------------------------------------------


def described(model: Sequential, extra: Any) -> dict[str, str]:
    """The model's description and the caller's `extra` as JSON texts, under the names that checkpoints use."""
    texts = {MODEL: json.dumps(model.config(), sort_keys=True)}
    if extra is not None:
        try:
            texts[EXTRA] = json.dumps(extra, sort_keys=True)
        except TypeError as error:
            raise ValueError(f"extra must be what JSON can hold: {error}") from error
    return texts


def model_and_extra(
    texts: Mapping[str, Any], model: Sequential | None, where: str, wanted: str
) -> tuple[Sequential, Any]:
    """The model, given by the caller or described in a file, and the file's `extra`.

    Raises
    ------
    ValueError
        If neither is there; `wanted` says what to give instead.
    """
    if model is None and MODEL not in texts:
        raise ValueError(f"{where}: the file has no description of the model ({MODEL}); {wanted}")
    try:
        extra = json.loads(texts[EXTRA]) if EXTRA in texts else None
        return model or from_config(json.loads(texts[MODEL])), extra
    except ValueError as error:
        raise ValueError(f"{where}: the file's description of the model is damaged: {error}") from error


def library(name: str, where: str, line: str = "pip install 'minilstm[export]'") -> Any:
    """An optional library; ImportError with the line that installs it where it is absent."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{where} needs {name.partition('.')[0]}: {line}") from error


def forward_of(code: str) -> Callable[..., Any]:
    """The function ``forward`` that lines of Python from `save` define, by running them: what is printed is checked."""
    namespace: dict[str, Any] = {}
    exec(compile(code, "<the exported model>", "exec"), namespace)
    forward: Callable[..., Any] = namespace["forward"]
    return forward
