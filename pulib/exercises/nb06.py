"""Exercises of notebook 06: weights, the noise of a handful of images, the prior that is left, a budget, and the front."""

import torch
from torch import Tensor

from .. import evaluation, risk, rivals, training
from .base import Exercise, Mistake, Observed
from .nb02 import paired, slopes

# ------------------------------------------------------------------------------------ 06.1 the weighted part


def observe_weighted(f) -> Observed:
    u, s = torch.tensor([0.3, 1.2, 0.7, 2.0, 0.4, 1.6]), torch.tensor([1.5, 4.0, 2.5])
    w_u, w_s = torch.tensor([0.9, 1.0, 0.7, 0.1, 0.95, 0.6]), torch.tensor([0.2, 0.5, 0.05])
    return {
        "weights between 0 and 1": f(u, s, w_u, w_s, 0.3),
        "weights of 0 and 1, where images are dropped": f(u, s, (w_u > 0.65).float(), (w_s > 0.1).float(), 0.3),
        "all weights 1, a large prior": f(u, s, torch.ones(6), torch.ones(3), 0.6),
        "slopes in the losses": slopes(lambda u, s: f(u, s, w_u, w_s, 0.3), u, s),
    }


NORMALISED = "you divided by the sum of the weights; (6.2) takes plain means of w l"
WEIGHTED = Exercise(
    "06.1",
    risk.weighted_part,
    observe_weighted,
    (
        Mistake("the weights are missing", lambda u, s, w, v, b: u.mean() - b * s.mean()),
        Mistake("the weights of U are missing", lambda u, s, w, v, b: u.mean() - b * (v * s).mean()),
        Mistake("the weights of S are missing", lambda u, s, w, v, b: (w * u).mean() - b * s.mean()),
        Mistake("the part of S is missing; without it (the soft filter) what slips through stays in", lambda u, s, w, v, b: (w * u).mean()),
        Mistake("the prior is missing before the mean over S", lambda u, s, w, v, b: (w * u).mean() - (v * s).mean()),
        Mistake("you added S; its part must be subtracted", lambda u, s, w, v, b: (w * u).mean() + b * (v * s).mean()),
        Mistake("the difference is turned round: S is subtracted from U", lambda u, s, w, v, b: b * (v * s).mean() - (w * u).mean()),
        Mistake("you multiplied mean weights by mean losses; multiply image by image, and then average", lambda u, s, w, v, b: w.mean() * u.mean() - b * v.mean() * s.mean()),
        Mistake(NORMALISED, lambda u, s, w, v, b: (w * u).sum() / w.sum() - b * (v * s).sum() / v.sum()),
        Mistake(NORMALISED, lambda u, s, w, v, b: (w * u).sum() / w.sum() - b * (v * s).mean()),
        Mistake(NORMALISED, lambda u, s, w, v, b: (w * u).mean() - b * (v * s).sum() / v.sum()),
        Mistake("you summed where (6.2) asks for means", lambda u, s, w, v, b: (w * u).sum() - b * (v * s).sum()),
        Mistake("you used 1 - w; w itself is the weight", lambda u, s, w, v, b: ((1 - w) * u).mean() - b * ((1 - v) * s).mean()),
        Mistake("on S you used 1 - w; w is the same function of the image on both sides", lambda u, s, w, v, b: (w * u).mean() - b * ((1 - v) * s).mean()),
        Mistake("this is E_N[w l] itself; (6.2) leaves the factor 1 - prior, which does not change what is best", lambda u, s, w, v, b: risk.weighted_part(u, s, w, v, b) / (1 - b)),
        Mistake("you corrected it; (6.2) has no correction, and a batch's value may be negative", lambda u, s, w, v, b: risk.weighted_part(u, s, w, v, b).abs()),
        Mistake("you corrected it; (6.2) has no correction, and a batch's value may be negative", lambda u, s, w, v, b: risk.weighted_part(u, s, w, v, b).clamp(min=0)),
        Mistake("U has the factor 1 - prior; in (6.2) it counts in full", lambda u, s, w, v, b: (1 - b) * (w * u).mean() - b * (v * s).mean()),
        Mistake("you gave one value per image of U; take the mean over U too", lambda u, s, w, v, b: w * u - b * (v * s).mean()),
        *paired("you combined images of U and of S one by one, but they differ in number, and no two belong together: take the mean of each first"),
        Mistake("the numbers are right, but no slope passes through them, and training needs one: do without .item() and .detach()", lambda u, s, w, v, b: risk.weighted_part(u, s, w, v, b).item()),
        Mistake("the part of S must pass on its slope too: no .item() or .detach() on S", lambda u, s, w, v, b: (w * u).mean() - b * (v * s).mean().detach()),
    ),
)


# ----------------------------------------------------------------------------- 06.2 the noise of a handful of images


def observe_kernel(f) -> Observed:
    generator = torch.Generator().manual_seed(3)
    images, xt = torch.randn(5, 1, 2, 3, generator=generator), torch.randn(4, 1, 2, 3, generator=generator)
    levels = torch.tensor([0.9, 0.6, 0.3, 0.1]).view(-1, 1, 1, 1)
    mild = levels, (1 - levels**2).sqrt()
    clean = torch.full((4, 1, 1, 1), 0.999), torch.full((4, 1, 1, 1), 0.03)
    return {
        "four noise levels": f(xt, images, *mild),
        "hardly any noise": f(clean[0] * images[:4] + clean[1] * xt, images, *clean),
        "one image": f(xt, images[:1], *mild),
    }


def kernel(power=lambda d, signal, sigma: -d / (2 * sigma**2), centre=lambda images, signal: signal * images, weigh=lambda p: p.softmax(1), noise=lambda xt, x0, a, b: (xt - a * x0) / b):
    """An answer from the exponent of its weights, where they are centred, how they are normalised, and how x_0 becomes noise."""

    def f(xt: Tensor, images: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        d = (xt[:, None] - centre(images, signal[:, None])).flatten(2).square().sum(2)
        w = weigh(power(d, signal.flatten()[:, None], sigma.flatten()[:, None]))
        return noise(xt, (w @ images.flatten(1)).view_as(xt), signal, sigma)

    return f


KERNEL = Exercise(
    "06.2",
    rivals.kernel_noise,
    observe_kernel,
    (
        Mistake("this is the mean image E[x_0 | x_t]; solve x_t = signal x_0 + sigma eps for eps", kernel(noise=lambda xt, x0, a, b: x0)),
        Mistake("in the last step x_0 lacks its factor `signal`: eps = (x_t - signal x_0) / sigma", kernel(noise=lambda xt, x0, a, b: (xt - x0) / b)),
        Mistake("in the last step the division by `sigma` is missing", kernel(noise=lambda xt, x0, a, b: xt - a * x0)),
        Mistake("the sign is turned in the last step: eps = (x_t - signal x_0) / sigma", kernel(noise=lambda xt, x0, a, b: (a * x0 - xt) / b)),
        Mistake("`signal` and `sigma` have changed places in the last step", kernel(noise=lambda xt, x0, a, b: (xt - b * x0) / a)),
        Mistake("distances are to signal x_i, not to x_i: an image in x_t has faded", kernel(centre=lambda images, signal: images)),
        Mistake("the factor 2 is missing: a Gaussian's exponent is -d^2 / (2 sigma^2)", kernel(lambda d, a, b: -d / b**2)),
        Mistake("sigma must be squared: a Gaussian's exponent is -d^2 / (2 sigma^2)", kernel(lambda d, a, b: -d / (2 * b))),
        Mistake("the distance must be squared", kernel(lambda d, a, b: -d.sqrt() / (2 * b**2))),
        Mistake("a minus is missing in the exponent: near images weigh more, not less", kernel(lambda d, a, b: d / (2 * b**2))),
        Mistake("the division by 2 sigma^2 is missing: the noisier x_t, the farther images may lie", kernel(lambda d, a, b: -d)),
        Mistake("you softmaxed over the wrong axis: the weights of all images sum to 1 for each x_t", kernel(weigh=lambda p: p.softmax(0))),
        Mistake("the weights are not normalised: they must sum to 1 for each x_t (`.softmax`)", kernel(weigh=torch.exp)),
        Mistake("all images weigh the same; those near x_t must weigh more", kernel(weigh=lambda p: torch.full_like(p, 1 / p.shape[1]))),
        Mistake("you took the nearest image alone; E[x_0 | x_t] is a mean over all, weighted", kernel(weigh=lambda p: (p == p.max(1, keepdim=True).values).float())),
    ),
)


# ----------------------------------------------------------------------------------- 06.3 the prior that is left


def observe_leftover(f) -> Observed:
    r_u = torch.tensor([0.01, 0.9, 0.03, 0.6, 0.2, 0.02, 0.05, 0.45, 0.02, 0.1])
    r_s = torch.tensor([0.95, 0.03125, 0.8, 0.99, 0.5, 0.0625])
    return {
        "threshold 0.5, prior 0.2": f(r_u, r_s, 0.2, 0.5),
        "threshold 0.0625, prior 0.3": f(r_u, r_s, 0.3, 0.0625),
        "a threshold that all pass": f(r_u, r_s, 0.2, 1.0),
        "threshold 0.25, prior 0.4": f(r_u, r_s, 0.4, 0.25),
    }


def left(above=lambda u, s, b: b * s, below=lambda u, s, b: u, inside=torch.lt, share=lambda passed: passed.double().mean()):
    """An answer from what stands above and below the line, from which images pass, and from how they are counted."""

    def f(r_u: Tensor, r_s: Tensor, prior: float, threshold: float):
        u, s = (share(inside(r, threshold)) for r in (r_u, r_s))
        return above(u, s, prior) / below(u, s, prior)

    return f


LEFTOVER = Exercise(
    "06.3",
    rivals.leftover_prior,
    observe_leftover,
    (
        Mistake("an image at the threshold does not pass: <, not <=", left(inside=torch.le)),
        Mistake("you counted the images that are held back; count those that pass, r < threshold", left(inside=torch.ge)),
        Mistake("you counted the images above the threshold; count those that pass, r < threshold", left(inside=torch.gt)),
        Mistake("this is the share of S that passes; multiply by prior, and divide by the share of U that passes", left(lambda u, s, b: s, lambda u, s, b: 1)),
        Mistake("this is how much of U passes and is sensitive; of those that pass it is more: divide by the share of U that passes", left(below=lambda u, s, b: 1)),
        Mistake("the prior is missing: of U only that share can be sensitive", left(lambda u, s, b: s)),
        Mistake("the quotient is upside down", left(lambda u, s, b: u, lambda u, s, b: b * s)),
        Mistake("U and S have changed places", left(lambda u, s, b: b * u, lambda u, s, b: s)),
        Mistake("you divided numbers of images; U and S differ in size, so take shares", left(share=lambda passed: passed.double().sum())),
        Mistake("the mean over U holds the sensitive images already; below the line stands P_U alone", left(below=lambda u, s, b: (1 - b) * u + b * s)),
        Mistake("below the line 1 - prior does not belong: P_U is the share of all of U that passes", left(below=lambda u, s, b: (1 - b) * u)),
        Mistake("this is the share that is left and normal: 1 minus what is asked for", left(lambda u, s, b: u - b * s)),
        Mistake("the prior multiplies; you subtracted what was caught from it", left(lambda u, s, b: b - (1 - s), lambda u, s, b: 1)),
    ),
)


# -------------------------------------------------------------------------------------------- 06.4 a budget


def observe_budget(f) -> Observed:
    u, s = torch.tensor([3.0, -4.0, 1.0]), torch.tensor([-6.0, 5.0, 20.0])
    return {
        "a gradient of S far above its budget": f(u, s, 0.1),
        "one below it, which stays as it is": f(u, s / 100, 0.5),
        "another budget": f(u, s, 0.7),
        "one that only a large budget lets pass": f(u, s, 5.0),
    }


def budgeted(share=lambda u, s, c: c * u / s, cut=lambda x: x.clamp(max=1.0), norm=torch.norm, end=lambda u, s, c: u + c * s):
    """An answer from the factor of grad_s, its cut, the norm, and how the two are put together."""
    return lambda u, s, budget: end(u, s, cut(share(norm(u), norm(s), torch.tensor(budget))))


BUDGET = Exercise(
    "06.4",
    training.within_budget,
    observe_budget,
    (
        Mistake("a small gradient of S is blown up to its budget; the factor must be at most 1", budgeted(cut=lambda x: x)),
        Mistake("the gradient of S is not cut at all", lambda u, s, c: u + s),
        Mistake("the gradient of S is always multiplied by the budget; it is only cut where it is too large", lambda u, s, c: u + c * s),
        Mistake("the quotient is upside down: the larger grad_s, the smaller its factor", budgeted(lambda u, s, c: c * s / u)),
        Mistake("the budget is missing in the factor", budgeted(lambda u, s, c: u / s)),
        Mistake("the norm of grad_u is missing: the budget is a share of it", budgeted(lambda u, s, c: c / s)),
        Mistake("you used squared norms", budgeted(norm=lambda g: g.square().sum())),
        Mistake("you used sums of absolute values; the norm is the root of the sum of squares", budgeted(norm=lambda g: g.abs().sum())),
        Mistake("you used the largest component; the norm is the root of the sum of squares", budgeted(norm=lambda g: g.abs().max())),
        Mistake("you cut each component; scale the whole gradient, so that its direction stays", lambda u, s, c: u + s.clamp(-c * u.norm(), c * u.norm())),
        Mistake("you subtracted grad_s; its sign is in it already", budgeted(end=lambda u, s, c: u - c * s)),
        Mistake("you scaled grad_u; that of S is to be cut", budgeted(end=lambda u, s, c: c * u + s)),
        Mistake("you scaled the sum of both; grad_u stays as it is", budgeted(end=lambda u, s, c: c * (u + s))),
        Mistake("grad_u is missing in what you give back", budgeted(end=lambda u, s, c: c * s)),
        Mistake("this is the factor of grad_s; give back the whole gradient", budgeted(end=lambda u, s, c: c)),
        Mistake("the factor is cut on the wrong side: at most 1", budgeted(cut=lambda x: x.clamp(min=1.0))),
        Mistake("where grad_s is above its budget you dropped it; scale it down to its budget", budgeted(cut=lambda x: (x >= 1).float())),
    ),
)


# --------------------------------------------------------------------------------------------- 06.5 the front


def observe_front(f) -> Observed:
    nsr = torch.tensor([0.90, 0.99, 0.95, 0.97, 0.93, 0.97, 0.99, 0.96])
    frechet = torch.tensor([1.0, 3.0, 1.5, 2.0, 2.5, 2.2, 3.0, 1.5])
    return {
        "eight methods, two of them alike": f(nsr, frechet),
        "one method": f(nsr[:1], frechet[:1]),
        "three, of which one is best at both": f(torch.tensor([0.8, 0.99, 0.9]), torch.tensor([2.0, 1.0, 1.5])),
        "equal NSR": f(torch.tensor([0.9, 0.9, 0.9]), torch.tensor([2.0, 1.0, 1.5])),
    }


def front(no_worse=lambda a, b, c, d: (a >= b) & (c <= d), better=lambda a, b, c, d: (a > b) | (c < d), end=lambda beaten: ~beaten.any(0)):
    """An answer from the two conditions under which method [i, .] beats method [., j], and from what is made of them."""

    def f(nsr: Tensor, frechet: Tensor) -> Tensor:
        at = nsr[:, None], nsr, frechet[:, None], frechet
        return end(no_worse(*at) & better(*at))

    return f


FRONT = Exercise(
    "06.5",
    evaluation.on_front,
    observe_front,
    (
        Mistake("these are the methods that another one beats; asked for are the others", front(end=lambda beaten: beaten.any(0))),
        Mistake("these are the methods that beat no other; asked for are those that no other beats (mind the axis, and that a larger NSR and a smaller Fréchet distance are better)", front(end=lambda beaten: ~beaten.any(1))),
        Mistake("a method beats itself here: it must be better in one of the two", front(better=lambda a, b, c, d: a == a)),
        Mistake("a method that is better in one and worse in the other beats nobody", front(no_worse=lambda a, b, c, d: a == a)),
        Mistake("better in one is enough if it is as good in the other; you asked for better in both", front(better=lambda a, b, c, d: (a > b) & (c < d))),
        Mistake("a smaller Fréchet distance is better", front(lambda a, b, c, d: (a >= b) & (c >= d), lambda a, b, c, d: (a > b) | (c > d))),
        Mistake("a larger NSR is better", front(lambda a, b, c, d: (a <= b) & (c <= d), lambda a, b, c, d: (a < b) | (c < d))),
        Mistake("this is the method with the best NSR; the front holds all that no other beats", lambda n, f: n == n.max()),
        Mistake("this is the method with the least Fréchet distance; the front holds all that no other beats", lambda n, f: f == f.min()),
        Mistake("these are the best in one of the two; between them there may be more that no other beats", lambda n, f: (n == n.max()) | (f == f.min())),
        Mistake("you gave their numbers; give one True or False for each method", lambda n, f: evaluation.on_front(n, f).nonzero().flatten()),
    ),
)

EXERCISES = (WEIGHTED, KERNEL, LEFTOVER, BUDGET, FRONT)
