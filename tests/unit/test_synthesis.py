"""Procedural sounds: determinism, range, captions, known pitches and rates, and classes that differ."""

import hashlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import find_peaks

from lasslab.data import synthesis_blocks as blocks
from lasslab.data.synthesis import EVENT_CLASSES, synthesise
from lasslab.data.synthesis_events import ALARM_HZ

ESC_10 = "dog rooster rain sea_waves crying_baby clock_tick sneezing helicopter chainsaw crackling_fire".split()
RATE = 16_000
LABELS = sorted(EVENT_CLASSES)


def dominant_frequency(sound, rate=RATE):
    spectrum = np.abs(np.fft.rfft(np.asarray(sound) * np.hanning(len(sound))))
    return spectrum.argmax() * rate / len(sound)


def centroid(label, seed):
    power = np.abs(np.fft.rfft(synthesise(label, seed=seed).numpy())) ** 2
    return (power * np.linspace(0.0, RATE / 2.0, len(power))).sum() / power.sum()


def envelope(sound, *, seconds, rate=RATE):
    width = round(seconds * rate)
    return np.convolve(np.abs(np.asarray(sound)), np.ones(width) / width, "same")


# --- the promise of synthesise -----------------------------------------------------------------------------


@pytest.mark.parametrize("label", LABELS)
def test_a_clip_is_fixed_by_its_label_and_seed_and_another_seed_is_another_recording(label):
    first, again, other = (synthesise(label, seed=seed, seconds=2.0) for seed in (3, 3, 4))
    assert first.dtype == torch.float32 and first.shape == (32_000,)
    assert torch.equal(first, again)
    likeness = torch.nn.functional.cosine_similarity(first, other, dim=0).abs()
    assert likeness < 0.5
    assert abs(first.abs().max() - other.abs().max()) > 1e-4


def test_a_fresh_interpreter_makes_the_same_clips_and_loads_no_plotting():
    script = (
        "import hashlib, sys; from lasslab.data.synthesis import synthesise;"
        "assert 'matplotlib' not in sys.modules;"
        "print(hashlib.sha256(synthesise('dog', seed=7).numpy().tobytes()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(synthesise("dog", seed=7).numpy().tobytes()).hexdigest()


@settings(max_examples=40, deadline=None)
@given(
    label=st.sampled_from(LABELS),
    seed=st.integers(0, 2**40),
    seconds=st.floats(0.1, 15.0),
    sample_rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 32_000, 48_000]),
)
def test_every_length_and_rate_gives_a_finite_centred_faded_clip(label, seed, seconds, sample_rate):
    sound = synthesise(label, seed=seed, seconds=seconds, sample_rate=sample_rate)
    assert sound.shape == (round(seconds * sample_rate),)
    assert torch.isfinite(sound).all()
    assert 0.05 < sound.abs().max() <= 1.0
    assert sound.double().mean().abs() < 1e-5
    assert sound[0].abs() < 1e-6 and sound[-1].abs() < 1e-6


@pytest.mark.parametrize("label", LABELS)
def test_the_event_itself_falls_inside_half_a_second(label):
    for seed in range(6):
        make = EVENT_CLASSES[label].synthesise
        short, long = (make(np.random.default_rng(seed), n, 8_000) for n in (4_000, 40_000))
        assert np.isfinite(short).all() and short.shape == (4_000,)
        assert np.abs(short).max() > 0.03 * np.abs(long).max()
        assert (np.abs(short) > 0.1 * np.abs(short).max()).sum() >= 8  # not a single stray sample
        assert np.abs(make(np.random.default_rng(seed), 800, 8_000)).max() > 0.0  # nor is a tenth silent


def test_wrong_inputs_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match="'dogs'.*did you mean dog"):
        synthesise("dogs", seed=0)
    with pytest.raises(ValueError, match="chainsaw"):
        synthesise("chain_saw", seed=0)
    with pytest.raises(ValueError, match="non-negative"):
        synthesise("dog", seed=-1)
    with pytest.raises(ValueError, match="whole seed"):
        synthesise("dog", seed=0.5)
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds"):
            synthesise("dog", seed=0, seconds=seconds)
    with pytest.raises(ValueError, match="sample rate"):
        synthesise("dog", seed=0, sample_rate=4_000)


# --- captions ----------------------------------------------------------------------------------------------


def test_there_are_many_classes_and_the_ten_of_esc_10_are_among_them():
    assert len(EVENT_CLASSES) >= 36
    assert set(ESC_10) <= set(EVENT_CLASSES)
    assert all(name == event.name for name, event in EVENT_CLASSES.items())


def test_every_class_has_captions_of_its_own_in_plain_lower_case():
    owner = {}
    for name, event in EVENT_CLASSES.items():
        assert len(event.captions) >= 5
        for caption in event.captions:
            assert re.fullmatch(r"[a-z][a-z' ,-]*[a-z]", caption), caption
            words = re.sub(r"[^a-z ]", " ", caption).split()
            key = " ".join(word for word in words if word not in ("a", "an", "the"))
            assert key not in owner, f"{caption!r} of {name} repeats one of {owner[key]}"
            owner[key] = name


def test_captions_of_a_class_are_really_different_wordings():
    for name, event in EVENT_CLASSES.items():
        first_words = {caption.split()[0] + " " + caption.split()[-1] for caption in event.captions}
        assert len(first_words) >= 5, name
        bags = [frozenset(caption.split()) - {"a", "an", "the", "is", "in", "of"} for caption in event.captions]
        for i, one in enumerate(bags):
            for two in bags[:i]:
                assert len(one & two) / len(one | two) < 0.7, (name, sorted(one), sorted(two))


# --- sounds whose pitch or rate is known -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_the_alarm_beeps_in_its_declared_range(seed):
    assert ALARM_HZ[0] <= dominant_frequency(synthesise("clock_alarm", seed=seed)) <= ALARM_HZ[1]


@pytest.mark.parametrize("seed", range(8))
def test_a_clock_ticks_at_a_steady_rate(seed):
    level = envelope(synthesise("clock_tick", seed=seed), seconds=0.008)
    ticks, _ = find_peaks(level, height=0.2 * level.max(), distance=round(0.15 * RATE))
    gaps = np.diff(ticks) / RATE
    assert len(gaps) >= 3
    assert 0.19 < gaps.mean() < 1.05
    assert np.abs(gaps - gaps.mean()).max() < 0.02


@pytest.mark.parametrize("seed", range(6))
def test_a_rotor_beats_nine_to_twenty_times_a_second(seed):
    level = envelope(synthesise("helicopter", seed=seed), seconds=0.01)
    spectrum = np.abs(np.fft.rfft((level - level.mean()) * np.hanning(len(level))))
    rates = np.arange(len(spectrum)) * RATE / len(level)
    searched = (rates > 5.0) & (rates < 60.0)
    assert 8.5 < rates[searched][spectrum[searched].argmax()] < 21.0


def test_spectra_are_ordered_as_in_the_world():
    mean = {label: np.mean([centroid(label, seed) for seed in range(6)]) for label in
            ("thunderstorm", "wind", "dog", "whistle", "chirping_birds", "crickets", "cow", "cat")}  # fmt: skip
    assert mean["thunderstorm"] < mean["dog"] < mean["whistle"] < mean["chirping_birds"] < mean["crickets"]
    assert mean["wind"] < mean["whistle"]
    assert mean["cow"] < mean["cat"]


def test_thunder_dies_away_and_rain_does_not():
    for seed in range(5):
        thunder, rain = (synthesise(label, seed=seed).numpy() for label in ("thunderstorm", "rain"))
        early, late = slice(0, 2 * RATE), slice(4 * RATE, 5 * RATE)
        assert np.std(thunder[early]) > 2.0 * np.std(thunder[late])
        assert 0.6 < np.std(rain[early]) / np.std(rain[late]) < 1.7


# --- classes differ ----------------------------------------------------------------------------------------


def log_mel_statistics(sound):
    """Mean and deviation over time of a 32-band log-mel spectrogram below the clip's maximum, `(64,)`."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, 1024)[::512] * np.hanning(1024)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = 700.0 * (10.0 ** (np.linspace(0.0, 2840.0, 34) / 2595.0) - 1.0)  # HTK mel, 0 to 8 kHz
    bins = np.arange(513) * RATE / 1024
    bands = np.stack([np.interp(bins, edges[k : k + 3], [0.0, 1.0, 0.0]) for k in range(32)])
    mel = 10.0 * np.log10(power @ bands.T + 1e-9)
    mel = np.maximum(mel - mel.max(), -60.0)
    return np.concatenate([mel.mean(axis=0), mel.std(axis=0)])


def test_held_out_seeds_lie_nearest_to_their_own_class():
    seeds, held_out = range(7), range(500, 502)
    features = {
        label: np.stack(
            [log_mel_statistics(synthesise(label, seed=s, seconds=2.5).numpy()) for s in (*seeds, *held_out)]
        )
        for label in LABELS
    }
    known = np.concatenate([features[label][: len(seeds)] for label in LABELS])
    middle, scale = known.mean(axis=0), known.std(axis=0)
    centres = np.stack([((features[label][: len(seeds)] - middle) / scale).mean(axis=0) for label in LABELS])
    correct = 0
    for index, label in enumerate(LABELS):
        unseen = (features[label][len(seeds) :] - middle) / scale
        distance = np.linalg.norm(unseen[:, None] - centres[None], axis=-1)
        correct += (distance.argmin(axis=1) == index).sum()
    assert correct / (len(LABELS) * len(held_out)) > 0.65  # chance is 1 in 36


# --- building blocks ---------------------------------------------------------------------------------------


def test_a_harmonic_sound_has_its_partials_and_nothing_else():
    sound = blocks.harmonics(500.0, RATE, RATE, levels=np.array([1.0, 0.0, 0.5]))
    amplitude = np.abs(np.fft.rfft(sound)) * 2.0 / RATE
    assert amplitude[500] == pytest.approx(1.0, abs=0.01)
    assert amplitude[1500] == pytest.approx(0.5, abs=0.01)
    amplitude[[500, 1500]] = 0.0
    assert amplitude.max() < 1e-3


def test_partials_above_the_nyquist_frequency_are_left_out_rather_than_folded():
    sound = blocks.harmonics(3000.0, RATE, RATE, levels=np.ones(20))
    amplitude = np.abs(np.fft.rfft(sound)) * 2.0 / RATE
    assert set(np.flatnonzero(amplitude > 0.01)) == {3000, 6000}


@pytest.mark.parametrize("centre", [300.0, 1200.0, 5000.0])
def test_a_resonator_passes_its_centre_with_the_stated_gain(centre):
    t = np.arange(RATE) / RATE
    formants = [(centre, 100.0, 0.7)]
    at_centre = blocks.resonate(np.sin(2.0 * np.pi * centre * t), RATE, formants)[RATE // 2 :]
    aside = blocks.resonate(np.sin(2.0 * np.pi * (centre + 250.0) * t), RATE, formants)[RATE // 2 :]
    assert np.abs(at_centre).max() == pytest.approx(0.7, rel=0.02)
    assert np.abs(aside).max() < 0.25


def test_a_mode_rings_at_its_frequency_and_decays_at_its_rate():
    ring = blocks.modes(RATE, RATE, frequencies=[440.0, 9000.0], decays=[0.2, 1.0], levels=[1.0, 1.0])
    assert dominant_frequency(ring) == pytest.approx(440.0, abs=2.0)
    assert np.abs(ring[RATE // 2 :]).max() / np.abs(ring).max() == pytest.approx(np.exp(-2.5), rel=0.03)


@pytest.mark.parametrize("slope", [-6.0, 0.0, 3.0])
def test_noise_is_tilted_by_its_slope_per_octave(slope):
    sound = blocks.noise(np.random.default_rng(0), 8 * RATE, RATE, low=40.0, slope=slope)
    power = np.abs(np.fft.rfft(sound)) ** 2
    octaves = [power[8 * f : 16 * f].mean() for f in (500, 1000, 2000)]
    assert 10.0 * np.log10(octaves[1] / octaves[0]) == pytest.approx(slope, abs=0.5)
    assert 10.0 * np.log10(octaves[2] / octaves[1]) == pytest.approx(slope, abs=0.5)
    assert sound.std() == pytest.approx(1.0, abs=1e-6)


def test_placing_adds_sounds_and_cuts_them_at_the_end():
    placed = blocks.place(6, [0, 1, 4], [np.ones(2), 10.0 * np.ones(2), 100.0 * np.ones(9)])
    assert placed.tolist() == [1.0, 11.0, 10.0, 0.0, 100.0, 100.0]


def test_sprinkled_grains_are_their_sum():
    positions = np.array([2, 5, 5, 30])
    out = blocks.sprinkle(np.random.default_rng(0), 40, positions, [np.array([1.0, 0.5])], spread=0.0)
    expected = blocks.place(40, positions, [np.array([1.0, 0.5])] * 4)
    assert np.allclose(out, expected)
