"""Editors on a list of triplets: one table with a floor and a ceiling, over all edits and for each task.

RFM-Editing (table 1) reports FD, FAD, KL, IS, CLAP and seconds per clip. Here, with the metrics of
`lasslab.evaluation.distances`, all in one named embedding:

- FD and FAD are the same formula. The paper computes FD on PANNs and FAD on VGGish; in one embedding both are one
  figure, which is reported once, as "FAD (clap-lab)".
- KL and IS are those of the embedding's class probabilities. A CLAP from the hub has no class head: its probabilities
  are of a zero-shot choice between captions, see `lasslab.models.clap.HubCLAP`.
- CLAP is `clap_score` of the edited recording and the **target's caption**, which no editor is given; CLAPScore_A is
  the likeness to the target itself. LSD is the log-spectral distance to it.

And what the paper does not report: **edit accuracy** and **preservation**, see `lasslab.evaluation.edit_metrics`; and
seconds and memory, see `lasslab.evaluation.cost`.

- Floor: the original as it is. Its edit accuracy is 0 by definition, its preservation next to perfect.
- Ceiling: the target through VAE and vocoder and back, which is all that an editor in that latent space can reach. One
  that hands on parts of the recording itself (`lasslab.systems.keeping`) can pass it in preservation.

FD and FAD compare sets. Of a list that holds whole groups, an edit with its inverse, the originals are the targets in
another order: there the unedited original has FAD 0, and no editor can be better. `lasslab triplets` therefore draws
every edit from sounds of its own; 150 such edits of ESC-10 fold 4 and synthesised clips give the original a FAD of 0.02
over all (bias: 0.02), of 0.07 to 0.09 for each task (clap-lab). Whole groups of the same clips: 0 over all and for
"replace", 0.12 for "add" and "remove". Over all edits, what comes into some recordings goes from others: read FAD task
by task, and KL and CLAPScore_A, which are paired, beside it.

An item whose target is its original asks for the removal of a sound that is not there. Such items are no edits. They
stand in a group of their own, "absent": how much of the recording has changed, beside what the round trip changes.

Notebooks: 14, 15.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from lasslab.data.edits import EditDataset, edit_batch
from lasslab.data.instructions import TASKS, check_task, read_instruction
from lasslab.data.triplets import Triplet, load_triplet
from lasslab.evaluation.batches import ask, by_length, sees_target
from lasslab.evaluation.benchmark import (
    device_of,
    metered,
    name_systems,
    provenance,
    sampling_settings,
    system_key,
)
from lasslab.evaluation.cost import Meter
from lasslab.evaluation.distances import log_mel_distance
from lasslab.evaluation.edit_metrics import FLOOR_DB, distance_at, judge_edits, silent_points
from lasslab.evaluation.editing_report import EditingComparison, EditingReport, Group
from lasslab.evaluation.embedding_scores import EmbeddingScorer, EmbeddingScores
from lasslab.models.clap import AudioTextEmbedding
from lasslab.models.text import check_instruction
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.signal.mel import DB_PER_NAT
from lasslab.systems.codec import RoundTrip
from lasslab.systems.editing import Editor, Unedited, UnknownTask

Edits = Sequence[Triplet] | EditDataset | Sequence[Mapping[str, Any]]

ADDS_UP_DB = -20.0  # how far original - removed and target - added may differ, relative to the original
LOWEST_DB = -120.0  # silence has no level in dB; it counts as this
FLOOR = Unedited.name
CEILING = "round-trip"
#: of a system's waveforms, without an embedding
WAVEFORM_METRICS = ("preservation", "preservation_db", "change_db", "level_db")
#: of the items whose target is their original
ABSENT_METRICS = ("change_db", "level_db", "clap_score_a")


class EditBatch(NamedTuple):
    """Edits of one length: positions in the list, what they are, and (B, T) waveforms.

    `removed` and `added` are zeros where nothing goes or comes; `known` says of which items they are known.
    """

    numbers: list[int]
    items: list[dict[str, Any]]
    original: Tensor
    target: Tensor
    removed: Tensor
    added: Tensor
    known: Tensor

    @property
    def names(self) -> str:
        """How messages call these items."""
        return ", ".join(f"triplet {item['idx']}" for item in self.items)


def evaluate_editing(
    systems: Editor | Sequence[Editor],
    triplets: Edits,
    *,
    embedding: AudioTextEmbedding | None = None,
    ceiling: RoundTrip | None = None,
    batch_size: int = 8,
    seed: int = 0,
    corpus: str | None = None,
    triplet_list: str | os.PathLike[str] | None = None,
    names: Sequence[str] | None = None,
    progress: bool = True,
) -> EditingComparison:
    """Score editors on the same edits, with floor and ceiling in the same run.

    Args:
        systems: one, or several; see `lasslab.systems.editing`. Edits of one length run together where a system has
            `edit_batch`.
        triplets: `read_triplets(...)`, or an `EditDataset`.
        embedding: what FAD, KL, IS, CLAP and edit accuracy are computed in, `load_clap("clap-lab")` for example; None
            leaves them out.
        ceiling: VAE and vocoder of the ceiling; those of the first system that has some when left out.
        batch_size: edits per batch.
        seed: of the bootstrap, and of the noise.
        corpus: what the heading calls the edits; default the name of the list.
        triplet_list: the CSV the triplets came from; its name and SHA-256 go into the provenance.
        names: what tables call the systems, in their order; default their own names, numbered where two are the same.
        progress: show a bar.

    Returns:
        The comparison of the systems' reports.

    Raises:
        ValueError: there is no system, no edit or no ceiling; a system needs the target; or a triplet cannot be read
            or edited; the message names it.

    Notebook: 14.
    """
    if not len(triplets) or batch_size < 1:
        raise ValueError(f"expected a triplet at least and batch_size >= 1, got {len(triplets)} and {batch_size}")
    named = name_systems(systems if isinstance(systems, Sequence) else [systems], names)
    for name, each in named.items():
        if sees_target(each):
            raise ValueError(f"{name} needs the target, so that it is no editor: it is in the table as the ceiling")
    ceiling = ceiling or _own_ceiling(list(named.values()))
    answering = {system_key(name): each for name, each in named.items()} | {FLOOR: Unedited(), CEILING: ceiling}
    n = len(triplets)
    meters = {name: Meter(device_of(each), batch_size) for name, each in answering.items()}
    own = {name: {metric: _nothing(n) for metric in WAVEFORM_METRICS} for name in answering}
    items: list[dict[str, Any]] = [{} for _ in range(n)]
    scorer = judge = None
    if embedding is not None:
        scorer = EmbeddingScorer(embedding, n=n, names=list(answering), sample_rate=SAMPLE_RATE)
    audio = 0.0
    with tqdm(total=n, disable=not progress, leave=False, unit="edit") as bar:
        for batch in edit_batches(triplets, batch_size=batch_size):
            ask_for = partial(edit, batch=batch, seed=seed)
            answers = metered(meters, answering, ask_for, n_clips=len(batch.numbers))
            silent = silent_points(original=batch.original, removed=batch.removed, added=batch.added)
            for name, estimates in answers.items():
                for metric, values in _waveform_metrics(estimates, batch, *silent).items():
                    own[name][metric][batch.numbers] = values
            for number, item in zip(batch.numbers, batch.items, strict=True):
                items[number] = item
            if scorer is not None:
                try:
                    scorer.add(batch.numbers, [item["caption"] for item in batch.items], batch.target, answers)
                except ValueError as error:
                    raise ValueError(f"{batch.names}: {error}") from error
            audio += batch.original.numel() / SAMPLE_RATE
            bar.update(len(batch.numbers))
    if all(item["absent"] for item in items):
        raise ValueError("every target is its original: there is no edit to evaluate, only sounds that are not there")
    if scorer is not None:
        judge = _edit_accuracy(scorer, items)
    groups = {name: [] for name in answering}
    for title, numbers in _groups(items):
        found = _scores(scorer, own, judge, numbers, seed=seed)
        for name, scores in found.items():
            groups[name].append(Group(title, numbers, _only(scores, absent=title == "absent")))
    reports = []
    for name, each in named.items():
        key = system_key(name)
        made = provenance(each, seed=seed, pair_list=triplet_list, key="triplet_list")
        made |= {"sample_rate": SAMPLE_RATE, "audio_seconds": round(audio, 2)}
        made |= {"seconds": round(meters[key].total, 2)} | sampling_settings(each)
        reports.append(
            EditingReport(
                system=name,
                groups=tuple(groups[key]),
                floors={FLOOR: tuple(groups[FLOOR])},
                ceilings={CEILING: tuple(groups[CEILING])},
                items=[item | _of_item(scorer, key, number, item) for number, item in enumerate(items)],
                heading=_heading(items, corpus, triplet_list),
                provenance=made,
                embedding=None if scorer is None else scorer.about(),
                cost=meters[key].to_json(),
                ceiling_costs={CEILING: meters[CEILING].to_json()},
            )
        )
    return EditingComparison(tuple(reports))


def _own_ceiling(systems: Sequence[Editor]) -> RoundTrip:
    for each in systems:
        if hasattr(each, "codec"):
            return RoundTrip(each.codec, device_of(each))
    raise ValueError('no system has a VAE and a vocoder for the ceiling: give ceiling=load_editor("round-trip")')


def edit_batches(triplets: Edits, *, batch_size: int) -> Iterator[EditBatch]:
    """Load edits window by window, and group those of one length.

    Args:
        triplets: see `load_edit`.
        batch_size: most edits in a batch.

    Yields:
        EditBatch: every edit is in one; within one length the order is the list's.

    Raises:
        ValueError: see `load_edit`.
    """

    def load(number: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return load_edit(triplets[number], number)

    grouped = by_length(len(triplets), load, lambda loaded: loaded[1]["original"].shape[-1], batch_size=batch_size)
    for numbers, loaded in grouped:
        items, parts = zip(*loaded, strict=True)
        waveforms = {name: torch.stack([each[name] for each in parts]) for name in parts[0]}
        yield EditBatch(numbers, list(items), **waveforms)


def load_edit(triplet: Triplet | Mapping[str, Any], number: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What an edit is, in words and names, and its waveforms.

    The sounds that go and come are read from their files where the list names them. Else that of an add is target -
    original and that of a removal original - target; those of a replacement stay unknown.

    Args:
        triplet: a row of a list, or an item of an `EditDataset`.
        number: position in the list.

    Returns:
        The item: idx, task, instruction, caption, the labels, names of the files, and whether the sound is absent. And
        `original`, `target`, `removed`, `added` (T,) at 16 kHz, and `known` ().

    Raises:
        ValueError: the triplet cannot be read, is silent, or does not add up; the message names it.
    """
    is_row = isinstance(triplet, Triplet)
    words = {
        name: getattr(triplet, name) if is_row else triplet[name]
        for name in ("task", "instruction", "caption", "removed_label", "added_label")
    }
    item: dict[str, Any] = {"idx": str(number), **words}
    try:
        check_task(item["task"])
        check_instruction(item["instruction"])
        if is_row:
            item |= {name: getattr(triplet, name).name for name in ("original", "target")}
            parts = load_triplet(triplet)
        else:
            made = edit_batch({name: triplet[name][None] for name in ("base", "removed", "added")})
            parts = {name: made[name][0] for name in ("original", "target", "removed", "added")}
        parts = _completed(parts, item["task"])
    except ValueError as error:
        raise ValueError(f"triplet {number}: {error}") from error
    return item | {"absent": torch.equal(parts["original"], parts["target"])}, parts


def _completed(parts: dict[str, Tensor], task: str) -> dict[str, Tensor]:
    """With the sounds between original and target, as far as they are known."""
    original, target = parts["original"], parts["target"]
    if original.shape != target.shape:
        raise ValueError(
            f"the original has {original.shape[-1]} samples and the target {target.shape[-1]}: an edit keeps the length"
        )
    if not bool(original.any()):
        raise ValueError("the original is silent from start to end, there is nothing to edit: leave that row out")
    silence = torch.zeros_like(original)
    if task == "add":
        found = {"removed": silence, "added": parts.get("added", target - original)}
    elif task == "remove":
        found = {"removed": parts.get("removed", original - target), "added": silence}
    else:
        found = {name: parts.get(name) for name in ("removed", "added")}
        if any(part is None for part in found.values()):
            unknown = {"removed": silence, "added": silence, "known": torch.tensor(False)}
            return {"original": original, "target": target} | unknown
    rest = (original - found["removed"]) - (target - found["added"])
    if rest.square().sum() > 10 ** (ADDS_UP_DB / 10) * original.square().sum():
        raise ValueError(
            "original - removed is not target - added: the sounds must have the level and place they have in the "
            "recordings, or leave the columns removed and added out"
        )
    return {"original": original, "target": target, **found, "known": torch.tensor(True)}


def edit(system: Editor, batch: EditBatch, *, seed: int) -> Tensor:
    """What an editor answers to a batch, as `lasslab.evaluation.batches.separate` asks a separator.

    Args:
        system: with `edit_batch(originals, instructions, *, sample_rate, generators)`, or called one by one; a ceiling
            is given `target=`.
        batch: originals and instructions.
        seed: of the noise; that of an item depends on the seed and its number alone.

    Returns:
        Edited recordings (B, T).

    Raises:
        ValueError: the system refuses, or answers in another shape or with unusable numbers; names the triplets.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnknownTask)  # the report counts them
            answers = ask(
                system,
                batch.original,
                [item["instruction"] for item in batch.items],
                batch.numbers,
                target=batch.target,
                together=getattr(system, "edit_batch", None),
                sample_rate=SAMPLE_RATE,
                seed=seed,
            )
        if answers.shape != batch.original.shape or not bool(answers.isfinite().all()):
            raise ValueError(
                f"{system.name} answered with shape {tuple(answers.shape)} or NaN to {tuple(batch.original.shape)}"
            )
    except ValueError as error:
        raise ValueError(f"{batch.names}: {error}") from error
    return answers.to("cpu")


def _waveform_metrics(estimates: Tensor, batch: EditBatch, silent: Tensor, floor: Tensor) -> dict[str, Tensor]:
    """Each of `WAVEFORM_METRICS` -> (B,)."""
    kept = distance_at(silent, floor, estimate=estimates, target=batch.target)
    kept = torch.where(batch.known, kept, torch.nan)
    energy, against = (part.double().square().sum(dim=-1) for part in (estimates, batch.original))
    return {
        "preservation": kept,
        "preservation_db": DB_PER_NAT * kept,
        "change_db": log_mel_distance(estimate=estimates, target=batch.original, top_db=FLOOR_DB),
        "level_db": (10 * torch.log10(energy / against)).clamp(min=LOWEST_DB),
    }


def _nothing(n: int) -> Tensor:
    return torch.full((n,), torch.nan, dtype=torch.float64)


def _edit_accuracy(scorer: EmbeddingScorer, items: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Tensor]]:
    """System, floor or ceiling -> metric -> (n,): what the tagger hears, class by class.

    The probabilities of the unedited originals are those of the floor.
    """
    labels = scorer.embedding.labels
    classes = {
        name: torch.tensor([labels.index(item[name]) if item[name] in labels else -1 for item in items])
        for name in ("removed_label", "added_label")
    }
    # an edit of which the tagger does not know a class cannot be judged by the other one alone
    unknown = torch.tensor([any(item[name] and item[name] not in labels for name in classes) for item in items])
    original, target = scorer.probabilities(FLOOR), scorer.probabilities(None)
    found = {}
    for name in scorer.names:
        verdict = judge_edits(
            estimate=scorer.probabilities(name),
            original=original,
            target=target,
            removed=classes["removed_label"],
            added=classes["added_label"],
        )
        accurate = torch.where(unknown, torch.nan, verdict.accurate)
        found[name] = {"edit_accuracy": accurate, "heard": verdict.heard, "gone": verdict.gone}
    return found


def _groups(items: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[int]]]:
    """All edits, each task that is there, and the absent sounds, where there are some."""
    edits = [number for number, item in enumerate(items) if not item["absent"]]
    groups = [("all", edits)]
    groups += [(task, [number for number in edits if items[number]["task"] == task]) for task in TASKS]
    groups.append(("absent", [number for number, item in enumerate(items) if item["absent"]]))
    return [(title, numbers) for title, numbers in groups if numbers]


def _scores(
    scorer: EmbeddingScorer | None,
    own: Mapping[str, Mapping[str, Tensor]],
    judge: Mapping[str, Mapping[str, Tensor]] | None,
    numbers: Sequence[int],
    *,
    seed: int,
) -> dict[str, EmbeddingScores]:
    """Name -> scores of one group of the items."""
    found = {} if scorer is None else scorer.scores(seed=seed, numbers=numbers)
    made = {}
    for name, metrics in own.items():
        scores = found.get(name, EmbeddingScores({}, {}, seed))
        further = {**metrics, **(judge[name] if judge else {})}
        items = scores.items | {metric: values[list(numbers)] for metric, values in further.items()}
        made[name] = EmbeddingScores(items, scores.sets, seed)
    return made


def _only(scores: EmbeddingScores, *, absent: bool) -> EmbeddingScores:
    """The metrics that mean something in a group: of absent sounds, how little was done; of edits, all the others."""
    left_out = ("change_db", "level_db")
    kept = {
        metric: values
        for metric, values in scores.items.items()
        if (metric in ABSENT_METRICS if absent else metric not in left_out)
    }
    return EmbeddingScores(kept, {} if absent else scores.sets, scores.seed)


def _of_item(
    scorer: EmbeddingScorer | None, name: str, number: int, item: Mapping[str, Any]
) -> dict[str, float | None]:
    """What the tagger hears of the two classes in a system's answer."""
    if scorer is None:
        return {}
    labels, row = scorer.embedding.labels, scorer.probabilities(name)[number]
    return {
        f"{role}_probability": round(row[labels.index(item[f"{role}_label"])].item(), 6)
        for role in ("removed", "added")
        if item[f"{role}_label"] in labels
    }


def _heading(
    items: Sequence[Mapping[str, Any]], corpus: str | None, triplet_list: str | os.PathLike[str] | None
) -> str:
    corpus = corpus or (os.path.basename(triplet_list) if triplet_list else "edits in memory")
    edits = [item for item in items if not item["absent"]]
    tasks = ", ".join(f"{count} {task}" for task in TASKS if (count := sum(item["task"] == task for item in edits)))
    words = f"{len(edits)} edits of {corpus}: {tasks}"
    if n_absent := len(items) - len(edits):
        words += f"; and {n_absent} removal{'s' * (n_absent > 1)} of what is not there"
    if n_unread := sum(read_instruction(item["instruction"]).task is None for item in items):
        words += f"; {n_unread} of the instructions name no known task"
    return words
