"""A folder of one's own recordings with a table that says what is heard in each.

    my_sounds/
      captions.csv
      kitchen/kettle.wav
      street.mp3

where `captions.csv`, saved from any spreadsheet, is as short as

    filename,caption,label
    kitchen/kettle.wav,a kettle whistles,kettle
    street.mp3,cars pass by,traffic

`load_corpus("my_sounds")` reads it when it lies in the data root, `load_corpus("path/to/my_sounds")` from elsewhere.
Notebook 17.
"""

from collections.abc import Sequence
from pathlib import Path

from lasslab.data.clips import AUDIO_SUFFIXES, Clip, check_present, read_table

TABLE = "captions.csv"
FILE_COLUMNS = ("filename", "file_name", "file")


def read_own_folder(
    folder: str | Path,
    *,
    splits: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    skip_missing: bool = False,
) -> list[Clip]:
    """Read a folder with a table: `captions.csv`, or the only CSV file there is.

    Columns, in any order: `filename` (also `file_name` or `file`), below the folder, with or without suffix; `caption`,
    and `caption_2`, `caption_3`, … for more, or several rows of one file. And, if wanted: `label`, the class; `source`,
    the recording it was cut from; `split`, a word; `fold`, a number; `tags`, several separated by a semicolon.
    Commas, semicolons or tabs between the columns.

    Two clips with one label are never mixed. Without a `label` every file is a class of its own, which is right as long
    as no two files hold the same kind of sound; where some do, a tagger can listen for it, see `lasslab.data.tagging`:
    `lasslab mixtures --tagger clap-lab`, `lasslab train ... --set tagger=clap-lab`.

    Args:
        folder: the folder.
        splits: values of `split` to keep; None keeps all.
        folds: values of `fold` to keep; None keeps all.
        skip_missing: leave out what has no audio file, with a warning.

    Returns:
        Clips in the order of the table.

    Raises:
        ValueError: when the table, a column, a caption or an audio file is missing, or rows of one file contradict.
    """
    folder = Path(folder)
    table = _find_table(folder)
    rows, file_column = _read_rows(table)
    rows = _select(_select(rows, "split", splits, table), "fold", folds, table)
    by_file: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_file.setdefault(row[file_column].strip(), []).append(row)
    paths = {name: _find(folder, name, table) for name in by_file}
    check_present(
        paths.items(),
        table=table,
        folder=folder,
        remedy="put the files there or correct the table",
        skip_missing=skip_missing,
    )
    return [
        _clip(name, found, paths[name], folder=folder, table=table)
        for name, found in by_file.items()
        if paths[name] is not None
    ]


def _find_table(folder: Path) -> Path:
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give the folder that holds the recordings and {TABLE}")
    if (folder / TABLE).is_file():
        return folder / TABLE
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
    if len(tables) == 1:
        return tables[0]
    there = f"several tables ({', '.join(path.name for path in tables)})" if tables else "no table"
    raise ValueError(f"{folder} has {there}: name the one to use {TABLE}, with the columns filename,caption,label")


def _read_rows(table: Path) -> tuple[list[dict[str, str]], str]:
    """The rows, with column names in small letters, and which column names the file."""
    try:
        with table.open(encoding="utf-8-sig") as file:
            first = file.readline()
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not text in UTF-8: save it as 'CSV UTF-8' in the spreadsheet") from error
    delimiter = max(",;\t", key=first.count)
    names = [name.strip().strip('"').strip().lower() for name in first.split(delimiter)]
    file_column = next((name for name in FILE_COLUMNS if name in names), FILE_COLUMNS[0])
    original = {name: raw for name, raw in zip(names, first.rstrip("\r\n").split(delimiter), strict=True)}
    wanted = [original.get(name, name).strip().strip('"') for name in (file_column, "caption")]
    rows = read_table(table, columns=wanted, delimiter=delimiter)
    return [{(key or "").strip().lower(): value for key, value in row.items()} for row in rows], file_column


def _select(
    rows: list[dict[str, str]], column: str, wanted: Sequence[str] | Sequence[int] | None, table: Path
) -> list[dict[str, str]]:
    if wanted is None:
        return rows
    if column not in rows[0]:
        raise ValueError(f"{table} has no column {column}, so {column}s cannot be chosen: add it")
    known = {(row[column] or "").strip() for row in rows}
    chosen = {str(value) for value in wanted}
    if not chosen or not chosen <= known:
        raise ValueError(f"{table} has the {column}s {', '.join(sorted(known))}, asked for {sorted(chosen)}")
    return [row for row in rows if (row[column] or "").strip() in chosen]


def _find(folder: Path, name: str, table: Path) -> Path | None:
    """The file below the folder, as it is named or with another audio suffix."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{table}: {name!r} is outside of {folder}: copy the recording into the folder")
    if path.is_file():
        return path
    stem = path.with_suffix("") if path.suffix.lower() in AUDIO_SUFFIXES else path
    candidates = (stem.with_name(stem.name + suffix) for suffix in AUDIO_SUFFIXES)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _clip(name: str, rows: list[dict[str, str]], path: Path, *, folder: Path, table: Path) -> Clip:
    captions: list[str] = []
    for row in rows:
        found = [(value or "").strip() for key, value in row.items() if key == "caption" or key.startswith("caption_")]
        captions += [caption for caption in found if caption and caption not in captions]
    single = {}
    for column in ("label", "source", "fold"):
        values = {(row.get(column) or "").strip() for row in rows} - {""}
        if len(values) > 1:
            raise ValueError(f"{table}: {name!r} has the {column}s {', '.join(sorted(values))}: give it one")
        single[column] = values.pop() if values else ""
    if single["fold"] and not single["fold"].isdecimal():
        raise ValueError(f"{table}: fold {single['fold']!r} of {name!r} is not a number")
    tags = [tag.strip() for row in rows for tag in (row.get("tags") or "").split(";") if tag.strip()]
    stem = str(Path(name).with_suffix("")) if Path(name).suffix.lower() in AUDIO_SUFFIXES else name
    return Clip(
        label=single["label"] or stem,
        captions=tuple(captions),
        source=f"{folder.name}/{single['source'] or stem}",
        corpus=folder.name,
        path=path,
        fold=int(single["fold"]) if single["fold"] else None,
        tags=tuple(dict.fromkeys(tags)),
    )
