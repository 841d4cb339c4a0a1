"""The colours of the figures: told apart by colour-blind readers, and strong enough on white."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from colorspacious import cspace_convert, deltaE

from pulib import plots

NAMED = {
    "NORMAL": plots.NORMAL,
    "SENSITIVE": plots.SENSITIVE,
    "UNLABELED": plots.UNLABELED,
    "ACCENT": plots.ACCENT,
    "INK": plots.INK,
    **{f"ARMS[{name!r}]": colour for name, colour in plots.ARMS.items()},
}
DIFFERENT = dict(zip(NAMED.values(), NAMED))  # colour -> one of its names
LINES = sorted(set(re.findall(r"#[0-9A-Fa-f]{6}", Path(plots.__file__).read_text(encoding="utf-8"))) - {"#FFFFFF"})
APART = 10  # in CAM02-UCS, where about 1 can just be seen with two patches side by side


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def seen(colour: str, sight: str) -> np.ndarray:
    """The colour as somebody sees it who lacks one kind of cone (Machado, Oliveira, Fernandes, 2009)."""
    if sight == "all cones":
        return rgb(colour)
    return np.clip(cspace_convert(rgb(colour), {"name": "sRGB1+CVD", "cvd_type": sight, "severity": 100}, "sRGB1"), 0, 1)


def contrast_on_white(colour: str) -> float:
    """Contrast ratio of WCAG 2.2."""
    linear = np.where(rgb(colour) <= 0.04045, rgb(colour) / 12.92, ((rgb(colour) + 0.055) / 1.055) ** 2.4)
    return 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)


PAIRS = [
    pytest.param(one, two, sight, id=f"{DIFFERENT[one]}-{DIFFERENT[two]}-{sight}")
    for sight in ("all cones", "protanomaly", "deuteranomaly", "tritanomaly")
    for one, two in itertools.combinations(DIFFERENT, 2)
]


@pytest.mark.parametrize("one, two, sight", PAIRS)
def test_colours_are_told_apart(one, two, sight):
    assert deltaE(seen(one, sight), seen(two, sight), input_space="sRGB1") >= APART


@pytest.mark.parametrize("colour", LINES)
def test_lines_are_strong_on_white(colour):
    assert contrast_on_white(colour) >= 3


def test_text_is_strong_on_white():
    assert contrast_on_white(plots.INK) >= 7
