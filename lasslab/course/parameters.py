"""The parameters of a notebook: read from its tagged cell, checked, and taken from presets and strings."""

from __future__ import annotations

import ast
import contextlib
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's `parameters` cell: its default, and the choices its comment allows."""

    name: str
    default: Any
    choices: tuple[str, ...] = ()


def read_parameters(path: Path | str) -> dict[str, Parameter]:
    """Read the cell tagged `parameters`: lines of ``name = literal``, some with a comment ``# one of: a, b``.

    Args:
        path: the notebook.

    Returns:
        Name -> parameter, in the order of the cell.

    Raises:
        ValueError: no such notebook, no such cell, or a value that is derived rather than plain.
    """
    path = Path(path)
    cells = [c for c in read_notebook(path).cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1 or cells[0].cell_type != "code":
        raise ValueError(f"{path.name}: expected one code cell tagged 'parameters', found {len(cells)}; tag one")
    source = cells[0].source
    choices = _choices_in_comments(source)
    parameters = {}
    for node in _statements(path, source):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        try:
            name, default = target.id, ast.literal_eval(node.value)
        except (AttributeError, ValueError):
            line = ast.get_source_segment(source, node)
            raise ValueError(
                f"{path.name}: the parameters cell holds {line!r}; write only lines of name = plain value"
            ) from None
        parameters[name] = Parameter(name, default, choices.get(node.lineno, ()))
    return parameters


def check_parameters(path: Path | str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` with every value in its parameter's type, or refuse it.

    Args:
        path: the notebook.
        given: name -> value. An int is accepted where the default is a float; a list's elements follow the default's
            first element.

    Returns:
        Name -> value, for the given names only.

    Raises:
        ValueError: an unknown name (near ones are named), a wrong type, or a value outside the choices.
    """
    path = Path(path)
    known = read_parameters(path)
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, n=3, cutoff=0.4)
            remedy = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known) or 'none'}"
            raise ValueError(f"{path.name} has no parameter {name!r}; {remedy}")
    return {name: _checked_value(path, known[name], value) for name, value in given.items()}


def parse_parameters(path: Path | str, strings: Mapping[str, str]) -> dict[str, Any]:
    """Turn command-line strings into parameter values by the type of each default, and check them.

    Args:
        path: the notebook.
        strings: name -> text; lists are written as in YAML, ``[-15, 15]``.

    Returns:
        Name -> value, checked.

    Raises:
        ValueError: as `check_parameters`, or a string that does not read as the type.
    """
    known = read_parameters(path)
    values = {n: _parse(s, known[n].default) if n in known else s for n, s in strings.items()}
    return check_parameters(path, values)


def read_preset(path: Path | str, preset: str) -> dict[str, Any]:
    """Return the parameters that ``presets/<preset>.yml``, beside the notebook, gives this notebook.

    Args:
        path: the notebook.
        preset: the name of the preset.

    Returns:
        Name -> value, checked; empty when the preset leaves this notebook at its defaults.

    Raises:
        ValueError: no such preset, no section for this notebook in it, or one that does not fit the notebook.
    """
    import yaml

    path = Path(path)
    file = path.parent / "presets" / f"{preset}.yml"
    if not file.is_file():
        available = ", ".join(sorted(f.stem for f in file.parent.glob("*.yml"))) or "none"
        raise ValueError(f"no preset {preset!r} for {path.name}; available: {available}")
    sections = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    if path.stem not in sections:
        raise ValueError(f"preset {preset!r} has no section {path.stem!r} in {file.name}; add one, or run without it")
    try:
        return check_parameters(path, sections[path.stem] or {})
    except ValueError as error:
        raise ValueError(f"preset {preset!r}: {error}") from None


def read_notebook(path: Path) -> Any:
    import nbformat

    if not path.is_file():
        raise ValueError(f"no notebook at {path}; give the path of an .ipynb file")
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises a different type for each way a file can be broken
        raise ValueError(f"{path} is not a readable notebook: {type(error).__name__}") from error


def _statements(path: Path, source: str) -> list[Any]:
    try:
        return ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{path.name}: the parameters cell does not parse: line {error.lineno}: {error.msg}") from None


def _choices_in_comments(source: str) -> dict[int, tuple[str, ...]]:
    """Map line numbers to the values listed in a comment ``# one of: a, b``."""
    found = {}
    with contextlib.suppress(tokenize.TokenError, SyntaxError):  # a cell that does not parse is told elsewhere
        for token in tokenize.generate_tokens(StringIO(source).readline):
            match = re.match(r"#\s*one of:\s*([^;(]+)", token.string) if token.type == tokenize.COMMENT else None
            if match:
                found[token.start[0]] = tuple(choice.strip() for choice in match[1].split(","))
    return found


def _checked_value(path: Path, parameter: Parameter, value: Any) -> Any:
    if not _same_type(value, parameter.default):
        wanted = _type_name(parameter.default)
        raise ValueError(f"{path.name}: {parameter.name} takes {wanted}, got {value!r} ({_type_name(value)})")
    if isinstance(parameter.default, float):
        value = float(value)
    if parameter.choices and str(value) not in parameter.choices:
        raise ValueError(f"{path.name}: {parameter.name} is one of {', '.join(parameter.choices)}; got {value!r}")
    return value


def _same_type(value: Any, default: Any) -> bool:
    if default is None:
        return value is None or isinstance(value, (bool, int, float, str))
    if isinstance(default, (list, tuple)):
        elements = isinstance(value, (list, tuple)) and (not default or all(_same_type(v, default[0]) for v in value))
        return bool(elements)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)  # exact: True is no int here


def _type_name(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"a list of {type(value[0]).__name__}" if value else "a list"
    return type(value).__name__


def _parse(text: str, default: Any) -> Any:
    """Read a command-line string as the type of `default`; one that does not fit is refused afterwards."""
    import yaml

    if isinstance(default, str):
        return text
    with contextlib.suppress(ValueError):
        if isinstance(default, bool):
            return {"true": True, "false": False}.get(text.lower(), text)
        if isinstance(default, (int, float)):
            return type(default)(text)
    with contextlib.suppress(yaml.YAMLError):
        return yaml.safe_load(text)
    return text
