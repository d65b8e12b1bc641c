"""The results of a sweep: a CSV file with a row for each run, written as the runs end.

A row is one line, appended and flushed to the disk, so that a sweep that is killed loses nothing it has written. What
a kill tore, the last line without its end, is dropped when the file is opened again.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minilstm import files

COLUMNS = ("command", "status", "seconds", "message")  # first; then the flags as --flag, then the numbers by name
OK, FAILED = "ok", "failed"

Row = dict[str, str]


class Results:
    """The file's rows, in the order in which the runs ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: list[str] = list(COLUMNS)
        self.rows: list[Row] = []
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole:
            reader = csv.DictReader(io.StringIO(whole.decode(), newline=""))
            self.header, self.rows = list(reader.fieldnames or ()), list(reader)
            if self.header[: len(COLUMNS)] != list(COLUMNS):
                raise ValueError(f"{path}: wanted a sweep's results, got the columns {', '.join(self.header)}")
        if whole != data or not whole:
            self._write_all()

    def append(self, values: Mapping[str, Any]) -> None:
        """Add a row. A column that is new is put behind the others, which writes the file anew."""
        row = {name: str(value) for name, value in values.items()}
        broken = [name for name, text in row.items() if len(text.splitlines()) > 1]
        if broken:  # a line that a kill tears would not be seen to be torn
            raise ValueError(f"{self.path}: a row is one line of text, got line breaks in {', '.join(broken)}")
        self.rows.append(row)
        new = [name for name in row if name not in self.header]
        if new:
            self.header += new
            self._write_all()
            return
        with open(self.path, "ab") as file:
            file.write(self._lines([self._cells(row)]).encode())
            file.flush()
            os.fsync(file.fileno())

    def latest(self) -> dict[str, Row]:
        """The newest row of each command."""
        return {row["command"]: row for row in self.rows}

    def _write_all(self) -> None:
        rows = [self.header, *map(self._cells, self.rows)]
        files.write_text(str(self.path), self._lines(rows))

    def _cells(self, row: Row) -> list[str]:
        return [row.get(name) or "" for name in self.header]

    @staticmethod
    def _lines(rows: Iterable[list[str]]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()


def numbers(results: Any, prefix: str = "") -> dict[str, float]:
    """The numbers of nested results under one name each, ``{"arv": {"lstm": 0.1}}`` as ``{"arv/lstm": 0.1}``."""
    if isinstance(results, Mapping):
        found: dict[str, float] = {}
        for key, value in results.items():
            found.update(numbers(value, f"{prefix}/{key}" if prefix else str(key)))
        return found
    is_number = isinstance(results, int | float) and not isinstance(results, bool)
    return {prefix: results} if is_number and prefix else {}
