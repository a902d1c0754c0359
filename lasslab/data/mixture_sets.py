"""Sets of mixtures: rows drawn from clips by a protocol, mixed, and written with their list.

Notebook 03.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lasslab.data.clips import Clip
from lasslab.data.mixtures import ManyMixture, cosine_similarity, mix_at_lufs, mix_many
from lasslab.data.pairs import Pair, write_pairs
from lasslab.data.protocols import Protocol
from lasslab.signal.audio import SAMPLE_RATE, fit_length, save_audio
from lasslab.signal.files import new_folder, write_json
from lasslab.signal.spectral import stft

KEPT_CLIPS = 64  # in memory at a time while a set is drawn or written: a minute of sound is 4 MB
TRIES = 10  # interferences that a target is tried with before the cosine filter passes it over


@dataclass(frozen=True)
class MixtureRow:
    """One row of a test set before it is mixed.

    Args:
        idx: its number in the set.
        query: what to ask for.
        target: the clip that the query describes.
        interferences: the other clips.
        seconds: length, or None for the target's own.
        snr_db: target against the sum of the others, dB; None where `lufs` decides.
        lufs: loudness of the target and of each interference; None where `snr_db` decides.
        similarity: cosine between mixture and target, where the filter has measured it.
    """

    idx: str
    query: str
    target: Clip
    interferences: tuple[Clip, ...]
    seconds: float | None
    snr_db: float | None
    lufs: tuple[float, ...] | None
    similarity: float | None = None


def draw_mixtures(
    protocol: Protocol, clips: Sequence[Clip], *, n: int | None = None, seed: int = 0
) -> list[MixtureRow]:
    """Draw the rows of a test set from clips.

    Targets go round the labels, and round the clips of a label, so that none is asked for much more often than another;
    interferences are the least used label that is allowed, and its least used clip. Ties are broken by the seed. The
    first rows of a long set are the rows of a short one. Nothing is read but names, unless the recipe has a cosine
    filter.

    Args:
        protocol: the recipe.
        clips: what to draw from.
        n: number of rows; default the recipe's.
        seed: decides everything.

    Returns:
        `n` rows.

    Raises:
        ValueError: when the recipe has no targets, the clips are too few or too alike, or the filter keeps almost none.
    """
    protocol.check_buildable()
    if seed < 0:
        raise ValueError(f"a seed is a whole number of at least 0, got {seed}")
    protocol = replace(protocol, n=protocol.n if n is None else n)
    rows: list[MixtureRow] = []
    seen: list[float] = []
    draws = _Draws(protocol, clips, seed)
    load = functools.lru_cache(KEPT_CLIPS)(_load)
    turn = 0
    while len(rows) < protocol.n:
        for _ in range(TRIES if protocol.max_similarity is not None else 1):
            row = draws.draw(turn, idx=str(len(rows)))
            if protocol.max_similarity is not None:
                row = replace(row, similarity=similarity(mix(row, load=load)))
                seen.append(row.similarity)
                if row.similarity > protocol.max_similarity:
                    continue
            draws.keep(row)
            rows.append(row)
            break
        turn += 1
        if len(seen) >= 400 and len(rows) < len(seen) / 200:
            raise ValueError(
                f"max_similarity={protocol.max_similarity} keeps {len(rows)} of {len(seen)} candidates: raise it, or "
                f"lower the level of the targets (the median similarity is {np.median(seen):.2f})"
            )
    return rows


class _Draws:
    """Who is mixed with whom: counts of what was used, and a generator for each candidate."""

    def __init__(self, protocol: Protocol, clips: Sequence[Clip], seed: int) -> None:
        self.protocol, self.clips, self.seed = protocol, list(clips), seed
        self.candidate = 0
        self.number_of = {clip: number for number, clip in enumerate(self.clips)}
        labels = sorted({clip.label for clip in self.clips})
        if len(labels) < protocol.n_sources:
            raise ValueError(
                f"mixtures of {protocol.n_sources} sources need clips of as many labels, got {len(labels)}: "
                f"{', '.join(labels[:5]) or 'no clip'}"
            )
        self.label_of = np.array([labels.index(clip.label) for clip in self.clips])
        self.numbers_with: dict[tuple[str, str], list[int]] = {}
        for number, clip in enumerate(self.clips):
            for trait in _traits(clip):
                self.numbers_with.setdefault(trait, []).append(number)
        self.label_uses = np.zeros(len(labels))
        self.clip_uses = np.zeros(len(self.clips))
        order = self._round_robin(np.random.default_rng([seed, 0, 0]))
        n_targets = len(order) if protocol.n_targets is None else min(protocol.n_targets, len(order))
        if protocol.separate_roles:
            n_targets = min(n_targets, len(order) // 2)
        self.targets = order[:n_targets]
        self.may_interfere = np.ones(len(self.clips), dtype=bool)
        if protocol.separate_roles:
            self.may_interfere[self.targets] = False

    def _round_robin(self, random: np.random.Generator) -> list[int]:
        """Every clip once: a clip of each label in turn, as long as it has any."""
        piles = [random.permutation(np.flatnonzero(self.label_of == label)) for label in range(len(self.label_uses))]
        rounds = range(max(len(pile) for pile in piles))
        return [
            int(piles[label][number])
            for number in rounds
            for label in random.permutation(len(piles))
            if number < len(piles[label])
        ]

    def draw(self, turn: int, *, idx: str) -> MixtureRow:
        """A candidate for the target whose turn it is."""
        self.candidate += 1
        random = np.random.default_rng([self.seed, 1, self.candidate])
        protocol = self.protocol
        target = self.targets[turn % len(self.targets)]
        chosen = [target]
        allowed = self.may_interfere.copy()
        for _ in range(protocol.n_sources - 1):
            for trait in _traits(self.clips[chosen[-1]]):
                allowed[self.numbers_with[trait]] = False
            if not allowed.any():
                raise ValueError(
                    f"no clip is left that shares no label, tag or recording with {self.clips[target].source}"
                    f"{f' and {len(chosen) - 1} more' if len(chosen) > 1 else ''}: take more clips, or fewer sources"
                )
            chosen.append(self._least_used(allowed, random))
        snr_db, lufs = self._levels(random)
        return MixtureRow(
            idx=idx,
            query=self._query(self.clips[target], turn // len(self.targets), random),
            target=self.clips[target],
            interferences=tuple(self.clips[number] for number in chosen[1:]),
            seconds=protocol.seconds,
            snr_db=snr_db,
            lufs=lufs,
        )

    def keep(self, row: MixtureRow) -> None:
        """Count the interferences of a row that stays in the set."""
        for clip in row.interferences:
            number = self.number_of[clip]
            self.clip_uses[number] += 1
            self.label_uses[self.label_of[number]] += 1

    def _least_used(self, allowed: np.ndarray, random: np.random.Generator) -> int:
        of_label = np.full(len(self.label_uses), np.inf)
        labels = np.unique(self.label_of[allowed])
        of_label[labels] = self.label_uses[labels] + random.random(len(labels))
        candidates = np.flatnonzero(allowed & (self.label_of == of_label.argmin()))
        return int(candidates[(self.clip_uses[candidates] + random.random(len(candidates))).argmin()])

    def _levels(self, random: np.random.Generator) -> tuple[float | None, tuple[float, ...] | None]:
        protocol = self.protocol
        if protocol.snr_db is None:
            return None, tuple(random.uniform(*protocol.lufs, size=protocol.n_sources).tolist())
        if protocol.whole_decibels:
            low, high = math.ceil(protocol.snr_db[0]), math.floor(protocol.snr_db[1])
            return float(random.integers(low, high + 1)), None
        return float(random.uniform(*protocol.snr_db)), None

    def _query(self, clip: Clip, times_before: int, random: np.random.Generator) -> str:
        if self.protocol.query == "label":
            return clip.label.replace("_", " ")
        if self.protocol.query == "caption":
            return str(random.choice(clip.captions))
        return clip.captions[times_before % len(clip.captions) if self.protocol.query == "each caption" else 0]


def _traits(clip: Clip) -> set[tuple[str, str]]:
    """What two clips of one mixture must not have in common."""
    return {("recording", clip.source), *(("sound", name) for name in (clip.label, *clip.tags))}


def mix(row: MixtureRow, *, load: Callable[[Clip], Tensor] | None = None) -> ManyMixture:
    """Read the clips of a row at 16 kHz and mix them.

    Args:
        row: from `draw_mixtures`.
        load: reads a clip at 16 kHz; default its own `load`.

    Returns:
        The mixture and its parts, (T,) each.

    Raises:
        ValueError: when a clip cannot be read or is silent over the target's length; names the row.
    """
    load = load or _load
    target = loudest_piece(load(row.target), seconds=row.seconds)
    interferences = [
        fit_length(loudest_piece(load(clip), seconds=row.seconds), target.shape[-1]) for clip in row.interferences
    ]
    for clip, waveform in zip((row.target, *row.interferences), (target, *interferences), strict=True):
        if not bool(waveform.any()):
            where = clip.path or clip.source
            raise ValueError(f"mixture {row.idx}: {where} is silent over the target's length: leave it out")
    try:
        if row.lufs is not None:
            return mix_at_lufs(target, interferences, lufs=row.lufs)
        return mix_many(target, interferences, snr_db=row.snr_db)
    except ValueError as error:
        sources = ", ".join(clip.source for clip in (row.target, *row.interferences))
        raise ValueError(f"mixture {row.idx} of {sources}: {error}") from error


def _load(clip: Clip) -> Tensor:
    return clip.load()


def loudest_piece(waveform: Tensor, *, seconds: float | None) -> Tensor:
    """The piece of a clip that holds the most energy, starting at a multiple of 0.1 s; a shorter clip is padded.

    Args:
        waveform: (T,) at 16 kHz.
        seconds: length of the piece; None returns the clip as it is.

    Returns:
        The piece, (seconds times 16,000,).
    """
    if seconds is None:
        return waveform
    n_samples = round(seconds * SAMPLE_RATE)
    spare = waveform.shape[-1] - n_samples
    if spare <= 0:
        return fit_length(waveform, n_samples)
    energy_before = torch.cat([torch.zeros(1, dtype=torch.float64), waveform.double().square().cumsum(-1)])
    starts = torch.arange(0, spare + 1, SAMPLE_RATE // 10)
    start = int(starts[(energy_before[starts + n_samples] - energy_before[starts]).argmax()])
    return waveform[start : start + n_samples]


def similarity(mixture: ManyMixture) -> float:
    """Cosine between the magnitude spectrograms of mixture and target, which the filter compares with its threshold."""
    spectra = stft(torch.stack([mixture.mixture, mixture.target])).abs()  # (2, F, N)
    return cosine_similarity(*spectra).item()


def write_mixtures(
    folder: str | Path,
    rows: Sequence[MixtureRow],
    *,
    about: Mapping[str, Any],
    with_mixtures: bool = False,
    progress: Callable[[Sequence[MixtureRow]], Iterator[MixtureRow]] = iter,
) -> None:
    """Write a test set that `lasslab evaluate separation --pairs FOLDER/pairs.csv --audio FOLDER/audio` takes as it is.

    `pairs.csv` is AudioSep's list, with a column `snr_db` unless every row is at 0 dB, and `noise_wav_2`, ... for three
    and more sources. `audio/` holds the sources as 32-bit float WAV at 16 kHz: where an SNR decides, each clip once, at
    its own level; where loudness decides or there are more than two sources, each row's own, at the level they have in
    the mixture. `mixtures.json` says what each row is. With `with_mixtures`, `mixtures/` holds `mixture-<idx>.wav` and
    `segment-<idx>.wav`, the target in it: the names that AudioSep's evaluation reads.

    The folder appears whole, or not at all.

    Args:
        folder: to make; it may exist and be empty.
        rows: from `draw_mixtures`.
        about: what goes first into `mixtures.json`: recipe, seed, corpus, commit.
        with_mixtures: write the mixtures too.
        progress: what to wrap the rows in, such as a bar.

    Raises:
        ValueError: when the folder cannot be made or a row cannot be mixed.
    """
    with new_folder(folder) as temporary:
        _write_into(temporary, rows, about, with_mixtures, progress)


def _write_into(
    folder: Path,
    rows: Sequence[MixtureRow],
    about: Mapping[str, Any],
    with_mixtures: bool,
    progress: Callable[[Sequence[MixtureRow]], Iterator[MixtureRow]],
) -> None:
    for name in ("audio", *(["mixtures"] if with_mixtures else [])):
        (folder / name).mkdir()
    names: dict[Clip, str] = {}
    pairs: list[Pair] = []
    items: list[dict[str, Any]] = []
    load = functools.lru_cache(KEPT_CLIPS)(_load)
    for row in progress(rows):
        mixture = mix(row, load=load)
        if row.snr_db is not None and len(row.interferences) == 1:
            files = [
                _write_clip(folder / "audio", clip, names, load(clip), row.seconds)
                for clip in (row.target, *row.interferences)
            ]
        else:
            files = _write_parts(folder / "audio", row, mixture)
        snr_db = row.snr_db if row.snr_db is not None else _snr_db(mixture)
        pairs.append(Pair(row.idx, row.query, files[0], files[1], snr_db, tuple(files[2:])))
        items.append(_describe(row, snr_db, row.similarity or similarity(mixture)))
        if with_mixtures:
            for name, waveform in (("mixture", mixture.mixture), ("segment", mixture.target)):
                save_audio(folder / "mixtures" / f"{name}-{row.idx}.wav", waveform, sample_rate=SAMPLE_RATE)
    if all(pair.snr_db == 0 for pair in pairs):
        pairs = [replace(pair, snr_db=None) for pair in pairs]  # AudioSep's four columns, and what it mixes at
    write_pairs(folder / "pairs.csv", pairs)
    write_json(folder / "mixtures.json", {**about, "sample_rate": SAMPLE_RATE, "n": len(items), "items": items})


def _write_clip(folder: Path, clip: Clip, names: dict[Clip, str], waveform: Tensor, seconds: float | None) -> Path:
    """Write a clip the first time it is used; returns its file."""
    if clip not in names:
        stem = clip.path.stem if clip.path is not None else clip.source.replace("/", "-")
        taken = set(names.values())
        name, count = f"{stem}.wav", 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}.wav"
        names[clip] = name
        save_audio(folder / name, loudest_piece(waveform, seconds=seconds), sample_rate=SAMPLE_RATE)
    return folder / names[clip]


def _write_parts(folder: Path, row: MixtureRow, mixture: ManyMixture) -> list[Path]:
    parts = {"target": mixture.target}
    parts |= {f"noise-{number}": part for number, part in enumerate(mixture.interferences, start=1)}
    paths = [folder / f"{row.idx}-{name}.wav" for name in parts]
    for path, part in zip(paths, parts.values(), strict=True):
        save_audio(path, part, sample_rate=SAMPLE_RATE)
    return paths


def _snr_db(mixture: ManyMixture) -> float:
    energies = [part.double().square().sum().item() for part in (mixture.target, mixture.interference)]
    return 10 * math.log10(energies[0] / energies[1])


def _describe(row: MixtureRow, snr_db: float, cosine: float) -> dict[str, Any]:
    item: dict[str, Any] = {"idx": row.idx, "caption": row.query, "snr_db": snr_db, "similarity": round(cosine, 6)}
    if row.lufs is not None:
        item["lufs"] = list(row.lufs)
    clips = [
        {"label": clip.label, "source": clip.source, "file": clip.path.name if clip.path else None, "fold": clip.fold}
        | ({"tags": list(clip.tags)} if clip.tags else {})
        for clip in (row.target, *row.interferences)
    ]
    return item | {"target": clips[0], "interferences": clips[1:]}
