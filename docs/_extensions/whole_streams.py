"""Sphinx extension: what a cell prints is one block, with its lines whole.

A kernel sends what a cell prints in pieces that may end in the midst of a line, and MyST-NB's ``nb_merge_streams`` puts
a line break behind every piece. This joins them as they are, before anything is rendered.
"""

from __future__ import annotations

from typing import Any

import myst_nb.core.render
from myst_nb.core.utils import coalesce_streams


def join_pieces(outputs: list[Any]) -> list[Any]:
    """The outputs of a cell with all pieces of one stream joined into its first."""
    joined: list[Any] = []
    streams: dict[str, Any] = {}
    for output in outputs:
        stream = streams.get(output["name"]) if output["output_type"] == "stream" else None
        if stream is not None:
            stream["text"] += output["text"]
            continue
        if output["output_type"] == "stream":
            output = streams[output["name"]] = output.copy()
        joined.append(output)
    return coalesce_streams(joined)


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    myst_nb.core.render.coalesce_streams = join_pieces
    return {"version": "1", "parallel_read_safe": True}
