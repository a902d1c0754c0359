"""Protocols against what is published of them, and the draws against their promises."""

import math
from collections import Counter
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from scipy.stats import kstest

from lasslab.data.clips import Clip
from lasslab.data.corpora import CORPORA, load_corpus
from lasslab.data.mixture_sets import draw_mixtures, loudest_piece, mix, similarity
from lasslab.data.protocols import PROTOCOLS, Protocol, describe_protocol, find_protocol
from lasslab.signal.audio import loudness

RATE = 16_000


def clips(n_labels: int = 6, n: int = 5, **arguments) -> list[Clip]:
    """Clips that exist in name only."""
    return [
        Clip(f"label_{label}", ("one", "two", "three"), f"recording/{label}-{k}", "test", **arguments)
        for label in range(n_labels)
        for k in range(n)
    ]


def protocol(**arguments) -> Protocol:
    level = {} if "lufs" in arguments else {"snr_db": (0.0, 0.0)}
    return Protocol(**({"name": "test", "source": "", "corpus": "test", "n": 30} | level | arguments))


# --- the recipes


@pytest.mark.parametrize(
    ("name", "corpus", "n", "level", "seconds"),
    [
        ("esc50", "esc50", 2_000, "0 dB SNR", 5),
        ("audiocaps", "audiocaps", 928, "-15 to 15 dB SNR", 10),
        ("audiocaps-audiosep", "audiocaps", 4_820, "0 dB SNR", 10),
        ("clotho", "clotho", 5_225, "0 dB SNR", None),
        ("vggsound", "vggsound", 2_000, "-35 to -25 LUFS each", 10),
        ("dcase2024-synth", "dcase2024", 3_000, "-15 to 15 dB SNR", 10),
        ("dcase2024-real", "dcase2024", 200, "as recorded", 10),
        *((f"thesis-{t}", "clotho", 2_500, "equal loudness, -23 LUFS", 15) for t in ("0.8", "0.75", "0.7", "0.65")),
    ],
)
def test_the_recipes_are_the_published_ones(name, corpus, n, level, seconds):
    found = find_protocol(name)
    assert (found.name, found.corpus, found.n, found.level, found.seconds) == (name, corpus, n, level, seconds)
    assert found.source and found.corpus in CORPORA and describe_protocol(found)["level"] == level
    assert found.max_similarity == (float(name.split("-")[1]) if name.startswith("thesis") else None)
    with pytest.raises(FrozenInstanceError):
        found.n = 3


def test_every_recipe_is_listed_here():
    assert len(PROTOCOLS) == 11 and all(name == found.name for name, found in PROTOCOLS.items())


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match="unknown protocol 'esc': choose one of .*esc50, .*vggsound"):
        find_protocol("esc")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0}, "at least one mixture"),
        ({"snr_db": None}, "as snr_db or as lufs"),
        ({"snr_db": (0.0, 0.0), "lufs": (-30.0, -20.0)}, "as snr_db or as lufs"),
        ({"snr_db": (5.0, -5.0)}, "lowest, highest"),
        ({"snr_db": (math.nan, 5.0)}, "lowest, highest"),
        ({"lufs": (-20.0, -30.0)}, "lowest, highest"),
        ({"lufs": (-80.0, -30.0)}, "between -70"),
        ({"lufs": (-30.0, 3.0)}, "between -70"),
        ({"snr_db": (0.2, 0.8), "whole_decibels": True}, "holds a whole number"),
        ({"seconds": 0.0}, "seconds must be positive"),
        ({"seconds": math.inf}, "seconds must be positive"),
        ({"query": "poem"}, "query is one of"),
        ({"n_targets": 0}, "n_targets must be at least 1"),
        ({"max_similarity": 1.2}, "a cosine in"),
        ({"n_sources": 1}, "n_sources must be at least 2"),
    ],
)
def test_contradictory_recipes_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words) as error:
        protocol(**arguments)
    assert "\n" not in str(error.value)


# --- who is mixed with whom


@pytest.mark.parametrize("n_sources", [2, 3, 5])
def test_no_two_sounds_of_a_mixture_are_alike(n_sources):
    tagged = [replace(clip, tags=(f"tag {k % 11}",)) for k, clip in enumerate(clips(12, 4))]
    shared = [replace(clip, source=f"shared/{k // 2}") for k, clip in enumerate(tagged)]  # two labels, one recording
    for row in draw_mixtures(protocol(n=200, n_sources=n_sources), shared, seed=1):
        together = (row.target, *row.interferences)
        assert len(together) == n_sources
        for one in together:
            for other in together:
                if one is not other:
                    assert one.label != other.label and one.source != other.source and one.tags != other.tags
                    assert not one.shares_sound(other)


@pytest.mark.parametrize("n", [30, 60, 97])
def test_targets_and_interferences_are_balanced_over_labels_and_clips(n):
    rows = draw_mixtures(protocol(), clips(6, 5), n=n, seed=3)
    for part in ([row.target for row in rows], [clip for row in rows for clip in row.interferences]):
        labels, sources = Counter(clip.label for clip in part), Counter(clip.source for clip in part)
        assert max(labels.values()) - min(labels.values()) <= 2
        assert max(sources.values()) - min(sources.values()) <= 2 and len(sources) == 30


def test_labels_of_unequal_size_are_asked_for_equally():
    uneven = [*clips(2, 2), *(Clip("crowd", ("x",), f"crowd/{k}", "test") for k in range(40))]
    rows = draw_mixtures(protocol(), uneven, n=6, seed=0)
    assert Counter(row.target.label for row in rows) == {"label_0": 2, "label_1": 2, "crowd": 2}


def test_esc50_has_every_clip_as_target_once():
    corpus = clips(10, 8)
    rows = draw_mixtures(PROTOCOLS["esc50"], corpus, n=80, seed=2)
    assert sorted(row.target.source for row in rows) == sorted(clip.source for clip in corpus)
    assert all(
        row.snr_db == 0.0 and row.seconds == 5.0 and row.query == row.target.label.replace("_", " ") for row in rows
    )


def test_vggsound_has_ten_interferences_for_each_of_200_targets_from_the_rest():
    rows = draw_mixtures(PROTOCOLS["vggsound"], clips(60, 10), seed=1)
    targets = Counter(row.target.source for row in rows)
    assert len(rows) == 2_000 and len(targets) == 200 and set(targets.values()) == {10}
    assert targets.keys().isdisjoint(clip.source for row in rows for clip in row.interferences)
    met = {(row.target.source, row.interferences[0].source) for row in rows}
    assert len(met) > 1_950, "a target hardly ever meets one interference twice"
    levels = [level for row in rows for level in row.lufs]
    assert kstest(levels, "uniform", args=(-35, 10)).pvalue > 0.01


def test_dcase_asks_with_each_caption_at_whole_decibels():
    rows = draw_mixtures(PROTOCOLS["dcase2024-synth"], clips(100, 10), seed=1)
    captions: dict[str, list[str]] = {}
    for row in rows:
        captions.setdefault(row.target.source, []).append(row.query)
    assert len(captions) == 1_000 and all(sorted(found) == ["one", "three", "two"] for found in captions.values())
    assert {row.snr_db for row in rows} == set(range(-15, 16))


def test_audiocaps_levels_are_uniform_and_the_first_caption_asks():
    rows = draw_mixtures(PROTOCOLS["audiocaps"], clips(100, 10), seed=1)
    assert len(rows) == 928 and {row.query for row in rows} == {"one"}
    assert kstest([row.snr_db for row in rows], "uniform", args=(-15, 30)).pvalue > 0.01


def test_the_seed_decides_everything_and_a_short_set_begins_a_long_one():
    recipe = protocol(snr_db=(-15.0, 15.0), n_sources=3)
    long, again = draw_mixtures(recipe, clips(), n=90, seed=5), draw_mixtures(recipe, clips(), n=90, seed=5)
    assert long == again and draw_mixtures(recipe, clips(), n=17, seed=5) == long[:17]
    assert draw_mixtures(recipe, clips(), n=90, seed=6) != long
    torch.manual_seed(1)  # no global state
    assert draw_mixtures(recipe, clips(), n=90, seed=5) == long


@pytest.mark.parametrize(
    ("recipe", "corpus", "words"),
    [
        (protocol(), [], "clips of as many labels, got 0: no clip"),
        (protocol(), clips(1), "clips of as many labels, got 1: label_0"),
        (protocol(n_sources=4), clips(3), "mixtures of 4 sources need clips of as many labels, got 3"),
        (protocol(), [replace(clip, tags=("noise",)) for clip in clips()], "no clip is left that shares no label, tag"),
        (protocol(), [replace(clip, source="one") for clip in clips()], "no clip is left"),
        (PROTOCOLS["dcase2024-real"], clips(), "has no targets"),
    ],
)
def test_sets_that_cannot_be_drawn_are_refused(recipe, corpus, words):
    with pytest.raises(ValueError, match=words) as error:
        draw_mixtures(recipe, corpus, n=5)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="seed is a whole number"):
        draw_mixtures(protocol(), clips(), seed=-1)


# --- how they are mixed


@pytest.fixture(scope="module")
def sounds():
    return load_corpus("synthesis", labels=["dog", "rain", "siren", "clock_tick"], n_per_class=3, seconds=2.0)


def test_an_snr_is_exact_for_any_number_of_sources(sounds):
    for row in draw_mixtures(protocol(snr_db=(-15.0, 15.0), n_sources=4, seconds=1.5), sounds, n=6, seed=1):
        mixed = mix(row)
        assert mixed.mixture.shape == (24_000,) and len(mixed.interferences) == 3
        energies = [part.double().square().sum() for part in (mixed.target, mixed.interference)]
        assert 10 * math.log10(energies[0] / energies[1]) == pytest.approx(row.snr_db, abs=1e-3)
        assert torch.equal(mixed.mixture, mixed.target + mixed.interference)


def test_loudness_is_that_of_the_row(sounds):
    for row in draw_mixtures(protocol(lufs=(-35.0, -25.0), seconds=2.0), sounds, n=6, seed=1):
        mixed = mix(row)
        found = [loudness(part, sample_rate=RATE) for part in (mixed.target, *mixed.interferences)]
        assert found == pytest.approx(row.lufs, abs=0.02) and mixed.mixture.abs().max() < 1


def test_without_a_length_the_target_decides(sounds):
    longer = [*sounds[:3], *(replace(clip, seconds=3.0) for clip in sounds[3:])]
    rows = draw_mixtures(protocol(seconds=None), longer, n=8, seed=1)
    for row in rows:
        assert mix(row).mixture.shape == (round(row.target.seconds * RATE),)


def test_the_cosine_filter_keeps_what_is_below_and_says_what_it_measured(sounds):
    recipe = protocol(snr_db=(-15.0, 15.0), max_similarity=0.75)
    free = draw_mixtures(replace(recipe, max_similarity=None), sounds, n=12, seed=2)
    rows = draw_mixtures(recipe, sounds, n=12, seed=2)
    assert max(similarity(mix(row)) for row in free) > 0.75
    for row in rows:
        assert row.similarity <= 0.75 and row.similarity == pytest.approx(similarity(mix(row)), abs=1e-6)
    assert draw_mixtures(recipe, sounds, n=5, seed=2) == rows[:5]
    # it takes the loud targets away, which is what the thesis's negative input SDR comes from
    assert sum(row.snr_db for row in rows) < sum(row.snr_db for row in free)


def test_a_threshold_that_keeps_nothing_is_refused(sounds, monkeypatch):
    monkeypatch.setattr("lasslab.data.mixture_sets.mix", lambda row, load: row)
    monkeypatch.setattr("lasslab.data.mixture_sets.similarity", lambda mixture: 0.9)
    with pytest.raises(ValueError, match="keeps 0 of 400 candidates.*median similarity is 0.90"):
        draw_mixtures(protocol(max_similarity=0.5), sounds, n=3)


def test_the_loudest_piece():
    waveform = torch.full((5 * RATE,), 0.01)
    waveform[3 * RATE : 4 * RATE] = 0.5
    assert torch.equal(loudest_piece(waveform, seconds=1.0), waveform[3 * RATE : 4 * RATE])
    assert torch.equal(loudest_piece(waveform, seconds=None), waveform)
    padded = loudest_piece(waveform, seconds=6.0)
    assert torch.equal(padded[: 5 * RATE], waveform) and not padded[5 * RATE :].any()


def test_a_silent_clip_is_named(sounds, monkeypatch):
    rows = draw_mixtures(protocol(), sounds, n=2, seed=1)
    loads = Clip.load
    monkeypatch.setattr(
        Clip, "load", lambda clip: torch.zeros(RATE) if clip == rows[1].interferences[0] else loads(clip)
    )
    with pytest.raises(ValueError, match=f"mixture 1: {rows[1].interferences[0].source} is silent"):
        mix(rows[1])
