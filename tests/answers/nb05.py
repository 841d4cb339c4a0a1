"""Answers to the exercises of notebook 05 as learners write them: right ones, and wrong ones with a part of the diagnosis."""

import math

import torch

from pulib import risk

# ------------------------------------------------------------------------- a risk for all priors, and a share


def risk_by_dot(loss_u, loss_s, prior_s):
    return loss_u.sum() / len(loss_u) - prior_s @ loss_s / len(loss_s)


def risk_by_loop(loss_u, loss_s, prior_s):
    taken = 0.0
    for loss, b in zip(loss_s, prior_s):
        taken = taken + b * loss / len(loss_s)
    return loss_u.mean() - taken


def share_by_where(r, c, ceiling=0.9, least=-0.5):
    product = torch.where(c * r > ceiling, torch.tensor(ceiling), c * r)
    s = (1 - c) / (1 - product)
    return torch.where(s < least, torch.tensor(least), s)


def share_one_by_one(r, c, ceiling=0.9, least=-0.5):
    return torch.tensor([max((1 - b) / (1 - min(a * b, ceiling)), least) for a, b in zip(r.tolist(), c.tolist())])


# ------------------------------------------------------------------------------------------- the tails


def tails_by_comparing(score_u, score_s):
    c = torch.unique(score_s)
    return c, (score_u >= c[:, None]).float().mean(1), (score_s >= c[:, None]).float().mean(1)


def tails_by_loop(score_u, score_s):
    """A list of three, not a tuple."""
    c = sorted(set(score_s.tolist()))
    shares = [[sum(g >= low for g in scores.tolist()) / len(scores) for low in c] for scores in (score_u, score_s)]
    return [torch.tensor(c), *(torch.tensor(values) for values in shares)]


def tails_by_counting(score_u, score_s):
    c, counts = score_s.unique(return_counts=True)
    above = counts.flip(0).cumsum(0).flip(0)
    return c, torch.stack([(score_u >= low).double().mean() for low in c]), above / above[0]


def tails_as_lists(score_u, score_s):
    return tuple(values.tolist() for values in tails_by_comparing(score_u, score_s))


def tails_from_numpy(score_u, score_s):
    return tuple(values.numpy() for values in tails_by_comparing(score_u, score_s))


def tails_in_reverse(score_u, score_s):
    return tuple(values.flip(0) for values in tails_by_comparing(score_u, score_s))


def tails_at(thresholds):
    def masses(score_u, score_s):
        c = thresholds(score_u, score_s)
        return c, (score_u >= c[:, None]).float().mean(1), (score_s >= c[:, None]).float().mean(1)

    return masses


# ------------------------------------------------------------------------------- the bounds, and the floor


def bounds_in_steps(share_u, share_s, n_u, n_s, delta=0.1, gamma=0.01):
    log = math.log(4) - math.log(delta)
    of_u, of_s = (log / (2 * n_u)) ** 0.5, (log / (2 * n_s)) ** 0.5
    return (share_u + (1 + gamma) * (of_u + of_s)) / share_s


def bounds_by_tensors(share_u, share_s, n_u, n_s, delta=0.1, gamma=0.01):
    n = torch.tensor([n_u, n_s])
    chance = torch.sqrt(torch.log(torch.tensor(4 / delta)) / (2 * n)).sum()
    return share_u / share_s + (1 + gamma) * chance / share_s


def bounds_without_two(share_u, share_s, n_u, n_s, delta=0.1, gamma=0.01):
    return share_u / share_s + (1 + gamma) / share_s * sum(math.sqrt(math.log(4 / delta) / n) for n in (n_u, n_s))


def bounds_without_brackets(share_u, share_s, n_u, n_s, delta=0.1, gamma=0.01):
    return share_u / share_s + (1 + gamma) / share_s * (math.sqrt(math.log(4 / delta) / 2 * n_u) + math.sqrt(math.log(4 / delta) / 2 * n_s))


def bounds_of_one_root(share_u, share_s, n_u, n_s, delta=0.1, gamma=0.01):
    return share_u / share_s + (1 + gamma) / share_s * math.sqrt(math.log(4 / delta) * (1 / (2 * n_u) + 1 / (2 * n_s)))


def bounds_of_a_negative_logarithm(share_u, share_s, n_u, n_s, delta=0.1, gamma=0.01):
    log = torch.log(torch.tensor(delta / 4))
    return share_u / share_s + (1 + gamma) / share_s * (torch.sqrt(log / (2 * n_u)) + torch.sqrt(log / (2 * n_s)))


def bounds_of_a_negative_number(share_u, share_s, n_u, n_s, delta=0.1, gamma=0.01):
    return share_u / share_s + (1 + gamma) / share_s * sum(math.sqrt(math.log(delta / 4) / (2 * n)) for n in (n_u, n_s))


def floor_by_lists(loss_u, loss_s, loss_n):
    u, s, n = (sum(loss.tolist()) / len(loss) for loss in (loss_u, loss_s, loss_n))
    return (u - n) / (s - n)


def floor_by_bisection(loss_u, loss_s, loss_n):
    """The b at which E_U - b E_S - (1 - b) E_N changes its sign."""
    low, high = -1.0, 1.0
    for _ in range(50):
        b = (low + high) / 2
        if loss_u.mean() - b * loss_s.mean() > (1 - b) * loss_n.mean():
            low = b
        else:
            high = b
    return low


RIGHT = {
    "05.1": [risk_by_dot, risk_by_loop, lambda u, s, b: torch.mean(u) - torch.mean(b * s)],
    "05.2": [share_by_where, share_one_by_one, lambda r, c, ceiling=0.9, least=-0.5: torch.clip((1 - c) / torch.clip(1 - r * c, 1 - ceiling), least, 1)],
    "05.3": [tails_by_comparing, tails_by_loop, tails_by_counting],
    "05.4": [bounds_in_steps, bounds_by_tensors],
    "05.5": [floor_by_lists, floor_by_bisection, lambda u, s, n: 1 - (s.mean() - u.mean()) / (s.mean() - n.mean())],
}

WRONG = {
    "05.1": [
        (lambda u, s, b: u.mean() - b.mean() * s.mean(), "multiply first and then average"),
        (lambda u, s, b: u.mean() - s.mean(), "priors are missing"),
        (lambda u, s, b: torch.sum(u) - torch.sum(b * s), "asks for means"),
        (lambda u, s, b: u.mean() - b @ s, "a mean there too"),
        (lambda u, s, b: u.mean() - (b * s).sum() / b.sum(), "weighted mean"),
        (lambda u, s, b: (u.mean() - (b * s).mean()) / (1 - b.mean()), "divided by 1 - b"),
        (lambda u, s, b: u.mean() - (b / (1 - b) * s).mean(), "its factor is b alone"),
        (lambda u, s, b: abs(u.mean() - (b * s).mean()), "no correction here"),
        (lambda u, s, b: torch.relu(u.mean() - (b * s).mean()), "no correction here"),
        (lambda u, s, b: u.mean() + (b * s).mean(), "must be subtracted"),
        (lambda u, s, b: (b * s).mean() - u.mean(), "turned round"),
        (lambda u, s, b: (1 - b).mean() * u.mean() - (b * s).mean(), "counts in full"),
        (lambda u, s, b: (u - b * s).mean(), "one by one"),
        (lambda u, s, b: (b * u).mean() - s.mean(), "the priors belong to the losses on S"),
        (lambda u, s, b: torch.cat((u, -b * s)).mean(), "each have their own"),
        (lambda u, s, b: u.mean() - b * s.mean(), "one value per prior"),
        (lambda u, s, b: u.mean() - b * s, "the mean over S too"),
        (lambda u, s, b: (b * risk.sensitive_loss(s)).mean() + risk_by_dot(u, s, b), "linear part alone"),
        (lambda u, s, b: risk_by_dot(u, s, b).item(), "no slope passes"),
        (lambda u, s, b: u.mean() - sum((b * s).tolist()) / len(s), "slope too"),
        (lambda u, s, b: None, "`return`"),
    ],
    "05.2": [
        (lambda r, c, ceiling, least: ((1 - c) / (1 - c * r)).clamp(min=least), "c r is not cut"),
        (lambda r, c, ceiling, least: (1 - c) / (1 - (c * r).clamp(max=ceiling)), "s is not cut"),
        (lambda r, c, ceiling, least: (1 - c) / (1 - c * r), "neither"),
        (lambda r, c, ceiling, least: ((1 - c) / (1 - c * r.clamp(max=ceiling))).clamp(min=least), "you cut r"),
        (lambda r, c, ceiling, least: torch.relu(share_by_where(r, c, ceiling, least)), "down to `least`"),
        (lambda r, c, ceiling, least: share_by_where(r, c.clamp(max=1), ceiling, least), "down to `least`"),
        (lambda r, c, ceiling, least: 1 - share_by_where(r, c, ceiling, least), "share of eps_N"),
        (lambda r, c, ceiling, least: share_by_where(c, r, ceiling, least), "r stands above the line"),
        (lambda r, c, ceiling, least: (1 - r) / (1 - c * r), "r stands above the line, where c belongs (and"),
        (lambda r, c, ceiling, least: 1 - c, "this is s for r = 0"),
        (lambda r, c, ceiling, least: ((1 - c) / (1 - r.clamp(max=ceiling))).clamp(min=least), "c is missing"),
        (lambda r, c, ceiling, least: (1 - c * r) / (1 - c), "upside down"),
        (lambda r, c, ceiling, least: share_by_where(r, c), "you wrote 0.9 and -0.5"),
        (lambda r, c, ceiling, least: ((1 - c) / (1 - (c * r).clamp(ceiling))).clamp(least), "wrong side"),
        (lambda r, c, ceiling, least: torch.clamp((1 - c) / (1 - c * r), least, ceiling), "you left uncut"),
        (lambda r, c, ceiling, least: max((1 - c) / (1 - min(c * r, ceiling)), least), "`.clamp` and `torch.where` work on each"),
    ],
    "05.3": [
        (lambda u, s: (s.unique(), *((g > s.unique()[:, None]).float().mean(1) for g in (u, s))), ">=, not >"),
        (lambda u, s: (s.unique(), *((g < s.unique()[:, None]).float().mean(1) for g in (u, s))), "shares below h"),
        (lambda u, s: (s.unique(), *(torch.bucketize(s.unique(), g.sort().values, right=True) / len(g) for g in (u, s))), "shares up to h"),
        (lambda u, s: (s.unique(), *((g >= s.unique()[:, None]).sum(1) for g in (u, s))), "numbers of images"),
        (lambda u, s: (s.unique(), *((g >= s.unique()[:, None]).sum(1) / len(u) for g in (u, s))), "P_S is a share of S"),
        (tails_at(lambda u, s: u.unique()), "scores of U"),
        (tails_at(lambda u, s: torch.cat([s, u]).unique()), "those of S alone"),
        (tails_at(lambda u, s: s.sort().values), "each threshold once"),
        (tails_at(lambda u, s: s), "in the order in which they came"),
        (tails_at(lambda u, s: s.sort(descending=True)[0]), "is there twice; each must be there once, rising"),
        (tails_in_reverse, "the thresholds fall"),
        (lambda u, s: [tails_by_loop(u, s)[i] for i in (0, 2, 1)], "the order is h, P_U, P_S"),
        (lambda u, s: [tails_by_loop(u, s)[i] for i in (1, 2, 0)], "the thresholds come first"),
        (lambda u, s: tails_by_comparing(s, u), "U and S have changed places"),
        (lambda u, s: tails_by_comparing(u, s)[1:], "gives back a tuple of 2; three tensors were expected"),
        (lambda u, s: torch.stack(tails_by_comparing(u, s)), "gives back a tensor of shape [3, 5]; three tensors"),
        (tails_as_lists, "the first of the three things that your function gives back is a list of 5; a tensor was expected: `torch.stack`"),
        (tails_from_numpy, "is a numpy ndarray"),
        (lambda u, s: {"c": s, "u": u, "s": s}, "gives back a dict"),
        (lambda u, s: None, "`return`"),
        (lambda u, s: (s.unique(), *((g >= s.unique()[:, None]).mean(1) for g in (u, s))), "by `.float()`"),
        (lambda u, s: (s.unique(), (u >= s.unique()).float().mean(), (s >= s.unique()).float().mean()), "`print(x.shape)`"),
    ],
    "05.4": [
        (lambda u, s, n_u, n_s, delta, gamma: u / s, "ratio P_U / P_S alone"),
        (lambda u, s, *rest: bounds_in_steps(0, s, *rest), "(5.5) alone"),
        (lambda u, s, *rest: u / s + s * bounds_in_steps(0, s, *rest), "not divided by P_S"),
        (lambda u, s, n_u, n_s, delta, gamma: bounds_in_steps(u, s, n_u, n_s, 4 * delta, gamma), "not of 1 / delta"),
        (lambda u, s, n_u, n_s, delta, gamma: bounds_in_steps(u, s, n_u, n_s, delta, 0), "slack gamma is missing"),
        (lambda u, s, n_u, n_s, delta, gamma: bounds_in_steps(u, s, n_u, n_s, delta, gamma - 1), "1 + gamma, not gamma"),
        (bounds_without_two, "factor 2 is missing"),
        (bounds_without_brackets, "write `/ (2 * n)`"),
        (bounds_of_one_root, "adds two roots"),
        (bounds_of_a_negative_logarithm, "has no root"),
        (bounds_of_a_negative_number, "has no root"),
        (lambda u, s, *rest: s / u + bounds_in_steps(0, s, *rest), "upside down"),
        (lambda u, s, *rest: bounds_in_steps(s, u, *rest), "in both terms"),
        (lambda u, s, n_u, n_s, delta, gamma: (1 + gamma) * (u + bounds_in_steps(0, torch.tensor(1 + gamma), n_u, n_s, delta, gamma)) / s, "the ratio too"),
        (lambda u, s, n_u, n_s, delta, gamma: bounds_in_steps(u, s, n_u, n_s), "`delta` and `gamma` belong"),
        (lambda *args: min(bounds_in_steps(*args)), "the lowest bound"),
        (lambda u, s, n_u, n_s, delta, gamma: u / s + torch.sqrt(torch.log(4 / delta) / 2 / n_u) / s, "use `math.log`"),
    ],
    "05.5": [
        (lambda u, s, n: u.mean() / s.mean(), "losses on normal images are missing"),
        (lambda u, s, n: (u.mean() - n.mean()) / s.mean(), "missing below the line"),
        (lambda u, s, n: 1 - floor_by_lists(u, s, n), "1 minus the prior"),
        (lambda u, s, n: floor_by_lists(u, n, s), "1 minus the prior"),
        (lambda u, s, n: (u.mean() - s.mean()) / (n.mean() - s.mean()), "S and N have changed places"),
        (lambda u, s, n: 1 / floor_by_lists(u, s, n), "upside down"),
        (lambda u, s, n: floor_by_lists(s, u, n), "upside down"),
        (lambda u, s, n: floor_by_lists(n, s, u), "U and N have changed places"),
        (lambda u, s, n: (u.sum() - n.sum()) / (s.sum() - n.sum()), "the sets differ in number"),
        (lambda u, s, n: (u.mean() - n.mean()) / (s.mean() - u.mean()), "prior / (1 - prior)"),
        (lambda u, s, n: u.mean() - n.mean() / s.mean() - n.mean(), "brackets are missing"),
        (lambda u, s, n: max(0, min(1, floor_by_lists(u, s, n))), "cut the result"),
        (lambda u, s, n: abs(floor_by_lists(u, s, n)), "absolute values"),
        (lambda u, s, n: ((u - n) / (s - n)).mean(), "one by one"),
        (lambda u, s, n: (u - n.mean()).mean() / (s - n).mean(), "one by one"),
        (lambda u, s, n: 100 * floor_by_lists(u, s, n), "not a percentage"),
        (lambda u, s, n: (u.mean - n.mean) / (s.mean - n.mean), "brackets are missing"),
    ],
}
