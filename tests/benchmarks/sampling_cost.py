"""How many network calls a drawing takes; the figure of notebook 06.

    python tests/benchmarks/sampling_cost.py --json            # half an hour on two cores; goes on where it was stopped
    python tests/benchmarks/sampling_cost.py --json --smoke    # a minute; writes nothing into data/

The models are those of estimators.py (even digits, tuned, seed 0). Each draws from the same seed by every solver and number of calls;
"ratio" is the Fréchet distance over that of the same model's DDPM of all 1,000 steps, with its interval (bootstrap over drawings).
"""

import argparse
import json
from functools import partial

import torch
from estimators import STARTS, facts, shorten_sieve, trained
from kept import digest, kept, results, to_bytes, to_images, write_results

from pulib.data import BUILD, load_pu
from pulib.diffusion import sample
from pulib.evaluation import load_judge, ratio_to_oracle, read, report, ruler

RESULTS = "results/06_sampling_cost.json"
COMMAND = "python tests/benchmarks/sampling_cost.py --json"
ARMS = ("oracle", "pu_pushed")
CALLS = (10, 20, 30, 50)
SOLVERS = {  # for `sample`
    "DDIM": dict(eta=0.0, order=1),
    "second order": dict(eta=0.0, order=2),
    "second order with fresh noise": dict(eta=1.0, order=2),
}
DDPM = {"steps": 1000, "eta": 1.0, "order": 1}
SAMPLES = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")
    parser.add_argument("--smoke", action="store_true", help="a few steps and samples, to see that it runs")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    settings = STARTS["tuned"] | ({"steps": 2} if args.smoke else {})
    n, longest = (16, dict(DDPM, steps=30)) if args.smoke else (SAMPLES, DDPM)
    if args.smoke:
        shorten_sieve()
    folder = BUILD / ("estimators_smoke" if args.smoke else "estimators")
    split, judge, rows = load_pu("even"), load_judge(), []
    for name in args.arms:
        model, _ = trained(name, split, 0, "tuned", settings, folder)
        model.eval()
        base = None
        ways = {("DDPM", longest["steps"]): longest} | {(solver, calls): {"steps": calls, **how} for calls in CALLS for solver, how in SOLVERS.items()}
        for (solver, calls), how in ways.items():
            path = folder / f"cost_even_{name}_{digest(*facts(name, split, settings), how, n)}.npz"
            drawn = kept(path, partial(draw, model, n, how))
            seen = read(judge, to_images(drawn["images"]))
            base = seen if base is None else base
            row = report(seen, split, judge).row("even", name, 1) | {"solver": solver, "calls": calls}
            row["ratio"] = ratio_to_oracle(seen.features, base.features, ruler(judge, split).reference)
            rows.append(row)
            print(json.dumps(row) if args.json else row, flush=True)
    if not args.smoke:
        old = results(RESULTS)
        kept_rows = [row for row in old["rows"] if row["arm"] not in args.arms and old.get("settings") == settings]
        rows = sorted(kept_rows + rows, key=lambda row: ARMS.index(row["arm"]))
        write_results(RESULTS, {"command": COMMAND, "settings": settings, "rows": rows})


def draw(model, n: int, how: dict) -> dict:
    return {"images": to_bytes(sample(model, n, model.schedule, **how, seed=1000))}


if __name__ == "__main__":
    main()
