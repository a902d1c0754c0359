"""The student edition: the notebooks without the solutions of their exercises.

The notebooks are the one source. What stands in them between ``# BEGIN SOLUTION`` and ``# END SOLUTION`` becomes a
stub that says "not done yet": a function keeps its signature and docstring, any other answer becomes ``name = None``.
What a cell showed because of a solution goes as well, and the finished notebook is searched for every line of every
solution before it is written. Like the course, the edition runs from top to bottom.

``lasslab student -o DIR`` writes a folder that works by itself wherever lasslab is installed. Written into a folder
again, it replaces what nobody has touched, and stops before it would replace somebody's work.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lasslab.course.cells import Statement, cell_statements, checked_exercises, makes_anew, notebook_statements
from lasslab.course.outputs import CHECKED_TAG
from lasslab.signal.files import write_text

BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
NOT_DONE = "not done yet"
MANIFEST = ".lasslab-student.json"
SHORTEST_LINE = 13  # characters; `return total` says nothing
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


@dataclass(frozen=True)
class Solution:
    """The lines between one pair of markers: cell index, first and last line (the markers, from 0), and the text."""

    cell: int
    first: int
    last: int
    text: str

    def telling_lines(self) -> list[str]:
        """Lines that give the answer away: no signature, docstring, comment, import, and nothing very short."""
        lines = textwrap.dedent(self.text).splitlines()
        kept: list[str] = []
        try:
            nodes = list(ast.walk(ast.parse("\n".join(lines))))
        except SyntaxError:  # a part of a statement, inside a function
            nodes = []
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                kept += _head(node, lines)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                kept += lines[node.lineno - 1 : node.end_lineno]
        plain = [_squeezed(line.split("  #")[0]) for line in lines if line not in kept]
        return [line for line in plain if len(line) >= SHORTEST_LINE and not line.startswith("#")]


def write_student_edition(notebooks: Path | str, *, output_dir: Path | str) -> list[Path]:
    """Write the student edition of a course into a folder.

    Nothing is written unless everything can be: every notebook is made and searched for solutions first, and every
    file in the way must be one that this function wrote and nobody changed since. The same notebooks give the same
    bytes.

    Args:
        notebooks: the folder of the course, with its presets.
        output_dir: made if missing. Files in it that are not part of the edition stay.

    Returns:
        The files of the edition, sorted.

    Raises:
        ValueError: no notebooks there, a notebook whose solutions cannot be taken out, `output_dir` is the course's
            own folder or a file, or work in it would be lost.
    """
    source, folder = Path(notebooks), Path(output_dir)
    files = student_files(source)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder for the student edition")
    if folder.resolve() == source.resolve():
        raise ValueError(f"{folder} holds the course itself; name another folder for the student edition")
    before = _read_manifest(folder)
    stale = [name for name in before if name not in files and _digest_of(folder / name) == before[name]]
    changed = [name for name, text in files.items() if not _may_write(folder / name, text, before.get(name))]
    if changed:
        raise ValueError(
            f"{folder} holds work that would be lost: {', '.join(sorted(changed))} changed since the student edition "
            "was written there; give -o another folder, or move them away"
        )
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if _digest_of(path) != _digest(text):
            write_text(path, text)
    for name in stale:
        (folder / name).unlink()
    digests = {name: _digest(text) for name, text in sorted(files.items())}
    write_text(folder / MANIFEST, json.dumps({"files": digests}, indent=1) + "\n")
    return [folder / name for name in sorted(files)]


def student_files(notebooks: Path | str) -> dict[str, str]:
    """Return what the student edition of a course consists of.

    Args:
        notebooks: the folder of the course.

    Returns:
        Path below the edition's folder -> contents: the notebooks, the presets, a README.

    Raises:
        ValueError: no notebooks there, or one whose solutions cannot be taken out.
    """
    import nbformat

    from lasslab.course.parameters import read_notebook

    folder = Path(notebooks)
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise ValueError(f"no notebooks named like 00_start_here.ipynb in {folder}; give the course's folder")
    files: dict[str, str] = {}
    rows = []
    for path in paths:
        edition = student_notebook(read_notebook(path), name=path.name)
        files[path.name] = nbformat.writes(edition) + "\n"
        exercises = [n for s in notebook_statements(edition, name=path.name) for n, _ in checked_exercises(s)]
        rows.append((path.name, exercises))
    for path in sorted((folder / "presets").glob("*.yml")):
        files[f"presets/{path.name}"] = path.read_text(encoding="utf-8")
    files["README.md"] = _readme(rows)
    return files


def student_notebook(notebook: Any, *, name: str) -> Any:
    """Return a copy of a notebook with its solutions replaced by stubs.

    Args:
        notebook: as nbformat reads it.
        name: its file name, for messages.

    Returns:
        The student's notebook. It shares nothing with the teacher's.

    Raises:
        ValueError: markers that do not pair; an answer that nothing checks; a cell that would fail while the answer
            is missing; a line of a solution that stands somewhere else in the notebook as well.
    """
    solutions = find_solutions(notebook, name=name)
    edition = copy.deepcopy(notebook)
    statements = notebook_statements(notebook, name=name)
    answers: dict[int, frozenset[str]] = {}
    for solution in reversed(solutions):  # from the last, so that line numbers stay right
        stub, made = _stub(solution, notebook, statements, name=name)
        answers[solution.cell] = answers.get(solution.cell, frozenset()) | made
        lines = edition.cells[solution.cell].source.splitlines()
        lines[solution.first : solution.last + 1] = stub
        edition.cells[solution.cell].source = "\n".join(lines)
    undone = {solution.cell for solution in solutions}
    undone |= _cells_that_depend_on(answers, notebook_statements(edition, name=name), name=name)
    _clear(edition, undone)
    _refuse_leaks(edition, solutions, name=name)
    return edition


def find_solutions(notebook: Any, *, name: str) -> list[Solution]:
    """Return what stands between the markers of a notebook, in order.

    Args:
        notebook: as nbformat reads it.
        name: its file name, for messages.

    Returns:
        The solutions.

    Raises:
        ValueError: a marker without its partner, inside another pair, or outside of a code cell.
    """
    found = []
    for index, cell in enumerate(notebook.cells):
        begun: int | None = None
        lines = cell.source.splitlines()
        for number, line in enumerate(lines):
            if line.strip() not in (BEGIN, END):
                continue
            where = f"{name}, cell {index + 1}, line {number + 1}"
            if cell.cell_type != "code":
                raise ValueError(f"{where}: {line.strip()} outside of a code cell; put the solution into one")
            if (line.strip() == BEGIN) == (begun is not None):
                raise ValueError(f"{where}: {line.strip()} without its partner; the two come in turn")
            if begun is None:
                begun = number
                continue
            found.append(Solution(index, begun, number, "\n".join(lines[begun + 1 : number])))
            begun = None
        if begun is not None:
            raise ValueError(f"{name}, cell {index + 1}, line {begun + 1}: {BEGIN} without {END}; close it in the cell")
    return found


def _stub(
    solution: Solution, notebook: Any, statements: list[Statement], *, name: str
) -> tuple[list[str], frozenset[str]]:
    """The lines that take a solution's place, and the names that are "not done yet" with them."""
    source = notebook.cells[solution.cell].source
    where = f"{name}, cell {solution.cell + 1}"
    around = [
        s for s in statements if s.cell == solution.cell and s.line - 1 < solution.first < (s.node.end_lineno or 0)
    ]
    if around:  # markers inside a function: the rest of the function is given
        return _stub_inside(solution, source, around[0], where=where), around[0].binds
    made = cell_statements(solution.text, cell=solution.cell, notebook=name)
    later = [s for s in statements if s.cell > solution.cell]
    later += [s for s in statements if s.cell == solution.cell and s.line - 1 > solution.last]
    wanted = frozenset().union(*(s.reads for s in later))
    stub: list[str] = []
    names: set[str] = set()
    for statement in made:
        kept = sorted(statement.binds & wanted)
        if not kept or isinstance(statement.node, (ast.Import, ast.ImportFrom)):
            continue
        if isinstance(statement.node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            blank = [""] * 2 if stub else []
            stub += blank + _empty(statement.node, solution.text.splitlines())
        else:
            stub += [f"{each} = None  # {NOT_DONE}" for each in kept if each not in names]
        names.update(kept)
    if names and isinstance(made[-1].node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        stub += [""]
    if not stub:
        raise ValueError(f"{where}: nothing reads what the solution makes; check it below {END}")
    return stub, frozenset(names)


def _stub_inside(solution: Solution, source: str, outer: Statement, *, where: str) -> list[str]:
    functions = [node for node in ast.walk(outer.node) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    if not any(function.lineno <= solution.first < (function.end_lineno or 0) for function in functions):
        raise ValueError(f"{where}: the markers stand in a block that is no function; move them around the block")
    marker = source.splitlines()[solution.first]
    indent = marker[: len(marker) - len(marker.lstrip())]
    if isinstance(outer.node, ast.ClassDef):  # a method that returns nothing would fail later, with other words
        return [f'{indent}raise NotImplementedError("{NOT_DONE}")']
    return [f"{indent}return None  # {NOT_DONE}"]


def _empty(node: ast.stmt, lines: list[str]) -> list[str]:
    """A function or class with its signature and docstring, and nothing in it."""
    inner = " " * (node.col_offset + 4)
    if not isinstance(node, ast.ClassDef):
        return [*_head(node, lines), f"{inner}return None  # {NOT_DONE}"]
    body: list[str] = []
    for method in node.body:
        if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)):  # `check` knows this error for a stub
            head = _head(method, lines)
            body += [*([""] if body else []), *head, f'{inner}    raise NotImplementedError("{NOT_DONE}")']
    return [*_head(node, lines), *(body or [f"{inner}pass  # {NOT_DONE}"])]


def _head(node: Any, lines: list[str]) -> list[str]:
    """Decorators, signature and docstring of a function or class, as they were written."""
    first = _first_line(node)
    begin = _first_line(node.body[0])
    before = lines[begin - 1].encode()[: node.body[0].col_offset].decode()
    if before.strip():  # the body begins on the signature's line: `def f(x): return x`
        return [*lines[first - 1 : begin - 1], before.rstrip()]
    head = [line for line in lines[first - 1 : begin - 1] if line.strip() and not line.strip().startswith("#")]
    has_docstring = ast.get_docstring(node) is not None
    return head + (lines[begin - 1 : node.body[0].end_lineno] if has_docstring else [])


def _first_line(node: Any) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def _cells_that_depend_on(answers: Mapping[int, frozenset[str]], statements: list[Statement], *, name: str) -> set[int]:
    """Follow the answers through the notebook.

    A cell may hand an answer to `check`, define functions that use it, or use it under an ``if``: these run while the
    answer is missing. Anything else would fail, and is refused.

    Args:
        answers: cell index -> names that its stub leaves "not done yet".
        statements: those of the student's notebook.
        name: the notebook's, for messages.

    Returns:
        Indices of the cells whose outputs come of an answer.

    Raises:
        ValueError: a cell uses an answer in another way.
    """
    missing: set[str] = set()  # to use these fails
    tinged: set[str] = set()  # these exist, and come of an answer
    known: set[str] = set()
    cells: set[int] = set()
    for statement in statements:
        node, used = statement.node, statement.reads & missing
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or _is_none(node):
            undone = statement.binds & answers.get(statement.cell, frozenset())
            now_missing = statement.binds if undone or used else frozenset()
            now_tinged = statement.binds if statement.reads & tinged else frozenset()
        else:
            if used and not _runs_without(statement, missing):
                raise ValueError(
                    f"{name}, cell {statement.cell + 1}, line {statement.line}: uses {', '.join(sorted(used))}, which "
                    "the student edition does not have yet; put it under `if check(...):`"
                )
            comes_of_one = bool(used or statement.reads & tinged)
            if comes_of_one:
                cells.add(statement.cell)
            skipped = isinstance(node, ast.If) and comes_of_one and not node.orelse
            now_missing = statement.binds - known if skipped else frozenset()
            now_tinged = statement.binds if comes_of_one else frozenset()
        made_anew = statement.binds if makes_anew(statement) else frozenset()
        missing = missing - made_anew | now_missing
        tinged = tinged - made_anew | now_tinged
        known |= statement.binds
    return cells


def _runs_without(statement: Statement, missing: set[str]) -> bool:
    """Whether a statement that uses a missing answer runs all the same."""
    node = statement.node
    if checked_exercises(statement):
        return True
    if not isinstance(node, ast.If):
        return False
    parts = list(ast.walk(node.test))
    asks = any(isinstance(part, ast.Constant) and part.value is None for part in parts)
    return asks or not any(isinstance(part, ast.Name) and part.id in missing for part in parts)


def _is_none(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value is None


def _clear(notebook: Any, cells: set[int]) -> None:
    """Take away what these cells showed, and all widgets if one of them showed a widget."""
    shown = {i: [o for o in c.get("outputs", []) if WIDGET_VIEW in o.get("data", {})] for i, c in _numbered(notebook)}
    if any(shown.get(index) for index in cells):  # widgets hang together; the state of one alone is nothing
        notebook.metadata.get("widgets", {}).pop(WIDGET_STATE, None)
        cells = cells | {index for index, views in shown.items() if views}
    for index in cells:
        cell = notebook.cells[index]
        cell.outputs, cell.execution_count = [], None
        tags = [tag for tag in cell.metadata.get("tags", []) if tag != CHECKED_TAG]
        if "tags" in cell.metadata:
            cell.metadata["tags"] = tags
            if not tags:
                del cell.metadata["tags"]


def _numbered(notebook: Any) -> Iterator[tuple[int, Any]]:
    return ((index, cell) for index, cell in enumerate(notebook.cells) if cell.cell_type == "code")


def _refuse_leaks(notebook: Any, solutions: list[Solution], *, name: str) -> None:
    lines = {line: solution.cell for solution in solutions for line in solution.telling_lines()}
    places = [(f"cell {index + 1}", cell) for index, cell in enumerate(notebook.cells)]
    for where, part in [*places, ("the metadata", notebook.metadata)]:
        for text in map(_squeezed, _strings(part)):
            leak = next((line for line in lines if line in text), None)
            if leak is not None:
                raise ValueError(
                    f"{name}, {where} holds a line of the solution in cell {lines[leak] + 1}, {leak!r}; write it "
                    "differently in one of the two"
                )


def _strings(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, Mapping):
        for key, value in part.items():
            yield key
            yield from _strings(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from _strings(value)


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _may_write(path: Path, text: str, digest_before: str | None) -> bool:
    """Whether nothing is lost: no file there, the same file, or the one that was written last time."""
    if not path.exists() and not path.is_symlink():
        return True
    return _digest_of(path) in (_digest(text), digest_before or "never")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()


def _digest_of(path: Path) -> str:
    """Of a text file, whichever line ends the system writes; "" where there is none."""
    if not path.is_file():
        return ""
    return _digest(path.read_text(encoding="utf-8", errors="surrogateescape"))


def _read_manifest(folder: Path) -> dict[str, str]:
    """What was written last time: path -> SHA-256. Paths that would leave the folder are not ours."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        inside = folder.resolve()
        return {n: digest for n, digest in files.items() if (folder / n).resolve().is_relative_to(inside)}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged; give -o another folder, or remove that file") from None


def _readme(rows: list[tuple[str, list[str]]]) -> str:
    table = "\n".join(f"| [{name}]({name}) | {', '.join(f'`{e}`' for e in exercises)} |" for name, exercises in rows)
    return f"""# Separating and editing sound with text: the student edition

Open this folder in JupyterLab (`python -m jupyterlab` with an environment in which lasslab is installed; in the
course's repository, `make lab` sets one up in `.venv`). Begin with `{rows[0][0]}`, and run each notebook from the top:
a cell with Shift and Enter.

Every notebook runs as it is. An exercise is a cell with a line that ends in `# {NOT_DONE}`:

1. Replace that line with your own code. Keep the name, and the arguments of a function.
2. Run the cell. The last line of it, `check(...)`, tells you in words what it expected, what came, and a hint.
3. Not right yet? Change it and run it again, as often as you like. No check is ever counted.

| notebook | exercises |
|---|---|
{table}

`lasslab doctor` says whether this machine can run the course. `presets/` holds larger settings of the notebooks:
`lasslab run {rows[-1][0]} --preset lab -o runs/mine` runs one with them, and refuses a notebook whose exercises are
not done. The folder is yours: a newer edition is never written over what you changed.
"""
