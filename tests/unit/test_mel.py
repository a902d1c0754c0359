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
    mask_to_bins,
    mel_filterbank,
    mel_spectrogram,
    mel_to_hz,
    mel_to_magnitude,
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


# --- from mel back to bins


def mel_error(magnitude: torch.Tensor, mel: torch.Tensor, config: MelConfig) -> float:
    return ((mel_filterbank(config) @ magnitude - mel).norm() / mel.norm()).item()


@pytest.mark.parametrize("config", CONFIGS)
def test_magnitude_has_the_mel_asked_for(config):
    mel = mel_spectrogram(noise(2, 8000), config)
    magnitude = mel_to_magnitude(mel, config)
    assert magnitude.shape == (2, config.n_fft // 2 + 1, mel.shape[-1])
    assert (magnitude >= 0).all()
    assert mel_error(magnitude, mel, config) < 0.01


def test_mel_of_a_tone_needs_the_updates_and_they_never_get_worse():
    config = MelConfig()
    mel = mel_spectrogram(chirp(), config)
    errors = [mel_error(mel_to_magnitude(mel, config, n_iter=n), mel, config) for n in (0, 1, 2, 5, 10, 30, 100)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.03 and errors[-2] < 0.4 * errors[0]


def test_without_updates_it_is_the_pseudo_inverse():
    config = MelConfig()
    mel = mel_spectrogram(chirp(4000), config)
    expected = np.linalg.pinv(mel_filterbank(config).numpy().astype(np.float64)) @ mel.numpy()
    magnitude = mel_to_magnitude(mel, config, n_iter=0).numpy()
    assert (expected < -1e-2).any()
    assert np.abs(magnitude - np.maximum(expected, config.floor)).max() < 1e-3


def test_magnitude_is_nearer_than_librosas():
    config = MelConfig(n_fft=512, n_mels=32)
    truth = stft(chirp(4000), n_fft=512, hop_length=160).abs()
    mel = mel_filterbank(config) @ truth
    theirs = torch.from_numpy(librosa.feature.inverse.mel_to_stft(mel.numpy(), sr=16_000, n_fft=512, power=1.0))
    ours = mel_to_magnitude(mel, config)
    assert mel_error(ours, mel, config) < mel_error(theirs, mel, config)
    assert (ours - truth).norm() < (theirs - truth).norm()


def test_flat_spectrum_comes_back_flat():
    config = MelConfig()
    magnitude = mel_to_magnitude(mel_filterbank(config) @ torch.full((513, 3), 2.0), config)
    assert magnitude[20:-20].mean() == pytest.approx(2.0, rel=0.02)
    assert (magnitude[20:-20] - 2.0).abs().max() < 0.6  # of all with this mel the shortest, so humped within a filter


def test_mel_of_silence_is_a_silent_magnitude():
    assert not mel_to_magnitude(torch.zeros(64, 5)).any()
    assert mel_to_magnitude(torch.zeros(64, 5), n_iter=0).max() == pytest.approx(1e-5)


def test_magnitude_from_mel_is_differentiable_and_leaves_its_input_alone():
    mel = mel_spectrogram(noise(3200)).requires_grad_()
    before = mel.detach().clone()
    mel_to_magnitude(mel, n_iter=3).sum().backward()
    assert mel.grad.isfinite().all() and torch.equal(mel.detach(), before)


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (torch.full((64, 5), -11.5), r"0 or more, got -11.5: for a log mel, pass log_mel.exp\(\)"),
        (torch.ones(80, 5), r"shape \(..., 64, N\), got torch.float32 \(80, 5\)"),
        (torch.ones(64), r"shape \(..., 64, N\)"),
        (torch.ones(64, 5, dtype=torch.complex64), "real"),
    ],
    ids=["log mel", "80 bands", "no frames", "complex"],
)
def test_what_is_no_mel_is_refused(mel, message):
    with pytest.raises(ValueError, match=message):
        mel_to_magnitude(mel)
    if "log mel" not in message:
        with pytest.raises(ValueError, match=message):
            mask_to_bins(mel)


def test_bin_gets_the_weighted_mean_of_its_bands():
    config = MelConfig(n_fft=512, n_mels=20)
    mask = noise(20, 4).abs()
    filters = mel_filterbank(config).numpy()
    on_bins = mask_to_bins(mask, config).numpy()
    assert on_bins.shape == (257, 4)
    for k in (1, 17, 100, 255):
        expected = np.average(mask.numpy(), axis=0, weights=filters[:, k])
        assert np.allclose(on_bins[k], expected, atol=1e-5)
    bins = np.arange(257) * 16_000 / 512
    centre = mel_to_hz(torch.linspace(0, hz_to_mel(torch.tensor(8000.0)).item(), 22))[11].item()
    nearest = int(np.abs(bins - centre).argmin())
    assert np.abs(on_bins[nearest] - mask[10].numpy()).max() < 0.1  # at a filter's top its band decides


def test_equal_bands_give_equal_bins_where_filters_reach():
    on_bins = mask_to_bins(torch.full((2, 64, 3), 0.7), MelConfig(f_min=50.0, f_max=4000.0))
    reached = on_bins > 0
    torch.testing.assert_close(on_bins[reached], torch.full_like(on_bins[reached], 0.7))
    assert reached[:, 4:255].all() and not reached[:, :4].any() and not reached[:, 256:].any()


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
