"""What every separation system is and refuses: the call, the checks of it, and the one rate inside."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

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


def check_text_width(encoder: TextEncoder, width: int, *, name: str, path: Path) -> None:
    """Refuse a checkpoint that names another text encoder than its network was trained with, by its width."""
    if encoder.dim != width:
        raise ValueError(
            f"{path}: text_encoder {name!r} is {encoder.dim} wide, the network expects text_dim {width}: "
            "name the encoder it was trained with"
        )


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
