"""Shared by the tests: one thread and fixed examples, so that runs are quick and repeatable on a busy machine."""

import os

os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # the tests compare with tensors of the CPU
if "PYTEST_XDIST_WORKER" in os.environ:  # tests run side by side: one thread for each kernel and script that they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import Phase, settings

torch.set_num_threads(1)
phases = (Phase.explicit, Phase.generate, Phase.shrink)  # explaining a failure can take minutes
settings.register_profile("pulib", deadline=None, max_examples=50, derandomize=True, database=None, phases=phases)
settings.load_profile("pulib")
