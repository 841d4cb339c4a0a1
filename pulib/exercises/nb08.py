"""Exercises of notebook 08: the memory of a run, its hours, and a risk over several processes."""

import torch
from torch import Tensor

from .. import risk, scale
from .base import Exercise, Mistake, Observed
from .nb02 import slopes

# --------------------------------------------------------------------------------------- 08.1 the memory of a run


def observe_bytes(f) -> Observed:
    return {
        "all weights trained": torch.tensor(float(f(1000, 0, 16, 50))),
        "LoRA: few trained, many frozen in 2 bytes": torch.tensor(float(f(40, 3000, 8, 70, 2))),
        "frozen weights in 4 bytes": torch.tensor(float(f(500, 1000, 4, 30, 4))),
    }


FIVE = "a trained weight needs five numbers: itself, its gradient, two moments of Adam, and its average"
MEMORY = Exercise(
    "08.1",
    scale.training_bytes,
    observe_bytes,
    (
        Mistake(f"{FIVE}; one of them is missing", lambda n, m, b, a, f=4: 16 * n + f * m + b * a),
        Mistake(f"{FIVE}; two of them are missing", lambda n, m, b, a, f=4: 12 * n + f * m + b * a),
        Mistake(f"{FIVE}; three of them are missing", lambda n, m, b, a, f=4: 8 * n + f * m + b * a),
        Mistake(f"{FIVE}; you counted the weight alone", lambda n, m, b, a, f=4: 4 * n + f * m + b * a),
        Mistake("a number in full precision has 4 bytes; you counted numbers", lambda n, m, b, a, f=4: 5 * n + m + b * a),
        Mistake("activations are those of one image; a step keeps those of a whole batch", lambda n, m, b, a, f=4: 20 * n + f * m + a),
        Mistake("the activations are missing, which in a U-Net are most of it", lambda n, m, b, a, f=4: 20 * n + f * m),
        Mistake("the frozen weights are missing: they must lie there too", lambda n, m, b, a, f=4: 20 * n + b * a),
        Mistake("a frozen weight needs no gradient, no moments and no average of its own: `frozen_bytes` is all", lambda n, m, b, a, f=4: 20 * (n + m) + b * a),
        Mistake("a frozen weight has `frozen_bytes`, which may be 2", lambda n, m, b, a, f=4: 20 * n + 4 * m + b * a),
        Mistake("weights do not multiply with the batch; only activations do", lambda n, m, b, a, f=4: b * (20 * n + f * m + a)),
        Mistake("`activations` are bytes already", lambda n, m, b, a, f=4: 20 * n + f * m + 4 * b * a),
    ),
)


# ---------------------------------------------------------------------------------------- 08.2 the hours of a run


def observe_hours(f) -> Observed:
    return {
        "training alone": torch.tensor(float(f(2e9, 1000, 32, 0, 50, 1.0, 0.2))),
        "drawing alone": torch.tensor(float(f(2e9, 0, 32, 500, 50, 1.0, 0.2))),
        "both, on a fast device that is used well": torch.tensor(float(f(9e9, 20000, 128, 2000, 1000, 300.0, 0.5))),
    }


def hours(train=3, per=3600.0, scale_of=1e12, share=lambda used: used, work=None):
    """An answer from what a training step costs, the seconds of an hour, the unit of the peak and the share."""

    def f(flops, steps, batch, n_samples, calls, tflops, used=0.2):
        done = flops * (train * steps * batch + n_samples * calls) if work is None else work(flops, steps, batch, n_samples, calls)
        return done / (tflops * scale_of * share(used)) / per

    return f


HOURS = Exercise(
    "08.2",
    scale.device_hours,
    observe_hours,
    (
        Mistake("a training step is not one forward pass: the backward pass costs about two more", hours(train=1)),
        Mistake("the forward pass of training is missing: forward 1, backward 2", hours(train=2)),
        Mistake("these are seconds; an hour has 3600", hours(per=1.0)),
        Mistake("these are minutes; an hour has 60 of them", hours(per=60.0)),
        Mistake("tflops counts 10^12 operations a second", hours(scale_of=1.0)),
        Mistake("tflops counts 10^12 operations a second, not 10^9", hours(scale_of=1e9)),
        Mistake("no device reaches its peak: divide by the share that is used", hours(share=lambda used: 1.0)),
        Mistake("you multiplied by the share; a device that is used less takes longer", hours(share=lambda used: 1 / used)),
        Mistake("the drawings are missing", hours(work=lambda f, s, b, n, c: f * 3 * s * b)),
        Mistake("training is missing", hours(work=lambda f, s, b, n, c: f * n * c)),
        Mistake("a step trains on a whole batch", hours(work=lambda f, s, b, n, c: f * (3 * s + n * c))),
        Mistake("a drawing takes `calls` network calls, not one", hours(work=lambda f, s, b, n, c: f * (3 * s * b + n))),
        Mistake("drawings have no backward pass: each of their calls counts once", hours(work=lambda f, s, b, n, c: 3 * f * (s * b + n * c))),
        Mistake("drawings do not multiply with the batch of training", hours(work=lambda f, s, b, n, c: f * b * (3 * s + n * c))),
    ),
    tolerance=1e-6,
)


# -------------------------------------------------------------------------------- 08.3 a risk over several processes


def observe_parts(f) -> Observed:
    even_u, even_s = [torch.tensor([0.2, 0.9]), torch.tensor([2.0, 1.1]), torch.tensor([0.4, 0.6])], [torch.tensor([4.0]), torch.tensor([1.0]), torch.tensor([7.0])]
    odd_u, odd_s = [torch.tensor([0.3, 0.8, 1.6]), torch.tensor([0.5])], [torch.tensor([3.0]), torch.tensor([0.7, 1.2, 2.5])]

    def sliced(u: Tensor, s: Tensor) -> Tensor:
        return f([u[:2], u[2:4], u[4:]], [s[:1], s[1:2], s[2:]], 0.3)

    return {
        "three processes": f(even_u, even_s, 0.3),
        "parts of different lengths": f(odd_u, odd_s, 0.4),
        "a process without S": f(odd_u, [torch.tensor([3.0, 0.7, 1.2]), torch.zeros(0)], 0.4),
        "slopes in the losses": slopes(sliced, torch.cat(even_u), torch.cat(even_s)),
    }


def mean_of(*parts: Tensor) -> Tensor:
    return torch.stack(parts).mean()


def own(u: Tensor, s: Tensor, prior: float) -> Tensor:
    """What a process forms that knows its own part alone."""
    return risk.pu_risk(u, s, prior) if len(s) else u.mean()


def by_means(u: list[Tensor], s: list[Tensor], prior: float) -> Tensor:
    """The risk from means of the parts' means, which weigh short parts too much."""
    mean_u, mean_s = mean_of(*(p.mean() for p in u)), mean_of(*(p.mean() for p in s if len(p)))
    logs = mean_of(*(risk.sensitive_loss(p).mean() for p in s if len(p)))
    return prior * logs + (mean_u - prior * mean_s).abs()


PARTS = Exercise(
    "08.3",
    risk.risk_of_parts,
    observe_parts,
    (
        Mistake("this is the mean of the processes' own risks; |.| must be taken once, of the means over the whole batch", lambda u, s, b: mean_of(*(own(p, q, b) for p, q in zip(u, s)))),
        Mistake("you summed the processes' own risks; form one risk, from the means over the whole batch", lambda u, s, b: torch.stack([own(p, q, b) for p, q in zip(u, s)]).sum()),
        Mistake("a mean of means weighs a short part as much as a long one; take the mean over all images", by_means),
        Mistake("this is the risk of the first process alone", lambda u, s, b: own(u[0], s[0], b)),
        Mistake("the log term is missing: `risk.pu_risk` has it", lambda u, s, b: risk.pu_risk(torch.cat(u), torch.cat(s), b, temperature=None)),
        Mistake("|.| is missing: `risk.pu_risk` has it", lambda u, s, b: risk.pu_risk(torch.cat(u), torch.cat(s), b, "none")),
        Mistake("U and S have changed places", lambda u, s, b: risk.pu_risk(torch.cat(s), torch.cat(u), b)),
        Mistake("the numbers are right, but no slope passes through them, and training needs one: do without .item() and .detach()", lambda u, s, b: risk.risk_of_parts(u, s, b).item()),
        Mistake("the numbers are right, but S has no slope: do without .detach() on the losses of S", lambda u, s, b: risk.risk_of_parts(u, [p.detach() for p in s], b)),
    ),
)

EXERCISES = (MEMORY, HOURS, PARTS)
