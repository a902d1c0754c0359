"""How well a recording fits its captions, and the filter that RFM-Editing builds its data with.

RFM-Editing (section 3.1) keeps a sound only where its CLAP similarity, the cosine between the embeddings of the sound
and of its caption, is above 0.35. `similarity_filter` makes that a verdict about clips, for `EditDataset(keep=...)`:

    embedding = load_clap("clap-lab")
    keep = similarity_filter(clips, embedding, cache=cache_folder())
    EditDataset(clips, n=600, keep=keep)

A clip with several captions has their mean. The paper asks it of each finished pair and its caption; here it is asked
of the clips that a pair is made of, once and for all, so that an item stays a function of its number alone.

**The threshold belongs to the embedding.** 0.35 was chosen for Microsoft's CLAP. clap-lab's cosines have another scale:
on ESC-10 fold 4 (80 clips) they are 0.80 in the median with a clip's own captions and 0.10 with those of another class.
What a threshold keeps, there:

    threshold                               0.2    0.35   0.5    0.6    0.7    0.75
    clips with their own captions          100 %  100 %   99 %   96 %   90 %   79 %
    clips with those of another class       41 %   25 %   10 %    4 %    1 %    1 %

So 0.35 keeps every clip of a corpus whose labels are right, and would let a quarter of the wrong ones through; with
clap-lab, 0.6 is the filter that 0.35 was meant to be. In words that no training of the lab had (`PARAPHRASES` of
`lasslab.evaluation.paraphrases`) the median is 0.75, and 0.6 keeps 95 %.

Notebook 14.
"""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lasslab.data.clips import Clip
from lasslab.data.edits import SIMILARITY
from lasslab.data.tagging import ClipCache, load_clip
from lasslab.signal.audio import SAMPLE_RATE


class Embedding(Protocol):
    """What the filter asks of an embedding; `lasslab.models.clap.load_clap` gives one.

    Attributes:
        name: what the cache is kept under.
    """

    name: str

    def embed_audio(self, waveforms: Tensor, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """(B, T) -> (B, D), each of length 1."""

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """B sentences -> (B, D), each of length 1."""


@dataclass(frozen=True)
class _Listener:
    """An embedding as the cache knows it: beside its tags, under a name of its own."""

    embedding: Embedding
    labels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.embedding.name} similarity"

    @property
    def fingerprint(self) -> str | None:
        return getattr(self.embedding, "fingerprint", None)


def caption_similarities(
    clips: Sequence[Clip],
    embedding: Embedding,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Callable[[Iterable[Clip]], Iterable[Clip]] = iter,
) -> list[float]:
    """How well each clip fits its captions: the mean cosine between the sound and each of them.

    Args:
        clips: with at least one caption each.
        embedding: of sounds and sentences.
        cache: folder in which similarities are kept, by what is in a recording; None keeps nothing. A clip that has
            got a new caption is listened to again.
        progress: what to wrap the clips in, such as a bar.

    Returns:
        Cosines from -1 to 1, in the order of the clips; -1 for a silent clip, which fits no words.

    Raises:
        ValueError: a clip that cannot be read or has no caption, or a cache that cannot be used; the message names it.
    """
    known = ClipCache(None if cache is None else Path(cache), _Listener(embedding))
    texts: dict[str, Tensor] = {}
    found = []
    try:
        for clip in progress(clips):
            if not clip.captions:
                raise ValueError(f"clip {clip.source} has no caption, which its sound could be compared with")
            key, waveform = known.identify(clip)
            answer: dict[str, Any] = known.find(key) or {}
            if not set(clip.captions) <= answer.keys():
                waveform = load_clip(clip) if waveform is None else waveform
                answer = known.keep(key, answer | _cosines(clip, waveform, embedding, texts))
            found.append(sum(answer[caption] for caption in clip.captions) / len(clip.captions))
    finally:  # what has been heard is kept, whatever stops the rest
        known.save()
    return found


def _cosines(clip: Clip, waveform: Tensor, embedding: Embedding, texts: dict[str, Tensor]) -> dict[str, float]:
    """Caption -> cosine."""
    if not bool(waveform.any()):
        return dict.fromkeys(clip.captions, -1.0)
    if missing := [caption for caption in clip.captions if caption not in texts]:
        texts.update(zip(missing, embedding.embed_text(missing), strict=True))
    sound = embedding.embed_audio(waveform[None], sample_rate=SAMPLE_RATE)[0]
    cosines = torch.stack([texts[caption] for caption in clip.captions]) @ sound
    return {caption: round(cosine, 4) for caption, cosine in zip(clip.captions, cosines.tolist(), strict=True)}


def similarity_filter(
    clips: Sequence[Clip],
    embedding: Embedding,
    *,
    min_similarity: float = SIMILARITY,
    cache: str | os.PathLike[str] | None = None,
    progress: Callable[[Iterable[Clip]], Iterable[Clip]] = iter,
) -> Callable[[Clip], bool]:
    """Which clips fit their captions, for `lasslab.data.edits.EditDataset(keep=...)`.

    Args:
        clips: everything that will be asked about.
        embedding: of sounds and sentences.
        min_similarity: a clip is kept above it, in [-1, 1).
        cache: see `caption_similarities`.
        progress: see `caption_similarities`.

    Returns:
        Clip -> whether it may serve.

    Raises:
        ValueError: see `caption_similarities`; an impossible threshold, or one that keeps nothing.
    """
    if not (math.isfinite(min_similarity) and -1 <= min_similarity < 1):
        raise ValueError(f"min_similarity is a cosine in [-1, 1), got {min_similarity}: {SIMILARITY} is RFM-Editing's")
    similarities = caption_similarities(clips, embedding, cache=cache, progress=progress)
    verdicts = {clip: value > min_similarity for clip, value in zip(clips, similarities, strict=True)}
    if not any(verdicts.values()):
        raise ValueError(
            f"no clip fits its captions better than {min_similarity} in {embedding.name}, the best has "
            f"{max(similarities, default=math.nan):.2f}: lower min_similarity, its scale is the embedding's own"
        )
    return verdicts.__getitem__
