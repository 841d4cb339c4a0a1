"""Files from strangers run nothing and write nowhere else; and no code of the project takes the calls that would let them."""

import ast
import hashlib
import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from torchvision import datasets

from pulib import data, evaluation, judges, pipelines, prompts, scale, sets, training
from pulib.data import DataError
from pulib.risk import unsupervised_risk
from pulib.runs import Checkpoints
from pulib.training import CheckpointError, Settings, fit, new_model

ROOT = Path(__file__).parent.parent
IMAGES = torch.zeros(4, 1, 8, 8)


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def as_pickle(payload: Payload) -> bytes:
    return pickle.dumps(payload)


def as_torch(payload: Payload) -> bytes:
    file = io.BytesIO()
    torch.save({"weight": payload}, file)
    return file.getvalue()


def as_array(payload: Payload) -> bytes:
    file = io.BytesIO()
    np.savez(file, images=np.array([payload], dtype=object), digits=np.zeros(1))
    return file.getvalue()


DISGUISES = {"pickle": as_pickle, "torch.save": as_torch, "npz": as_array}


def train(checkpoint):
    return list(fit(new_model((8, 8), T=50), IMAGES, unsupervised_risk, Settings(1, batch_unlabeled=2), checkpoint=checkpoint))


def shipped(name: str, load):
    """A loader of what data/ ships, with the stranger's SHA-256 in the manifest, as it came with the file."""

    def loaded(folder: Path, content: bytes):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        (folder / "manifest.json").write_text(json.dumps({name: {"sha256": hashlib.sha256(content).hexdigest()}}))
        return load()

    return loaded


def of_file(load, name: str = "file"):
    def loaded(folder: Path, content: bytes):
        (folder / name).write_bytes(content)
        return load(folder / name)

    return loaded


def made():
    raise AssertionError("the file is there")


LOADERS = {
    "load_digits": shipped("digits.npz", data.load_digits),
    "load_base": shipped("weights/base_even.safetensors", training.load_base),
    "load_oracle": shipped("weights/oracle_odd.safetensors", lambda: training.load_oracle("odd")),
    "load_conditioned": shipped("weights/prior_even.safetensors", training.load_conditioned),
    "load_judge": shipped("weights/judge.safetensors", evaluation.load_judge),
    "shipped_model": shipped(scale.SHIPPED, scale.shipped_model),
    "load_results": shipped("results/04_pu_diffusion.json", lambda: evaluation.load_results("04_pu_diffusion")),
    "read_tensors": of_file(lambda path: training.read_tensors(path.read_bytes(), path)),
    "load_judge_file": of_file(judges.load_judge_file),
    "kept_images": of_file(lambda path: scale.kept_images(path, made)),
    "checkpoint": of_file(train),
    "checkpoints": of_file(lambda path: train(Checkpoints(path.parent)), "step_00000001.checkpoint"),
    "load_folder": of_file(lambda path: sets.load_folder(path.parent, 8), "image.png"),
    "load_pipeline": of_file(lambda path: pipelines.load_pipeline(path.parent, local_files_only=True), "model_index.json"),
    "load_prompted": of_file(lambda path: prompts.load_prompted(path.parent, "a photo", local_files_only=True), "model_index.json"),
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("loader", LOADERS)
def test_a_disguised_pickle_is_refused_and_does_not_run(loader, disguise, tmp_path, monkeypatch, tried):
    for module in (data, training, evaluation, scale):
        monkeypatch.setattr(module, "DATA", tmp_path)
    ran = tmp_path / "ran"
    with pytest.raises(DataError) as caught:
        LOADERS[loader](tmp_path, DISGUISES[disguise](Payload(ran)))
    assert not ran.exists()
    if disguise == "pickle":
        tried("fault", f"a pickle that would run, given to {loader}", str(caught.value).replace(str(tmp_path), ""), int(ran.exists()))


def test_the_payload_runs_where_it_is_unpickled(tmp_path):
    """So that the tests above can fail."""
    for disguise in (as_pickle, as_torch):
        ran = tmp_path / disguise.__name__
        content = disguise(Payload(ran))
        pickle.loads(content) if disguise is as_pickle else torch.load(io.BytesIO(content), weights_only=False)
        assert ran.exists()


def test_weights_of_torch_hub_with_the_right_name_do_not_run(tmp_path, monkeypatch):
    content = as_torch(Payload(tmp_path / "ran"))
    path = tmp_path / "checkpoints" / f"resnet-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    path.parent.mkdir()
    path.write_bytes(content)
    monkeypatch.setattr(judges, "_in_hub", lambda url: path)
    with pytest.raises((pickle.UnpicklingError, DataError)):
        judges.pretrained_resnet()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("load", [pipelines.load_pipeline, lambda source, **options: prompts.load_prompted(source, "a photo", **options)])
@pytest.mark.parametrize("part", ["unet/stranger.py", "pipeline.py", "stranger.py"])
def test_code_in_the_folder_of_a_pipeline_does_not_run(load, part, tmp_path):
    ran, folder = tmp_path / "ran", tmp_path / "pipeline"
    file = folder / part
    file.parent.mkdir(parents=True)
    file.write_text(f"open({str(ran)!r}, 'w')\nclass UNet2DModel: pass\nclass DDPMPipeline: pass\n")
    named = {"_class_name": "DDPMPipeline" if part != "pipeline.py" else ["pipeline", "DDPMPipeline"], "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["stranger", "UNet2DModel"]}
    (folder / "model_index.json").write_text(json.dumps(named))
    with pytest.raises(DataError, match=f"without code of its own, .* holds {file.name}"):
        load(folder, local_files_only=True)
    assert not ran.exists()


def test_weights_of_a_pipeline_as_a_pickle_are_not_read(tmp_path):
    pytest.importorskip("diffusers")
    folder, ran = tmp_path / "pipeline", tmp_path / "ran"
    card = pipelines.Card("probe", "probe", 0.1)
    pipelines.save_pipeline(folder, scale.shipped_model(), card)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.with_suffix(".bin").write_bytes(as_torch(Payload(ran)))
    with pytest.raises(DataError):
        pipelines.load_pipeline(folder, local_files_only=True)
    assert not ran.exists()


# --------------------------------------------------------------------------------------------------- names and archives

OUTSIDE = ["../evil", "../../etc/evil", "/tmp/evil", "weights/../../evil", "..\\evil"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_outside_are_refused(name, tmp_path, monkeypatch, tried):
    folder = tmp_path / "a" / "data"
    folder.mkdir(parents=True)
    monkeypatch.setattr(data, "DATA", folder)
    monkeypatch.setattr(evaluation, "DATA", folder)
    monkeypatch.setattr(evaluation, "BUILD", folder)
    secret = tmp_path / "a" / "evil"
    secret.write_bytes(b'{"rows": [1]}')
    (folder / "manifest.json").write_text(json.dumps({name: {"sha256": data.sha256(secret)}, f"results/{name}.json": {"sha256": data.sha256(secret)}}))
    before = sorted(tmp_path.rglob("*"))
    for call in (lambda: data.read_verified(name), lambda: evaluation.load_results(name), lambda: evaluation.write_results(name, [])):
        with pytest.raises(ValueError) as caught:
            call()
    for call in (lambda: scale.experiment(name), lambda: sets.load_set(name, folder), lambda: training.load_base(name), lambda: training.new_model(schedule=name)):
        with pytest.raises(ValueError, match="must be"):
            call()
    assert sorted(tmp_path.rglob("*")) == before
    tried("fault", f"the name {name}", str(caught.value).replace(str(tmp_path), ""), 0 if secret.exists() else 1)


@pytest.mark.parametrize("kind", ["..", "absolute", "link"])
def test_an_archive_of_a_stranger_is_not_unpacked(kind, tmp_path, monkeypatch, tried):
    """Only archives whose MD5 is the set's are given to torchvision, which unpacks them."""
    folder, outside = tmp_path / "sets", tmp_path / "evil"
    folder.mkdir()
    with tarfile.open(folder / datasets.CIFAR10.filename, "w:gz") as archive:
        member = tarfile.TarInfo({"..": "../evil", "absolute": str(outside), "link": "cifar-10-batches-py"}[kind])
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path)
        else:
            member.size = 1
        archive.addfile(member, None if kind == "link" else io.BytesIO(b"x"))
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/none")
    with pytest.raises(DataError) as caught:
        sets.load_set("cifar10-vehicles", folder, download=True)
    assert not outside.exists() and sorted(path.name for path in folder.iterdir()) == [datasets.CIFAR10.filename]
    tried("fault", f"an archive with a member that leads outside ({kind})", str(caught.value).replace(str(tmp_path), ""), int(outside.exists()))


def test_facts_of_a_stranger_are_no_code(tmp_path):
    """A file of the right form and digest, with facts that are none."""
    for i, facts in enumerate((5, "text", [1], None)):
        path = tmp_path / f"{i}.checkpoint"
        training.write_tensors(path, {"a": torch.zeros(1)}, facts)
        with pytest.raises(CheckpointError, match="is corrupt or not a pulib safetensors file"):
            train(path)


# ------------------------------------------------------------------------------------------------- what no code may call

FOLDERS = ("pulib", "notebooks", "tests/benchmarks", "docs", "data")
NOT_CALLED = {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "torch.save", "subprocess.getoutput", "pickle.load", "pickle.loads", "pickle.dump", "pickle.dumps"}
NOT_CALLED |= {"pickle.Unpickler", "marshal.loads", "shelve.open", "joblib.load", "dill.load", "dill.loads", "shutil.unpack_archive", "pd.read_pickle", "pandas.read_pickle", "np.save_pickle"}
NEEDED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False), "numpy.load": ("allow_pickle", False)}


def forbidden(code: str) -> list[str]:
    """The calls of a source that would run, or unpack without a look, what is in a file or a string."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in NOT_CALLED:
            found.append(name)
        if name in NEEDED and given.get(NEEDED[name][0]) != str(NEEDED[name][1]):
            found.append(f"{name} without {NEEDED[name][0]}={NEEDED[name][1]}")
        if given.get("trust_remote_code", "False") != "False" or given.get("shell", "False") != "False":
            found.append(f"{name} with trust_remote_code or shell")
        if name.split(".")[-1] in ("extractall", "extract") and given.get("filter") != "'data'":
            found.append(f"{name} without filter='data'")
    return found


def sources() -> dict[str, str]:
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            found[str(path.relative_to(ROOT))] = path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for i, cell in enumerate(nbformat.read(path, as_version=4).cells):
            if cell.cell_type == "code":
                lines = ["pass" if line.lstrip().startswith(("%", "!")) else line for line in cell.source.splitlines()]
                found[f"{path.name}, cell {i}"] = "\n".join(lines)
    return found


ALLOWED = {("notebooks/slides.py", "exec")}  # it runs cells of the notebooks that lie beside it


def test_no_code_runs_what_a_file_or_a_string_says():
    code = sources()
    assert sum(name.startswith("pulib/") for name in code) >= 18 and sum(", cell " in name for name in code) > 100
    found = {(name, what) for name, text in code.items() for what in forbidden(text)} - ALLOWED
    assert not found
    assert all(what in forbidden(code[name]) for name, what in ALLOWED)


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path)", "np.load(path, allow_pickle=True)", "pickle.load(file)", "yaml.load(text)", "eval(text)", "exec(text)",
        "os.system('ls')", "subprocess.run('ls', shell=True)", "load(name, trust_remote_code=True)", "archive.extractall(folder)", "archive.extractall(folder, filter='tar')", "torch.save(model, path)",
    ],
)  # fmt: skip
def test_what_is_forbidden_is_found(code):
    assert len(forbidden(f"def f():\n    return {code}\n")) == 1


def test_what_is_allowed_is_not():
    fine = "torch.load(p, weights_only=True); np.load(p, allow_pickle=False); archive.extractall(p, filter='data'); model.eval(); run(['ls'], shell=False)"
    assert forbidden(fine) == []


def test_weights_of_inception_are_read_without_running_them():
    """torch-fidelity reads them; torch refuses pickles by default since 2.6."""
    assert int(torch.__version__.split(".")[1]) >= 6 or int(torch.__version__.split(".")[0]) > 2 or os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
