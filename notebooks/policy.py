"""What may be committed: notebooks as `build.py` writes them, small files, whole text. The hooks and the tests both ask here.

    python notebooks/policy.py                    # all of it, on every file of the repository
    python notebooks/policy.py outputs FILE …     # one of: outputs, sizes, text, code

Outputs ARE committed, so that the course can be read without running it. They must come from `python notebooks/build.py`, and
this tells whether they do. .pre-commit-config.yaml calls it before each commit, offline, with the environment of `make setup`.
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
KB = 1000
LARGEST_NOTEBOOK, ALL_NOTEBOOKS, LARGEST_WEIGHTS, LARGEST_FILE = 600 * KB, 3000 * KB, 3000 * KB, 1000 * KB
LONGEST_CELL = 25
LIVE = {"live-widget", "predict"}
PNG, WIDGET = "image/png", "application/vnd.jupyter.widget-view+json"
PERSONAL = re.compile(r"(?:/home/|/Users/|/root/|/tmp/|/var/folders/|file://|\b[A-Z]:\\+(?:Users|Documents)\\+)[^\s\"'<>]*")
CONFLICT = re.compile(r"^(<{7}|\|{7}|>{7})( |$)|^={7}$", re.MULTILINE)


def files() -> list[Path]:
    """Every file that git tracks or would add; all but hidden folders and built ones where there is no git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, encoding="utf-8").stdout.split("\0")
        found = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        found = [path for path in ROOT.rglob("*") if not re.search(r"(^|/)(\.(?!github)[^/]+|build|__pycache__|[^/]*\.egg-info)/", path.relative_to(ROOT).as_posix())]
    return sorted({path for path in found if path.is_file()})


# ---------------------------------------------------------------------------------------------- outputs


def output_problems(path: Path) -> list[str]:
    """What keeps a notebook from being as `build.py` writes it; nothing if all is well."""
    import nbformat

    from build import source_hash, tags
    from course import errors

    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as problem:  # of whatever kind the damage is
        return [f"is not a notebook: {type(problem).__name__}"]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = [f"an error in an output: {line}" for line in errors(notebook)]
    if notebook.metadata.get("pulib", {}).get("source_hash") != source_hash(notebook):
        found.append("the outputs are not those of this code and data")
    if more := sorted(set(notebook.metadata) - {"kernelspec", "language_info", "pulib"}):
        found.append(f"metadata of an editor or a kernel, or widget state: {', '.join(more)}")
    if sum("parameters" in tags(cell) for cell in cells) != 1:
        found.append("exactly one cell must have the tag `parameters`")
    if not any("live-widget" in tags(cell) for cell in cells):
        found.append("no cell has the tag `live-widget`: each notebook has a slider")
    if not any(cell.outputs for cell in cells):
        found.append("has no outputs")
    for i, cell in enumerate(cells, 1):
        found += [f"code cell {i}: {line}" for line in cell_problems(cell, i, set(tags(cell)), cells[i - 2] if i > 1 else None)]
    return found


def cell_problems(cell, number: int, tagged: set[str], before) -> list[str]:
    """What is wrong with a code cell and its outputs, the cell before it at hand."""
    found = []
    if len(cell.source.splitlines()) > LONGEST_CELL:
        found.append(f"more than {LONGEST_CELL} lines")
    if not cell.source.strip():
        found.append("empty")
    if tagged & LIVE and (cell.outputs or cell.execution_count is not None):
        found.append(f"tagged {', '.join(tagged & LIVE)}, so it must be committed without outputs and number")
    if not tagged & LIVE and cell.execution_count != number:
        found.append(f"execution count {cell.execution_count} where a run from the top gives {number}")
    if "live-widget" in tagged and not any(PNG in output.get("data", {}) for output in (before.outputs if before else [])):
        found.append("tagged live-widget, so the code cell before it must show the same as a figure")
    for output in cell.outputs:
        found += output_faults(output)
    return found


def output_faults(output) -> list[str]:
    """What is wrong with one output of a cell."""
    data, found = output.get("data", {}), []
    if PNG in data and len(output.metadata.get(PNG, {}).get("alt", "")) <= 20:
        found.append("a figure has no alternative text, or a very short one")
    if WIDGET in data and "text/plain" not in data:
        found.append("a widget without text for readers who have no kernel")
    texts = [output.get("text", ""), *(value for kind, value in data.items() if kind.startswith("text/")), *output.get("traceback", [])]
    for text in texts:
        if seen := PERSONAL.search("".join(text)):
            found.append(f"names a place on somebody's machine: {seen[0]}")
    return found


# ------------------------------------------------------------------------------------------ sizes, text, code


def size_problems(path: Path) -> list[str]:
    """A file that is larger than files of its kind may be, and notebooks that are together."""
    limit = LARGEST_NOTEBOOK if path.suffix == ".ipynb" else LARGEST_WEIGHTS if path.suffix == ".safetensors" else LARGEST_FILE
    found = []
    if (size := path.stat().st_size) > limit:
        found.append(f"{size / KB:,.0f} kB, at most {limit // KB:,} are allowed")
    if path.suffix == ".ipynb" and (total := sum(other.stat().st_size for other in path.parent.glob("*.ipynb"))) > ALL_NOTEBOOKS:
        found.append(f"with the other notebooks {total / KB:,.0f} kB, at most {ALL_NOTEBOOKS // KB:,} are allowed")
    return found


def text_problems(path: Path) -> list[str]:
    """Merge markers, spaces at the end of a line, and a last line that is not ended, or empty; nothing for what is no text."""
    content = path.read_bytes()
    try:
        text = content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError:
        return []
    if b"\0" in content or not text:
        return []
    found = []
    if mark := CONFLICT.search(text):
        found.append(f"line {text.count(chr(10), 0, mark.start()) + 1}: a merge is not finished")
    if spaces := re.search(r"[ \t]+$", text, re.MULTILINE):
        found.append(f"line {text.count(chr(10), 0, spaces.start()) + 1}: spaces at its end")
    if not text.endswith("\n") or text.endswith("\n\n"):
        found.append("must end with one line break")
    return found


def code_problems(paths: list[Path]) -> list[str]:
    """What ruff says of Python files and notebooks, with the rules of pyproject.toml."""
    run = subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet", "--force-exclude", *paths], cwd=ROOT, capture_output=True, encoding="utf-8")
    return (run.stdout + run.stderr).splitlines() if run.returncode else []


CHECKS = {"outputs": output_problems, "sizes": size_problems, "text": text_problems}


def problems(check: str, paths: list[Path]) -> list[str]:
    """The findings of a check, or of "all", with the file that each is about."""
    if check == "all":
        return [line for each in (*CHECKS, "code") for line in problems(each, paths)]
    if check == "code":
        chosen = [path for path in paths if path.suffix in (".py", ".ipynb")]
        return code_problems(chosen) if chosen else []
    chosen = [path for path in paths if path.suffix == ".ipynb"] if check == "outputs" else paths
    return [f"{shown(path)}: {line}" for path in chosen for line in CHECKS[check](path)]


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def main(check: str = "all", *names: str) -> int:
    if check not in (*CHECKS, "code", "all"):
        print(f"the check must be one of {', '.join(CHECKS)}, code, all; got {check!r}", file=sys.stderr)
        return 2
    found = problems(check, [Path(name).resolve() for name in names] or files())
    print("\n".join(found), end="\n" if found else "")
    if check in ("outputs", "all") and any(".ipynb: " in line for line in found):
        print("Outputs are written by `python notebooks/build.py NN`; see \"Add a notebook\" in CONTRIBUTING.md.")
    return int(bool(found))


def rerun_in_environment() -> None:
    """A commit from a shell in which the environment is not active still uses that of `make setup`."""
    python = ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if find_spec("pulib") is None or find_spec("nbformat") is None:
        if not python.exists() or Path(sys.prefix) == ROOT / ".venv":
            sys.exit("This needs the environment of the course: run `make setup`, or activate yours.")
        sys.exit(subprocess.run([python, *sys.argv]).returncode)


if __name__ == "__main__":
    rerun_in_environment()
    sys.exit(main(*sys.argv[1:]))
