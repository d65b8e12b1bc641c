"""The names that `from minilstm import ...` provides."""

import inspect
import re
from pathlib import Path

import pytest

import minilstm
from minilstm import data, initializers, losses, schedules

CONTRACT = """LSTM RNN LSTMCell BasicLSTMCell LSTMState Dense Embedding Dropout Sequential Adam SGD Momentum RMSProp
    Adagrad AdamW fit generate predict value_and_grad losses clip_by_global_norm save_checkpoint load_checkpoint
    latest_checkpoint CheckpointError pack_gates split_gates tensorbundle"""


def test_all_names_exist_and_are_sorted_and_unique():
    assert all(hasattr(minilstm, name) for name in minilstm.__all__)
    assert len(set(minilstm.__all__)) == len(minilstm.__all__)
    order = lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name)  # noqa: E731
    assert minilstm.__all__ == sorted(minilstm.__all__, key=order)


def test_the_names_of_the_contract_are_there():
    assert set(CONTRACT.split()) <= set(minilstm.__all__)


def test_all_lists_everything_that_is_imported_and_nothing_is_defined_here():
    public = {
        name for name, value in vars(minilstm).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public <= set(minilstm.__all__)
    for name in public:
        module = getattr(getattr(minilstm, name), "__module__", "minilstm.")
        assert module != "minilstm", f"{name} is defined in __init__"


def documented():
    for name in minilstm.__all__:
        if not name.startswith("_"):
            yield name, getattr(minilstm, name)
    for module in (data, initializers, losses, schedules):
        for name, value in vars(module).items():
            if inspect.isroutine(value) and value.__module__ == module.__name__ and not name.startswith("_"):
                yield f"{module.__name__}.{name}", value
    for name in minilstm.__all__:
        if inspect.isclass(getattr(minilstm, name)):
            for method, value in vars(getattr(minilstm, name)).items():
                if inspect.isfunction(value) and not method.startswith("_"):
                    yield f"{name}.{method}", value


@pytest.mark.parametrize(("name", "value"), list(documented()), ids=lambda x: x if isinstance(x, str) else "")
def test_every_public_name_has_a_docstring_of_its_own(name, value):
    text = value.__doc__ if inspect.isclass(value) else inspect.getdoc(value)
    assert text, name
    assert text.strip(), name
    assert not text.startswith(f"{name}("), f"{name} has only the docstring that a NamedTuple gets by itself"


def test_every_parameter_of_fit_is_in_its_docstring():
    text = inspect.getdoc(minilstm.fit)
    section = text[text.index("Parameters") : text.index("Returns")]
    described = {
        word for line in re.findall(r"^(\w[\w, ]*?)(?: :|$)", section, re.MULTILINE) for word in line.split(", ")
    }
    assert set(inspect.signature(minilstm.fit).parameters) <= described


def test_options_are_keyword_only():
    for cls in (
        minilstm.LSTMCell,
        minilstm.BasicLSTMCell,
        minilstm.RNN,
        minilstm.LSTM,
        minilstm.Dense,
        minilstm.Dropout,
    ):
        first, *others = list(inspect.signature(cls).parameters.values())
        assert first.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert {p.kind for p in others} <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}, cls


def test_the_version_is_a_version_and_the_package_is_typed():
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+|\.dev\d+)?", minilstm.__version__)
    assert (Path(minilstm.__file__).parent / "py.typed").exists()
