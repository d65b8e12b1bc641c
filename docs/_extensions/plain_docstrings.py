"""A Sphinx extension that reads docstrings without markup for Sphinx.

- An indented block after a blank line is a table or code. It keeps its lines, as in the source.
- The docstring of a named tuple describes its fields. autodoc's "Alias for field number 0" is removed.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def keep_indented_blocks(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn every indented block into a literal block, up to the first section (a line of dashes)."""
    kept: list[str] = []
    inside = False
    for n, line in enumerate(lines):
        if line.startswith("---"):
            kept += lines[n:]
            break
        indented = line.startswith("    ")
        if indented and not inside and kept and not kept[-1].strip():
            kept += [".. code-block:: text", ""]
        if line.strip():
            inside = indented
        kept.append(line)
    lines[:] = kept


def skip_tuple_fields(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out members whose only docstring is the one that a named tuple gives its fields."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to autodoc. Blocks are found before napoleon reads the sections."""
    app.connect("autodoc-process-docstring", keep_indented_blocks, priority=400)
    app.connect("autodoc-skip-member", skip_tuple_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
