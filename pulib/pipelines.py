"""To and from the engines people use: pipelines of diffusers, with a model card."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .data import DataError, check_prior
from .diffusion import NoisePredictor, Schedule

WRITTEN = {"README.md", "model_index.json", "scheduler", "unet"}  # what `save_pipeline` writes
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v"}  # by diffusers' names


class PipelineError(DataError):
    """A pipeline cannot be had, or is of a kind that the risks here do not fit."""


def _diffusers():
    try:
        import diffusers
    except ImportError as error:
        raise ImportError("diffusers is missing; `pip install 'pulib[scale]'` brings it") from error
    return diffusers


def load_pipeline(source: Path | str, **options) -> NoisePredictor:
    """The network and the noise schedule of a pretrained pipeline without prompts, to fine-tune with `training.fit` or to sample from.

    Args:
        source: a folder that `save_pretrained` wrote, or a name on the hub such as "google/ddpm-cifar10-32".
        options: for `DiffusionPipeline.from_pretrained`, such as `cache_dir` or `local_files_only`.

    Raises:
        PipelineError: nothing can be loaded from there, or the network is no UNet2DModel, or predicts neither noise nor v.
        ImportError: diffusers is missing.
    """
    diffusers = _diffusers()
    try:
        pipe = diffusers.DiffusionPipeline.from_pretrained(str(source), use_safetensors=True, **options)
    except (OSError, ValueError) as error:  # what diffusers and the hub's client raise for missing files and no network
        raise PipelineError(
            f"source must be a folder with a diffusers pipeline in safetensors, or a name on the hub while there is a network; got {str(source)!r} ({error})"
        ) from error
    network, parts = getattr(pipe, "unet", None), sorted(pipe.components)
    if parts != ["scheduler", "unet"] or not isinstance(network, diffusers.UNet2DModel) or not hasattr(pipe.scheduler, "betas"):
        raise PipelineError(f"source must hold a UNet2DModel on pixels and a scheduler with betas, and nothing else; {str(source)!r} holds {', '.join(parts)}")
    return NoisePredictor(network, *_meaning(pipe.scheduler))


def _meaning(scheduler) -> tuple[Schedule, str]:
    """A diffusers scheduler's noise levels, and what its network predicts."""
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise PipelineError(f"the network must predict one of {', '.join(PREDICTIONS)}; this one predicts {kind!r}")
    return Schedule(scheduler.betas.float()), PREDICTIONS[kind]


@dataclass(frozen=True)
class Card:
    """What a model card states.

    Args:
        data: what U and S are, where they come from, and their licence.
        objective: the training objective, in words.
        prior: the class prior that it took, in [0, 1).
        results: a row as `evaluation.Report.row` gives it, or None where nothing was measured.
        license: of the model, by its SPDX name.

    Raises:
        ValueError: prior outside [0, 1).
    """

    data: str
    objective: str
    prior: float
    results: Mapping[str, object] | None = None
    license: str = "other"

    def __post_init__(self) -> None:
        check_prior(self.prior)

    def markdown(self) -> str:
        """The card as the hub reads it."""
        measured = "Nothing was measured."
        if self.results is not None:
            row = self.results
            measured = (
                f"Non-sensitive rate {row['nsr']:.3f} (95 % interval {row['nsr_low']:.3f} to {row['nsr_high']:.3f}), corrected for the judge's errors; "
                f"Fréchet distance {row['frechet']:.2f}, between real images {row['frechet_floor']:.2f}; {row['n']} drawings of {row['seeds']} training run(s)."
            )
        return f"""---
license: {self.license}
library_name: diffusers
tags: [diffusion, positive-unlabeled-learning]
---
# A diffusion model that leaves out what must not be generated

**Data:** {self.data}

**Objective:** {self.objective}, with class prior {self.prior:.4g} (positive-unlabeled diffusion, arXiv 2503.03789).

**Measured:** {measured}

**Limits:** It draws fewer sensitive images, not none. What the labeled sensitive images do not show is not kept out, a wrong prior leaks or
harms the rest, and whoever trains on can teach it again. Measure it on your own data before you rely on it.
"""


def save_pipeline(folder: Path | str, model: NoisePredictor, card: Card) -> None:
    """Write a model with a diffusers network as a `DDPMPipeline` with its card, whole or not at all.

    Three lines of plain diffusers draw from it:

        from diffusers import DDPMPipeline
        pipe = DDPMPipeline.from_pretrained(folder)
        images = pipe(batch_size=4).images

    Raises:
        PipelineError: the network is no UNet2DModel, or there is something else at `folder`.
        ImportError: diffusers is missing.
    """
    diffusers, folder = _diffusers(), Path(folder)
    network = model.network
    if not isinstance(network, diffusers.UNet2DModel):
        raise PipelineError(f"model must have a diffusers UNet2DModel as its network; got {type(network).__name__}")
    if folder.exists() and {path.name for path in folder.iterdir()} - WRITTEN:
        raise PipelineError(f"folder must be a new one, or hold a pipeline to replace and nothing else; {folder} holds more")
    kind = {ours: theirs for theirs, ours in PREDICTIONS.items()}[model.prediction]
    scheduler = diffusers.DDPMScheduler(len(model.schedule), trained_betas=model.schedule.beta.tolist(), prediction_type=kind)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        diffusers.DDPMPipeline(network, scheduler).save_pretrained(made, safe_serialization=True)
        (made / "README.md").write_text(card.markdown(), encoding="utf-8")
        made.chmod(0o755)
        if folder.exists():
            old = made.with_name(f"{made.name}.old")
            folder.rename(old)
            try:
                made.rename(folder)
            except OSError:
                old.rename(folder)
                raise
            shutil.rmtree(old)
        else:
            made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
