"""`lasslab mixtures`: what it writes is what was drawn, scores the same as in memory, and is whole or not there."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch

from lasslab.data.clips import data_root
from lasslab.data.corpora import load_corpus
from lasslab.data.mixture_sets import draw_mixtures, mix, write_mixtures
from lasslab.data.pairs import load_pair, read_pairs
from lasslab.data.protocols import Protocol
from lasslab.evaluation.benchmark import evaluate
from lasslab.signal.audio import load_audio
from lasslab.systems.separation import load_separator

HAS_ESC50 = (data_root() / "ESC-50" / "meta" / "esc50.csv").is_file()
QUICK = ("--corpus", "synthesis", "--seconds", "1")


@pytest.fixture
def made(lasslab, tmp_path):
    """Make a set; returns its folder and what `mixtures.json` says."""

    def run(*arguments, name="set"):
        code, out, err = lasslab("mixtures", *arguments, "-o", tmp_path / name)
        assert code == 0, err
        assert f"--pairs {tmp_path / name / 'pairs.csv'} --audio {tmp_path / name / 'audio'}" in out
        return tmp_path / name, json.loads((tmp_path / name / "mixtures.json").read_text())

    return run


def header(folder: Path) -> list[str]:
    with (folder / "pairs.csv").open(newline="") as file:
        return next(csv.reader(file))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def recipe(**arguments) -> Protocol:
    level = {} if "lufs" in arguments else {"snr_db": (-10.0, 10.0)}
    return Protocol(
        **({"name": "test", "source": "", "corpus": "synthesis", "n": 6, "seconds": 1.0} | level | arguments)
    )


@pytest.fixture(scope="module")
def sounds():
    return load_corpus("synthesis", labels=["dog", "rain", "siren", "clock_tick"], n_per_class=3, seconds=1.5)


# --- the files


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"n_sources": 3},
        {"lufs": (-35.0, -25.0)},
        {"lufs": (-4.0, -4.0)},  # would clip, so that all parts come down together
        {"lufs": (-30.0, -20.0), "n_sources": 4},
        {"seconds": None},
    ],
)
def test_the_mixtures_on_disk_are_those_in_memory(tmp_path, sounds, arguments):
    rows = draw_mixtures(recipe(**arguments), sounds, seed=4)
    write_mixtures(tmp_path / "set", rows, about={}, with_mixtures=True)
    pairs = read_pairs(tmp_path / "set" / "pairs.csv", tmp_path / "set" / "audio")
    items = json.loads((tmp_path / "set" / "mixtures.json").read_text())["items"]
    assert len(pairs) == len(items) == len(rows) == 6
    for row, pair, item in zip(rows, pairs, items, strict=True):
        memory, disk = mix(row), load_pair(pair)
        for name in ("mixture", "target", "interference"):
            assert torch.allclose(getattr(memory, name), getattr(disk, name), atol=2e-6), name
        assert pair.caption == row.query == item["caption"] and pair.snr_db == item["snr_db"]
        assert item["target"]["source"] == row.target.source
        assert [entry["label"] for entry in item["interferences"]] == [clip.label for clip in row.interferences]
        if row.snr_db is not None:
            assert item["snr_db"] == row.snr_db
        for name, waveform in (("mixture", memory.mixture), ("segment", memory.target)):
            assert torch.equal(load_audio(tmp_path / "set" / "mixtures" / f"{name}-{row.idx}.wav"), waveform)


def test_a_clip_is_written_once_where_only_the_snr_differs(tmp_path, sounds):
    rows = draw_mixtures(recipe(n=40), sounds, seed=1)
    write_mixtures(tmp_path / "set", rows, about={})
    assert len(files(tmp_path / "set" / "audio")) == len(sounds) == 12
    assert header(tmp_path / "set") == ["idx", "caption", "src_wav", "noise_wav", "snr_db"]


def test_at_zero_db_the_list_has_audioseps_four_columns(tmp_path, sounds):
    rows = draw_mixtures(recipe(snr_db=(0.0, 0.0)), sounds, seed=1)
    write_mixtures(tmp_path / "set", rows, about={})
    assert header(tmp_path / "set") == ["idx", "caption", "src_wav", "noise_wav"]


@pytest.mark.parametrize("level", [("--snr-db", "-15", "15"), ("--lufs", "-35", "-25"), ("--n-sources", "3")])
def test_a_set_scores_the_same_from_disk_as_from_memory(lasslab, made, tmp_path, level):
    folder, found = made(*QUICK, "-n", 6, *level, "--seed", 3)
    report = tmp_path / "report.json"
    code, _, err = lasslab(
        *("evaluate", "separation", "--system", "constant-gain", "--embedding", "none", "--json", report),
        *("--pairs", folder / "pairs.csv", "--audio", folder / "audio"),
    )
    assert code == 0, err
    disk = json.loads(report.read_text())
    protocol = Protocol(**{
        key: tuple(value) if isinstance(value, list) else value
        for key, value in found["protocol"].items()
        if key != "level"
    })  # fmt: skip
    rows = draw_mixtures(protocol, load_corpus("synthesis"), seed=3)
    items = [{**mix(row)._asdict(), "query": row.query, "snr_db": item["snr_db"]}
             for row, item in zip(rows, found["items"], strict=True)]  # fmt: skip
    memory = evaluate(load_separator("constant-gain"), items, progress=False).to_json()
    for one, other in ((disk["mean"], memory["mean"]), (disk["std"], memory["std"])):
        assert one == pytest.approx(other, abs=1e-3)
    for floor in ("mixture", "constant_gain", "oracle_mask"):
        assert disk["floors"][floor] == pytest.approx(memory["floors"][floor], abs=1e-3)
    assert disk["floors"]["mixture"]["sdr"] == pytest.approx(
        sum(item["snr_db"] for item in found["items"]) / 6, abs=1e-3
    )


@pytest.mark.parametrize("level", [("--snr-db", "-5", "5"), ("--lufs", "-35", "-25", "--mixtures")])
def test_the_same_seed_writes_the_same_set(made, level):
    first, _ = made(*QUICK, "-n", 5, *level, "--seed", 7, name="first")
    again, _ = made(*QUICK, "-n", 5, *level, "--seed", 7, name="again")
    other, _ = made(*QUICK, "-n", 5, *level, "--seed", 8, name="other")
    names = files(first)
    assert names == files(again)
    for name in names:
        if name.endswith(".wav"):  # libsndfile puts the time of day into the header of 32-bit float files
            assert torch.equal(load_audio(first / name), load_audio(again / name))
        else:
            assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (first / "pairs.csv").read_bytes() != (other / "pairs.csv").read_bytes()


def test_a_recipe_is_recorded_with_what_was_changed(made):
    _, found = made("--protocol", "vggsound", "--corpus", "synthesis", "--seconds", "1", "-n", 3, "--seed", 2)
    assert found["changed"] == ["corpus", "n", "seconds"] and found["seed"] == 2 and found["n"] == 3
    assert found["protocol"]["name"] == "vggsound" and found["protocol"]["lufs"] == [-35.0, -25.0]
    assert found["protocol"]["split"] is None and "AudioSep" in found["protocol"]["source"]
    assert found["corpus"]["name"] == "synthesis" and found["corpus"]["n_clips"] > 100
    assert {"commit", "sample_rate"} <= found.keys()
    for item in found["items"]:
        assert len(item["lufs"]) == 2 and 0 <= item["similarity"] <= 1


def test_an_snr_on_the_command_line_replaces_the_recipes_loudness(made):
    _, found = made("--protocol", "vggsound", *QUICK, "-n", 2, "--snr-db", "3", "3")
    assert found["protocol"]["lufs"] is None and {item["snr_db"] for item in found["items"]} == {3.0}


def test_the_filter_on_the_command_line(made):
    _, found = made(*QUICK, "-n", 8, "--snr-db", "-15", "0", "--max-similarity", "0.7")
    assert all(item["similarity"] <= 0.7 for item in found["items"])


@pytest.mark.real_audio
@pytest.mark.skipif(not HAS_ESC50, reason="needs ESC-50 below LASSLAB_DATA: lasslab fetch esc50")
def test_esc50_by_folds(made, lasslab):
    folder, found = made("--protocol", "esc50", "--folds", "4", "-n", 12)
    assert {item["target"]["fold"] for item in found["items"]} == {4} and found["corpus"]["folds"] == [4]
    assert len({item["target"]["label"] for item in found["items"]}) == 10
    assert header(folder) == ["idx", "caption", "src_wav", "noise_wav"]
    # the list against the corpus itself: .wav in the list, .ogg on disk, below a sub-folder
    code, out, err = lasslab(
        *("evaluate", "separation", "--system", "mixture", "--embedding", "none"),
        *("--pairs", folder / "pairs.csv", "--audio", data_root() / "ESC-50"),
    )
    n_files = len(files(folder / "audio"))
    assert (
        code == 0 and out.count(f"{n_files} of {n_files} files matched by stem (.wav in the list, .ogg on disk)") == 1
    )
    code, out, err = lasslab("evaluate", "separation", "--system", "mixture", "--embedding", "none",
                             "--pairs", folder / "pairs.csv", "--audio", folder / "audio")  # fmt: skip
    assert code == 0 and "matched by stem" not in out + err


# --- whole or not at all


def test_nothing_is_left_of_a_set_that_fails(tmp_path, sounds, monkeypatch):
    rows = draw_mixtures(recipe(), sounds, seed=1)
    written = []

    def fail(path, *arguments, **keywords):
        written.append(path)
        if len(written) == 5:
            raise OSError("disk full")

    monkeypatch.setattr("lasslab.data.mixture_sets.save_audio", fail)
    with pytest.raises(OSError, match="disk full"):
        write_mixtures(tmp_path / "set", rows, about={})
    assert len(written) == 5 and not list(tmp_path.iterdir())


def test_an_interruption_leaves_nothing_and_an_empty_folder_empty(tmp_path, sounds):
    def interrupted(rows):
        yield rows[0]
        raise KeyboardInterrupt

    (tmp_path / "set").mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_mixtures(tmp_path / "set", draw_mixtures(recipe(), sounds), about={}, progress=interrupted)
    assert list(tmp_path.rglob("*")) == [tmp_path / "set"]


def test_an_empty_folder_is_filled(made, tmp_path):
    (tmp_path / "set").mkdir()
    folder, _ = made(*QUICK, "-n", 1)
    assert sorted(path.name for path in folder.iterdir()) == ["audio", "mixtures.json", "pairs.csv"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_set_of_some_classes_has_no_other(made):
    folder, about = made(*QUICK, "-n", 12, "--labels", "rain, sea_waves,dog")
    assert about["corpus"]["labels"] == ["rain", "sea_waves", "dog"] and about["corpus"]["n_labels"] == 3
    rows = read_pairs(folder / "pairs.csv", folder / "audio")
    captions = {
        caption for clip in load_corpus("synthesis", labels=["rain", "sea_waves", "dog"]) for caption in clip.captions
    }
    assert {row.caption for row in rows} <= captions and len(rows) == 12


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["--corpus and -n", "--protocol"]),
        (("--corpus", "synthesis"), ["give -n"]),
        (("-n", "3"), ["give --corpus"]),
        ((*QUICK, "-n", "0"), ["at least one mixture", "n=0"]),
        ((*QUICK, "-n", "many"), ["'-n'", "valid integer"]),
        (("--corpus", "nowhere", "-n", "3"), ["nowhere"]),
        (("--protocol", "esc", "-n", "3"), ["unknown protocol 'esc'", "vggsound"]),
        (("--protocol", "dcase2024-real"), ["no targets"]),
        ((*QUICK, "-n", "3", "--snr-db", "5", "-5"), ["snr_db", "lowest, highest"]),
        ((*QUICK, "-n", "3", "--snr-db", "5"), ["--snr-db", "valid number"]),
        ((*QUICK, "-n", "3", "--snr-db", "0", "0", "--lufs", "-30", "-20"), ["snr_db or as lufs"]),
        ((*QUICK, "-n", "3", "--lufs", "-90", "-20"), ["-70"]),
        ((*QUICK, "-n", "3", "--max-similarity", "1.5"), ["a cosine in (0, 1]"]),
        ((*QUICK, "-n", "3", "--n-sources", "1"), ["n_sources must be at least 2"]),
        ((*QUICK, "-n", "3", "--n-sources", "500"), ["500 sources", "labels"]),
        (("--corpus", "synthesis", "-n", "3", "--seconds", "-1"), ["seconds must be positive"]),
        ((*QUICK, "-n", "3", "--folds", "four"), ["--folds", "1,2,3", "'four'"]),
        ((*QUICK, "-n", "3", "--folds", "4"), ["folds"]),
        ((*QUICK, "-n", "3", "--split", "test"), ["split"]),
        ((*QUICK, "-n", "3", "--labels", "rain,unicorn"), ["no class unicorn", "choose from", "sea_waves"]),
        ((*QUICK, "-n", "3", "--labels", "rain"), ["2 sources", "got 1: rain"]),
        ((*QUICK, "-n", "3", "--seed", "-1"), ["seed"]),
    ],
)
def test_bad_arguments_are_one_line(lasslab, tmp_path, arguments, words):
    code, out, err = lasslab("mixtures", *arguments, "-o", tmp_path / "set")
    assert code == 2 and out == "", (out, err)
    assert len(err.strip().splitlines()) == 1 and err.startswith("lasslab: ")
    for word in words:
        assert word in err, err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(lasslab, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    (tmp_path / "file").touch()
    cases = [(folder, "is not empty"), (tmp_path / "file", "is a file"), (tmp_path / "file" / "set", "is a file")]
    before = sorted(tmp_path.rglob("*"))
    for place, words in cases:
        code, out, err = lasslab("mixtures", *QUICK, "-n", "2", "-o", place)
        assert code == 2 and out == "" and words in err and str(place) in err
        assert len(err.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before and (folder / "mine.txt").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(lasslab, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    code, _, err = lasslab("mixtures", *QUICK, "-n", "2", "-o", tmp_path / "closed" / "set")
    assert code == 2 and "cannot be written" in err


def test_a_list_with_a_bad_level_is_one_line(lasslab, made, tmp_path):
    folder, _ = made(*QUICK, "-n", 2, "--snr-db", "-5", "5")
    lines = (folder / "pairs.csv").read_text().splitlines()
    lines[2] = lines[2].rpartition(",")[0] + ",loud"
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    code, out, err = lasslab("evaluate", "separation", "--system", "mixture", "--embedding", "none",
                             "--pairs", folder / "pairs.csv", "--audio", folder / "audio")  # fmt: skip
    assert code == 2 and out == "" and "line 3: snr_db 'loud' is not a number" in err
    assert len(err.strip().splitlines()) == 1


def test_an_ambiguous_name_is_one_line(lasslab, made):
    folder, _ = made(*QUICK, "-n", 1)
    source = read_pairs(folder / "pairs.csv", folder / "audio")[0].target_path
    for suffix in (".ogg", ".flac"):
        source.with_suffix(suffix).write_bytes(b"x")
    source.unlink()
    code, out, err = lasslab("evaluate", "separation", "--system", "mixture", "--embedding", "none",
                             "--pairs", folder / "pairs.csv", "--audio", folder / "audio")  # fmt: skip
    assert code == 2 and out == "" and "line 2: src_wav" in err and "may mean" in err
    assert len(err.strip().splitlines()) == 1
