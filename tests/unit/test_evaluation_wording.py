"""Free wording, absence and presence, measured on systems whose answers are known."""

import json
import math
import os
from pathlib import Path

import pytest
import torch

from lasslab.data.captions import ESC50_CAPTIONS
from lasslab.data.mixtures import MixtureDataset
from lasslab.data.pairs import Pair, read_pairs
from lasslab.data.synthesis import EVENT_CLASSES
from lasslab.data.wording import WORDINGS
from lasslab.evaluation.batches import describe_pair
from lasslab.evaluation.breakdown import esc50_labels
from lasslab.evaluation.paraphrases import PARAPHRASES, captions_of, class_of
from lasslab.evaluation.wording import classes_in, evaluate_wording, make_requests
from lasslab.evaluation.wording_report import save_reports, wording_summary
from lasslab.models.text import normalise_query
from lasslab.signal.audio import save_audio
from lasslab.systems.separation import MixtureAsEstimate, Silence

REAL_PAIRS = Path(os.environ.get("LASSLAB_DATA", "")) / "pairs-fold4.csv"
TONES = {"dog": 250, "rain": 500, "rooster": 1_000, "clock_tick": 2_000}
ESC10 = "dog rooster rain sea_waves crying_baby clock_tick sneezing helicopter chainsaw crackling_fire".split()

# --- the words


def training_captions() -> set[str]:
    captions = [caption for found in ESC50_CAPTIONS.values() for caption in found]
    captions += [caption for event in EVENT_CLASSES.values() for caption in event.captions]
    return {normalise_query(caption) for caption in captions}


def test_three_paraphrases_for_each_class_of_esc10():
    assert sorted(PARAPHRASES) == sorted(ESC10)
    words = [normalise_query(text) for found in PARAPHRASES.values() for text in found]
    assert all(len(found) == 3 for found in PARAPHRASES.values()) and len(set(words)) == 30


def test_no_paraphrase_was_in_training():
    known = training_captions()
    reworded = {normalise_query(wording.format(caption)) for wording in WORDINGS for caption in known}
    for found in PARAPHRASES.values():
        for text in found:
            assert normalise_query(text) not in known | reworded, text


def test_no_paraphrase_is_a_training_caption_with_small_words_changed():
    small = set("a an the of in on at is and with from to that it by some my our".split())
    known = [set(caption.split()) - small for caption in training_captions()]
    for found in PARAPHRASES.values():
        for text in found:
            words = set(normalise_query(text).split()) - small
            shared = max(len(words & caption) / len(words | caption) for caption in known if caption)
            assert shared <= 0.6, text


def test_captions_and_classes_belong_together():
    assert class_of("A dog, barking!") == "dog" and class_of("something else") is None
    assert captions_of("dog")[0] == "a dog barking" and captions_of("no class") == ()
    for label in {*ESC50_CAPTIONS, *EVENT_CLASSES}:
        assert all(class_of(caption) == label for caption in captions_of(label)), label


# --- the questions


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> list[Pair]:
    """Every ordered pair of four classes, as tones at right angles to one another: twelve mixtures."""
    folder = tmp_path_factory.mktemp("tones")
    time = torch.arange(4_000) / 16_000
    for label, frequency in TONES.items():
        wave = 0.2 * torch.sin(2 * torch.pi * frequency * time)
        save_audio(folder / f"{label}.wav", wave, sample_rate=16_000)
    rows = [(a, b) for a in TONES for b in TONES if a != b]
    lines = [f"{i},{ESC50_CAPTIONS[a][0]},{a}.wav,{b}.wav" for i, (a, b) in enumerate(rows)]
    (folder / "pairs.csv").write_text("\n".join(["idx,caption,src_wav,noise_wav", *lines]) + "\n")
    return read_pairs(folder / "pairs.csv", folder)


class Listener:
    """Hears one class: the mixture's part at the tone of the class asked for.

    A caption brings back 0.9 of it, a paraphrase `paraphrase` of it: SDRs of 20 dB and -20 log10(1 - paraphrase). A
    class that is not there brings back `leak` times the mixture.
    """

    name = "listener"

    def __init__(self, *, paraphrase: float = 0.5, leak: float = 0.1):
        self.paraphrase, self.leak, self.asked = paraphrase, leak, []

    def __call__(self, waveform, query, *, sample_rate=16_000, generator=None):
        self.asked.append(query)
        free = {text: label for label, found in PARAPHRASES.items() for text in found}
        label = free.get(query) or class_of(query)
        time = torch.arange(len(waveform)) / sample_rate
        tone = torch.sin(2 * torch.pi * TONES[label] * time)
        part = (waveform @ tone) / (tone @ tone) * tone
        if part.abs().max() < 1e-3:
            return self.leak * waveform
        return (self.paraphrase if query in free else 0.9) * part


def test_loss_is_the_difference_of_two_known_sdrs(pairs):
    free = evaluate_wording(Listener(paraphrase=0.5), pairs, n_absent=4, progress=False).paraphrases
    assert free["n"] == 12 and free["undefined"] == 0
    assert free["caption"]["sdri"] == pytest.approx(20, abs=0.01)
    assert free["paraphrase"]["sdri"] == pytest.approx(20 * math.log10(2), abs=0.01)
    assert free["loss"]["mean"] == pytest.approx(13.98, abs=0.01)
    assert free["loss"]["interval"] == pytest.approx([13.98, 13.98], abs=0.01)
    assert [(group["name"], group["n"]) for group in free["by_class"]] == [(label, 3) for label in sorted(TONES)]
    assert len(free["by_wording"]) == 12 and all(wording["n"] == 3 for wording in free["by_wording"])
    assert evaluate_wording(Listener(paraphrase=0.9), pairs, n_absent=1, progress=False).paraphrases["loss"][
        "mean"
    ] == pytest.approx(0, abs=0.01)


def test_one_bad_wording_is_found_and_averaged(pairs):
    class Picky(Listener):
        def __call__(self, waveform, query, **options):
            self.paraphrase = 0.5 if query == PARAPHRASES["dog"][1] else 0.9
            return super().__call__(waveform, query, **options)

    free = evaluate_wording(Picky(), pairs, n_absent=1, progress=False).paraphrases
    worst, *others = free["by_wording"]
    assert (worst["class"], worst["wording"]) == ("dog", PARAPHRASES["dog"][1])
    assert worst["loss"] == pytest.approx(13.98, abs=0.01) and max(o["loss"] for o in others) < 0.01
    losses = {group["name"]: group["loss"]["mean"] for group in free["by_class"]}
    assert losses["dog"] == pytest.approx(13.98 / 3, abs=0.01) and losses["rain"] == pytest.approx(0, abs=0.01)
    assert free["loss"]["mean"] == pytest.approx(13.98 / 3 / 4, abs=0.01)


@pytest.mark.parametrize("leak, level, share", [(0.1, -20, 1.0), (0.5, -6.02, 0.0), (0.0, -120, 1.0)])
def test_level_of_an_absent_class(pairs, leak, level, share):
    report = evaluate_wording(Listener(leak=leak), pairs, n_absent=10, progress=False)
    absent, present = report.absence, report.presence
    assert absent["n"] == 10 and absent["share_below"] == share
    assert absent["median_db"] == pytest.approx(level, abs=0.02)
    # 0.9 of one of two equal parts: 20 log10(0.9) below the part, 3.01 dB more below the mixture
    assert present["median_kept_db"] == pytest.approx(-0.915, abs=0.01)
    assert present["median_db"] == pytest.approx(-3.925, abs=0.01)
    assert present["n"] == 20 and present["share_below"] == 0
    assert absent["share_lowest"] == (1.0 if level < -3.9 else 0.0)


def test_silence_and_the_mixture_fail_the_control(pairs):
    silent = evaluate_wording(Silence(), pairs, n_absent=5, progress=False)
    assert silent.absence["share_below"] == 1 and silent.presence["share_below"] == 1
    assert silent.absence["share_lowest"] == 0 and silent.absence["median_db"] == -120
    assert silent.paraphrases["loss"]["mean"] == pytest.approx(0)
    everything = evaluate_wording(MixtureAsEstimate(), pairs, n_absent=5, progress=False)
    assert everything.absence["share_below"] == 0 and everything.absence["median_db"] == pytest.approx(0)
    assert everything.presence["median_kept_db"] == pytest.approx(3.01, abs=0.01)


def test_absent_classes_are_absent_balanced_and_repeatable(pairs):
    items = [{"idx": pair.idx, "caption": pair.caption} for pair in pairs]
    classes = [(pair.target_path.stem, pair.noise_path.stem) for pair in pairs]
    requests = make_requests(items, classes, n_absent=24, seed=0)
    absent = [request for request in requests if request.kind == "absent"]
    assert all(request.label not in classes[request.number] for request in absent)
    assert len({(request.number, request.label) for request in absent}) == 24
    assert all(sum(r.label == label for r in absent) == 6 for label in TONES), "24 cases over four classes"
    few = [r for r in make_requests(items, classes, n_absent=12, seed=1) if r.kind == "absent"]
    assert len({r.number for r in few}) == 12, "every mixture before any comes back"
    assert few == [r for r in make_requests(items, classes, n_absent=12, seed=1) if r.kind == "absent"]
    assert few != [r for r in make_requests(items, classes, n_absent=12, seed=2) if r.kind == "absent"]
    assert {r.query for r in absent} == {ESC50_CAPTIONS[label][0] for label in TONES}
    with pytest.raises(ValueError, match="25 cases of absence were asked for, the list gives 24"):
        make_requests(items, classes, n_absent=25, seed=0)


def test_classes_come_from_labels_captions_and_other_rows():
    items = [
        {"caption": "a dog barking", "target": "1.ogg", "noise": "2.ogg"},
        {"caption": "the sound of rain", "target": "2.ogg", "noise": "3.ogg", "more_noise": ["1.ogg"]},
        {"caption": "who knows", "target": "4.ogg", "noise": "1.ogg"},
    ]
    assert classes_in(items, {}) == [("dog", "rain"), ("rain", None, "dog"), (None, "dog")]
    known = [item | {"label": label} for item, label in zip(items, ("dog", "rain", "siren"), strict=True)]
    labels = {"1": "dog", "2": "rain", "3": "cat", "4": "siren"}
    assert classes_in(known, labels) == [("dog", "rain"), ("rain", "cat", "dog"), ("siren", "dog")]
    dataset = [{"caption": "x", "label": "dog", "interference_label": "rain", "snr_db": 0.0}]
    assert classes_in(dataset, {}) == [("dog", "rain")]


def test_of_three_sources_none_is_called_absent_and_only_the_target_is_the_control():
    items = [{"idx": "0", "caption": "a dog barking"}, {"idx": "1", "caption": "rain"}]
    requests = make_requests(items, [("dog", "rain", "cat"), ("rain", "cow")], n_absent=3, seed=0)
    absent = {(r.number, r.label) for r in requests if r.kind == "absent"}
    assert absent == {(0, "cow"), (1, "dog"), (1, "cat")}
    present = [(r.number, r.label, r.source) for r in requests if r.kind == "present"]
    assert sorted(present) == [(0, "dog", "target"), (1, "cow", "interference"), (1, "rain", "target")]


def test_a_dataset_is_asked_by_its_labels():
    from lasslab.data.corpora import synthesised_clips

    clips = [clip for clip in synthesised_clips(n_per_class=1, seconds=0.5) if clip.label in TONES]
    dataset = MixtureDataset(clips, n=6, seconds=0.5, snr_db=(0.0, 0.0), seed=1)
    report = evaluate_wording(MixtureAsEstimate(), dataset, n_absent=3, corpus="synthesis", progress=False)
    assert report.paraphrases["n"] == 6 and report.heading.startswith("6 pairs of synthesis")
    three = MixtureDataset(clips, n=2, seconds=0.5, third_source=1.0)
    with pytest.raises(ValueError, match="third_source=0"):
        evaluate_wording(MixtureAsEstimate(), three, n_absent=1, progress=False)


@pytest.mark.real_audio
@pytest.mark.skipif(not REAL_PAIRS.is_file(), reason="set LASSLAB_DATA to a folder with ESC-50 and pairs-fold4.csv")
def test_classes_of_the_real_list_from_captions_and_from_the_corpus():
    folder = REAL_PAIRS.parent / "ESC-50" / "audio"
    pairs = read_pairs(REAL_PAIRS, folder)
    bare = [describe_pair(pair, number) for number, pair in enumerate(pairs)]
    labelled = [describe_pair(pair, number, labels=esc50_labels(folder)) for number, pair in enumerate(pairs)]
    from_corpus = classes_in(labelled, esc50_labels(folder))
    assert [found[0] for found in classes_in(bare, {})] == [found[0] for found in from_corpus]
    assert all(a != b and {a, b} <= set(ESC10) for a, b in from_corpus)
    requests = make_requests(labelled, from_corpus, n_absent=100, seed=0)
    absent = [request for request in requests if request.kind == "absent"]
    assert sum(request.kind == "paraphrase" for request in requests) == 600 and len(absent) == 100
    assert all(sum(request.label == label for request in absent) == 10 for label in ESC10)


def test_impossible_questions(pairs):
    with pytest.raises(ValueError, match="at least one case"):
        evaluate_wording(Silence(), pairs, n_absent=0, progress=False)
    with pytest.raises(ValueError, match="no target is known .*dog, rooster"):
        make_requests([{"idx": "0", "caption": "x"}], [(None, "dog")], n_absent=1, seed=0)


# --- the report


GOLDEN = (
    """\
ear: 12 pairs of tones, mixed at 0 dB SNR; means in dB

Free wording: SDRi with the list's captions and with 12 that training never had
class        n  caption  paraphrases   loss    95% interval
clock_tick   3    20.00         6.02  13.98  [13.98, 13.98]
dog          3    20.00         6.02  13.98  [13.98, 13.98]
rain         3    20.00         6.02  13.98  [13.98, 13.98]
rooster      3    20.00         6.02  13.98  [13.98, 13.98]
all         12    20.00         6.02  13.98  [13.98, 13.98]

The wordings that lose most: “""",
    """\
Level of the answer relative to the mixture (dB), and share at or below -10 dB
asked for   absent  median   5 to 95 %  <= -10 dB  present  median  5 to 95 %  <= -10 dB
clock_tick       3   -20.0  [-20, -20]      100 %        5    -3.9   [-4, -4]        0 %
dog              2   -20.0  [-20, -20]      100 %        5    -3.9   [-4, -4]        0 %
rain             3   -20.0  [-20, -20]      100 %        5    -3.9   [-4, -4]        0 %
rooster          2   -20.0  [-20, -20]      100 %        5    -3.9   [-4, -4]        0 %
all             10   -20.0  [-20, -20]      100 %       20    -3.9   [-4, -4]        0 %

The absent class comes out lower than each class that is there in 100 % of 10 cases.
A class that is there comes out at a median of -0.9 dB of its own level.""",
)


def test_json_and_table(pairs, tmp_path):
    system = Listener(paraphrase=0.5, leak=0.1)
    report = evaluate_wording(system, pairs, n_absent=10, seed=3, name="ear", corpus="tones", progress=False)
    report.save(tmp_path / "w.json")
    found = json.loads((tmp_path / "w.json").read_text())
    assert list(found) == [
        *("system", "n", "heading", "threshold_db", "paraphrases", "absence", "presence", "per_item", "provenance"),
    ]
    assert found["system"] == "ear" and found["n"] == 12 and found["provenance"]["seed"] == 3
    kinds = [row["kind"] for row in found["per_item"]]
    assert [kinds.count(kind) for kind in ("caption", "paraphrase", "absent", "present")] == [12, 36, 10, 20]
    assert sorted(system.asked) == sorted(row["query"] for row in found["per_item"]), "each is asked once"
    text = report.table()
    assert max(map(len, text.splitlines())) <= 100
    assert all(block in text for block in GOLDEN)
    assert "| all | 12 | 20.00 | 6.02 | 13.98 | [13.98, 13.98] |" in report.table(markdown=True)
    summary = wording_summary([report, report]).splitlines()
    assert summary[1].split("  ")[0] == "ear" and "100 %" in summary[1] and max(map(len, summary)) <= 100
    save_reports(tmp_path / "two.json", [report, report])
    assert [each["system"] for each in json.loads((tmp_path / "two.json").read_text())["reports"]] == ["ear", "ear"]


def test_an_exact_answer_is_left_out_and_counted(pairs):
    class Exact(Listener):
        def __call__(self, waveform, query, **options):
            self.paraphrase = 0.5
            if query == "a dog barking" and waveform @ waveform > 0:
                return targets["dog"]
            return super().__call__(waveform, query, **options)

    from lasslab.data.pairs import load_pair

    targets = {"dog": load_pair(pairs[0]).target}
    report = evaluate_wording(Exact(), pairs, n_absent=1, progress=False)
    assert report.paraphrases["undefined"] == 3 and report.paraphrases["n"] == 9
    assert "SDRi not finite for 3 pairs" in report.table()
    json.dumps(report.to_json(), allow_nan=False)
