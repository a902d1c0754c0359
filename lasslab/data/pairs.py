"""Lists of pairs of recordings to mix, as AudioSep publishes them: `idx,caption,src_wav,noise_wav`.

A list may have a column `snr_db` with the level of each row, and `noise_wav_2`, `noise_wav_3`, ... for more sources.
Files are found by their name, in any sub-folder, or by their stem where the list says .wav and the folder has .ogg.

Notebook 03.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lasslab.data.audio_folder import AudioFolder
from lasslab.data.clips import read_table
from lasslab.data.mixtures import Mixture, mix_at_snr, sum_in_order
from lasslab.signal.audio import SAMPLE_RATE, fit_length, load_audio
from lasslab.signal.files import write_text

PAIR_COLUMNS = ("idx", "caption", "src_wav", "noise_wav")
MORE_NOISE = "noise_wav_"  # columns noise_wav_2, noise_wav_3, ... of a list of three and more sources


@dataclass(frozen=True)
class Pair:
    """One row of an AudioSep pair list: mix `noise_path` into `target_path`, then ask for `caption`.

    Args:
        idx: the row's own name.
        caption: the query.
        target_path: file of the target.
        noise_path: file of the interference.
        snr_db: SNR of this row in dB, or None where the list gives none.
        more_noise_paths: files of further interferences.
    """

    idx: str
    caption: str
    target_path: Path
    noise_path: Path
    snr_db: float | None = None
    more_noise_paths: tuple[Path, ...] = ()

    @property
    def noise_paths(self) -> tuple[Path, ...]:
        """Files of all interferences."""
        return (self.noise_path, *self.more_noise_paths)


def read_pairs(path: str | Path, audio_dir: str | Path) -> list[Pair]:
    """Read a pair list `idx,caption,src_wav,noise_wav`, as AudioSep publishes it for ESC-50.

    Two things may be added: a column `snr_db` with the SNR of each row, and columns `noise_wav_2`, `noise_wav_3`, ...
    for three and more sources, empty where a row has fewer. Other columns are passed over.

    A file need not lie where the list says: it may be in another sub-folder of `audio_dir` or have another audio suffix
    (`.wav` in the list, `.ogg` on disk), as long as only one file fits. `stem_matches` says how many did not fit as
    listed.

    Args:
        path: the CSV.
        audio_dir: folder that holds the files it names.

    Returns:
        Pairs in the list's order.

    Raises:
        ValueError: when the list, a column or an audio file is missing, a file may be one of several, or an SNR is not
            a number; names the row and the file.
    """
    rows = read_table(path, columns=PAIR_COLUMNS)
    if not Path(audio_dir).is_dir():
        raise ValueError(f"{audio_dir} is not a folder: give the folder that holds the audio files of {path}")
    files = _find_files(path, rows, AudioFolder(audio_dir))
    return [
        Pair(
            idx=row["idx"],
            caption=row["caption"],
            target_path=files[row["src_wav"]],
            noise_path=files[row["noise_wav"]],
            snr_db=_row_snr(row, f"{path}, line {line}"),
            more_noise_paths=tuple(files[row[column]] for column in _file_columns(row)[2:]),
        )
        for line, row in enumerate(rows, start=2)
    ]


def _file_columns(row: dict[str, str]) -> list[str]:
    """Columns of a row that name a file: the target's, the noise's, and those of further noises in their order."""
    further = [name for name in row if name and name.startswith(MORE_NOISE) and (row[name] or "").strip()]
    return ["src_wav", "noise_wav", *further]


def _find_files(path: str | Path, rows: Sequence[dict[str, str]], folder: AudioFolder) -> dict[str, Path]:
    """Name in the list -> file on disk."""
    files: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        for column in _file_columns(row):
            name = row[column]
            if name in files or name in missing:
                continue
            try:
                found = folder.find(name)
            except ValueError as error:
                raise ValueError(f"{path}, line {line}: {column} {error}") from error
            if found is None:
                missing[name] = f"{path}, line {line}: {column} {name!r} is not in {folder.folder}"
            else:
                files[name] = found
    if missing:
        n_listed = len(files) + len(missing)
        more = f", and {len(missing) - 1} more of the {n_listed} files in the list are not" if len(missing) > 1 else ""
        raise ValueError(
            f"{next(iter(missing.values()))}{more}: give the folder that holds them, under any audio suffix"
        )
    return files


def _row_snr(row: dict[str, str], where: str) -> float | None:
    if "snr_db" not in row:
        return None
    try:
        snr_db = float(row["snr_db"] or "")
    except ValueError:
        snr_db = math.nan
    if not math.isfinite(snr_db):
        raise ValueError(f"{where}: snr_db {row['snr_db']!r} is not a number of decibels: give one, or drop the column")
    return snr_db


def stem_matches(path: str | Path, pairs: Sequence[Pair]) -> str | None:
    """How many files of a list were found under another suffix, in words.

    Args:
        path: the list.
        pairs: what `read_pairs` made of it.

    Returns:
        For example "197 of 200 files matched by stem (.wav in the list, .ogg on disk)"; None when none was.
    """
    listed: dict[str, Path] = {}
    for row, pair in zip(read_table(path, columns=PAIR_COLUMNS), pairs, strict=True):
        names = (row[column] for column in _file_columns(row))
        listed |= dict(zip(names, (pair.target_path, *pair.noise_paths), strict=True))
    renamed = {name: file for name, file in listed.items() if Path(name).name != file.name}
    if not renamed:
        return None
    in_list = ", ".join(sorted({Path(name).suffix or "no suffix" for name in renamed}))
    on_disk = ", ".join(sorted({file.suffix for file in renamed.values()}))
    return f"{len(renamed)} of {len(listed)} files matched by stem ({in_list} in the list, {on_disk} on disk)"


def write_pairs(path: str | Path, pairs: Sequence[Pair]) -> None:
    """Write a pair list, file names without their folder; written whole or not at all.

    AudioSep's four columns, and `snr_db` and `noise_wav_2`, ... only where a pair has them.

    Args:
        path: the CSV to write.
        pairs: its rows.

    Raises:
        ValueError: when some of the pairs have an SNR of their own and others have none.
    """
    with_snr = [pair.snr_db is not None for pair in pairs]
    if any(with_snr) and not all(with_snr):
        raise ValueError(f"{sum(with_snr)} of {len(pairs)} pairs have an snr_db: give all of them one, or none")
    n_further = max((len(pair.more_noise_paths) for pair in pairs), default=0)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    further = [f"{MORE_NOISE}{number}" for number in range(2, 2 + n_further)]
    writer.writerow([*PAIR_COLUMNS, *further, *(["snr_db"] if any(with_snr) else [])])
    for pair in pairs:
        names = [noise.name for noise in pair.noise_paths]
        names += [""] * (1 + n_further - len(names))
        level = [repr(pair.snr_db)] if any(with_snr) else []  # repr: the very same number when it is read
        writer.writerow([pair.idx, pair.caption, pair.target_path.name, *names, *level])
    write_text(path, buffer.getvalue())


def load_pair(pair: Pair, *, snr_db: float = 0.0, sample_rate: int = SAMPLE_RATE) -> Mixture:
    """Mix a pair as AudioSep does: the noise cropped or zero-padded to the source's length, scaled to the SNR.

    Several noises are added as they lie on disk, and their sum is scaled.

    Args:
        pair: the files and a caption.
        snr_db: ratio over the whole clip, dB, of a pair that has none of its own.
        sample_rate: Hz.

    Returns:
        Mixture, target and interference, (T,) each.

    Raises:
        ValueError: when a file cannot be read or is silent; names it.
    """
    target = load_audio(pair.target_path, sample_rate=sample_rate)
    noises = [fit_length(load_audio(path, sample_rate=sample_rate), target.shape[-1]) for path in pair.noise_paths]
    for path, waveform in zip((pair.target_path, *pair.noise_paths), (target, *noises), strict=True):
        if not bool(waveform.any()):
            raise ValueError(f"{path} (pair {pair.idx}) is silent over the target's length: it has no SNR, replace it")
    return mix_at_snr(target, sum_in_order(noises), snr_db=snr_db if pair.snr_db is None else pair.snr_db)
