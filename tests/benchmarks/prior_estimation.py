"""How well the class prior is estimated, over true priors, seeds and splits.

    python tests/benchmarks/prior_estimation.py --json            # half an hour on one core; goes on where it was stopped
    python tests/benchmarks/prior_estimation.py --json --smoke    # under half a minute; writes nothing into data/

One run per draw `load_pu(split, prior, seed=seed)`. Its held-out scores are kept in build/prior_estimation/, and all methods
read the same scores, so they differ in nothing else:

    corrected_bin        `estimate_prior`: (TED)^n rounds, the best bin of the last one, corrected for the normal images in it
    best_bin             BBE in the last round
    best_bin_round_1     BBE on the first classifier, which takes U for normal
    elkan_noto           on the first classifier, whose scores are log p_S / p_U as this estimator needs them
    pulearn_histogram    pulearn 0.2's HistogramMatchPriorEstimator, its feature being the score of the last round
    pulearn_scar_em      pulearn 0.2's ScarEMPriorEstimator, on the same feature

pulearn's pi counts the sensitive images in U and S together; `prior_in_unlabeled` converts it. Its histogram has ten bins of equal
width in the probability of a label, and starts its EM: with S the rarer side, the default classifier puts nearly all images into
the first two bins, so it gets one with balanced weights here (a change made after the default had been seen on seeds 0 to 4). Our settings were chosen by
looking at seeds 100 to 102; seeds 0 to 4 were drawn after that. A first
run over them was stopped at a bug, folds that held out whole digits; nothing but the bug was changed after it. A collapse has no estimate: null, and "failed" says why.
Seconds are processor seconds of the whole `estimate_prior` on one thread.
"""

import argparse
import hashlib
import json
import statistics
import time

import numpy as np
import torch
from kept import kept, write_results
from pulearn import HistogramMatchPriorEstimator, ScarEMPriorEstimator
from sklearn.linear_model import LogisticRegression

from pulib import prior
from pulib.data import BUILD, load_pu, prior_in_unlabeled
from pulib.prior import CollapseError, Scores, best_bin, elkan_noto, estimate_prior, read_prior

RESULTS = "results/05_prior_estimation.json"
COMMAND = "python tests/benchmarks/prior_estimation.py --json"
PRIORS = (0.02, 0.05, 1 / 11, 0.2, 0.4)
SETTINGS = {name: getattr(prior, name) for name in ("COPIES", "COPIES_READ", "DISTORTION", "STEPS", "BATCH_UNLABELED", "BATCH_SENSITIVE", "SETTLED")}


def run(split, folder) -> tuple[list[Scores], dict]:
    """Scores of every round of `estimate_prior` on one draw, and {"seconds", "failed"}; kept in `folder`."""
    key = hashlib.sha256(json.dumps([SETTINGS, split.prior]).encode()).hexdigest()[:12]

    def make() -> dict:
        start, failed = time.process_time(), None
        try:
            history = [each.scores for each in estimate_prior(split.unlabeled, split.sensitive, seed=split.seed).history]
        except CollapseError as error:
            history, failed = ([error.scores] if error.scores else []), str(error)
        arrays = {f"{side}{i}": getattr(each, side).numpy() for i, each in enumerate(history) for side in ("unlabeled", "sensitive")}
        return arrays | {"facts": json.dumps({"rounds": len(history), "seconds": round(time.process_time() - start, 1), "failed": failed})}

    arrays = kept(folder / f"{split.normal}_{split.prior:.4f}_{split.seed}_{key}.npz", make)
    facts = json.loads(str(arrays["facts"]))
    history = [Scores(*(torch.from_numpy(arrays[f"{side}{i}"]) for side in ("unlabeled", "sensitive"))) for i in range(facts["rounds"])]
    return history, facts


def by_pulearn(estimator, scores: Scores) -> float:
    """pulearn's estimate in our convention: the share of sensitive images in U alone."""
    n_u, n_s = len(scores.unlabeled), len(scores.sensitive)
    features = torch.cat([scores.unlabeled, scores.sensitive]).numpy()[:, None]
    found = estimator.estimate(features, np.r_[np.zeros(n_u, int), np.ones(n_s, int)])
    return prior_in_unlabeled(float(found.pi), n_u, n_s)


def estimates(history: list[Scores], seed: int) -> dict:
    """{method: a call that gives (prior, low, high)}."""
    first, last = history[0], history[-1]
    balanced = LogisticRegression(class_weight="balanced")

    def corrected():
        found = read_prior(last, seed=seed)
        return found.prior, found.low, found.high

    def alone(estimator, *inputs):
        return lambda: (estimator(*inputs), None, None)

    return {
        "corrected_bin": corrected,
        "best_bin": alone(lambda s: best_bin(s.unlabeled, s.sensitive).ratio, last),
        "best_bin_round_1": alone(lambda s: best_bin(s.unlabeled, s.sensitive).ratio, first),
        "elkan_noto": alone(elkan_noto, first.unlabeled, first.sensitive),
        "pulearn_histogram": alone(by_pulearn, HistogramMatchPriorEstimator(balanced), last),
        "pulearn_scar_em": alone(by_pulearn, ScarEMPriorEstimator(init_estimator=balanced), last),
    }


def row(split, method: str, estimate, facts: dict) -> dict:
    """A row of the table; a collapse of the method, or of the run it reads, has no estimate."""
    values, failed = (None, None, None), facts["failed"]
    if not failed:
        try:
            values = estimate()
        except (CollapseError, ValueError) as error:
            failed = str(error)
    value, low, high = (None if v is None else round(v, 5) for v in values)
    error = None if value is None else round(value - split.prior, 5)
    known = {"split": split.normal, "prior": round(split.prior, 5), "seed": split.seed, "method": method}
    return {**known, "estimate": value, "low": low, "high": high, "error": error, "seconds": facts["seconds"], "failed": failed}


def summary(rows: list[dict]) -> list[dict]:
    """Mean absolute and mean error, and in how many runs the interval holds the truth, per split, method and true prior; null: all priors."""
    table = []
    for split, method in dict.fromkeys((r["split"], r["method"]) for r in rows):
        mine = [r for r in rows if (r["split"], r["method"]) == (split, method)]
        for share in (*dict.fromkeys(r["prior"] for r in mine), None):
            errors = [r["error"] for r in mine if r["error"] is not None and share in (None, r["prior"])]
            runs = sum(share in (None, r["prior"]) for r in mine)
            mean = [round(statistics.fmean(values), 5) if values else None for values in ([abs(e) for e in errors], errors)]
            known = {"split": split, "method": method, "prior": share, "mae": mean[0], "bias": mean[1]}
            covered = sum(r["low"] <= r["prior"] <= r["high"] for r in mine if r["low"] is not None and share in (None, r["prior"]))
            table.append({**known, "covered": covered, "runs": runs, "collapsed": runs - len(errors)})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")
    parser.add_argument("--smoke", action="store_true", help="one draw and a few steps, to see that it runs")
    parser.add_argument("--splits", nargs="+", default=["even", "odd"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    priors, seeds = PRIORS, args.seeds
    if args.smoke:
        priors, seeds, prior.STEPS, prior.COPIES = (1 / 11,), 1, (60, 20, 20), 4
    folder, rows = BUILD / ("prior_estimation_smoke" if args.smoke else "prior_estimation"), []
    for normal in args.splits[: 1 if args.smoke else None]:
        for share in priors:
            for seed in range(seeds):
                split = load_pu(normal, prior=share, seed=seed)
                history, facts = run(split, folder)
                for method, estimate in estimates(history, seed).items() if history else []:
                    rows.append(row(split, method, estimate, facts))
                    print(json.dumps(rows[-1]) if args.json else rows[-1], flush=True)
    if not args.smoke and set(args.splits) == {"even", "odd"}:
        content = {"command": COMMAND, "settings": SETTINGS, "summary": summary(rows), "rows": rows}
        write_results(RESULTS, content)


if __name__ == "__main__":
    main()
