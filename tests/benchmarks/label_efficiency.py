"""How many labeled sensitive images does it take, and which? Figure and numbers of notebook 06.

    python tests/benchmarks/label_efficiency.py --json            # about an hour on two cores; goes on where it was stopped
    python tests/benchmarks/label_efficiency.py --json --biased   # only some of the sensitive digits are labeled
    python tests/benchmarks/label_efficiency.py --json --smoke    # a minute; writes nothing into data/

Rows as in estimators.py, whose settings, judge and drawing noise it shares, with the number of labeled images as "labels". U is the
same for all of them, and a smaller S is a part of a larger one. All start from the model of U, which they have to unlearn. The oracle knows no S, so it has one row, with 0 labels.
With --biased "read_sensitive" counts the drawings that the judge takes for each of the sensitive digits.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace

import torch
from estimators import CLASSIFIER_STEPS, SAMPLES_PER_SEED, STARTS, drawings, shorten_sieve
from kept import to_images, write_results

from pulib.data import BUILD, PUSplit, load_pu
from pulib.evaluation import load_judge, pool, ratio_to_oracle, read, report, ruler
from pulib.rivals import FAST

RESULTS = {False: "results/06_label_efficiency.json", True: "results/06_label_bias.json"}
COMMAND = "python tests/benchmarks/label_efficiency.py --json"
LABELS = (10, 25, 50, 100, 200)
LABELED = (1, 3, 5)  # the digits in a biased S; U holds 7 and 9 as well
ARMS = ("filter", "pu_paper", "pu_pushed")


def splits(labels: list[int], biased: bool) -> Iterator[PUSplit]:
    """Splits that differ in S alone."""
    if not biased:
        yield from (load_pu("even", n_sensitive=n) for n in labels)
        return
    split = load_pu("even", n_sensitive=200)
    labeled = torch.isin(split.hidden.sensitive, torch.tensor(LABELED))
    yield replace(split, sensitive=split.sensitive[labeled], hidden=replace(split.hidden, sensitive=split.hidden.sensitive[labeled]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")
    parser.add_argument("--smoke", action="store_true", help="a few steps and samples, to see that it runs")
    parser.add_argument("--biased", action="store_true", help=f"label none but the digits {LABELED}")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--labels", nargs="+", type=int, default=list(LABELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    settings = STARTS["tuned"] | ({"steps": 2} if args.smoke else {})
    n, classifier_steps = (16, 2) if args.smoke else (SAMPLES_PER_SEED, CLASSIFIER_STEPS)
    if args.smoke:
        shorten_sieve()
    folder, judge, rows = BUILD / ("estimators_smoke" if args.smoke else "estimators"), load_judge(), []
    measured, oracle = load_pu("even"), None  # the same held-out images for all
    for name, split in [("oracle", measured), *((name, split) for split in splits(args.labels, args.biased) for name in args.arms)]:
        made = [drawings(name, split, seed, "tuned", settings, n, classifier_steps, folder) for seed in args.seeds]
        runs = [read(judge, to_images(run["images"])) for run in made]
        pooled = pool(runs)
        oracle = oracle or pooled
        row = report(pooled, measured, judge).row("even", name, len(args.seeds)) | {"labels": 0 if name == "oracle" else len(split.sensitive)}
        row["nsr_by_seed"] = [round(report(seen, measured, judge).nsr, 4) for seen in runs]
        row["frechet_ratio"] = ratio_to_oracle(pooled.features, oracle.features, ruler(judge, measured).reference)
        if args.biased:
            row["read_sensitive"] = {str(digit): int((pooled.digits == digit).sum()) for digit in (1, 3, 5, 7, 9)}
        rows.append(row)
        print(json.dumps(row) if args.json else row, flush=True)
    whole = set(args.arms) == set(ARMS) and (args.biased or set(args.labels) >= set(LABELS))
    if not args.smoke and whole and len(args.seeds) >= 3:
        command = COMMAND + (" --biased" if args.biased else "")
        write_results(RESULTS[args.biased], {"command": command, "settings": settings, "sampling": FAST, "rows": rows})


if __name__ == "__main__":
    main()
