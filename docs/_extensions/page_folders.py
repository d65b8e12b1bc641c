"""A Sphinx extension that chooses the folder in which the cells of a page run.

A chapter runs in its own folder, as it does for a reader with a clone. All other pages run in a temporary folder,
because the how-to pages save runs and files.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

IN_THEIR_FOLDER = ("tutorial/",)


def choose_folder(app: Sphinx, docname: str, source: list[str]) -> None:
    """Set MyST-NB's option for the page that is about to be read."""
    app.env.mystnb_config.execution_in_temp = not docname.startswith(IN_THEIR_FOLDER)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("source-read", choose_folder)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
