"""A mel VAE: log-mel spectrograms to a latent four times smaller on both axes, and back.

A variational autoencoder gives each spectrogram x a Gaussian q(z | x) = N(mu(x), sigma(x)^2) and a decoder x(z), and is
trained for

    loss = |x - x(z)| + beta KL(q(z | x) || N(0, 1)),  z = mu + sigma eps                                        (1)

The KL term keeps the latents near a standard normal, so that a flow from noise to latents has a short way to go. The
flow and the diffusion of the course live in this space, the vocoder turns its spectrograms into sound.

The blocks are diffusers' `AutoencoderKL`; what this file adds is what is particular to sound:

- log-mels come in as (B, M, N) and become images of time x mel, (B, 1, N, M), which is AudioLDM's layout; latents are
  (B, Z, N / 4, M / 4). A length that 4 does not divide is extended with silence, log(1e-5), not with 0, which is loud.
- latents are multiplied by `scaling_factor`, 1 / their standard deviation, on the way out and divided by it on the way
  in. It is read from the checkpoint, never assumed: AudioLDM's checkpoints differ in it.
- `patch` 2 folds 2 x 2 points of the spectrogram into channels, in place of the first of the two halvings: the finest
  level costs half of the computing and hardly helps.

`load_vae("mel-vae-lab")` is trained by `lasslab train vae` and shipped; `load_vae("cvssp/audioldm-s-full-v2")` is
AudioLDM's own VAE, 55 M parameters, which FlowSep and RFM-Editing use.

References: Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014; Rombach et al., "High-resolution image
synthesis with latent diffusion models", CVPR 2022; Liu et al., "AudioLDM", ICML 2023. Notebook 09.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasslab.models.checkpoints import (
    CONFIG_FILE,
    build_config,
    build_network,
    check_fields,
    find_checkpoint,
    load_weights,
    read_config,
)
from lasslab.signal.mel import MelConfig

DEFAULT_VAE = "mel-vae-lab"
#: frames and mel bands for each point of the latent, on either axis
REDUCTION = 4


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of the VAE, and the log-mel spectrogram it reads.

    Args:
        channels: widths of the levels, finest first; each but the last halves both axes.
        n_res_blocks: residual blocks for each level of the encoder; the decoder has one more.
        latent_channels: Z.
        patch: side of the square of points folded into channels before the first level, 1 or 2.
        attention: self-attention in the middle of encoder and decoder.
        scaling_factor: latents times this have a standard deviation of 1.
        mel_mean, mel_scale: the network sees (log-mel - mean) / scale; 0 and 1 in AudioLDM.
        n_fft, hop_length, n_mels, f_min, f_max: see `lasslab.signal.mel.MelConfig`.
    """

    channels: tuple[int, ...] = (48, 96)
    n_res_blocks: int = 1
    latent_channels: int = 8
    patch: int = 2
    attention: bool = False
    scaling_factor: float = 1.0
    mel_mean: float = -5.0
    mel_scale: float = 3.0
    n_fft: int = 1024
    hop_length: int = 160
    n_mels: int = 64
    f_min: float = 0.0
    f_max: float = 8000.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON knows lists only
        if not self.channels or min((*self.channels, self.n_res_blocks, self.latent_channels)) < 1:
            raise ValueError(f"widths and counts must be positive, got {self.channels}, {self.n_res_blocks} blocks")
        if self.n_res_blocks > 64:  # the rest fails where it is allocated; blocks would be added until memory is full
            raise ValueError(f"a level has at most 64 residual blocks, got {self.n_res_blocks}: 1 or 2 is usual")
        if not (self.scaling_factor > 0 and self.mel_scale > 0):
            raise ValueError(f"scales must be positive, got {self.scaling_factor} and {self.mel_scale}")
        if self.patch * 2 ** (len(self.channels) - 1) != REDUCTION:
            raise ValueError(
                f"patch {self.patch} and {len(self.channels)} levels make the latent "
                f"{self.patch * 2 ** (len(self.channels) - 1)} times smaller: it is {REDUCTION} times here"
            )
        if self.n_mels % REDUCTION:
            raise ValueError(f"n_mels must be a multiple of {REDUCTION}, got {self.n_mels}")
        self.mel()  # checks its own values

    def mel(self) -> MelConfig:
        """The spectrogram's part."""
        return MelConfig(
            n_fft=self.n_fft, hop_length=self.hop_length, n_mels=self.n_mels, f_min=self.f_min, f_max=self.f_max
        )

    def to_dict(self) -> dict:
        """Plain values for `config.json`."""
        return asdict(self)


#: Sizes by name: 0.2, 1.4 and 55.4 M parameters; "full" is AudioLDM's layout.
SIZES: dict[str, VAEConfig] = {
    "quick": VAEConfig(channels=(16, 32)),
    "lab": VAEConfig(),
    "full": VAEConfig(channels=(128, 256, 512), n_res_blocks=2, patch=1, attention=True, mel_mean=0.0, mel_scale=1.0),
}


class Posterior(NamedTuple):
    """q(z | x): mean and logarithm of the variance, (B, Z, N / 4, M / 4) each, not yet scaled."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """z = mu + sigma eps."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + (self.log_variance / 2).exp() * noise

    def kl(self) -> Tensor:
        """KL(q(z | x) || N(0, 1)) for each number of the latent, averaged: nats, (B,).

        KL = (mu^2 + sigma^2 - 1 - log sigma^2) / 2.
        """
        return self._kl().flatten(1).mean(1)

    def channel_kl(self) -> Tensor:
        """The same for each channel, (B, Z): a channel with next to none has collapsed, it holds nothing of x."""
        return self._kl().flatten(2).mean(2)

    def _kl(self) -> Tensor:
        return (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance) / 2


class MelVAE(nn.Module):
    """Log-mel spectrograms to scaled latents, and back.

    Args:
        config: sizes, see `SIZES`.
        blocks: a ready `AutoencoderKL` of these sizes; built here when left out.
    """

    def __init__(self, config: VAEConfig | None = None, *, blocks: nn.Module | None = None) -> None:
        from diffusers import AutoencoderKL

        super().__init__()
        self.config = config = config or VAEConfig()
        levels = len(config.channels)
        self.blocks = blocks or AutoencoderKL(
            in_channels=config.patch**2,
            out_channels=config.patch**2,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=config.channels,
            layers_per_block=config.n_res_blocks,
            latent_channels=config.latent_channels,
            norm_num_groups=math.gcd(32, *config.channels),
            mid_block_add_attention=config.attention,
            scaling_factor=config.scaling_factor,
        )

    @property
    def mel(self) -> MelConfig:
        """What its spectrograms are made with; a vocoder must agree."""
        return self.config.mel()

    @property
    def silence(self) -> float:
        """Log-mel of silence: what spectrograms are extended with."""
        return math.log(self.mel.floor)

    def posterior(self, log_mel: Tensor) -> Posterior:
        """q(z | x) of spectrograms.

        Args:
            log_mel: (B, M, N).

        Returns:
            Mean and log variance, (B, Z, ceil(N / 4), M / 4) each.

        Raises:
            ValueError: another shape, or another number of mel bands.
        """
        if log_mel.dim() != 3 or log_mel.shape[1] != self.config.n_mels or log_mel.shape[2] < 1:
            raise ValueError(
                f"expected log-mels (B, {self.config.n_mels}, N), got {tuple(log_mel.shape)}: "
                "make them with the VAE's own .mel"
            )
        x = F.pad(log_mel, (0, -log_mel.shape[-1] % REDUCTION), value=self.silence)
        x = (x.mT[:, None] - self.config.mel_mean) / self.config.mel_scale  # (B, 1, N, M): time x mel
        distribution = self.blocks.encode(F.pixel_unshuffle(x, self.config.patch)).latent_dist
        return Posterior(distribution.mean, distribution.logvar)

    def encode(self, log_mel: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Scaled latents of spectrograms.

        Args:
            log_mel: (B, M, N).
            generator: draws z from q(z | x); the mean when left out.

        Returns:
            Latents (B, Z, ceil(N / 4), M / 4) of about unit variance.

        Raises:
            ValueError: see `posterior`.
        """
        posterior = self.posterior(log_mel)
        latent = posterior.mean if generator is None else posterior.sample(generator)
        return latent * self.config.scaling_factor

    @torch.no_grad()
    def silent_latent(self, n_points: int) -> Tensor:
        """The latent of silence (1, Z, n_points, M / 4): what a network is told where there is no sound."""
        device = next(self.parameters()).device
        return self.encode(torch.full((1, self.config.n_mels, REDUCTION * n_points), self.silence, device=device))

    def decode(self, latent: Tensor, *, n_frames: int | None = None) -> Tensor:
        """Spectrograms of scaled latents.

        Args:
            latent: (B, Z, N / 4, M / 4), scaled.
            n_frames: frames to return, at most N; all when left out.

        Returns:
            Log-mels (B, M, N), nowhere below silence.
        """
        x = F.pixel_shuffle(self.blocks.decode(latent / self.config.scaling_factor).sample, self.config.patch)
        log_mel = x[:, 0].mT * self.config.mel_scale + self.config.mel_mean
        # a floor with a slope: a hard one would teach nothing where the decoder is below it
        log_mel = log_mel if self.training else log_mel.clamp(min=self.silence)
        return log_mel if n_frames is None else log_mel[..., :n_frames]

    def forward(self, log_mel: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Posterior]:
        """What training needs: x(z) for a z drawn from q(z | x) (for the mean without a generator), and q(z | x)."""
        posterior = self.posterior(log_mel)
        latent = posterior.mean if generator is None else posterior.sample(generator)
        return self.decode(latent * self.config.scaling_factor, n_frames=log_mel.shape[-1]), posterior


#: config.json of a VAE checkpoint: field -> default; "system" and "network" must be given
VAE_FIELDS: dict[str, Any] = {
    "system": "vae",
    "network": {},
    "sample_rate": 16_000,
    "recipe": {},
    "provenance": {},
    "started_from": {},
}


def load_vae(name_or_dir: str | os.PathLike[str] = DEFAULT_VAE, *, device: torch.device | str = "cpu") -> MelVAE:
    """Load a mel VAE, ready to use: in evaluation mode, convolutions in channels-last order.

    Args:
        name_or_dir: a checkpoint under `checkpoint_root()` or a folder; a hub name with a slash, such as
            "cvssp/audioldm-s-full-v2", or a folder in that layout, for AudioLDM's VAE.
        device: where to put it.

    Returns:
        The VAE, frozen.

    Raises:
        ValueError: an unknown name; a missing, broken or unfitting file; the hub cannot be reached. One line with the
            file and the remedy.
    """
    name = str(name_or_dir)
    if (Path(name) / "vae" / CONFIG_FILE).is_file() or (name.count("/") == 1 and not Path(name).exists()):
        vae = _load_audioldm(name)
    else:
        vae = _load_own(find_checkpoint(name_or_dir))
    return vae.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def _load_own(folder: Path) -> MelVAE:
    path = folder / CONFIG_FILE
    config = read_config(folder)
    if config.get("system") != "vae" or "network" not in config:
        raise ValueError(f"{path}: system is {config.get('system')!r}, expected 'vae' with a network: name a VAE")
    check_fields(config, VAE_FIELDS, path=path)
    vae = build_network(MelVAE, build_config(VAEConfig, config["network"], path=path), path=path)
    load_weights(vae, folder)
    return vae


def _load_audioldm(name: str) -> MelVAE:
    """AudioLDM's VAE from the hub or from a folder, subfolder `vae`; safetensors only, and all of them."""
    from diffusers import AutoencoderKL
    from diffusers.utils import logging
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # what is wrong is said below, in one line
    try:
        if not Path(name).is_dir():
            # asked first: of a file that was never fetched, and cannot be, diffusers says that the hub has none
            hf_hub_download(name, f"vae/{CONFIG_FILE}")
        # what the file says: the class would fill in a scaling factor of its own
        config = audioldm_config(AutoencoderKL.load_config(name, subfolder="vae"))
        blocks, found = AutoencoderKL.from_pretrained(
            name, subfolder="vae", use_safetensors=True, output_loading_info=True
        )
        if wrong := [key for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in found[kind]]:
            raise ValueError(f"weights such as {wrong[0]} are missing or belong to another network")
        if broken := [key for key, tensor in blocks.state_dict().items() if not torch.isfinite(tensor).all()]:
            raise ValueError(f"{broken[0]} holds NaN or infinite weights")
        return MelVAE(config, blocks=blocks)
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"the VAE of {name} is not on this machine and the hub is out of reach: download it first, where there "
            f"is a network and HF_HUB_OFFLINE is not set, with: hf download {name} --include 'vae/*'"
        ) from error
    except Exception as error:  # the hub raises a dozen kinds
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise ValueError(f"the VAE of {name} cannot be loaded ({reason}): check the name and the network") from error
    finally:
        logging.set_verbosity(verbosity)


def audioldm_config(config: Mapping[str, Any]) -> VAEConfig:
    """Our configuration of an `AutoencoderKL` in AudioLDM's layout; its scaling factor is taken as it says.

    Args:
        config: what the `config.json` of the `AutoencoderKL` says.

    Returns:
        The same as a `VAEConfig`, for 64 mel bands at 16 kHz.

    Raises:
        ValueError: not one channel of spectrogram, or no scaling factor.
    """
    if config.get("in_channels") != 1 or config.get("out_channels") != 1:
        raise ValueError(f"a mel VAE has one channel, this AutoencoderKL has {config.get('in_channels')}: name another")
    if not config.get("scaling_factor"):
        raise ValueError("the VAE's configuration has no scaling_factor: it is never assumed, add it to the file")
    return VAEConfig(
        channels=tuple(config["block_out_channels"]),
        n_res_blocks=config["layers_per_block"],
        latent_channels=config["latent_channels"],
        patch=1,
        attention=config.get("mid_block_add_attention", True),
        scaling_factor=config["scaling_factor"],
        mel_mean=0.0,
        mel_scale=1.0,
    )
