"""A Sphinx extension that joins the output of a cell into one block with whole lines.

Jupyter sends the output in pieces, and a piece can end within a line. MyST-NB's ``nb_merge_streams`` adds a line break
after every piece. This extension joins the pieces without changes, before they are rendered.
"""

from __future__ import annotations

from typing import Any

import myst_nb.core.render
from myst_nb.core.utils import coalesce_streams


def join_pieces(outputs: list[Any]) -> list[Any]:
    """The outputs of a cell, with all pieces of a stream joined into its first piece."""
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
    """Replace MyST-NB's function with ours."""
    myst_nb.core.render.coalesce_streams = join_pieces
    return {"version": "1", "parallel_read_safe": True}
