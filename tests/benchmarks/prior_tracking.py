"""Does one network follow the law NSR = (1 - prior) / (1 - b) at every assumed prior b? Two ways to train it, over seeds.

    python tests/benchmarks/prior_tracking.py --json            # two hours on one core; goes on where it was stopped
    python tests/benchmarks/prior_tracking.py --json --smoke    # a minute; writes nothing into data/

"risk" and "distilled" are networks for every prior (see `pulib.rivals`), trained from the base model for as many steps each; seed 0 of
"distilled" is the shipped one. "pu" is the course's PU arm, a network trained
for the true prior alone, for 200 steps. All are sampled from the same noise, as is the shipped oracle. Every run's images are kept in
build/prior_tracking/; rows pool the seeds, are printed as one JSON object per line, and written to
data/results/05_prior_tracking.json. "deviation" is NSR over the oracle's, minus the law (1 beyond the true prior).
"""

import argparse
import hashlib
import json

import torch
from kept import kept, to_bytes, to_images
from pu_table import pool, ratio_to_oracle

from pulib import rivals
from pulib.data import BUILD, DATA, PUSplit, load_pu, manifest, record_sha256, write_atomic
from pulib.diffusion import sample
from pulib.evaluation import ideal_nsr, load_judge, read, report, ruler
from pulib.rivals import CONDITIONED, FINE_TUNING, SAMPLING, for_every_prior, teacher_of
from pulib.training import Settings, fit, load_base, load_conditioned, load_oracle

RESULTS = "results/05_prior_tracking.json"
COMMAND = "python tests/benchmarks/prior_tracking.py --json"
STEPS, SAMPLES_PER_SEED = 1000, 700
TRACKED = (0.0, 0.02, 0.04, 0.06, 0.08, 1 / 11)
BEYOND = (0.13, 0.18, 0.3)
PRIORS = {"pu": (1 / 11,), "risk": TRACKED + BEYOND, "distilled": TRACKED + BEYOND, "oracle": (0.0,)}
ONE_SEED = ("risk",)  # far off, so that one run tells


def model_of(arm: str, split: PUSplit, seed: int, steps: int):
    """A trained arm: a function from the assumed prior to a noise model."""
    if arm == "oracle":
        return lambda b: load_oracle(split.normal)
    if arm == "distilled" and seed == 0 and steps == STEPS:
        return load_conditioned(split.normal).at
    start = load_base(split.normal)
    if arm == "pu":
        task = rivals.arm("pu", split)
        run = fit(start, task.unlabeled, task.objective, Settings(min(steps, 200), **FINE_TUNING, seed=seed), task.sensitive)
    else:
        teacher = teacher_of(split, start, split.prior, seed, min(steps, 200)) if arm == "distilled" else None
        run = for_every_prior(arm, split, start, steps, seed=seed, teacher=teacher)
    for record in run:
        pass
    return (lambda b: record.model) if arm == "pu" else record.model.at


def images_of(arm: str, split: PUSplit, seed: int, priors: tuple[float, ...], n: int, steps: int, folder) -> list[torch.Tensor]:
    """Samples [n, 1, 28, 28] of one run at each prior; kept in `folder`."""
    files = [f"base_{split.normal}", f"oracle_{split.normal}"]
    files += [f"prior_{split.normal}"] if arm == "distilled" and seed == 0 and steps == STEPS else []
    weights = [manifest()[f"weights/{file}.safetensors"]["sha256"] for file in files]
    steps = {"oracle": 0, "pu": min(steps, 200)}.get(arm, steps)
    model, out = None, []
    for b in priors:
        key = hashlib.sha256(json.dumps([CONDITIONED, SAMPLING, n, steps, weights], sort_keys=True).encode()).hexdigest()[:12]

        def make(b: float = b) -> dict:
            nonlocal model
            model = model or model_of(arm, split, seed, steps)
            return {"images": to_bytes(sample(model(b), n, model(b).schedule, **SAMPLING, seed=1000 + seed))}

        out.append(to_images(kept(folder / f"{split.normal}_{arm}_{seed}_{b:.4f}_{key}.npz", make)["images"]))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")
    parser.add_argument("--smoke", action="store_true", help="a few steps and samples, to see that it runs")
    parser.add_argument("--arms", nargs="+", default=list(PRIORS), choices=list(PRIORS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only-draw", action="store_true", help="make the images of these arms and seeds, and stop")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    n, steps, seeds = (20, 3, [0]) if args.smoke else (SAMPLES_PER_SEED, STEPS, args.seeds)
    folder = BUILD / ("prior_tracking_smoke" if args.smoke else "prior_tracking")
    split, judge, rows, oracle = load_pu("even"), load_judge(), [], None
    for arm in sorted(args.arms, key=lambda name: name != "oracle"):  # the oracle first, as the others are compared with it
        priors = PRIORS[arm][:2] if args.smoke else PRIORS[arm]
        runs = [images_of(arm, split, seed, priors, n, steps, folder) for seed in (seeds[:1] if arm in ONE_SEED else seeds)]
        if args.only_draw:
            continue
        for b, images in zip(priors, zip(*runs)):
            seen = [read(judge, each) for each in images]
            pooled = pool(seen)
            row = report(pooled, split, judge).row("even", arm, len(runs))
            oracle = oracle or (row["nsr"], pooled)
            law = ideal_nsr(split.prior, min(b, split.prior))
            row |= {"assumed": round(b, 5), "law": round(law, 5), "deviation": round(row["nsr"] / oracle[0] - law, 5)}
            row["nsr_by_seed"] = [round(report(each, split, judge).nsr, 4) for each in seen]
            row["digits_read"] = torch.bincount(pooled.digits, minlength=10).tolist()
            row["frechet_ratio"] = ratio_to_oracle(pooled.features, oracle[1].features, ruler(judge, split).reference)
            rows.append(row)
            print(json.dumps(row) if args.json else row, flush=True)
    if not args.smoke and not args.only_draw and set(args.arms) == set(PRIORS):
        content = {"command": COMMAND, "steps": STEPS, "settings": CONDITIONED, "sampling": SAMPLING, "rows": rows}
        write_atomic(DATA / RESULTS, (json.dumps(content, indent=1) + "\n").encode())
        record_sha256(RESULTS, command=COMMAND)


if __name__ == "__main__":
    main()
