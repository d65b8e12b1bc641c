"""Write history.csv: one row an epoch, on disk before the next epoch begins."""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
import stat
from typing import Any

from .. import files
from ..reading import content

NAME = "history.csv"


class HistoryFile:
    """Append the newest entries of a history to ``history.csv`` in `directory`; without one, do nothing.

    The checkpoint is the source: the file is written again from `history`, the lists of the epochs that the checkpoint
    holds, and `steps`, the step at the end of each. From an old file come the seconds of these epochs, and nothing
    else. An old file that is no such file, or that says something else, is kept as ``history.csv.kept``.

    Each of `constants` becomes a column with the same value in every row: the losses of trivial forecasts.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None,
        history: dict[str, list[float]] | None = None,
        steps: list[int] | None = None,
        constants: dict[str, float] | None = None,
    ) -> None:
        self.constants = {f"baseline_{name}": repr(value) for name, value in (constants or {}).items()}
        self.path = None if directory is None else os.path.join(directory, NAME)
        self.rows: list[dict[str, str]] = []
        if self.path is None:
            return
        history, steps = history or {}, steps or []
        old, is_sound = _read(self.path, history)
        for n in range(len(history.get("loss", ()))):
            numbers = {name: repr(values[n]) for name, values in history.items()}
            was = old[n] if n < len(old) else {}
            step = str(steps[n]) if n < len(steps) else was.get("step", "")
            constant = {name: was.get(name) or value for name, value in self.constants.items()}
            self.rows.append(_row(n + 1, step, {**numbers, **constant}, was.get("seconds", "")))
        if os.path.lexists(self.path) and (not is_sound or (old and not self.rows)):
            _keep(self.path)
        if self.rows:
            self._write()
        else:
            files.remove(self.path)

    def append(self, epoch: int, step: int, history: dict[str, list[float]], seconds: float) -> None:
        """Write the row of an epoch: its number (from 1), the step, the last entries of `history`, the seconds."""
        if self.path is None:
            return
        latest = {name: repr(values[-1]) for name, values in history.items()}
        self.rows.append(_row(epoch, str(step), {**latest, **self.constants}, f"{seconds:.3f}"))
        if len(self.rows) == 1 or list(self.rows[-1]) != list(self.rows[0]) or not _is_file(self.path):
            if os.path.lexists(self.path) and not _is_file(self.path):
                _keep(self.path)
            os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
            self._write()
            return
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            file.write(_as_csv(self.rows[-1:], header=False))
            file.flush()
            os.fsync(file.fileno())

    def _write(self) -> None:
        """Write the whole file, unless it is there as it should be."""
        text = _as_csv(self.rows)
        if self.path is not None and not (_is_file(self.path) and content(self.path) == text.encode()):
            files.write_text(str(self.path), text)


def _keep(path: str) -> None:
    """Give what is at `path` another name, which nothing has yet."""
    names = (f"{path}.kept{f'-{n}' if n > 1 else ''}" for n in itertools.count(1))
    files.replace(path, next(name for name in names if not os.path.lexists(name)))


def _row(epoch: int, step: str, numbers: dict[str, str], seconds: str) -> dict[str, str]:
    return {"epoch": str(epoch), "step": step, **numbers, "seconds": seconds}


def _as_csv(rows: list[dict[str, str]], header: bool = True) -> str:
    text = io.StringIO()
    fields = list(dict.fromkeys(name for row in rows for name in row if name != "seconds"))
    writer = csv.DictWriter(text, [*fields, "seconds"], restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _is_file(path: Any) -> bool:
    """Whether there is a regular file: a link or a pipe would lead elsewhere, or wait for a reader."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _read(path: str, history: dict[str, list[float]]) -> tuple[list[dict[str, str]], bool]:
    """The rows of an old file as far as they can be read, and whether it is as this module writes it.

    A last line without its end, and rows after the last epoch of `history`, are what a killed run leaves.
    """
    if not _is_file(path):
        return [], not os.path.lexists(path)
    try:
        lines = content(path).decode("utf-8").split("\n")[:-1]
        fields, *table = list(csv.reader(lines, strict=True)) or [["epoch"]]
    except (ValueError, csv.Error):
        return [], False
    known = {"epoch", "step", "seconds", *history}
    strange = [field for field in fields if field not in known and not field.startswith("baseline_")]
    if len(fields) != len(set(fields)) or fields[:1] != ["epoch"] or (history and strange):
        return [], False
    rows: list[dict[str, str]] = []
    for n, values in enumerate(table):
        row = dict(zip(fields, values, strict=False))
        if len(values) != len(fields) or row.get("epoch") != str(n + 1):
            return rows, False
        for name, wanted in history.items():
            if name in row and n < len(wanted) and not _is_same(row[name], wanted[n]):
                return rows, False
        rows.append(row)
    return rows, True


def _is_same(text: str, value: float) -> bool:
    try:
        found = float(text or "nan")
    except ValueError:
        return False
    return found == value or (math.isnan(found) and math.isnan(value))
