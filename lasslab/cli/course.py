"""`lasslab doctor`, `lasslab run` and `lasslab student`: the course on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer


def doctor() -> None:
    """Say what is installed, which device, which data; exit 1 with a remedy if the course cannot run."""
    from lasslab.course.doctor import examine, is_ready

    findings = examine()
    for finding in findings:
        typer.echo(str(finding))
    ready = is_ready(findings)
    typer.echo("The course can run." if ready else "The course cannot run yet: see what is MISSING above.")
    raise typer.Exit(0 if ready else 1)


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


def student(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the edition; yours to work in.")],
    notebooks: Annotated[Path | None, typer.Option(help="The course; default: the one beside the package.")] = None,
) -> None:
    """Write the edition without solutions: every exercise is a stub that says "not done yet"."""
    from lasslab.course.runner import course_folder
    from lasslab.course.student import write_student_edition

    files = write_student_edition(notebooks if notebooks is not None else course_folder(), output_dir=output)
    n_notebooks = sum(file.suffix == ".ipynb" for file in files)
    typer.echo(f"{n_notebooks} notebooks without solutions in {output}; begin with {output / 'README.md'}")


def join_parameters(arguments: Sequence[str]) -> list[str]:
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
