"""Drawings at any assumed prior, made step by step while somebody waits: sampled, judged, kept and counted."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import plots
from .data import Normal, PUSplit, check_count, check_normal, check_prior, is_normal, load_pu
from .diffusion import NoisePredictor, ddim_sampler
from .evaluation import Judge, corrected_nsr, ideal_nsr, nsr_interval, read, ruler
from .plots import Picture
from .prior import Round, estimate_rounds, settled, tail_masses, upper_bounds

ROUNDS = 3


@dataclass(frozen=True)
class Frame:
    """One moment of a drawing: the share that is done, in [0, 1], and what to show, or None for "as before"."""

    done: float
    picture: Picture | None = None
    caption: str = ""


@dataclass
class Seen:
    """What was drawn at one prior: the images that are shown [n, 1, 28, 28], which of them are sensitive [n], and counts of all."""

    images: Tensor
    sensitive: Tensor
    normal: int
    n: int
    rounds: int = 0


class Explorer:
    """A prior-conditioned model under a slider: `frames(prior)` draws, judges and counts.

    The same noise is used at every prior, so what changes is the prior's doing. What was drawn is kept: a prior that was
    visited before shows at once, and counting goes on where it was left.

    Args:
        model: conditioned on the prior; see `UNet`.
        split: the data, for the true prior and for what counts as normal.
        judge: reads the drawings.
        n: drawings to show, a square number.
        calls: network calls per drawing (DDIM), 1 … T.
        rounds, batch: further drawings to count, `rounds` times `batch`; each round is a frame.
        seed: of the noise.

    Raises:
        ValueError: a model that takes no prior, or a count that is not a whole number >= 1 (rounds: >= 0).
    """

    def __init__(
        self, model: NoisePredictor, split: PUSplit, judge: Judge, n: int = 16, calls: int = 10, rounds: int = 5, batch: int = 48, seed: int = 0
    ) -> None:
        largest = getattr(model.network, "config", {}).get("prior_max")
        if largest is None:
            raise ValueError("model must be conditioned on the prior, as `load_conditioned` is; this one's network has no prior_max")
        self.model, self.split, self.judge, self.largest = model.eval(), split, judge, float(largest)
        self.n, self.calls = check_count(n, "n"), check_count(calls, "calls")
        self.rounds, self.batch, self.seed = check_count(rounds, "rounds", 0), check_count(batch, "batch"), check_count(seed, "seed", 0)
        self.seen: dict[float, Seen] = {}

    def frames(self, prior: float) -> Iterator[Frame]:
        """Draw at an assumed prior: a frame without picture after each network call, one with the drawings, one per round of counting.

        Whoever reads the frames may stop at any of them; what is finished by then is kept.
        """
        prior = round(check_prior(prior), 6)
        seen = yield from self._first(prior)
        yield self._frame(prior)
        while seen.rounds < self.rounds:
            images = yield from self._sample(prior, self.batch, seen.rounds + 1)
            seen.normal += int((~self._sensitive(images)).sum())
            seen.n, seen.rounds = seen.n + self.batch, seen.rounds + 1
            yield self._frame(prior)

    def at(self, prior: float) -> Seen:
        """The drawings at an assumed prior, without a picture."""
        steps = self._first(round(check_prior(prior), 6))
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    def _first(self, prior: float) -> Generator[Frame, None, Seen]:
        if prior not in self.seen:
            images = yield from self._sample(prior, self.n, 0)
            sensitive = self._sensitive(images)
            self.seen[prior] = Seen(images, sensitive, int((~sensitive).sum()), self.n)
        return self.seen[prior]

    def nsr(self, prior: float) -> tuple[float, float, float]:
        """NSR of what was drawn at a prior so far, corrected for the judge's errors, with its 95 % interval."""
        seen, measure = self.seen[round(prior, 6)], ruler(self.judge, self.split)
        return corrected_nsr(seen.normal / seen.n, *measure.errors), *nsr_interval(seen.normal, seen.n, measure.errors, measure.n_errors)

    def _sample(self, prior: float, n: int, round_: int) -> Generator[Frame, None, Tensor]:
        noise = torch.randn(n, *self.split.unlabeled.shape[1:], generator=torch.Generator().manual_seed(self.seed * 1_000 + round_))
        device = next(self.model.parameters()).device
        for done, state in enumerate(ddim_sampler(self.model.at(prior), noise.to(device), self.model.schedule, self.calls), 1):
            yield Frame((round_ + done / self.calls) / (self.rounds + 1))
        return state.xt.cpu()

    def _sensitive(self, images: Tensor) -> Tensor:
        return ~is_normal(read(self.judge, images).digits, self.split.normal)

    def _frame(self, prior: float) -> Frame:
        seen, (nsr, low, high) = self.seen[prior], self.nsr(prior)
        names = ("odd", "even") if self.split.normal == "even" else ("even", "odd")
        ideal = f"{ideal_nsr(self.split.prior, prior):.3f}" if prior <= self.split.prior else "none, beyond the true prior"
        caption = (
            f"Assumed prior {prior:.3f}: {int(seen.sensitive.sum())} of {self.n} drawings read as {names[0]}. "
            f"NSR of {seen.n} drawings so far {nsr:.3f} [{low:.3f}, {high:.3f}]; ideal: {ideal}."
        )
        measured = {b: self.nsr(b) for b in sorted(self.seen)}
        alt = f"{self.n} generated digits, {int(seen.sensitive.sum())} of them framed as {names[0]}, beside the NSR at each prior visited."
        picture = plots.explorer(seen.images, seen.sensitive, measured, prior, self.split.prior, alt, self.largest)
        return Frame((seen.rounds + 1) / (self.rounds + 1), picture, caption)


class Finder:
    """The estimate of a class prior under a slider: `frames(prior)` makes a U with that true prior and estimates it, round by round.

    Estimates are kept: a prior that was visited before shows at once.

    Args:
        normal: "even" or "odd": the digits that are wanted.
        seed: of the splits and of the estimates.
    """

    def __init__(self, normal: Normal = "even", seed: int = 0) -> None:
        check_normal(normal)
        self.normal, self.seed = normal, check_count(seed, "seed", 0)
        self.found: dict[float, list[Round]] = {}

    def frames(self, prior: float) -> Iterator[Frame]:
        """A frame per round; an estimate that collapses ends in an error."""
        prior = round(check_prior(prior), 6)
        split = load_pu(self.normal, prior=prior, seed=self.seed)
        if prior not in self.found:
            rounds = []
            for each in estimate_rounds(split.unlabeled, split.sensitive, seed=self.seed, rounds=ROUNDS):
                rounds.append(each)
                yield self._frame(each, split, done=each.number / (ROUNDS + 1))
            settled(rounds)
            self.found[prior] = rounds
        yield self._frame(self.found[prior][-1], split, done=1.0)

    def _frame(self, found: Round, split: PUSplit, done: float) -> Frame:
        caption = (
            f"True prior {split.prior:.3f}. Round {found.number}: best bin {found.bin.ratio:.3f}, corrected {found.prior:.3f} "
            f"[{found.low:.3f}, {found.high:.3f}]; area under the curve {found.auc:.3f}."
        )
        return Frame(done, bin_picture(found, split.prior), caption)


def bin_picture(found: Round, true_prior: float) -> Picture:
    """Held-out scores of a round, and the ratio of tail masses over the share of S in the bin."""
    g = found.scores
    masses = tail_masses(g.unlabeled, g.sensitive)
    bounds = upper_bounds(*masses[1:], len(g.unlabeled), len(g.sensitive)) - masses[1] / masses[2]
    chosen = int((masses[0] - found.bin.threshold).abs().argmin())
    alt = f"Held-out scores of U and S, and the ratio of tail masses, {found.bin.ratio:.3f} in the best bin, where the true prior is {true_prior:.3f}."
    return plots.best_bin(g.unlabeled, g.sensitive, masses, chosen, bounds, true_prior, alt)
