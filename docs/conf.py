"""How the pages become a site: Sphinx, Markdown by MyST, notebooks executed by MyST-NB, the theme Furo."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from generated import write_all  # noqa: E402
from repository_links import point_to_repository  # noqa: E402

import wsi_attention  # noqa: E402

project = "wsi-attention"
author = "The wsi-attention authors"
copyright = "The wsi-attention authors, Apache-2.0"
version = release = wsi_attention.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build", "README.md", "requirements.txt"]
html_theme = "furo"
html_title = f"wsi-attention {release}"
html_extra_path = ["reference/schemas"]
html_show_sourcelink = False

myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]
suppress_warnings = ["myst.header", "misc.highlighting_failure"]
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
linkcheck_anchors = False


def setup(app: object) -> None:
    """Write what comes from the code, and send links that leave this folder to the repository."""
    write_all(HERE / "reference")
    app.connect("source-read", point_to_repository)  # type: ignore[attr-defined]
