"""One call, one labelled figure. Every function returns a `Picture`: PNG bytes with alternative text."""

import base64
import html
import inspect
import io
import textwrap
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from .data import check_count

# Okabe & Ito's palette, readable with all common kinds of colour blindness.
NORMAL, SENSITIVE, UNLABELED, ACCENT, INK = "#0072B2", "#D55E00", "#6A6A6A", "#009E73", "#222222"
DPI = 144
DRAWING = threading.Lock()  # sliders are drawn beside a running cell, in a thread of their own, and matplotlib knows but one parser of formulas
GAP, FRAMED_GAP = 2, 4  # pixels between images; wider where some are framed
ARMS = {"unsupervised": UNLABELED, "supervised": "#CC79A7", "pu": NORMAL, "oracle": ACCENT}


@dataclass(frozen=True)
class Picture:
    """A rendered figure: `png` bytes, its `alt` text, and its `width` on the page in CSS pixels.

    Raises:
        ValueError: alt is empty.
    """

    png: bytes
    alt: str
    width: int

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError("alt must describe the figure in words; got an empty text")

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        metadata = {"image/png": {"alt": self.alt, "width": self.width}}
        return {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.alt}, metadata

    def html(self, caption: str = "", **attributes: object) -> str:
        """The picture as an HTML figure, with more attributes (`data_value=3` writes data-value="3").

        The caption is announced by screen readers when it changes.
        """
        data = base64.b64encode(self.png).decode()
        more = "".join(f' {name.replace("_", "-")}="{html.escape(str(value))}"' for name, value in attributes.items())
        return (
            f'<figure style="margin:0;line-height:1.5"{more}><img alt="{html.escape(self.alt)}" width="{self.width}" style="max-width:100%;height:auto" '
            f'src="data:image/png;base64,{data}">'
            f'<figcaption role="status" aria-live="polite">{html.escape(caption)}</figcaption></figure>'
        )


class Source:
    """The source code of library functions, shown in a notebook."""

    def __init__(self, *objects: Callable) -> None:
        self.text = "\n\n".join(textwrap.dedent(inspect.getsource(o)).rstrip() for o in objects)

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}\n```"

    def __repr__(self) -> str:
        return self.text


def source(*objects: Callable) -> Source:
    """Show the bodies of library functions: what a notebook teaches is what the library runs."""
    return Source(*objects)


def render(figure: Figure, alt: str, n_colours: int = 64) -> Picture:
    """A figure as a `Picture`, at 144 dots per inch and in few colours, which makes notebooks several times smaller."""
    small = io.BytesIO()
    reduced = Image.open(_png(figure)).convert("RGB").quantize(n_colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    reduced.save(small, "png", optimize=True)
    return Picture(small.getvalue(), alt, round(figure.get_figwidth() * 96))


def _png(figure: Figure, **options) -> io.BytesIO:
    raw = io.BytesIO()
    with DRAWING:
        figure.savefig(raw, format="png", dpi=DPI, **options)
    return raw


def new_figure(width: float = 6.4, height: float = 3.6, rows: int = 1, columns: int = 1, gap: float | None = None, **kwargs) -> tuple[Figure, np.ndarray]:
    """A figure in the course's style and its axes as a [rows, columns] array, with a `gap` between columns; no pyplot, so nothing leaks."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=gap))
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    _open(*axes.flat)
    return figure, axes


def _open(*axes: Axes) -> None:
    """No line at the top and the right: the course's style. Not by `rc_context`, which is one for all threads."""
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)


# ---------------------------------------------------------------------------------------------- images


def _canvas(images: Tensor, columns: int, gap: int = GAP) -> np.ndarray:
    """Images [n, c, h, w] in [-1, 1] tiled into one array in [0, 1], white between them: gray ones (c = 1) as ink on paper, colour as it is."""
    n, c, h, w = images.shape
    rows = -(-n // columns)
    canvas = np.ones((rows * (h + gap) - gap, columns * (w + gap) - gap, c), dtype=np.float32)
    for i, image in enumerate(images):
        y, x = divmod(i, columns)
        light = (image.clamp(-1, 1).movedim(0, 2).numpy() + 1) / 2
        canvas[y * (h + gap) : y * (h + gap) + h, x * (w + gap) : x * (w + gap) + w] = 1 - light if c == 1 else light
    return canvas[:, :, 0] if c == 1 else canvas


def _gap(framed: Tensor | None) -> int:
    return GAP if framed is None else FRAMED_GAP


def draw_digits(axis: Axes, images: Tensor, columns: int, framed: Tensor | None = None, title: str = "") -> None:
    """Draw a grid of images [n, 1 or 3, h, w] into an axis, with an orange frame where `framed` (bool [n]) is true.

    Frames run along the inner edge of their image, and framed grids have wider gaps, so that no two images share a frame.
    """
    gap, (h, w) = _gap(framed), images.shape[-2:]
    axis.imshow(_canvas(images, columns, gap), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for i in torch.nonzero(framed).flatten().tolist() if framed is not None else []:
        y, x = divmod(i, columns)
        axis.add_patch(_frame((x * (w + gap), y * (h + gap)), w - 1, h - 1))
    axis.set_title(title)
    axis.set_axis_off()


def _frame(corner: tuple[float, float], w: float, h: float):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, w, h, fill=False, edgecolor=SENSITIVE, linewidth=1.6, clip_on=False)


def digits(
    images: Tensor,
    alt: str,
    columns: int = 10,
    framed: Tensor | None = None,
    title: str = "",
    width: float = 6.4,
    row_labels: Sequence[str] = (),
) -> Picture:
    """A grid of images [n, 1, h, w], with a label per row if given; those where `framed` (bool [n]) is true get an orange frame."""
    rows, h = -(-len(images) // columns), images.shape[-2]
    label_width = 0.1 + 0.075 * max(map(len, row_labels)) if row_labels else 0.0
    figure, axes = new_figure(width, (width - label_width) * rows / columns + (0.35 if title else 0.1))
    axis = axes[0, 0]
    draw_digits(axis, images, columns, framed, title)
    if row_labels:
        gap = _gap(framed)
        _label_rows(axis, [(h + gap) * i + h / 2 for i in range(rows)], row_labels)
    return render(figure, alt)


def _label_rows(axis: Axes, places: Sequence[float], labels: Sequence[str]) -> None:
    """Write labels at the left of a grid of images, without the axis's lines."""
    axis.set_axis_on()
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.set_yticks(places, labels)
    axis.set_xticks([])


def digits_side_by_side(groups: dict[str, Tensor], framed: dict[str, Tensor], alt: str, columns: int = 8, width: float = 9.0) -> Picture:
    """One grid of digits per name, beside each other, each with its own frames and count of framed images."""
    rows = -(-len(next(iter(groups.values()))) // columns)
    panel = width / len(groups)
    figure, axes = new_figure(width, panel * rows / columns + 0.55, 1, len(groups), gap=0.08)
    for axis, (name, images) in zip(axes[0], groups.items()):
        draw_digits(axis, images, columns, framed[name], f"{name}\n{int(framed[name].sum())} of {len(images)} framed")
    return render(figure, alt, 64 if images.shape[1] == 1 else 256)


# ----------------------------------------------------------------------------------------------- lines


def curves(
    series: dict[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    alt: str,
    title: str = "",
    log_x: bool = False,
    log_y: bool = False,
    colours: dict[str, str] | None = None,
    marks: dict[str, float] | None = None,
    width: float = 6.4,
    height: float = 3.4,
    y_range: tuple[float, float] | None = None,
    thin: Sequence[str] = (),
) -> Picture:
    """Labelled lines, {name: (x, y)}; those named in `thin` are thin, solid and behind the others.

    `marks` adds dotted vertical lines, {name: x}; `y_range` cuts the y axis.
    """
    figure, axes = new_figure(width, height)
    axis = axes[0, 0]
    palette = [NORMAL, SENSITIVE, ACCENT, "#CC79A7", INK]
    dashes = ["-", "--", "-.", ":"]
    for i, (name, (x, y)) in enumerate(series.items()):
        style = {"linestyle": "-", "linewidth": 0.7, "zorder": 1} if name in thin else {"linestyle": dashes[i % 4], "linewidth": 1.8}
        axis.plot(x, y, label=name, color=(colours or {}).get(name, palette[i % len(palette)]), **style)
    for name, at in (marks or {}).items():
        axis.axvline(at, color=INK, linestyle=":", linewidth=1.2)
        axis.annotate(name, (at, 0.97), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points", va="top")
    axis.set(xlabel=x_label, ylabel=y_label, title=title, xscale="log" if log_x else "linear", yscale="log" if log_y else "linear", ylim=y_range)
    if len(series) > 1:
        axis.legend(frameon=False)
    return render(figure, alt)


def smooth(values: Sequence[float], window: int) -> np.ndarray:
    """Moving average over the last `window` >= 1 values; shorter at the start."""
    window = check_count(window, "window")
    total = np.cumsum(np.insert(np.asarray(values, dtype=float), 0, 0.0))
    index = np.arange(1, len(values) + 1)
    start = np.maximum(0, index - window)
    return (total[index] - total[start]) / (index - start)


# ------------------------------------------------------------------------------------------ two dimensions


def draw_points(axis: Axes, groups: dict[str, Tensor], colours: dict[str, str], limit: float, title: str = "") -> None:
    """Scatter groups of points {name: [n, 2]} into a square axis from -limit to limit."""
    markers = ["o", "^", "s", "x"]
    for i, (name, points) in enumerate(groups.items()):
        axis.scatter(points[:, 0], points[:, 1], s=9, marker=markers[i % 4], alpha=0.6, linewidths=0.8, color=colours[name], label=name)
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="$x_1$", ylabel="$x_2$", title=title)


def points(groups: dict[str, Tensor], colours: dict[str, str], alt: str, limit: float = 2.5, title: str = "", width: float = 4.6) -> Picture:
    """Scatter plot of groups of points, {name: [n, 2]}."""
    figure, axes = new_figure(width, width)
    draw_points(axes[0, 0], groups, colours, limit, title)
    axes[0, 0].legend(frameon=False, loc="upper right")
    return render(figure, alt)


def grid_points(limit: float, size: int = 120) -> Tensor:
    """The points [size * size, 2] of a square grid from -limit to limit, row by row from below."""
    ticks = torch.linspace(-limit, limit, size)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def draw_density(axis: Axes, values: Tensor, limit: float, title: str = "") -> None:
    """Shade a density on a square grid (see `grid_points`), negative values in orange with a contour at 0."""
    size = round(len(values) ** 0.5)
    field = values.view(size, size).numpy()
    top = max(float(np.abs(field).max()), 1e-9)
    shades = colors.LinearSegmentedColormap.from_list("signed", [SENSITIVE, "#FFFFFF", NORMAL])
    axis.imshow(field, origin="lower", extent=(-limit, limit, -limit, limit), cmap=shades, vmin=-top, vmax=top, interpolation="bilinear")
    if field.min() < -1e-3 * top:
        axis.contour(field, levels=[-1e-3 * top], extent=(-limit, limit, -limit, limit), colors=[SENSITIVE], linewidths=1.2)
    axis.set(xlabel="$x_1$", ylabel="$x_2$", title=title)


# ------------------------------------------------------------------------------------------ notebook 01


def digit_panels(
    panels: dict[str, dict[str, Tensor]], alt: str, column_labels: Sequence[str] = (), width: float = 9.0, n_colours: int = 64
) -> Picture:
    """Panels side by side, each of labelled rows of digits: {panel: {row: images [n, 1, h, w]}}.

    All panels have the same row labels, which are written once, on the left; `column_labels` stand below.
    """
    rows = next(iter(panels.values()))
    n, _, h, w = next(iter(rows.values())).shape
    label_width = 0.2 + 0.08 * max(sum(c not in "$\\{}_^" for c in name.replace("hat", "")) for name in rows)
    step = (width - label_width) / (len(panels) * (n + 0.8))  # of one digit, in inches
    figure, axes = new_figure(width, step * len(rows) + 0.15 + 0.3 * any(panels) + 0.25 * bool(column_labels), 1, len(panels), gap=0.12 if len(panels) > 1 else 0.0)
    for axis, (title, panel) in zip(axes[0], panels.items()):
        draw_digits(axis, torch.cat(list(panel.values())), n, title=title)
        _label_rows(axis, [(h + GAP) * i + h / 2 for i in range(len(rows))], list(rows) if axis is axes[0, 0] else [""] * len(rows))
        axis.set_anchor("E" if len(panels) == 1 else "C")  # what is free is for the labels
        axis.set_xticks([(w + GAP) * i + w / 2 for i in range(len(column_labels))], column_labels)
    return render(figure, alt, n_colours)


def noise_fields(
    fields: dict[str, Tensor],
    at: Tensor,
    alt: str,
    limit: float = 2.5,
    width: float = 8.6,
    longest: float | None = None,
    centres: dict[str, Tensor] | None = None,
    colours: dict[str, str] | None = None,
) -> Picture:
    """Arrows along minus the predicted noise at points `at` [n, 2], one panel per field {name: eps_hat [n, 2]}.

    Arrows are an eighth of the noise long, but none longer than `longest`, in units of the axes. `centres` {group: [k, 2]} are
    marked behind them, in `colours` {group: colour}, with a legend below.

    Raises:
        ValueError: a group of `centres` has no colour.
    """
    centres, colours = centres or {}, colours or {}
    if missing := sorted(centres.keys() - colours.keys()):
        raise ValueError(f"colours must name one for each group of centres; none is given for {missing}")
    figure, axes = new_figure(width, width / len(fields) + (0.45 if centres else 0.15), 1, len(fields))
    for axis, (name, eps_hat) in zip(axes[0], fields.items()):
        arrows = -eps_hat
        if longest is not None:
            arrows = arrows * (8 * longest / arrows.norm(dim=1, keepdim=True).clamp(min=8 * longest))
        axis.quiver(*at.T, *arrows.T, color=INK if centres else NORMAL, angles="xy", scale_units="xy", scale=8, width=0.004)
        for (group, means), marker in zip(centres.items(), ["o", "^", "s", "x"]):
            axis.scatter(*means.T, s=110, marker=marker, color=colours[group], alpha=0.55, linewidths=0, label=f"centre of a {group} cloud", zorder=0.9)
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="$x_1$", ylabel="$x_2$", title=name)
    if centres:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=len(centres))
    return render(figure, alt)


def point_panels(panels: dict[str, dict[str, Tensor]], colours: dict[str, str], alt: str, limit: float = 2.5, width: float = 8.6) -> Picture:
    """Scatter plots side by side, {panel: {group: points [n, 2]}}, with one legend in the first."""
    figure, axes = new_figure(width, width / len(panels) + 0.15, 1, len(panels))
    for axis, (title, groups) in zip(axes[0], panels.items()):
        draw_points(axis, groups, colours, limit, title)
    axes[0, 0].legend(frameon=False, loc="center")
    return render(figure, alt)


# ------------------------------------------------------------------------------------------ notebook 02


def cloud_panels(panels: dict[str, dict[str, Tensor]], colours: dict[str, str], alt: str, limit: float = 2.5, width: float = 8.6) -> Picture:
    """Scatter plots side by side, {panel: {group: points [n, 2]}}, each with its own legend above the points."""
    figure, axes = new_figure(width, width / len(panels) + 0.45, 1, len(panels), sharey=True)
    for axis, (title, groups) in zip(axes[0], panels.items(), strict=True):
        draw_points(axis, groups, colours, limit, title)
        axis.label_outer()
        axis.legend(frameon=False, loc="upper center", ncols=len(groups), markerscale=2)
    return render(figure, alt)


def draw_decision(axis: Axes, score: Tensor, groups: dict[str, Tensor], colours: dict[str, str], limit: float, title: str = "") -> None:
    """Shade sigmoid(score) on a square grid (see `grid_points`) in tenths, blue = normal, with the boundary at 1/2 and points on top."""
    size = round(len(score) ** 0.5)
    field = score.double().sigmoid().view(size, size).numpy()
    ticks = np.linspace(-limit, limit, size)
    strength = np.arange(5, 0, -1)[:, None] / 11  # of the tint, from certain to undecided; opaque, as overlaps of see-through ones show seams
    tints = [1 - part * (1 - np.array(colors.to_rgb(colour))) for colour, part in ((SENSITIVE, strength), (NORMAL, strength[::-1]))]
    axis.contourf(ticks, ticks, field, levels=np.linspace(0, 1, 11), colors=[*tints[0], *tints[1]], zorder=0)
    for i, (name, points) in enumerate(groups.items()):
        style: dict[str, Any] = {"s": 6, "linewidths": 0} if i == 0 else {"s": 18, "linewidths": 0.5, "edgecolors": INK}
        axis.scatter(points[:, 0], points[:, 1], marker="o^s"[i % 3], color=colours[name], label=name, alpha=0.8, **style)
    if field.min() < 0.5 < field.max():
        axis.contour(ticks, ticks, field, levels=[0.5], colors=[INK], linewidths=2)
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="$x_1$", ylabel="$x_2$", title=title)


def decision_panels(
    scores: dict[str, Tensor], groups: dict[str, Tensor], colours: dict[str, str], alt: str, limit: float = 3.2, width: float = 9.0
) -> Picture:
    """Classifiers side by side, {title: score [size * size] on `grid_points(limit)`}, over the same groups of points."""
    lines = max(title.count("\n") for title in scores)
    figure, axes = new_figure(width, width / len(scores) + 0.45 + 0.25 * lines, 1, len(scores), sharey=True)
    for axis, (title, score) in zip(axes[0], scores.items(), strict=True):
        draw_decision(axis, score, groups, colours, limit, title)
        axis.label_outer()
    axes[0, 0].legend(frameon=True, loc="lower left", fontsize=8, markerscale=1.5)
    return render(figure, alt, n_colours=128)


def decision_and_curve(
    score: Tensor,
    groups: dict[str, Tensor],
    colours: dict[str, str],
    curve: tuple[Sequence[float], Sequence[float]],
    here: tuple[float, float],
    marks: dict[str, float],
    x_label: str,
    y_label: str,
    alt: str,
    limit: float = 3.2,
    width: float = 8.6,
) -> Picture:
    """One classifier (see `decision_panels`) beside a curve (x, y) with the point `here` on it and vertical `marks`."""
    figure, axes = new_figure(width, width / 2 - 0.4, 1, 2)
    draw_decision(axes[0, 0], score, groups, colours, limit)
    axes[0, 0].legend(frameon=True, loc="lower left", fontsize=8, markerscale=1.5)
    axis = axes[0, 1]
    axis.plot(*curve, color=NORMAL, linewidth=1.8)
    axis.plot(*here, "o", color=SENSITIVE, markersize=9)
    for name, x in marks.items():
        axis.axvline(x, color=INK, linestyle=":", linewidth=1.2, label=name)
    axis.set(xlabel=x_label, ylabel=y_label, ylim=(0, 1.05 * max(*curve[1], here[1])))
    axis.legend(frameon=False)
    return render(figure, alt, n_colours=128)


def estimates(
    values: dict[str, Tensor], exact: float, x_label: str, alt: str, colours: dict[str, str] | None = None, width: float = 7.2, height: float = 3.2
) -> Picture:
    """Histograms of repeated estimates, {name: [repeats]}, each with its mean (dashed), and the exact value as a solid line."""
    figure, axes = new_figure(width, height)
    axis, both = axes[0, 0], torch.cat(list(values.values()))
    bins = np.linspace(both.min().item(), both.max().item(), 60)
    for name, mine in values.items():
        colour = (colours or {}).get(name)
        axis.hist(mine.numpy(), bins=bins, alpha=0.55, color=colour, label=name)
        axis.axvline(mine.mean().item(), color=colour, linestyle="--", linewidth=1.8)
    axis.axvline(exact, color=INK, linewidth=1.8, label="exact value")
    axis.set(xlabel=x_label, ylabel="number of redraws")
    axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(values) + 1)
    return render(figure, alt)


def run_panels(
    panels: dict[str, dict[str, Sequence[tuple[Sequence[float], Sequence[float]]]]],
    colours: dict[str, str],
    x_label: str,
    y_label: str,
    alt: str,
    y_range: tuple[float, float] | None = None,
    width: float = 9.0,
    height: float = 3.2,
) -> Picture:
    """Panels of curves from several runs, {panel: {name: [(x, y) per run]}}; runs of one name share colour and dashes."""
    figure, axes = new_figure(width, height, 1, len(panels), sharey=True)
    for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
        for (name, runs), dash in zip(series.items(), ["-", "--", ":", "-."], strict=False):
            for i, (x, y) in enumerate(runs):
                axis.plot(x, y, color=colours[name], linestyle=dash, linewidth=1.3, label=name if i == 0 else None)
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set(xlabel=x_label, title=title, ylim=y_range)
    axes[0, 0].set_ylabel(y_label)
    axes[0, -1].legend(frameon=False, fontsize=8, loc="upper left")
    return render(figure, alt)


# ------------------------------------------------------------------------------------------ notebook 03


def densities_and_samples(
    columns: dict[str, tuple[Tensor, dict[str, Tensor]]], colours: dict[str, str], alt: str, limit: float = 2.5, width: float = 9.0
) -> Picture:
    """Signed densities on `grid_points(limit)` with groups of samples, {title: (density, groups)}: above each other, or beside when there is one."""
    across = len(columns) == 1
    rows, n = (1, 2) if across else (2, len(columns))
    figure, axes = new_figure(width, width / n * rows + (0.55 if across else 0.3), rows, n, sharex=True, sharey=True)
    pairs = axes if across else axes.T
    for (title, (density, groups)), (above, below) in zip(columns.items(), pairs):
        draw_density(above, density, limit, f"{title}, signed density" if across else title)
        draw_points(below, groups, colours, limit, f"{title}, samples" if across else "")
    for axis in axes.flat:
        axis.label_outer()
    handles = [Line2D([], [], color=colours[name], marker=m, linestyle="", label=name) for name, m in zip(groups, ["o", "^", "s", "x"])]
    pairs[0][1].legend(handles=handles, frameon=False, loc="center", fontsize=9, handletextpad=0.1)
    return render(figure, alt)


def slopes(
    loss: Tensor, series: dict[str, Tensor], bands: dict[str, tuple[float, float]], alt: str, width: float = 7.4, height: float = 4.0
) -> Picture:
    """Slopes against `loss` [n] on logarithmic axes, {name: slope [n]}, with shaded `bands` of losses {name: (low, high)}."""
    figure, axes = new_figure(width, height)
    axis = axes[0, 0]
    for (name, slope), colour, dash in zip(series.items(), [INK, SENSITIVE, ACCENT, NORMAL], ["-", "-", "--", "-."]):
        axis.plot(loss.numpy(), slope.numpy(), color=colour, linestyle=dash, linewidth=1.8, label=name)
    for name, (low, high) in bands.items():
        axis.axvspan(low, high, color=UNLABELED, alpha=0.18, linewidth=0)
        axis.text((low * high) ** 0.5, 0.98, name, transform=axis.get_xaxis_transform(), ha="center", va="top", fontsize=9)
    axis.set(xlabel="l of one draw", ylabel="size of slope in l", xscale="log", yscale="log", ylim=(1e-10, 1e7), xlim=(loss[0].item(), loss[-1].item()))
    axis.legend(frameon=False, loc="lower left")
    return render(figure, alt)


# -------------------------------------------------------------------------------------------- results


def results(rows: Sequence[dict], alt: str, split: str = "even", width: float = 8.0) -> Picture:
    """NSR with its interval, and Fréchet distance, of each arm in `rows` (see `Report.row`).

    Raises:
        ValueError: no row of that split.
    """
    splits = sorted({row["split"] for row in rows})
    if split not in splits:
        raise ValueError(f"split must be one of those in rows, {splits}; got {split!r}")
    rows = [row for row in rows if row["split"] == split]
    figure, axes = new_figure(width, 2.8, 1, 2, sharey=True, gap=0.06)
    for i, row in enumerate(rows):
        colour = ARMS.get(row["arm"], INK)
        error = [[row["nsr"] - row["nsr_low"]], [row["nsr_high"] - row["nsr"]]]
        axes[0, 0].errorbar(row["nsr"], i, xerr=error, fmt="o", color=colour, capsize=4)
        axes[0, 1].plot(row["frechet"], i, "s", color=colour)
    axes[0, 0].set_yticks(range(len(rows)), [row["arm"] for row in rows])
    axes[0, 0].invert_yaxis()
    axes[0, 0].set(xlabel="non-sensitive rate, 95 % interval\n(higher is better)")
    axes[0, 1].axvline(rows[0]["frechet_floor"], color=INK, linestyle=":", label="real against real")
    axes[0, 1].set(xlabel="Fréchet distance\n(lower is better)", xlim=(0, None))
    axes[0, 1].legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return render(figure, alt)


def table(rows: Sequence[dict], columns: dict[str, str], digits: int = 3) -> "Table":
    """Rows as a Markdown table; `columns` maps keys to headings."""
    return Table([[row.get(key, "") for key in columns] for row in rows], list(columns.values()), digits)


@dataclass(frozen=True)
class Table:
    """A small table that shows itself as Markdown."""

    cells: list[list]
    headings: list[str]
    digits: int = 3

    def _repr_markdown_(self) -> str:
        def text(cell: object) -> str:
            return f"{cell:.{self.digits}f}" if isinstance(cell, float) else str(cell)

        lines = [self.headings, ["---"] * len(self.headings), *([text(c) for c in row] for row in self.cells)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def __repr__(self) -> str:
        return self._repr_markdown_()


# ------------------------------------------------------------------------------------------ notebook 05


def explorer(
    images: Tensor, framed: Tensor, measured: dict[float, tuple[float, float, float]], prior: float, true_prior: float, alt: str, largest: float
) -> Picture:
    """Drawings [n, 1, h, w] in a square grid beside the NSR at each assumed prior, {prior: (nsr, low, high)}, and the ideal curve.

    Made for sliders: places are fixed and colours are not reduced, which takes half the time.
    """
    figure, grid, axis = _placed(8.6, 3.6, (0.01, 0.02, 0.36, 0.86), (0.46, 0.16, 0.52, 0.72))
    draw_digits(grid, images, round(len(images) ** 0.5), framed, f"assumed prior {prior:.3f}")
    draw_ideal_nsr(axis, true_prior, largest)
    at, (nsr, low, high) = list(measured), zip(*measured.values())
    axis.errorbar(at, nsr, [np.subtract(nsr, low), np.subtract(high, nsr)], fmt="o", color=NORMAL, markersize=4, linewidth=1, label="drawn so far")
    axis.axvline(prior, color=ACCENT, linewidth=2, zorder=0)
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.07), fontsize=9)
    return _quick(figure, alt)


def prior_curves(curves: dict[str, Sequence[tuple[float, float, float, float]]], true_prior: float, y_label: str, alt: str) -> Picture:
    """Rates with intervals over the assumed prior, {name: [(b, rate, low, high), …]}, beside the law; beyond the true prior is shaded."""
    figure, axes = new_figure(7.2, 3.8)
    axis = axes[0, 0]
    draw_ideal_nsr(axis, true_prior, max(row[0] for rows in curves.values() for row in rows))
    for (name, rows), colour, marker, dash, shift in zip(curves.items(), [SENSITIVE, NORMAL, ACCENT], "^os", ["-.", "-", ":"], (-0.001, 0.001, 0.0)):
        b, rate, low, high = np.array(rows).T
        axis.errorbar(b + shift, rate, [rate - low, high - rate], color=colour, marker=marker, markersize=4, linewidth=1.2, linestyle=dash, label=name)
    axis.set(ylabel=y_label, ylim=(0.97 - true_prior, 1.02))
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.07), fontsize=9)
    return render(figure, alt)


def best_bin(score_u: Tensor, score_s: Tensor, masses: tuple[Tensor, Tensor, Tensor], chosen: int, bound: Tensor, true_prior: float, alt: str) -> Picture:
    """Held-out scores of U and S, and P_U / P_S with its bound over the share of S in the bin; `masses` are (h, P_U, P_S), each [n]."""
    figure, axes = new_figure(8.6, 3.4, 1, 2)
    left, right = axes[0]
    h, u, s = (values.numpy() for values in masses)
    edges = np.linspace(min(score_u.min().item(), score_s.min().item()), max(score_u.max().item(), score_s.max().item()), 40)
    for name, scores, colour, style in (("U", score_u, UNLABELED, "stepfilled"), ("S", score_s, SENSITIVE, "step")):
        left.hist(scores.numpy(), edges, density=True, histtype=style, color=colour, alpha=0.55 if style == "stepfilled" else 1.0, linewidth=1.8, label=name)
    left.axvline(h[chosen], color=INK, linestyle=":", linewidth=1.2)
    left.annotate("best bin →", (h[chosen], 0.97), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points", va="top")
    left.set(xlabel="score g, held out", ylabel="density", yscale="log", ylim=(None, 2.5 * left.dataLim.y1))
    left.legend(frameon=False, loc="upper left")
    ratio = u / s
    right.plot(s, ratio, color=NORMAL, linewidth=1.8, label="$P_U/P_S$")
    right.fill_between(s, ratio, ratio + bound.numpy(), color=NORMAL, alpha=0.15, linewidth=0, label="what chance may add")
    right.axhline(true_prior, color=INK, linestyle="--", linewidth=1.2, label="the truth")
    right.plot(s[chosen], ratio[chosen], "x", color=SENSITIVE, markersize=9, markeredgewidth=2.5, label="best bin")
    right.set(xlabel="share of S in the bin, $P_S$", ylabel="ratio", ylim=(0, min(1.0, max(4 * true_prior, 0.4))), xlim=(0, 1.02))
    right.legend(frameon=False, loc="upper center", fontsize=9)
    return render(figure, alt)


def twin(
    rows: dict[str, tuple[Tensor, Tensor, dict[str, Tensor]]], at: Tensor, colours: dict[str, str], alt: str, limit: float = 2.3, width: float = 9.0
) -> Picture:
    """Signed density on `grid_points(limit)`, score arrows at points `at` [n, 2], and samples, a row of three panels per {title: …}.

    Where the density is negative it is shaded orange, with an outline. Arrows are no longer than the points are apart.
    """
    figure, axes = new_figure(width, width / 3 * len(rows) + 0.5, len(rows), 3, sharex=True, sharey=True)
    longest = 0.9 * (at[1] - at[0]).norm()
    for (title, (density, score, groups)), (left, middle, right) in zip(rows.items(), axes):
        draw_density(left, density, limit, f"{title}: density")
        arrows = score * (longest / score.norm(dim=1, keepdim=True)).clamp(max=longest / 8)
        middle.quiver(*at.T, *arrows.T, color=INK, angles="xy", scale_units="xy", scale=1, width=0.004)
        middle.set(aspect="equal", xlabel="$x_1$", title="score")
        draw_points(right, groups, colours, limit, "samples")
    handles = [Line2D([], [], color=colours[name], marker=m, linestyle="", label=name) for name, m in zip(groups, ["o", "^", "s", "x"])]
    axes[0, 2].legend(handles=handles, frameon=False, loc="center", fontsize=9, handletextpad=0.1)
    for axis in axes.flat:
        axis.label_outer()
    return render(figure, alt)


def draw_ideal_nsr(axis: Axes, true_prior: float, largest: float) -> None:
    """The law NSR = (1 - prior) / (1 - b) over the assumed prior b up to the true one, and the region beyond, shaded."""
    assumed = np.linspace(0, true_prior, 50)
    axis.plot(assumed, (1 - true_prior) / (1 - assumed), color=INK, linestyle="--", label="ideal")
    axis.axvspan(true_prior, 1.025 * largest, color=SENSITIVE, alpha=0.10, linewidth=0)
    axis.annotate("beyond the true prior", (true_prior, 0.03), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points", fontsize=9)
    axis.set(xlim=(-0.025 * largest, 1.025 * largest), ylim=(min(0.8, 0.9 - true_prior), 1.01), xlabel="assumed prior b", ylabel="non-sensitive rate (NSR)")


# ------------------------------------------------------------------------------------------ notebook 06


def estimators(rows: Sequence[dict], names: Sequence[str], front: Sequence[bool], alt: str, width: float = 9.0) -> Picture:
    """NSR, and Fréchet distance over the oracle's, of every method with their intervals, one line each; those on the front have filled marks.

    `rows` as tests/benchmarks/estimators.py writes them, the oracle's among them; `names` are what stands at the lines.
    """
    figure, axes = new_figure(width, 0.27 * len(rows) + 1.25, 1, 2, sharey=True, gap=0.05)
    left, right = axes[0]
    oracle = next(row for row in rows if row["arm"] == "oracle")
    for i, (row, filled) in enumerate(zip(rows, front, strict=True)):
        colour = INK if row is oracle else NORMAL if row["arm"].startswith("pu_") else SENSITIVE
        for axis, mark, (value, *ends) in ((left, "o", [row[key] for key in ("nsr", "nsr_low", "nsr_high")]), (right, "s", row["frechet_ratio"])):
            axis.plot(ends, [i, i], color=colour, marker="|", markersize=6, linewidth=1.2)
            axis.plot(value, i, mark, color=colour, markerfacecolor=colour if filled else "white")
    left.set_yticks(range(len(rows)), names)
    left.invert_yaxis()
    left.axvline(oracle["nsr"], color=INK, linestyle=":", linewidth=1, zorder=0)
    right.axvline(1, color=INK, linestyle=":", linewidth=1, zorder=0)
    left.set(xlabel="non-sensitive rate\n(higher is better)")
    right.set(xlabel="Fréchet distance over the oracle's\n(lower is better)", xlim=(0, None))
    handles = [Line2D([], [], color=c, marker="o", linestyle="", label=name) for c, name in ((INK, "oracle"), (NORMAL, "PU risk"), (SENSITIVE, "others"))]
    handles.append(Line2D([], [], color=UNLABELED, marker="o", markerfacecolor="white", linestyle="", label="hollow: not on the front"))
    figure.legend(handles=handles, frameon=False, loc="outside upper center", ncols=4)
    return render(figure, alt)


def line_panels(
    panels: dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]], x_label: str, y_label: str, alt: str, log_x: bool = False, width: float = 9.0, height: float = 3.5, log_y: bool = True
) -> Picture:
    """Panels of lines with one y axis, logarithmic or from 0 on, {panel: {name: (x, y)}}; a name has the same look in all panels."""
    figure, axes = new_figure(width, height, 1, len(panels), sharey=True)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    palette, dashes = [NORMAL, SENSITIVE, ACCENT, "#CC79A7", INK, UNLABELED], ["-", "--", "-.", ":", "-", "--"]
    for axis, (title, lines) in zip(axes[0], panels.items(), strict=True):
        for name, (x, y) in lines.items():
            i = names.index(name)
            axis.plot(x, y, color=palette[i % 6], linestyle=dashes[i % 6], marker=".", linewidth=1.8, label=name)
        axis.set(xlabel=x_label, title=title, xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
    if not log_y:
        axes[0, 0].set_ylim(0, None)
    axes[0, 0].set_ylabel(y_label)
    handles = {handle.get_label(): handle for axis in axes[0] for handle in axis.get_lines()}
    figure.legend(handles=list(handles.values()), frameon=False, loc="outside lower center", ncols=4 if len(names) % 3 else 3)
    return render(figure, alt)


def interval_panels(
    panels: dict[str, dict[str, tuple[Sequence[float], Sequence[Sequence[float]]]]], x_label: str, alt: str, level: float | None = None, width: float = 9.0
) -> Picture:
    """Panels {y label: {name: (x, [(value, low, high), ...])}} with one logarithmic x axis; a name has the same look in all panels.

    `level`: a dotted horizontal line.
    """
    figure, axes = new_figure(width, 3.4, 1, len(panels))
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    places = sorted({x for lines in panels.values() for xs, _ in lines.values() for x in xs})
    palette, marks = [NORMAL, SENSITIVE, ACCENT, INK], "osD^"
    for axis, (y_label, lines) in zip(axes[0], panels.items(), strict=True):
        for name, (x, found) in lines.items():
            i = names.index(name)
            value, low, high = np.array(found, dtype=float).T
            x = np.array(x) * 1.04 ** (i - (len(names) - 1) / 2)  # side by side
            axis.plot(x, value, color=palette[i % 4], marker=marks[i % 4], markersize=5, linewidth=1.6, label=name)
            axis.plot([x, x], [low, high], color=palette[i % 4], marker="_", markersize=7, linewidth=1.2)
        axis.set(xscale="log", xlabel=x_label, ylabel=y_label)
        axis.set_xticks(places, [f"{x:,}" for x in places])
        axis.minorticks_off()
        if level is not None:
            axis.axhline(level, color=INK, linestyle=":", linewidth=1)
    handles = {handle.get_label(): handle for axis in axes[0] for handle in axis.get_legend_handles_labels()[0]}
    figure.legend(handles=list(handles.values()), frameon=False, loc="outside lower center", ncols=4)
    return render(figure, alt)


def sieve(r_u: Tensor, r_s: Tensor, hidden: Tensor, threshold: float, alt: str) -> Picture:
    """p(sensitive | x) of the images of U, [n], by what they are (`hidden`, bool [n]), and of S, [m], with a threshold. Made for sliders."""
    figure, left, right = _placed(8.6, 3.3, (0.08, 0.17, 0.40, 0.72), (0.57, 0.17, 0.40, 0.72))
    groups = {"normal (hidden truth)": (r_u[~hidden], NORMAL), "sensitive (hidden truth)": (r_u[hidden], SENSITIVE)}
    edges = np.linspace(0, 1, 26)
    styles: list[dict[str, Any]] = [{"alpha": 0.6}, {"histtype": "step", "linewidth": 2}]
    for (name, (values, colour)), style in zip(groups.items(), styles):
        left.hist(values.numpy(), edges, color=colour, label=name, **style)
    right.hist(r_s.numpy(), edges, color=ACCENT)
    left.set(yscale="log", ylim=(0.7, None), xlabel="$p$(sensitive | x), images of U", ylabel="number of images")
    right.set(xlabel="$p$(sensitive | x), images of S")
    for axis in (left, right):
        axis.axvline(threshold, color=INK, linewidth=2)
    left.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)
    return _quick(figure, alt)


# ------------------------------------------------------------------------------------------ notebook 07


def effects(
    panels: dict[str, Sequence[tuple[float, float, float]]], names: Sequence[str], alt: str, levels: dict[str, float] | None = None, x_range: tuple[float, float] | None = None, width: float = 8.2
) -> Picture:
    """Settings one below the other, {x label: [(value, low, high) of each]}, with their names on the left.

    `levels` {x label: x} adds a dotted line to a panel; `x_range` makes all panels alike.
    """
    figure, axes = new_figure(width, 0.27 * len(names) + 0.9, 1, len(panels), sharey=True, gap=0.06)
    for axis, (x_label, found) in zip(axes[0], panels.items()):
        for i, (value, low, high) in enumerate(found):
            axis.plot([low, high], [i, i], color=NORMAL, marker="|", markersize=7, linewidth=1.4)
            axis.plot(value, i, "o", color=NORMAL, markersize=5)
        if levels and x_label in levels:
            axis.axvline(levels[x_label], color=INK, linestyle=":", linewidth=1, zorder=0)
        axis.set(xlabel=x_label, ylim=(len(names) - 0.5, -0.5), xlim=x_range)
        axis.xaxis.set_major_locator(MaxNLocator(4 if len(panels) < 4 else 3, steps=[1, 2, 5, 10]))
        axis.tick_params(axis="x", labelsize=9)
    axes[0, 0].set_yticks(range(len(names)), names)
    return render(figure, alt, n_colours=8)


def kinds(rows: dict[str, tuple[Tensor, dict[str, Tensor], Tensor, Tensor]], colours: dict[str, str], n_sensitive: int, alt: str, limit: float = 2.4, quick: bool = False) -> Picture:
    """Worlds of several kinds of points, {title: (signed density on `grid_points(limit, 80)`, samples {group: [n, 2]}, share drawn of each kind [k],
    share wanted [k])}: density, samples and shares beside each other. The last `n_sensitive` kinds are sensitive. `quick` is for sliders.
    """
    figure, axes = new_figure(7.8, 2.1 * len(rows) + 0.1, len(rows), 3)
    shades = colors.LinearSegmentedColormap.from_list("signed", [SENSITIVE, "#FFFFFF", NORMAL])
    ticks = np.linspace(-limit, limit, round(len(next(iter(rows.values()))[0]) ** 0.5))
    for (title, (density, groups, drawn, wanted)), (left, middle, right) in zip(rows.items(), axes):
        field = density.view(len(ticks), len(ticks)).numpy()
        top = float(np.abs(field).max())
        left.contourf(ticks, ticks, field, levels=np.linspace(-top, top, 14), cmap=shades)  # steps, as PNG stores smooth shades badly
        if field.min() < -1e-3 * top:
            left.contour(ticks, ticks, field, levels=[-1e-3 * top], colors=[SENSITIVE], linewidths=1.2)
        left.set(aspect="equal", xlabel="$x_1$", ylabel="$x_2$", title=f"{title}: target")
        for (name, points), marker in zip(groups.items(), "o^"):
            middle.scatter(*points.T, s=4, marker=marker, linewidths=0, color=colours[name])
        middle.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="$x_1$", title="drawn")
        k = len(drawn)
        tint = [NORMAL] * (k - n_sensitive) + [SENSITIVE] * n_sensitive
        right.bar(range(k), drawn.tolist(), color=tint, alpha=0.75)
        right.plot(range(k), wanted.tolist(), linestyle="", marker="_", markersize=15, markeredgewidth=2, color=INK, label="wanted")
        right.set(xticks=range(k), xticklabels=[f"N{i + 1}" for i in range(k - n_sensitive)] + [f"S{i + 1}" for i in range(n_sensitive)], ylabel="share of drawings", ylim=(0, 0.36))
        right.tick_params(axis="x", labelsize=8)
        right.legend(frameon=False, loc="upper left", fontsize=9)
    return _quick(figure, alt) if quick else render(figure, alt, n_colours=18)


def two_histograms(panels: dict[str, dict[str, Tensor]], x_label: str, alt: str, colours: dict[str, str], quick: bool = False) -> Picture:
    """Histograms of the same names in panels side by side, {panel: {name: values [n]}}, with a line at 0; the outermost 0.2 % are left out."""
    figure, axes = new_figure(8.4, 2.9, 1, len(panels))
    styles: list[dict[str, Any]] = [{"alpha": 0.55}, {"histtype": "step", "linewidth": 2}, {"histtype": "step", "linewidth": 2, "linestyle": "--"}]
    for axis, (title, groups) in zip(axes[0], panels.items()):
        both = torch.cat(list(groups.values()))
        low, high = both.quantile(torch.tensor([0.002, 0.998])).tolist()
        edges = np.linspace(min(low, 0.0), high, 50)
        for (name, values), style in zip(groups.items(), styles):
            axis.hist(values.numpy(), edges, color=colours[name], label=name, **style)
        axis.axvline(0, color=INK, linewidth=1)
        axis.set(title=title, xlabel=x_label)
    axes[0, 0].set_ylabel("number of batches")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=len(labels))
    return _quick(figure, alt) if quick else render(figure, alt, n_colours=12)


def loss_history(
    over_steps: dict[str, tuple[Sequence[float], Sequence[float]]], by_level: dict[str, tuple[Sequence[float], Sequence[float]]], step: float, alt: str
) -> Picture:
    """Losses of several sets over the steps of a run, {name: (step, loss)}, with a mark at `step`, beside those by noise level at that step (logarithmic)."""
    figure, axes = new_figure(8.4, 3.1, 1, 2)
    for axis, lines, x_label in ((axes[0, 0], over_steps, "step"), (axes[0, 1], by_level, "noise level t")):
        for (name, (x, y)), colour, dash in zip(lines.items(), [SENSITIVE, "#CC79A7", ACCENT, NORMAL], ["-", "--", "-.", ":"]):
            axis.plot(x, y, color=colour, linestyle=dash, marker=".", linewidth=1.8, label=name)
        axis.set(xlabel=x_label)
    axes[0, 1].set_yscale("log")
    axes[0, 0].set_ylim(0, None)
    axes[0, 0].axvline(step, color=INK, linestyle=":", linewidth=1.2)
    axes[0, 0].set_ylabel("mean loss l")
    axes[0, 1].set_title(f"after {step} steps")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=4)
    return render(figure, alt, n_colours=12)


def _placed(width: float, height: float, *places: tuple[float, float, float, float]) -> tuple:
    """A figure in the course's style and an axis at each place (left, bottom, width, height), in shares of the figure."""
    figure = Figure(figsize=(width, height))
    axes = [figure.add_axes(place) for place in places]
    _open(*axes)
    return figure, *axes


def _quick(figure: Figure, alt: str) -> Picture:
    """A figure as a `Picture` without reducing its colours: larger, and sooner there."""
    return Picture(_png(figure, pil_kwargs={"compress_level": 1}).getvalue(), alt, round(figure.get_figwidth() * 96))
