"""Reports as tables: aligned text for a terminal of 100 columns, Markdown for a README or a model card.

Every function takes what `--json` wrote (the JSON values of a report), so a table comes from a figure that was measured
and is never typed. `lasslab.evaluation.readme` puts the tables into a file.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

METRICS = ("sdr", "sdri", "si_sdr", "si_sdri")
HEADINGS = {"sdr": "SDR", "sdri": "SDRi", "si_sdr": "SI-SDR", "si_sdri": "SI-SDRi"}
#: floors and ceiling of every report, and what a table calls them
FLOORS = {
    "silence": "silence",
    "mixture": "mixture",
    "constant_gain": "mixture x best gain",
    "oracle_mask": "oracle ratio mask",
}
CONFIDENCE = 0.95
WIDTH = 100
LABEL_WIDTH = 28
SYSTEMS_PER_TABLE = 5
DASH = "–"

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first of each a label.

    Args:
        header: heading of each column; the first may be empty.
        rows: labels and cells; a label that begins with blanks belongs to the row above.
        bold: numbers of the rows that Markdown sets in bold.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: tuple[int, ...] = ()

    def text(self) -> str:
        """Labels to the left, cells to the right, two blanks between columns."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        return "\n".join(
            "  ".join(
                [line[0].ljust(widths[0]), *(f"{c:>{w}}" for c, w in zip(line[1:], widths[1:], strict=True))]
            ).rstrip()
            for line in lines
        )

    def markdown(self) -> str:
        """A Markdown table; blanks before a label and bars inside a cell are taken care of."""
        rows = [
            [f"**{cell}**" if number in self.bold and cell.strip() else cell for cell in row]
            for number, row in enumerate(self.rows)
        ]
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *rows]
        return "\n".join("| " + " | ".join(cell.strip().replace("|", r"\|") for cell in line) + " |" for line in lines)


# --- scores of systems, with floors and ceiling


def scores(reports: Sequence[Json], *, spread: bool = True) -> Table:
    """Floors, systems and ceiling on one list of pairs.

    Args:
        reports: one for each system, of the same pairs.
        spread: standard deviation and interval below each system.

    Returns:
        Four columns, means in dB.
    """
    floors = reports[0]["floors"]
    rows = [(FLOORS[name], *cells(floors[name])) for name in ("silence", "mixture", "constant_gain")]
    names = short_names([report["system"] for report in reports], LABEL_WIDTH)
    bold = []
    for name, report in zip(names, reports, strict=True):
        bold.append(len(rows))
        rows.append((name, *cells(report["mean"])))
        if spread:
            rows.append(("  std over pairs", *cells(report["std"])))
        interval = [interval_cell(report["interval"][metric]) for metric in METRICS]
        rows.append((f"  {CONFIDENCE:.0%} interval of mean", *interval))
    for name in ceilings(floors):
        rows.append((FLOORS.get(name, shorten(name, LABEL_WIDTH)), *cells(floors[name])))
    return Table(("", *HEADINGS.values()), tuple(rows), tuple(bold))


def ceilings(floors: Mapping[str, Any]) -> list[str]:
    """The oracle mask, and what further ceilings a report has."""
    return ["oracle_mask", *(name for name in floors if name not in FLOORS)]


def side_by_side(named: Mapping[str, Sequence[Json]], metrics: Sequence[str] = ("sdr", "sdri", "si_sdr")) -> Table:
    """Several lists of pairs beside one another: what a test set does to the figures.

    Args:
        named: heading of each group of columns -> reports on one list.
        metrics: columns of each group.

    Returns:
        Floors, every system that is in any of the lists, and the ceiling.
    """
    groups = list(named.values())
    systems = list(dict.fromkeys(report["system"] for reports in groups for report in reports))
    rows = [_beside(FLOORS[name], groups, metrics, floor=name) for name in ("silence", "mixture", "constant_gain")]
    bold = tuple(range(len(rows), len(rows) + len(systems)))
    rows += [_beside(name, groups, metrics) for name in systems]
    beyond = dict.fromkeys(name for reports in groups for name in ceilings(reports[0]["floors"]))
    rows += [_beside(FLOORS.get(name, name), groups, metrics, floor=name) for name in beyond]
    header = [f"{name}: {HEADINGS[metric]}" for name in named for metric in metrics]
    return Table(("", *header), tuple(rows), bold)


def _beside(
    label: str, groups: Sequence[Sequence[Json]], metrics: Sequence[str], *, floor: str | None = None
) -> tuple[str, ...]:
    row = [label]
    for reports in groups:
        if floor is not None:
            means = reports[0]["floors"].get(floor, {})
        else:
            means = next((report["mean"] for report in reports if report["system"] == label), {})
        row += [decimals(means.get(metric)) for metric in metrics]
    return tuple(row)


def differences(found: Sequence[Json]) -> Table:
    """Paired differences between systems.

    Args:
        found: `differences` of a comparison.

    Returns:
        A row for each two systems: mean difference of SDRi and of SI-SDR with its interval, dB, and the share of the
        pairs on which the first is better.
    """
    rows = []
    for difference in found:
        first, second = (shorten(name, 17) for name in difference["systems"])
        row = [f"{first} - {second}"]
        for metric in ("sdri", "si_sdr"):
            row += [decimals(difference["mean"][metric]), interval_cell(difference["interval"][metric])]
        rows.append((*row, percent(difference["better"]["sdri"])))
    interval = f"{CONFIDENCE:.0%} interval"
    return Table(("paired difference", "SDRi", interval, "SI-SDR", interval, "first better"), tuple(rows))


def breakdowns(reports: Sequence[Json], kind: str) -> list[tuple[str, Table]]:
    """Scores by class of the target or by SNR.

    Args:
        reports: one for each system, of the same pairs.
        kind: "class" or "snr".

    Returns:
        Titles and tables; none where the pairs cannot be grouped so. One system: SDRi and SI-SDR with intervals in one
        table. Several: a table for SDRi and one for SI-SDR, at most five systems each.
    """
    broken_down = [report["breakdown"][kind] for report in reports]
    if broken_down[0] is None:
        return []
    title = broken_down[0]["title"]
    if len(reports) == 1:
        return [(f"By {title}, means in dB", _one_system(broken_down[0]["groups"], reports[0]))]
    tables = []
    for metric in ("sdri", "si_sdr"):
        for start in range(0, len(reports), SYSTEMS_PER_TABLE):
            block = slice(start, start + SYSTEMS_PER_TABLE)
            tables.append((f"{HEADINGS[metric]} by {title}", _systems(reports[block], broken_down[block], metric)))
    return tables


def _one_system(groups: Sequence[Json], report: Json) -> Table:
    rows = []
    everything = {"name": "all", "n": report["n"], "mean": report["mean"], "interval": report["interval"]}
    for group in [*groups, everything | {"oracle_mask": report["floors"]["oracle_mask"]}]:
        row = [shorten(group["name"], LABEL_WIDTH), str(group["n"])]
        for metric in ("sdri", "si_sdr"):
            row += [decimals(group["mean"][metric]), interval_cell(group["interval"][metric])]
        rows.append((*row, decimals(group["oracle_mask"]["sdri"])))
    interval = f"{CONFIDENCE:.0%} interval"
    return Table(("", "n", "SDRi", interval, "SI-SDR", interval, "oracle SDRi"), tuple(rows))


def _systems(reports: Sequence[Json], broken_down: Sequence[Json], metric: str) -> Table:
    room = (WIDTH - LABEL_WIDTH - len("     n  oracle")) // len(reports) - 2
    names = short_names([report["system"] for report in reports], room)
    rows = []
    for position, group in enumerate(broken_down[0]["groups"]):
        figures = [found["groups"][position]["mean"][metric] for found in broken_down]
        figures.append(group["oracle_mask"][metric])
        rows.append((shorten(group["name"], LABEL_WIDTH), str(group["n"]), *map(decimals, figures)))
    figures = [report["mean"][metric] for report in reports] + [reports[0]["floors"]["oracle_mask"][metric]]
    rows.append(("all", str(reports[0]["n"]), *map(decimals, figures)))
    return Table(("", "n", *names, "oracle"), tuple(rows))


def score_notes(reports: Sequence[Json]) -> list[str]:
    """What a reader of `scores` must know: undefined scores, and how many were left out of a mean."""
    notes = [f"{DASH} : undefined; the SI-SDR of silence is 0 / 0."]
    for report in reports:
        owner = f"{report['system']}: " if len(reports) > 1 else ""
        for metric, heading in HEADINGS.items():
            if count := report["undefined"][metric]:
                notes.append(f"{owner}{heading} not finite for {count} of {report['n']} items: left out of its mean.")
    return notes


# --- free wording, absent sounds


def wording(reports: Sequence[Json]) -> Table:
    """Systems side by side: what free wording costs, and what an absent sound gives.

    Args:
        reports: JSON of wording reports.

    Returns:
        A row for each system. Captions and paraphrases: mean SDRi; absent and present: share of the answers at least
        10 dB below the mixture, and their median level.
    """
    rows = []
    for name, report in zip(short_names([report["system"] for report in reports], 22), reports, strict=True):
        free, absent, present = report["paraphrases"], report["absence"], report["presence"]
        row = [name, decimals(free["caption"]["sdri"]), decimals(free["paraphrase"]["sdri"])]
        row += [decimals(free["loss"]["mean"]), interval_cell(free["loss"]["interval"])]
        for side in (absent, present):
            row += [percent(side["share_below"]), decimals(side["median_db"], 1)]
        rows.append(tuple(row))
    header = ("", "captions", "paraphrases", "loss", f"{CONFIDENCE:.0%} interval")
    return Table((*header, "absent", "median", "present", "median"), tuple(rows))


def wording_note(report: Json) -> str:
    """What the columns of `wording` are."""
    below = f"{-report['threshold_db']:g} dB"
    return (
        f"captions, paraphrases: SDRi in dB with the list's captions and with {_wordings(report)} that\n"
        "training never had.\n"
        f"absent, present: share of the answers at least {below} below the mixture when the class asked for\n"
        "is not in it (the more, the better) and when it is (the fewer, the better); median level in dB."
    )


def _wordings(report: Json) -> str:
    found = report["paraphrases"]["by_wording"]
    classes = {wording["class"] for wording in found}
    return f"{len(found)} wordings of {len(classes)} classes"


def wording_details(report: Json, *, markdown: bool = False) -> str:
    """Free wording and absence by class, and the wordings that cost most.

    Args:
        report: JSON of a wording report.
        markdown: as Markdown rather than aligned text.

    Returns:
        Lines of at most 100 characters, or Markdown.
    """
    free, absent, present = report["paraphrases"], report["absence"], report["presence"]
    gap = "\n\n" if markdown else "\n"
    worst = ", ".join(
        f"“{wording['wording']}” ({wording['class']}) {decimals(wording['loss'], 1)} dB"
        for wording in free["by_wording"][:3]
    )
    blocks = [
        f"{report['system']}: {report['heading']}",
        f"Free wording: SDRi with the list's captions and with {len(free['by_wording'])} that training never had"
        f"{gap}{_draw(paraphrases(report), markdown)}",
        f"The wordings that lose most: {worst}.",
        f"Level of the answer relative to the mixture (dB), and share at or below {report['threshold_db']:g} dB"
        f"{gap}{_draw(levels(report), markdown)}",
        f"The absent class comes out lower than each class that is there in {percent(absent['share_lowest'])} of "
        f"{absent['n']} cases.\nA class that is there comes out at a median of "
        f"{decimals(present['median_kept_db'], 1)} dB of its own level.",
    ]
    if free["undefined"]:
        blocks.append(f"SDRi not finite for {free['undefined']} pairs: left out of free wording.")
    return "\n\n".join(blocks if markdown else [fill(block) for block in blocks])


def fill(text: str) -> str:
    """Break lines of prose that are longer than a terminal is wide; a table's lines are not."""
    return "\n".join(textwrap.fill(line, WIDTH) if len(line) > WIDTH else line for line in text.split("\n"))


def _draw(table: Table, markdown: bool) -> str:
    return table.markdown() if markdown else table.text()


def paraphrases(report: Json) -> Table:
    """What free wording costs, by class of the target."""
    free = report["paraphrases"]
    everything = {"name": "all", "n": free["n"], **{key: free[key] for key in ("caption", "paraphrase", "loss")}}
    rows = [
        (
            group["name"],
            str(group["n"]),
            decimals(group["caption"]["sdri"]),
            decimals(group["paraphrase"]["sdri"]),
            decimals(group["loss"]["mean"]),
            interval_cell(group["loss"]["interval"]),
        )
        for group in [*free["by_class"], everything]
    ]
    return Table(("class", "n", "caption", "paraphrases", "loss", f"{CONFIDENCE:.0%} interval"), tuple(rows))


def levels(report: Json) -> Table:
    """Level of the estimate relative to the mixture, by the class asked for: where it is absent, and where present."""
    absent, present = report["absence"], report["presence"]
    rows = []
    for name in [*sorted({group["name"] for side in (absent, present) for group in side["by_class"]}), None]:
        row = [name or "all"]
        for side in (absent, present):
            group = side if name is None else next((g for g in side["by_class"] if g["name"] == name), None)
            if group is None:
                row += ["0", DASH, DASH, DASH]
                continue
            spread = f"[{decimals(group['p5_db'], 0)}, {decimals(group['p95_db'], 0)}]"
            row += [str(group["n"]), decimals(group["median_db"], 1), spread, percent(group["share_below"])]
        rows.append(tuple(row))
    threshold = f"<= {report['threshold_db']:g} dB"
    columns = ("median", "5 to 95 %", threshold)
    return Table(("asked for", "absent", *columns, "present", *columns), tuple(rows))


# --- cells


def decimals(value: float | None, digits: int = 2) -> str:
    """A number with two decimals, or a dash for none."""
    # + 0.0 turns -0.00 into 0.00
    return DASH if value is None or not math.isfinite(value) else f"{round(value, digits) + 0.0:.{digits}f}"


def cells(figures: Mapping[str, float | None]) -> list[str]:
    """The four metrics of one row."""
    return [decimals(figures[metric]) for metric in METRICS]


def interval_cell(ends: Sequence[float] | None) -> str:
    """Both ends of an interval."""
    return DASH if ends is None else f"[{decimals(ends[0])}, {decimals(ends[1])}]"


def percent(share: float | None) -> str:
    """A share as whole percent."""
    return DASH if share is None else f"{100 * share:.0f} %"


def short_names(names: Sequence[str], width: int) -> list[str]:
    """Names that fit a column and still differ: cut in the middle, numbered where the cut makes two of them one."""
    short = [shorten(name, width) for name in names]
    if len(set(short)) == len(set(names)):
        return short
    return [f"{number}:{shorten(name, width - 2)}" for number, name in enumerate(names, start=1)]


def shorten(name: str, width: int) -> str:
    """A name cut in the middle to a width."""
    if len(name) <= width:
        return name
    head = width // 2
    return f"{name[:head]}…{name[len(name) - (width - head - 1) :]}"
