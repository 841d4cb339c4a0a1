"""Write lecture slides (reveal.js, by nbconvert) from the notebooks' outputs into build/slides/.

    python notebooks/slides.py           # all
    python notebooks/slides.py 02        # those whose name starts with 02

Nothing is executed and nothing is fetched. No cell is tagged by hand; a rule decides what is shown:

- A heading begins a slide; a section begins a column of slides. What does not fit goes on with the next slide.
- Shown: equations, lists, tables, figures with the first sentence of their caption, what a cell printed, exercises,
  questions that ask for a prediction. Of a paragraph: sentences with a bold term, and the one that leads into what
  follows, or else the first.
- Code is shown if it is short and printed something; of long code, the lines that name an equation.
- Everything else is said, not shown: speaker notes hold the whole text, hints, and the common wrong answers.
"""

import ast
import base64
import html
import re
import shutil
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from math import ceil
from pathlib import Path
from string import ascii_uppercase
from types import SimpleNamespace

import nbformat
from nbconvert import SlidesExporter
from nbformat.v4 import new_markdown_cell

from build import HERE, notebooks, tags
from pulib.data import BUILD
from teaching import CARD, DETAILS, Card, cards, is_solution, wrong_answers

SLIDES = BUILD / "slides"
LINES = 15.2  # lines of text that fit on a slide below its title
LINE = 1.35  # height of a line in em, as in course.css
FIGURE, SMALL_FIGURE, CAPTION = 11.5, 8.5, 2.4  # lines: a figure's height at most, and at least where it shares a slide
WIDTH, CODE_WIDTH = 92, 112  # letters in a line
CODE_LINES, SENTENCE, SHORT = 14, 230, 25  # lines of code and letters in a sentence that are shown; a sentence that says little
ROWS = 11  # of a table

# ------------------------------------------------------------------------------------------ the pieces


@dataclass(frozen=True)
class Piece:
    """Something of a notebook: what it is, the Markdown to show, the room that it takes in lines, and what to say."""

    kind: str
    text: str = ""
    lines: float = 0.0
    notes: str = ""
    least: float = 0.0  # lines of which it can do, if not all
    title: str = ""  # of a slide of its own


BLOCK = re.compile(r"^(?:(?P<code>```[\s\S]*?^```)|(?P<equation>\$\$[\s\S]*?\$\$)|(?P<heading>#+ .+)|(?P<text>(?:(?!#+ |\$\$|```).+\n?)+))", re.MULTILINE)


def blocks(source: str) -> Iterator[tuple[str, str]]:
    """Markdown cut into (kind, text): heading, equation, code, table, list, quote, caption, prose."""
    for match in BLOCK.finditer(DETAILS.sub("", source)):
        kind = match.lastgroup or "text"
        if kind != "text":
            yield kind, match[0].strip()
            continue
        kinds, before = [], ""
        for line in match[0].splitlines():
            before = line_kind(line, before)
            kinds.append((before, line))
        yield from merged(kinds)


def line_kind(line: str, before: str) -> str:
    if line.startswith(" ") and before:
        return before
    starts = {"table": r"\|", "list": r"[-*] |\d+\. ", "quote": ">", "caption": r"\*\*Figure"}
    return next((kind for kind, start in starts.items() if re.match(start, line)), before if before == "caption" else "prose")


def merged(kinds: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one kind joined."""
    found: list[tuple[str, str]] = []
    for kind, line in kinds:
        if found and found[-1][0] == kind:
            found[-1] = kind, f"{found[-1][1]}\n{line}"
        else:
            found.append((kind, line))
    return found


def visible(text: str) -> int:
    """About how many letters a reader sees."""
    return len(re.sub(r"\\[a-zA-Z]+|[{}$*`^_\\]|\]\([^)]+\)|<[^>]+>", "", text))


def room(text: str, width: float = WIDTH) -> float:
    return sum(ceil(max(visible(line), 1) / width) for line in text.splitlines())


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph; stops inside formulas, code and abbreviations do not end one."""
    text = " ".join(text.split())
    masked = re.sub(r"\$[^$]+\$|`[^`]+`|\*\*Figure [\d.]+\*\*|\b(?:al|e\.g|i\.e|vs)\.", lambda m: "x" * len(m[0]), text)
    ends = [m.end() for m in re.finditer(r"[.!?][*)\"]*\s+(?=\S)", masked)]
    return [text[a:b].strip() for a, b in pairwise([0, *ends, len(text)])]


def markdown_pieces(source: str) -> Iterator[Piece]:
    for kind, text in blocks(source):
        shown = text
        if kind == "list":
            shown = "\n".join(brief(item) for item in re.split(r"\n(?=[-*] |\d+\. )", text))
        elif kind == "caption":
            shown = brief(text)
        yield Piece(kind, shown, height(kind, shown), text if shown != text or kind == "prose" else "")


def brief(text: str) -> str:
    """The text, or if it is long as many of its sentences as are shown, at least one."""
    found = sentences(text)
    while len(found) > 1 and visible(" ".join(found)) > SENTENCE:
        found.pop()
    return text if visible(text) <= SENTENCE else " ".join(found)


def height(kind: str, text: str) -> float:
    """Room that Markdown takes on a slide, in lines; a caption has it in its figure's."""
    if kind == "equation":
        return 2.9 if re.search(r"frac|sum|int|under|left|boxed", text) else 2.1
    fixed = {"caption": 0.0, "code": 0.7 * room(text.replace("```", ""), CODE_WIDTH), "table": min(1.1 * len(text.splitlines()), LINES - 3)}
    return fixed.get(kind, room(text) + 0.3 * len(text.splitlines()))


def code_pieces(cell: nbformat.NotebookNode) -> Iterator[Piece]:
    """What a code cell shows: figures, tables, the library's code, or its own with what it printed."""
    printed, *outcome = "".join(output.get("text", "") for output in cell.outputs).split("You made no prediction.\n")
    shown = [output for output in cell.outputs if {"image/png", "text/markdown"} & output.get("data", {}).keys()]
    if printed.strip():
        code = "" if shown or outcome else fenced(short_code(cell.source, CODE_LINES - len(printed.splitlines())), "python")
        text = f"{code}\n\n{fenced(printed.strip(), 'text')}".strip()
        yield Piece("printed", text, height("code", text))
    if outcome:
        yield Piece("outcome", f"> **{outcome[0].strip()}**", 0.5)
    for output in shown:
        if "image/png" in output.data:
            yield figure(output)
        else:
            yield from markdown_output(output.data["text/markdown"])


def markdown_output(text: str) -> Iterator[Piece]:
    """The library's code, or a table; a long table in parts."""
    if text.startswith("|"):
        head, rule, *rows = text.splitlines()
        for i in range(0, len(rows), ROWS):
            part = "\n".join([head, rule, *rows[i : i + ROWS]])
            yield Piece("table", part, height("table", part))
    elif code := fenced(short_code(text.removeprefix("```python\n").removesuffix("```")), "python"):
        yield Piece("printed", code, height("code", code))


def short_code(source: str, most: int = CODE_LINES) -> str:
    """Code without docstrings; if it takes more than `most` lines, those that name an equation; or nothing."""
    lines = re.sub(r'^ *""".*?"""\n', "", source, flags=re.DOTALL | re.MULTILINE).strip().splitlines()
    if sum(room(line, CODE_WIDTH) for line in lines) > most:
        lines = [line.strip() for line in lines if re.search(r"#.*\(\d\.\d+\)", line)][:most]
    return "\n".join(lines)


def fenced(text: str, language: str) -> str:
    lines = text.splitlines()
    lines = [*lines[: CODE_LINES - 1], "…"] if len(lines) > CODE_LINES else lines
    return "\n".join([f"```{language}", *lines, "```"]) if lines else ""


def figure(output: nbformat.NotebookNode) -> Piece:
    """A figure with its alternative text; room for two lines of caption below."""
    data = output.data["image/png"].replace("\n", "")
    across, down = struct.unpack(">II", base64.b64decode(data[:44])[16:24])
    alt = html.escape(output.metadata.get("image/png", {}).get("alt", ""))
    lines = min(FIGURE, 32 * down / across)
    return Piece("figure", f'<img src="data:image/png;base64,{data}" alt="{alt}">', lines + CAPTION, least=min(lines, SMALL_FIGURE) + CAPTION)


def prediction(cell: nbformat.NotebookNode, parameters: str) -> Piece:
    """The question of a cell tagged `predict` and its answers by letter."""
    question, *answers = asked(cell, parameters)
    choices = "\n".join(f"- **{letter}.** {answer}" for letter, answer in zip(ascii_uppercase, answers))
    notes = "Let everyone decide, and take a show of hands, before you go on."
    return Piece("predict", f"**{question}**\n\n{choices}", notes=notes, title="Predict")


def asked(cell: nbformat.NotebookNode, parameters: str) -> list[str]:
    """Question and answers as the cell's text says; without outputs, of the cell run with a stand-in for the widget."""
    texts = [output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    if texts and texts[0].startswith("Predict: "):
        question, *answers = texts[0].removeprefix("Predict: ").splitlines()
        return [question, *(answer.removeprefix("  - ") for answer in answers if answer.startswith("  - "))]
    found: list[str] = []
    names = {"widgets": SimpleNamespace(predict=lambda *texts: found.extend(texts))}
    try:
        exec(f"{parameters}\n{cell.source}", names)
    except NameError:  # a text holds a number of the run
        exec(compile(ast.fix_missing_locations(Unknown().visit(ast.parse(cell.source))), "predict", "exec"), names)
    return found


class Unknown(ast.NodeTransformer):
    """Puts … for the values in texts."""

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.expr:
        return ast.Constant("…")


def exercise(card: Card) -> Piece:
    """The card and the stub; hint and wrong answers are for the lecturer."""
    stars = "★" * card.stars + "☆" * (3 - card.stars)
    text = f"{stars} · {card.minutes} minutes\n\n{card.task}\n\n{fenced(card.stub, 'python')}"
    notes = f"Expected: {card.expected}\n\n**Hint.** {card.hint}\n\n**Common wrong answers**\n\n{wrong_answers(card.key)}"
    return Piece("exercise", text, notes=notes, title=f"Exercise {card.key}: {card.title}")


def pieces(notebook: nbformat.NotebookNode) -> Iterator[Piece]:
    """A notebook as pieces in order."""
    exercises = {card.key: card for card in cards(notebook)}
    parameters = "\n".join(cell.source for cell in notebook.cells if "parameters" in tags(cell))
    for cell in notebook.cells:
        card = CARD.match(cell.source)
        if card:
            yield exercise(exercises[card["key"]])
        elif cell.cell_type == "markdown":
            yield from markdown_pieces(cell.source)
        elif "predict" in tags(cell):
            yield prediction(cell, parameters)
        elif "live-widget" in tags(cell):
            yield Piece("live", "> **Live in the notebook:** the same figure with a slider.", 0.5)
        elif not is_solution(cell) and "exercise" not in tags(cell):
            yield from code_pieces(cell)


# ------------------------------------------------------------------------------------------ the slides


@dataclass
class Slide:
    """A slide: below which others it stands ("slide": none), its title, what it shows and what is said."""

    kind: str
    title: str
    shown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lines: float = 0.0
    heads: bool = False  # does a heading of the notebook stand here, or is its title one that goes on?

    def cells(self) -> list[nbformat.NotebookNode]:
        shown = new_markdown_cell("\n\n".join([self.title, *self.shown]), metadata={"slideshow": {"slide_type": self.kind}})
        notes = new_markdown_cell("\n\n".join(self.notes), metadata={"slideshow": {"slide_type": "notes"}})
        return [shown, notes] if self.notes else [shown]


class Deck:
    """Slides that grow piece by piece."""

    def __init__(self) -> None:
        self.slides: list[Slide] = []
        self.section = ""

    def begin(self, heading: str) -> None:
        """A slide for a heading; a section whose first subsection follows at once shares its slide."""
        level, title = heading.split(" ", 1)
        if level in ("#", "##"):
            self.section = "" if level == "#" else title
            self.slides.append(Slide("slide", f"{level} {title}", heads=True))
            return
        bare = not self.slides[-1].shown
        kind = self.slides.pop().kind if bare else "subslide"
        self.slides.append(Slide(kind, f"###### {self.section}\n\n## {title}", heads=True))

    def add(self, piece: Piece, ahead: float = 0.0, optional: bool = False) -> None:
        """Show a piece, on one more slide of the same title if it, and what it leads into, do not fit.

        An optional piece is only said where it does not fit or would be the first on such a slide.
        """
        last, least = self.slides[-1], piece.least or piece.lines
        fits = last.lines + least + ahead <= LINES
        if optional and not (fits and (last.lines or last.heads)):
            self.say(piece.notes)
            return
        if last.lines and not fits:
            last = Slide("subslide", last.title)
            self.slides.append(last)
        last.shown.append(scaled(piece, LINES - last.lines))
        last.lines += min(piece.lines, max(least, LINES - last.lines))
        self.say(piece.notes)

    def alone(self, piece: Piece) -> None:
        """A slide for one piece; the next piece goes back to the title before."""
        before = self.slides[-1].title
        self.slides.append(Slide("subslide", f"###### {self.section}\n\n## {piece.title}", [piece.text], lines=LINES))
        self.say(piece.notes)
        self.slides.append(Slide("subslide", before))

    def say(self, notes: str) -> None:
        self.slides[-1].notes += [notes] if notes else []


def scaled(piece: Piece, room: float) -> str:
    """A figure that is small enough for the room with its caption; any other piece as it is."""
    height = LINE * (min(piece.lines, max(piece.least, room)) - CAPTION)
    return piece.text.replace("<img", f'<img style="max-height: {height:.1f}em"', 1) if piece.kind == "figure" else piece.text


LED = {"equation", "list", "table", "figure", "printed", "code"}  # what a paragraph's last sentence leads into


def deck(notebook: nbformat.NotebookNode) -> list[Slide]:
    """The slides of a notebook by the rule at the top of this file."""
    made, before = Deck(), Piece("heading")
    for piece, after in pairwise([*pieces(notebook), Piece("heading")]):
        if piece.text == "## References":
            break
        if piece.kind == "heading":
            made.begin(piece.text)
        elif piece.title:
            made.alone(piece)
        elif piece.kind == "prose":
            add_prose(made, piece.text, after, alone=before.kind == "heading" and bool(after.kind == "heading" or after.title))
        else:
            made.add(piece)
        before = piece
    return without_empty(made.slides)


def add_prose(made: Deck, text: str, after: Piece, alone: bool) -> None:
    leads = after.kind in LED
    shown = key_sentences(text, leads, alone)
    ahead = (after.least or after.lines) if leads else 0
    made.add(Piece("prose", shown, height("prose", shown), text), ahead, optional=not shown or not (leads or alone or "**" in shown))


def key_sentences(text: str, leads: bool, alone: bool) -> str:
    """What is shown of a paragraph: terms in bold and what leads on, or else the first; of a whole section, all as a list."""
    found = [sentence for sentence in sentences(text) if visible(sentence) <= SENTENCE and not sentence.startswith("(")]
    if alone and len(found) > 1:
        return "\n".join(f"- {sentence}" for sentence in found)
    last = found[-2:] if found and visible(found[-1]) < SHORT else found[-1:]
    keep = [s for s in found if "**" in s][:2] + (last if leads else [])
    return " ".join(dict.fromkeys(keep or [s for s in found if visible(s) >= SHORT][:1]))


def without_empty(slides: list[Slide]) -> list[Slide]:
    """Slides that show something, or have a title of their own; what was to be said on others is said before."""
    kept: list[Slide] = []
    for slide in slides:
        if slide.shown or slide.heads:
            kept.append(slide)
        else:
            kept[-1].notes += slide.notes
    return kept


# ------------------------------------------------------------------------------------------- the files


def installed(package: str) -> Path:
    """The folder of an installed package."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{package} is not installed; run: pip install -e '.[site]'")
    return Path(found.submodule_search_locations[0])


REVEAL = ("LICENSE", "dist/reveal.js", "dist/reveal.css", "dist/theme/white.css", "dist/theme/fonts/source-sans-pro", "plugin/notes/notes.js")


def libraries() -> None:
    """Copy what the slides need of reveal.js and MathJax, which pip installed, beside them."""
    reveal = installed("sphinx_revealjs") / "_static" / "revealjs"
    mathjax = installed("sphinx-mathjax-offline") / "static" / "mathjax"
    target = SLIDES / "lib" / "reveal"
    for path in (path for name in REVEAL for path in ((reveal / name).glob("*") if (reveal / name).is_dir() else [reveal / name])):
        if path.suffix not in (".eot", ".ttf"):  # browsers take the .woff
            (target / path.relative_to(reveal)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / path.relative_to(reveal))
    shutil.copy(HERE / "templates" / "slides" / "course.css", target / "dist" / "theme")
    shutil.copy(mathjax / "tex-svg-full.js", SLIDES / "lib")


def write(path: Path) -> Path:
    """The slides of one notebook as HTML; its path."""
    slides = deck(nbformat.read(path, as_version=4))
    exporter = SlidesExporter(
        template_name="slides", extra_template_basedirs=[str(HERE / "templates")], exclude_input_prompt=True,
        exclude_anchor_links=True, reveal_url_prefix="lib/reveal", reveal_theme="course",
    )  # fmt: skip
    cells = [cell for slide in slides for cell in slide.cells()]
    page, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=cells), {"metadata": {"name": path.stem}})
    target = SLIDES / f"{path.stem}.html"
    target.write_text(page, encoding="utf-8")
    return target


def main(prefix: str = "") -> None:
    libraries()
    for path in notebooks(prefix):
        print(write(path), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:2])
