"""Reading a checkpoint, written here or by any version of TensorFlow, as parameters and training state."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from .. import tensorbundle
from ..arguments import check_flag, check_path
from ..layers import Sequential, from_config
from ..layers.differences import differences
from ..params import unflatten_names
from ..reading import from_json, reader, reading
from ..tensorbundle.paths import as_prefix
from .contents import EXTRA, MODEL, OWN, STEP, TRAINING, Checkpoint
from .names import arranged, wanted_like
from .past_names import CUDNN, cell_folders, cells_of, todays_names
from .renaming import Rename, checked_scope, renamed, suggestions
from .slots import Slots, find_powers, find_slots, is_power, named_adam, optimizer_state

SAVED_MODEL = "saved_model.pb"  # what makes a directory a SavedModel of TensorFlow
Arrays = dict[str, Any]  # by name


def latest_checkpoint(directory: str | os.PathLike[str]) -> str | None:
    """The prefix of the newest complete checkpoint in a directory, or None."""
    return tensorbundle.latest(check_path(directory, "directory", "latest_checkpoint"))


def prefix_of(prefix_or_directory: str | os.PathLike[str]) -> str:
    """A prefix as it is, of one of its files the prefix, of a directory its newest complete checkpoint.

    A SavedModel of TensorFlow is such a directory, too: its ``variables/`` hold one checkpoint.

    If the directory names newer ones that are not complete, a UserWarning says so. Raises FileNotFoundError if it has
    no complete one.
    """
    prefix, notes = _found(prefix_or_directory)
    _warn(prefix, notes)
    return prefix


def _found(prefix_or_directory: str | os.PathLike[str]) -> tuple[str, list[str]]:
    """A prefix, and what `prefix_of` warns of."""
    path = os.fspath(prefix_or_directory)
    if not os.path.isdir(path):
        return as_prefix(path), []
    prefix, incomplete = tensorbundle.find_latest(path)
    if prefix is None and os.path.exists(os.path.join(path, SAVED_MODEL)):
        return os.path.join(path, "variables", "variables"), []
    if prefix is None:
        why = f": {incomplete[0]}" if incomplete else ""
        raise FileNotFoundError(f"no checkpoint in the directory {path!r}{why}")
    return prefix, [f"this is an older checkpoint; a newer one is not complete: {fault}" for fault in incomplete]


def _warn(prefix: str, notes: Iterable[str]) -> None:
    for note in notes:
        warnings.warn(f"{prefix}: {note}", UserWarning, stacklevel=3)


def load_checkpoint(
    prefix_or_directory: str | os.PathLike[str],
    like: Any = None,
    *,
    strict: bool = True,
    scope: str | None = None,
    rename: Rename | None = None,
) -> Checkpoint:
    """Read a checkpoint, written here or by TensorFlow.

    Names of TensorFlow 0.x and 1.0 become those of today: ``RNN/BasicLSTMCell/Linear/Matrix`` and
    ``rnn/basic_lstm_cell/weights`` are ``rnn/basic_lstm_cell/kernel``. Other names are never guessed.

    Parameters
    ----------
    prefix_or_directory : path
        A prefix such as ``runs/demo/model.ckpt-600``, a file of TensorFlow's first format, or a directory, which means
        its newest checkpoint, or its variables if it is a SavedModel.
    like : dict or Sequential, optional
        What the parameters have to fit: a parameter tree (names, shapes, dtypes) or a model (names, shapes, and if the
        file describes its model, every option that changes outputs: forget bias, activations, clips, dropout, ...).
    strict : bool, default True
        False: arrays that `like` has no use for go to `others`. What `like` has and the file lacks is still an error.
    scope : str, optional
        The names of the parameters are below this scope in the file: with ``scope="net"``, ``net/rnn/...`` is
        ``rnn/...``. What is outside goes to `others`, except for the optimizer's state.
    rename : dict or function, optional
        What is done first: new names for names in the file. A function is called with every name, also those of slots,
        powers of beta and ``global_step`` (but not with minilstm's own, below ``minilstm/``). A dict has the names that
        change; an entry for a variable counts for its slots, too.

    Returns
    -------
    Checkpoint
        If an optimizer's state could not be rebuilt although there are slots, or a tensor cannot be read because no
        array can hold it, `notes` say so, and so do UserWarnings.

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint there at all.
    CheckpointError
        If a file is damaged, or does not fit `like`: everything missing, extra or of another shape or dtype is
        listed at once, with the changes of names that would fit.
    TypeError, ValueError
        For a `scope` or `rename` that is none.

    Examples
    --------
    >>> import tempfile
    >>> from minilstm import LSTM, Sequential, tensorbundle
    >>> model = Sequential(LSTM(2))
    >>> theirs = {"net/rnn/cell/weights": np.zeros((3, 8)), "net/rnn/cell/biases": np.zeros(8)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tensorbundle.write(f"{folder}/m", theirs)
    ...     rename = lambda name: name.replace("/cell/", "/lstm_cell/")
    ...     loaded = load_checkpoint(f"{folder}/m", like=model, scope="net", rename=rename)
    >>> {name: array.shape for name, array in loaded.params["rnn"]["lstm_cell"].items()}
    {'kernel': (3, 8), 'bias': (8,)}
    """
    path = check_path(prefix_or_directory, "prefix_or_directory", "load_checkpoint")
    strict = check_flag(strict, "strict", "load_checkpoint")
    if like is not None and not isinstance(like, (dict, Sequential)):
        raise ValueError(f"load_checkpoint: like must be a Sequential or a tree of arrays, got {like!r:.80}")
    loaded, unsaid = _loaded(path, like, strict, checked_scope(scope), rename)
    _warn(loaded.prefix, loaded.notes)
    return loaded._replace(notes=(*loaded.notes, *unsaid))


def load_silently(prefix_or_directory: str | os.PathLike[str]) -> Checkpoint:
    """As `load_checkpoint`, without warnings: the caller says what is in `notes`, if it matters to him."""
    loaded, unsaid = _loaded(prefix_or_directory, None, True, "", None)
    return loaded._replace(notes=(*loaded.notes, *unsaid))


def _loaded(
    path: str | os.PathLike[str], like: Any, strict: bool, scope: str, rename: Rename | None
) -> tuple[Checkpoint, list[str]]:
    """A checkpoint, of which the notes are to be warned of, and further notes."""
    file = read_file(path)
    new = renamed([name for name in file.tensors if not name.startswith(OWN)], rename, file.prefix)
    with reading(file.prefix):
        return _sorted_out(file, new, like, strict, scope)


class File(NamedTuple):
    """What is in a checkpoint: arrays by name, minilstm's own texts read, and what must be said of it."""

    prefix: str
    tensors: Arrays
    own: dict[str, Any]
    notes: list[str]


@reader
def read_file(prefix_or_directory: str | os.PathLike[str]) -> File:
    """Read all tensors of a checkpoint that an array can hold."""
    prefix, notes = _found(prefix_or_directory)
    bundle = tensorbundle.open(prefix)
    tensors = bundle.read_many([name for name in bundle if name not in bundle.unreadable])
    notes += [f"the tensor {name!r} cannot be read: {why}" for name, why in bundle.unreadable.items()]
    with reading(prefix):
        own = {name: _from_json(tensors.pop(name, None), name) for name in (MODEL, EXTRA, TRAINING)}
    return File(prefix, tensors, own, notes)


def _sorted_out(
    file: File, new: dict[str, str], like: Any, strict: bool, scope: str
) -> tuple[Checkpoint, list[str]]:
    """Sort the tensors of a file, under their new names, into a `Checkpoint`.

    Returns it and further notes, of which no warning is needed. Raises ValueError, without the file's name, if they
    make no sense.
    """
    prefix, tensors, own, notes = file
    model = None if own[MODEL] is None else _described(own[MODEL])
    folders = cell_folders(model, like)
    wanted: list[str] = []
    described = model if like is None else like
    # Without a model, the names of fit are those that its caller chose.
    is_chosen = own[TRAINING] is not None and own[MODEL] is None
    for _ in range(1 if described is None else 2):  # the second time, it is known which names the model has
        named = [scope + name for name in wanted]
        today = {name: name for name in new.values()} if is_chosen else todays_names(new.values(), named, folders)
        in_file = {today[name]: old for old, name in new.items()}  # what the file calls them
        arrays = {name: tensors[old] for name, old in in_file.items()}
        slots = find_slots(arrays, named)
        variables, nested = _variables(arrays, slots, named)
        below = {name.removeprefix(scope): name for name in variables if name.startswith(scope)}
        if described is not None:
            wanted = _names_of(described, {name: arrays[full] for name, full in below.items()}, like is not None)
    if scope and not below:
        raise ValueError(f"scope: no variable is below {scope[:-1]!r}; there is {_some(variables)}")
    step_name = _step_name(arrays, scope)
    step = None if step_name is None else as_step(arrays[step_name])

    unsaid: list[str] = []
    params = below if like is None else {name: below[name] for name in wanted if name in below}
    slots = _with_named_adam(slots, {name: arrays[name] for name in params.values()}, nested, arrays)
    without = [name for name in below if arrays[below[name]].shape == () and not slots.of_optimizers(below[name])]
    rates = {name for name in without if like is None or name not in params}  # no parameters, if the others have slots
    trained = {name: full for name, full in params.items() if name not in rates}
    state, used, why = optimizer_state(trained, slots, arrays, scope, step or 0)
    if state is not None:
        params, below = trained, {name: full for name, full in below.items() if name not in rates}
    elif why:
        notes.append(f"opt_state is None: {why}")
    if like is not None:
        flat = {name: arrays[full] for name, full in below.items()}
        other, unsaid = _other_options(model, like)
        if any(name not in flat for name in wanted):
            other += [*suggestions(flat, like, arrays, in_file, scope), *notes]
        flat = arranged(flat, like, other, strict=strict)
        params = {name: below[name] for name in flat}
    if any(CUDNN in in_file[full] for full in params.values()) and not _adds_no_forget_bias(like):
        notes.append(f"TensorFlow runs a {CUDNN} with forget_bias=0, so its weights need a cell with forget_bias=0")

    averages = [slots.average(full) for full in params.values()]
    averaged = None
    if params and None not in averages:
        averaged = unflatten_names({name: arrays[each] for name, each in zip(params, averages, strict=True) if each})
        used = used | {each for each in averages if each}
    used = used | set(params.values()) | {name for name in [step_name] if name}
    others = {name: array for name, array in arrays.items() if name not in used}
    others.update({name: array for name, array in tensors.items() if name.startswith(OWN)})
    tree = unflatten_names({name: arrays[full] for name, full in params.items()})
    if isinstance(own[TRAINING], dict) and "last" in own[TRAINING]:
        unsaid.append(
            "opt_state is None: the run has ended, and params are the best that early stopping found; the last ones, "
            f"with the optimizer's state, are in others under {OWN}last/"
        )
    found = Checkpoint(prefix, tree, state, step, model, own[EXTRA], own[TRAINING], others, averaged, tuple(notes))
    return found, unsaid


def _other_options(model: Sequential | None, like: Any) -> tuple[list[str], list[str]]:
    """What a file's model and the model `like` differ in, and why that could not be compared, as lines."""
    if model is None or not isinstance(like, Sequential):
        return [], []
    try:
        wanted = like.config()
    except ValueError as error:
        return [], [f"the options of the model were not compared: {error}"]
    return [f"{place}: wanted {new}, got {old}" for place, old, new in differences(model.config(), wanted)], []


def _variables(arrays: Arrays, slots: Slots, wanted: list[str]) -> tuple[list[str], Arrays]:
    """The names that may be parameters; and the arrays whose names have another array's name as a folder."""
    state = slots.names | {name for name, array in arrays.items() if is_power(name, array)}
    floats = {name for name, array in arrays.items() if array.dtype.kind == "f" and name not in state}
    nested = {}
    for name in floats - set(wanted):
        parts = name.split("/")
        if any("/".join(parts[:k]) in floats for k in range(1, len(parts))):
            nested[name] = arrays[name]
    return [name for name in arrays if name in floats and name not in nested], nested


def _with_named_adam(slots: Slots, variables: Arrays, nested: Arrays, arrays: Arrays) -> Slots:
    """The slots, or if there are none of a known name, those of an Adam with a name of its own."""
    if any(slots.of_optimizers(name) for name in variables) or not find_powers(arrays):
        return slots
    found = named_adam(variables, nested)
    return slots._replace(by_variable={**slots.by_variable, **{
        name: {**slots.by_variable.get(name, {}), **mine} for name, mine in found.items()
    }})  # fmt: skip


def _step_name(arrays: Arrays, scope: str) -> str | None:
    """The name of the step: without a scope, in the one that the caller named, or the only one."""
    found = [name for name in arrays if name.rpartition("/")[2] == STEP]
    for name in (STEP, scope + STEP):
        if name in found:
            return name
    whole = [name for name in found if arrays[name].shape == () and arrays[name].dtype.kind in "iu"]
    return whole[0] if len(whole) == 1 else None


def _names_of(model: Any, flat: Arrays, needed: bool) -> list[str]:
    """The names that the parameters of a model have; none if they cannot be told and are not `needed`."""
    try:
        return list(wanted_like(model, flat))
    except ValueError:
        if needed:
            raise
        return []


def _adds_no_forget_bias(like: Any) -> bool:
    cells = cells_of(like)
    return bool(cells) and all(getattr(cell, "forget_bias", 0.0) == 0.0 for cell in cells)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "none at all"


def _from_json(tensor: Any, name: str) -> Any:
    if tensor is None:
        return None
    try:
        return from_json(np.asarray(tensor, object).item())
    except (ValueError, TypeError) as error:
        raise ValueError(f"tensor {name} is not JSON: {error}") from error


def _described(config: Any) -> Sequential:
    try:
        return from_config(config)
    except ValueError as error:
        raise ValueError(f"tensor {MODEL}: {error}") from error


def as_step(tensor: Any) -> int | None:
    """The number in ``global_step``, or None without such a tensor; ValueError if it is no whole number above 0."""
    if tensor is None:
        return None
    if tensor.shape != () or tensor.dtype.kind not in "iu" or tensor < 0:
        raise ValueError(f"{STEP} must be a whole number of 0 or more, got {tensor.dtype} {tensor.shape}")
    return int(tensor)
