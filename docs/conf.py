"""How Sphinx makes the site of the course from README.md, the executed notebooks and data/README.md.

    make site        # without make: python -m sphinx -c docs . build/site

Nothing is executed and nothing is fetched, neither here nor when the site is read; pulib is not imported.
"""

import hashlib
import json
import sys
from binascii import a2b_base64
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile

from docutils import nodes

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

import badges  # noqa: E402

# ---------------------------------------------------------------------------------------------- what

project = "PU diffusion"
author = "the authors of the PU diffusion course"
copyright = f"{author}. Code: MIT; text and figures: CC BY 4.0"
extensions = ["myst_nb"]
root_doc = "README"
include_patterns = ["README.md", "LICENSE-text.md", "data/README.md", "docs/*.md", "notebooks/*.ipynb"]
exclude_patterns = [".*", "build", "pulib", "tests"]

CONTENTS = """
```{toctree}
:hidden:
:glob:
:caption: The course

notebooks/*
```
```{toctree}
:hidden:
:caption: About

data/README
LICENSE-text
docs/teaching
docs/attribution
```
"""

# ------------------------------------------------------------------------------------------- notebooks

nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # outputs with formulas, tables and folded solutions
nb_mime_priority_overrides = [("*", "application/vnd.jupyter.widget-view+json", None)]  # no kernel, no widgets: their text
nb_ipywidgets_js = {}  # would be fetched from another host
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

STATIC_TWIN = "*The next cell makes a slider. It needs a running notebook; the figure above shows the same.*"

# ------------------------------------------------------------------------------------------- equations

# one file that draws as SVG, so there are no fonts to find, and everything works from file:// too
MATHJAX = Path(find_spec("sphinx-mathjax-offline").submodule_search_locations[0]) / "static/mathjax/tex-svg-full.js"
mathjax_path = MATHJAX.name
mathjax3_config = {"svg": {"scale": 0.9}, "options": {"enableMenu": False}}  # the menu would load speech from another host

# ------------------------------------------------------------------------------------------- appearance

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static/site.css", str(MATHJAX)]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False
html_theme_options = {
    "use_download_button": False,
    "navbar_persistent": [],  # or there would be a second search field above the first
    "show_toc_level": 2,
    "search_bar_text": "Search the course …",
}


# ---------------------------------------------------------------------------------------- adjustments


def edit_source(app, docname: str, source: list[str]) -> None:
    """Contents for the home page; badges for notebooks, and a word on sliders, which are committed without outputs."""
    if docname == root_doc:
        source[0] += CONTENTS
    if not docname.startswith("notebooks/"):
        return
    notebook = json.loads(source[0])
    cells = []
    for cell in notebook["cells"]:
        if "live-widget" in cell["metadata"].get("tags", []):
            cell["metadata"]["tags"].append("hide-input")
            cells.append({"cell_type": "markdown", "id": f"slider-{len(cells)}", "metadata": {}, "source": STATIC_TWIN})
        cells.append(cell)
    line = badges.line(f"{docname}.ipynb", *badges.settings(), to_root="../")
    title, _, rest = "".join(cells[0]["source"]).partition("\n")
    cells[0]["source"] = f"{title}\n\n{line}\n{rest}"
    source[0] = json.dumps(notebook | {"cells": cells})


def edit_page(app, doctree: nodes.document) -> None:
    """Alternative texts from the outputs' metadata; equations as they were written."""
    if app.env.docname.startswith("notebooks/"):
        texts = alternative_texts(Path(app.env.doc2path(app.env.docname)))
        for image in doctree.findall(nodes.image):
            image["alt"] = texts.get(Path(image["uri"]).stem, image.get("alt", ""))
    for equation in doctree.findall(nodes.math_block):
        if not equation.get("nowrap"):  # Sphinx would wrap lines in {split}, in which \tag is an error
            equation["nowrap"] = equation["no-wrap"] = True
            equation.children = [nodes.Text(rf"\[{equation.astext()}\]")]


def alternative_texts(path: Path) -> dict[str, str]:
    """The `alt` of each PNG output of a notebook by the image's SHA-256, which is the name that MyST-NB gives the file."""
    texts = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                digest = hashlib.sha256(a2b_base64("".join(output["data"]["image/png"]))).hexdigest()
                texts[digest] = output["metadata"].get("image/png", {}).get("alt", "")
    return texts


def add_index(app, exception: Exception | None) -> None:
    """The home page under the name that servers look for."""
    if exception is None and app.builder.format == "html":
        copyfile(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app) -> None:
    app.connect("source-read", edit_source)
    app.connect("doctree-read", edit_page)
    app.connect("build-finished", add_index)
