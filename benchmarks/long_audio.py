"""Time and memory of `lasslab separate` from ten seconds to ten minutes, and the real-time factor of one clip.

    python benchmarks/long_audio.py [--system resunetpp-lab] [--threads 2] [--seconds 10 30 60 180 600]

Every length is separated by a process of its own, which reads a 44.1 kHz stereo WAV file and writes another, so that
peak memory means something. Seconds are counted inside that process, from the open file to the closed one; starting
Python and loading the model is not in them. With two threads on a busy machine each waits for the other and burns
processor time meanwhile: take --threads 1 there and read the processor seconds.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from measure import machine, markdown_table, measure, peak_memory, run_alone
from torch import Tensor

from lasslab.data.synthesis import synthesise
from lasslab.signal.audio import save_blocks
from lasslab.systems.separation import DEFAULT_SEPARATOR, load_separator
from lasslab.systems.streaming import process_file

LENGTHS = (10, 30, 60, 180, 600)  # seconds
SAMPLE_RATE = 44_100
QUERY = "a dog barking"


def recording(seconds: int) -> Iterator[Tensor]:
    """Dogs on the left, rain on the right and some of each in the middle: blocks of (2, 5 s) at 44.1 kHz."""
    bark, rain = (synthesise(label, seed=0, seconds=5.0, sample_rate=SAMPLE_RATE) for label in ("dog", "rain"))
    block = 0.3 * torch.stack([bark + 0.3 * rain, rain + 0.3 * bark])
    for _ in range(seconds // 5):
        yield block


def separate(source: str, destination: str, system: str, threads: int) -> dict[str, float]:
    """In a process of its own: one file, once."""
    torch.set_num_threads(threads)
    separator = load_separator(system, device="cpu")
    separator(torch.randn(16_000) / 10, QUERY)  # text encoded, kernels chosen
    loaded = peak_memory()
    timing = measure(lambda: process_file(separator, source, destination, QUERY), n_runs=1, n_warm_up=0)
    return {"wall": timing.wall, "processor": timing.processor, "loaded": loaded, "peak": peak_memory()}


def separate_clip(system: str, threads: int) -> dict[str, float]:
    """In a process of its own: 10 s, 16 kHz, mono, in memory, the median of five runs."""
    torch.set_num_threads(threads)
    separator = load_separator(system, device="cpu")
    bark, rain = (synthesise(label, seed=0, seconds=10.0) for label in ("dog", "rain"))
    timing = measure(lambda: separator(0.3 * (bark + rain), QUERY), n_runs=5)
    return {"wall": timing.wall, "processor": timing.processor}


def worker(*arguments: object) -> dict[str, float]:
    """One of the two functions above in a fresh interpreter."""
    return json.loads(run_alone(__file__, "--worker", *arguments))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--system", default=DEFAULT_SEPARATOR)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=int, nargs="+", default=LENGTHS, help="lengths, multiples of 5")
    parser.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        *files, system, threads = arguments.worker
        result = separate(*files, system, int(threads)) if files else separate_clip(system, int(threads))
        print(json.dumps(result))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seconds in arguments.seconds:
            source, destination = Path(folder, "recording.wav"), Path(folder, "estimate.wav")
            save_blocks(source, recording(seconds), sample_rate=SAMPLE_RATE, n_channels=2)
            found = worker(source, destination, arguments.system, arguments.threads)
            wall, processor = found["wall"], found["processor"]
            rows.append(
                (
                    seconds, f"{wall:.1f}", f"{processor:.1f}", f"{wall / seconds:.3f}", f"{processor / seconds:.3f}",
                    f"{found['peak'] / 1e6:.0f}", f"{(found['peak'] - found['loaded']) / 1e6:.0f}",
                )
            )  # fmt: skip
    columns = ("length, s", "s", "processor s", "s per s", "processor s per s", "peak, MB", "of it for the sound, MB")
    print(f"{arguments.system}, {SAMPLE_RATE} Hz stereo WAV to WAV, {arguments.threads} threads\n")
    print(markdown_table(columns, rows))
    clip = worker(arguments.system, arguments.threads)
    print("\n10 s, 16 kHz, mono, in memory, median of 5 runs:")
    print(f"real-time factor {clip['wall'] / 10:.4f} by the clock, {clip['processor'] / 10:.4f} in processor time")
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
