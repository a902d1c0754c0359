"""The sounds that a recipe trains on and is validated on: what all trainings share.

`SoundRecipe` holds the settings that every recipe has: which clips, how they are changed and mixed, and how `fit` runs.
A recipe adds its own, and gives other defaults where it needs them.
"""

import warnings
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch.utils.data import default_collate

from lasslab.data.clips import Clip
from lasslab.data.corpora import load_corpus
from lasslab.data.crops import Augmentation
from lasslab.data.mixtures import MixtureDataset, mix_batch
from lasslab.data.tagging import cache_folder, has_class, tag_clips, untagged_note
from lasslab.models.clap import load_clap
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.signal.mel import MelConfig
from lasslab.training.fit import FitConfig, check_shares


class CorpusWarning(UserWarning):
    """What a training with one's own sounds should know, and goes on with."""


@dataclass(frozen=True)
class SoundRecipe(FitConfig):
    """Clips, how they are mixed, and how `fit` runs.

    Args:
        corpus: "synthesis", "esc50", or another that `lasslab.data.corpora.load_corpus` knows, such as a folder of
            one's own; several with a plus between them: "synthesis+esc50".
        folds: ESC-50 folds to train on.
        validation_folds: ESC-50 folds to validate on; without ESC-50, synthesised clips of another seed. Of another
            corpus nothing is held out, which `held_out_clips` warns of.
        n_per_class: synthesised clips of each class.
        synthesis_share: probability that a clip is a synthesised one, where there are other corpora, which share the
            rest equally.
        tagger: an embedding, by name, that says what is heard in the clips of a corpus without classes, so that two of
            one kind are not mixed; see `lasslab.data.tagging`. "" asks none: each recording is a kind of its own then.
        seconds: length of an item.
        snr_low, snr_high: range of the SNR in dB, drawn uniformly.
        speed, filter_db, shift, reverse_polarity: see `lasslab.data.crops.Augmentation`.
        n_steps … device: see `lasslab.training.fit.FitConfig`.

    Raises:
        ValueError: a fold is trained on and validated on, or a setting is out of its range; it is named.
    """

    corpus: str = "synthesis+esc50"
    folds: tuple[int, ...] = (1, 2, 3)
    validation_folds: tuple[int, ...] = (4,)
    n_per_class: int = 40
    synthesis_share: float = 0.35
    tagger: str = ""
    seconds: float = 5.0
    snr_low: float = -10.0
    snr_high: float = 10.0
    speed: float = 0.12
    filter_db: float = 5.0
    shift: bool = True
    reverse_polarity: bool = True

    def __post_init__(self) -> None:
        if not self.seconds >= (shortest := MelConfig().n_fft / SAMPLE_RATE):
            raise ValueError(f"seconds must be at least {shortest:g}, a frame of a spectrogram, got {self.seconds}")
        check_shares(self, "synthesis_share")
        both = sorted(set(self.folds) & set(self.validation_folds))
        if "esc50" in self.corpora and both:
            raise ValueError(
                f"fold {', '.join(map(str, both))} is in folds and in validation_folds: what training hears cannot "
                "validate it, leave it out of one of them"
            )
        super().__post_init__()

    @property
    def corpora(self) -> list[str]:
        """Names of the corpora."""
        return self.corpus.split("+")

    def fit_config(self) -> FitConfig:
        """The part that `fit` reads."""
        return FitConfig(**{field.name: getattr(self, field.name) for field in fields(FitConfig)})

    def augmentation(self) -> Augmentation:
        """The part that changes clips."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})


def check_size(size: str, sizes: Collection[str]) -> None:
    """Refuse a size that is not one of a network's."""
    if size not in sizes:
        raise ValueError(f"size is one of {', '.join(sizes)}, got {size!r}")


def training_clips(recipe: SoundRecipe, *, labels: Collection[str] | None = None) -> tuple[list[Clip], list[float]]:
    """The clips of a recipe and their weights: labels are equally likely within a corpus.

    Without a tagger, clips of a corpus that has sentences and no classes are warned of and not refused: a folder in
    which no two recordings hold the same kind of sound is as good as one with classes, and only its owner knows.

    Args:
        recipe: says which.
        labels: clips of other labels are left out; None keeps all.

    Returns:
        Clips, and a weight for each.

    Raises:
        ValueError: a corpus or the tagger is not there.
    """
    names = recipe.corpora
    clips: list[Clip] = []
    weights: list[float] = []
    for name in names:
        folds = recipe.folds if name == "esc50" else None
        corpus = load_corpus(name, folds=folds, n_per_class=recipe.n_per_class, seed=recipe.seed)
        known = kept_apart([clip for clip in corpus if labels is None or clip.label in labels], recipe, corpus=name)
        per_label = {label: sum(clip.label == label for clip in known) for label in {clip.label for clip in known}}
        scale = _share(name, names, recipe.synthesis_share) / max(len(per_label), 1)
        clips += known
        weights += [scale / per_label[clip.label] for clip in known]
    return clips, weights


def _share(name: str, names: list[str], synthesis_share: float) -> float:
    """Probability that a clip is of a corpus, one of several."""
    if len(names) == 1 or "synthesis" not in names:
        return 1 / len(names)
    return synthesis_share if name == "synthesis" else (1 - synthesis_share) / (len(names) - 1)


def kept_apart(clips: list[Clip], recipe: SoundRecipe, *, corpus: str) -> list[Clip]:
    """Clips of a corpus with what the recipe's tagger hears in them; those of a corpus with classes as they are.

    Warns, as `lasslab mixtures` does, of clips of which nothing says what kind of sound they are.

    Args:
        clips: of one corpus.
        recipe: names the tagger.
        corpus: its name.

    Returns:
        The clips, in their order.

    Raises:
        ValueError: the tagger is not there, or a clip cannot be read.
    """
    from tqdm.auto import tqdm

    if recipe.tagger and not all(has_class(clip) for clip in clips):
        clips = tag_clips(
            clips,
            load_clap(recipe.tagger),
            cache=cache_folder(),
            progress=lambda items: tqdm(items, disable=None, leave=False, unit="clip", desc="tagging"),
        )
    remedy = "give them a label or tags" if recipe.tagger else "--set tagger=clap-lab"
    if note := untagged_note(clips, corpus=corpus, remedy=remedy):
        warnings.warn(note, CorpusWarning, stacklevel=2)
    return clips


def drawn_mixtures(
    recipe: SoundRecipe, *, n: int | None = None, labels: Collection[str] | None = None, **settings: Any
) -> MixtureDataset:
    """The mixtures of a run.

    Args:
        recipe: says of what, how long, at which SNR and how changed.
        n: how many; by default as many as the run needs, so that each is seen once.
        labels: see `training_clips`.
        **settings: of `MixtureDataset`, beside what the recipe says or in place of it.

    Returns:
        Mixtures, as waveforms.
    """
    clips, weights = training_clips(recipe, labels=labels)
    chosen = {
        "n": recipe.n_steps * recipe.batch_size * recipe.accumulate if n is None else n,
        "seconds": recipe.seconds,
        "snr_db": (recipe.snr_low, recipe.snr_high),
        "weights": weights,
        "augmentation": recipe.augmentation(),
        "seed": recipe.seed,
    }
    return MixtureDataset(clips, **chosen | settings)


def held_out_clips(recipe: SoundRecipe, *, n_per_class: int = 2) -> list[Clip]:
    """Clips that training never hears.

    Args:
        recipe: says which.
        n_per_class: clips of each class where they are synthesised.

    Returns:
        The clips of the validation folds, or synthesised ones of another seed. Both have classes, and need no tagger.
    """
    with_folds = "esc50" in recipe.corpora
    if others := [name for name in recipe.corpora if name not in ("synthesis", "esc50")]:
        held_out = "validation_folds of ESC-50" if with_folds else "synthesised sounds"
        warnings.warn(
            f"nothing of {', '.join(Path(name).name for name in others)} is held out: validation is on {held_out}, and "
            "its figures are of those",
            CorpusWarning,
            stacklevel=2,
        )
    if with_folds:
        return load_corpus("esc50", folds=recipe.validation_folds)
    return load_corpus("synthesis", n_per_class=n_per_class, seed=recipe.seed + 1)


def held_out_mixtures(recipe: SoundRecipe, *, n: int, seconds: float = 5.0) -> MixtureDataset:
    """Fixed mixtures at 0 dB of clips that training never hears."""
    clips = held_out_clips(recipe)
    return MixtureDataset(clips, n=n, seconds=seconds, snr_db=(0.0, 0.0), seed=recipe.seed + 1)


def mixed_batches(dataset: MixtureDataset, *, batch_size: int) -> list[dict]:
    """All items of a dataset, mixed, in batches."""
    return [mix_batch(batch) for batch in collated([dataset[index] for index in range(len(dataset))], batch_size)]


def collated(items: list[dict], batch_size: int) -> list[dict]:
    """Items in batches, in their order."""
    return [default_collate(items[first : first + batch_size]) for first in range(0, len(items), batch_size)]
