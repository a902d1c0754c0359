"""Ship a trained checkpoint: half-precision weights, and a model card whose every figure comes from a file.

    python -m lasslab.training.card RUN --report REPORT.json -o data/checkpoints/NAME

RUN is a folder that `lasslab train` wrote, REPORT.json what `lasslab evaluate separation --json` wrote about
`RUN/best`.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lasslab.models.checkpoints import load_weights, read_config, save_network
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


def publish(run: str | Path, destination: str | Path, *, report: dict[str, Any]) -> Path:
    """Write a checkpoint folder with float16 weights and its card.

    Args:
        run: training folder, with `run.json`, `recipe.json` and `best/`.
        destination: checkpoint folder to write; its name is the model's.
        report: JSON of `evaluate` for this checkpoint.

    Returns:
        The destination.

    Raises:
        ValueError: when a file of the run is missing or does not fit.
    """
    run, destination = Path(run), Path(destination)
    config = read_config(run / "best")
    training = _read_json(run / "run.json")
    network = load_separator(run / "best", device="cpu").network
    save_network(destination, network, config, float16=True)
    load_weights(network, destination)  # what was written can be read back
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    card = model_card(destination.name, config, training, report, n_parameters=n_parameters)
    write_text(destination / CARD_FILE, card)
    return destination


def model_card(
    name: str, config: dict[str, Any], training: dict[str, Any], report: dict[str, Any], *, n_parameters: int
) -> str:
    """Write the card.

    Args:
        name: of the checkpoint.
        config: its `config.json`, with `recipe` and `provenance`.
        training: `run.json` of the training.
        report: JSON of `evaluate`.
        n_parameters: of the network.

    Returns:
        Markdown.
    """
    recipe, made, scored = config["recipe"], config.get("provenance", {}), report["provenance"]
    corpora = recipe["corpus"].split("+")
    folds = ", ".join(map(str, recipe["folds"]))
    held_out = ", ".join(map(str, recipe["validation_folds"]))
    real = (
        f"ESC-50 folds {folds} for training, fold {held_out} for validation and for choosing the best step: the folds"
        " share no recording."
        if "esc50" in corpora
        else "Validated on synthesised clips of another seed."
    )
    lines = [
        f"# {name}",
        "",
        f"A cross-attention ResUNet++ ({n_parameters / 1e6:.2f} M parameters, {recipe['size']} size) that masks a"
        f" 16 kHz mixture's spectrogram as a sentence asks. Text encoder: {config['text_encoder']}. Weights are"
        " float16.",
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
        "```",
        _command(recipe),
        "```",
        "",
        "| | |",
        "|---|---|",
        f"| commit | {made.get('commit', 'not recorded')} |",
        f"| device | {made.get('device', 'not recorded')} |",
        f"| torch | {made.get('torch', 'not recorded')} |",
        f"| seed | {recipe['seed']} |",
        f"| steps | {training['step']} of {recipe['n_steps']}, batches of {recipe['batch_size']} mixtures of"
        f" {recipe['seconds']:g} s; these weights are the moving average at step {training['best_step']} |",
        f"| time | {training['seconds'] / 60:.0f} minutes |",
        "",
        "Every setting is in `config.json`, under `recipe`.",
        "",
        "## Results",
        "",
        f"{report['n']} pairs of `{scored['pair_list']}`, mixed at {scored['snr_db']:g} dB SNR, means in dB"
        f" (`lasslab evaluate separation`, commit {scored['commit']}):",
        "",
        *_table(report),
        "",
        "Half the mixture scores SDRi 3.01 dB and SI-SDR 0 at 0 dB: that, not zero, is where separation begins. The"
        " model was trained on other recordings of the same classes; systems in the literature are zero-shot on this"
        " test and are not comparable.",
        "",
        "## Limits",
        "",
        "16 kHz inside: what lies above 8 kHz is lost. It knows the classes it was trained on; other words are answered"
        " with whatever lies nearest. Asked for a sound that is not there, it does not reliably answer with silence.",
        "",
    ]
    return "\n".join(lines)


def _command(recipe: dict[str, Any]) -> str:
    preset = json.loads(json.dumps(asdict(MASKING_PRESETS["lab"])))
    changed = [
        f"--set {key}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in recipe.items()
        if preset.get(key) != value
    ]
    return " ".join(["lasslab train masking --preset lab", *changed, "-o runs/lab"])


def _table(report: dict[str, Any]) -> list[str]:
    floors = report["floors"]
    rows = [
        ("silence", floors["silence"]),
        ("mixture", floors["mixture"]),
        ("mixture x best gain", floors["constant_gain"]),
        ("**this model**", report["mean"]),
        ("oracle ratio mask", floors["oracle_mask"]),
    ]
    metrics = ("sdr", "sdri", "si_sdr", "si_sdri")
    lines = ["| | SDR | SDRi | SI-SDR | SI-SDRi |", "|---|---|---|---|---|"]
    lines += [
        f"| {label} | " + " | ".join(_cell(values[metric]) for metric in metrics) + " |" for label, values in rows
    ]
    interval = " | ".join("[{:.2f}, {:.2f}]".format(*report["interval"][metric]) for metric in metrics)
    return [*lines, f"| 95 % interval of the mean | {interval} |"]


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}): give the folder of a finished training"
        ) from error


def main() -> int:
    """`python -m lasslab.training.card`."""
    parser = argparse.ArgumentParser(description="Ship a trained checkpoint with its model card.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        publish(options.run, options.output, report=_read_json(options.report))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
