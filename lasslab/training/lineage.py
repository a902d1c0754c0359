"""What a training started from and how far it came: the history that a checkpoint carries with it.

It is written when a training begins. Later the checkpoint that it started from may be another one of the same name, the
training's own result perhaps.
"""

import json
from pathlib import Path
from typing import Any

from lasslab.models.checkpoints import find_checkpoint, read_config


def started_from(name_or_dir: str) -> dict[str, Any]:
    """Recipe and provenance of the checkpoint that a training started with, and of the one before it, if any."""
    folder = find_checkpoint(name_or_dir)
    config = read_config(folder)
    if (folder.parent / "run.json").is_file():  # a part of a training folder
        config["provenance"] = config.get("provenance", {}) | reached(
            read_record(folder.parent / "run.json"), folder.name
        )
    return {key: config[key] for key in ("recipe", "provenance", "started_from") if key in config}


def stages_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The trainings behind a checkpoint, the first one first: each has its `recipe` and, if recorded, `provenance`."""
    stages = [config]
    while before := stages[0].get("started_from"):
        stages.insert(0, before)
    return stages


def reached(training: dict[str, Any], part: str) -> dict[str, Any]:
    """How far a training came, for the provenance of its part "best" or "last"."""
    at = training["best_step"] if part == "best" else training["step"]
    return {"at_step": at, "part": part, "minutes": round(training["seconds"] / 60)}


def read_record(path: Path) -> dict[str, Any]:
    """What a JSON file of a training or an evaluation says.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}): give the folder of a finished training"
        ) from error
