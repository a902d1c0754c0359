"""What a tagger hears in clips, so that two of one kind are not mixed where a corpus has sentences and no classes.

A mixture of two dogs cannot be asked for "a dog barking": whatever a separator answers, half of it is called wrong. A
corpus with classes says which two clips must not meet. AudioCaps, Clotho and WavCaps have sentences, and a sentence is
no class ("a hound", "dogs bark"). FlowSep tags every clip with PANNs, an audio tagger, and mixes clips that share no
tag; its released code has the tagger and never asks it.

    tagger = load_clap("clap-lab")                        # anything with `name`, `labels` and `classify`
    clips = tag_clips(load_corpus("audiocaps"), tagger)   # `Clip.tags` say what is heard
    MixtureDataset(clips, ...)                            # `Clip.shares_sound` reads the tags, as all that draws pairs

Who decides. Classes of AudioSet come from people who listened: a corpus in which every clip has them is given back as
it is, and the tagger is not asked. In any other, the clips' own tags stay and the tagger's are added to **all** of
them: a class of AudioSet or an uploader's keyword, and a tagger's label, are words of two languages that never meet.

The threshold. A class counts as heard from `THRESHOLD` = 0.1 on, at most the five likeliest classes of a clip. The two
errors do not weigh the same: a pair of one class teaches something wrong, a good pair that is passed over costs
nothing as long as others are left. Measured with clap-lab on ESC-10 fold 4 (80 clips, their classes hidden from it;
280 of the 3,160 pairs share a class, the clips on which its best step was chosen, so a little too good):

    threshold                                0.02   0.05   0.1    0.15   0.2    0.3    0.5
    pairs of one class that are kept apart   98 %   96 %   95 %   94 %   92 %   85 %   73 %
    good pairs that are lost                 26 %   15 %    8 %    5 %    4 %    2 %    1 %

Without any tags 8.9 % of the pairs that can be drawn share a class; with the default 0.5 % do. (The likeliest class
alone, however sure: 79 % are kept apart.) clap-lab's probabilities are of a softmax over 36 classes and sum to 1; a
tagger whose classes are judged one by one, such as PANNs, has a threshold of its own to be measured.

A clip in which nothing reaches the threshold gets no tag: it may be mixed with every other recording. So does a silent
clip, which has no sound to share. A tagger that averages the windows of a long clip, as clap-lab does, may miss a bark
in half a minute of wind. Notebook 03.
"""

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lasslab.data.clips import Clip
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.signal.files import write_json

THRESHOLD = 0.1
MOST_TAGS = 5
KEPT_PROBABILITY = 0.01  # what is kept on disk of a clip: another threshold needs no second look
BATCH = 16  # clips of one length that are tagged together
WINDOW = 64  # clips in memory at a time, from which those of one length are batched
SAVE_EVERY = 512  # clips between two writes of the cache
FORMAT = 1  # of the cache
AUDIOSET_CLASS = re.compile(r"/[mgt]/\w+")


class Tagger(Protocol):
    """What `tag_clips` asks of a tagger; `lasslab.models.clap.load_clap` gives one.

    Attributes:
        name: what the cache is kept under.
        labels: the K classes, in the order of the probabilities.
    """

    name: str
    labels: tuple[str, ...]

    def classify(self, waveforms: Tensor, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """(B, T), of any length -> probabilities (B, K)."""


def has_class(clip: Clip) -> bool:
    """Whether a clip's label is a class of sound: readers of corpora without classes give the recording's name."""
    names = [f"/{clip.source}"] + ([f"/{clip.path.with_suffix('').as_posix()}"] if clip.path is not None else [])
    return not any(name.endswith(f"/{clip.label}") for name in names)


def has_class_or_tags(clip: Clip) -> bool:
    """Whether anything but its name keeps a clip from another of its kind."""
    return bool(clip.tags) or has_class(clip)


def untagged_note(clips: Sequence[Clip], *, corpus: str, remedy: str) -> str:
    """What to tell of clips that nothing but their names keeps apart; "" where there are none.

    Args:
        clips: of one corpus.
        corpus: its name, or its folder.
        remedy: what to do.

    Returns:
        One line.
    """
    without = sum(not has_class_or_tags(clip) for clip in clips)
    if not without:
        return ""
    return (
        f"{without} of {len(clips)} clips of {Path(corpus).name} have neither class nor tags, so that two of one"
        f" kind of sound may be mixed: {remedy}"
    )


def tag_clips(
    clips: Sequence[Clip],
    tagger: Tagger,
    *,
    threshold: float = THRESHOLD,
    top: int = MOST_TAGS,
    cache: str | os.PathLike[str] | None = None,
    progress: Callable[[Iterable[Clip]], Iterable[Clip]] = iter,
) -> list[Clip]:
    """Add what a tagger hears to the tags of clips.

    Args:
        clips: of one corpus.
        tagger: gives class probabilities; the module says when it is asked.
        threshold: smallest probability that counts as heard.
        top: at most so many classes of a clip, the likeliest.
        cache: folder in which probabilities are kept, made when it is missing, so that a clip is tagged once; None
            keeps nothing. A file of another tagger, of the same one with other weights (its `fingerprint`, where it has
            one) or of a recording that has changed is not used.
        progress: what to wrap the clips in, such as a bar.

    Returns:
        The clips in their order, with their own tags first and the tagger's labels after them.

    Raises:
        ValueError: an impossible threshold or number, a clip that cannot be read, a tagger that gives something else
            than probabilities of its labels, or a cache that cannot be used; the message names it.

    Reference: FlowSep, section IV-A; Q. Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio
    Pattern Recognition", 2020. Notebook: 03.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is a probability in (0, 1], got {threshold}: use {THRESHOLD}, for example")
    if top < 1:
        raise ValueError(f"top is a number of classes, at least 1, got {top}")
    clips = list(clips)
    if clips and all(_has_audioset_classes(clip) for clip in clips):
        return clips
    found = _probabilities(clips, tagger, cache=cache, progress=progress)
    return [
        replace(clip, tags=tuple(dict.fromkeys([*clip.tags, *_heard(probabilities, threshold, top)])))
        for clip, probabilities in zip(clips, found, strict=True)
    ]


def cache_folder() -> Path:
    """Where the command line keeps what taggers heard: `tags` in `LASSLAB_CACHE`, else in the user's cache folder."""
    if named := os.environ.get("LASSLAB_CACHE"):
        return Path(named).expanduser() / "tags"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lasslab" / "tags"


def _has_audioset_classes(clip: Clip) -> bool:
    return any(AUDIOSET_CLASS.fullmatch(tag) for tag in clip.tags)


def _heard(probabilities: dict[str, float], threshold: float, top: int) -> list[str]:
    likeliest = sorted(probabilities, key=lambda label: (-probabilities[label], label))[:top]
    return [label for label in likeliest if probabilities[label] >= threshold]


def _probabilities(
    clips: Sequence[Clip],
    tagger: Tagger,
    *,
    cache: str | os.PathLike[str] | None,
    progress: Callable[[Iterable[Clip]], Iterable[Clip]],
) -> list[dict[str, float]]:
    """Label -> probability of each clip, as far as it is worth keeping."""
    known = ClipCache(None if cache is None else Path(cache), tagger)
    found: dict[int, dict[str, float]] = {}
    waiting: list[tuple[int, str, Tensor]] = []

    def tag() -> None:
        by_length: dict[int, list[tuple[int, str, Tensor]]] = defaultdict(list)
        for each in waiting:
            by_length[each[2].shape[-1]].append(each)
        for group in by_length.values():
            for first in range(0, len(group), BATCH):
                numbers, keys, waveforms = zip(*group[first : first + BATCH], strict=True)
                answers = _ask(tagger, torch.stack(waveforms), [clips[number] for number in numbers])
                for number, key, answer in zip(numbers, keys, answers, strict=True):
                    found[number] = known.keep(key, answer)
        waiting.clear()

    try:
        for number, clip in enumerate(progress(clips)):
            key, waveform = known.identify(clip)
            if (answer := known.find(key)) is not None:
                found[number] = answer
                continue
            waveform = load_clip(clip) if waveform is None else waveform
            if bool(waveform.any()):
                waiting.append((number, key, waveform))
            else:
                found[number] = known.keep(key, {})
            if len(waiting) == WINDOW:
                tag()
        tag()
    finally:  # what has been heard is kept, whatever stops the rest
        known.save()
    return [found[number] for number in range(len(clips))]


def load_clip(clip: Clip) -> Tensor:
    """The samples of a clip; an error names it."""
    try:
        return clip.load()
    except ValueError as error:
        raise ValueError(f"clip {clip.source} cannot be listened to: {error}") from error


def _ask(tagger: Tagger, waveforms: Tensor, clips: Sequence[Clip]) -> list[dict[str, float]]:
    names = ", ".join(clip.source for clip in clips[:3]) + (", ..." if len(clips) > 3 else "")
    try:
        probabilities = tagger.classify(waveforms, sample_rate=SAMPLE_RATE)
    except ValueError as error:
        raise ValueError(f"tagger {tagger.name} refuses {names}: {error}") from error
    expected = (len(clips), len(tagger.labels))
    in_range = bool(((probabilities >= 0) & (probabilities <= 1 + 1e-4)).all())  # false for NaN
    if tuple(probabilities.shape) != expected or not in_range:
        raise ValueError(
            f"tagger {tagger.name} must give probabilities of shape {expected}, got {tuple(probabilities.shape)}"
            f"{'' if in_range else ' with values outside [0, 1]'} for {names}: put a softmax or sigmoid on its logits"
        )
    return [
        {label: round(p, 4) for label, p in zip(tagger.labels, row, strict=True) if p >= KEPT_PROBABILITY}
        for row in probabilities.tolist()
    ]


class ClipCache:
    """What was heard, on disk, by what is in a recording, and never by its name alone.

    A tagger's probabilities here, similarities of sound and caption in `lasslab.data.similarity`. A file's content is
    hashed once, and again when its size or time of change is another: reading a corpus to find out that nothing has
    changed would cost as much as half of the tagging.
    """

    def __init__(self, folder: Path | None, tagger: Tagger) -> None:
        identity = {"name": tagger.name, "labels": list(tagger.labels), "weights": getattr(tagger, "fingerprint", None)}
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
        safe = re.sub(r"[^\w.-]+", "-", tagger.name).strip("-.") or "tagger"
        self.path = None if folder is None else folder / f"{safe}-{digest}.json"
        self.content: dict[str, Any] = {"format": FORMAT, "tagger": identity, "files": {}, "clips": {}}
        self.unsaved = 0
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"the cache {folder} cannot be made ({error.strerror}): set LASSLAB_CACHE to another folder"
            ) from error
        if not os.access(self.path.parent, os.W_OK):
            raise ValueError(f"the cache {folder} cannot be written: set LASSLAB_CACHE to another folder")
        if self.path.is_file():
            self.content = _read_cache(self.path, identity)

    def identify(self, clip: Clip) -> tuple[str, Tensor | None]:
        """Key of what is heard, and the samples where they had to be made for it."""
        if clip.path is None:
            waveform = load_clip(clip)
            return hashlib.sha256(waveform.contiguous().numpy().tobytes()).hexdigest(), waveform
        length = "" if clip.max_seconds is None else f" {clip.max_seconds:g} s"
        return self._hash_file(clip) + length, None

    def _hash_file(self, clip: Clip) -> str:
        try:
            status = clip.path.stat()
            name, stamp = str(clip.path.resolve()), [status.st_size, status.st_mtime_ns]
            recorded = self.content["files"].get(name)
            if recorded is not None and recorded[:2] == stamp:
                return recorded[2]
            with clip.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ValueError(f"clip {clip.source} cannot be listened to: {clip.path}: {error.strerror}") from error
        self.content["files"][name] = [*stamp, digest]
        self.unsaved += 1
        return digest

    def find(self, key: str) -> dict[str, float] | None:
        """Label -> probability, or None."""
        return self.content["clips"].get(key)

    def keep(self, key: str, answer: dict[str, float]) -> dict[str, float]:
        """Keep an answer; it is on disk from time to time, and at the end."""
        self.content["clips"][key] = answer
        self.unsaved += 1
        if self.unsaved >= SAVE_EVERY:
            self.save()
        return answer

    def save(self) -> None:
        """Write what is new, whole or not at all."""
        if self.path is not None and self.unsaved:
            write_json(self.path, self.content)
            self.unsaved = 0


def _read_cache(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"the cache {path} cannot be read ({error}): delete it, the clips are tagged again") from error
    fits = (
        isinstance(content, dict)
        and content.get("format") == FORMAT
        and content.get("tagger") == identity
        and all(isinstance(content.get(part), dict) for part in ("files", "clips"))
    )
    if not fits:
        raise ValueError(f"the cache {path} is of another form: delete it, the clips are tagged again")
    return content
