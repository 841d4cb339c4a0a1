"""Exercises of notebook 04: honest numbers about drawings, and one step of PU training."""

import copy
import math
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from .. import evaluation, training
from ..data import normal_digits
from ..diffusion import NoisePredictor, cosine_schedule, denoising_loss
from ..risk import pu_risk, sensitive_loss
from .base import Exercise, Mistake, Observed, Unusable, named

# ---------------------------------------------------------------------------- 04.1 the judge's errors


def observe_corrected(f) -> Observed:
    return {
        "a judge that errs often": f(0.7, 0.1, 0.25),
        "a judge that never errs": f(0.9, 0.0, 0.0),
        "a good judge": f(0.94, 0.01, 0.004),
        "a rate that comes out above 1": f(0.99, 0.05, 0.02),
        "a rate that comes out below 0": f(0.01, 0.05, 0.02),
    }


def corrected(formula, cut=True):
    """A correction from a formula of the observed rate, e_N and e_S."""
    return lambda observed, e_n, e_s: min(1.0, max(0.0, formula(observed, e_n, e_s))) if cut else formula(observed, e_n, e_s)


WRONG_RATES = {
    "you subtracted e_N above the line; what is seen too often are sensitive drawings read as normal, e_S": lambda o, n, s: (o - n) / (1 - n - s),
    "you took off both errors above the line; only e_S belongs there": lambda o, n, s: (o - n - s) / (1 - n - s),
    "you subtracted e_S, but did not divide by 1 - e_N - e_S": lambda o, n, s: o - s,
    "(4.1) divides by 1 - e_N - e_S: both errors shrink what the judge can see": lambda o, n, s: (o - s) / (1 - n + s),
    "below the line only e_N is taken off; e_S belongs there too": lambda o, n, s: (o - s) / (1 - n),
    "you added e_S; it must be taken off what was seen": lambda o, n, s: (o + s) / (1 - n - s),
}
ONE_END = "you cut at one end only; a rate lies between 0 and 1"
CORRECTED = Exercise(
    "04.1",
    evaluation.corrected_nsr,
    observe_corrected,
    (
        Mistake("a rate lies between 0 and 1, and yours may not; cut it to [0, 1]", corrected(lambda o, n, s: (o - s) / (1 - n - s), cut=False)),
        Mistake(ONE_END, lambda o, n, s: max(0.0, (o - s) / (1 - n - s))),
        Mistake(ONE_END, lambda o, n, s: min(1.0, (o - s) / (1 - n - s))),
        *(Mistake(text, corrected(formula)) for text, formula in WRONG_RATES.items()),
        Mistake("this is the left half of (4.1), from the true rate to what is seen; turn it round", corrected(lambda o, n, s: o * (1 - n) + (1 - o) * s)),
        *(Mistake(f"{text} (and cut the rate to [0, 1])", corrected(formula, cut=False)) for text, formula in WRONG_RATES.items()),
    ),
)


# ------------------------------------------------------------------------------- 04.2 class balance


def observe_balance(f) -> Observed:
    many, few = torch.tensor([0, 0, 0, 2, 4, 4, 6, 8, 1, 3, 3, 7]), torch.tensor([1, 1, 5, 7, 9, 9, 2])
    return {
        "even digits wanted": f(many, "even"),
        "odd digits wanted": f(few, "odd"),
        "each digit seven times": f(torch.arange(10).repeat(7), "even"),
        "one normal digit only": f(torch.full((9,), 4), "even"),
    }


def balance(formula):
    """A balance from a formula of the counts of the normal digits [5], as float64, and of the number of all drawings."""

    def measure(digits: Tensor, normal: str):
        return formula(torch.stack([(digits == d).sum() for d in normal_digits(normal)]).double(), len(digits))

    return measure


def of_all_ten(fair: float):
    return lambda digits, normal: 0.5 * (torch.bincount(digits, minlength=10) / len(digits) - fair).abs().sum()


def shares(counts: Tensor) -> Tensor:
    return counts / counts.sum()


ALL_TEN = "you counted the sensitive digits too; (4.2) runs over the five normal ones"
BALANCE = Exercise(
    "04.2",
    evaluation.class_balance,
    observe_balance,
    (
        Mistake("you divided by the number of all drawings; q_k is a share of the normal ones alone", balance(lambda c, n: 0.5 * (c / n - 0.2).abs().sum())),
        Mistake(ALL_TEN, of_all_ten(0.1)),
        Mistake(ALL_TEN, of_all_ten(0.2)),
        Mistake("balance over five digits is a fifth of each, not a tenth", balance(lambda c, n: 0.5 * (shares(c) - 0.1).abs().sum())),
        Mistake("a normal digit that was never drawn has q_k = 0, and counts too; you left it out", balance(lambda c, n: 0.5 * (shares(c[c > 0]) - 0.2).abs().sum())),
        Mistake("the factor 1/2 of (4.2) is missing", balance(lambda c, n: (shares(c) - 0.2).abs().sum())),
        Mistake("you took the largest deviation; (4.2) adds all five", balance(lambda c, n: (shares(c) - 0.2).abs().max())),
        Mistake("you took half of the largest deviation; (4.2) adds all five", balance(lambda c, n: 0.5 * (shares(c) - 0.2).abs().max())),
        Mistake("deviations of both signs cancel: take absolute values", balance(lambda c, n: 0.5 * (shares(c) - 0.2).sum())),
        Mistake("you squared the deviations; (4.2) has absolute values", balance(lambda c, n: 0.5 * (shares(c) - 0.2).square().sum())),
        Mistake("you averaged the five deviations; (4.2) adds them", balance(lambda c, n: (shares(c) - 0.2).abs().mean())),
        Mistake("you averaged the five deviations; (4.2) adds them", balance(lambda c, n: 0.5 * (shares(c) - 0.2).abs().mean())),
        Mistake("these are counts; (4.2) has shares, which sum to 1", balance(lambda c, n: 0.5 * (c - 0.2).abs().sum())),
    ),
)


# ---------------------------------------------------------------------------- 04.3 Wilson's interval


def observe_interval(f) -> Observed:
    seen: dict[str, object] = {}
    for name, k, n, z in (("282 of 300", 282, 300, 1.96), ("none of 10", 0, 10, 1.96), ("10 of 10", 10, 10, 1.96), ("5 of 12, z = 1", 5, 12, 1.0)):
        low, high = ends(f(k, n, z))
        seen |= {f"low end at {name}": low, f"high end at {name}": high}
    return seen


def ends(pair) -> tuple:
    """The two numbers of an answer.

    Raises:
        Unusable: it is something else.
    """
    try:
        low, high = pair
    except (TypeError, ValueError):
        raise Unusable(f"your function gives back {named(pair)}; two numbers were expected, the low end and the high end") from None
    return low, high


def around(formula):
    """An interval, center and half-width from a formula of p, n and z."""

    def interval(k, n, z=1.96):
        center, half = formula(k / n, n, z)
        return center - half, center + half

    return interval


def wilson(p: float, n: float, z: float) -> tuple[float, float]:
    return (p + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))


def plain(p: float, n: float, z: float) -> tuple[float, float]:
    return p, z * math.sqrt(p * (1 - p) / n)


def around_its_center(p: float, n: float, z: float) -> tuple[float, float]:
    center = wilson(p, n, z)[0]
    return center, z * math.sqrt(center * (1 - center) / (n + z**2))


INTERVAL = Exercise(
    "04.3",
    evaluation.wilson_interval,
    observe_interval,
    (
        Mistake("this is the plain interval, which takes the spread at the share that was seen and so has no width at 10 of 10; (4.3) takes it at each p that it tries", around(plain)),
        Mistake("you squared one side of (4.3) only: z must come in as z^2 in the quadratic", around(lambda p, n, z: wilson(p, n, math.sqrt(z)))),
        Mistake("your center is right, but the half-width is the plain one", around(lambda p, n, z: (wilson(p, n, z)[0], plain(p, n, z)[1]))),
        Mistake("your center is right, but the half-width takes the spread there; solve (4.3) for both ends", around(around_its_center)),
        Mistake("your half-width is right, but its center is not the p that was seen: it is drawn towards 1/2", around(lambda p, n, z: (p, wilson(p, n, z)[1]))),
        Mistake("you did not divide by n: that is the spread of one drawing, not of a share of n", around(lambda p, n, z: (p, z * math.sqrt(p * (1 - p))))),
        Mistake(
            "you did not divide by 1 + z^2/n, the factor of p^2 in the quadratic",
            around(lambda p, n, z: (p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)))),
        ),
        Mistake("these are the center and the half-width; the ends are their difference and their sum", lambda k, n, z: wilson(k / n, n, z)),
        Mistake("you wrote 1.96 where z belongs", lambda k, n, z: evaluation.wilson_interval(k, n)),
        Mistake("the two ends have changed places: the low one comes first", lambda k, n, z=1.96: evaluation.wilson_interval(k, n, z)[::-1]),
    ),
)


# ----------------------------------------------------------------------- 04.4 batches left to chance


def observe_chance(f) -> Observed:
    return {
        "7 images of U, 3 of S, a batch of 4": f(7, 3, 4),
        "5 of U, 5 of S, a batch of 2": f(5, 5, 2),
        "a batch of one image": f(7, 3, 1),
        "1375 of U, 125 of S, a batch of 16": f(1375, 125, 16),
    }


CHANCE = Exercise(
    "04.4",
    training.chance_without_sensitive,
    observe_chance,
    (
        Mistake("you drew with replacement; a deck deals each image once, so with each card the odds change", lambda u, s, b: (u / (u + s)) ** b),
        Mistake("this is the chance of at least one image of S; asked for is none", lambda u, s, b: 1 - training.chance_without_sensitive(u, s, b)),
        Mistake("this is the chance that *all* are images of S; you took the wrong share", lambda u, s, b: math.comb(s, b) / math.comb(u + s, b)),
        Mistake("this is the chance that *all* are images of S, drawn with replacement", lambda u, s, b: (s / (u + s)) ** b),
        Mistake("the share of S is taken of the whole deck, which holds both sets", lambda u, s, b: (1 - s / u) ** b),
        Mistake("with each card the whole deck shrinks too, not only the part of U", lambda u, s, b: math.prod((u - k) / (u + s) for k in range(b))),
        Mistake("with each card the part of U shrinks too, not only the whole deck", lambda u, s, b: math.prod(u / (u + s - k) for k in range(b))),
        Mistake("you are one card off: the first is drawn from the whole deck", lambda u, s, b: math.prod((u - k) / (u + s - k) for k in range(1, b + 1))),
        Mistake("this is the mean number of images of S in a batch, not the chance of none", lambda u, s, b: b * s / (u + s)),
    ),
)


# ------------------------------------------------------------------------- 04.5 the risk of one batch


class Slope(nn.Module):
    """A network of one weight: it answers weight * xt + a little that depends on t."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        return self.weight * xt + 0.01 * t.view(-1, *[1] * (xt.ndim - 1))


def batch() -> SimpleNamespace:
    """Small images whose losses are small enough for the log term to count, five of U and three of S."""
    g = torch.Generator().manual_seed(0)
    u, s = (torch.randn(n, 1, 2, 2, generator=g).clamp(-1, 1) for n in (5, 3))
    t = torch.tensor([3, 7, 11, 15, 18, 16, 5, 9])
    return SimpleNamespace(u=u, s=s, t=t, noise=torch.randn(8, 1, 2, 2, generator=g))


def observe_batch_risk(f) -> Observed:
    i, seen = batch(), {}
    for name, prior, weight in (("prior 1/11", 1 / 11, 0.7), ("a negative difference", 0.9, 0.7), ("prior 0.3", 0.3, 0.2)):
        network = Slope(weight)
        value = f(NoisePredictor(network, cosine_schedule(20), "eps"), i.u.clone(), 2 * i.s if prior == 0.9 else i.s.clone(), i.t.clone(), i.noise.clone(), prior)
        seen[f"risk, {name}"] = value
        reached = isinstance(value, Tensor) and value.ndim == 0 and value.requires_grad
        seen[f"gradient, {name}"] = torch.autograd.grad(value, network.weight)[0] if reached else torch.tensor(math.nan)
    return seen


def batch_risk(risk):
    """A risk of a batch from a function of the losses on U and on S, and of the prior."""

    def value(model, unlabeled, sensitive, t, noise, prior):
        losses = denoising_loss(model, torch.cat([unlabeled, sensitive]), t, noise, model.schedule)
        return risk(*losses.split([len(unlabeled), len(sensitive)]), prior)

    return value


def joined_with_s_first(of_u):
    """The risk when S is joined first, and `of_u` says which losses are taken for those of U."""

    def value(model, unlabeled, sensitive, t, noise, prior):
        losses = denoising_loss(model, torch.cat([sensitive, unlabeled]), t, noise, model.schedule)
        mine = of_u(torch.arange(len(losses)), len(unlabeled))
        return pu_risk(losses[mine], losses[~mine], prior)

    return value


def with_us_noise(model, unlabeled, sensitive, t, noise, prior):
    n, m = len(unlabeled), len(sensitive)
    loss_u = denoising_loss(model, unlabeled, t[:n], noise[:n], model.schedule)
    return pu_risk(loss_u, denoising_loss(model, sensitive, t[:m], noise[:m], model.schedule), prior)


def with_all_levels(of_t, of_u):
    """The loss of one set alone with the levels or the noise of both, which raises an error."""

    def value(model, unlabeled, sensitive, t, noise, prior):
        images = unlabeled if of_u else sensitive
        return denoising_loss(model, images, t if of_t else t[: len(images)], noise, model.schedule)

    return value


def log_term(s: Tensor, prior: float) -> Tensor:
    return prior * sensitive_loss(s).mean()


S_FIRST = "you joined the images with S first, but t and noise begin with those of U"
UNCUT = "t and noise hold those of U and then those of S; cut them as you cut the images, or join the images first"
PAIRED = "you subtracted the losses of S from those of U one by one, but they differ in number: take the mean of each first"
BATCH_RISK = Exercise(
    "04.5",
    training.batch_risk,
    observe_batch_risk,
    (
        Mistake("U and S are exchanged: (4.4) takes the sensitive part out of U, not the other way round", batch_risk(lambda u, s, prior: pu_risk(s, u, prior))),
        Mistake(S_FIRST, joined_with_s_first(lambda place, n: place >= len(place) - n)),
        Mistake(S_FIRST, joined_with_s_first(lambda place, n: place < n)),
        *(Mistake(UNCUT, with_all_levels(of_t, of_u)) for of_t in (True, False) for of_u in (True, False)),
        Mistake(PAIRED, batch_risk(lambda u, s, prior: u - s)),
        Mistake(PAIRED, batch_risk(lambda u, s, prior: s - u)),
        Mistake("you took one mean over the joined batch; (4.4) treats U and S differently", batch_risk(lambda u, s, prior: torch.cat([u, s]).mean())),
        Mistake("this is the supervised risk, with U taken for normal; (4.4) subtracts the sensitive part of U", batch_risk(lambda u, s, prior: torch.cat([u, sensitive_loss(s)]).mean())),
        Mistake("this is ordinary training on U: S and the prior do nothing", batch_risk(lambda u, s, prior: u.mean())),
        Mistake("the prior is missing in the difference: E_U[l] - prior E_S[l]", batch_risk(lambda u, s, prior: log_term(s, prior) + (u.mean() - s.mean()).abs())),
        Mistake("the prior is missing before the log term", batch_risk(lambda u, s, prior: sensitive_loss(s).mean() + (u.mean() - prior * s.mean()).abs())),
        Mistake("the prior is missing, in both terms", batch_risk(lambda u, s, prior: sensitive_loss(s).mean() + (u.mean() - s.mean()).abs())),
        Mistake("the log term is missing; it is nearly dead for digits, but belongs to (4.4)", batch_risk(lambda u, s, prior: (u.mean() - prior * s.mean()).abs())),
        Mistake("the absolute value is missing: the difference may be negative", batch_risk(lambda u, s, prior: log_term(s, prior) + u.mean() - prior * s.mean())),
        Mistake("this cuts a negative difference at 0; (4.4) takes its absolute value", batch_risk(lambda u, s, prior: pu_risk(u, s, prior, "clip"))),
        Mistake("you added prior E_S[l]; (4.4) subtracts it", batch_risk(lambda u, s, prior: log_term(s, prior) + u.mean() + prior * s.mean())),
        Mistake("your losses are averaged over pixels; l is a sum over them", batch_risk(lambda u, s, prior: pu_risk(u / 4, s / 4, prior))),
        Mistake("S got the levels and the noise of U's first images; its own come after those of U", with_us_noise),
        Mistake(
            "the value is right, but the losses of S are cut off from the gradient; they too must move the weights",
            batch_risk(lambda u, s, prior: pu_risk(u, s.detach(), prior)),
        ),
        Mistake(
            "the value is right, but no gradient reaches the weights; leave out detach, item and no_grad",
            lambda *args: training.batch_risk(*args).detach(),
        ),
    ),
)


# --------------------------------------------------------------------------- 04.6 the moving average


def modules() -> tuple[nn.Module, nn.Module]:
    """The average so far, which takes no part in gradients, and the trained network; both with a buffer."""
    g, pair = torch.Generator().manual_seed(0), []
    for _ in range(2):
        module = nn.Linear(3, 2)
        module.register_buffer("seen", torch.randn(2, generator=g))
        for values in module.parameters():
            values.data = torch.randn(values.shape, generator=g)
        pair.append(module)
    return pair[0].requires_grad_(False), pair[1]


def flat(tensors) -> Tensor:
    return torch.cat([values.detach().double().flatten() for values in tensors])


def observe_average(f) -> Observed:
    seen: dict[str, object] = {}
    for decay in (0.9, 0.25):
        averaged, trained = modules()
        given = f(averaged, trained, decay)
        if not isinstance(given, nn.Module):
            raise Unusable(f"your function gives back {named(given)}; it must give back the network `averaged`")
        seen[f"averaged weights, decay {decay}"] = flat(averaged.parameters())
        seen[f"averaged buffers, decay {decay}"] = flat(averaged.buffers())
        seen[f"trained network, decay {decay}"] = flat([*trained.parameters(), *trained.buffers()])
        seen[f"what is given back, decay {decay}"] = flat(given.parameters())
        seen[f"with a decay of {decay}, does the average keep a graph?"] = float(any(p.requires_grad for p in averaged.parameters()))
    return seen


def copy_buffers(slow: nn.Module, fast: nn.Module) -> None:
    for a, b in zip(slow.buffers(), fast.buffers(), strict=True):
        a.copy_(b)


def leave_buffers(slow: nn.Module, fast: nn.Module) -> None:
    pass


def moved(rule, buffers=copy_buffers, track=False):
    """An average made of a rule for weights, in place, and one for buffers."""

    def step(averaged: nn.Module, trained: nn.Module, decay: float) -> nn.Module:
        with torch.set_grad_enabled(track):
            for slow, fast in zip(averaged.parameters(), trained.parameters(), strict=True):
                rule(slow, fast, decay)
        buffers(averaged, trained)
        return averaged

    return step


def mixed(slow: Tensor, fast: Tensor, decay: float) -> None:
    slow.lerp_(fast, 1 - decay)


def averaging_buffers(averaged, trained, decay):
    averaged.seen.lerp_(trained.seen, 1 - decay)
    return moved(mixed, leave_buffers)(averaged, trained, decay)


def the_other_way_round(averaged, trained, decay):
    moved(lambda slow, fast, d: slow.mul_(1 - d).add_(d * fast), leave_buffers)(trained, averaged, decay)
    return averaged


def trained_moves_too(averaged, trained, decay):
    moved(mixed)(averaged, trained, decay)
    with torch.no_grad():
        for slow, fast in zip(averaged.parameters(), trained.parameters(), strict=True):
            fast.copy_(slow)
    return averaged


def of_a_copy(averaged, trained, decay):
    return moved(mixed)(copy.deepcopy(averaged), trained, decay)


UNMOVED = "the weights of `averaged` are still the old ones: change the tensors in place; an assignment to the loop's variable changes nothing"
AVERAGE = Exercise(
    "04.6",
    training.average,
    observe_average,
    (
        Mistake("the decay is on the wrong side: a decay near 1 must keep nearly all of the old average", moved(lambda slow, fast, d: slow.lerp_(fast, d))),
        Mistake("the decay is on the wrong side, and the buffers were not copied", moved(lambda slow, fast, d: slow.lerp_(fast, d), leave_buffers)),
        Mistake("you wrote the average into the trained network, which must go on untouched, and not into `averaged`", the_other_way_round),
        Mistake("`averaged` is right, but you overwrote the trained weights with it; training must not notice the average", trained_moves_too),
        Mistake("you averaged a copy, or new tensors; `averaged` itself must change, in place", of_a_copy),
        Mistake(UNMOVED, lambda averaged, trained, decay: averaged),
        Mistake(UNMOVED, moved(lambda slow, fast, d: None)),
        Mistake("the weights are right, but the buffers were averaged too; copy them", averaging_buffers),
        Mistake("the weights are right, but the buffers were left as they were; copy them", moved(mixed, leave_buffers)),
        Mistake("you copied the trained weights; the old average has no part in that", moved(lambda slow, fast, d: slow.copy_(fast))),
        Mistake("you added the trained weights without shrinking the old average: its factor is the decay", moved(lambda slow, fast, d: slow.add_((1 - d) * fast))),
        Mistake("the values are right, but the average now hangs on the graph of this step, and would keep the graphs of all; work under torch.no_grad()", moved(mixed, track=True)),
        Mistake("you gave back the trained network; give back `averaged`", lambda *args: (training.average(*args), args[1])[1]),
    ),
)

EXERCISES = (CORRECTED, BALANCE, INTERVAL, CHANCE, BATCH_RISK, AVERAGE)
