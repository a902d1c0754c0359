"""Checks of notebook 10, vocoders."""

import math

import torch

from lasslab.course.exercises import NotDone, Wrong, expect_close, expect_shape
from lasslab.signal.spectral import istft, stft

FRAMES = {"n_fft": 1024, "hop_length": 160}  # the notebook's


def check_griffin_lim(answer):
    """A complex table (F, N), magnitudes (F, N) and a length -> the next table, P_M(P_C(Y))."""
    length = 3200
    generator = torch.Generator().manual_seed(0)
    sound = torch.randn(length, generator=generator)
    spectrum = stft(sound, **FRAMES)
    magnitude = spectrum.abs()
    table = magnitude * torch.exp(2j * math.pi * torch.rand(magnitude.shape, generator=generator))
    got = answer(table.clone(), magnitude.clone(), length)
    expect_shape(
        got,
        tuple(magnitude.shape),
        what="the next table for one of 513 bins and 21 frames",
        hint="End with a table again, not with the waveform in between: STFT after ISTFT, then the magnitudes.",
    )
    if not got.is_complex():
        raise Wrong(
            expected="a complex table",
            got=f"one of {got.dtype}",
            hint="Magnitudes alone are half of it: multiply them by the unit numbers exp(i angle) of the phases.",
        )
    expect_close(
        got.abs(),
        magnitude,
        what="the magnitudes of the next table",
        hint="P_M comes last: whatever magnitudes the STFT has after the ISTFT, put those asked for in their place.",
        atol=1e-2,
    )
    if float((got - table).abs().max()) < 1e-2:
        raise Wrong(
            expected="other phases than those that went in",
            got="the same table",
            hint="Take the phases from the STFT of the waveform, P_C, not from the table that you were given.",
        )
    of_phases = magnitude * torch.exp(1j * _consistent(table / magnitude, length).angle())
    if float((got - of_phases).abs().max()) < 2e-2:
        raise Wrong(
            expected="the phases that go with these magnitudes",
            got="those that come of phases alone, all magnitudes 1",
            hint="Give the whole table to the ISTFT, magnitudes and phases: loud bins must count for more.",
        )
    expect_close(
        answer(spectrum.clone(), magnitude.clone(), length),
        spectrum,
        what="the next table after the STFT of a sound, with its own magnitudes",
        hint="A sound's own STFT is in both sets and stays as it is: keep the sign of the angle, change no phase.",
        atol=2e-2,
    )
    expect_close(
        got,
        magnitude * torch.exp(1j * _consistent(table, length).angle()),
        what="the next table after one of random phases",
        hint="Once to a waveform and once back, nothing added: ISTFT of the table, STFT, and keep its angle.",
        atol=2e-2,
    )


def _consistent(table, length):
    return stft(istft(table, **FRAMES, length=length), **FRAMES)


def check_folded(answer):
    """Frequencies (n,) and a sample rate -> where they are heard, (n,)."""
    low = torch.tensor([0.0, 440.0, 7999.0, 8000.0])
    expect_close(
        answer(low.clone(), 16_000),
        low,
        what="440 Hz and others up to half of a rate of 16 kHz",
        hint="Up to half of the rate nothing folds: these frequencies stay as they are.",
        atol=1e-2,
    )
    expect_close(
        answer(torch.tensor([9000.0, 15_000.0]), 16_000),
        [7000.0, 1000.0],
        what="9 and 15 kHz at a rate of 16 kHz",
        hint="Above half of the rate it is mirrored there: the higher the frequency, the lower it is heard, f_s - f.",
        atol=1e-2,
    )
    expect_close(
        answer(torch.tensor([17_000.0, 25_000.0, 33_000.0, 48_000.0]), 16_000),
        [1000.0, 7000.0, 1000.0, 0.0],
        what="17, 25, 33 and 48 kHz at a rate of 16 kHz",
        hint="Beyond the rate it starts again: take off whole multiples of the rate first, then mirror.",
        atol=1e-2,
    )
    expect_close(
        answer(torch.tensor([3000.0, 5000.0]), 8000),
        [3000.0, 3000.0],
        what="3 and 5 kHz at a rate of 8 kHz",
        hint="Use the sample rate that is passed in.",
        atol=1e-2,
    )


def check_snake(answer):
    """x (B, C, 1, T) and logarithms of alpha and beta, (C,) each -> the same shape."""
    x = torch.linspace(-3, 3, 18, dtype=torch.float64).reshape(2, 3, 1, 3)
    zero = torch.zeros(3, dtype=torch.float64)
    start = answer(x.clone(), zero.clone(), zero.clone())
    expect_shape(
        start,
        (2, 3, 1, 3),
        what="the snake of a tensor (2, 3, 1, 3)",
        hint="The shape stays: give alpha and beta two axes more, [:, None, None], so that they follow the channels.",
    )
    expect_close(
        start,
        x + x.sin() ** 2,
        what="the snake with both logarithms 0",
        hint="Alpha and beta are the exponentials of what comes in, here 1: x + sin(x)^2, with the x and the square.",
    )
    alpha = torch.full((3,), math.log(2.0), dtype=torch.float64)
    expect_close(
        answer(x.clone(), alpha.clone(), zero.clone()),
        x + (2 * x).sin() ** 2,
        what="the snake with alpha = 2 and beta = 1",
        hint="Alpha stands in the sine only, alpha = exp(log alpha); what divides it is beta.",
    )
    expect_close(
        answer(x.clone(), zero.clone(), alpha.clone()),
        x + x.sin() ** 2 / 2,
        what="the snake with alpha = 1 and beta = 2",
        hint="Beta = exp(log beta) divides the squared sine, and nothing else.",
    )
    alphas, betas = (torch.tensor(v, dtype=torch.float64) for v in ([-0.5, 0.0, 1.0], [0.3, -0.7, 0.0]))
    by_channel = torch.sin(x * alphas.exp()[:, None, None]) ** 2 / betas.exp()[:, None, None]
    expect_close(
        answer(x.clone(), alphas.clone(), betas.clone()),
        x + by_channel,
        what="the snake with other parameters in each channel",
        hint="Channels are the second axis of (B, C, 1, T): without [:, None, None] the parameters follow the time.",
    )


def check_discriminator_loss(answer):
    """Scores of real and of made sounds, a list of tensors each -> one number."""

    def scores(*values):
        return [torch.full(shape, value) for shape, value in zip(((2, 1, 5, 3), (2, 7), (4,)), values, strict=True)]

    def loss(real, made):
        value = answer([score.clone() for score in real], [score.clone() for score in made])
        if value is None or value is NotImplemented or value is ...:
            raise NotDone
        return value

    ideal = loss(scores(1.0, 1.0, 1.0), scores(0.0, 0.0, 0.0))
    expect_shape(
        torch.as_tensor(ideal),
        (),
        what="the loss",
        hint="One number: a mean over the scores of each discriminator, and the sum over the discriminators.",
    )
    expect_close(
        ideal,
        0.0,
        what="the loss of discriminators that answer 1 to real and 0 to made sounds",
        hint="That is what they should learn, and costs nothing: real scores are compared with 1, made ones with 0.",
    )
    expect_close(
        loss(scores(1.0, 1.0, 1.0), scores(1.0, 1.0, 1.0)),
        3.0,
        what="the loss of three discriminators that answer 1 to everything",
        hint="Made scores of 1 cost 1 for each of the three: a mean over its scores, a sum over discriminators.",
    )
    expect_close(
        loss(scores(0.0, 0.0, 0.0), scores(0.0, 0.0, 0.0)),
        3.0,
        what="the loss of three discriminators that answer 0 to everything",
        hint="Real scores have to be compared with 1 as well: the loss has two terms, and neither is halved.",
    )
    expect_close(
        loss(scores(1.5, 1.0, 1.0), scores(0.0, -2.0, 0.0)),
        0.25 + 4.0,
        what="the loss for a real score of 1.5 and a made one of -2",
        hint="The distance is squared: (D - 1)^2 and D^2, not an absolute value and not a cross-entropy.",
    )
    generator = torch.Generator().manual_seed(0)
    real, made = ([torch.randn(shape, generator=generator) for shape in ((2, 1, 5, 3), (2, 7), (4,))] for _ in range(2))
    expect_close(
        loss(real, made),
        sum(((r - 1) ** 2).mean() + (m**2).mean() for r, m in zip(real, made, strict=True)),
        what="the loss for random scores",
        hint="Square each score by itself, then take the mean: the mean of all scores is another thing.",
    )


CHECKS = {
    "10.griffin_lim": check_griffin_lim,
    "10.folded": check_folded,
    "10.snake": check_snake,
    "10.discriminator_loss": check_discriminator_loss,
}
