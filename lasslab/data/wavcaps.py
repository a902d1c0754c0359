"""WavCaps: 403,050 recordings from four places, each with a sentence that a language model made from its description.

Reference: X. Mei et al., "WavCaps: A ChatGPT-Assisted Weakly-Labelled Audio Captioning Dataset for Audio-Language
Multimodal Research", IEEE/ACM Transactions on Audio, Speech, and Language Processing 32, 2024.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from lasslab.data.clips import Clip, check_present, choose_splits, find_audio, index_audio
from lasslab.data.youtube import read_audioset_tags

SOURCES = {
    "AudioSet_SL": "as_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "FreeSound": "fsd_final.json",
    "SoundBible": "sb_final.json",
}
#: where the archives put the recordings of a source once they are unpacked in the dataset's folder
UNPACKED = "mnt/fast/nobackup/scratch4weeks/xm00178/WavCaps/data/waveforms"
BLACKLIST_KEYS = {"AudioSet_SL": "AudioSet", "FreeSound": "FreeSound"}


def read_wavcaps(
    folder: str | Path,
    *,
    sources: Sequence[str] | None = None,
    skip_missing: bool = False,
    blacklist: str | None = None,
    audioset: str | Path | None = None,
) -> list[Clip]:
    """Read WavCaps: `json_files/<source>/*_final.json` as published, and `<id>.flac` below `audio/<source>/`.

    The recordings may also lie where the archives unpack them (`Zip_files/<source>/` or the dataset's folder).

    The label is the recording. The tags are what a source has: the uploader's tags (FreeSound), the category (BBC),
    AudioSet's classes where its segment tables are there (AudioSet_SL), nothing (SoundBible). The limit: two
    recordings without a tag in common may hold the same kind of sound.

    FreeSound's recordings last up to hours: give `load_corpus` a `max_seconds`.

    Args:
        folder: the dataset's folder.
        sources: of `SOURCES`; None reads those whose JSON is there.
        skip_missing: leave out what has no audio file, with a warning.
        blacklist: leave out what also is in a test set, by the name of a published list in `json_files/blacklist/`:
            `"blacklist_exclude_test_ac"` (AudioCaps and Clotho), `"blacklist_exclude_ub8k_esc50_vggsound"`.
        audioset: folder of AudioSet's `*_segments.csv`; None goes without.

    Returns:
        Clips in the order of the files.

    Raises:
        ValueError: when a file, an entry, a caption or an audio file is missing, or a source is unknown.
    """
    folder = Path(folder)
    tables = {source: folder / "json_files" / source / name for source, name in SOURCES.items()}
    excluded = _read_blacklist(folder, blacklist)
    clips = []
    chosen = choose_splits("WavCaps", tables=tables, wanted=sources, folder=folder, fetch="wavcaps")
    for source, table in chosen.items():
        entries = [entry for entry in _read_entries(table) if Path(entry["id"]).stem not in excluded.get(source, ())]
        index = index_audio(
            folder / "audio" / source,
            folder / "Zip_files" / source,
            folder / UNPACKED / f"{source}_flac",
            recursive=True,
        )
        paths = [find_audio(index, entry["id"]) for entry in entries]
        check_present(
            [(entry["id"], path) for entry, path in zip(entries, paths, strict=True)],
            table=table,
            folder=folder / "audio" / source,
            remedy="bring the recordings (lasslab fetch wavcaps says which it has)",
            skip_missing=skip_missing,
        )
        # AudioSet_SL's names are Y<video>.wav
        videos = {Path(entry["id"]).stem[1:] for entry in entries} if source == "AudioSet_SL" and audioset else set()
        classes = read_audioset_tags(audioset, videos) if videos else {}
        for entry, path in zip(entries, paths, strict=True):
            if path is not None:
                name = f"wavcaps/{source}/{Path(entry['id']).stem}"
                tags = classes.get(Path(entry["id"]).stem[1:], ()) or _tags(entry)
                clips.append(Clip(name, (entry["caption"],), name, "wavcaps", path=path, tags=tags))
    return clips


def _read_entries(path: Path) -> list[dict]:
    """The entries of a source's JSON, each with an `id` and a `caption` that are not empty."""
    entries = read_json_entries(path, remedy="run lasslab fetch wavcaps")
    for number, entry in enumerate(entries, start=1):
        for key in ("id", "caption"):
            if not str(entry.get(key) or "").strip():
                raise ValueError(f"{path}, entry {number}: no value for {key}: run lasslab fetch wavcaps")
        entry.update(id=str(entry["id"]).strip(), caption=str(entry["caption"]).strip())
    return entries


def read_json_entries(path: Path, *, remedy: str) -> list[dict]:
    """A list of objects, as it is or under the key `data`.

    Args:
        path: the JSON file.
        remedy: what to do when it is not such a list.

    Returns:
        At least one object.

    Raises:
        ValueError: not JSON, not a list of objects, or empty.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not JSON ({error}): {remedy}") from error
    entries = content.get("data") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} holds no list of clips: {remedy}")
    return entries


def _read_blacklist(folder: Path, name: str | None) -> dict[str, set[str]]:
    if name is None:
        return {}
    path = folder / "json_files" / "blacklist" / f"{name.removesuffix('.json')}.json"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in path.parent.glob("*.json"))) or "none"
        raise ValueError(f"no blacklist {path}: there are {known}; run lasslab fetch wavcaps")
    content = json.loads(path.read_text(encoding="utf-8"))
    return {source: {Path(str(entry)).stem for entry in content.get(key, ())} for source, key in BLACKLIST_KEYS.items()}


def _tags(entry: dict) -> tuple[str, ...]:
    """FreeSound's `tags` (a list) or the BBC's `category` (a text), in small letters."""
    words = entry.get("tags") or entry.get("category") or ()
    words = words.split(",") if isinstance(words, str) else words
    return tuple(str(word).strip().lower() for word in words if str(word).strip())
