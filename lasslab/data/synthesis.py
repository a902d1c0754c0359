"""Procedural sound events with captions: the offline default of the whole course.

Every class is a small synthesiser (`synthesis_events`, made of `synthesis_blocks`) and a handful of
captions that people might write. A clip is fixed by its label and seed alone, so a data set is a list of
`(label, seed)` pairs and weighs nothing. The ten classes of ESC-10 carry their ESC names, so that
synthesis and the real corpus agree.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from lasslab.data import synthesis_events as events

SHORTEST_SECONDS = 0.1
LOWEST_SAMPLE_RATE = 8_000


@dataclass(frozen=True)
class EventClass:
    """One kind of sound: its label, the ways people describe it, and how it is made.

    `synthesise(rng, n_samples, sample_rate)` returns the dry sound `(n_samples,)` at any level.
    """

    name: str
    captions: tuple[str, ...]
    synthesise: Callable[[np.random.Generator, int, int], np.ndarray]


_CAPTIONS: dict[str, tuple[str, ...]] = {
    "dog": (
        "a dog barking",
        "a hound yaps twice",
        "barks from a small dog in a yard",
        "the dog is barking at a stranger",
        "woofing",
        "a puppy gives a few sharp barks",
        "someone's pet dog keeps woofing outside",
        "short rough barks, one after another",
    ),
    "rooster": (
        "a rooster crowing",
        "a cockerel greets the morning",
        "cock-a-doodle-doo from a farmyard",
        "the crow of a cock at dawn",
        "a male chicken calls loudly and draws out the last note",
        "crowing on a farm",
        "a rooster calls again and again",
        "poultry announcing sunrise",
    ),
    "rain": (
        "rain falling",
        "a steady downpour",
        "raindrops patter on a roof",
        "it is raining hard outside",
        "heavy rainfall with close drops hitting leaves",
        "a shower of rain on the pavement",
        "the even hiss of wet weather",
        "drizzle turns into pouring rain",
    ),
    "sea_waves": (
        "sea waves breaking on a beach",
        "the ocean surf rolls in",
        "waves crash on the shore and run back",
        "a swell builds up and turns to foam",
        "the seaside with waves coming and going",
        "surf washing over sand",
        "the tide is rolling onto the coast",
        "slow rushing of the sea",
    ),
    "crying_baby": (
        "a crying baby",
        "an infant wails and gasps for breath",
        "the newborn is crying",
        "a hungry baby screams in its cot",
        "shrill wails of a very small child",
        "a baby bawls without stopping",
        "an upset infant sobs loudly",
        "loud crying from a nursery",
    ),
    "clock_tick": (
        "a clock ticking",
        "the tick-tock of a clock on the wall",
        "a watch ticks steadily",
        "regular dry ticks at an even pace",
        "the seconds are ticking away",
        "an old clock's mechanism counts the time",
        "ticking of a wristwatch",
        "a mantel clock beats in a quiet room",
    ),
    "sneezing": (
        "a person sneezing",
        "someone sneezes loudly",
        "achoo",
        "a sneeze after a sharp breath in",
        "a man with a cold lets out a sneeze",
        "a sudden burst of air through the nose and mouth",
        "somebody with hay fever sneezes into a handkerchief",
        "a woman sneezed",
    ),
    "helicopter": (
        "a helicopter flying",
        "chopper blades thump overhead",
        "rotor blades beat the air",
        "a rescue helicopter hovers above",
        "the throb of a rotorcraft passing by",
        "a chopper is taking off",
        "pulsing wash of a helicopter's rotor",
        "an aircraft with spinning blades circles nearby",
    ),
    "chainsaw": (
        "a chainsaw running",
        "a logger revs a chain saw",
        "cutting down a tree with a power saw",
        "the petrol saw snarls and revs up",
        "a two-stroke saw bites into timber",
        "a motor saw buzzing in the forest",
        "loud revving of a chainsaw",
        "a lumberjack is sawing with a machine",
    ),
    "crackling_fire": (
        "a crackling fire",
        "logs snap and pop in the fireplace",
        "a campfire burns",
        "wood burning with pops and crackles",
        "flames crackle softly",
        "a bonfire is burning at night",
        "sparks popping in a hearth",
        "the fire spits and crackles",
    ),
    "siren": (
        "a siren wailing",
        "an ambulance passes with its siren on",
        "a police car's siren sweeps up and down",
        "emergency vehicles rushing to an accident",
        "a fire engine on its way",
        "the rising and falling wail of an emergency siren",
        "a two-tone siren in the street",
        "a patrol car is chasing somebody",
    ),
    "church_bells": (
        "a church bell tolling",
        "bells ring from a steeple",
        "a large bronze bell is struck slowly",
        "the chime of a cathedral bell",
        "a bell tower sounds the hour",
        "deep bell strokes that ring on for a long time",
        "the village church is calling to service",
        "tolling of a heavy bell",
    ),
    "crickets": (
        "crickets chirping",
        "a summer night full of crickets",
        "insects chirp in the grass",
        "the high pulsing song of a cricket",
        "grasshoppers stridulate in a meadow",
        "night insects are singing",
        "chirping from a field after dark",
        "a cricket sings in the warm evening",
    ),
    "engine": (
        "an engine idling",
        "a car motor running",
        "the low rumble of a diesel engine",
        "a truck stands with its motor on",
        "an old tractor chugs along",
        "a vehicle idles at the kerb",
        "steady chugging of a combustion engine",
        "a motor turns over roughly",
    ),
    "chirping_birds": (
        "a bird singing",
        "birdsong in the garden",
        "a small bird chirps and trills",
        "tweeting from a tree",
        "songbirds call on a spring morning",
        "a sparrow is twittering",
        "quick high notes of a wild bird",
        "chirrups from a nest",
    ),
    "footsteps": (
        "footsteps on the floor",
        "a person walking",
        "someone walks along a corridor",
        "steady steps on gravel",
        "shoes tread on a wooden floor",
        "somebody is pacing up and down",
        "the tread of boots",
        "a walker passes at an even gait",
    ),
    "clock_alarm": (
        "an alarm beeping",
        "an alarm clock goes off",
        "a smoke detector's shrill beeps",
        "repeated electronic beeps",
        "a digital alarm is sounding",
        "beep beep beep",
        "a high-pitched warning signal",
        "the bedside alarm wakes somebody",
    ),
    "door_wood_knock": (
        "a knock on the door",
        "someone knocks on wood",
        "knuckles rap on a wooden door",
        "a visitor is knocking",
        "three knocks, then a pause",
        "somebody taps firmly at the front door",
        "rapping on a door panel",
        "a guest asks to be let in by knocking",
    ),
    "wind": (
        "wind blowing",
        "a gale howls around the house",
        "gusts of wind",
        "a strong breeze moans through a gap",
        "the storm wind rises and falls",
        "it is windy outside",
        "air whooshing past in a blustery field",
        "howling of the wind at night",
    ),
    "thunderstorm": (
        "thunder rumbling",
        "a clap of thunder",
        "a thunderstorm rolls in the distance",
        "lightning strikes and the sky rumbles",
        "a loud crack followed by a long low roll",
        "it thunders",
        "the boom of a storm overhead",
        "thunderclaps echo over the hills",
    ),
    "whistle": (
        "a person whistling",
        "someone whistles a tune",
        "a cheerful whistled melody",
        "a man is whistling to himself",
        "whistling through pursed lips",
        "a casual song whistled while working",
        "a passer-by whistles a song",
        "a clear gliding whistle by a human",
    ),
    "insects": (
        "a bee buzzing",
        "an insect flies around the room",
        "a fly buzzes near the ear",
        "the hum of a wasp's wings",
        "a mosquito is hovering close by",
        "a bumblebee visits a flower",
        "buzzing of a flying insect",
        "a hornet comes near and moves away",
    ),
    "telephone_ring": (
        "a telephone ringing",
        "an old phone rings",
        "the landline is ringing and nobody answers",
        "the bell of a rotary telephone",
        "an incoming call on a vintage phone",
        "a ringing handset on the desk",
        "the phone trills, pauses and trills again",
        "somebody calls on the telephone",
    ),
    "car_horn": (
        "a car horn honking",
        "a driver honks",
        "an impatient motorist beeps the horn",
        "hooting in a traffic jam",
        "a vehicle's horn is pressed twice",
        "the honk of an automobile",
        "a taxi toots at the lights",
        "cars honking in the street",
    ),
    "cat": (
        "a cat meowing",
        "a kitten mews for food",
        "meows from a hungry cat",
        "the cat is mewing at the door",
        "a house cat cries",
        "miaow",
        "a feline calls plaintively",
        "mewling of a tomcat",
    ),
    "frog": (
        "a frog croaking",
        "frogs call from a pond",
        "the ribbit of a toad",
        "croaks in a swamp",
        "an amphibian is croaking in the reeds",
        "a bullfrog rattles out its call",
        "ribbit ribbit",
        "a toad sings by the water",
    ),
    "water_drops": (
        "water dripping",
        "drops fall into a basin",
        "a leaking tap drips",
        "single drops plink into a puddle",
        "drip drop in a cave",
        "the faucet is dripping into the sink",
        "droplets of water landing one by one",
        "a slow leak into a bucket",
    ),
    "clapping": (
        "hands clapping",
        "people applaud",
        "a small audience claps",
        "someone claps in rhythm",
        "applause from a few listeners",
        "clapping of palms",
        "a round of applause",
        "the crowd is clapping along",
    ),
    "keyboard_typing": (
        "typing on a keyboard",
        "someone types quickly",
        "computer keys clatter in an office",
        "the clicks of a keyboard",
        "a person is writing a message on a laptop",
        "rapid keystrokes",
        "a typist at work",
        "fingers tapping on computer keys",
    ),
    "vacuum_cleaner": (
        "a vacuum cleaner running",
        "someone is hoovering the carpet",
        "the whine and rush of a hoover",
        "vacuuming the living room",
        "a household appliance sucks up dust",
        "the steady drone of a vacuum",
        "cleaning the floor with a vacuum cleaner",
        "an electric fan motor with rushing air",
    ),
    "train_horn": (
        "a train horn blowing",
        "a locomotive sounds its air horn",
        "a freight train warns at a crossing",
        "long blasts of a railway horn",
        "the train is hooting as it approaches",
        "a deep chord from a diesel locomotive",
        "a railroad engine signals with long chords",
        "the horn of a passing train",
    ),
    "hand_saw": (
        "sawing wood by hand",
        "a carpenter saws a plank",
        "a handsaw cuts to and fro",
        "rasping strokes of a saw blade",
        "someone is sawing a board",
        "the scrape of a saw through timber",
        "a woodworker cuts a beam with a manual saw",
        "back-and-forth sawing in a workshop",
    ),
    "glass_breaking": (
        "glass breaking",
        "a window shatters",
        "a bottle smashes on the floor",
        "shards of glass fall and tinkle",
        "someone drops a drinking glass",
        "the crash of a tumbler on a stone floor",
        "a pane is smashed",
        "shattering of a mirror",
    ),
    "owl": (
        "an owl hooting",
        "hoots in the forest at night",
        "a tawny owl calls",
        "the soft low hoot of a night bird",
        "a bird of prey hoots in the dark",
        "an owl is calling to its mate",
        "hoo hoo from an old barn",
        "a distant owl gives a long wavering call",
    ),
    "cow": (
        "a cow mooing",
        "cattle low in a field",
        "a long moo from the barn",
        "the cow is calling her calf",
        "a bull bellows",
        "moo",
        "lowing of a dairy herd",
        "livestock on a pasture, one animal lowing",
    ),
    "drum": (
        "a drum beating",
        "someone plays a drum",
        "a drummer keeps a steady beat",
        "rhythmic hits on a hand drum",
        "the thump of a tom-tom",
        "drumming in a repeated pattern",
        "percussion with a deep skin drum",
        "a bongo is being played",
    ),
}

EVENT_CLASSES: dict[str, EventClass] = {
    name: EventClass(name, captions, getattr(events, name)) for name, captions in _CAPTIONS.items()
}


def synthesise(label: str, *, seed: int, seconds: float = 5.0, sample_rate: int = 16_000) -> Tensor:
    """Make one recording of a class of sound, fixed by `(label, seed)`.

    The class function draws its own pitch, rate, timbre and events; the clip is then placed in a random room,
    given a faint background, made free of offset, faded at both ends and set to a random peak in 0.25..0.95.

    Args:
        label: one of `EVENT_CLASSES`.
        seed: non-negative integer; another seed is another recording of the same thing.
        seconds: length, at least 0.1.
        sample_rate: hertz, at least 8,000.

    Returns:
        Waveform `(T,)`, float32 in [-1, 1], with T = round(seconds * sample_rate).

    Raises:
        ValueError: the label is unknown, or the seed, length or rate is out of range.

    Notebook: 03 (making mixtures).
    """
    _check(label, seed, seconds, sample_rate)
    rng = np.random.default_rng(np.random.SeedSequence([zlib.crc32(label.encode()), seed]))
    n = round(seconds * sample_rate)
    dry = EVENT_CLASSES[label].synthesise(rng, n, sample_rate)
    wet = _place_in_room(dry, rng, sample_rate)
    return torch.from_numpy(_finish(wet, rng, sample_rate))


def _check(label: str, seed: int, seconds: float, sample_rate: int) -> None:
    if label not in EVENT_CLASSES:
        near = difflib.get_close_matches(str(label), EVENT_CLASSES, n=3, cutoff=0.4) or list(EVENT_CLASSES)
        raise ValueError(f"expected a label of EVENT_CLASSES, got {label!r}; did you mean {', '.join(near)}?")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"expected a non-negative whole seed, got {seed!r}; use 0, 1, 2, ...")
    if not SHORTEST_SECONDS <= seconds < float("inf"):
        raise ValueError(f"expected at least {SHORTEST_SECONDS} seconds, got {seconds}; ask for a longer clip")
    if sample_rate < LOWEST_SAMPLE_RATE:
        raise ValueError(
            f"expected a sample rate of at least {LOWEST_SAMPLE_RATE} Hz, got {sample_rate}; "
            "synthesise at a higher rate and resample"
        )


def _place_in_room(dry: np.ndarray, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Convolve with direct sound and a decaying noise tail, tilt the spectrum, add the place's background."""
    n = len(dry)
    reverberation, wet = rng.uniform(0.08, 0.5), max(0.0, rng.uniform(-0.1, 0.3))
    tail = np.arange(round(reverberation * sample_rate)) / sample_rate
    impulse = rng.standard_normal(len(tail)) * np.exp(-6.9 * tail / reverberation)
    impulse *= wet / np.linalg.norm(impulse)
    impulse[0] = 1.0
    length = fft.next_fast_len(n + len(impulse), real=True)
    f = fft.rfftfreq(length, 1.0 / sample_rate)
    high_pass = f**2 / (f**2 + 35.0**2)
    reference = np.clip(f / 1000.0, 0.05, 8.0)
    colour = reference ** (rng.uniform(-3.5, 2.5) / 6.02) * high_pass
    wet_sound = fft.irfft(fft.rfft(dry, length) * fft.rfft(impulse, length) * colour, length)[:n]
    hiss = reference ** (rng.uniform(-9.0, -1.0) / 6.02) * high_pass
    background = fft.irfft(hiss * (rng.standard_normal(len(f)) + 1j * rng.standard_normal(len(f))), length)[:n]
    level_db = rng.uniform(-75.0, -42.0)
    return wet_sound + background * (10.0 ** (level_db / 20.0) * np.abs(wet_sound).max() / background.std())


def _finish(sound: np.ndarray, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Fade the ends, remove the mean without lifting the ends, and set a random peak."""
    n = len(sound)
    edge = min(n // 4, round(0.01 * sample_rate))
    window = np.ones(n)
    window[:edge] = np.sin(0.5 * np.pi * np.arange(edge) / edge) ** 2
    window[n - edge :] = window[:edge][::-1]
    faded = sound * window
    faded -= window * (faded.sum() / window.sum())
    return (faded * (rng.uniform(0.25, 0.95) / np.abs(faded).max())).astype(np.float32)
