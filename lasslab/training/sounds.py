"""The clips that a recipe trains on, and how often each is heard: what all trainings share."""

from collections.abc import Collection
from typing import Protocol

from lasslab.data.corpora import Clip, load_corpus


class SoundRecipe(Protocol):
    """What a recipe says about its sounds.

    Attributes:
        corpus: "synthesis", "esc50", or "synthesis+esc50".
        folds: ESC-50 folds to train on.
        n_per_class: synthesised clips of each class.
        synthesis_share: probability that a clip is a synthesised one, where both corpora are there.
        seed: of the synthesised clips.
    """

    corpus: str
    folds: tuple[int, ...]
    n_per_class: int
    synthesis_share: float
    seed: int


def training_clips(recipe: SoundRecipe, *, labels: Collection[str] | None = None) -> tuple[list[Clip], list[float]]:
    """The clips of a recipe and their weights: labels are equally likely within a corpus.

    Args:
        recipe: says which.
        labels: clips of other labels are left out; None keeps all.

    Returns:
        Clips, and a weight for each.

    Raises:
        ValueError: a corpus is not there.
    """
    share = {"synthesis": recipe.synthesis_share, "esc50": 1 - recipe.synthesis_share}
    names = recipe.corpus.split("+")
    clips: list[Clip] = []
    weights: list[float] = []
    for name in names:
        folds = recipe.folds if name == "esc50" else None
        corpus = load_corpus(name, folds=folds, n_per_class=recipe.n_per_class, seed=recipe.seed)
        known = [clip for clip in corpus if labels is None or clip.label in labels]
        per_label = {label: sum(clip.label == label for clip in known) for label in {clip.label for clip in known}}
        scale = (share[name] if len(names) > 1 else 1.0) / max(len(per_label), 1)
        clips += known
        weights += [scale / per_label[clip.label] for clip in known]
    return clips, weights
