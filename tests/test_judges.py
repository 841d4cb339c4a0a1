"""Judges and PU classifiers for other sets, on synthetic images whose kind is a direction of stripes; nothing is downloaded."""

import sys
import types

import pytest
import torch
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

from pulib import data, evaluation, judges, rivals
from pulib.data import DataError
from pulib.evaluation import class_balance, evaluate, frechet_distance
from pulib.judges import ResNetJudge, colour_sieve, fid, fit_judge, load_judge_file, pretrained_resnet, save_judge
from pulib.training import CheckpointError, save_weights

NORMAL, SENSITIVE = 1, 0  # as in "celeba-male"
TINY = torch.zeros(6, 3, 8, 8)
LABELS = torch.tensor([0, 1] * 3)


def striped(n: int, kind: int, seed: int, side: int = 32, channels: int = 3) -> torch.Tensor:
    """Noisy images [n, channels, side, side] in [-1, 1], each of a colour of its own: striped across (1) or down (0)."""
    generator = torch.Generator().manual_seed(seed)
    waves = torch.sin(torch.arange(side) * 2 * torch.pi / 4 + 6 * torch.rand(n, 1, 1, 1, generator=generator)).expand(n, 1, side, side)
    colour = 0.5 + 0.5 * torch.rand(n, channels, 1, 1, generator=generator)
    noise = 0.1 * torch.randn(n, channels, side, side, generator=generator)
    return (0.9 * colour * (waves.mT if kind == 1 else waves) + noise).clamp(-1, 1)


def both(n: int, seed: int, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
    """n images of either kind, and their labels."""
    return torch.cat([striped(n, kind, seed + kind, **kwargs) for kind in (0, 1)]), torch.arange(2).repeat_interleave(n)


@pytest.fixture(scope="module")
def judge():
    return fit_judge(*both(60, 0), 2, steps=12, batch=8)


@pytest.fixture(scope="module")
def split():
    """A split in which a tenth of the held-out normal labels and a fifth of the sensitive ones name the other kind."""
    parts = [torch.cat([striped(20, 1, 20), striped(2, 0, 21)]), striped(3, 0, 22)]
    heldout = [torch.cat([striped(18, 1, 23), striped(2, 0, 24)]), torch.cat([striped(8, 0, 25), striped(2, 1, 26)])]
    labels = [torch.tensor([1] * 20 + [0] * 2), torch.zeros(3).long(), torch.ones(20).long(), torch.zeros(10).long()]
    return data.make_split("celeba-male", *parts, *heldout, *labels)


# ------------------------------------------------------------------------------------------------ judge


def test_a_judge_tells_two_kinds_apart(judge):
    images, kinds = both(15, 10)
    seen = evaluation.read(judge, images)
    assert torch.equal(seen.digits, kinds) and seen.confidence.min() >= 0.5
    assert seen.features.shape == (30, judges.N_FEATURES) and judge.shape == (3, 32, 32)
    assert not judge.training and not any(p.requires_grad for p in judge.parameters())
    torch.testing.assert_close(judge(images).exp().sum(1), torch.ones(30))


def test_errors_come_from_the_held_out_images(judge, split):
    measure = evaluation.ruler(judge, split)
    assert measure.errors == pytest.approx((0.1, 0.2)) and measure.n_errors == 10
    report = evaluate(torch.cat([split.heldout_normal] * 2 + [split.heldout_sensitive]), split, judge)  # 40 normal ones of 50, by their labels
    assert report.nsr_raw == pytest.approx(38 / 50) and report.nsr == pytest.approx(40 / 50) and report.nsr_low < 0.8 < report.nsr_high
    assert report.class_tv == 0 and report.n == 50


def test_frechet_distance_of_its_features_tells_the_kinds_apart(judge, split):
    good, bad = (evaluate(striped(20, kind, 30), split, judge) for kind in (NORMAL, SENSITIVE))
    assert good.frechet < 0.5 * bad.frechet and good.nsr_raw == 1 and bad.nsr_raw == 0
    features = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(features, features + 0.5) == pytest.approx(7 * 0.25, rel=1e-4)


def test_a_judge_is_kept(judge, tmp_path):
    save_judge(tmp_path / "judge.safetensors", judge)
    again, images = load_judge_file(tmp_path / "judge.safetensors"), both(3, 40)[0]
    assert torch.equal(again(images), judge(images)) and again.config == judge.config and again.shape == judge.shape
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    content = bytearray((tmp_path / "judge.safetensors").read_bytes())
    content[-9] ^= 1
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(CheckpointError, match="broken is corrupt"):
        load_judge_file(tmp_path / "broken")
    save_weights(tmp_path / "other", nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match="other holds no judge"):
        load_judge_file(tmp_path / "other")
    with pytest.raises(DataError, match="none is missing"):
        load_judge_file(tmp_path / "none")


def test_the_same_seed_gives_the_same_judge():
    images, kinds = both(5, 0, side=8, channels=1)
    before = torch.get_rng_state()
    one, same, other = (fit_judge(images, kinds, 2, steps=2, seed=seed, batch=4) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one(images), same(images)) and not torch.equal(one(images), other(images))
    assert one.shape == (1, 8, 8)


def test_images_are_mirrored_only_where_told():
    images, generator = torch.rand(40, 3, 16, 16), torch.Generator().manual_seed(0)
    images[:, :, :8] = 0  # shifts move this edge, mirroring does not
    steady, mirrored = (judges._varied(images, flip, generator) for flip in (False, True))
    like = lambda found, wanted: sum(  # noqa: E731
        any(torch.equal(a[:, 4:-4, 4:-4], b[:, 4 + i : 12 + i, 4 + j : 12 + j]) for i in range(-2, 3) for j in range(-2, 3)) for a, b in zip(found, wanted)
    )
    assert steady.shape == images.shape and like(steady, images) == 40 and not torch.equal(steady, images)
    straight, turned = like(mirrored, images), like(mirrored, images.flip(3))
    assert straight + turned == 40 and min(straight, turned) > 8


def test_the_first_layers_suit_the_size():
    small, tuned, large = ResNetJudge((3, 32, 32), 4), ResNetJudge((3, 32, 32), 4, imagenet=True), ResNetJudge((3, 96, 96), 4)
    assert small.body.conv1.stride == (1, 1) and isinstance(small.body.maxpool, nn.Identity) and small.size is None
    assert tuned.body.conv1.stride == large.body.conv1.stride == (2, 2) and tuned.size == [64, 64] and large.size is None
    assert all(judge.eval()(torch.zeros(1, *judge.shape)).shape == (1, 4) for judge in (small, tuned, large))
    gray = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(small(gray), small(gray.expand(-1, 3, -1, -1)))


def test_fewer_large_images_are_read_at_once():
    class Counting(nn.Module):
        shape, most = (3, 56, 56), 0

        def features(self, images):
            Counting.most = max(Counting.most, len(images))
            return images.flatten(1)[:, :5]

        def forward(self, images):
            return self.features(images).log_softmax(1)

    assert evaluation.read(Counting(), torch.zeros(130, 3, 56, 56)).features.shape == (130, 5) and Counting.most == 62
    with pytest.raises(ValueError, match=r"shape \[n, 3, 56, 56\]; got \[2, 3, 8, 8\]"):
        evaluation.read(Counting(), TINY[:2])


# --------------------------------------------------------------------------------------------- balance


@pytest.mark.parametrize(("normal", "n"), [("cifar10-vehicles", 4), ("cifar10-animals", 6), ("stl10-vehicles", 4), ("stl10-animals", 6), ("pair", 2)])
def test_balance_over_as_many_labels_as_are_normal(normal, n, monkeypatch):
    monkeypatch.setitem(data.KINDS, "pair", frozenset({3, 7}))
    mine = data.normal_digits(normal)
    assert len(mine) == n and class_balance(torch.arange(10).repeat(3), normal) == pytest.approx(0)
    assert class_balance(torch.tensor(mine[:1] * 5), normal) == pytest.approx(1 - 1 / n)
    assert class_balance(torch.tensor(mine[: n // 2]), normal) == pytest.approx(0.5)


def test_balance_of_one_normal_label_of_two():
    assert class_balance(LABELS, "celeba-male") == class_balance(LABELS, "celeba-female") == 0
    assert class_balance(torch.zeros(4).long(), "celeba-male") == 1


# ------------------------------------------------------------------------------------- weights at hand


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch hub, and a network that must not be used."""

    def refuse(*args, **kwargs):
        raise AssertionError("a download was begun")

    for name in ("torch.hub.load_state_dict_from_url", "torch.hub.download_url_to_file", "torch.hub.urlopen", "urllib.request.urlopen"):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_imagenet_weights_are_taken_from_the_cache_or_not_at_all(hub, monkeypatch):
    assert pretrained_resnet() is None
    file = hub / ResNet18_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    torch.save(resnet18().state_dict(), file)
    with pytest.raises(DataError, match=f"{file.name} is corrupt"):
        pretrained_resnet()
    monkeypatch.setattr(judges, "sha256", lambda path: file.stem.split("-")[-1] + "0" * 56)
    weights = pretrained_resnet()
    assert weights["conv1.weight"].shape == (64, 3, 7, 7)
    tuned = fit_judge(*both(3, 0, side=8), 2, steps=2, weights=weights, batch=2)
    moved = (tuned.body.layer2[0].conv1.weight.cpu() - weights["layer2.0.conv1.weight"]).abs().max()
    assert 0 < moved < 1e-3 and tuned.config["imagenet"]
    with pytest.raises(ValueError, match="weights must be those of torchvision's resnet18"):
        fit_judge(*both(3, 0, side=8), 2, steps=2, weights={"conv1.weight": torch.zeros(1)})


def test_inception_is_there_only_with_its_weights(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    assert judges.inception() is None
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.URL_INCEPTION_V3 = "https://nowhere.invalid/weights-0000.pth"
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert judges.inception() is None
    (hub / "weights-0000.pth").write_bytes(b"weights")
    asked = {}
    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", lambda **given: asked.update(given) or types.SimpleNamespace(inception=nn.Flatten()))
    assert isinstance(judges.inception(), nn.Flatten)
    assert asked == {"feature": 2048, "feature_extractor_weights_path": str(hub / "weights-0000.pth")}

    def corrupt(**given):
        raise EOFError("cut short")

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", corrupt)
    with pytest.raises(DataError, match="weights-0000.pth is corrupt"):
        judges.inception()


class Means(nn.Module):
    """A fake extractor: the mean of each channel, in units of 10."""

    num_features = 3

    def forward(self, images):
        assert images.dtype == torch.uint8 and images.shape[1] == 3 and len(images) <= 7
        return images.float().mean((2, 3)) / 10


def test_fid_is_the_frechet_distance_of_the_extractors_features():
    samples = torch.randint(0, 200, (30, 3, 6, 6), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
    assert fid(samples, samples, Means(), batch=7) == pytest.approx(0, abs=1e-6)
    assert fid(samples + 20 / 127.5, samples, Means(), batch=7) == pytest.approx(3 * 2**2, rel=1e-4)
    larger = samples.repeat_interleave(2, 2).repeat_interleave(2, 3)  # of another size, with the same means
    assert fid(larger, samples, Means(), batch=7) == pytest.approx(0, abs=1e-6)
    gray = samples[:, :1]
    assert fid(gray, gray.expand(-1, 3, -1, -1), Means(), batch=7) == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------------------------------------- sieve


def tinted(n: int, kind: int, seed: int) -> torch.Tensor:
    """Noise [n, 3, 8, 8] with a tint: reddish (1) or bluish (0)."""
    generator = torch.Generator().manual_seed(seed)
    tint = torch.tensor([[-0.3, 0.0, 0.3], [0.3, 0.0, -0.3]])[kind] + 0.1 * torch.randn(n, 3, generator=generator)
    return (tint.view(n, 3, 1, 1) + 0.3 * torch.randn(n, 3, 8, 8, generator=generator)).clamp(-1, 1)


def test_the_sieve_tells_hidden_sensitive_images_from_normal_ones(monkeypatch):
    monkeypatch.setattr(judges, "BATCH_UNLABELED", 12)
    monkeypatch.setattr(judges, "BATCH_SENSITIVE", 6)
    u, s, hidden = torch.cat([tinted(120, 1, 50), tinted(30, 0, 51)]), tinted(40, 0, 52), torch.arange(150) >= 120
    found = colour_sieve(u, s, 0.2, seed=1, folds=2, steps=40)  # far from all bounds below: CPUs round differently, and a training goes its own way on each
    called = found.unlabeled >= found.threshold
    assert called.sum() == 30 and called[hidden].double().mean() > 0.75 and found.sensitive.shape == (40,)
    assert found.unlabeled.mean() == pytest.approx(0.2, abs=0.1)
    normal, sensitive = found(tinted(40, 1, 53)), found(tinted(10, 0, 54))
    assert normal.mean() < 0.1 and sensitive.mean() > 0.7
    assert 38 <= len(rivals.kept_by(found, torch.cat([tinted(40, 1, 53), tinted(10, 0, 54)]))) <= 42
    assert rivals.leftover_prior(found.unlabeled, found.sensitive, 0.2, rivals.LENIENT) < 0.1
    for images in (torch.zeros(2, 3, 16, 16), u[:0]):
        with pytest.raises(ValueError, match="images must"):
            found(images)


def test_the_sieve_takes_gray_digits(monkeypatch):
    monkeypatch.setattr(judges, "BATCH_UNLABELED", 2)
    monkeypatch.setattr(judges, "BATCH_SENSITIVE", 2)
    digits = data.load_pu()
    found = colour_sieve(digits.unlabeled[:10], digits.sensitive[:4], 0.1, folds=2, steps=2, flip=False)
    assert found.unlabeled.shape == (10,) and found(digits.heldout_normal[:3]).shape == (3,)


# ------------------------------------------------------------------------------------------ bad inputs


NAN = torch.full((6, 3, 8, 8), float("nan"))


def test_a_risk_that_is_infinite_stops_the_fit(monkeypatch):
    monkeypatch.setattr(judges.F, "nll_loss", lambda log_p, labels: log_p.sum() / 0)
    with pytest.raises(FloatingPointError, match="the risk is -inf at step 1; check the images, whose values should be about"):
        fit_judge(TINY, LABELS, 2, steps=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_judge(TINY, LABELS[:4], 2), "labels must be whole numbers, one for each of the 6 images; got \\[4\\]"),
        (lambda: fit_judge(TINY, LABELS.float(), 2), "labels must be whole numbers"),
        (lambda: fit_judge(TINY, LABELS.tolist(), 2), "labels must be whole numbers, .* got list"),
        (lambda: fit_judge(TINY, LABELS + 1, 2), "labels must be in 0 … 1; got 1 … 2"),
        (lambda: fit_judge(TINY, LABELS - 1, 2), "labels must be in 0 … 1; got -1 … 0"),
        (lambda: fit_judge(TINY[:0], LABELS[:0], 2), "images must hold at least 1 image; got 0"),
        (lambda: fit_judge(TINY[:, :2], LABELS, 2), "images must be a float tensor .* of 1 or 3 channels; got \\[6, 2, 8, 8\\]"),
        (lambda: fit_judge(TINY.byte(), LABELS, 2), "images must be a float tensor .* torch.uint8"),
        (lambda: fit_judge(NAN, LABELS, 2), "images has pixels that are nan"),
        (lambda: fit_judge(TINY, LABELS, 1), "n_classes must be a whole number >= 2; got 1"),
        (lambda: fit_judge(TINY, LABELS, 2, steps=1), "steps must be a whole number >= 2; got 1"),
        (lambda: fit_judge(TINY, LABELS, 2, seed=-1), "seed must be a whole number >= 0; got -1"),
        (lambda: fit_judge(TINY, LABELS, 2, batch=1), "batch must be a whole number >= 2; got 1"),
        (lambda: colour_sieve(TINY, TINY, 0), "prior must be in \\(0, 1\\)"),
        (lambda: colour_sieve(TINY, TINY, 1.0), "prior must be a number in \\[0, 1\\)"),
        (lambda: colour_sieve(TINY, TINY[:2], 0.1), "sensitive must hold at least 3 images; got 2"),
        (lambda: colour_sieve(TINY, TINY, 0.1, folds=1), "folds must be a whole number >= 2; got 1"),
        (lambda: colour_sieve(TINY, TINY[:, :1], 0.1), "images of one shape; got \\[6, 3, 8, 8\\] and \\[6, 1, 8, 8\\]"),
        (lambda: colour_sieve(TINY, NAN, 0.1), "sensitive has pixels that are nan"),
        (lambda: fid(TINY[:1], TINY, Means()), "samples must hold at least 2 images; got 1"),
        (lambda: fid(TINY, NAN, Means()), "reference has pixels that are nan"),
        (lambda: frechet_distance(torch.ones(4, 3), torch.ones(4)), "shape \\[n, d\\]; got \\[4, 3\\], \\[4\\]"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
