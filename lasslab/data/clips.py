"""A clip of sound and what every corpus reader needs: where corpora are, their tables, and the files in their folders.

The readers are `lasslab.data.corpora` (ESC-50, synthesis, and `load_corpus`, which reaches them all), `clotho`,
`youtube` (AudioCaps, VGGSound), `wavcaps`, `dcase` and `own_folder`. Notebook 03.
"""

import csv
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lasslab.data.synthesis import synthesise
from lasslab.signal.audio import SAMPLE_RATE, load_audio, resample, to_mono

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


@dataclass(frozen=True)
class Clip:
    """One sound with its label and the sentences that describe it. The samples are made or read by `load`.

    Args:
        label: sound class; two clips that share it are never mixed. Where a corpus has sentences and no classes, it is
            the recording, and then only the tags tell whether two recordings hold the same kind of sound.
        captions: sentences that describe the clip.
        source: name of the recording it was cut from, so that splits can keep recordings apart.
        corpus: name of the corpus.
        path: audio file, or None for a synthesised clip.
        seed: seed of a synthesised clip, or None.
        seconds: length of a synthesised clip.
        fold: fold of the corpus, or None.
        tags: everything the corpus, or a tagger (`lasslab.data.tagging`), says is heard in the clip: classes, keywords;
            may be empty.
        max_seconds: no more than this is read of the file, from its start; None reads all of it.
    """

    label: str
    captions: tuple[str, ...]
    source: str
    corpus: str
    path: Path | None = None
    seed: int | None = None
    seconds: float = 5.0
    fold: int | None = None
    tags: tuple[str, ...] = ()
    max_seconds: float | None = None

    def load(self, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Read or make the samples, mixed down to mono.

        Args:
            sample_rate: Hz.

        Returns:
            Samples (T,).

        Raises:
            ValueError: when the file cannot be read.
        """
        if self.path is None:
            return synthesise(self.label, seed=self.seed, seconds=self.seconds, sample_rate=sample_rate)
        if self.max_seconds is None:
            return load_audio(self.path, sample_rate=sample_rate)
        return _load_beginning(self.path, seconds=self.max_seconds, sample_rate=sample_rate)

    def shares_sound(self, other: "Clip") -> bool:
        """Whether a kind of sound is known to be heard in both: the label or a tag of one is one of the other's too."""
        return not {self.label, *self.tags}.isdisjoint((other.label, *other.tags))


def _load_beginning(path: Path, *, seconds: float, sample_rate: int) -> Tensor:
    """As `load_audio`, but an hour-long recording costs no more memory than the piece that is wanted."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            if file.frames <= seconds * file.samplerate:
                return load_audio(path, sample_rate=sample_rate)
            samples = file.read(max(1, round(seconds * file.samplerate)), dtype="float32", always_2d=True)
            file_rate = file.samplerate
    except (soundfile.SoundFileError, OSError):
        return load_audio(path, sample_rate=sample_rate)  # which says what is wrong with the file
    waveform = torch.from_numpy(samples.T.copy())  # (C, T)
    if not waveform.isfinite().all():
        raise ValueError(f"{path} has NaN or infinite samples: export it again from the program that made it")
    return resample(to_mono(waveform), orig_rate=file_rate, new_rate=sample_rate)


def check_max_seconds(max_seconds: float | None) -> None:
    """Refuse a length that is not a positive number of seconds."""
    if max_seconds is not None and not 0 < max_seconds < math.inf:
        raise ValueError(f"max_seconds is a positive number of seconds, or None for whole files, got {max_seconds}")


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


def not_there(title: str, *, folder: Path, looked_for: Path, fetch: str) -> ValueError:
    """The error of a corpus that is not where it should be.

    Args:
        title: the corpus as people write it.
        folder: where it should be.
        looked_for: the file or folder that is missing.
        fetch: its name for `lasslab fetch`.

    Returns:
        The error, to be raised by the reader.
    """
    return ValueError(
        f"no {title} at {folder} (looked for {looked_for}): run lasslab fetch {fetch}, "
        "or set LASSLAB_DATA to the folder that holds it"
    )


def choose_splits(
    title: str, *, tables: Mapping[str, Path], wanted: Sequence[str] | None, folder: Path, fetch: str
) -> dict[str, Path]:
    """The tables of the splits that are wanted; None wants every split whose table is there.

    Args:
        title: the corpus as people write it.
        tables: split -> its table.
        wanted: names of splits, or None.
        folder: folder of the corpus.
        fetch: its name for `lasslab fetch`.

    Returns:
        Split -> table, in the corpus' order; every one is a file.

    Raises:
        ValueError: a split is unknown, or a table is not there.
    """
    if wanted is not None:
        unknown = sorted(set(wanted) - set(tables))
        if unknown or not wanted:
            asked = ", ".join(unknown) or "none"
            raise ValueError(f"{title} has the splits {', '.join(tables)}, asked for {asked}")
        chosen = {split: path for split, path in tables.items() if split in set(wanted)}
    else:
        chosen = {split: path for split, path in tables.items() if path.is_file()} or dict(tables)
    for path in chosen.values():
        if not path.is_file():
            raise not_there(title, folder=folder, looked_for=path, fetch=fetch)
    return chosen


def index_audio(*folders: Path, recursive: bool = False) -> dict[str, Path]:
    """The sounds in some folders, by file name and by stem: a corpus converted to another format is still found.

    Args:
        *folders: where to look; one that does not exist is empty.
        recursive: look into sub-folders too.

    Returns:
        Name, and name without suffix -> path. The first folder wins, and a full name wins over a stem.
    """
    names: dict[str, Path] = {}
    stems: dict[str, Path] = {}
    for folder in folders:
        found = folder.rglob("*") if recursive else folder.iterdir()
        for path in sorted(found) if folder.is_dir() else ():
            if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
                names.setdefault(path.name, path)
                stems.setdefault(path.stem, path)
    return {**stems, **names}


def find_audio(index: Mapping[str, Path], *names: str) -> Path | None:
    """The first of the names that is in the index, with whatever audio suffix.

    Args:
        index: from `index_audio`.
        *names: file names with or without suffix, the most likely first.

    Returns:
        The path, or None.
    """
    for name in names:
        stem = name[: -len(suffix)] if (suffix := Path(name).suffix).lower() in AUDIO_SUFFIXES else name
        if path := index.get(name) or index.get(stem):
            return path
    return None


def check_present(
    paths: Iterable[tuple[str, Path | None]], *, table: Path, folder: Path, remedy: str, skip_missing: bool | None
) -> None:
    """Refuse a table whose sounds are missing, or say how many are when they may be left out.

    Args:
        paths: name in the table, and the file found for it or None.
        table: where the names come from.
        folder: where the files were looked for.
        remedy: what to do.
        skip_missing: warn instead of refusing, unless nothing is left; None where leaving out is no choice.

    Raises:
        ValueError: files are missing; says how many and which is the first.
    """
    paths = list(paths)
    missing = [name for name, path in paths if path is None]
    if not missing:
        return
    found = f"{len(missing)} of {len(paths)} audio files named in {table} are missing in {folder}, first {missing[0]!r}"
    if skip_missing and len(missing) < len(paths):
        warnings.warn(f"{found}: left out", stacklevel=3)
        return
    allowed = "" if skip_missing is not False else ", or leave them out with skip_missing=True"
    raise ValueError(f"{found}: {remedy}{allowed}")


def read_table(
    path: str | Path,
    *,
    columns: Sequence[str],
    header: Sequence[str] | None = None,
    delimiter: str = ",",
    encoding: str = "utf-8-sig",
) -> list[dict[str, str]]:
    """Read a CSV file that has at least these columns.

    Args:
        path: the file.
        columns: names that must be there, with a value in every row.
        header: names of the columns of a file that has no header row; None reads the first row as names.
        delimiter: what stands between two values.
        encoding: of the text.

    Returns:
        One dictionary per row.

    Raises:
        ValueError: when the file or a column is missing, it has no rows, or a row is short of a value.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a file: give the path of a CSV table with the columns {', '.join(columns)}")
    try:
        with path.open(newline="", encoding=encoding) as file:
            reader = csv.DictReader(file, fieldnames=header, delimiter=delimiter)
            rows = list(reader)
            names = list(reader.fieldnames or [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV table in UTF-8 ({error}): export it again") from error
    missing = [column for column in columns if column not in names]
    if missing:
        raise ValueError(f"{path} lacks the column {', '.join(missing)}: it has {', '.join(names) or 'none'}")
    if not rows:
        what = "no rows" if header else "a header and no rows"
        raise ValueError(f"{path} has {what}: add at least one")
    for number, row in enumerate(rows, start=1 if header else 2):
        empty = [column for column in columns if not (row[column] or "").strip()]
        if empty:
            raise ValueError(f"{path}, line {number}: no value for {', '.join(empty)}")
        if None in row and header:
            raise ValueError(f"{path}, line {number}: more than {len(names)} values: quote those that hold a comma")
    return rows
