"""Answers to the exercises of notebook 03 as learners write them: right ones, and wrong ones with a part of the diagnosis."""

import math

import torch

from pulib import risk

# ------------------------------------------------------------------------------------------- 03.1


def levels_one_by_one(n, T, generator):
    out = []
    for i in range(n):
        low, high = T * i / n, T * (i + 1) / n
        out.append(min(int(low + (high - low) * torch.rand((), generator=generator).item()), T - 1))
    return torch.tensor(out)[torch.randperm(n, generator=generator)]


def levels_from_shuffled_strata(n, T, generator):
    order = torch.randperm(n, generator=generator)
    return torch.floor((order + torch.rand(n, generator=generator)) * (T / n)).to(torch.int64)


def levels_by_linspace(n, T, generator):
    edges = torch.linspace(0, T, n + 1)
    t = torch.lerp(edges[:-1], edges[1:], torch.rand(n, generator=generator)).int()
    return t[torch.rand(n, generator=generator).argsort()]


def levels_from_centres(n, T, generator):
    t = ((torch.arange(n) + 0.5) * T / n).long()
    return t[torch.randperm(n, generator=generator)]


def levels_with_whole_steps(n, T, generator):
    step = T // n
    t = torch.arange(n) * step + torch.randint(step, (n,), generator=generator)
    return t[torch.randperm(n, generator=generator)]


def levels_of_a_linspace_too_short(n, T, generator):
    t = torch.linspace(0, T - T / n, n) + torch.rand(1, generator=generator) * T / n
    return t.long()[torch.randperm(n, generator=generator)]


def levels_in_order(n, T, generator):
    return ((torch.arange(n) + torch.rand(n, generator=generator)) / n * T).long()


def levels_counted_from_one(n, T, generator):
    return 1 + levels_from_shuffled_strata(n, T, generator)


def levels_rounded(n, T, generator):
    u = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    return torch.round(u * T).long()


def levels_without_the_generator(n, T, generator):
    return ((torch.randperm(n) + torch.rand(n)) / n * T).long()


def levels_not_rounded(n, T, generator):
    return (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n * T


# ------------------------------------------------------------------------------------------- 03.2


def error_in_plain_python(loss_u, loss_s, prior):
    def variance_of_mean(values):
        mean = sum(values) / len(values)
        return sum((v - mean) ** 2 for v in values) / len(values) ** 2

    return math.sqrt(variance_of_mean(loss_u.tolist()) + prior * prior * variance_of_mean(loss_s.tolist()))


def error_from_standard_errors(loss_u, loss_s, prior):
    of_u, of_s = loss_u.std() / len(loss_u) ** 0.5, loss_s.std() / len(loss_s) ** 0.5
    return torch.hypot(of_u, prior * of_s)


# ------------------------------------------------------------------------------------------- 03.6


def slope_by_autograd(loss, temperature):
    loss = loss.clone().requires_grad_(True)
    return torch.autograd.grad(risk.sensitive_loss(loss, temperature).sum(), loss)[0]


def slope_in_a_tuple(loss, temperature):
    loss = loss.clone().requires_grad_(True)
    return torch.autograd.grad(risk.sensitive_loss(loss, temperature).sum(), loss)


RIGHT = {
    "03.1": [levels_one_by_one, levels_from_shuffled_strata, levels_by_linspace],
    "03.2": [error_in_plain_python, error_from_standard_errors],
    "03.3": [
        lambda log_s, log_u, b: torch.exp(math.log(b) + log_s - log_u),
        lambda log_s, log_u, b: b / torch.exp(log_u - log_s),
        lambda log_s, log_u, b: b * (log_s.double().exp() / log_u.double().exp()).float(),
    ],
    "03.4": [
        lambda u, s, r: u + (r / (1 - r)).unsqueeze(1) * (u - s),
        lambda u, s, r: torch.stack([(u[i] - r[i] * s[i]) / (1 - r[i]) for i in range(len(r))]),
        lambda u, s, r: ((u.T - r * s.T) / (1 - r)).T,
    ],
    "03.5": [lambda prior, b: (1 - prior) / ((1 - prior) + (prior - b)), lambda prior, b: 1 - (prior - b) / (1 - b)],
    "03.6": [
        slope_by_autograd,
        lambda l, tau: -torch.exp(-l / tau) / (1 - torch.exp(-l / tau)) / tau,
        lambda l, tau: 1 / (tau * (1 - torch.exp(l / tau))),
    ],
}

WRONG = {
    "03.1": [
        (lambda n, T, generator: torch.randint(0, T, (n,), generator=generator), "independent draws"),
        (lambda n, T, generator: (torch.rand(n, generator=generator) * T).long(), "independent draws"),
        (levels_from_centres, "the same place in each stratum at each call"),
        (levels_of_a_linspace_too_short, "one place for all strata"),
        (levels_in_order, "same order"),
        (levels_with_whole_steps, "highest levels are never drawn"),
        (levels_counted_from_one, "one level off"),
        (levels_rounded, "round down"),
        (levels_without_the_generator, "`generator`"),
        (levels_not_rounded, "no whole numbers"),
        (lambda n, T, generator: levels_in_order(n, T, generator).tolist(), "`torch.tensor` of a list of numbers"),
        (lambda n, T, generator: levels_from_shuffled_strata(n - 1, T, generator), "shape [1] for n = 2, and [2] was expected"),
        (lambda n, T, generator: levels_not_rounded(n, T, generator).floor(), "round down with .long()"),
        (lambda n, T, generator: torch.rand(n, generator=generator) * T, "round down with .long()"),
        (lambda n, T, generator: T - 1 - levels_in_order(n, T, generator), "same order"),
        (lambda n, T, generator: levels_from_shuffled_strata(n, T - 1, generator) + 1, 'in the test "the lowest of 3 levels" your result is 1 where 0'),
    ],
    "03.2": [
        (lambda u, s, b: u.var() / len(u) + b**2 * s.var() / len(s), "this is the variance"),
        (lambda u, s, b: torch.sqrt(torch.var(u) / u.numel() - b**2 * torch.var(s) / s.numel()), "their variances add"),
        (lambda u, s, b: torch.sqrt(u.var() / len(u) + b * s.var() / len(s)), "squared"),
        (lambda u, s, b: u.std() / math.sqrt(len(u)) + b * s.std() / math.sqrt(len(s)), "do not add"),
        (lambda u, s, b: (u.std() ** 2 + (b * s.std()) ** 2) ** 0.5, "spread of single losses"),
        (lambda u, s, b: (u - b * s).std(), "they differ in number"),
        (lambda u, s, b: (b * s - u).var().sqrt() / len(u) ** 0.5, "they differ in number"),
        (lambda u, s, b: (u[: len(s)] - b * s).std() / len(s) ** 0.5, "they differ in number"),
        (lambda u, s, b: torch.hypot(u.std() / len(u), b * s.std() / len(s)), "with the root of n"),
        (lambda u, s, b: torch.cat([u, -b * s]).std() / (len(u) + len(s)) ** 0.5, ""),
    ],
    "03.3": [
        (lambda log_s, log_u, b: log_s.exp() / log_u.exp() * b, "0/0 is nan"),
        (lambda log_s, log_u, b: b * log_s.exp() / (log_u.exp() + 1e-12), "a patch against 0/0"),
        (lambda log_s, log_u, b: b * log_s.exp() / log_u.exp().clamp(min=1e-8), "a patch against 0/0"),
        (lambda log_s, log_u, b: b * (log_s.exp() + 1e-10) / (log_u.exp() + 1e-10), "a patch against 0/0"),
        (lambda log_s, log_u, b: torch.nan_to_num(b * log_s.exp() / log_u.exp()), "a patch against 0/0"),
        (lambda log_s, log_u, b: b * math.exp(log_s - log_u), "for many use `torch`"),
        (lambda log_s, log_u, b: torch.sigmoid(log_s - log_u) * b, "divided by p_S + p_U"),
        (lambda log_s, log_u, b: torch.exp(log_s - log_u), "the prior is missing"),
        (lambda log_s, log_u, b: b * log_s / log_u, "as if they were the densities"),
        (lambda log_s, log_u, b: torch.exp(log_s) * b / (torch.exp(log_s) * b + torch.exp(log_u) * (1 - b)), "takes p_U for p_N"),
        (lambda log_s, log_u, b: torch.exp(log_u - log_s) * b, "divided p_U by p_S"),
        (lambda log_s, log_u, b: torch.clip(b * torch.exp(log_s - log_u), 0, 1), "do not cut r here"),
        (lambda log_s, log_u, b: (b * torch.exp(log_s - log_u)).clamp(max=0.999), "do not cut r here"),
    ],
    "03.4": [
        (lambda u, s, r: (u - r * s) / (1 - r), "along the coordinates"),
        (lambda u, s, r: u - r[:, None] * s, "did not divide"),
        (lambda u, s, r: (u - r.view(-1, 1) * s) * (1 - r.view(-1, 1)), "(3.10) divides"),
        (lambda u, s, r: (u + r.unsqueeze(-1) * s) / (1 - r.unsqueeze(-1)), "subtract r eps_S"),
        (lambda u, s, r: u - r[:, None] * s / (1 - r[:, None]), "whole difference"),
    ],
    "03.5": [
        (lambda prior, b: 1 - (prior - b), "scale what is left"),
        (lambda prior, b: 1 - prior, "no effect"),
        (lambda prior, b: (prior - b) / (1 - b), "share of sensitive"),
        (lambda prior, b: (1 - b) / (1 - prior), "swapped"),
        (lambda prior, b: (1 - b) * (1 - prior), "multiplied by it"),
        (lambda prior, b: 100 * (1 - prior) / (1 - b), "a share between 0 and 1 is wanted, not a percentage"),
        (lambda prior, b: round(100 * (1 - prior) / (1 - b), 3), "not a percentage"),
        (lambda prior, b: f"{100 * (1 - prior) / (1 - b):.1f} %", "gives back a str"),
    ],
    "03.6": [
        (lambda l, tau: 1 / (tau * (torch.exp(l / tau) - 1)), "its slope is negative"),
        (lambda l, tau: -1 / (torch.exp(l / tau) - 1), "1/tau is missing"),
        (lambda l, tau: -1 / (tau * (torch.exp(l) - 1)), "stands in the exponent"),
        (lambda l, tau: -1 / (torch.exp(l) - 1), "slope for tau = 1"),
        (lambda l, tau: -1 / (tau * torch.exp(l / tau)), "- 1 is missing"),
        (lambda l, tau: -1 / (tau * (1 - torch.exp(-l / tau))), "inner derivative"),
        (lambda l, tau: torch.autograd.grad(risk.sensitive_loss(l, tau).sum(), l)[0], "`x = x.clone().requires_grad_()`"),
        (slope_in_a_tuple, "take its only entry"),
        (lambda l, tau: risk.sensitive_loss(l, tau), "log term itself"),
    ],
}
