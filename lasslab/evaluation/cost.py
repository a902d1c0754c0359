"""What a system costs: seconds per clip and memory, measured around its calls and nothing else.

The seconds are those of the clock, after the device has finished. A call about several clips is divided by their
number, and the median over the calls is given, so that the first one, which allocates and fills caches, does not
decide. The JSON also has the seconds that processors worked, all threads together: the figure to look at where the
machine does much else.

Memory on CUDA is what torch had allocated at most during a call, weights included. On a CPU it is how much the resident
memory of the process grew while a call ran, at most, looked at every few milliseconds: weights and what an earlier call
left allocated were there before and are not in it. The two cannot be compared, so every table says which it is.
"""

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

INTERVAL = 0.005  # seconds between two looks at the resident memory
MEMORY = {
    "cuda": "most that torch had allocated on the device, weights included",
    "cpu": "growth of resident memory during a call",
}

T = TypeVar("T")


@dataclass
class Meter:
    """Seconds and memory of the calls of one system.

    Args:
        device: where the system computes.
        batch_size: most clips of a call, for the record.
        seconds: per clip, of each call, by the clock.
        processor_seconds: per clip, of each call, of all threads of the process.
        total: seconds of all calls together.
        peak: bytes, the most of any call.
    """

    device: torch.device
    batch_size: int
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    total: float = 0.0
    peak: int = 0

    def run(self, call: Callable[[], T], *, n_clips: int) -> T:
        """Make a call and measure it.

        Args:
            call: without arguments.
            n_clips: number of clips it is about.

        Returns:
            What the call returned.
        """
        on_cuda = self.device.type == "cuda"
        if on_cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        with _ResidentMemory(watch=not on_cuda) as memory:
            started, worked = time.perf_counter(), time.process_time()
            result = call()
            if on_cuda:
                torch.cuda.synchronize(self.device)
            took = time.perf_counter() - started
            self.processor_seconds.append((time.process_time() - worked) / n_clips)
        self.seconds.append(took / n_clips)
        self.total += took
        grown = torch.cuda.max_memory_allocated(self.device) if on_cuda else memory.growth
        self.peak = max(self.peak, grown)
        return result

    def to_json(self) -> dict[str, Any]:
        """Median seconds per clip, most memory in bytes, and what both are of."""
        return {
            "seconds_per_clip": _median(self.seconds),
            "processor_seconds_per_clip": _median(self.processor_seconds),
            "calls": len(self.seconds),
            "batch_size": self.batch_size,
            "memory_bytes": self.peak if self.seconds else None,
            "memory": MEMORY["cuda" if self.device.type == "cuda" else "cpu"],
        }


def _median(seconds: list[float]) -> float | None:
    return round(statistics.median(seconds), 6) if seconds else None


class _ResidentMemory:
    """Watches the process's resident memory in a thread of its own; `growth` is in bytes, from entry to the most."""

    def __init__(self, *, watch: bool) -> None:
        self.watch = watch
        self.growth = 0
        self._done = threading.Event()

    def __enter__(self) -> "_ResidentMemory":
        if self.watch:
            import psutil

            process = psutil.Process()
            before = process.memory_info().rss

            def look() -> None:
                self.growth = max(self.growth, process.memory_info().rss - before)

            def keep_looking() -> None:
                while not self._done.wait(INTERVAL):
                    look()

            self._look = look
            self._thread = threading.Thread(target=keep_looking, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.watch:
            self._done.set()
            self._thread.join()
            self._look()
