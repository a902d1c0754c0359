"""Lists of edits: `task,original,target,instruction`, with the audio of originals and targets beside them.

Further columns serve the evaluation and may be missing: `caption` describes the target, `removed_label` and
`added_label` are the classes of the sounds that go and come, and `removed` and `added` their audio, which
tell where in time and frequency the edit is.

Notebook 14.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from torch import Tensor

from lasslab.data.audio_folder import AudioFolder
from lasslab.data.clips import read_table
from lasslab.data.edits import SIX_EDITS, EditDataset, edit_batch
from lasslab.data.instructions import TASKS
from lasslab.signal.audio import SAMPLE_RATE, read_audio, resample, save_audio, scan_audio, to_mono
from lasslab.signal.files import write_text

TRIPLET_COLUMNS = ("task", "original", "target", "instruction")
LIST_FILE = "triplets.csv"


@dataclass(frozen=True)
class Triplet:
    """One row of a list.

    Args:
        task: "add", "remove" or "replace".
        original: file before the edit.
        target: file after it.
        instruction: what is asked.
        caption: of the target, or "".
        removed_label, added_label: classes of the sounds that go and come, or "".
        removed, added: files of those sounds alone, at the level they have in original and target, or None.
    """

    task: str
    original: Path
    target: Path
    instruction: str
    caption: str = ""
    removed_label: str = ""
    added_label: str = ""
    removed: Path | None = None
    added: Path | None = None


def read_triplets(path: str | Path, audio_dir: str | Path) -> list[Triplet]:
    """Read a list of edits; files are looked for as `lasslab.data.pairs.read_pairs` does.

    Args:
        path: the CSV.
        audio_dir: folder that holds the files it names.

    Returns:
        Triplets in the list's order.

    Raises:
        ValueError: a column or a file is missing, an unknown task, an empty instruction, or an original and a target of
            different lengths or rates; names the row and the file.
    """
    rows = read_table(path, columns=TRIPLET_COLUMNS)
    folder = AudioFolder(audio_dir)
    triplets = []
    for line, row in enumerate(rows, start=2):
        where = f"{path}, line {line}"
        if row["task"] not in TASKS:
            raise ValueError(f"{where}: unknown task {row['task']!r}, use one of {', '.join(TASKS)}")
        files = {name: _find(folder, row, name, where) for name in ("original", "target", "removed", "added")}
        words = {name: (row.get(name) or "").strip() for name in ("caption", "removed_label", "added_label")}
        triplet = Triplet(task=row["task"], instruction=row["instruction"].strip(), **files, **words)
        _check_alike(triplet, where)
        triplets.append(triplet)
    return triplets


def _find(folder: AudioFolder, row: dict[str, str], column: str, where: str) -> Path | None:
    name = (row.get(column) or "").strip()
    needed = column in TRIPLET_COLUMNS
    if not name and not needed:
        return None
    try:
        found = folder.find(name) if name else None
    except ValueError as error:
        raise ValueError(f"{where}: {column} {error}") from error
    if found is None:
        raise ValueError(
            f"{where}: {column} {name!r} is not in {folder.folder}: give the folder that holds it, under any audio "
            "suffix"
        )
    return found


def _check_alike(triplet: Triplet, where: str) -> None:
    """Original and target must agree sample by sample; so must what is given of the sounds between them."""
    first = scan_audio(triplet.original)
    for name in ("target", "removed", "added"):
        other = getattr(triplet, name)
        if other is None:
            continue
        scan = scan_audio(other)
        if scan.sample_rate != first.sample_rate:
            raise ValueError(
                f"{where}: {triplet.original.name} has {first.sample_rate} Hz and {other.name} {scan.sample_rate} Hz: "
                "bring them to one rate"
            )
        if scan.n_samples != first.n_samples:
            raise ValueError(
                f"{where}: {triplet.original.name} has {first.n_samples} samples and {other.name} {scan.n_samples}: "
                "an edit keeps the length, cut or pad one of them"
            )


def load_triplet(triplet: Triplet, *, sample_rate: int = SAMPLE_RATE) -> dict[str, Tensor]:
    """Read the audio of a triplet.

    Args:
        triplet: from `read_triplets`.
        sample_rate: Hz.

    Returns:
        `original` and `target` (T,), and `removed` and `added` where their files are given.

    Raises:
        ValueError: a file cannot be read; names it.
    """
    loaded = {}
    for name in ("original", "target", "removed", "added"):
        path = getattr(triplet, name)
        if path is not None:
            waveform, rate = read_audio(path)
            loaded[name] = resample(to_mono(waveform), orig_rate=rate, new_rate=sample_rate)
    return loaded


def independent_numbers(n: int) -> list[int]:
    """Items of an `EditDataset` of 6 n items, each of a group of its own, the six edits in turn: a test list.

    In a whole group every edit has its inverse: its originals are its targets in another order. A metric that compares
    sets (FD, FAD) then finds the unedited originals perfect, and six items that share their sounds are not six for a
    confidence interval.

    Args:
        n: number of items.

    Returns:
        n numbers; a multiple of six has equally many of each task.
    """
    return [len(SIX_EDITS) * group + group % len(SIX_EDITS) for group in range(n)]


def write_triplets(folder: str | Path, dataset: EditDataset, *, numbers: Iterable[int] | None = None) -> list[Triplet]:
    """Write edits as a list and its audio, 32-bit float WAV at 16 kHz: FOLDER/triplets.csv and FOLDER/audio.

    The list is written last: a folder with a list is complete.

    Args:
        folder: made when it is missing; it must not hold a list already.
        dataset: the edits.
        numbers: which of its items; all when left out.

    Returns:
        What was written.

    Raises:
        ValueError: the folder holds a list, or cannot be written.
    """
    folder = Path(folder)
    if (folder / LIST_FILE).exists():
        raise ValueError(f"{folder / LIST_FILE} is there already: choose another folder, so that nothing is lost")
    audio = folder / "audio"
    try:
        audio.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{audio} cannot be made ({error.strerror}): choose another folder") from error
    triplets = [_write(audio, number, dataset[number]) for number in (numbers or range(len(dataset)))]
    write_text(folder / LIST_FILE, _as_csv(triplets))
    return triplets


def _write(audio: Path, number: int, item: dict) -> Triplet:
    batch = edit_batch({name: item[name][None] for name in ("base", "removed", "added")})
    silent = {"add": "removed", "remove": "added"}.get(item["task"])
    files = {}
    for name in ("original", "target", "removed", "added"):
        if name == silent:
            continue
        files[name] = audio / f"{number:05d}-{name}.wav"
        save_audio(files[name], batch[name][0], sample_rate=SAMPLE_RATE)
    words = {name: item[name] for name in ("task", "instruction", "caption", "removed_label", "added_label")}
    return Triplet(**words, **files)


def _as_csv(triplets: Sequence[Triplet]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [field.name for field in fields(Triplet)]
    writer.writerow(names)
    for triplet in triplets:
        values = (getattr(triplet, name) for name in names)
        writer.writerow(["" if value is None else value.name if isinstance(value, Path) else value for value in values])
    return buffer.getvalue()
