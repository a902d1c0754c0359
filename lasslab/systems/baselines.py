"""The floors that every table of separation shows, and its ceiling.

`Silence`, `MixtureAsEstimate` and `ConstantGain` separate nothing; `OracleMask` knows the target. Notebook 05.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lasslab.signal.audio import SAMPLE_RATE, check_waveform
from lasslab.signal.spectral import (
    HOP_LENGTH,
    N_FFT,
    apply_mask,
    ideal_binary_mask,
    ideal_ratio_mask,
    istft,
    phase_sensitive_mask,
    stft,
)
from lasslab.systems.request import Separator, at_model_rate, check_request, check_target


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
        check_request(waveform, query, sample_rate)
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
        check_request(waveform, query, sample_rate)
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
        check_request(waveform, query, sample_rate)
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
        check_request(waveform, query, sample_rate, n_fft=self.n_fft)
        target = check_target(target, waveform, what="an oracle mask")
        pair = torch.stack([waveform, check_waveform(target, name="target").to(waveform)])
        return at_model_rate(self._mask, pair, sample_rate).to(waveform)

    def _mask(self, pair: Tensor) -> Tensor:
        spectra = stft(pair, n_fft=self.n_fft, hop_length=self.hop_length)
        mixture, target = spectra[0], spectra[1]
        mask = ORACLE_MASKS[self.kind](target, mixture - target, mixture, self.exponent)
        masked = apply_mask(mask, mixture)
        return istft(masked, n_fft=self.n_fft, hop_length=self.hop_length, length=pair.shape[-1])


BASELINES: dict[str, Callable[[], Separator]] = {
    "silence": Silence,
    "mixture": MixtureAsEstimate,
    "constant-gain": ConstantGain,
    "oracle-mask": OracleMask,
}
