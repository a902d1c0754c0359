"""What holds for every signal: hypothesis looks for the clip that breaks it."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lasslab.signal.audio import fit_length, loudness, normalise_loudness, resample
from lasslab.signal.mel import MelConfig, log_mel_spectrogram
from lasslab.signal.spectral import (
    apply_mask,
    ideal_binary_mask,
    ideal_ratio_mask,
    istft,
    n_frames,
    phase_sensitive_mask,
    scale_log_magnitude,
    stft,
    unscale_log_magnitude,
)

seeds = st.integers(0, 2**32 - 1)
lengths = st.integers(1, 3000)
levels = st.sampled_from([0.0, 1e-12, 1e-6, 1e-2, 1.0, 100.0])
n_ffts = st.sampled_from([8, 64, 256, 512])


@st.composite
def clips(draw, n_samples=lengths):
    """Noise of any level, with a silent stretch."""
    count, generator = draw(n_samples), torch.Generator().manual_seed(draw(seeds))
    clip = draw(levels) * (torch.rand(count, generator=generator) * 2 - 1)
    start = draw(st.integers(0, count))
    return torch.where(torch.arange(count) < start, clip, 0.0) if draw(st.booleans()) else clip


@st.composite
def frames(draw):
    """A frame length and a hop of at most half of it."""
    n_fft = draw(n_ffts)
    return n_fft, draw(st.integers(1, n_fft // 2))


few = settings(max_examples=60, deadline=None)


@few
@given(clips(), frames())
def test_inverse_is_exact_for_every_length_hop_and_level(clip, frame):
    n_fft, hop_length = frame
    spectrum = stft(clip, n_fft=n_fft, hop_length=hop_length)
    assert spectrum.shape == (n_fft // 2 + 1, n_frames(len(clip), hop_length))
    again = istft(spectrum, n_fft=n_fft, hop_length=hop_length, length=len(clip))
    assert (again - clip).abs().max() <= 1e-5 * max(clip.abs().max(), 1e-30)


@few
@given(lengths, seeds, st.floats(-3, 3), st.floats(-3, 3))
def test_stft_is_linear(n_samples, seed, a, b):
    x, y = torch.rand(2, n_samples, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(stft(a * x + b * y), a * stft(x) + b * stft(y), rtol=1e-4, atol=1e-3)


@few
@given(clips(), frames(), seeds)
def test_masked_clip_has_no_more_energy(clip, frame, seed):
    # |x_hat|^2 <= (largest / smallest sum of squared windows) |x|^2, and that ratio is at most about 2
    n_fft, hop_length = frame
    spectrum = stft(clip, n_fft=n_fft, hop_length=hop_length)
    mask = torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(seed))
    masked = istft(apply_mask(mask, spectrum), n_fft=n_fft, hop_length=hop_length, length=len(clip))
    assert masked.isfinite().all()
    assert masked.norm() <= 1.5 * clip.norm() + 1e-30


@few
@given(clips(), st.floats(1, 120))
def test_scaling_stays_within_zero_and_one_and_returns_above_its_floor(clip, top_db):
    magnitude = stft(clip).abs()
    scaled, low, high = scale_log_magnitude(magnitude, top_db=top_db)
    assert scaled.isfinite().all() and scaled.min() >= 0 and scaled.max() <= 1
    restored = unscale_log_magnitude(scaled, low, high)
    expected = magnitude.maximum(magnitude.max() * 10 ** (-top_db / 20))
    torch.testing.assert_close(restored, expected, rtol=2e-4, atol=1e-37)


@few
@given(clips(st.just(1500)), clips(st.just(1500)), st.floats(0.25, 4))
def test_masks_stay_within_zero_and_one(target, interference, exponent):
    s, n = stft(target), stft(interference)
    ratio = ideal_ratio_mask(s, n, exponent=exponent)
    for mask in (ideal_binary_mask(s, n), ratio, phase_sensitive_mask(s, s + n)):
        assert mask.isfinite().all() and mask.min() >= 0 and mask.max() <= 1
    # the two sources share each bin, and a silent bin belongs to both
    shared = ratio + ideal_ratio_mask(n, s, exponent=exponent)
    silent = (s == 0) & (n == 0)
    torch.testing.assert_close(shared, torch.where(silent, 2.0, 1.0))


@few
@given(clips(st.just(1500)), clips(st.just(1500)))
def test_binary_mask_is_the_rounded_ratio_mask(target, interference):
    s, n = stft(target), stft(interference)
    ratio = ideal_ratio_mask(s, n)
    clear = (ratio - 0.5).abs() > 1e-6
    assert torch.equal(ideal_binary_mask(s, n)[clear], ratio[clear].round())


@few
@given(clips(), st.sampled_from([40, 160, 256]))
def test_log_mel_is_finite_and_above_its_floor(clip, hop_length):
    log_mel = log_mel_spectrogram(clip, MelConfig(hop_length=hop_length))
    assert log_mel.shape == (64, 1 + len(clip) // hop_length)
    assert log_mel.isfinite().all() and log_mel.min() >= math.log(1e-5) - 1e-6


@few
@given(clips(), st.integers(1, 4000), st.data())
def test_fitted_clip_has_the_length_and_the_samples(clip, n_samples, data):
    offset = data.draw(st.integers(0, len(clip)))
    fitted = fit_length(clip, n_samples, offset=offset)
    kept = clip[offset : offset + n_samples]
    assert fitted.shape == (n_samples,)
    assert torch.equal(fitted[: len(kept)], kept) and not fitted[len(kept) :].any()


@few
@given(clips(), st.sampled_from([8000, 22_050, 44_100, 48_000]))
def test_resampled_clip_has_the_length_and_no_surprises(clip, new_rate):
    converted = resample(clip, orig_rate=16_000, new_rate=new_rate)
    assert converted.shape == (max(1, round(len(clip) * new_rate / 16_000)),)
    assert converted.isfinite().all() and converted.abs().max() <= 3 * clip.abs().max() + 1e-30


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 16_000), seeds, st.floats(-60, -5), st.integers(1, 2))
def test_normalised_clip_has_the_loudness_at_any_length(n_samples, seed, lufs, n_channels):
    clip = torch.rand(n_channels, n_samples, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    if loudness(clip, sample_rate=16_000) > -60:
        scaled = normalise_loudness(clip, lufs=lufs, sample_rate=16_000)
        # the -70 LUFS gate may drop other blocks at another level
        assert abs(loudness(scaled, sample_rate=16_000) - lufs) < 0.1
