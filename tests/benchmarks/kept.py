"""Runs of a benchmark that are kept: what a run made lies in a file, so that a benchmark goes on where it was stopped; and its results."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pulib import data
from pulib.data import DATA, record_sha256, write_atomic


def kept(path: Path, make: Callable[[], dict]) -> dict:
    """The arrays of a run's file; made first, and written whole or not at all, where there is none."""
    if not path.exists():
        arrays = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{os.getpid()}.{path.name}")  # another process may make the same
        np.savez_compressed(partial, **arrays)
        partial.replace(path)
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


def digest(*facts: object) -> str:
    """A short name for what a run depends on (JSON values)."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def results(name: str) -> dict:
    """The content of data/`name`; that of a file without rows where there is none."""
    path = DATA / name
    return json.loads(path.read_bytes()) if path.exists() else {"rows": []}


def write_results(name: str, content: dict) -> None:
    """Write data/`name`, and its SHA-256 with the "command" of its content into the manifest."""
    write_atomic(DATA / name, (json.dumps(content, indent=1) + "\n").encode())
    record_sha256(name, command=content["command"])


def to_bytes(images: Tensor) -> np.ndarray:
    """Images in [-1, 1] as uint8."""
    return data.to_bytes(images).numpy()


def to_images(pixels: np.ndarray) -> Tensor:
    """The images [-1, 1] of uint8 pixels."""
    return data.to_images(torch.from_numpy(pixels))
