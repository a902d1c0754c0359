"""Checks of notebook 07: right answers pass, stubs are not done, plausible mistakes get the hint that helps."""

import pytest
import torch

from lasslab.course.exercises import evaluate_answer


def squeeze_excitation(x, squeeze, excite):
    gate = torch.sigmoid(excite(torch.relu(squeeze(x.mean(dim=(2, 3))))))
    return gate[:, :, None, None] * x


def attention(query, key, value, token_mask):
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    return scores.masked_fill(~token_mask[:, None, :], -torch.inf).softmax(dim=-1) @ value


def spectral_convergence(estimate, target):
    error = (target - estimate).square().sum(dim=(-2, -1)).sqrt()
    return error / target.square().sum(dim=(-2, -1)).sqrt()


SOLUTIONS = {
    "squeeze_excitation": squeeze_excitation,
    "attention": attention,
    "spectral_convergence": spectral_convergence,
}


def scores_of(query, key):
    return query @ key.transpose(1, 2) / query.shape[-1] ** 0.5


@pytest.mark.parametrize("name", SOLUTIONS)
def test_solutions_pass(name):
    assert evaluate_answer(f"07.{name}", SOLUTIONS[name]).passed


@pytest.mark.parametrize("name", SOLUTIONS)
@pytest.mark.parametrize("stub", [None, lambda *arguments, **named: None])
def test_stubs_are_not_done(name, stub):
    result = evaluate_answer(f"07.{name}", stub)
    assert not result.done and not result.passed


WRONG = [
    (
        "07.squeeze_excitation",
        lambda x, w, v: torch.sigmoid(v(torch.relu(w(x.mean(dim=(2, 3)))))),
        "gives every channel its gate",
    ),
    (
        "07.squeeze_excitation",
        lambda x, w, v: torch.sigmoid(v(w(x.mean(dim=(2, 3)))))[:, :, None, None] * x,
        "ReLU between them",
    ),
    (
        "07.squeeze_excitation",
        lambda x, w, v: v(torch.relu(w(x.mean(dim=(2, 3)))))[:, :, None, None] * x,
        "sigmoid is the last step",
    ),
    (
        "07.squeeze_excitation",
        lambda x, w, v: torch.sigmoid(v(torch.relu(w(x.amax(dim=(2, 3))))))[:, :, None, None] * x,
        "mean of x",
    ),
    ("07.attention", lambda q, k, v, mask: scores_of(q, k).softmax(-1) @ v, "scores of padded tokens to -inf"),
    (
        "07.attention",
        lambda q, k, v, mask: (q @ k.transpose(1, 2)).masked_fill(~mask[:, None], -torch.inf).softmax(-1) @ v,
        "last dimension of the queries",
    ),
    (
        "07.attention",
        lambda q, k, v, mask: scores_of(q, k).softmax(1).masked_fill(~mask[:, None], 0) @ v,
        "among the tokens",
    ),
    (
        "07.attention",
        lambda q, k, v, mask: scores_of(q, k).softmax(-1).masked_fill(~mask[:, None], 0) @ v,
        "Mask before the softmax",
    ),
    ("07.attention", lambda q, k, v, mask: scores_of(q, k).softmax(-1), "then @ value"),
    (
        "07.spectral_convergence",
        lambda estimate, target: (target - estimate).norm() / target.norm(),
        "bins and frames only",
    ),
    (
        "07.spectral_convergence",
        lambda estimate, target: (target - estimate).square().sum((-2, -1)) / target.square().sum((-2, -1)),
        "square root",
    ),
    (
        "07.spectral_convergence",
        lambda estimate, target: (target - estimate).norm(dim=(-2, -1)),
        "Divide by the target's norm",
    ),
    (
        "07.spectral_convergence",
        lambda estimate, target: (target - estimate).norm(dim=(-2, -1)) / estimate.norm(dim=(-2, -1)),
        "target's norm",
    ),
]


@pytest.mark.parametrize(("name", "answer", "hint"), WRONG)
def test_wrong_answers_get_the_hint_that_helps(name, answer, hint):
    result = evaluate_answer(name, answer)
    assert result.done and not result.passed
    assert hint in result.hint
