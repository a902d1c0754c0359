"""What the cards of the shipped checkpoints share: data and licences, how the weights were trained, commands.

Every figure in a card comes from a file that a training or an evaluation wrote.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lasslab.models.checkpoints import read_config
from lasslab.training.lineage import reached, read_record, stages_of, started_from
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


def corpus_notes(recipe: dict[str, Any]) -> list[str]:
    """What is owed to each corpus of a recipe, as lines of Markdown."""
    return [
        f"- {CORPUS_NOTES.get(corpus, f'`{Path(corpus).name}`, under its own terms; nothing of it was held out.')}"
        for corpus in recipe["corpus"].split("+")
    ]


def part_of(stage: dict[str, Any]) -> str:
    """Which weights of a training went on, "best" or "last"."""
    return stage.get("provenance", {}).get("part", "best")


def data_section(config: dict[str, Any]) -> list[str]:
    """Corpora, folds and licences, and what validation was for, as lines of Markdown.

    Args:
        config: `config.json` of the checkpoint.

    Returns:
        Lines, with the heading.
    """
    recipe = config["recipe"]
    folds, held_out = (", ".join(map(str, recipe[key])) for key in ("folds", "validation_folds"))
    chosen = any(part_of(stage) == "best" for stage in stages_of(config))
    purpose = " and for choosing the best step" if chosen else ", by which no step was chosen"
    split = (
        f"ESC-50 folds {folds} for training, fold {held_out} for validation{purpose}: the folds share no recording."
        if "esc50" in recipe["corpus"].split("+")
        else f"Synthesised clips of another seed for validation{purpose}."
    )
    return [
        "## Data and licences",
        "",
        *corpus_notes(recipe),
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
    for stage in stages_of(config):
        _forget_the_machine(stage["recipe"])
    return config


def _forget_the_machine(recipe: dict[str, Any]) -> None:
    """Where a training's folder lay on the machine that trained says nothing elsewhere: its name and part do."""
    folder = Path(recipe.get("start_from") or "")
    if folder.is_absolute():
        recipe["start_from"] = "/".join(folder.parts[-2:])


def ship_command(module: str, name: str, config: dict[str, Any], options: Iterable[str] = ()) -> str:
    """The command that ships a checkpoint from its last training, whose folder is that of `training_section`.

    Args:
        module: of `lasslab.training`, whose command line has `card_parser`'s arguments.
        name: of the checkpoint.
        config: its `config.json`.
        options: what else it was told.

    Returns:
        One line.
    """
    run = f"runs/part_{len(stages_of(config))} --part {part_of(config)}"
    return " ".join([f"python -m lasslab.training.{module} {run}", *options, f"-o data/checkpoints/{name}"])


def training_section(
    config: dict[str, Any], *, kind_of: Callable[[dict[str, Any]], tuple[str, Mapping[str, Any]]], ship: str = ""
) -> list[str]:
    """The commands, one after the other, and what each training was, as lines of Markdown.

    Args:
        config: `config.json` of the checkpoint: `recipe`, `provenance` and, after a first training, `started_from`.
        kind_of: recipe of a stage -> what `lasslab train` is asked for, and its recipes by name.
        ship: see `ship_command`; "" leaves it out.

    Returns:
        Lines, without a heading.
    """
    stages = stages_of(config)
    commands, rows = [], ["| | commit | device | torch | seed | steps | time |", "|---|---|---|---|---:|---:|---:|"]
    for number, stage in enumerate(stages, start=1):
        recipe, made = stage["recipe"], stage.get("provenance", {})
        before = f"runs/part_{number - 1}/{part_of(stages[number - 2])}" if number > 1 else ""
        start = before or recipe.get("start_from", "")
        objective, presets = kind_of(recipe)
        commands.append(
            command(recipe | {"start_from": start}, f"runs/part_{number}", objective=objective, presets=presets)
        )
        at = f"{made['at_step']} of " if "at_step" in made else "at most "
        steps = f"{at}{recipe['n_steps']}, {recipe['batch_size']} items each"
        cells = (made.get(key, "not recorded") for key in ("commit", "device", "torch"))
        minutes = f"{made['minutes']} min" if "minutes" in made else "not recorded"
        rows.append("| " + " | ".join([str(number), *cells, str(recipe["seed"]), steps, minutes]) + " |")
    words = f"The weights are the moving average {_when(config)}."
    if share := config.get("provenance", {}).get("share"):
        words = (
            f"The weights are {share:g} times the moving average {_when(config)}, plus {1 - share:g} times the weights"
            " that the last training started from: it teaches silence for what is not there and costs some separation,"
            " and a point between the two keeps most of both (Wortsman et al., CVPR 2022)."
        )
    if ship:
        commands.append(ship)
        words += " The last command writes them and `config.json`."
    return ["```", *commands, "```", "", *rows, "", words]


def _when(stage: dict[str, Any]) -> str:
    """At which step of a training its weights were taken, and why there."""
    made = stage.get("provenance", {})
    if "at_step" not in made:
        return "at the last number of steps"
    why = "the best of those validated" if part_of(stage) == "best" else "where it ended"
    return f"at step {made['at_step']} of the last row, {why}"


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
