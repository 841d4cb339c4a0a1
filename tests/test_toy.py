"""Exact worlds: closed forms against autograd, against simulation, and against what training reaches."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pulib import toy, training
from pulib.diffusion import NoisePredictor, add_noise, cosine_schedule, ddim_sampler, denoising_loss, linear_schedule
from pulib.evaluation import ideal_nsr
from pulib.risk import normal_part, pu_risk, unsupervised_risk

levels = st.floats(0.001, 0.999)
priors = st.floats(0, 0.95)


def float64_world(prior: float, std: float = 0.3) -> toy.World:
    """A ring world in double precision, for identities."""
    world = toy.ring_world(prior, std)
    parts = (toy.Mixture(m.means.double(), torch.full((len(m.means),), 1 / len(m.means)).double(), m.std) for m in (world.normal, world.sensitive))
    return toy.World(*parts, prior)


def noised(x0: torch.Tensor, schedule, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(xt, t, noise) of points at random levels."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.randint(0, len(schedule), (len(x0),), generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    return add_noise(x0, t, noise, schedule), t, noise


class MLP(nn.Module):
    """A small network of point and time."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        sizes = [10, width, width, width]
        layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.body = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, xt, t):
        waves = [f(k * t[:, None] / 100) for k in (1, 2, 4) for f in (torch.sin, torch.cos)]
        return self.body(torch.cat([xt, xt**2, *waves], 1))


# ---------------------------------------------------------------------------------------- closed forms


@given(levels, priors)
def test_exact_noise_is_the_score_by_autograd(alpha_bar, prior):
    mixture = float64_world(prior).unlabeled
    xt = (2 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))).double().requires_grad_(True)
    (score,) = torch.autograd.grad(mixture.log_density(xt, alpha_bar).sum(), xt)
    torch.testing.assert_close(mixture.noise(xt.detach(), alpha_bar), -math.sqrt(1 - alpha_bar) * score, rtol=1e-8, atol=1e-8)


@given(levels, priors)
def test_minimiser_of_the_pu_risk_is_the_noise_of_the_normal_part(alpha_bar, prior):
    world = float64_world(prior)
    x0 = world.unlabeled.sample(500, torch.Generator().manual_seed(0)).double()
    xt = math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    usable = world.responsibility(xt, alpha_bar) < 0.99
    found, exact = world.noise_normal(xt, alpha_bar), world.normal.noise(xt, alpha_bar)
    assert usable.any()
    torch.testing.assert_close(found[usable], exact[usable], rtol=1e-8, atol=1e-8)


@given(levels, st.floats(0.01, 0.95))
def test_responsibility_is_bayes_rule(alpha_bar, prior):
    """And far from all data, where both densities round to 0, it is still a number."""
    world = float64_world(prior)
    near, far = 2 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([[0.0, 90.0]]).double()
    p_s, p_n = (m.log_density(near, alpha_bar).exp() for m in (world.sensitive, world.normal))
    torch.testing.assert_close(world.responsibility(near, alpha_bar), prior * p_s / (prior * p_s + (1 - prior) * p_n), rtol=1e-8, atol=1e-12)
    r = toy.responsibility_of(world.sensitive.log_density(far), world.unlabeled.log_density(far), prior)
    assert world.unlabeled.log_density(far).exp() == 0 and 0 <= r <= 1 + 1e-9


@given(priors, st.floats(0, 1))
def test_target_is_the_density_that_is_left_after_taking_out_the_assumed_share(prior, fraction):
    world, x = float64_world(prior), 2 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).double()
    assumed = prior * fraction
    torch.testing.assert_close(world.target(assumed).log_density(x).exp(), world.signed_density(x, assumed), rtol=1e-8, atol=1e-12)


def test_density_turns_negative_only_above_the_prior():
    world = float64_world(0.2)
    x = world.unlabeled.sample(2000, torch.Generator().manual_seed(0)).double()
    assert world.signed_density(x, 0.2).min() >= -1e-12
    assert world.signed_density(x, 0.25).min() < -0.01


@pytest.mark.parametrize("alpha_bar", [1.0, 0.5, 0.01])
def test_density_integrates_to_one(alpha_bar):
    ticks = torch.linspace(-6, 6, 400, dtype=torch.float64)
    grid = torch.cartesian_prod(ticks, ticks)
    total = toy.ring_world(std=0.2).unlabeled.log_density(grid, alpha_bar).exp().sum() * (ticks[1] - ticks[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-6)


@given(st.integers(20, 500), priors, st.integers(0, 1000))
def test_drawn_points_carry_the_stated_share_and_the_truth(n, prior, seed):
    world = toy.ring_world(prior)
    unlabeled, sensitive, truth = toy.draw_pu(world, n, 20, seed)
    assert truth.sum() == round(prior * n) and len(unlabeled) == len(truth) == n
    assert torch.equal(world.is_sensitive(unlabeled), truth)  # modes are nine standard deviations apart
    assert world.is_sensitive(sensitive).all() and len(sensitive) == 20
    assert torch.equal(unlabeled, toy.draw_pu(world, n, 20, seed)[0])


# ------------------------------------------------------------------------------------------- simulation


@pytest.mark.parametrize("assumed", [0.0, 0.1, 0.2])
def test_exact_sampling_meets_the_ideal_rate(assumed):
    world, schedule, n = toy.ring_world(prior=0.2), linear_schedule(), 20_000
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    *_, last = ddim_sampler(world.model(schedule, assumed), noise, schedule, steps=50, clip=False)
    ideal = ideal_nsr(0.2, assumed)
    standard_error = max(math.sqrt(ideal * (1 - ideal) / n), 1 / n)
    assert (~world.is_sensitive(last.xt)).double().mean().item() == pytest.approx(ideal, abs=4 * standard_error)
    # and the points lie on the modes as they should: radius and spread
    distance = torch.cdist(last.xt, world.unlabeled.means).amin(1)
    assert distance.square().mean().div(2).sqrt().item() == pytest.approx(0.12, rel=0.15)


@pytest.mark.parametrize("change", ["shift", "scale", "normal only"])
def test_any_other_denoiser_loses_by_its_squared_distance(change):
    """E|noise - f|^2 = E|noise - exact|^2 + E|f - exact|^2 holds for every f if and only if `exact` is E[noise | x_t]."""
    world, schedule, n = toy.ring_world(0.3, std=0.3), cosine_schedule(100), 40_000
    mixture = world.unlabeled
    x0 = mixture.sample(n, torch.Generator().manual_seed(0))
    xt, t, noise = noised(x0, schedule)
    others = {
        "shift": lambda xt, t: mixture.noise(xt, schedule.alpha_bar[t]) + 0.3,
        "scale": lambda xt, t: 1.3 * mixture.noise(xt, schedule.alpha_bar[t]),
        "normal only": lambda xt, t: world.normal.noise(xt, schedule.alpha_bar[t]),
    }
    other, exact = others[change], lambda xt, t: mixture.noise(xt, schedule.alpha_bar[t])
    lost = denoising_loss(other, x0, t, noise, schedule) - denoising_loss(exact, x0, t, noise, schedule)
    excess = (lost - (other(xt, t) - exact(xt, t)).square().sum(1)).double()
    assert lost.mean() > 0
    assert excess.mean().abs() < 4 * excess.std() / math.sqrt(n)


@pytest.mark.parametrize("prior", [0.1, 0.4])
@pytest.mark.parametrize("seed", [0, 1])
def test_losses_on_u_and_s_give_the_normal_risk_for_any_model(prior, seed):
    world, schedule, n = toy.ring_world(prior, std=0.3), cosine_schedule(100), 40_000
    torch.manual_seed(seed)
    model = NoisePredictor(MLP(16), schedule, "eps")

    @torch.no_grad()
    def losses(x0: torch.Tensor, seed: int) -> torch.Tensor:
        _, t, noise = noised(x0, schedule, seed)
        return denoising_loss(model, x0, t, noise, schedule).double()

    unlabeled, sensitive, _ = toy.draw_pu(world, n, n, seed)
    l_u, l_s, l_n = losses(unlabeled, 1), losses(sensitive, 2), losses(world.normal.sample(n, torch.Generator().manual_seed(9)), 3)
    difference = normal_part(l_u, l_s, prior) - (1 - prior) * l_n.mean()
    variance = (l_u.var() + prior**2 * l_s.var() + (1 - prior) ** 2 * l_n.var()) / n
    assert difference.abs() < 4 * variance.sqrt()
    assert (l_u.mean() - (1 - prior) * l_n.mean()).abs() > 10 * variance.sqrt()  # the subtraction is needed


# --------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def trained():
    """A network trained on U alone, and the same network tuned with the PU risk."""
    world, schedule = toy.ring_world(0.3, std=0.3), cosine_schedule(100)
    unlabeled, sensitive, _ = toy.draw_pu(world, 20_000, 5_000)
    torch.manual_seed(0)
    start = NoisePredictor(MLP(), schedule, "eps")
    settings = training.Settings(400, 512, 256, lr=5e-3, ema=0.99, precision="no")
    *_, last = training.fit(start, unlabeled, unsupervised_risk, settings)
    *_, tuned = training.fit(last.model, unlabeled, lambda u, s: pu_risk(u, s, 0.3, "abs", None), settings, sensitive)
    fresh, _, _ = toy.draw_pu(world, 4_000, 1, seed=5)
    xt, t, _ = noised(fresh, schedule, seed=5)
    return world, start, last.model, tuned.model, xt, t, schedule.alpha_bar[t]


@torch.no_grad()
def error(model, xt, t, exact, where=slice(None)) -> float:
    return (model(xt, t) - exact)[where].square().sum(1).mean().item()


def test_training_reaches_the_exact_denoiser(trained):
    world, start, unsupervised, _, xt, t, alpha_bar = trained
    exact = world.unlabeled.noise(xt, alpha_bar)
    assert error(unsupervised, xt, t, exact) < 0.05 * error(start, xt, t, exact)


def test_pu_training_moves_from_the_unlabeled_to_the_normal_denoiser(trained):
    world, _, unsupervised, tuned, xt, t, alpha_bar = trained
    exact_n, exact_u = world.noise_normal(xt, alpha_bar), world.unlabeled.noise(xt, alpha_bar)
    seen = world.responsibility(xt, alpha_bar) < 0.9  # beyond, p_N is too small to be learned
    assert error(tuned, xt, t, exact_n, seen) < 0.3 * error(unsupervised, xt, t, exact_n, seen)
    assert error(tuned, xt, t, exact_n, seen) < 0.3 * error(tuned, xt, t, exact_u, seen)
