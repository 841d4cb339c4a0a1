"""The training loop: exact resume, paired batches, and files that are whole or not there."""

import copy
import functools
import itertools
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pulib import diffusion, training
from pulib.data import DataError
from pulib.diffusion import NoisePredictor, cosine_schedule, linear_schedule
from pulib.risk import pu_risk, supervised_risk, unsupervised_risk
from pulib.training import (
    CheckpointError,
    Settings,
    fit,
    learning_rate,
    load_checkpoint,
    new_model,
    read_tensors,
    save_checkpoint,
)

STEPS, EVERY = 9, 3
UNLABELED = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
SENSITIVE = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def short(steps: int = STEPS, **changes) -> Settings:
    changes = {"batch_unlabeled": 6, "batch_sensitive": 3, "warmup": 2, "precision": "no", "checkpoint_every": EVERY} | changes
    return Settings(steps, **changes)


def pu(loss_u, loss_s):
    return pu_risk(loss_u, loss_s, 0.3, "abs")


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def tensors_of(path) -> dict[str, torch.Tensor]:
    return training.read_tensors(path.read_bytes(), path)[0]


# ---------------------------------------------------------------------------------------------- resume


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Records, averaged weights and last checkpoint (weights, average, optimiser) of a run that nothing stopped."""
    path = tmp_path_factory.mktemp("run") / "whole.checkpoint"
    records = list(fit(new_model((8, 8)), UNLABELED, pu, short(), SENSITIVE, path))
    return [(r.step, r.risk, r.loss_u, r.loss_s) for r in records], weights(records[-1].model), tensors_of(path)


@pytest.mark.parametrize("stop", range(STEPS + 1))
def test_a_run_stopped_at_any_step_resumes_bit_for_bit(tmp_path, uninterrupted, stop):
    path, (records, average, final) = tmp_path / "run.checkpoint", uninterrupted
    for _ in itertools.islice(fit(new_model((8, 8)), UNLABELED, pu, short(), SENSITIVE, path), stop):
        pass
    assert path.exists() == (stop > 0)  # who leaves early has saved
    resumed = list(fit(new_model((8, 8), seed=99), UNLABELED, pu, short(), SENSITIVE, path) if stop else [])
    if stop == STEPS:
        assert [r.step for r in resumed] == [STEPS]  # one record hands over the finished model
        assert_same(weights(resumed[0].model), average)
    elif stop:
        assert [(r.step, r.risk, r.loss_u, r.loss_s) for r in resumed] == records[stop:]
        assert_same(weights(resumed[-1].model), average)
        assert_same(tensors_of(path), final)


def test_resuming_with_another_checkpoint_interval_changes_nothing(tmp_path, uninterrupted):
    path = tmp_path / "run.checkpoint"
    for _ in itertools.islice(fit(new_model((8, 8)), UNLABELED, pu, short(checkpoint_every=2), SENSITIVE, path), 5):
        pass
    *_, last = fit(new_model((8, 8)), UNLABELED, pu, short(checkpoint_every=100), SENSITIVE, path)
    assert_same(weights(last.model), uninterrupted[1])


def test_a_crash_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch, uninterrupted):
    path, replace, calls = tmp_path / "run.checkpoint", os.replace, []

    def crash_at_the_second(*args):
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("power cut")  # of a full disk it would only warn: see test_faults.py
        replace(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash_at_the_second)
        with pytest.raises(RuntimeError, match="power cut"):
            list(fit(new_model((8, 8)), UNLABELED, pu, short(), SENSITIVE, path))
    assert list(tmp_path.iterdir()) == [path]
    records = list(fit(new_model((8, 8)), UNLABELED, pu, short(), SENSITIVE, path))
    assert records[0].step == EVERY + 1
    assert_same(weights(records[-1].model), uninterrupted[1])


@pytest.mark.parametrize(
    "word, unlabeled, objective, sensitive",
    [
        ("data", -UNLABELED, pu, SENSITIVE),
        ("data", UNLABELED, pu, -SENSITIVE),
        ("objective", UNLABELED, lambda u, s: pu_risk(u, s, 0.2, "abs"), SENSITIVE),
        ("objective", UNLABELED, lambda u, s: pu_risk(u, s, 0.3, "clip"), SENSITIVE),
        ("objective", UNLABELED, lambda u, s: pu_risk(u, s, 0.3, "abs", temperature=None), SENSITIVE),
    ],
    ids=["U", "S", "prior", "correction", "temperature"],
)
def test_a_checkpoint_is_not_resumed_by_another_task(tmp_path, word, unlabeled, objective, sensitive):
    path = tmp_path / "run.checkpoint"
    list(fit(new_model((8, 8)), UNLABELED, pu, short(2), SENSITIVE, path))
    before = path.read_bytes()
    with pytest.raises(training.CheckpointError, match=f"belongs to another {word}"):
        list(fit(new_model((8, 8)), unlabeled, objective, short(2), sensitive, path))
    assert path.read_bytes() == before


def test_distortions_change_the_batches_and_nothing_else(tmp_path):
    """A run with distortions resumes bit for bit too, and U sees the same levels as without."""
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    bent, plain = batches(pu, SENSITIVE, images, distort=0.5), batches(pu, SENSITIVE, images)
    assert all(torch.equal(t, t_other) and not torch.equal(xt, xt_other) for (xt, t), (xt_other, t_other) in zip(bent, plain, strict=True))
    path = tmp_path / "run.checkpoint"
    *_, whole = fit(new_model((8, 8)), UNLABELED, pu, short(6, distort=0.5), SENSITIVE)
    for _ in itertools.islice(fit(new_model((8, 8)), UNLABELED, pu, short(6, distort=0.5), SENSITIVE, path), 4):
        pass
    *_, resumed = fit(new_model((8, 8)), UNLABELED, pu, short(6, distort=0.5), SENSITIVE, path)
    assert_same(weights(resumed.model), weights(whole.model))


def test_settings_of_numpy_numbers_can_be_checkpointed(tmp_path):
    import numpy as np

    settings = short(np.int64(2), lr=np.float32(1e-3), seed=np.int64(1))
    list(fit(new_model((8, 8)), UNLABELED.double(), unsupervised_risk, settings, checkpoint=tmp_path / "run.checkpoint"))
    assert (tmp_path / "run.checkpoint").exists()


def test_without_a_checkpoint_no_file_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(fit(new_model((8, 8)), UNLABELED, unsupervised_risk, short(2)))
    assert list(tmp_path.iterdir()) == []


@given(st.data())
def test_a_flipped_bit_never_goes_unnoticed(data):
    """Anywhere in the file: in the tensors, in their names and shapes, in the step and the settings."""
    content = bytearray(small_checkpoint())
    whole = training.read_tensors(bytes(content), "file")
    length = int.from_bytes(content[:8], "little") + 8
    place = data.draw(st.integers(0, length - 1) | st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        tensors, facts = training.read_tensors(bytes(content), "file")
    except DataError as error:
        assert "file" in str(error)
    else:  # a flip that changes nothing, as in the key of the second digest
        assert facts == whole[1]
        assert_same(tensors, whole[0])


@given(st.data())
def test_a_shortened_file_never_goes_unnoticed(data):
    content = small_checkpoint()
    with pytest.raises(DataError, match="file"):
        training.read_tensors(content[: data.draw(st.integers(0, len(content) - 1))], "file")


@functools.cache
def small_checkpoint() -> bytes:
    written = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "write_atomic", lambda path, content: written.append(content))
        training.save_weights("unused", nn.Linear(2, 3), step=1234, settings={"lr": 0.001, "seed": 0})
    return written[0]


# ---------------------------------------------------------------------------------- what a run depends on


class Recorder(nn.Module):
    """A one-weight network that writes down what it was given."""

    seen: list[tuple[torch.Tensor, torch.Tensor]] = []  # of the class, so that copies share it

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, xt, t):
        Recorder.seen.append((xt.clone(), t.clone()))
        return self.weight * xt


def batches(objective, sensitive, unlabeled=UNLABELED, **changes) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """x_t and t of the unlabeled part of every batch of a short run."""
    Recorder.seen.clear()
    settings = short(5, **changes)
    list(fit(NoisePredictor(Recorder(), cosine_schedule(), "eps"), unlabeled, objective, settings, sensitive))
    return [(xt[: settings.batch_unlabeled], t[: settings.batch_unlabeled]) for xt, t in Recorder.seen]


@pytest.mark.parametrize("stratified", [True, False])
def test_runs_that_differ_in_the_objective_see_the_same_unlabeled_batches(stratified):
    plain = batches(unsupervised_risk, None, stratified=stratified)
    for objective, changes in [(pu, {}), (supervised_risk, {}), (pu, {"batch_sensitive": 5})]:
        for (xt, t), (xt_other, t_other) in zip(plain, batches(objective, SENSITIVE, stratified=stratified, **changes), strict=True):
            assert torch.equal(xt, xt_other) and torch.equal(t, t_other)


def test_steps_and_seeds_see_different_noise_and_levels():
    nothing = torch.zeros_like(UNLABELED)  # so that x_t is noise alone
    one, other = batches(unsupervised_risk, None, nothing), batches(unsupervised_risk, None, nothing, seed=1)
    for (xt, t), (xt_other, t_other) in itertools.combinations(one + other, 2):
        assert not torch.equal(t, t_other)
        assert torch.corrcoef(torch.stack([xt.flatten(), xt_other.flatten()]))[0, 1].abs() < 0.3


def test_sensitive_images_get_noise_of_their_own():
    Recorder.seen.clear()
    nothing = torch.zeros(20, 1, 8, 8)
    list(fit(NoisePredictor(Recorder(), cosine_schedule(), "eps"), nothing, pu, short(3, batch_sensitive=6), nothing))
    for xt, t in Recorder.seen:
        assert not torch.equal(t[:6], t[6:])
        correlation = torch.corrcoef(torch.stack([xt[:6].flatten(), xt[6:].flatten()]))[0, 1]
        assert correlation.abs() < 0.3  # 384 pixels: six standard errors


def test_every_batch_holds_the_stated_counts():
    Recorder.seen.clear()
    counts = []

    def objective(loss_u, loss_s):
        counts.append((len(loss_u), len(loss_s)))
        return pu(loss_u, loss_s)

    list(fit(NoisePredictor(Recorder(), cosine_schedule(), "eps"), UNLABELED, objective, short(5), SENSITIVE))
    assert counts == [(6, 3)] * 5 and [len(t) for _, t in Recorder.seen] == [9] * 5


def test_the_result_does_not_depend_on_the_global_random_state():
    torch.manual_seed(1)
    *_, one = fit(new_model((8, 8)), UNLABELED, pu, short(3), SENSITIVE)
    torch.manual_seed(2)
    *_, other = fit(new_model((8, 8)), UNLABELED, pu, short(3), SENSITIVE)
    assert_same(weights(one.model), weights(other.model))


def test_the_given_model_is_not_changed():
    model = new_model((8, 8))
    before, flags = copy.deepcopy(weights(model)), [p.requires_grad for p in model.parameters()]
    *_, last = fit(model, UNLABELED, unsupervised_risk, short(3))
    assert_same(weights(model), before)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert any(not torch.equal(value, before[name]) for name, value in weights(last.model).items())


def test_the_average_of_one_run_can_be_tuned_by_the_next():
    *_, base = fit(new_model((8, 8)), UNLABELED, unsupervised_risk, short(2))
    before = weights(base.model)
    *_, tuned = fit(base.model, UNLABELED, pu, short(2), SENSITIVE)
    assert any(not torch.equal(value, before[name]) for name, value in weights(tuned.model).items())


def test_prior_zero_trains_as_if_there_were_no_sensitive_images():
    *_, plain = fit(new_model((8, 8)), UNLABELED, unsupervised_risk, short(4))
    *_, zero = fit(new_model((8, 8)), UNLABELED, lambda u, s: pu_risk(u, s, 0.0), short(4), SENSITIVE)
    for a, b in zip(plain.model.parameters(), zero.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert zero.risk == pytest.approx(plain.risk, rel=1e-5) and zero.loss_s > 0


def test_training_lowers_the_loss():
    flat = torch.full((20, 1, 8, 8), 0.7)  # images that can be learned in seconds
    losses = [r.loss_u for r in fit(new_model((8, 8)), flat, unsupervised_risk, short(120, warmup=10, lr=3e-3))]
    assert sum(losses[-30:]) < 0.7 * sum(losses[:30])


def test_bf16_runs_stay_finite_and_keep_float32_weights():
    records = list(fit(new_model((8, 8)), UNLABELED, pu, short(3, precision="bf16"), SENSITIVE))
    assert all(torch.isfinite(torch.tensor([r.risk, r.loss_u, r.loss_s])).all() for r in records)
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in records[-1].model.parameters())
    *_, exact = fit(new_model((8, 8)), UNLABELED, pu, short(3), SENSITIVE)  # and precision goes back to full
    assert exact.risk != records[-1].risk and exact.risk == pytest.approx(records[-1].risk, rel=0.05)


def test_the_average_follows_the_weights_with_the_stated_decay(tmp_path):
    """One step from w0 to w1: average = w0 + (1 - decay) (w1 - w0), with the decay 1/10 of a first step."""
    path, model = tmp_path / "run.checkpoint", new_model((8, 8))
    *_, last = fit(model, UNLABELED, unsupervised_risk, short(1, warmup=0), checkpoint=path)
    final = tensors_of(path)
    for name, start in model.state_dict().items():
        torch.testing.assert_close(final[f"ema.{name}"], start + 0.9 * (final[f"model.{name}"] - start))
        assert torch.equal(final[f"ema.{name}"], last.model.state_dict()[name])


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
def test_the_average_mixes_weights_copies_buffers_and_leaves_the_trained_ones(decay):
    slow, fast = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).requires_grad_(False), nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    fast(torch.rand(9, 3))  # so that the buffers differ
    before, other = weights(slow), weights(fast)
    assert training.average(slow, fast, decay) is slow
    assert_same(weights(fast), other)
    assert not any(p.requires_grad for p in slow.parameters())
    for name, value in slow.named_parameters():
        torch.testing.assert_close(value, decay * before[name] + (1 - decay) * other[name])
    assert all(torch.equal(value, other[name]) for name, value in slow.named_buffers())


# ---------------------------------------------------------------------------------------- the risk of a batch


def test_risk_of_a_batch_is_that_of_a_step_of_training():
    model, settings = new_model((8, 8)), short()
    record = next(fit(model, UNLABELED, pu, settings, SENSITIVE))
    drawn = [training.draw_batch(images, n, settings, 0, stream, torch.ones(1000)) for stream, (images, n) in enumerate([(UNLABELED, 6), (SENSITIVE, 3)])]
    (x0_u, *_), (x0_s, *_) = drawn
    t, noise = (torch.cat(pair) for pair in list(zip(*drawn, strict=True))[1:3])
    value = training.batch_risk(model, x0_u, x0_s, t, noise, 0.3)
    assert value.item() == pytest.approx(record.risk, rel=1e-5)
    value.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(("n_u", "n_s", "batch"), [(20, 5, 8), (1375, 125, 32)])
def test_chance_of_a_batch_without_sensitive_images_is_that_of_shuffling(n_u, n_s, batch):
    generator, runs = torch.Generator().manual_seed(0), 4000
    none = sum(int((torch.randperm(n_u + n_s, generator=generator)[:batch] < n_u).all()) for _ in range(runs)) / runs
    chance = training.chance_without_sensitive(n_u, n_s, batch)
    assert none == pytest.approx(chance, abs=4 * (chance * (1 - chance) / runs) ** 0.5)


def test_chance_of_a_batch_without_sensitive_images_at_its_ends():
    assert training.chance_without_sensitive(3, 1, 1) == 0.75
    assert training.chance_without_sensitive(3, 2, 4) == 0.0  # more cards than U has


# ----------------------------------------------------------------------------------- batches and the rate


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.integers(0, 1000))
def test_every_epoch_shows_each_image_once(size, n, steps, seed):
    rows = torch.cat([training.batch_rows(size, n, step, seed) for step in range(steps)])
    assert len(rows) == n * steps
    for epoch in rows.split(size):
        assert len(set(epoch.tolist())) == len(epoch)
        assert epoch.min() >= 0 and epoch.max() < size


@given(st.integers(1, 200), st.integers(0, 300), st.floats(1e-6, 1))
def test_learning_rate_warms_up_to_its_peak_and_falls_to_zero(steps, warmup, lr):
    settings = Settings(steps, lr=lr, warmup=warmup)
    rates = [learning_rate(step, settings) for step in range(steps)]
    assert all(0 < rate <= lr * (1 + 1e-9) for rate in rates)
    peak = min(max(warmup - 1, 0), steps - 1)
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    if warmup <= steps:
        assert rates[peak] == pytest.approx(lr)
        assert learning_rate(steps, settings) == pytest.approx(0 if warmup < steps else lr, abs=1e-7 * lr)


def test_a_fresh_model_depends_on_its_seed_only():
    torch.manual_seed(5)
    one, state = new_model((8, 8), seed=3), torch.random.get_rng_state()
    assert_same(weights(one), weights(new_model((8, 8), seed=3)))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(next(one.parameters()), next(new_model((8, 8), seed=4).parameters()))


def test_saved_weights_come_back_with_their_facts(tmp_path):
    model, path = new_model((8, 16)), tmp_path / "weights.safetensors"
    training.save_weights(path, model, model={"widths": [8, 16]}, note="é")
    tensors, facts = training.read_tensors(path.read_bytes(), path)
    other = new_model((8, 16), seed=1)
    training.fill_weights(other, tensors, path)
    assert_same(weights(other), weights(model))
    assert facts == {"model": {"widths": [8, 16]}, "note": "é"}


@pytest.mark.parametrize("normal", ["even", "odd"])
def test_shipped_base_predicts_better_than_a_guess(normal):
    """The loss of always guessing zero is the number of pixels; a trained model is far below it."""
    from pulib.data import load_pu
    from pulib.diffusion import denoising_loss, stratified_timesteps

    model, x0, generator = training.load_base(normal), load_pu(normal).heldout_normal[:16], torch.Generator().manual_seed(0)
    noise, t = torch.randn(x0.shape, generator=generator), stratified_timesteps(16, 1000, generator)
    with torch.no_grad():
        assert denoising_loss(model, x0, t, noise, model.schedule).mean() < 0.15 * 784


# --------------------------------------------------------------------------------------------- the cap


def exact_pu(loss_u, loss_s):
    return pu_risk(loss_u, loss_s, 0.3, "abs", temperature=None)


def capped(cap, objective=exact_pu, sensitive=SENSITIVE):
    return list(fit(new_model((8, 8)), UNLABELED, objective, short(6, cap=cap), sensitive))


def test_a_cap_out_of_reach_changes_nothing():
    high, none = capped(1e6), capped(None)
    assert [(r.risk, r.loss_s) for r in high] == [(r.risk, r.loss_s) for r in none]
    assert_same(weights(high[-1].model), weights(none[-1].model))


def test_under_a_cap_of_almost_nothing_sensitive_images_do_not_push():
    pushed, alone = capped(1e-6)[-1], capped(None, unsupervised_risk, None)[-1]
    full = weights(capped(None)[-1].model)
    for name, value in weights(alone.model).items():
        torch.testing.assert_close(weights(pushed.model)[name], value, rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(full[name], value, rtol=1e-4, atol=1e-6) for name, value in weights(alone.model).items())
    assert pushed.loss_s < 1e-3  # losses as they count


def test_levels_of_the_loss_are_those_of_the_profile():
    model = new_model((8, 8))
    levels = training.loss_levels(model, UNLABELED, n_levels=10, n_images=5)
    assert levels.shape == (1000,)
    at = torch.tensor([50, 450, 950])
    profile = diffusion.loss_profile(model, UNLABELED[:5], torch.arange(50, 1000, 100), model.schedule).mean(1)
    torch.testing.assert_close(levels[at], profile[[0, 4, 9]])
    between = levels[150:251]
    assert ((between[0] - between).sign() == (between[0] - between[-1]).sign())[1:].all()


def test_a_capped_run_resumes_bit_for_bit_from_its_own_start_only(tmp_path):
    path = tmp_path / "run.checkpoint"
    settings = short(6, cap=1.2)
    *_, whole = fit(new_model((8, 8)), UNLABELED, pu, settings, SENSITIVE)
    for _ in itertools.islice(fit(new_model((8, 8)), UNLABELED, pu, settings, SENSITIVE, path), 4):
        pass
    with pytest.raises(training.CheckpointError, match="belongs to another start"):
        list(fit(new_model((8, 8), seed=9), UNLABELED, pu, settings, SENSITIVE, path))
    *_, resumed = fit(new_model((8, 8)), UNLABELED, pu, settings, SENSITIVE, path)
    assert_same(weights(resumed.model), weights(whole.model))


# --------------------------------------------------------------------------- running levels, weights, budget


def test_running_levels_average_the_losses_of_each_bin():
    levels = training.RunningLevels(T=100, n_bins=4, decay=0.5)
    t = torch.tensor([0, 24, 25, 99])
    assert levels(t).isinf().all()
    levels.update(t, torch.tensor([1.0, 3.0, 5.0, 7.0]))
    assert levels(t).tolist() == [2, 2, 5, 7] and levels(torch.tensor([60])).isinf()
    levels.update(torch.tensor([10]), torch.tensor([6.0]))
    assert levels(t).tolist() == [4, 4, 5, 7]


def test_a_run_under_a_running_cap_resumes_bit_for_bit(tmp_path):
    path, settings = tmp_path / "run.checkpoint", short(6, cap=1.02, cap_level="running")
    *_, whole = fit(new_model((8, 8)), UNLABELED, pu, settings, SENSITIVE)
    for _ in itertools.islice(fit(new_model((8, 8)), UNLABELED, pu, settings, SENSITIVE, path), 4):
        pass
    assert torch.isfinite(tensors_of(path)["levels"]).any()
    *_, resumed = fit(new_model((8, 8)), UNLABELED, pu, settings, SENSITIVE, path)
    assert_same(weights(resumed.model), weights(whole.model))
    free = list(fit(new_model((8, 8)), UNLABELED, pu, short(6), SENSITIVE))
    assert any(not torch.equal(value, weights(free[-1].model)[name]) for name, value in weights(whole.model).items())  # the cap acted


def weighted(weight_u, weight_s=None, sensitive=SENSITIVE, objective=exact_pu):
    return list(fit(new_model((8, 8)), UNLABELED, objective, short(4), sensitive, weights=(weight_u, weight_s)))[-1]


def test_weights_of_one_change_nothing_and_images_of_weight_zero_are_not_seen():
    plain = list(fit(new_model((8, 8)), UNLABELED, exact_pu, short(4), SENSITIVE))[-1]
    ones = weighted(torch.ones(20), torch.ones(7))
    assert_same(weights(ones.model), weights(plain.model))
    some = (torch.arange(20) % 2).float()
    other = UNLABELED.clone()
    other[some == 0] = 0.3  # whatever they are
    *_, changed = fit(new_model((8, 8)), other, exact_pu, short(4), SENSITIVE, weights=(some, torch.zeros(7)))
    assert_same(weights(changed.model), weights(weighted(some, torch.zeros(7)).model))


def test_sensitive_images_of_weight_zero_leave_the_loss_on_u_alone():
    without, alone = weighted(torch.ones(20), torch.zeros(7)), weighted(torch.ones(20), None, None, unsupervised_risk)
    for a, b in zip(without.model.parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("pair", "name"),
    [((torch.ones(19), None), "unlabeled"), ((-torch.ones(20), None), "unlabeled"), ((torch.ones(20), torch.full((7,), torch.nan)), "sensitive"), ((None, None), "unlabeled")],
)
def test_wrong_weights_are_named(pair, name):
    with pytest.raises(ValueError, match=f"weights of {name} must be"):
        weighted(*pair)


def test_another_weighting_is_another_task(tmp_path):
    path = tmp_path / "run.checkpoint"
    for _ in fit(new_model((8, 8)), UNLABELED, pu, short(2), SENSITIVE, path, weights=(torch.ones(20), None)):
        pass
    with pytest.raises(training.CheckpointError, match="belongs to another data"):
        list(fit(new_model((8, 8)), UNLABELED, pu, short(2), SENSITIVE, path))


def gradient_norms(budget):
    """Norms of the gradient's parts through U and through S of a first step, and of their sum as `fit` takes it."""
    model, settings = new_model((8, 8)), short(1, budget=budget)
    parts = [training.draw_batch(images, n, settings, 0, stream, torch.ones(1000)) for stream, (images, n) in enumerate([(UNLABELED, 6), (SENSITIVE, 3)])]
    x0, t, noise, _ = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    losses = diffusion.denoising_loss(model, x0, t, noise, model.schedule)
    loss_u, loss_s = losses.split([6, 3])
    parameters = list(model.parameters())
    g_u, g_s = (torch.autograd.grad(part, parameters, retain_graph=True) for part in (loss_u.mean(), -0.9 * loss_s.mean()))
    accelerator = training._accelerator("no")
    training._backward_within_budget(accelerator, loss_u.mean() - 0.9 * loss_s.mean(), loss_u, loss_s, parameters, budget)
    flat = [torch.cat([g.flatten() for g in gs]) for gs in (g_u, g_s, [p.grad for p in parameters])]
    return flat


@pytest.mark.parametrize("budget", [0.05, 0.5, 100.0])
def test_the_gradient_through_s_keeps_its_budget_and_its_direction(budget):
    g_u, g_s, total = gradient_norms(budget)
    share = min(1.0, budget * (g_u.norm() / g_s.norm()).item())
    assert (share < 1) == (budget < 1)
    torch.testing.assert_close(total, g_u + share * g_s, rtol=1e-3, atol=1e-3)


def test_fit_keeps_to_its_budget():
    """Out of reach it changes nothing; next to nothing is training on U alone. Compared by the losses on U, to rounding, which a larger lr and more steps enlarge."""
    def run(objective, sensitive=SENSITIVE, budget=None):
        return [r.loss_u for r in fit(new_model((8, 8)), UNLABELED, objective, short(4, warmup=0, lr=3e-3, budget=budget), sensitive)]

    plain, alone = run(exact_pu), run(unsupervised_risk, None)
    assert run(exact_pu, budget=1e6) == pytest.approx(plain, rel=1e-3)
    assert run(exact_pu, budget=1e-6) == pytest.approx(alone, rel=1e-3)
    assert plain[-1] != pytest.approx(alone[-1], rel=1e-2)


def test_a_resumed_optimiser_has_its_moments_in_the_order_that_the_weights_have(tmp_path):
    """A fused step takes that for granted, and moves weights wrongly where it is not so."""
    settings = Settings(4, warmup=1)

    def made():
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 8, 3, padding=1).to(memory_format=torch.channels_last)
        return network, torch.optim.AdamW(network.parameters(), lr=1e-2, fused=True)

    def step(network, optimizer, seed):
        network(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    whole, first = made(), made()
    for seed in range(4):
        step(*whole, seed)
    for seed in range(2):
        step(*first, seed)
    save_checkpoint(tmp_path / "run", first[0], copy.deepcopy(first[0]), first[1], settings, {}, 2)
    network, optimizer = made()
    step(network, optimizer, 9)  # has other moments
    content = read_tensors((tmp_path / "run").read_bytes(), tmp_path / "run")
    assert load_checkpoint(tmp_path / "run", *content, network, copy.deepcopy(network), optimizer, settings, {}) == 2
    assert all(state["exp_avg"].stride() == p.stride() for p, state in optimizer.state.items())
    for seed in (2, 3):
        step(network, optimizer, seed)
    assert torch.equal(network.weight, whole[0].weight)


SOME = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_frozen_weights_are_shared_and_not_saved(tmp_path):
    class Adapted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.more = torch.nn.Conv2d(1, 1, 3, padding=1), torch.nn.Conv2d(1, 1, 1)
            self.base.requires_grad_(False)

        def forward(self, xt, t):
            return self.base(xt) + self.more(xt)

    model = NoisePredictor(Adapted(), linear_schedule(20), "eps")
    path = tmp_path / "run.checkpoint"
    for record in fit(model, SOME, unsupervised_risk, Settings(3, batch_unlabeled=4, warmup=1, lr=0.1), checkpoint=path):
        pass
    tuned = record.model.network
    assert tuned.base.weight.data_ptr() == model.network.base.weight.data_ptr()
    assert not torch.equal(tuned.more.weight, model.network.more.weight)
    assert not any("base" in name for name in read_tensors(path.read_bytes(), path)[0])
    for again in fit(record.model, SOME, unsupervised_risk, Settings(2, batch_unlabeled=4, warmup=1, lr=0.1)):  # an average, where all is frozen
        pass
    assert torch.equal(again.model.network.base.weight, tuned.base.weight) and not torch.equal(again.model.network.more.weight, tuned.more.weight)
    torch.nn.init.zeros_(model.network.base.weight)
    with pytest.raises(CheckpointError, match="weights that are not trained"):
        next(fit(model, SOME, unsupervised_risk, Settings(3, batch_unlabeled=4, warmup=1, lr=0.1), checkpoint=path))
