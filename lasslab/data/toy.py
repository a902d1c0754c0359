"""Points in the plane with two classes: distributions whose samples can be looked at whole. Notebook 11.

Each function gives points (n, 2) and labels (n,), 0 or 1, half of each, in random order. Points are centred, and the
mean square of a coordinate is 1, as of the noise they are made from. The scale is known in closed form, so that it is
the same for every sample.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def two_moons(n: int, *, generator: torch.Generator, spread: float = 0.08) -> tuple[Tensor, Tensor]:
    """Two half circles that reach into one another; class 0 is the upper one.

    Args:
        n: number of points, even.
        generator: of places on the arcs and of the noise around them.
        spread: standard deviation of that noise, in radii.

    Returns:
        Points (n, 2) and labels (n,).

    Raises:
        ValueError: a number that is not even and positive, or a negative spread.
    """
    labels = _labels(n, generator)
    angle = math.pi * torch.rand(n, generator=generator)
    upper = torch.stack([angle.cos(), angle.sin()], dim=-1)
    arcs = torch.where(labels[:, None] == 0, upper, torch.tensor([1.0, 0.5]) - upper)
    centred = arcs - torch.tensor([0.5, 0.25])
    # across the variance is E cos^2 + 1/4; up it is E (sin - 1/4)^2 = 9/16 - 1/pi
    return _scaled(centred, (0.75 + 0.5625 - 1 / math.pi) / 2, spread, generator), labels


def two_spirals(n: int, *, generator: torch.Generator, spread: float = 0.03) -> tuple[Tensor, Tensor]:
    """Two arms of one and a half turns, one the other turned by half a turn; evenly filled but for the very middle.

    Args:
        n: number of points, even.
        generator: of places on the arms and of the noise around them.
        spread: standard deviation of that noise, in radii.

    Returns:
        Points (n, 2) and labels (n,).

    Raises:
        ValueError: a number that is not even and positive, or a negative spread.
    """
    labels = _labels(n, generator)
    radius = torch.rand(n, generator=generator).sqrt()
    angle = 3 * math.pi * radius + math.pi * labels
    arms = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
    return _scaled(arms, 0.25, spread, generator), labels  # E radius^2 = 1/2, over two coordinates


def checkerboard(n: int, *, generator: torch.Generator, spread: float = 0.0) -> tuple[Tensor, Tensor]:
    """Four by four squares; class 0 fills the black ones and class 1 the white ones, so that both together fill all.

    Args:
        n: number of points, even.
        generator: of squares, places in them and the noise.
        spread: standard deviation of the noise, in squares; 0 leaves sharp edges.

    Returns:
        Points (n, 2) and labels (n,).

    Raises:
        ValueError: a number that is not even and positive, or a negative spread.
    """
    labels = _labels(n, generator)
    row = torch.randint(0, 4, (n,), generator=generator)
    column = 2 * torch.randint(0, 2, (n,), generator=generator) + (row + labels) % 2
    corner = torch.stack([column, row], dim=-1) - 2.0
    return _scaled(corner + torch.rand(n, 2, generator=generator), 16 / 12, spread, generator), labels


TOYS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "two_moons": two_moons,
    "two_spirals": two_spirals,
    "checkerboard": checkerboard,
}


def _labels(n: int, generator: torch.Generator) -> Tensor:
    if n < 2 or n % 2:
        raise ValueError(f"n must be even and at least 2, half of the points for each class, got {n}")
    return torch.randperm(n, generator=generator) % 2


def _scaled(points: Tensor, mean_square: float, spread: float, generator: torch.Generator) -> Tensor:
    """With noise around them, divided so that the mean square of a coordinate is 1."""
    if spread < 0:
        raise ValueError(f"spread is a standard deviation, got {spread}: 0 or more")
    noisy = points + spread * torch.randn(points.shape, generator=generator)
    return noisy / math.sqrt(mean_square + spread**2)
