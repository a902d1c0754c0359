"""The checks of notebook 03: the solution passes, a stub is not done, a wrong answer gets the right hint."""

import math

import numpy as np
import pytest
import torch

from lasslab.course.exercises import evaluate_answer


def snr(target, interference):
    return 10 * torch.log10((target**2).sum(-1) / (interference**2).sum(-1))


def active_snr(snr_db, active_share):
    return snr_db + 10 * math.log10(1 / active_share)


def rescale_together(target, interference):
    mixture = target + interference
    peak = mixture.abs().amax(dim=-1, keepdim=True).clamp(min=1.0)
    return mixture / peak, target / peak, interference / peak


def draw_pair(labels, random):
    first = int(random.integers(len(labels)))
    others = [number for number, label in enumerate(labels) if label != labels[first]]
    return first, int(random.choice(others))


SOLUTIONS = {
    "03.snr": snr,
    "03.active_snr": active_snr,
    "03.rescale_together": rescale_together,
    "03.draw_pair": draw_pair,
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


def _in_place(target, interference):
    peak = (target + interference).abs().max().clamp(min=1.0)
    target /= peak
    interference /= peak
    return target + interference, target, interference


def _mixture_only(target, interference):
    mixture = target + interference
    return mixture / mixture.abs().max().clamp(min=1.0), target, interference


def _always_full_scale(target, interference):
    peak = (target + interference).abs().max()
    return (target + interference) / peak, target / peak, interference / peak


def _one_peak_for_all(target, interference):
    mixture = target + interference
    peak = mixture.abs().max().clamp(min=1.0)
    return mixture / peak, target / peak, interference / peak


def _peak_over_the_batch(target, interference):
    mixture = target + interference
    peak = mixture.abs().amax(dim=0 if mixture.ndim > 1 else -1, keepdim=True).clamp(min=1.0)
    return mixture / peak, target / peak, interference / peak


def _two_numbers(labels, random):
    return tuple(int(number) for number in random.choice(len(labels), size=2, replace=False))


def _first_of_another_label(labels, random):
    first = int(random.integers(len(labels)))
    return first, next(number for number, label in enumerate(labels) if label != labels[first])


def _own_generator(labels, random):
    return draw_pair(labels, np.random.default_rng())


WRONG = [
    ("03.snr", lambda s, n: 2 * snr(s, n), "10 log10"),
    ("03.snr", lambda s, n: -snr(s, n), "other way round"),
    ("03.snr", lambda s, n: 10 * torch.log10((s**2).sum() / (n**2).sum()), "last axis"),
    ("03.snr", lambda s, n: 20 * torch.log10(s.sum(-1) / n.sum(-1)), "Sum the squares"),
    ("03.active_snr", lambda snr_db, share: snr_db + 10 * math.log10(share), "sign is plus"),
    ("03.active_snr", lambda snr_db, share: snr_db + 20 * math.log10(1 / share), "10 and not 20"),
    ("03.active_snr", lambda snr_db, share: snr_db / share, "10 log10"),
    ("03.rescale_together", lambda s, n: ((s + n).clamp(-1, 1), s, n), "same number"),
    ("03.rescale_together", _mixture_only, "same number"),
    ("03.rescale_together", _always_full_scale, "at least 1"),
    ("03.rescale_together", _in_place, "new tensor"),
    ("03.rescale_together", lambda s, n: s + n, "three"),
    ("03.rescale_together", _one_peak_for_all, "last axis"),
    ("03.rescale_together", _peak_over_the_batch, "last axis"),
    ("03.draw_pair", _two_numbers, "label differs"),
    ("03.draw_pair", _first_of_another_label, "another label"),
    ("03.draw_pair", _own_generator, "generator"),
    ("03.draw_pair", lambda labels, random: ("dog", "rain"), "positions"),
]


@pytest.mark.parametrize(("name", "answer", "hint"), WRONG)
def test_a_wrong_answer_gets_the_right_hint(name, answer, hint):
    result = evaluate_answer(name, answer)
    assert result.done and not result.passed
    assert hint in result.hint, str(result)
