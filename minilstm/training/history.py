"""Write history.csv: one row an epoch, on disk before the next epoch begins."""

from __future__ import annotations

import csv
import io
import os
from typing import Any

from .. import files


class HistoryFile:
    """Append the newest entries of a history to ``history.csv`` in `directory`; without one, do nothing.

    `epoch` is the last one that the checkpoint holds: on resume, later rows are dropped. Each of `constants` becomes a
    column with the same value in every row: the losses of trivial forecasts.
    """

    def __init__(
        self, directory: str | os.PathLike[str] | None, epoch: int, constants: dict[str, float] | None = None
    ) -> None:
        self.constants = {f"baseline_{name}": value for name, value in (constants or {}).items()}
        self.path = None if directory is None else os.path.join(directory, "history.csv")
        self.fields: list[str] | None = None
        if self.path is None or not os.path.exists(self.path):
            return
        with open(self.path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if (row.get("epoch") or "").isdigit()]
        kept = [row for row in rows if int(row["epoch"]) <= epoch]
        if kept:
            self.fields = list(kept[0])
            files.write_text(self.path, _as_csv(self.fields, kept, header=True))
        else:
            files.remove(self.path)

    def append(self, epoch: int, step: int, history: dict[str, list[float]], seconds: float) -> None:
        """Write the row of an epoch: its number (from 1), the step, the last entries of `history`, the seconds."""
        if self.path is None:
            return
        latest = {name: repr(values[-1]) for name, values in history.items()}
        row = {"epoch": epoch, "step": step, **latest, **self.constants, "seconds": f"{seconds:.3f}"}
        header = self.fields is None
        self.fields = self.fields or list(row)
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        with open(self.path, "a", newline="") as file:
            file.write(_as_csv(self.fields, [row], header))
            file.flush()
            os.fsync(file.fileno())


def _as_csv(fields: list[str], rows: list[dict[str, Any]], header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, restval="", extrasaction="ignore", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
