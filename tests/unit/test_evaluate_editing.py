"""Editors on a list: each figure against what it must be, floor and ceiling, groups, JSON and tables."""

import json
import math

import pytest
import torch
from doubles import Bands, BatchedDice, Dice, Scripted

from lasslab.data.corpora import load_corpus
from lasslab.data.edits import EditDataset
from lasslab.data.triplets import read_triplets, write_triplets
from lasslab.evaluation import batches
from lasslab.evaluation.distances import (
    clap_score,
    clap_score_audio,
    frechet_distance,
    kl_divergence,
    log_mel_distance,
)
from lasslab.evaluation.editing import CEILING, FLOOR, evaluate_editing, load_edit
from lasslab.evaluation.readme import fill_tables, make_table
from lasslab.systems.editing import Unedited

BANDS = {"low": (0, 1_000), "middle": (1_000, 4_000), "high": (4_000, 8_001)}
SETS = {"fad", "is"}
METRICS = SETS | {"kl", "clap_score", "clap_score_a", "lsd", "mel"}
METRICS |= {"edit_accuracy", "heard", "gone", "preservation", "preservation_db"}
WORDS = {"add": "add something {b}", "remove": "remove something {a}", "replace": "replace something {a} with {b}"}


class Remembers:
    """A ceiling that loses nothing."""

    name = "round-trip"

    def __call__(self, waveform, query, *, target=None, sample_rate=16_000, generator=None):
        assert target.shape == waveform.shape
        return target


def band(name: str, random: torch.Generator, n: int = 8_000) -> torch.Tensor:
    spectrum = torch.fft.rfft(torch.randn(n, generator=random))
    frequency = torch.fft.rfftfreq(n, 1 / 16_000)
    return 0.1 * torch.fft.irfft(spectrum * ((frequency >= BANDS[name][0]) & (frequency < BANDS[name][1])), n=n)


def make_items(n: int = 12, *, n_absent: int = 0) -> list[dict]:
    """Noise in one band as the base, in another as A, in the third as B; every fourth is shorter."""
    random, names = torch.Generator().manual_seed(0), list(BANDS)
    items = []
    for number in range(n + n_absent):
        length = 6_000 if number % 4 == 3 else 8_000
        x, a, b = (names[(number + shift) % 3] for shift in range(3))
        task = list(WORDS)[number % 3] if number < n else "remove"
        parts = {name: band(label, random, length) for name, label in (("base", x), ("removed", a), ("added", b))}
        for name, without in (("removed", task == "add" or number >= n), ("added", task == "remove")):
            parts[name] *= 0.0 if without else 1.0
        items.append(
            {
                **parts,
                "task": task,
                "instruction": WORDS[task].format(a=a, b=b),
                "caption": f"something {x if task == 'remove' else b}",
                "removed_label": "" if task == "add" else a,
                "added_label": "" if task == "remove" else b,
            }
        )
    return items


def perfect(items: list[dict], name: str = "perfect", *, make=lambda parts: parts["target"]) -> Scripted:
    """Knows the parts of every edit, and answers with the target, or what `make` makes of them."""
    known = [load_edit(item, number)[1] for number, item in enumerate(items)]

    def answer(waveform, instruction):
        return make(next(each for each in known if torch.equal(each["original"], waveform))).clone()

    return Scripted(answer, name)


def run(systems, items, **options):
    return evaluate_editing(
        systems, items, **{"progress": False, "embedding": Bands(), "ceiling": Remembers()} | options
    )


@pytest.fixture(scope="module")
def items():
    return make_items()


# --- the figures


def test_a_perfect_editor_reaches_the_ceiling_in_every_figure(items):
    report = run(perfect(items), items)["perfect"].to_json()
    for block in (report, *report["by_task"].values()):
        assert block["mean"] == block["ceiling"][CEILING]
        mean = block["mean"]
        assert mean["edit_accuracy"] == 1 and mean["preservation"] == mean["preservation_db"] == mean["lsd"] == 0
        assert mean["clap_score_a"] == pytest.approx(100) and mean["kl"] == pytest.approx(0, abs=1e-5)
        assert mean["fad"] == pytest.approx(0, abs=1e-6)
        assert all(figure["value"] in (0, None) for figure in block["against"][CEILING].values())


def test_the_unedited_original_has_an_edit_accuracy_of_zero_and_next_to_perfect_preservation(items):
    report = run([Unedited(), perfect(items)], items)["original"].to_json()
    for block in (report, *report["by_task"].values()):
        assert block["mean"] == block["floors"][FLOOR]
        assert block["mean"]["edit_accuracy"] == 0
        assert block["mean"]["preservation_db"] < 0.5
        assert block["defined"]["edit_accuracy"] == block["defined"]["preservation"] == block["n"]
        assert block["mean"]["kl"] > 0.1 and block["mean"]["clap_score_a"] < 95


def test_every_figure_is_the_metric_of_the_waveforms(items):
    report = run(Scripted(lambda waveform, words: 0.5 * waveform), items)["scripted"].to_json()
    edits = [load_edit(item, number)[1] for number, item in enumerate(items)]
    embedding = Bands()
    for title, numbers in [("all", range(12)), ("add", range(0, 12, 3)), ("replace", range(2, 12, 3))]:
        block = report if title == "all" else report["by_task"][title]
        audio = torch.cat([embedding.embed_audio(0.5 * edits[number]["original"][None]) for number in numbers])
        target = torch.cat([embedding.embed_audio(edits[number]["target"][None]) for number in numbers])
        texts = embedding.embed_text([items[number]["caption"] for number in numbers])
        expected = {
            "kl": kl_divergence(estimate=audio.square(), target=target.square()).mean(),
            "clap_score": clap_score(estimate=audio, query=texts).mean(),
            "clap_score_a": clap_score_audio(estimate=audio, target=target).mean(),
        }
        with pytest.warns(UserWarning) if len(audio) <= 3 else torch.no_grad():
            expected["fad"] = frechet_distance(estimate=audio, target=target)
        for metric, value in expected.items():
            assert block["mean"][metric] == pytest.approx(value.item(), rel=1e-5, abs=1e-7), (title, metric)
        assert 0.5 < block["mean"]["preservation_db"] < 20 * math.log10(2) + 0.3, "a half, where there is sound"
        assert block["mean"]["preservation"] == pytest.approx(block["mean"]["preservation_db"] * math.log(10) / 20)


def test_next_to_silence_removes_everything_and_adds_nothing(items):
    nearly_nothing = perfect(items, "silence", make=lambda parts: 1e-3 * (parts["original"] - parts["removed"]))
    report = run(nearly_nothing, items)["silence"]
    by_task = {task: block["mean"] for task, block in report.to_json()["by_task"].items()}
    assert by_task["remove"]["edit_accuracy"] == by_task["replace"]["gone"] == 1
    assert by_task["add"]["heard"] == by_task["replace"]["edit_accuracy"] == 0
    assert report.mean["preservation_db"] > 20, "which is what preservation is for"


def test_intervals_hold_their_means_and_differences_are_paired(items):
    found = run([perfect(items), Dice()], items)
    (difference,) = found.differences
    assert difference["systems"] == ["perfect", "dice"] and set(difference["groups"]) == {"all", *WORDS}
    for metric, figure in difference["groups"]["all"].items():
        own = [report.mean[metric] for report in found]
        assert figure["value"] == pytest.approx(own[0] - own[1], abs=1e-9), metric
    report = found["dice"].to_json()
    for metric in METRICS - SETS:
        low, high = report["interval"][metric]
        assert low <= report["mean"][metric] <= high
    assert report["against"][CEILING]["preservation_db"]["interval"][0] > 0
    ratio = report["preservation_to_ceiling"]
    assert ratio is None, "a ceiling without any loss: nothing to divide by"


def test_a_ratio_to_the_ceiling(items):
    class Lossy(Remembers):
        def __call__(self, waveform, query, *, target=None, sample_rate=16_000, generator=None):
            return 10 ** (1 / 20) * target

    edited = Scripted(lambda waveform, words: 10 ** (3 / 20) * waveform)
    report = run(edited, items, ceiling=Lossy())["scripted"].to_json()
    assert report["preservation_to_ceiling"] == pytest.approx(3, rel=0.1)


# --- batches, seeds, lists


def test_batches_change_nothing(items, monkeypatch):
    one = run(BatchedDice(), items, batch_size=1)["dice"]
    for system, options in ((BatchedDice(), {"batch_size": 5}), (Dice(), {"batch_size": 4})):
        other = run(system, items, **options)["dice"]
        for a, b in zip(one.to_json()["per_item"], other.to_json()["per_item"], strict=True):
            assert a == pytest.approx(b, abs=1e-4)
    monkeypatch.setattr(batches, "WINDOW", 5)
    windowed = run(BatchedDice(), items)["dice"].to_json()["per_item"]
    assert windowed[-1] == pytest.approx(one.to_json()["per_item"][-1], abs=1e-4)
    other = run(BatchedDice(), items, seed=1)["dice"].to_json()["per_item"]
    assert other[0]["preservation"] != one.to_json()["per_item"][0]["preservation"]


def test_a_list_on_disk_gives_what_its_dataset_gives(tmp_path):
    clips = [clip for clip in load_corpus("synthesis", n_per_class=1) if clip.label in ("dog", "rain", "siren", "owl")]
    dataset = EditDataset(clips, n=6, seconds=0.5, seed=1)
    write_triplets(tmp_path, dataset)
    listed = read_triplets(tmp_path / "triplets.csv", tmp_path / "audio")
    found = [run(Unedited(), edits, embedding=None)["original"] for edits in (dataset, listed)]
    for metric, value in found[0].mean.items():
        assert found[1].mean[metric] == pytest.approx(value, rel=1e-4), metric
    made = run(Unedited(), listed, embedding=None, triplet_list=tmp_path / "triplets.csv")["original"].to_json()
    assert made["provenance"]["triplet_list"] == "triplets.csv" and len(made["provenance"]["triplet_list_sha256"]) == 64
    assert made["per_item"][0]["original"] == "00000-original.wav"


def test_without_the_sounds_between_they_are_the_difference_where_there_is_one(tmp_path):
    clips = [clip for clip in load_corpus("synthesis", n_per_class=1) if clip.label in ("dog", "rain", "siren", "owl")]
    write_triplets(tmp_path, EditDataset(clips, n=6, seconds=0.5, seed=1))
    listed = read_triplets(tmp_path / "triplets.csv", tmp_path / "audio")
    bare = [type(each)(each.task, each.original, each.target, each.instruction) for each in listed]
    full, less = (run(Unedited(), each)["original"].to_json() for each in (with_words(listed), bare))
    for task in ("add", "remove"):
        assert less["by_task"][task]["mean"]["preservation"] == pytest.approx(
            full["by_task"][task]["mean"]["preservation"], abs=1e-4
        )
    assert less["by_task"]["replace"]["mean"]["preservation"] is None
    assert less["mean"]["clap_score"] is None and less["defined"]["clap_score"] == 0, "no captions"
    assert less["mean"]["edit_accuracy"] is None, "no labels"


def with_words(listed):
    """The embedding by hand knows three captions only."""
    from dataclasses import replace

    return [replace(each, caption="something low") for each in listed]


def test_an_edit_of_an_unknown_class_is_not_judged_by_the_other(items):
    strange = [item | ({"added_label": "piano"} if item["task"] == "replace" else {}) for item in items]
    report = run(perfect(items), strange)["perfect"].to_json()
    replaced = report["by_task"]["replace"]
    assert replaced["mean"]["edit_accuracy"] is None and replaced["defined"]["gone"] == replaced["n"]
    assert report["by_task"]["add"]["mean"]["edit_accuracy"] == 1


# --- sounds that are not there


def test_absent_sounds_are_a_group_of_their_own():
    items = make_items(6, n_absent=3)
    report = run([Unedited(), Scripted(lambda w, i: 0.5 * w, "half"), perfect(items)], items)
    half = report["half"].to_json()
    assert half["n"] == 6 and half["by_task"]["remove"]["n"] == 2 and half["absent"]["n"] == 3
    assert [row["absent"] for row in half["per_item"]] == [False] * 6 + [True] * 3
    assert set(half["absent"]["mean"]) == {"change_db", "level_db", "clap_score_a"}
    original = load_edit(items[6], 6)[1]["original"]
    expected = log_mel_distance(estimate=0.5 * original, target=original, top_db=60)
    assert half["per_item"][6]["change_db"] == pytest.approx(expected.item(), rel=1e-4)
    assert 1 < half["absent"]["mean"]["change_db"] < 6.03
    assert half["absent"]["mean"]["level_db"] == pytest.approx(-6.02, abs=0.01)
    assert half["absent"]["against"][CEILING]["change_db"]["value"] == half["absent"]["mean"]["change_db"]
    still = report["original"].to_json()["absent"]["mean"]
    assert still["change_db"] == 0 and still["level_db"] == pytest.approx(0)
    assert half["heading"].endswith("; and 3 removals of what is not there")
    assert "change_db" not in half["mean"] and "change_db" not in half["per_item"][0]
    assert "absent: 3 removals of what is not there" in report.table()


def test_a_list_of_absent_sounds_alone_is_refused():
    items = make_items(0, n_absent=2)
    with pytest.raises(ValueError, match="no edit to evaluate"):
        run(Unedited(), items)


# --- what is refused


def test_systems_that_cannot_be_evaluated(items):
    with pytest.raises(ValueError, match="round-trip needs the target, so that it is no editor"):
        run(Remembers(), items)
    with pytest.raises(ValueError, match="no system has a VAE and a vocoder"):
        evaluate_editing(Unedited(), items, progress=False)
    with pytest.raises(ValueError, match="triplet 0, triplet 1.*: scripted answered with shape"):
        run(Scripted(lambda waveform, words: waveform[:-1]), items)
    with pytest.raises(ValueError, match=r"triplet 0.*NaN"):
        run(Scripted(lambda waveform, words: waveform * math.nan), items)
    with pytest.raises(ValueError, match="batch_size >= 1"):
        run(Unedited(), items, batch_size=0)
    with pytest.raises(ValueError, match="a triplet at least"):
        run(Unedited(), [])


def test_edits_that_cannot_be_evaluated(items):
    silent = items[1] | {"base": torch.zeros(8_000), "removed": torch.zeros(8_000)}
    with pytest.raises(ValueError, match="triplet 1: the original is silent from start to end"):
        run(Unedited(), [items[0], silent])
    with pytest.raises(ValueError, match="triplet 0: unknown task 'paint'"):
        run(Unedited(), [items[0] | {"task": "paint"}])
    with pytest.raises(ValueError, match="triplet 0: the instruction is empty"):
        run(Unedited(), [items[0] | {"instruction": " "}])


def test_sounds_that_do_not_add_up(tmp_path):
    clips = [clip for clip in load_corpus("synthesis", n_per_class=1) if clip.label in ("dog", "rain", "siren", "owl")]
    write_triplets(tmp_path, EditDataset(clips, n=6, seconds=0.5, seed=1))
    listed = read_triplets(tmp_path / "triplets.csv", tmp_path / "audio")
    swapped = [type(each)(**{**vars(each), "removed": each.added, "added": each.removed}) for each in listed[4:]]
    with pytest.raises(ValueError, match="triplet 0: original - removed is not target - added"):
        run(Unedited(), swapped, embedding=None)


# --- JSON and tables


def test_the_json_has_its_parts(items, tmp_path):
    run(Dice(), items).save(tmp_path / "one.json")
    one = json.loads((tmp_path / "one.json").read_text())
    parts = {"task", "system", "heading", "n", "mean", "interval", "by_task", "absent", "floors", "ceiling", "per_item"}
    assert parts | {"against", "defined", "embedding", "cost", "ceiling_costs", "provenance"} <= one.keys()
    assert (one["task"], one["system"], one["n"]) == ("editing", "dice", 12) and one["absent"] is None
    assert set(one["mean"]) == METRICS and set(one["floors"]) == {FLOOR} and set(one["ceiling"]) == {CEILING}
    for block in one["by_task"].values():
        assert set(block["mean"]) == METRICS and set(block["floors"][FLOOR]) == METRICS
    row = one["per_item"][2]
    assert row["task"] == "replace" and row["edit_accuracy"] in (0, 1) and 0 <= row["added_probability"] <= 1
    assert one["cost"]["seconds_per_clip"] > 0 and one["provenance"]["seed"] == 0
    run([Dice(), Unedited()], items).save(tmp_path / "two.json")
    two = json.loads((tmp_path / "two.json").read_text())
    assert [each["system"] for each in two["reports"]] == ["dice", "original"] and len(two["differences"]) == 1


def test_without_an_embedding_what_needs_none_is_left(items):
    found = run([Dice(), Unedited()], items, embedding=None)
    assert set(found["dice"].mean) == {"preservation", "preservation_db"}
    assert found["dice"].to_json()["embedding"] is None
    assert "FAD" not in found.table() and "preservation" in found.table(markdown=True)


def test_one_edit_has_figures_of_items_and_none_of_sets(items):
    report = run(Dice(), items[:1])["dice"]
    assert report.mean["fad"] is None and report.mean["is"] is None and report.mean["kl"] is not None
    assert "–" in report.table()


def test_the_terminal_has_a_hundred_columns_and_every_row(items):
    systems = [Dice(), perfect(items, "a-system-with-quite-a-long-name, 200 steps"), Unedited()]
    table = run(systems, items).table()
    assert max(map(len, table.splitlines())) <= 100
    for words in (
        "12 edits of edits in memory: 4 add, 4 remove, 4 replace",
        "(and FD",
        "add: 4 edits",
        "replace: 4 edits",
    ):
        assert words in table, words
    assert "unedited original" in table and "round trip of target" in table and "dice - original" in table
    assert "100 %" in table and "0 %" in table


def test_tables_of_a_readme(items, tmp_path):
    class Sampling(Dice):
        settings, t_start, guidance_scale = ("n_steps", "t_start"), 0.01, 1.0

        def __init__(self, n_steps):
            self.n_steps, self.name = n_steps, "rfm" if n_steps == 25 else f"rfm, {n_steps} steps"

    many = make_items(6, n_absent=2)
    run([Sampling(25), Sampling(5)], many, corpus="hand").save(tmp_path / "steps.json")
    run(Unedited(), many, corpus="hand").save(tmp_path / "floor.json")
    run(Unedited(), items).save(tmp_path / "other.json")
    whole = make_table(["steps"], None, tmp_path)
    assert "| **rfm, 5 steps** |" in whole and "FAD (by-hand)" in whole and "preservation, dB" in whole
    assert make_table(["steps"], "by task", tmp_path).count("| unedited original |") == 3
    assert "2 removals of what is not there" in make_table(["steps"], "absent", tmp_path)
    assert "| rfm - rfm, 5 steps |" in make_table(["steps"], "differences", tmp_path)
    assert "| FAD (by-hand) | KL (by-hand) | IS (by-hand) | CLAP (by-hand) |" in make_table(
        ["steps"], "by steps", tmp_path
    )
    rows = [line.split("|")[1:4] for line in make_table(["floor", "steps"], "by steps", tmp_path).splitlines()[4:]]
    assert [[cell.strip() for cell in row] for row in rows if row][:4] == [
        ["unedited original", "–", "–"],
        ["original", "–", "–"],
        ["rfm", "5", "0.01"],
        ["rfm", "25", "0.01"],
    ]
    text = "<!-- table: steps, by task -->\n<!-- end table -->\n"
    assert fill_tables(text, tmp_path)[0] == fill_tables(fill_tables(text, tmp_path)[0], tmp_path)[0]
    for names, view, words in (
        (["steps"], "generative", "no table 'generative'"),
        (["floor"], "by steps", "number of steps"),
        (["other"], "absent", "--absent"),
        (["floor", "other"], None, "measured on other edits"),
    ):
        with pytest.raises(ValueError, match=words):
            make_table(names, view, tmp_path)


def test_where_originals_are_targets_in_another_order_fad_says_nothing_and_the_table_says_so(items):
    class Lossy(Remembers):
        def __call__(self, waveform, query, *, target=None, sample_rate=16_000, generator=None):
            return target + 0.01 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))

    forth = [item for item in items if item["task"] == "replace"]
    names = {"removed": "added", "added": "removed", "removed_label": "added_label", "added_label": "removed_label"}
    back = [item | {name: item[other] for name, other in names.items()} for item in forth]
    found = run(Unedited(), forth + back, ceiling=Lossy())
    report = found["original"].to_json()
    assert report["floors"][FLOOR]["fad"] == pytest.approx(0, abs=1e-6) and report["mean"]["edit_accuracy"] == 0
    assert "so that here it ranks nobody" in " ".join(found.table().split())
    assert "ranks nobody" not in run(Unedited(), forth, ceiling=Lossy()).table()
