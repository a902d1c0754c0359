"""Building and filtering training pairs: the batched way of `MixtureDataset` against a plain loop, in one run.

    python benchmarks/mixtures.py [-n 2000] [--corpus esc50]

The plain way is what one writes first: for each pair read both files with librosa at 16 kHz, crop, scale to the SNR,
add, take two STFTs, and keep the pair if the cosine of their magnitudes is at most 0.75. The other way reads every clip
once, crops from memory, and compares blocks of pairs in threads. Both go on until as many pairs of 4 s remain as were
asked for, and hand them over. Each runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import machine, markdown_table, peak_memory, run_alone

from lasslab.data.corpora import Clip, load_corpus
from lasslab.data.mixtures import MixtureDataset
from lasslab.signal.audio import save_audio

SECONDS, RATE, THRESHOLD, SNR_DB = 4.0, 16_000, 0.75, (-15.0, 15.0)


def plain(clips: list[Clip], n: int) -> dict:
    """Pair after pair with librosa and numpy. Keeps nothing: a consumer is thought to take each pair away."""
    import librosa

    random = np.random.default_rng(0)
    length = round(SECONDS * RATE)
    seen = kept = 0
    started = time.perf_counter()
    while kept < n:
        first, second = (clips[int(random.integers(len(clips)))] for _ in range(2))
        if first.label == second.label:
            continue
        sounds = []
        for clip in (first, second):
            samples, _ = librosa.load(clip.path, sr=RATE)
            start = int(random.integers(max(len(samples) - length, 0) + 1))
            samples = samples[start : start + length]
            sounds.append(np.pad(samples, (0, length - len(samples))))
        target, interference = sounds
        if not target.any() or not interference.any():
            continue
        snr_db = random.uniform(*SNR_DB)
        gain = np.sqrt(np.sum(target**2) / np.sum(interference**2) / 10 ** (snr_db / 10))
        mixture = target + gain * interference
        a, b = (np.abs(librosa.stft(x, n_fft=512, hop_length=256)) for x in (mixture, target))
        similarity = np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2))
        seen += 1
        kept += bool(similarity <= THRESHOLD)
    return {"seconds": time.perf_counter() - started, "seen": seen, "kept": kept}


def batched(clips: list[Clip], n: int) -> dict:
    """`MixtureDataset` with its filter, and every kept item drawn once, as a training does."""
    started = time.perf_counter()
    dataset = MixtureDataset(clips, n=n, seconds=SECONDS, snr_db=SNR_DB, max_similarity=THRESHOLD)
    for number in range(len(dataset)):
        dataset[number]
    return {"seconds": time.perf_counter() - started, "seen": len(dataset.similarities), "kept": len(dataset)}


WAYS = {"plain loop, librosa": plain, "MixtureDataset": batched}


def clips_on_disk(corpus: str, folder: Path) -> list[Clip]:
    """ESC-50 as it is; synthesised clips written as 44.1 kHz WAV first, so that both ways read files."""
    if corpus == "esc50":
        return load_corpus("esc50")
    clips = []
    for clip in load_corpus("synthesis", n_per_class=8):
        path = folder / f"{clip.label}-{clip.seed}.wav"
        if not path.exists():
            save_audio(path, clip.load(sample_rate=44_100), sample_rate=44_100)
        clips.append(Clip(clip.label, clip.captions, clip.source, clip.corpus, path=path))
    return clips


def main() -> None:
    """Run both ways, each alone, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=2_000, help="pairs that remain after the filter")
    parser.add_argument("--corpus", choices=("synthesis", "esc50"), default="synthesis")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        clips = clips_on_disk(options.corpus, options.folder)
        before = peak_memory()
        found = WAYS[options.way](clips, options.n)
        added = (peak_memory() - before) / 2**20
        sys.stdout.write(f"{found['seconds']} {found['seen']} {found['kept']} {added}\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        clips_on_disk(options.corpus, Path(folder))
        rows, cost = [], {}
        for way in WAYS:
            arguments = ["-n", str(options.n), "--corpus", options.corpus, "--way", way, "--folder", folder]
            seconds, seen, kept, memory = map(float, run_alone(__file__, *arguments).split())
            cost[way] = seconds / seen
            rows.append(
                [way, f"{seen:.0f}", f"{kept:.0f}", f"{seconds:.1f}", f"{1000 * cost[way]:.1f}", f"{memory:.0f}"]
            )
    header = ["", "candidates", "kept", "seconds", "ms per candidate", "memory added (MB)"]
    first, second = cost.values()
    print(f"{markdown_table(header, rows)}\n\nMixtureDataset is {first / second:.1f} times faster per candidate.")
    print(f"{options.corpus}, pairs of {SECONDS:g} s; {machine()}")


if __name__ == "__main__":
    main()
