"""Pipelines of diffusers: loaded, fine-tuned, saved with a card, and drawn from by plain diffusers."""

import errno
from pathlib import Path

import pytest
import torch

from pulib import diffusion
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


def test_what_is_no_pipeline_for_us_is_refused(tmp_path):
    with pytest.raises(ImportError, match=r"^diffusers_of_old is missing; `pip install 'pulib\[scale\]'` brings it$"):
        package("diffusers_of_old")
    with pytest.raises(PipelineError, match="source must be a folder with a diffusers pipeline"):
        load_pipeline(tmp_path / "nothing", local_files_only=True)
    with pytest.raises(PipelineError, match="must have a diffusers UNet2DModel"):
        save_pipeline(tmp_path / "x", NoisePredictor(torch.nn.Identity(), linear_schedule(20), "eps"), CARD)
    diffusers.LDMPipeline(diffusers.VQModel(block_out_channels=(32,)), network(), diffusers.DDIMScheduler(20)).save_pretrained(tmp_path / "latent")
    with pytest.raises(PipelineError, match="on pixels .* holds scheduler, unet, vqvae"):
        load_pipeline(tmp_path / "latent")
    pipe = diffusers.DDPMPipeline(network(), diffusers.DDPMScheduler(20, prediction_type="sample"))
    pipe.save_pretrained(tmp_path / "sample")
    with pytest.raises(PipelineError, match="must predict one of epsilon, v_prediction; this one predicts 'sample'"):
        load_pipeline(tmp_path / "sample")
