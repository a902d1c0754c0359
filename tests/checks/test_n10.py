"""The exercises of notebook 10: right answers pass, stubs are not done, wrong ones get the right hint."""

import math

import torch

from lasslab.course.exercises import evaluate_answer
from lasslab.models.discriminators import discriminator_loss
from lasslab.models.snake import SnakeBeta
from lasslab.signal.mel import griffin_lim
from lasslab.signal.spectral import istft, stft, with_phase

FRAMES = {"n_fft": 1024, "hop_length": 160}


def projected(table, length):
    return stft(istft(table, **FRAMES, length=length), **FRAMES)


def repetition(table, magnitude, length):
    return magnitude * torch.exp(1j * projected(table, length).angle())


def repetition_by_division(table, magnitude, length):
    consistent = projected(table, length)
    return magnitude * consistent / consistent.abs().clamp_min(1e-12)


def repetition_by_package(table, magnitude, length):
    return with_phase(magnitude, projected(table, length))


def folded(f, sample_rate):
    f = f % sample_rate
    return torch.minimum(f, sample_rate - f)


def folded_by_rounding(f, sample_rate):
    return (f - sample_rate * torch.round(f / sample_rate)).abs()


def folded_by_cosine(f, sample_rate):
    return torch.arccos(torch.cos(2 * math.pi * f.double() / sample_rate)) * sample_rate / (2 * math.pi)


def snake(x, log_alpha, log_beta):
    alpha, beta = log_alpha.exp()[:, None, None], log_beta.exp()[:, None, None]
    return x + torch.sin(alpha * x) ** 2 / beta


def snake_by_double_angle(x, log_alpha, log_beta):
    alpha, beta = log_alpha.exp().reshape(1, -1, 1, 1), log_beta.exp().reshape(1, -1, 1, 1)
    return x + (1 - torch.cos(2 * alpha * x)) / (2 * beta)


def snake_by_package(x, log_alpha, log_beta):
    layer = SnakeBeta(x.shape[1]).double().requires_grad_(False)
    layer.alpha.copy_(log_alpha)
    layer.beta.copy_(log_beta)
    return layer(x)


def judge_loss(real, made):
    return sum(((r - 1) ** 2).mean() + (m**2).mean() for r, m in zip(real, made, strict=True))


def judge_loss_by_package(real, made):
    return discriminator_loss(real=[(score, []) for score in real], generated=[(score, []) for score in made])


RIGHT = {
    "10.griffin_lim": [repetition, repetition_by_division, repetition_by_package],
    "10.folded": [folded, folded_by_rounding, folded_by_cosine],
    "10.snake": [snake, snake_by_double_angle, snake_by_package],
    "10.discriminator_loss": [judge_loss, judge_loss_by_package, lambda r, m: judge_loss(r, m).item()],
}


def only_half(f, sample_rate):
    """Mirrored once, however high."""
    return torch.where(f > sample_rate / 2, sample_rate - f, f)


def of_the_means(real, made):
    return sum((r.mean() - 1) ** 2 + m.mean() ** 2 for r, m in zip(real, made, strict=True))


def added_up(real, made):
    return sum(((r - 1) ** 2).sum() + (m**2).sum() for r, m in zip(real, made, strict=True))


def absolute(real, made):
    return sum((r - 1).abs().mean() + m.abs().mean() for r, m in zip(real, made, strict=True))


WRONG = [
    ("10.griffin_lim", lambda y, s, n: projected(y, n), "P_M comes last"),
    ("10.griffin_lim", lambda y, s, n: projected(repetition(y, s, n), n), "P_M comes last"),
    ("10.griffin_lim", lambda y, s, n: s * torch.exp(1j * y.angle()), "P_C, not from the table"),
    ("10.griffin_lim", lambda y, s, n: s * torch.exp(-1j * projected(y, n).angle()), "sign of the angle"),
    ("10.griffin_lim", lambda y, s, n: s * torch.exp(1j * projected(y / y.abs(), n).angle()), "magnitudes and phases"),
    ("10.griffin_lim", lambda y, s, n: s * projected(y, n), "P_M comes last"),
    ("10.griffin_lim", lambda y, s, n: repetition(repetition(y, s, n), s, n), "Once to a waveform"),
    ("10.griffin_lim", lambda y, s, n: istft(y, **FRAMES, length=n), "not with the waveform"),
    ("10.griffin_lim", lambda y, s, n: repetition(y, s, n).abs(), "half of it"),
    ("10.folded", lambda f, rate: f % rate, "mirrored there"),
    ("10.folded", lambda f, rate: f % (rate / 2), "nothing folds"),
    ("10.folded", lambda f, rate: torch.where(f > rate / 2, f - rate / 2, f), "mirrored there"),
    ("10.folded", lambda f, rate: f.clamp(max=rate / 2), "mirrored there"),
    ("10.folded", lambda f, rate: (rate - f).abs(), "nothing folds"),
    ("10.folded", only_half, "whole multiples"),
    ("10.folded", lambda f, rate: only_half(f, rate).abs(), "whole multiples"),
    ("10.folded", lambda f, rate: folded(f, 16_000), "passed in"),
    ("10.snake", lambda x, a, b: x + torch.sin(a[:, None, None] * x) ** 2 / b[:, None, None], "exponentials"),
    ("10.snake", lambda x, a, b: snake(x, a, b) - x, "with the x"),
    ("10.snake", lambda x, a, b: x + torch.sin(a.exp()[:, None, None] * x) / b.exp()[:, None, None], "the square"),
    ("10.snake", lambda x, a, b: snake(x, a, a), "what divides it is beta"),
    ("10.snake", lambda x, a, b: snake(x, a, -b), "divides the squared sine"),
    ("10.snake", lambda x, a, b: x + torch.sin(a.exp() * x) ** 2 / b.exp(), "follow the time"),
    ("10.snake", lambda x, a, b: snake(x, a, b)[:, :, 0], "The shape stays"),
    ("10.discriminator_loss", lambda real, made: judge_loss(made, real), "costs nothing"),
    ("10.discriminator_loss", added_up, "a mean over its scores"),
    ("10.discriminator_loss", lambda real, made: judge_loss(real, made) / len(real), "a sum over discriminators"),
    ("10.discriminator_loss", lambda real, made: judge_loss(real, made) / 2, "a sum over discriminators"),
    ("10.discriminator_loss", lambda real, made: sum((m**2).mean() for m in made), "compared with 1 as well"),
    ("10.discriminator_loss", absolute, "squared"),
    ("10.discriminator_loss", of_the_means, "Square each score"),
    ("10.discriminator_loss", lambda real, made: judge_loss(real, made)[None], "One number"),
]


def test_an_error_is_told_in_words():
    result = evaluate_answer("10.discriminator_loss", lambda real, made: real - made)
    assert not result.passed and "TypeError" in result.got


def test_repeating_the_answer_is_griffin_and_lims_algorithm():
    """Started where the package starts, and as often: the exercise is the algorithm, not a relative of it."""
    sound = torch.randn(3200, generator=torch.Generator().manual_seed(0))
    magnitude = stft(sound, **FRAMES).abs()
    turns = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(0))
    table = magnitude * torch.exp(2j * math.pi * turns)
    for _ in range(3):
        table = repetition(table, magnitude, 3200)
    expected = griffin_lim(magnitude, **FRAMES, length=3200, n_iter=3, momentum=0.0)
    torch.testing.assert_close(istft(table, **FRAMES, length=3200), expected, atol=1e-3, rtol=0)
