"""Files are written whole or not at all."""

import json
import os
import stat
from dataclasses import dataclass

import pytest

from lasslab.signal import files


def test_a_failing_rename_leaves_the_old_file_and_no_half_of_the_new(tmp_path, monkeypatch):
    path = tmp_path / "index.html"
    files.write_text(path, "old")

    def full_disk(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_half_way_leaves_nothing(tmp_path):
    def write(temporary):
        temporary.write_bytes(b"half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        files.write_atomically(tmp_path / "weights", write)
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_readable_by_others_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        files.write_text(tmp_path / "page.html", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o644


def test_json_takes_tuples_and_dataclasses_and_refuses_nan(tmp_path):
    @dataclass
    class Size:
        width: tuple[int, int]

    files.write_json(tmp_path / "a.json", {"size": Size((1, 2)), "name": "ü"})
    assert json.loads((tmp_path / "a.json").read_text()) == {"size": {"width": [1, 2]}, "name": "ü"}
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "b.json", {"loss": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_who_may_read_a_file_is_up_to_the_umask(tmp_path):
    """safetensors leaves its files to their owner alone: a class could not read its teacher's checkpoint."""

    def write(path):
        path.write_text("weights")
        path.chmod(0o600)

    before = os.umask(0o027)
    try:
        files.write_atomically(tmp_path / "model", write)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o640


def test_a_folder_is_made_with_those_around_it_and_only_when_it_is_complete(tmp_path):
    place = tmp_path / "build" / "sets" / "mine"
    with pytest.raises(RuntimeError), files.new_folder(place) as folder:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("interrupted")
    assert not list(tmp_path.iterdir()), "nothing of it is left, not the folders around it either"
    with files.new_folder(place) as folder:
        (folder / "whole.txt").write_text("whole")
        assert not place.parent.exists()
    assert (place / "whole.txt").read_text() == "whole" and list(tmp_path.iterdir()) == [tmp_path / "build"]


def test_a_folder_that_cannot_be_made_is_told_by_what_is_in_its_way(tmp_path):
    assert files.check_can_make(tmp_path / "a" / "b") == files.check_can_make(tmp_path) == tmp_path
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "a" / "b"):
        with pytest.raises(ValueError, match="file is a file|it is a file") as error:
            files.check_can_make(place)
        assert str(place) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "a").exists()
