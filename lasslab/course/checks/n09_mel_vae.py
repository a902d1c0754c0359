"""Checks of notebook 09, a mel VAE."""

import math

import torch

from lasslab.course.exercises import NotDone, Wrong, expect_close, expect_shape

SILENCE = math.log(1e-5)


def check_kl(answer):
    """Mean and log variance (B, ...) -> KL to the standard normal in nats, averaged over each latent, (B,)."""
    shape = (2, 3, 2, 2)
    zero = torch.zeros(shape, dtype=torch.float64)
    standard = answer(zero.clone(), zero.clone())
    expect_shape(
        standard,
        (2,),
        what="the KL of a batch of two latents",
        hint="One number for each latent of the batch: flatten what follows the first axis, and average over it.",
    )
    expect_close(
        standard,
        [0.0, 0.0],
        what="the KL of a standard normal to itself",
        hint="With mu = 0 and log sigma^2 = 0 the four terms cancel: mu^2 + sigma^2 - 1 - log sigma^2.",
    )
    moved = torch.stack([zero[0] + 2, zero[0] - 1])
    expect_close(
        answer(moved.clone(), zero.clone()),
        [2.0, 0.5],
        what="the KL for sigma = 1 and means 2 and -1",
        hint="It is mu^2 / 2 for each number: mind the half, the square, and average, do not add up.",
    )
    narrow = torch.stack([zero[0] - 2, zero[0] + 1])
    expect_close(
        answer(zero.clone(), narrow.clone()),
        [(math.exp(-2) - 1 + 2) / 2, (math.e - 1 - 1) / 2],
        what="the KL for mu = 0 and log variances -2 and 1",
        hint="What comes in is log sigma^2: sigma^2 is its exponential, and log sigma^2 is subtracted as it is.",
    )
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    expect_close(
        answer(mean.clone(), log_variance.clone()),
        (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).mean(1) / 2,
        what="the KL of two random latents",
        hint="Every number has its own mean and variance: add the four terms number by number, then average.",
    )


def check_latent_kls(answer):
    """Variances (K,) and beta -> KL of each latent of a linear VAE, (K,)."""
    variances = torch.tensor([80.0, 2.0, 0.5, 0.02], dtype=torch.float64)
    above = answer(variances[:2].clone(), 0.1)
    expect_shape(
        torch.as_tensor(above),
        (2,),
        what="the KL of two latents",
        hint="One number for each variance; do not add them up.",
    )
    expect_close(
        above,
        [math.log(800) / 2, math.log(20) / 2],
        what="the KL of directions with variances 80 and 2, for beta = 0.1",
        hint="Half the natural logarithm of variance / beta, as in (5): no 1 + inside, and nats, not bits.",
    )
    expect_close(
        answer(variances.clone(), 1.0),
        [math.log(80) / 2, math.log(2) / 2, 0.0, 0.0],
        what="the KL of directions with variances 80, 2, 0.5 and 0.02, for beta = 1",
        hint="A direction under water tells nothing: its KL is 0, never negative.",
    )
    expect_close(
        answer(variances.clone(), 100.0),
        [0.0] * 4,
        what="the KL of the same directions for beta = 100",
        hint="When all of them are under water, all are 0: that is posterior collapse.",
    )


def check_pad(answer):
    """Log-mel (B, M, N) and a multiple -> the same with frames of silence at its end."""
    log_mel = torch.arange(2 * 3 * 5, dtype=torch.float32).reshape(2, 3, 5) / 10 - 6
    padded = answer(log_mel.clone(), 4)
    expect_shape(
        padded,
        (2, 3, 8),
        what="a log-mel (2, 3, 5) padded to a multiple of 4",
        hint="Only the last axis grows, to the next multiple: -N % multiple frames are missing.",
    )
    expect_close(
        padded[..., :5],
        log_mel,
        what="the sound itself",
        hint="Add frames at the end and leave those that are there as they are.",
    )
    if float(padded[..., 5:].abs().max()) < 1e-6:
        raise Wrong(
            expected=f"silence in the added frames, {SILENCE:.2f}",
            got="zeros",
            hint="Zero is loud: e^0 = 1 in every band. Silence is the logarithm of the floor.",
        )
    expect_close(
        padded[..., 5:],
        torch.full((2, 3, 3), SILENCE),
        what="the added frames",
        hint="Silence is the natural logarithm of 1e-5, whatever the sound ends with.",
        atol=1e-3,
    )
    for frames, multiple, wanted in ((8, 4, 8), (5, 5, 5), (7, 3, 9), (1, 4, 4)):
        got = answer(torch.zeros(1, 2, frames), multiple)
        expect_shape(
            got,
            (1, 2, wanted),
            what=f"{frames} frames padded to a multiple of {multiple}",
            hint="A number that is a multiple already needs no frame more; -N % multiple is 0 then.",
        )


def check_scaling_factor(answer):
    """A list of latents (B, Z, N', M') -> 1 / their common standard deviation."""
    generator = torch.Generator().manual_seed(0)

    def drawn(n_frames, deviation):
        return deviation * torch.randn(2, 4, n_frames, 8, generator=generator, dtype=torch.float64)

    latents = [drawn(50, 4.0), drawn(70, 4.0)]
    wanted = 1 / torch.cat([latent.flatten() for latent in latents]).std()
    got = answer([latent.clone() for latent in latents])
    if got is None or got is NotImplemented or got is ...:
        raise NotDone
    expect_shape(
        torch.as_tensor(got, dtype=torch.float64),
        (),
        what="the scaling factor",
        hint="One factor for all numbers together: no axis is left.",
    )
    if abs(float(got) - 1 / float(wanted)) < 0.1:
        raise Wrong(
            expected=f"a factor of {float(wanted):.3f} for latents of standard deviation 4",
            got=f"{float(got):.3f}",
            hint="That is the standard deviation. The factor that takes it to 1 is its inverse.",
        )
    expect_close(
        got,
        wanted,
        what="the factor for latents of standard deviation 4",
        hint="1 / standard deviation: not 1 / variance, and not the standard deviation itself.",
        atol=5e-3,
    )
    offset = [latent + 3.0 for latent in latents]
    expect_close(
        answer([latent.clone() for latent in offset]),
        wanted,
        what="the factor for the same latents, all larger by 3",
        hint="The standard deviation is taken around the mean; a root mean square is not.",
        atol=5e-3,
    )
    uneven = [drawn(20, 0.5), drawn(180, 4.0)]
    for latent in uneven:
        latent[:, 0] += 6.0  # a channel away from the others
    expect_close(
        answer([latent.clone() for latent in uneven]),
        1 / torch.cat([latent.flatten() for latent in uneven]).std(),
        what="the factor for a short latent of deviation 0.5 and a long one of deviation 4",
        hint="Take one standard deviation over all numbers together. A mean of the deviations of latents or channels "
        "knows neither their lengths nor how far they are apart.",
        atol=2e-3,
    )


CHECKS = {
    "09.kl": check_kl,
    "09.latent_kls": check_latent_kls,
    "09.pad": check_pad,
    "09.scaling_factor": check_scaling_factor,
}
