"""Does one network follow the law NSR = (1 - prior) / (1 - b) at every assumed prior b? Two ways to train it, over seeds.

    python tests/benchmarks/prior_tracking.py --json            # five minutes of a GPU, or some hours of a core; goes on where it was stopped
    python tests/benchmarks/prior_tracking.py --json --smoke    # a minute; writes nothing into data/

"risk" and "distilled" are networks for every prior (see `pulib.rivals`), trained from the base model for as many steps each; seed 0 of
"distilled" is the shipped one. "wide" is the shipped one whose U has a true prior of 0.3. "pu" is a network trained for the true prior
alone, as the teacher of "distilled" is. All are sampled from the same noise, as is the shipped oracle. Every run's images are kept in
build/prior_tracking/; rows pool the seeds, are printed as one JSON object per line, and written to
data/results/05_prior_tracking.json. "deviation" is NSR over the oracle's, minus the law (1 beyond the true prior).
"""

import argparse
import json

import numpy as np
import torch
from kept import digest, kept, to_bytes, to_images, write_results

from pulib import rivals
from pulib.data import BUILD, PUSplit, load_pu, manifest
from pulib.diffusion import sample
from pulib.evaluation import ideal_nsr, load_judge, pool, ratio_to_oracle, read, report, ruler
from pulib.rivals import CLASSIFYING, CONDITIONED, FINE_TUNING, SAMPLING, STEPS, TEACHING, for_every_prior, teacher_of
from pulib.training import Settings, device, fit, load_base, load_conditioned, load_oracle

RESULTS = "results/05_prior_tracking.json"
COMMAND = "python tests/benchmarks/prior_tracking.py --json"
SAMPLES_PER_SEED = 2000
TRACKED = (0.0, 0.02, 0.04, 0.06, 0.08, 1 / 11)
BEYOND = (0.13, 0.18, 0.3)
PRIORS = {"oracle": (0.0,), "pu": (1 / 11,), "distilled": TRACKED + BEYOND, "risk": TRACKED + BEYOND, "wide": (0.0, 0.1, 0.2, 0.3, 0.45, 0.6)}
ONE_SEED = ("risk", "wide")  # the first is far off, so that one run tells; of the second only the shipped weights are measured


def is_shipped(arm: str, seed: int, steps: int) -> bool:
    return arm in ("oracle", "wide") or (arm == "distilled" and seed == 0 and steps == STEPS)


def model_of(arm: str, split: PUSplit, seed: int, steps: int):
    """An arm, shipped or trained: a function from the assumed prior to a noise model."""
    if is_shipped(arm, seed, steps):
        model = load_oracle(split.normal) if arm == "oracle" else load_conditioned(split.normal, arm == "wide")
        model = model.to(device())
        return (lambda b: model) if arm == "oracle" else model.at
    start, teaching = load_base(split.normal), [min(steps, most) for most in TEACHING]
    if arm == "pu":
        task = rivals.arm("pu", split)
        run = fit(start, task.unlabeled, task.objective, Settings(teaching[0], **FINE_TUNING, seed=seed), task.sensitive)
    else:
        teacher = teacher_of(split, start, split.prior, seed, *teaching) if arm == "distilled" else None
        run = for_every_prior(arm, split, start, steps, seed=seed, teacher=teacher)
    for record in run:
        pass
    return (lambda b: record.model) if arm == "pu" else record.model.at


def images_of(arm: str, split: PUSplit, seed: int, priors: tuple[float, ...], n: int, steps: int, folder) -> list[dict]:
    """The n images of one run at each prior, and the device that drew them; kept in `folder`."""
    shipped = is_shipped(arm, seed, steps)
    start = {"oracle": "oracle_even", "wide": "prior_even_wide"}.get(arm, "prior_even" if shipped else "base_even")
    made_of = manifest()[f"weights/{start}.safetensors"]["sha256"]
    training = None if shipped else [CONDITIONED, CLASSIFYING, FINE_TUNING, TEACHING, steps]
    key = digest(made_of, training, SAMPLING, n)
    model, out = None, []
    for b in priors:

        def make(b: float = b) -> dict:
            nonlocal model
            model = model or model_of(arm, split, seed, steps)
            where = device().type
            images = sample(model(b), n, model(b).schedule, **SAMPLING, seed=1000 + seed, batch=250 if where == "cpu" else n)
            return {"images": to_bytes(images), "device": np.array(torch.cuda.get_device_name() if where == "cuda" else where)}

        out.append(kept(folder / f"{arm}_{seed}_{b:.4f}_{key}.npz", make))
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
    if "oracle" not in args.arms and not args.only_draw:
        parser.error("--arms must name the oracle, with which the others are compared, unless --only-draw is given")

    n, steps, seeds = (20, 3, [0]) if args.smoke else (SAMPLES_PER_SEED, STEPS, args.seeds)
    folder = BUILD / ("prior_tracking_smoke" if args.smoke else "prior_tracking")
    judge, rows, oracle = load_judge(), [], None
    usual, wide = load_pu("even"), load_pu("even", prior=0.3)
    for arm in sorted(args.arms, key=lambda name: name != "oracle"):  # the oracle first, as the others are compared with it
        priors = PRIORS[arm][:2] if args.smoke else PRIORS[arm]
        split = wide if arm == "wide" else usual
        runs = [images_of(arm, split, seed, priors, n, steps, folder) for seed in (seeds[:1] if arm in ONE_SEED else seeds)]
        if args.only_draw:
            continue
        for b, drawn in zip(priors, zip(*runs)):
            seen = [read(judge, to_images(each["images"])) for each in drawn]
            pooled = pool(seen)
            row = report(pooled, split, judge).row("even", arm, len(runs))
            oracle = oracle or (row["nsr"], pooled)
            row["assumed"] = round(b, 5)
            if arm != "oracle":  # which knows no prior
                law = ideal_nsr(split.prior, min(b, split.prior))
                row |= {"law": round(law, 5), "deviation": round(row["nsr"] / oracle[0] - law, 5)}
            row["nsr_by_seed"] = [round(report(each, split, judge).nsr, 4) for each in seen]
            row["digits_read"] = torch.bincount(pooled.digits, minlength=10).tolist()
            row["frechet_ratio"] = ratio_to_oracle(pooled.features, oracle[1].features, ruler(judge, split).reference)
            row["drawn_on"] = ", ".join(sorted({str(each["device"]) for each in drawn}))
            rows.append(row)
            print(json.dumps(row) if args.json else row, flush=True)
    if not args.smoke and not args.only_draw and set(args.arms) == set(PRIORS) and seeds == [0, 1, 2]:
        settings = {"distilled and risk": CONDITIONED, "pu": FINE_TUNING, "classifier": CLASSIFYING}
        content = {"command": COMMAND, "steps": STEPS, "teacher_steps": TEACHING, "settings": settings, "sampling": SAMPLING, "rows": rows}
        write_results(RESULTS, content)


if __name__ == "__main__":
    main()
