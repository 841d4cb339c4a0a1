"""What an exercise is, and how a wrong answer is told what is wrong.

An exercise asks for a function that the library has: the solution IS the library function. A check runs the learner's
function and the library's on the same inputs and compares what can be observed. A wrong answer is also compared with
known mistakes: the one that gives the same wrong numbers names the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Observed = dict[str, Tensor]  # what was looked at -> its value


class NotAttempted(Exception):
    """The stub still gives back `...`."""


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer, and what to tell whoever gave it (a sentence without its full stop)."""

    says: str
    function: Callable


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Args:
        key: notebook and number, as "02.3".
        solution: the library function that it asks for.
        observe: runs a candidate on fixed inputs and gives back named values; it must not change its inputs.
        mistakes: known wrong answers, each told apart from the others and from the solution by what `observe` sees.
        tolerance: how far a value may be from the solution's, relative and absolute.
    """

    key: str
    solution: Callable
    observe: Callable[[Callable], Observed]
    mistakes: tuple[Mistake, ...]
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Verdict:
    """`state` is "right", "wrong" or "not attempted"; `says` tells the learner why."""

    state: str
    says: str


def judge(exercise: Exercise, answer: Callable) -> Verdict:
    """Compare an answer with the library function of an exercise."""
    try:
        seen = observe(exercise, _attempt(answer))
    except NotAttempted:
        return Verdict("not attempted", "not attempted, going on with the reference")
    except Exception as error:  # whatever a learner's code may raise
        return Verdict("wrong", f"your function raised {type(error).__name__}: {error}")
    right = observe(exercise, exercise.solution)
    if agree(seen, right, exercise.tolerance):
        return Verdict("right", "correct, going on with your function")
    for mistake in exercise.mistakes:
        if _makes(mistake, exercise, seen):
            return Verdict("wrong", mistake.says)
    return Verdict("wrong", difference(seen, right, exercise.tolerance))


def observe(exercise: Exercise, candidate: Callable) -> Observed:
    """What a candidate makes of the exercise's inputs, as float64 tensors."""
    return {name: as_tensor(value) for name, value in exercise.observe(candidate).items()}


def _makes(mistake: Mistake, exercise: Exercise, seen: Observed) -> bool:
    """Does the mistake give what was seen?"""
    try:
        return agree(seen, observe(exercise, mistake.function), exercise.tolerance)
    except Exception:  # a mistake need not run on every input
        return False


def _attempt(answer: Callable) -> Callable:
    def run(*args, **kwargs):
        result = answer(*args, **kwargs)
        if result is ...:
            raise NotAttempted
        if result is None:
            raise ValueError("it gives back None; is `return` missing?")
        return result

    return run


def as_tensor(value: object) -> Tensor:
    """A tensor, number or truth value as a float64 tensor.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, (Tensor, int, float)):
        raise TypeError(f"it gives back a {type(value).__name__}; expected a tensor or a number")
    return torch.as_tensor(value).detach().double()


def agree(seen: Observed, right: Observed, tolerance: float) -> bool:
    """Are all observed values the same, up to the tolerance?"""
    pairs = [(seen[name], right[name]) for name in right]
    return all(a.shape == b.shape and torch.allclose(a, b, tolerance, tolerance, equal_nan=True) for a, b in pairs)


def difference(seen: Observed, right: Observed, tolerance: float) -> str:
    """What tells `seen` from `right`, in words: shape, sign, factor, offset, or the first value that differs."""
    for name in right:
        mine, true = seen[name], right[name]
        if mine.shape != true.shape:
            return f"{name}: your result has shape {list(mine.shape)}, expected {list(true.shape)}"
        if torch.allclose(mine, true, tolerance, tolerance, equal_nan=True):
            continue
        if not torch.isfinite(mine).all() and torch.isfinite(true).all():
            return f"{name}: your result has values that are nan or infinite"
        if torch.allclose(mine, -true, tolerance, tolerance):
            return f"{name}: your result has the wrong sign"
        usable = true.abs() > 1e-6
        ratio, offset = mine[usable] / true[usable], mine - true
        if ratio.numel() > 1 and torch.allclose(ratio, ratio[0].expand_as(ratio), 1e-3, 1e-3):
            return f"{name}: your result is {ratio[0]:.4g} times the expected one"
        if offset.numel() > 1 and torch.allclose(offset, offset.flatten()[0].expand_as(offset), 1e-3, 1e-3):
            return f"{name}: your result is the expected one plus {offset.flatten()[0]:.4g}"
        worst = int(offset.abs().flatten().argmax())
        return f"{name}: your result is {mine.flatten()[worst]:.5g} where {true.flatten()[worst]:.5g} was expected"
    return "your result differs"
