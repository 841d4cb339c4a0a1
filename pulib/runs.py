"""Long runs: a signal that ends a run saves it first, and checkpoints by number in a folder."""

import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .data import check_count


class Stoppable:
    """Saves before Ctrl-C (SIGINT) or SIGTERM ends a run, and when its loop is left early; a context around all steps.

    A signal within a step waits until the step is done, as half a step is nothing to go on from; one between steps saves at once. Then
    it does what it would have done. Outside the main thread, where no signal arrives, only leaving early saves.

    Args:
        save: writes the state after the last whole step; called at most once for each signal.
    """

    def __init__(self, save: Callable[[], None]) -> None:
        self.save, self.busy, self.pending, self.before = save, False, None, {}

    def __enter__(self) -> "Stoppable":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # who ignores it goes on
                    self.before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, kind, *rest) -> None:
        self._restore()
        if kind is GeneratorExit:
            self.save()

    @contextmanager
    def step(self) -> Iterator[None]:
        """The part that a signal must not cut."""
        self.busy = True
        try:
            yield
        finally:
            self.busy = False
        if self.pending is not None:
            self._end(self.pending)

    def _arrived(self, number: int, frame) -> None:
        if self.busy:
            self.pending = number
        else:
            self._end(number)

    def _end(self, number: int) -> None:
        self.pending, before = None, self.before[number]
        self._restore()
        self.save()
        if callable(before):
            before(number, None)
        else:
            raise SystemExit(128 + number)  # what a shell says of it

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}


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


def passed_over(path: Path, error: Exception) -> None:
    """Say that a damaged checkpoint is not used."""
    warnings.warn(f"{path.name} is damaged and passed over for the one before it ({error})", stacklevel=3)
