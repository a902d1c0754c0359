"""The exercises of notebook 05: right answers pass, stubs are not done, wrong ones get the right hint."""

import math

import torch

from lasslab.course.exercises import evaluate_answer
from lasslab.evaluation import metrics
from lasslab.signal.spectral import ideal_ratio_mask


def ratio_mask(S, N, exponent):
    s, n = S.abs() ** exponent, N.abs() ** exponent
    return torch.where(s + n > 0, s / (s + n), torch.ones_like(s))


def si_sdr(estimate, target):
    scaled = (estimate * target).sum() / target.square().sum() * target
    return 10 * torch.log10(scaled.square().sum() / (scaled - estimate).square().sum())


def half_mixture_sdr(snr_db):
    return -10 * math.log10((1 + 10 ** (-snr_db / 10)) / 4)


def best_gain(mixture, target):
    return (mixture * target).sum() / mixture.square().sum()


RIGHT = {
    "05.ratio_mask": [ratio_mask, lambda S, N, exponent: ideal_ratio_mask(S, N, exponent=exponent)],
    "05.si_sdr": [
        si_sdr,
        lambda estimate, target: si_sdr(estimate, target).item(),
        lambda estimate, target: metrics.si_sdr(estimate=estimate, target=target),
    ],
    "05.half_mixture_sdr": [half_mixture_sdr, lambda db: 10 * math.log10(4 / (1 + 1 / 10 ** (db / 10)))],
    "05.best_gain": [best_gain, lambda x, s: metrics.best_gain(estimate=x, target=s)],
}


def without_scaling(estimate, target):
    return 10 * torch.log10(target.square().sum() / (target - estimate).square().sum())


def estimate_scaled_to_target(estimate, target):
    gain = (estimate * target).sum() / estimate.square().sum()
    return without_scaling(gain * estimate, target)


def of_amplitudes(estimate, target):
    return si_sdr(estimate, target) / 2


def without_means(estimate, target):
    return si_sdr(estimate - estimate.mean(), target - target.mean())


def naive_ratio(S, N, exponent):
    s, n = S.abs() ** exponent, N.abs() ** exponent
    return s / (s + n)


WRONG = [
    ("05.ratio_mask", naive_ratio, "0 / 0"),
    ("05.ratio_mask", lambda S, N, exponent: ratio_mask(S, N, 1), "Raise both"),
    ("05.ratio_mask", lambda S, N, exponent: ratio_mask(S, N, 2), "target's share"),
    ("05.ratio_mask", lambda S, N, exponent: S.abs() ** exponent / (S + N).abs() ** exponent, "another thing"),
    ("05.ratio_mask", lambda S, N, exponent: ratio_mask(N, S, exponent), "target's share"),
    ("05.ratio_mask", lambda S, N, exponent: S**exponent / (S**exponent + N**exponent), "magnitudes first"),
    ("05.si_sdr", without_scaling, "A gain must change nothing"),
    ("05.si_sdr", estimate_scaled_to_target, "the numerator holds"),
    ("05.si_sdr", of_amplitudes, "sums of squares"),
    ("05.si_sdr", without_means, "Subtract no mean"),
    ("05.half_mixture_sdr", lambda db: 10 * math.log10(2), "at any SNR"),
    ("05.half_mixture_sdr", lambda db: db + 10 * math.log10(2), "at any SNR"),
    ("05.half_mixture_sdr", lambda db: 10 * math.log10(1 + 10 ** (db / 10)), "at any SNR"),
    ("05.half_mixture_sdr", lambda db: half_mixture_sdr(db) - db, "not an SDRi"),
    ("05.half_mixture_sdr", lambda db: 20 * math.log10(2), "half the target's"),
    ("05.best_gain", lambda x, s: 0.5, "divide by the mixture's energy"),
    ("05.best_gain", lambda x, s: (x * s).sum() / s.square().sum(), "the mixture"),
    ("05.best_gain", lambda x, s: s.square().sum() / (s.square().sum() + (x - s).square().sum()), "Do not assume"),
]


def test_an_error_is_told_in_words():
    result = evaluate_answer("05.best_gain", lambda x, s: x @ s[:3])
    assert not result.passed and "RuntimeError" in result.got
