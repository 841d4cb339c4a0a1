"""Bad input is refused with one clear sentence that names what, and what is allowed."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from pulib import (
    checks,
    data,
    diffusion,
    evaluation,
    failures,
    notation,
    plots,
    prior,
    probes,
    risk,
    rivals,
    toy,
    training,
    widgets,
)
from pulib.data import DataError
from pulib.training import CheckpointError, Settings, fit, new_model
from pulib.unet import UNet

IMAGES = torch.zeros(4, 1, 8, 8)
DIGITS = torch.zeros(6, 1, 28, 28)
LEVELS = torch.zeros(6).long()
ONE = torch.ones(1)
NAN = float("nan")
EVERYWHERE = torch.tensor(True)
SHORT = {"batch_unlabeled": 2, "batch_sensitive": 1, "precision": "no"}
JUDGE = "weights/judge.safetensors"


class Box:
    """A copy of data/ that a case may break, and a checkpoint of a finished run."""

    def __init__(self, root: Path) -> None:
        self.data, self.checkpoint = root / "data", root / "run.checkpoint"
        self.data.mkdir()
        for name in ("manifest.json", data.DIGITS_FILE, JUDGE):
            (self.data / name).parent.mkdir(exist_ok=True)
            shutil.copy(data.DATA / name, self.data / name)

    def flip(self, name: str) -> None:
        content = bytearray((self.data / name).read_bytes())
        content[len(content) // 2] ^= 1
        (self.data / name).write_bytes(content)

    def cut(self, name: str) -> None:
        os.truncate(self.data / name, (self.data / name).stat().st_size // 2)

    def list_again(self, name: str) -> None:
        """Put the broken file's own SHA-256 into the manifest, so that only its content can tell."""
        data.record_sha256(name)

    def run(self, model=None, checkpoint: Path | None = None, steps: int = 2, **changes) -> None:
        settings = Settings(steps, **(SHORT | changes))
        list(fit(model or new_model((8, 8)), IMAGES, risk.unsupervised_risk, settings, checkpoint=checkpoint or self.checkpoint))

    def finished(self) -> Path:
        self.run()
        return self.checkpoint


@pytest.fixture
def box(tmp_path, monkeypatch):
    box = Box(tmp_path)
    for module in (data, training, evaluation):
        monkeypatch.setattr(module, "DATA", box.data)
    return box


def train(unlabeled=IMAGES, sensitive=None, objective=risk.unsupervised_risk, **changes):
    return next(fit(new_model((8, 8)), unlabeled, objective, Settings(2, **(SHORT | changes)), sensitive))


def batch_risk(t=LEVELS, prior=0.1):
    return training.batch_risk(new_model((8, 8)), IMAGES, IMAGES[:2], t, torch.zeros(6, 1, 8, 8), prior)


def split_of(unlabeled, sensitive, u_digits, s_digits, normal="even"):
    held = torch.rand(2, 1, 8, 8)
    return data.make_split(normal, unlabeled, sensitive, held, held, u_digits, s_digits, torch.zeros(2), torch.ones(2))


def pu(prior=0.1, **options):
    return risk.pu_risk(ONE, ONE, prior, **options)


def after(*steps):
    """Run all steps and give back the last one's result."""
    return [step() for step in steps][-1]


def finished_with(box: Box, damage) -> None:
    path = box.finished()
    path.write_bytes(damage(path.read_bytes()))
    box.run()


def middle_bit(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]


def save_plain_weights(box: Box) -> None:
    training.save_weights(box.checkpoint, new_model((8, 8)))
    box.run()


def picture(value):
    return plots.Picture(b"png", "alt", 10), ""


def sampled(**options):
    schedule = diffusion.linear_schedule(10)
    return diffusion.sample(lambda xt, t: xt, options.pop("n", 2), schedule, shape=(2,), **options)


def states(sampler=diffusion.ddim_sampler, **options):
    return list(sampler(lambda xt, t: xt, torch.zeros(1, 2), diffusion.linear_schedule(10), **options))


def captioned(similarity=1.0, assumed=0.1, **options):
    return next(failures.train_captioned(WORLD, failures.Captions(similarity), diffusion.linear_schedule(10), assumed, **options))


def renoised(level=0, steps=5, noise=IMAGES):
    return probes.renoised(lambda xt, t: xt, IMAGES, level, noise, diffusion.linear_schedule(10), steps)


def pasted(mask=EVERYWHERE, known=IMAGES, noise=IMAGES, t=LEVELS[:4]):
    return probes.paste_known(IMAGES, known, mask, t, noise, diffusion.linear_schedule(10))


WORLD = toy.ring_world(prior=0.2)
SPLIT = "prior must be a number in [0, 1)"

# (what is wrong, a call given a box, the error, parts of its sentence)
CASES = [
    # the split
    ("prior of 1", lambda b: data.load_pu(prior=1.0), ValueError, [SPLIT, "got 1.0"]),
    ("negative prior", lambda b: data.load_pu(prior=-0.1), ValueError, [SPLIT, "got -0.1"]),
    ("nan prior", lambda b: data.load_pu(prior=NAN), ValueError, [SPLIT, "got nan"]),
    ("prior as text", lambda b: data.load_pu(prior="0.1"), ValueError, [SPLIT, "got '0.1'"]),
    ("prior as truth value", lambda b: data.load_pu(prior=False), ValueError, [SPLIT, "got False"]),
    ("no prior", lambda b: data.load_pu(prior=None), ValueError, [SPLIT, "got None"]),
    ("unknown normal", lambda b: data.load_pu("prime"), ValueError, ["normal must be 'even' or 'odd'", "got 'prime'"]),
    ("unknown normal of digits", lambda b: data.is_normal(ONE, "Even"), ValueError, ["normal must be one of 'even', 'odd'", "got 'Even'"]),
    ("unknown normal of balance", lambda b: evaluation.class_balance(ONE, "all"), ValueError, ["normal must be", "got 'all'"]),
    ("too many sensitive", lambda b: data.load_pu(n_sensitive=1250), ValueError, ["n_sensitive must be at most 1249", "got 1250"]),
    ("no sensitive", lambda b: data.load_pu(n_sensitive=0), ValueError, ["n_sensitive must be a whole number >= 1", "got 0"]),
    ("half an image", lambda b: data.load_pu(n_sensitive=1.5), ValueError, ["n_sensitive must be a whole number >= 1", "got 1.5"]),
    ("seed as text", lambda b: data.load_pu(seed="a"), ValueError, ["seed must be a whole number >= 0", "got 'a'"]),
    (
        "S overlaps U",
        lambda b: split_of(torch.rand(3, 1, 8, 8).mul_(0), IMAGES[:1], torch.zeros(3), ONE),
        ValueError,
        ["sensitive shares 1 image(s) with unlabeled", "disjoint"],
    ),
    ("empty U", lambda b: split_of(IMAGES[:0], IMAGES, ONE[:0], ONE.expand(4)), ValueError, ["unlabeled is empty", "at least one"]),
    ("empty S", lambda b: split_of(IMAGES, IMAGES[:0], torch.zeros(4), ONE[:0]), ValueError, ["sensitive is empty", "at least one"]),
    (
        "U without normal images",
        lambda b: split_of(IMAGES, IMAGES + 1, ONE.expand(4), ONE.expand(4)),
        ValueError,
        ["unlabeled holds no normal (even) image", "allowed is [0, 1)"],
    ),
    (
        "digits of other images",
        lambda b: split_of(IMAGES, IMAGES + 1, torch.zeros(3), ONE.expand(4)),
        ValueError,
        ["unlabeled_digits must have one digit per image", "3 for 4"],
    ),
    ("share below that of S", lambda b: data.prior_in_unlabeled(0.05, 1000, 100), ValueError, ["prior_all must be a number in [0.09091, 1)", "got 0.05"]),
    ("share of 1", lambda b: data.prior_in_unlabeled(1.0, 10, 10), ValueError, ["prior_all must be a number in [0.5, 1)", "got 1.0"]),
    ("nan share", lambda b: data.prior_in_unlabeled(NAN, 10, 0), ValueError, ["prior_all must be a number in [0, 1)", "got nan"]),
    ("share without U", lambda b: data.prior_in_unlabeled(0.5, 0, 10), ValueError, ["n_unlabeled must be a whole number >= 1", "got 0"]),
    ("share with half an S", lambda b: data.prior_in_unlabeled(0.5, 10, 0.5), ValueError, ["n_sensitive must be a whole number >= 0", "got 0.5"]),
    # data and weights files
    ("flipped bit in the digits", lambda b: after(lambda: b.flip("digits.npz"), data.load_digits), DataError, ["digits.npz is corrupt", "git checkout"]),
    ("truncated digits", lambda b: after(lambda: b.cut("digits.npz"), data.load_pu), DataError, ["digits.npz is corrupt", "git checkout"]),
    (
        "digits whose archive is broken",
        lambda b: after(lambda: b.flip("digits.npz"), lambda: b.list_again("digits.npz"), data.load_digits),
        DataError,
        ["digits.npz is corrupt", "no archive of two arrays"],
    ),
    ("strength of nan", lambda b: data.distort(IMAGES, torch.Generator(), NAN), ValueError, ["strength must be a finite number >= 0", "got nan"]),
    ("missing digits", lambda b: after((b.data / "digits.npz").unlink, data.load_digits), DataError, ["digits.npz is missing", "git checkout"]),
    (
        "unlisted file",
        lambda b: after(lambda: (b.data / "mine.npz").write_bytes(b""), lambda: data.read_verified("mine.npz")),
        DataError,
        ["mine.npz is not listed", "allowed: ", "digits.npz"],
    ),
    (
        "broken manifest",
        lambda b: after(lambda: b.cut("manifest.json"), data.load_digits),
        DataError,
        ["manifest.json is corrupt", "git checkout"],
    ),
    ("flipped bit in the judge", lambda b: after(lambda: b.flip(JUDGE), evaluation.load_judge), DataError, ["judge.safetensors is corrupt"]),
    (
        "flipped bit in a listed judge",
        lambda b: after(lambda: b.flip(JUDGE), lambda: b.list_again(JUDGE), evaluation.load_judge),
        CheckpointError,
        ["judge.safetensors is corrupt", "digest"],
    ),
    (
        "truncated judge",
        lambda b: after(lambda: b.cut(JUDGE), lambda: b.list_again(JUDGE), evaluation.load_judge),
        CheckpointError,
        ["judge.safetensors is corrupt", "restore it"],
    ),
    ("missing base", lambda b: training.load_base("even"), DataError, ["base_even.safetensors is missing", "git checkout"]),
    ("unknown base", lambda b: training.load_base("prime"), ValueError, ["normal must be 'even' or 'odd'", "got 'prime'"]),
    # checkpoints
    (
        "checkpoint of a wider network",
        lambda b: after(b.finished, lambda: b.run(new_model((8, 16)))),
        CheckpointError,
        ["run.checkpoint belongs to another architecture", "in this network"],
    ),
    (
        "checkpoint of another prediction",
        lambda b: after(b.finished, lambda: b.run(new_model((8, 8), "eps"))),
        CheckpointError,
        ["run.checkpoint belongs to another model", "'v'", "'eps'"],
    ),
    (
        "checkpoint of another schedule",
        lambda b: after(b.finished, lambda: b.run(new_model((8, 8), schedule="linear"))),
        CheckpointError,
        ["run.checkpoint belongs to another model", "schedule"],
    ),
    (
        "checkpoint of other settings",
        lambda b: after(b.finished, lambda: b.run(lr=0.5)),
        CheckpointError,
        ["run.checkpoint was written with other settings", "lr 0.001 there, 0.5 here"],
    ),
    ("weights as checkpoint", save_plain_weights, CheckpointError, ["run.checkpoint holds weights, not a training checkpoint"]),
    ("flipped bit in a checkpoint", lambda b: finished_with(b, middle_bit), CheckpointError, ["run.checkpoint is corrupt", "delete it"]),
    ("truncated checkpoint", lambda b: finished_with(b, lambda c: c[:-100]), CheckpointError, ["run.checkpoint is corrupt", "delete it"]),
    ("empty checkpoint", lambda b: finished_with(b, lambda c: b""), CheckpointError, ["run.checkpoint is corrupt", "delete it"]),
    ("text as checkpoint", lambda b: finished_with(b, lambda c: b"hello " * 50), CheckpointError, ["run.checkpoint is corrupt", "not a pulib"]),
    # training
    ("no unlabeled images", lambda b: train(IMAGES[:0]), ValueError, ["unlabeled is empty", "at least one image"]),
    ("no sensitive images", lambda b: train(IMAGES, IMAGES[:0]), ValueError, ["sensitive is empty", "None"]),
    ("shapes that differ", lambda b: train(IMAGES, torch.zeros(2, 1, 4, 4)), ValueError, ["one shape", "(1, 8, 8)", "(1, 4, 4)"]),
    ("images as numbers 0-255", lambda b: train(IMAGES.byte()), ValueError, ["unlabeled must be a float tensor", "uint8"]),
    ("images as arrays", lambda b: train(IMAGES, IMAGES.numpy()), ValueError, ["sensitive must be a float tensor", "ndarray"]),
    ("nan pixels", lambda b: train(IMAGES * NAN), FloatingPointError, ["the risk is nan or infinite at step 1", "lower lr (now 0.001)", "nan"]),
    ("infinite risk", lambda b: train(objective=lambda u, s: u.mean() / 0), FloatingPointError, ["the risk is nan or infinite at step 1", "lr"]),
    ("PU without S", lambda b: train(objective=lambda u, s: risk.pu_risk(u, s, 0.1)), ValueError, ["loss_s is empty", "`sensitive` given to `fit`"]),
    ("supervised without S", lambda b: train(objective=risk.supervised_risk), ValueError, ["loss_s is empty", "`sensitive`"]),
    ("no steps", lambda b: Settings(0), ValueError, ["steps must be a whole number >= 1", "got 0"]),
    ("empty batch", lambda b: Settings(1, batch_unlabeled=0), ValueError, ["batch_unlabeled must be a whole number >= 1", "got 0"]),
    ("negative rate", lambda b: Settings(1, lr=-1e-3), ValueError, ["lr must be a finite number > 0", "got -0.001"]),
    ("nan rate", lambda b: Settings(1, lr=NAN), ValueError, ["lr must be a finite number > 0", "got nan"]),
    ("rate as text", lambda b: Settings(1, lr="fast"), ValueError, ["lr must be a finite number > 0", "got 'fast'"]),
    ("clipping to nothing", lambda b: Settings(1, clip_norm=0), ValueError, ["clip_norm must be a finite number > 0", "got 0"]),
    ("negative warm-up", lambda b: Settings(1, warmup=-1), ValueError, ["warmup must be a whole number >= 0", "got -1"]),
    ("frozen average", lambda b: Settings(1, ema=1.0), ValueError, ["ema must be in [0, 1)", "got 1.0"]),
    ("batch of no cards", lambda b: training.chance_without_sensitive(5, 5, 0), ValueError, ["batch must be a whole number >= 1", "got 0"]),
    ("batch larger than the deck", lambda b: training.chance_without_sensitive(5, 3, 9), ValueError, ["batch must be at most 8", "got 9"]),
    ("levels for U alone", lambda b: batch_risk(LEVELS[:4]), ValueError, ["t and noise must have one row for each of the 6 images", "4 and 6"]),
    ("prior of a batch's risk", lambda b: batch_risk(prior=1.5), ValueError, [SPLIT, "got 1.5"]),
    ("decay above 1", lambda b: training.average(new_model((8, 8)), new_model((8, 8)), 1.1), ValueError, ["decay must be in [0, 1]", "got 1.1"]),
    ("unknown precision", lambda b: Settings(1, precision="fp8"), ValueError, ["precision must be 'auto', 'no', 'bf16' or 'fp16'", "got 'fp8'"]),
    # risks
    ("prior of a risk", lambda b: pu(1.2), ValueError, [SPLIT, "got 1.2"]),
    ("nan prior of a risk", lambda b: pu(NAN), ValueError, [SPLIT, "got nan"]),
    ("unknown correction", lambda b: pu(correction="relu"), ValueError, ["correction must be 'none', 'clip' or 'abs'", "got 'relu'"]),
    ("temperature 0", lambda b: pu(temperature=0), ValueError, ["temperature must be a finite number > 0", "got 0"]),
    ("nan temperature", lambda b: risk.sensitive_loss(ONE, NAN), ValueError, ["temperature must be a finite number > 0", "got nan"]),
    ("no unlabeled losses", lambda b: risk.pu_risk(ONE[:0], ONE, 0.1), ValueError, ["loss_u is empty", "at least one loss"]),
    ("prior of an error rate", lambda b: risk.pu_error(ONE, ONE, 1.0), ValueError, [SPLIT, "got 1.0"]),
    ("no unlabeled scores", lambda b: risk.pu_error(ONE[:0], ONE, 0.1), ValueError, ["score_u is empty", "at least one loss or score"]),
    ("no sensitive scores", lambda b: risk.pu_error(ONE, ONE[:0], 0.0), ValueError, ["score_s is empty", "at least one loss or score"]),
    ("temperature of a slope", lambda b: risk.sensitive_slope(ONE, -1.0), ValueError, ["temperature must be a finite number > 0", "got -1.0"]),
    ("one loss to vary", lambda b: risk.normal_part_error(ONE, ONE.expand(2), 0.1), ValueError, ["at least two losses each", "got 1 and 2"]),
    ("prior of an error", lambda b: risk.normal_part_error(ONE.expand(2), ONE.expand(2), -0.5), ValueError, [SPLIT, "got -0.5"]),
    # diffusion
    ("unknown prediction", lambda b: new_model((8, 8), "x0"), ValueError, ["prediction must be 'eps' or 'v'", "got 'x0'"]),
    ("unknown schedule", lambda b: new_model((8, 8), schedule="sine"), ValueError, ["schedule must be one of ['cosine', 'linear']", "got 'sine'"]),
    ("no levels", lambda b: new_model((8, 8), T=0), ValueError, ["T must be a whole number >= 1", "got 0"]),
    ("beta above 1", lambda b: diffusion.linear_schedule(10, high=1.5), ValueError, ["beta", "in (0, 1)"]),
    ("betas that add up to too much", lambda b: diffusion.linear_schedule(20_000), ValueError, ["beta must let alpha_bar fall", "in float32"]),
    ("beta that float32 rounds away", lambda b: diffusion.Schedule(ONE * 1e-9), ValueError, ["beta must let alpha_bar fall", "too small"]),
    ("beta as text", lambda b: diffusion.linear_schedule(10, low="small"), ValueError, ["low must be a finite number > 0", "got 'small'"]),
    ("nan offset", lambda b: diffusion.cosine_schedule(10, NAN), ValueError, ["offset must be a finite number >= 0", "got nan"]),
    ("empty schedule", lambda b: diffusion.Schedule(ONE[:0]), ValueError, ["beta", "in (0, 1)"]),
    ("no sampler steps", lambda b: states(steps=0), ValueError, ["steps must be a whole number >= 1", "got 0"]),
    ("more fresh noise than noise", lambda b: diffusion.step_back(ONE, ONE, 0.75, 0.6, ONE), ValueError, ["sigma must be at most", "0.5; got 0.6"]),
    ("no ancestral steps", lambda b: states(diffusion.ddpm_sampler, steps=0), ValueError, ["steps must be a whole number >= 1", "got 0"]),
    ("more steps than levels", lambda b: states(steps=11), ValueError, ["steps must be in 1 … 10", "got 11"]),
    ("half a step", lambda b: states(steps=2.5), ValueError, ["steps must be a whole number >= 1", "got 2.5"]),
    ("eta above 1", lambda b: states(steps=5, eta=1.5), ValueError, ["eta must be in [0, 1]", "got 1.5"]),
    ("eta as text", lambda b: states(steps=5, eta="1"), ValueError, ["eta must be in [0, 1]", "got '1'"]),
    ("seed of samples", lambda b: sampled(steps=2, seed=-1), ValueError, ["seed must be a whole number >= 0", "got -1"]),
    ("seed of 60 bits", lambda b: sampled(steps=2, seed=2**60), ValueError, ["seed must be at most", "got 1152921504606846976"]),
    ("no samples", lambda b: sampled(n=0), ValueError, ["n must be a whole number >= 1", "got 0"]),
    ("batch of none", lambda b: sampled(steps=2, batch=0), ValueError, ["batch must be a whole number >= 1", "got 0"]),
    ("odd image size", lambda b: UNet(widths=(8, 8))(torch.zeros(1, 1, 9, 8), ONE), ValueError, ["height and width must be divisible by 4", "(9, 8)"]),
    ("odd widths", lambda b: UNet(widths=(8, 12)), ValueError, ["widths must be two multiples of 8", "(8, 12)"]),
    ("three widths", lambda b: UNet(widths=(8, 8, 8)), ValueError, ["widths must be two multiples of 8", "(8, 8, 8)"]),
    ("width 0", lambda b: UNet(widths=(0, 8)), ValueError, ["widths must be two multiples of 8", "(0, 8)"]),
    # evaluation
    ("more successes than trials", lambda b: evaluation.wilson_interval(5, 4), ValueError, ["successes must be in 0 … n", "5 of 4"]),
    ("judge at chance", lambda b: evaluation.corrected_nsr(0.5, 0.5, 0.5), ValueError, ["e_normal + e_sensitive must be below 1", "0.5 + 0.5"]),
    ("interval at nan", lambda b: evaluation.wilson_interval(1, 4, NAN), ValueError, ["z must be a finite number > 0", "got nan"]),
    ("more normal samples than samples", lambda b: evaluation.nsr_interval(5, 4, (0.1, 0.1), 9), ValueError, ["k must be in 0 … n", "5 of 4"]),
    ("errors of no images", lambda b: evaluation.nsr_interval(1, 4, (0.1, 0.1), 0), ValueError, ["n_errors must be a whole number >= 1", "got 0"]),
    ("batch of none to judge", lambda b: evaluation.read(evaluation.Judge(), DIGITS, 0), ValueError, ["batch must be a whole number >= 1", "got 0"]),
    ("nan rate observed", lambda b: evaluation.corrected_nsr(NAN, 0, 0), ValueError, ["observed", "must be in [0, 1]", "nan"]),
    ("negative judge error", lambda b: evaluation.corrected_nsr(0.5, -0.1, 0), ValueError, ["e_normal", "must be in [0, 1]", "-0.1"]),
    ("assumed prior too high", lambda b: evaluation.ideal_nsr(0.1, 0.2), ValueError, ["assumed must be in [0, prior]", "assumed 0.2, prior 0.1"]),
    ("one feature row", lambda b: evaluation.frechet_distance(torch.ones(1, 64), torch.ones(9, 64)), ValueError, ["at least 2 rows", "1 and 9"]),
    ("short features", lambda b: evaluation.frechet_distance(torch.ones(9, 3), torch.ones(9, 64)), ValueError, ["shape [n, 64]", "[9, 3]"]),
    ("nothing to judge", lambda b: evaluation.read(evaluation.Judge(), torch.zeros(0, 1, 28, 28)), ValueError, ["images is empty", "at least one"]),
    ("nan to judge", lambda b: evaluation.read(evaluation.Judge(), torch.full((2, 1, 28, 28), NAN)), ValueError, ["images", "nan", "[-1, 1]"]),
    ("small images", lambda b: evaluation.read(evaluation.Judge(), IMAGES), ValueError, ["images must have shape [n, 1, 28, 28]", "[4, 1, 8, 8]"]),
    (
        "one sample",
        lambda b: evaluation.evaluate(torch.zeros(1, 1, 28, 28), data.load_pu(), evaluation.Judge()),
        ValueError,
        ["samples must hold at least 2 images", "got 1"],
    ),
    ("missing results", lambda b: evaluation.load_results("none"), DataError, ["none.json is missing", "git checkout"]),
    (
        "results that are no rows",
        lambda b: after(
            lambda: data.write_atomic(b.data / "results/a.json", b'{"rows": [1]}'), lambda: b.list_again("results/a.json"), lambda: evaluation.load_results("a")
        ),
        DataError,
        ["a.json holds no rows of results", "git checkout"],
    ),
    ("results of no file name", lambda b: evaluation.load_results("a\0"), DataError, ["cannot be read", "null"]),
    ("no such oracle", lambda b: training.load_oracle("prime"), ValueError, ["normal must be 'even' or 'odd'", "got 'prime'"]),
    ("unknown arm", lambda b: rivals.arm("magic", data.load_pu()), ValueError, ["arm must be one of unsupervised", "got 'magic'"]),
    ("prior of an arm", lambda b: rivals.arm("pu", data.load_pu(), prior=1.5), ValueError, [SPLIT, "got 1.5"]),
    ("no density", lambda b: diffusion.draw_timesteps(torch.zeros(5), 3), ValueError, ["density must be a vector", "positive sum"]),
    ("no strata", lambda b: diffusion.stratified_timesteps(0, 10), ValueError, ["n must be a whole number >= 1", "got 0"]),
    ("no levels to cut", lambda b: diffusion.stratified_timesteps(3, 0), ValueError, ["T must be a whole number >= 1", "got 0"]),
    (
        "one r per coordinate",
        lambda b: diffusion.noise_of_normal(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(2)),
        ValueError,
        ["one shape [B, ...], and r [B]", "[3, 2], [3, 2], [2]"],
    ),
    ("gamma of zero", lambda b: diffusion.min_snr_density(diffusion.linear_schedule(), 0.0), ValueError, ["gamma must be", "got 0.0"]),
    ("cap of nothing", lambda b: Settings(1, cap=0), ValueError, ["cap must be a finite number > 0", "got 0"]),
    ("no levels to measure", lambda b: training.loss_levels(new_model((8, 8)), IMAGES, n_levels=0), ValueError, ["n_levels must be", "got 0"]),
    ("negative gamma in settings", lambda b: Settings(1, min_snr=-5), ValueError, ["min_snr must be", "got -5"]),
    ("wild distortion", lambda b: Settings(1, distort=7), ValueError, ["distort must be in [0, 2]", "got 7"]),
    # exact worlds
    ("assumed above the true prior", lambda b: WORLD.target(0.3), ValueError, ["assumed must be in [0, 0.2]", "got 0.3"]),
    ("nan assumed prior", lambda b: WORLD.model(diffusion.linear_schedule(), NAN), ValueError, ["assumed must be a number in [0, 1)", "nan"]),
    ("densities of other points", lambda b: toy.responsibility_of(ONE, ONE.expand(3), 0.2), ValueError, ["the same points", "[1], [3]"]),
    ("prior of a responsibility", lambda b: toy.responsibility_of(ONE, ONE, 1.0), ValueError, [SPLIT, "got 1.0"]),
    ("prior of a world", lambda b: toy.ring_world(1.0), ValueError, [SPLIT, "got 1.0"]),
    ("weights of a mixture", lambda b: toy.Mixture(torch.zeros(2, 2), torch.ones(2), 1.0), ValueError, ["weights must be >= 0 and sum to 1", "[1.0, 1.0]"]),
    ("no component", lambda b: toy.Mixture(torch.zeros(0, 2), ONE[:0], 1.0), ValueError, ["means and weights", "0, 0"]),
    ("spread 0", lambda b: toy.Mixture(torch.zeros(1, 2), ONE, 0.0), ValueError, ["std must be a finite number > 0", "0.0"]),
    ("means at nan", lambda b: toy.Mixture(torch.full((1, 2), NAN), ONE, 1.0), ValueError, ["means must be finite", "nan"]),
    ("nan weights", lambda b: toy.Mixture(torch.zeros(1, 2), ONE * NAN, 1.0), ValueError, ["weights must be >= 0 and sum to 1", "[nan]"]),
    ("nan share of a mixture", lambda b: toy.mix(WORLD.normal, WORLD.sensitive, NAN), ValueError, ["share must be in [0, 1]", "got nan"]),
    ("ceiling of a world", lambda b: WORLD.noise_normal(torch.zeros(1, 2), 0.5, ceiling=1.0), ValueError, ["ceiling must be in [0, 1)", "got 1.0"]),
    (
        "spreads that differ",
        lambda b: toy.World(toy.Mixture(torch.zeros(1, 2), ONE, 1.0), toy.Mixture(torch.zeros(1, 2), ONE, 2.0), 0.5).unlabeled,
        ValueError,
        ["std must be the same", "1.0 and 2.0"],
    ),
    ("no points", lambda b: toy.draw_pu(WORLD, 0, 5), ValueError, ["n_unlabeled must be a whole number >= 1", "got 0"]),
    # failures
    ("assumed prior of a negative mass", lambda b: failures.negative_mass(ONE, ONE, 1.0), ValueError, ["assumed must be a number in [0, 1)", "got 1.0"]),
    ("densities at other points", lambda b: failures.negative_mass(ONE, ONE.expand(3), 0.2), ValueError, ["the same points", "[1], [3]"]),
    ("densities nowhere", lambda b: failures.negative_mass(ONE[:0], ONE[:0], 0.2), ValueError, ["the same points, one or more", "[0], [0]"]),
    ("shares above 1", lambda b: failures.largest_prior(ONE, 2 * ONE), ValueError, ["share_u and share_s", "sum to 1", "[2.0]"]),
    ("nan share of a kind", lambda b: failures.largest_prior(ONE * NAN, ONE), ValueError, ["share_u and share_s", "sum to 1", "[nan]"]),
    ("shares of other kinds", lambda b: failures.largest_prior(ONE, ONE.expand(2) / 2), ValueError, ["the same kinds", "[1.0] and [0.5, 0.5]"]),
    ("b above what labels allow", lambda b: failures.nsr_of_labels(0.1, 0.2, 0.2), ValueError, ["assumed must be in [0, 0.125]", "got 0.2", "negative"]),
    ("S of normal images alone", lambda b: failures.nsr_of_labels(0.1, 0.2, 1.0), ValueError, ["contamination must be in [0, 1)", "got 1.0"]),
    ("prior of labels", lambda b: failures.nsr_of_labels(1.0, 0.1), ValueError, [SPLIT, "got 1.0"]),
    ("filter of scores", lambda b: failures.price_of_filter(3 * ONE, 0.5), ValueError, ["r must be a vector of probabilities", "[1], 3.0 to 3.0"]),
    ("filter of nothing", lambda b: failures.price_of_filter(ONE[:0], 0.5), ValueError, ["r must be a vector of probabilities", "[0]"]),
    ("filter that keeps nothing", lambda b: failures.price_of_filter(ONE / 2, 0.5), ValueError, ["threshold must let some image pass", "got 0.5", "is 0.5"]),
    ("log term of nothing", lambda b: failures.log_share(ONE[:0]), ValueError, ["loss_s is empty", "at least one loss"]),
    ("scale 0", lambda b: failures.log_share(ONE, 0), ValueError, ["scale must be a finite number > 0", "got 0"]),
    ("negative spread", lambda b: failures.mean_of_abs(1, -1), ValueError, ["sd must be >= 0", "got -1"]),
    ("nan spread", lambda b: failures.mean_of_abs(1, NAN), ValueError, ["sd must be >= 0", "got nan"]),
    ("nan mean", lambda b: failures.mean_of_abs(NAN, 1), ValueError, ["mean must be a finite number", "got nan"]),
    ("difference of nan errors", lambda b: failures.drawings_needed(0.9, 0.8, NAN), ValueError, ["z must be a finite number > 0", "got nan"]),
    ("one loss on S", lambda b: failures.memorisation(ONE, ONE.expand(5)), ValueError, ["at least two losses each", "got 1 and 5"]),
    ("rates that are the same", lambda b: failures.drawings_needed(0.9, 0.9), ValueError, ["two different rates in [0, 1]", "0.9 and 0.9"]),
    ("rate above 1", lambda b: failures.drawings_needed(0.9, 1.1), ValueError, ["two different rates in [0, 1]", "0.9 and 1.1"]),
    ("share of captions", lambda b: failures.nsr_of_captions(0.2, 0.1, 1.5), ValueError, ["same must be in [0, 1]", "got 1.5"]),
    ("b of captions", lambda b: failures.nsr_of_captions(0.2, 0.5, 0.5), ValueError, ["assumed times same must be at most the prior, 0.2", "got 0.25"]),
    ("one seed", lambda b: failures.over_seeds([1.0]), ValueError, ["values and against must have one number for each of 2 to 10 seeds", "got 1 and none"]),
    ("eleven seeds", lambda b: failures.over_seeds([1.0] * 11), ValueError, ["2 to 10 seeds", "got 11 and none"]),
    ("seeds that differ", lambda b: failures.over_seeds([1.0, 2.0], [1.0]), ValueError, ["2 to 10 seeds", "got 2 and 1"]),
    ("thickness of one image", lambda b: failures.thickness(IMAGES[0]), ValueError, ["images must have shape [n, 1, h, w]", "[1, 8, 8]"]),
    ("slant of colors", lambda b: failures.slant(IMAGES.expand(4, 3, 8, 8)), ValueError, ["images must have shape [n, 1, h, w]", "[4, 3, 8, 8]"]),
    ("garbage of none", lambda b: failures.one_digit(IMAGES, 0), ValueError, ["n must be a whole number >= 1", "got 0"]),
    ("noise of none", lambda b: failures.gray_noise(IMAGES, -1), ValueError, ["n must be a whole number >= 1", "got -1"]),
    ("copies of no images", lambda b: failures.few_copies(IMAGES, 3, different=0), ValueError, ["different must be a whole number >= 1", "got 0"]),
    ("seed of garbage", lambda b: failures.gray_noise(IMAGES, 1, seed=0.5), ValueError, ["seed must be a whole number >= 0", "got 0.5"]),
    ("no pairs", lambda b: failures.two_at_once(IMAGES, 0.5), ValueError, ["n must be a whole number >= 1", "got 0.5"]),
    ("unknown labels", lambda b: failures.labels("thin", 5), ValueError, ["kind must be 'random', 'digits 1, 3'", "got 'thin'"]),
    ("labels of even digits", lambda b: failures.labels("digits 1, 2", 5), ValueError, ["kind must be", "odd", "got 'digits 1, 2'"]),
    ("labels of no digits", lambda b: failures.labels("digits one", 5), ValueError, ["kind must be", "got 'digits one'"]),
    ("all labels wrong", lambda b: failures.labels("wrong 100 %", 5), ValueError, ["kind must be", "below 100", "got 'wrong 100 %'"]),
    ("labels wrong by text", lambda b: failures.labels("wrong many", 5), ValueError, ["kind must be", "got 'wrong many'"]),
    ("no labels", lambda b: failures.labels("random", 0), ValueError, ["n must be a whole number >= 1", "got 0"]),
    ("too many labels", lambda b: failures.labels("bold", 401), ValueError, ["n must be at most 400 images of this kind", "got 401"]),
    ("too many of a digit", lambda b: failures.labels("digits 7", 81), ValueError, ["n must be at most 80 images of this kind", "got 81"]),
    ("too many wrong labels", lambda b: failures.labels("wrong 90 %", 200), ValueError, ["at most 125 of them wrong", "got 200"]),
    ("pair of odd digits", lambda b: failures.pair(1, 7), ValueError, ["normal must be 0 or 2 and sensitive another digit", "got 1 and 7"]),
    ("pair of one digit", lambda b: failures.pair(2, 2), ValueError, ["sensitive another digit", "got 2 and 2"]),
    ("pair with all images", lambda b: failures.pair(2, 7, n_normal=300), ValueError, ["n_normal must be below 300", "got 300, 50 and 100"]),
    ("pair without S", lambda b: failures.pair(2, 7, n_sensitive=0), ValueError, ["n_sensitive must be a whole number >= 1", "got 0"]),
    ("pair of less than none", lambda b: failures.pair(2, 7, n_normal=-5), ValueError, ["n_normal must be a whole number >= 1", "got -5"]),
    ("most slanted", lambda b: failures.slanted(0.6), ValueError, ["share must be in (0, 0.5]", "got 0.6"]),
    ("none slanted", lambda b: failures.slanted(0.0), ValueError, ["share must be in (0, 0.5]", "got 0.0"]),
    ("prior of batches", lambda b: failures.inner_terms(ONE[None], ONE[None], 1.0, 2, 1, 5), ValueError, [SPLIT, "got 1.0"]),
    ("no batches", lambda b: failures.inner_terms(ONE[None], ONE[None], 0.1, 2, 1, 0), ValueError, ["batches must be a whole number >= 1", "got 0"]),
    (
        "prior of a subtraction",
        lambda b: failures.subtracted(WORLD.unlabeled, WORLD.sensitive, 1.0, diffusion.linear_schedule()),
        ValueError,
        ["assumed must be a number in [0, 1)", "got 1.0"],
    ),
    (
        "ceiling of 1",
        lambda b: failures.subtracted(WORLD.unlabeled, WORLD.sensitive, 0.2, diffusion.linear_schedule(), 1.0),
        ValueError,
        ["ceiling must be in [0, 1)", "got 1.0"],
    ),
    ("captions beyond the same", lambda b: failures.Captions(1.2), ValueError, ["similarity must be in [-1, 1]", "got 1.2"]),
    ("nan captions", lambda b: failures.Captions(NAN), ValueError, ["similarity must be in [-1, 1]", "got nan"]),
    ("prior of captions", lambda b: captioned(assumed=1.0), ValueError, ["assumed must be a number in [0, 1)", "got 1.0"]),
    ("no steps with captions", lambda b: captioned(steps=0), ValueError, ["steps must be a whole number >= 1", "got 0"]),
    # probes
    (
        "more inverse steps than levels",
        lambda b: probes.invert(lambda xt, t: xt, IMAGES, diffusion.linear_schedule(10), 11),
        ValueError,
        ["steps must be in 1 … 10", "got 11"],
    ),
    ("level of none", lambda b: renoised(10), ValueError, ["level must be in 0 … 9", "got 10"]),
    ("negative level", lambda b: renoised(-1), ValueError, ["level must be a whole number >= 0", "got -1"]),
    ("no steps to renoise", lambda b: renoised(steps=0), ValueError, ["steps must be a whole number >= 1", "got 0"]),
    ("more steps to renoise than levels", lambda b: renoised(steps=11), ValueError, ["steps must be in 1 … 10", "got 11"]),
    ("noise of one image for all", lambda b: renoised(noise=IMAGES[:1]), ValueError, ["noise must have the shape of x0, [4, 1, 8, 8]", "[1, 1, 8, 8]"]),
    ("mask of numbers", lambda b: pasted(ONE), ValueError, ["mask must be bool and spread over [4, 1, 8, 8]", "torch.float32 [1]"]),
    ("mask of other images", lambda b: pasted(torch.ones(4, 4).bool()), ValueError, ["mask must be bool and spread over", "torch.bool [4, 4]"]),
    ("mask of more images", lambda b: pasted(torch.ones(2, 4, 1, 8, 8).bool()), ValueError, ["mask must be bool", "[2, 4, 1, 8, 8]"]),
    ("one image known for all", lambda b: pasted(known=IMAGES[:1]), ValueError, ["known and noise must have the shape of xt", "[1, 1, 8, 8]"]),
    ("levels of other images", lambda b: pasted(t=LEVELS), ValueError, ["t [B]", "[6]"]),
    (
        "no steps to inpaint",
        lambda b: probes.inpaint(lambda xt, t: xt, IMAGES, EVERYWHERE, diffusion.linear_schedule(10), 0),
        ValueError,
        ["steps must be a whole number >= 1", "got 0"],
    ),
    (
        "mask to inpaint",
        lambda b: probes.inpaint(lambda xt, t: xt, IMAGES, ONE, diffusion.linear_schedule(10), 2),
        ValueError,
        ["mask must be bool", "torch.float32 [1]"],
    ),
    ("way beyond a noise", lambda b: probes.between_noises(IMAGES, IMAGES, 1.5), ValueError, ["share must be in [0, 1]", "got 1.5"]),
    ("seed to inpaint", lambda b: probes.inpaint(lambda xt, t: xt, IMAGES, EVERYWHERE, diffusion.linear_schedule(10), 2, "a"), ValueError, ["seed must be", "'a'"]),
    ("noises of other shapes", lambda b: probes.between_noises(IMAGES, IMAGES[:1], 0.5), ValueError, ["a and b must have one shape [B, ...]", "[1, 1, 8, 8]"]),
    # what rivals, front and training refuse
    ("no scores of S", lambda b: rivals.leftover_prior(ONE, ONE[:0], 0.1, 0.5), ValueError, ["r_u and r_s must hold at least one image each", "got 1 and 0"]),
    ("threshold that none passes", lambda b: rivals.leftover_prior(ONE, ONE, 0.1, 0.5), ValueError, ["threshold must let some image of U pass", "got 0.5"]),
    ("classifier of nothing", lambda b: next(rivals.noisy_classifier(data.load_pu(), 0, diffusion.linear_schedule(10), Settings(1))), ValueError, ["prior must be in (0, 1)"]),
    ("front of unequal rows", lambda b: evaluation.on_front(torch.ones(2), ONE), ValueError, ["nsr and frechet must be vectors of one length", "[2] and [1]"]),
    ("level of a cap", lambda b: Settings(1, cap_level="end"), ValueError, ["cap_level must be 'start' or 'running'", "got 'end'"]),
    ("compiled or not", lambda b: Settings(1, compile="yes"), ValueError, ["compile must be True or False", "got 'yes'"]),
    # estimating the prior
    ("scores of none", lambda b: prior.best_bin(ONE[:0], ONE), ValueError, ["score_u must be a vector of at least one score", "[0]"]),
    ("scores as a list", lambda b: prior.best_bin(ONE, [0.1]), ValueError, ["score_s must be a vector", "got list"]),
    ("scores of a table", lambda b: prior.tail_masses(ONE, ONE[None]), ValueError, ["score_s must be a vector", "[1, 1]"]),
    ("a score of nan", lambda b: prior.best_bin(ONE * NAN, ONE), ValueError, ["score_u has scores that are nan"]),
    ("infinite log ratio", lambda b: prior.elkan_noto(ONE, ONE / 0), ValueError, ["log_ratio_s has scores that are nan or infinite"]),
    ("bound that always fails", lambda b: prior.best_bin(ONE, ONE, delta=1.0), ValueError, ["delta must be in (0, 1)", "got 1.0"]),
    ("negative slack", lambda b: prior.best_bin(ONE, ONE, gamma=-1), ValueError, ["gamma a finite number >= 0", "-1"]),
    ("empty bin", lambda b: prior.corrected_bin(ONE, ONE, 2.0), ValueError, ["threshold must be at most 1, the highest score of S", "got 2.0"]),
    ("nan bin", lambda b: prior.corrected_bin(ONE, ONE, NAN), ValueError, ["threshold must be a finite number", "got nan"]),
    ("no steps of a fit", lambda b: prior.fit_odds(ONE, 2 * ONE, steps=0), ValueError, ["steps must be a whole number >= 1", "got 0"]),
    ("prior of the logistic risk", lambda b: prior.classifier_risk(ONE, ONE, "0.1"), ValueError, [SPLIT, "got '0.1'"]),
    ("odds of no scores", lambda b: prior.fit_odds(ONE[:0], ONE), ValueError, ["score_u must be a vector of at least one score"]),
    ("one bootstrap", lambda b: prior.corrected_bin(ONE, ONE, 1.0, resamples=1), ValueError, ["resamples must be a whole number >= 2", "got 1"]),
    ("small images", lambda b: prior.estimate_prior(IMAGES, IMAGES), ValueError, ["unlabeled must be a float tensor [n, 1, 28, 28]", "[4, 1, 8, 8]"]),
    ("images as bytes", lambda b: prior.estimate_prior(DIGITS.byte(), DIGITS), ValueError, ["unlabeled must be a float tensor", "torch.uint8"]),
    ("images as text", lambda b: prior.estimate_prior(DIGITS, "S"), ValueError, ["sensitive must be a float tensor", "got str"]),
    ("fewer images than folds", lambda b: prior.estimate_prior(DIGITS, DIGITS[:4]), ValueError, ["sensitive must hold at least 5 images", "got 4"]),
    ("nan pixels of S", lambda b: prior.fit_classifier(DIGITS, DIGITS * NAN), ValueError, ["sensitive has pixels that are nan"]),
    ("one fold", lambda b: prior.estimate_prior(DIGITS, DIGITS, folds=1), ValueError, ["folds must be a whole number >= 2", "got 1"]),
    ("no rounds", lambda b: prior.estimate_prior(DIGITS, DIGITS, rounds=0), ValueError, ["rounds must be a whole number >= 1", "got 0"]),
    ("seed of an estimate", lambda b: prior.estimate_prior(DIGITS, DIGITS, seed=-1), ValueError, ["seed must be a whole number >= 0", "got -1"]),
    ("one step of training", lambda b: prior.fit_classifier(DIGITS, DIGITS, steps=1), ValueError, ["steps must be a whole number >= 2", "got 1"]),
    ("prior of the nnPU risk", lambda b: prior.fit_classifier(DIGITS, DIGITS, prior=1.0), ValueError, [SPLIT, "got 1.0"]),
    ("seed of new weights", lambda b: new_model((8, 8), seed="1"), ValueError, ["seed must be a whole number >= 0", "got '1'"]),
    ("assumed priors up to 2", lambda b: training.draw_priors(4, 2), ValueError, ["largest must be a number in [0, 1)", "got 2"]),
    ("half an assumed prior", lambda b: training.draw_priors(0.5, 0.1), ValueError, ["n must be a whole number >= 0", "got 0.5"]),
    # figures and sliders
    ("figure without words", lambda b: plots.digits(IMAGES, alt=" "), ValueError, ["alt must describe the figure"]),
    ("no colours", lambda b: plots.noise_fields({}, ONE, "alt", centres={"x": ONE}), ValueError, ["colours must name one for each group", "['x']"]),
    ("window of none", lambda b: plots.smooth([1.0], 0), ValueError, ["window must be a whole number >= 1", "got 0"]),
    ("results of no such split", lambda b: plots.results([{"split": "even"}], "alt", "odd"), ValueError, ["split must be one of", "['even']", "'odd'"]),
    ("slider out of range", lambda b: widgets.slider(picture, "x", 2, 0, 1, 0.1), ValueError, ["value must be in [0, 1]", "got 2"]),
    ("one choice", lambda b: widgets.predict("What?", "this"), ValueError, ["choices must be at least two", "this"]),
    ("outcome that was no choice", lambda b: widgets.predict("What?", "a", "b").compare("c"), ValueError, ["outcome must be one of", "got 'c'"]),
    ("symbols of no notebook", lambda b: notation.notation("77"), ValueError, ["notebook must be one of 01", "got '77'"]),
    ("no such exercise", lambda b: checks.solution("77.7"), ValueError, ["key must be one of 01.1", "got '77.7'"]),
    ("slider at nan", lambda b: widgets.slider(picture, "x", NAN, 0, 1, 0.1), ValueError, ["value must be in [0, 1]", "got nan"]),
]


@pytest.mark.parametrize(("call", "error", "parts"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_bad_input_is_refused_in_one_clear_sentence(box, call, error, parts, tried, request):
    with pytest.raises(error) as caught:
        call(box)
    message = str(caught.value)
    assert type(caught.value) is error
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message and len(message) < 350
    tried("bad input", request.node.callspec.id, message.replace(str(box.data.parent), ""))


def test_the_box_is_fine_as_long_as_nothing_breaks_it(box):
    assert len(data.load_pu().unlabeled) == 1375
    assert not evaluation.load_judge().training
    box.finished()
    box.run()
