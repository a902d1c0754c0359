"""One recording in, one out: what `lasslab separate` and `lasslab edit` share."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lasslab.cli.options import check_output, is_terminal

if TYPE_CHECKING:
    from lasslab.systems.editing import Editor
    from lasslab.systems.separation import Separator

LOUDER_DB = 3.0  # two sounds may cancel each other a little in the recording


def process_recording(
    audio: Path, output: Path, words: str, load: "Callable[[], Separator | Editor]", *, to_do: str, seed: int
) -> str:
    """Run a system on a recording, after everything that can be refused without it has been.

    Args:
        audio: recording.
        output: file to write.
        words: query or instruction, checked.
        load: makes the system.
        to_do: what a silent recording has nothing of, "separate" or "edit".
        seed: decides everything random.

    Returns:
        What was written, in a line. Where it is silent because the recording is so quiet, or louder than a part of it
        can be, that is said on standard error.

    Raises:
        ValueError: a place that cannot be written, a silent or unreadable recording, or what the system refuses.
    """
    import torch

    from lasslab.signal.audio import scan_audio
    from lasslab.systems.streaming import SILENCE_DB, process_file

    check_output(output, audio)
    scan = scan_audio(audio)
    if scan.peak == 0:
        raise ValueError(f"{audio} is silent from start to end, there is nothing to {to_do}: check the recording")
    system = load()
    generator = torch.Generator().manual_seed(seed)
    written = process_file(system, audio, output, words, generator=generator, scan=scan, progress=is_terminal())
    if written.level_db <= SILENCE_DB and hasattr(system, "silent_db"):
        typer.echo(
            f"lasslab: {audio} is so quiet, below {system.silent_db:g} dB of full scale up to 8 kHz, that it is "
            f"silence to {system.name} and {output} is silent: raise the level of the recording first",
            err=True,
        )
    if to_do == "separate" and written.level_db > LOUDER_DB and hasattr(system, "guidance_scale"):
        typer.echo(
            f"lasslab: {output} is {written.level_db:.1f} dB louder than the recording, which no part of it is: with "
            "few steps guidance goes too far, give more --steps or --guidance 1",
            err=True,
        )
    level = f"{written.level_db:.1f} dB of the recording's level"
    seconds = written.n_samples / written.sample_rate
    return f"{output}: {seconds:.2f} s, {written.sample_rate} Hz, {level} ({system.name})"
