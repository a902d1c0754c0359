"""`lasslab mixtures`: a test set of mixtures, drawn from a corpus and written with its list."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lasslab.cli.options import Seed, is_terminal, whole_numbers

if TYPE_CHECKING:
    from lasslab.data.clips import Clip

Range = tuple[float, float]


def mixtures(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make.")],
    corpus: Annotated[
        str | None, typer.Option(help="Corpus to draw from; default the protocol's. esc50, synthesis, ...")
    ] = None,
    number: Annotated[
        int | None, typer.Option("-n", "--number", help="Number of mixtures; default the protocol's.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="A published test set's recipe: esc50, vggsound, thesis-0.75, ...")
    ] = None,
    snr_db: Annotated[
        Range | None, typer.Option(metavar="LO HI", help="SNR in dB, drawn uniformly; default 0 0.")
    ] = None,
    lufs: Annotated[
        Range | None, typer.Option(metavar="LO HI", help="Loudness of each part in LUFS, instead of an SNR.")
    ] = None,
    max_similarity: Annotated[
        float | None, typer.Option(help="Drop mixtures whose cosine with the target is above this.")
    ] = None,
    n_sources: Annotated[int | None, typer.Option(help="Sounds in a mixture; default 2.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length; default the protocol's, or the target's own.")] = None,
    folds: Annotated[str | None, typer.Option(help="Folds to draw from: 4, or 1,2,3.")] = None,
    labels: Annotated[str | None, typer.Option(help="Classes to draw from: rain,sea_waves; default all.")] = None,
    split: Annotated[str | None, typer.Option(help="Split to draw from; default the protocol's.")] = None,
    with_mixtures: Annotated[
        bool, typer.Option("--mixtures", help="Write the mixtures too, not only their sources.")
    ] = False,
    tagger: Annotated[
        str | None,
        typer.Option(
            help="Embedding that says what is heard in each clip, for a corpus without classes: clap-lab, ..."
        ),
    ] = None,
    tag_threshold: Annotated[
        float | None, typer.Option(help="Smallest probability at which the tagger's class counts as heard.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Draw a test set and write it: a pair list, its audio, and what each mixture is."""
    from tqdm import tqdm

    from lasslab.data.corpora import load_corpus
    from lasslab.data.mixture_sets import draw_mixtures, write_mixtures
    from lasslab.data.protocols import describe_protocol
    from lasslab.evaluation.provenance import git_commit
    from lasslab.signal.files import check_new_folder

    check_new_folder(output)
    if tag_threshold is not None and tagger is None:
        raise ValueError("--tag-threshold needs --tagger: name one, such as clap-lab")
    changes: dict[str, Any] = {
        "corpus": corpus,
        "n": number,
        "snr_db": snr_db,
        "lufs": lufs,
        "max_similarity": max_similarity,
        "n_sources": n_sources,
        "seconds": seconds,
        "split": split,
    }
    recipe, changed = _recipe(protocol, {name: value for name, value in changes.items() if value is not None})
    recipe.check_buildable()
    chosen_folds = None if folds is None else whole_numbers(folds, name="--folds")
    chosen_labels = None if labels is None else [label.strip() for label in labels.split(",")]
    splits = [recipe.split] if recipe.split else None
    clips = load_corpus(recipe.corpus, folds=chosen_folds, splits=splits, labels=chosen_labels)
    clips, kept_apart = _keep_apart(clips, recipe.corpus, tagger, tag_threshold)
    rows = draw_mixtures(recipe, clips, seed=seed)
    about = {
        "protocol": describe_protocol(recipe),
        "changed": changed,
        "seed": seed,
        "corpus": {
            "name": Path(recipe.corpus).name,
            "split": recipe.split,
            "folds": chosen_folds,
            "labels": chosen_labels,
            "n_clips": len(clips),
            "n_labels": len({clip.label for clip in clips}),
            **kept_apart,
        },
        "commit": git_commit(),
    }
    write_mixtures(
        output,
        rows,
        about=about,
        with_mixtures=with_mixtures,
        progress=lambda items: tqdm(items, disable=not is_terminal(), leave=False, unit="mixture"),
    )
    drawn = f"{len(rows)} mixtures of {about['corpus']['name']}, {recipe.level}"
    if protocol is not None:
        drawn += f", drawn as {protocol}" + (f" but for {', '.join(changed)}" if changed else "")
    typer.echo(f"{output}: {drawn}")
    typer.echo(f"score a system: lasslab evaluate separation --pairs {output / 'pairs.csv'} --audio {output / 'audio'}")


def _keep_apart(
    clips: list["Clip"], corpus: str, tagger: str | None, threshold: float | None
) -> tuple[list["Clip"], dict[str, Any]]:
    """The clips with what a tagger hears in them, and what `mixtures.json` says about it; without one, a warning."""
    from tqdm import tqdm

    from lasslab.data.tagging import MOST_TAGS, THRESHOLD, cache_folder, has_class_or_tags, tag_clips, untagged_note

    about: dict[str, Any] = {}
    if tagger is not None:
        from lasslab.models.clap import load_clap

        loaded = load_clap(tagger)
        threshold = THRESHOLD if threshold is None else threshold
        clips = tag_clips(
            clips,
            loaded,
            threshold=threshold,
            cache=cache_folder(),
            progress=lambda items: tqdm(items, disable=not is_terminal(), leave=False, unit="clip", desc="tagging"),
        )
        about["tagger"] = {"name": loaded.name, "fingerprint": loaded.fingerprint}
        about["tagger"] |= {"threshold": threshold, "top": MOST_TAGS}
    remedy = "give --tagger clap-lab" if tagger is None else "lower --tag-threshold"
    if note := untagged_note(clips, corpus=corpus, remedy=remedy):
        typer.echo(f"lasslab: {note}", err=True)
    return clips, about | {"n_without_class_or_tags": sum(not has_class_or_tags(clip) for clip in clips)}


def _recipe(name: str | None, changes: dict[str, Any]) -> tuple[Any, list[str]]:
    """The protocol with the command line's changes, and which of them differ from what is published."""
    from dataclasses import replace

    from lasslab.data.protocols import Protocol, find_protocol

    if name is None:
        missing = [option for option, key in (("--corpus", "corpus"), ("-n", "n")) if key not in changes]
        if missing:
            raise ValueError(f"give {' and '.join(missing)}, or a --protocol that says it")
        level = {} if changes.keys() & {"snr_db", "lufs"} else {"snr_db": (0.0, 0.0)}
        return Protocol(name="own", source="", **changes, **level), []
    published = find_protocol(name)
    changed = sorted(key for key, value in changes.items() if value != getattr(published, key))
    if "corpus" in changed and "split" not in changes:
        changes = changes | {"split": None}  # splits have other names in another corpus
    if "snr_db" in changed or "lufs" in changed:
        changes = {"snr_db": None, "lufs": None, "whole_decibels": False} | changes
    return replace(published, **changes), changed
