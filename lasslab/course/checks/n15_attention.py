"""Checks of notebook 15, where an editor listens and where it starts."""

import math

import torch

from lasslab.course.exercises import Wrong, expect_close, expect_shape


def check_attention(answer):
    """(query (P, d), key (L, d), mask (L,)) -> attention (P, L); rows share one unit among the real tokens."""
    generator = torch.Generator().manual_seed(0)
    for n_places, n_tokens, width, n_real in ((5, 4, 16, 3), (2, 6, 9, 6)):
        query = 2 * torch.randn(n_places, width, generator=generator)
        key = 2 * torch.randn(n_tokens, width, generator=generator)
        mask = torch.arange(n_tokens) < n_real
        got = torch.as_tensor(answer(query.clone(), key.clone(), mask.clone()))
        expect_shape(
            got, (n_places, n_tokens), what="the attention", hint="A row for each place, a column for each token."
        )
        scores = query @ key.T / math.sqrt(width)
        closed = scores.masked_fill(~mask, -math.inf)
        right = closed.softmax(dim=-1)
        for wrong, hint in (
            (
                (query @ key.T).masked_fill(~mask, -math.inf).softmax(dim=-1),
                "Divide the scores by the square root of d: without it, the softmax is nearly a choice of one token.",
            ),
            (
                (scores / math.sqrt(width)).masked_fill(~mask, -math.inf).softmax(dim=-1),
                "Divide by the square root of d, not by d.",
            ),
            (
                scores.softmax(dim=-1) * mask,
                "Close the padding before the softmax, with a score of minus infinity: a row shares out one unit.",
            ),
            (scores.softmax(dim=-1), "Padding is no word: its scores are minus infinity, so that it gets nothing."),
            (
                scores.masked_fill(~mask, 0.0).softmax(dim=-1),
                "A score of 0 is no score of nothing, exp(0) is 1: minus infinity closes a token.",
            ),
            (closed, "These are the scores: bring each row to a sum of one with a softmax."),
        ):
            if not torch.allclose(wrong, right, atol=1e-4) and torch.allclose(got.float(), wrong, atol=1e-5):
                raise Wrong(expected="softmax(Q K' / sqrt(d))", got="something near it", hint=hint)
        sums = got.float().sum(dim=-1)
        if not torch.allclose(sums, torch.ones(n_places), atol=1e-4):
            raise Wrong(
                expected="rows that sum to 1",
                got=f"a row that sums to {float(sums[0]):.3f}",
                hint="The softmax goes over the tokens, the last dimension: every place shares one unit among them.",
            )
        expect_close(
            got,
            right,
            what="the attention",
            hint="Scores are the products of each query with each key: query @ key.T, over sqrt(d), then a softmax.",
        )


def check_token_curve(answer):
    """(weights (heads, N, M, L), numbers of tokens, seconds) -> (times (N,), curve (N,))."""
    generator = torch.Generator().manual_seed(0)
    for heads, n_times, height, n_tokens, tokens, seconds in ((3, 8, 4, 6, [3, 4], 2.0), (2, 5, 3, 4, [1], 1.0)):
        weights = torch.randn(heads, n_times, height, n_tokens, generator=generator).softmax(dim=-1)
        values = answer(weights.clone(), list(tokens), seconds)
        if not isinstance(values, (tuple, list)) or len(values) != 2:
            raise Wrong(
                expected="two values, (times, curve)",
                got=f"a {type(values).__name__}",
                hint="Return when, and how much.",
            )
        times, curve = (torch.as_tensor(part) for part in values)
        expect_shape(
            curve,
            (n_times,),
            what="the curve",
            hint="Average over heads and over the mel axis; time is what is left.",
        )
        expect_shape(times, (n_times,), what="the times", hint="One time for each column of the layer's grid.")
        right = weights[..., tokens].sum(-1).mean(dim=(0, 2))
        if len(tokens) > 1 and torch.allclose(curve.float(), right / len(tokens), atol=1e-5):
            raise Wrong(
                expected="what the words get together",
                got="the mean over their pieces",
                hint="Pieces of one name add up: a place that gives 0.2 to each of two pieces gives 0.4 to the name.",
            )
        expect_close(
            curve,
            right,
            what="the curve",
            hint="weights[..., tokens] are the columns of the words: sum over them, mean over heads (0) and mel (2).",
        )
        width = seconds / n_times
        centres = (torch.arange(n_times) + 0.5) * width
        for wrong, hint in (
            (centres - width / 2, "These are the beginnings of the columns. A column stands for its middle."),
            (torch.linspace(0, seconds, n_times), "The first column is not at 0 and the last not at the end."),
            (torch.arange(n_times), "These are numbers of columns: a column is seconds / N wide."),
        ):
            if torch.allclose(times.float(), wrong.float(), atol=1e-5):
                raise Wrong(expected=f"a first column at {width / 2:g} s", got=f"{float(times[0]):g} s", hint=hint)
        expect_close(times, centres, what="the times", hint="Column n is at (n + 1/2) seconds / N.")


def check_auc(answer):
    """(score (N,), active (N,) of bool) -> area under the ROC curve."""
    cases = (
        ([0.9, 0.8, 0.1, 0.2], [1, 1, 0, 0], 1.0, "Every active point is above every silent one: always right is 1."),
        (
            [0.1, 0.2, 0.9, 0.8],
            [1, 1, 0, 0],
            0.0,
            "Every active point is below every silent one: that is 0, whichever of the two is larger.",
        ),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0], 0.5, "A pair of equal scores counts one half: a constant is chance."),
        (
            [0.9, 0.4, 0.6, 0.1, 0.2],
            [1, 1, 0, 0, 0],
            5 / 6,
            "Divide by the number of pairs, which is active points times silent points.",
        ),
        ([3.0, 1.0, 1.0, 0.0], [1, 1, 0, 0], 3.5 / 4, "A tie counts one half."),
        ([100.0, -7.0, 2.0], [1, 0, 0], 1.0, "The scores may have any scale: only their order counts."),
    )
    for score, active, expected, hint in cases:
        got = answer(torch.tensor(score), torch.tensor(active, dtype=torch.bool))
        expect_close(got, expected, what=f"the area for scores {score}, active {active}", hint=hint, atol=1e-6)


def check_start_snr(answer):
    """(x_original (...), t_start) -> signal-to-noise ratio of the start state in dB; noise of variance 1."""
    generator = torch.Generator().manual_seed(0)
    for size, t_start in ((1.0, 0.01), (2.0, 0.1), (0.5, 0.3)):
        x = size * torch.randn(2, 4, 5, generator=generator)
        power = float(x.double().square().mean())
        got = answer(x.clone(), t_start)
        right = 20 * math.log10(t_start / (1 - t_start)) + 10 * math.log10(power)
        try:
            number = float(got)
        except (TypeError, ValueError, RuntimeError):
            number = math.nan
        for wrong, hint in (
            (right / 2, "A ratio of powers: square the amplitudes first, or take 20 log10 of their ratio."),
            (-right, "Signal over noise, and the signal is the original."),
            (
                20 * math.log10(t_start / (1 - t_start)),
                "The original has a power of its own: the mean of its squares, which need not be 1.",
            ),
            (
                20 * math.log10(t_start) + 10 * math.log10(power),
                "The noise is scaled, too: by 1 - t_start.",
            ),
            (
                10 * math.log10(t_start / (1 - t_start)) + 10 * math.log10(power),
                "t_start scales the amplitude: the power goes with its square.",
            ),
        ):
            if abs(number - wrong) < 1e-3 < abs(number - right):
                raise Wrong(expected=f"{right:.2f} dB for t_start = {t_start}", got=f"{number:.2f} dB", hint=hint)
        expect_close(
            got,
            right,
            what=f"the ratio in dB for t_start = {t_start}",
            hint="10 log10 of the mean square of t_start x over that of the noise, (1 - t_start) squared.",
            atol=1e-3,
        )
    silent = float(answer(torch.ones(2, 3), 0.0))
    if silent != -math.inf:
        raise Wrong(
            expected="minus infinity for t_start = 0",
            got=f"{silent:g}",
            hint="At 0 there is nothing of the original, and log10(0) is minus infinity; torch.log10 says so.",
        )


CHECKS = {
    "15.attention": check_attention,
    "15.token_curve": check_token_curve,
    "15.auc": check_auc,
    "15.start_snr": check_start_snr,
}
