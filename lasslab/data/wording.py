"""The words around a caption: people write "only the dog, please" where a corpus says "a dog barking".

A separator trained on bare captions takes every further word for part of the sound's name. Training on some queries
with words around them teaches it which words do not matter. Notebook 06.
"""

import numpy as np

#: `{}` is the caption.
WORDINGS: tuple[str, ...] = (
    "the sound of {}",
    "{} in the background",
    "{} in the foreground",
    "only {}",
    "keep {}",
    "extract {}",
    "isolate the sound of {}",
    "separate {} from the rest",
    "i want to hear {}",
    "there is {}",
    "i can hear {}",
    "{} can be heard",
    "a recording of {}",
    "{} and nothing else",
    "please give me {}",
    "the noise of {}",
)


def reword(caption: str, random: np.random.Generator) -> str:
    """Put a caption into other words around it.

    Args:
        caption: a description of one sound.
        random: where the choice comes from.

    Returns:
        The caption inside one of `WORDINGS`.
    """
    return WORDINGS[random.integers(len(WORDINGS))].format(caption)
