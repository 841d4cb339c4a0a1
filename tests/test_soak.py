"""One process that does the work of the course again and again keeps its memory: tests/soak.py, in short."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

SOAK = Path(__file__).with_name("soak.py")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the size of the process from /proc")
def test_memory_is_flat_over_rounds_in_one_process(tmp_path):
    env = os.environ | {"PULIB_BUILD": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, str(SOAK), "9", "--rounds"], env=env, capture_output=True, text=True)
    found = json.loads((tmp_path / "soak" / "rounds.json").read_text())
    memory = [row["mb"] for row in found]
    assert len(found) == 9 and run.stdout.splitlines()[-1].startswith("rounds: 9 rounds, 0 failed"), run.stderr
    assert median(memory[-3:]) < 1.05 * median(memory[:3]), memory
