"""`lasslab separate`: a recording and a sentence in, a recording out."""

from pathlib import Path
from typing import Annotated

import typer

from lasslab.cli.options import (
    DEFAULT_SYSTEM,
    Device,
    Guidance,
    Seed,
    Steps,
    System,
    check_output,
    is_terminal,
    with_sampling,
)


def separate(
    audio: Annotated[Path, typer.Argument(metavar="IN", help="Recording of any length: WAV, FLAC, OGG or MP3.")],
    query: Annotated[str, typer.Argument(help='What to keep, in words: "a dog barking".')],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write; the suffix decides the format.")],
    system: System = DEFAULT_SYSTEM,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Pull the sound that a sentence names out of a recording."""
    import torch

    from lasslab.models.text import check_query
    from lasslab.signal.audio import scan_audio
    from lasslab.systems.separation import load_separator
    from lasslab.systems.streaming import process_file

    check_query(query)
    check_output(output, audio)
    scan = scan_audio(audio)
    if scan.peak == 0:
        raise ValueError(f"{audio} is silent from start to end, there is nothing to separate: check the recording")
    separator = with_sampling(load_separator(system, device=device), steps, guidance)
    generator = torch.Generator().manual_seed(seed)
    written = process_file(separator, audio, output, query, generator=generator, scan=scan, progress=is_terminal())
    level = f"{written.level_db:.1f} dB of the recording's level"
    seconds = written.n_samples / written.sample_rate
    typer.echo(f"{output}: {seconds:.2f} s, {written.sample_rate} Hz, {level} ({separator.name})")
