"""JSON from files of unknown origin."""

from __future__ import annotations

import collections
import json
from typing import Any

from .limits import LIMITS, Limits, check_limit


def from_json(text: str | bytes, limits: Limits = LIMITS) -> Any:
    """What a JSON text says.

    Raises ValueError if it is not JSON, says one key of an object twice, or is beyond `limits`: the size is compared
    before anything is made of it.

    >>> from_json('{"a": [1, 2]}')
    {'a': [1, 2]}
    """
    check_limit("a JSON text of {} characters", len(text), limits.text)
    marks: Any = (b"[", b"{", b",") if isinstance(text, bytes) else ("[", "{", ",")
    check_limit("a JSON text of {} values", sum(text.count(mark) for mark in marks), limits.items)
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"JSON that is nested too deeply, the limit is {limits.depth}") from None
    _check_depth(value, limits.depth)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        most, _ = collections.Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"JSON that says {most!r} twice")
    return found


def _check_depth(value: Any, limit: int) -> None:
    level = [value]
    for _ in range(limit + 1):
        inner = [part for part in level if isinstance(part, (dict, list))]
        level = [part for one in inner for part in (one.values() if isinstance(one, dict) else one)]
        if not inner:
            return
    raise ValueError(f"JSON that is nested too deeply, the limit is {limit}")
