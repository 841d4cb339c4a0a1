"""How many labeled sensitive images does it take? The figure of notebook 06.

    python tests/benchmarks/label_efficiency.py --json            # about an hour on two cores; goes on where it was stopped
    python tests/benchmarks/label_efficiency.py --json --smoke    # a minute; writes nothing into data/

Rows as in estimators.py, whose settings, judge and drawing noise it shares, with the number of labeled images as "labels". U is the
same for all of them, and a smaller S is a part of a larger one. The oracle knows no S, so it has one row, with 0 labels.
"""

import argparse
import json

import torch
from estimators import CLASSIFIER_STEPS, SAMPLES_PER_SEED, STARTS, drawings
from kept import to_images
from pu_table import pool, ratio_to_oracle

from pulib.data import BUILD, DATA, load_pu, record_sha256, write_atomic
from pulib.evaluation import load_judge, read, report, ruler
from pulib.rivals import FAST

RESULTS = "results/06_label_efficiency.json"
COMMAND = "python tests/benchmarks/label_efficiency.py --json"
LABELS = (10, 25, 50, 100, 200)
ARMS = ("filter", "pu_paper", "pu_pushed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")
    parser.add_argument("--smoke", action="store_true", help="a few steps and samples, to see that it runs")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--labels", nargs="+", type=int, default=list(LABELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    settings = STARTS["tuned"] | ({"steps": 2} if args.smoke else {})
    n, classifier_steps = (16, 2) if args.smoke else (SAMPLES_PER_SEED, CLASSIFIER_STEPS)
    folder, judge, rows = BUILD / ("estimators_smoke" if args.smoke else "estimators"), load_judge(), []
    oracle = None
    for name, labels in [("oracle", 0), *((name, labels) for labels in args.labels for name in args.arms)]:
        split = load_pu("even", n_sensitive=labels) if labels else load_pu("even")
        made = [drawings(name, split, seed, "tuned", settings, n, classifier_steps, folder) for seed in args.seeds]
        runs = [read(judge, to_images(run["images"])) for run in made]
        pooled = pool(runs)
        oracle = oracle or pooled
        measured = load_pu("even")  # the same held-out images for all
        row = report(pooled, measured, judge).row("even", name, len(args.seeds)) | {"labels": labels}
        row["nsr_by_seed"] = [round(report(seen, measured, judge).nsr, 4) for seen in runs]
        row["frechet_ratio"] = ratio_to_oracle(pooled.features, oracle.features, ruler(judge, measured).reference)
        rows.append(row)
        print(json.dumps(row) if args.json else row, flush=True)
    if not args.smoke and set(args.labels) >= set(LABELS) and set(args.arms) == set(ARMS) and len(args.seeds) >= 3:
        content = {"command": COMMAND, "settings": settings, "sampling": FAST, "rows": rows}
        write_atomic(DATA / RESULTS, (json.dumps(content, indent=1) + "\n").encode())
        record_sha256(RESULTS, command=COMMAND)


if __name__ == "__main__":
    main()
