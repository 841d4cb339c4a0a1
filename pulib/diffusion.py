"""Diffusion in small functions: schedules, noising, the per-image loss, and samplers as generators.

Notation (DDPM, Ho et al. 2020, arXiv 2006.11239): t = 0 … T-1 indexes the noise levels from the cleanest
to the noisiest, alpha_bar[t] = prod_{s<=t} (1 - beta[s]), and
    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise.                                        (1)
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from .data import check_count, check_number, check_positive, check_prior, is_number, seeded
from .runs import in_parts

Prediction = Literal["eps", "v"]
NoiseModel = Callable[[Tensor, Tensor], Tensor]  # (xt [B, ...], t int64 [B]) -> eps_hat [B, ...]


# ------------------------------------------------------------------------------------------- schedules


@dataclass(frozen=True)
class Schedule:
    """A noise schedule: beta float32 [T], each in (0, 1).

    Raises:
        ValueError: beta is not a vector, is empty, or has a value outside (0, 1); or float32 does not tell the levels apart, which samplers
            would divide by.
    """

    beta: Tensor
    alpha_bar: Tensor = field(init=False, repr=False, compare=False)
    _on: dict[torch.device, Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.beta.ndim != 1 or not len(self.beta) or not ((self.beta > 0) & (self.beta < 1)).all():
            raise ValueError("beta must be a vector with every value in (0, 1); see linear_schedule, cosine_schedule")
        alpha_bar = self.__dict__["alpha_bar"] = alpha_bar_of(self.beta)
        if not (alpha_bar[0] < 1 and (alpha_bar.diff() < 0).all() and alpha_bar[-1] > 0):
            raise ValueError("beta must let alpha_bar fall from below 1 to above 0 with every step, in float32; some are too small, or all together too large")
        self.__dict__["_on"] = {}

    def __len__(self) -> int:
        return len(self.beta)

    def levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), shaped to multiply `like` [B, ...]."""
        if like.device not in self._on:  # copied to a device once: each copy would make it wait
            self._on[like.device] = self.alpha_bar.to(like.device)
        alpha_bar = self._on[like.device][t].view(-1, *[1] * (like.ndim - 1))
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def alpha_bar_of(beta: Tensor) -> Tensor:
    """alpha_bar [T]: alpha_bar[t] = (1 - beta[0]) … (1 - beta[t]), the share of x_0's variance left in x_t (Ho et al. 2020, section 2)."""
    return torch.cumprod(1 - beta.double(), 0).float()


def linear_schedule(T: int = 1000, low: float = 1e-4, high: float = 0.02) -> Schedule:
    """beta rises linearly from `low` to `high` (Ho et al. 2020, section 4).

    Raises:
        ValueError: T is not a whole number >= 1, or low or high not in (0, 1).
    """
    return Schedule(torch.linspace(check_positive(low, "low"), check_positive(high, "high"), check_count(T, "T")))


def cosine_schedule(T: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """alpha_bar follows a squared cosine (Nichol & Dhariwal 2021, arXiv 2102.09672, equation 17).

    Raises:
        ValueError: T is not a whole number >= 1, offset not a finite number >= 0, or max_beta not in (0, 1).
    """
    u, offset = torch.arange(check_count(T, "T") + 1, dtype=torch.float64) / T, check_number(offset, "offset", 0)
    alpha_bar = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    return Schedule((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=check_positive(max_beta, "max_beta")).float())


# ---------------------------------------------------------------------------------- noising and the loss


def add_noise(x0: Tensor, t: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
    """x_t of equation (1): `x0` [B, ...] noised to level `t` int64 [B] with `noise` [B, ...]."""
    signal, sigma = schedule.levels(t, x0)
    return signal * x0 + sigma * noise


def noise_of_v(v: Tensor, xt: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The noise that v = sqrt(alpha_bar_t) noise - sqrt(1 - alpha_bar_t) x_0 implies at x_t, all [B, ...].

    Putting equation (1) into the definition of v (Salimans & Ho 2022, arXiv 2202.00512) cancels x_0:
    noise = sqrt(alpha_bar_t) v + sqrt(1 - alpha_bar_t) x_t.
    """
    signal, sigma = schedule.levels(t, xt)
    return signal * v + sigma * xt


def noise_of_normal(eps_u: Tensor, eps_s: Tensor, r: Tensor) -> Tensor:
    """eps_N = (eps_U - r eps_S) / (1 - r), the noise of the normal part of a mixture, [B, ...].

    At x_t the mixture's mean noise is eps_U = r eps_S + (1 - r) eps_N; solve for eps_N (dynamic negative guidance, Koulischer
    et al. 2025, arXiv 2410.14398, does so while sampling).

    Args:
        eps_u, eps_s: mean noise at x_t for unlabeled and for sensitive data, [B, ...].
        r: p(sensitive | x_t), below 1, [B]; at 1 nothing is left of the normal part.

    Raises:
        ValueError: shapes that do not belong together.
    """
    if eps_u.shape != eps_s.shape or r.shape != eps_u.shape[:1]:
        raise ValueError(f"eps_u and eps_s must have one shape [B, ...], and r [B]; got {list(eps_u.shape)}, {list(eps_s.shape)}, {list(r.shape)}")
    r = r.view(-1, *[1] * (eps_u.ndim - 1))
    return (eps_u - r * eps_s) / (1 - r)


class NoisePredictor(nn.Module):
    """eps_hat(x_t, t): any network that maps (x_t, t) to an image, read as predicted noise.

    Args:
        network: module called as network(xt, t); a diffusers UNet2DModel works as it is.
        schedule: needed to read "v" as noise.
        prediction: what the network's output means, "eps" or "v".

    Raises:
        ValueError: prediction is neither.
    """

    trainable: frozenset[str]  # of an average: the names of the weights that its run trained

    def __init__(self, network: nn.Module, schedule: Schedule, prediction: Prediction = "v") -> None:
        super().__init__()
        if prediction not in ("eps", "v"):
            raise ValueError(f"prediction must be 'eps' or 'v'; got {prediction!r}")
        self.network, self.schedule, self.prediction = network, schedule, prediction

    def forward(self, xt: Tensor, t: Tensor, prior: Tensor | None = None) -> Tensor:
        """Predicted noise [B, ...] at `xt` [B, ...] and `t` int64 [B]; a network that is told a prior takes one for each image, [B]."""
        output = self.network(xt, t) if prior is None else self.network(xt, t, prior)
        output = getattr(output, "sample", output)  # diffusers wraps the tensor
        output = output.float()
        return output if self.prediction == "eps" else noise_of_v(output, xt, t, self.schedule)

    def at(self, prior: float) -> "AtPrior":
        """The model at one assumed prior, for samplers and losses; the network must be conditioned on it."""
        return AtPrior(self, prior)


class AtPrior(nn.Module):
    """A prior-conditioned model with its assumed prior held fixed: eps_hat(x_t, t), with the same weights.

    Raises:
        ValueError: the prior is not in [0, 1), or (when called) not one that the network takes.
    """

    def __init__(self, model: NoisePredictor, prior: float) -> None:
        super().__init__()
        self.model, self.prior = model, check_prior(prior)

    @property
    def schedule(self) -> Schedule:
        """That of the model."""
        return self.model.schedule

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """Predicted noise [B, ...] at `xt` [B, ...] and `t` int64 [B]."""
        return self.model(xt, t, torch.full((len(xt),), self.prior, device=xt.device))


def denoising_loss(model: NoiseModel, x0: Tensor, t: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
    """l of each image for one draw of (t, noise): || noise - eps_hat(x_t, t) ||^2, summed over pixels, [B].

    Its mean over t and noise is the negative-ELBO surrogate (Ho et al. 2020, equation 14, a sum over pixels;
    PU diffusion, arXiv 2503.03789, equation 7).
    """
    eps_hat = model(add_noise(x0, t, noise, schedule), t)
    return (noise - eps_hat).square().flatten(1).sum(1)


def imitation_loss(model: NoiseModel, teacher: NoiseModel, x0: Tensor, t: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
    """|| teacher(x_t, t) - eps_hat(x_t, t) ||^2 / alpha_bar_t of each image for one draw of (t, noise), summed over pixels, [B].

    Distillation: its minimiser is the teacher, whatever the images are, as far as they reach. Over alpha_bar_t it is the distance
    between the v that both imply (Salimans & Ho 2022, arXiv 2202.00512): at high noise, where a drawing becomes one digit or another,
    predictions of the noise hardly differ, and in their plain distance a student learns those levels last. alpha_bar_t counts as 0.01 or more.
    """
    xt = add_noise(x0, t, noise, schedule)
    with torch.no_grad():
        target = teacher(xt, t)
    return (target - model(xt, t)).square().flatten(1).sum(1) / schedule.alpha_bar.to(t.device)[t].clamp(min=0.01)


@torch.no_grad()
def loss_profile(model: NoiseModel, x0: Tensor, t: Tensor, schedule: Schedule, seed: int = 0) -> Tensor:
    """l of each image `x0` [B, ...] at each level of `t` int64 [n], with one noise per level that all images share, [n, B].

    The mean over evenly spread levels estimates l(x0) of each image; sharing t and noise keeps images comparable.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for level in t.to(x0.device):
        noise = _randn(x0[:1], generator).expand_as(x0)
        rows.append(denoising_loss(model, x0, level.expand(len(x0)), noise, schedule))
    return torch.stack(rows)


def draw_timesteps(density: Tensor, n: int, generator: torch.Generator | None = None, stratified: bool = True) -> Tensor:
    """`n` noise levels, int64 [n], from a density over 0 … T-1 given as weights >= 0, [T].

    Stratified: one draw from each of n parts of equal probability, in random order. Each level alone still has the
    stated density, but a batch covers all noise levels, so the batch mean of the loss varies less (low-discrepancy
    sampling, Kingma et al. 2021, arXiv 2107.00630, appendix I.1).

    Raises:
        ValueError: the density is not a vector of finite weights >= 0 with a positive sum.
    """
    if density.ndim != 1 or not torch.isfinite(density).all() or (density < 0).any() or not density.sum() > 0:
        raise ValueError("density must be a vector of finite weights >= 0 with a positive sum; ones give uniform levels")
    u = torch.rand(check_count(n, "n"), generator=generator, dtype=torch.float64)
    if stratified:
        u = ((torch.arange(n) + u) / n)[torch.randperm(n, generator=generator)]
    edges = density.double().cumsum(0)
    last = int(torch.nonzero(density)[-1])
    return torch.searchsorted(edges, u * edges[-1], right=True).clamp(max=last)


def stratified_timesteps(n: int, T: int, generator: torch.Generator | None = None) -> Tensor:
    """int64 [n]: one uniform draw of t from each of n equal strata of 0 … T-1, in random order.

    The strata cut the interval [0, T), so each level is equally likely also where n does not divide T. It is
    `draw_timesteps` with equal weights (Kingma et al. 2021, arXiv 2107.00630, appendix I.1).

    Raises:
        ValueError: n or T is not a whole number >= 1.
    """
    u = (torch.arange(check_count(n, "n")) + torch.rand(n, generator=generator, dtype=torch.float64)) / n
    levels = (u * check_count(T, "T")).long().clamp(max=T - 1)  # u may round up to 1
    return levels[torch.randperm(n, generator=generator)]


def min_snr_density(schedule: Schedule, gamma: float = 5.0) -> Tensor:
    """min(1, gamma / SNR_t) with SNR_t = alpha_bar_t / (1 - alpha_bar_t), [T]: for `draw_timesteps`.

    The loss on noise is largest at the cleanest levels, where only fine detail is learned. This density visits
    them less, which trains the shapes sooner (min-SNR weighting, Hang et al. 2023, arXiv 2303.09556, as a density).

    Raises:
        ValueError: gamma is not a finite number > 0.
    """
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    return (check_positive(gamma, "gamma") / snr).clamp(max=1)


# -------------------------------------------------------------------------------------------- samplers


@dataclass(frozen=True)
class Sample:
    """One step of a sampler: level t (-1 at the end), x_t [B, ...] and the current estimate of x_0."""

    t: int
    xt: Tensor
    x0: Tensor


def estimate_x0(xt: Tensor, eps_hat: Tensor, t: Tensor, schedule: Schedule, clip: bool = True) -> Tensor:
    """x_0 that equation (1) implies when `eps_hat` is the noise; clipped to [-1, 1] if `clip`."""
    signal, sigma = schedule.levels(t, xt)
    x0 = (xt - sigma * eps_hat) / signal
    return x0.clamp(-1, 1) if clip else x0


def timesteps(T: int, steps: int) -> Tensor:
    """int64 [steps], evenly spaced and descending from T-1 to about T/steps ("trailing": the first is pure noise).

    Raises:
        ValueError: T is not a whole number >= 1, or steps not one in 1 … T.
    """
    if check_count(steps, "steps") > check_count(T, "T"):
        raise ValueError(f"steps must be in 1 … {T} (the schedule's length); got {steps}")
    return (torch.arange(T, 0, -T / steps, dtype=torch.float64).round().long() - 1)[:steps]


def step_back(x0: Tensor, eps_hat: Tensor, alpha_bar: float, sigma: float = 0.0, fresh: Tensor | None = None) -> Tensor:
    """x_s at a lower level s, whose alpha_bar is given, from estimates of x_0 and of the noise, all [B, ...].

    sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar - sigma^2) eps_hat + sigma fresh: `fresh` noise of scale `sigma` takes the
    place of a part of the old (Song et al. 2021, arXiv 2010.02502, equation 12).

    Raises:
        ValueError: sigma^2 is above 1 - alpha_bar, more noise than level s has.
    """
    if not sigma**2 <= 1 - alpha_bar:
        raise ValueError(f"sigma must be at most sqrt(1 - alpha_bar) = {max(1 - alpha_bar, 0) ** 0.5:.4g}; got {sigma}")
    xs = alpha_bar**0.5 * x0 + (1 - alpha_bar - sigma**2) ** 0.5 * eps_hat
    return xs if fresh is None else xs + sigma * fresh


def carried_on(x0: Tensor, before: tuple[Tensor, float] | None, now: float, then: float) -> Tensor:
    """The estimate of x_0 half way between two levels, from the one `now` and the one `before`, linearly in log(signal / sigma).

    Args:
        x0: estimate at the level whose log(signal / sigma) is `now`, [B, ...].
        before: that of the step before with its log(signal / sigma); None at the first step, where x0 is all there is.
        then: log(signal / sigma) of the next level.
    """
    if before is None:
        return x0
    return x0 + (x0 - before[0]) * (then - now) / (2 * (now - before[1]))


@torch.no_grad()
def ddim_sampler(
    model: NoiseModel,
    noise: Tensor,
    schedule: Schedule,
    steps: int = 50,
    eta: float = 0.0,
    clip: bool = True,
    generator: torch.Generator | list[torch.Generator] | None = None,
    order: int = 1,
) -> Iterator[Sample]:
    """Yield the states of DDIM sampling (Song et al. 2021, arXiv 2010.02502, equations 12 and 16).

    Deterministic in `noise` when eta = 0, which makes models comparable image by image. DDIM takes the estimate of x_0 for
    constant over a step; order 2 carries its change over the last step on, at no further network call (DPM-Solver++(2M), Lu et
    al. 2022, arXiv 2211.01095, algorithm 2; with eta = 1 its stochastic form).

    Args:
        model: eps_hat(xt, t).
        noise: [B, ...], the start x_{T-1}.
        steps: network calls.
        eta: 0 is deterministic, 1 has the variance of DDPM.
        clip: keep the estimate of x_0 in [-1, 1] (images); switch off for unbounded data.
        generator: of the fresh noise when eta > 0; a list holds one per image.
        order: 1 or 2.

    Raises:
        ValueError: steps is not in 1 … T, eta is not in [0, 1], or order is another.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 (DDIM) or 2 (DPM-Solver++); got {order!r}")
    if not is_number(eta) or not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1] (0 is DDIM, 1 is DDPM); got {eta!r}")
    levels = timesteps(len(schedule), steps).tolist()
    alpha_bars = schedule.alpha_bar.double()
    log_snr = alpha_bars.logit() / 2
    xt, before = noise, None
    for t, t_next in zip(levels, levels[1:] + [-1]):
        t_batch = torch.full((len(xt),), t, device=xt.device)
        x0 = estimate_x0(xt, model(xt, t_batch), t_batch, schedule, clip)
        a, a_next = alpha_bars[t].item(), alpha_bars[t_next].item() if t_next >= 0 else 1.0
        ahead = x0 if order == 1 or t_next < 0 else carried_on(x0, before, log_snr[t].item(), log_snr[t_next].item())
        before = x0, log_snr[t].item()
        eps_hat = (xt - a**0.5 * ahead) / (1 - a) ** 0.5  # of the clipped x0
        sigma = eta * ((1 - a_next) / (1 - a) * (1 - a / a_next)) ** 0.5
        fresh = _randn(xt, generator) if sigma > 0 and t_next >= 0 else None
        xt = step_back(ahead, eps_hat, a_next, sigma, fresh)
        yield Sample(t_next, xt, x0)


def ddpm_sampler(
    model: NoiseModel,
    noise: Tensor,
    schedule: Schedule,
    steps: int | None = None,
    clip: bool = True,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> Iterator[Sample]:
    """Yield the states of ancestral sampling (Ho et al. 2020, algorithm 2, with the posterior variance).

    It is DDIM with eta = 1; `steps` < T visits a subset of the levels. Arguments as in `ddim_sampler`.
    """
    return ddim_sampler(model, noise, schedule, len(schedule) if steps is None else steps, 1.0, clip, generator)


def _randn(like: Tensor, generator: torch.Generator | list[torch.Generator] | None) -> Tensor:
    """Noise drawn on the CPU, so that the same seed gives the same images on every device; a list has a generator per row."""
    if isinstance(generator, list):
        return torch.stack([torch.randn(like.shape[1:], generator=g) for g in generator]).to(like.device)
    return torch.randn(like.shape, generator=generator).to(like.device)


def sample(
    model: NoiseModel,
    n: int,
    schedule: Schedule,
    steps: int = 50,
    seed: int = 0,
    shape: tuple[int, ...] = (1, 28, 28),
    batch: int = 250,
    clip: bool = True,
    eta: float = 0.0,
    order: int = 1,
) -> Tensor:
    """`n` samples [n, *shape] by DDIM (eta = 0) or DDPM (eta = 1), of `order` 1 or 2 (see `ddim_sampler`), computed on the model's device, returned on the CPU.

    All noise is drawn on the CPU from `seed`: it is common to all models sampled with that seed. Image i depends on
    (seed, i), not on `n` or `batch`, up to rounding. Where memory does not suffice for `batch` images at once, fewer are drawn at once, with a warning.

    Raises:
        ValueError: n, steps, seed, batch, eta or order outside its range.
        MemoryError: one image at a time is too much.
    """
    device = next(model.parameters()).device if isinstance(model, nn.Module) else "cpu"
    seeds = torch.randint(2**62, (check_count(n, "n"),), generator=seeded(seed)).tolist()

    def drawn(rows: slice) -> Tensor:
        generators = [torch.Generator().manual_seed(s) for s in seeds[rows]]
        noise = _randn(torch.empty(len(generators), *shape, device=device), generators)
        *_, last = ddim_sampler(model, noise, schedule, steps, eta, clip, generators, order)
        return last.xt.cpu()

    return torch.cat(list(in_parts(drawn, n, check_count(batch, "batch"))))
