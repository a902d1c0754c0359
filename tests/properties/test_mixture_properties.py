"""What holds for every mixture, not only for the examples of the unit tests."""

import math
import tempfile
from pathlib import Path

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lasslab.data.crops import equalise
from lasslab.data.mixtures import cosine_similarity, mix_at_lufs, mix_at_snr, mix_many
from lasslab.data.pairs import Pair, read_pairs, stem_matches, write_pairs
from lasslab.signal.audio import loudness

quickly = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**31 - 1)
levels = st.floats(1e-4, 50.0)
decibels = st.floats(-40.0, 40.0)


def noise(shape: tuple[int, ...], seed: int, level: float = 1.0) -> torch.Tensor:
    return level * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def snr(target: torch.Tensor, interference: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(target.double().square().sum(-1) / interference.double().square().sum(-1))


shapes = st.lists(st.integers(1, 3), max_size=2).flatmap(
    lambda leading: st.integers(8, 300).map(lambda length: (*leading, length))
)


@quickly
@given(shapes, seeds, levels, levels, decibels)
def test_every_mixture_has_its_snr_and_does_not_clip(shape, seed, target_level, interference_level, snr_db):
    target, interference = noise(shape, seed, target_level), noise(shape, seed + 1, interference_level)
    mixed = mix_at_snr(target, interference, snr_db=snr_db)
    assert mixed.mixture.shape == shape
    assert torch.equal(mixed.mixture, mixed.target + mixed.interference)
    assert mixed.mixture.abs().max() <= 1 + 1e-6
    assert (snr(mixed.target, mixed.interference) - snr_db).abs().max() < 0.01


@quickly
@given(shapes, seeds, levels, decibels)
def test_only_the_level_of_the_parts_changes(shape, seed, level, snr_db):
    target, interference = noise(shape, seed), noise(shape, seed + 1)
    mixed = mix_at_snr(target, interference, snr_db=snr_db)
    for before, after in ((target, mixed.target), (interference, mixed.interference)):
        gain = (before * after).sum(-1, keepdim=True) / before.square().sum(-1, keepdim=True)
        assert torch.allclose(gain * before, after, atol=1e-5) and (gain > 0).all()
    # the level that the interference came with does not matter
    other = mix_at_snr(target, level * interference, snr_db=snr_db)
    assert torch.allclose(mixed.mixture, other.mixture, atol=1e-5)


@quickly
@given(seeds, st.lists(decibels, min_size=2, max_size=5))
def test_a_batch_is_its_rows(seed, values):
    target, interference = noise((len(values), 100), seed), noise((len(values), 100), seed + 1)
    mixed = mix_at_snr(target, interference, snr_db=torch.tensor(values))
    for row, value in enumerate(values):
        alone = mix_at_snr(target[row], interference[row], snr_db=value)
        assert torch.allclose(mixed.mixture[row], alone.mixture, atol=1e-6)


@quickly
@given(seeds, st.integers(1, 20), st.integers(1, 20), st.floats(1e-3, 1e3))
def test_the_cosine_is_a_cosine(seed, n_bins, n_frames, gain):
    a, b = noise((3, n_bins, n_frames), seed).abs(), noise((3, n_bins, n_frames), seed + 1).abs()
    similarity = cosine_similarity(a, b)
    assert ((similarity >= 0) & (similarity <= 1 + 1e-5)).all()
    assert torch.allclose(similarity, cosine_similarity(b, a))
    assert torch.allclose(similarity, cosine_similarity(gain * a, b), atol=1e-5)
    assert torch.allclose(cosine_similarity(a, gain * a), torch.ones(3), atol=1e-5)
    # it does not know where the bins are
    order = torch.randperm(n_frames, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(similarity, cosine_similarity(a[..., order], b[..., order]), atol=1e-5)


@quickly
@given(seeds, st.lists(st.floats(-20.0, 20.0), min_size=2, max_size=7), st.integers(2, 999))
def test_two_equalisers_in_a_row_are_one(seed, gains, n_samples):
    waveform = noise((n_samples,), seed)
    once = equalise(waveform, gains)
    assert once.shape == waveform.shape
    undone = equalise(once, [-gain for gain in gains])
    assert torch.allclose(undone, waveform, atol=1e-3)
    # a gain of all bands is a gain
    louder = equalise(waveform, [gain + 6.0 for gain in gains])
    assert torch.allclose(louder, 10 ** (6 / 20) * once, rtol=1e-3, atol=1e-3)


# what a person can type: no control characters but line breaks, which a quoted field may hold
captions = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.just("\n"), min_size=1, max_size=40)


@quickly
@given(st.lists(captions, min_size=1, max_size=5))
def test_any_caption_survives_a_pair_list(texts):
    assume(all(text.strip() for text in texts))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("a.wav", "b, c.wav"):
            (folder / file).touch()
        pairs = [Pair(str(k), text, folder / "a.wav", folder / "b, c.wav") for k, text in enumerate(texts)]
        write_pairs(folder / "list.csv", pairs)
        assert read_pairs(folder / "list.csv", folder) == pairs


@quickly
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_an_snr_is_reached_or_refused(snr_db):
    target, interference = noise((50,), 1), noise((50,), 2)
    try:
        mixed = mix_at_snr(target, interference, snr_db=snr_db)
    except ValueError:
        assert not (math.isfinite(snr_db) and abs(snr_db) < 300)
        return
    assert mixed.mixture.isfinite().all()


@quickly
@given(shapes, seeds, st.integers(1, 5), decibels, st.data())
def test_a_mixture_of_many_is_the_sum_of_its_parts(shape, seed, n_interferences, snr_db, data):
    levels = data.draw(st.lists(st.floats(-20.0, 20.0), min_size=n_interferences, max_size=n_interferences))
    gains = data.draw(st.lists(st.floats(1e-3, 50.0), min_size=n_interferences, max_size=n_interferences))
    target = noise(shape, seed)
    parts = [noise(shape, seed + 1 + k, gain) for k, gain in enumerate(gains)]
    mixed = mix_many(target, parts, snr_db=snr_db, levels_db=levels)
    assert torch.equal(mixed.mixture, mixed.target + mixed.interference)
    assert torch.equal(mixed.interference, sum(mixed.interferences[1:], start=mixed.interferences[0]))
    assert mixed.mixture.abs().max() <= 1 + 1e-5
    assert (snr(mixed.target, mixed.interference) - snr_db).abs().max() < 0.01
    for part, level in zip(mixed.interferences, levels, strict=True):
        assert (snr(part, mixed.interferences[0]) - (level - levels[0])).abs().max() < 0.01
    for before, after in zip((target, *parts), (mixed.target, *mixed.interferences), strict=True):  # a gain and no more
        gain = (before * after).sum(-1, keepdim=True) / before.square().sum(-1, keepdim=True)
        assert torch.allclose(gain * before, after, atol=1e-5) and (gain > 0).all()


@settings(max_examples=25, deadline=None)
@given(
    seeds, st.floats(1e-5, 30.0), st.lists(st.floats(-60.0, -15.0), min_size=2, max_size=4), st.integers(3_000, 20_000)
)
def test_every_part_reaches_its_loudness(seed, level, wanted, n_samples):
    parts = [noise((n_samples,), seed + k, level * (k + 1)) for k in range(len(wanted))]
    mixed = mix_at_lufs(parts[0], parts[1:], lufs=wanted)
    found = [loudness(part, sample_rate=16_000) for part in (mixed.target, *mixed.interferences)]
    lowered = found[0] - wanted[0]  # all by the same amount, where the mixture would clip
    assert lowered < 0.01 and (lowered > -0.01 or mixed.mixture.abs().max() > 0.999)
    assert all(abs(value - lowered - lufs) < 0.02 for value, lufs in zip(found, wanted, strict=True))
    assert torch.equal(mixed.mixture, mixed.target + mixed.interference)


names = st.text("abc-_0123 é.", min_size=1, max_size=8).filter(lambda name: name.strip(" .") == name)


@quickly
@given(st.lists(names, min_size=1, max_size=5, unique_by=str.lower), st.sampled_from([".ogg", ".flac", ".mp3"]))
def test_any_name_is_found_under_another_suffix(stems, suffix):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sub").mkdir()
        for stem in stems:
            (folder / "sub" / f"{stem}{suffix}").touch()
        pairs = [Pair(str(k), "x", Path(f"{stem}.wav"), Path(f"{stems[0]}.wav")) for k, stem in enumerate(stems)]
        write_pairs(folder / "list.csv", pairs)
        found = read_pairs(folder / "list.csv", folder)
        assert [pair.target_path.name for pair in found] == [f"{stem}{suffix}" for stem in stems]
        assert stem_matches(folder / "list.csv", found).startswith(f"{len(stems)} of {len(stems)} files")


@quickly
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6))
def test_any_level_survives_a_pair_list(levels):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.wav").touch()
        pairs = [Pair(str(k), "x", folder / "a.wav", folder / "a.wav", snr_db=level) for k, level in enumerate(levels)]
        write_pairs(folder / "list.csv", pairs)
        assert read_pairs(folder / "list.csv", folder) == pairs
