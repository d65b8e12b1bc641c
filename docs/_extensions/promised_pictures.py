"""A Sphinx extension that warns where a cell promises a picture and shows none.

A cell promises a picture if its options describe one: ``mystnb: {image: {alt: ...}}``. Without this check a build in
which Matplotlib draws to nowhere would end well, with a site that has no pictures.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def check_pictures(app: Sphinx, doctree: nodes.document) -> None:
    """Warn for every cell of a page that has just been read and lacks its picture."""
    for cell in doctree.findall(nodes.container):
        if cell.get("nb_element") != "cell_code":
            continue
        options = cell.get("cell_metadata", {}).get("mystnb", {})
        if "alt" in options.get("image", {}) and not any(True for _ in cell.findall(nodes.image)):
            logger.warning("this cell describes a picture, but shows none", location=cell, type="picture")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("doctree-read", check_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
