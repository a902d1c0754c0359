"""Unpacking archives from elsewhere: everything is looked at first, and one bad name refuses the whole archive.

Refused are names that leave the folder (`..`, absolute, a drive letter), links of any kind, devices and pipes, two
members of one name, and more data than the disk has room for. The files are written by us, with our own permissions.
"""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path, PureWindowsPath

from lasslab.data.archives import DAMAGED, Member, open_archive
from lasslab.data.download import FetchError


def unpack(
    archive: str | Path,
    folder: str | Path,
    *,
    strip: int = 0,
    progress: Callable[[int, int | None], object] | None = None,
) -> int:
    """Unpack a zip (also one in parts: give the last, `.zip`), tar or 7z file.

    Args:
        archive: the file.
        folder: where to; made when it is not there. What it holds is not overwritten.
        strip: leading folders of each name to leave out.
        progress: called with the bytes that are written and their sum.

    Returns:
        Number of files written.

    Raises:
        FetchError: the archive is damaged, would write outside of the folder, holds links or devices, or is of an
            unknown kind. Nothing has been written where it is refused for its names.
        ValueError: a 7z file, and the package py7zr is not installed.
        OSError: not enough room, or the folder cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        with open_archive(archive, folder) as opened:
            targets = check_members(opened.members(), archive=archive, folder=folder, strip=strip)
            total = sum(member.size for member, _ in targets)
            check_room(folder, total, what=f"the contents of {archive.name}")
            done = 0
            for member, target in targets:
                target.parent.mkdir(parents=True, exist_ok=True)
                opened.write(member, target)
                done += member.size
                if progress:
                    progress(done, total)
    except DAMAGED as error:
        if isinstance(error, FetchError):
            raise
        raise FetchError(f"{archive} cannot be unpacked ({error}): fetch it again") from error
    return len(targets)


def check_members(
    members: Iterable[Member], *, archive: Path, folder: Path, strip: int = 0
) -> list[tuple[Member, Path]]:
    """Look at every entry of an archive before any is written.

    Args:
        members: its entries.
        archive: its file, for the message.
        folder: where it would be unpacked.
        strip: leading folders of each name to leave out.

    Returns:
        The plain files, each with the path it will have.

    Raises:
        FetchError: names the first entry that may not be.
    """
    root = folder.resolve()
    targets: dict[Path, Member] = {}
    for member in members:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        windows = PureWindowsPath(member.name)
        if ".." in (*parts, *windows.parts) or member.name.startswith("/") or windows.drive or windows.root:
            raise FetchError(f"{archive}: {member.name!r} would be written outside of {folder}: do not trust this file")
        if "\0" in member.name or (not parts and not member.is_folder):
            raise FetchError(f"{archive}: {member.name!r} is no file name: do not trust this file")
        if member.is_special:
            raise FetchError(f"{archive}: {member.name!r} is a link or a device, not a file: do not trust this file")
        if member.is_folder or len(parts) <= strip:
            continue
        target = root.joinpath(*parts[strip:])
        if not target.resolve().is_relative_to(root):  # through a link that was in the folder before
            raise FetchError(f"{archive}: {member.name!r} would be written outside of {folder}: do not trust this file")
        if target in targets or target.exists():
            raise FetchError(
                f"{archive}: {member.name!r} is there twice, or already in {folder}: do not trust this file"
            )
        targets[target] = member
    if not targets:
        raise FetchError(f"{archive} holds no files: fetch it again")
    return [(member, target) for target, member in targets.items()]


def check_room(folder: Path, needed: int, *, what: str) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: where it will be written; it need not exist yet.
        needed: bytes.
        what: what needs them.

    Raises:
        OSError: says how much is needed and how much there is.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise OSError(
            f"{what} need {needed / 1e9:.1f} GB, {existing} has {free / 1e9:.1f} GB free: make room, "
            "or set LASSLAB_DATA to a folder on a larger disk"
        )
