"""Write what a lecturer hands out and marks with into build/handout/, from the notebooks and docs/teaching.md.

    python notebooks/handout.py             # everything
    python notebooks/handout.py --record    # keep the run times of the last `make course` in docs/timings.json

- student/: to hand out. No solutions and no outputs; the hints stay.
- solutions/: with outputs, and the solutions folded.
- marking/: the exercises alone, with points, solutions, common wrong answers, and a cell that marks a submission.
- teaching_guide.md: minutes, plans, exercises with common wrong answers, discussion questions with model answers.
"""

import json
import os
import re
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

from build import HERE, notebooks
from pulib import checks
from pulib.data import BUILD, write_atomic
from teaching import TIMINGS, Card, Times, cards, is_solution, seconds, times, wrong_answers

HANDOUT = BUILD / "handout"
SOURCE = HERE.parent / "docs" / "teaching.md"

# ------------------------------------------------------------------------------------ three versions


def student(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without solutions and outputs."""
    copy = deepcopy(notebook)
    copy.cells = [cell for cell in copy.cells if not is_solution(cell)]
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    copy.metadata.pop("pulib", None)
    return copy


def solved(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """With the solutions folded into the text, so that they can be read without running anything."""
    copy = deepcopy(notebook)
    copy.cells = [new_markdown_cell(_folded(cell.source), id=cell.id) if is_solution(cell) else cell for cell in copy.cells]
    copy.metadata.pop("pulib", None)
    return copy


def _folded(source: str) -> str:
    return checks.solution(re.findall(r'"(.+?)"', source)[0])._repr_markdown_()


def marking(name: str, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The exercises with points, solutions and common wrong answers, and a cell that marks a submission."""
    found = cards(notebook)
    total = sum(card.stars for card in found)
    top = f"# Marking {name}\n\n{len(found)} exercises, {total} points: a point per star, given for a right answer.\n\n{UNTRUSTED}"
    mark = os.path.relpath(HERE / "mark.py", HANDOUT / "marking")
    code = MARKING.format(mark=mark.replace(os.sep, "/"), notebook=name)
    cells = [new_markdown_cell(top), new_code_cell(code), *(cell for card in found for cell in _marked(card))]
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": notebook.metadata.get("kernelspec", KERNEL)})


def _marked(card: Card) -> list[nbformat.NotebookNode]:
    head = f"## {card.key}: {card.title}\n\n**{card.stars} points** · {card.minutes} minutes · expected: {card.expected}\n\n{card.task}"
    answer = f"**Solution**\n\n```python\n{checks.solution(card.key).code}\n```\n\n**Common wrong answers**\n\n{wrong_answers(card.key)}"
    return [new_markdown_cell(head), new_code_cell(card.stub), new_markdown_cell(answer)]


KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
UNTRUSTED = (
    "A submission is untrusted code. The next cell runs it in a process of its own with a time limit, and judges the numbers "
    "that its functions give, never what it prints. It can still read files and use the network as you can: mark where that does no harm."
)
MARKING = """import subprocess
import sys

submissions = ["submission.ipynb"]  # the files handed in
command = [sys.executable, "{mark}", "--notebook", "{notebook}", *submissions]
run = subprocess.run(command, capture_output=True, text=True)
print(run.stdout + run.stderr)"""


# --------------------------------------------------------------------------------------------- plans


@dataclass(frozen=True)
class Lesson:
    """What a plan and the guide need to know of a notebook."""

    name: str
    title: str
    times: Times
    cards: list[Card]


@dataclass(frozen=True)
class Part:
    """A row of a plan."""

    what: str
    minutes: int


OPENING, CLOSING, BREAK, DISCUSSION = 5, 5, 15, 5  # minutes; a discussion gets at least these


def fixed_minutes(lessons: Sequence[Lesson], breaks: int = 0) -> int:
    """What a session takes without any exercise."""
    return OPENING + CLOSING + BREAK * breaks + sum(lesson.times.talk + lesson.times.running + DISCUSSION for lesson in lessons)


def plan(lessons: Sequence[Lesson], minutes: int, breaks: int = 0) -> list[Part]:
    """A session of exactly `minutes`: what must be, then exercises from the easiest on, then discussion with what is left.

    Raises:
        ValueError: talks, runs and breaks alone take longer.
    """
    fixed = fixed_minutes(lessons, breaks)
    if fixed > minutes:
        raise ValueError(f"minutes must be at least {fixed} for {len(lessons)} notebooks; got {minutes}")
    chosen = in_class(lessons, minutes - fixed)
    left = minutes - fixed - sum(card.minutes for card in chosen)
    more = [left // len(lessons) + (i < left % len(lessons)) for i in range(len(lessons))]
    pauses = {round((i + 1) * len(lessons) / (breaks + 1)) for i in range(breaks)}
    parts = [Part("Opening and goals", OPENING)]
    for i, (lesson, extra) in enumerate(zip(lessons, more), 1):
        parts += [*lesson_parts(lesson, chosen, DISCUSSION + extra), *([Part("Break", BREAK)] if i in pauses else [])]
    return [*parts, Part("Closing: what you can now say; homework", CLOSING)]


def in_lectures(lessons: Sequence[Lesson], minutes: int) -> list[list[Lesson]]:
    """The first notebook alone, as installing and questions take time, then two in a lecture where both fit."""
    found = [[lesson] for lesson in lessons[:1]]
    for lesson in lessons[1:]:
        if len(found) > 1 and len(found[-1]) == 1 and fixed_minutes([*found[-1], lesson]) <= minutes:
            found[-1].append(lesson)
        else:
            found.append([lesson])
    return found


def in_class(lessons: Sequence[Lesson], minutes: int) -> list[Card]:
    """The exercises that fit: always the easiest that is left of the notebook that has the fewest minutes so far."""
    queues = [sorted(lesson.cards, key=lambda card: (card.stars, card.key)) for lesson in lessons]
    spent, chosen = [0] * len(lessons), []
    while any(queues):
        i = min((i for i, queue in enumerate(queues) if queue), key=lambda i: spent[i])
        card = queues[i].pop(0)
        if sum(spent) + card.minutes <= minutes:
            chosen.append(card)
            spent[i] += card.minutes
    return chosen


def lesson_parts(lesson: Lesson, chosen: Sequence[Card], discussion: int) -> list[Part]:
    now = [card for card in lesson.cards if card in chosen]
    later = [card.key for card in lesson.cards if card not in chosen]
    home = f" (at home: {', '.join(later)})" if later else ""
    work = [Part(f"{lesson.name}: exercises {', '.join(card.key for card in now)}{home}", sum(card.minutes for card in now))] if now else []
    talk = Part(f"{lesson.name}: slides, predictions by show of hands", lesson.times.talk)
    return [talk, Part(f"{lesson.name}: run all, sliders", lesson.times.running), *work, Part(f"{lesson.name}: discussion", discussion)]


def plan_table(parts: Sequence[Part]) -> str:
    rows, clock = ["| from | minutes | |", "|---|---|---|"], 0
    for part in parts:
        rows.append(f"| {clock // 60}:{clock % 60:02d} | {part.minutes} | {part.what} |")
        clock += part.minutes
    return "\n".join([*rows, f"| {clock // 60}:{clock % 60:02d} | **{clock}** | end |"])


# ---------------------------------------------------------------------------------------- the guide


def sections(markdown: str) -> dict[str, str]:
    """The text below each heading of level 2."""
    parts = re.split(r"^## (.+)\n", markdown, flags=re.MULTILINE)
    return {title.strip(): text.strip() for title, text in zip(parts[1::2], parts[2::2])}


def questions(markdown: str) -> dict[str, dict[str, str]]:
    """Discussion questions and model answers by notebook ("01" …): question -> answer."""
    found: dict[str, dict[str, str]] = {}
    for notebook, text in re.findall(r"^### Notebook (\d\d)\n(.*?)(?=^### |\Z)", sections(markdown)["Discussion questions"], re.MULTILINE | re.DOTALL):
        parts = re.split(r"^#### (.+)\n", text, flags=re.MULTILINE)
        found[notebook] = {question: answer.strip() for question, answer in zip(parts[1::2], parts[2::2])}
    return found


def guide(lessons: Sequence[Lesson], markdown: str) -> str:
    """The teaching guide as Markdown."""
    written, asked = sections(markdown), questions(markdown)
    lectures = in_lectures(lessons, 90)
    chapters = {
        "At a glance": glance(lessons),
        "A day": f"Six hours.\n\n{plan_table(plan(lessons, 360, breaks=3))}",
        "Lectures": "\n\n".join(f"### Lecture {i}, 90 minutes\n\n{plan_table(plan(part, 90))}" for i, part in enumerate(lectures, 1)),
        "Before class": written["Before class"],
        "What goes wrong in class": written["What goes wrong in class"],
        "Slides, handouts, marking": written["Slides, handouts, marking"],
    }
    chapters |= {f"Notebook {lesson.name}": chapter(lesson, asked.get(lesson.name[:2], {})) for lesson in lessons}
    return "# Teaching guide\n\n" + "\n\n".join(f"## {title}\n\n{text}" for title, text in chapters.items()) + "\n"


def glance(lessons: Sequence[Lesson]) -> str:
    rows = [
        f"| {n.name} | {n.times.talk} | {n.times.reading} | {n.times.exercises} | {n.times.running} | {n.times.learner} |" for n in lessons
    ]
    total = "| all | " + " | ".join(str(sum(getattr(n.times, what) for n in lessons)) for what in ("talk", "reading", "exercises", "running", "learner")) + " |"
    return "\n".join(["| notebook | talk | reading | exercises | running | learner in all |", "|---|---|---|---|---|---|", *rows, total, "", MINUTES])


MINUTES = (
    "Minutes. Running is measured by `make course`, rounded up. Reading counts the words, at 180 a minute, and ten seconds for each "
    "displayed equation and figure; who follows derivations with a pencil takes longer. Exercises "
    "are what their cards allow. A talk is estimated: its prose at 130 words a minute, and half a minute for each displayed equation and figure."
)


def chapter(lesson: Lesson, asked: dict[str, str]) -> str:
    found = [f"{lesson.title}\n\n{CARDS_HEAD}" if lesson.cards else lesson.title]
    found += [f"| {card.key} {card.title} | {'★' * card.stars} | {card.minutes} | {card.expected} |" for card in lesson.cards]
    rows = "\n".join(found)
    wrong = "\n\n".join(f"#### {card.key} {card.title}\n\n{wrong_answers(card.key)}" for card in lesson.cards)
    talk = "\n\n".join(f"#### {question}\n\n{answer}" for question, answer in asked.items())
    parts = [rows, f"### Common wrong answers, as the check says them\n\n{wrong}" if wrong else "", f"### To discuss\n\n{talk}" if talk else ""]
    return "\n\n".join(part for part in parts if part)


CARDS_HEAD = "| exercise | | minutes | expected |\n|---|---|---|---|"


# ---------------------------------------------------------------------------------------- the files


def lesson_of(path: Path, notebook: nbformat.NotebookNode, measured: dict[str, float]) -> Lesson:
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
    return Lesson(path.stem, title, times(path, notebook, measured), cards(notebook))


def record() -> None:
    """Keep the seconds measured last."""
    text = json.dumps({"seconds": seconds()}, indent=2, sort_keys=True)
    write_atomic(TIMINGS, (text + "\n").encode())


def main() -> None:
    measured, lessons = seconds(), []
    for path in notebooks():
        notebook = nbformat.read(path, as_version=4)
        lessons.append(lesson_of(path, notebook, measured))
        for kind, version in {"student": student(notebook), "solutions": solved(notebook), "marking": marking(path.stem, notebook)}.items():
            target = HANDOUT / kind / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(version, target)
            print(target, flush=True)
    target = HANDOUT / "teaching_guide.md"
    target.write_text(guide(lessons, SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
    print(target)


if __name__ == "__main__":
    record() if "--record" in sys.argv[1:] else main()
