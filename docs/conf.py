"""Sphinx: ``python -m sphinx -W --keep-going -b html docs OUT``."""

from minilstm import __version__

project = "minilstm"
author = "the minilstm authors"
copyright = "2026, the minilstm authors"
release = version = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
default_role = "code"  # single backticks are names, as in the source
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_ivar = True
exclude_patterns = ["_build", "jupyter_execute"]
suppress_warnings = ["ref.python"]  # "c" and "h" in a docstring's types are fields of several named tuples
html_theme = "furo"
html_title = "minilstm"
