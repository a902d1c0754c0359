"""The exercises of notebook 01: right answers pass, stubs are not done, wrong ones get the right hint."""

import math

import torch

from lasslab.course.exercises import evaluate_answer


def hann(n_fft):
    return 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(n_fft) / n_fft)


def n_frames(n_samples, hop_length):
    return 1 + math.ceil(n_samples / hop_length)


def overlap_add(frames, hop_length):
    total = torch.zeros((len(frames) - 1) * hop_length + frames.shape[1])
    for m, frame in enumerate(frames):
        total[m * hop_length : m * hop_length + len(frame)] += frame
    return total


def largest_cola_hop(window):
    for hop in range(len(window), 0, -1):
        total = torch.zeros(hop, dtype=torch.float64)
        for n, value in enumerate(window):
            total[n % hop] += value
        if total.max() - total.min() < 1e-4 * total.max():
            return hop


RIGHT = {
    "01.hann_window": [hann, lambda n: torch.hann_window(n), lambda n: torch.hann_window(n).numpy()],
    "01.n_frames": [n_frames, lambda t, h: 1 - (-t // h), lambda t, h: torch.tensor(n_frames(t, h))],
    "01.overlap_add": [overlap_add],
    "01.largest_cola_hop": [largest_cola_hop],
}


def overwrite(frames, hop_length):
    total = torch.zeros((len(frames) - 1) * hop_length + frames.shape[1])
    for m, frame in enumerate(frames):
        total[m * hop_length : m * hop_length + len(frame)] = frame
    return total


def only_neighbours(frames, hop_length):
    """Right while no more than two frames overlap."""
    total = overwrite(frames, hop_length)
    for m in range(1, len(frames)):
        overlap = frames.shape[1] - hop_length
        if overlap > 0:
            start = m * hop_length
            total[start : start + overlap] = frames[m, :overlap] + frames[m - 1, hop_length:]
    return total


WRONG = [
    ("01.hann_window", lambda n: torch.hann_window(n, periodic=False), "not by n_fft - 1"),
    ("01.hann_window", lambda n: torch.sin(math.pi * torch.arange(n) / n), "Equation (2)"),
    ("01.hann_window", lambda n: 0.5 - 0.5 * torch.cos(math.pi * torch.arange(n) / n), "turns once"),
    ("01.hann_window", lambda n: hann(n + 1), "One value for each n"),
    ("01.n_frames", lambda t, h: 1 + t // h, "round up"),
    ("01.n_frames", lambda t, h: math.ceil(t / h), "The centres are"),
    ("01.n_frames", lambda t, h: 1 + (t - 512) // h, "The centres are"),
    ("01.n_frames", lambda t, h: 1 + t / h, "round up"),
    ("01.overlap_add", overwrite, "+="),
    ("01.overlap_add", only_neighbours, "More than two frames"),
    ("01.overlap_add", lambda frames, hop: frames.flatten(), "The last frame begins"),
    ("01.overlap_add", lambda frames, hop: overlap_add(frames, 2), "nothing overlaps"),
    ("01.largest_cola_hop", lambda window: len(window) // 2, "begin the search"),
    ("01.largest_cola_hop", lambda window: 24 if window.min() == 1 else 12, "Search, with the window"),
    ("01.largest_cola_hop", lambda window: len(window), "one stretch of the sum"),
]


def test_an_error_is_told_in_words():
    result = evaluate_answer("01.overlap_add", lambda frames, hop: frames + torch.zeros(99))
    assert not result.passed and "RuntimeError" in result.got
