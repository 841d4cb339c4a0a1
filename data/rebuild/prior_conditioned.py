"""Train a network for every assumed prior, write its weights, and measure what it draws.

    python data/rebuild/prior_conditioned.py even          # data/weights/prior_even.safetensors: b in [0, 0.3]
    python data/rebuild/prior_conditioned.py odd
    python data/rebuild/prior_conditioned.py even --wide   # data/weights/wide_even.safetensors: 30 % of U sensitive, b in [0, 0.6]

It distils two networks, the base model and its PU arm, into one, which starts from the base model (see `pulib.rivals`). With
--wide that base is first trained on the more contaminated U. The metrics, of 2,000 samples at the true prior, go into
data/manifest.json.
"""

import argparse
import time

import torch

from pulib.data import DATA, load_pu, record_sha256
from pulib.diffusion import sample
from pulib.evaluation import evaluate, load_judge
from pulib.risk import unsupervised_risk
from pulib.rivals import SAMPLING, for_every_prior, teacher_of
from pulib.training import Settings, fit, load_base, load_conditioned, save_weights

STEPS, WIDE_STEPS, WIDE_PRIOR = 800, 1200, 0.3

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("normal", choices=["even", "odd"])
parser.add_argument("--wide", action="store_true", help="for a U of which 30 %% are sensitive")
parser.add_argument("--measure", action="store_true", help="only measure the weights that are there")
parser.add_argument("--threads", type=int, default=torch.get_num_threads())
args = parser.parse_args()
torch.set_num_threads(args.threads)

split = load_pu(args.normal, prior=WIDE_PRIOR) if args.wide else load_pu(args.normal)
name = f"weights/{'wide' if args.wide else 'prior'}_{args.normal}.safetensors"


def train() -> None:
    """Train from the base model and write the weights."""
    start, began, prior_max = load_base(args.normal), time.time(), 0.6 if args.wide else 0.3
    if args.wide:
        settings = Settings(WIDE_STEPS, lr=5e-4, warmup=50, ema=0.995, min_snr=1.0, distort=0.2)
        for record in fit(start, split.unlabeled, unsupervised_risk, settings):
            pass
        start = record.model.cpu()
        print(f"base of the contaminated U: {time.time() - began:.0f} s", flush=True)
    teacher, distances = teacher_of(split, start, split.prior), []
    print(f"teacher: {time.time() - began:.0f} s", flush=True)
    for record in for_every_prior("distilled", split, start, STEPS, prior_max, teacher=teacher):
        distances.append(record.risk)
        if record.step % 100 == 0:
            print(f"step {record.step}  distance to the teacher {sum(distances[-100:]) / 100:.2f}  {time.time() - began:.0f} s", flush=True)
    model = dict(widths=start.network.config["widths"], prediction="v", schedule="cosine", T=1000, prior_max=prior_max)
    facts = dict(trained_on=f"load_pu({args.normal!r}{f', prior={WIDE_PRIOR}' if args.wide else ''})", steps=STEPS)
    save_weights(DATA / name, record.model, model=model, **facts)
    record_sha256(name)


if not args.measure:
    train()
model = load_conditioned(args.normal, args.wide)
report = evaluate(sample(model.at(split.prior), 2000, model.schedule, **SAMPLING, seed=1000), split, load_judge())
metrics = {k: v for k, v in report.row(args.normal, "prior", seeds=1).items() if k not in ("split", "arm")}
record_sha256(name, command=f"python data/rebuild/prior_conditioned.py {args.normal}{' --wide' if args.wide else ''}", metrics=metrics)
print(f"{name} at b = {split.prior:.4f}: {report}")
