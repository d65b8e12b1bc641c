"""Texts from files, as a terminal may show them."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""A text as it may be shown in a terminal: what is no printable character is shown as its escape; lines stay.

    >>> printable("a\x1b[2J\nb")
    'a\\x1b[2J\nb'
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
