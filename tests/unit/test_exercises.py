"""Exercise checks: right, wrong, stubs and broken code, all told in words and never raised."""

import sys
import types

import numpy as np
import pytest
import torch

from lasslab.course import exercises
from lasslab.course.exercises import CHECK_MIME, Wrong, check, evaluate_answer, expect_close, expect_shape

HINT = "Divide by both norms."


def check_cosine(answer):
    a = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    expect_close(answer(a, 2 * a), 1.0, what="the cosine of a and 2 a", hint=HINT)
    expect_close(answer(a, torch.flip(a, [0])), 0.0, what="the cosine of two that never overlap", hint=HINT)


def check_half(answer):
    expect_close(answer, 0.5, what="one half", hint="Take one of two.")


@pytest.fixture(autouse=True)
def checks(monkeypatch):
    """Two exercises of notebook 99, which the course does not have."""
    module = types.ModuleType("lasslab.course.checks.n99_test")
    module.CHECKS = {"99.cosine": check_cosine, "99.half": check_half}
    monkeypatch.setitem(sys.modules, module.__name__, module)
    real = exercises.pkgutil.iter_modules

    def with_ours(path):
        yield from real(path)
        yield types.SimpleNamespace(name="n99_test")

    monkeypatch.setattr(exercises.pkgutil, "iter_modules", with_ours)


def right_cosine(a, b):
    return (a * b).sum() / (a.norm() * b.norm())


def test_right_answer_passes():
    result = evaluate_answer("99.cosine", right_cosine)
    assert result.passed and result.done and bool(result)
    assert str(result) == "99.cosine: correct."


def test_wrong_answer_says_what_was_expected_what_came_and_a_hint():
    result = evaluate_answer("99.cosine", lambda a, b: (a * b).sum())
    assert not result.passed and result.done and not result
    assert result.expected == "the cosine of a and 2 a to be 1"
    assert result.got == "50"
    assert result.hint == HINT
    assert all(words in str(result) for words in (result.expected, result.got, result.hint))


def raises_not_implemented(a, b):
    raise NotImplementedError


@pytest.mark.parametrize(
    "stub",
    [None, NotImplemented, ..., lambda a, b: None, lambda a, b: NotImplemented, raises_not_implemented],
    ids=["None", "NotImplemented", "...", "returns None", "returns NotImplemented", "raises NotImplementedError"],
)
def test_stub_is_not_done_rather_than_wrong(stub):
    result = evaluate_answer("99.cosine", stub)
    assert not result.passed and not result.done
    assert "not done yet" in str(result)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda a, b: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda a: a, "TypeError"),
        (3.0, "TypeError: 'float' object is not callable"),
        (lambda a, b: "one", "a str"),
        (lambda a, b: torch.tensor([1.0]), "of shape (1,)"),
        (lambda a, b: float("nan"), "NaN"),
    ],
)
def test_broken_answer_is_told_in_words_and_never_raised(broken, words):
    result = evaluate_answer("99.cosine", broken)
    assert not result.passed and result.done
    assert words in result.got and result.hint


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would show: one MIME bundle for each call of display."""
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def test_check_shows_the_verdict_once_also_as_the_last_line_of_a_cell(shown):
    result = check("99.half", 0.25)
    result._ipython_display_()  # what IPython calls for the last line of a cell
    (bundle,) = shown
    assert bundle[CHECK_MIME]["passed"] is False and bundle[CHECK_MIME]["got"] == "0.25"
    assert "Not yet" in bundle["text/html"] and "Take one of two." in bundle["text/html"]
    assert "expected: one half to be 0.5" in bundle["text/plain"]


def test_what_a_learner_wrote_cannot_break_the_page(shown):
    def answer(a, b):
        raise ValueError("<script>")

    check("99.cosine", answer)
    assert "<script>" not in shown[0]["text/html"] and "&lt;script&gt;" in shown[0]["text/html"]


def test_unknown_exercise_names_the_near_ones():
    with pytest.raises(ValueError, match="no exercise is called '99.cosin'; the nearest are 99.cosine"):
        check("99.cosin", 1)


def test_number_that_is_no_notebook_is_refused_too():
    with pytest.raises(ValueError, match="no exercise is called '98.x'"):
        check("98.x", 1)


def test_every_exercise_of_the_course_is_named_after_its_notebook():
    for info in exercises.pkgutil.iter_modules(exercises.importlib.import_module("lasslab.course.checks").__path__):
        if info.name != "n99_test":
            assert set(exercises.load_checks(info.name[1:3])), f"{info.name} has no checks"
    assert all(name[:3].rstrip(".").isdigit() and callable(run) for name, run in exercises.load_checks().items())


# The helpers that checks are written with.


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1, 1.00001),
        (torch.tensor(2.0, requires_grad=True), 2),
        ([1, 2], torch.tensor([1.0, 2.0])),
        (np.array([1 + 2j]), torch.tensor([1 + 2j])),
        (torch.tensor([1 + 2j]).conj(), np.array([1 - 2j])),
        (torch.zeros(0), []),
        (True, 1),
    ],
)
def test_equal_things_of_any_kind_are_close(got, expected):
    expect_close(got, expected, what="it", hint="")


@pytest.mark.parametrize(
    ("got", "expected", "words"),
    [
        (1.01, 1.0, ("it to be 1", "1.01")),
        ([1.0, 2.0], [1.0, 5.0], ("it to be 5 at index [1]", "2 there")),
        (torch.zeros(2, 3), torch.zeros(3, 2), ("it of shape (3, 2)", "of shape (2, 3)")),
        (torch.tensor([1.0, float("inf")]), [1.0, 2.0], ("it to be finite", "NaN or infinite")),
        ({"a": 1}, 1.0, ("it as a number or a tensor", "a dict")),
        (1 + 1j, 1.0, ("it to be 1", "1+1j")),
    ],
)
def test_differences_are_told_in_words(got, expected, words):
    with pytest.raises(Wrong) as wrong:
        expect_close(got, expected, what="it", hint="look again")
    assert words[0] in wrong.value.expected and words[1] in wrong.value.got and wrong.value.hint == "look again"


def test_shape_is_checked_alone():
    expect_shape(torch.zeros(2, 3), (2, 3), what="it", hint="")
    with pytest.raises(Wrong, match=r"expected it of shape \(2, 3\), got of shape \(3,\)"):
        expect_shape(torch.zeros(3), (2, 3), what="it", hint="")
    with pytest.raises(Wrong, match="a float"):
        expect_shape(1.0, (2, 3), what="it", hint="")
