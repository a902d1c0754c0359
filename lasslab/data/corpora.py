"""Corpora of sound clips: each gives the same `Clip`, wherever the sound comes from.

`load_corpus("synthesis")` needs nothing; `load_corpus("esc50")` reads the public ESC-50 folder below the data root
(`LASSLAB_DATA`, or `data/corpora`). Notebook 03.
"""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lasslab.data.captions import ESC50_CAPTIONS
from lasslab.data.synthesis import EVENT_CLASSES, synthesise
from lasslab.signal.audio import SAMPLE_RATE, load_audio

CORPORA = ("synthesis", "esc50")


@dataclass(frozen=True)
class Clip:
    """One sound with its label and the sentences that describe it. The samples are made or read by `load`.

    Args:
        label: sound class; two clips that share it are never mixed.
        captions: sentences that describe the clip.
        source: name of the recording it was cut from, so that splits can keep recordings apart.
        corpus: name of the corpus.
        path: audio file, or None for a synthesised clip.
        seed: seed of a synthesised clip, or None.
        seconds: length of a synthesised clip.
        fold: fold of the corpus, or None.
    """

    label: str
    captions: tuple[str, ...]
    source: str
    corpus: str
    path: Path | None = None
    seed: int | None = None
    seconds: float = 5.0
    fold: int | None = None

    def load(self, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Read or make the samples, mixed down to mono.

        Args:
            sample_rate: Hz.

        Returns:
            Samples (T,).

        Raises:
            ValueError: when the file cannot be read.
        """
        if self.path is not None:
            return load_audio(self.path, sample_rate=sample_rate)
        return synthesise(self.label, seed=self.seed, seconds=self.seconds, sample_rate=sample_rate)


def data_root() -> Path:
    """Folder of corpora in their published layouts.

    Returns:
        `LASSLAB_DATA` when it is set; else `data/corpora` of the repository the package is installed from, whatever the
        working directory (a notebook's is its own folder); else `data/corpora` of the working directory.
    """
    if named := os.environ.get("LASSLAB_DATA"):
        return Path(named).expanduser()
    repository = Path(__file__).resolve().parents[2]
    return (repository if (repository / "notebooks").is_dir() else Path()) / "data" / "corpora"


def load_corpus(
    name: str,
    *,
    folds: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    n_per_class: int = 10,
    seconds: float = 5.0,
    seed: int = 0,
    root: str | Path | None = None,
) -> list[Clip]:
    """The clips of a corpus.

    Args:
        name: `"synthesis"` or `"esc50"`.
        folds: ESC-50 folds to keep; None keeps all. Its folds share no recording.
        labels: classes to keep; None keeps all.
        n_per_class: synthesised clips of each class.
        seconds: length of a synthesised clip.
        seed: synthesised corpora of different seeds share no clip.
        root: folder that holds the corpus; default `data_root()`.

    Returns:
        Clips in a fixed order.

    Raises:
        ValueError: when the corpus, a fold or a label is unknown, or its files are not there.
    """
    if name == "synthesis":
        clips = synthesised_clips(n_per_class=n_per_class, seconds=seconds, seed=seed)
    elif name == "esc50":
        clips = read_esc50(Path(root or data_root()) / "ESC-50", folds=folds)
    else:
        raise ValueError(f"unknown corpus {name!r}: choose one of {', '.join(CORPORA)}")
    if labels is None:
        return clips
    unknown = sorted(set(labels) - {clip.label for clip in clips})
    if unknown:
        known = ", ".join(sorted({clip.label for clip in clips}))
        raise ValueError(f"corpus {name!r} has no class {', '.join(unknown)}: choose from {known}")
    return [clip for clip in clips if clip.label in set(labels)]


def synthesised_clips(*, n_per_class: int, seconds: float = 5.0, seed: int = 0) -> list[Clip]:
    """`n_per_class` clips of every event class, `seed` deciding which."""
    if n_per_class < 1:
        raise ValueError(f"n_per_class must be at least 1, got {n_per_class}")
    first = seed * 1_000_003  # corpora of different seeds are disjoint
    return [
        Clip(
            label=label,
            captions=event.captions,
            source=f"synthesis/{label}/{first + number}",
            corpus="synthesis",
            seed=first + number,
            seconds=seconds,
        )
        for label, event in EVENT_CLASSES.items()
        for number in range(n_per_class)
    ]


def read_esc50(folder: str | Path, *, folds: Sequence[int] | None = None) -> list[Clip]:
    """Read ESC-50 in its published layout: `meta/esc50.csv` and `audio/`. File names come from the CSV, never built.

    Reference: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015.

    Args:
        folder: the dataset's folder.
        folds: folds to keep; None keeps all.

    Returns:
        Clips in the table's order.

    Raises:
        ValueError: when the table, a column, an audio file or a fold is missing.
    """
    folder = Path(folder)
    table = folder / "meta" / "esc50.csv"
    if not table.is_file():
        raise ValueError(f"no ESC-50 at {folder} (looked for {table}): put the dataset there or set LASSLAB_DATA")
    rows = read_table(table, columns=("filename", "fold", "category", "src_file"))
    not_numbers = sorted({row["fold"] for row in rows if not row["fold"].strip().isdecimal()})
    if not_numbers:
        raise ValueError(f"{table}: fold {not_numbers[0]!r} is not a number: fetch ESC-50 again")
    known = sorted({int(row["fold"]) for row in rows})
    if folds is not None and not (folds and set(folds) <= set(known)):
        raise ValueError(f"{table} has the folds {known}, asked for {sorted(folds)}")
    clips = []
    for row in rows:
        path = folder / "audio" / row["filename"]
        if folds is not None and int(row["fold"]) not in folds:
            continue
        if not path.is_file():
            raise ValueError(f"{path}, named in {table}, is missing: fetch ESC-50 again")
        if row["category"] not in ESC50_CAPTIONS:
            raise ValueError(f"{table}: {row['category']!r} is not one of ESC-50's fifty classes")
        clips.append(
            Clip(
                label=row["category"],
                captions=ESC50_CAPTIONS[row["category"]],
                source=f"esc50/{row['src_file']}",
                corpus="esc50",
                path=path,
                fold=int(row["fold"]),
            )
        )
    return clips


def read_table(path: str | Path, *, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV file with a header row that has at least these columns.

    Args:
        path: the file, in UTF-8.
        columns: names that must be there, with a value in every row.

    Returns:
        One dictionary per row.

    Raises:
        ValueError: when the file or a column is missing, it has no rows, or a row is short of a value.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a file: give the path of a CSV table with the columns {', '.join(columns)}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            header = reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV table in UTF-8 ({error}): export it again") from error
    missing = [column for column in columns if column not in header]
    if missing:
        raise ValueError(f"{path} lacks the column {', '.join(missing)}: it has {', '.join(header) or 'none'}")
    if not rows:
        raise ValueError(f"{path} has a header and no rows: add at least one")
    for number, row in enumerate(rows, start=2):
        empty = [column for column in columns if not (row[column] or "").strip()]
        if empty:
            raise ValueError(f"{path}, line {number}: no value for {', '.join(empty)}")
    return rows
