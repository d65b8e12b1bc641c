"""A Sphinx extension that runs each page in an empty folder of its own, as a reader runs its download.

A page that reads files of the repository names them in its front matter, separated by spaces:

    files: tests/golden/k_tf1_adam.npz experiments/common.py

The folder holds them under the same names without ``tests/golden/``, and so does the page's download.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import myst_nb.core.execute.direct
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


def files_of(source: str) -> dict[str, Path]:
    """The files that a page reads: from the name in its folder to the path in the repository."""
    front = FRONT_MATTER.match(source)
    listed = re.search(r"^files: (.*)$", front[1], re.MULTILINE) if front else None
    return {name.removeprefix("tests/golden/"): ROOT / name for name in (listed[1].split() if listed else ())}


class PageFolder(tempfile.TemporaryDirectory):  # type: ignore[type-arg]  # a class for the type checker alone
    """A temporary folder with the files of the page that was read last."""

    files: ClassVar[dict[str, Path]] = {}

    def __enter__(self) -> str:
        folder = super().__enter__()
        for name, path in self.files.items():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        return folder


def choose_files(app: Sphinx, docname: str, source: list[str]) -> None:
    """Remember the files of the page that is about to be read and run."""
    PageFolder.files = files_of(source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx, and let MyST-NB make our folders."""
    myst_nb.core.execute.direct.TemporaryDirectory = PageFolder
    app.connect("source-read", choose_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
