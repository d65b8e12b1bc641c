"""The text of the ``checkpoint`` file: which checkpoints a folder holds, and which of them is the latest.

A protocol buffer's text form, one field a line, in this order:

    model_checkpoint_path: "run.ckpt-50"
    all_model_checkpoint_paths: "run.ckpt-30"         one line for each, the oldest first
    all_model_checkpoint_timestamps: 1700000000.25    one line for each, or none
    last_preserved_timestamp: 1000000000.0            at most one
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from minilstm.tensorbundle.errors import CheckpointError


class StateText(NamedTuple):
    """The fields of a state file, paths as they are spelled there."""

    model_checkpoint_path: str = ""
    all_model_checkpoint_paths: tuple[str, ...] = ()
    all_model_checkpoint_timestamps: tuple[float, ...] = ()
    last_preserved_timestamp: float | None = None


# Writing

_ESCAPES = {octet: f"\\{octet:03o}" for octet in (*range(0x20), 0x7F)}
_ESCAPES |= {0xDC00 + octet: f"\\{octet:03o}" for octet in range(0x80, 0x100)}  # bytes of names that are not UTF-8
_ESCAPES |= str.maketrans({"\n": r"\n", "\t": r"\t", "\r": r"\r", '"': r"\"", "'": r"\'", "\\": r"\\"})


def format_state(state: StateText) -> bytes:
    """The bytes of a state file."""
    lines = [f"model_checkpoint_path: {_quoted(state.model_checkpoint_path)}"]
    lines += [f"all_model_checkpoint_paths: {_quoted(path)}" for path in state.all_model_checkpoint_paths]
    lines += [f"all_model_checkpoint_timestamps: {time!r}" for time in state.all_model_checkpoint_timestamps]
    if state.last_preserved_timestamp is not None:
        lines.append(f"last_preserved_timestamp: {state.last_preserved_timestamp!r}")
    return "".join(line + "\n" for line in lines).encode("utf-8")


def _quoted(path: str) -> str:
    return f'"{path.translate(_ESCAPES)}"'


# Reading

_SPACE = re.compile(rb"(?:[ \t\r\n\f\v]|#[^\n]*)*")
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(rb"[-+]?(?:inf|nan|[0-9.][0-9.eE]*(?:(?<=[eE])[-+][0-9]+)?)f?")
_STRING = re.compile(rb"\"(?:[^\"\\\n]|\\[^\n])*\"|'(?:[^'\\\n]|\\[^\n])*'")
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_ESCAPED = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_ESCAPED |= {quote: quote for quote in (b"\\", b"'", b'"', b"?")}


def parse_state(data: bytes) -> StateText:
    """Read the bytes of a state file.

    Accepts what protocol buffers accept: either quote, escapes, ``#`` comments, ``[a, b]`` lists, adjacent strings
    joined, several fields on a line. If a single field is given twice, the last one counts.

    Raises
    ------
    CheckpointError
        If they are not a state file, or no latest checkpoint is named.
    """
    return _Parser(data).state()


class _Parser:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def state(self) -> StateText:
        state: dict[str, list[Any]] = {name: [] for name in StateText._fields}
        while self._skip_space() < len(self._data):
            name = self._take(_NAME, "the name of a field").decode("ascii")
            if name not in state:
                raise self._error(f"the field {name!r} is none of {list(state)}")
            if not self._is_at(b":"):
                raise self._error(f"no ':' after {name}")
            self._skip(b":")
            if name.startswith("all_") and self._is_at(b"["):
                self._skip(b"[")
                while not self._is_at(b"]"):
                    state[name].append(self._value(name))
                    if not self._is_at(b",", b"]"):
                        raise self._error("a list without its ']'")
                    self._skip(b",")
                self._skip(b"]")
            else:
                state[name].append(self._value(name))
            self._skip(b",", b";")
        newest, paths, times, preserved = state.values()
        if not newest:
            raise CheckpointError("no model_checkpoint_path in it")
        return StateText(newest[-1], tuple(paths), tuple(times), preserved[-1] if preserved else None)

    def _value(self, name: str) -> str | float:
        if "timestamp" in name:
            number = self._take(_NUMBER, "a number")
            try:
                return float(number.removesuffix(b"f") if number[-2:] != b"nf" else number)
            except ValueError:
                raise self._error(f"{number!r} is no number") from None
        joined = self._unquoted(self._take(_STRING, "a string"))
        while self._is_at(b'"', b"'"):
            joined += self._unquoted(self._take(_STRING, "a string"))
        return os.fsdecode(joined)

    def _unquoted(self, quoted: bytes) -> bytes:
        return _ESCAPE.sub(self._unescaped, quoted[1:-1])

    def _unescaped(self, match: re.Match[bytes]) -> bytes:
        octal, hexadecimal, short, long, letter = match.groups()
        if letter is not None:
            if letter not in _ESCAPED:
                raise self._error(f"the escape \\{letter.decode('latin-1')}")
            return _ESCAPED[letter]
        code = int(octal, 8) if octal else int(hexadecimal or short or long, 16)
        if octal or hexadecimal:
            if code > 0xFF:
                raise self._error(f"the escape of a byte {code}")
            return bytes([code])
        try:
            return chr(code).encode("utf-8")
        except (ValueError, OverflowError):  # a surrogate, or beyond the last character
            raise self._error(f"the escape of a character {code:#x}") from None

    def _skip_space(self) -> int:
        match = _SPACE.match(self._data, self._at)
        assert match is not None  # the pattern matches an empty text too
        self._at = match.end()
        return self._at

    def _is_at(self, *symbols: bytes) -> bool:
        return self._data.startswith(symbols, self._skip_space())

    def _skip(self, *symbols: bytes) -> None:
        """Skip one of these symbols, each a single byte, if it is next."""
        self._at += self._is_at(*symbols)

    def _take(self, pattern: re.Pattern[bytes], wanted: str) -> bytes:
        match = pattern.match(self._data, self._skip_space())
        if match is None:
            raise self._error(f"{self._data[self._at : self._at + 20]!r} where {wanted} belongs")
        self._at = match.end()
        return match[0]

    def _error(self, message: str) -> CheckpointError:
        line = self._data.count(b"\n", 0, self._at) + 1
        return CheckpointError(f"line {line}: {message}")
