"""The table of notebook 06: every road to the normal part, on one network.

    python tests/benchmarks/estimators.py --json                                  # all rows, three hours on two cores; goes on where it was stopped
    python tests/benchmarks/estimators.py --json --arms pu_pushed --splits even  # one row; with the oracle's it goes into the file
    python tests/benchmarks/estimators.py --json --start scratch                   # from fresh weights, 2,500 steps and 200 more
    python tests/benchmarks/estimators.py --json --smoke                           # a minute; writes nothing into data/

Every arm has the same network, steps, settings, judge and drawing noise; what differs stands in `rivals.estimator`. An arm that drops
images of U has batches of its own, and "pu_paper" draws as many images at once from U and S together.
"tuned" starts all arms but the oracle from the shipped model of U, the oracle from the shipped model of the normal images.
"scratch" starts them from the same fresh weights for 2,500 steps; then each has the 200 steps of "tuned". "pu_pushed" is what
"pu_sieved" is up to these 200.
The images of every run are kept in build/estimators/, so several processes may share the work by --arms, --splits and --seeds.
A row pools the seeds; "frechet_ratio" is the Fréchet distance over the oracle's with its interval, "cost" what the arm takes.
"""

import argparse
import copy
import hashlib
import inspect
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from kept import digest, kept, results, to_bytes, to_images, write_results

from pulib import prior
from pulib.data import BUILD, PUSplit, load_pu, manifest
from pulib.diffusion import NoisePredictor, loss_profile, sample
from pulib.evaluation import load_judge, pool, ratio_to_oracle, read, report, ruler
from pulib.risk import unsupervised_risk
from pulib.rivals import (
    CLASSIFYING,
    ESTIMATORS,
    FAST,
    FINE_TUNING,
    LENIENT,
    SIEVING,
    Arm,
    Guided,
    KernelDenoiser,
    NoisyClassifier,
    Sieve,
    estimator,
    kept_by,
    noisy_classifier,
    sieve,
    sieved,
)
from pulib.training import Settings, device, fit, new_model

STARTS = {  # steps and the settings that all arms share
    "tuned": dict(FINE_TUNING, steps=200),
    "scratch": dict(steps=2500, batch_unlabeled=64, batch_sensitive=16, lr=1.5e-3, warmup=100, ema=0.998, min_snr=1.0, cap=8.0, distort=0.2),
}
CLASSIFIER_STEPS = 800
SAMPLES_PER_SEED = 1700
DRAWN = {"tuned": FAST, "scratch": dict(steps=50, eta=1.0, order=2)}  # a model of few steps draws better with fresh noise at each call
DRAWING = ("rejection", "guidance", "safe_denoiser")  # train on U alone; what they add, they add while drawing
ARMS = {"tuned": tuple(ESTIMATORS), "scratch": ("oracle", "pu_paper", "pu_sieved", "pu_pushed")}
SUBTRACTING = ("pu_linear", "pu_clip", "pu_paper", "pu_capped")  # E_U[l] - prior E_S[l], in some form
LEVELS = tuple(range(50, 1000, 100))
SETS = ("normal, held out", "S", "hidden in U", "sensitive, held out")
SURPLUS = 1.15  # drawings made for each that rejection lets pass
COSTS = {  # calls of a network for each step of drawing; what must be shipped; does it hold where the weights are given away? more training steps
    "rejection": (1 / (1 - 1 / 11), "model and classifier", False, 0),
    "guidance": (3, "models of U and of S, classifier", False, STARTS["tuned"]["steps"] + CLASSIFIER_STEPS),
    "safe_denoiser": (2, "model of U, the images of S, classifier", False, CLASSIFIER_STEPS),
    "unsupervised": (1, "model", False, 0),
}


def results_file(start: str) -> str:
    return f"results/06_estimators_{start}.json"


def shorten_sieve() -> None:
    """For --smoke: the sieve's training has no settings of its own."""
    prior.STEPS, prior.COPIES = (60,), 4


@lru_cache
def sieve_of(split: PUSplit, seed: int) -> Sieve:
    return sieve(split.unlabeled, split.sensitive, split.prior, seed)


@lru_cache
def model_of_s(split: PUSplit, seed: int, steps: int) -> NoisePredictor:
    """A model of S, trained as long as the arms."""
    task = estimator("unsupervised", split)
    for record in fit(task.start, split.sensitive, unsupervised_risk, Settings(**(STARTS["tuned"] | {"steps": steps, "cap": None, "seed": seed}))):
        pass
    return copy.deepcopy(record.model)


@lru_cache
def classifier_of(split: PUSplit, seed: int, steps: int) -> NoisyClassifier:
    """A classifier of noised images."""
    schedule = estimator("unsupervised", split).start.schedule
    *_, classifier = noisy_classifier(split, split.prior, schedule, Settings(steps, **CLASSIFYING, seed=seed))
    return classifier


def trained(name: str, split: PUSplit, seed: int, start: str, settings: dict, folder) -> tuple[NoisePredictor, np.ndarray]:
    """The model of one run, and its curve (step, risk, loss on U, on S), [steps, 4]; resumed from its checkpoints in `folder`."""
    found = sieve_of(split, seed) if name in SIEVING else None
    run = digest(*facts(name, split, settings))
    begun, before = None, np.empty((0, 4))
    if start == "scratch":
        first = "pu_sieved" if name == "pu_pushed" else name
        task = estimator(first, split, found=found, start=new_model(seed=seed), scratch=True)
        begun, before = followed(task, settings | {"seed": seed}, folder / f"{start}_{split.normal}_{first}_{seed}_{run}.checkpoint")
        settings, start = STARTS["tuned"] | {"steps": last_steps(settings)}, "scratch_last"
    task = estimator(name, split, found=found, start=begun)
    model, curve = followed(task, settings | {"seed": seed}, folder / f"{start}_{split.normal}_{name}_{seed}_{run}.checkpoint")
    curve[:, 0] += len(before)
    return model, np.concatenate([before, curve])


def followed(task: Arm, settings: dict, checkpoint: Path) -> tuple[NoisePredictor, np.ndarray]:
    """The trained model, and its curve, which is kept beside the checkpoint; of a run that was resumed in its middle, its end."""
    beside, curve = checkpoint.with_suffix(".npy"), []
    for record in task.fit(settings, checkpoint):
        curve.append((record.step, record.risk, record.loss_u, record.loss_s))
    if len(curve) == settings["steps"]:
        np.save(beside, curve)
    return copy.deepcopy(record.model), np.load(beside, allow_pickle=False) if beside.exists() else np.array(curve)


def facts(name: str, split: PUSplit, settings: dict) -> tuple:
    """What a run depends on, besides its name, split and seed."""
    weights = manifest()[f"weights/{'oracle' if name == 'oracle' else 'base'}_{split.normal}.safetensors"]["sha256"]
    images = hashlib.sha256(split.unlabeled.numpy().tobytes() + split.sensitive.numpy().tobytes()).hexdigest()
    recipes = [inspect.getsource(part) for part in (estimator, sieved, sieve, Guided, KernelDenoiser)]
    return settings, STARTS["tuned"], CLASSIFYING, LENIENT, split.prior, images, weights, recipes


def drawings(name: str, split: PUSplit, seed: int, start: str, settings: dict, n: int, classifier_steps: int, folder) -> dict:
    """One run: "images", `n` drawings as uint8, "curve" (see `trained`), and "profile"; kept in `folder`."""
    key = digest(*facts(name, split, settings), DRAWN[start], n, classifier_steps)

    def make() -> dict:
        model, curve = trained("unsupervised" if name in DRAWING else name, split, seed, start, settings, folder)
        seen = {"curve": curve, "profile": profile(model, split, min(n, 64))}
        schedule, many = model.schedule, round(SURPLUS * n) + 8 if name == "rejection" else n
        if name in ("guidance", "safe_denoiser"):
            eps_s = model_of_s(split, seed, settings["steps"]) if name == "guidance" else KernelDenoiser(split.sensitive, schedule).to(device())
            model = Guided(model, eps_s, classifier_of(split, seed, classifier_steps))
        images = sample(model, many, schedule, **DRAWN[start], seed=1000 + seed)
        return {"images": to_bytes(kept_by(sieve_of(split, seed), images)[:n] if name == "rejection" else images), **seen}

    return kept(folder / f"{start}_{split.normal}_{name}_{seed}_{key}.npz", make)


def last_steps(settings: dict) -> int:
    """How many steps follow those from fresh weights."""
    return min(settings["steps"], STARTS["tuned"]["steps"])


def profile(model: NoisePredictor, split: PUSplit, n: int) -> np.ndarray:
    """Mean loss at each of `LEVELS` on `SETS`, [sets, levels], by `n` images of each with the same noise."""
    hidden = split.unlabeled[split.unlabeled_is_sensitive]
    sets = (split.heldout_normal, split.sensitive, hidden, split.heldout_sensitive)
    return np.stack([loss_profile(model, x[:n].to(device()), torch.tensor(LEVELS), model.schedule).mean(1).cpu().numpy() for x in sets])


def story(name: str, runs: list[dict], prior: float, steps: int, window: int = 50) -> dict:
    """What training looked like, as means over runs: losses over steps, `profile`, and, of a PU risk over all of U, the share of the last
    fifth of steps in which E_U[l] - prior E_S[l] of the batch was negative."""
    told = {"profile": {name: losses.round(1).tolist() for name, losses in zip(SETS, np.mean([run["profile"] for run in runs], 0, dtype=float))}}
    curves = [run["curve"] for run in runs if len(run["curve"]) == steps]  # one that was resumed has no beginning
    if curves:
        windows = np.stack([curve[: steps // window * window].reshape(-1, window, 4) for curve in curves])
        step, _, loss_u, loss_s = np.ma.masked_invalid(windows).mean((0, 2)).filled(np.nan).T  # a batch without S has no loss of it
        told |= {"steps": step.round().astype(int).tolist(), "loss_u": loss_u.round(1).tolist()}
        if np.isfinite(loss_s).any():
            told["loss_s"] = loss_s.round(1).tolist()
        if name in SUBTRACTING:
            told["fired"] = float(np.mean([(c[:, 2] < prior * c[:, 3])[-steps // 5 :].mean() for c in curves]).round(3))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")
    parser.add_argument("--smoke", action="store_true", help="a few steps and samples, to see that it runs")
    parser.add_argument("--start", choices=STARTS, default="tuned")
    parser.add_argument("--splits", nargs="+", default=["even", "odd"], choices=["even", "odd"])
    parser.add_argument("--arms", nargs="+", choices=list(ESTIMATORS), help="the default: all of the table")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    arms = [name for name in ESTIMATORS if name in (args.arms or ARMS[args.start])]  # the oracle first
    if args.start == "scratch" and set(arms) & set(DRAWING):
        parser.error(f"argument --arms: {', '.join(DRAWING)} only go with --start tuned")
    settings = STARTS[args.start] | ({"steps": 2} if args.smoke else {})
    n, classifier_steps = (16, 2) if args.smoke else (SAMPLES_PER_SEED, CLASSIFIER_STEPS)
    if args.smoke:
        shorten_sieve()
    folder = BUILD / ("estimators_smoke" if args.smoke else "estimators")
    steps = settings["steps"] + (last_steps(settings) if args.start == "scratch" else 0)
    judge, rows = load_judge(), []
    for normal in args.splits:
        split, oracle = load_pu(normal), None
        for name in arms:
            made = [drawings(name, split, seed, args.start, settings, n, classifier_steps, folder) for seed in args.seeds]
            runs = [read(judge, to_images(run["images"])) for run in made]
            pooled = pool(runs)
            oracle = pooled if name == "oracle" else oracle
            row = report(pooled, split, judge).row(normal, name, len(args.seeds))
            row["nsr_by_seed"] = [round(report(seen, split, judge).nsr, 4) for seen in runs]
            if oracle is not None:
                row["frechet_ratio"] = ratio_to_oracle(pooled.features, oracle.features, ruler(judge, split).reference)
            calls, ships, holds, more = COSTS.get(name, (1, "model", True, 0))
            row["cost"] = {"steps": steps + more, "calls": round(calls, 2), "ships": ships, "holds": holds}
            if name not in DRAWING:
                row["story"] = story(name, made, split.prior, steps)
            rows.append(row)
            print(json.dumps(row) if args.json else row, flush=True)
    if not args.smoke and "oracle" in arms:
        write_rows(args.start, rows, settings)


def write_rows(start: str, rows: list[dict], settings: dict) -> None:
    """Put rows into the results file, each in place of that of its split and arm, unless that one pools more seeds."""
    name, command = results_file(start), "python tests/benchmarks/estimators.py --json" + (" --start scratch" if start == "scratch" else "")
    content = {"command": command, "settings": settings, "sampling": DRAWN[start]}
    old = results(name)
    if any(old.get(key) != value for key, value in content.items()):
        old = {"rows": []}  # of other settings
    found = {(row["split"], row["arm"]): row for row in old["rows"]}
    found |= {key: row for row in rows if row["seeds"] >= found.get(key := (row["split"], row["arm"]), row)["seeds"]}
    order = list(ESTIMATORS)
    content["rows"] = sorted(found.values(), key=lambda row: (row["split"], order.index(row["arm"])))
    write_results(name, content)


if __name__ == "__main__":
    main()
