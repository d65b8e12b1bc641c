"""Which options of two models differ: only those that change what a model computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LEFT_OUT = {"backprop", "recompute", "name", "initializer", "bias_initializer"}  # the same numbers for given parameters


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Compare two descriptions that `Sequential.config` returned.

    Returns a list of (place, in the first, in the second), empty if both models map given parameters and inputs to the
    same outputs. Names, initializers and the choice of a backward pass do not count.

    >>> from minilstm import LSTM, Sequential
    >>> differences(Sequential(LSTM(4)).config(), Sequential(LSTM(4, forget_bias=0.0, name="a")).config())
    [('layers[0].cell.forget_bias', '1.0', '0.0')]
    """
    return list(_compare(first["layers"], second["layers"], "layers"))


def _compare(first: Any, second: Any, place: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(first, dict) and isinstance(second, dict) and _kind(first) == _kind(second):
        for key in {**first, **second}:
            if key not in LEFT_OUT:
                yield from _compare(first.get(key), second.get(key), f"{place}.{key}")
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for n, pair in enumerate(zip(first, second, strict=True)):
            yield from _compare(*pair, f"{place}[{n}]")
    elif first != second:
        yield place, _shown(first), _shown(second)


def _kind(config: dict[str, Any]) -> Any:
    """The class that a description is of; a layer's own `cell` is a description, a cell's is its class."""
    return next((config[key] for key in ("layer", "cell") if isinstance(config.get(key), str)), None)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return str(_kind(value)) if isinstance(value, dict) else repr(value)
