"""The map in CONTRIBUTING is true: rooms, directions of imports, places."""

import ast
import importlib
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import minilstm

PACKAGE = Path(minilstm.__file__).parent
ROOT = Path(__file__).parent.parent
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path.parent != PACKAGE or path.stem not in ("__init__", "__main__")
}
KNOW_NOTHING_OF_FAST = {"cells", "bptt", "gates", "losses", "params"}
MAY_IMPORT_FAST = {"sequences", "layers", "optimizers", "fast"}


def table(name):
    """The rows of a table of CONTRIBUTING, as lists of cells."""
    block = CONTRIBUTING.split(f"<!-- begin: {name} -->")[1].split(f"<!-- end: {name} -->")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()[2:]]


def room_of(module):
    """The number of the room of a module such as `layers.base`."""
    top = module.split(".")[0]
    found = [n for n, row in enumerate(table("rooms")) if top in re.findall(r"`(\w+)/?`", row[1])]
    assert len(found) == 1, f"{module} must be in one room, is in {found}"
    return found[0]


def imports(module):
    """The modules of minilstm that a module imports, anywhere in its file."""
    package = ["minilstm", *module.split(".")]
    if MODULES[module].name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = [*base, *filter(None, [node.module])]
            names = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "minilstm" and parts[1] != "__version__":
                inner = ".".join(parts[1:])
                yield inner if inner in MODULES else ".".join(parts[1:-1])


def test_every_module_is_in_one_room_and_every_room_has_its_files():
    for module in MODULES:
        room_of(module)
    for row in table("rooms"):
        for file in re.findall(r"`([\w/]+)`", row[1]):
            assert (PACKAGE / file).is_dir() if file.endswith("/") else (PACKAGE / f"{file}.py").is_file(), file


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_to_the_same_room_or_to_one_above(module):
    for other in filter(None, imports(module)):
        assert room_of(other) <= room_of(module), f"{module} imports {other}"


def test_imports_form_no_circle():
    graph = {}
    for module in MODULES:  # a package's own __init__ only hands on names, so it is no node
        if MODULES[module].name != "__init__.py" or module == "fast.compiled":
            graph[module] = {other for other in imports(module) if other in MODULES and other != module}
    list(TopologicalSorter(graph).static_order())


def test_fast_is_known_to_few():
    for module in MODULES:
        top = module.split(".")[0]
        if any(other.split(".")[0] == "fast" for other in imports(module)):
            assert top in MAY_IMPORT_FAST, module
            assert top not in KNOW_NOTHING_OF_FAST, module


def test_the_doors_are_there():
    for _, _, _, door in table("rooms"):
        for file in re.findall(r"`([\w/.]+)`", door):
            assert (PACKAGE / file).is_file(), file


@pytest.mark.parametrize("row", table("places"), ids=lambda row: row[0])
def test_the_places_are_there(row):
    """Each in one hop: the file defines the name, and its first line says what the file holds."""
    file, name = row[1].strip("`"), row[2].strip("`")
    module = importlib.import_module(file.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
    found = module
    for part in name.split("."):
        found = getattr(found, part)
    assert re.search(rf"^(    def|def|class)? ?{name.rpartition('.')[2]}\b", (ROOT / file).read_text(), re.MULTILINE)
    assert module.__doc__


def test_there_are_ten_places():
    assert len(table("places")) >= 10


def test_the_house_stays_small():
    """At most 32 files in the root, none above 350 lines, and half of all files at most 130 lines."""
    lengths = sorted(len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py"))
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 32
    assert lengths[-1] <= 350
    assert lengths[len(lengths) // 2] <= 130
