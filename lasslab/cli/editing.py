"""`lasslab edit`: a recording and an instruction in, the edited recording out; `lasslab triplets`: a list of edits."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lasslab.cli.options import (
    DEFAULT_EDITOR,
    Device,
    Guidance,
    InTurn,
    KeepDB,
    Seed,
    Steps,
    System,
    TStart,
    is_terminal,
    whole_numbers,
    with_sampling,
)
from lasslab.cli.recordings import process_recording

if TYPE_CHECKING:
    from collections.abc import Callable

    from lasslab.data.clips import Clip
    from lasslab.systems.editing import Editor

SYNTHESIS_SEED = 2  # of the clips of a list: trainings here have seeds 0, 7, 11 and 13, their validation seed 1


def edit(
    audio: Annotated[Path, typer.Argument(metavar="IN", help="Recording of any length: WAV, FLAC, OGG or MP3.")],
    instruction: Annotated[str, typer.Argument(help='What to change, in words: "remove the dog barking".')],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write; the suffix decides the format.")],
    system: System = DEFAULT_EDITOR,
    steps: Steps = None,
    t_start: TStart = None,
    guidance: Guidance = None,
    keep_db: KeepDB = None,
    in_turn: InTurn = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Add, remove or replace a sound of a recording, as an instruction says."""
    from lasslab.data.instructions import read_instruction
    from lasslab.models.text import check_instruction
    from lasslab.systems.editing import UnknownTask, load_editor

    check_instruction(instruction)

    def load() -> "Editor":
        return with_sampling(
            load_editor(system, device=device),
            n_steps=steps,
            guidance_scale=guidance,
            t_start=t_start,
            keep_db=keep_db,
            in_turn=in_turn,
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownTask)  # said below, in a line
        written = process_recording(audio, output, instruction, load, to_do="edit", seed=seed)
    read = read_instruction(instruction)
    if read.task is None:
        typer.echo(
            f"lasslab: no known task in {instruction!r}, it was passed on as it stands: add, remove and replace are "
            "what editors were trained for",
            err=True,
        )
    else:
        typer.echo(f"read as: {read}")
    typer.echo(written)


def triplets(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make.")],
    corpus: Annotated[list[str], typer.Option(help="Corpus to draw from, esc50, synthesis, ...; repeat it.")],
    number: Annotated[int, typer.Option("-n", "--number", help="Number of edits; a multiple of six is balanced.")],
    seconds: Annotated[float, typer.Option(help="Length of each recording.")] = 5.0,
    folds: Annotated[str | None, typer.Option(help="Folds to draw from: 4, or 1,2,3.")] = None,
    split: Annotated[str | None, typer.Option(help="Split to draw from.")] = None,
    most_events: Annotated[int, typer.Option(help="Leave out clips that tell of more sound events.")] = 3,
    absent: Annotated[float, typer.Option(help="Share of the removals that name a sound which is not there.")] = 0.0,
    whole_groups: Annotated[
        bool,
        typer.Option("--whole-groups", help="All six edits of each three sounds, as in training; else one of each."),
    ] = False,
    tagger: Annotated[
        str | None,
        typer.Option(help="Embedding that says how well a clip fits its captions: clap-lab, a CLAP by name."),
    ] = None,
    min_similarity: Annotated[
        float | None, typer.Option(help="Leave out clips whose cosine with their captions is not above this.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Draw edits and write them: a list of original, target and instruction, and its audio."""
    from tqdm import tqdm

    from lasslab.data.edits import SIMILARITY, SIX_EDITS, EditDataset
    from lasslab.data.triplets import LIST_FILE, independent_numbers, write_triplets
    from lasslab.evaluation.provenance import git_commit
    from lasslab.signal.files import new_folder, write_json

    if min_similarity is not None and tagger is None:
        raise ValueError("--min-similarity needs --tagger: name one, such as clap-lab")
    if number < 1:
        raise ValueError(f"n must be at least 1, got {number}")
    with new_folder(output) as folder:
        clips = _clips(corpus, folds, split)
        keep, about = None, {}
        if tagger is not None:
            threshold = SIMILARITY if min_similarity is None else min_similarity
            keep, about = _keep(clips, tagger, threshold)
        settings = {"seconds": seconds, "most_events": most_events, "absent": absent, "keep": keep, "seed": seed}
        dataset = EditDataset(clips, n=number if whole_groups else len(SIX_EDITS) * number, **settings)
        chosen = range(number) if whole_groups else independent_numbers(number)
        numbers = tqdm(chosen, disable=not is_terminal(), leave=False, unit="edit")
        written = write_triplets(folder, dataset, numbers=numbers)
        tasks = {task: sum(each.task == task for each in written) for task, _, _ in SIX_EDITS}
        note = {
            "corpora": [Path(name).name for name in corpus],
            "folds": None if folds is None else whole_numbers(folds, name="--folds"),
            "split": split,
            "n": number,
            "tasks": tasks,
            "whole_groups": whole_groups,
            "n_clips": len(clips),
            "n_labels": len({clip.label for clip in clips}),
            "seconds": seconds,
            "most_events": most_events,
            **{name: getattr(dataset, name) for name in ("absent", "most_base_clips", "level_db")},
            "similarity": about or None,
            "seed": seed,
            "synthesis_seed": SYNTHESIS_SEED if "synthesis" in corpus else None,
            "commit": git_commit(),
        }
        write_json(folder / "triplets.json", note)
    counted = ", ".join(f"{count} {task}" for task, count in tasks.items())
    typer.echo(f"{output}: {number} edits of {', '.join(note['corpora'])}: {counted}")
    if about:
        typer.echo(f"{about['n_kept']} of {len(clips)} clips fit their captions above {about['min_similarity']:g}")
    if number % len(SIX_EDITS):
        remark = "the last group of edits is not whole" if whole_groups else "the tasks are not equally many"
        typer.echo(f"{number} is no multiple of {len(SIX_EDITS)}: {remark}")
    typer.echo(f"score an editor: lasslab evaluate editing --triplets {output / LIST_FILE} --audio {output / 'audio'}")


def _clips(corpora: list[str], folds: str | None, split: str | None) -> "list[Clip]":
    """Clips of all corpora; synthesised ones have neither folds nor splits, beside others that have."""
    from lasslab.data.corpora import load_corpus

    chosen = {
        "folds": None if folds is None else whole_numbers(folds, name="--folds"),
        "splits": None if split is None else [split],
    }
    if len(set(corpora)) < len(corpora):
        raise ValueError(f"--corpus {', '.join(corpora)}: name each corpus once")
    found = []
    for name in corpora:
        alone = len(corpora) == 1
        options = {"seed": SYNTHESIS_SEED} if name == "synthesis" else {}
        found += load_corpus(name, **options, **(chosen if alone or name != "synthesis" else {}))
    return found


def _keep(clips: "list[Clip]", name: str, min_similarity: float) -> "tuple[Callable[[Clip], bool], dict[str, Any]]":
    """The filter on the similarity of sound and caption, and what `triplets.json` says about it."""
    from tqdm import tqdm

    from lasslab.data.similarity import similarity_filter
    from lasslab.data.tagging import cache_folder
    from lasslab.models.clap import load_clap

    try:
        embedding = load_clap(name)
    except ValueError as error:
        raise ValueError(f"--tagger {name}: {error}") from error
    keep = similarity_filter(
        clips,
        embedding,
        min_similarity=min_similarity,
        cache=cache_folder(),
        progress=lambda items: tqdm(items, disable=not is_terminal(), leave=False, unit="clip", desc="listening"),
    )
    about = {"embedding": embedding.name, "fingerprint": embedding.fingerprint, "min_similarity": min_similarity}
    return keep, about | {"n_kept": sum(map(keep, clips))}
