"""What the benchmarks share: where they ran, how long something takes, how much memory it needs, and a table of it."""

import platform
import statistics
import subprocess
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


def machine(device: str = "cpu") -> str:
    """Device, software and commit in one line, to stand with a table."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "soxr", "soundfile"))
    commit = git_commit() or "outside a repository"
    return f"{device_name(device)}; Python {platform.python_version()}, {packages}; commit {commit}"


def run_alone(script: str, *arguments: object) -> str:
    """Run a script in a fresh interpreter, so that its peak memory is its own.

    Args:
        script: path of a Python file.
        *arguments: for its command line.

    Returns:
        What it printed.

    Raises:
        subprocess.CalledProcessError: the script failed; its own message is on standard error.
    """
    command = [sys.executable, script, *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def markdown_table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table: numbers to the right, words to the left."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    columns = list(zip(*cells, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]
    numeric = [all(cell.replace(".", "").lstrip("-").isdigit() for cell in column[1:]) for column in columns]

    def line(row: Sequence[str]) -> str:
        padded = (c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (w + 1) + (":" if right else "-") for w, right in zip(widths, numeric, strict=True))
    return "\n".join([line(cells[0]), f"|{rule}|", *map(line, cells[1:])])
