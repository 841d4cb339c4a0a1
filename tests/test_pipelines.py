"""Pipelines of diffusers: loaded, fine-tuned, saved with a card, and drawn from by plain diffusers."""

import errno
import threading
import time
from pathlib import Path

import pytest
import torch

from pulib import diffusion, pipelines
from pulib.data import WriteError
from pulib.diffusion import NoisePredictor, cosine_schedule, linear_schedule
from pulib.pipelines import Card, PipelineError, load_pipeline, package, save_pipeline
from pulib.risk import pu_risk
from pulib.training import Settings, fit

diffusers = pytest.importorskip("diffusers")
CARD = Card("squares, made for a test", "E_U[l] - prior E_S[l]", 1 / 11)
ROW = {"nsr": 0.98, "nsr_low": 0.97, "nsr_high": 0.99, "frechet": 1.5, "frechet_floor": 0.7, "n": 5100, "seeds": 3}


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    blocks = dict(block_out_channels=(8, 16), down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"))
    return diffusers.UNet2DModel(8, 3, 3, layers_per_block=1, norm_num_groups=4, add_attention=False, **blocks)


def images(n: int, seed: int) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("prediction, schedule", [("eps", linear_schedule(50)), ("v", cosine_schedule(50))])
def test_a_pipeline_comes_back_as_it_was(tmp_path, prediction, schedule):
    model = NoisePredictor(network(), schedule, prediction).eval()
    save_pipeline(tmp_path / "model", model, CARD)
    again = load_pipeline(tmp_path / "model").eval()
    assert again.prediction == prediction
    torch.testing.assert_close(again.schedule.beta, schedule.beta)
    xt, t = images(4, 1), torch.tensor([0, 10, 30, 49])
    torch.testing.assert_close(again(xt, t), model(xt, t))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert not list((tmp_path / "model").rglob("*.bin")) and list((tmp_path / "model").rglob("*.safetensors"))


def test_a_pretrained_pipeline_is_fine_tuned_and_drawn_from_by_plain_diffusers(tmp_path):
    pretrained = diffusers.DDPMPipeline(network(), diffusers.DDPMScheduler(30, prediction_type="epsilon"))
    pretrained.save_pretrained(tmp_path / "pretrained")
    model = load_pipeline(tmp_path / "pretrained")
    settings = Settings(3, batch_unlabeled=4, batch_sensitive=2, lr=1e-2, warmup=1)
    *_, record = fit(model, images(8, 0), lambda u, s: pu_risk(u, s, 0.1), settings, images(4, 1))
    save_pipeline(tmp_path / "tuned", record.model, CARD)
    pipe = diffusers.DDPMPipeline.from_pretrained(tmp_path / "tuned")
    drawn = pipe(batch_size=2, generator=torch.Generator().manual_seed(0), num_inference_steps=30, output_type="np").images
    assert drawn.shape == (2, 8, 8, 3)
    t = torch.tensor([5, 25])
    tuned, before = pipe.unet(images(2, 2), t).sample, model(images(2, 2), t)
    assert (tuned - before).abs().max() > 1e-3  # it learned
    torch.testing.assert_close(tuned, record.model(images(2, 2), t))


def test_plain_diffusers_and_our_sampler_draw_the_same(tmp_path):
    model = NoisePredictor(network(), linear_schedule(40), "eps").eval()
    save_pipeline(tmp_path / "model", model, CARD)
    pipe = diffusers.DDPMPipeline.from_pretrained(tmp_path / "model")
    scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, set_alpha_to_one=True, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(8)
    xt = noise = images(2, 5)
    for t in scheduler.timesteps:
        xt = scheduler.step(pipe.unet(xt, t).sample, t, xt).prev_sample
    *_, last = diffusion.ddim_sampler(load_pipeline(tmp_path / "model").eval(), noise, model.schedule, 8, clip=False)
    torch.testing.assert_close(last.xt, xt, rtol=1e-3, atol=1e-3)


def test_a_card_states_data_prior_objective_results_and_limits(tmp_path):
    save_pipeline(tmp_path / "model", NoisePredictor(network(), linear_schedule(20), "eps"), Card("digits", "PU risk", 0.1, ROW, "mit"))
    text = (tmp_path / "model" / "README.md").read_text()
    for part in ("license: mit", "digits", "PU risk, with class prior 0.1", "0.980 (95 % interval 0.970 to 0.990)", "5100 drawings", "**Limits:**"):
        assert part in text
    assert "Nothing was measured." in CARD.markdown()
    with pytest.raises(ValueError, match="prior must be"):
        Card("digits", "PU risk", 1.0)


def test_a_pipeline_is_replaced_whole_and_nothing_else_is(tmp_path):
    model = NoisePredictor(network(), linear_schedule(20), "eps")
    save_pipeline(tmp_path / "model", model, CARD)
    save_pipeline(tmp_path / "model", model, Card("other data", "PU risk", 0.1))
    assert "other data" in (tmp_path / "model" / "README.md").read_text()
    (tmp_path / "model" / "thesis.txt").write_text("years of work")
    with pytest.raises(PipelineError, match="folder must be a new one"):
        save_pipeline(tmp_path / "model", model, CARD)
    assert (tmp_path / "model" / "thesis.txt").read_text() == "years of work"


def test_a_failing_save_leaves_the_old_pipeline(tmp_path, monkeypatch):
    model = NoisePredictor(network(), linear_schedule(20), "eps")
    save_pipeline(tmp_path / "model", model, CARD)
    with monkeypatch.context() as patch:
        patch.setattr(Card, "markdown", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_pipeline(tmp_path / "model", model, CARD)
    rename, fails = Path.rename, iter([False, True, False])  # the old one is out of the way already, and comes back

    def renamed(self, other):
        if next(fails):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, other)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", renamed)
        with pytest.raises(WriteError, match=r"model cannot be written \(Input/output error\); nothing that was there has changed"):
            save_pipeline(tmp_path / "model", model, CARD)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    load_pipeline(tmp_path / "model")


def saved(folder: Path, data: str) -> None:
    save_pipeline(folder, NoisePredictor(network(), linear_schedule(20), "eps"), Card(data, "PU risk", 0.1))


@pytest.mark.parametrize("there", [False, True])
def test_two_processes_that_save_one_pipeline_both_end(tmp_path, monkeypatch, tried, there):
    """The other one saves its own just before this one's takes its place."""
    folder, rename = tmp_path / "model", Path.rename
    if there:
        saved(folder, "of yesterday")

    def renamed(self, other):
        if other == folder:
            monkeypatch.setattr(Path, "rename", rename)
            saved(folder, "of the other")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", renamed)
    saved(folder, "of this one")
    assert "of this one" in (folder / "README.md").read_text() and [path.name for path in tmp_path.iterdir()] == ["model"]
    load_pipeline(folder)
    tried("fault", f"two processes save one pipeline{', which was there' if there else ''}", "that of the last one stays, whole")


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_pipeline_that_is_just_being_replaced_is_waited_for_and_brought_back(tmp_path, tried, comes_back):
    """Between the two renames there is none: its writer goes on, or was killed."""
    folder, aside = tmp_path / "model", tmp_path / ".model.abc.old"
    saved(folder, "of yesterday")
    folder.rename(aside)
    timer = threading.Timer(0.2 if comes_back else 100, lambda: aside.rename(folder))
    timer.start()
    start = time.monotonic()
    load_pipeline(folder)
    timer.cancel()
    assert time.monotonic() - start >= 0.2 and [path.name for path in tmp_path.iterdir()] == ["model"]
    folder.rename(aside)
    saved(folder, "of today")
    assert "of today" in (folder / "README.md").read_text() and [path.name for path in tmp_path.iterdir()] == ["model"]
    tried("fault", f"a pipeline loaded while {'another process replaces it' if comes_back else 'it is aside, as its writer was killed'}", "it is waited for, and loaded")


def test_a_pipeline_that_is_replaced_while_it_is_read_is_read_again(tmp_path):
    folder, seen = tmp_path / "model", []
    saved(folder, "of yesterday")

    def load(source: str) -> str:
        seen.append((folder / "README.md").read_text())
        if len(seen) == 1:
            saved(folder, "of today")
            raise FileNotFoundError("a file of yesterday")
        return "read"

    assert pipelines.read_source(load, folder) == "read" and len(seen) == 2 and "of today" in seen[1]


def test_what_is_no_pipeline_for_us_is_refused(tmp_path):
    with pytest.raises(ImportError, match=r"^diffusers_of_old is missing; `pip install 'pulib\[scale\]'` brings it$"):
        package("diffusers_of_old")
    with pytest.raises(PipelineError, match="source must be a folder with a diffusers pipeline"):
        load_pipeline(tmp_path / "nothing", local_files_only=True)
    (tmp_path / "file").write_text("years of work")
    with pytest.raises(PipelineError, match="folder must be a new one"):
        save_pipeline(tmp_path / "file", NoisePredictor(network(), linear_schedule(20), "eps"), CARD)
    with pytest.raises(PipelineError, match="must have a diffusers UNet2DModel"):
        save_pipeline(tmp_path / "x", NoisePredictor(torch.nn.Identity(), linear_schedule(20), "eps"), CARD)
    diffusers.LDMPipeline(diffusers.VQModel(block_out_channels=(32,)), network(), diffusers.DDIMScheduler(20)).save_pretrained(tmp_path / "latent")
    with pytest.raises(PipelineError, match="on pixels .* holds scheduler, unet, vqvae"):
        load_pipeline(tmp_path / "latent")
    pipe = diffusers.DDPMPipeline(network(), diffusers.DDPMScheduler(20, prediction_type="sample"))
    pipe.save_pretrained(tmp_path / "sample")
    with pytest.raises(PipelineError, match="must predict one of epsilon, v_prediction; this one predicts 'sample'"):
        load_pipeline(tmp_path / "sample")
