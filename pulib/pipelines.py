"""To and from the engines people use: pipelines of diffusers, with a model card."""

import copy
import glob
import importlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from .data import DataError, WriteError, check_prior
from .diffusion import NoisePredictor, Prediction, Schedule

WRITTEN = {"README.md", "model_index.json", "scheduler", "unet"}  # what `save_pipeline` writes
TAG = "positive-unlabeled-learning"  # in every card, so that a folder written here is known from one that a user made
PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v"}  # by diffusers' names


class PipelineError(DataError):
    """A pipeline cannot be had, or is of a kind that the risks here do not fit."""


def package(name: str) -> ModuleType:
    """A package that only this part of the library needs.

    Raises:
        ImportError: it is missing; says what brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is missing; `pip install 'pulib[scale]'` brings it") from error


def read_source(load: Callable, source: Path | str, **options):
    """What `load`, of diffusers, makes of a folder or a name on the hub.

    Raises:
        PipelineError: it makes nothing of it, or the folder holds code, which older diffusers would run (seen in 0.31).
    """
    folder = Path(source)
    before = _settled(folder)
    try:
        code = sorted(path.name for path in folder.rglob("*.py"))
        found = None if code else load(str(source), **options)
    except (OSError, ValueError, SafetensorError) as error:  # what diffusers and the hub's client raise for missing files and no network
        if _settled(folder) != before:  # another process has replaced it meanwhile
            return read_source(load, source, **options)
        raise PipelineError(
            f"source must be a folder with a diffusers pipeline in safetensors, or a name on the hub while there is a network; got {str(source)!r} ({error})"
        ) from error
    if code:
        raise PipelineError(f"source must be a folder without code of its own, as it could do anything; {str(source)!r} holds {', '.join(code)}")
    return found


def load_pipeline(source: Path | str, **options) -> NoisePredictor:
    """The network and the noise schedule of a pretrained pipeline without prompts, to fine-tune with `training.fit` or to sample from.

    Args:
        source: a folder that `save_pretrained` wrote, or a name on the hub such as "google/ddpm-cifar10-32".
        options: for `DiffusionPipeline.from_pretrained`, such as `cache_dir` or `local_files_only`.

    Raises:
        PipelineError: nothing can be loaded from there, or the network is no UNet2DModel, or predicts neither noise nor v.
        ImportError: diffusers is missing.
    """
    diffusers = package("diffusers")
    pipe = read_source(diffusers.DiffusionPipeline.from_pretrained, source, use_safetensors=True, **options)
    network, parts = getattr(pipe, "unet", None), sorted(pipe.components)
    if parts != ["scheduler", "unet"] or not isinstance(network, diffusers.UNet2DModel) or not hasattr(pipe.scheduler, "betas"):
        raise PipelineError(f"source must hold a UNet2DModel on pixels and a scheduler with betas, and nothing else; {str(source)!r} holds {', '.join(parts)}")
    return NoisePredictor(network, *meaning(pipe.scheduler))


def meaning(scheduler) -> tuple[Schedule, Prediction]:
    """A diffusers scheduler's noise levels, and what its network predicts.

    Raises:
        PipelineError: it predicts neither noise nor v.
    """
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
tags: [diffusion, {TAG}]
---
# A diffusion model trained to draw fewer sensitive images

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
    diffusers, network = package("diffusers"), model.network
    if not isinstance(network, diffusers.UNet2DModel):
        raise PipelineError(f"model must have a diffusers UNet2DModel as its network; got {type(network).__name__}")
    kind = {ours: theirs for theirs, ours in PREDICTIONS.items()}[model.prediction]
    scheduler = diffusers.DDPMScheduler(len(model.schedule), trained_betas=model.schedule.beta.tolist(), prediction_type=kind, timestep_spacing="trailing")
    with whole_folder(Path(folder), WRITTEN) as made:
        diffusers.DDPMPipeline(plain_copy(network), scheduler).save_pretrained(made, safe_serialization=True)
        (made / "README.md").write_text(card.markdown(), encoding="utf-8")


def plain_copy(network: nn.Module) -> nn.Module:
    """A copy as files hold it: on the CPU, in float32, in the usual order in memory (`fit` has another), and without the path it was loaded from."""
    made: Any = copy.deepcopy(network).float().cpu().to(memory_format=torch.contiguous_format)
    if hasattr(made, "register_to_config"):  # diffusers would write the path, which is nobody's business
        made.register_to_config(_name_or_path="")
    elif hasattr(getattr(made, "config", None), "_name_or_path"):  # and so would older releases of transformers
        made.config._name_or_path = ""
    return made


@contextmanager
def whole_folder(folder: Path, written: set[str]) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` when the block ends, and is deleted when the block raises.

    Several processes may write the same folder: that of the last one stays.

    Args:
        folder: a new one, an empty one, or one with a card from here and nothing but names that are `written`: that is replaced.

    Raises:
        PipelineError: there is something else at `folder`.
        WriteError: the disk is full, or nothing can be written there; what was there is as it was.
    """
    _settled(folder)
    if not _replaceable(folder, written):
        raise PipelineError(f"folder must be a new one, or hold what was saved there before and nothing else; {folder} holds more, or something else")
    made = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        yield made
        made.chmod(0o755)
        _put(made, folder)
    except (OSError, SafetensorError) as error:  # the latter is how safetensors says that the disk is full
        why = getattr(error, "strerror", None) or error
        raise WriteError(getattr(error, "errno", None), f"{folder} cannot be written ({why}); nothing that was there has changed") from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def _put(made: Path, folder: Path) -> None:
    """Let a folder take the place of another, also while other processes do the same."""
    old = made.with_name(f"{made.name}.old")
    while made.exists():
        with suppress(FileNotFoundError):
            folder.rename(old)
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():  # else another process came first: once more
                if old.exists():
                    old.rename(folder)
                raise
        shutil.rmtree(old, ignore_errors=True)


def _settled(folder: Path) -> int | None:
    """The number of a folder's inode, if there is one; while another process replaces it, waits, and brings it back if that process was killed."""
    for _ in range(100):
        left = [] if folder.exists() else list(folder.parent.glob(f".{glob.escape(folder.name)}.*.old"))
        if not left:
            break
        time.sleep(0.01)
    else:
        with suppress(OSError):
            max(left, key=os.path.getmtime).rename(folder)
    with suppress(OSError):
        return folder.stat().st_ino
    return None


def _replaceable(folder: Path, written: set[str]) -> bool:
    """Whether there is no folder, or it is empty or was written here: a pipeline that was downloaded may hold the same names, but not our card."""
    card = folder / "README.md"
    try:
        names = {path.name for path in folder.iterdir()}
        return not names or (names <= written and card.exists() and TAG in card.read_text(encoding="utf-8"))
    except FileNotFoundError:  # or another process is just replacing it
        return True
    except NotADirectoryError:
        return False
