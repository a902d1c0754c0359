"""Metrics against analytic answers, torchmetrics, and the properties they are chosen for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lasslab.evaluation.metrics import (
    best_gain,
    bootstrap_interval,
    sdr,
    sdr_improvement,
    si_sdr,
    si_sdr_improvement,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthogonal_pair(n: int = 1000) -> tuple[torch.Tensor, torch.Tensor]:
    """Two signals of equal energy at right angles: a 0 dB mixture whose every score is known."""
    target, other = torch.zeros(2 * n), torch.zeros(2 * n)
    target[:n], other[n:] = noise(n), noise(n)
    return target, other


@pytest.mark.parametrize("snr_db", [-15.0, 0.0, 10.0])
def test_sdr_of_orthogonal_noise_is_the_snr(snr_db):
    target, other = orthogonal_pair()
    estimate = target.double() + other.double() * 10 ** (-snr_db / 20)
    assert sdr(estimate=estimate, target=target.double()).item() == pytest.approx(snr_db, abs=1e-9)
    assert si_sdr(estimate=estimate, target=target.double()).item() == pytest.approx(snr_db, abs=1e-9)


def test_the_floors_at_0_db():
    target, other = orthogonal_pair()
    mixture = target + other
    scores = {"target": target, "mixture": mixture}
    assert sdr(estimate=torch.zeros_like(target), target=target).item() == 0.0
    assert sdr_improvement(estimate=mixture / 2, **scores).item() == pytest.approx(10 * math.log10(2), abs=1e-6)
    assert si_sdr(estimate=mixture / 2, target=target).item() == pytest.approx(0, abs=1e-6)
    assert si_sdr_improvement(estimate=mixture / 2, **scores).item() == pytest.approx(0, abs=1e-9)
    assert sdr_improvement(estimate=mixture, **scores).item() == 0.0


def test_undefined_and_infinite_scores_are_said():
    target, other = orthogonal_pair()
    assert si_sdr(estimate=torch.zeros_like(target), target=target).isnan()
    assert sdr(estimate=target, target=target) == math.inf
    assert si_sdr(estimate=-0.5 * target, target=target) == math.inf
    assert si_sdr(estimate=other, target=target) == -math.inf


@pytest.mark.parametrize("zero_mean", [False, True])
def test_torchmetrics_agrees(zero_mean):
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio, signal_noise_ratio

    target = noise(3, 2, 4000) + 0.3
    estimate = target * torch.tensor([0.4, 1.0, -2.0])[:, None, None] + 0.5 * noise(3, 2, 4000, seed=1) - 0.1
    theirs = scale_invariant_signal_distortion_ratio(estimate, target, zero_mean=zero_mean)
    ours = si_sdr(estimate=estimate, target=target, zero_mean=zero_mean)
    torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=1e-3)
    theirs = signal_noise_ratio(estimate, target)
    torch.testing.assert_close(sdr(estimate=estimate, target=target).float(), theirs, rtol=0, atol=1e-3)


def test_leading_dimensions_are_scored_one_by_one():
    target, estimate, mixture = noise(2, 3, 500), noise(2, 3, 500, seed=1), noise(2, 3, 500, seed=2)
    for metric in (sdr_improvement, si_sdr_improvement):
        together = metric(estimate=estimate, target=target, mixture=mixture)
        alone = metric(estimate=estimate[1, 2], target=target[1, 2], mixture=mixture[1, 2])
        assert together.shape == (2, 3) and together[1, 2] == alone


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-4, 1e4), st.floats(1e-4, 1e4), st.booleans(), st.integers(0, 1000))
def test_si_sdr_ignores_both_gains_and_sdr_a_common_one(gain, other_gain, negative, seed):
    target, estimate = noise(2, 300, seed=seed).double(), noise(2, 300, seed=seed + 1).double()
    gain = -gain if negative else gain
    moved = si_sdr(estimate=gain * estimate, target=other_gain * target)
    torch.testing.assert_close(moved, si_sdr(estimate=estimate, target=target), rtol=0, atol=1e-6)
    moved = sdr(estimate=gain * estimate, target=gain * target)
    torch.testing.assert_close(moved, sdr(estimate=estimate, target=target), rtol=0, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.floats(-3, 3), st.integers(0, 1000))
def test_no_gain_beats_the_best_gain(gain, seed):
    target, mixture = noise(2, 300, seed=seed).double()
    best = best_gain(estimate=mixture, target=target)
    reached = sdr(estimate=best * mixture, target=target)
    assert reached >= sdr(estimate=gain * mixture, target=target) - 1e-9
    cosine = torch.nn.functional.cosine_similarity(mixture, target, dim=0)
    assert reached.item() == pytest.approx(-10 * math.log10(1 - cosine.item() ** 2), abs=1e-9)


def test_best_gain_of_silence_is_zero():
    assert best_gain(estimate=torch.zeros(5), target=torch.ones(5)) == 0


@pytest.mark.parametrize("metric", [sdr, si_sdr])
@pytest.mark.parametrize(
    "estimate, target, words",
    [
        (torch.ones(2, 4), torch.stack([torch.ones(4), torch.zeros(4)]), "silent"),
        (torch.ones(4), torch.ones(5), "same shape"),
        (torch.ones(4), torch.ones(1, 4), "same shape"),
        (torch.ones(0), torch.ones(0), "same shape"),
        (torch.tensor([1.0, math.nan]), torch.ones(2), "estimate has NaN"),
        (torch.ones(2), torch.tensor([1.0, math.inf]), "target has NaN"),
    ],
)
def test_what_has_no_score_is_refused(metric, estimate, target, words):
    with pytest.raises(ValueError, match=words) as error:
        metric(estimate=estimate, target=target)
    assert "\n" not in str(error.value)


def test_bootstrap_interval_is_the_normal_one_for_many_values():
    values = 3 + 2 * noise(2000)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std().item() / math.sqrt(2000)
    assert low == pytest.approx(values.mean().item() - half, abs=0.01)
    assert high == pytest.approx(values.mean().item() + half, abs=0.01)


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        low, high = bootstrap_interval(noise(60, seed=seed), confidence=0.9, n_resamples=400, seed=seed)
        covered += low <= 0 <= high
    assert 165 <= covered <= 194  # 180 expected, standard deviation 4.2; the percentile interval is a little short


def test_bootstrap_interval_is_seeded_and_narrows():
    values = noise(50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values.tolist(), seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    wide, narrow = bootstrap_interval(values, confidence=0.99), bootstrap_interval(values, confidence=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert bootstrap_interval([4.0]) == (4.0, 4.0)


@pytest.mark.parametrize(
    "values, arguments",
    [
        ([], {}),
        ([1.0, math.nan], {}),
        ([1.0], {"confidence": 1.0}),
        ([1.0], {"n_resamples": 0}),
        ([[1.0]], {}),
    ],
)
def test_bootstrap_interval_refuses_what_has_no_mean(values, arguments):
    with pytest.raises(ValueError, match="expected"):
        bootstrap_interval(values, **arguments)
