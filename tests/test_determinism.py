"""The same seed on the same machine gives the same bits, in one process and in another, with one thread and with two.

Another number of threads is another order of rounding: results may then differ in their last digits, as on another machine.
"""

import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch

from pulib import data, diffusion, evaluation, prior, training
from pulib.risk import pu_risk


def digest(*tensors: torch.Tensor) -> str:
    return hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest()


def play() -> dict[str, str]:
    """What a notebook does, from the split to the measures: a digest of each."""
    split, judge = data.load_pu(), evaluation.load_judge()
    settings = training.Settings(2, batch_unlabeled=8, batch_sensitive=4, precision="no")
    model = list(training.fit(training.load_base(), split.unlabeled, lambda u, s: pu_risk(u, s, split.prior), settings, split.sensitive))[-1].model
    drawn, noisier = (diffusion.sample(model, 8, model.schedule, steps=4, seed=0, eta=eta) for eta in (0.0, 1.0))
    reading = evaluation.read(judge, drawn)
    scores = prior.fit_classifier(split.unlabeled[:60], split.sensitive[:20], steps=2)
    return {
        "split": digest(split.unlabeled, split.sensitive),
        "weights": digest(*model.parameters()),
        "drawings": digest(drawn),
        "drawings with noise in each step": digest(noisier),
        "judgement": digest(reading.features),
        "scores": digest(scores.unlabeled, scores.sensitive),
    }


def played(threads: int) -> dict[str, str]:
    run = subprocess.run([sys.executable, __file__, str(threads)], env=os.environ | {"OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.parametrize("threads", [1, 2])
def test_two_processes_give_the_same_bits(threads):
    first = played(threads)
    assert first["threads"] == threads and first["again"] == first["once"]
    assert played(threads) == first
    assert len(set(first["once"].values())) == len(first["once"])


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps({"once": play(), "again": play(), "threads": torch.get_num_threads()}))
