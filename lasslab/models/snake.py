"""BigVGAN's activation: Snake, computed at twice the rate so that the frequencies it makes do not fold back.

Snake bends a signal periodically, which suits waveforms:

    f(x) = x + sin^2(alpha x) / beta,   alpha, beta > 0 per channel                                                 (1)

Any such function makes harmonics, and those above half the sample rate come back at wrong frequencies (aliasing). So
the signal is brought to twice the rate, bent there, low-pass filtered and brought back:

    y = down(f(up(x)))

Both filters are the same 12 taps: a sinc of cutoff 1/4 of the doubled rate under a Kaiser window.

Tensors are (B, C, 1, T) in channels-last memory throughout. On a 2-core CPU a depthwise filter then takes 1 ns a value,
against 10 ns for (B, C, T), where a polyphase form and products with Toeplitz matrices were no faster; what is left is
the sine.

References: Ziyin, Hartwig and Ueda, "Neural networks fail to learn periodic functions and how to fix it", NeurIPS 2020;
Karras et al., "Alias-free generative adversarial networks", NeurIPS 2021; Lee et al., "BigVGAN: a universal neural
vocoder with large-scale training", ICLR 2023. Notebook 10.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = 12


def kaiser_sinc(*, cutoff: float, half_width: float, n_taps: int = TAPS) -> Tensor:
    """A low-pass filter: h[n] = 2 f_c sinc(2 f_c t) w(t), scaled to gain 1 at 0 Hz.

    Args:
        cutoff: f_c as a share of the sample rate, up to 0.5.
        half_width: half of the transition band, as a share of the sample rate; with the number of taps it decides the
            window's beta by Kaiser's formula.
        n_taps: length; even lengths are centred between two samples.

    Returns:
        Filter (n_taps,), float32, symmetric.

    Reference: Kaiser, "Nonrecursive digital filter design using the I0-sinh window function", 1974.
    """
    attenuation = 2.285 * (n_taps // 2 - 1) * math.pi * 4 * half_width + 7.95  # dB
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    else:
        beta = 0.5842 * max(attenuation - 21, 0) ** 0.4 + 0.07886 * max(attenuation - 21, 0)
    time = torch.arange(n_taps, dtype=torch.float64) - (n_taps - 1) / 2
    window = torch.kaiser_window(n_taps, periodic=False, beta=beta, dtype=torch.float64)
    taps = 2 * cutoff * torch.sinc(2 * cutoff * time) * window
    return (taps / taps.sum()).float()


def low_pass() -> Tensor:
    """The filter of BigVGAN: cutoff at a quarter of the doubled rate, 12 taps."""
    return kaiser_sinc(cutoff=0.25, half_width=0.3)


def upsample(x: Tensor, taps: Tensor) -> Tensor:
    """Twice the rate: (B, C, 1, T) -> (B, C, 1, 2 T). The signal is continued by its end values."""
    channels, half = x.shape[1], len(taps) // 2
    pad = half - 1  # values beyond the ends that the first and last outputs hear
    stretched = F.conv_transpose2d(
        F.pad(x, (pad, pad, 0, 0), mode="replicate"),
        (2 * taps).expand(channels, 1, 1, -1),  # zeros between the samples halve the level
        stride=(1, 2),
        padding=(0, 2 * pad + half - 1),
        groups=channels,
    )
    return stretched  # (B, C, 1, 2 T)


def downsample(x: Tensor, taps: Tensor) -> Tensor:
    """Half the rate: (B, C, 1, 2 T) -> (B, C, 1, T). The signal is continued by its end values."""
    channels, half = x.shape[1], len(taps) // 2
    padded = F.pad(x, (half - 1, half, 0, 0), mode="replicate")
    return F.conv2d(padded, taps.expand(channels, 1, 1, -1), stride=(1, 2), groups=channels)


class SnakeBeta(nn.Module):
    """Equation (1), with the logarithms of alpha and beta as parameters.

    Args:
        channels: C.
        log_scale: parameters are logarithms (BigVGAN's best setting); else alpha and beta themselves.
    """

    def __init__(self, channels: int, *, log_scale: bool = True) -> None:
        super().__init__()
        self.log_scale = log_scale
        start = torch.zeros if log_scale else torch.ones
        self.alpha = nn.Parameter(start(channels))
        self.beta = nn.Parameter(start(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 1, T) -> (B, C, 1, T)."""
        alpha, beta = self.alpha[:, None, None], self.beta[:, None, None]
        if self.log_scale:
            alpha, beta = alpha.exp(), beta.exp()
        wave = torch.sin(x * alpha)
        return torch.addcmul(x, wave * wave, 1 / (beta + 1e-9))


class AntiAliased(nn.Module):
    """An activation at twice the rate: y = down(act(up(x))).

    Args:
        act: any pointwise module.
    """

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act
        self.register_buffer("taps", low_pass(), persistent=False)  # constants: not in checkpoints

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 1, T) -> (B, C, 1, T)."""
        return downsample(self.act(upsample(x, self.taps)), self.taps)
