"""Stable Diffusion as a model that `training.fit` trains: one caption, images as latents, LoRA, and back to plain diffusers."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .data import check_count
from .diffusion import NoisePredictor
from .pipelines import Card, PipelineError, meaning, package, plain_copy, read_source, whole_folder

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

PARTS = {"scheduler", "text_encoder", "tokenizer", "unet", "vae"}  # of Stable Diffusion
EXTRAS = {"feature_extractor", "image_encoder", "requires_safety_checker", "safety_checker"}  # which it may have
LORA_FILE = "pytorch_lora_weights.safetensors"
WRITTEN = PARTS | EXTRAS | {"README.md", "model_index.json", LORA_FILE}  # what `save_prompted` writes
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]  # the projections that LoRA adds to
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Captioned(nn.Module):
    """A U-Net that takes a caption, with the caption held fixed: network(xt, t), as `NoisePredictor` calls it.

    U and S get the same caption by construction. The PU risk takes E_U[l] - prior E_S[l] for (1 - prior) E_N[l], the loss on normal
    images, because p_U = prior p_S + (1 - prior) p_N; that identity is one between densities under one condition, and l is the loss of
    one function of x_t. Were S given a caption of its own, l on S would be the loss of another function, and the difference the loss
    on nothing.

    Args:
        network: a diffusers UNet2DConditionModel.
        caption_embedding: [tokens, width], what the text encoder makes of the caption.

    Raises:
        ValueError: the embedding is not [tokens, width].
    """

    def __init__(self, network: "UNet2DConditionModel", caption_embedding: Tensor) -> None:
        super().__init__()
        if caption_embedding.ndim != 2:
            raise ValueError(f"caption_embedding must be [tokens, width]; got {list(caption_embedding.shape)}")
        self.network = network
        self.caption_embedding = nn.Parameter(caption_embedding.detach().clone(), False)  # a frozen weight, so that `fit` resumes under no other

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """What the network predicts for latents `xt` [B, ...] at levels `t` int64 [B], in the dtype of its (frozen) weights."""
        caption = self.caption_embedding.to(xt.device, self.network.dtype).expand(len(xt), -1, -1)
        return self.network(xt.to(self.network.dtype), t, encoder_hidden_states=caption).sample


@dataclass(frozen=True)
class Prompted:
    """A Stable Diffusion pipeline, one caption, and the `model` of both to train; `pipe.unet` is the network in it.

    Train on latents, made once before: `training.fit(p.model, p.encode(unlabeled), objective, settings, p.encode(sensitive))`.
    """

    pipe: "StableDiffusionPipeline"
    caption: str
    model: NoisePredictor

    def encode(self, images: Tensor, batch: int = 8) -> Tensor:
        """Images, float [n, 3, h, w] in [-1, 1], as latents, float32 [n, 4, h/8, w/8] on the CPU.

        The mode of what the VAE holds possible, less the shift if it has one, times its scaling factor, which brings the variance to
        about 1 (latent diffusion, Rombach et al. 2022, arXiv 2112.10752). Computed on the VAE's device.

        Raises:
            ValueError: images of another kind, or whose sides the VAE cannot divide.
        """
        vae, side = self.pipe.vae, self.pipe.vae_scale_factor
        good = isinstance(images, Tensor) and images.is_floating_point() and images.ndim == 4 and len(images) > 0
        if not good or images.shape[1] != vae.config.in_channels or images.shape[2] % side or images.shape[3] % side:
            got = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"images must be float [n >= 1, {vae.config.in_channels}, h, w] in [-1, 1] with sides that {side} divides; got {got}")
        shift, scale = _shift_and_scale(vae)
        return _in_batches(lambda x: (vae.encode(x).latent_dist.mode().float() - shift) * scale, images, batch, vae)

    def decode(self, latents: Tensor, batch: int = 8) -> Tensor:
        """Latents [n, 4, h/8, w/8], as `encode` gives them or a sampler draws them, as images, float32 [n, 3, h, w] in [-1, 1] on the CPU.

        Raises:
            ValueError: latents of another shape.
        """
        vae = self.pipe.vae
        if latents.ndim != 4 or len(latents) == 0 or latents.shape[1] != vae.config.latent_channels:
            raise ValueError(f"latents must be [n >= 1, {vae.config.latent_channels}, h, w]; got {list(latents.shape)}")
        shift, scale = _shift_and_scale(vae)
        return _in_batches(lambda z: vae.decode(z).sample.float().clamp(-1, 1), latents / scale + shift, batch, vae)

    def pipe_with(self, model: NoisePredictor) -> "StableDiffusionPipeline":
        """The pipeline with the network of `model`, which `fit` trained, to draw from; nothing is copied, and `pipe` stays as it is.

        Raises:
            PipelineError: the network of `model` is no `Captioned` one.
        """
        parts = self.pipe.components | {"unet": _network_of(model)}
        return type(self.pipe)(**parts, requires_safety_checker=self.pipe.config.requires_safety_checker)


def _network_of(model: NoisePredictor) -> "UNet2DConditionModel":
    captioned = getattr(model, "network", None)
    if not isinstance(captioned, Captioned):
        raise PipelineError(f"model must have a Captioned network, as the one in `load_prompted(...).model`; got {type(captioned).__name__}")
    return captioned.network


def _shift_and_scale(vae) -> tuple[float, float]:
    return vae.config.get("shift_factor") or 0.0, vae.config.scaling_factor


@torch.no_grad()
def _in_batches(function, x: Tensor, batch: int, vae: nn.Module) -> Tensor:
    """`function` of each `batch` rows of `x`, on the device and in the dtype of `vae`; all rows on the CPU."""
    return torch.cat([function(part.to(vae.device, vae.dtype)).cpu() for part in x.split(check_count(batch, "batch"))])


# --------------------------------------------------------------------------------------------- to load


def load_prompted(source: Path | str, caption: str, rank: int | None = None, dtype: torch.dtype = torch.float32, seed: int = 0, **options) -> Prompted:
    """A Stable Diffusion pipeline under one caption, to fine-tune with `training.fit`: all of its U-Net, or LoRA on its attention.

    With LoRA (Hu et al. 2021, arXiv 2106.09685) each attention projection W becomes W + B A with A [rank, in] and B [out, rank]; B starts
    at 0, and A and B alone are trained. They are float32 whatever the dtype of the frozen rest is.

    `pipe.unet.enable_gradient_checkpointing()` before training trades time for memory, at the same numbers.

    The safety checker of the pipeline is not loaded: it would blacken drawings that are to be measured. `options` may bring one.

    Args:
        source: a folder that `save_pretrained` wrote, or a name on the hub such as "stable-diffusion-v1-5/stable-diffusion-v1-5".
        caption: for U and S alike, see `Captioned`; at most the tokens that the text encoder reads (77 with their start and end).
        rank: of LoRA, >= 1; None trains all weights of the U-Net.
        dtype: of frozen weights: float32, or to save memory on a GPU bfloat16 or float16. Trained weights must be float32.
        seed: of A.
        options: for `from_pretrained`, such as `cache_dir`, `variant` or `local_files_only`.

    Raises:
        PipelineError: nothing can be loaded from there, or it is not Stable Diffusion, or predicts neither noise nor v.
        ValueError: the caption is no text or too long; rank, dtype or seed is not one of those.
        ImportError: diffusers, transformers or (for LoRA) peft is missing.
    """
    rank, seed = None if rank is None else check_count(rank, "rank"), check_count(seed, "seed", low=0)
    if dtype not in DTYPES or (rank is None and dtype != torch.float32):
        raise ValueError(f"dtype must be float32, or with a rank bfloat16 or float16; got {dtype!r} with rank {rank}")
    pipe = _load(source, dtype, options)
    for part in (pipe.vae, pipe.text_encoder, pipe.unet):
        part.requires_grad_(rank is None and part is pipe.unet)
    embedding = _embedding(pipe, caption)
    model = NoisePredictor(Captioned(pipe.unet, embedding), *meaning(pipe.scheduler))
    if rank is not None:
        _add_lora(pipe.unet, rank, seed)
    return Prompted(pipe, caption, model)


def _load(source: Path | str, dtype: torch.dtype, options: dict) -> "StableDiffusionPipeline":
    """The pipeline, after its index has told that it is one, so that nothing else is downloaded in vain."""
    diffusers = package("diffusers")
    package("transformers")
    index = read_source(diffusers.DiffusionPipeline.load_config, source, **options)
    held = {name for name, kind in index.items() if not name.startswith("_") and kind != [None, None]}
    if not PARTS <= held <= PARTS | EXTRAS or index["unet"][1] != "UNet2DConditionModel" or index["vae"][1] != "AutoencoderKL":
        raise _not_stable_diffusion(source, f"a {index.get('_class_name')} with {', '.join(sorted(held - {'requires_safety_checker'}))}")
    options = {"safety_checker": None, "requires_safety_checker": False} | options
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch_dtype", FutureWarning)  # the later name, dtype, is unknown to older releases
        pipe = read_source(diffusers.StableDiffusionPipeline.from_pretrained, source, use_safetensors=True, torch_dtype=dtype, **options)
    if not hasattr(pipe.scheduler, "betas"):
        raise _not_stable_diffusion(source, f"a {type(pipe.scheduler).__name__} without betas")
    if pipe.unet.config.in_channels != pipe.vae.config.latent_channels:
        raise _not_stable_diffusion(source, f"a U-Net of {pipe.unet.config.in_channels} channels for latents of {pipe.vae.config.latent_channels}")
    return pipe


def _not_stable_diffusion(source: Path | str, what: str) -> PipelineError:
    parts = "unet (UNet2DConditionModel on the latents alone), vae (AutoencoderKL), text_encoder, tokenizer and scheduler with betas"
    return PipelineError(f"source must hold Stable Diffusion: {parts}, and no other network; {str(source)!r} holds {what}")


@torch.no_grad()
def _embedding(pipe: "StableDiffusionPipeline", caption: str) -> Tensor:
    """What the text encoder makes of the caption, as when the pipeline draws with it, [tokens, width]."""
    if not isinstance(caption, str):
        raise ValueError(f"caption must be a text; got {type(caption).__name__}")
    n, most = len(pipe.tokenizer(caption).input_ids), min(pipe.tokenizer.model_max_length, pipe.text_encoder.config.max_position_embeddings)
    if n > most:  # diffusers would cut it
        raise ValueError(f"caption must have at most {most} tokens, its start and end among them; got {n}")
    return pipe.encode_prompt(caption, pipe.text_encoder.device, 1, False)[0][0]


def _add_lora(network: "UNet2DConditionModel", rank: int, seed: int) -> None:
    peft = package("peft")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.add_adapter(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=ATTENTION))  # alpha / rank, the scale of B A, is 1
    for weight in network.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()  # peft gives them the dtype of the rest, in which small steps of Adam are rounded away


# ------------------------------------------------------------------------------------- to draw, and to save


def draw(source: "Prompted | StableDiffusionPipeline", prompt: str, n: int, seed: int, batch: int = 4, **options) -> Tensor:
    """`n` images of a plain pipeline for a prompt, float32 [n, 3, h, w] in [-1, 1], on the CPU.

    So the experiment with Stable Diffusion of the paper gets its U and S, each from a prompt of its own (PU diffusion, arXiv 2503.03789).
    Noise is drawn on the CPU: image i depends on (seed, i), not on `n`, `batch` or the device, up to rounding. Sets that are to be
    independent need different seeds, also where their prompts differ.

    Args:
        source: what is drawn from; of a `Prompted` its untrained `pipe`. `pipe_with` gives one with a trained model.
        prompt: the text, which need not be the caption.
        options: for the pipeline's call, such as `num_inference_steps`, `guidance_scale`, `negative_prompt`, `height` and `width`.

    Raises:
        ValueError: prompt is no text, or n, seed or batch is not one of those.
    """
    pipe = source.pipe if isinstance(source, Prompted) else source
    if not isinstance(prompt, str):
        raise ValueError(f"prompt must be a text; got {type(prompt).__name__}")
    n, seed, batch = check_count(n, "n"), check_count(seed, "seed", low=0), check_count(batch, "batch")
    drawn = []
    for first in range(0, n, batch):
        generators = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in range(first, min(first + batch, n))]
        images = pipe(prompt, num_images_per_prompt=len(generators), generator=generators, output_type="pt", **options).images
        drawn.append(images.float().cpu() * 2 - 1)
    return torch.cat(drawn)


def save_prompted(folder: Path | str, prompted: Prompted, model: NoisePredictor, card: Card, lora_only: bool = False) -> None:
    """Write a trained model as a `StableDiffusionPipeline`, or its LoRA weights alone, with its card, whole or not at all.

    Three lines of plain diffusers draw from it:

        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained(folder)
        images = pipe(caption).images

    LoRA is added to the weights, W + B A, in float32, as half precision would round small changes away. All is saved in float32: diffusers
    loads a folder in half precision as a mixture that does not draw. For LoRA alone the second line is `pipe.load_lora_weights(folder)` on
    the pipeline that was trained.

    Args:
        folder: a new one, or one that was saved here before, which is replaced.
        prompted: what was trained; stays as it is, as `model` does.
        model: of a record of `fit`.
        lora_only: write the LoRA weights only, some MB instead of GB.

    Raises:
        PipelineError: the network of `model` is no `Captioned` one, or has no LoRA where it alone is to be saved, or there is something
            else at `folder`.
    """
    network = _network_of(model)
    if lora_only and not _has_lora(network):
        raise PipelineError("lora_only=True needs a model with LoRA, from load_prompted(..., rank=...); this one was trained in full")
    with whole_folder(Path(folder), WRITTEN) as made:
        if lora_only:
            weights = package("peft").get_peft_model_state_dict(network)
            prompted.pipe.save_lora_weights(made, unet_lora_layers=weights, safe_serialization=True)
        else:
            _copied(prompted.pipe_with(model)).save_pretrained(made, safe_serialization=True)
        (made / "README.md").write_text(card.markdown() + _notes(prompted, lora_only), encoding="utf-8")


def _has_lora(network: nn.Module) -> bool:
    return bool(getattr(network, "peft_config", None))


def _copied(pipe: "StableDiffusionPipeline") -> "StableDiffusionPipeline":
    """The pipeline with networks that are copies, on the CPU in float32, of which the U-Net has taken LoRA into its weights."""
    parts = {name: _copied_network(part) if isinstance(part, nn.Module) else part for name, part in pipe.components.items()}
    return type(pipe)(**parts, requires_safety_checker=pipe.config.requires_safety_checker)


def _copied_network(network: nn.Module) -> nn.Module:
    made: Any = plain_copy(network)
    if _has_lora(made):
        made.fuse_lora()
        made.unload_lora()
    return made


def _notes(prompted: Prompted, lora_only: bool) -> str:
    """What a card states of captions, of the base and of the safety checker."""
    name = prompted.pipe.config.get("_name_or_path", "")
    base = Path(name).name if Path(name).exists() else name
    notes = f"\n**Caption:** U and S had one caption, {json.dumps(prompted.caption, ensure_ascii=False)}; nothing is claimed for other prompts.\n"
    notes += f"\n**Base:** {base or 'not named'}." + (f" `pipe.load_lora_weights` adds `{LORA_FILE}` to it.\n" if lora_only else "\n")
    if prompted.pipe.safety_checker is None:
        more = "" if lora_only else ", and none is in this pipeline; add one before others use it"
        notes += f"\n**Safety checker:** It was trained without one{more}.\n"
    return notes
