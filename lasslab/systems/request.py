"""What every system is and refuses: the call, the checks of it and of its checkpoint, and the one rate inside."""

import math
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lasslab.models.checkpoints import CONFIG_FILE, find_checkpoint, read_config
from lasslab.models.text import TextEncoder, check_query
from lasslab.signal.audio import SAMPLE_RATE, check_waveform, fit_length, resample
from lasslab.signal.spectral import N_FFT


class Separator(Protocol):
    """What every separation system is."""

    name: str

    def __call__(
        self,
        waveform: Tensor,
        query: str,
        *,
        sample_rate: int = SAMPLE_RATE,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(T,) or (C, T) in, the same out."""


def check_request(waveform: Tensor, query: str, sample_rate: int, *, n_fft: int = N_FFT) -> None:
    """What every system refuses: unusable samples, less than one frame, an empty or far too long query."""
    check_samples(waveform, sample_rate, n_fft=n_fft)
    check_query(query)


def check_samples(waveform: Tensor, sample_rate: int, *, n_fft: int) -> None:
    if sample_rate < 1 or sample_rate != int(sample_rate):
        raise ValueError(f"sample_rate must be a positive whole number of Hz, got {sample_rate}")
    shortest = math.ceil(n_fft * sample_rate / SAMPLE_RATE)
    check_waveform(waveform, name=f"a waveform at {sample_rate} Hz", min_samples=shortest)


def check_target(target: Tensor | None, waveform: Tensor, *, what: str) -> Tensor:
    """The target of a system that is a ceiling; refuses none, or one of another shape than the waveform.

    Args:
        target: in the shape of waveform, or None.
        waveform: mixture.
        what: the system in words, for the message.

    Returns:
        The target.

    Raises:
        ValueError: see above.
    """
    if target is None or target.shape != waveform.shape:
        found = "none" if target is None else tuple(target.shape)
        raise ValueError(
            f"{what} needs target= of shape {tuple(waveform.shape)}, got {found}: "
            "it is a ceiling for mixtures whose target is known, use another system for recordings"
        )
    return target


def check_text_width(encoder: TextEncoder, width: int, *, name: str) -> None:
    """Refuse a checkpoint that names another text encoder than its network was trained with, by its width."""
    if encoder.dim != width:
        raise ValueError(
            f"text_encoder {name!r} is {encoder.dim} wide, the network expects text_dim {width}: "
            "name the encoder it was trained with"
        )


def open_checkpoint(
    name_or_dir: str | os.PathLike[str], *, kinds: Collection[str], what: str, others: str
) -> tuple[Path, dict[str, Any]]:
    """Find the checkpoint of a system and read what it is.

    Args:
        name_or_dir: a checkpoint under `checkpoint_root()`, or a folder.
        kinds: what "system" may be in its configuration.
        what: such a system in words, for the message.
        others: what else may be named, for the message.

    Returns:
        Its folder and its configuration.

    Raises:
        ValueError: there is none of that name; or a configuration that is missing, broken, without a system or network,
            of another kind of system, or of another rate. One line that names the file and the remedy.
    """
    try:
        folder = find_checkpoint(name_or_dir)
    except ValueError as error:
        raise ValueError(f"{error}; {others}") from error
    config, path = read_config(folder), folder / CONFIG_FILE
    if missing := [name for name in ("system", "network") if name not in config]:
        raise ValueError(f"{path}: missing fields {', '.join(missing)}: copy the file from the checkpoint again")
    if not isinstance(config["system"], str) or config["system"] not in kinds:  # a list has no hash
        raise ValueError(f"{path}: system is {config['system']!r}, {what} is one of {', '.join(kinds)}")
    if config.get("sample_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise ValueError(f"{path}: sample_rate is {config['sample_rate']}, systems work at {SAMPLE_RATE} Hz")
    return folder, config


def at_model_rate(process: Callable[[Tensor], Tensor], waveform: Tensor, sample_rate: int) -> Tensor:
    """Run `process` on float32 samples at 16 kHz; the result has the waveform's rate and exact length."""
    inside = resample(waveform.float(), orig_rate=sample_rate, new_rate=SAMPLE_RATE)
    separated = resample(process(inside), orig_rate=SAMPLE_RATE, new_rate=sample_rate)
    return fit_length(separated, waveform.shape[-1])


def choose_device(device: str = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA where there is one, else the CPU.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1", "mps" ...

    Returns:
        The device, which has just held a tensor.

    Raises:
        ValueError: no such device, on this machine or at all.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {device!r} cannot be used here: use 'auto', 'cpu' or 'cuda'") from error
