"""Ship a trained mask network: half-precision weights, and a model card whose every figure comes from a file.

    python -m lasslab.training.card RUN [--part last] [--share 0.8] -o data/checkpoints/NAME
    python -m lasslab.training.card RUN ... --report REPORT.json [--wording WORDING.json] -o data/checkpoints/NAME

RUN is a folder that `lasslab train masking` wrote. The first command writes the weights; REPORT.json is what
`lasslab evaluate separation --json` then wrote about them, WORDING.json what `lasslab evaluate wording --json` did, and
the second command writes the card as well. With a share below 1 the weights lie between those that RUN started from and
those that it reached.
"""

import sys
from pathlib import Path
from typing import Any

from lasslab.evaluation import tables
from lasslab.models.checkpoints import blend_weights, load_weights, read_config, save_network
from lasslab.models.mask_networks import MASK_NETWORKS
from lasslab.signal.files import write_text
from lasslab.systems.separation import load_separator
from lasslab.training.card_parts import (
    CARD_FILE,
    card_parser,
    data_section,
    exit_code,
    ship_command,
    trained_config,
    training_section,
)
from lasslab.training.lineage import read_record
from lasslab.training.masking import MASKING_PRESETS


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
    config = trained_config(run, part)
    network = load_separator(run / part, device="cpu").network
    if share != 1:
        start = read_config(run / part)["recipe"].get("start_from")  # with its folder, which does not ship
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
    share = [f"--share {config['provenance']['share']:g}"] if config.get("provenance", {}).get("share") else []
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
        *data_section(config),
        "## Training",
        "",
        *training_section(
            config, kind_of=lambda recipe: ("masking", MASKING_PRESETS), ship=ship_command("card", name, config, share)
        ),
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


def main(arguments: list[str] | None = None) -> int:
    """`python -m lasslab.training.card`."""
    parser = card_parser("Ship a trained checkpoint with its model card.")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--wording", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    options = parser.parse_args(arguments)

    def ship() -> None:
        report, wording = (None if path is None else read_record(path) for path in (options.report, options.wording))
        settings = {"part": options.part, "share": options.share}
        publish(options.run, options.output, report=report, wording=wording, **settings)

    return exit_code(ship)


if __name__ == "__main__":
    sys.exit(main())
