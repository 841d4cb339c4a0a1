"""The judge and the numbers it gives: against closed forms, simulation, and real images with known labels."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from pulib import data, evaluation
from pulib.evaluation import class_balance, corrected_nsr, evaluate, frechet_distance, ideal_nsr, wilson_interval

rates = st.floats(0, 1)


@pytest.fixture(scope="module")
def judge():
    return evaluation.load_judge()


@pytest.fixture(scope="module")
def split():
    return data.load_pu("even")


class Oracle(nn.Module):
    """A judge that knows the digits by heart, and calls a stated share of each kind the other one."""

    def __init__(self, normal: str = "even", wrong_normal: float = 0.0, wrong_sensitive: float = 0.0) -> None:
        super().__init__()
        images, digits = data.learner_part()
        told = digits.clone()
        for kind, wrong in ((data.is_normal(digits, normal), wrong_normal), (~data.is_normal(digits, normal), wrong_sensitive)):
            rows = torch.nonzero(kind).flatten()
            rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: round(wrong * len(rows))]]
            told[rows] = (digits[rows] + 1) % 10
        self.told = {image.numpy().tobytes(): int(digit) for image, digit in zip(images, told, strict=True)}

    def features(self, images):
        """The digit as one-hot in the first ten places, and a few sums of pixels."""
        digits = torch.tensor([self.told[image.numpy().tobytes()] for image in images])
        sums = nn.functional.adaptive_avg_pool2d(images, (6, 9)).flatten(1)
        return torch.cat([nn.functional.one_hot(digits, 10).float(), sums], 1)

    def forward(self, images):
        return (10 * self.features(images)[:, :10]).log_softmax(1)


# ------------------------------------------------------------------------------------------- intervals


@given(st.integers(1, 5000), rates, st.floats(0.5, 3))
def test_wilson_interval_is_that_of_scipy(n, share, z):
    stats = pytest.importorskip("scipy.stats")
    k = round(share * n)
    theirs = stats.binomtest(k, n).proportion_ci(2 * stats.norm.cdf(z) - 1, method="wilson")
    assert wilson_interval(k, n, z) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_interval_by_hand():
    assert wilson_interval(0, 10) == pytest.approx((0, 1.96**2 / (10 + 1.96**2)))
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


@pytest.mark.parametrize(("p", "n"), [(0.5, 50), (0.91, 200), (0.99, 500)])
def test_wilson_interval_covers_the_truth_as_often_as_it_says(p, n):
    draws = torch.rand(20_000, n, generator=torch.Generator().manual_seed(0)) < p
    found = torch.bincount(draws.sum(1), minlength=n + 1)
    covered = sum(count for k, count in enumerate(found.tolist()) if count and wilson_interval(k, n)[0] <= p <= wilson_interval(k, n)[1])
    assert 0.93 < covered / 20_000 < 0.97


# -------------------------------------------------------------------------------------- non-sensitive rate


@given(rates, rates, rates)
def test_correction_inverts_the_judges_errors(nsr, e_normal, e_sensitive):
    assume(e_normal + e_sensitive < 0.99)
    observed = nsr * (1 - e_normal) + (1 - nsr) * e_sensitive
    assert corrected_nsr(observed, e_normal, e_sensitive) == pytest.approx(nsr, abs=1e-9)


@given(rates, rates, st.floats(0, 0.49), st.floats(0, 0.49))
def test_corrected_rate_is_a_rate_and_grows_with_the_observed_one(a, b, e_normal, e_sensitive):
    low, high = (corrected_nsr(x, e_normal, e_sensitive) for x in sorted((a, b)))
    assert 0 <= low <= high <= 1


def test_ideal_rate_by_hand():
    assert ideal_nsr(1 / 11, 0) == pytest.approx(10 / 11)
    assert ideal_nsr(0.2, 0.2) == 1
    assert ideal_nsr(0.2, 0.1) == pytest.approx(8 / 9)


# --------------------------------------------------------------------------------- quality and balance


def features(n: int, seed: int) -> torch.Tensor:
    """Random correlated rows, [n, 64]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 64, generator=generator) @ torch.randn(64, 64, generator=generator) / 8 + torch.randn(64, generator=generator)


@pytest.mark.parametrize(("n", "m"), [(300, 200), (1000, 90)])
def test_frechet_distance_is_the_closed_form(n, m):
    linalg = pytest.importorskip("scipy.linalg")
    a, b = features(n, 0).double(), features(m, 1).double()
    root = linalg.sqrtm((a.T.cov() @ b.T.cov()).numpy()).real
    exact = (a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * root.trace()
    assert frechet_distance(a.float(), b.float()) == pytest.approx(exact.item(), rel=1e-4)
    assert frechet_distance(b.float(), a.float()) == pytest.approx(exact.item(), rel=1e-4)


def test_frechet_distance_of_a_shift_is_its_square():
    a = features(500, 0)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 0.5) == pytest.approx(64 * 0.25, rel=1e-4)


def test_ratio_to_the_oracle_is_that_of_separate_distances_and_its_interval_that_of_their_bootstrap():
    ours, oracle, real = features(60, 0), features(60, 0) + 0.1, features(90, 1)
    assert evaluation.ratio_to_oracle(oracle, oracle, real, 5) == [1.0, 1.0, 1.0]
    ratio, generator, drawn = frechet_distance(ours, real) / frechet_distance(oracle, real), torch.Generator().manual_seed(0), []
    for _ in range(5):
        rows = torch.randint(60, (60,), generator=generator)
        drawn.append(frechet_distance(ours[rows], real) / frechet_distance(oracle[rows], real))
    low, high = (2 * ratio - torch.tensor(drawn).double().quantile(q).item() for q in (0.975, 0.025))
    assert evaluation.ratio_to_oracle(ours, oracle, real, 5) == pytest.approx([ratio, low, high], abs=6e-4) and low < high


def test_class_balance_at_its_extremes():
    balanced = torch.arange(10).repeat(7)
    assert class_balance(balanced, "even") == class_balance(balanced, "odd") == pytest.approx(0)
    assert class_balance(torch.tensor([4] * 9), "even") == pytest.approx(0.8)
    assert class_balance(torch.tensor([4] * 9 + [1] * 100), "even") == pytest.approx(0.8)  # sensitive ones do not count
    assert class_balance(torch.tensor([1, 3]), "even") == 1.0
    assert class_balance(torch.tensor([0, 2]), "even") == pytest.approx(0.6)


# ---------------------------------------------------------------------- reports by a judge that knows the truth


@pytest.mark.parametrize("normal", ["even", "odd"])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_report_counts_the_normal_images(normal, share):
    split = data.load_pu(normal)
    n_normal = round(200 * share)
    samples = torch.cat([split.heldout_normal[:n_normal], split.heldout_sensitive[: 200 - n_normal]])
    report = evaluate(samples, split, Oracle(normal))
    assert report.nsr == report.nsr_raw == share and report.n == 200
    assert (report.nsr_low, report.nsr_high) == pytest.approx(wilson_interval(n_normal, 200))


def test_report_takes_the_judges_errors_out(split):
    judge = Oracle("even", wrong_normal=0.1, wrong_sensitive=0.2)
    assert evaluation.judge_errors(judge, "even") == pytest.approx((0.1, 0.2))
    images, digits = data.learner_part()  # all of it, so that the errors are exactly the measured ones
    even = data.is_normal(digits, "even")
    report = evaluate(torch.cat([images[even], images[~even]]), split, judge)
    assert report.nsr_raw == pytest.approx(0.5 * 0.9 + 0.5 * 0.2) and report.nsr == pytest.approx(0.5)
    assert report.nsr_low < 0.5 < report.nsr_high
    assert report.nsr_high - report.nsr_low > 1.3 * (wilson_interval(1650, 3000)[1] - wilson_interval(1650, 3000)[0])


def test_report_tells_collapse_from_variety(split):
    judge = Oracle("even")
    varied = evaluate(split.oracle_normal[:500], split, judge)
    collapsed = evaluate(split.oracle_normal[:1].expand(500, -1, -1, -1), split, judge)
    assert varied.nsr == collapsed.nsr == 1  # which NSR cannot see
    assert varied.frechet < 0.2 * collapsed.frechet and varied.class_tv < 0.05 and collapsed.class_tv == pytest.approx(0.8)
    assert varied.frechet_floor == pytest.approx(
        frechet_distance(judge.features(split.oracle_normal), judge.features(split.heldout_normal))
    )


def test_report_as_a_row_of_the_results_table(split):
    row = evaluate(split.heldout_normal, split, Oracle("even")).row("even", "oracle", 3)
    needed = {"split", "arm", "nsr", "nsr_low", "nsr_high", "frechet", "frechet_floor", "class_tv", "n", "seeds"}
    assert needed <= row.keys() and (row["split"], row["arm"], row["seeds"], row["nsr"]) == ("even", "oracle", 3, 1.0)


@pytest.mark.parametrize("nsr", [0.909, 0.97, 0.99])
def test_interval_covers_the_truth_although_the_judges_errors_are_estimates_too(nsr):
    """Simulate samples and the measuring of a judge: the 95 % interval must hold the truth nearly that often."""
    generator, n, m, true_errors, runs = torch.Generator().manual_seed(0), 3000, 1500, (0.009, 0.005), 3000
    draw = lambda size, p: torch.binomial(torch.full((runs,), float(size)), torch.full((runs,), p), generator=generator).tolist()  # noqa: E731
    seen = draw(n, nsr * (1 - true_errors[0]) + (1 - nsr) * true_errors[1])
    errors = zip(draw(m, true_errors[0]), draw(m, true_errors[1]), strict=True)
    covered = 0
    for k, (wrong_normal, wrong_sensitive) in zip(seen, errors, strict=True):
        low, high = evaluation.nsr_interval(int(k), n, (wrong_normal / m, wrong_sensitive / m), m)
        covered += low <= nsr <= high
    assert 0.92 <= covered / runs <= 0.98


# ----------------------------------------------------------------------------------- the shipped judge


@pytest.fixture(scope="module")
def reading(judge):
    """What the judge sees in the 3,000 digits that it was not trained on."""
    images, digits = data.learner_part()
    return evaluation.read(judge, images), digits


@pytest.fixture
def errors_known(monkeypatch, reading):
    """The judge's errors, computed from `reading` instead of reading the 3,000 digits for each report."""

    def errors(judge, normal):
        seen, truth = (data.is_normal(d, normal) for d in (reading[0].digits, reading[1]))
        return (~seen[truth]).double().mean().item(), seen[~truth].double().mean().item()

    monkeypatch.setattr(evaluation, "judge_errors", errors)
    return errors


def test_judge_reads_unseen_digits_as_well_as_the_manifest_says(reading):
    seen, digits = reading
    accuracy = (seen.digits == digits).double().mean().item()
    assert accuracy >= 0.985
    assert accuracy == pytest.approx(data.manifest()["weights/judge.safetensors"]["metrics"]["accuracy_unseen_digits"], abs=0.001)
    assert seen.features.shape == (3000, evaluation.N_FEATURES)
    assert seen.confidence.min() >= 0.1 and seen.confidence.max() <= 1


def test_judge_gives_the_log_of_probabilities(judge):
    log_p = judge(data.learner_part()[0][:20])
    assert log_p.shape == (20, 10) and torch.allclose(log_p.exp().sum(1), torch.ones(20))


@pytest.mark.parametrize("normal", ["even", "odd"])
def test_judge_seldom_takes_one_kind_for_the_other(errors_known, normal):
    assert max(errors_known(None, normal)) < 0.01


def test_judge_reads_an_image_the_same_alone_and_in_company(judge, split):
    images = split.heldout_normal[:20]
    one, many = evaluation.read(judge, images, batch=1), evaluation.read(judge, images, batch=500)
    torch.testing.assert_close(one.features, many.features, rtol=1e-4, atol=1e-4)
    assert not judge.training and not any(p.requires_grad for p in judge.parameters())


def test_real_images_get_the_report_they_deserve(judge, split, errors_known):
    good, bad = evaluate(split.heldout_normal, split, judge), evaluate(split.heldout_sensitive[:300], split, judge)
    assert good.nsr > 0.99 and bad.nsr < 0.01
    assert good.frechet < 1e-3 < good.frechet_floor < 0.1 * bad.frechet  # the reference is the held-out images themselves
    assert good.class_tv < 0.02 and good.confident > 0.97


def test_rate_of_the_unlabeled_images_shows_their_prior(judge, split, errors_known):
    """Corrected for the judge's errors, the images of U read as 1 - prior normal."""
    normal = data.is_normal(evaluation.read(judge, split.unlabeled).digits, "even").double().mean().item()
    assert corrected_nsr(normal, *errors_known(judge, "even")) == pytest.approx(1 - split.prior, abs=0.005)


def test_noise_is_not_taken_for_good_digits(judge, split, errors_known):
    noise = torch.rand(200, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    report = evaluate(noise, split, judge)
    assert report.frechet > 10 * report.frechet_floor and math.isfinite(report.frechet)
