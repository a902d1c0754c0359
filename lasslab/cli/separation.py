"""`lasslab separate`: a recording and a sentence in, a recording out."""

from pathlib import Path
from typing import Annotated

import typer

from lasslab.cli.options import DEFAULT_SYSTEM, Device, Seed, System, check_output


def separate(
    audio: Annotated[Path, typer.Argument(metavar="IN", help="Recording: WAV, FLAC, OGG or MP3.")],
    query: Annotated[str, typer.Argument(help='What to keep, in words: "a dog barking".')],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write; the suffix decides the format.")],
    system: System = DEFAULT_SYSTEM,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Pull the sound that a sentence names out of a recording."""
    import torch

    from lasslab.models.text import check_query
    from lasslab.signal.audio import read_audio, save_audio
    from lasslab.systems.separation import load_separator

    check_query(query)
    check_output(output, audio)
    waveform, sample_rate = read_audio(audio)
    if not waveform.any():
        raise ValueError(f"{audio} is silent from start to end, there is nothing to separate: check the recording")
    separator = load_separator(system, device=device)
    try:
        estimate = separator(waveform, query, sample_rate=sample_rate, generator=torch.Generator().manual_seed(seed))
    except ValueError as error:
        raise ValueError(f"{audio}: {error}") from error
    save_audio(output, estimate, sample_rate=sample_rate)
    kept = estimate.square().mean().sqrt() / waveform.square().mean().sqrt().clamp(min=1e-12)
    level = f"{20 * torch.log10(kept.clamp(min=1e-6)):.1f} dB of the recording's level"
    typer.echo(f"{output}: {waveform.shape[-1] / sample_rate:.2f} s, {sample_rate} Hz, {level} ({separator.name})")
