"""Readers of corpora that are not here: each on a miniature in the published layout, and every way one can be wrong."""

import csv
import json
from pathlib import Path

import pytest
import soundfile
import torch

from lasslab.data.clips import Clip, find_audio, index_audio
from lasslab.data.corpora import CORPORA, load_corpus
from lasslab.data.dcase_lists import read_dcase_pairs, read_dcase_queries
from lasslab.data.mixtures import MixtureDataset
from lasslab.data.pairs import load_pair, read_pairs, write_pairs

RATE = 8_000


def write_tone(path: Path, frequency: float, *, seconds: float = 0.5, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = torch.arange(round(seconds * RATE)) / RATE
    tone = 0.5 * torch.sin(2 * torch.pi * frequency * time)
    soundfile.write(path, tone.expand(channels, -1).T.numpy(), RATE)


def write_csv(path: Path, *rows: tuple, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows(rows)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def frequency(clip: Clip) -> float:
    """The tone in a clip of half a second."""
    waveform = clip.load(sample_rate=RATE)
    return torch.fft.rfft(waveform).abs().argmax().item() * RATE / len(waveform)


def refused(words: str, *arguments, **keywords) -> str:
    with pytest.raises(ValueError, match=words) as error:
        load_corpus(*arguments, **keywords)
    message = str(error.value)
    assert message and "\n" not in message
    return message


# --- Clotho


def write_clotho(root: Path) -> Path:
    """Two splits; a name with a leading space and keywords in Latin-1, as the real ones have."""
    folder = root / "Clotho"
    header = ("file_name", *(f"caption_{number}" for number in range(1, 6)))
    metadata = ("file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license")
    for split, clips in (
        ("development", [(" birds at dawn.wav", 200, "Birds;dawn", "101"), ("Águas.wav", 400, "water;rain", "102")]),
        ("evaluation", [("rain, heavy.wav", 600, "rain;storm", "103"), ("same take.wav", 800, "", "Not found")]),
    ):
        rows = [(name, *(f"{name} sentence {number} " for number in range(1, 6))) for name, *_ in clips]
        write_csv(folder / f"clotho_captions_{split}.csv", header, *rows)
        rows = [(name, words, number, "link", "[0, 1]", "someone", "CC0") for name, _, words, number in clips]
        write_csv(folder / f"clotho_metadata_{split}.csv", metadata, *rows, encoding="latin-1")
        for name, tone, *_ in clips:
            write_tone(folder / split / name, tone)
    return folder


def test_clotho_gives_five_captions_or_the_one_that_the_thesis_keeps(tmp_path):
    folder = write_clotho(tmp_path)
    clips = load_corpus("clotho", root=tmp_path)
    assert [clip.path.name for clip in clips] == [" birds at dawn.wav", "Águas.wav", "rain, heavy.wav", "same take.wav"]
    assert clips[0].captions == tuple(f" birds at dawn.wav sentence {number}".strip() for number in range(1, 6))
    assert [frequency(clip) for clip in clips] == [200, 400, 600, 800]
    one = load_corpus("clotho", root=tmp_path, captions_per_clip=1)
    assert [clip.captions for clip in one] == [clip.captions[:1] for clip in clips]
    only = load_corpus("clotho", root=tmp_path, splits=["evaluation"])
    assert only == clips[2:]
    # the archives unpack to clotho_audio_<split> in some mirrors
    (folder / "evaluation").rename(folder / "clotho_audio_evaluation")
    assert [clip.path.parent.name for clip in load_corpus("clotho", root=tmp_path)][2:] == [
        "clotho_audio_evaluation"
    ] * 2


def test_clotho_labels_are_recordings_and_keywords_are_tags(tmp_path):
    folder = write_clotho(tmp_path)
    birds, water, rain, take = load_corpus("clotho", root=tmp_path)
    assert [clip.label for clip in (birds, water, rain)] == ["clotho/101", "clotho/102", "clotho/103"]
    assert take.label == "clotho/same take", "without a Freesound number the file is the recording"
    assert birds.tags == ("birds", "dawn") and take.tags == ()
    assert water.shares_sound(rain) and rain.shares_sound(water) and not birds.shares_sound(rain)
    assert take.shares_sound(take)
    for table in folder.glob("clotho_metadata_*.csv"):
        table.unlink()
    plain = load_corpus("clotho", root=tmp_path)
    assert [clip.label for clip in plain][:2] == ["clotho/ birds at dawn", "clotho/Águas"]
    assert not any(clip.tags for clip in plain)


def test_clotho_refuses_what_is_not_whole(tmp_path):
    message = refused("lasslab fetch clotho.*LASSLAB_DATA", "clotho", root=tmp_path)
    assert str(tmp_path / "Clotho" / "clotho_captions_development.csv") in message
    folder = write_clotho(tmp_path)
    refused("no Clotho.*clotho_captions_validation.csv", "clotho", root=tmp_path, splits=["validation"])
    refused("splits development, validation, evaluation, asked for test", "clotho", root=tmp_path, splits=["test"])
    refused("asked for none", "clotho", root=tmp_path, splits=[])
    for name in (" birds at dawn.wav", "Águas.wav"):
        (folder / "development" / name).unlink()
    message = refused("2 of 2 audio files", "clotho", root=tmp_path)
    assert "clotho_captions_development.csv" in message and "' birds at dawn.wav'" in message
    assert "lasslab fetch clotho --part development" in message
    table = folder / "clotho_captions_evaluation.csv"
    table.write_text(table.read_text().replace("same take.wav sentence 3 ", "  "))
    refused(
        "clotho_captions_evaluation.csv, line 3: no value for caption_3", "clotho", root=tmp_path, splits=["evaluation"]
    )
    table.write_text(table.read_text().replace("caption_5", "caption_6"))
    refused("lacks the column caption_5", "clotho", root=tmp_path, splits=["evaluation"])


def test_missing_files_can_be_left_out_and_are_counted(tmp_path):
    folder = write_clotho(tmp_path)
    (folder / "development" / "Águas.wav").unlink()
    refused("1 of 2 .*first 'Águas.wav'.*skip_missing=True", "clotho", root=tmp_path)
    with pytest.warns(UserWarning, match="1 of 2 audio files .*'Águas.wav': left out"):
        clips = load_corpus("clotho", root=tmp_path, skip_missing=True)
    assert [frequency(clip) for clip in clips] == [200, 600, 800]
    (folder / "development" / " birds at dawn.wav").unlink()
    refused("2 of 2", "clotho", root=tmp_path, skip_missing=True)


# --- AudioCaps


def write_audiocaps(root: Path) -> Path:
    """A training clip, and a test clip of five captions; one file for each way that clips are named."""
    folder = root / "AudioCaps"
    header = ("audiocap_id", "youtube_id", "start_time", "caption")
    write_csv(
        folder / "train.csv",
        header,
        (91139, "r1nicOVtvkQ", 130, "A woman talks nearby as water pours"),
        (58146, "-DGBjjwy_qE", 20, "Multiple clanging and clanking sounds, then silence"),
        (7, "-DGBjjwy_qE", 40, "A door slams"),
        (8, "abcdefghijk", 0, "Rain"),
    )
    write_csv(folder / "test.csv", header, *((n, "ZZZZZZZZZZZ", 30, f"sentence {n}") for n in range(5)))
    for name, tone in (("r1nicOVtvkQ_130.wav", 200), ("-DGBjjwy_qE_20.flac", 300), ("-DGBjjwy_qE_40.wav", 400)):
        write_tone(folder / "train" / name, tone)
    write_tone(folder / "train" / "Yabcdefghijk.wav", 500)
    write_tone(folder / "test" / "ZZZZZZZZZZZ_30.ogg", 600)
    return folder


def test_audiocaps_gathers_the_captions_of_a_clip(tmp_path):
    folder = write_audiocaps(tmp_path)
    clips = load_corpus("audiocaps", root=tmp_path)
    assert [frequency(clip) for clip in clips] == [200, 300, 400, 500, 600]
    assert clips[1].captions == ("Multiple clanging and clanking sounds, then silence",)
    assert clips[4].captions == tuple(f"sentence {number}" for number in range(5))
    assert load_corpus("audiocaps", root=tmp_path, splits=["test"]) == clips[4:]
    assert clips[1].label == clips[2].label == clips[2].source == "youtube/-DGBjjwy_qE", (
        "one video is never mixed with itself"
    )
    assert len({clip.label for clip in clips}) == 4 and not any(clip.tags for clip in clips)
    write_csv(folder / "val.csv", ("audiocap_id", "youtube_id", "start_time"), (1, "x", 2))
    refused("val.csv lacks the column caption", "audiocaps", root=tmp_path)


def test_audiocaps_takes_tags_from_audioset(tmp_path):
    write_audiocaps(tmp_path)
    segments = tmp_path / "AudioSet" / "eval_segments.csv"
    segments.parent.mkdir()
    segments.write_text(
        "# Segments csv created Sun Mar  5 10:54:25 2017\n# num_ytids=2\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        'r1nicOVtvkQ, 130.000, 140.000, "/m/09x0r,/m/0838f"\n'
        'ZZZZZZZZZZZ, 30.000, 40.000, "/m/0838f"\n'
        'not-in-it__, 30.000, 40.000, "/m/0838f"\n'
    )
    clips = load_corpus("audiocaps", root=tmp_path)
    assert [clip.tags for clip in clips] == [("/m/09x0r", "/m/0838f"), (), (), (), ("/m/0838f",)]
    assert clips[0].shares_sound(clips[4]) and not clips[0].shares_sound(clips[1])
    segments.write_text("abc, 1\n")
    refused("eval_segments.csv, line 1.*lasslab fetch audioset", "audiocaps", root=tmp_path)


def test_audiocaps_says_what_to_bring(tmp_path):
    refused("no AudioCaps .*lasslab fetch audiocaps.*LASSLAB_DATA", "audiocaps", root=tmp_path)
    folder = write_audiocaps(tmp_path)
    (folder / "test" / "ZZZZZZZZZZZ_30.ogg").unlink()
    assert "bring the clips" in refused("1 of 1 .*first 'ZZZZZZZZZZZ_30'", "audiocaps", root=tmp_path, splits=["test"])


# --- VGGSound


def write_vggsound(root: Path) -> Path:
    folder = root / "VGGSound"
    write_csv(
        folder / "vggsound.csv",
        ("---g-f_I2yQ", 1, "people marching", "test"),
        ("--0PQM4-hqg", 30, "waterfall burbling", "train"),
        ("--56QUhyDQM", 185, "bird chirping, tweeting", "train"),
    )
    for name, tone in (("---g-f_I2yQ_000001.wav", 200), ("--0PQM4-hqg_30.flac", 300), ("--56QUhyDQM.mp3", 400)):
        write_tone(folder / "audio" / name, tone)
    return folder


def test_vggsound_has_no_header_and_labels_that_are_captions(tmp_path):
    write_vggsound(tmp_path)
    clips = load_corpus("vggsound", root=tmp_path)
    assert [clip.label for clip in clips] == ["people marching", "waterfall burbling", "bird chirping, tweeting"]
    assert [clip.captions for clip in clips] == [(clip.label,) for clip in clips]
    assert [clip.path.suffix for clip in clips] == [".wav", ".flac", ".mp3"]
    assert [frequency(clip) for clip in clips[:2]] == [200, 300]
    assert load_corpus("vggsound", root=tmp_path, splits=["train"]) == clips[1:]
    assert load_corpus("vggsound", root=tmp_path, labels=["people marching"]) == clips[:1]


def test_vggsound_refuses_a_table_that_is_not_its_own(tmp_path):
    refused("no VGGSound .*lasslab fetch vggsound", "vggsound", root=tmp_path)
    folder = write_vggsound(tmp_path)
    refused("splits test, train, asked for val", "vggsound", root=tmp_path, splits=["val"])
    table = folder / "vggsound.csv"
    good = table.read_text()
    table.write_text("youtube_id,start,label,split\n" + good)
    refused("line 1: start 'start' is not in whole seconds", "vggsound", root=tmp_path)
    table.write_text(good.replace('"bird chirping, tweeting"', "bird chirping, tweeting"))
    refused("line 3: more than 4 values", "vggsound", root=tmp_path)
    table.write_text(good.replace("people marching", ""))
    refused("line 1: no value for label", "vggsound", root=tmp_path)
    table.write_text("")
    refused("no rows", "vggsound", root=tmp_path)
    table.write_text(good)
    (folder / "audio" / "--0PQM4-hqg_30.flac").unlink()
    assert "bring the clips" in refused("1 of 3 .*first '--0PQM4-hqg_000030'", "vggsound", root=tmp_path)


# --- WavCaps


def write_wavcaps(root: Path) -> Path:
    """All four sources with the keys that each has; the sounds in the three places where they may lie."""
    folder = root / "WavCaps"
    sources = {
        "AudioSet_SL/as": [{"id": "Yb0RFKhbpFJA.wav", "caption": "Wind blows.", "duration": 10.0}],
        "BBC_Sound_Effects/bbc": [
            {"id": "NHU05093002", "caption": "A grey heron calls.", "category": "Nature, Birds", "description": "Heron"}
        ],
        "FreeSound/fsd": [
            {"id": "180913", "caption": "A dog barks.", "tags": ["Dog", "bark"], "file_name": "rex.wav"},
            {"id": 180914, "caption": "Rain falls.", "tags": [], "file_name": "rain.wav"},
        ],
        "SoundBible/sb": [{"id": "2219", "caption": "A cow moos.", "title": "Cow"}],
    }
    for name, entries in sources.items():
        write_json(folder / "json_files" / f"{name}_final.json", {"num_captions_per_audio": 1, "data": entries})
    unpacked = "mnt/fast/nobackup/scratch4weeks/xm00178/WavCaps/data/waveforms/FreeSound_flac"
    write_tone(folder / "audio" / "AudioSet_SL" / "Yb0RFKhbpFJA.flac", 200)
    write_tone(folder / "Zip_files" / "BBC_Sound_Effects" / "BBC_Sound_Effects_flac" / "NHU05093002.flac", 300)
    write_tone(folder / unpacked / "180913.flac", 400)
    write_tone(folder / unpacked / "180914.flac", 500)
    write_tone(folder / "audio" / "SoundBible" / "2219.flac", 600)
    return folder


def test_wavcaps_reads_its_four_sources(tmp_path):
    write_wavcaps(tmp_path)
    clips = load_corpus("wavcaps", root=tmp_path)
    assert [frequency(clip) for clip in clips] == [200, 300, 400, 500, 600]
    assert [clip.captions[0] for clip in clips][:2] == ["Wind blows.", "A grey heron calls."]
    assert [clip.tags for clip in clips] == [(), ("nature", "birds"), ("dog", "bark"), (), ()]
    assert clips[0].label == clips[0].source == "wavcaps/AudioSet_SL/Yb0RFKhbpFJA"
    assert load_corpus("wavcaps", root=tmp_path, splits=["SoundBible"]) == clips[4:]
    segments = tmp_path / "AudioSet" / "unbalanced_train_segments.csv"
    segments.parent.mkdir()
    segments.write_text('b0RFKhbpFJA, 0.000, 10.000, "/m/03m9d0z"\n')
    assert load_corpus("wavcaps", root=tmp_path)[0].tags == ("/m/03m9d0z",)


def test_wavcaps_leaves_out_what_is_in_a_test_set(tmp_path):
    folder = write_wavcaps(tmp_path)
    lists = folder / "json_files" / "blacklist"
    write_json(lists / "blacklist_exclude_test_ac.json", {"AudioSet": ["Yb0RFKhbpFJA.wav"], "FreeSound": ["180914"]})
    clips = load_corpus("wavcaps", root=tmp_path, blacklist="blacklist_exclude_test_ac")
    assert [frequency(clip) for clip in clips] == [300, 400, 600]
    refused("there are blacklist_exclude_test_ac; run", "wavcaps", root=tmp_path, blacklist="other")


def test_wavcaps_refuses_what_is_not_whole(tmp_path):
    refused("no WavCaps .*lasslab fetch wavcaps", "wavcaps", root=tmp_path)
    folder = write_wavcaps(tmp_path)
    refused("asked for Freesound", "wavcaps", root=tmp_path, splits=["Freesound"])
    path = folder / "json_files" / "SoundBible" / "sb_final.json"
    for content, words in (
        ('{"data": [{"id": "2219", "caption": " "}]}', "entry 1: no value for caption"),
        ('{"data": [{"caption": "A cow moos."}]}', "entry 1: no value for id"),
        ('{"data": []}', "holds no list of clips"),
        ('{"clips": 3}', "holds no list of clips"),
        ('{"data": [', "is not JSON"),
    ):
        path.write_text(content)
        assert "lasslab fetch wavcaps" in refused(words, "wavcaps", root=tmp_path, splits=["SoundBible"])
    (folder / "audio" / "AudioSet_SL" / "Yb0RFKhbpFJA.flac").unlink()
    refused("1 of 1 .*first 'Yb0RFKhbpFJA.wav'", "wavcaps", root=tmp_path, splits=["AudioSet_SL"])


# --- DCASE 2024 Task 9


def write_dcase(root: Path) -> Path:
    folder = root / "DCASE2024-T9"
    write_json(
        folder / "fsd50k_dev_auto_caption.json",
        {
            "data": [
                {"wav": "64760.wav", "caption": "An electric guitar is played."},
                {"wav": "9.wav", "caption": "Rain."},
            ]
        },
    )
    write_json(folder / "fsd50k_eval_auto_caption.json", {"data": [{"wav": "37199.wav", "caption": "A dog barks."}]})
    for part, name, tone in (("dev", "64760", 200), ("dev", "9", 250), ("eval", "37199", 300)):
        write_tone(root / "FSD50K" / f"FSD50K.{part}_audio" / f"{name}.wav", tone)
    truth = root / "FSD50K" / "FSD50K.ground_truth"
    write_csv(
        truth / "dev.csv",
        ("fname", "labels", "mids", "split"),
        ("64760", "Electric_guitar,Guitar,Music", "/m/1", "train"),
        ("9", "Rain", "/m/2", "val"),
    )
    write_csv(truth / "eval.csv", ("fname", "labels", "mids"), ("37199", "Dog,Domestic_animals_and_pets", "/m/3"))
    write_clotho(root)
    write_json(
        folder / "lass_validation.json",
        [
            {"Index": "704021", "Captions": ["a bell", "a bell rings", "bells"], "Tags": ["Bell", "Chime"]},
            {"Index": "704022", "Captions": ["a car", "cars", "traffic"], "Tags": ["Car"]},
        ],
    )
    write_tone(folder / "lass_validation" / "704021.wav", 600)
    write_tone(folder / "lass_validation" / "704022.wav", 800)
    write_csv(
        folder / "lass_synthetic_validation.csv",
        ("source", "noise", "snr", "query"),
        ("704021", "704022", "-7", "a bell rings"),
        ("704022", "704021", "15", "traffic"),
    )
    for name in ("synth", "real"):
        write_tone(folder / f"lass_evaluation_{name}" / "1.wav", 500)
    write_csv(folder / "lass_synthetic_evaluation.csv", ("wav", "query"), ("1.wav", "a bell"))
    write_csv(folder / "lass_real_evaluation.csv", ("wav", "query"), ("1.wav", "a dog"), ("1.wav", "a cat"))
    return folder


def test_dcase_development_is_fsd50k_and_clotho(tmp_path):
    write_dcase(tmp_path)
    clips = load_corpus("dcase2024", root=tmp_path, splits=["development"])
    assert [frequency(clip) for clip in clips] == [200, 250, 300, 200, 400, 600, 800]
    assert {clip.corpus for clip in clips} == {"dcase2024"}
    guitar = clips[0]
    assert guitar.label == "Electric_guitar" and guitar.tags == ("Electric_guitar", "Guitar", "Music")
    assert guitar.captions == ("An electric guitar is played.",) and guitar.source == "fsd50k/64760"
    for table in (tmp_path / "FSD50K" / "FSD50K.ground_truth").iterdir():
        table.unlink()
    assert load_corpus("dcase2024", root=tmp_path)[0].label == "fsd50k/64760", "without classes, the recording"


def test_dcase_validation_has_three_captions_and_tags(tmp_path):
    write_dcase(tmp_path)
    bell, car = load_corpus("dcase2024", root=tmp_path, splits=["validation"])
    assert (bell.label, bell.tags, bell.captions) == ("Bell", ("Bell", "Chime"), ("a bell", "a bell rings", "bells"))
    assert not bell.shares_sound(car)
    assert load_corpus("dcase2024", root=tmp_path)[-2:] == [bell, car]


def test_dcase_synthetic_list_is_mixed_at_its_own_levels(tmp_path):
    folder = write_dcase(tmp_path)
    pairs = read_dcase_pairs(folder)
    assert [(pair.caption, pair.snr_db) for pair in pairs] == [("a bell rings", -7.0), ("traffic", 15.0)]
    for pair in pairs:
        mixture = load_pair(pair, sample_rate=RATE)
        ratio = mixture.target.square().sum() / mixture.interference.square().sum()
        assert 10 * torch.log10(ratio).item() == pytest.approx(pair.snr_db, abs=1e-3)
    # as a list of AudioSep's form it gives the same pairs
    write_pairs(tmp_path / "pairs.csv", pairs)
    assert read_pairs(tmp_path / "pairs.csv", folder / "lass_validation") == pairs


def test_dcase_evaluation_lists_are_mixtures_and_queries(tmp_path):
    folder = write_dcase(tmp_path)
    ((path, query),) = read_dcase_queries(folder)
    assert path == folder / "lass_evaluation_synth" / "1.wav" and query == "a bell"
    assert [query for _, query in read_dcase_queries(folder, "real")] == ["a dog", "a cat"]
    with pytest.raises(ValueError, match="lists synthetic, real, asked for 'blind'"):
        read_dcase_queries(folder, "blind")


def test_dcase_refuses_what_is_not_whole(tmp_path):
    refused("no DCASE 2024 Task 9 .*lasslab fetch dcase2024", "dcase2024", root=tmp_path)
    folder = write_dcase(tmp_path)
    table = folder / "lass_synthetic_validation.csv"
    good = table.read_text()
    for bad, words in (
        (good.replace("-7", "loud"), "line 2: snr 'loud' is not a number"),
        (good.replace("-7", "nan"), "line 2: snr 'nan'"),
        (good.replace("traffic", ""), "line 3: no value for query"),
        (good.replace("704022,704021", "704022,1"), "1 of 3 audio files .*first '1'"),
        (good.replace("noise", "other"), "lacks the column noise"),
    ):
        table.write_text(bad)
        with pytest.raises(ValueError, match=words):
            read_dcase_pairs(folder)
    table.unlink()
    with pytest.raises(ValueError, match="lasslab fetch dcase2024 --part validation"):
        read_dcase_pairs(folder)
    (tmp_path / "FSD50K" / "FSD50K.dev_audio" / "9.wav").unlink()
    assert "lasslab fetch fsd50k --part dev" in refused("1 of 2 .*first '9.wav'", "dcase2024", root=tmp_path)
    (folder / "fsd50k_eval_auto_caption.json").unlink()
    with pytest.warns(UserWarning):
        refused("fsd50k_eval_auto_caption.json", "dcase2024", root=tmp_path, skip_missing=True)
    write_json(folder / "lass_validation.json", [{"Index": "704021", "Captions": ["a bell", " "]}])
    refused("entry 1: no captions, or an empty one", "dcase2024", root=tmp_path, splits=["validation"])


# --- a folder of one's own


def write_own(root: Path, table: str, *, name: str = "captions.csv", encoding: str = "utf-8") -> Path:
    folder = root / "my sounds"
    for file, tone in (("kitchen/kettle.wav", 200), ("street.flac", 300), ("dog 1.wav", 400)):
        write_tone(folder / file, tone)
    (folder / name).write_bytes(table.encode(encoding))
    return folder


def test_own_folder_needs_two_columns(tmp_path):
    folder = write_own(
        tmp_path, "filename,caption\nkitchen/kettle.wav,a kettle whistles\nstreet.mp3,cars pass by\ndog 1,a dog\n"
    )
    for clips in (load_corpus("my sounds", root=tmp_path), load_corpus(str(folder))):
        assert [frequency(clip) for clip in clips] == [200, 300, 400], "another suffix, or none, is found too"
        assert [clip.captions for clip in clips] == [("a kettle whistles",), ("cars pass by",), ("a dog",)]
        assert [clip.label for clip in clips] == ["kitchen/kettle", "street", "dog 1"], "every file is its own class"
        assert {clip.corpus for clip in clips} == {"my sounds"}


def test_own_folder_takes_more_where_it_is_given(tmp_path):
    table = (
        "Split;Label;File;Caption;caption_2;fold;source;tags\r\n"
        'train;kettle;kitchen/kettle.wav;"a kettle; it whistles";Wasser kocht;1;take 7;kitchen;steam\r\n'
    ).replace("kitchen;steam", '"kitchen;steam"')
    table += "test;traffic;street.flac;cars pass;;2;;\r\ntest;traffic;street.flac;a street;;2;;\r\n"
    write_own(tmp_path, table, name="Tabelle.csv", encoding="utf-8-sig")
    kettle, street = load_corpus("my sounds", root=tmp_path)
    assert kettle.captions == ("a kettle; it whistles", "Wasser kocht") and kettle.tags == ("kitchen", "steam")
    assert (kettle.label, kettle.source, kettle.fold) == ("kettle", "my sounds/take 7", 1)
    assert street.captions == ("cars pass", "a street") and street.source == "my sounds/street"
    assert load_corpus("my sounds", root=tmp_path, splits=["test"]) == [street]
    assert load_corpus("my sounds", root=tmp_path, folds=[1]) == [kettle]
    assert load_corpus("my sounds", root=tmp_path, labels=["traffic"]) == [street]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("filename,text\nstreet.flac,cars\n", "lacks the column caption: it has filename, text"),
        ("name,caption\nstreet.flac,cars\n", "lacks the column filename"),
        ("filename,caption\nstreet.flac, \n", "line 2: no value for caption"),
        ("filename,caption\n", "has a header and no rows"),
        ("", "lacks the column filename, caption"),
        ("filename,caption\nstreet.flac,cars\nbird.wav,a bird\n", "1 of 2 audio files .*first 'bird.wav'"),
        ("filename,caption\n../other.wav,cars\n", "'../other.wav' is outside of"),
        ("filename,caption\n/etc/passwd,cars\n", "'/etc/passwd' is outside of"),
        ("filename,caption,label\nstreet.flac,a,b\nstreet.flac,c,d\n", "has the labels b, d: give it one"),
        ("filename,caption,fold\nstreet.flac,a,one\n", "fold 'one'"),
    ],
)
def test_own_folder_refuses_a_bad_table(tmp_path, table, words):
    write_own(tmp_path, table)
    assert "captions.csv" in refused(words, "my sounds", root=tmp_path)


def test_own_folder_says_which_table_it_wants(tmp_path):
    folder = write_own(tmp_path, "filename,caption\nstreet.flac,cars\n", name="a.csv")
    refused("has no column split", "my sounds", root=tmp_path, splits=["test"])
    (folder / "b.csv").write_text("x\n")
    refused("several tables \\(a.csv, b.csv\\): name the one to use captions.csv", "my sounds", root=tmp_path)
    for name in ("a.csv", "b.csv"):
        (folder / name).unlink()
    refused("no table", "my sounds", root=tmp_path)
    (folder / "captions.csv").write_bytes("filename,caption\nstreet.flac,Straße\n".encode("latin-1"))
    refused("UTF-8", "my sounds", root=tmp_path)
    refused("is not a folder", str(tmp_path / "nothing"))


# --- what all of them have in common


def test_published_clips_make_mixtures(tmp_path):
    """Sentences without classes, clips longer and shorter than an item: every item asks for what is in it."""
    folder = write_clotho(tmp_path)
    write_tone(folder / "development" / "Águas.wav", 400, seconds=12)
    clips = load_corpus("clotho", root=tmp_path, captions_per_clip=1, max_seconds=5)
    data = MixtureDataset(clips, n=12, seconds=1.0, snr_db=(0.0, 0.0), seed=3)
    captions = {clip.label: clip.captions for clip in clips}
    for item in data:
        assert item["target"].shape == item["interference"].shape == (16_000,)
        assert (item["query"],) == captions[item["label"]] and item["label"] != item["interference_label"]


def test_a_long_file_is_read_no_further_than_is_wanted(tmp_path):
    write_own(tmp_path, "filename,caption\nlong.wav,a tone\nstreet.flac,cars\nbroken.wav,noise\n")
    write_tone(tmp_path / "my sounds" / "long.wav", 500, seconds=60, channels=2)
    (tmp_path / "my sounds" / "broken.wav").write_text("no sound")
    long, short, broken = load_corpus("my sounds", root=tmp_path, max_seconds=2)
    whole, *_ = load_corpus("my sounds", root=tmp_path)
    assert whole.load(sample_rate=RATE).shape == (60 * RATE,)
    assert torch.equal(long.load(sample_rate=RATE), whole.load(sample_rate=RATE)[: 2 * RATE])
    assert long.load().shape == (2 * 16_000,) and short.load(sample_rate=RATE).shape == (RATE // 2,)
    with pytest.raises(ValueError, match="broken.wav cannot be read"):
        broken.load()
    for seconds in (0, -1, float("nan"), float("inf")):
        refused("max_seconds", "my sounds", root=tmp_path, max_seconds=seconds)


@pytest.mark.parametrize("name", CORPORA)
def test_arguments_that_a_corpus_has_no_use_for_are_refused(tmp_path, name):
    if name != "esc50":
        refused(f"{name!r} has no folds", name, folds=[1], root=tmp_path)
    if name in ("synthesis", "esc50"):
        refused(f"{name!r} has no splits", name, splits=["train"], root=tmp_path)
    if name != "wavcaps":
        refused(f"{name!r} has no blacklist", name, blacklist="x", root=tmp_path)
    refused("captions_per_clip", name, captions_per_clip=0, root=tmp_path)


@pytest.mark.parametrize("name", CORPORA[1:])
def test_a_corpus_that_is_not_there_names_the_command_that_fetches_it(tmp_path, name):
    message = refused("LASSLAB_DATA", name, root=tmp_path)
    assert f"lasslab fetch {name}" in message and str(tmp_path) in message


def test_files_are_found_by_name_before_stem(tmp_path):
    for name in ("a.b.wav", "a.flac", "a.wav", "sub/c.ogg", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    index = index_audio(tmp_path, tmp_path / "none", tmp_path / "sub")
    assert find_audio(index, "a.wav") == tmp_path / "a.wav" and find_audio(index, "a.flac") == tmp_path / "a.flac"
    assert find_audio(index, "a.b") == tmp_path / "a.b.wav" and find_audio(index, "a.b.mp3") == tmp_path / "a.b.wav"
    assert find_audio(index, "nothing", "c") == tmp_path / "sub" / "c.ogg"
    assert find_audio(index, "note") is None and find_audio(index, "b") is None
    assert find_audio(index_audio(tmp_path), "c") is None and find_audio(index_audio(tmp_path, recursive=True), "c")
