"""mypy finds nothing in what pyproject.toml lists, which is all of pulib and its scripts, and finds a wrong call."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


def mypy(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mypy", *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14), reason="older torch declares less of itself")
def test_types_are_right():
    run = mypy()
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("call", "finding"),
    [
        ("from pulib.risk import pu_risk\npu_risk(1, 2, 'a lot')", '"str"; expected "float"'),
        ("from pulib.data import load_pu\nload_pu('prime')", "expected \"Literal['even', 'odd']\""),
        ("from pulib.data import check_count\ncheck_count('three')", 'Missing positional argument "name"'),
        ("from pulib.training import new_model\nnew_model(prediction='x0')", "expected \"Literal['eps', 'v']\""),
        ("from pulib.diffusion import linear_schedule\nlinear_schedule().betas", '"Schedule" has no attribute "betas"'),
        ("from pulib.rivals import arm\narm('pu', None)", 'expected "PUSplit"'),
    ],
)
def test_a_wrong_call_is_found(call, finding, tmp_path):
    (tmp_path / "wrong.py").write_text(call + "\n")
    run = mypy(str(tmp_path / "wrong.py"))
    assert run.returncode == 1 and finding in run.stdout, run.stdout
