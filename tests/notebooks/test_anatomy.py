"""The anatomy of a notebook: every one has the same parts, so that a reader finds them without looking."""

import re
from pathlib import Path

import pytest

from lasslab.course.cells import checked_exercises, notebook_statements
from lasslab.course.parameters import read_notebook

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def texts_of(path):
    return [cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown"]


@every_notebook
def test_opens_with_what_the_reader_can_do_afterwards(path):
    opening = texts_of(path)[0]
    promise = opening.partition("**You will be able to**")[2]
    assert len(re.findall(r"^- ", promise, flags=re.MULTILINE)) >= 3


@every_notebook
def test_the_cell_of_parameters_comes_first_among_the_code(path):
    code = [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]
    assert "parameters" in code[0].metadata.get("tags", [])


@every_notebook
def test_every_displayed_equation_has_a_number_of_its_own(path):
    text = "\n".join(texts_of(path))
    displayed = re.findall(r"\$\$(.+?)\$\$", text, flags=re.DOTALL)
    numbers = [re.findall(r"\\tag\{([^}]+)\}", equation) for equation in displayed]
    assert displayed and all(len(found) == 1 for found in numbers), [e for e in displayed if r"\tag" not in e]
    flat = [number for (number,) in numbers]
    assert len(set(flat)) == len(flat)


@every_notebook
def test_an_equation_that_the_text_refers_to_exists(path):
    text = "\n".join(texts_of(path))
    numbers = set(re.findall(r"\\tag\{([^}]+)\}", text))
    named = set(re.findall(r"[Ee]quations? \((\d+)\)", text))
    assert named <= numbers, "equations of a paper are named with the paper"


@every_notebook
def test_says_once_whose_numbers_the_equations_have(path):
    assert re.search(r"number(ed|ing)\b", "\n".join(texts_of(path)))


@every_notebook
def test_a_cell_asserts_that_the_plain_version_and_the_packages_agree(path):
    statements = notebook_statements(read_notebook(path), name=path.name)
    written = {name: s.source for s in statements if s.source.startswith(("def ", "class ")) for name in s.binds}
    plain = {name for name in written if re.match(r"naive_|My[A-Z]|\w+_by_hand", name)}
    assert plain, "write it out once, as naive_..., ..._by_hand or class My..."
    asserting = {name for name, source in written.items() if "assert" in source}
    comes_of_it, agreed = set(plain), []
    for statement in (s for s in statements if not s.binds & set(written) and s.reads & (set(written) | comes_of_it)):
        if statement.reads & comes_of_it:
            comes_of_it |= statement.binds
            if "assert" in statement.source or statement.reads & asserting:
                agreed.append(statement.cell)
    assert agreed, "no cell asserts that the plain version and the package's agree"
    assert any(re.match(r"from lasslab|import lasslab", s.source) for s in statements)


@every_notebook
def test_exercises_are_numbered_and_asked_above_their_check(path):
    notebook = read_notebook(path)
    asked, checked = [], []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            asked += [(int(number), index) for number in re.findall(r"\*\*Exercise (\d+)", cell.source)]
    for statement in notebook_statements(notebook, name=path.name):
        checked += [statement.cell for _ in checked_exercises(statement)]
    assert [number for number, _ in asked] == list(range(1, len(checked) + 1))
    assert all(question < answer for (_, question), answer in zip(asked, checked, strict=True))


@every_notebook
def test_ends_with_what_to_remember_and_where_to_read_more(path):
    headings = re.findall(r"^## (.+)$", "\n".join(texts_of(path)), flags=re.MULTILINE)
    assert headings[-2:] == ["What to remember", "Where to read more"]
    remember, _, more = "\n".join(texts_of(path)).partition("## What to remember")[2].partition("## Where to read more")
    for part in (remember, more):
        assert len(re.findall(r"^- ", part, flags=re.MULTILINE)) >= 2


@every_notebook
def test_links_to_other_notebooks_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#]+\.ipynb)\)", "\n".join(texts_of(path)))
    assert not [link for link in links if not (path.parent / link).is_file()]
