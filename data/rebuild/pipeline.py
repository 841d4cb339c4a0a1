"""Train the small pipeline that notebook 08 fine-tunes, a UNet2DModel of diffusers, on all of U of `load_pu("even")`; write and measure it.

    python data/rebuild/pipeline.py     # data/weights/pipeline_even.safetensors

A run takes about 50 minutes of one core. It keeps a checkpoint in build/ and goes on from it when started again. The metrics, of
1,000 samples, go into data/manifest.json. With --measure the weights are only measured again.
"""

import argparse
import time

import torch

from pulib.data import BUILD, DATA, load_pu, record_sha256
from pulib.diffusion import NoisePredictor, cosine_schedule, sample
from pulib.evaluation import evaluate, load_judge
from pulib.risk import unsupervised_risk
from pulib.rivals import SAMPLING
from pulib.scale import SHIPPED, new_network, shipped_model
from pulib.training import Settings, fit, save_weights

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=4_000)
parser.add_argument("--measure", action="store_true", help="only measure the weights that are there")
parser.add_argument("--threads", type=int, default=torch.get_num_threads())
args = parser.parse_args()
torch.set_num_threads(args.threads)

split, name = load_pu("even"), SHIPPED
if not args.measure:
    model = NoisePredictor(new_network("small", 28, 1), cosine_schedule(), "v")
    settings = Settings(args.steps, lr=1.5e-3, warmup=200, ema=0.9985, min_snr=1.0, distort=0.2, checkpoint_every=100)
    start, losses = time.time(), []
    for record in fit(model, split.unlabeled, unsupervised_risk, settings, checkpoint=BUILD / f"pipeline_even_{args.steps}.checkpoint"):
        losses.append(record.loss_u)
        if record.step % 100 == 0:
            print(f"step {record.step}  loss {sum(losses[-100:]) / len(losses[-100:]):.2f}  {time.time() - start:.0f} s", flush=True)
    save_weights(DATA / name, record.model, trained_on="load_pu('even')", steps=args.steps)
    record_sha256(name)

model = shipped_model()
report = evaluate(sample(model, 1000, model.schedule, **SAMPLING, seed=1000), split, load_judge())
metrics = {k: v for k, v in report.row("even", "pipeline", seeds=1).items() if k not in ("split", "arm")}
record_sha256(name, command="python data/rebuild/pipeline.py", metrics=metrics)
print(f"{name}: {report}")
