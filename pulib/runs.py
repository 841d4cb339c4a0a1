"""Long runs: a signal that ends a run saves it first, checkpoints by number in a folder, too little memory, and curves for TensorBoard."""

import math
import os
import re
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data import check_count


class Stoppable:
    """Saves before Ctrl-C (SIGINT) or SIGTERM ends a run, and when its loop is left early; a context around all steps.

    A signal within a step waits until the step is done, as half a step is nothing to go on from (a second one does not wait, and nothing
    is saved); one between steps saves at once. Then it does what it would have done, so that runs within runs all save. Outside the main
    thread, where no signal arrives, only leaving early saves.

    Args:
        save: writes the state after the last whole step.
        agree: of several processes: takes whether this one was told to stop, and says whether any was. All then end after the same step.
    """

    def __init__(self, save: Callable[[], None], agree: Callable[[bool], bool] | None = None) -> None:
        self.save, self.agree = save, agree
        self.busy, self.closed = False, False
        self.pending: int | None = None
        self.before: dict = {}

    def __enter__(self) -> "Stoppable":
        if _in_main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # who ignores it goes on
                    self.before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, kind, *rest) -> None:
        self._close(save=kind is GeneratorExit)
        if self.pending is not None:
            self._forward(self.pending)

    @contextmanager
    def step(self) -> Iterator[None]:
        """The part that a signal must not cut."""
        self.busy = True
        yield  # what a step raises goes on to `__exit__`, still busy
        told = self.pending is not None
        self.busy = False
        if self.agree(told) if self.agree is not None else told:
            self._end(signal.SIGTERM if self.pending is None else self.pending)

    def _arrived(self, number: int, frame) -> None:
        again = self.pending is not None and not (self.agree is not None and number == signal.SIGTERM)  # schedulers tell processes twice
        if self.closed or (self.busy and again):
            self._forward(number)
        elif self.busy or self.agree is not None:
            self.pending = number
        else:
            self._end(number)

    def _end(self, number: int) -> None:
        self._close(save=True)
        self.pending = None
        self._forward(number)

    def _close(self, save: bool) -> None:
        """Save if asked, with signals waiting, and give the signals back."""
        self.busy = True
        try:
            if save and not self.closed:
                self.save()
        finally:
            self.closed = True
            for number, handler in self.before.items():
                if _in_main_thread() and signal.getsignal(number) == self._arrived:  # else it belongs to a later run, and is passed on
                    signal.signal(number, handler)

    def _forward(self, number: int) -> None:
        before = self.before.get(number, signal.SIG_DFL)
        if callable(before):
            before(number, None)
        elif before == signal.SIG_DFL:
            if _in_main_thread():
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints by number of steps in a folder, of which the newest `keep` stay; for `training.fit`.

    Raises:
        ValueError: keep is not a whole number >= 1.
    """

    folder: Path | str
    keep: int = 3

    def __post_init__(self) -> None:
        check_count(self.keep, "keep")

    def at(self, step: int) -> Path:
        """The file for the state after `step` steps."""
        return Path(self.folder) / f"step_{step:08d}.checkpoint"

    def newest(self) -> list[Path]:
        """The files that there are, the newest first."""
        return sorted((path for path in Path(self.folder).glob("step_*.checkpoint") if re.fullmatch(r"step_\d{8,}", path.stem)), reverse=True)

    def thin_out(self) -> None:
        """Delete all but the newest."""
        for path in self.newest()[self.keep :]:
            path.unlink(missing_ok=True)


def pass_over(path: Path, error: Exception, move: bool) -> None:
    """Say that a damaged checkpoint is not used; with `move` it gives up its place among those that are kept."""
    warnings.warn(f"{path.name} is damaged and passed over for the one before it ({error})", stacklevel=3)
    if move:
        with suppress(OSError):  # it may be gone, or not ours to move
            path.replace(path.with_suffix(".damaged"))


# --------------------------------------------------------------------------------------------- memory


def out_of_memory(error: Exception) -> bool:
    """Does an error say that memory does not suffice? CUDA has a class for it; CPUs, oneDNN on them and Apple GPUs say it in a plain RuntimeError."""
    said = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in said for text in ("can't allocate memory", "not enough memory", "out of memory", "could not create a primitive"))


def fewer(at_once: int, error: Exception) -> int:
    """How many images to try where `at_once` were too many for the memory, with a warning.

    Raises:
        MemoryError: one image is too many already.
        Exception: `error` itself, where it is of another kind.
    """
    if not out_of_memory(error):
        raise error
    if at_once == 1:
        raise MemoryError("out of memory with one image at a time; take a network of smaller widths or smaller images, or run it where more memory is free") from error
    warnings.warn(
        f"out of memory with {at_once} images at once; from here on {at_once // 2} are computed at once, which takes longer and gives the same up to rounding", stacklevel=3
    )
    return at_once // 2


def in_parts(compute: Callable[[slice], Any], n: int, at_once: int) -> Iterator:
    """`compute` of stretches of rows 0 … n-1, at most `at_once` long, in order; shorter ones (see `fewer`) where memory does not suffice."""
    first = 0
    while first < n:
        rows = slice(first, min(first + at_once, n))
        try:
            part = compute(rows)
        except (RuntimeError, MemoryError) as error:
            at_once = fewer(rows.stop - first, error)
        else:
            yield part
            first = rows.stop


def logged(
    records: Generator, folder: Path | str, every: int = 50, draw: Callable[[nn.Module], Tensor] | None = None, draw_every: int = 500
) -> Iterator:
    """Pass the records of `training.fit` on, and write their risk and losses, and drawings, for TensorBoard.

    A run that goes on in the same folder goes on with its curves. Of several processes only the first writes. Leaving the loop leaves
    that of `fit` too, which saves.

    Args:
        records: what `training.fit` gives.
        folder: of this run alone; `tensorboard --logdir` shows it.
        every: steps between two points of a curve; the last step is one as well. Reading the risk makes a GPU wait.
        draw: from the model to images [n, 1 or 3, h, w] in [-1, 1], as a sampler makes them.
        draw_every: steps between two grids of drawings.

    Raises:
        ValueError: every or draw_every is not a whole number >= 1.
        ImportError: TensorBoard is not installed.
    """
    every, draw_every = check_count(every, "every"), check_count(draw_every, "draw_every")
    if os.environ.get("RANK", "0") != "0":
        yield from records
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("logged needs TensorBoard: pip install 'pulib[scale]'") from error
    with closing(records):
        first = next(records)
        if math.isnan(first.risk):  # the run had ended before, and its curves are there
            yield first
            return
        with SummaryWriter(str(folder), purge_step=first.step) as writer:  # drops what a killed run drew after its checkpoint
            try:
                for record in chain([first], records):
                    if record.step % every == 0:
                        _write_scalars(writer, record)
                    if draw is not None and record.step % draw_every == 0:
                        writer.add_image("drawings", _grid(draw(record.model)), record.step)
                    yield record
            finally:
                if record.step % every:
                    _write_scalars(writer, record)


def _write_scalars(writer, record) -> None:
    for name in ("risk", "loss_u", "loss_s"):
        value = getattr(record, name)
        if not math.isnan(value):
            writer.add_scalar(name, value, record.step)
    writer.flush()  # a run that is killed, or ended by SIGTERM, closes nothing


def _grid(images: Tensor) -> Tensor:
    from torchvision.utils import make_grid  # slow to import

    return make_grid(images.float(), normalize=True, value_range=(-1, 1))
