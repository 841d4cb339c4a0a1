"""Estimating the class prior: estimators on scores whose truth is known, the classifier, and every way to collapse."""

import inspect
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pulib import prior
from pulib.data import load_pu
from pulib.prior import (
    Bin,
    CollapseError,
    Round,
    Scores,
    best_bin,
    check_classifier,
    classifier_risk,
    corrected_bin,
    elkan_noto,
    estimate_prior,
    estimate_rounds,
    fit_classifier,
    fit_odds,
    prepare,
    settled,
    tail_masses,
)
from pulib.risk import pu_risk


def draw(share: float, n_u: int = 4000, n_s: int = 1000, gap: float = 4.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of U and S: N(0, 1) if normal, N(gap, 1) if sensitive, of exactly round(share n_u) in U."""
    generator = torch.Generator().manual_seed(seed)
    hidden = round(share * n_u)
    score_u = torch.randn(n_u, generator=generator).double()
    score_u[:hidden] += gap
    return score_u, torch.randn(n_s, generator=generator).double() + gap


def log_ratio(g: torch.Tensor, share: float, gap: float) -> torch.Tensor:
    """Exact log p_S / p_U at the points of `draw`."""
    log_r = gap * g - gap**2 / 2
    return log_r - torch.log(share * log_r.exp() + 1 - share)


# ---------------------------------------------------------------------------------------- estimators


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.4, 0.8])
def test_best_bin_finds_the_share_of_a_known_mixture(share):
    assert abs(best_bin(*draw(share, 40_000, 10_000, gap=6.0)).ratio - share) < 0.01


def test_best_bin_comes_closer_with_more_scores():
    errors = [sum(abs(best_bin(*draw(0.1, n, n // 4, gap=3.0, seed=s)).ratio - 0.1) for s in range(8)) for n in (200, 10_000)]
    assert errors[1] < 0.4 * errors[0]


@given(st.floats(0, 0.9), st.integers(0, 100), st.sampled_from([torch.exp, torch.atan, lambda g: 3 * g - 7, lambda g: g**3]))
def test_only_the_order_of_the_scores_counts(share, seed, rising):
    score_u, score_s = draw(share, 200, 50, seed=seed)
    ours, theirs = best_bin(score_u, score_s), best_bin(rising(score_u), rising(score_s))
    assert (ours.ratio, ours.bound, ours.share_s) == (theirs.ratio, theirs.bound, theirs.share_s)
    shuffled = torch.randperm(200, generator=torch.Generator().manual_seed(seed))
    assert best_bin(score_u[shuffled], score_s) == ours


@given(st.floats(0, 1), st.integers(0, 200), st.floats(0, 6), st.integers(2, 60))
def test_no_estimate_leaves_0_to_1(share, seed, gap, n_s):
    score_u, score_s = draw(share, 120, n_s, gap, seed)
    for estimate in (lambda: best_bin(score_u, score_s).ratio, lambda: elkan_noto(score_u, score_s)):
        with suppress(CollapseError):
            assert 0 <= estimate() < 1
    assert all(0 <= value <= 1 for value in corrected_bin(score_u, score_s, score_s.median().item(), resamples=5))


@pytest.mark.parametrize("n_s", [125, 1000])
def test_larger_shares_get_larger_estimates(n_s):
    found = [best_bin(*draw(share, 4000, n_s)).ratio for share in (0.02, 0.1, 0.3, 0.6)]
    assert found == sorted(found)


def test_the_best_bin_minimises_the_bound_written_out():
    score_u, score_s = draw(0.2, 60, 20, gap=2.0)
    chance = (torch.tensor(4 / 0.1).log() / 120).sqrt() + (torch.tensor(4 / 0.1).log() / 40).sqrt()
    values = []
    for c in score_s.sort().values.tolist():
        q_u, q_s = (score_u >= c).double().mean().item(), (score_s >= c).double().mean().item()
        values.append((q_u / q_s + 1.01 / q_s * chance.item(), q_u / q_s, c))
    total, ratio, c = min(values)
    found = best_bin(score_u, score_s)
    assert found.ratio == pytest.approx(ratio) and found.threshold == c
    assert found.ratio + found.bound == pytest.approx(total, rel=1e-6)


def test_tail_masses_count_what_is_at_least_the_threshold():
    c, u, s = tail_masses(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 3.0]))
    assert c.tolist() == [1.0, 3.0] and u.tolist() == [0.75, 0.25]
    assert torch.allclose(s, torch.tensor([1.0, 2 / 3]).double())


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4])
def test_elkan_noto_is_exact_where_the_posteriors_are_and_the_classes_apart(share):
    score_u, score_s = draw(share, 40_000, 10_000, gap=9.0)
    assert abs(elkan_noto(log_ratio(score_u, share, 9.0), log_ratio(score_s, share, 9.0)) - share) < 0.005


def test_elkan_noto_overestimates_where_the_classes_overlap():
    score_u, score_s = draw(0.1, 40_000, 10_000, gap=2.0)
    assert elkan_noto(log_ratio(score_u, 0.1, 2.0), log_ratio(score_s, 0.1, 2.0)) > 0.12


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4])
def test_fit_of_the_odds_finds_prior_slope_and_posterior(share):
    score_u, score_s = draw(share, 40_000, 10_000, gap=3.0)
    odds = fit_odds(score_u, score_s)
    assert odds.prior.item() == pytest.approx(share, abs=0.01)
    assert odds.slope.item() == pytest.approx(3.0, rel=0.1)
    exact = torch.sigmoid(3.0 * score_u - 4.5 + torch.tensor(share).double().logit())
    assert (odds.posterior(score_u)[0] - exact).abs().mean() < 0.01


def test_fit_of_the_odds_maximises_the_likelihood():
    score_u, score_s = draw(0.2, 300, 80, gap=2.0)

    def likelihood(theta):
        log_r, share = theta[0] * torch.cat([score_u, score_s]) + theta[1], theta[2]
        log_odds = log_r - torch.log(share * log_r.exp() + 1 - share) + torch.tensor(80 / 300).log()
        return -torch.nn.functional.softplus(torch.cat([log_odds[:300], -log_odds[300:]])).sum()

    odds = fit_odds(score_u, score_s)
    best = torch.cat([odds.slope, odds.offset, odds.prior]).requires_grad_()
    (slope,) = torch.autograd.grad(likelihood(best), best)
    assert slope.abs().max() < 0.05


def test_fits_of_a_bootstrap_are_those_of_the_repeated_scores():
    score_u, score_s = draw(0.2, 100, 40, gap=2.0)
    count_u, count_s = torch.ones(2, 100), torch.ones(2, 40)
    count_u[1], count_s[1] = 2, 2
    together, alone = fit_odds(score_u, score_s, count_u, count_s), fit_odds(score_u, score_s)
    assert torch.allclose(together.prior, alone.prior.expand(2), atol=1e-3)


def test_correction_takes_off_what_normal_images_add_to_the_bin():
    errors = []
    for seed in range(20):
        score_u, score_s = draw(0.05, 1300, 125, gap=3.5, seed=seed)
        best = best_bin(score_u, score_s)
        errors.append((best.ratio - 0.05, corrected_bin(score_u, score_s, best.threshold, resamples=2)[0] - 0.05))
    plain, corrected = torch.tensor(errors).mean(0)
    assert plain > 0.01 and corrected.abs() < 0.004


def test_interval_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for seed in range(30):
        score_u, score_s = draw(0.2, 300, 60, gap=4.0, seed=seed)
        _, low, high = corrected_bin(score_u, score_s, best_bin(score_u, score_s).threshold, resamples=60)
        held += low <= 0.2 <= high
    assert held >= 25


def test_interval_of_a_prior_of_0_does_not_claim_that_nothing_can_be_there():
    score_u, score_s = draw(0.0, 1200, 120, gap=8.0)
    found, low, high = corrected_bin(score_u, score_s, 4.0)
    assert found < 1e-3 and low == pytest.approx(0, abs=1e-6) and high >= 3 / 1200


# ---------------------------------------------------------------------------------------- classifier


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
def test_the_nnpu_risk_is_the_pu_risk_of_the_logistic_loss(share):
    score_u, score_s = draw(share, 50, 20)
    loss_u, loss_s = (torch.nn.functional.softplus(g) for g in (score_u, score_s))
    assert torch.allclose(classifier_risk(score_u, score_s, share), pu_risk(loss_u, loss_s, share))


def test_area_under_the_curve_counts_pairs_and_halves_ties():
    scores = Scores(torch.tensor([0.0, 1.0, 2.0, 2.0]), torch.tensor([2.0, 0.5, 3.0]))
    pairs = [(s > u) + 0.5 * (s == u) for s in scores.sensitive.tolist() for u in scores.unlabeled.tolist()]
    assert scores.auc == pytest.approx(sum(pairs) / 12)


def test_no_network_trains_on_what_it_scores():
    images = torch.rand(23, 1, 28, 28)
    task = prepare(images[:13], images[13:], folds=4)
    for k in range(4):
        rows_u, rows_s = task.training_rows(k)
        assert not set(torch.cat([rows_u, rows_s]).tolist()) & set(torch.nonzero(task.fold == k).flatten().tolist())
        assert (rows_u < 13).all() and (rows_s >= 13).all()
    assert torch.bincount(task.fold[:13]).tolist() == [4, 3, 3, 3]
    scores = torch.arange(4.0)[:, None].expand(4, 23)
    held_out = task.held_out(scores)
    assert torch.cat([held_out.unlabeled, held_out.sensitive]).long().equal(task.fold)


@pytest.mark.parametrize("seed", [0, 3])
def test_folds_hold_out_no_digit_as_a_whole_even_with_the_seed_of_the_split(seed):
    split = load_pu(seed=seed)
    task = prepare(split.unlabeled, split.sensitive, seed=seed)
    digits = torch.cat([split.hidden.unlabeled, split.hidden.sensitive])
    for part in (slice(0, len(split.unlabeled)), slice(len(split.unlabeled), None)):
        for digit in digits[part].unique():
            in_fold = torch.bincount(task.fold[part][digits[part] == digit], minlength=5)
            assert in_fold.max() < 0.6 * in_fold.sum()


def test_edges_point_where_the_image_rises_and_ignore_its_contrast():
    image = torch.full((1, 1, 28, 28), -1.0)
    image[..., 14:] = 1.0
    strength = prior.edges(image).sum((2, 3))[0]
    assert strength.argmax() == 0 and strength[0] > 3 * strength[2:7].max()
    assert torch.allclose(prior.edges((image + 1) / 2 - 1), prior.edges(image), atol=1e-3)
    assert prior.edges(torch.zeros(2, 1, 28, 28)).isfinite().all()


def test_scores_depend_on_the_seed_and_not_on_the_global_generator():
    split = load_pu(seed=7)
    images = split.unlabeled[:60], split.sensitive[:20]
    torch.manual_seed(1)
    first = fit_classifier(*images, seed=4, steps=3, folds=2)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    again, other = (fit_classifier(*images, seed=seed, steps=3, folds=2) for seed in (4, 5))
    assert first.unlabeled.equal(again.unlabeled) and first.sensitive.equal(again.sensitive)
    assert not first.unlabeled.equal(other.unlabeled)
    torch.manual_seed(1)
    assert torch.random.get_rng_state().equal(state)


def test_the_nnpu_classifier_tells_sensitive_from_normal_images():
    split = load_pu("odd", prior=0.1, seed=8)
    scores = fit_classifier(split.unlabeled, split.sensitive, prior=0.1, folds=2, steps=100)
    hidden = split.unlabeled_is_sensitive
    assert Scores(scores.unlabeled[~hidden], scores.sensitive).auc > 0.9


@pytest.fixture(scope="module")
def estimate():
    split = load_pu(prior=0.1, seed=9)
    return split, estimate_prior(split.unlabeled, split.sensitive, seed=9, rounds=2, folds=3)


def test_estimate_on_digits_is_near_the_truth(estimate):
    split, found = estimate
    assert abs(found.prior - split.prior) < 0.025
    assert found.low < found.prior < found.high and found.low < split.prior < found.high
    assert [each.number for each in found.history] == [1, 2]
    assert found.auc == found.history[-1].auc == found.scores.auc > 0.9
    assert len(found.scores.unlabeled) == len(split.unlabeled) and len(found.scores.sensitive) == 125


def test_rounds_keep_more_normal_images_out_of_the_bin(estimate):
    split, found = estimate
    normal = ~split.unlabeled_is_sensitive
    first, last = ((each.scores.unlabeled[normal] >= each.scores.sensitive.quantile(0.1)).double().mean() for each in found.history)
    assert last <= first


# ------------------------------------------------------------------------------------------ collapse


CHANCE = torch.Generator().manual_seed(0)
COLLAPSED = [
    ("the same for all images", torch.zeros(100), torch.zeros(30), "all the same"),
    ("nan", torch.full((100,), float("nan")), torch.ones(30), "not finite"),
    ("of no bearing", torch.randn(1000, generator=CHANCE), torch.randn(125, generator=CHANCE), "does not tell S from U"),
    ("the wrong way round", torch.arange(100.0), -torch.arange(30.0), "does not tell S from U"),
    ("of few images", torch.arange(6.0), torch.arange(6.0) + 3, "does not tell S from U"),
]


@pytest.mark.parametrize(("unlabeled", "sensitive", "reason"), [pytest.param(*case[1:], id=case[0]) for case in COLLAPSED])
def test_scores_that_are(unlabeled, sensitive, reason):
    with pytest.raises(CollapseError, match=reason) as caught:
        prior.read_prior(Scores(unlabeled, sensitive))
    assert caught.value.scores.unlabeled is unlabeled


def test_a_classifier_at_chance_passes_by_luck_less_than_once_in_a_thousand():
    generator = torch.Generator().manual_seed(1)
    passed = 0
    for _ in range(1000):
        scores = Scores(torch.randn(300, generator=generator), torch.randn(60, generator=generator))
        with suppress(CollapseError):
            check_classifier(scores)
            passed += 1
    assert passed <= 1


def test_shuffled_labels_collapse(estimate):
    _, found = estimate
    both = torch.cat([found.scores.unlabeled, found.scores.sensitive])
    both = both[torch.randperm(len(both), generator=torch.Generator().manual_seed(0))]
    with pytest.raises(CollapseError, match="does not tell S from U"):
        prior.read_prior(Scores(both[125:], both[:125]))


def test_scores_that_are_all_the_same_have_no_odds():
    with pytest.raises(CollapseError, match="all the same"):
        corrected_bin(torch.ones(5), torch.ones(3), 1.0)


def test_a_prior_of_1_collapses(monkeypatch):
    with pytest.raises(CollapseError, match="must be below 1"):
        best_bin(torch.arange(50.0), torch.arange(50.0) - 10)
    with pytest.raises(CollapseError, match="must be below 1"):
        elkan_noto(torch.full((100,), -9.0), torch.full((50,), -9.0))
    monkeypatch.setattr(prior, "corrected_bin", lambda *scores, seed: (1.0, 0.9, 1.1))
    with pytest.raises(CollapseError, match="the prior came out as 1.000, and must be below 1"):
        prior.read_prior(Scores(torch.arange(100.0), torch.arange(30.0) + 90))


@pytest.mark.parametrize("source", ["normal images", "U itself"])
def test_sensitive_images_that_are_none_collapse(source, monkeypatch):
    monkeypatch.setattr(prior, "STEPS", (60,))
    split = load_pu(prior=0.05, seed=6)
    chosen = split.oracle_normal if source == "normal images" else split.unlabeled
    rows = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))
    unlabeled = chosen[rows[:-125]] if source == "U itself" else torch.cat([chosen[rows[:-125]], split.unlabeled[split.unlabeled_is_sensitive]])
    with pytest.raises(CollapseError, match="does not tell S from U"):
        estimate_prior(unlabeled, chosen[rows[-125:]], rounds=1, folds=2)


def test_a_training_that_diverges_collapses(monkeypatch):
    monkeypatch.setattr(prior, "STEPS", (2,))
    images = torch.rand(40, 1, 28, 28)
    monkeypatch.setattr(prior, "classifier_risk", lambda u, s, p: u.sum() * float("nan"))
    with pytest.raises(CollapseError, match="not finite"):
        estimate_prior(images[:25], images[25:], folds=2)


def test_rounds_that_do_not_settle_collapse():
    scores, best = Scores(torch.zeros(2), torch.ones(2)), Bin(0.0, 0.1, 1.0, 0.1, 0.1)
    rounds = [Round(i + 1, value, 0.0, 1.0, best, scores) for i, value in enumerate((0.1, 0.3, 0.6))]
    with pytest.raises(CollapseError, match="0.100, 0.300, 0.600"):
        settled(rounds)
    assert settled(rounds[:1]).prior == 0.1


def test_rounds_end_when_the_estimate_settles(monkeypatch):
    monkeypatch.setattr(prior, "STEPS", (2,))
    best, values = Bin(0.0, 0.1, 1.0, 0.1, 0.1), iter([0.2, 0.1, 0.101, 0.5])
    monkeypatch.setattr(prior, "read_prior", lambda scores, number, seed: Round(number, next(values), 0.0, 1.0, best, scores))
    images = torch.rand(40, 1, 28, 28)
    found = list(estimate_rounds(images[:25], images[25:], rounds=9, folds=2))
    assert [each.prior for each in found] == [0.2, 0.1, 0.101]


def test_the_room_knows_nothing_of_rooms_above_it():
    source = inspect.getsource(prior)
    assert [room for room in ("plots", "widgets", "checks", "rivals") if f"from .{room}" in source] == []


# ------------------------------------------------------------------------------- the generator's opinion


@given(st.floats(0.0, 0.9), st.floats(1.5, 9.0))
def test_the_floor_is_met_at_the_true_prior(true, ratio):
    normal, sensitive = torch.tensor([1.0, 1.2, 0.8]), ratio * torch.tensor([1.0, 1.1, 0.9])
    mixed = torch.tensor([(1 - true) * 1.0 + true * ratio] * 2)
    assert prior.prior_at_floor(mixed, sensitive, normal) == pytest.approx(true, abs=1e-5)


def test_losses_that_tell_nothing_are_refused():
    same = torch.rand(50, generator=torch.Generator().manual_seed(0))
    with pytest.raises(prior.CollapseError, match="do not tell S from normal"):
        prior.prior_at_floor(same, same + 1e-4, same)
    with pytest.raises(ValueError, match="loss_n must hold at least two losses; got 0"):
        prior.prior_at_floor(same, same, same[:0])
