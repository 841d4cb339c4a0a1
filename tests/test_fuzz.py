"""Properties under random and hostile input: of risks, schedules, samplers, splits, evaluation and the readers of files."""

import io
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from pulib import data, diffusion, evaluation, failures, prior, probes, risk, sets, toy, training
from pulib.data import DataError

corrections = st.sampled_from(["none", "clip", "abs"])
priors = st.floats(0, 0.99)
seeds = st.integers(0, 2**53)
few = settings(max_examples=15)  # where an example takes long


def losses(low: float = 1e-3, high: float = 1e3, min_size: int = 1):
    return st.lists(st.floats(low, high), min_size=min_size, max_size=12).map(lambda values: torch.tensor(values, dtype=torch.float64))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------- risks


@given(losses(), losses(), priors, corrections, st.randoms(use_true_random=False), st.integers(2, 4))
def test_a_risk_knows_neither_the_order_nor_the_number_of_the_losses(loss_u, loss_s, prior, correction, random, times):
    def shuffled(loss):
        return torch.tensor(random.sample(loss.tolist() * times, times * len(loss)), dtype=torch.float64)

    for of in (lambda u, s: risk.pu_risk(u, s, prior, correction), risk.unsupervised_risk, lambda u, s: risk.pu_error(u - 1, s - 1, prior)):
        torch.testing.assert_close(of(shuffled(loss_u), shuffled(loss_s)), of(loss_u, loss_s), rtol=1e-6, atol=1e-6)


@given(losses(), losses(), priors, priors, st.floats(-5, 5), st.floats(0, 1))
def test_the_difference_is_linear_in_the_losses_and_affine_in_the_prior(loss_u, loss_s, prior, other, factor, share):
    def value(u, s, p=prior):
        return risk.normal_part(u, s, p).item()

    size = 20 * (loss_u.max() + loss_s.max()).item()
    mixed = value(factor * loss_u + loss_u.flip(0), factor * loss_s + loss_s.flip(0))
    assert mixed == pytest.approx(factor * value(loss_u, loss_s) + value(loss_u.flip(0), loss_s.flip(0)), abs=1e-12 * size)
    assert value(loss_u, loss_s, share * prior + (1 - share) * other) == pytest.approx(
        share * value(loss_u, loss_s) + (1 - share) * value(loss_u, loss_s, other), abs=1e-12 * size
    )


@given(losses(), losses(), st.floats(0, 1e-6), corrections)
def test_a_prior_near_zero_leaves_almost_the_unsupervised_risk(loss_u, loss_s, prior, correction):
    slack = prior * (risk.sensitive_loss(loss_s).mean() + loss_s.mean()) + 1e-12 * loss_u.max()
    assert (risk.pu_risk(loss_u, loss_s, prior, correction) - risk.unsupervised_risk(loss_u)).abs() <= slack * 1.001


@given(losses(), losses(), st.floats(0.5, 50), st.floats(1e-3, 1e3))
def test_the_log_term_sees_losses_in_units_of_the_temperature(loss_u, loss_s, temperature, unit):
    torch.testing.assert_close(risk.sensitive_loss(unit * loss_s, unit * temperature), risk.sensitive_loss(loss_s, temperature), rtol=1e-9, atol=1e-12)
    found, plain = (risk.pu_risk(k * loss_u, k * loss_s, 0.3, "abs", None) for k in (unit, 1.0))
    torch.testing.assert_close(found, unit * plain, rtol=1e-9, atol=1e-9 * unit * 1e3)


@given(losses(1e-2, 50), losses(1e-2, 50), st.floats(0.05, 0.95), corrections, st.none() | st.floats(0.5, 20))
def test_gradients_are_finite_differences(loss_u, loss_s, prior, correction, temperature):
    assume(risk.normal_part(loss_u, loss_s, prior).abs() > 1e-3)  # clip and abs have a corner at 0
    of = lambda u, s: risk.pu_risk(u, s, prior, correction, temperature)  # noqa: E731
    assert torch.autograd.gradcheck(of, (loss_u.requires_grad_(), loss_s.requires_grad_()), atol=1e-4, rtol=1e-3)


EXTREMES = [0.0, 1e-45, 1e-30, 1e-6, 1.0, 88.0, 1e4, 1e30]


@given(st.lists(st.sampled_from(EXTREMES), min_size=1, max_size=6), st.lists(st.sampled_from(EXTREMES), min_size=1, max_size=6), priors, corrections, st.floats(1e-6, 1e6))
def test_extreme_losses_give_finite_risks_and_slopes(u, s, prior, correction, temperature):
    u, s = torch.tensor(u, requires_grad=True), torch.tensor(s, requires_grad=True)
    for value in (risk.pu_risk(u, s, prior, correction, temperature), risk.supervised_risk(u, s, temperature)):
        grads = torch.autograd.grad(value, (u, s), allow_unused=True)
        assert torch.isfinite(value) and all(g is None or torch.isfinite(g).all() for g in grads)


@given(losses(), losses(), st.floats(0.01, 0.99), corrections, st.sampled_from("us"), st.data())
def test_a_loss_of_nan_is_never_hidden(loss_u, loss_s, prior, correction, side, data):
    bad = loss_u if side == "u" else loss_s
    bad[data.draw(st.integers(0, len(bad) - 1))] = math.nan
    values = [risk.pu_risk(loss_u, loss_s, prior, correction, temperature) for temperature in (1.0, None)]
    values += [risk.supervised_risk(loss_u, loss_s), risk.amortised_risk(loss_u, loss_s, torch.full_like(loss_s, prior), correction), risk.plain_risk(loss_u, loss_s)]
    assert all(math.isnan(value) for value in values)


@given(losses(1e-2, 100), losses(1e-2, 100), priors, st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
def test_single_and_half_precision_are_near_double(loss_u, loss_s, prior, dtype):
    u, s = loss_u.to(dtype), loss_s.to(dtype)
    exact = risk.pu_risk(u.double(), s.double(), prior)
    assert risk.pu_risk(u, s, prior).item() == pytest.approx(exact.item(), abs=4 * torch.finfo(dtype).eps * (u.max() + s.max() + 10).item())
    assert risk.sensitive_loss(s).dtype == torch.float32 and risk.sensitive_loss(s.double()).dtype == torch.float64


@given(losses(min_size=2), losses(), priors, corrections, st.data())
def test_cutting_a_batch_into_processes_changes_nothing(loss_u, loss_s, prior, correction, data):
    def cut(loss):
        return loss.tensor_split(sorted(data.draw(st.lists(st.integers(0, len(loss)), max_size=4))))  # parts may be empty

    found = risk.risk_of_parts(cut(loss_u), cut(loss_s), prior, correction)
    torch.testing.assert_close(found, risk.pu_risk(loss_u, loss_s, prior, correction))


# ------------------------------------------------------------------------------- schedules and samplers

schedules = st.one_of(
    st.builds(diffusion.linear_schedule, st.integers(1, 1500), st.floats(1e-5, 1e-3), st.floats(2e-3, 0.03)),
    st.builds(diffusion.cosine_schedule, st.integers(1, 1500), st.floats(1e-3, 0.1), st.floats(0.5, 0.999)),
)


@given(schedules)
def test_every_schedule_falls_from_one_towards_zero(schedule):
    assert ((schedule.beta > 0) & (schedule.beta < 1)).all()
    a = torch.cat([torch.ones(1), schedule.alpha_bar]).double()
    assert (a.diff() < 0).all() and a[-1] > 0 and a[1] < 1
    torch.testing.assert_close(a[1:] / a[:-1], 1 - schedule.beta.double(), rtol=1e-5, atol=1e-7)
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    assert torch.isfinite(snr).all() and (snr.diff() < 0).all()


@given(st.lists(st.floats(0, 1, width=32, exclude_min=True, exclude_max=True), min_size=1, max_size=200))
@example([0.5] * 150)  # the last alpha_bar rounds to 0
@example([1e-9, 0.1])  # and here to 1
def test_any_betas_are_refused_or_usable(beta):
    try:
        schedule = diffusion.Schedule(torch.tensor(beta))
    except ValueError as error:
        assert "beta must" in str(error)
        return
    for sampler, order in itertools.product((0.0, 1.0), (1, 2)):
        *_, last = diffusion.ddim_sampler(lambda xt, t: xt, randn(2, 3), schedule, len(schedule), sampler, order=order)
        assert torch.isfinite(last.xt).all() and last.xt.abs().max() <= 1 + 1e-5


@given(schedules, st.integers(0, 2**31), st.data())
def test_image_noise_and_v_can_be_had_from_each_other_at_any_level(schedule, seed, data):
    t, s = (torch.tensor(data.draw(st.lists(st.integers(0, len(schedule) - 1), min_size=3, max_size=3))) for _ in range(2))
    x0, noise = randn(3, 4, seed=seed), randn(3, 4, seed=seed + 1)
    xt, (signal, sigma) = diffusion.add_noise(x0, t, noise, schedule), schedule.levels(t, x0)
    torch.testing.assert_close(signal**2 + sigma**2, torch.ones(3, 1))
    v = signal * noise - sigma * x0
    torch.testing.assert_close(diffusion.noise_of_v(v, xt, t, schedule), noise, rtol=1e-4, atol=1e-5)
    assert ((diffusion.estimate_x0(xt, noise, t, schedule, clip=False) - x0).abs() <= 1e-5 / signal).all()
    for row in range(3):  # from one level to any other at once
        back = diffusion.step_back(x0[row], noise[row], schedule.alpha_bar[s[row]].double().item())
        torch.testing.assert_close(back, diffusion.add_noise(x0, s, noise, schedule)[row], rtol=1e-4, atol=1e-5)


@given(schedules, st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([1, 2]), st.data())
def test_a_model_that_knows_the_only_image_draws_it(schedule, image, eta, order, data):
    steps, image = data.draw(st.integers(1, min(60, len(schedule)))), torch.tensor(image)

    def exact(xt, t):
        signal, sigma = schedule.levels(t, xt)
        return (xt - signal * image) / sigma

    states = list(diffusion.ddim_sampler(exact, randn(2, 3), schedule, steps, eta, clip=True, generator=torch.Generator().manual_seed(0), order=order))
    assert [state.t for state in states] == [*diffusion.timesteps(len(schedule), steps).tolist()[1:], -1]
    torch.testing.assert_close(states[-1].xt, image.expand(2, 3), rtol=0, atol=2e-3 + 1e-5 / schedule.alpha_bar[-1].sqrt().item())


@few
@given(st.floats(-3, 3), st.floats(0.2, 2), st.sampled_from([0.0, 1.0]), st.sampled_from([1, 2]))
def test_a_perfect_model_of_a_gaussian_draws_its_mean_and_spread(mean, std, eta, order):
    schedule = diffusion.cosine_schedule(1000)

    def exact(xt, t):
        signal, sigma = schedule.levels(t, xt)
        return sigma * (xt - signal * mean) / (signal**2 * std**2 + sigma**2)

    start = randn(6000, 1)
    start = (start - start.mean()) / start.std()
    *_, last = diffusion.ddim_sampler(exact, start, schedule, 250, eta, clip=False, generator=torch.Generator().manual_seed(1), order=order)
    assert last.xt.mean().item() == pytest.approx(mean, abs=0.02 + 0.05 * std)
    assert last.xt.std().item() == pytest.approx(std, rel=0.06)


@given(schedules, seeds, st.floats(0, 1), st.sampled_from([1, 2]), st.floats(0.1, 100), st.sets(st.integers(0, 4), min_size=1), st.data())
def test_samplers_stay_finite_and_treat_each_image_alone(schedule, seed, eta, order, gain, rows, data):
    steps, weight = data.draw(st.integers(1, min(10, len(schedule)))), gain * randn(3, 3, seed=seed)
    rows, start = sorted(rows), randn(5, 3, seed=seed)

    def draw(some):
        generators = [torch.Generator().manual_seed(row) for row in some]
        return list(diffusion.ddim_sampler(lambda xt, t: torch.tanh(xt) @ weight, start[some], schedule, steps, eta, generator=generators, order=order))

    whole, part = draw(list(range(5))), draw(rows)
    assert len(whole) == steps and all(torch.isfinite(state.xt).all() for state in whole) and whole[-1].xt.abs().max() <= 1 + 1e-5
    torch.testing.assert_close(part[0].xt, whole[0].xt[rows], rtol=1e-3, atol=1e-3)
    assert all(torch.equal(a.xt, b.xt) for a, b in zip(part, draw(rows), strict=True))


@given(st.lists(st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 7.0, 1e30]), min_size=1, max_size=30), st.integers(1, 60), seeds, st.booleans())
def test_no_level_without_weight_is_drawn(weights, n, seed, stratified):
    assume(any(weights))
    t = diffusion.draw_timesteps(torch.tensor(weights), n, data.seeded(seed), stratified)
    assert t.shape == (n,) and (torch.tensor(weights)[t] > 0).all()


# ---------------------------------------------------------------------------------------------- splits


LOAD_DIGITS = data.load_digits


@pytest.fixture(autouse=True, scope="module")
def digits_read_once():
    digits = data.load_digits()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load_digits", lambda: digits)
        yield


def images_of(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


@few
@given(st.sampled_from(["even", "odd"]), st.floats(0, 0.3), st.floats(0, 0.3), st.integers(1, 400), st.integers(0, 10_000))
def test_a_larger_prior_hides_more_of_the_same_images(normal, a, b, n_sensitive, seed):
    less, more = (data.load_pu(normal, p, n_sensitive, seed) for p in sorted((a, b)))
    hidden = [images_of(split.unlabeled[split.unlabeled_is_sensitive]) for split in (less, more)]
    assert hidden[0] <= hidden[1] and images_of(less.oracle_normal) >= images_of(more.oracle_normal)
    assert less.prior <= more.prior
    sizes = [len(part) for part in (more.unlabeled, more.sensitive, more.heldout_normal, more.heldout_sensitive)]
    assert sum(sizes) <= 3000 and sizes[1] == n_sensitive and sizes[3] >= 1


@given(st.lists(st.integers(0, 9), min_size=20, max_size=80), st.sampled_from(["even", "odd", "twos", "zeros"]), st.integers(1, 12), st.integers(0, 6), st.integers(1, 6), st.integers(0, 99))
def test_the_rows_of_a_preset_are_of_their_kind_and_none_twice(labels, normal, n_normal, n_hidden, n_sensitive, seed):
    labels = {"train": torch.tensor(labels), "test": torch.tensor(labels).flip(0)}
    preset = sets.Preset("MNIST", normal, 8, n_normal, n_hidden, n_sensitive, n_heldout=5)
    good = data.is_normal(labels["train"], normal)
    if good.sum() < n_normal or (~good).sum() < n_hidden + n_sensitive:
        with pytest.raises(ValueError, match="must hold at least"):
            sets._drawn(preset, labels, seed)
        return
    (_, u), (_, s), (_, normal_rows), (_, sensitive_rows) = sets._drawn(preset, labels, seed)
    assert len(u) == n_normal + n_hidden and good[u].sum() == n_normal and not good[s].any() and len(s) >= n_sensitive
    assert len({*u.tolist(), *s.tolist()}) == len(u) + len(s)
    assert data.is_normal(labels["test"][normal_rows], normal).all() and not data.is_normal(labels["test"][sensitive_rows], normal).any()


@given(st.lists(st.integers(-3, 12), max_size=40), st.sampled_from(sorted(data.KINDS)))
def test_labels_are_normal_or_not_by_their_kind(labels, kind):
    found = data.is_normal(torch.tensor(labels, dtype=torch.long), kind)
    assert found.tolist() == [label in data.KINDS[kind] for label in labels] and data.normal_digits(kind) == sorted(data.KINDS[kind])


# ------------------------------------------------------------------------------------------ evaluation


@given(st.integers(1, 3000), st.floats(0, 1), st.floats(0, 0.4), st.floats(0, 0.4), st.integers(1, 5000))
@example(1, 0.0, 0.0, 0.25, 1)  # one sample and one image of each kind: less than one sample's worth is known
def test_doubt_about_the_judge_only_widens_the_interval(n, share, e_normal, e_sensitive, n_errors):
    k, errors = round(share * n), (e_normal, e_sensitive)
    low, high = evaluation.nsr_interval(k, n, errors, n_errors)
    sure = [evaluation.corrected_nsr(end, *errors) for end in evaluation.wilson_interval(k, n)]
    assert 0 <= low <= sure[0] + 1e-9 and sure[1] - 1e-9 <= high <= 1
    assert low - 1e-9 <= evaluation.corrected_nsr(k / n, *errors) <= high + 1e-9
    assert evaluation.nsr_interval(k, n, errors, 10**15) == pytest.approx(sure, abs=1e-6)


def rotation(d: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(randn(d, d, seed=seed).double())[0]


@few
@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 6), st.floats(0.1, 10), st.integers(0, 1000))
def test_frechet_distance_is_one_of_shapes_not_of_axes(n, m, d, unit, seed):
    """Also where there are fewer rows than features, so that covariances have no full rank."""
    a, b = randn(n, d, seed=seed).double(), 2 * randn(m, d, seed=seed + 1).double() + 1
    distance, turn, move = evaluation.frechet_distance(a, b), rotation(d, seed), randn(d, seed=seed + 2).double()
    assert math.isfinite(distance) and distance >= 0 and evaluation.frechet_distance(a, a[torch.randperm(n)]) == pytest.approx(0, abs=1e-6)
    assert evaluation.frechet_distance(b, a) == pytest.approx(distance, rel=1e-6, abs=1e-6)
    assert evaluation.frechet_distance(a @ turn + move, b @ turn + move) == pytest.approx(distance, rel=1e-5, abs=1e-5)
    assert evaluation.frechet_distance(unit * a, unit * b) == pytest.approx(unit**2 * distance, rel=1e-5, abs=1e-5 * unit**2)


@few
@given(st.integers(1, 5), st.integers(0, 1000), st.data())
def test_frechet_distance_of_commuting_covariances_is_that_of_their_roots(d, seed, data):
    stds = [torch.tensor(data.draw(st.lists(st.floats(0, 3), min_size=d, max_size=d)), dtype=torch.float64) for _ in range(2)]
    turn, shift = rotation(d, seed), randn(d, seed=seed).double()
    cross = torch.cat([torch.eye(d), -torch.eye(d)]).double() * ((2 * d - 1) / 2) ** 0.5  # its covariance is the identity
    a, b = cross * stds[0] @ turn, cross * stds[1] @ turn + shift
    exact = shift.square().sum() + (stds[0] - stds[1]).square().sum()
    assert evaluation.frechet_distance(a, b) == pytest.approx(exact.item(), rel=1e-5, abs=1e-5)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.sampled_from(["even", "odd", "twos"]))
def test_balance_is_between_the_best_and_one_digit(digits, kind):
    normal = [digit for digit in digits if digit in data.KINDS[kind]]
    found, k = evaluation.class_balance(torch.tensor(digits), kind), len(data.KINDS[kind])
    expected = sum(max(0.0, normal.count(d) / len(normal) - 1 / k) for d in data.KINDS[kind]) if normal else 1.0
    assert found == pytest.approx(expected, abs=1e-9) and 0 <= found <= (1 if not normal else 1 - 1 / k) + 1e-9


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_the_front_holds_what_nothing_else_beats(methods):
    nsr, frechet = torch.tensor(methods).float().T
    beaten = [any(a >= x and b <= y and (a > x or b < y) for a, b in methods) for x, y in methods]
    assert evaluation.on_front(nsr, frechet).tolist() == [not each for each in beaten]


# --------------------------------------------------------------------------------------- files and readers

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["rows", "a.json", "results/a.json", "sha256"]) | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
hostile = st.binary(max_size=80) | values.map(lambda value: json.dumps(value).encode()) | st.sampled_from([b"[" * 100_000, b'{"a":', b"\xff\xfe", b"NaN", b"1" * 5000])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """data/ of our own."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (data, evaluation):
            patch.setattr(module, "DATA", tmp_path_factory.getbasetemp() / "fuzzed")
        data.DATA.mkdir(exist_ok=True)
        yield data.DATA


@given(content=hostile)
@example(content=b'{"a.json": []}')
@example(content=b'{"a.json": {"sha256": 1}}')
def test_any_manifest_is_one_or_refused(folder, content):
    (folder / "manifest.json").write_bytes(content)
    (folder / "a.json").write_bytes(b"{}")
    try:
        entries = data.manifest()
    except DataError as error:
        assert "manifest.json is corrupt" in str(error)
    else:
        assert all(isinstance(entry["sha256"], str) for entry in entries.values())
    with pytest.raises(DataError):
        data.read_verified("a.json")  # not listed, or with another digest


@given(content=hostile | values.map(lambda rows: json.dumps({"rows": rows}).encode()))
def test_any_results_are_rows_or_refused(folder, content):
    (folder / "manifest.json").write_bytes(b"{}")
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results/a.json").write_bytes(content)
    data.record_sha256("results/a.json")
    try:
        rows = evaluation.load_results("a")
    except DataError as error:
        assert "a.json" in str(error)
    else:
        assert json.dumps(rows) == json.dumps(json.loads(content)["rows"]) and all(isinstance(row, dict) for row in rows)


@given(name=st.text(max_size=12) | st.lists(st.sampled_from(["..", ".", "a", "", "/", "\\", "\0", "~", "results"]), max_size=6).map("/".join))
def test_no_name_leads_outside(folder, name):
    (folder / "manifest.json").write_bytes(b"{}")
    opened = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self, read=Path.read_bytes: (opened.append(self), read(self))[1])
        with pytest.raises(DataError):
            data.read_verified(name)
    assert all(folder.resolve() in path.resolve().parents or path == folder for path in opened if "\0" not in str(path))


@st.composite
def mutated(draw, content: bytes):
    """The content with some bytes changed, inserted, cut out or moved."""
    for _ in range(draw(st.integers(1, 3))):
        at, size = draw(st.integers(0, len(content)) | st.integers(0, min(400, len(content)))), draw(st.integers(1, 20))
        new, gap = draw(st.binary(max_size=20)), draw(st.sampled_from([0, size]))
        content = content[:at] + new + content[at + gap :]
    return content


def written(*parts) -> bytes:
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "write_atomic", lambda path, content: kept.append(content))
        training.write_tensors(Path("file"), *parts)
    return kept[0]


WEIGHTS = {"a.weight": randn(3, 4), "b": torch.arange(5), "c": randn(2).bfloat16()}
FACTS = {"model": {"widths": [8, 8]}, "step": 7}


@settings(max_examples=400)
@given(st.binary(max_size=200) | mutated(written(WEIGHTS, FACTS)))
@example(written(WEIGHTS, FACTS))
def test_weights_come_back_as_they_were_or_not_at_all(content):
    try:
        tensors, facts = training.read_tensors(content, "file")
    except training.CheckpointError as error:
        assert "file is corrupt" in str(error)
    else:
        assert facts == FACTS and tensors.keys() == WEIGHTS.keys()
        assert all(torch.equal(tensors[k], WEIGHTS[k]) and tensors[k].dtype == WEIGHTS[k].dtype for k in WEIGHTS)


def archive() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, images=np.zeros((10, 28, 28), np.uint8), digits=np.arange(10, dtype=np.uint8))
    return file.getvalue()


@settings(max_examples=400)
@given(content=st.binary(max_size=100) | mutated(archive()))
@example(archive())
def test_any_file_of_digits_is_images_or_refused(folder, content):
    """Its digest is that of the manifest, so that only its content can tell."""
    (folder / "manifest.json").write_bytes(b"{}")
    (folder / data.DIGITS_FILE).write_bytes(content)
    data.record_sha256(data.DIGITS_FILE)
    try:
        images, digits = LOAD_DIGITS()
    except DataError as error:
        assert "digits.npz is corrupt" in str(error)
    else:
        assert images.shape[1:] == (1, 28, 28) and images.dtype == torch.float32 and digits.shape == images.shape[:1]


def picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, "png")
    return file.getvalue()


@settings(max_examples=400)
@given(content=st.binary(max_size=100) | mutated(picture()))
def test_any_picture_is_read_or_refused(folder, content):
    (folder / "pictures").mkdir(exist_ok=True)
    (folder / "pictures/a.png").write_bytes(content)
    try:
        images = sets.load_folder(folder / "pictures", 6)
    except DataError as error:
        assert "a.png cannot be read" in str(error) or "more than 8 bits" in str(error)
    else:
        assert images.shape == (1, 3, 6, 6) and torch.isfinite(images).all()


# ----------------------------------------------------------------------------------- arguments of all kinds

ONE, TWO = torch.ones(1), torch.ones(2)
IMAGES, SCHEDULE, WORLD = torch.zeros(2, 1, 4, 4), diffusion.linear_schedule(10), toy.ring_world()
TABLE, SHIFTED, SCORES = torch.ones(2, 2), randn(5, 2), (torch.arange(5.0), torch.arange(5.0) + 3)
neither = st.none() | st.booleans() | st.text(max_size=3) | st.just([1]) | st.just(1j) | st.just(math.nan) | st.sampled_from([math.inf, -math.inf])
KINDS_OF_BAD = {
    "count": neither | st.integers(max_value=0) | st.floats(),
    "seed": neither | st.integers(max_value=-1) | st.integers(2**53 + 1) | st.floats(),
    "prior": neither | st.floats(max_value=0, exclude_max=True) | st.floats(1) | st.integers(1),
    "share": neither | st.floats(max_value=0, exclude_max=True) | st.floats(1, exclude_min=True) | st.integers(2),
    "positive": neither | st.floats(max_value=0) | st.integers(max_value=0),
    "number": neither,
}


def model(xt, t):
    return xt


def sampled(n=2, steps=2, seed=0, batch=2, eta=0.0):
    return diffusion.sample(model, n, SCHEDULE, steps, seed, (2,), batch, eta=eta)


def captioned(assumed=0.1, steps=2, seed=0, batch=2):
    return next(failures.train_captioned(WORLD, failures.Captions(0.5), SCHEDULE, assumed, steps, seed, batch))


def terms(prior=0.1, n_u=2, n_s=1, batches=2, seed=0):
    return failures.inner_terms(TABLE, TABLE, prior, n_u, n_s, batches, seed)


CALLS = [  # (call of one argument, name in its sentence, kind)
    *((lambda v, k=k: data.load_pu(**{k: v}), k, kind) for k, kind in (("prior", "prior"), ("n_sensitive", "count"), ("seed", "seed"))),
    *((lambda v, k=k: sampled(**{k: v}), k, kind) for k, kind in (("n", "count"), ("steps", "count"), ("seed", "seed"), ("batch", "count"), ("eta", "share"))),
    *((lambda v, k=k: captioned(**{k: v}), k, kind) for k, kind in (("assumed", "prior"), ("steps", "count"), ("seed", "seed"), ("batch", "count"))),
    *((lambda v, k=k: terms(**{k: v}), k, kind) for k, kind in (("prior", "prior"), ("n_u", "count"), ("n_s", "count"), ("batches", "count"), ("seed", "seed"))),
    *((lambda v, k=k: toy.draw_pu(WORLD, **({"n_unlabeled": 5, "n_sensitive": 5} | {k: v})), k, kind) for k, kind in (("n_unlabeled", "count"), ("n_sensitive", "count"), ("seed", "seed"))),
    *((lambda v, f=f: f(IMAGES, 2, v), "seed", "seed") for f in failures.GARBAGE.values()),
    *((lambda v, f=f: f(IMAGES, v), "n", "count") for f in failures.GARBAGE.values()),
    *((lambda v, f=f: f(ONE, ONE, v), "prior", "prior") for f in (risk.normal_part, risk.pu_risk, risk.pu_error, toy.responsibility_of)),
    *((lambda v, f=f: f(ONE, v), "temperature", "positive") for f in (risk.sensitive_loss, risk.sensitive_slope)),
    *((lambda v, f=f: f(v), "T", "count") for f in (diffusion.linear_schedule, diffusion.cosine_schedule, lambda T: diffusion.timesteps(T, 1))),
    *((lambda v, k=k: diffusion.linear_schedule(10, **{k: v}), k, "positive") for k in ("low", "high")),
    (lambda v: diffusion.cosine_schedule(10, v), "offset", "number"),
    (lambda v: diffusion.cosine_schedule(10, max_beta=v), "max_beta", "positive"),
    (lambda v: diffusion.min_snr_density(SCHEDULE, v), "gamma", "positive"),
    (lambda v: probes.inpaint(model, IMAGES, torch.tensor(True), SCHEDULE, 2, v), "seed", "seed"),
    (lambda v: probes.invert(model, IMAGES, SCHEDULE, v), "steps", "count"),
    (lambda v: probes.between_noises(IMAGES, IMAGES, v), "share", "share"),
    (lambda v: data.distort(IMAGES, torch.Generator(), v), "strength", "number"),
    (lambda v: data.prior_in_unlabeled(v, 10, 0), "prior_all", "prior"),
    (lambda v: toy.mix(WORLD.normal, WORLD.sensitive, v), "share", "share"),
    (lambda v: toy.ring_world(v), "prior", "prior"),
    (lambda v: toy.ring_world(std=v), "std", "positive"),
    (lambda v: toy.two_clouds(distance=v), "distance", "number"),
    (lambda v: WORLD.target(v), "assumed", "share"),
    (lambda v: WORLD.noise_normal(torch.zeros(1, 2), 0.5, 0.1, v), "ceiling", "prior"),
    (lambda v: evaluation.wilson_interval(1, 5, v), "z", "positive"),
    (lambda v: evaluation.nsr_interval(0, v, (0.1, 0.1), 9), "n", "count"),
    (lambda v: evaluation.nsr_interval(0, 5, (0.1, 0.1), v), "n_errors", "count"),
    (lambda v: evaluation.ratio_to_oracle(SHIFTED, SHIFTED, SHIFTED + 1, v), "resamples", "count"),
    (lambda v: evaluation.read(nn.Identity(), torch.zeros(1, 1, 28, 28), v), "batch", "count"),
    (lambda v: prior.best_bin(*SCORES, delta=v), "delta", "prior"),
    (lambda v: prior.fit_odds(*SCORES, steps=v), "steps", "count"),
    (lambda v: prior.corrected_bin(*SCORES, 3.0, 5, v), "seed", "seed"),
    (lambda v: prior.corrected_bin(*SCORES, v), "threshold", "number"),
    (lambda v: prior.classifier_risk(ONE, ONE, [] if v is None else v), "prior", "prior"),  # where None is none
    (lambda v: prior.prepare(torch.zeros(5, 1, 28, 28), torch.zeros(5, 1, 28, 28), v), "seed", "seed"),
    (lambda v: failures.mean_of_abs(v, 1.0), "mean", "number"),
    (lambda v: failures.drawings_needed(0.5, 0.6, v), "z", "positive"),
    (lambda v: failures.log_share(ONE, v), "scale", "positive"),
    (lambda v: failures.labels(v, 5), "kind", "number"),
    (lambda v: failures.slanted(v), "share", "positive"),
    (lambda v: failures.Captions(v), "similarity", "number"),
]


@few
@pytest.mark.parametrize(("call", "name", "kind"), [pytest.param(*case, id=f"{i}-{case[1]}") for i, case in enumerate(CALLS)])
@given(draw=st.data())
def test_every_bad_argument_is_named_in_one_line(call, name, kind, draw):
    value = draw.draw(KINDS_OF_BAD[kind])
    with pytest.raises(ValueError) as caught:
        call(value)
    sentence = str(caught.value)
    assert type(caught.value) is ValueError and name in sentence and " must " in sentence
    assert "\n" not in sentence and len(sentence) < 350 and "got " in sentence
