"""Sliders over the plots: a pure function draws, a few lines of ipywidgets show."""

import asyncio
import html
import os
from collections.abc import Callable, Iterator, Sequence

import ipywidgets as w

from .explorer import Frame
from .plots import NORMAL, Picture

Draw = Callable[[float], tuple[Picture, str]]  # value -> (picture, caption)
DrawFrames = Callable[[float], Iterator[Frame]]  # value -> frames; the last picture stays
# ipywidgets shows the keyboard's focus faintly or not at all, and hides the outline with !important
FOCUS = f"<style>.pulib-focus.pulib-focus :focus-visible {{outline: 3px solid {NORMAL} !important; outline-offset: 1px}}</style>"


def safe_html(draw: Draw, value: float, **attributes: object) -> str:
    """What `draw` makes of `value`, as HTML; an error becomes a visible message instead of vanishing.

    The figure says which value it shows in `data-value`; one that is not yet the last for its value has `aria_busy="true"`.
    """
    try:
        picture, caption = draw(value)
        return picture.html(caption, data_value=value, **attributes)
    except Exception as error:  # a widget's callback has nowhere else to report to
        return alert(error)


def alert(error: Exception) -> str:
    """An error as a visible message."""
    return f'<p role="alert"><b>{type(error).__name__}</b>: {html.escape(str(error))}</p>'


def slider(draw: Draw, label: str, value: float, low: float, high: float, step: float) -> w.VBox:
    """A slider with a linked number field (for keyboards and screen readers) over a figure with caption.

    The box keeps `draw`: what it comes to show is `safe_html(box.draw, value)`, and tests in a browser hold it to that.

    Args:
        draw: value -> (picture, caption); must be quick, as it runs at each release of the handle.
        label: what the slider sets.
        value, low, high, step: its start and range.

    Raises:
        ValueError: value is outside [low, high].
    """
    handle, field = _handle_and_field(label, value, low, high, step)
    view = w.HTML(safe_html(draw, handle.value))
    _try_ends(draw, view, low, high)
    handle.observe(lambda change: setattr(view, "value", safe_html(draw, change["new"])), "value")
    return _box(draw, [w.HBox([handle, field]), view])


def live(frames: DrawFrames, label: str, value: float, low: float, high: float, step: float) -> w.VBox:
    """Like `slider`, for drawings that take a while: shows each frame as it comes, with a progress bar.

    Between two frames the kernel sees to its messages, so a slider that moves on stops the old drawing. Without a running
    event loop (a plain script) a move draws to the end. A cell that shows the widget waits for its first picture only.

    Args:
        frames: value -> frames; whoever stops reading them must do no harm.
        label, value, low, high, step: as in `slider`.

    Raises:
        ValueError: value is outside [low, high].
    """
    handle, field = _handle_and_field(label, value, low, high, step)
    bar = w.FloatProgress(max=1.0, description="drawing", layout=w.Layout(width="360px"), style={"bar_color": NORMAL})
    view = w.HTML()
    running: list[asyncio.Task] = []

    def show(value: float) -> Iterator[Frame]:
        try:
            for frame in frames(value):
                bar.value = frame.done
                if frame.picture is not None:
                    view.value = frame.picture.html(frame.caption, data_value=value, aria_busy=str(frame.done < 1).lower())
                yield frame
        except Exception as error:  # a task has nowhere else to report to
            view.value = alert(error)

    async def run(value: float) -> None:
        for _ in show(value):
            await asyncio.sleep(0)

    def move(change: dict) -> None:
        for task in running:
            task.cancel()
        try:
            running[:] = [asyncio.get_running_loop().create_task(run(change["new"]))]
        except RuntimeError:  # no event loop
            list(show(change["new"]))

    def draw(value: float) -> tuple[Picture, str]:
        return [(frame.picture, frame.caption) for frame in frames(value) if frame.picture is not None][-1]

    next((frame for frame in show(handle.value) if frame.picture is not None), None)
    _try_ends(draw, view, low, high)
    handle.observe(move, "value")
    move({"new": handle.value})
    return _box(draw, [w.HBox([handle, field]), bar, view])


def _try_ends(draw: Draw, view: w.HTML, low: float, high: float) -> None:
    """Where PULIB_TRY_SLIDERS is set, as in tests, nobody moves the slider: look at its ends, and raise the error that a broken one would show."""
    if os.environ.get("PULIB_TRY_SLIDERS"):
        for shown in (view.value, *(safe_html(draw, end) for end in (low, high))):
            if 'role="alert"' in shown:
                raise RuntimeError(f"a slider shows {shown}")


def _box(draw: Draw, parts: list[w.Widget]) -> w.VBox:
    box = w.VBox([*parts, focus_style()], _dom_classes=("pulib-slider", "pulib-focus"))
    box.draw = draw
    return box


def _handle_and_field(label: str, value: float, low: float, high: float, step: float) -> tuple[w.Widget, w.Widget]:
    if not low <= value <= high:
        raise ValueError(f"value must be in [{low}, {high}]; got {value}")
    whole = all(float(x).is_integer() for x in (value, low, high, step))
    Slider, Field = (w.IntSlider, w.BoundedIntText) if whole else (w.FloatSlider, w.BoundedFloatText)
    options = dict(value=value, min=low, max=high, step=step, continuous_update=False, style={"description_width": "initial"})
    handle = Slider(description=label, tooltip=f"{label}: drag, or use the arrow keys", layout=w.Layout(width="360px"), **options, **({} if whole else {"readout_format": ".3f"}))
    field = Field(description=f"{label} (type it)", tooltip=f"{label}: type it, then Enter", layout=w.Layout(width="220px"), **options)
    handle.style.handle_color = NORMAL  # white on white by default
    w.link((handle, "value"), (field, "value"))
    return handle, field


def focus_style() -> w.HTML:
    """Invisible, to be put into a box of class `pulib-focus`: what has the keyboard's focus there gets a thick outline."""
    return w.HTML(FOCUS, layout=w.Layout(display="none"))


class Prediction(w.VBox):
    """A question with answers to choose from, asked before something is shown.

    Without a front end it shows as text, and `answer` can be set by hand.

    Args:
        question: what will happen?
        choices: at least two answers.

    Raises:
        ValueError: fewer than two choices, or two that are the same.
    """

    def __init__(self, question: str, choices: Sequence[str]) -> None:
        if len(set(choices)) < 2 or len(set(choices)) != len(choices):
            raise ValueError(f"choices must be at least two different answers; got {list(choices)}")
        self.question, self.choices = question, tuple(choices)
        self._buttons = w.RadioButtons(options=self.choices, value=None, layout=w.Layout(width="max-content", padding="0 0 0 6px"))
        asked = w.HTML(f'<div style="line-height:1.5"><b>Predict:</b> {html.escape(question)}</div>')
        super().__init__([asked, self._buttons, focus_style()], _dom_classes=("pulib-prediction", "pulib-focus"))

    @property
    def answer(self) -> str | None:
        """The choice made, or None."""
        return self._buttons.value

    @answer.setter
    def answer(self, choice: str) -> None:
        self._buttons.value = choice

    def compare(self, outcome: str) -> None:
        """Print what was predicted beside what happened, which must be one of the choices.

        Raises:
            ValueError: the outcome is none of the choices.
        """
        if outcome not in self.choices:
            raise ValueError(f"outcome must be one of {list(self.choices)}; got {outcome!r}")
        said = "You made no prediction." if self.answer is None else f"You predicted: {self.answer}."
        verdict = "" if self.answer is None else " As you said." if self.answer == outcome else " Not as you said: why?"
        print(f"{said}\nWhat happened: {outcome}.{verdict}")

    def _repr_mimebundle_(self, **kwargs: object) -> dict:
        return super()._repr_mimebundle_(**kwargs) | {"text/plain": repr(self)}  # ipywidgets cuts it after 110 letters

    def __repr__(self) -> str:
        listed = "\n".join(f"  - {choice}" for choice in self.choices)
        return f"Predict: {self.question}\n{listed}\n(no front end: set `.answer` to one of these)"


def predict(question: str, *choices: str) -> Prediction:
    """Ask for a prediction before a slider or a reveal; `compare` tells afterwards what happened."""
    return Prediction(question, choices)
