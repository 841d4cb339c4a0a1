"""The arms of a comparison: what each method trains on, and with which risk."""

from dataclasses import dataclass

from torch import Tensor

from .data import PUSplit
from .risk import Correction, pu_risk, supervised_risk, unsupervised_risk
from .training import Objective

ARMS = ("unsupervised", "supervised", "pu", "oracle")


@dataclass(frozen=True)
class Arm:
    """One method: the images it takes for unlabeled, the sensitive ones it uses (or None), and its risk."""

    name: str
    unlabeled: Tensor
    sensitive: Tensor | None
    objective: Objective


def arm(
    name: str,
    split: PUSplit,
    prior: float | None = None,
    correction: Correction = "abs",
    temperature: float | None = 1.0,
) -> Arm:
    """The training task of one arm.

    "unsupervised": ordinary DDPM on U. "supervised": U as normal against S as sensitive. "pu": the PU risk.
    "oracle": ordinary DDPM on the normal images of U, which needs the hidden labels: the goal, not a method.

    Args:
        split: the data.
        prior: assumed prior of the PU risk; the true one when None.
        correction, temperature: of the PU risk; the temperature is the supervised risk's as well.

    Raises:
        ValueError: an unknown name.
    """
    prior = split.prior if prior is None else prior
    arms = {
        "unsupervised": (split.unlabeled, None, unsupervised_risk),
        "supervised": (split.unlabeled, split.sensitive, lambda u, s: supervised_risk(u, s, temperature or 1.0)),
        "pu": (split.unlabeled, split.sensitive, lambda u, s: pu_risk(u, s, prior, correction, temperature)),
        "oracle": (split.oracle_normal, None, unsupervised_risk),
    }
    if name not in arms:
        raise ValueError(f"arm must be one of {', '.join(arms)}; got {name!r}")
    return Arm(name, *arms[name])
