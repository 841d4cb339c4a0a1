"""What the lecturer's pack reads off a notebook: its exercises, its prose and its minutes."""

import json
import re
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import nbformat

from build import HERE, tags
from pulib.data import BUILD
from pulib.exercises import EXERCISES

TIMINGS = HERE.parent / "docs" / "timings.json"  # seconds per notebook, used until `make course` has measured here
WORDS_PER_MINUTE, SPOKEN_PER_MINUTE = 180, 130

CARD = re.compile(r"\s*### Exercise (?P<key>\d\d\.\d+): (?P<title>.+)\n\s*(?P<stars>★+)☆* · (?P<minutes>\d+) minutes? · expected: (?P<expected>.+)\n")
DETAILS = re.compile(r"<details>\s*<summary>.*?</summary>(.*?)</details>", re.DOTALL)


@dataclass(frozen=True)
class Card:
    """An exercise as its notebook sets it; a point per star."""

    key: str
    title: str
    stars: int
    minutes: int
    expected: str
    task: str
    hint: str
    stub: str  # what the learner completes, without the line that checks it
    function: str  # its name


def cards(notebook: nbformat.NotebookNode) -> list[Card]:
    """The exercises of a notebook in order; none is fine."""
    found = []
    for i, cell in enumerate(notebook.cells):
        card = CARD.match(cell.source) if cell.cell_type == "markdown" else None
        if card:
            found.append(_card(card, cell.source[card.end() :], _exercise_after(notebook, i).source))
    return found


def _exercise_after(notebook: nbformat.NotebookNode, i: int) -> nbformat.NotebookNode:
    return next(cell for cell in notebook.cells[i + 1 :] if "exercise" in tags(cell))


def _card(card: re.Match, rest: str, code: str) -> Card:
    hint = DETAILS.search(rest)
    stub, function = re.split(rf'\n\w+ = checks\.check\("{card["key"]}", (\w+)\)', code)[:2]
    return Card(
        card["key"], card["title"], len(card["stars"]), int(card["minutes"]), card["expected"],
        DETAILS.sub("", rest).strip(), hint[1].strip() if hint else "", stub.strip(), function,
    )  # fmt: skip


def wrong_answers(key: str) -> str:
    """What the check says to known wrong answers, as a list; nothing for an exercise that nobody has defined."""
    said = dict.fromkeys(mistake.says for mistake in EXERCISES[key].mistakes) if key in EXERCISES else ()
    return "\n".join(f"- {sentence}." for sentence in said)


def is_solution(cell: nbformat.NotebookNode) -> bool:
    """Is this the cell that unfolds a solution?"""
    return cell.cell_type == "code" and cell.source.startswith("checks.solution(")


def prose(notebook: nbformat.NotebookNode) -> str:
    """The text to be read: no hints, equations, code, tables' frames, addresses or references."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.split(r"^## References$", text, flags=re.MULTILINE)[0]
    for gone in (DETAILS, re.compile(r"```.*?```|\$\$.*?\$\$", re.DOTALL), re.compile(r"\$[^$]+\$|`[^`]+`|\]\([^)]+\)|[|#*\[\]☆★]")):
        text = gone.sub(" ", text)
    return text


def words(notebook: nbformat.NotebookNode) -> int:
    return len(re.findall(r"\w[\w'’.,-]*", prose(notebook)))


def seconds() -> dict[str, float]:
    """Measured run time of each notebook: of `make course` on this machine, or else the committed one."""
    known = json.loads(TIMINGS.read_text(encoding="utf-8"))["seconds"]
    summary = BUILD / "course" / "summary.json"
    rows = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else []
    return known | {row["notebook"]: row["seconds"] for row in rows if row["status"] == "ok"}


@dataclass(frozen=True)
class Times:
    """Minutes that a notebook takes: to talk it through, to read, to do its exercises, to run."""

    talk: int
    reading: int
    exercises: int
    running: int

    @property
    def learner(self) -> int:
        """Minutes of somebody who works alone."""
        return self.reading + self.exercises + self.running


def times(path: Path, notebook: nbformat.NotebookNode, measured: dict[str, float]) -> Times:
    text = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    shown = text.count("$$") // 2 + text.count("**Figure ")
    return Times(
        ceil(words(notebook) / SPOKEN_PER_MINUTE + 0.5 * shown),
        round(words(notebook) / WORDS_PER_MINUTE + shown / 6),
        sum(card.minutes for card in cards(notebook)),
        ceil(measured.get(path.stem, 60) / 60),
    )
