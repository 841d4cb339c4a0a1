"""The checks of the exercises: right answers are accepted however written, wrong ones are told what is wrong."""

import importlib
import re

import pytest
import torch

from pulib import checks
from pulib.exercises import EXERCISES
from pulib.exercises.base import Exercise, Mistake, difference, judge, observe

ANSWERS = {name: importlib.import_module(f"answers.{name}") for name in sorted({f"nb{key[:2]}" for key in EXERCISES})}
RIGHT = [(key, f) for answers in ANSWERS.values() for key, many in answers.RIGHT.items() for f in many]
WRONG = [(key, *pair) for answers in ANSWERS.values() for key, many in answers.WRONG.items() for pair in many]
each = pytest.mark.parametrize("key", sorted(EXERCISES))


def doubled_punctuation(sentence: str) -> str:
    """Punctuation in a row, as in "?.", outside code and brackets; nothing where there is none."""
    found = re.search(r"[.,;:!?]\s*[.,;:!?]", re.sub(r"`[^`]*`|\[[^]]*\]", "x", sentence))
    return found[0] if found else ""


def fails(x):
    assert x is None


def numbered(cases):
    return [pytest.param(*case, id=f"{case[0]}-{i}") for i, case in enumerate(cases)]


@each
def test_every_exercise_has_variants_enough(key):
    assert len(EXERCISES[key].mistakes) >= 3
    assert sum(k == key for k, *_ in WRONG) >= 3
    assert sum(k == key for k, *_ in RIGHT) >= 2


@each
def test_the_solution_is_right_and_a_function_of_the_library(key):
    exercise = EXERCISES[key]
    assert judge(exercise, exercise.solution).state == "right"
    assert exercise.solution.__module__.startswith("pulib.") and "exercises" not in exercise.solution.__module__


@each
def test_each_known_mistake_is_told_by_its_own_sentence(key):
    for mistake in EXERCISES[key].mistakes:
        assert judge(EXERCISES[key], mistake.function).says == mistake.says
        assert not doubled_punctuation(f"{mistake.says}.")


@pytest.mark.parametrize(("key", "answer"), numbered(RIGHT))
def test_right_answers_are_accepted_however_written(key, answer):
    assert judge(EXERCISES[key], answer).state == "right"
    assert checks.check(key, answer) is answer


@pytest.mark.parametrize(("key", "answer", "part"), numbered(WRONG))
def test_wrong_answers_get_the_right_diagnosis(key, answer, part, capsys):
    verdict = judge(EXERCISES[key], answer)
    assert verdict.state == "wrong" and part in verdict.says
    assert checks.check(key, answer) is EXERCISES[key].solution
    assert capsys.readouterr().out == f"{key} wrong: {verdict.says}.\n"
    assert not doubled_punctuation(f"{verdict.says}.")


@each
def test_an_untouched_stub_goes_on_with_the_reference(key, capsys):
    assert checks.check(key, lambda *args, **kwargs: ...) is EXERCISES[key].solution
    assert capsys.readouterr().out == f"{key} not attempted, going on with the reference.\n"


@each
def test_checking_leaves_the_inputs_as_they_are(key):
    """Judged twice, with other answers in between, an answer gets the same verdict."""
    first = judge(EXERCISES[key], EXERCISES[key].solution)
    for mistake in EXERCISES[key].mistakes:
        judge(EXERCISES[key], mistake.function)
    assert judge(EXERCISES[key], EXERCISES[key].solution) == first


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (lambda x: -x, "wrong sign"),
        (lambda x: 3 * x, "3 times the expected"),
        (lambda x: x + 2, "the expected one plus 2"),
        (lambda x: x[:2], "shape [2] where [3] was expected"),
        (lambda x: x / 0, "nan or infinite"),
        (lambda x: x.square(), "is the square of the expected one"),
        (lambda x: 1 / x, "is 1 divided by the expected one"),
        (lambda x: 0 * x, "your result is 0"),
        (lambda x: x.flip(0), "reverse order"),
        (lambda x: 100 * x, "is 100 times the expected one"),
        (lambda x: x.sin(), 'in the test "three numbers" your result holds -0.7568 where 4 was expected'),
        (lambda x: 1 / 0, "your function raised ZeroDivisionError: division by zero"),
        (fails, "your function raised AssertionError"),
        (lambda x: "text", "gives back a str"),
        (lambda x: x.sum, "gives back a function; a tensor or a number was expected: perhaps brackets"),
        (lambda x: x.tolist()[0].log(), "use `math.log` after `import math`"),
        (lambda x: x.tolist()[0].mean(), "leave out `mean`"),
        (lambda x: x + torch.ones(2), "`print(x.shape)` shows that of x"),
        (lambda x, y: x, "raised TypeError"),
        (torch.ones(3), "the function itself, not a tensor of shape [3]"),
        (2.5, "the function itself, not the number 2.5"),
    ],
)
def test_unknown_mistakes_are_described_by_their_numbers(answer, part):
    exercise = Exercise("00.0", torch.nn.functional.relu, lambda f: {"three numbers": f(torch.tensor([1.0, 2.0, 4.0]))}, ())
    verdict = judge(exercise, answer)
    assert verdict.state == "wrong" and part in verdict.says


def test_a_mistake_that_raises_the_same_error_names_the_reason():
    same, other = Mistake("the shapes", lambda x: x + torch.ones(2)), Mistake("never", lambda x: x + torch.ones(5))
    exercise = Exercise("00.0", torch.neg, lambda f: {"three numbers": f(torch.ones(3))}, (other, same))
    assert judge(exercise, lambda x: x * torch.zeros(2)).says == "the shapes"


@each
def test_every_test_of_an_exercise_reads_as_english(key, monkeypatch):
    """Whatever differs first is named in a sentence: a question by yes and no, everything else by its value."""
    right = observe(EXERCISES[key], EXERCISES[key].solution)
    for name, value in right.items():
        assert '"' not in name and "= yes" not in name
        said = difference(right | {name: 1 - value if name.endswith("?") else value + 17.3}, right, 1e-4)
        assert f'"{name}"' in said or said.startswith("in every test your result")
        assert not doubled_punctuation(f"{said}.")
        if name.endswith("?"):
            assert set(value.flatten().tolist()) <= {0.0, 1.0}


def test_a_mistake_that_cannot_run_on_the_inputs_is_no_obstacle():
    broken = Mistake("never", lambda x: x @ x @ x)
    exercise = Exercise("00.0", torch.neg, lambda f: {"three numbers": f(torch.ones(3))}, (broken, Mistake("it is minus x", lambda x: x)))
    assert judge(exercise, lambda x: x + 0).says == "it is minus x"


def test_solutions_are_folded_and_are_the_librarys_code():
    shown = checks.solution("01.2")
    assert shown._repr_markdown_().startswith("<details><summary>Solution of 01.2</summary>") and "def add_noise(" in shown.code
    assert "def add_noise" not in repr(shown)


def test_an_unknown_exercise_is_refused():
    with pytest.raises(ValueError, match="key must be one of 01.1, .*got '99.1'"):
        checks.check("99.1", lambda: None)
