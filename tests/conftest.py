"""Shared by the tests: one thread and fixed examples, so that runs are quick and repeatable on a busy machine."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("pulib", deadline=None, max_examples=50, derandomize=True, database=None)
settings.load_profile("pulib")
