"""The laws that every risk obeys, whatever the losses."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pulib.risk import (
    correct,
    normal_part,
    normal_part_error,
    pu_error,
    pu_risk,
    sensitive_loss,
    sensitive_slope,
    supervised_risk,
    unsupervised_risk,
)

corrections = st.sampled_from(["none", "clip", "abs"])
temperatures = st.floats(0.1, 1000)
priors = st.floats(0, 0.99)


def losses(low: float = 1e-3, high: float = 1e3, min_size: int = 1):
    low, high = torch.tensor([low, high]).tolist()  # as float32
    return st.lists(st.floats(low, high, width=32), min_size=min_size, max_size=20).map(torch.tensor)


@given(losses(), losses(), corrections, st.none() | temperatures)
def test_prior_zero_makes_pu_the_unsupervised_risk(loss_u, loss_s, correction, temperature):
    assert pu_risk(loss_u, loss_s, 0.0, correction, temperature) == unsupervised_risk(loss_u, loss_s)


@given(losses(), losses())
def test_with_true_labels_the_difference_is_the_normal_risk(loss_n, loss_hidden):
    loss_u = torch.cat([loss_n, loss_hidden]).double()
    prior = len(loss_hidden) / len(loss_u)
    exact = (1 - prior) * loss_n.double().mean()
    assert normal_part(loss_u, loss_hidden.double(), prior).item() == pytest.approx(exact.item(), rel=1e-9, abs=1e-9 * loss_u.max().item())


@given(losses(), losses(), priors)
def test_corrections_are_ordered_and_non_negative(loss_u, loss_s, prior):
    value = normal_part(loss_u, loss_s, prior)
    none, clip, absolute = (correct(value, c) for c in ("none", "clip", "abs"))
    assert none <= clip <= absolute and clip >= 0
    assert clip == max(0.0, value.item()) and absolute == abs(value.item())


@given(losses(), losses(), priors, corrections, temperatures)
def test_pu_risk_is_its_two_terms(loss_u, loss_s, prior, correction, temperature):
    """Equation 13 of arXiv 2503.03789, computed in plain Python floats."""
    u, s = loss_u.tolist(), loss_s.tolist()
    log_term = sum(-math.log(-math.expm1(-x / temperature)) for x in s) / len(s)
    part = sum(u) / len(u) - prior * sum(s) / len(s)
    fixed = {"none": part, "clip": max(part, 0), "abs": abs(part)}[correction]
    found = pu_risk(loss_u, loss_s, prior, correction, temperature).item()
    assert found == pytest.approx(prior * log_term + fixed, rel=1e-4, abs=1e-5 * max(1, *u, *s))
    dropped = pu_risk(loss_u, loss_s, prior, correction, None).item()
    assert dropped == pytest.approx(fixed, rel=1e-4, abs=1e-5 * max(1, *u, *s))


@given(losses(1e-6, 1e4), st.floats(0.1, 100))
def test_sensitive_loss_is_the_log_term_in_float64(loss, temperature):
    scaled = (loss.double() / temperature).clamp(min=1e-6)
    torch.testing.assert_close(sensitive_loss(loss, temperature).double(), -torch.log(-torch.expm1(-scaled)), rtol=1e-5, atol=1e-6)


@given(losses(2**-40, 1e4), st.floats(0.1, 100))
def test_sensitive_loss_and_its_slope_are_finite_and_signed(loss, temperature):
    loss.requires_grad_(True)
    value = sensitive_loss(loss, temperature)
    (slope,) = torch.autograd.grad(value.sum(), loss)
    assert torch.isfinite(value).all() and (value >= 0).all()
    assert torch.isfinite(slope).all() and (slope <= 0).all()


@given(losses(1e-2, 1e3), st.floats(0.5, 100))
def test_slope_of_the_sensitive_loss(loss, temperature):
    loss.requires_grad_(True)
    (slope,) = torch.autograd.grad(sensitive_loss(loss, temperature).sum(), loss)
    torch.testing.assert_close(slope.double(), sensitive_slope(loss.detach().double(), temperature), rtol=1e-3, atol=1e-6)


@given(losses(1e-5, 1e3), st.floats(0.1, 1000))
def test_slope_in_float64_is_that_of_autograd_and_at_most_one_over_l(loss, temperature):
    loss = loss.double().requires_grad_(True)
    (slope,) = torch.autograd.grad(-torch.log(-torch.expm1(-loss / temperature)).sum(), loss)
    found = sensitive_slope(loss.detach(), temperature)
    torch.testing.assert_close(found, slope, rtol=1e-6, atol=1e-12)
    assert (-found * loss.detach() <= 1 + 1e-9).all()


@pytest.mark.parametrize("prior", [0.0, 0.1, 0.4])
def test_standard_error_is_the_spread_of_the_estimates(prior):
    """20,000 batches of 64 unlabeled and 16 sensitive losses, drawn from skewed distributions."""
    generator = torch.Generator().manual_seed(0)
    u, s = (scale * torch.empty(20_000, size).exponential_(generator=generator) for scale, size in ((50.0, 64), (90.0, 16)))
    estimates = torch.stack([normal_part(a, b, prior) for a, b in zip(u, s, strict=True)])
    squared = torch.stack([normal_part_error(a, b, prior) for a, b in zip(u, s, strict=True)]).square()
    assert squared.mean().sqrt().item() == pytest.approx(estimates.std().item(), rel=0.03)


def test_standard_error_by_hand():
    """Variances 2 and 8, from two losses each: 2 / 2 + 0.25 * 8 / 2 = 2."""
    assert normal_part_error(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 4.0]), 0.5).item() == pytest.approx(2**0.5)
    assert normal_part_error(torch.tensor([1.0, 3.0]), torch.zeros(0), 0.0).item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("correction", "slope_u", "slope_s"),
    [("none", 1.0, -0.5), ("clip", 0.0, 0.0), ("abs", -1.0, 0.5)],
)
def test_gradients_when_the_normal_part_is_negative(correction, slope_u, slope_s):
    """clip stops learning from the violating batch, abs pushes it back up, none drives it further down."""
    loss_u, loss_s = torch.tensor([1.0], requires_grad=True), torch.tensor([10.0], requires_grad=True)
    pu_risk(loss_u, loss_s, 0.5, correction, temperature=None).backward()
    assert (loss_u.grad.item(), loss_s.grad.item()) == pytest.approx((slope_u, slope_s))


@pytest.mark.parametrize("correction", ["none", "clip", "abs"])
def test_gradients_agree_when_the_normal_part_is_positive(correction):
    loss_u, loss_s = torch.tensor([10.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    pu_risk(loss_u, loss_s, 0.5, correction, temperature=None).backward()
    assert (loss_u.grad.item(), loss_s.grad.item()) == pytest.approx((1.0, -0.5))


@given(losses(high=30), losses(high=30), st.floats(1, 100))
def test_supervised_risk_is_the_binary_cross_entropy(loss_u, loss_s, temperature):
    """With p(normal | x) = exp(-l / temperature) on S, and temperature 1 on U: the classifier's own loss."""
    p_normal = torch.exp(-torch.cat([loss_u.double(), loss_s.double() / temperature]))
    exact = F.binary_cross_entropy(p_normal, (torch.arange(len(p_normal)) < len(loss_u)).double())
    torch.testing.assert_close(supervised_risk(loss_u, loss_s, temperature).double(), exact, rtol=1e-4, atol=1e-5)


scores = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=20).map(torch.tensor)


@given(scores, scores)
def test_with_true_labels_the_pu_error_is_the_share_of_wrong_calls(score_n, score_hidden):
    score_u = torch.cat([score_n, score_hidden])
    wrong = (score_n < 0).sum() + (score_hidden >= 0).sum()
    prior = len(score_hidden) / len(score_u)
    assert pu_error(score_u, score_hidden, prior).item() == pytest.approx(wrong.item() / len(score_u), abs=1e-6)


@given(scores, scores, priors)
def test_pu_error_lies_between_minus_the_prior_and_one_plus_it(score_u, score_s, prior):
    assert -prior - 1e-6 <= pu_error(score_u, score_s, prior) <= 1 + prior + 1e-6


def test_pu_error_is_not_corrected():
    assert pu_error(torch.ones(4), -torch.ones(4), 0.3).item() == pytest.approx(-0.3)
