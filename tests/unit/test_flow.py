"""Rectified flow: path and velocity against the formulas, solvers on fields with known answers, guidance, inversion."""

import math

import pytest
import torch

from lasslab.flow import (
    SOLVERS,
    Trajectory,
    drop,
    flow_loss,
    guided,
    interpolate,
    solve,
    start_state,
    straightness,
    target_velocity,
    time_grid,
    velocity_to,
)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Network:
    """Linear in everything; counts its calls and remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, x, t, *, words):
        self.calls.append((x, t))
        return 0.5 * x + t[:, None] + words


# --- path and velocity


@pytest.mark.parametrize("sigma_min", [0.0, 1e-5, 0.1])
def test_the_path_begins_in_noise_and_ends_in_data(sigma_min):
    x_0, x_1 = randn(3, 4, 5), randn(3, 4, 5, seed=1)
    torch.testing.assert_close(interpolate(x_0, x_1, 0.0, sigma_min=sigma_min), x_0)
    torch.testing.assert_close(interpolate(x_0, x_1, 1.0, sigma_min=sigma_min), x_1 + sigma_min * x_0)


def test_the_velocity_is_the_slope_of_the_path():
    x_0, x_1 = randn(3, 4).double(), randn(3, 4, seed=1).double()
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    slope = (interpolate(x_0, x_1, t + 1e-4) - interpolate(x_0, x_1, t - 1e-4)) / 2e-4
    torch.testing.assert_close(slope, target_velocity(x_0, x_1), atol=1e-8, rtol=0)


def test_whoever_knows_the_datum_knows_the_velocity_without_the_noise():
    x_0, x_1 = randn(4, 3), randn(4, 3, seed=1)
    t = torch.tensor([0.0, 0.3, 0.6, 0.89])
    velocity = velocity_to(interpolate(x_0, x_1, t), t, x_1)
    torch.testing.assert_close(velocity, target_velocity(x_0, x_1), atol=3e-4, rtol=0)  # sigma_min t / (1 - t) is left
    near = interpolate(x_0, x_1, 0.99)
    torch.testing.assert_close(velocity_to(near, 0.99, x_1), (x_1 - near) / 0.1)  # bounded where the quotient is not
    reached = solve(lambda x, t: velocity_to(x, t, x_1), x_0, time_grid(10))
    torch.testing.assert_close(reached, x_1)


def test_every_example_has_its_own_time():
    x_0, x_1 = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
    points = interpolate(x_0, x_1, torch.tensor([0.0, 0.25, 1.0]))
    assert points[:, 0, 0].tolist() == [0.0, 0.25, 1.0]


def test_a_later_start_holds_its_share_of_the_original():
    original = 100 * torch.ones(2, 1_000)
    states = [start_state(original, t, generator=generator()) for t in (0.0, 0.01, 0.3, 1.0)]
    means = [state.mean().item() for state in states]
    assert means == pytest.approx([0, 1, 30, 100], abs=0.1)
    assert [state.std().item() for state in states] == pytest.approx([1, 0.99, 0.7, 1e-5], abs=0.05)
    with pytest.raises(ValueError, match=r"time in \[0, 1\], got 1.5"):
        start_state(original, 1.5, generator=generator())


# --- the loss


def test_a_network_that_knows_the_velocity_has_no_loss():
    """With data at one point c, x_1 = c and x_t give x_0, and so the velocity."""
    c, sigma = 2.0, 1e-5

    def oracle(x_t, t, *, words):
        x_0 = (x_t - t[:, None] * c) / (1 - (1 - sigma) * t[:, None])
        return c - (1 - sigma) * x_0

    loss = flow_loss(oracle, torch.full((64, 3), c), {"words": torch.zeros(64, 1)}, generator=generator())
    assert loss.shape == (64,) and loss.max() < 1e-5


def test_the_loss_of_zero_is_the_energy_of_the_velocity():
    x_1 = 3 * torch.ones(4_000, 8)
    loss = flow_loss(lambda x, t, **_: torch.zeros_like(x), x_1, {}, generator=generator())
    assert loss.mean().item() == pytest.approx(9 + 1, rel=0.02)  # |x_1|^2 + |x_0|^2 per element


def test_times_are_uniform_and_differ_within_a_batch():
    network = Network()
    flow_loss(network, randn(4_000, 2), {"words": torch.zeros(4_000, 1)}, generator=generator())
    t = network.calls[0][1]
    assert t.shape == (4_000,) and t.min() >= 0 and t.max() < 1
    histogram = torch.histc(t, bins=10, min=0, max=1)
    assert (histogram - 400).abs().max() < 4 * math.sqrt(400)


@pytest.mark.parametrize("power", [1.0, 2.0, 0.5])
def test_a_power_of_the_times_moves_them_towards_noise_or_data(power):
    network = Network()
    flow_loss(network, randn(4_000, 2), {"words": torch.zeros(4_000, 1)}, generator=generator(), time_power=power)
    t = network.calls[0][1]
    for share in (0.1, 0.5, 0.9):  # u^p < s where u < s^(1/p)
        assert (t < share).float().mean().item() == pytest.approx(share ** (1 / power), abs=0.03)


def test_the_condition_is_dropped_for_each_example_on_its_own():
    """FlowSep's released code drops it for a whole batch at a time."""
    seen = []

    def network(x, t, *, words, mixture):
        seen.append((words, mixture))
        return x

    words, mixture = torch.ones(2_000, 3, 4), torch.ones(2_000, 2)
    null = {"words": torch.zeros(2_000, 3, 4), "mixture": mixture}
    flow_loss(
        network, randn(2_000, 5), {"words": words, "mixture": mixture}, null=null, dropout=0.1, generator=generator()
    )
    dropped = (seen[0][0] == 0).flatten(1)
    assert (dropped.all(1) == dropped.any(1)).all(), "an example loses all of its words or none"
    assert 140 < dropped.all(1).sum() < 260
    assert (seen[0][1] == 1).all(), "what is the same in the null condition stays"


def test_dropping_nothing_or_everything():
    condition, null = {"words": torch.ones(3, 2)}, {"words": torch.zeros(3, 2)}
    for flags, expected in (([False] * 3, 6), ([True] * 3, 0), ([True, False, True], 2)):
        assert drop(condition, null, torch.tensor(flags))["words"].sum() == expected
    with pytest.raises(ValueError, match="needs null="):
        flow_loss(Network(), randn(3, 2), condition, dropout=0.1, generator=generator())


def test_the_loss_is_decided_by_its_generator():
    losses = [
        flow_loss(Network(), randn(8, 2), {"words": torch.zeros(8, 1)}, generator=generator(seed)) for seed in (0, 0, 1)
    ]
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])


# --- solvers


@pytest.mark.parametrize("method", SOLVERS)
def test_a_constant_field_is_exact_in_one_step(method):
    x, v = randn(3, 4), randn(3, 4, seed=1)
    torch.testing.assert_close(solve(lambda x, t: v, x, time_grid(1), method=method), x + v)


@pytest.mark.parametrize(("method", "error"), [("euler", 0.02), ("midpoint", 1e-4), ("heun", 1e-4)])
def test_three_t_squared_integrates_to_one(method, error):
    end = solve(lambda x, t: 3 * t**2 * torch.ones_like(x), torch.zeros(2, 1), time_grid(100), method=method)
    assert (end - 1).abs().max() < error


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_the_order_of_a_solver(method, order):
    """dx/dt = x from 1 ends at e; halving the step divides the error by 2^order."""
    x = torch.ones(1, 1, dtype=torch.float64)
    errors = [abs(solve(lambda x, t: x, x, time_grid(n).double(), method=method).item() - math.e) for n in (20, 40, 80)]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("method", SOLVERS)
def test_a_straight_field_needs_one_step_whatever_the_grid(method):
    """Data at one point: every path is straight, and one step is as good as many."""
    c = 2.0

    def field(x, t):
        return (c - x) / (1 - t).clamp(min=1e-6)

    x = randn(5, 3)
    times = torch.tensor([0.0, 0.2, 0.25, 0.9])
    torch.testing.assert_close(
        solve(field, x, times, method=method),
        solve(field, x, torch.tensor([0.0, 0.9]), method="euler"),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("method", SOLVERS)
def test_inversion_returns_to_the_start(method):
    def field(x, t):
        return torch.sin(3 * x) + t

    x = randn(6, 2).double()
    there = solve(field, x, time_grid(400).double(), method=method)
    back = solve(field, there, time_grid(400, start=1, stop=0).double(), method=method)
    assert (there - x).abs().max() > 0.3
    assert (back - x).abs().max() < (0.02 if method == "euler" else 1e-4)


def test_a_later_start_takes_the_rest_of_the_way():
    x = torch.zeros(1, 1)
    assert solve(lambda x, t: torch.ones_like(x), x, time_grid(7, start=0.3)).item() == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("times", "words"), [([0.0], "at least two"), ([0.0, 0.5, 0.4], "one way"), ([0.0, 0.0, 1.0], "one way")]
)
def test_a_grid_that_does_not_go_one_way_is_refused(times, words):
    with pytest.raises(ValueError, match=words):
        solve(lambda x, t: x, torch.zeros(1, 1), torch.tensor(times))
    with pytest.raises(ValueError, match="unknown method 'rk4': use one of euler, midpoint, heun"):
        solve(lambda x, t: x, torch.zeros(1, 1), time_grid(2), method="rk4")
    with pytest.raises(ValueError, match="at least 1"):
        time_grid(0)


# --- guidance


def conditions(batch: int = 3):
    return {"words": randn(batch, 4, seed=5)}, {"words": torch.zeros(batch, 4)}


def test_guidance_of_one_is_the_conditional_branch_bit_for_bit():
    condition, null = conditions()
    network, plain = Network(), Network()
    x, times = randn(3, 4), time_grid(5)
    with_scale = solve(guided(network, condition, null, 1.0), x, times)
    without = solve(lambda x, t: plain(x, t.expand(3), **condition), x, times)
    assert torch.equal(with_scale, without)
    assert [len(x) for x, _ in network.calls] == [3] * 5, "the null branch is not computed"


def test_guidance_of_zero_is_the_null_branch():
    condition, null = conditions()
    x, t = randn(3, 4), torch.tensor(0.3)
    torch.testing.assert_close(guided(Network(), condition, null, 0.0)(x, t), Network()(x, t.expand(3), **null))


@pytest.mark.parametrize("scale", [0.5, 2.0, 4.5])
def test_guidance_follows_its_formula(scale):
    """FlowSep's released sampler accepts a scale and ignores it."""
    condition, null = conditions()
    x, t = randn(3, 4), torch.tensor(0.3)
    with_condition, without = (Network()(x, t.expand(3), **which) for which in (condition, null))
    expected = without + scale * (with_condition - without)
    torch.testing.assert_close(guided(Network(), condition, null, scale)(x, t), expected)
    assert not torch.allclose(expected, with_condition)


def test_one_call_a_step_with_both_branches_in_one_batch():
    condition, null = conditions()
    network = Network()
    solve(guided(network, condition, null, 2.0), randn(3, 4), time_grid(10))
    assert [len(x) for x, _ in network.calls] == [6] * 10
    assert all((t == t[0]).all() for _, t in network.calls)
    with pytest.raises(ValueError, match="needs null="):
        guided(network, condition, None, 2.0)


# --- trajectories


def test_a_trajectory_holds_every_state():
    trajectory = Trajectory()
    end = solve(lambda x, t: torch.ones_like(x), torch.zeros(2, 3), time_grid(4), observe=trajectory)
    assert trajectory.states.shape == (5, 2, 3)
    torch.testing.assert_close(trajectory.times, torch.linspace(0, 1, 5))
    torch.testing.assert_close(trajectory.states[-1], end)
    torch.testing.assert_close(trajectory.states[:, 0, 0], trajectory.times)


def test_straightness_of_known_paths():
    t = torch.linspace(0, 1, 2_001, dtype=torch.float64)
    line = torch.stack([3 * t, 4 * t], dim=-1)
    half_circle = torch.stack([1 - torch.cos(math.pi * t), torch.sin(math.pi * t)], dim=-1)
    slow_then_fast = torch.stack([t**2, 0 * t], dim=-1)
    found = straightness(t, torch.stack([line, half_circle, slow_then_fast], dim=1))
    # half a circle of radius 1: (pi^2 - 4) / 4; t^2 on a line: the integral of (1 - 2 t)^2
    assert found.tolist() == pytest.approx([0.0, (math.pi**2 - 4) / 4, 1 / 3], abs=1e-3)


def test_straightness_does_not_depend_on_the_grid_or_the_direction():
    t = torch.linspace(0, 1, 1_001, dtype=torch.float64) ** 2  # unequal steps
    states = torch.stack([1 - torch.cos(math.pi * t), torch.sin(math.pi * t)], dim=-1)[:, None]
    expected = (math.pi**2 - 4) / 4
    assert straightness(t, states).item() == pytest.approx(expected, rel=1e-2)
    assert straightness(t.flip(0), states.flip(0)).item() == pytest.approx(expected, rel=1e-2)
