"""The arms of a comparison: what each method starts from, trains on, and with which risk."""

from dataclasses import dataclass

from torch import Tensor

from .data import PUSplit, check_prior
from .diffusion import NoisePredictor
from .risk import Correction, pu_risk, supervised_risk, unsupervised_risk
from .training import Objective, load_base, load_oracle

ARMS = ("unsupervised", "supervised", "pu", "oracle")
FINE_TUNING = dict(batch_unlabeled=64, batch_sensitive=16, lr=3e-4, warmup=20, ema=0.99, min_snr=1.0, cap=8.0, distort=0.2)  # for `Settings`, the same in all arms
SAMPLING = dict(steps=50, eta=1.0)  # for `sample`, the same for all arms


@dataclass(frozen=True)
class Arm:
    """One method: start weights, the images it takes for unlabeled, the sensitive ones it uses (or None), and its risk."""

    name: str
    start: NoisePredictor
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
    All three start from `load_base`. "oracle": ordinary DDPM on the normal images of U, from the start on
    (`load_oracle`), which needs the hidden labels: the goal, not a method.

    Args:
        split: the data.
        prior: assumed prior of the PU risk; the true one when None.
        correction, temperature: of the PU risk; the temperature is the supervised risk's as well.

    Raises:
        ValueError: an unknown name, or a prior outside [0, 1).
        DataError: the start weights are missing or corrupt.
    """
    prior = split.prior if prior is None else check_prior(prior)
    arms = {
        "unsupervised": (load_base, split.unlabeled, None, unsupervised_risk),
        "supervised": (load_base, split.unlabeled, split.sensitive, lambda u, s: supervised_risk(u, s, temperature or 1.0)),
        "pu": (load_base, split.unlabeled, split.sensitive, lambda u, s: pu_risk(u, s, prior, correction, temperature)),
        "oracle": (load_oracle, split.oracle_normal, None, unsupervised_risk),
    }
    if name not in arms:
        raise ValueError(f"arm must be one of {', '.join(arms)}; got {name!r}")
    load, *task = arms[name]
    return Arm(name, load(split.normal), *task)
