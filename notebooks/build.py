"""Execute the notebooks and write their committed outputs; nothing else ever writes them.

    python notebooks/build.py            # all
    python notebooks/build.py 02         # those whose name starts with 02

The same sources give the same bytes on one machine: no timings, no widget state, fixed metadata. Cells tagged
`live-widget` or `predict` are committed empty, because a saved slider without a kernel is a broken slider; the figure
before each shows the same for readers.
"""

import hashlib
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from pulib.data import manifest

HERE = Path(__file__).resolve().parent
CELL_TIMEOUT = 600


def notebooks(prefix: str = "") -> list[Path]:
    """The course's notebooks in order, or those whose name starts with `prefix`."""
    found = sorted(HERE.glob(f"{prefix}*.ipynb"))
    if not found:
        names = ", ".join(path.stem for path in sorted(HERE.glob("*.ipynb")))
        raise SystemExit(f"no notebook starts with {prefix!r}; there are: {names}")
    return found


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def loads(code: str, file: Path) -> bool:
    """May this code load this shipped file? Results are loaded by name, the networks for every prior and of diffusers by their own functions."""
    if file.parent.name == "results":
        return file.stem in code or (file.stem == "07_failure_museum" and "failures.museum" in code)
    if file.stem.startswith("pipeline_"):
        return "shipped_model" in code
    return "load_conditioned" in code or not file.stem.startswith("prior_")


def source_hash(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 of all code and of the shipped files it loads: tells whether outputs were made from what stands here."""
    code = "\x00".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    used = [entry["sha256"] for name, entry in sorted(manifest().items()) if loads(code, Path(name))]
    return hashlib.sha256("\x00".join([code, *used]).encode()).hexdigest()


def build(path: Path) -> None:
    """Execute one notebook and write it back with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        resources={"metadata": {"path": str(HERE)}},
    )
    client.execute()
    for cell in notebook.cells:
        if {"live-widget", "predict"} & set(tags(cell)):
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "pulib": {"source_hash": source_hash(notebook)},
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for path in notebooks(*sys.argv[1:2]):
        print(f"executing {path.name} …", flush=True)
        build(path)
