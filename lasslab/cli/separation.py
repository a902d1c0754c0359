"""`lasslab separate`: a recording and a sentence in, a recording out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lasslab.cli.options import (
    DEFAULT_SYSTEM,
    Device,
    Guidance,
    KeepDB,
    Method,
    Seed,
    Steps,
    System,
    with_sampling,
)
from lasslab.cli.recordings import process_recording

if TYPE_CHECKING:
    from lasslab.systems.separation import Separator


def separate(
    audio: Annotated[Path, typer.Argument(metavar="IN", help="Recording of any length: WAV, FLAC, OGG or MP3.")],
    query: Annotated[str, typer.Argument(help='What to keep, in words: "a dog barking".')],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write; the suffix decides the format.")],
    system: System = DEFAULT_SYSTEM,
    steps: Steps = None,
    method: Method = None,
    guidance: Guidance = None,
    keep_db: KeepDB = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Pull the sound that a sentence names out of a recording."""
    from lasslab.models.text import check_query
    from lasslab.systems.separation import load_separator

    check_query(query)

    def load() -> "Separator":
        loaded = load_separator(system, device=device)
        return with_sampling(loaded, n_steps=steps, method=method, guidance_scale=guidance, keep_db=keep_db)

    typer.echo(process_recording(audio, output, query, load, to_do="separate", seed=seed))
