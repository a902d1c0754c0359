"""Checks of notebook 05, masks and oracles."""

import math

import torch

from lasslab.course.exercises import Wrong, expect_close

# |S| = 3, 1, 0 and |N| = 1, 3, 2; every number has another phase
_TARGET = torch.tensor([[3j, -1.0 + 0j, 0j]])
_INTERFERENCE = torch.tensor([[-1.0 + 0j, 3.0 + 0j, 2j]])


def check_ratio_mask(answer):
    """(F, N) complex, (F, N) complex, exponent -> mask (F, N)."""
    magnitude = answer(_TARGET.clone(), _INTERFERENCE.clone(), 1)
    if torch.is_tensor(magnitude) and magnitude.is_complex():
        raise Wrong(expected="a mask of real numbers", got="complex numbers", hint="Take magnitudes first: S.abs().")
    expect_close(
        magnitude,
        torch.tensor([[0.75, 0.25, 0.0]]),
        what="the mask with exponent 1 for |S| = 3, 1, 0 and |N| = 1, 3, 2",
        hint="The target's share: |S|^p over |S|^p + |N|^p. The denominator adds two magnitudes; |S + N| is another "
        "thing.",
    )
    expect_close(
        answer(_TARGET.clone(), _INTERFERENCE.clone(), 2),
        torch.tensor([[0.9, 0.1, 0.0]]),
        what="the mask with exponent 2 for |S| = 3, 1, 0 and |N| = 1, 3, 2",
        hint="Raise both magnitudes to the exponent before dividing.",
    )
    silent = torch.zeros(1, 3, dtype=torch.complex64)
    expect_close(
        answer(silent, silent.clone(), 2),
        torch.ones(1, 3),
        what="the mask where both are silent",
        hint="0 / 0 is NaN: put 1 where |S|^p + |N|^p is 0, with torch.where.",
    )


def _waves():
    """A target, an interference at right angles to it and as strong, and both with another scale; float64."""
    n = torch.arange(64, dtype=torch.float64)
    return torch.sin(2 * math.pi * 3 * n / 64), torch.sin(2 * math.pi * 5 * n / 64)


def check_si_sdr(answer):
    """Two waveforms (T,) -> dB."""
    target, noise = _waves()
    estimate = target + 0.1 * noise
    expect_close(
        answer(estimate, target),
        20.0,
        what="the SI-SDR in dB of a target with a tenth of noise added",
        hint="10 log10 of a ratio of energies, that is of sums of squares; the numerator holds the scaled target a s.",
        atol=1e-3,
    )
    expect_close(
        answer(0.25 * estimate, target),
        20.0,
        what="the SI-SDR of the same estimate, 12 dB quieter,",
        hint="A gain must change nothing: compute a from <s_hat, s> / |s|^2, and scale the target by it.",
        atol=1e-3,
    )
    expect_close(
        answer(target + noise, target),
        0.0,
        what="the SI-SDR of target and noise of equal energy",
        hint="Scale the target to the estimate, not the estimate to the target: a divides by |s|^2.",
        atol=1e-3,
    )
    expect_close(
        answer(target + noise + 1.0, target),
        10 * math.log10(32 / 96),
        what="the SI-SDR of an estimate with an offset of 1",
        hint="Subtract no mean: here an offset is an error like any other.",
        atol=1e-3,
    )


def check_half_mixture_sdr(answer):
    """SNR in dB -> SDR of half the mixture in dB."""
    expect_close(
        answer(0.0),
        10 * math.log10(2),
        what="the SDR of half the mixture at 0 dB",
        hint="Equation (10): the error's energy is half the target's.",
        atol=5e-3,
    )
    for snr_db in (-5.96, 20.0):
        expect_close(
            answer(snr_db),
            -10 * math.log10((1 + 10 ** (-snr_db / 10)) / 4),
            what=f"the SDR of half the mixture at {snr_db:g} dB",
            hint="The error is (s - n) / 2 at any SNR; its energy is (|s|^2 + |n|^2) / 4 with |n|^2 = |s|^2 / rho. It "
            "is an SDR, not an SDRi.",
            atol=5e-3,
        )


def check_best_gain(answer):
    """Mixture (T,), target (T,) -> gain."""
    target, noise = _waves()
    expect_close(
        answer(target + noise, target),
        0.5,
        what="the best gain for two uncorrelated sounds of equal energy",
        hint="<x, s> over the energy of what is scaled: the mixture.",
    )
    expect_close(
        answer(target + 2 * noise, target),
        0.2,
        what="the best gain when the interference is 6 dB stronger",
        hint="<x, s> / |x|^2, as in (5): divide by the mixture's energy, not by the target's.",
    )
    expect_close(
        answer(target + 0.5 * (target + noise), target),
        1.5 / 2.5,
        what="the best gain when the interference is correlated with the target",
        hint="Do not assume that <s, n> is 0: use the samples.",
    )


CHECKS = {
    "05.ratio_mask": check_ratio_mask,
    "05.si_sdr": check_si_sdr,
    "05.half_mixture_sdr": check_half_mixture_sdr,
    "05.best_gain": check_best_gain,
}
