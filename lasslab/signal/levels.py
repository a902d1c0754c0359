"""One level inside, the recording's own outside: what the generative systems do to a waveform before and after.

A log-mel spectrogram holds the level, and a network that makes spectrograms has to be shown one level only. So a
mixture is brought to a fixed root mean square, and what is made of it is brought back by the same gain.
"""

import torch
from torch import Tensor

LEVEL_DB = -20.0  # root mean square inside, dB of full scale
SILENT_DB = -80.0  # a root mean square below this is silence, and stays what it is


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
