"""The exercises of notebook 08: right answers pass, stubs are not done, wrong ones get the right hint."""

import math

import numpy as np
import torch

from lasslab.course.exercises import evaluate_answer
from lasslab.evaluation.metrics import bootstrap_interval


def floors(sdr, sdri):
    snr = sdr - sdri
    return -snr, 10 * math.log10(1 + 10 ** (snr / 10)) - snr


def delay(r):
    return -10 * math.log10(2 - 2 * r), 10 * math.log10(r**2 / (1 - r**2))


def paired_interval(first, second):
    return bootstrap_interval(first - second)


def paired_by_numbers(first, second):
    random = np.random.default_rng(5)
    means = []
    for _ in range(2000):
        drawn = random.integers(len(first), size=len(first))
        means.append((first[drawn].mean() - second[drawn].mean()).item())
    return np.quantile(means, (0.025, 0.975))


def frechet_diagonal(mean_e, std_e, mean_t, std_t):
    return (mean_e - mean_t).square().sum() + (std_e - std_t).square().sum()


RIGHT = {
    "08.floors": [floors, lambda sdr, sdri: torch.tensor(floors(sdr, sdri))],
    "08.delay": [delay, lambda r: [-10 * math.log10(2 * (1 - r)), -10 * math.log10(1 / r**2 - 1)]],
    "08.paired_interval": [paired_interval, paired_by_numbers],
    "08.frechet_diagonal": [
        frechet_diagonal,
        lambda a, b, c, d: ((a - c) ** 2 + b**2 + d**2 - 2 * (b**2 * d**2) ** 0.5).sum().item(),
    ],
}


def two_intervals(first, second):
    (a, b), (c, d) = bootstrap_interval(first), bootstrap_interval(second)
    return a - d, b - c


def resampled_apart(first, second):
    random = np.random.default_rng(0)
    means = [
        random.choice(first.numpy(), len(first)).mean() - random.choice(second.numpy(), len(second)).mean()
        for _ in range(2000)
    ]
    return np.quantile(means, (0.025, 0.975))


def spread_of_items(first, second):
    return np.quantile((first - second).numpy(), (0.025, 0.975))


WRONG = [
    ("08.floors", lambda sdr, sdri: (sdr - sdri, floors(sdr, sdri)[1]), "mind the sign"),
    ("08.floors", lambda sdr, sdri: (sdri - sdr, 10 * math.log10(1 + 10 ** ((sdr - sdri) / 10))), "minus the SNR"),
    ("08.floors", lambda sdr, sdri: (sdri - sdr, sdri - sdr + 3.01), "10 log10(1 + rho)"),
    ("08.floors", lambda sdr, sdri: sdri - sdr, "Return both"),
    ("08.delay", lambda r: (-10 * math.log10(1 - r), delay(r)[1]), "Write out"),
    ("08.delay", lambda r: (-10 * math.log10(2 - 2 * r), 10 * math.log10(r / (1 - r)) if r > 0 else 0), "r^2"),
    ("08.delay", lambda r: (-10 * math.log10(2 - 2 * r), -10 * math.log10(1 - r**2)), "right angles"),
    ("08.delay", lambda r: (-20 * math.log10(2 - 2 * r), delay(r)[1]), "Write out"),
    ("08.paired_interval", two_intervals, "same items"),
    ("08.paired_interval", resampled_apart, "same items"),
    ("08.paired_interval", spread_of_items, "single items"),
    ("08.paired_interval", lambda first, second: paired_interval(second, first), "First minus second"),
    ("08.paired_interval", lambda first, second: bootstrap_interval(first), "item by item"),
    ("08.paired_interval", lambda first, second: (first - second).mean(), "Return both"),
    ("08.paired_interval", lambda f, s: bootstrap_interval(f - s, confidence=0.5), "97.5 %"),
    ("08.frechet_diagonal", lambda a, b, c, d: (a - c).norm() + (b - d).square().sum(), "no root"),
    ("08.frechet_diagonal", lambda a, b, c, d: (a - c).square().sum() + (b**2 - d**2).square().sum(), "variances"),
    ("08.frechet_diagonal", lambda a, b, c, d: (a - c).square().sum(), "standard deviations"),
    ("08.frechet_diagonal", lambda a, b, c, d: (a - c).square().mean() + (b - d).square().mean(), "summed"),
]


def test_an_error_is_told_in_words():
    result = evaluate_answer("08.frechet_diagonal", lambda a, b, c, d: a @ b[:1])
    assert not result.passed and "RuntimeError" in result.got
