"""Mark submitted notebooks: a verdict and points for each exercise.

    python notebooks/mark.py submission.ipynb …          # --json: one JSON object per submission and line

A submission is somebody else's code. It runs in a process of its own, in an empty folder, with a time limit and without
this process's environment, and nothing that it prints counts. From that process come only numbers: what an exercise's
`observe` saw of the function that bears the right name. They are judged here. This keeps honest mistakes and crude
tricks out. It is no wall: the code can read files and use the network as you can, so mark on a machine, or in a
container, where that does no harm.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nbformat
import torch

from build import notebooks
from pulib.exercises import EXERCISES
from pulib.exercises.base import Exercise, Verdict, attempt, judge
from teaching import Card, cards

TIME_LIMIT = 600  # seconds for one submission
REPORT_BYTES = 20_000_000  # of a report that are read
KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG")  # of the environment: what Python may need to start


@dataclass(frozen=True)
class Mark:
    """Points for one exercise, of how many, and why."""

    key: str
    title: str
    points: int
    of: int
    state: str
    says: str


# ------------------------------------------------------------------------- in the process of its own


def run(job: Path, report: Path) -> None:
    """Run a submission's cells in order; after each, observe the functions asked for that it defined anew."""
    from IPython.core.interactiveshell import InteractiveShell

    work = json.loads(job.read_text(encoding="utf-8"))
    report.touch()
    shell = InteractiveShell.instance()
    known: dict[str, object] = {}
    if shell.history_manager is not None:
        shell.history_manager.enabled = False
    for source in work["cells"]:
        shell.run_cell(source)
        for key, name in work["functions"].items():
            if (answer := shell.user_ns.get(name)) is not known.get(key):
                known[key] = answer
                tell(report, {"key": key, "state": "wrong", "says": "your function did not finish"})
                tell(report, {"key": key} | look(EXERCISES[key], answer))


def look(exercise: Exercise, answer: Any) -> dict:
    """What `observe` sees of an answer as plain numbers, or why it sees nothing."""
    seen = attempt(exercise, answer)
    if isinstance(seen, Exception):
        return asdict(judge(exercise, answer))
    return {"seen": {name: [list(value.shape), value.flatten().tolist()] for name, value in seen.items()}}


def tell(report: Path, line: dict) -> None:
    with report.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


# ------------------------------------------------------------------------------------------------ here


def cells_to_run(notebook: nbformat.NotebookNode, functions: Iterable[str]) -> list[str]:
    """The code up to the last that names one of the functions, as what comes after it defines no answer."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    naming = [i for i, source in enumerate(code) if any(names(source, function) for function in functions)]
    return code[: naming[-1] + 1] if naming else []


def names(text: str, function: str) -> bool:
    return bool(re.search(rf"\b{function}\b", text))


def observed(submission: Path, exercises: Sequence[Card], time_limit: float) -> tuple[dict[str, dict], bool]:
    """The last report on each exercise from a process that runs the submission, and whether it ended in time."""
    notebook = nbformat.read(submission, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        functions = {card.key: card.function for card in exercises}
        report, in_time = run_job(folder, cells_to_run(notebook, functions.values()), functions, time_limit)
        text = report.read_bytes()[:REPORT_BYTES].decode(errors="replace") if report.exists() else ""
    lines = [line for line in map(parsed, text.splitlines()) if line.get("key") in functions]
    return {line["key"]: line for line in lines}, in_time


def run_job(folder: str, cells: list[str], functions: dict[str, str], time_limit: float) -> tuple[Path, bool]:
    """Run cells apart, in a folder; the report, which is there if the process started, and whether it ended in time."""
    job, report = Path(folder) / "job.json", Path(folder) / "report.jsonl"
    job.write_text(json.dumps({"cells": cells, "functions": functions}), encoding="utf-8")
    return report, run_apart([sys.executable, str(Path(__file__).resolve()), "--run", str(job), str(report)], folder, time_limit)


def check_apart() -> None:
    """Look whether a process starts in the environment that submissions get; without this look all would get no points.

    Raises:
        RuntimeError: it does not.
    """
    with tempfile.TemporaryDirectory() as folder:
        report, _ = run_job(folder, [], {}, TIME_LIMIT)
        if not report.exists():
            kept = ", ".join(KEPT)
            raise RuntimeError(f"{sys.executable} does not start with nothing but {kept} of this environment: nothing was marked; set what it needs in one of them")


def run_apart(command: list[str], folder: str, time_limit: float) -> bool:
    """Run a command in a process group of its own and end the whole group; whether it was done in time."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    env = kept | {"HOME": folder, "IPYTHONDIR": folder, "MPLCONFIGDIR": folder, "PULIB_BUILD": folder}
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=folder, env=env, start_new_session=True, stdin=nothing, stdout=nothing, stderr=nothing)
    try:
        process.wait(time_limit)
        return True
    except subprocess.TimeoutExpired:
        return False
    finally:
        end_group(process)


def end_group(process: subprocess.Popen) -> None:
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def parsed(line: str) -> dict:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def verdict(exercise: Exercise, line: dict) -> Verdict:
    """Judge what was observed, in this process; whatever else the line says is only passed on."""
    if "seen" not in line:
        state = line["state"] if line.get("state") in ("wrong", "not attempted") else "wrong"
        return Verdict(state, plain(str(line.get("says"))))
    try:
        seen = {name: torch.tensor(values, dtype=torch.float64).reshape(shape) for name, (shape, values) in line["seen"].items()}
        ours = {exercise.solution, *(mistake.function for mistake in exercise.mistakes)}
        return judge(replace(exercise, observe=lambda f: exercise.observe(f) if f in ours else seen), lambda: None)
    except Exception:  # the numbers come from a stranger
        return Verdict("wrong", "what the function gave back could not be read")


def plain(text: str) -> str:
    """One short line of printable letters."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:200]


def mark(submission: Path, exercises: Sequence[Card], time_limit: float = TIME_LIMIT) -> list[Mark]:
    """The marks of a submission: all points for a right answer, none otherwise.

    Raises:
        ValueError: the file is no notebook.
    """
    try:
        lines, in_time = observed(submission, exercises, time_limit)
    except (OSError, nbformat.reader.NotJSONError, nbformat.ValidationError, AttributeError) as error:
        raise ValueError(f"{submission} is not a notebook: {error}") from None
    missing = "no such function in the notebook" if in_time else f"not reached in {time_limit:g} seconds"
    found = []
    for card in exercises:
        unseen = {"state": "not attempted", "says": f"{card.function}: {missing}"}
        given = verdict(EXERCISES[card.key], lines.get(card.key, unseen))
        found.append(Mark(card.key, card.title, card.stars * (given.state == "right"), card.stars, given.state, given.says))
    return found


def exercises_of(submission: Path, prefix: str = "") -> tuple[str, list[Card]]:
    """The course's notebook whose functions the submission names, and its exercises.

    Raises:
        ValueError: it names none of them.
    """
    text = submission.read_text(encoding="utf-8", errors="replace")
    course = {path.stem: cards(nbformat.read(path, as_version=4)) for path in notebooks(prefix)}
    counts = {stem: sum(names(text, card.function) for card in exercises) for stem, exercises in course.items()}
    found = max(counts, key=counts.__getitem__)
    if not counts[found]:
        raise ValueError(f"{submission} has no exercise of {', '.join(course)}")
    return found, course[found]


def sheet(name: str, notebook: str, marks: Sequence[Mark]) -> str:
    """The mark sheet as text."""
    rows = [f"  {m.key}  {m.points}/{m.of}  {m.state:14}{m.title}{reason(m)}" for m in marks]
    total = f"{name} ({notebook}): {sum(m.points for m in marks)} of {sum(m.of for m in marks)} points"
    return "\n".join([total, *rows])


def reason(mark: Mark) -> str:
    """What the state does not say by itself."""
    return "" if mark.state == "right" or mark.says.startswith("not attempted") else f": {mark.says}"


def marked(path: Path, options: argparse.Namespace) -> str:
    """The mark sheet of one submission, as text or JSON."""
    notebook, exercises = exercises_of(path, options.notebook)
    marks = mark(path, exercises, options.time_limit)
    row = {"submission": str(path), "notebook": notebook, "points": sum(m.points for m in marks), "of": sum(m.of for m in marks)}
    return json.dumps(row | {"exercises": [asdict(m) for m in marks]}) if options.json else sheet(path.name, notebook, marks)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("submissions", nargs="*", type=Path)
    parser.add_argument("--notebook", default="", help="which notebook it is, such as 02; found by its functions if left out")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, help="seconds for one submission")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--run", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(*options.run)
    failed = 0
    if options.submissions:
        try:
            check_apart()
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
    for path in options.submissions:
        try:
            print(marked(path, options), flush=True)
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
