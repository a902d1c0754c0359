"""Pieces of clips: what every training item, a mixture or an edit, is put together from.

A piece is cut from a clip where the clip is loud, and may be changed in ways that keep a sound what it is. Everything
is drawn from a `numpy` generator that the caller seeds by the item's number.

Notebook 03.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from lasslab.data.clips import Clip
from lasslab.data.wording import reword
from lasslab.signal.audio import SAMPLE_RATE, fit_length, resample

_keeping = threading.Lock()  # of every `Crops`, so that they can be copied and sent to workers

MOST_DRAWS = 10_000  # of a clip that shares no sound with the others, before giving up


@dataclass(frozen=True)
class Augmentation:
    """Changes that keep a sound what it is, applied to each clip on its own before mixing.

    Args:
        speed: largest relative change of speed (and pitch); 0.1 is 0.9 to 1.1.
        filter_db: largest gain in dB of a smooth random equaliser of five bands.
        shift: start at a random place, wrapping around.
        reverse_polarity: flip the sign half of the time.
    """

    speed: float = 0.0
    filter_db: float = 0.0
    shift: bool = False
    reverse_polarity: bool = False

    def draw_rate(self, random: np.random.Generator) -> int:
        """Sample rate to read the clip at, Hz: other than 16 kHz, it plays faster or slower."""
        return round(SAMPLE_RATE * (1 + random.uniform(-self.speed, self.speed)))

    def __call__(self, waveform: Tensor, random: np.random.Generator) -> Tensor:
        """Filter, shift and flip one clip (T,), drawing from `random`."""
        if self.filter_db:
            waveform = equalise(waveform, random.uniform(-self.filter_db, self.filter_db, size=5))
        if self.shift:
            waveform = waveform.roll(int(random.integers(waveform.shape[-1])))
        if self.reverse_polarity and random.random() < 0.5:
            waveform = -waveform
        return waveform


def equalise(waveform: Tensor, gains_db: Sequence[float]) -> Tensor:
    """A zero-phase equaliser: gains at equal steps of the mel scale from 0 Hz to Nyquist, interpolated in dB.

    Args:
        waveform: (T,).
        gains_db: gain of each band in dB, at least two.

    Returns:
        Filtered waveform (T,).
    """
    n_samples = waveform.shape[-1]
    frequency = np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE)
    mel = np.log1p(frequency / 700) / np.log1p(SAMPLE_RATE / 2 / 700)  # 0 to 1
    gain = 10 ** (np.interp(mel, np.linspace(0, 1, len(gains_db)), gains_db) / 20)
    # scipy's transform: torch's gives other last bits on several threads than on one, and so in a worker of a loader
    samples = waveform.detach().cpu().numpy()
    spectrum = fft.rfft(samples) * gain.astype(samples.dtype)
    return torch.from_numpy(fft.irfft(spectrum, n=n_samples)).to(waveform)


class Crops:
    """Draws clips, pieces of them and sentences about them.

    Args:
        clips: what to draw from, of at least two labels.
        seconds: length of a piece.
        weights: relative probability of each clip; default: every label is equally likely, and every clip within it.
        augmentation: applied to every piece, or None.
        reword: share of the sentences put into other words around the caption, see `lasslab.data.wording`.

    Raises:
        ValueError: fewer than two labels, a length without a sample, unusable weights, or a share outside of [0, 1].
    """

    #: samples kept in memory, 12 bytes each (800 MB); beyond, the clips read first are read again when drawn again
    max_cached = 2**26

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        seconds: float,
        weights: Sequence[float] | None = None,
        augmentation: Augmentation | None = None,
        reword: float = 0.0,
    ) -> None:
        self.labels = sorted({clip.label for clip in clips})
        if len(self.labels) < 2:
            raise ValueError(f"mixing needs clips of at least two labels, got {self.labels or 'no clip'}")
        if not (math.isfinite(seconds) and round(seconds * SAMPLE_RATE) >= 1):
            raise ValueError(f"seconds must be positive and hold a sample, got {seconds}")
        if not 0 <= reword <= 1:
            raise ValueError(f"reword is a share in [0, 1], got {reword}")
        self.clips = list(clips)
        self.n_samples = round(seconds * SAMPLE_RATE)
        self.augmentation = augmentation
        self.reword = reword
        self.probability = _clip_probability(self.clips, weights)
        self._waveforms: dict[int, tuple[Tensor, np.ndarray]] = {}
        self._n_cached = 0

    def choose(
        self, random: np.random.Generator, *, without: Sequence[int] = (), probability: np.ndarray | None = None
    ) -> int:
        """Number of a clip that shares no sound with the clips `without`."""
        for _ in range(MOST_DRAWS):
            number = int(random.choice(len(self.clips), p=self.probability if probability is None else probability))
            if not any(self.clips[number].shares_sound(self.clips[other]) for other in without):
                return number
        names = ", ".join(self.clips[other].source for other in without)
        raise ValueError(f"nearly every clip shares a sound with {names}: leave out tags that all clips have")

    def query(self, number: int, random: np.random.Generator) -> str:
        """A caption of a clip, or one in other words."""
        caption = str(random.choice(self.clips[number].captions))
        if self.reword and random.random() < self.reword:
            return reword(caption, random)
        return caption

    def crop(self, number: int, random: np.random.Generator) -> Tensor:
        """An augmented piece of the clip, `n_samples` long; a shorter clip is padded with silence."""
        augmentation = self.augmentation or Augmentation()
        rate = augmentation.draw_rate(random)
        waveform = self._loud_piece(number, round(self.n_samples * rate / SAMPLE_RATE), random)
        if rate != SAMPLE_RATE:
            waveform = resample(waveform, orig_rate=rate, new_rate=SAMPLE_RATE)
        return augmentation(fit_length(waveform, self.n_samples), random)

    def _loud_piece(self, number: int, length: int, random: np.random.Generator) -> Tensor:
        """The first of eight random pieces that holds its share of the clip's energy, or the loudest of them.

        Many sounds are events with long pauses: a piece from a pause has no SNR, and teaches nothing.
        """
        waveform, energy_before = self._waveform(number)
        spare = waveform.shape[-1] - length
        if spare <= 0:
            return waveform
        starts = random.integers(spare + 1, size=8)
        energy = energy_before[starts + length] - energy_before[starts]
        share = energy_before[-1] * length / waveform.shape[-1]
        loud = np.flatnonzero(energy > 0.3 * share)
        start = int(starts[loud[0] if len(loud) else energy.argmax()])
        no_energy = energy_before[start + length] == energy_before[start]
        if no_energy and not bool(waveform[start : start + length].any()):  # all eight fell into digital silence
            start = min(max(int(waveform.abs().argmax()) - length // 2, 0), spare)
        return waveform[start : start + length]

    def _waveform(self, number: int) -> tuple[Tensor, np.ndarray]:
        """Samples (T,) of a clip, and the energy before each sample (T + 1,). Read once, kept while there is room."""
        found = self._waveforms.get(number)
        if found is None:
            waveform = self.clips[number].load()
            if not bool(waveform.any()):
                raise ValueError(f"clip {self.clips[number].source} is silent: leave it out of the corpus")
            energy_before = np.zeros(len(waveform) + 1)
            np.square(waveform.numpy(), dtype=np.float64).cumsum(out=energy_before[1:])
            found = waveform, energy_before
            self._keep(number, found)
        return found

    def _keep(self, number: int, found: tuple[Tensor, np.ndarray]) -> None:
        with _keeping:
            if self._waveforms.setdefault(number, found) is not found:
                return  # another thread has read it meanwhile
            self._n_cached += len(found[0])
            while self._n_cached > self.max_cached and len(self._waveforms) > 1:
                self._n_cached -= len(self._waveforms.pop(next(iter(self._waveforms)))[0])


def _clip_probability(clips: Sequence[Clip], weights: Sequence[float] | None) -> np.ndarray:
    if weights is None:
        per_label: dict[str, int] = {}
        for clip in clips:
            per_label[clip.label] = per_label.get(clip.label, 0) + 1
        weights = [1 / per_label[clip.label] for clip in clips]
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (len(clips),) or not (weights >= 0).all() or not weights.sum() > 0:
        raise ValueError(f"weights must be {len(clips)} numbers of at least 0, one per clip, and not all 0")
    if len({clip.label for clip, weight in zip(clips, weights, strict=True) if weight > 0}) < 2:
        raise ValueError("weights leave clips of one label only: mixing needs two")
    return weights / weights.sum()
