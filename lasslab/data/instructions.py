"""Instructions for editing: what people write when a sound is to be added, removed or replaced, and how it is read.

`INSTRUCTIONS` holds the wordings that training draws from, `write_instruction` fills one in. `read_instruction` is the
way back, by rule: it says which task a sentence asks for and which sounds it names. The editing networks do not need
it, they are given the sentence; it serves checks, tables, and systems that need a caption in place of an instruction.
`split_replacement` takes a replacement apart, for editors that are better at one thing at a time.

Reference: RFM-Editing, section 3.1 (its instructions are "Add A", "Remove A", "Replace A with B"). Notebook 14.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

TASKS = ("add", "remove", "replace")

#: Wordings of each task. `{b}` is the sound that comes, `{a}` the sound that goes.
INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "add": (
        "add {b}",
        "add the sound of {b}",
        "insert {b}",
        "mix in {b}",
        "put {b} into the recording",
        "bring in {b}",
        "include {b}",
        "overlay {b}",
        "let there be {b} as well",
        "i also want to hear {b}",
        "add {b} in the background",
        "please add {b} to this",
    ),
    "remove": (
        "remove {a}",
        "remove the sound of {a}",
        "delete {a}",
        "take out {a}",
        "take {a} away",
        "get rid of {a}",
        "erase {a}",
        "cut out {a}",
        "silence {a}",
        "drop {a}",
        "i do not want to hear {a}",
        "please remove {a} from this",
    ),
    "replace": (
        "replace {a} with {b}",
        "replace {a} by {b}",
        "replace the sound of {a} with {b}",
        "swap {a} for {b}",
        "exchange {a} for {b}",
        "change {a} to {b}",
        "turn {a} into {b}",
        "substitute {b} for {a}",
        "remove {a} and add {b}",
        "take out {a} and put in {b}",
        "i want {b} instead of {a}",
        "please replace {a} with {b}",
    ),
}

#: Verbs that tell a task where no wording fits, in the order in which they are tried.
VERBS: dict[str, tuple[str, ...]] = {
    "replace": ("replace", "swap", "exchange", "substitute", "convert", "transform", "instead"),
    "remove": (
        "remove",
        "delete",
        "erase",
        "mute",
        "silence",
        "suppress",
        "eliminate",
        "without",
        "rid",
        "drop",
        "cut",
    ),
    "add": ("add", "insert", "include", "overlay", "mix", "bring", "put"),
}


@dataclass(frozen=True)
class Instruction:
    """A sentence as it was read.

    Args:
        task: "add", "remove", "replace", or None where no task was recognised.
        removed: words for the sound that goes; "" where there is none or it was not found.
        added: words for the sound that comes; likewise.
    """

    task: str | None
    removed: str = ""
    added: str = ""

    def __str__(self) -> str:
        if self.task is None:
            return "no known task"
        named = [f"{verb} {words!r}" for verb, words in (("removes", self.removed), ("adds", self.added)) if words]
        return f"task {self.task}" + (f", which {' and '.join(named)}" if named else ", without a sound that was found")


def write_instruction(task: str, random: np.random.Generator, *, removed: str = "", added: str = "") -> str:
    """Fill in one of the wordings of a task.

    Args:
        task: one of `TASKS`.
        random: where the choice comes from.
        removed: words for the sound that goes.
        added: words for the sound that comes.

    Returns:
        The instruction, in lower case and without punctuation of its own.

    Raises:
        ValueError: an unknown task, or a sound it needs is not named.
    """
    check_task(task)
    if (task != "add" and not removed) or (task != "remove" and not added):
        raise ValueError(f"to {task} needs words for the sound, got removed={removed!r} and added={added!r}")
    wordings = INSTRUCTIONS[task]
    return wordings[int(random.integers(len(wordings)))].format(a=removed, b=added)


def check_task(task: str) -> None:
    """Refuse what is not one of `TASKS`."""
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: use one of {', '.join(TASKS)}")


def read_instruction(text: str) -> Instruction:
    """Say what an instruction asks for, by rule.

    The wordings are tried first, those with the most words of their own before the others; then the verbs alone.

    Args:
        text: any sentence.

    Returns:
        The task and the sounds named; without a task where nothing fits.
    """
    plain = " ".join(re.findall(r"[\w']+", text.lower()))
    for task, pattern in _patterns():
        if found := pattern.fullmatch(plain):
            named = found.groupdict()
            return Instruction(task, removed=named.get("a", ""), added=named.get("b", ""))
    words = plain.split()
    for task, verbs in VERBS.items():
        if any(verb in words for verb in verbs):
            return Instruction(task)
    return Instruction(None)


def split_replacement(text: str) -> tuple[str, ...]:
    """A replacement as two instructions, first what goes and then what comes; any other instruction as it is.

    Args:
        text: any sentence.

    Returns:
        "remove A" and "add B" where `read_instruction` finds a replacement and both of its sounds; else the sentence.
    """
    found = read_instruction(text)
    if found.task != "replace" or not (found.removed and found.added):
        return (text,)
    return f"remove {found.removed}", f"add {found.added}"


@cache
def _patterns() -> Sequence[tuple[str, re.Pattern[str]]]:
    """(task, pattern) of every wording, the most particular first."""

    def n_own_words(wording: str) -> int:
        return len(wording.replace("{a}", "").replace("{b}", "").split())

    wordings = [(task, wording) for task, those in INSTRUCTIONS.items() for wording in those]
    wordings.sort(key=lambda item: n_own_words(item[1]), reverse=True)
    patterns = []
    for task, wording in wordings:
        pattern = re.escape(wording).replace(r"\ ", " ").replace(r"\{a\}", "(?P<a>.+?)").replace(r"\{b\}", "(?P<b>.+)")
        patterns.append((task, re.compile(pattern)))
    return patterns
