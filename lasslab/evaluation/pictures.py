"""The best, the median and the worst pair of a report: to look at, and to listen to.

A mean hides what a system does; three pairs chosen by rank, not by taste, show it. Notebook: 08.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lasslab.evaluation.batches import Batch, Pairs, load_item, separate
from lasslab.evaluation.benchmark import CEILING
from lasslab.evaluation.report import Report
from lasslab.evaluation.tables import METRICS, decimals
from lasslab.signal.audio import save_audio
from lasslab.signal.files import check_can_make, write_atomically
from lasslab.signal.spectral import stft
from lasslab.systems.separation import Separator

RANKED_BY = METRICS.index("sdri")  # defined for every estimate, a silent one too
TOP_DB = 70.0


class Example(NamedTuple):
    """One pair of a report, with its sounds.

    Attributes:
        rank: "best", "median" or "worst".
        number: position in the list.
        item: what it is, see `Report.items`.
        sounds: mixture, target, estimate and ceiling, (T,) each.
        scores: of the estimate, columns as in `METRICS`, dB, shape (4,).
        ceiling: of the ceiling, the same.
    """

    rank: str
    number: int
    item: Mapping[str, Any]
    sounds: dict[str, Tensor]
    scores: Tensor
    ceiling: Tensor


def ranks(report: Report) -> dict[str, int]:
    """Positions of the best, the median and the worst pair by SDRi; of an even number, the lower median."""
    order = report.scores[:, RANKED_BY].argsort(stable=True).tolist()
    return {"best": order[-1], "median": order[(len(order) - 1) // 2], "worst": order[0]}


def examples(report: Report, system: Separator, pairs: Pairs) -> list[Example]:
    """Mix and separate the three pairs again.

    Args:
        report: of this system on these pairs.
        system: what was evaluated.
        pairs: the pairs, in the order of the report.

    Returns:
        Best, median and worst.

    Raises:
        ValueError: a pair cannot be read any more; the message names it.
    """
    made, found = report.provenance, []
    for rank, number in ranks(report).items():
        item, mixture = load_item(pairs[number], number, snr_db=made["snr_db"], sample_rate=made["sample_rate"])
        single = type(mixture)(*(part[None] for part in mixture))
        batch = Batch([number], [item], [item["caption"]], single)
        estimates = {
            name: separate(each, batch, sample_rate=made["sample_rate"], seed=made["seed"])[0]
            for name, each in (("estimate", system), ("ceiling", CEILING))
        }
        sounds = {"mixture": mixture.mixture, "target": mixture.target, **estimates}
        scores = report.scores[number], report.floors["oracle_mask"][number]
        found.append(Example(rank, number, report.items[number], sounds, *scores))
    return found


def write_examples(
    directory: str | os.PathLike[str], report: Report, system: Separator, pairs: Pairs, *, sounds: bool = False
) -> list[Path]:
    """Write a picture of each of the three pairs, `NAME-best.png` and so on.

    Args:
        directory: made when it is missing; what is in it stays, but for pictures of the same names.
        report: of this system on these pairs.
        system: what was evaluated.
        pairs: the pairs, in the order of the report.
        sounds: write the four sounds of each pair beside its picture, as WAV.

    Returns:
        The files, in the order they were written.

    Raises:
        ValueError: see `lasslab.signal.files.check_can_make` and `examples`.
    """
    check_can_make(directory)
    directory = Path(directory)
    shown = examples(report, system, pairs)
    directory.mkdir(parents=True, exist_ok=True)
    stem, written = re.sub(r"[^\w.()-]+", "-", report.system).strip("-"), []
    for example in shown:
        path = directory / f"{stem}-{example.rank}.png"
        draw(path, example, report)
        written.append(path)
        for name, sound in example.sounds.items() if sounds else ():
            path = directory / f"{stem}-{example.rank}-{name}.wav"
            save_audio(path, sound, sample_rate=report.provenance["sample_rate"])
            written.append(path)
    return written


def draw(path: Path, example: Example, report: Report) -> None:
    """Draw the spectrograms of one example on one scale of levels, and write them as PNG.

    Args:
        path: file to write.
        example: what to draw.
        report: where it comes from.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sample_rate = report.provenance["sample_rate"]
    spectra = {name: stft(sound).abs() for name, sound in example.sounds.items()}  # (F, N)
    loudest = max(float(spectrum.max()) for spectrum in spectra.values())
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the machine
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, (name, spectrum) in zip(panels.flat, spectra.items(), strict=True):
        level = 20 * torch.log10(spectrum.clamp(min=loudest * 10 ** (-TOP_DB / 20)) / loudest)
        extent = (0.0, len(example.sounds[name]) / sample_rate, 0.0, sample_rate / 2_000)
        image = axes.imshow(
            level.numpy(), origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-TOP_DB, vmax=0
        )
        axes.set_title(_panel_title(name, example), loc="left", fontsize=10)
    figure.supxlabel("time (s)", fontsize=10)
    figure.supylabel("frequency (kHz)", fontsize=10)
    figure.colorbar(image, ax=panels, label="level (dB)", shrink=0.8)
    title = describe(example, report)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
    metadata = {"Description": title.replace("\n", ". "), "Software": None}
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=100, metadata=metadata))


def describe(example: Example, report: Report) -> str:
    """Title of a picture: rank, system, query; then which sounds were mixed."""
    item = example.item
    query = item["caption"] if len(item["caption"]) <= 60 else f"{item['caption'][:59]}…"
    mixed = [item.get("target", item.get("label")), item.get("noise", item.get("interference_label"))]
    words = " + ".join(str(name) for name in mixed if name is not None)
    rank = f"{example.rank.capitalize()} of {len(report.items)} pairs by SDRi: {report.system}, asked for “{query}”"
    return f"{rank}\npair {item['idx']}" + (f": {words}" if words else "")


def _panel_title(name: str, example: Example) -> str:
    scored = {"estimate": example.scores, "ceiling": example.ceiling}
    if name not in scored:
        return name
    _, sdri, si_sdr, _ = scored[name].tolist()
    label = {"estimate": "estimate", "ceiling": "ceiling (oracle ratio mask)"}[name]
    return f"{label}: SDRi {decimals(sdri)} dB, SI-SDR {decimals(si_sdr)} dB"
