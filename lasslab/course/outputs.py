"""What a notebook hands to its runner: numbers by `record`, verdicts of exercises, and errors."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from lasslab.course.exercises import CHECK_MIME

METRIC_MIME = "application/vnd.lasslab.metric+json"
CHECKED_TAG = "nbval-check-output"
TRACEBACK = "Traceback (most recent call last)"


def record(name: str, value: Any, *, unit: str = "", digits: int = 2) -> None:
    """Show a number and hand it to the runner, which writes it to run.json and the course report.

    Args:
        name: what is measured, unique in the notebook; a second value under the same name replaces the first.
        value: a finite number, a bool, or a tensor with one element.
        unit: for example ``"dB"``.
        digits: decimals kept, in what is shown and in what is recorded.

    Raises:
        ValueError: the value is not one finite number.
    """
    from IPython.display import display

    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
        raise ValueError(f"record({name!r}, ...) takes one finite number, got {value!r}; reduce it first, say .mean()")
    shown = round(value, digits) if isinstance(value, float) else value
    text = f"{name}: {shown:.{digits}f}" if isinstance(value, float) else f"{name}: {shown}"
    metric = {"name": name, "value": shown, "unit": unit}
    display({"text/plain": f"{text} {unit}".rstrip(), METRIC_MIME: metric}, raw=True)


def find_failure(notebook: Any, *, allow_undone: bool = False) -> str:
    """Return one line about the first thing that went wrong in an executed notebook, "" if nothing did.

    Wrong is: an error in a cell without the tag `raises-exception`, an error or a traceback on stderr
    anywhere, also inside a widget that the page may never show, and an exercise whose check did not pass.
    """
    for where, output, expected in _all_outputs(notebook):
        if expected:
            continue
        if output.get("output_type") == "error":
            return f"{where}: {one_line(output.get('ename', 'error'), output.get('evalue', ''))}"
        if output.get("output_type") == "stream" and output.get("name") == "stderr" and TRACEBACK in output["text"]:
            return f"{where}: {one_line('traceback on stderr', output['text'].strip().splitlines()[-1])}"
        verdict = output.get("data", {}).get(CHECK_MIME)
        if verdict and not verdict["passed"] and (verdict["done"] or not allow_undone):
            got = f"expected {verdict['expected']}, got {verdict['got']}" if verdict["done"] else "not done yet"
            return f"{where}: {one_line('exercise ' + verdict['name'], got)}"
    return ""


def find_difference(notebook: Any, committed: Any) -> str:
    """Return one line about the first cell that shows another text than before, "" if none does.

    Compared are cells tagged `nbval-check-output`, as nbval does, by what they print and by the plain text of what they
    display: a run that has happened anyway need not happen again for it.

    Args:
        notebook: executed now, with the default parameters.
        committed: the same notebook, executed before.
    """
    for index, (cell, before) in enumerate(zip(notebook.cells, committed.cells, strict=True)):
        if CHECKED_TAG in cell.metadata.get("tags", []):
            for now, then in zip_longest(_shown_lines(cell), _shown_lines(before)):
                if now != then:
                    return f"cell {index + 1}: {one_line('another output', f'{now!r} where {then!r} is committed')}"
    return ""


def _shown_lines(cell: Any) -> list[str]:
    """What a cell printed and displayed as plain text, without stderr."""
    text = ""
    for output in cell.get("outputs", []):
        if output.get("output_type") == "stream":
            text += output["text"] if output.get("name") == "stdout" else ""
        else:
            text += output.get("data", {}).get("text/plain", "") + "\n"
    return text.splitlines()


def collect_metrics(notebook: Any) -> dict[str, dict[str, Any]]:
    """Return what the notebook recorded: name -> {"value", "unit"}, in the order of the notebook."""
    found = {}
    for _, output, _ in _all_outputs(notebook):
        metric = output.get("data", {}).get(METRIC_MIME)
        if metric:
            found[metric["name"]] = {"value": metric["value"], "unit": metric["unit"]}
    return found


def read_title(notebook: Any) -> str:
    """Return the first heading."""
    for cell in notebook.cells:
        match = re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if match:
            return match[1].strip()
    return ""


def read_declared(notebook: Any) -> dict[str, str]:
    """Return the limits that the notebook declares in its table ``| time | memory | device |``, by column."""
    for cell in notebook.cells:
        lines = [] if cell.cell_type != "markdown" else cell.source.splitlines()
        rows = [[entry.strip() for entry in line.strip().strip("|").split("|")] for line in lines if "|" in line]
        for header, row in zip(rows, rows[2:], strict=False):
            names = [name.lower() for name in header]
            if {"time", "memory"} <= set(names):
                return dict(zip(names, row, strict=False))
    return {}


def _all_outputs(notebook: Any) -> Iterator[tuple[str, Any, bool]]:
    """Yield every output, also those inside widgets: where it is, the output, whether errors belong there."""
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            yield f"cell {index + 1}", output, "raises-exception" in cell.metadata.get("tags", [])
    models = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    for model in models.get("state", {}).values():
        for output in model.get("state", {}).get("outputs", []):
            yield "inside a widget", output, False


def one_line(kind: str, message: str) -> str:
    """`kind: message` without terminal colours, on one line of bearable length."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", f"{kind}: {message}")
    text = " ".join(text.split())
    return text if len(text) <= 400 else f"{text[:397]}..."
