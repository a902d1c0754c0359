"""What free wording costs, and what comes back for a sound that is not there: the figures and their table.

`lasslab.evaluation.wording` asks the questions.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lasslab.evaluation import tables
from lasslab.evaluation.metrics import mean_interval
from lasslab.evaluation.report import Printed, save

THRESHOLD_DB = -10.0  # an estimate this far below the mixture counts as the answer "not there"


@dataclass(frozen=True)
class Request:
    """One question to the system.

    Args:
        number: position of the pair.
        kind: "caption", "paraphrase", "absent" or "present".
        label: class asked for.
        query: the words.
        source: of a present class, which part of the mixture it is: "target" or "interference".
    """

    number: int
    kind: str
    label: str
    query: str
    source: str = "target"


@dataclass(frozen=True)
class Answer:
    """What came back.

    Args:
        request: the question.
        sdri: SDR improvement against the pair's target, dB.
        level_db: level of the estimate relative to the mixture, dB.
        kept_db: level of the estimate relative to `request.source`, dB.
    """

    request: Request
    sdri: float
    level_db: float
    kept_db: float


@dataclass(frozen=True, eq=False)
class WordingReport(Printed):
    """What `evaluate_wording` found.

    Args:
        system: its name.
        items: what each pair was.
        answers: to every request.
        heading: number of pairs, corpus and SNR, in words.
        provenance: where the figures come from.
    """

    system: str
    items: list[dict[str, Any]]
    answers: list[Answer]
    heading: str
    provenance: dict[str, Any]

    def of_kind(self, kind: str) -> list[Answer]:
        """The answers to one kind of request."""
        return [answer for answer in self.answers if answer.request.kind == kind]

    @property
    def paraphrases(self) -> dict[str, Any]:
        """Free wording, as in the JSON.

        The loss of a pair is its SDRi with the list's caption minus the mean of its SDRis with the paraphrases. The
        interval says how the mean would move with other recordings; the wordings are what they are.
        """
        captions = {answer.request.number: answer for answer in self.of_kind("caption")}
        free: dict[int, list[Answer]] = {number: [] for number in captions}
        for answer in self.of_kind("paraphrase"):
            free[answer.request.number].append(answer)
        rows, labels, losses = [], [], {}
        for number, caption in captions.items():
            row = (caption.sdri, float(np.mean([answer.sdri for answer in free[number]])))
            if not np.isfinite(row).all():
                continue
            rows.append(row)
            labels.append(caption.request.label)
            for answer in free[number]:
                wording = (answer.request.label, answer.request.query)
                losses.setdefault(wording, []).append(caption.sdri - answer.sdri)
        groups = [
            {"name": name} | self._loss([row for row, label in zip(rows, labels, strict=True) if label == name])
            for name in sorted(set(labels))
        ]
        wordings = [
            {"class": label, "wording": wording, "n": len(values), "loss": float(np.mean(values))}
            for (label, wording), values in losses.items()
        ]
        by_wording = sorted(wordings, key=lambda wording: -wording["loss"])
        undefined = len(captions) - len(rows)
        return self._loss(rows) | {"undefined": undefined, "by_class": groups, "by_wording": by_wording}

    def _loss(self, rows: Sequence[tuple[float, float]]) -> dict[str, Any]:
        """(SDRi with the caption, mean SDRi with paraphrases) of some pairs -> means and interval."""
        if not rows:
            nothing = {"sdri": None}
            return {"n": 0, "caption": nothing, "paraphrase": nothing, "loss": {"mean": None, "interval": None}}
        caption, paraphrase = torch.tensor(rows, dtype=torch.float64).T
        loss = caption - paraphrase
        return {
            "n": len(rows),
            "caption": {"sdri": caption.mean().item()},
            "paraphrase": {"sdri": paraphrase.mean().item()},
            "loss": {
                "mean": loss.mean().item(),
                "interval": mean_interval(loss, confidence=tables.CONFIDENCE, seed=self.provenance["seed"]),
            },
        }

    @property
    def absence(self) -> dict[str, Any]:
        """Levels where the class asked for is absent, as in the JSON.

        `share_below` is the share of the cases at least 10 dB below the mixture; `share_lowest` that of the cases in
        which the absent class comes out lower than each class that is there, a figure without a threshold.
        """
        present: dict[int, float] = {}
        for answer in self.of_kind("present"):
            number = answer.request.number
            present[number] = min(answer.level_db, present.get(number, answer.level_db))
        absent = self.of_kind("absent")
        lowest = np.mean([answer.level_db < present[answer.request.number] for answer in absent])
        return _levels(absent) | {"share_lowest": float(lowest)}

    @property
    def presence(self) -> dict[str, Any]:
        """Levels where the class asked for is there, as in the JSON; `median_kept_db` is relative to its own level."""
        present = self.of_kind("present")
        return _levels(present) | {"median_kept_db": float(np.median([answer.kept_db for answer in present]))}

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "system": self.system,
            "n": len(self.items),
            "heading": self.heading,
            "threshold_db": THRESHOLD_DB,
            "paraphrases": self.paraphrases,
            "absence": self.absence,
            "presence": self.presence,
            "per_item": [_row(answer, self.items[answer.request.number]) for answer in self.answers],
            "provenance": self.provenance,
        }

    def table(self, *, markdown: bool = False) -> str:
        """Both questions by class, and the wordings that cost most.

        Args:
            markdown: as Markdown rather than aligned text.

        Returns:
            Lines of at most 100 characters, or Markdown.
        """
        return tables.wording_details(self.to_json(), markdown=markdown)


def wording_summary(reports: Sequence[WordingReport], *, markdown: bool = False) -> str:
    """A row for each system, and what the columns are."""
    found = [report.to_json() for report in reports]
    table = tables.wording(found)
    return (
        f"{table.markdown()}\n\n{tables.wording_note(found[0])}"
        if markdown
        else (f"{table.text()}\n{tables.fill(tables.wording_note(found[0]))}")
    )


def save_reports(path: str | os.PathLike[str], reports: Sequence[WordingReport]) -> None:
    """Write one report's JSON, or an object with a list of several; see `Report.save`."""
    found = [report.to_json() for report in reports]
    save(path, found[0] if len(found) == 1 else {"reports": found})


def _row(answer: Answer, item: Mapping[str, Any]) -> dict[str, Any]:
    request = answer.request
    row = {"idx": item["idx"], "kind": request.kind, "class": request.label, "query": request.query}
    if request.kind in ("caption", "paraphrase"):
        return row | {"sdri": answer.sdri if np.isfinite(answer.sdri) else None}
    row["level_db"] = answer.level_db
    return row | {"kept_db": answer.kept_db} if request.kind == "present" else row


def _levels(answers: Sequence[Answer]) -> dict[str, Any]:
    by_class: dict[str, list[Answer]] = {}
    for answer in answers:
        by_class.setdefault(answer.request.label, []).append(answer)
    return _distribution(answers) | {
        "by_class": [{"name": name} | _distribution(by_class[name]) for name in sorted(by_class)]
    }


def _distribution(answers: Sequence[Answer]) -> dict[str, Any]:
    levels = np.array([answer.level_db for answer in answers])
    low, median, high = np.percentile(levels, [5, 50, 95]).tolist()
    share = float((levels <= THRESHOLD_DB).mean())
    return {"n": len(levels), "share_below": share, "median_db": median, "p5_db": low, "p95_db": high}
