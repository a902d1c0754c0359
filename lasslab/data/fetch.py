"""Fetching a corpus from its own public place: `lasslab fetch NAME`.

`data/manifest.json` says for each corpus where it is, under which licence, how large it is, and which hash it has.
Everything is downloaded, checked and unpacked in a hidden folder beside the corpus; the corpus' folder appears when it
is whole. What is interrupted goes on where it was. A hash that nobody published is recorded at the first download, in
`<corpus>.fetched.json` beside the corpus, and compared at the next.
"""

import datetime
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lasslab.data.archives import check_seven_zip
from lasslab.data.clips import data_root
from lasslab.data.download import FetchError, download, kept_bytes
from lasslab.data.manifest import Entry, RemoteFile, read_manifest
from lasslab.data.unpack import check_room, unpack
from lasslab.signal.files import write_json


def fetch_corpus(
    name: str,
    *,
    parts: Sequence[str] | None = None,
    root: str | Path | None = None,
    manifest: str | Path | None = None,
    progress: Callable[[str, int, int | None], object] | None = None,
    say: Callable[[str], object] = lambda text: None,
    pause: float = 1.0,
) -> Path:
    """Download, check and unpack a corpus into the data root.

    Args:
        name: as in the manifest.
        parts: parts to fetch; None fetches all that are not optional.
        root: the data root; default `data_root()`.
        manifest: another manifest than the repository's.
        progress: called with what is being done, bytes done, and their sum or None.
        say: called with a line of text for people.
        pause: seconds before a broken connection is taken up again.

    Returns:
        The corpus' folder.

    Raises:
        ValueError: an unknown corpus or part, or a package that is missing.
        FetchError: a download failed, or an archive is not to be trusted. What was downloaded is kept when it can be
            gone on with; the corpus' folder is as it was.
        OSError: not enough room on the disk, or no right to write.
    """
    entries = read_manifest(manifest)
    if name not in entries:
        raise ValueError(f"unknown corpus {name!r}: choose one of {', '.join(entries)}")
    entry = entries[name]
    root = Path(root or data_root())
    folder = root / entry.folder
    chosen = _choose(entry, parts, name)
    wanted = [part for part in chosen if not entry.is_there(root, part)]
    for part in set(chosen) - set(wanted):
        say(f"{entry.title}, {part}: is already in {folder}")
    if wanted:
        files = [file for part in wanted for file in entry.parts[part].files]
        for file in files:
            check_seven_zip(file.name)
        size = _sum([file.size for file in files])
        what = f"{len(files)} file{'s' * (len(files) > 1)}, {_gigabytes(size)}"
        say(f"{entry.title}, {', '.join(wanted)}: {what}, from {entry.page}; licence: {entry.licence}")
        with _staging(root, entry) as staging:
            _check_disk(entry, wanted, staging)
            record = root / f"{entry.folder}.fetched.json"
            for file in files:
                _download(file, staging, record, progress=progress, say=say, pause=pause)
            whole = staging / "whole"
            shutil.rmtree(whole, ignore_errors=True)
            _assemble(files, staging, whole, progress)
            for part in wanted:
                lacking = [path for path in entry.parts[part].has if not (whole / path).exists()]
                if lacking:
                    raise FetchError(f"{entry.title}, {part}: what was fetched has no {lacking[0]}: see {entry.page}")
            _place(whole, folder)
            _remember(record, staging)
        say(f"{entry.title} is in {folder}")
    if entry.bring:
        say(f"{entry.title}: {entry.bring.format(folder=folder)}")
    return folder


def _choose(entry: Entry, parts: Sequence[str] | None, name: str) -> list[str]:
    if parts is None:
        return [part for part, content in entry.parts.items() if not content.optional]
    unknown = [part for part in parts if part not in entry.parts]
    if unknown or not parts:
        asked = ", ".join(unknown) or "none"
        raise ValueError(f"{name} has the parts {', '.join(entry.parts)}, asked for {asked}")
    return [part for part in entry.parts if part in set(parts)]


@contextmanager
def _staging(root: Path, entry: Entry) -> Iterator[Path]:
    """The hidden folder that a corpus is made in, for one process at a time. It goes when all went well."""
    from filelock import FileLock, Timeout

    staging = root / f".{entry.folder}.fetching"
    staging.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(staging / "lock", timeout=0):
            try:
                yield staging
            except BaseException:
                if any(path.is_file() and path.stat().st_size for path in staging.iterdir()):
                    raise  # what was downloaded stays, to be gone on with
                shutil.rmtree(staging, ignore_errors=True)
                raise
            shutil.rmtree(staging, ignore_errors=True)
    except Timeout as error:
        raise FetchError(f"{entry.title} is being fetched into {root} by another process: wait for it") from error
    shutil.rmtree(staging, ignore_errors=True)


def _check_disk(entry: Entry, parts: Sequence[str], staging: Path) -> None:
    """Room for what is still to be downloaded, and for what comes out of the archives; of unknown sizes, nothing."""
    needed = 0
    for name in parts:
        part = entry.parts[name]
        for file in part.files:
            archive = file.unpack or file.volume
            target = staging / file.name
            if file.size is not None:
                there = target.stat().st_size if target.is_file() else kept_bytes(target)
                needed += max(0, file.size - there) + (file.size if archive and part.unpacked is None else 0)
        needed += part.unpacked or 0
    check_room(staging, needed, what=f"{entry.title} ({', '.join(parts)}) and its archives")


def _download(
    file: RemoteFile,
    staging: Path,
    record: Path,
    *,
    progress: Callable[[str, int, int | None], object] | None,
    say: Callable[[str], object],
    pause: float,
) -> None:
    """One file into the staging folder, unless it is there and was checked."""
    target = staging / file.name
    checked = _read_json(staging / "checked.json")
    if target.is_file() and checked.get(file.url, {}).get("size") == target.stat().st_size:
        return
    recorded = _read_json(record).get(file.url, {}) if file.hash is None else {}
    if kept := kept_bytes(target):
        say(f"{file.name}: going on after {kept:,} bytes")
    try:
        sha256 = download(
            file.url,
            target,
            size=file.size,
            digest=file.hash or (f"sha256:{recorded['sha256']}" if recorded else None),
            progress=None if progress is None else lambda done, total: progress(file.name, done, total),
            say=lambda text: say(f"{file.name}: {text}"),
            pause=pause,
        )
    except FetchError as error:
        if recorded:
            raise FetchError(
                f"{error} (no hash is published; this one is of the download of {recorded['date']}, in {record}: "
                "remove it there when a new version is announced)"
            ) from error
        raise
    if file.hash is None and not recorded:
        say(f"{file.name}: no hash is published; its SHA-256 {sha256} is recorded in {record}, unchecked")
    today = datetime.date.today().isoformat()
    checked[file.url] = {"sha256": sha256, "size": target.stat().st_size, "date": today, "published": file.hash}
    write_json(staging / "checked.json", checked)


def _assemble(
    files: Sequence[RemoteFile],
    staging: Path,
    whole: Path,
    progress: Callable[[str, int, int | None], object] | None,
) -> None:
    """The corpus' folder as it will be, inside of the staging folder."""
    for file in files:
        place = whole / file.into
        if file.unpack:
            told = None
            if progress is not None:
                told = lambda done, total, name=file.name: progress(f"unpacking {name}", done, total)  # noqa: E731
            unpack(staging / file.name, place, strip=file.strip, progress=told)
        elif not file.volume:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(staging / file.name, place / file.name)


def _place(whole: Path, folder: Path) -> None:
    """Give the assembled folder its name; or add to the one that is there, which loses nothing."""
    if not folder.exists():
        whole.rename(folder)
        return
    taken = [path for path in whole.rglob("*") if path.is_file() and (folder / path.relative_to(whole)).exists()]
    if taken:
        first = folder / taken[0].relative_to(whole)
        raise FetchError(f"{first} is already there, and nothing is overwritten: move it away, then fetch again")
    _merge(whole, folder)


def _merge(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir(), key=lambda path: (path.is_file(), path.name)):  # tables after the sounds
        if (target / path.name).exists():
            _merge(path, target / path.name)
        else:
            path.rename(target / path.name)


def _remember(record: Path, staging: Path) -> None:
    write_json(record, {**_read_json(record), **_read_json(staging / "checked.json")})


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _sum(sizes: Sequence[int | None]) -> int | None:
    return None if None in sizes else sum(sizes)


def _gigabytes(size: int | None) -> str:
    return "size not published" if size is None else f"{size / 1e9:.2f} GB"


def overview(manifest: str | Path | None = None, root: str | Path | None = None) -> list[str]:
    """One line for each corpus: name, size of each part, whether it is there, licence.

    Args:
        manifest: another manifest than the repository's.
        root: the data root; default `data_root()`.

    Returns:
        Lines for people.
    """
    root = Path(root or data_root())
    lines = []
    for name, entry in read_manifest(manifest).items():
        parts = ", ".join(
            f"{part} {'(there)' if entry.is_there(root, part) else _gigabytes(content.size)}"
            for part, content in entry.parts.items()
        )
        lines.append(f"{name:<12} {entry.title}: {parts}; {entry.licence}")
    return lines
