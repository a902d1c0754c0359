"""Cross-attention ResUNet++: a mask for one spectrogram, steered by a sentence.

The network of the thesis "Language-queried audio source separation with a cross-attention ResUNet++", chapter 4:

    stem -> 3 x [residual block, squeeze-and-excitation, cross-attention]      encoder
         -> ASPP, cross-attention                                               bottleneck
         -> 3 x [attention-gated skip, upsample, residual block,
                 cross-attention, squeeze-and-excitation]                       decoder
         -> cross-attention, small ASPP, 1x1 convolution, sigmoid               mask

Where the thesis is silent or contradicts itself:

- Its section 2.6 calls the text the query and the audio key and value. That could not write text into a feature map,
  so here **audio positions are the queries, text tokens the keys and values**.
- Its mask is "concatenated" to the mixture; a mask is **multiplied** (see `lasslab.signal.spectral.apply_mask`).
- `patch` groups patch x patch neighbouring bins into channels before the stem and spreads them again at the end (space
  to depth). `patch=1` is the thesis's reading; `patch=2` costs a quarter and keeps the mask's full resolution.
- The stem also sees each bin's height in the spectrogram: a convolution alone cannot tell 200 Hz from 4 kHz.

Notebook 07 builds every block of this file by hand.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasslab.models.patches import check_inputs, from_patches, to_patches


@dataclass(frozen=True)
class ResUNetPlusPlusConfig:
    """Sizes of the network.

    Args:
        channels: width of the stem and of the three encoder blocks.
        text_dim: width of one text token embedding.
        text_width: width the tokens are projected to once, before every cross-attention.
        head_dim: width of one attention head; every entry of `channels` is a multiple of it.
        rates: dilations of the bottleneck's ASPP.
        final_rates: dilations of the small ASPP before the mask.
        se_reduction: squeeze-and-excitation bottleneck factor.
        patch: side of the square of bins that become channels before the stem.
    """

    channels: tuple[int, int, int, int] = (24, 48, 96, 192)
    text_dim: int = 384
    text_width: int = 128
    head_dim: int = 24
    rates: tuple[int, ...] = (1, 2, 4, 8)
    final_rates: tuple[int, ...] = (1, 2, 4)
    se_reduction: int = 8
    patch: int = 2

    def __post_init__(self) -> None:
        # JSON knows lists only; keep the dataclass hashable and comparable.
        for name in ("channels", "rates", "final_rates"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.channels) != 4:
            raise ValueError(f"channels needs 4 widths (stem and three encoder blocks), got {self.channels}")
        if any(width % self.head_dim for width in self.channels):
            raise ValueError(f"every width in channels={self.channels} must be a multiple of head_dim={self.head_dim}")

    def to_dict(self) -> dict:
        """Plain values for `config.json`."""
        return asdict(self)


#: Sizes by name: `quick` trains in a minute on a laptop, `lab` in an hour, `full` has the reference backbone's width.
SIZES: dict[str, ResUNetPlusPlusConfig] = {
    "quick": ResUNetPlusPlusConfig(channels=(8, 16, 32, 64), head_dim=8, text_width=64),
    "lab": ResUNetPlusPlusConfig(),
    "full": ResUNetPlusPlusConfig(channels=(32, 64, 128, 256), head_dim=32, rates=(1, 6, 12, 18), patch=1),
}


def convolution(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size (divided by `stride`)."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


class Stem(nn.Module):
    """First features at full resolution: two convolutions beside a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs)
        self.norm = nn.BatchNorm2d(outputs)
        self.second = convolution(outputs, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return self.second(F.relu(self.norm(self.first(x)))) + self.shortcut(x)


class ResidualBlock(nn.Module):
    """Pre-activation residual block: y = shortcut(x) + conv(relu(norm(conv(relu(norm(x)))))).

    With a stride the shortcut averages before its 1x1 convolution: every bin counts, where a strided 1x1 convolution
    would look at one in four. (It also avoids oneDNN's strided 1x1 backward, which writes out of bounds at 8 channels
    in torch 2.13.)
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.norm_1, self.conv_1 = nn.BatchNorm2d(inputs), convolution(inputs, outputs, stride=stride)
        self.norm_2, self.conv_2 = nn.BatchNorm2d(outputs), convolution(outputs, outputs)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        branch = self.conv_1(F.relu(self.norm_1(x)))
        branch = self.conv_2(F.relu(self.norm_2(branch)))
        return branch + self.shortcut(self.pool(x))


class SqueezeExcitation(nn.Module):
    """Channel attention: every channel times a gate computed from all channels' means (Hu et al., 2018).

    g = sigmoid(W_2 relu(W_1 mean_{h,w} x)),   y = g x
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3))))))  # (B, C)
        return x * gate[:, :, None, None]


class CrossAttention(nn.Module):
    """Every audio position asks the sentence: x + W_o softmax(Q K^T / sqrt(d)) V.

    Q comes from the audio positions (H W of them), K and V from the L text tokens; padded tokens are left out.
    """

    def __init__(self, channels: int, text_width: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = channels // head_dim
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(text_width, 2 * channels, bias=False)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """(B, C, H, W), (B, L, D), (B, L) -> (B, C, H, W)."""
        batch, channels, height, width = x.shape
        positions = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        query = self._heads(self.query(self.norm(positions)))  # (B, heads, H W, d)
        key, value = (self._heads(part) for part in self.key_value(tokens).chunk(2, dim=-1))  # (B, heads, L, d)
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=token_mask[:, None, None, :])
        read = self.output(read.transpose(1, 2).reshape(batch, height * width, channels))
        return x + read.reshape(batch, height, width, channels).permute(0, 3, 1, 2)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the same map seen at several dilations, side by side (Chen et al., 2017)."""

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        width = max(outputs // 3, 8)
        self.branches = nn.ModuleList(
            nn.Sequential(convolution(inputs, width, dilation=rate), nn.BatchNorm2d(width), nn.ReLU()) for rate in rates
        )
        self.project = nn.Conv2d(width * len(rates), outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return self.project(torch.cat([branch(x) for branch in self.branches], dim=1))


class AttentionGate(nn.Module):
    """Lets through the part of a skip connection that the coarser map asks for (Oktay et al., 2018).

    alpha = sigmoid(psi(relu(W_s skip + up(W_c coarse)))),   y = alpha skip
    """

    def __init__(self, skip: int, coarse: int) -> None:
        super().__init__()
        width = max(skip // 2, 8)
        self.from_skip = nn.Conv2d(skip, width, 1)
        self.from_coarse = nn.Conv2d(coarse, width, 1, bias=False)
        self.gate = nn.Conv2d(width, 1, 1)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """(B, skip, 2H, 2W), (B, coarse, H, W) -> (B, skip, 2H, 2W)."""
        asked = F.interpolate(self.from_coarse(coarse), scale_factor=2.0, mode="nearest")
        return skip * torch.sigmoid(self.gate(F.relu(self.from_skip(skip) + asked)))


class EncoderBlock(nn.Module):
    """Halve both axes, weigh the channels, then read the sentence."""

    def __init__(self, inputs: int, outputs: int, config: ResUNetPlusPlusConfig) -> None:
        super().__init__()
        self.residual = ResidualBlock(inputs, outputs, stride=2)
        self.squeeze_excitation = SqueezeExcitation(outputs, config.se_reduction)
        self.cross_attention = CrossAttention(outputs, config.text_width, config.head_dim)

    def forward(self, x: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2)."""
        return self.cross_attention(self.squeeze_excitation(self.residual(x)), tokens, token_mask)


class DecoderBlock(nn.Module):
    """Double both axes, join the gated skip, read the sentence, then weigh the channels."""

    def __init__(self, coarse: int, skip: int, outputs: int, config: ResUNetPlusPlusConfig) -> None:
        super().__init__()
        self.attention_gate = AttentionGate(skip, coarse)
        self.residual = ResidualBlock(coarse + skip, outputs)
        self.cross_attention = CrossAttention(outputs, config.text_width, config.head_dim)
        self.squeeze_excitation = SqueezeExcitation(outputs, config.se_reduction)

    def forward(self, coarse: Tensor, skip: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """(B, coarse, H, W), (B, skip, 2H, 2W) -> (B, outputs, 2H, 2W)."""
        upsampled = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        x = self.residual(torch.cat([upsampled, self.attention_gate(skip, coarse)], dim=1))
        return self.squeeze_excitation(self.cross_attention(x, tokens, token_mask))


class ResUNetPlusPlus(nn.Module):
    """Scaled log-magnitude of a mixture and a sentence in, a mask in [0, 1] out.

    Args:
        config: sizes, see `SIZES`.
    """

    def __init__(self, config: ResUNetPlusPlusConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ResUNetPlusPlusConfig()
        stem, first, second, third = config.channels
        self.text_projection = nn.Sequential(
            nn.LayerNorm(config.text_dim), nn.Linear(config.text_dim, config.text_width)
        )
        self.stem = Stem(config.patch**2 + 1, stem)
        self.encoder = nn.ModuleList(
            [
                EncoderBlock(stem, first, config),
                EncoderBlock(first, second, config),
                EncoderBlock(second, third, config),
            ]
        )
        self.aspp = ASPP(third, third, config.rates)
        self.cross_attention = CrossAttention(third, config.text_width, config.head_dim)
        self.decoder = nn.ModuleList(
            [
                DecoderBlock(third, second, second, config),
                DecoderBlock(second, first, first, config),
                DecoderBlock(first, stem, stem, config),
            ]
        )
        self.final_cross_attention = CrossAttention(stem, config.text_width, config.head_dim)
        self.final_aspp = ASPP(stem, stem, config.final_rates)
        self.mask = nn.Conv2d(stem, config.patch**2, 1)

    def forward(self, scaled: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """Predict the mask.

        Args:
            scaled: log magnitude of the mixture scaled to [0, 1], (B, F, N).
            tokens: text token embeddings, (B, L, text_dim).
            token_mask: True where a token is real, (B, L).

        Returns:
            Mask in [0, 1], (B, F, N).

        Raises:
            ValueError: when a shape does not fit the configuration.
        """
        check_inputs(scaled, tokens, token_mask, text_dim=self.config.text_dim)
        tokens = self.text_projection(tokens)
        x = self.stem(to_patches(scaled, patch=self.config.patch, n_halvings=len(self.encoder)))
        skips = []
        for block in self.encoder:
            skips.append(x)
            x = block(x, tokens, token_mask)
        x = self.cross_attention(self.aspp(x), tokens, token_mask)
        for block in self.decoder:
            x = block(x, skips.pop(), tokens, token_mask)
        x = self.final_aspp(self.final_cross_attention(x, tokens, token_mask))
        mask = from_patches(self.mask(x), patch=self.config.patch, shape=scaled.shape[-2:])  # (B, 1, F, N)
        return torch.sigmoid(mask[:, 0])
