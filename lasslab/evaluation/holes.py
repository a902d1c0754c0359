"""What a separator leaves out, and what it leaves in: counted point by point of a magnitude spectrogram.

A mask that is too strict takes a part of the target away with the rest: a **hole**. One that is too generous lets a
part of the rest through, or a generator makes something up: an **intrusion**. With levels L = 20 log10 |X| in dB,
L_max the target's loudest point, `active_db` A and `threshold_db` D,

    active:  L_target >= L_max - A        hole:       L_estimate < L_target - D, of the active points             (1)
    silent:  L_target <  L_max - A - D    intrusion:  L_estimate >= L_max - A,   of the silent points             (2)

So a hole comes out more than D too low where there should be sound, and an intrusion is as loud as what counts as
sound, at least D above what should be there. What lies between active and silent counts on neither side.

Only levels are compared. That is fair to a system that makes a new waveform, whose phase is its own. It still is not
free of chance: two recordings of the same noise have their dips at different points. In bins of an STFT their powers
are independent and exponential, and P(estimate < target / 100) = 1 / 101: one per cent of the points of an estimate
that nobody could tell from its target. Bands of a mel spectrogram sum over bins and have fewer dips.

FlowSep shows such holes in one picture (figure 3) and does not count them: the definition is ours. Notebook 12.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lasslab.signal.audio import check_waveform
from lasslab.signal.mel import MelConfig, mel_spectrogram

THRESHOLD_DB = 20.0
ACTIVE_DB = 40.0


class Holes(NamedTuple):
    """Points of a spectrogram, True or False, (..., K, N) each; see (1) and (2)."""

    active: Tensor
    holes: Tensor
    silent: Tensor
    intrusions: Tensor

    @property
    def hole_share(self) -> Tensor:
        """Holes over active points, float64, (...); never undefined, as the loudest point is active."""
        return _share(self.holes, self.active)

    @property
    def intrusion_share(self) -> Tensor:
        """Intrusions over silent points, float64, (...); NaN where the target has no silent point."""
        return _share(self.intrusions, self.silent)


def find_holes(
    *, estimate: Tensor, target: Tensor, threshold_db: float = THRESHOLD_DB, active_db: float = ACTIVE_DB
) -> Holes:
    """Holes and intrusions of a magnitude spectrogram.

    Args:
        estimate: magnitudes (..., K, N), bins or mel bands; 0 or more, linear.
        target: magnitudes (..., K, N), not silent.
        threshold_db: D, how far off a point must be to count, dB.
        active_db: A, how far below the target's loudest point sound ends, dB.

    Returns:
        Which points are active, holes, silent and intrusions.

    Raises:
        ValueError: shapes that differ; complex, negative, NaN or infinite values; a silent target; a threshold or range
            that is not positive.
    """
    if estimate.shape != target.shape or target.dim() < 2 or not target.numel():
        raise ValueError(
            f"expected magnitudes of one shape (..., K, N), got {tuple(estimate.shape)} and {tuple(target.shape)}: "
            "crop both waveforms to one length with fit_length"
        )
    for name, values in (("estimate", estimate), ("target", target)):
        if values.is_complex() or not bool((values.isfinite() & (values >= 0)).all()):
            raise ValueError(f"the {name} must be magnitudes, finite and 0 or more: take .abs() of a spectrum")
    for name, value in (("threshold_db", threshold_db), ("active_db", active_db)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number of dB, got {value}")
    estimate, target = estimate.double(), target.double()
    loudest = target.amax(dim=(-2, -1), keepdim=True)
    if not bool((loudest > 0).all()):
        raise ValueError("a target is silent: no point of it can be left out, leave that item out")
    below = 10 ** (-threshold_db / 20)
    lowest = loudest * 10 ** (-active_db / 20)
    active, silent = target >= lowest, target < below * lowest
    return Holes(
        active=active,
        holes=active & (estimate < below * target),
        silent=silent,
        intrusions=silent & (estimate >= lowest),
    )


def spectral_holes(
    *,
    estimate: Tensor,
    target: Tensor,
    config: MelConfig | None = None,
    threshold_db: float = THRESHOLD_DB,
    active_db: float = ACTIVE_DB,
) -> Holes:
    """`find_holes` of waveforms, in the bands of their mel spectrograms.

    Args:
        estimate: (..., T).
        target: (..., T), not silent.
        config: of the mel spectrograms; MelConfig() when left out.
        threshold_db: as in `find_holes`.
        active_db: as in `find_holes`.

    Returns:
        Which points (..., M, N) are active, holes, silent and intrusions.

    Raises:
        ValueError: see `find_holes` and `mel_spectrogram`; NaN or infinite samples.
    """
    for name, waveform in (("the estimate", estimate), ("the target", target)):
        check_waveform(waveform, name=name, dims=tuple(range(1, 9)))
    magnitudes = [mel_spectrogram(waveform, config) for waveform in (estimate, target)]
    return find_holes(estimate=magnitudes[0], target=magnitudes[1], threshold_db=threshold_db, active_db=active_db)


def _share(points: Tensor, of: Tensor) -> Tensor:
    return points.sum(dim=(-2, -1), dtype=torch.float64) / of.sum(dim=(-2, -1), dtype=torch.float64)
