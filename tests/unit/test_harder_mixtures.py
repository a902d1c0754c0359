"""Three sources, questions about what is not there, words around captions: what `MixtureDataset` adds for training."""

import math

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from lasslab.data.clips import Clip
from lasslab.data.corpora import load_corpus
from lasslab.data.crops import Crops
from lasslab.data.mixtures import MixtureDataset, cosine_similarity, mix_batch
from lasslab.data.wording import WORDINGS, reword
from lasslab.models.text import normalise_query
from lasslab.signal.spectral import stft

CLIPS = load_corpus("synthesis", n_per_class=2, labels=["dog", "rain", "rooster", "siren", "engine"], seconds=1.0)
DRAW = dict(n=60, seconds=0.4, snr_db=(-5.0, 5.0), seed=3)


def batch(dataset: MixtureDataset, n: int = 60) -> dict:
    return mix_batch(default_collate([dataset[number] for number in range(n)]))


def energy(waveform: torch.Tensor) -> torch.Tensor:
    return waveform.double().square().sum(-1)


def test_without_the_new_shares_items_are_what_they_were():
    plain, other = (
        MixtureDataset(CLIPS, **DRAW),
        MixtureDataset(CLIPS, third_source=0.0, absent=0.0, reword=0.0, **DRAW),
    )
    assert set(plain[0]) == {"target", "interference", "snr_db", "query", "label", "interference_label"}
    for number in range(5):
        assert all(torch.equal(plain[number][key], other[number][key]) for key in ("target", "interference", "snr_db"))
        assert plain[number]["query"] == other[number]["query"]


def test_a_third_source_joins_the_interference_at_its_level():
    two, three = MixtureDataset(CLIPS, **DRAW), MixtureDataset(CLIPS, third_source=1.0, **DRAW)
    for number in range(20):
        before, after = two[number], three[number]
        assert torch.equal(before["target"], after["target"])
        third = after["interference"] - before["interference"]
        level = 10 * math.log10(energy(third) / energy(before["interference"]))
        assert -6.01 < level < 6.01
    mixed = batch(three)
    snr = 10 * torch.log10(energy(mixed["target"]) / energy(mixed["interference"]))
    torch.testing.assert_close(snr.float(), mixed["snr_db"].float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(mixed["mixture"], mixed["target"] + mixed["interference"])


def test_shares_are_shares():
    dataset = MixtureDataset(CLIPS, third_source=0.5, absent=0.25, **DRAW | {"n": 400, "seconds": 0.05})
    plain = MixtureDataset(CLIPS, **DRAW | {"n": 400, "seconds": 0.05})
    items = [dataset[number] for number in range(400)]
    thirds = sum(not torch.equal(item["interference"], plain[n]["interference"]) for n, item in enumerate(items))
    absent = sum(bool(item["absent"]) for item in items)
    assert 160 < thirds < 240 and 65 < absent < 135  # four standard deviations


def test_an_absent_question_has_silence_for_an_answer():
    dataset = MixtureDataset(CLIPS, third_source=0.5, absent=0.5, **DRAW)
    plain = MixtureDataset(CLIPS, third_source=0.5, **DRAW)
    captions = {caption: clip.label for clip in CLIPS for caption in clip.captions}
    mixed = batch(dataset)
    assert 0 < mixed["absent"].sum() < 60
    for number, absent in enumerate(mixed["absent"]):
        label, query = mixed["label"][number], mixed["query"][number]
        assert captions[query] == label, "the question is about the label"
        present = {plain[number]["label"], plain[number]["interference_label"]}
        assert (label not in present) if absent else (label in present)
        if absent:
            assert not mixed["target"][number].any()
            assert torch.equal(mixed["interference"][number], mixed["mixture"][number])
        else:
            assert mixed["target"][number].any()


def test_a_label_is_absent_from_three_sources_too():
    """With four labels, three of them in the mixture, only one can be asked for."""
    clips = [clip for clip in CLIPS if clip.label != "engine"]
    dataset = MixtureDataset(clips, third_source=1.0, absent=1.0, **DRAW)
    two = MixtureDataset(clips, **DRAW)
    for number in range(12):
        present = {two[number]["label"], two[number]["interference_label"]}
        assert dataset[number]["label"] not in present


@pytest.mark.parametrize(
    ("labels", "shares", "words"),
    [
        (["dog", "rain"], {"third_source": 0.1}, "3 labels"),
        (["dog", "rain"], {"absent": 0.1}, "3 labels"),
        (["dog", "rain", "siren"], {"absent": 0.1, "third_source": 0.1}, "4 labels"),
        (["dog", "rain", "siren"], {"absent": 1.1}, "absent is a share in"),
        (["dog", "rain", "siren"], {"third_source": -0.1}, "third_source is a share in"),
        (["dog", "rain", "siren"], {"reword": math.nan}, "reword is a share in"),
    ],
)
def test_impossible_shares_are_refused(labels, shares, words):
    with pytest.raises(ValueError, match=words) as error:
        MixtureDataset([clip for clip in CLIPS if clip.label in labels], **DRAW, **shares)
    assert "\n" not in str(error.value)


def test_reworded_queries_keep_the_caption():
    dataset, plain = MixtureDataset(CLIPS, reword=1.0, **DRAW), MixtureDataset(CLIPS, **DRAW)
    for number in range(20):
        query, caption = dataset[number]["query"], plain[number]["query"]
        assert caption in query and query != caption
    queries = {dataset[number]["query"] for number in range(60)}
    assert len(queries) > 30


def test_every_wording_is_used_and_survives_normalisation():
    random = np.random.default_rng(0)
    seen = {reword("a dog barking", random) for _ in range(500)}
    assert seen == {wording.format("a dog barking") for wording in WORDINGS}
    assert all(normalise_query(text) == text for text in seen), "training sees what the separator will see"


def test_memory_is_bounded_and_the_items_are_the_same(monkeypatch):
    """A corpus larger than the cache: clips are read again, and nothing else changes."""
    roomy = MixtureDataset(CLIPS, **DRAW)
    expected = [roomy[number] for number in range(20)]
    monkeypatch.setattr(Crops, "max_cached", 40_000)  # two and a half clips of one second
    tight = MixtureDataset(CLIPS, **DRAW)
    for number in range(20):
        assert torch.equal(tight[number]["target"], expected[number]["target"])
        assert torch.equal(tight[number]["interference"], expected[number]["interference"])
        assert sum(len(waveform) for waveform, _ in tight.crops._waveforms.values()) <= 40_000
    assert len(roomy.crops._waveforms) == len(CLIPS)


def test_the_filter_s_cosine_is_that_of_the_magnitudes():
    dataset = MixtureDataset(CLIPS, max_similarity=1.0, **DRAW | {"n": 32})
    mixed = batch(dataset, 32)
    expected = cosine_similarity(stft(mixed["mixture"]).abs(), stft(mixed["target"]).abs())
    torch.testing.assert_close(dataset.similarities[:32], expected, atol=1e-5, rtol=0)


def tagged(source: str, *tags: str) -> Clip:
    """A clip of a corpus without classes: every recording is a label of its own, and the tags say what is heard."""
    dog = CLIPS[0]
    return Clip(source, (f"{source} is heard",), source, "clotho", seed=dog.seed, seconds=1.0, tags=tags)


def test_recordings_that_share_a_tag_are_never_mixed(monkeypatch):
    monkeypatch.setattr(Clip, "load", lambda clip, **rate: 0.1 * torch.randn(16_000))
    clips = [tagged("a", "rain", "car"), tagged("b", "rain"), tagged("c", "car", "dog"), tagged("d", "bell")]
    together = {("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")}
    dataset = MixtureDataset(clips, **DRAW)
    found = {tuple(sorted((dataset[n]["label"], dataset[n]["interference_label"]))) for n in range(20)}
    assert found <= together


def test_a_clip_that_shares_a_sound_with_every_other_is_told(monkeypatch):
    monkeypatch.setattr(Clip, "load", lambda clip, **rate: 0.1 * torch.randn(16_000))
    dataset = MixtureDataset([tagged("a", "rain"), tagged("b", "rain")], **DRAW)
    with pytest.raises(ValueError, match="nearly every clip shares a sound with [ab]"):
        dataset[0]
