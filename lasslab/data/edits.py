"""Edits: an original, what it shall become, and the sentence that says so.

From a base sound X and two single sounds A and B come six edits (RFM-Editing, section 3.1):

    <X, X + A, "add A">        <X, X + B, "add B">
    <X + A, X, "remove A">     <X + B, X, "remove B">
    <X + A, X + B, "replace A with B">    <X + B, X + A, "replace B with A">

All six are one thing: original = X + removed, target = X + added, where one of the two may be silence. X is the same,
sample for sample, on both sides: what an edit does not name, it shall not change.

Notebook 14.
"""

import math
from collections.abc import Callable, Collection, Sequence
from statistics import median_low
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lasslab.data.clips import Clip
from lasslab.data.crops import Augmentation, Crops
from lasslab.data.instructions import write_instruction
from lasslab.data.mixtures import add_within
from lasslab.data.tagging import has_class

MOST_EVENTS = 3  # a base clip with more is "noisy and less suitable for training" (section 3.1)
SIMILARITY = 0.35  # least similarity of a sound and its caption (section 3.1)

#: (task, the sound that goes, the sound that comes) of the six edits of a group; "" is silence
SIX_EDITS: tuple[tuple[str, str, str], ...] = (
    ("add", "", "a"),
    ("add", "", "b"),
    ("remove", "a", ""),
    ("remove", "b", ""),
    ("replace", "a", "b"),
    ("replace", "b", "a"),
)

#: a caption -> how many sound events it tells of
EventCounter = Callable[[str], int]


def count_events(caption: str, *, labels: Collection[str] = ()) -> int:
    """Count the sound events that a caption tells of, by rule.

    One for the caption and one more for each "and", "while", "with", "then", "followed by", "as" or comma that begins
    a new event; or the number of labels of a corpus that it names, where that is more. RFM-Editing asks a language
    model; pass one as `counter` where a counter is expected.

    Args:
        caption: a sentence.
        labels: class names of the corpus, with underscores or spaces.

    Returns:
        At least 1.
    """
    text = f" {caption.lower().replace('_', ' ')} "
    for mark in (" followed by ", " and then ", " while ", " then ", " with ", " as ", " and ", ",", ";"):
        text = text.replace(mark, " | ")
    parts = [part for part in text.split("|") if part.strip()]
    named = sum(f" {label.lower().replace('_', ' ')} " in text for label in labels)
    return max(len(parts), named, 1)


def clip_events(clip: Clip, counter: EventCounter = count_events) -> int:
    """How many sound events a clip tells of: one where its corpus gives it one class, else what its captions say.

    Args:
        clip: of any corpus.
        counter: counts the events of a caption.

    Returns:
        At least 1; of several captions the (lower) median.
    """
    if has_class(clip) and not clip.tags:
        return 1
    return median_low([counter(caption) for caption in clip.captions] or [1])


def split_sources(clips: Sequence[Clip], shares: Sequence[float], *, seed: int = 0) -> list[list[Clip]]:
    """Split clips so that no recording is in two parts.

    Args:
        clips: of any corpora.
        shares: size of each part relative to the others.
        seed: of the order in which recordings are dealt out.

    Returns:
        A list of clips for each share. Labels are spread as evenly as their recordings allow.

    Raises:
        ValueError: shares that are not positive.
    """
    if not shares or not all(share > 0 for share in shares):
        raise ValueError(f"shares must be positive numbers, got {list(shares)}")
    random = np.random.default_rng(seed)
    parts: list[list[Clip]] = [[] for _ in shares]
    wanted = np.asarray(shares) / sum(shares)
    by_source: dict[tuple[str, str], list[Clip]] = {}
    for clip in clips:
        by_source.setdefault((clip.corpus, clip.source), []).append(clip)
    # label by label, each recording to the part that is furthest behind in that label
    given: dict[str, np.ndarray] = {}
    sources = sorted(by_source)
    for number in random.permutation(len(sources)):
        those = by_source[sources[number]]
        have = given.setdefault(those[0].label, np.zeros(len(shares)))
        part = int((wanted * (have.sum() + len(those)) - have).argmax())
        have[part] += len(those)
        parts[part] += those
    return parts


class EditDataset(Dataset):
    """Edits drawn from clips: item i is a function of (seed, i) alone, whatever the number of workers.

    An item is `{"base": (T,), "removed": (T,), "added": (T,), "instruction": str, "task": str, "caption": str,
    "removed_label": str, "added_label": str}`; a batch of them is turned into originals and targets by `edit_batch` on
    the device where it is used. `caption` describes the target; it is for evaluation only, no system is given it.
    Six items in a row are the six edits of one (X, A, B): every third of the items is of one task.
    With `absent`, some of the removals name a sound that is not there: then original and target are both the base, and
    `removed_label` is the sound's that was named.

    Args:
        clips: what to put together, of at least four labels; clips that tell of more events than `most_events` serve
            neither as base nor as A or B, and only single events serve as A and B.
        n: number of items.
        seconds: length of an item.
        most_base_clips: the base is of 1 to this many clips of different labels.
        level_db: range of the level of A and B against the base, drawn uniformly.
        weights: relative probability of each clip; default: every label is equally likely.
        augmentation: applied to every clip, or None.
        most_events: see `clips`.
        absent: share of the removals that name a sound which is not there.
        counter: counts the events of a caption, where a clip has no class.
        keep: decides by the clip whether it may serve at all, as a filter on the similarity of a sound and its caption
            does (`lasslab.data.tagging` keeps such verdicts on disk); None keeps all.
        seed: decides everything.

    Raises:
        ValueError: when the clips or a range cannot give edits.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        n: int,
        seconds: float = 5.0,
        most_base_clips: int = 2,
        level_db: tuple[float, float] = (-3.0, 9.0),
        weights: Sequence[float] | None = None,
        augmentation: Augmentation | None = None,
        most_events: int = MOST_EVENTS,
        absent: float = 0.0,
        counter: EventCounter = count_events,
        keep: Callable[[Clip], bool] | None = None,
        seed: int = 0,
    ) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        if most_base_clips < 1 or most_events < 1:
            raise ValueError(f"a base has at least one clip and one event, got {most_base_clips} and {most_events}")
        if not 0 <= absent <= 1:
            raise ValueError(f"absent is a share in [0, 1], got {absent}")
        if not -math.inf < level_db[0] <= level_db[1] < math.inf:
            raise ValueError(f"level_db is (lowest, highest), got {level_db}")
        given = list(weights) if weights is not None else [None] * len(clips)
        if len(given) != len(clips):
            raise ValueError(f"weights must be {len(clips)} numbers, one per clip, got {len(given)}")
        n_events = {clip: clip_events(clip, counter) for clip in set(clips)}
        kept = [
            (clip, weight)
            for clip, weight in zip(clips, given, strict=True)
            if n_events[clip] <= most_events and (keep is None or keep(clip))
        ]
        needed = most_base_clips + 2 + (absent > 0)
        if len({clip.label for clip, _ in kept}) < needed:
            raise ValueError(
                f"edits need clips of {needed} labels that tell of at most {most_events} events, got "
                f"{len({clip.label for clip, _ in kept})} of {len(clips)} clips: add clips or lower most_base_clips"
            )
        self.crops = Crops(
            [clip for clip, _ in kept],
            seconds=seconds,
            weights=None if weights is None else [weight for _, weight in kept],
            augmentation=augmentation,
        )
        single = self.crops.probability * [n_events[clip] == 1 for clip in self.crops.clips]
        if not single.any():
            raise ValueError("no clip tells of a single event: A and B must be single sounds")
        self.single_probability = single / single.sum()
        self.n, self.most_base_clips, self.level_db, self.absent = n, most_base_clips, level_db, absent
        self.seed = seed
        self._latest: tuple[int, Any] = -1, None

    def settings(self) -> dict[str, Any]:
        """What decides the items beside the clips and how pieces of them are cut, as plain values."""
        return {
            "single_probability": [float(p) for p in self.single_probability],
            "most_base_clips": self.most_base_clips,
            "level_db": self.level_db,
            "absent": self.absent,
            "seed": self.seed,
        }

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.n:
            raise IndexError(index)
        group, number = divmod(int(index), len(SIX_EDITS))
        if self._latest[0] != group:  # the other five of a group are usually asked for next
            self._latest = group, self._group(group)
        drawn, words, named_labels, base_words, present = self._latest[1]
        sounds, labels = dict(drawn), dict(named_labels)
        task, goes, comes = SIX_EDITS[number]
        random = np.random.default_rng([self.seed, group, 1 + number])
        silence = torch.zeros_like(sounds["base"])
        named = {key: str(random.choice(words[key])) for key in ("a", "b")}
        if task == "remove" and self.absent and random.random() < self.absent:
            other = self.crops.choose(random, without=present, probability=self.single_probability)
            sounds[goes], labels[goes] = silence, self.crops.clips[other].label
            named[goes] = str(random.choice(self._names(other)))
        return {
            "base": sounds["base"],
            "removed": sounds.get(goes, silence),
            "added": sounds.get(comes, silence),
            "instruction": write_instruction(task, random, removed=named.get(goes, ""), added=named.get(comes, "")),
            "task": task,
            "caption": " and ".join([*base_words, *([named[comes]] if comes else [])]),
            "removed_label": labels.get(goes, ""),
            "added_label": labels.get(comes, ""),
        }

    def _names(self, number: int) -> tuple[str, ...]:
        """What a sound may be called in an instruction: its captions, and its label in words."""
        clip = self.crops.clips[number]
        return (*clip.captions, clip.label.replace("_", " "))

    def _group(
        self, group: int
    ) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]], dict[str, str], list[str], list[int]]:
        """X, A and B of a group, what A and B may be called, their labels, captions of the base, and all their clips'
        numbers."""
        random = np.random.default_rng([self.seed, group, 0])
        crops = self.crops
        base = [crops.choose(random)]
        for _ in range(int(random.integers(self.most_base_clips))):
            base.append(crops.choose(random, without=base))
        a = crops.choose(random, without=base, probability=self.single_probability)
        b = crops.choose(random, without=[*base, a], probability=self.single_probability)
        x = crops.crop(base[0], random)
        for number in base[1:]:
            x = add_within(x, crops.crop(number, random), level_db=random.uniform(-6, 6))
        sounds = {"base": x}
        for key, number in (("a", a), ("b", b)):
            sounds[key] = at_level(crops.crop(number, random), x, level_db=random.uniform(*self.level_db))
        words = {key: self._names(number) for key, number in (("a", a), ("b", b))}
        labels = {"a": crops.clips[a].label, "b": crops.clips[b].label}
        return sounds, words, labels, [crops.query(number, random) for number in base], [*base, a, b]


def at_level(sound: Tensor, reference: Tensor, *, level_db: float) -> Tensor:
    """Scale a sound (T,) so that its energy is `level_db` above that of the reference (T,)."""
    energy = reference.square().sum() / sound.square().sum().clamp(min=torch.finfo(sound.dtype).tiny)
    return sound * (energy * 10 ** (level_db / 10)).sqrt()


def edit_batch(batch: dict) -> dict:
    """Add `original` and `target` to a batch of `EditDataset` items, on the device the batch is on.

    Args:
        batch: `base`, `removed` and `added` (B, T), and anything else.

    Returns:
        A new dictionary: `original` = base + removed and `target` = base + added, (B, T), all five divided by the
        larger peak of the two where it exceeds 1, so that the base stays the same on both sides.
    """
    parts = {name: batch[name] for name in ("base", "removed", "added")}
    pair = torch.stack([parts["base"] + parts["removed"], parts["base"] + parts["added"]])
    peak = pair.abs().amax(dim=(0, -1)).clamp(min=1.0)[:, None]
    parts = {name: part / peak for name, part in parts.items()}
    return {
        **batch,
        **parts,
        "original": parts["base"] + parts["removed"],
        "target": parts["base"] + parts["added"],
    }
