"""What keeps the house in order: its map is the real one, docstrings are there, templates and hooks work, and bad files are refused."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PULIB = ROOT / "pulib"
sys.path.insert(0, str(ROOT / "notebooks"))

import policy  # noqa: E402

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MODULES = {path.relative_to(PULIB).with_suffix("").as_posix(): path for path in PULIB.rglob("*.py") if not path.stem.startswith("__")}
LISTED = re.findall(r"^\| (?:\[`([\w/]+)`\]\(pulib/\1\.py\)|`([\w/]+\w)`) \| (.*?) \|$", CONTRIBUTING, re.MULTILINE)
MAP = [linked or plain for linked, plain, _ in LISTED]  # all rooms in order
ROOMS = [linked for linked, *_ in LISTED if linked]  # those with a page
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
by_room = pytest.mark.parametrize("room", sorted(MODULES))


def tree(room: str) -> ast.Module:
    return ast.parse(MODULES[room].read_text(encoding="utf-8"))


def imported(source: ast.AST, room: str) -> set[str]:
    """The rooms that a room imports, anywhere in its file; of a package, all that it imports."""
    found = set()
    for node in ast.walk(source):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = ["pulib", *room.split("/")[:-1]]
            base = [*package[: len(package) - node.level + 1], *filter(None, (node.module or "").split("."))]
            found |= reached([[*base, alias.name] for alias in node.names])
        elif isinstance(node, ast.ImportFrom):
            found |= reached([[*node.module.split("."), alias.name] for alias in node.names])
        elif isinstance(node, ast.Import):
            found |= reached([alias.name.split(".") for alias in node.names])
    return found - {room}


def reached(names: list[list[str]]) -> set[str]:
    """The rooms behind dotted names, some of which are of functions in a room."""
    found = set()
    for top, *parts in (name for name in names if name[0] == "pulib"):
        while parts and "/".join(parts) not in MODULES and not (PULIB.joinpath(*parts) / "__init__.py").is_file():
            parts = parts[:-1]
        name = "/".join(parts)
        found |= {name} if name in MODULES else {room for room in MODULES if name and room.startswith(f"{name}/")}
    return found


def public(room: str) -> list[str]:
    """Names of the public functions and classes that are defined in a room."""
    return [node.name for node in tree(room).body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")]


# -------------------------------------------------------------------------------------------------- the map


def test_the_map_has_every_room_once():
    assert sorted(MAP) == sorted(MODULES)
    assert all(text.strip() for *_, text in LISTED)
    assert set(MAP) - set(ROOMS) == {room for room in MODULES if re.search(r"/nb\d\d$", room)}


def out_of_order(order: list[str], graph: dict[str, set[str]]) -> list[str]:
    return [f"{room} imports {other}, which is not above it" for i, room in enumerate(order) for other in sorted(graph[room] - set(order[:i]))]


def test_every_room_imports_only_from_rooms_above_it():
    assert out_of_order(MAP, {room: imported(tree(room), room) for room in MODULES}) == []


def test_an_import_from_below_is_noticed():
    for line in ("from . import checks", "from .checks import check", "import pulib.checks", "def f():\n    from pulib import checks"):
        assert imported(ast.parse(line), "data") == {"checks"}
    assert imported(ast.parse("from ..data import load_pu\nfrom .base import judge"), "exercises/nb01") == {"data", "exercises/base"}
    assert imported(ast.parse("import torch\nfrom . import plots"), "plots") == set()
    assert out_of_order(["a", "b"], {"a": {"b"}, "b": {"a"}}) == ["a imports b, which is not above it"]


def test_no_room_knows_about_notebooks_scripts_or_tests():
    others = {path.stem for folder in ("notebooks", "tests", "docs") for path in (ROOT / folder).glob("*.py")}
    for room in MODULES:
        names = {(node.module or "") for node in ast.walk(tree(room)) if isinstance(node, ast.ImportFrom) and not node.level}
        names |= {alias.name for node in ast.walk(tree(room)) if isinstance(node, ast.Import) for alias in node.names}
        assert not names & others


def test_the_map_has_every_folder():
    folders = {"/".join(path.relative_to(ROOT).parts[:-1]) for path in policy.files()}
    named = re.findall(r"^\| `([\w./]+)/` \|", CONTRIBUTING, re.MULTILINE)
    assert set(named) <= folders | {"tests/offline"}
    assert {folder.split("/")[0] for folder in folders if folder} == {name.split("/")[0] for name in named}


def test_the_readme_lists_every_notebook():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in NOTEBOOKS] == re.findall(r"^\| \[[^]]+\]\(notebooks/(\w+\.ipynb)\)", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_files_and_targets_that_are_named_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    for path in re.findall(r"(?:notebooks|tests|docs|pulib|data)/\w[\w./]*\.(?:py|md|json)", text):
        assert (ROOT / path).exists() or "09" in path or "NAME" in path, path
    targets = " ".join(re.findall(r"^([\w -]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)).split()
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= set(targets)


def test_the_changelog_and_the_citation_have_the_version():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.*?)\](?: - (unreleased|\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)
    assert headings[0] == ("Unreleased", "") and headings[1][0] == version
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Known limits"}


# ---------------------------------------------------------------------------------------------- docstrings


def raises_value_error(function: ast.FunctionDef) -> bool:
    """Does the body, without functions inside it, raise a ValueError that it does not catch itself?"""
    left = list(function.body)
    while left:
        node = left.pop()
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and getattr(node.exc.func, "id", "") == "ValueError":
            return True
        if isinstance(node, ast.Try):  # what is raised in it may be caught
            left += [*node.orelse, *node.finalbody, *(part for handler in node.handlers for part in handler.body)]
        elif not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
            left += ast.iter_child_nodes(node)
    return False


def undocumented(source: ast.Module) -> list[str]:
    """Public functions, classes and methods without a docstring, and those that raise ValueError without saying so."""
    found = []
    for node in source.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        text = ast.get_docstring(node) or ""
        found += [] if text else [node.name]
        if isinstance(node, ast.FunctionDef):
            found += [f"{node.name}: Raises"] if raises_value_error(node) and "Raises:" not in text else []
            continue
        for method in (part for part in node.body if isinstance(part, ast.FunctionDef)):
            setter = any(isinstance(mark, ast.Attribute) for mark in method.decorator_list)  # the property has the docstring
            said = text if method.name in ("__init__", "__post_init__") else ast.get_docstring(method) or ""
            if not method.name.startswith("_") and not setter and not said:
                found.append(f"{node.name}.{method.name}")
            if (not method.name.startswith("_") or method.name in ("__init__", "__post_init__")) and raises_value_error(method) and "Raises:" not in said:
                found.append(f"{node.name}.{method.name}: Raises")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_everything_public_has_a_docstring_that_says_what_is_raised(room):
    assert (ast.get_docstring(tree(room)) or "").strip()
    assert undocumented(tree(room)) == []


def test_missing_docstrings_are_noticed():
    source = "class A:\n    def b(self): pass\n    def _c(self): pass\ndef d():\n    '''Text.'''\n    if 1:\n        raise ValueError('x')\ndef _e(): pass"
    assert undocumented(ast.parse(source)) == ["A", "A.b", "d: Raises"]
    caught = "def f():\n    '''Text.'''\n    try:\n        raise ValueError('x')\n    except ValueError:\n        return 1"
    assert undocumented(ast.parse(caught)) == []


# ------------------------------------------------------------------------------------- templates for issues


FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
OPTIONS = {"markdown": {"value"}, "textarea": {"label"}, "input": {"label"}, "dropdown": {"label", "options"}, "checkboxes": {"label", "options"}}
ALLOWED = {"name", "description", "title", "labels", "assignees", "projects", "type", "body"}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_for_issues_have_what_github_asks_for(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys() <= ALLOWED
    assert all(isinstance(form[key], str) and form[key] for key in ("name", "description")) and isinstance(form.get("labels", []), list)
    assert any(part["type"] != "markdown" for part in form["body"])
    ids, labels = [], []
    for part in form["body"]:
        assert part.keys() <= {"type", "id", "attributes", "validations"} and OPTIONS[part["type"]] <= part["attributes"].keys()
        if part["type"] == "markdown":
            assert "id" not in part and "validations" not in part
            continue
        ids.append(part["id"])
        labels.append(part["attributes"]["label"])
        assert re.fullmatch(r"[\w-]+", part["id"]) and part.get("validations", {}).keys() <= {"required"}
        options = part["attributes"].get("options", [])
        if part["type"] == "dropdown":
            assert all(isinstance(option, str) for option in options) and len(set(options)) == len(options) >= 1
            assert not {option.lower() for option in options} & {"none", "true", "false", "null"}  # which GitHub refuses
        if part["type"] == "checkboxes":
            assert all(isinstance(option["label"], str) for option in options)
    assert len(set(ids)) == len(ids) and len(set(labels)) == len(labels)


def test_the_forms_ask_what_we_need():
    names = [yaml.safe_load(path.read_text(encoding="utf-8"))["name"] for path in FORMS]
    assert len(FORMS) == 3 and len(set(names)) == 3
    body = {part.get("id"): part for part in yaml.safe_load(FORMS[0].read_text(encoding="utf-8"))["body"]}
    assert {"doctor", "system", "notebook", "cell", "what"} <= body.keys() and "python -m pulib.doctor" in body["doctor"]["attributes"]["description"]
    for path in FORMS[:2]:
        asked = next(part for part in yaml.safe_load(path.read_text(encoding="utf-8"))["body"] if part.get("id") == "notebook")
        assert [option[:2] for option in asked["attributes"]["options"] if option[0] == "0"] == [notebook.stem[:2] for notebook in NOTEBOOKS]
    config = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/config.yml").read_text(encoding="utf-8"))
    assert config.keys() <= {"blank_issues_enabled", "contact_links"}


# --------------------------------------------------------------------------------------- hooks, and their bites


CONFIG = ROOT / ".pre-commit-config.yaml"


def hooks() -> list[dict]:
    repos = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in repos] == ["local"], "nothing is downloaded"
    return repos[0]["hooks"]


def test_hooks_are_local_and_run_the_checks():
    assert {hook["id"] for hook in hooks()} == {*policy.CHECKS, "code"}
    for hook in hooks():
        assert {"id", "name", "entry", "language"} <= hook.keys() and hook["language"] == "system"
        assert hook["entry"] == f"python notebooks/policy.py {hook['id']}"
        assert hook["require_serial"]  # the notebooks together are counted once


def test_pre_commit_accepts_the_configuration():
    command = shutil.which("pre-commit", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if command is None:
        pytest.skip("pre-commit is not installed; the configuration was read as YAML")
    run = subprocess.run([command, "validate-config", str(CONFIG)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("check", ["sizes", "text"])
def test_the_repository_passes(check):  # test_notebooks.py looks at outputs, test_project.py at code
    assert policy.problems(check, policy.files()) == []


@pytest.fixture
def notebook(tmp_path):
    """A call that writes a changed copy of a small notebook, and gives back what is found in it."""

    def changed(change) -> list[str]:
        content = nbformat.read(ROOT / "notebooks" / "02_pu_risk.ipynb", as_version=4)
        change(content, [cell for cell in content.cells if cell.cell_type == "code"])
        path = tmp_path / "02_pu_risk.ipynb"
        nbformat.write(content, path)
        return policy.output_problems(path)

    return changed


def first_with(cells, tag: str):
    return next(cell for cell in cells if tag in cell.metadata.get("tags", []))


def text_output(text: str):
    return nbformat.v4.new_output("stream", text=text)


def figure_of(cells):
    return next(output for cell in cells for output in cell.outputs if policy.PNG in output.get("data", {}))


BAD = {
    "code changed after the run": (lambda n, c: c[0].update(source=c[0].source + "\nx = 1"), "not those of this code"),
    "no hash": (lambda n, c: n.metadata.pop("pulib"), "not those of this code"),
    "widget state": (lambda n, c: n.metadata.update(widgets={}), "widget state: widgets"),
    "cells run out of order": (lambda n, c: c[3].update(execution_count=9), "code cell 4: execution count 9 where a run from the top gives 4"),
    "a cell not run": (lambda n, c: c[3].update(execution_count=None), "execution count None"),
    "a slider with output": (lambda n, c: first_with(c, "live-widget").outputs.append(text_output("0")), "must be committed without outputs"),
    "a prediction with a number": (lambda n, c: first_with(c, "predict").update(execution_count=1), "must be committed without outputs"),
    "an error": (lambda n, c: c[2].outputs.append(nbformat.v4.new_output("error", ename="E", evalue="v", traceback=[])), "an error in an output: E: v"),
    "a path": (lambda n, c: c[2].outputs.append(text_output("saved /home/ada/x.png")), "somebody's machine: /home/ada/x.png"),
    "a path of Windows": (lambda n, c: c[2].outputs.append(text_output("in C:\\Users\\Ada\\x")), "somebody's machine: C:\\Users\\Ada"),
    "a figure without text": (lambda n, c: figure_of(c).metadata.update({policy.PNG: {"width": 9}}), "no alternative text"),
    "a slider without a twin": (lambda n, c: c[c.index(first_with(c, "live-widget")) - 1].update(outputs=[]), "must show the same as a figure"),
    "no parameters": (lambda n, c: first_with(c, "parameters").metadata.update(tags=[]), "exactly one cell must have the tag `parameters`"),
    "a long cell": (lambda n, c: c[2].update(source="\n".join(["1"] * 26)), "more than 25 lines"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_notebook_is_refused(notebook, what):
    change, expected = BAD[what]
    assert [line for line in notebook(change) if expected in line]


def test_the_notebook_is_fine_as_long_as_nobody_changes_it(notebook):
    assert notebook(lambda content, cells: None) == []


def test_what_is_no_notebook_is_refused(tmp_path):
    (tmp_path / "x.ipynb").write_text("<<<<<<< HEAD\n{}")
    assert policy.output_problems(tmp_path / "x.ipynb")[0].startswith("is not a notebook")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> other\n", ["line 2: a merge is not finished"]),
        (b"a\n=======\n", ["line 2: a merge is not finished"]),
        (b"a\nb \n", ["line 2: spaces at its end"]),
        (b"a\t\r\nb\r\n", ["line 1: spaces at its end"]),
        (b"a", ["must end with one line break"]),
        (b"a\n\n", ["must end with one line break"]),
        ("é\n========\n".encode(), []),
        (b"a\r\nb\r\n", []),
        (b"", []),
        (b"\x89PNG \n\n\xff", []),
    ],
)
def test_bad_text_is_refused(tmp_path, content, expected):
    (tmp_path / "x.md").write_bytes(content)
    assert policy.text_problems(tmp_path / "x.md") == expected


def test_large_files_are_refused(tmp_path):
    for name, largest in (("a.ipynb", 600_000), ("w.safetensors", 3_000_000), ("x.png", 1_000_000)):
        (tmp_path / name).write_bytes(bytes(largest))
        assert policy.size_problems(tmp_path / name) == []
        (tmp_path / name).write_bytes(bytes(largest + 1))
        assert "kB, at most" in policy.size_problems(tmp_path / name)[0]
    for i in range(6):
        (tmp_path / f"{i}.ipynb").write_bytes(bytes(500_001))
    assert "with the other notebooks" in policy.size_problems(tmp_path / "0.ipynb")[0]


def test_the_script_says_no_as_a_hook_does(tmp_path):
    bad = {"code": "bad.py", "text": "bad.md", "sizes": "bad.bin", "outputs": "bad.ipynb"}
    (tmp_path / "bad.py").write_text("import os\n")
    (tmp_path / "bad.md").write_text("a \n")
    (tmp_path / "bad.bin").write_bytes(bytes(1_000_001))
    (tmp_path / "bad.ipynb").write_text("{}")
    for check, name in bad.items():
        assert policy.main(check, str(tmp_path / name)) == 1, check
    run = subprocess.run([sys.executable, str(ROOT / "notebooks/policy.py"), "text", "bad.md"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1 and "bad.md: line 1: spaces at its end" in run.stdout
    assert policy.main("everything") == 2
