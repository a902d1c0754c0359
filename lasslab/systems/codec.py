"""Waveforms to latents and back, at one level inside: what separation and editing by generation share.

    waveform at one level -> log-mel -> VAE -> latent        latent -> VAE -> log-mel -> vocoder -> waveform

Long recordings go through VAE and vocoder piece by piece, in memory that does not grow with the length.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lasslab.models.vae import REDUCTION, MelVAE
from lasslab.models.vocoders import check_same_mel, peak_bound
from lasslab.signal.audio import SAMPLE_RATE, fit_length
from lasslab.signal.levels import level_gain
from lasslab.signal.mel import log_mel_spectrogram
from lasslab.systems.request import at_model_rate, check_request, check_samples, check_target
from lasslab.systems.windows import in_pieces

PIECE_SECONDS = 20.0  # of VAE and vocoder, in recordings of more than twice that
HEADROOM = 0.95  # highest peak that the vocoder is asked for
LIKELY = 6.0  # how much lower than their bound the peaks of most sounds are
CONTEXT_SECONDS = 0.8  # heard and thrown away on either side of a piece: what the vocoder hears of one sample


class LatentCodec:
    """A VAE and a vocoder that belong together.

    Args:
        vae: log-mels to latents and back.
        vocoder: log-mel (B, M, N) -> waveform (B, N hop), with `.mel`.

    Raises:
        ValueError: the two read different mels.
    """

    def __init__(self, vae: MelVAE, vocoder: Any) -> None:
        check_same_mel(vae.mel, vocoder.mel)
        self.vae, self.vocoder = vae.eval(), vocoder

    @property
    def n_fft(self) -> int:
        """Frame length, samples at 16 kHz: no recording is shorter."""
        return self.vae.mel.n_fft

    def points(self, seconds: float) -> int:
        """Points in time of the latent in so many seconds, rounded up."""
        return math.ceil(round(seconds * SAMPLE_RATE / self.vae.mel.hop_length) / REDUCTION)

    def pieces(self, per_point: int = 1) -> dict[str, int]:
        """How a long recording is cut, for `in_pieces`: in points of the latent, or in what there are more of."""
        return {
            name: per_point * self.points(seconds)
            for name, seconds in (("size", PIECE_SECONDS), ("context", CONTEXT_SECONDS))
        }

    def encode(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """Latents at the systems' level.

        Args:
            waveforms: (B, C, T) at 16 kHz.

        Returns:
            Latents (B, C, Z, N', M'), and the gain (B, C, 1): one for all channels, but 0 for those that are silent.
        """
        gain = level_gain(waveforms.flatten(1))[..., None] * (level_gain(waveforms) > 0)
        log_mel = log_mel_spectrogram((waveforms * gain).flatten(0, 1), self.vae.mel)
        log_mel = F.pad(log_mel, (0, -log_mel.shape[-1] % REDUCTION), value=self.vae.silence)
        latents = in_pieces(
            lambda piece: self.vae.encode(piece).mT, log_mel, **self.pieces(REDUCTION), factor=1 / REDUCTION
        )
        return latents.mT.unflatten(0, waveforms.shape[:2]), gain

    def decode(self, latents: Tensor, gain: Tensor, *, n_samples: int) -> Tensor:
        """Waveforms of latents, at the level they had.

        Args:
            latents: (B, C, Z, N', M').
            gain: (B, C, 1), what `encode` applied; where it is 0, silence comes back.
            n_samples: T.

        Returns:
            Waveforms (B, C, T) at 16 kHz.
        """
        return self.vocode(self.log_mel(latents), gain, n_samples=n_samples)

    def log_mel(self, latents: Tensor) -> Tensor:
        """What the vocoder is given for latents (..., Z, N', M'): log-mels (..., M, N) at the systems' level."""
        log_mel = in_pieces(
            lambda piece: self.vae.decode(piece.mT),
            latents.flatten(0, -4).mT,  # time last
            **self.pieces(),
            factor=REDUCTION,
        )
        return log_mel.unflatten(0, latents.shape[:-3])

    def vocode(self, log_mel: Tensor, gain: Tensor, *, n_samples: int) -> Tensor:
        """Waveforms (B, C, T) of log-mels (B, C, M, N), see `decode`."""
        waveforms = in_pieces(
            self._in_range, log_mel.flatten(0, 1), **self.pieces(REDUCTION), factor=self.vae.mel.hop_length
        )
        waveforms = fit_length(waveforms, n_samples).unflatten(0, log_mel.shape[:2])
        return torch.where(gain > 0, waveforms / gain.clamp(min=1e-12), torch.zeros_like(waveforms))

    def _in_range(self, log_mel: Tensor) -> Tensor:
        """(B, M, N) -> samples (B, N hop).

        A vocoder knows waveforms in [-1, 1] only, and at -20 dB every other recording of short events has peaks beyond.
        Such a spectrogram is lowered before the vocoder and the waveform raised after it. Lowering costs the faintest
        of a sound, so it is tried with a gain at which most sounds fit, and what does not fit is made again with one at
        which it must.
        """
        bound = peak_bound(log_mel, self.vae.mel)  # (B, 1, 1)
        gain = (LIKELY * HEADROOM / bound).clamp(max=1.0)
        waveforms = self.vocoder(log_mel + gain.log())
        clipped = waveforms.abs().amax(dim=-1) > 0.999
        if clipped.any():
            gain = torch.where(clipped[:, None, None], (HEADROOM / bound).clamp(max=1.0), gain)
            waveforms = waveforms.clone()
            waveforms[clipped] = self.vocoder((log_mel + gain.log())[clipped])
        return waveforms / gain[:, 0]


@dataclass(frozen=True)
class RoundTrip:
    """The target through VAE and vocoder and nothing else: the ceiling of every system that generates latents.

    Args:
        codec: VAE and vocoder.
        device: where they are.
    """

    codec: LatentCodec
    device: torch.device = torch.device("cpu")
    name: str = field(default="round-trip", init=False)

    def __call__(
        self,
        waveform: Tensor,
        query: str,
        *,
        target: Tensor | None = None,
        sample_rate: int = SAMPLE_RATE,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The target as the codec gives it back.

        Args:
            waveform: mixture, (T,) or (C, T).
            query: not used; checked as for every system.
            target: in the shape of waveform.
            sample_rate: Hz.
            generator: not used.

        Returns:
            Estimate in the shape of waveform.

        Raises:
            ValueError: no target, a target of another shape, or what every system refuses.
        """
        check_request(waveform, query, sample_rate, n_fft=self.codec.n_fft)
        target = check_target(target, waveform, what="a round trip")
        return self.reconstruct(target, sample_rate=sample_rate)

    def reconstruct(self, waveform: Tensor, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """A waveform (T,) or (C, T) through VAE and vocoder: the same shape, rate and level.

        Raises:
            ValueError: unusable or too short samples, or an impossible rate.
        """
        check_samples(waveform, sample_rate, n_fft=self.codec.n_fft)

        def process(inside: Tensor) -> Tensor:
            latents, gain = self.codec.encode(inside.to(self.device))
            return self.codec.decode(latents, gain, n_samples=inside.shape[-1])

        with torch.inference_mode():
            estimate = at_model_rate(process, waveform.reshape(1, -1, waveform.shape[-1]), sample_rate)
        return estimate.clone().to(waveform).reshape(waveform.shape)
