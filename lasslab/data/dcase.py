"""DCASE 2024 Task 9, language-queried audio source separation: the clips of its development and validation sets.

The challenge's own files lie in `DCASE2024-T9/`. The development set has no sound of its own: it is FSD50K, for which a
language model wrote one sentence a clip from the classes, and Clotho; both are looked for beside that folder.

Reference: dcase.community/challenge2024/task-language-queried-audio-source-separation; E. Fonseca et al., "FSD50K: An
Open Dataset of Human-Labeled Sound Events", IEEE/ACM Transactions on Audio, Speech, and Language Processing 30, 2022.
"""

from collections.abc import Sequence
from pathlib import Path

from lasslab.data.clips import Clip, check_present, choose_splits, find_audio, index_audio, not_there, read_table
from lasslab.data.clotho import read_clotho
from lasslab.data.wavcaps import read_json_entries

FOLDER = "DCASE2024-T9"
FETCH = "dcase2024"


def read_dcase(root: str | Path, *, splits: Sequence[str] | None = None, skip_missing: bool = False) -> list[Clip]:
    """Read the clips of DCASE 2024 Task 9.

    `development`: `DCASE2024-T9/fsd50k_dev_auto_caption.json` and `…_eval_…` (`{"data": [{"wav", "caption"}]}`), the
    sounds in `FSD50K/FSD50K.dev_audio/` and `…eval_audio/`, their classes in `FSD50K/FSD50K.ground_truth/dev.csv` and
    `eval.csv` (`fname, labels, …`), and Clotho in `Clotho/`, of the splits that are there.
    `validation`: `DCASE2024-T9/lass_validation.json` (`[{"Index", "Captions", "Tags"}]`), three captions a clip, the
    sounds in `lass_validation/`.

    The label of an FSD50K or validation clip is its first class, which FSD50K puts before the wider ones; the tags are
    all of its classes, and the challenge mixes two clips that share none. Without the table of classes the label is
    the recording, as it is in Clotho. The limit: a class that nobody ticked is not excluded.

    Args:
        root: the folder that holds `DCASE2024-T9`, `FSD50K` and `Clotho`.
        splits: of `development`, `validation`; None reads those that are there.
        skip_missing: leave out what has no audio file, with a warning.

    Returns:
        Clips in the order of the files.

    Raises:
        ValueError: when a file, an entry or an audio file is missing, or a split is unknown.
    """
    root = Path(root)
    tables = {
        "development": root / FOLDER / "fsd50k_dev_auto_caption.json",
        "validation": root / FOLDER / "lass_validation.json",
    }
    chosen = choose_splits("DCASE 2024 Task 9", tables=tables, wanted=splits, folder=root / FOLDER, fetch=FETCH)
    clips = []
    if "development" in chosen:
        for part in ("dev", "eval"):
            clips += _read_fsd50k(root, part, skip_missing=skip_missing)
        clips += read_clotho(root / "Clotho", skip_missing=skip_missing, corpus=FETCH)
    if "validation" in chosen:
        clips += _read_validation(chosen["validation"], skip_missing=skip_missing)
    return clips


def _read_fsd50k(root: Path, part: str, *, skip_missing: bool) -> list[Clip]:
    table = root / FOLDER / f"fsd50k_{part}_auto_caption.json"
    if not table.is_file():
        raise not_there("DCASE 2024 Task 9", folder=table.parent, looked_for=table, fetch=f"{FETCH} --part development")
    entries = read_json_entries(table, remedy=f"run lasslab fetch {FETCH} --part development")
    for number, entry in enumerate(entries, start=1):
        for key in ("wav", "caption"):
            if not str(entry.get(key) or "").strip():
                raise ValueError(f"{table}, entry {number}: no value for {key}: run lasslab fetch {FETCH}")
    folder = root / "FSD50K" / f"FSD50K.{part}_audio"
    names = [Path(str(entry["wav"])).name for entry in entries]
    index = index_audio(folder)
    paths = [find_audio(index, name) for name in names]
    check_present(
        zip(names, paths, strict=True),
        table=table,
        folder=folder,
        remedy=f"run lasslab fetch fsd50k --part {part}",
        skip_missing=skip_missing,
    )
    classes = _read_classes(root / "FSD50K" / "FSD50K.ground_truth" / f"{part}.csv")
    clips = []
    for entry, name, path in zip(entries, names, paths, strict=True):
        if path is not None:
            source = f"fsd50k/{Path(name).stem}"
            tags = classes.get(Path(name).stem, ())
            captions = (str(entry["caption"]).strip(),)
            clips.append(Clip(tags[0] if tags else source, captions, source, FETCH, path=path, tags=tags))
    return clips


def _read_classes(path: Path) -> dict[str, tuple[str, ...]]:
    """FSD50K's ground truth: file without suffix -> classes, the narrowest first. Empty without the table."""
    if not path.is_file():
        return {}
    return {row["fname"]: tuple(row["labels"].split(",")) for row in read_table(path, columns=("fname", "labels"))}


def _read_validation(path: Path, *, skip_missing: bool) -> list[Clip]:
    remedy = f"run lasslab fetch {FETCH} --part validation"
    entries = [{key.lower(): value for key, value in entry.items()} for entry in read_json_entries(path, remedy=remedy)]
    for number, entry in enumerate(entries, start=1):
        captions = entry.get("captions")
        if not str(entry.get("index", "")).strip():
            raise ValueError(f"{path}, entry {number}: no value for Index: {remedy}")
        if not isinstance(captions, list) or not captions or not all(str(caption).strip() for caption in captions):
            raise ValueError(f"{path}, entry {number}: no captions, or an empty one: {remedy}")
    index = index_audio(path.parent / "lass_validation", recursive=True)
    paths = [find_audio(index, str(entry["index"])) for entry in entries]
    check_present(
        [(str(entry["index"]), found) for entry, found in zip(entries, paths, strict=True)],
        table=path,
        folder=path.parent / "lass_validation",
        remedy=remedy,
        skip_missing=skip_missing,
    )
    clips = []
    for entry, found in zip(entries, paths, strict=True):
        if found is not None:
            source = f"dcase2024/{Path(str(entry['index'])).stem}"
            words = entry.get("tags") or ()
            words = words.split(",") if isinstance(words, str) else words
            tags = tuple(str(word).strip() for word in words if str(word).strip())
            captions = tuple(str(caption).strip() for caption in entry["captions"])
            clips.append(Clip(tags[0] if tags else source, captions, source, FETCH, path=found, tags=tags))
    return clips
