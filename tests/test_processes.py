"""Several processes train what one would: the risk is formed from the whole batch, not from the mean of parts."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pulib import training

SCRIPT = Path(__file__).parent / "two_processes.py"
LAUNCH = {1: [sys.executable], 2: [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process and what two processes computed, by their number."""
    folder, results = tmp_path_factory.mktemp("processes"), {}
    for n, launch in LAUNCH.items():
        out = folder / f"{n}.safetensors"
        run = subprocess.run([*launch, str(SCRIPT), str(out)], capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stderr[-3000:]
        results[n] = load_file(out)
    return results


@pytest.mark.parametrize("correction", ["none", "clip", "abs"])
def test_two_processes_have_the_gradient_of_one(correction, found):
    one, two = (found[n][f"{correction} whole"] for n in (1, 2))
    assert one.norm() > 1e-3
    torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5 * one.abs().max().item())


@pytest.mark.parametrize("correction", ["clip", "abs"])
def test_the_mean_of_corrected_parts_is_another_gradient(correction, found):
    one, parts = found[1][f"{correction} whole"], found[2][f"{correction} parts"]
    assert (parts - one).norm() > 0.2 * one.norm()


def test_without_a_correction_the_parts_would_do(found):
    torch.testing.assert_close(found[2]["none parts"], found[1]["none whole"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("run", ["plain", "shared", "cap"])
def test_two_processes_train_the_model_of_one(run, found):
    one, two = found[1], found[2]
    torch.testing.assert_close(two[f"{run} risks"], one[f"{run} risks"], rtol=2e-3, atol=1e-3)
    moved = (one[f"{run} output"] - one[f"{run} start"]).abs().max()
    assert moved > 0.05
    torch.testing.assert_close(two[f"{run} output"], one[f"{run} output"], rtol=0, atol=0.01 * moved.item())


@pytest.mark.parametrize("changes, message", [({"batch_unlabeled": 3}, "a multiple of the 2 processes; got 5"), ({"budget": 0.1}, "budget must be None in several processes")])
def test_what_processes_cannot_share_is_refused(changes, message):
    settings = training.Settings(**({"steps": 1, "batch_unlabeled": 4, "batch_sensitive": 2} | changes))
    with pytest.raises(ValueError, match=message):
        training._check_processes(2, settings, torch.zeros(2, 1, 8, 8))
