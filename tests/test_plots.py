"""Figures carry words and show what they are given; sliders show what their drawing function says."""

import base64
import inspect
import io
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rcParams
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from pulib import diffusion, notation, plots, toy, widgets
from pulib.plots import NORMAL, SENSITIVE, UNLABELED, Picture

ALT = "What the figure shows, in words."
IMAGES = torch.rand(12, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
FRAMED = torch.arange(12) % 5 == 0
WORLD = toy.ring_world()
GROUPS = {"normal": WORLD.normal.sample(50, torch.Generator().manual_seed(0)), "sensitive": WORLD.sensitive.sample(20)}
COLOURS = {"normal": NORMAL, "sensitive": SENSITIVE}
ROW = {"split": "even", "nsr": 0.9, "nsr_low": 0.85, "nsr_high": 0.93, "frechet": 10.0, "frechet_floor": 4.0}
ROWS = [ROW | {"arm": "unsupervised"}, ROW | {"arm": "pu", "nsr": 0.96, "nsr_high": 0.98}, ROW | {"arm": "oracle", "split": "odd"}]

FIGURES = {
    "digits": lambda: plots.digits(IMAGES, ALT, columns=6, framed=FRAMED, title="twelve"),
    "digits, bare": lambda: plots.digits(IMAGES, ALT),
    "side by side": lambda: plots.digits_side_by_side({"a": IMAGES, "b": -IMAGES}, {"a": FRAMED, "b": ~FRAMED}, ALT),
    "curves": lambda: plots.curves({"a": ([1, 2, 3], [3, 2, 1])}, "x", "y", ALT, log_x=True, marks={"here": 2}),
    "points": lambda: plots.points(GROUPS, COLOURS, ALT),
    "digit panels": lambda: plots.digit_panels({"p": {"r": IMAGES, "s": -IMAGES}, "q": {"r": IMAGES, "s": IMAGES}}, ALT),
    "noise fields": lambda: plots.noise_fields({"a": plots.grid_points(1, 3)}, plots.grid_points(2, 3), ALT),
    "point panels": lambda: plots.point_panels({"p": GROUPS, "q": GROUPS}, COLOURS, ALT),
    "decisions": lambda: plots.decision_panels({"p": plots.grid_points(3.2, 20)[:, 0], "q": torch.zeros(400)}, GROUPS, COLOURS, ALT),
    "decision and curve": lambda: plots.decision_and_curve(
        plots.grid_points(3.2, 20)[:, 0], GROUPS, COLOURS, ([0, 1], [1, 0]), (0.5, 0.5), {"true": 0.3}, "x", "y", ALT
    ),
    "estimates": lambda: plots.estimates({"a": torch.linspace(0, 1, 30), "b": torch.linspace(0.5, 2, 30)}, 0.5, "x", ALT),
    "runs": lambda: plots.run_panels({"p": {"normal": [([0, 1], [1, 0])]}, "q": {"normal": [([0, 1], [1, 2])]}}, COLOURS, "x", "y", ALT),
    "densities": lambda: plots.densities_and_samples({"d": (WORLD.signed_density(plots.grid_points(2.5, 30), 0.3), GROUPS)}, COLOURS, ALT),
    "slopes": lambda: plots.slopes(torch.logspace(-2, 2, 20), {"a": torch.logspace(1, -3, 20)}, {"band": (0.1, 1.0)}, ALT),
    "results": lambda: plots.results(ROWS, ALT),
    "estimators": lambda: plots.estimators([row | {"arm": arm, "frechet_ratio": [1.0, 0.9, 1.1]} for row, arm in zip(ROWS, ("oracle", "pu_paper", "filter"))], "abc", [False, True, False], ALT),
    "line panels": lambda: plots.line_panels({"p": {"a": ([1, 10], [1, 100])}, "q": {"b": ([1, 10], [2, 3])}}, "x", "y", ALT, log_x=True),
    "interval panels": lambda: plots.interval_panels({"y": {"a": ([10, 20], [(1, 0.9, 1.2), (2, 1.8, 2.1)])}, "z": {"b": ([10, 20], [(3, 2, 4)] * 2)}}, "x", ALT, level=1.5),
    "sieve": lambda: plots.sieve(torch.linspace(0, 1, 40), torch.linspace(0.2, 1, 10), torch.arange(40) > 30, 0.5, ALT),
}


def pixels(picture: Picture) -> np.ndarray:
    """[height, width, 3] in [0, 1]."""
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB")) / 255


def painted(picture: Picture, colour: str) -> int:
    """Number of pixels that are nearly of this colour."""
    return int((np.abs(pixels(picture) - to_rgb(colour)).max(-1) < 0.12).sum())


def public_figures() -> dict:
    """The functions of `pulib.plots` that return a `Picture`."""
    functions = inspect.getmembers(plots, inspect.isfunction)
    return {name: f for name, f in functions if not name.startswith("_") and f.__module__ == plots.__name__ and f.__annotations__.get("return") is Picture}


# --------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_a_png_of_the_stated_size_with_words(name):
    picture = FIGURES[name]()
    image = pixels(picture)
    assert picture.png.startswith(b"\x89PNG") and len(picture.alt) > 20
    assert image.shape[1] == pytest.approx(picture.width * plots.DPI / 96, abs=2)
    assert image[0, 0].tolist() == [1, 1, 1] and 0.001 < (image.min(-1) < 0.9).mean() < 0.9  # ink on white
    assert picture.png == FIGURES[name]().png  # drawn again, the same file


@pytest.mark.parametrize("name", public_figures())
def test_every_figure_function_demands_alternative_text(name):
    """Or writes it by itself, and then it is tested above."""
    parameter = inspect.signature(public_figures()[name]).parameters.get("alt")
    assert name == "noising" if parameter is None else parameter.default is inspect.Parameter.empty


def test_notebooks_and_pages_get_the_words_with_the_picture():
    picture = Picture(b"png", 'digits <"1"> & others', 640)
    data, metadata = picture._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == b"png" and data["text/plain"] == picture.alt
    assert metadata["image/png"] == {"alt": picture.alt, "width": 640}
    page = picture.html("<b>caption</b>")
    assert 'alt="digits &lt;&quot;1&quot;&gt; &amp; others"' in page and 'width="640"' in page
    assert 'role="status"' in page and "&lt;b&gt;caption" in page


def test_figures_drawn_in_several_threads_at_once_are_the_same(tried):
    """As a slider is drawn beside a running cell."""

    def drawn(name: str) -> bytes:
        return FIGURES[name]().png

    names = ["digits", "slopes", "curves", "line panels"]
    alone = [drawn(name) for name in names]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(drawn, names * 2))
    assert [one == other for one, other in zip(together, alone * 2)] == [True] * 8
    tried("fault", "figures drawn in four threads at once", "each is the same to the last byte")


def test_a_figure_leaves_alone_what_all_threads_share(monkeypatch):
    """matplotlib's settings, and its one parser of formulas, which mixes up those of two threads."""
    style, seen, saving, save = dict(rcParams), [], [], Figure.savefig
    for name in ("subplots", "add_axes", "savefig"):
        call = getattr(Figure, name)
        monkeypatch.setattr(Figure, name, lambda *args, call=call, **options: seen.append(dict(rcParams)) or call(*args, **options))
    made = [FIGURES["digits"](), plots.sieve(torch.linspace(0, 1, 40), torch.linspace(0.2, 1, 10), torch.arange(40) > 30, 0.5, ALT)]
    assert len(made) == 2 and len(seen) >= 4 and all(found == style for found in seen) and dict(rcParams) == style
    most = []

    def slow(*args, **options) -> None:
        saving.append(1)
        most.append(len(saving))
        time.sleep(0.02)
        save(*args, **options)
        saving.pop()

    monkeypatch.setattr(Figure, "savefig", slow)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda draw: draw(plots.new_figure(1, 1)[0], ALT), [plots.render, plots._quick] * 4))
    assert most == [1] * 8


def test_frames_stand_around_the_framed_images_only():
    assert painted(plots.digits(IMAGES, ALT), SENSITIVE) == 0
    every_second = torch.arange(12) % 2 == 0  # so that no frame covers another
    one, five = (painted(plots.digits(IMAGES, ALT, framed=every_second & (torch.arange(12) < n)), SENSITIVE) for n in (1, 10))
    assert one > 0 and 4.5 < five / one < 5.5


def test_negative_density_is_painted_orange():
    grid = plots.grid_points(2.5, 60)

    def orange(assumed: float) -> int:
        figure, axes = plots.new_figure(4, 4)
        plots.draw_density(axes[0, 0], WORLD.signed_density(grid, assumed), 2.5)
        return painted(plots.render(figure, ALT), SENSITIVE)

    assert orange(0.2) == 0 < orange(0.5)


def test_grid_goes_row_by_row_from_below():
    assert plots.grid_points(1, 2).tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]


def test_digits_are_dark_on_white():
    blank, full = (plots.digits(torch.full((1, 1, 28, 28), v), ALT, columns=1) for v in (-1.0, 1.0))
    assert pixels(blank).min() > 0.99 and (pixels(full) < 0.01).mean() > 0.8


def test_results_show_the_arms_of_one_split():
    even, odd = plots.results(ROWS, ALT, "even"), plots.results(ROWS, ALT, "odd")
    assert painted(even, NORMAL) > 0 and painted(even, UNLABELED) > 0 and painted(odd, NORMAL) == 0


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40), st.integers(1, 50))
def test_smooth_is_the_mean_of_the_last_values(values, window):
    expected = [np.mean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))]
    np.testing.assert_allclose(plots.smooth(values, window), expected, atol=1e-9)


def test_table_shows_headings_and_rounded_numbers():
    lines = plots.table([{"arm": "pu", "nsr": 0.98765, "n": 2000}], {"arm": "method", "nsr": "NSR", "n": "n"})._repr_markdown_()
    assert lines.splitlines() == ["| method | NSR | n |", "| --- | --- | --- |", "| pu | 0.988 | 2000 |"]


def test_shown_source_is_the_source_that_runs():
    shown = plots.source(diffusion.add_noise, toy.World.responsibility)._repr_markdown_()
    assert "def add_noise(" in shown and "return signal * x0 + sigma * noise" in shown
    assert re.search(r"^def responsibility\(", shown, re.M)


# --------------------------------------------------------------------------------------------- sliders


def draw(value):
    return Picture(str(value).encode(), f"alt of {value}", 300), f"caption of {value:g}"


def draw_or_fail(value):
    if value > 0.6:
        raise ValueError(f"<{value:g}> is too much")
    return draw(value)


def parts(box):
    (handle, field), view = box.children[0].children, box.children[1]
    return handle, field, view


@pytest.mark.parametrize(("low", "high", "step", "start"), [(0, 1, 0.05, 0.3), (0, 999, 1, 500), (0, 10, 1, 2.5), (-1.0, 1.0, 0.5, 0.0)])
def test_slider_shows_what_the_function_draws(low, high, step, start):
    handle, field, view = parts(widgets.slider(draw, "level", start, low, high, step))
    assert handle.value == field.value == start and view.value == widgets.safe_html(draw, start)
    for value in (low, (low + high) // 2 if isinstance(high, int) else 0.5, high):
        handle.value = value
        assert view.value == widgets.safe_html(draw, handle.value) and f"alt of {handle.value}" in view.value


def test_handle_and_field_stay_linked_both_ways():
    handle, field, view = parts(widgets.slider(draw, "level", 0.3, 0, 1, 0.05))
    field.value = 0.7
    assert handle.value == 0.7 and view.value == widgets.safe_html(draw, 0.7)
    assert view.value.startswith("<figure") and 'data-value="0.7"' in view.value and "aria-busy" not in view.value
    assert 'aria-busy="true"' in widgets.safe_html(draw, 0.7, aria_busy="true")
    handle.value = 0.1
    assert field.value == 0.1
    field.value = 5  # beyond the range: kept within it, and nothing breaks
    assert field.value == handle.value == 1
    assert "level" in handle.description and "level" in field.description


def test_an_error_while_drawing_is_shown_and_goes_away():
    handle, field, view = parts(widgets.slider(draw_or_fail, "level", 0.3, 0, 1, 0.05))
    handle.value = 0.8  # does not raise
    assert 'role="alert"' in view.value and "ValueError" in view.value and "&lt;0.8&gt; is too much" in view.value
    assert "<img" not in view.value
    handle.value = 0.5
    assert view.value == widgets.safe_html(draw, 0.5) and 'role="alert"' not in view.value


def test_a_prediction_is_compared_with_what_happened(capsys):
    guess = widgets.predict("How many?", "few", "many")
    assert guess.answer is None
    guess.compare("many")
    guess.answer = "many"
    guess.compare("many")
    guess.compare("few")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "You made no prediction." and said[1] == "What happened: many."
    assert said[2:4] == ["You predicted: many.", "What happened: many. As you said."] and "Not as you said" in said[5]


def test_a_prediction_without_a_front_end_is_readable():
    text = widgets.predict("How many?", "few", "a great many of the drawings, or nearly all that one can think of")._repr_mimebundle_()["text/plain"]
    assert all(part in text for part in ("How many?", "few", "nearly all that one can think of", ".answer"))


@pytest.mark.parametrize("notebook", ["01", "02", "03", "04"])
def test_each_notebook_has_its_symbols(notebook):
    shown = repr(notation.notation(notebook))
    assert "class prior" in shown and all(line.count(" | ") == 2 for line in shown.splitlines())
