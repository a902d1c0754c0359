"""Tables of a Markdown file, made again from JSON reports: no figure in a README is typed.

    python -m lasslab.evaluation.readme README.md --reports DIR [--check]

Between `<!-- table: NAME -->` and `<!-- end table -->`, each on a line of its own, stands what `NAME.json` in DIR says:
a file that `lasslab evaluate separation`, `editing` or `wording` wrote with `--json`. What follows the name chooses:

    <!-- table: fold4 -->                       scores with floors and ceiling, or what free wording and absence cost
    <!-- table: fold4, by class -->             the breakdown by class; also `by snr`
    <!-- table: fold4, differences -->          paired differences between the systems of a report
    <!-- table: fold4, generative -->           separation, embedding metrics and seconds in one table; also of several
                                                reports on the same pairs and in the same embedding
    <!-- table: fold4, generative differences -->  paired differences of the embedding metrics, to the mixture too
    <!-- table: steps, by steps -->             quality and seconds of systems that sample, against the number of steps
    <!-- table: edits -->                       editors between floor and ceiling; also of several reports on the same
                                                edits; and `edits, by task`, `absent`, `differences`, `by steps`
    <!-- table: unfiltered filtered -->         two lists beside one another; wording reports: one row for each system

Markers inside a code fence are left alone. The file is written whole or not at all; `--check` writes nothing and exits
with 1 where a table is not what the reports say.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lasslab.evaluation import editing_tables, embedding_tables, tables
from lasslab.signal.files import write_text

START = re.compile(r"<!--\s*table:\s*(?P<names>[^,]+?)\s*(?:,\s*(?P<view>[^,]+?)\s*)?-->")
END = re.compile(r"<!--\s*end table\s*-->")
VIEWS = (
    None,
    "by class",
    "by snr",
    "differences",
    "generative",
    "generative differences",
    "by steps",
    "by task",
    "absent",
)


def fill_tables(text: str, reports: Path, *, where: str = "text") -> tuple[str, int]:
    """Put tables between their markers.

    Args:
        text: a Markdown file.
        reports: folder of JSON reports.
        where: what messages call the file.

    Returns:
        The text with its tables made again, and how many there are.

    Raises:
        ValueError: there is no marker, one is not closed, or a report is missing or of another kind; names file and
            line.
    """
    lines: list[str] = []
    opened: tuple[int, str] | None = None
    count, fenced = 0, False
    for number, line in enumerate(text.splitlines(), start=1):
        fenced ^= line.lstrip().startswith("```")
        start, end = (None, None) if fenced else (START.fullmatch(line.strip()), END.fullmatch(line.strip()))
        if start and opened or end and not opened:
            raise ValueError(f"{where}, line {number}: {line.strip()} without {_other(opened)}")
        if start:
            opened = number, line.strip()
            try:
                table = make_table(start["names"].split(), start["view"], reports)
            except ValueError as error:
                raise ValueError(f"{where}, line {number}: {error}") from error
            lines += [line, "", table, ""]
            count += 1
        elif end:
            opened = None
        if not opened and not start:
            lines.append(line)
    if opened:
        raise ValueError(f"{where}, line {opened[0]}: {opened[1]} is not closed: add <!-- end table -->")
    if not count:
        raise ValueError(f"{where} has no table: put <!-- table: NAME --> and <!-- end table --> where one belongs")
    return "\n".join(lines) + "\n", count


def _other(opened: tuple[int, str] | None) -> str:
    return f"the end of the table of line {opened[0]}" if opened else "a <!-- table: NAME --> before it"


def make_table(names: Sequence[str], view: str | None, reports: Path) -> str:
    """One table.

    Args:
        names: reports, by file name without suffix.
        view: one of `VIEWS`.
        reports: their folder.

    Returns:
        Markdown: what was measured, the table, and where the figures come from.

    Raises:
        ValueError: unknown view, or a report that is missing, unreadable, or does not hold what the view shows.
    """
    if view not in VIEWS:
        raise ValueError(f"unknown view {view!r}: use {', '.join(name for name in VIEWS if name)}")
    found = {name: _read(reports / f"{name}.json") for name in names}
    if len({kind for kind, _, _ in found.values()}) > 1:
        raise ValueError(f"{' and '.join(names)} are reports of different kinds: give each a table of its own")
    kind, first, differences = next(iter(found.values()))
    if len(found) > 1 and view not in (None, "generative", "by steps") and kind != "editing":
        raise ValueError(f"{view} shows one report, got {', '.join(names)}")
    every = [report for _, group, _ in found.values() for report in group]
    if kind == "wording":
        return _wording_table(every, view)
    if kind == "editing":
        return _editing_table(every, differences if len(found) == 1 else [], view)
    if view in ("by task", "absent"):
        raise ValueError(f"{view} is of editors, {names[0]}.json is a report of separators")
    if view in ("generative", "generative differences", "by steps"):
        return _generative_table(every, differences, view)
    if view == "differences":
        if not differences:
            raise ValueError(f"{names[0]}.json holds one system: differences need two")
        blocks = [f"{first[0]['heading']}.", tables.differences(differences).markdown()]
    elif view is not None:
        kind_of_group = view.removeprefix("by ")
        broken_down = tables.breakdowns(first, kind_of_group)
        if not broken_down:
            raise ValueError(f"the pairs of {names[0]}.json have no breakdown {view}")
        blocks = [f"{first[0]['heading']}."]
        for title, table in broken_down:
            blocks += [f"{title}:", table.markdown()]
    elif len(found) > 1:
        blocks = [f"{name}: {group[0]['heading']}." for name, (_, group, _) in found.items()]
        blocks.append(tables.side_by_side({name: group for name, (_, group, _) in found.items()}).markdown())
    else:
        blocks = [f"{first[0]['heading']}.", tables.scores(first, spread=False).markdown()]
        blocks.append(" ".join(tables.score_notes(first)))
    return "\n\n".join([*blocks, _source(every)])


def _generative_table(reports: Sequence[dict[str, Any]], differences: Sequence[dict[str, Any]], view: str) -> str:
    embedding_tables.check_embedding(reports)
    blocks = [f"{reports[0]['heading'].partition(';')[0]}."]
    if view == "by steps":
        blocks += [embedding_tables.by_steps(reports).markdown(), " ".join(embedding_tables.notes(reports))]
    elif view == "generative":
        blocks += [embedding_tables.generative(reports).markdown(), " ".join(embedding_tables.notes(reports))]
    else:
        blocks.append(embedding_tables.embedding_differences(reports, differences, markdown=True).markdown())
    return "\n\n".join([*blocks, _source(reports)])


def _editing_table(reports: Sequence[dict[str, Any]], differences: Sequence[dict[str, Any]], view: str | None) -> str:
    editing_tables.check_alike(reports)
    views: dict[str | None, Callable[[], list[str]]] = {
        None: lambda: [editing_tables.overall(reports).markdown(), " ".join(editing_tables.notes(reports))],
        "by task": lambda: editing_tables.by_task(reports, markdown=True),
        "absent": lambda: editing_tables.absent(reports, markdown=True),
        "by steps": lambda: [editing_tables.by_steps(reports).markdown()],
        "differences": lambda: [editing_tables.paired(reports, differences, width=100).markdown()],
    }
    if view not in views:
        raise ValueError(f"a report of editors has no table {view!r}: use {', '.join(name for name in views if name)}")
    blocks = views[view]()
    if not blocks:
        raise ValueError("the list has no removals of a sound that is not there: draw it with --absent")
    return "\n\n".join([f"{editing_tables.title(reports)}.", *blocks, _source(reports)])


def _wording_table(reports: Sequence[dict[str, Any]], view: str | None) -> str:
    if view is None:
        heading = reports[0]["heading"].partition(";")[0]
        note = " ".join(tables.wording_note(reports[0]).split())
        return "\n\n".join([f"{heading}.", tables.wording(reports).markdown(), note, _source(reports)])
    if view != "by class" or len(reports) > 1:
        raise ValueError("a wording report has no such table: use it alone, or `by class` of one system")
    return "\n\n".join([tables.wording_details(reports[0], markdown=True), _source(reports)])


def _source(reports: Sequence[dict[str, Any]]) -> str:
    """Commit, device, date and seed of the figures."""
    made = [report["provenance"] for report in reports]
    commits = sorted({re.sub(r"^([0-9a-f]{10})[0-9a-f]*", r"\1", each["commit"] or "unknown") for each in made})
    devices = sorted({each["device"] for each in made})
    dates = sorted({each["date"][:10] for each in made})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    plural = "s" if len(commits) > 1 else ""
    return f"Measured {when} at commit{plural} {', '.join(commits)} on {'; '.join(devices)}."


def _read(path: Path) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]]]:
    """Kind of a report file ("separation", "editing" or "wording"), its systems, and their differences."""
    if not path.is_file():
        there = ", ".join(sorted(found.stem for found in path.parent.glob("*.json"))) or "none"
        raise ValueError(f"there is no report {path}: write it with `lasslab evaluate ... --json` (there: {there})")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): write it again") from error
    content = content if isinstance(content, dict) else {}
    reports = content.get("reports", [content])
    kinds = {
        "separation": {"floors", "breakdown", "heading"},
        "editing": {"floors", "by_task", "heading"},
        "wording": {"paraphrases", "absence"},
    }
    for kind, keys in kinds.items():
        if reports and all(isinstance(report, dict) and keys <= report.keys() for report in reports):
            return kind, reports, content.get("differences", [])
    raise ValueError(f"{path} is no report of this version: write it again with `lasslab evaluate ... --json`")


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m lasslab.evaluation.readme`."""
    parser = argparse.ArgumentParser(description="Make the tables of a Markdown file again from JSON reports.")
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--reports", type=Path, required=True, help="folder of what `lasslab evaluate ... --json` wrote"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a table is out of date")
    options = parser.parse_args(arguments)
    try:
        if not options.file.is_file():
            raise ValueError(f"{options.file} is not a file: give the Markdown file to fill")
        text = options.file.read_text(encoding="utf-8")
        filled, count = fill_tables(text, options.reports, where=str(options.file))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.check:
        print(f"{options.file}: {count} tables, {'up to date' if filled == text else 'not what the reports say'}")
        return int(filled != text)
    if filled != text:
        write_text(options.file, filled)
    print(f"{options.file}: {count} tables from {options.reports}, {'changed' if filled != text else 'unchanged'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
