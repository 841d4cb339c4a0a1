"""Train a network for every assumed prior, write its weights, and measure what it draws.

    python data/rebuild/prior_conditioned.py even          # data/weights/prior_even.safetensors: b in [0, 0.3]
    python data/rebuild/prior_conditioned.py odd
    python data/rebuild/prior_conditioned.py even --wide   # prior_even_wide.safetensors: a true prior of 0.3, b in [0, 0.6]

It distils the base model and its PU arm, mixed by a classifier of noised images, into one network that starts from the base model (see
`pulib.rivals`); with --wide the base model is first trained on the more contaminated U. A run takes two minutes of a GPU, or half an hour of one core. The metrics,
of 2,000 samples at the true prior, go into data/manifest.json. With --measure the weights stay as they are and are only measured again.
"""

import argparse
import time

import torch

from pulib.data import DATA, load_pu, record_sha256
from pulib.diffusion import sample
from pulib.evaluation import evaluate, load_judge
from pulib.rivals import SAMPLING, STEPS, base_of, for_every_prior, teacher_of
from pulib.training import device, load_base, load_conditioned, save_weights

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("normal", choices=["even", "odd"])
parser.add_argument("--wide", action="store_true", help="a true prior of 0.3 and b up to 0.6")
parser.add_argument("--measure", action="store_true", help="only measure the weights that are there")
parser.add_argument("--threads", type=int, default=torch.get_num_threads())
args = parser.parse_args()
torch.set_num_threads(args.threads)
if args.wide and args.normal != "even":
    parser.error(f"--wide is for even digits only; got {args.normal}")

split = load_pu(args.normal, prior=0.3 if args.wide else 1 / 11)
prior_max = 0.6 if args.wide else 0.3
name = f"weights/prior_{args.normal}{'_wide' * args.wide}.safetensors"


def train() -> None:
    """Train from the base model and write the weights."""
    began = time.time()
    start = base_of(split) if args.wide else load_base(args.normal)
    teacher, distances = teacher_of(split, start, split.prior), []
    print(f"teacher: {time.time() - began:.0f} s", flush=True)
    for record in for_every_prior("distilled", split, start, STEPS, prior_max, teacher=teacher):
        distances.append(record.risk)
        if record.step % 100 == 0:
            print(f"step {record.step}  distance to the teacher {sum(distances[-100:]) / 100:.2f}  {time.time() - began:.0f} s", flush=True)
    model = dict(widths=start.network.config["widths"], prediction="v", schedule="cosine", T=1000, prior_max=prior_max)
    trained_on = f"load_pu({args.normal!r}{', prior=0.3' * args.wide})"
    save_weights(DATA / name, record.model, model=model, trained_on=trained_on, steps=STEPS)
    record_sha256(name)


if not args.measure:
    train()
model = load_conditioned(args.normal, args.wide).to(device())
report = evaluate(sample(model.at(split.prior), 2000, model.schedule, **SAMPLING, seed=1000), split, load_judge())
metrics = {k: v for k, v in report.row(args.normal, "prior", seeds=1).items() if k not in ("split", "arm")}
record_sha256(name, command=f"python data/rebuild/prior_conditioned.py {args.normal}{' --wide' * args.wide}", metrics=metrics)
print(f"{name} at b = {split.prior:.4f}: {report}")
