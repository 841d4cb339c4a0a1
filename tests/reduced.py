"""Notebooks with parameters that keep them short, for tests that look at how a notebook runs, not at what comes out."""

from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

REDUCED = {
    "01_ddpm": {"train_steps": 300},
    "04_pu_diffusion": {"steps": 6, "n_samples": 24},
    "05_the_prior": {"n_samples": 48},
    "06_one_object": {"steps": 4, "n_samples": 40},
    "07_failure_museum": {"steps": 6, "n_samples": 40, "n_points": 200},
    "08_scale_up": {"steps": 2, "n_samples": 30, "arms": "unsupervised"},
}


QUICK = """\
import pulib.prior

pulib.prior.STEPS, pulib.prior.COPIES = (60, 20, 20), 4  # of classifiers, for which the notebooks have no parameter"""


def reduced(path: Path) -> NotebookNode:
    """The notebook, with the parameters of `REDUCED` injected where it has some."""
    return with_parameters(path, REDUCED.get(path.stem, {}))


def with_parameters(path: Path, parameters: dict) -> NotebookNode:
    """The notebook, with parameters injected as papermill does, after a cell that shortens the training of its classifiers."""
    notebook = load_notebook_node(str(path))
    if parameters:
        notebook = parameterize_notebook(notebook, parameters)
    notebook.cells.insert(0, new_code_cell(QUICK))
    return notebook
