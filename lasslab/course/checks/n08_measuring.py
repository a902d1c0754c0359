"""Checks of notebook 08, measuring separation."""

import math

import torch

from lasslab.course.exercises import Wrong, expect_close
from lasslab.evaluation.metrics import bootstrap_interval


def check_floors(answer):
    """Published SDR and SDRi in dB -> (SDRi of silence, SDRi of the best gain), dB."""
    for sdr_db, sdri_db in ((2.41, 8.37), (5.0, 5.0), (12.0, 9.0)):
        what = f"for a paper with SDR {sdr_db:g} and SDRi {sdri_db:g} dB"
        values = _two(answer(sdr_db, sdri_db), "(SDRi of silence, SDRi of the best gain)")
        snr_db = sdr_db - sdri_db
        expect_close(
            values[0],
            -snr_db,
            what=f"the SDRi of silence {what}",
            hint="The mixtures' SDR is SDR - SDRi. Silence has SDR 0, so its SDRi is 0 minus that: mind the sign.",
            atol=5e-3,
        )
        expect_close(
            values[1],
            10 * math.log10(1 + 10 ** (snr_db / 10)) - snr_db,
            what=f"the SDRi of the best gain {what}",
            hint="Its SDR is 10 log10(1 + rho) with rho = 10^(SNR / 10), and the SNR is the mixtures' SDR; an SDRi is "
            "that SDR minus the SNR.",
            atol=5e-3,
        )


def check_delay(answer):
    """Correlation r of a sound with its delayed copy -> (SDR, SI-SDR), dB."""
    for r in (0.9, 0.5, -0.6):
        sdr_db, si_sdr_db = _two(answer(r), "(SDR, SI-SDR)")
        expect_close(
            sdr_db,
            -10 * math.log10(2 - 2 * r),
            what=f"the SDR in dB for a correlation of {r:g}",
            hint="Write out |s - s'|^2 = |s|^2 - 2 <s, s'> + |s'|^2; both energies are equal, and <s, s'> = r |s|^2.",
            atol=1e-3,
        )
        expect_close(
            si_sdr_db,
            10 * math.log10(r * r / (1 - r * r)),
            what=f"the SI-SDR in dB for a correlation of {r:g}",
            hint="The scaled target is r s, with energy r^2 |s|^2; what is left of s' is at right angles to it, and "
            "the two energies add up to |s'|^2 = |s|^2.",
            atol=1e-3,
        )


def check_paired_interval(answer):
    """Scores (n,) of two systems on the same items -> (low, high) of the mean difference, first minus second."""
    generator = torch.Generator().manual_seed(0)
    items = 10 * torch.randn(60, generator=generator, dtype=torch.float64)
    second = items + 0.3 * torch.randn(60, generator=generator, dtype=torch.float64)
    first = items + 1.0 + 0.3 * torch.randn(60, generator=generator, dtype=torch.float64)
    low, high = _two(answer(first.clone(), second.clone()), "(low, high)")
    difference = first - second
    mean, spread = float(difference.mean()), float(difference.std())
    if -high <= -low and abs(low + high + 2 * mean) < 0.2:
        raise Wrong(
            expected=f"an interval around {mean:.2f}, the mean of first minus second",
            got=f"{low:.2f} to {high:.2f}",
            hint="First minus second: the sign says which of the two is better.",
        )
    if abs((low + high) / 2 - mean) > 0.2:
        raise Wrong(
            expected=f"an interval around {mean:.2f}, the mean of first minus second",
            got=f"{low:.2f} to {high:.2f}",
            hint="Take the differences item by item, then resample them and take the mean of each resample.",
        )
    wanted = bootstrap_interval(difference)
    width = wanted[1] - wanted[0]
    if high - low > 5 * width and high - low < 8 * spread:
        raise Wrong(
            expected=f"an interval about {width:.2f} wide",
            got=f"one {high - low:.2f} wide",
            hint="That is about the spread of single items. The interval is for their mean: resample, and take means.",
        )
    if high - low > 5 * width:
        raise Wrong(
            expected=f"an interval about {width:.2f} wide",
            got=f"one {high - low:.2f} wide",
            hint="Both systems had the same items. Draw item numbers once and use them for both, or resample the "
            "differences; resampled apart, hard and easy items no longer cancel.",
        )
    expect_close(
        [low, high],
        list(wanted),
        what="the 95 % interval of the mean difference",
        hint="Of many resampled means, the 2.5 % and the 97.5 % quantile.",
        atol=0.25 * width,
    )


def check_frechet_diagonal(answer):
    """Two Gaussians with independent axes: means and standard deviations (D,) -> Fréchet distance."""
    zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    expect_close(
        answer(torch.tensor([3.0, 4.0], dtype=torch.float64), one.clone(), zero.clone(), one.clone()),
        25.0,
        what="the distance of two Gaussians of equal spread whose means are 5 apart",
        hint="The first term is |mu_e - mu_t|^2: squared, summed over the axes, no root.",
    )
    wide = torch.tensor([1.0, 3.0], dtype=torch.float64)
    expect_close(
        answer(zero.clone(), wide, zero.clone(), one.clone()),
        4.0,
        what="the distance of equal means and standard deviations (1, 3) and (1, 1)",
        hint="C = sigma^2 on each axis, so tr(C_e + C_t - 2 (C_e C_t)^(1/2)) is sum (sigma_e^2 + sigma_t^2 - 2 sigma_e "
        "sigma_t): a square of a difference of standard deviations, not of variances.",
    )
    expect_close(
        answer(one.clone(), 2 * wide, 3 * one, wide.flip(0)),
        8.0 + 1.0 + 25.0,
        what="the distance of means (1, 1) and (3, 3), deviations (2, 6) and (3, 1)",
        hint="Both terms, added, over all axes.",
    )


def _two(values, what):
    """Two numbers, or a word about their absence."""
    try:
        first, second = values
        return float(first), float(second)
    except (TypeError, ValueError):
        raise Wrong(
            expected=f"two numbers, {what}",
            got=f"a {type(values).__name__}",
            hint="Return both, separated by a comma.",
        ) from None


CHECKS = {
    "08.floors": check_floors,
    "08.delay": check_delay,
    "08.paired_interval": check_paired_interval,
    "08.frechet_diagonal": check_frechet_diagonal,
}
