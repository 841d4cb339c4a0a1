"""Failures: laws against simulation, search and scipy; label sets and splits against what they promise; captions against their law."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from pulib import data, evaluation, failures, risk, toy
from pulib.diffusion import cosine_schedule, ddim_sampler, linear_schedule

rates = st.floats(0, 1)
priors = st.floats(0, 0.95)
losses = st.lists(st.floats(0.01, 500), min_size=1, max_size=20)
SPLIT = data.load_pu("even")
ODD = torch.tensor([1, 3, 5, 7, 9])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(mixture: toy.Mixture) -> toy.Mixture:
    """The mixture in double precision, of the same weights up to rounding."""
    return toy.Mixture(mixture.means.double(), mixture.weights.double() / mixture.weights.double().sum(), mixture.std)


def counts(digits: torch.Tensor) -> dict[int, int]:
    return {d: n for d, n in enumerate(torch.bincount(digits, minlength=10).tolist()) if n}


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


# ------------------------------------------------------------------------------------ the target's sign


@given(priors, priors)
def test_a_target_without_overlap_is_negative_by_what_b_has_above_the_prior(prior, assumed):
    world = toy.ring_world(prior, std=0.05)
    points = world.sensitive.sample(200, seeded())
    found = failures.negative_mass(world.unlabeled.log_density(points), world.sensitive.log_density(points), assumed)
    assert found == pytest.approx(max(0.0, assumed - prior), abs=1e-6)


@pytest.mark.parametrize("assumed", [0.2, 0.35, 0.7])
def test_negative_mass_is_the_integral_of_the_negative_part(assumed):
    world = toy.two_clouds(prior=0.3)
    ticks = torch.linspace(-7, 7, 500, dtype=torch.float64)
    grid = torch.cartesian_prod(ticks, ticks)
    integral = (-(1 - assumed) * world.signed_density(grid, assumed)).clamp(min=0).sum().item() * (ticks[1] - ticks[0]).item() ** 2
    points = world.sensitive.sample(100_000, seeded())
    found = failures.negative_mass(world.unlabeled.log_density(points), world.sensitive.log_density(points), assumed)
    assert found == pytest.approx(integral, abs=4 * assumed / 2 / math.sqrt(len(points)))
    assert 0 <= found <= assumed and (found == 0) == (assumed < 0.3)


def test_negative_mass_far_from_all_data_is_a_number():
    far = torch.tensor([-1e4, 0.0])
    assert failures.negative_mass(far, far.flip(0), 0.4) == pytest.approx(0.2)  # p_U is nothing at one point, everything at the other


@given(st.data())
def test_largest_prior_is_the_last_one_at_which_no_kind_has_a_negative_share(data):
    k = data.draw(st.integers(1, 6))
    parts = [torch.tensor(data.draw(st.lists(st.integers(0, 9), min_size=k, max_size=k)), dtype=torch.float64) for _ in range(2)]
    assume(all(part.sum() > 0 for part in parts))
    u, s = (part / part.sum() for part in parts)
    most = failures.largest_prior(u, s)
    candidates = torch.linspace(0, 1, 1001, dtype=torch.float64)
    possible = ((u - candidates[:, None] * s) >= -1e-9).all(1)
    assert 0 <= most <= 1 and most == pytest.approx(candidates[possible].max().item(), abs=1.01e-3)


@given(st.floats(0.01, 0.95))
def test_a_set_with_two_of_five_kinds_can_take_out_two_fifths_of_the_prior(prior):
    u = torch.cat([torch.full((5,), (1 - prior) / 5), torch.full((5,), prior / 5)])
    s = torch.tensor([0.0] * 5 + [0.5, 0.5, 0, 0, 0])
    assert failures.largest_prior(u, s) == pytest.approx(0.4 * prior, rel=1e-5)
    assert failures.largest_prior(u, torch.tensor([0.0] * 5 + [0.2] * 5)) == pytest.approx(prior, rel=1e-5)


# ------------------------------------------------------------------------------------ wrong labels in S


@given(priors, rates)
def test_with_a_clean_s_the_nsr_is_the_ideal_one(prior, fraction):
    assert failures.nsr_of_labels(prior, prior * fraction) == pytest.approx(evaluation.ideal_nsr(prior, prior * fraction))


@given(priors, priors, rates)
def test_a_contaminated_s_needs_a_larger_b(prior, contamination, fraction):
    most = prior / (1 - contamination)
    assume(most < 1 - contamination * most and most < 0.99)  # some normal images are left
    assert failures.nsr_of_labels(prior, most, contamination) == pytest.approx(1)
    assert failures.nsr_of_labels(prior, prior, contamination) <= 1
    nsr = failures.nsr_of_labels(prior, most * fraction, contamination)
    assert 1 - prior - 1e-9 <= nsr <= 1
    assume(contamination < 0.9)  # beyond, the next double may be above the limit by rounding alone
    with pytest.raises(ValueError, match="assumed must be"):
        failures.nsr_of_labels(prior, most + 0.005, contamination)


@pytest.mark.parametrize("contamination", [0.0, 0.3])
@pytest.mark.parametrize("assumed", [0.1, 0.2])
def test_what_is_left_of_u_has_the_nsr_of_its_labels(assumed, contamination):
    """Keep a point of U with probability 1 - b p_S' / p_U: what is kept has density (p_U - b p_S') / (1 - b)."""
    world, n = toy.ring_world(0.2), 40_000
    labeled = toy.mix(world.sensitive, world.normal, contamination)
    x = world.unlabeled.sample(n, seeded())
    r = toy.responsibility_of(labeled.log_density(x), world.unlabeled.log_density(x), assumed)
    kept = x[torch.rand(n, generator=seeded(1)) >= r]
    assert len(kept) / n == pytest.approx(1 - assumed, abs=4 * math.sqrt(assumed / n))
    found = 1 - world.is_sensitive(kept).double().mean().item()
    assert found == pytest.approx(failures.nsr_of_labels(0.2, assumed, contamination), abs=4 / math.sqrt(4 * len(kept)))


def test_contamination_can_make_the_normal_part_negative():
    assert failures.nsr_of_labels(0.5, 0.5, 0.9) == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"assumed must be in \[0, 0.5556\]"):
        failures.nsr_of_labels(0.5, 0.6, 0.9)


# ------------------------------------------------------------------------------------------- the filter


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.7])
def test_the_price_of_a_filter_is_what_drawn_labels_pay(threshold):
    n = 100_000
    r = torch.rand(n, generator=seeded()).double() ** 4  # most images look normal
    sensitive, dropped = torch.rand(n, generator=seeded(1)).double() < r, r >= threshold
    lost, left = failures.price_of_filter(r, threshold).tolist()
    assert lost == pytest.approx(dropped[~sensitive].double().mean().item(), abs=4 * math.sqrt(0.25 / n))
    assert left == pytest.approx(sensitive[~dropped].double().mean().item(), abs=4 * math.sqrt(0.25 / int((~dropped).sum())))


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50), st.floats(0, 1))
def test_a_filter_that_keeps_more_loses_less_and_leaves_more(values, threshold):
    r = torch.tensor(values)
    everything = failures.price_of_filter(r, 1.5).tolist()
    assert everything == pytest.approx([0, r.mean().item()])
    assume((r < threshold).any())
    lost, left = failures.price_of_filter(r, threshold).tolist()
    assert 0 <= lost <= 1 + 1e-6 and 0 <= left <= min(threshold, everything[1]) + 1e-6
    if (1 - r).sum() > 0:  # what was lost and what was kept are all normal images there are
        kept = (1 - left) * int((r < threshold).sum())
        assert lost + kept / (1 - r).sum().item() == pytest.approx(1, abs=1e-4)


# ------------------------------------------------------------------------------------------ the log term


@given(losses, st.floats(0.01, 1000), st.floats(0.05, 0.9))
def test_share_of_the_log_term_is_that_of_its_slope_in_the_risk(values, scale, prior):
    loss_u, slopes = torch.tensor([3.0], dtype=torch.float64), []
    for temperature in (1.0, None):
        loss_s = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(risk.pu_risk(loss_u / scale, loss_s / scale, prior, "none", temperature), loss_s)
        slopes.append(slope.sum().item())
    assert slopes[0] <= slopes[1] < 0  # both raise l on S
    assert failures.log_share(torch.tensor(values, dtype=torch.float64), scale) == pytest.approx(1 - slopes[1] / slopes[0], abs=1e-9)


def test_limits_of_the_log_terms_share():
    loss = torch.tensor([200.0, 400.0])
    assert failures.log_share(loss) < 1e-30  # l is a sum over pixels: the term is dead
    assert failures.log_share(loss, 1e-3) == 0
    assert failures.log_share(torch.tensor([1e-5, 1e-5])) == pytest.approx(1, abs=1e-4)
    assert failures.log_share(torch.tensor([0.0])) == 1
    assert failures.log_share(loss, 784) > 0.6  # a mean: it rules
    assert failures.log_share(loss, 1e9) == pytest.approx(1, abs=1e-6)


@given(losses, st.floats(0.01, 1000), st.floats(1, 10))
def test_the_log_terms_share_grows_with_the_scale_and_depends_on_the_quotient_alone(values, scale, factor):
    loss = torch.tensor(values, dtype=torch.float64)
    share = failures.log_share(loss, scale)
    assert 0 <= share <= 1 and failures.log_share(loss, scale * factor) >= share - 1e-12
    assert failures.log_share(loss * factor, scale * factor) == pytest.approx(share, rel=1e-9, abs=1e-12)
    if len(values) == 1:
        assert share == pytest.approx(math.exp(-values[0] / scale), rel=1e-9)  # p(normal): m = p / (1 - p)


# ------------------------------------------------------------------------------------------- statistics


@given(st.floats(-100, 100), st.floats(1e-3, 100))
def test_mean_of_abs_is_that_of_the_folded_normal_distribution(mean, sd):
    stats = pytest.importorskip("scipy.stats")
    found = failures.mean_of_abs(mean, sd)
    assert found == pytest.approx(stats.foldnorm(abs(mean) / sd, scale=sd).mean(), rel=1e-6)
    assert found >= abs(mean) - 1e-9 and found == pytest.approx(failures.mean_of_abs(-mean, sd))


def test_mean_of_abs_by_simulation_and_without_spread():
    v = 0.5 + 2 * torch.randn(200_000, generator=seeded(), dtype=torch.float64)
    assert failures.mean_of_abs(0.5, 2) == pytest.approx(v.abs().mean().item(), abs=4 * v.abs().std().item() / math.sqrt(len(v)))
    assert failures.mean_of_abs(-3, 0) == failures.mean_of_abs(-3, 1e-200) == 3
    assert failures.mean_of_abs(0, 1e-200) > 0


@given(st.integers(2, 40), st.integers(2, 40), st.floats(-5, 5), st.integers(0, 1000))
def test_memorisation_is_the_statistic_of_welch(n, m, shift, seed):
    stats = pytest.importorskip("scipy.stats")
    a, b = torch.randn(n, generator=seeded(seed)) + shift, 3 * torch.randn(m, generator=seeded(seed + 1))
    theirs = stats.ttest_ind(a.double().numpy(), b.double().numpy(), equal_var=False).statistic
    assert failures.memorisation(a, b) == pytest.approx(theirs, rel=1e-9, abs=1e-9)
    assert failures.memorisation(b, a) == pytest.approx(-theirs, rel=1e-9, abs=1e-9)


@given(rates, rates, st.floats(0.5, 5))
def test_drawings_needed_are_the_first_that_are_enough(p, q, z):
    assume(abs(p - q) > 1e-3)
    n = failures.drawings_needed(p, q, z)
    error = lambda n: math.sqrt((p * (1 - p) + q * (1 - q)) / n)  # noqa: E731
    assert n >= 1 and n == failures.drawings_needed(q, p, z)
    assert z * error(n) <= abs(p - q) * (1 + 1e-6)
    assert n == 1 or z * error(n - 1) > abs(p - q) * (1 - 1e-6)


def test_with_the_drawings_needed_half_of_all_repetitions_see_the_difference():
    p, q, repetitions = 0.91, 0.95, 20_000
    n = failures.drawings_needed(p, q)
    seen = [torch.binomial(torch.full((repetitions,), float(n)), torch.full((repetitions,), rate), generator=seeded(i)) / n for i, rate in enumerate((p, q))]
    spread = ((seen[0] * (1 - seen[0]) + seen[1] * (1 - seen[1])) / n).sqrt()
    assert ((seen[1] - seen[0]) > 1.96 * spread).double().mean().item() == pytest.approx(0.5, abs=0.03)


@given(st.integers(2, 10), st.integers(0, 1000))
def test_over_seeds_is_the_t_interval(n, seed):
    stats = pytest.importorskip("scipy.stats")
    a, b = torch.rand(2, n, generator=seeded(seed), dtype=torch.float64)
    for x, found in ((a, failures.over_seeds(a.tolist())), (a - b, failures.over_seeds(a.tolist(), b.tolist()))):
        low, high = stats.t.interval(0.95, n - 1, x.mean().item(), x.std().item() / math.sqrt(n))
        assert found == pytest.approx((x.mean().item(), low, high), rel=1e-3, abs=1e-3)
    assert failures.over_seeds(a, b) == failures.over_seeds(a.tolist(), b.tolist()) and failures.over_seeds(a, a) == (0, 0, 0)


def test_runs_of_a_room_are_found_by_their_setting(monkeypatch):
    table = [dict(room=r, setting=s, values={"nsr": [r, 0.5]}) for r, s in ((1, "PU"), (1, "oracle"), (10, "PU"))]
    monkeypatch.setattr(failures, "load_results", lambda name: {"07_failure_museum": table}[name])
    assert failures.museum(1) == {"PU": {"nsr": [1, 0.5]}, "oracle": {"nsr": [1, 0.5]}} and list(failures.museum(10)) == ["PU"]
    with pytest.raises(ValueError, match="room must be in 1 … 10; got 11"):
        failures.museum(11)


def test_students_table():
    stats = pytest.importorskip("scipy.stats")
    for n, t in failures.T_95.items():
        assert t == pytest.approx(stats.t.ppf(0.975, n - 1), abs=6e-4)


@given(priors, rates, rates)
def test_only_labels_under_the_caption_of_u_count(prior, same, fraction):
    most = prior / same if same > prior else 0.99
    b = most * fraction
    assert failures.nsr_of_captions(prior, b, same) == pytest.approx(evaluation.ideal_nsr(prior, min(b * same, prior)))
    assert failures.nsr_of_captions(prior, b, 0.0) == pytest.approx(1 - prior)
    if prior + 0.05 < same * 0.99:
        with pytest.raises(ValueError, match="assumed times same must be"):
            failures.nsr_of_captions(prior, 0.99, same)


# -------------------------------------------------------------------------------------- strokes and slant


def stroke(width: float, length: float, angle: float = 0.0, size: int = 60) -> torch.Tensor:
    """A bar [1, 1, size, size] with smooth edges, turned by an angle."""
    ticks = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    ink = ((width / 2 + 0.5 - across.abs()).clamp(0, 1) * (length / 2 + 0.5 - along.abs()).clamp(0, 1)) * 2 - 1
    return ink[None, None]


def sheared(slope: float, shift: float = 0.0, width: float = 3.0, height: int = 28) -> torch.Tensor:
    """A straight stroke [1, 1, h, h] that goes to the right by `slope` for each pixel upwards."""
    ticks = torch.arange(height) - (height - 1) / 2
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    ink = (width / 2 + 0.5 - (x - shift + slope * y).abs()).clamp(0, 1) * (y.abs() < height / 4)
    return (2 * ink - 1)[None, None]


@given(st.floats(2, 8), st.floats(20, 45), st.floats(0, math.pi))
def test_thickness_of_a_stroke_is_its_width_up_to_its_ends(width, length, angle):
    assert failures.thickness(stroke(width, length, angle)).item() == pytest.approx(width * length / (width + length), rel=0.12)


def test_thickness_of_digits():
    images = SPLIT.sensitive[:50]
    width = failures.thickness(images)
    assert ((width > 1) & (width < 6)).all()
    bolder = torch.nn.functional.max_pool2d(images, 3, 1, 1)
    assert (failures.thickness(bolder) > width + 0.5).all()
    ink = torch.nn.functional.pad(images, (8, 2, 0, 9), value=-1.0)
    torch.testing.assert_close(failures.thickness(ink), width)  # wherever it stands, also at the border
    torch.testing.assert_close(failures.thickness(images.flip(3)), width)  # and whichever way it leans
    assert failures.thickness(-torch.ones(2, 1, 5, 5)).tolist() == [0, 0]
    assert failures.thickness(torch.ones(1, 1, 40, 40)).item() == pytest.approx(20, rel=0.02)


@given(st.floats(-0.8, 0.8), st.floats(-3, 3))
def test_slant_of_a_sheared_stroke_is_its_shear(slope, shift):
    assert failures.slant(sheared(slope, shift)).item() == pytest.approx(slope, abs=0.02)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 1000))
def test_slant_does_not_depend_on_place_and_turns_with_a_mirror(right, down, row):
    image = SPLIT.unlabeled[row : row + 1]
    moved = torch.nn.functional.pad(image, (right, 3, down, 0), value=-1.0)
    assert failures.slant(moved).item() == pytest.approx(failures.slant(image).item(), abs=1e-4)
    assert failures.slant(image.flip(3)).item() == pytest.approx(-failures.slant(image).item(), abs=1e-4)


def test_digits_lean_to_the_right():
    assert failures.slant(SPLIT.unlabeled).mean() > 0.05 and failures.slant(-torch.ones(2, 1, 5, 5)).tolist() == [0, 0]


# ---------------------------------------------------------------------------------------- sets of labels


def check(split: data.PUSplit) -> data.PUSplit:
    """The same split, made anew by `make_split`, which refuses an S that meets U."""
    parts = ("unlabeled", "sensitive", "heldout_normal", "heldout_sensitive")
    assert not rows(split.sensitive) & rows(torch.cat([split.heldout_normal, split.heldout_sensitive]))
    again = data.make_split(split.normal, *(getattr(split, p) for p in parts), *(getattr(split.hidden, p) for p in parts))
    assert again.prior == split.prior
    return split


@pytest.mark.parametrize("kind", ["random", "digits 1, 3", "digits 7", "bold", "wrong 20 %", "wrong 12.5%", "wrong 0 %"])
def test_every_set_of_labels_belongs_to_the_same_u(kind):
    split = check(failures.labels(kind, 40))
    assert torch.equal(split.unlabeled, SPLIT.unlabeled) and torch.equal(split.hidden.unlabeled, SPLIT.hidden.unlabeled)
    assert split.prior == SPLIT.prior and len(split.sensitive) == 40
    images, digits = data.learner_part()
    told = {image.numpy().tobytes(): int(digit) for image, digit in zip(images, digits, strict=True)}
    assert [told[image.numpy().tobytes()] for image in split.sensitive] == split.hidden.sensitive.tolist()


def test_counts_of_the_sets_of_labels():
    seen = {(kind, n): counts(failures.labels(kind, n).hidden.sensitive) for kind in ("random", "bold") for n in (5, 12, 400)}
    for (kind, n), found in seen.items():
        assert found.keys() == {1, 3, 5, 7, 9} and sum(found.values()) == n and max(found.values()) - min(found.values()) <= 1, (kind, n)
    assert counts(failures.labels("digits 1, 3", 150).hidden.sensitive) == {1: 75, 3: 75}
    assert counts(failures.labels("digits 1,3,5,7,9", 10).hidden.sensitive) == dict.fromkeys([1, 3, 5, 7, 9], 2)


def test_fewer_random_labels_are_the_first_of_more():
    few, many = failures.labels("random", 20, seed=3), failures.labels("random", 100, seed=3)
    assert torch.equal(few.sensitive, many.sensitive[:20]) and torch.equal(few.heldout_sensitive, many.heldout_sensitive)
    assert not torch.equal(few.sensitive, failures.labels("random", 20).sensitive)


def test_bold_labels_are_the_boldest_of_each_digit():
    every, bold = failures.labels("random", failures.LABELS), failures.labels("bold", 50)
    for digit in ODD.tolist():
        width, mine = failures.thickness(every.sensitive[every.hidden.sensitive == digit]), bold.sensitive[bold.hidden.sensitive == digit]
        torch.testing.assert_close(failures.thickness(mine).sort().values, width.sort().values[-10:])


@pytest.mark.parametrize(("percent", "wrong"), [("20", 20), ("0.4", 0), ("12.5", 12), ("99", 99)])
def test_wrong_labels_are_normal_images_that_are_held_out_no_more(percent, wrong):
    split = failures.labels(f"wrong {percent} %", 100)
    assert (~torch.isin(split.hidden.sensitive, ODD)).sum() == wrong
    assert len(split.heldout_normal) == len(split.hidden.heldout_normal) == len(SPLIT.heldout_normal) - wrong
    assert rows(split.sensitive[100 - wrong :]) | rows(split.heldout_normal) == rows(SPLIT.heldout_normal)


@pytest.mark.parametrize("sensitive", [7, 1])
@pytest.mark.parametrize("normal", [0, 2])
def test_a_pair_of_digits(normal, sensitive):
    split = check(failures.pair(normal, sensitive))
    assert counts(split.hidden.unlabeled) == {normal: 150, sensitive: 50} and split.prior == 0.25
    assert counts(split.hidden.sensitive) == {sensitive: 100}
    assert counts(split.hidden.heldout_normal) == {normal: 150} and counts(split.hidden.heldout_sensitive) == {sensitive: 150}
    assert split.unlabeled_is_sensitive[:50].any() and split.unlabeled_is_sensitive[-50:].any()  # in random order
    assert torch.equal(split.unlabeled, failures.pair(normal, sensitive).unlabeled)
    images, digits = data.learner_part()
    told = {image.numpy().tobytes(): int(digit) for image, digit in zip(images, digits, strict=True)}
    assert [told[image.numpy().tobytes()] for image in split.unlabeled] == split.hidden.unlabeled.tolist()


def test_a_pair_without_hidden_images_has_prior_0():
    assert failures.pair(2, 7, n_hidden=0).prior == 0


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_a_split_by_slant(share):
    split, limit = failures.slanted(share)
    check(split)
    n = len(SPLIT.oracle_normal)
    assert (failures.slant(SPLIT.oracle_normal) > limit).sum() == round(share * n)
    assert (failures.slant(split.sensitive) > limit).all() and len(split.sensitive) == -(-round(share * n) // 2)
    for part in ("unlabeled", "heldout_normal", "heldout_sensitive"):
        assert torch.equal((failures.slant(getattr(split, part)) > limit).long(), getattr(split.hidden, part))
    assert split.prior == pytest.approx(share / 2 / (1 - share / 2), abs=1e-3)
    assert rows(split.unlabeled) | rows(split.sensitive) == rows(SPLIT.oracle_normal)
    assert rows(split.heldout_normal) | rows(split.heldout_sensitive) == rows(SPLIT.heldout_normal)


def test_the_judge_of_slant_makes_no_errors():
    split, limit = failures.slanted()
    judge = failures.SlantJudge(evaluation.load_judge(), limit)
    assert evaluation.ruler(judge, split).errors == (0.0, 0.0)
    assert torch.equal(judge.features(split.sensitive[:9]), judge.judge.features(split.sensitive[:9]))
    images = torch.cat([SPLIT.sensitive[:60], split.unlabeled[:60], split.sensitive[:20]])
    found = evaluation.evaluate(images, split, judge)
    upright = (failures.slant(images) <= limit).double().mean().item()
    assert found.nsr == found.nsr_raw == upright and 0 < upright < 1 and found.confident == 1
    assert found.nsr_low < upright < found.nsr_high and found.class_tv == 0


def test_ratios_over_seeds_are_those_of_logs_and_turn_round():
    a, b = [2.0, 3.0, 8.0], [1.0, 2.0, 2.0]
    value, low, high = failures.ratio_over_seeds(a, b)
    assert value == pytest.approx((2 * 1.5 * 4) ** (1 / 3)) and 0 < low < value < high
    assert failures.ratio_over_seeds(b, a) == pytest.approx((1 / value, 1 / high, 1 / low))
    with pytest.raises(ValueError, match="must be > 0"):
        failures.ratio_over_seeds([1.0, 0.0], [1.0, 1.0])


# ------------------------------------------------------------------------------------------ worthless models


@pytest.mark.parametrize("name", failures.GARBAGE)
def test_garbage_passes_for_normal_but_not_for_digits(name):
    judge, real = evaluation.load_judge(), SPLIT.heldout_normal
    images = failures.GARBAGE[name](real, 60)
    assert images.shape == (60, 1, 28, 28) and images.min() >= -1 and images.max() <= 1
    seen, reference = evaluation.read(judge, images), evaluation.read(judge, real[:125]).features
    assert data.is_normal(seen.digits, "even").double().mean() > 0.95
    fair = evaluation.frechet_distance(evaluation.read(judge, real[125:185]).features, reference)
    assert (evaluation.frechet_distance(seen.features, reference) > 4 * fair) == ("copied" not in name)
    assert torch.equal(images, failures.GARBAGE[name](real, 60)) and not torch.equal(images, failures.GARBAGE[name](real, 60, seed=1))


def test_how_garbage_is_made():
    real = torch.rand(7, 1, 4, 4, generator=seeded()) * 2 - 1
    same, gray, both, copies = (make(real, 50) for make in failures.GARBAGE.values())
    assert 3 < len(rows(copies)) <= 7 and rows(copies) <= rows(real)
    assert len(rows(same)) == 1 and rows(same) <= rows(real)
    assert gray.min() >= -0.5 and gray.max() <= 0.5
    pairs = {torch.maximum(a, b).numpy().tobytes() for a in real for b in real}
    assert rows(both) <= pairs and len(rows(both)) > 7


def test_copies_are_noticed_and_new_images_are_not():
    training, heldout = SPLIT.oracle_normal, SPLIT.heldout_normal
    assert failures.copied(failures.few_copies(training, 40), training, heldout) == 1
    assert failures.copied(heldout, training, heldout) < 0.02
    assert failures.copied(training[:30] * 0.999, training, heldout) == 1  # nearly the same
    with pytest.raises(ValueError, match="images must hold"):
        failures.copied(torch.zeros(2, 1, 4, 4), training, heldout)


# ---------------------------------------------------------------------------------------------- batches


def test_batches_from_a_table_have_the_mean_and_spread_of_the_inner_term():
    table_u, table_s = torch.rand(20, 30, generator=seeded()).double() + 1, 5 * torch.rand(20, 9, generator=seeded(1)).double()
    exact, (n_u, n_s), n = table_u.mean() - 0.2 * table_s.mean(), (12, 3), 20_000
    spread = (table_u.var(correction=0) / n_u + 0.04 * table_s.var(correction=0) / n_s).sqrt().item()
    v = failures.inner_terms(table_u, table_s, 0.2, n_u, n_s, n)
    assert v.shape == (n,) and v.mean().item() == pytest.approx(exact.item(), abs=4 * spread / math.sqrt(n))
    assert v.std().item() == pytest.approx(spread, rel=0.03)
    assert torch.equal(v, failures.inner_terms(table_u, table_s, 0.2, n_u, n_s, n))
    deck = failures.inner_terms(table_u, table_s, 0.2, n_u, n_s, n, share_s=0.2)
    assert deck.std() > v.std()  # how many images of S there are varies, too


def test_stratified_levels_take_out_the_spread_between_levels():
    levels = torch.arange(16.0)[:, None].expand(16, 5)
    v = failures.inner_terms(levels, levels, 0.5, 16, 8, 200, stratified=True)
    assert v.std() < 0.2 and v.mean().item() == pytest.approx(0.5 * 7.5, abs=0.1)
    assert failures.inner_terms(levels, levels, 0.5, 16, 8, 200).std() > 1


def test_a_shared_deck_may_deal_no_image_of_s():
    u, s = torch.full((4, 3), 2.0), torch.full((4, 3), 10.0)
    v = failures.inner_terms(u, s, 0.5, 3, 1, 2000, share_s=0.25)
    assert set(v.tolist()) == {2.0, -3.0, -5.0}  # without S, with both, and S alone
    assert (v == 2).double().mean().item() == pytest.approx(0.75**4, abs=0.05)


# --------------------------------------------------------------------------------------------- exact worlds


@given(priors, rates, st.integers(0, 999))
def test_taking_out_s_is_the_exact_model_of_the_world(prior, fraction, level):
    base, schedule = toy.ring_world(prior, std=0.3), linear_schedule()
    world = toy.World(double(base.normal), double(base.sensitive), prior)
    assumed = prior * fraction
    x0 = world.unlabeled.sample(200, seeded()).double()
    t = torch.full((200,), level)
    a = schedule.alpha_bar[level].double()
    xt = a.sqrt() * x0 + (1 - a).sqrt() * torch.randn(200, 2, generator=seeded(1)).double()
    found, exact = (make(xt, t) for make in (failures.subtracted(world.unlabeled, world.sensitive, assumed, schedule), world.model(schedule, assumed)))
    below = world.responsibility(xt, a, assumed) < 0.999
    assert below.any() and torch.isfinite(found).all()
    torch.testing.assert_close(found[below], exact[below], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("contamination", [0.0, 0.3])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_drawings_have_the_nsr_of_their_labels(fraction, contamination):
    world, schedule, n = toy.ring_world(0.2), linear_schedule(), 4000
    assumed = fraction * 0.2 / (1 - contamination)
    model = failures.subtracted(world.unlabeled, toy.mix(world.sensitive, world.normal, contamination), assumed, schedule)
    *_, last = ddim_sampler(model, torch.randn(n, 2, generator=seeded()), schedule, 50, clip=False)
    expected = failures.nsr_of_labels(0.2, assumed, contamination)
    found = 1 - world.is_sensitive(last.xt).double().mean().item()
    assert found == pytest.approx(expected, abs=max(4 * math.sqrt(expected * (1 - expected) / n), 0.003))


def test_a_set_with_one_of_two_kinds_takes_out_that_kind_alone():
    world, schedule, n = toy.ring_world(0.4), linear_schedule(), 4000
    labeled = toy.Mixture(world.sensitive.means[:1], torch.ones(1), world.sensitive.std)
    means = torch.cat([world.normal.means, world.sensitive.means])
    shares_u = torch.tensor([0.1] * 6 + [0.2] * 2)
    b = failures.largest_prior(shares_u, torch.tensor([0.0] * 6 + [1.0, 0.0]))
    assert b == pytest.approx(0.2)
    *_, last = ddim_sampler(failures.subtracted(world.unlabeled, labeled, b, schedule), torch.randn(n, 2, generator=seeded()), schedule, 50, clip=False)
    found = failures.shares_of(last.xt, means)
    torch.testing.assert_close(found, torch.tensor([0.125] * 6 + [0.0, 0.25]), rtol=0, atol=4 * 0.43 / math.sqrt(n))


def test_shares_count_the_nearest_means():
    means = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = torch.tensor([[1.0, 1.0], [9.0, 2.0], [4.0, 0.0], [-3.0, -3.0]])
    assert failures.shares_of(points, means).tolist() == [0.75, 0.25, 0.0]


# -------------------------------------------------------------------------------------------------- captions

SCHEDULE = cosine_schedule(50)
WORLD = toy.ring_world(0.4, std=0.2)


def learned(similarity: float, assumed: float, steps: int = 300, seed: int = 0) -> float:
    """NSR under the caption of U after a short training."""
    captions = failures.Captions(similarity)
    *_, net = failures.train_captioned(WORLD, captions, SCHEDULE, assumed, steps, seed, batch=128)
    return 1 - WORLD.is_sensitive(failures.draw_captioned(net, captions.of_u, 1000, SCHEDULE)).double().mean().item()


@given(st.floats(-1, 1))
def test_captions_are_unit_vectors_of_the_stated_cosine(similarity):
    captions = failures.Captions(similarity)
    assert captions.of_u.norm().item() == pytest.approx(1) and captions.of_s.norm().item() == pytest.approx(1, abs=1e-6)
    assert (captions.of_u @ captions.of_s).item() == pytest.approx(similarity, abs=1e-6)


def test_one_caption_for_both_takes_sensitive_points_out_and_two_do_not():
    kept_apart, nothing = learned(0.0, WORLD.prior), learned(1.0, 0.0)
    assert nothing == pytest.approx(failures.nsr_of_captions(0.4, 0.0, 1.0), abs=0.12)
    assert kept_apart == pytest.approx(failures.nsr_of_captions(0.4, 0.4, 0.0), abs=0.12)
    assert learned(1.0, WORLD.prior) > max(kept_apart, nothing) + 0.15


def test_training_with_captions_is_the_same_for_the_same_seed():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(99 + torch.randint(1000, (1,)).item())  # whatever came before
        *_, net = failures.train_captioned(WORLD, failures.Captions(0.9), SCHEDULE, 0.4, 3, seed, batch=16)
        return torch.cat([p.flatten() for p in net.parameters()])

    assert torch.equal(weights(0), weights(0)) and not torch.equal(weights(0), weights(1))
    before = torch.get_rng_state()
    nets = list(failures.train_captioned(WORLD, failures.Captions(0.9), SCHEDULE, 0.4, 3, batch=16))
    assert len(nets) == 3 and torch.equal(torch.get_rng_state(), before)
    caption = torch.tensor([1.0, 0.0])
    few, many = (failures.draw_captioned(nets[-1], caption, n, SCHEDULE, seed=5) for n in (3, 8))
    torch.testing.assert_close(few, many[:3])


def test_losses_on_s_count_up_to_the_cap():
    """Under the caption of S alone nothing bounds them from below: the cap does, and l of a guess of 0 is 2."""
    captions = failures.Captions(0.0)
    *_, net = failures.train_captioned(WORLD, captions, SCHEDULE, 0.9, 200, batch=128)
    x0, t = WORLD.sensitive.sample(2000, seeded()), torch.randint(50, (2000,), generator=seeded(1))
    a, noise = SCHEDULE.alpha_bar[t][:, None], torch.randn(2000, 2, generator=seeded(2))
    with torch.no_grad():
        xt = a.sqrt() * x0 + (1 - a).sqrt() * noise
        losses = [(noise - net(xt, t, caption.expand(2000, 2))).square().sum(1).clamp(max=failures.CAP).mean().item() for caption in (captions.of_u, captions.of_s)]
    assert losses[0] < 2 < failures.CAP / 2 < losses[1]
    assert noise.square().sum(1).mean().item() == pytest.approx(2, abs=0.2)
