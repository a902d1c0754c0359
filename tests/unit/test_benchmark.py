"""The benchmark against mixtures whose scores are known, and the promises of its table and its JSON."""

import hashlib
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lasslab.data.corpora import Clip
from lasslab.data.mixtures import MixtureDataset
from lasslab.data.pairs import load_pair, read_pairs
from lasslab.evaluation import provenance as provenance_module
from lasslab.evaluation.benchmark import FLOORS, METRICS, evaluate
from lasslab.evaluation.provenance import device_name, git_commit
from lasslab.evaluation.tables import DASH
from lasslab.signal.audio import save_audio
from lasslab.systems.separation import ConstantGain, MixtureAsEstimate, OracleMask, Silence

FREQUENCIES = (250, 500, 1_000, 2_000, 4_000)
REAL_PAIRS = Path(os.environ.get("LASSLAB_DATA", "")) / "pairs-fold4.csv"


@pytest.fixture(scope="module")
def pair_list(tmp_path_factory) -> Path:
    """Seven pairs of tones at right angles to each other; the third pair is shorter than the others."""
    folder = tmp_path_factory.mktemp("pairs")
    time = torch.arange(16_000) / 16_000
    for frequency in FREQUENCIES:
        wave = 0.2 * torch.sin(2 * torch.pi * frequency * time)
        save_audio(folder / f"{frequency}.wav", wave, sample_rate=16_000)
    save_audio(folder / "short.wav", 0.2 * torch.sin(2 * torch.pi * 750 * time[:8_000]), sample_rate=16_000)
    save_audio(folder / "silent.wav", torch.zeros(16_000), sample_rate=16_000)
    rows = ["250,500", "500,1000", "short,2000", "1000,250", "2000,4000", "4000,250", "500,250"]
    lines = [f"{i},tone {row.split(',')[0]},{row.replace(',', '.wav,')}.wav" for i, row in enumerate(rows)]
    path = folder / "pairs.csv"
    path.write_text("\n".join(["idx,caption,src_wav,noise_wav", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def pairs(pair_list):
    return read_pairs(pair_list, pair_list.parent)


def run(system, pairs, **arguments):
    return evaluate(system, pairs, progress=False, **arguments)


class Scripted:
    """A system that returns what a function of (waveform, query) says."""

    name = "scripted"

    def __init__(self, answer) -> None:
        self.answer = answer

    def __call__(self, waveform, query, *, sample_rate=16_000, generator=None):
        return self.answer(waveform, query)


class Batched(Scripted):
    """The same, for a batch."""

    def separate_batch(self, mixtures, queries, *, sample_rate=16_000):
        assert len(mixtures) == len(queries) <= 3
        return torch.stack([self.answer(*item) for item in zip(mixtures, queries, strict=True)])


@pytest.mark.parametrize("snr_db", [0.0, -5.0, 10.0])
def test_floors_of_orthogonal_tones_are_analytic(pairs, snr_db):
    floors = run(Silence(), pairs, snr_db=snr_db).to_json()["floors"]
    assert floors["silence"] == {
        "sdr": 0.0,
        "sdri": pytest.approx(-snr_db, abs=1e-4),
        "si_sdr": None,
        "si_sdri": None,
    }
    assert floors["mixture"] == pytest.approx({"sdr": snr_db, "sdri": 0, "si_sdr": snr_db, "si_sdri": 0}, abs=1e-4)
    best = 10 * math.log10(1 + 10 ** (snr_db / 10))  # gain E_s / (E_s + E_n) on orthogonal parts
    assert floors["constant_gain"]["sdr"] == pytest.approx(best, abs=1e-4)
    assert floors["constant_gain"]["si_sdr"] == pytest.approx(snr_db, abs=1e-4)
    assert floors["oracle_mask"]["sdr"] > 20


def test_half_the_mixture_equals_its_floor_at_0_db(pairs):
    report = run(ConstantGain(0.5), pairs)
    assert report.mean["sdri"] == pytest.approx(3.0103, abs=1e-3)
    torch.testing.assert_close(report.scores, report.floors["constant_gain"], rtol=0, atol=1e-4)


def test_the_ceiling_as_a_system_scores_the_ceiling(pairs):
    report = run(OracleMask(), pairs, batch_size=2)
    torch.testing.assert_close(report.scores, report.floors["oracle_mask"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("system", [Scripted, Batched])
def test_every_item_gets_its_own_query_and_place(pairs, system):
    by_caption = {pair.caption: load_pair(pair) for pair in pairs if pair.idx != "6"}

    def answer(waveform, query):
        known = by_caption[query]
        assert waveform.shape == known.target.shape  # clips of another length are not padded
        return 0.9 * known.target

    report = run(system(answer), pairs[:6], batch_size=3)
    assert report.scores[:, 0].tolist() == pytest.approx([20.0] * 6, abs=1e-3)
    assert [item["idx"] for item in report.items] == ["0", "1", "2", "3", "4", "5"]
    assert report.items[2] == {
        "idx": "2",
        "caption": "tone short",
        "target": "short.wav",
        "noise": "2000.wav",
    }


def test_random_systems_repeat_whatever_the_order(pairs):
    class Dice:
        name = "dice"

        def __call__(self, waveform, query, *, sample_rate=16_000, generator=None):
            return waveform + torch.randn(waveform.shape, generator=generator)

    first, again = run(Dice(), pairs), run(Dice(), pairs, batch_size=1)
    assert torch.equal(first.scores, again.scores)
    assert torch.equal(first.scores[:2], run(Dice(), pairs[:2]).scores)
    assert not torch.equal(first.scores, run(Dice(), pairs, seed=1).scores)


def test_undefined_scores_are_null_counted_and_left_out(pairs):
    def answer(waveform, query):
        return torch.zeros_like(waveform) if query == "tone 500" else 0.5 * waveform

    report = run(Scripted(answer), pairs)
    found = report.to_json()
    assert found["undefined"] == {"sdr": 0, "sdri": 0, "si_sdr": 2, "si_sdri": 2}
    assert [item["si_sdr"] is None for item in found["per_item"]] == [
        False,
        True,
        False,
        False,
        False,
        False,
        True,
    ]
    assert found["mean"]["si_sdr"] == pytest.approx(0, abs=1e-4)
    assert found["mean"]["sdr"] == pytest.approx(5 / 7 * 3.0103, abs=1e-3)
    assert "SI-SDR not finite for 2 of 7 items" in report.table()


def test_an_exact_estimate_is_null_in_json(pairs):
    exact = {pair.caption: load_pair(pair).target for pair in pairs[:3]}
    found = run(Scripted(lambda waveform, query: exact[query]), pairs[:3]).to_json()
    assert found["mean"]["sdr"] is None and found["interval"]["sdr"] is None
    assert found["undefined"]["sdr"] == 3
    json.dumps(found, allow_nan=False)


def test_json_has_the_documented_shape(pairs, pair_list, tmp_path):
    report = run(ConstantGain(0.3), pairs, pair_list=pair_list)
    report.save(tmp_path / "report.json")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    found = json.loads((tmp_path / "report.json").read_text())
    assert {"system", "n", "mean", "std", "floors", "per_item", "provenance", "interval"} <= found.keys()
    assert found["system"] == "constant-gain" and found["n"] == 7 == len(found["per_item"])
    for group in (found["mean"], found["std"], found["interval"], *found["floors"].values()):
        assert tuple(group) == METRICS
    assert tuple(found["floors"]) == tuple(FLOORS)
    scores = torch.tensor([item["sdri"] for item in found["per_item"]])
    assert found["mean"]["sdri"] == pytest.approx(scores.mean().item())
    assert found["std"]["sdri"] == pytest.approx(scores.std().item(), abs=1e-6)
    low, high = found["interval"]["sdri"]
    assert low <= found["mean"]["sdri"] <= high
    provenance = found["provenance"]
    assert provenance["pair_list"] == "pairs.csv" and provenance["seed"] == 0
    assert provenance["pair_list_sha256"] == hashlib.sha256(pair_list.read_bytes()).hexdigest()
    assert provenance["torch"] == torch.__version__ and provenance["device"] == device_name("cpu")
    assert {"date", "commit", "lasslab", "snr_db", "sample_rate"} <= provenance.keys()
    with pytest.raises(ValueError, match="no folder"):
        report.save(tmp_path / "missing" / "report.json")


def test_the_table_lines_up_and_names_what_it_shows(pairs, pair_list):
    report = run(MixtureAsEstimate(), pairs, pair_list=pair_list, snr_db=-5.0)
    heading, *lines = report.table().splitlines()
    assert heading == "7 pairs of pairs.csv, mixed at -5 dB SNR; means in dB"
    body = lines[:8]
    assert len({len(line) for line in body}) == 1
    assert body[0].split() == ["SDR", "SDRi", "SI-SDR", "SI-SDRi"]
    labels = [re.split(r"\s{2,}", line.strip())[0] for line in body[1:]]
    assert labels == [
        "silence",
        "mixture",
        "mixture x best gain",
        "mixture",
        "std over pairs",
        "95% interval of mean",
        "oracle ratio mask",
    ]
    assert body[1].split() == ["silence", "0.00", "5.00", "–", "–"]
    assert body[2].split() == ["mixture", "-5.00", "0.00", "-5.00", "0.00"]
    assert str(report) == report.table()


def test_a_dataset_is_evaluated_at_its_own_levels():
    clips = [
        Clip(label, (label,), f"{label}-{i}", "synthesis", seed=i, seconds=1.0) for label in EVENTS for i in (0, 1)
    ]
    dataset = MixtureDataset(clips, n=4, seconds=1.0, snr_db=(-10.0, 10.0), seed=3)
    report = run(MixtureAsEstimate(), dataset, corpus="synthesis")
    levels = [float(dataset[i]["snr_db"]) for i in range(4)]
    assert report.scores[:, 0].tolist() == pytest.approx(levels, abs=1e-3)
    assert report.heading.startswith(f"4 pairs of synthesis, mixed at {min(levels):.1f} to {max(levels):.1f} dB")
    assert [item["caption"] for item in report.items] == [dataset[i]["query"] for i in range(4)]


def event_labels() -> list[str]:
    from lasslab.data.synthesis import EVENT_CLASSES

    return sorted(EVENT_CLASSES)[:2]


EVENTS = event_labels()


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda waveform, query: torch.full_like(waveform, float("nan")), "NaN"),
        (lambda waveform, query: waveform[:-1], "same shape"),
    ],
)
def test_a_broken_system_is_reported_with_its_pair(pairs, answer, words):
    with pytest.raises(ValueError, match=f"^pair 1.*{words}") as error:
        run(Scripted(answer), pairs[1:2])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "row, words",
    [
        ("9,?!,250.wav,500.wav", "pair 9.*query is empty"),
        ("9,a tone,silent.wav,500.wav", "pair 9.*silent"),
        ("9,a tone,broken.wav,500.wav", r"pair 9.*broken\.wav"),
        ("9,a tone,tiny.wav,500.wav", "pair 9.*at least 512"),
    ],
)
def test_a_broken_pair_is_named(pair_list, row, words):
    folder = pair_list.parent
    (folder / "broken.wav").write_bytes(b"not audio")
    save_audio(folder / "tiny.wav", torch.full((100,), 0.1), sample_rate=16_000)
    (folder / "broken.csv").write_text(f"idx,caption,src_wav,noise_wav\n{row}\n")
    with pytest.raises(ValueError, match=words) as error:
        run(ConstantGain(), read_pairs(folder / "broken.csv", folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"snr_db": math.nan}])
def test_impossible_arguments_are_refused(pairs, arguments):
    with pytest.raises(ValueError, match="expected"):
        run(Silence(), pairs, **arguments)
    with pytest.raises(ValueError, match="no pair"):
        run(Silence(), [])


def test_one_pair_has_no_spread(pairs):
    report = run(ConstantGain(), pairs[:1])
    assert report.std["sdr"] is None
    assert report.interval["sdr"] is None, "one pair does not say how far apart others lie"
    assert report.to_json()["interval"]["sdr"] is None and report.table().count(DASH) > 4


def test_the_commit_is_that_of_the_package(tmp_path, monkeypatch):
    found = git_commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}(-modified)?", found)
    monkeypatch.setattr(provenance_module, "__file__", str(tmp_path / "lasslab" / "evaluation" / "provenance.py"))
    assert git_commit() is None


@pytest.mark.real_audio
@pytest.mark.skipif(not REAL_PAIRS.is_file(), reason="set LASSLAB_DATA to a folder with ESC-50 and pairs-fold4.csv")
def test_real_recordings_have_the_expected_floors_and_ceiling():
    pairs = read_pairs(REAL_PAIRS, REAL_PAIRS.parent / "ESC-50" / "audio")[:24]
    report = run(ConstantGain(0.5), pairs)
    assert report.mean["sdri"] == pytest.approx(3.01, abs=0.1)
    assert report.mean["si_sdr"] == pytest.approx(0, abs=0.1)
    ceiling = report.to_json()["floors"]["oracle_mask"]
    assert 10 < ceiling["sdri"] < 22 and abs(ceiling["sdri"] - ceiling["si_sdri"]) < 1


# --- several systems, levels and classes of the pairs' own


def test_several_systems_share_pairs_floors_and_ceiling(pairs, pair_list):
    compared = run([ConstantGain(0.5), Silence(), ConstantGain(0.25)], pairs, pair_list=pair_list)
    assert [report.system for report in compared] == ["constant-gain", "silence", "constant-gain (2)"]
    for report, system in zip(compared, (ConstantGain(0.5), Silence(), ConstantGain(0.25)), strict=True):
        alone = run(system, pairs, pair_list=pair_list)
        assert torch.equal(report.scores.nan_to_num(-99), alone.scores.nan_to_num(-99))
        assert report.items == alone.items and report.heading == alone.heading
        assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip_floors(report, alone))
    assert compared["silence"].mean["sdr"] == 0
    (half_silence, *_) = compared.differences
    assert half_silence["systems"] == ["constant-gain", "silence"]
    assert half_silence["mean"]["sdri"] == pytest.approx(3.0103, abs=1e-3)
    assert half_silence["mean"]["si_sdr"] is None, "silence has no SI-SDR"


def zip_floors(a, b):
    return zip(a.floors.values(), b.floors.values(), strict=True)


def test_json_of_several_systems_holds_a_list_of_reports(pairs, tmp_path):
    compared = run([ConstantGain(0.5), Silence()], pairs, names=["half", "nothing"])
    compared.save(tmp_path / "both.json")
    found = json.loads((tmp_path / "both.json").read_text())
    assert found["n"] == 7 and [report["system"] for report in found["reports"]] == ["half", "nothing"]
    alone = run(ConstantGain(0.5), pairs).to_json()
    assert found["reports"][0].keys() == alone.keys()
    for key in ("n", "mean", "std", "interval", "floors", "undefined", "breakdown", "per_item"):
        assert found["reports"][0][key] == json.loads(json.dumps(alone[key])), key
    assert [each["systems"] for each in found["differences"]] == [["half", "nothing"]]


def test_names_and_systems_that_do_not_fit(pairs):
    with pytest.raises(ValueError, match="no system"):
        run([], pairs)
    with pytest.raises(ValueError, match="2 different names"):
        run([Silence(), ConstantGain()], pairs, names=["a", "a"])


def test_a_pair_with_its_own_level_is_mixed_at_it(pairs):
    levels = [5.0, -5.0, 5.0, 0.0, 0.0, -5.0, 5.0]
    own = [replace(pair, snr_db=level) for pair, level in zip(pairs, levels, strict=True)]
    report = run(MixtureAsEstimate(), own, snr_db=20.0)
    assert report.scores[:, 0].tolist() == pytest.approx(levels, abs=1e-3)
    assert [item["snr_db"] for item in report.items] == levels
    assert report.heading.startswith("7 pairs of pairs in memory, mixed at -5.0 to 5.0 dB")
    groups = report.by_snr["groups"]
    assert [(group["name"], group["n"]) for group in groups] == [("-5 dB", 2), ("0 dB", 2), ("5 dB", 3)]
    assert [group["mean"]["sdr"] for group in groups] == pytest.approx([-5, 0, 5], abs=1e-3)


def test_known_labels_make_the_classes(pairs):
    labels = {"250": "low", "500": "low", "1000": "high", "2000": "high", "4000": "high", "short": "high"}
    report = run(ConstantGain(), pairs, labels=labels)
    assert report.items[0]["label"] == "low" and report.items[1]["interference_label"] == "high"
    assert report.by_class["key"] == "label"
    assert [(group["name"], group["n"]) for group in report.by_class["groups"]] == [("high", 4), ("low", 3)]
    assert run(ConstantGain(), pairs).by_class is None, "seven captions, six of them different"


def test_an_item_that_asks_for_what_is_not_there_is_refused():
    item = {"target": torch.ones(16_000), "interference": torch.ones(16_000), "snr_db": 0.0, "query": "a dog"}
    with pytest.raises(ValueError, match="pair 0: .*absent=0"):
        run(Silence(), [item | {"absent": torch.tensor(True)}])
