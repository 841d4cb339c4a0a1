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

LONGEST = ("test_class.py", "test_browser.py", "test_install.py", "test_doctor.py", "test_papermill", "test_project.py", "test_nbval", "test_scale.py", "test_runs.py")  # they start first, so that none is left at the end


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


# ------------------------------------------------------------------------- what was tried, at the end of the tests' output


@pytest.fixture
def tried(record_property):
    """A call that notes a fault or a bad input for the tables at the end of the output, made once what the test expects was seen.

    `tried("fault", WHAT, SENTENCE, lost)`: the sentence that a learner gets, and how many of the files or steps that existed are gone;
    `tried("bad input", CALL, SENTENCE)`.
    """
    record_property("trial", None)

    def note(kind: str, what: str, sentence: str, lost: int = 0) -> None:
        assert kind in ("fault", "bad input"), kind
        record_property(kind, [what, " ".join(sentence.split()), lost])

    return note


def pytest_terminal_summary(terminalreporter):
    reports = [report for reports in terminalreporter.stats.values() for report in reports if getattr(report, "when", "") == "call"]
    for kind in ("fault", "bad input"):
        rows = sorted(value for report in reports if report.passed for name, value in report.user_properties if name == kind)
        if rows:
            terminalreporter.section(f"{kind}s tried")
            for what, sentence, _ in rows:
                terminalreporter.write_line(f"{what}: {sentence}")
            lost = sum(row[2] for row in rows)
            end = f"survived {sum(not row[2] for row in rows)}, lost {lost}" if kind == "fault" else f"each refused with its sentence: {len(rows)}"
            terminalreporter.write_line(f"{kind}s tried {len(rows)}, {end}")
    if failed := sum(report.failed and ("trial", None) in report.user_properties for report in reports):
        terminalreporter.write_line(f"and {failed} that did not end as they should: see the failures")
