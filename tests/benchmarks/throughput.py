"""How many images a second does `fit` train on? In one run beside the loop that the documentation of diffusers has one write.

    python tests/benchmarks/throughput.py --json                              # some minutes on two cores
    python tests/benchmarks/throughput.py --json --network paper --compile    # on a GPU
    python tests/benchmarks/throughput.py --json --smoke                      # half a minute, to see that it runs

Both train the same network on the same images, as many in a batch and in the same precision, to the same loss: the squared error summed
over pixels, its mean over U and S. Given the same batches, their losses at the first steps must agree. "paper" is the layout of PU diffusion
(arXiv 2503.03789), "thin" the same a quarter as wide. The sides take turns, each in a process of its own, so that its peak of memory is its
own. "share_of_peak": what the network's arithmetic, forward and backward, takes of the fastest product of two square matrices in the same
processes. `first_step_s`, which holds compilation, and the steps that warm up do not count. An MB is 1e6 bytes.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator, PartialState
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from pulib import scale
from pulib.data import load_pu
from pulib.diffusion import NoisePredictor, linear_schedule
from pulib.training import Settings, best_precision, draw_batch, fit, learning_rate

T, ALLOWED = 1000, 1e-3  # noise levels; the largest relative difference between the losses
NETWORKS = {  # by name, what differs from the paper's (`scale.NETWORKS`)
    "paper": {},
    "thin": dict(block_out_channels=(32, 32, 64, 128), norm_num_groups=8),
    "tiny": dict(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=8),  # for --smoke
}


def new_network(name: str) -> nn.Module:
    """One of `NETWORKS` with fresh weights, the same each time."""
    return scale.unet(scale.NETWORKS["paper"] | NETWORKS[name], 32, 3)


def images() -> tuple[Tensor, Tensor]:
    """U and S of the even digits, [n, 3, 32, 32]: padded, with three equal channels."""
    split = load_pu("even")
    return tuple(F.pad(x, (2, 2, 2, 2), value=-1).repeat(1, 3, 1, 1) for x in (split.unlabeled, split.sensitive))


def mean_loss(loss_u: Tensor, loss_s: Tensor) -> Tensor:
    """The objective for `fit`: the mean over all images of the batch."""
    return torch.cat([loss_u, loss_s]).mean()


class Plain:
    """What the documentation of diffusers has one write: one step of it, on a batch with its noise levels and noise."""

    def __init__(self, network: nn.Module, settings: Settings) -> None:
        from diffusers import DDPMScheduler
        from diffusers.optimization import get_cosine_schedule_with_warmup
        from diffusers.training_utils import EMAModel

        self.settings, self.noising = settings, DDPMScheduler(num_train_timesteps=T, beta_schedule="linear")
        self.accelerator = Accelerator(mixed_precision=settings.precision)
        optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr)
        rate = get_cosine_schedule_with_warmup(optimizer, settings.warmup, settings.steps)
        self.model, self.optimizer, self.rate = self.accelerator.prepare(network.train(), optimizer, rate)
        self.average = EMAModel(network.parameters(), decay=settings.ema)
        self.average.to(self.accelerator.device)

    def step(self, x0: Tensor, t: Tensor, noise: Tensor) -> float:
        """The loss, after which the weights have moved."""
        eps_hat = self.model(self.noising.add_noise(x0, noise, t), t, return_dict=False)[0]
        loss = F.mse_loss(eps_hat.float(), noise, reduction="sum") / len(x0)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.rate.step()
        self.optimizer.zero_grad()
        self.average.step(self.model.parameters())
        return loss.item()  # for the log


def run_plain(network: nn.Module, settings: Settings) -> Iterator[int]:
    """Yields the number of each step."""
    plain, step = Plain(network, settings), 0
    data = ConcatDataset([TensorDataset(x) for x in images()])
    loader = DataLoader(data, settings.batch_unlabeled + settings.batch_sensitive, shuffle=True, drop_last=True)
    loader = plain.accelerator.prepare(loader)
    while True:
        for (x0,) in loader:
            plain.step(x0, torch.randint(0, T, (len(x0),), device=x0.device), torch.randn_like(x0))
            yield (step := step + 1)
            if step == settings.steps:
                return


def run_ours(network: nn.Module, settings: Settings) -> Iterator[int]:
    """Yields the number of each step."""
    unlabeled, sensitive = images()
    for record in fit(NoisePredictor(network, linear_schedule(T), "eps"), unlabeled, mean_loss, settings, sensitive):
        if record.step % 10 == 0:
            record.risk  # noqa: B018 - which waits for a GPU, as a progress bar would
        yield record.step


def loss_difference(network: str, settings: Settings) -> float:
    """The largest relative difference between the losses of both, on the same batches with the same learning rate, in full precision."""
    torch.backends.cudnn.allow_tf32 = False
    unlabeled, sensitive = images()
    ours = [record.risk for record in fit(NoisePredictor(new_network(network), linear_schedule(T), "eps"), unlabeled, mean_loss, settings, sensitive)]
    plain, theirs = Plain(new_network(network), settings), []
    plain.rate = LambdaLR(plain.optimizer.optimizer, lambda step: learning_rate(step, settings) / settings.lr)
    for step in range(settings.steps):
        drawn = ((unlabeled, settings.batch_unlabeled, 0), (sensitive, settings.batch_sensitive, 1))
        parts = [draw_batch(x, n, settings, step, stream, torch.ones(T)) for x, n, stream in drawn]
        x0, t, noise, _ = (torch.cat(tensors).to(plain.accelerator.device) for tensors in zip(*parts))
        theirs.append(plain.step(x0, t, noise))
    return float(np.abs(np.array(ours) / np.array(theirs) - 1).max())


def flops_per_image(network: nn.Module) -> int:
    """Floating-point operations of the network, forward and backward."""
    network = network.to("meta")  # counts without computing
    x = torch.zeros(1, 3, 32, 32, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(x, torch.zeros(1, dtype=torch.long, device="meta")).sample.sum().backward()
    return counter.get_total_flops()


def memory(device: torch.device) -> dict[str, float | None]:
    """The peak so far of this process, and of what it has on a GPU (Apple's does not tell its peak: what it holds), in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    held = {"cuda": torch.cuda.max_memory_allocated, "mps": torch.mps.driver_allocated_memory}.get(device.type)
    return {"memory_mb": peak / 1e6, "device_memory_mb": held() / 1e6 if held else None}


def measure(side: str, network: nn.Module, settings: Settings, warm: int, seconds: float) -> dict[str, float | None]:
    """Images a second after the first `warm` steps, the time to the first step, memory, and the rate of matrix products."""
    device, start = PartialState().device, time.perf_counter()
    times = {}
    for step in {"ours": run_ours, "plain": run_plain}[side](network, settings):
        if step in (1, warm, settings.steps):
            scale.wait(device)
            times[step] = time.perf_counter()
    rate = (settings.steps - warm) * (settings.batch_unlabeled + settings.batch_sensitive) / (times[settings.steps] - times[warm])
    return {"images_per_s": rate, "first_step_s": times[1] - start} | memory(device) | {"matmul_rate": 1e12 * scale.matrix_peak(seconds)}


def in_process(side: str, *options: str) -> dict[str, float]:
    """What `work` says of a side, from this script in a process of its own.

    Linux counts what the parent held at its start towards the child's peak: so nothing is trained here.
    """
    done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--side", side, *options], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def work(args: argparse.Namespace) -> dict[str, float | None]:
    """What one process does: time one side, and compare the losses of both if asked."""
    sensitive, warm = max(1, args.batch // 5), 1 if args.smoke else 3
    same = dict(batch_unlabeled=args.batch - sensitive, batch_sensitive=sensitive, compile=args.compile)
    settings = Settings(warm + args.steps, **same, precision=best_precision())
    timed = measure(args.side, new_network(args.network), settings, warm, 0.1 if args.smoke else 1.0)
    if not args.check:
        return timed
    steps = 3 if args.smoke else 6
    difference = loss_difference(args.network, Settings(steps, **same, warmup=steps, precision="no"))
    return timed | {"loss_difference": difference, "flops_per_image": flops_per_image(new_network(args.network))}


def summary(side: str, rounds: list[dict], flops: int, peak: float) -> dict:
    """The row of one side: medians over its rounds."""
    row = {"side": side}
    for name, digits in {"images_per_s": 4, "memory_mb": 4, "device_memory_mb": 4, "first_step_s": 3}.items():
        row[name] = None if rounds[0][name] is None else float(f"{np.median([r[name] for r in rounds]):.{digits}g}")
    row["share_of_peak"] = round(row["images_per_s"] * flops / peak, 4)
    return row


def compare(args: argparse.Namespace) -> list[dict]:
    """A row for each side, and one that compares them."""
    rounds = [{"plain": in_process("plain", "--check"), "ours": in_process("ours")}]
    for i in range(1, args.rounds):
        order = ("ours", "plain") if i % 2 else ("plain", "ours")  # so that a machine that gets busier favours neither
        rounds.append({side: in_process(side) for side in order})
    checked = rounds[0]["plain"]
    peak = max(r["matmul_rate"] for pair in rounds for r in pair.values())
    rows = [summary(side, [pair[side] for pair in rounds], checked["flops_per_image"], peak) for side in ("ours", "plain")]
    ratios = [pair["ours"]["images_per_s"] / pair["plain"]["images_per_s"] for pair in rounds]
    device, used = PartialState().device, "memory_mb" if rows[0]["device_memory_mb"] is None else "device_memory_mb"
    compared = {
        "side": "ours over plain",
        "ratio": round(float(np.median(ratios)), 3),
        "low": round(min(ratios), 3),
        "high": round(max(ratios), 3),
        "memory_ratio": round(rows[0][used] / rows[1][used], 3),
        "loss_difference": float(f"{checked['loss_difference']:.2g}"),
        "gflops_per_image": round(checked["flops_per_image"] / 1e9, 3),
        "peak_gflops": round(peak / 1e9, 1),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "precision": best_precision(),
        "threads": torch.get_num_threads(),
    }
    return [*rows, compared | {name: getattr(args, name) for name in ("network", "batch", "compile", "rounds", "steps")}]


def arguments() -> argparse.Namespace:
    """What the command line asks for, with what depends on the device filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--smoke", action="store_true", help="a few steps of a tiny network")
    parser.add_argument("--compile", action="store_true", help="with `Settings(compile=True)` on our side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="timed steps in a round; 200 on a GPU, 10 on a CPU")
    parser.add_argument("--network", choices=("thin", "paper"), help="paper on a GPU, thin on a CPU")
    parser.add_argument("--batch", type=int, default=80, help="images in a batch, a fifth of them of S")
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    on_gpu = PartialState().device.type != "cpu"
    args.steps = (200 if on_gpu else 10) if args.steps is None else args.steps
    args.network = args.network or ("paper" if on_gpu else "thin")
    if args.smoke:
        args.network, args.rounds, args.steps, args.batch = "tiny", 1, 4, 10
    if min(args.steps, args.rounds) < 1 or not 2 <= args.batch <= 1000:
        parser.error("steps and rounds must be at least 1, and batch between 2 and 1000")
    return args


def main() -> None:
    args = arguments()
    if args.side:
        print(json.dumps(work(args)))
        return
    rows = compare(args)
    for row in rows:
        print(json.dumps(row) if args.json else row)
    if not rows[-1]["loss_difference"] <= ALLOWED:
        sys.exit(f"the losses must agree to {ALLOWED}; they differ by {rows[-1]['loss_difference']}")


if __name__ == "__main__":
    main()
