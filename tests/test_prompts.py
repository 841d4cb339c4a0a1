"""Stable Diffusion under one caption: loaded, fine-tuned by `fit` in full or by LoRA, saved for plain diffusers, drawn from."""

import copy
import json
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pulib.diffusion import NoisePredictor, linear_schedule
from pulib.pipelines import Card, PipelineError
from pulib.prompts import LORA_FILE, Captioned, draw, load_prompted, save_prompted
from pulib.risk import pu_risk
from pulib.training import CheckpointError, Settings, fit

diffusers, transformers, peft = (pytest.importorskip(name) for name in ("diffusers", "transformers", "peft"))
CAPTION = "a dog"
CARD = Card("noise, made for a test", "E_U[l] - prior E_S[l]", 1 / 11)
SETTINGS = Settings(4, batch_unlabeled=4, batch_sensitive=2, lr=2e-2, warmup=1, checkpoint_every=100)
T = torch.tensor([5, 900])


def tokenizer(folder):
    """One whose words are letters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *[f"{letter}</w>" for letter in letters]]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77), len(words)


def unet(**changed):
    blocks = dict(down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))
    shape = dict(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16, attention_head_dim=4)
    return diffusers.UNet2DConditionModel(**(dict(sample_size=4, in_channels=4, out_channels=4) | blocks | shape | changed))


def pipeline(folder, **changed):
    """Stable Diffusion in small: 8 x 8 pixels, 4 x 4 latents, random weights."""
    torch.manual_seed(0)
    blocks = dict(down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(8, 8))
    vae = diffusers.AutoencoderKL(3, 3, **blocks, latent_channels=4, norm_num_groups=4, sample_size=8)
    words, n = tokenizer(folder)
    ids = dict(bos_token_id=0, eos_token_id=1, pad_token_id=1)
    shape = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=77)
    text = transformers.CLIPTextConfig(vocab_size=n, **shape, **ids)
    betas = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler = diffusers.DDIMScheduler(1000, **betas, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    parts = dict(unet=unet(), vae=vae, text_encoder=transformers.CLIPTextModel(text), tokenizer=words, scheduler=scheduler)
    return diffusers.StableDiffusionPipeline(**(parts | changed), safety_checker=None, feature_extractor=None, requires_safety_checker=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd")
    pipeline(folder / "words").save_pretrained(folder / "base")
    return folder / "base"


@pytest.fixture(scope="module")
def lora(base):
    """A pipeline and its model trained by LoRA, which no test changes."""
    prompted = load_prompted(base, CAPTION, rank=2)
    return prompted, tuned(prompted)


@pytest.fixture(autouse=True)
def quiet():
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def latents(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 4, 4, 4, generator=torch.Generator().manual_seed(seed))


def risk(loss_u, loss_s):
    return pu_risk(loss_u, loss_s, 0.1)


def tuned(prompted, settings=SETTINGS, checkpoint=None):
    *_, record = fit(prompted.model, latents(8, 0), risk, settings, latents(4, 1), checkpoint)
    return record.model.eval()


def eps(model):
    with torch.no_grad():
        return model(latents(2, 2), T)


def eps_of(pipe, caption=CAPTION):
    """As plain diffusers predicts, without anything of ours."""
    with torch.no_grad():
        words = pipe.encode_prompt(caption, "cpu", 2, False)[0]
        return pipe.unet(latents(2, 2), T, encoder_hidden_states=words).sample


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --------------------------------------------------------------------------------------------- to load


def test_a_pipeline_under_one_caption_predicts_as_plain_diffusers_does(base):
    prompted = load_prompted(base, CAPTION)
    assert prompted.model.prediction == "eps" and len(prompted.model.schedule) == 1000
    plain = diffusers.StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    torch.testing.assert_close(prompted.model.schedule.beta, plain.scheduler.betas)
    torch.testing.assert_close(eps(prompted.model), eps_of(plain))
    assert (eps(prompted.model) - eps_of(plain, "another")).abs().max() > 1e-4  # a caption matters
    torch.testing.assert_close(eps(load_prompted(base, CAPTION, rank=2).model), eps_of(plain))  # LoRA starts at nothing


def test_u_and_s_get_the_same_caption(base):
    prompted, seen = load_prompted(base, CAPTION), []
    prompted.pipe.unet.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True)
    tuned(prompted, Settings(1, batch_unlabeled=4, batch_sensitive=2))
    (words,) = seen
    assert words.shape == (6, 77, 16)
    plain = prompted.pipe.encode_prompt(CAPTION, "cpu", 1, False)[0]
    torch.testing.assert_close(words, plain.expand(6, -1, -1))


def test_a_v_prediction_is_read_as_one(base, tmp_path):
    pipe = pipeline(tmp_path / "words")
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    pipe.save_pretrained(tmp_path / "v")
    assert load_prompted(tmp_path / "v", CAPTION).model.prediction == "v"


def test_the_start_of_lora_depends_on_its_seed_alone(base):
    torch.manual_seed(1)
    first = load_prompted(base, CAPTION, rank=2)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    assert same(state(first.model), state(load_prompted(base, CAPTION, rank=2).model))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not same(state(first.model), state(load_prompted(base, CAPTION, rank=2, seed=1).model))


# -------------------------------------------------------------------------------------------- to train


def test_lora_trains_its_own_weights_alone(base):
    prompted = load_prompted(base, CAPTION, rank=2)
    free = {name for name, weight in prompted.model.named_parameters() if weight.requires_grad}
    assert len(free) == 4 * 2 * 4 * 2 and all("lora_" in name for name in free)  # A and B of 4 projections, twice in each of 4 transformers
    assert not any(weight.requires_grad for part in (prompted.pipe.vae, prompted.pipe.text_encoder) for weight in part.parameters())
    before, predicted = state(prompted.model), eps(prompted.model)
    model = tuned(prompted)
    after = state(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == free
    assert (eps(model) - predicted).abs().max() > 1e-3  # it learned
    assert same(before, state(prompted.model)) and torch.equal(predicted, eps(prompted.model))  # fit changes a copy


def test_without_a_rank_all_weights_train(base):
    prompted = load_prompted(base, CAPTION)
    before = state(prompted.model)
    after = state(tuned(prompted))
    weights = {name for name, _ in prompted.model.named_parameters()} - {"network.caption_embedding"}
    assert sum(not torch.equal(before[name], after[name]) for name in weights) > 0.9 * len(weights)
    assert torch.equal(before["network.caption_embedding"], after["network.caption_embedding"])


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_lora_learns_in_float32_over_frozen_weights_in_half_precision(base, precision):
    prompted = load_prompted(base, CAPTION, rank=2, dtype=torch.bfloat16)
    assert {weight.dtype for weight in prompted.model.parameters() if weight.requires_grad} == {torch.float32}
    assert {weight.dtype for weight in prompted.model.parameters() if not weight.requires_grad} == {torch.bfloat16}
    model = tuned(prompted, replace(SETTINGS, precision=precision))
    predicted = eps(model)
    assert predicted.dtype == torch.float32 and (predicted - eps(prompted.model)).abs().max() > 1e-2
    torch.testing.assert_close(eps(prompted.model), eps(load_prompted(base, CAPTION).model), rtol=0.1, atol=0.1)
    assert prompted.encode(torch.zeros(1, 3, 8, 8)).dtype == torch.float32


@pytest.mark.parametrize("rank", [None, 2])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(base, tmp_path, rank):
    prompted = load_prompted(base, CAPTION, rank)
    run = fit(prompted.model, latents(8, 0), risk, SETTINGS, latents(4, 1), tmp_path / "run.safetensors")
    next(run), next(run)
    run.close()  # as Ctrl-C between steps does, it leaves a checkpoint
    again = load_prompted(base, CAPTION, rank)  # as another process would
    assert same(state(tuned(again, checkpoint=tmp_path / "run.safetensors")), state(tuned(prompted)))


def test_a_checkpoint_of_lora_holds_no_frozen_weights(base, tmp_path):
    tuned(load_prompted(base, CAPTION, rank=2), checkpoint=tmp_path / "lora")
    tuned(load_prompted(base, CAPTION), checkpoint=tmp_path / "full")
    held = load_file(tmp_path / "lora")
    assert not any("base_layer" in name or "conv" in name for name in held)
    assert (tmp_path / "lora").stat().st_size < 0.2 * (tmp_path / "full").stat().st_size
    assert (tmp_path / "lora").stat().st_size < 0.6 * (base / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size


@pytest.mark.parametrize("rank", [None, 2])
def test_a_run_does_not_go_on_under_another_caption(base, tmp_path, rank):
    settings = Settings(1, batch_unlabeled=4, batch_sensitive=2)
    tuned(load_prompted(base, CAPTION, rank), settings, tmp_path / "run")
    with pytest.raises(CheckpointError, match="belongs to another"):
        tuned(load_prompted(base, "a cat", rank), settings, tmp_path / "run")


# --------------------------------------------------------------------------------------------- to save


@pytest.mark.parametrize("rank, dtype", [(None, torch.float32), (2, torch.float32), (2, torch.bfloat16)])
def test_a_saved_pipeline_is_one_of_plain_diffusers(base, tmp_path, rank, dtype):
    prompted = load_prompted(base, CAPTION, rank, dtype)
    model = tuned(prompted)
    before, start = state(model), state(prompted.model)
    save_prompted(tmp_path / "tuned", prompted, model, CARD)
    assert same(before, state(model)) and same(start, state(prompted.model))
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "tuned")
    loose = {} if dtype == torch.float32 else dict(rtol=0.05, atol=0.05)  # it computes in float32, the model in bfloat16
    torch.testing.assert_close(eps_of(pipe), eps(model), **loose)
    assert (eps_of(pipe) - eps(prompted.model)).abs().max() > (1e-3 if dtype == torch.float32 else 0.1)
    assert not hasattr(pipe.unet, "peft_config") and not any("lora" in name for name in pipe.unet.state_dict())
    assert len(pipe(CAPTION, num_inference_steps=2).images) == 1
    files = [path for path in (tmp_path / "tuned").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} - {".txt"} == {".json", ".md", ".safetensors"}  # older releases keep words in .txt; none a pickle
    assert not any(str(base.parent) in path.read_text() for path in files if path.suffix in (".json", ".md"))
    torch.testing.assert_close(eps(load_prompted(tmp_path / "tuned", CAPTION).model), eps_of(pipe))  # to train on from there


def test_lora_alone_is_loaded_into_the_base_by_plain_diffusers(base, lora, tmp_path):
    prompted, model = lora
    before = state(model)
    save_prompted(tmp_path / "lora", prompted, model, CARD, lora_only=True)
    assert same(before, state(model))
    assert {path.name for path in (tmp_path / "lora").iterdir()} == {"README.md", LORA_FILE}
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(base)
    pipe.load_lora_weights(tmp_path / "lora")
    torch.testing.assert_close(eps_of(pipe), eps(model))
    text = (tmp_path / "lora" / "README.md").read_text()
    assert "**Base:** base. `pipe.load_lora_weights` adds" in text and str(base) not in text


def test_a_card_states_the_caption_and_that_no_safety_checker_is_there(lora, tmp_path):
    save_prompted(tmp_path / "tuned", *lora, CARD)
    text = (tmp_path / "tuned" / "README.md").read_text()
    for part in ("with class prior 0.09091", '**Caption:** U and S had one caption, "a dog"', "**Base:** base.", "none is in this pipeline"):
        assert part in text


def test_only_what_was_saved_here_is_replaced(lora, tmp_path):
    folder = tmp_path / "tuned"
    save_prompted(folder, *lora, CARD)
    save_prompted(folder, *lora, Card("other data", "PU risk", 0.1), lora_only=True)
    assert {path.name for path in folder.iterdir()} == {"README.md", LORA_FILE} and "other data" in (folder / "README.md").read_text()
    (folder / "thesis.txt").write_text("years of work")
    pipeline(tmp_path / "words").save_pretrained(tmp_path / "theirs")
    (tmp_path / "file").write_text("years of work")
    for taken in (folder, tmp_path / "theirs", tmp_path / "file"):
        with pytest.raises(PipelineError, match="folder must be a new one"):
            save_prompted(taken, *lora, CARD)
    assert (folder / "thesis.txt").exists() and (tmp_path / "theirs" / "unet").exists() and (tmp_path / "file").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "theirs", "tuned", "words"]


def test_a_failing_save_leaves_what_was_there(lora, tmp_path, monkeypatch):
    save_prompted(tmp_path / "tuned", *lora, CARD)
    monkeypatch.setattr(Card, "markdown", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_prompted(tmp_path / "tuned", *lora, CARD)
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]
    load_prompted(tmp_path / "tuned", CAPTION)


# --------------------------------------------------------------------------------- latents and drawings


def test_latents_are_the_mode_scaled_and_come_back(base):
    prompted = load_prompted(base, CAPTION)
    images = torch.rand(5, 3, 8, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = prompted.encode(images, batch=2)
    assert z.shape == (5, 4, 4, 8) and z.dtype == torch.float32 and not z.requires_grad
    vae = prompted.pipe.vae
    with torch.no_grad():
        torch.testing.assert_close(z, vae.encode(images).latent_dist.mean * 0.18215)
        torch.testing.assert_close(prompted.decode(z, batch=3), vae.decode(z / 0.18215).sample.clamp(-1, 1))
    again = prompted.decode(z)
    assert again.shape == images.shape and again.abs().max() <= 1
    vae.register_to_config(shift_factor=0.5)
    torch.testing.assert_close(prompted.encode(images), z - 0.5 * 0.18215)
    torch.testing.assert_close(prompted.decode(prompted.encode(images)), again)


def test_a_drawing_depends_on_its_seed_and_number_alone(base):
    prompted = load_prompted(base, CAPTION)
    prompted.pipe.set_progress_bar_config(disable=True)
    options = dict(num_inference_steps=2, guidance_scale=3.0, negative_prompt="cat")
    five = draw(prompted, "a cat", 5, seed=3, batch=2, **options)
    assert five.shape == (5, 3, 8, 8) and five.min() >= -1 and five.max() <= 1 and five.std(0).max() > 0.01
    torch.testing.assert_close(draw(prompted.pipe, "a cat", 3, seed=3, batch=3, **options), five[:3], rtol=1e-4, atol=1e-4)
    assert (draw(prompted, "a cat", 1, seed=4, **options) - five[:1]).abs().max() > 0.01
    alone = prompted.pipe("a cat", generator=torch.Generator().manual_seed(3 * 1_000_003 + 4), output_type="pt", **options).images
    torch.testing.assert_close(alone * 2 - 1, five[4:], rtol=1e-4, atol=1e-4)


def test_a_trained_model_is_drawn_from_without_saving_it(lora, tmp_path):
    prompted, model = lora
    save_prompted(tmp_path / "tuned", prompted, model, CARD)
    saved = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "tuned")
    drawn = draw(prompted.pipe_with(model), CAPTION, 2, 0, num_inference_steps=3)
    torch.testing.assert_close(drawn, draw(saved, CAPTION, 2, 0, num_inference_steps=3), rtol=1e-3, atol=1e-3)
    assert (drawn - draw(prompted, CAPTION, 2, 0, num_inference_steps=3)).abs().max() > 1e-3


# ------------------------------------------------------------------------------------------ bad input


def test_bad_arguments_are_named(base):
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match="rank must be a whole number >= 1"):
            load_prompted(base, CAPTION, rank=bad)
    for rank, dtype in ((None, torch.bfloat16), (2, torch.float64)):
        with pytest.raises(ValueError, match="dtype must be float32, or with a rank bfloat16 or float16"):
            load_prompted(base, CAPTION, rank, dtype)
    load_prompted(base, "a " * 75)
    with pytest.raises(ValueError, match="caption must have at most 77 tokens, .*; got 78"):
        load_prompted(base, "a " * 76)
    with pytest.raises(ValueError, match="caption must be a text; got list"):
        load_prompted(base, ["a", "b"])
    with pytest.raises(ValueError, match="caption_embedding must be"):
        Captioned(unet(), torch.zeros(1, 77, 16))
    prompted = load_prompted(base, CAPTION)
    for images in (torch.zeros(2, 3, 9, 8), torch.zeros(2, 1, 8, 8), torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), [1]):
        with pytest.raises(ValueError, match=r"images must be float \[n >= 1, 3, h, w\] in \[-1, 1\]"):
            prompted.encode(images)
    with pytest.raises(ValueError, match="latents must be"):
        prompted.decode(torch.zeros(2, 3, 8, 8))
    for bad in (dict(n=0, seed=0), dict(n=1, seed=-1), dict(n=1, seed=0, batch=0)):
        with pytest.raises(ValueError, match="must be a whole number"):
            draw(prompted, CAPTION, **bad)
    with pytest.raises(ValueError, match="prompt must be a text"):
        draw(prompted, ["a", "b"], 1, 0)


def test_a_model_of_another_kind_is_not_saved(base, tmp_path):
    prompted = load_prompted(base, CAPTION)
    bare = NoisePredictor(copy.deepcopy(prompted.pipe.unet), linear_schedule(1000), "eps")
    with pytest.raises(PipelineError, match="model must have a Captioned network, .*; got UNet2DConditionModel"):
        save_prompted(tmp_path / "tuned", prompted, bare, CARD)
    with pytest.raises(PipelineError, match="lora_only=True needs a model with LoRA"):
        save_prompted(tmp_path / "tuned", prompted, prompted.model, CARD, lora_only=True)
    assert not list(tmp_path.iterdir())


def test_what_is_not_stable_diffusion_is_refused(base, tmp_path):
    with pytest.raises(PipelineError, match="source must be a folder with a diffusers pipeline"):
        load_prompted(tmp_path / "nothing", CAPTION)
    with pytest.raises(PipelineError, match="or a name on the hub while there is a network; got 'nobody/nothing'"):
        load_prompted("nobody/nothing", CAPTION, local_files_only=True)
    plain = diffusers.UNet2DModel(8, 3, 3, block_out_channels=(8,), norm_num_groups=4, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))
    diffusers.DDPMPipeline(plain, diffusers.DDPMScheduler(20)).save_pretrained(tmp_path / "pixels")
    with pytest.raises(PipelineError, match="source must hold Stable Diffusion: .* holds a DDPMPipeline with scheduler, unet$"):
        load_prompted(tmp_path / "pixels", CAPTION)
    pipeline(tmp_path / "more", scheduler=diffusers.EDMEulerScheduler()).save_pretrained(tmp_path / "edm")
    with pytest.raises(PipelineError, match="a EDMEulerScheduler without betas"):
        load_prompted(tmp_path / "edm", CAPTION)
    pipeline(tmp_path / "words", unet=unet(in_channels=9)).save_pretrained(tmp_path / "inpaint")
    with pytest.raises(PipelineError, match="holds a U-Net of 9 channels for latents of 4"):
        load_prompted(tmp_path / "inpaint", CAPTION)
    (tmp_path / "inpaint" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"half a file")
    with pytest.raises(PipelineError, match="source must be a folder with a diffusers pipeline"):
        load_prompted(tmp_path / "inpaint", CAPTION)
    pipeline(tmp_path / "more words").save_pretrained(tmp_path / "pickles", safe_serialization=False)
    with pytest.raises(PipelineError, match="source must be a folder with a diffusers pipeline in safetensors"):
        load_prompted(tmp_path / "pickles", CAPTION)
    index = json.loads((base / "model_index.json").read_text())
    for name, changed in (("xl", {"text_encoder_2": ["transformers", "CLIPTextModel"]}), ("none", {"text_encoder": [None, None]})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_index.json").write_text(json.dumps(index | changed))
        with pytest.raises(PipelineError, match="source must hold Stable Diffusion"):
            load_prompted(tmp_path / name, CAPTION)


def test_loading_says_nothing_of_what_users_cannot_change(base):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        load_prompted(base, CAPTION, rank=1)
