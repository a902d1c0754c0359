"""Recipes as text and as files: settings from the command line, and the record that a training folder keeps.

A recipe is a frozen dataclass that holds everything that decides a run, with `fit_config()` for the part that `fit`
reads.
"""

import difflib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from lasslab.signal.files import write_json
from lasslab.training.fit import STATE_FILE

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
        values = json.loads(path.read_text(encoding="utf-8"))
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a {kind.__name__} ({error}): start anew in another folder") from error


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
