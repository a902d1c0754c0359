"""Mel spectrograms, and the way back: from mel to a magnitude, and from that to a waveform without its phase.

Conventions: magnitudes, not powers; Slaney's mel scale with filters of unit area, which is librosa's default;
natural logarithm with a floor. The defaults are FlowSep's and AudioLDM's features, but for the edges: those
centre the first frame within the clip and reflect its ends, we centre it on sample 0 and extend with zeros,
as librosa does.

Notebooks: 02 (mel features), 10 (vocoders).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lasslab.signal.spectral import istft, n_frames, stft

DB_PER_NAT = 20 / math.log(10)  # decibels in one step of a natural logarithm of magnitudes


@dataclass(frozen=True)
class MelConfig:
    """What a mel spectrogram is made with.

    Attributes:
        sample_rate: rate of the waveforms, Hz.
        n_fft: frame length, samples.
        hop_length: samples between frames.
        n_mels: filters M.
        f_min: where the first filter begins, Hz.
        f_max: where the last filter ends, Hz.
        floor: smallest magnitude whose logarithm is taken.

    Raises:
        ValueError: frequencies out of order or above sample_rate / 2, or counts that are not positive.
    """

    sample_rate: int = 16_000
    n_fft: int = 1024
    hop_length: int = 160
    n_mels: int = 64
    f_min: float = 0.0
    f_max: float = 8000.0
    floor: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError(
                f"expected 0 <= f_min < f_max <= sample_rate / 2, got {self.f_min}, {self.f_max} and "
                f"{self.sample_rate} Hz: lower f_max or raise the sample rate"
            )
        if self.n_mels < 1 or not self.floor > 0:
            raise ValueError(f"n_mels and floor must be positive, got {self.n_mels} and {self.floor}: use 64 and 1e-5")


def hz_to_mel(frequency: Tensor) -> Tensor:
    """Slaney's mel scale: 3 f / 200 below 1 kHz, 15 + 27 ln(f / 1000) / ln(6.4) above.

    Args:
        frequency: Hz, any shape, float.

    Returns:
        Mels, same shape.

    Reference: Slaney, "Auditory Toolbox, version 2", 1998. Notebook: 02.
    """
    above = 15 + 27 * torch.log(frequency.clamp_min(1000) / 1000) / math.log(6.4)
    return torch.where(frequency < 1000, 3 * frequency / 200, above)


def mel_to_hz(mel: Tensor) -> Tensor:
    """Undo `hz_to_mel`: 200 m / 3 below 15 mel, 1000 exp((m - 15) ln(6.4) / 27) above."""
    above = 1000 * torch.exp((mel.clamp_min(15) - 15) * math.log(6.4) / 27)
    return torch.where(mel < 15, 200 * mel / 3, above)


def mel_filterbank(config: MelConfig) -> Tensor:
    """Triangular filters, evenly spaced in mel, each of unit area over frequency.

    W_m(f) = 2 / (c_{m+1} - c_{m-1}) max(0, min(up, down)),  m = 1 ... M,
    up = (f - c_{m-1}) / (c_m - c_{m-1}),  down = (c_{m+1} - f) / (c_{m+1} - c_m),
    c_0 = f_min < c_1 < ... < c_{M+1} = f_max evenly spaced in mel.

    Args:
        config: n_mels, n_fft, sample_rate, f_min and f_max are used.

    Returns:
        Filters, float32, shape (M, F), F = n_fft // 2 + 1; equal to librosa.filters.mel.

    Raises:
        ValueError: a filter is so narrow that no bin falls into it.

    Notebook: 02.
    """
    ends = hz_to_mel(torch.tensor([config.f_min, config.f_max], dtype=torch.float64))
    steps = torch.linspace(0, 1, config.n_mels + 2, dtype=torch.float64)
    centres = mel_to_hz(ends[0] + steps * (ends[1] - ends[0]))  # (M + 2,)
    k = torch.arange(config.n_fft // 2 + 1, dtype=torch.float64)
    bins = k * config.sample_rate / config.n_fft  # (F,), Hz
    left, middle, right = (centres[i : i + config.n_mels, None] for i in range(3))  # (M, 1) each
    up, down = (bins - left) / (middle - left), (right - bins) / (right - middle)  # (M, F) each
    triangles = torch.minimum(up, down).clamp_min(0)
    if not triangles.any(dim=1).all():
        raise ValueError(
            f"{config.n_mels} mel filters are too narrow for n_fft {config.n_fft}, some hold no bin: "
            "lower n_mels or raise n_fft"
        )
    return (triangles * 2 / (right - left)).float()


def mel_spectrogram(waveform: Tensor, config: MelConfig | None = None) -> Tensor:
    """Magnitude mel spectrogram: mel[m, n] = sum_k W[m, k] |X[k, n]|.

    Args:
        waveform: samples at config.sample_rate, float32, shape (..., T).
        config: filters and frames; MelConfig() when left out.

    Returns:
        Mel magnitudes, shape (..., M, N), N = 1 + T // hop_length; equal to
        librosa.feature.melspectrogram(power=1).

    Raises:
        ValueError: see `stft` and `mel_filterbank`.

    Notebook: 02.
    """
    config = config or MelConfig()
    spectrum = stft(waveform, n_fft=config.n_fft, hop_length=config.hop_length)
    # no overlap-add inverts a mel spectrogram: it needs no frame beyond the clip's end, and librosa has none
    magnitude = spectrum[..., : 1 + waveform.shape[-1] // config.hop_length].abs()  # (..., F, N)
    return mel_filterbank(config).to(magnitude) @ magnitude


def log_mel_spectrogram(waveform: Tensor, config: MelConfig | None = None) -> Tensor:
    """Natural logarithm of the mel magnitudes, log max(mel, floor). Silence is log(1e-5) = -11.5, not 0.

    Args:
        waveform: samples at config.sample_rate, float32, shape (..., T).
        config: filters, frames and floor; MelConfig() when left out.

    Returns:
        Log mel magnitudes, shape (..., M, N).

    Raises:
        ValueError: see `mel_spectrogram`.

    Notebook: 02.
    """
    config = config or MelConfig()
    return mel_spectrogram(waveform, config).clamp_min(config.floor).log()


def mel_to_magnitude(mel: Tensor, config: MelConfig | None = None, *, n_iter: int = 30) -> Tensor:
    """A magnitude spectrogram whose mel is nearly the one asked for.

    A_0 = max(W^+ mel, floor),  A_{i+1} = A_i (W^T mel) / (W^T W A_i): the pseudo-inverse W^+, whose negative values
    no magnitude can have, then multiplicative updates. They keep A positive, and || W A - mel || never rises.

    Of all the spectra with this mel it is a smooth one: a harmonic between two others within one filter cannot come
    back. Thirty updates are two orders of magnitude faster than librosa.feature.inverse.mel_to_stft, and end nearer.

    Args:
        mel: mel magnitudes (not their logarithm), 0 or more, shape (..., M, N).
        config: what the mel was made with; MelConfig() when left out.
        n_iter: updates; 0 leaves the pseudo-inverse, with magnitudes below the floor raised to it.

    Returns:
        Magnitudes, shape (..., F, N), F = n_fft // 2 + 1.

    Raises:
        ValueError: the mel is complex, has negative values (a logarithm has) or not n_mels rows.

    Reference: Lee and Seung, "Algorithms for non-negative matrix factorization", 2001. Notebook: 02.
    """
    config = config or MelConfig()
    _check_mel(mel, config, "mel magnitudes")
    if bool((mel < 0).any()):
        raise ValueError(f"mel magnitudes are 0 or more, got {mel.min():.3g}: for a log mel, pass log_mel.exp()")
    filters = mel_filterbank(config).to(mel)  # (M, F)
    inverse = torch.linalg.pinv(filters.double()).to(mel)  # (F, M)
    magnitude = (inverse @ mel).clamp_min(config.floor)  # an update cannot leave 0
    wanted = filters.mT @ mel  # (..., F, N)
    for _ in range(n_iter):
        magnitude = magnitude * wanted / (filters.mT @ (filters @ magnitude)).clamp_min(torch.finfo(mel.dtype).tiny)
    return magnitude


def mask_to_bins(mel_mask: Tensor, config: MelConfig | None = None) -> Tensor:
    """A mask over mel bands as a mask over the bins of the STFT.

    M[k] = sum_m W[m, k] M_mel[m] / sum_m W[m, k]: each bin gets the mean of the bands it belongs to, weighted by
    their filters. A bin that no filter reaches (0 Hz, above f_max) gets 0.

    Args:
        mel_mask: gains of the bands, shape (..., M, N).
        config: filters; MelConfig() when left out.

    Returns:
        Gains of the bins, shape (..., F, N), within the range of the bands' gains or 0.

    Raises:
        ValueError: the mask is complex or has not n_mels rows.

    Notebook: 02.
    """
    config = config or MelConfig()
    _check_mel(mel_mask, config, "a mask")
    filters = mel_filterbank(config).to(mel_mask)
    total = filters.sum(dim=0)[:, None]  # (F, 1)
    return (filters.mT @ mel_mask) / torch.where(total > 0, total, 1.0)


def griffin_lim(
    magnitude: Tensor,
    *,
    n_fft: int,
    hop_length: int,
    length: int,
    n_iter: int = 32,
    momentum: float = 0.99,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A waveform whose STFT has nearly the magnitude asked for.

    X_i = STFT(ISTFT(Y_i)),  Y_{i+1} = |S| exp(i angle(X_i + a (X_i - X_{i-1}))),  Y_0 of random phase: go to
    the nearest spectrum that belongs to a waveform, then back to the magnitude, again and again.

    With momentum a = 0 this is Griffin and Lim's algorithm, whose error || |S| - |X_i| || never rises;
    momentum brings the error after 32 repetitions to less than half of that.

    Args:
        magnitude: |S|, shape (..., F, N).
        n_fft: frame length in samples.
        hop_length: samples between frames.
        length: samples to return, such that N = 1 + ceil(length / hop_length).
        n_iter: repetitions, 0 or more.
        momentum: a, 0 (slow and sure) to 1.
        generator: source of the first phases; seed 0 when left out, so the result is always the same.

    Returns:
        Samples, shape (..., length).

    Raises:
        ValueError: the length does not belong to N frames; see `istft`.

    Reference: Griffin and Lim, "Signal estimation from modified short-time Fourier transform", 1984;
    Perraudin et al., "A fast Griffin-Lim algorithm", 2013. Notebook: 10.
    """
    if magnitude.shape[-1] != n_frames(length, hop_length):
        raise ValueError(
            f"{magnitude.shape[-1]} frames do not make {length} samples at hop_length {hop_length}: "
            f"pass length={(magnitude.shape[-1] - 1) * hop_length}"
        )
    generator = generator or torch.Generator().manual_seed(0)
    turns = torch.rand(magnitude.shape, generator=generator, device=generator.device).to(magnitude)
    phase = torch.exp(2j * math.pi * turns)
    previous = torch.zeros_like(phase)
    for _ in range(n_iter):
        waveform = istft(magnitude * phase, n_fft=n_fft, hop_length=hop_length, length=length)
        consistent = stft(waveform, n_fft=n_fft, hop_length=hop_length)
        phase = torch.exp(1j * (consistent + momentum * (consistent - previous)).angle())
        previous = consistent
    return istft(magnitude * phase, n_fft=n_fft, hop_length=hop_length, length=length)


def _check_mel(values: Tensor, config: MelConfig, name: str) -> None:
    if values.is_complex() or values.dim() < 2 or values.shape[-2] != config.n_mels:
        raise ValueError(
            f"expected {name}, real, of shape (..., {config.n_mels}, N), got {values.dtype} {tuple(values.shape)}: "
            "pass the MelConfig that it was made with"
        )
