"""Exercises of notebook 07: laws of failures, what a filter costs, what a batch and a run can tell, and a probe."""

import math

import torch
from torch import Tensor

from .. import failures, probes, risk
from ..diffusion import add_noise, linear_schedule
from .base import Exercise, Mistake, Observed

# --------------------------------------------------------------------------- 07.1 how much of the target is negative


def observe_mass(f) -> Observed:
    log_p_u, log_p_s = torch.tensor([-1.2, -3.0, -0.8, -2.0, -1.5, -2.5]), torch.tensor([-0.7, -1.0, -2.1, -0.9, -0.2, -1.4])
    return {
        "negative at some points, assumed 0.3": f(log_p_u, log_p_s, 0.3),
        "negative at most points, assumed 0.9": f(log_p_u, log_p_s, 0.9),
        "a target that is nowhere negative": f(log_p_u, log_p_s, 0.1),
        "points far from all data": f(torch.tensor([-400.0, -352.0]), torch.tensor([-398.5, -353.0]), 0.4),
    }


def ratio(log_p_u: Tensor, log_p_s: Tensor) -> Tensor:
    return (log_p_u - log_p_s).exp()


def mass(inside=lambda q, b: b - q, cut=lambda x: x.clamp(min=0), end=lambda x, b: x.mean(), ratio=ratio):
    """An answer from what is cut, how, what is made of the values at all points, and from p_U / p_S."""
    return lambda u, s, b: end(cut(inside(ratio(u, s), b)), b)


NEGATIVE_MASS = Exercise(
    "07.1",
    failures.negative_mass,
    observe_mass,
    (
        Mistake("the cut at 0 is missing: where the target is positive it makes up for where it is negative", mass(cut=lambda x: x)),
        Mistake("you cut the mean; cut at each point, and then average", mass(cut=lambda x: x, end=lambda x, b: x.mean().clamp(min=0))),
        Mistake("the logs are subtracted the wrong way round: log p_U - log p_S is the log of p_U / p_S", mass(ratio=lambda u, s: ratio(s, u))),
        Mistake("a difference of logs is the log of a ratio: exponentiate it", mass(ratio=lambda u, s: u - s)),
        Mistake("you used the logs as if they were the densities", mass(ratio=lambda u, s: u / s)),
        Mistake("the assumed prior is missing: the target is p_U - b p_S, not p_U - p_S", mass(lambda q, b: 1 - q)),
        Mistake("the assumed prior multiplies p_S alone, not the whole difference", mass(lambda q, b: b * (1 - q))),
        Mistake("the assumed prior stands at p_U; it belongs to p_S", mass(lambda q, b: 1 - b * q)),
        Mistake("you divided by p_U, as a mean over points from U would need; these are drawn from S, so divide by p_S", mass(lambda q, b: b / q - 1)),
        Mistake("you did not divide by p_S: points from S are dense where p_S is large, so their mean weighs by p_S already", lambda u, s, b: (b * s.exp() - u.exp()).clamp(min=0).mean()),
        Mistake("this is the positive part; what is asked for is where b exceeds p_U / p_S", mass(lambda q, b: q - b)),
        Mistake("the cut is on the wrong side: values below 0 become 0", mass(cut=lambda x: x.clamp(max=0))),
        Mistake("a mass is positive; yours has a minus", mass(end=lambda x, b: -x.mean())),
        Mistake("you took absolute values, which counts the positive part too; cut it to 0", mass(cut=torch.abs)),
        Mistake("this is the share of S where the target is negative; asked for is by how much it is", mass(cut=lambda x: (x > 0).float())),
        Mistake("you averaged over the points with a negative target alone; the others count with 0", mass(cut=lambda x: x[x > 0])),
        Mistake("you summed over the points; an expectation is their mean", mass(end=lambda x, b: x.sum())),
        Mistake("you gave one value per point; take the mean", mass(end=lambda x, b: x)),
        Mistake("you divided by 1 - b; asked for is the mass of p_U - b p_S itself", mass(end=lambda x, b: x.mean() / (1 - b))),
        Mistake("right near the data, but far from it both densities round to 0 and 0/0 is nan: subtract the logs first, then exponentiate", mass(ratio=lambda u, s: u.exp() / s.exp())),
        Mistake(
            "right near the data, but a patch against 0/0, such as a small number, decides what comes out far from it; subtract the logs first, then exponentiate",
            mass(ratio=lambda u, s: u.exp() / (s.exp() + 1e-12)),
        ),
    ),
)


# -------------------------------------------------------------------------------------------- 07.2 the largest prior


def observe_largest(f) -> Observed:
    return {
        "three kinds": f(torch.tensor([0.5, 0.1, 0.4]), torch.tensor([0.2, 0.3, 0.5])),
        "a kind that S lacks": f(torch.tensor([0.8, 0.05, 0.15]), torch.tensor([0.0, 0.5, 0.5])),
        "a kind that neither has": f(torch.tensor([0.0, 0.7, 0.2, 0.1]), torch.tensor([0.0, 0.0, 0.25, 0.75])),
        "a kind of S that U lacks": f(torch.tensor([0.9, 0.1, 0.0]), torch.tensor([0.0, 0.6, 0.4])),
    }


def largest(value=lambda u, s: u / s, pick=torch.min, there=lambda u, s: s > 0):
    """An answer from a value of each kind, what is made of them, and the kinds that count."""

    def f(share_u: Tensor, share_s: Tensor) -> Tensor:
        rows = there(share_u, share_s)
        return pick(value(share_u[rows], share_s[rows]))

    return f


def all_kinds(u: Tensor, s: Tensor) -> Tensor:
    return torch.ones_like(u, dtype=torch.bool)


INVERTED = "the quotient is upside down: the limit of a kind is share_U / share_S"
LARGEST = Exercise(
    "07.2",
    failures.largest_prior,
    observe_largest,
    (
        Mistake("you took the largest ratio; at that b all other kinds would be negative, so the smallest is the limit", largest(pick=torch.max)),
        Mistake("you took the largest ratio; at that b all other kinds would be negative, so the smallest is the limit", largest(pick=torch.max, there=all_kinds)),
        Mistake(INVERTED, largest(lambda u, s: s / u)),
        Mistake(INVERTED, largest(lambda u, s: s / u, there=all_kinds)),
        Mistake("this is 1 divided by what is asked for: the limit of a kind is share_U / share_S, and the smallest of them counts", largest(lambda u, s: s / u, torch.max)),
        Mistake("leave out the kinds that S lacks: they set no limit, and where U lacks them too 0/0 is nan", largest(there=all_kinds)),
        Mistake("a kind that neither U nor S has became a limit of 0, perhaps by a small number against 0/0; leave out the kinds that S lacks", largest(lambda u, s: u / (s + 1e-12), there=all_kinds)),
        Mistake("you left out the kinds that U lacks; where S has them, nothing may be subtracted and the limit is 0", largest(there=lambda u, s: u > 0)),
        Mistake("you averaged the ratios; one kind that becomes negative is enough, so the smallest is the limit", largest(pick=torch.mean)),
        Mistake("you averaged the ratios; one kind that becomes negative is enough, so the smallest is the limit", largest(pick=torch.mean, there=all_kinds)),
        Mistake("this is the share of U that belongs to kinds of S; the limit is set by the kind that runs out first", largest(lambda u, s: u, torch.sum)),
        Mistake("you added the smaller of both shares, which is the overlap of U and S; the limit is the smallest ratio", largest(torch.minimum, torch.sum, all_kinds)),
        Mistake("you subtracted the shares; b multiplies share_S, so divide by it", largest(lambda u, s: u - s)),
        Mistake("you took the smallest share of U; divide by the share of S first", largest(lambda u, s: u)),
        Mistake("you took the smallest share of U; divide by the share of S first", largest(lambda u, s: u, there=all_kinds)),
        Mistake("you looked at the most frequent kind of S alone; another kind may run out earlier", lambda u, s: (u / s)[s.argmax()]),
        Mistake("you looked at the rarest kind of S alone; another kind may run out earlier", largest(lambda u, s: (u / s)[s.argmin()])),
        Mistake("you gave the number of the kind; asked for is its ratio", largest(pick=torch.argmin)),
        Mistake("you gave one ratio per kind; asked for is the smallest", largest(pick=lambda x: x)),
    ),
)


# ------------------------------------------------------------------------------------- 07.3 wrong labels


def observe_labels(f) -> Observed:
    return {
        "no wrong labels": f(0.25, 0.2, 0.0),
        "a fifth of S is normal": f(0.25, 0.2, 0.2),
        "more than half of S is normal": f(0.3, 0.45, 0.6),
        "an assumed prior of 0": f(0.3, 0.0, 0.1),
        "an assumed prior above the true one": f(0.4, 0.42, 0.1),
    }


LABELS = Exercise(
    "07.3",
    failures.nsr_of_labels,
    observe_labels,
    (
        Mistake("divide by 1 - b: p_U - b p_S' has that mass, and an NSR is a share of it", lambda p, b, c=0.0: 1 - p - b * c),
        Mistake("c is missing: what is subtracted takes b c of the normal images away", lambda p, b, c=0.0: (1 - p) / (1 - b)),
        Mistake("you subtracted all of S from the normal images; only the share c of it is normal", lambda p, b, c=0.0: (1 - p - b) / (1 - b)),
        Mistake("b is missing before c: what is subtracted is b p_S'", lambda p, b, c=0.0: (1 - p - c) / (1 - b)),
        Mistake("you took b (1 - c) from the normal images; that is the sensitive part of S, and b c is the normal one", lambda p, b, c=0.0: (1 - p - b * (1 - c)) / (1 - b)),
        Mistake("the normal images of S are subtracted with it: - b c, not + b c", lambda p, b, c=0.0: (1 - p + b * c) / (1 - b)),
        Mistake("this is the share that is left and sensitive; asked for is the normal one, 1 minus it", lambda p, b, c=0.0: (p - b * (1 - c)) / (1 - b)),
        Mistake("you lowered b to b (1 - c), as if normal images in S did no harm; they are subtracted too", lambda p, b, c=0.0: (1 - p) / (1 - b * (1 - c))),
        Mistake("above the line it is right; below, all of b is gone, so the mass is 1 - b", lambda p, b, c=0.0: (1 - p - b * c) / (1 - b * (1 - c))),
        Mistake("above the line it is right; below, all of b is gone, so the mass is 1 - b", lambda p, b, c=0.0: (1 - p - b * c) / (1 - b * c)),
        Mistake("above the line it is right; below stands the mass 1 - b, with the assumed prior", lambda p, b, c=0.0: (1 - p - b * c) / (1 - p)),
        Mistake("the normal images of S are the share c of S, not of the normal images of U: subtract b c", lambda p, b, c=0.0: (1 - p) * (1 - b * c) / (1 - b)),
        Mistake("the normal images of S are the share c of S, not of the normal images of U: subtract b c", lambda p, b, c=0.0: (1 - p) * (1 - c) / (1 - b)),
        Mistake("the true and the assumed prior have changed places", lambda p, b, c=0.0: (1 - b - p * c) / (1 - p)),
        Mistake("the sensitive part that is left must be divided by 1 - b before you subtract it from 1", lambda p, b, c=0.0: 1 - (p - b * (1 - c))),
        Mistake("you multiplied by 1 - b; p_U - b p_S' has the mass 1 - b, so divide by it", lambda p, b, c=0.0: (1 - p - b * c) * (1 - b)),
    ),
    tolerance=1e-6,
)


# ------------------------------------------------------------------------------------- 07.4 the price of a filter


def observe_price(f) -> Observed:
    r = torch.tensor([0.02, 0.25, 0.9, 0.1, 0.5, 0.05, 0.75, 0.3])
    return {
        "threshold 0.5, which one image has": f(r, 0.5),
        "threshold 0.25": f(r, 0.25),
        "threshold 0.0625": f(r, 0.0625),
        "a threshold that all pass": f(r, 1.0),
        "another set of images": f(torch.tensor([0.01, 0.6, 0.85, 0.4]), 0.75),
    }


def lost_part(r: Tensor, kept: Tensor) -> Tensor:
    return (1 - r[~kept]).sum() / (1 - r).sum()


def left_part(r: Tensor, kept: Tensor) -> Tensor:
    return r[kept].mean()


def price(lost=lost_part, left=left_part, keep=torch.lt, end=lambda lost, left: torch.stack([lost, left])):
    """An answer from the two shares, the images that are kept, and how both are put together."""

    def f(r: Tensor, threshold: float):
        kept = keep(r, threshold)
        return end(lost(r, kept), left(r, kept))

    return f


BY_LABELS = "you called each image normal or sensitive first; image x counts as 1 - r normal ones and r sensitive ones"
COUNTS = "these are numbers of images; asked for are shares"
PRICE = Exercise(
    "07.4",
    failures.price_of_filter,
    observe_price,
    (
        Mistake("an image at the threshold is dropped: kept are those with r < threshold, not <=", price(keep=torch.le)),
        Mistake("the filter is turned round: dropped are the images with r >= threshold", price(keep=torch.ge)),
        Mistake("the first number is the share of the normal images that is kept; lost is 1 minus it", price(lambda r, kept: 1 - lost_part(r, kept))),
        Mistake("the two numbers have changed places", price(end=lambda lost, left: torch.stack([left, lost]))),
        Mistake(f"in the first number, {BY_LABELS}", price(lambda r, kept: ((r < 0.5) & ~kept).float().sum() / (r < 0.5).float().sum())),
        Mistake(f"in the second number, {BY_LABELS}", price(left=lambda r, kept: (r[kept] > 0.5).float().mean())),
        Mistake(f"in the second number, {BY_LABELS}", price(left=lambda r, kept: (r[kept] >= 0.5).float().mean())),
        Mistake(BY_LABELS, price(lambda r, kept: ((r < 0.5) & ~kept).float().sum() / (r < 0.5).float().sum(), lambda r, kept: (r[kept] > 0.5).float().mean())),
        Mistake(BY_LABELS, price(lambda r, kept: ((r < 0.5) & ~kept).float().sum() / (r < 0.5).float().sum(), lambda r, kept: (r[kept] >= 0.5).float().mean())),
        Mistake("the first number is the share of all images that is dropped; a dropped image counts as 1 - r normal ones", price(lambda r, kept: (~kept).float().mean())),
        Mistake("the first number is a share of the normal images: divide by the sum of 1 - r over all images, not by their number", price(lambda r, kept: (1 - r[~kept]).sum() / len(r))),
        Mistake("the first number says how many of the dropped images are normal; asked for is how many of the normal images are dropped", price(lambda r, kept: (1 - r[~kept]).mean())),
        Mistake("the first number says how many of the dropped images are normal; asked for is how many of the normal images are dropped", price(lambda r, kept: (1 - r[~kept]).sum() / max(1, int((~kept).sum())))),
        Mistake("the first number counts dropped sensitive images; asked for are the normal ones, 1 - r", price(lambda r, kept: r[~kept].sum() / r.sum())),
        Mistake("the second number is the share of the sensitive images that passes; asked for is the share of the kept images that is sensitive", price(left=lambda r, kept: r[kept].sum() / r.sum())),
        Mistake("the second number is a share of the kept images: divide by their number, not by that of all", price(left=lambda r, kept: r[kept].sum() / len(r))),
        Mistake("the second number looks at the dropped images; asked for are the kept ones", price(left=lambda r, kept: r[~kept].mean())),
        Mistake("the second number is the share of normal images among those kept; asked for is that of sensitive ones", price(left=lambda r, kept: 1 - r[kept].mean())),
        Mistake("the second number takes all images; asked for are those that are kept", price(left=lambda r, kept: r.mean())),
        Mistake(f"in both numbers, {COUNTS}", price(lambda r, kept: (1 - r[~kept]).sum(), lambda r, kept: r[kept].sum())),
        Mistake("you gave a tuple; `torch.stack([a, b])` makes one tensor of two", price(end=lambda lost, left: (lost, left))),
    ),
)


# ------------------------------------------------------------------------------------- 07.5 who pulls on S


def observe_share(f) -> Observed:
    loss = torch.tensor([0.3, 0.8, 2.0, 4.5])
    return {
        "four losses, scale 1": f(loss, 1.0),
        "scale 10": f(loss, 10.0),
        "large losses, scale 40": f(torch.tensor([20.0, 60.0, 150.0]), 40.0),
        "losses far above the scale": f(torch.tensor([25.0, 900.0]), 1.0),
        "one loss": f(torch.tensor([0.7]), 2.0),
    }


def pull(l: Tensor, scale: float) -> Tensor:
    """How many times as steep as the second term the log term is, at each loss."""
    return 1 / torch.expm1(l / scale)


def of_slope(slope=pull, middle=torch.mean, end=lambda m, l, scale: m / (m + 1)):
    """An answer from the slope at each loss, what is made of the slopes, and the share."""
    return lambda loss, scale=1.0: end(middle(slope(loss, scale)), loss, scale)


def by_math(loss, scale=1.0):
    m = sum(1 / (math.exp(l / scale) - 1) for l in loss.tolist()) / len(loss)
    return m / (m + 1)


LOG_SHARE = Exercise(
    "07.5",
    failures.log_share,
    observe_share,
    (
        Mistake("both terms have the inner derivative 1 / scale, so it cancels; you have it in the log term alone (`risk.sensitive_slope` holds it)", of_slope(lambda l, c: pull(l, c) / c)),
        Mistake("both terms have the inner derivative 1 / scale, so it cancels; you have it in the second term alone", of_slope(end=lambda m, l, c: m / (m + 1 / c))),
        Mistake("the scale is missing: both terms have l / scale", of_slope(lambda l, c: pull(l, 1))),
        Mistake("the scale divides l, it does not multiply it", of_slope(lambda l, c: pull(l, 1 / c))),
        Mistake("the -1 is missing: the slope has e^(l / scale) - 1 below the line (`torch.expm1`)", of_slope(lambda l, c: (-l / c).exp())),
        Mistake("a factor e^(-l / scale) is missing above the line: it is the derivative of what stands inside the logarithm", of_slope(lambda l, c: 1 / -torch.expm1(-l / c))),
        Mistake("you averaged the shares of single losses; m is a mean over the losses, and the share is formed once", of_slope(middle=lambda x: x, end=lambda m, l, c: (m / (m + 1)).mean())),
        Mistake("you took the slope at the mean loss; m is the mean of the slopes, and small losses have the steepest", lambda loss, scale=1.0: of_slope()(loss.mean()[None], scale)),
        Mistake("you took the median slope; m is the mean", of_slope(middle=torch.median)),
        Mistake("you summed the slopes; m is their mean", of_slope(middle=torch.sum)),
        Mistake("the slope is negative, and m is its size: take the absolute value", of_slope(middle=lambda x: -x.mean())),
        Mistake("a share is positive: take the size of the slope above the line too", of_slope(end=lambda m, l, c: -m / (m + 1))),
        Mistake("this is m itself; asked for is its share of both pulls, m / (m + 1)", of_slope(end=lambda m, l, c: m)),
        Mistake("this is the share of the second term, 1 / (m + 1)", of_slope(end=lambda m, l, c: 1 / (m + 1))),
        Mistake("this is how many times stronger the second term pulls; asked for is the share of the log term", of_slope(end=lambda m, l, c: 1 / m)),
        Mistake("you compared a slope with a value; the slope of the second term in l / scale is 1, whatever l is", of_slope(end=lambda m, l, c: m / (m + l.mean() / c))),
        Mistake("you compared a slope with a value; the slope of the second term in l / scale is 1, whatever l is", of_slope(end=lambda m, l, c: m / (m + l.mean()))),
        Mistake("you used the value of the log term; what pulls is its slope in l", of_slope(risk.sensitive_loss)),
        Mistake("you compared the values of both terms; what pulls are their slopes in l", of_slope(risk.sensitive_loss, end=lambda m, l, c: m / (m + l.mean() / c))),
        Mistake("you gave one share per loss; take the mean of the slopes first", of_slope(middle=lambda x: x)),
        Mistake("`math` gives up where e^(l / scale) is too large; `torch.expm1` gives infinity there, and 1 / infinity is 0", by_math),
    ),
)


# ------------------------------------------------------------------------------------- 07.6 the mean of |v|


def observe_abs(f) -> Observed:
    return {
        "mean 0, sd 1": f(0.0, 1.0),
        "mean 0, sd 3": f(0.0, 3.0),
        "mean 1, sd 2": f(1.0, 2.0),
        "a negative mean": f(-0.5, 1.5),
        "a mean far above its spread": f(3.0, 0.2),
        "a mean far below 0": f(-2.0, 0.5),
    }


def bump(z: float) -> float:
    """The density of N(0, 1)."""
    return math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def below(z: float) -> float:
    """The share of N(0, 1) below z."""
    return (1 + math.erf(z / math.sqrt(2))) / 2


HEIGHT = math.sqrt(2 / math.pi)  # E|v| at a mean of 0 and an sd of 1


def folded(front=HEIGHT, power=lambda m, s: -(m**2) / (2 * s**2), inside=lambda m, s: m / (s * math.sqrt(2)), sd=lambda s: s, mean=lambda m: m):
    """An answer from the factor of the first term, its exponent, the argument of erf, and the factors sd and mean."""
    return lambda m, s: sd(s) * front * math.exp(power(m, s)) + mean(m) * math.erf(inside(m, s))


def clipped(m: float, s: float, dense=bump, share=below) -> float:
    """E max(0, v)."""
    return m * share(m / s) + s * dense(m / s)


FLAT = "the density phi has the factor 1 / sqrt(2 pi)"
NO_ROOT = "Phi has z / sqrt(2) inside erf"
MEAN_OF_ABS = Exercise(
    "07.6",
    failures.mean_of_abs,
    observe_abs,
    (
        Mistake("this is |E v|; asked for is E|v|, which is never smaller", lambda m, s: abs(m)),
        Mistake("this is E|v| for a mean of 0; the mean is missing", lambda m, s: s * HEIGHT),
        Mistake("this is the spread of v alone, without its mean", lambda m, s: s),
        Mistake("you added |mean| and E|v - mean|; v on the other side of 0 is folded back, so it is less", lambda m, s: abs(m) + s * HEIGHT),
        Mistake("you added |mean| and sd; v on the other side of 0 is folded back, so it is less", lambda m, s: abs(m) + s),
        Mistake("this is the root of E v^2; E|v| is smaller", lambda m, s: math.sqrt(m**2 + s**2)),
        Mistake("this is E max(0, v), the mean of a clipped v; asked for is that of |v| = 2 max(0, v) - v", clipped),
        Mistake("|v| is 2 max(0, v) - v: the mean is still to be subtracted", lambda m, s: 2 * clipped(m, s)),
        Mistake("|v| is 2 max(0, v) - v: the factor 2 is missing", lambda m, s: clipped(m, s) - m),
        Mistake("|v| is 2 max(0, v) - v: the mean is subtracted, not added", lambda m, s: 2 * clipped(m, s) + m),
        Mistake("|v| is 2 max(0, v) - v, where v may be negative: subtract the mean, not its absolute value", lambda m, s: 2 * clipped(m, s) - abs(m)),
        Mistake(FLAT, folded(front=2.0)),
        Mistake(FLAT, folded(front=2 / math.pi)),
        Mistake("the term with the density phi counts twice: at a mean of 0, E|v| is sd sqrt(2 / pi)", folded(front=math.sqrt(1 / (2 * math.pi)))),
        Mistake("the root of 2 / pi is wanted, not of pi / 2: phi has 1 / sqrt(2 pi), so pi stands below the line", folded(front=math.sqrt(math.pi / 2))),
        Mistake(NO_ROOT, folded(inside=lambda m, s: m / s)),
        Mistake("phi has -z^2 / 2 in the exponent; the 2 is missing", folded(power=lambda m, s: -(m**2) / s**2)),
        Mistake("phi and Phi take z = mean / sd: in the exponent sd is not squared", folded(power=lambda m, s: -(m**2) / (2 * s))),
        Mistake("a minus is missing in the exponent", folded(power=lambda m, s: m**2 / (2 * s**2))),
        Mistake("brackets are missing: `/ 2 * sd**2` multiplies by sd**2, `/ (2 * sd**2)` divides by it", folded(power=lambda m, s: -(m**2) / 2 * s**2)),
        Mistake("brackets are missing: `/ sd * math.sqrt(2)` multiplies by the root, `/ (sd * math.sqrt(2))` divides by it", folded(inside=lambda m, s: m / s * math.sqrt(2))),
        Mistake("phi and Phi take z = mean / sd; you gave them the mean itself", lambda m, s: 2 * clipped(m, s, lambda z: bump(z * s), lambda z: below(z * s)) - m),
        Mistake("phi has the factor sd", folded(sd=lambda s: 1)),
        Mistake("Phi has the factor mean", folded(mean=lambda m: 1)),
        Mistake("Phi has the factor mean", lambda m, s: 2 * (below(m / s) + s * bump(m / s)) - m),
        Mistake("phi and Phi have changed places: the mean belongs to the share Phi, sd to the density phi", lambda m, s: 2 * (m * bump(m / s) + s * below(m / s)) - m),
        Mistake("Phi is (1 + erf(z / sqrt(2))) / 2; the half is missing", lambda m, s: 2 * clipped(m, s, share=lambda z: 2 * below(z)) - m),
        Mistake("mean times erf is positive on both sides of 0, as both have the sign of the mean; leave out the |.| around the mean", folded(mean=abs)),
        Mistake("the sign of the term with erf is turned: a mean far from 0 makes |v| larger", folded(mean=lambda m: -m)),
        Mistake("`sd` is the standard deviation already; you took its root", lambda m, s: failures.mean_of_abs(m, math.sqrt(s))),
        Mistake("`sd` is the standard deviation; you used its square as one", lambda m, s: failures.mean_of_abs(m, s**2)),
    ),
    tolerance=1e-5,
)


# ------------------------------------------------------------------------------------- 07.7 images or their kind


def observe_memorisation(f) -> Observed:
    train, heldout = torch.tensor([3.1, 4.0, 2.7, 5.2, 3.9]), torch.tensor([2.2, 1.9, 3.0])
    return {
        "higher on five images trained on than on three held out": f(train, heldout),
        "lower on those trained on": f(heldout, train),
        "much alike": f(torch.tensor([1.0, 2.5, 2.0, 1.8]), torch.tensor([2.2, 1.1, 1.7, 2.6, 0.9, 2.1])),
    }


def apart(error=lambda v, w, n, m: (v / n + w / m) ** 0.5, gap=lambda a, b: a - b, var=torch.var):
    """An answer from the error of the gap, by variances and numbers of both sides, from the gap of the means, and the variance."""
    return lambda a, b: gap(a.mean(), b.mean()) / error(var(a), var(b), len(a), len(b))


def pooled(v: Tensor, w: Tensor, n: int, m: int) -> Tensor:
    return (((n - 1) * v + (m - 1) * w) / (n + m - 2) * (1 / n + 1 / m)).sqrt()


ONE_SIDE = "both means vary by chance: add the squared standard errors of both sides"
SPREAD = "you divided by a spread of images; a mean of n of them varies less: each variance is divided by the number of its images"
ONE_BY_ONE = "you combined the images one by one, but the sides differ in number, and no two images belong together: take the mean of each side first"
MEMORISATION = Exercise(
    "07.7",
    failures.memorisation,
    observe_memorisation,
    (
        Mistake("the sign is turned: asked for is how much higher l is on the images trained on", apart(gap=lambda a, b: b - a)),
        Mistake("you took the absolute value; the sign says on which side l is higher", apart(gap=lambda a, b: (a - b).abs())),
        Mistake("this is the difference of the means; divide it by its standard error", apart(lambda v, w, n, m: 1)),
        Mistake("the root is missing: variances add up to the square of the standard error", apart(lambda v, w, n, m: v / n + w / m)),
        Mistake(SPREAD, apart(lambda v, w, n, m: (v + w) ** 0.5)),
        Mistake(SPREAD, apart(lambda v, w, n, m: ((v + w) / 2) ** 0.5)),
        Mistake(SPREAD, apart(lambda v, w, n, m: v**0.5)),
        Mistake(SPREAD, apart(lambda v, w, n, m: w**0.5)),
        Mistake(SPREAD, lambda a, b: (a.mean() - b.mean()) / torch.cat([a, b]).std()),
        Mistake(SPREAD, apart(lambda v, w, n, m: v**0.5 + w**0.5)),
        Mistake(f"{ONE_SIDE}; you took that of the images trained on alone", apart(lambda v, w, n, m: (v / n) ** 0.5)),
        Mistake(f"{ONE_SIDE}; you took that of the held-out images alone", apart(lambda v, w, n, m: (w / m) ** 0.5)),
        Mistake("you added standard errors; independent errors add by their squares", apart(lambda v, w, n, m: (v / n) ** 0.5 + (w / m) ** 0.5)),
        Mistake("you divided standard deviations by n; divide the variances by n, and take the root of their sum", apart(lambda v, w, n, m: v**0.5 / n + w**0.5 / m)),
        Mistake("you put both sides under one variance; each side has its own, divided by its own number of images", apart(pooled)),
        Mistake("you joined both sides before taking the variance, so that the difference itself counts as spread", lambda a, b: (a.mean() - b.mean()) / (torch.cat([a, b]).var() * (1 / len(a) + 1 / len(b))).sqrt()),
        Mistake("you joined both sides before taking the variance, so that the difference itself counts as spread", lambda a, b: (a.mean() - b.mean()) / (torch.cat([a, b]).var() / (len(a) + len(b))).sqrt()),
        Mistake("the numbers of images have changed places: each variance is divided by that of its own side", apart(lambda v, w, n, m: (v / m + w / n) ** 0.5)),
        Mistake("you divided the sum of the variances by the number of all images; each variance has its own", apart(lambda v, w, n, m: ((v + w) / (n + m)) ** 0.5)),
        Mistake("variances of independent means add up, though the means are subtracted", apart(lambda v, w, n, m: (v / n - w / m).abs() ** 0.5)),
        Mistake("your variances divide by n; an estimate from n images divides by n - 1, as `.var()` does", apart(var=lambda x: x.var(correction=0))),
        Mistake("`.std()` is the root of the variance; what is divided by n is the variance itself", apart(var=torch.std)),
        Mistake("this is the ratio of the means; asked for is their difference in standard errors", apart(lambda v, w, n, m: 1, lambda a, b: a / b)),
        Mistake(ONE_BY_ONE, lambda a, b: (a - b).mean()),
        Mistake(ONE_BY_ONE, lambda a, b: (b - a).mean()),
    ),
)


# ------------------------------------------------------------------------------------- 07.8 drawings enough


def observe_needed(f) -> Observed:
    return {
        "0.97 against 0.93": f(0.97, 0.93),
        "0.88 against 0.97, the better one second": f(0.88, 0.97, 1.96),
        "0.9 against 0.7, another z": f(0.9, 0.7, 2.576),
    }


def needed(spread=lambda v, w: v + w, gap=lambda p, q: (p - q) ** 2, chance=lambda z: z**2, end=math.ceil):
    """An answer from the variances of one drawing each, the difference of the rates, z, and the rounding."""
    return lambda p, q, z=1.96: end(chance(z) * spread(p * (1 - p), q * (1 - q)) / gap(p, q))


def at_mean(factor: int):
    return lambda p, q, z=1.96: math.ceil(z**2 * factor * ((p + q) / 2) * (1 - (p + q) / 2) / (p - q) ** 2)


BOTH = "both rates vary by chance: the difference has the variance p (1 - p) / n + p' (1 - p') / n"
NEEDED = Exercise(
    "07.8",
    failures.drawings_needed,
    observe_needed,
    (
        Mistake(f"{BOTH}; the second is missing", needed(lambda v, w: v)),
        Mistake(f"{BOTH}; the first is missing", needed(lambda v, w: w)),
        Mistake("the difference must be squared: n grows fourfold when it halves", needed(gap=lambda p, q: p - q)),
        Mistake("the difference must be squared: n grows fourfold when it halves", needed(gap=lambda p, q: abs(p - q))),
        Mistake("z must be squared: square both sides before you solve for n", needed(chance=lambda z: z)),
        Mistake("z is missing: this n brings the difference to one standard error", needed(chance=lambda z: 1)),
        Mistake("you wrote 1.96 where z belongs", lambda p, q, z=1.96: failures.drawings_needed(p, q)),
        Mistake("round up: with the next smaller number the difference stays below z standard errors", needed(end=math.floor)),
        Mistake("round up, not to the nearest number: with fewer drawings the difference stays below z standard errors", needed(end=round)),
        Mistake("a number of drawings is whole: round up", needed(end=lambda n: n)),
        Mistake("one is always added here; round up with `math.ceil`", needed(end=lambda n: math.ceil(n) + 1)),
        Mistake("this is the number for both models together; asked for is that of each", needed(lambda v, w: 2 * (v + w))),
        Mistake("you took the mean of the two variances; those of a difference add up", needed(lambda v, w: (v + w) / 2)),
        Mistake("you took the variance at the mean of both rates; each model has its own", at_mean(2)),
        Mistake(f"you took the variance at the mean of both rates, once; {BOTH}", at_mean(1)),
        Mistake("variances of a difference add up, though the rates are subtracted", needed(lambda v, w: abs(v - w))),
        Mistake("you added standard deviations, as when two intervals must not touch; independent errors add by their squares", needed(lambda v, w: (v**0.5 + w**0.5) ** 2)),
        Mistake("a variance is p (1 - p) itself; you took its root", needed(lambda v, w: (v + w) ** 0.5)),
        Mistake("you multiplied the variances; those of a difference add up", needed(lambda v, w: v * w)),
        Mistake("you added the rates themselves; a drawing that is normal with probability p has the variance p (1 - p)", lambda p, q, z=1.96: math.ceil(z**2 * (p + q) / (p - q) ** 2)),
        Mistake("you took the root at the end; n itself is asked for", needed(end=lambda n: math.ceil(math.sqrt(n)))),
    ),
    tolerance=1e-6,
)


# ------------------------------------------------------------------------------------- 07.9 another caption


def observe_captions(f) -> Observed:
    return {
        "most of S has the caption of U": f(0.25, 0.2, 0.8),
        "half of S": f(0.25, 0.2, 0.5),
        "none of S": f(0.25, 0.2, 0.0),
        "an assumed prior above the true one": f(0.3, 0.6, 0.4),
    }


CAPTIONS = Exercise(
    "07.9",
    failures.nsr_of_captions,
    observe_captions,
    (
        Mistake("you let all of S act; under the caption of U only the share `same` of it does", lambda p, b, same: (1 - p) / (1 - b)),
        Mistake("this is the NSR without any labels; the share `same` of S does act", lambda p, b, same: 1 - p),
        Mistake("the share of S with another caption does nothing under that of U; you used 1 - same, and it is `same`", lambda p, b, same: (1 - p) / (1 - b * (1 - same))),
        Mistake("images of S with another caption are not subtracted at all; you took them from the normal ones", lambda p, b, same: (1 - p - b * (1 - same)) / (1 - b)),
        Mistake("this is the share that is left and sensitive; asked for is the normal one, 1 minus it", lambda p, b, same: (p - b * same) / (1 - b * same)),
        Mistake("divide by the mass that is left, 1 - b same: an NSR is a share of it", lambda p, b, same: 1 - p + b * same),
        Mistake("b is missing: what is subtracted under the caption of U is b same", lambda p, b, same: (1 - p) / (1 - same)),
        Mistake("all normal images stay: `same` belongs below the line alone", lambda p, b, same: same * (1 - p) / (1 - b)),
        Mistake("you averaged the NSRs with and without labels; one model learns from one risk, whose mass is 1 - b same", lambda p, b, same: same * (1 - p) / (1 - b) + (1 - same) * (1 - p)),
        Mistake("the prior belongs to U, and S does not change it; what is scaled by `same` is b", lambda p, b, same: (1 - p * same) / (1 - b)),
        Mistake("b is scaled by `same`, but the prior of U is not: above the line stands 1 - prior", lambda p, b, same: (1 - p * same) / (1 - b * same)),
        Mistake("the true and the assumed prior have changed places", lambda p, b, same: (1 - b) / (1 - p * same)),
        Mistake("below the line stands the assumed prior b, not the true one", lambda p, b, same: (1 - p) / (1 - p * same)),
        Mistake("images of S are sensitive, all of them: nothing is taken from the normal ones", lambda p, b, same: (1 - p - b * same) / (1 - b * same)),
        Mistake("what is subtracted shrinks the mass: 1 - b same, not 1 + b same", lambda p, b, same: (1 - p) / (1 + b * same)),
        Mistake("you multiplied by the mass 1 - b same; divide by it", lambda p, b, same: (1 - p) * (1 - b * same)),
        Mistake("`same` multiplies b; you divided by it", lambda p, b, same: (1 - p) / (1 - b / same)),
    ),
    tolerance=1e-6,
)


# ------------------------------------------------------------------------------------- 07.10 the known part


def observe_pasted(f) -> Observed:
    generator = torch.Generator().manual_seed(3)
    xt, known, noise = (torch.randn(3, 1, 4, 5, generator=generator) for _ in range(3))
    schedule, t = linear_schedule(100, 1e-3, 0.1), torch.tensor([3, 30, 70])
    one, many = torch.rand(1, 1, 4, 5, generator=generator) < 0.4, torch.rand(3, 1, 4, 5, generator=generator) < 0.6
    mine = xt.clone()
    return {
        "one mask for all images": f(mine, known.clone(), one, t, noise.clone(), schedule),
        "is the x_t that came in still the same?": torch.tensor(float(torch.equal(mine, xt))),
        "a mask for each image": f(xt.clone(), known.clone(), many, t, noise.clone(), schedule),
        "a mask of rows and columns alone": f(xt.clone(), known.clone(), one[0, 0], t, noise.clone(), schedule),
    }


def pasted(new=add_noise, old=lambda xt, t, noise, schedule: xt, end=torch.where):
    """An answer from what is put in where the mask is true, what stays elsewhere, and how both are put together."""
    return lambda xt, known, mask, t, noise, schedule: end(mask, new(known, t, noise, schedule), old(xt, t, noise, schedule))


def at_levels(combine):
    """combine(x0, noise, signal, sigma) -> noising with the factors of each image's level."""
    return lambda x0, t, noise, schedule: combine(x0, noise, *schedule.levels(t, x0))


def in_place(xt, known, mask, t, noise, schedule):
    mask = mask.expand_as(xt)
    xt[mask] = add_noise(known, t, noise, schedule)[mask]
    return xt


def lying(combine):
    """combine(a, x) -> an answer whose factors, one per image, lie along the columns and so do not fit."""
    return lambda xt, known, mask, t, noise, schedule: combine(schedule.alpha_bar[t], known)


SHAPED = "there is one factor per image, so shape them [B, 1, 1, 1], as `diffusion.add_noise` does by itself"
PASTE = Exercise(
    "07.10",
    probes.paste_known,
    observe_pasted,
    (
        Mistake("the mask is turned round: it is true where the image is known", pasted(end=lambda mask, a, b: torch.where(mask, b, a))),
        Mistake("you put in the clean image; x_t is at noise level t, so noise the known part to it first", pasted(lambda x0, t, noise, schedule: x0)),
        Mistake("the known part has faded as at level t, but its noise is missing", pasted(at_levels(lambda x0, noise, a, s: a * x0))),
        Mistake("the known part has its noise, but it must fade too: sqrt(alpha_bar_t) x_0", pasted(at_levels(lambda x0, noise, a, s: x0 + s * noise))),
        Mistake("you added the noise at full strength to the clean image; `diffusion.add_noise` has the factors of level t", pasted(lambda x0, t, noise, schedule: x0 + noise)),
        Mistake("you put in the noise alone; the known part is missing", pasted(lambda x0, t, noise, schedule: noise)),
        Mistake("image and noise have each other's factors", pasted(at_levels(lambda x0, noise, a, s: s * x0 + a * noise))),
        Mistake("your factors are alpha_bar and 1 - alpha_bar; take their square roots, as `diffusion.add_noise` does", pasted(at_levels(lambda x0, noise, a, s: a**2 * x0 + s**2 * noise))),
        Mistake("x_t is missing: where the image is not known it stays as it is, and yours is 0 there", pasted(end=lambda mask, a, b: mask * a)),
        Mistake("where the image is known x_t must be taken out before you add; `torch.where` takes one or the other", pasted(end=lambda mask, a, b: b + mask * a)),
        Mistake("you noised the known image everywhere; where the mask is false x_t stays", pasted(end=lambda mask, a, b: a)),
        Mistake("you gave back x_t as it was", pasted(end=lambda mask, a, b: b)),
        Mistake("x_t is at its noise level already; noise the known image alone, before you put it in", pasted(old=add_noise)),
        Mistake("you averaged x_t and the known part; put it in instead", pasted(end=lambda mask, a, b: torch.where(mask, (a + b) / 2, b))),
        Mistake("you noised with x_t in place of `noise`", lambda xt, known, mask, t, noise, schedule: torch.where(mask, add_noise(known, t, xt, schedule), xt)),
        Mistake("you are one level off: x_t is at level t, and so must the known part be", pasted(lambda x0, t, noise, schedule: add_noise(x0, t - 1, noise, schedule))),
        Mistake("you are one level off: x_t is at level t, and so must the known part be", pasted(lambda x0, t, noise, schedule: add_noise(x0, t + 1, noise, schedule))),
        Mistake("you noised all images to the level of the first; each has its own t", pasted(lambda x0, t, noise, schedule: add_noise(x0, t[:1].expand_as(t), noise, schedule))),
        Mistake("the image is right, but you changed the x_t that came in; make a new tensor, as `torch.where` does", in_place),
        Mistake("an index needs a mask of the whole shape; `torch.where` spreads it over the images", lambda xt, known, mask, *rest: xt[mask]),
        Mistake("`1 - mask` is not defined for truth values; `~mask` turns them round, and `torch.where` needs no turning", lambda xt, known, mask, *rest: 1 - mask),
        Mistake(SHAPED, lying(lambda a, x: a * x)),
        Mistake(SHAPED, lying(lambda a, x: x * a)),
    ),
)

EXERCISES = (NEGATIVE_MASS, LARGEST, LABELS, PRICE, LOG_SHARE, MEAN_OF_ABS, MEMORISATION, NEEDED, CAPTIONS, PASTE)
