"""Tables of editors: floor, systems with intervals and ceiling, over all edits, for each task, and for absent sounds.

As in `tables`, every function takes JSON values of reports, so that no figure is typed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lasslab.evaluation.distances import heading
from lasslab.evaluation.embedding_tables import memory_cell, seconds_cell
from lasslab.evaluation.tables import CONFIDENCE, DASH, Table, decimals, fill, percent, short_names, shorten

Json = Mapping[str, Any]

HEADINGS = {
    "fad": "FAD",
    "kl": "KL",
    "is": "IS",
    "clap_score": "CLAP",
    "clap_score_a": "CLAPScore_A",
    "lsd": "LSD",
    "edit_accuracy": "edit accuracy",
    "heard": "heard",
    "gone": "gone",
    "preservation_db": "preservation",
    "change_db": "change",
    "level_db": "level",
}
DIGITS = {
    "fad": 3,
    "kl": 2,
    "is": 2,
    "clap_score": 1,
    "clap_score_a": 1,
    "lsd": 1,
    "preservation_db": 2,
    "change_db": 2,
    "level_db": 1,
}
SHARES = ("edit_accuracy", "heard", "gone")
IN_EMBEDDING = ("fad", "kl", "is", "clap_score", "clap_score_a")
DECIBELS = ("preservation_db", "change_db", "level_db", "lsd")
#: of a terminal, which has no room for all in one table; the second also has seconds and memory
IN_TEXT = (IN_EMBEDDING, ("edit_accuracy", "heard", "gone", "preservation_db"))
OF_TASK = ("fad", "kl", "clap_score", "edit_accuracy", "preservation_db")
OF_STEPS = ("fad", "kl", "is", "clap_score", "edit_accuracy", "preservation_db")  # RFM-Editing's table 3, and two more
OF_ABSENT = ("change_db", "level_db", "clap_score_a")
IN_MARKDOWN = ("fad", "kl", "is", "clap_score", "clap_score_a", "edit_accuracy", "preservation_db")
FLOORS = {"original": "unedited original"}
CEILINGS = {"round-trip": "round trip of target"}
LABEL_WIDTH = 20


def check_alike(reports: Sequence[Json]) -> None:
    """Refuse reports that cannot stand in one table: of other edits, or in another embedding.

    Args:
        reports: JSON of editing reports.

    Raises:
        ValueError: see above.
    """
    for what, of in (
        ("on other edits", lambda report: (report["heading"], report["provenance"].get("triplet_list_sha256"))),
        (
            "in another embedding",
            lambda report: [(report["embedding"] or {}).get(k) for k in ("name", "weights_sha256")],
        ),
    ):
        for report in reports[1:]:
            if of(report) != of(reports[0]):
                raise ValueError(
                    f"{report['system']} was measured {what} than {reports[0]['system']}: such figures do not compare"
                )


def render(reports: Sequence[Json], differences: Sequence[Json] = (), *, markdown: bool = False) -> str:
    """Everything that a comparison prints.

    Args:
        reports: JSON of reports on the same edits.
        differences: of their comparison.
        markdown: as Markdown rather than aligned text.

    Returns:
        Blocks of lines of at most 100 characters, or Markdown.
    """
    if markdown:
        blocks = [f"{title(reports)}.", overall(reports).markdown(), *by_task(reports, markdown=True)]
        blocks += absent(reports, markdown=True)
        blocks += ["Paired differences:", paired(reports, differences, width=100).markdown(), " ".join(notes(reports))]
        return "\n\n".join(blocks)
    first, second = (_text_table(reports, metrics, cost=number == 1) for number, metrics in enumerate(IN_TEXT))
    blocks = [f"{fill(title(reports))}\n" + (first if has_embedding(reports) else second).text()]
    if has_embedding(reports):
        blocks.append(second.text())
    blocks += [*by_task(reports), *absent(reports)]
    blocks.append(f"Paired differences\n{paired(reports, differences).text()}")
    return "\n\n".join([*blocks, "\n".join(fill(note) for note in notes(reports))])


def has_embedding(reports: Sequence[Json]) -> bool:
    """Whether the metrics that need an embedding were measured."""
    return all(report["embedding"] for report in reports)


def title(reports: Sequence[Json]) -> str:
    """How many edits, of what, in which embedding."""
    about = reports[0]["embedding"]
    where = f"; in the embedding {about['name']}, {about['dimensions']} dimensions" if about else ""
    return f"{reports[0]['heading']}{where}"


def overall(reports: Sequence[Json]) -> Table:
    """One table for a README, over all edits.

    Args:
        reports: JSON of reports on the same edits.

    Returns:
        Floor, systems with intervals, ceiling; FAD, KL, IS, CLAP, CLAPScore_A, edit accuracy, preservation, seconds.
    """
    metrics = IN_MARKDOWN if has_embedding(reports) else ("preservation_db",)
    return _table(reports, reports, metrics, cost=("seconds",), width=100, named=True)


def by_task(reports: Sequence[Json], *, markdown: bool = False) -> list[str]:
    """A titled table for each task.

    Args:
        reports: JSON of reports on the same edits.
        markdown: as Markdown rather than aligned text.

    Returns:
        Title and table, task by task.
    """
    metrics = OF_TASK if has_embedding(reports) else ("preservation_db",)
    found = []
    for task in reports[0]["by_task"]:
        blocks = [report["by_task"][task] for report in reports]
        table = _table(reports, blocks, metrics, width=100 if markdown else LABEL_WIDTH, named=markdown)
        words = f"{task}: {blocks[0]['n']} edits{_defined(blocks[0])}"
        found += [f"{words}:", table.markdown()] if markdown else [f"{words}\n{table.text()}"]
    return found


def by_steps(reports: Sequence[Json]) -> Table:
    """Quality and seconds against the steps and the start of the sampling.

    Args:
        reports: JSON of reports on the same edits, of systems that sample at some numbers of steps or starts; others
            have a row, too.

    Returns:
        The original, each system by steps and t_start ascending, the round trip: seconds, then FAD, KL, IS, CLAP, edit
        accuracy and preservation over all edits, those of systems with their intervals.

    Raises:
        ValueError: no report says how many steps its system took.
    """
    if not any(report["provenance"].get("n_steps") for report in reports):
        raise ValueError("no report says its number of steps: evaluate editors that sample, with --steps")
    metrics = OF_STEPS if has_embedding(reports) else ("preservation_db",)

    def setting(report: Json) -> tuple:
        made = report["provenance"]
        return first_named[_base(report)], made.get("n_steps") or 0, made.get("t_start") or 0.0

    first_named = {_base(report): number for number, report in reversed(list(enumerate(reports)))}
    nothing = (DASH, DASH, DASH)
    rows = [(FLOORS.get(name, name), *nothing, *_means(metrics, m)) for name, m in reports[0]["floors"].items()]
    for report in sorted(reports, key=setting):
        made, seconds = report["provenance"], (report.get("cost") or {}).get("seconds_per_clip")
        start = made.get("t_start")
        cells = (str(made.get("n_steps") or DASH), DASH if start is None else f"{start:g}", seconds_cell(seconds))
        values = zip(_means(metrics, report["mean"]), _means(metrics, report["interval"]), strict=True)
        rows.append((_base(report), *cells, *(" ".join(dict.fromkeys(pair)) for pair in values)))
    for name, means in reports[0]["ceiling"].items():
        seconds = seconds_cell((reports[0]["ceiling_costs"].get(name) or {}).get("seconds_per_clip"))
        rows.append((CEILINGS.get(name, name), DASH, DASH, seconds, *_means(metrics, means)))
    headings = (_heading(metric, reports[0]["embedding"]) for metric in metrics)
    return Table(("system", "steps", "t_start", "s per clip", *headings), tuple(rows))


def _base(report: Json) -> str:
    """A system's name without its settings: "rfm" of "rfm, 5 steps, t_start 0.1"."""
    made = report["provenance"]
    name = report["system"].removesuffix(f", t_start {made['t_start']:g}" if "t_start" in made else "")
    return name.removesuffix(f", {made.get('n_steps')} steps")


def absent(reports: Sequence[Json], *, markdown: bool = False) -> list[str]:
    """A titled table of the sounds that are not there; nothing where the list has none."""
    blocks = [report["absent"] for report in reports]
    if any(block is None for block in blocks):
        return []
    metrics = OF_ABSENT if has_embedding(reports) else OF_ABSENT[:2]
    table = _table(reports, blocks, metrics, width=100 if markdown else LABEL_WIDTH, named=markdown)
    words = f"absent: {blocks[0]['n']} removals of what is not there, against the original"
    return [f"{words}:", table.markdown()] if markdown else [f"{words}\n{table.text()}"]


def paired(reports: Sequence[Json], differences: Sequence[Json] = (), *, width: int = 8) -> Table:
    """Paired differences over all edits: of each system and the unedited original, and between every two systems.

    Args:
        reports: JSON of reports on the same edits.
        differences: of their comparison; none for one system.
        width: of names.

    Returns:
        A row for each two, first minus second, and one for its interval.
    """
    metrics = OF_TASK if has_embedding(reports) else ("preservation_db",)
    found = [(each["systems"], each["groups"]["all"]) for each in differences]
    found += [
        ((report["system"], floor), report["against"][floor])
        for report in reports
        for floor in report["floors"]
        if report["system"] != floor
    ]
    rows = []
    for names, figures in found:
        rows.append((" - ".join(shorten(name, width) for name in names), *_values(metrics, figures, "value")))
        rows.append((f"  {CONFIDENCE:.0%} interval", *_values(metrics, figures, "interval")))
    return Table(("first - second", *(HEADINGS[metric] for metric in metrics)), tuple(rows))


def notes(reports: Sequence[Json]) -> list[str]:
    """What a reader of these tables must know."""
    found = []
    about = reports[0]["embedding"]
    if about:
        found += [
            "FAD (and FD, which in one embedding is the same), KL and preservation (dB): lower is better; IS, CLAP (to "
            "the target's caption), CLAPScore_A and edit accuracy: higher is.",
            f"Edit accuracy{_defined(reports[0])}: the share in which {about['name']} hears what was asked for more as "
            "in the target than as in the original; heard: what comes; gone: what goes.",
        ]
    found.append(
        "Preservation: mean distance to the target where the sounds that come and go are silent; the ceiling is what "
        "VAE and vocoder cost."
    )
    if about and _floor_beats_ceiling(reports[0]):
        found.append(
            "FAD of the unedited original lies below that of the ceiling: as a set, the originals are like the "
            "targets, so that here it ranks nobody."
        )
    if any(report["absent"] for report in reports):
        found.append(
            "Change: mean distance to the original over all points, in dB; level: against the original, in dB."
        )
    costs = [report["cost"] for report in reports if report.get("cost")]
    if costs:
        devices = "; ".join(sorted({report["provenance"]["device"] for report in reports}))
        sizes = sorted({cost["batch_size"] for cost in costs})
        together = "one by one" if sizes == [1] else f"in batches of at most {sizes[-1]}"
        memory = "; ".join(sorted({cost["memory"] for cost in costs}))
        found.append(f"Seconds per clip: median, {together}, on {devices}. Memory: {memory}.")
    return found


def _floor_beats_ceiling(report: Json) -> bool:
    """Whether FAD, which compares sets, cannot tell originals from targets."""
    floors, ceilings = ([means.get("fad") for means in report[kind].values()] for kind in ("floors", "ceiling"))
    return None not in (*floors, *ceilings) and min(floors) < max(ceilings)


def _defined(block: Json) -> str:
    """Of how many edits edit accuracy and preservation are means, where it is not all."""
    words = {"edit_accuracy": "decided by the tagger", "preservation": "with points left alone"}
    counts = {metric: block["defined"].get(metric, block["n"]) for metric in words}
    found = [f"{counts[metric]} {what}" for metric, what in words.items() if counts[metric] < block["n"]]
    return f" ({', '.join(found)})" if found else ""


def _text_table(reports: Sequence[Json], metrics: Sequence[str], *, cost: bool) -> Table:
    return _table(reports, reports, metrics, cost=("seconds", "memory") if cost else (), width=LABEL_WIDTH)


def _table(
    reports: Sequence[Json],
    blocks: Sequence[Json],
    metrics: Sequence[str],
    *,
    width: int,
    cost: Sequence[str] = (),
    named: bool = False,
) -> Table:
    """Floor, systems with intervals, ceiling.

    Args:
        reports: names and costs.
        blocks: figures of each report: its own over all edits, or those of one group.
        metrics: columns.
        width: of names.
        cost: "seconds" and "memory" as further columns.
        named: headings with the embedding's name and units.

    Returns:
        The table.
    """
    embedding = reports[0]["embedding"]
    rows: list[tuple[str, ...]] = []
    bold = []

    def spent(costs: Json | None) -> list[str]:
        costs = costs or {}
        cells = {
            "seconds": seconds_cell(costs.get("seconds_per_clip")),
            "memory": memory_cell(costs.get("memory_bytes")),
        }
        return [cells[name] for name in cost]

    for name, means in blocks[0]["floors"].items():
        rows.append((shorten(FLOORS.get(name, name), width), *_means(metrics, means), *spent(None)))
    for name, report, block in zip(
        short_names([report["system"] for report in reports], width), reports, blocks, strict=True
    ):
        bold.append(len(rows))
        rows.append((name, *_means(metrics, block["mean"]), *spent(report.get("cost"))))
        ends = [_cell(metric, block["interval"].get(metric)) for metric in metrics]
        rows.append((f"  {CONFIDENCE:.0%} interval", *ends, *("" for _ in cost)))
    for name, means in blocks[0]["ceiling"].items():
        costs = reports[0]["ceiling_costs"].get(name)
        rows.append((shorten(CEILINGS.get(name, name), width), *_means(metrics, means), *spent(costs)))
    headings = [_heading(metric, embedding) if named else HEADINGS[metric] for metric in metrics]
    header = ["", *headings, *({"seconds": "s / clip", "memory": "memory"}[name] for name in cost)]
    return Table(tuple(header), tuple(rows), tuple(bold))


def _heading(metric: str, embedding: Json | None) -> str:
    if metric in DECIBELS:
        return f"{HEADINGS[metric]}, dB"
    return heading(HEADINGS[metric], embedding["name"])


def _means(metrics: Sequence[str], means: Json) -> list[str]:
    return [_cell(metric, means.get(metric)) for metric in metrics]


def _values(metrics: Sequence[str], figures: Json, key: str) -> list[str]:
    return [_cell(metric, (figures.get(metric) or {}).get(key)) for metric in metrics]


def _cell(metric: str, value: float | Sequence[float] | None) -> str:
    """A figure, or both ends of an interval; shares in percent."""
    if value is None:
        return DASH
    if not isinstance(value, int | float):
        low, high = (_cell(metric, end).removesuffix(" %") for end in value)
        return f"[{low}, {high}]" + (" %" if metric in SHARES else "")
    return percent(value) if metric in SHARES else decimals(value, DIGITS[metric])
