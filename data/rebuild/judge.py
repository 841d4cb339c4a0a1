"""Train the judge on the digits that are its alone, and measure it on all the others.

    python data/rebuild/judge.py        # data/weights/judge.safetensors, about 12 minutes of one core

Every batch is distorted at random (rotation, scale, shear, shift, elastic, width of the stroke), because 2,000 images
are few.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulib.data import DATA, distort, judge_part, learner_part, record_sha256
from pulib.evaluation import Judge, judge_errors, read
from pulib.training import save_weights


def thicken(images: Tensor, generator: torch.Generator) -> Tensor:
    """Strokes of each image [n, 1, 28, 28] made wider or thinner by a random part of a pixel."""
    share = torch.rand(len(images), 1, 1, 1, generator=generator) * 1.6 - 0.8
    wide, thin = F.max_pool2d(images, 3, 1, 1), -F.max_pool2d(-images, 3, 1, 1)
    return torch.where(share > 0, images + share * (wide - images), images - 0.6 * share * (thin - images))


def train(member: nn.Module, images: Tensor, digits: Tensor, steps: int, seed: int) -> None:
    """Train one member of the judge in place."""
    generator = torch.Generator().manual_seed(seed)
    member.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(member.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for step in range(1, steps + 1):
        rows = torch.randint(len(images), (100,), generator=generator)
        batch = distort(thicken(images[rows], generator), generator).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(member(batch), digits[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"  step {step}  loss {loss.item():.3f}", flush=True)
    member.eval()


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=6000)
parser.add_argument("--threads", type=int, default=torch.get_num_threads())
args = parser.parse_args()
torch.set_num_threads(args.threads)

torch.manual_seed(0)
model = {"members": 3}
judge = Judge(**model).eval()
unseen_images, unseen_digits = learner_part()
for seed, member in enumerate(judge.members):
    train(member, *judge_part(), args.steps, seed)
    with torch.no_grad():
        own = (member(unseen_images).argmax(1) == unseen_digits).double().mean().item()
    print(f"member {seed}: accuracy on unseen digits {own:.4f}", flush=True)

accuracy = (read(judge, unseen_images).digits == unseen_digits).double().mean().item()
errors = {normal: [round(e, 4) for e in judge_errors(judge, normal)] for normal in ("even", "odd")}
name = "weights/judge.safetensors"
save_weights(DATA / name, judge, model=model, steps=args.steps)
record_sha256(
    name,
    command="python data/rebuild/judge.py",
    metrics={"accuracy_unseen_digits": round(accuracy, 4), "n_unseen": len(unseen_digits), "errors_normal_sensitive": errors},
)
print(f"wrote {name}: accuracy {accuracy:.4f}, errors {errors}")
