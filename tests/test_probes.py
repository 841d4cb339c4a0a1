"""Probes that start from an image: against exact worlds, whose models are perfect and whose flows are known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pulib import probes, toy
from pulib.diffusion import add_noise, ddim_sampler, linear_schedule, timesteps

SCHEDULE = linear_schedule(250, 1e-4, 0.08)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exact(mixture: toy.Mixture, schedule=SCHEDULE):
    return lambda xt, t: mixture.noise(xt, schedule.alpha_bar[t])


def small_ring(std: float = 0.1) -> toy.Mixture:
    """The ring world's U within [-1, 1], where a clipped estimate of x_0 stays as it is."""
    ring = toy.ring_world().unlabeled
    return toy.Mixture(ring.means * 0.4, ring.weights, std)


class Recorder:
    """A model of one color that keeps the levels at which it was called."""

    def __init__(self) -> None:
        self.levels = []

    def __call__(self, xt, t):
        self.levels.append(t.tolist())
        return 0.5 * xt


# ------------------------------------------------------------------------------------------------ inversion


@pytest.mark.parametrize("std", [0.3, 1.0])
def test_noise_of_a_gaussian_is_the_point_stretched(std):
    """The flow of one Gaussian keeps each point's distance in standard deviations."""
    world, x0 = toy.Mixture(torch.zeros(1, 2), torch.ones(1), std), std * randn(50, 2)
    a = SCHEDULE.alpha_bar[-1].item()
    noise = probes.invert(exact(world), x0, SCHEDULE, 250)
    torch.testing.assert_close(noise, x0 / std * math.sqrt(a * std**2 + 1 - a), rtol=0.03, atol=0.01)


def test_ddim_restores_what_was_inverted_with_many_steps():
    world = small_ring()
    x0, errors = world.sample(200, torch.Generator().manual_seed(0)), []
    for steps in (10, 50, 250):
        noise = probes.invert(exact(world), x0, SCHEDULE, steps)
        *_, last = ddim_sampler(exact(world), noise, SCHEDULE, steps, clip=False)
        errors.append((last.xt - x0).norm(dim=1).mean().item())
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2] and errors[2] < 0.1 * world.std * math.sqrt(2)
    assert noise.std().item() == pytest.approx(1, abs=0.05)  # of points of the world, it is noise


def test_the_first_step_starts_from_no_level():
    """Were the image taken for x_t of level 0, a round trip would denoise it once more than it was noised."""
    world, x0 = toy.Mixture(torch.zeros(1, 2), torch.ones(1), 0.05), 0.05 * randn(20, 2)
    schedule = linear_schedule(1000)
    *_, last = ddim_sampler(exact(world, schedule), probes.invert(exact(world, schedule), x0, schedule, 1000), schedule, 1000, clip=False)
    restored = (last.xt / x0).mean().item()
    lost = 1 - world.std**2 / (world.std**2 + 1e-4)  # by one more denoising
    assert 0.9 < restored < 1 and 1 - restored < 1.5 * lost  # both errors would make 2 lost and more


@given(st.integers(1, 250))
def test_inversion_walks_the_levels_of_ddim_upwards(steps):
    model = Recorder()
    noise = probes.invert(model, randn(3, 1, 2, 2), SCHEDULE, steps)
    up = timesteps(250, steps).flip(0).tolist()
    assert [t[0] for t in model.levels] == [0, *up[:-1]] and noise.shape == (3, 1, 2, 2)


# ------------------------------------------------------------------------------------------------ renoising


def test_under_little_noise_an_image_stays_as_it_is():
    world = small_ring()
    x0 = world.sample(100, torch.Generator().manual_seed(0))
    found = probes.renoised(exact(world), x0, 0, randn(100, 2, seed=1), SCHEDULE)
    assert (found - x0).norm(dim=1).mean() < 2 * math.sqrt(1 - SCHEDULE.alpha_bar[0].item())


def test_under_all_noise_the_model_draws_anew():
    world = small_ring()
    x0, noise = world.sample(100, torch.Generator().manual_seed(0)), randn(100, 2, seed=1)
    *_, last = ddim_sampler(exact(world), noise, SCHEDULE, 20)
    found = probes.renoised(exact(world), x0, 249, noise, SCHEDULE, 20)
    assert SCHEDULE.alpha_bar[-1] < 1e-3
    assert ((found - last.xt).norm(dim=1) < 0.1).double().mean() > 0.9  # but for those near the border between two modes
    assert (found - x0).norm(dim=1).mean() > 0.5


def test_the_deeper_an_image_is_hidden_the_more_it_changes():
    world = small_ring()
    x0 = world.sample(200, torch.Generator().manual_seed(0))
    far = [(probes.renoised(exact(world), x0, level, randn(200, 2, seed=1), SCHEDULE) - x0).norm(dim=1).mean().item() for level in (0, 40, 100, 249)]
    assert far == sorted(far) and far[-1] > 10 * far[0]


@given(st.integers(0, 249), st.integers(1, 250))
def test_renoising_visits_its_share_of_the_levels(level, steps):
    model, x0, noise = Recorder(), randn(2, 3), randn(2, 3, seed=1)
    probes.renoised(model, x0, level, noise, SCHEDULE, steps)
    levels = [t[0] for t in model.levels]
    assert levels[0] == level and levels == sorted(set(levels), reverse=True)
    assert len(levels) == max(1, round(steps * (level + 1) / 250))
    seen = []
    probes.renoised(lambda xt, t: seen.append(xt) or xt, x0, level, noise, SCHEDULE, steps)
    torch.testing.assert_close(seen[0], add_noise(x0, torch.full((2,), level), noise, SCHEDULE))


# ------------------------------------------------------------------------------------------------ inpainting


def test_pasting_puts_the_known_part_in_at_its_level():
    xt, known, noise, t = randn(3, 1, 4, 4), randn(3, 1, 4, 4, seed=1), randn(3, 1, 4, 4, seed=2), torch.tensor([0, 100, 249])
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2] = True
    found = probes.paste_known(xt, known, mask, t, noise, SCHEDULE)
    assert torch.equal(found[:, :, :2], add_noise(known, t, noise, SCHEDULE)[:, :, :2]) and torch.equal(found[:, :, 2:], xt[:, :, 2:])
    whole = torch.tensor(True)
    assert torch.equal(probes.paste_known(xt, known, whole, t, noise, SCHEDULE), add_noise(known, t, noise, SCHEDULE))
    assert torch.equal(probes.paste_known(xt, known, ~whole, t, noise, SCHEDULE), xt)


@given(st.integers(0, 1000), st.integers(1, 20))
def test_known_pixels_are_kept_and_nothing_else(seed, steps):
    generator = torch.Generator().manual_seed(seed)
    known, mask = torch.rand(2, 1, 4, 4, generator=generator) * 2 - 1, torch.rand(2, 1, 4, 4, generator=generator) < 0.5
    found = probes.inpaint(lambda xt, t: torch.tanh(xt), known, mask, SCHEDULE, steps, seed)
    assert torch.equal(found[mask], known[mask]) and (found[~mask] != known[~mask]).all()
    assert found.abs().max() <= 1
    assert torch.equal(found, probes.inpaint(lambda xt, t: torch.tanh(xt), known, mask, SCHEDULE, steps, seed))
    hidden = torch.where(mask, known, torch.zeros(()))  # the rest is not looked at
    assert torch.equal(found, probes.inpaint(lambda xt, t: torch.tanh(xt), hidden, mask, SCHEDULE, steps, seed))


@pytest.mark.parametrize("model", [exact(small_ring()), lambda xt, t: torch.tanh(2 * xt)], ids=["exact", "estimates that are clipped"])
def test_with_nothing_known_it_is_ddim_from_noise_and_with_all_known_a_copy(model):
    known = torch.zeros(50, 2)
    noise = torch.randn(50, 2, generator=torch.Generator().manual_seed(7))
    *_, last = ddim_sampler(model, noise, SCHEDULE, 20)
    torch.testing.assert_close(probes.inpaint(model, known, torch.tensor(False), SCHEDULE, 20, seed=7), last.xt)
    assert torch.equal(probes.inpaint(model, known, torch.tensor(True), SCHEDULE, 20), known)


def test_the_rest_fits_the_known_part():
    """Two modes on a diagonal: the first coordinate tells the second."""
    world = toy.Mixture(torch.tensor([[-0.7, -0.7], [0.7, 0.7]]), torch.tensor([0.5, 0.5]), 0.1)
    known = torch.tensor([[-0.7, 0.0], [0.7, 0.0]]).repeat(100, 1)
    found = probes.inpaint(exact(world), known, torch.tensor([True, False]), SCHEDULE)
    assert torch.equal(found[:, 0], known[:, 0])
    fits = (found[:, 1] - found[:, 0]).abs() < 0.4
    assert fits.double().mean() > 0.85  # a mode that was taken up early cannot be left any more
    assert 0.07 < (found[:, 1] - found[:, 0])[fits].std() < 0.2


# --------------------------------------------------------------------------------------------- between noises


@given(st.floats(0, 1), st.integers(0, 1000))
def test_the_way_between_noises_stays_on_the_sphere(share, seed):
    a, b = (randn(4, 1, 5, 5, seed=seed + i).flatten(1) for i in range(2))
    a, b = ((5 * x / x.norm(dim=1, keepdim=True)).view(4, 1, 5, 5) for x in (a, b))
    c = probes.between_noises(a, b, share)
    torch.testing.assert_close(c.flatten(1).norm(dim=1), torch.full((4,), 5.0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(probes.between_noises(b, a, 1 - share), c, rtol=1e-3, atol=1e-3)
    whole, part = ((x.flatten(1) * a.flatten(1)).sum(1).div(25).clamp(-1, 1).acos() for x in (b, c))
    torch.testing.assert_close(part, share * whole, rtol=0, atol=5e-3)  # at an even pace


@pytest.mark.parametrize("b", [randn(3, 2, seed=1), randn(3, 2), 1.0001 * randn(3, 2), -randn(3, 2), torch.zeros(3, 2)], ids=["other", "same", "near", "opposite", "zero"])
def test_the_way_starts_at_one_noise_and_ends_at_the_other(b):
    a = randn(3, 2)
    torch.testing.assert_close(probes.between_noises(a, b, 0), a)
    torch.testing.assert_close(probes.between_noises(a, b, 1), b, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(probes.between_noises(a, b, 0.5)).all()
