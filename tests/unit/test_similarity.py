"""How well a clip fits its captions: the cosine itself, what is kept on disk, and the filter it makes."""

import json
from dataclasses import replace

import pytest
import torch

from lasslab.data.clips import Clip
from lasslab.data.corpora import load_corpus
from lasslab.data.edits import EditDataset
from lasslab.data.similarity import caption_similarities, similarity_filter
from lasslab.signal.audio import save_audio


class ByHand:
    """A sound's embedding is its level and what is left to length 1; a sentence's is told by its last word."""

    name, fingerprint = "by hand", "abc"
    words = {"loud": (1.0, 0.0), "soft": (0.0, 1.0), "both": (0.6, 0.8)}

    def __init__(self) -> None:
        self.heard = self.read = 0

    def embed_audio(self, waveforms, *, sample_rate=16_000):
        self.heard += len(waveforms)
        level = waveforms.abs().amax(-1)
        return torch.stack([level, (1 - level.square()).sqrt()], dim=-1)

    def embed_text(self, texts):
        self.read += len(texts)
        return torch.tensor([self.words[text.split()[-1]] for text in texts])


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "audio"
    folder.mkdir()
    found = []
    for name, level, captions in (("a", 0.6, ("it is loud", "it is soft")), ("b", 0.8, ("it is loud",))):
        save_audio(folder / f"{name}.wav", torch.full((8_000,), level), sample_rate=16_000)
        found.append(Clip(name, captions, name, "hand", path=folder / f"{name}.wav"))
    return found


def test_the_similarity_is_the_mean_cosine_with_the_captions(clips):
    found = caption_similarities(clips, ByHand())
    assert found == pytest.approx([(0.6 + 0.8) / 2, 0.8], abs=1e-3)


def test_a_silent_clip_fits_no_words(tmp_path, clips):
    save_audio(tmp_path / "none.wav", torch.zeros(8_000), sample_rate=16_000)
    silent = replace(clips[0], path=tmp_path / "none.wav")
    assert caption_similarities([silent], ByHand()) == [-1.0]


def test_a_clip_is_listened_to_once_and_again_where_it_or_its_caption_is_new(tmp_path, clips):
    cache, first = tmp_path / "cache", ByHand()
    found = caption_similarities(clips, first, cache=cache)
    assert (first.heard, first.read) == (2, 2), "each sentence is read once"
    again = ByHand()
    assert caption_similarities(clips, again, cache=cache) == found and again.heard == again.read == 0
    reworded = [replace(clips[0], captions=("it is both",)), clips[1]]
    third = ByHand()
    assert caption_similarities(reworded, third, cache=cache)[0] == pytest.approx(1.0, abs=1e-3)
    assert (third.heard, third.read) == (1, 1)
    assert caption_similarities(clips, again, cache=cache) == found and again.heard == 0, "the old ones are still there"
    save_audio(clips[1].path, torch.full((8_000,), 0.28), sample_rate=16_000)
    assert caption_similarities(clips, again, cache=cache)[1] == pytest.approx(0.28, abs=1e-3) and again.heard == 1
    other = ByHand()
    other.fingerprint = "def"
    caption_similarities(clips, other, cache=cache)
    assert other.heard == 2, "other weights are another embedding"
    (path, _) = sorted(cache.glob("by-hand-similarity-*.json"))
    assert json.loads(path.read_text())["tagger"]["name"] == "by hand similarity", "tags are kept elsewhere"


def test_the_filter_keeps_what_lies_above(clips):
    keep = similarity_filter(clips, ByHand(), min_similarity=0.75)
    assert [keep(clip) for clip in clips] == [False, True]
    at = caption_similarities(clips, ByHand())[1]
    with pytest.raises(ValueError, match=r"no clip fits its captions better than 0\.8 in by hand, the best has 0\.80"):
        similarity_filter(clips, ByHand(), min_similarity=max(at, 0.8))
    for impossible in (1.0, -2.0, float("nan")):
        with pytest.raises(ValueError, match=r"min_similarity is a cosine in \[-1, 1\)"):
            similarity_filter(clips, ByHand(), min_similarity=impossible)
    with pytest.raises(ValueError, match="clip a has no caption"):
        similarity_filter([replace(clips[0], captions=())], ByHand())


def test_edits_are_made_of_what_is_kept():
    clips = [clip for clip in load_corpus("synthesis", n_per_class=2) if clip.label in ("dog", "rain", "owl", "siren")]
    left_out = {clip for clip in clips if clip.source.endswith("1")}
    dataset = EditDataset(clips, n=6, seconds=0.3, keep=lambda clip: clip not in left_out)
    assert set(dataset.crops.clips) == set(clips) - left_out
