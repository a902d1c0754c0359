"""Pairs in, batches of mixtures of one length out, and what a system answers to them.

Shared by everything that scores: tables (`benchmark`), free wording and absent sounds (`wording`), pictures; and, for
items that are no pairs, by `editing`.
"""

import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from lasslab.data.mixtures import Mixture, mix_at_snr
from lasslab.data.pairs import Pair, load_pair
from lasslab.models.text import check_query
from lasslab.systems.separation import OracleMask, Separator

WINDOW = 64  # pairs held in memory at a time, from which clips of one length are batched

PathLike = str | os.PathLike[str]
Pairs = Sequence[Pair] | Sequence[Mapping[str, Any]]
Loaded = TypeVar("Loaded")


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


def batches(
    pairs: Pairs,
    *,
    batch_size: int,
    snr_db: float,
    sample_rate: int,
    labels: Mapping[str, str] | None = None,
) -> Iterator[Batch]:
    """Load the pairs window by window, and group clips of one length: padding changes what is heard.

    Args:
        pairs: see `load_item`.
        batch_size: most clips in a batch.
        snr_db: see `load_item`.
        sample_rate: Hz.
        labels: see `load_item`.

    Yields:
        Batch: every pair is in one; within one length the order is the list's.

    Raises:
        ValueError: a pair cannot be read or mixed; the message names it.
    """

    def load(number: int) -> tuple[dict[str, Any], Mixture]:
        return load_item(pairs[number], number, snr_db=snr_db, sample_rate=sample_rate, labels=labels)

    grouped = by_length(len(pairs), load, lambda loaded: loaded[1].mixture.shape[-1], batch_size=batch_size)
    for numbers, loaded in grouped:
        items, mixtures = zip(*loaded, strict=True)
        stacked = Mixture(*(torch.stack(part) for part in zip(*mixtures, strict=True)))
        yield Batch(numbers, list(items), [item["caption"] for item in items], stacked)


def by_length(
    n: int, load: Callable[[int], Loaded], length: Callable[[Loaded], int], *, batch_size: int
) -> Iterator[tuple[list[int], list[Loaded]]]:
    """Load items window by window, and group those of one length.

    Args:
        n: number of items.
        load: an item's number -> the item.
        length: of an item, samples.
        batch_size: most items in a batch.

    Yields:
        tuple[list[int], list[Loaded]]: Numbers and items; every item is in one batch, and within one length the order
        is that of the numbers.
    """
    for start in range(0, n, WINDOW):
        groups: dict[int, list[tuple[int, Loaded]]] = {}
        for number in range(start, min(start + WINDOW, n)):
            loaded = load(number)
            groups.setdefault(length(loaded), []).append((number, loaded))
        for group in groups.values():
            for first in range(0, len(group), batch_size):
                numbers, items = zip(*group[first : first + batch_size], strict=True)
                yield list(numbers), list(items)


def load_item(
    pair: Pair | Mapping[str, Any],
    number: int,
    *,
    snr_db: float,
    sample_rate: int,
    labels: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], Mixture]:
    """What a pair is, in words and names, and its mixture.

    Args:
        pair: a row of a pair list, mixed at its own SNR where it has one; or an item of a `MixtureDataset`.
        number: position in the list; the name of an item of a dataset.
        snr_db: SNR of rows that have none of their own, dB.
        sample_rate: Hz.
        labels: file name without suffix -> class, for the files of a pair list whose classes are known.

    Returns:
        The item: idx and caption; target and noise (file names) or label and interference_label; snr_db where it is the
        pair's own. And the mixture, (T,) each.

    Raises:
        ValueError: the pair cannot be read or mixed, or asks for what is not in it; the message names the pair.
    """
    item = describe_pair(pair, number, labels=labels)
    try:
        check_query(item["caption"])
        if isinstance(pair, Pair):
            return item, load_pair(pair, snr_db=item.get("snr_db", snr_db), sample_rate=sample_rate)
        if pair.get("absent"):
            raise ValueError("it asks for a sound that is not in it, and has no SDR: make the dataset with absent=0")
        return item, mix_at_snr(pair["target"], pair["interference"], snr_db=pair["snr_db"])
    except ValueError as error:
        raise ValueError(f"pair {item['idx']}: {error}") from error


def describe_pair(
    pair: Pair | Mapping[str, Any], number: int, *, labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The item of `load_item` alone; reads no file."""
    labels = labels or {}
    if not isinstance(pair, Pair):
        item = {"idx": str(number), "caption": pair["query"], "snr_db": float(pair["snr_db"])}
        return item | {name: pair[name] for name in ("label", "interference_label") if name in pair}
    item: dict[str, Any] = {"idx": pair.idx, "caption": pair.caption}
    item |= {"target": pair.target_path.name, "noise": pair.noise_path.name}
    if pair.more_noise_paths:
        item["more_noise"] = [path.name for path in pair.more_noise_paths]
    files = {"label": pair.target_path, "interference_label": pair.noise_path}
    item |= {name: labels[path.stem] for name, path in files.items() if path.stem in labels}
    return item if pair.snr_db is None else item | {"snr_db": pair.snr_db}


def separate(system: Separator, batch: Batch, *, sample_rate: int, seed: int) -> Tensor:
    """What a system answers to a batch.

    A system that has `separate_batch(mixtures (B, T), queries, *, sample_rate)` is called once for the batch, any other
    once for each mixture. Two things are passed to those whose signature names them:

    - `generators`, one `torch.Generator` on the CPU for each item, to `separate_batch` (`generator` to a call about one
      mixture): it is made from the seed and the item's number, so that no result depends on the batch an item is in;
    - `target`, (B, T) or (T,), which makes the system a ceiling, as `OracleMask` is one.

    Args:
        system: see above.
        batch: mixtures and queries.
        sample_rate: Hz.
        seed: of a system that draws random numbers.

    Returns:
        Estimates (B, T).

    Raises:
        ValueError: the system refuses, or answers in another shape or with unusable numbers; names the pairs.
    """
    mixtures, target = batch.mixture.mixture, batch.mixture.target
    try:
        if isinstance(system, OracleMask):  # its channels have masks of their own, so a batch can pass as channels
            return system(mixtures, batch.queries[0], target=target, sample_rate=sample_rate)
        together = getattr(system, "separate_batch", None)
        return ask(
            system,
            mixtures,
            batch.queries,
            batch.numbers,
            target=target,
            together=together,
            sample_rate=sample_rate,
            seed=seed,
        )
    except ValueError as error:
        raise ValueError(f"{batch.names}: {error}") from error


def ask(
    system: Callable[..., Tensor],
    waveforms: Tensor,
    words: Sequence[str],
    numbers: Sequence[int],
    *,
    target: Tensor,
    together: Callable[..., Tensor] | None,
    sample_rate: int,
    seed: int,
) -> Tensor:
    """What a system answers to recordings of one length, all at once where it can; see `separate`.

    Args:
        system: called about one recording.
        waveforms: (B, T).
        words: B sentences.
        numbers: of the items, which with the seed decide the random numbers.
        target: (B, T), for a ceiling.
        together: called about all of them, or None where the system has no such call.
        sample_rate: Hz.
        seed: of a system that draws random numbers.

    Returns:
        Answers (B, T).

    Raises:
        ValueError: what the system refuses.
    """
    generators = [item_generator(seed, number) for number in numbers]
    if together is not None:
        offered = {"generators": generators, "target": target}
        options = {name: value for name, value in offered.items() if accepts(together, name)}
        return together(waveforms, words, sample_rate=sample_rate, **options)
    answers = []
    for row, generator in enumerate(generators):
        options = {"target": target[row]} if sees_target(system) else {}
        options |= {"sample_rate": sample_rate, "generator": generator}
        answers.append(system(waveforms[row], words[row], **options))
    return torch.stack(answers)


def item_generator(seed: int, number: int) -> torch.Generator:
    """Random numbers of one item, on the CPU.

    Args:
        seed: of the run.
        number: position of the item in the list.

    Returns:
        A generator. Seeds and numbers are mixed, not added: item 1 of seed 0 and item 0 of seed 1 share no noise.
    """
    mixed = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0] >> np.uint64(1)))


def sees_target(system: Separator) -> bool:
    """Whether a system takes the target: then it is a ceiling, not a separator."""
    return accepts(system, "target")


def accepts(function: Callable, name: str) -> bool:
    """Whether a callable names this parameter in its signature."""
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C, or no function
        return False


def check_pairs(pairs: Pairs, *, batch_size: int, snr_db: float) -> None:
    """Refuse what cannot be evaluated before any work is done.

    Args:
        pairs: at least one.
        batch_size: at least 1.
        snr_db: a finite number.

    Raises:
        ValueError: one of the three is not so.
    """
    if not len(pairs):
        raise ValueError("there is no pair to evaluate on: give at least one")
    if batch_size < 1 or not math.isfinite(snr_db):
        raise ValueError(f"expected batch_size >= 1 and a finite snr_db, got {batch_size} and {snr_db}")


def heading(items: Sequence[Mapping[str, Any]], corpus: str | None, pair_list: PathLike | None, snr_db: float) -> str:
    """Number of pairs, corpus (default: the name of the list) and SNR, in words."""
    corpus = corpus or (Path(pair_list).name if pair_list else "pairs in memory")
    levels = [item.get("snr_db", snr_db) for item in items]
    low, high = min(levels), max(levels)
    level = f"{low:g} dB" if low == high else f"{low:.1f} to {high:.1f} dB"
    return f"{len(items)} pairs of {corpus}, mixed at {level} SNR; means in dB"
