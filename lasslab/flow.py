"""Rectified flow: from noise to data along straight lines. The heart of the second half of the course.

Time runs from **t = 0, noise, to t = 1, data**. Between a noise x_0 and a datum x_1 lies the path

    x_t = (1 - (1 - sigma_min) t) x_0 + t x_1                                                                     (1)

whose velocity does not depend on t:

    v = dx_t / dt = x_1 - (1 - sigma_min) x_0                                                                     (2)

A network learns it from points of many such paths, with a condition c (the mixture, the words):

    loss = E |network(x_t, t, c) - v|^2                                                                           (3)

Whoever follows the learned velocity from t = 0 to 1 turns noise into data: `solve`. Descending times invert, from data
to the noise that belongs to it. A later start edits: it begins with a little of the original in the noise,

    x_start = (1 - (1 - sigma_min) t_start) noise + t_start x_original                                            (4)

Numbers as in FlowSep (1-3, with its sigma) and in RFM-Editing (1-4). `sigma_min` is 1e-5 in both papers and 1e-4 in
FlowSep's released code. Some libraries (diffusers) run time the other way round.

References: Liu, Gong and Liu, "Flow straight and fast", ICLR 2023; Lipman et al., "Flow matching for generative
modeling", ICLR 2023; Yuan et al., FlowSep, 2024; RFM-Editing, 2025. Notebooks 11 to 15.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

SIGMA_MIN = 1e-5

#: dx / dt at a state (B, ...) and a time ()
Field = Callable[[Tensor, Tensor], Tensor]
#: batch-first tensors that a network is called with beside x and t; the same names in a null condition
Condition = Mapping[str, Tensor]


def interpolate(x_0: Tensor, x_1: Tensor, t: Tensor | float, *, sigma_min: float = SIGMA_MIN) -> Tensor:
    """Equation (1): the point at time t of the path from x_0 to x_1.

    Args:
        x_0: noise (B, ...).
        x_1: data (B, ...).
        t: times in [0, 1], a number or (B,).
        sigma_min: noise that is left at t = 1.

    Returns:
        x_t (B, ...).
    """
    t = _like(t, x_1)
    return (1 - (1 - sigma_min) * t) * x_0 + t * x_1


def target_velocity(x_0: Tensor, x_1: Tensor, *, sigma_min: float = SIGMA_MIN) -> Tensor:
    """Equation (2): the velocity of the path from x_0 to x_1, the same at every t."""
    return x_1 - (1 - sigma_min) * x_0


def velocity_to(x_t: Tensor, t: Tensor | float, x_1: Tensor, *, least: float = 0.1) -> Tensor:
    """The velocity that leads from x_t to the datum x_1 in the time that is left, (x_1 - x_t) / (1 - t).

    For a state on the path (1) to x_1 it is the velocity (2), but for sigma_min, without knowledge of the noise.

    Args:
        x_t: state (B, ...).
        t: its time in [0, 1], a number or (B,).
        x_1: data (B, ...).
        least: time that is taken to be left at least: near t = 1 the quotient has no bound, and what is left to do is
            little.

    Returns:
        Velocity (B, ...).
    """
    return (x_1 - x_t) / (1 - _like(t, x_t)).clamp(min=least)


def start_state(
    original: Tensor, t_start: float, *, generator: torch.Generator, sigma_min: float = SIGMA_MIN
) -> Tensor:
    """Equation (4): noise with a little of the original in it; `t_start` 0 is noise alone.

    Args:
        original: data (B, ...).
        t_start: time in [0, 1] from which `solve` will go on.
        generator: of the noise, on the original's device.
        sigma_min: as in (1).

    Returns:
        x_start (B, ...).

    Raises:
        ValueError: `t_start` outside of [0, 1].
    """
    if not 0 <= t_start <= 1:
        raise ValueError(f"t_start is a time in [0, 1], got {t_start}: 0 is noise, 1 the original")
    return interpolate(_noise(original, generator), original, t_start, sigma_min=sigma_min)


def flow_loss(
    network: Callable[..., Tensor],
    x_1: Tensor,
    condition: Condition,
    *,
    generator: torch.Generator,
    null: Condition | None = None,
    dropout: float = 0.0,
    sigma_min: float = SIGMA_MIN,
    time_power: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Equation (3), one value for each example, at a time and a noise drawn for each example.

    Args:
        network: called `network(x_t, t, **condition)` with t (B,), gives a velocity (B, ...).
        x_1: data (B, ...).
        condition: tensors (B, ...) by name.
        generator: of times, noise and dropout, on the data's device.
        null: what the condition is where it is dropped; needed for `dropout`.
        dropout: probability that an example loses its condition, drawn **for each example**: a network trained so
            answers with and without, which `guided` needs.
        sigma_min: as in (1).
        time_power: times are u^time_power with u uniform. 1 as in the papers; with 2 more of them are near noise, where
            the condition decides, and fewer where the state has told everything. What the loss is smallest for stays.
        weight: how much each error counts, broadcast to (B, ...); all alike when left out.

    Returns:
        Mean squared error (B,).

    Raises:
        ValueError: dropout without a null condition, or not a probability.
    """
    if not 0 <= dropout <= 1 or (dropout and null is None):
        raise ValueError(f"dropout is a probability and needs null=, got dropout={dropout} and null={null}")
    batch, device = len(x_1), x_1.device
    t = torch.rand(batch, generator=generator, device=device) ** time_power
    x_0 = _noise(x_1, generator)
    if dropout and null is not None:
        condition = drop(condition, null, torch.rand(batch, generator=generator, device=device) < dropout)
    predicted = network(interpolate(x_0, x_1, t, sigma_min=sigma_min), t, **condition)
    errors = (predicted - target_velocity(x_0, x_1, sigma_min=sigma_min)).square()
    return (errors if weight is None else weight * errors).flatten(1).mean(1)


def drop(condition: Condition, null: Condition, dropped: Tensor) -> dict[str, Tensor]:
    """The condition, but the null condition for the examples where `dropped` (B,) is true."""
    return {name: torch.where(_like(dropped, null[name]), null[name], value) for name, value in condition.items()}


def guided(network: Callable[..., Tensor], condition: Condition, null: Condition | None, scale: float) -> Field:
    """Classifier-free guidance: v = v_null + scale (v_cond - v_null), both branches in one batch.

    `scale` 1 is no guidance: then the null branch is not computed, and the field is the conditional one bit for bit.

    Args:
        network: as in `flow_loss`.
        condition: tensors (B, ...) by name.
        null: the same without a condition; may be None for a scale of 1.
        scale: above 1 follows the condition more than the data did.

    Returns:
        The field to `solve`.

    Raises:
        ValueError: a scale other than 1 without a null condition.
    """
    if scale == 1:
        return lambda x, t: network(x, t.expand(len(x)), **condition)
    if null is None:
        raise ValueError(f"guidance_scale={scale} needs null=, what the condition is when there is none")
    both = {name: torch.cat([value, null[name]]) for name, value in condition.items()}  # once, not at every step

    def field(x: Tensor, t: Tensor) -> Tensor:
        with_condition, without = network(torch.cat([x, x]), t.expand(2 * len(x)), **both).chunk(2)
        return without + scale * (with_condition - without)

    return field


def euler(field: Field, x: Tensor, t: Tensor, step: Tensor) -> Tensor:
    """x + h v(x, t): one call, error of a whole run proportional to h."""
    return x + step * field(x, t)


def midpoint(field: Field, x: Tensor, t: Tensor, step: Tensor) -> Tensor:
    """The velocity half a step ahead: two calls, error proportional to h^2."""
    return x + step * field(x + step / 2 * field(x, t), t + step / 2)


def heun(field: Field, x: Tensor, t: Tensor, step: Tensor) -> Tensor:
    """The mean of the velocities at both ends of an Euler step: two calls, error proportional to h^2."""
    here = field(x, t)
    return x + step / 2 * (here + field(x + step * here, t + step))


SOLVERS: dict[str, Callable[..., Tensor]] = {"euler": euler, "midpoint": midpoint, "heun": heun}


def time_grid(n_steps: int, *, start: float = 0.0, stop: float = 1.0) -> Tensor:
    """`n_steps` equal steps from start to stop: n_steps + 1 times. Ascending samples, descending inverts."""
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}")
    return torch.linspace(start, stop, n_steps + 1)


@torch.no_grad()
def solve(
    field: Field,
    x: Tensor,
    times: Tensor,
    *,
    method: str = "euler",
    observe: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Follow a field along a grid of times.

    Args:
        field: dx / dt.
        x: state (B, ...) at the first time.
        times: any monotone grid (n_steps + 1,), see `time_grid`.
        method: "euler", "midpoint" or "heun".
        observe: called with each time and state, the first included: pictures, progress bars.

    Returns:
        The state at the last time.

    Raises:
        ValueError: an unknown method, or times that do not go one way.
    """
    if method not in SOLVERS:
        raise ValueError(f"unknown method {method!r}: use one of {', '.join(SOLVERS)}")
    steps = times.diff()
    if times.ndim != 1 or len(times) < 2 or not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"times must go one way and be at least two, got {times.tolist()}: use time_grid")
    times, steps = times.to(x), steps.to(x)
    if observe is not None:
        observe(times[0], x)
    for number, step in enumerate(steps):
        x = SOLVERS[method](field, x, times[number], step)
        if observe is not None:
            observe(times[number + 1], x)
    return x


class Trajectory:
    """Remembers every state of a run: `solve(..., observe=trajectory)`, then `trajectory.times` and `.states`."""

    def __init__(self) -> None:
        self._times: list[Tensor] = []
        self._states: list[Tensor] = []

    def __call__(self, t: Tensor, x: Tensor) -> None:
        """Keep one state."""
        self._times.append(t.detach().cpu())
        self._states.append(x.detach().cpu())

    @property
    def times(self) -> Tensor:
        """(n_steps + 1,)."""
        return torch.stack(self._times)

    @property
    def states(self) -> Tensor:
        """(n_steps + 1, B, ...)."""
        return torch.stack(self._states)


def straightness(times: Tensor, states: Tensor) -> Tensor:
    """How far paths are from straight lines run at constant speed: 0 is straight (Liu et al., 2023, section 2.2).

    S = integral |(x_1 - x_0) - v(x_t, t)|^2 dt / |x_1 - x_0|^2, with the velocity of each step; divided by the squared
    length, so that paths of any size compare.

    Args:
        times: (n_steps + 1,).
        states: (n_steps + 1, B, ...).

    Returns:
        One value for each path (B,).
    """
    steps = times.diff().to(states)
    states = states.flatten(2) if states.ndim > 2 else states[..., None]  # (n + 1, B, D)
    whole = (states[-1] - states[0]) / (times[-1] - times[0]).to(states)
    velocity = states.diff(dim=0) / steps[:, None, None]
    deviation = (velocity - whole).square().sum(-1)  # (n, B)
    share = (steps / steps.sum())[:, None]
    return (share * deviation).sum(0) / whole.square().sum(-1).clamp(min=1e-12)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def _like(t: Tensor | float, x: Tensor) -> Tensor:
    """A number or (B,) ready to be multiplied with (B, ...)."""
    t = torch.as_tensor(t, device=x.device)
    t = t if t.dtype == torch.bool else t.to(x.dtype)
    return t.reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t
