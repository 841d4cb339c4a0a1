"""Train the judge on all of MNIST's training digits but those that learners use, and measure it on unseen ones.

    python data/rebuild/judge.py                  # data/weights/judge.safetensors, about 15 minutes of two cores
    python data/rebuild/judge.py --mnist FOLDER   # torchvision's root of MNIST; what is missing there is downloaded

The course's 5,000 digits are among MNIST's 60,000 training digits. The judge may see the 2,000 that are its own
(`judge_part`) and the 55,000 that are not in the course; the 3,000 of `learner_part` are taken out by their pixels.
Every batch is distorted at random (rotation, scale, shear, shift, elastic, width of the stroke), because drawings of a
diffusion model stray further than real digits.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.datasets import MNIST

from pulib.data import BUILD, DATA, distort, learner_part, record_sha256
from pulib.evaluation import Judge, judge_errors, read
from pulib.training import save_weights

BATCH = 128


def mnist(folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    """MNIST's training or test digits: images float32 [n, 1, 28, 28] in [-1, 1], digits int64 [n]."""
    digits = MNIST(folder, train=train, download=True)
    return digits.data.float().div(127.5).sub(1).unsqueeze(1), digits.targets


def without(images: Tensor, taken: Tensor) -> Tensor:
    """bool [n]: which of `images` are not among `taken`, pixel by pixel."""
    known = {image.numpy().tobytes() for image in taken}
    return torch.tensor([image.numpy().tobytes() not in known for image in images])


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
        rows = torch.randint(len(images), (BATCH,), generator=generator)
        batch = distort(thicken(images[rows], generator), generator).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(member(batch), digits[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"  step {step}  loss {loss.item():.3f}", flush=True)
    member.eval()


def accuracy(judge: nn.Module, images: Tensor, digits: Tensor) -> float:
    return (read(judge, images).digits == digits).double().mean().item()


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--mnist", type=Path, default=BUILD / "mnist")
parser.add_argument("--steps", type=int, default=6000)
parser.add_argument("--threads", type=int, default=torch.get_num_threads())
args = parser.parse_args()
torch.set_num_threads(args.threads)

torch.manual_seed(0)
model = {"members": 3}
judge = Judge(**model).eval()
unseen, unseen_digits = learner_part()
images, digits = mnist(args.mnist, train=True)
allowed = without(images, unseen)
if (~allowed).sum() != len(unseen):
    raise SystemExit(f"{len(unseen)} digits of learners should be among MNIST's; found {(~allowed).sum()}")
for seed, member in enumerate(judge.members):
    train(member, images[allowed], digits[allowed], args.steps, seed)
    print(f"member {seed} done", flush=True)

metrics = {
    "accuracy_unseen_digits": round(accuracy(judge, unseen, unseen_digits), 4),
    "n_unseen": len(unseen),
    "accuracy_mnist_test": round(accuracy(judge, *mnist(args.mnist, train=False)), 4),
    "errors_normal_sensitive": {normal: [round(e, 4) for e in judge_errors(judge, normal)] for normal in ("even", "odd")},
}
name = "weights/judge.safetensors"
save_weights(DATA / name, judge, model=model, steps=args.steps)
record_sha256(name, command="python data/rebuild/judge.py", metrics=metrics)
print(f"wrote {name}: {metrics}")
