"""Edits: what is the same on both sides, what the sentence names, who may be mixed, and the lists."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from lasslab.data import edits
from lasslab.data.clips import Clip
from lasslab.data.corpora import load_corpus
from lasslab.data.edits import EditDataset, count_events, edit_batch, split_sources
from lasslab.data.instructions import (
    INSTRUCTIONS,
    TASKS,
    Instruction,
    read_instruction,
    split_replacement,
    write_instruction,
)
from lasslab.data.triplets import Triplet, load_triplet, read_triplets, write_triplets
from lasslab.signal.audio import load_audio, save_audio

LABELS = ("dog", "rain", "siren", "clock_tick", "sea_waves")


def clips() -> list[Clip]:
    return [clip for clip in load_corpus("synthesis", n_per_class=1) if clip.label in LABELS]


def dataset(**changes) -> EditDataset:
    return EditDataset(clips(), **{"n": 24, "seconds": 0.5, "seed": 3} | changes)


@pytest.fixture(scope="module")
def items() -> list[dict]:
    drawn = dataset()
    return [drawn[number] for number in range(24)]


def batch(items: list[dict]) -> dict:
    return edit_batch(default_collate(items))


def test_every_group_is_the_six_edits_of_the_paper(items):
    for first in range(0, 24, 6):
        group = items[first : first + 6]
        assert [item["task"] for item in group] == ["add", "add", "remove", "remove", "replace", "replace"]
        add_a, add_b, remove_a, remove_b, a_to_b, b_to_a = group
        assert all(torch.equal(item["base"], add_a["base"]) for item in group), "one X"
        assert torch.equal(add_a["added"], remove_a["removed"]) and torch.equal(add_b["added"], remove_b["removed"])
        assert torch.equal(a_to_b["removed"], add_a["added"]) and torch.equal(a_to_b["added"], add_b["added"])
        assert torch.equal(b_to_a["removed"], add_b["added"]) and torch.equal(b_to_a["added"], add_a["added"])
        assert not add_a["removed"].any() and not remove_a["added"].any()
        assert add_a["added"].any() and remove_a["removed"].any()


def test_a_base_is_the_same_on_both_sides_even_where_one_of_them_would_clip(items):
    loud = [{**item, **{name: 3 * item[name] for name in ("base", "removed", "added")}} for item in items]
    for made in (batch(items), batch(loud)):
        assert made["original"].abs().max() <= 1 and made["target"].abs().max() <= 1
        assert torch.equal(made["original"], made["base"] + made["removed"])
        assert torch.equal(made["target"], made["base"] + made["added"])
    peak = batch(loud)["original"].abs().amax(-1).maximum(batch(loud)["target"].abs().amax(-1))
    assert (peak > 0.99).any(), "some would have clipped"


def test_items_do_not_depend_on_the_order_in_which_they_are_asked_for(items):
    drawn = dataset()
    for number in (17, 3, 17):
        again = drawn[number]
        assert again["instruction"] == items[number]["instruction"] and torch.equal(
            again["base"], items[number]["base"]
        )
    other = dataset(seed=4)[0]
    assert not torch.equal(other["base"], items[0]["base"])


def test_the_instruction_names_what_goes_and_what_comes(items):
    captions = {label: set() for label in LABELS}
    for clip in clips():
        known = (*clip.captions, clip.label.replace("_", " "))
        captions[clip.label] |= {read_instruction(f"add {caption}").added for caption in known}  # without punctuation
    for item in items:
        found = read_instruction(item["instruction"])
        assert found.task == item["task"]
        assert bool(item["removed_label"]) == (item["task"] != "add")
        assert bool(item["added_label"]) == (item["task"] != "remove")
        if item["removed_label"]:
            assert found.removed in captions[item["removed_label"]]
        if item["added_label"]:
            assert found.added in captions[item["added_label"]]


def test_every_wording_of_a_replacement_falls_into_a_removal_and_an_addition():
    for task, wordings in INSTRUCTIONS.items():
        for wording in wordings:
            sentence = wording.format(a="the rain", b="a dog barking")
            expected = ("remove the rain", "add a dog barking") if task == "replace" else (sentence,)
            assert split_replacement(sentence) == expected
    assert split_replacement("Replace the rain with a dog!") == ("remove the rain", "add a dog")
    for unread in ("swap everything", "louder, please", ""):
        assert split_replacement(unread) == (unread,)


def test_a_target_s_caption_tells_of_the_base_and_not_of_what_was_removed(items):
    for first in range(0, 24, 6):
        removed, replaced = items[first + 2], items[first + 4]
        assert replaced["caption"].startswith(removed["caption"])
        assert read_instruction(removed["instruction"]).removed not in removed["caption"].split(" and ")


def test_x_a_and_b_are_three_kinds_of_sound(monkeypatch):
    monkeypatch.setattr(Clip, "load", lambda clip, **rate: torch.ones(8_000))
    drawn = dataset(most_base_clips=2, n=120)
    chosen: list[list[int]] = []
    choose = drawn.crops.choose

    def noted(random, *, without=(), probability=None):
        number = choose(random, without=without, probability=probability)
        chosen.append([*without, number])
        return number

    monkeypatch.setattr(drawn.crops, "choose", noted)
    _ = [drawn[number] for number in range(0, 120, 6)]
    groups = [numbers for numbers in chosen if len(numbers) >= 3]
    assert groups
    for numbers in groups:
        labels = [drawn.crops.clips[number].label for number in numbers]
        assert len(set(labels)) == len(labels)


def test_some_removals_name_a_sound_that_is_not_there():
    every, none = dataset(absent=1.0), dataset()
    for number in range(24):
        item, plain = every[number], none[number]
        if item["task"] != "remove":
            assert item["instruction"] == plain["instruction"] and torch.equal(item["added"], plain["added"])
            continue
        made = batch([item])
        assert torch.equal(made["original"], made["target"]) and torch.equal(item["base"], plain["base"])
        group = [none[other] for other in range(number - number % 6, number - number % 6 + 6)]
        heard = {other[key] for other in group for key in ("removed_label", "added_label")} - {""}
        assert item["removed_label"] not in heard and item["instruction"] != plain["instruction"]
        assert read_instruction(item["instruction"]).task == "remove"
        names = [item["removed_label"].replace("_", " "), *captions_of(item)]
        assert any(name in item["instruction"] for name in names)
    shares = [batch([dataset(n=240, absent=0.5)[n]])["removed"].any().item() for n in range(240) if n % 6 in (2, 3)]
    assert 0.35 < sum(shares) / len(shares) < 0.65
    with pytest.raises(ValueError, match="absent is a share"):
        dataset(absent=1.5)


def captions_of(item: dict) -> list[str]:
    return [caption for clip in clips() if clip.label == item["removed_label"] for caption in clip.captions]


def test_the_level_of_a_and_b_against_the_base_is_in_its_range():
    drawn = dataset(level_db=(-4.0, 2.0), n=60)
    levels = []
    for number in range(0, 60, 6):
        item = drawn[number]
        levels.append(10 * torch.log10(item["added"].square().sum() / item["base"].square().sum()).item())
    assert min(levels) > -4.01 and max(levels) < 2.01 and np.ptp(levels) > 1


@pytest.mark.parametrize(
    ("caption", "n"),
    [
        ("a dog barking", 1),
        ("a dog barks while rain falls", 2),
        ("A man talks, a car passes and a dog barks", 3),
        ("thunder followed by heavy rain", 2),
        ("a hand saw", 1),  # "and" within a word
        ("dog", 1),
    ],
)
def test_events_are_counted_by_rule(caption, n):
    assert count_events(caption) == n


def test_labels_count_too_where_they_are_more():
    assert count_events("dog rain siren", labels=("dog", "rain", "siren", "clock_tick")) == 3
    assert count_events("the clock tick of a clock", labels=("clock_tick",)) == 1


def crowded() -> list[Clip]:
    """The first clip tells of four events, the second of two; both are of a corpus without classes."""
    first, second, *rest = clips()
    many = [replace(first, captions=("a dog, a cat, a cow and a pig",)), replace(second, captions=("rain and wind",))]
    return [*(replace(clip, source=f"corpus/{clip.label}") for clip in many), *rest]


def test_a_crowded_clip_serves_nowhere_and_a_double_one_as_base_only():
    drawn = EditDataset(crowded(), n=60, seconds=0.2, most_base_clips=1)
    double = crowded()[1].label
    assert crowded()[0].label not in {clip.label for clip in drawn.crops.clips}
    named = {label for n in range(60) for label in (drawn[n]["removed_label"], drawn[n]["added_label"])}
    assert double not in named and len(named) > 2
    assert any("rain and wind" in drawn[n]["caption"] for n in range(0, 60, 6))


def test_a_language_model_may_count_and_a_filter_may_choose():
    asked = []
    _ = EditDataset(crowded(), n=6, seconds=0.2, most_base_clips=1, counter=lambda text: asked.append(text) or 1)
    assert sorted(asked) == ["a dog, a cat, a cow and a pig", "rain and wind"], "classes need no counting"
    drawn = EditDataset(clips(), n=6, seconds=0.2, most_base_clips=1, keep=lambda clip: clip.label != "rain")
    assert "rain" not in {clip.label for clip in drawn.crops.clips}


def test_a_split_shares_no_recording_and_spreads_labels():
    many = [
        Clip(label=label, captions=(label,), source=f"{label}-{n // 2}", corpus="c")
        for label in "xyz"
        for n in range(40)
    ]
    parts = split_sources(many, (8, 1, 1), seed=1)
    assert sum(map(len, parts)) == len(many)
    sources = [{clip.source for clip in part} for part in parts]
    assert not (sources[0] & sources[1] or sources[0] & sources[2] or sources[1] & sources[2])
    for label in "xyz":
        counts = [sum(clip.label == label for clip in part) for part in parts]
        assert counts == [32, 4, 4]


# --- instructions


@pytest.mark.parametrize(("task", "wording"), [(task, wording) for task in TASKS for wording in INSTRUCTIONS[task]])
def test_every_wording_is_read_as_it_was_meant(task, wording):
    found = read_instruction(wording.format(a="a dog barking", b="rain and wind").capitalize() + "!")
    assert found.task == task
    assert found.removed == ("" if task == "add" else "a dog barking")
    assert found.added == ("" if task == "remove" else "rain and wind")


def test_there_are_at_least_ten_wordings_a_task_and_all_are_drawn():
    for task in TASKS:
        assert len(set(INSTRUCTIONS[task])) >= 10
        drawn = {
            write_instruction(task, np.random.default_rng(seed), removed="x" if task != "add" else "", added="y")
            for seed in range(300)
        }
        assert len(drawn) == len(INSTRUCTIONS[task])


@pytest.mark.parametrize(
    ("text", "task"),
    [("Mute that dog", "remove"), ("could you swap them", "replace"), ("make it nicer", None), ("", None)],
)
def test_other_sentences_are_read_by_their_verbs_or_not_at_all(text, task):
    assert read_instruction(text).task == task


def test_how_an_instruction_was_read_can_be_said():
    assert (
        str(read_instruction("replace the cat with a dog")) == "task replace, which removes 'the cat' and adds 'a dog'"
    )
    assert str(Instruction(None)) == "no known task"
    assert "without a sound that was found" in str(read_instruction("kindly mute"))


def test_an_instruction_needs_its_sounds_and_a_known_task():
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match="unknown task 'louder': use one of add, remove, replace"):
        write_instruction("louder", random, added="x")
    with pytest.raises(ValueError, match="to replace needs words"):
        write_instruction("replace", random, added="x")


# --- lists


@pytest.fixture
def written(tmp_path) -> list[Triplet]:
    return write_triplets(tmp_path, dataset(n=6))


def test_a_list_comes_back_as_it_was_written(tmp_path, written):
    triplets = read_triplets(tmp_path / "triplets.csv", tmp_path / "audio")
    assert triplets == written and [triplet.task for triplet in triplets][::2] == ["add", "remove", "replace"]
    made = batch([dataset(n=6)[number] for number in range(6)])
    for number, triplet in enumerate(triplets):
        loaded = load_triplet(triplet)
        assert torch.equal(loaded["original"], made["original"][number])
        assert torch.equal(loaded["target"], made["target"][number])
        assert ("removed" in loaded) == (triplet.task != "add") and ("added" in loaded) == (triplet.task != "remove")


def test_a_list_of_four_columns_is_enough(tmp_path, written):
    lines = (tmp_path / "triplets.csv").read_text().splitlines()
    short = tmp_path / "short.csv"
    short.write_text("\n".join(",".join(line.split(",")[:4]) for line in lines) + "\n")
    assert [triplet.instruction for triplet in read_triplets(short, tmp_path)] == [one.instruction for one in written]


def rewrite(path, line: int, column: int, value: str) -> None:
    lines = [row.split(",") for row in path.read_text().splitlines()]
    lines[line][column] = value
    path.write_text("\n".join(",".join(row) for row in lines) + "\n")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (0, "louder", "line 3: unknown task 'louder', use one of add, remove, replace"),
        (1, "nowhere.wav", "line 3: original 'nowhere.wav' is not in"),
        (2, "", "line 3: no value for target"),
        (3, " ", "line 3: no value for instruction"),
    ],
)
def test_a_broken_row_is_one_clear_line(tmp_path, written, column, value, words):
    path = tmp_path / "triplets.csv"
    rewrite(path, 2, column, value)
    with pytest.raises(ValueError, match=words) as raised:
        read_triplets(path, tmp_path)
    assert "\n" not in str(raised.value)


def test_another_length_or_rate_is_refused(tmp_path, written):
    target = written[1].target
    waveform = load_audio(target)
    save_audio(target, waveform[:-100], sample_rate=16_000)
    with pytest.raises(ValueError, match="line 3: .* has 8000 samples and .* 7900: an edit keeps the length"):
        read_triplets(tmp_path / "triplets.csv", tmp_path)
    save_audio(target, waveform, sample_rate=8_000)
    with pytest.raises(ValueError, match="line 3: .* has 16000 Hz and .* 8000 Hz: bring them to one rate"):
        read_triplets(tmp_path / "triplets.csv", tmp_path)


def test_a_list_is_never_overwritten(tmp_path, written):
    before = (tmp_path / "triplets.csv").read_bytes()
    with pytest.raises(ValueError, match="is there already: choose another folder"):
        write_triplets(tmp_path, dataset(n=6))
    assert (tmp_path / "triplets.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"most_base_clips": 0}, "at least one clip"),
        ({"most_base_clips": 4}, "edits need clips of 6 labels"),
        ({"level_db": (3.0, -3.0)}, "level_db is"),
        ({"weights": [1.0]}, "one per clip"),
    ],
)
def test_what_cannot_give_edits_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        dataset(**change)


def test_single_sounds_are_needed():
    double = [replace(clip, source=f"corpus/{clip.label}", captions=("rain and wind",)) for clip in clips()]
    with pytest.raises(ValueError, match="no clip tells of a single event"):
        EditDataset(double, n=6)


def test_the_last_item_is_the_last():
    with pytest.raises(IndexError):
        dataset()[24]
    assert edits.SIX_EDITS[0] == ("add", "", "a")
