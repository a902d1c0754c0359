"""Diffusion: schedule and steps against diffusers, sampling where the best network is known, inversion, guidance."""

import math

import pytest
import torch

from lasslab.diffusion import diffusion_loss, interpolate, invert, level_grid, noise_in, sample, start_state
from lasslab.flow import Trajectory, guided

STEPS = [1, 2, 3, 7, 10, 16, 25, 30, 64, 150, 200, 333, 600, 999, 1000]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scheduler(kind: str, **settings):
    """diffusers' own, with AudioLDM's schedule."""
    import diffusers

    schedule = {"num_train_timesteps": 1000, "beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
    return getattr(diffusers, kind)(**schedule, clip_sample=False, **settings)


class Network:
    """Linear in everything; counts its calls and remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, x, t, *, words):
        self.calls.append((x, t))
        return 0.5 * x + t[:, None] + words


class Gaussian:
    """Data N(mean, deviation^2): the best guess of the noise is known, and the path from noise to data is affine."""

    def __init__(self, mean: float, deviation: float) -> None:
        self.mean, self.deviation = mean, deviation
        self.alpha_bar = torch.cat([torch.ones(1), scheduler("DDPMScheduler").alphas_cumprod]).double()

    def __call__(self, x, t):
        a = self.alpha_bar[((1 - t) * 1000).round().long()]
        return (1 - a).sqrt() * (x - a.sqrt() * self.mean) / (a * self.deviation**2 + 1 - a)

    def slope_and_shift(self, n_steps: int) -> tuple[float, float]:
        """What `sample` makes of noise: slope * noise + shift."""
        at_0, at_1 = sample(self, torch.tensor([[0.0], [1.0]], dtype=torch.float64), n_steps).flatten().tolist()
        return at_1 - at_0, at_0


# --- the path


def test_the_path_is_that_of_diffusers():
    x_0, x_1 = randn(1000, 2, 3), randn(1000, 2, 3, seed=1)
    timesteps = torch.arange(1000)
    expected = scheduler("DDPMScheduler").add_noise(x_1, x_0, timesteps)
    torch.testing.assert_close(interpolate(x_0, x_1, 1 - (timesteps + 1) / 1000), expected)


def test_the_path_begins_in_noise_and_ends_in_data():
    x_0, x_1 = randn(3, 4, 5), randn(3, 4, 5, seed=1)
    assert torch.equal(interpolate(x_0, x_1, 1.0), x_1), "level 0 holds no noise at all"
    torch.testing.assert_close(interpolate(x_0, 0 * x_1, 0.0), x_0, atol=1e-3, rtol=0)
    # Lin et al., 2024: the schedule never reaches pure noise
    assert interpolate(torch.zeros(1, 1), torch.ones(1, 1), 0.0).item() == pytest.approx(0.0119, abs=1e-4)


def test_whoever_knows_the_datum_knows_the_noise():
    x_0, x_1 = randn(4, 3), randn(4, 3, seed=1)
    t = torch.tensor([0.0, 0.3, 0.6, 0.95])
    torch.testing.assert_close(noise_in(interpolate(x_0, x_1, t), t, x_1), x_0, atol=1e-5, rtol=0)
    assert noise_in(x_0, 1.0, x_1).abs().max() < 10 * (x_0.abs() + x_1.abs()).max(), "no noise is left at t = 1"
    torch.testing.assert_close(sample(lambda x, t: noise_in(x, t, x_1), x_0, 10), x_1, atol=1e-2, rtol=0)


def test_unit_variance_stays_unit_variance():
    x_0, x_1 = randn(4, 20_000), randn(4, 20_000, seed=1)
    assert interpolate(x_0, x_1, torch.tensor([0.0, 0.3, 0.6, 0.9])).std(1).tolist() == pytest.approx([1] * 4, abs=0.02)


def test_a_later_start_holds_more_of_the_original():
    original = 100 * torch.ones(2, 1_000)
    a = scheduler("DDPMScheduler").alphas_cumprod.tolist()
    means = [start_state(original, t, generator=generator()).mean().item() for t in (0.0, 0.5, 0.9, 1.0)]
    assert means == pytest.approx(
        [100 * math.sqrt(a[999]), 100 * math.sqrt(a[499]), 100 * math.sqrt(a[99]), 100], abs=0.1
    )
    with pytest.raises(ValueError, match=r"time in \[0, 1\], got -0.1"):
        start_state(original, -0.1, generator=generator())


# --- the loss


def test_a_network_that_knows_the_noise_has_no_loss():
    """With data at one point c, x_t gives x_0."""
    c = 2.0
    oracle = Gaussian(c, 0.0)

    def network(x_t, t, *, words):
        return torch.stack([oracle(x, time) for x, time in zip(x_t, t, strict=True)])

    loss = diffusion_loss(network, torch.full((64, 3), c), {"words": torch.zeros(64, 1)}, generator=generator())
    assert loss.shape == (64,) and loss.max() < 1e-5


def test_the_loss_of_zero_is_the_energy_of_the_noise():
    loss = diffusion_loss(lambda x, t: torch.zeros_like(x), 3 * torch.ones(4_000, 8), {}, generator=generator())
    assert loss.mean().item() == pytest.approx(1, rel=0.02)


def test_every_level_but_that_of_data_is_drawn_alike():
    network = Network()
    diffusion_loss(network, randn(40_000, 2), {"words": torch.zeros(40_000, 1)}, generator=generator())
    levels = ((1 - network.calls[0][1]) * 1000).round().long()
    counts = levels.bincount(minlength=1001)
    assert len(counts) == 1001 and counts[0] == 0 and counts[1:].min() > 10
    assert ((counts[1:] - 40).square() / 40).sum() < 1000 + 4 * math.sqrt(2 * 1000), "chi-squared"


def test_a_power_of_the_times_moves_levels_towards_noise():
    network = Network()
    condition = {"words": torch.zeros(4_000, 1)}
    diffusion_loss(network, randn(4_000, 2), condition, generator=generator(), time_power=2.0)
    t = network.calls[0][1]
    assert t.min() >= 0 and t.max() < 1
    assert [(t < share).float().mean().item() for share in (0.09, 0.49)] == pytest.approx([0.3, 0.7], abs=0.03)


def test_the_condition_is_dropped_for_each_example_on_its_own():
    seen = []

    def network(x, t, *, words, mixture):
        seen.append((words, mixture))
        return x

    words, mixture = torch.ones(2_000, 3, 4), torch.ones(2_000, 2)
    null = {"words": torch.zeros(2_000, 3, 4), "mixture": mixture}
    diffusion_loss(
        network, randn(2_000, 5), {"words": words, "mixture": mixture}, null=null, dropout=0.1, generator=generator()
    )
    dropped = (seen[0][0] == 0).flatten(1)
    assert (dropped.all(1) == dropped.any(1)).all(), "an example loses all of its words or none"
    assert 140 < dropped.all(1).sum() < 260
    assert (seen[0][1] == 1).all(), "what is the same in the null condition stays"


@pytest.mark.parametrize("dropout", [0.1, 1.5, -0.1])
def test_dropout_needs_a_null_condition_and_a_probability(dropout):
    null = None if dropout == 0.1 else {"words": torch.zeros(3, 1)}
    with pytest.raises(ValueError, match="dropout is a probability and needs null="):
        diffusion_loss(
            Network(), randn(3, 2), {"words": torch.ones(3, 1)}, null=null, dropout=dropout, generator=generator()
        )


def test_the_loss_is_decided_by_its_generator():
    losses = [
        diffusion_loss(Network(), randn(8, 2), {"words": torch.zeros(8, 1)}, generator=generator(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])


# --- the grid


@pytest.mark.parametrize("n_steps", STEPS)
def test_the_grid_is_the_trailing_one_of_diffusers_and_ends_in_data(n_steps):
    trailing = scheduler("DDIMScheduler", timestep_spacing="trailing")
    trailing.set_timesteps(n_steps)
    levels = level_grid(n_steps)
    assert (levels[:-1] - 1).tolist() == trailing.timesteps.tolist()
    assert levels[0] == 1000 and levels[-1] == 0 and (levels.diff() < 0).all()


def test_the_first_step_sees_pure_noise_where_the_usual_spacing_does_not():
    leading = scheduler("DDIMScheduler", timestep_spacing="leading", steps_offset=1)
    leading.set_timesteps(10)
    first = leading.timesteps[0].item()
    assert first == 901
    assert leading.alphas_cumprod[first].sqrt() > 2 * leading.alphas_cumprod[999].sqrt(), "data that the sample lacks"
    assert level_grid(10)[0] == 1000


def test_a_later_start_takes_its_steps_over_the_rest():
    assert level_grid(4, start=0.6).tolist() == [400, 300, 200, 100, 0]
    assert level_grid(1, start=0.9999).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("n_steps", "start", "words"),
    [
        (0, 0.0, "n_steps must be 1 to 1000"),
        (1001, 0.0, "n_steps must be 1 to 1000"),
        (11, 0.99, "n_steps must be 1 to 10, the levels of noise from t = 0.99 to data, got 11"),
        (5, 1.0, r"time in \[0, 1\), got 1.0"),
        (5, -0.2, r"time in \[0, 1\)"),
    ],
)
def test_steps_and_starts_that_make_no_grid_are_refused(n_steps, start, words):
    with pytest.raises(ValueError, match=words):
        level_grid(n_steps, start=start)
    with pytest.raises(ValueError, match=words):
        sample(Gaussian(0, 1), randn(2, 1), n_steps, t_start=start)
    with pytest.raises(ValueError, match=words):
        invert(Gaussian(0, 1), randn(2, 1), n_steps, t_stop=start)


# --- sampling


@pytest.mark.parametrize("n_steps", [1, 2, 10, 50, 200])
def test_ddim_takes_the_steps_of_diffusers_where_they_divide_1000(n_steps):
    """The scheduler as it comes, driven as its documentation says."""
    field, x = Gaussian(1.0, 0.5), randn(4, 3)
    plain = scheduler("DDIMScheduler", timestep_spacing="trailing")
    plain.set_timesteps(n_steps)
    expected = x
    for timestep in plain.timesteps:
        expected = plain.step(field(expected, 1 - (timestep + 1) / 1000), timestep, expected).prev_sample
    torch.testing.assert_close(sample(field, x, n_steps), expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("n_steps", [10, 50, 1000])
def test_eta_1_takes_the_ancestral_steps_of_ddpm(n_steps):
    field, x = Gaussian(1.0, 0.5), randn(4, 3)
    plain = scheduler("DDPMScheduler", timestep_spacing="trailing")
    plain.set_timesteps(n_steps)
    expected, noise = x, generator(5)
    for timestep in plain.timesteps:
        output = field(expected, 1 - (timestep + 1) / 1000).float()
        expected = plain.step(output, timestep, expected, generator=noise).prev_sample
    found = sample(lambda x, t: field(x, t).float(), x, n_steps, eta=1, generator=generator(5))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_ddim_reaches_mean_and_deviation_of_a_gaussian():
    mean, deviation = 1.0, 0.3
    slope, shift = Gaussian(mean, deviation).slope_and_shift(1000)
    assert slope == pytest.approx(deviation, rel=0.02)
    # what training calls noise holds 1.2 % of the data, the noise drawn here does not
    assert shift == pytest.approx(mean - 0.0119 * mean * deviation, abs=1e-3)


def test_the_error_falls_with_the_number_of_steps():
    """Few steps give too narrow a distribution: 0.16 at 10 steps for 0.3."""
    errors = [0.3 - Gaussian(1.0, 0.3).slope_and_shift(n)[0] for n in (1, 2, 5, 10, 20, 50, 100, 250, 500, 1000)]
    assert all(0 < fine < coarse for coarse, fine in zip(errors, errors[1:], strict=False))
    assert errors[3] == pytest.approx(0.14, abs=0.01)
    assert 5 < errors[6] / errors[9] < 10, "nearly proportional to the step"


def test_ancestral_sampling_reaches_mean_and_deviation_of_a_gaussian():
    found = sample(Gaussian(1.0, 0.3), randn(20_000, 1).double(), 1000, eta=1, generator=generator(1))
    assert found.mean().item() == pytest.approx(1.0, abs=0.01)
    assert found.std().item() == pytest.approx(0.3, abs=0.015)


@pytest.mark.parametrize("n_steps", STEPS)
def test_data_at_one_point_are_reached_in_any_number_of_steps(n_steps):
    """Every x_1' is the datum. A run that ended at level 1, as diffusers does with 7 steps, would leave noise in it."""
    found = sample(Gaussian(2.0, 0.0), randn(50, 1).double(), n_steps)
    assert (found - 2).abs().max() < 3e-4


def test_where_the_steps_do_not_divide_1000_diffusers_leaves_noise_and_this_does_not():
    field, x = Gaussian(2.0, 0.0), randn(50, 1).double()
    plain = scheduler("DDIMScheduler", timestep_spacing="trailing")
    plain.set_timesteps(7)
    left = x
    for timestep in plain.timesteps:
        left = plain.step(field(left, 1 - (timestep + 1) / 1000), timestep, left).prev_sample
    assert (left - 2).std() > 0.03 and (sample(field, x, 7) - 2).std() < 1e-4


def test_data_beyond_one_are_not_clipped():
    assert sample(Gaussian(40.0, 0.0), randn(5, 1), 10).mean().item() == pytest.approx(40, rel=1e-3)


def test_a_later_start_keeps_what_is_left_of_the_original():
    """Data N(0, 1): the field keeps states where they are, up to the noise. Later starts end nearer the original."""
    field, original = Gaussian(0.0, 1.0), 3 * torch.ones(500, 1, dtype=torch.float64)
    ends = [
        sample(field, start_state(original, t, generator=generator()), 10, t_start=t).mean().item()
        for t in (0.0, 0.5, 0.9, 0.99)
    ]
    expected = [
        3 * scheduler("DDPMScheduler").alphas_cumprod[level - 1].sqrt().item() for level in (1000, 500, 100, 10)
    ]
    assert ends == pytest.approx(expected, abs=0.15)


def test_same_seed_same_sample():
    field, x = Gaussian(1.0, 0.5), randn(4, 3)
    drawn = [sample(field, x, 10, eta=0.5, generator=generator(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(sample(field, x, 10), sample(field, x, 10)), "without eta no noise is drawn"


def test_eta_needs_a_generator_and_a_range():
    with pytest.raises(ValueError, match="needs generator= above 0, got eta=1"):
        sample(Gaussian(0, 1), randn(2, 1), 5, eta=1)
    with pytest.raises(ValueError, match=r"eta is in \[0, 1\]"):
        sample(Gaussian(0, 1), randn(2, 1), 5, eta=1.2, generator=generator())


def test_the_scheduler_is_built_once_and_no_number_is_read_from_a_tensor_in_the_loop(monkeypatch):
    import diffusers

    built = []
    init = diffusers.DDIMScheduler.__init__
    monkeypatch.setattr(diffusers.DDIMScheduler, "__init__", lambda *a, **k: (built.append(1), init(*a, **k))[1])
    reads = []
    for name in ("item", "tolist", "__bool__", "__index__", "__float__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, original=original: (reads.append(1), original(self))[1])
    counts = []
    for n_steps in (5, 50):
        reads.clear()
        sample(lambda x, t: 0.1 * x, randn(2, 3), n_steps, eta=1, generator=generator())
        counts.append(len(reads))
    assert built == [1, 1] and counts[0] == counts[1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_state_keeps_its_type_and_times_stay_exact(dtype):
    times = []

    def field(x, t):
        times.append(t)
        return 0.1 * x

    assert sample(field, randn(2, 3).to(dtype), 7).dtype == dtype
    assert [round(1000 - 1000 * t.item()) for t in times] == level_grid(7)[:-1].tolist()


# --- inversion


@pytest.mark.parametrize(("n_steps", "error"), [(50, 0.2), (250, 0.04), (1000, 0.01)])
def test_inversion_returns_to_the_start(n_steps, error):
    field, x = Gaussian(1.0, 0.3), 1 + 0.3 * randn(200, 2).double()
    noise = invert(field, x, n_steps)
    assert (sample(field, noise, n_steps) - x).abs().max() < error
    assert noise.std().item() == pytest.approx(1, abs=0.2) and noise.mean().item() == pytest.approx(0, abs=0.2)


def test_inversion_may_stop_on_the_way():
    field, x = Gaussian(1.0, 0.3), 1 + 0.3 * randn(200, 2).double()
    halfway = invert(field, x, 400, t_stop=0.5)
    assert (sample(field, halfway, 400, t_start=0.5) - x).abs().max() < 0.01
    a = field.alpha_bar[500]
    assert halfway.std().item() == pytest.approx(math.sqrt(a * 0.09 + 1 - a), rel=0.1)


def test_inversion_asks_the_network_only_where_it_was_trained():
    trajectory, times = Trajectory(), []

    def field(x, t):
        times.append(t.item())
        return 0.1 * x

    invert(field, randn(2, 3), 4, observe=trajectory)
    assert times == pytest.approx([0.75, 0.5, 0.25, 0])
    assert trajectory.times.tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])


# --- guidance and trajectories


def conditions(batch: int = 3):
    return {"words": randn(batch, 4, seed=5)}, {"words": torch.zeros(batch, 4)}


def test_guidance_of_one_is_the_conditional_branch_bit_for_bit():
    condition, null = conditions()
    network, plain, x = Network(), Network(), randn(3, 4)
    with_scale = sample(guided(network, condition, null, 1.0), x, 5)
    assert torch.equal(with_scale, sample(lambda x, t: plain(x, t.expand(3), **condition), x, 5))
    assert [len(x) for x, _ in network.calls] == [3] * 5, "the null branch is not computed"


def test_one_call_a_step_with_both_branches_in_one_batch():
    condition, null = conditions()
    network = Network()
    sample(guided(network, condition, null, 2.0), randn(3, 4), 10)
    assert [len(x) for x, _ in network.calls] == [6] * 10
    assert [t[0].item() for _, t in network.calls] == pytest.approx([n / 10 for n in range(10)])


def test_guidance_of_the_noise_is_guidance_of_the_datum():
    """x_1' is linear in the noise: guiding one is guiding the other."""
    condition, null = conditions()
    x, w = randn(3, 4), 3.0
    ends = [sample(guided(Network(), which, None, 1.0), x, 1) for which in (condition, null)]
    expected = ends[1] + w * (ends[0] - ends[1])
    torch.testing.assert_close(sample(guided(Network(), condition, null, w), x, 1), expected, atol=1e-3, rtol=1e-4)


def test_a_trajectory_holds_every_state():
    trajectory, x = Trajectory(), randn(2, 3)
    end = sample(Gaussian(1.0, 0.5), x, 4, observe=trajectory)
    assert trajectory.states.shape == (5, 2, 3)
    torch.testing.assert_close(trajectory.times, torch.linspace(0, 1, 5))
    assert torch.equal(trajectory.states[0], x.to(trajectory.states)) and torch.equal(trajectory.states[-1], end)
