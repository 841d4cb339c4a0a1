"""The gates of the notebooks: what is committed is whole and fresh, and everything runs offline, everywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from reduced import REDUCED, with_parameters

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))

import policy  # noqa: E402

from build import notebooks, tags  # noqa: E402
from course import execute  # noqa: E402

ALL = notebooks()
CHANGED = {
    "01_ddpm": {"normal": "odd", "seed": 3, "train_steps": 300},
    "02_pu_risk": {"prior": 0.12, "seed": 3},
    "03_negative_elbo": {"normal": "odd", "prior": 0.1, "seed": 3},
    "04_pu_diffusion": {"normal": "odd", "prior": 0.05, "seed": 3, "steps": 6, "n_samples": 40},
    "05_the_prior": {"normal": "odd", "assumed": 0.15, "contamination": 0.2, "seed": 3, "n_samples": 48},
    "07_failure_museum": {"seed": 3, "steps": 6, "n_samples": 40, "n_points": 200},
    "08_scale_up": {"steps": 2, "n_samples": 24, "arms": "unsupervised pu_paper"},
    "06_one_object": {"normal": "odd", "arm": "pu_sieved", "steps": 4, "n_samples": 40, "seed": 3},
}
by_name = pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Environment in which a kernel's network use fails and is logged, and results go to a temporary folder."""
    log = tmp_path / "network.log"
    paths = [str(Path(__file__).parent / "offline"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("PULIB_NETWORK_LOG", str(log))
    monkeypatch.setenv("PULIB_BUILD", str(tmp_path / "build"))
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    return log


def used_network(log: Path) -> str:
    return log.read_text() if log.exists() else ""


# ------------------------------------------------------------------------------- what is committed


@by_name
def test_committed_outputs_are_whole_and_fresh_with_sliders_twins_and_alternative_texts(path):
    assert policy.output_problems(path) == []


@by_name
def test_sizes_are_small(path):
    assert policy.size_problems(path) == []


@by_name
def test_parameters_are_declared_with_type_and_help(path):
    declared = papermill.inspect_notebook(path)
    assert declared and all(p["inferred_type_name"] != "None" and p["help"] for p in declared.values())
    assert CHANGED[path.stem].keys() <= declared.keys()
    assert REDUCED.get(path.stem, {}).keys() <= declared.keys() and REDUCED.keys() <= {other.stem for other in ALL}
    assert sum("parameters" in tags(cell) for cell in code_cells(path)) == 1


# --------------------------------------------------------------------------------- what runs


@pytest.mark.notebooks
@by_name
def test_nbval_with_other_parameters(path, offline, tmp_path, monkeypatch):
    monkeypatch.setenv("PULIB_TRY_SLIDERS", "1")  # with the notebook's own parameters, test_browser.py moves them
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    copy = tmp_path / path.name
    nbformat.write(with_parameters(path, CHANGED[path.stem]), copy)
    run = subprocess.run([*command, "--nbval-cell-timeout=300", str(copy)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]
    assert used_network(offline) == ""


@pytest.mark.notebooks
@by_name
def test_papermill(path, offline, tmp_path):
    row = execute(path, tmp_path / path.name, {})
    assert row["status"] == "ok"
    assert row["peak_mb"] is None or row["peak_mb"] < 2048  # no such figure on Windows
    assert used_network(offline) == ""
    results = tmp_path / "build" / "course" / f"{path.stem}.results.json"
    written = {file for file in (tmp_path / "build").rglob("*") if file.is_file()}
    if path.stem != "08_scale_up":  # it keeps its runs too
        assert written == ({results} if path.stem == "04_pu_diffusion" else set()), "a killed kernel has nothing to lose"
    if path.stem == "04_pu_diffusion":
        keys = {"split", "arm", "nsr", "nsr_low", "nsr_high", "frechet", "frechet_floor", "class_tv", "n", "seeds"}
        assert all(keys <= row.keys() for row in json.loads(results.read_text()))


# ------------------------------------------------------------------- the gates themselves bite


def write(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def test_a_cell_that_raises_is_reported(tmp_path):
    row = execute(write(tmp_path / "bad.ipynb", "1 / 0"), tmp_path / "out.ipynb", {})
    assert "ZeroDivisionError" in row["status"]


@pytest.mark.parametrize(
    "source",
    [
        "from pulib import widgets\nwidgets.slider(lambda v: 1 / 0, 'x', 0.5, 0, 1, 0.1)",
        "import ipywidgets as w\nw.interact(lambda x: 1 / 0, x=(0, 3))",
    ],
    ids=["our slider", "interact"],
)
def test_a_slider_whose_callback_raises_is_reported(tmp_path, source):
    row = execute(write(tmp_path / "bad.ipynb", source), tmp_path / "out.ipynb", {})
    assert "ZeroDivisionError" in row["status"]


def test_a_slider_that_raises_at_an_end_is_reported(tmp_path, offline, monkeypatch):
    monkeypatch.setenv("PULIB_TRY_SLIDERS", "1")
    source = (
        "from pulib import plots, widgets\n"
        "picture = plots.curves({'a': ([0, 1], [0, 1])}, 'x', 'y', 'A line.')\n"
        "widgets.slider(lambda v: (picture, str(1 / (v - 1))), 'x', 0.5, 0, 1, 0.1)"
    )
    row = execute(write(tmp_path / "bad.ipynb", source), tmp_path / "out.ipynb", {})
    assert "ZeroDivisionError" in row["status"]


def test_a_killed_worker_is_reported(tmp_path):
    source = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"
    row = execute(write(tmp_path / "bad.ipynb", source), tmp_path / "out.ipynb", {})
    assert row["status"] != "ok"


def test_network_use_is_noticed(tmp_path, offline):
    source = "import urllib.request\ntry:\n    urllib.request.urlopen('http://mnist.example/')\nexcept OSError:\n    pass"
    row = execute(write(tmp_path / "bad.ipynb", source), tmp_path / "out.ipynb", {})
    assert row["status"] == "ok" and "mnist.example" in used_network(offline)
