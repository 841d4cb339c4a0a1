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


def prior_above_zero(share, n_u, n_s):
    pi = (share * (n_u + n_s) - n_s) / n_u
    if not 0 < pi < 1:
        raise ValueError(f"{pi} is no prior!")
    return pi


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
        (lambda loss: softplus(-loss), "l for a score"),
        (lambda loss: -torch.log(torch.sigmoid(loss)), "l for a score"),
        (lambda loss: -torch.log(1 - torch.exp(-loss) + 1e-6), "guard the logarithm by a small number"),
        (lambda loss: -torch.log(1 - torch.exp(-loss - 1e-7)), "guard the logarithm by a small number"),
        (lambda loss: -torch.log(1e-8 - torch.expm1(-loss)), "guard the logarithm by a small number"),
        (lambda loss: -torch.log(torch.clamp(1 - torch.exp(-loss), min=1e-6)), "guard the logarithm by a small number"),
        (lambda loss: -torch.log(-torch.expm1(-max(loss, 1e-6))), "`.clamp` and `torch.where` work on each"),
    ],
    "02.2": [
        (lambda u, s, p: (1 - p) * u.mean(), "prior * E_U"),
        (lambda u, s, p: u.mean() - s.mean(), "prior is missing"),
        (lambda u, s, p: u.mean() + p * s.mean(), "subtract it"),
        (lambda u, s, p: torch.cat((u, -p * s)).mean(), "own mean"),
        (lambda u, s, p: u - p * torch.mean(s), "mean over U"),
        (lambda u, s, p: (u - p * s).mean(), "one by one"),
        (lambda u, s, p: u.mean() - p * s.mean, "brackets are missing"),
        (lambda u, s, p: u.mean() - p * sensitive(s).mean(), "the refund takes l_S"),
        (lambda u, s, p: sensitive(u).mean() - p * s.mean(), "U is charged l_N"),
        (lambda u, s, p: sensitive(u).mean() - p * sensitive(s).mean(), "l_S on both sides"),
        (lambda u, s, p: (u.mean() - p * s.mean()).item(), "no slope"),
        (lambda u, s, p: torch.clip(u.mean() - p * s.mean(), 0), "corrections come later"),
        (lambda u, s, p: p * s.mean() - u.mean(), "wrong sign"),
    ],
    "02.3": [
        (lambda v, c: v if c == "none" else v.abs() if c == "clip" else relu(v), "changed places"),
        (lambda v, c: {"none": v, "clip": v.clamp(max=0), "abs": v.abs()}[c], "wrong side"),
        (lambda v, c: v.clamp(min=0) if c == "clip" else v, "your abs does nothing"),
        (lambda v, c: {"none": v, "clip": relu(v), "abs": v.detach().abs()}[c], "no slope passes through your abs"),
        (lambda v, c: {"none": v, "clip": max(v.item(), 0), "abs": v.abs()}[c], "no slope passes through your clip, and training needs one"),
        (lambda v, c: {"none": v, "clip": max(v.item(), 0), "abs": abs(v.item())}[c], "your clip and abs"),
        (lambda v, c: {"none": v, "clip": torch.max(v, 0), "abs": v.abs()}[c], "reads the 0 as an axis"),
        (lambda v, c: (branches(v, c), c), "gives back a tuple of 2"),
        (lambda v, c: branches(v, c) if c != "none" else None, "gives back None for 'none'"),
        (lambda v, c: -branches(v, c), "in every test your result has the wrong sign"),
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
        (lambda u, s, p, c: p * sensitive(s.mean()) + branches(inner(u, s, p), c), "the mean before the loss"),
        (lambda u, s, p, c: p * sensitive(s).mean() + (1 - p) * branches(inner(u, s, p), c), "no factor 1 - prior"),
        (lambda u, s, p, c: p * sensitive(s).mean() + branches(u.mean() - s.mean(), c), "inner term lacks its prior"),
        (lambda u, s, p, c: risk_in_one(s, u, p, c), "changed places"),
        (lambda u, s, p, c: p * sensitive(s).mean() + branches((u - p * s).mean(), c), "one by one"),
    ],
    "02.5": [
        (lambda u, s, p: error_by_means(-u, -s, p), "sides are turned"),
        (lambda u, s, p: p * (s > 0).float().mean() + (u <= 0).float().mean() - p * (s <= 0).float().mean(), "exactly 0"),
        (lambda u, s, p: p * (s >= 0).float().mean() + (u < 0).float().mean(), "refund is missing"),
        (lambda u, s, p: p * (s >= 0).float().mean() + (u < 0).float().mean() - (s < 0).float().mean(), "refund lacks the prior"),
        (lambda u, s, p: p * (s >= 0).float().mean() + (1 - p) * (u < 0).float().mean(), "naive form"),
        (lambda u, s, p: abs(error_by_means(u, s, p)), "no correction"),
        (lambda u, s, p: max(error_by_loops(u, s, p), 0.0), "no correction"),
        (lambda u, s, p: p * (s >= 0).float().mean() + inner(u, s, p), "averaged the scores themselves"),
        (lambda u, s, p: p * (s >= 0).mean() + (u < 0).mean() - p * (s < 0).mean(), "by `.float()`"),
        (lambda u, s, p: p * (s >= 0).float().mean() + ((u < 0).float() - p * (s < 0).float()).mean(), "one by one"),
        (lambda u, s, p: 100 * error_by_loops(u, s, p), "not a percentage"),
        (lambda u, s, p: 1 - error_by_loops(u, s, p), "one minus the error"),
    ],
    "02.6": [
        (lambda q, n_u, n_s: (q * (n_u + n_s) - n_s) / n_u, "raise a ValueError"),
        (lambda q, n_u, n_s: q * (n_u + n_s) / n_u, "points of S are still counted"),
        (lambda q, n_u, n_s: prior_by_counts(q, n_u, n_s) * n_u / (n_u + n_s), "a share of U alone"),
        (lambda q, n_u, n_s: (q * n_u + n_s) / (n_u + n_s), "other direction"),
        (lambda q, n_u, n_s: max(0.0, (q * (n_u + n_s) - n_s) / n_u), "raise a ValueError"),
        (prior_above_zero, "refuse a prior of 0 too"),
        (lambda q, n_u, n_s: 1 - prior_by_counts(q, n_u, n_s), "1 minus the expected one"),
        (lambda q, n_u, n_s: prior_by_counts(q, n_u, n_s) if q * (n_u + n_s) >= n_s else None, "raise a ValueError"),
    ],
}
