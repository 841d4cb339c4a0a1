"""The paper's data sets through torchvision, with its counts as presets, and folders of your own images."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import v2

from .data import DataError, PUSplit, check_count, is_normal, make_split

FORMATS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def _celeba(root, part: str, download: bool):
    return datasets.CelebA(root, "train" if part == "train" else "test", "attr", download=download)


SOURCES: dict[str, tuple[Callable, Callable]] = {  # (root, "train" or "test", download) -> data set; data set -> labels
    "MNIST": (lambda root, part, download: datasets.MNIST(root, part == "train", download=download), lambda found: found.targets),
    "CIFAR10": (lambda root, part, download: datasets.CIFAR10(root, part == "train", download=download), lambda found: found.targets),
    "STL10": (lambda root, part, download: datasets.STL10(root, part, download=download), lambda found: found.labels),
    "CelebA": (_celeba, lambda found: found.attr[:, found.attr_names.index("Male")]),
}


@dataclass(frozen=True)
class Preset:
    """The images of one experiment of PU diffusion (arXiv 2503.03789): where they come from, which are normal, and how many.

    Args:
        source: a key of `SOURCES`.
        normal: which labels are normal, a key of `data.KINDS`.
        size: pixels of a side; images are cropped to a square and resized.
        n_normal, n_hidden: normal and sensitive images in U.
        n_sensitive: labeled sensitive images, none of them in U.
        n_heldout: at most that many held-out images of either kind, from the test part.
    """

    source: str
    normal: str
    size: int
    n_normal: int
    n_hidden: int
    n_sensitive: int
    n_heldout: int = 2000


PRESETS = {
    "mnist-even": Preset("MNIST", "even", 32, 25000, 2500, 2500),
    "mnist-odd": Preset("MNIST", "odd", 32, 25000, 2500, 2500),
    "cifar10-vehicles": Preset("CIFAR10", "cifar10-vehicles", 32, 20000, 2000, 2000),
    "cifar10-animals": Preset("CIFAR10", "cifar10-animals", 32, 20000, 2000, 2000),
    "stl10-vehicles": Preset("STL10", "stl10-vehicles", 96, 2000, 200, 200),
    "stl10-animals": Preset("STL10", "stl10-animals", 96, 2000, 200, 200),
    "celeba-male": Preset("CelebA", "celeba-male", 256, 2000, 200, 200),
    "celeba-female": Preset("CelebA", "celeba-female", 256, 2000, 200, 200),
}


def load_set(preset: Preset | str, folder: Path | str, download: bool = False, seed: int = 0) -> PUSplit:
    """The split of a preset: images float32 [n, 3, size, size] in [-1, 1], gray ones with three equal channels.

    U and S come from the training part, drawn by `seed`; what is held out from the test part. torchvision shows a download's progress
    and checks what it got.

    Args:
        preset: a name in `PRESETS`, or one of your own.
        folder: where the files lie as torchvision keeps them, or go to.
        download: fetch what is missing.

    Raises:
        ValueError: no such preset, or more images are asked for than there are.
        DataError: files are missing or damaged, or cannot be fetched.
    """
    preset = _preset(preset)
    labels, part = {}, {}
    for which in ("train", "test"):
        part[which] = _opened(preset, folder, which, download)
        labels[which] = torch.as_tensor(SOURCES[preset.source][1](part[which])).long().flatten()
    rows = _drawn(preset, labels, seed)
    shape = v2.Compose([v2.PILToTensor(), v2.Lambda(lambda x: x.expand(3, -1, -1)), *_square(preset.size)])
    try:
        images = [torch.stack([shape(part[which][int(i)][0]) for i in mine]) for which, mine in rows]
    except OSError as error:
        raise DataError(f"an image of {preset.source} in {folder} is missing or damaged ({error}); delete the folder and load it again") from error
    return make_split(preset.normal, *images, *(labels[which][mine] for which, mine in rows), seed=seed)


def _preset(preset: Preset | str) -> Preset:
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, or a Preset; got {preset!r}")
    return PRESETS[preset]


def _opened(preset: Preset, folder: Path | str, which: str, download: bool):
    try:
        return SOURCES[preset.source][0](str(folder), which, download)
    except (RuntimeError, URLError, OSError) as error:
        advice = "without a network, put its files there by hand" if download else "download=True fetches them"
        raise DataError(f"the {which} part of {preset.source} is missing from {folder}, or damaged; {advice} ({error})") from error


def _drawn(preset: Preset, labels: dict[str, Tensor], seed: int) -> list[tuple[str, Tensor]]:
    """Rows of U (in random order), S, and the held-out normal and sensitive images, each with its part."""
    generator = torch.Generator().manual_seed(check_count(seed, "seed", 0))
    order = {which: torch.randperm(len(mine), generator=generator) for which, mine in labels.items()}
    good, bad = ({which: rows[is_normal(labels[which][rows], preset.normal) == kind] for which, rows in order.items()} for kind in (True, False))
    for name, needed, there in (("normal", preset.n_normal, len(good["train"])), ("sensitive", preset.n_hidden + preset.n_sensitive, len(bad["train"]))):
        if needed > there:
            raise ValueError(f"the training part of {preset.source} must hold at least {needed} {name} images for this preset; it holds {there}")
    u = torch.cat([good["train"][: preset.n_normal], bad["train"][: preset.n_hidden]])
    s = bad["train"][preset.n_hidden : preset.n_hidden + preset.n_sensitive]
    shuffled = u[torch.randperm(len(u), generator=generator)]
    return [("train", shuffled), ("train", s), ("test", good["test"][: preset.n_heldout]), ("test", bad["test"][: preset.n_heldout])]


def _square(size: int) -> list:
    """From uint8 images [c, h, w]: the middle square, resized, float32 in [-1, 1]."""
    middle = v2.Lambda(lambda x: v2.functional.center_crop(x, [min(x.shape[-2:])] * 2))
    return [middle, v2.Resize(size, antialias=True), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5])]


def load_folder(folder: Path | str, size: int, channels: int = 3) -> Tensor:
    """All images in a folder and those below it, float32 [n, channels, size, size] in [-1, 1], in the order of their paths.

    One folder of unlabeled images and one of sensitive ones is all that `training.fit` and `rivals.sieve` need; the prior must be known
    or estimated (`prior`).

    Raises:
        ValueError: size is not a whole number >= 1, or channels neither 1 nor 3.
        DataError: there is no such folder, no image in it, or one cannot be read.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (gray) or 3 (colour); got {channels!r}")
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in FORMATS)
    if not paths:
        raise DataError(f"{folder} holds no image; it must be a folder with files that end in {', '.join(FORMATS)}")
    shape = v2.Compose([v2.PILToTensor(), *_square(check_count(size, "size"))])
    images = []
    for path in paths:
        try:
            with Image.open(path) as image:
                if image.mode.startswith(("I", "F")):
                    raise DataError(f"{path} has more than 8 bits for a pixel; save it with 8")
                images.append(shape(ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")))
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise DataError(f"{path} cannot be read as an image ({error}); remove or mend it") from error
    return torch.stack(images)
