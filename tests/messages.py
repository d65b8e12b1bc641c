"""Read every error that a test provokes: does it say who speaks, and about what?

conftest.py passes each error that `pytest.raises` catches to `fault_of`. So the message of each error that the suite
knows has been read.
"""

import ast
import re
import traceback
from pathlib import Path

import minilstm

PACKAGE = Path(minilstm.__file__).parent
CHECKED = (ValueError, TypeError, AttributeError, IndexError, KeyError)
# Modules whose errors get their beginning from the caller, when a test calls them directly: the parts of the checkpoint
# format (the reader adds the path and the tensor), trees, and names.
INNER = {
    "tensorbundle.errors", "tensorbundle.index", "tensorbundle.proto", "tensorbundle.slices", "tensorbundle.snappy",
    "tensorbundle.state_text", "tensorbundle.strings", "tensorbundle.table", "tensorbundle.varint",
    "tensorbundle.wire", "params", "checkpoint.names", "reading.jsontext", "reading.limits", "reading.discipline",
    "export.arrays", "export.object_graph", "export.infer",
}  # fmt: skip


def _names():
    """All names of functions, methods and classes of the package."""
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


# "export" and "bptt" begin the name of a module with its function, SRC and DST are arguments of the command line, and
# "here" is what tests call themselves ("test" too); "forecast" is a function of an experiment.
OTHERS = {"contiguous_batches", "bptt", "export", "SRC", "DST", "here", "test", "forecast"}
NAMES = _names() | set(minilstm.tensorbundle.__all__) | OTHERS
WHO = re.compile(r"^(?:minilstm\.)?(\w+)(?:\.\w+)*(?:\(\))?(?::|,| )")
PATH = re.compile(r"^(?:[\w.]+:? )?['\"]?[\w.\-]*/\S+")
WHAT = re.compile(r"'[^']+'|\w+=")  # the name of a layer, a key or a tensor; an option with its value


def fault_of(error):
    """What is wrong with the message of an error that minilstm raised; None if nothing is."""
    frames = [(Path(frame.f_code.co_filename), frame) for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [(path, frame) for path, frame in frames if path.is_relative_to(PACKAGE)]
    if not isinstance(error, CHECKED) or not own or not frames[-1][0].is_relative_to(PACKAGE):
        return None
    module = ".".join(own[0][0].relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if module in INNER or module.startswith("fast") or PATH.match(text):
        return None
    who = WHO.match(text)
    if not who or who[1] not in NAMES:
        return f"does not begin with a function or a file: {text!r}"
    if who[1] in ("SRC", "DST", "here", "test", "forecast") or " needs " in text:  # a package that is missing
        return None
    words = {"params", "parameters"}
    for _, frame in own:
        code = frame.f_code
        words |= set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + 2])
        words |= set(code.co_freevars)
        words |= set(getattr(frame.f_locals.get("self"), "__dataclass_fields__", ()))
    if not WHAT.search(text) and not any(re.search(rf"\b{re.escape(word)}", text[who.end() :]) for word in words):
        return f"names no argument: {text!r}"
    return None
