"""The article and the documentation, built by `make article` from the committed results, figures and notebooks."""

import shutil
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[1]
project, author = "CryoETGAN", "The CryoETGAN reproduction authors"
copyright = "MIT licence"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "force"
nb_execution_excludepatterns = ["notebooks/*"]  # these show their committed outputs
nb_execution_timeout = 300
nb_execution_raise_on_error = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings tell shapes and units
html_math_renderer = "mathml"
html_theme = "sphinx_book_theme"
html_title = "CryoETGAN"
html_theme_options = {"show_toc_level": 2, "use_download_button": False}
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type", "misc.highlighting_failure"]


def bring_notebooks(app) -> None:
    """Copy the notebooks to where Sphinx looks for pages."""
    folder = Path(app.srcdir) / "notebooks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copy(path, folder)


def mathml(writer, node) -> None:
    """A formula as MathML, which browsers draw without a network."""
    display = "block" if node.tagname == "math_block" else "inline"
    writer.body.append(convert(node.astext(), display=display))
    raise SkipNode


def setup(app) -> None:
    """Register both with Sphinx."""
    app.connect("builder-inited", bring_notebooks)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
