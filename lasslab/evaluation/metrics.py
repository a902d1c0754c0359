"""How close an estimate is to its target, in decibels, and how sure a mean is.

Conventions, the same everywhere in the package:

- SDR is the plain ratio below (AudioSep, DCASE 2024 task 9), not the BSS-eval version that allows a filter;
- no mean is subtracted, unless `zero_mean=True` asks for it;
- no small constant is added to a ratio: an exact estimate scores +inf, the SI-SDR of silence is 0 / 0, NaN;
- sums run in float64, so a gain of the estimate moves SI-SDR by rounding only.

Notebooks: 05 (floors and ceilings), 08 (how each metric can be fooled).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def sdr(*, estimate: Tensor, target: Tensor) -> Tensor:
    """Signal-to-distortion ratio.

    SDR = 10 log10(|s|^2 / |s - s_hat|^2). A silent estimate scores exactly 0 dB, whatever the target.

    Args:
        estimate: s_hat, shape (..., T).
        target: s, shape (..., T), not silent.

    Returns:
        SDR in dB, float64, shape (...); +inf where the estimate is exact.

    Raises:
        ValueError: the shapes differ, a sample is NaN or infinite, or a target is silent.

    Notebook: 08.
    """
    estimate, target = _checked(estimate, target)
    return _decibels(_energy(target), _energy(target - estimate))


def si_sdr(*, estimate: Tensor, target: Tensor, zero_mean: bool = False) -> Tensor:
    """Scale-invariant signal-to-distortion ratio.

    SI-SDR = 10 log10(|a s|^2 / |a s - s_hat|^2),  a = <s_hat, s> / |s|^2. A gain changes nothing.

    Args:
        estimate: s_hat, shape (..., T).
        target: s, shape (..., T), not silent.
        zero_mean: subtract each clip's mean first.

    Returns:
        SI-SDR in dB, float64, shape (...). NaN for a silent estimate (0 / 0), -inf for one at right angles to
        the target, +inf for an exact multiple of it.

    Raises:
        ValueError: the shapes differ, a sample is NaN or infinite, or a target is silent.

    Reference: Le Roux, Wisdom, Erdogan and Hershey, "SDR: half-baked or well done?", 2019, eq. 4.
    Notebook: 08.
    """
    estimate, target = _checked(estimate, target, zero_mean=zero_mean)
    projection = best_gain(estimate=target, target=estimate)[..., None] * target
    return _decibels(_energy(projection), _energy(projection - estimate))


def sdr_improvement(*, estimate: Tensor, target: Tensor, mixture: Tensor) -> Tensor:
    """SDRi: the estimate's SDR minus the unprocessed mixture's, in dB.

    Args:
        estimate: s_hat, shape (..., T).
        target: s, shape (..., T), not silent.
        mixture: x, shape (..., T).

    Returns:
        SDRi in dB, float64, shape (...).

    Raises:
        ValueError: see `sdr`.

    Notebook: 08.
    """
    return sdr(estimate=estimate, target=target) - sdr(estimate=mixture, target=target)


def si_sdr_improvement(*, estimate: Tensor, target: Tensor, mixture: Tensor, zero_mean: bool = False) -> Tensor:
    """SI-SDRi: the estimate's SI-SDR minus the unprocessed mixture's, in dB.

    Args:
        estimate: s_hat, shape (..., T).
        target: s, shape (..., T), not silent.
        mixture: x, shape (..., T).
        zero_mean: see `si_sdr`.

    Returns:
        SI-SDRi in dB, float64, shape (...).

    Raises:
        ValueError: see `si_sdr`.

    Notebook: 08.
    """
    after = si_sdr(estimate=estimate, target=target, zero_mean=zero_mean)
    return after - si_sdr(estimate=mixture, target=target, zero_mean=zero_mean)


def best_gain(*, estimate: Tensor, target: Tensor) -> Tensor:
    """The gain that brings an estimate nearest to its target.

    g = <s_hat, s> / |s_hat|^2 minimises |s - g s_hat|^2; 0 for a silent estimate. The SDR of g s_hat is
    -10 log10(1 - r^2), with r the cosine between the two.

    Args:
        estimate: s_hat, shape (..., T).
        target: s, shape (..., T).

    Returns:
        Gain, float64, shape (...).

    Notebook: 05.
    """
    estimate, target = estimate.double(), target.double()
    energy = _energy(estimate)
    return (estimate * target).sum(dim=-1) / energy.where(energy > 0, 1)


def bootstrap_interval(
    values: Tensor | Sequence[float], *, confidence: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Interval for the mean, by the percentile bootstrap.

    The values are drawn again, with replacement, n_resamples times; the interval holds the middle part of the
    means. It says how the mean would move with other items of the same kind, not with another training run.

    Args:
        values: one figure per item, shape (n,), n >= 1.
        confidence: share of the means inside, between 0 and 1.
        n_resamples: number of draws.
        seed: the same seed gives the same interval.

    Returns:
        (low, high), in the unit of values.

    Raises:
        ValueError: no values, NaN or infinite values, or a confidence outside (0, 1).

    Reference: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13. Notebook: 08.
    """
    values = torch.as_tensor(values, dtype=torch.float64).cpu()
    if values.dim() != 1 or values.numel() == 0 or not values.isfinite().all():
        raise ValueError(
            f"expected finite values of shape (n,), n >= 1, got {tuple(values.shape)}: leave NaN out first"
        )
    if not 0 < confidence < 1 or n_resamples < 1:
        raise ValueError(f"expected 0 < confidence < 1 and n_resamples >= 1, got {confidence} and {n_resamples}")
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(values), (n_resamples, len(values)), generator=generator)
    tail = (1 - confidence) / 2
    low, high = torch.quantile(values[draws].mean(dim=1), torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return low.item(), high.item()


def mean_interval(values: Tensor, *, confidence: float, seed: int) -> list[float] | None:
    """`bootstrap_interval` as reports hold it: None for fewer than two values, which do not say how far others lie."""
    return list(bootstrap_interval(values, confidence=confidence, seed=seed)) if len(values) > 1 else None


def _checked(estimate: Tensor, target: Tensor, *, zero_mean: bool = False) -> tuple[Tensor, Tensor]:
    if estimate.shape != target.shape or target.dim() == 0 or target.shape[-1] == 0:
        raise ValueError(
            f"estimate and target must have the same shape (..., T), got {tuple(estimate.shape)} and "
            f"{tuple(target.shape)}: crop both to one length with fit_length"
        )
    estimate, target = estimate.double(), target.double()
    for label, signal in (("estimate", estimate), ("target", target)):
        if not signal.isfinite().all():
            raise ValueError(f"the {label} has NaN or infinite samples: find out where they arise")
    if zero_mean:
        estimate, target = (signal - signal.mean(dim=-1, keepdim=True) for signal in (estimate, target))
    if (_energy(target) == 0).any():
        raise ValueError("a target is silent: no ratio to it is defined, leave that item out")
    return estimate, target


def _energy(signal: Tensor) -> Tensor:
    return signal.square().sum(dim=-1)


def _decibels(numerator: Tensor, denominator: Tensor) -> Tensor:
    return 10 * torch.log10(numerator / denominator)
