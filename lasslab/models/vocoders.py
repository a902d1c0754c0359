"""What every vocoder here shares: the call, the mel spectrogram it reads, and the last touch. And two that are not
trained here: Griffin-Lim, and AudioLDM's HiFi-GAN.

A vocoder is an object with `.name` and `.mel` (a `MelConfig`), called `vocoder(log_mel (B, M, N)) -> (B, N * hop)`;
sample n * hop is the centre of frame n, as in `lasslab.signal.mel`. Published vocoders were trained with their first
frame centred on sample hop / 2: what comes out of them is shifted by half a hop here.

`match_mel` is the last touch. A network's waveform has a mel spectrogram a little off the one it was given. Its STFT is
multiplied by the ratio of the two, spread over the bins, and turned back into a waveform, a few times over: phases and
what lies within a mel band stay the network's own, the level of every band and frame becomes the one asked for.

Reference: Kong, Kim and Bae, "HiFi-GAN: generative adversarial networks for efficient and high fidelity speech
synthesis", NeurIPS 2020. Notebook 10.
"""

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasslab.signal.audio import fit_length
from lasslab.signal.mel import MelConfig, griffin_lim, hz_to_mel, mel_filterbank, mel_to_hz, mel_to_magnitude
from lasslab.signal.spectral import istft, stft

HUB_SUBFOLDER = "vocoder"  # where AudioLDM's repositories keep it
HIFIGAN_TYPES = ("hifigan", "speecht5_hifigan")  # `model_type` of transformers' HiFi-GAN


class Vocoder(Protocol):
    """What makes waveforms of log-mel spectrograms.

    Attributes:
        name: how tables call it.
        mel: what its spectrograms are made with.
    """

    name: str
    mel: MelConfig

    def __call__(self, log_mel: Tensor) -> Tensor:
        """(B, M, N), natural logarithm of mel magnitudes -> samples (B, N hop) on the vocoder's device."""


def check_same_mel(vae_mel: MelConfig, vocoder_mel: MelConfig) -> None:
    """Refuse a VAE and a vocoder that mean different spectrograms.

    Nothing else would notice: the shapes may well agree, and the sound is only wrong.

    Args:
        vae_mel: of what makes the spectrogram.
        vocoder_mel: of what reads it.

    Raises:
        ValueError: names the fields that differ.
    """
    made, read = asdict(vae_mel), asdict(vocoder_mel)
    if differ := [f"{name} {made[name]:g} against {read[name]:g}" for name in made if made[name] != read[name]]:
        raise ValueError(
            f"the VAE's mel spectrograms are not the vocoder's: {', '.join(differ)}; use a vocoder trained on the VAE's"
        )


def check_log_mel(log_mel: Tensor, mel: MelConfig) -> Tensor:
    """A log-mel fit to be vocoded: float32, and nowhere below the floor.

    Args:
        log_mel: (B, M, N).
        mel: what it was made with.

    Returns:
        The log-mel; what a network made fainter than the floor is on it.

    Raises:
        ValueError: another shape, values that are not finite, or mel magnitudes without their logarithm.
    """
    if log_mel.is_complex() or log_mel.dim() != 3 or log_mel.shape[1] != mel.n_mels or log_mel.shape[2] < 1:
        raise ValueError(
            f"a vocoder reads log-mels (B, {mel.n_mels}, N), got {log_mel.dtype} {tuple(log_mel.shape)}: "
            "use log_mel_spectrogram with the vocoder's .mel"
        )
    if not bool(log_mel.isfinite().all()):
        raise ValueError("the log-mel holds NaN or infinite values: no sound has such a spectrogram")
    return log_mel.float().clamp_min(math.log(mel.floor))


def match_mel(waveform: Tensor, log_mel: Tensor, config: MelConfig | None = None, *, n_iter: int = 1) -> Tensor:
    """Bring the mel spectrogram of a waveform nearer to the one asked for.

    X <- X * spread(mel / max(W |X|, floor)),  spread(g)[k] = sum_m W[m, k] g[m] / sum_m W[m, k],

    then to a waveform and back, n_iter times. The gains are not a magnitude that the waveform must take, as in
    Griffin-Lim: within a band the spectrum keeps its shape, and no phase is computed, so a repetition costs less than
    half. Where the mel asked for lies on the floor, a band is only ever turned down. Bins that no filter reaches (0 Hz)
    follow the nearest that one does.

    Differentiable.

    Args:
        waveform: (B, N hop).
        log_mel: natural logarithm of mel magnitudes, (B, M, N).
        config: what the mel was made with; MelConfig() when left out.
        n_iter: repetitions; 0 leaves the waveform as it is.

    Returns:
        Samples, (B, N hop).

    Raises:
        ValueError: the shapes do not belong together.

    Notebook: 10.
    """
    config = config or MelConfig()
    n_samples = log_mel.shape[-1] * config.hop_length
    if waveform.shape[-1] != n_samples:
        raise ValueError(
            f"{log_mel.shape[-1]} frames at hop_length {config.hop_length} are {n_samples} samples, the waveform has "
            f"{waveform.shape[-1]}: pass the waveform that was made from this mel"
        )
    wanted = F.pad(log_mel, (0, 1), mode="replicate").exp()  # the STFT has a frame centred on the end
    filters = mel_filterbank(config).to(waveform)  # (M, F)
    reached = filters.any(dim=0).nonzero()[:, 0]
    nearest = torch.arange(filters.shape[1], device=filters.device).clamp(reached[0], reached[-1])
    spread = (filters / filters.sum(dim=0).clamp_min(1e-12))[:, nearest].mT  # (F, M), rows of sum 1
    for _ in range(n_iter):
        spectrum = stft(waveform, n_fft=config.n_fft, hop_length=config.hop_length)  # (B, F, N + 1)
        present = filters @ (spectrum.real.square() + spectrum.imag.square() + 1e-20).sqrt()
        gain = spread @ (wanted / present.clamp_min(config.floor))
        waveform = istft(spectrum * gain, n_fft=config.n_fft, hop_length=config.hop_length, length=n_samples)
    return waveform


def mel_distance(*, estimate: Tensor, target: Tensor) -> Tensor:
    """mean |log mel - log mel_hat| in nats of log-mels (B, M, N), one value per example (B,). 0.115 nats are 1 dB."""
    return (estimate - target).abs().mean(dim=(-2, -1))


def peak_bound(log_mel: Tensor, mel: MelConfig) -> Tensor:
    """The highest peak that a waveform of this log-mel can have, if all its bins met in one sample.

    |x| <= 2 / n_fft sum_k |X_k|, and a band of unit area tells the mean of its bins: sum_k |X_k| = sum_m b_m mel_m with
    b_m half the width of filter m in Hz. Exact for a click, up to 12 dB too high for noise.

    Args:
        log_mel: (B, M, N).
        mel: what it was made with.

    Returns:
        Amplitudes (B, 1, 1).
    """
    ends = hz_to_mel(torch.tensor([mel.f_min, mel.f_max], dtype=torch.float64))
    edges = mel_to_hz(torch.linspace(*ends.tolist(), mel.n_mels + 2, dtype=torch.float64)).to(log_mel)
    half_width = (edges[2:] - edges[:-2])[:, None] / 2
    return 2 / mel.n_fft * (half_width * log_mel.exp()).sum(dim=1, keepdim=True).amax(dim=-1, keepdim=True)


def centred(network: nn.Module, log_mel: Tensor, *, offset: int, hop_length: int) -> Tensor:
    """The output of a network whose frame n is centred on sample n * hop + offset, moved to n * hop.

    Args:
        network: (B, M, N) -> (B, about N hop).
        log_mel: (B, M, N); the last frame is repeated as often as the shift needs.
        offset: 0 or more, samples.
        hop_length: samples between frames.

    Returns:
        Samples (B, N hop).
    """
    extra = -(-offset // hop_length)
    waveform = network(F.pad(log_mel, (0, extra), mode="replicate") if extra else log_mel)
    return fit_length(waveform[..., offset:].float(), log_mel.shape[-1] * hop_length)


class GriffinLim:
    """Griffin-Lim behind a vocoder's call: nothing is learned, phases are searched for.

    Args:
        mel: what the spectrograms are made with; MelConfig() when left out.
        n_iter: repetitions, see `lasslab.signal.mel.griffin_lim`.
    """

    name = "griffin-lim"

    def __init__(self, mel: MelConfig | None = None, *, n_iter: int = 32) -> None:
        self.mel, self.n_iter = mel or MelConfig(), n_iter

    @torch.no_grad()
    def __call__(self, log_mel: Tensor) -> Tensor:
        """(B, M, N) -> (B, N hop); the same waveform at every call, and whatever else is in the batch."""
        log_mel = check_log_mel(log_mel, self.mel)
        frames = F.pad(log_mel, (0, 1), mode="replicate").exp()  # Griffin-Lim wants a frame centred on the end
        magnitude = mel_to_magnitude(frames, self.mel)
        length = log_mel.shape[-1] * self.mel.hop_length
        sizes = {"n_fft": self.mel.n_fft, "hop_length": self.mel.hop_length, "length": length, "n_iter": self.n_iter}
        # one by one: each starts from the same random phases
        return torch.stack([griffin_lim(one, **sizes) for one in magnitude])


class HiFiGAN:
    """AudioLDM's HiFi-GAN through transformers.

    Its files do not say how the spectrograms are made, beyond rate, hop and number of mels. AudioLDM's are those of
    `MelConfig()`; for another model, pass `mel`.

    Args:
        model: a `SpeechT5HifiGan`.
        name: how tables call it.
        mel: what it was trained on; default n_fft 1024, 0 Hz to half the rate, floor 1e-5, natural logarithm.

    Raises:
        ValueError: it standardises its input, as speech models do whose spectrograms are of another kind, or `mel`
            does not fit it.
    """

    def __init__(self, model: nn.Module, *, name: str, mel: MelConfig | None = None) -> None:
        config = model.config
        if config.normalize_before:
            raise ValueError(
                f"{name} standardises its input (normalize_before): its spectrograms are not natural logarithms of mel "
                "magnitudes; use AudioLDM's vocoder"
            )
        rate, hop_length, n_mels = config.sampling_rate, math.prod(config.upsample_rates), config.model_in_dim
        self.mel = mel or MelConfig(rate, 1024, hop_length, n_mels, 0.0, rate / 2)
        if (self.mel.sample_rate, self.mel.hop_length, self.mel.n_mels) != (rate, hop_length, n_mels):
            raise ValueError(
                f"{name} reads {n_mels} mels at {rate} Hz every {hop_length} samples, mel= says {self.mel.n_mels}, "
                f"{self.mel.sample_rate} and {self.mel.hop_length}: pass the MelConfig that it was trained with"
            )
        self.model, self.name = model.eval(), name

    @torch.no_grad()
    def __call__(self, log_mel: Tensor) -> Tensor:
        """(B, M, N) -> (B, N hop)."""
        log_mel = check_log_mel(log_mel, self.mel).to(self.model.device)
        hop_length = self.mel.hop_length
        return centred(lambda mel: self.model(mel.mT), log_mel, offset=hop_length // 2, hop_length=hop_length)


def load_hifigan(source: str | os.PathLike[str], *, device: torch.device | str = "cpu", local: bool) -> HiFiGAN:
    """Load AudioLDM's HiFi-GAN.

    Args:
        source: a folder, or a hub name such as "cvssp/audioldm-s-full-v2", whose subfolder "vocoder" is taken.
        device: where to put it.
        local: the source is a folder.

    Returns:
        The vocoder.

    Raises:
        ValueError: it cannot be reached, has no safetensors, or does not fit.
    """
    from safetensors import SafetensorError
    from transformers import SpeechT5HifiGan
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, loading = SpeechT5HifiGan.from_pretrained(
            source,
            subfolder="" if local else HUB_SUBFOLDER,
            local_files_only=local,
            use_safetensors=True,
            output_loading_info=True,
        )
        if missing := sorted(loading["missing_keys"]):  # transformers would draw them at random and go on
            raise ValueError(f"it lacks weights such as {missing[0]}")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        remedy = "check the folder's files" if local else "check the name and the network, or use 'bigvgan-lab' offline"
        raise ValueError(f"vocoder {str(source)!r} could not be loaded ({reason}): {remedy}") from error
    name = Path(source).resolve().name if local else str(source)
    return HiFiGAN(model.float().to(device), name=name)
