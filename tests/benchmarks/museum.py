"""The effects of notebook 07: ten ways to break PU diffusion, each beside a run that does not break.

    python tests/benchmarks/museum.py --json                  # all rooms, hours on two cores; goes on where it was stopped
    python tests/benchmarks/museum.py --json --rooms 2 3      # some rooms; their rows take the place of the old ones
    python tests/benchmarks/museum.py --json --smoke          # a minute; writes nothing into data/

A row is a setting: the values of its measures for each seed, in the order of the seeds. All settings of a room share the network, the number of
steps, the settings of notebook 04 but for what is named, the judge, and seed by seed the batches and the drawing noise. "values" are means over
drawings of that seed. `pulib.failures.over_seeds` makes an effect of two rows: the differences seed by seed, with an interval over the seeds.
Drawings and numbers of every run are kept in build/museum/, so several processes may share the work by --rooms and --seeds.
"""

import argparse
import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from kept import digest, kept, results, to_bytes, to_images, write_results

from pulib import failures, probes, toy
from pulib.data import BUILD, PUSplit, is_normal, load_pu, manifest
from pulib.diffusion import NoisePredictor, cosine_schedule, ddim_sampler, loss_profile, sample
from pulib.evaluation import corrected_nsr, evaluate, frechet_distance, load_judge, read, ruler
from pulib.prior import estimate_prior
from pulib.risk import pu_risk, unsupervised_risk
from pulib.rivals import FAST, FINE_TUNING
from pulib.training import Settings, device, fit, load_base, load_oracle

RESULTS = "results/07_failure_museum.json"
COMMAND = "python tests/benchmarks/museum.py --json"
STEPS, LONG = 150, 750
SAMPLES = 600
SEEDS, FEWER = (0, 1, 2, 3, 4), 3  # so many for long runs and for estimates of the prior
ODD = (1, 3, 5, 7, 9)
LEVELS = torch.arange(50, 1000, 100)


@dataclass(frozen=True)
class Run:
    """One training: what differs from the PU arm of notebook 04, whose objective and settings are the default.

    `objective` "oracle" and "unsupervised" train on one set of images alone; `scale` divides the losses in the risk (which is multiplied by it, so that
    only the log term changes), None leaves the log term out.
    """

    split: PUSplit
    prior: float | None = None
    objective: str = "pu"
    scale: float | None = 1.0
    start: str = "shipped"
    steps: int = STEPS
    changes: dict = field(default_factory=dict)

    def facts(self) -> tuple:
        """What the run depends on, as JSON values."""
        images = hashlib.sha256(self.split.unlabeled.numpy().tobytes() + self.split.sensitive.numpy().tobytes()).hexdigest()
        weights = manifest()[f"weights/{'oracle' if self.objective == 'oracle' else 'base'}_even.safetensors"]["sha256"]
        return self.prior, self.objective, self.scale, self.start, self.steps, self.changes, FINE_TUNING, images, weights


def trained(run: Run, seed: int, folder: Path, watch: Callable | None = None) -> NoisePredictor:
    """The trained model of a run; its checkpoint is kept."""
    split, b = run.split, run.split.prior if run.prior is None else run.prior
    alone = run.objective != "pu"
    images = split.oracle_normal if run.objective == "oracle" else split.unlabeled

    def objective(loss_u, loss_s):
        if alone or not len(loss_s):
            return unsupervised_risk(loss_u)
        scale = run.scale or 1.0
        return scale * pu_risk(loss_u / scale, loss_s / scale, b, temperature=run.scale and 1.0)

    settings = Settings(run.steps, **(FINE_TUNING | ({"cap": None} if alone else {}) | run.changes), seed=seed)
    checkpoint = folder / f"{digest(*run.facts())}_{seed}.checkpoint"
    for record in fit(started(run, folder), images, objective, settings, None if alone else split.sensitive, checkpoint):
        if watch is not None:
            watch(record)
    return copy.deepcopy(record.model).eval()


@lru_cache(maxsize=8)
def start_of_pair(normal: str, oracle: bool, steps: int, folder: Path) -> NoisePredictor:
    """The shipped model, brought to a pair of digits by ordinary training on its U (of the oracle: on its normal images)."""
    split = PAIRS[normal]()
    images = split.oracle_normal if oracle else split.unlabeled
    settings = Settings(steps, **FINE_TUNING)
    path = folder / f"pair_{normal}_{oracle}_{steps}.checkpoint"
    for record in fit((load_oracle if oracle else load_base)("even"), images, unsupervised_risk, settings, None, path):
        pass
    return record.model.cpu()


def started(run: Run, folder: Path) -> NoisePredictor:
    oracle = run.objective == "oracle"
    if run.start == "pair":
        return start_of_pair(run.split.normal, oracle, run.steps, folder)
    return (load_oracle if oracle else load_base)("even")


PAIRS = {"twos": partial(failures.pair, 2, 7), "zeros": partial(failures.pair, 0, 7)}


def drawn(run: Run, seed: int, n: int, folder: Path) -> torch.Tensor:
    """`n` drawings of a run; kept."""

    def make() -> dict:
        model = trained(run, seed, folder)
        return {"images": to_bytes(sample(model, n, model.schedule, **FAST, seed=1000 + seed))}

    return to_images(kept(folder / f"{digest(*run.facts(), FAST, n)}_{seed}.npz", make)["images"])


# --------------------------------------------------------------------------------------------------- measures


def measured(images: torch.Tensor, split: PUSplit, judge) -> dict:
    """NSR, Fréchet distance, class balance and confidence of drawings."""
    seen = evaluate(images, split, judge)
    return {"nsr": seen.nsr, "frechet": seen.frechet, "class_tv": seen.class_tv, "confident": seen.confident}


def by_digit(images: torch.Tensor, judge) -> dict:
    """The share of drawings that the judge reads as each odd digit."""
    digits = read(judge, images).digits
    return {f"read_{d}": (digits == d).double().mean().item() for d in ODD}


Rows = Iterator[tuple[int, str, list[dict]]]  # room, setting, the measures for each seed


@dataclass(frozen=True)
class Bench:
    """What all rooms share: seeds, drawings of each run, the length of runs, the folder of what is kept, the judge."""

    seeds: tuple[int, ...]
    n: int
    steps: int
    long: int
    folder: Path
    judge: object
    estimate: bool  # the class prior, too, which cannot be shortened
    changes: dict  # to the settings of training, of --smoke

    def run(self, split: PUSplit, seed: int, **more) -> torch.Tensor:
        more["changes"] = self.changes | more.get("changes", {})
        return drawn(Run(split, **({"steps": self.steps} | more)), seed, self.n, self.folder)

    def rows(self, runs: dict[str, dict], split_measured: PUSplit, more: Callable | None = None, judge=None) -> Iterator[tuple[str, list[dict]]]:
        """A row for each of {setting: arguments of `Run`}, measured against the same held-out images."""
        for name, run in runs.items():
            made = [self.run(**run, seed=seed) for seed in self.seeds]
            yield name, [measured(x, split_measured, judge or self.judge) | (more(x) if more else {}) for x in made]


def base_runs() -> dict[str, dict]:
    split = load_pu("even")
    return {"unsupervised": dict(split=split, objective="unsupervised"), "oracle": dict(split=split, objective="oracle"), "PU": dict(split=split)}


def room_1(bench: Bench) -> Rows:
    """The prior is wrong."""
    split = load_pu("even")
    runs = base_runs() | {f"b = {b}": dict(split=split, prior=b) for b in (0.045, 0.2, 0.5)}
    for name, values in bench.rows(runs, split, lambda x: by_digit(x, bench.judge)):
        yield 1, name, values


def room_2(bench: Bench) -> Rows:
    """S misses some digits."""
    split = load_pu("even")
    runs = {"unsupervised": base_runs()["unsupervised"]}
    runs |= {f"S: {kind}": dict(split=failures.labels(kind, 150)) for kind in ("digits 1, 3, 5, 7, 9", "digits 1, 3")}
    runs["S: digits 1, 3, largest prior"] = dict(split=failures.labels("digits 1, 3", 150), prior=split.prior * 0.4)
    for name, values in bench.rows(runs, split, lambda x: by_digit(x, bench.judge)):
        yield 2, name, values
    for kind in ("digits 1, 3, 5, 7, 9", "digits 1, 3") if bench.estimate else ():
        yield 2, f"estimated prior, S: {kind}", estimated(bench, kind, 150)


def estimated(bench: Bench, kind: str, n: int) -> list[dict]:
    """What `prior.estimate_prior` makes of U and a set S, for each seed."""
    split, values = failures.labels(kind, n), []
    for seed in bench.seeds[:FEWER]:

        def make(seed: int = seed) -> dict:
            found = estimate_prior(split.unlabeled, split.sensitive, seed)
            return {"prior": np.array(found.prior), "best bin": np.array(found.history[-1].bin.ratio)}

        values.append({key: float(value) for key, value in kept(bench.folder / f"priors_{digest(kind, n)}_{seed}.npz", make).items()})
    return values


def room_3(bench: Bench) -> Rows:
    """S is biased, contaminated or small."""
    split, limit = load_pu("even"), failures.thickness(failures.labels("random", 400).sensitive).median().item()
    against = failures.labels("wrong 30 %", 100)  # its held-out images are none of the wrong labels

    def thin(x: torch.Tensor) -> dict:
        """Of all drawings: the shares that are read as odd with strokes thinner than the median of real odd digits, and with thicker ones."""
        odd, wide = ~is_normal(read(bench.judge, x).digits, "even"), failures.thickness(x) > limit
        return {"odd_thin": (odd & ~wide).double().mean().item(), "odd_bold": (odd & wide).double().mean().item()}

    runs = {"unsupervised": base_runs()["unsupervised"]}
    runs |= {name: dict(split=failures.labels(kind, n)) for name, kind, n in (("100 labels", "random", 100), ("100 bold labels", "bold", 100), ("20 labels", "random", 20), ("5 labels", "random", 5))}
    runs["100 labels, 30 % wrong"] = dict(split=failures.labels("wrong 30 %", 100))
    runs["100 labels, 30 % wrong, b raised"] = dict(split=failures.labels("wrong 30 %", 100), prior=split.prior / 0.7)
    for name, values in bench.rows(runs, against, thin):
        yield 3, name, values
    for name, kind, n in (("100 labels", "random", 100), ("100 bold labels", "bold", 100), ("100 labels, 30 % wrong", "wrong 30 %", 100)) if bench.estimate else ():
        yield 3, f"estimated prior, {name}", estimated(bench, kind, n)


def room_4(bench: Bench) -> Rows:
    """Normal and sensitive overlap."""
    for kind, make in PAIRS.items():
        split, digit = make(), 2 if kind == "twos" else 0

        def read_as(x: torch.Tensor, digit: int = digit) -> dict:
            digits = read(bench.judge, x).digits
            return {"read_7": (digits == 7).double().mean().item(), "read_other": ((digits != 7) & (digits != digit)).double().mean().item()}

        runs = {name: dict(split=split, objective=what, start="pair") for name, what in (("unsupervised", "unsupervised"), ("oracle", "oracle"), ("PU", "pu"))}
        for name, values in bench.rows(runs, split, read_as):
            yield 4, f"{digit} against 7: {name}", values
    split, limit = failures.slanted()
    near = failures.slant(split.oracle_normal).quantile(0.75).item()

    def band(x: torch.Tensor) -> dict:
        """Of all drawings that are not slanted, the share in the quarter of real ones that is nearest to the limit; the mean slant."""
        lean = failures.slant(x)
        upright = lean[lean <= limit]
        return {"near": (upright > near).double().mean().item() if len(upright) else 0.0, "slant": lean.mean().item()}

    judge = failures.SlantJudge(bench.judge, limit)
    runs = {name: dict(split=split, objective=what) for name, what in (("unsupervised", "unsupervised"), ("oracle", "oracle"), ("PU", "pu"))}
    for name, values in bench.rows(runs, split, band, judge):
        yield 4, f"slanted: {name}", [{key: value for key, value in seen.items() if key != "class_tv"} for seen in values]  # it has one normal class


def room_5(bench: Bench) -> Rows:
    """Sum or mean: what the losses are divided by, without a cap."""
    split = load_pu("even")
    runs = {"no log term": dict(split=split, scale=None, changes={"cap": None})}
    runs |= {f"l / {scale}": dict(split=split, scale=float(scale), changes={"cap": None}) for scale in (1, 30, 784)}
    for name, values in bench.rows(runs, split):
        yield 5, name, values


def room_6(bench: Bench) -> Rows:
    """The batch."""
    split, small = load_pu("even"), dict(batch_unlabeled=13, batch_sensitive=3)
    kinds = {
        "shared batch of 16": small | {"shared": True, "stratified": False},
        "fixed 13 + 3": small | {"stratified": False},
        "fixed 13 + 3, stratified t": small,
    }
    for name, values in bench.rows({name: dict(split=split, changes=kind | {"cap": None}) for name, kind in kinds.items()}, split):
        yield 6, name, values
    for size in (16, 80):
        for how in ("shared deck", "independent t", "stratified t"):
            yield 6, f"batch of {size}, {how}", [inner_terms(bench, split, size, how, seed) for seed in bench.seeds]


def inner_terms(bench: Bench, split: PUSplit, size: int, how: str, seed: int) -> dict:
    """Mean, spread and mean size of E_U[l] - prior E_S[l] over batches: with the losses of the start, and with those on S ten times as large, as late in a long run."""

    def make() -> dict:
        model, rows = load_base("even").eval().to(device()), {}
        for name, images in (("u", split.unlabeled), ("s", split.sensitive)):
            some = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[: min(100, bench.n)]].to(device())
            rows[name] = loss_profile(model, some, torch.arange(5, 1000, 10), model.schedule, seed).cpu().numpy()
        return rows

    path = bench.folder / f"table_{seed}_{digest(manifest()['weights/base_even.safetensors']['sha256'])}.npz"
    u, s = (torch.from_numpy(values) for values in kept(path, make).values())
    more = dict(stratified=True) if how == "stratified t" else dict(share_s=len(split.sensitive) / (len(split.sensitive) + len(split.unlabeled))) if how == "shared deck" else {}
    n_u = round(size * 0.8)
    start, late = (failures.inner_terms(u, s * factor, split.prior, n_u, size - n_u, 2000, seed, **more) for factor in (1, 10))
    return {"sd": start.std().item(), "late: mean": late.mean().item(), "late: sd": late.std().item(), "late: mean size": late.abs().mean().item()}


def room_7(bench: Bench) -> Rows:
    """Long training."""
    split, stops = load_pu("even"), [bench.long // part for part in (15, 5, 2, 1)]
    hidden = split.unlabeled[split.unlabeled_is_sensitive]
    sets = {"S": split.sensitive, "sensitive, held out": split.heldout_sensitive, "hidden in U": hidden, "normal, held out": split.heldout_normal}
    for name, changes in {"the paper's |.|, no cap": {"cap": None}, "capped": {}}.items():
        run, seen = Run(split, steps=bench.long, changes=changes), {}
        for seed in bench.seeds[:FEWER]:

            def make(run: Run = run, seed: int = seed) -> dict:
                made = {}

                def watch(record) -> None:
                    if record.step in stops:
                        made[f"images_{record.step}"] = to_bytes(sample(record.model, max(bench.n // 2, 16), record.model.schedule, **FAST, seed=1000 + seed))
                        for key, images in sets.items():
                            made[f"loss_{key}_{record.step}"] = loss_profile(record.model, images[: min(100, bench.n)].to(device()), LEVELS, record.model.schedule).cpu().numpy()

                (bench.folder / f"{digest(*run.facts())}_{seed}.checkpoint").unlink(missing_ok=True)  # it must be seen from its start
                trained(run, seed, bench.folder, watch)
                return made

            seen[seed] = kept(bench.folder / f"long_{digest(*run.facts(), stops, bench.n, LEVELS.tolist())}_{seed}.npz", make)
        for stop in stops:
            values = []
            for seed in bench.seeds[:FEWER]:
                losses = {key: torch.from_numpy(seen[seed][f"loss_{key}_{stop}"]).mean(0) for key in sets}
                numbers = measured(to_images(seen[seed][f"images_{stop}"]), split, bench.judge)
                gap = failures.memorisation(losses["S"], losses["sensitive, held out"])
                values.append(numbers | {f"loss: {key}": loss.mean().item() for key, loss in losses.items()} | {"gap": gap})
            yield 7, f"{name}: {stop} steps", values


def room_8(bench: Bench) -> Rows:
    """Evaluation fools: references, garbage, one digit, a judge with errors."""
    split = load_pu("even")
    reference = {"normal": split.heldout_normal, "all of U": split.unlabeled[::4], "sensitive": split.heldout_sensitive}
    features = {name: read(bench.judge, images).features for name, images in reference.items()}

    def distances(x: torch.Tensor) -> dict:
        mine = read(bench.judge, x).features
        near = failures.copied(x, split.oracle_normal, split.heldout_normal)
        return {f"frechet to {name}": frechet_distance(mine, theirs) for name, theirs in features.items()} | {"copied": near}

    for name, values in bench.rows(base_runs(), split, distances):
        yield 8, name, values
    for name, make in garbage(split, bench.n).items():
        made = [make(seed) for seed in bench.seeds]
        yield 8, name, [measured(x, split, bench.judge) | distances(x) for x in made]
    for e in (0.02, 0.1):
        for name, run in base_runs().items():
            yield 8, f"{name}, judge with {e:.0%} more errors", [flipped(bench.run(**run, seed=seed), split, bench.judge, e, seed) for seed in bench.seeds]


def flipped(images: torch.Tensor, split: PUSplit, judge, e: float, seed: int) -> dict:
    """NSR as observed, and corrected, by a judge that calls the share `e` of all images the other kind."""
    normal = is_normal(read(judge, images).digits, "even")
    flip = torch.rand(len(images), generator=torch.Generator().manual_seed(seed)) < e
    observed = (normal ^ flip).double().mean().item()
    e_n, e_s = (x * (1 - e) + (1 - x) * e for x in ruler(judge, split).errors)
    return {"observed": observed, "nsr": corrected_nsr(observed, e_n, e_s)}


def garbage(split: PUSplit, n: int) -> dict[str, Callable]:
    """Worthless models: seed -> images."""
    return {name: partial(make, split.oracle_normal, n) for name, make in failures.GARBAGE.items()}


def room_9(bench: Bench) -> Rows:
    """Captions: exact, and learned."""
    world, schedule = toy.ring_world(std=0.2), cosine_schedule(200)
    for same in (0.0, 0.5, 1.0):
        b = world.prior * same
        model = failures.subtracted(world.unlabeled, world.sensitive, b, schedule)
        points = [sample(model, 20 * bench.n // 3, schedule, 50, 1000 + seed, (2,), batch=10_000, clip=False) for seed in bench.seeds]
        yield 9, f"exact, {same:.0%} of S under the caption of U", [{"nsr": 1 - world.is_sensitive(x).double().mean().item()} for x in points]
    for similarity in (1.0, 0.98, 0.9, 0.5, 0.0):
        captions, values = failures.Captions(similarity), []
        for seed in bench.seeds:
            for net in failures.train_captioned(world, captions, schedule, world.prior, 10 * bench.steps, seed):
                pass
            points = failures.draw_captioned(net, captions.of_u, 20 * bench.n // 3, schedule, 1000 + seed)
            values.append({"nsr": 1 - world.is_sensitive(points).double().mean().item()})
        yield 9, f"learned, captions of similarity {similarity}", values


def room_10(bench: Bench) -> Rows:
    """Removed is not forgotten."""
    split = load_pu("even")
    n = min(100, bench.n)
    images, upper = split.heldout_sensitive[:n], torch.zeros(28, 28, dtype=torch.bool)
    upper[:14] = True
    for name, run in base_runs().items():
        values = []
        for seed in bench.seeds:

            def make(run: dict = run, seed: int = seed) -> dict:
                model = trained(Run(**({"steps": bench.steps} | run)), seed, bench.folder)
                x, schedule = images.to(device()), model.schedule
                noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.device)
                *_, back = ddim_sampler(model, probes.invert(model, x, schedule), schedule)
                made = {"restored": back.xt, "inpainted": probes.inpaint(model, x, upper.to(x.device), schedule, seed=seed)}
                made |= {f"from level {t}": probes.renoised(model, x, t, noise, schedule, 40) for t in (200, 400, 600, 800)}
                return {key: to_bytes(y.cpu()) for key, y in made.items()}

            key = digest(*Run(**({"steps": bench.steps} | run)).facts(), n)
            seen = {what: to_images(x) for what, x in kept(bench.folder / f"probes_{key}_{seed}.npz", make).items()}
            odd = {what: (~is_normal(read(bench.judge, x).digits, "even")).double().mean().item() for what, x in seen.items()}
            odd["restored: error"] = (seen["restored"] - images).square().mean().item()
            odd["drawn from noise"] = 1 - is_normal(read(bench.judge, bench.run(**run, seed=seed)).digits, "even").double().mean().item()
            values.append(odd)
        yield 10, name, values


ROOMS = {1: room_1, 2: room_2, 3: room_3, 4: room_4, 5: room_5, 6: room_6, 7: room_7, 8: room_8, 9: room_9, 10: room_10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")
    parser.add_argument("--smoke", action="store_true", help="a few steps and samples, to see that it runs")
    parser.add_argument("--rooms", nargs="+", type=int, default=list(ROOMS), choices=list(ROOMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    sizes = dict(n=16, steps=2, long=15) if args.smoke else dict(n=SAMPLES, steps=STEPS, long=LONG)
    bench = Bench(tuple(args.seeds), folder=BUILD / ("museum_smoke" if args.smoke else "museum"), judge=load_judge(), estimate=not args.smoke, changes={"cap_level": "running"} if args.smoke else {}, **sizes)
    rows = []
    for room in args.rooms:
        for number, setting, values in ROOMS[room](bench):
            row = {"room": number, "setting": setting, "seeds": len(values), "n": bench.n, "values": {key: [round(v[key], 5) for v in values] for key in values[0]}}
            rows.append(row)
            print(json.dumps(row) if args.json else row, flush=True)
    if not args.smoke and len(args.seeds) >= 3:
        write_rows(rows, set(args.rooms))


def write_rows(rows: list[dict], rooms: set[int]) -> None:
    """Put the rows of these rooms in the place of the old ones."""
    content = {"command": COMMAND, "settings": dict(FINE_TUNING, steps=STEPS), "sampling": FAST}
    old = results(RESULTS)
    keep = [row for row in old["rows"] if row["room"] not in rooms] if all(old.get(key) == value for key, value in content.items()) else []
    write_results(RESULTS, content | {"rows": sorted(keep + rows, key=lambda row: row["room"])})


if __name__ == "__main__":
    main()
