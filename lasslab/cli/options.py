"""Options that several commands share, and the checks made before any work is done."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lasslab.systems.editing import Editor
    from lasslab.systems.separation import Separator

System = Annotated[str, typer.Option("--system", help="Name or folder of a checkpoint, or a baseline.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
LARGEST_SEED = 2**63 - 1  # what torch and NumPy both take


def check_seed(seed: int) -> int:
    """Refuse a seed that no generator takes, before any work is done."""
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"--seed must be a whole number from 0 to {LARGEST_SEED}, got {seed}: 0 is usual")
    return seed


Seed = Annotated[int, typer.Option(callback=check_seed, help="Decides everything random.")]
METHOD_HELP = "How a flow is solved: euler, or midpoint and heun, which call the network twice a step."
Method = Annotated[str | None, typer.Option("--method", help=METHOD_HELP)]
Steps = Annotated[int | None, typer.Option("--steps", help="Steps of a generative system; its own when left out.")]
Guidance = Annotated[
    float | None, typer.Option("--guidance", help="How much more than usual the words count; 1 is no guidance.")
]
TStart = Annotated[
    float | None,
    typer.Option("--t-start", help="Time in [0, 1) at which an editor starts; nearer to 1, more stays as it is."),
]
KEEP_DB_HELP = "What is changed by less, in dB, is the recording itself; 0 makes all of it anew."
KeepDB = Annotated[float | None, typer.Option("--keep-db", help=KEEP_DB_HELP)]
IN_TURN = "--in-turn/--at-once"
IN_TURN_HELP = "Replace by removing first and adding then, or in one go."
InTurn = Annotated[bool | None, typer.Option(IN_TURN, help=f"{IN_TURN_HELP} The editor's own way when left out.")]
#: what a system samples with: setting -> its option
SETTINGS = {
    "n_steps": "--steps",
    "method": "--method",
    "guidance_scale": "--guidance",
    "t_start": "--t-start",
    "keep_db": "--keep-db",
    "in_turn": "--in-turn",
}
DEFAULT_SYSTEM = "resunetpp-lab"
DEFAULT_EDITOR = "rfm-editing-lab"


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


def with_sampling(system: "Separator | Editor", **settings: Any) -> "Separator | Editor":
    """A system with other settings, or as it is where none is given; refuses them where a system does not sample.

    Args:
        system: any.
        **settings: of `SETTINGS`; None is not given.

    Returns:
        The system itself, or a copy.

    Raises:
        ValueError: the system does not sample, or refuses a setting; names the option.
    """
    given = [name for name, value in settings.items() if value is not None]
    if not given:
        return system
    if not hasattr(system, "with_sampling"):
        raise ValueError(f"{SETTINGS[given[0]]} is for systems that sample, {system.name} does not: leave it out")
    for name in given:  # one by one, to know which is refused
        try:
            system = system.with_sampling(**{name: settings[name]})
        except ValueError as error:
            raise ValueError(f"{SETTINGS[name]}: {error}") from error
    return system


def whole_numbers(text: str, *, name: str) -> list[int]:
    """Numbers of an option that takes several, "1,2,3"."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise ValueError(f"{name} takes whole numbers with commas between them, such as 1,2,3, got {text!r}")
    return [int(word) for word in words]
