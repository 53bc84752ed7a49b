"""The documentation site: `sphinx-build -W -b html docs docs/_build`.

Needs the packages of the extra `docs` and, as the pages about the API and the configuration are made from the package
itself, an importable spherenet_fast with its compiled library. Uses no network.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import docstrings  # noqa: E402
import generate  # noqa: E402

import spherenet_fast  # noqa: E402

project = "spherenet_fast"
author = "the authors of spherenet_fast"
release = version = spherenet_fast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "generated"]
root_doc = "index"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_mock_imports = ["metatensor", "metatomic"]  # of export_metatomic, which the extra `docs` does not bring
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
default_role = "code"  # docstrings set code in single backticks
copybutton_prompt_text = "$ "

html_theme = "furo"
html_show_copyright = False
html_title = f"spherenet_fast {version}"
html_theme_options = {"navigation_with_keys": True}


def setup(app):
    app.connect("builder-inited", lambda app: generate.write(HERE / "generated"))
    app.connect("autodoc-process-signature", docstrings.without_ranges)
    app.connect("autodoc-process-docstring", docstrings.as_restructured_text, priority=100)  # before napoleon
