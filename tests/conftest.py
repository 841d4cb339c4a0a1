"""Shared by the tests: one thread, fixed examples, and who runs what, so that runs are quick and repeatable on a busy machine."""

import os

os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # the tests compare with tensors of the CPU
if "PYTEST_XDIST_WORKER" in os.environ:  # tests run side by side: one thread for each kernel and script that they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import Phase, settings

torch.set_num_threads(1)
phases = (Phase.explicit, Phase.generate, Phase.shrink)  # explaining a failure can take minutes
settings.register_profile("pulib", deadline=None, max_examples=50, derandomize=True, database=None, phases=phases)
settings.load_profile("pulib")

LONGEST = ("test_browser.py", "test_papermill", "test_project.py", "test_nbval", "test_scale.py", "test_runs.py")  # they start first, so that none is left at the end


def pytest_collection_modifyitems(items):
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: next((i for i, name in enumerate(LONGEST) if name in item.nodeid), len(LONGEST)))


def unit(nodeid: str) -> str:
    """Tests with the same are run by the same worker: those of a file, which share what is made once; but each run of a notebook is on its own."""
    file = nodeid.split("::")[0]
    return nodeid if file.endswith("test_notebooks.py") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """For `--dist loadfile`: it goes by `unit`, in the order of collection.

    (The marks of `--dist loadgroup` would say the same in place, but with pytest 9.2 pytest-xdist 3.8 passes over them: its issue 1386.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return ByUnit(config, log)
