"""The notebooks as learners meet them: a real browser, JupyterLab and kernel; every slider and prediction is used.

Served are copies without outputs, with the parameters below, so that a whole run takes about two minutes. Of each slider
this needs what `widgets.slider` gives: a box of class `pulib-slider` that holds a handle, a number field and a view, and
keeps in `box.draw` the pure function it shows. It may change its figure several times per move, if those before the last
have aria-busy="true". The cell's value is the box, or a box around several.
"""

import io
import re
from functools import partial

import ipywidgets
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image, ImageChops
from reduced import reduced

from lab import CHROMIUM, ROOT, Lab, Page, expect, need_browser, sync_playwright, until
from pulib import widgets
from pulib.data import BUILD
from pulib.explorer import Frame
from pulib.plots import Picture

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST = 600  # seconds that a notebook may run
SHOTS = BUILD / "browser"
CORE = {"@jupyter-widgets/base", "@jupyter-widgets/controls"}  # what every front end brings along

FIND = """
def _boxes(widget, name):
    inner = [box for child in getattr(widget, "children", ()) for box in _boxes(child, name)]
    return [widget] if name in widget._dom_classes else inner

def _parts(box):
    inner = [part for child in getattr(box, "children", ()) for part in _parts(child)]
    return [box, *inner] if hasattr(box, "_view_module") else []

def _handle(box):
    return next(part for part in _parts(box) if hasattr(part, "readout"))
"""
SHOWN = """figure => ({
    value: figure.dataset.value, src: figure.querySelector("img").src, alt: figure.querySelector("img").alt,
    caption: figure.querySelector("figcaption[role=status][aria-live=polite]").innerText.trim() })"""
WHOLE = """async figure => {
    const image = figure.querySelector("img"), page = figure.closest(".pulib-slider").getBoundingClientRect(); await image.decode();
    return image.naturalWidth > 0 && image.getBoundingClientRect().right <= page.right + 1 }"""
SHOWN_IN = f"html => {{ const box = document.createElement('div'); box.innerHTML = html; return ({SHOWN})(box.querySelector('figure')) }}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    need_browser()
    server = Lab(tmp_path_factory.mktemp("lab"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser():
    need_browser()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield running
        running.close()


@pytest.fixture
def open_page(lab, browser):
    pages = []

    def open_page(name: str, notebook: nbformat.NotebookNode) -> Page:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        pages.append(Page(lab, browser, lab.serve(name, notebook)))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


# ------------------------------------------------------------------------------------------ what is checked


class Slider:
    """One slider: its parts in the page, and its box in the kernel."""

    def __init__(self, page: Page, cell: int, number: int, patience: int) -> None:
        self.page, self.patience = page, patience
        self.box = page.cell(cell).locator(".pulib-slider").nth(number)
        self.handle, self.readout = self.box.get_by_role("slider"), self.box.locator(".widget-readout")
        self.field, self.figure, self.alert = self.box.get_by_role("spinbutton"), self.box.locator("figure"), self.box.get_by_role("alert")
        count = int(re.search(r"\d+", page.cell(cell).locator(".jp-InputPrompt").inner_text())[0])
        self.name = f"_boxes(Out[{count}], 'pulib-slider')[{number}]"
        self.low, self.high, self.step = self.ask("[_handle(box).min, _handle(box).max, _handle(box).step]")

    def ask(self, expression: str):
        return self.page.kernel.ask(f"[{expression} for box in [{self.name}]][0]", FIND)

    @property
    def value(self) -> float:
        return self.ask("_handle(box).value")

    def shown(self) -> dict:
        return self.figure.evaluate(SHOWN)

    def settle(self, condition: str) -> None:
        """Wait until the figure shows a value that fulfils a CSS condition, finally, or an error."""
        last = self.box.locator(f'figure[data-value]{condition}:not([aria-busy="true"])')
        expect(last.or_(self.alert), "the figure of the new value").to_have_count(1, timeout=self.patience)
        assert not self.alert.count(), self.alert.inner_text()

    def see(self, value: float | None = None) -> dict:
        """What the page shows, after seeing that it is what the kernel has and draws, and `value` if given."""
        kernel = self.value
        assert value is None or kernel == pytest.approx(value, abs=1e-6), "the kernel has the value"
        self.settle(f'[data-value="{kernel!r}"]')
        assert float(self.field.input_value()) == pytest.approx(kernel, abs=1e-6), "the field shows the value"
        assert float(self.readout.inner_text()) == pytest.approx(kernel, abs=6e-4), "the readout shows the value"
        assert self.field.aria_snapshot().rstrip('"').endswith(self.field.input_value()), "the value is read out"
        drawn = self.page.tab.evaluate(SHOWN_IN, self.ask("__import__('pulib.widgets').widgets.safe_html(box.draw, _handle(box).value)"))
        shown = self.shown()
        assert self.figure.evaluate(WHOLE), "the picture is loaded and not cut off"
        assert {key for key in shown if shown[key] != drawn[key]} == set(), "the page shows what the kernel draws"
        return shown

    def move(self, what: str, act, value: float | None = None) -> None:
        """Do something to the slider, and see that page and kernel follow."""
        before = self.shown()
        act()
        self.settle(f':not([data-value="{before["value"]}"])')
        after = self.see(value)
        assert {key for key in ("src", "caption") if after[key] == before[key]} == set(), f"{what}: all of the figure has changed"

    def drag(self, share: float) -> None:
        """Drag the handle to a share of its track."""
        self.handle.scroll_into_view_if_needed()
        self.handle.hover()
        self.page.tab.mouse.down()
        track = self.box.locator(".noUi-base").bounding_box()
        self.page.tab.mouse.move(track["x"] + share * track["width"], track["y"] + track["height"] / 2, steps=8)
        self.page.tab.mouse.up()

    def type(self, value: float) -> None:
        self.field.fill(f"{value:.6g}")
        self.field.press("Enter")


def check_slider(page: Page, cell: int, number: int = 0, shot: str = "", patience: int = 60_000) -> None:
    """Move one slider by keyboard, mouse and number field; page and kernel agree after each move."""
    slider = Slider(page, cell, number, patience)
    start = slider.value
    slider.see(start)
    label = slider.handle.locator("xpath=ancestor::*[contains(@class, 'widget-slider')]/label").inner_text()
    expect(slider.field).to_have_accessible_name(re.compile(re.escape(label)))  # ipywidgets gives the handle none
    shoot(slider.box, shot, "start")
    small = slider.step if start < slider.high else -slider.step
    there, back = ("ArrowRight", "ArrowLeft") if small > 0 else ("ArrowLeft", "ArrowRight")
    slider.move(there, lambda: slider.handle.press(there), start + small)
    slider.move(back, lambda: slider.handle.press(back), start)
    ends = {"End": slider.high, "Home": slider.low}
    for key in sorted(ends, reverse=start >= slider.high):  # first the end it is not at
        slider.move(key, partial(slider.handle.press, key), ends[key])
    share = 0.7 if slider.value == slider.low else 0.3
    slider.move("drag", lambda: slider.drag(share))
    reached = (slider.value - slider.low) / (slider.high - slider.low)
    assert abs(reached - share) <= 0.05 + slider.step / (slider.high - slider.low), "the handle stays where it was dropped"
    shoot(slider.box, shot, "moved")
    steps = round((slider.high - slider.low) / slider.step)
    typed = slider.low + slider.step * next(n for n in (steps // 3, steps // 2) if abs(slider.low + slider.step * n - slider.value) > 1e-6)
    slider.move("type", lambda: slider.type(typed), typed)
    slider.move("type too much", lambda: slider.type(slider.high + 1), slider.high)
    for part in (slider.handle, slider.field):
        see_focus(page, part)
    page.see_no_problem()


def check_prediction(page: Page, cell: int, number: int = 0, shot: str = "") -> None:
    """Choose each answer by keyboard; the kernel knows it."""
    box = page.cell(cell).locator(".pulib-prediction").nth(number)
    count = int(re.search(r"\d+", page.cell(cell).locator(".jp-InputPrompt").inner_text())[0])
    name = f"_boxes(Out[{count}], 'pulib-prediction')[{number}]"
    choices = page.kernel.ask(f"{name}.choices", FIND)
    radios = box.get_by_role("radio")
    expect(radios).to_have_count(len(choices))

    def chosen() -> str | None:
        return page.kernel.ask(f"{name}.answer")

    assert chosen() is None and not box.locator(":checked").count()
    shoot(box, shot, "start")
    see_focus(page, radios.first)
    for i, choice in enumerate(choices):
        if i:
            radios.nth(i - 1).press("Tab")  # ipywidgets gives them no common name, so arrow keys do not move among them
            expect(radios.nth(i)).to_be_focused()
        radios.nth(i).press("Space")
        expect(radios.nth(i)).to_be_checked()
        expect(radios.nth(i)).to_have_accessible_name(choice)
        until(lambda choice=choice: chosen() == choice, f"the kernel to have {choice!r}")
    shoot(box, shot, "moved")
    page.see_no_problem()


def see_focus(page: Page, part) -> None:
    """The keyboard's focus can be seen on a part: there, at least 60 pixels differ clearly from how it is without."""

    def picture() -> Image.Image:
        box = part.bounding_box()
        clip = {"x": box["x"] - 8, "y": box["y"] - 8, "width": box["width"] + 16, "height": box["height"] + 16}
        return Image.open(io.BytesIO(page.tab.screenshot(clip=clip, animations="disabled"))).convert("L")

    part.scroll_into_view_if_needed()
    part.press("Shift")  # a key that does nothing: from here on the browser takes the user for one with a keyboard
    page.tab.mouse.move(0, 0)
    expect(part).to_be_focused()
    with_focus = picture()
    part.blur()
    differences = ImageChops.difference(with_focus, picture()).histogram()
    assert sum(differences[80:]) >= 60, "the focus is visible"


def shoot(box, name: str, state: str) -> None:
    if name:
        SHOTS.mkdir(parents=True, exist_ok=True)
        box.screenshot(path=SHOTS / f"{name}-{state}.png", animations="disabled")


def check_widgets(page: Page, name: str) -> int:
    """Use all sliders and predictions of a page, and count them."""
    used = 0
    for i, cell in enumerate(page.cells):
        for tag, kind, check in [("live-widget", "slider", check_slider), ("predict", "prediction", check_prediction)]:
            if tag in cell.metadata.get("tags", []):
                boxes = page.cell(i).locator(f".pulib-{kind}")
                expect(boxes.first).to_be_visible(timeout=60_000)
                for number in range(boxes.count()):
                    check(page, i, number, shot=f"{name}-{cell.id}-{number}")
                    used += 1
    return used


# -------------------------------------------------------------------------------------------- the notebooks


@pytest.mark.browser
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_in_a_browser(path, open_page):
    notebook = reduced(path)
    page = open_page(path.name, notebook)
    assert page.kernel.ask("__import__('pulib').__file__") == str(ROOT / "pulib" / "__init__.py")
    page.run_all(LONGEST)
    marked = [cell for cell in notebook.cells if {"live-widget", "predict"} & set(cell.metadata.get("tags", []))]
    assert check_widgets(page, path.stem) >= len(marked) > 0
    assert page.kernel.ask("{part._view_module for shown in Out.values() for part in _parts(shown)} - {None}", FIND) <= CORE
    page.see_no_problem()


# --------------------------------------------------------------------------------- the checks themselves bite

GOOD = """
import ipywidgets as w
from pulib import plots, widgets

def draw(v):
    return plots.curves({"a": ([0, 1], [0, v])}, "x", "y", f"A line up to {v:g}."), f"up to {v:g}"

box = widgets.slider(draw, "level", 0.3, 0, 1, 0.1)
"""
RAISES = """
def draw_or_fail(v):
    if v > 0.3:
        raise ValueError("too much")
    return draw(v)

box = widgets.slider(draw_or_fail, "level", 0.3, 0, 1, 0.1)
"""
NEVER_REDRAWS = """
box.children = (box.children[0], w.HTML(box.children[1].value))
"""
DRAWS_ANOTHER_VALUE = """
box = widgets.slider(lambda v: draw(v / 2), "level", 0.3, 0, 1, 0.1)
box.draw = draw
"""
SAYS_THE_SAME = """
box = widgets.slider(lambda v: (draw(v)[0], "as before"), "level", 0.3, 0, 1, 0.1)
"""
FORGETS_THE_FIELD = """
other = widgets.slider(draw, "level", 0.3, 0, 1, 0.1)
box.children[0].children = (box.children[0].children[0], other.children[0].children[1])
"""
LIVE = """
import time
from pulib.explorer import Frame

log = []

def frames(v, n=5):
    for i in range(1, n + 1):
        time.sleep(0.05)
        log.append((round(v, 3), i))
        yield Frame(i / n, *(draw(i / n * v) if i > 1 else ()))

box = widgets.live(frames, "level", 0.3, 0, 1, 0.1)
"""
SLOW = """
box = widgets.live(lambda v: frames(v, 60), "level", 0.3, 0, 1, 0.1)
"""


TWO = "w.VBox([box, widgets.slider(draw, 'other level', 2, 1, 5, 0.5)])"
SMALL = {
    "plain": (GOOD + "box", ""),
    "several frames per move": (GOOD + LIVE + "box", ""),
    "first of two": (GOOD + TWO, ""),
    "second of two": (GOOD + TWO, ""),
    "raises": (GOOD + RAISES + "box", "ValueError: too much"),
    "never redraws": (GOOD + NEVER_REDRAWS + "box", "the figure of the new value"),
    "draws another value": (GOOD + DRAWS_ANOTHER_VALUE + "box", "the page shows what the kernel draws"),
    "says the same": (GOOD + SAYS_THE_SAME + "box", "all of the figure has changed"),
    "forgets the field": (GOOD + FORGETS_THE_FIELD + "box", "the field shows the value"),
}


def of_cells(sources: list[str]) -> nbformat.NotebookNode:
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return new_notebook(cells=[new_code_cell(source) for source in sources], metadata=kernel)


@pytest.fixture(scope="module")
def small(lab, browser):
    """A page with one small slider per cell, sound and broken ones."""
    page = Page(lab, browser, lab.serve("small.ipynb", of_cells([source for source, message in SMALL.values()])))
    page.run_all(LONGEST)
    yield page
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", [name for name, (source, message) in SMALL.items() if not message])
def test_a_slider_that_works_passes(small, name):
    check_slider(small, list(SMALL).index(name), number=int(name == "second of two"))


@pytest.mark.browser
@pytest.mark.parametrize("name", [name for name, (source, message) in SMALL.items() if message])
def test_a_broken_slider_fails(small, name):
    patience = 5_000 if name == "never redraws" else 60_000
    with pytest.raises(AssertionError, match=SMALL[name][1]):
        check_slider(small, list(SMALL).index(name), patience=patience)


@pytest.mark.browser
def test_a_live_slider_that_moves_on_stops_the_old_drawing(open_page):
    page = open_page("live.ipynb", of_cells([GOOD + LIVE + SLOW + "box"]))
    page.run_all(LONGEST)
    slider = Slider(page, 0, 0, patience=60_000)
    slider.handle.press("ArrowRight")
    reached = until(lambda: [i for v, i in page.kernel.ask("log") if v == 0.4 and i > 2], "the drawing at 0.4 to begin")  # the kernel answers meanwhile
    assert reached[-1] < 60
    slider.handle.press("ArrowRight")
    slider.settle('[data-value="0.5"]')
    log = page.kernel.ask("log")
    assert (0.5, 60) in log and (0.4, 60) not in log, "the drawing at 0.4 was not finished"
    assert slider.ask("next(part.value for part in _parts(box) if hasattr(part, 'bar_style'))") == 1, "the bar is full"
    page.see_no_problem()


@pytest.mark.browser
def test_a_broken_page_fails(open_page):
    bad = ["Javascript('console.error(\"broken\")')", "HTML('<img src=\"https://mnist.example/digit.png\">')", "1 / 0", "'the end'"]
    page = open_page("broken.ipynb", of_cells(["from IPython.display import HTML, Javascript", *bad]))
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        page.run_all(LONGEST)
    with pytest.raises(AssertionError, match="Traceback"):
        page.see_no_problem()
    for message in ("console: broken", "network: https://mnist.example"):
        until(lambda message=message: page.notebook.is_visible() and message in "\n".join(page.problems), message)


# ---------------------------------------------------------------------------------- without a browser, elsewhere


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)], ids=["at home", "in CI"])
def test_a_missing_browser_skips_at_home_and_fails_in_ci(required, outcome, monkeypatch):
    monkeypatch.setattr("lab.CHROMIUM", "/nowhere/chromium")
    monkeypatch.setenv("PULIB_REQUIRE_BROWSER", required)
    with pytest.raises(outcome, match=r"no Chromium \(/nowhere/chromium\): apt-get install chromium"):
        need_browser()


def test_ci_requires_a_browser():
    script = (ROOT / ".ci" / "run").read_text()
    assert "export PULIB_REQUIRE_BROWSER=1" in script and "missing+=(chromium)" in script


def models(kind: type) -> set[str]:
    """The names that front ends know of the widgets that ipywidgets defines."""
    own = {kind._model_name.default_value} if kind.__module__.startswith("ipywidgets.") else set()
    return own.union(*map(models, kind.__subclasses__()))


def parts(widget: ipywidgets.Widget) -> list[ipywidgets.Widget]:
    """A widget and all those it consists of."""
    values = [value for name in widget.keys for value in [getattr(widget, name)]]
    inner = [part for value in values for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, ipywidgets.Widget)]
    return [widget, *(deeper for part in inner for deeper in parts(part))]


def test_widgets_are_of_the_core_set_that_every_front_end_has():
    """VS Code and Colab are not driven here; both bring these classes along, and run no scripts of ours."""
    picture = Picture(b"png", "a picture", 300)
    made = [widgets.slider(lambda v: (picture, f"{v}"), "level", 1, 0, 2, step) for step in (1, 0.5)]
    made.append(widgets.live(lambda v: iter([Frame(1.0, picture, f"{v}")]), "level", 1, 0, 2, 0.5))
    ours = [part for box in [*made, widgets.predict("What?", "this", "that")] for part in parts(box)]
    assert {module for part in ours for module in (part._model_module, part._view_module)} == CORE
    assert {part._model_name for part in ours} <= models(ipywidgets.Widget)
    pages = [part.value for part in ours if isinstance(part, ipywidgets.HTML)]
    assert len(pages) == 8 and not [page for page in pages if re.search(r"<script|<iframe|\son\w+=|javascript:|https?:", page)]
