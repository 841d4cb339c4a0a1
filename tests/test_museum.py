"""Notebook 07: what is said of the committed runs holds, in the notebook's words and in the README."""

import json
import re
from pathlib import Path

import pytest

from pulib import failures
from pulib.evaluation import load_results

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {room: failures.museum(room) for room in range(1, 11)}
EFFECTS = [  # room, setting, compared with, measure; those of the README's table
    (1, "b = 0.045", "PU", "nsr"),
    (1, "b = 0.5", "PU", "class_tv"),
    (2, "S: digits 1, 3", "S: digits 1, 3, 5, 7, 9", "nsr"),
    (2, "S: digits 1, 3", "S: digits 1, 3, 5, 7, 9", "read_9"),
    (3, "100 bold labels", "100 labels", "odd_thin"),
    (3, "100 labels, 30 % wrong", "100 labels", "nsr"),
    (3, "5 labels", "100 labels", "nsr"),
    (4, "2 against 7: PU", "2 against 7: oracle", "nsr"),
    (4, "slanted: PU", "slanted: oracle", "nsr"),
    (5, "l / 1", "no log term", "nsr"),
    (5, "l / 784", "no log term", "frechet"),
    (6, "fixed 13 + 3, stratified t", "shared batch of 16", "nsr"),
    (7, "the paper's |.|, no cap: 750 steps", "the paper's |.|, no cap: 150 steps", "nsr"),
    (8, "200 copied images", "oracle", "frechet"),
    (9, "learned, captions of similarity 0.98", "learned, captions of similarity 1.0", "nsr"),
    (10, "PU", "unsupervised", "drawn from noise"),
    (10, "PU", "oracle", "inpainted"),
]


def effect(room: int, setting: str, against: str, measure: str) -> tuple[float, float, float]:
    """Difference, run by run, with its interval; of Fréchet distances the ratio."""
    a, b = (ROOMS[room][name][measure] for name in (setting, against))
    return (failures.ratio_over_seeds if measure == "frechet" else failures.over_seeds)(a, b)


def in_words(room: int, setting: str, against: str, measure: str) -> str:
    value, low, high = effect(room, setting, against, measure)
    return f"× {value:.2f} [{low:.2f}, {high:.2f}]" if measure == "frechet" else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_three_runs_or_more_of_every_setting(room):
    for values in ROOMS[room].values():
        assert all(len(runs) >= 3 for runs in values.values())
    assert all(row["n"] == 600 and row["seeds"] >= 3 for row in load_results("07_failure_museum"))


@pytest.mark.parametrize(("room", "setting", "against", "measure"), EFFECTS)
def test_effects_in_the_readme_are_the_committed_ones(room, setting, against, measure):
    assert in_words(room, setting, against, measure) in (ROOT / "README.md").read_text(encoding="utf-8")


def mean(room: int, setting: str, measure: str) -> float:
    return failures.over_seeds(ROOMS[room][setting][measure])[0]


def test_what_the_notebook_says_of_the_runs_holds():
    above = {key for key in EFFECTS if effect(*key)[1] > (1 if key[3] == "frechet" else 0)}
    below = {key for key in EFFECTS if effect(*key)[2] < (1 if key[3] == "frechet" else 0)}
    assert {key[0] for key in EFFECTS if key in below} >= {1, 3, 4, 8, 9, 10} and {key[0] for key in above} >= {1, 2, 3, 5}
    assert EFFECTS[2] not in above | below and EFFECTS[11] not in above | below and EFFECTS[12] not in above | below  # not to be told apart
    assert mean(1, "b = 0.2", "nsr") > 0.99 and effect(1, "b = 0.2", "PU", "frechet")[2] < 1  # no harm, where it was expected
    assert effect(1, "b = 0.5", "PU", "frechet")[1] > 1.5 and mean(1, "b = 0.5", "nsr") > 0.99
    assert mean(2, "S: digits 1, 3", "read_9") > 0.8 * mean(2, "unsupervised", "read_9")
    assert abs(mean(2, "estimated prior, S: digits 1, 3", "prior") - 0.4 / 11) < 0.005
    assert mean(3, "estimated prior, 100 labels, 30 % wrong", "prior") < 0.5 / 11 < 0.1 < mean(3, "estimated prior, 100 labels, 30 % wrong", "best bin")
    assert mean(5, "l / 784", "confident") < 0.7 < 0.9 < mean(5, "l / 1", "confident")
    assert mean(6, "batch of 80, stratified t", "sd") < mean(6, "batch of 80, independent t", "sd") / 3
    assert mean(7, "the paper's |.|, no cap: 375 steps", "loss: S") > 400 and mean(7, "the paper's |.|, no cap: 50 steps", "loss: S") < 45
    fool, oracle = ({key: mean(8, name, key) for key in ("nsr", "confident", "class_tv", "frechet")} for name in ("200 copied images", "oracle"))
    assert fool["nsr"] >= oracle["nsr"] and fool["confident"] >= oracle["confident"] and fool["class_tv"] <= oracle["class_tv"] and fool["frechet"] <= oracle["frechet"]
    assert mean(8, "200 copied images", "copied") == 1 and mean(8, "PU", "copied") < 0.03
    assert mean(10, "oracle", "restored") > 0.99 and mean(10, "PU", "from level 800") > 1.5 * mean(10, "oracle", "from level 800")


def test_the_checklist_of_the_readme_is_the_notebooks():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    cells = json.loads((ROOT / "notebooks" / "07_failure_museum.ipynb").read_text(encoding="utf-8"))["cells"]
    closing = next("".join(cell["source"]) for cell in cells if "## Before you rely on PU diffusion" in "".join(cell["source"]))
    items = re.findall(r"^- \[ \] .*$", closing, re.MULTILINE)
    assert len(items) >= 10 and items == re.findall(r"^- \[ \] .*$", readme, re.MULTILINE)


def test_a_room_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="room must be in 1 … 10; got 11"):
        failures.museum(11)
