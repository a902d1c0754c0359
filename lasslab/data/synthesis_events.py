"""One function per class of procedural sound: `sound(rng, n, rate) -> (n,)` float64, at any level.

`rng` is the passed generator, `n` the length in samples, `rate` the sample rate in hertz. Each function
draws its own pitch, tempo, timbre and events; `lasslab.data.synthesis.synthesise` adds the room, the
fades and the level.

The models are the classical ones: harmonic sources through formants for voices and motors, sums of
decaying modes for things that are struck, noise with moving envelopes for wind and water, point processes
for things that happen again and again. The ranges of the ten ESC-10 classes were set beside real
recordings.

Reference: Farnell, "Designing Sound" (MIT Press, 2010).
"""

from __future__ import annotations

import numpy as np

from lasslab.data.synthesis_blocks import (
    Array,
    Rng,
    click,
    curve,
    drift,
    harmonics,
    modes,
    noise,
    onsets,
    place,
    resonate,
    rolloff,
    samples,
    scattered,
    spread_formants,
    sprinkle,
    strike,
    swell,
    time_axis,
    tone,
    unit,
    voice,
)

# --- animals -----------------------------------------------------------------------------------------------


def dog(rng: Rng, n: int, rate: int) -> Array:
    """Barks: a pitch that jumps up and falls, rough and short, singly or in volleys."""
    pitch, size = rng.uniform(260.0, 650.0), rng.uniform(0.75, 1.3)
    formants = spread_formants(rng, [900.0, 1700.0, 2800.0], scale=size, width=0.25, fall=rng.uniform(0.5, 0.85))
    length, breath, bite = rng.uniform(0.10, 0.26), rng.uniform(0.1, 0.5), rng.uniform(1.0, 2.5)

    def bark() -> Array:
        m = samples(length * rng.uniform(0.8, 1.2) * 1.6, rate)
        top = pitch * rng.uniform(0.9, 1.12)
        f0 = curve(m, (0, 0.65 * top), (0.15, 1.1 * top), (0.4, top), (1, 0.6 * top))
        sound = np.tanh(bite * voice(rng, f0, rate, formants=formants, slope=0.8, breath=breath))
        return sound * strike(m, rate, attack=0.015, decay=length * 0.5) * rng.uniform(0.6, 1.0)

    every = rng.choice([rng.uniform(0.28, 0.45), rng.uniform(0.5, 1.2)])
    starts = onsets(rng, n, rate, every=every, jitter=0.25)[: rng.integers(1, 11)]
    return place(n, starts, [bark() for _ in starts])


def rooster(rng: Rng, n: int, rate: int) -> Array:
    """Cock-a-doodle-doo: short syllables tied together, then one long that climbs, holds and sinks."""
    pitch, tempo, last = rng.uniform(400.0, 680.0), rng.uniform(0.8, 1.25), rng.uniform(0.7, 1.4)
    formants = spread_formants(rng, [1350.0, 2300.0, 3500.0], scale=rng.uniform(0.85, 1.25), width=0.16, fall=0.4)
    shape = [(0.22, 0.8, 0.95), (0.14, 1.0, 1.1), (0.26, 1.15, 1.25), (last, 1.3, rng.uniform(0.9, 1.15))]
    syllables = shape[rng.integers(0, 3) :]
    slope, breath = rng.uniform(0.6, 1.1), rng.uniform(0.02, 0.1)

    def crow() -> Array:
        parts = []
        for seconds, begin, end in syllables:
            m = samples(seconds * tempo * rng.uniform(0.9, 1.15), rate)
            f0 = pitch * curve(m, (0, begin), (0.2, max(begin, end) * 1.05), (0.7, max(begin, end)), (1, end))
            body = voice(rng, f0, rate, formants=formants, slope=slope, breath=breath)
            fade = swell(m, rate, attack=0.03, release=0.15 * seconds + 0.03)
            parts += [body * fade, np.zeros(samples(rng.uniform(0.0, 0.05), rate))]
        return np.concatenate(parts)

    starts = onsets(rng, n, rate, every=rng.uniform(2.4, 3.6) * tempo, jitter=0.1)[: rng.integers(1, 3)]
    return place(n, starts, [crow() * rng.uniform(0.7, 1.0) for _ in starts])


def cat(rng: Rng, n: int, rate: int) -> Array:
    """Meows: pitch and mouth open together, then close."""
    pitch = rng.uniform(420.0, 800.0)
    length = rng.uniform(0.45, 1.0)

    def meow() -> Array:
        m = samples(length * rng.uniform(0.8, 1.25), rate)
        f0 = pitch * curve(m, (0, 0.8), (0.3, 1.12), (0.55, 1.05), (1, rng.uniform(0.6, 0.8)))
        f0 *= 1.0 + 0.012 * np.sin(2.0 * np.pi * rng.uniform(5.0, 8.0) * time_axis(m, rate))
        closed = voice(rng, f0, rate, formants=[(700.0, 140.0, 1.0), (2300.0, 300.0, 0.25)], slope=1.0, breath=0.05)
        opened = voice(rng, f0, rate, formants=[(1400.0, 220.0, 1.0), (3200.0, 400.0, 0.6)], slope=1.0, breath=0.08)
        mouth = curve(m, (0, 0.0), (0.35, 1.0), (0.6, 0.8), (1, 0.1))
        return (mouth * opened + (1.0 - mouth) * closed) * swell(m, rate, attack=0.08, release=0.35 * length)

    starts = onsets(rng, n, rate, every=rng.uniform(1.0, 2.2) + length, jitter=0.3)
    return place(n, starts, [meow() * rng.uniform(0.6, 1.0) for _ in starts])


def cow(rng: Rng, n: int, rate: int) -> Array:
    """Moos: long, low, nasal, with a slow rise and fall."""
    pitch = rng.uniform(95.0, 180.0)
    formants = spread_formants(rng, [330.0, 750.0, 1500.0], scale=rng.uniform(0.85, 1.2), width=0.22)

    def moo() -> Array:
        m = samples(rng.uniform(1.1, 2.2), rate)
        f0 = pitch * curve(m, (0, 0.75), (0.25, 1.0), (0.7, 1.15), (1, 0.7))
        body = voice(rng, f0, rate, formants=formants, slope=0.7, breath=0.08)
        return body * swell(m, rate, attack=0.2, release=0.35)

    starts = onsets(rng, n, rate, every=rng.uniform(2.2, 3.4), jitter=0.15)
    return place(n, starts, [moo() * rng.uniform(0.7, 1.0) for _ in starts])


def frog(rng: Rng, n: int, rate: int) -> Array:
    """Croaks: trains of damped pulses, fast enough to be heard as a rattle."""
    pulses, body = rng.uniform(28.0, 60.0), rng.uniform(500.0, 1300.0)
    length = rng.uniform(0.18, 0.5)
    formants = [(body, 0.12 * body, 1.0), (2.1 * body, 0.2 * body, 0.4)]

    def croak() -> Array:
        m = samples(length * rng.uniform(0.85, 1.2), rate)
        rise = curve(m, (0, 0.8), (0.6, 1.05), (1, 1.0))
        excitation = harmonics(pulses * rise, m, rate, levels=np.ones(200)) + noise(rng, m, rate) * 0.6
        pulse = np.abs(np.sin(np.pi * np.cumsum(pulses * rise) / rate)) ** 8
        return unit(resonate(excitation * pulse, rate, formants)) * swell(m, rate, attack=0.03, release=0.05)

    starts = onsets(rng, n, rate, every=length + rng.uniform(0.12, 0.7), jitter=0.2)
    return place(n, starts, [croak() * rng.uniform(0.6, 1.0) for _ in starts])


def owl(rng: Rng, n: int, rate: int) -> Array:
    """Hoots: soft, almost pure low tones in a rhythm of short and long."""
    pitch = rng.uniform(300.0, 520.0)
    phrase = [(0.0, 0.35), (0.75, 0.14), (0.98, 0.14), (1.25, 0.6)] if rng.random() < 0.6 else [(0.0, 0.3), (0.5, 0.5)]

    def hoot(seconds: float) -> Array:
        m = samples(seconds * 1.2, rate)
        f0 = pitch * curve(m, (0, 0.92), (0.3, 1.0), (0.8, 1.0), (1, 0.93))
        soft = harmonics(f0, m, rate, levels=np.array([1.0, 0.12, 0.06])) + 0.02 * noise(rng, m, rate, high=2500.0)
        return soft * swell(m, rate, attack=0.06, release=0.12)

    starts, every = [], phrase[-1][0] + rng.uniform(1.2, 2.0)
    tempo = rng.uniform(0.85, 1.2)
    for first in onsets(rng, n, rate, every=every * tempo, jitter=0.1):
        starts += [(int(first + at * tempo * rate), length) for at, length in phrase]
    return place(n, [s for s, _ in starts], [hoot(length) for _, length in starts])


def chirping_birds(rng: Rng, n: int, rate: int) -> Array:
    """Songbird: quick pure chirps that sweep, repeated in phrases."""
    centre = rng.uniform(2300.0, min(3800.0, 0.34 * rate))
    motif = [
        (rng.uniform(0.04, 0.16), rng.uniform(0.75, 1.2), rng.uniform(0.75, 1.2), rng.uniform(0.0, 45.0))
        for _ in range(rng.integers(2, 5))
    ]
    depth = rng.uniform(0.0, 0.06)

    def note(seconds: float, begin: float, end: float, trill: float) -> Array:
        m = samples(seconds, rate)
        f = centre * curve(m, (0, begin), (0.5, 0.5 * (begin + end) * rng.uniform(0.97, 1.1)), (1, end))
        f = f * (1.0 + depth * np.sin(2.0 * np.pi * trill * time_axis(m, rate)))
        return (tone(f, m, rate) + 0.08 * tone(2.0 * f, m, rate)) * swell(m, rate, attack=0.012, release=0.02)

    starts, gap = [], rng.uniform(0.03, 0.12)
    for first in onsets(rng, n, rate, every=rng.uniform(0.7, 1.6), jitter=0.35):
        at = first
        for shape in motif * int(rng.integers(1, 3)):
            starts.append((at, shape))
            at += int((shape[0] + gap) * rate)
    return place(n, [at for at, _ in starts], [note(*shape) * rng.uniform(0.5, 1.0) for _, shape in starts])


def crickets(rng: Rng, n: int, rate: int) -> Array:
    """Chirping insects at night: pulse trains on a high carrier, over a faint chorus."""
    out = 0.02 * noise(rng, n, rate, low=2500.0)
    t = time_axis(n, rate)
    top = min(5200.0, 0.44 * rate)
    for _ in range(rng.integers(1, 4)):
        carrier, pulse, chirp = rng.uniform(0.65 * top, top), rng.uniform(22.0, 38.0), rng.uniform(1.6, 3.4)
        phase, duty = rng.uniform(), rng.uniform(0.35, 0.6)
        gate = np.clip(12.0 * (np.cos(2.0 * np.pi * (chirp * t + phase)) - np.cos(np.pi * duty)), 0.0, 1.0)
        pulses = np.clip(np.sin(2.0 * np.pi * pulse * t), 0.0, 1.0) ** 1.5
        warble = carrier * (1.0 + 0.006 * drift(rng, n, rate, speed=6.0))
        out += rng.uniform(0.4, 1.0) * gate * pulses * tone(warble, n, rate, phase=phase)
    return out


def insects(rng: Rng, n: int, rate: int) -> Array:
    """A flying insect: wing-beat harmonics that swoop nearer and farther."""
    pitch = rng.uniform(160.0, 280.0)
    f0 = pitch * (
        1.0 + 0.10 * drift(rng, n, rate, speed=rng.uniform(0.8, 2.5)) + 0.02 * drift(rng, n, rate, speed=18.0)
    )
    wings = harmonics(f0, n, rate, levels=rolloff(40, rng.uniform(0.5, 0.9)))
    wings = wings + resonate(wings, rate, [(rng.uniform(700.0, 1800.0), 400.0, 3.0)])
    near = 0.12 + 0.88 * (0.5 + 0.5 * drift(rng, n, rate, speed=rng.uniform(0.8, 2.0))) ** 2
    return wings * near * (1.0 + 0.15 * noise(rng, n, rate, high=120.0))


# --- people ------------------------------------------------------------------------------------------------


def crying_baby(rng: Rng, n: int, rate: int) -> Array:
    """Wails on each outgoing breath: pitch rises, holds with a tremble and sinks; gasps between."""
    pitch = rng.uniform(340.0, 520.0)
    formants = spread_formants(
        rng,
        [1250.0, 2800.0, 3700.0, 5200.0],
        scale=rng.uniform(0.85, 1.2),
        width=0.2,
        fall=rng.uniform(0.5, 1.0),
    )
    length, gap = rng.uniform(0.4, 1.3), rng.uniform(0.15, 0.9)
    slope, breath, rough = rng.uniform(0.3, 0.9), rng.uniform(0.01, 0.06), rng.uniform(0.05, 0.4)
    arc = rng.uniform(0.55, 0.9)

    def wail() -> Array:
        m = samples(length * rng.uniform(0.6, 1.4), rate)
        peak = rng.uniform(0.15, 0.5)
        f0 = pitch * rng.uniform(0.9, 1.12) * curve(m, (0, arc), (peak, 1.05), (0.75, 1.0), (1, arc))
        f0 *= 1.0 + 0.02 * np.sin(2.0 * np.pi * rng.uniform(5.0, 9.0) * time_axis(m, rate))
        body = voice(rng, f0, rate, formants=formants, slope=slope, breath=breath)
        tremble = 1.0 + rough * drift(rng, m, rate, speed=60.0)
        return np.tanh(1.3 * body) * tremble * swell(m, rate, attack=0.08, release=0.25)

    gasp_n = samples(gap * 0.6, rate)
    gasp = rng.uniform(0.0, 0.025) * noise(rng, gasp_n, rate, low=900.0, high=4000.0, slope=-3.0)
    gasp *= swell(gasp_n, rate, attack=0.05, release=0.03)
    parts, total = [np.zeros(samples(rng.uniform(0.0, 0.2) * min(1.0, n / rate), rate))], 0
    while total < n:
        parts += [
            wail() * rng.uniform(0.6, 1.0),
            gasp,
            np.zeros(samples(gap * 0.4 * rng.uniform(0.3, 2.0), rate)),
        ]
        total = sum(map(len, parts))
    return np.concatenate(parts)[:n]


def sneezing(rng: Rng, n: int, rate: int) -> Array:
    """Ah... tchoo: a drawn breath, a burst of noise through the teeth, a short voiced tail."""
    pitch, mouth = rng.uniform(180.0, 420.0), rng.uniform(700.0, 2200.0)
    inhale_s, burst_s = rng.uniform(0.18, 0.5), rng.uniform(0.18, 0.5)
    voiced, gasping, slope = rng.uniform(0.1, 0.6), rng.uniform(0.0, 0.25), rng.uniform(-5.0, -0.5)

    def sneeze() -> Array:
        a, b = samples(inhale_s, rate), samples(burst_s * rng.uniform(0.9, 1.2) * 1.5, rate)
        inhale = resonate(noise(rng, a, rate, low=400.0), rate, [(900.0, 400.0, 1.0), (2200.0, 700.0, 0.6)])
        drawn = pitch * curve(a, (0, 0.8), (1, 1.2))
        gasp = voice(rng, drawn, rate, formants=[(800.0, 150.0, 1.0)], slope=1.2, breath=0.5)
        before = (0.1 * unit(inhale) + gasping * gasp) * curve(a, (0, 0.0), (0.8, 1.0), (1, 0.0))
        teeth = noise(rng, b, rate, low=mouth * 0.5, high=7000.0, slope=slope, order=2)
        teeth += resonate(teeth, rate, [(mouth, 0.4 * mouth, 2.0), (2.3 * mouth, 0.6 * mouth, 1.0)])
        f0 = pitch * curve(b, (0, 1.5), (0.3, 1.3), (1, 0.7))
        tail = voice(rng, f0, rate, formants=[(600.0, 150.0, 1.0), (1300.0, 250.0, 0.5)], slope=1.0, breath=0.3)
        after = unit(teeth * strike(b, rate, attack=0.012, decay=burst_s * 0.3))
        after += voiced * tail * curve(b, (0, 0.1), (0.25, 1.0), (0.6, 0.5), (1, 0.0))
        return np.concatenate([before, np.zeros(samples(0.04, rate)), after])

    first = rng.uniform(0.0, 0.05) * n / rate
    starts = onsets(rng, n, rate, every=rng.uniform(1.3, 2.4), jitter=0.2, start=first)[: rng.integers(1, 4)]
    return place(n, starts, [sneeze() * rng.uniform(0.7, 1.0) for _ in starts])


def footsteps(rng: Rng, n: int, rate: int) -> Array:
    """Walking: heel thud, then a scrape of the sole, in a steady gait."""
    thud, grit = rng.uniform(70.0, 160.0), rng.uniform(900.0, 2800.0)
    hard = rng.uniform(0.1, 0.8)

    def step() -> Array:
        m = samples(0.22, rate)
        body = modes(
            m,
            rate,
            frequencies=thud * np.array([1.0, 2.3, 3.9]),
            decays=np.array([0.03, 0.02, 0.012]),
            levels=np.array([1.0, 0.5, 0.35]),
        )
        heel = place(m, [0], [hard * click(rng, rate, low=600.0, high=grit * 2.0, decay=0.006)])
        scrape = noise(rng, m, rate, low=grit * 0.4, high=grit * 2.0) * swell(m, rate, attack=0.06, release=0.12)
        return body + heel + rng.uniform(0.04, 0.12) * scrape

    starts = onsets(rng, n, rate, every=rng.uniform(0.42, 0.7), jitter=0.06)
    return place(n, starts, [step() * rng.uniform(0.6, 1.0) for _ in starts])


def clapping(rng: Rng, n: int, rate: int) -> Array:
    """Claps: a few milliseconds of noise through the hollow between the palms."""
    hollow, people = rng.uniform(900.0, 1700.0), int(rng.integers(1, 7))
    grains = []
    for _ in range(6):
        pulse = click(rng, rate, low=400.0, high=6000.0, decay=rng.uniform(0.008, 0.02))
        centre = hollow * rng.uniform(0.8, 1.3)
        grains.append(unit(pulse * 0.35 + unit(resonate(pulse, rate, [(centre, 0.35 * centre, 1.0)]))))
    every = rng.uniform(0.22, 0.5)
    starts = [onsets(rng, n, rate, every=every * rng.uniform(0.9, 1.2), jitter=0.1) for _ in range(people)]
    return sprinkle(rng, n, np.concatenate(starts), grains, spread=0.25)


def whistle(rng: Rng, n: int, rate: int) -> Array:
    """Somebody whistling a tune: one gliding sine with breath around it."""
    tonic, beat = rng.uniform(900.0, 1500.0), rng.uniform(0.22, 0.45)
    scale = tonic * 2.0 ** (np.array([0, 2, 4, 5, 7, 9, 12]) / 12.0)
    count = int(n / rate / beat) + 2
    walk = np.clip(np.cumsum(rng.integers(-2, 3, count)) + 3, 0, 6)
    t = time_axis(n, rate)
    step = np.minimum((t / beat).astype(int), count - 1)
    into = t / beat - step
    glide = np.clip(into / 0.25, 0.0, 1.0)
    f = scale[walk][np.maximum(step - 1, 0)] * (1.0 - glide) + scale[walk][step] * glide
    f = f * (1.0 + 0.008 * np.sin(2.0 * np.pi * rng.uniform(4.5, 6.5) * t))
    rest = np.where(rng.random(count) < 0.15, 0.0, 1.0)
    rest[0] = 1.0
    envelope = np.convolve(
        rest[step] * (1.0 - 0.7 * into**6), np.ones(samples(0.02, rate)) / samples(0.02, rate), "same"
    )
    pure = tone(f, n, rate) + 0.05 * tone(2.0 * f, n, rate)
    return envelope * (pure + 0.03 * noise(rng, n, rate, low=tonic, high=4.0 * tonic))


# --- weather, water, fire ----------------------------------------------------------------------------------


def rain(rng: Rng, n: int, rate: int) -> Array:
    """A steady hiss of countless drops, nearer drops standing out, sometimes the low rumble of a roof."""
    hiss = noise(rng, n, rate, low=rng.uniform(200.0, 1000.0), slope=rng.uniform(-7.0, -0.5), order=2)
    m = samples(0.012, rate)
    ring = strike(m, rate, attack=0.0003, decay=0.0012)
    drops = [0.7 * tone(rng.uniform(1500.0, 6500.0), m, rate) * ring for _ in range(3)]
    for low in rng.uniform(300.0, 2500.0, 4):
        drops.append(click(rng, rate, low=low, high=7500.0, decay=rng.uniform(0.001, 0.006)))
    near = sprinkle(rng, n, scattered(rng, n, rate, per_second=rng.uniform(40.0, 400.0)), drops, spread=0.8)
    roof = noise(rng, n, rate, low=40.0, high=rng.uniform(150.0, 400.0), slope=-3.0)
    steady = 1.0 + 0.12 * drift(rng, n, rate, speed=0.8)
    return hiss * steady + rng.uniform(0.2, 1.4) * near + rng.uniform(0.0, 1.2) * rng.integers(0, 2) * roof


def sea_waves(rng: Rng, n: int, rate: int) -> Array:
    """Waves: a roar that builds, breaks into bright foam and runs out, over the murmur of the sea."""
    t, period = time_axis(n, rate), rng.uniform(2.2, 5.0)
    breaking = np.arange(-1.0, n / rate / period + 1.0) * period + rng.uniform(0.1, 0.6) * min(period, n / rate)
    breaking += rng.uniform(-0.15, 0.15, len(breaking)) * period
    rise, fall = rng.uniform(0.10, 0.25) * period, rng.uniform(0.2, 0.4) * period
    roar, foam = np.zeros(n), np.zeros(n)
    for crest in breaking:
        size, x = rng.uniform(0.5, 1.0), t - crest
        roar += size * np.exp(-((x / np.where(x < 0.0, 1.5 * rise, fall)) ** 2))
        late = x - 0.12 * period
        foam += size * np.exp(-((late / np.where(late < 0.0, rise, 1.4 * fall)) ** 2))
    low = noise(rng, n, rate, low=60.0, high=rng.uniform(350.0, 900.0), slope=-3.0)
    high = noise(rng, n, rate, low=300.0, slope=rng.uniform(-6.5, -3.5), order=2)
    splash = 1.0 + rng.uniform(0.1, 0.4) * drift(rng, n, rate, speed=rng.uniform(8.0, 25.0))
    return rng.uniform(0.2, 0.7) * low * (0.15 + roar) + high * splash * (rng.uniform(0.04, 0.25) + foam)


def wind(rng: Rng, n: int, rate: int) -> Array:
    """Wind: noise whose resonance and level wander together with the gusts."""
    gust = 0.5 + 0.5 * drift(rng, n, rate, speed=rng.uniform(0.5, 1.3))
    bed = noise(rng, n, rate, low=60.0, high=rng.uniform(300.0, 600.0), slope=-3.0)
    howl = np.zeros(n)
    centres = rng.uniform(280.0, 480.0) * np.array([1.0, 1.35, 1.8, 2.4])
    for k, centre in enumerate(centres):
        weight = np.exp(-(((gust * 3.0 - k) / 0.9) ** 2))
        howl += weight * noise(rng, n, rate, low=0.93 * centre, high=1.08 * centre, order=16)
    return (0.15 + gust**1.5) * (rng.uniform(0.4, 1.0) * bed + rng.uniform(0.5, 1.0) * howl)


def thunderstorm(rng: Rng, n: int, rate: int) -> Array:
    """A crack, then a rumble that rolls and dies away."""
    t = time_axis(n, rate)
    start = rng.uniform(0.02, 0.08) * n / rate
    since = np.clip(t - start, 0.0, None)
    rumble = noise(rng, n, rate, low=25.0, high=rng.uniform(90.0, 200.0), slope=-2.0)
    decay = rng.uniform(1.0, 2.5)
    roll = (
        (1.0 - np.exp(-since / 0.08)) * np.exp(-since / decay) * (0.35 + 0.65 * np.abs(drift(rng, n, rate, speed=5.0)))
    )
    crack = noise(rng, n, rate, low=150.0, high=rng.uniform(1500.0, 4000.0), slope=-4.0) * (since > 0.0)
    burst = np.exp(-since / rng.uniform(0.06, 0.25)) * (0.3 + 0.7 * np.abs(drift(rng, n, rate, speed=40.0)))
    return rumble * roll + rng.uniform(0.3, 1.0) * crack * burst


def water_drops(rng: Rng, n: int, rate: int) -> Array:
    """Drips into water: each a bubble whose pitch rises as it closes."""
    base = rng.uniform(550.0, 1400.0)

    def drip() -> Array:
        m = samples(0.16, rate)
        f = base * rng.uniform(0.8, 1.3) * curve(m, (0, 1.0), (1, rng.uniform(1.6, 2.6)))
        plink = tone(f, m, rate) * strike(m, rate, attack=0.002, decay=rng.uniform(0.012, 0.035))
        return plink + place(m, [0], [0.2 * click(rng, rate, low=2000.0, high=7000.0, decay=0.002)])

    starts = onsets(rng, n, rate, every=rng.uniform(0.25, 0.9), jitter=0.45)
    return place(n, starts, [drip() * rng.uniform(0.35, 1.0) for _ in starts])


def crackling_fire(rng: Rng, n: int, rate: int) -> Array:
    """Fire: snaps of very different size scattered over a soft rumble and hiss."""
    grains = [
        click(rng, rate, low=rng.uniform(300.0, 2500.0), high=rng.uniform(3000.0, 7500.0), decay=decay)
        for decay in (0.0008, 0.0015, 0.003, 0.006)
    ]
    often, seldom = (
        np.exp(rng.uniform(np.log(6.0), np.log(60.0))),
        np.exp(rng.uniform(np.log(0.8), np.log(6.0))),
    )
    small = sprinkle(rng, n, scattered(rng, n, rate, per_second=often), grains[:3], spread=0.8)
    large = sprinkle(rng, n, scattered(rng, n, rate, per_second=seldom), grains, spread=0.5)
    flicker = 0.6 + 0.4 * drift(rng, n, rate, speed=5.0)
    flame = noise(rng, n, rate, low=30.0, high=rng.uniform(120.0, 500.0), slope=-3.0) * flicker
    hiss = noise(rng, n, rate, low=200.0, slope=rng.uniform(-6.0, -1.0))
    bed = (
        np.exp(rng.uniform(np.log(0.04), np.log(0.7))) * flame + np.exp(rng.uniform(np.log(0.005), np.log(0.08))) * hiss
    )
    return 0.3 * small + 1.3 * large + bed


# --- machines ----------------------------------------------------------------------------------------------


def helicopter(rng: Rng, n: int, rate: int) -> Array:
    """Rotor blades: thumps of low noise ten to twenty times a second over the turbine's wash and whine."""
    blades = rng.uniform(9.0, 20.0) * (1.0 + 0.02 * drift(rng, n, rate, speed=0.5))
    phase = np.cumsum(blades) / rate
    thump = np.exp(-rng.uniform(2.0, 6.0) * (phase % 1.0)) * np.clip((phase % 1.0) / 0.08, 0.0, 1.0)
    low = noise(rng, n, rate, low=60.0, high=rng.uniform(200.0, 600.0), slope=-1.0)
    wash = noise(rng, n, rate, low=200.0, slope=rng.uniform(-7.0, -3.5), order=2)
    shaft = harmonics(blades * 4.0, n, rate, levels=rolloff(12, 0.8))
    whine = tone(rng.uniform(900.0, 2500.0) * (1.0 + 0.004 * drift(rng, n, rate, speed=1.0)), n, rate)
    steady = rng.uniform(0.1, 0.9)
    nearness = curve(n, (0, rng.uniform(0.3, 1.0)), (rng.uniform(0.3, 0.7), 1.0), (1, rng.uniform(0.3, 1.0)))
    beating = thump * (rng.uniform(0.6, 1.3) * low + rng.uniform(0.4, 1.2) * wash)
    return nearness * (beating + steady * (wash + 0.5 * low) + 0.08 * shaft + rng.uniform(0.0, 0.03) * whine)


def engine(rng: Rng, n: int, rate: int) -> Array:
    """A motor idling: irregular firing pulses, low harmonics, a little mechanical noise."""
    firing = rng.uniform(24.0, 48.0)
    f0 = firing * (
        1.0 + 0.03 * drift(rng, n, rate, speed=rng.uniform(0.5, 1.5)) + 0.02 * drift(rng, n, rate, speed=30.0)
    )
    pulses = harmonics(f0, n, rate, levels=rolloff(40, 0.7) * rng.uniform(0.4, 1.0, 40))
    beat = 1.0 + rng.uniform(0.2, 0.5) * tone(f0 / 4.0, n, rate)
    rattle = noise(rng, n, rate, low=200.0, high=1800.0, slope=-4.0) * (
        0.4 + 0.6 * np.clip(tone(f0, n, rate), 0.0, 1.0)
    )
    return np.tanh(0.8 * pulses * beat) + rng.uniform(0.08, 0.25) * rattle


def chainsaw(rng: Rng, n: int, rate: int) -> Array:
    """A two-stroke motor, cutting steadily or revved in blips: rough harmonics under exhaust noise."""
    idle, full = rng.uniform(55.0, 90.0), rng.uniform(95.0, 190.0)
    if rng.random() < 0.6:
        revs = np.clip(0.6 + rng.uniform(0.1, 0.9) * drift(rng, n, rate, speed=rng.uniform(0.3, 1.0)), 0.0, 1.0)
    else:
        starts = onsets(rng, n, rate, every=rng.uniform(0.6, 1.6), jitter=0.3)
        blips = [swell(samples(rng.uniform(0.3, 0.9), rate), rate, attack=0.12, release=0.2) for _ in starts]
        revs = np.clip(place(n, starts, blips), 0.0, 1.0)
    f0 = (idle + (full - idle) * revs) * (1.0 + 0.035 * drift(rng, n, rate, speed=50.0))
    source = harmonics(f0, n, rate, levels=rolloff(60, rng.uniform(0.2, 0.6)) * rng.uniform(0.2, 1.0, 60))
    source /= source.std() + 1e-12
    firing = 0.5 + 0.5 * tone(f0, n, rate)
    exhaust = firing * noise(rng, n, rate, low=300.0, slope=rng.uniform(-5.0, -1.0), order=2)
    formants = [
        (rng.uniform(450.0, 900.0), 400.0, 1.0),
        (rng.uniform(1200.0, 2400.0), 900.0, rng.uniform(0.5, 1.2)),
        (rng.uniform(3000.0, 4500.0), 2000.0, rng.uniform(0.2, 1.0)),
    ]
    body = resonate(source + rng.uniform(0.5, 1.5) * exhaust, rate, formants)
    growl = np.tanh(body / (body.std() + 1e-12)) + rng.uniform(0.1, 0.3) * source + rng.uniform(0.2, 0.6) * exhaust
    rough = 1.0 + 0.25 * drift(rng, n, rate, speed=12.0)
    return growl * rough * (0.25 + 0.75 * revs)


def vacuum_cleaner(rng: Rng, n: int, rate: int) -> Array:
    """A whining fan inside a steady rush of air."""
    whine = rng.uniform(380.0, 720.0) * (1.0 + 0.008 * drift(rng, n, rate, speed=0.7))
    start = rng.uniform(0.0, 0.7)
    spin = 1.0 - start * np.exp(-time_axis(n, rate) / 0.25) if rng.random() < 0.3 else np.ones(n)
    motor = harmonics(whine * spin, n, rate, levels=rolloff(14, 0.6) * rng.uniform(0.2, 1.0, 14))
    air = noise(rng, n, rate, low=150.0, high=rng.uniform(2500.0, 6000.0), slope=-2.0, order=2)
    return rng.uniform(0.6, 1.3) * motor + air * (0.75 + 0.25 * spin)


def hand_saw(rng: Rng, n: int, rate: int) -> Array:
    """Sawing wood: rasping strokes to and fro, the push louder than the pull."""
    stroke, teeth = rng.uniform(0.22, 0.45), rng.uniform(70.0, 150.0)
    phase = time_axis(n, rate) / (2.0 * stroke) + rng.uniform(0.0, 0.2) + 0.05 * drift(rng, n, rate, speed=0.7)
    speed = np.abs(np.sin(2.0 * np.pi * phase))
    push = np.where(phase % 1.0 < 0.5, 1.0, rng.uniform(0.35, 0.75))
    rasp = np.clip(np.sin(2.0 * np.pi * np.cumsum(teeth * (0.3 + speed)) / rate), 0.0, 1.0)
    wood = noise(rng, n, rate, low=700.0, high=7000.0)
    centre = rng.uniform(1200.0, 2600.0)
    body = resonate(wood * (0.4 + rasp), rate, [(centre, 700.0, 1.0), (2.3 * centre, 900.0, 0.8)])
    return body * speed**1.5 * push


def keyboard_typing(rng: Rng, n: int, rate: int) -> Array:
    """Fast light key clicks: press and release, in bursts like words."""
    down = [
        click(rng, rate, low=1200.0 * rng.uniform(0.7, 1.4), high=7500.0, decay=rng.uniform(0.002, 0.006))
        for _ in range(6)
    ]
    bed = samples(0.05, rate)
    thock = modes(bed, rate, frequencies=[rng.uniform(200.0, 450.0)], decays=[0.008], levels=[0.3])
    keys = onsets(rng, n, rate, every=rng.uniform(0.11, 0.2), jitter=0.6)
    keys = keys[(rng.random(len(keys)) > 0.15) | (np.arange(len(keys)) == 0)]
    release = keys + (rng.uniform(0.05, 0.09, len(keys)) * rate).astype(int)
    press = sprinkle(rng, n, keys, [place(max(len(d), len(thock)), [0, 0], [d, thock]) for d in down], spread=0.35)
    return press + 0.35 * sprinkle(rng, n, release[release < n], down, spread=0.35)


def clock_tick(rng: Rng, n: int, rate: int) -> Array:
    """A clock: dry ticks at a steady rate, tick and tock alternating."""
    period = float(rng.choice([rng.uniform(0.2, 0.3), 0.5, 1.0, rng.uniform(0.3, 0.6)]))
    body, decay = np.exp(rng.uniform(np.log(900.0), np.log(4000.0))), rng.uniform(0.003, 0.014)
    case, snap = rng.uniform(0.0, 0.8), rng.uniform(0.3, 1.0)
    box = rng.uniform(150.0, 500.0)

    def tick(scale: float) -> Array:
        m = samples(0.1, rate)
        ring = modes(
            m,
            rate,
            frequencies=[box, 0.45 * body * scale, body * scale, 1.7 * body * scale],
            decays=[0.012, 2.0 * decay, decay, 0.7 * decay],
            levels=[case, 0.5, 1.0, 0.6],
        )
        return ring + place(m, [0], [snap * click(rng, rate, low=1000.0, high=7500.0, decay=0.003)])

    pair = [tick(1.0), rng.uniform(0.4, 1.0) * tick(rng.uniform(0.75, 0.95))]
    starts = onsets(rng, n, rate, every=period)
    ticks = place(n, starts, [pair[k % 2] * rng.uniform(0.93, 1.0) for k in range(len(starts))])
    room = noise(rng, n, rate, low=30.0, slope=rng.uniform(-9.0, -3.0), order=2)
    return ticks + np.exp(rng.uniform(np.log(0.001), np.log(0.06))) * room


# --- signals and objects -----------------------------------------------------------------------------------


def siren(rng: Rng, n: int, rate: int) -> Array:
    """Emergency siren: a wail or yelp that sweeps, or two alternating notes."""
    low = rng.uniform(450.0, 700.0)
    high = low * rng.uniform(1.7, 2.3)
    t = time_axis(n, rate)
    kind = rng.integers(0, 3)
    if kind == 2:
        high = low * rng.uniform(1.25, 1.45)
        sweep = 0.5 + 0.5 * np.tanh(12.0 * np.sin(2.0 * np.pi * t * rng.uniform(0.5, 1.0)))
    else:
        speed = rng.uniform(0.2, 0.5) if kind == 0 else rng.uniform(1.8, 3.5)
        cycle = (t * speed + rng.uniform()) % 1.0
        sweep = np.where(cycle < 0.45, cycle / 0.45, (1.0 - cycle) / 0.55) ** 0.8
    sound = harmonics(low + (high - low) * sweep, n, rate, levels=rolloff(12, rng.uniform(0.9, 1.5)))
    near = curve(n, (0, rng.uniform(0.4, 1.0)), (0.5, 1.0), (1, rng.uniform(0.4, 1.0)))
    return near * (sound + 0.02 * noise(rng, n, rate, slope=-6.0))


ALARM_HZ = (1900.0, 3300.0)  # the range of the alarm's beep; its dominant frequency lies within


def clock_alarm(rng: Rng, n: int, rate: int) -> Array:
    """Alarm clock or smoke alarm: groups of identical high beeps."""
    pitch, beep, gap = rng.uniform(*ALARM_HZ), rng.uniform(0.06, 0.16), rng.uniform(0.05, 0.12)
    group = int(rng.integers(1, 5))
    m = samples(beep, rate)
    wave = harmonics(pitch, m, rate, levels=np.array([1.0, 0.0, rng.uniform(0.1, 0.3)]))
    one = wave * swell(m, rate, attack=0.004, release=0.006)
    pattern = place(
        samples(group * (beep + gap), rate),
        [int(k * (beep + gap) * rate) for k in range(group)],
        [one] * group,
    )
    starts = onsets(rng, n, rate, every=group * (beep + gap) + rng.uniform(0.15, 0.5))
    return place(n, starts, [pattern] * len(starts))


def telephone_ring(rng: Rng, n: int, rate: int) -> Array:
    """An old telephone: two small bells hammered about twenty times a second, ringing and pausing."""
    base, hammer = rng.uniform(1050.0, 1700.0), rng.uniform(17.0, 25.0)
    ring, pause = rng.uniform(0.7, 1.6), rng.uniform(0.35, 1.2)
    m = samples(0.35, rate)
    overtones, decays, levels = base * np.array([1.0, 2.76, 4.1]), [0.12, 0.08, 0.05], [1.0, 0.7, 0.3]
    bells = [
        modes(m, rate, frequencies=detune * overtones, decays=decays, levels=levels)
        for detune in (1.0, rng.uniform(1.12, 1.3))
    ]
    hits = onsets(rng, n, rate, every=0.5 / hammer, start=0.02)
    hits = hits[((hits / rate - 0.02) % (ring + pause)) < ring]
    return place(n, hits, [bells[k % 2] for k in range(len(hits))])


def car_horn(rng: Rng, n: int, rate: int) -> Array:
    """A car horn: two reeds a third apart, sounded in short honks or one long blast."""
    low = rng.uniform(320.0, 440.0)
    levels = rolloff(20, rng.uniform(0.3, 0.7))

    def honk(seconds: float) -> Array:
        m = samples(seconds, rate)
        onset = curve(m, (0, 0.97), (min(1.0, 0.05 / seconds), 1.0), (1, 1.0))
        both = harmonics(low * onset, m, rate, levels=levels) + harmonics(low * 1.26 * onset, m, rate, levels=levels)
        return both * swell(m, rate, attack=0.015, release=0.03)

    lengths = rng.uniform(0.12, 0.5, 40) if rng.random() < 0.7 else rng.uniform(1.0, 2.2, 40)
    gaps = rng.uniform(0.1, 0.7, 40)
    starts = (np.concatenate([[0.03], 0.03 + np.cumsum(lengths + gaps)[:-1]]) * rate).astype(int)
    starts = starts[starts < n]
    return place(n, starts, [honk(length) for length in lengths[: len(starts)]])


def train_horn(rng: Rng, n: int, rate: int) -> Array:
    """A locomotive's air horn: a wide chord, long blasts, the pitch sagging at the end."""
    root = rng.uniform(180.0, 270.0)
    chord = root * np.array([1.0, 1.19, 1.5, 1.68, 2.0])[: rng.integers(3, 6)]

    def blast(seconds: float) -> Array:
        m = samples(seconds, rate)
        breath = curve(m, (0, 0.96), (0.08, 1.0), (0.85, 1.0), (1, 0.94))
        reeds = sum(harmonics(f * breath, m, rate, levels=rolloff(24, 0.7)) for f in chord)
        return (reeds + 0.15 * noise(rng, m, rate, slope=-4.0)) * swell(m, rate, attack=0.08, release=0.25)

    starts, at = [], rng.uniform(0.02, 0.1) * min(1.0, n / rate)
    while at < n / rate - 0.05:
        seconds = rng.choice([0.5, 1.2, 2.2]) * rng.uniform(0.8, 1.2)
        starts.append((int(at * rate), seconds))
        at += seconds + rng.uniform(0.25, 0.8)
    return place(n, [at for at, _ in starts], [blast(seconds) for _, seconds in starts])


def church_bells(rng: Rng, n: int, rate: int) -> Array:
    """A large bell: the classical partials (hum, prime, tierce, quint, nominal, ...), each with its decay."""
    prime = rng.uniform(190.0, 420.0)
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.5, 3.0, 4.0, 5.3])
    decays = rng.uniform(2.0, 3.5) / ratios**0.8
    m = min(n, samples(4.5, rate))
    levels = np.array([0.5, 0.8, 0.9, 0.3, 1.0, 0.4, 0.5, 0.35, 0.2]) * rng.uniform(0.6, 1.2, 9)
    toll = modes(m, rate, frequencies=prime * ratios * rng.uniform(0.995, 1.005, 9), decays=decays, levels=levels)
    toll += place(m, [0], [1.5 * click(rng, rate, low=800.0, high=5000.0, decay=0.01)])
    starts = onsets(rng, n, rate, every=rng.uniform(0.9, 2.4), jitter=0.05)
    return place(n, starts, [toll * rng.uniform(0.7, 1.0) for _ in starts])


def door_wood_knock(rng: Rng, n: int, rate: int) -> Array:
    """Knuckles on a wooden door: groups of two to five dull, resonant raps."""
    panel = rng.uniform(160.0, 320.0)
    every = rng.uniform(0.14, 0.28)
    decays, levels = [0.035, 0.025, 0.015, 0.008], [1.0, 0.8, 0.6, 0.4]

    def rap() -> Array:
        m = samples(0.18, rate)
        pitches = panel * np.array([1.0, 1.7, 2.9, 4.6]) * rng.uniform(0.98, 1.02, 4)
        wood = modes(m, rate, frequencies=pitches, decays=decays, levels=levels)
        return wood + place(m, [0], [0.4 * click(rng, rate, low=500.0, high=3000.0, decay=0.003)])

    group = int(rng.integers(2, 6))
    starts = []
    for first in onsets(rng, n, rate, every=group * every + rng.uniform(0.7, 1.6), jitter=0.15):
        starts += [int(first + k * every * rate * rng.uniform(0.95, 1.05)) for k in range(group)]
    return place(n, starts, [rap() * rng.uniform(0.7, 1.0) for _ in starts])


def glass_breaking(rng: Rng, n: int, rate: int) -> Array:
    """Glass shattering: an impact, then many shards ringing high as they fall."""
    m = samples(0.25, rate)
    shards = []
    for _ in range(8):
        pitches = rng.uniform(2200.0, min(6800.0, 0.45 * rate)) * np.array([1.0, 1.5, 2.1])
        decays = rng.uniform(0.012, 0.05) / np.array([1.0, 1.3, 1.8])
        shards.append(modes(m, rate, frequencies=pitches, decays=decays, levels=[1.0, 0.5, 0.3]))
    out = np.zeros(n)
    for first in onsets(rng, n, rate, every=rng.uniform(2.2, 4.0), jitter=0.2):
        count = int(rng.integers(30, 80))
        delays = rng.exponential(rng.uniform(0.15, 0.4), count)
        at = (first + delays * rate).astype(int)
        size = np.exp(-delays / 0.4) * rng.uniform(0.2, 1.0, count)
        out += place(n, at, [shards[k % 8] * level for k, level in enumerate(size)])
        out += place(n, [first], [3.0 * click(rng, rate, low=300.0, high=6500.0, decay=rng.uniform(0.015, 0.04))])
    return out


def drum(rng: Rng, n: int, rate: int) -> Array:
    """A drum: the modes of a round skin, its pitch dropping after each hit, in a repeating rhythm."""
    skin = rng.uniform(75.0, 170.0)
    ratios = np.array([1.0, 1.59, 2.14, 2.65])
    snare = rng.uniform(0.0, 0.25)

    def hit(level: float) -> Array:
        m = samples(0.45, rate)
        bend = 1.0 + 0.35 * np.exp(-time_axis(m, rate) / 0.02)
        body = np.zeros(m)
        for k, ratio in enumerate(ratios):
            body += tone(skin * ratio * bend, m, rate) * strike(m, rate, attack=0.001, decay=0.11 / ratio) / (k + 1)
        wires = snare * noise(rng, m, rate, low=1000.0) * strike(m, rate, attack=0.001, decay=0.05)
        return level * (body + wires + place(m, [0], [0.4 * click(rng, rate, low=300.0, high=3500.0, decay=0.004)]))

    pattern = np.where(rng.random(8) < 0.6, rng.uniform(0.4, 1.0, 8), 0.0)
    pattern[0] = 1.0
    starts = onsets(rng, n, rate, every=rng.uniform(0.16, 0.3), start=0.03)
    levels = pattern[np.arange(len(starts)) % 8]
    return place(n, starts[levels > 0], [hit(level) for level in levels[levels > 0]])
