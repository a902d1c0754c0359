"""The exercises of notebook 11: right answers pass, stubs are not done, wrong ones get the right hint."""

import torch

from lasslab.course.exercises import evaluate_answer
from lasslab.flow import solve, time_grid


def endpoints(x_t, t, v):
    return x_t - t * v, x_t + (1 - t) * v


def midpoint(field, x, n_steps):
    h = 1 / n_steps
    for step in range(n_steps):
        x = x + h * field(x + h / 2 * field(x, step * h), step * h + h / 2)
    return x


def exact_velocity(x, t, points):
    squared = (x[:, None] - t * points).square().sum(-1)
    weights = torch.softmax(-squared / (2 * (1 - t) ** 2), dim=1)
    return (weights @ points - x) / (1 - t)


def exact_velocity_by_loops(x, t, points):
    out = []
    for state in x.double():
        density = [torch.exp(-(state - t * p).square().sum() / (2 * (1 - t) ** 2)) for p in points.double()]
        out.append(sum(d * (p - state) for d, p in zip(density, points.double(), strict=True)) / sum(density) / (1 - t))
    return torch.stack(out)


RIGHT = {
    "11.endpoints": [endpoints, lambda x, t, v: [x - t * v, x - t * v + v]],
    "11.midpoint": [midpoint, lambda field, x, n: solve(field, x, time_grid(n), method="midpoint")],
    "11.exact_velocity": [exact_velocity, exact_velocity_by_loops],
}


def steps_with(step):
    def run(field, x, n_steps):
        h = 1 / n_steps
        for number in range(n_steps):
            x = step(field, x, number * h, h)
        return x

    return run


def weighted(weights_of, way=lambda x, t, points: (points - x[:, None]) / (1 - t)):
    return lambda x, t, points: (weights_of(x, t, points)[..., None] * way(x, t, points)).sum(1)


def softmax_of(exponent):
    return lambda x, t, points: torch.softmax(exponent(x, t, points), dim=1)


def squares(x, t, points):
    return (x[:, None] - t * points).square().sum(-1)


right_weights = softmax_of(lambda x, t, p: -squares(x, t, p) / (2 * (1 - t) ** 2))

WRONG = [
    ("11.endpoints", lambda x, t, v: (x + (1 - t) * v, x - t * v), "noise comes first"),
    ("11.endpoints", lambda x, t, v: (x - (1 - t) * v, x + t * v), "since t = 0"),
    ("11.endpoints", lambda x, t, v: (x - t * v, x + v), "until t = 1"),
    ("11.endpoints", lambda x, t, v: (x, x + (1 - t) * v), "since t = 0"),
    ("11.endpoints", lambda x, t, v: x + (1 - t) * v, "Return both"),
    ("11.midpoint", steps_with(lambda f, x, t, h: x + h * f(x, t)), "That is Euler"),
    ("11.midpoint", steps_with(lambda f, x, t, h: x + h * f(x + h / 2 * f(x, t), t)), "later in time too"),
    ("11.midpoint", steps_with(lambda f, x, t, h: x + h / 2 * (f(x, t) + f(x + h * f(x, t), t + h))), "Heun"),
    ("11.midpoint", steps_with(lambda f, x, t, h: x + h * f(x + h * f(x, t), t + h)), "end of the step"),
    ("11.midpoint", steps_with(lambda f, x, t, h: x + h * f(x + h * f(x, t), t + h / 2)), "starts from x again"),
    ("11.midpoint", steps_with(lambda f, x, t, h: x + f(x + h / 2 * f(x, t), t + h / 2)), "h times the field"),
    ("11.midpoint", steps_with(lambda f, x, t, h: x + h * f(x, t + h / 2)), "Two calls"),
    ("11.midpoint", lambda f, x, n: f(x, 0.5).mean(), "keeps its shape"),
    ("11.exact_velocity", lambda x, t, points: (points.mean(0) - x) / (1 - t), "equally likely"),
    (
        "11.exact_velocity",
        lambda x, t, points: (points[squares(x, t, points).argmin(1)] - x) / (1 - t),
        "only one",
    ),
    ("11.exact_velocity", weighted(softmax_of(lambda x, t, p: -squares(x, t, p) / (1 - t) ** 2)), "over 2 sigma^2"),
    ("11.exact_velocity", weighted(softmax_of(lambda x, t, p: -squares(x, t, p) / 2)), "so has sigma"),
    (
        "11.exact_velocity",
        weighted(softmax_of(lambda x, t, p: -squares(x, t, p).sqrt() / (2 * (1 - t) ** 2))),
        "*squared*",
    ),
    (
        "11.exact_velocity",
        weighted(softmax_of(lambda x, t, p: -squares(x, 1.0, p) / (2 * (1 - t) ** 2))),
        "around t p",
    ),
    ("11.exact_velocity", lambda x, t, points: right_weights(x, t, points) @ points - x, "divide by 1 - t"),
    (
        "11.exact_velocity",
        weighted(right_weights, lambda x, t, p: (p - t * x[:, None]) / (1 - t)),
        "way left is p - x",
    ),
    ("11.exact_velocity", weighted(softmax_of(lambda x, t, p: squares(x, t, p))), "First the weights"),
    ("11.exact_velocity", lambda x, t, points: points - x[:1], "One velocity for each"),
]


def test_an_error_is_told_in_words():
    result = evaluate_answer("11.exact_velocity", lambda x, t, points: x @ points)
    assert not result.passed and "RuntimeError" in result.got
