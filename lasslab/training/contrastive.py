"""Train the audio-text embedding of the metrics: single clips and their captions, contrastive and classified.

    loss = (CE(s A T', P) + CE(s T A', P)) / 2 + CE(logits, label)

A and T are the embeddings of B sounds and B sentences, s = 1 / tau. P says which sentences fit which sounds: in a batch
of few classes several do, so P shares 1 among all sentences of the sound's class, where the loss of CLAP would call
all but one of them wrong (Yang et al., "Unified contrastive learning in image-text-label space", CVPR 2022).

`lasslab train clap`. Notebook 08.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate

from lasslab.data.clips import Clip
from lasslab.data.mixtures import MixtureDataset, mix_at_snr
from lasslab.data.synthesis import EVENT_CLASSES
from lasslab.models.clap import CLAP, SIZES
from lasslab.models.text import TextCache, TextEncoder, load_text_encoder
from lasslab.signal.audio import SAMPLE_RATE, fit_length
from lasslab.signal.mel import log_mel_spectrogram
from lasslab.training.fit import FitResult, check_at_least
from lasslab.training.runs import check_folder, fit_recipe
from lasslab.training.sounds import SoundRecipe, check_size, drawn_mixtures, held_out_clips


class Contrastive:
    """Train an audio-text embedding: a sound and a sentence in, two points of the unit sphere and a class out.

    Batches are those of `MixtureDataset`. The target is the sound; in half of the examples, drawn anew at each step,
    the other sound is mixed in at the example's SNR, as the faint remains of a separation would be. Level and noise
    floor vary too. Validation hears the target as it is.

    Args:
        text: frozen text encoder; every sentence is encoded once.
        labels: classes in the order of the logits.
        gain_db: the level varies by up to this, either way.
        noise_db: loudest noise floor, dB below the clip's own level; the faintest is 30 dB below that.
        classification: weight of the class loss.
    """

    monitor = "average_precision"

    def __init__(
        self,
        text: TextEncoder,
        labels: Sequence[str],
        *,
        gain_db: float = 10.0,
        noise_db: float = 30.0,
        classification: float = 1.0,
    ) -> None:
        self.text = TextCache(text)
        self.number = {label: number for number, label in enumerate(labels)}
        self.gain_db, self.noise_db, self.classification = gain_db, noise_db, classification

    def augment(self, batch: dict, generator: torch.Generator) -> Tensor:
        """The sounds of a batch (B, T): half with another sound below them, all at another level and noise floor."""
        target = batch["target"]
        uniform = torch.rand(3, len(target), 1, generator=generator, device=generator.device).to(target)
        mixed = mix_at_snr(target, batch["interference"], snr_db=batch["snr_db"]).mixture
        sound = torch.where(uniform[0] < 0.5, mixed, target)
        noise = torch.randn(target.shape, generator=generator, device=generator.device).to(target)
        level = sound.square().mean(-1, keepdim=True).sqrt()
        sound = sound + noise * level * 10 ** (-(self.noise_db + 30 * uniform[1]) / 20)
        return sound * 10 ** (self.gain_db * (2 * uniform[2] - 1) / 20)

    def forward(self, network: nn.Module, sound: Tensor, batch: dict) -> tuple:
        """The network's output for sounds (B, T) and the batch's queries, and the class numbers (B,)."""
        mel = log_mel_spectrogram(sound, getattr(network, "module", network).config.mel())
        tokens, mask = self.text(batch["query"]).to(mel.device)
        labels = torch.tensor([self.number[label] for label in batch["label"]], device=mel.device)
        return network(mel, tokens, mask), labels

    def loss(self, network: nn.Module, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The module's loss, and its two parts."""
        output, labels = self.forward(network, self.augment(batch, generator), batch)
        contrast = contrastive_loss(audio=output.audio, text=output.text, scale=output.scale, labels=labels)
        classes = F.cross_entropy(output.logits.float(), labels, label_smoothing=0.1)
        total = contrast + self.classification * classes
        return total, {"contrast": contrast.detach(), "classes": classes.detach(), "scale": output.scale.detach()}

    def validate(self, network: nn.Module, batch: dict) -> dict[str, Tensor]:
        """Per example: is the class right; do its sentence find a sound of its class first, and its sound a sentence;
        and the average precision of the sentence's ranking of all sounds of the batch."""
        output, labels = self.forward(network, batch["target"], batch)
        similarity = output.text @ output.audio.T  # sentences x sounds
        relevant = labels[:, None] == labels
        first = torch.arange(len(labels), device=labels.device)
        return {
            "accuracy": (output.logits.argmax(-1) == labels).double(),
            "text_to_audio": relevant[first, similarity.argmax(dim=1)].double(),
            "audio_to_text": relevant[first, similarity.argmax(dim=0)].double(),
            "average_precision": average_precision(similarity, relevant),
        }

    def picture(self, network: nn.Module, batch: dict) -> dict[str, Tensor]:
        """Similarity of sounds and sentences of the batch, both in the order of their classes, -1 to 1 as 0 to 1."""
        output, labels = self.forward(network, batch["target"], batch)
        order = labels.argsort(stable=True)
        return {"similarity": (output.text[order] @ output.audio[order].T + 1) / 2}


def contrastive_loss(*, audio: Tensor, text: Tensor, scale: Tensor, labels: Tensor) -> Tensor:
    """(CE(s A T', P) + CE(s T A', P)) / 2, P_ij = [label_i = label_j] / number of i's class.

    Args:
        audio: embeddings (B, D).
        text: embeddings (B, D), the i-th of a sentence for the i-th sound.
        scale: s = 1 / tau.
        labels: class numbers (B,).

    Returns:
        The loss, a scalar.
    """
    fits = (labels[:, None] == labels).float()
    wanted = fits / fits.sum(dim=1, keepdim=True)
    similarity = scale * audio.float() @ text.float().T
    return (F.cross_entropy(similarity, wanted) + F.cross_entropy(similarity.T, wanted)) / 2


def average_precision(similarity: Tensor, relevant: Tensor) -> Tensor:
    """Average precision of each row's ranking: the mean, over the relevant items, of the precision down to each.

    Args:
        similarity: (Q, N), more is nearer.
        relevant: True where item n answers query q, (Q, N); at least one in each row.

    Returns:
        Average precision (Q,), 1 when every relevant item comes before every other.

    Reference: Manning, Raghavan and Schütze, "Introduction to information retrieval", 2008, section 8.4.
    """
    ranked = relevant.gather(1, similarity.argsort(dim=1, descending=True, stable=True)).double()
    ranks = torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
    return (ranked * ranked.cumsum(dim=1) / ranks).sum(dim=1) / ranked.sum(dim=1)


@dataclass(frozen=True)
class ContrastiveRecipe(SoundRecipe):
    """An audio-text embedding, the sounds it hears, and how it is trained.

    Args:
        size: of the network, see `lasslab.models.clap.SIZES`.
        text_encoder: see `lasslab.models.text.load_text_encoder`.
        snr_low, snr_high: of the sound mixed into half of the clips.
        gain_db, noise_db, classification: see `Contrastive`.
        corpus … device: see `lasslab.training.sounds.SoundRecipe`.
    """

    size: str = "lab"
    text_encoder: str = "minilm"
    n_per_class: int = 30
    synthesis_share: float = 0.5
    seconds: float = 3.2
    snr_low: float = 5.0
    snr_high: float = 30.0
    gain_db: float = 10.0
    noise_db: float = 30.0
    classification: float = 1.0
    n_steps: int = 700
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    weight_decay: float = 0.05
    max_grad_norm: float = 5.0
    ema_decay: float = 0.99
    n_workers: int = 1
    validate_every: int = 100
    save_every: int = 100

    def __post_init__(self) -> None:
        check_size(self.size, SIZES)
        check_at_least(self, 0, "gain_db", "classification")
        super().__post_init__()


CONTRASTIVE_PRESETS: dict[str, ContrastiveRecipe] = {
    "quick": ContrastiveRecipe(
        size="quick",
        corpus="synthesis",
        n_per_class=4,
        n_steps=60,
        batch_size=16,
        warmup_steps=5,
        ema_decay=0.9,
        validate_every=30,
        save_every=30,
        picture_every=30,
        n_workers=0,
    ),
    "lab": ContrastiveRecipe(),
}


def training_sounds(recipe: ContrastiveRecipe) -> MixtureDataset:
    """Every training clip with the sound that may be mixed in, drawn anew for each step; labels are equally likely."""
    return drawn_mixtures(recipe, labels=EVENT_CLASSES)  # of ESC-50, the classes synthesis has too


def validation_clips(recipe: ContrastiveRecipe) -> list[Clip]:
    """Clips that training never hears, of the classes it knows."""
    return [clip for clip in held_out_clips(recipe) if clip.label in EVENT_CLASSES]


def validation_sounds(recipe: ContrastiveRecipe) -> list[dict]:
    """One batch of 5 s clips that training never hears, each with a caption: retrieval is among them all."""
    items = [
        {
            "target": fit_length(clip.load(), 5 * SAMPLE_RATE),
            "label": clip.label,
            "query": clip.captions[number % len(clip.captions)],
        }
        for number, clip in enumerate(validation_clips(recipe))
    ]
    return [default_collate(items)]


def train_contrastive(
    recipe: ContrastiveRecipe, directory: str | Path, *, resume: bool = False, progress: bool = True
) -> FitResult:
    """Train an audio-text embedding as a recipe says, into a folder that `load_clap` reads.

    Args:
        recipe: everything that decides the run.
        directory: folder of the training.
        resume: continue the training in the folder.
        progress: show a bar.

    Returns:
        What was reached.

    Raises:
        ValueError: when a corpus, an encoder or a setting is not there; see `fit`.
    """
    check_folder(recipe, directory, resume=resume)
    text = load_text_encoder(recipe.text_encoder)
    labels = tuple(EVENT_CLASSES)
    sizes = replace(SIZES[recipe.size], text_dim=text.dim, n_labels=len(labels))
    torch.manual_seed(recipe.seed)  # the initial weights
    network = CLAP(sizes)
    objective = Contrastive(
        text,
        labels,
        gain_db=recipe.gain_db,
        noise_db=recipe.noise_db,
        classification=recipe.classification,
    )
    return fit_recipe(
        recipe,
        network,
        objective,
        training_sounds(recipe),
        directory=directory,
        validation=validation_sounds(recipe),
        about={
            "system": "clap",
            "network": sizes.to_dict(),
            "labels": labels,
            "text_encoder": recipe.text_encoder,
            "sample_rate": SAMPLE_RATE,
        },
        resume=resume,
        progress=progress,
    )
