"""Spectrograms in and out of a mask network: square patches of bins as channels (space to depth), and back.

A patch of 2 x 2 bins costs a network a quarter of the positions and keeps the full resolution of the mask.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def to_patches(scaled: Tensor, *, patch: int, n_halvings: int) -> Tensor:
    """(B, F, N) -> (B, patch^2 + 1, F', N'): bins as channels, and the height of each bin in [-1, 1].

    A convolution alone cannot tell 200 Hz from 4 kHz: hence the height. Both axes become multiples of
    patch 2^n_halvings, so that halvings and doublings meet. An n_fft that is a power of two has one bin too many
    (Nyquist): it is left out, and `from_patches` gives it its neighbour's mask.

    Args:
        scaled: log magnitude scaled to [0, 1].
        patch: side of the square.
        n_halvings: how often the network halves both axes.

    Returns:
        Channels-last tensor.
    """
    multiple = patch * 2**n_halvings
    n_bins, n_frames = scaled.shape[-2:]
    bins = n_bins - 1 if n_bins % multiple == 1 and n_bins > 1 else n_bins
    padded = F.pad(scaled[:, None, :bins], (0, -n_frames % multiple, 0, -bins % multiple))
    patches = F.pixel_unshuffle(padded, patch)
    height = torch.linspace(-1, 1, patches.shape[2], device=patches.device, dtype=patches.dtype)
    height = height[None, None, :, None].expand(patches.shape[0], 1, -1, patches.shape[3])
    return torch.cat([patches, height], dim=1).contiguous(memory_format=torch.channels_last)


def from_patches(maps: Tensor, *, patch: int, shape: tuple[int, int]) -> Tensor:
    """(B, c patch^2, F', N') -> (B, c, F, N) with shape = (F, N)."""
    n_bins, n_frames = shape
    spread = F.pixel_shuffle(maps.contiguous(), patch)
    spread = F.pad(spread, (0, 0, 0, max(n_bins - spread.shape[2], 0)), mode="replicate")
    return spread[:, :, :n_bins, :n_frames]


def check_inputs(scaled: Tensor, tokens: Tensor, token_mask: Tensor, *, text_dim: int) -> None:
    """Refuse what no mask network can read.

    Args:
        scaled: should be (B, F, N).
        tokens: should be (B, L, text_dim).
        token_mask: should be (B, L).
        text_dim: width the network was built for.

    Raises:
        ValueError: a shape does not fit, or the batch sizes differ.
    """
    if scaled.ndim != 3:
        raise ValueError(f"scaled must be (batch, bins, frames), got shape {tuple(scaled.shape)}")
    if tokens.ndim != 3 or tokens.shape[-1] != text_dim:
        raise ValueError(
            f"tokens must be (batch, tokens, {text_dim}), got {tuple(tokens.shape)}: "
            "use the text encoder the network was made for"
        )
    if token_mask.shape != tokens.shape[:2] or len(scaled) != len(tokens):
        raise ValueError(
            f"batches disagree: spectrogram {tuple(scaled.shape)}, tokens {tuple(tokens.shape)}, "
            f"token mask {tuple(token_mask.shape)}"
        )
