"""Exercises of notebook 05: a risk for all priors, a noise between two models, and what bounds the prior from above."""

import math

import torch
from torch import Tensor

from .. import prior, risk, rivals
from .base import Exercise, Mistake, Observed, Unusable, advice, named
from .nb02 import paired, slopes

# ------------------------------------------------------------------------- 05.1 the risk for all priors


def observe_amortised_risk(f) -> Observed:
    u, s = torch.tensor([0.3, 1.2, 0.7, 2.0, 0.4, 1.6]), torch.tensor([1.5, 4.0, 2.5])
    b, high = torch.tensor([0.05, 0.2, 0.3]), torch.tensor([0.9, 0.5, 0.8])
    return {
        "three priors from 0.05 to 0.3": f(u, s, b),
        "large priors, where the difference is negative": f(u, s, high),
        "the same prior 0.25 for all": f(u[:4], s, torch.full((3,), 0.25)),
        "slopes in the losses": slopes(lambda u, s: f(u, s, b), u, s),
    }


UNCUT = "you corrected it; (5.1) has no correction here, and the difference may be negative"
AMORTISED_RISK = Exercise(
    "05.1",
    risk.amortised_risk,
    observe_amortised_risk,
    (
        Mistake("you multiplied the mean prior by the mean loss; each image of S has a prior of its own, so multiply first and then average", lambda u, s, b: u.mean() - b.mean() * s.mean()),
        Mistake("the priors are missing: each loss on S is multiplied by its own b", lambda u, s, b: u.mean() - s.mean()),
        Mistake("you summed where (5.1) asks for means", lambda u, s, b: u.sum() - (b * s).sum()),
        Mistake("you summed over S; (5.1) asks for a mean there too", lambda u, s, b: u.mean() - (b * s).sum()),
        Mistake("you divided by the sum of the priors, which makes a weighted mean of b l; (5.1) divides by the number of images of S", lambda u, s, b: u.mean() - (b * s).sum() / b.sum()),
        Mistake("you divided by 1 - b; (5.1) leaves the difference as it is", lambda u, s, b: (u.mean() - (b * s).mean()) / (1 - b.mean())),
        Mistake("you divided each loss on S by its 1 - b; its factor is b alone", lambda u, s, b: u.mean() - (b * s / (1 - b)).mean()),
        Mistake("the losses on S have the factor 1 - b; what is taken out of U is the share b", lambda u, s, b: u.mean() - ((1 - b) * s).mean()),
        Mistake("the factor b is on U; it belongs to the losses on S", lambda u, s, b: b.mean() * u.mean() - s.mean()),
        Mistake("the factor b is on both sides; U counts in full", lambda u, s, b: b.mean() * u.mean() - (b * s).mean()),
        Mistake("U has the factor 1 - b; in (5.1) it counts in full", lambda u, s, b: (1 - b.mean()) * u.mean() - (b * s).mean()),
        Mistake("you added S; its part must be subtracted", lambda u, s, b: u.mean() + (b * s).mean()),
        Mistake("the difference is turned round: S is subtracted from U", lambda u, s, b: (b * s).mean() - u.mean()),
        Mistake("U and S have changed places", lambda u, s, b: s.mean() - b.mean() * u.mean()),
        Mistake(UNCUT, lambda u, s, b: (u.mean() - (b * s).mean()).abs()),
        Mistake(UNCUT, lambda u, s, b: (u.mean() - (b * s).mean()).clamp(min=0)),
        Mistake("you took one mean over both sets; U and S each have their own, whatever their numbers", lambda u, s, b: torch.cat([u, -b * s]).mean()),
        Mistake("you gave one value per image of U; take the mean over U too", lambda u, s, b: u - (b * s).mean()),
        Mistake("you gave one value per image of S; take the mean over S too", lambda u, s, b: u.mean() - b * s),
        Mistake("you gave one value per prior, each with the mean loss on S; multiply each prior by its own loss, and take the mean", lambda u, s, b: u.mean() - b * s.mean()),
        Mistake("the losses on S are subtracted as they came; you took l_S of them", lambda u, s, b: u.mean() - (b * risk.sensitive_loss(s)).mean()),
        Mistake("you added the log term of the whole risk; (5.1) is its linear part alone", lambda u, s, b: (b * risk.sensitive_loss(s)).mean() + u.mean() - (b * s).mean()),
        *paired("you combined values of U and of S one by one, but they differ in number; the priors belong to the losses on S alone: take the mean of each set first"),
        Mistake("the numbers are right, but no slope passes through them, and training needs one: do without .item() and .detach()", lambda u, s, b: (u.mean() - (b * s).mean()).item()),
        Mistake("the part of S must pass on its slope too: no .item() or .detach() on S", lambda u, s, b: u.mean() - (b * s).mean().detach()),
    ),
)


# ------------------------------------------------------------------------ 05.2 the share of the model of U


def observe_share(f) -> Observed:
    mild = torch.tensor([0.2, 0.5, 0.8, 0.0, 0.6]), torch.tensor([0.3, 0.04, 1.0, 0.7, 0.9])
    beyond = torch.tensor([0.8, 0.5, 0.1, 0.0]), torch.tensor([1.2, 1.6, 1.2, 1.3])
    return {
        "no cut needed": f(*mild, 0.9, -0.5),
        "c r above the ceiling": f(torch.tensor([1.0, 0.97, 0.99]), torch.tensor([0.95, 0.96, 0.93]), 0.9, -0.5),
        "c above 1": f(*beyond, 0.9, -0.5),
        "ceiling 0.4 and least -1.5": f(torch.cat([mild[0], beyond[0]]), torch.cat([mild[1], beyond[1]]), 0.4, -1.5),
    }


def share(formula, product=torch.mul, of_product=lambda p, ceiling: p.clamp(max=ceiling), of_share=lambda s, least: s.clamp(min=least)):
    """An answer from a formula of r, c and a cut product of them, which is cut at the end."""
    return lambda r, c, ceiling=0.9, least=-0.5: of_share(formula(r, c, of_product(product(r, c), ceiling)), least)


def uncut(formula, product=torch.mul):
    """`share` without its cuts."""
    return share(formula, product, as_it_is, as_it_is)


def as_it_is(value: Tensor, bound: float) -> Tensor:
    return value


def quotient(r: Tensor, c: Tensor, product: Tensor) -> Tensor:
    return (1 - c) / (1 - product)


def of_r_alone(r: Tensor, c: Tensor) -> Tensor:
    return r


def of_c_alone(r: Tensor, c: Tensor) -> Tensor:
    return c


NOT_OF_U = "this is 1 - s, the share of eps_N; asked for is that of eps_U"
WRONG_SHARES = {
    NOT_OF_U: (lambda r, c, p: 1 - (1 - c) / (1 - p),),
    "r stands above the line, where c belongs": (lambda r, c, p: (1 - r) / (1 - p),),
    "this is s for r = 0; below the line stands 1 - c r": (lambda r, c, p: 1 - c,),
    "below the line c is missing: 1 - c r, not 1 - r": (quotient, of_r_alone),
    "below the line r is missing: 1 - c r, not 1 - c": (quotient, of_c_alone),
    "the quotient is upside down: 1 - c stands above the line, and 1 - c r below": (lambda r, c, p: (1 - p) / (1 - c),),
    "you multiplied by 1 - c r; (5.2) divides": (lambda r, c, p: (1 - c) * (1 - p),),
    "the sign below the line is wrong: it is 1 - c r": (lambda r, c, p: (1 - c) / (1 + p),),
    "the sign above the line is wrong: it is 1 - c": (lambda r, c, p: (1 + c) / (1 - p),),
    "this is the factor 1 / (1 - c r) of eps_U where eps_S is subtracted; s has 1 - c above the line": (lambda r, c, p: 1 / (1 - p),),
}
SHARE = Exercise(
    "05.2",
    rivals.share_of_u,
    observe_share,
    (
        Mistake("c r is not cut: where it comes near 1 you divide by almost nothing, and above 1 the sign turns; cut it at `ceiling`", share(quotient, of_product=as_it_is)),
        Mistake("s is not cut: beyond c = 1 it runs far below zero; keep it at `least` or above", share(quotient, of_share=as_it_is)),
        Mistake("neither c r nor s is cut", uncut(quotient)),
        Mistake("you cut r at `ceiling`; the product c r must be cut", lambda r, c, ceiling, least: ((1 - c) / (1 - c * r.clamp(max=ceiling))).clamp(min=least)),
        Mistake("you cut r at `ceiling`, where the product c r must be cut, and s not at all", lambda r, c, ceiling, least: (1 - c) / (1 - c * r.clamp(max=ceiling))),
        Mistake("you cut c at `ceiling`; the product c r must be cut", lambda r, c, ceiling, least: ((1 - c.clamp(max=ceiling)) / (1 - c.clamp(max=ceiling) * r)).clamp(min=least)),
        Mistake("you cut the denominator 1 - c r at `ceiling`; c r itself is what must not exceed it", lambda r, c, ceiling, least: ((1 - c) / (1 - c * r).clamp(max=ceiling)).clamp(min=least)),
        Mistake("your 1 - c r is kept above `ceiling`; it is c r that must stay below", lambda r, c, ceiling, least: ((1 - c) / (1 - c * r).clamp(min=ceiling)).clamp(min=least)),
        Mistake("beyond c = 1 your s is 0; it may be negative, down to `least`", share(quotient, of_share=lambda s, least: s.clamp(min=0))),
        Mistake("`least` is below 0 as it is; you turned its sign", share(quotient, of_share=lambda s, least: s.clamp(min=-least))),
        Mistake("you cut c r on the wrong side: `ceiling` is the most it may be", share(quotient, of_product=lambda p, ceiling: p.clamp(min=ceiling))),
        Mistake("you cut s on the wrong side: `least` is the least it may be", share(quotient, of_share=lambda s, least: s.clamp(max=least))),
        Mistake("both cuts are on the wrong side: `ceiling` is the most, and `least` the least", share(quotient, of_product=lambda p, ceiling: p.clamp(min=ceiling), of_share=lambda s, least: s.clamp(max=least))),
        Mistake("you cut s at `ceiling` too; that is the bound of c r", lambda r, c, ceiling, least: rivals.share_of_u(r, c, ceiling, least).clamp(max=ceiling)),
        Mistake("you cut s at `ceiling`; that is the bound of c r, which you left uncut", lambda r, c, ceiling, least: ((1 - c) / (1 - c * r)).clamp(least, ceiling)),
        Mistake("you wrote 0.9 and -0.5 where `ceiling` and `least` belong", lambda r, c, ceiling, least: rivals.share_of_u(r, c)),
        Mistake("you wrote 0.9 where `ceiling` belongs", lambda r, c, ceiling, least: rivals.share_of_u(r, c, least=least)),
        Mistake("you wrote -0.5 where `least` belongs", lambda r, c, ceiling, least: rivals.share_of_u(r, c, ceiling)),
        Mistake(NOT_OF_U, lambda *args: 1 - rivals.share_of_u(*args)),
        Mistake(NOT_OF_U, share(lambda r, c, p: c * (1 - r) / (1 - p))),
        *(Mistake(says, share(*parts)) for says, parts in WRONG_SHARES.items()),
        *(Mistake(f"{says} (and mind both cuts)", uncut(*parts)) for says, parts in WRONG_SHARES.items()),
    ),
)


# ------------------------------------------------------------------------- 05.3 the shares above a threshold


def observe_tails(f) -> Observed:
    cases = {
        "scores of U and S mixed": (torch.tensor([0.4, -1.0, 0.0, 0.9, -2.0, 1.5, 0.2, -0.3]), torch.tensor([2.0, 0.5, -0.1, 1.2, 3.0])),
        "equal scores": (torch.tensor([2.0, 1.0, 3.0, 1.0, 0.0, 1.0]), torch.tensor([3.0, 1.0, 1.0, 2.0])),
        "one score in S": (torch.tensor([0.1, 0.7, 0.3]), torch.tensor([0.3])),
    }
    seen: dict[str, Tensor] = {}
    for name, scores in cases.items():
        h, u, s = three(f(*(g.clone() for g in scores)))
        seen |= {f"thresholds h, {name}": h, f"P_U, {name}": u, f"P_S, {name}": s}
    return seen


def three(given) -> tuple[Tensor, Tensor, Tensor]:
    """The three tensors of an answer.

    Raises:
        Unusable: it is something else.
    """
    if not isinstance(given, (tuple, list)) or len(given) != 3:
        raise Unusable(f"your function gives back {named(given)}; three tensors were expected, the thresholds h, P_U and P_S")
    for place, value in zip(("first", "second", "third"), given):
        if not isinstance(value, Tensor):
            raise Unusable(f"the {place} of the three things that your function gives back is {named(value)}; a tensor was expected{advice(value)}")
    return tuple(given)


def tails(thresholds=lambda u, s: s.unique(), inside=torch.ge, size=lambda u, s: (len(u), len(s)), order=lambda h, u, s: (h, u, s)):
    """An answer from its thresholds, from which scores lie in a bin, and from what the numbers in it are divided by."""

    def masses(score_u: Tensor, score_s: Tensor):
        h = thresholds(score_u, score_s)
        u, s = (inside(g, h[:, None]).double().sum(1) / n for g, n in zip((score_u, score_s), size(score_u, score_s)))
        return order(h, u, s)

    return masses


BACKWARDS = "the thresholds fall; they must rise, and the shares with them in step"
TAILS = Exercise(
    "05.3",
    prior.tail_masses,
    observe_tails,
    (
        Mistake("a score of exactly h lies in the bin too: >=, not >", tails(inside=torch.gt)),
        Mistake("these are the shares below h; the bin holds the scores of h and above", tails(inside=torch.lt)),
        Mistake("these are the shares up to h; the bin holds the scores of h and above", tails(inside=torch.le)),
        Mistake("these are the shares at h exactly; the bin holds everything above it too", tails(inside=torch.eq)),
        Mistake("these are numbers of images; divide by how many there are in U, and in S", tails(size=lambda u, s: (1, 1))),
        Mistake("both are divided by the size of U; P_S is a share of S", tails(size=lambda u, s: (len(u), len(u)))),
        Mistake("both are divided by the size of S; P_U is a share of U", tails(size=lambda u, s: (len(s), len(s)))),
        Mistake("you divided by the number of all images; P_U is a share of U, and P_S a share of S", tails(size=lambda u, s: (len(u) + len(s),) * 2)),
        Mistake("you divided by the number of thresholds; P_U is a share of U, and P_S a share of S", tails(size=lambda u, s: (len(s.unique()),) * 2)),
        Mistake("your thresholds are the scores of U; (5.4) takes those of S", tails(lambda u, s: u.unique())),
        Mistake("your thresholds are the scores of both sets; (5.4) takes those of S alone", tails(lambda u, s: torch.cat([u, s]).unique())),
        Mistake("your thresholds are the scores that U and S have in common; (5.4) takes all those of S", tails(lambda u, s: s[torch.isin(s, u)].unique())),
        Mistake(BACKWARDS, tails(lambda u, s: s.unique().flip(0))),
        Mistake("the thresholds fall, and a score that occurs twice is there twice; each must be there once, rising", tails(lambda u, s: s.sort(descending=True).values)),
        Mistake("a score that occurs twice in S is there twice; each threshold once", tails(lambda u, s: s.sort().values)),
        Mistake("the thresholds are in the order in which they came; sort them, each once: `unique` does both", tails(lambda u, s: s)),
        Mistake("the shares run against the thresholds: they must fall while h rises", tails(order=lambda h, u, s: (h, u.flip(0), s.flip(0)))),
        Mistake("P_U and P_S have changed places: the order is h, P_U, P_S", tails(order=lambda h, u, s: (h, s, u))),
        Mistake("the thresholds come first: the order is h, P_U, P_S", tails(order=lambda h, u, s: (u, s, h))),
        Mistake("the thresholds come first, then P_U: the order is h, P_U, P_S", tails(order=lambda h, u, s: (s, u, h))),
        Mistake("U and S have changed places: the thresholds are scores of S", lambda u, s: prior.tail_masses(s, u)),
    ),
)


# ----------------------------------------------------------------------------- 05.4 the bound of every bin


def observe_bounds(f) -> Observed:
    u, s = torch.tensor([1.0, 0.4, 0.2, 0.12, 0.03]).double(), torch.tensor([1.0, 0.9, 0.7, 0.5, 0.1]).double()
    return {
        "1200 images in U, 100 in S": f(u, s, 1200, 100, 0.1, 0.01),
        "few images": f(u[1:], s[1:], 90, 20, 0.1, 0.01),
        "delta 0.02": f(u, s, 1200, 100, 0.02, 0.01),
        "gamma 0.3": f(u, s, 1200, 100, 0.1, 0.3),
    }


def root(n: float, delta: float) -> float:
    """What chance may add to the share of n images."""
    return math.sqrt(math.log(4 / delta) / (2 * n))


def bounds(formula, of_chance=root):
    """An answer from a formula of P_U, P_S, gamma, and what chance adds on U and on S."""
    return lambda u, s, n_u, n_s, delta=0.1, gamma=0.01: formula(u, s, gamma, of_chance(n_u, delta), of_chance(n_s, delta))


def the_bound(u, s, gamma, a, b):
    return u / s + (1 + gamma) / s * (a + b)


NO_ROOT = "the logarithm is of 4 / delta, and positive; that of a number below 1 is negative and has no root"
BOUNDS = Exercise(
    "05.4",
    prior.upper_bounds,
    observe_bounds,
    (
        Mistake("this is the ratio P_U / P_S alone; the bound adds (5.5), what chance may do to it", bounds(lambda u, s, gamma, a, b: u / s)),
        Mistake("this is (5.5) alone; the bound adds it to the ratio P_U / P_S", bounds(lambda u, s, gamma, a, b: (1 + gamma) / s * (a + b))),
        Mistake("you subtracted (5.5), which makes a lower bound; add it", bounds(lambda u, s, gamma, a, b: u / s - (1 + gamma) / s * (a + b))),
        Mistake("(5.5) is not divided by P_S: chance weighs the more, the fewer images of S the bin holds", bounds(lambda u, s, gamma, a, b: u / s + (1 + gamma) * (a + b))),
        Mistake("(5.5) is divided by P_U; the share of S stands below the line in both terms", bounds(lambda u, s, gamma, a, b: u / s + (1 + gamma) / u * (a + b))),
        Mistake("you divided each root by the share of its own set; P_S stands below both", bounds(lambda u, s, gamma, a, b: u / s + (1 + gamma) * (a / u + b / s))),
        Mistake("you multiplied (5.5) by P_S; it divides", bounds(lambda u, s, gamma, a, b: u / s + (1 + gamma) * s * (a + b))),
        Mistake("the ratio is upside down: P_U / P_S", bounds(lambda u, s, gamma, a, b: s / u + (1 + gamma) / s * (a + b))),
        Mistake("P_U and P_S have changed places, in both terms", bounds(lambda u, s, gamma, a, b: s / u + (1 + gamma) / u * (a + b))),
        Mistake("P_U is not divided by P_S", bounds(lambda u, s, gamma, a, b: u + (1 + gamma) / s * (a + b))),
        Mistake("the slack gamma is missing: the factor of (5.5) is 1 + gamma", bounds(lambda u, s, gamma, a, b: u / s + (a + b) / s)),
        Mistake("the factor of (5.5) is 1 + gamma, not gamma", bounds(lambda u, s, gamma, a, b: u / s + gamma / s * (a + b))),
        Mistake("the factor of (5.5) is 1 + gamma, not 1 - gamma", bounds(lambda u, s, gamma, a, b: u / s + (1 - gamma) / s * (a + b))),
        Mistake("1 + gamma multiplies the ratio too; it belongs to (5.5) alone", bounds(lambda u, s, gamma, a, b: (1 + gamma) / s * (u + a + b))),
        Mistake("the root of S is missing: chance comes in twice, from U and from S", bounds(lambda u, s, gamma, a, b: the_bound(u, s, gamma, a, 0))),
        Mistake("the root of U is missing: chance comes in twice, from U and from S", bounds(lambda u, s, gamma, a, b: the_bound(u, s, gamma, 0, b))),
        Mistake("you took one root of the sum; (5.5) adds two roots", bounds(lambda u, s, gamma, a, b: the_bound(u, s, gamma, math.hypot(a, b), 0))),
        Mistake("you put U and S together as one sample of n_U + n_S; (5.5) has a root for each", lambda u, s, n_u, n_s, delta, gamma: the_bound(u, s, gamma, root(n_u + n_s, delta), 0)),
        Mistake("the two roots are added, not multiplied", bounds(lambda u, s, gamma, a, b: the_bound(u, s, gamma, a * b, 0))),
        Mistake("the logarithm is of 4 / delta, not of 1 / delta: a chance for each side of each set", bounds(the_bound, lambda n, delta: math.sqrt(math.log(1 / delta) / (2 * n)))),
        Mistake("the logarithm is of 4 / delta, not of 2 / delta: a chance for each side of each set", bounds(the_bound, lambda n, delta: math.sqrt(math.log(2 / delta) / (2 * n)))),
        Mistake("you took the logarithm to base 10; (5.5) has the natural one, `math.log`", bounds(the_bound, lambda n, delta: math.sqrt(math.log10(4 / delta) / (2 * n)))),
        Mistake("the logarithm is missing: log(4 / delta)", bounds(the_bound, lambda n, delta: math.sqrt(4 / delta / (2 * n)))),
        Mistake(NO_ROOT, bounds(the_bound, lambda n, delta: math.sqrt(math.log(delta / 4) / (2 * n)))),
        Mistake(NO_ROOT, bounds(lambda u, s, gamma, a, b: the_bound(u, s, math.nan, a, b))),
        Mistake("the factor 2 is missing: below the line stands 2 n", bounds(the_bound, lambda n, delta: math.sqrt(math.log(4 / delta) / n))),
        Mistake("`/ 2 * n` divides by 2 and then multiplies by n; write `/ (2 * n)`", bounds(the_bound, lambda n, delta: math.sqrt(math.log(4 / delta) / 2 * n))),
        Mistake("the roots are missing", bounds(the_bound, lambda n, delta: math.log(4 / delta) / (2 * n))),
        Mistake("the root is of the logarithm alone; 2 n stands under it too", bounds(the_bound, lambda n, delta: math.sqrt(math.log(4 / delta)) / (2 * n))),
        Mistake("the root is of 2 n alone; the logarithm stands under it too", bounds(the_bound, lambda n, delta: math.log(4 / delta) / math.sqrt(2 * n))),
        Mistake("you wrote 0.1 and 0.01 where `delta` and `gamma` belong", lambda u, s, n_u, n_s, delta, gamma: prior.upper_bounds(u, s, n_u, n_s)),
        Mistake("you wrote 0.1 where `delta` belongs", lambda u, s, n_u, n_s, delta, gamma: prior.upper_bounds(u, s, n_u, n_s, gamma=gamma)),
        Mistake("you wrote 0.01 where `gamma` belongs", lambda u, s, n_u, n_s, delta, gamma: prior.upper_bounds(u, s, n_u, n_s, delta)),
        Mistake("this is the lowest bound; asked for is that of every bin", lambda *args: prior.upper_bounds(*args).min()),
        Mistake("this is the place of the lowest bound; asked for are the bounds themselves, of every bin", lambda *args: prior.upper_bounds(*args).argmin()),
    ),
)


# --------------------------------------------------------------------------- 05.5 where the floor is met


def observe_floor(f) -> Observed:
    """Where the losses tell S from N, as they must in the library."""
    n, s = torch.tensor([1.0, 2.0, 3.0, 2.5, 1.5]), torch.tensor([9.0, 10.0, 11.5])
    return {
        "U in between": f(torch.tensor([1.5, 2.0, 9.5, 3.0, 1.0, 10.0, 2.5, 2.0]), s, n),
        "hardly a sensitive image in U": f(torch.tensor([1.4, 2.8, 2.2, 2.1]), s, n),
        "losses on U below those on N": f(torch.tensor([1.0, 2.0, 1.5, 2.0]), s, n),
        "other losses": f(torch.tensor([20.0, 35.0]), torch.tensor([50.0, 41.0, 45.0, 47.0]), torch.tensor([11.0, 14.0, 12.0])),
    }


def of_means(formula):
    """An answer from a formula of E_U, E_S and E_N."""
    return lambda u, s, n: formula(u.mean(), s.mean(), n.mean())


CUT = "you cut the result to [0, 1]; here it may lie outside, and shows by that that something is off"
FLOOR_PAIRED = "you combined losses of two sets one by one, but they differ in number, and no two belong together: take the mean of each first"
FLOOR = Exercise(
    "05.5",
    prior.prior_at_floor,
    observe_floor,
    (
        Mistake("this is 1 minus the prior: S and N have changed places", of_means(lambda u, s, n: (u - s) / (n - s))),
        Mistake("the quotient is upside down: E_U - E_N stands above the line", of_means(lambda u, s, n: (s - n) / (u - n))),
        Mistake("the losses on normal images are missing: they are no zero, so E_N comes off above the line and below", of_means(lambda u, s, n: u / s)),
        Mistake("E_N is missing below the line: S is measured from N too", of_means(lambda u, s, n: (u - n) / s)),
        Mistake("E_N is missing above the line: U is measured from N too", of_means(lambda u, s, n: u / (s - n))),
        Mistake("below the line stands E_S - E_N; you divided by E_S - E_U, which gives prior / (1 - prior)", of_means(lambda u, s, n: (u - n) / (s - u))),
        Mistake("below the line stands E_S - E_N; you divided by E_N alone", of_means(lambda u, s, n: (u - n) / n)),
        Mistake("the sign is wrong: take the same set off above the line and below", of_means(lambda u, s, n: (u - n) / (n - s))),
        Mistake("you added where (5.6) subtracts", of_means(lambda u, s, n: (u + n) / (s + n))),
        Mistake("you added E_N below the line; (5.6) subtracts it there too", of_means(lambda u, s, n: (u - n) / (s + n))),
        Mistake("U and N have changed places", of_means(lambda u, s, n: (n - u) / (s - u))),
        Mistake("you did not divide by E_S - E_N", of_means(lambda u, s, n: u - n)),
        Mistake("you multiplied by E_S - E_N; (5.6) divides", of_means(lambda u, s, n: (u - n) * (s - n))),
        *(
            Mistake("brackets are missing: each difference needs its own, as `/` comes before `-`", of_means(formula))
            for formula in (lambda u, s, n: u - n / s - n, lambda u, s, n: (u - n) / s - n, lambda u, s, n: u - n / (s - n))
        ),
        Mistake("you summed where (5.6) has means; the sets differ in number", lambda u, s, n: (u.sum() - n.sum()) / (s.sum() - n.sum())),
        Mistake("you took medians; (5.6) has means, as only they mix in the shares of the sets", lambda u, s, n: (u.median() - n.median()) / (s.median() - n.median())),
        Mistake("you gave one value per image of U; take the mean over U too", lambda u, s, n: (u - n.mean()) / (s.mean() - n.mean())),
        Mistake(CUT, of_means(lambda u, s, n: ((u - n) / (s - n)).clamp(0, 1))),
        Mistake("you took absolute values; a negative result must be seen", of_means(lambda u, s, n: ((u - n) / (s - n)).abs())),
        *(Mistake(FLOOR_PAIRED, pair) for pair in (lambda u, s, n: u - n, lambda u, s, n: n - u, lambda u, s, n: s - n, lambda u, s, n: n - s, lambda u, s, n: u - s, lambda u, s, n: s - u)),
    ),
)

EXERCISES = (AMORTISED_RISK, SHARE, TAILS, BOUNDS, FLOOR)
