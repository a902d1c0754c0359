"""A mask network made into a system: `MaskSeparator`, and how it is read from a checkpoint. Notebook 07."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lasslab.models.checkpoints import CONFIG_FILE, build_config, build_network, check_fields, load_weights
from lasslab.models.mask_networks import MASK_NETWORKS
from lasslab.models.text import TextCache, TextEmbedding, TextEncoder, check_query, load_text_encoder
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.signal.spectral import (
    HOP_LENGTH,
    N_FFT,
    apply_mask,
    check_invertible,
    hann_window,
    istft,
    scale_log_magnitude,
    stft,
)
from lasslab.systems.request import at_model_rate, check_request, check_samples, check_text_width

LONGEST_FRAME = 2**16  # samples, 4 s: far beyond what a mask is good for


class MaskSeparator:
    """A mask network made into a system.

    resample to 16 kHz -> STFT -> log magnitude scaled to [0, 1] -> network(scaled, text) -> mask times the
    mixture's spectrum -> inverse STFT with the mixture's phase -> the original rate and length.

    - Channels: one mask for all, estimated on the root mean square of the channels' magnitudes, applied to
      each. The channel images (level and time differences) stay; opposite channels do not cancel, as they
      would in a mono mix.
    - Level: the scaling takes out the clip's level and the mask multiplies, so a gain of the input is a
      gain of the output.
    - Rate: above 8 kHz nothing comes back.

    Args:
        network: (scaled (B, F, N), tokens (B, L, D), token_mask (B, L)) -> mask (B, F, N), real or complex.
            It is put in evaluation mode at every call and its convolutions in channels-last order, which is
            several times faster on a CPU.
        text_encoder: `load_text_encoder(...)`, or a `TextCache` to share; each distinct query is encoded
            once.
        n_fft: frame length, samples at 16 kHz.
        hop_length: samples between frames.
        top_db: dynamic range of the scaled log magnitude, dB.
        name: how tables call the system.

    Raises:
        ValueError: the frames cannot be inverted or are too long, or the dynamic range is not positive.

    Notebook: 07.
    """

    def __init__(
        self,
        network: nn.Module,
        text_encoder: TextEncoder | TextCache,
        *,
        n_fft: int = N_FFT,
        hop_length: int = HOP_LENGTH,
        top_db: float = 80.0,
        name: str = "mask",
    ) -> None:
        if not 0 < hop_length <= n_fft <= LONGEST_FRAME:
            raise ValueError(
                f"expected a hop of 1 to n_fft samples and an n_fft of at most {LONGEST_FRAME}, got a hop_length of "
                f"{hop_length} and an n_fft of {n_fft}: use those of its training"
            )
        check_invertible(hann_window(n_fft), hop_length)
        if not top_db > 0:
            raise ValueError(f"top_db must be positive, got {top_db}: use 80, for example")
        self.network = network.to(memory_format=torch.channels_last)
        self.text_encoder = text_encoder if isinstance(text_encoder, TextCache) else TextCache(text_encoder)
        self.n_fft, self.hop_length, self.top_db, self.name = n_fft, hop_length, top_db, name

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters(), torch.empty(0)).device

    def __call__(
        self,
        waveform: Tensor,
        query: str,
        *,
        sample_rate: int = SAMPLE_RATE,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Separate one recording.

        Args:
            waveform: mixture, shape (T,) or (C, T), at least one frame long.
            query: what to keep, in words.
            sample_rate: Hz.
            generator: not used, a mask has nothing random.

        Returns:
            Estimate: shape, type, device, rate and level of waveform.

        Raises:
            ValueError: unusable or too short samples, an empty or far too long query, an impossible rate.
        """
        check_request(waveform, query, sample_rate, n_fft=self.n_fft)
        channels = waveform.reshape(1, -1, waveform.shape[-1])  # (1, C, T)
        return self._separate(channels, [query], sample_rate).reshape(waveform.shape)

    def separate_batch(self, mixtures: Tensor, queries: Sequence[str], *, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Separate several mono recordings of one length at once.

        Args:
            mixtures: shape (B, T).
            queries: B sentences.
            sample_rate: Hz.

        Returns:
            Estimates, shape (B, T), the same as from B calls up to rounding.

        Raises:
            ValueError: see `__call__`; or another number of queries than mixtures.
        """
        if mixtures.dim() != 2 or len(queries) != len(mixtures):
            raise ValueError(f"expected mixtures (B, T) and B queries, got {tuple(mixtures.shape)} and {len(queries)}")
        check_samples(mixtures, sample_rate, n_fft=self.n_fft)
        return self._separate(mixtures[:, None], queries, sample_rate)[:, 0]

    def _separate(self, waveforms: Tensor, queries: Sequence[str], sample_rate: int) -> Tensor:
        """(B, C, T) and B queries -> (B, C, T)."""
        # Outside inference mode: the cache may be shared with a training run, which needs ordinary tensors.
        text = self.text_encoder([check_query(query) for query in queries]).to(self.device)
        estimates = at_model_rate(lambda inside: self._mask(inside.to(self.device), text), waveforms, sample_rate)
        return estimates.to(waveforms)

    def _mask(self, waveforms: Tensor, text: TextEmbedding) -> Tensor:
        self.network.eval()
        with torch.inference_mode():
            spectra = stft(waveforms, n_fft=self.n_fft, hop_length=self.hop_length)  # (B, C, F, N)
            magnitude = spectra.abs().square().mean(dim=1).sqrt()  # (B, F, N)
            scaled = scale_log_magnitude(magnitude, top_db=self.top_db).scaled
            mask = self.network(scaled, text.tokens, text.mask)
            masked = apply_mask(mask[:, None], spectra)
            separated = istft(masked, n_fft=self.n_fft, hop_length=self.hop_length, length=waveforms.shape[-1])
        return separated.clone()  # an ordinary tensor again: the caller may change it in place


# config.json of a mask checkpoint: field -> default; "system" and "network" must be given. "recipe",
# "provenance" and "started_from" say how it was trained, for people and for the card.
MASK_FIELDS: dict[str, Any] = {
    "system": "mask",
    "architecture": "resunetpp",
    "network": {},
    "text_encoder": "minilm",
    "sample_rate": SAMPLE_RATE,
    "n_fft": N_FFT,
    "hop_length": HOP_LENGTH,
    "top_db": 80.0,
    "recipe": {},
    "provenance": {},
    "started_from": {},
}


def load_mask_separator(folder: Path, config: dict[str, Any], device: torch.device) -> MaskSeparator:
    """A mask system from its checkpoint.

    Args:
        folder: the checkpoint.
        config: what its configuration says.
        device: where to put the networks.

    Returns:
        The system.

    Raises:
        ValueError: one line that names the file and the remedy.
    """
    path = folder / CONFIG_FILE
    check_fields(config, MASK_FIELDS, path=path)
    config = MASK_FIELDS | config
    network = _build_network(config["architecture"], config["network"], path)
    load_weights(network, folder)
    frames = {name: config[name] for name in ("n_fft", "hop_length", "top_db")}
    try:
        text_encoder = load_text_encoder(config["text_encoder"], device=device)
        check_text_width(text_encoder, network.config.text_dim, name=config["text_encoder"])
        return MaskSeparator(network.to(device), text_encoder, **frames, name=folder.resolve().name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _build_network(architecture: str, fields: dict[str, Any], path: Path) -> nn.Module:
    if architecture not in MASK_NETWORKS:
        raise ValueError(f"{path}: architecture is {architecture!r}, expected one of {', '.join(MASK_NETWORKS)}")
    kind = MASK_NETWORKS[architecture]
    config = build_config(kind.config, fields, path=path)
    return build_network(kind.build, config, path=path)
