"""Finding the files that a list names: published lists say `.wav`, folders hold `.ogg`, and sub-folders differ."""

import os
from functools import cached_property
from pathlib import Path

from lasslab.signal.audio import FORMATS


class AudioFolder:
    """A folder of audio files, searched by the names of a list.

    Args:
        folder: the folder; its sub-folders are searched too.

    Raises:
        ValueError: when it is not a folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder} is not a folder: give the folder that holds the audio files")

    def find(self, name: str) -> Path | None:
        """The file that a name means, or None.

        In this order: the path as it is written; a file of this name in any sub-folder; a file of this stem with
        another audio suffix. Among several, the one in the sub-folder that the name gives is meant.

        Args:
            name: a file name, with or without sub-folder or suffix.

        Returns:
            Path of the file, or None where there is none.

        Raises:
            ValueError: when several files fit as well as each other.
        """
        listed = Path(name)
        if (self.folder / listed).is_file():
            return self.folder / listed
        candidates = self._by_stem.get(audio_stem(listed.name), [])
        candidates = [path for path in candidates if path.name == listed.name] or candidates
        in_place = [path for path in candidates if path.parent == self.folder / listed.parent]
        candidates = in_place or candidates
        if len(candidates) > 1:
            shown = " or ".join(str(path.relative_to(self.folder)) for path in candidates[:2])
            raise ValueError(f"{name!r} may mean {shown} in {self.folder}: keep one of them")
        return candidates[0] if candidates else None

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        """Every audio file below the folder. Read when a name does not fit as it is, which is rare: corpora are big."""
        found: dict[str, list[Path]] = {}
        for parent, folders, files in os.walk(self.folder):
            folders.sort()
            for file in sorted(files):
                path = Path(parent, file)
                if path.suffix.lower() in FORMATS and not file.startswith("."):
                    found.setdefault(path.stem, []).append(path)
        return found


def audio_stem(name: str) -> str:
    """A file name without its audio suffix; any other suffix is part of the name, as in `4.5-bells`."""
    path = Path(name)
    return path.stem if path.suffix.lower() in FORMATS else path.name
