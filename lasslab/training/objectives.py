"""What a network is trained for: a batch in, a loss out. `fit` knows nothing else about the task.

An objective has `loss(network, batch, generator)`, `validate(network, batch)` giving one value per example,
`picture(network, batch)` giving named spectrograms, and `monitor`, the validation figure of which more is better.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from lasslab.data.mixtures import mix_batch
from lasslab.evaluation.metrics import sdr, si_sdr
from lasslab.models.text import TextCache, TextEncoder
from lasslab.signal.spectral import apply_mask, istft, scale_log_magnitude, stft


class Objective(Protocol):
    """What `fit` asks of an objective."""

    monitor: str

    def loss(self, network: nn.Module, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to descend, and named parts of it for the log."""

    def validate(self, network: nn.Module, batch: dict) -> dict[str, Tensor]:
        """Figures per example, (B,) each."""

    def picture(self, network: nn.Module, batch: dict) -> dict[str, Tensor]:
        """Named pictures of the first example, (H, W) in [0, 1], low frequencies first."""


class AdversarialObjective(Objective, Protocol):
    """What `fit` asks of an objective with an adversary besides, see `lasslab.training.fit.Adversary`."""

    def loss(
        self, network: nn.Module, batch: dict, generator: torch.Generator, adversary: nn.Module | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to descend, with the adversary's judgement in it where there is one yet."""

    def adversary_loss(self, adversary: nn.Module) -> Tensor:
        """The adversary's loss: what the last `loss` made, detached, against what is real."""


@dataclass(frozen=True)
class MaskingWeights:
    """Weights of the terms of the masking loss. The thesis uses the first two.

    Args:
        spectral_convergence: ||S - S_hat|| / ||S|| of the magnitudes.
        log_magnitude: mean |log S - log S_hat|.
        waveform: mean |s - s_hat| relative to mean |s|.
        sdr: minus the SDR of the waveforms in units of 10 dB, soft-limited at `ceiling_db`.
        si_sdr: minus the SI-SDR likewise.
        absent: where the query asks for what is not in the mixture, and only there: the level of the estimate against
            the mixture in units of 10 dB, soft-limited at `-ceiling_db`. The other terms need a target.
        ceiling_db: beyond this SDR an example has nothing more to gain.
    """

    spectral_convergence: float = 1.0
    log_magnitude: float = 1.0
    waveform: float = 0.0
    sdr: float = 0.0
    si_sdr: float = 0.0
    absent: float = 0.0
    ceiling_db: float = 30.0


def spectral_convergence(*, estimate: Tensor, target: Tensor) -> Tensor:
    """||S - S_hat||_F / ||S||_F of magnitudes (B, F, N), one value per example (B,).

    Reference: Arık, Jun and Diamos, "Fast spectrogram inversion using multi-head convolutional neural networks", 2018.
    """
    return (target - estimate).norm(dim=(-2, -1)) / target.norm(dim=(-2, -1)).clamp(min=1e-6)


def log_magnitude_distance(*, estimate: Tensor, target: Tensor, floor_db: float = 80.0) -> Tensor:
    """mean |log S - log S_hat| of magnitudes (B, F, N), one value per example (B,).

    Both are floored `floor_db` below the target's loudest bin: the logarithm of next to nothing is not worth learning.
    """
    floor = target.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-6) * 10 ** (-floor_db / 20)
    return (target.clamp(min=floor).log() - estimate.clamp(min=floor).log()).abs().mean(dim=(-2, -1))


def limited_sdr(*, estimate: Tensor, target: Tensor, ceiling_db: float, scale_invariant: bool = False) -> Tensor:
    """SDR or SI-SDR in dB with a soft ceiling, one value per example (B,): a loss needs a finite best.

    10 log10(|s|^2 / (|s - s_hat|^2 + 10^(-ceiling / 10) |s|^2)); for SI-SDR, s is first scaled to best fit s_hat.
    """
    if scale_invariant:
        energy = target.square().sum(-1, keepdim=True).clamp(min=1e-8)
        target = target * (estimate * target).sum(-1, keepdim=True) / energy
    energy = target.square().sum(-1)
    error = (target - estimate).square().sum(-1)
    return 10 * torch.log10((energy + 1e-8) / (error + 10 ** (-ceiling_db / 10) * energy + 1e-8))


def level_db(*, estimate: Tensor, mixture: Tensor, floor_db: float) -> Tensor:
    """Level of an estimate (B, T) against its mixture in dB, one value per example (B,), soft-limited at -floor_db.

    10 log10(|s_hat|^2 / |x|^2 + 10^(-floor / 10)): what is to be left of a sound that is not there.
    """
    ratio = estimate.square().sum(-1) / mixture.square().sum(-1).clamp(min=1e-8)
    return 10 * torch.log10(ratio + 10 ** (-floor_db / 10))


class Masking:
    """Train a masking network: mixture and sentence in, the target's magnitude and waveform out.

    Args:
        text: frozen text encoder; every sentence is encoded once.
        weights: terms of the loss.
        n_fft: STFT frame, samples.
        hop_length: STFT hop, samples.
        top_db: dynamic range of the scaled log magnitude, dB.
    """

    monitor = "sdri"

    def __init__(
        self,
        text: TextEncoder,
        weights: MaskingWeights | None = None,
        *,
        n_fft: int = 512,
        hop_length: int = 256,
        top_db: float = 80.0,
    ) -> None:
        self.text = TextCache(text)
        self.weights = weights or MaskingWeights()
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.top_db = top_db

    def estimate(self, network: nn.Module, batch: dict) -> tuple[dict, Tensor, Tensor]:
        """The mixed batch, the estimate's spectrum (B, F, N) and its waveform (B, T)."""
        batch = batch if "mixture" in batch else mix_batch(batch)
        spectrum = stft(batch["mixture"], n_fft=self.n_fft, hop_length=self.hop_length)
        scaled = scale_log_magnitude(spectrum.abs(), top_db=self.top_db).scaled
        mask = network(scaled, *self.text(batch["query"]).to(scaled.device))
        mask = mask if mask.is_complex() else mask.float()  # half precision ends here
        estimate = apply_mask(mask, spectrum)
        length = batch["mixture"].shape[-1]
        return batch, estimate, istft(estimate, n_fft=self.n_fft, hop_length=self.hop_length, length=length)

    def loss(self, network: nn.Module, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the terms of `MaskingWeights`, and each term."""
        batch, spectrum, waveform = self.estimate(network, batch)
        terms = {}  # name -> one value for each example it applies to
        absent = batch.get("absent")
        if absent is None or not absent.all():
            there = slice(None) if absent is None else ~absent
            terms |= self._terms(spectrum[there], waveform[there], batch["target"][there])
        if self.weights.absent and absent is not None and absent.any():
            kept = level_db(
                estimate=waveform[absent], mixture=batch["mixture"][absent], floor_db=self.weights.ceiling_db
            )
            terms["absent"] = kept / 10
        n = len(waveform)
        total = sum(getattr(self.weights, name) * values.sum() / n for name, values in terms.items())
        return total, {name: values.detach().mean() for name, values in terms.items()}

    def _terms(self, spectrum: Tensor, waveform: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The terms that compare with a target, (B,) each."""
        weights = self.weights
        magnitudes = {
            # the square root of exactly 0 has no slope; a masked bin can be exactly 0
            "estimate": (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt(),
            "target": stft(target, n_fft=self.n_fft, hop_length=self.hop_length).abs(),
        }
        waveforms = {"estimate": waveform, "target": target, "ceiling_db": weights.ceiling_db}
        terms: dict[str, Tensor] = {}
        if weights.spectral_convergence:
            terms["spectral_convergence"] = spectral_convergence(**magnitudes)
        if weights.log_magnitude:
            terms["log_magnitude"] = log_magnitude_distance(**magnitudes)
        if weights.waveform:
            terms["waveform"] = (waveform - target).abs().mean(-1) / target.abs().mean(-1).clamp(min=1e-6)
        if weights.sdr:
            terms["sdr"] = -limited_sdr(**waveforms) / 10
        if weights.si_sdr:
            terms["si_sdr"] = -limited_sdr(**waveforms, scale_invariant=True) / 10
        return terms

    def validate(self, network: nn.Module, batch: dict) -> dict[str, Tensor]:
        """SDR, SI-SDR and SDRi of each example, dB."""
        batch, _, waveform = self.estimate(network, batch)
        before = sdr(estimate=batch["mixture"], target=batch["target"])
        after = sdr(estimate=waveform, target=batch["target"])
        return {
            "sdr": after,
            "sdri": after - before,
            "si_sdr": si_sdr(estimate=waveform, target=batch["target"]),
        }

    def picture(self, network: nn.Module, batch: dict) -> dict[str, Tensor]:
        """Log magnitudes of the first example's mixture, target and prediction on the mixture's scale."""
        batch, spectrum, _ = self.estimate(network, batch)
        first = {
            name: stft(batch[name][0], n_fft=self.n_fft, hop_length=self.hop_length) for name in ("mixture", "target")
        }
        first["prediction"] = spectrum[0]
        _, low, high = scale_log_magnitude(first["mixture"].abs(), top_db=self.top_db)
        return {
            name: ((value.abs().clamp(min=1e-12).log() - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
            for name, value in first.items()
        }
