"""The paper's data sets through torchvision, with its counts as presets, and folders of your own images."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from filelock import FileLock, Timeout
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import calculate_md5, check_integrity, extract_archive
from torchvision.transforms import v2
from tqdm.auto import tqdm

from .data import DataError, PUSplit, check_count, is_normal, make_split

LEFT = 100  # images of every label that a judge needs beside U and S
FORMATS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
TIMEOUT = 30  # seconds that a server may be silent
BY_HAND = "without a network, put its files there by hand"
DAMAGED = (RuntimeError, OSError, AssertionError, ValueError, LookupError, zipfile.BadZipFile)  # what torchvision raises for files that are not there, or not whole


def _celeba(root, part: str, download: bool):
    """CelebA, of which torchvision only looks whether there is a folder of images: unpacked in part, it is unpacked again, or named."""
    found = datasets.CelebA(root, "train" if part == "train" else "test", "attr", download=download)
    folder = Path(found.root) / found.base_folder / "img_align_celeba"
    archive = folder.with_suffix(".zip")
    if download and archive.exists() and _lacking(found, folder):
        extract_archive(str(archive))
    if lacking := _lacking(found, folder):
        raise FileNotFoundError(f"{lacking} of the {len(found)} images are not in {folder}")
    return found


def _lacking(found, folder: Path) -> int:
    return len(set(found.filename) - set(os.listdir(folder)))


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

    U and S come from the training part, drawn by `seed`; what is held out from the test part. The sets hold a few images twice: one that
    is in U does not go into S, the next one in the draw does.

    Args:
        preset: a name in `PRESETS`, or one of your own.
        folder: where the files lie as torchvision keeps them, or go to; a class may share one.
        download: fetch what is missing; where another process is doing so, it is waited for. A download that broke off goes on at the next
            call (see `fetch`); only that of CelebA, which comes from Google Drive through torchvision and gdown, starts anew.

    Raises:
        ValueError: no such preset, or more images are asked for than there are.
        DataError: files are missing or damaged, or cannot be fetched.
    """
    preset = _preset(preset)
    part, labels = _parts(preset, folder, download)
    (_, u), (_, candidates), normal, sensitive = _drawn(preset, labels, seed)
    shape = _colour(preset.size)

    def read(which: str, rows: Tensor) -> Tensor:
        images = torch.empty(len(rows), 3, preset.size, preset.size)  # filled in place: a list and its stack would need the memory twice
        for image, row in zip(images, rows.tolist()):
            image.copy_(shape(part[which][row][0]))
        return images

    with _reading(preset, folder):
        unlabeled = read("train", u)
        in_u = {_digest(image) for image in unlabeled}
        new = (row for row in candidates.tolist() if _digest(shape(part["train"][row][0])) not in in_u)
        s = torch.tensor(list(islice(new, preset.n_sensitive)), dtype=torch.long)
        if len(s) < preset.n_sensitive:
            raise ValueError(f"the training part of {preset.source} must hold at least {preset.n_sensitive} sensitive images that are not in U; it holds {len(s)}")
        images = (unlabeled, read("train", s), read(*normal), read(*sensitive))
    of_u, of_s, of_normal, of_sensitive = (labels[which][rows] for which, rows in (("train", u), ("train", s), normal, sensitive))
    return make_split(preset.normal, *images, of_u, of_s, of_normal, of_sensitive, seed)


def load_labeled(preset: Preset | str, folder: Path | str, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Up to `n` images of the training part with their true labels, drawn by `seed`: for a judge, and for nothing that is to be judged.

    They are none of the U and S of that seed, if enough of every label are left (`LEFT`); else of all, as with vehicles of CIFAR10, which
    are all in U. A judge that has seen U reads its images too well, which raises the Fréchet distance of real images from held-out ones.

    Returns:
        images: float32 [n, 3, size, size] in [-1, 1], as in `load_set`.
        labels: int64 [n].

    Raises:
        ValueError: no such preset, or n is not a whole number >= 1.
        DataError: files are missing or damaged.
    """
    preset = _preset(preset)
    parts, both = _parts(preset, folder)
    (_, u), (_, candidates), *_ = _drawn(preset, both, seed)
    part, labels, shape = parts["train"], both["train"], _colour(preset.size)
    free = torch.ones(len(labels), dtype=torch.bool)
    free[torch.cat([u, candidates[: preset.n_sensitive]])] = False
    if torch.bincount(labels[free], minlength=int(labels.max()) + 1).min() < LEFT:
        free[:] = True
    rows = torch.nonzero(free).flatten()
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))][: check_count(n, "n")]
    with _reading(preset, folder):
        return torch.stack([shape(part[row][0]) for row in rows.tolist()]), labels[rows]


def check_files(preset: Preset | str, folder: Path | str) -> None:
    """Look whether the files of a preset lie in a folder, and hold as many images as it asks for; nothing is fetched.

    Raises:
        ValueError: there are fewer.
        DataError: files are missing or damaged.
    """
    preset = _preset(preset)
    _drawn(preset, _parts(preset, folder)[1], 0)


def _parts(preset: Preset, folder: Path | str, download: bool = False) -> tuple[dict, dict[str, Tensor]]:
    """The "train" and "test" part of a preset's set, and the labels of each, int64 [n]."""
    parts = {which: _opened(preset, folder, which, download) for which in ("train", "test")}
    return parts, {which: torch.as_tensor(SOURCES[preset.source][1](part)).long().flatten() for which, part in parts.items()}


@contextmanager
def _reading(preset: Preset, folder: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"an image of {preset.source} in {folder} is missing or damaged ({error}); delete the folder and load it again") from error


def _colour(size: int) -> v2.Compose:
    return v2.Compose([v2.PILToTensor(), v2.Lambda(lambda x: x.expand(3, -1, -1)), *_square(size)])


def _digest(image: Tensor) -> bytes:
    return hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()


def _preset(preset: Preset | str) -> Preset:
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, or a Preset; got {preset!r}")
    return PRESETS[preset]


def _opened(preset: Preset, folder: Path | str, which: str, download: bool):
    source = SOURCES[preset.source][0]
    try:
        try:
            return source(str(folder), which, False)
        except DAMAGED:
            if not download:
                raise
        with _one_at_a_time(Path(folder).expanduser() / preset.source):
            try:
                return source(str(folder), which, False)  # another process has brought it
            except DAMAGED:
                for urls, path, md5 in _archives(preset.source, Path(folder).expanduser()):
                    _fetch_from_any(urls, path, md5)
                    path.with_suffix("").unlink(missing_ok=True)  # of MNIST, what a process that was killed has unpacked in part
                return source(str(folder), which, True)  # unpacks the archives that it finds
    except DataError:
        raise
    except DAMAGED as error:
        advice = BY_HAND if download else "download=True fetches them"
        raise DataError(f"the {which} part of {preset.source} is missing from {folder}, or damaged; {advice} ({error})") from error


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Of all processes on a path, one goes on, and the others wait: look once more then, as the work may have been done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o664)
    try:
        held: AbstractContextManager = lock.acquire(timeout=0)
    except Timeout:
        print(f"{path} is just being fetched by another process; this one waits for it")
        held = lock.acquire()
    except NotImplementedError:  # a file system without locks
        held = nullcontext()
    with held:
        try:
            yield
        finally:
            with suppress(OSError):  # those who wait see that it is gone, and take a new one: filelock looks for that since 3.24
                os.unlink(lock.lock_file)


def _archives(source: str, folder: Path) -> list[tuple[list[str], Path, str]]:
    """Of each archive of a set: where it can be had, where torchvision looks for it, and its MD5."""
    kind: Any = getattr(datasets, source, None)
    if source == "MNIST":
        return [([mirror + name for mirror in kind.mirrors], folder / "MNIST" / "raw" / name, md5) for name, md5 in kind.resources]
    if source in ("CIFAR10", "STL10"):
        return [([kind.url], folder / kind.filename, kind.tgz_md5)]
    return []  # torchvision fetches CelebA by itself


def _fetch_from_any(urls: list[str], path: Path, md5: str) -> None:
    for url in urls:
        try:
            return fetch(url, path, md5)
        except DataError as error:  # the next one goes on with what has arrived
            failed = error
    raise failed


def fetch(url: str, path: Path | str, md5: str) -> None:
    """Download a file, unless it is there; a download that broke off goes on where it stopped.

    What has arrived waits in `<path>.part` until all of it is there and its MD5 is right. Several processes may ask for the same file, from
    a folder that they share: one fetches it, and the others wait.

    Args:
        url: of http or https; its server is asked for what is missing (RFC 9110, section 14.2), and may send all of it again.
        path: the file's name here; its folder is made.
        md5: of the whole file, as hexadecimal text.

    Raises:
        ValueError: the url is not one of http or https.
        DataError: the server cannot be reached, the connection broke, or the MD5 is wrong.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url must start with http:// or https://; got {url!r}")
    if check_integrity(path, md5):
        return
    try:
        with _one_at_a_time(path):
            if check_integrity(path, md5):  # another process has brought it
                return
            if not check_integrity(part, md5):  # else an earlier call ended just before the last line
                _receive(url, part)
            if (found := calculate_md5(part)) != md5:
                part.unlink()
                raise DataError(f"{url} is not the file that was expected: its MD5 is {found}, not {md5}; it was deleted, and the next call starts anew")
            os.replace(part, path)
    except (OSError, HTTPException) as error:
        size = part.stat().st_size if part.exists() else 0
        advice = f"{size:,} bytes are in {part}, and the next call goes on from there" if size else BY_HAND
        raise DataError(f"{url} cannot be fetched into {path.parent}; {advice} ({error})") from error


def _receive(url: str, part: Path) -> None:
    """Append to `part` what is still missing of the file, or write all of it where the server cannot go on from there."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "pulib"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()  # it is a response as well
        if error.code != 416 or not start:
            raise
        part.unlink()  # as long as the file or longer, and wrong
        return _receive(url, part)
    with response:
        start = start if response.status == 206 else 0
        length = response.headers["Content-Length"]
        total = None if length is None else start + int(length)
        with open(part, "ab" if start else "wb") as file, tqdm(desc=part.stem, initial=start, total=total, unit="B", unit_scale=True) as bar:
            while chunk := response.read(1 << 16):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and (size := part.stat().st_size) < total:  # which urllib does not notice
        raise ConnectionError(f"the connection broke when {total - size:,} of {total:,} bytes were missing")


def _drawn(preset: Preset, labels: dict[str, Tensor], seed: int) -> list[tuple[str, Tensor]]:
    """Rows of U (in random order), all that are left for S, and of the held-out normal and sensitive images, each with its part."""
    generator = torch.Generator().manual_seed(check_count(seed, "seed", 0))
    order = {which: torch.randperm(len(mine), generator=generator) for which, mine in labels.items()}
    good, bad = ({which: rows[is_normal(labels[which][rows], preset.normal) == kind] for which, rows in order.items()} for kind in (True, False))
    for name, needed, there in (("normal", preset.n_normal, len(good["train"])), ("sensitive", preset.n_hidden + preset.n_sensitive, len(bad["train"]))):
        if needed > there:
            raise ValueError(f"the training part of {preset.source} must hold at least {needed} {name} images for this preset; it holds {there}")
    u = torch.cat([good["train"][: preset.n_normal], bad["train"][: preset.n_hidden]])
    shuffled = u[torch.randperm(len(u), generator=generator)]
    return [("train", shuffled), ("train", bad["train"][preset.n_hidden :]), ("test", good["test"][: preset.n_heldout]), ("test", bad["test"][: preset.n_heldout])]


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
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
            raise DataError(f"{path} cannot be read as an image ({error}); remove or mend it") from error
    return torch.stack(images)
