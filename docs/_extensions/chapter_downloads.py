"""A Sphinx extension that offers every chapter and how-to page as a Jupyter notebook and as a Python script.

The build makes both from the text of the page, and links them below its title. Both run in an empty folder with only
the package installed, as often as one likes. A page that reads files of the repository is one zip file with them. Any
other page that writes files begins with a new folder.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from docutils import nodes
from page_folders import files_of
from sphinx.application import Sphinx

CHAPTERS = ("tutorial/", "howto/", "exercises/")
FOLDER = "_downloads/pages"
SHOW_FIGURES = "\n# %%\nplt.show()\n"  # a script shows its figures at the end, a notebook below each cell
NEW_FOLDER = '''\
# This page writes files. Each time it starts, it makes a new folder for them.
import os
import tempfile

os.chdir(tempfile.mkdtemp(prefix="{name}-", dir="."))
print("files are written into", os.getcwd())'''
BASH = "subprocess.run(['bash', '-ec', r\'\'\'\n{}\n\'\'\'], check=True)"
WRITE = "Path('{}').write_text(r\'\'\'{}\n\'\'\')"


def is_notebook(source: Path) -> bool:
    """Whether the source of a page is a MyST notebook, according to its front matter."""
    return source.suffix == ".md" and "file_format: mystnb" in source.read_text(encoding="utf-8")[:400]


def writes_files(notebook: Any) -> bool:
    """Whether a cell of the page writes files, by its commands or into a folder of checkpoints."""
    return any(
        cell.cell_type == "code" and re.search(r"^%%|checkpoint_dir|save_\w+\(|^\s*open\(", cell.source, re.MULTILINE)
        for cell in notebook.cells
    )


def without_magics(notebook: Any) -> Any:
    """The same notebook with cells of plain Python where IPython's commands were."""
    cells, used = [], set()
    for cell in notebook.cells:
        magic, _, body = cell.source.partition("\n")
        if cell.cell_type == "code" and magic.startswith("%%bash"):
            used.add("import subprocess")
            cell = nbformat.v4.new_code_cell(BASH.format(body))
        elif cell.cell_type == "code" and magic.startswith("%%writefile "):
            used.add("from pathlib import Path")
            cell = nbformat.v4.new_code_cell(WRITE.format(magic.split()[1], body))
        cells.append(cell)
    if used:
        cells.insert(0, nbformat.v4.new_code_cell("\n".join(sorted(used, reverse=True))))
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def write_downloads(source: Path, target: Path) -> list[tuple[str, str]]:
    """Write the notebook page `source` as `target`.ipynb and `target`.py, or both in a zip file with its files.

    Returns (words of a link, ending of a file) for each file that a reader can download.
    """
    text = source.read_text(encoding="utf-8")
    notebook = jupytext.reads(text, fmt="md:myst")
    notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", ())]
    files = files_of(text)
    if writes_files(notebook) and not files:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(NEW_FOLDER.format(name=target.name)))
    script = jupytext.writes(without_magics(notebook), fmt="py:percent")
    if "import matplotlib.pyplot as plt" in script:
        script += SHOW_FIGURES
    pages = {".ipynb": jupytext.writes(notebook, fmt="ipynb"), ".py": script}
    target.parent.mkdir(parents=True, exist_ok=True)
    if files:
        with zipfile.ZipFile(target.with_name(target.name + ".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            for ending, content in pages.items():
                archive.writestr(target.name + ending, content)
            for name, path in files.items():
                archive.write(path, name)
        return [("notebook and script, with the files that it reads (zip)", ".zip")]
    for ending, content in pages.items():
        target.with_name(target.name + ending).write_text(content, encoding="utf-8")
    return [("notebook", ".ipynb"), ("script", ".py")]


def add_downloads(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Write the downloads of a chapter, and a line with links to them below its title."""
    source = Path(app.env.doc2path(docname))
    title = doctree.next_node(nodes.title)
    if app.builder.format != "html" or title is None or not docname.startswith(CHAPTERS) or not is_notebook(source):
        return
    offered = write_downloads(source, Path(app.outdir) / FOLDER / docname)
    base = "../" * docname.count("/") + f"{FOLDER}/{docname}"
    links = " or ".join(f'<a href="{base}{ending}" download>{kind}</a>' for kind, ending in offered)
    line = nodes.raw("", f'<p class="downloads">Download this page as a {links}.</p>', format="html")
    title.parent.insert(title.parent.index(title) + 1, line)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("doctree-resolved", add_downloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
