"""Pictures for the course, every one with a text alternative.

Each function draws, shows and closes one figure. Levels are in dB relative to the loudest panel, and the
panels of one picture share their colour scale, so that what looks louder is louder. Colours are safe for
colour-blind readers. Notebook 01 introduces the spectrogram, notebook 05 the masks.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, from https://jfly.uni-koeln.de/color/; the yellow is too pale for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, SOFT = "#1f2933", "#5b6775"
DPI = 100
STYLE = {
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 10.5,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e8ee",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "image.cmap": "magma",
}

Panels = Mapping[str, Any]


@contextmanager
def style() -> Iterator[None]:
    """Draw with the look of the course: ``with plot.style(): figure, axes = plt.subplots()``."""
    import matplotlib as mpl
    from cycler import cycler

    with mpl.rc_context({**STYLE, "axes.prop_cycle": cycler(color=COLOURS)}):
        yield


def show(figure: Figure, *, alt: str, caption: str = "") -> None:
    """Show a figure with its text alternative, and close it.

    Args:
        figure: the figure; it is closed, so that no cell shows it a second time.
        alt: one or two sentences that say what there is to see.
        caption: set below the picture.

    Raises:
        ValueError: `alt` is empty.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    if not alt.strip():
        plt.close(figure)
        raise ValueError("a picture needs alt text; say in a sentence what there is to see")
    png = _small_png(figure)
    plt.close(figure)
    display({"text/html": _as_html(png, alt, caption), "text/plain": f"[picture] {alt}"}, raw=True)


def spectrograms(
    spectra: Panels,
    *,
    alt: str,
    sample_rate: int = 16_000,
    hop_length: int = 256,
    top_db: float = 80.0,
    f_max: float | None = None,
    columns: int | None = None,
    caption: str = "",
) -> None:
    r"""Show spectrograms side by side on one colour scale.

    Level in dB: :math:`20 \log_{10} (|X| / \max |X|)`, the maximum over all panels.

    Args:
        spectra: name -> spectrum (F, N), complex or magnitude, linear.
        alt: what there is to see.
        sample_rate: Hz.
        hop_length: samples between frames.
        top_db: the scale's lower end, dB below the loudest panel's maximum.
        f_max: Hz, the highest frequency shown; None for all.
        columns: panels per row; None to fit up to three.
        caption: set below the picture.

    Raises:
        ValueError: a panel is not (F, N).
    """
    arrays = _planes(spectra, "spectrum (F, N)")
    loudest = max(float(np.abs(array).max()) for array in arrays.values())
    floor = max(loudest, 1e-12) * 10 ** (-top_db / 20)
    levels = {name: 20 * np.log10(np.maximum(np.abs(a), floor) / max(loudest, floor)) for name, a in arrays.items()}
    _planes_figure(
        levels,
        alt=alt,
        caption=caption,
        columns=columns,
        colours={"cmap": "magma", "vmin": -top_db, "vmax": 0.0},
        colour_label="level (dB)",
        seconds_per_frame=hop_length / sample_rate,
        frequencies=(0.0, sample_rate / 2),
        f_max=f_max,
    )


def mels(
    log_mels: Panels,
    *,
    alt: str,
    sample_rate: int = 16_000,
    hop_length: int = 160,
    columns: int | None = None,
    caption: str = "",
) -> None:
    """Show log-mel spectrograms (M, N), natural log, side by side on one colour scale; rows are mel bands."""
    arrays = _planes(log_mels, "log-mel spectrogram (M, N)")
    low = min(float(array.min()) for array in arrays.values())
    high = max(float(array.max()) for array in arrays.values())
    bands = next(iter(arrays.values())).shape[0]
    _planes_figure(
        arrays,
        alt=alt,
        caption=caption,
        columns=columns,
        colours={"cmap": "magma", "vmin": low, "vmax": high},
        colour_label="log mel magnitude",
        seconds_per_frame=hop_length / sample_rate,
        frequencies=(0.0, float(bands - 1)),
        y_label="mel band",
    )


def masks(
    panels: Panels,
    *,
    alt: str,
    sample_rate: int = 16_000,
    hop_length: int = 256,
    f_max: float | None = None,
    columns: int | None = None,
    caption: str = "",
) -> None:
    """Show masks (F, N) side by side: dark lets nothing through (0), bright lets everything through (1)."""
    _planes_figure(
        _planes(panels, "mask (F, N)"),
        alt=alt,
        caption=caption,
        columns=columns,
        colours={"cmap": "viridis", "vmin": 0.0, "vmax": 1.0},
        colour_label="mask",
        seconds_per_frame=hop_length / sample_rate,
        frequencies=(0.0, sample_rate / 2),
        f_max=f_max,
    )


def waveforms(sounds: Panels, *, alt: str, sample_rate: int = 16_000, caption: str = "") -> None:
    """Show waveforms (T,) below one another, on one time axis (s) and one amplitude scale."""
    import matplotlib.pyplot as plt

    arrays = {name: _as_array(sound) for name, sound in sounds.items()}
    if not arrays:
        raise ValueError("nothing to plot; give at least one waveform (T,)")
    for name, array in arrays.items():
        if array.ndim != 1:
            raise ValueError(f"waveform {name!r} must be (T,), got {array.shape}; pick a channel or mix down")
    peak = max(float(np.abs(array).max(initial=0.0)) for array in arrays.values()) or 1.0
    with style():
        size = (8.0, 0.6 + 1.15 * len(arrays))
        figure, rows = plt.subplots(len(arrays), 1, figsize=size, sharex=True, squeeze=False)
        for index, (axes, (name, array)) in enumerate(zip(rows[:, 0], arrays.items(), strict=True)):
            low, high, seconds = _envelope(array, sample_rate)
            axes.fill_between(seconds, low, high, color=COLOURS[index % len(COLOURS)], linewidth=0.6)
            axes.set(title=name, ylim=(-1.08 * peak, 1.08 * peak), xlim=(0, array.size / sample_rate))
        rows[-1, 0].set_xlabel("time (s)")
        figure.supylabel("amplitude", fontsize=10.5, color=INK)
    show(figure, alt=alt, caption=caption)


def histogram(
    values: Any,
    *,
    alt: str,
    label: str,
    threshold: float | None = None,
    keep: str = "below",
    bins: int = 40,
    caption: str = "",
) -> None:
    """Show how values are distributed, and which of them a threshold keeps.

    Args:
        values: numbers (n,), or name -> numbers for several laid over one another.
        alt: what there is to see.
        label: the quantity with its unit, under the axis.
        threshold: drawn as a dashed line; the dropped side is hatched and the kept share is in the legend.
        keep: the side that is kept, ``"below"`` or ``"above"``.
        bins: number of bins, the same for all.
        caption: set below the picture.

    Raises:
        ValueError: no values, or `keep` is neither side.
    """
    import matplotlib.pyplot as plt

    if keep not in ("below", "above"):
        raise ValueError(f"keep is 'below' or 'above', got {keep!r}")
    groups = values if isinstance(values, Mapping) else {"": values}
    arrays = {name: _as_array(group).reshape(-1) for name, group in groups.items()}
    if not all(array.size for array in arrays.values()):
        raise ValueError("histogram got no values; give at least one number")
    edges = np.histogram_bin_edges(np.concatenate(list(arrays.values())), bins=bins)
    with style():
        figure, axes = plt.subplots(figsize=(7.0, 3.2))
        for index, (name, array) in enumerate(arrays.items()):
            shade = {"color": COLOURS[index], "alpha": 0.55 if len(arrays) > 1 else 0.9}
            axes.hist(array, edges, label=name or None, edgecolor="white", linewidth=0.5, **shade)
        if threshold is not None:
            _mark_threshold(axes, arrays, threshold, keep)
        axes.set(xlabel=label, ylabel="count")
        axes.grid(axis="x", visible=False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    show(figure, alt=alt, caption=caption)


def curves(
    lines: Panels,
    *,
    alt: str,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    log_x: bool = False,
    caption: str = "",
) -> None:
    """Show curves: name -> values, or name -> (x, values). Few points get markers."""
    import matplotlib.pyplot as plt

    with style():
        figure, axes = plt.subplots(figsize=(7.0, 3.4))
        for name, line in lines.items():
            x, y = line if isinstance(line, tuple) else (np.arange(len(line)), line)
            x, y = _as_array(x), _as_array(y)
            axes.plot(x, y, label=name, marker="o" if y.size <= 25 else "", markersize=4)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_yscale("log" if log_y else "linear")
        axes.set_xscale("log" if log_x else "linear")
        if len(lines) > 1:
            axes.legend()
    show(figure, alt=alt, caption=caption)


def bars(
    values: Mapping[str, float],
    *,
    alt: str,
    label: str,
    errors: Mapping[str, tuple[float, float]] | None = None,
    caption: str = "",
) -> None:
    """Show one bar per name, in the order given, with its value: floors, systems, ceiling.

    Args:
        values: name -> value.
        alt: what there is to see.
        label: the quantity with its unit.
        errors: name -> (low, high), ends of an interval around the value.
        caption: set below the picture.
    """
    import matplotlib.pyplot as plt

    names, numbers = list(values), [float(value) for value in values.values()]
    with style():
        figure, axes = plt.subplots(figsize=(7.0, 0.8 + 0.42 * len(names)))
        axes.barh(names, numbers, color=COLOURS[0], height=0.62)
        for name, number in zip(names, numbers, strict=True):
            low, high = (errors or {}).get(name, (number, number))
            if name in (errors or {}):
                axes.plot([low, high], [name, name], color=INK, linewidth=1.6, marker="|", markersize=8)
            outer, side = (max(high, number, 0.0), 5) if number >= 0 else (min(low, number, 0.0), -5)
            where = {"xytext": (side, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{number:.1f}", (outer, name), ha="left" if number >= 0 else "right", **where)
        axes.axvline(0, color=SOFT, linewidth=0.8)
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(label)
    show(figure, alt=alt, caption=caption)


def _planes_figure(
    planes: Mapping[str, np.ndarray],
    *,
    alt: str,
    caption: str,
    columns: int | None,
    colours: dict[str, Any],
    colour_label: str,
    seconds_per_frame: float,
    frequencies: tuple[float, float],
    f_max: float | None = None,
    y_label: str = "frequency (kHz)",
) -> None:
    """Draw planes (rows, frames) as images that share both axes and one colour bar."""
    import matplotlib.pyplot as plt

    columns = columns or min(3, len(planes))
    rows = math.ceil(len(planes) / columns)
    scale = 1e-3 if y_label.endswith("(kHz)") else 1.0
    low, high = (frequency * scale for frequency in frequencies)
    with style():
        size = (1.1 + (5.4, 3.6, 2.75)[min(columns, 3) - 1] * columns, 0.5 + 2.35 * rows)
        figure, grid = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(planes) :]:
            axes.set_visible(False)
        for axes, (name, plane) in zip(grid.flat, planes.items(), strict=False):
            half_row = (high - low) / (plane.shape[0] - 1) / 2 if plane.shape[0] > 1 else 0.5
            half_frame = seconds_per_frame / 2  # frame n is centred on n * hop_length / sample_rate
            right = (plane.shape[1] - 1) * seconds_per_frame + half_frame
            extent = (-half_frame, right, low - half_row, high + half_row)
            image = axes.imshow(plane, origin="lower", aspect="auto", extent=extent, **colours)
            axes.set(title=name, ylim=(low, min(high, f_max * scale) if f_max else high))
            axes.grid(visible=False)
        for axes in grid[:, 0]:
            axes.set_ylabel(y_label)
        for column in range(columns):
            last = grid[rows - 1 if (rows - 1) * columns + column < len(planes) else rows - 2, column]
            last.set_xlabel("time (s)")
            last.tick_params(labelbottom=True)
        figure.colorbar(image, ax=grid, label=colour_label, shrink=0.95, pad=0.015, aspect=24)
    show(figure, alt=alt, caption=caption)


def _mark_threshold(axes: Axes, arrays: Mapping[str, np.ndarray], threshold: float, keep: str) -> None:
    values = np.concatenate(list(arrays.values()))
    share = float(np.mean(values < threshold if keep == "below" else values > threshold))
    low, high = axes.get_xlim()
    dropped = (threshold, high) if keep == "below" else (low, threshold)
    line = f"threshold {threshold:g}: {share:.0%} kept"
    axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.6, label=line)
    axes.axvspan(*dropped, facecolor="none", edgecolor=SOFT, hatch="///", alpha=0.35, linewidth=0, label="dropped")
    axes.set_xlim(low, high)


def _envelope(waveform: np.ndarray, sample_rate: int, points: int = 1600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lowest and highest sample in each of at most `points` stretches: a picture shows no more."""
    step = max(1, math.ceil(waveform.size / points))
    padded = np.pad(waveform, (0, -waveform.size % step), mode="edge").reshape(-1, step)
    return padded.min(axis=1), padded.max(axis=1), (np.arange(len(padded)) + 0.5) * step / sample_rate


def _planes(panels: Panels, kind: str) -> dict[str, np.ndarray]:
    arrays = {name: _as_array(panel) for name, panel in panels.items()}
    if not arrays:
        raise ValueError(f"nothing to plot; give at least one {kind}")
    for name, array in arrays.items():
        if array.ndim != 2 or not array.size:
            raise ValueError(f"{name!r} must be a {kind}, got shape {array.shape}; index the batch and channel first")
        if not np.isfinite(array).all():
            raise ValueError(f"{name!r} has NaN or infinite values; a picture of it would mislead")
    return arrays


def _as_array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu().resolve_conj().numpy()
    return np.asarray(values)


def _small_png(figure: Figure) -> bytes:
    """Render to a PNG of 128 colours: a fifth of the size, and the same to the eye."""
    from PIL import Image

    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=DPI)
    image = Image.open(full).convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    return small.getvalue()


def _as_html(png: bytes, alt: str, caption: str) -> str:
    """An image element, because notebook front ends give a bare image/png output no text alternative."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    picture = f'<img src="{source}" alt="{html.escape(alt)}" style="max-width:100%;height:auto">'
    if not caption:
        return picture
    return f"<figure style='margin:0'>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"


__all__: Sequence[str] = (
    "COLOURS",
    "bars",
    "curves",
    "histogram",
    "masks",
    "mels",
    "show",
    "spectrograms",
    "style",
    "waveforms",
)
