"""Words that training never heard, and which class the words of training stand for."""

from functools import cache

from lasslab.data.captions import ESC50_CAPTIONS
from lasslab.data.synthesis import EVENT_CLASSES
from lasslab.models.text import normalise_query

#: Three free wordings of each class of ESC-10. None is a training caption of `lasslab.data` or one inside the words of
#: `lasslab.data.wording`; a test keeps it so. They were fixed before any system was measured on them.
PARAPHRASES: dict[str, tuple[str, str, str]] = {
    "dog": (
        "my neighbour's dog won't stop barking",
        "a canine yelping at the postman",
        "loud woofs from a terrier",
    ),
    "rooster": (
        "the cockerel's morning call",
        "a rooster waking everybody up",
        "the cock on the farm crows at sunrise",
    ),
    "rain": (
        "it's pouring outside the window",
        "water falling from the clouds onto the street",
        "the patter of a rainstorm",
    ),
    "sea_waves": (
        "breakers rolling towards the beach",
        "the tide coming in at the seashore",
        "ocean water rushing up the sand and back",
    ),
    "crying_baby": (
        "our little one is screaming in the cradle",
        "a baby weeping",
        "a tearful infant in the next room",
    ),
    "clock_tick": (
        "the clock on the mantelpiece going tick tick tick",
        "a pocket watch counting the seconds",
        "the steady beat of a pendulum clock",
    ),
    "sneezing": (
        "somebody just sneezed",
        "a loud atishoo",
        "an allergic man who has to sneeze again",
    ),
    "helicopter": (
        "a chopper circling above the city",
        "the whirl of helicopter blades",
        "a rotary-wing aircraft passing over",
    ),
    "chainsaw": (
        "a tree being felled with a motor-driven saw",
        "the chain saw of a forester",
        "a gas-powered saw roaring in the woods",
    ),
    "crackling_fire": (
        "burning logs that hiss and crack",
        "a cosy fireplace on a winter evening",
        "a wood fire sputtering",
    ),
}


def captions_of(label: str) -> tuple[str, ...]:
    """The captions of a class, those of ESC-50 before the synthesised ones; the first is the plainest.

    Args:
        label: a class.

    Returns:
        Captions that training may have read; none for a class that is in neither corpus.
    """
    synthesised = EVENT_CLASSES[label].captions if label in EVENT_CLASSES else ()
    return (*ESC50_CAPTIONS.get(label, ()), *synthesised)


def class_of(caption: str) -> str | None:
    """The class that a caption of `lasslab.data` belongs to; None for other words."""
    return _classes().get(normalise_query(caption))


@cache
def _classes() -> dict[str, str]:
    labels = [*EVENT_CLASSES, *ESC50_CAPTIONS]
    return {normalise_query(caption): label for label in labels for caption in captions_of(label)}
