"""Run by tests/test_runs.py, and killed by it: a training run with a checkpoint after each step.

    python tests/stopped_run.py CHECKPOINT STEPS [EVERY]
"""

import sys

import torch

from pulib.risk import pu_risk
from pulib.training import Settings, fit, new_model

if __name__ == "__main__":
    torch.set_num_threads(1)
    path, steps, every = sys.argv[1], int(sys.argv[2]), int((sys.argv + ["1"])[3])
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = Settings(steps, batch_unlabeled=6, batch_sensitive=2, checkpoint_every=every, cap=4.0, cap_level="running", min_snr=1.0)
    for record in fit(new_model((8, 16), T=50), images[:20], lambda u, s: pu_risk(u, s, 0.2), settings, images[20:], path):
        print(record.step, flush=True)
