"""The class prior, from unlabeled and sensitive images alone.

A classifier of S against U gives every image a score g, and each score is held out: the classifier that gives it has not
seen the image. In a bin of the highest scores, {g >= h}, U has the share

    P_U(g >= h) = prior P_S(g >= h) + (1 - prior) P_N(g >= h),

so P_U / P_S is the prior plus (1 - prior) P_N / P_S: an upper bound, tight in a bin that no normal image enters. Best bin
estimation (BBE) chooses the bin, and (TED)^n turns estimate and classifier round by round (Garg et al. 2021, arXiv
2111.00980). What normal images still add to the bin is taken off (`corrected_bin`).

All this needs that sensitive images look like no normal ones somewhere ("irreducibility"), that S is a fair draw of the
sensitive images in U, and that S is no part of U.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import check_count, check_number, check_prior, check_seed, distort, is_number, prior_in_unlabeled, seeded
from .risk import correct, normal_part

DIRECTIONS = 8  # of edges
COPIES = 12  # distorted copies of every image
COPIES_READ = 5  # the copies, the undistorted one first, whose mean is an image's score
DISTORTION = 0.8
STEPS = (300, 200, 150)  # of the first round, the second, and those after it
BATCH_UNLABELED, BATCH_SENSITIVE = 64, 32
SETTLED = 0.005  # rounds end when the estimate moved by no more
FOLD_SEED = 1_592_590_336  # added to the seed of the folds, see `prepare`
UNSETTLED = 0.1  # and are not believed when it still moves by more at the end


class CollapseError(RuntimeError):
    """The estimate means nothing: the classifier does no better than chance, the prior came out as 1, rounds do not settle.

    An error and not a nan, because a nan travels unseen through tables and figures. `scores`, where there are some, are
    the held-out scores to look at.
    """

    def __init__(self, reason: str, scores: "Scores | None" = None) -> None:
        super().__init__(reason)
        self.scores = scores


# ------------------------------------------------------------------------------------------- scores


@dataclass(frozen=True, eq=False)
class Scores:
    """Held-out scores g of the images of U, [n_u], and of S, [n_s]; high means sensitive."""

    unlabeled: Tensor
    sensitive: Tensor

    @property
    def auc(self) -> float:
        """Chance that an image of S scores above one of U, ties by half; 0.5 is guessing, 1 - prior / 2 the most there is."""
        ordered = self.unlabeled.sort().values
        below, up_to = (torch.searchsorted(ordered, self.sensitive, right=right) for right in (False, True))
        return (below + up_to).double().mean().item() / (2 * len(ordered))


def tail_masses(score_u: Tensor, score_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The shares of U and of S that score at least h, at every score h of S: (h, P_U, P_S), each [n], h rising.

    P_U / P_S over h is the picture of best bin estimation.

    Raises:
        ValueError: no score on a side, or a score that is not finite.
    """
    _check_scores(score_u=score_u, score_s=score_s)
    h = score_s.unique()  # between two scores of S a higher threshold only takes images of U out
    u, s = ((len(g) - torch.searchsorted(g.sort().values, h.to(g))).double() / len(g) for g in (score_u, score_s))
    return h, u, s


def check_classifier(scores: Scores) -> Scores:
    """`scores` as they are, where they tell S from U.

    The area under the ROC curve has to lie four standard errors above chance, each sqrt((n_u + n_s + 1) / (12 n_u n_s))
    (Mann & Whitney 1947): guessing passes about once in 30,000 times.

    Raises:
        CollapseError: scores that are not finite, all the same, or no better than chance.
    """
    both = torch.cat([scores.unlabeled, scores.sensitive])
    if not torch.isfinite(both).all():
        raise CollapseError("the classifier's scores are not finite; its training diverged", scores)
    if both.max() == both.min():
        raise CollapseError(f"the classifier's scores are all the same ({both[0].item():.3g}); it has learnt nothing", scores)
    n_u, n_s = len(scores.unlabeled), len(scores.sensitive)
    least = 0.5 + 4 * math.sqrt((n_u + n_s + 1) / (12 * n_u * n_s))
    if scores.auc < least:
        raise CollapseError(
            f"the classifier does not tell S from U: its area under the curve is {scores.auc:.3f} and must be at least {least:.3f}", scores
        )
    return scores


# --------------------------------------------------------------------------------------- estimators


@dataclass(frozen=True)
class Bin:
    """The images that score at least `threshold`: their shares of U and of S, the ratio of both, and BBE's bound on its error."""

    threshold: float
    share_u: float
    share_s: float
    ratio: float
    bound: float


def upper_bounds(share_u: Tensor, share_s: Tensor, n_u: int, n_s: int, delta: float = 0.1, gamma: float = 0.01) -> Tensor:
    """P_U / P_S + (1 + gamma) / P_S (sqrt(log(4 / delta) / 2 n_u) + sqrt(log(4 / delta) / 2 n_s)) of every bin, [n].

    Args:
        share_u, share_s: P_U and P_S, the shares of U and of S in each bin, [n].
        n_u, n_s: numbers of images in U and in S.
        delta, gamma: as in `best_bin`.
    """
    chance = sum(math.sqrt(math.log(4 / delta) / (2 * n)) for n in (n_u, n_s))
    return share_u / share_s + (1 + gamma) / share_s * chance


def best_bin(score_u: Tensor, score_s: Tensor, delta: float = 0.1, gamma: float = 0.01) -> Bin:
    """Best bin estimation: the bin whose upper bound on the prior is the lowest; its `ratio` is the estimate.

    Minimises over h   P_U / P_S + (1 + gamma) / P_S (sqrt(log(4 / delta) / 2 n_u) + sqrt(log(4 / delta) / 2 n_s))
    (Garg et al. 2021, algorithm 1): the second term bounds, with probability 1 - delta and at all h together, what chance adds
    to the first (Dvoretzky, Kiefer & Wolfowitz 1956). Only the order of the scores counts.

    Args:
        score_u, score_s: held-out scores of U, [n_u], and of S, [n_s]; high means sensitive.
        delta: chance that the bound fails, in (0, 1).
        gamma: slack of the proof, >= 0.

    Raises:
        ValueError: an argument outside its range, no score on a side, or a score that is not finite.
        CollapseError: the lowest ratio is 1 or more.
    """
    if not is_number(delta) or not is_number(gamma) or not 0 < delta < 1 or not 0 <= gamma < math.inf:
        raise ValueError(f"delta must be in (0, 1) and gamma a finite number >= 0; got {delta!r} and {gamma!r}")
    h, u, s = tail_masses(score_u, score_s)
    bounds = upper_bounds(u, s, len(score_u), len(score_s), delta, gamma)
    i = bounds.argmin()
    if u[i] >= s[i]:
        raise CollapseError(f"the prior came out as {u[i] / s[i]:.3f}, and must be below 1; no bin holds a larger share of S than of U", Scores(score_u, score_s))
    return Bin(*(value[i].item() for value in (h, u, s, u / s, bounds - u / s)))


def elkan_noto(log_ratio_u: Tensor, log_ratio_s: Tensor) -> float:
    """Elkan & Noto's estimate of the prior (KDD 2008, their estimator e1), in our convention: the share in U alone.

    With p(labeled | x) = n_s p_S / (n_s p_S + n_u p_U), its mean c over held-out images of S is the share of sensitive images
    that are labeled, so that n_s / c of all n_u + n_s images are sensitive; `prior_in_unlabeled` takes S out. A soft average: a
    classifier that is unsure anywhere in S, not just in the best bin, pushes it up.

    Args:
        log_ratio_u, log_ratio_s: log p_S / p_U of U, [n_u], and of S, [n_s]: the scores of a classifier that was trained with
            both sides weighted the same.

    Raises:
        ValueError: no score on a side, or a score that is not finite.
        CollapseError: the prior came out as 1 or more.
    """
    _check_scores(log_ratio_u=log_ratio_u, log_ratio_s=log_ratio_s)
    n_u, n_s = len(log_ratio_u), len(log_ratio_s)
    labeled = torch.sigmoid(log_ratio_s.double() + math.log(n_s / n_u)).mean().item()
    prior_all = n_s / (n_u + n_s) / labeled
    if prior_all >= 1:
        raise CollapseError(f"the share of sensitive images in U and S came out as {prior_all:.3f}, and must be below 1", Scores(log_ratio_u, log_ratio_s))
    return prior_in_unlabeled(prior_all, n_u, n_s)


@dataclass(frozen=True)
class Odds:
    """A fit of p_S / p_N = exp(slope g + offset) and of the prior; tensors [b] of b fits, slopes per unit of score."""

    slope: Tensor
    offset: Tensor
    prior: Tensor

    def posterior(self, scores: Tensor) -> Tensor:
        """p(sensitive | g) of images of U, [b, n], by Bayes' rule."""
        return torch.sigmoid(self.slope[:, None] * scores + self.offset[:, None] + self.prior.logit()[:, None])


def fit_odds(score_u: Tensor, score_s: Tensor, count_u: Tensor | None = None, count_s: Tensor | None = None, steps: int = 60) -> Odds:
    """Maximum likelihood of S against U when log p_S / p_N is linear in the score: logistic regression under a ceiling.

    With r = p_S / p_N, p_S / p_U = r / (prior r + 1 - prior), which levels off at 1 / prior where r is large: the plateau is what
    tells the prior. (Ward et al. 2009, "Presence-only data and the EM algorithm". They warn that the prior is then read from the
    assumed shape alone; so `corrected_bin` takes no more from this fit than the few normal images in the best bin.)
    With eta = p(sensitive | g), the log ratio moves by (1 - eta) g with the slope, by 1 - eta with the offset and by
    prior - eta with the log-odds of the prior; Fisher scoring does the rest.

    Args:
        score_u, score_s: scores of U, [n_u], and of S, [n_s].
        count_u, count_s: how often each counts, [b, n_u] and [b, n_s], for b fits at once (bootstrap); once when None.

    Raises:
        ValueError: no score on a side, a score that is not finite, or steps is not a whole number >= 1.
        CollapseError: the scores are all the same.
    """
    _check_scores(score_u=score_u, score_s=score_s)
    g = torch.cat([score_u, score_s]).double()
    if g.max() == g.min():
        raise CollapseError(f"the scores are all the same ({g[0].item():.3g}); they tell nothing", Scores(score_u, score_s))
    center, scale = score_s.double().mean(), g.std()
    x, labeled = (g - center) / scale, torch.arange(len(g)) >= len(score_u)
    counted = ((score_u, count_u), (score_s, count_s))
    counts = torch.cat([torch.ones(1, len(score)) if count is None else count for score, count in counted], 1).double()
    theta = torch.tensor([3.0, 3.0, -1.5]).double().repeat(len(counts), 1)  # slope, offset, log-odds of the prior
    lowest, highest = torch.tensor([[0.0, -50.0, -9.0], [50.0, 50.0, 9.0]]).double()
    for _ in range(check_count(steps, "steps")):
        move = _fisher_step(theta, x, labeled, counts).clamp(-1, 1)
        theta, before = (theta + move).clamp(lowest, highest), theta
        if (theta - before).abs().max() < 1e-4:
            break
    return Odds(theta[:, 0] / scale, theta[:, 1] - theta[:, 0] * center / scale, theta[:, 2].sigmoid())


def _fisher_step(theta: Tensor, x: Tensor, labeled: Tensor, counts: Tensor) -> Tensor:
    """Inverse Fisher information times the slope of the log-likelihood, [b, 3]; see `fit_odds`."""
    slope, offset, prior = theta[:, :1], theta[:, 1:2], theta[:, 2:].sigmoid()
    log_r = slope * x + offset
    log_ratio = log_r - torch.logaddexp(log_r + prior.log(), (1 - prior).log().expand_as(log_r))
    p = torch.sigmoid(log_ratio + math.log(labeled.sum() / (~labeled).sum()))  # p(in S | g), among the images of U and S
    eta = torch.sigmoid(log_r + theta[:, 2:])
    slopes = torch.stack([(1 - eta) * x, 1 - eta, prior - eta], 2)
    gradient = ((labeled.double() - p) * counts).unsqueeze(1) @ slopes
    information = slopes.mT @ (slopes * (p * (1 - p) * counts).unsqueeze(2))
    return torch.linalg.solve(information + 1e-3 * torch.eye(3), gradient.squeeze(1))  # a prior of 0 has no information


def corrected_bin(score_u: Tensor, score_s: Tensor, threshold: float, resamples: int = 200, seed: int = 0) -> tuple[float, float, float]:
    """The prior from the bin {g >= threshold} without the normal images in it, and its 95 % bootstrap interval.

    (1 / n_u) sum over U of p(sensitive | g) 1{g >= h}, over P_S(g >= h): the ratio of `best_bin` with each image of U
    counted by the posterior of `fit_odds`. BBE's bound keeps the bin large when S is small, so a few normal images come in, and at
    a prior of a few percent they are what BBE is wrong by. At 0.2 and above the fit takes off too much, and the plain ratio is the
    closer one (tests/benchmarks/prior_estimation.py). The interval draws images of U and S anew; it takes the
    classifier for given, so it knows nothing of what another training run would change. Its upper end is never below
    3 / (n_u P_S), the "rule of three": as much may be in U where none was seen.

    Returns:
        prior, low, high.

    Raises:
        ValueError: no score on a side, a score or threshold that is not finite, or a threshold above all of S.
        CollapseError: the scores are all the same.
    """
    _check_scores(score_u=score_u, score_s=score_s)
    if not (score_s >= check_number(threshold, "threshold")).any():
        raise ValueError(f"threshold must be at most {score_s.max().item():.4g}, the highest score of S; got {threshold!r}")
    generator = seeded(seed)
    count_u, count_s = (_resampled(len(scores), check_count(resamples, "resamples", 2), generator) for scores in (score_u, score_s))
    u, s = (score_u >= threshold).double(), (score_s >= threshold).double()
    posterior = fit_odds(score_u, score_s, count_u, count_s).posterior(score_u.double())
    all_priors = (count_u * posterior * u).mean(1) / (count_s * s).mean(1).clamp(min=1e-9)
    low, high = all_priors[1:].quantile(torch.tensor([0.025, 0.975]).double()).clamp(0, 1).tolist()
    unseen = 3 / len(score_u) / s.mean().item()  # a bootstrap draws no image that is not there
    return min(all_priors[0].item(), 1.0), low, min(max(high, unseen), 1.0)


def _resampled(n: int, resamples: int, generator: torch.Generator) -> Tensor:
    """How often a bootstrap draws each of n images, [resamples + 1, n]; the first row is the sample itself."""
    rows = torch.randint(n, (resamples, n), generator=generator)
    counts = torch.zeros(resamples, n).double().scatter_add_(1, rows, torch.ones(resamples, n).double())
    return torch.cat([torch.ones(1, n).double(), counts])


# --------------------------------------------------------------------------------------- classifier


def edges(images: Tensor) -> Tensor:
    """How strong edges of eight directions are in each region of an image: [n, 1, 28, 28] in [-1, 1] -> [n, 8, 8, 8].

    Histograms of oriented gradients (Dalal & Triggs 2005) with soft bins: a fixed first layer of the classifier. With
    125 images of S there is too little to learn one from. Every image has the same norm.
    """
    smooth = F.avg_pool2d(F.pad((images + 1) / 2, (2, 2, 2, 2)), 3, 1)
    right = smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]
    down = smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]
    strength = (right.square() + down.square()).sqrt() + 1e-6
    angles = torch.arange(DIRECTIONS) * 2 * math.pi / DIRECTIONS
    along = [((right * angle.cos() + down * angle.sin()) / strength).clamp(min=0) ** 4 * strength for angle in angles]
    regions = F.avg_pool2d(torch.cat(along, 1), 6, stride=3)
    size = regions.flatten(1).norm(dim=1).clamp(min=1e-9).view(-1, 1, 1, 1)
    return regions / size * math.sqrt(regions[0].numel())


class Classifier(nn.Module):
    """K small convolutional networks side by side, one for each fold: edges [K, n, 8, 8, 8] -> scores [K, n]."""

    def __init__(self, folds: int, channels: int = 24, hidden: int = 64, dropout: float = 0.3) -> None:
        super().__init__()
        self.folds, self.dropout = folds, dropout
        self.filters = nn.Parameter(torch.randn(folds * channels, DIRECTIONS, 3, 3) * math.sqrt(2 / (9 * DIRECTIONS)))
        self.filter_bias = nn.Parameter(torch.zeros(folds * channels))
        self.weight = nn.Parameter(torch.randn(folds, channels * 16, hidden) * math.sqrt(2 / (channels * 16)))
        self.bias = nn.Parameter(torch.zeros(folds, 1, hidden))
        self.head = nn.Parameter(torch.randn(folds, hidden, 1) / math.sqrt(hidden))
        self.head_bias = nn.Parameter(torch.zeros(folds, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Scores [K, n] of edges [K, n, 8, 8, 8]; each network scores images of its own."""
        grouped = x.transpose(0, 1).flatten(1, 2)  # networks are groups of channels, which one convolution keeps apart
        found = F.conv2d(grouped, self.filters, self.filter_bias, padding=1, groups=self.folds).relu()
        found = F.max_pool2d(found, 2).reshape(len(grouped), self.folds, -1).transpose(0, 1)
        found = F.dropout(found, self.dropout, self.training)
        hidden = F.dropout(torch.baddbmm(self.bias, found, self.weight).relu(), self.dropout, self.training)
        return torch.baddbmm(self.head_bias, hidden, self.head).squeeze(2)


@dataclass(frozen=True, eq=False)
class Task:
    """U and S as a classifier of `folds` folds sees them.

    `features`: edges of the images and of their distorted copies, [copies, n_u + n_s, 8, 8, 8], U first. `fold`: which network
    may not train on each image, and scores it, int64 [n_u + n_s].
    """

    features: Tensor
    fold: Tensor
    n_unlabeled: int
    folds: int
    seed: int

    def training_rows(self, k: int) -> tuple[Tensor, Tensor]:
        """The images of U and of S that network k trains on."""
        rows = torch.nonzero(self.fold != k).flatten()
        return rows[rows < self.n_unlabeled], rows[rows >= self.n_unlabeled]

    def held_out(self, scores: Tensor) -> Scores:
        """Of the scores [folds, n_u + n_s] of all networks, that of the one which has not seen the image."""
        mine = scores[self.fold, torch.arange(len(self.fold))]
        return Scores(mine[: self.n_unlabeled], mine[self.n_unlabeled :])


def prepare(unlabeled: Tensor, sensitive: Tensor, seed: int = 0, folds: int = 5) -> Task:
    """The `Task` of U and S, [n, 1, 28, 28] in [-1, 1].

    Folds are drawn at random, never by position: where S is sorted, or its digits take turns, as in `load_pu`, a fold by position
    would hold out whole digits.

    Raises:
        ValueError: images that are not float [n, 1, 28, 28] and finite, folds < 2, or fewer images on a side than folds.
    """
    folds, seed = check_count(folds, "folds", 2), check_seed(seed)
    for name, images in (("unlabeled", unlabeled), ("sensitive", sensitive)):
        _check_images(name, images, folds)
    # `load_pu` shuffles with its own seed; from an equal one came the same permutation, and with it folds of one digit each
    generator = torch.Generator().manual_seed(FOLD_SEED + seed)
    fold = torch.cat([torch.randperm(len(images), generator=generator) % folds for images in (unlabeled, sensitive)])
    images = torch.cat([images.detach().float().cpu() for images in (unlabeled, sensitive)])
    copies = [edges(images), *(edges(distort(images, generator, DISTORTION)) for _ in range(COPIES))]
    return Task(torch.stack(copies), fold, len(unlabeled), folds, seed)


def train(task: Task, unlabeled_rows: list[Tensor], prior: float | None, number: int, start: Classifier | None, steps: int) -> Classifier:
    """Train all networks of a task for `steps` steps and return them; `start` goes on from its weights, which change.

    Args:
        unlabeled_rows: for each network, the images of U that it trains on.
        prior: None for the logistic loss of S against U, both weighted the same; a number for the nnPU risk with it.
        number: of the round, which decides on the batches together with the task's seed.
    """
    rows_s = [task.training_rows(k)[1] for k in range(task.folds)]
    generator = torch.Generator().manual_seed(task.seed * 1009 + number)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed * 1009 + number)  # of the first weights and of dropout
        networks = (start or Classifier(task.folds)).train()
        peak = 2e-3 if start else 3e-3
        optimizer = torch.optim.AdamW(networks.parameters(), lr=peak)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps)
        for _ in range(steps):
            batches = [torch.cat([_some(u, BATCH_UNLABELED, generator), _some(s, BATCH_SENSITIVE, generator)]) for u, s in zip(unlabeled_rows, rows_s)]
            rows = torch.stack(batches)
            copy = torch.randint(len(task.features), rows.shape, generator=generator)
            scores = networks(task.features[copy, rows])
            optimizer.zero_grad()
            torch.stack([classifier_risk(g[:BATCH_UNLABELED], g[BATCH_UNLABELED:], prior) for g in scores]).sum().backward()
            optimizer.step()
            schedule.step()
    return networks.eval()


def _some(rows: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return rows[torch.randint(len(rows), (n,), generator=generator)]


def classifier_risk(score_u: Tensor, score_s: Tensor, prior: float | None) -> Tensor:
    """The risk of scores g with the logistic loss log(1 + exp(-y g)), S being y = +1.

    prior None: E_S[log(1 + e^-g)] + E_U[log(1 + e^g)], which takes U for normal; its minimiser is g = log p_S / p_U.
    A number: prior E_S[log(1 + e^-g)] + |E_U[log(1 + e^g)] - prior E_S[log(1 + e^g)]|, nnPU (Kiryo et al. 2017, arXiv 1703.00593)
    in the form with the absolute value; its minimiser is g = log p(sensitive | x) / p(normal | x).

    Raises:
        ValueError: prior outside [0, 1).
    """
    missed = F.softplus(-score_s).mean()
    if prior is None:
        return missed + F.softplus(score_u).mean()
    return check_prior(prior) * missed + correct(normal_part(F.softplus(score_u), F.softplus(score_s), prior), "abs")


@torch.no_grad()
def all_scores(networks: Classifier, task: Task) -> Tensor:
    """Scores of every network for every image, means over the first copies, [folds, n_u + n_s]."""
    parts = []
    for rows in torch.arange(len(task.fold)).split(250):
        read = [networks(task.features[copy, rows].expand(task.folds, -1, -1, -1, -1)) for copy in range(COPIES_READ)]
        parts.append(torch.stack(read).mean(0))
    return torch.cat(parts, 1)


@torch.no_grad()
def score_images(networks: Classifier, images: Tensor, seed: int = 0) -> Tensor:
    """Scores of images that no network has seen, [n, 1, 28, 28] in [-1, 1] -> [n]: means over networks and a few distorted copies.

    Raises:
        ValueError: images that are not float [n, 1, 28, 28] and finite, or none, or seed is not a whole number >= 0.
    """
    _check_images("images", images, 1)
    images, generator, parts = images.detach().float().cpu(), seeded(seed), []
    for some in images.split(250):
        copies = [some, *(distort(some, generator, DISTORTION) for _ in range(COPIES_READ - 1))]
        parts.append(torch.stack([networks(edges(copy).expand(networks.folds, -1, -1, -1, -1)) for copy in copies]).mean((0, 1)))
    return torch.cat(parts)


def fit_classifier(
    unlabeled: Tensor, sensitive: Tensor, prior: float | None = None, seed: int = 0, folds: int = 5, steps: int | None = None
) -> Scores:
    """Held-out scores of a classifier of S against U: S is split into `folds` parts and so is U, and each part is scored by a
    network that was trained on the others (cross-fitting).

    Args:
        unlabeled, sensitive: U and S, float [n, 1, 28, 28] in [-1, 1].
        prior: None takes U for normal; a number in [0, 1) trains with the nnPU risk (see `classifier_risk`).
        seed: of folds, distortions, first weights and batches; the same seed gives the same scores.
        folds: >= 2.
        steps: of training, >= 2; those of a first round, `STEPS[0]`, when None.

    Raises:
        ValueError: an argument outside its range.
    """
    return fit_networks(unlabeled, sensitive, prior, seed, folds, steps)[1]


def fit_networks(
    unlabeled: Tensor, sensitive: Tensor, prior: float | None = None, seed: int = 0, folds: int = 5, steps: int | None = None
) -> tuple[Classifier, Scores]:
    """The networks of `fit_classifier`, for `score_images`, and their held-out scores; arguments and errors as there."""
    prior, steps = None if prior is None else check_prior(prior), check_count(STEPS[0] if steps is None else steps, "steps", 2)
    task = prepare(unlabeled, sensitive, seed, folds)
    networks = train(task, [task.training_rows(k)[0] for k in range(folds)], prior, 1, None, steps)
    return networks, task.held_out(all_scores(networks, task))


def prior_at_floor(loss_u: Tensor, loss_s: Tensor, loss_n: Tensor) -> float:
    """The b at which E_U[l] - b E_S[l] meets its floor (1 - b) E_N[l]: (E_U[l] - E_N[l]) / (E_S[l] - E_N[l]).

    E_U[l] - b E_S[l] = (1 - prior) E_N[l] + (prior - b) E_S[l] lies above the floor for b < prior and below for b > prior, as long
    as l is larger on sensitive images. So this is the largest b at which the PU difference of a diffusion model is what a normal
    part could have, and an estimate of the prior from its losses.

    Args:
        loss_u, loss_s, loss_n: losses of one network on held-out images of U, of S, and on images that are surely normal, any shapes.

    Raises:
        ValueError: no loss on a side.
        CollapseError: the losses do not tell S from normal images: their means differ by less than twice the standard error.
    """
    for name, loss in (("loss_u", loss_u), ("loss_s", loss_s), ("loss_n", loss_n)):
        if loss.numel() < 2:
            raise ValueError(f"{name} must hold at least two losses; got {loss.numel()}")
    gap = (loss_s.mean() - loss_n.mean()).item()
    noise = (loss_s.var() / loss_s.numel() + loss_n.var() / loss_n.numel()).sqrt().item()
    if not gap > 2 * noise:
        raise CollapseError(f"the losses do not tell S from normal images: their means differ by {gap:.3g}, with a standard error of {noise:.3g}")
    return (loss_u.mean() - loss_n.mean()).item() / gap


# -------------------------------------------------------------------------------------------- rounds


@dataclass(frozen=True, eq=False)
class Round:
    """One round: its number (1 …), the estimate with its interval, the best bin that it corrects, and the held-out scores."""

    number: int
    prior: float
    low: float
    high: float
    bin: Bin
    scores: Scores

    @property
    def auc(self) -> float:
        """Held out; see `Scores`."""
        return self.scores.auc


@dataclass(frozen=True, eq=False)
class Estimate:
    """The prior with its 95 % bootstrap interval, and the rounds that led there, from a classifier that takes U for normal on."""

    prior: float
    low: float
    high: float
    history: tuple[Round, ...]

    @property
    def auc(self) -> float:
        """Of the last round, held out; see `Scores`."""
        return self.history[-1].auc

    @property
    def scores(self) -> Scores:
        """Held-out scores of the last round."""
        return self.history[-1].scores


def estimate_rounds(unlabeled: Tensor, sensitive: Tensor, seed: int = 0, rounds: int = 3, folds: int = 5) -> Iterator[Round]:
    """Estimate the prior of U round by round, and yield each `Round`.

    The first classifier takes all of U for normal. Each round after it lets every network drop the share `prior` of its own part of
    U that it finds the most sensitive, goes on training with the rest, and estimates again: (TED)^n of Garg et al. 2021.
    (Refitting with the nnPU risk instead left more normal images in the bin: with 100 images of S it overfits them.) Rounds end when the estimate
    settles, or after `rounds`.

    Raises:
        ValueError: an argument outside its range.
        CollapseError: see the class.
    """
    rounds = check_count(rounds, "rounds")
    task = prepare(unlabeled, sensitive, seed, folds)
    rows, networks, before = [task.training_rows(k)[0] for k in range(folds)], None, math.inf
    for number in range(1, rounds + 1):
        networks = train(task, rows, None, number, networks, STEPS[min(number, len(STEPS)) - 1])
        scores = all_scores(networks, task)
        now = read_prior(task.held_out(scores), number, seed)
        yield now
        if abs(now.prior - before) <= SETTLED:
            return
        rows, before = [_without_top(task.training_rows(k)[0], scores[k], now.prior) for k in range(folds)], now.prior


def _without_top(rows: Tensor, scores: Tensor, share: float) -> Tensor:
    """`rows` but for the `share` of them that score the highest."""
    return rows[scores[rows].argsort(descending=True, stable=True)][int(share * len(rows)) :]


def read_prior(scores: Scores, number: int = 1, seed: int = 0) -> Round:
    """The estimate that held-out scores give, checked.

    Raises:
        CollapseError: the scores do not tell S from U, or the prior is not below 1.
    """
    check_classifier(scores)
    best = best_bin(scores.unlabeled, scores.sensitive)
    prior, low, high = corrected_bin(scores.unlabeled, scores.sensitive, best.threshold, seed=seed)
    if not prior < 1:
        raise CollapseError(f"the prior came out as {prior:.3f}, and must be below 1", scores)
    return Round(number, prior, low, high, best, scores)


def settled(history: list[Round]) -> Estimate:
    """The estimate of the last round.

    Raises:
        CollapseError: the estimate still moved by more than 0.1 in the last round.
    """
    last = history[-1]
    if len(history) > 1 and abs(last.prior - history[-2].prior) > UNSETTLED:
        moves = ", ".join(f"{each.prior:.3f}" for each in history)
        raise CollapseError(f"the rounds do not settle: the prior came out as {moves}", last.scores)
    return Estimate(last.prior, last.low, last.high, tuple(history))


def estimate_prior(unlabeled: Tensor, sensitive: Tensor, seed: int = 0, rounds: int = 3, folds: int = 5) -> Estimate:
    """The share of sensitive images in U, from U and S alone: the last of `estimate_rounds`.

    Args:
        unlabeled, sensitive: U and S, float [n, 1, 28, 28] in [-1, 1].
        seed: of folds, distortions, weights and batches; the same seed gives the same estimate.
        rounds: at most, >= 1.
        folds: networks, each of which scores what the others trained on, >= 2.

    Raises:
        ValueError: an argument outside its range.
        CollapseError: see the class.
    """
    return settled(list(estimate_rounds(unlabeled, sensitive, seed, rounds, folds)))


def _check_images(name: str, images: Tensor, least: int) -> None:
    shape = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
    if not isinstance(images, Tensor) or not images.is_floating_point() or shape[1:] != [1, 28, 28]:
        raise ValueError(f"{name} must be a float tensor [n, 1, 28, 28]; got {shape} of {getattr(images, 'dtype', 'no dtype')}")
    if len(images) < least:
        raise ValueError(f"{name} must hold at least {least} images, one for each fold; got {len(images)}")
    if not torch.isfinite(images).all():
        raise ValueError(f"{name} has pixels that are nan or infinite; allowed are finite values, about [-1, 1]")


def _check_scores(**scores: Tensor) -> None:
    for name, values in scores.items():
        if not isinstance(values, Tensor) or values.ndim != 1 or len(values) == 0:
            raise ValueError(f"{name} must be a vector of at least one score; got {list(values.shape) if isinstance(values, Tensor) else type(values).__name__}")
        if not torch.isfinite(values).all():
            raise ValueError(f"{name} has scores that are nan or infinite; allowed are finite numbers")
