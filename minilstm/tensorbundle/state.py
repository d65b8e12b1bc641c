"""The state of a folder: its ``checkpoint`` file, the latest checkpoint in it, and the removal of old ones.

The paths in a state file are taken relative to its folder. TensorFlow writes them absolute where it was given an
absolute prefix; here they are always written relative, so that a folder can be moved or mounted elsewhere, which
TensorFlow reads as well. Absolute ones are read if they lie in the folder. Nothing outside of the folder is ever opened
or removed because a state file names it.
"""

from __future__ import annotations

import os
import re

from minilstm import files
from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.paths import checked_prefix, checkpoint_files, data_path, index_path
from minilstm.tensorbundle.reader import open_bundle
from minilstm.tensorbundle.source import SourceFile
from minilstm.tensorbundle.state_text import StateText, format_state, parse_state

STATE_FILE = "checkpoint"
_MAX_SIZE = 16 << 20
_STEP = re.compile(r"-[0-9]+$")


def publish(prefix: str | os.PathLike[str], max_to_keep: int | None = 5) -> None:
    """Make a checkpoint that was written the latest of its folder, then remove those that are too many.

    The state file is replaced first, and flushed; only what it does not name any more is removed.

    Parameters
    ----------
    prefix : str or path
        Of a complete checkpoint.
    max_to_keep : int or None
        How many checkpoints of this name to keep, the latest included; names are alike if they differ only in
        ``-<step>``, and others in the folder are neither counted nor removed. 0 or None: all are kept, and only the
        latest is listed, as TensorFlow does.

    Raises
    ------
    ValueError
        If `max_to_keep` is negative or no number.
    FileNotFoundError
        If there is no checkpoint of that prefix.
    OSError
        If the disk refuses. The folder is as before, or as it should be but for files not yet removed.
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
        alike = [name for name in earlier if _stem(name) == _stem(base)]
        dropped = alike[: max(len(alike) + 1 - max_to_keep, 0)]
        kept = [name for name in earlier if name not in dropped] + kept
    text = format_state(StateText(base, tuple(kept)))
    files.write_bytes(os.path.join(directory, STATE_FILE), text)
    for name in dropped:
        _remove_checkpoint(os.path.join(directory, name))
    if dropped:
        files.fsync_directory(directory)


def latest(directory: str | os.PathLike[str]) -> str | None:
    """The prefix of the latest checkpoint of a folder that is whole, or None if there is none.

    Whole means: its index can be read, and its data files are there and long enough. If the latest one named is not,
    because something other than this library cut it short, the one named before it is taken, and so on.

    Raises
    ------
    CheckpointError
        If the state file is damaged, or names a path outside of the folder.
    """
    return next((prefix for prefix in reversed(_prefixes(directory)) if _is_whole(prefix)), None)


def all_checkpoints(directory: str | os.PathLike[str]) -> list[str]:
    """The prefixes of the checkpoints that the state file of a folder names and that are whole, the latest last.

    Raises
    ------
    CheckpointError
        As for `latest`.
    """
    return [prefix for prefix in _prefixes(directory) if _is_whole(prefix)]


def read_state(directory: str | os.PathLike[str]) -> StateText | None:
    """The state file of a folder as it stands there; None if there is none.

    Raises
    ------
    CheckpointError
        If it is damaged.
    """
    path = os.path.join(os.fspath(directory), STATE_FILE)
    try:
        with SourceFile(path) as file:
            if file.size > _MAX_SIZE:
                raise CheckpointError(f"{path}: {file.size} bytes are more than any state file has")
            data = file.read_at(0, file.size)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return parse_state(data)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _prefixes(directory: str | os.PathLike[str]) -> list[str]:
    folder = os.fspath(directory)
    return [os.path.join(folder, name) for name in _named(folder)]


def _named(directory: str) -> list[str]:
    """The checkpoints the state file names, relative to the folder, each once, the latest last."""
    state = read_state(directory)
    if state is None:
        return []
    names = [_inside(directory, path) for path in state.all_model_checkpoint_paths]
    newest = _inside(directory, state.model_checkpoint_path)
    return [*dict.fromkeys(name for name in names if name != newest), newest]


def _earlier(directory: str) -> list[str]:
    # A state file that makes no sense must not keep anybody from saving: TensorFlow, too, takes it for absent.
    try:
        return _named(directory)
    except CheckpointError:
        return []


def _inside(directory: str, path: str) -> str:
    """A path of the state file, relative to its folder.

    Raises
    ------
    CheckpointError
        If it leads out of it, on its own or through a symbolic link.
    """
    try:
        root = os.path.realpath(directory or os.curdir)
        relative = os.path.relpath(os.path.realpath(os.path.join(root, path)), root)
    except ValueError:  # a NUL in the path, or on Windows another drive
        relative = os.pardir
    if not os.path.basename(path) or relative.split(os.sep)[0] in (os.curdir, os.pardir):
        raise CheckpointError(
            f"{os.path.join(directory, STATE_FILE)}: it names {path!r}, which is not in this folder; if the folder was "
            "moved, name the checkpoint's prefix itself"
        )
    return relative


def _is_whole(prefix: str) -> bool:
    try:
        open_bundle(prefix).check_files()
    except (FileNotFoundError, CheckpointError):
        return False
    return True


def _stem(name: str) -> str:
    return _STEP.sub("", name)


def _remove_checkpoint(prefix: str) -> None:
    for path in checkpoint_files(prefix):
        files.remove(path)
    files.sweep(index_path(prefix))
    files.sweep(data_path(prefix, 0, 1))
