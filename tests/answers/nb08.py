"""Answers to the exercises of notebook 08 as learners write them: right ones, and wrong ones with a part of the diagnosis."""

import torch

from pulib.risk import pu_risk, sensitive_loss


def bytes_by_steps(trained, frozen, batch, activations, frozen_bytes=4):
    total = 0
    for _ in ("weight", "gradient", "first moment", "second moment", "average"):
        total += trained * 4
    total += frozen * frozen_bytes
    return total + batch * activations


def hours_by_parts(flops, steps, batch, n_samples, calls, tflops, used=0.2):
    training = steps * batch * (flops + 2 * flops)
    drawing = n_samples * calls * flops
    return (training + drawing) / (tflops * used * 10**12 * 60 * 60)


def risk_by_sums(parts_u, parts_s, prior):
    n_u, n_s = sum(len(p) for p in parts_u), sum(len(p) for p in parts_s)
    mean_u = sum(p.sum() for p in parts_u) / n_u
    mean_s = sum(p.sum() for p in parts_s) / n_s
    logs = sum(sensitive_loss(p).sum() for p in parts_s) / n_s
    return prior * logs + (mean_u - prior * mean_s).abs()


RIGHT = {
    "08.1": [bytes_by_steps, lambda n, m, b, a, f=4: n * 4 * 5 + m * f + a * b],
    "08.2": [hours_by_parts, lambda f, s, b, n, c, p, u=0.2: f * (3 * s * b + n * c) / (p * 1e12) / u / 3600],
    "08.3": [risk_by_sums, lambda u, s, b: pu_risk(torch.cat(u), torch.cat(s), b)],
}
WRONG = {
    "08.1": [
        (lambda n, m, b, a, f=4: 4 * (4 * n) + f * m + b * a, "one of them is missing"),
        (lambda n, m, b, a, f=4: 20 * (n + m) + b * a, "a frozen weight needs no gradient"),
        (lambda n, m, b, a, f=4: 20 * n + f * m + a, "those of a whole batch"),
    ],
    "08.2": [
        (lambda f, s, b, n, c, p, u=0.2: f * (s * b + n * c) / (p * 1e12 * u) / 3600, "not one forward pass"),
        (lambda f, s, b, n, c, p, u=0.2: f * (3 * s * b + n * c) / (p * 1e12) / 3600, "no device reaches its peak"),
        (lambda f, s, b, n, c, p, u=0.2: f * (3 * s * b + n * c) / (p * 1e12 * u), "these are seconds"),
    ],
    "08.3": [
        (lambda u, s, b: torch.stack([pu_risk(p, q, b) if len(q) else p.mean() for p, q in zip(u, s)]).mean(), "mean of the processes' own risks"),
        (lambda u, s, b: pu_risk(torch.cat(u).detach(), torch.cat(s), b), "slopes"),
        (lambda u, s, b: pu_risk(torch.cat(s), torch.cat(u), b), "changed places"),
    ],
}
