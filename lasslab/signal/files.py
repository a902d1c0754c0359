"""Writing files, and folders of them, whole or not at all."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary path in the same folder, then rename it to `path`.

    A reader never sees half a file. On any failure the temporary file is removed and what was at `path` stays.

    Args:
        path: file to write, in a folder that exists.
        write: writes the path it is given.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the umask says; some writers leave their files to their owner alone
        write(temporary)
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write `content` (JSON values, tuples and dataclasses) as indented JSON, atomically.

    Raises:
        ValueError: a number in it is NaN or infinite, which JSON cannot hold.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False, default=dataclasses.asdict) + "\n")


def check_new_folder(folder: str | Path) -> Path:
    """Refuse a folder that cannot be made, or that holds something.

    Args:
        folder: the folder to make.

    Returns:
        Its path.

    Raises:
        ValueError: it is a file or not empty, or where it is to be made nothing can be written.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: choose another folder, so that nothing is lost")
    check_can_make(folder)
    return folder


def check_can_make(folder: str | Path) -> Path:
    """Refuse a folder that can neither be made, with those around it, nor be written into.

    Args:
        folder: one that is there, or is to be made.

    Returns:
        The folder around it that is there already; the folder itself, where it is.

    Raises:
        ValueError: it or one around it is a file, or it cannot be written.
    """
    there = Path(folder).resolve()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        what = "it" if there == Path(folder).resolve() else there
        raise ValueError(f"{folder} cannot be made, {what} is a file: give the name of a folder")
    if not os.access(there, os.W_OK):
        raise ValueError(f"{folder}: the folder {there} cannot be written, choose another")
    return there


@contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder that appears when it is complete: filled near its place under another name, then renamed.

    Args:
        folder: to make, with those around it; it may exist and be empty.

    Yields:
        Path: Where to write meanwhile. On any failure it is removed.

    Raises:
        ValueError: see `check_new_folder`.
    """
    folder = check_new_folder(folder).resolve()
    temporary = check_can_make(folder.parent) / f".{folder.name}.{os.getpid()}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.is_dir():
            folder.rmdir()
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
