"""The checks of notebook 04: the solution passes, a stub is not done, a wrong answer gets the right hint."""

import math

import pytest

from lasslab.course.exercises import evaluate_answer


def cosine(a, b):
    dot = (a * b).sum((-2, -1))
    return dot / ((a**2).sum((-2, -1)) * (b**2).sum((-2, -1))).sqrt()


def snr_of_threshold(threshold):
    return 10 * math.log10(threshold**2 / (1 - threshold**2))


def first_kept(similarities, n, max_similarity):
    return [number for number, value in enumerate(similarities) if value <= max_similarity][:n]


def split_sdri(mean_sdr, mean_sdri):
    return mean_sdr - mean_sdri, mean_sdri - mean_sdr, mean_sdr


SOLUTIONS = {
    "04.cosine_similarity": cosine,
    "04.snr_of_threshold": snr_of_threshold,
    "04.first_kept": first_kept,
    "04.split_sdri": split_sdri,
}


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_solution_passes(name):
    result = evaluate_answer(name, SOLUTIONS[name])
    assert result.passed, str(result)


@pytest.mark.parametrize("name", SOLUTIONS)
@pytest.mark.parametrize("stub", [None, lambda *arguments: None, lambda *arguments: ...])
def test_a_stub_is_not_done(name, stub):
    result = evaluate_answer(name, stub)
    assert not result.done and not result.passed


WRONG = [
    ("04.cosine_similarity", lambda a, b: (a * b).sum((-2, -1)), "both norms"),
    ("04.cosine_similarity", lambda a, b: (a * b).sum() / (a.norm() * b.norm()), "last two axes"),
    ("04.cosine_similarity", lambda a, b: (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)), "both axes"),
    ("04.cosine_similarity", lambda a, b: (a * b).sum((-2, -1)) / (a.sum((-2, -1)) * b.sum((-2, -1))), "both norms"),
    ("04.snr_of_threshold", lambda threshold: -snr_of_threshold(threshold), "upside down"),
    ("04.snr_of_threshold", lambda threshold: 10 * math.log10(threshold / (1 - threshold)), "Square both sides"),
    ("04.snr_of_threshold", lambda threshold: 2 * snr_of_threshold(threshold), "factor is 10"),
    ("04.first_kept", lambda values, n, limit: [i for i, v in enumerate(values) if v > limit][:n], "dropped"),
    ("04.first_kept", lambda values, n, limit: [i for i, v in enumerate(values) if v < limit][:n], "<="),
    ("04.first_kept", lambda values, n, limit: [i for i, v in enumerate(values) if v <= limit], "Stop when n"),
    ("04.first_kept", lambda values, n, limit: values[values <= limit][:n], "enumerate"),
    ("04.split_sdri", lambda sdr, sdri: (sdri - sdr, sdr - sdri, sdr), "solve for the input SDR"),
    ("04.split_sdri", lambda sdr, sdri: (sdr - sdri, sdri, sdr), "silence has an SDR of 0 dB"),
    ("04.split_sdri", lambda sdr, sdri: (sdr - sdri, sdri - sdr, sdri), "subtract"),
    ("04.split_sdri", lambda sdr, sdri: sdr - sdri, "tuple"),
]


@pytest.mark.parametrize(("name", "answer", "hint"), WRONG)
def test_a_wrong_answer_gets_the_right_hint(name, answer, hint):
    result = evaluate_answer(name, answer)
    assert result.done and not result.passed
    assert hint in result.hint, str(result)
