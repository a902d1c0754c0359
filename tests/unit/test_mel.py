"""Mel features against librosa, and Griffin-Lim against what it promises."""

import math

import librosa
import numpy as np
import pytest
import torch

from lasslab.signal.mel import (
    MelConfig,
    griffin_lim,
    hz_to_mel,
    log_mel_spectrogram,
    mel_filterbank,
    mel_spectrogram,
    mel_to_hz,
)
from lasslab.signal.spectral import stft

CONFIGS = [
    MelConfig(),
    MelConfig(sample_rate=16_000, n_fft=512, hop_length=256, n_mels=40, f_min=50.0, f_max=7600.0),
    MelConfig(sample_rate=48_000, n_fft=2048, hop_length=480, n_mels=128, f_max=20_000.0),
    MelConfig(sample_rate=8000, n_fft=256, hop_length=80, n_mels=20, f_max=4000.0),
]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def chirp(n_samples: int = 16_000) -> torch.Tensor:
    t = torch.arange(n_samples) / 16_000
    return 0.5 * torch.sin(2 * math.pi * (300 * t + 400 * t**2)) + 0.01 * noise(n_samples)


def librosa_mel(waveform: torch.Tensor, config: MelConfig) -> np.ndarray:
    return librosa.feature.melspectrogram(
        y=waveform.numpy(),
        sr=config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        power=1.0,
        pad_mode="constant",
    )


def test_mel_scale_is_slaneys():
    frequency = torch.tensor([0.0, 200.0, 1000.0, 6400.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 3.0, 15.0, 42.0], dtype=torch.float64)  # 27 steps from 1 to 6.4 kHz
    torch.testing.assert_close(hz_to_mel(frequency), expected)
    torch.testing.assert_close(mel_to_hz(expected), frequency)
    sweep = torch.linspace(0, 24_000, 500, dtype=torch.float64)
    assert np.allclose(hz_to_mel(sweep).numpy(), librosa.hz_to_mel(sweep.numpy()))


@pytest.mark.parametrize("config", CONFIGS)
def test_filterbank_equals_librosa(config):
    expected = librosa.filters.mel(
        sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.f_min, fmax=config.f_max
    )
    assert np.allclose(mel_filterbank(config).numpy(), expected, atol=1e-7)


def test_filters_have_unit_area():
    filters = mel_filterbank(MelConfig(n_fft=16_384))  # fine bins, so that a sum is nearly the integral
    torch.testing.assert_close(filters.sum(dim=1) * 16_000 / 16_384, torch.ones(64), rtol=0.01, atol=0)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("n_samples", [4096, 16_000, 16_001])
def test_mel_spectrogram_equals_librosa(config, n_samples):
    waveform = noise(2, n_samples)
    mel = mel_spectrogram(waveform, config)
    expected = librosa_mel(waveform, config)
    assert mel.shape == expected.shape == (2, config.n_mels, 1 + n_samples // config.hop_length)
    assert np.abs(mel.numpy() - expected).max() < 1e-4


def test_sine_lights_the_filter_around_it():
    centres = mel_to_hz(torch.linspace(0, hz_to_mel(torch.tensor(8000.0)).item(), 66))
    tone = torch.sin(2 * math.pi * centres[41] / 16_000 * torch.arange(16_000))
    assert (mel_spectrogram(tone)[:, 10:-10].argmax(dim=0) == 40).all()


def test_silence_is_the_logarithm_of_the_floor():
    log_mel = log_mel_spectrogram(torch.zeros(3, 1600))
    assert log_mel.shape == (3, 64, 11)
    torch.testing.assert_close(log_mel, torch.full_like(log_mel, -11.512925))


def test_log_mel_is_the_floored_logarithm():
    config = MelConfig(floor=1e-3)
    mel = mel_spectrogram(1e-3 * noise(8000), config)
    log_mel = log_mel_spectrogram(1e-3 * noise(8000), config)
    torch.testing.assert_close(log_mel, mel.log().clamp_min(math.log(1e-3)))
    assert (mel < 1e-3).any() and (mel > 1e-3).any()


@pytest.mark.parametrize("n_samples", [1, 2, 159, 161])
def test_clip_shorter_than_a_frame_has_features(n_samples):
    assert log_mel_spectrogram(noise(n_samples)).isfinite().all()


def test_mel_is_differentiable():
    waveform = noise(3200).requires_grad_()
    log_mel_spectrogram(waveform).sum().backward()
    assert waveform.grad.isfinite().all() and waveform.grad.abs().max() > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"f_max": 9000.0},
        {"f_min": 8000.0},
        {"f_min": -1.0},
        {"n_mels": 0},
        {"floor": 0.0},
        {"sample_rate": 8000},
    ],
)
def test_impossible_configuration_is_refused(wrong):
    with pytest.raises(ValueError, match="f_max|n_mels and floor"):
        MelConfig(**wrong)


def test_filters_without_bins_are_refused():
    with pytest.raises(ValueError, match="128 mel filters are too narrow for n_fft 256"):
        mel_filterbank(MelConfig(n_mels=128, n_fft=256))


# --- Griffin-Lim


def convergence(magnitude: torch.Tensor, n_samples: int, **options) -> float:
    estimate = griffin_lim(magnitude, n_fft=512, hop_length=128, length=n_samples, **options)
    error = stft(estimate, n_fft=512, hop_length=128).abs() - magnitude
    return (error.norm() / magnitude.norm()).item()


def test_griffin_lim_never_gets_worse():
    magnitude = stft(chirp(), n_fft=512, hop_length=128).abs()
    errors = [convergence(magnitude, 16_000, n_iter=n, momentum=0.0) for n in (0, 1, 2, 4, 8, 16, 32)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[1]


def test_momentum_converges_further():
    magnitude = stft(chirp(), n_fft=512, hop_length=128).abs()
    errors = [convergence(magnitude, 16_000, n_iter=n) for n in (1, 8, 32)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.7 * convergence(magnitude, 16_000, n_iter=32, momentum=0.0)


def test_griffin_lim_is_as_good_as_librosas():
    magnitude = stft(chirp(), n_fft=512, hop_length=128).abs()
    theirs = librosa.griffinlim(
        magnitude.numpy(),
        n_fft=512,
        hop_length=128,
        length=16_000,
        n_iter=32,
        random_state=0,
        pad_mode="constant",
    )
    error = stft(torch.from_numpy(theirs), n_fft=512, hop_length=128).abs() - magnitude
    assert convergence(magnitude, 16_000, n_iter=32) < 1.1 * (error.norm() / magnitude.norm()).item()


def test_griffin_lim_keeps_a_tone():
    tone = 0.5 * torch.sin(2 * math.pi * 1000 / 16_000 * torch.arange(16_384))
    estimate = griffin_lim(stft(tone).abs(), n_fft=512, hop_length=256, length=16_384)
    spectrum = torch.fft.rfft(estimate).abs()
    assert spectrum.argmax() * 16_000 / 16_384 == pytest.approx(1000, abs=2)
    assert estimate.square().mean() == pytest.approx(0.125, rel=0.05)


def test_griffin_lim_repeats_with_its_generator():
    magnitude = stft(noise(2, 2000)).abs()

    def run(generator=None):
        return griffin_lim(magnitude, n_fft=512, hop_length=256, length=2000, n_iter=3, generator=generator)

    first, again, other = (run(torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.manual_seed(1)
    default = run()
    torch.manual_seed(2)
    assert torch.equal(default, run())  # the global generator is neither read ...
    state = torch.get_rng_state()
    run()
    assert torch.equal(state, torch.get_rng_state())  # ... nor moved


def test_griffin_lim_of_silence_is_silent():
    assert torch.equal(griffin_lim(torch.zeros(257, 5), n_fft=512, hop_length=256, length=1024), torch.zeros(1024))


def test_length_of_other_frames_is_refused():
    with pytest.raises(ValueError, match="5 frames do not make 2000 samples at hop_length 256: pass length=1024"):
        griffin_lim(torch.ones(257, 5), n_fft=512, hop_length=256, length=2000)
