"""The exercises of notebook 02: right answers pass, stubs are not done, wrong ones get the right hint."""

import math

import numpy as np
import torch

from lasslab.course.exercises import evaluate_answer
from lasslab.signal.mel import hz_to_mel, mel_to_hz


def band_edges(n_mels, f_min, f_max):
    low, high = hz_to_mel(torch.tensor([f_min, f_max]))
    return mel_to_hz(torch.linspace(float(low), float(high), n_mels + 2))


def librosa_edges(n_mels, f_min, f_max, htk=False):
    import librosa

    return librosa.mel_frequencies(n_mels + 2, fmin=f_min, fmax=f_max, htk=htk)


def level_shift(gain_db):
    return gain_db * math.log(10) / 20


def mel_to_magnitude(log_mel, filters):
    return (torch.linalg.pinv(filters) @ log_mel.exp()).clamp_min(0)


def by_numpy(log_mel, filters):
    return np.maximum(np.linalg.pinv(filters.numpy()) @ np.exp(log_mel.numpy()), 1e-5)


def mask_on_bins(mask, filters):
    return (filters.T @ mask) / filters.sum(dim=0)[:, None].clamp_min(1e-9)


def mask_by_loop(mask, filters):
    spread = torch.zeros(filters.shape[1], mask.shape[1])
    for k in range(filters.shape[1]):
        weight = filters[:, k]
        if weight.sum() > 0:
            spread[k] = (weight[:, None] * mask).sum(dim=0) / weight.sum()
    return spread


RIGHT = {
    "02.band_edges": [band_edges, librosa_edges],
    "02.level_shift": [level_shift, lambda g: torch.log(torch.tensor(10 ** (g / 20))), lambda g: g * 0.1151292546],
    "02.mel_to_magnitude": [mel_to_magnitude, by_numpy],
    "02.mask_on_bins": [mask_on_bins, mask_by_loop],
}


def mels_not_hertz(n_mels, f_min, f_max):
    low, high = hz_to_mel(torch.tensor([f_min, f_max]))
    return torch.linspace(float(low), float(high), n_mels + 2)


def strongest_band(mask, filters):
    return mask[filters.argmax(dim=0)] * (filters.sum(dim=0) > 0)[:, None]


WRONG = [
    ("02.band_edges", lambda m, low, high: band_edges(m - 2, low, high), "n_mels + 2 edges"),
    ("02.band_edges", lambda m, low, high: band_edges(m, low, high)[1:-1], "n_mels + 2 edges"),
    ("02.band_edges", lambda m, low, high: torch.linspace(low, high, m + 2), "not in hertz"),
    ("02.band_edges", mels_not_hertz, "go back to hertz"),
    ("02.band_edges", lambda m, low, high: librosa_edges(m, low, high, htk=True), "Slaney's scale"),
    ("02.band_edges", lambda m, low, high: torch.logspace(1, 3, m + 2), "The first edge is f_min"),
    ("02.level_shift", lambda g: g * math.log(10) / 10, "sums of magnitudes"),
    ("02.level_shift", lambda g: g / 20, "natural one"),
    ("02.level_shift", lambda g: 10 ** (g / 20), "product is a sum"),
    ("02.level_shift", lambda g: g, "Decibels are 20 log10"),
    ("02.level_shift", lambda g: abs(g) * math.log(10) / 20, "multiplies the samples"),
    ("02.level_shift", lambda g: -g * math.log(10) / 20, "multiplies the samples"),
    ("02.mel_to_magnitude", lambda log_mel, filters: filters.T @ log_mel.exp(), "It is the pseudo-inverse"),
    ("02.mel_to_magnitude", lambda log_mel, filters: torch.linalg.pinv(filters) @ log_mel.exp(), "clamp_min"),
    (
        "02.mel_to_magnitude",
        lambda log_mel, filters: (torch.linalg.pinv(filters) @ log_mel.exp()).abs(),
        "flip its sign",
    ),
    ("02.mel_to_magnitude", lambda log_mel, filters: torch.linalg.pinv(filters) @ log_mel, "undo the logarithm"),
    ("02.mel_to_magnitude", lambda log_mel, filters: log_mel.exp(), "From bands to bins"),
    ("02.mask_on_bins", lambda mask, filters: filters.T @ mask, "divide, in each bin"),
    (
        "02.mask_on_bins",
        lambda mask, filters: (filters / filters.sum(dim=1, keepdim=True)).T @ mask,
        "divide, in each bin",
    ),
    ("02.mask_on_bins", lambda mask, filters: (filters.T @ mask) / filters.sum(dim=0)[:, None], "0 / 0"),
    ("02.mask_on_bins", strongest_band, "half of each band"),
    ("02.mask_on_bins", lambda mask, filters: mask, "One gain for each bin"),
]


def test_an_error_is_told_in_words():
    result = evaluate_answer("02.mask_on_bins", lambda mask, filters: filters @ mask)
    assert not result.passed and "RuntimeError" in result.got
