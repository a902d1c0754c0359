"""What an evaluation of editors found: figures over all edits, for each task, and for sounds that are not there.

`lasslab.evaluation.editing` makes it, `editing_tables` prints it.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lasslab.evaluation import editing_tables
from lasslab.evaluation.embedding_scores import EmbeddingScores
from lasslab.evaluation.report import BySystem, Printed

WHOLE = "all"  # the group of all edits
ABSENT = "absent"  # the group of sounds that are not there: no edits


class Group(NamedTuple):
    """Some of the items: "all", a task, or "absent"; their numbers in the list, and what was scored on them."""

    title: str
    numbers: list[int]
    scores: EmbeddingScores


@dataclass(frozen=True, eq=False)
class EditingReport(Printed):
    """What one editor scored, with floor and ceiling.

    Args:
        system: its name.
        groups: "all" first, then the tasks that are in the list, then "absent", if it is.
        floors: the same groups of the unedited original.
        ceilings: those of the round trip of the target.
        items: what each row of the list is.
        heading: number of edits and their list, in words.
        provenance: where the figures come from.
        embedding: name, weights and sizes of the embedding; None where its metrics were left out.
        cost: seconds and memory of the system's calls.
        ceiling_costs: those of the ceilings.
    """

    system: str
    groups: tuple[Group, ...]
    floors: Mapping[str, tuple[Group, ...]]
    ceilings: Mapping[str, tuple[Group, ...]]
    items: list[dict[str, Any]]
    heading: str
    provenance: dict[str, Any]
    embedding: dict[str, Any] | None
    cost: dict[str, Any]
    ceiling_costs: dict[str, dict[str, Any]]

    @property
    def mean(self) -> dict[str, float | None]:
        """Each metric over all edits; None where it is undefined for every one."""
        return _means(self.groups[0].scores)

    @property
    def by_task(self) -> dict[str, dict[str, Any]]:
        """The block of each task, as in the JSON."""
        return {
            group.title: self._block(position)
            for position, group in enumerate(self.groups)
            if group.title not in (WHOLE, ABSENT)
        }

    @property
    def absent(self) -> dict[str, Any] | None:
        """The block of the sounds that are not there, as in the JSON; None where the list has none."""
        last = len(self.groups) - 1
        return self._block(last) if self.groups[last].title == ABSENT else None

    def _block(self, position: int) -> dict[str, Any]:
        """One group: means with intervals, those of floor and ceiling, and the paired differences to both.

        `defined` counts the items behind each mean: an item of which the tagger cannot judge the edit has no edit
        accuracy, one that is covered all over has no preservation.
        """
        group = self.groups[position]
        found = group.scores.to_json()
        found = {metric: figure for metric, figure in found.items() if _has(group.scores, metric)}
        block: dict[str, Any] = {
            "n": len(group.numbers),
            "mean": {metric: figure["value"] for metric, figure in found.items()},
            "interval": {metric: figure["interval"] for metric, figure in found.items()},
            "bias": {metric: figure["bias"] for metric, figure in found.items() if "bias" in figure},
            "defined": {metric: int(values.isfinite().sum()) for metric, values in group.scores.items.items()},
        }
        beside = {
            kind: {name: groups[position].scores for name, groups in others.items()}
            for kind, others in (("floors", self.floors), ("ceiling", self.ceilings))
        }
        for kind, others in beside.items():
            block[kind] = {name: _means(scores) for name, scores in others.items()}
        every = beside["floors"] | beside["ceiling"]
        block["against"] = {name: difference(group.scores, scores) for name, scores in every.items()}
        block["preservation_to_ceiling"] = _ratio(block, "preservation")
        return block

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; what is undefined is null."""
        return {
            "task": "editing",
            "system": self.system,
            "heading": self.heading,
            **self._block(0),
            "by_task": self.by_task,
            "absent": self.absent,
            "embedding": self.embedding,
            "cost": self.cost,
            "ceiling_costs": self.ceiling_costs,
            "per_item": self._per_item(),
            "provenance": self.provenance,
        }

    def _per_item(self) -> list[dict[str, Any]]:
        rows = [dict(item) for item in self.items]
        for group in self.groups:
            if group.title not in (WHOLE, ABSENT):
                continue
            for metric, values in group.scores.items.items():
                for number, value in zip(group.numbers, values.tolist(), strict=True):
                    rows[number][metric] = value if math.isfinite(value) else None
        return rows

    def table(self, *, markdown: bool = False) -> str:
        """The report as tables; see `EditingComparison.table`."""
        return editing_tables.render([self.to_json()], markdown=markdown)


@dataclass(frozen=True, eq=False)
class EditingComparison(BySystem[EditingReport]):
    """Editors on the same edits. `comparison["name"]` is one system's report.

    Args:
        reports: one for each system; they share edits, floor and ceiling.
    """

    reports: tuple[EditingReport, ...]

    @property
    def differences(self) -> list[dict[str, Any]]:
        """Paired differences between every two systems, first minus second, as in the JSON: value and interval of each
        metric for each group."""
        return [
            {
                "systems": [a.system, b.system],
                "groups": {
                    of_a.title: difference(of_a.scores, of_b.scores)
                    for of_a, of_b in zip(a.groups, b.groups, strict=True)
                },
            }
            for a, b in itertools.combinations(self.reports, 2)
        ]

    def table(self, *, markdown: bool = False) -> str:
        """All systems between floor and ceiling, over all edits and for each task, and their paired differences.

        Args:
            markdown: as Markdown rather than aligned text.

        Returns:
            Lines of at most 100 characters, or Markdown.
        """
        reports = [report.to_json() for report in self.reports]
        return editing_tables.render(reports, self.differences, markdown=markdown)

    def to_json(self) -> dict[str, Any]:
        """Of one system its report; of several a list of reports, and the differences."""
        if len(self.reports) == 1:
            return self.reports[0].to_json()
        return {
            "task": "editing",
            "n": len(self.reports[0].groups[0].numbers),
            "heading": self.reports[0].heading,
            "reports": [report.to_json() for report in self.reports],
            "differences": self.differences,
        }


def difference(first: EmbeddingScores, second: EmbeddingScores) -> dict[str, Any]:
    """Paired difference of each metric, first minus second: value and interval; of the items where both are defined."""
    found = first.minus(second)
    return {metric: figure for metric, figure in found.items() if _has(first, metric)}


def _means(scores: EmbeddingScores) -> dict[str, float | None]:
    return {metric: figure["value"] for metric, figure in scores.to_json().items() if _has(scores, metric)}


def _has(scores: EmbeddingScores, metric: str) -> bool:
    """Whether a metric is one of this group's: without an embedding, and of absent sounds, a set has no figures."""
    return metric in scores.items or "kl" in scores.items


def _ratio(block: Mapping[str, Any], metric: str) -> float | None:
    """Mean of the system over that of the (first) ceiling."""
    own, ceiling = block["mean"].get(metric), next(iter(block["ceiling"].values())).get(metric)
    return own / ceiling if own is not None and ceiling else None
