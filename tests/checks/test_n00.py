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


NOISE = torch.randn(80_000, generator=torch.Generator().manual_seed(0))
WRONG = [
    ("00.puzzle", separated(PUZZLE.interference), "describe the other sound"),
    ("00.puzzle", PUZZLE.mixture, "hand in what it returns"),
    ("00.puzzle", 0.5 * PUZZLE.mixture, "hand in what it returns"),
    ("00.puzzle", torch.zeros_like(PUZZLE.mixture), "that you can hear"),
    ("00.puzzle", PUZZLE.mixture + 0.5 * NOISE, "plain words"),
    ("00.puzzle", separated(PUZZLE.target)[:16_000], "as long as the mixture"),
    ("00.puzzle", "someone whistling", "what separator(puzzle, my_query) returns"),
    ("00.turn_down", lambda x, decibels: 10 ** (-decibels / 10) * x, "divide by 20, not by 10"),
    ("00.turn_down", lambda x, decibels: 10 ** (decibels / 20) * x, "mind the sign"),
    ("00.turn_down", lambda x, decibels: x - decibels, "10 ** (-decibels / 20)"),
    ("00.turn_down", lambda x, decibels: 0.1 * x, "6 dB is close to one half"),
    ("00.turn_down", lambda x, decibels: 10 ** (-decibels / 20), "Every sample"),
]


@pytest.mark.parametrize(("name", "answer", "hint"), WRONG)
def test_wrong_answers_get_the_hint_that_helps(name, answer, hint):
    result = evaluate_answer(name, answer)
    assert result.done and not result.passed
    assert hint in result.hint


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (separated(PUZZLE.interference), "the low one"),
        (0.5 * PUZZLE.mixture, "the mixture"),
        (torch.zeros_like(PUZZLE.mixture), "silence"),
        (PUZZLE.mixture + 0.5 * NOISE, "dB"),
        (separated(PUZZLE.target)[:16_000], "(16000,)"),
        ("someone whistling", "a str"),
    ],
)
def test_a_wrong_puzzle_answer_is_recognised_for_what_it_is(answer, got):
    assert got in evaluate_answer("00.puzzle", answer).got
