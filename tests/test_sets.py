"""The paper's data sets, read by torchvision from small files in each set's own format, and folders of images."""

import dataclasses
import gzip
import hashlib
import http.server
import pickle
import socket
import struct
import tarfile
import threading
import urllib.error
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torchvision import datasets

from lab import until
from pulib import sets
from pulib.data import KINDS, DataError, is_normal
from pulib.sets import PRESETS, Preset, fetch, load_folder, load_set

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


def test_without_a_network_a_download_of_celeba_says_so(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setitem(sets.SOURCES, "CelebA", (offline, sets.SOURCES["CelebA"][1]))
    with pytest.raises(DataError, match="without a network, put its files there by hand.*no route to host"):
        load_set("celeba-male", tmp_path, download=True)


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


# --------------------------------------------------------------------------------------------- images that are there twice


def with_twins(monkeypatch, n: int) -> None:
    """Let the last `n` sensitive training images of MNIST be like one that is there already: 3 of index 0."""
    load = datasets.MNIST._load_data

    def changed(self):
        images, labels = load(self)
        if self.train:
            images[torch.nonzero(labels % 2 == 1).flatten()[-n:]] = images[labels == 3][0].clone()
        return images, labels

    monkeypatch.setattr(datasets.MNIST, "_load_data", changed)


def test_an_image_of_u_is_passed_over_for_s(tmp_path, monkeypatch):
    preset = dataclasses.replace(small("mnist-even"), n_hidden=20, n_sensitive=20)
    mnist(tmp_path, monkeypatch)
    before = load_set(preset, tmp_path)
    with_twins(monkeypatch, 12)  # so that some are in U, and some would be in S
    split = load_set(preset, tmp_path)
    assert len(split.sensitive) == 20 and split.unlabeled.shape == before.unlabeled.shape
    assert torch.equal(split.hidden.unlabeled, before.hidden.unlabeled)
    in_u = {row.numpy().tobytes() for row in split.unlabeled}
    assert len(in_u) < len(split.unlabeled) and not in_u & {row.numpy().tobytes() for row in split.sensitive}
    kept = [row for row in before.sensitive if any(torch.equal(row, other) for other in split.sensitive)]
    assert 10 < len(kept) < 20  # the others stay


def test_too_few_images_that_are_not_in_u_are_named(tmp_path, monkeypatch):
    mnist(tmp_path, monkeypatch)
    with_twins(monkeypatch, 60)
    with pytest.raises(ValueError, match="the training part of MNIST must hold at least 8 sensitive images that are not in U; it holds 0"):
        load_set(small("mnist-even"), tmp_path)


# --------------------------------------------------------------------------------------------- downloads


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by name; with `ranges`, from where it is asked to; breaks the connection after `cut` bytes; waits after `pause` bytes until it `goes_on`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges, self.cut, self.asked = {}, True, None, []
        self.pause, self.goes_on = None, threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content, asked = self.server.files.get(self.path[1:]), self.headers["Range"]
        self.server.asked.append((self.path[1:], asked))
        start = int(asked[len("bytes=") : -1]) if asked and self.server.ranges else 0
        if content is None or start >= len(content):
            return self.send_error(404 if content is None else 416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if pause := self.server.pause:
            self.wfile.write(content[start:pause])
            start = pause
            self.server.goes_on.wait(60)
        self.wfile.write(content[start:][: self.server.cut])

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


CONTENT = bytes(range(256)) * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()


def test_a_file_is_fetched_once(tmp_path, server):
    server.files["set.bin"] = CONTENT
    for _ in range(2):
        fetch(server.url + "set.bin", tmp_path / "new" / "set.bin", MD5)
    assert (tmp_path / "new" / "set.bin").read_bytes() == CONTENT
    assert server.asked == [("set.bin", None)] and [path.name for path in (tmp_path / "new").iterdir()] == ["set.bin"]


class Said:
    """What is printed from now on, in any thread."""

    def __init__(self, capsys) -> None:
        self.capsys, self.text = capsys, ""

    def __contains__(self, part: str) -> bool:
        self.text += self.capsys.readouterr().out
        return part in self.text


@pytest.mark.parametrize("breaks", [False, True])
def test_of_two_that_ask_for_one_file_one_fetches_it_and_the_other_waits(tmp_path, server, capsys, tried, breaks):
    path, part, said = tmp_path / "set.bin", tmp_path / "set.bin.part", Said(capsys)
    server.files["set.bin"], server.pause, server.cut = CONTENT, 100_000, 50_000 if breaks else None
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fetch, server.url + "set.bin", path, MD5)
        until(part.exists, "the first to fetch")
        second = pool.submit(fetch, server.url + "set.bin", path, MD5)
        until(lambda: f"{path} is just being fetched by another process; this one waits for it" in said or second.done(), "the second to wait")
        assert len(server.asked) == 1 and not second.done()
        server.pause = None
        server.goes_on.set()
    if breaks:
        assert "150,000 bytes are in" in str(first.exception()) and "200,000 bytes are in" in str(second.exception())
        assert [asked for _, asked in server.asked] == [None, "bytes=150000-"]  # where the first broke off
        assert part.read_bytes() == CONTENT[:200_000] and not path.exists()
        server.cut = None
        fetch(server.url + "set.bin", path, MD5)
    else:
        assert first.result() is second.result() is None and len(server.asked) == 1
    assert path.read_bytes() == CONTENT and [file.name for file in tmp_path.iterdir()] == ["set.bin"]
    tried("fault", f"two fetch one file into one folder{', and the connection of each breaks' if breaks else ''}", said.text.replace(f"{tmp_path}/", ""))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_goes_on_or_starts_anew_if_the_server_cannot(tmp_path, server, ranges):
    server.files["set.bin"], server.ranges, server.cut = CONTENT, ranges, 100_000
    path = tmp_path / "set.bin"
    with pytest.raises(DataError, match=r"100,000 bytes are in .*set.bin.part, and the next call goes on from there \(the connection broke when 156,000 of 256,000"):
        fetch(server.url + "set.bin", path, MD5)
    assert (tmp_path / "set.bin.part").read_bytes() == CONTENT[:100_000] and not path.exists()
    server.cut = None
    fetch(server.url + "set.bin", path, MD5)
    assert path.read_bytes() == CONTENT and not (tmp_path / "set.bin.part").exists()
    assert server.asked[1:] == [("set.bin", "bytes=100000-")]


def test_the_progress_bar_starts_where_the_download_goes_on(tmp_path, server, monkeypatch):
    bars, tqdm = [], sets.tqdm
    monkeypatch.setattr(sets, "tqdm", lambda **options: bars.append(options) or tqdm(**options))
    server.files["set.bin"] = CONTENT
    write(tmp_path / "set.bin.part", CONTENT[:1000])
    fetch(server.url + "set.bin", tmp_path / "set.bin", MD5)
    assert [(bar["desc"], bar["initial"], bar["total"]) for bar in bars] == [("set.bin", 1000, len(CONTENT))]


def test_a_part_that_is_whole_needs_no_server_and_one_that_is_too_long_is_thrown_away(tmp_path, server):
    write(tmp_path / "set.bin.part", CONTENT)
    fetch(server.url + "set.bin", tmp_path / "set.bin", MD5)
    assert server.asked == []
    server.files["set.bin"] = CONTENT
    write(tmp_path / "other" / "set.bin.part", CONTENT + b"x")
    fetch(server.url + "set.bin", tmp_path / "other" / "set.bin", MD5)
    assert [asked for _, asked in server.asked] == ["bytes=256001-", None]
    assert all((tmp_path / name).read_bytes() == CONTENT for name in ("set.bin", "other/set.bin"))


def test_a_wrong_file_is_deleted_and_named(tmp_path, server):
    server.files["set.bin"] = CONTENT[::-1]
    with pytest.raises(DataError, match=f"set.bin is not the file that was expected: its MD5 is [0-9a-f]{{32}}, not {MD5}; it was deleted"):
        fetch(server.url + "set.bin", tmp_path / "set.bin", MD5)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_or_silent_or_has_no_such_file_is_named(tmp_path, server, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent, monkeypatch.context() as patch:
        patch.setattr(sets, "TIMEOUT", 0.2)
        port = silent.getsockname()[1]
        with pytest.raises(DataError, match="cannot be fetched .*without a network, put its files there by hand .*timed out"):
            fetch(f"http://127.0.0.1:{port}/set.bin", tmp_path / "set.bin", MD5)
    with pytest.raises(DataError, match="cannot be fetched .*without a network, put its files there by hand"):
        fetch(f"http://127.0.0.1:{port}/set.bin", tmp_path / "set.bin", MD5)
    with pytest.raises(DataError, match="cannot be fetched .*404"):
        fetch(server.url + "set.bin", tmp_path / "set.bin", MD5)
    with pytest.raises(ValueError, match="url must start with http:// or https://; got 'file:///set.bin'"):
        fetch("file:///set.bin", tmp_path / "set.bin", MD5)


def on_server(server, root, monkeypatch) -> None:
    """Move the files of MNIST to the server, packed; the first mirror has none of them."""
    mnist(root, monkeypatch)
    for path in (root / "MNIST" / "raw").iterdir():
        server.files[f"{path.name}.gz"] = gzip.compress(path.read_bytes())
        path.unlink()
    md5s = [(name, hashlib.md5(content).hexdigest()) for name, content in server.files.items()]
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{server.url}nothing/", server.url])
    monkeypatch.setattr(datasets.MNIST, "resources", md5s)


def test_a_set_is_downloaded_from_the_mirror_that_has_it_and_only_once(tmp_path, server, monkeypatch):
    on_server(server, tmp_path, monkeypatch)
    preset, server.cut = small("mnist-even"), 200  # only the training images are longer
    with pytest.raises(DataError, match="200 bytes are in .*gz.part, and the next call goes on from there"):
        load_set(preset, tmp_path, download=True)
    server.cut = None
    split = load_set(preset, tmp_path, download=True)
    assert ("train-images-idx3-ubyte.gz", "bytes=200-") in server.asked and len(split.unlabeled) == 38
    asked = len(server.asked)
    for path in (tmp_path / "MNIST" / "raw").glob("*.gz"):
        path.unlink()  # what was unpacked is enough
    assert torch.equal(load_set(preset, tmp_path, download=True).unlabeled, split.unlabeled) and len(server.asked) == asked


def test_a_set_that_was_unpacked_in_part_is_unpacked_again(tmp_path, server, monkeypatch, tried):
    on_server(server, tmp_path, monkeypatch)
    preset, raw = small("mnist-even"), tmp_path / "MNIST" / "raw"
    split, asked = load_set(preset, tmp_path, download=True), len(server.asked)
    file = raw / "train-images-idx3-ubyte"
    content = file.read_bytes()
    for size in (0, 3, 10, len(content) - 1):  # as a process leaves it that was killed
        file.write_bytes(content[:size])
        with pytest.raises(DataError, match="the train part of MNIST is missing from .*, or damaged; download=True fetches them"):
            load_set(preset, tmp_path)
        assert torch.equal(load_set(preset, tmp_path, download=True).unlabeled, split.unlabeled)
    assert len(server.asked) == asked  # the archives are there
    tried("fault", "killed while MNIST is unpacked", "download=True unpacks it again, from the archives that are there")


def test_a_set_that_another_process_is_unpacking_is_waited_for(tmp_path, server, monkeypatch, capsys, tried):
    on_server(server, tmp_path, monkeypatch)
    preset, said = small("mnist-even"), Said(capsys)
    split = load_set(preset, tmp_path, download=True)
    file, asked = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte", len(server.asked)
    content = file.read_bytes()
    with ThreadPoolExecutor(1) as pool, FileLock(tmp_path / ".MNIST.lock"):
        file.write_bytes(content[:1000])
        waiting = pool.submit(load_set, preset, tmp_path, download=True)
        until(lambda: "MNIST is just being fetched by another process; this one waits for it" in said or waiting.done(), "the other to wait")
        assert not waiting.done() and file.read_bytes() == content[:1000]
        file.write_bytes(content)
        inode = file.stat().st_ino
    assert torch.equal(waiting.result().unlabeled, split.unlabeled)
    assert len(server.asked) == asked and file.stat().st_ino == inode  # what the other one has unpacked
    tried("fault", "MNIST loaded while another process unpacks it", said.text.replace(f"{tmp_path}/", ""))


def test_a_file_system_without_locks_does_without(tmp_path, server, monkeypatch):
    def acquire(self, *args, **kwargs):
        raise NotImplementedError("flock")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    server.files["set.bin"] = CONTENT
    fetch(server.url + "set.bin", tmp_path / "set.bin", MD5)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


def test_without_a_network_a_download_says_so(tmp_path, server, monkeypatch):
    on_server(server, tmp_path, monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{port}/"])
    with pytest.raises(DataError, match="without a network, put its files there by hand"):
        load_set(small("mnist-even"), tmp_path, download=True)


@pytest.mark.parametrize("name", ["cifar10-vehicles", "stl10-animals"])
def test_a_set_in_one_archive_is_downloaded_too(name, tmp_path, server, monkeypatch):
    preset, away = small(name), tmp_path / "away"
    FILES[preset.source](away, monkeypatch)
    kind = getattr(datasets, preset.source)
    with tarfile.open(tmp_path / "packed", "w:gz") as packed:
        packed.add(away / kind.base_folder, kind.base_folder)
    server.files["archive"] = (tmp_path / "packed").read_bytes()
    monkeypatch.setattr(kind, "url", server.url + "archive")
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(server.files["archive"]).hexdigest())
    write(tmp_path / "here" / f"{kind.filename}.part", server.files["archive"][:50])
    split = load_set(preset, tmp_path / "here", download=True)
    assert server.asked == [("archive", "bytes=50-")] and torch.equal(split.unlabeled, load_set(preset, away).unlabeled)


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


def test_a_half_unpacked_set_is_named_and_unpacked_again(tmp_path, monkeypatch, tried):
    celeba(tmp_path, monkeypatch)
    preset, folder = small("celeba-male"), tmp_path / "celeba" / "img_align_celeba"
    split = load_set(preset, tmp_path)
    with zipfile.ZipFile(tmp_path / "packed", "w") as packed:
        for path in sorted(folder.iterdir()):
            packed.write(path, f"{folder.name}/{path.name}")
    for path in folder.glob("train_1_*"):
        path.unlink()
    for download, advice in ((False, "download=True fetches them"), (True, "put its files there by hand")):
        with pytest.raises(DataError, match=f"the train part of CelebA is missing from .*, or damaged; .*{advice} .*12 of the 24 images are not in"):
            load_set(preset, tmp_path, download=download)
    (tmp_path / "packed").rename(folder.with_suffix(".zip"))
    assert torch.equal(load_set(preset, tmp_path, download=True).unlabeled, split.unlabeled)
    tried("fault", "killed while CelebA is unpacked", "it says how many images are missing; download=True unpacks them again")


def test_an_image_of_a_set_that_is_cut_short_is_named(tmp_path, monkeypatch):
    celeba(tmp_path, monkeypatch)
    for path in (tmp_path / "celeba" / "img_align_celeba").glob("train_1_*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="an image of CelebA .* is missing or damaged"):
        load_set(small("celeba-male"), tmp_path)
