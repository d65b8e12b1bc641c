"""What older versions of TensorFlow, and other cells of it, called a variable that has another name today.

    TensorFlow 0.x    RNN/BasicLSTMCell/Linear/Matrix    RNN/MultiRNNCell/Cell0/LSTMCell/W_0    BiRNN/FW/...
    1.0 and 1.1       rnn/basic_lstm_cell/weights        rnn/multi_rnn_cell/cell_0/lstm_cell/weights
    since 1.2         rnn/basic_lstm_cell/kernel         rnn/multi_rnn_cell/cell_0/lstm_cell/kernel
    CudnnLSTM         cudnn_lstm/rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell/kernel
    block cells       lstm_fused_cell/kernel             LSTMBlockCell/W

The order of the gates and of the rows is the same in all of them. Names that fit no rule stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ..wrappers import innermost

NEW_TO_OLD = {"kernel": "weights", "bias": "biases"}
OLD_TO_NEW = {old: new for new, old in NEW_TO_OLD.items()}
PARTS_OF_CELLS = ("projection", "gates", "candidate")

# The classes of TensorFlow 0.x, and the arrays of each.
_LINEAR = {"Linear/Matrix": "kernel", "Linear/Bias": "bias"}
_LSTM = {
    "W_0": "kernel", "B": "bias", "W_P_0": "projection/kernel",
    "W_I_diag": "w_i_diag", "W_F_diag": "w_f_diag", "W_O_diag": "w_o_diag",
}  # fmt: skip
_BLOCK = {"W": "kernel", "b": "bias", "wci": "w_i_diag", "wcf": "w_f_diag", "wco": "w_o_diag"}
_GRU = {f"{part}/{old}": f"{part.lower()}/{new}" for part in ("Gates", "Candidate") for old, new in _LINEAR.items()}
_CLASSES = {
    "BasicLSTMCell": ("basic_lstm_cell", _LINEAR),
    "LSTMCell": ("lstm_cell", _LSTM),
    "LSTMBlockCell": ("lstm_cell", _BLOCK),
    "GRUCell": ("gru_cell", _GRU),
    "BasicRNNCell": ("basic_rnn_cell", _LINEAR),
}
_CLASS = re.compile(rf"(.*?)(?<![^/])({'|'.join(_CLASSES)})/(.*)", re.DOTALL)
_RUNNERS = {  # what may come before a class
    r"Cell([0-9]+)": r"cell_\1",
    r"MultiRNNCell": "multi_rnn_cell",
    r"BiRNN[/_]FW": "bidirectional_rnn/fw",
    r"BiRNN[/_]BW": "bidirectional_rnn/bw",
    r"RNN": "rnn",
}
# An LSTMCell of one sum of weights: what these classes have computed, too.
CUDNN = "cudnn_compatible_lstm_cell"
_SAME_AS_LSTM_CELL = (CUDNN, "lstm_fused_cell")
_TARGETS = ("lstm_cell", "basic_lstm_cell")


def cells_of(*models: Any) -> list[Any]:
    """The cells with weights of models; only a `Sequential` has cells."""
    layers = [layer for model in models for layer in getattr(model, "layers", ())]
    runners = [getattr(layer, side, layer) for layer in layers for side in ("forward", "backward")]
    outer = {id(runner.cell): runner.cell for runner in runners if hasattr(runner, "cell")}  # each once
    return [cell for each in outer.values() for cell in innermost(each)]


def cell_folders(*models: Any) -> set[str]:
    """The names of folders with a cell's weights in these models, beyond those that `old_name` knows."""
    return {cell.name.rpartition("/")[2] for cell in cells_of(*models)}


def old_name(name: str, folders: set[str]) -> str:
    """What TensorFlow 1.0 and 1.1 called a variable.

    An array has an old name if it is in the folder of a cell: ``<...>_cell``, one of `folders`, or a part of a cell
    such as ``projection``.

    >>> old_name("rnn/lstm_cell/kernel/Adam", set()), old_name("dense/kernel", set())
    ('rnn/lstm_cell/weights/Adam', 'dense/kernel')
    """
    return _renamed(name, NEW_TO_OLD, folders)


def new_name(name: str, folders: set[str], siblings: Iterable[str] = ()) -> str:
    """What a variable, or a slot of it, is called today; a name that no rule knows stays.

    Parameters
    ----------
    name : str
    folders : set of str
        As for `old_name`.
    siblings : set of str
        The names of the file: an array that was stored in several pieces, ``W_0`` and ``W_1``, keeps its names.

    Examples
    --------
    >>> new_name("net/RNN/MultiRNNCell/Cell0/BasicLSTMCell/Linear/Matrix/Adam", set())
    'net/rnn/multi_rnn_cell/cell_0/basic_lstm_cell/kernel/Adam'
    """
    return _renamed(_since_one(name.removesuffix(":0"), siblings), OLD_TO_NEW, folders)


def _since_one(name: str, siblings: Iterable[str]) -> str:
    """What TensorFlow 1.0 calls a variable of 0.x."""
    match = _CLASS.fullmatch(name)
    if match is None:
        return name
    before, kind, rest = match.groups()
    today, arrays = _CLASSES[kind]
    for old, new in arrays.items():
        if rest == old or rest.startswith(old + "/"):
            if old.endswith("_0") and f"{before}{kind}/{old[:-1]}1" in siblings:
                return name
            return _runners(before) + f"{today}/{new}{rest[len(old):]}"
    return name


def _runners(before: str) -> str:
    """The part of a name before the class of the cell."""
    after = ""
    while True:
        found = [(re.search(rf"(?<![^/]){pattern}/\Z", before), today) for pattern, today in _RUNNERS.items()]
        match, today = next((pair for pair in found if pair[0] is not None), (None, ""))
        if match is None:
            return before + after
        before, after = before[: match.start()], f"{match.expand(today)}/{after}"


def _renamed(name: str, mapping: dict[str, str], folders: set[str]) -> str:
    parts = name.split("/")
    for k, folder in enumerate(parts[:-1]):
        inside = folder in PARTS_OF_CELLS and k and _is_cell(parts[k - 1], folders)
        if inside or _is_cell(folder, folders) or folder == "projection":
            parts[k + 1] = mapping.get(parts[k + 1], parts[k + 1])
    return "/".join(parts)


def _is_cell(folder: str, folders: set[str]) -> bool:
    return folder.endswith("_cell") or folder in folders


def todays_names(names: Iterable[str], wanted: Iterable[str], folders: set[str]) -> dict[str, str]:
    """What all the names of a file are today.

    Parameters
    ----------
    names : list of str
        The names in the file.
    wanted : list of str
        The names that the parameters must have, if that is known: they tell which class took the place of a cell that
        is no longer there, and which folders hold a layer's ``weights`` and ``biases``.
    folders : set of str
        As for `old_name`.

    Raises
    ------
    ValueError
        If two of them are the same today.
    """
    known, wanted = set(names), set(wanted)
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in known:
        today = _of_wanted(_of_todays_cell(new_name(name, folders, known), wanted), wanted)
        if taken.setdefault(today, name) != name:
            both = sorted([name, taken[today]])
            raise ValueError(f"{both[0]} and {both[1]} are both called {today} today; tell them apart with rename=")
        found[name] = today
    return found


def _of_todays_cell(name: str, wanted: set[str]) -> str:
    """A name with the class that took the place of a cell's, as far as this is not the model's own name for it."""
    parts = name.split("/")
    for k, part in enumerate(parts):
        if part in _SAME_AS_LSTM_CELL and not _is_in(name, wanted):
            choices = ["/".join([*parts[:k], target, *parts[k + 1 :]]) for target in _TARGETS]
            return next((choice for choice in choices if _is_in(choice, wanted)), choices[0])
    return name


def _of_wanted(name: str, wanted: set[str]) -> str:
    """A name with ``kernel`` for ``weights`` where, in the very same folder, ``kernel`` is wanted."""
    parts = name.split("/")
    for k, part in enumerate(parts):
        if part in OLD_TO_NEW and not _is_in(name, wanted):
            today = "/".join([*parts[:k], OLD_TO_NEW[part], *parts[k + 1 :]])
            if _is_in(today, wanted):
                return today
    return name


def _is_in(name: str, wanted: set[str]) -> bool:
    """Whether a name, or the variable that a slot of this name belongs to, is wanted."""
    while name:
        if name in wanted:
            return True
        name = name.rpartition("/")[0]
    return False
