"""The benchmark of training's speed runs, and its two sides have the same losses; how fast they are depends on the machine."""

import json
import subprocess
import sys

from pulib.data import ROOT

SIDE = {"side", "images_per_s", "memory_mb", "device_memory_mb", "first_step_s", "share_of_peak"}
SETTING = {"device", "torch", "precision", "threads", "network", "batch", "compile", "rounds", "steps"}


def test_throughput_compares_fit_with_a_plain_loop_at_equal_losses():
    command = [sys.executable, str(ROOT / "tests/benchmarks/throughput.py"), "--json", "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, plain, compared = [json.loads(line) for line in done.stdout.splitlines()]
    assert set(ours) == set(plain) == SIDE
    assert (ours["side"], plain["side"]) == ("ours", "plain")
    assert all(row["images_per_s"] > 0 and row["memory_mb"] > 0 and row["share_of_peak"] > 0 for row in (ours, plain))
    assert set(compared) == {"side", "ratio", "low", "high", "memory_ratio", "loss_difference", "gflops_per_image", "peak_gflops"} | SETTING
    assert 0 < compared["low"] <= compared["ratio"] <= compared["high"] and compared["memory_ratio"] > 0
    assert 0 <= compared["loss_difference"] < 1e-3
