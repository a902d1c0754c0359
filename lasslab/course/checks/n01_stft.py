"""Checks of notebook 01, the STFT and phase."""

import math

import torch

from lasslab.course.exercises import Wrong, expect_close, expect_shape


def check_hann_window(answer):
    """The periodic Hann window (n_fft,)."""
    expect_shape(answer(8), (8,), what="the window for n_fft = 8", hint="One value for each n = 0 ... n_fft - 1.")
    values = torch.as_tensor(answer(8)).double()
    if abs(values[-1] - values[0]) < 1e-6:
        raise Wrong(
            expected=f"the last of 8 values to be {0.5 - 0.5 * math.cos(2 * math.pi * 7 / 8):.4f}",
            got=f"{values[-1]:.4f}, the same as the first: this is the symmetric window",
            hint="Divide by n_fft, not by n_fft - 1: the value after the last one is w[0] again.",
        )
    for n_fft in (8, 512):
        expected = 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(n_fft) / n_fft)
        expect_close(
            answer(n_fft),
            expected,
            what=f"the window for n_fft = {n_fft}",
            hint="Equation (2): it starts at 0, reaches 1 in the middle, and the cosine turns once, 2 pi n / n_fft.",
        )


def check_n_frames(answer):
    """1 + ceil(T / H)."""
    expect_close(
        answer(1024, 256),
        5,
        what="the number of frames of 1024 samples at hop 256",
        hint="The centres are 0, 256, 512, 768 and 1024: the loop stops after the one that reaches the end.",
    )
    for n_samples, hop_length, expected in ((1000, 256, 5), (1, 256, 2), (1025, 256, 6), (48_000, 160, 301)):
        expect_close(
            answer(n_samples, hop_length),
            expected,
            what=f"the number of frames of {n_samples} samples at hop {hop_length}",
            hint="When the hop does not divide the length, one more frame is needed to reach the end: round up.",
        )


def check_overlap_add(answer):
    """Frames (N, n_fft) -> ((N - 1) H + n_fft,)."""
    frames = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0], [100.0, 200.0, 300.0, 400.0]])
    expect_shape(
        answer(frames.clone(), 2),
        (8,),
        what="three frames of 4 samples, 2 samples apart,",
        hint="The last frame begins at sample (N - 1) * hop_length and is n_fft samples long.",
    )
    expect_close(
        answer(frames.clone(), 2),
        torch.tensor([1.0, 2.0, 13.0, 24.0, 130.0, 240.0, 300.0, 400.0]),
        what="overlap-add of three frames of 4 samples at hop 2",
        hint="Add to what is there (+=): where two frames overlap, both count in full.",
    )
    expect_close(
        answer(frames.clone(), 4),
        frames.flatten(),
        what="overlap-add of frames that only touch (hop 4)",
        hint="With a hop of n_fft nothing overlaps: the frames follow one another.",
    )
    expect_close(
        answer(frames.clone(), 1),
        torch.tensor([1.0, 12.0, 123.0, 234.0, 340.0, 400.0]),
        what="overlap-add of three frames of 4 samples at hop 1",
        hint="More than two frames may overlap: add frame after frame.",
    )


def check_largest_cola_hop(answer):
    """The largest hop that meets COLA."""
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(24) / 24)
    expect_close(
        answer(torch.ones(24)),
        24,
        what="the largest hop for a rectangular window of 24 samples",
        hint="Rectangles side by side add up to 1: begin the search with the window's own length.",
    )
    expect_close(
        answer(hann.clone()),
        12,
        what="the largest hop for a Hann window of 24 samples",
        hint="Look at one stretch of the sum where all windows overlap as they do for ever, not at its ends, and allow "
        "for rounding.",
    )
    expect_close(
        answer(hann.square()),
        8,
        what="the largest hop for the square of a Hann window of 24 samples",
        hint="Search, with the window you are given: the square of a Hann window needs more overlap, a third.",
    )


CHECKS = {
    "01.hann_window": check_hann_window,
    "01.n_frames": check_n_frames,
    "01.overlap_add": check_overlap_add,
    "01.largest_cola_hop": check_largest_cola_hop,
}
