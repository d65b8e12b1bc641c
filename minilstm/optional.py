"""Optional libraries: imported where they are used; if one is absent, the error has the line that installs it."""

from __future__ import annotations

import importlib
from typing import Any


def library(name: str, where: str, line: str = "pip install 'minilstm[export]'") -> Any:
    """Import an optional library.

    Parameters
    ----------
    name : str
        Of the module, such as ``matplotlib.pyplot``.
    where : str
        What needs it; begins the message.
    line : str
        What installs it; ends the message.

    Raises
    ------
    ImportError
        If it is not installed.

    Examples
    --------
    >>> library("no_such_library", "export.onnx.save", "pip install onnx")
    Traceback (most recent call last):
    ImportError: export.onnx.save needs no_such_library: pip install onnx
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{where} needs {name.partition('.')[0]}: {line}") from error
