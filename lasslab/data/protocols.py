"""Published test sets as recipes: which corpus and split, how many mixtures, at which level, who may meet whom.

A recipe is not the published set itself: the draws were made once, by others, and the lists or mixtures they led to are
what was published. Where there is a list (AudioSep's for ESC-50), use it with `read_pairs` for figures to set beside
published ones. A recipe gives a set of the same kind, of any size, from any corpus, and says in `mixtures.json` what it
was drawn from. Notebook 03.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from lasslab.signal.audio import SAMPLE_RATE

QUERIES = ("label", "caption", "first caption", "each caption")


@dataclass(frozen=True)
class Protocol:
    """How a test set is drawn. Two clips that share a label, a tag or a recording are never mixed.

    Args:
        name: of the recipe.
        source: where it is published.
        corpus: name of its corpus for `load_corpus`.
        split: split of the corpus, or None where there is one only.
        n: number of mixtures.
        snr_db: range in dB of the target against the sum of the rest; equal ends fix it. None: `lufs` decides.
        lufs: range in LUFS of each part's loudness; equal ends make all parts equally loud. None: `snr_db` decides.
        whole_decibels: the SNR is a whole number.
        seconds: length; longer clips are cropped to their loudest piece, shorter ones padded. None: the target's own
            length, to which the rest is cropped or padded.
        query: the label in words, a caption drawn at random, the first caption, or each caption in turn.
        n_targets: number of clips that are targets, each as often as `n` needs; None: every clip.
        separate_roles: a clip that is a target is never an interference.
        max_similarity: threshold of the cosine filter between mixture and target, or None.
        n_sources: sounds in a mixture.
        has_targets: false where the mixtures are recordings, so that there is nothing to build and no SDR.
        note: what the source leaves open, or does otherwise than it says.

    Raises:
        ValueError: when the recipe is contradictory.
    """

    name: str
    source: str
    corpus: str
    n: int
    split: str | None = None
    snr_db: tuple[float, float] | None = None
    lufs: tuple[float, float] | None = None
    whole_decibels: bool = False
    seconds: float | None = None
    query: str = "caption"
    n_targets: int | None = None
    separate_roles: bool = False
    max_similarity: float | None = None
    n_sources: int = 2
    has_targets: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"a test set has at least one mixture, got n={self.n}")
        if self.has_targets and (self.snr_db is None) == (self.lufs is None):
            raise ValueError("give the level of the mixtures as snr_db or as lufs, and not as both")
        for name, ends in (("snr_db", self.snr_db), ("lufs", self.lufs)):
            if ends is not None and not -math.inf < ends[0] <= ends[1] < math.inf:
                raise ValueError(f"{name} is (lowest, highest), got {ends}")
        if self.lufs is not None and not -70 < self.lufs[0] <= self.lufs[1] <= 0:
            raise ValueError(f"lufs must lie between -70, the gate of the measure, and 0, got {self.lufs}")
        if self.whole_decibels and (self.snr_db is None or math.floor(self.snr_db[1]) < math.ceil(self.snr_db[0])):
            raise ValueError(f"whole_decibels needs an snr_db range that holds a whole number, got {self.snr_db}")
        if self.seconds is not None and not (math.isfinite(self.seconds) and round(self.seconds * SAMPLE_RATE) >= 1):
            raise ValueError(f"seconds must be positive and hold a sample, got {self.seconds}")
        if self.query not in QUERIES:
            raise ValueError(f"query is one of {', '.join(QUERIES)}, got {self.query!r}")
        if self.n_targets is not None and self.n_targets < 1:
            raise ValueError(f"n_targets must be at least 1, got {self.n_targets}")
        if self.max_similarity is not None and not 0 < self.max_similarity <= 1:
            raise ValueError(f"max_similarity is a cosine in (0, 1], got {self.max_similarity}")
        if self.n_sources < 2:
            raise ValueError(f"n_sources must be at least 2, got {self.n_sources}")

    def check_buildable(self) -> None:
        """Refuse a test set whose mixtures are recordings.

        Raises:
            ValueError: nobody knows its targets.
        """
        if not self.has_targets:
            raise ValueError(f"protocol {self.name} has no targets, its mixtures are recordings: nothing can be mixed")

    @property
    def level(self) -> str:
        """The level rule in words."""
        if self.snr_db is not None:
            low, high = self.snr_db
            return f"{low:g} dB SNR" if low == high else f"{low:g} to {high:g} dB SNR"
        if self.lufs is None:
            return "as recorded"
        low, high = self.lufs
        return f"equal loudness, {low:g} LUFS" if low == high else f"{low:g} to {high:g} LUFS each"


_AUDIOSEP = 'X. Liu et al., "Separate Anything You Describe" (AudioSep), arXiv 2308.05037, and its published lists'
_FLOWSEP = 'Y. Yuan et al., "FlowSep", section IV-A'
_DCASE = "DCASE 2024 Challenge, Task 9: Language-Queried Audio Source Separation"

_THESIS = Protocol(
    name="thesis",
    source="the thesis on a cross-attention ResUNet++, sections 5.3.2, 5.3.4 and 5.4.3",
    corpus="clotho",
    split="evaluation",
    n=2_500,
    lufs=(-23.0, -23.0),
    seconds=15.0,
    query="first caption",
    note="Both parts equally loud; to which loudness, which caption of five and from which split the test clips come "
    "is not said: -23 LUFS, the first, and evaluation here.",
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        *(
            replace(_THESIS, name=f"thesis-{threshold:g}", max_similarity=threshold)
            for threshold in (0.8, 0.75, 0.7, 0.65)
        ),
        Protocol(
            name="esc50",
            source=_AUDIOSEP,
            corpus="esc50",
            n=2_000,
            snr_db=(0.0, 0.0),
            seconds=5.0,
            query="label",
            note="Every clip is the target once. The published list names the files: read_pairs takes it unchanged.",
        ),
        Protocol(
            name="audiocaps",
            source=_FLOWSEP,
            corpus="audiocaps",
            split="test",
            n=928,
            snr_db=(-15.0, 15.0),
            seconds=10.0,
            query="first caption",
        ),
        Protocol(
            name="audiocaps-audiosep",
            source=_AUDIOSEP,
            corpus="audiocaps",
            split="test",
            n=4_820,
            snr_db=(0.0, 0.0),
            seconds=10.0,
            query="each caption",
            note="964 clips, five captions each, another interference for each caption: counted in the published list. "
            "The list does not give the level; 0 dB, as for ESC-50.",
        ),
        Protocol(
            name="clotho",
            source=_AUDIOSEP,
            corpus="clotho",
            split="evaluation",
            n=5_225,
            snr_db=(0.0, 0.0),
            query="each caption",
            note="1,045 clips, five captions each: counted in the published list. It has two columns of interferences, "
            "both called noise_wav1, and does not say which was mixed, nor the level; one interference and 0 dB here.",
        ),
        Protocol(
            name="vggsound",
            source=f"{_AUDIOSEP}; {_FLOWSEP}",
            corpus="vggsound",
            split="test",
            n=2_000,
            lufs=(-35.0, -25.0),
            seconds=10.0,
            query="label",
            n_targets=200,
            separate_roles=True,
            note="200 targets, ten interferences for each from the rest of the test split. FlowSep's authors listened "
            "for clean targets; no list of labels replaces that. In the published list some pairs share their class "
            "(lions growling with lions growling); none does here.",
        ),
        Protocol(
            name="dcase2024-synth",
            source=f"{_DCASE}, evaluation set (synth), Zenodo 11425256",
            corpus="dcase2024",
            split="validation",
            n=3_000,
            snr_db=(-15.0, 15.0),
            whole_decibels=True,
            seconds=10.0,
            query="each caption",
            n_targets=1_000,
            note="1,000 clips with three captions each. The clips of the evaluation set are not published, only its "
            "mixtures: this draws the same kind of set from the validation clips (Zenodo 10886481), for which the "
            "challenge published a list of its own.",
        ),
        Protocol(
            name="dcase2024-real",
            source=f"{_DCASE}, evaluation set (real), Zenodo 11425256",
            corpus="dcase2024",
            split="evaluation",
            n=200,
            seconds=10.0,
            has_targets=False,
            note="100 recordings of at least two sounds at once, two queries each. Nobody knows the targets: scored by "
            "CLAPScore and by listening.",
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """The recipe of a name.

    Args:
        name: key of `PROTOCOLS`.

    Returns:
        The recipe.

    Raises:
        ValueError: when there is none of this name.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}: choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def describe_protocol(protocol: Protocol) -> dict[str, Any]:
    """A recipe as JSON values, with its level in words."""
    return json.loads(json.dumps(asdict(protocol) | {"level": protocol.level}))
