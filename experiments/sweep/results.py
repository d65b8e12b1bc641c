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

from minilstm import reading
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
        data = reading.content(path) if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole:
            with reading.reading(path):
                self.header, self.rows = parsed(whole.decode())
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


def parsed(text: str) -> tuple[list[str], list[Row]]:
    """The columns and the rows of a sweep's file; ValueError, with the number of the line, if it is not one."""
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(lines)
        if header[: len(COLUMNS)] != list(COLUMNS) or len(set(header)) != len(header):
            raise ValueError(f"wanted a sweep's results, got the columns {', '.join(header)}")
        rows = []
        for cells in lines:
            row = dict(zip(header, cells, strict=False))
            if len(cells) != len(header) or row["status"] not in (OK, FAILED) or not _are_numbers(row):
                raise ValueError(f"line {lines.line_num} is damaged: repair or remove it, or start with --no-resume")
            rows.append(row)
    except csv.Error as error:
        raise ValueError(f"line {lines.line_num} is damaged: {error}") from error
    return header, rows


def is_result(column: str) -> bool:
    """Whether a column holds numbers of the experiment: it is none of the sweep's own, and no flag."""
    return column not in COLUMNS and not column.startswith("--")


def _are_numbers(row: Row) -> bool:
    try:
        return all(text == "" or float(text) is not None for name, text in row.items() if is_result(name))
    except ValueError:
        return False


def numbers(results: Any) -> dict[str, float]:
    """The numbers in nested results by their paths: ``{"arv": {"lstm": 0.1}}`` gives ``{"arv/lstm": 0.1}``.

    A path that is the name of a column of the sweep, or looks like a flag, gets ``results/`` in front of it. Raises
    ValueError for two paths that would be one column, and for one that cannot be in a line of text.
    """
    flat = flatten_names(results)
    found: dict[str, float] = {}
    for path, x in flat.items():
        if path and isinstance(x, int | float) and not isinstance(x, bool):
            column = path if is_result(path) else f"results/{path}"
            if column in found or (column != path and column in flat):
                raise ValueError(f"two results would be in the column {column!r}")
            if len(column.splitlines()) > 1 or not column.isprintable():
                raise ValueError(f"the name of a result must be one line of text, got {column!r}")
            found[column] = x
    return found
