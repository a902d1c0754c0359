"""The lists of DCASE 2024 Task 9: mixtures to make from its validation clips, and mixtures to be asked about.

Reference: dcase.community/challenge2024/task-language-queried-audio-source-separation.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from lasslab.data.clips import check_present, find_audio, index_audio, not_there, read_table
from lasslab.data.dcase import FETCH
from lasslab.data.pairs import Pair

QUERY_COLUMNS = ("query", "caption")
EVALUATION_FOLDERS = {"synthetic": "lass_evaluation_synth", "real": "lass_evaluation_real"}


def read_dcase_pairs(folder: str | Path) -> list[Pair]:
    """Read the synthetic validation list, `lass_synthetic_validation.csv`: `source, noise, snr, query`.

    `source` and `noise` are names in `lass_validation/` without suffix. The challenge mixes over the whole clip, as
    `lasslab.data.mixtures.load_pair` does, and lowers mixture and source together when they would clip (to 0.9 where
    `load_pair` lowers to 1, which changes no ratio). `write_pairs` turns the list into one of AudioSep's form.

    Args:
        folder: the challenge's folder, `DCASE2024-T9`.

    Returns:
        3,000 pairs from the published list, in its order, each with its SNR.

    Raises:
        ValueError: when the list, a column, a number or an audio file is missing; names the line.
    """
    folder = Path(folder)
    table = folder / "lass_synthetic_validation.csv"
    if not table.is_file():
        raise not_there("DCASE 2024 Task 9", folder=folder, looked_for=table, fetch=f"{FETCH} --part validation")
    rows = read_table(table, columns=("source", "noise", "snr"))
    index = index_audio(folder / "lass_validation", recursive=True)
    paths = {name: find_audio(index, name) for row in rows for name in (row["source"], row["noise"])}
    check_present(
        paths.items(),
        table=table,
        folder=folder / "lass_validation",
        remedy=f"run lasslab fetch {FETCH} --part validation",
        skip_missing=None,
    )
    return [
        Pair(
            idx=str(line - 2),
            caption=_query(row, where=f"{table}, line {line}"),
            target_path=paths[row["source"]],
            noise_path=paths[row["noise"]],
            snr_db=_snr(row["snr"], where=f"{table}, line {line}"),
        )
        for line, row in enumerate(rows, start=2)
    ]


def read_dcase_queries(folder: str | Path, which: str = "synthetic") -> list[tuple[Path, str]]:
    """Read a list of the evaluation set: mixtures and what is asked of them. Their sources were never released.

    Args:
        folder: the challenge's folder, `DCASE2024-T9`.
        which: `"synthetic"` (`lass_synthetic_evaluation.csv`, 3,000 mixtures in `lass_evaluation_synth/`) or `"real"`
            (`lass_real_evaluation.csv`, 100 clips with two queries each in `lass_evaluation_real/`); both `wav, query`.

    Returns:
        Mixture and query, in the order of the list.

    Raises:
        ValueError: when the list, a column or an audio file is missing, or there is no such list.
    """
    if which not in EVALUATION_FOLDERS:
        raise ValueError(f"the evaluation set has the lists {', '.join(EVALUATION_FOLDERS)}, asked for {which!r}")
    folder = Path(folder)
    table = folder / f"lass_{which}_evaluation.csv"
    if not table.is_file():
        raise not_there("DCASE 2024 Task 9", folder=folder, looked_for=table, fetch=f"{FETCH} --part evaluation")
    rows = read_table(table, columns=("wav",))
    audio = folder / EVALUATION_FOLDERS[which]
    index = index_audio(audio, recursive=True)
    paths = {row["wav"]: find_audio(index, row["wav"]) for row in rows}
    check_present(
        paths.items(),
        table=table,
        folder=audio,
        remedy=f"run lasslab fetch {FETCH} --part evaluation",
        skip_missing=None,
    )
    return [(paths[row["wav"]], _query(row, where=f"{table}, line {line}")) for line, row in enumerate(rows, start=2)]


def _query(row: Mapping[str, str], *, where: str) -> str:
    """The sentence of a row, under either of the names that the challenge uses for it."""
    for column in QUERY_COLUMNS:
        if (row.get(column) or "").strip():
            return row[column].strip()
    raise ValueError(f"{where}: no value for {' or '.join(QUERY_COLUMNS)}")


def _snr(text: str, *, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: snr {text!r} is not a number of dB")
    return value
