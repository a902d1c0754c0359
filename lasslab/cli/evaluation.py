"""`lasslab evaluate`: systems on lists, with floors and ceilings."""

from pathlib import Path
from typing import Annotated

import typer

from lasslab.cli.options import DEFAULT_SYSTEM, Device, Seed, System, check_output, is_terminal


def evaluate_separation(
    pairs: Annotated[Path, typer.Option(help="Pair list: idx,caption,src_wav,noise_wav.")],
    audio: Annotated[Path, typer.Option(help="Folder of the audio files in the list.")],
    system: System = DEFAULT_SYSTEM,
    snr_db: Annotated[float, typer.Option(help="SNR to mix at, dB.")] = 0.0,
    json: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Score a separator on a list of pairs."""
    from lasslab.data.mixtures import read_pairs
    from lasslab.evaluation.benchmark import evaluate
    from lasslab.systems.separation import load_separator

    if json is not None:
        check_output(json, pairs)
    listed = read_pairs(pairs, audio)
    report = evaluate(
        load_separator(system, device=device),
        listed,
        snr_db=snr_db,
        seed=seed,
        pair_list=pairs,
        progress=is_terminal(),
    )
    typer.echo(report.table())
    if json is not None:
        report.save(json)
        typer.echo(f"wrote {json}")
