"""Separation: a mixture and a sentence in, the sound that the sentence names out.

Every system is called `system(waveform, query, *, sample_rate=16_000, generator=None)`, takes `(T,)` or `(C, T)` at any
rate, of any length from one frame on, and returns the same shape, rate and level. Silence comes back as silence.

This is the front door. Behind it: `baselines` (floors and the oracle mask), `masking` (the mask networks), `generative`
(FlowSep and DiffusionSep) over `codec`. All work at 16 kHz: from a recording at a higher rate, what lies above 8 kHz is
lost.

Notebooks: 05 (floors and ceilings), 07 (the mask network), 12 and 13 (flow and diffusion).
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lasslab.models.bigvgan import load_vocoder
from lasslab.models.vae import load_vae
from lasslab.systems.baselines import (
    BASELINES,
    ORACLE_MASKS,
    ConstantGain,
    MixtureAsEstimate,
    OracleMask,
    Silence,
)
from lasslab.systems.codec import LatentCodec, RoundTrip
from lasslab.systems.generative import DiffusionSeparator, FlowSeparator, load_generative_separator
from lasslab.systems.masking import MaskSeparator, load_mask_separator
from lasslab.systems.request import Separator, choose_device, open_checkpoint

__all__ = [
    "BASELINES",
    "DEFAULT_SEPARATOR",
    "ORACLE_MASKS",
    "ConstantGain",
    "DiffusionSeparator",
    "FlowSeparator",
    "MaskSeparator",
    "MixtureAsEstimate",
    "OracleMask",
    "RoundTrip",
    "Separator",
    "Silence",
    "choose_device",
    "load_separator",
]

DEFAULT_SEPARATOR = "resunetpp-lab"

#: "system" of a checkpoint's config.json -> what loads it
LOADERS: dict[str, Callable[[Path, dict[str, Any], torch.device], Separator]] = {
    "mask": load_mask_separator,
    "flow": load_generative_separator,
    "diffusion": load_generative_separator,
}


ROUND_TRIP = "round-trip"  # the lab's VAE and vocoder; a ceiling, as "oracle-mask" is


def load_separator(name_or_dir: str | os.PathLike[str] = DEFAULT_SEPARATOR, *, device: str = "auto") -> Separator:
    """Load a system by name.

    Args:
        name_or_dir: a checkpoint under `checkpoint_root()`, a folder with `config.json` and
            `model.safetensors`, or a baseline: "silence", "mixture", "constant-gain", "oracle-mask", "round-trip".
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
    if str(name_or_dir) == ROUND_TRIP:
        where = choose_device(device)
        return RoundTrip(LatentCodec(load_vae(device=where), load_vocoder(device=where)), where)
    others = f"baselines: {', '.join((*BASELINES, ROUND_TRIP))}"
    folder, config = open_checkpoint(name_or_dir, kinds=LOADERS, what="a separator", others=others)
    return LOADERS[config["system"]](folder, config, choose_device(device))
