"""The site: it builds without network, and in the built pages every link, image and formula is whole."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import badges  # noqa: E402
from test_upkeep import ROOMS, public  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "data/README.md", "LICENSE-text.md", "docs/api.md", "docs/attribution.md", "docs/teaching.md"]
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
LOADED = {("link", "href"), ("script", "src"), ("img", "src"), ("source", "srcset"), ("iframe", "src"), ("object", "data")}


class Page(HTMLParser):
    """Elements of a page in order, as (tag, attributes, tags and classes around it), its ids, and its text by element."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.elements, self.open, self.texts = path, [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.ids = {attributes["id"] for _, attributes, _ in self.elements if "id" in attributes}

    def handle_starttag(self, tag, pairs):
        attributes = {name: value or "" for name, value in pairs}
        self.elements.append((tag, attributes, " ".join(self.open)))
        if tag not in VOID:
            self.open.append(f"{tag}.{attributes.get('class', '')}".replace(" ", "."))

    def handle_endtag(self, tag):
        while any(opened.split(".")[0] == tag for opened in self.open):  # one that closes nothing is ignored
            if self.open.pop().split(".")[0] == tag:
                break

    def handle_data(self, text):
        self.texts.append((" ".join(self.open), text))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes, _ in self.elements if name == tag]

    def text_in(self, selector: str) -> str:
        return "".join(text for around, text in self.texts if selector in around)


class Site:
    def __init__(self, out: Path, run: subprocess.CompletedProcess) -> None:
        self.out, self.log = out, run.stdout + run.stderr
        assert run.returncode == 0, self.log[-3000:]
        self.pages = {path.relative_to(out).as_posix(): Page(path) for path in sorted(out.rglob("*.html")) if "_static" not in path.parts}

    def __getitem__(self, name: str) -> Page:
        return self.pages[name]

    def at(self, path: Path) -> Page:
        return self.pages[path.relative_to(self.out).as_posix()]


def build(source: Path, folder: Path) -> Site:
    """Build the site of a source tree, in an environment that refuses to use the network."""
    log = folder / "network.log"
    env = os.environ | {"PYTHONPATH": str(ROOT / "tests/offline"), "PULIB_NETWORK_LOG": str(log)}
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-c", "docs", "-d", str(folder / "doctrees"), ".", str(folder / "site")]
    run = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, encoding="utf-8")
    assert not log.exists(), log.read_text()
    return Site(folder / "site", run)


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Site:
    return build(ROOT, tmp_path_factory.mktemp("site"))


# --------------------------------------------------------------------------------------- the built pages


def test_it_builds_without_a_warning(site):
    assert "WARNING" not in site.log and "ERROR" not in site.log, site.log


def test_it_has_all_pages(site):
    wanted = {"index.html", "README.html", "search.html", *(f"{name.removesuffix('.md')}.html" for name in TEXTS)}
    assert {name for name in site.pages if not name.startswith(("pulib/", "_modules/"))} == wanted | {f"notebooks/{path.stem}.html" for path in NOTEBOOKS}
    assert any("04_pu_diffusion" in image["src"] for image in site["index.html"].all("img")), "the result picture"


def broken_links(site: Site) -> list[str]:
    broken = []
    for name, page in site.pages.items():
        for tag, attributes, _ in page.elements:
            for attribute in ("href", "src", "action"):
                url = urlsplit(attributes.get(attribute, ""))
                if attribute not in attributes or url.scheme in ("http", "https", "mailto", "data"):
                    continue
                target = Path(os.path.normpath(page.path.parent / unquote(url.path))) if url.path else page.path
                if not target.is_file():
                    broken.append(f"{name}: {tag} {attributes[attribute]}")
                elif target.suffix == ".html" and url.fragment and unquote(url.fragment) not in site.at(target).ids:
                    broken.append(f"{name}: no such anchor {attributes[attribute]}")
    return broken


def test_every_link_inside_the_site_resolves(site):
    assert broken_links(site) == []


def test_every_image_has_alternative_text(site):
    for name, page in site.pages.items():
        assert all(image.get("alt", "").strip() for image in page.all("img")), name


@by_name
def test_figures_keep_the_text_and_width_of_the_outputs(path, site):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    metadata = [output["metadata"]["image/png"] for output in outputs]
    page = site[f"notebooks/{path.stem}.html"]
    images = [attributes for tag, attributes, around in page.elements if tag == "img" and "cell_output" in around]
    assert [image["alt"] for image in images] == [entry["alt"] for entry in metadata]
    for image, entry in zip(images, metadata):
        assert image.get("width") == str(entry["width"]) or f"width: {entry['width']}px" in image.get("style", "")


def test_nothing_is_loaded_from_another_host(site):
    for name, page in site.pages.items():
        for tag, attributes, _ in page.elements:
            for attribute in (a for t, a in LOADED if t == tag and a in attributes):
                assert not re.match(r"(https?:)?//", attributes[attribute]), f"{name}: {attributes}"
            assert not re.search(r"url\(['\"]?(https?:)?//", attributes.get("style", ""))
        assert not re.search(r"(https?:)?//[\w.-]+\.\w+/", page.text_in("script.")), f"{name}: a script in the page names a host"
    for sheet in site.out.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import\s+)['\"]?(https?:)?//", text), sheet


@by_name
def test_every_numbered_equation_is_there_and_drawn_by_a_file_of_the_site(path, site):
    page = site[f"notebooks/{path.stem}.html"]
    formulas = page.text_in("div.math")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert re.findall(r"\\tag\{(.*?)\}", formulas) == re.findall(r"\\tag\{(.*?)\}", text)
    assert r"\begin{split}" not in formulas and "$$" not in page.text_in("article.")
    mathjax = next(script["src"] for script in page.all("script") if "tex-svg" in script.get("src", ""))
    assert (page.path.parent / urlsplit(mathjax).path).resolve().stat().st_size > 1_000_000


def test_no_slider_or_widget_is_left_without_a_kernel(site):
    for name, page in site.pages.items():
        assert "widget" not in page.text_in("script.").replace("pulib/widgets", ""), name  # which is the name of a page
    for path in NOTEBOOKS:
        sliders = sum("live-widget" in cell["metadata"].get("tags", []) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
        assert site[f"notebooks/{path.stem}.html"].text_in("article.").count("The next cell makes a slider") == sliders


def test_search_finds_a_word_in_its_notebook(site):
    text = (site.out / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").rstrip().removesuffix(")"))
    found = index["terms"]["jensen"]
    names = [index["docnames"][i] for i in ([found] if isinstance(found, int) else found)]
    assert "notebooks/01_ddpm" in names
    assert "searchindex.js" in {Path(script.get("src", "")).name for script in site["search.html"].all("script")}


# ------------------------------------------------------------------------------------------ pages of pulib


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_of_a_room_is_on_its_page_with_a_link_to_its_source(room, site):
    page = site[f"pulib/{room}.html"]
    module = f"pulib.{room.replace('/', '.')}"
    names = [f"{module}.{name}" for name in public(room)]
    assert [name for name in names if name not in page.ids] == []
    sources = {link["href"].rpartition("#")[2] for link in page.all("a") if "_modules/" in link.get("href", "")}
    assert [name for name in names if name.removeprefix(f"{module}.") not in sources] == []
    assert "Raises:" not in page.text_in("p.")  # read as a field, not as prose


def test_rooms_are_listed_in_the_order_of_the_map(site):
    linked = [link["href"] for tag, link, around in site["docs/api.html"].elements if tag == "a" and "table." in around and "href" in link]
    assert [link.removeprefix("../pulib/").removesuffix(".html") for link in linked] == ROOMS


def test_docstrings_are_shown_as_they_were_meant(site):
    page = site["pulib/risk.html"]
    assert "p(normal | x) = exp(-l)" in page.text_in("article.") and "E_U[l] - prior E_S[l], which estimates" in page.text_in("article.")
    assert "#pulib.risk.sensitive_slope" in {link.get("href") for link in page.all("a")}
    assert "x_t = sqrt(alpha_bar_t) x_0" in site["pulib/diffusion.html"].text_in("pre.")  # indented: a formula


# ----------------------------------------------------------------------- a notebook with all that may come


PROBE = [
    ("markdown", "# Probe\n\n[first](01_ddpm.ipynb), [section](#fold-me), [data](../data/README.md#metrics-of-the-weights), [code](../docs/badges.py)"),
    ("markdown", "## Fold me\n\n<details><summary>Hint</summary>\n\nWith $a^2$ and\n\n```python\nhinted = 1\n```\n\n$$x \\\\ y \\tag{9.1}$$\n\n</details>\n\nAfter."),
    ("markdown", "<details><summary>Hint 2</summary>\n\n| a | b |\n|---|---|\n| $c$ | `d` |\n\n</details>"),
]


def pixel(grey: int) -> str:
    file = io.BytesIO()
    Image.new("L", (1, 1), grey).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="session")
def probe(tmp_path_factory) -> Site:
    """A copy of the course with one more notebook, published as somebody/course."""
    folder = tmp_path_factory.mktemp("probe")
    tree = folder / "tree"
    for name in (*TEXTS, "LICENSE", "CITATION.cff", "data/results/04_pu_diffusion.png"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    shutil.copytree(ROOT / "docs", tree / "docs", dirs_exist_ok=True)
    shutil.copytree(ROOT / "pulib", tree / "pulib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "notebooks", tree / "notebooks", ignore=shutil.ignore_patterns("*.py", "__pycache__", ".*"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = re.sub(r'(\[tool\.pulib\.site\][^\[]*?repository = )"[^"]*"', r'\1"somebody/course"', project)
    (tree / "pyproject.toml").write_text(project, encoding="utf-8")
    subprocess.run([sys.executable, "docs/badges.py"], cwd=tree, check=True)
    outputs = [
        {"output_type": "display_data", "data": {"image/png": pixel(grey)}, "metadata": {"image/png": {"alt": alt, "width": 9}}}
        for grey, alt in ((0, "one pixel"), (9, "another <pixel>"))
    ]
    folded = "<details><summary>Solution of 9.1</summary>\n\n```python\nsolved = 1\n```\n\nSo $b^2$.\n\n</details>"
    outputs.append({"output_type": "display_data", "data": {"text/markdown": folded, "text/plain": "folded"}, "metadata": {}})
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "0", "version_major": 2}, "text/plain": "Predict: what?"}
    outputs.append({"output_type": "display_data", "data": widget, "metadata": {}})
    cells = [{"cell_type": kind, "id": f"c{i}", "metadata": {}, "source": text} for i, (kind, text) in enumerate(PROBE)]
    code = {"cell_type": "code", "id": "code", "metadata": {}, "source": "show()", "outputs": outputs, "execution_count": 1}
    live = {"cell_type": "code", "id": "live", "metadata": {"tags": ["live-widget"]}, "source": "slide()", "outputs": [], "execution_count": None}
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": [*cells, code, live], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (tree / "notebooks/99_probe.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return build(tree, folder)


def test_links_between_notebooks_and_to_other_files_resolve(probe):
    assert broken_links(probe) == []
    page = probe["notebooks/99_probe.html"]
    links = [link["href"] for link in page.all("a") if "href" in link]
    assert {"01_ddpm.html", "#fold-me", "../data/README.html#metrics-of-the-weights"} <= set(links)
    assert any("_downloads" in link and link.endswith("badges.py") for link in links)


def test_a_broken_link_is_noticed(probe):
    page = Page(probe["notebooks/99_probe.html"].path)
    page.elements += [("a", {"href": "no.html"}, ""), ("a", {"href": "01_ddpm.html#no"}, ""), ("img", {"src": "no.png"}, "")]
    damaged = Site.__new__(Site)
    damaged.out, damaged.pages = probe.out, probe.pages | {"notebooks/99_probe.html": page}
    assert [line.split(": ")[1] for line in broken_links(damaged)] == ["a no.html", "no such anchor 01_ddpm.html#no", "img no.png"]


def test_hints_and_solutions_fold_with_their_formulas_and_code(probe):
    page = probe["notebooks/99_probe.html"]
    assert [text for around, text in page.texts if around.endswith("summary.")][:3] == ["Hint", "Hint 2", "Solution of 9.1"]
    folded = page.text_in("details.")
    assert all(word in folded for word in ("hinted", r"\(a^2\)", r"\tag{9.1}", r"\(c\)", "solved", r"\(b^2\)"))
    assert "After." not in folded and "Fold me" not in folded
    assert "div.highlight" in next(around for around, text in page.texts if "solved" in text)


def test_several_figures_of_a_cell_keep_their_own_texts(probe):
    images = [attributes["alt"] for tag, attributes, around in probe["notebooks/99_probe.html"].elements if tag == "img" and "cell_output" in around]
    assert images == ["one pixel", "another <pixel>"]


def test_a_widget_shows_its_text_and_a_slider_says_where_to_look(probe):
    page = probe["notebooks/99_probe.html"]
    assert "Predict: what?" in page.text_in("cell_output")
    assert "widget" not in page.text_in("script.") and "The next cell makes a slider" in page.text_in("article.")
    assert "slide" in page.text_in("details.")  # its code is folded


# -------------------------------------------------------------------------------------------- badges


def badge_links(page: Page) -> list[str]:
    return [link["href"] for link in page.all("a") if re.search("mybinder|colab", link.get("href", ""))]


@by_name
def test_badges_open_the_notebook_of_the_page(path, probe):
    binder, colab = badge_links(probe[f"notebooks/{path.stem}.html"])
    assert binder == f"https://mybinder.org/v2/gh/somebody/course/main?labpath=notebooks%2F{path.name}"
    assert colab == f"https://colab.research.google.com/github/somebody/course/blob/main/notebooks/{path.name}"
    images = [image["alt"] for image in probe[f"notebooks/{path.stem}.html"].all("img")]
    assert images[:2] == ["Open in Binder", "Open in Colab"]


def test_there_are_badges_only_if_a_repository_is_configured(site, probe):
    repository, _ = badges.settings()
    for each, count in ((site, 2 * bool(repository)), (probe, 2)):
        for name, page in each.pages.items():
            expected = count if name in ("index.html", "README.html") or name.startswith("notebooks/") else 0
            assert len(badge_links(page)) == expected, name
    assert badges.line("notebooks/x.ipynb", "", "main") == ""
    with pytest.raises(ValueError, match="owner/name"):
        badges.line("notebooks/x.ipynb", "https://github.com/somebody/course", "main")


def test_badges_in_the_readme_are_those_of_the_configuration():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert badges.readme(text, *badges.settings()) == text, "run: python docs/badges.py"
    with_badges = badges.readme(text, "somebody/course", "main")
    assert with_badges.count("mybinder.org/v2/gh/somebody/course/main") == 1
    assert badges.readme(with_badges, "somebody/course", "main") == with_badges
    assert badges.readme(with_badges, "", "main") == badges.readme(text, "", "main")
    for image in re.findall(r"\]\((docs/[^)]*svg)\)", with_badges):
        assert (ROOT / image).is_file()


# ------------------------------------------------------------------------------------------- sources


@pytest.mark.parametrize("name", [*(f"notebooks/{path.name}" for path in NOTEBOOKS), *TEXTS])
def test_links_to_the_outside_are_well_formed(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".ipynb"):
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    for url in re.findall(r"(?:\]\(|<)(\w+:[^)>]*)", text):
        parts = urlsplit(url)
        assert parts.scheme == "https" and re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc) and " " not in url, url
    assert "http://" not in text.replace("http://HOST:PORT", "")  # of a proxy
