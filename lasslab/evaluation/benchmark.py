"""A system on a list of pairs: one table with its floors and its ceiling.

An SDR improvement means little alone: half the mixture scores 3.01 dB at 0 dB, silence "improves" whatever
lies below 0 dB. So every run also scores, on the same mixtures,

- `silence`: SDR exactly 0 dB; its SI-SDR is 0 / 0 and is reported as undefined, not as some number;
- `mixture`: the unprocessed mixture, from which improvements are counted;
- `constant_gain`: the mixture times the best gain **for each item**, <x, s> / |x|^2. No gain can do better,
  fixed or not;
- `oracle_mask`: the ideal ratio mask of magnitudes, 512 / 256 samples at 16 kHz: the ceiling.

A score that is undefined or infinite is left out of its column's mean, standard deviation and interval, and
counted beside.

Notebooks: 05 (floors and ceilings), 08 (measuring separation).
"""

import datetime
import hashlib
import importlib.metadata
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from lasslab.data.mixtures import Mixture, Pair, load_pair, mix_at_snr
from lasslab.evaluation.metrics import (
    best_gain,
    bootstrap_interval,
    sdr,
    sdr_improvement,
    si_sdr,
    si_sdr_improvement,
)
from lasslab.evaluation.provenance import device_name, git_commit
from lasslab.models.text import check_query
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.signal.files import write_json
from lasslab.systems.separation import OracleMask, Separator

METRICS = ("sdr", "sdri", "si_sdr", "si_sdri")
HEADINGS = ("SDR", "SDRi", "SI-SDR", "SI-SDRi")
FLOORS = ("silence", "mixture", "constant_gain", "oracle_mask")
CEILING = OracleMask("ratio", exponent=1.0)
CONFIDENCE = 0.95
WINDOW = 64  # pairs held in memory at a time, from which clips of one length are batched


@dataclass(frozen=True, eq=False)
class Report:
    """What `evaluate` found.

    Args:
        system: its name.
        scores: one row per item, one column per entry of `METRICS`, dB, shape (n, 4).
        floors: the same for each entry of `FLOORS`.
        items: what each row was: idx, caption, files or labels.
        heading: number of pairs, corpus and SNR, in words.
        provenance: where the figures come from.
    """

    system: str
    scores: Tensor
    floors: dict[str, Tensor]
    items: list[dict[str, Any]]
    heading: str
    provenance: dict[str, Any]

    @property
    def mean(self) -> dict[str, float | None]:
        """Mean of each metric in dB; None where no item has a defined score."""
        return _mean(self.scores)

    @property
    def std(self) -> dict[str, float | None]:
        """Standard deviation over the items in dB; None for fewer than two of them."""
        columns = _columns(self.scores)
        return {name: column.std().item() if len(column) > 1 else None for name, column in columns.items()}

    @property
    def interval(self) -> dict[str, tuple[float, float] | None]:
        """95 % bootstrap interval of each mean, in dB."""
        seed = self.provenance["seed"]
        return {
            name: bootstrap_interval(column, confidence=CONFIDENCE, seed=seed) if len(column) else None
            for name, column in _columns(self.scores).items()
        }

    @property
    def undefined(self) -> dict[str, int]:
        """Items whose score is undefined or infinite, for each metric."""
        return {name: len(self.scores) - len(column) for name, column in _columns(self.scores).items()}

    def table(self) -> str:
        """The report as aligned text: floors, system with spread and interval, ceiling."""
        interval = self.interval
        rows = [
            ("silence", _cells(_mean(self.floors["silence"]))),
            ("mixture", _cells(_mean(self.floors["mixture"]))),
            ("mixture x best gain", _cells(_mean(self.floors["constant_gain"]))),
            (self.system, _cells(self.mean)),
            ("  std over pairs", _cells(self.std)),
            (f"  {CONFIDENCE:.0%} interval of mean", [_interval_cell(interval[name]) for name in METRICS]),
            ("oracle ratio mask", _cells(_mean(self.floors["oracle_mask"]))),
        ]
        return "\n".join([self.heading, *_aligned([("", list(HEADINGS)), *rows]), *self._notes()])

    def _notes(self) -> list[str]:
        notes = ["– : undefined; the SI-SDR of silence is 0 / 0."]
        for name, heading in zip(METRICS, HEADINGS, strict=True):
            if count := self.undefined[name]:
                notes.append(f"{heading} not finite for {count} of {len(self.items)} items: left out of its mean.")
        return notes

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; a score that is undefined or infinite is null."""
        return {
            "system": self.system,
            "n": len(self.items),
            "mean": self.mean,
            "std": self.std,
            "interval": {name: list(ends) if ends else None for name, ends in self.interval.items()},
            "undefined": self.undefined,
            "floors": {name: _mean(scores) for name, scores in self.floors.items()},
            "per_item": [
                item | {name: _finite(score) for name, score in zip(METRICS, scores, strict=True)}
                for item, scores in zip(self.items, self.scores.tolist(), strict=True)
            ],
            "provenance": self.provenance,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json()` to a file, whole or not at all.

        Args:
            path: file to write, in a folder that exists.

        Raises:
            ValueError: the folder does not exist.
        """
        if not Path(path).parent.is_dir():
            raise ValueError(f"{path} cannot be written, there is no folder {Path(path).parent}: make it first")
        write_json(path, self.to_json())

    def __str__(self) -> str:
        return self.table()


def evaluate(
    system: Separator,
    pairs: Sequence[Pair] | Sequence[Mapping[str, Any]],
    *,
    snr_db: float = 0.0,
    sample_rate: int = SAMPLE_RATE,
    progress: bool = True,
    batch_size: int = 8,
    seed: int = 0,
    corpus: str | None = None,
    pair_list: str | os.PathLike[str] | None = None,
) -> Report:
    """Score a system on pairs, with floors and ceiling in the same run.

    Args:
        system: what is called on each mixture. Clips of one length run together where it has
            `separate_batch`.
        pairs: `read_pairs(...)`, mixed here as AudioSep does; or a `MixtureDataset`, mixed at its own SNRs.
        snr_db: SNR of pairs from files, dB.
        sample_rate: rate of the mixtures, Hz.
        progress: show a bar.
        batch_size: clips per batch.
        seed: of the bootstrap, and of a system that draws random numbers.
        corpus: what the heading calls the pairs; default the name of the pair list.
        pair_list: the CSV the pairs came from; its name and SHA-256 go into the provenance.

    Returns:
        The report.

    Raises:
        ValueError: there is no pair, or one cannot be read, mixed or separated; the message names it.

    Notebook: 08.
    """
    if not len(pairs):
        raise ValueError("there is no pair to evaluate on: give at least one")
    if batch_size < 1 or not math.isfinite(snr_db):
        raise ValueError(f"expected batch_size >= 1 and a finite snr_db, got {batch_size} and {snr_db}")
    scores = {name: torch.empty(len(pairs), len(METRICS), dtype=torch.float64) for name in ("system", *FLOORS)}
    items: list[dict[str, Any]] = [{} for _ in range(len(pairs))]
    seconds = audio = 0.0
    with tqdm(total=len(pairs), disable=not progress, leave=False, unit="pair") as bar:
        for batch in _batches(pairs, batch_size, snr_db, sample_rate):
            started = time.perf_counter()
            estimates = _separate(system, batch, sample_rate, seed)
            seconds += time.perf_counter() - started
            audio += batch.mixture.mixture.numel() / sample_rate
            for name, rows in _score_batch(estimates, batch, sample_rate).items():
                scores[name][batch.numbers] = rows
            for number, item in zip(batch.numbers, batch.items, strict=True):
                items[number] = item
            bar.update(len(batch.numbers))
    return Report(
        system=system.name,
        scores=scores.pop("system"),
        floors=scores,
        items=items,
        heading=_heading(items, corpus or (Path(pair_list).name if pair_list else "pairs in memory"), snr_db),
        provenance=_provenance(system, seed, pair_list)
        | {
            "snr_db": snr_db,
            "sample_rate": sample_rate,
            "seconds": round(seconds, 2),
            "audio_seconds": round(audio, 2),
        },
    )


class Batch(NamedTuple):
    """Mixtures of one length: their positions in the list, what they are, queries, and (B, T) waveforms."""

    numbers: list[int]
    items: list[dict[str, Any]]
    queries: list[str]
    mixture: Mixture

    @property
    def names(self) -> str:
        """How messages call these items."""
        return ", ".join(f"pair {item['idx']}" for item in self.items)


def _batches(pairs: Sequence, batch_size: int, snr_db: float, sample_rate: int) -> Iterator[Batch]:
    """Load the pairs window by window, and group clips of one length: padding changes what is heard."""
    for start in range(0, len(pairs), WINDOW):
        by_length: dict[int, list[tuple[int, dict[str, Any], Mixture]]] = {}
        for number in range(start, min(start + WINDOW, len(pairs))):
            item, mixture = _load(pairs[number], number, snr_db, sample_rate)
            by_length.setdefault(mixture.mixture.shape[-1], []).append((number, item, mixture))
        for group in by_length.values():
            for first in range(0, len(group), batch_size):
                numbers, items, mixtures = zip(*group[first : first + batch_size], strict=True)
                stacked = Mixture(*(torch.stack(part) for part in zip(*mixtures, strict=True)))
                yield Batch(list(numbers), list(items), [item["caption"] for item in items], stacked)


def _load(pair: Pair | Mapping[str, Any], number: int, snr_db: float, sample_rate: int) -> tuple[dict, Mixture]:
    if isinstance(pair, Pair):
        item = {"idx": pair.idx, "caption": pair.caption}
        item |= {"target": pair.target_path.name, "noise": pair.noise_path.name}
    else:
        item = {"idx": str(number), "caption": pair["query"], "snr_db": float(pair["snr_db"])}
        item |= {name: pair[name] for name in ("label", "interference_label") if name in pair}
    try:
        check_query(item["caption"])
        if isinstance(pair, Pair):
            return item, load_pair(pair, snr_db=snr_db, sample_rate=sample_rate)
        return item, mix_at_snr(pair["target"], pair["interference"], snr_db=pair["snr_db"])
    except ValueError as error:
        raise ValueError(f"pair {item['idx']}: {error}") from error


def _separate(system: Separator, batch: Batch, sample_rate: int, seed: int) -> Tensor:
    """Estimates (B, T) of a batch."""
    mixtures = batch.mixture.mixture
    try:
        if isinstance(system, OracleMask):  # its channels have masks of their own, so a batch can pass as channels
            return system(mixtures, batch.queries[0], target=batch.mixture.target, sample_rate=sample_rate)
        if hasattr(system, "separate_batch"):
            return system.separate_batch(mixtures, batch.queries, sample_rate=sample_rate)
        estimates = []
        for number, mixture, query in zip(batch.numbers, mixtures, batch.queries, strict=True):
            generator = torch.Generator().manual_seed(seed + number)  # no item's result depends on the others
            estimates.append(system(mixture, query, sample_rate=sample_rate, generator=generator))
        return torch.stack(estimates)
    except ValueError as error:
        raise ValueError(f"{batch.names}: {error}") from error


def _score_batch(estimates: Tensor, batch: Batch, sample_rate: int) -> dict[str, Tensor]:
    """Scores (B, 4) of the system, the floors and the ceiling."""
    mixture, target, _ = batch.mixture
    try:
        rows = {
            "system": estimates,
            "silence": torch.zeros_like(mixture),
            "mixture": mixture,
            "constant_gain": best_gain(estimate=mixture, target=target)[:, None] * mixture.double(),
            "oracle_mask": CEILING(mixture, batch.queries[0], target=target, sample_rate=sample_rate),
        }
        return {name: _score(estimate, target, mixture) for name, estimate in rows.items()}
    except ValueError as error:
        raise ValueError(f"{batch.names}: {error}") from error


def _score(estimate: Tensor, target: Tensor, mixture: Tensor) -> Tensor:
    """(B, T) -> (B, 4), columns as in `METRICS`."""
    columns = [
        sdr(estimate=estimate, target=target),
        sdr_improvement(estimate=estimate, target=target, mixture=mixture),
        si_sdr(estimate=estimate, target=target),
        si_sdr_improvement(estimate=estimate, target=target, mixture=mixture),
    ]
    return torch.stack(columns, dim=-1)


def _columns(scores: Tensor) -> dict[str, Tensor]:
    """Finite scores of each metric."""
    return {name: column[column.isfinite()] for name, column in zip(METRICS, scores.T, strict=True)}


def _mean(scores: Tensor) -> dict[str, float | None]:
    return {name: column.mean().item() if len(column) else None for name, column in _columns(scores).items()}


def _finite(score: float) -> float | None:
    return score if math.isfinite(score) else None


def _cells(figures: Mapping[str, float | None]) -> list[str]:
    return ["–" if figures[name] is None else _two_decimals(figures[name]) for name in METRICS]


def _interval_cell(ends: tuple[float, float] | None) -> str:
    return "–" if ends is None else f"[{_two_decimals(ends[0])}, {_two_decimals(ends[1])}]"


def _two_decimals(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # + 0.0 turns -0.00 into 0.00


def _aligned(rows: list[tuple[str, list[str]]]) -> list[str]:
    """Labels to the left, cells to the right."""
    first = max(len(label) for label, _ in rows)
    widths = [max(len(cells[column]) for _, cells in rows) for column in range(len(METRICS))]
    return [
        label.ljust(first) + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for label, cells in rows
    ]


def _heading(items: list[dict[str, Any]], corpus: str, snr_db: float) -> str:
    levels = [item.get("snr_db", snr_db) for item in items]
    low, high = min(levels), max(levels)
    level = f"{low:g} dB" if low == high else f"{low:.1f} to {high:.1f} dB"
    return f"{len(items)} pairs of {corpus}, mixed at {level} SNR; means in dB"


def _provenance(system: Separator, seed: int, pair_list: str | os.PathLike[str] | None) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "lasslab": _version(),
        "commit": git_commit(),
        "torch": str(torch.__version__),
        "device": device_name(getattr(system, "device", "cpu")),
        "seed": seed,
        "pair_list": None if pair_list is None else Path(pair_list).name,
        "pair_list_sha256": None if pair_list is None else hashlib.sha256(Path(pair_list).read_bytes()).hexdigest(),
        "constant_gain": "best gain for each item",
        "oracle_mask": f"ratio mask, exponent {CEILING.exponent:g}, {CEILING.n_fft} / {CEILING.hop_length}",
    }


def _version() -> str | None:
    try:
        return importlib.metadata.version("lasslab")
    except importlib.metadata.PackageNotFoundError:
        return None
