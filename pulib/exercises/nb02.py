"""Exercises of notebook 02: the PU risk from its parts, its error rate, and which prior it wants."""

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .. import data, risk
from .base import Exercise, Mistake, Observed, Unusable, as_tensor


def slopes(f: Callable, *values: Tensor) -> Tensor:
    """The derivative of the sum of f(*values) in each of `values`, one after the other; 0 where f gives back a constant."""
    leaves = [value.clone().requires_grad_() for value in values]
    result = f(*leaves)
    if not (isinstance(result, Tensor) and result.requires_grad):
        return torch.zeros(sum(leaf.numel() for leaf in leaves))
    grads = torch.autograd.grad(result.sum(), leaves, allow_unused=True)
    return torch.cat([(torch.zeros_like(leaf) if grad is None else grad).flatten() for leaf, grad in zip(leaves, grads)])


def paired(says: str) -> tuple[Mistake, ...]:
    """The points of U and of S taken one by one, which raises an error, as they differ in number."""
    return Mistake(says, lambda u, s, *rest: u - s), Mistake(says, lambda u, s, *rest: s - u)


PAIRED = "you combined the points of U and of S one by one, but they differ in number, and no two belong together: take the mean of each first"


def losses() -> tuple[Tensor, Tensor]:
    """l_N of a few points from U and from S, as a classifier gives them: low on most of U, high on S."""
    return torch.tensor([0.05, 0.1, 0.2, 0.4, 0.9, 2.5]), torch.tensor([0.6, 1.5, 2.8])


def flattering() -> tuple[Tensor, Tensor]:
    """Losses whose inner term is negative: S is charged far more than U."""
    return torch.tensor([0.1, 0.3, 0.2, 0.6]), torch.tensor([4.0, 6.0, 2.0])


# -------------------------------------------------------------------------------- 02.1 the other loss


def observe_sensitive_loss(f) -> Observed:
    typical = torch.tensor([0.01, 0.1, 0.5, 1.0, 2.0, 5.0])
    return {
        "losses from 0.01 to 5": f(typical),
        "losses of 30 and 120": f(torch.tensor([30.0, 120.0])),
        "tiny losses": f(torch.tensor([2e-6, 7e-6, 1.3e-5, 5e-5])),
        "a loss of 0": f(torch.zeros(1)),
        "slope at losses from 0.01 to 5": slopes(f, typical),
        "slope at losses of 30 and 120": slopes(f, torch.tensor([30.0, 120.0])),
    }


def held(loss: Tensor) -> Tensor:
    return loss.clamp(min=risk.SMALLEST_LOSS)


def guarded_by(eps: float) -> tuple[Mistake, ...]:
    """A small number that keeps the logarithm finite, added or as a bound, in the ways to write it."""
    says = "you guard the logarithm by a small number that changes small losses too, or comes when their digits are lost; `clamp` l itself, before you use it"
    any_size = (
        lambda l: -torch.expm1(-(l + eps)),
        lambda l: -torch.expm1(-l) + eps,
        lambda l: 1 - torch.exp(-l) + eps,
        lambda l: (1 - torch.exp(-l)).clamp(min=eps),
    )
    not_lost = (lambda l: 1 - torch.exp(-(l + eps)), lambda l: 1 + eps - torch.exp(-l)) if eps >= 1e-7 else ()  # lost next to 1
    return tuple(Mistake(says, lambda l, form=form: -torch.log(form(l))) for form in (*any_size, *not_lost))


SENSITIVE_LOSS = Exercise(
    "02.1",
    risk.sensitive_loss,
    observe_sensitive_loss,
    (
        Mistake("right up to the sign: a loss is minus the logarithm of a probability", lambda l: torch.log(-torch.expm1(-held(l)))),
        Mistake("this is the probability of sensitive, 1 - e^(-l); the loss is minus its logarithm", lambda l: -torch.expm1(-held(l))),
        Mistake("this is l_N again: -log(e^(-l)) is l; the probability of sensitive is 1 - e^(-l)", lambda l: -torch.log(torch.exp(-l))),
        Mistake("you took the loss l itself for the probability; (2.3) has e^(-l) in its place", lambda l: -torch.log(1 - l)),
        Mistake("the sign in the exponent is wrong: e^l is above 1, so 1 - e^l has no logarithm", lambda l: -torch.log(1 - torch.exp(l))),
        Mistake("right on paper, but 1 - e^(-l) loses its digits for small l, and l = 0 gives infinity; see the hint", lambda l: -torch.log(1 - torch.exp(-l))),
        Mistake("right on paper, but for small l the difference 1 - e^(-l) loses its digits; `torch.expm1` keeps them", lambda l: -torch.log(1 - torch.exp(-held(l)))),
        Mistake("right for all l > 0, but l = 0 gives infinity: keep l at 1e-6 or above before you use it", lambda l: -torch.log(-torch.expm1(-l))),
        *(mistake for eps in (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12) for mistake in guarded_by(eps)),
        Mistake("you took l for a score; the sigmoid belongs to g, and with l the probability of sensitive is 1 - e^(-l)", lambda l: softplus(-l)),
        Mistake("you took l for a score; the sigmoid belongs to g, and with l the probability of sensitive is 1 - e^(-l)", lambda l: softplus(l)),
        Mistake("you averaged; keep one loss per point, in the shape that came in", lambda l: -torch.log(-torch.expm1(-held(l))).mean()),
        Mistake("the values are right, but no slope passes through them: do without .item() and .detach()", lambda l: -torch.log(-torch.expm1(-held(l.detach())))),
    ),
)


# ------------------------------------------------------------------------------- 02.2 the inner term


def observe_normal_part(f) -> Observed:
    u, s = losses()
    return {
        "prior 0.3": f(u, s, 0.3),
        "prior 0.1": f(u, s, 0.1),
        "an inner term below zero": f(*flattering(), 0.4),
        "slopes in the losses": slopes(lambda u, s: f(u, s, 0.3), u, s),
    }


NORMAL_PART = Exercise(
    "02.2",
    risk.normal_part,
    observe_normal_part,
    (
        Mistake("you subtracted prior * E_U; the refund is the prior times the mean over S", lambda u, s, p: u.mean() - p * u.mean()),
        Mistake("the prior is missing: only the share pi of U is sensitive, so refund that share of E_S", lambda u, s, p: u.mean() - s.mean()),
        Mistake("you added the refund; subtract it, as U was charged for its sensitive part", lambda u, s, p: u.mean() + p * s.mean()),
        Mistake("the prior multiplies the whole difference; it belongs to E_S alone", lambda u, s, p: p * (u.mean() - s.mean())),
        Mistake("you refunded (1 - prior) E_S; the sensitive share of U is the prior itself", lambda u, s, p: u.mean() - (1 - p) * s.mean()),
        Mistake("U and S have changed places: U is charged, S is refunded", lambda u, s, p: s.mean() - p * u.mean()),
        Mistake("you averaged over all points at once; U and S each have their own mean, whatever their numbers", lambda u, s, p: torch.cat([u, -p * s]).mean()),
        Mistake("you kept one value per point of U; take the mean over U too", lambda u, s, p: u - p * s.mean()),
        Mistake("you summed where the expectations ask for means", lambda u, s, p: u.sum() - p * s.sum()),
        Mistake("you divided by 1 - prior, which gives E_N; (2.7) asks for (1 - prior) E_N", lambda u, s, p: (u.mean() - p * s.mean()) / (1 - p)),
        Mistake("the refund takes l_S of the points of S; it undoes what U was charged for them, l_N, so take their losses as they came", lambda u, s, p: u.mean() - p * risk.sensitive_loss(s).mean()),
        Mistake("U is charged l_N, and you took l_S; take the losses as they came", lambda u, s, p: risk.sensitive_loss(u).mean() - p * s.mean()),
        Mistake("you took l_S on both sides; the inner term has l_N, the losses as they came", lambda u, s, p: risk.sensitive_loss(u).mean() - p * risk.sensitive_loss(s).mean()),
        *paired(PAIRED),
        Mistake("you corrected it; here the estimate may be negative, corrections come later", lambda u, s, p: (u.mean() - p * s.mean()).abs()),
        Mistake("you corrected it; here the estimate may be negative, corrections come later", lambda u, s, p: (u.mean() - p * s.mean()).clamp(min=0)),
        Mistake("the numbers are right, but no slope passes through them, and training needs one: do without .item() and .detach()", lambda u, s, p: (u.mean() - p * s.mean()).item()),
        Mistake("the refund must pass on its slope too: no .item() or .detach() on S", lambda u, s, p: u.mean() - p * s.mean().detach()),
    ),
)


# ------------------------------------------------------------------------------- 02.3 the corrections

KINDS = ("none", "clip", "abs")


def observe_correct(f) -> Observed:
    seen = {}
    for name in KINDS:
        for start in (0.2, -0.3):
            seen[f"correction {name} of the value {start:+}"] = f(torch.tensor(start), name)
            seen[f"slope of {name} at {start:+}"] = slopes(lambda v, name=name: f(v, name), torch.tensor(start))
    return seen


def same(v):
    return v


def at_least_zero(v):
    return v.clamp(min=0)


def without_slope_in(names: tuple[str, ...]) -> Mistake:
    """Right values, but nothing passes through these corrections."""
    rules: dict[str, Callable[[Tensor], Tensor]] = {"none": same, "clip": at_least_zero, "abs": torch.abs}
    where = "them" if names == KINDS else f"your {' and '.join(names)}"
    says = f"the values are right, but no slope passes through {where}, and training needs one: do without .item() and .detach()"
    return Mistake(says, lambda v, name: rules[name](v.detach() if name in names else v))


def by_name(none=same, clip=at_least_zero, absolute=torch.abs):
    """A correction made of one rule per name."""
    return lambda v, name: {"none": none, "clip": clip, "abs": absolute}[name](v)


CORRECT = Exercise(
    "02.3",
    risk.correct,
    observe_correct,
    (
        Mistake("clip and abs have changed places", by_name(clip=torch.abs, absolute=at_least_zero)),
        Mistake("your clip cuts on the wrong side: it keeps what is below zero", by_name(clip=lambda v: v.clamp(max=0))),
        Mistake("your clip does nothing", by_name(clip=same)),
        Mistake("your abs does nothing: a value below zero comes back below zero", by_name(absolute=same)),
        Mistake("your abs turns the sign of every value; only those below zero need it", by_name(absolute=torch.neg)),
        Mistake("your abs is a square; it changes values above zero, too", by_name(absolute=torch.square)),
        Mistake("your abs clips: below zero it must give the distance to zero, not zero", by_name(absolute=at_least_zero)),
        Mistake("you correct for \"none\" too; it leaves the value as it is", by_name(none=torch.abs)),
        Mistake("you correct for \"none\" too; it leaves the value as it is", by_name(none=at_least_zero)),
        *(without_slope_in(names) for n in (3, 2, 1) for names in combinations(KINDS, n)),
        Mistake("your abs has the right values, but the slope +1 below zero: a .detach() hides the turned sign from it", by_name(absolute=lambda v: v + (v.abs() - v).detach())),
        Mistake("your clip has the right values, but the slope +1 below zero: a .detach() hides the cut from it", by_name(clip=lambda v: v + (v.clamp(min=0) - v).detach())),
    ),
)


# --------------------------------------------------------------------------------- 02.4 the whole risk


def observe_pu_risk(f) -> Observed:
    seen = {}
    for name in KINDS:
        seen[f"{name}, inner term above zero"] = f(*losses(), 0.3, name)
        seen[f"{name}, inner term below zero"] = f(*flattering(), 0.4, name)
        seen[f"slopes of {name}, inner term below zero"] = slopes(lambda u, s, name=name: f(u, s, 0.4, name), *flattering())
    return seen


def parts(u: Tensor, s: Tensor, prior: float, name: risk.Correction) -> tuple[Tensor, Tensor]:
    """The mean loss of calling S sensitive, and the corrected inner term."""
    return risk.sensitive_loss(s).mean(), risk.correct(risk.normal_part(u, s, prior), name)


def per_point(u, s, p, name):
    return p * risk.sensitive_loss(s).mean() + risk.correct(u - p * s.mean(), name).mean()


def whole_corrected(u, s, p, name):
    return risk.correct(p * risk.sensitive_loss(s).mean() + risk.normal_part(u, s, p), name)


def without_prior(u, s, p, name):
    return p * risk.sensitive_loss(s).mean() + risk.correct(u.mean() - s.mean(), name)


def without_slope(u, s, p, name):
    return p * risk.sensitive_loss(s).mean() + risk.correct(risk.normal_part(u, s, p).detach(), name)


PU_RISK = Exercise(
    "02.4",
    risk.pu_risk,
    observe_pu_risk,
    (
        Mistake("the prior is missing on the first term: sensitive points are the share pi of U", lambda *a: sum(parts(*a))),
        Mistake("the first term has the factor 1 - prior; sensitive points are the share pi of U", lambda u, s, p, name: (1 - p) * parts(u, s, p, name)[0] + parts(u, s, p, name)[1]),
        Mistake("the correction was dropped: pass `correction` on to `correct`", lambda u, s, p, name: p * parts(u, s, p, name)[0] + parts(u, s, p, "none")[1]),
        Mistake("you always take the absolute value; the argument `correction` chooses", lambda u, s, p, name: p * parts(u, s, p, name)[0] + parts(u, s, p, "abs")[1]),
        Mistake("you always clip; the argument `correction` chooses", lambda u, s, p, name: p * parts(u, s, p, name)[0] + parts(u, s, p, "clip")[1]),
        Mistake("you corrected each point before the mean, E|.|; (2.13) corrects the difference of the means, |E.|", per_point),
        Mistake("you corrected the sum of both terms; only the inner term can be wrong about its sign", whole_corrected),
        Mistake("you took the mean before the loss; l_S is not straight, so apply it to each point of S and then average", lambda u, s, p, name: p * risk.sensitive_loss(s.mean()) + parts(u, s, p, name)[1]),
        Mistake("the inner term needs no factor 1 - prior: it estimates (1 - prior) E_N[l_N] as it is", lambda u, s, p, name: p * parts(u, s, p, name)[0] + (1 - p) * parts(u, s, p, name)[1]),
        Mistake("the inner term lacks its prior: it is `normal_part`, your function of 02.2", without_prior),
        Mistake("U and S have changed places", lambda u, s, p, name: risk.pu_risk(s, u, p, name)),
        *paired(PAIRED),
        Mistake("S is charged l_N for being called sensitive; the first term has l_S, your function of 02.1", lambda u, s, p, name: p * s.mean() + parts(u, s, p, name)[1]),
        Mistake("the first term is averaged over U; it belongs to S, the points that we know are sensitive", lambda u, s, p, name: p * risk.sensitive_loss(u).mean() + parts(u, s, p, name)[1]),
        Mistake("you summed l_S over S; its expectation is a mean", lambda u, s, p, name: p * risk.sensitive_loss(s).sum() + parts(u, s, p, name)[1]),
        Mistake("the first term must be added; as it stands, training would raise the loss on S", lambda u, s, p, name: -p * parts(u, s, p, name)[0] + parts(u, s, p, name)[1]),
        Mistake("you gave one value per point of S; take the mean over S", lambda u, s, p, name: p * risk.sensitive_loss(s) + parts(u, s, p, name)[1]),
        Mistake("the first term is missing: nothing charges the points of S for being called normal", lambda u, s, p, name: parts(u, s, p, name)[1]),
        Mistake("the values are right, but the inner term passes on no slope: do without .item() and .detach()", without_slope),
    ),
)


# ------------------------------------------------------------------------------- 02.5 the error rate


def observe_pu_error(f) -> Observed:
    u, s = torch.tensor([-2.1, -0.4, 0.7, 0.2, 1.3, 2.2, 3.0, -1.0]), torch.tensor([-3.0, 0.5, -1.2, 1.4, -0.3])
    lucky = torch.tensor([1.0, 0.4, -0.2, 2.0, 0.9, 1.1]), torch.tensor([-1.0, -0.2, -2.0])
    return {
        "prior 0.3": f(u, s, 0.3),
        "prior 0.12": f(u, s, 0.12),
        "an estimate below zero": f(*lucky, 0.4),
        "scores of exactly 0": f(torch.tensor([0.0, -1.0, 1.0, 2.0]), torch.tensor([0.0, -1.0]), 0.3),
    }


def shares(formula, below=torch.lt):
    """A rule made of a formula of P_U(called sensitive), P_S(called sensitive) and the prior."""
    return lambda u, s, p: formula(below(u, torch.tensor(0.0)).float().mean(), below(s, torch.tensor(0.0)).float().mean(), p)


def the_formula(a, c, p):
    return p * (1 - c) + a - p * c


PU_ERROR = Exercise(
    "02.5",
    risk.pu_error,
    observe_pu_error,
    (
        Mistake("your sides are turned: a high score means normal, g < 0 sensitive", shares(the_formula, torch.gt)),
        Mistake("a score of exactly 0 counts as normal in (2.14); you called it sensitive", shares(the_formula, torch.le)),
        Mistake("the refund is missing: the sensitive part of U that is called sensitive is no error", shares(lambda a, c, p: p * (1 - c) + a)),
        Mistake("the refund lacks the prior: only the share pi of U is sensitive", shares(lambda a, c, p: p * (1 - c) + a - c)),
        Mistake("the missed points lack the prior: sensitive points are the share pi of U", shares(lambda a, c, p: (1 - c) + a - p * c)),
        Mistake("you added the refund; it must be subtracted", shares(lambda a, c, p: p * (1 - c) + a + p * c)),
        Mistake("this is the naive form: U stands in for N, as in (2.9)", shares(lambda a, c, p: p * (1 - c) + (1 - p) * a)),
        Mistake("the missed points are missing: sensitive points with g >= 0 are errors too", shares(lambda a, c, p: a - p * c)),
        Mistake("you counted the caught points of S as errors; missed are those with g >= 0", shares(lambda a, c, p: p * c + a - p * c)),
        Mistake("this is one minus the error, as when the sides are turned: a high score means normal, g < 0 sensitive", shares(lambda a, c, p: 1 - the_formula(a, c, p))),
        Mistake("you averaged the scores themselves; (2.14) asks how often they lie below 0", lambda u, s, p: p * (s >= 0).float().mean() + u.mean() - p * s.mean()),
        *paired(PAIRED),
        Mistake("you corrected the estimate; (2.14) has no correction, chance may bring it below zero", shares(lambda a, c, p: the_formula(a, c, p).clamp(min=0))),
        Mistake("you corrected the estimate; (2.14) has no correction, chance may bring it below zero", shares(lambda a, c, p: p * (1 - c) + (a - p * c).abs())),
        Mistake("you corrected the estimate; (2.14) has no correction, chance may bring it below zero", shares(lambda a, c, p: p * (1 - c) + (a - p * c).clamp(min=0))),
        Mistake("these are numbers of points; (2.14) has shares, so take means", lambda u, s, p: p * (s >= 0).sum() + (u < 0).sum() - p * (s < 0).sum()),
    ),
)


# ------------------------------------------------------------------------------ 02.6 which prior it is


def refusal(f, *args) -> float:
    """1 if f refuses by a ValueError, 1/2 if by another error, 0 if it answers, be it with None."""
    try:
        f(*args)
    except Unusable:
        return 0.0
    except ValueError:
        return 1.0
    except Exception:  # whatever a learner may raise
        return 0.5
    return 0.0


def answer_or_nan(f, *args):
    """f's answer, or nan if it refuses by a ValueError."""
    try:
        return f(*args)
    except ValueError:
        return float("nan")


def observe_prior(f) -> Observed:
    none, refused = answer_or_nan(f, 1 / 16, 1500, 100), refusal(f, 0.05, 1000, 100)
    return {
        "2 sensitive of 4 in U, and 4 in S": f(0.75, 4, 4),
        "3 sensitive of 10 in U, and 2 in S": f(5 / 12, 10, 2),
        "is there an answer where U holds no sensitive point?": as_tensor(none).isfinite(),
        "no sensitive point in U": none,
        "is a share of 5 % refused where S alone is 9 %?": refused > 0,
        "is it refused by a ValueError?": refused == 1,
    }


def share_in_u(formula):
    """A conversion from a formula of prior_all, n_U and n_S, which refuses as it should."""

    def convert(prior_all, n_u, n_s):
        if prior_all * (n_u + n_s) < n_s - 1e-6:
            raise ValueError
        return formula(prior_all, n_u, n_s)

    return convert


def without_zero(prior_all, n_u, n_s):
    prior = (prior_all * (n_u + n_s) - n_s) / n_u
    if prior <= 0:
        raise ValueError
    return prior


def with_assert(prior_all, n_u, n_s):
    assert prior_all * (n_u + n_s) >= n_s - 1e-6
    return (prior_all * (n_u + n_s) - n_s) / n_u


def unchecked(formula):
    return formula


FORMULAS = (
    ("you divided by all points; the prior is a share of U alone", lambda q, u, s: (q * (u + s) - s) / (u + s)),
    ("the points of S are still counted: subtract them, they lie outside U", lambda q, u, s: q * (u + s) / u),
    ("the reported share is of U and S together, so multiply it by n_U + n_S", lambda q, u, s: (q * u - s) / u),
    ("this is the other direction: you were given the share in both, and want that in U", lambda q, u, s: (q * u + s) / (u + s)),
    ("n_U and n_S have changed places", lambda q, u, s: (q * (u + s) - u) / s),
    ("this is the number of sensitive points in U; the prior is their share", lambda q, u, s: q * (u + s) - s),
    ("`//` cuts off what lies behind the point; divide by `/`", lambda q, u, s: (q * (u + s) - s) // u),
    ("S must be subtracted: its points are counted in the reported share, but lie outside U", lambda q, u, s: (q * (u + s) + s) / u),
)

PRIOR = Exercise(
    "02.6",
    data.prior_in_unlabeled,
    observe_prior,
    (
        Mistake("right where an answer exists; but 50 sensitive of 1,100 points cannot hold the 100 of S: raise a ValueError there, whatever the formula gives", unchecked(lambda q, u, s: (q * (u + s) - s) / u)),
        Mistake("right, and you refuse what cannot be, but not by a ValueError; an `assert` is for your own tests", with_assert),
        Mistake("right, but you refuse a prior of 0 too; U may hold no sensitive point, so refuse only what is below 0", without_zero),
        *(Mistake(says, make(formula)) for says, formula in FORMULAS for make in (share_in_u, unchecked)),
    ),
)

EXERCISES = (SENSITIVE_LOSS, NORMAL_PART, CORRECT, PU_RISK, PU_ERROR, PRIOR)
