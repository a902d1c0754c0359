"""Checks of notebook 00: right answers pass, stubs are not done, plausible mistakes get the hint that helps."""

import pytest
import torch

from lasslab.course.checks.n00_start_here import puzzle_mixture
from lasslab.course.exercises import evaluate_answer
from lasslab.systems.separation import OracleMask

PUZZLE = puzzle_mixture()


def separated(wanted):
    return OracleMask()(PUZZLE.mixture, "a sound", target=wanted)


def turn_down(waveform, decibels):
    return 10 ** (-decibels / 20) * waveform


@pytest.mark.parametrize(("name", "answer"), [("puzzle", separated(PUZZLE.target)), ("turn_down", turn_down)])
def test_right_answers_pass(name, answer):
    assert evaluate_answer(f"00.{name}", answer).passed


@pytest.mark.parametrize("answer", [None, ..., lambda waveform, decibels: None])
def test_stubs_are_not_done(answer):
    result = evaluate_answer("00.turn_down", answer)
    assert not result.done and not result.passed


def test_an_unsolved_puzzle_is_not_done():
    assert not evaluate_answer("00.puzzle", ...).done


@pytest.mark.parametrize(
    ("answer", "got", "hint"),
    [
        (separated(PUZZLE.interference), "the low one", "describe the other sound"),
        (PUZZLE.mixture, "the mixture", "hand in what it returns"),
        (0.5 * PUZZLE.mixture, "the mixture", "hand in what it returns"),
        (torch.zeros_like(PUZZLE.mixture), "silence", "that you can hear"),
        (PUZZLE.mixture + 0.5 * torch.randn(80_000, generator=torch.Generator().manual_seed(0)), "dB", "plain words"),
        (separated(PUZZLE.target)[:16_000], "(16000,)", "as long as the mixture"),
        ("someone whistling", "a str", "what separator(puzzle, my_query) returns"),
    ],
)
def test_wrong_puzzle_answers_get_the_hint_that_helps(answer, got, hint):
    result = evaluate_answer("00.puzzle", answer)
    assert result.done and not result.passed
    assert got in result.got and hint in result.hint


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda x, decibels: 10 ** (-decibels / 10) * x, "divide by 20, not by 10"),
        (lambda x, decibels: 10 ** (decibels / 20) * x, "mind the sign"),
        (lambda x, decibels: x - decibels, "10 ** (-decibels / 20)"),
        (lambda x, decibels: 0.1 * x, "6 dB is close to one half"),
        (lambda x, decibels: 10 ** (-decibels / 20), "Every sample"),
    ],
)
def test_wrong_gains_get_the_hint_that_helps(answer, hint):
    result = evaluate_answer("00.turn_down", answer)
    assert result.done and not result.passed
    assert hint in result.hint
