"""Building blocks of procedural sound: envelopes and onsets, tones and noise, resonators and struck modes.

Times are in seconds, frequencies in hertz, `rate` is the sample rate, `n` a length in samples, and every
sound is `(n,)` float64. Random numbers come from the passed generator alone.

Reference: Cook, "Real Sound Synthesis for Interactive Applications" (A K Peters, 2002).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import fft
from scipy.signal import fftconvolve, lfilter

Array = np.ndarray
Rng = np.random.Generator


# --- time --------------------------------------------------------------------------------------------------


def samples(seconds: float, rate: int) -> int:
    """Whole samples in a duration, at least two."""
    return max(2, round(seconds * rate))


def time_axis(n: int, rate: int) -> Array:
    """Sample times in seconds, `(n,)`."""
    return np.arange(n) / rate


def curve(n: int, *points: tuple[float, float]) -> Array:
    """Piecewise-linear curve through `(position in 0..1, value)` points, `(n,)`."""
    positions, values = zip(*points, strict=True)
    return np.interp(np.linspace(0.0, 1.0, n), positions, values)


def swell(n: int, rate: int, *, attack: float, release: float) -> Array:
    """Raised-cosine rise and fall of given seconds around a flat top, `(n,)`."""
    t = time_axis(n, rate)
    rise = np.clip(t / max(attack, 1e-4), 0.0, 1.0)
    fall = np.clip((n / rate - t) / max(release, 1e-4), 0.0, 1.0)
    return np.sin(0.5 * np.pi * rise) ** 2 * np.sin(0.5 * np.pi * fall) ** 2


def strike(n: int, rate: int, *, attack: float, decay: float) -> Array:
    """Envelope of something hit: a quick rise, then exp(-t / decay), `(n,)`."""
    t = time_axis(n, rate)
    return (1.0 - np.exp(-t / max(attack, 1e-5))) * np.exp(-t / decay)


def drift(rng: Rng, n: int, rate: int, *, speed: float) -> Array:
    """Slow random curve in about -1..1 that turns `speed` times a second, `(n,)`."""
    t = time_axis(n, rate) * speed
    knots = rng.uniform(-1.0, 1.0, int(t[-1]) + 3)
    index = t.astype(int)
    blend = 0.5 - 0.5 * np.cos(np.pi * (t - index))
    return knots[index] * (1.0 - blend) + knots[index + 1] * blend


def onsets(rng: Rng, n: int, rate: int, *, every: float, jitter: float = 0.0, start: float | None = None) -> Array:
    """Sample positions of events `every` seconds apart, gaps scaled by 1 +- jitter; the first comes early."""
    seconds = n / rate
    first = rng.uniform(0.02, min(0.12 * seconds, every) + 0.021) if start is None else start
    gaps = every * (1.0 + jitter * rng.uniform(-1.0, 1.0, int(seconds / every / max(0.2, 1.0 - jitter)) + 2))
    times = first + np.concatenate([[0.0], np.cumsum(gaps)])
    return (times[times < max(seconds - 0.02, first + 1e-6)] * rate).astype(int)


def scattered(rng: Rng, n: int, rate: int, *, per_second: float) -> Array:
    """Sample positions of a Poisson process (at least one, early enough to be heard)."""
    count = rng.poisson(per_second * n / rate)
    positions = rng.integers(0, max(1, n - samples(0.02, rate)), count)
    return np.sort(np.append(positions, rng.integers(0, max(1, n // 3))))


def place(n: int, positions: Iterable[int], sounds: Iterable[Array]) -> Array:
    """Sum of sounds starting at sample positions, cut at the end, `(n,)`."""
    out = np.zeros(n)
    for position, sound in zip(positions, sounds, strict=False):
        if position < n:
            part = sound[: n - position]
            out[position : position + len(part)] += part
    return out


def sprinkle(rng: Rng, n: int, positions: Array, grains: Sequence[Array], *, spread: float) -> Array:
    """Place many random choices of a few grains with log-normal levels (sigma = `spread`), by convolution."""
    out = np.zeros(n)
    kind = rng.integers(0, len(grains), len(positions))
    level = np.exp(spread * rng.standard_normal(len(positions)))
    for index, grain in enumerate(grains):
        impulses = np.bincount(positions[kind == index], level[kind == index], minlength=n)
        out += fftconvolve(impulses, grain)[:n]
    return out


# --- sources -----------------------------------------------------------------------------------------------


def tone(frequency: Array | float, n: int, rate: int, *, phase: float = 0.0) -> Array:
    """Sine whose instantaneous frequency is `frequency` (a number or `(n,)`), silent above 0.47 `rate`."""
    track = np.broadcast_to(np.asarray(frequency, dtype=float), (n,))
    return np.sin(2.0 * np.pi * (np.cumsum(track) / rate + phase)) * (track < 0.47 * rate)


def harmonics(f0: Array | float, n: int, rate: int, *, levels: Array) -> Array:
    """Harmonic sound of pitch `f0` with given partial levels, read from one band-limited period, `(n,)`.

    Partials that would pass 0.47 `rate` at the highest pitch are left out, so there is no aliasing.
    """
    track = np.broadcast_to(np.asarray(f0, dtype=float), (n,))
    size = 2048
    kept = levels[: max(1, min(int(0.47 * rate / track.max()), size // 4))]
    spectrum = np.zeros(size // 2 + 1, dtype=complex)
    spectrum[1 : len(kept) + 1] = kept * np.exp(0.7j * np.arange(len(kept)) ** 2)
    table = np.fft.irfft(spectrum) * size / 2.0
    position = np.cumsum(track) / rate * size
    index = position.astype(np.int64)
    fraction = position - index
    here = table[index % size]
    return here + fraction * (table[(index + 1) % size] - here)


def rolloff(count: int, slope: float) -> Array:
    """Levels of partials 1..count falling by `slope` powers of the partial number."""
    return np.arange(1, count + 1) ** -slope


def noise(
    rng: Rng,
    n: int,
    rate: int,
    *,
    low: float = 40.0,
    high: float | None = None,
    slope: float = 0.0,
    order: int = 4,
) -> Array:
    """Gaussian noise of unit variance between `low` and `high`, tilted by `slope` dB per octave, `(n,)`."""
    length = fft.next_fast_len(n, real=True)
    f = fft.rfftfreq(length, 1.0 / rate)
    f[0] = f[1]
    top = 0.5 * rate if high is None else min(high, 0.48 * rate)
    gain = (f / 1000.0) ** (slope / 6.02) / np.sqrt(1.0 + (min(low, 0.4 * rate) / f) ** order)
    gain /= np.sqrt(1.0 + (f / top) ** (2 * order)) if high is not None else 1.0
    spectrum = gain * (rng.standard_normal(len(f)) + 1j * rng.standard_normal(len(f)))
    spectrum[0] = 0.0
    out = fft.irfft(spectrum, length)[:n]
    return out / (out.std() + 1e-12)


def resonate(sound: Array, rate: int, formants: Sequence[tuple[float, float, float]]) -> Array:
    """Parallel two-pole resonators `(centre Hz, bandwidth Hz, gain)`, without those above 0.46 `rate`."""
    out = np.zeros(len(sound))
    for centre, bandwidth, gain in formants:
        if centre < 0.46 * rate:
            radius = np.exp(-np.pi * bandwidth / rate)
            angle = 2.0 * np.pi * centre / rate
            peak = (1.0 - radius) * np.sqrt(1.0 - 2.0 * radius * np.cos(2.0 * angle) + radius**2)
            out += lfilter([gain * peak], [1.0, -2.0 * radius * np.cos(angle), radius**2], sound)
    return out


def modes(
    n: int, rate: int, *, frequencies: Sequence[float], decays: Sequence[float], levels: Sequence[float]
) -> Array:
    """Sum of decaying sines, the sound of a struck body, without those above 0.47 `rate`, `(n,)`."""
    t = time_axis(n, rate)
    out = np.zeros(n)
    for frequency, decay, level in zip(frequencies, decays, levels, strict=True):
        if frequency < 0.47 * rate:
            out += level * np.exp(-t / decay) * np.sin(2.0 * np.pi * frequency * t)
    return out


def unit(sound: Array) -> Array:
    """Scale to peak 1 (silence stays silence)."""
    return sound / (np.abs(sound).max() + 1e-12)


def click(rng: Rng, rate: int, *, low: float, high: float, decay: float) -> Array:
    """Short burst of noise in a band, decaying in `decay` seconds, peak 1."""
    n = samples(7.0 * decay + 0.004, rate)
    return unit(noise(rng, n, rate, low=low, high=high) * strike(n, rate, attack=0.0003, decay=decay))


def voice(
    rng: Rng,
    f0: Array,
    rate: int,
    *,
    formants: Sequence[tuple[float, float, float]],
    slope: float,
    breath: float,
) -> Array:
    """Throat and mouth: a jittered harmonic source plus breath noise, through formants, peak 1."""
    n = len(f0)
    jittered = f0 * (1.0 + 0.012 * drift(rng, n, rate, speed=25.0))
    source = harmonics(jittered, n, rate, levels=rolloff(80, slope))
    source = source / (source.std() + 1e-12) + breath * noise(rng, n, rate, low=200.0)
    return unit(resonate(source, rate, formants))


def spread_formants(
    rng: Rng, centres: Sequence[float], *, scale: float, width: float = 0.14, fall: float = 0.85
) -> list[tuple[float, float, float]]:
    """Formants at scaled centres (each moved up to 8 %), each `fall` times the level of the one below."""
    return [
        (centre * scale * rng.uniform(0.92, 1.08), width * centre * scale, rng.uniform(0.7, 1.0) * fall**k)
        for k, centre in enumerate(centres)
    ]
