"""Latent diffusion, the counterpart that rectified flow is compared with. In the shape of `lasslab.flow`.

Time runs as there, from **t = 0, noise, to t = 1, data**; x_0 is noise and x_1 data. (Papers on diffusion count the
other way and call the data x_0.) Between them lies a curve instead of a line,

    x_t = sqrt(a_t) x_1 + sqrt(1 - a_t) x_0                                                                       (1)

where a_t, "alpha bar", is the share of the data's energy. It takes 1000 values, the products of 1 - beta over a
schedule. **Level** k = 0 is data (a = 1), level 1000 the noisiest, and t = 1 - k / 1000. The network learns the noise,

    loss = E |network(x_t, t, c) - x_0|^2                                                                         (2)

and sampling (DDIM) guesses the data from the noise e, then goes to the next level s with the same noise,

    e = network(x_t, t, c),   x_1' = (x_t - sqrt(1 - a_t) e) / sqrt(a_t),   x_s = sqrt(a_s) x_1' + sqrt(1 - a_s) e  (3)

Schedule and parametrisation are AudioLDM's, whose loss FlowSep's baseline DiffusionSep uses: 1000 levels, betas from
0.0015 to 0.0195 with square roots equally spaced ("scaled linear"), the noise as target, no clipping (latents have no
bounds). With them sqrt(a) is 0.012 at t = 0: a trace of the data remains in training, none in sampling.

The steps are those of diffusers' schedulers. What differs between libraries, and what is done here:

- *Spacing.* n steps visit levels 1000, 1000 - 1000 / n, ... ("trailing"): the first is pure noise, as the sample is.
  The usual "leading" begins near 1000 - 1000 / n and takes noise for something that holds data (Lin et al., 2024).
- *Last step.* It ends at level 0, without noise ("set_alpha_to_one"); the other habit is to stop at level 1.
- *Any number of steps.* diffusers' DDIM finds the next level by an integer division and misses its own grid where n
  does not divide 1000: with 7 steps it ends at level 1. Here a scheduler is made for the visited levels only, numbered
  0 to n - 1, so that its next level is the grid's (Nichol and Dhariwal, 2021, section 4).

Guidance is linear in what the network gives, so `lasslab.flow.guided` makes the field here too.

References: Ho et al., "Denoising diffusion probabilistic models", 2020; Song et al., "Denoising diffusion implicit
models", ICLR 2021; Liu et al., AudioLDM, ICML 2023; Lin et al., "Common diffusion noise schedules and sample steps are
flawed", WACV 2024; Meng et al., SDEdit, ICLR 2022. Notebooks 11 and 13.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lasslab.flow import Condition, Field, drop

LEVELS = 1000
BETA_START, BETA_END = 0.0015, 0.0195


def interpolate(x_0: Tensor, x_1: Tensor, t: Tensor | float) -> Tensor:
    """Equation (1): the datum x_1 with the share of the noise x_0 that belongs to time t.

    Args:
        x_0: noise (B, ...).
        x_1: data (B, ...).
        t: times in [0, 1], a number or (B,); each is taken to the nearest level.

    Returns:
        x_t (B, ...).
    """
    data, noise = _shares(t, x_1)
    return data * x_1 + noise * x_0


def noise_in(x_t: Tensor, t: Tensor | float, x_1: Tensor, *, least: float = 0.1) -> Tensor:
    """The noise in x_t if x_1 is the datum under it: equation (1) solved for x_0.

    Args:
        x_t: state (B, ...).
        t: its time in [0, 1], a number or (B,); taken to the nearest level.
        x_1: data (B, ...).
        least: share of the noise that is taken to be there at least: near t = 1 the quotient has no bound.

    Returns:
        Noise (B, ...).
    """
    data, noise = _shares(t, x_1)
    return (x_t - data * x_1) / noise.clamp(min=least)


def start_state(original: Tensor, t_start: float, *, generator: torch.Generator) -> Tensor:
    """The original under noise, from which `sample(..., t_start=t_start)` goes on: editing as in SDEdit.

    Args:
        original: data (B, ...).
        t_start: time in [0, 1]; 0 is as good as noise alone.
        generator: of the noise, on the original's device.

    Returns:
        x_start (B, ...).

    Raises:
        ValueError: `t_start` outside of [0, 1].
    """
    if not 0 <= t_start <= 1:
        raise ValueError(f"t_start is a time in [0, 1], got {t_start}: 0 is noise, 1 the original")
    noise = torch.randn(original.shape, generator=generator, device=original.device, dtype=original.dtype)
    return interpolate(noise, original, t_start)


def diffusion_loss(
    network: Callable[..., Tensor],
    x_1: Tensor,
    condition: Condition,
    *,
    generator: torch.Generator,
    null: Condition | None = None,
    dropout: float = 0.0,
    time_power: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Equation (2), one value for each example, at a level and a noise drawn for each example.

    Args:
        network: called `network(x_t, t, **condition)` with t (B,), gives the noise (B, ...).
        x_1: data (B, ...).
        condition: tensors (B, ...) by name.
        generator: of levels, noise and dropout, on the data's device.
        null: what the condition is where it is dropped; needed for `dropout`.
        dropout: probability that an example loses its condition, drawn for each example as in `flow_loss`.
        time_power, weight: as in `flow_loss`.

    Returns:
        Mean squared error (B,).

    Raises:
        ValueError: dropout without a null condition, or not a probability.
    """
    if not 0 <= dropout <= 1 or (dropout and null is None):
        raise ValueError(f"dropout is a probability and needs null=, got dropout={dropout} and null={null}")
    batch, device = len(x_1), x_1.device
    t = (1 - torch.randint(1, LEVELS + 1, (batch,), generator=generator, device=device) / LEVELS) ** time_power
    x_0 = torch.randn(x_1.shape, generator=generator, device=device, dtype=x_1.dtype)
    if dropout and null is not None:
        condition = drop(condition, null, torch.rand(batch, generator=generator, device=device) < dropout)
    predicted = network(interpolate(x_0, x_1, t), t, **condition)
    errors = (predicted - x_0).square()
    return (errors if weight is None else weight * errors).flatten(1).mean(1)


def level_grid(n_steps: int, *, start: float = 0.0) -> Tensor:
    """The levels that `n_steps` equal steps visit from the time `start` to data: n_steps + 1, descending to 0.

    Args:
        n_steps: at most one for each level.
        start: time in [0, 1).

    Returns:
        Levels (n_steps + 1,), whole numbers; times are 1 - levels / 1000.

    Raises:
        ValueError: no step, a start outside of [0, 1), or more steps than levels.
    """
    if not 0 <= start < 1:
        raise ValueError(f"t_start is a time in [0, 1), got {start}: 0 is noise, and at 1 there is nothing left to do")
    levels = max(round((1 - start) * LEVELS), 1)
    if not 1 <= n_steps <= levels:
        raise ValueError(
            f"n_steps must be 1 to {levels}, the levels of noise from t = {start:g} to data, got {n_steps}"
        )
    return torch.linspace(levels, 0, n_steps + 1, dtype=torch.float64).round().long()


@torch.no_grad()
def sample(
    field: Field,
    x: Tensor,
    n_steps: int,
    *,
    t_start: float = 0.0,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    observe: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """From noise to data, one call of the field a step.

    Args:
        field: the noise in a state (B, ...) at a time (), from `lasslab.flow.guided`.
        x: noise (B, ...), or what `start_state` gave for `t_start`.
        n_steps: steps from `t_start` to 1.
        t_start: time at which x is.
        eta: 0 is DDIM, a function of x alone; 1 draws new noise at every step as DDPM does ("ancestral").
        generator: of that noise, on the device of x.
        observe: called with each time and state, the first included, as in `lasslab.flow.solve`.

    Returns:
        Data (B, ...).

    Raises:
        ValueError: as `level_grid`; eta outside of [0, 1]; eta without a generator.
    """
    from diffusers import DDIMScheduler

    if not 0 <= eta <= 1 or (eta and generator is None):
        raise ValueError(f"eta is in [0, 1] and needs generator= above 0, got eta={eta} and generator={generator}")
    levels = level_grid(n_steps, start=t_start)
    scheduler, times = _chain(DDIMScheduler, levels), _times(levels, x)
    if observe is not None:
        observe(times[0], x)
    for number in range(n_steps):
        noise = field(x, times[number])
        x = scheduler.step(noise, n_steps - 1 - number, x, eta=eta, generator=generator).prev_sample
        if observe is not None:
            observe(times[number + 1], x)
    return x


@torch.no_grad()
def invert(
    field: Field,
    x: Tensor,
    n_steps: int,
    *,
    t_stop: float = 0.0,
    observe: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """From data to the noise that `sample` turns into them, with eta = 0: equation (3) backwards.

    Backwards the noise at the noisier end would be needed before one is there. As usual it is asked for at that end's
    level, but in the state at hand; the error falls with the number of steps. So the network is never called at t = 1,
    where it was not trained.

    Args:
        field: as in `sample`.
        x: data (B, ...).
        n_steps: steps from 1 to `t_stop`.
        t_stop: time in [0, 1) to end at.
        observe: as in `sample`; times descend.

    Returns:
        The state at `t_stop` (B, ...).

    Raises:
        ValueError: as `level_grid`.
    """
    from diffusers import DDIMInverseScheduler

    levels = level_grid(n_steps, start=t_stop).flip(0)
    scheduler, times = _chain(DDIMInverseScheduler, levels), _times(levels, x)
    if observe is not None:
        observe(times[0], x)
    for number in range(n_steps):
        x = scheduler.step(field(x, times[number + 1]), number, x).prev_sample
        if observe is not None:
            observe(times[number + 1], x)
    return x


def _shares(t: Tensor | float, like: Tensor) -> tuple[Tensor, Tensor]:
    """What data and noise are multiplied with in (1) at a time, a number or (B,), ready for (B, ...)."""
    t = torch.as_tensor(t, device=like.device)
    energy = _alpha_bar(like.device)[((1 - t) * LEVELS).round().long()]
    energy = energy.reshape(-1, *[1] * (like.ndim - 1)) if energy.ndim else energy
    return energy.sqrt().to(like), (1 - energy).sqrt().to(like)


@cache
def _alpha_bar(device: torch.device) -> Tensor:
    """The data's share of the energy at levels 0 to 1000 (1001,)."""
    from diffusers import DDPMScheduler

    schedule = DDPMScheduler(
        num_train_timesteps=LEVELS, beta_start=BETA_START, beta_end=BETA_END, beta_schedule="scaled_linear"
    )
    return torch.cat([torch.ones(1), schedule.alphas_cumprod]).to(device)


def _chain(scheduler: type, levels: Tensor) -> Any:
    """A scheduler of diffusers whose steps are those between the given levels, the cleanest pair being step 0."""
    alpha_bar = _alpha_bar(torch.device("cpu"))[levels.sort().values].double()
    betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
    chain = scheduler(num_train_timesteps=len(betas), trained_betas=betas.tolist(), clip_sample=False)
    chain.set_timesteps(len(betas))
    return chain


def _times(levels: Tensor, x: Tensor) -> Tensor:
    """Times of levels, on the device before the loop; always float32, since half precision would round them."""
    return (1 - levels / LEVELS).to(x.device)
