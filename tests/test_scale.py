"""Experiments at scale: all resolve without a network, their needs are right, and each kind of images runs through on a small scale."""

import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_prompts import pipeline
from test_sets import FILES, small

from pulib import rivals, scale, sets
from pulib.data import DATA
from pulib.diffusion import NoisePredictor, linear_schedule
from pulib.evaluation import load_results
from pulib.scale import EXPERIMENTS, experiment, needs

pytestmark = pytest.mark.filterwarnings("ignore:.*torch_dtype")
TABLE = {"split", "arm", "nsr", "nsr_low", "nsr_high", "frechet", "frechet_floor", "class_tv", "n", "seeds", "nsr_by_seed", "confident"}
WEIGHTS = {"paper": 61_524_481, "google/ddpm-cifar10-32": 35_746_307, "google/ddpm-celebahq-256": 113_673_219}  # the last two as the hub states them


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)


# --------------------------------------------------------------------------------------------- dry runs


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_resolves_without_network_images_and_weights(name, tmp_path, no_network):
    need = needs(experiment(name), tmp_path)
    assert need.parameters > 5e5 and 0 < need.trained <= need.parameters and need.flops > 1e8
    assert all(row["time"] and row["memory"] for row in need.rows(1.0)) and len(need.rows(1.0)) == len(scale.GPUS) + 1
    problems = " ".join(need.problems)
    assert ("images: the train part of" in problems) == (need.chosen.images in sets.PRESETS)
    assert ("downloaded when the experiment is run" in problems) == ("/" in need.chosen.network)
    assert set(need.chosen.arms) <= set(rivals.ESTIMATORS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("network", WEIGHTS)
def test_outlines_have_the_weights_that_are_known(network):
    with torch.device("meta"):
        found = scale.new_network(network, 32 if "256" not in network else 256, 1 if network == "paper" else 3)
    assert sum(p.numel() for p in found.parameters()) == WEIGHTS[network]


def test_lora_trains_what_peft_adds():
    peft, diffusers = pytest.importorskip("peft"), pytest.importorskip("diffusers")
    with torch.device("meta"):
        network = diffusers.UNet2DConditionModel(64, cross_attention_dim=768)
        counted = scale._lora_parameters(network, 4)
        network.requires_grad_(False)
        network.add_adapter(peft.LoraConfig(r=4, target_modules=scale.prompts.ATTENTION))
    assert counted == sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_activations_are_those_that_a_backward_pass_keeps():
    chosen = dataclasses.replace(experiment("laptop"), network="small")
    network, kept = scale.new_network("small", 28, 1), {}
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def keep(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        network(torch.zeros(4, 1, 28, 28), torch.zeros(4, dtype=torch.long))
    real = sum(storage.nbytes() for storage in kept.values()) / 4
    assert 0.8 <= needs(chosen).activations / real <= 1.25


def test_checkpointing_is_counted_as_less():
    chosen = experiment("paper-celeba")
    assert needs(chosen).memory < 0.5 * needs(dataclasses.replace(chosen, checkpointing=False)).memory


def test_memory_and_hours_add_up():
    assert scale.training_bytes(1000, 500, 8, 100, 2) == 20_000 + 1000 + 800
    assert scale.device_hours(1e12, 3600, 1, 0, 0, 1.0, 0.5) == pytest.approx(6)
    assert scale.device_hours(1e12, 0, 1, 36, 100, 1.0, 1.0) == pytest.approx(1)
    assert [scale.in_words(h) for h in (0.001, 0.5, 2.04, 27.3)] == ["< 1 min", "30 min", "2.0 h", "27 h"]


@pytest.mark.parametrize("call, part", [
    (lambda: experiment("imagenet"), "preset must be one of laptop, gpu"),
    (lambda: experiment("gpu", arms="pu rejection"), "arms must be of .*; got pu, rejection"),
    (lambda: experiment("gpu", steps=-1), "steps must be a whole number >= 0"),
    (lambda: scale.new_network("paper", 28, 1), "size must be a multiple of 8"),
    (lambda: scale.new_network("huge", 32, 1), "network must be one of"),
])  # fmt: skip
def test_what_cannot_be_is_named(call, part):
    with pytest.raises(ValueError, match=part):
        call()


def test_the_command_says_what_is_needed_and_missing(tmp_path):
    command = [sys.executable, "notebooks/scale.py", "paper-stl10", "--dry", "--folder", str(tmp_path)]
    run = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, env=os.environ | {"PULIB_BUILD": str(tmp_path)})
    assert run.returncode == 0, run.stderr
    assert "H100" in run.stdout and "about" in run.stdout and "the train part of STL10 is missing" in run.stdout


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    assert not scale.at_hand("no/such/name/can/be")
    monkeypatch.setattr(scale, "DATA", tmp_path)
    assert list(scale._problems(experiment("laptop"), None)) == [f"network: {tmp_path / scale.SHIPPED} is missing; `git checkout -- data` restores it"]


def test_a_file_of_something_else_is_not_taken_for_drawings(tmp_path):
    kept = tmp_path / "drawings.safetensors"
    scale.write_tensors(kept, {"images": torch.zeros(1)}, {"holds": "latents"})
    with pytest.raises(scale.DataError, match="holds no images; delete it, and what it should hold is made again"):
        scale.kept_images(kept, lambda: torch.zeros(1, 1, 2, 2))


# ------------------------------------------------------------------------------------------- run through


def run_through(chosen, folder) -> tuple[scale.Ready, list[dict]]:
    """All arms, as notebook 08 runs them."""
    this, runs = scale.ready(chosen, folder), {}
    for arm in chosen.arms:
        for seed in range(chosen.seeds):
            *_, record = this.fit(arm, seed, folder)
            runs.setdefault(arm, []).append(this.read(this.drawings(arm, record.model, seed, folder)))
    return this, [this.row(arm, many, runs.get("oracle")) for arm, many in runs.items()]


def short(chosen, **changes):
    settings = chosen.settings | dict(steps=2, batch_unlabeled=4, batch_sensitive=2, warmup=1, compile=False)
    return dataclasses.replace(chosen, settings=settings, n_samples=4, seeds=1, judge_steps=2, sieve_steps=2, **changes)


def narrow(monkeypatch) -> None:
    """Eight of the 512 features of a ResNet, as each Fréchet distance takes seconds with all."""
    wide = scale.judges.ResNetJudge.features
    monkeypatch.setattr(scale.judges.ResNetJudge, "features", lambda self, images: wide(self, images)[:, :8])


def test_the_laptops_rows_have_the_format_of_the_estimators_table(tmp_path):
    this, rows = run_through(short(experiment("laptop", arms="unsupervised pu_capped"), drawing=dict(steps=2)), tmp_path)
    assert [row["arm"] for row in rows] == ["unsupervised", "pu_capped"]
    committed = load_results("06_estimators_tuned")[0]
    assert all(TABLE <= row.keys() <= committed.keys() | {"n"} for row in rows)
    assert list(tmp_path.iterdir()) == []  # a short run keeps nothing


def test_the_gpus_digits_are_padded_for_the_network_and_cut_for_the_judge(tmp_path):
    chosen = short(experiment("gpu", arms="oracle pu_sieved"), drawing=dict(steps=2))
    this = scale.ready(dataclasses.replace(chosen, network="small"), tmp_path)
    assert this.training.unlabeled.shape[-1] == 32 and this.split.unlabeled.shape[-1] == 28
    assert torch.equal(this.training.unlabeled[..., 2:-2, 2:-2], this.split.unlabeled)
    *_, record = this.fit("pu_sieved")
    assert this.draw(record.model, 3).shape == (3, 1, 28, 28)


def test_photographs_run_through_with_a_judge_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setitem(sets.PRESETS, "cifar10-vehicles", small("cifar10-vehicles"))
    monkeypatch.setattr(scale, "SHORT", 1)
    monkeypatch.setattr(scale, "RESAMPLES", (2, 2))
    narrow(monkeypatch)
    monkeypatch.setattr(scale.judges, "fit_judge", partial(scale.judges.fit_judge, batch=8))
    monkeypatch.setattr(scale.judges, "BATCH_UNLABELED", 6)
    monkeypatch.setattr(scale.judges, "BATCH_SENSITIVE", 3)
    FILES["CIFAR10"](tmp_path, monkeypatch)
    chosen = short(experiment("paper-cifar10-scratch", arms="oracle pu_paper pu_sieved"), network="small", drawing=dict(steps=2))
    this, rows = run_through(chosen, tmp_path)
    assert all(TABLE | {"frechet_ratio"} <= row.keys() and row["split"] == "cifar10-vehicles" for row in rows)
    assert this.judge.shape == (3, 32, 32)
    kept = {path.name for path in tmp_path.iterdir()}
    assert any(name.startswith("judge_") for name in kept)
    assert sum(name.startswith("cifar10-vehicles_") for name in kept) == 3  # a run each, with checkpoints and drawings
    means = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    means.forward = lambda images, pool=means.forward: pool(images.float())
    with_fid = dataclasses.replace(this, inception=means)
    assert with_fid.row("oracle", [this.read(this.split.heldout_normal)], images=[this.split.heldout_normal])["fid"] == 0
    monkeypatch.setattr(scale.judges, "fit_judge", None)  # neither judge nor drawings are made again
    monkeypatch.setattr(scale, "sample", None)
    assert run_through(chosen, tmp_path)[1] == rows


def test_a_judge_that_cannot_tell_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(sets.PRESETS, "cifar10-vehicles", small("cifar10-vehicles"))
    monkeypatch.setattr(scale.judges, "fit_judge", lambda images, labels, n, *rest, **more: scale.judges.ResNetJudge((3, 32, 32), n).eval())
    monkeypatch.setattr(scale, "ruler", lambda judge, split: SimpleNamespace(errors=(0.4, 0.7)))
    FILES["CIFAR10"](tmp_path, monkeypatch)
    with pytest.raises(scale.DataError, match="does not tell normal from sensitive images: it is wrong on 40% and 70%"):
        scale.ready(short(experiment("paper-cifar10-scratch")), tmp_path)


def test_stable_diffusion_runs_through(tmp_path, monkeypatch):
    plain = scale.prompts.draw  # random weights draw the same for every prompt, so the sensitive one is darkened
    monkeypatch.setattr(scale.prompts, "draw", lambda source, prompt, *rest, **options: plain(source, prompt, *rest, **options) * 0.1 + (-0.8 if prompt == "a dog" else 0.8))
    narrow(monkeypatch)
    pipeline(tmp_path / "words").save_pretrained(tmp_path / "base")
    chosen = short(experiment("stable-diffusion", arms="unsupervised pu_capped"), network=str(tmp_path / "base"), drawing=dict(num_inference_steps=2))
    chosen = dataclasses.replace(chosen, size=8, rank=2, judge_steps=20, prompts=("a man", "a dog", "a man"), counts=(6, 2, 3, 4, 5))
    this, rows = run_through(chosen, tmp_path)
    assert this.split.prior == 0.25 and this.training.unlabeled.shape == (8, 4, 4, 4) and this.split.unlabeled.shape == (8, 3, 8, 8)
    assert [row["arm"] for row in rows] == ["unsupervised", "pu_capped"] and all(row["split"] == "prompts" for row in rows)
    again = scale.ready(chosen, tmp_path)
    assert torch.equal(again.split.unlabeled, this.split.unlabeled)


def test_the_shipped_pipeline_is_what_its_metrics_say():
    entry = json.loads((DATA / "manifest.json").read_text())[scale.SHIPPED]
    assert entry["metrics"]["nsr"] < 0.96 and entry["metrics"]["confident"] > 0.7  # it draws digits, sensitive ones among them
    model = scale.shipped_model()
    assert isinstance(model, NoisePredictor) and len(model.schedule) == len(linear_schedule())
