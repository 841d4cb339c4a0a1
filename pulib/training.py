"""The one training loop: a generator that yields a record per step, with EMA, checkpoints and exact resume.

Every random choice of step s (which images, which noise levels, which noise) depends on (seed, s) and on nothing
else. A run that stops anywhere therefore resumes exactly (on a CPU bit for bit), and runs that differ only in their objective see
the same unlabeled images with the same noise.
"""

import copy
import hashlib
import json
import math
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from .data import (
    DATA,
    DataError,
    WriteError,
    check_count,
    check_normal,
    check_positive,
    check_prior,
    check_seed,
    check_share,
    check_writable,
    distort,
    read_file,
    read_verified,
    write_atomic,
)
from .diffusion import (
    AtPrior,
    NoisePredictor,
    Prediction,
    cosine_schedule,
    denoising_loss,
    draw_timesteps,
    imitation_loss,
    linear_schedule,
    loss_profile,
    min_snr_density,
)
from .risk import pu_risk
from .runs import Checkpoints, Stoppable, fewer, out_of_memory, pass_over
from .unet import UNet

Objective = Callable[..., Tensor]  # (loss_u [n_u], loss_s [n_s], prior_s [n_s] if priors are drawn) -> risk []
CHECK_EVERY = 50  # steps between looks at whether the risk is finite, on a GPU
Teacher = Callable[[Tensor, Tensor, Tensor], Tensor]  # (xt [B, ...], t int64 [B], prior [B]) -> eps [B, ...]
SCHEDULES = {"cosine": cosine_schedule, "linear": linear_schedule}


@dataclass(frozen=True)
class Settings:
    """Of a training run.

    Args:
        steps: optimiser steps, >= 1.
        batch_unlabeled, batch_sensitive: images of U and of S in every batch (two loaders, fixed counts).
        lr: peak learning rate of AdamW; linear warm-up, then a half cosine down to 0.
        warmup: steps of warm-up.
        ema: decay of the exponential moving average of the weights.
        clip_norm: cap of the gradient's norm, a guard against spikes (the loss is a sum over pixels, so norms are
            in the hundreds).
        stratified: stratified timesteps instead of independent ones.
        min_snr: gamma of `min_snr_density` for the noise levels; None draws them uniformly, as the paper does.
        cap: losses on S count up to `cap` times the level of those on U at the same t; None counts them in full, as the paper does.
        cap_level: that level: "start" takes the start model's (see `loss_levels`), which suits fine-tuning; "running" a moving
            average of this run's (see `RunningLevels`), which training from scratch needs.
        budget: of the gradient through S: at most this share of the norm of the gradient through U, as SISS has it (Alberti et al.
            2025, arXiv 2503.01034); None leaves it as it is. Costs a second backward pass.
        shared: one shuffled deck of U and S, of which a batch takes `batch_unlabeled` + `batch_sensitive` images, as in the paper:
            how many of them are of S is left to chance, and may be none.
        distort: strength of `distort` for every batch of U and S; 0 leaves the images as they are.
        prior_max: train a prior-conditioned network: every image gets an assumed prior of its own, up to this (see `draw_priors`);
            None for a network that knows of none.
        seed: of batches, timesteps and noise.
        precision: "no", "bf16" or "fp16", or "auto" (bf16 where a CUDA device has it, otherwise "no").
        compile: let `torch.compile` fuse the network's operations; takes a minute or more before the first step.
        checkpoint_every: steps between checkpoints when a path is given.

    Raises:
        ValueError: a setting outside its range.
    """

    steps: int
    batch_unlabeled: int = 64
    batch_sensitive: int = 16
    lr: float = 1e-3
    warmup: int = 50
    ema: float = 0.999
    clip_norm: float = 500.0
    stratified: bool = True
    min_snr: float | None = None
    cap: float | None = None
    cap_level: str = "start"
    budget: float | None = None
    shared: bool = False
    distort: float = 0.0
    prior_max: float | None = None
    seed: int = 0
    precision: str = "auto"
    compile: bool = False
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        checked: dict[str, float] = {name: check_count(getattr(self, name), name) for name in ("steps", "batch_unlabeled", "batch_sensitive", "checkpoint_every")}
        checked |= {name: check_count(getattr(self, name), name, low=0) for name in ("warmup", "seed")}
        checked |= {name: check_positive(getattr(self, name), name) for name in ("lr", "clip_norm")}
        checked |= {name: check_positive(getattr(self, name), name) for name in ("min_snr", "cap", "budget", "prior_max") if getattr(self, name) is not None}
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # plain numbers, which a checkpoint can hold
        if not isinstance(self.distort, (int, float)) or not 0 <= self.distort <= 2:
            raise ValueError(f"distort must be in [0, 2]; got {self.distort!r}")
        if not isinstance(self.ema, (int, float)) or not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1); got {self.ema!r}")
        if self.cap_level not in ("start", "running"):
            raise ValueError(f"cap_level must be 'start' or 'running'; got {self.cap_level!r}")
        if not isinstance(self.compile, bool):
            raise ValueError(f"compile must be True or False; got {self.compile!r}")
        if self.precision not in ("auto", "no", "bf16", "fp16"):
            raise ValueError(f"precision must be 'auto', 'no', 'bf16' or 'fp16'; got {self.precision!r}")


@dataclass(frozen=True, eq=False)
class StepRecord:
    """One step: its number (1 … steps), the risk, the mean losses on U and on S as they count (nan without S), the EMA model.

    The three numbers stay on the device, [3], until one is read: a GPU need not wait for a step whose record nobody looks at.
    """

    step: int
    numbers: Tensor
    model: NoisePredictor

    @property
    def risk(self) -> float:
        """The risk that was minimised."""
        return self.numbers[0].item()

    @property
    def loss_u(self) -> float:
        """Mean loss on U, as it counts."""
        return self.numbers[1].item()

    @property
    def loss_s(self) -> float:
        """Mean loss on S, as it counts; nan without S."""
        return self.numbers[2].item()


def fit(
    model: NoisePredictor,
    unlabeled: Tensor,
    objective: Objective,
    settings: Settings,
    sensitive: Tensor | None = None,
    checkpoint: Path | str | Checkpoints | None = None,
    teacher: Teacher | None = None,
    weights: tuple[Tensor, Tensor | None] | None = None,
) -> Iterator[StepRecord]:
    """Train on E[objective(l of U images, l of S images)] and yield a `StepRecord` after each step.

    `model` is not changed; the trained weights are the moving average in each record's `model`
    (the same object every time, on the accelerator's device; a copy to keep is `copy.deepcopy`).

    Weights that need no gradient, where others do, are neither copied (but to the device, or into its order in memory), averaged nor
    written into checkpoints: so a large network with LoRA layers costs little more than itself.

    In several processes (`torchrun`, `accelerate launch`) each takes its part of every batch, and the run is the same as in one, up to
    rounding: batches, noise and the risk are those of the whole batch (see `together`).

    With `settings.prior_max` every image has an assumed prior of its own, which the network is told, and the objective gets those
    of S as a third argument, as `risk.amortised_risk` does: one network for every prior. With a `teacher` the loss is
    `imitation_loss`, the distance to what the teacher predicts at x_t (distillation).

    Args:
        model: start weights.
        unlabeled: [n, ...] images.
        objective: maps per-image losses (summed over pixels), and priors if there are, to a scalar; see `pulib.risk`.
        sensitive: [m, ...] images, or None when the objective ignores them.
        checkpoint: a file, or a folder of them (`Checkpoints`); written every `settings.checkpoint_every` steps, at the end, when the loop
            over the records is left, and before Ctrl-C or SIGTERM ends it; resumed from when it exists. Where it cannot be written, as on a
            full disk, the run goes on with a warning, and tries again the next time: to stop would lose the steps since the last one, and
            the trained model is in the records.
        teacher: eps(x_t, t, prior) to imitate; must be on the model's device.
        weights: of each image of U, [n], and of S, [m] (or None): its losses count that many times.

    Raises:
        ValueError: images that are not a float tensor, an empty set, images of U and S that differ in shape, weights that are
            not one number >= 0 for each image, or a batch that several processes cannot share evenly.
        CheckpointError: the file is corrupt, or belongs to another network or other settings.
        FloatingPointError: the risk is not finite, or the weights are not when they are to be saved. A GPU is asked every `CHECK_EVERY` steps
            only, and before anything is saved.
        WriteError: the first checkpoint could not be written where it is asked for, which is tried before the first step.
        MemoryError: one image at a time is too much. A batch that is too large is computed in parts (see `_call`), with a warning; but not in
            several processes.
    """
    _check_images(unlabeled, sensitive)
    weights = _check_weights(weights, unlabeled, sensitive)
    if settings.shared and (sensitive is None or weights is not None or settings.prior_max is not None):
        raise ValueError("settings.shared needs sensitive images, and goes neither with weights nor with prior_max")
    if teacher is not None and settings.prior_max is None:
        raise ValueError("settings.prior_max must be set where a teacher is given; got None")
    accelerator = _accelerator(settings.precision)
    _check_processes(accelerator.num_processes, settings, sensitive)
    device = accelerator.device
    averaged, trained = _copies(model, device)
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, fused=device.type == "cuda")
    start, running = 0, RunningLevels(len(model.schedule))
    if accelerator.num_processes > 1:
        mine = int(digest_of({"u": unlabeled.cpu()} | ({} if sensitive is None else {"s": sensitive.cpu()}))[:12], 16)
        if len(set(accelerator.gather(torch.tensor([mine], device=device)).tolist())) > 1:
            raise ValueError("unlabeled and sensitive must be the same images in all processes, each of which takes its part of a batch; they differ")
    if checkpoint is not None:
        task = _task(model, unlabeled, sensitive, objective, settings, weights)
        accelerator.wait_for_everyone()  # another process may still be writing it
        start = resume(checkpoint, accelerator.is_main_process, trained, averaged, optimizer, settings, task, accelerator.scaler, running)
        starts = accelerator.gather(torch.tensor([start], device=device)).tolist()
        if len(set(starts)) > 1:
            raise CheckpointError(f"all processes must see the same {checkpoint}; they would start after the steps {starts}")
    if start == settings.steps:  # nothing left to do: hand over the finished model
        yield StepRecord(start, torch.full((3,), torch.nan), averaged)
        return
    if checkpoint is not None and accelerator.is_main_process:
        check_writable(checkpoint.at(0) if isinstance(checkpoint, Checkpoints) else Path(checkpoint))
    if settings.compile:
        trained.network.compile()
    trained, optimizer = accelerator.prepare(trained, optimizer)
    trained.train()
    unlabeled = unlabeled.to(device, torch.float32)
    sensitive = None if sensitive is None else sensitive.to(device, torch.float32)
    if settings.shared and sensitive is not None:
        unlabeled = torch.cat([unlabeled, sensitive])  # the deck, put together once
    density = torch.ones(len(model.schedule)) if settings.min_snr is None else min_snr_density(model.schedule, settings.min_snr)
    levels = None
    if settings.cap is not None and sensitive is not None:
        running.to(device)
        levels = running if settings.cap_level == "running" else loss_levels(_plain(_copies(model, device)[0]), unlabeled).__getitem__

    done = saved = start
    at_once = (settings.batch_unlabeled + (0 if sensitive is None else settings.batch_sensitive)) // accelerator.num_processes
    failed = torch.zeros((), dtype=torch.long, device=device)  # the first step whose risk was not finite, or 0

    def check() -> None:
        if first := int(failed):
            named = {"unlabeled": unlabeled, "sensitive": sensitive, "the start model": torch.cat([p.detach().flatten() for p in model.parameters()])}
            found = [name for name, values in named.items() if values is not None and not torch.isfinite(values).all()]
            cause = f" ({' and '.join(found)} held nan or infinity from the start)" if found else ""
            raise FloatingPointError(f"the risk is nan or infinite at step {first}{cause}; lower lr (now {settings.lr}), or check the images for nan")

    def save() -> None:
        """Write the state after the last whole step, unless it is written."""
        nonlocal saved
        check()
        if not all(torch.isfinite(p).all() for p in parameters):
            raise FloatingPointError(f"the weights are nan or infinite after step {done}, and were not saved; lower lr (now {settings.lr}), and go on from before")
        if checkpoint is not None and saved != done and accelerator.is_main_process:
            path = checkpoint.at(done) if isinstance(checkpoint, Checkpoints) else checkpoint
            try:
                save_checkpoint(path, accelerator.unwrap_model(trained), averaged, optimizer, settings, task, done, accelerator.scaler, running)
            except WriteError as error:
                warnings.warn(f"{error}; the run goes on, and its weights are in the model of its records alone", stacklevel=2)
                return
            if isinstance(checkpoint, Checkpoints):
                checkpoint.thin_out()
        saved = done

    def gradient(step: int, at_once: int) -> tuple[Tensor, Tensor, Tensor]:
        """The risk, and the losses on U and S; leaves the gradient of the risk in the weights."""
        nonlocal failed
        loss_u, loss_s, *priors = _losses(trained, model.schedule, density, levels, unlabeled, sensitive, settings, step, teacher, accelerator, at_once)
        loss_u, loss_s = _weighted(loss_u, loss_s, weights, settings, step)
        risk = objective(loss_u, loss_s, *priors)
        failed = torch.where(torch.isfinite(risk.detach()) | (failed > 0), failed, step + 1)
        if device.type == "cpu" or step == start or (step + 1) % CHECK_EVERY == 0:
            check()
        optimizer.zero_grad()
        if settings.budget is None or sensitive is None:
            accelerator.backward(risk * accelerator.num_processes)  # which takes the mean of the processes' gradients; see `together`
        else:
            _backward_within_budget(accelerator, risk, loss_u, loss_s, parameters, settings.budget)
        return risk, loss_u, loss_s

    def gradient_in_memory(step: int) -> tuple[Tensor, Tensor, Tensor]:
        """`gradient`, with fewer images at once from here on where memory does not suffice."""
        nonlocal at_once
        while True:
            means = running.means
            try:
                return gradient(step, at_once)
            except (RuntimeError, MemoryError) as error:
                if accelerator.num_processes > 1 and out_of_memory(error):  # others wait for this one's part of the whole batch
                    raise MemoryError(f"out of memory with {at_once} images at once in each process; take a smaller batch, or more processes") from error
                if at_once == 1 and out_of_memory(error):
                    save()  # nothing of this step is in the weights
                at_once = fewer(at_once, error)
            running.means = means  # as before the step, which begins anew
            optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.empty_cache()

    def any_told(told: bool) -> bool:
        """Asks the other processes, which makes a GPU wait: there only after every tenth step."""
        return (device.type == "cpu" or done % 10 == 0 or done == settings.steps) and bool(accelerator.reduce(torch.tensor(float(told), device=device)) > 0)

    with Stoppable(save, any_told if accelerator.num_processes > 1 else None) as stoppable:
        for step in range(start, settings.steps):
            with stoppable.step():
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, settings)
                risk, loss_u, loss_s = gradient_in_memory(step)
                accelerator.clip_grad_norm_(parameters, settings.clip_norm)
                optimizer.step()
                average(averaged, accelerator.unwrap_model(trained), min(settings.ema, (step + 1) / (step + 10)))
                done = step + 1
                if done % settings.checkpoint_every == 0 or done == settings.steps:
                    save()
                    accelerator.wait_for_everyone()
            yield StepRecord(done, torch.stack([part.detach().mean() for part in (risk, loss_u, loss_s)]), averaged)  # the mean of no loss is nan


def _copies(model: NoisePredictor, device: torch.device) -> tuple[NoisePredictor, NoisePredictor]:
    """The average and the model to train, on the device; they share the weights that are not trained, and `model` knows which are."""
    names = _trainable(model)
    shared = {id(p): nn.Parameter(p.detach().to(device), False) for name, p in model.named_parameters() if name not in names}
    flat = all(p.ndim < 5 for p in model.parameters())  # no other network has such an order
    order: dict[str, Any] = {"memory_format": torch.channels_last} if device.type == "cuda" and flat else {}  # on CPUs it made diffusers' networks 5 % slower
    averaged, trained = (copy.deepcopy(model, dict(shared)).to(device, **order) for _ in range(2))
    for name, p in trained.named_parameters():
        p.requires_grad_(name in names)
    averaged.trainable = names
    return averaged.eval().requires_grad_(False), trained


def _trainable(model: nn.Module) -> frozenset[str]:
    """The names of the weights to train: those that need a gradient; of an average, where none does, those that its run trained."""
    needed = frozenset(name for name, p in model.named_parameters() if p.requires_grad)
    return needed or getattr(model, "trainable", None) or frozenset(name for name, _ in model.named_parameters())


def _fixed(model: nn.Module) -> set[str]:
    """The names of the weights that a run does not change, and no checkpoint holds."""
    return {name for name, p in model.named_parameters() if not p.requires_grad}


def _plain(model: NoisePredictor) -> NoisePredictor | AtPrior:
    """The model as eps_hat(x_t, t): a prior-conditioned one at prior 0, where nothing is kept out."""
    return model if getattr(model.network, "config", {}).get("prior_max") is None else model.at(0.0)


def batch_risk(model: NoisePredictor, unlabeled: Tensor, sensitive: Tensor, t: Tensor, noise: Tensor, prior: float) -> Tensor:
    """R of one batch, a scalar to minimise: `pu_risk` of l on U and on S, from one call of the network.

    (PU diffusion, arXiv 2503.03789, equation 13, with its means taken over the batch.)

    Args:
        model: its weights get the gradient.
        unlabeled, sensitive: images of U [n_u, ...] and of S [n_s, ...].
        t, noise: level int64 [n_u + n_s] and noise [n_u + n_s, ...] of each image, those of U first.
        prior: share of sensitive images in U, in [0, 1).

    Raises:
        ValueError: t or noise has not one row per image, or prior is outside its range.
    """
    n = len(unlabeled) + len(sensitive)
    if len(t) != n or len(noise) != n:
        raise ValueError(f"t and noise must have one row for each of the {n} images; got {len(t)} and {len(noise)}")
    losses = denoising_loss(model, torch.cat([unlabeled, sensitive]), t, noise, model.schedule)
    loss_u, loss_s = losses.split([len(unlabeled), len(sensitive)])
    return pu_risk(loss_u, loss_s, prior)


def loss_levels(model: NoisePredictor | AtPrior, images: Tensor, n_levels: int = 25, n_images: int = 64) -> Tensor:
    """The mean denoising loss at every level 0 … T-1, [T]: measured at `n_levels` levels on the first `n_images` images, linear between.

    Raises:
        ValueError: n_levels or n_images is not a whole number >= 1.
    """
    T = len(model.schedule)
    middles = (np.arange(check_count(n_levels, "n_levels")) + 0.5) / n_levels * T
    levels = torch.from_numpy(middles).long().clamp(max=T - 1)
    means = loss_profile(model, images[: check_count(n_images, "n_images")], levels, model.schedule).mean(1)
    return torch.from_numpy(np.interp(np.arange(T), levels.numpy(), means.cpu().numpy())).float().to(images.device)


class RunningLevels:
    """The level of the losses on U at each t, as a moving average over steps of each of `n_bins` equal parts of 0 … T-1.

    Called with t int64 [n] it gives the level there, [n]: infinite where no loss was seen yet.
    """

    def __init__(self, T: int, n_bins: int = 25, decay: float = 0.95) -> None:
        self.T, self.decay, self.means = T, decay, torch.full((n_bins,), torch.inf)

    def to(self, device: torch.device) -> None:
        """Move the averages to a device."""
        self.means = self.means.to(device)

    def __call__(self, t: Tensor) -> Tensor:
        return self.means[t * len(self.means) // self.T]

    def update(self, t: Tensor, loss: Tensor) -> None:
        """Take in losses [n] at t int64 [n]."""
        bins, n = t * len(self.means) // self.T, len(self.means)
        count = torch.zeros(n, device=loss.device).index_add(0, bins, torch.ones_like(loss))
        mean = torch.zeros(n, device=loss.device).index_add(0, bins, loss.detach()) / count
        moved = torch.where(self.means.isinf(), mean, self.decay * self.means + (1 - self.decay) * mean)
        self.means = torch.where(count > 0, moved, self.means)


def _backward_within_budget(accelerator: Accelerator, risk: Tensor, loss_u: Tensor, loss_s: Tensor, parameters: list, budget: float) -> None:
    """The gradient of a risk, with the part that comes through the losses on S cut to `budget` times the norm of that through U."""
    slope_u, slope_s = torch.autograd.grad(risk, (loss_u, loss_s), allow_unused=True)
    slope_s = torch.zeros_like(loss_s) if slope_s is None else slope_s
    grads = []
    for slope, loss, again in ((slope_s, loss_s, True), (slope_u, loss_u, False)):
        for p in parameters:
            p.grad = None
        accelerator.backward((slope * loss).sum(), retain_graph=again)
        grads.append(torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]))
    kept = within_budget(grads[1], grads[0], budget)
    for p, g in zip(parameters, kept.split([p.numel() for p in parameters])):
        p.grad = torch.empty_like(p).copy_(g.view_as(p))  # in the order in memory that the weight has


def within_budget(grad_u: Tensor, grad_s: Tensor, budget: float) -> Tensor:
    """grad_u + k grad_s with the largest k in [0, 1] at which k ||grad_s|| <= budget ||grad_u||, all [d].

    (SISS scales the gradient that unlearns so that it cannot outweigh the one that learns; Alberti et al. 2025, arXiv 2503.01034.)
    """
    share = (budget * grad_u.norm() / grad_s.norm().clamp(min=1e-12)).clamp(max=1.0)
    return grad_u + share * grad_s


def _weighted(loss_u: Tensor, loss_s: Tensor, weights, settings: Settings, step: int) -> tuple[Tensor, Tensor]:
    """The losses of a batch, each times the weight of its image."""
    if weights is None:
        return loss_u, loss_s
    weight_u, weight_s = weights
    rows_u = batch_rows(len(weight_u), len(loss_u), step, seed=settings.seed * 2)
    loss_u = loss_u * _to(weight_u[rows_u], loss_u.device)
    if weight_s is not None and len(loss_s):
        loss_s = loss_s * _to(weight_s[batch_rows(len(weight_s), len(loss_s), step, seed=settings.seed * 2 + 1)], loss_s.device)
    return loss_u, loss_s


def together(losses: Tensor, accelerator: Accelerator) -> Tensor:
    """The losses of a whole batch, [n], from those of this process, which has every `num_processes`-th image, [n / num_processes].

    A PU risk is no mean over processes: |E_U[l] - prior E_S[l]| needs the means over the whole batch. So each process forms the risk from
    all losses, of which only its own have a gradient; the sum of the gradients over processes is the gradient of the risk.
    """
    if accelerator.num_processes == 1:
        return losses
    parts = list(accelerator.gather(losses.detach()).view(accelerator.num_processes, -1))
    parts[accelerator.process_index] = losses
    return torch.stack(parts, 1).flatten()


def _losses(
    model,
    schedule,
    density: Tensor,
    levels: Callable[[Tensor], Tensor] | None,
    unlabeled,
    sensitive,
    settings: Settings,
    step: int,
    teacher: Teacher | None,
    accelerator: Accelerator,
    at_once: int,
) -> tuple[Tensor, ...]:
    """Per-image losses of this step's batch of U and of S (up to their cap), from one call of the network; and the priors of S if drawn."""
    n = settings.batch_unlabeled
    if settings.shared:
        *parts, n = draw_shared(unlabeled, len(unlabeled) - len(sensitive), settings, step, density)
    else:
        parts = [draw_batch(unlabeled, n, settings, step, 0, density)]
        if sensitive is not None:
            parts.append(draw_batch(sensitive, settings.batch_sensitive, settings, step, 1, density))
    x0, t, noise, prior = (torch.cat(tensors) for tensors in zip(*parts))
    mine = [x[accelerator.process_index :: accelerator.num_processes] for x in (x0, t, noise, prior)]

    def losses_of(x0: Tensor, t: Tensor, noise: Tensor, told: Tensor) -> Tensor:
        at = model if settings.prior_max is None else lambda xt, t: model(xt, t, told)
        if teacher is None:
            return denoising_loss(at, x0, t, noise, schedule)
        return imitation_loss(at, lambda xt, t: teacher(xt, t, told), x0, t, noise, schedule)

    losses = together(_call(losses_of, mine, at_once), accelerator)
    if isinstance(levels, RunningLevels):
        levels.update(t[:n], losses[:n])
    loss_s = losses[n:] if levels is None or settings.cap is None else torch.minimum(losses[n:], settings.cap * levels(t[n:]))
    return losses[:n], loss_s, *([prior[n:]] if settings.prior_max is not None else [])


def _call(losses_of: Callable[..., Tensor], batch: list[Tensor], at_once: int) -> Tensor:
    """The losses of a batch, from parts of `at_once` images of which no activation is kept: the backward pass computes them again, part by part.

    So the risk stays that of the whole batch, which |E_U[l] - prior E_S[l]| needs, and its gradient too, as no image here depends on another.
    (Chen et al. 2016, arXiv 1604.06174, drops the activations of layers in this way.)
    """
    if at_once >= len(batch[0]):
        return losses_of(*batch)
    try:
        return torch.cat([recomputed(losses_of, *part, use_reentrant=False) for part in zip(*(x.split(at_once) for x in batch))])
    except BaseException as error:  # torch 2.9 goes on computing again, whatever is trained, until this frame of its own is gone
        traceback.clear_frames(error.__traceback__)
        raise


def draw_batch(images: Tensor, n: int, settings: Settings, step: int, stream: int, density: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`n` images, timesteps, noises and priors of step `step`; U is stream 0, S is stream 1, so neither disturbs the other."""
    generator = torch.Generator().manual_seed((settings.seed * 2 + stream) * 1_000_003 + step)
    rows = _to(batch_rows(len(images), n, step, seed=settings.seed * 2 + stream), images.device)
    t = draw_timesteps(density, n, generator, settings.stratified)
    noise = torch.randn(n, *images.shape[1:], generator=generator)
    x0 = distort(images[rows], generator, settings.distort) if settings.distort else images[rows]
    prior = draw_priors(n, settings.prior_max or 0.0, generator)
    t, noise, prior = (_to(drawn, images.device) for drawn in (t, noise, prior))
    return x0, t, noise, prior


def _to(drawn: Tensor, device: torch.device) -> Tensor:
    """What was drawn on the CPU on its way to the device; nobody waits until it is there."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)


def draw_shared(deck: Tensor, size: int, settings: Settings, step: int, density: Tensor) -> tuple:
    """As `draw_batch`, from one deck of U (its first `size` images) and S: the images of U, those of S, and how many are of U."""
    total = settings.batch_unlabeled + settings.batch_sensitive
    drawn = draw_batch(deck, total, settings, step, 0, density)
    of_u = batch_rows(len(deck), total, step, seed=settings.seed * 2) < size
    places = [torch.nonzero(chosen).flatten() for chosen in (of_u, ~of_u)]  # found on the CPU: a mask on the device makes it wait
    return *(tuple(x[_to(place, deck.device)] for x in drawn) for place in places), len(places[0])


def draw_priors(n: int, largest: float, generator: torch.Generator | None = None) -> Tensor:
    """Assumed priors for a batch, float [n] in [0, largest]: largest u^2, with u from n equal parts of [0, 1), in random order.

    Stratified like the timesteps. The square puts half of the draws below a quarter of the range, where the true prior is
    thought to be; U and S have the same density, which the risk needs at every prior.

    Raises:
        ValueError: n is no count, or largest is not in [0, 1).
    """
    largest = check_prior(largest, "largest")
    check_count(n, "n", 0)
    u = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    return largest * u[torch.randperm(n, generator=generator)].square()


def batch_rows(size: int, n: int, step: int, seed: int) -> Tensor:
    """Rows int64 [n] of batch `step`: consecutive stretches of one reshuffled deck per epoch of `size` images."""
    first = step * n
    epochs = range(first // size, (first + n - 1) // size + 1)
    deck = torch.cat([_deck(size, seed * 7_919 + e) for e in epochs])
    offset = first - epochs[0] * size
    return deck[offset : offset + n]


@lru_cache(maxsize=8)
def _deck(size: int, seed: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def chance_without_sensitive(n_unlabeled: int, n_sensitive: int, batch: int) -> float:
    """Chance that a batch from one shuffled deck of U and S holds no image of S: why `fit` has a loader for each.

    A batch is `batch` different images, and every choice of them is as likely as any other. C(n_unlabeled, batch) of the
    C(n_unlabeled + n_sensitive, batch) choices hold images of U alone (hypergeometric distribution).

    Raises:
        ValueError: a count is not a whole number >= 1, or the batch is larger than the deck.
    """
    counts = dict(n_unlabeled=n_unlabeled, n_sensitive=n_sensitive, batch=batch)
    u, s, b = (check_count(value, name) for name, value in counts.items())
    if b > u + s:
        raise ValueError(f"batch must be at most {u + s}, the number of all images; got {b}")
    return math.comb(u, b) / math.comb(u + s, b)


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up to `settings.lr`, then a half cosine that ends at 0 after the last step."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * progress)).item())


@torch.no_grad()
def average(averaged: nn.Module, trained: nn.Module, decay: float) -> nn.Module:
    """Move the weights of `averaged` towards those of `trained`: decay averaged + (1 - decay) trained, in place.

    Drawings of the averaged weights are better than those of the last ones (exponential moving average; Ho et al. 2020,
    arXiv 2006.11239, appendix B). Buffers, which no optimiser moves, are copied. `trained` stays as it is, and the
    average takes no part in gradients.

    Returns:
        `averaged`.

    Raises:
        ValueError: decay is not in [0, 1].
    """
    check_share(decay, "decay")
    for slow, fast in zip(averaged.parameters(), trained.parameters()):
        if slow is not fast:  # else it is shared, as it is not trained
            slow.lerp_(fast, 1 - decay)
    for kept, new in zip(averaged.buffers(), trained.buffers()):
        kept.copy_(new)
    return averaged


def _check_weights(weights, unlabeled: Tensor, sensitive: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
    """The weights as float tensors on the CPU, checked against the images."""
    if weights is None:
        return None
    checked = []
    for name, weight, images in zip(("unlabeled", "sensitive"), weights, (unlabeled, sensitive), strict=True):
        if weight is not None and (images is None or weight.shape != images.shape[:1] or not torch.isfinite(weight).all() or (weight < 0).any()):
            n = 0 if images is None else len(images)
            raise ValueError(f"weights of {name} must be one finite number >= 0 for each of the {n} images; got {list(weight.shape)}")
        checked.append(None if weight is None else weight.detach().float().cpu())
    weight_u, weight_s = checked
    if weight_u is None:
        raise ValueError("weights of unlabeled must be given; use weights=None for none at all")
    return weight_u, weight_s


def _check_processes(n: int, settings: Settings, sensitive: Tensor | None) -> None:
    batch = settings.batch_unlabeled + (settings.batch_sensitive if sensitive is not None else 0)
    if batch % n:
        raise ValueError(f"batch_unlabeled (and batch_sensitive, where there is S) must add up to a multiple of the {n} processes; got {batch}")
    if n > 1 and settings.budget is not None:
        raise ValueError(f"budget must be None in several processes, as it needs the whole gradient twice; got {settings.budget!r} in {n}")


def _check_images(unlabeled: Tensor, sensitive: Tensor | None) -> None:
    for name, images in (("unlabeled", unlabeled), ("sensitive", sensitive)):
        if images is not None and not (isinstance(images, Tensor) and images.is_floating_point()):
            kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"{name} must be a float tensor of images, about [-1, 1]; got {kind}")
    if len(unlabeled) == 0:
        raise ValueError("unlabeled is empty; it must hold at least one image")
    if sensitive is None:
        return
    if len(sensitive) == 0:
        raise ValueError("sensitive is empty; pass None when the objective does not use it")
    if unlabeled.shape[1:] != sensitive.shape[1:]:
        raise ValueError(
            f"unlabeled and sensitive must have images of one shape; got {tuple(unlabeled.shape[1:])} "
            f"and {tuple(sensitive.shape[1:])}"
        )


def processes() -> PartialState:
    """The processes that train together (`torchrun`, `accelerate launch`), or the one; one of them may prepare for hours while others wait."""
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(hours=12))


def best_precision() -> str:
    """What "auto" is here: "bf16" where a CUDA device has it, otherwise "no"."""
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False) else "no"


def device() -> torch.device:
    """Where `fit` trains: a CUDA or Apple GPU if there is one, otherwise the CPU."""
    return _accelerator("no").device


def _accelerator(precision: str) -> Accelerator:
    processes()
    AcceleratorState._reset_state(reset_partial_state=False)  # one process may train in several precisions
    if precision == "auto":
        precision = best_precision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Accelerator(mixed_precision=precision, cpu=not torch.accelerator.is_available())  # several processes on CPUs need to be told


# ------------------------------------------------------------------------------- checkpoints and weights


class CheckpointError(DataError):
    """A checkpoint or weights file is corrupt, or belongs to another network or other settings."""


def save_checkpoint(path, model: nn.Module, averaged: nn.Module, optimizer, settings: Settings, task: dict, step: int, scaler=None, levels=None) -> None:
    """Write the trained weights, their average, the optimiser's state, the running levels and the step to one safetensors file, atomically."""
    fixed = _fixed(model)
    tensors = {f"{part}.{k}": v for part, module in (("model", model), ("ema", averaged)) for k, v in module.state_dict().items() if k not in fixed}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
    tensors |= {} if levels is None else {"levels": levels.means}
    facts = {"step": step, "settings": asdict(settings), "scaler": scaler.state_dict() if scaler else None, **task}
    write_tensors(Path(path), tensors, facts)


def resume(checkpoint, first: bool, *run) -> int:
    """Fill what `load_checkpoint` fills, from a file, or from the newest whole one of `Checkpoints`; the step, 0 where there is none.

    Raises:
        DataError: the file cannot be read.
        CheckpointError: as `load_checkpoint`; a damaged file of several is passed over with a warning, and set aside by the `first` process,
            unless all are damaged.
    """
    files = checkpoint.newest() if isinstance(checkpoint, Checkpoints) else [path for path in [Path(checkpoint)] if os.path.lexists(path)]
    damaged = []
    for path in files:
        try:
            content = read_tensors(read_file(path), path)
        except DataError as error:
            if os.path.lexists(path):  # else another run of this folder has thinned it out
                damaged.append((path, error))
            continue
        for other, fault in damaged:
            pass_over(other, fault, first)
        return load_checkpoint(path, *content, *run)
    if damaged:
        raise damaged[0][1]
    return resume(checkpoint, first, *run) if files else 0


def load_checkpoint(
    path: Path,
    tensors: dict[str, Tensor],
    facts: dict,
    model: nn.Module,
    averaged: nn.Module,
    optimizer,
    settings: Settings,
    task: dict,
    scaler=None,
    levels=None,
) -> int:
    """Fill `model`, `averaged`, `optimizer` and the running `levels` from a checkpoint's tensors and facts; the step it was written after.

    Raises:
        CheckpointError: see the class.
    """
    if "settings" not in facts:
        raise CheckpointError(f"{path} holds weights, not a training checkpoint")
    ours, theirs = asdict(settings), asdict(Settings(1)) | facts["settings"]  # older files lack later settings, which were at their defaults
    differing = [k for k in ours if k != "checkpoint_every" and ours[k] != theirs.get(k)]
    if differing:
        shown = ", ".join(f"{k} {theirs.get(k)!r} there, {ours[k]!r} here" for k in differing)
        raise CheckpointError(f"{path} was written with other settings ({shown}); use another path, or those settings")
    for key, ours in task.items():
        if facts.get(key) != ours:
            raise CheckpointError(f"{path} belongs to another {key}: {facts.get(key)} there, {ours} here; use another path, or delete it")
    fixed = _fixed(model)
    fill_weights(model, _under(tensors, "model."), path, fixed)
    fill_weights(averaged, _under(tensors, "ema."), path, fixed)
    state = optimizer.state_dict()
    for key, value in _under(tensors, "adam.").items():
        index, name = key.split(".")
        state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)
    for p, kept in optimizer.state.items():  # in the order in memory that the weight has, which a fused optimiser takes for granted
        for name, value in kept.items():
            if name != "step" and value.shape == p.shape:
                kept[name] = torch.empty_like(p).copy_(value)
    if levels is not None and "levels" in tensors:
        levels.means = tensors["levels"]
    if scaler and facts["scaler"]:
        scaler.load_state_dict(facts["scaler"])
    return facts["step"]


def _task(model: NoisePredictor, unlabeled: Tensor, sensitive: Tensor | None, objective: Objective, settings: Settings, weights=None) -> dict:
    """What a run is about and no weight tells: how the output is read, the data and their weights, the objective by two of its
    values, and the start model where a cap takes its limits from it."""
    images = {"u": unlabeled.detach().cpu()} | ({} if sensitive is None else {"s": sensitive.detach().cpu()})
    images |= {f"weights {i}": weight for i, weight in enumerate(weights or ()) if weight is not None}
    probes = [  # the difference of the PU risk is positive at the first and negative at the second
        (torch.linspace(9, 50, 8), torch.linspace(2, 40, 8)),
        (torch.full((8,), 0.5), torch.full((8,), 90.0)),
    ]
    priors = [torch.linspace(0, settings.prior_max, 8)] if settings.prior_max is not None else []
    values = [float(objective(u, s if sensitive is not None else s[:0], *priors)) for u, s in probes]
    trainable = _trainable(model)
    fixed = {name: p.detach().cpu() for name, p in model.named_parameters() if name not in trainable}
    task = {
        "model (prediction, schedule's length and sum)": [
            model.prediction,
            len(model.schedule),
            round(model.schedule.beta.double().sum().item(), 6),
        ],
        "data (digest)": digest_of(images)[:12],
        "objective (two values)": [round(value, 4) for value in values],
    }
    if settings.cap is not None and settings.cap_level == "start":
        task["start (digest)"] = digest_of({k: v.detach().cpu() for k, v in model.state_dict().items()})[:12]
    if fixed:
        task["weights that are not trained (digest)"] = digest_of(fixed)[:12]
    return task


def new_model(
    widths: tuple[int, int] = (32, 96),
    prediction: Prediction = "v",
    schedule: str = "cosine",
    T: int = 1000,
    seed: int = 0,
    prior_max: float | None = None,
) -> NoisePredictor:
    """The course's network with fresh weights drawn from `seed`; conditioned on the assumed prior up to `prior_max` if given.

    Raises:
        ValueError: an argument outside its range; schedule must be "cosine" or "linear".
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {sorted(SCHEDULES)}; got {schedule!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(check_seed(seed))
        return NoisePredictor(UNet(1, widths, prior_max), SCHEDULES[schedule](T), prediction)


def conditioned(model: NoisePredictor, prior_max: float, seed: int = 0) -> NoisePredictor:
    """A prior-conditioned model that starts as `model` at every assumed prior in [0, prior_max]; its embedding is drawn from `seed`.

    Raises:
        ValueError: the network is not a `UNet`, or is conditioned already; prior_max is not in (0, 1).
    """
    if not isinstance(model.network, UNet) or model.network.config["prior_max"] is not None:
        raise ValueError("model must hold a UNet without prior_max, so that an embedding can be added to it")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(check_seed(seed))
        network = UNet(**(model.network.config | {"prior_max": prior_max}))
    network.load_state_dict(model.network.state_dict(), strict=False)
    return NoisePredictor(network, model.schedule, model.prediction)


def save_weights(path: Path | str, model: nn.Module, /, **facts: object) -> None:
    """Write a model's weights as safetensors, with `facts` (JSON values) in the header, atomically."""
    write_tensors(Path(path), model.state_dict(), facts)


def load_base(normal: str = "even") -> NoisePredictor:
    """The shipped model trained on all of U of `load_pu(normal)`: sensitive images included.

    Measure it on that split alone: the U of another seed or prior shares images with what is held out there.

    Raises:
        DataError: the weights file is missing or corrupt.
        ValueError: normal is neither "even" nor "odd".
    """
    return _load_shipped(f"weights/base_{check_normal(normal)}.safetensors")


def load_conditioned(normal: str = "even", wide: bool = False) -> NoisePredictor:
    """The shipped prior-conditioned model, for every assumed prior in [0, 0.3], of the U of `load_pu(normal)`.

    With `wide` that for every one in [0, 0.6], of the U of `load_pu("even", prior=0.3)`; there is none for "odd".

    Raises:
        DataError: the weights file is missing or corrupt.
        ValueError: normal is neither "even" nor "odd", or not "even" where `wide` is set.
    """
    if wide and check_normal(normal) != "even":
        raise ValueError(f"normal must be 'even' for the wide network, the only one that is shipped; got {normal!r}")
    return _load_shipped(f"weights/prior_{check_normal(normal)}{'_wide' if wide else ''}.safetensors")


def load_oracle(normal: str = "even") -> NoisePredictor:
    """The shipped model trained like `load_base`'s, but on the normal images of U alone, which takes the hidden labels.

    Raises:
        DataError: the weights file is missing or corrupt.
        ValueError: normal is neither "even" nor "odd".
    """
    return _load_shipped(f"weights/oracle_{check_normal(normal)}.safetensors")


def _load_shipped(name: str) -> NoisePredictor:
    tensors, facts = read_tensors(read_verified(name), DATA / name)
    model = new_model(**facts["model"])
    fill_weights(model, tensors, DATA / name)
    return model


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict) -> None:
    """Write named tensors and facts (JSON values) as safetensors with their digest, atomically; `read_tensors` reads them."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    text = json.dumps(facts)
    header = {"facts": text, "facts_digest": digest_of({}, text), "digest": digest_of(tensors)}
    write_atomic(path, save_tensors(tensors, metadata=header))


def read_tensors(content: bytes, path: Path | str) -> tuple[dict[str, Tensor], dict]:
    """Tensors and facts of a file that `save_weights` or `save_checkpoint` wrote; its digest is checked."""
    try:
        tensors = load_tensors(content)
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        facts_digest = digest_of({}, header["facts"])
        intact = header["digest"] == digest_of(tensors) and header.get("facts_digest", facts_digest) == facts_digest
        facts = json.loads(header["facts"])
        if not isinstance(facts, dict):
            raise ValueError("its facts are no object")
    except (safetensors.SafetensorError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is corrupt or not a pulib safetensors file ({error}); delete it or restore it") from error
    if not intact:
        raise CheckpointError(f"{path} is corrupt: its content differs from its digest; delete it or restore it")
    return tensors, facts


def digest_of(tensors: dict[str, Tensor], text: str = "") -> str:
    """SHA-256 of named tensors on the CPU and a text, as hexadecimal text."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)  # bytes, as numpy knows no bfloat16
    return digest.hexdigest()


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def fill_weights(module: nn.Module, tensors: dict[str, Tensor], path: Path | str, fixed: set[str] | frozenset[str] = frozenset()) -> None:
    """Fill a module's weights, all but those named in `fixed`, from a file's tensors.

    Raises:
        CheckpointError: names or shapes differ.
    """
    expected = {k: tuple(v.shape) for k, v in module.state_dict().items() if k not in fixed}
    found = {k: tuple(v.shape) for k, v in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"{path} belongs to another architecture: {name} is {found.get(name, 'absent')} there, "
                f"{expected.get(name, 'absent')} in this network"
            )
    module.load_state_dict(tensors, strict=not fixed)
