"""Answers to the exercises of notebook 01 as learners write them: right ones, and wrong ones with a part of the diagnosis."""

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


RIGHT = {
    "01.1": [product_by_hand, lambda beta: torch.exp(torch.log1p(-beta).cumsum(0))],
    "01.2": [noised_one_by_one, noised_by_reshape],
    "01.3": [
        lambda model, x0, t, noise, s: ((model(noised(x0, t, noise, s), t) - noise) ** 2).sum(dim=(1, 2, 3)),
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
        (lambda beta: 1 - torch.cumsum(beta, 0), ""),
        (lambda beta: torch.prod(1 - beta), "one value for every t"),
        (lambda beta: torch.cumprod(1 - beta, 0) ** 0.5, "square root comes later"),
        (lambda beta: torch.cumprod(1 - torch.cat([torch.zeros(1), beta[:-1]]), 0), "one step off"),
    ],
    "01.2": [
        (lambda x0, t, z, s: s.alpha_bar[t].view(-1, *[1] * (x0.ndim - 1)) * x0 + (1 - s.alpha_bar[t]).view(-1, *[1] * (x0.ndim - 1)) * z, "square roots"),
        (lambda x0, t, z, s: noised(z, t, x0, s), "each other's factors"),
        (lambda x0, t, z, s: noised(x0, (t - 1).clamp(0), z, s), "one level off"),
        (lambda x0, t, z, s: noised(x0, t, -z, s), "added, not subtracted"),
        (lambda x0, t, z, s: torch.sqrt(s.alpha_bar[t]) * x0 + torch.sqrt(1 - s.alpha_bar[t]) * z, "along the columns"),
        (lambda x0, t, z, s: s.alpha_bar[t].sqrt().view(-1, 1, 1, 1) * x0 + (1 - s.alpha_bar[t]).sqrt().view(-1, 1, 1, 1) * z, "also noises points"),
        (lambda x0, t, z, s: None, "`return`"),
    ],
    "01.3": [
        (lambda m, x0, t, z, s: torch.nn.functional.mse_loss(m(noised(x0, t, z, s), t), z), "images and pixels"),
        (lambda m, x0, t, z, s: (m(noised(x0, t, z, s), t) - z).pow(2).mean((1, 2, 3)), "averaged over pixels; (1.12) sums"),
        (lambda m, x0, t, z, s: (m(noised(x0, t, z, s), t) - z).pow(2).sum((1, 2, 3)).sqrt(), "squared norm"),
        (lambda m, x0, t, z, s: (m(noised(x0, t, z, s), t) - x0).pow(2).sum((1, 2, 3)), "network predicts the noise"),
        (lambda m, x0, t, z, s: (m(x0, t) - z).pow(2).sum((1, 2, 3)), "clean image"),
    ],
    "01.4": [
        (lambda xt, e, t, s: (xt - s.levels(t, xt)[1] * e) / s.levels(t, xt)[0], "did not clip"),
        (lambda xt, e, t, s: ((xt - s.levels(t, xt)[1] * e) / s.levels(t, xt)[0] ** 2).clamp(-1, 1), "divided by alpha_bar"),
        (lambda xt, e, t, s: (xt - s.levels(t, xt)[1] * e).clamp(-1, 1), "undo the shrinking"),
        (lambda xt, e, t, s: ((xt - e) / s.levels(t, xt)[0]).clip(-1, 1), "subtract that much"),
    ],
    "01.5": [
        (lambda x0, e, a, sigma=0.0, z=0.0: a**0.5 * x0 + (1 - a) ** 0.5 * e + sigma * z, "old noise must shrink"),
        (lambda x0, e, a, sigma=0.0, z=0.0: a**0.5 * x0 + (1 - a - sigma**2) ** 0.5 * e, "left out the fresh noise"),
        (lambda x0, e, a, sigma=0.0, z=0.0: a * x0 + (1 - a - sigma**2) ** 0.5 * e + sigma * z, "sqrt(alpha_bar), not alpha_bar"),
    ],
    "01.6": [
        (lambda v, xt, t, s: s.levels(t, xt)[0] * v - s.levels(t, xt)[1] * xt, "sign of x_t"),
        (lambda v, xt, t, s: (v + s.levels(t, xt)[1] * xt) / s.levels(t, xt)[0], "in the place of x_0"),
        (lambda v, xt, t, s: s.levels(t, xt)[1] * v + s.levels(t, xt)[0] * xt, "changed places"),
    ],
}
