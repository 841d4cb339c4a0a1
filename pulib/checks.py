"""Checks of the exercises, one line each: they say what is wrong, and hand over the function to go on with."""

from collections.abc import Callable
from dataclasses import dataclass

from .exercises import EXERCISES
from .exercises.base import Exercise, judge
from .plots import Source


def check(key: str, answer: Callable) -> Callable:
    """Judge an answer, print the verdict, and give back the function that the notebook goes on with.

    That is the answer when it is right, and the library's function when it is wrong or not attempted, so that a
    notebook always runs to its end.

    Raises:
        ValueError: there is no such exercise.
    """
    exercise = find(key)
    verdict = judge(exercise, answer)
    print(f"{key} {verdict.state + ': ' if verdict.state == 'wrong' else ''}{verdict.says}.")
    return answer if verdict.state == "right" else exercise.solution


def solution(key: str) -> "Solution":
    """The solution of an exercise, folded: the source of the library function itself.

    Raises:
        ValueError: there is no such exercise.
    """
    return Solution(key, Source(find(key).solution).text)


@dataclass(frozen=True)
class Solution:
    """A solution that unfolds at a click; as plain text it is the code."""

    key: str
    code: str

    def _repr_markdown_(self) -> str:
        return f"<details><summary>Solution of {self.key}</summary>\n\n```python\n{self.code}\n```\n\n</details>"

    def __repr__(self) -> str:
        return f"Solution of {self.key}, folded; print(checks.solution({self.key!r}).code) shows it."


def find(key: str) -> Exercise:
    """The exercise of that key.

    Raises:
        ValueError: there is no such exercise.
    """
    if key not in EXERCISES:
        raise ValueError(f"key must be one of {', '.join(sorted(EXERCISES))}; got {key!r}")
    return EXERCISES[key]
