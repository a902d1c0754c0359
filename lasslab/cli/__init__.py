"""The `lasslab` command. Each command reads its arguments, calls one function of the package, and says what came of it.

Bad input is one line on standard error and exit code 2, without a traceback unless `--debug` comes first. Exit code 1
means that the work itself failed: a machine that cannot run the course, a notebook with an error, a training that
diverged.

One file holds the commands of one subject; `options.py` what they share. Importing this brings in typer and nothing
else of weight: a command imports what it needs when it runs.
"""

import sys
from typing import Annotated

import typer

from lasslab.cli import benchmarks, course, editing, evaluation, fetching, mixtures, separation, training

ClickException = typer.BadParameter.__mro__[2]  # typer keeps its copy of click to itself

app = typer.Typer(
    help="Separate and edit sound with text, and run the course that teaches how.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
evaluate_app = typer.Typer(help="Score a system, with floors and ceiling.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _root(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """Options that come before the command; `main` reads --debug."""


app.command()(course.doctor)
app.command()(separation.separate)
app.command()(editing.edit)
app.command()(mixtures.mixtures)
app.command()(editing.triplets)
app.command()(fetching.fetch)
app.command()(training.train)
app.add_typer(evaluate_app, name="evaluate")
evaluate_app.command("separation")(evaluation.evaluate_separation)
evaluate_app.command("editing")(evaluation.evaluate_editing)
evaluate_app.command("wording")(evaluation.evaluate_wording)
app.command()(course.run)
app.command()(course.student)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(benchmarks.bench)


def main() -> None:
    """Entry point: errors become one line and an exit code."""
    debug = "--debug" in sys.argv[1:]
    try:
        sys.exit(app(course.join_parameters(sys.argv[1:]), standalone_mode=False) or 0)
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
