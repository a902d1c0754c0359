"""Tables of the metrics that stand on an embedding, beside those of `tables`; every heading names the embedding.

As there, every function takes JSON values of reports, so that no figure is typed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lasslab.evaluation.distances import heading
from lasslab.evaluation.tables import (
    CONFIDENCE,
    DASH,
    FLOORS,
    LABEL_WIDTH,
    Table,
    ceilings,
    decimals,
    fill,
    short_names,
    shorten,
)

Json = Mapping[str, Any]

HEADINGS = {
    "fad": "FAD",
    "kl": "KL",
    "is": "IS",
    "clap_score": "CLAPScore",
    "clap_score_a": "CLAPScore_A",
    "lsd": "LSD",
    "mel": "mel distance",
}
DIGITS = {"fad": 3, "kl": 2, "is": 2, "clap_score": 1, "clap_score_a": 1, "lsd": 1, "mel": 1}
WITHOUT_EMBEDDING = ("lsd", "mel")
BY_STEPS = ("fad", "clap_score", "clap_score_a", "mel")
IN_TEXT = (("fad", "kl", "is"), ("clap_score", "clap_score_a", "lsd"))  # a terminal has no room for all in one table
NAME_WIDTH = 12  # of an embedding in the heading of a column of text
DIFFERENCES = ("fad", "kl", "clap_score", "clap_score_a", "lsd")
FLOOR_NAMES = ("silence", "mixture", "constant_gain")
NOTHING: Json = {"value": None, "interval": None}


def has_embedding(reports: Sequence[Json]) -> bool:
    """Whether every report has its section "embedding"."""
    return all(report.get("embedding") for report in reports)


def check_embedding(reports: Sequence[Json]) -> None:
    """Refuse reports that cannot stand in one table of embedding metrics.

    Args:
        reports: JSON of reports.

    Raises:
        ValueError: one has no such metrics, or they were measured on other pairs or in another embedding.
    """
    for report in reports:
        if not report.get("embedding"):
            raise ValueError(
                f"the report of {report['system']} has no embedding metrics: write it again without --embedding none"
            )
    for what, of in (
        ("on other pairs", lambda report: (report["heading"], report["provenance"].get("pair_list_sha256"))),
        ("in another embedding", lambda report: [report["embedding"][key] for key in ("name", "weights_sha256")]),
    ):
        for report in reports[1:]:
            if of(report) != of(reports[0]):
                raise ValueError(
                    f"{report['system']} was measured {what} than {reports[0]['system']}: such figures do not compare"
                )


def blocks(reports: Sequence[Json], differences: Sequence[Json] = (), *, markdown: bool = False) -> list[str]:
    """Tables and notes, for the terminal or as Markdown.

    Args:
        reports: JSON of reports, on one list of pairs and in one embedding.
        differences: of a comparison.
        markdown: as Markdown rather than aligned text.

    Returns:
        What a report prints below its scores.
    """
    about = reports[0]["embedding"]
    title = f"{about['items']} items in the embedding {about['name']}, {about['dimensions']} dimensions"
    if markdown:
        shown = [f"{title}.", generative(reports).markdown(), " ".join(notes(reports))]
        below = embedding_differences(reports, differences, markdown=True)
        return shown + ([below.markdown()] if below.rows else [])
    first, second = (_text_table(reports, metrics, cost=number == 1) for number, metrics in enumerate(IN_TEXT))
    said = "\n".join(fill(note) for note in notes(reports))
    shown = [f"{title}\n{first.text()}", f"{second.text()}\n{said}"]
    below = embedding_differences(reports, differences)
    return shown + ([below.text()] if below.rows else [])


def _rows(reports: Sequence[Json], width: int) -> list[tuple[str, Json, Json, bool]]:
    """Label, metrics, cost and whether it is a system: floors, systems, ceilings."""
    floors = reports[0]["embedding"]["floors"]
    names = short_names([report["system"] for report in reports], width)
    rows = [(FLOORS[name], floors[name], {}, False) for name in FLOOR_NAMES]
    for name, report in zip(names, reports, strict=True):
        rows.append((name, report["embedding"]["metrics"], report.get("cost") or {}, True))
    costs = reports[0].get("floor_costs") or {}
    for name in ceilings(floors):
        rows.append((FLOORS.get(name, shorten(name, width)), floors[name], costs.get(name, {}), False))
    return rows


def _text_table(reports: Sequence[Json], metrics: Sequence[str], *, cost: bool) -> Table:
    header = ["", *(HEADINGS[metric] for metric in metrics)] + (["s / clip", "memory"] if cost else [])
    nothing = ("", "") if cost else ()
    rows = [_embedding_line(metrics, reports[0]["embedding"]["name"]) + nothing]
    for label, figures, spent, _ in _rows(reports, LABEL_WIDTH):
        costs = [seconds_cell(spent.get("seconds_per_clip")), memory_cell(spent.get("memory_bytes"))] if cost else []
        rows.append((label, *(value_cell(figures, metric) for metric in metrics), *costs))
        interval = (interval_cell(figures, metric) for metric in metrics)
        rows.append((f"  {CONFIDENCE:.0%} interval", *interval, *nothing))
    return Table(tuple(header), tuple(rows))


def generative(reports: Sequence[Json]) -> Table:
    """One table for a README: what separates, what sounds like the targets, and what it takes.

    Args:
        reports: JSON of reports, on one list of pairs and in one embedding.

    Returns:
        Floors, systems with intervals, ceilings. SDRi and SI-SDR in dB; then FAD, KL, CLAPScore, CLAPScore_A, each with
        the name of its embedding, LSD in dB, and seconds per clip.
    """
    embedding = reports[0]["embedding"]["name"]
    metrics = ("fad", "kl", "clap_score", "clap_score_a", "lsd")
    columns = _named_headings(metrics, embedding)
    rows: list[tuple[str, ...]] = []
    bold = []
    floors = reports[0]["floors"]
    keys = [*FLOOR_NAMES, *(None for _ in reports), *ceilings(floors)]
    systems = iter(reports)
    for key, (label, figures, spent, is_system) in zip(keys, _rows(reports, 100), strict=True):
        report = next(systems) if is_system else None
        means = report["mean"] if report is not None else floors[key]
        if report is not None:
            bold.append(len(rows))
        values = [value_cell(figures, metric) for metric in metrics]
        seconds = seconds_cell(spent.get("seconds_per_clip"))
        rows.append((label, decimals(means["sdri"]), decimals(means["si_sdr"]), *values, seconds))
        if report is not None:
            ends = [_ends(report["interval"][metric], 2) for metric in ("sdri", "si_sdr")]
            ends += [interval_cell(figures, metric) for metric in metrics]
            rows.append((f"  {CONFIDENCE:.0%} interval", *ends, ""))
    return Table(("system", "SDRi", "SI-SDR", *columns, "s per clip"), tuple(rows), tuple(bold))


def by_steps(reports: Sequence[Json]) -> Table:
    """Quality and seconds against the number of steps: FlowSep's efficiency table (its table III).

    Args:
        reports: JSON of reports, on one list of pairs and in one embedding, of systems that sample at some numbers of
            steps; others have a row, too.

    Returns:
        The mixture, each system with its steps ascending, and what is a ceiling: steps, seconds per clip, then FAD,
        CLAPScore, CLAPScore_A and the mel distance in dB, each with its interval.

    Raises:
        ValueError: no report says how many steps its system took.
    """
    if not any(steps_of(report) for report in reports):
        raise ValueError("no report says its number of steps: evaluate systems that sample, with --steps")
    floors, costs = reports[0]["embedding"]["floors"], reports[0].get("floor_costs") or {}
    systems: dict[str, list[Json]] = {}
    for report in reports:
        systems.setdefault(base_name(report), []).append(report)
    rows = [_steps_row(FLOORS["mixture"], None, {}, floors["mixture"])]
    for name, group in systems.items():
        for report in sorted(group, key=lambda report: steps_of(report) or 0):
            rows.append(_steps_row(name, steps_of(report), report.get("cost") or {}, report["embedding"]["metrics"]))
    for name in ceilings(floors):
        if name != "oracle_mask":  # a ceiling of masks, which nothing here is
            rows.append(_steps_row(name, None, costs.get(name, {}), floors[name]))
    columns = _named_headings(BY_STEPS, reports[0]["embedding"]["name"])
    return Table(("system", "steps", "s per clip", *columns), tuple(rows))


def _steps_row(label: str, steps: int | None, cost: Json, figures: Json) -> tuple[str, ...]:
    cells = (_value_with_interval(figures, metric) for metric in BY_STEPS)
    return (label, str(steps or DASH), seconds_cell(cost.get("seconds_per_clip")), *cells)


def steps_of(report: Json) -> int | None:
    """How many steps the system of a report took; None for one that does not sample."""
    return report["provenance"].get("n_steps")


def base_name(report: Json) -> str:
    """A system's name without its number of steps, and with its solver where that is not Euler's.

    "flowsep-lab" of "flowsep-lab, 25 steps"; "flowsep-lab, heun" of the same if the report says that Heun took them.
    """
    name = report["system"].removesuffix(f", {steps_of(report)} steps")
    method = report["provenance"].get("method", "euler")
    return name if method == "euler" or name.endswith(f", {method}") else f"{name}, {method}"


def embedding_differences(reports: Sequence[Json], differences: Sequence[Json], *, markdown: bool = False) -> Table:
    """Paired differences: between every two systems, and of each system and the unprocessed mixture.

    Args:
        reports: JSON of reports.
        differences: of their comparison; none for one system.
        markdown: with KL and LSD, for which a terminal has no room.

    Returns:
        A row for each two: first minus second, with its interval.
    """
    embedding = reports[0]["embedding"]["name"]
    metrics = DIFFERENCES if markdown else ("fad", "clap_score", "clap_score_a")
    found = [(each["systems"], each["embedding"]) for each in differences if each.get("embedding")]
    if "mixture" not in [report["system"] for report in reports]:  # as a system it is compared already
        found += [((report["system"], "mixture"), report["embedding"]["against_mixture"]) for report in reports]
    rows = []
    for names, figures in found:
        label = " - ".join(names if markdown else [shorten(name, NAME_WIDTH) for name in names])
        rows.append((label, *(_value_with_interval(figures, metric) for metric in metrics)))
    if markdown:
        return Table(("paired difference", *_named_headings(metrics, embedding)), tuple(rows))
    below = _embedding_line(metrics, embedding)
    return Table(("paired difference", *(HEADINGS[metric] for metric in metrics)), (below, *rows) if rows else ())


def _named_headings(metrics: Sequence[str], embedding: str) -> list[str]:
    """Headings such as "FAD (clap-lab)"."""
    return [HEADINGS[m] if m in WITHOUT_EMBEDDING else heading(HEADINGS[m], embedding) for m in metrics]


def _embedding_line(metrics: Sequence[str], embedding: str) -> tuple[str, ...]:
    """Second line of the headings of a table of text, where "FAD (clap-lab)" has no room."""
    name = f"({shorten(embedding, NAME_WIDTH)})"
    return ("", *("" if metric in WITHOUT_EMBEDDING else name for metric in metrics))


def _value_with_interval(figures: Json, metric: str) -> str:
    value = value_cell(figures, metric)
    return value if value == DASH else f"{value} {interval_cell(figures, metric)}"


def notes(reports: Sequence[Json]) -> list[str]:
    """What a reader of these tables must know."""
    about = reports[0]["embedding"]
    found = [
        "FAD, KL and LSD (dB): lower is better; IS, CLAPScore and CLAPScore_A: higher is.",
        "A generated estimate shares no sample with its target: SDR and SI-SDR say nothing about it.",
    ]
    biases = [figures["fad"]["bias"] for _, figures, _, is_system in _rows(reports, 100) if is_system]
    if any(bias is None for bias in biases):
        found.append(f"{DASH} : FAD and IS are undefined for one item.")
    else:
        low, high = (decimals(max(end, 0.0), 3) for end in (min(biases), max(biases)))  # below 0: found by chance
        size = f"about {low}" if low == high else f"about {low} to {high}" if min(biases) >= 0 else f"up to {high}"
        few = ", which is few" if about["items"] <= about["dimensions"] else ""
        found.append(
            f"FAD of {about['items']} items in {about['dimensions']} dimensions{few}: {size} of a system's is "
            "bias, so compare figures of equal numbers only."
        )
    costs = [report["cost"] for report in reports if report.get("cost")]
    if costs:
        devices = "; ".join(sorted({report["provenance"]["device"] for report in reports}))
        sizes = sorted({cost["batch_size"] for cost in costs})
        together = "one by one" if sizes == [1] else f"in batches of at most {sizes[-1]}"
        memory = "; ".join(sorted({cost["memory"] for cost in costs}))
        found.append(f"Seconds per clip: median, {together}, on {devices}. Memory: {memory}.")
    return found


def value_cell(figures: Json, metric: str) -> str:
    """The figure of a metric, with its decimals."""
    return decimals(figures.get(metric, NOTHING)["value"], DIGITS[metric])


def interval_cell(figures: Json, metric: str) -> str:
    """Both ends of the interval of a metric."""
    return _ends(figures.get(metric, NOTHING)["interval"], DIGITS[metric])


def _ends(ends: Sequence[float] | None, digits: int) -> str:
    return DASH if ends is None else f"[{decimals(ends[0], digits)}, {decimals(ends[1], digits)}]"


def seconds_cell(seconds: float | None) -> str:
    """Seconds with three decimals, or a dash."""
    return decimals(seconds, 3)


def memory_cell(n_bytes: int | None) -> str:
    """Whole megabytes, or a dash."""
    return DASH if n_bytes is None else f"{n_bytes / 1e6:.0f} MB"
