"""The pages of the course: one for each executed notebook, and the index over all of them.

Every page stands alone and fetches nothing: formulas become MathML, and pictures and sounds are inside the
notebook already.
"""

from __future__ import annotations

import copy
import html
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lasslab.course.runner import RunResult

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_NOTE = "<em>An interactive control: open the notebook in JupyterLab to use it.</em>"

# nbconvert's page, without what it would fetch: require.js, the widget manager, MathJax and mermaid.
PAGE_TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
  main { max-width: 60rem; margin: 0 auto; padding: 0 1rem; }
  .jp-RenderedHTMLCommon math[display="block"] { margin: 0.8em 0; font-size: 1.1em; }
  .jp-RenderedHTMLCommon img { max-width: 100%; height: auto; }
</style>
{%- endblock -%}
"""


def notebook_page(notebook: Any, *, title: str) -> str:
    """Return an executed notebook as one HTML page that needs no network."""
    from jinja2 import pass_context
    from nbconvert import HTMLExporter

    @pass_context
    def markdown(context: Any, source: str) -> str:
        return markdown_to_html(source, attachments=context.get("cell", {}).get("attachments", {}))

    notebook = copy.deepcopy(notebook)
    notebook.metadata["title"] = title
    notebook.metadata.pop("widgets", None)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if WIDGET_VIEW in output.get("data", {}):
            output.data = {"text/html": WIDGET_NOTE}
    exporter = HTMLExporter(raw_template=PAGE_TEMPLATE, filters={"markdown2html": markdown})
    page, _ = exporter.from_notebook_node(notebook)
    return page


def markdown_to_html(source: str, *, attachments: Any = None) -> str:
    """Return a markdown cell as HTML, its formulas as MathML; one that does not convert stays as TeX."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class MathMLRenderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return _to_mathml(body, display="inline", fallback=super().inline_math(body))

        def block_math(self, body: str) -> str:
            return _to_mathml(body, display="block", fallback=super().block_math(body))

        def latex_environment(self, name: str, body: str) -> str:
            tex = rf"\begin{{{name}}}{body}\end{{{name}}}"
            return _to_mathml(tex, display="block", fallback=super().latex_environment(name, body))

    renderer = MathMLRenderer(escape=False, attachments=attachments or {}, embed_images=True)
    return str(MarkdownWithMath(renderer=renderer).render(source))


def _to_mathml(tex: str, *, display: str, fallback: str) -> str:
    from latex2mathml.converter import convert

    tag = re.search(r"\\tag\{([^{}]*)\}", tex)  # the equation's number, which MathML has no place for
    try:
        formula = convert(re.sub(r"\\tag\{[^{}]*\}", "", tex).strip(), display=display)
    except Exception:  # the converter raises many kinds for TeX that it does not know
        return fallback
    if tag is None:
        return formula
    number = f'<span style="flex:none">({html.escape(tag[1])})</span>'
    return f'<div style="display:flex;align-items:center"><div style="flex:auto">{formula}</div>{number}</div>'


def course_page(results: Sequence[RunResult], *, base: Path, planned: int, machine: str = "") -> str:
    """Return the index of a course run: status, time, peak memory, declared limits, metrics and page of each.

    Args:
        results: the runs so far, in order.
        base: the folder that index.html goes to; links are relative to it.
        planned: how many runs there will be.
        machine: one line about commit and device, for the foot of the page.

    Returns:
        HTML that needs no other file and no network.
    """
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    passed = sum(result.passed for result in results)
    state = f"{passed} of {planned} passed" if len(results) == planned else f"{len(results)} of {planned} run"
    facts = {
        "Runs": state,
        "Time": _duration(sum(result.seconds for result in results)),
        "Largest memory": _memory(max((result.peak_memory_mb for result in results), default=0.0)),
    }
    summary = "".join(f"<div><dt>{name}</dt><dd>{html.escape(text)}</dd></div>" for name, text in facts.items())
    articles = "\n".join(_article(result, base) for result in results)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Course report: {html.escape(state)}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>Separating and editing sound with text</h1>
<p class="lead">Each notebook of the course as it ran here: what it took, and what it measured.</p>
<dl class="summary">{summary}</dl>
{articles}
<footer>{html.escape(machine)}</footer>
</main>
</body>
</html>
"""


def _article(result: RunResult, base: Path) -> str:
    """One run as a card."""
    title, verdict = html.escape(result.title), "Passed" if result.passed else "Failed"
    if result.page is not None:
        title = f'<a href="{html.escape(os.path.relpath(result.page, base))}">{title}</a>'
    metrics = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{_value(metric)}</dd></div>" for name, metric in result.metrics.items()
    )
    parts = [
        f'<header><h2>{title}</h2><span class="verdict">{verdict}</span></header>',
        f'<div class="facts">{"".join(_facts(result))}</div>',
        f'<dl class="metrics">{metrics}</dl>' if metrics else "",
        f'<p class="error">{html.escape(result.error)}</p>' if result.error else "",
    ]
    return f'<article class="{verdict.lower()}">{"".join(parts)}</article>'


def _facts(result: RunResult) -> list[str]:
    time, memory, device = (result.declared.get(name) for name in ("time", "memory", "device"))
    facts = [
        _limited("Time", _duration(result.seconds), time, result.seconds),
        _limited("Peak memory", _memory(result.peak_memory_mb), memory, result.peak_memory_mb),
    ]
    for label, text in (("Device", device), ("Corpus", result.parameters.get("corpus"))):
        if text:
            facts.append(f"<span>{label} <b>{html.escape(str(text))}</b></span>")
    return facts


def _limited(label: str, measured: str, declared: str | None, amount: float) -> str:
    """A measured figure beside its declared limit, and in words when it is over."""
    if declared is None:
        return f"<span>{label} <b>{measured}</b></span>"
    limit = read_amount(declared)
    over = limit is not None and amount > limit
    words = "over the declared" if over else "declared"
    css = ' class="over"' if over else ""
    return f"<span{css}>{label} <b>{measured}</b> ({words} {html.escape(declared)})</span>"


def read_amount(text: str) -> float | None:
    """Read "90 s", "2 min", "800 MB" or "1.5 GB" as seconds or megabytes; None when it is none of these."""
    match = re.search(r"(\d+(?:\.\d+)?)\s*(s|sec|seconds?|min|minutes?|MB|GB)\b", text, re.IGNORECASE)
    if match is None:
        return None
    unit = match[2].lower()
    factor = 1024.0 if unit == "gb" else 60.0 if unit.startswith("min") else 1.0
    return float(match[1]) * factor


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _memory(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1024:.1f} GB"


def _value(metric: dict[str, Any]) -> str:
    return html.escape(f"{metric['value']} {metric['unit']}".rstrip())
