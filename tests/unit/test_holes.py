"""Spectral holes and intrusions: spectrograms whose shares are known, noise with its closed form, what is refused."""

import math

import pytest
import torch

from lasslab.evaluation.holes import find_holes, spectral_holes
from lasslab.signal.spectral import stft


def levels(*rows: list[float]) -> torch.Tensor:
    """Magnitudes (K, N) of levels in dB."""
    return 10 ** (torch.tensor(rows, dtype=torch.float64) / 20)


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


TARGET = levels([0, -10, -39, -41], [-59, -61, -80, -120])  # 3 active, 2 between, 3 silent


def test_each_point_is_what_its_level_says():
    estimate = levels([-19, -31, -58, -90], [-30, -41, -39, 0])
    found = find_holes(estimate=estimate, target=TARGET)
    assert found.active.tolist() == [[True, True, True, False], [False] * 4]
    assert found.holes.tolist() == [[False, True, False, False], [False] * 4], "20 dB is not more than 20 dB"
    assert found.silent.tolist() == [[False] * 4, [False, True, True, True]]
    assert found.intrusions.tolist() == [[False] * 4, [False, False, True, True]]
    assert found.hole_share.item() == pytest.approx(1 / 3)
    assert found.intrusion_share.item() == pytest.approx(2 / 3)


def test_the_target_itself_and_a_gain_below_the_threshold_have_none():
    for gain_db in (0, -19.9, 19.9):
        found = find_holes(estimate=TARGET * 10 ** (gain_db / 20), target=TARGET)
        assert found.hole_share == 0 and found.intrusion_share == 0
    assert find_holes(estimate=TARGET * 10 ** (-20.1 / 20), target=TARGET).hole_share == 1


def test_silence_is_one_hole_and_a_roar_intrudes_everywhere():
    assert find_holes(estimate=torch.zeros_like(TARGET), target=TARGET).hole_share == 1
    assert find_holes(estimate=torch.zeros_like(TARGET), target=TARGET).intrusion_share == 0
    roar = find_holes(estimate=torch.ones_like(TARGET), target=TARGET)
    assert roar.hole_share == 0 and roar.intrusion_share == 1


def test_a_gain_of_both_changes_nothing_and_each_item_has_its_own_level():
    estimate = levels([-19, -31, -58, -90], [-30, -41, -39, 0])
    alone = find_holes(estimate=estimate, target=TARGET)
    both = find_holes(estimate=torch.stack([estimate, 1e-3 * estimate]), target=torch.stack([TARGET, 1e-3 * TARGET]))
    assert both.hole_share.tolist() == [alone.hole_share.item()] * 2
    assert both.intrusion_share.tolist() == [alone.intrusion_share.item()] * 2


def test_thresholds_move_the_edges():
    estimate = TARGET * 10 ** (-15 / 20)
    assert find_holes(estimate=estimate, target=TARGET).hole_share == 0
    assert find_holes(estimate=estimate, target=TARGET, threshold_db=10).hole_share == 1
    assert find_holes(estimate=estimate, target=TARGET, active_db=5).active.sum() == 1


def test_a_target_without_a_silent_point_has_no_share_of_intrusions():
    flat = torch.ones(4, 5)
    assert math.isnan(find_holes(estimate=flat, target=flat).intrusion_share.item())


def test_two_noises_of_one_kind_miss_one_bin_in_101_by_chance():
    """|X|^2 of noise is exponential: P(E < T / 100) = 1 / 101, for what nobody can tell from the target."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 400_000, generator=generator)
    bins = [stft(noise, n_fft=512, hop_length=512)[1:-1].abs() for noise in (first, second)]
    share = find_holes(estimate=bins[0], target=bins[1], active_db=80).hole_share.item()
    assert share == pytest.approx(1 / 101, abs=0.001)
    in_bands = spectral_holes(estimate=first, target=second).hole_share.item()
    assert in_bands < share / 2, "bands sum over bins and have fewer dips"


def test_a_band_cut_out_of_noise_is_a_hole():
    """Noise without 2 to 4 kHz: every point of the bands within is a hole, and none of the bands far below."""
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(48_000, generator=generator)
    spectrum = torch.fft.rfft(target)
    frequency = torch.fft.rfftfreq(48_000, 1 / 16_000)
    estimate = torch.fft.irfft(spectrum * ~((frequency > 2_000) & (frequency < 4_000)), n=48_000)
    found = spectral_holes(estimate=estimate, target=target)
    by_band = found.holes.double().mean(dim=-1)
    assert by_band.max() == 1 and by_band[:20].max() == 0
    assert found.intrusion_share.isnan() or found.intrusion_share == 0
    both = spectral_holes(estimate=torch.stack([estimate, target]), target=torch.stack([target, target]))
    assert both.hole_share.tolist() == [found.hole_share.item(), 0.0]


@pytest.mark.parametrize(
    ("estimate", "target", "options", "words"),
    [
        (torch.ones(3, 4), torch.ones(3, 5), {}, "one shape"),
        (torch.ones(4), torch.ones(4), {}, "one shape"),
        (torch.ones(3, 4, dtype=torch.complex64), torch.ones(3, 4), {}, "the estimate must be magnitudes"),
        (torch.ones(3, 4), -torch.ones(3, 4), {}, "the target must be magnitudes"),
        (torch.full((3, 4), torch.nan), torch.ones(3, 4), {}, "finite"),
        (torch.ones(3, 4), torch.zeros(3, 4), {}, "silent"),
        (torch.ones(3, 4), torch.ones(3, 4), {"threshold_db": 0.0}, "threshold_db must be a positive"),
        (torch.ones(3, 4), torch.ones(3, 4), {"active_db": -40.0}, "active_db must be a positive"),
    ],
)
def test_what_is_refused(estimate, target, options, words):
    with pytest.raises(ValueError) as error:
        find_holes(estimate=estimate, target=target, **options)
    assert words in one_line(error)


def test_waveforms_are_checked_too():
    with pytest.raises(ValueError) as error:
        spectral_holes(estimate=torch.full((4_000,), torch.nan), target=torch.ones(4_000))
    assert "the estimate" in one_line(error)
