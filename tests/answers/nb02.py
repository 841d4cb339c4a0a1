"""Answers to the exercises of notebook 02 as learners write them: right ones, and wrong ones with a part of the diagnosis."""

import torch
from torch.nn.functional import relu, softplus


def sensitive(loss):
    return -(-torch.expm1(-loss.clamp(min=1e-6))).log()


def by_the_score(loss):
    """Back to g, in double precision, and forward to softplus(g)."""
    l = torch.maximum(loss.double(), torch.tensor(1e-6))
    g = torch.where(l > 30, -l, -torch.log(torch.expm1(l.clamp(max=30))))  # l = softplus(-g)
    return softplus(g).float()


def branches(value, correction):
    if correction == "clip":
        return value if value > 0 else torch.zeros_like(value)
    if correction == "abs" and value < 0:
        return -value
    return value


def branches_of_python(value, correction):
    return {"none": value, "clip": max(value, 0), "abs": max(value, -value)}[correction]


def inner(u, s, prior):
    return u.mean() - prior * s.mean()


def risk_in_one(u, s, prior, correction):
    v = inner(u, s, prior)
    fixed = v if correction == "none" else relu(v) if correction == "clip" else v * v.sign()
    return fixed + (prior * sensitive(s)).mean()


def risk_of_sums(u, s, prior, correction="abs"):
    v = torch.sum(u) / len(u) - prior * torch.sum(s) / len(s)
    return prior / len(s) * sensitive(s).sum() + branches(v, correction)


def error_by_loops(u, s, prior):
    accused = sum(1 for g in u.tolist() if g < 0) / len(u)
    caught = sum(1 for g in s.tolist() if g < 0) / len(s)
    return prior * (1 - caught) + accused - prior * caught


def error_by_means(g_u, g_s, pi):
    return pi * (g_s >= 0).float().mean() + (g_u < 0).float().mean() - pi * (g_s < 0).float().mean()


def prior_by_counts(prior_all, n_unlabeled, n_sensitive):
    hidden = prior_all * (n_unlabeled + n_sensitive) - n_sensitive
    if hidden < -1e-9:
        raise ValueError("S alone is more than that")
    return hidden / n_unlabeled


def prior_by_ratio(share, n_u, n_s):
    pi = share - (1 - share) * n_s / n_u
    if not -1e-9 <= pi < 1:
        raise ValueError(f"no prior fits: {pi}")
    return torch.tensor(pi)


RIGHT = {
    "02.1": [sensitive, by_the_score, lambda loss: -torch.log1p(-torch.exp(-loss.double().clamp(1e-6))).float()],
    "02.2": [
        lambda u, s, p: torch.mean(u) - p * torch.mean(s),
        lambda loss_u, loss_s, prior: loss_u.sum() / len(loss_u) - (prior * loss_s).sum() / loss_s.numel(),
    ],
    "02.3": [branches, branches_of_python, lambda v, c: {"none": v, "clip": relu(v), "abs": v.square().sqrt()}[c]],
    "02.4": [risk_in_one, risk_of_sums],
    "02.5": [error_by_loops, error_by_means],
    "02.6": [prior_by_counts, prior_by_ratio],
}

WRONG = {
    "02.1": [
        (lambda loss: torch.log(1 - torch.exp(-loss.double().clamp(1e-6))), "up to the sign"),
        (lambda loss: 1 - torch.exp(-loss), "minus its logarithm"),
        (lambda loss: -torch.log(1 - torch.exp(-loss)), "see the hint"),
        (lambda loss: -torch.log1p(-torch.exp(-loss.clamp(min=1e-6))), "loses its digits"),
        (lambda loss: -torch.log(-torch.expm1(-loss)), "l = 0 gives infinity"),
        (lambda loss: sensitive(loss).mean(), "one loss per point"),
        (lambda loss: -torch.log(1 - loss), "for the probability"),
        (lambda loss: softplus(-loss), "losses from 0.01 to 5"),  # l taken for a score
    ],
    "02.2": [
        (lambda u, s, p: (1 - p) * u.mean(), "prior * E_U"),
        (lambda u, s, p: u.mean() - s.mean(), "prior is missing"),
        (lambda u, s, p: u.mean() + p * s.mean(), "subtract it"),
        (lambda u, s, p: torch.cat((u, -p * s)).mean(), "own mean"),
        (lambda u, s, p: u - p * torch.mean(s), "mean over U"),
        (lambda u, s, p: (u - p * s).mean(), "raised RuntimeError"),
        (lambda u, s, p: (u.mean() - p * s.mean()).item(), "no slope"),
        (lambda u, s, p: torch.clip(u.mean() - p * s.mean(), 0), "corrections come later"),
        (lambda u, s, p: p * s.mean() - u.mean(), "wrong sign"),
    ],
    "02.3": [
        (lambda v, c: v if c == "none" else v.abs() if c == "clip" else relu(v), "changed places"),
        (lambda v, c: {"none": v, "clip": v.clamp(max=0), "abs": v.abs()}[c], "wrong side"),
        (lambda v, c: v.clamp(min=0) if c == "clip" else v, "your abs does nothing"),
        (lambda v, c: {"none": v, "clip": relu(v), "abs": v.detach().abs()}[c], "your abs passes on no slope"),
        (lambda v, c: torch.tensor({"none": v.item(), "clip": max(v.item(), 0), "abs": abs(v.item())}[c]), "no slope passes"),
        (lambda v, c: {"none": v, "clip": relu(v), "abs": v + 2 * relu(-v.detach())}[c], "hides the turned sign"),
        (lambda v, c: {"none": v, "clip": relu(v), "abs": -v}[c], "the sign of every value"),
        (lambda v, c: None if c == "abs" else branches(v, c), "`return`"),
    ],
    "02.4": [
        (lambda u, s, p, c: sensitive(s).mean() + branches(inner(u, s, p), c), "prior is missing on the first term"),
        (lambda u, s, p, c: (1 - p) * sensitive(s).mean() + branches(inner(u, s, p), c), "1 - prior"),
        (lambda u, s, p, c: p * sensitive(s).mean() + inner(u, s, p), "correction was dropped"),
        (lambda u, s, p, c: p * sensitive(s).mean() + abs(inner(u, s, p)), "argument `correction` chooses"),
        (
            lambda u, s, p, c: p * sensitive(s).mean() + torch.stack([branches(x, c) for x in u - p * s.mean()]).mean(),
            "difference of the means, |E.|",
        ),
        (lambda u, s, p, c: p * s.mean() + branches(inner(u, s, p), c), "l_S, your function of 02.1"),
        (lambda u, s, p, c: branches(p * sensitive(s).mean() + inner(u, s, p), c), "sum of both terms"),
        (lambda u, s, p, c: p * sensitive(s) + branches(inner(u, s, p), c), "one value per point"),
    ],
    "02.5": [
        (lambda u, s, p: error_by_means(-u, -s, p), "sides are turned"),
        (lambda u, s, p: p * (s > 0).float().mean() + (u <= 0).float().mean() - p * (s <= 0).float().mean(), "exactly 0"),
        (lambda u, s, p: p * (s >= 0).float().mean() + (u < 0).float().mean(), "refund is missing"),
        (lambda u, s, p: p * (s >= 0).float().mean() + (u < 0).float().mean() - (s < 0).float().mean(), "refund lacks the prior"),
        (lambda u, s, p: p * (s >= 0).float().mean() + (1 - p) * (u < 0).float().mean(), "naive form"),
        (lambda u, s, p: abs(error_by_means(u, s, p)), "no correction"),
        (lambda u, s, p: max(error_by_loops(u, s, p), 0.0), "no correction"),
        (lambda u, s, p: 1 - error_by_loops(u, s, p), "one minus the error"),
    ],
    "02.6": [
        (lambda q, n_u, n_s: (q * (n_u + n_s) - n_s) / n_u, "raise a ValueError"),
        (lambda q, n_u, n_s: q * (n_u + n_s) / n_u, "points of S are still counted"),
        (lambda q, n_u, n_s: prior_by_counts(q, n_u, n_s) * n_u / (n_u + n_s), "a share of U alone"),
        (lambda q, n_u, n_s: (q * n_u + n_s) / (n_u + n_s), "other direction"),
        (lambda q, n_u, n_s: max(0.0, (q * (n_u + n_s) - n_s) / n_u), "raise a ValueError"),
        (lambda q, n_u, n_s: prior_by_counts(q, n_u, n_s) if q * (n_u + n_s) >= n_s else None, "raise a ValueError"),
    ],
}
