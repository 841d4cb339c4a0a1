"""The arms of a comparison: what each method starts from, trains on, and with which risk; the other roads to the normal part
(filter, rejection, guidance, safe denoiser); and one network for every prior."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import PUSplit, check_prior
from .diffusion import NoiseModel, NoisePredictor, Schedule, add_noise, noise_of_normal
from .prior import Odds, Scores, fit_networks, fit_odds, score_images
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
FINE_TUNING: dict[str, Any] = dict(batch_unlabeled=64, batch_sensitive=16, lr=3e-4, warmup=20, ema=0.99, min_snr=1.0, cap=8.0, distort=0.2)  # for `Settings`, the same in all arms
SAMPLING: dict[str, Any] = dict(steps=50, eta=1.0)  # for `sample`, the same for all arms
FAST: dict[str, Any] = dict(steps=20, order=2)  # for `sample`: 20 network calls; notebook 06 compares with more and with 1,000


ESTIMATORS = {  # of the table of notebook 06: name -> what it does
    "oracle": "trains on the normal images alone, which takes the hidden labels",
    "unsupervised": "trains on all of U",
    "supervised": "cross-entropy, with U taken for normal",
    "filter": "trains on the images of U that a PU classifier calls normal",
    "soft_filter": "trains on U, each image weighted by p(normal | x)",
    "pu_linear": "E_U[l] - prior E_S[l]",
    "pu_clip": "its positive part",
    "pu_paper": "its absolute value, with the log term and one shared random batch",
    "pu_capped": "its absolute value, with a cap on the losses of S",
    "pu_sieved": "E[l] over the images of U that a lenient sieve keeps, less the prior that is left times E[l] over those of S that it keeps, with a cap on its losses",
    "pu_pushed": "E[l] over the images of U that the sieve keeps, less the whole prior times E[l] over all of S, with a cap on its losses",
    "siss": "E_U[l] - prior E_S[l] with a budget for the gradient of S",
    "rejection": "trains on all of U; a PU classifier throws drawings away",
    "guidance": "trains one network on U and one on S; mixes them while drawing",
    "safe_denoiser": "trains on all of U; steers away from the images of S while drawing",
}


LENIENT = 0.5  # threshold of a sieve that loses few normal images
SIEVING = ("filter", "soft_filter", "pu_sieved", "pu_pushed")  # need a `Sieve`


@dataclass(frozen=True)
class Arm:
    """One method: start weights, the images it takes for unlabeled, the sensitive ones it uses (or None), and its risk.

    `weights` of the images of U and of S, and `changes` to the `Settings` that all arms share, where it has some.
    """

    name: str
    start: NoisePredictor
    unlabeled: Tensor
    sensitive: Tensor | None
    objective: Objective
    weights: tuple[Tensor, Tensor | None] | None = None
    changes: dict = field(default_factory=dict)

    def fit(self, settings: dict, checkpoint=None) -> Iterator[StepRecord]:
        """Train it with the settings that all arms share; see `training.fit`."""
        return fit(self.start, self.unlabeled, self.objective, Settings(**(settings | self.changes)), self.sensitive, checkpoint, weights=self.weights)


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
    tasks: dict[str, tuple[Tensor, Tensor | None, Objective]] = {
        "unsupervised": (split.unlabeled, None, unsupervised_risk),
        "supervised": (split.unlabeled, split.sensitive, lambda u, s: supervised_risk(u, s, temperature or 1.0)),
        "pu": (split.unlabeled, split.sensitive, lambda u, s: pu_risk(u, s, prior, correction, temperature)),
        "oracle": (split.oracle_normal, None, unsupervised_risk),
    }
    if name not in tasks:
        raise ValueError(f"arm must be one of {', '.join(tasks)}; got {name!r}")
    return Arm(name, (load_oracle if name == "oracle" else load_base)(split.normal), *tasks[name])


# ------------------------------------------------------------------------------------- filter and weights


@dataclass(frozen=True, eq=False)
class Sieve:
    """p(sensitive | x) of clean images by a PU classifier: of each image of U, [n], and of S, [m], held out; and of new images.

    `threshold`: the classifier calls the share `prior` of U sensitive, those with p(sensitive | x) at or above it.
    `networks`: the classifier's scores of new images, [n, c, h, w] -> [n]; None, as `odds` is, where probabilities alone were kept.
    """

    unlabeled: Tensor
    sensitive: Tensor
    threshold: float
    networks: Callable[[Tensor], Tensor] | None
    odds: Odds | None
    prior: float

    def __call__(self, images: Tensor) -> Tensor:
        """p(sensitive | x) of images that the classifier has not seen, [n, c, h, w] in [-1, 1] -> [n].

        Raises:
            ValueError: the networks were not kept.
        """
        if self.networks is None or self.odds is None:
            raise ValueError("networks must be there to judge new images; this sieve holds the probabilities of U and S alone")
        return _posterior(self.odds, self.networks(images), self.prior)


def sieve(unlabeled: Tensor, sensitive: Tensor, prior: float, seed: int = 0, folds: int = 5) -> Sieve:
    """Train the classifier of notebook 05 with the nnPU risk (Kiryo et al. 2017, arXiv 1703.00593), cross-fitted.

    Each image of U and of S is judged by a network that has not trained on it: one that has knows S by heart, and takes the
    hidden sensitive images of U for normal, as it was told. `prior.fit_odds` makes probabilities of the scores.

    Raises:
        ValueError: prior outside (0, 1), or another argument outside its range.
    """
    networks, scores = fit_networks(unlabeled, sensitive, check_sievable(prior), seed, folds)
    return sieve_from(scores, partial(score_images, networks), prior)


def check_sievable(prior: float) -> float:
    """`prior` as a float.

    Raises:
        ValueError: it is not in (0, 1).
    """
    if check_prior(prior) == 0:
        raise ValueError("prior must be in (0, 1): at 0 there is nothing to sieve")
    return float(prior)


def sieve_from(scores: Scores, networks: Callable[[Tensor], Tensor], prior: float) -> Sieve:
    """The `Sieve` of any classifier: from its held-out scores of U and of S, and what scores new images alike."""
    odds = fit_odds(scores.unlabeled, scores.sensitive)
    r_u, r_s = (_posterior(odds, g, prior) for g in (scores.unlabeled, scores.sensitive))
    called = max(1, round(prior * len(r_u)))
    return Sieve(r_u, r_s, r_u.topk(called).values[-1].item(), networks, odds, prior)


def leftover_prior(r_u: Tensor, r_s: Tensor, prior: float, threshold: float) -> float:
    """The share of sensitive images among those of U with r < threshold: prior P_S(r < threshold) / P_U(r < threshold).

    The images of U and of S that pass are a PU problem again, of this prior, as S passes as the hidden sensitive images of U do.

    Args:
        r_u, r_s: p(sensitive | x) of each image of U, [n], and of S, [m], by networks that have not trained on it.
        prior: share of sensitive images in U, in [0, 1).
        threshold: of r.

    Raises:
        ValueError: prior outside [0, 1), no image on a side, or none of U passes.
    """
    if not len(r_u) or not len(r_s):
        raise ValueError(f"r_u and r_s must hold at least one image each; got {len(r_u)} and {len(r_s)}")
    passed_u, passed_s = (r < threshold for r in (r_u, r_s))
    if not passed_u.any():
        raise ValueError(f"threshold must let some image of U pass; got {threshold!r}, and the least r is {r_u.min():.4g}")
    return check_prior(prior) * passed_s.double().mean().item() / passed_u.double().mean().item()


def _posterior(odds: Odds, scores: Tensor, prior: float) -> Tensor:
    """p(sensitive | g) with the prior that is assumed in place of the fitted one."""
    return torch.sigmoid(odds.slope * scores.double() + odds.offset + torch.tensor(prior).double().logit()).float()


def kept_by(found: Sieve, images: Tensor) -> Tensor:
    """Rejection at sampling: the drawings that the sieve lets pass, those with p(sensitive | x) below its threshold."""
    return images[found(images) < found.threshold]


# ------------------------------------------------------------------------------ steering while drawing


class Guided(nn.Module):
    """eps_N = (eps_U - r eps_S) / (1 - r) while drawing, from a model of U, one of S, and a classifier of noised images.

    (Dynamic negative guidance, Koulischer et al. 2025, arXiv 2410.14398, with r from a classifier in place of a recursion.)

    Args:
        eps_u, eps_s: noise models of U and of S.
        classifier: logit of r = p(sensitive | x_t).
        ceiling: of r, in [0, 1): 1 / (1 - r) blows up what the models get wrong.

    Raises:
        ValueError: ceiling outside [0, 1).
    """

    def __init__(self, eps_u: nn.Module, eps_s: nn.Module, classifier: nn.Module, ceiling: float = 0.9) -> None:
        super().__init__()
        self.eps_u, self.eps_s, self.classifier, self.ceiling = eps_u, eps_s, classifier, check_prior(ceiling, "ceiling")

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """Predicted noise of the normal part, [B, ...], at `xt` [B, ...] and `t` int64 [B]."""
        r = self.classifier(xt, t).sigmoid().clamp(max=self.ceiling)
        return noise_of_normal(self.eps_u(xt, t), self.eps_s(xt, t), r)


def kernel_noise(xt: Tensor, images: Tensor, signal: Tensor, sigma: Tensor, share: Tensor | None = None) -> Tensor:
    """E[eps | x_t], [B, ...], if the data were these images [m, ...], each as likely as the others, or with shares [m].

    E[x_0 | x_t] = sum_i w_i x_i with w = softmax_i(-||x_t - signal x_i||^2 / (2 sigma^2)); x_t = signal x_0 + sigma eps turns it into
    noise. `signal` and `sigma` have one number for each row of xt, in a shape that multiplies it.

    With shares it is the minimiser over all functions f of sum_i share_i E||eps - f(x_t)||^2; they may be negative, as the PU risk's are,
    and where their weighted sum is, no minimiser exists.
    """
    distance = torch.cdist((xt / signal).flatten(1), images.flatten(1)).square()  # to x_t / signal, so that it is one matrix product
    weight = (-distance * (signal / sigma).square().flatten()[:, None] / 2).softmax(1)
    if share is not None:
        weight = weight * share
        weight = weight / weight.sum(1, keepdim=True)
    x0 = (weight @ images.flatten(1)).view_as(xt)
    return (xt - signal * x0) / sigma


class KernelDenoiser(nn.Module):
    """The exact mean noise at x_t if the data were these images and no others: no network, nothing trained.

    See `kernel_noise`. As `Guided`'s eps_S it makes a safe denoiser (Kim et al. 2025, arXiv 2502.08011, in its exact form).

    Args:
        images: [m, ...].
        schedule: of the noise.

    Raises:
        ValueError: no image.
    """

    images: Tensor

    def __init__(self, images: Tensor, schedule: Schedule) -> None:
        super().__init__()
        if len(images) == 0:
            raise ValueError("images is empty; a kernel needs at least one image")
        self.register_buffer("images", images.float())
        self.schedule = schedule

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """Exact noise for these images, [B, ...], at `xt` [B, ...] and `t` int64 [B]."""
        return kernel_noise(xt, self.images, *self.schedule.levels(t, xt))


# ----------------------------------------------------------------------------------- all roads, one task


def estimator(
    name: str,
    split: PUSplit,
    prior: float | None = None,
    found: Sieve | None = None,
    start: NoisePredictor | None = None,
    scratch: bool = False,
) -> Arm:
    """The training task of a row of the table of notebook 06; see `ESTIMATORS`.

    "rejection", "guidance" and "safe_denoiser" train on U alone ("unsupervised") and differ in how they draw.

    Args:
        split: the data.
        prior: assumed prior; the true one when None.
        found: the sieve of this split, for those that need one (`SIEVING`).
        start: weights to start from; the shipped ones when None.
        scratch: whether these are fresh ones, whose losses are no level: a cap then follows the running level.

    Raises:
        ValueError: an unknown name, a prior outside [0, 1), or no sieve where one is needed.
    """
    if name not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}; got {name!r}")
    b = split.prior if prior is None else check_prior(prior)
    if found is None and name in SIEVING:
        raise ValueError(f"found must be the split's sieve for {name!r}; got None")
    u, s, exact = split.unlabeled, split.sensitive, lambda lu, ls: normal_part(lu, ls, b)
    level: dict[str, object] = {"cap_level": "running" if scratch else "start"}
    off: dict[str, object] = {"cap": None}
    make = partial(Arm, name, start or (load_oracle if name == "oracle" else load_base)(split.normal))
    tasks: dict[str, Callable[[], Arm]] = {
        "oracle": lambda: make(split.oracle_normal, None, unsupervised_risk, None, off),
        "supervised": lambda: make(u, s, supervised_risk, None, off),
        "pu_linear": lambda: make(u, s, exact, None, off),
        "pu_clip": lambda: make(u, s, lambda lu, ls: pu_risk(lu, ls, b, "clip", None), None, off),
        "pu_paper": lambda: make(u, s, lambda lu, ls: pu_risk(lu, ls, b) if len(ls) else lu.mean(), None, off | {"shared": True}),
        "pu_capped": lambda: make(u, s, lambda lu, ls: pu_risk(lu, ls, b), None, level),
        "siss": lambda: make(u, s, exact, None, off | {"budget": 0.1}),
    }
    if found is not None:
        tasks |= {
            "filter": lambda: make(u[found.unlabeled < found.threshold], None, unsupervised_risk, None, off),
            "soft_filter": lambda: make(u, None, unsupervised_risk, (1 - found.unlabeled, None), off),
            "pu_sieved": lambda: make(*sieved(u, s, found, b), None, level | {"cap": 2.0}),
            "pu_pushed": lambda: make(u[found.unlabeled < LENIENT], s, exact, None, level),
        }
    return tasks.get(name, lambda: make(u, None, unsupervised_risk, None, off))()


def sieved(unlabeled: Tensor, sensitive: Tensor, found: Sieve, prior: float, threshold: float = LENIENT) -> tuple[Tensor, Tensor | None, Objective]:
    """The PU problem behind a lenient sieve: the images of U and of S with p(sensitive | x) < threshold, and the exact risk at `leftover_prior`.

    Where no image of S passes, nothing sensitive is thought to be left, and S is None.

    Raises:
        ValueError: as `leftover_prior`.
    """
    left = leftover_prior(found.unlabeled, found.sensitive, prior, threshold)
    u, s = unlabeled[found.unlabeled < threshold], sensitive[found.sensitive < threshold]
    if left == 0:
        return u, None, unsupervised_risk
    return u, s, lambda lu, ls: normal_part(lu, ls, left)


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
        """Logits [B] at `xt` [B, 1, h, w] and `t` int64 [B]."""
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
CONDITIONED: dict[str, Any] = dict(batch_unlabeled=48, batch_sensitive=32, lr=1e-3, warmup=20, ema=0.99, min_snr=1.0, distort=0.2, precision="no")
CLASSIFYING: dict[str, Any] = dict(batch_unlabeled=96, batch_sensitive=48, lr=1e-3, warmup=50, ema=0.995, distort=0.6)


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
