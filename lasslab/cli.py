"""The `lasslab` command. Each command reads its arguments, calls one function of the package, and says what came of it.

Bad input is one line on standard error and exit code 2, without a traceback unless `--debug` comes first. Exit code 1
means that the work itself failed: a machine that cannot run the course, a notebook with an error, a training that
diverged.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

ClickException = typer.BadParameter.__mro__[2]  # typer keeps its copy of click to itself

app = typer.Typer(
    help="Separate and edit sound with text, and run the course that teaches how.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
evaluate_app = typer.Typer(help="Score a system, with floors and ceiling.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(evaluate_app, name="evaluate")

System = Annotated[str, typer.Option("--system", help="Name or folder of a checkpoint, or a baseline.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
Seed = Annotated[int, typer.Option(help="Decides everything random.")]
DEFAULT_SYSTEM = "resunetpp-lab"


@app.callback()
def _root(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """Options that come before the command; `main` reads --debug."""


@app.command()
def doctor() -> None:
    """Say what is installed, which device, which data; exit 1 with a remedy if the course cannot run."""
    from lasslab.course.doctor import examine, is_ready

    findings = examine()
    for finding in findings:
        typer.echo(str(finding))
    ready = is_ready(findings)
    typer.echo("The course can run." if ready else "The course cannot run yet: see what is MISSING above.")
    raise typer.Exit(0 if ready else 1)


@app.command()
def separate(
    audio: Annotated[Path, typer.Argument(metavar="IN", help="Recording: WAV, FLAC, OGG or MP3.")],
    query: Annotated[str, typer.Argument(help='What to keep, in words: "a dog barking".')],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write; the suffix decides the format.")],
    system: System = DEFAULT_SYSTEM,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Pull the sound that a sentence names out of a recording."""
    import torch

    from lasslab.models.text import check_query
    from lasslab.signal.audio import read_audio, save_audio
    from lasslab.systems.separation import load_separator

    check_query(query)
    _check_output(output, audio)
    waveform, sample_rate = read_audio(audio)
    if not waveform.any():
        raise ValueError(f"{audio} is silent from start to end, there is nothing to separate: check the recording")
    separator = load_separator(system, device=device)
    try:
        estimate = separator(waveform, query, sample_rate=sample_rate, generator=torch.Generator().manual_seed(seed))
    except ValueError as error:
        raise ValueError(f"{audio}: {error}") from error
    save_audio(output, estimate, sample_rate=sample_rate)
    kept = estimate.square().mean().sqrt() / waveform.square().mean().sqrt().clamp(min=1e-12)
    level = f"{20 * torch.log10(kept.clamp(min=1e-6)):.1f} dB of the recording's level"
    typer.echo(f"{output}: {waveform.shape[-1] / sample_rate:.2f} s, {sample_rate} Hz, {level} ({separator.name})")


@app.command()
def train(
    objective: Annotated[str, typer.Argument(help="What to train: masking.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the training.")],
    preset: Annotated[str, typer.Option(help="quick, lab or full.")] = "quick",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the training in the folder.")] = False,
) -> None:
    """Train a network; Ctrl-C stops after the step in progress, --resume goes on."""
    from lasslab.training.recipes import PRESETS, change_recipe, read_recipe, train_recipe

    if objective not in PRESETS:
        raise ValueError(f"unknown objective {objective!r}: choose one of {', '.join(PRESETS)}")
    if preset not in PRESETS[objective]:
        raise ValueError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS[objective])}")
    recipe = read_recipe(output, objective) if resume else PRESETS[objective][preset]
    result = train_recipe(change_recipe(recipe, settings or []), output, resume=resume)
    best = "not validated" if result.best is None else f"best {result.best:.2f} at step {result.best_step}"
    typer.echo(f"{output}: step {result.step}, {result.seconds:.0f} s, {best}; use it with --system {output / 'best'}")
    if result.stopped:
        raise typer.Exit(130)


@evaluate_app.command("separation")
def evaluate_separation(
    pairs: Annotated[Path, typer.Option(help="Pair list: idx,caption,src_wav,noise_wav.")],
    audio: Annotated[Path, typer.Option(help="Folder of the audio files in the list.")],
    system: System = DEFAULT_SYSTEM,
    snr_db: Annotated[float, typer.Option(help="SNR to mix at, dB.")] = 0.0,
    json: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Score a separator on a list of pairs."""
    from lasslab.data.mixtures import read_pairs
    from lasslab.evaluation.benchmark import evaluate
    from lasslab.systems.separation import load_separator

    if json is not None:
        _check_output(json, pairs)
    listed = read_pairs(pairs, audio)
    report = evaluate(
        load_separator(system, device=device),
        listed,
        snr_db=snr_db,
        seed=seed,
        pair_list=pairs,
        progress=_is_terminal(),
    )
    typer.echo(report.table())
    if json is not None:
        report.save(json)
        typer.echo(f"wrote {json}")


@app.command()
def run(
    notebook: Annotated[Path, typer.Argument(help="A notebook, or its number in the course: 04.")],
    parameters: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", metavar="NAME VALUE", help="May be repeated.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="lab or full; default: the notebook's own values.")] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the notebook, its page and run.json.")
    ] = Path("build/runs"),
) -> None:
    """Run a notebook strictly: unknown parameters, wrong types and hidden errors fail."""
    from lasslab.course.parameters import parse_parameters
    from lasslab.course.runner import find_notebook, run_notebook

    path = find_notebook(notebook)
    values = parse_parameters(path, dict(_name_and_value(text) for text in parameters or []))
    result = run_notebook(path, parameters=values, preset=preset, output_dir=output)
    typer.echo(f"{result.notebook}: {result.seconds:.0f} s, {result.peak_memory_mb:.0f} MB; page {result.page}")


def _join_parameters(arguments: Sequence[str]) -> list[str]:
    """`-p NAME VALUE`, papermill's way, as the one word `NAME=VALUE` that an option can take."""
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        joined.append(word)
        pair = len(rest) >= 2 and "=" not in rest[0] and not _is_option(rest[1])
        if word in ("-p", "--parameter") and pair:
            joined.append(f"{rest.pop(0)}={rest.pop(0)}")
    return joined


def _is_option(word: str) -> bool:
    """`-o` or `--preset`, but not a negative number."""
    return word[:1] == "-" and not word[1:2].isdigit()


def _name_and_value(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name.strip() and separator):
        raise ValueError(f"-p takes a name and a value, got {text!r}")
    return name.strip(), value


def _check_output(output: Path, source: Path) -> None:
    """Refuse a place that cannot be written before any work is done."""
    if output.is_dir():
        raise ValueError(f"{output} is a folder: give the name of the file to write")
    if not output.resolve().parent.is_dir():
        raise ValueError(f"{output}: the folder {output.resolve().parent} does not exist, make it first")
    if not os.access(output.resolve().parent, os.W_OK):
        raise ValueError(f"{output}: the folder {output.resolve().parent} cannot be written, choose another")
    if source.exists() and output.exists() and output.samefile(source):
        raise ValueError(f"{output} is the input itself: choose another name, so that nothing is lost")


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def main() -> None:
    """Entry point: errors become one line and an exit code."""
    debug = "--debug" in sys.argv[1:]
    try:
        sys.exit(app(_join_parameters(sys.argv[1:]), standalone_mode=False) or 0)
    except typer.Abort:  # Ctrl-C, or the end of the input, at a prompt
        sys.exit(130)
    except ClickException as error:  # an option that does not exist, an argument too few
        sys.stderr.write(f"lasslab: {error.format_message().rstrip('.')}; see lasslab --help\n")
        sys.exit(2)
    except (ValueError, RuntimeError, FloatingPointError, OSError) as error:
        if debug:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        sys.stderr.write(f"lasslab: {message}\n")
        sys.exit(2 if isinstance(error, ValueError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
