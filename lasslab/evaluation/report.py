"""What an evaluation found: one system with its floors and ceiling, or several on the same pairs.

A score that is undefined or infinite is left out of its column's mean, standard deviation and interval, and counted
beside. Between systems only paired differences count: the pairs are the same, and most of the spread is theirs.

Notebooks: 05 (floors and ceilings), 08 (measuring separation).
"""

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from lasslab.evaluation import embedding_tables, tables
from lasslab.evaluation.breakdown import Breakdown, by_class, by_snr, check_kinds
from lasslab.evaluation.embedding_scores import EmbeddingReport
from lasslab.evaluation.metrics import mean_interval
from lasslab.evaluation.tables import CONFIDENCE, METRICS
from lasslab.signal.files import write_json

R = TypeVar("R")  # a system's report, with `.system`

DIFFERENCES = ("sdri", "si_sdr")  # the SDRs of two systems differ by as much as their SDRis


class Printed:
    """What prints as its table and is kept as its JSON."""

    def table(self) -> str:
        """As text."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json()` to a file, whole or not at all.

        Args:
            path: file to write, in a folder that exists.

        Raises:
            ValueError: the folder does not exist.
        """
        save(path, self.to_json())

    def __str__(self) -> str:
        return self.table()


class BySystem(Printed, Generic[R]):
    """Reports of several systems: `reports["name"]` is one system's."""

    reports: tuple[R, ...]

    def __getitem__(self, system: str) -> R:
        return next(report for report in self.reports if report.system == system)

    def __iter__(self) -> Iterator[R]:
        return iter(self.reports)


@dataclass(frozen=True, eq=False)
class Report(Printed):
    """What `evaluate` found.

    Args:
        system: its name.
        scores: one row per item, one column per entry of `METRICS`, dB, shape (n, 4).
        floors: the same for each entry of `FLOORS`, and for further ceilings.
        items: what each row was: idx, caption, files or labels.
        heading: number of pairs, corpus and SNR, in words.
        provenance: where the figures come from.
        embedding: the metrics of `lasslab.evaluation.distances`, or None where they were left out.
        cost: seconds and memory of the system's calls, see `lasslab.evaluation.cost`.
        floor_costs: those of the ceilings.
    """

    system: str
    scores: Tensor
    floors: dict[str, Tensor]
    items: list[dict[str, Any]]
    heading: str
    provenance: dict[str, Any]
    embedding: EmbeddingReport | None = None
    cost: dict[str, Any] = field(default_factory=dict)
    floor_costs: dict[str, dict[str, Any]] = field(default_factory=dict)

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
    def interval(self) -> dict[str, list[float] | None]:
        """95 % bootstrap interval of each mean, in dB; None for fewer than two items."""
        return _interval(self.scores, self.provenance["seed"])

    @property
    def undefined(self) -> dict[str, int]:
        """Items whose score is undefined or infinite, for each metric."""
        return {name: len(self.scores) - len(column) for name, column in _columns(self.scores).items()}

    @property
    def by_class(self) -> dict[str, Any] | None:
        """Scores by class of the target, as in the JSON; None where the pairs have no classes."""
        return self._broken_down(by_class(self.items))

    @property
    def by_snr(self) -> dict[str, Any] | None:
        """Scores by SNR, as in the JSON; None where all pairs have one."""
        return self._broken_down(by_snr(self.items))

    def _broken_down(self, breakdown: Breakdown | None) -> dict[str, Any] | None:
        if breakdown is None:
            return None
        groups = []
        for name, numbers in breakdown.groups.items():
            scores = self.scores[numbers]
            group = {"name": name, "n": len(numbers), "mean": _mean(scores), "interval": _interval(scores, self._seed)}
            groups.append(group | {"oracle_mask": _mean(self.floors["oracle_mask"][numbers])})
        return {"key": breakdown.key, "title": breakdown.title, "groups": groups}

    @property
    def _seed(self) -> int:
        return self.provenance["seed"]

    def table(self, *, markdown: bool = False, by: Sequence[str] = ()) -> str:
        """The report as a table: floors, system with spread and interval, ceiling.

        Args:
            markdown: as Markdown rather than aligned text.
            by: breakdowns to add, "class" and "snr".

        Returns:
            Lines of at most 100 characters, or Markdown.
        """
        return render([self.to_json()], markdown=markdown, by=by)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; a score that is undefined or infinite is null."""
        return {
            "system": self.system,
            "n": len(self.items),
            "heading": self.heading,
            "mean": self.mean,
            "std": self.std,
            "interval": self.interval,
            "undefined": self.undefined,
            "floors": {name: _mean(scores) for name, scores in self.floors.items()},
            "breakdown": {"class": self.by_class, "snr": self.by_snr},
            "embedding": None if self.embedding is None else self.embedding.to_json(),
            "cost": self.cost,
            "floor_costs": self.floor_costs,
            "per_item": self._per_item(),
            "provenance": self.provenance,
        }

    def _per_item(self) -> list[dict[str, Any]]:
        columns = dict(zip(METRICS, self.scores.T, strict=True))
        if self.embedding is not None:
            columns |= self.embedding.own.items
        lists = {name: column.tolist() for name, column in columns.items()}
        return [
            item | {name: _finite(column[number]) for name, column in lists.items()}
            for number, item in enumerate(self.items)
        ]


@dataclass(frozen=True, eq=False)
class Comparison(BySystem[Report]):
    """Several systems on the same pairs. `comparison["name"]` is one system's report.

    Args:
        reports: one for each system; they share pairs, floors and ceiling.
    """

    reports: tuple[Report, ...]

    @property
    def differences(self) -> list[dict[str, Any]]:
        """Paired differences between every two systems, as in the JSON.

        For d_i = score_i(a) - score_i(b) over the pairs i where both scores are finite: mean and bootstrap interval in
        dB, number of those pairs, and the share of them on which a is better (a tie is half). Under "embedding", where
        there is one, value and interval of the difference of each metric, of the figures of a set too.
        """
        return [_difference(a, b) for a, b in itertools.combinations(self.reports, 2)]

    def table(self, *, markdown: bool = False, by: Sequence[str] = ()) -> str:
        """All systems between the same floors and ceiling, and their paired differences; see `Report.table`."""
        reports = [report.to_json() for report in self.reports]
        return render(reports, differences=self.differences, markdown=markdown, by=by)

    def to_json(self) -> dict[str, Any]:
        """A list of reports as `Report.to_json` gives them, and the differences."""
        first = self.reports[0]
        return {
            "n": len(first.items),
            "heading": first.heading,
            "reports": [report.to_json() for report in self.reports],
            "differences": self.differences,
        }


def _difference(a: Report, b: Report) -> dict[str, Any]:
    found: dict[str, Any] = {"systems": [a.system, b.system], "n": {}, "mean": {}, "interval": {}, "better": {}}
    for metric in DIFFERENCES:
        column = METRICS.index(metric)
        difference = a.scores[:, column] - b.scores[:, column]
        difference = difference[difference.isfinite()]
        defined = len(difference) > 0
        better = ((difference > 0).double() + 0.5 * (difference == 0).double()).mean().item()
        found["n"][metric] = len(difference)
        found["mean"][metric] = difference.mean().item() if defined else None
        found["interval"][metric] = mean_interval(difference, confidence=CONFIDENCE, seed=a.provenance["seed"])
        found["better"][metric] = better if defined else None
    if a.embedding is not None and b.embedding is not None:
        found["embedding"] = a.embedding.own.minus(b.embedding.own)
    return found


def render(
    reports: Sequence[dict[str, Any]],
    *,
    differences: Sequence[dict[str, Any]] = (),
    markdown: bool = False,
    by: Sequence[str] = (),
) -> str:
    """Heading, scores, differences, breakdowns and notes of reports in JSON values."""
    check_kinds(by)

    def draw(table: tables.Table) -> str:
        return table.markdown() if markdown else table.text()

    scores = draw(tables.scores(reports, spread=not markdown))
    if markdown:
        scores = f"\n{scores}"
    blocks = [f"{reports[0]['heading']}\n{scores}\n" + "\n".join(_notes(reports, markdown))]
    if differences:
        blocks.append(draw(tables.differences(differences)))
    if embedding_tables.has_embedding(reports):
        blocks += embedding_tables.blocks(reports, differences, markdown=markdown)
    for kind in by:
        found = tables.breakdowns(reports, kind)
        gap = "\n\n" if markdown else "\n"
        blocks += [f"{title}{gap}{draw(table)}" for title, table in found] or [_no_breakdown(kind)]
    return "\n\n".join(blocks)


def _notes(reports: Sequence[dict[str, Any]], markdown: bool) -> list[str]:
    notes = tables.score_notes(reports)
    return ["", " ".join(notes)] if markdown else notes


def _no_breakdown(kind: str) -> str:
    if kind == "snr":
        return "No breakdown by SNR: all pairs have one."
    return "No breakdown by class: the list names no classes, and its captions do not come back."


def save(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write a report's JSON to a file, whole or not at all; refuses a folder that does not exist."""
    if not Path(path).parent.is_dir():
        raise ValueError(f"{path} cannot be written, there is no folder {Path(path).parent}: make it first")
    write_json(path, content)


def _columns(scores: Tensor) -> dict[str, Tensor]:
    """Finite scores of each metric."""
    return {name: column[column.isfinite()] for name, column in zip(METRICS, scores.T, strict=True)}


def _mean(scores: Tensor) -> dict[str, float | None]:
    return {name: column.mean().item() if len(column) else None for name, column in _columns(scores).items()}


def _interval(scores: Tensor, seed: int) -> dict[str, list[float] | None]:
    columns = _columns(scores)
    return {name: mean_interval(column, confidence=CONFIDENCE, seed=seed) for name, column in columns.items()}


def _finite(score: float) -> float | None:
    return score if math.isfinite(score) else None
