"""AudioCaps and VGGSound: ten-second pieces of YouTube videos, published as tables of addresses and times.

Neither comes with its sound. Videos disappear, so nobody has all of it: `skip_missing=True` reads what is there and
says how much is not.
"""

import csv
from collections.abc import Collection, Sequence
from pathlib import Path

from lasslab.data.clips import (
    Clip,
    check_present,
    choose_splits,
    find_audio,
    index_audio,
    not_there,
    read_table,
)

AUDIOCAPS_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
VGGSOUND_COLUMNS = ("youtube_id", "start_seconds", "label", "split")  # vggsound.csv itself has no header row


def read_audiocaps(
    folder: str | Path,
    *,
    splits: Sequence[str] | None = None,
    skip_missing: bool = False,
    audioset: str | Path | None = None,
) -> list[Clip]:
    """Read AudioCaps: `train.csv`, `val.csv`, `test.csv` as published, and clips in folders of the same names.

    A clip is `<youtube_id>_<start_time>`, as the common download scripts name it, or `Y<youtube_id>`, as in AudioSet's
    and AudioSep's file lists, or `<youtube_id>` or `<audiocap_id>`; WAV, FLAC, OGG or MP3, in `<split>/` or `audio/`.
    The rows of one clip become one `Clip`: training clips have one caption, the others five.

    AudioCaps has sentences only. The label is the video; the tags are AudioSet's classes of the video where the
    segment tables of AudioSet are there. The limit: without them two videos of rain may be mixed.

    Reference: C. D. Kim et al., "AudioCaps: Generating Captions for Audios in The Wild", NAACL-HLT 2019.

    Args:
        folder: the dataset's folder.
        splits: of `train`, `val`, `test`; None reads those whose table is there.
        skip_missing: leave out what has no audio file, with a warning.
        audioset: folder of AudioSet's `*_segments.csv`; None goes without.

    Returns:
        Clips in the order of the tables.

    Raises:
        ValueError: when a table, a column, a caption or an audio file is missing, or a split is unknown.
    """
    folder = Path(folder)
    tables = {split: folder / f"{split}.csv" for split in ("train", "val", "test")}
    clips = []
    chosen = choose_splits("AudioCaps", tables=tables, wanted=splits, folder=folder, fetch="audiocaps")
    for split, table in chosen.items():
        pieces: dict[tuple[str, str], list[dict[str, str]]] = {}
        for row in read_table(table, columns=AUDIOCAPS_COLUMNS):
            pieces.setdefault((row["youtube_id"], row["start_time"]), []).append(row)
        index = index_audio(folder / split, folder / "audio" / split, folder / "audio")
        paths = {
            (video, start): find_audio(index, f"{video}_{start}", f"Y{video}", video, rows[0]["audiocap_id"])
            for (video, start), rows in pieces.items()
        }
        check_present(
            [(f"{video}_{start}", path) for (video, start), path in paths.items()],
            table=table,
            folder=folder / split,
            remedy="bring the clips (lasslab fetch audiocaps has the tables only)",
            skip_missing=skip_missing,
        )
        tags = read_audioset_tags(audioset, {video for video, _ in pieces}) if audioset else {}
        for (video, start), rows in pieces.items():
            if path := paths[video, start]:
                source = f"youtube/{video}"
                captions = tuple(row["caption"].strip() for row in rows)
                clips.append(Clip(source, captions, source, "audiocaps", path=path, tags=tags.get(video, ())))
    return clips


def read_vggsound(folder: str | Path, *, splits: Sequence[str] | None = None, skip_missing: bool = False) -> list[Clip]:
    """Read VGGSound: `vggsound.csv` as published, without header (video, start in seconds, class, split), and clips.

    A clip is `<youtube_id>_<start as six digits>`, as the common download scripts name it, or with the start as it is
    in the table, or `<youtube_id>`; WAV, FLAC, OGG or MP3, in `audio/`, `train/` or `test/`.

    The label is the class, and so is the only caption: "dog barking". The limit: a video has one class, whatever else
    is heard in it.

    Reference: H. Chen et al., "VGGSound: A Large-scale Audio-Visual Dataset", ICASSP 2020.

    Args:
        folder: the dataset's folder.
        splits: of `train`, `test`; None reads both.
        skip_missing: leave out what has no audio file, with a warning.

    Returns:
        Clips in the order of the table.

    Raises:
        ValueError: when the table, a value or an audio file is missing, or a split is unknown.
    """
    folder = Path(folder)
    table = folder / "vggsound.csv"
    if not table.is_file():
        raise not_there("VGGSound", folder=folder, looked_for=table, fetch="vggsound")
    rows = read_table(table, columns=VGGSOUND_COLUMNS, header=VGGSOUND_COLUMNS)
    for number, row in enumerate(rows, start=1):
        if not row["start_seconds"].strip().isdecimal():
            raise ValueError(f"{table}, line {number}: start {row['start_seconds']!r} is not in whole seconds")
    known = sorted({row["split"] for row in rows})
    if splits is not None and not (splits and set(splits) <= set(known)):
        raise ValueError(f"{table} has the splits {', '.join(known)}, asked for {', '.join(splits) or 'none'}")
    rows = [row for row in rows if splits is None or row["split"] in set(splits)]
    index = index_audio(folder / "audio", folder / "train", folder / "test")
    names = [f"{row['youtube_id']}_{int(row['start_seconds']):06d}" for row in rows]
    paths = [
        find_audio(index, name, f"{row['youtube_id']}_{int(row['start_seconds'])}", row["youtube_id"])
        for row, name in zip(rows, names, strict=True)
    ]
    check_present(
        zip(names, paths, strict=True),
        table=table,
        folder=folder / "audio",
        remedy="bring the clips (lasslab fetch vggsound has the table only)",
        skip_missing=skip_missing,
    )
    return [
        Clip(
            label=row["label"].strip(),
            captions=(row["label"].strip(),),
            source=f"youtube/{row['youtube_id']}",
            corpus="vggsound",
            path=path,
        )
        for row, path in zip(rows, paths, strict=True)
        if path is not None
    ]


def read_audioset_tags(folder: str | Path, videos: Collection[str]) -> dict[str, tuple[str, ...]]:
    """AudioSet's classes of some videos, from every `*_segments.csv` in a folder: `/m/0bt9lr` is a dog.

    Each line is `video, start, end, "class,class,…"`; lines that begin with # are comments.

    Args:
        folder: where the tables are; without tables the answer is empty.
        videos: whose classes are wanted.

    Returns:
        Video -> classes.

    Raises:
        ValueError: a line that is not of that form.
    """
    tags: dict[str, tuple[str, ...]] = {}
    for table in sorted(Path(folder).glob("*_segments.csv")):
        with table.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.reader(file, skipinitialspace=True), start=1):
                if not row or row[0].startswith("#"):
                    continue
                if len(row) != 4:
                    raise ValueError(f"{table}, line {number}: not a segment of AudioSet: run lasslab fetch audioset")
                if row[0] in videos:
                    tags[row[0]] = tuple(row[3].split(","))
    return tags
