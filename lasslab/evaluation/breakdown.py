"""Where a system is good and where it is not: items grouped by class and by SNR.

The class of an item is the label that its corpus gives to the target. A pair list has none: then the caption is the
key, and says so, provided that captions come back (one caption for each pair is no class). `esc50_labels` finds the
labels of an ESC-50 folder.

Notebook: 08.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lasslab.data.corpora import read_table
from lasslab.models.text import normalise_query

KINDS = ("class", "snr")
BIN_DB = 5.0  # width of an SNR bin, dB
MOST_LEVELS = 8  # up to this many different SNRs are groups of their own


class Breakdown(NamedTuple):
    """Items in groups.

    Attributes:
        key: what made the groups: "label", "caption" or "snr_db".
        title: the same, for a table.
        groups: name of each group -> positions of its items, in the order of a table.
    """

    key: str
    title: str
    groups: dict[str, list[int]]


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse a kind of breakdown that does not exist.

    Args:
        kinds: of `KINDS`.

    Raises:
        ValueError: one of them is not.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"unknown breakdown {kind!r}: choose {' or '.join(KINDS)}")


def by_class(items: Sequence[Mapping[str, Any]]) -> Breakdown | None:
    """Group items by the class of their target.

    Args:
        items: with `caption`, and `label` where it is known.

    Returns:
        Groups by label where every item has one, else by caption; None where captions are sentences of their own (fewer
        than two items to a caption), or where there is one group only.
    """
    if all("label" in item for item in items):
        key, title, names = "label", "class of the target", [item["label"] for item in items]
    else:
        key, title = "caption", "caption (the list names no classes)"
        names = [normalise_query(item["caption"]) for item in items]
    groups = _group(names)
    if len(groups) < 2 or (key == "caption" and len(groups) > len(items) / 2):
        return None
    return Breakdown(key, title, {name: groups[name] for name in sorted(groups)})


def by_snr(items: Sequence[Mapping[str, Any]]) -> Breakdown | None:
    """Group items by the SNR of their mixture.

    Args:
        items: with `snr_db` where the pairs have levels of their own.

    Returns:
        One group for each level, or bins of 5 dB, lower end included, where there are more than eight levels; None
        where all pairs have one level.
    """
    levels = [round(float(item.get("snr_db", math.nan)), 3) for item in items]
    if len(set(levels)) < 2 or any(math.isnan(level) for level in levels):
        return None
    if len(set(levels)) <= MOST_LEVELS:
        groups = _group(levels)
        return Breakdown("snr_db", "SNR", {f"{level:g} dB": groups[level] for level in sorted(groups)})
    top = math.ceil(max(levels) / BIN_DB) - 1  # the highest level belongs to the last bin, not to one of its own
    groups = _group([min(math.floor(level / BIN_DB), top) for level in levels])
    names = {number: f"{number * BIN_DB:g} to {(number + 1) * BIN_DB:g} dB" for number in sorted(groups)}
    return Breakdown("snr_db", "SNR", {name: groups[number] for number, name in names.items()})


def _group(names: Sequence[Any]) -> dict[Any, list[int]]:
    groups: dict[Any, list[int]] = {}
    for position, name in enumerate(names):
        groups.setdefault(name, []).append(position)
    return groups


def esc50_labels(audio: str | Path) -> dict[str, str]:
    """Classes of the recordings in an ESC-50 folder.

    Args:
        audio: the dataset's folder or the one of its recordings, beside `meta/esc50.csv`; or any other.

    Returns:
        File name without suffix -> class; empty where the folder is no part of an ESC-50.

    Raises:
        ValueError: the table is there and cannot be read.
    """
    folder = Path(audio).resolve()
    tables = [place / "meta" / "esc50.csv" for place in (folder, folder.parent)]
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        return {}
    return {Path(row["filename"]).stem: row["category"] for row in read_table(table, columns=("filename", "category"))}
