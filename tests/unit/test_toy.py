"""Toy data: their moments in closed form, their shapes, their classes."""

import math

import pytest
import torch

from lasslab.data.toy import TOYS, checkerboard, two_moons, two_spirals


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
def test_points_are_centred_and_have_a_mean_square_of_one(toy):
    for spread in (0.0, 0.08, 0.5):
        points, labels = toy(100_000, generator=generator(), spread=spread)
        assert points.shape == (100_000, 2) and labels.shape == (100_000,)
        assert points.mean(0).abs().max() < 0.02
        assert points.square().mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
def test_half_of_the_points_have_each_class_and_the_order_is_random(toy):
    _, labels = toy(1_000, generator=generator())
    assert labels.dtype == torch.long and labels.bincount().tolist() == [500, 500]
    assert 400 < (labels.diff() != 0).sum() < 600


@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
def test_the_generator_decides(toy):
    a, b, c = (toy(64, generator=generator(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
@pytest.mark.parametrize(
    ("arguments", "words"), [({"n": 7}, "even"), ({"n": 0}, "at least 2"), ({"n": 4, "spread": -0.1}, "0 or more")]
)
def test_bad_input_is_refused(toy, arguments, words):
    with pytest.raises(ValueError, match=words):
        toy(**arguments, generator=generator())


def test_moons_are_half_circles():
    points, labels = two_moons(2_000, generator=generator(), spread=0.0)
    points = points * math.sqrt((1.3125 - 1 / math.pi) / 2) + torch.tensor([0.5, 0.25])
    for label, centre, upwards in ((0, (0.0, 0.0), 1), (1, (1.0, 0.5), -1)):
        arm = points[labels == label] - torch.tensor(centre)
        torch.testing.assert_close(arm.norm(dim=1), torch.ones(1_000), atol=1e-5, rtol=0)
        assert (upwards * arm[:, 1] > -1e-5).all()


def test_arms_of_the_spiral_are_one_another_turned_by_half():
    points, labels = two_spirals(20_000, generator=generator(), spread=0.0)
    radius = points.norm(dim=1) * 0.5
    phase = torch.atan2(points[:, 1], points[:, 0]) - 3 * math.pi * radius - math.pi * labels
    torch.testing.assert_close(phase.cos(), torch.ones(20_000), atol=1e-3, rtol=0)
    assert radius.max() <= 1 + 1e-5 and radius.square().mean().item() == pytest.approx(0.5, abs=0.01), "evenly filled"


def test_classes_of_the_checkerboard_fill_the_squares_in_turn():
    points, labels = checkerboard(8_000, generator=generator())
    column, row = (points * math.sqrt(4 / 3) + 2).floor().long().unbind(1)
    assert column.min() == row.min() == 0 and column.max() == row.max() == 3
    assert torch.equal((column + row) % 2, labels)
    counts = (4 * row + column).bincount()
    assert len(counts) == 16 and (counts - 500).abs().max() < 100
