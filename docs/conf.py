"""Configure Sphinx: ``python -m sphinx -W --keep-going -b html docs OUT``, after ``pip install '.[docs]'``.

Every notebook page runs during the build, and a warning is an error. The built pages need no network: MathJax comes
from the package sphinx-mathjax-offline as one file, and draws SVG, so it needs no fonts.
"""

import configparser
import importlib.util
import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(DOCS / "_extensions"))

from minilstm import __version__  # noqa: E402  from this work tree, which the lines above put first

# Commands on the pages run in this environment.
os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
# The pages import this work tree too, with `experiments`. Their figures are sharp on any screen.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
os.environ["MATPLOTLIBRC"] = str(DOCS / "matplotlibrc")
# A figure becomes a picture of its cell only with this backend, whatever the caller's environment says.
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
# The matrices have a few dozen rows: several threads would mostly wait for each other.
os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1"))


def mathjax_file() -> str:
    """The path of MathJax as one file with all packages of TeX, so that nothing is loaded later."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    if package is None or package.origin is None:
        raise ImportError("docs: sphinx-mathjax-offline is not installed; pip install '.[docs]' installs it")
    return str(Path(package.origin).parent / "static" / "mathjax" / "tex-svg-full.js")


def repository() -> str | None:
    """The address of the repository, if setup.cfg has one."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return settings.get("metadata", "url", fallback=None)


project = "minilstm"
author = "the minilstm authors"
copyright = "2026, the minilstm authors"
release = version = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    # docs/_extensions
    "whole_streams",
    "page_folders",
    "chapter_downloads",
    "promised_pictures",
    "plain_docstrings",
]
exclude_patterns = ["_build", "jupyter_execute", "measured"]
default_role = "code"  # single backticks are names, as in the source

myst_enable_extensions = [
    "amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath", "substitution",
]  # fmt: skip
myst_heading_anchors = 3
myst_dmath_double_inline = True
nb_execution_mode = "force"
nb_execution_in_temp = True  # a folder with the files of the page: docs/_extensions/page_folders.py
nb_execution_show_tb = True  # a failing cell is a warning with its traceback; the next pages still run
nb_execution_timeout = 300
nb_merge_streams = True
nb_render_markdown_format = "myst"  # for tables and links to the reference in Markdown that a cell displays

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_mock_imports = [] if importlib.util.find_spec("numba") else ["numba", "llvmlite"]  # of minilstm.fast.compiled
napoleon_use_ivar = True
suppress_warnings = [
    "ref.python",  # "c" and "h", in the types of a docstring, are fields of several named tuples
]

copybutton_selector = "div.highlight pre"
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = "minilstm"
html_static_path = ["_static", mathjax_file()]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
if repository():
    html_theme_options["footer_icons"] = [
        {"name": "the repository", "url": repository(), "html": "repository", "class": ""},
    ]  # fmt: skip
mathjax_path = "tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "local"}}
