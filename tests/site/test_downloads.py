"""The notebooks and scripts that the chapters offer for download run unchanged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SITE

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(SITE) / "_downloads" / "pages"
CHAPTERS = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("tutorial/*.py"))


def test_there_are_ten_chapters_and_every_page_has_both_files():
    assert len(CHAPTERS) == 10
    assert {path.with_suffix("") for path in FOLDER.rglob("*.py")} == {
        path.with_suffix("") for path in FOLDER.rglob("*.ipynb")
    }


def test_the_notebooks_are_notebooks():
    for path in FOLDER.rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        assert notebook["nbformat"] == 4
        assert any(cell["cell_type"] == "code" for cell in notebook["cells"]), path
        assert notebook["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapters_script_runs_in_a_clone(name):
    """It runs in the folder of its page, where its relative paths find the repository's data."""
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / f"{name}.py")]
    done = subprocess.run(
        command, cwd=ROOT / "docs" / Path(name).parent, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
