"""Ship a trained editor: half-precision weights, its adapter, and a card whose every figure comes from a report.

    python -m lasslab.training.edit_card RUN --vae mel-vae-lab --vocoder bigvgan-lab -o data/checkpoints/NAME
    python -m lasslab.training.edit_card RUN ... --report REPORT.json -o data/checkpoints/NAME

RUN is a folder that `lasslab train edit` or `lasslab train audit` wrote. The first command writes the weights;
REPORT.json is what `lasslab evaluate editing --json` then wrote about them, and the second command writes the card.
"""

import sys
from typing import Any

from lasslab.evaluation import editing_tables
from lasslab.training import generation_card
from lasslab.training.card_parts import data_section, gate_section, training_section
from lasslab.training.editing import AUDIT_PRESETS, EDIT_PRESETS, OBJECTIVES
from lasslab.training.generation_card import run_card, ship_system

PRESETS = {"edit": EDIT_PRESETS, "audit": AUDIT_PRESETS}
TITLES = {
    "edit": "A velocity network of a rectified flow that edits by instruction, in the latent space of a mel VAE"
    " (RFM-Editing), and the adapter of its text encoder",
    "audit": "A noise-predicting network of a diffusion that edits by instruction, in the latent space of a mel VAE"
    " (AUDIT, the baseline of RFM-Editing), and the adapter of its text encoder",
}


def edit_card(name: str, config: dict[str, Any], report: dict[str, Any], n_parameters: int) -> str:
    """Write the card.

    Args:
        name: of the checkpoint.
        config: its `config.json`.
        report: JSON of `evaluate_editing`.
        n_parameters: of the velocity network.

    Returns:
        Markdown.
    """
    recipe, scored = config["recipe"], report["provenance"]
    objective = OBJECTIVES[recipe["process"]]
    n_trained, n_text = config["trained_text_parameters"]
    lines = [
        f"# {name}",
        "",
        f"{TITLES[objective]}: {n_parameters / 1e6:.2f} M parameters, {recipe['size']} size. Told a recording and an"
        f' instruction ("add a dog", "remove the rain", "replace the rain with a siren"), it makes the recording with'
        f" that one change; {config['n_steps']} steps from t = {config['t_start']:g} and a guidance scale of"
        f" {config['guidance_scale']:g} unless told otherwise. Weights are float16, those of the adapter float32.",
        "",
        f"It works with the VAE `{config['vae']}`, the vocoder `{config['vocoder']}` and the text encoder"
        f" {config['text_encoder']}, which are loaded with it. Of the text encoder's {n_text:,} weights, LoRA of rank"
        f" {recipe['rank']} trained {n_trained:,} ({n_trained / n_text:.2%}).",
        "",
        *gate_section(config, paper="RFM-Editing and AUDIT"),
        *_sampling_section(config),
        "```python",
        "from lasslab import load_editor",
        f'edited = load_editor("{name}")(recording, "remove the dog barking", sample_rate=16_000)',
        "```",
        "",
        *data_section(config),
        "## Training",
        "",
        *training_section(config, kind_of=kind_of, ship=ship_system("edit_card", name, config)),
        "",
        "Every setting is in `config.json`, under `recipe`, and of what it started from under `started_from`: the"
        " network of separation and that of editing are the same, the original has the mixture's place.",
        "",
        "## Results",
        "",
        f"{report['n']} edits of `{scored.get('triplet_list', 'a list')}` (`lasslab evaluate editing`, commit"
        f" {scored['commit']}):",
        "",
        editing_tables.overall([report | {"system": "this model"}]).markdown(),
        "",
        "\n\n".join(editing_tables.by_task([report | {"system": "this model"}], markdown=True)),
        "",
        "Figures in a lab embedding are no published ones.",
        "",
        "## Limits",
        "",
        "16 kHz inside: what lies above 8 kHz is lost. "
        + (
            ""
            if config.get("keep_db")
            else "All of the recording goes through VAE and vocoder, also what the instruction does not name. "
        )
        + "Words for classes it was not trained on are answered with whatever lies nearest."
        " RFM-Editing's own network was trained on 235,000 triplets of ten seconds.",
        "",
    ]
    return "\n".join(lines)


def _sampling_section(config: dict[str, Any]) -> list[str]:
    """What a card says of the ways to sample that are ours, as lines; nothing where they are not used."""
    said = []
    if keep_db := config.get("keep_db"):
        said += [
            f"What an edit changes by less than {keep_db:g} dB is the recording itself, and not made anew, which"
            " neither RFM-Editing nor AUDIT does (`--keep-db 0` is their way, see `lasslab.systems.keeping`).",
            "",
        ]
    if config.get("in_turn"):
        said += [
            "A replacement is carried out as a removal and then, in the same number of steps altogether, as an"
            " addition; RFM-Editing and AUDIT do both at once (`--at-once` is their way, see"
            " `lasslab.systems.editing`).",
            "",
        ]
    return said


def kind_of(recipe: dict[str, Any]) -> tuple[str, Any]:
    """Objective and presets of a stage: editing, or the separation that it started from."""
    if "n_edits" in recipe:
        objective = OBJECTIVES[recipe["process"]]
        return objective, PRESETS[objective]
    return generation_card.kind_of(recipe)


def main(arguments: list[str] | None = None) -> int:
    """`python -m lasslab.training.edit_card`."""
    return run_card("Ship a trained editor with its card.", arguments, card=edit_card)


if __name__ == "__main__":
    sys.exit(main())
