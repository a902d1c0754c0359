"""Bootstrap of set metrics: each replicate is the metric of the drawn items, and intervals hold what they should."""

import pytest
import torch

from lasslab.evaluation.distances import frechet_distance, inception_score
from lasslab.evaluation.resampling import (
    centred_figure,
    draw_items,
    frechet_difference,
    frechet_figure,
    inception_figure,
    quiet_frechet,
    resample_frechet,
    resample_inception,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair_of_sets(n: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Estimates that go with their targets: half of each is the target's."""
    scale = torch.linspace(1, 0.2, dim, dtype=torch.float64)
    target = noise(n, dim, seed=2 * seed) * scale
    return 0.6 * target + 0.6 * noise(n, dim, seed=2 * seed + 1) * scale, target


@pytest.mark.filterwarnings("ignore::lasslab.evaluation.distances.FewSamples")
@pytest.mark.parametrize(("n", "dim"), [(60, 8), (5, 16)])
def test_a_replicate_is_the_distance_of_the_drawn_items(n, dim):
    (first, target), second = pair_of_sets(n, dim, 1), noise(n, dim, seed=9)
    draws = draw_items(n, n_resamples=30, seed=4)
    found = resample_frechet({"first": first, "second": second}, target=target, draws=draws)
    for name, samples in (("first", first), ("second", second)):
        expected = [frechet_distance(estimate=samples[draw], target=target[draw]).item() for draw in draws]
        assert found[name].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_every_item_once_is_the_figure_itself():
    estimate, target = pair_of_sets(40, 6, 2)
    (found,) = resample_frechet({"a": estimate}, target=target, draws=torch.randperm(40)[None])["a"]
    assert found.item() == pytest.approx(frechet_distance(estimate=estimate, target=target).item(), rel=1e-9)
    classes = noise(40, 5).softmax(-1)
    (found,) = resample_inception(classes, draws=torch.randperm(40)[None])
    assert found.item() == pytest.approx(inception_score(estimate=classes).item(), rel=1e-9)


def test_a_replicate_of_the_inception_score_is_that_of_the_drawn_items():
    classes = (3 * noise(30, 7)).softmax(-1)
    classes[:5] = torch.eye(7, dtype=torch.float64)[:5]  # zeros have a logarithm here too
    draws = draw_items(30, n_resamples=60, seed=1)
    expected = [inception_score(estimate=classes[draw]).item() for draw in draws]
    assert resample_inception(classes, draws=draws).tolist() == pytest.approx(expected, rel=1e-9)


def test_the_interval_is_centred_on_the_figure():
    estimate, target = pair_of_sets(100, 12, 3)
    figure = frechet_figure(estimate=estimate, target=target)
    assert figure.low < figure.value < figure.high and figure.bias > 0
    draws = resample_frechet({"a": estimate}, target=target, draws=draw_items(100, n_resamples=500))["a"]
    assert figure.bias == pytest.approx(draws.mean().item() - figure.value)
    assert figure.high - figure.low == pytest.approx(float(draws.quantile(0.975) - draws.quantile(0.025)), rel=1e-6)
    classes = (2 * noise(100, 12)).softmax(-1)
    score = inception_figure(estimate=classes)
    assert score.low < score.value < score.high and score.bias < 0, "fewer different items look less various"


def test_centred_intervals_cover_and_percentiles_do_not():
    """60 sets of 100 items in 16 dimensions; what is to be held is the mean figure of such sets."""
    sets = [pair_of_sets(100, 16, seed) for seed in range(60)]
    mean = sum(quiet_frechet(estimate=e, target=t) for e, t in sets) / len(sets)
    centred = percentile = 0
    for estimate, target in sets:
        value = quiet_frechet(estimate=estimate, target=target)
        draws = resample_frechet({"a": estimate}, target=target, draws=draw_items(100, n_resamples=100))["a"]
        figure = centred_figure(value, draws, confidence=0.95, lowest=0.0)
        centred += figure.low <= mean <= figure.high
        low, high = draws.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
        percentile += bool(low <= mean <= high)
    assert centred >= 53 and percentile <= 40, (centred, percentile)


def test_a_paired_difference_is_surer_than_two_figures():
    """Two systems that differ by little on the same items, which differ by much."""
    estimate, target = pair_of_sets(120, 8, 5)
    shift = torch.eye(8, dtype=torch.float64)[0]
    better, estimate = estimate + 0.2 * shift, estimate + 0.3 * shift
    found = frechet_difference(first=better, second=estimate, target=target)
    single = [frechet_figure(estimate=each, target=target) for each in (better, estimate)]
    assert found.value == pytest.approx(single[0].value - single[1].value, rel=1e-9) and found.high < 0
    assert found.high - found.low < 0.5 * min(each.high - each.low for each in single)
    assert single[0].high > single[1].low, "the two intervals overlap, and yet the difference is certain"
    turned = frechet_difference(first=estimate, second=better, target=target)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low), rel=1e-6)
    nothing = frechet_difference(first=estimate, second=estimate.clone(), target=target)
    assert (nothing.value, nothing.low, nothing.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_a_distance_does_not_fall_below_0_and_a_score_not_below_1():
    target = noise(30, 4)
    same = frechet_figure(estimate=target, target=target.clone())
    assert same.value == pytest.approx(0, abs=1e-9) and same.low >= 0
    assert inception_figure(estimate=torch.full((30, 4), 0.25)).low == 1


def test_the_same_seed_gives_the_same_interval():
    estimate, target = pair_of_sets(50, 4, 6)
    first, again, other = (frechet_figure(estimate=estimate, target=target, seed=seed) for seed in (1, 1, 2))
    assert first == again and first.value == other.value and first.high != other.high


def test_what_cannot_be_resampled():
    estimate, target = pair_of_sets(20, 4, 7)
    for call, words in (
        (lambda: draw_items(1), "at least two items"),
        (lambda: draw_items(3, n_resamples=0), "one draw"),
        (lambda: resample_frechet({"a": estimate[:10]}, target=target, draws=draw_items(20)), "a .10, 4."),
        (lambda: resample_frechet({"a": estimate}, target=target, draws=draw_items(10)), "one row for each item"),
        (lambda: centred_figure(0.0, torch.zeros(5), confidence=1.0), "confidence"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            call()
        assert "\n" not in str(error.value)
