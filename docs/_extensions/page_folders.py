"""A Sphinx extension that decides in which folder a page's cells run.

A chapter runs in its own folder, where a reader of a clone would run it too. All other pages run in a temporary folder:
those on how to do something save runs and files.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

IN_THEIR_FOLDER = ("tutorial/",)


def choose_folder(app: Sphinx, docname: str, source: list[str]) -> None:
    """Set MyST-NB's option for the page that is read next."""
    app.env.mystnb_config.execution_in_temp = not docname.startswith(IN_THEIR_FOLDER)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("source-read", choose_folder)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
