"""Two-dimensional worlds whose densities, scores and risks are known exactly.

A Gaussian mixture stays a Gaussian mixture under diffusion: at level alpha_bar its means shrink to
sqrt(alpha_bar) mu and its variance becomes alpha_bar std^2 + 1 - alpha_bar. So everything that a network must
learn on images has a closed form here.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .data import check_count, check_number, check_positive, check_prior, check_share, is_number, seeded
from .diffusion import NoiseModel, Schedule, noise_of_normal


@dataclass(frozen=True)
class Mixture:
    """Isotropic Gaussian mixture: means [k, 2], weights [k] that sum to 1, one standard deviation.

    Raises:
        ValueError: weights that are negative or don't sum to 1, means that are not finite, or std not a finite number > 0.
    """

    means: Tensor
    weights: Tensor
    std: float

    def __post_init__(self) -> None:
        if len(self.means) == 0 or len(self.means) != len(self.weights):
            raise ValueError(f"means and weights need equal, positive lengths; got {len(self.means)}, {len(self.weights)}")
        if (self.weights < 0).any() or not abs(self.weights.sum().item() - 1) <= 1e-5:
            raise ValueError(f"weights must be >= 0 and sum to 1; got {self.weights.tolist()}")
        if not torch.isfinite(self.means).all():
            raise ValueError(f"means must be finite; got {self.means.tolist()}")
        check_positive(self.std, "std")

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n points, [n, 2]."""
        rows = torch.multinomial(self.weights, check_count(n, "n"), replacement=True, generator=generator)
        return self.means[rows] + self.std * torch.randn(n, 2, generator=generator)

    def _log_parts(self, xt: Tensor, alpha_bar: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """log(weight_k N_k(x_t)) [n, k], offsets from the shrunken means [n, k, 2], variance [n, 1]."""
        alpha_bar = torch.as_tensor(alpha_bar, dtype=xt.dtype).expand(len(xt))[:, None]
        variance = alpha_bar * self.std**2 + 1 - alpha_bar
        offset = xt[:, None] - alpha_bar.sqrt()[..., None] * self.means.to(xt.dtype)
        log_normal = -offset.square().sum(-1) / (2 * variance) - torch.log(2 * math.pi * variance)
        return self.weights.to(xt.dtype).log() + log_normal, offset, variance

    def log_density(self, xt: Tensor, alpha_bar: Tensor | float = 1.0) -> Tensor:
        """log p_t at points [n, 2], [n]; alpha_bar is a number or [n], and 1 means no noise."""
        return self._log_parts(xt, alpha_bar)[0].logsumexp(1)

    def noise(self, xt: Tensor, alpha_bar: Tensor | float) -> Tensor:
        """E[noise | x_t], [n, 2]: what a perfect noise predictor returns; -sqrt(1 - alpha_bar) times the score."""
        log_parts, offset, variance = self._log_parts(xt, alpha_bar)
        score = -(log_parts.softmax(1)[..., None] * offset).sum(1) / variance
        return -(1 - torch.as_tensor(alpha_bar, dtype=xt.dtype).expand(len(xt))[:, None]).sqrt() * score


def mix(a: Mixture, b: Mixture, share: float) -> Mixture:
    """(1 - share) a + share b, for mixtures of equal std; parts of weight 0 are left out.

    Raises:
        ValueError: the standard deviations differ, or share is not in [0, 1].
    """
    check_share(share, "share")
    if a.std != b.std:
        raise ValueError(f"std must be the same in both mixtures; got {a.std} and {b.std}")
    weights = torch.cat([(1 - share) * a.weights, share * b.weights])
    keep = weights > 0
    return Mixture(torch.cat([a.means, b.means])[keep], weights[keep], a.std)


def responsibility_of(log_p_s: Tensor, log_p_u: Tensor, prior: float) -> Tensor:
    """r = prior p_S / p_U from log densities [n], [n]: p(sensitive | x) by Bayes' rule if `prior` is the true one.

    The logs are subtracted first, as far from all data both densities round to 0. With a prior above the true one r may pass 1.

    Raises:
        ValueError: prior outside [0, 1), or lengths that differ.
    """
    if log_p_s.shape != log_p_u.shape:
        raise ValueError(f"log_p_s and log_p_u must belong to the same points; got shapes {list(log_p_s.shape)}, {list(log_p_u.shape)}")
    return check_prior(prior) * (log_p_s - log_p_u).exp()


@dataclass(frozen=True)
class World:
    """A PU world: p_U = prior p_S + (1 - prior) p_N."""

    normal: Mixture
    sensitive: Mixture
    prior: float

    def __post_init__(self) -> None:
        check_prior(self.prior)

    @property
    def unlabeled(self) -> Mixture:
        """The density of U: p_U = prior p_S + (1 - prior) p_N."""
        return mix(self.normal, self.sensitive, self.prior)

    def target(self, assumed: float) -> Mixture:
        """(p_U - assumed p_S) / (1 - assumed), what PU training with an `assumed` prior <= prior aims at.

        Raises:
            ValueError: assumed is not in [0, prior]; above it the density is negative somewhere.
        """
        if not is_number(assumed) or not 0 <= assumed <= self.prior:
            raise ValueError(f"assumed must be in [0, {self.prior:.4g}], the true prior; got {assumed!r}")
        return mix(self.normal, self.sensitive, (self.prior - assumed) / (1 - assumed))

    def signed_density(self, x: Tensor, assumed: float) -> Tensor:
        """(p_U - assumed p_S) / (1 - assumed) at points [n, 2], for any assumed in [0, 1): it may be negative."""
        p_u, p_s = self.unlabeled.log_density(x).exp(), self.sensitive.log_density(x).exp()
        return (p_u - check_prior(assumed, "assumed") * p_s) / (1 - assumed)

    def responsibility(self, xt: Tensor, alpha_bar: Tensor | float, assumed: float | None = None) -> Tensor:
        """r(x_t) = b p_S(x_t) / p_U(x_t), [n]: p(sensitive | x_t) when b, the assumed prior, is the true one."""
        b = self.prior if assumed is None else check_prior(assumed, "assumed")
        return responsibility_of(self.sensitive.log_density(xt, alpha_bar), self.unlabeled.log_density(xt, alpha_bar), b)

    def noise_normal(self, xt: Tensor, alpha_bar: Tensor | float, assumed: float | None = None, ceiling: float = 0.999) -> Tensor:
        """eps_N = (eps_U - r eps_S) / (1 - r), the pointwise minimiser of E_U[l] - b E_S[l], [n, 2].

        r is cut at `ceiling`: beyond the true prior it may pass 1, where the minimiser does not exist.

        Raises:
            ValueError: assumed or ceiling outside [0, 1).
        """
        if not is_number(ceiling) or not 0 <= ceiling < 1:
            raise ValueError(f"ceiling must be in [0, 1), where r is cut; got {ceiling!r}")
        r = self.responsibility(xt, alpha_bar, assumed).clamp(max=ceiling)
        return noise_of_normal(self.unlabeled.noise(xt, alpha_bar), self.sensitive.noise(xt, alpha_bar), r)

    def model(self, schedule: Schedule, assumed: float) -> NoiseModel:
        """The exact PU noise model eps_hat(x_t, t) for an assumed prior, for the samplers.

        Up to the true prior it is the noise model of `target(assumed)`, which equals `noise_normal` without its
        rounding; above, no target exists and `noise_normal` with its ceiling is used as it is.
        """
        if check_prior(assumed, "assumed") <= self.prior:
            target = self.target(assumed)
            return lambda xt, t: target.noise(xt, schedule.alpha_bar[t])
        return lambda xt, t: self.noise_normal(xt, schedule.alpha_bar[t], assumed)

    def is_sensitive(self, x: Tensor) -> Tensor:
        """bool [n]: is each point nearer to a sensitive mean than to a normal one?"""
        return torch.cdist(x, self.sensitive.means).amin(1) < torch.cdist(x, self.normal.means).amin(1)


def draw_pu(world: World, n_unlabeled: int, n_sensitive: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """U [n_unlabeled, 2], S [n_sensitive, 2] and the hidden truth about U, bool [n_unlabeled] (True = sensitive).

    The number of sensitive points in U is round(prior * n_unlabeled).

    Raises:
        ValueError: a count is not a whole number >= 1, or seed not one >= 0.
    """
    generator = seeded(seed)
    n_hidden = round(world.prior * check_count(n_unlabeled, "n_unlabeled"))
    points = [world.normal.sample(n_unlabeled - n_hidden, generator)]
    if n_hidden:
        points.append(world.sensitive.sample(n_hidden, generator))
    truth = torch.arange(n_unlabeled) >= n_unlabeled - n_hidden
    order = torch.randperm(n_unlabeled, generator=generator)
    return torch.cat(points)[order], world.sensitive.sample(check_count(n_sensitive, "n_sensitive"), generator), truth[order]


def ring_world(prior: float = 0.2, std: float = 0.12) -> World:
    """Six normal modes on a ring of radius 1.5 with two sensitive modes among them."""
    angles = torch.arange(8) * (2 * math.pi / 8)
    means = 1.5 * torch.stack([angles.cos(), angles.sin()], 1)
    sensitive = torch.tensor([1, 2])
    normal = torch.tensor([0, 3, 4, 5, 6, 7])
    return World(Mixture(means[normal], torch.full((6,), 1 / 6), std), Mixture(means[sensitive], torch.full((2,), 0.5), std), prior)


def two_clouds(prior: float = 0.3, distance: float = 2.0, std: float = 0.8) -> World:
    """Two overlapping round clouds, normal on the left and sensitive on the right: a world for classifiers."""
    half = check_number(distance, "distance") / 2
    one = torch.ones(1)
    return World(Mixture(torch.tensor([[-half, 0.0]]), one, std), Mixture(torch.tensor([[half, 0.0]]), one, std), prior)
