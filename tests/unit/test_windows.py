"""Windows that share one state, and long inputs piece by piece: nothing lost, nothing counted twice, no seam."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lasslab.systems.windows import Windows, in_pieces


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


sizes = {"length": st.integers(1, 200), "window": st.integers(1, 40), "overlap": st.integers(0, 39)}


@settings(max_examples=60, deadline=None)
@given(**sizes)
def test_windows_lie_within_the_length_share_the_overlap_and_leave_no_gap(length, window, overlap):
    assume(overlap < window)
    windows = Windows(length, window=window, overlap=overlap)
    starts, size = windows.starts, windows.size
    assert size == min(window, length) and starts[0] == 0 and starts[-1] + size == length
    steps = [after - before for before, after in zip(starts, starts[1:], strict=False)]
    assert all(0 < step <= window - overlap for step in steps), "neighbours share at least the overlap"
    if steps:
        assert max(steps) - min(steps) <= 1, "evenly spread: no last window that is nearly the one before"
        needed = -(-(length - overlap) // (window - overlap))
        assert len(windows) == needed, "and no more of them than it takes"
    assert (windows.total > 0).all() and (windows.weight > 0).all()
    torch.testing.assert_close(windows.weight, windows.weight.flip(0))


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 3), **sizes)
def test_joining_what_was_cut_is_the_identity(batch, length, window, overlap):
    assume(overlap < window)
    windows, x = Windows(length, window=window, overlap=overlap), randn(batch, 2, length, 3)
    parts = windows.cut(x)
    assert parts.shape == (len(windows) * batch, 2, windows.size, 3)
    for number, start in enumerate(windows.starts):  # all examples of the first window first
        torch.testing.assert_close(parts[number * batch : (number + 1) * batch], x[:, :, start : start + windows.size])
    torch.testing.assert_close(windows.join(parts), x, rtol=1e-5, atol=1e-6)


def test_one_window_comes_back_bit_for_bit():
    windows, x = Windows(30, window=30, overlap=7), randn(2, 2, 30, 3)
    assert torch.equal(windows.join(windows.cut(x)), x)


def test_equation_1_by_hand():
    """Two windows of 4 over 6 points, sharing 2: weights 1 2 2 1, so the shared points are 1:2 and 2:1 averages."""
    windows = Windows(6, window=4, overlap=2)
    assert windows.starts == [0, 2] and windows.weight.tolist() == [1, 2, 2, 1]
    ones, fours = torch.ones(1, 1, 4, 1), torch.full((1, 1, 4, 1), 4.0)
    joined = windows.join(torch.cat([ones, fours]))[0, 0, :, 0]
    assert joined.tolist() == pytest.approx([1, 1, (2 * 1 + 1 * 4) / 3, (1 * 1 + 2 * 4) / 3, 4, 4])


def test_where_windows_disagree_the_change_is_gradual():
    """Constants 0, 1, 0, 1 ... in neighbours: no step between two points is larger than one over the overlap."""
    windows = Windows(200, window=40, overlap=20)
    parts = torch.stack([torch.full((1, 40, 1), float(number % 2)) for number in range(len(windows))])
    joined = windows.join(parts)[0, 0, :, 0]
    assert joined.min() == 0 and joined.max() > 0.9
    assert joined.diff().abs().max() < 1.2 / 20


def test_a_pointwise_field_is_the_same_in_windows():
    windows, x = Windows(131, window=32, overlap=8), randn(2, 3, 131, 4)
    field = torch.tanh
    torch.testing.assert_close(windows.join(field(windows.cut(x))), field(x))


def test_half_precision_stays_half_precision():
    windows, x = Windows(50, window=16, overlap=4), randn(1, 2, 50, 3).half()
    joined = windows.join(windows.cut(x))
    assert joined.dtype == torch.float16
    torch.testing.assert_close(joined, x, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("window, overlap", [(4, 4), (4, 5), (0, 0), (4, -1)])
def test_a_window_that_is_all_overlap_is_refused(window, overlap):
    with pytest.raises(ValueError, match="longer than their overlap") as error:
        Windows(20, window=window, overlap=overlap)
    assert "\n" not in str(error.value)


# --- in pieces


class Counting:
    """A convolution over time that hears `reach` points on either side, and remembers how much it was given."""

    def __init__(self, reach: int = 3, *, down: int = 1, up: int = 1) -> None:
        self.weight, self.reach = randn(2, 2, 2 * reach + 1, seed=5), reach
        self.down, self.up, self.lengths = down, up, []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.lengths.append(x.shape[-1])
        y = F.conv1d(x, self.weight, padding=self.reach)[..., :: self.down]
        return y.repeat_interleave(self.up, dim=-1)


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 120), size=st.integers(1, 30), context=st.integers(3, 8))
def test_with_enough_context_pieces_are_the_whole(length, size, context):
    x, network = randn(2, 2, length), Counting()
    found = in_pieces(network, x, size=size, context=context, factor=1)
    torch.testing.assert_close(found, Counting()(x), rtol=1e-4, atol=1e-5)
    assert max(network.lengths) <= max(2 * size, size + 2 * context), "memory does not grow with the length"
    if length <= 2 * size:
        assert network.lengths == [length], "a short input is processed whole"


@settings(max_examples=20, deadline=None)
@given(points=st.integers(1, 40), size=st.integers(1, 8))
def test_pieces_of_a_network_that_shortens_or_lengthens(points, size):
    """As the VAE, which makes one point of four frames, and the vocoder, which makes many samples of one."""
    x = randn(1, 2, 4 * points)
    shorter = in_pieces(Counting(down=4), x, size=4 * size, context=8, factor=1 / 4)
    torch.testing.assert_close(shorter, Counting(down=4)(x), rtol=1e-4, atol=1e-5)
    longer = in_pieces(Counting(up=5), x, size=size, context=8, factor=5)
    torch.testing.assert_close(longer, Counting(up=5)(x), rtol=1e-4, atol=1e-5)


def test_without_context_the_borders_are_wrong():
    """The test above can fail."""
    x = randn(1, 2, 60)
    error = (in_pieces(Counting(), x, size=10, context=0, factor=1) - Counting()(x)).abs().amax((0, 1))
    assert error[8:12].max() > 0.1 and error[13:17].max() < 1e-5
