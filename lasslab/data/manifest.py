"""What `data/manifest.json` knows of each corpus: where it is, its licence, its files with size and hash."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class RemoteFile:
    """One file of a corpus.

    Args:
        name: its name.
        url: its address.
        size: bytes, None when not published.
        hash: `"sha256:…"` or `"md5:…"`, None when not published.
        into: where it goes, below the corpus' folder.
        unpack: it is an archive, and its contents go there.
        strip: leading folders of the names in the archive to leave out.
        volume: it is a part of the archive that is unpacked.
    """

    name: str
    url: str
    size: int | None = None
    hash: str | None = None
    into: str = ""
    unpack: bool = False
    strip: int = 0
    volume: bool = False


@dataclass(frozen=True)
class Part:
    """A piece of a corpus that makes sense alone: a split, the tables.

    Args:
        files: what is downloaded.
        has: paths below the corpus' folder that are there when the part is.
        optional: fetched only when it is named.
        unpacked: bytes of the archives' contents, None when unknown.
    """

    files: tuple[RemoteFile, ...]
    has: tuple[str, ...]
    optional: bool = False
    unpacked: int | None = None

    @property
    def size(self) -> int | None:
        """Bytes to download, None when one of the files does not say."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(sizes)


@dataclass(frozen=True)
class Entry:
    """What the manifest knows of a corpus.

    Args:
        title: as people write it.
        folder: its folder below the data root.
        page: where it is described.
        licence: its terms in one line.
        parts: by name, in the order in which they are fetched.
        bring: what cannot be fetched, and where to put it; empty when nothing is missing.
    """

    title: str
    folder: str
    page: str
    licence: str
    parts: dict[str, Part]
    bring: str = ""

    def is_there(self, root: Path, part: str) -> bool:
        """Whether a part is in the corpus' folder below a data root."""
        return all((root / self.folder / path).exists() for path in self.parts[part].has)


def manifest_path() -> Path:
    """`data/manifest.json` of the repository that the package is installed from."""
    return Path(__file__).resolve().parents[2] / "data" / "manifest.json"


def read_manifest(path: str | Path | None = None) -> dict[str, Entry]:
    """Read what is known of each corpus.

    Args:
        path: another manifest, for example of a mirror in one's own network; None reads the repository's.

    Returns:
        Name for `lasslab fetch` -> what is known.

    Raises:
        ValueError: no such file, or it is not a manifest; names the corpus.
    """
    path = Path(path or manifest_path())
    try:
        content = json.loads(path.read_text(encoding="utf-8"))["corpora"]
    except OSError as error:
        raise ValueError(f"no manifest at {path}: run from a clone of the repository, or give --manifest") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a manifest ({type(error).__name__}: {error}): take data/manifest.json"
        ) from error
    entries = {}
    for name, fields in content.items():
        try:
            entries[name] = _entry(fields)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"{path}: {name} is not described as it should be ({error})") from error
    return entries


def _entry(fields: dict) -> Entry:
    parts = {}
    for name, part in fields["parts"].items():
        files = tuple(RemoteFile(**file) for file in part["files"])
        for file in files:
            if not file.url.startswith(("https://", "http://")):
                raise ValueError(f"{file.url} is not a web address")
            if file.hash is not None and file.hash.partition(":")[0] not in ("sha256", "md5"):
                raise ValueError(f"{file.hash} is neither sha256:… nor md5:…")
            for relative in (file.name, file.into):
                if PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
                    raise ValueError(f"{relative} leaves the corpus' folder")
        parts[name] = Part(**{**part, "files": files, "has": tuple(part["has"])})
    if not fields["folder"] or PurePosixPath(fields["folder"]).name != fields["folder"]:
        raise ValueError(f"{fields['folder']!r} is not the name of a folder")
    return Entry(**{**fields, "parts": parts})
