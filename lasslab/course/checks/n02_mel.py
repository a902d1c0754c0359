"""Checks of notebook 02, mel features."""

import math

import torch

from lasslab.course.exercises import Wrong, expect_close, expect_shape

# What comes for 20 dB when the gain is misread: (value, in words, hint).
KNOWN_SHIFTS = (
    (
        2 * math.log(10),
        "twice that",
        "20 dB are a factor of 10 in amplitude and of 100 in power. These mels are sums of magnitudes: it is 10.",
    ),
    (1.0, "1, which is log10(10)", "FlowSep's logarithm is the natural one: math.log, not log10."),
    (10.0, "10, the factor itself", "The logarithm of a product is a sum: ln(10 mel) = ln(10) + ln(mel)."),
    (20.0, "20, the decibels themselves", "Decibels are 20 log10 of a factor; what is its natural logarithm?"),
)


def check_band_edges(answer):
    """M + 2 frequencies in Hz, evenly spaced on Slaney's scale."""
    expect_shape(
        answer(4, 0.0, 1000.0),
        (6,),
        what="the edges of 4 filters",
        hint="Filter m has its foot at edge m - 1, its top at m and its other foot at m + 1: n_mels filters need "
        "n_mels + 2 edges.",
    )
    below = torch.as_tensor(answer(4, 0.0, 1000.0))
    if abs(float(below[-1]) - 15) < 0.1:
        raise Wrong(
            expected="edges in hertz, the last of them 1000",
            got=f"{float(below[-1]):.4g} as the last: these are mels",
            hint="The steps are equal in mel; then go back to hertz, with mel_to_hz.",
        )
    expect_close(
        below,
        torch.tensor([0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]),
        what="the edges of 4 filters from 0 to 1000 Hz",
        hint="The first edge is f_min and the last is f_max. Below 1 kHz Slaney's scale, equation (2), is a straight "
        "line, so here the steps are equal in hertz, too; other scales are bent.",
        atol=0.1,
    )
    expect_close(
        answer(2, 1000.0, 6400.0),
        1000 * 6.4 ** (torch.arange(4) / 3),
        what="the edges of 2 filters from 1000 to 6400 Hz",
        hint="Equal steps in mel, not in hertz: convert f_min and f_max to mel first, divide there, and convert back. "
        "Above 1 kHz, each edge is then the same factor above the one before.",
        atol=1.0,
    )


def check_level_shift(answer):
    """A gain in dB -> what it adds to a natural log of magnitudes."""
    value = float(answer(20.0))
    for wrong, got, hint in KNOWN_SHIFTS:
        if abs(value - wrong) < 1e-2:
            raise Wrong(expected=f"{math.log(10):.4f} for a gain of 20 dB", got=got, hint=hint)
    for gain_db in (20.0, 0.0, 6.0, -40.0):
        expect_close(
            answer(gain_db),
            gain_db * math.log(10) / 20,
            what=f"what a gain of {gain_db:g} dB adds to the log mel",
            hint="A gain of g dB multiplies the samples by 10 ** (g / 20), and all magnitudes with them. Take the "
            "natural logarithm of that factor.",
        )


def check_mel_to_magnitude(answer):
    """Log mel (M, N) and filters (M, F) -> max(pinv(W) exp(log mel), 0), (F, N)."""
    filters = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    truth = torch.tensor([[1.0, 2.0], [3.0, 3.0], [3.0, 1.0], [1.0, 0.0]])  # in the filters' row space
    log_mel = (filters @ truth).log()
    got = answer(log_mel.clone(), filters.clone())
    expect_shape(
        got,
        (4, 2),
        what="the magnitude from 3 bands, 4 bins and 2 frames",
        hint="From bands to bins: (F, M) @ (M, N) = (F, N). torch.linalg.pinv(filters) is (F, M).",
    )
    without_exp = (torch.linalg.pinv(filters) @ log_mel).clamp_min(0)
    if torch.allclose(torch.as_tensor(got).float().clamp_min(0), without_exp, atol=1e-3):
        raise Wrong(
            expected="the magnitude of these mels",
            got="the pseudo-inverse of their logarithm",
            hint="The filters add up magnitudes, not logarithms: undo the logarithm first, with exp.",
        )
    expect_close(
        got,
        truth,
        what="the magnitude behind a mel that the pseudo-inverse can undo exactly",
        hint="The transpose hands every bin the sum of its bands. It is the pseudo-inverse that undoes the filters: "
        "torch.linalg.pinv.",
        atol=1e-3,
    )
    expect_close(
        answer(torch.tensor([[0.01], [1.0], [0.01]]).log(), filters.clone()),
        torch.tensor([[0.0], [0.5], [0.5], [0.0]]),
        what="the magnitude behind one strong band between two weak ones",
        hint="The pseudo-inverse goes below zero next to a strong band, and a magnitude cannot. Raise what is negative "
        "to 0 (clamp_min); do not flip its sign.",
        atol=1e-3,
    )


def check_mask_on_bins(answer):
    """Mask (M, N) and filters (M, F) -> weighted mean over the bands (F, N), 0 where no filter reaches."""
    filters = torch.tensor([[2.0, 1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 3.0, 1.0, 0.0]])
    got = answer(torch.ones(2, 3), filters.clone())
    expect_shape(
        got,
        (5, 3),
        what="a mask of 2 bands, spread over 5 bins and 3 frames,",
        hint="One gain for each bin and frame: filters.T is (F, M).",
    )
    values = torch.as_tensor(got).float()
    if not bool(values[-1].isfinite().all()):
        raise Wrong(
            expected="0 in a bin that no filter reaches",
            got="NaN or infinity there",
            hint="The last bin here belongs to no band, so the mean is 0 / 0. Return 0 there, for example with "
            "clamp_min on the divisor.",
        )
    expect_close(
        values,
        torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])[:, None].expand(5, 3),
        what="the gains of the bins when every band's gain is 1",
        hint="A mask that keeps every band must keep every bin: divide, in each bin, by the sum of its weights over "
        "the bands (not, in each band, by the sum over the bins).",
    )
    expect_close(
        answer(torch.tensor([[0.2], [0.8]]), filters.clone()),
        torch.tensor([[0.2], [0.5], [0.8], [0.8], [0.0]]),
        what="the gains of the bins for band gains 0.2 and 0.8",
        hint="A bin that belongs to two bands gets the mean of their gains, weighted with the filters' values in that "
        "bin. Here the second bin is half of each band.",
    )


CHECKS = {
    "02.band_edges": check_band_edges,
    "02.level_shift": check_level_shift,
    "02.mel_to_magnitude": check_mel_to_magnitude,
    "02.mask_on_bins": check_mask_on_bins,
}
