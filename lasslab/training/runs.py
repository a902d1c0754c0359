"""Recipes as text and as files: settings from the command line, and the record that a training folder keeps.

A recipe is a frozen dataclass that holds everything that decides a run, with `fit_config()` for the part that `fit`
reads. `fit_recipe` runs it.
"""

import difflib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.data import Dataset

from lasslab.evaluation.provenance import device_name, git_commit
from lasslab.models.checkpoints import CONFIG_FILE, find_checkpoint, load_weights, read_config, save_network
from lasslab.signal.files import write_json
from lasslab.training.fit import STATE_FILE, Adversary, FitResult, Save, fit
from lasslab.training.lineage import started_from
from lasslab.training.objectives import Objective

RECIPE_FILE = "recipe.json"

#: settings that may change between the parts of one training: they do not touch its numbers
FREE_SETTINGS = {"n_workers", "log_every", "validate_every", "save_every", "picture_every", "device"}

Recipe = TypeVar("Recipe")


def change_recipe(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Change settings of a recipe by `key=value` strings, read by the type of the value they replace.

    Args:
        recipe: left as it is.
        settings: strings like "n_steps=100".

    Returns:
        A new recipe.

    Raises:
        ValueError: when a key is unknown, a value does not read as its type, or the recipe refuses it.
    """
    changes = {}
    for text in settings:
        key, separator, value = text.partition("=")
        key = key.strip()
        known = asdict(recipe)
        if not separator or key not in known:
            close = difflib.get_close_matches(key, known, n=3) or list(known)
            raise ValueError(f"--set {text!r}: expected KEY=VALUE with a key such as {', '.join(close)}")
        changes[key] = _read_value(key, value.strip(), known[key])
    return replace(recipe, **changes)


def _read_value(key: str, text: str, default: object) -> object:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(int(part) for part in text.strip("()[]").split(",") if part.strip())
        return type(default)(text)
    except (KeyError, ValueError) as error:
        wanted = "numbers like 1,2,3" if isinstance(default, tuple) else f"a value like {default!r}"
        raise ValueError(f"--set {key}={text}: expected {wanted}") from error


def read_recipe(directory: str | Path, kind: type[Recipe]) -> Recipe:
    """Read the recipe of a training folder.

    A setting that the file does not have is of a time before it existed, and has its default.

    Args:
        directory: folder of the training.
        kind: class of the recipe.

    Returns:
        The recipe.

    Raises:
        ValueError: when the folder holds no training of this kind.
    """
    path = Path(directory) / RECIPE_FILE
    if not path.is_file():
        raise ValueError(f"nothing to resume: {path} is missing; start without --resume")
    try:
        return recipe_from(json.loads(path.read_text(encoding="utf-8")), kind)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a {kind.__name__} ({error}): start anew in another folder") from error


def recipe_from(values: dict[str, Any], kind: type[Recipe]) -> Recipe:
    """A recipe from the plain values of a JSON file, which knows lists only."""
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def check_folder(recipe: Any, directory: str | Path, *, resume: bool) -> None:
    """A resumed training has its own recipe where it matters; a new one has an unused folder.

    Args:
        recipe: of the training about to start.
        directory: its folder.
        resume: whether it continues what is there.

    Raises:
        ValueError: another recipe, nothing to resume, or a folder in use.
    """
    directory = Path(directory)
    if resume:
        values, before = asdict(recipe), asdict(read_recipe(directory, type(recipe)))
        changed = [key for key in values if key not in FREE_SETTINGS and values[key] != before[key]]
        if changed:
            was = ", ".join(f"{key}={before[key]!r}" for key in changed)
            raise ValueError(f"{directory} was trained with {was}: resume with the same settings")
    elif (directory / STATE_FILE).exists():  # a recipe alone is of a run that never got as far as a checkpoint
        raise ValueError(f"{directory} holds a training already: resume it (--resume), or choose another folder")


def write_recipe(recipe: Any, directory: str | Path) -> None:
    """Make the folder and write the recipe into it."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    write_json(Path(directory) / RECIPE_FILE, asdict(recipe))


def start_weights(network: nn.Module, recipe: Any, *, resume: bool) -> None:
    """Load the weights that a recipe starts from, if any; a resumed run has its own.

    Args:
        network: changed in place.
        recipe: its `start_from` is a checkpoint, by name or folder, or "".
        resume: whether the run continues what is there.

    Raises:
        ValueError: there is no such checkpoint, or it does not fit.
    """
    if recipe.start_from and not resume:
        load_weights(network, find_checkpoint(recipe.start_from))


def fit_recipe(
    recipe: Any,
    network: nn.Module,
    objective: Objective,
    dataset: Dataset,
    *,
    directory: str | Path,
    validation: Sequence[dict],
    about: dict[str, Any],
    adversary: Adversary | None = None,
    save: Save = save_network,
    resume: bool,
    progress: bool,
) -> FitResult:
    """Write the recipe and train: the last step of every `train_...`, when everything it needs is there.

    Args:
        recipe: everything that decides the run.
        network: trained in place.
        objective: what it is trained for.
        dataset: items to train on.
        directory: folder of the training.
        validation: batches that never change.
        about: what the loader of the checkpoint reads; recipe and provenance are added.
        adversary: of an adversarial objective.
        save: writes the checkpoints.
        resume: continue the training in the folder.
        progress: show a bar.

    Returns:
        What was reached.
    """
    history = _history(recipe, Path(directory), resume=resume)
    write_recipe(recipe, directory)
    made = {
        "commit": git_commit(),
        "torch": torch.__version__,
        "device": device_name(None if recipe.device == "auto" else recipe.device),
    }
    return fit(
        network,
        objective,
        dataset,
        directory=directory,
        config=recipe.fit_config(),
        validation=validation,
        checkpoint_config=about | history | {"recipe": asdict(recipe), "provenance": made},
        adversary=adversary,
        save=save,
        resume=resume,
        progress=progress,
    )


def _history(recipe: Any, directory: Path, *, resume: bool) -> dict[str, Any]:
    """What the weights come from, as `config.json` holds it: of a run that goes on, as it was when that began."""
    if not getattr(recipe, "start_from", ""):
        return {}
    last = directory / "last"
    if resume and (last / CONFIG_FILE).is_file() and "started_from" in (before := read_config(last)):
        return {"started_from": before["started_from"]}
    return {"started_from": started_from(recipe.start_from)}
