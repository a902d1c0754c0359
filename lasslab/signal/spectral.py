"""The short-time Fourier transform, its exact inverse, the scaling a network sees, and the ideal masks.

Conventions, the same everywhere in the package:

- periodic Hann window; frame m is centred on sample m * hop_length;
- the clip is extended with zeros on both sides, so a clip of any length (one sample is enough) has frames;
- N = 1 + ceil(T / hop_length) frames: the last one is centred on the clip's end or beyond it. These are the
  frames of `torch.stft(center=True, pad_mode="constant")`, and one more when hop_length does not divide T.
  Without it the last samples may lie under a window of 0.0001 only: dividing by its square loses four digits,
  and turns whatever a mask left there into a click a thousand times full scale;
- no factor forward, 1 / n_fft backward: a sine of amplitude A at the centre of a bin has |X| = A sum(w) / 2;
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


def hann_window(n_fft: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """The periodic Hann window.

    w[n] = 1/2 - 1/2 cos(2 pi n / n_fft),  n = 0 ... n_fft - 1. Periodic: the next value would be w[0] again.
    The symmetric variant divides by n_fft - 1, and its shifted copies do not add up to a constant.

    Args:
        n_fft: window length in samples, even.
        dtype: floating-point type of the result.

    Returns:
        The window, shape (n_fft,).

    Raises:
        ValueError: n_fft is odd or less than 2.

    Reference: Harris, "On the use of windows for harmonic analysis with the discrete Fourier transform",
    1978.
    Notebook: 01.
    """
    if n_fft < 2 or n_fft % 2:
        raise ValueError(f"n_fft must be an even number of samples, at least 2, got {n_fft}: use 512")
    n = torch.arange(n_fft, dtype=torch.float64)
    return (0.5 - 0.5 * torch.cos(2 * math.pi * n / n_fft)).to(dtype)


def check_cola(window: Tensor, hop_length: int, tolerance: float = 1e-5) -> float:
    """Check the constant-overlap-add condition and return the constant.

    COLA: sum_m w[n - m H] = const for every n. With it, adding up the windowed frames gives back the signal
    times the constant. A periodic Hann window meets it for H = n_fft / 2, n_fft / 3, n_fft / 4 ...; the
    constant is then n_fft / 2H.

    Args:
        window: window, shape (n_fft,).
        hop_length: hop H in samples.
        tolerance: largest deviation from the mean that passes, relative to the mean.

    Returns:
        The constant (1.0 for a Hann window at half overlap).

    Raises:
        ValueError: the shifted windows do not add up to a constant.

    Reference: Allen and Rabiner, "A unified approach to short-time Fourier analysis and synthesis", 1977.
    Notebook: 01.
    """
    total = _shifted_sum(window, hop_length)
    constant = total.mean().item()
    ripple = (total - constant).abs().max().item()
    if not ripple <= tolerance * abs(constant):
        raise ValueError(
            f"hop_length {hop_length} breaks constant overlap-add: windows of {window.shape[-1]} samples "
            f"add up to {constant:.3g} +- {ripple:.2g}; use a hop_length of n_fft / 2 or n_fft / 4"
        )
    return constant


def check_invertible(window: Tensor, hop_length: int, tolerance: float = 1e-3) -> float:
    """Check the nonzero-overlap-add condition, which is all that `istft` needs.

    NOLA: sum_m w[n - m H]^2 > 0 for every n. Weaker than COLA: dividing by the sum undoes any ripple, unless
    hardly a frame sees some sample; rounding, and whatever a mask left, would be amplified there.

    Args:
        window: window, shape (n_fft,).
        hop_length: hop H in samples.
        tolerance: smallest sum that passes, relative to the largest.

    Returns:
        The smallest sum of squared windows.

    Raises:
        ValueError: no frame sees some sample, or hardly.

    Notebook: 01.
    """
    total = _shifted_sum(window.square(), hop_length)
    smallest, largest = total.min().item(), total.max().item()
    if not smallest > tolerance * largest:
        raise ValueError(
            f"hop_length {hop_length} leaves samples that hardly a frame of {window.shape[-1]} samples sees "
            f"(sum of squared windows {smallest:.2g}): use a hop_length of at most n_fft / 2"
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
        raise ValueError(f"the STFT takes float32 or float64 samples, got {waveform.dtype}: call .float()")
    if waveform.dim() < 1 or waveform.shape[-1] < 1:
        raise ValueError(f"the STFT takes samples of shape (..., T), T >= 1, got {tuple(waveform.shape)}")
    _check_hop(hop_length)
    window = hann_window(n_fft, dtype=waveform.dtype).to(waveform.device)
    n_samples = waveform.shape[-1]
    tail = (n_frames(n_samples, hop_length) - 1) * hop_length - n_samples + n_fft // 2
    padded = functional.pad(waveform, (n_fft // 2, tail))
    # unfold only views the samples, the window copies them once: as fast as torch.stft
    frames = padded.unfold(-1, n_fft, hop_length) * window  # (..., N, n_fft)
    return torch.fft.rfft(frames).transpose(-1, -2)  # (..., F, N)


def istft(spectrum: Tensor, *, n_fft: int = N_FFT, hop_length: int = HOP_LENGTH, length: int) -> Tensor:
    """Inverse STFT by weighted overlap-add; exact for a spectrum that `stft` made.

    x[n] = sum_m w[n - m H] y_m[n - m H] / sum_m w[n - m H]^2,  y_m = inverse DFT of frame m.

    For a spectrum that was changed, this is the waveform whose STFT is nearest to it in the least-squares
    sense. The last sample, like every other, lies within H / 2 of the centre of a frame, so the divisor is
    never small.

    Differentiable; any leading dimensions; about twice as fast as torch.istft on a CPU.

    Args:
        spectrum: complex, shape (..., F, N).
        n_fft: frame length in samples, even.
        hop_length: samples between frames, H.
        length: samples T to return.

    Returns:
        Samples, shape (..., T).

    Raises:
        ValueError: another number of bins than n_fft makes, too few frames for the length, or too long a hop.

    Reference: Griffin and Lim, "Signal estimation from modified short-time Fourier transform", 1984, eq. 6.
    Notebook: 01.
    """
    if not spectrum.is_complex() or spectrum.dim() < 2 or spectrum.shape[-2] != n_fft // 2 + 1:
        raise ValueError(
            f"for n_fft {n_fft} the spectrum must be complex, shape (..., {n_fft // 2 + 1}, N), "
            f"got {spectrum.dtype} {tuple(spectrum.shape)}: pass the n_fft that made the spectrum"
        )
    window = hann_window(n_fft, dtype=spectrum.real.dtype)
    check_invertible(window, hop_length)
    longest = (spectrum.shape[-1] - 1) * hop_length
    if not 1 <= length <= longest:
        raise ValueError(
            f"{spectrum.shape[-1]} frames at hop_length {hop_length} make 1 to {longest} samples, "
            f"not {length}: pass the length of the waveform that was transformed"
        )
    frames = torch.fft.irfft(spectrum.transpose(-1, -2), n=n_fft)  # (..., N, n_fft)
    window = window.to(frames.device)
    total = _overlap_add(frames * window, hop_length)
    weight = _overlap_add(window.square().expand(frames.shape[-2], n_fft), hop_length)
    kept = slice(n_fft // 2, n_fft // 2 + length)
    return total[..., kept] / weight[kept]


class LogScaled(NamedTuple):
    """A log magnitude scaled to [0, 1], and the natural logs that 0 and 1 stand for, shape (..., 1, 1)."""

    scaled: Tensor
    low: Tensor
    high: Tensor


def scale_log_magnitude(magnitude: Tensor, *, top_db: float = 80.0) -> LogScaled:
    """Log magnitude, min-max scaled per clip.

    s = (log|X| - low) / (high - low),  high = max log|X|,  low = max(min log|X|, high - top_db ln(10) / 20).

    Natural logarithm. Whatever lies more than top_db below the clip's loudest bin is raised to that floor, so
    that empty bins do not stretch the scale. The level of the clip does not matter. Silence, like any
    constant magnitude, is all zeros.

    Args:
        magnitude: |X|, shape (..., F, N), non-negative.
        top_db: dynamic range kept, dB, positive.

    Returns:
        LogScaled(scaled in [0, 1] with the shape of magnitude, low, high).

    Raises:
        ValueError: complex input, or a top_db that is not positive.

    Notebook: 01.
    """
    if not magnitude.is_floating_point() or magnitude.dim() < 2:
        raise ValueError(
            f"expected a real magnitude of shape (..., F, N), got {magnitude.dtype} "
            f"{tuple(magnitude.shape)}: take spectrum.abs()"
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

    IBM = 1 if 20 log10(|S| / |N|) >= threshold_db, else 0. Where both are silent it is 1: nothing to remove.

    Args:
        target: spectrum S, complex, shape (..., F, N).
        interference: spectrum N of everything else, complex, same shape.
        threshold_db: local criterion, dB.

    Returns:
        Mask of zeros and ones, shape (..., F, N).

    Raises:
        ValueError: the shapes differ.

    Reference: Wang, "On ideal binary mask as the computational goal of auditory scene analysis", 2005.
    Notebook: 05.
    """
    _check_same_shape(target, interference)
    louder = target.abs() >= 10 ** (threshold_db / 20) * interference.abs()
    return louder.to(target.abs().dtype)


def ideal_ratio_mask(target: Tensor, interference: Tensor, *, exponent: float = 2.0) -> Tensor:
    """The target's share of each bin.

    IRM = |S|^p / (|S|^p + |N|^p). p = 2 shares out power (the Wiener gain), p = 1 magnitude. Where both are
    silent it is 1: nothing to remove.

    Args:
        target: spectrum S, complex, shape (..., F, N).
        interference: spectrum N of everything else, complex, same shape.
        exponent: p, positive.

    Returns:
        Mask in [0, 1], shape (..., F, N).

    Raises:
        ValueError: the shapes differ, or the exponent is not positive.

    Reference: Wang, Narayanan and Wang, "On training targets for supervised speech separation", 2014.
    Notebook: 05.
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


def phase_sensitive_mask(target: Tensor, mixture: Tensor, *, limits: tuple[float, float] | None = (0.0, 1.0)) -> Tensor:
    """The best real gain for each bin when the mixture's phase is kept.

    PSM = |S| / |X| cos(theta_S - theta_X) = Re(S / X), clipped to limits. It minimises |S - M X| over real M:
    what is left is at right angles to X in the complex plane. Where the mixture is silent it is 1: nothing to
    remove.

    Args:
        target: spectrum S, complex, shape (..., F, N).
        mixture: spectrum X, complex, same shape.
        limits: smallest and largest gain, or None for none; (0, 1) is what a sigmoid can reach.

    Returns:
        Mask, shape (..., F, N).

    Raises:
        ValueError: the shapes differ.

    Reference: Erdogan et al., "Phase-sensitive and recognition-boosted speech separation", 2015.
    Notebook: 05.
    """
    _check_same_shape(target, mixture)
    silent = mixture == 0
    mask = torch.where(silent, 1, (target / mixture.masked_fill(silent, 1)).real)
    return mask if limits is None else mask.clamp(*limits)


def apply_mask(mask: Tensor, mixture_spectrum: Tensor) -> Tensor:
    """Scale the mixture's magnitude and keep its phase: S_hat = M X = M |X| exp(i theta_X).

    A complex mask turns the phase as well: M X = |M| |X| exp(i (theta_X + theta_M)).

    Args:
        mask: gains M, real or complex, shape (..., F, N).
        mixture_spectrum: X, complex, shape (..., F, N).

    Returns:
        Complex spectrum, shape (..., F, N).

    Raises:
        ValueError: the shapes differ.

    Notebook: 05.
    """
    if mask.shape[-2:] != mixture_spectrum.shape[-2:]:
        raise ValueError(
            f"expected a mask of the spectrum's shape {tuple(mixture_spectrum.shape)}, got {tuple(mask.shape)}"
        )
    return mask * mixture_spectrum


def with_phase(magnitude: Tensor, mixture_spectrum: Tensor) -> Tensor:
    """Give a magnitude the mixture's phase: S_hat = |S_hat| exp(i theta_X), with theta_X = 0 in silent bins.

    Args:
        magnitude: |S_hat|, real, shape (..., F, N).
        mixture_spectrum: X, complex, shape (..., F, N).

    Returns:
        Complex spectrum, shape (..., F, N).

    Raises:
        ValueError: the magnitude is complex, or the shapes differ.

    Notebook: 01.
    """
    _check_real_like(magnitude, mixture_spectrum)
    return magnitude * torch.exp(1j * mixture_spectrum.angle())


def _overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """Add up frames (..., N, n_fft), hop_length apart -> (..., (N - 1) hop_length + n_fft).

    Frames are cut into blocks of hop_length; block r of frame m belongs into block m + r of the sum, so a few
    shifted copies add up all frames at once. A loop over frames is 100 times slower to differentiate, torch's
    fold 2 to 5 times slower; index_add is as fast, but on a GPU its last digits vary from run to run.
    """
    *_, count, n_fft = frames.shape
    n_blocks = -(-n_fft // hop_length)
    total = 0
    for r in range(n_blocks):
        block = frames[..., r * hop_length : (r + 1) * hop_length]  # (..., N, at most H)
        total = total + functional.pad(block, (0, hop_length - block.shape[-1], r, n_blocks - 1 - r))
    return total.flatten(-2)[..., : (count - 1) * hop_length + n_fft]


def _shifted_sum(window: Tensor, hop_length: int) -> Tensor:
    """One period of sum_m w[n - m hop_length], shape (hop_length,), in float64."""
    _check_hop(hop_length)
    padded = functional.pad(window.double(), (0, -window.shape[-1] % hop_length))
    return padded.reshape(-1, hop_length).sum(dim=0)


def _check_hop(hop_length: int) -> None:
    if hop_length < 1:
        raise ValueError(f"hop_length must be at least 1 sample, got {hop_length}: use n_fft / 2")


def _check_same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(
            f"both spectra must have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}: "
            "transform clips of equal length"
        )


def _check_real_like(values: Tensor, spectrum: Tensor) -> None:
    if values.is_complex() or values.shape[-2:] != spectrum.shape[-2:]:
        raise ValueError(
            f"expected a real magnitude of the spectrum's shape {tuple(spectrum.shape)}, "
            f"got {values.dtype} {tuple(values.shape)}"
        )
