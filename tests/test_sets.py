"""The paper's data sets, read by torchvision from small files in each set's own format, and folders of images."""

import dataclasses
import gzip
import hashlib
import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from pulib import sets
from pulib.data import KINDS, DataError, is_normal
from pulib.sets import PRESETS, Preset, load_folder, load_set

PER_CLASS = {"train": 12, "test": 3}


def pixels(label: int, index: int, side: int, channels: int = 3, part: str = "train") -> np.ndarray:
    """An image that tells its label and its part by its brightness, [channels, side, side] uint8; every one differs."""
    image = np.full((channels, side, side), 20 * label + (10 if part == "train" else 15), np.uint8)
    image[:, 0, 0] = index
    return image


def all_of(part: str, labels: range, side: int, channels: int = 3) -> tuple[np.ndarray, list[int]]:
    which = [label for label in labels for _ in range(PER_CLASS[part])]
    return np.stack([pixels(label, i, side, channels, part) for i, label in enumerate(which)]), which


def write(path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.md5(content).hexdigest()


def mnist(root, monkeypatch) -> None:
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = all_of(part, range(10), 28, 1)
        raw = root / "MNIST" / "raw"
        write(raw / f"{prefix}-images-idx3-ubyte", struct.pack(">IIII", 2051, len(images), 28, 28) + images.tobytes())
        write(raw / f"{prefix}-labels-idx1-ubyte", struct.pack(">II", 2049, len(labels)) + bytes(labels))


def cifar10(root, monkeypatch) -> None:
    lists = {}
    for part, file in (("train", "data_batch_1"), ("test", "test_batch")):
        images, labels = all_of(part, range(10), 32)
        lists[part] = [[file, write(root / "cifar-10-batches-py" / file, pickle.dumps({"data": images.reshape(len(images), -1), "labels": labels}))]]
    md5 = write(root / "cifar-10-batches-py" / "batches.meta", pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", lists["train"])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", lists["test"])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": md5})


def stl10(root, monkeypatch) -> None:
    lists = {"train": [], "test": []}
    for part in lists:
        images, labels = all_of(part, range(10), 96)
        for name, content in ((f"{part}_X.bin", images.transpose(0, 1, 3, 2).tobytes()), (f"{part}_y.bin", bytes(label + 1 for label in labels))):
            lists[part].append([name, write(root / "stl10_binary" / name, content)])
    lists["train"].append(["unlabeled_X.bin", write(root / "stl10_binary" / "unlabeled_X.bin", b"")])
    monkeypatch.setattr(datasets.STL10, "train_list", lists["train"])
    monkeypatch.setattr(datasets.STL10, "test_list", lists["test"])


def celeba(root, monkeypatch) -> None:
    base, rows = root / "celeba", []
    for part, number in (("train", 0), ("test", 2)):
        for label in (0, 1):
            rows += [(f"{part}_{label}_{i}.jpg", number, label, i) for i in range(PER_CLASS[part])]
    (base / "img_align_celeba").mkdir(parents=True)
    for name, number, label, i in rows:
        Image.fromarray(np.full((218, 178, 3), 50 + 100 * label + 3 * i + 40 * (number == 2), np.uint8)).save(base / "img_align_celeba" / name)
    texts = {
        "list_attr_celeba.txt": f"{len(rows)}\nBald Male\n" + "".join(f"{name} -1 {2 * label - 1}\n" for name, _, label, _ in rows),
        "identity_CelebA.txt": "".join(f"{row[0]} 1\n" for row in rows),
        "list_bbox_celeba.txt": f"{len(rows)}\nimage_id x_1\n" + "".join(f"{row[0]} 1\n" for row in rows),
        "list_landmarks_align_celeba.txt": f"{len(rows)}\nlefteye_x\n" + "".join(f"{row[0]} 1\n" for row in rows),
        "list_eval_partition.txt": "".join(f"{row[0]} {row[1]}\n" for row in rows),
    }
    listed = [("id", write(base / name, text.encode()), name) for name, text in texts.items()]
    monkeypatch.setattr(datasets.CelebA, "file_list", listed)


FILES = {"MNIST": mnist, "CIFAR10": cifar10, "STL10": stl10, "CelebA": celeba}


def small(name: str) -> Preset:
    """A preset with counts that the small files have."""
    n_normal, rest = (8, 3) if "celeba" in name else (30, 8)
    return dataclasses.replace(PRESETS[name], n_normal=n_normal, n_hidden=rest, n_sensitive=rest, n_heldout=9)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_makes_a_split_of_its_own_files(name, tmp_path, monkeypatch):
    preset = small(name)
    FILES[preset.source](tmp_path, monkeypatch)
    split = load_set(preset, tmp_path)
    assert split.unlabeled.shape == (preset.n_normal + preset.n_hidden, 3, preset.size, preset.size)
    assert split.unlabeled.dtype == torch.float32 and split.unlabeled.min() >= -1 and split.unlabeled.max() <= 1
    assert int(split.unlabeled_is_sensitive.sum()) == preset.n_hidden and len(split.sensitive) == preset.n_sensitive
    assert split.prior == preset.n_hidden / (preset.n_hidden + preset.n_normal)
    assert not is_normal(split.hidden.sensitive, preset.normal).any() and not is_normal(split.hidden.heldout_sensitive, preset.normal).any()
    assert is_normal(split.hidden.heldout_normal, preset.normal).all()
    for images, labels, offset in (
        (split.unlabeled, split.hidden.unlabeled, 10), (split.sensitive, split.hidden.sensitive, 10),
        (split.heldout_normal, split.hidden.heldout_normal, 15), (split.heldout_sensitive, split.hidden.heldout_sensitive, 15),
    ):  # fmt: skip
        brightness = ((images[:, :, -1, -1].mean(1) + 1) * 127.5).round().long()
        if preset.source != "CelebA":  # an image belongs to its label, and to its part
            assert torch.equal(brightness, 20 * labels + offset)
        else:
            low = 50 + 100 * labels + (0 if offset == 10 else 40)
            assert ((brightness >= low - 1) & (brightness <= low + 36)).all()
    again, other = load_set(preset, tmp_path), load_set(preset, tmp_path, seed=1)
    assert torch.equal(again.unlabeled, split.unlabeled) and not torch.equal(other.unlabeled, split.unlabeled)


def test_presets_have_the_counts_of_the_experiments_and_classes_that_part():
    assert {name: (p.n_normal, p.n_hidden, p.n_sensitive, p.size) for name, p in PRESETS.items() if "vehicles" in name or name in ("mnist-even", "celeba-male")} == {
        "mnist-even": (25000, 2500, 2500, 32), "cifar10-vehicles": (20000, 2000, 2000, 32),
        "stl10-vehicles": (2000, 200, 200, 96), "celeba-male": (2000, 200, 200, 256),
    }  # fmt: skip
    for one, other, classes in (("even", "odd", 10), ("cifar10-vehicles", "cifar10-animals", 10), ("stl10-vehicles", "stl10-animals", 10), ("celeba-male", "celeba-female", 2)):
        assert KINDS[one] | KINDS[other] == set(range(classes)) and not KINDS[one] & KINDS[other]


def test_vehicles_are_vehicles():
    """By the names that the sets give their classes."""
    cifar = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    stl = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    assert {cifar[i] for i in KINDS["cifar10-vehicles"]} == {"airplane", "automobile", "ship", "truck"}
    assert {stl[i] for i in KINDS["stl10-vehicles"]} == {"airplane", "car", "ship", "truck"}


@pytest.mark.parametrize("name", ["mnist-even", "cifar10-animals", "stl10-vehicles", "celeba-male"])
def test_missing_files_are_named_and_what_to_do(name, tmp_path):
    with pytest.raises(DataError, match=f"the train part of {PRESETS[name].source} is missing from .*download=True fetches them"):
        load_set(name, tmp_path)


def test_without_a_network_a_download_says_so(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise sets.URLError("no route to host")

    monkeypatch.setitem(sets.SOURCES, "MNIST", (offline, sets.SOURCES["MNIST"][1]))
    with pytest.raises(DataError, match="without a network, put its files there by hand.*no route to host"):
        load_set("mnist-even", tmp_path, download=True)


def test_damaged_files_are_named(tmp_path, monkeypatch):
    cifar10(tmp_path, monkeypatch)
    file = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="the train part of CIFAR10 is missing .* or damaged"):
        load_set(small("cifar10-vehicles"), tmp_path)


def test_wrong_presets_and_counts_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="preset must be one of mnist-even.*got 'imagenet'"):
        load_set("imagenet", tmp_path)
    mnist(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="the training part of MNIST must hold at least 25000 normal images for this preset; it holds 60"):
        load_set("mnist-even", tmp_path)


# --------------------------------------------------------------------------------------------- folders


def test_a_folder_gives_its_images_in_order(tmp_path):
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.full((40, 60, 3), 255, np.uint8)).save(tmp_path / "b.png")
    Image.fromarray(np.zeros((30, 30), np.uint8)).save(tmp_path / "a.PNG")
    Image.fromarray(np.full((16, 8, 4), 255, np.uint8)).save(tmp_path / "deep" / "c.png")
    (tmp_path / "notes.txt").write_text("not an image")
    images = load_folder(tmp_path, 16)
    assert images.shape == (3, 3, 16, 16) and images.dtype == torch.float32
    assert images[0].max() == -1 and images[1].min() == 1 and images[2].min() == 1
    assert load_folder(tmp_path, 8, channels=1).shape == (3, 1, 8, 8)


def test_a_folder_without_images_or_with_a_broken_one_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no image"):
        load_folder(tmp_path, 16)
    (tmp_path / "bad.png").write_bytes(gzip.compress(b"no image"))
    with pytest.raises(DataError, match="bad.png cannot be read as an image"):
        load_folder(tmp_path, 16)
    (tmp_path / "bad.png").unlink()
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="deep.png has more than 8 bits"):
        load_folder(tmp_path, 16)
    with pytest.raises(ValueError, match="channels must be 1"):
        load_folder(tmp_path, 16, channels=4)


def test_a_photo_stands_upright_as_its_camera_says(tmp_path):
    image = Image.fromarray(np.vstack([np.zeros((8, 16, 3), np.uint8), np.full((8, 16, 3), 255, np.uint8)]))
    exif = image.getexif()
    exif[0x0112] = 3  # turned by 180 degrees
    image.save(tmp_path / "photo.png", exif=exif)
    (upright,) = load_folder(tmp_path, 16)
    assert upright[:, 0].min() == 1 and upright[:, -1].max() == -1


def test_a_half_unpacked_set_is_named(tmp_path, monkeypatch):
    celeba(tmp_path, monkeypatch)
    for path in (tmp_path / "celeba" / "img_align_celeba").glob("train_1_*"):
        path.unlink()
    with pytest.raises(DataError, match="an image of CelebA .* is missing or damaged"):
        load_set(small("celeba-male"), tmp_path)
