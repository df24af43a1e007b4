"""Sphinx configuration: ``sphinx-build -W -b html docs build/docs``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

import tvm_ahcq  # noqa: E402

project = "tvm-ahcq"
author = "the tvm-ahcq authors"
copyright = author
version = release = tvm_ahcq.__version__

extensions = [
    "api_pages",
    "command_pages",
    "tables",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_ext", "generated/commands.md"]
root_doc = "index"
smartquotes = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"tvm-ahcq {release}"
html_copy_source = False
