"""FiLM ResUNet: the network of LASS-Net and AudioSep, in the frame of this course.

    stem -> n x [residual block, halve]  ->  residual block  ->  n x [double, join the skip, residual block]  ->  mask

One vector speaks for the whole sentence. In front of every activation it scales and shifts the channels (feature-wise
linear modulation, Perez et al., 2018):

    FiLM(x) = (1 + gamma(e)) norm(x) + beta(e)                                                                    (1)

with e the mean of the token embeddings and gamma, beta linear in e. LASS-Net has both; AudioSep's released network has
the shift beta alone (`scale=False`). The mask is a magnitude in [0, 1]; with `phase=True` the network also turns the
mixture's phase, as AudioSep does: three maps m, r, i per bin give

    M = sigmoid(m) (cos + i sin),   (cos, sin) = (tanh r, tanh i) / |(tanh r, tanh i)|                            (2)

What is ours and not theirs: 16 kHz and 512 / 256 in place of 32 kHz and 2048 / 320, the log magnitude scaled to [0, 1]
as input, `patch` and the height of each bin (both as in `lasslab.models.resunetpp`), and sizes that fit a laptop.
AudioSep's ResUNet30 has the widths 32-64-128-256-384-384 and 26.45 M trainable parameters, LASS-Net 52.2 M.

References: Liu et al., "Separate what you describe: language-queried audio source separation", Interspeech 2022
(LASS-Net); Liu et al., "Separate anything you describe", 2023 (AudioSep). Notebook 07.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasslab.models.patches import check_inputs, from_patches, to_patches


@dataclass(frozen=True)
class FiLMResUNetConfig:
    """Sizes of the network.

    Args:
        channels: widths, from the stem down to the bottleneck; each after the first halves both axes.
        text_dim: width of one text token embedding.
        text_width: width of the sentence vector e.
        scale: modulate by a gain as well as a shift (LASS-Net); False is AudioSep's shift alone.
        phase: also turn the mixture's phase; the mask is complex then.
        patch: side of the square of bins that become channels before the stem.
    """

    channels: tuple[int, ...] = (24, 48, 96, 128, 128)
    text_dim: int = 384
    text_width: int = 128
    scale: bool = True
    phase: bool = False
    patch: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON knows lists only
        if len(self.channels) < 2:
            raise ValueError(f"channels needs a stem and at least one level below it, got {self.channels}")

    def to_dict(self) -> dict:
        """Plain values for `config.json`."""
        return asdict(self)


#: Sizes by name, each with about as many parameters as the ResUNet++ of that name; `full` is AudioSep's.
SIZES: dict[str, FiLMResUNetConfig] = {
    "quick": FiLMResUNetConfig(channels=(8, 16, 32, 48, 48), text_width=64),
    "lab": FiLMResUNetConfig(),
    "full": FiLMResUNetConfig(channels=(32, 64, 128, 256, 384, 384), text_width=512, scale=False, phase=True, patch=1),
}


class FiLM(nn.Module):
    """Equation (1): normalise, then scale and shift every channel as the sentence says."""

    def __init__(self, channels: int, width: int, *, scale: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.shift = nn.Linear(width, channels)
        self.scale = nn.Linear(width, channels) if scale else None

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        """(B, C, H, W), (B, E) -> (B, C, H, W)."""
        x = self.norm(x)
        if self.scale is not None:
            x = x * (1 + self.scale(sentence))[:, :, None, None]
        return x + self.shift(sentence)[:, :, None, None]


class FiLMBlock(nn.Module):
    """Residual block of two 3x3 convolutions, each after FiLM and a leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, config: FiLMResUNetConfig) -> None:
        super().__init__()
        self.film_1 = FiLM(inputs, config.text_width, scale=config.scale)
        self.conv_1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.film_2 = FiLM(outputs, config.text_width, scale=config.scale)
        self.conv_2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        """(B, inputs, H, W), (B, E) -> (B, outputs, H, W)."""
        branch = self.conv_1(F.leaky_relu(self.film_1(x, sentence), 0.01))
        branch = self.conv_2(F.leaky_relu(self.film_2(branch, sentence), 0.01))
        return branch + self.shortcut(x)


class FiLMResUNet(nn.Module):
    """Scaled log-magnitude of a mixture and a sentence in, a mask out.

    Args:
        config: sizes, see `SIZES`.
    """

    def __init__(self, config: FiLMResUNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FiLMResUNetConfig()
        widths = config.channels
        self.sentence = nn.Sequential(nn.LayerNorm(config.text_dim), nn.Linear(config.text_dim, config.text_width))
        self.stem = nn.Conv2d(config.patch**2 + 1, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(
            FiLMBlock(inputs, outputs, config)
            for inputs, outputs in zip((widths[0], *widths[:-2]), widths[:-1], strict=True)
        )
        self.bottleneck = FiLMBlock(widths[-2], widths[-1], config)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2)
            for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.decoder = nn.ModuleList(FiLMBlock(2 * width, width, config) for width in widths[-2::-1])
        self.mask = nn.Conv2d(widths[0], (3 if config.phase else 1) * config.patch**2, 1)

    def forward(self, scaled: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """Predict the mask.

        Args:
            scaled: log magnitude of the mixture scaled to [0, 1], (B, F, N).
            tokens: text token embeddings, (B, L, text_dim).
            token_mask: True where a token is real, (B, L).

        Returns:
            Mask (B, F, N): in [0, 1], or complex with a magnitude in [0, 1] for `phase=True`.

        Raises:
            ValueError: when a shape does not fit the configuration.
        """
        check_inputs(scaled, tokens, token_mask, text_dim=self.config.text_dim)
        sentence = self.sentence(mean_token(tokens, token_mask))  # (B, E)
        x = self.stem(to_patches(scaled, patch=self.config.patch, n_halvings=len(self.config.channels) - 1))
        skips = []
        for block in self.encoder:
            x = block(x, sentence)
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        x = self.bottleneck(x, sentence)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1), sentence)
        maps = from_patches(self.mask(x), patch=self.config.patch, shape=scaled.shape[-2:])  # (B, 1 or 3, F, N)
        magnitude = torch.sigmoid(maps[:, 0])
        return rotate(magnitude, maps[:, 1], maps[:, 2]) if self.config.phase else magnitude


def mean_token(tokens: Tensor, token_mask: Tensor) -> Tensor:
    """One vector for a sentence: the mean of its real tokens, (B, L, D) and (B, L) -> (B, D).

    This is how all-MiniLM-L6-v2 makes its sentence embedding.
    """
    weight = token_mask[..., None].to(tokens.dtype)
    return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)


def rotate(magnitude: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
    """Equation (2): a complex mask from a magnitude and two unbounded maps, (B, F, N) each."""
    real, imaginary = torch.tanh(real.float()), torch.tanh(imaginary.float())
    length = (real.square() + imaginary.square() + 1e-8).sqrt()
    return magnitude * torch.complex(real / length, imaginary / length)
