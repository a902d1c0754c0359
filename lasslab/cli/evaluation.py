"""`lasslab evaluate`: systems on lists, with floors and ceilings."""

from collections import Counter
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lasslab.cli.options import (
    DEFAULT_EDITOR,
    DEFAULT_SYSTEM,
    IN_TURN,
    IN_TURN_HELP,
    KEEP_DB_HELP,
    METHOD_HELP,
    SETTINGS,
    Device,
    Guidance,
    Seed,
    check_output,
    is_terminal,
    with_sampling,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lasslab.data.pairs import Pair
    from lasslab.models.clap import AudioTextEmbedding
    from lasslab.systems.editing import Editor
    from lasslab.systems.separation import Separator

    System = Separator | Editor

DEFAULT_EMBEDDING = "clap-lab"

Systems = Annotated[
    list[str] | None,
    typer.Option(
        "--system", help=f"Name or folder of a checkpoint, or a baseline; repeat it. Default {DEFAULT_SYSTEM}."
    ),
]
PairList = Annotated[Path, typer.Option(help="Pair list: idx,caption,src_wav,noise_wav and, if wanted, snr_db.")]
Audio = Annotated[Path, typer.Option(help="Folder of the audio files in the list.")]
Level = Annotated[float, typer.Option(help="SNR to mix at, dB, where the list gives none.")]
Json = Annotated[Path | None, typer.Option(help="Write the report here.")]
Embedding = Annotated[
    str,
    typer.Option(help="What FAD, KL, IS and CLAPScore are computed in: clap-lab, a CLAP by name; none is faster."),
]
ManySteps = Annotated[
    list[int] | None, typer.Option("--steps", help="Steps of the generative systems; repeat it for a row each.")
]
ManyMethods = Annotated[list[str] | None, typer.Option("--method", help=f"{METHOD_HELP} Repeat it for a row each.")]
ManyKeepDB = Annotated[list[float] | None, typer.Option("--keep-db", help=f"{KEEP_DB_HELP} Repeat it for a row each.")]
First = Annotated[int | None, typer.Option(help="Only so many rows of the list, from its start: many steps take long.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown.")]


def evaluate_separation(
    pairs: PairList,
    audio: Audio,
    system: Systems = None,
    snr_db: Level = 0.0,
    by: Annotated[list[str] | None, typer.Option(help="Add a breakdown: class or snr; repeat it.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for pictures of the best, median and worst pair.")
    ] = None,
    sounds: Annotated[bool, typer.Option("--sounds", help="Write the sounds beside the pictures.")] = False,
    embedding: Embedding = DEFAULT_EMBEDDING,
    ceiling: Annotated[
        list[str] | None, typer.Option(help="System that sees the target, shown as a further ceiling; repeat it.")
    ] = None,
    steps: ManySteps = None,
    method: ManyMethods = None,
    guidance: Guidance = None,
    keep_db: ManyKeepDB = None,
    first: First = None,
    batch_size: Annotated[int, typer.Option(help="Clips that are separated together; 1 to time them one by one.")] = 8,
    markdown: Markdown = False,
    json: Json = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Score separators on a list of pairs, in one table with floors and ceiling."""
    from lasslab.data.pairs import read_pairs
    from lasslab.evaluation.benchmark import evaluate
    from lasslab.evaluation.breakdown import check_kinds, esc50_labels
    from lasslab.evaluation.pictures import write_examples
    from lasslab.signal.files import check_can_make

    check_kinds(by or ())
    if sounds and pictures is None:
        raise ValueError("--sounds needs --pictures: name the folder to write them into")
    if json is not None:
        check_output(json, pairs)
    if pictures is not None:
        check_can_make(pictures)
    every = read_pairs(pairs, audio)
    listed = _take(every, first)
    loaded = _sampled(_load(system, device), n_steps=steps, method=method, guidance_scale=[guidance], keep_db=keep_db)
    systems = list(loaded.values())
    ceilings = list(_load(ceiling, device, option="--ceiling").values()) if ceiling else []
    found = evaluate(
        systems if len(systems) > 1 else systems[0],
        listed,
        snr_db=snr_db,
        seed=seed,
        pair_list=pairs,
        labels=esc50_labels(audio),
        names=list(loaded),
        embedding=_load_embedding(embedding, device),
        ceilings=ceilings,
        batch_size=batch_size,
        progress=is_terminal(),
    )
    _say_stem_matches(pairs, every, err=markdown)
    typer.echo(found.table(markdown=markdown, by=by or ()))
    if json is not None:
        found.save(json)
        typer.echo(f"wrote {json}", err=markdown)
    if pictures is not None:
        for each, report in zip(systems, found if len(systems) > 1 else [found], strict=True):
            for path in write_examples(pictures, report, each, listed, sounds=sounds):
                typer.echo(f"wrote {path}", err=markdown)


def evaluate_editing(
    triplets: Annotated[Path, typer.Option(help="List of edits: task,original,target,instruction and more columns.")],
    audio: Audio,
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system", help=f"Name or folder of a checkpoint, or original; repeat it. Default {DEFAULT_EDITOR}."
        ),
    ] = None,
    embedding: Embedding = DEFAULT_EMBEDDING,
    steps: ManySteps = None,
    guidance: Guidance = None,
    t_start: Annotated[
        list[float] | None, typer.Option("--t-start", help="Where editors start, in [0, 1); repeat it for a row each.")
    ] = None,
    keep_db: ManyKeepDB = None,
    in_turn: Annotated[
        list[bool] | None, typer.Option(IN_TURN, help=f"{IN_TURN_HELP} Give both for a row each.")
    ] = None,
    first: First = None,
    batch_size: Annotated[int, typer.Option(help="Clips that are edited together; 1 to time them one by one.")] = 8,
    markdown: Markdown = False,
    json: Json = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Score editors on a list of edits, in one table with floor and ceiling, overall and by task."""
    from lasslab.data.triplets import read_triplets
    from lasslab.evaluation.editing import evaluate_editing
    from lasslab.systems.editing import load_editor

    if json is not None:
        check_output(json, triplets)
    listed = _take(read_triplets(triplets, audio), first)
    loaded = _sampled(
        _load(system, device, load=load_editor, default=DEFAULT_EDITOR),
        n_steps=steps,
        guidance_scale=[guidance],
        t_start=t_start,
        keep_db=keep_db,
        in_turn=in_turn,
    )
    with_codec = any(hasattr(each, "codec") for each in loaded.values())
    found = evaluate_editing(
        list(loaded.values()),
        listed,
        names=list(loaded),
        embedding=_load_embedding(embedding, device),
        ceiling=None if with_codec else load_editor("round-trip", device=device),
        batch_size=batch_size,
        seed=seed,
        triplet_list=triplets,
        progress=is_terminal(),
    )
    typer.echo(found.table(markdown=markdown))
    if json is not None:
        found.save(json)
        typer.echo(f"wrote {json}", err=markdown)


def evaluate_wording(
    pairs: PairList,
    audio: Audio,
    system: Systems = None,
    snr_db: Level = 0.0,
    absent: Annotated[int, typer.Option(help="How many mixtures are asked for a class that is not in them.")] = 100,
    markdown: Markdown = False,
    json: Json = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Ask separators in words that training never heard, and for sounds that are not there."""
    from lasslab.data.pairs import read_pairs
    from lasslab.evaluation.breakdown import esc50_labels
    from lasslab.evaluation.wording import evaluate_wording
    from lasslab.evaluation.wording_report import save_reports, wording_summary

    if json is not None:
        check_output(json, pairs)
    listed = read_pairs(pairs, audio)
    loaded = _load(system, device)
    reports = [
        evaluate_wording(
            each,
            listed,
            n_absent=absent,
            snr_db=snr_db,
            seed=seed,
            pair_list=pairs,
            labels=esc50_labels(audio),
            name=name,
            progress=is_terminal(),
        )
        for name, each in loaded.items()
    ]
    _say_stem_matches(pairs, listed, err=markdown)
    typer.echo("\n\n".join(report.table(markdown=markdown) for report in reports))
    if len(reports) > 1:
        typer.echo(f"\n{wording_summary(reports, markdown=markdown)}")
    if json is not None:
        save_reports(json, reports)
        typer.echo(f"wrote {json}", err=markdown)


def _take(listed: list, first: int | None) -> list:
    """The first rows of a list, or all of it."""
    if first is not None and first < 1:
        raise ValueError(f"--first must be at least 1, got {first}: leave it out for the whole list")
    return listed[:first]


def _say_stem_matches(path: Path, listed: list["Pair"], *, err: bool) -> None:
    """How many files have another suffix than in the list, if any."""
    from lasslab.data.pairs import stem_matches

    if words := stem_matches(path, listed):
        typer.echo(f"{path}: {words}", err=err)


def _load_embedding(name: str, device: str) -> "AudioTextEmbedding | None":
    """The embedding of that name; None for none."""
    if name == "none":
        return None
    from lasslab.models.clap import load_clap
    from lasslab.systems.separation import choose_device

    try:
        return load_clap(name, device=choose_device(device))
    except ValueError as error:
        raise ValueError(f"--embedding {name}: {error}; or leave these metrics out with --embedding none") from error


def _sampled(loaded: dict[str, "System"], **swept: "Sequence[Any] | None") -> dict[str, "System"]:
    """Each system that samples, once for every combination of settings; the others as they are.

    Args:
        loaded: name -> system.
        **swept: of `SETTINGS`, the values to go through; none leaves a setting as it is.

    Returns:
        Name, with the settings that have several values -> system.

    Raises:
        ValueError: a value is given twice, there are settings and no system samples, or a system refuses one.
    """
    for name, values in swept.items():
        _refuse_twice(values or (), option=SETTINGS[name], what="value")
    combinations = [
        dict(zip(swept, values, strict=True)) for values in product(*(each or [None] for each in swept.values()))
    ]
    if not any(hasattr(each, "with_sampling") for each in loaded.values()):
        with_sampling(next(iter(loaded.values())), **combinations[0])  # refuses what is given
        return loaded
    expanded = {}
    for name, each in loaded.items():
        if not hasattr(each, "with_sampling"):
            expanded[name] = each
            continue
        for settings in combinations:
            other = with_sampling(each, **settings)
            said = {key: _said(key, value) for key, value in settings.items() if len(swept[key] or ()) > 1}
            said["n_steps"] = other.name.removeprefix(each.name)  # the system's own way of saying it
            order = ("keep_db", "in_turn", "method", "n_steps", "t_start")
            expanded[name + "".join(said.get(key, "") for key in order)] = other
    return expanded


def _refuse_twice(values: "Sequence[Any]", *, option: str, what: str) -> None:
    """Refuse what would be two rows of one name."""
    if twice := [value for value, count in Counter(values).items() if count > 1]:
        raise ValueError(f"{option} {twice[0]} is given twice: name each {what} once")


def _said(key: str, value: Any) -> str:
    """A setting in the name of a row."""
    if key == "in_turn":
        return ", in turn" if value else ", at once"
    if key == "method":
        return f", {value}"
    return f", {key} {value:g}"


def _load(
    asked: list[str] | None,
    device: str,
    *,
    option: str = "--system",
    load: "Callable[..., System] | None" = None,
    default: str = DEFAULT_SYSTEM,
) -> dict[str, "System"]:
    """Name -> system: its own name, or what was typed where two share one, as runs/a/best and runs/b/best do."""
    if load is None:
        from lasslab.systems.separation import load_separator as load

    asked = asked or [default]
    _refuse_twice(asked, option=option, what="system")
    loaded = [load(name, device=device) for name in asked]
    count = Counter(each.name for each in loaded)
    names = [each.name if count[each.name] == 1 else typed for each, typed in zip(loaded, asked, strict=True)]
    return dict(zip(names, loaded, strict=True))
