"""Clotho: recordings of 15 to 30 s from Freesound, each with five sentences by people who only heard it.

Reference: K. Drossos, S. Lipping, T. Virtanen, "Clotho: an Audio Captioning Dataset", ICASSP 2020; version 2.1.
"""

from collections.abc import Sequence
from pathlib import Path

from lasslab.data.clips import Clip, check_present, choose_splits, find_audio, index_audio, read_table

SPLITS = ("development", "validation", "evaluation")
CAPTION_COLUMNS = tuple(f"caption_{number}" for number in range(1, 6))


def read_clotho(
    folder: str | Path, *, splits: Sequence[str] | None = None, skip_missing: bool = False, corpus: str = "clotho"
) -> list[Clip]:
    """Read Clotho in its published layout.

    `clotho_captions_<split>.csv` (`file_name, caption_1 … caption_5`), the recordings in a folder named as the split or
    `clotho_audio_<split>`, and, where it is there, `clotho_metadata_<split>.csv` (`file_name, keywords, sound_id, …`).

    Clotho has no classes. The label is the recording: its number at Freesound, which the metadata gives, so that two
    pieces of one recording are never mixed; else its file name. The tags are the keywords that the uploader chose.
    The limit: two recordings of rain that have no keyword in common may be mixed.

    Args:
        folder: the dataset's folder.
        splits: of `SPLITS`; None reads those whose table is there.
        skip_missing: leave out what has no audio file, with a warning.
        corpus: name that the clips carry.

    Returns:
        Clips in the order of the tables, with five captions each.

    Raises:
        ValueError: when a table, a column, a caption or an audio file is missing, or a split is unknown.
    """
    folder = Path(folder)
    tables = {split: folder / f"clotho_captions_{split}.csv" for split in SPLITS}
    clips = []
    for split, table in choose_splits("Clotho", tables=tables, wanted=splits, folder=folder, fetch="clotho").items():
        rows = read_table(table, columns=("file_name", *CAPTION_COLUMNS))
        keywords, recordings = _read_metadata(folder / f"clotho_metadata_{split}.csv")
        index = index_audio(folder / split, folder / f"clotho_audio_{split}")
        paths = [find_audio(index, row["file_name"]) for row in rows]
        check_present(
            [(row["file_name"], path) for row, path in zip(rows, paths, strict=True)],
            table=table,
            folder=folder / split,
            remedy=f"run lasslab fetch clotho --part {split}",
            skip_missing=skip_missing,
        )
        for row, path in zip(rows, paths, strict=True):
            name = row["file_name"]  # some begin with a space, which is part of the name
            if path is not None:
                source = f"clotho/{recordings.get(name, Path(name).stem)}"
                captions = tuple(row[column].strip() for column in CAPTION_COLUMNS)
                clips.append(Clip(source, captions, source, corpus, path=path, tags=keywords.get(name, ())))
    return clips


def _read_metadata(path: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """File name -> keywords, and file name -> Freesound's number of the recording. Both empty without the table."""
    if not path.is_file():
        return {}, {}
    rows = read_table(path, columns=("file_name",), encoding="latin-1")  # as published, and not UTF-8
    for column in ("keywords", "sound_id"):
        if column not in rows[0]:
            raise ValueError(f"{path} lacks the column {column}: run lasslab fetch clotho")
    keywords = {
        row["file_name"]: tuple(word.strip().lower() for word in (row["keywords"] or "").split(";") if word.strip())
        for row in rows
    }
    recordings = {
        row["file_name"]: row["sound_id"].strip() for row in rows if (row["sound_id"] or "").strip().isdecimal()
    }
    return keywords, recordings
