"""Checks of notebook 13, flow against diffusion."""

import math

import torch

from lasslab.course.exercises import Wrong, expect_close, expect_shape


def check_ddim_step(answer):
    """(x_t, e, a, a_next): a state, the predicted noise, alpha bar here and at the next level -> the next state."""
    generator = torch.Generator().manual_seed(0)
    x_1, e = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    for a, a_next in ((0.1, 0.4), (0.36, 1.0), (0.01, 0.02)):
        a, a_next = torch.tensor(a, dtype=torch.float64), torch.tensor(a_next, dtype=torch.float64)
        x_t = a.sqrt() * x_1 + (1 - a).sqrt() * e
        got = answer(x_t.clone(), e.clone(), a.clone(), a_next.clone())
        expect_shape(got, (3, 4), what="the next state", hint="Everything is computed number by number.")
        right = a_next.sqrt() * x_1 + (1 - a_next).sqrt() * e
        for wrong, hint in (
            (x_1, "That is the guess of the datum. Go on to the next level: put the noise back that belongs there."),
            (a_next.sqrt() * x_1, "The next level still has noise: add sqrt(1 - a_next) e."),
            (
                a_next.sqrt() * x_t + (1 - a_next).sqrt() * e,
                "The next state is made from the guess of the datum, not from x_t, in which the noise still is.",
            ),
            (
                a_next * x_1 + (1 - a_next) * e,
                "a is the share of the *energy*: the amplitudes are its square root and that of the rest.",
            ),
            (
                a_next.sqrt() * (x_t - (1 - a).sqrt() * e) + (1 - a_next).sqrt() * e,
                "Taking the noise away leaves sqrt(a) times the datum: divide by sqrt(a).",
            ),
            (x_t, "Nothing has changed: use a here, and a_next for where the step ends."),
        ):
            if not torch.allclose(wrong, right, atol=1e-4) and torch.allclose(torch.as_tensor(got), wrong, atol=1e-6):
                raise Wrong(
                    expected=f"the state at a = {float(a_next):g}, from that at a = {float(a):g}",
                    got="something else that can be made of the same parts",
                    hint=hint,
                )
        expect_close(
            got,
            right,
            what=f"the state after a step from a = {float(a):g} to {float(a_next):g}",
            hint="First the guess (x_t - sqrt(1 - a) e) / sqrt(a), then sqrt(a_next) of it and sqrt(1 - a_next) of e.",
            atol=1e-6,
        )


def check_steps_needed(answer):
    """(steps, values, wanted): numbers of steps, a value for each, the lower the better -> fewest that reach it."""
    steps, values = [1, 2, 5, 10, 50], [9.0, 6.0, 4.0, 2.9, 2.7]
    cases = (
        (steps, values, 3.5, 10, "Look through the steps for the first value at or below what is wanted."),
        (steps, values, 4.0, 5, "A value that is exactly what is wanted has reached it: <=."),
        (steps, values, 9.5, 1, "Any number of steps is enough here, so the answer is the fewest."),
        (steps, values, 2.7, 50, "Give the number of steps, not its place in the list, and none in between."),
        (steps, values, 1.0, math.inf, "No number of steps reaches it: math.inf, not the last one."),
        (
            steps[::-1],
            values[::-1],
            3.5,
            10,
            "The table may come in any order: take the fewest of all that are enough.",
        ),
        ([1, 2, 5, 10], [9.0, 3.0, 4.0, 2.0], 3.5, 2, "The fewest that reach it, even if a later row is worse again."),
    )
    for given, quality, wanted, expected, hint in cases:
        got = answer(list(given), list(quality), wanted)
        try:
            number = float(got)
        except (TypeError, ValueError):
            raise Wrong(expected="one number of steps", got=f"a {type(got).__name__}", hint=hint) from None
        if number != expected:
            raise Wrong(
                expected=f"{expected} steps for a value of {wanted:g}, of {dict(zip(given, quality, strict=True))}",
                got=f"{number:g}",
                hint=hint,
            )


def check_time_split(answer):
    """(steps, seconds) of several runs -> (seconds for each step, seconds that do not depend on the steps)."""
    for steps, per_step, fixed in (([10, 100, 200], 0.05, 0.12), ([1, 2, 4], 0.5, 2.0)):
        got = answer(list(steps), [per_step * n + fixed for n in steps])
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Wrong(
                expected="two values, (seconds a step, fixed seconds)",
                got=f"a {type(got).__name__}",
                hint="Return the slope of the line and where it meets 0 steps.",
            )
        if abs(float(got[0]) - fixed) < 1e-6 and abs(float(got[1]) - per_step) < 1e-6:
            raise Wrong(
                expected=f"({per_step:g}, {fixed:g})",
                got="the two the other way round",
                hint="The seconds of a step come first.",
            )
        expect_close(
            float(got[0]),
            per_step,
            what=f"the seconds of a step, for {steps} steps",
            hint="A step costs the slope: how much longer for how many more. Seconds over steps hold the rest, too.",
        )
        expect_close(
            float(got[1]),
            fixed,
            what="the fixed seconds",
            hint="What is left at 0 steps: seconds minus steps times the seconds of a step.",
        )
    steps, seconds = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]
    got = answer(list(steps), list(seconds))
    expect_close(
        [float(got[0]), float(got[1])],
        [0.8, 0.5],
        what="slope and offset of four measurements that do not lie on a line",
        hint="Measured times scatter: fit a line to *all* of them by least squares, not to the first and the last.",
    )


CHECKS = {
    "13.ddim_step": check_ddim_step,
    "13.steps_needed": check_steps_needed,
    "13.time_split": check_time_split,
}
