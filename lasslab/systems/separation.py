"""Separation: a mixture and a sentence in, the sound that the sentence names out.

Every system is called `system(waveform, query, *, sample_rate=16_000, generator=None)`, takes `(T,)` or
`(C, T)` at any rate, of any length from one frame on, and returns the same shape, rate and level. Silence
comes back as silence.

`Silence`, `MixtureAsEstimate` and `ConstantGain` are the floors that every table shows, `OracleMask` its
ceiling; `MaskSeparator` is the real thing. Masks are made at 16 kHz: from a recording at a higher rate,
what lies above 8 kHz is lost.

Notebooks: 05 (floors and ceilings), 07 (the mask network).
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lasslab.models.checkpoints import (
    CONFIG_FILE,
    build_config,
    check_fields,
    find_checkpoint,
    load_weights,
    read_config,
)
from lasslab.models.mask_networks import MASK_NETWORKS
from lasslab.models.text import TextCache, TextEmbedding, TextEncoder, check_query, load_text_encoder
from lasslab.signal.audio import SAMPLE_RATE, check_waveform, fit_length, resample
from lasslab.signal.spectral import (
    HOP_LENGTH,
    N_FFT,
    apply_mask,
    check_invertible,
    hann_window,
    ideal_binary_mask,
    ideal_ratio_mask,
    istft,
    phase_sensitive_mask,
    scale_log_magnitude,
    stft,
)

DEFAULT_SEPARATOR = "resunetpp-lab"


class Separator(Protocol):
    """What every system of this module is."""

    name: str

    def __call__(
        self,
        waveform: Tensor,
        query: str,
        *,
        sample_rate: int = SAMPLE_RATE,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(T,) or (C, T) in, the same out."""


@dataclass(frozen=True)
class Silence:
    """Nothing. Its SDR is 0 dB on any target, so on a mixture below 0 dB it "improves" the SDR."""

    name: str = field(default="silence", init=False)

    def __call__(
        self,
        waveform: Tensor,
        query: str,
        *,
        sample_rate: int = SAMPLE_RATE,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Zeros in the shape of the waveform. Raises ValueError as every system does."""
        _check_request(waveform, query, sample_rate)
        return torch.zeros_like(waveform)


@dataclass(frozen=True)
class ConstantGain:
    """The mixture times one gain: no separation at all, yet half the mixture "improves" a 0 dB mix by 3.01
    dB.

    x = s + n with n at right angles to s and as loud: |s - x / 2|^2 = |s|^2 / 2. The best gain for one item
    is `lasslab.evaluation.metrics.best_gain`.

    Args:
        gain: factor, not a level in dB.
    """

    gain: float = 0.5
    name: str = field(default="constant-gain", init=False)

    def __call__(
        self,
        waveform: Tensor,
        query: str,
        *,
        sample_rate: int = SAMPLE_RATE,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The scaled waveform. Raises ValueError as every system does."""
        _check_request(waveform, query, sample_rate)
        return self.gain * waveform


@dataclass(frozen=True)
class MixtureAsEstimate:
    """The unprocessed mixture: the point that improvements are counted from."""

    name: str = field(default="mixture", init=False)

    def __call__(
        self,
        waveform: Tensor,
        query: str,
        *,
        sample_rate: int = SAMPLE_RATE,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """A copy of the waveform. Raises ValueError as every system does."""
        _check_request(waveform, query, sample_rate)
        return waveform.clone()


# kind -> mask from the spectra of target, interference and mixture
ORACLE_MASKS: dict[str, Callable[..., Tensor]] = {
    "binary": lambda target, interference, mixture, exponent: ideal_binary_mask(target, interference),
    "ratio": lambda target, interference, mixture, exponent: ideal_ratio_mask(target, interference, exponent=exponent),
    "phase_sensitive": lambda target, interference, mixture, exponent: phase_sensitive_mask(target, mixture),
}


@dataclass(frozen=True)
class OracleMask:
    """The mask that knows the answer: the ceiling of every system that keeps the mixture's phase.

    Each channel has its own mask, made at 16 kHz in the frames that `MaskSeparator` uses.

    Args:
        kind: "binary", "ratio" or "phase_sensitive".
        exponent: of the ratio mask only; 1 shares out magnitude, 2 shares out power and scores about 1 dB
            higher.
        n_fft: frame length, samples at 16 kHz.
        hop_length: samples between frames.

    Raises:
        ValueError: unknown kind.
    """

    kind: str = "ratio"
    exponent: float = 1.0
    n_fft: int = N_FFT
    hop_length: int = HOP_LENGTH
    name: str = field(default="oracle-mask", init=False)

    def __post_init__(self) -> None:
        if self.kind not in ORACLE_MASKS:
            raise ValueError(f"unknown oracle mask {self.kind!r}: use one of {', '.join(ORACLE_MASKS)}")

    def __call__(
        self,
        waveform: Tensor,
        query: str,
        *,
        target: Tensor | None = None,
        sample_rate: int = SAMPLE_RATE,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Mask a mixture with the help of its target.

        Args:
            waveform: mixture, shape (T,) or (C, T).
            query: not used; checked as for every system.
            target: what is to be found in the mixture, in its shape; the interference is the rest.
            sample_rate: Hz.
            generator: not used.

        Returns:
            Estimate in the shape of waveform.

        Raises:
            ValueError: no target, a target of another shape, or what every system refuses.
        """
        _check_request(waveform, query, sample_rate, n_fft=self.n_fft)
        if target is None or target.shape != waveform.shape:
            found = "none" if target is None else tuple(target.shape)
            raise ValueError(
                f"an oracle mask needs target= of shape {tuple(waveform.shape)}, got {found}: "
                "it is a ceiling for mixtures whose target is known, use another system for recordings"
            )
        pair = torch.stack([waveform, check_waveform(target, name="target").to(waveform)])
        return _at_model_rate(self._mask, pair, sample_rate).to(waveform)

    def _mask(self, pair: Tensor) -> Tensor:
        spectra = stft(pair, n_fft=self.n_fft, hop_length=self.hop_length)
        mixture, target = spectra[0], spectra[1]
        mask = ORACLE_MASKS[self.kind](target, mixture - target, mixture, self.exponent)
        masked = apply_mask(mask, mixture)
        return istft(masked, n_fft=self.n_fft, hop_length=self.hop_length, length=pair.shape[-1])


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
        ValueError: the frames cannot be inverted, or the dynamic range is not positive.

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
        _check_request(waveform, query, sample_rate, n_fft=self.n_fft)
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
        _check_samples(mixtures, sample_rate, n_fft=self.n_fft)
        return self._separate(mixtures[:, None], queries, sample_rate)[:, 0]

    def _separate(self, waveforms: Tensor, queries: Sequence[str], sample_rate: int) -> Tensor:
        """(B, C, T) and B queries -> (B, C, T)."""
        # Outside inference mode: the cache may be shared with a training run, which needs ordinary tensors.
        text = self.text_encoder([check_query(query) for query in queries]).to(self.device)
        estimates = _at_model_rate(lambda inside: self._mask(inside.to(self.device), text), waveforms, sample_rate)
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


def choose_device(device: str = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA where there is one, else the CPU.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1", "mps" ...

    Returns:
        The device, which has just held a tensor.

    Raises:
        ValueError: no such device, on this machine or at all.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {device!r} cannot be used here: use 'auto', 'cpu' or 'cuda'") from error


BASELINES: dict[str, Callable[[], Separator]] = {
    "silence": Silence,
    "mixture": MixtureAsEstimate,
    "constant-gain": ConstantGain,
    "oracle-mask": OracleMask,
}

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


def load_separator(name_or_dir: str | os.PathLike[str] = DEFAULT_SEPARATOR, *, device: str = "auto") -> Separator:
    """Load a system by name.

    Args:
        name_or_dir: a checkpoint under `checkpoint_root()`, a folder with `config.json` and
            `model.safetensors`, or a baseline: "silence", "mixture", "constant-gain", "oracle-mask".
        device: "auto", "cpu", "cuda" ...

    Returns:
        The system.

    Raises:
        ValueError: an unknown name; a missing, broken or unfitting file (a pickle is never opened); an
            unusable device. One line that names the file and the remedy.

    Notebook: 00.
    """
    if str(name_or_dir) in BASELINES:
        return BASELINES[str(name_or_dir)]()
    try:
        folder = find_checkpoint(name_or_dir)
    except ValueError as error:
        raise ValueError(f"{error}; baselines: {', '.join(BASELINES)}") from error
    config = _read_mask_config(folder / CONFIG_FILE)
    network = _build_network(config["architecture"], config["network"], folder / CONFIG_FILE)
    load_weights(network, folder)
    where = choose_device(device)
    text_encoder = load_text_encoder(config["text_encoder"], device=where)
    if text_encoder.dim != network.config.text_dim:
        raise ValueError(
            f"{folder / CONFIG_FILE}: text_encoder {config['text_encoder']!r} is {text_encoder.dim} wide, "
            f"the network expects text_dim {network.config.text_dim}: name the encoder it was trained with"
        )
    frames = {name: config[name] for name in ("n_fft", "hop_length", "top_db")}
    try:
        return MaskSeparator(network.to(where), text_encoder, **frames, name=folder.resolve().name)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {error}") from error


def _read_mask_config(path: Path) -> dict[str, Any]:
    config = read_config(path.parent)
    if missing := [name for name in ("system", "network") if name not in config]:
        raise ValueError(f"{path}: missing fields {', '.join(missing)}: copy the file from the checkpoint again")
    if config["system"] != MASK_FIELDS["system"]:
        raise ValueError(f"{path}: system is {config['system']!r}, this version of lasslab loads 'mask' systems")
    check_fields(config, MASK_FIELDS, path=path)
    if config.get("sample_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise ValueError(f"{path}: sample_rate is {config['sample_rate']}, systems work at {SAMPLE_RATE} Hz")
    return MASK_FIELDS | config


def _build_network(architecture: str, fields: dict[str, Any], path: Path) -> nn.Module:
    if architecture not in MASK_NETWORKS:
        raise ValueError(f"{path}: architecture is {architecture!r}, expected one of {', '.join(MASK_NETWORKS)}")
    kind = MASK_NETWORKS[architecture]
    config = build_config(kind.config, fields, path=path)
    try:
        return kind.build(config)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: no network has these sizes ({reason}): restore the file") from error


def _check_request(waveform: Tensor, query: str, sample_rate: int, *, n_fft: int = N_FFT) -> None:
    """What every system refuses: unusable samples, less than one frame, an empty or far too long query."""
    _check_samples(waveform, sample_rate, n_fft=n_fft)
    check_query(query)


def _check_samples(waveform: Tensor, sample_rate: int, *, n_fft: int) -> None:
    if sample_rate < 1 or sample_rate != int(sample_rate):
        raise ValueError(f"sample_rate must be a positive whole number of Hz, got {sample_rate}")
    shortest = math.ceil(n_fft * sample_rate / SAMPLE_RATE)
    check_waveform(waveform, name=f"a waveform at {sample_rate} Hz", min_samples=shortest)


def _at_model_rate(process: Callable[[Tensor], Tensor], waveform: Tensor, sample_rate: int) -> Tensor:
    """Run `process` on float32 samples at 16 kHz; the result has the waveform's rate and exact length."""
    inside = resample(waveform.float(), orig_rate=sample_rate, new_rate=SAMPLE_RATE)
    separated = resample(process(inside), orig_rate=SAMPLE_RATE, new_rate=sample_rate)
    return fit_length(separated, waveform.shape[-1])
