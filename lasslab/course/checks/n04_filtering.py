"""Checks of notebook 04, cosine filtering."""

import math

import torch

from lasslab.course.exercises import Wrong, expect_close, expect_shape


def check_cosine_similarity(answer):
    """Equation (1) over the last two axes."""
    a = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    b = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    c = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    expect_shape(
        answer(a, c),
        (),
        what="the cosine of one pair of spectrograms",
        hint="Sum over both axes, frequency and time: .sum((-2, -1)).",
    )
    expect_close(
        answer(a, 2 * a),
        1.0,
        what="the cosine of a spectrogram and the same twice as loud",
        hint="Divide by both norms: level does not matter.",
    )
    expect_close(
        answer(a, b),
        0.0,
        what="the cosine of two spectrograms that do not overlap",
        hint="The numerator is the sum of the products a * b.",
    )
    expect_close(
        answer(a, c),
        9 / 25,
        what="the cosine of two spectrograms that share one of two bins",
        hint="A norm is the square root of the sum of squares.",
    )
    expect_shape(
        answer(torch.stack([a, a, a]), torch.stack([a, b, c])),
        (3,),
        what="the cosines of three pairs",
        hint="Sum over the last two axes only: leading dimensions are items.",
    )
    expect_close(
        answer(torch.stack([a, a, a]), torch.stack([a, 2 * c, b])),
        torch.tensor([1.0, 0.36, 0.0]),
        what="the cosines of three pairs",
        hint="Each item has norms of its own.",
    )


def check_snr_of_threshold(answer):
    """10 log10(tau^2 / (1 - tau^2))."""
    expect_close(
        answer(1 / math.sqrt(2)),
        0.0,
        what="the SNR for a threshold of 0.7071, in dB,",
        hint="Square both sides of (2) first: tau^2 = 1 / (1 + 10^(-SNR/10)).",
        atol=1e-3,
    )
    if float(answer(0.8)) < 0:
        raise Wrong(
            expected="a positive SNR for a threshold of 0.8: above 0.7071 the target dominates",
            got=f"{float(answer(0.8)):.3g} dB",
            hint="The fraction is upside down: tau^2 / (1 - tau^2).",
        )
    for threshold, expected in ((0.8, 2.4988), (0.65, -1.3565), (0.1, -19.9564)):
        expect_close(
            answer(threshold),
            expected,
            what=f"the SNR for a threshold of {threshold:g}, in dB,",
            hint="Equation (3): both squares belong to the thresholds, and the factor is 10.",
            atol=1e-2,
        )


def check_first_kept(answer):
    """Numbers of the first n similarities that pass."""
    values = torch.tensor([0.9, 0.5, 0.75, 0.8, 0.2, 0.6])
    got = _numbers(answer(values, 3, 0.75))
    if got == [0, 3]:
        raise Wrong(
            expected="the numbers of those that are similar to at most 0.75: 1, 2, 4",
            got="0, 3: those above it",
            hint="The similar pairs are dropped, the others are kept.",
        )
    if got == [1, 4, 5]:
        raise Wrong(
            expected="1, 2, 4: candidate 2 has exactly 0.75",
            got="1, 4, 5",
            hint="A similarity equal to the threshold is kept: use <=.",
        )
    if got == [1, 2, 4, 5]:
        raise Wrong(expected="3 numbers for n = 3", got="4", hint="Stop when n have passed: [:n].")
    _expect_list(got, [1, 2, 4], "for similarities 0.9, 0.5, 0.75, 0.8, 0.2, 0.6, n = 3 and a threshold of 0.75")
    _expect_list(_numbers(answer(values, 10, 0.55)), [1, 4], "when only two pass and ten are asked for")
    _expect_list(_numbers(answer(values, 2, 0.1)), [], "when none passes")


def check_split_sdri(answer):
    """(input SDR, SDRi of silence, SDR above silence)."""
    for mean_sdr, mean_sdri in ((2.41, 8.37), (10.0, 10.0), (3.0, 1.5)):
        got = answer(mean_sdr, mean_sdri)
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong(
                expected="three numbers: input SDR, SDRi of silence, SDR above silence",
                got=f"{got!r:.60}",
                hint="Return a tuple of three.",
            )
        words = f"for SDR {mean_sdr:g} and SDRi {mean_sdri:g} dB"
        expect_close(
            got[0],
            mean_sdr - mean_sdri,
            what=f"the input SDR {words}",
            hint="SDRi = SDR - input SDR; solve for the input SDR.",
        )
        expect_close(
            got[1],
            mean_sdri - mean_sdr,
            what=f"the SDRi of silence {words}",
            hint="Equation (4): silence has an SDR of 0 dB.",
        )
        expect_close(
            got[2],
            mean_sdr,
            what=f"the SDR above silence {words}",
            hint="The SDR of silence is 0 dB: subtract that.",
        )


def _numbers(answer):
    try:
        return [int(number) for number in answer]
    except (TypeError, ValueError):
        raise Wrong(
            expected="a list of candidate numbers", got=f"{answer!r:.60}", hint="Collect the positions, not the values."
        ) from None


def _expect_list(got, expected, words):
    if got != expected:
        raise Wrong(
            expected=f"{expected or 'an empty list'} {words}",
            got=f"{got or 'an empty list'}",
            hint="Go through the similarities with enumerate, keep the numbers of those up to the threshold, in order.",
        )


CHECKS = {
    "04.cosine_similarity": check_cosine_similarity,
    "04.snr_of_threshold": check_snr_of_threshold,
    "04.first_kept": check_first_kept,
    "04.split_sdri": check_split_sdri,
}
