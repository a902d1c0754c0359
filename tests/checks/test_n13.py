"""The exercises of notebook 13: right answers pass, stubs are not done, wrong ones get the right hint."""

import math

import numpy as np
import torch

from lasslab.course.exercises import evaluate_answer


def guess_of(x_t, e, a):
    return (x_t - (1 - a).sqrt() * e) / a.sqrt()


def ddim_step(x_t, e, a, a_next):
    return a_next.sqrt() * guess_of(x_t, e, a) + (1 - a_next).sqrt() * e


def ddim_step_in_one_line(x_t, e, a, a_next):
    return (a_next / a).sqrt() * x_t + ((1 - a_next).sqrt() - (a_next * (1 - a) / a).sqrt()) * e


def steps_needed(steps, values, wanted):
    return min((n for n, value in zip(steps, values, strict=True) if value <= wanted), default=math.inf)


def steps_needed_by_numpy(steps, values, wanted):
    enough = np.array(steps)[np.array(values) <= wanted]
    return enough.min() if enough.size else np.inf


def time_split(steps, seconds):
    slope, offset = np.polyfit(steps, seconds, 1)
    return slope, offset


def time_split_by_hand(steps, seconds):
    n, s = sum(steps) / len(steps), sum(seconds) / len(seconds)
    slope = sum((a - n) * (b - s) for a, b in zip(steps, seconds, strict=True)) / sum((a - n) ** 2 for a in steps)
    return [slope, s - slope * n]


RIGHT = {
    "13.ddim_step": [ddim_step, ddim_step_in_one_line],
    "13.steps_needed": [steps_needed, steps_needed_by_numpy],
    "13.time_split": [time_split, time_split_by_hand],
}


def test_the_scheduler_of_the_package_steps_so():
    """The formula against diffusers' DDIM, which `lasslab.diffusion` uses."""
    from lasslab import diffusion

    e, x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    levels = diffusion.level_grid(5)
    alpha_bar = diffusion._alpha_bar(torch.device("cpu"))
    expected = x
    for here, there in zip(levels[:-1], levels[1:], strict=True):
        expected = ddim_step(expected, e, alpha_bar[here], alpha_bar[there])
    assert torch.allclose(diffusion.sample(lambda state, t: e, x, 5), expected, rtol=1e-3, atol=1e-2)


def enough(steps, values, wanted):
    return [n for n, value in zip(steps, values, strict=True) if value <= wanted]


def below(steps, values, wanted):
    return min((n for n, value in zip(steps, values, strict=True) if value < wanted), default=math.inf)


def in_order(steps, values, wanted):
    for n, value in zip(steps, values, strict=True):
        if value <= wanted:
            return n
    return math.inf


def never_worse_again(steps, values, wanted):
    enough = [n for i, n in enumerate(steps) if all(value <= wanted for value in values[i:])]
    return min(enough, default=math.inf) if steps == sorted(steps) else steps_needed(steps, values, wanted)


def ends_only(steps, seconds):
    slope = (seconds[-1] - seconds[0]) / (steps[-1] - steps[0])
    return slope, seconds[0] - slope * steps[0]


WRONG = [
    ("13.ddim_step", lambda x, e, a, b: guess_of(x, e, a), "guess of the datum"),
    ("13.ddim_step", lambda x, e, a, b: b.sqrt() * guess_of(x, e, a), "still has noise"),
    ("13.ddim_step", lambda x, e, a, b: b.sqrt() * x + (1 - b).sqrt() * e, "not from x_t"),
    ("13.ddim_step", lambda x, e, a, b: b * guess_of(x, e, a) + (1 - b) * e, "share of the *energy*"),
    ("13.ddim_step", lambda x, e, a, b: ddim_step(x, e, a, b) * a.sqrt(), "First the guess"),
    (
        "13.ddim_step",
        lambda x, e, a, b: b.sqrt() * (x - (1 - a).sqrt() * e) + (1 - b).sqrt() * e,
        "divide by sqrt(a)",
    ),
    ("13.ddim_step", lambda x, e, a, b: ddim_step(x, e, a, a), "Nothing has changed"),
    ("13.ddim_step", lambda x, e, a, b: ddim_step(x, e, a, b).mean(), "number by number"),
    ("13.steps_needed", lambda s, v, w: s[min(range(len(v)), key=lambda i: abs(v[i] - w))], "at or below"),
    ("13.steps_needed", below, "<="),
    ("13.steps_needed", lambda s, v, w: max(enough(s, v, w), default=math.inf), "first value"),
    ("13.steps_needed", lambda s, v, w: min(enough(s, v, w), default=s[-1]), "not the last one"),
    ("13.steps_needed", in_order, "any order"),
    ("13.steps_needed", never_worse_again, "even if a later row"),
    ("13.steps_needed", enough, "first value"),
    ("13.time_split", lambda n, s: s[0] / n[0], "Return the slope"),
    ("13.time_split", lambda n, s: (s[-1] / n[-1], 0.0), "Seconds over steps"),
    ("13.time_split", lambda n, s: time_split(n, s)[::-1], "come first"),
    ("13.time_split", lambda n, s: (time_split(n, s)[0], s[0]), "left at 0 steps"),
    ("13.time_split", ends_only, "all* of them"),
]


def test_an_error_is_told_in_words():
    result = evaluate_answer("13.ddim_step", lambda x, e, a, b: x @ e)
    assert not result.passed and "RuntimeError" in result.got
