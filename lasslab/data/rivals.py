"""Rivals: of several sounds, the one that is most like a target point by point.

Mixtures drawn at random are mostly easy. A dog and rain share few points of a spectrogram; a chainsaw and rain fill all
of them, and their mixture is 3 dB above either. Of mixtures drawn as `lasslab train flow --preset lab` draws them, but
for `hard` and with ESC-10's ten classes as the only recordings, 7.2 % are of two of the four noises chainsaw,
helicopter, rain and sea waves; 2.4 % ask for a chainsaw or a helicopter in rain or waves, and as many the other way
round; 0.6 % ask for a chainsaw in rain. A network that makes sounds learns them last: it hands the mixture back, which
is nearly right. So that training meets them, `MixtureDataset` draws some of its interferences as rivals (`hard`).

Notebook 12.
"""

import torch
from torch import Tensor

from lasslab.signal.levels import snr_gain
from lasslab.signal.mel import log_mel_spectrogram

N_RIVALS = 5  # drawn for each target, of which the nearest is taken


def rival_distance(target: Tensor, interferences: Tensor) -> Tensor:
    """How unlike a target sounds of its level are, point by point.

        d = mean |log mel(g n) - log mel(s)|   over bins and frames, with the gain g of 0 dB SNR

    Not the distance of the mixture, log mel(s + g n): that is smallest for a short sound, which leaves most of the
    target as it was, and is easy.

    Args:
        target: (T,).
        interferences: (K, T).

    Returns:
        Distances (K,), in nats. A silent interference, which has no SNR, is infinitely far, and all are from a silent
        target.
    """
    distances = torch.full_like(interferences[:, 0], torch.inf)
    heard = (interferences != 0).any(-1) & (target != 0).any()
    if heard.any():
        others = interferences[heard]
        others = others * snr_gain(target.expand_as(others), others, snr_db=0.0)
        log_mels = log_mel_spectrogram(torch.cat([target[None], others]))
        distances[heard] = (log_mels[1:] - log_mels[:1]).abs().mean((-2, -1))
    return distances
