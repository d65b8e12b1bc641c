"""A Sphinx extension that offers every chapter and how-to page as a Jupyter notebook and as a Python script.

The build makes both from the text of the page, and links them below its title.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
from docutils import nodes
from sphinx.application import Sphinx

CHAPTERS = ("tutorial/", "howto/")
FOLDER = "_downloads/pages"
SHOW_FIGURES = "\n# %%\nplt.show()\n"  # a script shows its figures at the end, a notebook below each cell


def is_notebook(source: Path) -> bool:
    """Whether the source of a page is a MyST notebook, according to its front matter."""
    return source.suffix == ".md" and "file_format: mystnb" in source.read_text(encoding="utf-8")[:400]


def write_downloads(source: Path, target: Path) -> None:
    """Write the notebook page `source` as `target`.ipynb and `target`.py."""
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="md:myst")
    target.parent.mkdir(parents=True, exist_ok=True)
    jupytext.write(notebook, target.with_name(target.name + ".ipynb"), fmt="ipynb")
    script = jupytext.writes(notebook, fmt="py:percent")
    if "import matplotlib.pyplot as plt" in script:
        script += SHOW_FIGURES
    target.with_name(target.name + ".py").write_text(script, encoding="utf-8")


def add_downloads(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Write the downloads of a chapter, and a line with links to them below its title."""
    source = Path(app.env.doc2path(docname))
    title = doctree.next_node(nodes.title)
    if app.builder.format != "html" or title is None or not docname.startswith(CHAPTERS) or not is_notebook(source):
        return
    write_downloads(source, Path(app.outdir) / FOLDER / docname)
    base = "../" * docname.count("/") + f"{FOLDER}/{docname}"
    links = " or ".join(f'<a href="{base}{ending}" download>{kind}</a>' for kind, ending in
                        (("notebook", ".ipynb"), ("script", ".py")))  # fmt: skip
    line = nodes.raw("", f'<p class="downloads">Download this page as a {links}.</p>', format="html")
    title.parent.insert(title.parent.index(title) + 1, line)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("doctree-resolved", add_downloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
