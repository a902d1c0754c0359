"""Ship a trained mask network: half-precision weights, and a model card whose every figure comes from a file.

    python -m lasslab.training.card RUN [--part last] [--share 0.8] -o data/checkpoints/NAME
    python -m lasslab.training.card RUN ... --report REPORT.json [--wording WORDING.json] -o data/checkpoints/NAME

RUN is a folder that `lasslab train masking` wrote. The first command writes the weights; REPORT.json is what
`lasslab evaluate separation --json` then wrote about them, WORDING.json what `lasslab evaluate wording --json` did, and
the second command writes the card as well. With a share below 1 the weights lie between those that RUN started from and
those that it reached.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lasslab.evaluation import tables
from lasslab.models.checkpoints import blend_weights, find_checkpoint, load_weights, read_config, save_network
from lasslab.models.mask_networks import MASK_NETWORKS
from lasslab.signal.files import write_text
from lasslab.systems.separation import load_separator
from lasslab.training.masking import MASKING_PRESETS

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


def publish(
    run: str | Path,
    destination: str | Path,
    *,
    report: dict[str, Any] | None = None,
    wording: dict[str, Any] | None = None,
    part: str = "best",
    share: float = 1.0,
) -> Path:
    """Write a checkpoint folder with float16 weights and, where there is a report, its card.

    Args:
        run: training folder, with `run.json`, `recipe.json`, `best/` and `last/`.
        destination: checkpoint folder to write; its name is the model's.
        report: JSON of `evaluate` for this checkpoint, or None.
        wording: JSON of its wording report, or None.
        part: "best" or "last".
        share: of what the training reached against what it started from, see `blend_weights`.

    Returns:
        The destination.

    Raises:
        ValueError: when a file of the run is missing or does not fit, or a share asks for a start that there is not.
    """
    run, destination = Path(run), Path(destination)
    config = read_config(run / part)
    config["provenance"] = config.get("provenance", {}) | _reached(_read_json(run / "run.json"), part)
    network = load_separator(run / part, device="cpu").network
    if start := config["recipe"].get("start_from"):
        config["started_from"] = started_from(start)
    if share != 1:
        if not start:
            raise ValueError(
                f"{run} started from random weights: a share of {share} needs a training that continued one"
            )
        config["provenance"]["share"] = share
        blend_weights(network, load_separator(start, device="cpu").network, 1 - share)
    save_network(destination, network, config, float16=True)
    load_weights(network, destination)  # what was written can be read back
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    if report is not None:
        card = model_card(destination.name, config, report, wording, n_parameters=n_parameters)
        write_text(destination / CARD_FILE, card)
    return destination


def started_from(name_or_dir: str) -> dict[str, Any]:
    """Recipe and provenance of the checkpoint that a training started with, and of the one before it, if any."""
    folder = find_checkpoint(name_or_dir)
    config = read_config(folder)
    if (folder.parent / "run.json").is_file():  # a part of a training folder
        config["provenance"] = config.get("provenance", {}) | _reached(
            _read_json(folder.parent / "run.json"), folder.name
        )
    return {key: config[key] for key in ("recipe", "provenance", "started_from") if key in config}


def _reached(training: dict[str, Any], part: str) -> dict[str, Any]:
    at = training["best_step"] if part == "best" else training["step"]
    return {"at_step": at, "part": part, "minutes": round(training["seconds"] / 60)}


def model_card(
    name: str,
    config: dict[str, Any],
    report: dict[str, Any],
    wording: dict[str, Any] | None = None,
    *,
    n_parameters: int,
) -> str:
    """Write the card.

    Args:
        name: of the checkpoint.
        config: its `config.json`, with `recipe`, `provenance` and, after a first training, `started_from`.
        report: JSON of `evaluate`.
        wording: JSON of its wording report, or None.
        n_parameters: of the network.

    Returns:
        Markdown.
    """
    recipe, scored = config["recipe"], report["provenance"]
    corpora = recipe["corpus"].split("+")
    folds = ", ".join(map(str, recipe["folds"]))
    held_out = ", ".join(map(str, recipe["validation_folds"]))
    real = (
        f"ESC-50 folds {folds} for training, fold {held_out} for validation and for choosing the best step: the folds"
        " share no recording."
        if "esc50" in corpora
        else "Validated on synthesised clips of another seed."
    )
    title = MASK_NETWORKS[config.get("architecture", "resunetpp")].title
    lines = [
        f"# {name}",
        "",
        f"A {title} ({n_parameters / 1e6:.2f} M parameters, {recipe['size']} size) that masks a 16 kHz mixture's"
        f" spectrogram as a sentence asks. Text encoder: {config['text_encoder']}. Weights are float16.",
        "",
        "```python",
        "from lasslab import load_separator",
        f'estimate = load_separator("{name}")(mixture, "a dog barking", sample_rate=16_000)',
        "```",
        "",
        "## Data and licences",
        "",
        *(f"- {CORPUS_NOTES[corpus]}" for corpus in corpora),
        f"- {real}",
        "- No recording is in the weights' folder. The weights are offered under the project's licence; where they were"
        " trained on recordings, attribution is owed to the corpus.",
        "",
        "## Training",
        "",
        *_training(config),
        "",
        "Every setting is in `config.json`, under `recipe`"
        + (" (and of what it started from, under `started_from`)." if "started_from" in config else "."),
        "",
        "## Results",
        "",
        f"{report['n']} pairs of `{scored['pair_list']}`, mixed at {scored['snr_db']:g} dB SNR, means in dB"
        f" (`lasslab evaluate separation`, commit {scored['commit']}):",
        "",
        tables.scores([report | {"system": "this model"}]).markdown(),
        "",
        "Half the mixture scores SDRi 3.01 dB and SI-SDR 0 at 0 dB: that, not zero, is where separation begins. The"
        " model was trained on other recordings of the same classes; systems in the literature are zero-shot on this"
        " test and are not comparable.",
        "",
        *_wording(wording),
        "## Limits",
        "",
        "16 kHz inside: what lies above 8 kHz is lost. It knows the classes it was trained on; other words are answered"
        " with whatever lies nearest. A sound that is not there is not always answered with silence.",
        "",
    ]
    return "\n".join(lines)


def _training(config: dict[str, Any]) -> list[str]:
    """The commands, one after the other, and what each training was."""
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
        commands.append(_command(recipe | {"start_from": start}, f"runs/part_{number}"))
        at = f"{made['at_step']} of " if "at_step" in made else "at most "
        steps = f"{at}{recipe['n_steps']}, {recipe['batch_size']} mixtures each"
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


def _command(recipe: dict[str, Any], folder: str) -> str:
    """The shortest `lasslab train` that gives the recipe: from the preset that it differs least from."""
    presets = {name: json.loads(json.dumps(asdict(preset))) for name, preset in MASKING_PRESETS.items()}
    differences = {
        name: [key for key, value in recipe.items() if preset.get(key) != value] for name, preset in presets.items()
    }
    name = min(differences, key=lambda preset: len(differences[preset]))
    changed = []
    for key in differences[name]:
        value = recipe[key]
        changed.append(f"--set {key}={','.join(map(str, value)) if isinstance(value, list) else value}")
    return " ".join([f"lasslab train masking --preset {name}", *changed, "-o", folder])


def _wording(report: dict[str, Any] | None) -> list[str]:
    if report is None:
        return []
    return [
        "Other words than those of training, and sounds that are not there (`lasslab evaluate wording`):",
        "",
        tables.wording([report | {"system": "this model"}]).markdown(),
        "",
        tables.wording_note(report),
        "",
    ]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}): give the folder of a finished training"
        ) from error


def main(arguments: list[str] | None = None) -> int:
    """`python -m lasslab.training.card`."""
    parser = argparse.ArgumentParser(description="Ship a trained checkpoint with its model card.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--wording", type=Path)
    parser.add_argument("--part", choices=("best", "last"), default="best")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        report, wording = (None if path is None else _read_json(path) for path in (options.report, options.wording))
        settings = {"part": options.part, "share": options.share}
        publish(options.run, options.output, report=report, wording=wording, **settings)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
