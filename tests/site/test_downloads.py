"""The notebooks and scripts that the pages offer for download run in an empty folder, with only the package, twice."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import SITE

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(SITE) / "_downloads" / "pages"
OFFERED = [*FOLDER.rglob("*.py"), *FOLDER.rglob("*.zip")]
PAGES = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in OFFERED)


def unpack(name, folder):
    """Put what a reader downloads of one page into `folder`, and return the path of its script."""
    script = folder / f"{Path(name).name}.py"
    archive = FOLDER / f"{name}.zip"
    if archive.exists():
        with zipfile.ZipFile(archive) as files:
            files.extractall(folder)
    else:
        for ending in (".py", ".ipynb"):
            script.with_suffix(ending).write_bytes((FOLDER / f"{name}{ending}").read_bytes())
    return script


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The variables of a process that finds minilstm, and nothing else of the repository."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "minilstm").symlink_to(ROOT / "minilstm")
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    return {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(folder), "OPENBLAS_NUM_THREADS": "1", "PATH": path}


def python(arguments, folder, environment):
    """The standard output of a Python process, which must end well."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_chapter_and_how_to_page_with_cells_is_offered():
    cells = [path for room in ("tutorial", "howto", "exercises") for path in (ROOT / "docs" / room).glob("*.md")
             if "file_format: mystnb" in path.read_text()[:400]]  # fmt: skip
    wanted = sorted(str(path.relative_to(ROOT / "docs").with_suffix("")) for path in cells)
    assert wanted == PAGES
    assert len(cells) > 15


def test_the_experiments_are_not_found_without_the_download(tmp_path, environment):
    """Otherwise the tests below would pass for a reader who has a clone, and for no other."""
    code = "from importlib.util import find_spec; print(find_spec('minilstm').origin, find_spec('experiments'))"
    assert python(["-c", code], tmp_path, environment).strip().endswith("None")


@pytest.mark.parametrize("name", PAGES)
def test_the_notebook_has_the_cells_of_the_script(name, tmp_path):
    notebook = json.loads(unpack(name, tmp_path).with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    script = unpack(name, tmp_path).read_text(encoding="utf-8")
    assert code
    for source in code:
        assert source in script or re.match(r"%%(bash|writefile)", source), source


@pytest.mark.parametrize("name", PAGES)
def test_a_download_runs_twice_in_an_empty_folder(name, tmp_path, environment):
    script = unpack(name, tmp_path)
    for _ in range(2):
        python([script.name], tmp_path, environment)
