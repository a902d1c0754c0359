"""Corpora of sound clips: each gives the same `Clip`, wherever the sound comes from.

`load_corpus("synthesis")` needs nothing; the others are read from their published layouts below the data root
(`LASSLAB_DATA`, or `data/corpora`), where `lasslab fetch` puts them. Notebook 03.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lasslab.data.captions import ESC50_CAPTIONS
from lasslab.data.clips import Clip, check_max_seconds, check_present, data_root, not_there, read_table
from lasslab.data.clotho import read_clotho
from lasslab.data.dcase import read_dcase
from lasslab.data.own_folder import read_own_folder
from lasslab.data.synthesis import EVENT_CLASSES
from lasslab.data.wavcaps import read_wavcaps
from lasslab.data.youtube import read_audiocaps, read_vggsound

__all__ = ["CORPORA", "Clip", "data_root", "load_corpus", "read_esc50", "read_table", "synthesised_clips"]

CORPORA = ("synthesis", "esc50", "clotho", "audiocaps", "vggsound", "wavcaps", "dcase2024")


def load_corpus(
    name: str,
    *,
    folds: Sequence[int] | None = None,
    splits: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    captions_per_clip: int | None = None,
    max_seconds: float | None = None,
    skip_missing: bool = False,
    blacklist: str | None = None,
    n_per_class: int = 10,
    seconds: float = 5.0,
    seed: int = 0,
    root: str | Path | None = None,
) -> list[Clip]:
    """The clips of a corpus.

    Args:
        name: one of `CORPORA`; or a folder of one's own, by its name below the root or by its path, see
            `lasslab.data.own_folder`.
        folds: folds to keep, of ESC-50 or one's own folder; None keeps all. ESC-50's folds share no recording.
        splits: splits to keep: `development`, `validation`, `evaluation` (Clotho), `train`, `val`, `test` (AudioCaps),
            `train`, `test` (VGGSound), the source (WavCaps), `development`, `validation` (DCASE 2024 Task 9), or what
            one's own table says; None keeps all that are there.
        labels: classes to keep; None keeps all.
        captions_per_clip: keep the first so many captions of each clip: 1 as in the thesis, which kept one of Clotho's
            five; None keeps all.
        max_seconds: read no more than this of a file, from its start; None reads all of it.
        skip_missing: leave out clips without audio file, with a warning that counts them, instead of refusing.
        blacklist: WavCaps only: leave out what is in a test set, see `lasslab.data.wavcaps`.
        n_per_class: synthesised clips of each class.
        seconds: length of a synthesised clip.
        seed: synthesised corpora of different seeds share no clip.
        root: folder that holds the corpus; default `data_root()`.

    Returns:
        Clips in a fixed order.

    Raises:
        ValueError: when the corpus, a fold, a split or a label is unknown, its files are not there, or an argument is
            given that the corpus has no use for.
    """
    check_max_seconds(max_seconds)
    if captions_per_clip is not None and captions_per_clip < 1:
        raise ValueError(f"captions_per_clip must be at least 1, or None for all, got {captions_per_clip}")
    root = Path(root or data_root())
    own = None if name in CORPORA else _own_folder(name, root)
    for argument, value, users in (
        ("folds", folds, ("esc50",)),
        ("splits", splits, CORPORA[2:]),
        ("blacklist", blacklist, ("wavcaps",)),
    ):
        if value is not None and name not in users and (own is None or argument == "blacklist"):
            raise ValueError(f"corpus {name!r} has no {argument}: leave the argument out")
    chosen = {"splits": splits, "skip_missing": skip_missing}
    if own is not None:
        clips = read_own_folder(own, folds=folds, **chosen)
    elif name == "synthesis":
        clips = synthesised_clips(n_per_class=n_per_class, seconds=seconds, seed=seed)
    elif name == "esc50":
        clips = read_esc50(root / "ESC-50", folds=folds, skip_missing=skip_missing)
    elif name == "clotho":
        clips = read_clotho(root / "Clotho", **chosen)
    elif name == "audiocaps":
        clips = read_audiocaps(root / "AudioCaps", audioset=root / "AudioSet", **chosen)
    elif name == "vggsound":
        clips = read_vggsound(root / "VGGSound", **chosen)
    elif name == "wavcaps":
        clips = read_wavcaps(
            root / "WavCaps",
            sources=splits,
            skip_missing=skip_missing,
            blacklist=blacklist,
            audioset=root / "AudioSet",
        )
    else:
        clips = read_dcase(root, **chosen)
    clips = [
        replace(clip, captions=clip.captions[:captions_per_clip], max_seconds=max_seconds if clip.path else None)
        for clip in clips
    ]
    if labels is None:
        return clips
    return _with_labels(clips, labels, name)


def _own_folder(name: str, root: Path) -> Path:
    """A path is a path; a plain name is a folder below the root."""
    is_path = os.sep in name or "/" in name or name.startswith(("~", "."))
    folder = Path(name).expanduser() if is_path else root / name
    if is_path or (name and folder.is_dir()):
        return folder
    raise ValueError(
        f"unknown corpus {name!r}: choose one of {', '.join(CORPORA)}, or a folder of your own, which is not in {root}"
    )


def _with_labels(clips: list[Clip], labels: Sequence[str], name: str) -> list[Clip]:
    known = sorted({clip.label for clip in clips})
    unknown = sorted(set(labels) - set(known))
    if unknown:
        some = ", ".join(known[:60]) + (f" and {len(known) - 60} more" if len(known) > 60 else "")
        raise ValueError(f"corpus {name!r} has no class {', '.join(unknown)}: choose from {some}")
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


def read_esc50(folder: str | Path, *, folds: Sequence[int] | None = None, skip_missing: bool = False) -> list[Clip]:
    """Read ESC-50 in its published layout: `meta/esc50.csv` and `audio/`. File names come from the CSV, never built.

    Reference: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015.

    Args:
        folder: the dataset's folder.
        folds: folds to keep; None keeps all.
        skip_missing: leave out what has no audio file, with a warning.

    Returns:
        Clips in the table's order.

    Raises:
        ValueError: when the table, a column, an audio file or a fold is missing.
    """
    folder = Path(folder)
    table = folder / "meta" / "esc50.csv"
    if not table.is_file():
        raise not_there("ESC-50", folder=folder, looked_for=table, fetch="esc50")
    rows = read_table(table, columns=("filename", "fold", "category", "src_file"))
    not_numbers = sorted({row["fold"] for row in rows if not row["fold"].strip().isdecimal()})
    if not_numbers:
        raise ValueError(f"{table}: fold {not_numbers[0]!r} is not a number: run lasslab fetch esc50")
    known = sorted({int(row["fold"]) for row in rows})
    if folds is not None and not (folds and set(folds) <= set(known)):
        raise ValueError(f"{table} has the folds {known}, asked for {sorted(folds)}")
    rows = [row for row in rows if folds is None or int(row["fold"]) in folds]
    paths = [folder / "audio" / row["filename"] for row in rows]
    check_present(
        [(path.name, path if path.is_file() else None) for path in paths],
        table=table,
        folder=folder / "audio",
        remedy="run lasslab fetch esc50",
        skip_missing=skip_missing,
    )
    unknown = sorted({row["category"] for row in rows} - set(ESC50_CAPTIONS))
    if unknown:
        raise ValueError(f"{table}: {unknown[0]!r} is not one of ESC-50's fifty classes")
    return [
        Clip(
            label=row["category"],
            captions=ESC50_CAPTIONS[row["category"]],
            source=f"esc50/{row['src_file']}",
            corpus="esc50",
            path=path,
            fold=int(row["fold"]),
        )
        for row, path in zip(rows, paths, strict=True)
        if path.is_file()
    ]
