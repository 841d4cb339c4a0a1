"""Schedules, loss and samplers against closed forms and against diffusers, the reference implementation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pulib import diffusion
from pulib.diffusion import (
    NoisePredictor,
    Schedule,
    add_noise,
    cosine_schedule,
    ddim_sampler,
    ddpm_sampler,
    denoising_loss,
    linear_schedule,
)

SCHEDULES = {"linear": linear_schedule, "squaredcos_cap_v2": cosine_schedule}  # by diffusers' names
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}
both_schedules = pytest.mark.parametrize("name", SCHEDULES)
both_predictions = pytest.mark.parametrize("prediction", PREDICTIONS)


class TinyNet(nn.Module):
    """A fixed random network of image and time."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner, self.outer = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, xt, t):
        return self.outer(torch.tanh(self.inner(xt) + t.view(-1, 1, 1, 1) / 500))


def reference(kind: str, name: str, T: int = 1000, prediction: str = "eps", clip_sample: bool = True):
    """The diffusers scheduler with the settings that ours has built in."""
    diffusers = pytest.importorskip("diffusers")
    options = {"DDPM": {"variance_type": "fixed_small"}, "DDIM": {"set_alpha_to_one": True}}[kind]
    return getattr(diffusers, f"{kind}Scheduler")(
        T, 1e-4, 0.02, name, clip_sample=clip_sample, timestep_spacing="trailing", prediction_type=PREDICTIONS[prediction], **options
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed))


# ------------------------------------------------------------------------------- schedules and noising


@both_schedules
@pytest.mark.parametrize("T", [2, 50, 1000])
def test_schedule_agrees_with_diffusers(name, T):
    ours, theirs = SCHEDULES[name](T), reference("DDPM", name, T)
    torch.testing.assert_close(ours.beta, theirs.betas, rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.alpha_bar, theirs.alphas_cumprod, rtol=1e-4, atol=0)


@both_schedules
def test_schedule_goes_from_almost_clean_to_almost_pure_noise(name):
    schedule = SCHEDULES[name]()
    assert len(schedule) == 1000
    assert (schedule.alpha_bar.diff() < 0).all()
    assert schedule.alpha_bar[0] > 0.999 and 0 < schedule.alpha_bar[-1] < 1e-4


@both_schedules
@pytest.mark.parametrize("t", [0, 500, 999])
def test_noised_data_has_mean_and_variance_of_equation_1(name, t):
    schedule, n = SCHEDULES[name](), 100_000
    x0, noise = 3 + 2 * randn(n, seed=1), randn(n, seed=2)
    xt = add_noise(x0, torch.full((n,), t), noise, schedule)
    alpha_bar = schedule.alpha_bar[t].item()
    variance = 4 * alpha_bar + 1 - alpha_bar
    assert xt.mean().item() == pytest.approx(3 * alpha_bar**0.5, abs=4 * (variance / n) ** 0.5)
    assert xt.var().item() == pytest.approx(variance, rel=4 * (2 / n) ** 0.5)


@both_schedules
def test_add_noise_treats_each_image_at_its_own_level(name):
    x0, noise, t = randn(3, 1, 4, 4, seed=1), randn(3, 1, 4, 4, seed=2), torch.tensor([0, 400, 999])
    found = add_noise(x0, t, noise, SCHEDULES[name]())
    torch.testing.assert_close(found, reference("DDPM", name).add_noise(x0, noise, t), rtol=1e-5, atol=1e-5)


def test_alpha_bar_is_the_running_product_of_what_each_step_leaves():
    torch.testing.assert_close(diffusion.alpha_bar_of(torch.tensor([0.1, 0.2, 0.5])), torch.tensor([0.9, 0.72, 0.36]))


# --------------------------------------------------------------------------------- predictions and loss


@both_schedules
@pytest.mark.parametrize("t", [0, 10, 500, 999])
def test_velocity_reads_back_as_the_noise_and_the_image(name, t):
    schedule, x0, noise = SCHEDULES[name](), randn(2, 1, 4, 4, seed=1), randn(2, 1, 4, 4, seed=2)
    t = torch.full((2,), t)
    xt, v = add_noise(x0, t, noise, schedule), reference("DDPM", name).get_velocity(x0, noise, t)
    eps_hat = diffusion.noise_of_v(v, xt, t, schedule)
    torch.testing.assert_close(eps_hat, noise, rtol=1e-4, atol=1e-5)
    signal = schedule.alpha_bar[t[0]].sqrt().item()
    torch.testing.assert_close(diffusion.estimate_x0(xt, eps_hat, t, schedule, clip=False), x0, rtol=0, atol=1e-6 / signal)


@both_schedules
@both_predictions
def test_loss_agrees_with_diffusers(name, prediction):
    """The reference adds noise, predicts x_0 by its own DDPM step and solves equation (1) for the noise."""
    scheduler = reference("DDPM", name, prediction=prediction, clip_sample=False)
    net, x0, noise = TinyNet(), randn(6, 1, 8, 8, seed=1), randn(6, 1, 8, 8, seed=2)
    t = torch.tensor([20, 100, 300, 500, 700, 900])
    xt = scheduler.add_noise(x0, noise, t)
    expected = []
    for i in range(6):
        x0_hat = scheduler.step(net(xt[i : i + 1], t[i : i + 1]), t[i].item(), xt[i : i + 1]).pred_original_sample
        alpha_bar = scheduler.alphas_cumprod[t[i]]
        eps_hat = (xt[i : i + 1] - alpha_bar.sqrt() * x0_hat) / (1 - alpha_bar).sqrt()
        expected.append(nn.functional.mse_loss(eps_hat, noise[i : i + 1]) * 64)
    schedule = SCHEDULES[name]()
    found = denoising_loss(NoisePredictor(net, schedule, prediction), x0, t, noise, schedule)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=0)


def test_loss_is_the_squared_error_of_each_image_alone():
    schedule, x0, noise, t = linear_schedule(), randn(3, 1, 4, 4), randn(3, 1, 4, 4, seed=1), torch.tensor([5, 50, 500])
    offset = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1)
    found = denoising_loss(lambda xt, t: noise + offset, x0, t, noise, schedule)
    torch.testing.assert_close(found, torch.tensor([0.0, 16.0, 64.0]))


def test_a_diffusers_unet_works_as_it_is():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "block_out_channels": (8, 16)}
    unet = diffusers.UNet2DModel(8, 1, 1, layers_per_block=1, norm_num_groups=4, add_attention=False, **blocks)
    schedule = cosine_schedule()
    model = NoisePredictor(unet, schedule, "eps")
    x0, noise, t = randn(2, 1, 8, 8), randn(2, 1, 8, 8, seed=1), torch.tensor([10, 700])
    theirs = unet(reference("DDPM", "squaredcos_cap_v2").add_noise(x0, noise, t), t).sample
    loss = denoising_loss(model, x0, t, noise, schedule)
    torch.testing.assert_close(loss, (theirs - noise).square().sum((1, 2, 3)), rtol=1e-4, atol=0)
    loss.sum().backward()
    assert all(p.grad is not None for p in unet.parameters())
    assert diffusion.sample(model, 3, schedule, steps=2, shape=(1, 8, 8)).shape == (3, 1, 8, 8)


# ------------------------------------------------------------------------------------------- timesteps


@given(st.integers(1, 300), st.integers(1, 1000), st.integers(0, 2**31))
def test_stratified_timesteps_has_one_draw_in_each_stratum(n, T, seed):
    t = diffusion.stratified_timesteps(n, T, seeded(seed))
    assert t.dtype == torch.int64 and t.shape == (n,) and t.min() >= 0 and t.max() < T
    edges = torch.arange(n + 1, dtype=torch.float64) * T / n
    # a float32 draw may round up to the edge of its stratum
    assert (t.sort().values >= edges[:-1].floor()).all() and (t.sort().values <= edges[1:].floor()).all()


@given(st.integers(1, 300), st.integers(1, 1000), st.integers(0, 2**31))
def test_stratified_timesteps_are_draws_with_equal_weights(n, T, seed):
    assert torch.equal(diffusion.stratified_timesteps(n, T, seeded(seed)), diffusion.draw_timesteps(torch.ones(T), n, seeded(seed)))


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4)])
def test_noise_of_the_normal_part_is_what_was_mixed_in(shape):
    r = torch.tensor([0.0, 0.5, 0.9])
    eps_s, eps_n = randn(3, *shape), randn(3, *shape, seed=1)
    eps_u = torch.stack([r[i] * eps_s[i] + (1 - r[i]) * eps_n[i] for i in range(3)])
    torch.testing.assert_close(diffusion.noise_of_normal(eps_u, eps_s, r), eps_n, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", [0, 2])
def test_each_place_of_a_stratified_batch_is_uniform(place):
    """T = 10 does not divide into 4 strata; a place must still see every level equally often."""
    generator, draws, T = seeded(0), 8000, 10
    seen = torch.stack([diffusion.stratified_timesteps(4, T, generator)[place] for _ in range(draws)])
    counts = torch.bincount(seen, minlength=T).double()
    chi2 = ((counts - draws / T) ** 2 / (draws / T)).sum().item()
    assert chi2 < 27.9  # 99.9 % point with 9 degrees of freedom


@pytest.mark.parametrize("stratified", [True, False])
def test_levels_are_drawn_with_the_stated_density(stratified):
    density, draws = torch.tensor([0.0, 3.0, 1.0, 0.0, 4.0, 0.0]), 4000
    generator = seeded(0)
    seen = torch.cat([diffusion.draw_timesteps(density, 4, generator, stratified) for _ in range(draws // 4)])
    counts, expected = torch.bincount(seen, minlength=6).double(), density.double() / 8 * draws
    assert (counts[density == 0] == 0).all()
    chi2 = ((counts - expected)[density > 0] ** 2 / expected[density > 0]).sum().item()
    assert chi2 < 13.8  # 99.9 % point with 2 degrees of freedom; a stratified draw varies less


def test_stratified_levels_of_a_density_fill_each_part_of_equal_probability():
    density = torch.tensor([2.0, 1.0, 1.0])  # two of four parts are level 0
    for seed in range(50):
        assert sorted(diffusion.draw_timesteps(density, 4, seeded(seed)).tolist()) == [0, 0, 1, 2]


@pytest.mark.parametrize("gamma", [0.5, 5.0])
def test_min_snr_density_weighs_images_by_the_smaller_of_snr_and_gamma(gamma):
    """An error of x_0 weighs SNR in the loss on noise, so density times SNR must be min(SNR, gamma)."""
    schedule = cosine_schedule()
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    torch.testing.assert_close(diffusion.min_snr_density(schedule, gamma) * snr, snr.clamp(max=gamma))


def test_ddpm_samples_share_their_noise_too():
    model, schedule = NoisePredictor(TinyNet(), cosine_schedule(50), "eps"), cosine_schedule(50)
    draw = lambda n, eta, seed=0: diffusion.sample(model, n, schedule, 5, seed, (1, 8, 8), batch=4, eta=eta)  # noqa: E731
    assert torch.equal(draw(4, 1.0), draw(4, 1.0)) and not torch.equal(draw(4, 1.0), draw(4, 0.0))
    assert not torch.equal(draw(4, 1.0), draw(4, 1.0, seed=1))
    torch.testing.assert_close(draw(4, 1.0), draw(8, 1.0)[:4])


@given(st.integers(1, 1000), st.data())
def test_sampler_levels_descend_from_the_noisiest(T, data):
    steps = data.draw(st.integers(1, T))
    levels = diffusion.timesteps(T, steps)
    assert len(levels) == steps and levels[0] == T - 1 and levels[-1] >= 0
    assert (levels.diff() < 0).all()


# -------------------------------------------------------------------------------------------- samplers


@both_schedules
@both_predictions
@pytest.mark.parametrize(
    ("kind", "steps", "options"),
    [("DDIM", 50, {"use_clipped_model_output": True}), ("DDPM", 50, {}), ("DDPM", 200, {})],
    ids=["ddim", "ddpm-50", "ddpm-all"],
)
def test_every_state_of_the_sampler_agrees_with_diffusers(name, prediction, kind, steps, options):
    T = 200
    scheduler, schedule, net, xt = reference(kind, name, T, prediction), SCHEDULES[name](T), TinyNet(), randn(4, 1, 8, 8)
    scheduler.set_timesteps(steps)
    sampler, ours, theirs = {"DDIM": ddim_sampler, "DDPM": ddpm_sampler}[kind], seeded(7), seeded(7)
    states = list(sampler(NoisePredictor(net, schedule, prediction), xt, schedule, steps, generator=ours))
    assert [state.t for state in states] == [*scheduler.timesteps.tolist()[1:], -1]
    for t, state in zip(scheduler.timesteps, states, strict=True):
        with torch.no_grad():
            xt = scheduler.step(net(xt, t.expand(4)), int(t), xt, generator=theirs, **options).prev_sample
        torch.testing.assert_close(state.xt, xt, rtol=0, atol=1e-4)


@both_schedules
@pytest.mark.parametrize(("eta", "algorithm"), [(0.0, "dpmsolver++"), (1.0, "sde-dpmsolver++")])
def test_the_second_order_agrees_with_diffusers(name, eta, algorithm):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DPMSolverMultistepScheduler(
        1000, 1e-4, 0.02, name, timestep_spacing="trailing", algorithm_type=algorithm, final_sigmas_type="zero", lower_order_final=True, solver_order=2
    )
    steps, schedule, net, xt = 20, SCHEDULES[name](1000), TinyNet(), randn(4, 1, 8, 8)
    scheduler.set_timesteps(steps)
    # without a clip: diffusers has none for this solver
    states = list(ddim_sampler(NoisePredictor(net, schedule, "eps"), xt, schedule, steps, eta, clip=False, generator=seeded(7), order=2))
    theirs = seeded(7)
    for t, state in zip(scheduler.timesteps, states, strict=True):
        with torch.no_grad():
            xt = scheduler.step(net(xt, t.expand(4)), t, xt, generator=theirs).prev_sample
        torch.testing.assert_close(state.xt, xt, rtol=1e-3, atol=1e-3)


def test_the_second_order_is_nearer_the_truth_with_half_the_calls():
    """On a Gaussian world, whose mean noise is known; the truth is the end of very many steps."""
    schedule, start = cosine_schedule(1000), randn(64, 2)

    def exact(xt, t):  # x_0 ~ N(0, 1/4)
        signal, sigma = schedule.levels(t, xt)
        return sigma * xt / (signal**2 / 4 + sigma**2)

    def end(steps: int, order: int) -> torch.Tensor:
        return list(ddim_sampler(exact, start, schedule, steps, clip=False, order=order))[-1].xt

    best = end(1000, 2)
    errors = {order: [(end(steps, order) - best).norm().item() for steps in (20, 40)] for order in (1, 2)}
    assert errors[1][0] / errors[1][1] == pytest.approx(2, abs=0.3)
    assert errors[2][0] < errors[1][1] / 2 and errors[2][1] < errors[2][0]


def test_there_is_no_third_order():
    with pytest.raises(ValueError, match=r"order must be 1 \(DDIM\) or 2 .*; got 3"):
        list(ddim_sampler(TinyNet(), randn(1, 1, 8, 8), linear_schedule(10), 2, order=3))


@pytest.mark.parametrize("sigma", [0.0, 0.3, 0.5])
def test_a_step_back_from_the_true_image_and_noise_has_the_law_of_its_level(sigma):
    """Mean and variance of equation (1) at alpha_bar = 3/4, for any sigma^2 <= 1/4."""
    x0, noise, fresh = torch.full((200_000,), 0.8), randn(200_000, seed=1), randn(200_000, seed=2)
    xs = diffusion.step_back(x0, noise, 0.75, sigma, fresh)
    assert xs.mean().item() == pytest.approx(0.8 * 0.75**0.5, abs=0.005)
    assert xs.var().item() == pytest.approx(0.25, abs=0.004)


def test_ddpm_visits_every_level_unless_told_otherwise():
    schedule = linear_schedule(20)
    assert len(list(ddpm_sampler(lambda xt, t: xt, randn(1, 2), schedule))) == 20


def test_the_last_state_is_the_estimate_of_the_image():
    schedule = cosine_schedule(20)
    for sampler in (ddim_sampler, ddpm_sampler):
        *_, last = sampler(NoisePredictor(TinyNet(), schedule), randn(2, 1, 8, 8), schedule, 5)
        torch.testing.assert_close(last.xt, last.x0)
        assert last.xt.abs().max() <= 1 + 1e-6


@given(st.integers(1, 12), st.integers(1, 15))
def test_samples_do_not_depend_on_the_batch(n, batch):
    schedule = cosine_schedule(50)
    model = NoisePredictor(TinyNet(), schedule)
    whole = diffusion.sample(model, 12, schedule, steps=3, seed=5, shape=(1, 8, 8), batch=12)
    part = diffusion.sample(model, n, schedule, steps=3, seed=5, shape=(1, 8, 8), batch=batch)
    torch.testing.assert_close(part, whole[:n], rtol=0, atol=1e-4)


def test_samples_depend_on_the_seed_and_the_model_only():
    schedule = cosine_schedule(50)

    def draw(seed: int, model_seed: int = 0) -> torch.Tensor:
        model = NoisePredictor(TinyNet(model_seed), schedule)
        torch.seed()  # the global state must not matter
        return diffusion.sample(model, 4, schedule, 3, seed, (1, 8, 8))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2)) and not torch.equal(draw(1), draw(1, model_seed=1))


def test_sampling_keeps_no_graph_and_restores_nothing_global():
    schedule, before = linear_schedule(10), torch.random.get_rng_state()
    for state in ddim_sampler(NoisePredictor(TinyNet(), schedule), randn(1, 1, 8, 8), schedule, 3):
        assert not state.xt.requires_grad and torch.is_grad_enabled()
    torch.random.set_rng_state(before)
    diffusion.sample(lambda xt, t: xt, 2, schedule, 2, shape=(2,))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_schedule_is_a_plain_vector_of_betas():
    schedule = Schedule(torch.tensor([0.5, 0.5, 0.5]))
    torch.testing.assert_close(schedule.alpha_bar, torch.tensor([0.5, 0.25, 0.125]))
