"""Risks as pure functions of per-image losses: unsupervised, supervised, and positive-unlabeled.

A loss l >= 0 of an image is read as a probability (autoencoding binary classifier, Yamanaka et al. 2019,
arXiv 1903.10709): p(normal | x) = exp(-l). With it the cross-entropy of a normal image is l, and that of a
sensitive one is -log(1 - exp(-l)). Nothing here knows of images, networks or devices: the inputs are vectors
of losses (or of scores, for the error rate), the outputs are scalars.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .data import check_positive, check_prior

Correction = Literal["none", "clip", "abs"]
SMALLEST_LOSS = 1e-6  # below it -log(1 - exp(-l)) and its slope explode


def sensitive_loss(loss: Tensor, temperature: float = 1.0) -> Tensor:
    """-log(1 - exp(-l / temperature)), the loss of an image labeled sensitive; same shape as `loss`.

    The form -log(-expm1(-l)) keeps the digits for small l and is never negative for large l, where it rounds to 0. Below
    `SMALLEST_LOSS` it is held constant. The scale of l against the temperature decides whether this term dominates or is
    dead: see its slope, `sensitive_slope`. Half precision is computed in single, double stays double.

    Raises:
        ValueError: temperature is not a finite number > 0.
    """
    loss = loss.to(torch.promote_types(loss.dtype, torch.float32))
    scaled = (loss / check_positive(temperature, "temperature")).clamp(min=SMALLEST_LOSS)
    return -torch.log(-torch.expm1(-scaled))


def sensitive_slope(loss: Tensor, temperature: float = 1.0) -> Tensor:
    """d/dl of -log(1 - exp(-l / temperature)): -1 / (temperature (exp(l / temperature) - 1)); same shape as `loss`.

    By the chain rule; expm1 keeps the digits of small l. It is never steeper than -1 / l, as e^u - 1 >= u. (`sensitive_loss` is
    flat where l / temperature is below `SMALLEST_LOSS`.)

    Raises:
        ValueError: temperature is not a finite number > 0.
    """
    temperature = check_positive(temperature, "temperature")
    return -1 / (temperature * torch.expm1(loss / temperature))


def unsupervised_risk(loss_u: Tensor, loss_s: Tensor | None = None) -> Tensor:
    """E_U[l], the ordinary DDPM objective: U is taken for normal and S is ignored."""
    return loss_u.mean()


def supervised_risk(loss_u: Tensor, loss_s: Tensor, temperature: float = 1.0) -> Tensor:
    """Binary cross-entropy with U taken for normal and S for sensitive, the plain mean over both batches.

    (PU diffusion, arXiv 2503.03789, the "supervised" baseline; Yamanaka et al. 2019.)

    Raises:
        ValueError: no loss on a side, or a temperature outside its range.
    """
    _check_losses(loss_u=loss_u, loss_s=loss_s)
    return torch.cat([loss_u, sensitive_loss(loss_s, temperature)]).mean()


def normal_part(loss_u: Tensor, loss_s: Tensor, prior: float) -> Tensor:
    """E_U[l] - prior E_S[l], which estimates (1 - prior) E_N[l] without a single normal label.

    Because p_U = prior p_S + (1 - prior) p_N, the two are equal in expectation (du Plessis et al. 2014). The
    estimate itself may be negative.

    Args:
        loss_u: l of unlabeled images, [n_u].
        loss_s: l of sensitive images, [n_s].
        prior: share of sensitive images in U, in [0, 1).

    Raises:
        ValueError: prior outside [0, 1), no unlabeled loss, or prior > 0 with no sensitive loss.
    """
    prior = check_prior(prior)
    _check_losses(loss_u=loss_u, **({"loss_s": loss_s} if prior > 0 else {}))
    return loss_u.mean() - (prior * loss_s.mean() if prior > 0 else 0.0)


def weighted_part(loss_u: Tensor, loss_s: Tensor, weight_u: Tensor, weight_s: Tensor, prior: float) -> Tensor:
    """E_U[w l] - prior E_S[w l], which estimates (1 - prior) E_N[w l] whatever the weight w(x) of an image is.

    It is `normal_part` of the loss w l. The smaller w is on sensitive images, the less is left to subtract.

    Args:
        loss_u, weight_u: l and w of unlabeled images, [n_u].
        loss_s, weight_s: l and w of sensitive images, [n_s].
        prior: share of sensitive images in U, in [0, 1).

    Raises:
        ValueError: as `normal_part`.
    """
    return normal_part(weight_u * loss_u, weight_s * loss_s, prior)


def normal_part_error(loss_u: Tensor, loss_s: Tensor, prior: float) -> Tensor:
    """Standard error of `normal_part`: sqrt(var_U / n_u + prior^2 var_S / n_s), how far chance typically moves the estimate.

    The two means come from independent draws, so their variances add although the means are subtracted.

    Args:
        loss_u, loss_s, prior: as in `normal_part`.

    Raises:
        ValueError: prior outside [0, 1), fewer than two unlabeled losses, or prior > 0 with fewer than two sensitive ones.
    """
    prior = check_prior(prior)
    if len(loss_u) < 2 or (prior > 0 and len(loss_s) < 2):
        raise ValueError(f"loss_u and loss_s need at least two losses each, to see how they vary; got {len(loss_u)} and {len(loss_s)}")
    return (loss_u.var() / len(loss_u) + (prior**2 * loss_s.var() / len(loss_s) if prior > 0 else 0.0)).sqrt()


def _check_losses(**losses: Tensor) -> None:
    for name, values in losses.items():
        if len(values) == 0:
            raise ValueError(f"{name} is empty; this risk needs at least one loss or score there (was `sensitive` given to `fit`?)")


def correct(value: Tensor, correction: Correction) -> Tensor:
    """Make the estimate of a non-negative risk non-negative.

    "none" leaves it (du Plessis et al. 2015), "clip" takes max(value, 0) (nnPU, Kiryo et al. 2017, arXiv
    1703.00593, equation 6), "abs" takes |value| (PU diffusion, arXiv 2503.03789; Hammoudeh & Lowd 2020).

    Raises:
        ValueError: correction is none of these.
    """
    if correction == "none":
        return value
    if correction == "clip":
        return value.clamp(min=0)
    if correction == "abs":
        return value.abs()
    raise ValueError(f"correction must be 'none', 'clip' or 'abs'; got {correction!r}")


def pu_risk(
    loss_u: Tensor,
    loss_s: Tensor,
    prior: float,
    correction: Correction = "abs",
    temperature: float | None = 1.0,
) -> Tensor:
    """prior E_S[-log(1 - e^(-l / temperature))] + correct(E_U[l] - prior E_S[l])  (arXiv 2503.03789, equation 13).

    Args:
        loss_u: l of unlabeled images, [n_u].
        loss_s: l of sensitive images, [n_s].
        prior: share of sensitive images in U, in [0, 1); 0 gives the unsupervised risk.
        correction: see `correct`.
        temperature: of the log term; 1 is the paper's; None drops the term, which leaves the exact objective
            for p_N.

    Raises:
        ValueError: an argument outside its range.
    """
    risk = correct(normal_part(loss_u, loss_s, prior), correction)
    if temperature is None or prior == 0:
        return risk
    return risk + prior * sensitive_loss(loss_s, temperature).mean()


def risk_of_parts(parts_u: Sequence[Tensor], parts_s: Sequence[Tensor], prior: float, correction: Correction = "abs", temperature: float | None = 1.0) -> Tensor:
    """`pu_risk` of a batch whose losses lie in several processes: of the whole batch, as a mean of the parts' risks is another number.

    Args:
        parts_u, parts_s: losses of U and of S, a vector for each process; their lengths may differ, and some may be empty.
        prior, correction, temperature: of `pu_risk`.

    Raises:
        ValueError: as `pu_risk`.
    """
    return pu_risk(torch.cat(list(parts_u)), torch.cat(list(parts_s)), prior, correction, temperature)


def amortised_risk(loss_u: Tensor, loss_s: Tensor, prior_s: Tensor, correction: Correction = "none") -> Tensor:
    """correct(E_b[E_U[l(b)] - b E_S[l(b)]]): the linear part of the PU risk, averaged over assumed priors b.

    A network that is told b minimises it by minimising `normal_part` at every b, as l(b) is free at each. (Our extension of
    PU diffusion, arXiv 2503.03789; conditioning on a strength as in guidance distillation, Meng et al. 2023, arXiv 2210.03142.)

    Args:
        loss_u: l of unlabeled images, each at a prior of its own, [n_u].
        loss_s: l of sensitive images, each at a prior of its own, [n_s]; in both sets priors have the same density.
        prior_s: the priors of the sensitive images, in [0, 1), [n_s].
        correction: see `correct`.

    Raises:
        ValueError: no loss on a side, priors outside [0, 1), or not one for each sensitive image.
    """
    _check_losses(loss_u=loss_u, loss_s=loss_s)
    if prior_s.shape != loss_s.shape or not ((prior_s >= 0) & (prior_s < 1)).all():
        raise ValueError(f"prior_s must hold a number in [0, 1) for each of the {len(loss_s)} losses on S; got {prior_s}")
    return correct(loss_u.mean() - (prior_s * loss_s).mean(), correction)


def plain_risk(loss_u: Tensor, loss_s: Tensor, prior_s: Tensor | None = None) -> Tensor:
    """The mean over both batches: for distances to a teacher, where nothing is subtracted (see `fit`)."""
    return torch.cat([loss_u, loss_s]).mean()


def pu_error(score_u: Tensor, score_s: Tensor, prior: float) -> Tensor:
    """The error rate of a classifier that calls scores below 0 sensitive, from unlabeled and sensitive points alone.

    prior P_S(g >= 0) + P_U(g < 0) - prior P_S(g < 0): sensitive points missed, and the PU form of the normal points
    accused, which is `normal_part` with the loss "1 if called sensitive, else 0" (du Plessis et al. 2014). It is
    unbiased for a fixed classifier and has no slope; the estimate itself may be negative.

    Args:
        score_u: g of unlabeled points, [n_u]; high means normal.
        score_s: g of sensitive points, [n_s].
        prior: share of sensitive points in U, in [0, 1).

    Raises:
        ValueError: prior outside [0, 1), or no score on a side.
    """
    _check_losses(score_u=score_u, score_s=score_s)
    called_u, called_s = (score_u < 0).float(), (score_s < 0).float()
    return check_prior(prior) * (1 - called_s.mean()) + normal_part(called_u, called_s, prior)
