"""Answers to the exercises of notebook 07 as learners write them: right ones, and wrong ones with a part of the diagnosis."""

import math

import numpy as np
import torch
from scipy import integrate, stats

from pulib.diffusion import add_noise
from pulib.risk import sensitive_loss, sensitive_slope

# ------------------------------------------------------------------------------------------ laws


def mass_by_relu(log_p_u, log_p_s, assumed):
    return torch.relu(assumed - torch.exp(log_p_u - log_p_s)).mean()


def mass_by_loop(log_p_u, log_p_s, assumed):
    total = 0.0
    for u, s in zip(log_p_u.tolist(), log_p_s.tolist()):
        total += max(0.0, assumed - math.exp(u - s))
    return total / len(log_p_s)


def mass_where(log_p_u, log_p_s, assumed):
    inside = 1 - (log_p_u - log_p_s - math.log(assumed)).exp()
    return assumed * torch.where(inside > 0, inside, 0.0).mean().item()


def largest_by_loop(share_u, share_s):
    best = 1.0
    for u, s in zip(share_u.tolist(), share_s.tolist()):
        if s > 0:
            best = min(best, u / s)
    return best


def largest_with_infinity(share_u, share_s):
    return torch.where(share_s > 0, share_u / share_s, float("inf")).min()


def labels_by_parts(prior, assumed, contamination=0.0):
    normal = (1 - prior) - assumed * contamination
    sensitive = prior - assumed * (1 - contamination)
    return normal / (normal + sensitive)


def captions_by_parts(prior, assumed, same):
    left = prior - assumed * same
    return (1 - prior) / (1 - prior + left)


# ------------------------------------------------------------------------------------- what is measured


def price_by_loop(r, threshold):
    normal = lost = sensitive = kept = 0.0
    for p in r.tolist():
        normal += 1 - p
        if p >= threshold:
            lost += 1 - p
        else:
            kept += 1
            sensitive += p
    return torch.tensor([lost / normal, sensitive / kept])


def price_by_weights(r, threshold):
    keep = (r < threshold).float()
    return torch.stack((1 - (keep * (1 - r)).sum() / (1 - r).sum(), (keep * r).sum() / keep.sum()))


def share_by_expm1(loss_s, scale=1.0):
    m = torch.mean(1 / torch.expm1(loss_s / scale)).item()
    return m / (1 + m)


def share_by_autograd(loss_s, scale=1.0):
    l = loss_s.clone().requires_grad_()
    of_log = torch.autograd.grad(sensitive_loss(l, scale).sum(), l)[0].abs().mean()
    return of_log / (of_log + 1 / scale)


def share_by_e(loss_s, scale=1.0):
    e = torch.exp(-loss_s / scale)
    m = (e / (1 - e)).mean()
    return 1 - 1 / (m + 1)


def abs_by_folding(mean, sd):
    z = mean / sd
    phi, Phi = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(z / math.sqrt(2)))
    return 2 * (mean * Phi + sd * phi) - mean


def abs_by_sides(mean, sd):
    normal = torch.distributions.Normal(0.0, 1.0)
    z = torch.tensor(mean / sd)
    phi = normal.log_prob(z).exp()
    return (mean * normal.cdf(z) + sd * phi) + (-mean * normal.cdf(-z) + sd * phi)


def abs_by_integral(mean, sd):
    return integrate.quad(lambda v: abs(v) * stats.norm.pdf(v, mean, sd), mean - 9 * sd, mean + 9 * sd, points=[0.0, mean], limit=200)[0]


def clipped(mean, sd):
    return (abs_by_folding(mean, sd) + mean) / 2


def gap_by_hand(loss_train, loss_heldout):
    n, m = len(loss_train), len(loss_heldout)
    mean_a, mean_b = loss_train.sum() / n, loss_heldout.sum() / m
    var_a, var_b = ((loss_train - mean_a) ** 2).sum() / (n - 1), ((loss_heldout - mean_b) ** 2).sum() / (m - 1)
    return (mean_a - mean_b) / torch.sqrt(var_a / n + var_b / m)


def gap_by_std(loss_train, loss_heldout):
    se_a, se_b = loss_train.std() / len(loss_train) ** 0.5, loss_heldout.std() / len(loss_heldout) ** 0.5
    return ((loss_train.mean() - loss_heldout.mean()) / (se_a**2 + se_b**2) ** 0.5).item()


def needed_by_ceil(nsr, other, z=1.96):
    return math.ceil(z**2 * (nsr * (1 - nsr) + other * (1 - other)) / (nsr - other) ** 2)


def needed_by_search(nsr, other, z=1.96):
    n = 1
    while abs(nsr - other) < z * math.sqrt(nsr * (1 - nsr) / n + other * (1 - other) / n):
        n += 1
    return n


# -------------------------------------------------------------------------------------- the known part


def pasted_by_where(xt, known, mask, t, noise, schedule):
    a = schedule.alpha_bar[t].view(-1, 1, 1, 1)
    return torch.where(mask, a.sqrt() * known + (1 - a).sqrt() * noise, xt)


def pasted_by_product(xt, known, mask, t, noise, schedule):
    mask = mask.float()
    return mask * add_noise(known, t, noise, schedule) + (1 - mask) * xt


def pasted_by_index(xt, known, mask, t, noise, schedule):
    result, mask = xt.clone(), mask.expand_as(xt)
    result[mask] = add_noise(known, t, noise, schedule)[mask]
    return result


def pasted_in_place(xt, known, mask, t, noise, schedule):
    return xt.copy_(pasted_by_where(xt, known, mask, t, noise, schedule))


def pasted_with_levels_unshaped(xt, known, mask, t, noise, schedule):
    a = schedule.alpha_bar[t]
    return torch.where(mask, a * known + (1 - a) * noise, xt)


def pasted_by_bare_index(xt, known, mask, t, noise, schedule):
    result = xt.clone()
    result[mask] = add_noise(known, t, noise, schedule)[mask]
    return result


RIGHT = {
    "07.1": [mass_by_relu, mass_by_loop, mass_where],
    "07.2": [largest_by_loop, largest_with_infinity, lambda u, s: (u[s > 0] / s[s > 0]).min(), lambda u, s: (u / s).nan_to_num(1.0).amin()],
    "07.3": [labels_by_parts, lambda p, b, c=0.0: (1 - p - b * c) / (1 - b), lambda p, b, c=0.0: 1 - (p - b * (1 - c)) / (1 - b)],
    "07.4": [price_by_loop, price_by_weights],
    "07.5": [share_by_expm1, share_by_autograd, share_by_e],
    "07.6": [abs_by_folding, abs_by_sides, abs_by_integral],
    "07.7": [gap_by_hand, gap_by_std],
    "07.8": [needed_by_ceil, needed_by_search, lambda p, q, z=1.96: np.ceil((p - p**2 + q - q**2) / ((p - q) / z) ** 2)],
    "07.9": [captions_by_parts, lambda p, b, same: (1 - p) / (1 - b * same)],
    "07.10": [pasted_by_where, pasted_by_product, pasted_by_index],
}

WRONG = {
    "07.1": [
        (lambda u, s, b: b - (u - s).exp().mean(), "makes up for where it is negative"),
        (lambda u, s, b: max(0.0, b - (u - s).exp().mean().item()), "you cut the mean"),
        (lambda u, s, b: torch.relu(b - torch.exp(s - u)).mean(), "the wrong way round"),
        (lambda u, s, b: torch.relu(1 - torch.exp(u - s)).mean(), "prior is missing"),
        (lambda u, s, b: (b * s.exp() - u.exp()).clamp(min=0).mean(), "did not divide by p_S"),
        (lambda u, s, b: torch.relu(b * torch.exp(s - u) - 1).mean(), "so divide by p_S"),
        (lambda u, s, b: ((b * s.exp() - u.exp()) / s.exp()).clamp(min=0).mean(), "subtract the logs first"),
        (lambda u, s, b: torch.relu(b - u.exp() / s.exp().clamp(min=1e-20)).mean(), "decides what comes out far from it"),
        (lambda u, s, b: ((u - s).exp() < b).double().mean(), "by how much"),
        (lambda u, s, b: torch.relu(b - torch.exp(u - s)), "one value per point"),
        (lambda u, s, b: max(0, b - torch.exp(u - s)), "`.clamp` and `torch.where` work on each"),
    ],
    "07.2": [
        (lambda u, s: (u / s).min(), "leave out the kinds that S lacks"),
        (lambda u, s: min(u / s), "0/0 is nan"),
        (lambda u, s: (u / s.clamp(min=1e-6)).min(), "became a limit of 0"),
        (lambda u, s: (u[s > 0] / s[s > 0]).max(), "the largest ratio"),
        (lambda u, s: (s / u).min(), "upside down"),
        (lambda u, s: max(b / a if a > 0 else math.inf for a, b in zip(u, s) if b > 0), "1 divided by what is asked for"),
        (lambda u, s: (u[s > 0] / s[s > 0]).mean(), "averaged the ratios"),
        (lambda u, s: sum(a for a, b in zip(u, s) if b > 0), "runs out first"),
        (lambda u, s: min(a / b for a, b in zip(u, s) if a > 0 and b > 0), "left out the kinds that U lacks"),
        (lambda u, s: torch.minimum(u, s).sum(), "overlap"),
    ],
    "07.3": [
        (lambda p, b, c=0.0: 1 - p - b * c, "divide by 1 - b"),
        (lambda p, b, c=0.0: (1 - p) / (1 - b), "c is missing"),
        (lambda p, b, c=0.0: 1 - labels_by_parts(p, b, c), "left and sensitive"),
        (lambda p, b, c=0.0: labels_by_parts(p, b, 1 - c), "b c is the normal one"),
        (lambda p, b, c=0.0: (1 - p) / (1 - b + b * c), "as if normal images in S did no harm"),
        (lambda p, b, c=0.0: (1 - p) * (1 - b * c) / (1 - b), "not of the normal images of U"),
        (lambda p, b, c=0.0: labels_by_parts(b, p, c), "changed places"),
    ],
    "07.4": [
        (lambda r, h: torch.stack([(1 - r[r > h]).sum() / (1 - r).sum(), r[r <= h].mean()]), "not <="),
        (lambda r, h: torch.stack([(1 - r[r < h]).sum() / (1 - r).sum(), r[r < h].mean()]), "lost is 1 minus it"),
        (lambda r, h: torch.stack([(r >= h).float().mean(), r[r < h].mean()]), "share of all images that is dropped"),
        (lambda r, h: torch.stack([(1 - r)[r >= h].sum() / r.numel(), r[r < h].mean()]), "not by their number"),
        (lambda r, h: torch.stack([(1 - r)[r >= h].mean(), r[r < h].mean()]), "how many of the normal images are dropped"),
        (lambda r, h: torch.stack([price_by_loop(r, h)[0], r[r < h].sum() / r.sum()]), "share of the kept images that is sensitive"),
        (lambda r, h: torch.stack([price_by_loop(r, h)[0], (r[r < h] > 0.5).float().mean()]), "called each image normal or sensitive first"),
        (lambda r, h: price_by_loop(r, h).flip(0), "changed places"),
        (lambda r, h: tuple(price_by_loop(r, h)), "torch.stack"),
        (lambda r, h: price_by_loop(r, h).tolist(), "a list of 2"),
    ],
    "07.5": [
        (lambda l, c=1.0: (lambda m: m / (m + 1))(sensitive_slope(l, c).abs().mean()), "so it cancels; you have it in the log term alone"),
        (lambda l, c=1.0: (lambda m: m / (m + 1))((1 / torch.exp(l / c)).mean()), "the -1 is missing"),
        (lambda l, c=1.0: share_by_expm1(l), "the scale is missing"),
        (lambda l, c=1.0: torch.exp(-l / c).mean(), "averaged the shares"),
        (lambda l, c=1.0: share_by_expm1(l.mean().view(1), c), "slope at the mean loss"),
        (lambda l, c=1.0: 1 - share_by_expm1(l, c), "share of the second term"),
        (lambda l, c=1.0: (lambda m: m / (m + 1))(-(1 / torch.expm1(l / c)).mean()), "the slope is negative"),
        (lambda l, c=1.0: (1 / torch.expm1(l / c)).mean(), "this is m itself"),
        (lambda l, c=1.0: sum(1 / (math.e ** (x.item() / c) - 1) for x in l), "raised OverflowError"),
        (lambda l, c=1.0: (lambda m: m / (m + 1))(np.mean([1 / math.expm1(x / c) for x in l.tolist()])), "`math` gives up"),
    ],
    "07.6": [
        (lambda m, s: abs(m), "this is |E v|"),
        (lambda m, s: clipped(m, s), "mean of a clipped v"),
        (lambda m, s: 2 * clipped(m, s), "still to be subtracted"),
        (lambda m, s: math.hypot(m, s), "root of E v^2"),
        (lambda m, s: s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / (2 * s**2)) + m * math.erf(m / s), "z / sqrt(2) inside erf"),
        (lambda m, s: s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / 2 * s**2) + m * math.erf(m / (s * math.sqrt(2))), "brackets are missing"),
        (lambda m, s: 2 * s * math.exp(-(m**2) / (2 * s**2)) + m * math.erf(m / (s * math.sqrt(2))), "factor 1 / sqrt(2 pi)"),
        (lambda m, s: abs_by_folding(m, s**0.5), "you took its root"),
    ],
    "07.7": [
        (lambda a, b: gap_by_hand(b, a), "sign is turned"),
        (lambda a, b: a.mean() - b.mean(), "divide it by its standard error"),
        (lambda a, b: (a.mean() - b.mean()) / (a.var() + b.var()).sqrt(), "a mean of n of them varies less"),
        (lambda a, b: (a.mean() - b.mean()) / (b.std() / len(b) ** 0.5), "held-out images alone"),
        (lambda a, b: stats.ttest_ind(a.numpy(), b.numpy()).statistic.item(), "under one variance"),
        (lambda a, b: (a - b).mean() / ((a - b).std() / len(a) ** 0.5), "one by one"),
        (lambda a, b: (a.mean() - b.mean()) / (np.var(a.numpy()) / len(a) + np.var(b.numpy()) / len(b)) ** 0.5, "divides by n - 1"),
        (lambda a, b: (a.mean() - b.mean()) / (a.std() / len(a) ** 0.5 + b.std() / len(b) ** 0.5), "add by their squares"),
    ],
    "07.8": [
        (lambda p, q, z=1.96: math.ceil(z**2 * p * (1 - p) / (p - q) ** 2), "the second is missing"),
        (lambda p, q, z=1.96: math.ceil(z**2 * (p * (1 - p) + q * (1 - q)) / abs(p - q)), "difference must be squared"),
        (lambda p, q, z=1.96: int(z**2 * (p * (1 - p) + q * (1 - q)) / (p - q) ** 2), "round up"),
        (lambda p, q, z=1.96: round(z**2 * (p * (1 - p) + q * (1 - q)) / (p - q) ** 2), "not to the nearest number"),
        (lambda p, q, z=1.96: needed_by_ceil(p, q), "you wrote 1.96"),
        (lambda p, q, z=1.96: math.ceil((z * math.sqrt(p * (1 - p)) + z * math.sqrt(q * (1 - q))) ** 2 / (p - q) ** 2), "added standard deviations"),
        (lambda p, q, z=1.96: math.ceil(z**2 * 2 * ((p + q) / 2 * (1 - (p + q) / 2)) / (p - q) ** 2), "each model has its own"),
    ],
    "07.9": [
        (lambda p, b, same: (1 - p) / (1 - b), "let all of S act"),
        (lambda p, b, same: 1 - p, "without any labels"),
        (lambda p, b, same: captions_by_parts(p, b, 1 - same), "you used 1 - same"),
        (lambda p, b, same: 1 - captions_by_parts(p, b, same), "left and sensitive"),
        (lambda p, b, same: labels_by_parts(p, b, 1 - same), "took them from the normal ones"),
        (lambda p, b, same: same * (1 - p) / (1 - b) + (1 - same) * (1 - p), "averaged the NSRs"),
        (lambda p, b, same: (1 - p) / (1 - b / same), "you divided by it"),
    ],
    "07.10": [
        (lambda xt, known, mask, *rest: pasted_by_where(xt, known, ~mask, *rest), "turned round"),
        (lambda xt, known, mask, *rest: torch.where(mask, known, xt), "put in the clean image"),
        (lambda xt, known, mask, t, noise, schedule: torch.where(mask, schedule.levels(t, xt)[0] * known, xt), "its noise is missing"),
        (lambda xt, known, mask, t, noise, schedule: add_noise(torch.where(mask, known, xt), t, noise, schedule), "before you put it in"),
        (lambda xt, known, mask, t, noise, schedule: mask * add_noise(known, t, noise, schedule), "x_t is missing"),
        (lambda xt, known, mask, t, noise, schedule: xt + mask * add_noise(known, t, noise, schedule), "taken out before you add"),
        (lambda xt, known, mask, t, noise, schedule: mask * add_noise(known, t, noise, schedule) + (1 - mask) * xt, "truth values"),
        (pasted_in_place, "you changed the x_t that came in"),
        (pasted_with_levels_unshaped, "one factor per image"),
        (pasted_by_bare_index, "an index needs a mask of the whole shape"),
    ],
}
