"""Options that several commands share, and the checks made before any work is done."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lasslab.systems.separation import Separator

System = Annotated[str, typer.Option("--system", help="Name or folder of a checkpoint, or a baseline.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
Seed = Annotated[int, typer.Option(help="Decides everything random.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Steps of a generative system; its own when left out.")]
Guidance = Annotated[
    float | None, typer.Option("--guidance", help="How much more than usual the words count; 1 is no guidance.")
]
DEFAULT_SYSTEM = "resunetpp-lab"


def check_output(output: Path, source: Path) -> None:
    """Refuse a place that cannot be written before any work is done."""
    if output.is_dir():
        raise ValueError(f"{output} is a folder: give the name of the file to write")
    if not output.resolve().parent.is_dir():
        raise ValueError(f"{output}: the folder {output.resolve().parent} does not exist, make it first")
    if not os.access(output.resolve().parent, os.W_OK):
        raise ValueError(f"{output}: the folder {output.resolve().parent} cannot be written, choose another")
    if source.exists() and output.exists() and output.samefile(source):
        raise ValueError(f"{output} is the input itself: choose another name, so that nothing is lost")


def is_terminal() -> bool:
    """Whether somebody is watching: progress bars are for people."""
    return sys.stderr.isatty()


def with_sampling(system: "Separator", steps: int | None, guidance: float | None) -> "Separator":
    """A system with other steps and guidance, or as it is where neither is given; refuses what has no steps."""
    if steps is None and guidance is None:
        return system
    if not hasattr(system, "with_sampling"):
        option = "--steps" if steps is not None else "--guidance"
        raise ValueError(f"{option} is for systems that sample, {system.name} does not: leave it out")
    return system.with_sampling(n_steps=steps, guidance_scale=guidance)
