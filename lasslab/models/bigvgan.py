"""BigVGAN: a log-mel spectrogram in, a waveform out.

Each stage brings the signal to a higher rate (a transposed convolution) and sends it through blocks with different
kernels, whose outputs are averaged. A block bends the signal with an anti-aliased Snake (`lasslab.models.snake`) before
each convolution, and adds the result to what came in:

    x_0 = conv_pre(log-mel)                                       frames
    x_i = mean over k of AMP_k(up_i(x_{i-1}))                     rate x upsample_rates[i], half the channels
    y   = conv_post(act(x_last))                                  samples, then tanh or a clamp to [-1, 1]

Sizes: `full` is the vocoder of FlowSep (13.96 M parameters). `quick` and `lab` are small enough for a laptop and depart
in one thing, `frame_levels`: the network hears each frame relative to its own level, and the level comes back at the
end as a gain. So a sound that is 60 dB fainter is the same task, and silence gives silence by construction.

`load_vocoder` opens everything behind one call, `vocoder(log_mel (B, M, N)) -> waveform (B, N * hop)`: checkpoints of
`lasslab train vocoder`, checkpoints in NVIDIA's layout, AudioLDM's HiFi-GAN and Griffin-Lim
(`lasslab.models.vocoders`). NVIDIA and FlowSep publish pickles, which are never opened by themselves: `convert_pickle`
makes a folder of one.

Reference: Lee et al., "BigVGAN: a universal neural vocoder with large-scale training", ICLR 2023. Notebook 10.
"""

import math
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasslab.models.bigvgan_published import published_fields, published_weights
from lasslab.models.checkpoints import (
    CONFIG_FILE,
    build_config,
    build_network,
    check_fields,
    find_checkpoint,
    load_weights,
    read_config,
    save_network,
)
from lasslab.models.snake import AntiAliased, SnakeBeta
from lasslab.models.vocoders import (
    HIFIGAN_TYPES,
    HUB_SUBFOLDER,
    GriffinLim,
    Vocoder,
    centred,
    check_log_mel,
    load_hifigan,
    match_mel,
)
from lasslab.signal.mel import MelConfig

DEFAULT_VOCODER = "bigvgan-lab"
LEVEL_REACH = 39  # frames: how far a frame's level is compared with others' on either side


@dataclass(frozen=True)
class BigVGANConfig:
    """Sizes of the generator, and the log-mel spectrogram it reads.

    Args:
        upsample_rates: rates of the stages; their product is the hop.
        upsample_kernels: of the transposed convolutions, at least as long as their rates.
        initial_channels: width before the first stage; each stage halves it.
        block_kernels: kernel of each block of a stage, odd.
        block_dilations: dilations of the convolutions of each block.
        double_convolution: after each dilated convolution a second one without dilation (BigVGAN's block "1").
        log_scale: Snake's parameters are logarithms.
        final_tanh: bound the output by tanh, else by clamping.
        final_bias: give the last convolution a bias.
        frame_levels: hear frames relative to their level, and give the level back at the end (ours).
        frame_offset: sample n * hop + frame_offset of the output is the centre of frame n. The call of the vocoder
            removes it: published vocoders have hop / 2, ours 0.
        sample_rate, n_fft, hop_length, n_mels, f_min, f_max, floor: see `lasslab.signal.mel.MelConfig`.
    """

    upsample_rates: tuple[int, ...] = (5, 4, 4, 2)
    upsample_kernels: tuple[int, ...] = (15, 8, 8, 4)
    initial_channels: int = 128
    block_kernels: tuple[int, ...] = (3, 7, 11)
    block_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    double_convolution: bool = False
    log_scale: bool = True
    final_tanh: bool = False
    final_bias: bool = True
    frame_levels: bool = True
    frame_offset: int = 0
    sample_rate: int = 16_000
    n_fft: int = 1024
    hop_length: int = 160
    n_mels: int = 64
    f_min: float = 0.0
    f_max: float = 8000.0
    floor: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("upsample_rates", "upsample_kernels", "block_kernels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON knows lists only
        object.__setattr__(self, "block_dilations", tuple(tuple(row) for row in self.block_dilations))
        counts = (*self.upsample_rates, *self.upsample_kernels, *self.block_kernels, *sum(self.block_dilations, ()))
        if not counts or min(counts) < 1 or self.initial_channels < 1:
            raise ValueError(f"rates, kernels, dilations and channels must be at least 1, got {asdict(self)}")
        if math.prod(self.upsample_rates) != self.hop_length:
            raise ValueError(
                f"the stages make {math.prod(self.upsample_rates)} samples of a frame, hop_length is {self.hop_length}"
            )
        if len(self.upsample_kernels) != len(self.upsample_rates) or any(
            kernel < rate for kernel, rate in zip(self.upsample_kernels, self.upsample_rates, strict=False)
        ):
            raise ValueError(
                f"upsample_kernels {self.upsample_kernels} must be as many as upsample_rates {self.upsample_rates}, "
                "each at least its rate"
            )
        if len(self.block_dilations) != len(self.block_kernels) or any(
            kernel % 2 == 0 for kernel in self.block_kernels
        ):
            raise ValueError(
                f"block_kernels {self.block_kernels} must be odd, with one row of block_dilations each, "
                f"got {self.block_dilations}"
            )
        if self.initial_channels % 2 ** len(self.upsample_rates):
            raise ValueError(
                f"initial_channels {self.initial_channels} cannot be halved {len(self.upsample_rates)} times"
            )
        self.mel()  # checks its own values

    def mel(self) -> MelConfig:
        """The spectrogram that the network reads."""
        return MelConfig(**{field.name: getattr(self, field.name) for field in fields(MelConfig)})

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON values."""
        return asdict(self)


SIZES: dict[str, BigVGANConfig] = {
    "quick": BigVGANConfig(initial_channels=32, block_kernels=(3, 7), block_dilations=((1, 3), (1, 3))),
    "lab": BigVGANConfig(),
    # FlowSep's 16 kHz vocoder
    "full": BigVGANConfig(
        upsample_rates=(5, 4, 2, 2, 2),
        upsample_kernels=(16, 16, 8, 4, 4),
        initial_channels=512,
        double_convolution=True,
        final_tanh=True,
        frame_levels=False,
        frame_offset=80,
    ),
}


def convolve(layer: nn.Conv1d | nn.ConvTranspose1d, x: Tensor) -> Tensor:
    """Apply a one-dimensional layer to (B, C, 1, T) in channels-last memory: 2 to 4 times faster than conv1d there."""
    weight = layer.weight[:, :, None]  # (O, I, 1, k)
    if isinstance(layer, nn.ConvTranspose1d):
        return F.conv_transpose2d(x, weight, layer.bias, stride=(1, *layer.stride), padding=(0, *layer.padding))
    return F.conv2d(x, weight, layer.bias, padding=(0, *layer.padding), dilation=(1, *layer.dilation))


def _same(channels: int, kernel: int, dilation: int) -> nn.Conv1d:
    """A convolution that keeps the length."""
    return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=(kernel - 1) // 2 * dilation)


def _activation(channels: int, config: BigVGANConfig) -> AntiAliased:
    return AntiAliased(SnakeBeta(channels, log_scale=config.log_scale))


class DoubleAMPBlock(nn.Module):
    """x + conv2(act(conv1(act(x)))), for each dilation of conv1 in turn; conv2 has none.

    Args:
        channels: C.
        kernel: of all convolutions, odd.
        dilations: of the first ones.
        config: of the activations.
    """

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...], config: BigVGANConfig) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_same(channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same(channels, kernel, 1) for _ in dilations)
        self.activations = nn.ModuleList(_activation(channels, config) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 1, T) -> (B, C, 1, T)."""
        before1, before2 = self.activations[::2], self.activations[1::2]
        for conv1, conv2, act1, act2 in zip(self.convs1, self.convs2, before1, before2, strict=True):
            x = x + convolve(conv2, act2(convolve(conv1, act1(x))))
        return x


class AMPBlock(nn.Module):
    """x + conv(act(x)) for each dilation in turn: half the work of `DoubleAMPBlock`.

    Args:
        channels: C.
        kernel: of all convolutions, odd.
        dilations: of the convolutions.
        config: of the activations.
    """

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...], config: BigVGANConfig) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_same(channels, kernel, dilation) for dilation in dilations)
        self.activations = nn.ModuleList(_activation(channels, config) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 1, T) -> (B, C, 1, T)."""
        for conv, act in zip(self.convs, self.activations, strict=True):
            x = x + convolve(conv, act(x))
        return x


class BigVGAN(nn.Module):
    """The generator. Names of its parameters are those of NVIDIA's checkpoints, with the weight norm multiplied out.

    Args:
        config: sizes.
    """

    def __init__(self, config: BigVGANConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.initial_channels
        self.conv_pre = nn.Conv1d(config.n_mels + config.frame_levels, channels, 7, padding=3)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        block = DoubleAMPBlock if config.double_convolution else AMPBlock
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernels, strict=True):
            padding = (kernel - rate) // 2
            up = nn.ConvTranspose1d(channels, channels // 2, kernel, stride=rate, padding=padding)
            channels //= 2
            self.ups.append(nn.ModuleList([up]))
            for kernel, dilations in zip(config.block_kernels, config.block_dilations, strict=True):
                self.resblocks.append(block(channels, kernel, dilations, config))
        self.activation_post = _activation(channels, config)
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3, bias=config.final_bias)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Vocode.

        Args:
            log_mel: (B, M, N).

        Returns:
            Samples (B, T) in [-1, 1]; T = N hop when every kernel minus its rate is even, a few more when not.
        """
        level = log_mel.logsumexp(dim=1, keepdim=True) - math.log(log_mel.shape[1])  # (B, 1, N), of the mean magnitude
        x = log_mel
        if self.config.frame_levels:
            # against the loudest frame around, and not of the clip: a long clip can be vocoded in pieces
            loudest = F.max_pool1d(level, 2 * LEVEL_REACH + 1, stride=1, padding=LEVEL_REACH)
            x = torch.cat([log_mel - level, level - loudest], dim=1)
        x = x[:, :, None].contiguous(memory_format=torch.channels_last)  # (B, M, 1, N)
        x = convolve(self.conv_pre, x)
        n_blocks = len(self.config.block_kernels)
        for stage, (up,) in enumerate(self.ups):
            x = convolve(up, x)
            blocks = self.resblocks[stage * n_blocks : (stage + 1) * n_blocks]
            x = sum(block(x) for block in blocks) / n_blocks
        x = convolve(self.conv_post, self.activation_post(x))[:, 0, 0]  # (B, T)
        if self.config.frame_levels:
            gain = at_samples(level[:, 0], self.config.hop_length).exp()
            x = F.pad(x, (0, gain.shape[-1] - x.shape[-1])) * gain
        return x.tanh() if self.config.final_tanh else x.clamp(-1, 1)


def at_samples(values: Tensor, hop_length: int) -> Tensor:
    """Values at the centres of frames, (B, N), in straight lines to samples, (B, N hop). The last one is held."""
    following = torch.cat([values[:, 1:], values[:, -1:]], dim=1)
    share = torch.arange(hop_length, device=values.device, dtype=values.dtype) / hop_length
    return (values[..., None] + (following - values)[..., None] * share).flatten(1)


class BigVGANVocoder:
    """A trained generator behind a vocoder's call.

    Args:
        network: the generator.
        name: how tables call it.
        corrections: repetitions of `match_mel` on what it makes.
    """

    def __init__(self, network: BigVGAN, *, name: str, corrections: int = 0) -> None:
        self.network, self.name, self.corrections = network.eval(), name, corrections
        self.mel = network.config.mel()

    @torch.no_grad()
    def __call__(self, log_mel: Tensor) -> Tensor:
        """(B, M, N) -> samples (B, N hop) in [-1, 1]."""
        log_mel = check_log_mel(log_mel, self.mel).to(self.network.conv_pre.weight.device)
        offset, hop_length = self.network.config.frame_offset, self.mel.hop_length
        waveform = centred(self.network, log_mel, offset=offset, hop_length=hop_length)
        return match_mel(waveform, log_mel, self.mel, n_iter=self.corrections).clamp(-1, 1)


# config.json of a vocoder checkpoint: field -> default; "system" and "network" must be given
VOCODER_FIELDS: dict[str, Any] = {
    "system": "vocoder",
    "architecture": "bigvgan",
    "network": {},
    "corrections": 0,
    "recipe": {},
    "provenance": {},
    "started_from": {},
}


def load_vocoder(name: str | os.PathLike[str] = DEFAULT_VOCODER, *, device: torch.device | str = "cpu") -> Vocoder:
    """Load a vocoder.

    Args:
        name: "griffin-lim"; a checkpoint under `checkpoint_root()`; a folder (of `lasslab train vocoder`, of
            `convert_pickle`, in NVIDIA's layout with its `config.json` and `model.safetensors`, or of AudioLDM); or
            the hub name of an AudioLDM, such as "cvssp/audioldm-s-full-v2".
        device: where to put it; Griffin-Lim computes where its input is.

    Returns:
        The vocoder.

    Raises:
        ValueError: an unknown name, files that are missing, damaged or of another kind of model, or a hub that cannot
            be reached.

    Notebook: 10.
    """
    if str(name) == GriffinLim.name:
        return GriffinLim()
    try:
        folder = find_checkpoint(name)
    except ValueError as error:
        if str(name).count("/") == 1 and not str(name).startswith((".", "/")) and not Path(name).exists():
            return load_hifigan(str(name), device=device, local=False)
        raise ValueError(f"{error}; or 'griffin-lim', or a hub name such as 'cvssp/audioldm-s-full-v2'") from error
    if not (folder / CONFIG_FILE).is_file() and (folder / HUB_SUBFOLDER / CONFIG_FILE).is_file():
        folder = folder / HUB_SUBFOLDER  # the folder of a whole AudioLDM
    config = read_config(folder)
    if config.get("model_type") in HIFIGAN_TYPES:
        return load_hifigan(folder, device=device, local=True)
    published = "upsample_kernel_sizes" in config
    if published:
        sizes, corrections = _published_config(config, folder / CONFIG_FILE), 0
    else:
        sizes, corrections = _lab_config(config, path=folder / CONFIG_FILE)
    network = build_network(BigVGAN, sizes, path=folder / CONFIG_FILE)
    load_weights(network, folder, translate=published_weights if published else None)
    return BigVGANVocoder(network.to(device), name=folder.resolve().name, corrections=corrections)


def _published_config(config: Mapping[str, Any], path: Path) -> BigVGANConfig:
    return build_config(BigVGANConfig, published_fields(config, path=path), path=path)


def _lab_config(config: Mapping[str, Any], *, path: Path) -> tuple[BigVGANConfig, int]:
    if config.get("system") != "vocoder":
        kind = config.get("system", config.get("model_type"))
        raise ValueError(f"{path}: it is of a {kind!r} model, expected 'vocoder': use {DEFAULT_VOCODER!r}, for example")
    if "network" not in config:
        raise ValueError(f"{path}: missing field network: copy the file from the checkpoint again")
    check_fields(config, VOCODER_FIELDS, path=path)
    config = VOCODER_FIELDS | config
    if config["architecture"] != "bigvgan" or config["corrections"] < 0:
        raise ValueError(
            f"{path}: expected architecture 'bigvgan' and corrections of 0 or more, got {config['architecture']!r} and "
            f"{config['corrections']}"
        )
    return build_config(BigVGANConfig, config["network"], path=path), config["corrections"]


def convert_pickle(
    source: str | os.PathLike[str], config: str | os.PathLike[str], destination: str | os.PathLike[str]
) -> Path:
    """Make a checkpoint folder of a published BigVGAN: NVIDIA's `bigvgan_generator.pt`, FlowSep's `g_01000000`.

    The only place that opens a pickle, and only when asked to: by torch's reader of tensors, which runs no code
    (`weights_only=True`).

    Args:
        source: the pickle, with the weights themselves or under "generator".
        config: the `config.json` that was published with it.
        destination: folder to write.

    Returns:
        The folder, for `load_vocoder`.

    Raises:
        ValueError: a file is missing or does not fit; nothing is written.
    """
    source, config = Path(source), Path(config)
    for path in (source, config):
        if not path.is_file():
            raise ValueError(f"{path} is missing: give the published weights and their {CONFIG_FILE}")
    if config.name != CONFIG_FILE:
        raise ValueError(f"{config}: expected the file called {CONFIG_FILE} that was published with the weights")
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{source} does not read as a file of tensors ({reason}): fetch it again") from error
    state = state.get("generator", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{source} holds no weights of a generator: give the file of the generator")
    sizes = _published_config(read_config(config.parent), config)
    network = BigVGAN(sizes)
    try:
        network.load_state_dict(published_weights(state), strict=True)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{source} does not fit {config} ({reason[:300]}): give the two that belong together"
        ) from error
    made_from = {"converted_from": source.name}
    about = {"system": "vocoder", "architecture": "bigvgan", "network": sizes.to_dict(), "provenance": made_from}
    return save_network(destination, network, about)
