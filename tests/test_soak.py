"""One process that does the work of the course again and again keeps its memory: tests/soak.py, in short."""

import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from statistics import median

import pytest
import soak

SOAK = Path(soak.__file__)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measured on Linux alone")
def test_memory_is_flat_over_rounds_in_one_process(tmp_path):
    env = os.environ | {"PULIB_BUILD": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, str(SOAK), "9", "--rounds"], env=env, capture_output=True, text=True)
    found = json.loads((tmp_path / "soak" / "rounds.json").read_text())
    memory = [row["mb"] for row in found]
    assert len(found) == 9 and run.stdout.splitlines()[-1].startswith("rounds: 9 rounds, 0 failed"), run.stderr
    assert median(memory[-3:]) < 1.05 * median(memory[:3]), memory


def test_rounds_go_on_where_they_were_stopped_at_the_same_commit(tmp_path, monkeypatch, capsys):
    def after(n: int, code: str, commit: str) -> list[dict]:
        monkeypatch.setattr(sys, "argv", ["soak.py", str(n)])
        monkeypatch.setitem(soak.COMMANDS, "tests", [sys.executable, "-c", code])
        monkeypatch.setattr(soak, "commit", lambda: commit)
        status = soak.main()
        found = json.loads((tmp_path / "soak" / "tests.json").read_text())
        assert status == any(row["status"] for row in found)
        return found

    monkeypatch.setattr(soak, "BUILD", tmp_path)
    monkeypatch.setattr(soak, "in_use", lambda: 1000.0)
    first = after(1, "print('7 passed')", "1a2b3c")
    assert [(row["round"], row["status"], row["last"], row["mb"]) for row in first] == [(1, 0, "7 passed", 1000.0)]
    assert 1 < first[0]["peak_mb"] < 1000 and first[0]["processes"] > 1
    more = after(3, "import sys; print('what failed'); sys.exit('1 failed')", "1a2b3c")
    assert more[:1] == first and [(row["round"], row["status"]) for row in more[1:]] == [(2, 1), (3, 1)]
    assert (tmp_path / "soak" / "tests_2.txt").read_text().startswith("what failed")
    assert [row["round"] for row in after(2, "print('7 passed')", "4d5e6f")] == [1, 2]
    assert len(after(1, "print('7 passed')", "4d5e6f-dirty")) == 1


@pytest.mark.parametrize(("left", "status"), [(1049, 0), (1051, 1)])
def test_rounds_that_leave_memory_in_use_on_the_machine_fail(tmp_path, monkeypatch, capsys, left, status):
    available = iter([2000, 2000 + 1000 - left])  # of 3000 MB, after the first round and after the second
    monkeypatch.setattr("psutil.virtual_memory", lambda: namedtuple("memory", "total available")(3000 * 1024**2, next(available) * 1024**2))
    monkeypatch.setattr(soak, "BUILD", tmp_path)
    monkeypatch.setattr(sys, "argv", ["soak.py", "2"])
    monkeypatch.setitem(soak.COMMANDS, "tests", [sys.executable, "-c", "print('7 passed')"])
    assert soak.main() == status
    assert capsys.readouterr().out.splitlines()[-1] == f"tests: 2 rounds, 0 failed; memory after the last over that after the first: {left / 1000:.3f}"
