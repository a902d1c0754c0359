"""One long sample from a network that was trained on short ones: windows that agree at every step.

Separate samples for neighbouring windows would be two different sounds, and a cross-fade between them is heard. Here
the windows share one state. At each step every window gives its velocity for its part of the state, and where windows
overlap the velocities are averaged; then the whole state takes one step (Bar-Tal et al., "MultiDiffusion", 2023):

    v(x)[p] = sum_i w_i(p) v_i(x[window i])[p] / sum_i w_i(p)                                                     (1)

So there is no seam, and the noise belongs to a place in the recording, not to a window.
"""

from collections.abc import Callable

import torch
from torch import Tensor


class Windows:
    """Windows over the time axis of (B, Z, N', M'), evenly spread, with weights that rise and fall linearly.

    Args:
        length: N', points in time.
        window: points of a window; a shorter length is one window of its own.
        overlap: points that neighbours share at least.

    Raises:
        ValueError: a window that is not longer than its overlap.
    """

    def __init__(self, length: int, *, window: int, overlap: int) -> None:
        if not 0 <= overlap < window:
            raise ValueError(f"windows must be longer than their overlap, got {window} and {overlap}")
        self.length, self.size = length, min(window, length)
        count = 1 if length <= window else -(-(length - overlap) // (window - overlap))
        self.starts = torch.linspace(0, length - self.size, count).round().long().tolist()
        ramp = torch.arange(1, self.size + 1, dtype=torch.float32)
        self.weight = torch.minimum(ramp, ramp.flip(0)).clamp(max=max(overlap, 1))  # (n,)
        total = torch.zeros(length)
        for start in self.starts:
            total[start : start + self.size] += self.weight
        self.total = total

    def __len__(self) -> int:
        return len(self.starts)

    def cut(self, x: Tensor) -> Tensor:
        """(B, Z, N', M') -> (W B, Z, n, M'), all examples of the first window first."""
        return torch.cat([x[:, :, start : start + self.size] for start in self.starts])

    def join(self, parts: Tensor) -> Tensor:
        """Equation (1): (W B, Z, n, M') -> (B, Z, N', M'). One window comes back bit for bit."""
        if len(self) == 1:
            return parts
        joined = parts.new_zeros(len(parts) // len(self), parts.shape[1], self.length, parts.shape[3])
        weight, total = (values.to(parts)[:, None] for values in (self.weight, self.total))
        for start, part in zip(self.starts, parts.chunk(len(self)), strict=True):
            joined[:, :, start : start + self.size] += weight * part
        return joined / total


def in_pieces(process: Callable[[Tensor], Tensor], x: Tensor, *, size: int, context: int, factor: float) -> Tensor:
    """Run a network over a long input piece by piece, in memory that does not grow with the length.

    Args:
        process: (..., N) -> (..., N factor); time is the last axis on both sides.
        x: (..., N).
        size: points of a piece; an input of up to twice as many is processed whole.
        context: points heard and thrown away on either side of a piece.
        factor: points of the output for one of the input.

    Returns:
        (..., N factor), as if x had been processed whole, if no output depends on more than `context` points around it.
    """
    length = x.shape[-1]
    if length <= 2 * size:
        return process(x)
    results = []
    for start in range(0, length, size):
        stop = min(start + size, length)
        first = max(start - context, 0)
        y = process(x[..., first : stop + context])
        results.append(y[..., round((start - first) * factor) :][..., : round((stop - start) * factor)])
    return torch.cat(results, dim=-1)
