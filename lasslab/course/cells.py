"""What the statements of a notebook's code cells read and bind: enough to follow an answer through a notebook."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Statement:
    """One top-level statement of a cell.

    `reads` are the names it needs from before it, also from inside functions it defines; `binds` the names it makes
    or changes (``x = 1``, ``import x``, ``x[0] = 1``, ``def x``); `line` counts from 1 in the cell.
    """

    cell: int
    line: int
    source: str
    node: ast.stmt
    reads: frozenset[str]
    binds: frozenset[str]


def cell_statements(source: str, *, cell: int, notebook: str) -> list[Statement]:
    """Take a code cell apart.

    Args:
        source: the cell's text; IPython's lines that begin with % or ! are left out.
        cell: its index in the notebook, from 0.
        notebook: the notebook's name, for messages.

    Returns:
        The statements, in order.

    Raises:
        ValueError: the cell is not Python.
    """
    text = re.sub(r"^([ \t]*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)
    try:
        nodes = ast.parse(text).body
    except SyntaxError as error:
        raise ValueError(f"{notebook}, cell {cell + 1}, line {error.lineno}: {error.msg}; is it Python?") from None
    found = []
    for node in nodes:
        code = ast.get_source_segment(text, node) or ""
        if decorators := getattr(node, "decorator_list", []):  # the segment begins at `def`
            first = decorators[0].lineno - 1
            code = "\n".join(text.splitlines()[first : node.end_lineno])
        try:
            reads, binds = _names(node)
        except SyntaxError as error:  # a return outside of a function parses, and does not compile
            raise ValueError(f"{notebook}, cell {cell + 1}, line {node.lineno}: {error.msg}") from None
        found.append(Statement(cell, node.lineno, code, node, frozenset(reads), frozenset(binds)))
    return found


def notebook_statements(notebook: Any, *, name: str) -> list[Statement]:
    """Take all code cells of a notebook apart; see `cell_statements`."""
    cells = [(index, cell) for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    return [s for index, cell in cells for s in cell_statements(cell.source, cell=index, notebook=name)]


def statements_needed_for(names: set[str], before: list[Statement]) -> list[Statement]:
    """Return the statements of `before` that make `names`, and what these need themselves, in order.

    A statement that changes a thing through a method alone (``model.eval()``) is not seen.
    """
    wanted, chosen = set(names), []
    for statement in reversed(before):
        if not statement.binds & wanted:
            continue
        chosen.append(statement)
        if makes_anew(statement):
            wanted -= statement.binds
        wanted |= statement.reads
    return chosen[::-1]


def makes_anew(statement: Statement) -> bool:
    """Whether what it binds depends on nothing that was under these names before."""
    node = statement.node
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
        return True
    targets = node.targets if isinstance(node, ast.Assign) else []
    flat = [e for t in targets for e in (t.elts if isinstance(t, (ast.Tuple, ast.List)) else [t])]
    return bool(flat) and all(isinstance(target, ast.Name) for target in flat)


def checked_exercises(statement: Statement) -> list[tuple[str, str]]:
    """Return the ``check("04.name", answer)`` calls in a statement: each exercise's name, its answer's source."""
    calls = [node for node in ast.walk(statement.node) if isinstance(node, ast.Call)]
    calls = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "check" and len(c.args) == 2]
    return [(c.args[0].value, ast.unparse(c.args[1])) for c in calls if isinstance(c.args[0], ast.Constant)]


def _names(node: ast.stmt) -> tuple[set[str], set[str]]:
    """Names that a statement reads from outside, and names that it binds or changes."""
    table = symtable.symtable(ast.unparse(node), "cell", "exec")
    reads = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    binds = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    binds |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_namespace()}
    for scope in _scopes_below(table):
        reads |= {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global() and symbol.is_referenced()}
    if isinstance(node, ast.AugAssign):
        reads |= {_base(node.target)}
    changed = [part for part in ast.walk(node) if isinstance(part, (ast.Subscript, ast.Attribute))]
    binds |= {_base(part) for part in changed if isinstance(part.ctx, ast.Store)} & reads
    return reads - {""}, binds - {""}


def _scopes_below(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _scopes_below(child)


def _base(target: ast.expr) -> str:
    """`x` of ``x[0].y``; "" if it is no name."""
    while isinstance(target, (ast.Subscript, ast.Attribute, ast.Starred)):
        target = target.value
    return target.id if isinstance(target, ast.Name) else ""
