"""Answers to the exercises of notebook 04 as learners write them: right ones, and wrong ones with a part of the diagnosis."""

import math
from collections import Counter
from fractions import Fraction

import torch

from pulib.diffusion import denoising_loss
from pulib.risk import pu_risk

KINDS = {"even": (0, 2, 4, 6, 8), "odd": (1, 3, 5, 7, 9)}

# ----------------------------------------------------------------------------------- rates and balance


def corrected_by_bisection(observed, e_normal, e_sensitive):
    """The rate that (4.1) sends to the observed one, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if middle * (1 - e_normal) + (1 - middle) * e_sensitive < observed:
            low = middle
        else:
            high = middle
    return low


def corrected_by_tensors(observed, e_normal, e_sensitive):
    return torch.tensor((observed - e_sensitive) / (1 - (e_normal + e_sensitive))).clamp(0, 1)


def balance_by_counting(digits, normal):
    counts = Counter(d for d in digits.tolist() if d in KINDS[normal])
    return sum(abs(counts[k] / sum(counts.values()) - 1 / 5) for k in KINDS[normal]) / 2


def balance_by_excess(digits, normal):
    """Total variation is also what the too frequent digits have too much."""
    q = torch.bincount(digits, minlength=10)[list(KINDS[normal])] / torch.isin(digits, torch.tensor(KINDS[normal])).sum()
    return (q - 0.2).clamp(min=0).sum()


def balance_of_digits_seen(digits, normal):
    """`unique` knows nothing of digits that were never drawn."""
    _, counts = digits[torch.isin(digits, torch.tensor(KINDS[normal]))].unique(return_counts=True)
    return 0.5 * (counts / counts.sum() - 0.2).abs().sum()


# ----------------------------------------------------------------------------------------- intervals


def interval_by_roots(successes, n, z=1.96):
    p, w = successes / n, z**2 / n
    root = math.sqrt((2 * p + w) ** 2 - 4 * (1 + w) * p**2)
    return (2 * p + w - root) / (2 + 2 * w), (2 * p + w + root) / (2 + 2 * w)


def interval_by_trying(successes, n, z=1.96):
    """All p on a fine grid that (4.3) does not rule out."""
    p = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    kept = p[(successes / n - p).abs() <= z * (p * (1 - p) / n).sqrt() + 1e-12]
    return torch.stack([kept.min(), kept.max()])


def plain_interval(successes, n, z=1.96):
    p = successes / n
    return p - z * (p * (1 - p) / n) ** 0.5, p + z * (p * (1 - p) / n) ** 0.5


def without_the_factor(successes, n, z=1.96):
    p = successes / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p + z * z / (2 * n) - half, p + z * z / (2 * n) + half


def center_and_half_width(successes, n, z=1.96):
    low, high = interval_by_roots(successes, n, z)
    return (low + high) / 2, (high - low) / 2


def z_not_squared(successes, n, z=1.96):
    return interval_by_roots(successes, n, math.sqrt(z))


# -------------------------------------------------------------------------------------------- batches


def chance_card_by_card(n_unlabeled, n_sensitive, batch):
    chance = 1.0
    for dealt in range(batch):
        chance *= (n_unlabeled - dealt) / (n_unlabeled + n_sensitive - dealt)
    return chance


def chance_by_fractions(u, s, b):
    """The same choice seen from S: none of its images lies among the first b places."""
    return float(math.prod(Fraction(u + s - b - k, u + s - k) for k in range(s)))


def dealt(of_u, of_all):
    def chance(u, s, b):
        p = 1
        for k in range(b):
            p *= (u - of_u * k) / (u + s - of_all * k)
        return p

    return chance


# ------------------------------------------------------------------------------------------ the risk


def risk_in_two_calls(model, unlabeled, sensitive, t, noise, prior):
    n = unlabeled.shape[0]
    l_u = denoising_loss(model, unlabeled, t[:n], noise[:n], model.schedule)
    l_s = denoising_loss(model, sensitive, t[n:], noise[n:], model.schedule)
    return prior * (-torch.log1p(-torch.exp(-l_s))).mean() + torch.abs(l_u.mean() - prior * l_s.mean())


def losses(model, unlabeled, sensitive, t, noise):
    x0 = torch.cat([unlabeled, sensitive])
    signal, sigma = model.schedule.levels(t, x0)
    error = noise - model(signal * x0 + sigma * noise, t)
    return (error**2).sum(dim=tuple(range(1, error.ndim)))


def risk_by_hand(model, unlabeled, sensitive, t, noise, prior):
    l = losses(model, unlabeled, sensitive, t, noise)
    from_u = torch.arange(len(l)) < len(unlabeled)
    difference = l[from_u].sum() / from_u.sum() - prior * l[~from_u].sum() / (~from_u).sum()
    return difference.square().sqrt() - prior * (1 - (-l[~from_u]).exp()).log().mean()


def risk_of(formula):
    def risk(model, unlabeled, sensitive, t, noise, prior):
        l = losses(model, unlabeled, sensitive, t, noise)
        return formula(l[: len(unlabeled)], l[len(unlabeled) :], prior)

    return risk


def log_loss(l):
    return -torch.log(1 - torch.exp(-l))


def supervised(u, s, prior):
    return (u.sum() + log_loss(s).sum()) / (len(u) + len(s))


def noise_of_u_twice(model, unlabeled, sensitive, t, noise, prior):
    l_u = denoising_loss(model, unlabeled, t[: len(unlabeled)], noise[: len(unlabeled)], model.schedule)
    l_s = denoising_loss(model, sensitive, t[: len(sensitive)], noise[: len(sensitive)], model.schedule)
    return pu_risk(l_u, l_s, prior)


def losses_with_uncut_levels(model, unlabeled, sensitive, t, noise, prior):
    l_u = denoising_loss(model, unlabeled, t, noise, model.schedule)
    return pu_risk(l_u, denoising_loss(model, sensitive, t, noise, model.schedule), prior)


def s_joined_first(model, unlabeled, sensitive, t, noise, prior):
    l = denoising_loss(model, torch.cat([sensitive, unlabeled]), t, noise, model.schedule)
    return pu_risk(l[len(sensitive) :], l[: len(sensitive)], prior)


# --------------------------------------------------------------------------------------- the average


@torch.no_grad()
def average_by_names(averaged, trained, decay):
    new = dict(trained.named_parameters())
    for name, old in averaged.named_parameters():
        old.copy_(decay * old + (1 - decay) * new[name])
    for name, values in trained.named_buffers():
        averaged.get_buffer(name).copy_(values)
    return averaged


def average_of_data(averaged, trained, decay):
    for old, new in zip(averaged.parameters(), trained.parameters(), strict=True):
        old.data += (1 - decay) * (new.data - old.data)
    for old, new in zip(averaged.buffers(), trained.buffers(), strict=True):
        old.data = new.data.clone()
    return averaged


def average_of_everything(averaged, trained, decay):
    new = trained.state_dict()
    averaged.load_state_dict({name: decay * old + (1 - decay) * new[name] for name, old in averaged.state_dict().items()})
    return averaged


def average_without_no_grad(averaged, trained, decay):
    for old, new in zip(averaged.parameters(), trained.parameters(), strict=True):
        old.mul_(decay).add_((1 - decay) * new)
    for old, new in zip(averaged.buffers(), trained.buffers(), strict=True):
        old.copy_(new)
    return averaged


def average_of_loop_variables(averaged, trained, decay):
    for old, new in zip(averaged.parameters(), trained.parameters(), strict=True):
        old = decay * old + (1 - decay) * new
    return averaged


def average_of_weights_alone(averaged, trained, decay):
    with torch.no_grad():
        for old, new in zip(averaged.parameters(), trained.parameters(), strict=True):
            old.copy_(decay * old + (1 - decay) * new)
    return averaged


def average_into_both(averaged, trained, decay):
    average_by_names(averaged, trained, decay)
    trained.load_state_dict(averaged.state_dict())
    return averaged


RIGHT = {
    "04.1": [corrected_by_bisection, corrected_by_tensors],
    "04.2": [balance_by_counting, balance_by_excess],
    "04.3": [interval_by_roots, interval_by_trying],
    "04.4": [chance_card_by_card, chance_by_fractions],
    "04.5": [risk_in_two_calls, risk_by_hand],
    "04.6": [average_by_names, average_of_data],
}

WRONG = {
    "04.1": [
        (lambda o, n, s: (o - s) / (1 - n - s), "cut it to [0, 1]"),
        (lambda o, n, s: min(max((o - n) / (1 - n - s), 0), 1), "read as normal, e_S"),
        (lambda o, n, s: max(0.0, min(1.0, (o - s) / (1 - n + s))), "both errors shrink"),
        (lambda o, n, s: max(0.0, min(1.0, (o - n - s) / (1 - n - s))), "both errors above the line"),
        (lambda o, n, s: o * (1 - n) + (1 - o) * s, "left half of (4.1)"),
        (lambda o, n, s: max(0.0, (o - s) / (1 - n - s)), "at one end only"),
        (lambda o, n, s: (o - n) / (1 - n - s), "read as normal, e_S (and cut"),
        (lambda o, n, s: None, "`return`"),
    ],
    "04.2": [
        (balance_of_digits_seen, "never drawn"),
        (lambda digits, normal: 0.5 * sum(abs((digits == k).float().mean() - 0.2) for k in KINDS[normal]), "share of the normal ones"),
        (lambda digits, normal: 0.5 * sum(abs((digits == k).float().mean() - 0.1) for k in range(10)), "sensitive digits too"),
        (lambda digits, normal: 2 * balance_by_counting(digits, normal), "factor 1/2"),
        (lambda digits, normal: max(abs((digits == k).sum() / sum((digits == j).sum() for j in KINDS[normal]) - 0.2) for k in KINDS[normal]), "adds all five"),
        (lambda digits, normal: balance_by_counting(digits, "even"), "odd digits wanted"),
    ],
    "04.3": [
        (plain_interval, "plain interval"),
        (without_the_factor, "1 + z^2/n"),
        (z_not_squared, "z^2"),
        (lambda successes, n, z=1.96: interval_by_roots(successes, n, z)[0], "two numbers were expected, the low end"),
        (lambda successes, n, z=1.96: interval_by_roots(successes, n), "where z belongs"),
        (center_and_half_width, "center and the half-width"),
    ],
    "04.4": [
        (lambda u, s, b: (u / (u + s)) ** b, "with replacement"),
        (lambda u, s, b: 1 - chance_card_by_card(u, s, b), "at least one"),
        (lambda u, s, b: (1 - s / u) ** b, "holds both sets"),
        (dealt(of_u=1, of_all=0), "whole deck shrinks"),
        (dealt(of_u=0, of_all=1), "part of U shrinks"),
        (lambda u, s, b: chance_card_by_card(u - 1, s, b), "one card off"),
    ],
    "04.5": [
        (risk_of(lambda u, s, prior: prior * log_loss(u).mean() + abs(s.mean() - prior * u.mean())), "exchanged"),
        (risk_of(lambda u, s, prior: torch.cat([u, s]).mean()), "one mean over the joined batch"),
        (risk_of(supervised), "supervised risk"),
        (risk_of(lambda u, s, prior: prior * log_loss(s).mean() + abs(u.mean() - s.mean())), "missing in the difference"),
        (risk_of(lambda u, s, prior: log_loss(s).mean() + abs(u.mean() - prior * s.mean())), "before the log term"),
        (risk_of(lambda u, s, prior: prior * log_loss(s).mean() + u.mean() - prior * s.mean()), "absolute value is missing"),
        (risk_of(lambda u, s, prior: prior * log_loss(s / 4).mean() + abs(u.mean() - prior * s.mean()) / 4), "averaged over pixels"),
        (losses_with_uncut_levels, "cut them as you cut the images"),
        (risk_of(lambda u, s, prior: prior * log_loss(s).mean() + abs(u - prior * s).mean()), "differ in number"),
        (noise_of_u_twice, "levels and the noise of U"),
        (s_joined_first, "S first"),
        (lambda *args: risk_by_hand(*args).item(), "no gradient reaches"),
        (risk_of(lambda u, s, prior: prior * log_loss(s.data).mean() + abs(u.mean() - prior * s.data.mean())), "losses of S are cut off"),
    ],
    "04.6": [
        (lambda averaged, trained, decay: average_by_names(averaged, trained, 1 - decay), "wrong side"),
        (lambda averaged, trained, decay: average_of_weights_alone(averaged, trained, 1 - decay), "wrong side, and the buffers"),
        (lambda averaged, trained, decay: (average_of_weights_alone(trained, averaged, 1 - decay), averaged)[1], "into the trained network"),
        (average_of_everything, "buffers were averaged too"),
        (average_of_weights_alone, "buffers were left"),
        (average_without_no_grad, "torch.no_grad()"),
        (average_of_loop_variables, "still the old ones"),
        (lambda averaged, trained, decay: None, "`return`"),
        (lambda averaged, trained, decay: list(average_by_names(averaged, trained, decay).parameters()), "must give back the network `averaged`"),
        (average_into_both, "overwrote the trained weights"),
        (lambda averaged, trained, decay: average_by_names(averaged, trained, 0.0), "copied the trained weights"),
    ],
}
