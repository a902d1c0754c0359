"""Kinds of archives, each opened the same way: `members()` says what is in it, `write(member, target)` takes one out.

None of them writes anything by itself: `lasslab.data.unpack` looks at the members first.
"""

import bisect
import glob
import gzip
import importlib.util
import io
import itertools
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lasslab.data.download import FetchError

DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    RuntimeError,  # zipfile's, for a password or a method that it does not know
)


@dataclass(frozen=True)
class Member:
    """One entry of an archive: a name with forward slashes, a size, and whether it is anything but a plain file."""

    name: str
    size: int
    is_folder: bool = False
    is_special: bool = False


def open_archive(archive: Path, folder: Path) -> "ZipArchive | TarArchive | SevenZipArchive":
    """Open an archive; use it in a `with`.

    Args:
        archive: a zip (also one in parts: the last, `.zip`), tar or 7z file.
        folder: where it will be unpacked; a 7z file needs room beside it.

    Returns:
        The archive, not read yet.

    Raises:
        FetchError: it is none of these.
        ValueError: a 7z file, and the package py7zr is not installed.
    """
    if archive.name.lower().endswith(".7z"):
        return SevenZipArchive(archive, folder)
    if archive.name.lower().endswith(".zip"):
        return ZipArchive(archive)
    if archive.is_file() and tarfile.is_tarfile(archive):
        return TarArchive(archive)
    raise FetchError(f"{archive} is neither zip nor tar nor 7z, or it is damaged: fetch it again")


class ZipArchive:
    """A zip file, or one in parts: `name.z01`, `name.z02`, …, `name.zip` lie side by side, and the last is given."""

    def __init__(self, archive: Path) -> None:
        numbered = archive.parent.glob(f"{glob.escape(archive.stem)}.z[0-9][0-9]*")
        self.parts = [*sorted(numbered, key=lambda path: int(path.suffix[2:])), archive]

    def __enter__(self) -> "ZipArchive":
        joined = None if len(self.parts) == 1 else io.BufferedReader(_Joined(self.parts), 1 << 20)
        self.zip = zipfile.ZipFile(joined or self.parts[0])
        if joined:
            _correct_offsets(self.zip, self.parts)
        return self

    def __exit__(self, *error: object) -> None:
        self.zip.close()

    def members(self) -> list[Member]:
        return [
            Member(
                info.filename,
                info.file_size,
                is_folder=info.is_dir(),
                is_special=stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR),
            )
            for info in self.zip.infolist()
        ]

    def write(self, member: Member, target: Path) -> None:
        with self.zip.open(member.name) as source, target.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)


class _Joined(io.RawIOBase):
    """Several files read as one, which saves the room for a joined copy."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files = [path.open("rb") for path in paths]
        self.starts = [0, *itertools.accumulate(path.stat().st_size for path in paths)]
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + (0, self.position, self.starts[-1])[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: memoryview) -> int:
        number = bisect.bisect_right(self.starts, self.position) - 1
        if number >= len(self.files):
            return 0
        self.files[number].seek(self.position - self.starts[number])
        n_read = self.files[number].readinto(buffer)
        self.position += n_read
        return n_read

    def close(self) -> None:
        for file in self.files:
            file.close()
        super().close()


def _correct_offsets(archive: zipfile.ZipFile, parts: Sequence[Path]) -> None:
    """In a zip in parts an entry's place counts from the start of its part; `zipfile` counts from the first part.

    It also takes what precedes the directory, and is not accounted for, as bytes in front of the archive, and adds
    their number to every entry.
    """
    tail = _tail(parts[-1])
    end = tail.rindex(b"PK\5\6")
    last_part, directory_offset = struct.unpack("<4xH10xL", tail[end : end + 20])
    if last_part != len(parts) - 1:
        raise FetchError(f"{parts[-1]} is the last of {last_part + 1} parts, {len(parts)} are there: fetch it again")
    starts = [0, *itertools.accumulate(part.stat().st_size for part in parts)]
    added = archive.start_dir - directory_offset
    for info in archive.infolist():
        info.header_offset += starts[info.volume] - added
        if hasattr(info, "_end_offset"):
            info._end_offset = None  # newer Pythons compare with the place of the next entry, which was wrong as well


def _tail(path: Path) -> bytes:
    """The last bytes of a file, where a zip file says what it holds."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 22 + 65_535), io.SEEK_END)
        return file.read()


class TarArchive:
    """A tar file, plain or compressed."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive

    def __enter__(self) -> "TarArchive":
        self.tar = tarfile.open(self.archive)
        self.infos = self.tar.getmembers()
        return self

    def __exit__(self, *error: object) -> None:
        self.tar.close()

    def members(self) -> list[Member]:
        return [Member(info.name, info.size, info.isdir(), not (info.isreg() or info.isdir())) for info in self.infos]

    def write(self, member: Member, target: Path) -> None:
        if not hasattr(self, "by_name"):
            self.by_name = {info.name: info for info in self.infos}
        with self.tar.extractfile(self.by_name[member.name]) as source, target.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)


class SevenZipArchive:
    """A 7z file, by the package py7zr. It is unpacked as a whole into a folder of its own, then its files are moved."""

    def __init__(self, archive: Path, folder: Path) -> None:
        check_seven_zip(archive.name)
        self.archive = archive
        self.temporary = folder.with_name(f".{folder.name}.7z")

    def __enter__(self) -> "SevenZipArchive":
        import py7zr

        try:
            self.file = py7zr.SevenZipFile(self.archive)
        except py7zr.exceptions.ArchiveError as error:
            raise FetchError(f"{self.archive} cannot be unpacked ({error}): fetch it again") from error
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def members(self) -> list[Member]:
        return [
            Member(
                entry.filename,
                entry.uncompressed,
                is_folder=entry.is_directory,
                is_special=entry.is_symlink or entry.is_junction or entry.is_socket,
            )
            for entry in self.file.files
        ]

    def write(self, member: Member, target: Path) -> None:
        import py7zr

        if not self.temporary.exists():
            try:
                self.file.extractall(path=self.temporary)
            except py7zr.exceptions.ArchiveError as error:
                raise FetchError(f"{self.archive} cannot be unpacked ({error}): fetch it again") from error
        (self.temporary / member.name).rename(target)


def check_seven_zip(name: str) -> None:
    """Refuse a 7z file where it cannot be unpacked, before it is downloaded.

    Args:
        name: of the file.

    Raises:
        ValueError: the package py7zr is not installed.
    """
    if name.lower().endswith(".7z") and importlib.util.find_spec("py7zr") is None:
        raise ValueError(f"{name} is a 7z file, which needs the package py7zr: pip install py7zr, then fetch again")
