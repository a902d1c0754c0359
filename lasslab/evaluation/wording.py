"""Asking in words that training never heard, and for sounds that are not there.

A table of SDRs asks with the list's own captions, which training may have read, and always for a sound that is there.
Three questions remain, asked on the same pairs:

- **Free wording**: what does the SDRi lose when the caption is replaced by words that were never in training?
- **Absence**: what comes back when a mixture of two classes is asked for a third? The level of the estimate relative to
  the mixture's, in dB.
- **Presence**, the control: the same mixtures asked for the classes that are there. A system that answers everything
  with silence does well in the second question and fails this one.

Notebooks: 06 (asking in words), 08 (measuring separation).
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lasslab.data.mixtures import Mixture
from lasslab.evaluation.batches import Batch, Pairs, batches, check_pairs, describe_pair, heading, separate
from lasslab.evaluation.benchmark import provenance, score
from lasslab.evaluation.paraphrases import PARAPHRASES, captions_of, class_of
from lasslab.evaluation.tables import METRICS
from lasslab.evaluation.wording_report import Answer, Request, WordingReport
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.systems.separation import Separator

LOWEST_DB = -120.0  # silence has no level in dB; it counts as this


def evaluate_wording(
    system: Separator,
    pairs: Pairs,
    *,
    n_absent: int = 100,
    snr_db: float = 0.0,
    sample_rate: int = SAMPLE_RATE,
    progress: bool = True,
    batch_size: int = 8,
    seed: int = 0,
    corpus: str | None = None,
    pair_list: str | os.PathLike[str] | None = None,
    labels: Mapping[str, str] | None = None,
    name: str | None = None,
) -> WordingReport:
    """Ask a system in words that training never heard, for sounds that are not there, and for those that are.

    The class of a sound is its corpus label where that is known, else that of its caption (one of `lasslab.data`); an
    interference has the class of the pair whose target it is. Pairs whose target has no `PARAPHRASES` are left out of
    the first question, pairs of which a class is unknown of the other two. Absent classes are drawn from those of the
    list, each about equally often; they and the present ones are asked for with the first caption of the class.

    Args:
        system: what is called on each mixture.
        pairs: `read_pairs(...)` or a `MixtureDataset`.
        n_absent: cases of absence, each another pair or another class.
        snr_db: SNR of pairs from files that have none of their own, dB.
        sample_rate: rate of the mixtures, Hz.
        progress: show a bar.
        batch_size: mixtures per batch.
        seed: of the choice of cases, of the bootstrap, and of a system that draws random numbers.
        corpus: what the heading calls the pairs; default the name of the pair list.
        pair_list: the CSV the pairs came from.
        labels: file name without suffix -> class; `esc50_labels(folder)`, for example.
        name: what tables call the system; default its own name.

    Returns:
        The report.

    Raises:
        ValueError: no pair has a class with paraphrases, there are fewer cases of absence than asked for, or a pair
            cannot be read, mixed or separated; the message names it.

    Notebooks: 06, 08.
    """
    check_pairs(pairs, batch_size=batch_size, snr_db=snr_db)
    if n_absent < 1:
        raise ValueError(f"expected at least one case of absence, got {n_absent}")
    if getattr(pairs, "third_source", 0):
        raise ValueError("items of this dataset do not name their third source: make it with third_source=0")
    items = [describe_pair(pairs[number], number, labels=labels) for number in range(len(pairs))]
    requests = make_requests(items, classes_in(items, labels or {}), n_absent=n_absent, seed=seed)
    by_pair: dict[int, list[Request]] = {}
    for request in requests:
        by_pair.setdefault(request.number, []).append(request)
    answers: dict[Request, Answer] = {}
    with tqdm(total=len(requests), disable=not progress, leave=False, unit="query") as bar:
        for loaded in batches(pairs, batch_size=batch_size, snr_db=snr_db, sample_rate=sample_rate, labels=labels):
            for batch, asked in _ask(loaded, by_pair, batch_size):
                estimates = separate(system, batch, sample_rate=sample_rate, seed=seed)
                answers |= zip(asked, _answers(estimates, batch, asked), strict=True)
                bar.update(len(asked))
    made = provenance(system, seed=seed, pair_list=pair_list) | {"snr_db": snr_db, "sample_rate": sample_rate}
    words = heading(items, corpus, pair_list, snr_db)
    return WordingReport(name or system.name, items, [answers[request] for request in requests], words, made)


def classes_in(items: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> list[tuple[str | None, ...]]:
    """Classes of the sounds in each mixture, the target's first; None where one is unknown.

    Args:
        items: see `lasslab.evaluation.batches.load_item`.
        labels: file name without suffix -> class.

    Returns:
        One tuple for each item.
    """
    targets = [item.get("label") or class_of(item["caption"]) for item in items]
    by_file = {Path(item["target"]).stem: t for item, t in zip(items, targets, strict=True) if "target" in item}
    by_file |= labels
    found = []
    for item, target in zip(items, targets, strict=True):
        if "noise" in item:
            files = [item["noise"], *item.get("more_noise", ())]
            found.append((target, *(by_file.get(Path(file).stem) for file in files)))
        else:
            found.append((target, item.get("interference_label")))
    return found


def make_requests(
    items: Sequence[Mapping[str, Any]], classes: Sequence[tuple[str | None, ...]], *, n_absent: int, seed: int
) -> list[Request]:
    """All questions about a list of pairs.

    Args:
        items: with `caption`.
        classes: see `classes_in`.
        n_absent: cases of absence.
        seed: of their choice.

    Returns:
        Captions and paraphrases of every pair that has some; then the cases of absence, and of presence in the same
        mixtures.

    Raises:
        ValueError: there is no pair with paraphrases, or there are fewer cases of absence than asked for.
    """
    requests: list[Request] = []
    for number, (target, *_) in enumerate(classes):
        if target in PARAPHRASES:
            requests.append(Request(number, "caption", target, items[number]["caption"]))
            requests += [Request(number, "paraphrase", target, words) for words in PARAPHRASES[target]]
    if not requests:
        raise ValueError(
            f"no target is known to be one of the classes with paraphrases ({', '.join(PARAPHRASES)}): use captions of "
            "lasslab.data.captions in the list, or an ESC-50 folder with its meta/esc50.csv"
        )
    cases = _absent_cases(classes, n_absent, seed)
    requests += [Request(number, "absent", label, captions_of(label)[0]) for number, label in cases]
    for number in dict.fromkeys(number for number, _ in cases):
        parts = {"target": classes[number][0]}
        if len(classes[number]) == 2:  # of three and more sources, the interference is a sum of classes
            parts["interference"] = classes[number][1]
        requests += [Request(number, "present", label, captions_of(label)[0], part) for part, label in parts.items()]
    return requests


def _absent_cases(classes: Sequence[tuple[str | None, ...]], n: int, seed: int) -> list[tuple[int, str]]:
    """(pair, class that is not in it), n of them: every pair before any comes back, every class about as often."""
    known = {
        number: {label for label in found if label is not None}
        for number, found in enumerate(classes)
        if all(label is not None and captions_of(label) for label in found)
    }
    candidates = sorted(set().union(*known.values()))
    random = np.random.default_rng(seed)
    order = random.permutation(list(known)).tolist()
    used: Counter[str] = Counter()
    cases: list[tuple[int, str]] = []
    for _ in candidates:  # each round asks a pair for one more class
        for number in order:
            if len(cases) == n:
                return cases
            free = [label for label in candidates if label not in known[number]]
            if free:
                fewest = min(used[label] for label in free)
                label = str(random.choice([label for label in free if used[label] == fewest]))
                known[number].add(label)
                used[label] += 1
                cases.append((number, label))
    if len(cases) < n:
        raise ValueError(
            f"{n} cases of absence were asked for, the list gives {len(cases)} ({len(known)} of {len(classes)} pairs "
            f"have known classes, {len(candidates)} different ones): ask for fewer, or give a list of more classes"
        )
    return cases


def _ask(
    loaded: Batch, by_pair: Mapping[int, Sequence[Request]], batch_size: int
) -> Iterator[tuple[Batch, list[Request]]]:
    """A batch of mixtures and all the requests about them -> batches of one mixture for each request."""
    asked = [
        (position, request) for position, number in enumerate(loaded.numbers) for request in by_pair.get(number, ())
    ]
    for first in range(0, len(asked), batch_size):
        positions, requests = zip(*asked[first : first + batch_size], strict=True)
        batch = Batch(
            numbers=[loaded.numbers[position] for position in positions],
            items=[loaded.items[position] for position in positions],
            queries=[request.query for request in requests],
            mixture=Mixture(*(part[list(positions)] for part in loaded.mixture)),
        )
        yield batch, list(requests)


def _answers(estimates: Tensor, batch: Batch, asked: Sequence[Request]) -> list[Answer]:
    sdri = score(estimates, batch)[:, METRICS.index("sdri")]
    parts = [getattr(batch.mixture, request.source)[row] for row, request in enumerate(asked)]
    level = _level_db(estimates, batch.mixture.mixture)
    kept = _level_db(estimates, torch.stack(parts))
    return [Answer(*row) for row in zip(asked, sdri.tolist(), level.tolist(), kept.tolist(), strict=True)]


def _level_db(signal: Tensor, reference: Tensor) -> Tensor:
    """10 log10(|signal|^2 / |reference|^2) in dB, not below `LOWEST_DB`: (B, T), (B, T) -> (B,)."""
    energy, against = (part.double().square().sum(dim=-1) for part in (signal, reference))
    return (10 * torch.log10(energy / against)).clamp(min=LOWEST_DB)
