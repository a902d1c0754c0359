"""Ship a trained vocoder: half-precision weights, and a card with figures that this very run measured.

    python -m lasslab.training.vocoder_card RUN [--part last] [--corrections 8] -o data/checkpoints/NAME

RUN is a folder that `lasslab train vocoder` wrote. Its last weights are shipped unless told otherwise: "best" is best
by the mel distance, which does not hear what the adversary is there for. The vocoder is measured as it ships, in
float16, on clips that training never heard, beside three others: itself without its corrections, Griffin-Lim, and white
noise through the same corrections, which shows how much of a figure the corrections alone are.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lasslab.data.corpora import Clip
from lasslab.evaluation.distances import clap_score_audio, heading, log_spectral_distance
from lasslab.evaluation.metrics import bootstrap_interval
from lasslab.evaluation.provenance import device_name, git_commit
from lasslab.models.bigvgan import BigVGANVocoder, load_vocoder
from lasslab.models.checkpoints import save_network
from lasslab.models.clap import AudioTextEmbedding, load_clap
from lasslab.models.vocoders import GriffinLim, Vocoder, check_log_mel, match_mel, mel_distance
from lasslab.signal.audio import SAMPLE_RATE, fit_length
from lasslab.signal.files import write_text
from lasslab.signal.mel import MelConfig, log_mel_spectrogram
from lasslab.training.card_parts import (
    CARD_FILE,
    card_parser,
    data_section,
    exit_code,
    ship_command,
    trained_config,
    training_section,
)
from lasslab.training.runs import recipe_from
from lasslab.training.sounds import held_out_clips
from lasslab.training.vocoding import VOCODER_PRESETS, VocoderRecipe

SECONDS = 5.0


class CorrectedNoise:
    """White noise behind a vocoder's call, brought to the mel by `match_mel` and nothing else: no phase is known.

    Args:
        mel: what the spectrograms are made with.
        corrections: repetitions.
    """

    name = "noise"

    def __init__(self, mel: MelConfig, *, corrections: int) -> None:
        self.mel, self.corrections = mel, corrections

    @torch.no_grad()
    def __call__(self, log_mel: Tensor) -> Tensor:
        """(B, M, N) -> (B, N hop); the same waveform at every call."""
        log_mel = check_log_mel(log_mel, self.mel)
        n_samples = log_mel.shape[-1] * self.mel.hop_length
        noise = torch.randn(len(log_mel), n_samples, generator=torch.Generator().manual_seed(0)).to(log_mel)
        return match_mel(0.1 * noise, log_mel, self.mel, n_iter=self.corrections).clamp(-1, 1)


def compared(vocoder: BigVGANVocoder) -> dict[str, Vocoder]:
    """The vocoder and what it stands beside, by the words of the card's table."""
    times = f"{vocoder.corrections} correction{'s' if vocoder.corrections != 1 else ''}"
    return {
        f"**{vocoder.name}**, {times}": vocoder,
        f"{vocoder.name}, the network alone": BigVGANVocoder(vocoder.network, name=vocoder.name),
        "Griffin-Lim, 32 repetitions": GriffinLim(vocoder.mel, n_iter=32),
        f"white noise, {times}": CorrectedNoise(vocoder.mel, corrections=vocoder.corrections),
    }


def measure(
    vocoders: Mapping[str, Vocoder], clips: Sequence[Clip], *, embedding: AudioTextEmbedding, seconds: float = SECONDS
) -> dict[str, dict[str, Tensor]]:
    """Analyse clips, vocode their mel spectrograms, and compare.

    Args:
        vocoders: what to measure, all of one `mel`.
        clips: sounds.
        embedding: of CLAPScore_A.
        seconds: length they are cut or padded to.

    Returns:
        For each vocoder, one value a clip: "mel_distance" in nats, "lsd" in dB, "clap_score_a", and "seconds" of the
        call.

    Raises:
        ValueError: there is no clip, or all are silent.
    """
    sounds = [fit_length(clip.load(), round(seconds * SAMPLE_RATE)) for clip in clips]
    sounds = [sound for sound in sounds if bool(sound.any())]
    if not sounds:
        raise ValueError("there is no clip to measure on: give at least one that is not silent")
    targets = torch.stack(sounds)
    expected = embedding.embed_audio(targets)
    figures = {}
    for words, vocoder in vocoders.items():
        log_mels = log_mel_spectrogram(targets, vocoder.mel)
        vocoder(log_mels[:1])  # the first call pays for what later ones find ready
        made, took = [], []
        for log_mel in log_mels:
            started = time.perf_counter()
            made.append(fit_length(vocoder(log_mel[None])[0].cpu(), targets.shape[-1]))
            took.append(time.perf_counter() - started)
        waveforms = torch.stack(made)
        figures[words] = {
            "mel_distance": mel_distance(estimate=log_mel_spectrogram(waveforms, vocoder.mel), target=log_mels),
            "lsd": log_spectral_distance(estimate=waveforms, target=targets),
            "clap_score_a": clap_score_audio(estimate=embedding.embed_audio(waveforms), target=expected),
            "seconds": torch.tensor(took),
        }
    return figures


def publish(
    run: str | Path,
    destination: str | Path,
    *,
    part: str = "last",
    corrections: int | None = None,
    embedding: AudioTextEmbedding | None = None,
) -> Path:
    """Write a checkpoint folder with float16 weights and its card.

    Args:
        run: training folder, with `run.json`, `best/` and `last/`.
        destination: checkpoint folder to write; its name is the model's.
        part: "best" or "last".
        corrections: repetitions of `match_mel` that it ships with; default what the recipe says.
        embedding: of CLAPScore_A; default clap-lab.

    Returns:
        The destination.

    Raises:
        ValueError: when a file of the run is missing or does not fit, or corrections is negative.
    """
    run, destination = Path(run), Path(destination)
    if corrections is not None and corrections < 0:
        raise ValueError(f"corrections is 0 or more, got {corrections}")
    config = trained_config(run, part)
    if corrections is not None:
        config["corrections"] = corrections
    embedding = embedding or load_clap()
    save_network(destination, load_vocoder(run / part).network, config, float16=True)
    vocoder = load_vocoder(destination)  # what was written can be read back, and is what is measured
    clips = held_out_clips(recipe_from(config["recipe"], VocoderRecipe), n_per_class=1)
    figures = measure(compared(vocoder), clips, embedding=embedding)
    card = vocoder_card(vocoder, config, figures, embedding_name=embedding.name)
    write_text(destination / CARD_FILE, card)
    return destination


def vocoder_card(
    vocoder: BigVGANVocoder,
    config: dict[str, Any],
    figures: Mapping[str, Mapping[str, Tensor]],
    *,
    embedding_name: str,
) -> str:
    """Write the card.

    Args:
        vocoder: the loaded checkpoint.
        config: its `config.json`.
        figures: see `measure`.
        embedding_name: of CLAPScore_A.

    Returns:
        Markdown.
    """
    recipe, mel, name = config["recipe"], vocoder.mel, vocoder.name
    n_parameters = sum(parameter.numel() for parameter in vocoder.network.parameters())
    n_clips = len(next(iter(figures.values()))["mel_distance"])
    held_out = ", ".join(map(str, recipe["validation_folds"]))
    where = f"ESC-50 fold {held_out}" if "esc50" in recipe["corpus"].split("+") else "synthesised clips of another seed"
    lines = [
        f"# {name}",
        "",
        f"A BigVGAN vocoder ({n_parameters / 1e6:.2f} M parameters, {recipe['size']} size): log-mel spectrograms in,"
        f" waveforms at {mel.sample_rate / 1000:g} kHz out. It reads natural logarithms of magnitudes, {mel.n_mels}"
        f" mels from {mel.f_min:g} to {mel.f_max:g} Hz, n_fft {mel.n_fft}, hop {mel.hop_length}, floor {mel.floor:g}."
        " Weights are float16.",
        "",
        "```python",
        "from lasslab.models.bigvgan import load_vocoder",
        "from lasslab.signal.mel import log_mel_spectrogram",
        f'vocoder = load_vocoder("{name}")',
        "waveform = vocoder(log_mel_spectrogram(sound[None], vocoder.mel))",
        "```",
        "",
        "It departs from the published BigVGAN: it hears each frame relative to its level, which comes back as a gain"
        f" at the end; and its waveform is brought nearer to the mel it was asked for, {vocoder.corrections} times over"
        " (`lasslab.models.vocoders.match_mel`), which leaves phases and what lies within a band to the network."
        " `vocoder.corrections = 0` gives the network alone.",
        "",
        *data_section(config),
        "## Training",
        "",
        *training_section(
            config,
            kind_of=lambda recipe: ("vocoder", VOCODER_PRESETS),
            ship=ship_command("vocoder_card", name, config, [f"--corrections {vocoder.corrections}"]),
        ),
        "",
        "Every setting is in `config.json`, under `recipe`. The adversary took part from step"
        f" {recipe['adversary_from']} on; before, the loss is a multi-scale mel distance.",
        "",
        "## Results",
        "",
        f"Analysis and synthesis of the {n_clips} clips of {where} under the data root, {SECONDS:g} s each"
        f" (`python -m lasslab.training.vocoder_card`, commit {git_commit()}). Means, and 95 % bootstrap intervals over"
        " the clips. No audio of these clips was trained on; some of them were looked at while training.",
        "",
        f"| | mel distance (nats) | log-spectral distance (dB) | {heading('CLAPScore_A', embedding_name)} |"
        " seconds a clip |",
        "|---|---:|---:|---:|---:|",
        *(_row(words, values) for words, values in figures.items()),
        "",
        f"Seconds on {device_name('cpu')}, {torch.get_num_threads()} thread(s), median of the clips, on a machine that"
        " did other things too.",
        "",
        "The mel distance alone does not tell a good vocoder: noise through the same corrections has a small one too,"
        " and Griffin-Lim searches for just that. The log-spectral distance looks between the mels' bands, and the"
        " embedding hears what the sound is.",
        "",
        "## Limits",
        "",
        "It is small and was trained on one core of a processor, on environmental sounds: it knows neither speech nor"
        " music. Trained mostly without its adversary, the network alone hums at multiples of the frame rate,"
        f" {mel.sample_rate / mel.hop_length:g} Hz; notebook 10 measures it. A waveform that has the right mel"
        " need not be the one that was analysed: phases, and what lies within a band, are invented.",
        "",
    ]
    return "\n".join(lines)


def _row(words: str, values: Mapping[str, Tensor]) -> str:
    cells = []
    for name, digits in (("mel_distance", 3), ("lsd", 2), ("clap_score_a", 3)):
        low, high = bootstrap_interval(values[name])
        cells.append(f"{values[name].mean().item():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
    return f"| {words} | {' | '.join(cells)} | {values['seconds'].median().item():.2f} |"


def main() -> int:
    """`python -m lasslab.training.vocoder_card`."""
    parser = card_parser("Ship a trained vocoder with its card.", part="last")
    parser.add_argument("--corrections", type=int, default=None)
    options = parser.parse_args()
    return exit_code(lambda: publish(options.run, options.output, part=options.part, corrections=options.corrections))


if __name__ == "__main__":
    sys.exit(main())
