"""`lasslab bench`: the scripts of `benchmarks/`, by name."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
NOT_A_BENCHMARK = {"measure"}  # what the others share


def names() -> list[str]:
    """Benchmarks there are; none where the package is installed without its repository."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_A_BENCHMARK)


def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which benchmark; without a name they are listed.")] = None,
) -> None:
    """Measure speed and memory against the obvious way; options after the name are the benchmark's own."""
    known = names()
    if not known:
        raise ValueError(f"there are no benchmarks at {FOLDER}: run this from an installation of the repository (-e)")
    if name is None:
        typer.echo("\n".join(known))
        return
    if name not in known:
        raise ValueError(f"unknown benchmark {name!r}: choose one of {', '.join(known)}")
    raise typer.Exit(subprocess.run([sys.executable, FOLDER / f"{name}.py", *context.args]).returncode)
