"""Mixtures: levels against their formulas, the filter against its definition, pair lists against AudioSep's rules."""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.spatial.distance import cosine as cosine_distance
from scipy.stats import kstest
from torch.utils.data import DataLoader

from lasslab.data.corpora import Clip, load_corpus
from lasslab.data.crops import Augmentation, equalise
from lasslab.data.mixtures import (
    MixtureDataset,
    cosine_similarity,
    mix_at_equal_loudness,
    mix_at_lufs,
    mix_at_snr,
    mix_batch,
    mix_in_lufs_range,
    mix_many,
)
from lasslab.data.pairs import Pair, load_pair, read_pairs, stem_matches, write_pairs
from lasslab.signal.audio import load_audio, loudness
from lasslab.signal.spectral import stft

RATE = 16_000


def noise(*shape: int, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def snr(target: torch.Tensor, interference: torch.Tensor) -> torch.Tensor:
    """In double precision, from the definition."""
    return 10 * torch.log10(target.double().square().sum(-1) / interference.double().square().sum(-1))


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


@dataclass(frozen=True)
class Sound(Clip):
    """A clip that costs nothing to make: noise in a band of its label's, of which `silence` mutes the first part."""

    silence: float = 0.0
    level: float = 0.1

    def load(self, *, sample_rate: int = RATE) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        waveform = torch.randn(round(self.seconds * sample_rate), generator=generator)
        spectrum, band = (
            np.fft.rfft(waveform.numpy()),
            len(waveform) // 12,
        )  # torch's differs with the number of threads
        lowest = band * (ord(self.label) - ord("A"))
        spectrum[:lowest], spectrum[lowest + 2 * band :] = 0, 0  # neighbours share half of their bands
        waveform = torch.from_numpy(np.fft.irfft(spectrum, n=len(waveform))).float()
        waveform[: round(self.silence * len(waveform))] = 0
        return self.level * waveform / waveform.abs().max().clamp(min=1e-9)


def sounds(labels: str = "ABCDE", *, n: int = 4, **arguments) -> list[Clip]:
    """`n` clips of each label; labels have one letter."""
    return [
        Sound(label, (f"{label} one", f"{label} two", f"{label} three"), f"{label}/{k}", "test", seed=10 * i + k)
        if not arguments
        else Sound(label, (f"{label} one",), f"{label}/{k}", "test", seed=10 * i + k, **arguments)
        for i, label in enumerate(labels)
        for k in range(n)
    ]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a
    )


# --- mixing at an SNR


@pytest.mark.parametrize("snr_db", [-30.0, -15.0, 0.0, 3.0, 20.0])
def test_the_interference_is_scaled_to_the_snr(snr_db):
    target, interference = noise(8_000, seed=1, level=0.005), noise(8_000, seed=2, level=0.003)
    mixed = mix_at_snr(target, interference, snr_db=snr_db)
    assert snr(mixed.target, mixed.interference).item() == pytest.approx(snr_db, abs=1e-3)
    assert torch.equal(mixed.target, target), "nothing clips, so the target keeps its level"
    assert torch.equal(mixed.mixture, mixed.target + mixed.interference)


def test_sines_have_the_analytic_gain():
    time = torch.arange(RATE) / RATE
    target, interference = 0.5 * torch.sin(2 * math.pi * 440 * time), 0.1 * torch.sin(2 * math.pi * 880 * time)
    mixed = mix_at_snr(target, interference, snr_db=20.0)
    assert mixed.interference.abs().max().item() == pytest.approx(0.05, rel=1e-3)


def test_a_batch_has_an_snr_per_row():
    target, interference = noise(4, 3, 2_000, seed=1), noise(4, 3, 2_000, seed=2)
    wanted = torch.linspace(-15, 15, 12).reshape(4, 3)
    mixed = mix_at_snr(target, interference, snr_db=wanted)
    assert torch.allclose(snr(mixed.target, mixed.interference), wanted.double(), atol=1e-3)
    for row in range(4):
        alone = mix_at_snr(target[row, 1], interference[row, 1], snr_db=wanted[row, 1].item())
        assert torch.allclose(mixed.mixture[row, 1], alone.mixture, atol=1e-6)


def test_a_mixture_that_would_clip_is_rescaled_whole():
    target, interference = noise(2, 4_000, seed=1, level=0.9), noise(2, 4_000, seed=2, level=0.2)
    target[1] *= 0.01  # the second row does not clip, and is left alone
    mixed = mix_at_snr(target, interference, snr_db=-3.0)
    assert mixed.mixture[0].abs().max().item() == pytest.approx(1.0, abs=1e-6)
    assert torch.allclose(snr(mixed.target, mixed.interference), torch.tensor([-3.0, -3.0]).double(), atol=1e-3)
    assert torch.equal(mixed.mixture, mixed.target + mixed.interference), "exactly, not up to rounding"
    gain = mixed.target[0] / target[0]
    assert torch.allclose(gain, gain[0].expand_as(gain), rtol=1e-5) and gain[0] < 0.9
    assert torch.equal(mixed.target[1], target[1])


def test_inputs_are_left_alone():
    target, interference = noise(500, seed=1, level=5), noise(500, seed=2)
    before = target.clone(), interference.clone()
    mix_at_snr(target, interference, snr_db=0.0)
    mix_at_equal_loudness(target, interference, sample_rate=RATE)
    assert torch.equal(target, before[0]) and torch.equal(interference, before[1])


@pytest.mark.parametrize("name", ["target", "interference"])
def test_silence_has_no_snr(name):
    parts = {"target": noise(3, 100), "interference": noise(3, 100, seed=1)}
    parts[name][1] = 0
    with pytest.raises(ValueError, match=f"the {name} is silent") as error:
        mix_at_snr(**parts, snr_db=0.0)
    one_line(error)


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match=r"\(100,\).*\(99,\).*fit_length"):
        mix_at_snr(noise(100), noise(99), snr_db=0.0)
    for value in (math.nan, -math.inf):
        with pytest.raises(ValueError, match="no finite gain") as error:
            mix_at_snr(noise(100), noise(100, seed=1), snr_db=value)
        one_line(error)


# --- mixing at equal loudness


def test_both_parts_have_the_same_loudness():
    clips = [clip.load() for clip in load_corpus("synthesis", n_per_class=1, labels=["dog", "rain", "siren", "engine"])]
    for target, interference in zip(clips, clips[1:], strict=False):
        mixed = mix_at_equal_loudness(target, interference, sample_rate=RATE, lufs=-40.0)
        levels = [loudness(part, sample_rate=RATE) for part in (mixed.target, mixed.interference)]
        assert levels == pytest.approx([-40.0, -40.0], abs=0.1)
        assert torch.equal(mixed.mixture, mixed.target + mixed.interference)


def test_the_shorter_clip_starts_first_and_ends_in_silence():
    target, interference = noise(RATE, seed=1), noise(2 * RATE, seed=2)
    mixed = mix_at_equal_loudness(target, interference, sample_rate=RATE)
    assert mixed.mixture.shape == (2 * RATE,)
    assert not mixed.target[RATE:].any()
    gain = mixed.target[:RATE] / target
    assert torch.allclose(gain, gain[0].expand_as(gain), rtol=1e-4), "starts are aligned"
    assert loudness(mixed.target[:RATE], sample_rate=RATE) == pytest.approx(-23, abs=0.1)


def test_loud_parts_are_rescaled_together():
    target, interference = noise(RATE, seed=1), noise(RATE, seed=2)
    mixed = mix_at_equal_loudness(target, interference, sample_rate=RATE, lufs=0.0)
    assert mixed.mixture.abs().max().item() == pytest.approx(1.0, abs=1e-6)
    levels = [loudness(part, sample_rate=RATE) for part in mixed]
    assert levels[1] == pytest.approx(levels[2], abs=0.1) and levels[1] < -3


def test_silence_has_no_loudness():
    for parts in ((torch.zeros(RATE), noise(RATE)), (noise(RATE), 1e-7 * noise(RATE, seed=1))):
        with pytest.raises(ValueError, match="is silent") as error:
            mix_at_equal_loudness(*parts, sample_rate=RATE)
        one_line(error)


# --- the cosine


def test_cosine_of_known_pairs():
    a, b = torch.zeros(1, 4, 5), torch.zeros(1, 4, 5)
    a[0, 0], b[0, 2] = 1.0, 2.0
    assert cosine_similarity(a, b).item() == 0, "disjoint bins"
    assert cosine_similarity(a, 7 * a).item() == pytest.approx(1, abs=1e-6)
    assert cosine_similarity(a, torch.zeros_like(a)).item() == 0, "silence"
    # 2 shared bins of 4 and 2 bins of equal magnitude: 2 / sqrt(4 * 2)
    a, b = torch.tensor([[1.0, 1.0, 1.0, 1.0]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert cosine_similarity(a, b).item() == pytest.approx(1 / math.sqrt(2), abs=1e-6)


def test_cosine_agrees_with_scipy():
    a, b = noise(6, 257, 20, seed=1).abs(), noise(6, 257, 20, seed=2).abs()
    similarity = cosine_similarity(a, b)
    assert similarity.shape == (6,)
    for row in range(6):
        expected = 1 - cosine_distance(a[row].double().flatten().numpy(), b[row].double().flatten().numpy())
        assert similarity[row].item() == pytest.approx(expected, abs=1e-5)


def test_cosine_refuses_two_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) and \(1, 3, 4\)"):
        cosine_similarity(torch.rand(2, 3, 4), torch.rand(1, 3, 4))


# --- the dataset


def test_items_have_the_promised_shape():
    dataset = MixtureDataset(sounds(), n=20, seconds=0.5)
    assert len(dataset) == 20
    clips = {clip.label: clip for clip in sounds()}
    for item in (dataset[index] for index in range(20)):
        assert item["target"].shape == item["interference"].shape == (8_000,)
        assert item["target"].dtype == torch.float32 and item["snr_db"].shape == ()
        assert item["query"] in clips[item["label"]].captions
        assert item["target"].any() and item["interference"].any()


def test_no_item_mixes_a_label_with_itself():
    dataset = MixtureDataset(sounds("ABC"), n=500, seconds=0.02)
    items = [dataset[index] for index in range(500)]
    assert all(item["label"] != item["interference_label"] for item in items)
    assert {(item["label"], item["interference_label"]) for item in items} == {
        (a, b) for a in "ABC" for b in "ABC" if a != b
    }


def test_labels_are_equally_likely_whatever_their_number_of_clips():
    clips = [*sounds("A", n=9), *sounds("BCD", n=1)]
    dataset = MixtureDataset(clips, n=400, seconds=0.02)
    labels = [dataset[index]["label"] for index in range(400)]
    counts = np.array([labels.count(label) for label in "ABCD"])
    assert (abs(counts - 100) < 4 * math.sqrt(75)).all()  # four standard deviations of a binomial


def test_weights_and_target_labels_decide_what_is_drawn():
    clips = sounds("ABC", n=2)
    dataset = MixtureDataset(clips, n=100, seconds=0.02, weights=[1, 0, 1, 0, 0, 0], target_labels=["B"])
    assert {(item["label"], item["interference_label"]) for item in (dataset[i] for i in range(100))} == {("B", "A")}


@pytest.mark.parametrize("low_high", [(-15.0, 15.0), (-5.0, 0.0)])
def test_the_snr_is_uniform(low_high):
    low, high = low_high
    dataset = MixtureDataset(sounds(), n=1_000, seconds=0.01, snr_db=low_high, seed=3)
    values = np.array([dataset[index]["snr_db"].item() for index in range(1_000)])
    assert values.min() >= low and values.max() <= high
    assert kstest(values, "uniform", args=(low, high - low)).pvalue > 0.01
    # neighbours are independent: each step is as likely up as down
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4 / math.sqrt(1_000)


def test_a_batch_becomes_a_mixture_at_its_snr():
    dataset = MixtureDataset(sounds(), n=8, seconds=0.25, seed=1)
    batch = next(iter(DataLoader(dataset, batch_size=8)))
    mixed = mix_batch(batch)
    assert torch.allclose(snr(mixed["target"], mixed["interference"]), batch["snr_db"].double(), atol=1e-2)
    assert torch.equal(mixed["mixture"], mixed["target"] + mixed["interference"])
    assert mixed["query"] == batch["query"] and "mixture" not in batch


def test_without_an_snr_both_parts_are_equally_loud():
    dataset = MixtureDataset(load_corpus("synthesis", n_per_class=1), n=20, seconds=2.0, snr_db=None)
    differences = []
    for item in (dataset[index] for index in range(20)):
        mixed = mix_at_snr(item["target"], item["interference"], snr_db=item["snr_db"])
        target, interference = (loudness(part, sample_rate=RATE) for part in (mixed.target, mixed.interference))
        differences.append(abs(target - interference))
    # a part that is turned down may lose its quietest blocks to the meter's gate, which moves its loudness a little
    assert np.mean(np.array(differences) < 0.1) >= 0.8 and max(differences) < 1


def test_a_piece_below_the_loudness_gate_still_has_a_level():
    """-70 LUFS is "silence" to the meter; its logarithm made a mixture of NaN."""
    clips = [*sounds("A", n=1, level=1e-4), *sounds("B", n=1, level=0.1)]
    dataset = MixtureDataset(clips, n=2, seconds=1.0, snr_db=None, target_labels=["A"])
    assert loudness(dataset[0]["target"], sample_rate=RATE) == -math.inf
    mixed = mix_at_snr(*(dataset[0][key] for key in ("target", "interference")), snr_db=dataset[0]["snr_db"])
    loud = [1e4 * part for part in (mixed.target, mixed.interference)]
    assert loudness(loud[0], sample_rate=RATE) == pytest.approx(loudness(loud[1], sample_rate=RATE), abs=0.1)


def test_the_number_of_workers_changes_nothing():
    augmentation = Augmentation(speed=0.1, filter_db=6.0, shift=True, reverse_polarity=True)
    batches = []
    for n_workers in (0, 1, 2):
        dataset = MixtureDataset(sounds(), n=12, seconds=0.1, augmentation=augmentation, seed=7)
        batches.append(list(DataLoader(dataset, batch_size=4, num_workers=n_workers)))
    assert len(batches[0]) == 3
    for other in batches[1:]:
        assert all(same(a, b) for a, b in zip(batches[0], other, strict=True))


def test_the_seed_decides_everything():
    def item(index: int, *, seed: int, n: int = 10) -> dict:
        return MixtureDataset(sounds(), n=n, seconds=0.1, seed=seed)[index]

    assert same(item(3, seed=1), item(3, seed=1))
    assert same(item(3, seed=1), item(3, seed=1, n=1_000)), "an item does not know how many follow"
    assert not torch.equal(item(3, seed=1)["target"], item(3, seed=2)["target"])
    assert not torch.equal(item(3, seed=1)["target"], item(4, seed=1)["target"])
    # seed 1, item 0 is not seed 0, item 1 either
    assert not torch.equal(item(1, seed=0)["target"], item(0, seed=1)["target"])


def test_global_random_state_is_neither_read_nor_changed():
    dataset = MixtureDataset(sounds(), n=2, seconds=0.1, augmentation=Augmentation(shift=True), seed=1)
    first = dataset[0]
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert same(dataset[0], first)
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()


def test_pauses_are_not_cut_out():
    """A piece of a clip that is silent for nine tenths is taken from the tenth that is not."""
    clips = sounds("AB", n=2, silence=0.9)
    dataset = MixtureDataset(clips, n=50, seconds=0.25)
    for item in (dataset[index] for index in range(50)):
        mixed = mix_at_snr(item["target"], item["interference"], snr_db=item["snr_db"])
        assert mixed.mixture.isfinite().all() and item["target"].any()


def test_short_clips_are_padded():
    dataset = MixtureDataset(sounds("AB", seconds=0.5), n=3, seconds=1.0)
    for item in (dataset[index] for index in range(3)):
        assert item["target"].shape == (RATE,)
        assert item["target"][:8_000].any() and not item["target"][8_000:].any()


def test_a_silent_clip_is_named():
    clips = [*sounds("A"), Sound("B", ("b",), "B/mute", "test", seed=1, silence=1.0)]
    with pytest.raises(ValueError, match="B/mute is silent") as error:
        MixtureDataset(clips, n=1, seconds=0.1)[0]
    one_line(error)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"clips": []}, "at least two labels, got no clip"),
        ({"clips": sounds("A")}, r"at least two labels, got \['A'\]"),
        ({"n": 0}, "n must be at least 1"),
        ({"seconds": 0.0}, "seconds must be positive"),
        ({"seconds": 1e-6}, "seconds must be positive"),
        ({"seconds": math.inf}, "seconds must be positive"),
        ({"snr_db": (5.0, -5.0)}, "snr_db is"),
        ({"snr_db": (math.nan, 5.0)}, "snr_db is"),
        ({"snr_db": (-math.inf, 5.0)}, "snr_db is"),
        ({"weights": [1.0]}, "weights must be 8 numbers"),
        ({"weights": [-1.0] + [1.0] * 7}, "weights must be 8 numbers"),
        ({"weights": [math.nan] * 8}, "weights must be 8 numbers"),
        ({"weights": [1.0] * 4 + [0.0] * 4}, "one label only"),
        ({"target_labels": ["Z"]}, r"target_labels=\['Z'\]"),
        (
            {"target_labels": ["B"], "weights": [1.0] * 4 + [0.0] * 4 + [1.0] * 4, "clips": sounds("ABC")},
            "target_labels",
        ),
        ({"max_similarity": 0.0}, "max_similarity is a cosine"),
        ({"max_similarity": 1.5}, "max_similarity is a cosine"),
    ],
)
def test_impossible_datasets_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words) as error:
        MixtureDataset(**({"clips": sounds("AB"), "n": 4, "seconds": 0.1} | arguments))
    one_line(error)


# --- the filter


def recompute(dataset: MixtureDataset) -> torch.Tensor:
    """The cosine of each item's mixture with its target, from the definition and one by one."""
    values = []
    for item in (dataset[index] for index in range(len(dataset))):
        mixed = mix_at_snr(item["target"], item["interference"], snr_db=item["snr_db"].item())
        mixture, target = (stft(wave).abs().double().flatten() for wave in (mixed.mixture, mixed.target))
        values.append((mixture @ target / (mixture.norm() * target.norm())).item())
    return torch.tensor(values)


def test_the_filter_keeps_what_is_below_the_threshold():
    dataset = MixtureDataset(sounds(), n=40, seconds=0.2, max_similarity=0.75, seed=2)
    similarity = recompute(dataset)
    assert len(dataset) == len(similarity) == 40
    assert (similarity <= 0.75 + 1e-5).all()
    # every candidate was counted, and the first 40 that pass are the items, in order
    seen = dataset.similarities
    assert len(seen) % MixtureDataset.filter_batch == 0 and (seen > 0.75).any()
    assert torch.allclose(seen[seen <= 0.75][:40], similarity, atol=1e-5)


def test_the_filter_rejects_and_nothing_else():
    """Candidate i is item i of the dataset without a filter."""
    free = MixtureDataset(sounds(), n=64, seconds=0.2, seed=2)
    dataset = MixtureDataset(sounds(), n=10, seconds=0.2, max_similarity=0.75, seed=2)
    passed = (dataset.similarities <= 0.75).nonzero().flatten()[:10]
    assert len(passed) == 10
    for index, candidate in enumerate(passed):
        assert same(dataset[index], free[candidate])
    assert torch.allclose(dataset.similarities, recompute(free)[: len(dataset.similarities)], atol=1e-5)
    assert len(free.similarities) == 0


def test_the_filtered_order_is_the_same_every_time():
    def build(n: int) -> MixtureDataset:
        return MixtureDataset(sounds(), n=n, seconds=0.1, max_similarity=0.7, seed=5)

    first, again, longer = build(20), build(20), build(70)
    assert torch.equal(first.similarities, again.similarities)
    for index in range(20):
        assert same(first[index], again[index]) and same(first[index], longer[index])


def test_a_lower_threshold_takes_the_loud_targets_away():
    """The thesis's test set has a negative mean SNR for this reason."""
    means = []
    for threshold in (None, 0.8, 0.6):
        dataset = MixtureDataset(sounds(), n=60, seconds=0.1, max_similarity=threshold, seed=1)
        means.append(np.mean([dataset[index]["snr_db"].item() for index in range(60)]))
    assert means[0] > means[1] > means[2] and means[2] < -2


def test_an_impossible_threshold_is_refused():
    with pytest.raises(ValueError, match="keeps 0 of .* candidates.*median similarity") as error:
        MixtureDataset(sounds(), n=5, seconds=0.05, snr_db=(30.0, 40.0), max_similarity=0.2)
    one_line(error)


# --- augmentation


def test_a_flat_equaliser_is_a_gain():
    waveform = noise(3_001)
    assert torch.allclose(equalise(waveform, [0.0] * 5), waveform, atol=1e-6)
    assert torch.allclose(equalise(waveform, [20 * math.log10(2)] * 5), 2 * waveform, atol=1e-5)


def test_the_equaliser_has_its_gains_at_equal_steps_of_the_mel_scale():
    gains = [-6.0, 3.0, 0.0, 5.0, -12.0]
    impulse = torch.zeros(16_000)
    impulse[0] = 1
    spectrum = torch.fft.rfft(equalise(impulse, gains))
    assert spectrum.imag.abs().max() < 1e-4, "zero phase"
    top = 2595 * math.log10(1 + 8_000 / 700)
    for band, gain in enumerate(gains):
        frequency = 700 * (10 ** (band / 4 * top / 2595) - 1)
        assert 20 * math.log10(spectrum[round(frequency)].real.item()) == pytest.approx(gain, abs=0.1)


def test_augmentation_is_decided_by_its_generator():
    augmentation = Augmentation(speed=0.1, filter_db=6.0, shift=True, reverse_polarity=True)
    waveform = noise(2_000)
    a, b, c = (augmentation(waveform, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(Augmentation()(waveform, np.random.default_rng(1)), waveform)


def test_a_shift_wraps_around():
    waveform = noise(2_000)
    shifted = Augmentation(shift=True)(waveform, np.random.default_rng(1))
    assert any(torch.equal(shifted, waveform.roll(k)) for k in range(2_000)) and not torch.equal(shifted, waveform)


def test_the_polarity_is_flipped_half_of_the_time():
    waveform, random = noise(50), np.random.default_rng(1)
    results = [Augmentation(reverse_polarity=True)(waveform, random) for _ in range(200)]
    flipped = sum(torch.equal(result, -waveform) for result in results)
    assert all(torch.equal(result.abs(), waveform.abs()) for result in results) and 70 < flipped < 130


@dataclass(frozen=True)
class Tone(Clip):
    def load(self, *, sample_rate: int = RATE) -> torch.Tensor:
        return 0.3 * torch.sin(2 * math.pi * 1_000 / RATE * torch.arange(5 * RATE))


def test_speed_changes_the_pitch_within_its_limits():
    clips = [Tone(label, (label,), label, "test") for label in "AB"]
    dataset = MixtureDataset(clips, n=30, seconds=1.0, augmentation=Augmentation(speed=0.1))
    pitches = [torch.fft.rfft(dataset[index]["target"]).abs().argmax().item() for index in range(30)]
    assert 899 <= min(pitches) < 940 and 1_060 < max(pitches) <= 1_101
    assert len(set(pitches)) > 15
    assert all(dataset[index]["target"].shape == (RATE,) for index in range(30))


# --- pair lists


def write_sounds(folder: Path, **seconds: float) -> None:
    for k, (name, length) in enumerate(seconds.items()):
        soundfile.write(folder / f"{name}.wav", noise(round(length * RATE), seed=k).numpy(), RATE, subtype="FLOAT")


def test_pairs_come_back_as_they_were_written(tmp_path):
    write_sounds(tmp_path, a=1, b=1, c=1)
    captions = ["a dog barking", 'commas, "quotes"', "two\nlines", "ein Hund – bellt", " spaced "]
    pairs = [
        Pair(str(index), caption, tmp_path / "a.wav", tmp_path / f"{'bc'[index % 2]}.wav")
        for index, caption in enumerate(captions)
    ]
    write_pairs(tmp_path / "pairs.csv", pairs)
    assert read_pairs(tmp_path / "pairs.csv", tmp_path) == pairs
    assert (
        (tmp_path / "pairs.csv").read_text().startswith("idx,caption,src_wav,noise_wav\n0,a dog barking,a.wav,b.wav\n")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav", "c.wav", "pairs.csv"]


def test_a_list_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "pairs.csv"
    path.write_text("the old list")

    def fail(*arguments, **keywords):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_pairs(path, [Pair("0", "a", Path("a.wav"), Path("b.wav"))])
    assert path.read_text() == "the old list" and [entry.name for entry in tmp_path.iterdir()] == ["pairs.csv"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("idx,caption,src_wav\n0,dog,a.wav\n", "lacks the column noise_wav"),
        ("idx;caption;src_wav;noise_wav\n0;dog;a.wav;b.wav\n", "lacks the column"),
        ("idx,caption,src_wav,noise_wav\n", "no rows"),
        ("", "lacks the column"),
        ("idx,caption,src_wav,noise_wav\n0,dog,a.wav,b.wav\n1,dog,a.wav,\n", "line 3: no value for noise_wav"),
        ("idx,caption,src_wav,noise_wav\n0, ,a.wav,b.wav\n", "line 2: no value for caption"),
        ("idx,caption,src_wav,noise_wav\n0,dog,a.wav,b.wav\n1,dog,z.wav,b.wav\n", "line 3: src_wav 'z.wav' is not in"),
        ("idx,caption,src_wav,noise_wav\n0,dog,a.wav,z.wav\n", "line 2: noise_wav 'z.wav' is not in"),
    ],
)
def test_a_bad_list_is_refused(tmp_path, content, words):
    write_sounds(tmp_path, a=0.1, b=0.1)
    path = tmp_path / "pairs.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=words) as error:
        read_pairs(path, tmp_path)
    assert str(path) in one_line(error)


def test_a_missing_list_or_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none.csv is not a file") as error:
        read_pairs(tmp_path / "none.csv", tmp_path)
    one_line(error)
    path = tmp_path / "pairs.csv"
    path.write_text("idx,caption,src_wav,noise_wav\n0,dog,a.wav,b.wav\n")
    for folder in (tmp_path / "none", path):
        with pytest.raises(ValueError, match="is not a folder") as error:
            read_pairs(path, folder)
        assert str(folder) in one_line(error)


@pytest.mark.parametrize("noise_seconds", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0])
def test_a_pair_is_mixed_as_audiosep_does(tmp_path, noise_seconds, snr_db):
    write_sounds(tmp_path, a=1.0, b=noise_seconds)
    mixed = load_pair(Pair("0", "x", tmp_path / "a.wav", tmp_path / "b.wav"), snr_db=snr_db)
    # AudioSep, evaluation/evaluate_audiocaps.py, in numpy
    source, background = (load_audio(tmp_path / f"{name}.wav").numpy().astype(np.float64) for name in "ab")
    background = np.concatenate([background, np.zeros(max(len(source) - len(background), 0))])[: len(source)]
    scale = np.sqrt(np.sum(source**2) / (np.sum(background**2) * 10 ** (snr_db / 10)))
    mixture = source + scale * background
    peak = max(np.abs(mixture).max(), 1.0)
    assert np.allclose(mixed.mixture.numpy(), mixture / peak, atol=1e-5)
    assert np.allclose(mixed.target.numpy(), source / peak, atol=1e-6)
    assert snr(mixed.target, mixed.interference).item() == pytest.approx(snr_db, abs=1e-3)


def test_a_pair_is_read_at_the_rate_asked_for(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(44_100).numpy(), 44_100)
    soundfile.write(tmp_path / "b.wav", noise(2, 48_000, seed=1).T.numpy(), 48_000)
    mixed = load_pair(Pair("0", "x", tmp_path / "a.wav", tmp_path / "b.wav"), sample_rate=8_000)
    assert mixed.mixture.shape == (8_000,)


def test_a_silent_file_is_named(tmp_path):
    write_sounds(tmp_path, a=1.0)
    quiet_start = torch.cat([torch.zeros(RATE), noise(RATE)])
    soundfile.write(tmp_path / "late.wav", quiet_start.numpy(), RATE)
    for source, background in (("a", "late"), ("late", "a")):
        pair = Pair("7", "x", tmp_path / f"{source}.wav", tmp_path / f"{background}.wav")
        if source == "late":
            load_pair(pair)  # two seconds of target: its sound is in the second one
            continue
        with pytest.raises(ValueError, match=r"late\.wav \(pair 7\) is silent") as error:
            load_pair(pair)
        one_line(error)
    with pytest.raises(ValueError, match="none.wav does not exist"):
        load_pair(replace(pair, noise_path=tmp_path / "none.wav"))


def test_a_list_may_give_each_row_its_snr(tmp_path):
    write_sounds(tmp_path, a=1.0, b=1.0)
    pairs = [
        Pair(str(k), "x", tmp_path / "a.wav", tmp_path / "b.wav", snr_db=level)
        for k, level in enumerate((-12.5, 0.1 + 0.2, 7.0))
    ]
    write_pairs(tmp_path / "pairs.csv", pairs)
    assert (
        (tmp_path / "pairs.csv").read_text().startswith("idx,caption,src_wav,noise_wav,snr_db\n0,x,a.wav,b.wav,-12.5\n")
    )
    again = read_pairs(tmp_path / "pairs.csv", tmp_path)
    assert again == pairs, "the very same numbers"
    for pair in again:  # the row's own level goes before the argument
        mixed = load_pair(pair, snr_db=99.0)
        assert snr(mixed.target, mixed.interference).item() == pytest.approx(pair.snr_db, abs=1e-3)


def test_a_list_of_three_sources_scales_the_sum(tmp_path):
    write_sounds(tmp_path, a=1.0, b=0.5, c=2.0, d=1.0)
    path = tmp_path / "pairs.csv"
    files = [tmp_path / f"{name}.wav" for name in "abcd"]
    pairs = [
        Pair("0", "x", files[0], files[1], snr_db=3.0, more_noise_paths=(files[2], files[3])),
        Pair("1", "y", files[3], files[1], snr_db=-3.0),
    ]
    write_pairs(path, pairs)
    assert path.read_text().splitlines()[0] == "idx,caption,src_wav,noise_wav,noise_wav_2,noise_wav_3,snr_db"
    assert path.read_text().splitlines()[2] == "1,y,d.wav,b.wav,,,-3.0"
    again = read_pairs(path, tmp_path)
    assert again == pairs
    mixed = load_pair(again[0])
    source, *noises = (load_audio(file).numpy().astype(np.float64) for file in files)
    total = sum(np.pad(noise_, (0, max(0, RATE - len(noise_))))[:RATE] for noise_ in noises)
    total *= math.sqrt((source**2).sum() / (total**2).sum() / 10**0.3)
    mixture = source + total
    assert np.allclose(mixed.mixture.numpy(), mixture / max(1, np.abs(mixture).max()), atol=1e-5)


def test_pairs_with_and_without_an_snr_make_no_list(tmp_path):
    pairs = [Pair("0", "x", Path("a.wav"), Path("b.wav"), snr_db=1.0), Pair("1", "x", Path("a.wav"), Path("b.wav"))]
    with pytest.raises(ValueError, match="1 of 2 pairs have an snr_db") as error:
        write_pairs(tmp_path / "pairs.csv", pairs)
    one_line(error)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["", "loud", "nan", "inf"])
def test_an_snr_that_is_no_number_is_refused(tmp_path, value):
    write_sounds(tmp_path, a=0.1, b=0.1)
    path = tmp_path / "pairs.csv"
    path.write_text(f"idx,caption,src_wav,noise_wav,snr_db\n0,x,a.wav,b.wav,1\n1,x,a.wav,b.wav,{value}\n")
    with pytest.raises(ValueError, match=f"line 3: snr_db '{value}' is not a number of decibels") as error:
        read_pairs(path, tmp_path)
    assert str(path) in one_line(error)


# --- files that do not lie where the list says


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_list(folder: Path, *rows: tuple[str, str]) -> Path:
    path = folder / "list.csv"
    lines = [f"{k},dog,{source},{background}" for k, (source, background) in enumerate(rows)]
    path.write_text("\n".join(["idx,caption,src_wav,noise_wav", *lines]) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".wav", ".ogg", ".flac", ".mp3", ".WAV"])
@pytest.mark.parametrize("listed", ["", "audio/", "esc50/audio/"])
@pytest.mark.parametrize("on_disk", ["", "audio/", "deep/audio/"])
def test_a_file_is_found_by_stem_in_any_subfolder(tmp_path, suffix, listed, on_disk):
    folder = tmp_path / "corpus"
    touch(folder, f"{on_disk}1-100032-A-0{suffix}", f"{on_disk}2-1-A-1{suffix}", f"{on_disk}notes.txt")
    path = write_list(tmp_path, (f"{listed}1-100032-A-0.wav", f"{listed}2-1-A-1.wav"))
    pair = read_pairs(path, folder)[0]
    assert pair.target_path == folder / f"{on_disk}1-100032-A-0{suffix}"
    assert pair.noise_path == folder / f"{on_disk}2-1-A-1{suffix}"
    words = stem_matches(path, [pair])
    if suffix == ".wav":
        assert words is None, "the name is the same, wherever the file lies"
    else:
        assert words == f"2 of 2 files matched by stem (.wav in the list, {suffix} on disk)"


def test_matches_by_stem_are_counted_over_files_not_rows(tmp_path):
    folder = tmp_path / "corpus"
    touch(folder, "a.ogg", "b.wav", "c.flac")
    path = write_list(tmp_path, ("a.wav", "b.wav"), ("a.wav", "c.wav"), ("c.wav", "b.wav"))
    words = stem_matches(path, read_pairs(path, folder))
    assert words == "2 of 3 files matched by stem (.wav in the list, .flac, .ogg on disk)"


def test_the_name_as_it_is_listed_goes_first(tmp_path):
    folder = tmp_path / "corpus"
    touch(folder, "a.wav", "a.ogg", "sub/a.wav", "sub/b.wav", "other/b.ogg")
    pair = read_pairs(write_list(tmp_path, ("a.wav", "b.wav")), folder)[0]
    assert pair.target_path == folder / "a.wav" and pair.noise_path == folder / "sub" / "b.wav"
    pair = read_pairs(write_list(tmp_path, ("sub/a.wav", "other/b.wav")), folder)[0]
    assert pair.target_path == folder / "sub" / "a.wav"
    assert pair.noise_path == folder / "sub" / "b.wav", "a full name goes before a stem"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("a.ogg", "a.flac"), "'a.wav' may mean a.flac or a.ogg"),
        (("x/a.wav", "y/a.wav"), "'a.wav' may mean x/a.wav or y/a.wav"),
        (("x/a.ogg", "y/a.mp3"), "'a.wav' may mean x/a.ogg or y/a.mp3"),
    ],
)
def test_a_name_that_several_files_fit_is_refused(tmp_path, files, words):
    folder = tmp_path / "corpus"
    touch(folder, "b.wav", *files)
    path = write_list(tmp_path, ("b.wav", "b.wav"), ("b.wav", "a.wav"))
    with pytest.raises(ValueError, match=words) as error:
        read_pairs(path, folder)
    assert f"{path}, line 3: noise_wav" in one_line(error) and "keep one of them" in str(error.value)


def test_a_dot_in_a_name_is_not_a_suffix(tmp_path):
    folder = tmp_path / "corpus"
    touch(folder, "4.5-bells.ogg", "4.ogg", "._4.wav")
    pair = read_pairs(write_list(tmp_path, ("4.5-bells", "4.wav")), folder)[0]
    assert [pair.target_path.name, pair.noise_path.name] == ["4.5-bells.ogg", "4.ogg"]


def test_missing_files_are_counted(tmp_path):
    folder = tmp_path / "corpus"
    touch(folder, "a.ogg")
    path = write_list(tmp_path, ("a.wav", "x.wav"), ("y.wav", "a.wav"), ("z.wav", "x.wav"))
    with pytest.raises(ValueError, match="line 2: noise_wav 'x.wav' is not in .*, and 2 more of the 4 files") as error:
        read_pairs(path, folder)
    one_line(error)


# the head of AudioSep's evaluation/metadata/esc50_eval.csv, and two rows of ESC-10 classes
AUDIOSEP_ESC50 = """idx,caption,src_wav,noise_wav
0,dog,1-100032-A-0.wav,5-207836-D-29.wav
1,chirping birds,1-100038-A-14.wav,1-30226-A-0.wav
157,dog,1-30226-A-0.wav,3-253081-A-2.wav
54,crackling fire,1-17150-A-12.wav,1-110389-A-0.wav
"""


def test_audioseps_own_rows_are_taken_as_they_are(tmp_path):
    folder = tmp_path / "ESC-50" / "audio"
    names = {name for line in AUDIOSEP_ESC50.splitlines()[1:] for name in line.split(",")[2:]}
    touch(folder, *(f"{Path(name).stem}.ogg" for name in names))
    path = tmp_path / "esc50_eval.csv"
    path.write_text(AUDIOSEP_ESC50)
    for root in (folder, folder.parent):
        pairs = read_pairs(path, root)
        assert [pair.caption for pair in pairs] == ["dog", "chirping birds", "dog", "crackling fire"]
        assert pairs[1].noise_path == folder / "1-30226-A-0.ogg" and pairs[0].snr_db is None
        assert stem_matches(path, pairs) == "7 of 7 files matched by stem (.wav in the list, .ogg on disk)"


# --- loudness


def events(n_samples: int = 4 * RATE, *, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    """Noise with pauses and a slow swell: what the loudness gate is for."""
    swell = torch.linspace(0.01, 1, n_samples)
    swell[n_samples // 3 : n_samples // 2] = 0
    return noise(n_samples, seed=seed, level=level) * swell


def measured(waveform: torch.Tensor, rate: int = RATE) -> float:
    import pyloudnorm

    return pyloudnorm.Meter(rate).integrated_loudness(waveform.double().numpy())


@pytest.mark.parametrize("level", [1e-5, 0.003, 0.1, 20.0])
def test_each_part_has_its_loudness(level):
    wanted = [-35.0, -28.5, -25.0]
    parts = [events(seed=k, level=level * (k + 1)) for k in range(3)]
    mixed = mix_at_lufs(parts[0], parts[1:], lufs=wanted)
    assert mixed.mixture.abs().max() < 1
    for part, lufs in zip((mixed.target, *mixed.interferences), wanted, strict=True):
        assert measured(part) == pytest.approx(lufs, abs=0.01)
    assert torch.equal(mixed.mixture, mixed.target + mixed.interference)
    assert torch.equal(mixed.interference, mixed.interferences[0] + mixed.interferences[1])


def test_loud_parts_come_down_together():
    parts = [events(seed=k) for k in range(2)]
    mixed = mix_at_lufs(parts[0], parts[1:], lufs=[-3.0, -9.0])
    assert mixed.mixture.abs().max().item() == pytest.approx(1.0, abs=1e-6)
    levels = [measured(part) for part in (mixed.target, *mixed.interferences)]
    assert levels[0] < -3.5 and levels[0] - levels[1] == pytest.approx(6.0, abs=0.01)


def test_equal_loudness_is_a_range_of_one_point():
    target, interference = events(seed=1), events(seed=2)
    ours = mix_at_lufs(target, [interference], lufs=[-23.0, -23.0])
    theirs = mix_at_equal_loudness(target, interference)
    assert torch.allclose(ours.mixture, theirs.mixture, atol=1e-4)


def test_loudness_is_drawn_uniformly_from_the_range():
    random = np.random.default_rng(3)
    target, interference = noise(RATE, seed=1), noise(RATE, seed=2)
    levels = []
    for _ in range(100):
        mixed = mix_in_lufs_range(target, [interference], lufs=(-35.0, -25.0), random=random)
        levels += [loudness(part, sample_rate=RATE) for part in (mixed.target, *mixed.interferences)]
    assert kstest(levels, "uniform", args=(-35, 10)).pvalue > 0.01
    assert abs(np.corrcoef(levels[::2], levels[1::2])[0, 1]) < 0.3, "each part on its own"


def test_the_generator_decides_the_loudness():
    parts = noise(RATE, seed=1), [noise(RATE, seed=2)]
    a, b, c = (mix_in_lufs_range(*parts, lufs=(-35, -25), random=np.random.default_rng(k)).mixture for k in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lufs": [-30.0]}, "got 1 for 2 parts"),
        ({"interferences": [], "lufs": [-30.0]}, "got 1 for 1 parts"),
        ({"lufs": [-30.0, 3.0]}, "between -70 and 0 LUFS, got 3.0 for interference 1"),
        ({"lufs": [-71.0, -30.0]}, "got -71.0 for the target"),
        ({"lufs": [math.nan, -30.0]}, "got nan for the target"),
        ({"target": torch.zeros(RATE)}, "the target has no loudness"),
        ({"interferences": [torch.full((RATE,), 0.5)]}, None),  # a step is heard
        ({"interferences": [noise(RATE - 1)]}, "use fit_length"),
        ({"target": noise(2, RATE), "interferences": [noise(2, RATE)]}, "use fit_length"),
    ],
)
def test_loudness_that_cannot_be_reached_is_refused(arguments, words):
    arguments = {"target": noise(RATE), "interferences": [noise(RATE, seed=1)], "lufs": [-30.0, -30.0]} | arguments
    target, interferences = arguments.pop("target"), arguments.pop("interferences")
    if words is None:
        mix_at_lufs(target, interferences, **arguments)
        return
    with pytest.raises(ValueError, match=words) as error:
        mix_at_lufs(target, interferences, **arguments)
    one_line(error)
    with pytest.raises(ValueError, match="lowest, highest"):
        mix_in_lufs_range(noise(RATE), [noise(RATE)], lufs=(-25.0, -35.0), random=np.random.default_rng(0))


# --- three and more sources


@pytest.mark.parametrize("n_interferences", [1, 2, 5])
@pytest.mark.parametrize("snr_db", [-15.0, 0.0, 8.0])
def test_the_snr_of_many_is_that_against_their_sum(n_interferences, snr_db):
    target, parts = noise(4_000), [noise(4_000, seed=k + 1, level=3.0**k) for k in range(n_interferences)]
    mixed = mix_many(target, parts, snr_db=snr_db)
    assert snr(mixed.target, mixed.interference).item() == pytest.approx(snr_db, abs=1e-4)
    # which is the SDR of the unprocessed mixture
    assert snr(mixed.target, mixed.mixture - mixed.target).item() == pytest.approx(snr_db, abs=1e-3)
    energies = torch.stack(mixed.interferences).double().square().sum(-1)
    assert torch.allclose(energies, energies.mean(), rtol=1e-5), "equally loud unless told otherwise"
    total = mixed.interferences[0]
    for part in mixed.interferences[1:]:
        total = total + part
    assert torch.equal(mixed.interference, total) and torch.equal(mixed.mixture, mixed.target + total)


def test_one_interference_is_mix_at_snr():
    target, interference = noise(3, 2_000), noise(3, 2_000, seed=1)
    levels = torch.tensor([-5.0, 0.0, 12.0])
    many, one = mix_many(target, [interference], snr_db=levels), mix_at_snr(target, interference, snr_db=levels)
    for a, b in zip(many[:3], one, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_levels_within_the_sum():
    target, parts = noise(4_000), [noise(4_000, seed=k + 1) for k in range(3)]
    mixed = mix_many(target, parts, snr_db=2.0, levels_db=[0.0, -6.0, 4.0])
    first = mixed.interferences[0]
    assert [snr(part, first).item() for part in mixed.interferences] == pytest.approx([0.0, -6.0, 4.0], abs=1e-4)
    same_ = mix_many(target, parts, snr_db=2.0, levels_db=[10.0, 4.0, 14.0])
    assert torch.allclose(mixed.mixture, same_.mixture, atol=1e-6), "only differences matter"


def test_many_loud_sources_do_not_clip():
    mixed = mix_many(noise(4_000, level=1.0), [noise(4_000, seed=k, level=1.0) for k in (1, 2)], snr_db=-3.0)
    assert mixed.mixture.abs().max().item() == pytest.approx(1.0, abs=1e-6)
    assert snr(mixed.target, mixed.interference).item() == pytest.approx(-3.0, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"interferences": []}, "at least one interference, got none"),
        ({"interferences": [noise(90)]}, r"interference 1 \(90,\) differ in shape: use fit_length"),
        ({"interferences": [noise(100), torch.zeros(100)]}, "interference 2 is silent"),
        ({"interferences": [noise(100), -noise(100)]}, "cancel each other"),
        ({"target": torch.zeros(100)}, "the target is silent"),
        ({"levels_db": [0.0, 1.0]}, "levels_db must be one number for each interference, got 2: give 1"),
        ({"levels_db": [math.inf]}, "no finite gain gives interference 1"),
        ({"levels_db": [math.nan]}, "no finite gain gives interference 1"),
        ({"levels_db": [-math.inf]}, "no finite gain gives interference 1"),
        ({"snr_db": math.inf}, "no finite gain gives an SNR of inf"),
        ({"snr_db": -math.inf}, "no finite gain gives an SNR of -inf"),
    ],
)
def test_impossible_mixtures_of_many_are_refused(arguments, words):
    arguments = {"target": noise(100), "interferences": [noise(100, seed=1)], "snr_db": 0.0} | arguments
    with pytest.raises(ValueError, match=words) as error:
        mix_many(arguments.pop("target"), arguments.pop("interferences"), **arguments)
    one_line(error)
