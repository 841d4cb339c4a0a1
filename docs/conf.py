"""How Sphinx makes the site of the course from README.md, the executed notebooks, data/README.md and pulib's docstrings.

    make site        # without make: python -m sphinx -c docs . build/site

No notebook is executed and nothing is fetched, neither here nor when the site is read. pulib is imported for its signatures.

The page of a room is made from its file, as autodoc reads it: a link to pulib/risk.py leads to the code where somebody browses the
repository, and to the page of `risk` on the site. Which rooms there are and in what order is read from the map in CONTRIBUTING.md.
"""

import hashlib
import json
import re
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
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "README"
PAGES = ["README", "CONTRIBUTING", "CHANGELOG", "SECURITY", "LICENSE-text", "data/README", "docs/*"]
include_patterns = [*(f"{page}.md" for page in PAGES), "notebooks/*.ipynb", "pulib/*.py", "pulib/exercises/base.py"]
exclude_patterns = [".*", "build", "tests", "pulib/__*.py"]

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

docs/teaching
docs/api
data/README
CONTRIBUTING
CHANGELOG
SECURITY
LICENSE-text
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

# ------------------------------------------------------------------------------------ pulib's docstrings

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # those of torch are not ours
python_use_unqualified_type_names = True
python_display_short_literal_types = True
maximum_signature_line_length = 90
napoleon_numpy_docstring = False
add_module_names = False
toc_object_entries_show_parents = "hide"

ROOM = """# {title}

*`from pulib{inside} import {name}`* · [the map of all rooms]({up}docs/api.md)

```{{eval-rst}}
.. automodule:: pulib{inside}.{name}
```
"""
MAP = re.compile(r"^\| \[`[\w/.]+`\]\(pulib/([\w/]+)\.py\) \| .*\|$", re.MULTILINE)  # a line of the map in CONTRIBUTING.md, of a room that has a page
SCRIPT = re.compile(r"\]\((?!\w+:)(?!(?:\.\./)*pulib/)([^)\s]+\.py)\)")  # a link to a Python file that has no page, which is offered to download
SECTION = re.compile(r"(Args|Raises|Returns|Yields|Attributes|Example|Examples|Note):$")
SPECIAL = re.compile(r"[\\*|]|(?<=\w)_(?!\w)")  # to reStructuredText, outside code


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
html_domain_indices = False
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
    if docname == "docs/api":
        source[0] += api()
    source[0] = SCRIPT.sub(r"](path:\1)", source[0])
    if docname.startswith("pulib/"):
        *inside, name = docname.split("/")[1:]
        source[0] = ROOM.format(title=docname.removeprefix("pulib/"), name=name, inside="".join(f".{part}" for part in inside), up="../" * docname.count("/"))
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


def api() -> str:
    """The map of the rooms as a table, and their pages in its order."""
    lines = list(MAP.finditer((DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    table = "\n".join(line[0].replace("](", "](../") for line in lines)
    pages = "\n".join(f"../pulib/{line[1]}" for line in lines)
    return f"\n| room | what it holds |\n|---|---|\n{table}\n\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"


def edit_docstring(app, what: str, name: str, obj, options, lines: list[str]) -> None:
    """From the house's plain docstrings, with Markdown's `code` and indented formulas, to what napoleon reads."""
    edited, section, formula = [], False, False
    for line in lines:
        if line and not line.startswith(" "):
            section, formula = bool(SECTION.match(line)), False
        elif line.startswith("    ") and not section and not formula:
            edited += ["", "::", ""]
            formula = True
        edited.append(line if formula else marked_up(line))
        if formula and not line:
            formula = False
    lines[:] = edited


def marked_up(line: str) -> str:
    """The line with its code as links where there is something to link to, and all else escaped."""
    parts = re.split(r"`([^`]+)`", line)
    return "".join(code(part) if i % 2 else SPECIAL.sub(r"\\\g<0>", part) for i, part in enumerate(parts))


def code(text: str) -> str:
    """A name of the library is a link to it; `training.fit` is one of another room."""
    if not re.fullmatch(r"[A-Za-z_][\w.]*", text):
        return f"``{text}``"
    elsewhere = (DOCS.parent / "pulib" / f"{text.split('.')[0]}.py").is_file()
    return f":py:obj:`{text} <pulib.{text}>`" if elsewhere else f":py:obj:`{text}`"


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
    app.add_source_suffix(".py", "myst-nb")
    app.connect("source-read", edit_source)
    app.connect("autodoc-process-docstring", edit_docstring, priority=400)  # before napoleon
    app.connect("doctree-read", edit_page)
    app.connect("build-finished", add_index)
