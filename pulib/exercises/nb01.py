"""Exercises of notebook 01: noising, the denoising loss, and walking back.

Some demands are looked at only when the numbers are right (leaving the inputs alone, working on points, passing gradients
on): so a wrong formula gets the diagnosis of its formula, however it was written.
"""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from .. import diffusion
from ..diffusion import Schedule, add_noise, cosine_schedule
from .base import Exercise, Mistake, NotAttempted, Observed, agree, as_tensor


def inputs() -> SimpleNamespace:
    """Fixed inputs: a short schedule, and as many images as an image has columns, to catch factors on the wrong axis."""
    g = torch.Generator().manual_seed(0)
    x0, noise, eps_hat = (torch.randn(4, 1, 4, 4, generator=g) for _ in range(3))
    return SimpleNamespace(schedule=cosine_schedule(20), x0=x0.clamp(-1, 1), noise=noise, eps_hat=eps_hat, t=torch.tensor([0, 5, 11, 18]))


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """[B] shaped to multiply `like` [B, ...]."""
    return values.view(-1, *[1] * (like.ndim - 1))


def copies(args: tuple) -> list:
    return [a.clone() if isinstance(a, Tensor) else a for a in args]


def call(f: Callable, *args) -> Tensor:
    """f of copies of args, as a tensor, with the same chance each time, so that an answer that draws noise of its own can be told."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return as_tensor(f(*copies(args)))


def same(a: Tensor, b: Tensor) -> bool:
    return agree({"": a}, {"": b}, 1e-4)


def tidy(f: Callable, want: Callable, *args) -> float:
    """0 if f gives what `want` gives but changes its arguments, else 1."""
    mine = copies(args)
    right = same(as_tensor(f(*mine)), call(want, *args))
    changed = any(not torch.equal(a, b) for a, b in zip(args, mine, strict=True) if isinstance(a, Tensor))
    return float(not (right and changed))


def fits(f: Callable, want: Callable, *args) -> float:
    """1 if f gives what `want` gives, 0 if it gives something else or fails."""
    try:
        return float(same(call(f, *args), call(want, *args)))
    except NotAttempted:
        raise
    except Exception:  # whatever a learner's code may raise
        return 0.0


def in_place(want: Callable, which: int) -> Callable:
    """`want`, but its result overwrites an argument."""

    def rule(*args):
        result = want(*args)
        args[which].copy_(result.detach() if result.shape == args[which].shape else torch.zeros_like(args[which]))
        return result

    return rule


# ------------------------------------------------------------------------------------- 01.1 the schedule


def observe_alpha_bar(f) -> Observed:
    return {
        "a growing beta": call(f, torch.tensor([0.1, 0.2, 0.3, 0.4])),
        "one step only": call(f, torch.tensor([0.25])),
        "the cosine schedule": call(f, cosine_schedule().beta),
        "is beta left as it was?": tidy(f, diffusion.alpha_bar_of, torch.tensor([0.1, 0.2])),
    }


ALPHA_BAR = Exercise(
    "01.1",
    diffusion.alpha_bar_of,
    observe_alpha_bar,
    (
        Mistake("you multiplied the beta_t; alpha_bar is the product of alpha_t = 1 - beta_t", lambda beta: beta.cumprod(0)),
        Mistake("you took 1 minus the product of the beta_t; alpha_bar is the product of the 1 - beta_t", lambda beta: 1 - beta.cumprod(0)),
        Mistake("this is 1 - alpha_bar, the share of the noise; alpha_bar is the share of the image", lambda beta: 1 - (1 - beta).cumprod(0)),
        Mistake("you added the alpha_t; each step multiplies what is left", lambda beta: (1 - beta).cumsum(0)),
        Mistake("you subtracted every beta_t from 1; a step takes its share of what is left, not of the whole", lambda beta: 1 - beta.cumsum(0)),
        Mistake("exp(-sum of beta_t) is close for small beta_t only; multiply the 1 - beta_t", lambda beta: (-beta.cumsum(0)).exp()),
        Mistake("you raised one alpha_t to the power t; every step has a beta_t of its own", lambda beta: (1 - beta) ** torch.arange(1, len(beta) + 1)),
        Mistake("you raised one alpha_t to the power t; every step has a beta_t of its own", lambda beta: (1 - beta[0]) ** torch.arange(1, len(beta) + 1)),
        Mistake("beta_t is a variance already; take neither its square nor its root", lambda beta: (1 - beta**2).cumprod(0)),
        Mistake("beta_t is a variance already; take neither its square nor its root", lambda beta: (1 - beta.sqrt()).cumprod(0)),
        Mistake("you gave only the last product; alpha_bar has one value for every t", lambda beta: (1 - beta).prod()),
        Mistake("you gave only the last product; alpha_bar has one value for every t", lambda beta: (1 - beta).cumprod(0)[-1:]),
        Mistake("these are the alpha_t of single steps, not yet multiplied up to t", lambda beta: 1 - beta),
        Mistake("you multiplied from the end; alpha_bar_t is what the first t steps leave", lambda beta: (1 - beta).flip(0).cumprod(0).flip(0)),
        Mistake("you multiplied from the end; alpha_bar_t is what the first t steps leave", lambda beta: (1 - beta).flip(0).cumprod(0)),
        Mistake(
            "you are one step off: alpha_bar[0] already holds the first step, 1 - beta[0]",
            lambda beta: torch.cat([torch.ones(1), (1 - beta).cumprod(0)[:-1]]),
        ),
        Mistake(
            "you have one value too many: there is one for each beta, and alpha_bar[0] already holds the first step",
            lambda beta: torch.cat([torch.ones(1), (1 - beta).cumprod(0)]),
        ),
        Mistake("you left out the first step: alpha_bar[0] is 1 - beta[0]", lambda beta: (1 - beta[1:]).cumprod(0)),
        Mistake("you left out the first value: alpha_bar[0] is 1 - beta[0]", lambda beta: (1 - beta).cumprod(0)[1:]),
        Mistake("your loop starts by multiplying with the value at index -1, which in Python is the last one", lambda beta: (1 - beta).cumprod(0) * (1 - beta[-1])),
        Mistake("alpha_bar is the product itself; its square root comes later, in (1.2)", lambda beta: (1 - beta).cumprod(0).sqrt()),
        Mistake("right, but you changed beta itself; others still need it, so write into a new tensor", in_place(diffusion.alpha_bar_of, 0)),
    ),
)


# ------------------------------------------------------------------------------------------ 01.2 noising


def observe_add_noise(f) -> Observed:
    i = inputs()
    return {
        "images": call(f, i.x0, i.t, i.noise, i.schedule),
        "images without noise": call(f, torch.ones_like(i.x0), i.t, torch.zeros_like(i.x0), i.schedule),
        "is it right for points [n, 2] too?": fits(f, add_noise, i.x0[:, 0, 0], i.t, i.noise[:, 0, 0], i.schedule),
        "are the images left as they were?": tidy(f, add_noise, i.x0, i.t, i.noise, i.schedule),
    }


def mixed(signal, sigma):
    """A noising rule made of two functions of alpha_bar."""

    def rule(x0: Tensor, t: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
        a = per_image(schedule.alpha_bar[t], x0)
        return signal(a) * x0 + sigma(a) * noise

    return rule


def at(move: Callable, want: Callable) -> Callable:
    """The right rule for (..., t, ..., schedule), but at other levels: `move` maps t to them."""

    def rule(*args):
        return want(*(move(a) if isinstance(a, Tensor) and not a.is_floating_point() else a for a in args))

    return rule


def shaped(shape: Callable, combine: Callable) -> Callable:
    """The right rule, combine(x, y, a, s), but with its factors [B] shaped by `shape`."""

    def rule(x, *rest):
        t, schedule = next(r for r in rest if isinstance(r, Tensor) and not r.is_floating_point()), rest[-1]
        y = next(r for r in rest if isinstance(r, Tensor) and r.is_floating_point())
        a = shape(schedule.alpha_bar[t])
        return combine(x, y, a.sqrt(), (1 - a).sqrt())

    return rule


def misshaped(combine: Callable) -> tuple[Mistake, ...]:
    """Factors that lie along the wrong axis of the images."""
    says = "there is one factor per image, so shape them [B, 1, 1, 1], as `schedule.levels` does"
    return (
        Mistake(f"your factors lie along the columns of the images; {says}", shaped(lambda a: a, combine)),
        Mistake(f"your factors lie along the rows of the images; {says}", shaped(lambda a: a[:, None], combine)),
        Mistake(f"your factors lie along the channels, which copied every image; {says}", shaped(lambda a: a[:, None, None], combine)),
    )


def of_every_level() -> tuple[Mistake, ...]:
    """Factors for all levels of the schedule, which do not fit the images and raise an error."""
    says = "you took alpha_bar of all levels at once; each image needs the one of its own level, alpha_bar[t]"
    shapes = (lambda a: a, lambda a: a[:, None, None, None])
    before = (Mistake(says, lambda x, *rest, shape=shape: shape(rest[-1].alpha_bar) * x) for shape in shapes)
    behind = (Mistake(says, lambda x, *rest, shape=shape: x * shape(rest[-1].alpha_bar)) for shape in shapes)
    return (*before, *behind)


def off_by_one(want: Callable) -> tuple[Mistake, ...]:
    """The level before, the level after, and the level before with a guard at 0."""
    says = "you are one level off: the code's t counts from 0, so take alpha_bar[t]"
    return tuple(Mistake(says, at(move, want)) for move in (lambda t: t - 1, lambda t: t + 1, lambda t: (t - 1).clamp(min=0)))


def rooted_twice(rule: Callable) -> tuple[Mistake, ...]:
    """rule(signal, sigma) -> a wrong answer whose factors are roots of what `schedule.levels` gives."""
    says = "`schedule.levels` gives the square roots already"
    return (
        Mistake(says, rule(lambda a: a**0.25, lambda a: (1 - a) ** 0.25)),
        Mistake(says, rule(lambda a: a**0.25, lambda a: (1 - a.sqrt()).sqrt())),
        Mistake(says, rule(torch.sqrt, lambda a: (1 - a.sqrt()).sqrt())),
    )


def with_beta(x0, t, noise, schedule):
    b = per_image(schedule.beta[t], x0)
    return (1 - b).sqrt() * x0 + b.sqrt() * noise


def noise_of_its_own(x0, t, noise, schedule):
    return add_noise(x0, t, torch.randn_like(x0), schedule)


def noised_by(x0, noise, a, s):
    return a * x0 + s * noise


ADD_NOISE = Exercise(
    "01.2",
    diffusion.add_noise,
    observe_add_noise,
    (
        Mistake("your factors are alpha_bar and 1 - alpha_bar; (1.2) has their square roots", mixed(lambda a: a, lambda a: 1 - a)),
        Mistake("the image's factor is right; the noise's lacks its square root, see (1.2)", mixed(torch.sqrt, lambda a: 1 - a)),
        Mistake("the noise's factor is right; the image's lacks its square root, see (1.2)", mixed(lambda a: a, lambda a: (1 - a).sqrt())),
        Mistake("your noise has the factor 1 - sqrt(alpha_bar); (1.2) has sqrt(1 - alpha_bar)", mixed(torch.sqrt, lambda a: 1 - a.sqrt())),
        Mistake("image and noise have each other's factors: at t = 0 almost all of the image is left", mixed(lambda a: (1 - a).sqrt(), torch.sqrt)),
        Mistake("image and noise have each other's factors, and these lack their square roots", mixed(lambda a: 1 - a, lambda a: a)),
        Mistake("you added the noise without shrinking the image; (1.2) has a factor there too", mixed(torch.ones_like, lambda a: (1 - a).sqrt())),
        Mistake("you added the noise at full strength; at t = 0 there is hardly any", mixed(torch.sqrt, torch.ones_like)),
        Mistake("both terms have the image's factor; the noise has the other one", mixed(torch.sqrt, torch.sqrt)),
        Mistake("you shrank the image and added no noise", mixed(torch.sqrt, torch.zeros_like)),
        Mistake("you used beta_t, the noise of one step; (1.2) has alpha_bar_t, what is left after all steps", with_beta),
        Mistake("the noise must be added, not subtracted", mixed(torch.sqrt, lambda a: -(1 - a).sqrt())),
        Mistake("you noised all images to the level of the first; each has its own t", at(lambda t: t[:1].expand_as(t), add_noise)),
        Mistake("you noised all images to the level of the last; each has its own t", at(lambda t: t[-1:].expand_as(t), add_noise)),
        Mistake("you clipped x_t; only clean images stay in [-1, 1]", lambda *args: add_noise(*args).clamp(-1, 1)),
        Mistake("you drew noise of your own; use the noise that is given, as the network must guess just that", noise_of_its_own),
        *off_by_one(add_noise),
        *of_every_level(),
        *rooted_twice(mixed),
        *misshaped(noised_by),
        Mistake(
            "right for images, but this notebook also noises points, [n, 2]: `schedule.levels(t, x0)` gives both factors in the shape that fits",
            shaped(lambda a: a[:, None, None, None], noised_by),
        ),
        Mistake("right, but you changed x0 itself; others still need it, so write into a new tensor", in_place(add_noise, 0)),
    ),
)


# ------------------------------------------------------------------------------------- 01.3 the loss


def network(weight: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A stand-in for a noise predictor with one weight, which insists on being called as one."""

    def model(xt: Tensor, t: Tensor) -> Tensor:
        if t.shape != xt.shape[:1] or t.is_floating_point():
            raise ValueError("the network is called as model(xt, t), with one whole number t per image")
        return weight * xt + per_image(t / 20, xt)

    return model


def slope(f) -> float:
    """0 if the loss is right but does not pass the right gradient on to the network's weight, else 1."""
    slopes = []
    for loss in (f, diffusion.denoising_loss):
        with torch.enable_grad():
            i, weight = inputs(), torch.tensor(0.3, requires_grad=True)
            value = loss(network(weight), i.x0, i.t, i.noise, i.schedule)
            follows = isinstance(value, Tensor) and value.requires_grad
            grad = torch.autograd.grad(value.sum(), weight, allow_unused=True)[0] if follows else None
        slopes.append((as_tensor(value), as_tensor(0.0 if grad is None else grad)))
    (mine, my_slope), (true, true_slope) = slopes
    return float(not same(mine, true) or same(my_slope, true_slope))


def observe_loss(f) -> Observed:
    i, model = inputs(), network(torch.tensor(0.3))
    return {
        "l of each image": call(f, model, i.x0, i.t, i.noise, i.schedule),
        "is it right for points [n, 2] too?": fits(f, diffusion.denoising_loss, model, i.x0[:, 0, 0], i.t, i.noise[:, 0, 0], i.schedule),
        "are the images and the noise left as they were?": tidy(f, diffusion.denoising_loss, model, i.x0, i.t, i.noise, i.schedule),
        "does it pass on the right gradient?": slope(f),
    }


def loss_of(reduce, target=lambda x0, xt, noise: noise, noising=add_noise):
    """A loss made of a reduction of the error, a target, and of how the network's image is noised."""

    def loss(model, x0, t, noise, schedule):
        xt = noising(x0, t, noise, schedule)
        return reduce(target(x0, xt, noise) - model(xt, t))

    return loss


def per_image_sum(error: Tensor) -> Tensor:
    return error.square().flatten(1).sum(1)


def loss_with_noise_of_its_own(model, x0, t, noise, schedule):
    return diffusion.denoising_loss(model, x0, t, torch.randn_like(x0), schedule)


KEEP = "sum over all pixels of an image and keep one loss per image, shape [B]"

LOSS = Exercise(
    "01.3",
    diffusion.denoising_loss,
    observe_loss,
    (
        Mistake("your loss is averaged over pixels; (1.12) sums them", loss_of(lambda e: e.square().flatten(1).mean(1))),
        Mistake("you also averaged over the images; keep one loss per image, shape [B]", loss_of(lambda e: e.square().flatten(1).sum(1).mean())),
        Mistake("you averaged over images and pixels; sum over pixels, and keep one loss per image, shape [B]", loss_of(lambda e: e.square().mean())),
        Mistake("you summed over the images too; keep one loss per image, shape [B]", loss_of(lambda e: e.square().sum())),
        Mistake("you summed over the images and kept the pixels; (1.12) does the reverse", loss_of(lambda e: e.square().sum(0))),
        Mistake("you summed over the images and kept the pixels; (1.12) does the reverse", loss_of(lambda e: e.square().flatten(1).sum(0))),
        Mistake(f"one axis of size 1 is left; {KEEP}", loss_of(lambda e: e.square().flatten(1).sum(1, keepdim=True))),
        Mistake("you took one norm of all images together, and no square; (1.12) has a squared norm per image", loss_of(lambda e: e.norm())),
        Mistake(f"you squared the error, but did not sum; {KEEP}", loss_of(lambda e: e.square())),
        Mistake(f"you summed over one axis only; {KEEP}", loss_of(lambda e: e.square().sum(1))),
        Mistake(f"you summed over one axis only; {KEEP}", loss_of(lambda e: e.square().sum(-1))),
        Mistake("(1.12) has the squared norm; you took the norm", loss_of(lambda e: e.flatten(1).norm(dim=1))),
        Mistake("you summed absolute errors; (1.12) squares them", loss_of(lambda e: e.abs().flatten(1).sum(1))),
        Mistake("you did not square the errors, so they cancel", loss_of(lambda e: e.flatten(1).sum(1))),
        Mistake("you summed the errors before squaring, so they cancel; square first", loss_of(lambda e: e.flatten(1).sum(1).square())),
        Mistake("you compared the prediction with the image x0; the network predicts the noise", loss_of(per_image_sum, lambda x0, xt, noise: x0)),
        Mistake("you compared the prediction with x_t; the network predicts the noise", loss_of(per_image_sum, lambda x0, xt, noise: xt)),
        Mistake("the network saw the clean image; give it x_t", loss_of(per_image_sum, noising=lambda x0, t, noise, schedule: x0)),
        Mistake("the network saw the bare noise; give it x_t", loss_of(per_image_sum, noising=lambda x0, t, noise, schedule: noise)),
        Mistake("the network saw x0 + noise; x_t has the factors of (1.2)", loss_of(per_image_sum, noising=lambda x0, t, noise, schedule: x0 + noise)),
        Mistake("you added noise and prediction; the error is their difference", loss_of(per_image_sum, lambda x0, xt, noise: -noise)),
        Mistake("you drew noise of your own; use the noise that is given, also to make x_t", loss_with_noise_of_its_own),
        Mistake(
            "the noise in x_t is not the noise that you compare with; use the one that is given for both",
            loss_of(per_image_sum, noising=lambda x0, t, noise, schedule: add_noise(x0, t, torch.randn_like(x0), schedule)),
        ),
        Mistake(
            "the noise that you compare with is not the noise in x_t; use the one that is given for both",
            lambda model, x0, t, noise, schedule: per_image_sum(torch.randn_like(x0) - model(add_noise(x0, t, noise, schedule), t)),
        ),
        Mistake(
            "right for images, but this notebook also has points, [n, 2]: `.flatten(1)` leaves one row per image or point",
            loss_of(lambda e: e.square().sum((1, 2, 3))),
        ),
        Mistake("right, but you changed x0 or the noise itself; write into a new tensor", in_place(diffusion.denoising_loss, 3)),
        Mistake(
            "the numbers are right, but no gradient reaches the network, so it cannot learn; leave out what cuts the graph (detach, no_grad, item, a new tensor)",
            loss_of(lambda e: per_image_sum(e.detach())),
        ),
    ),
)


# --------------------------------------------------------------------------- 01.4 the estimate of x_0


def observe_estimate(f) -> Observed:
    i = inputs()
    xt = add_noise(i.x0, i.t, i.noise, i.schedule)
    guess = 0.9 * i.eps_hat
    clipped = {
        "with the true noise, cut to [-1, 1]": call(f, xt, i.noise, i.t, i.schedule).clamp(-1, 1),
        "with a bad prediction, cut to [-1, 1]": call(f, xt, guess, i.t, i.schedule).clamp(-1, 1),
    }
    right = same(clipped["with a bad prediction, cut to [-1, 1]"], call(diffusion.estimate_x0, xt, guess, i.t, i.schedule))
    largest = call(f, xt, guess, i.t, i.schedule).abs().max() if right else 1.0
    return {
        **clipped,
        "the largest pixel, whatever its sign": largest,
        "are x_t and the noise left as they were?": tidy(f, diffusion.estimate_x0, xt, guess, i.t, i.schedule),
    }


def read(formula):
    """An answer from a formula of two tensors, sqrt(alpha_bar) and sqrt(1 - alpha_bar)."""
    return lambda x, y, t, schedule: formula(x, y, *schedule.levels(t, x))


def estimate(formula, low: float = -1.0, high: float = 1.0):
    """A clipped estimate of x_0 from a formula of x_t, eps_hat, sqrt(alpha_bar) and sqrt(1 - alpha_bar)."""
    return lambda xt, eps_hat, t, schedule: formula(xt, eps_hat, *schedule.levels(t, xt)).clamp(low, high)


def mean_of_a_step(xt, eps_hat, t, schedule):
    b, (_, s) = per_image(schedule.beta[t], xt), schedule.levels(t, xt)
    return ((xt - b / s * eps_hat) / (1 - b).sqrt()).clamp(-1, 1)


def with_beta_of_a_step(xt, eps_hat, t, schedule):
    b = per_image(schedule.beta[t], xt)
    return ((xt - b.sqrt() * eps_hat) / (1 - b).sqrt()).clamp(-1, 1)


def solved(xt, e, a, s):
    return (xt - s * e) / a


def solved_and_clipped(xt, e, a, s):
    return solved(xt, e, a, s).clamp(-1, 1)


CLIP_LAST = "you clipped too early: clip last, after the division, as only x_0 itself must lie in [-1, 1]"

ESTIMATE = Exercise(
    "01.4",
    diffusion.estimate_x0,
    observe_estimate,
    (
        Mistake("you did not clip; pixels lie in [-1, 1], so clamp the estimate", read(solved)),
        Mistake(CLIP_LAST, read(lambda xt, e, a, s: (xt - s * e).clamp(-1, 1) / a)),
        Mistake(CLIP_LAST, read(lambda xt, e, a, s: (xt.clamp(-1, 1) - s * e) / a)),
        Mistake(CLIP_LAST, read(lambda xt, e, a, s: (xt - s * e.clamp(-1, 1)) / a)),
        Mistake("you clipped to [0, 1]; pixels lie in [-1, 1]", estimate(solved, 0.0)),
        Mistake("you divided by alpha_bar; (1.2) multiplied by its square root", estimate(lambda xt, e, a, s: (xt - s * e) / a**2)),
        Mistake("you subtracted the noise, but did not undo the shrinking: divide by sqrt(alpha_bar)", estimate(lambda xt, e, a, s: xt - s * e)),
        Mistake("(1.2) multiplied the image by sqrt(alpha_bar); to undo that, divide", estimate(lambda xt, e, a, s: (xt - s * e) * a)),
        Mistake("you divided the noise alone; the whole of x_t minus the noise must be divided (brackets?)", estimate(lambda xt, e, a, s: xt - s * e / a)),
        Mistake("you divided x_t alone; the whole of x_t minus the noise must be divided (brackets?)", estimate(lambda xt, e, a, s: xt / a - s * e)),
        Mistake("(1.2) added the noise, so solving for x_0 subtracts it", estimate(lambda xt, e, a, s: (xt + s * e) / a)),
        Mistake("the noise was added with the factor sqrt(1 - alpha_bar); subtract that much", estimate(lambda xt, e, a, s: (xt - e) / a)),
        Mistake("you forgot to subtract the noise", estimate(lambda xt, e, a, s: xt / a)),
        Mistake("the factor of the noise is a square root: sqrt(1 - alpha_bar), not 1 - alpha_bar", estimate(lambda xt, e, a, s: (xt - s**2 * e) / a)),
        Mistake("your factors are alpha_bar and 1 - alpha_bar; (1.2) has their square roots", estimate(lambda xt, e, a, s: (xt - s**2 * e) / a**2)),
        Mistake("the two factors have changed places", estimate(lambda xt, e, a, s: (xt - a * e) / s)),
        Mistake("this is (1.9), the mean of a single step back; here all noise goes at once, so solve (1.2)", mean_of_a_step),
        Mistake("beta_t is the noise of one step; x_t holds the noise of all steps up to t, so solve (1.2)", with_beta_of_a_step),
        Mistake("you squashed the estimate; clamp leaves values inside [-1, 1] as they are", lambda xt, e, t, schedule: diffusion.estimate_x0(xt, e, t, schedule, False).tanh()),
        *off_by_one(diffusion.estimate_x0),
        *of_every_level(),
        *rooted_twice(lambda signal, sigma: estimate(lambda xt, e, a, s: solved(xt, e, signal(a**2), sigma(a**2)))),
        *misshaped(solved_and_clipped),
        Mistake("right, but you changed x_t or the noise itself; write into a new tensor", in_place(diffusion.estimate_x0, 0)),
    ),
)


# ------------------------------------------------------------------------------------ 01.5 a step back


def observe_step(f) -> Observed:
    i = inputs()
    return {
        "DDIM (sigma = 0)": call(f, i.x0, i.eps_hat, 0.6, 0.0, i.noise),
        "fresh noise (sigma = 0.3)": call(f, i.x0, i.eps_hat, 0.6, 0.3, i.noise),
        "the last step (alpha_bar = 1)": call(f, i.x0, i.eps_hat, 1.0, 0.0, i.noise),
        "are x0 and the noise left as they were?": tidy(f, diffusion.step_back, i.x0, i.eps_hat, 0.6, 0.3, i.noise),
    }


def step(image=lambda a, s: a**0.5, old=lambda a, s: (1 - a - s**2) ** 0.5, fresh=lambda s: s):
    """A step back made of the factors of x0, of the old noise and of the fresh."""
    return lambda x0, e, a, s, z: image(a, s) * x0 + old(a, s) * e + fresh(s) * z


STEP = Exercise(
    "01.5",
    diffusion.step_back,
    observe_step,
    (
        Mistake("with fresh noise the old noise must shrink: its factor is sqrt(1 - alpha_bar - sigma^2)", step(old=lambda a, s: (1 - a) ** 0.5)),
        Mistake("you left out the fresh noise, sigma z", step(fresh=lambda s: 0)),
        Mistake("you left out the old noise; without it x_s has too little noise for its level", step(old=lambda a, s: 0)),
        Mistake("you left out sigma, the factor of the fresh noise", step(fresh=lambda s: 1)),
        Mistake("sigma is a standard deviation: add sigma z, not sigma^2 z", step(fresh=lambda s: s**2)),
        Mistake("sigma is a standard deviation: add sigma z, not sqrt(sigma) z", step(fresh=lambda s: s**0.5)),
        Mistake("your formula subtracts the fresh noise; (1.14) adds it", step(fresh=lambda s: -s)),
        Mistake("variances subtract, not standard deviations: sqrt(1 - alpha_bar - sigma^2)", step(old=lambda a, s: (1 - a) ** 0.5 - s)),
        Mistake("variances subtract: it is sigma^2, not sigma, that goes off 1 - alpha_bar", step(old=lambda a, s: max(1 - a - s, 0) ** 0.5)),
        Mistake("sigma^2 goes off the variance of the old noise, it does not come on top", step(old=lambda a, s: (1 - a + s**2) ** 0.5)),
        Mistake("the old noise's factor lacks its square root", step(old=lambda a, s: 1 - a - s**2)),
        Mistake("variances subtract: take sigma^2 off 1 - alpha_bar, then the root of all", step(old=lambda a, s: (1 - a) ** 0.5 - s**2)),
        Mistake("under the root of the old noise stands alpha_bar itself", step(old=lambda a, s: (1 - a**0.5 - s**2) ** 0.5 if a < 1 else 0)),
        Mistake("under the root of the old noise stands alpha_bar itself", step(old=lambda a, s: (1 - a**2 - s**2) ** 0.5)),
        Mistake("the image's factor is sqrt(alpha_bar), not alpha_bar", step(image=lambda a, s: a)),
        Mistake("both factors lack their square roots, see (1.14)", step(image=lambda a, s: a, old=lambda a, s: 1 - a - s**2)),
        Mistake("you did not shrink the image; its factor is sqrt(alpha_bar)", step(image=lambda a, s: 1)),
        Mistake("sigma^2 goes off the old noise, not off the image", step(image=lambda a, s: (a - s**2) ** 0.5, old=lambda a, s: (1 - a) ** 0.5)),
        Mistake("image and old noise have each other's factors", step(image=lambda a, s: (1 - a - s**2) ** 0.5, old=lambda a, s: a**0.5)),
        Mistake("the old noise points the same way as before: add it", step(old=lambda a, s: -((1 - a - s**2) ** 0.5))),
        Mistake("sqrt(alpha_bar) multiplies the image alone (brackets?)", lambda x0, e, a, s, z: a**0.5 * diffusion.step_back(x0 / a**0.5, e, a, s, z)),
        Mistake("you clipped x_s; only clean images stay in [-1, 1]", lambda *args: diffusion.step_back(*args).clamp(-1, 1)),
        Mistake("you added the old noise twice; the last term has the fresh noise", lambda x0, e, a, s, z: diffusion.step_back(x0, e, a, s, e)),
        Mistake("old and fresh noise have changed places", lambda x0, e, a, s, z: diffusion.step_back(x0, z, a, s, e)),
        Mistake("you drew noise of your own; use `fresh`, so that a walk can be repeated", lambda x0, e, a, s, z: diffusion.step_back(x0, e, a, s, torch.randn_like(x0))),
        Mistake("right, but you changed x0 or the noise itself; write into a new tensor", in_place(diffusion.step_back, 0)),
    ),
)


# --------------------------------------------------------------------------- 01.6 reading v as noise


def observe_v(f) -> Observed:
    i = inputs()
    xt = add_noise(i.x0, i.t, i.noise, i.schedule)
    signal, sigma = i.schedule.levels(i.t, xt)
    return {
        "the true v": call(f, signal * i.noise - sigma * i.x0, xt, i.t, i.schedule),
        "a wrong v": call(f, i.eps_hat, xt, i.t, i.schedule),
        "are v and x_t left as they were?": tidy(f, diffusion.noise_of_v, i.eps_hat, xt, i.t, i.schedule),
    }


def combined(v, x, a, s):
    return a * v + s * x


def by_way_of_a_clipped_x0(v, x, a, s):
    return (x - a * (a * x - s * v).clamp(-1, 1)) / s


READ_V = Exercise(
    "01.6",
    diffusion.noise_of_v,
    observe_v,
    (
        Mistake("the sign of x_t is wrong: test yours with x_0 = 0, where x_t is sqrt(1 - alpha_bar) times the noise", read(lambda v, x, a, s: a * v - s * x)),
        Mistake("the sign of v is wrong: near t = 0 v itself is almost the noise", read(lambda v, x, a, s: s * x - a * v)),
        Mistake("you solved v's definition with x_t in the place of x_0; eliminate x_0 by (1.2) first", read(lambda v, x, a, s: (v + s * x) / a)),
        Mistake("you dropped the x_0 of v's definition; eliminate it by (1.2) instead", read(lambda v, x, a, s: v / a)),
        Mistake("you gave v back as it is; it still holds a part of -x_0", read(lambda v, x, a, s: v)),
        Mistake("you added v and x_t without factors; x_0 cancels only with the right ones", read(lambda v, x, a, s: v + x)),
        Mistake("the two factors have changed places", read(lambda v, x, a, s: s * v + a * x)),
        Mistake("this is the estimate of x_0; eliminate x_0 instead of the noise", read(lambda v, x, a, s: a * x - s * v)),
        Mistake("the factors are square roots, sqrt(alpha_bar) and sqrt(1 - alpha_bar)", read(lambda v, x, a, s: a**2 * v + s**2 * x)),
        Mistake("you put v in the place of x_0 in (1.2); v holds noise as well", read(lambda v, x, a, s: (x - a * v) / s)),
        Mistake("you clipped x_0 on the way; v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x_0 holds for the unclipped one", read(by_way_of_a_clipped_x0)),
        Mistake("you clipped the noise; only images lie in [-1, 1]", read(lambda v, x, a, s: combined(v, x, a, s).clamp(-1, 1))),
        *off_by_one(diffusion.noise_of_v),
        *of_every_level(),
        *rooted_twice(lambda signal, sigma: read(lambda v, x, a, s: combined(v, x, signal(a**2), sigma(a**2)))),
        *misshaped(combined),
        Mistake("right, but you changed v or x_t itself; write into a new tensor", in_place(diffusion.noise_of_v, 0)),
    ),
)

EXERCISES = (ALPHA_BAR, ADD_NOISE, LOSS, ESTIMATE, STEP, READ_V)
