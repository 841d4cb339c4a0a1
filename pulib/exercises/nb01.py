"""Exercises of notebook 01: noising, the denoising loss, and walking back."""

from types import SimpleNamespace

import torch
from torch import Tensor

from .. import diffusion
from ..diffusion import Schedule, add_noise, cosine_schedule
from .base import Exercise, Mistake, Observed


def inputs() -> SimpleNamespace:
    """Fixed inputs: a short schedule, and as many images as an image has columns, to catch factors on the wrong axis."""
    g = torch.Generator().manual_seed(0)
    x0, noise, eps_hat = (torch.randn(4, 1, 4, 4, generator=g) for _ in range(3))
    return SimpleNamespace(schedule=cosine_schedule(20), x0=x0.clamp(-1, 1), noise=noise, eps_hat=eps_hat, t=torch.tensor([0, 5, 11, 18]))


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """[B] shaped to multiply `like` [B, ...]."""
    return values.view(-1, *[1] * (like.ndim - 1))


# ------------------------------------------------------------------------------------- 01.1 the schedule


def observe_alpha_bar(f) -> Observed:
    return {"a growing beta": f(torch.tensor([0.1, 0.2, 0.3, 0.4])), "one step only": f(torch.tensor([0.25]))}


ALPHA_BAR = Exercise(
    "01.1",
    diffusion.alpha_bar_of,
    observe_alpha_bar,
    (
        Mistake("you multiplied the beta_t; alpha_bar is the product of alpha_t = 1 - beta_t", lambda beta: beta.cumprod(0)),
        Mistake("you added the alpha_t; each step multiplies what is left", lambda beta: (1 - beta).cumsum(0)),
        Mistake("you gave only the last product; alpha_bar has one value for every t", lambda beta: (1 - beta).prod()),
        Mistake("these are the alpha_t of single steps, not yet multiplied up to t", lambda beta: 1 - beta),
        Mistake(
            "you are one step off: alpha_bar[0] already holds the first step, 1 - beta[0]",
            lambda beta: torch.cat([torch.ones(1), (1 - beta).cumprod(0)[:-1]]),
        ),
        Mistake("alpha_bar is the product itself; its square root comes later, in (1.2)", lambda beta: (1 - beta).cumprod(0).sqrt()),
    ),
)


# ------------------------------------------------------------------------------------------ 01.2 noising


def observe_add_noise(f) -> Observed:
    i = inputs()
    return {
        "images": f(i.x0, i.t, i.noise, i.schedule),
        "images without noise": f(torch.ones_like(i.x0), i.t, torch.zeros_like(i.x0), i.schedule),
        "points": f(i.x0[:, 0, 0], i.t, i.noise[:, 0, 0], i.schedule),
    }


def mixed(signal, sigma, shift: int = 0):
    """A noising rule made of two functions of alpha_bar."""

    def rule(x0: Tensor, t: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
        a = per_image(schedule.alpha_bar[(t + shift).clamp(min=0)], x0)
        return signal(a) * x0 + sigma(a) * noise

    return rule


def with_beta(x0, t, noise, schedule):
    b = per_image(schedule.beta[t], x0)
    return (1 - b).sqrt() * x0 + b.sqrt() * noise


def along_the_columns(x0, t, noise, schedule):
    a = schedule.alpha_bar[t]
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def for_images_only(x0, t, noise, schedule):
    a = schedule.alpha_bar[t][:, None, None, None]
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


ADD_NOISE = Exercise(
    "01.2",
    diffusion.add_noise,
    observe_add_noise,
    (
        Mistake("your factors are alpha_bar and 1 - alpha_bar; (1.2) has their square roots", mixed(lambda a: a, lambda a: 1 - a)),
        Mistake("your noise has the factor 1 - sqrt(alpha_bar); (1.2) has sqrt(1 - alpha_bar)", mixed(torch.sqrt, lambda a: 1 - a.sqrt())),
        Mistake("image and noise have each other's factors: at t = 0 almost all of the image is left", mixed(lambda a: (1 - a).sqrt(), torch.sqrt)),
        Mistake("you are one level off: the code's t counts from 0, so take alpha_bar[t]", mixed(torch.sqrt, lambda a: (1 - a).sqrt(), shift=-1)),
        Mistake("you used beta_t, the noise of one step; (1.2) has alpha_bar_t, what is left after all steps", with_beta),
        Mistake("the noise must be added, not subtracted", mixed(torch.sqrt, lambda a: -(1 - a).sqrt())),
        Mistake("your factors lie along the columns of the images; there is one factor per image, so shape them [B, 1, 1, 1]", along_the_columns),
        Mistake("right for images, but this notebook also noises points, [n, 2]: `schedule.levels(t, x0)` gives both factors in the shape that fits", for_images_only),
    ),
)


# ------------------------------------------------------------------------------------- 01.3 the loss


def observe_loss(f) -> Observed:
    i = inputs()

    def model(xt: Tensor, t: Tensor) -> Tensor:
        return 0.3 * xt + per_image(t / 20, xt)

    return {"l of each image": f(model, i.x0, i.t, i.noise, i.schedule)}


def loss_of(reduce, target=lambda x0, noise: noise, noised=True):
    """A loss made of a reduction of the error, a target, and whether the network sees the noised image."""

    def loss(model, x0, t, noise, schedule):
        xt = add_noise(x0, t, noise, schedule) if noised else x0
        return reduce(target(x0, noise) - model(xt, t))

    return loss


def per_image_sum(error: Tensor) -> Tensor:
    return error.square().flatten(1).sum(1)


LOSS = Exercise(
    "01.3",
    diffusion.denoising_loss,
    observe_loss,
    (
        Mistake("your loss is averaged over pixels; (1.12) sums them", loss_of(lambda e: e.square().flatten(1).mean(1))),
        Mistake("you also averaged over the images; keep one loss per image, shape [B]", loss_of(lambda e: e.square().flatten(1).sum(1).mean())),
        Mistake("you averaged over images and pixels; sum over pixels, and keep one loss per image, shape [B]", loss_of(lambda e: e.square().mean())),
        Mistake("you summed over the images too; keep one loss per image, shape [B]", loss_of(lambda e: e.square().sum())),
        Mistake("(1.12) has the squared norm; you took the norm", loss_of(lambda e: e.flatten(1).norm(dim=1))),
        Mistake("you summed absolute errors; (1.12) squares them", loss_of(lambda e: e.abs().flatten(1).sum(1))),
        Mistake("you compared the prediction with the image x0; the network predicts the noise", loss_of(per_image_sum, lambda x0, noise: x0)),
        Mistake("the network saw the clean image; give it x_t", loss_of(per_image_sum, noised=False)),
    ),
)


# --------------------------------------------------------------------------- 01.4 the estimate of x_0


def observe_estimate(f) -> Observed:
    i = inputs()
    xt = add_noise(i.x0, i.t, i.noise, i.schedule)
    return {"with the true noise": f(xt, i.noise, i.t, i.schedule), "with a bad prediction": f(xt, 0.9 * i.eps_hat, i.t, i.schedule)}


def estimate(formula, clip=True):
    """An estimate of x_0 from a formula of x_t, eps_hat, sqrt(alpha_bar) and sqrt(1 - alpha_bar)."""

    def rule(xt, eps_hat, t, schedule):
        x0 = formula(xt, eps_hat, *schedule.levels(t, xt))
        return x0.clamp(-1, 1) if clip else x0

    return rule


ESTIMATE = Exercise(
    "01.4",
    diffusion.estimate_x0,
    observe_estimate,
    (
        Mistake("you did not clip; pixels lie in [-1, 1], so clamp the estimate", estimate(lambda xt, e, a, s: (xt - s * e) / a, clip=False)),
        Mistake("you divided by alpha_bar; (1.2) multiplied by its square root", estimate(lambda xt, e, a, s: (xt - s * e) / a**2)),
        Mistake("you subtracted the noise, but did not undo the shrinking: divide by sqrt(alpha_bar)", estimate(lambda xt, e, a, s: xt - s * e)),
        Mistake("(1.2) added the noise, so solving for x_0 subtracts it", estimate(lambda xt, e, a, s: (xt + s * e) / a)),
        Mistake("the noise was added with the factor sqrt(1 - alpha_bar); subtract that much", estimate(lambda xt, e, a, s: (xt - e) / a)),
        Mistake("the factor of the noise is a square root: sqrt(1 - alpha_bar), not 1 - alpha_bar", estimate(lambda xt, e, a, s: (xt - s**2 * e) / a)),
    ),
)


# ------------------------------------------------------------------------------------ 01.5 a step back


def observe_step(f) -> Observed:
    i = inputs()
    return {
        "DDIM (sigma = 0)": f(i.x0, i.eps_hat, 0.6, 0.0, i.noise),
        "fresh noise (sigma = 0.5)": f(i.x0, i.eps_hat, 0.6, 0.5, i.noise),
        "the last step (alpha_bar = 1)": f(i.x0, i.eps_hat, 1.0, 0.0, i.noise),
    }


STEP = Exercise(
    "01.5",
    diffusion.step_back,
    observe_step,
    (
        Mistake(
            "with fresh noise the old noise must shrink: its factor is sqrt(1 - alpha_bar - sigma^2)",
            lambda x0, e, a, s=0.0, z=0.0: a**0.5 * x0 + (1 - a) ** 0.5 * e + s * z,
        ),
        Mistake("you left out the fresh noise, sigma z", lambda x0, e, a, s=0.0, z=0.0: a**0.5 * x0 + (1 - a - s**2) ** 0.5 * e),
        Mistake("sigma is a standard deviation: add sigma z, not sigma^2 z", lambda x0, e, a, s=0.0, z=0.0: a**0.5 * x0 + (1 - a - s**2) ** 0.5 * e + s**2 * z),
        Mistake("variances subtract, not standard deviations: sqrt(1 - alpha_bar - sigma^2)", lambda x0, e, a, s=0.0, z=0.0: a**0.5 * x0 + ((1 - a) ** 0.5 - s) * e + s * z),
        Mistake("the image's factor is sqrt(alpha_bar), not alpha_bar", lambda x0, e, a, s=0.0, z=0.0: a * x0 + (1 - a - s**2) ** 0.5 * e + s * z),
        Mistake("the old noise points the same way as before: add it", lambda x0, e, a, s=0.0, z=0.0: a**0.5 * x0 - (1 - a - s**2) ** 0.5 * e + s * z),
    ),
)


# --------------------------------------------------------------------------- 01.6 reading v as noise


def observe_v(f) -> Observed:
    i = inputs()
    xt = add_noise(i.x0, i.t, i.noise, i.schedule)
    signal, sigma = i.schedule.levels(i.t, xt)
    return {"the true v": f(signal * i.noise - sigma * i.x0, xt, i.t, i.schedule), "a wrong v": f(i.eps_hat, xt, i.t, i.schedule)}


def read_v(formula):
    """A reading of v from a formula of v, x_t, sqrt(alpha_bar) and sqrt(1 - alpha_bar)."""
    return lambda v, xt, t, schedule: formula(v, xt, *schedule.levels(t, xt))


READ_V = Exercise(
    "01.6",
    diffusion.noise_of_v,
    observe_v,
    (
        Mistake("the sign of x_t is wrong: test yours with x_0 = 0, where x_t is sqrt(1 - alpha_bar) times the noise", read_v(lambda v, x, a, s: a * v - s * x)),
        Mistake("you solved v's definition with x_t in the place of x_0; eliminate x_0 by (1.2) first", read_v(lambda v, x, a, s: (v + s * x) / a)),
        Mistake("the two factors have changed places", read_v(lambda v, x, a, s: s * v + a * x)),
        Mistake("this is the estimate of x_0; eliminate x_0 instead of the noise", read_v(lambda v, x, a, s: a * x - s * v)),
        Mistake("the factors are square roots, sqrt(alpha_bar) and sqrt(1 - alpha_bar)", read_v(lambda v, x, a, s: a**2 * v + s**2 * x)),
    ),
)

EXERCISES = (ALPHA_BAR, ADD_NOISE, LOSS, ESTIMATE, STEP, READ_V)
