"""The lecturer's pack: slides that fit and need no network, handouts without solutions, marks that cannot be printed, plans that add up."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))

import handout  # noqa: E402
import mark  # noqa: E402
import slides  # noqa: E402
from build import notebooks, tags  # noqa: E402
from pulib.exercises import EXERCISES  # noqa: E402
from teaching import TIMINGS, Card, Times, cards, seconds, times, wrong_answers  # noqa: E402

PNG = nbformat.read(ROOT / "notebooks" / "01_ddpm.ipynb", as_version=4)
PNG = next(o for cell in PNG.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {}))
EXERCISE = """### Exercise {key}: {title}
{stars} · 4 minutes · expected: `{key} correct, going on with your function.`

Write (1.2) for the sample.

<details><summary>Hint</summary>

A hint for {key}.

</details>"""
STUB = '''def {name}({arguments}):
    """What {key} asks for."""
    return ...  # your code


answer = checks.check("{key}", {name})'''


def exercise(key: str, title: str, stars: str, name: str, arguments: str) -> list:
    return [
        new_markdown_cell(EXERCISE.format(key=key, title=title, stars=stars)),
        new_code_cell(STUB.format(key=key, name=name, arguments=arguments), metadata={"tags": ["exercise"]}),
        new_code_cell(f'checks.solution("{key}")'),
    ]


def sample() -> nbformat.NotebookNode:
    """A notebook in the layout of the course's."""
    return new_notebook(
        cells=[
            new_markdown_cell("# 1. A sample\n\n**Is it small?**\n\n## Goals\n- One goal.\n\n**Time:** reading about 1 minutes."),
            new_code_cell("import torch\n\nfrom pulib import checks, widgets"),
            new_code_cell("steps: int = 3  # of nothing", metadata={"tags": ["parameters"]}),
            new_markdown_cell("## 1. A section\n\nThis is long prose that is said. It leads into the sum of all that there is:\n\n$$x = \\frac12 \\tag{1.1}$$"),
            *exercise("01.1", "the first", "★☆☆", "my_alpha_bar", "beta"),
            *exercise("01.2", "noise for the PU sample", "★★☆", "my_add_noise", "x0, t, noise, schedule"),
            new_code_cell(
                'guess = widgets.predict(f"What of {steps} steps, and {unknown}?", "one answer", "another")\nguess', metadata={"tags": ["predict"]}
            ),
            new_code_cell("plot()", outputs=[PNG]),
            new_markdown_cell("**Figure 1.1.** A caption."),
            new_code_cell("slider()", metadata={"tags": ["live-widget"]}),
            new_code_cell("guess.compare(1)", outputs=[new_output("stream", text="You made no prediction.\nWhat happened: one answer.\n")]),
            new_code_cell("print(1)  # (1.1)", outputs=[new_output("stream", text="1\n")]),
            new_markdown_cell("## References\n- Nobody."),
        ]
    )


def text_of(deck: list) -> tuple[str, str]:
    """What slides show, and what is said."""
    return "\n".join("\n".join([slide.title, *slide.shown]) for slide in deck), "\n".join("\n".join(slide.notes) for slide in deck)


ALL = [pytest.param(sample(), id="sample")] + [pytest.param(nbformat.read(path, as_version=4), id=path.stem) for path in notebooks()]
each = pytest.mark.parametrize("notebook", ALL)


# ---------------------------------------------------------------------------------------------- slides


@each
def test_every_exercise_has_a_slide_that_gives_nothing_away(notebook):
    shown, said = text_of(slides.deck(notebook))
    for card in cards(notebook):
        assert shown.count(f"## Exercise {card.key}: {card.title}\n") == 1
        assert card.stub in shown and card.hint in said and card.hint not in shown
        assert all(mistake.says in said and mistake.says not in shown for mistake in EXERCISES[card.key].mistakes)
    assert "checks.check" not in shown


@each
def test_equations_and_figures_are_shown(notebook):
    shown, _ = text_of(slides.deck(notebook))
    markdown = [slides.DETAILS.sub("", cell.source) for cell in notebook.cells if cell.cell_type == "markdown"]
    assert all(equation in shown for text in markdown for equation in re.findall(r"^\$\$.*?\$\$", text, re.DOTALL | re.MULTILINE))
    figures = [o for cell in notebook.cells if "live-widget" not in tags(cell) for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert shown.count("<img") == len(figures)
    assert all(len(alt) > 20 for alt in re.findall(r'<img [^>]*alt="(.*?)"', shown, re.DOTALL))


def test_what_is_shown_of_the_sample():
    shown, said = text_of(slides.deck(sample()))
    assert "It leads into the sum of all that there is:" in shown and "long prose" not in shown and "long prose" in said
    assert "**What of … steps, and …?**" in shown and "- **B.** another" in shown
    assert "**What happened: one answer.**" in shown and "You made no prediction" not in shown
    assert "Live in the notebook" in shown and "References" not in shown


def test_sentences_end_where_they_end():
    text = "By Ho et al. (2020) $a. b$ holds, i.e. always. Is `x. Y` code? Yes.\n**Stop.** Then (1.2) follows."
    assert slides.sentences(text) == ["By Ho et al. (2020) $a. b$ holds, i.e. always.", "Is `x. Y` code?", "Yes.", "**Stop.**", "Then (1.2) follows."]


def test_of_long_code_the_lines_with_equations_are_shown():
    code = "\n".join(["def f():", '    """Long."""', *["    pass"] * 20, "    return x  # (1.2)"])
    assert slides.short_code(code) == "return x  # (1.2)"
    assert slides.short_code("a = 1\nb = 2") == "a = 1\nb = 2"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> list[Path]:
    """The slides of all notebooks and of the sample."""
    folder = tmp_path_factory.mktemp("slides")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slides, "SLIDES", folder)
        slides.libraries()
        nbformat.write(sample(), folder / "00_sample.ipynb")
        return [slides.write(path) for path in [folder / "00_sample.ipynb", *notebooks()]]


def test_slides_load_nothing_from_elsewhere(built):
    for page in built:
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        used = [tag.get("src") or tag.get("href") for tag in soup.find_all(["script", "link", "img", "iframe", "source"])]
        local = [name for name in used if name and not name.startswith("data:")]
        assert local and all((page.parent / name).is_file() for name in local)
    styles = [path.read_text(encoding="utf-8") for path in [*built[0].parent.rglob("*.css"), *built]]
    assert not any(re.search(r"url\([\"']?(https?:)?//", style) for style in styles)
    assert len(list((built[0].parent / "lib").rglob("*.woff"))) > 0


@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("google-chrome")), reason="needs a Chromium browser")
def test_slides_fit_in_a_browser_without_network(built):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,720", "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=60000"]
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda page: subprocess.run([browser, *options, "--dump-dom", page.as_uri()], capture_output=True, timeout=120), built))
    for page, run in zip(built, runs):
        soup = BeautifulSoup(run.stdout, "html.parser")
        leaves = [section for section in soup.select(".slides section") if not section.find("section")]
        assert soup.body["data-ready"] == "yes" and leaves and all(leaf["data-over"] == "false" for leaf in leaves)
        assert min(int(leaf["data-size"]) for leaf in leaves) >= 70, page.name
        assert soup.select("mjx-container svg") and not soup.select("[data-mjx-error]") and "$$" not in soup.select_one(".slides").text


# -------------------------------------------------------------------------------------------- handouts


@each
def test_student_version_has_hints_and_no_solutions(notebook):
    version = handout.student(notebook)
    nbformat.validate(version)
    code = "\n".join(cell.source for cell in version.cells if cell.cell_type == "code")
    everything = json.dumps(version, ensure_ascii=False)
    for card in cards(notebook):
        body = inspect.getsource(EXERCISES[card.key].solution).strip().splitlines()[-1].strip()
        assert card.stub in code and f'checks.check("{card.key}", {card.function})' in code and card.hint.splitlines()[0] in "\n".join(c.source for c in version.cells)
        assert json.dumps(body)[1:-1] not in everything.replace(json.dumps(card.stub)[1:-1], "")
    assert "checks.solution" not in code and all(not cell.outputs and cell.execution_count is None for cell in version.cells if cell.cell_type == "code")
    kept = [cell for cell in notebook.cells if not handout.is_solution(cell)]
    assert [cell.source for cell in version.cells] == [cell.source for cell in kept]  # so that it runs as the notebook does


@each
def test_solutions_are_folded_and_the_librarys(notebook):
    version = handout.solved(notebook)
    nbformat.validate(version)
    text = "\n".join(cell.source for cell in version.cells if cell.cell_type == "markdown")
    for card in cards(notebook):
        assert text.count(f"<details><summary>Solution of {card.key}</summary>") == 1
        assert inspect.getsource(EXERCISES[card.key].solution).strip().splitlines()[-1] in text


@each
def test_marking_version_has_points_solutions_and_a_marking_cell(notebook):
    version = handout.marking("01_ddpm", notebook)
    nbformat.validate(version)
    text = "\n".join(cell.source for cell in version.cells)
    points = sum(int(n) for n in re.findall(r"\*\*(\d) points\*\*", text))
    assert f"{len(cards(notebook))} exercises, {points} points" in text and "untrusted" in text and "notebooks/mark.py" in text
    assert all(f"## {card.key}: {card.title}" in text and wrong_answers(card.key) in text for card in cards(notebook))


# --------------------------------------------------------------------------------------------- marking

RIGHT = {"01.1": "torch.cumprod(1 - beta, 0)", "01.2": "diffusion.add_noise(x0, t, noise, schedule)"}
WRONG = {"01.1": "torch.cumprod(beta, 0)"}
TRICKS = """import pulib.exercises.base
from pulib.exercises.base import Verdict
pulib.exercises.base.judge = lambda *a: Verdict("right", "correct")
checks.check = lambda key, answer: answer
print('{"key": "01.1", "state": "right", "says": "correct"}')
import mark; mark.verdict = lambda *a: Verdict("right", "")"""


def submission(folder: Path, name: str, answers: dict[str, str], first: str = "1 / 0") -> Path:
    """The sample's student version with answers in the place of the stubs' `...`."""
    version = handout.student(sample())
    for cell in version.cells:
        for key, answer in answers.items():
            if f'checks.check("{key}"' in cell.source:
                cell.source = cell.source.replace("return ...  # your code", f"return {answer}")
    version.cells.insert(2, new_code_cell(f"from pulib import diffusion\n{first}"))
    path = folder / f"{name}.ipynb"
    nbformat.write(version, path)
    return path


@pytest.fixture(scope="module")
def marked(tmp_path_factory) -> dict[str, list[mark.Mark]]:
    """Sample submissions and their marks; each runs in a process of its own."""
    folder = tmp_path_factory.mktemp("submissions")
    made = {
        "untouched": submission(folder, "untouched", {}, "pass"),
        "right": submission(folder, "right", RIGHT),
        "partly wrong": submission(folder, "partly", RIGHT | WRONG, TRICKS),
    }
    with ThreadPoolExecutor(3) as pool:
        jobs = {name: pool.submit(mark.mark, path, cards(sample()), 120) for name, path in made.items()}
        return {name: job.result() for name, job in jobs.items()}


def test_an_untouched_submission_attempts_nothing(marked):
    assert [(m.key, m.points, m.of, m.state) for m in marked["untouched"]] == [("01.1", 0, 1, "not attempted"), ("01.2", 0, 2, "not attempted")]


def test_right_answers_get_their_points_although_another_cell_fails(marked):
    assert [(m.points, m.state) for m in marked["right"]] == [(1, "right"), (2, "right")]


def test_a_wrong_answer_gets_its_diagnosis_whatever_the_submission_prints_or_patches(marked):
    first, second = marked["partly wrong"]
    assert (first.points, first.state) == (0, "wrong") and "you multiplied the beta_t" in first.says
    assert (second.points, second.state) == (2, "right")


def test_an_endless_process_is_stopped_with_its_children(tmp_path):
    code = "import subprocess, time; open('pid', 'w').write(str(subprocess.Popen(['sleep', '300']).pid)); time.sleep(300)"
    assert not mark.run_apart([sys.executable, "-c", code], str(tmp_path), 5)
    child = Path(f"/proc/{(tmp_path / 'pid').read_text()}/cmdline")
    deadline = time.monotonic() + 30  # a killed process dies when the machine gets to it
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def alive(cmdline: Path) -> bool:
    """Whether a process still has a command: it has none once it is dead, collected or not."""
    try:
        return cmdline.read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_was_told_before_a_submission_was_stopped_counts(tmp_path, monkeypatch):
    def stopped(command, folder, time_limit):
        mark.tell(Path(command[-1]), {"key": "01.1", "state": "wrong", "says": "your function did not finish"})
        return False

    monkeypatch.setattr(mark, "run_apart", stopped)
    marks = mark.mark(submission(tmp_path, "endless", {}), cards(sample()), 5)
    assert [m.points for m in marks] == [0, 0] and "did not finish" in marks[0].says and "not reached in 5 seconds" in marks[1].says


def test_the_process_gets_no_environment_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("A_SECRET", "x")
    assert mark.run_apart([sys.executable, "-c", "import os; open('names', 'w').write(' '.join(os.environ))"], str(tmp_path), 60)
    assert "A_SECRET" not in (tmp_path / "names").read_text().split()


def test_what_python_needs_to_start_is_kept_and_without_it_nothing_is_marked(tmp_path, monkeypatch, capsys):
    lost = tmp_path / "python"  # one that only starts in the environment in which it was set up
    lost.write_text(f'#!/bin/sh\n[ -n "$LD_LIBRARY_PATH" ] && exec "{sys.executable}" "$@"\nexit 127\n')
    lost.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(lost))
    monkeypatch.setattr(sys, "argv", ["mark.py", str(submission(tmp_path, "smith", {}))])
    monkeypatch.setenv("LD_LIBRARY_PATH", os.environ.get("LD_LIBRARY_PATH") or "/none")
    mark.check_apart()
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert mark.main() == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"{lost} does not start") and "nothing was marked" in said.err and said.err.count("\n") == 1


def test_reports_of_a_submission_are_read_with_care():
    one = EXERCISES["01.1"]
    assert mark.verdict(one, {"state": "right", "says": "correct"}).state == "wrong"
    assert mark.verdict(one, {"state": "wrong", "says": "a\x1b[2J\nb" + 500 * "c"}).says.startswith("a[2J bccc")
    assert len(mark.verdict(one, {"says": 500 * "c"}).says) == 200
    for seen in ([], {}, {"a growing beta": [[3], [1, 2]]}, {"a growing beta": [[2], ["x", {}]]}, {"one step only": [[1], [0.75]]}):
        assert mark.verdict(one, {"seen": seen}).state == "wrong"
    assert mark.parsed("no json") == mark.parsed("[1]") == {}


def test_an_error_gets_the_diagnosis_of_the_mistake_that_raises_it_too():
    seen = mark.look(EXERCISES["03.2"], lambda loss_u, loss_s, prior: (loss_u - prior * loss_s).std())
    assert seen["state"] == "wrong" and "differ in number" in mark.verdict(EXERCISES["03.2"], seen).says
    assert mark.verdict(EXERCISES["01.1"], mark.look(EXERCISES["01.1"], lambda beta: 1 / 0)).says == "your function raised ZeroDivisionError: division by zero"
    assert mark.look(EXERCISES["01.1"], lambda beta: ...)["state"] == "not attempted"
    assert mark.look(EXERCISES["01.1"], 3)["state"] == "wrong"


def test_what_is_no_notebook_is_refused(tmp_path):
    for text in ("no json", "[]", "{}"):
        (tmp_path / "x.ipynb").write_text(text)
        with pytest.raises(ValueError, match="is not a notebook"):
            mark.mark(tmp_path / "x.ipynb", cards(sample()))


def test_the_notebook_of_a_submission_is_found_by_its_functions(tmp_path, monkeypatch):
    for name in ("01_ddpm", "02_pu_risk"):
        nbformat.write(sample() if name == "01_ddpm" else new_notebook(), tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(mark, "notebooks", lambda prefix: sorted(tmp_path.glob(f"{prefix}*.ipynb")))
    assert mark.exercises_of(submission(tmp_path, "smith", {}))[0] == "01_ddpm"
    with pytest.raises(ValueError, match="has no exercise of 02_pu_risk"):
        mark.exercises_of(tmp_path / "smith.ipynb", "02")


def test_cells_after_the_last_exercise_are_not_run():
    code = [cell.source for cell in sample().cells if cell.cell_type == "code"]
    run = mark.cells_to_run(sample(), ["my_alpha_bar", "my_add_noise"])
    assert run == code[: len(run)] and "def my_add_noise" in run[-1]


def test_mark_sheet_adds_up():
    marks = [mark.Mark("01.1", "a", 1, 1, "right", "correct"), mark.Mark("01.2", "b", 0, 2, "wrong", "the sign")]
    lines = mark.sheet("x.ipynb", "01_ddpm", marks).splitlines()
    assert lines[0] == "x.ipynb (01_ddpm): 1 of 3 points" and lines[1].endswith("a") and lines[2].endswith("b: the sign")


# ----------------------------------------------------------------------------------------------- guide


def lesson(name: str, *stars: int) -> handout.Lesson:
    made = [Card(f"{name[:2]}.{i}", "t", n, 4, "", "", "", "", "f") for i, n in enumerate(stars, 1)]
    return handout.Lesson(name, "A lesson", Times(30, 13, 4 * len(made), 1), made)


@pytest.mark.parametrize(("minutes", "breaks"), [(240, 2), (180, 1), (151, 0), (500, 0)])
def test_minutes_of_a_plan_add_up(minutes, breaks):
    lessons = [lesson(f"0{i}_x", 1, 2, 3, 3) for i in (1, 2, 3)]
    parts = handout.plan(lessons, minutes, breaks)
    assert sum(part.minutes for part in parts) == minutes and all(part.minutes > 0 for part in parts)
    assert sum(part.what == "Break" for part in parts) == breaks
    named = re.findall(r"\b0\d\.\d\b", " ".join(part.what for part in parts))
    assert sorted(set(named)) == sorted(named) and (len(named) == 12 or minutes == 151)
    hours, rest = divmod(minutes, 60)
    assert handout.plan_table(parts).endswith(f"| {hours}:{rest:02d} | **{minutes}** | end |")


def test_easy_exercises_come_first_in_each_notebook_and_too_little_time_is_refused():
    lessons = [lesson("01_x", 3, 1), lesson("02_x", 2, 1)]
    assert [card.key for card in handout.in_class(lessons, 12)] == ["01.2", "02.2", "01.1"]
    with pytest.raises(ValueError, match="minutes must be at least 82 for 2 notebooks; got 60"):
        handout.plan(lessons, 60)


SOURCE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_every_notebook_has_discussion_questions_with_answers(path):
    asked = handout.questions(SOURCE).get(path.stem[:2], {})
    assert len(asked) >= 4
    for question, answer in asked.items():
        assert question.endswith("?") and 3 <= len(slides.sentences(answer)) <= 6, question


def test_guide_has_every_wrong_answer_and_plans_that_add_up():
    measured = seconds()
    lessons = [handout.lesson_of(path, nbformat.read(path, as_version=4), measured) for path in notebooks()]
    lessons[0] = handout.Lesson("01_ddpm", "A sample", lessons[0].times, cards(sample()) or lessons[0].cards)
    text = handout.guide(lessons, SOURCE)
    for card in (card for lesson in lessons for card in lesson.cards):
        assert f"#### {card.key} {card.title}\n\n{wrong_answers(card.key)}" in text
    assert all(f"#### {question}\n\n{answer}" in text for asked in handout.questions(SOURCE).values() for question, answer in asked.items())
    for table in re.findall(r"\| from \|.*?\| end \|", text, re.DOTALL):
        minutes = [int(n) for n in re.findall(r"^\| \d+:\d\d \| (\d+) \|", table, re.MULTILINE)]
        assert f"**{sum(minutes)}**" in table and sum(minutes) in (90, 360)
    lectures = handout.in_lectures(lessons, 90)
    assert text.count("| end |") == 1 + len(lectures) and [lesson for part in lectures for lesson in part] == lessons
    assert len(lectures[0]) == 1 and max(map(len, lectures)) == 2


def test_every_exercise_has_its_card_or_its_notebook_has_none():
    found = {path.stem[:2]: {card.key for card in cards(nbformat.read(path, as_version=4))} for path in notebooks()}
    for number, keys in found.items():
        assert not keys or keys == {key for key in EXERCISES if key.startswith(number)}


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_minutes_at_the_top_are_counted_ones(path):
    notebook = nbformat.read(path, as_version=4)
    stated = re.search(r"reading about (\d+) minutes.*?, exercises about (\d+) minutes", notebook.cells[0].source)
    if cards(notebook):
        counted = times(path, notebook, json.loads(TIMINGS.read_text(encoding="utf-8"))["seconds"])  # committed ones, not this machine's
        rooms = sum(cell.source.startswith("## Room ") for cell in notebook.cells)  # which stand alone
        assert abs(int(stated[1]) - counted.reading) <= 1 and int(stated[2]) == counted.exercises and counted.learner <= max(45, 10 * rooms)


def test_seconds_are_kept_for_every_notebook():
    assert seconds().keys() >= {path.stem for path in notebooks()}
