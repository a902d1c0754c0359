"""The lists RIGHT and WRONG of ``test_n<number>.py``: right answers pass, stubs are not done, mistakes get their hint.

RIGHT is {exercise: [answers]}, WRONG is [(exercise, answer, a part of the hint)]. What else is tested of a notebook's
checks stands beside the lists.
"""

import importlib
from pathlib import Path

import pytest

from lasslab.course.exercises import evaluate_answer

MODULES = [
    importlib.import_module(f"checks.{path.stem}") for path in sorted(Path(__file__).parent.glob("test_n[0-9][0-9].py"))
]
LISTS = [(module.RIGHT, module.WRONG) for module in MODULES if hasattr(module, "RIGHT")]
RIGHT = [(name, answer) for right, _ in LISTS for name, answers in right.items() for answer in answers]
EXERCISES = [name for right, _ in LISTS for name in right]
WRONG = [entry for _, wrong in LISTS for entry in wrong]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_right_answers_pass(name, answer):
    result = evaluate_answer(name, answer)
    assert result.passed, result


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("stub", [None, ..., lambda *args: None], ids=["None", "ellipsis", "returns None"])
def test_stubs_are_not_done(name, stub):
    result = evaluate_answer(name, stub)
    assert not result.passed and not result.done


@pytest.mark.parametrize(("name", "answer", "hint"), WRONG)
def test_wrong_answers_get_the_right_hint(name, answer, hint):
    result = evaluate_answer(name, answer)
    assert result.done and not result.passed
    assert hint in result.hint, result
