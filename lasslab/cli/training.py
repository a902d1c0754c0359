"""`lasslab train`: every network of the course through one loop."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer


def train(
    objective: Annotated[
        str, typer.Argument(help="What to train: masking, clap, vae, vocoder, flow, diffusion, edit or audit.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the training.")],
    preset: Annotated[str, typer.Option(help="quick, lab, ...; a wrong one lists them.")] = "quick",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the training in the folder.")] = False,
) -> None:
    """Train a network; Ctrl-C stops after the step in progress, --resume goes on."""
    from lasslab.training.recipes import PRESETS, check_objective, recipe_class, train_recipe
    from lasslab.training.runs import change_recipe, read_recipe

    if objective not in PRESETS:
        raise ValueError(f"unknown objective {objective!r}: choose one of {', '.join(PRESETS)}")
    if preset not in PRESETS[objective]:
        raise ValueError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS[objective])}")
    recipe = read_recipe(output, recipe_class(objective)) if resume else PRESETS[objective][preset]
    recipe = change_recipe(recipe, settings or [])
    check_objective(recipe, objective, output)
    with _corpus_warnings():
        result = train_recipe(recipe, output, resume=resume)
    validated = result.best is not None
    best = f"best {result.best:.2f} at step {result.best_step}" if validated else "not validated"
    weights = output / ("best" if validated else "last")
    typer.echo(f"{output}: step {result.step}, {result.seconds:.0f} s, {best}; the weights are in {weights}")
    if result.stopped:
        raise typer.Exit(130)


@contextlib.contextmanager
def _corpus_warnings() -> Iterator[None]:
    """Each warning of a corpus once and as a line of the command, without a line of source."""
    from lasslab.training.sounds import CorpusWarning

    with warnings.catch_warnings():
        warnings.simplefilter("once", CorpusWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
            if issubclass(category, CorpusWarning):
                typer.echo(f"lasslab: {message}", err=True)
            else:
                usual(message, category, *where, **more)

        warnings.showwarning = show
        yield
