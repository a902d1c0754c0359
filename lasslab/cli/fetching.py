"""`lasslab fetch`: a corpus from its own public place into the data root."""

from pathlib import Path
from typing import Annotated

import typer

from lasslab.cli.options import is_terminal


def fetch(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A corpus; without it, they are listed.")] = None,
    parts: Annotated[
        list[str] | None, typer.Option("--part", metavar="PART", help="Only this part; may be repeated.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of corpora; default: LASSLAB_DATA or data/corpora.")] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Another data/manifest.json, for example of a mirror in your network.")
    ] = None,
) -> None:
    """Download a corpus, check and unpack it; Ctrl-C stops, the same command goes on."""
    from lasslab.data.fetch import fetch_corpus, overview

    if name is None:
        for line in overview(manifest, root):
            typer.echo(line)
        return
    bars = _Bars() if is_terminal() else None
    try:
        fetch_corpus(name, parts=parts, root=root, manifest=manifest, progress=bars, say=_say(bars))
    except KeyboardInterrupt:
        if bars:
            bars.close()
        typer.echo("stopped; what was downloaded is kept, the same command goes on", err=True)
        raise typer.Exit(130) from None
    finally:
        if bars:
            bars.close()


def _say(bars: "_Bars | None"):
    def say(text: str) -> None:
        if bars:
            bars.close()
        typer.echo(text)

    return say


class _Bars:
    """One progress bar after the other, a new one whenever the work has another name."""

    def __init__(self) -> None:
        self.name = ""
        self.bar = None

    def __call__(self, name: str, done: int, total: int | None) -> None:
        from tqdm import tqdm

        if name != self.name or self.bar is None:
            self.close()
            self.name = name
            self.bar = tqdm(desc=name, total=total, initial=done, unit="B", unit_scale=True, leave=False)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
