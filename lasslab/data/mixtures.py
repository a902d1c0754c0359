"""Mixtures: two sounds, a level, a sentence that asks for one of them.

A mixture is x = s + g n with target s, interference n and the gain g that gives the wanted ratio

    SNR = 10 log10(sum s^2 / sum (g n)^2)   in dB, over the whole clip.

If x would leave [-1, 1], mixture, target and interference are divided by the same peak: clipping would make x != s + n,
and rescaling the mixture alone would make the target louder than what is in it.

Notebooks 03 (mixing) and 04 (the cosine filter).
"""

import math
import threading
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lasslab.data.clips import Clip
from lasslab.data.comparison import PairComparison
from lasslab.data.crops import Augmentation, Crops
from lasslab.data.rivals import N_RIVALS, rival_distance
from lasslab.data.threads import in_threads
from lasslab.signal.audio import SAMPLE_RATE, fit_length, loudness
from lasslab.signal.levels import snr_gain

_COMPARED = ("target", "interference", "snr_db")  # of an item, by the cosine filter
LOUDNESS_GATE = -70.0  # LUFS; what stays below has no loudness


class Mixture(NamedTuple):
    """`mixture = target + interference`, each (..., T)."""

    mixture: Tensor
    target: Tensor
    interference: Tensor


class ManyMixture(NamedTuple):
    """A mixture of any number of sources, each (..., T).

    Exactly, and not only to rounding, `mixture = target + interference`, where `interference` is the sum of
    `interferences` in their order.
    """

    mixture: Tensor
    target: Tensor
    interference: Tensor
    interferences: tuple[Tensor, ...]


def mix_at_snr(target: Tensor, interference: Tensor, *, snr_db: float | Tensor) -> Mixture:
    """Scale the interference to an SNR over the whole clip, and add.

    Args:
        target: (..., T).
        interference: (..., T).
        snr_db: ratio of target to interference energy in dB, a number or (...,).

    Returns:
        The mixture and its two parts; all three divided by the peak where it would exceed 1.

    Raises:
        ValueError: when the shapes differ, or no finite gain gives the SNR: one of the two is silent, or `snr_db` is
            not a finite number.
    """
    return _fit_peak(target, interference * snr_gain(target, interference, snr_db=snr_db))


def mix_at_equal_loudness(
    target: Tensor, interference: Tensor, *, sample_rate: int = SAMPLE_RATE, lufs: float = -23.0
) -> Mixture:
    """Bring both clips to one loudness, align their starts, pad the shorter with silence, and add (the thesis, 5.3.2).

    Args:
        target: (T,).
        interference: (T',).
        sample_rate: Hz.
        lufs: loudness of each part, in LUFS.

    Returns:
        The mixture, as long as the longer clip, and its two parts.

    Raises:
        ValueError: when one of the two is silent.
    """
    n_samples = max(target.shape[-1], interference.shape[-1])
    parts = []
    for name, clip in (("target", target), ("interference", interference)):
        level = loudness(clip, sample_rate=sample_rate)
        if math.isinf(level):
            raise ValueError(f"the {name} is silent: it has no loudness to match, choose another clip")
        parts.append(fit_length(clip * 10 ** ((lufs - level) / 20), n_samples))
    return _fit_peak(*parts)


def mix_many(
    target: Tensor,
    interferences: Sequence[Tensor],
    *,
    snr_db: float | Tensor,
    levels_db: Sequence[float | Tensor] | None = None,
) -> ManyMixture:
    """Mix one target with any number of interferences.

    The SNR is that of the target against the **sum** of the interferences, as in AudioSep's training mixtures:

        SNR = 10 log10(sum s^2 / sum (n_1 + n_2 + ...)^2)   in dB, over the whole clip,

    so it is also the SDR of the unprocessed mixture, however many sources there are. (The other definition in use, the
    target against each, makes a mixture of three about 3 dB harder than one of two at the same figure.)

    Args:
        target: (..., T).
        interferences: at least one, each (..., T).
        snr_db: ratio of the target's energy to that of the sum in dB, a number or (...,).
        levels_db: energy of each interference in dB, before the sum is scaled; only differences matter. Default: equal.

    Returns:
        The mixture and its parts; all divided by the peak where it would exceed 1.

    Raises:
        ValueError: when there is no interference, shapes differ, a part is silent, the interferences cancel each other,
            or a level is not a finite number.
    """
    if not interferences:
        raise ValueError("mix_many needs at least one interference, got none")
    levels = [0.0] * len(interferences) if levels_db is None else list(levels_db)
    if len(levels) != len(interferences):
        raise ValueError(
            f"levels_db must be one number for each interference, got {len(levels)}: give {len(interferences)}"
        )
    parts = []
    for number, (part, level) in enumerate(zip(interferences, levels, strict=True), start=1):
        if part.shape != target.shape:
            raise ValueError(
                f"target {tuple(target.shape)} and interference {number} {tuple(part.shape)} differ in shape: "
                "use fit_length on the interference"
            )
        energy = part.square().sum(-1, keepdim=True)
        if not bool((energy > 0).all()):
            raise ValueError(f"interference {number} is silent: no gain gives it a level, choose another clip or crop")
        gain = (10 ** (torch.as_tensor(level, dtype=part.dtype, device=part.device)[..., None] / 10) / energy).sqrt()
        if not bool((gain.isfinite() & (gain > 0)).all()):
            raise ValueError(f"no finite gain gives interference {number} a level of {level} dB: give a finite number")
        parts.append(part * gain)
    total = sum_in_order(parts)
    if not bool((total.square().sum(-1) > 1e-12 * parts[0].square().sum(-1)).all()):
        raise ValueError("the interferences cancel each other: their sum is silent, choose other clips")
    mixed = mix_at_snr(target, total, snr_db=snr_db)
    scale = (mixed.interference.square().sum(-1, keepdim=True) / total.square().sum(-1, keepdim=True)).sqrt()
    return _add_parts(mixed.target, [part * scale for part in parts])


def mix_at_lufs(
    target: Tensor, interferences: Sequence[Tensor], *, lufs: Sequence[float], sample_rate: int = SAMPLE_RATE
) -> ManyMixture:
    """Bring each part to a loudness of its own, and add.

    Args:
        target: (T,).
        interferences: at least one, each (T,).
        lufs: loudness of the target and of each interference, LUFS.
        sample_rate: Hz.

    Returns:
        The mixture and its parts; where the mixture would exceed 1, all are divided by its peak, so that each part is
        that much quieter than asked for and their differences stay.

    Raises:
        ValueError: when there is no interference, lengths differ, a part has no loudness, or a loudness is not between
            -70 LUFS, the gate of the measure, and 0.
    """
    if not interferences or len(lufs) != 1 + len(interferences):
        raise ValueError(
            f"lufs is one number for the target and each of at least one interference, got {len(lufs)} for "
            f"{1 + len(interferences)} parts"
        )
    for number, part in enumerate(interferences, start=1):
        if part.shape != target.shape or part.dim() != 1:
            raise ValueError(
                f"target {tuple(target.shape)} and interference {number} {tuple(part.shape)} must both be (T,): "
                "use fit_length on the interference"
            )
    names = ["the target", *(f"interference {number}" for number in range(1, len(lufs)))]
    parts = [
        _bring_to_lufs(part, lufs=level, sample_rate=sample_rate, name=name)
        for part, level, name in zip([target, *interferences], lufs, names, strict=True)
    ]
    peak = sum_in_order(parts).abs().amax(-1, keepdim=True).clamp(min=1.0)
    target, *interferences = [part / peak for part in parts]
    return _add_parts(target, interferences)


def mix_in_lufs_range(
    target: Tensor,
    interferences: Sequence[Tensor],
    *,
    lufs: tuple[float, float],
    random: np.random.Generator,
    sample_rate: int = SAMPLE_RATE,
) -> ManyMixture:
    """Bring each part to a loudness drawn uniformly from a range, and add: the VGGSound test of AudioSep.

    There the range is -35 to -25 LUFS. The loudness of two parts differs by at most 10 LU then, their energy often by
    more: loudness leaves pauses out and energy over the whole clip does not, so that a single bark counts for less.

    Args:
        target: (T,).
        interferences: at least one, each (T,).
        lufs: lowest and highest loudness, LUFS.
        random: draws the loudness of the target, then that of each interference.
        sample_rate: Hz.

    Returns:
        As `mix_at_lufs`.

    Raises:
        ValueError: see `mix_at_lufs`; or the range is not (lowest, highest).

    Reference: X. Liu et al., "Separate Anything You Describe", arXiv 2308.05037, and FlowSep, section IV-A.
    """
    low, high = lufs
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"lufs is (lowest, highest), got {lufs}")
    levels = random.uniform(low, high, size=1 + len(interferences))
    return mix_at_lufs(target, interferences, lufs=levels.tolist(), sample_rate=sample_rate)


def _bring_to_lufs(waveform: Tensor, *, lufs: float, sample_rate: int, name: str) -> Tensor:
    """Scale a clip to a loudness; unlike `normalise_loudness`, a very quiet one too.

    The gate of -70 LUFS makes loudness not quite linear in the gain: quiet blocks count once the clip is louder. So the
    clip starts from full scale, and the gain is corrected until the measure agrees.
    """
    if not LOUDNESS_GATE < lufs <= 0:
        raise ValueError(f"a loudness must lie between {LOUDNESS_GATE:g} and 0 LUFS, got {lufs} for {name}")
    scaled = waveform / waveform.abs().max().clamp(min=torch.finfo(waveform.dtype).tiny)
    for _ in range(8):
        measured = loudness(scaled, sample_rate=sample_rate)
        if math.isinf(measured):
            raise ValueError(
                f"{name} has no loudness, it is silent or below what is heard: choose another clip or crop"
            )
        if abs(lufs - measured) < 1e-3:
            break
        scaled = scaled * 10 ** ((lufs - measured) / 20)
    return scaled


def sum_in_order(parts: Sequence[Tensor]) -> Tensor:
    """((p_1 + p_2) + p_3) + ...: floating-point sums depend on their order."""
    return sum(parts[1:], start=parts[0])


def _add_parts(target: Tensor, interferences: Sequence[Tensor]) -> ManyMixture:
    interference = sum_in_order(interferences)
    return ManyMixture(target + interference, target, interference, tuple(interferences))


def _fit_peak(target: Tensor, interference: Tensor) -> Mixture:
    mixture = target + interference
    peak = mixture.abs().amax(-1, keepdim=True).clamp(min=1.0)
    # The sum of the scaled parts, not the scaled sum: rounding must not make the parts disagree with the whole.
    target, interference = target / peak, interference / peak
    return Mixture(target + interference, target, interference)


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of two magnitude spectrograms seen as long vectors (the thesis, 5.3.4).

    cos = sum |A| |B| / sqrt(sum |A|^2 sum |B|^2), in [0, 1] for magnitudes.

    Args:
        a: magnitudes (..., F, N).
        b: magnitudes (..., F, N).

    Returns:
        Similarity (...,); 0 when one of the two is silent.

    Raises:
        ValueError: when the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"spectrograms differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    product = (a * b).sum((-2, -1))
    norms = (a.square().sum((-2, -1)) * b.square().sum((-2, -1))).sqrt()
    return product / norms.clamp(min=torch.finfo(a.dtype).tiny)


class MixtureDataset(Dataset):
    """Training pairs drawn from clips: item i is a function of (seed, i) alone, whatever the number of workers.

    An item is `{"target": (T,), "interference": (T,), "snr_db": (), "query": str, "label": str,
    "interference_label": str}`; a batch of them is turned into mixtures by `mix_batch` on the device where it is used.
    With `absent` there is also `"absent": ()`, true where the query asks for a label that is not in the mixture: the
    target that `mix_batch` gives is silence then.

    With `max_similarity` the thesis's loop runs first, in batches: **generate** candidates, **extract** their magnitude
    spectrograms, **filter** those whose cosine with the mixture is above the threshold, until `n` remain.
    `similarities` keeps the cosine of every candidate seen.

    Args:
        clips: what to mix, of at least two labels.
        n: number of items.
        seconds: length of an item.
        snr_db: range of the SNR, drawn uniformly; equal ends fix it. None mixes at equal loudness instead (the thesis).
        max_similarity: threshold of the cosine filter, or None for no filter.
        weights: relative probability of each clip; default: every label is equally likely, and every clip within it.
        target_labels: labels that may be asked for; default all.
        augmentation: applied to every clip, or None.
        third_source: share of the items whose interference is two clips of two labels, the second within 6 dB of the
            first.
        absent: share of the items that ask for what is not there.
        hard: share of the items whose interference is, of five drawn, the one that is most like the target; see
            `lasslab.data.rivals`.
        focus: labels that are hard to tell from each other.
        focus_share: share of the items whose two clips are both of `focus`.
        reword: share of the queries put into other words around the caption, see `lasslab.data.wording`.
        seed: decides everything.
        device: where the filter's spectrograms are computed.

    Raises:
        ValueError: when the clips, a range or the threshold cannot give pairs.
    """

    #: candidates that a thread draws and compares at a time, between two counts of what passed
    filter_batch = 32
    #: pairs whose spectrograms are compared at a time: few enough to stay in a processor's cache
    filter_block = 4

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        n: int,
        seconds: float = 5.0,
        snr_db: tuple[float, float] | None = (-15.0, 15.0),
        max_similarity: float | None = None,
        weights: Sequence[float] | None = None,
        target_labels: Sequence[str] | None = None,
        augmentation: Augmentation | None = None,
        third_source: float = 0.0,
        absent: float = 0.0,
        hard: float = 0.0,
        focus: Sequence[str] = (),
        focus_share: float = 0.0,
        reword: float = 0.0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.crops = Crops(clips, seconds=seconds, weights=weights, augmentation=augmentation, reword=reword)
        labels = self.crops.labels
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        if snr_db is not None and not -math.inf < snr_db[0] <= snr_db[1] < math.inf:
            raise ValueError(f"snr_db is (lowest, highest), got {snr_db}")
        shares = {"third_source": third_source, "absent": absent, "hard": hard, "focus_share": focus_share}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share in [0, 1], got {share}")
        needed = 2 + (third_source > 0) + (absent > 0)
        if len(labels) < needed:
            raise ValueError(f"third_source and absent need clips of {needed} labels here, got {', '.join(labels)}")
        self.third_source, self.absent, self.hard = third_source, absent, hard
        self.seed = seed
        self.snr_db = snr_db
        self.max_similarity = max_similarity
        self.target_probability = self.crops.probability
        if target_labels is not None:
            self.target_probability = self._among("target_labels", target_labels, fewest=1)
        self.focus_share = focus_share
        if focus_share:
            self.focus_probability = self._among("focus", focus, fewest=2)
        self.similarities = torch.empty(0)
        self._candidates = torch.arange(n)
        if max_similarity is not None:
            self._filter(n, max_similarity, torch.device(device))

    @property
    def clips(self) -> list[Clip]:
        """What is mixed."""
        return self.crops.clips

    def settings(self) -> dict[str, Any]:
        """What decides the items beside the clips and how pieces of them are cut, as plain values."""
        return {
            "target_probability": [float(p) for p in self.target_probability],
            "snr_db": self.snr_db,
            "max_similarity": self.max_similarity,
            "third_source": self.third_source,
            "absent": self.absent,
            "hard": [self.hard, N_RIVALS],
            "focus": [float(p) for p in self.focus_probability] if self.focus_share else None,
            "focus_share": self.focus_share,
            "seed": self.seed,
        }

    def _among(self, name: str, labels: Sequence[str], *, fewest: int) -> np.ndarray:
        """Probability of each clip where only some labels are drawn."""
        among = self.crops.probability * [clip.label in set(labels) for clip in self.clips]
        if len({clip.label for clip, weight in zip(self.clips, among, strict=True) if weight}) < fewest:
            raise ValueError(
                f"{name}={sorted(labels)} needs clips of at least {fewest} of its labels: there are {self.crops.labels}"
            )
        return among / among.sum()

    def __len__(self) -> int:
        return len(self._candidates)

    def __getitem__(self, index: int) -> dict:
        return self._draw(int(self._candidates[index]))

    def _draw(self, candidate: int) -> dict:
        """Candidate number -> item; the same number always gives the same item."""
        random = np.random.default_rng([self.seed, candidate])
        crops = self.crops
        focused = bool(self.focus_share) and random.random() < self.focus_share
        first = crops.choose(random, probability=self.focus_probability if focused else self.target_probability)
        second = crops.choose(random, without=(first,), probability=self.focus_probability if focused else None)
        target, interference = crops.crop(first, random), crops.crop(second, random)
        if self.hard and not focused and random.random() < self.hard:
            second, interference = self._rival(first, target, random)
        present = [first, second]
        if self.third_source and random.random() < self.third_source:
            third = crops.choose(random, without=present)
            present.append(third)
            interference = add_within(interference, crops.crop(third, random), level_db=random.uniform(-6, 6))
        item = {
            "target": target,
            "interference": interference,
            "snr_db": torch.tensor(self._snr(target, interference, random)),
            "query": crops.query(first, random),
            "label": self.clips[first].label,
            "interference_label": self.clips[second].label,
        }
        if self.absent:
            item["absent"] = torch.tensor(bool(random.random() < self.absent))
            if item["absent"]:
                other = crops.choose(random, without=present, probability=self.target_probability)
                item |= {"query": crops.query(other, random), "label": self.clips[other].label}
        return item

    def _rival(self, first: int, target: Tensor, random: np.random.Generator) -> tuple[int, Tensor]:
        """Number and piece of the clip most like the target, of `N_RIVALS` that share no sound with it."""
        numbers = [self.crops.choose(random, without=(first,)) for _ in range(N_RIVALS)]
        pieces = torch.stack([self.crops.crop(number, random) for number in numbers])
        nearest = int(rival_distance(target, pieces).argmin())
        return numbers[nearest], pieces[nearest]

    def _snr(self, target: Tensor, interference: Tensor, random: np.random.Generator) -> float:
        if self.snr_db is not None:
            return float(random.uniform(*self.snr_db))
        # Equal loudness is an SNR too: that of the two parts once each has the same LUFS.
        difference = _ungated_loudness(target) - _ungated_loudness(interference)
        energy = target.square().sum() / interference.square().sum()
        return 10 * math.log10(float(energy)) - difference

    def _filter(self, n: int, max_similarity: float, device: torch.device) -> None:
        if not 0 < max_similarity <= 1:
            raise ValueError(f"max_similarity is a cosine in (0, 1], got {max_similarity}")
        kept: list[int] = []
        seen: list[Tensor] = []
        compare = partial(self._similarities, comparisons=threading.local(), device=device)
        batches = (range(first, first + self.filter_batch) for first in count(0, self.filter_batch))
        with closing(in_threads(compare, batches)) as similarities:
            while len(kept) < n:
                seen.append(next(similarities))
                first = self.filter_batch * (len(seen) - 1)
                kept += (first + (seen[-1] <= max_similarity).nonzero().flatten()).tolist()
                n_seen = self.filter_batch * len(seen)
                if n_seen >= 1_000 and len(kept) < n_seen / 200:
                    raise ValueError(
                        f"max_similarity={max_similarity} keeps {len(kept)} of {n_seen} candidates: raise it, "
                        f"or lower snr_db (the median similarity is {torch.cat(seen).median():.2f})"
                    )
        self.similarities = torch.cat(seen)
        self._candidates = torch.tensor(kept[:n])

    def _similarities(self, numbers: range, comparisons: threading.local, device: torch.device) -> Tensor:
        """Cosines (len(numbers),) of candidates, block by block, with a comparison of each thread's own."""
        if not hasattr(comparisons, "compare"):
            comparisons.compare = PairComparison(self.filter_block, self.crops.n_samples, device=device)
        cosines = []
        for start in range(0, len(numbers), self.filter_block):
            items = [self._draw(number) for number in numbers[start : start + self.filter_block]]
            cosines.append(comparisons.compare(*([item[key] for item in items] for key in _COMPARED)))
        return torch.cat(cosines)


def mix_batch(batch: dict) -> dict:
    """Add `mixture` to a batch of `MixtureDataset` items, on the device the batch is on.

    Args:
        batch: `target` and `interference` (B, T), `snr_db` (B,), and anything else.

    Returns:
        A new dictionary: `mixture`, `target` and `interference` (B, T) rescaled together, the rest as it was. Where
        `absent` is true, the target is silence and the interference the whole mixture.
    """
    mixed = mix_at_snr(batch["target"], batch["interference"], snr_db=batch["snr_db"])
    if "absent" in batch:
        absent = batch["absent"][:, None]
        mixed = mixed._replace(
            target=mixed.target.masked_fill(absent, 0.0),
            interference=torch.where(absent, mixed.mixture, mixed.interference),
        )
    return {**batch, **mixed._asdict()}


def add_within(first: Tensor, second: Tensor, *, level_db: float) -> Tensor:
    """Add to a sound (T,) another (T,) whose energy is `level_db` above the first's."""
    energy = first.square().sum() / second.square().sum()
    return first + second * (energy * 10 ** (level_db / 10)).sqrt()


def _ungated_loudness(waveform: Tensor) -> float:
    """Loudness in LUFS at 16 kHz; a piece below the gate of -70 LUFS is measured at full scale."""
    level = loudness(waveform, sample_rate=SAMPLE_RATE)
    if math.isfinite(level):
        return level
    peak = float(waveform.abs().max())
    return loudness(waveform / peak, sample_rate=SAMPLE_RATE) + 20 * math.log10(peak)
