"""What an edit leaves alone comes back as it was: the change in dB, and the blend."""

import math

import pytest
import torch

from lasslab.signal.mel import MelConfig, mel_filterbank
from lasslab.systems.keeping import change_db, keep_unchanged

MEL = MelConfig(n_fft=256, hop_length=64, n_mels=16)
PIECES = {"size": 500, "context": 20}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tone(frequency: float, n_samples: int) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency / 16_000 * torch.arange(n_samples))[None]


def test_the_change_is_in_db_and_alike_both_ways():
    original = torch.zeros(1, 16, 12)
    edited = original + math.log(10) / 2  # ten times the power
    assert change_db(edited, original).flatten().tolist() == pytest.approx([10.0] * 192)
    torch.testing.assert_close(change_db(original, edited), change_db(edited, original))


def test_a_change_of_one_point_is_spread_over_its_neighbours():
    original = torch.zeros(16, 12)
    edited = original.clone()
    edited[5, 5] = 9 * math.log(10) / 20  # 9 dB
    change = change_db(edited, original)
    assert change[4:7, 4:7].flatten().tolist() == pytest.approx([1.0] * 9)
    assert change.sum() == pytest.approx(9.0)
    edited = original.clone()
    edited[0, 0] = 4 * math.log(10) / 20
    assert change_db(edited, original)[0, 0] == pytest.approx(1.0), "in a corner of the four that there are"


def test_what_nobody_hears_is_no_change():
    original = torch.zeros(16, 12)
    original[8:] = -60 / 20 * math.log(10)
    edited = original.clone()
    edited[8:] = -90 / 20 * math.log(10)
    assert change_db(edited, original).max() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("n_samples", [64 * 40, 64 * 40 - 17, 64 * 39 + 1])
def test_where_nothing_changes_the_original_comes_back(n_samples):
    original, edited = noise(2, n_samples), noise(2, n_samples, seed=1)
    blend = {"keep_db": 3.0, "mel": MEL, **PIECES}
    still = keep_unchanged(edited, original, torch.full((2, 16, 44), 3.0), **blend)
    torch.testing.assert_close(still, original, rtol=0, atol=1e-6)
    new = keep_unchanged(edited, original, torch.full((2, 16, 44), 6.0), **blend)
    assert (new - edited).square().mean() < 0.02 * edited.square().mean(), "all but 0 Hz and 8 kHz, in no band"
    half = keep_unchanged(edited, original, torch.full((2, 16, 44), 4.5), **blend)
    torch.testing.assert_close(half, (original + new) / 2, rtol=0, atol=1e-6)


def test_a_band_that_changes_is_made_anew_and_the_rest_is_kept():
    """The original is a tone at 500 Hz; the edit raises it and adds one at 5 kHz, where alone something changes."""
    n_samples = 64 * 40
    original = tone(500, n_samples)
    edited = 2 * tone(500, n_samples) + tone(5_000, n_samples)
    high = mel_filterbank(MEL)[:, 80] > 0  # 80 of 128 bins: 5 kHz
    change = torch.where(torch.nn.functional.max_pool1d(high[None].float(), 3, 1, 1) > 0, 20.0, 0.0)
    kept = keep_unchanged(edited, original, change[..., None].expand(1, 16, 40), keep_db=3.0, mel=MEL, **PIECES)
    expected = tone(500, n_samples) + tone(5_000, n_samples)
    inside = slice(256, -256)
    assert (kept - expected)[:, inside].abs().max() < 0.02


def test_a_long_recording_is_blended_in_pieces_as_whole():
    original, edited = noise(1, 64 * 200), noise(1, 64 * 200, seed=1)
    change = 9 * torch.rand(1, 16, 200, generator=torch.Generator().manual_seed(2))
    blend = {"keep_db": 3.0, "mel": MEL}
    whole = keep_unchanged(edited, original, change, **blend, size=200, context=0)
    pieces = keep_unchanged(edited, original, change, **blend, size=30, context=8)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-6)
