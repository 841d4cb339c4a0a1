"""The table of notebook 04: unsupervised, supervised, PU and oracle, over seeds and splits.

    python tests/benchmarks/pu_table.py --json            # about an hour on two cores; goes on where it was stopped
    python tests/benchmarks/pu_table.py --json --smoke    # a minute; writes nothing into data/

All arms but the oracle start from the same weights; the oracle starts from weights trained as long on normal images
alone. All see the same number of steps with the same noise, and are sampled from the same noise. Every run's images
are kept in build/pu_table/; the rows pool the seeds and are printed as one JSON object per line, and written to
data/results/04_pu_diffusion.json, with a picture of the first images beside it. The settings of the fine-tuning were
chosen by looking at seeds 0 to 2; seeds 3 to 5 were drawn after that. "by_half" has the measures of both halves, and
"frechet_ratio" the Fréchet distance over the oracle's with its interval.
"""

import argparse
import json
from dataclasses import asdict

import torch
from kept import digest, kept, to_bytes, to_images, write_results

from pulib.data import BUILD, DATA, is_normal, load_pu, manifest, record_sha256, write_atomic
from pulib.diffusion import sample
from pulib.evaluation import load_judge, pool, ratio_to_oracle, read, report, ruler
from pulib.plots import digits_side_by_side
from pulib.rivals import ARMS, FINE_TUNING, SAMPLING, arm
from pulib.training import Settings, fit

RESULTS = "results/04_pu_diffusion.json"
PICTURE = "results/04_pu_diffusion.png"
COMMAND = "python tests/benchmarks/pu_table.py --json"


def images_of(name: str, split, seed: int, n: int, settings: dict, folder) -> torch.Tensor:
    """Samples [n, 1, 28, 28] of one fine-tuned arm; kept in `folder`."""
    weights = manifest()[f"weights/{'oracle' if name == 'oracle' else 'base'}_{split.normal}.safetensors"]["sha256"]
    key = digest(settings, SAMPLING, n, split.prior, weights)

    def make() -> dict:
        task = arm(name, split)
        for record in fit(task.start, task.unlabeled, task.objective, Settings(**settings, seed=seed), task.sensitive):
            pass
        return {"images": to_bytes(sample(record.model, n, record.model.schedule, **SAMPLING, seed=1000 + seed))}

    return to_images(kept(folder / f"{split.normal}_{name}_{seed}_{key}.npz", make)["images"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")
    parser.add_argument("--smoke", action="store_true", help="a few steps and samples, to see that it runs")
    parser.add_argument("--splits", nargs="+", default=["even", "odd"])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    settings = dict(SETTINGS, steps=3) if args.smoke else SETTINGS
    n, seeds = (20, 1) if args.smoke else (SAMPLES_PER_SEED, args.seeds)
    folder = BUILD / ("pu_table_smoke" if args.smoke else "pu_table")
    judge, rows = load_judge(), []
    for normal in args.splits:
        split, oracle = load_pu(normal), None
        for name in reversed(ARMS):  # the oracle first, as the others are compared with it
            runs = [read(judge, images_of(name, split, seed, n, settings, folder)) for seed in range(seeds)]
            pooled, half = pool(runs), max(1, seeds // 2)
            oracle = oracle or pooled
            row = report(pooled, split, judge).row(normal, name, seeds)
            row["digits_read"] = torch.bincount(pooled.digits, minlength=10).tolist()
            row["frechet_ratio"] = ratio_to_oracle(pooled.features, oracle.features, ruler(judge, split).reference)
            halves = [report(pool(runs[i : i + half]), split, judge) for i in range(0, seeds, half)]
            row["by_half"] = [{"nsr": round(part.nsr, 4), "frechet": round(part.frechet, 4)} for part in halves]
            row["nsr_by_seed"] = [round(report(seen, split, judge).nsr, 4) for seen in runs]
            rows.append(row)
            print(json.dumps(row) if args.json else row, flush=True)
    if not args.smoke and set(args.splits) == {"even", "odd"}:
        rows = [row for normal in args.splits for row in reversed(rows) if row["split"] == normal]
        content = {"command": COMMAND, "settings": asdict(Settings(**settings)), "sampling": SAMPLING, "rows": rows}
        write_results(RESULTS, content)
        write_atomic(DATA / PICTURE, picture(judge, settings, folder))
        record_sha256(PICTURE, command=COMMAND)


def picture(judge, settings: dict, folder) -> bytes:
    """The first 50 images of the unsupervised and of the PU arm, seed 0, split "even", as PNG."""
    split = load_pu("even")
    names = {"unsupervised": "trained on contaminated data", "pu": "after PU fine-tuning"}
    groups = {
        title: images_of(name, split, 0, SAMPLES_PER_SEED, settings, folder)[:50]
        for name, title in names.items()
    }
    framed = {title: ~is_normal(read(judge, images).digits, "even") for title, images in groups.items()}
    return digits_side_by_side(groups, framed, "Generated digits before and after PU fine-tuning.", columns=10).png


SETTINGS = dict(steps=200, **FINE_TUNING)
SAMPLES_PER_SEED = 700

if __name__ == "__main__":
    main()
