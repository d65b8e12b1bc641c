"""The results of a sweep: a CSV file with a row for each run, written when the run ends.

A row is one line, appended and flushed to the disk, so a killed sweep keeps all rows that it has written. If a kill
tears the last line, the line has no end, and it is dropped when the file is opened again.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minilstm.params import flatten_names

from .. import common

COLUMNS = ("command", "status", "seconds", "message")  # first; then the flags as --flag, then the numbers
OK, FAILED = "ok", "failed"

Row = dict[str, str]


class Results:
    """The rows of the file, in the order in which the runs ended."""

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
        """Add a row. A new column comes after the others; for that the file is written again."""
        row = {name: str(value) for name, value in values.items()}
        broken = [name for name, text in row.items() if len(text.splitlines()) > 1]
        if broken:  # a torn row could then not be recognised
            raise ValueError(f"{self.path}: a row is one line of text, got line breaks in {', '.join(broken)}")
        self.rows.append(row)
        new = [name for name in row if name not in self.header]
        if new:
            self.header += new
            self._write_all()
            return
        with open(self.path, "ab") as file:
            file.write(common.csv_text([self._cells(row)]).encode())
            file.flush()
            os.fsync(file.fileno())

    def latest(self) -> dict[str, Row]:
        """The newest row of each command."""
        return {row["command"]: row for row in self.rows}

    def _write_all(self) -> None:
        common.write_csv(self.path, self.header, map(self._cells, self.rows))

    def _cells(self, row: Row) -> list[str]:
        return [row.get(name) or "" for name in self.header]


def numbers(results: Any) -> dict[str, float]:
    """The numbers in nested results by their paths: ``{"arv": {"lstm": 0.1}}`` gives ``{"arv/lstm": 0.1}``."""
    flat = flatten_names(results)
    return {path: x for path, x in flat.items() if path and isinstance(x, int | float) and not isinstance(x, bool)}
