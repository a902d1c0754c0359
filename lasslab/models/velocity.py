"""The velocity network of the flow: a U-Net over latents that is told the time, the mixture and the words.

    v(x_t, t | z_m, E):  concat(x_t, z_m) on channels -> U-Net, cross-attention to the token embeddings E -> velocity

The mixture's latent z_m has the place of x_t point for point, so it is concatenated to it and the noise does not touch
it (FlowSep, II-B2); the words have no place in it, so every point asks them by cross-attention. The diffusion baseline
is the same network, which then predicts the noise.

The blocks are diffusers' `UNet2DConditionModel`; what this file adds is what is particular to the task: the
concatenation, time in [0, 1] with data at 1, a mask for padded tokens, a coordinate channel in the small sizes, which
tells bass from treble where training is short, and `capture_attention`, which reads the cross-attention maps of a
network without a change to it.

References: Yuan et al., FlowSep, 2024; Ronneberger et al., "U-Net", MICCAI 2015; Rombach et al., "High-resolution image
synthesis with latent diffusion models", CVPR 2022. Notebooks 12 to 15.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from lasslab import diffusion, flow
from lasslab.flow import Condition
from lasslab.models.text import TextEmbedding

#: process -> what a network of it answers where the datum is known
ANSWERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "flow": flow.velocity_to,
    "diffusion": diffusion.noise_in,
}
GATE_BIAS = 1.0  # of a gate that has not learned: 73 % of the answer is the network's own
TIME_SCALE = 1000.0  # the time embedding's sines were chosen for step numbers 0 to 1000


@dataclass(frozen=True)
class VelocityConfig:
    """Sizes of the U-Net.

    Args:
        channels: widths of the levels, finest first; each but the last halves both axes.
        attention: levels with attention, to themselves and to the words; the middle always has it.
        n_res_blocks: residual blocks for each level on the way down; one more on the way up.
        head_width: channels of an attention head.
        latent_channels: Z.
        text_dim: width D of one text token embedding.
        coordinate: one more input channel, the height on the mel axis from -1 to 1.
        copies: the process that the network answers for, "flow" or "diffusion", if it has a gate; see
            `VelocityNetwork`. "" is the published network, without one.
    """

    channels: tuple[int, ...] = (64, 96, 128)
    attention: tuple[bool, ...] = (False, True, True)
    n_res_blocks: int = 1
    head_width: int = 32
    latent_channels: int = 8
    text_dim: int = 384
    coordinate: bool = True
    copies: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON knows lists only
        object.__setattr__(self, "attention", tuple(self.attention))
        if self.copies not in ("", *ANSWERS):
            raise ValueError(f"copies is one of {', '.join(ANSWERS)}, or nothing, got {self.copies!r}")
        counts = (*self.channels, self.n_res_blocks, self.head_width, self.latent_channels, self.text_dim)
        if not self.channels or min(counts) < 1:
            raise ValueError(f"widths and counts must be positive, got {counts}")
        if self.n_res_blocks > 64:  # the rest fails where it is allocated; blocks would be added until memory is full
            raise ValueError(f"a level has at most 64 residual blocks, got {self.n_res_blocks}: 1 or 2 is usual")
        if any(width % 8 for width in self.channels):
            raise ValueError(f"channels must be multiples of 8, in which they are normalised, got {self.channels}")
        if len(self.attention) != len(self.channels):
            raise ValueError(f"attention is one yes or no for each level, got {len(self.attention)}")
        asking = [width for width, yes in zip(self.channels, (*self.attention[:-1], True), strict=True) if yes]
        if any(width % self.head_width for width in asking):
            raise ValueError(f"levels with attention must be multiples of head_width {self.head_width}, got {asking}")

    def to_dict(self) -> dict:
        """Plain values for `config.json`."""
        return asdict(self)


#: Sizes by name: 1.4, 6.0 and 187.9 M parameters. "full" has FlowSep's widths, 128 x 1-2-3-5, and its levels of
#: attention, in diffusers' blocks; the paper counts 265.5 M in its own.
SIZES: dict[str, VelocityConfig] = {
    "quick": VelocityConfig(channels=(32, 32, 64)),
    "lab": VelocityConfig(),
    "full": VelocityConfig(
        channels=(128, 256, 384, 640),
        attention=(False, True, True, True),
        n_res_blocks=2,
        text_dim=1024,
        coordinate=False,
    ),
}


class VelocityNetwork(nn.Module):
    """A U-Net that answers with a tensor like x_t: the velocity, or in a diffusion the noise.

    With `copies` one more output is a **gate** m in (0, 1), a number for each point of the latent, and the answer

        m u + (1 - m) u_z                                                                                         (1)

    mixes the U-Net's own u with u_z, which leads to the latent z_m that the network is told. Where m is 0, that latent
    is handed on as it is. Most of an edit, and much of a mixture, is to stay as it is; a small network that is trained
    for an hour has not learned to hand on what it sees. Neither FlowSep nor RFM-Editing has a gate.

    Args:
        config: sizes, see `SIZES`.
    """

    def __init__(self, config: VelocityConfig | None = None) -> None:
        from diffusers import UNet2DConditionModel

        super().__init__()
        self.config = config = config or VelocityConfig()
        self.blocks = UNet2DConditionModel(
            in_channels=2 * config.latent_channels + config.coordinate,
            out_channels=config.latent_channels + bool(config.copies),
            down_block_types=tuple("CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in config.attention),
            up_block_types=tuple("CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(config.attention)),
            block_out_channels=config.channels,
            layers_per_block=config.n_res_blocks,
            cross_attention_dim=config.text_dim,
            # diffusers takes the number of heads under this name
            attention_head_dim=tuple(max(1, width // config.head_width) for width in config.channels),
            norm_num_groups=16 if all(width % 32 == 0 for width in config.channels) else 8,
        )

    def forward(
        self, x_t: Tensor, t: Tensor, *, mixture: Tensor, tokens: Tensor, token_mask: Tensor, with_gate: bool = False
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """The velocity at x_t.

        Args:
            x_t: state (B, Z, N', M'), time x mel.
            t: times in [0, 1], (B,); 0 is noise.
            mixture: latent of the mixture (B, Z, N', M').
            tokens: text token embeddings (B, L, text_dim).
            token_mask: True where a token is real (B, L).
            with_gate: return the gate as well.

        Returns:
            Velocity (B, Z, N', M'), and with `with_gate` the gate (B, 1, N', M'), None where there is none.
        """
        own, gate = self.own_answer(x_t, t, mixture=mixture, tokens=tokens, token_mask=token_mask)
        answer = own if gate is None else gate * own + (1 - gate) * ANSWERS[self.config.copies](x_t, t, mixture)
        return (answer, gate) if with_gate else answer

    def own_answer(
        self, x_t: Tensor, t: Tensor, *, mixture: Tensor, tokens: Tensor, token_mask: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """What the U-Net itself answers, u of (1), and the gate m (B, 1, N', M'), None where there is none.

        Args:
            x_t, t, mixture, tokens, token_mask: as in `forward`.
        """
        parts = [x_t, mixture]
        if self.config.coordinate:
            height = torch.linspace(-1, 1, x_t.shape[-1], dtype=x_t.dtype, device=x_t.device)
            parts.append(height.expand(len(x_t), 1, *x_t.shape[-2:]))
        x = torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last)
        answer = self.blocks(
            x, t * TIME_SCALE, encoder_hidden_states=tokens, encoder_attention_mask=token_mask, return_dict=False
        )[0]
        return (answer[:, :-1], answer[:, -1:].sigmoid()) if self.config.copies else (answer, None)

    @staticmethod
    def with_gate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a network without a gate, and a gate that has not learned yet."""
        added = {"blocks.conv_out.weight": 0.0, "blocks.conv_out.bias": GATE_BIAS}
        return tensors | {
            name: torch.cat([tensors[name], torch.full_like(tensors[name][:1], value)]) for name, value in added.items()
        }


def condition_on(mixture: Tensor, text: TextEmbedding) -> tuple[Condition, Condition]:
    """What the network is called with, and the same without words.

    Args:
        mixture: latents (B, Z, N', M').
        text: token embeddings (B, L, D) and their mask.

    Returns:
        Condition and null condition. Without words there is one token, of zeros: no sentence has it.
    """
    condition = {"mixture": mixture, "tokens": text.tokens, "token_mask": text.mask}
    unsaid = without_words(text, torch.ones(len(text.mask), dtype=torch.bool, device=text.mask.device))
    return condition, {"mixture": mixture, "tokens": unsaid.tokens, "token_mask": unsaid.mask}


def without_words(text: TextEmbedding, unsaid: Tensor) -> TextEmbedding:
    """The same, but with no words where `unsaid` (B,): one token, of zeros, which no sentence has."""
    first = torch.zeros_like(text.mask)
    first[:, 0] = True
    return TextEmbedding(
        text.tokens.masked_fill(unsaid[:, None, None], 0.0), torch.where(unsaid[:, None], first, text.mask)
    )


class CrossAttentionMap:
    """Cross-attention of one layer at one call: weights (B, heads, N_l, M_l, L), rows over the L tokens sum to 1."""

    def __init__(self, layer: str, weights: Tensor) -> None:
        self.layer, self.weights = layer, weights


@contextlib.contextmanager
def capture_attention(network: VelocityNetwork) -> Iterator[list[CrossAttentionMap]]:
    """Collect the cross-attention maps of every call within the block: the network is as before after it.

        with capture_attention(network) as maps:
            network(x_t, t, ...)

    Args:
        network: whose `blocks` are a `UNet2DConditionModel`.

    Yields:
        A list that each call extends by one map for each layer, in the order of computing, on the CPU.
    """
    maps: list[CrossAttentionMap] = []
    size: dict[str, int] = {}

    def remember_size(module: nn.Module, arguments: tuple) -> None:
        size["height"], size["width"] = arguments[0].shape[-2:]

    before = dict(network.blocks.attn_processors)
    readers = {
        name: _Reader(name.removesuffix(".processor"), maps, size) if ".attn2." in name else processor
        for name, processor in before.items()
    }
    hooks = [
        module.register_forward_pre_hook(remember_size)
        for module in network.blocks.modules()
        if type(module).__name__ == "Transformer2DModel"
    ]
    network.blocks.set_attn_processor(readers)
    try:
        yield maps
    finally:
        network.blocks.set_attn_processor(before)
        for hook in hooks:
            hook.remove()


class _Reader:
    """Attention written out, softmax(Q K' / sqrt(d)) V, where the usual kernel keeps its weights to itself."""

    def __init__(self, layer: str, maps: list[CrossAttentionMap], size: dict[str, int]) -> None:
        self.layer, self.maps, self.size = layer, maps, size

    def __call__(self, attention, hidden, encoder_hidden_states=None, attention_mask=None, **_) -> Tensor:
        batch, n_points, _ = hidden.shape
        heads = attention.heads

        def split(x: Tensor) -> Tensor:  # (B, n, heads * d) -> (B, heads, n, d)
            return x.unflatten(-1, (heads, -1)).transpose(1, 2)

        query = split(attention.to_q(hidden))
        key, value = split(attention.to_k(encoder_hidden_states)), split(attention.to_v(encoder_hidden_states))
        scores = query @ key.mT * attention.scale
        if attention_mask is not None:  # (B, 1, L), large and negative where a token is padding
            scores = scores + attention_mask[:, None]
        weights = scores.softmax(-1)
        height = self.size["height"]
        self.maps.append(
            CrossAttentionMap(self.layer, weights.detach().float().cpu().unflatten(2, (height, n_points // height)))
        )
        mixed = (weights @ value).transpose(1, 2).reshape(batch, n_points, -1)
        return attention.to_out[1](attention.to_out[0](mixed))
