"""Corpora: a miniature ESC-50 in the published layout, captions, synthesised clips, and every way a table is wrong."""

import os
from itertools import combinations
from pathlib import Path

import pytest
import soundfile
import torch

from lasslab.data import corpora
from lasslab.data.captions import ESC50_CAPTIONS
from lasslab.data.corpora import data_root, load_corpus, read_esc50, read_table
from lasslab.data.synthesis import EVENT_CLASSES, synthesise

HEADER = "filename,fold,target,category,esc10,src_file,take"
# (filename, fold, category, recording, frequency): names that no rule could build, and both formats of the dataset
CLIPS = [
    ("1-100032-A-0.wav", 1, "dog", "100032", 300.0),
    ("1-17367-A-10.ogg", 1, "rain", "17367", 500.0),
    ("2-114280-A-0.ogg", 2, "dog", "114280", 700.0),
    ("3-rerecorded take B.wav", 3, "siren", "13887", 900.0),
]


def write_esc50(root: Path, *, rows: list[str] | None = None, header: str = HEADER) -> Path:
    """`root/ESC-50` with one second of a tone per clip at 44.1 kHz."""
    folder = root / "ESC-50"
    (folder / "meta").mkdir(parents=True)
    (folder / "audio").mkdir()
    time = torch.arange(44_100) / 44_100
    for name, _, _, _, frequency in CLIPS:
        tone = 0.5 * torch.sin(2 * torch.pi * frequency * time)
        soundfile.write(folder / "audio" / name, tone.numpy(), 44_100)
    if rows is None:
        rows = [f"{name},{fold},0,{label},False,{source},A" for name, fold, label, source, _ in CLIPS]
    (folder / "meta" / "esc50.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


# --- the ESC-50 reader


def test_esc50_clips_carry_what_the_table_says(tmp_path):
    folder = write_esc50(tmp_path)
    clips = load_corpus("esc50", root=tmp_path)
    assert [(clip.path.name, clip.fold, clip.label) for clip in clips] == [clip[:3] for clip in CLIPS]
    for clip, (name, _, label, source, _) in zip(clips, CLIPS, strict=True):
        assert clip.path == folder / "audio" / name
        assert clip.captions == ESC50_CAPTIONS[label]
        assert clip.source == f"esc50/{source}" and clip.corpus == "esc50" and clip.seed is None


def test_esc50_audio_is_read_at_the_rate_asked_for(tmp_path):
    write_esc50(tmp_path)
    for clip, (*_, frequency) in zip(load_corpus("esc50", root=tmp_path), CLIPS, strict=True):
        for sample_rate in (16_000, 8_000):
            waveform = clip.load(sample_rate=sample_rate)
            assert waveform.shape == (sample_rate,) and waveform.dtype == torch.float32
            peak = torch.fft.rfft(waveform).abs().argmax().item()  # 1 s: bin k is k Hz
            assert peak == frequency


def test_folds_and_labels_select(tmp_path):
    write_esc50(tmp_path)
    assert [clip.fold for clip in load_corpus("esc50", folds=(1,), root=tmp_path)] == [1, 1]
    assert [clip.fold for clip in load_corpus("esc50", folds=[3, 2], root=tmp_path)] == [2, 3]
    assert [clip.source for clip in load_corpus("esc50", labels=["dog"], root=tmp_path)] == [
        "esc50/100032",
        "esc50/114280",
    ]


def test_the_data_root_comes_from_the_environment(tmp_path, monkeypatch):
    write_esc50(tmp_path)
    monkeypatch.setenv("LASSLAB_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert len(load_corpus("esc50")) == len(CLIPS)
    monkeypatch.setenv("LASSLAB_DATA", "")
    repository = Path(corpora.__file__).resolve().parents[2]
    assert data_root() == repository / "data" / "corpora", "the same from every working directory"


def test_a_missing_dataset_says_where_it_was_sought(tmp_path):
    with pytest.raises(ValueError, match="LASSLAB_DATA") as error:
        load_corpus("esc50", root=tmp_path)
    assert str(tmp_path / "ESC-50" / "meta" / "esc50.csv") in one_line(error)


def test_a_missing_audio_file_is_named(tmp_path):
    folder = write_esc50(tmp_path)
    (folder / "audio" / CLIPS[2][0]).unlink()
    with pytest.raises(ValueError, match="are missing") as error:
        load_corpus("esc50", root=tmp_path)
    assert CLIPS[2][0] in one_line(error)
    # a fold that does not need it still works
    assert len(load_corpus("esc50", folds=(1,), root=tmp_path)) == 2


def test_an_unreadable_audio_file_is_named(tmp_path):
    folder = write_esc50(tmp_path)
    (folder / "audio" / CLIPS[0][0]).write_text("no sound")
    clip = load_corpus("esc50", root=tmp_path)[0]
    with pytest.raises(ValueError, match="cannot be read") as error:
        clip.load()
    assert CLIPS[0][0] in one_line(error)


@pytest.mark.parametrize("column", ["filename", "fold", "category", "src_file"])
def test_a_missing_column_is_named(tmp_path, column):
    write_esc50(tmp_path, header=HEADER.replace(column, "other"))
    with pytest.raises(ValueError, match=f"lacks the column {column}") as error:
        load_corpus("esc50", root=tmp_path)
    assert "esc50.csv" in one_line(error)


@pytest.mark.parametrize("folds", [(9,), (1, 9), (0,), ()])
def test_an_unknown_fold_is_refused(tmp_path, folds):
    write_esc50(tmp_path)
    with pytest.raises(ValueError, match=r"folds \[1, 2, 3\]") as error:
        load_corpus("esc50", folds=folds, root=tmp_path)
    assert str(sorted(folds)) in one_line(error)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (f"{CLIPS[0][0]},one,0,dog,False,1,A", "fold 'one'"),
        (f"{CLIPS[0][0]},1,0,unicorn,False,1,A", "'unicorn'"),
        (f"{CLIPS[0][0]},,0,dog,False,1,A", "line 2: no value for fold"),
        (f"{CLIPS[0][0]},1", "line 2: no value for category"),
    ],
)
def test_a_bad_row_is_refused(tmp_path, row, words):
    write_esc50(tmp_path, rows=[row])
    with pytest.raises(ValueError, match=words) as error:
        load_corpus("esc50", root=tmp_path)
    assert "esc50.csv" in one_line(error)


# --- tables


def test_a_table_written_by_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes('\ufeffa,b\r\n1,"x, ""y"""\r\n'.encode())
    assert read_table(path, columns=("a", "b")) == [{"a": "1", "b": 'x, "y"'}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "lacks the column a"),
        (b"a,b\n", "has a header and no rows"),
        (b"a;b\n1;2\n", "lacks the column a, b"),
        (b"a,b\n1,2\n3, \n", "line 3: no value for b"),
        (b"a,b\n\xff\xfe\x00,1\n", "not a CSV table in UTF-8"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, content, words):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        read_table(path, columns=("a", "b"))
    assert str(path) in one_line(error)


def test_a_missing_table_is_refused(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(ValueError, match="is not a file") as error:
            read_table(path, columns=("a",))
        assert str(path) in one_line(error)


# --- synthesis


def test_synthesised_clips_are_the_clips_of_their_label_and_seed():
    clips = load_corpus("synthesis", n_per_class=2, seconds=0.5)
    assert len(clips) == 2 * len(EVENT_CLASSES) and {clip.label for clip in clips} == set(EVENT_CLASSES)
    clip = clips[1]
    assert clip.captions == EVENT_CLASSES[clip.label].captions and clip.path is None
    assert torch.equal(clip.load(), synthesise(clip.label, seed=clip.seed, seconds=0.5))
    assert clip.load(sample_rate=8_000).shape == (4_000,)


def test_corpora_of_different_seeds_share_no_clip():
    corpora = [load_corpus("synthesis", n_per_class=50, seed=seed) for seed in range(3)]
    keys = [{(clip.label, clip.seed) for clip in clips} for clips in corpora]
    assert not any(a & b for a, b in combinations(keys, 2))
    sources = [clip.source for clip in corpora[0]]
    assert len(set(sources)) == len(sources)
    assert load_corpus("synthesis", n_per_class=3, seed=4) == load_corpus("synthesis", n_per_class=3, seed=4)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown corpus 'esc-50'.*synthesis, esc50") as error:
        load_corpus("esc-50")
    one_line(error)
    with pytest.raises(ValueError, match="no class unicorn: choose from .*dog") as error:
        load_corpus("synthesis", labels=["dog", "unicorn"])
    one_line(error)
    with pytest.raises(ValueError, match="n_per_class"):
        load_corpus("synthesis", n_per_class=0)


# --- captions


def test_fifty_classes_have_five_captions_each():
    assert len(ESC50_CAPTIONS) == 50
    for label, captions in ESC50_CAPTIONS.items():
        assert len(captions) >= 5, label
        assert len({caption.lower() for caption in captions}) == len(captions), label
        for caption in captions:
            assert caption == " ".join(caption.split()) and caption, label


def test_no_caption_names_two_sounds():
    """A sentence of two labels would make one item's target another item's interference."""
    labels: dict[str, set[str]] = {}
    synthesis = {name: event.captions for name, event in EVENT_CLASSES.items()}
    for table in (ESC50_CAPTIONS, synthesis):
        for label, captions in table.items():
            for caption in captions:
                labels.setdefault(caption.lower().replace("-", " "), set()).add(label)
    assert {caption: found for caption, found in labels.items() if len(found) > 1} == {}


def test_synthesis_and_esc50_agree_on_the_ten_classes():
    esc10 = "dog rooster rain sea_waves crackling_fire crying_baby sneezing clock_tick helicopter chainsaw".split()
    assert set(esc10) <= set(EVENT_CLASSES) and set(esc10) <= set(ESC50_CAPTIONS)


# --- real recordings

REAL = Path(os.environ.get("LASSLAB_DATA") or Path("data") / "corpora") / "ESC-50"


@pytest.mark.real_audio
@pytest.mark.skipif(
    not (REAL / "meta" / "esc50.csv").is_file(),
    reason=f"no {REAL}: run lasslab fetch esc50, or set LASSLAB_DATA to the folder that holds ESC-50",
)
def test_the_real_esc50_has_the_promised_shape():
    clips = read_esc50(REAL)
    by_fold = {fold: {clip.source for clip in clips if clip.fold == fold} for fold in {clip.fold for clip in clips}}
    assert not any(by_fold[a] & by_fold[b] for a, b in combinations(by_fold, 2)), "folds share recordings"
    counts = [sum(clip.label == label for clip in clips) for label in {clip.label for clip in clips}]
    assert len(set(counts)) == 1, "every class has the same number of clips"
    for clip in clips[:: len(clips) // 5]:
        waveform = clip.load()
        assert 16_000 < len(waveform) < 10 * 16_000
        assert waveform.isfinite().all() and 1e-4 < waveform.abs().max() <= 1.1
