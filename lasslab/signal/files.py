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
        ValueError: it is a file or not empty, or the folder around it is missing or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give the name of a folder to make")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: choose another folder, so that nothing is lost")
    parent = folder.resolve().parent
    if not parent.is_dir():
        raise ValueError(f"{folder}: the folder {parent} does not exist, make it first")
    if not os.access(parent, os.W_OK):
        raise ValueError(f"{folder}: the folder {parent} cannot be written, choose another")
    return folder


@contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder that appears when it is complete: filled beside its place under another name, then renamed.

    Args:
        folder: to make; it may exist and be empty.

    Yields:
        Path: Where to write meanwhile. On any failure it is removed.

    Raises:
        ValueError: see `check_new_folder`.
    """
    folder = check_new_folder(folder)
    temporary = folder.resolve().with_name(f".{folder.resolve().name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        if folder.is_dir():
            folder.rmdir()
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
