"""Train a diffusion model from scratch, write its weights, and measure what it draws.

    python data/rebuild/diffusion.py base even      # data/weights/base_even.safetensors: all of U, sensitive images included
    python data/rebuild/diffusion.py base odd
    python data/rebuild/diffusion.py oracle even    # data/weights/oracle_even.safetensors: the normal images of U alone
    python data/rebuild/diffusion.py oracle odd

A run takes about 25 minutes of one core. It keeps a checkpoint in build/ and goes on from it when started again. The
metrics, of 2,000 samples, go into data/manifest.json. With --measure the weights stay as they are and are only measured
again, as a new judge asks for.
"""

import argparse
import time

import torch

from pulib.data import BUILD, DATA, load_pu, record_sha256
from pulib.diffusion import sample
from pulib.evaluation import evaluate, load_judge
from pulib.risk import unsupervised_risk
from pulib.rivals import SAMPLING
from pulib.training import Settings, fit, load_base, load_oracle, new_model, save_weights

MODEL = dict(widths=(32, 96), prediction="v", schedule="cosine", T=1000)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("kind", choices=["base", "oracle"])
parser.add_argument("normal", choices=["even", "odd"])
parser.add_argument("--steps", type=int, default=12_000)
parser.add_argument("--measure", action="store_true", help="only measure the weights that are there")
parser.add_argument("--threads", type=int, default=torch.get_num_threads())
args = parser.parse_args()
torch.set_num_threads(args.threads)

split = load_pu(args.normal)
name = f"weights/{args.kind}_{args.normal}.safetensors"


def train() -> None:
    """Train from scratch and write the weights."""
    images = split.unlabeled if args.kind == "base" else split.oracle_normal
    settings = Settings(args.steps, lr=1.5e-3, warmup=200, ema=0.9995, min_snr=1.0, distort=0.2, checkpoint_every=250)
    checkpoint = BUILD / f"{args.kind}_{args.normal}_{args.steps}.checkpoint"
    start, losses = time.time(), []
    for record in fit(new_model(**MODEL), images, unsupervised_risk, settings, checkpoint=checkpoint):
        losses.append(record.loss_u)
        if record.step % 250 == 0:
            print(f"step {record.step}  loss {sum(losses[-250:]) / len(losses[-250:]):.2f}  {time.time() - start:.0f} s", flush=True)
    save_weights(DATA / name, record.model, model=MODEL, trained_on=f"load_pu({args.normal!r})", steps=args.steps)
    record_sha256(name)


if not args.measure:
    train()
model = {"base": load_base, "oracle": load_oracle}[args.kind](args.normal)
report = evaluate(sample(model, 2000, model.schedule, **SAMPLING, seed=1000), split, load_judge())
metrics = {k: v for k, v in report.row(args.normal, args.kind, seeds=1).items() if k not in ("split", "arm")}
record_sha256(name, command=f"python data/rebuild/diffusion.py {args.kind} {args.normal}", metrics=metrics)
print(f"{name}: {report}")
