"""What a model can still be made to draw: starting from an image in place of noise.

A model that does not *draw* sensitive images from noise may still *complete* or *restore* them. These probes start from a given image.
"""

import torch
from torch import Tensor

from .data import check_count, check_share, seeded
from .diffusion import NoiseModel, Schedule, add_noise, ddim_sampler, estimate_x0, step_back, timesteps


@torch.no_grad()
def invert(model: NoiseModel, x0: Tensor, schedule: Schedule, steps: int = 50) -> Tensor:
    """The noise x_{T-1} [B, ...] from which deterministic DDIM draws about `x0` [B, ...]: its steps walked backwards.

    Each step takes eps_hat at the lower level for the one at the higher (Song et al. 2021, arXiv 2010.02502, section 4.3), the first takes that
    of level 0; so it is exact only for many steps. Estimates of x_0 are not clipped.

    Raises:
        ValueError: steps is not in 1 … T.
    """
    levels = timesteps(len(schedule), steps).flip(0).tolist()
    xt = x0
    for t, t_next in zip([-1, *levels], levels):  # the image itself is at no level
        at = torch.full((len(xt),), max(t, 0), device=xt.device)
        eps_hat = model(xt, at)
        clean = xt if t < 0 else estimate_x0(xt, eps_hat, at, schedule, clip=False)
        xt = step_back(clean, eps_hat, schedule.alpha_bar[t_next].double().item())
    return xt


@torch.no_grad()
def renoised(model: NoiseModel, x0: Tensor, level: int, noise: Tensor, schedule: Schedule, steps: int = 20) -> Tensor:
    """`x0` [B, ...] noised to `level` and denoised again by DDIM: what the model makes of an image that is hidden under noise.

    (SDEdit, Meng et al. 2022, arXiv 2108.01073.) It visits about `steps` times the share of the levels that lie below, and at least one. For images:
    estimates of x_0 are kept in [-1, 1].

    Raises:
        ValueError: level is not in 0 … T-1, steps not in 1 … T, or noise of another shape.
    """
    if check_count(level, "level", 0) >= len(schedule):
        raise ValueError(f"level must be in 0 … {len(schedule) - 1}; got {level}")
    if noise.shape != x0.shape:
        raise ValueError(f"noise must have the shape of x0, {list(x0.shape)}; got {list(noise.shape)}")
    timesteps(len(schedule), steps)  # refuses a bad number
    t = torch.full((len(x0),), level, device=x0.device)
    part = Schedule(schedule.beta[: level + 1])
    n = max(1, min(level + 1, round(steps * (level + 1) / len(schedule))))
    *_, last = ddim_sampler(model, add_noise(x0, t, noise, schedule), part, n)
    return last.xt


def paste_known(xt: Tensor, known: Tensor, mask: Tensor, t: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
    """x_t [B, ...] with the known part of an image put in at its noise level: add_noise(known) where `mask` is true, x_t elsewhere.

    (Lugmayr et al. 2022, RePaint, arXiv 2201.09865, equation 8.)

    Args:
        xt: state of the sampler at level t, [B, ...].
        known: clean images, [B, ...].
        mask: bool, of a shape that spreads over the images; true where they are known.
        t: int64 [B], the level of x_t.
        noise: [B, ...].

    Raises:
        ValueError: shapes that do not belong together, or a mask that is not bool.
    """
    shape = xt.shape
    if known.shape != shape or noise.shape != shape or t.shape != shape[:1]:
        raise ValueError(f"known and noise must have the shape of xt, {list(shape)}, and t [B]; got {list(known.shape)}, {list(noise.shape)}, {list(t.shape)}")
    if mask.dtype != torch.bool or mask.ndim > len(shape) or any(m not in (1, n) for m, n in zip(reversed(mask.shape), reversed(shape))):
        raise ValueError(f"mask must be bool and spread over {list(shape)}; got {mask.dtype} {list(mask.shape)}")
    return torch.where(mask, add_noise(known, t, noise, schedule), xt)


@torch.no_grad()
def inpaint(model: NoiseModel, known: Tensor, mask: Tensor, schedule: Schedule, steps: int = 50, seed: int = 0) -> Tensor:
    """Images that agree with `known` [B, ...] where `mask` is true, with the rest drawn by the model: `paste_known` before every DDIM step.

    For images: estimates of x_0 are kept in [-1, 1]. The known part is noised anew at each level: a single noise would mislead the rest all along.

    Raises:
        ValueError: steps is not in 1 … T, or a mask as `paste_known` refuses it.
    """
    generator = seeded(seed)
    xt = torch.randn(known.shape, generator=generator).to(known.device)
    levels = timesteps(len(schedule), steps).tolist()
    for t, t_next in zip(levels, [*levels[1:], -1]):
        at = torch.full((len(xt),), t, device=xt.device)
        fresh = torch.randn(known.shape, generator=generator).to(known.device)
        xt = paste_known(xt, known, mask, at, fresh, schedule)
        x0 = estimate_x0(xt, model(xt, at), at, schedule)
        a = schedule.alpha_bar[t].double().item()
        eps_hat = (xt - a**0.5 * x0) / (1 - a) ** 0.5
        xt = step_back(x0, eps_hat, schedule.alpha_bar[t_next].double().item() if t_next >= 0 else 1.0)
    return torch.where(mask, known, xt)


def between_noises(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The noise a `share` of the way from a to b along the sphere on which noise lies, [B, ...] each (spherical interpolation, Shoemake 1985).

    Between noises that are almost the same, or opposite, where no way is the shortest, it goes straight.

    Raises:
        ValueError: share outside [0, 1], or shapes that differ.
    """
    check_share(share, "share")
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"a and b must have one shape [B, ...]; got {list(a.shape)} and {list(b.shape)}")
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    cos = (flat_a * flat_b).sum(1) / (flat_a.norm(dim=1) * flat_b.norm(dim=1)).clamp(min=1e-12)
    angle = cos.clamp(-1, 1).acos().view(-1, *[1] * (a.ndim - 1))
    apart, line = angle.sin(), (1 - share) * a + share * b
    arc = ((1 - share) * angle).sin() / apart * a + (share * angle).sin() / apart * b
    return torch.where(apart < 1e-3, line, arc)
