"""How samples are judged: the judge, non-sensitive rate, Fréchet distance and class balance.

The shipped judge is a digit classifier trained on images that no generative model here ever sees; other sets have one
of their own (`judges`). NSR alone can be gamed (noise, or one repeated digit, may score 1.0), so a `Report` always carries quality and
balance as well.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import (
    BUILD,
    DATA,
    RESTORED,
    DataError,
    PUSplit,
    check_count,
    check_positive,
    is_normal,
    learner_part,
    normal_digits,
    read_verified,
    write_atomic,
)
from .runs import in_parts
from .training import fill_weights, read_tensors

N_FEATURES = 64
CONFIDENT = 0.9


class Judge(nn.Module):
    """Digit classifier, the mean of a few convolutional networks: images [n, 1, 28, 28] in [-1, 1] -> log p [n, 10]."""

    shape = (1, 28, 28)

    def __init__(self, members: int = 3) -> None:
        super().__init__()
        self.members = nn.ModuleList(_Member() for _ in range(members))

    def features(self, images: Tensor) -> Tensor:
        """Penultimate activations of the first member, [n, 64]: the space of the Fréchet distance."""
        return self._each()[0].body(images)

    def forward(self, images: Tensor) -> Tensor:
        """log p(digit | image), [n, 10]."""
        return self.both(images)[0]

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """log p and features, from one pass."""
        seen = [member.body(images) for member in self._each()]
        log_p = [F.log_softmax(member.head(features), 1) for member, features in zip(self._each(), seen)]
        return torch.stack(log_p).logsumexp(0) - math.log(len(seen)), seen[0]

    def _each(self) -> list["_Member"]:
        return [member for member in self.members if isinstance(member, _Member)]


class _Member(nn.Module):
    """Three convolutions and two linear layers: `body`, images [n, 1, 28, 28] -> features [n, 64], and `head`, features -> logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(1, 20, 5), nn.MaxPool2d(2), nn.Dropout2d(0.1),
            *_conv(20, 40, 5), nn.MaxPool2d(2), nn.Dropout2d(0.1),
            *_conv(40, 64, 3), nn.Dropout2d(0.1), nn.Flatten(),
            nn.Linear(64 * 49, N_FEATURES), nn.BatchNorm1d(N_FEATURES), nn.ReLU(), nn.Dropout(0.4),
        )  # fmt: skip
        self.head = nn.Linear(N_FEATURES, 10)


def _conv(c_in: int, c_out: int, size: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(c_in, c_out, size, padding=size // 2, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()


def load_judge() -> Judge:
    """The shipped judge, in evaluation mode.

    Raises:
        DataError: its weights file is missing or corrupt.
    """
    name = "weights/judge.safetensors"
    tensors, facts = read_tensors(read_verified(name), DATA / name)
    judge = Judge(**facts["model"])
    fill_weights(judge, tensors, DATA / name)
    return judge.eval().requires_grad_(False)


@dataclass(frozen=True)
class Reading:
    """What the judge sees in n images: digit (or label) int64 [n], confidence [n] in [1 / number of labels, 1], features [n, d]."""

    digits: Tensor
    confidence: Tensor
    features: Tensor


@torch.no_grad()
def read(judge: nn.Module, images: Tensor, batch: int = 250) -> Reading:
    """Let the judge read images [n, *judge.shape] in [-1, 1].

    Args:
        judge: the shipped one, or another with `shape`, images -> log p [n, labels], and `features`, images -> [n, d]; where it has `both`,
            that is asked for the two at once.
        images: [n, 1, 28, 28] for the shipped one.
        batch: digits that are read at once; of larger images fewer, which need as much memory.

    Raises:
        ValueError: there is no image, their shape is another, a pixel is not finite, or batch is not a whole number >= 1.
    """
    if len(images) == 0:
        raise ValueError("images is empty; the judge needs at least one image")
    shape = getattr(judge, "shape", Judge.shape)
    if images.shape[1:] != shape:
        raise ValueError(f"images must have shape [n, {', '.join(map(str, shape))}]; got {list(images.shape)}")
    if not torch.isfinite(images).all():
        raise ValueError("images has pixels that are nan or infinite; allowed are finite values, about [-1, 1]")
    at_once = max(1, check_count(batch, "batch") * math.prod(Judge.shape[1:]) // math.prod(shape[1:]))
    network: Any = judge  # torch declares attributes as tensors or modules
    both = getattr(judge, "both", lambda part: (network(part), network.features(part)))
    parts = in_parts(lambda rows: both(images[rows]), len(images), at_once)
    log_p, features = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    confidence, digits = log_p.exp().max(1)
    return Reading(digits, confidence, features)


# ------------------------------------------------------------------------------- non-sensitive rate


def wilson_interval(successes: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), by default at 95 %.

    Raises:
        ValueError: n < 1, successes outside 0 … n, or z is not a finite number > 0.
    """
    if not 1 <= n < math.inf or not 0 <= successes <= n:
        raise ValueError(f"successes must be in 0 … n with n >= 1; got {successes} of {n}")
    p, z2 = successes / n, check_positive(z, "z") ** 2
    center = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, center - half), min(1.0, center + half)


def judge_errors(judge: nn.Module, normal: str, unseen: tuple[Tensor, Tensor] | None = None) -> tuple[float, float]:
    """How often the judge is wrong on real images it has never seen.

    Args:
        judge: see `read`.
        normal: which labels are normal, a key of `KINDS`.
        unseen: images and labels [n] of both kinds; `learner_part`, of which the shipped judge has seen nothing, when None.

    Returns:
        e_normal: share of normal images that it calls sensitive.
        e_sensitive: share of sensitive images that it calls normal.
    """
    images, digits = learner_part() if unseen is None else unseen
    truth, seen = is_normal(digits, normal), is_normal(read(judge, images).digits, normal)
    return (~seen[truth]).double().mean().item(), seen[~truth].double().mean().item()


def corrected_nsr(observed: float, e_normal: float, e_sensitive: float) -> float:
    """NSR with the judge's errors taken out, cut to [0, 1].

    Solves observed = NSR (1 - e_normal) + (1 - NSR) e_sensitive (Rogan & Gladen 1978).

    Raises:
        ValueError: a rate outside [0, 1], or errors that sum to 1 or more: a judge no better than chance.
    """
    if not all(0 <= rate <= 1 for rate in (observed, e_normal, e_sensitive)):
        raise ValueError(f"observed, e_normal and e_sensitive must be in [0, 1]; got {observed}, {e_normal}, {e_sensitive}")
    if e_normal + e_sensitive >= 1:
        raise ValueError(f"e_normal + e_sensitive must be below 1; got {e_normal} + {e_sensitive}")
    return min(1.0, max(0.0, (observed - e_sensitive) / (1 - e_normal - e_sensitive)))


def nsr_interval(k: int, n: int, errors: tuple[float, float], n_errors: int) -> tuple[float, float]:
    """95 % interval of the corrected NSR when the judge calls `k` of `n` samples normal.

    Wilson's, for the number of samples that would leave as much doubt as the n samples and the judge's `errors`
    (e_normal, e_sensitive) together; each error was measured on `n_errors` images. It knows nothing of what differs
    between training runs.

    Raises:
        ValueError: n or n_errors is not a whole number >= 1, k not one in 0 … n, or as `corrected_nsr`.
    """
    if check_count(k, "k", 0) > check_count(n, "n"):
        raise ValueError(f"k must be in 0 … n; got {k} of {n}")
    nsr, p = corrected_nsr(k / n, *errors), (k + 2) / (n + 4)
    doubt = sum(share**2 * e * (1 - e) for share, e in zip((nsr, 1 - nsr), errors)) / check_count(n_errors, "n_errors")
    n_effective = max(1.0, p * (1 - p) / (p * (1 - p) / n + doubt))  # at one sample the interval is almost all of [0, 1]
    low, high = wilson_interval(k / n * n_effective, n_effective)
    return corrected_nsr(low, *errors), corrected_nsr(high, *errors)


def ideal_nsr(prior: float, assumed: float) -> float:
    """(1 - prior) / (1 - assumed): NSR of a perfect model trained with an assumed prior <= prior.

    Raises:
        ValueError: not 0 <= assumed <= prior < 1; above the prior the target density is negative somewhere.
    """
    if not 0 <= assumed <= prior < 1:
        raise ValueError(f"assumed must be in [0, prior] with prior in [0, 1); got assumed {assumed}, prior {prior}")
    return (1 - prior) / (1 - assumed)


# --------------------------------------------------------------------------------- quality and balance


class _Features(nn.Identity):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """Fréchet distance between two sets of judge features, [n, d] and [m, d]; d is 64 for the shipped judge.

    The distance of Heusel et al. 2017 (arXiv 1706.08500) on our judge's features: Inception's do not suit digits.

    Raises:
        ValueError: fewer than two rows on a side, or rows of another length.
    """
    if reference.ndim != 2 or features.shape[1:] != reference.shape[1:]:
        width = reference.shape[1] if reference.ndim == 2 else "d"
        raise ValueError(f"features and reference must have shape [n, {width}]; got {list(features.shape)}, {list(reference.shape)}")
    if len(features) < 2 or len(reference) < 2:
        raise ValueError(f"features and reference need at least 2 rows each; got {len(features)} and {len(reference)}")
    return _distance_to(reference)(features)


def _distance_to(reference: Tensor) -> Callable[[Tensor], float]:
    """`frechet_distance` to a reference, whose mean and covariance are computed once for many sets of features."""
    # takes seconds to load, and not all that judge samples measure a distance
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Features(reference.shape[1]), reset_real_features=False, normalize=True).set_dtype(torch.float64)
    metric.update(reference.double(), real=True)

    def distance(features: Tensor) -> float:
        metric.reset()  # but for the reference
        metric.update(features.double(), real=False)
        return max(0.0, metric.compute().item())

    return distance


def class_balance(digits: Tensor, normal: str) -> float:
    """Total variation between the normal digits among `digits` int64 [n] and the uniform distribution.

    0 is balance, 0.8 is one digit only, of five; 1.0 when there is no normal digit at all. Labels of other sets are judged alike.
    """
    counts = torch.stack([(digits == d).sum() for d in normal_digits(normal)]).double()
    if counts.sum() == 0:
        return 1.0
    return 0.5 * (counts / counts.sum() - 1 / len(counts)).abs().sum().item()


def on_front(nsr: Tensor, frechet: Tensor) -> Tensor:
    """Which methods are on the Pareto front of (NSR, Fréchet distance), bool [n]: no other is as good in both and better in one.

    Args:
        nsr: of each method, [n]; more is better.
        frechet: of each method, [n]; less is better.

    Raises:
        ValueError: not one number of each for each method.
    """
    if nsr.ndim != 1 or nsr.shape != frechet.shape:
        raise ValueError(f"nsr and frechet must be vectors of one length; got {list(nsr.shape)} and {list(frechet.shape)}")
    no_worse = (nsr[:, None] >= nsr) & (frechet[:, None] <= frechet)  # [i, j]: i against j
    better = (nsr[:, None] > nsr) | (frechet[:, None] < frechet)
    return ~(no_worse & better).any(0)


@dataclass(frozen=True)
class Report:
    """Samples in numbers: NSR corrected for the judge's errors with its 95 % interval (`nsr_interval`), and what NSR hides."""

    nsr: float
    nsr_low: float
    nsr_high: float
    nsr_raw: float
    frechet: float
    frechet_floor: float
    class_tv: float
    confident: float
    n: int

    def row(self, split: str, arm: str, seeds: int) -> dict:
        """A row of a results table."""
        return {"split": split, "arm": arm, **{k: round(v, 5) for k, v in asdict(self).items()}, "seeds": seeds}


@dataclass(frozen=True)
class Ruler:
    """What a judge must know of a split before it measures samples.

    `errors` as `judge_errors` gives them, each from about `n_errors` images; `reference`, features of the held-out normal images, [m, d]; `floor`,
    the Fréchet distance of real normal training images from these: the best to hope for.
    """

    errors: tuple[float, float]
    n_errors: int
    reference: Tensor
    floor: float


@lru_cache(maxsize=8)
def ruler(judge: nn.Module, split: PUSplit) -> Ruler:
    """The `Ruler` of a judge and a split; it reads some thousand images, so it is made once for each pair.

    The errors of the shipped judge come from `learner_part`, those of another from the held-out images of the split, which it must not have
    seen; `n_errors` is then the smaller number of either kind, so that the interval is rather too wide.
    """
    reference = read(judge, split.heldout_normal).features
    floor = frechet_distance(read(judge, split.oracle_normal).features, reference)
    if _is_shipped(judge):
        return Ruler(judge_errors(judge, split.normal), len(learner_part()[1]) // 2, reference, floor)
    kinds, labels = (split.heldout_normal, split.heldout_sensitive), (split.hidden.heldout_normal, split.hidden.heldout_sensitive)
    return Ruler(judge_errors(judge, split.normal, (torch.cat(kinds), torch.cat(labels))), min(map(len, kinds)), reference, floor)


def _is_shipped(judge: nn.Module) -> bool:
    """Whether it is the judge of the embedded digits, or stands in for it, and so states no shape of its own."""
    return isinstance(judge, Judge) or not hasattr(judge, "shape")


def evaluate(samples: Tensor, split: PUSplit, judge: nn.Module) -> Report:
    """Judge samples [n, *judge.shape] in [-1, 1] against the held-out normal images of `split`; the judge as in `read`.

    Raises:
        ValueError: fewer than two samples, or pixels that are not finite.
    """
    if len(samples) < 2:
        raise ValueError(f"samples must hold at least 2 images; got {len(samples)}")
    return report(read(judge, samples), split, judge)


def report(seen: Reading, split: PUSplit, judge: nn.Module) -> Report:
    """The report of samples that the judge has read; see `evaluate`."""
    measure = ruler(judge, split)
    normal = is_normal(seen.digits, split.normal)
    n, k = len(seen.digits), int(normal.sum())
    low, high = nsr_interval(k, n, measure.errors, measure.n_errors)
    return Report(
        nsr=corrected_nsr(k / n, *measure.errors),
        nsr_low=low,
        nsr_high=high,
        nsr_raw=k / n,
        frechet=frechet_distance(seen.features, measure.reference),
        frechet_floor=measure.floor,
        class_tv=class_balance(seen.digits, split.normal),
        confident=(seen.confidence > CONFIDENT).double().mean().item(),
        n=n,
    )


def pool(runs: list[Reading]) -> Reading:
    """Readings of several runs as one."""
    return Reading(*(torch.cat(parts) for parts in zip(*((run.digits, run.confidence, run.features) for run in runs), strict=True)))


def ratio_to_oracle(features: Tensor, oracle: Tensor, reference: Tensor, resamples: int = 200) -> list[float]:
    """Fréchet distance over the oracle's, and its 95 % interval: basic bootstrap over drawings, in pairs from the same noise.

    Args:
        features, oracle: of drawings from the same noise, [n, d] each.
        reference: of real images, [m, d].
        resamples: >= 1.

    Raises:
        ValueError: as `frechet_distance`, or resamples is not a whole number >= 1.
    """
    ratio = frechet_distance(features, reference) / frechet_distance(oracle, reference)
    generator, ratios, distance = torch.Generator().manual_seed(0), [], _distance_to(reference)
    for _ in range(check_count(resamples, "resamples")):
        rows = torch.randint(len(features), (len(features),), generator=generator)
        ratios.append(distance(features[rows]) / distance(oracle[rows]))
    low, high = (2 * ratio - torch.tensor(ratios).double().quantile(q).item() for q in (0.975, 0.025))
    return [round(value, 3) for value in (ratio, low, high)]


def write_results(notebook: str, rows: list[dict]) -> Path:
    """Write a notebook's result rows to build/course/<notebook>.results.json, atomically; the file's path.

    Raises:
        ValueError: the notebook's name is a path.
        WriteError: the file cannot be written.
    """
    if Path(notebook).name != notebook or "\\" in notebook:
        raise ValueError(f"notebook must be a name, as results are written to {BUILD / 'course'} alone; got {notebook!r}")
    path = BUILD / "course" / f"{notebook}.results.json"
    write_atomic(path, (json.dumps(rows, indent=2) + "\n").encode())
    return path


def load_results(name: str) -> list[dict]:
    """The committed result rows in data/results/<name>.json.

    Raises:
        DataError: the file is missing or corrupt.
    """
    try:
        rows = json.loads(read_verified(f"results/{name}.json"))["rows"]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("its rows are no list of objects")
        return rows
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{DATA / 'results' / name}.json holds no rows of results ({error}); {RESTORED}") from error
