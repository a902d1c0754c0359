"""One level inside: its gain, each waveform on its own, and what counts as silence."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lasslab.signal.levels import LEVEL_DB, SILENT_DB, level_gain, where_it_sounds


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def level_db(waveform: torch.Tensor) -> list[float]:
    return (10 * waveform.square().mean(-1).log10()).tolist()


def test_every_waveform_comes_to_the_level_on_its_own():
    waveforms = noise(3, 4_000) * torch.tensor([1e-3, 0.1, 3.0])[:, None]
    assert level_db(waveforms * level_gain(waveforms)) == pytest.approx([LEVEL_DB] * 3, abs=1e-3)
    assert level_gain(noise(2, 3, 50)).shape == (2, 3, 1) and level_gain(noise(50)).shape == (1,)


@given(st.floats(-59, 40))
def test_a_gain_before_is_undone(gain_db):
    waveform = noise(1_000)
    waveform = waveform / waveform.square().mean().sqrt() * 0.1  # -20 dB: 60 dB above silence
    louder = waveform * 10 ** (gain_db / 20)
    torch.testing.assert_close(louder * level_gain(louder), waveform * level_gain(waveform), rtol=1e-4, atol=1e-6)


def test_what_is_below_the_threshold_is_silence_and_stays_it():
    threshold = 10 ** (SILENT_DB / 20)
    waveforms = torch.tensor([0.0, 0.99, 1.01])[:, None] * threshold * torch.ones(3, 100)
    gains = level_gain(waveforms)[:, 0]
    assert gains[:2].tolist() == [0, 0] and gains[2].item() == pytest.approx(0.1 / (1.01 * threshold), rel=1e-4)
    assert level_gain(torch.zeros(0, 5)).shape == (0, 1)


def test_a_recording_sounds_where_it_does_and_a_little_around():
    sound, pause = 0.1 * noise(2, 8_000).sign(), torch.zeros(2, 7_937)  # no multiple of a block
    weights = where_it_sounds(torch.cat([sound, pause, sound[:, :3_000]], dim=-1))
    assert weights.shape == (2, 18_937) and float(weights.min()) == 0 and float(weights.max()) == 1
    assert (weights[:, :8_000] == 1).all() and (weights[:, 15_937:] == 1).all(), "nothing of a sound is lost"
    assert (weights[:, 9_000:14_900] == 0).all(), "40 ms after a sound and before it nothing is left"
    assert weights.diff().abs().max() < 1.01 / 160, "no click"


def test_one_sample_sounds_and_silence_does_not():
    click = torch.zeros(16_000)
    click[5_000] = 0.1
    weights = where_it_sounds(click)
    assert weights[5_000] == 1 and 640 < (weights == 1).sum() < 1_500
    assert not where_it_sounds(torch.zeros(1_024)).any()
    assert not where_it_sounds(torch.full((3, 1_024), 0.99 * 10 ** (SILENT_DB / 20))).any()
