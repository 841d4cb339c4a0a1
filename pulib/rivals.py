"""The arms of a comparison: what each method starts from, trains on, and with which risk; and one network for every prior."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import PUSplit, check_prior
from .diffusion import NoiseModel, NoisePredictor, Schedule, add_noise
from .risk import Correction, amortised_risk, normal_part, plain_risk, pu_risk, supervised_risk, unsupervised_risk
from .training import (
    Objective,
    Settings,
    StepRecord,
    Teacher,
    average,
    conditioned,
    device,
    draw_batch,
    fit,
    learning_rate,
    load_base,
    load_oracle,
)
from .unet import ResBlock, time_embedding

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


# ------------------------------------------------------------------------------------ a teacher for every prior


class NoisyClassifier(nn.Module):
    """log r / (1 - r) with r = p(sensitive | x_t): images [B, 1, h, w] at levels t int64 [B] -> logits [B].

    The down-going half of a small U-Net, which is told the noise level.
    """

    def __init__(self, widths: tuple[int, int] = (32, 64)) -> None:
        super().__init__()
        a, b = widths
        self.width = a
        self.time = nn.Sequential(nn.Linear(a, 2 * b), nn.SiLU(), nn.Linear(2 * b, 2 * b), nn.SiLU())
        self.enter, self.shrink1, self.shrink2 = nn.Conv2d(4, a, 3, padding=1), nn.Conv2d(a, b, 3, 2, 1), nn.Conv2d(b, b, 3, 2, 1)
        self.high, self.mid1, self.mid2, self.low = ResBlock(a, a, 2 * b), *(ResBlock(b, b, 2 * b) for _ in range(3))
        self.norm, self.leave = nn.GroupNorm(8, b), nn.Linear(b, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        time = self.time(time_embedding(t, self.width))
        h = self.high(self.enter(F.pixel_unshuffle(xt, 2)), time)
        h = self.mid2(self.mid1(self.shrink1(h), time), time)
        h = self.low(self.shrink2(h), time)
        return self.leave(F.silu(self.norm(h)).mean((2, 3)))[:, 0]


def noisy_classifier(split: PUSplit, prior: float, schedule: Schedule, settings: Settings) -> Iterator[NoisyClassifier]:
    """Train a classifier of noised images on U and S with the unbiased PU risk, and yield its moving average after each step.

    R = prior E_S[softplus(-g)] + E_U[softplus(g)] - prior E_S[softplus(g)], g the logit of "sensitive" (du Plessis et al. 2015),
    at uniform noise levels. No correction: at high noise the classes overlap, the batch's estimate of the normal part falls
    below zero by chance, and a correction there would push r up (in a trial to twice the prior at t = 900). Noise and
    distortion keep it from learning S by heart.

    Raises:
        ValueError: prior outside (0, 1).
    """
    if check_prior(prior) == 0:
        raise ValueError("prior must be in (0, 1): at 0 there is nothing to classify")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = NoisyClassifier().to(device())
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr)
    density, n, where = torch.ones(len(schedule)), settings.batch_unlabeled, device()
    for step in range(settings.steps):
        parts = [draw_batch(split.unlabeled, n, settings, step, 0, density), draw_batch(split.sensitive, settings.batch_sensitive, settings, step, 1, density)]
        x0, t, noise, _ = (torch.cat(tensors).to(where) for tensors in zip(*parts))
        logit = model(add_noise(x0, t, noise, schedule), t)
        risk = prior * F.softplus(-logit[n:]).mean() + normal_part(F.softplus(logit[:n]), F.softplus(logit[n:]), prior)
        optimizer.param_groups[0]["lr"] = learning_rate(step, settings)
        optimizer.zero_grad()
        risk.backward()
        optimizer.step()
        average(averaged, model, min(settings.ema, (step + 1) / (step + 10)))
        yield averaged


def between(eps_u: NoiseModel, eps_n: NoiseModel, prior: float, classifier: NoiseModel, ceiling: float = 0.9, least: float = -0.5) -> Teacher:
    """The noise of p_U - b p_S for any assumed prior b, from a model of U and one of its normal part.

    Where eps_N is the best prediction at b = prior, that at b is eps_b = (eps_U - c r eps_S) / (1 - c r) with c = b / prior and
    r = p(sensitive | x_t). Put in eps_S = (eps_U - (1 - r) eps_N) / r, and it lies between the two models:

        eps_b = s eps_U + (1 - s) eps_N,   s = (1 - c) / (1 - c r).

    Up to the true prior s is in [0, 1], so no error is blown up, as it is where eps_S is subtracted.  Beyond the true prior s is negative: a step
    away from U, to the far side of eps_N. There is no target there, so s is cut at `least`, and c r at `ceiling`.

    Args:
        eps_u, eps_n: noise models of U, and of U without its sensitive part, as PU training gives it.
        prior: of eps_n (and of the classifier), in (0, 1).
        classifier: logit of p(sensitive | x_t).
        ceiling: of c r, in [0, 1).
        least: of s, <= 0.

    Raises:
        ValueError: an argument outside its range.
    """
    if check_prior(prior) == 0 or not least <= 0:
        raise ValueError(f"prior must be in (0, 1) and least <= 0; got {prior!r} and {least!r}")
    check_prior(ceiling, "ceiling")

    def eps_b(xt: Tensor, t: Tensor, b: Tensor) -> Tensor:
        share = share_of_u(classifier(xt, t).sigmoid(), b / prior, ceiling, least).view(-1, *[1] * (xt.ndim - 1))
        return share * eps_u(xt, t) + (1 - share) * eps_n(xt, t)

    return eps_b


def share_of_u(r: Tensor, c: Tensor, ceiling: float = 0.9, least: float = -0.5) -> Tensor:
    """s = (1 - c) / (1 - c r), the share of eps_U in eps_b (see `between`), with c r cut at `ceiling` and s at `least`; [B]."""
    return ((1 - c) / (1 - (c * r).clamp(max=ceiling))).clamp(min=least)


# ----------------------------------------------------------------------------------- one network for every prior

VARIANTS = ("risk", "distilled")
STEPS, TEACHING = 1000, (250, 800)  # of the shipped networks; of their teacher's PU arm and classifier
# For `Settings`. In full precision on a GPU too: at high noise, priors differ by less than bfloat16 rounds.
CONDITIONED = dict(batch_unlabeled=48, batch_sensitive=32, lr=1e-3, warmup=20, ema=0.99, min_snr=1.0, distort=0.2, precision="no")
CLASSIFYING = dict(batch_unlabeled=96, batch_sensitive=48, lr=1e-3, warmup=50, ema=0.995, distort=0.6)


def base_of(split: PUSplit) -> NoisePredictor:
    """A model of the U of a split that is more contaminated than the shipped base's: `load_base`, trained on that U for 1,200 steps.

    Raises:
        ValueError: the split's seed is not 0, or its prior is below 1/11: only from there on has it all of the base's U (see `load_pu`).
    """
    if split.seed != 0 or split.prior < 0.0909:
        raise ValueError(f"split must be of seed 0 and a prior of 1/11 or more; got seed {split.seed} and prior {split.prior:.4g}")
    for record in fit(load_base(split.normal), split.unlabeled, unsupervised_risk, Settings(1200, **FINE_TUNING)):
        pass
    return record.model.cpu()


def teacher_of(
    split: PUSplit, start: NoisePredictor, prior: float, seed: int = 0, steps: int = TEACHING[0], classifier_steps: int = TEACHING[1]
) -> Teacher:
    """The `between` of a split: the model `start` of U, its PU arm for `prior`, and a classifier of noised images, trained for so many steps.

    Raises:
        ValueError: prior outside (0, 1).
    """
    if check_prior(prior) == 0:
        raise ValueError("prior must be in (0, 1): at 0 there is nothing to keep out")
    objective = arm("pu", split, prior).objective
    for record in fit(start, split.unlabeled, objective, Settings(steps, **FINE_TUNING, seed=seed), split.sensitive):
        pass
    for classifier in noisy_classifier(split, prior, start.schedule, Settings(classifier_steps, **CLASSIFYING, seed=seed)):
        pass
    eps_u = copy.deepcopy(start).to(device()).eval().requires_grad_(False)
    return between(eps_u, record.model, prior, classifier)


def for_every_prior(
    variant: str, split: PUSplit, start: NoisePredictor, steps: int, prior_max: float = 0.3, seed: int = 0, teacher: Teacher | None = None
) -> Iterator[StepRecord]:
    """Train a prior-conditioned network from a model of U, and yield a record per step.

    "risk": on `amortised_risk`, with a cap on the losses of S. "distilled": on the distance to `teacher` (see `teacher_of`).

    Raises:
        ValueError: another variant, or one without its teacher.
    """
    if variant not in VARIANTS or (variant == "distilled") != (teacher is not None):
        raise ValueError(f"variant must be 'risk', or 'distilled' with a teacher; got {variant!r} {'with' if teacher else 'without'} one")
    settings = Settings(steps, **CONDITIONED, prior_max=prior_max, seed=seed, cap=8.0 if variant == "risk" else None)
    objective = amortised_risk if variant == "risk" else plain_risk
    return fit(conditioned(start, prior_max, seed), split.unlabeled, objective, settings, split.sensitive, teacher=teacher)
