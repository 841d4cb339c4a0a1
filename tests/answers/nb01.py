"""Answers to the exercises of notebook 01 as learners write them: right ones, and wrong ones with a part of the diagnosis."""

import numpy as np
import torch


def product_by_hand(beta):
    out, left = [], 1.0
    for b in beta:
        left = left * (1 - b)
        out.append(left)
    return torch.stack(out)


def noised_one_by_one(x0, t, noise, schedule):
    rows = [schedule.alpha_bar[k] ** 0.5 * x + (1 - schedule.alpha_bar[k]) ** 0.5 * z for x, k, z in zip(x0, t, noise, strict=True)]
    return torch.stack(rows)


def noised_by_reshape(x0, t, noise, schedule):
    a = schedule.alpha_bar.gather(0, t).reshape([len(t)] + [1] * (x0.dim() - 1))
    return torch.sqrt(a) * x0 + torch.sqrt(1 - a) * noise


def noised(x0, t, noise, schedule):
    signal, sigma = schedule.levels(t, x0)
    return signal * x0 + sigma * noise


def estimated(xt, eps_hat, t, schedule):
    signal, sigma = schedule.levels(t, xt)
    return (xt - sigma * eps_hat) / signal


def noised_in_place(x0, t, noise, schedule):
    signal, sigma = schedule.levels(t, x0)
    x0 *= signal
    x0 += sigma * noise
    return x0


def loss_without_graph(model, x0, t, noise, schedule):
    with torch.no_grad():
        eps_hat = model(noised(x0, t, noise, schedule), t)
    return ((noise - eps_hat) ** 2).flatten(1).sum(1)


def loss_of_other_noise(model, x0, t, noise, schedule):
    mine = torch.randn_like(x0)
    return ((mine - model(noised(x0, t, mine, schedule), t)) ** 2).flatten(1).sum(1)


def mean_of_the_backward_step(xt, eps_hat, t, schedule):
    beta, alpha_bar = schedule.beta[t].view(-1, 1, 1, 1), schedule.alpha_bar[t].view(-1, 1, 1, 1)
    return (xt - beta / torch.sqrt(1 - alpha_bar) * eps_hat) / torch.sqrt(1 - beta)


def stepped_in_place(x0, eps_hat, alpha_bar, sigma, fresh):
    x0 *= alpha_bar**0.5
    x0 += (1 - alpha_bar - sigma**2) ** 0.5 * eps_hat + sigma * fresh
    return x0


RIGHT = {
    "01.1": [product_by_hand, lambda beta: torch.exp(torch.log1p(-beta).cumsum(0))],
    "01.2": [noised_one_by_one, noised_by_reshape],
    "01.3": [
        lambda model, x0, t, noise, s: ((model(noised(x0, t, noise, s), t) - noise) ** 2).sum(dim=tuple(range(1, x0.ndim))),
        lambda model, x0, t, noise, s: torch.stack([d.norm() ** 2 for d in noise - model(noised(x0, t, noise, s), t)]),
    ],
    "01.4": [
        lambda xt, e, t, s: torch.clip((xt - s.levels(t, xt)[1] * e) / s.levels(t, xt)[0], -1, 1),
        lambda xt, e, t, s: (xt / s.levels(t, xt)[0] - ((1 / s.alpha_bar[t] - 1) ** 0.5).view(-1, 1, 1, 1) * e).clamp(-1, 1),
    ],
    "01.5": [
        lambda x0, e, a, sigma=0.0, z=0.0: torch.tensor(a).sqrt() * x0 + torch.tensor(1 - a - sigma * sigma).sqrt() * e + sigma * z,
        lambda x0, e, a, sigma=0.0, z=0.0: sum([a**0.5 * x0, (1 - a - sigma**2) ** 0.5 * e, sigma * z]),
    ],
    "01.6": [
        lambda v, xt, t, s: s.levels(t, xt)[0] * v + s.levels(t, xt)[1] * xt,
        lambda v, xt, t, s: (xt - s.levels(t, xt)[0] * (s.levels(t, xt)[0] * xt - s.levels(t, xt)[1] * v)) / s.levels(t, xt)[1],  # by way of x_0
    ],
}

WRONG = {
    "01.1": [
        (lambda beta: torch.cumprod(beta, dim=0), "product of alpha_t = 1 - beta_t"),
        (lambda beta: 1 - torch.cumsum(beta, 0), "its share of what is left"),
        (lambda beta: 1 - torch.cumprod(1 - beta, 0), "share of the noise"),
        (lambda beta: torch.tensor([torch.prod(1 - beta[:i]) for i in range(len(beta))]), "one step off"),
        (lambda beta: [torch.prod(1 - beta[: i + 1]) for i in range(len(beta))], "gives back a list"),
        (lambda beta: beta.mul_(-1).add_(1).cumprod(0), "changed beta itself"),
        (lambda beta: [(1 - b).item() for b in beta], "`torch.tensor` of a list of numbers"),
        (lambda beta: torch.cumprod(1 - beta, 0).flip(0), "in reverse order"),
        (lambda beta: (1 - beta).cumprod, "brackets are missing"),
        (lambda beta: np.cumprod(1 - beta.numpy()), "a numpy ndarray"),
        (lambda beta: torch.prod(1 - beta), "one value for every t"),
        (lambda beta: torch.cumprod(1 - beta, 0) ** 0.5, "square root comes later"),
        (lambda beta: torch.cumprod(1 - torch.cat([torch.zeros(1), beta[:-1]]), 0), "one step off"),
    ],
    "01.2": [
        (lambda x0, t, z, s: s.alpha_bar[t].view(-1, *[1] * (x0.ndim - 1)) * x0 + (1 - s.alpha_bar[t]).view(-1, *[1] * (x0.ndim - 1)) * z, "square roots"),
        (lambda x0, t, z, s: s.alpha_bar.sqrt() * x0 + (1 - s.alpha_bar).sqrt() * z, "alpha_bar of all levels"),
        (lambda x0, t, z, s: x0 * s.alpha_bar.view(-1, 1, 1, 1) ** 0.5, "alpha_bar of all levels"),
        (lambda x0, t, z, s: s.levels(x0, t)[0] * x0, "arguments have changed places"),
        (lambda x0, t, z, s: noised(z, t, x0, s), "each other's factors"),
        (lambda x0, t, z, s: noised(x0, (t - 1).clamp(0), z, s), "one level off"),
        (lambda x0, t, z, s: noised(x0, t, -z, s), "added, not subtracted"),
        (lambda x0, t, z, s: torch.sqrt(s.alpha_bar[t]) * x0 + torch.sqrt(1 - s.alpha_bar[t]) * z, "along the columns"),
        (lambda x0, t, z, s: s.alpha_bar[t].sqrt().view(-1, 1, 1, 1) * x0 + (1 - s.alpha_bar[t]).sqrt().view(-1, 1, 1, 1) * z, "also noises points"),
        (lambda x0, t, z, s: None, "`return`"),
        (lambda x0, t, z, s: noised(x0, t, torch.randn_like(x0), s), "noise of your own"),
        (lambda x0, t, z, s: x0 + s.levels(t, x0)[1] * z, "without shrinking the image"),
        (lambda x0, t, z, s: s.levels(t, x0)[0].sqrt() * x0 + s.levels(t, x0)[1].sqrt() * z, "the square roots already"),
        (lambda x0, t, z, s: noised(x0, t - 1, z, s), "one level off"),
        (lambda x0, t, z, s: s.alpha_bar[t].sqrt().view(-1, 1, 1) * x0 + (1 - s.alpha_bar[t]).sqrt().view(-1, 1, 1) * z, "along the channels"),
        (lambda x0, t, z, s: s.alpha_bar[t[0]].sqrt() * x0 + (1 - s.alpha_bar[t[0]]).sqrt() * z, "each has its own t"),
        (noised_in_place, "changed x0 itself"),
    ],
    "01.3": [
        (lambda m, x0, t, z, s: torch.nn.functional.mse_loss(m(noised(x0, t, z, s), t), z), "images and pixels"),
        (lambda m, x0, t, z, s: (m(noised(x0, t, z, s), t) - z).pow(2).mean((1, 2, 3)), "averaged over pixels; (1.12) sums"),
        (lambda m, x0, t, z, s: (m(noised(x0, t, z, s), t) - z).pow(2).sum((1, 2, 3)).sqrt(), "squared norm"),
        (lambda m, x0, t, z, s: (m(noised(x0, t, z, s), t) - x0).pow(2).sum((1, 2, 3)), "network predicts the noise"),
        (lambda m, x0, t, z, s: (m(x0, t) - z).pow(2).sum((1, 2, 3)), "clean image"),
        (lambda m, x0, t, z, s: (m(noised(x0, t, z, s), t) - z).pow(2).sum((1, 2, 3)), "also has points"),
        (lambda m, x0, t, z, s: (m(noised(x0, t, z, s), t).detach() - z).pow(2).flatten(1).sum(1), "no gradient reaches the network"),
        (lambda m, x0, t, z, s: ((m(noised(x0, t, z, s), t) - z) ^ 2).flatten(1).sum(1), "A power is written `**`"),
        (loss_without_graph, "no gradient reaches the network"),
        (loss_of_other_noise, "noise of your own"),
        (lambda m, x0, t, z, s: (m(noised(x0, t, z, s), t) - z).pow(2).sum(dim=1), "one axis only"),
        (lambda m, x0, t, z, s: (m(noised(x0, t, z, s), t) - z).flatten(1).sum(1) ** 2, "square first"),
        (lambda m, x0, t, z, s: (m(t, noised(x0, t, z, s)) - z).pow(2).flatten(1).sum(1), "called as model(xt, t)"),
    ],
    "01.4": [
        (lambda xt, e, t, s: (xt - s.levels(t, xt)[1] * e) / s.levels(t, xt)[0], "did not clip"),
        (lambda xt, e, t, s: (xt - s.levels(t, xt)[1] * e).clamp(-1, 1) / s.levels(t, xt)[0], "clip last, after the division"),
        (lambda xt, e, t, s: estimated(xt.clamp(-1, 1), e, t, s), "clip last"),
        (lambda xt, e, t, s: (xt - (1 - s.alpha_bar).sqrt() * e) / s.alpha_bar.sqrt(), "alpha_bar of all levels"),
        (lambda xt, e, t, s: max(-1, min(1, estimated(xt, e, t, s))), "`.clamp` and `torch.where` work on each"),
        (lambda xt, e, t, s: ((xt - s.levels(t, xt)[1] * e) / s.levels(t, xt)[0] ** 2).clamp(-1, 1), "divided by alpha_bar"),
        (lambda xt, e, t, s: (xt - s.levels(t, xt)[1] * e).clamp(-1, 1), "undo the shrinking"),
        (lambda xt, e, t, s: ((xt - e) / s.levels(t, xt)[0]).clip(-1, 1), "subtract that much"),
        (lambda xt, e, t, s: xt - s.levels(t, xt)[1] * e / s.levels(t, xt)[0], "brackets?"),
        (lambda xt, e, t, s: ((xt - (1 - s.alpha_bar[t]).sqrt() * e) / s.alpha_bar[t].sqrt()).clamp(-1, 1), "along the columns"),
        (lambda xt, e, t, s: estimated(xt, e, t, s).clamp(0, 1), "[0, 1]; pixels lie in [-1, 1]"),
        (lambda xt, e, t, s: estimated(xt, -e, t, s).clamp(-1, 1), "solving for x_0 subtracts it"),
        (lambda xt, e, t, s: estimated(xt, e, t - 1, s).clamp(-1, 1), "one level off"),
        (lambda xt, e, t, s: estimated(xt, e, t, s).tanh(), "squashed"),
        (mean_of_the_backward_step, "mean of a single step back"),
    ],
    "01.5": [
        (lambda x0, e, a, sigma=0.0, z=0.0: a**0.5 * x0 + (1 - a) ** 0.5 * e + sigma * z, "old noise must shrink"),
        (lambda x0, e, a, sigma=0.0, z=0.0: a**0.5 * x0 + (1 - a - sigma**2) ** 0.5 * e, "left out the fresh noise"),
        (lambda x0, e, a, sigma=0.0, z=0.0: a * x0 + (1 - a - sigma**2) ** 0.5 * e + sigma * z, "sqrt(alpha_bar), not alpha_bar"),
        (lambda x0, e, a, sigma, z: a**0.5 * x0 + (1 - a - sigma) ** 0.5 * e + sigma * z, "sigma^2, not sigma"),
        (lambda x0, e, a, sigma, z: a**0.5 * x0 + ((1 - a) ** 0.5 - sigma) * e + sigma * z, "not standard deviations"),
        (lambda x0, e, a, sigma, z: a**0.5 * x0 + (1 - a - sigma**2) ** 0.5 * e + sigma * torch.randn_like(x0), "use `fresh`"),
        (lambda x0, e, a, sigma, z: a**0.5 * x0 + (1 - a - sigma**2) ** 0.5 * z + sigma * e, "have changed places"),
        (lambda x0, e, a, sigma, z: a**0.5 * (x0 + (1 - a - sigma**2) ** 0.5 * e + sigma * z), "the image alone"),
        (lambda x0, e, a, sigma, z: torch.sqrt(a) * x0 + torch.sqrt(1 - a - sigma**2) * e + sigma * z, "`** 0.5` is its root"),
        (lambda x0, e, a, sigma, z: a.sqrt() * x0 + (1 - a - sigma**2).sqrt() * e + sigma * z, "plain number, not a tensor: `** 0.5` is its root"),
        (lambda x0, e, a, sigma, z: maths.sqrt(a) * x0, "name 'maths' is not defined"),  # noqa: F821
        (lambda x0, e, a, sigma, z: math.sqrt(a) * x0, "Add `import math` to the cell"),  # noqa: F821
        (stepped_in_place, "changed x0"),
    ],
    "01.6": [
        (lambda v, xt, t, s: s.levels(t, xt)[0] * v - s.levels(t, xt)[1] * xt, "sign of x_t"),
        (lambda v, xt, t, s: (v + s.levels(t, xt)[1] * xt) / s.levels(t, xt)[0], "in the place of x_0"),
        (lambda v, xt, t, s: s.levels(t, xt)[1] * v + s.levels(t, xt)[0] * xt, "changed places"),
        (lambda v, xt, t, s: s.levels(t, xt)[0] * xt - s.levels(t, xt)[1] * v, "estimate of x_0"),
        (lambda v, xt, t, s: (xt - s.levels(t, xt)[0] * v) / s.levels(t, xt)[1], "v in the place of x_0"),
        (lambda v, xt, t, s: v / s.levels(t, xt)[0], "dropped the x_0"),
        (lambda v, xt, t, s: s.alpha_bar[t].view(-1, 1, 1, 1) * v + (1 - s.alpha_bar[t]).view(-1, 1, 1, 1) * xt, "square roots"),
        (lambda v, xt, t, s: s.alpha_bar[t].sqrt() * v + (1 - s.alpha_bar[t]).sqrt() * xt, "along the columns"),
        (lambda v, xt, t, s: s.alpha_bar.sqrt() * v + (1 - s.alpha_bar).sqrt() * xt, "alpha_bar of all levels"),
        (lambda v, xt, t, s: v * v, 'in the test "the true v" your result holds'),
        (lambda v, xt, t, s: -(s.levels(t, xt)[0] * v + s.levels(t, xt)[1] * xt), "wrong sign"),
        (lambda v, xt, t, s: (s.levels(t, xt)[0] * v + s.levels(t, xt)[1] * xt).clamp(-1, 1), "clipped the noise"),
    ],
}
