"""Checks of notebook 11, flow matching in 2-D."""

import math

import torch

from lasslab.course.exercises import Wrong, expect_close, expect_shape


def check_endpoints(answer):
    """A state x_t (B, 2), its time and the velocity of its path -> (x_0, x_1), with sigma_min = 0."""
    generator = torch.Generator().manual_seed(0)
    x_0, x_1 = torch.randn(2, 4, 2, generator=generator)
    velocity = x_1 - x_0
    for t in (0.2, 0.5, 0.9):
        values = answer((1 - t) * x_0 + t * x_1, t, velocity)
        if not isinstance(values, (tuple, list)) or len(values) != 2:
            raise Wrong(
                expected="two values, (x_0, x_1)",
                got=f"a {type(values).__name__}",
                hint="Return both ends of the path, the noise first.",
            )
        for got, expected, other, name, hint in (
            (values[0], x_0, x_1, "x_0", "Walk back along v for the time that has passed since t = 0."),
            (values[1], x_1, x_0, "x_1", "Walk on along v for the time that is left until t = 1."),
        ):
            expect_shape(got, (4, 2), what=name, hint="Each end of the path is a point for each state, (B, 2).")
            if torch.allclose(torch.as_tensor(got).float(), other, atol=1e-4):
                raise Wrong(
                    expected=f"{name} first" if name == "x_0" else f"{name} second",
                    got="the other end of the path",
                    hint="t = 0 is noise and t = 1 is data: the noise comes first.",
                )
            expect_close(got, expected, what=f"{name} from a state at t = {t:g}", hint=hint)


def check_midpoint(answer):
    """A field, a start (B, 2) and a number of steps -> the state at t = 1 by the midpoint rule."""
    for n_steps in (1, 4):
        calls = []
        got = answer(_watched(_in_time, calls), torch.zeros(3, 2), n_steps)
        expect_shape(got, (3, 2), what="the state at t = 1", hint="The state keeps its shape at every step.")
        h = 1 / n_steps
        starts = [h * step for step in range(n_steps)]
        candidates = {
            "midpoint": sum(h * 3 * (t + h / 2) ** 2 for t in starts),
            "euler": sum(h * 3 * t**2 for t in starts),
            "heun": sum(h / 2 * 3 * (t**2 + (t + h) ** 2) for t in starts),
            "end": sum(h * 3 * (t + h) ** 2 for t in starts),
        }
        found = float(got.mean())
        if len(calls) == 2 * n_steps and math.isclose(found, candidates["euler"], abs_tol=1e-4):
            _wrong_step(found, candidates, n_steps, "The second call belongs half a step later in time too: t + h / 2.")
        if math.isclose(found, candidates["euler"], abs_tol=1e-4):
            _wrong_step(found, candidates, n_steps, "That is Euler. Go half a step first, and ask the field there.")
        if math.isclose(found, candidates["heun"], abs_tol=1e-4):
            _wrong_step(
                found, candidates, n_steps, "That is Heun's mean of both ends. The midpoint rule uses one velocity."
            )
        if math.isclose(found, candidates["end"], abs_tol=1e-4):
            _wrong_step(found, candidates, n_steps, "You asked at the end of the step; the middle is at t + h / 2.")
        expect_close(
            got,
            torch.full((3, 2), candidates["midpoint"]),
            what=f"the integral of 3 t^2 in {n_steps} steps",
            hint="Each step is h times the field half a step ahead, and the steps add up from t = 0 to 1.",
        )
        if len(calls) != 2 * n_steps:
            raise Wrong(
                expected=f"{2 * n_steps} calls of the field in {n_steps} steps",
                got=f"{len(calls)}",
                hint="Two calls a step: one to find the middle, one there. In a real system each call costs.",
            )
        expect_close(
            answer(lambda x, t: x, torch.ones(3, 2), n_steps),
            torch.full((3, 2), (1 + h + h * h / 2) ** n_steps),
            what=f"the solution of dx/dt = x from 1 in {n_steps} steps",
            hint="The state in the middle is x + h / 2 times the velocity here; the whole step starts from x again.",
        )


def check_exact_velocity(answer):
    """States (B, 2), a time and data points (K, 2) -> the best velocity (B, 2), with sigma_min = 0."""
    points = torch.tensor([[1.0, 1.0], [-1.0, 0.5], [0.5, -1.5]])
    x = torch.tensor([[0.2, 0.1], [-0.6, 0.4], [1.5, -0.3], [0.0, 0.0]])
    for t in (0.3, 0.7, 0.0):
        got = answer(x, t, points)
        expect_shape(
            got, (4, 2), what="the velocity", hint="One velocity for each of the B states, summed over the points."
        )
        expected = _mixture(x, t, points)
        if torch.allclose(torch.as_tensor(got).float(), expected, atol=1e-4):
            continue
        for wrong, hint in (
            (_mixture(x, t, points, sharpness=0.0), "Points are not equally likely: those near x / t are likelier."),
            (_mixture(x, t, points, sharpness=1e6), "The nearest point is not the only one: weigh all of them."),
            (
                _mixture(x, t, points, sharpness=2.0),
                "The exponent of a Gaussian is the squared distance over 2 sigma^2.",
            ),
            (_mixture(x, t, points, sigma=1.0), "At time t the noise has shrunk to 1 - t: so has sigma."),
            (_mixture(x, t, points, power=1.0), "The exponent holds the *squared* distance, over 2 sigma^2."),
            (_mixture(x, t, points, centre=1.0), "Given p, the path at time t is around t p, not around p itself."),
            ((1 - t) * expected, "The way left, p - x, has to be walked in the time left: divide by 1 - t."),
            (_mixture(x, t, points, start=t), "From x the way left is p - x; it is walked in the time left, 1 - t."),
        ):
            if torch.allclose(torch.as_tensor(got).float(), wrong, atol=1e-4):
                _wrong_field(got, expected, t, hint)
        expect_close(
            got,
            expected,
            what=f"the velocity at t = {t:g}",
            hint="First the weights: softmax over the points of -|x - t p|^2 / (2 (1 - t)^2). Then the weighted mean "
            "of (p - x) / (1 - t).",
        )


def _mixture(x, t, points, *, sharpness=1.0, sigma=None, power=2.0, centre=None, start=1.0):
    """The weighted mean of the velocities towards the points; the options are the mistakes that are looked for."""
    sigma = 1 - t if sigma is None else sigma
    distance = (x[:, None] - (t if centre is None else centre) * points).norm(dim=-1)  # (B, K)
    weights = torch.softmax(-sharpness * distance**power / (2 * sigma**2), dim=1)
    return ((points - start * x[:, None]) / (1 - t) * weights[..., None]).sum(1)


def _in_time(x, t):
    return 3 * t**2 * torch.ones_like(x)


def _watched(field, calls):
    def watched(x, t):
        calls.append(t)
        return field(x, t)

    return watched


def _wrong_step(found, candidates, n_steps, hint):
    raise Wrong(
        expected=f"the integral of 3 t^2 in {n_steps} steps to be {candidates['midpoint']:.4g}",
        got=f"{found:.4g}",
        hint=hint,
    )


def _wrong_field(got, expected, t, hint):
    at = int((got - expected).abs().sum(1).argmax())
    raise Wrong(
        expected=f"at t = {t:g} a velocity of ({', '.join(f'{value:.3g}' for value in expected[at].tolist())})",
        got=f"({', '.join(f'{value:.3g}' for value in got[at].tolist())})",
        hint=hint,
    )


CHECKS = {
    "11.endpoints": check_endpoints,
    "11.midpoint": check_midpoint,
    "11.exact_velocity": check_exact_velocity,
}
