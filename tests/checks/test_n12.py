"""The exercises of notebook 12: right answers pass, stubs are not done, wrong ones get the right hint."""

import torch

from lasslab import flow
from lasslab.course.exercises import evaluate_answer
from lasslab.evaluation.holes import find_holes


def guidance(network, x_t, t, condition, null, w, *, mix=lambda c, n, w: n + w * (c - n)):
    both = {name: torch.cat([condition[name], null[name]]) for name in condition}
    with_words, without = network(torch.cat([x_t, x_t]), t.expand(2 * len(x_t)), **both).chunk(2)
    return mix(with_words, without, w)


def guidance_null_first(network, x_t, t, condition, null, w):
    both = {name: torch.cat([null[name], condition[name]]) for name in condition}
    without, with_words = network(torch.cat([x_t, x_t]), t.expand(2 * len(x_t)), **both).chunk(2)
    return (1 - w) * without + w * with_words


def drop_words(tokens, mask, dropped):
    first = torch.zeros_like(mask)
    first[:, 0] = True
    return torch.where(dropped[:, None, None], 0.0, tokens), torch.where(dropped[:, None], first, mask)


def drop_words_by_loop(tokens, mask, dropped):
    tokens, mask = tokens.clone(), mask.clone()
    for i in range(len(tokens)):
        if dropped[i]:
            tokens[i] = 0
            mask[i] = torch.arange(mask.shape[1]) == 0
    return [tokens, mask]


def drop_words_by_package(tokens, mask, dropped):
    null = {"tokens": torch.zeros_like(tokens), "mask": (torch.arange(mask.shape[1]) == 0).expand_as(mask)}
    return tuple(flow.drop({"tokens": tokens, "mask": mask}, null, dropped).values())


def hole_share(estimate, target):
    active = target >= target.max() - 40
    return (estimate < target - 20)[active].double().mean()


def hole_share_by_package(estimate, target):
    return find_holes(estimate=10 ** (estimate.double() / 20), target=10 ** (target.double() / 20)).hole_share


RIGHT = {
    "12.guidance": [guidance, guidance_null_first, lambda f, x, t, c, n, w: flow.guided(f, c, n, w)(x, t)],
    "12.drop_words": [drop_words, drop_words_by_loop, drop_words_by_package],
    "12.hole_share": [hole_share, hole_share_by_package],
}


def guided_with(mix):
    return lambda *args: guidance(*args, mix=mix)


def two_calls(network, x_t, t, condition, null, w):
    time = t.expand(len(x_t))
    without = network(x_t, time, **null)
    return without + w * (network(x_t, time, **condition) - without)


def dropping(of_tokens, of_mask):
    return lambda tokens, mask, dropped: (of_tokens(tokens, dropped), of_mask(mask, dropped))


def right_tokens(tokens, dropped):
    return torch.where(dropped[:, None, None], 0.0, tokens)


def right_mask(mask, dropped):
    return drop_words(torch.zeros(*mask.shape, 1), mask, dropped)[1]


def in_place(tokens, mask, dropped):
    tokens[dropped] = 0
    return tokens, right_mask(mask, dropped)


def shared(condition):
    """A share over all points rather than over the active ones."""
    return lambda estimate, target: condition(estimate, target).double().mean()


WRONG = [
    ("12.guidance", guided_with(lambda c, n, w: c + w * (c - n)), "Start from the answer without words"),
    ("12.guidance", guided_with(lambda c, n, w: c + w * (n - c)), "swapped"),
    ("12.guidance", guided_with(lambda c, n, w: w * (c - n)), "difference alone"),
    ("12.guidance", guided_with(lambda c, n, w: n + (w - 1) * (c - n)), "w = 1 is the plain answer"),
    ("12.guidance", guided_with(lambda c, n, w: w * c), "no gain"),
    ("12.guidance", two_calls, "one batch with torch.cat"),
    ("12.guidance", lambda f, x, t, c, n, w: torch.cat([x, x]), ".chunk(2)"),
    ("12.drop_words", lambda tokens, mask, dropped: right_tokens(tokens, dropped), "Return both"),
    (
        "12.drop_words",
        dropping(lambda tokens, dropped: tokens * (not dropped.any()), right_mask),
        "Each example has its own draw",
    ),
    ("12.drop_words", dropping(right_tokens, lambda mask, dropped: mask & ~dropped[:, None]), "softmax over nothing"),
    ("12.drop_words", dropping(right_tokens, lambda mask, dropped: mask), "the first token is real and no other"),
    ("12.drop_words", dropping(lambda tokens, dropped: tokens, right_mask), "Zeros for the examples"),
    ("12.drop_words", lambda tokens, mask, dropped: (tokens[~dropped], mask[~dropped]), "Nothing is left out"),
    ("12.drop_words", in_place, "Work on a copy"),
    ("12.hole_share", shared(lambda e, t: (e < t - 20) & (t >= t.max() - 40)), "Divide by the number of active"),
    ("12.hole_share", lambda e, t: (e < t - 20).double().mean(), "Only active points count"),
    ("12.hole_share", lambda e, t: (e > t + 20)[t >= t.max() - 40].double().mean(), "Compare level with level"),
    (
        "12.hole_share",
        lambda e, t: ((e - t).abs() > 20)[t >= t.max() - 40].double().mean(),
        "mind the sign",
    ),
    ("12.hole_share", lambda e, t: (e < t.max() - 20)[t >= t.max() - 40].double().mean(), "*its own* point"),
    ("12.hole_share", lambda e, t: (e < t - 20)[t >= -40].double().mean(), "whatever its level"),
]


def test_an_error_is_told_in_words():
    result = evaluate_answer("12.hole_share", lambda estimate, target: estimate @ target)
    assert not result.passed and "RuntimeError" in result.got
