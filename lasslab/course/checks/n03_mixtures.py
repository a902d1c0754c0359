"""Checks of notebook 03, making mixtures."""

import numpy as np
import torch

from lasslab.course.exercises import NotDone, Wrong, expect_close, expect_shape


def check_snr(answer):
    """10 log10(sum s^2 / sum n^2) over the last axis."""
    target = torch.tensor([[2.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    interference = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.1, 0.1, 0.1, 0.1]])
    ten_times = answer(target[1], interference[1])
    if abs(float(torch.as_tensor(ten_times).reshape(-1)[0]) - 40.0) < 1e-3:
        raise Wrong(
            expected="20 dB for a target of ten times the amplitude",
            got="40 dB",
            hint="The squares make it a ratio of energies already: 10 log10, not 20 log10.",
        )
    if abs(float(torch.as_tensor(ten_times).reshape(-1)[0]) + 20.0) < 1e-3:
        raise Wrong(
            expected="20 dB for a target of ten times the amplitude",
            got="-20 dB",
            hint="Divide the target's energy by the interference's, not the other way round.",
        )
    expect_close(
        ten_times,
        20.0,
        what="the SNR of a target of ten times the amplitude, in dB",
        hint="Equation (2): the logarithm of the ratio of the two sums of squares, to base 10, times 10.",
    )
    expect_shape(
        answer(target, interference),
        (2,),
        what="the SNRs of two clips",
        hint="Sum over the last axis only: .sum(-1).",
    )
    expect_close(
        answer(target, interference),
        torch.tensor([0.0, 20.0]),
        what="the SNRs of two clips",
        hint="Sum the squares, not the samples; in the first clip both have an energy of 4.",
    )


def check_active_snr(answer):
    """SNR + 10 log10(1 / a)."""
    expect_close(
        answer(3.0, 1.0),
        3.0,
        what="the SNR of a target that is active all the time in a mixture of 3 dB",
        hint="For a = 1 equation (4) adds nothing.",
    )
    if float(answer(0.0, 0.1)) < 0:
        raise Wrong(
            expected="10 dB for a target that is active a tenth of the time at 0 dB",
            got=f"{float(answer(0.0, 0.1)):.4g} dB",
            hint="The event has all of its energy in a tenth of the time: it lies above the mean, so the sign is plus.",
        )
    for snr_db, share, expected in ((0.0, 0.1, 10.0), (-5.0, 0.5, -1.9897), (6.0, 0.01, 26.0)):
        expect_close(
            answer(snr_db, share),
            expected,
            what=f"the SNR in the active part for {snr_db:g} dB and a share of {share:g}",
            hint="Equation (4): add 10 log10(1 / active_share); it is a ratio of energies, so 10 and not 20.",
            atol=1e-3,
        )


def check_rescale_together(answer):
    """x / p = s / p + n / p with p = max(1, max |x|), for each clip of a batch."""
    target = torch.tensor([0.2, -1.6, 0.4, 0.0])
    interference = torch.tensor([0.2, -0.9, 0.1, 0.3])  # the mixture's peak is 2.5
    kept = target.clone(), interference.clone()
    mixture, scaled_target, scaled_interference = _three(answer(target, interference))
    if not (torch.equal(target, kept[0]) and torch.equal(interference, kept[1])):
        raise Wrong(
            expected="the clips that were passed in to stay as they are",
            got="they were changed in place",
            hint="Write target / peak, which makes a new tensor, rather than target /= peak.",
        )
    hint = "Divide by the mixture's peak, the largest (target + interference).abs()."
    expect_shape(mixture, (4,), what="the mixture", hint=hint)
    if not torch.allclose(torch.as_tensor(mixture), scaled_target + scaled_interference, atol=1e-5):
        raise Wrong(
            expected="mixture = target + interference in what is returned",
            got=f"they differ by up to {float((mixture - scaled_target - scaled_interference).abs().max()):.3g}",
            hint="Divide all three by the same number: cutting off samples, or rescaling one alone, breaks the sum.",
        )
    expect_close(mixture, (target + interference) / 2.5, what="the mixture", hint=hint)
    expect_close(scaled_target, target / 2.5, what="the target", hint="The target is divided by the same peak.")
    quiet = _three(answer(0.1 * target, 0.1 * interference))
    expect_close(
        quiet[0],
        0.1 * (target + interference),
        what="a mixture with a peak of 0.25",
        hint="It does not clip, so it stays as it is: the peak to divide by is at least 1.",
    )
    gains = torch.tensor([[1.0], [0.1], [2.0]])  # peaks of 2.5, 0.25 and 5
    batch = _three(answer(gains * target, gains * interference))
    hint = "Each clip of the batch has its own peak: take the largest along the last axis, and keep that axis."
    for what, given, scaled in zip(("mixtures", "targets"), (target + interference, target), batch, strict=False):
        wanted = torch.stack([given / 2.5, 0.1 * given, given / 2.5])
        expect_close(scaled, wanted, what=f"the {what} of a batch of three, with peaks of 2.5, 0.25 and 5", hint=hint)


def check_draw_pair(answer):
    """Two clip numbers of different labels, drawn from the generator that was passed."""
    labels = ["dog", "dog", "rain", "dog", "siren"]
    draws = [_two(answer(list(labels), np.random.default_rng(number))) for number in range(400)]
    for first, second in draws:
        if not (0 <= first < len(labels) and 0 <= second < len(labels)):
            raise Wrong(
                expected="two clip numbers from 0 to 4 for five labels",
                got=f"{first} and {second}",
                hint="Return positions in the list, not labels.",
            )
        if labels[first] == labels[second]:
            raise Wrong(
                expected="two clips of different labels",
                got=f"clips {first} and {second}, both {labels[first]!r}",
                hint="Different numbers are not enough: choose the second among the clips whose label differs.",
            )
    again = [_two(answer(list(labels), np.random.default_rng(number))) for number in range(400)]
    if again != draws:
        raise Wrong(
            expected="the same pair from the same generator state",
            got="another pair",
            hint="Draw from the generator that is passed in, and from nothing else.",
        )
    for place, numbers in (
        ("target", {first for first, _ in draws}),
        ("interference", {second for _, second in draws}),
    ):
        missing = sorted(set(range(len(labels))) - numbers)
        if missing:
            raise Wrong(
                expected=f"every one of five clips to be the {place} now and then in 400 draws",
                got=f"clip {missing[0]} never was",
                hint="Draw the first among all clips, and the second among all clips of another label.",
            )


def _three(answer):
    if answer is None or isinstance(answer, torch.Tensor) or len(answer) != 3:
        raise Wrong(
            expected="three tensors: mixture, target, interference",
            got="one tensor" if isinstance(answer, torch.Tensor) else f"{answer!r:.60}",
            hint="Return a tuple of the three, in this order.",
        )
    if any(part is None for part in answer):
        raise NotDone
    return answer


def _two(answer):
    try:
        first, second = answer
        return int(first), int(second)
    except (TypeError, ValueError):
        raise Wrong(
            expected="two clip numbers",
            got=f"{answer!r:.60}",
            hint="Return first, second: positions in the list of labels.",
        ) from None


CHECKS = {
    "03.snr": check_snr,
    "03.active_snr": check_active_snr,
    "03.rescale_together": check_rescale_together,
    "03.draw_pair": check_draw_pair,
}
