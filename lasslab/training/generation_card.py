"""Ship a trained velocity network: half-precision weights, and a card whose every figure comes from a report.

    python -m lasslab.training.generation_card RUN --vae mel-vae-lab --vocoder bigvgan-lab -o data/checkpoints/NAME
    python -m lasslab.training.generation_card RUN ... --report REPORT.json -o data/checkpoints/NAME

RUN is a folder that `lasslab train flow` or `lasslab train diffusion` wrote. The first command writes the weights;
REPORT.json is what `lasslab evaluate separation --json` then wrote about them, and the second command writes the card.
"""

import shutil
import sys
from argparse import BooleanOptionalAction
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lasslab.evaluation import embedding_tables
from lasslab.models.checkpoints import (
    CONFIG_FILE,
    build_config,
    find_checkpoint,
    load_weights,
    save_network,
    weights_sha256,
)
from lasslab.models.lora import ADAPTER_FOLDER
from lasslab.models.vae import load_vae
from lasslab.models.velocity import VelocityConfig, VelocityNetwork
from lasslab.signal.files import write_text
from lasslab.systems.editing import EDITOR_FIELDS
from lasslab.systems.generative import FIELDS
from lasslab.training.card_parts import (
    CARD_FILE,
    card_parser,
    data_section,
    exit_code,
    gate_section,
    ship_command,
    trained_config,
    training_section,
)
from lasslab.training.generation import DIFFUSION_PRESETS, FLOW_PRESETS, GenerationRecipe
from lasslab.training.lineage import read_record

PRESETS = {"flow": FLOW_PRESETS, "diffusion": DIFFUSION_PRESETS}
TITLES = {
    "flow": "A velocity network of a rectified flow in the latent space of a mel VAE (FlowSep)",
    "diffusion": "A noise-predicting network of a diffusion in the latent space of a mel VAE (DiffusionSep, FlowSep's"
    " baseline)",
}


#: of a checkpoint, in place of what the training wrote: names of VAE and vocoder as they ship, and what the system
#: samples with unless told otherwise: its option of the command line and how that is read
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("--vae", {}),
    "vocoder": ("--vocoder", {}),
    "n_steps": ("--steps", {"type": int}),
    "guidance_scale": ("--guidance", {"type": float}),
    "window_seconds": ("--window", {"type": float}),
    "t_start": ("--t-start", {"type": float}),
    "keep_db": ("--keep-db", {"type": float}),
    "in_turn": ("--in-turn", {"action": BooleanOptionalAction}),
}
KEEPS = " Where what it makes differs by less than {:g} dB, the mixture itself is handed on (`keep_db`)."
#: (name, configuration, report, number of parameters) -> Markdown
Card = Callable[[str, dict[str, Any], dict[str, Any], int], str]


def publish(
    run: str | Path,
    destination: str | Path,
    *,
    part: str = "best",
    report: dict[str, Any] | None = None,
    card: Card | None = None,
    **settings: Any,
) -> Path:
    """Write a checkpoint folder with float16 weights and, where there is a report, its card.

    Args:
        run: training folder, with `run.json`, `best/` and `last/`.
        destination: checkpoint folder to write; its name is the model's.
        part: "best" or "last".
        report: JSON of an evaluation of this checkpoint, or None.
        card: writes the card; `generation_card` when left out.
        **settings: of `OPTIONS`; None leaves one as it is.

    Returns:
        The destination.

    Raises:
        ValueError: when a file of the run is missing or does not fit.
    """
    run, destination = Path(run), Path(destination)
    config, n_parameters = publish_network(run, destination, part=part, **settings)
    if report is not None:
        text = (card or generation_card)(destination.name, config, report, n_parameters)
        write_text(destination / CARD_FILE, text)
    return destination


def publish_network(run: Path, destination: Path, *, part: str, **settings: Any) -> tuple[dict[str, Any], int]:
    """Write the weights of a velocity network in half precision, with its configuration and, if any, its adapter.

    Args:
        run, destination, part: see `publish`.
        **settings: fields of the configuration to replace; None leaves one as it is.

    Returns:
        The configuration written, and how many parameters the network has.

    Raises:
        ValueError: when a file of the run is missing or does not fit.
    """
    config = trained_config(run, part)
    config |= {name: value for name, value in settings.items() if value is not None}
    known = FIELDS.get(config["system"], EDITOR_FIELDS)
    if foreign := sorted(config.keys() - known):
        raise ValueError(f"{run} holds a {config['system']}, which knows no {foreign[0]}: leave it out")
    for name in {config[name] for name in ("vae", "vocoder") if name in config}:
        if "/" not in name:
            find_checkpoint(name)  # it must be there where the system is loaded
    config["vae_sha256"] = weights_sha256(load_vae(config["vae"]))
    path = run / part / CONFIG_FILE
    network = VelocityNetwork(build_config(VelocityConfig, config["network"], path=path))
    load_weights(network, run / part)
    save_network(destination, network, config, float16=True)
    load_weights(network, destination)  # what was written can be read back
    if config.get("adapter"):
        adapter = run / part / ADAPTER_FOLDER
        if not adapter.is_dir():
            raise ValueError(f"{adapter} is missing: give the folder of a finished training")
        shutil.copytree(adapter, destination / ADAPTER_FOLDER, dirs_exist_ok=True)
    return config, sum(parameter.numel() for parameter in network.parameters())


def read_report(path: Path, system: str) -> dict[str, Any]:
    """The report of one system, from a file of one or of several.

    Raises:
        ValueError: it cannot be read, or the system is not in it.
    """
    found = read_record(path)
    reports = found.get("reports", [found])
    for report in reports:
        if report.get("system") == system:
            return report
    names = ", ".join(str(report.get("system")) for report in reports)
    raise ValueError(f"{path} is of {names}, not of {system}: evaluate the checkpoint under its own name")


def generation_card(name: str, config: dict[str, Any], report: dict[str, Any], n_parameters: int) -> str:
    """Write the card.

    Args:
        name: of the checkpoint.
        config: its `config.json`.
        report: JSON of `evaluate`, with its embedding scores.
        n_parameters: of the network.

    Returns:
        Markdown.
    """
    recipe, scored, process = config["recipe"], report["provenance"], config["system"]
    lines = [
        f"# {name}",
        "",
        f"{TITLES[process]}: {n_parameters / 1e6:.2f} M parameters, {recipe['size']} size. It makes the sound that a"
        f" sentence names out of noise, told the mixture; {config['n_steps']} steps"
        + (f" from t = {config['t_start']:g}" if config.get("t_start") else "")
        + f" and a guidance scale of {config['guidance_scale']:g} unless told otherwise."
        + (KEEPS.format(config["keep_db"]) if config.get("keep_db") else "")
        + " Weights are float16.",
        "",
        f"It works with the VAE `{config['vae']}`, the vocoder `{config['vocoder']}` and the text encoder"
        f" {config['text_encoder']}, which are loaded with it.",
        "",
        *gate_section(config, paper="FlowSep"),
        "```python",
        "from lasslab import load_separator",
        f'estimate = load_separator("{name}")(mixture, "a dog barking", sample_rate=16_000)',
        "```",
        "",
        *data_section(config),
        "## Training",
        "",
        *training_section(config, kind_of=kind_of, ship=ship_system("generation_card", name, config)),
        "",
        *draws_section(recipe),
        "Every setting is in `config.json`, under `recipe`"
        + (" (and of what it started from, under `started_from`)." if "started_from" in config else "."),
        "",
        "## Results",
        "",
        f"{report['n']} pairs of `{scored['pair_list']}`, mixed at {scored['snr_db']:g} dB SNR"
        f" (`lasslab evaluate separation`, commit {scored['commit']}):",
        "",
        embedding_tables.generative([report | {"system": "this model"}]).markdown(),
        "",
        "A generated sound shares no sample with its target: SDR and SI-SDR stand here to show just that. Figures in a"
        " lab embedding are no published ones.",
        "",
        "## Limits",
        "",
        "16 kHz inside: what lies above 8 kHz is lost. What it makes is its own: it may put a sound where there was"
        " none, and words for classes it was not trained on are answered with whatever lies nearest. FlowSep's own"
        " network is some forty times larger and was trained for a million steps on 1,680 hours of sound.",
        "",
    ]
    return "\n".join(lines)


def ship_system(module: str, name: str, config: dict[str, Any]) -> str:
    """`ship_command` of a system that samples, with everything that it samples with unless told otherwise.

    Args:
        module: "generation_card" or "edit_card".
        name: of the checkpoint.
        config: its `config.json`.

    Returns:
        One line.
    """
    said = []
    for key, (flag, _) in OPTIONS.items():
        value = config.get(key)
        if isinstance(value, bool):
            said.append(flag if value else f"--no-{flag.removeprefix('--')}")
        elif value is not None:
            said.append(f"{flag} {str(value).removesuffix('.0')}")
    return ship_command(module, name, config, said)


def draws_section(recipe: dict[str, Any]) -> list[str]:
    """What was drawn more often than at random in the last stage, as lines of Markdown."""
    says = []
    if share := recipe.get("focus_share"):
        says.append(f"{share:.0%} of the mixtures are of {recipe['focus'].replace('+', ', ')} among themselves")
    if share := recipe.get("hard"):
        says.append(
            f"{share:.0%} of the {'other ' if says else ''}interferences are rivals: of five drawn, the one most like"
            " the target (`lasslab.data.rivals`)"
        )
    return [f"In the last row, {'; '.join(says)}.", ""] if says else []


def kind_of(recipe: dict[str, Any]) -> tuple[str, dict[str, GenerationRecipe]]:
    """Objective and presets of a stage of separation: a diffusion may have started from a flow."""
    return recipe["process"], PRESETS[recipe["process"]]


def run_card(description: str, arguments: list[str] | None, *, card: Card) -> int:
    """The command line of the card of a system that samples.

    Args:
        description: of the command.
        arguments: of the command; those of the process when left out.
        card: writes the card.

    Returns:
        The exit code.
    """
    parser = card_parser(description)
    for name, (flag, how) in OPTIONS.items():
        parser.add_argument(flag, dest=name, **how)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args(arguments)

    def ship() -> None:
        report = None if options.report is None else read_report(options.report, options.output.name)
        given = {name: getattr(options, name) for name in OPTIONS}
        publish(options.run, options.output, part=options.part, report=report, card=card, **given)

    return exit_code(ship)


def main(arguments: list[str] | None = None) -> int:
    """`python -m lasslab.training.generation_card`."""
    description = "Ship a trained generative separator with its card."
    return run_card(description, arguments, card=generation_card)


if __name__ == "__main__":
    sys.exit(main())
