"""Checks of notebook 12, separation by rectified flow."""

import torch

from lasslab.course.exercises import Wrong, expect_close, expect_shape


def check_guidance(answer):
    """(network, x_t, t, condition, null, w) -> the guided velocity (B, ...), from one call of the network."""
    generator = torch.Generator().manual_seed(0)
    x_t, words = torch.randn(2, 3, 2, generator=generator), torch.randn(3, 2, generator=generator)
    condition, null = {"words": words}, {"words": torch.zeros(3, 2)}
    t = torch.tensor(0.3)
    x_t = x_t[0]
    seen = []

    def network(x, t, *, words):
        seen.append((len(x), tuple(t.shape)))
        return 2 * x + words + t.reshape(-1, 1)

    with_words, without = network(x_t, t.expand(3), **condition), network(x_t, t.expand(3), **null)
    for scale in (3.0, 1.0, 0.0):
        seen.clear()
        got = answer(network, x_t.clone(), t, dict(condition), dict(null), scale)
        expect_shape(
            got,
            (3, 2),
            what="the velocity of three states",
            hint="The doubled batch answers twice: split it with .chunk(2), and combine the two halves.",
        )
        right = without + scale * (with_words - without)
        for wrong, hint in (
            (
                with_words + scale * (with_words - without),
                "Start from the answer without words, not from the one with.",
            ),
            (
                with_words + scale * (without - with_words),
                "The two are swapped: guidance leads away from the answer without words.",
            ),
            (scale * (with_words - without), "The difference alone is no velocity: add the answer without words."),
            (
                without + (scale - 1) * (with_words - without),
                "w = 1 is the plain answer with words, and w = 0 the one without.",
            ),
            (scale * with_words, "Guidance is no gain: w multiplies the difference that the words make."),
        ):
            if not torch.allclose(wrong, right, atol=1e-4) and torch.allclose(got, wrong, atol=1e-4):
                raise Wrong(
                    expected=f"v_null + {scale:g} (v_cond - v_null)", got="another mixture of the two", hint=hint
                )
        expect_close(
            got,
            right,
            what=f"the guided velocity for w = {scale:g}",
            hint="v = v_null + w (v_cond - v_null): the answers come in the order in which the conditions went in.",
        )
        if len(seen) != 1:
            raise Wrong(
                expected="one call of the network",
                got=f"{len(seen)} calls",
                hint="Put both conditions into one batch with torch.cat: one call of twice the size is faster.",
            )


def check_drop_words(answer):
    """(tokens (B, L, D), mask (B, L), dropped (B,)) -> tokens and mask, without words where dropped."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(4, 3, 5, generator=generator)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0]]).bool()
    null_mask = torch.tensor([True, False, False])
    for flags in ([True, False, True, False], [False, False, False, True]):
        dropped = torch.tensor(flags)
        before = tokens.clone(), mask.clone()
        given = tokens.clone(), mask.clone()
        values = answer(*given, dropped.clone())
        if not isinstance(values, (tuple, list)) or len(values) != 2:
            raise Wrong(
                expected="two values, (tokens, mask)",
                got=f"a {type(values).__name__}",
                hint="Return both: the network is told which tokens are real.",
            )
        if not (torch.equal(given[0], before[0]) and torch.equal(given[1], before[1])):
            raise Wrong(
                expected="tensors that are left as they came",
                got="a change in what was passed in",
                hint="Work on a copy, or use torch.where: the encoder's answers are kept and used again.",
            )
        expect_shape(values[0], (4, 3, 5), what="the tokens", hint="Nothing is left out; the batch keeps its shape.")
        expect_shape(values[1], (4, 3), what="the mask", hint="Nothing is left out; the batch keeps its shape.")
        kept = torch.as_tensor(values[0])[~dropped]
        if torch.equal(kept, torch.zeros_like(kept)):
            raise Wrong(
                expected=f"words dropped from example{'s' if sum(flags) > 1 else ''} "
                + " and ".join(str(i) for i, flag in enumerate(flags) if flag),
                got="words dropped from the whole batch",
                hint="Each example has its own draw: `dropped` is (B,), give it two more axes, dropped[:, None, None].",
            )
        expect_close(
            values[0],
            torch.where(dropped[:, None, None], torch.zeros_like(tokens), tokens),
            what="the tokens",
            hint="Zeros for the examples that are dropped, and every other token as it came.",
        )
        got_mask = torch.as_tensor(values[1]).bool()
        if bool((~got_mask[dropped]).all()):
            raise Wrong(
                expected="one real token, of zeros, where the words are dropped",
                got="no real token at all",
                hint="A softmax over nothing is 0 / 0: leave the first token real, so that attention can look at it.",
            )
        expect_close(
            got_mask.float(),
            torch.where(dropped[:, None], null_mask, mask).float(),
            what="the mask",
            hint="Where the words are dropped the first token is real and no other; elsewhere the mask is as it was.",
        )


def check_hole_share(answer):
    """Levels in dB (K, N) of an estimate and of its target -> share of active points that are holes."""
    target = torch.tensor([[0.0, -10.0, -39.0, -41.0], [-20.0, -61.0, -80.0, -120.0]])
    cases = (
        (target - 25, 1.0, "an estimate 25 dB below its target", "Compare level with level, point by point."),
        (
            target - 15,
            0.0,
            "an estimate 15 dB below its target",
            "A hole is more than 20 dB below *its own* point of the target, not below the loudest.",
        ),
        (
            target + 30,
            0.0,
            "an estimate 30 dB above its target",
            "Too loud is no hole: mind the sign of the difference.",
        ),
        (
            torch.where(target > -40, target, target - 60),
            0.0,
            "an estimate that is right where the target is active",
            "Only active points count: those at most 40 dB below the loudest of the target.",
        ),
        (
            torch.where(target == -10, target - 30, target),
            0.25,
            "an estimate with one hole among four active points",
            "Point by point: one of the four active points is a hole.",
        ),
    )
    if abs(float(answer(target - 25, target)) - 0.5) < 1e-4:  # 4 of all 8
        raise Wrong(
            expected="a share of 1 where every active point is a hole",
            got="0.5, a share of all points",
            hint="Divide by the number of active points, not by that of all points.",
        )
    for shift in (0.0, -30.0):  # a quiet recording has holes too
        for estimate, share, what, hint in cases:
            expect_close(
                answer(estimate + shift, target + shift),
                share,
                what=f"the share of holes of {what}" + (", both 30 dB quieter" if shift else ""),
                hint="The loudest point of the target sets what is active, whatever its level." if shift else hint,
            )


CHECKS = {
    "12.guidance": check_guidance,
    "12.drop_words": check_drop_words,
    "12.hole_share": check_hole_share,
}
