"""Run all tests, or the course, N times in a row, and compare: no failure, and memory as in the first round; for authors, as it takes hours.

    python tests/soak.py 20            # the tests; make soak does the same
    python tests/soak.py 20 --course   # the notebooks, each in its own process, as make course
    python tests/soak.py 20 --rounds   # the heart of the course, N rounds in one process: a leak of the library itself shows here

Writes build/soak/<what>.json after each round: commit, seconds, exit status, memory in MB. Stopped and started again at the same commit,
with nothing changed, the tests and the course go on with the rounds that are missing. What a round that failed printed lies beside.

Compared is what a round leaves: of the tests and the course, the memory the machine has in use after each (a process left over, a file in memory);
of rounds in one process, that process. The largest process of a round of the tests is written down too, and not compared:
it differs by a tenth from one to the next, with the order in which the files fall to the two workers.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # comes with ipykernel

from pulib.data import BUILD, write_atomic

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {
    "tests": [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile"],
    "course": [sys.executable, "notebooks/course.py"],
}
SLACK = 1.05  # memory after the last round over that after the first


def in_use() -> float:
    """Memory the machine has in use now, without what it keeps of files to read them faster, in MB."""
    memory = psutil.virtual_memory()
    return (memory.total - memory.available) / 1024**2


def resident() -> float:
    """Resident memory of this process now, in MB."""
    return psutil.Process().memory_info().rss / 1024**2


def one_round() -> None:
    """Load, train, draw, judge, draw a figure, and take them away again."""
    from pulib import data, diffusion, evaluation, plots, prior, training
    from pulib.risk import pu_risk

    split, judge = data.load_pu(), evaluation.load_judge()
    settings = training.Settings(4, batch_unlabeled=16, batch_sensitive=4, precision="no")
    *_, record = training.fit(training.load_base(), split.unlabeled, lambda u, s: pu_risk(u, s, split.prior), settings, split.sensitive)
    drawn = diffusion.sample(record.model, 16, record.model.schedule, steps=8, seed=0)
    evaluation.read(judge, drawn)
    prior.fit_classifier(split.unlabeled[:60], split.sensitive[:20], steps=2)
    plots.digits(drawn, alt="digits")
    gc.collect()


def rounds(n: int) -> list[dict]:
    """Resident memory after each of `n` rounds in this process."""
    found = []
    for i in range(n):
        start = time.time()
        one_round()
        found.append({"round": i + 1, "seconds": round(time.time() - start, 1), "status": 0, "mb": round(resident(), 1)})
    return found


def commit() -> str:
    """The commit of this folder; with "-dirty" where files differ from it."""
    return subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def before(file: Path) -> list[dict]:
    """The rounds of an earlier call, where it ran this very commit."""
    now = commit()
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() and not now.endswith("-dirty") else []
    return found if all(row.get("commit") == now for row in found) else []


def repeat(what: str, first: int, n: int, folder: Path) -> Iterator[dict]:
    """Yield what the runs of a command took, from round `first` + 1 to `n`, and keep in `folder` what failing ones printed; `peak_mb` is the largest of all its processes (`wait4` of a process of its own each)."""
    for i in range(first, n):
        start = time.time()
        worker = "import resource, subprocess, sys; s = subprocess.run(sys.argv[1:]).returncode; print(s, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        run = subprocess.run([sys.executable, "-c", worker, *COMMANDS[what]], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        *printed, last = run.stdout.splitlines()
        status, kilobytes = map(int, last.split())
        if status:
            write_atomic(folder / f"{what}_{i + 1}.txt", run.stdout.encode())
        row = {"round": i + 1, "commit": commit(), "seconds": round(time.time() - start, 1), "status": status}
        yield row | {"mb": round(in_use(), 1), "peak_mb": round(kilobytes / 1024, 1), "processes": len(psutil.pids()), "last": printed[-1]}


def main() -> int:
    parser = argparse.ArgumentParser(description="Run all tests, or the course, N times in a row.")
    parser.add_argument("n", type=int, nargs="?", default=20)
    parser.add_argument("--course", action="store_true")
    parser.add_argument("--rounds", action="store_true")
    arguments = parser.parse_args()
    what = "rounds" if arguments.rounds else "course" if arguments.course else "tests"
    file = BUILD / "soak" / f"{what}.json"
    found = [] if arguments.rounds else before(file)[: arguments.n]
    for row in rounds(arguments.n) if arguments.rounds else repeat(what, len(found), arguments.n, file.parent):
        found.append(row)
        print(json.dumps(row), flush=True)
        write_atomic(file, (json.dumps(found, indent=2) + "\n").encode())
    failed, growth = sum(row["status"] != 0 for row in found), found[-1]["mb"] / found[0]["mb"]
    print(f"{what}: {len(found)} rounds, {failed} failed; memory after the last over that after the first: {growth:.3f}")
    return int(failed > 0 or growth > SLACK)


if __name__ == "__main__":
    sys.exit(main())
