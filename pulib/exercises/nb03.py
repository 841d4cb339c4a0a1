"""Exercises of notebook 03: stratified levels, chance in a difference, the composed noise, a wrong prior, the slope of the log term."""

import math
from types import SimpleNamespace

import torch
from torch import Tensor

from .. import diffusion, evaluation, risk, toy
from .base import Exercise, Mistake, Observed, Unusable, as_tensor

# ---------------------------------------------------------------------------------- 03.1 stratified levels


def observe_timesteps(f) -> Observed:
    """Facts about draws that hold for every correct answer, whatever random numbers it uses.

    In 32-bit floats (i + u) / n may round up to 1, and the level to T. For the numbers of this course that is too rare to be
    seen here, so an answer without a guard against it is accepted.
    """
    g = torch.Generator().manual_seed(0)
    few = torch.stack([levels(f, 2, 3, g) for _ in range(1000)])  # 3 levels do not split into 2 whole parts
    wide = torch.stack([levels(f, 4, 1000, g) for _ in range(200)])  # strata of 250 levels
    stratum, place = wide // 250, wide % 250
    again = [levels(f, 8, 1000, torch.Generator().manual_seed(1)) for _ in range(2)]
    often = unusual(few.clamp(-1, 3) + 1, torch.tensor([0, 1, 1, 1, 0]))
    return {
        "the lowest of 3 levels": few.min(),
        "the highest of 3 levels": few.max(),
        **{f"of the levels 0, 1, 2, is {k} drawn too often?": often[k + 1] > 0 for k in range(3)},
        **{f"of the levels 0, 1, 2, is {k} drawn too seldom?": often[k + 1] < 0 for k in range(3)},
        "is every stratum hit?": ((stratum.sort(1).values == torch.arange(4)).all(1).double().mean() > 0.9).item(),
        "do the places differ between strata?": ((place.amax(1) - place.amin(1) > 5).double().mean() > 0.5).item(),
        "do the places differ between draws?": (place.double().std() > 5).item(),
        "are all parts of a stratum visited equally often?": not unusual(place // 50, torch.ones(5)).any(),
        "does each stratum come first at times?": all((stratum[:, 0] == k).any() for k in range(4)),
        "does the same generator give the same draw?": torch.equal(*again),
    }


def levels(f, n: int, T: int, generator: torch.Generator) -> Tensor:
    """A draw, int64 [n].

    Raises:
        Unusable: it is something else.
    """
    drawn = f(n, T, generator)
    if as_tensor(drawn).shape != (n,):
        raise Unusable(f"your function gives back shape {list(as_tensor(drawn).shape)} for n = {n}, and [{n}] was expected")
    if drawn.is_floating_point():
        raise Unusable("your levels are no whole numbers; they will be indices, so round down with .long()")
    return drawn.long()


def unusual(values: Tensor, weights: Tensor) -> Tensor:
    """Is each value 0 … n-1 seen far more often (1) or more seldom (-1) than its weight says, by five standard deviations? [n]"""
    counts, p = torch.bincount(values.flatten(), minlength=len(weights)).double(), weights / weights.sum()
    off = counts - p * values.numel()
    return off.sign() * (off.abs() > 5 * (p * (1 - p) * values.numel()).sqrt())


def shuffled(values: Tensor, generator: torch.Generator) -> Tensor:
    return values[torch.randperm(len(values), generator=generator)]


def strata(places, levels=lambda u, T: (u * T).long(), order=shuffled):
    """An answer made of the places in the strata, of how a number in [0, 1) becomes a level, and of the order."""
    return lambda n, T, generator: order(levels((torch.arange(n) + places(n, generator)) / n, T), generator)


def each_its_own(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(n, generator=generator)


def whole_parts(n: int, T: int, generator: torch.Generator) -> Tensor:
    edges = [k * T // n for k in range(n + 1)]
    return shuffled(torch.tensor([int(torch.randint(a, b, (1,), generator=generator)) for a, b in zip(edges, edges[1:])]), generator)


STRATIFIED = Exercise(
    "03.1",
    diffusion.stratified_timesteps,
    observe_timesteps,
    (
        Mistake("these are independent draws: they leave some strata empty and hit others twice", lambda n, T, g: torch.randint(T, (n,), generator=g)),
        Mistake("you take the same place in each stratum at each call; the place must be random", strata(lambda n, g: torch.full((n,), 0.5))),
        Mistake("you take the first level of each stratum; the place must be random", strata(lambda n, g: torch.zeros(n))),
        Mistake("you draw one place for all strata; each stratum needs its own", strata(lambda n, g: torch.rand(1, generator=g))),
        Mistake("the strata always come in the same order; shuffle them, or the first image of a batch always gets low noise", strata(each_its_own, order=lambda t, g: t)),
        Mistake("the highest levels are never drawn: the strata must fill [0, T) to its end, also where n does not divide T", strata(each_its_own, lambda u, T: (u * (T - 1)).long())),
        Mistake("you are one level off: the code's t runs from 0 to T - 1", strata(each_its_own, lambda u, T: (u * T).long() + 1)),
        Mistake("round down, not to the nearest: T itself is no level, and 0 is drawn too seldom", strata(each_its_own, lambda u, T: (u * T).round().long())),
        Mistake("your strata are cut between whole levels, so where n does not divide T some levels are drawn too often; cut the interval [0, T) and round down at the end", whole_parts),
        Mistake(
            "your draws do not depend on `generator`, so nobody can repeat them; pass it to every random function",
            strata(lambda n, g: torch.rand(n), order=lambda t, g: t[torch.randperm(len(t))]),
        ),
    ),
)


# ------------------------------------------------------------------------- 03.2 chance in the difference


def observe_error(f) -> Observed:
    g = torch.Generator().manual_seed(0)
    loss_u, loss_s = (size * torch.empty(n).exponential_(generator=g) for size, n in ((200.0, 20_000), (400.0, 8000)))
    return {"prior 0.2": f(loss_u, loss_s, 0.2), "prior 0.4, fewer of U": f(loss_u[:15_000], loss_s, 0.4)}


def first_of_each(u: Tensor, s: Tensor, prior: float) -> Tensor:
    n = min(len(u), len(s))
    return (u[:n] - prior * s[:n]).std() / n**0.5


PAIRED = "you subtracted the losses of S from those of U one by one; they differ in number, so take the variance of each mean and add them up"


def error_of(formula):
    """An answer from a formula of the variances of U and S, of their numbers, and of the prior."""
    return lambda loss_u, loss_s, prior: formula(loss_u.var(), loss_s.var(), len(loss_u), len(loss_s), prior)


ERROR = Exercise(
    "03.2",
    risk.normal_part_error,
    observe_error,
    (
        Mistake("this is the variance; the standard error is its square root", error_of(lambda u, s, n, m, p: u / n + p**2 * s / m)),
        Mistake("the means are subtracted, but their variances add: chance in S does not undo chance in U", error_of(lambda u, s, n, m, p: (u / n - p**2 * s / m).sqrt())),
        Mistake("a factor multiplies a variance by its square: the prior enters squared", error_of(lambda u, s, n, m, p: (u / n + p * s / m).sqrt())),
        Mistake("the prior is missing: (3.6) subtracts only that share of E_S", error_of(lambda u, s, n, m, p: (u / n + s / m).sqrt())),
        Mistake("standard deviations of independent estimates do not add; their squares do", error_of(lambda u, s, n, m, p: (u / n).sqrt() + p * (s / m).sqrt())),
        Mistake("this is the spread of single losses; a mean of n losses has an n-th of their variance", error_of(lambda u, s, n, m, p: (u + p**2 * s).sqrt())),
        Mistake("you divided both variances by the number of unlabeled losses; S has its own number", error_of(lambda u, s, n, m, p: ((u + p**2 * s) / n).sqrt())),
        Mistake("divide each variance by its own number of losses, not by the number of all", error_of(lambda u, s, n, m, p: ((u + p**2 * s) / (n + m)).sqrt())),
        Mistake("a standard deviation shrinks with the root of n: divide the variance by n, then take the root", error_of(lambda u, s, n, m, p: (u / n**2 + p**2 * s / m**2).sqrt())),
        Mistake(PAIRED, lambda u, s, p: u - p * s),
        Mistake(PAIRED, lambda u, s, p: p * s - u),
        Mistake(PAIRED, first_of_each),
        Mistake("the variance of a mean is the variance over n, not over the root of n", error_of(lambda u, s, n, m, p: (u / n**0.5 + p**2 * s / m**0.5).sqrt())),
    ),
)


# ------------------------------------------------------------------------------ 03.3 the responsibility


def observe_responsibility(f) -> Observed:
    log_p_s, log_p_u = torch.tensor([-1.0, -3.0, -0.5, -12.0]), torch.tensor([-2.0, -1.1, -1.4, -0.7])
    return {
        "r at four points": f(log_p_s, log_p_u, 0.2),
        "r with an assumed prior above the true one": f(log_p_s, log_p_u, 0.5),
        "r far from all data": f(torch.tensor([-400.0, -352.0]), torch.tensor([-398.5, -351.0]), 0.2),
    }


NO_CUT = "do not cut r here: (3.9) may pass 1 when the assumed prior is too high, and section 5 is about that; only where (3.10) divides by 1 - r do later cells cut it"
NO_EPSILON = "near the data this is right, but a patch against 0/0, such as a small number, decides what r is far from them; subtract the logs first, then exponentiate"

RESPONSIBILITY = Exercise(
    "03.3",
    toy.responsibility_of,
    observe_responsibility,
    (
        Mistake("you used the logs as if they were the densities; (3.9) has the densities themselves", lambda s, u, p: p * s / u),
        Mistake("a difference of logs is the log of a ratio: exponentiate it", lambda s, u, p: p * (s - u)),
        Mistake("this is the log of r; exponentiate it", lambda s, u, p: s - u + torch.tensor(p).log()),
        Mistake("the prior is missing", lambda s, u, p: (s - u).exp()),
        Mistake("the prior multiplies the density, not its logarithm", lambda s, u, p: (p * (s - u)).exp()),
        Mistake("you divided p_U by p_S", lambda s, u, p: p * (u - s).exp()),
        Mistake(
            "your denominator takes p_U for p_N: U already holds the sensitive share, so (3.9) divides by p_U alone",
            lambda s, u, p: p * s.exp() / (p * s.exp() + (1 - p) * u.exp()),
        ),
        Mistake(
            "right near the data, but far from it both densities round to 0 and 0/0 is nan: subtract the logs first, then exponentiate",
            lambda s, u, p: p * s.exp() / u.exp(),
        ),
        Mistake(NO_EPSILON, lambda s, u, p: p * s.exp() / (u.exp() + 1e-12)),
        Mistake(NO_EPSILON, lambda s, u, p: p * (s.exp() + 1e-12) / (u.exp() + 1e-12)),
        Mistake(NO_EPSILON, lambda s, u, p: (p * s.exp() + 1e-12) / (u.exp() + 1e-12)),
        Mistake("you divided by prior p_S + p_U, as a sigmoid of the log ratio does; (3.9) divides by p_U alone", lambda s, u, p: torch.sigmoid(s - u + math.log(p))),
        Mistake("you divided by p_S + p_U, as a sigmoid of the log ratio does; (3.9) divides by p_U alone", lambda s, u, p: p * torch.sigmoid(s - u)),
        Mistake(NO_CUT, lambda s, u, p: (p * (s - u).exp()).clamp(max=1)),
        Mistake(NO_CUT, lambda s, u, p: (p * (s - u).exp()).clamp(max=0.999)),
    ),
)


# -------------------------------------------------------------------------------- 03.4 the composed noise


def fields() -> SimpleNamespace:
    """Two noise fields and r at as many points as a point has coordinates, to catch an r spread over the coordinates."""
    return SimpleNamespace(u=torch.tensor([[1.0, -2.0], [0.5, 3.0]]), s=torch.tensor([[0.3, 0.7], [-1.1, 2.0]]), r=torch.tensor([0.3, 0.8]))


def observe_composed(f) -> Observed:
    i = fields()
    return {"eps_N": f(i.u, i.s, i.r), "eps_N where nothing is sensitive": f(i.u, i.s, torch.zeros(2)), "eps_N at another r": f(i.s, i.u, i.r.flip(0))}


def composed(formula, shape=lambda r: r[:, None]):
    """An answer from a formula of eps_U, eps_S and r, with r shaped to multiply them."""
    return lambda eps_u, eps_s, r: formula(eps_u, eps_s, shape(r))


COMPOSED = Exercise(
    "03.4",
    diffusion.noise_of_normal,
    observe_composed,
    (
        Mistake("r has one value per point, and yours lies along the coordinates: r[:, None] has shape [n, 1]", composed(lambda u, s, r: (u - r * s) / (1 - r), lambda r: r)),
        Mistake("you did not divide by 1 - r: what is left of U must be scaled up again", composed(lambda u, s, r: u - r * s)),
        Mistake("you multiplied by 1 - r; (3.10) divides", composed(lambda u, s, r: (u - r * s) * (1 - r))),
        Mistake("the sensitive part must be taken out: subtract r eps_S", composed(lambda u, s, r: (u + r * s) / (1 - r))),
        Mistake("eps_S needs the factor r: only that share of U is sensitive at this point", composed(lambda u, s, r: (u - s) / (1 - r))),
        Mistake("you divided only r eps_S by 1 - r; the whole difference is divided", composed(lambda u, s, r: u - r * s / (1 - r))),
        Mistake("this mixes S and U with weights r and 1 - r; undo a mixture instead", composed(lambda u, s, r: r * s + (1 - r) * u)),
        Mistake("you divided by r; the share of normal points at x_t is 1 - r", composed(lambda u, s, r: (u - r * s) / r)),
    ),
)


# ------------------------------------------------------------------------- 03.5 the rate of a wrong prior


def observe_rate(f) -> Observed:
    return {f"NSR for a prior of {p:.2f} and b = {b:.2f}": f(p, b) for p, b in ((0.2, 0.1), (0.3, 0.05), (1 / 11, 0.0), (0.2, 0.2))}


RATE = Exercise(
    "03.5",
    evaluation.ideal_nsr,
    observe_rate,
    (
        Mistake("b has no effect in your answer; the target density is (p_U - b p_S) / (1 - b)", lambda p, b: 1 - p),
        Mistake("you took the mass b away, but did not scale what is left back to 1: divide by 1 - b", lambda p, b: 1 - p + b),
        Mistake("this is the share of sensitive samples; NSR is the share of normal ones", lambda p, b: (p - b) / (1 - b)),
        Mistake("you swapped the two: the normal part of U has mass 1 - prior, the whole target 1 - b", lambda p, b: (1 - b) / (1 - p)),
        Mistake("the mass that is left is 1 - b, and you multiplied by it; divide", lambda p, b: (1 - p) * (1 - b)),
        Mistake("what is taken away is b p_S, from the sensitive part alone; the normal part keeps its 1 - prior", lambda p, b: (1 - p - b) / (1 - b)),
        Mistake("b p_S has mass b, not b times the prior", lambda p, b: (1 - p) / (1 - b * p)),
        Mistake("the total mass after taking b away is 1 - b, not 1 + b", lambda p, b: (1 - p) / (1 + b)),
    ),
)


# ------------------------------------------------------------------------- 03.6 the slope of the log term


def observe_slope(f) -> Observed:
    l = torch.tensor([0.05, 0.4, 1.0, 2.5, 6.0], dtype=torch.float64)
    return {"slope at tau = 1": f(l, 1.0), "slope at tau = 10": f(10 * l, 10.0), "slope at tau = 0.5": f(l / 2, 0.5), "slope at l = 900": f(torch.tensor([900.0]), 1.0)}


SLOPE = Exercise(
    "03.6",
    risk.sensitive_slope,
    observe_slope,
    (
        Mistake("this is the size of the slope; the log term falls as l grows, so its slope is negative", lambda l, tau: 1 / (tau * torch.expm1(l / tau))),
        Mistake("the chain rule's factor 1/tau is missing", lambda l, tau: -1 / torch.expm1(l / tau)),
        Mistake("the temperature also stands in the exponent: e^(l / tau)", lambda l, tau: -1 / (tau * torch.expm1(l))),
        Mistake("the temperature divides: the slope has 1/tau in front, not tau", lambda l, tau: -tau / torch.expm1(l / tau)),
        Mistake("this is (3.13), the slope for tau = 1 at every temperature", lambda l, tau: -1 / torch.expm1(l)),
        Mistake("l is divided by tau, not multiplied", lambda l, tau: -1 / (tau * torch.expm1(l * tau))),
        Mistake("the - 1 is missing: it is e^(l / tau) - 1 in the denominator", lambda l, tau: -1 / (tau * torch.exp(l / tau))),
        Mistake("this is the log term itself; its slope in l is asked for", lambda l, tau: -torch.log(-torch.expm1(-l / tau))),
        Mistake(
            "the inner derivative is missing: 1 - e^(-l / tau) has the slope e^(-l / tau) / tau, which belongs in the numerator",
            lambda l, tau: -1 / (tau * -torch.expm1(-l / tau)),
        ),
    ),
)

EXERCISES = (STRATIFIED, ERROR, RESPONSIBILITY, COMPOSED, RATE, SLOPE)
