"""Bad input is refused with one clear sentence that names what, and what is allowed."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from pulib import checks, data, diffusion, evaluation, notation, plots, prior, risk, rivals, toy, training, widgets
from pulib.data import DataError
from pulib.training import CheckpointError, Settings, fit, new_model
from pulib.unet import UNet

IMAGES = torch.zeros(4, 1, 8, 8)
DIGITS = torch.zeros(6, 1, 28, 28)
LEVELS = torch.zeros(6).long()
ONE = torch.ones(1)
NAN = float("nan")
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
    ("empty schedule", lambda b: diffusion.Schedule(ONE[:0]), ValueError, ["beta", "in (0, 1)"]),
    ("no sampler steps", lambda b: states(steps=0), ValueError, ["steps must be a whole number >= 1", "got 0"]),
    ("more fresh noise than noise", lambda b: diffusion.step_back(ONE, ONE, 0.75, 0.6, ONE), ValueError, ["sigma must be at most", "0.5; got 0.6"]),
    ("no ancestral steps", lambda b: states(diffusion.ddpm_sampler, steps=0), ValueError, ["steps must be a whole number >= 1", "got 0"]),
    ("more steps than levels", lambda b: states(steps=11), ValueError, ["steps must be in 1 … 10", "got 11"]),
    ("half a step", lambda b: states(steps=2.5), ValueError, ["steps must be a whole number >= 1", "got 2.5"]),
    ("eta above 1", lambda b: states(steps=5, eta=1.5), ValueError, ["eta must be in [0, 1]", "got 1.5"]),
    ("no samples", lambda b: sampled(n=0), ValueError, ["n must be a whole number >= 1", "got 0"]),
    ("batch of none", lambda b: sampled(steps=2, batch=0), ValueError, ["batch must be a whole number >= 1", "got 0"]),
    ("odd image size", lambda b: UNet(widths=(8, 8))(torch.zeros(1, 1, 9, 8), ONE), ValueError, ["height and width must be divisible by 4", "(9, 8)"]),
    ("odd widths", lambda b: UNet(widths=(8, 12)), ValueError, ["widths must be two multiples of 8", "(8, 12)"]),
    ("three widths", lambda b: UNet(widths=(8, 8, 8)), ValueError, ["widths must be two multiples of 8", "(8, 8, 8)"]),
    ("width 0", lambda b: UNet(widths=(0, 8)), ValueError, ["widths must be two multiples of 8", "(0, 8)"]),
    # evaluation
    ("more successes than trials", lambda b: evaluation.wilson_interval(5, 4), ValueError, ["successes must be in 0 … n", "5 of 4"]),
    ("judge at chance", lambda b: evaluation.corrected_nsr(0.5, 0.5, 0.5), ValueError, ["e_normal + e_sensitive must be below 1", "0.5 + 0.5"]),
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
    ("spread 0", lambda b: toy.Mixture(torch.zeros(1, 2), ONE, 0.0), ValueError, ["std must be > 0", "0.0"]),
    (
        "spreads that differ",
        lambda b: toy.World(toy.Mixture(torch.zeros(1, 2), ONE, 1.0), toy.Mixture(torch.zeros(1, 2), ONE, 2.0), 0.5).unlabeled,
        ValueError,
        ["std must be the same", "1.0 and 2.0"],
    ),
    ("no points", lambda b: toy.draw_pu(WORLD, 0, 5), ValueError, ["n_unlabeled must be a whole number >= 1", "got 0"]),
    # estimating the prior
    ("scores of none", lambda b: prior.best_bin(ONE[:0], ONE), ValueError, ["score_u must be a vector of at least one score", "[0]"]),
    ("scores as a list", lambda b: prior.best_bin(ONE, [0.1]), ValueError, ["score_s must be a vector", "got list"]),
    ("scores of a table", lambda b: prior.tail_masses(ONE, ONE[None]), ValueError, ["score_s must be a vector", "[1, 1]"]),
    ("a score of nan", lambda b: prior.best_bin(ONE * NAN, ONE), ValueError, ["score_u has scores that are nan"]),
    ("infinite log ratio", lambda b: prior.elkan_noto(ONE, ONE / 0), ValueError, ["log_ratio_s has scores that are nan or infinite"]),
    ("bound that always fails", lambda b: prior.best_bin(ONE, ONE, delta=1.0), ValueError, ["delta must be in (0, 1)", "got 1.0"]),
    ("negative slack", lambda b: prior.best_bin(ONE, ONE, gamma=-1), ValueError, ["gamma a finite number >= 0", "-1"]),
    ("empty bin", lambda b: prior.corrected_bin(ONE, ONE, 2.0), ValueError, ["threshold must be at most 1, the highest score of S", "got 2.0"]),
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
    # figures and sliders
    ("figure without words", lambda b: plots.digits(IMAGES, alt=" "), ValueError, ["alt must describe the figure"]),
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
def test_bad_input_is_refused_in_one_clear_sentence(box, call, error, parts):
    with pytest.raises(error) as caught:
        call(box)
    message = str(caught.value)
    assert type(caught.value) is error
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message and len(message) < 350


def test_the_box_is_fine_as_long_as_nothing_breaks_it(box):
    assert len(data.load_pu().unlabeled) == 1375
    assert not evaluation.load_judge().training
    box.finished()
    box.run()
