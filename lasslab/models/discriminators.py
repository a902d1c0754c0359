"""What tells a real waveform from a generated one, for training vocoders, and the losses of the two sides.

- Multi-period: the waveform is folded into rows of p samples for several primes p, and looked at along the columns:
  each sees every p-th sample (Kong et al., "HiFi-GAN", NeurIPS 2020).
- Multi-resolution: magnitude spectrograms of several frame lengths (Jang et al., "UnivNet", 2021; in BigVGAN in place
  of HiFi-GAN's averaged waveforms).

A discriminator gives scores, which least squares pulls towards 1 for real and 0 for generated sounds, and the features
of its layers, which the generator learns to match:

    L_D = mean (D(s) - 1)^2 + mean D(G)^2                                                                          (1)
    L_adversarial = mean (D(G) - 1)^2                                                                              (2)
    L_features = mean over layers of mean |F_l(s) - F_l(G)|                                                        (3)

summed over the discriminators. Notebook 10.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lasslab.signal.spectral import stft

Judgement = list[tuple[Tensor, list[Tensor]]]  # of each discriminator: scores, and the features of its layers

SLOPE = 0.1  # of the leaky ReLUs


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes.

    Args:
        periods: of the multi-period discriminators.
        period_channels: widths of their layers; each but the last takes every third row.
        resolutions: (n_fft, hop_length) of the multi-resolution discriminators.
        resolution_channels: width of their layers.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (8, 16, 32, 64)
    resolutions: tuple[tuple[int, int], ...] = ((512, 128), (1024, 256), (2048, 512))
    resolution_channels: int = 16


SIZES: dict[str, DiscriminatorConfig] = {
    "quick": DiscriminatorConfig(
        periods=(2, 5), period_channels=(4, 8), resolutions=((512, 128),), resolution_channels=4
    ),
    "lab": DiscriminatorConfig(),
    # BigVGAN's; its frames are windowed to 600, 1200 and 240 samples, ours to all of n_fft
    "full": DiscriminatorConfig(
        period_channels=(32, 128, 512, 1024, 1024),
        resolutions=((1024, 120), (2048, 240), (512, 50)),
        resolution_channels=32,
    ),
}


class PeriodDiscriminator(nn.Module):
    """Looks at every p-th sample.

    Args:
        period: p.
        channels: widths of the layers.
    """

    def __init__(self, period: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.period = period
        widths = (1, *channels)
        self.convs = nn.ModuleList(
            weight_norm(
                nn.Conv2d(before, after, (5, 1), stride=(3 if layer < len(channels) - 1 else 1, 1), padding=(2, 0))
            )
            for layer, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.conv_post = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, T) -> scores (B, ...) and the features of each layer."""
        padded = F.pad(waveform, (0, -waveform.shape[-1] % self.period))
        rows = padded.unflatten(-1, (-1, self.period))[:, None]  # (B, 1, T / p, p)
        return _layers(rows, self.convs, self.conv_post)


class ResolutionDiscriminator(nn.Module):
    """Looks at a magnitude spectrogram.

    Args:
        n_fft: frame, samples.
        hop_length: hop, samples.
        channels: width of the layers.
    """

    def __init__(self, n_fft: int, hop_length: int, channels: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        shapes = (((3, 9), (1, 1)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 3), (1, 1)))
        self.convs = nn.ModuleList(
            weight_norm(
                nn.Conv2d(
                    channels if layer else 1, channels, kernel, stride=stride, padding=(kernel[0] // 2, kernel[1] // 2)
                )
            )
            for layer, (kernel, stride) in enumerate(shapes)
        )
        self.conv_post = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, T) -> scores (B, ...) and the features of each layer."""
        magnitude = magnitude_with_slope(stft(waveform.float(), n_fft=self.n_fft, hop_length=self.hop_length))
        return _layers(magnitude.transpose(-1, -2)[:, None], self.convs, self.conv_post)  # (B, 1, N, F)


def magnitude_with_slope(spectrum: Tensor) -> Tensor:
    """|X|, with a slope also where X is exactly 0."""
    return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()


def _layers(x: Tensor, convs: nn.ModuleList, last: nn.Module) -> tuple[Tensor, list[Tensor]]:
    features = []
    x = x.contiguous(memory_format=torch.channels_last)
    for conv in convs:
        x = F.leaky_relu(conv(x), SLOPE)
        features.append(x)
    return last(x), features


class SpectrogramDiscriminator(nn.Module):
    """Looks at patches of a log-mel spectrogram: the adversary of a VAE (PatchGAN, Isola et al., CVPR 2017).

    Args:
        channels: widths of the layers; each halves both axes.
    """

    def __init__(self, channels: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        widths = (1, *channels)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, 4, stride=2, padding=1))
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.conv_post = weight_norm(nn.Conv2d(channels[-1], 1, 3, padding=1))

    def forward(self, log_mel: Tensor) -> Judgement:
        """(B, M, N) -> scores (B, 1, M / 8, N / 8) and features, as the one member of a `Judgement`."""
        return [_layers(log_mel[:, None] / 5 + 1, self.convs, self.conv_post)]  # about zero mean and unit deviation


class Discriminators(nn.Module):
    """All of them, for waveforms.

    Args:
        config: sizes.
    """

    def __init__(self, config: DiscriminatorConfig | None = None) -> None:
        super().__init__()
        self.config = config or DiscriminatorConfig()
        self.members = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, self.config.period_channels) for period in self.config.periods),
                *(
                    ResolutionDiscriminator(n_fft, hop_length, self.config.resolution_channels)
                    for n_fft, hop_length in self.config.resolutions
                ),
            ]
        )

    def forward(self, waveform: Tensor) -> Judgement:
        """(B, T) -> scores and features of each member."""
        return [member(waveform) for member in self.members]


def discriminator_loss(
    *, real: list[tuple[Tensor, list[Tensor]]], generated: list[tuple[Tensor, list[Tensor]]]
) -> Tensor:
    """Equation (1) of this file, from the outputs of `Discriminators` for real and for generated waveforms."""
    pairs = zip(real, generated, strict=True)
    return sum((score - 1).square().mean() + fake.square().mean() for (score, _), (fake, _) in pairs)


def judge_both(judge: nn.Module, *, real: Tensor, made: Tensor) -> Tensor:
    """Equation (1) of what is real and what was made, in one call of the judge: one forward pass of DDP.

    Args:
        judge: gives a `Judgement` of a batch.
        real: (B, ...).
        made: (B, ...), detached from what made it.

    Returns:
        The loss of the judge.
    """
    both = judge(torch.cat([real, made]))
    halves = [(score.chunk(2), [feature.chunk(2) for feature in features]) for score, features in both]
    real, made = ([(score[k], [feature[k] for feature in features]) for score, features in halves] for k in (0, 1))
    return discriminator_loss(real=real, generated=made)


def adversarial_loss(generated: Judgement) -> Tensor:
    """Equation (2)."""
    return sum((score - 1).square().mean() for score, _ in generated)


def feature_loss(*, real: Judgement, generated: Judgement) -> Tensor:
    """Equation (3); the features of the real waveforms are constants."""
    pairs = zip(real, generated, strict=True)
    return sum(
        torch.stack([(a.detach() - b).abs().mean() for a, b in zip(features, fake, strict=True)]).mean()
        for (_, features), (_, fake) in pairs
    )
