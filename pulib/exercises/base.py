"""What an exercise is, and how a wrong answer is told what is wrong.

An exercise asks for a function that the library has: the solution IS the library function. A check runs the learner's
function and the library's on the same inputs and compares what can be observed. A wrong answer is also compared with
known mistakes: the one that gives the same wrong numbers, or raises the same error, names the reason.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Observed = Mapping[str, object]  # what was looked at -> its value; a name that ends in "?" is a question, 1 for yes and 0 for no
Values = dict[str, Tensor]  # the same, as float64 tensors


class NotAttempted(Exception):
    """The stub still gives back `...`."""


class Unusable(Exception):
    """What a function gave back is not what was asked for; the message says so to the learner, without a full stop."""


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
    if not callable(answer):
        return Verdict("wrong", f"the check wants the function itself, not {named(answer)}: write its name without brackets")
    seen = attempt(exercise, answer)
    if isinstance(seen, NotAttempted):
        return Verdict("not attempted", "not attempted, going on with the reference")
    right = observe(exercise, exercise.solution)
    if _same(seen, right, exercise.tolerance):
        return Verdict("right", "correct, going on with your function")
    for mistake in exercise.mistakes:
        if _same(seen, _tried(exercise, mistake.function), exercise.tolerance):
            return Verdict("wrong", mistake.says)
    return Verdict("wrong", raised(seen) if isinstance(seen, Exception) else difference(seen, right, exercise.tolerance))


def attempt(exercise: Exercise, answer: Callable) -> Values | Exception:
    """What an answer makes of the exercise's inputs, or the error that stopped it."""
    return _tried(exercise, _returning(answer))


def observe(exercise: Exercise, candidate: Callable) -> Values:
    """What a candidate makes of the exercise's inputs, as float64 tensors."""
    return {name: as_tensor(value) for name, value in exercise.observe(candidate).items()}


def _tried(exercise: Exercise, candidate: Callable) -> Values | Exception:
    try:
        return observe(exercise, candidate)
    except Exception as error:  # whatever a learner's code may raise; a mistake need not run on every input either
        return error


def _same(a: Values | Exception, b: Values | Exception, tolerance: float) -> bool:
    """The same values, or the same error."""
    if isinstance(a, Exception) or isinstance(b, Exception):
        return type(a) is type(b) and str(a) == str(b)
    return agree(a, b, tolerance)


def _returning(answer: Callable) -> Callable:
    """The answer, but an error where it gives back nothing."""

    def run(*args, **kwargs):
        result = answer(*args, **kwargs)
        if result is ...:
            raise NotAttempted
        if result is None:
            words = [repr(arg) for arg in args if isinstance(arg, str)]
            raise Unusable(f"your function gives back None{' for ' + ', '.join(words) if words else ''}; perhaps `return` is missing")
        return result

    return run


# ------------------------------------------------------------------------------- errors, and what was given back

MODULES = {"math": "import math", "np": "import numpy as np", "F": "import torch.nn.functional as F"}
OF_NUMBERS = {
    "sqrt": "`** 0.5` is its root, and so is `math.sqrt` after `import math`",
    "square": "`** 2` is its square",
    "clamp": "`min` and `max` cut it",
    "clip": "`min` and `max` cut it",
    "abs": "`abs(x)` is its absolute value",
}


def of_number(name: str) -> str:
    """What to do instead of calling a function of tensors on a plain number."""
    instead = OF_NUMBERS.get(name, f"use `math.{name}` after `import math`" if hasattr(math, name) else f"leave out `{name}`")
    return f"This is a plain number, not a tensor: {instead}"


HINTS = {
    "Boolean value of Tensor with more than one value": "`if`, `max` and `min` decide about one number, and this tensor holds many: `.clamp` and `torch.where` work on each",
    "only one element tensors can be|cannot be converted to Scalar": "`math` and `.item()` take a tensor of one number; for many use `torch`",
    "tensors used as indices must be": "An index holds whole numbers, as t does: perhaps two arguments have changed places",
    "must match the size of tensor": "The shapes do not fit together: `print(x.shape)` shows that of x",
    "could not infer output dtype.*Bool": "Truth values have no mean; make numbers of them first, by `.float()`",
    r"bitwise_xor|for \^: ": "A power is written `**`",
    "'builtin_function_or_method'": "Perhaps brackets are missing after a name, as in `x.mean()`",
    "does not require grad": "A slope needs a tensor that asks for it: `x = x.clone().requires_grad_()`",
    r"Can't call numpy\(\) on Tensor that requires grad": "Numpy passes on no slope; `torch` has the same functions",
}  # what an error message holds -> what to do, a sentence without its full stop


def hint(error: str) -> str:
    """What to do about an error message; nothing where that is not known."""
    if found := re.search(r"'(?:float|int)' object has no attribute '(\w+)'|(\w+)\(\): argument 'input' .* must be Tensor, not (?:float|int)", error):
        return of_number(found[1] or found[2])
    if (found := re.search(r"name '(\w+)' is not defined", error)) and found[1] in MODULES:
        return f"Add `{MODULES[found[1]]}` to the cell"
    return next((says for pattern, says in HINTS.items() if re.search(pattern, error)), "")


def raised(error: Exception) -> str:
    """An error in words: what is wrong with the result, or the error's first line and a hint where there is one."""
    if isinstance(error, Unusable):
        return str(error)
    text = str(error).strip().partition("\n")[0].rstrip(" .:;?!")
    said = f"your function raised {type(error).__name__}{': ' + text if text else ''}"
    return f"{said}. {hint(text)}" if hint(text) else said


def named(value: object) -> str:
    """A value in words, where another kind was expected."""
    if isinstance(value, (int, float)):
        return f"the number {value:.4g}"
    if isinstance(value, tuple) and hasattr(value, "indices"):
        return "a pair of values and indices"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if callable(value) and not isinstance(value, torch.nn.Module):
        return "a function"
    return f"a {'numpy ' if type(value).__module__ == 'numpy' else ''}{type(value).__name__}"


def advice(value: object) -> str:
    """How to make a tensor or a number of what is neither."""
    if isinstance(value, tuple) and hasattr(value, "indices"):
        return ": `torch.max(x, 0)` reads the 0 as an axis; to cut x at a number use `x.clamp(min=…)`"
    if isinstance(value, tuple) and len(value) == 1:
        return ": take its only entry, `[0]`"
    if isinstance(value, list):
        return ": `torch.stack` makes one of a list of tensors, `torch.tensor` of a list of numbers"
    if callable(value):
        return ": perhaps brackets are missing after a name, as in `x.mean()`"
    return ""


def as_tensor(value: object) -> Tensor:
    """A tensor, number or truth value as a float64 tensor.

    Raises:
        Unusable: it is something else.
    """
    if not isinstance(value, (Tensor, int, float)):
        raise Unusable(f"your function gives back {named(value)}; a tensor or a number was expected{advice(value)}")
    return torch.as_tensor(value).detach().double()


def agree(seen: Values, right: Values, tolerance: float) -> bool:
    """Are all observed values the same, up to the tolerance?"""
    pairs = [(seen[name], right[name]) for name in right]
    return all(a.shape == b.shape and torch.allclose(a, b, tolerance, tolerance, equal_nan=True) for a, b in pairs)


RELATIONS: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    ("is 0", torch.zeros_like),
    ("has the wrong sign", torch.neg),
    ("is 1 minus the expected one", lambda true: 1 - true),
    ("is 1 divided by the expected one", torch.reciprocal),
    ("is the square of the expected one", torch.square),
    ("is the square root of the expected one", torch.sqrt),
    ("is the logarithm of the expected one", torch.log),
    ("is e to the power of the expected one", torch.exp),
    ("holds the expected values in reverse order", lambda true: true.flip(0)),
)


def difference(seen: Values, right: Values, tolerance: float) -> str:
    """What tells `seen` from `right`, in words: shape, a rule that makes one of the other, or the value that differs most."""
    name = next(name for name in right if not agree(seen, {name: right[name]}, tolerance))
    mine, true = seen[name], right[name]
    if mine.shape != true.shape:
        return f'in the test "{name}" your result has shape {list(mine.shape)} where {list(true.shape)} was expected'
    if name.endswith("?"):
        return f'the check asks "{name}" and finds {"yes" if mine else "no"} where {"yes" if true else "no"} was expected'
    if not torch.isfinite(mine).all() and torch.isfinite(true).all():
        return f'in the test "{name}" your result has values that are nan or infinite'
    if rule := relation(*_numbers(seen, right)):
        return f"in every test your result {rule}"
    if rule := relation(mine, true):
        return f'in the test "{name}" your result {rule}'
    worst = int((mine - true).abs().flatten().argmax())
    value, expected = (x.flatten()[worst] + 0.0 for x in (mine, true))  # + 0.0 makes 0 of -0
    return f'in the test "{name}" your result {"is" if mine.numel() == 1 else "holds"} {value:.5g} where {expected:.5g} was expected'


def _numbers(seen: Values, right: Values) -> tuple[Tensor, Tensor]:
    """All single numbers that were seen, and the right ones, without the answers to questions."""
    names = [name for name in right if right[name].ndim == seen[name].ndim == 0 and not name.endswith("?")]
    mine, true = (torch.stack([of[name] for name in names]) if names else torch.zeros(0) for of in (seen, right))
    return mine, true


def relation(mine: Tensor, true: Tensor) -> str | None:
    """The rule that makes wrong values of the right ones, told of three different values at least, as fewer obey many rules."""
    if true.unique().numel() < 3 or _close(mine, true):
        return None
    largest = int(true.abs().flatten().argmax())
    factor, offset = (mine / true).flatten()[largest], (mine - true).flatten()[largest]
    percent = "; a share between 0 and 1 is wanted, not a percentage" if abs(factor - 100) < 0.1 else ""
    rules = (
        *RELATIONS,
        (f"is {factor:.4g} times the expected one{percent}", lambda true: factor * true),
        (f"is the expected one plus {offset:.4g}", lambda true: true + offset),
    )
    return next((says for says, rule in rules if _close(mine, rule(true))), None)


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.isfinite(b).all()) and torch.allclose(a, b, 1e-3, 1e-3 * b.abs().max().item())
