"""Ship a trained audio-text embedding: half-precision weights, and a card with figures that this very run measured.

    python -m lasslab.training.clap_card RUN -o data/checkpoints/NAME

RUN is a folder that `lasslab train clap` wrote. The embedding is measured as it ships, in float16, on the clips that it
was validated on.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lasslab.data.corpora import Clip
from lasslab.evaluation.paraphrases import PARAPHRASES
from lasslab.evaluation.provenance import git_commit
from lasslab.models.checkpoints import read_config, save_network
from lasslab.models.clap import AudioTextEmbedding, load_clap
from lasslab.signal.audio import SAMPLE_RATE, fit_length
from lasslab.signal.files import write_text
from lasslab.training.card_parts import CARD_FILE, command, corpus_notes, exit_code
from lasslab.training.contrastive import CONTRASTIVE_PRESETS, ContrastiveRecipe, average_precision, validation_clips
from lasslab.training.lineage import read_record
from lasslab.training.runs import recipe_from


def measure(embedding: AudioTextEmbedding, clips: Sequence[Clip], *, seconds: float = 5.0) -> dict[str, float]:
    """Classification and retrieval among clips.

    Args:
        embedding: what to measure.
        clips: sounds of classes the embedding knows.
        seconds: length they are cut or padded to.

    Returns:
        Shares from 0 to 1. "accuracy" is over all classes of the embedding; "text_to_audio" the share of captions whose
        nearest clip is of their class, over every caption of every clip's class, "average_precision" that of their
        rankings of all clips; "audio_to_text" the share of clips whose nearest caption is of their class. The same with
        "paraphrase_" before: sentences that no training heard, for the classes that have them.

    Raises:
        ValueError: there is no clip.
    """
    if not clips:
        raise ValueError("there is no clip to measure on: give at least one")
    sounds = torch.stack([fit_length(clip.load(), round(seconds * SAMPLE_RATE)) for clip in clips])
    labels = [clip.label for clip in clips]
    audio = embedding.embed_audio(sounds)
    predicted = embedding.classify(sounds).argmax(dim=-1).tolist()
    figures = {
        "accuracy": sum(embedding.labels[k] == label for k, label in zip(predicted, labels, strict=True)) / len(labels)
    }
    captions = {clip.label: clip.captions for clip in clips}
    paraphrases = {label: PARAPHRASES[label] for label in captions if label in PARAPHRASES}
    for prefix, sentences in (("", captions), ("paraphrase_", paraphrases)):
        asked = [(label, sentence) for label, known in sentences.items() for sentence in known]
        if not asked:
            continue
        similarity = embedding.embed_text([sentence for _, sentence in asked]) @ audio.T
        relevant = torch.tensor([[label == other for other in labels] for label, _ in asked])
        heard = relevant.any(dim=0)
        rows, columns = torch.arange(len(asked)), torch.arange(len(labels))
        found = relevant[rows, similarity.argmax(dim=1)]
        named = relevant[similarity.argmax(dim=0), columns][heard]
        figures |= {
            f"{prefix}text_to_audio": found.double().mean().item(),
            f"{prefix}average_precision": average_precision(similarity, relevant).mean().item(),
            f"{prefix}audio_to_text": named.double().mean().item(),
        }
    return figures


def publish(run: str | Path, destination: str | Path) -> Path:
    """Write a checkpoint folder with float16 weights and its card.

    Args:
        run: training folder, with `run.json` and `best/`.
        destination: checkpoint folder to write; its name is the model's.

    Returns:
        The destination.

    Raises:
        ValueError: when a file of the run is missing or does not fit.
    """
    run, destination = Path(run), Path(destination)
    config = read_config(run / "best")
    training = read_record(run / "run.json")
    save_network(destination, load_clap(run / "best").network, config, float16=True)
    embedding = load_clap(destination)  # what was written can be read back, and is what is measured
    recipe = recipe_from(config["recipe"], ContrastiveRecipe)
    clips = validation_clips(recipe)
    figures = measure(embedding, clips)
    card = embedding_card(destination.name, config, training, figures, embedding=embedding, clips=clips)
    write_text(destination / CARD_FILE, card)
    return destination


def embedding_card(
    name: str,
    config: dict[str, Any],
    training: dict[str, Any],
    figures: dict[str, float],
    *,
    embedding: AudioTextEmbedding,
    clips: Sequence[Clip],
) -> str:
    """Write the card.

    Args:
        name: of the checkpoint.
        config: its `config.json`.
        training: `run.json` of the training.
        figures: see `measure`.
        embedding: the loaded checkpoint.
        clips: the sounds behind the figures.

    Returns:
        Markdown.
    """
    recipe, made = config["recipe"], config["provenance"]
    n_parameters = sum(parameter.numel() for parameter in embedding.network.parameters())
    real = "esc50" in recipe["corpus"].split("+")
    n_clips, n_labels = len(clips), len({clip.label for clip in clips})
    folds, held_out = (", ".join(map(str, recipe[key])) for key in ("folds", "validation_folds"))
    where = (
        f"the {n_clips} clips of ESC-50 fold {held_out} under the data root, which are of {n_labels} of the classes"
        if real
        else f"{n_clips} synthesised clips of another seed"
    )
    lines = [
        f"# {name}",
        "",
        f"A small audio-text embedding with class logits ({n_parameters / 1e6:.2f} M parameters beside the frozen text"
        f" encoder {config['text_encoder']}, {recipe['size']} size): sounds and sentences become points of the unit"
        f" sphere in {config['network']['dim']} dimensions, and sounds get probabilities of {len(config['labels'])}"
        " classes. It is what FAD, KL, IS, CLAPScore and CLAPScore_A of this project stand on when nothing can be"
        " downloaded. Weights are float16.",
        "",
        "```python",
        "from lasslab.models.clap import load_clap",
        f'embedding = load_clap("{name}")',
        'similarity = embedding.embed_audio(waveforms) @ embedding.embed_text(["a dog barking"]).T',
        "```",
        "",
        f'**Figures in this embedding are called "FAD ({name})" and so on, and cannot be compared with published'
        " ones**, which use VGGish, PANNs or LAION-CLAP, trained on far more sound.",
        "",
        "## Data and licences",
        "",
        *corpus_notes(recipe),
        *(
            [
                f"- ESC-50 folds {folds} for training, fold {held_out} for validation and for choosing the best step:"
                " the folds share no recording. Classes that synthesis does not know are left out."
            ]
            if real
            else []
        ),
        "- No recording is in the weights' folder. The weights are offered under the project's licence; where they were"
        " trained on recordings, attribution is owed to the corpus.",
        "",
        "## Training",
        "",
        "```",
        command(recipe, "runs/clap", objective="clap", presets={"lab": CONTRASTIVE_PRESETS["lab"]}),
        f"python -m lasslab.training.clap_card runs/clap -o data/checkpoints/{name}",
        "```",
        "",
        "| | |",
        "|---|---|",
        f"| commit | {made.get('commit', 'not recorded')} |",
        f"| device | {made.get('device', 'not recorded')} |",
        f"| torch | {made.get('torch', 'not recorded')} |",
        f"| seed | {recipe['seed']} |",
        f"| steps | {training['step']} of {recipe['n_steps']}, batches of {recipe['batch_size']} clips of"
        f" {recipe['seconds']:g} s; these weights are the moving average at step {training['best_step']} |",
        f"| time | {training['seconds'] / 60:.0f} minutes, on a machine that did much else |",
        "",
        "Every setting is in `config.json`, under `recipe`. Half of the training clips have another sound mixed in,"
        f" {recipe['snr_low']:g} to {recipe['snr_high']:g} dB below; levels vary by {recipe['gain_db']:g} dB either"
        " way.",
        "",
        "## Results",
        "",
        f"On {where}, 5 s each (`python -m lasslab.training.clap_card`, commit {git_commit()}). The best step was"
        " chosen on the same clips, so the figures are a little too high.",
        "",
        "| | |",
        "|---|---|",
        f"| classification, {len(config['labels'])} classes | {figures['accuracy']:.1%} |",
        *_rows(figures, "", "training's captions"),
        *_rows(figures, "paraphrase_", "sentences that training never saw"),
        "",
        "## Limits",
        "",
        "It was trained to tell classes apart and hears little of what tells two sounds of one class apart: another dog"
        " scores nearly as this dog does (notebook 08 shows how much). Classes it does not know fall to the nearest it"
        " knows. It compares sounds at 16 kHz. Levels far from its training's change its answer, and silence has a"
        " place like any sound.",
        "",
    ]
    return "\n".join(lines)


def _rows(figures: dict[str, float], prefix: str, whose: str) -> list[str]:
    if f"{prefix}text_to_audio" not in figures:
        return []
    return [
        f"| text to audio, first clip is of the class, {whose} | {figures[f'{prefix}text_to_audio']:.1%} |",
        f"| text to audio, mean average precision, {whose} | {figures[f'{prefix}average_precision']:.3f} |",
        f"| audio to text, nearest sentence is of the class, {whose} | {figures[f'{prefix}audio_to_text']:.1%} |",
    ]


def main() -> int:
    """`python -m lasslab.training.clap_card`."""
    parser = argparse.ArgumentParser(description="Ship a trained audio-text embedding with its card.")
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    return exit_code(lambda: publish(options.run, options.output))


if __name__ == "__main__":
    sys.exit(main())
