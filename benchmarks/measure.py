"""What the benchmarks share: where they ran, how long something takes, how much memory it needs, and a table of it."""

import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from lasslab.evaluation.provenance import device_name, git_commit


@dataclass(frozen=True)
class Timing:
    """Median seconds of repeated runs.

    Attributes:
        wall: by the clock.
        processor: of this process and all its threads; on a busy machine the figure that another run would give too.
    """

    wall: float
    processor: float


def measure(run: Callable[[], object], *, n_runs: int = 5, n_warm_up: int = 1) -> Timing:
    """Time a call.

    Args:
        run: what to time.
        n_runs: runs that count.
        n_warm_up: runs before them that do not: they load, allocate and fill caches.

    Returns:
        Medians.
    """
    for _ in range(n_warm_up):
        run()
    wall, processor = [], []
    for _ in range(n_runs):
        clock, used = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - clock)
        processor.append(time.process_time() - used)
    return Timing(statistics.median(wall), statistics.median(processor))


def peak_memory() -> int:
    """Largest resident memory of this process so far, bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux; getrusage would also count the process that started this one
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return 1024 * int(line.split()[1])
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def conditions(device: str | None = "cpu") -> str:
    """Device, software and commit in one line, for under a table."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "soxr", "soundfile"))
    return (
        f"{device_name(device)}; Python {platform.python_version()}, {packages}; "
        f"commit {git_commit() or 'outside a repository'}"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
