"""Where PU diffusion breaks: laws of failures, the label sets and splits that cause them, and a world with captions.

The laws hold for perfect models. They follow from one line: trained with an assumed prior b on a set S of density p_S', PU diffusion
aims at (p_U - b p_S') / (1 - b) (arXiv 2503.03789), whatever p_S' is.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import (
    PUSplit,
    check_count,
    check_number,
    check_positive,
    check_prior,
    is_number,
    learner_part,
    load_pu,
    make_split,
    seeded,
)
from .diffusion import NoiseModel, Schedule, add_noise, noise_of_normal, noise_of_v, sample
from .evaluation import Judge, load_results
from .risk import normal_part
from .toy import Mixture, World, responsibility_of

# -------------------------------------------------------------------------------------------------- laws


def negative_mass(log_p_u: Tensor, log_p_s: Tensor, assumed: float) -> float:
    """The mass by which the target p_U - b p_S is negative: E_S[max(0, b - p_U / p_S)], from log densities at points drawn from S, [n] each.

    0 where the target is a density, and at most b. It is the integral of max(0, b p_S - p_U), written as a mean over S.

    Raises:
        ValueError: assumed outside [0, 1), no point, or lengths that differ.
    """
    b = check_prior(assumed, "assumed")
    if log_p_u.shape != log_p_s.shape or not log_p_u.numel():
        raise ValueError(f"log_p_u and log_p_s must belong to the same points, one or more; got shapes {list(log_p_u.shape)}, {list(log_p_s.shape)}")
    return (b - (log_p_u - log_p_s).double().exp()).clamp(min=0).mean().item()


def largest_prior(share_u: Tensor, share_s: Tensor) -> float:
    """The largest b at which p_U - b p_S is nowhere negative, for kinds of images that do not overlap: min over kinds of share_U / share_S.

    It is also what a perfect estimator of the class prior finds, as nothing in U and S tells more (Blanchard et al. 2010, JMLR 11).

    Args:
        share_u: share of each kind in U, [k]; they sum to 1.
        share_s: share of each kind in S, [k]; 0 for kinds that S lacks.

    Raises:
        ValueError: shares that are no distributions over the same kinds.
    """
    if share_u.ndim != 1 or share_u.shape != share_s.shape or not all((p >= 0).all() and abs(p.sum().item() - 1) <= 1e-4 for p in (share_u, share_s)):
        raise ValueError(f"share_u and share_s must hold shares of the same kinds, >= 0, that sum to 1; got {share_u.tolist()} and {share_s.tolist()}")
    there = share_s > 0
    return min(1.0, (share_u[there] / share_s[there]).min().item())


def nsr_of_labels(prior: float, assumed: float, contamination: float = 0.0) -> float:
    """NSR of a perfect PU model when the share `contamination` of S is normal: (1 - prior - b c) / (1 - b).

    p_S' = (1 - c) p_S + c p_N, so p_U - b p_S' holds 1 - prior - b c of p_N and prior - b (1 - c) of p_S; the second is gone at b = prior / (1 - c).

    Raises:
        ValueError: a share outside [0, 1), or an assumed prior at which one of the two is negative.
    """
    prior, b, c = check_prior(prior), check_prior(assumed, "assumed"), contamination
    if not 0 <= c < 1:
        raise ValueError(f"contamination must be in [0, 1), the share of normal images in S; got {c!r}")
    normal, sensitive = 1 - prior - b * c, prior - b * (1 - c)
    if min(normal, sensitive) < -1e-9:
        most = min(prior / (1 - c), (1 - prior) / c if c else 1.0)
        raise ValueError(f"assumed must be in [0, {most:.4g}]; got {assumed}: beyond, the target density is negative somewhere")
    return min(1.0, max(0.0, normal) / (1 - b))


def price_of_filter(r: Tensor, threshold: float) -> Tensor:
    """What it costs to drop the images of U with r >= threshold: [share of the normal images lost, share of sensitive among those kept].

    From r = p(sensitive | x) alone, [n]: image x counts as 1 - r normal ones and r sensitive ones. Nobody need know which it is.

    Raises:
        ValueError: r is no vector of probabilities, or nothing is kept.
    """
    if r.ndim != 1 or not len(r) or not ((r >= 0) & (r <= 1)).all():
        raise ValueError(f"r must be a vector of probabilities in [0, 1]; got shape {list(r.shape)}, {r.min() if r.numel() else '-'} to {r.max() if r.numel() else '-'}")
    kept = r < threshold
    if not kept.any():
        raise ValueError(f"threshold must let some image pass; got {threshold!r}, and the least r is {r.min():.4g}")
    return torch.stack([(1 - r[~kept]).sum() / (1 - r).sum().clamp(min=1e-12), r[kept].mean()])


def log_share(loss_s: Tensor, scale: float = 1.0) -> float:
    """How much of the pull on S comes from the log term where l is divided by `scale`: m / (m + 1), with m the mean of 1 / (e^(l / scale) - 1).

    With l / scale for l, the part of the PU risk with S is prior E_S[-log(1 - e^(-l / scale))] - prior E_S[l] / scale. The slope of the second term
    in l is -prior / scale; that of the first has m times this size (`risk.sensitive_slope`). So 0 means that only E_U[l] - prior E_S[l] is at work,
    and 1 that only the log term is.

    Args:
        loss_s: l of sensitive images, summed over pixels, [n].
        scale: what l is divided by; 1 is the sum of the paper, the number of pixels is their mean.

    Raises:
        ValueError: no loss, or a scale that is not > 0.
    """
    if not len(loss_s):
        raise ValueError("loss_s is empty; it must hold at least one loss")
    m = (1 / torch.expm1(loss_s.double() / check_positive(scale, "scale"))).mean().item()
    return 1.0 if math.isinf(m) else m / (m + 1)


def mean_of_abs(mean: float, sd: float) -> float:
    """E|v| of v ~ N(mean, sd^2): sd sqrt(2 / pi) exp(-mean^2 / (2 sd^2)) + mean erf(mean / (sd sqrt 2)) (Leone et al. 1961).

    |E v| is what the risk has; E|v|, over batches, is what training has.

    Raises:
        ValueError: mean is not a finite number, or sd < 0.
    """
    mean = check_number(mean, "mean")
    if not sd >= 0:
        raise ValueError(f"sd must be >= 0; got {sd!r}")
    if sd == 0:
        return abs(mean)
    z = mean / sd
    return sd * math.sqrt(2 / math.pi) * math.exp(-z * z / 2) + mean * math.erf(z / math.sqrt(2))


def memorisation(loss_train: Tensor, loss_heldout: Tensor) -> float:
    """How much higher l is on the images of S that were trained on than on held-out sensitive ones, in standard errors of the difference (Welch 1947).

    PU training raises l on S; where it raises l on these images more than on others of their kind, it has learned the images, not the kind.

    Args:
        loss_train, loss_heldout: l of each image, [n] and [m], at the same noise levels.

    Raises:
        ValueError: fewer than two losses on a side.
    """
    if min(len(loss_train), len(loss_heldout)) < 2:
        raise ValueError(f"loss_train and loss_heldout need at least two losses each; got {len(loss_train)} and {len(loss_heldout)}")
    a, b = loss_train.double(), loss_heldout.double()
    return ((a.mean() - b.mean()) / (a.var() / len(a) + b.var() / len(b)).sqrt()).item()


def drawings_needed(nsr: float, other: float, z: float = 1.96) -> int:
    """Drawings of each of two models that bring the difference of their NSRs to z standard errors: z^2 (p (1 - p) + p' (1 - p')) / (p - p')^2, rounded up.

    At this number, half of all repetitions show a difference of z standard errors or more. It is at least 1.

    Raises:
        ValueError: rates that are the same, or outside [0, 1], or z is not a finite number > 0.
    """
    if not (0 <= nsr <= 1 and 0 <= other <= 1) or nsr == other:
        raise ValueError(f"nsr and other must be two different rates in [0, 1]; got {nsr!r} and {other!r}")
    return max(1, math.ceil(check_positive(z, "z") ** 2 * (nsr * (1 - nsr) + other * (1 - other)) / (nsr - other) ** 2 - 1e-9))


def nsr_of_captions(prior: float, assumed: float, same: float) -> float:
    """NSR under the caption of U of a perfect prompted model, when the share `same` of S has that caption: (1 - prior) / (1 - b same).

    Under a caption c the risk is E_U[l | c] - b same E_S[l | c] and no more: images of S with another caption change the model there only.

    Raises:
        ValueError: prior or assumed outside [0, 1), same outside [0, 1], or b same above the prior, where the target is negative somewhere.
    """
    prior, b = check_prior(prior), check_prior(assumed, "assumed")
    if not 0 <= same <= 1:
        raise ValueError(f"same must be in [0, 1], the share of S with the caption of U; got {same!r}")
    if b * same > prior + 1e-9:
        raise ValueError(f"assumed times same must be at most the prior, {prior:.4g}; got {b * same:.4g}")
    return min(1.0, (1 - prior) / (1 - b * same))


# ------------------------------------------------------------------------------------------------- effects

def museum(room: int) -> dict[str, dict[str, list[float]]]:
    """The committed runs of a room of notebook 07: {setting: {measure: its value for each seed}}.

    Raises:
        ValueError: there is no such room.
        DataError: the file is missing or corrupt.
    """
    rows = [row for row in load_results("07_failure_museum") if is_number(room) and row["room"] == room]
    if not rows:
        raise ValueError(f"room must be in 1 … 10; got {room!r}")
    return {row["setting"]: row["values"] for row in rows}


T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # runs -> Student's t, 97.5 %, one degree less


def over_seeds(values: Sequence[float], against: Sequence[float] | None = None) -> tuple[float, float, float]:
    """Mean over training runs, of the differences run by run where there is another setting to compare, with Student's 95 % interval (1908): (mean, low, high).

    Runs of one seed share batches and noise, so that their difference mostly varies less than either.

    Args:
        values: one measure for each seed, 2 to 10 of them.
        against: the same measure of the other setting, for the same seeds.

    Raises:
        ValueError: fewer than two runs or more than ten, or lengths that differ.
    """
    if len(values) not in T_95 or (against is not None and len(against) != len(values)):
        raise ValueError(f"values and against must have one number for each of 2 to 10 seeds; got {len(values)} and {'none' if against is None else len(against)}")
    x = torch.as_tensor(values, dtype=torch.float64) - (0 if against is None else torch.as_tensor(against, dtype=torch.float64))
    half = T_95[len(x)] * (x.std() / math.sqrt(len(x))).item()
    return x.mean().item(), x.mean().item() - half, x.mean().item() + half


def ratio_over_seeds(values: Sequence[float], against: Sequence[float]) -> tuple[float, float, float]:
    """How many times as large a measure is as in another setting, run by run: the geometric mean of the ratios with its 95 % interval, by their logs.

    Args:
        values, against: as in `over_seeds`, all > 0.

    Raises:
        ValueError: as `over_seeds`, or a value that is not > 0.
    """
    if not all(x > 0 for x in (*values, *against)):
        raise ValueError(f"values and against must be > 0 for a ratio; got {list(values)} and {list(against)}")
    ratio, low, high = (math.exp(x) for x in over_seeds([math.log(x) for x in values], [math.log(x) for x in against]))
    return ratio, low, high


# -------------------------------------------------------------------------- what is measured without a judge


def _ink(images: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"images must have shape [n, 1, h, w]; got {list(images.shape)}")
    return (images[:, 0].clamp(-1, 1) + 1) / 2


def thickness(images: Tensor) -> Tensor:
    """Mean width of the strokes in pixels, [n], of images [n, 1, h, w] in [-1, 1]: twice the ink over the length of its edges (total variation).

    Ends are edges, too: a straight stroke of width w and length L counts as about w L / (w + L). An image without ink counts as 0.

    Raises:
        ValueError: images of another shape.
    """
    ink = F.pad(_ink(images), (1, 1, 1, 1))
    a, b, c, d = ink[:, :-1, :-1], ink[:, :-1, 1:], ink[:, 1:, :-1], ink[:, 1:, 1:]
    across, down = (b + d - a - c) / 2, (c + d - a - b) / 2  # in the middle of four pixels: edges of all directions count alike
    return 2 * ink.sum((1, 2)) / (across.square() + down.square()).sqrt().sum((1, 2)).clamp(min=1e-6)


def slant(images: Tensor) -> Tensor:
    """How far the strokes lean to the right for each pixel upwards, [n], of images [n, 1, h, w] in [-1, 1]: -mu_xy / mu_yy, moments of the ink.

    Raises:
        ValueError: images of another shape.
    """
    ink = _ink(images)
    y, x = (torch.arange(size, dtype=ink.dtype, device=ink.device) for size in ink.shape[1:])
    mass = ink.sum((1, 2)).clamp(min=1e-6)
    mean_y, mean_x = (ink.sum(2) @ y) / mass, (ink.sum(1) @ x) / mass
    dy, dx = y[None, :, None] - mean_y[:, None, None], x[None, None] - mean_x[:, None, None]
    return -(ink * dx * dy).sum((1, 2)) / (ink * dy.square()).sum((1, 2)).clamp(min=1e-6)


class SlantJudge(nn.Module):
    """A judge of slant for `evaluation.evaluate`: label 1 for images that lean by more than `limit`, else 0; features of the digit judge.

    It measures and does not guess, so it makes no errors.
    """

    shape = Judge.shape

    def __init__(self, judge: Judge, limit: float) -> None:
        super().__init__()
        self.judge, self.limit = judge, limit

    def features(self, images: Tensor) -> Tensor:
        """Those of the judge of digits, [n, 64]."""
        return self.judge.features(images)

    def forward(self, images: Tensor) -> Tensor:
        """log p of upright and of slanted, [n, 2]: 0 for what was measured, far below for the other."""
        return F.one_hot((slant(images) > self.limit).long(), 2).double().clamp(min=1e-12).log()


def one_digit(real: Tensor, n: int, seed: int = 0) -> Tensor:
    """A worthless model: one real image, `n` times."""
    row = torch.randint(len(real), (1,), generator=seeded(seed))
    return real[row].repeat(check_count(n, "n"), 1, 1, 1)


def copied(images: Tensor, training: Tensor, heldout: Tensor) -> float:
    """The share of images [n, ...] that lie nearer to a training image than 99 % of real held-out images do, by pixels: about 0.01 for new images, 1 for copies.

    Raises:
        ValueError: an empty set, or images whose shapes differ.
    """
    sets = {"images": images, "training": training, "heldout": heldout}
    for name, x in sets.items():
        if not len(x) or x.shape[1:] != training.shape[1:]:
            raise ValueError(f"{name} must hold images of shape {list(training.shape[1:])}; got {list(x.shape)}")
    near, usual = (torch.cdist(x.flatten(1), training.flatten(1)).amin(1) for x in (images, heldout))
    return (near < usual.quantile(0.01)).double().mean().item()


def few_copies(real: Tensor, n: int, seed: int = 0, different: int = 200) -> Tensor:
    """A worthless model: `n` copies of `different` real images."""
    generator = seeded(seed)
    rows = torch.randperm(len(real), generator=generator)[: check_count(different, "different")]
    return real[rows[torch.randint(len(rows), (check_count(n, "n"),), generator=generator)]]


def gray_noise(real: Tensor, n: int, seed: int = 0) -> Tensor:
    """A worthless model: `n` images of gray noise, in [-0.5, 0.5], of the shape of `real`."""
    return torch.rand(check_count(n, "n"), *real.shape[1:], generator=seeded(seed)) - 0.5


def two_at_once(real: Tensor, n: int, seed: int = 0) -> Tensor:
    """A worthless model: `n` images in which two random real ones lie over each other."""
    rows = torch.randint(len(real), (2, check_count(n, "n")), generator=seeded(seed))
    return torch.maximum(real[rows[0]], real[rows[1]])


GARBAGE = {"one digit": one_digit, "gray noise": gray_noise, "two at once": two_at_once, "200 copied images": few_copies}  # (images, n, seed) -> images


# ------------------------------------------------------------------------------------ labels that go wrong

LABELS = 400  # sensitive images that the sets below choose from


def labels(kind: str, n: int, seed: int = 0) -> PUSplit:
    """The even digits' split (`load_pu`, the same U for all) with a set S of `n` images that is not what it should be.

    "random": as it should be, the odd digits alike. "digits 1, 3": these two only; any odd digits may be named. "bold": the ones with the thickest
    strokes, of each digit as many, up to rounding. "wrong 20 %": of S so many are normal (any percentage below 100); these are taken from the
    held-out normal images, of which the split then has fewer.

    Raises:
        ValueError: another kind, or more images than there are.
    """
    if not isinstance(kind, str):
        raise ValueError(f"kind must be a text, as 'random'; got {kind!r}")
    split, n = load_pu("even", n_sensitive=LABELS, seed=seed), check_count(n, "n")
    images, digits = split.sensitive, split.hidden.sensitive
    rows, wrong = torch.arange(len(images)), 0
    if found := re.fullmatch(r"digits ([13579](?:, ?[13579])*)", kind):
        rows = rows[torch.isin(digits, torch.tensor([int(word) for word in found[1].split(",")]))]
    elif found := re.fullmatch(r"wrong (\d{1,2}(?:\.\d+)?) ?%", kind):
        wrong = round(float(found[1]) / 100 * n)
    elif kind == "bold":
        width, of_each = thickness(images), [n // 5 + (i < n % 5) for i in range(5)]
        by_digit = [rows[digits == d] for d in (1, 3, 5, 7, 9)]
        rows = torch.cat([mine[width[mine].argsort(descending=True)[:k]] for mine, k in zip(by_digit, of_each)])
    elif kind != "random":
        raise ValueError(f"kind must be 'random', 'digits 1, 3' (odd ones), 'bold' or 'wrong 20 %' (below 100); got {kind!r}")
    if n - wrong > len(rows) or wrong > len(split.heldout_normal) // 2:
        raise ValueError(f"n must be at most {len(rows)} images of this kind, and at most {len(split.heldout_normal) // 2} of them wrong; got {n}")
    rows = rows[: n - wrong]
    s = torch.cat([images[rows], split.heldout_normal[:wrong]])
    s_digits = torch.cat([digits[rows], split.hidden.heldout_normal[:wrong]])
    hidden = replace(split.hidden, sensitive=s_digits, heldout_normal=split.hidden.heldout_normal[wrong:])
    return replace(split, sensitive=s, heldout_normal=split.heldout_normal[wrong:], hidden=hidden)


def pair(normal: int, sensitive: int, n_normal: int = 150, n_hidden: int = 50, n_sensitive: int = 100) -> PUSplit:
    """A split of two digits only, 0 or 2 against another: U of `n_normal` and `n_hidden` images, S, and the rest held out.

    Raises:
        ValueError: a normal digit other than 0 and 2, or more images than there are.
    """
    kinds = {0: "zeros", 2: "twos"}
    if not is_number(normal) or not is_number(sensitive) or normal not in kinds or sensitive == normal or sensitive not in range(10):
        raise ValueError(f"normal must be 0 or 2 and sensitive another digit; got {normal!r} and {sensitive!r}")
    n_normal, n_hidden, n_sensitive = check_count(n_normal, "n_normal"), check_count(n_hidden, "n_hidden", 0), check_count(n_sensitive, "n_sensitive")
    images, digits = learner_part()
    a, b = images[digits == normal], images[digits == sensitive]
    if n_normal >= len(a) or n_hidden + n_sensitive >= len(b):
        raise ValueError(f"n_normal must be below {len(a)}, and n_hidden + n_sensitive below {len(b)}; got {n_normal}, {n_hidden} and {n_sensitive}")
    order = torch.randperm(n_normal + n_hidden, generator=torch.Generator().manual_seed(0))
    parts = (torch.cat([a[:n_normal], b[:n_hidden]])[order], b[n_hidden : n_hidden + n_sensitive], a[n_normal:], b[n_hidden + n_sensitive :])
    of_u = torch.tensor([normal] * n_normal + [sensitive] * n_hidden)[order]
    of_s, of_normal, of_rest = (torch.full((len(p),), d) for p, d in zip(parts[1:], (sensitive, normal, sensitive)))
    return make_split(kinds[normal], *parts, of_u, of_s, of_normal, of_rest)


def slanted(share: float = 0.2) -> tuple[PUSplit, float]:
    """A split by an attribute: of the even digits of U, the `share` that leans most is sensitive, and half of these are S. Also the limit of slant.

    The labels are 1 for slanted and 0 for upright; every image near the limit is much like some on the other side.

    Raises:
        ValueError: share outside (0, 0.5].
    """
    if not is_number(share) or not 0 < share <= 0.5:
        raise ValueError(f"share must be in (0, 0.5]; got {share!r}")
    split = load_pu("even")
    images = split.oracle_normal
    limit = slant(images).quantile(1 - share).item()
    leaning = slant(images) > limit
    s_rows = torch.nonzero(leaning).flatten()[::2]
    in_u = torch.ones(len(images), dtype=torch.bool)
    in_u[s_rows] = False
    out = slant(split.heldout_normal) > limit
    parts = (images[in_u], images[s_rows], split.heldout_normal[~out], split.heldout_normal[out])
    return make_split("upright", *parts, leaning[in_u].long(), torch.ones(len(s_rows), dtype=torch.long), out[~out].long(), out[out].long()), limit


# ----------------------------------------------------------------------------------------------- batches


def inner_terms(
    table_u: Tensor, table_s: Tensor, prior: float, n_u: int, n_s: int, batches: int, seed: int = 0, stratified: bool = False, share_s: float | None = None
) -> Tensor:
    """E_U[l] - prior E_S[l] of `batches` random batches, [batches], with each loss looked up in a table instead of computed.

    Args:
        table_u, table_s: l of images at evenly spread noise levels, [levels, images] (see `diffusion.loss_profile`).
        prior: class prior, in [0, 1).
        n_u, n_s: images of U and of S in a batch.
        batches: how many batches.
        seed: of images and levels.
        stratified: one level from each of n equal parts of all levels, for U and for S, instead of independent levels.
        share_s: where given, each of the n_u + n_s images comes from S with this probability, as in one shuffled deck; a batch without S counts E_U[l].

    Raises:
        ValueError: prior outside [0, 1), or a count below 1.
    """
    prior, n_u, n_s, batches = check_prior(prior), check_count(n_u, "n_u"), check_count(n_s, "n_s"), check_count(batches, "batches")
    generator = seeded(seed)

    def losses(table: Tensor, n: int) -> Tensor:
        u = torch.rand(batches, n, generator=generator)
        level = (((torch.arange(n) + u) / n if stratified else u) * len(table)).long().clamp(max=len(table) - 1)
        return table[level, torch.randint(table.shape[1], (batches, n), generator=generator)]

    if share_s is None:
        return losses(table_u, n_u).mean(1) - prior * losses(table_s, n_s).mean(1)
    u, s = losses(table_u, n_u + n_s), losses(table_s, n_u + n_s)
    from_s = torch.rand(u.shape, generator=generator) < check_prior(share_s, "share_s")
    means = [(values * here).sum(1) / here.sum(1).clamp(min=1) for values, here in ((u, ~from_s), (s, from_s))]
    return means[0] - prior * means[1]


# --------------------------------------------------------------------------------------------- exact worlds


def subtracted(unlabeled: Mixture, labeled: Mixture, assumed: float, schedule: Schedule, ceiling: float = 0.999) -> NoiseModel:
    """The exact PU noise model eps_hat(x_t, t) for U and for *any* labeled set: (eps_U - r eps_S') / (1 - r), r = b p_S' / p_U, cut at `ceiling`.

    Up to `largest_prior` it is the noise model of the density (p_U - b p_S') / (1 - b), but for the cut where next to nothing of that density is;
    beyond, there is none, and the cut alone keeps r below 1.

    Raises:
        ValueError: assumed or ceiling outside [0, 1).
    """
    b = check_prior(assumed, "assumed")
    if not is_number(ceiling) or not 0 <= ceiling < 1:
        raise ValueError(f"ceiling must be in [0, 1), where r is cut; got {ceiling!r}")

    def eps_hat(xt: Tensor, t: Tensor) -> Tensor:
        level = schedule.alpha_bar[t]
        r = responsibility_of(labeled.log_density(xt, level), unlabeled.log_density(xt, level), b).clamp(max=ceiling)
        return noise_of_normal(unlabeled.noise(xt, level), labeled.noise(xt, level), r)

    return eps_hat


def shares_of(points: Tensor, means: Tensor) -> Tensor:
    """The share of points [n, 2] that lie nearest to each of the means [k, 2], [k]."""
    return torch.bincount(torch.cdist(points, means).argmin(1), minlength=len(means)) / len(points)


# ------------------------------------------------------------------------------------------------- captions

CAP = 8.0  # of l on S; that of pure guessing is 2


class CaptionNet(nn.Module):
    """A small network that predicts the noise of points under a caption: (x_t [B, 2], t int64 [B], caption [B, 2]) -> eps [B, 2]; it puts out v."""

    def __init__(self, schedule: Schedule, width: int = 128) -> None:
        super().__init__()
        self.schedule = schedule
        self.layers = nn.Sequential(nn.Linear(2 + 8 + 2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, xt: Tensor, t: Tensor, caption: Tensor) -> Tensor:
        """Predicted noise [B, 2] at `xt` [B, 2] and `t` int64 [B], under captions [B, 2]."""
        u = (t / len(self.schedule))[:, None] * math.pi * torch.tensor([0.5, 1.0, 2.0, 4.0])
        return noise_of_v(self.layers(torch.cat([xt, u.sin(), u.cos(), caption], 1)), xt, t, self.schedule)


@dataclass(frozen=True)
class Captions:
    """Captions of U and of S as unit vectors [2] whose cosine is `similarity`, as a text encoder may make of two phrases.

    Raises:
        ValueError: similarity outside [-1, 1].
    """

    similarity: float

    def __post_init__(self) -> None:
        if not is_number(self.similarity) or not -1 <= self.similarity <= 1:
            raise ValueError(f"similarity must be in [-1, 1]; got {self.similarity!r}")

    @property
    def of_u(self) -> Tensor:
        """The caption of U, [2]."""
        return torch.tensor([1.0, 0.0])

    @property
    def of_s(self) -> Tensor:
        """The caption of S, [2]."""
        return torch.tensor([self.similarity, math.sqrt(1 - self.similarity**2)])


def train_captioned(world: World, captions: Captions, schedule: Schedule, assumed: float, steps: int = 1500, seed: int = 0, batch: int = 256) -> Iterator[CaptionNet]:
    """Train a `CaptionNet` on E_U[l | caption of U] - b E_S[min(l, CAP) | caption of S], with fresh points in every batch, and yield it after each step.

    The cap holds what nothing else holds: under the caption of S alone, the second term has no lower bound.

    Raises:
        ValueError: assumed outside [0, 1).
    """
    generator, b, batch = seeded(seed), check_prior(assumed, "assumed"), check_count(batch, "batch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = CaptionNet(schedule)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for step in range(check_count(steps, "steps")):
        optimizer.param_groups[0]["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
        losses = []
        for density, caption in ((world.unlabeled, captions.of_u), (world.sensitive, captions.of_s)):
            x0 = density.sample(batch, generator)
            t, noise = torch.randint(len(schedule), (batch,), generator=generator), torch.randn(batch, 2, generator=generator)
            eps_hat = net(add_noise(x0, t, noise, schedule), t, caption.expand(batch, 2))
            losses.append((noise - eps_hat).square().sum(1))
        risk = normal_part(losses[0], losses[1].clamp(max=CAP), b)
        optimizer.zero_grad()
        risk.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        yield net


def draw_captioned(net: CaptionNet, caption: Tensor, n: int, schedule: Schedule, seed: int = 0) -> Tensor:
    """`n` points [n, 2] drawn under a caption [2], by 50 steps of DDIM; the schedule has at least as many levels."""
    with torch.no_grad():
        return sample(lambda xt, t: net(xt, t, caption.expand(len(xt), 2)), n, schedule, 50, seed, (2,), batch=n, clip=False)
