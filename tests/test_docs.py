"""The documentation describes every public name, a test runs every block of code, and every example is true.

tests/site needs Sphinx and Chromium. It tests how a browser shows the pages.
"""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import minilstm

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted((path for path in DOCS.rglob("*.md") if path.parent.name != "measured"), key=str)
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(minilstm.__path__, "minilstm.")
    if module.name.rpartition(".")[2] != "__main__"
)
NEED_NUMBA = {f"minilstm.fast.compiled.{name}" for name in ("functions", "adam", "tile", "workspace", "dense", "gru")}
IMPORTABLE = [name for name in MODULES if name not in NEED_NUMBA or importlib.util.find_spec("numba")]
DIRECTIVE = re.compile(
    r"^\.\. (automodule|currentmodule|auto(?:class|function)):: (\S+)\n((?:   :.*\n)*)", re.MULTILINE
)


# --- every public name has an entry in the reference ----------------------------------------------------------


def public_names(module_name):
    """The names of a module's own classes and functions, and for a package also those in its ``__all__``."""
    module = importlib.import_module(module_name)
    names = set(getattr(module, "__all__", ()))
    for name, value in vars(module).items():
        if (inspect.isclass(value) or inspect.isroutine(value)) and not name.startswith("_"):
            defined = getattr(value, "fun", value)  # an autograd primitive wraps a function
            if getattr(defined, "__module__", None) == module_name:
                names.add(name)
    return names


def described_names():
    """The set of full names that the pages in docs/reference describe, and the modules that have a section."""
    names, modules = set(), []
    for page in sorted((DOCS / "reference").glob("*.md")):
        current = ""
        for kind, target, options in DIRECTIVE.findall(page.read_text()):
            if kind == "automodule":
                modules.append(target)
                listed = re.search(r":members:(.*)", options)
                excluded = re.search(r":exclude-members:(.*)", options)
                if listed:
                    own = public_names(target) if target in IMPORTABLE else set()
                    members = set(re.findall(r"\w+", listed[1])) or own
                    members -= set(re.findall(r"\w+", excluded[1] if excluded else ""))
                    names |= {f"{target}.{member}" for member in members}
            elif kind == "currentmodule":
                current = target
            else:
                names.add(f"{current}.{target}")
    return names, modules


def home(module_name, name):
    """The module whose section describes a name: the package that re-exports it, or the module that defines it."""
    for package in ("minilstm.layers", "minilstm.tensorbundle", "minilstm.checkpoint", "minilstm.training"):
        if module_name.startswith(package + "."):
            value = getattr(importlib.import_module(module_name), name)
            if any(value is other for other in vars(importlib.import_module(package)).values()):
                return package
    return module_name


def test_every_module_has_one_section_in_the_reference():
    modules = described_names()[1]
    assert sorted(set(modules)) == sorted(modules)
    plain = {"minilstm.layers.recurrent", "minilstm.layers.feedforward", "minilstm.layers.bidirectional",
             "minilstm.layers.sequential"}  # fmt: skip  described in the section of minilstm.layers
    assert set(MODULES) - plain == set(modules)


@pytest.mark.parametrize("module_name", IMPORTABLE)
def test_every_public_name_is_in_the_reference(module_name):
    described = described_names()[0]
    missing = []
    for name in public_names(module_name):
        place = home(module_name, name)
        value = getattr(importlib.import_module(module_name), name)
        aliases = {alias for alias, other in vars(importlib.import_module(place)).items() if other is value}
        if not any(f"{place}.{alias}" in described for alias in aliases):
            missing.append(name)
        assert inspect.getdoc(value), f"{module_name}.{name} has no docstring and would be left out"
    assert missing == []


def test_everything_that_is_described_exists():
    for full_name in described_names()[0]:
        module_name, _, name = full_name.rpartition(".")
        if module_name in MODULES and module_name not in IMPORTABLE:
            continue
        assert hasattr(importlib.import_module(module_name), name), full_name


# --- every example runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("module_name", IMPORTABLE)
def test_the_examples_in_docstrings_are_true(module_name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(module_name))
    assert result.failed == 0


def test_there_are_examples_in_docstrings():
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [test for name in IMPORTABLE for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(examples) >= 20


# --- every block of code is a cell, or a test runs it ---------------------------------------------------------

FENCE = re.compile(r"^(?P<ticks>`{3,}|:{3,})(?P<language>[^\n`]+)\n(?P<text>.*?)^(?P=ticks)$", re.MULTILINE | re.DOTALL)
# (page, language of the fence) -> (file, part of the name) of the test that runs those blocks.
RUN_BY = {
    ("README.md", "python"): ("tests/test_readme.py", "test_every_python_block_is_run_here"),
    ("docs/howto/export.md", "python"): ("tests/interop/test_howto_pages.py", "exporting"),
    ("docs/howto/export.md", "bash"): ("tests/interop/test_howto_pages.py", "exporting"),
    ("docs/howto/load_tensorflow.md", "python"): ("tests/interop/test_howto_pages.py", "loading"),
    ("docs/howto/sweep.md", "bash"): ("tests/interop/test_howto_pages.py", "sweeps_runs_on_dask"),
}


def code_fences(path):
    """Yield (language, text) of every block that is neither a cell nor a directive."""
    for fence in FENCE.finditer(path.read_text()):
        language = fence["language"].strip()
        if not language.startswith("{"):
            yield language, fence["text"]


def test_every_block_of_code_is_run():
    found = set()
    for path in [ROOT / "README.md", *PAGES]:
        page = str(path.relative_to(ROOT))
        found |= {(page, language) for language, _ in code_fences(path) if language != "text"}
    assert found == set(RUN_BY)
    for file, name in RUN_BY.values():
        assert re.search(rf"^def \w*{name}\w*\(", (ROOT / file).read_text(), re.MULTILINE), name


def test_the_commands_of_the_readme_are_those_that_ci_runs():
    """Each block without a language comes after a marker that .ci/run looks for."""
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    marked = re.findall(r"^<!-- ci: (\w+) -->\n```\n", readme, flags=re.MULTILINE)
    fences = [line for line in readme.splitlines() if line.startswith("```")]
    assert marked == ["run", "test"]
    assert fences[::2].count("```") == len(marked)
    assert all(f"readme_line {name}" in ci for name in marked)


CELL = re.compile(
    r"^```\{code-cell\}[^\n]*\n(?P<options>---\n.*?\n---\n|(?::[^\n]*\n)+)?(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
COLUMNS = 76  # a line of a cell that a screen of 1280 pixels shows whole


def test_no_line_of_a_shown_cell_is_too_long():
    long = []
    for path in PAGES:
        for cell in CELL.finditer(path.read_text()):
            if not re.search("remove-(input|cell)", cell["options"] or ""):
                lines = cell["code"].splitlines()
                long += [f"{path.name}: {line}" for line in lines if len(line) > COLUMNS]
    assert long == []


def test_a_page_that_runs_an_experiment_carries_its_files():
    """A download of it has no repository around it; pages of other folders offer none."""
    for path in (path for path in PAGES if path.parent.name in ("tutorial", "howto", "exercises")):
        text = path.read_text()
        cells = "".join(cell["code"] for cell in CELL.finditer(text))
        for name in re.findall(r"(?:from |-m )experiments\.(\w+)", cells):
            carried = re.search(r"^files: .*experiments/__init__.py.*$", text, re.MULTILINE)
            assert carried, path
            assert f"experiments/{name}" in carried[0], path


def test_the_questions_are_listed_first():
    text = (DOCS / "questions.md").read_text()
    listed = re.findall(r"^- \[(.*)\]\(#.*\)$", text, re.MULTILINE)
    assert listed == re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert text.index("- [") < text.index("```{code-cell}")


def test_the_parts_of_a_chapter_are_there():
    """What a reader will be able to do, three lines at the end, and at least three exercises with answers."""
    chapters = sorted((DOCS / "tutorial").glob("*.md"))
    assert len(chapters) >= 11
    for path in chapters:
        text = path.read_text()
        number = path.stem.removeprefix("appendix_")[0].upper() if "appendix" in path.stem else str(int(path.stem[:2]))
        title = re.search(r"^# (?:Appendix )?(\w+)\. ", text, re.MULTILINE)
        assert title, path
        assert title[1] == number, path
        assert ":::{admonition} After this chapter you can" in text, path
        summary = re.search(r"^## In three lines\n\n((?:- .*\n)+)\n", text, re.MULTILINE)
        assert summary, path
        assert summary[1].count("\n") == 3, path
        exercises = text[text.index("\n## Exercises\n"):]
        numbers = re.findall(rf"^\*\*{number}\.(\d)\*\*", exercises, re.MULTILINE)
        assert numbers == [str(k + 1) for k in range(len(numbers))], path
        assert 3 <= len(numbers) <= 5, path
        answers = exercises.count('<details class="answer">') + exercises.count('code_prompt_show: "Answer"')
        assert answers + exercises.count("In code:") == len(numbers), path


def test_no_page_has_indented_code():
    """Markdown also takes indented lines for code, and no test would run them."""
    for path in PAGES:
        text = FENCE.sub("", path.read_text())
        blocks = re.findall(r"\n\n((?: {4}\S.*\n)+)", text)
        assert not [block for block in blocks if not block.lstrip().startswith(("-", "1."))], path


def test_the_first_page_shows_the_first_lines_of_the_readme():
    """All lines except the last, which saves the picture in the README and shows it on the page."""
    readme = next(text for language, text in code_fences(ROOT / "README.md") if language == "python").splitlines()
    index = (DOCS / "index.md").read_text()
    assert "\n".join(readme[:-1]) in index
    assert readme[-1] == 'plotting.save(ax, "forecast.png")'


def test_measured_numbers_say_where_they_come_from():
    import json

    for name in ("suite.json", "interop.json", "second_products.json", "recompute.json"):
        measured = json.loads((DOCS / "measured" / name).read_text())
        assert measured["command"].startswith("python docs/measure.py")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", measured["date"])
        if "files" not in measured:
            continue
        assert sum(counted["passed"] for counted in measured["files"].values()) > 20
    assert re.match(r"\d{4}-\d\d-\d\d, ", (DOCS / "measured" / "benchmark.md").read_text())
