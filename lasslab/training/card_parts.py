"""What the cards of the shipped checkpoints share: data and licences, how the weights were trained, commands.

Every figure in a card comes from a file that a training or an evaluation wrote.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lasslab.models.checkpoints import read_config
from lasslab.training.lineage import reached, read_record, started_from
from lasslab.training.runs import recipe_from

CARD_FILE = "README.md"

#: what a network trained on a corpus owes to it
CORPUS_NOTES = {
    "synthesis": "Synthesised sound events (`lasslab.data.synthesis`), made by this project: no recording in them.",
    "esc50": (
        "ESC-50 (K. J. Piczak, ACM Multimedia 2015), of which training read the clips present under the data root."
        " The ESC-10 subset is CC BY 3.0, the rest of the dataset CC BY-NC 3.0; the clips are by freesound.org"
        " contributors."
    ),
}


def data_section(recipe: dict[str, Any]) -> list[str]:
    """Corpora, folds and licences, as lines of Markdown."""
    corpora = recipe["corpus"].split("+")
    folds, held_out = (", ".join(map(str, recipe[key])) for key in ("folds", "validation_folds"))
    split = (
        f"ESC-50 folds {folds} for training, fold {held_out} for validation and for choosing the best step: the folds"
        " share no recording."
        if "esc50" in corpora
        else "Validated on synthesised clips of another seed."
    )
    return [
        "## Data and licences",
        "",
        *(f"- {CORPUS_NOTES[corpus]}" for corpus in corpora),
        f"- {split}",
        "- No recording is in the weights' folder. The weights are offered under the project's licence; where they were"
        " trained on recordings, attribution is owed to the corpus.",
        "",
    ]


def gate_section(config: dict[str, Any], *, paper: str) -> list[str]:
    """What a card says of a network that has a gate, as lines; nothing of one that has none.

    Args:
        config: of the checkpoint.
        paper: that has no gate.
    """
    if not config["network"].get("copies"):
        return []
    told = config.get("recipe", {}).get("gate_weight")
    return [
        f"Its network has what that of {paper} has not: a gate, one more output, which says point by point how much of"
        " the latent that it is told is handed on as it is (`--set copies=true`, see"
        " `lasslab.models.velocity.VelocityNetwork`)."
        + (f" Training told it where to open (`--set gate_weight={told:g}`)." if told else ""),
        "",
    ]


def trained_config(run: Path, part: str) -> dict[str, Any]:
    """`config.json` of a training's part, with how far that came and what the training started from.

    Args:
        run: training folder.
        part: "best" or "last".

    Returns:
        What the checkpoint's own configuration will be.

    Raises:
        ValueError: a file of the run is missing or does not fit.
    """
    config = read_config(run / part)
    config["provenance"] = config.get("provenance", {}) | reached(read_record(run / "run.json"), part)
    start = config["recipe"].get("start_from")
    if start and "started_from" not in config:  # of a run before it was recorded
        config["started_from"] = started_from(start)
    stage: dict[str, Any] = config
    while stage:
        _forget_the_machine(stage["recipe"])
        stage = stage.get("started_from", {})
    return config


def _forget_the_machine(recipe: dict[str, Any]) -> None:
    """Where a training's folder lay on the machine that trained says nothing elsewhere: its name and part do."""
    folder = Path(recipe.get("start_from") or "")
    if folder.is_absolute():
        recipe["start_from"] = "/".join(folder.parts[-2:])


def training_section(
    config: dict[str, Any], *, kind_of: Callable[[dict[str, Any]], tuple[str, Mapping[str, Any]]]
) -> list[str]:
    """The commands, one after the other, and what each training was, as lines of Markdown.

    Args:
        config: `config.json` of the checkpoint: `recipe`, `provenance` and, after a first training, `started_from`.
        kind_of: recipe of a stage -> what `lasslab train` is asked for, and its recipes by name.

    Returns:
        Lines, without a heading.
    """
    stages = []
    stage: dict[str, Any] | None = config
    while stage:
        stages.insert(0, stage)
        stage = stage.get("started_from")
    commands, rows = [], ["| | commit | device | torch | seed | steps | time |", "|---|---|---|---|---:|---:|---:|"]
    for number, stage in enumerate(stages, start=1):
        recipe, made = stage["recipe"], stage.get("provenance", {})
        before = stages[number - 2].get("provenance", {}).get("part", "best") if number > 1 else ""
        start = f"runs/part_{number - 1}/{before}" if number > 1 else recipe.get("start_from", "")
        objective, presets = kind_of(recipe)
        commands.append(
            command(recipe | {"start_from": start}, f"runs/part_{number}", objective=objective, presets=presets)
        )
        at = f"{made['at_step']} of " if "at_step" in made else "at most "
        steps = f"{at}{recipe['n_steps']}, {recipe['batch_size']} items each"
        cells = (made.get(key, "not recorded") for key in ("commit", "device", "torch"))
        minutes = f"{made['minutes']} min" if "minutes" in made else "not recorded"
        rows.append("| " + " | ".join([str(number), *cells, str(recipe["seed"]), steps, minutes]) + " |")
    words = ["The weights are the moving average at the last number of steps."]
    if share := config["provenance"].get("share") if "provenance" in config else None:
        words = [
            f"The weights are {share:g} times the moving average at the last number of steps plus {1 - share:g} times"
            " the weights that the last training started from: it teaches silence for what is not there and costs some"
            " separation, and a point between the two keeps most of both (Wortsman et al., CVPR 2022)."
        ]
    return ["```", *commands, "```", "", *rows, "", *words]


def command(recipe: dict[str, Any], folder: str, *, objective: str, presets: Mapping[str, Any]) -> str:
    """The shortest `lasslab train` that gives the recipe: from the preset of its size that it differs least from.

    A setting that the recipe does not have is of a time before it existed, and has its default.
    """
    kind = type(next(iter(presets.values())))
    plain = {name: json.loads(json.dumps(asdict(preset))) for name, preset in presets.items()}
    recipe = json.loads(json.dumps(asdict(recipe_from(recipe, kind))))
    differences = {
        name: [key for key, value in recipe.items() if preset.get(key) != value] for name, preset in plain.items()
    }
    name = min(differences, key=lambda preset: ("size" in differences[preset], len(differences[preset])))
    changed = []
    for key in differences[name]:
        value = recipe[key]
        changed.append(f"--set {key}={','.join(map(str, value)) if isinstance(value, list) else value}")
    return " ".join([f"lasslab train {objective} --preset {name}", *changed, "-o", folder])


def card_parser(description: str, *, part: str = "best") -> argparse.ArgumentParser:
    """The command line of a card: the run, which part of it ships, and where to."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run", type=Path)
    parser.add_argument("--part", choices=("best", "last"), default=part)
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser


def exit_code(publish: Callable[[], object]) -> int:
    """0, or 2 and one line on standard error where publishing is refused."""
    try:
        publish()
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0
