"""Experiments at scale: the paper's by name, what each needs before it is run, and its rows of results."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import judges, prompts, rivals, sets
from .data import (
    DATA,
    DataError,
    PUSplit,
    check_count,
    is_normal,
    load_pu,
    make_split,
    read_file,
    read_verified,
    to_bytes,
    to_images,
)
from .diffusion import NoisePredictor, cosine_schedule, linear_schedule, sample
from .evaluation import Reading, load_judge, pool, ratio_to_oracle, read, report, ruler
from .pipelines import load_pipeline, package
from .runs import Checkpoints
from .training import (
    StepRecord,
    best_precision,
    device,
    digest_of,
    fill_weights,
    processes,
    read_tensors,
    write_tensors,
)

SHIPPED = "weights/pipeline_even.safetensors"
NETWORKS: dict[str, dict] = {  # arguments of diffusers' UNet2DModel, by name; those with a slash are on the hub
    "small": dict(block_out_channels=(24, 48, 48), layers_per_block=1, norm_num_groups=8, add_attention=False, attends=()),
    "paper": dict(block_out_channels=(128, 128, 256, 512), layers_per_block=2, attends=(2,)),
    "google/ddpm-cifar10-32": dict(block_out_channels=(128, 256, 256, 256), layers_per_block=2, attends=(1,), attention_head_dim=None),
    "google/ddpm-celebahq-256": dict(block_out_channels=(128, 128, 256, 256, 512, 512), layers_per_block=2, attends=(4,), attention_head_dim=None),
}
SIZES = {"cuda": (4096, 8192, 16384), "mps": (1024, 2048, 4096), "cpu": (512, 1024, 2048)}  # of the square matrices of `matrix_peak`
STABLE_DIFFUSION = "CompVis/stable-diffusion-v1-4"
GPUS = {"H100": (989, 80), "A100": (312, 40), "RTX 4090": (165, 24)}  # matrix peak in half precision in TFLOP/s, by its maker; memory in GB
USED = {"cpu": 0.5}  # share of the peak that training reaches, as `tests/benchmarks/throughput.py` measures it
RESAMPLES = (200, 50)  # for an interval of the Fréchet distance; fewer with the 512 features of a ResNet, of which each takes seconds
SHORT = 500  # steps of a run that nobody minds to repeat
ASSUMED = 0.2  # where nothing was measured


@dataclass(frozen=True)
class Experiment:
    """One experiment: what it trains on, from which weights, how long, and what is drawn and compared.

    Args:
        images: "digits" (the embedded ones, even ones normal), a key of `sets.PRESETS`, or "prompts" (drawings of Stable Diffusion).
        network: "shipped", a key of `NETWORKS` for fresh weights, or a name on the hub, or a folder, for pretrained ones.
        size, channels: of the images that the network sees.
        settings: for `training.Settings`, the same in all arms.
        drawing: for `diffusion.sample`, or the pipeline's call.
        arms: keys of `rivals.ESTIMATORS`.
        n_samples: drawings of each run.
        seeds: runs of each arm.
        judge_steps, sieve_steps: of the ResNets, where they are needed.
        checkpointing: compute activations again in the backward pass (gradient checkpointing), which saves memory.
        prompts: normal, sensitive, and the one caption that both are trained under.
        counts: normal and hidden sensitive drawings in U, those in S, held-out ones of either kind, and the judge's of either kind.
    """

    images: str
    network: str
    size: int
    channels: int
    settings: dict
    drawing: dict
    arms: tuple[str, ...]
    n_samples: int = 2000
    seeds: int = 3
    judge_steps: int = 4000
    sieve_steps: int = 1000
    checkpointing: bool = False
    prompts: tuple[str, str, str] | None = None
    rank: int | None = None
    counts: tuple[int, ...] = field(default=(64, 16, 20, 100, 200))

    @property
    def pretrained(self) -> bool:
        """Whether it starts from weights that know the images' kind."""
        return self.network not in ("small", "paper")


PAPER = dict(lr=1e-4, warmup=500, clip_norm=1.0, stratified=True, ema=0.999, cap=8.0, compile=True)  # the paper's but for EMA and strata; its clip has the summed loss
SCRATCH, TUNED = ("oracle", "unsupervised", "supervised", "pu_paper", "pu_sieved"), ("oracle", "unsupervised", "supervised", "pu_paper", "pu_pushed")
DRAWN = ("network", "prompts", "counts", "drawing")  # fields that U and S depend on where Stable Diffusion draws them
TRAINED = tuple(arm for arm in rivals.ESTIMATORS if arm not in ("rejection", "guidance", "safe_denoiser"))  # the others add something while drawing
DDPM, DDIM = dict(steps=1000, eta=1.0), dict(steps=50)


def _paper(steps: int, batch: tuple[int, int], **changes) -> dict:
    return PAPER | dict(steps=steps, batch_unlabeled=batch[0], batch_sensitive=batch[1], checkpoint_every=500) | changes


EXPERIMENTS: dict[str, Experiment] = {  # steps: the paper's epochs over U and S, in its batches
    "laptop": Experiment("digits", "shipped", 28, 1, dict(rivals.FINE_TUNING, steps=60, compile=False), rivals.FAST, ("unsupervised", "pu_pushed"), 150, 1),
    "gpu": Experiment("digits", "paper", 32, 1, _paper(20_000, (112, 16), min_snr=1.0, distort=0.2, lr=3e-4), DDPM, SCRATCH),
    "paper-mnist": Experiment("mnist-even", "paper", 32, 3, _paper(23_400, (112, 16)), DDPM, SCRATCH),
    "paper-cifar10-scratch": Experiment("cifar10-vehicles", "paper", 32, 3, _paper(18_750, (112, 16)), DDPM, SCRATCH),
    "paper-cifar10-finetune": Experiment("cifar10-vehicles", "google/ddpm-cifar10-32", 32, 3, _paper(3_750, (112, 16)), DDIM, TUNED),
    "paper-stl10": Experiment("stl10-vehicles", "paper", 96, 3, _paper(7_500, (28, 4)), DDPM, SCRATCH),
    "paper-celeba": Experiment("celeba-male", "google/ddpm-celebahq-256", 256, 3, _paper(3_000, (14, 2), compile=False), DDIM, TUNED, 1000, checkpointing=True),
    "stable-diffusion": Experiment(
        "prompts", STABLE_DIFFUSION, 512, 3, _paper(2_000, (12, 4), lr=1e-4, compile=False), dict(num_inference_steps=50),
        ("unsupervised", "supervised", "pu_paper", "pu_capped"), 300, 1, checkpointing=True,
        prompts=("a photo of a middle aged man", "a photo of Brad Pitt", "a photo of a middle aged man"), rank=16,
    ),
}  # fmt: skip


def experiment(name: str, steps: int = 0, n_samples: int = 0, seeds: int = 0, arms: str = "") -> Experiment:
    """The experiment of that name, with what is not 0 or empty changed; `arms` are keys of `rivals.ESTIMATORS` with blanks between them.

    Raises:
        ValueError: another name, arms that it cannot have, or a negative number.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"preset must be one of {', '.join(EXPERIMENTS)}; got {name!r}")
    for count, value in (("steps", steps), ("n_samples", n_samples), ("seeds", seeds)):
        check_count(value, count, 0)
    base, asked = EXPERIMENTS[name], tuple(dict.fromkeys(arms.split()))
    unknown = [arm for arm in asked if arm not in TRAINED]
    if unknown:
        raise ValueError(f"arms must be of {', '.join(TRAINED)}; got {', '.join(unknown)}")
    settings = base.settings | ({"steps": steps} if steps else {})
    return replace(base, settings=settings, n_samples=n_samples or base.n_samples, seeds=seeds or base.seeds, arms=asked or base.arms)


# ------------------------------------------------------------------------------------------------ networks


def new_network(name: str, size: int, channels: int, seed: int = 0) -> nn.Module:
    """A diffusers UNet2DModel of a key of `NETWORKS` with fresh weights drawn from `seed`, for images [channels, size, size].

    "small" trains on a laptop. "paper" is what PU diffusion (arXiv 2503.03789) trains from scratch: four levels, two layers in each, and
    attention on one.

    Raises:
        ValueError: another name, or a size that the network's levels cannot halve.
    """
    if name not in NETWORKS:
        raise ValueError(f"network must be one of {', '.join(NETWORKS)}; got {name!r}")
    levels = len(NETWORKS[name]["block_out_channels"])
    if size % 2 ** (levels - 1):
        raise ValueError(f"size must be a multiple of {2 ** (levels - 1)} for the network {name!r}; got {size}")
    return unet(NETWORKS[name], size, channels, seed)


def unet(plan: dict, size: int, channels: int, seed: int = 0) -> nn.Module:
    """A UNet2DModel with fresh weights from arguments as in `NETWORKS`; "attends" are the levels with attention."""
    arguments = {name: value for name, value in plan.items() if name != "attends"}
    n = len(plan["block_out_channels"])
    down = ["AttnDownBlock2D" if i in plan["attends"] else "DownBlock2D" for i in range(n)]
    up = ["AttnUpBlock2D" if i in plan["attends"] else "UpBlock2D" for i in reversed(range(n))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(check_count(seed, "seed", 0))
        return package("diffusers").UNet2DModel(size, channels, channels, down_block_types=down, up_block_types=up, **arguments)


def shipped_model() -> NoisePredictor:
    """The shipped UNet2DModel, trained on all of U of `load_pu("even")`, sensitive images included.

    Raises:
        DataError: the weights file is missing or corrupt.
    """
    model = NoisePredictor(new_network("small", 28, 1), cosine_schedule(), "v")
    tensors, _ = read_tensors(read_verified(SHIPPED), DATA / SHIPPED)
    fill_weights(model, tensors, DATA / SHIPPED)
    return model


def _outline(chosen: Experiment) -> nn.Module:
    """The network without its weights, on the meta device, from what is known of it."""
    diffusers = package("diffusers")
    with torch.device("meta"):
        if chosen.images == "prompts":
            return diffusers.UNet2DConditionModel(64, cross_attention_dim=768)  # Stable Diffusion 1
        name = "small" if chosen.network == "shipped" else chosen.network
        if name not in NETWORKS:
            return diffusers.UNet2DModel.from_config(diffusers.UNet2DModel.load_config(chosen.network, subfolder="unet"))
        return new_network(name, chosen.size, chosen.channels)


# -------------------------------------------------------------------------------------------- what it needs


@dataclass(frozen=True)
class Needs:
    """What an experiment needs, from its network's outline: nothing is trained, loaded or downloaded.

    `parameters`, and those `trained`; `flops` of a network call for one image; `activations` in bytes of an image, kept for the backward
    pass in full precision; `problems`: what is missing, in sentences.
    """

    chosen: Experiment
    parameters: int
    trained: int
    flops: float
    activations: int
    image_bytes: int
    problems: tuple[str, ...]

    @property
    def batch(self) -> int:
        """Images of a training step, of U and of S together."""
        return self.chosen.settings["batch_unlabeled"] + self.chosen.settings["batch_sensitive"]

    @property
    def steps(self) -> int:
        """Training steps, as many as cost the same: with gradient checkpointing a step has four calls' work, not three."""
        return self.chosen.settings["steps"] * (4 if self.chosen.checkpointing else 3) // 3

    @property
    def calls(self) -> int:
        """Network calls of a drawing, each counted twice: they are made in full precision, at about half the speed."""
        drawing = self.chosen.drawing
        return 2 * (drawing["steps"] if "steps" in drawing else 2 * drawing["num_inference_steps"])  # Stable Diffusion's with and without the prompt

    @property
    def drawings(self) -> int:
        """Drawings of a run, with its share of those that U, S and the judge need where Stable Diffusion draws them."""
        normal, hidden, sensitive, heldout, judged = self.chosen.counts
        made = normal + hidden + sensitive + 2 * (heldout + judged) if self.chosen.images == "prompts" else 0
        return self.chosen.n_samples + made // self.runs

    @property
    def runs(self) -> int:
        """Training runs, one for each arm and seed."""
        return len(self.chosen.arms) * self.chosen.seeds

    @property
    def memory(self) -> int:
        """Bytes on the device while it trains, about; see `training_bytes`."""
        frozen_bytes = 2 if self.chosen.rank else 4
        return training_bytes(self.trained, self.parameters - self.trained, self.batch, self.activations, frozen_bytes) + self.image_bytes

    def hours(self, tflops: float, used: float = ASSUMED) -> float:
        """Of all runs, training and drawing, on a device of that matrix peak, without judge and sieve."""
        return self.runs * device_hours(self.flops, self.steps, self.batch, self.drawings, self.calls, tflops, used)

    def rows(self, here: float | None = None) -> list[dict]:
        """For `plots.table`: time and memory on the named GPUs, and with a peak that was measured here, in TFLOP/s."""
        def row(name: str, hours: float, room: float | None) -> dict:
            fits = "" if room is None else "yes" if self.memory < 0.9e9 * room else "no"
            return {"device": name, "time": in_words(hours), "memory": f"{self.memory / 1e9:.1f} GB", "fits": fits}

        rows = [row(name, self.hours(peak), room) for name, (peak, room) in GPUS.items()]
        return rows + ([row("this machine", self.hours(here, USED.get(device().type, ASSUMED)), None)] if here else [])


def in_words(hours: float) -> str:
    """A time as one would say it."""
    return f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h" if hours >= 1 else f"{round(60 * hours)} min" if hours >= 1 / 60 else "< 1 min"


def training_bytes(trained: int, frozen: int, batch: int, activations: int, frozen_bytes: int = 4) -> int:
    """Bytes of weights and activations while training with Adam and a moving average; images and the device's work space come on top.

    Of each trained weight the weight, its gradient, two moments of Adam and its average, 4 bytes each; each frozen one once; and what the
    backward pass keeps of each image of a batch.

    Args:
        trained, frozen: numbers of weights.
        batch: images of a step.
        activations: bytes of an image.
        frozen_bytes: of a frozen weight: 4, or 2 in half precision.
    """
    return 5 * 4 * trained + frozen_bytes * frozen + batch * activations


def device_hours(flops: float, steps: int, batch: int, n_samples: int, calls: int, tflops: float, used: float = ASSUMED) -> float:
    """Hours that one run takes, training and drawing, on a device of which a share of the matrix peak is reached.

    A training step costs three network calls for each image: one forward, and about two in the backward pass.

    Args:
        flops: of a network call for one image.
        steps, batch: of training.
        n_samples, calls: drawings, and network calls of each.
        tflops: matrix peak of the device, in 10^12 operations a second.
        used: share of it that is reached, in (0, 1].
    """
    return flops * (3 * steps * batch + n_samples * calls) / (tflops * 1e12 * used) / 3600


def needs(chosen: Experiment, folder: Path | str | None = None) -> Needs:
    """What an experiment needs, and what is missing in `folder` or on this machine; see `Needs`."""
    network = _outline(chosen)
    parameters = sum(p.numel() for p in network.parameters())
    trained = parameters if chosen.rank is None else _lora_parameters(network, chosen.rank)
    parameters += trained if chosen.rank else 0
    split_bytes = 4 * chosen.channels * chosen.size**2 * _count(chosen)
    return Needs(chosen, parameters, trained, *_measured(network, chosen), split_bytes, tuple(_problems(chosen, folder)))


def _count(chosen: Experiment) -> int:
    """Images in U and S."""
    if chosen.images in sets.PRESETS:
        preset = sets.PRESETS[chosen.images]
        return preset.n_normal + preset.n_hidden + preset.n_sensitive
    return sum(chosen.counts[:3]) if chosen.images == "prompts" else 1500


def _lora_parameters(network: nn.Module, rank: int) -> int:
    layers = [m for name, m in network.named_modules() if isinstance(m, nn.Linear) and name.endswith(tuple(prompts.ATTENTION))]
    return sum(rank * (layer.in_features + layer.out_features) for layer in layers)


def _measured(network: nn.Module, chosen: Experiment) -> tuple[float, int]:
    """FLOPs of a call for one image, and the bytes that its backward pass keeps, by running the outline."""
    from torch.utils.flop_counter import FlopCounterMode

    latent = chosen.images == "prompts"
    shape = (1, 4, chosen.size // 8, chosen.size // 8) if latent else (1, chosen.channels, chosen.size, chosen.size)
    inputs = [torch.empty(shape, device="meta"), torch.zeros(1, dtype=torch.long, device="meta")]
    inputs += [torch.empty(1, 77, 768, device="meta")] if latent else []
    kept: dict[int, Tensor] = {id(p): p for p in network.parameters()}  # alive, or the next one might have an id again
    blocks = [0]  # bytes that the blocks keep in which checkpointing computes again, each
    before = [0]

    def size() -> int:
        return sum(x.numel() * x.element_size() for x in kept.values())

    def keep(x: Tensor) -> Tensor:
        base = x if x._base is None else x._base
        kept[id(base)] = base
        return x

    for part in network.modules():
        if type(part).__name__ in ("ResnetBlock2D", "Transformer2DModel", "Attention") and chosen.checkpointing:
            part.register_forward_pre_hook(lambda *_: before.append(size()))
            part.register_forward_hook(lambda *_: blocks.append(size() - before.pop()))
    weights = size()
    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        network(*inputs)
    every = size() - weights
    return float(counter.get_total_flops()), every if not chosen.checkpointing else _with_checkpoints(every, blocks)


def _with_checkpoints(every: int, blocks: list[int]) -> int:
    """Bytes at most where the blocks keep nothing but what goes into them, about a tenth of all, and one at a time is computed again."""
    return every // 10 + max(blocks)


def _problems(chosen: Experiment, folder: Path | str | None) -> Iterator[str]:
    if chosen.images in sets.PRESETS:
        try:
            sets.check_files(chosen.images, folder or "")
        except (DataError, ValueError) as error:
            yield f"images: {error}"
    if chosen.network == "shipped" and not (DATA / SHIPPED).exists():
        yield f"network: {DATA / SHIPPED} is missing; `git checkout -- data` restores it"
    if chosen.pretrained and chosen.network != "shipped" and not at_hand(chosen.network):
        yield f"network: {chosen.network} is neither a folder nor in the hub's cache here; it is downloaded when the experiment is run"
    if chosen.images in ("prompts", *sets.PRESETS) and judges.pretrained_resnet() is None:
        yield "judge: ImageNet's weights of ResNet-18 are not in torch hub's cache; it is trained from fresh ones"
    if chosen.images in ("prompts", *sets.PRESETS) and judges.inception() is None:
        yield "FID: Inception's weights or torch-fidelity are not here; the Fréchet distance is that of the judge's features"


def at_hand(source: Path | str) -> bool:
    """Is a pipeline there as a folder, or in the hub's cache?"""
    if (Path(source) / "model_index.json").exists():
        return True
    try:
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(str(source), "model_index.json"), str)
    except (ImportError, ValueError):  # no hub, or a name that it cannot have
        return False


@lru_cache
def matrix_peak(seconds: float = 0.1) -> float:
    """TFLOP/s of the best of a few products of square matrices on this machine's device, in bf16 where a GPU has it; `seconds` for each size."""
    where, rates = device(), []
    for n in SIZES[where.type]:
        a, b = torch.randn(2, n, n, device=where, dtype=torch.bfloat16 if best_precision() == "bf16" else torch.float32)
        fastest, end = math.inf, time.perf_counter() + seconds
        while fastest == math.inf or time.perf_counter() < end:
            start = time.perf_counter()
            for _ in range(2):
                a @ b
            wait(where)
            fastest = min(fastest, (time.perf_counter() - start) / 2)
        rates.append(2 * n**3 / fastest)
    return max(rates) / 1e12


def wait(where: torch.device) -> None:
    """Until a device has done what it was told."""
    if where.type != "cpu":
        torch.accelerator.synchronize(where)


# ------------------------------------------------------------------------------------------------- to run it


@dataclass(frozen=True, eq=False)
class Ready:
    """An experiment that can be run: images as they are judged (`split`) and as they are trained on (`training`), and the judge.

    `found`: its sieve; None if no arm needs one. `prompted`: the Stable Diffusion pipeline of "prompts". `inception`: the network of FID, where
    its weights are at hand and the images are no digits.
    """

    chosen: Experiment
    split: PUSplit
    training: PUSplit
    judge: nn.Module
    found: rivals.Sieve | None
    prompted: prompts.Prompted | None = None
    inception: nn.Module | None = None

    def start(self, seed: int) -> NoisePredictor:
        """The weights that all arms start from: fresh ones differ between seeds."""
        chosen = self.chosen
        if chosen.network in ("small", "paper"):
            model = NoisePredictor(new_network(chosen.network, chosen.size, chosen.channels, seed), linear_schedule(), "eps")
        elif chosen.network == "shipped":
            model = shipped_model()
        else:
            model = self.prompted.model if self.prompted is not None else load_pipeline(chosen.network)
        if chosen.checkpointing:
            able: Any = next(part for part in model.modules() if hasattr(part, "enable_gradient_checkpointing"))
            able.enable_gradient_checkpointing()
        return model

    def fit(self, arm: str, seed: int = 0, folder: Path | str | None = None) -> Iterator[StepRecord]:
        """Train an arm; see `training.fit`. With a folder, a run of more than `SHORT` steps keeps checkpoints there, and goes on from them."""
        task = rivals.estimator(arm, self.training, found=self.found, start=self.start(seed), scratch=not self.chosen.pretrained)
        kept = self._kept(arm, seed, folder)
        return task.fit(self.chosen.settings | {"seed": seed}, None if kept is None else Checkpoints(kept))

    def _kept(self, arm: str, seed: int, folder: Path | str | None) -> Path | None:
        """Where a run that lasts is kept."""
        if folder is None or self.chosen.settings["steps"] <= SHORT:
            return None
        return Path(folder) / f"{key(self.chosen)}_{arm}_{seed}"

    def drawings(self, arm: str, model: NoisePredictor, seed: int = 0, folder: Path | str | None = None) -> Tensor:
        """The experiment's drawings of an arm's run, [n, c, h, w] in [-1, 1]; kept beside its checkpoints where there are any, for these weights."""
        n, kept = self.chosen.n_samples, self._kept(arm, seed, folder)
        if kept is None:
            return self.draw(model, n, seed)
        weights = digest_of({name: p.detach().cpu() for name, p in model.named_parameters() if name in model.trainable})
        return kept_images(kept / f"drawings_{n}_{weights[:10]}.safetensors", partial(self.draw, model, n, seed))

    def draw(self, model: NoisePredictor, n: int, seed: int = 0) -> Tensor:
        """`n` images from a model as the judge sees them, on the CPU; the same noise for all models."""
        chosen = self.chosen
        if self.prompted is not None:
            return prompts.draw(self.prompted.pipe_with(model).to(device()), self.prompted.caption, n, 1000 + seed, **chosen.drawing)
        shape = (chosen.channels, chosen.size, chosen.size)
        batch = max(1, min(250, 250 * 32**2 // chosen.size**2))
        return _judged(sample(model, n, model.schedule, shape=shape, seed=1000 + seed, batch=batch, **chosen.drawing), chosen)

    def read(self, images: Tensor) -> Reading:
        """What the judge sees in images."""
        return read(self.judge, images)

    def row(self, arm: str, runs: list[Reading], oracle: list[Reading] | None = None, images: list[Tensor] | None = None) -> dict:
        """An arm's row of results from what the judge read in its runs, and the oracle's, in the format of the table of notebook 06.

        With its `images`, and Inception's weights at hand, it has "fid" too, to the held-out normal images.
        """
        pooled = pool(runs)
        row = report(pooled, self.split, self.judge).row(self.chosen.images, arm, len(runs))
        row["nsr_by_seed"] = [round(report(seen, self.split, self.judge).nsr, 4) for seen in runs]
        if oracle is not None:
            resamples = RESAMPLES[pooled.features.shape[1] > 64]
            row["frechet_ratio"] = ratio_to_oracle(pooled.features, pool(oracle).features, ruler(self.judge, self.split).reference, resamples)
        if images is not None and self.inception is not None:
            row["fid"] = round(judges.fid(torch.cat(images), self.split.heldout_normal, self.inception), 3)
        return row


def ready(chosen: Experiment, folder: Path | str, download: bool = False) -> Ready:
    """Load, draw or download what an experiment needs, and train its judge and its sieve where it needs them.

    What takes long (a judge, drawings of Stable Diffusion) is kept in `folder`, and read from there the next time.

    In several processes the first makes what the others read.

    Raises:
        DataError: something is missing and cannot be had, or the judge tells nothing.
    """
    with processes().main_process_first():
        return _ready(chosen, Path(folder), download)


def _ready(chosen: Experiment, folder: Path, download: bool) -> Ready:
    judge: nn.Module
    prompted = None
    if chosen.images == "digits":
        split, judge = load_pu("even"), load_judge()
        training = _padded(split, chosen.size)
    elif chosen.images == "prompts" and chosen.prompts is not None:
        dtype = torch.bfloat16 if device().type == "cuda" else torch.float32
        prompted = prompts.load_prompted(chosen.network, chosen.prompts[2], chosen.rank, dtype)
        prompted.pipe.to(device())
        split, for_judge = _drawn_split(chosen, chosen.prompts[:2], prompted, folder)
        judge = _kept_judge(chosen, folder, lambda: for_judge, 2)
        if device().type == "cuda":
            prompted.pipe.unet.to(memory_format=torch.channels_last)  # as `fit` has it, which then needs no copy
        training = _each(split, prompted.encode)
        prompted.pipe.vae.to("cpu")  # until there is something to draw
        prompted.pipe.text_encoder.to("cpu")
    else:
        split = training = sets.load_set(chosen.images, folder, download)
        room = max(1000, int(2e9 / split.unlabeled[0].numel() / 4))
        known = sets.PRESETS[chosen.images]
        judge = _kept_judge(chosen, folder, lambda: sets.load_labeled(known, folder, room), 2 if known.source == "CelebA" else 10)
    errors = ruler(judge, split).errors
    if sum(errors) >= 1:
        raise DataError(f"the judge does not tell normal from sensitive images: it is wrong on {errors[0]:.0%} and {errors[1]:.0%}; more judge_steps may help")
    found = _sieve(chosen, split, folder) if set(chosen.arms) & set(rivals.SIEVING) else None
    return Ready(chosen, split, training, judge, found, prompted, None if chosen.images == "digits" else judges.inception())


def _padded(split: PUSplit, size: int) -> PUSplit:
    edge = (size - split.unlabeled.shape[-1]) // 2
    return split if edge == 0 else _each(split, lambda images: F.pad(images, [edge] * 4, value=-1.0))


def _each(split: PUSplit, change: Callable[[Tensor], Tensor]) -> PUSplit:
    """The split with its images changed."""
    changed: dict[str, Any] = {name: change(getattr(split, name)) for name in ("unlabeled", "sensitive", "heldout_normal", "heldout_sensitive")}
    return replace(split, **changed)


def _judged(images: Tensor, chosen: Experiment) -> Tensor:
    edge = (chosen.size - 28) // 2 if chosen.images == "digits" else 0
    return images[..., edge : chosen.size - edge, edge : chosen.size - edge]


def _sieve(chosen: Experiment, split: PUSplit, folder: Path) -> rivals.Sieve:
    """The sieve, whose probabilities are kept but for digits: on a GPU another training would let other images pass."""
    if chosen.images == "digits":
        return rivals.sieve(split.unlabeled, split.sensitive, split.prior)
    path, weights = _network_file(chosen, folder, "sieve")
    if not path.exists():
        found = judges.colour_sieve(split.unlabeled, split.sensitive, split.prior, steps=chosen.sieve_steps, weights=weights, flip=_mirrored(chosen))
        write_tensors(path, {"unlabeled": found.unlabeled, "sensitive": found.sensitive, "threshold": torch.tensor(found.threshold)}, {"holds": "sieve"})
    kept = _kept_tensors(path, "sieve")
    return rivals.Sieve(kept["unlabeled"], kept["sensitive"], kept["threshold"].item(), None, None, split.prior)  # for training alone


def _kept_judge(chosen: Experiment, folder: Path, labeled: Callable[[], tuple[Tensor, Tensor]], n_classes: int) -> nn.Module:
    """The judge of a file; trained first, on the images and labels that `labeled` gives, where there is none."""
    path, weights = _network_file(chosen, folder, "judge")
    if not path.exists():
        judges.save_judge(path, judges.fit_judge(*labeled(), n_classes, chosen.judge_steps, weights=weights, flip=_mirrored(chosen)))
    return judges.load_judge_file(path).to(device())


def _network_file(chosen: Experiment, folder: Path, what: str) -> tuple[Path, judges.Weights | None]:
    """Where the "judge" or what the "sieve" says is kept, and the weights that it starts from."""
    weights, drawn = judges.pretrained_resnet(), DRAWN if chosen.images == "prompts" else ()
    return folder / f"{what}_{key(chosen, 'images', 'size', f'{what}_steps', *drawn)}{'_imagenet' if weights else ''}.safetensors", weights


def _mirrored(chosen: Experiment) -> bool:
    """Is a mirrored image as good as another? Not so for digits."""
    return not chosen.images.startswith("mnist")


def _drawn_split(chosen: Experiment, texts: tuple[str, str], prompted: prompts.Prompted, folder: Path) -> tuple[PUSplit, tuple[Tensor, Tensor]]:
    """U, S and held-out images that Stable Diffusion draws from the two prompts, and the images and labels that the judge trains on."""
    n_normal, n_hidden, n_sensitive, n_heldout, n_judge = chosen.counts
    asked = (n_normal + n_heldout + n_judge, n_hidden + n_sensitive + n_heldout + n_judge)

    def draw(kind: int) -> Tensor:
        return prompts.draw(prompted, texts[kind], asked[kind], kind + 1, **chosen.drawing)

    normal, sensitive = (kept_images(folder / f"drawings_{key(chosen, *DRAWN)}_{kind}.safetensors", partial(draw, kind)) for kind in (0, 1))
    good = normal.split([n_normal, n_heldout, n_judge])
    bad = sensitive.split([n_hidden, n_sensitive, n_heldout, n_judge])
    zeros, ones = (lambda x: torch.zeros(len(x), dtype=torch.long)), (lambda x: torch.ones(len(x), dtype=torch.long))
    u, labels = torch.cat([good[0], bad[0]]), torch.cat([zeros(good[0]), ones(bad[0])])
    order = torch.randperm(len(u), generator=torch.Generator().manual_seed(0))
    split = make_split("prompts", u[order], bad[1], good[1], bad[2], labels[order], ones(bad[1]), zeros(good[1]), ones(bad[2]))
    return split, (torch.cat([good[2], bad[3]]), torch.cat([zeros(good[2]), ones(bad[3])]))


def key(chosen: Experiment, *fields: str) -> str:
    """A name for a file that an experiment keeps, from those of its fields that the content depends on; of all that runs depend on if none is given."""
    fields = fields or tuple(name for name in vars(chosen) if name not in ("arms", "seeds", "n_samples"))
    facts = [(name, getattr(chosen, name)) for name in sorted(fields)]
    return f"{chosen.images}_{hashlib.sha256(repr(facts).encode()).hexdigest()[:10]}"


def framed(this: Ready, seen: Reading) -> Tensor:
    """Which images the judge reads as sensitive, bool [n]."""
    return ~is_normal(seen.digits, this.split.normal)


def kept_images(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """Images [n, c, h, w] in [-1, 1] of a file; made first, and written whole or not at all, where there is none."""
    if not path.exists():
        write_tensors(path, {"images": to_bytes(make())}, {"holds": "images"})
    return to_images(_kept_tensors(path, "images")["images"])


def _kept_tensors(path: Path, what: str) -> dict[str, Tensor]:
    tensors, facts = read_tensors(read_file(path), path)
    if facts.get("holds") != what:
        raise DataError(f"{path} holds no {what}; delete it, and what it should hold is made again")
    return tensors
