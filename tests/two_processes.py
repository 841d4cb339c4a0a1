"""Run by tests/test_processes.py in one process or several: gradients of a risk, and a short training run; written by the first process.

    torchrun --nproc-per-node 2 tests/two_processes.py OUT
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import save_file

from pulib import training
from pulib.risk import Correction, pu_risk
from pulib.training import Settings, fit, new_model, together

PRIOR = 0.3
SIZES = torch.tensor([3.0, 0.1, 3.0, 0.1])  # of the images of S: the first of two processes sees a negative difference, the second a positive one


def toy(n: int, seed: int) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def gradients(correction: str, share: bool) -> torch.Tensor:
    """The gradient of the PU risk of 12 losses on U and 4 on S in a small network; each process has its part of the images."""
    accelerator = training._accelerator("no")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 64))
    images = torch.cat([toy(12, 0), toy(4, 1) * SIZES.view(-1, 1, 1, 1)])
    mine = images[accelerator.process_index :: accelerator.num_processes]
    model = accelerator.prepare(network)
    losses = (model(mine) - mine.flatten(1)).square().sum(1)
    if share:
        losses, n = together(losses, accelerator), 12
    else:
        n = 12 // accelerator.num_processes
    risk = pu_risk(losses[:n], losses[n:], PRIOR, correction)
    accelerator.backward(risk * accelerator.num_processes if share else risk)
    return torch.cat([p.grad.flatten() for p in accelerator.unwrap_model(model).parameters()])


def main(out: Path) -> None:
    torch.set_num_threads(1)
    first = training._accelerator("no").is_main_process
    found = {f"{correction} {'whole' if share else 'parts'}": gradients(correction, share) for correction in get_args(Correction) for share in (True, False)}
    settings = Settings(4, batch_unlabeled=6, batch_sensitive=2, lr=1e-3, warmup=1, clip_norm=1e6)
    runs = {"plain": settings, "shared": replace(settings, shared=True), "cap": replace(settings, cap=1.5, cap_level="running", min_snr=1.0)}
    for name, changed in runs.items():
        checkpoint = out.with_name(f"{out.stem}_{name}.checkpoint")
        start, risks = new_model((8, 16), T=50), []
        for record in fit(start, toy(20, 2), lambda u, s: pu_risk(u, s, PRIOR) if len(s) else u.mean(), changed, toy(9, 3), checkpoint):
            risks.append([record.risk, record.loss_u])
        t = torch.arange(0, 50, 10)
        found |= {f"{name} risks": torch.tensor(risks), f"{name} output": record.model(toy(5, 4), t), f"{name} start": start(toy(5, 4), t).detach()}
    if first:
        save_file({key: value.contiguous() for key, value in found.items()}, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
