"""One level inside, the recording's own outside: what the generative systems do to a waveform before and after.

A log-mel spectrogram holds the level, and a network that makes spectrograms has to be shown one level only. So a
mixture is brought to a fixed root mean square, and what is made of it is brought back by the same gain.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVEL_DB = -20.0  # root mean square inside, dB of full scale
SILENT_DB = -80.0  # a root mean square below this is silence, and stays what it is
HOP = 160  # samples of one decision whether a recording sounds
AROUND = 4  # how many of them before and after a sound still belong to it: 40 ms


def level_gain(waveform: Tensor) -> Tensor:
    """The gain that brings each waveform to a root mean square of -20 dB.

    Args:
        waveform: (..., T).

    Returns:
        Factors (..., 1), 0 for a waveform below -80 dB: silence in is silence out.
    """
    rms = waveform.square().mean(-1, keepdim=True).sqrt()
    gain = 10 ** (LEVEL_DB / 20) / rms.clamp(min=10 ** (SILENT_DB / 20))
    return torch.where(rms < 10 ** (SILENT_DB / 20), torch.zeros_like(gain), gain)


def where_it_sounds(waveform: Tensor) -> Tensor:
    """1 where a recording sounds, 0 where it is silent, with ramps of 10 ms in the silence.

    Nothing can be separated from a pause, and a network that makes sounds anew may still make one there. A pause has no
    sample above -80 dB, at the systems' level, for 40 ms before and after.

    Args:
        waveform: (..., T) at -20 dB.

    Returns:
        Weights in [0, 1], (..., T).
    """
    n_samples = waveform.shape[-1]
    blocks = F.pad(waveform, (0, -n_samples % HOP)).reshape(-1, 1, -(-n_samples // HOP), HOP)
    loudest = blocks.abs().amax(-1)  # (B, 1, N)
    sounds = (F.max_pool1d(loudest, 2 * AROUND + 1, 1, AROUND) > 10 ** (SILENT_DB / 20)).to(waveform.dtype)
    # linear from the middle of a block to the middle of the next: the ramps lie where it has been silent for a while
    weights = F.interpolate(F.pad(sounds, (1, 1), mode="replicate"), scale_factor=HOP, mode="linear")
    return weights[..., HOP : HOP + n_samples].reshape(waveform.shape)


def snr_gain(target: Tensor, interference: Tensor, *, snr_db: float | Tensor) -> Tensor:
    """The factor on the interference that gives an SNR over the whole clip.

    Args:
        target: (..., T).
        interference: (..., T).
        snr_db: ratio of target to interference energy in dB, a number or (...,).

    Returns:
        Positive factors (..., 1).

    Raises:
        ValueError: the shapes differ, or no finite gain gives the SNR: one of the two is silent, or `snr_db` is not a
            finite number.
    """
    if target.shape != interference.shape:
        raise ValueError(
            f"target {tuple(target.shape)} and interference {tuple(interference.shape)} differ in shape: "
            "use fit_length on the interference"
        )
    energies = [part.square().sum(-1, keepdim=True) for part in (target, interference)]
    for name, energy in zip(("target", "interference"), energies, strict=True):
        if not bool((energy > 0).all()):
            raise ValueError(f"the {name} is silent: no gain gives it an SNR, choose another clip or crop")
    snr = torch.as_tensor(snr_db, dtype=target.dtype, device=target.device)[..., None]
    gain = (energies[0] / energies[1] / 10 ** (snr / 10)).sqrt()
    if not bool((gain.isfinite() & (gain > 0)).all()):  # an infinite SNR would make it 0
        raise ValueError(f"no finite gain gives an SNR of {snr_db} dB: give a number of decibels, and audible clips")
    return gain
