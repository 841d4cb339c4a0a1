"""The roads to the normal part: the sieve, the models that steer while drawing, and the tasks of the estimators' table."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pulib import data, diffusion, evaluation, risk, rivals, toy, training
from pulib.diffusion import cosine_schedule

SPLIT = data.load_pu("even")
SCHEDULE = cosine_schedule()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --------------------------------------------------------------------------------------- weighted risk


@given(st.integers(0, 1000), st.integers(1, 30))
def test_any_weights_leave_the_normal_part_times_the_weights(seed, sensitive):
    """E_U[w l] - prior E_S[w l] = (1 - prior) E_N[w l], whatever w is: on a U that is S and N together."""
    g, normal = generator(seed), 40
    loss, weight = (torch.rand(sensitive + normal, generator=g).double() for _ in range(2))
    prior = sensitive / (sensitive + normal)
    value = risk.weighted_part(loss, loss[:sensitive], weight, weight[:sensitive], prior)
    assert value.item() == pytest.approx(((1 - prior) * (weight * loss)[sensitive:].mean()).item(), rel=1e-9)


# ---------------------------------------------------------------------------------------------- sieve


@pytest.fixture(scope="module")
def found():
    return rivals.sieve(SPLIT.unlabeled, SPLIT.sensitive, SPLIT.prior)


def test_the_sieve_tells_hidden_sensitive_images_from_normal_ones(found):
    hidden = SPLIT.unlabeled_is_sensitive
    called = found.unlabeled >= found.threshold
    assert int(called.sum()) == round(SPLIT.prior * len(called))
    assert called[hidden].double().mean() > 0.8 and called[~hidden].double().mean() < 0.03
    assert found.unlabeled.mean() == pytest.approx(SPLIT.prior, abs=0.03)  # calibrated


def test_held_out_images_of_s_look_like_the_hidden_ones(found):
    """What makes E_U[w l] - prior E_S[w l] right: w must not know S by heart."""
    hidden = found.unlabeled[SPLIT.unlabeled_is_sensitive]
    assert (1 - found.sensitive).mean() == pytest.approx((1 - hidden).mean().item(), abs=0.1)


def test_the_sieve_judges_new_images(found):
    normal, sensitive = found(SPLIT.heldout_normal), found(SPLIT.heldout_sensitive)
    assert ((normal >= 0) & (normal <= 1)).all()
    assert (normal[:, None] < sensitive[None]).double().mean() > 0.95
    mixed = torch.cat([SPLIT.heldout_normal[:100], SPLIT.heldout_sensitive[:10]])
    kept = rivals.kept_by(found, mixed)
    assert 90 <= len(kept) <= 105
    with pytest.raises(ValueError, match="images"):
        found(SPLIT.heldout_normal[:0])


def test_a_sieve_of_probabilities_alone_judges_nothing_new(found):
    kept = replace(found, networks=None, odds=None)
    with pytest.raises(ValueError, match="networks must be there"):
        rivals.kept_by(kept, SPLIT.heldout_normal)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.9])
def test_s_tells_which_share_of_what_passes_is_sensitive(threshold, found):
    true = SPLIT.unlabeled_is_sensitive[found.unlabeled < threshold].double().mean().item()
    left = rivals.leftover_prior(found.unlabeled, found.sensitive, SPLIT.prior, threshold)
    assert left == pytest.approx(true, abs=0.01) and left < SPLIT.prior / 2


@pytest.mark.parametrize("prior", [0, 1.0, "0.1"])
def test_a_sieve_needs_a_prior(prior):
    with pytest.raises(ValueError, match="prior must be"):
        rivals.sieve(SPLIT.unlabeled, SPLIT.sensitive, prior)


# ------------------------------------------------------------------------------ steering while drawing


def test_guidance_with_exact_parts_is_the_exact_normal_noise():
    world = toy.ring_world(prior=0.2)
    xt, t = torch.randn(64, 2, generator=generator()), torch.randint(50, 950, (64,), generator=generator(1))
    alpha_bar = SCHEDULE.alpha_bar[t]
    eps = [lambda xt, t, part=part: torch.stack([part.noise(x[None], SCHEDULE.alpha_bar[i])[0] for x, i in zip(xt, t)]) for part in (world.unlabeled, world.sensitive)]
    r = torch.stack([world.responsibility(x[None], a)[0] for x, a in zip(xt, alpha_bar)])
    guided = rivals.Guided(*eps, lambda xt, t: r.logit(), ceiling=0.9)
    exact = torch.stack([world.normal.noise(x[None], a)[0] for x, a in zip(xt, alpha_bar)])
    inside = r < 0.9
    assert inside.any()
    torch.testing.assert_close(guided(xt, t)[inside], exact[inside].to(xt.dtype), rtol=1e-3, atol=1e-3)


def test_no_share_of_sensitive_images_is_no_guidance():
    xt, t = torch.randn(3, 1, 4, 4), torch.tensor([5, 500, 999])
    guided = rivals.Guided(lambda xt, t: 0.5 * xt, lambda xt, t: -xt, lambda xt, t: torch.full((3,), -1e4))
    torch.testing.assert_close(guided(xt, t), 0.5 * xt)
    with pytest.raises(ValueError, match="ceiling must be"):
        rivals.Guided(None, None, None, ceiling=1.0)


def test_the_kernel_denoiser_is_the_posterior_mean():
    images, t = torch.rand(5, 1, 3, 3, generator=generator()) * 2 - 1, torch.tensor([100, 400, 700, 999])
    xt = torch.randn(4, 1, 3, 3, generator=generator(1))
    eps = rivals.KernelDenoiser(images, SCHEDULE)(xt, t)
    for i, level in enumerate(t):
        a = SCHEDULE.alpha_bar[level].double()
        mean = torch.distributions.Normal(a.sqrt() * images.double(), (1 - a).sqrt())
        weight = mean.log_prob(xt[i].double()).flatten(1).sum(1).softmax(0)
        x0 = (weight.view(-1, 1, 1, 1) * images.double()).sum(0)
        torch.testing.assert_close(eps[i].double(), (xt[i].double() - a.sqrt() * x0) / (1 - a).sqrt(), rtol=1e-3, atol=1e-3)


def test_shares_of_the_kernel_count_like_images():
    """An image with share 2 counts like two of it; one of share -1 takes out what stands for it among the others: a PU risk, exactly."""
    a, b = torch.randn(2, 2, generator=generator()), torch.randn(3, 2, generator=generator(1))
    xt, levels = torch.randn(6, 2, generator=generator(2)), (torch.full((6, 1), 0.6), torch.full((6, 1), 0.8))
    alone = rivals.kernel_noise(xt, a, *levels)
    torch.testing.assert_close(rivals.kernel_noise(xt, a, *levels, torch.tensor([2.0, 2.0])), alone)
    twice = rivals.kernel_noise(xt, torch.cat([a, b, b]), *levels)
    torch.testing.assert_close(rivals.kernel_noise(xt, torch.cat([a, b]), *levels, torch.tensor([1.0, 1, 2, 2, 2])), twice)
    taken_out = rivals.kernel_noise(xt, torch.cat([a, b, b]), *levels, torch.tensor([1.0, 1, 1, 1, 1, -1, -1, -1]))
    torch.testing.assert_close(taken_out, alone, rtol=1e-3, atol=1e-3)


def test_near_one_image_the_kernel_finds_the_noise_that_was_added():
    images, noise, t = SPLIT.sensitive[:20], torch.randn(20, 1, 28, 28, generator=generator()), torch.full((20,), 200)
    eps = rivals.KernelDenoiser(images, SCHEDULE)(diffusion.add_noise(images, t, noise, SCHEDULE), t)
    torch.testing.assert_close(eps, noise, rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match="images is empty"):
        rivals.KernelDenoiser(images[:0], SCHEDULE)


def test_a_safe_denoiser_draws_images():
    model = training.new_model((8, 16), T=20)
    safe = rivals.Guided(model, rivals.KernelDenoiser(SPLIT.sensitive, model.schedule), rivals.NoisyClassifier((8, 16)))
    images = diffusion.sample(safe, 2, model.schedule, steps=5)
    assert images.shape == (2, 1, 28, 28) and torch.isfinite(images).all()
    assert evaluation.read(evaluation.load_judge(), images).digits.shape == (2,)


# ---------------------------------------------------------------------------------- tasks of the table

SETTINGS = rivals.FINE_TUNING | dict(steps=1, batch_unlabeled=4, batch_sensitive=2)


@pytest.mark.parametrize("name", rivals.ESTIMATORS)
def test_every_estimator_trains_a_step_from_given_weights(name, found):
    start = training.new_model((8, 16), T=50)
    task = rivals.estimator(name, SPLIT, found=found, start=start)
    (record,) = task.fit(SETTINGS)
    assert record.step == 1 and task.start is start
    assert (task.changes.get("cap", 8.0) is None) == (name not in ("pu_capped", "pu_sieved", "pu_pushed"))


def test_estimators_take_what_they_say(found):
    start = training.new_model((8, 16), T=50)
    filtered = rivals.estimator("filter", SPLIT, found=found, start=start)
    assert len(filtered.unlabeled) == len(SPLIT.unlabeled) - round(SPLIT.prior * len(SPLIT.unlabeled))
    soft = rivals.estimator("soft_filter", SPLIT, found=found, start=start)
    assert torch.equal(soft.weights[0], 1 - found.unlabeled) and soft.sensitive is None
    ours = rivals.estimator("pu_sieved", SPLIT, found=found, start=start, scratch=True)
    assert len(ours.sensitive) == int((found.sensitive < 0.5).sum()) and ours.changes == {"cap_level": "running", "cap": 2.0}
    pushed = rivals.estimator("pu_pushed", SPLIT, found=found)
    assert len(pushed.sensitive) == len(SPLIT.sensitive) and pushed.changes == {"cap_level": "start"}
    assert torch.equal(pushed.unlabeled, ours.unlabeled) and len(pushed.unlabeled) == int((found.unlabeled < 0.5).sum())
    assert len(rivals.estimator("oracle", SPLIT).unlabeled) == int((~SPLIT.unlabeled_is_sensitive).sum())


def test_estimators_have_the_risks_they_name(found):
    b, left = SPLIT.prior, rivals.leftover_prior(found.unlabeled, found.sensitive, SPLIT.prior, 0.5)
    loss_u, loss_s = torch.tensor([10.0, 20.0]), torch.tensor([100.0, 500.0])
    exact = 15 - 300 * b
    values = {
        "unsupervised": 15.0, "filter": 15.0, "pu_linear": exact, "pu_clip": 0.0, "pu_paper": -exact, "pu_capped": -exact,
        "pu_sieved": 15 - 300 * left, "pu_pushed": exact, "siss": exact,
    }  # fmt: skip
    for name, value in values.items():
        task = rivals.estimator(name, SPLIT, found=found)
        assert task.objective(loss_u, loss_s).item() == pytest.approx(value, rel=1e-5), name
    assert exact < 0 and rivals.estimator("siss", SPLIT).changes["budget"] == 0.1 and rivals.estimator("pu_paper", SPLIT).changes["shared"]


def test_estimators_refuse_what_they_cannot_use():
    with pytest.raises(ValueError, match="estimator must be one of oracle"):
        rivals.estimator("magic", SPLIT)
    with pytest.raises(ValueError, match="found must be the split's sieve"):
        rivals.estimator("filter", SPLIT)


# ------------------------------------------------------------------------------------- shared batches


def test_shared_batches_come_from_one_deck():
    u, s = torch.arange(11.0).view(-1, 1), -torch.arange(1.0, 6.0).view(-1, 1)
    settings, density = training.Settings(1, batch_unlabeled=3, batch_sensitive=1), torch.ones(1000)
    seen, counts = [], []
    for step in range(4):  # 16 images, four in each batch: one epoch
        (x_u, *_), (x_s, *_), n = training.draw_shared(torch.cat([u, s]), len(u), settings, step, density)
        assert len(x_u) == n and len(x_u) + len(x_s) == 4 and (x_u >= 0).all() and (x_s < 0).all()
        seen += [*x_u.flatten().tolist(), *x_s.flatten().tolist()]
        counts.append(n)
    assert sorted(seen) == sorted([*u.flatten().tolist(), *s.flatten().tolist()])
    assert len(set(counts)) > 1


def test_a_shared_batch_may_hold_no_sensitive_image():
    task = rivals.estimator("pu_paper", SPLIT, start=training.new_model((8, 16), T=50))
    losses = [record.loss_s for record in task.fit(SETTINGS | dict(steps=12, batch_unlabeled=2, batch_sensitive=1))]
    assert any(loss != loss for loss in losses) and any(loss == loss for loss in losses)


@pytest.mark.parametrize("wrong", [dict(sensitive=None), dict(weights=(torch.ones(len(SPLIT.unlabeled)), None))], ids=["no S", "weights"])
def test_shared_batches_need_s_and_no_weights(wrong):
    given_ = dict(sensitive=SPLIT.sensitive, weights=None) | wrong
    with pytest.raises(ValueError, match="settings.shared needs"):
        next(training.fit(training.new_model((8, 16)), SPLIT.unlabeled, risk.unsupervised_risk, training.Settings(1, shared=True), **given_))
