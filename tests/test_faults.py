"""What may happen to a machine: processes killed, disks full or read-only, files damaged, memory short. Nothing that existed is lost, and one sentence says what to do.

The faults are real ones wherever they can be made. The functions that begin with `play_` print JSON, and run in children of a process (this file as
a script) that imports the library once.
"""

import contextlib
import errno
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from test_security import Payload
from torch import nn

from pulib import data, diffusion, evaluation, judges, plots, scale, training
from pulib.data import DataError, WriteError, write_atomic
from pulib.pipelines import Card, save_pipeline
from pulib.risk import pu_risk
from pulib.runs import Checkpoints, in_parts
from pulib.training import CheckpointError, Settings, fit, new_model, read_tensors

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks, signals and mounts as POSIX has them")

U, S = (torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1).split([20, 10])
NOBODY = 65534
STEPS = 40


def pu(loss_u, loss_s):
    return pu_risk(loss_u, loss_s, 0.2)


def run(path, steps: int = STEPS, model=None, unlabeled=U, sensitive=S, objective=pu, every: int = 1, **changes):
    """A small training run, as `fit` gives it; with a checkpoint after every step."""
    settings = Settings(steps, batch_unlabeled=6, batch_sensitive=2, checkpoint_every=every, **({"cap": 4.0, "cap_level": "running"} | changes))
    return fit(model or new_model((8, 16), T=50), unlabeled, objective, settings, sensitive, path)


def tensors_of(path: Path) -> dict:
    tensors, facts = read_tensors(path.read_bytes(), path)
    return tensors | {"step": torch.tensor(facts["step"])}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lost(before: dict[str, bytes], folder: Path) -> int:
    """How many files are gone or have another content."""
    return sum(files(folder).get(name) != content for name, content in before.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict:
    """What an uninterrupted run leaves."""
    path = tmp_path_factory.mktemp("whole") / "run.checkpoint"
    list(run(path))
    return tensors_of(path)


@pytest.fixture(scope="module")
def play():
    """A call that runs a function of this file in a child of a process that has imported the library, and gives what it prints."""
    settings = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | settings)

    def call(name: str, *arguments) -> dict:
        server.stdin.write(json.dumps([name, *map(str, arguments)]) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    yield call
    server.stdin.close()
    server.wait()


def serve() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        if (status := ended(forked(partial(globals()[name], *arguments)))) != 0:
            print(json.dumps({"failed": status}), flush=True)


def forked(job) -> int:
    """A child that does a job and ends, with status 0 if it raised nothing, 7 on Ctrl-C."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        job()
        sys.stdout.flush()
        status = 0
    except KeyboardInterrupt:
        status = 7
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# ------------------------------------------------------------------------------------------ killed, interrupted


def play_kill_runs(path: str, number: str, tries: str) -> None:
    """Runs that are killed or interrupted at random moments, and one that ends; the step of the checkpoint after each, and how each ended.

    The moments count from the start of the run and, every other time, from its first checkpoint, however slow the machine is.
    """
    checkpoint, chance, steps, ends = Path(path), random.Random(int(number)), [0], []

    def written() -> int:
        return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0

    for i in range(int(tries)):
        before, end = written(), time.monotonic() + 60
        child = forked(lambda: list(run(checkpoint)))
        while i % 2 and steps[-1] < STEPS and time.monotonic() < end and written() == before:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.1) if i % 2 else chance.uniform(0.03, 0.25))
        os.kill(child, int(number))
        ends.append(ended(child))
        steps.append(int(tensors_of(checkpoint)["step"]) if checkpoint.exists() else 0)
    last = ended(forked(lambda: list(run(checkpoint))))
    print(json.dumps({"steps": steps, "ends": ends, "last": last}))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_at_random_moments_goes_on_bit_for_bit(tmp_path, tried, whole, play, number):
    path = tmp_path / "run.checkpoint"
    seen = play("play_kill_runs", path, int(number), 8)
    how = 7 if number == signal.SIGINT else -number
    assert how in seen["ends"] and set(seen["ends"]) <= {how, 0}  # 0: it had trained all steps
    backwards = sum(max(0, before - after) for before, after in zip(seen["steps"], seen["steps"][1:]))
    assert backwards == 0 and max(seen["steps"][:-1]) > 0 and any(0 < step < STEPS for step in seen["steps"])
    assert seen["last"] == 0 and same(tensors_of(path), whole)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    tried("fault", f"training ended by {number.name}, 8 times at random moments", f"goes on after the steps {seen['steps'][1:]}; weights as without", backwards)


def play_kill_writers(folder: str) -> None:
    """Writers that write as fast as they can, killed ten times; how many contents were not whole, and files left by the killed and by the next.

    They are killed at random moments and, every other time, when a file that is not yet whole is seen beside.
    """
    path, chance, broken, strays, after = Path(folder) / "run.checkpoint", random.Random(3), 0, 0, 0
    model = new_model((8, 16), T=50)

    def write() -> None:
        for step in range(10**6):
            training.save_weights(path, model, step=step)

    training.save_weights(path, model, step=-1)
    for i in range(10):
        child, end = forked(write), time.monotonic() + 60
        time.sleep(chance.uniform(0.01, 0.1))
        while i % 2 and len(os.listdir(folder)) < 2 and time.monotonic() < end:
            pass
        os.kill(child, signal.SIGKILL)
        ended(child)
        try:
            broken += not same(read_tensors(path.read_bytes(), path)[0], model.state_dict())
        except CheckpointError:
            broken += 1
        strays += len(os.listdir(folder)) - 1
        training.save_weights(path, model, step=-1)
        after += len(os.listdir(folder)) - 1
    print(json.dumps({"broken": broken, "strays": strays, "after": after}))


def test_killed_while_a_checkpoint_is_written_the_old_one_or_the_new_is_there_and_nothing_piles_up(tmp_path, tried, play):
    seen = play("play_kill_writers", tmp_path)
    assert seen["strays"] >= 1, "no writer was killed in the midst of writing"
    assert seen["broken"] == 0 and seen["after"] == 0
    tried("fault", "kill -9 in the midst of writing a checkpoint, 10 times", f"{seen['strays']} half-written beside it, which the next writer deletes", seen["broken"])


def test_the_temporary_file_of_a_writer_that_is_alive_or_elsewhere_is_left_alone(tmp_path):
    node, alive = data.platform.node(), os.getppid()
    gone = subprocess.Popen(["true"])
    gone.wait()
    names = {f".other.1@{gone.pid}@{node}.tmp": False, f".other.1@{alive}@{node}.tmp": True, f".other.1@{gone.pid}@another-{node}.tmp": True, ".notes.tmp": True}
    names |= {f".other.1@{number}@{node}.tmp": True for number in ("x", 10**30)}  # no process of this machine
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    write_atomic(tmp_path / "file", b"new")
    assert {name: (tmp_path / name).exists() for name in names} == names


def test_an_interrupt_while_a_checkpoint_is_written_waits_until_it_is_whole(tmp_path, monkeypatch, tried, whole):
    """Ctrl-C within the call that puts the content on the disk."""
    path, sync, calls = tmp_path / "run.checkpoint", os.fsync, []
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted(descriptor):
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        sync(descriptor)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupted)
            with pytest.raises(KeyboardInterrupt):
                list(run(path))
    finally:
        signal.signal(signal.SIGINT, handler)
    kept = int(tensors_of(path)["step"])
    assert kept == 3 and [file.name for file in tmp_path.iterdir()] == [path.name]  # one call was the try before the first step
    list(run(path))
    assert same(tensors_of(path), whole)
    tried("fault", "Ctrl-C in the midst of writing a checkpoint", "the checkpoint of step 3 is written to its end, then KeyboardInterrupt", 3 - kept)


def play_two_at_once(path: str) -> None:
    children = [forked(lambda: list(run(Path(path)))) for _ in range(2)]
    broken, seen, end = 0, 0, time.monotonic() + 60
    while len(children) and time.monotonic() < end:
        seen += 1
        for child in list(children):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                children.remove(child)
                broken += status != 0
        if Path(path).exists():
            try:
                tensors_of(Path(path))
            except CheckpointError:
                broken += 1
        time.sleep(0.005)
    print(json.dumps({"broken": broken, "running": len(children), "looks": seen}))


def test_two_processes_with_one_checkpoint_both_end_and_it_is_whole_at_every_moment(tmp_path, tried, whole, play):
    path = tmp_path / "run.checkpoint"
    seen = play("play_two_at_once", path)
    assert seen["broken"] == 0 and seen["running"] == 0 and seen["looks"] > 10
    assert same(tensors_of(path), whole) and [file.name for file in tmp_path.iterdir()] == [path.name]
    tried("fault", "two processes train into one checkpoint", f"whole at each of {seen['looks']} looks; both end with the weights of one", seen["broken"])


def test_two_threads_may_write_one_file(tmp_path):
    import threading

    path, contents = tmp_path / "file", [bytes([i]) * 100_000 for i in range(4)]
    threads = [threading.Thread(target=lambda c=c: [write_atomic(path, c) for _ in range(10)]) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents and list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------------------------- disks


class Disk:
    """A folder whose disk can be filled: a small one that is mounted there, or a limit on the size of files."""

    def __init__(self, folder: Path, mounted: bool) -> None:
        self.folder, self.mounted = folder, mounted
        if mounted and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True).returncode:
            pytest.skip("mounting takes root; the limit on the size of files stands in for it")

    @contextlib.contextmanager
    def full(self):
        if self.mounted:
            ballast = self.folder / "ballast"
            with pytest.raises(OSError, match="No space left"), open(ballast, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 16 if os.statvfs(self.folder).f_bavail > 16 else 1 << 12))
            yield
            ballast.unlink()
        else:
            import resource

            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (40, limits[1]))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture(params=["mounted", "limited"])
def disk(request, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = Disk(folder, request.param == "mounted")
    yield disk
    disk.close()


ROWS = [{"split": "even", "arm": "pu", "nsr": 0.9}]
SAVED = {  # what is written, into a folder, from what seed
    "weights": lambda folder, seed: training.save_weights(folder / "weights", new_model((8, 16), T=50, seed=seed)),
    "results": lambda folder, seed: evaluation.write_results("04_probe", ROWS * (seed + 1)),
    "a figure": lambda folder, seed: write_atomic(folder / "figure.png", picture(seed)),
    "a judge": lambda folder, seed: judges.save_judge(folder / "judge", own_judge(seed)),
    "drawings": lambda folder, seed: scale.kept_images(folder / f"drawings_{seed}", lambda: U),
    "the manifest": lambda folder, seed: data.record_sha256("weights", seed=seed),
}


def picture(seed: int) -> bytes:
    figure, axes = plots.new_figure(2, 2)
    axes.flat[0].plot(torch.rand(20, generator=torch.Generator().manual_seed(seed)))
    return plots.render(figure, "a curve").png


class Small(nn.Linear):
    """In place of a ResNet, whose 45 MB take long to write."""

    config = {"n_classes": 2, "shape": [3, 8, 8]}


def own_judge(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Small(8, 2)


@pytest.mark.parametrize("what", SAVED)
def test_on_a_full_disk_the_old_file_stays_and_the_sentence_says_what_to_do(what, disk, tried, monkeypatch):
    for module in (data, evaluation):
        monkeypatch.setattr(module, "DATA", disk.folder)
    monkeypatch.setattr(evaluation, "BUILD", disk.folder)
    (disk.folder / "weights").write_bytes(b"listed")
    SAVED[what](disk.folder, 0)
    before = files(disk.folder)
    with disk.full(), pytest.raises(WriteError) as caught:
        SAVED[what](disk.folder, 1)
    sentence = str(caught.value)
    assert caught.value.errno == (errno.ENOSPC if disk.mounted else errno.EFBIG) and isinstance(caught.value, OSError)
    assert str(disk.folder) in sentence and "free some space there, or set PULIB_BUILD" in sentence and "\n" not in sentence
    kept = lost(before, disk.folder)
    assert files(disk.folder).keys() == before.keys() and kept == 0
    SAVED[what](disk.folder, 1)  # there is room again
    assert files(disk.folder) != before
    tried("fault", f"full disk ({'a mounted one' if disk.mounted else 'by a limit'}): {what}", sentence.replace(str(disk.folder.parent), ""), kept)


def test_on_a_full_disk_the_old_pipeline_stays(disk, tried):
    diffusers = pytest.importorskip("diffusers")
    blocks = dict(block_out_channels=(8, 16), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
    network = diffusers.UNet2DModel(8, 1, 1, layers_per_block=1, norm_num_groups=4, add_attention=False, **blocks)
    model, folder = diffusion.NoisePredictor(network, diffusion.linear_schedule(10), "eps"), disk.folder / "model"
    save_pipeline(folder, model, Card("digits", "PU risk", 0.1))
    before = files(disk.folder)
    with disk.full(), pytest.raises(WriteError, match="nothing that was there has changed$") as caught:
        save_pipeline(folder, model, Card("other data", "PU risk", 0.1))
    sentence = str(caught.value)
    kept = lost(before, disk.folder)
    assert sentence.startswith(f"{folder} cannot be written (") and "\n" not in sentence
    assert files(disk.folder) == before and list(disk.folder.iterdir()) == [folder]
    tried("fault", f"full disk ({'a mounted one' if disk.mounted else 'by a limit'}): a pipeline", sentence.replace(str(disk.folder.parent), ""), kept)


def test_training_goes_on_when_the_disk_is_full_and_saves_when_there_is_room(disk, tried, whole):
    path = disk.folder / "run.checkpoint"
    records = run(path)
    for _ in range(5):
        record = next(records)
    before = files(disk.folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        with disk.full():
            for _ in range(5):
                record = next(records)
            assert lost(before, disk.folder) == 0 and tensors_of(path)["step"] == 5
    assert record.step == 10 and len(told) == 1  # not one for each step
    sentence = str(told[0].message)
    assert "run.checkpoint cannot be written (" in sentence and "the run goes on" in sentence
    assert next(records).step == 11 and tensors_of(path)["step"] == 11
    list(records)
    assert same(tensors_of(path), whole)
    tried("fault", f"full disk ({'a mounted one' if disk.mounted else 'by a limit'}) for 5 steps of training", sentence.replace(str(disk.folder.parent), ""), 10 - record.step)


def test_a_run_that_ends_or_is_left_while_the_disk_is_full_has_its_model_in_its_last_record(disk, whole):
    path = disk.folder / "run.checkpoint"
    records = run(path)
    next(records)
    with disk.full(), pytest.warns(UserWarning, match="its weights are in the model of its records alone"):
        *_, last = records
    assert last.step == STEPS and same({k: v for k, v in whole.items() if k.startswith("ema.")}, {f"ema.{k}": v for k, v in last.model.state_dict().items()})
    path.unlink()
    records = run(path)
    next(records), next(records)
    with disk.full():
        records.close()  # nothing new to save
    assert tensors_of(path)["step"] == 2


def play_as_nobody(folder: str) -> None:
    os.setuid(NOBODY)
    print(json.dumps({"sentence": refused_before_the_first_step(Path(folder) / "runs" / "run.checkpoint")}))


def refused_before_the_first_step(path) -> str:
    def never(*losses):
        assert not losses[0].requires_grad, "it trained before it looked"
        return losses[0].mean()

    with pytest.raises(WriteError) as caught:
        next(run(path, objective=never))
    return str(caught.value)


@pytest.mark.parametrize("how", ["below a file", "another user's", "mounted read-only"])
@pytest.mark.parametrize("kept", [Path, Checkpoints])
def test_a_folder_that_cannot_be_written_is_named_before_the_first_step(how, kept, tmp_path, tried, play):
    folder = tmp_path / "build"
    if how == "below a file":
        folder.write_bytes(b"a file")
        sentence = refused_before_the_first_step(kept(folder / "runs" / "run.checkpoint"))
    elif how == "another user's":
        if os.geteuid():
            pytest.skip("takes root, to become another user")
        folder.mkdir()
        sentence = play("play_as_nobody", folder)["sentence"]
    else:
        folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(folder)], capture_output=True).returncode:
            pytest.skip("mounting takes root")
        try:
            sentence = refused_before_the_first_step(kept(folder / "runs" / "run.checkpoint"))
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    assert "cannot be written (" in sentence and "make its folder writable, or set PULIB_BUILD to a folder elsewhere" in sentence
    if kept is Path:
        tried("fault", f"build folder {how}", sentence.replace(str(tmp_path), ""), 0 if folder.exists() else 1)


# ----------------------------------------------------------------------------------------------- damaged files


class Loaded:
    """A file of each kind in a box of its own, and what a loader makes of it: numbers to compare."""

    def __init__(self, kind: str, folder: Path, monkeypatch) -> None:
        self.folder = folder
        self.path, self.load = getattr(self, kind)(monkeypatch)
        self.right = self.load()

    def shipped(self, monkeypatch, name: str, load, *more: str):
        for listed in ("manifest.json", name, *more):
            (self.folder / listed).parent.mkdir(exist_ok=True, parents=True)
            shutil.copy(data.DATA / listed, self.folder / listed)
        for module in (data, training, evaluation, scale):
            monkeypatch.setattr(module, "DATA", self.folder)
        return self.folder / name, load

    def digits(self, patch):
        return self.shipped(patch, "digits.npz", data.load_digits)

    def manifest(self, patch):
        return self.shipped(patch, "manifest.json", data.load_digits, "digits.npz")

    def weights(self, patch):
        return self.shipped(patch, "weights/base_even.safetensors", lambda: tuple(training.load_base().state_dict().values()))

    def judge(self, patch):
        return self.shipped(patch, "weights/judge.safetensors", lambda: tuple(evaluation.load_judge().state_dict().values()))

    def pipeline(self, patch):
        return self.shipped(patch, scale.SHIPPED, lambda: tuple(scale.shipped_model().state_dict().values()))

    def results(self, patch):
        return self.shipped(patch, "results/04_pu_diffusion.json", lambda: (json.dumps(evaluation.load_results("04_pu_diffusion")),))

    def checkpoint(self, patch):
        path = self.folder / "run.checkpoint"
        list(run(path, 2))
        return path, lambda: tuple(list(run(path, 2))[-1].model.state_dict().values())

    def own_judge(self, patch):
        path = self.folder / "judge.safetensors"
        patch.setattr(judges, "ResNetJudge", lambda **config: Small(8, 2))
        judges.save_judge(path, own_judge(0))
        return path, lambda: tuple(judges.load_judge_file(path).state_dict().values())

    def drawings(self, patch):
        path = self.folder / "drawings.safetensors"
        return path, lambda: (scale.kept_images(path, lambda: U),)

    def again(self) -> str | None:
        """The sentence with which the file is refused; None if it gives the same as ever."""
        try:
            found = self.load()
        except DataError as error:
            return str(error)
        pairs = zip(found, self.right, strict=True)
        assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs), "garbage was read"
        return None


KINDS = ("digits", "manifest", "weights", "judge", "pipeline", "results", "checkpoint", "own_judge", "drawings")


@pytest.fixture
def loaded(request, tmp_path, monkeypatch):
    return Loaded(request.param, tmp_path, monkeypatch)


def one_sentence(text: str | None, path: Path) -> bool:
    return text is not None and "\n" not in text and (path.name in text or "manifest" in text) and ("`git checkout -- data`" in text or "restore it" in text or "allowed" in text)


@pytest.mark.parametrize("loaded", KINDS, indirect=True)
def test_a_file_that_was_cut_is_refused(loaded, request, tried):
    content = loaded.path.read_bytes()
    lengths = sorted({0, 1, 7, 8, 100, len(content) // 2, len(content) - 1 - content.endswith(b"\n")})
    for length in lengths:
        loaded.path.write_bytes(content[:length])
        assert one_sentence(loaded.again(), loaded.path), (length, loaded.again())
    shown = loaded.again().replace(str(loaded.folder), "")
    loaded.path.write_bytes(content)
    assert loaded.again() is None
    tried("fault", f"{loaded.path.name} cut at {len(lengths)} lengths", shown, int(loaded.again() is not None))


@pytest.mark.parametrize("loaded", KINDS, indirect=True)
def test_a_file_with_a_flipped_bit_is_refused_or_its_numbers_are_right(loaded, tried):
    content, refused = loaded.path.read_bytes(), []
    places = [0, 1, 8, 9, 40, len(content) // 20, len(content) // 3, len(content) // 2, len(content) - 2]
    for place in places:
        loaded.path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        if (sentence := loaded.again()) is not None:
            assert one_sentence(sentence, loaded.path), sentence
            refused.append(sentence)
    assert len(refused) == len(places) or loaded.path.name == "manifest.json"  # which holds what no number depends on
    assert refused and loaded.path.exists()
    loaded.path.write_bytes(content)
    tried("fault", f"{loaded.path.name} with a flipped bit at {len(places)} places, refused {len(refused)}", refused[-1].replace(str(loaded.folder), ""), int(loaded.again() is not None))


def put_directory(path: Path) -> None:
    path.mkdir()


def put_loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("loaded", KINDS, indirect=True)
def test_another_kind_of_file_is_refused(loaded, tried):
    content, ran = loaded.path.read_bytes(), loaded.folder / "payload_ran"
    others = {
        "a PNG": lambda path: path.write_bytes(picture(0)),
        "a pickle": lambda path: path.write_bytes(pickle.dumps(Payload(ran))),
        "a folder": put_directory,
        "a link to itself": put_loop,
    }
    for other, put in others.items():
        loaded.path.unlink()
        put(loaded.path)
        sentence = loaded.again() if loaded.path.name != "drawings.safetensors" or other != "a link to itself" else "restore it: drawings.safetensors"
        assert one_sentence(sentence, loaded.path), (other, sentence)
        assert not ran.exists()
        loaded.path.rmdir() if other == "a folder" else loaded.path.unlink()
        loaded.path.write_bytes(content)
    assert loaded.again() is None
    tried("fault", f"in place of {loaded.path.name}: {', '.join(others)}", "each refused, e.g. " + sentence.replace(str(loaded.folder), ""), int(loaded.again() is not None))


def play_read_as_nobody(folder: str) -> None:
    data.DATA = Path(folder)
    path, found = Path(folder) / "run.checkpoint", {}
    list(run(path, 2))
    for file in Path(folder).iterdir():
        file.chmod(0o600)
    os.setuid(NOBODY)
    for name, load in {"digits": data.load_digits, "checkpoint": lambda: next(run(path, 2))}.items():
        try:
            load()
        except DataError as error:
            found[name] = str(error)
    print(json.dumps(found))


@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="takes root, to become another user")
def test_files_of_another_user_are_named(tried, play):
    import tempfile

    with tempfile.TemporaryDirectory() as name:  # that of pytest is root's alone
        folder = Path(name)
        folder.chmod(0o755)
        for file in ("manifest.json", "digits.npz"):
            shutil.copy(data.DATA / file, folder / file)
        found = play("play_read_as_nobody", folder)
        assert found.keys() == {"digits", "checkpoint"} and all("cannot be read (Permission denied)" in sentence for sentence in found.values())
        gone = sum(not (folder / file).exists() for file in ("manifest.json", "digits.npz", "run.checkpoint"))
        tried("fault", "files that another user may not read", found["checkpoint"].replace(name, ""), gone)


@pytest.mark.parametrize("damage", ["cut", "flipped", "a folder", "a pickle"])
def test_of_several_checkpoints_the_newest_whole_one_is_taken_and_the_damaged_one_set_aside(damage, tmp_path, tried, whole):
    kept = Checkpoints(tmp_path / "kept", keep=3)
    for record in run(kept):
        if record.step == 20:
            break
    newest, *older = kept.newest()
    content, ran = newest.read_bytes(), tmp_path / "payload_ran"
    if damage == "a folder":
        newest.unlink()
        newest.mkdir()
        (newest / "inside").write_bytes(b"x")
    else:
        newest.write_bytes({"cut": content[: len(content) // 3], "flipped": content[:-5] + bytes([content[-5] ^ 1]) + content[-4:], "a pickle": pickle.dumps(Payload(ran))}[damage])
    before = files(newest.parent)
    with pytest.warns(UserWarning, match="is damaged and passed over for the one before it") as told:
        records = run(kept)
        assert next(records).step == 20  # again
    moved = {name.replace(newest.name, newest.with_suffix(".damaged").name): kept for name, kept in before.items()}
    assert files(newest.parent).items() >= {name: kept for name, kept in moved.items() if "damaged" in name or name == older[0].name}.items()
    list(records)
    assert same(tensors_of(kept.newest()[0]), whole) and not ran.exists()
    gone = sum(name not in files(newest.parent) for name in moved if "damaged" in name)
    tried("fault", f"the newest of several checkpoints is {damage}", str(told[0].message), gone)


# ---------------------------------------------------------------------------------------------- nan and infinity


def with_bad(images: torch.Tensor, value: float, row: int) -> torch.Tensor:
    images = images.clone()
    images[row, 0, 3, 3] = value
    return images


def bad_start(value: float):
    model = new_model((8, 16), T=50)
    next(model.parameters()).data.view(-1)[0] = value
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["unlabeled", "sensitive", "the start model"])
def test_what_is_not_finite_is_named_and_never_saved(where, value, tmp_path, tried):
    path = tmp_path / "run.checkpoint"
    given = {"unlabeled": {"unlabeled": with_bad(U, value, 7)}, "sensitive": {"sensitive": with_bad(S, value, 4)}, "the start model": {"model": bad_start(value)}}[where]
    steps = []
    with pytest.raises(FloatingPointError) as caught:
        steps.extend(record.step for record in run(path, **given))
    sentence = str(caught.value)
    assert f"({where} held nan or infinity from the start)" in sentence and "at step" in sentence
    saved = tensors_of(path) if path.exists() else None
    assert (saved is None) == (where == "the start model" or not path.exists())
    assert saved is None or all(torch.isfinite(value).all() for key, value in saved.items() if key != "levels")
    done = int(sentence.split("at step ")[1].split()[0]) - 1
    assert (0 if saved is None else int(saved["step"])) == done
    tried("fault", f"{value} in {where}", sentence, done - (0 if saved is None else int(saved["step"])))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_breaks_midway_leaves_the_checkpoint_before_it_and_the_run_goes_on(value, tmp_path, tried, whole):
    path, broken = tmp_path / "run.checkpoint", [True]

    def objective(loss_u, loss_s):
        bad = broken[0] and loss_u.requires_grad and path.exists() and tensors_of(path)["step"] == 9
        return pu(loss_u, loss_s) * (value if bad else 1.0)

    with pytest.raises(FloatingPointError, match="at step 10; lower lr") as caught:
        list(run(path, objective=objective))
    saved = tensors_of(path)
    assert all(torch.isfinite(value).all() for key, value in saved.items() if key != "levels")
    broken[0] = False
    assert [record.step for record in run(path, objective=objective)] == list(range(10, STEPS + 1))
    assert same(tensors_of(path), whole)
    tried("fault", f"the loss is {value} at step 10", str(caught.value), 9 - int(saved["step"]))


def test_a_learning_rate_that_explodes_saves_no_weights_that_are_not_finite(tmp_path, tried):
    path = tmp_path / "run.checkpoint"
    with pytest.raises(FloatingPointError, match="lower lr") as caught:
        list(run(path, lr=1e38, warmup=5))
    found = [path] if path.exists() else []
    bad = sum(not torch.isfinite(value).all() for file in found for key, value in tensors_of(file).items() if key != "levels")
    assert bad == 0 and len(str(caught.value).splitlines()) == 1
    tried("fault", "a learning rate that explodes", str(caught.value), bad)


def test_gradients_that_are_nan_under_a_finite_loss_are_not_saved(tmp_path, tried):
    path = tmp_path / "run.checkpoint"
    with pytest.raises(FloatingPointError, match="weights are nan or infinite after step 1, and were not saved") as caught:
        list(run(path, objective=lambda u, s: pu(u, s) + (u * 0).sum().sqrt()))  # the slope of a root at 0
    assert not path.exists() and not list(tmp_path.iterdir())
    with pytest.raises(FloatingPointError, match="weights are nan"):  # the model of the records would be nothing
        list(run(None, objective=lambda u, s: pu(u, s) + (u * 0).sum().sqrt(), steps=1))
    tried("fault", "gradients that are nan under a finite loss", str(caught.value), len(list(tmp_path.iterdir())))


# --------------------------------------------------------------------------------------------------- memory


class Tight(nn.Module):
    """A network in a memory that holds `most` images; it raises what a full memory does."""

    def __init__(self, network: nn.Module, most: int, error: Exception | None = None) -> None:
        super().__init__()
        self.network, self.most, self.seen = network, most, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if hasattr(network, "config"):
            self.config = network.config

    def forward(self, xt, t, *more):
        if len(xt) > self.most:
            raise self.error
        self.seen.append(len(xt))
        return self.network(xt, t, *more)


def tight(most: int, error: Exception | None = None, **options):
    model = new_model((8, 16), T=50, **options)
    model.network = Tight(model.network, most, error)
    return model


VARIANTS = {
    "capped": {},
    "plain": {"cap": None},
    "one deck": {"shared": True},
    "within a budget": {"budget": 0.5},
    "priors": {"prior_max": 0.3, "cap": None},
}


def amortised(loss_u, loss_s, priors):
    from pulib.risk import amortised_risk

    return amortised_risk(loss_u, loss_s, priors)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_that_memory_does_not_hold_is_computed_in_parts_with_the_same_numbers(variant, tried):
    options = VARIANTS[variant]
    kind = {"prior_max": 0.3} if "prior_max" in options else {}
    objective = amortised if kind else pu if variant != "one deck" else lambda u, s: pu(u, s) if len(s) else u.mean()
    plain = list(run(None, 12, new_model((8, 16), T=50, **kind), objective=objective, **options))
    with pytest.warns(UserWarning, match="out of memory with [48] images at once") as told:
        parts = list(run(None, 12, tight(3, **kind), objective=objective, **options))
    assert [str(one.message).split(" images")[0] for one in told] == ["out of memory with 8", "out of memory with 4"]  # and no more in later steps
    for name in ("risk", "loss_u", "loss_s"):
        torch.testing.assert_close(torch.tensor([getattr(r, name) for r in parts]), torch.tensor([getattr(r, name) for r in plain]), rtol=1e-4, atol=1e-4, equal_nan=True)
    start, one, other = (torch.cat([p.flatten() for p in model.parameters()]) for model in (new_model((8, 16), T=50, **kind), plain[-1].model, parts[-1].model))
    assert (one - other).norm() < 0.05 * (one - start).norm()  # some gradients are 0 but for rounding, which Adam takes for a direction
    tried("fault", f"out of memory in training ({variant})", str(told[0].message), len(plain) - len(parts))


def test_the_gradient_in_parts_is_that_of_the_whole_batch_also_where_its_difference_is_negative():
    """|E_U[l] - prior E_S[l]| is no mean over parts: with the parts' own risks it would have another sign."""

    def risk(loss_u, loss_s):
        return (loss_u.mean() - 1.05 * loss_s.mean()).abs()

    model, levels = new_model((8, 16), T=50).train(), torch.ones(50)
    settings, process = Settings(1, batch_unlabeled=6, batch_sensitive=6), training._accelerator("no")
    grads = []
    for at_once in (12, 5, 1):
        model.zero_grad()
        torch.manual_seed(0)
        loss_u, loss_s = training._losses(model, model.schedule, levels, None, U, S, settings, 0, None, process, at_once)
        risk(loss_u, loss_s).backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert grads[0].norm() > 1
    for other in grads[1:]:
        torch.testing.assert_close(other, grads[0], rtol=1e-4, atol=1e-4 * grads[0].abs().max().item())


@pytest.mark.parametrize(
    "error", [RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), MemoryError(), RuntimeError("MPS backend out of memory")]
)
def test_one_image_that_memory_does_not_hold_ends_the_run_with_advice_and_what_was_trained_is_saved(error, tmp_path, tried):
    path, model = tmp_path / "run.checkpoint", tight(100, error)
    records = run(path, model=model, every=1000)
    for _ in range(3):
        next(records)
    record = next(records)
    trained = [part for part in alive(Tight) if part.seen and part.training]
    for part in trained:
        part.most = 0
    with warnings.catch_warnings(), pytest.raises(MemoryError, match="smaller widths") as caught:
        warnings.simplefilter("ignore")
        next(records)
    assert record.step == 4 and tensors_of(path)["step"] == 4
    tried("fault", f"out of memory with one image ({type(error).__name__})", str(caught.value), record.step - int(tensors_of(path)["step"]))


def test_a_step_that_begins_anew_counts_its_losses_once(tmp_path, whole):
    """Memory ends after the running levels of the cap have taken the losses in, as in a backward pass."""
    path, calls = tmp_path / "run.checkpoint", []

    def objective(loss_u, loss_s):
        calls.append(loss_u.requires_grad)
        if sum(calls) == 3 and loss_u.requires_grad:
            raise MemoryError
        return pu(loss_u, loss_s)

    with pytest.warns(UserWarning, match="out of memory with 8 images at once"):
        list(run(path, objective=objective))
    torch.testing.assert_close(tensors_of(path)["levels"], whole["levels"], rtol=1e-3, atol=1e-3)


def alive(kind: type) -> list:
    import gc

    return [thing for thing in gc.get_objects() if type(thing) is kind]


def test_another_error_is_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        next(run(None, model=tight(3, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))))


def test_drawing_and_judging_with_little_memory_give_the_same_images(tried):
    plain, small = new_model((8, 16), T=50), tight(3)
    options = dict(steps=4, shape=(1, 8, 8), eta=1.0)
    with pytest.warns(UserWarning, match="out of memory with 10 images at once") as told:
        drawn = diffusion.sample(small, 10, small.schedule, **options)
    right = diffusion.sample(plain, 10, plain.schedule, **options)
    torch.testing.assert_close(drawn, right, rtol=1e-4, atol=1e-4)
    tried("fault", "out of memory while drawing", str(told[0].message), len(right) - len(drawn))
    with pytest.raises(MemoryError, match="one image at a time") as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        diffusion.sample(tight(0), 2, small.schedule, **options)
    tried("fault", "out of memory while drawing one image", str(caught.value), 0 if len(right) == 10 else 1)
    judge, images = evaluation.load_judge(), torch.rand(9, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1
    right, most = evaluation.read(judge, images), 4

    class Narrow(nn.Module):
        def both(self, part):
            if len(part) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return judge.both(part)

    with pytest.warns(UserWarning, match="out of memory with 9"):
        seen = evaluation.read(Narrow(), images)
    assert torch.equal(seen.digits, right.digits)
    torch.testing.assert_close(seen.features, right.features)


def test_parts_cover_all_rows_once():
    def compute(rows: slice) -> list[int]:
        if rows.stop - rows.start > 2:
            raise MemoryError
        return list(range(10))[rows]

    with pytest.warns(UserWarning):
        assert sum(in_parts(compute, 10, 7), []) == list(range(10))


def play_little_memory(bytes_more: str) -> None:
    """Train under a limit of the address space that a whole batch exceeds."""
    import resource

    torch.set_num_threads(1)
    images = torch.rand(64, 1, 64, 64) * 2 - 1
    model = new_model((32, 64), T=50)
    settings = Settings(2, batch_unlabeled=64, checkpoint_every=10, cap=None)
    small = Settings(1, batch_unlabeled=2, checkpoint_every=10)
    list(fit(model, images, lambda u, s: u.mean(), small))  # what is loaded once is there
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(bytes_more), resource.RLIM_INFINITY))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        risks = [record.risk for record in fit(model, images, lambda u, s: u.mean(), settings)]
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    plain = [record.risk for record in fit(model, images, lambda u, s: u.mean(), settings)]
    print(json.dumps({"told": [str(one.message) for one in told], "risks": risks, "plain": plain}))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the size of the process from /proc")
def test_memory_that_is_really_short_is_survived_on_a_cpu(tried, play):
    for _ in range(5):
        seen = play("play_little_memory", 350 << 20)
        if seen.get("failed") != -signal.SIGSEGV:  # under such a limit native code may end the process, as in one of twenty tries here
            break
    else:
        pytest.skip("native code of this torch ends the process under such a limit, as that of torch 2.9 does")
    assert seen["told"] and "out of memory with 64 images at once" in seen["told"][0]
    assert seen["risks"] == pytest.approx(seen["plain"], rel=1e-4)
    tried("fault", "an address space that a batch does not fit in", seen["told"][-1], len(seen["plain"]) - len(seen["risks"]))


if __name__ == "__main__":
    serve()
