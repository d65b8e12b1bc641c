"""The state of a folder: its ``checkpoint`` file, the latest checkpoint in it, and the removal of old ones.

The paths in a state file are relative to its folder. TensorFlow writes absolute paths if it was given an absolute
prefix; here they are always written relative, which TensorFlow reads too, so that a folder can be moved or mounted
elsewhere. Absolute paths are read if they lead into the folder. No state file can make this module open or remove
anything outside of its folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from minilstm import files
from minilstm.tensorbundle.errors import CheckpointError, about
from minilstm.tensorbundle.opening import open_bundle, slice_files
from minilstm.tensorbundle.paths import checked_prefix, checkpoint_files, data_path, index_path
from minilstm.tensorbundle.source import SourceFile
from minilstm.tensorbundle.state_text import StateText, format_state, parse_state

STATE_FILE = "checkpoint"
_MAX_SIZE = 16 << 20
_STEP = re.compile(r"-[0-9]+$")


def publish(
    prefix: str | os.PathLike[str], max_to_keep: int | None = 5, own: Sequence[str] | None = None
) -> None:
    """Make a checkpoint that was written the latest of its folder, then remove the oldest beyond `max_to_keep`.

    The state file is replaced first, and flushed; only what it no longer names is removed.

    Parameters
    ----------
    prefix : str or path
        Of a complete checkpoint.
    max_to_keep : int or None
        How many checkpoints of this name to keep, the latest included. Names that differ only in ``-<step>`` are the
        same name; checkpoints of other names are neither counted nor removed. 0 or None: all are kept, and only the
        latest is listed, as TensorFlow does.
    own : list of str, optional
        The names in the folder, the oldest first, that are counted and removed in place of those that differ in the
        step only. The state file need not have listed them, and forgets what is no longer there.

    Raises
    ------
    ValueError
        If `max_to_keep` is negative or not a number.
    FileNotFoundError
        If there is no checkpoint of that prefix.
    OSError
        If the disk refuses. The folder is then as before, or as it should be except for old files not yet removed.
    """
    path = checked_prefix("publish", prefix)
    if max_to_keep is not None and (not isinstance(max_to_keep, int) or max_to_keep < 0):
        raise ValueError(f"publish: max_to_keep must be None or an integer of 0 or more, got {max_to_keep!r}")
    if not os.path.exists(index_path(path)):
        raise FileNotFoundError(f"publish: no checkpoint {index_path(path)}")
    directory, base = os.path.split(path)
    kept, dropped = [base], []
    if max_to_keep:
        earlier = [name for name in _earlier(directory) if name != base]
        alike = [name for name in earlier if _without_step(name) == _without_step(base)] if own is None else list(own)
        dropped = alike[: max(len(alike) + 1 - max_to_keep, 0)]
        if own is not None:
            there = [name for name in earlier if os.path.exists(index_path(os.path.join(directory, name)))]
            earlier = [name for name in there if name not in alike] + alike
        kept = [name for name in earlier if name not in dropped] + kept
    text = format_state(StateText(base, tuple(kept)))
    files.write_bytes(os.path.join(directory, STATE_FILE), text)
    for name in dropped:
        remove(os.path.join(directory, name))
    if dropped:
        files.fsync_directory(directory)


def latest(directory: str | os.PathLike[str]) -> str | None:
    """The prefix of the latest complete checkpoint of a folder, or None if there is none.

    Complete means: its index can be read, and its data files are there and long enough. If the latest one that the
    state file names is not complete, because another program cut it short, the one named before it is taken, and so
    on.

    Raises
    ------
    CheckpointError
        If the state file is damaged, or names a path outside of the folder.
    """
    return find_latest(directory)[0]


def find_latest(directory: str | os.PathLike[str]) -> tuple[str | None, list[str]]:
    """As `latest`, and for each newer checkpoint that is not complete, its prefix and what is wrong with it.

    Raises
    ------
    CheckpointError
        As for `latest`.
    """
    incomplete: list[str] = []
    for prefix in reversed(_prefixes(directory)):
        fault = _fault(prefix)
        if not fault:
            return prefix, incomplete
        incomplete.append(fault)
    return None, incomplete


def all_checkpoints(directory: str | os.PathLike[str]) -> list[str]:
    """The prefixes of the complete checkpoints that the state file of a folder names, the latest last.

    Raises
    ------
    CheckpointError
        As for `latest`.
    """
    return [prefix for prefix in _prefixes(directory) if not _fault(prefix)]


def listed(directory: str | os.PathLike[str]) -> list[str]:
    """The prefixes that the state file of a folder names, complete or not, the latest last.

    Raises
    ------
    CheckpointError
        As for `latest`.
    """
    return _prefixes(directory)


def read_state(directory: str | os.PathLike[str]) -> StateText | None:
    """The content of a folder's state file; None if there is no such file.

    Raises
    ------
    CheckpointError
        If it is damaged.
    """
    path = os.path.join(os.fspath(directory), STATE_FILE)
    try:
        with about(path), SourceFile(path) as file:
            if file.size > _MAX_SIZE:
                raise CheckpointError(f"{file.size} bytes are more than any state file has")
            return parse_state(file.read_at(0, file.size))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _prefixes(directory: str | os.PathLike[str]) -> list[str]:
    folder = os.fspath(directory)
    return [os.path.join(folder, name) for name in _named(folder)]


def _named(directory: str) -> list[str]:
    """The checkpoints the state file names, relative to the folder, each once, the latest last."""
    state = read_state(directory)
    if state is None:
        return []
    root, newest = os.path.realpath(directory or os.curdir), state.model_checkpoint_path
    inside = {path: _inside(root, path, directory) for path in (*state.all_model_checkpoint_paths, newest)}
    newest = inside[newest]
    return [*dict.fromkeys(name for name in inside.values() if name != newest), newest]


def _earlier(directory: str) -> list[str]:
    """As `_named`, but empty if the state file is damaged: that must not prevent saving. TensorFlow does the same."""
    try:
        return _named(directory)
    except CheckpointError:
        return []


def _inside(root: str, path: str, directory: str) -> str:
    """A path of the state file of a directory, relative to it; `root` is the directory without symbolic links.

    Raises
    ------
    CheckpointError
        If it leads out of the folder, on its own or through a symbolic link.
    """
    try:
        relative = os.path.relpath(os.path.realpath(os.path.join(root, path)), root)
    except ValueError:  # a NUL in the path, or on Windows another drive
        relative = os.pardir
    if not os.path.basename(path) or relative.split(os.sep)[0] in (os.curdir, os.pardir):
        raise CheckpointError(
            f"{os.path.join(directory, STATE_FILE)}: it names {path!r}, which is not in this folder; if the folder was "
            "moved, name the checkpoint's prefix itself"
        )
    return relative


def _fault(prefix: str) -> str:
    """Why a checkpoint is not complete; empty if it is."""
    try:
        open_bundle(prefix).check_files()
    except FileNotFoundError as error:
        return f"{error.filename}: not there"
    except CheckpointError as error:
        return str(error)
    return ""


def _without_step(name: str) -> str:
    return _STEP.sub("", name)


def remove(prefix: str) -> None:
    """Remove the files of a checkpoint, the index first: without it the others are useless. The state file stays.

    A file of the first format is never removed: any file at all may have its name.
    """
    if slice_files(prefix):
        return
    for path in checkpoint_files(prefix):
        files.remove(path)
    files.sweep(index_path(prefix), data_path(prefix, 0, 1))
