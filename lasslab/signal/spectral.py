"""The short-time Fourier transform, its exact inverse, the scaling a network sees, and the ideal masks.

Conventions, the same everywhere in the package:

- periodic Hann window; frame m is centred on sample m * hop_length;
- the clip is extended with zeros on both sides, so a clip of any length (one sample is enough) has frames;
- N = 1 + ceil(T / hop_length) frames, so the last frame is centred on the clip's end or beyond it. This is what
  `torch.stft(center=True, pad_mode="constant")` computes, plus one frame when hop_length does not divide T;
- no normalisation forward, 1 / n_fft backward: a sine of amplitude A in the middle of a bin has |X| = A sum(w) / 2;
- spectra are complex64 `(..., F, N)` with F = n_fft // 2 + 1 bins, bin k at k * sample_rate / n_fft Hz.

Notebooks: 01 (STFT and phase), 05 (masks and oracles).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

N_FFT = 512
HOP_LENGTH = 256


def hann_window(n_fft: int, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
    """The periodic Hann window.

    w[n] = 1/2 - 1/2 cos(2 pi n / n_fft),  n = 0 ... n_fft - 1. Periodic: the next value would be w[0] again. The
    symmetric variant divides by n_fft - 1 and its shifted copies do not add up to a constant.

    Args:
        n_fft: window length in samples, even.
        dtype: floating-point type of the result.
        device: where the result lives.

    Returns:
        The window, shape (n_fft,).

    Raises:
        ValueError: n_fft is odd or less than 2.
    """
    if n_fft < 2 or n_fft % 2:
        raise ValueError(f"n_fft must be an even number of samples, at least 2, got {n_fft}: use 512, for example")
    n = torch.arange(n_fft, dtype=torch.float64, device="cpu")  # in float64, so that float32 sums stay exact
    return (0.5 - 0.5 * torch.cos(2 * math.pi * n / n_fft)).to(dtype=dtype, device=device)


def check_cola(window: Tensor, hop_length: int, tolerance: float = 1e-5) -> float:
    """Check the constant-overlap-add condition and return the constant.

    COLA: sum_m w[n - m H] = const for every n. With it, adding the windowed frames alone gives back the signal
    times the constant. A periodic Hann window meets it for H = n_fft / 2, n_fft / 3, n_fft / 4 ...

    Args:
        window: window, shape (n_fft,).
        hop_length: hop H in samples.
        tolerance: largest deviation from the mean that passes, relative to the mean.

    Returns:
        The constant (1.0 for a Hann window at half overlap).

    Raises:
        ValueError: the shifted windows do not add up to a constant.

    Reference: Smith, "Spectral Audio Signal Processing", chapter "Overlap-Add STFT Processing".
    """
    total = _shifted_sum(window, hop_length)
    constant = total.mean().item()
    ripple = (total - constant).abs().max().item()
    if not ripple <= tolerance * abs(constant):
        raise ValueError(
            f"hop_length {hop_length} breaks constant overlap-add for this window of {window.shape[-1]} samples "
            f"(ripple {ripple / max(abs(constant), 1e-12):.2g} of the mean): use a hop_length of n_fft / 2 or n_fft / 4"
        )
    return constant


def check_invertible(window: Tensor, hop_length: int, tolerance: float = 1e-3) -> float:
    """Check the nonzero-overlap-add condition, which is all that `istft` needs.

    NOLA: sum_m w[n - m H]^2 > 0 for every n. Weaker than COLA: dividing by the sum undoes any ripple, unless some
    sample is hardly seen by any frame; rounding (and whatever a mask did) would be amplified there.

    Args:
        window: window, shape (n_fft,).
        hop_length: hop H in samples.
        tolerance: smallest sum that passes, relative to the largest.

    Returns:
        The smallest sum of squared windows.

    Raises:
        ValueError: a sample is seen by no frame, or hardly.
    """
    total = _shifted_sum(window.square(), hop_length)
    smallest, largest = total.min().item(), total.max().item()
    if not smallest > tolerance * largest:
        raise ValueError(
            f"hop_length {hop_length} leaves samples that no frame of {window.shape[-1]} samples sees "
            f"(smallest sum of squared windows {smallest:.2g}): use a hop_length of at most n_fft / 2"
        )
    return smallest


def n_frames(n_samples: int, hop_length: int) -> int:
    """Frames of a clip of n_samples: N = 1 + ceil(T / hop_length)."""
    return 1 - (-n_samples // hop_length)


def stft(waveform: Tensor, *, n_fft: int = N_FFT, hop_length: int = HOP_LENGTH) -> Tensor:
    """Short-time Fourier transform.

    X[k, m] = sum_n w[n] x[n + m H - n_fft / 2] exp(-2 pi i k n / n_fft),  x = 0 outside the clip.

    Differentiable; any leading dimensions; on the waveform's device and in its precision.

    Args:
        waveform: samples, shape (..., T), T >= 1, float32 (or float64).
        n_fft: frame length in samples, even.
        hop_length: samples between frames, H.

    Returns:
        Spectrum, complex64 (complex128 for float64), shape (..., F, N), N = 1 + ceil(T / hop_length).

    Raises:
        ValueError: no samples, not float32 or float64, or an impossible n_fft or hop_length.

    Notebook: 01.
    """
    if waveform.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the STFT takes float32 or float64 samples, got {waveform.dtype}: convert with .float()")
    if waveform.dim() < 1 or waveform.shape[-1] < 1:
        raise ValueError(f"the STFT takes samples of shape (..., T), T >= 1, got {tuple(waveform.shape)}")
    window = hann_window(n_fft, dtype=waveform.dtype, device=waveform.device)
    _check_hop(hop_length)
    n_samples = waveform.shape[-1]
    tail = (n_frames(n_samples, hop_length) - 1) * hop_length - n_samples + n_fft // 2
    padded = functional.pad(waveform, (n_fft // 2, tail))
    frames = padded.unfold(-1, n_fft, hop_length) * window  # (..., N, n_fft)
    return torch.fft.rfft(frames).transpose(-1, -2)  # (..., F, N)


def istft(spectrum: Tensor, *, n_fft: int = N_FFT, hop_length: int = HOP_LENGTH, length: int) -> Tensor:
    """Inverse STFT by weighted overlap-add; exact for a spectrum that `stft` made.

    x[n] = sum_m w[n - m H] y_m[n - m H] / sum_m w[n - m H]^2,  y_m = inverse DFT of frame m. For a spectrum that
    was changed, this is the waveform whose STFT is nearest in the least-squares sense.

    Every sample lies within H / 2 of a frame's centre, the last one too (that is what the frame beyond the clip's end
    is for), so the divisor is never small and a masked spectrum cannot end in a click.

    Args:
        spectrum: complex, shape (..., F, N).
        n_fft: frame length in samples, even.
        hop_length: samples between frames, H.
        length: samples T to return.

    Returns:
        Samples, shape (..., T).

    Raises:
        ValueError: the spectrum has another number of bins, or too few frames for the length, or the hop is too long.

    Reference: Griffin and Lim, "Signal estimation from modified short-time Fourier transform", 1984, eq. 6.
    Notebook: 01.
    """
    if not spectrum.is_complex() or spectrum.dim() < 2 or spectrum.shape[-2] != n_fft // 2 + 1:
        raise ValueError(
            f"the inverse STFT with n_fft {n_fft} takes a complex spectrum of shape (..., {n_fft // 2 + 1}, N), "
            f"got {spectrum.dtype} {tuple(spectrum.shape)}: pass the n_fft that made the spectrum"
        )
    window = hann_window(n_fft)
    _check_hop(hop_length)
    check_invertible(window, hop_length)
    longest = (spectrum.shape[-1] - 1) * hop_length
    if not 1 <= length <= longest:
        raise ValueError(
            f"length must be 1 to {longest} samples for {spectrum.shape[-1]} frames at hop_length {hop_length}, "
            f"got {length}: pass the length of the waveform that was transformed"
        )
    frames = torch.fft.irfft(spectrum.transpose(-1, -2), n=n_fft)  # (..., N, n_fft)
    window = window.to(frames)
    total = _overlap_add(frames * window, hop_length)
    weight = _overlap_add(window.square().expand(frames.shape[-2], n_fft), hop_length)
    kept = slice(n_fft // 2, n_fft // 2 + length)
    return total[..., kept] / weight[kept]


class LogScaled(NamedTuple):
    """A log magnitude scaled to [0, 1], and the natural logarithms that 0 and 1 stand for, shape (..., 1, 1)."""

    scaled: Tensor
    low: Tensor
    high: Tensor


def scale_log_magnitude(magnitude: Tensor, *, top_db: float = 80.0) -> LogScaled:
    """Log magnitude, min-max scaled per clip.

    s = (log|X| - low) / (high - low),  high = max log|X|,  low = max(min log|X|, high - top_db ln(10) / 20).

    Natural logarithm; whatever lies more than top_db below the clip's loudest bin is raised to that floor, so empty
    bins do not stretch the scale. The result does not depend on the clip's level. A clip of one constant magnitude, or
    of silence, is all zeros.

    Args:
        magnitude: |X|, shape (..., F, N), non-negative.
        top_db: dynamic range kept, dB, positive.

    Returns:
        LogScaled(scaled in [0, 1] with the shape of magnitude, low, high).

    Raises:
        ValueError: complex input, or a top_db that is not positive.
    """
    if not magnitude.is_floating_point() or magnitude.dim() < 2:
        raise ValueError(
            f"expected a real magnitude of shape (..., F, N), got {magnitude.dtype} {tuple(magnitude.shape)}: "
            "take spectrum.abs()"
        )
    if not top_db > 0:
        raise ValueError(f"top_db must be positive, got {top_db}: use 80, for example")
    smallest = torch.finfo(magnitude.dtype).tiny  # log(0) would be -inf
    log_magnitude = magnitude.clamp_min(smallest).log()
    high = log_magnitude.amax(dim=(-2, -1), keepdim=True)
    low = log_magnitude.amin(dim=(-2, -1), keepdim=True).maximum(high - top_db * math.log(10) / 20)
    span = (high - low).clamp_min(smallest)
    return LogScaled((log_magnitude.maximum(low) - low) / span, low, high)


def unscale_log_magnitude(scaled: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Undo `scale_log_magnitude`: |X| = exp(low + s (high - low)), exact above the floor.

    Args:
        scaled: s, shape (..., F, N).
        low: natural log that 0 stands for, shape (..., 1, 1).
        high: natural log that 1 stands for, shape (..., 1, 1).

    Returns:
        Magnitude, shape (..., F, N).
    """
    return (low + scaled * (high - low)).exp()


def ideal_binary_mask(target: Tensor, interference: Tensor, *, threshold_db: float = 0.0) -> Tensor:
    """1 where the target is at least threshold_db louder than the interference, else 0.

    IBM = [20 log10(|S| / |N|) >= threshold_db]. Where both are silent it is 1: there is nothing to remove.

    Args:
        target: spectrum S, complex, shape (..., F, N).
        interference: spectrum N, complex, shape (..., F, N).
        threshold_db: local criterion, dB.

    Returns:
        Mask of zeros and ones, shape (..., F, N).

    Raises:
        ValueError: the shapes differ.

    Reference: Wang, "On ideal binary mask as the computational goal of auditory scene analysis", 2005. Notebook: 05.
    """
    _check_same_shape(target, interference)
    louder = target.abs() >= 10 ** (threshold_db / 20) * interference.abs()
    return louder.to(target.abs().dtype)


def ideal_ratio_mask(target: Tensor, interference: Tensor, *, exponent: float = 2.0) -> Tensor:
    """The target's share of each bin.

    IRM = |S|^p / (|S|^p + |N|^p); p = 2 shares out power (a Wiener filter), p = 1 magnitude. Where both are silent it
    is 1: there is nothing to remove.

    Args:
        target: spectrum S, complex, shape (..., F, N).
        interference: spectrum N, complex, shape (..., F, N).
        exponent: p, positive.

    Returns:
        Mask in [0, 1], shape (..., F, N).

    Raises:
        ValueError: the shapes differ, or the exponent is not positive.

    Reference: Wang, Narayanan and Wang, "On training targets for supervised speech separation", 2014. Notebook: 05.
    """
    _check_same_shape(target, interference)
    if not exponent > 0:
        raise ValueError(f"exponent must be positive, got {exponent}: use 2 for power, 1 for magnitude")
    s, n = target.abs(), interference.abs()
    louder = s.maximum(n)
    louder = louder.where(louder > 0, 1)  # dividing first keeps the powers of faint bins from vanishing
    s, n = (s / louder) ** exponent, (n / louder) ** exponent
    both = s + n
    return torch.where(both > 0, s / both.where(both > 0, 1), 1)


def phase_sensitive_mask(
    target: Tensor, mixture: Tensor, *, limits: tuple[float, float] | None = (0.0, 1.0)
) -> Tensor:
    """The best real gain for each bin, given that the mixture's phase is kept.

    PSM = |S| / |X| cos(theta_S - theta_X) = Re(S / X). Without limits, S - PSM X is at right angles to X in the
    complex plane. Where the mixture is silent it is 1: there is nothing to remove.

    Args:
        target: spectrum S, complex, shape (..., F, N).
        mixture: spectrum X, complex, shape (..., F, N).
        limits: smallest and largest gain, or None for none; (0, 1) is what a sigmoid can reach.

    Returns:
        Mask, shape (..., F, N).

    Raises:
        ValueError: the shapes differ.

    Reference: Erdogan et al., "Phase-sensitive and recognition-boosted speech separation", 2015. Notebook: 05.
    """
    _check_same_shape(target, mixture)
    silent = mixture == 0
    mask = torch.where(silent, 1, (target / mixture.masked_fill(silent, 1)).real)
    return mask if limits is None else mask.clamp(*limits)


def apply_mask(mask: Tensor, mixture_spectrum: Tensor) -> Tensor:
    """Scale the mixture's magnitude and keep its phase: S_hat = M X = M |X| exp(i theta_X).

    Args:
        mask: real gains M, shape (..., F, N).
        mixture_spectrum: X, complex, shape (..., F, N).

    Returns:
        Complex spectrum, shape (..., F, N).

    Raises:
        ValueError: the mask is complex, or the shapes differ.
    """
    if mask.is_complex() or mask.shape[-2:] != mixture_spectrum.shape[-2:]:
        raise ValueError(
            f"expected a real mask of shape (..., {mixture_spectrum.shape[-2]}, {mixture_spectrum.shape[-1]}), "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    return mask * mixture_spectrum


def _overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """Add frames (..., N, n_fft) at multiples of hop_length -> (..., (N - 1) hop_length + n_fft)."""
    *leading, count, n_fft = frames.shape
    n_samples = (count - 1) * hop_length + n_fft
    columns = frames.reshape(-1, count, n_fft).transpose(-1, -2)  # (K, n_fft, N)
    added = functional.fold(columns, (1, n_samples), kernel_size=(1, n_fft), stride=(1, hop_length))
    return added.reshape(*leading, n_samples)


def _shifted_sum(window: Tensor, hop_length: int) -> Tensor:
    """One period of sum_m w[n - m hop_length], shape (hop_length,), in float64."""
    _check_hop(hop_length)
    padded = functional.pad(window.double(), (0, -window.shape[-1] % hop_length))
    return padded.reshape(-1, hop_length).sum(dim=0)


def _check_hop(hop_length: int) -> None:
    if hop_length < 1:
        raise ValueError(f"hop_length must be at least 1 sample, got {hop_length}: use n_fft / 2, for example")


def _check_same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"both spectra must have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}")
