"""Digits, and the split that PU learning starts from: unlabeled, sensitive and held-out images."""

import errno
import glob
import hashlib
import io
import json
import math
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("PULIB_DATA", ROOT / "data"))  # what the project ships
BUILD = Path(os.environ.get("PULIB_BUILD", ROOT / "build"))  # what runs write
DIGITS_FILE = "digits.npz"
RESTORED = "`git checkout -- data` restores it"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LARGEST_SEED = 2**53  # small enough to be multiplied and added to: generators take 64 bits
PER_DIGIT = 500  # images of each digit in the file
JUDGE_PER_DIGIT = 200  # of these, only the judge trains on the first 200
HELDOUT_PER_NORMAL_DIGIT = 50
Normal = Literal["even", "odd"]  # of the digits that are shipped
KINDS: dict[str, frozenset[int]] = {  # the normal labels, by name; those of the sets in `sets` as torchvision numbers them
    "even": frozenset({0, 2, 4, 6, 8}),
    "odd": frozenset({1, 3, 5, 7, 9}),
    "cifar10-vehicles": frozenset({0, 1, 8, 9}),
    "cifar10-animals": frozenset({2, 3, 4, 5, 6, 7}),
    "stl10-vehicles": frozenset({0, 2, 8, 9}),
    "stl10-animals": frozenset({1, 3, 4, 5, 6, 7}),
    "celeba-male": frozenset({1}),
    "celeba-female": frozenset({0}),
    "twos": frozenset({2}),
    "zeros": frozenset({0}),
    "upright": frozenset({0}),  # digits by slant: 1 is slanted
    "prompts": frozenset({0}),  # of two prompts, drawings of the first
}


class DataError(ValueError):
    """A data or weights file is missing, corrupt or of the wrong kind."""


class WriteError(OSError):
    """A file cannot be written: the disk is full, or the folder is read-only or none. `errno` is the system's; what was there is untouched."""

    def __str__(self) -> str:
        return self.strerror or ""


# ---------------------------------------------------------------------------------------------- files


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_file(path: Path, advice: str = "restore it, or move it away") -> bytes:
    """Content of a file.

    Raises:
        DataError: it is missing, cannot be read, or is none.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; {advice}") from error
    except (OSError, ValueError) as error:  # no path at all is a ValueError
        raise DataError(f"{str(path)!r} cannot be read ({getattr(error, 'strerror', None) or error}); {advice}") from error


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part.

    Raises:
        WriteError: it cannot be written; says why and what to do.
    """
    with _named(path):
        _write_beside(path, content, path)


def check_writable(path: Path) -> None:
    """Look whether `write_atomic` could begin to write a file there; a run does so before it spends hours on what it is to save.

    Raises:
        WriteError: it could not.
    """
    with _named(path):
        _write_beside(path, b"", None)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "free some space there" if error.errno in FULL else "make its folder writable"
        text = f"{path} cannot be written ({error.strerror or error}); {advice}, or set PULIB_BUILD to a folder elsewhere; nothing that was there has changed"
        raise WriteError(error.errno, text) from error


def _write_beside(path: Path, content: bytes, target: Path | None) -> None:
    """Write a temporary file beside `path`, which takes the place of `target`, or is deleted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    temporary = path.with_name(f".{path.name}.{threading.get_ident()}@{os.getpid()}@{platform.node()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target is not None:
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Delete the temporary files of writers that were killed: of this machine, whose processes are gone. Elsewhere one may be alive."""
    if os.name != "posix":  # on Windows the signal 0 would end the process
        return
    with suppress(OSError):
        for stray in folder.glob(f".*@*@{glob.escape(platform.node())}.tmp"):
            number = stray.name.rsplit("@", 2)[1]
            if number.isdigit() and not _alive(int(number)):
                stray.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's, or not one of ours
        return True
    return True


def manifest() -> dict[str, dict]:
    """What data/manifest.json says of each shipped file: SHA-256, command that rebuilds it, source, licence, metrics."""
    path = DATA / "manifest.json"
    if not os.path.lexists(path):
        return {}
    content = read_file(path, RESTORED)
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is corrupt: it is not JSON ({error}); {RESTORED}") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) and isinstance(entry.get("sha256"), str) for entry in entries.values()):
        raise DataError(f"{path} is corrupt: it must give the sha256 of each file by its name; {RESTORED}")
    return entries


def record_sha256(name: str, **facts: object) -> None:
    """Write the SHA-256 of data/`name`, and any facts about it, into the manifest."""
    digest, entries = sha256(DATA / name), manifest()
    entries[name] = {**entries.get(name, {}), **facts, "sha256": digest}
    text = json.dumps(dict(sorted(entries.items())), indent=2, ensure_ascii=False) + "\n"
    write_atomic(DATA / "manifest.json", text.encode())


def read_verified(name: str) -> bytes:
    """Content of data/`name`, after its SHA-256 was compared with the manifest's.

    Raises:
        DataError: the file is missing, not listed, or differs from the manifest.
    """
    path = DATA / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{name} lies outside {DATA}; a name in the manifest must be that of a file below it")
    content = read_file(path, RESTORED)
    expected = manifest().get(name, {}).get("sha256")
    if expected is None:
        known = ", ".join(sorted(Path(listed).name for listed in manifest() if Path(listed).parent == Path(name).parent))
        raise DataError(f"{name} is not listed in {DATA / 'manifest.json'}; allowed: {known}")
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(f"{path} is corrupt: its SHA-256 is {found[:12]}…, the manifest says {expected[:12]}…; {RESTORED}")
    return content


def load_digits() -> tuple[Tensor, Tensor]:
    """The embedded MNIST subset.

    Returns:
        images: float32 [5000, 1, 28, 28] in [-1, 1].
        digits: int64 [5000], sorted, 500 of each of 0..9.

    Raises:
        DataError: the file is missing or corrupt.
    """
    try:
        with np.load(io.BytesIO(read_verified(DIGITS_FILE)), allow_pickle=False) as arrays:
            images, digits = arrays["images"], arrays["digits"]
    except DataError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds
        raise DataError(f"{DATA / DIGITS_FILE} is corrupt: it is no archive of two arrays of numbers; {RESTORED}") from error
    return to_images(torch.from_numpy(images)).unsqueeze(1), torch.from_numpy(digits).long()


def to_bytes(images: Tensor) -> Tensor:
    """Images in [-1, 1] as files hold them, uint8 in 0 … 255; what is beyond is cut."""
    return images.clamp(-1, 1).add(1).mul(127.5).round().byte()


def to_images(pixels: Tensor) -> Tensor:
    """The images, float32 in [-1, 1], of pixels in 0 … 255."""
    return pixels.float() / 127.5 - 1


def distort(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """A random affine and elastic distortion of each image, [n, 1, h, w] in [-1, 1] -> the same shape and range.

    Strength 1 turns by up to 12 degrees, scales by 12 %, shears by 0.2, shifts by 2.5 pixels and bends by about 1;
    the others are in proportion. It keeps the mixture p_U = prior p_S + (1 - prior) p_N a mixture, with the same prior.

    Raises:
        ValueError: strength is not a finite number >= 0.
    """
    n, strength = len(images), check_number(strength, "strength", 0)

    def within(limit: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, generator=generator) * 2 - 1) * limit * strength

    angle, size, stretch, shear = within(math.radians(12)), 1 + within(0.12), 1 + within(0.1), within(0.2)
    cos, sin, shift = torch.cos(angle) * size, torch.sin(angle) * size, within(2.5 / 14, 2)
    top = torch.stack([cos * stretch, shear - sin, shift[:, 0]], 1)
    bottom = torch.stack([sin, cos / stretch, shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack([top, bottom], 1), list(images.shape), align_corners=False)
    bumps = torch.randn(n, 2, 7, 7, generator=generator) * 0.07 * strength
    bumps = F.interpolate(bumps, size=images.shape[-2:], mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    bent = F.grid_sample(images.cpu() + 1, grid + bumps, mode="bicubic", align_corners=False)  # not every device has bicubic
    return (bent.clamp(0, 2) - 1).to(images.device)


# ---------------------------------------------------------------------------------------------- split


@dataclass(frozen=True)
class Hidden:
    """What a learner of the PU task may not see: true digits, for evaluation only (int64, one per image)."""

    unlabeled: Tensor
    sensitive: Tensor
    heldout_normal: Tensor
    heldout_sensitive: Tensor


@dataclass(frozen=True, eq=False)
class PUSplit:
    """A positive-unlabeled data set in the two-sample (case-control) setting.

    Images are float32 [n, 1, 28, 28] in [-1, 1]. `prior` is the exact share of sensitive images in
    `unlabeled` (the paper's beta). `hidden` holds the true digits, for evaluation only.
    """

    normal: str
    unlabeled: Tensor
    sensitive: Tensor
    heldout_normal: Tensor
    heldout_sensitive: Tensor
    prior: float
    seed: int
    hidden: Hidden

    @property
    def unlabeled_is_sensitive(self) -> Tensor:
        """bool [n_unlabeled]: the secret in the unlabeled set; for evaluation and the oracle only."""
        return ~is_normal(self.hidden.unlabeled, self.normal)

    @property
    def oracle_normal(self) -> Tensor:
        """The normal images of `unlabeled`: what only an oracle could train on."""
        return self.unlabeled[~self.unlabeled_is_sensitive]


def is_normal(labels: Tensor, normal: str) -> Tensor:
    """bool, same shape as `labels`: is the digit (or class) normal when `normal` is "even", "odd" or another of `KINDS`?

    Raises:
        ValueError: normal is none of them.
    """
    return torch.isin(labels, torch.tensor(normal_digits(normal), device=labels.device))


def normal_digits(normal: str) -> list[int]:
    """The labels that count as normal, in order.

    Raises:
        ValueError: there is no such kind.
    """
    if not isinstance(normal, str) or normal not in KINDS:
        raise ValueError(f"normal must be one of {', '.join(map(repr, KINDS))}; got {normal!r}")
    return sorted(KINDS[normal])


def check_normal(normal: str) -> str:
    """`normal` as it is.

    Raises:
        ValueError: it is neither "even" nor "odd".
    """
    if normal not in ("even", "odd"):
        raise ValueError(f"normal must be 'even' or 'odd'; got {normal!r}")
    return normal


def check_prior(prior: float, name: str = "prior") -> float:
    """`prior` as a float.

    Raises:
        ValueError: it is not a number in [0, 1).
    """
    if not is_number(prior) or not 0 <= prior < 1:
        raise ValueError(f"{name} must be a number in [0, 1), the share of sensitive images in U; got {prior!r}")
    return float(prior)


def prior_in_unlabeled(prior_all: float, n_unlabeled: int, n_sensitive: int) -> float:
    """The share of sensitive images in U alone, from their share in U and S together.

    Where S was taken out of U (one sample), software often reports the second; every risk here needs the first
    (two samples). Both count the same images: prior_all (n_unlabeled + n_sensitive) = prior n_unlabeled + n_sensitive.

    Args:
        prior_all: share of sensitive images in U and S together, in [n_sensitive / (n_unlabeled + n_sensitive), 1).
        n_unlabeled: images in U, >= 1.
        n_sensitive: images in S, >= 0.

    Raises:
        ValueError: an argument outside its range; below it, S alone would hold more sensitive images than there are.
    """
    n_u, n_s = check_count(n_unlabeled, "n_unlabeled"), check_count(n_sensitive, "n_sensitive", 0)
    least = n_s / (n_u + n_s)
    if isinstance(prior_all, bool) or not isinstance(prior_all, (int, float, np.floating)) or not least <= prior_all < 1:
        raise ValueError(f"prior_all must be a number in [{least:.4g}, 1), as S alone is {least:.4g} of U and S together; got {prior_all!r}")
    return max((prior_all * (n_u + n_s) - n_s) / n_u, 0.0)  # rounding may fall just below 0


def check_count(value: int, name: str, low: int = 1) -> int:
    """`value` as an int.

    Raises:
        ValueError: it is not a whole number >= low.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ValueError(f"{name} must be a whole number >= {low}; got {value!r}")
    return int(value)


def check_positive(value: float, name: str) -> float:
    """`value` as a float.

    Raises:
        ValueError: it is not a finite number > 0.
    """
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number > 0; got {value!r}")
    return float(value)


def check_number(value: float, name: str, low: float = -math.inf) -> float:
    """`value` as a float.

    Raises:
        ValueError: it is not a finite number, or below `low`.
    """
    if not is_number(value) or not -math.inf < value < math.inf or value < low:
        raise ValueError(f"{name} must be a finite number{f' >= {low:g}' if low > -math.inf else ''}; got {value!r}")
    return float(value)


def check_share(value: float, name: str) -> float:
    """`value` as a float.

    Raises:
        ValueError: it is not a number in [0, 1].
    """
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1]; got {value!r}")
    return float(value)


def is_number(value: object) -> bool:
    """Whether it is an int or a float, of Python's or numpy's; truth values are none."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def check_seed(seed: int) -> int:
    """`seed` as an int.

    Raises:
        ValueError: it is not a whole number in 0 … 2^53.
    """
    if check_count(seed, "seed", 0) > LARGEST_SEED:
        raise ValueError(f"seed must be at most {LARGEST_SEED}; got {seed}")
    return int(seed)


def seeded(seed: int) -> torch.Generator:
    """A generator of random numbers on the CPU; seed and errors as in `check_seed`."""
    return torch.Generator().manual_seed(check_seed(seed))


def judge_part() -> tuple[Tensor, Tensor]:
    """Images and digits that only the judge trains on: the first 200 of each digit (see `load_digits`)."""
    images, digits = load_digits()
    mine = _judges(len(digits))
    return images[mine], digits[mine]


def learner_part() -> tuple[Tensor, Tensor]:
    """Images and digits that the judge has never seen: the last 300 of each digit."""
    images, digits = load_digits()
    theirs = ~_judges(len(digits))
    return images[theirs], digits[theirs]


def _judges(n: int) -> Tensor:
    return torch.arange(n) % PER_DIGIT < JUDGE_PER_DIGIT


def load_pu(normal: Normal = "even", prior: float = 1 / 11, n_sensitive: int = 125, seed: int = 0) -> PUSplit:
    """Split the digits into U (normal and some sensitive), S (labeled sensitive) and held-out images.

    U holds 1,250 normal images and as many sensitive ones as `prior` asks for (125 at 1/11). When the
    sensitive digits do not suffice, U has fewer normal images instead. S is disjoint from U; whatever
    is left is held out. The digits within each part are balanced up to rounding.

    Args:
        normal: "even" or "odd": the digits that may be generated.
        prior: wanted share of sensitive images in U, in [0, 1); the exact one stands in the result.
        n_sensitive: labeled sensitive images, >= 1.
        seed: of the draw.

    Raises:
        ValueError: an argument is outside its range, or more images are asked for than there are.
    """
    check_normal(normal)
    prior, n_sensitive, seed = check_prior(prior), check_count(n_sensitive, "n_sensitive"), check_count(seed, "seed", 0)
    images, digits = learner_part()
    order = _balanced_order(digits, seed)
    ok = is_normal(digits[order], normal)
    good, bad = order[ok], order[~ok]
    n_heldout = HELDOUT_PER_NORMAL_DIGIT * 5
    n_normal, spare = len(good) - n_heldout, len(bad) - n_sensitive - n_heldout
    if spare < 0 or (spare == 0 and prior > 0):
        raise ValueError(f"n_sensitive must be at most {len(bad) - n_heldout - 1}, so that U keeps some; got {n_sensitive}")
    n_hidden = round(n_normal * prior / (1 - prior))
    if n_hidden > spare:
        n_hidden, n_normal = spare, max(1, round(spare * (1 - prior) / prior))
    shuffled = torch.randperm(n_normal + n_hidden, generator=seeded(seed))
    parts = (
        torch.cat([good[:n_normal], bad[:n_hidden]])[shuffled],
        bad[len(bad) - n_sensitive :],  # the same S for every prior
        good[-n_heldout:],
        bad[n_hidden : len(bad) - n_sensitive],
    )
    u, s, n, p = ((images[part], digits[part]) for part in parts)
    return make_split(normal, u[0], s[0], n[0], p[0], u[1], s[1], n[1], p[1], seed=seed)


def _balanced_order(digits: Tensor, seed: int) -> Tensor:
    """A random order of the images in which every stretch of ten holds each digit once."""
    generator = seeded(seed)
    per_digit = [torch.nonzero(digits == d).flatten() for d in range(10)]
    return torch.stack([rows[torch.randperm(len(rows), generator=generator)] for rows in per_digit], 1).flatten()


def make_split(
    normal: str,
    unlabeled: Tensor,
    sensitive: Tensor,
    heldout_normal: Tensor,
    heldout_sensitive: Tensor,
    unlabeled_digits: Tensor,
    sensitive_digits: Tensor,
    heldout_normal_digits: Tensor,
    heldout_sensitive_digits: Tensor,
    seed: int = 0,
) -> PUSplit:
    """A checked `PUSplit` of the images given; the digits ([n] each) are hidden from training.

    Raises:
        ValueError: a part is empty, has no normal image in U, or S shares an image with U.
    """
    parts = dict(unlabeled=unlabeled, sensitive=sensitive, heldout_normal=heldout_normal, heldout_sensitive=heldout_sensitive)
    for name, images in parts.items():
        if len(images) == 0:
            raise ValueError(f"{name} is empty; it must hold at least one image")
    _check_lengths(parts, (unlabeled_digits, sensitive_digits, heldout_normal_digits, heldout_sensitive_digits))
    hidden_sensitive = ~is_normal(unlabeled_digits, normal)
    if hidden_sensitive.all():
        raise ValueError(f"unlabeled holds no normal ({normal}) image; its prior would be 1, allowed is [0, 1)")
    shared = _rows(unlabeled) & _rows(sensitive)
    if shared:
        raise ValueError(
            f"sensitive shares {len(shared)} image(s) with unlabeled; the two-sample PU setting needs S disjoint from U"
        )
    return PUSplit(
        normal=normal,
        **parts,
        prior=hidden_sensitive.double().mean().item(),
        seed=seed,
        hidden=Hidden(unlabeled_digits, sensitive_digits, heldout_normal_digits, heldout_sensitive_digits),
    )


def _check_lengths(parts: dict[str, Tensor], digits: tuple[Tensor, ...]) -> None:
    for (name, images), mine in zip(parts.items(), digits, strict=True):
        if len(images) != len(mine):
            raise ValueError(f"{name}_digits must have one digit per image; got {len(mine)} for {len(images)} images")


def _rows(images: Tensor) -> set[bytes]:
    return {hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest() for row in images.cpu().flatten(1)}
