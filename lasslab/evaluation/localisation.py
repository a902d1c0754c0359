"""Does a token attend where its sound is? The claim of RFM-Editing's Fig. 2, as a number.

For an edit that removes or replaces a sound, the points in time where that sound is active are known: it is at hand by
itself. If the attention to its words says where it is, it ranks active points above the others. How often it does, over
all pairs of an active and a silent point, is the area under the ROC curve: 1 is always, 0.5 is chance.

    AUC = P(A_active > A_silent) + P(A_active = A_silent) / 2                                                     (1)

Two controls stand beside it, without which a figure above 0.5 shows little: the attention to the **other words** of the
instruction on the same points ("remove", "the"), and the AUC of **loudness**, the original's level at each point. An
event that is added to a recording is where the recording is loud; attention that follows loudness finds it without
knowing what it is.

Notebook 15.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lasslab.evaluation.batches import by_length
from lasslab.evaluation.metrics import bootstrap_interval
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.systems.attention import NOT_WORDS, Attention, find_tokens, record_attentions
from lasslab.systems.latent import LatentSystem

ACTIVE_DB = -30.0  # below its loudest point, a sound is taken to be silent
FEWEST = 0.1  # share of the points that must be active, and silent, for an AUC to say anything


def area_under_roc(*, score: Tensor, active: Tensor) -> float:
    """Equation (1).

    Args:
        score: (N,).
        active: what is to be found, (N,), of bool.

    Returns:
        0 to 1; NaN where all or no points are active.
    """
    from scipy.stats import rankdata

    n_active, n_silent = int(active.sum()), int((~active).sum())
    if not n_active or not n_silent:
        return math.nan
    ranks = torch.from_numpy(rankdata(score.double().numpy()))
    return float((ranks[active].sum() - n_active * (n_active + 1) / 2) / (n_active * n_silent))


def levels(waveform: Tensor, seconds: Tensor, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Level of a waveform around points in time.

    Args:
        waveform: (T,).
        seconds: of the points, equally spaced (N',).
        sample_rate: Hz.

    Returns:
        Root mean square in dB in the piece around each point (N',); what lies beyond the end counts as silence.
    """
    step = float(seconds[1] - seconds[0]) if len(seconds) > 1 else 2 * float(seconds[0])
    size = max(round(step * sample_rate), 1)
    padded = torch.nn.functional.pad(waveform, (0, max(size * len(seconds) - len(waveform), 0)))
    power = padded[: size * len(seconds)].unflatten(0, (len(seconds), size)).double().square().mean(-1)
    return 10 * power.clamp(min=1e-20).log10()


def active_points(waveform: Tensor, seconds: Tensor, *, threshold_db: float = ACTIVE_DB) -> Tensor:
    """Where a sound is active: within `threshold_db` of its loudest point; (N',) of bool. Silence is nowhere active."""
    level = levels(waveform, seconds)
    return (level > level.max() + threshold_db) & (level > -150)


def localise(attention: Attention, words: str, sound: Tensor, original: Tensor) -> dict[str, float]:
    """How well attention finds a sound, with the two controls.

    Args:
        attention: of one edit.
        words: what the instruction calls the sound.
        sound: by itself (T,).
        original: what the edit was made of (T,).

    Returns:
        "words", "other_words" and "loudness": AUC each; NaN where the sound is active, or silent, in less than a tenth
        of the points.

    Raises:
        ValueError: the instruction does not hold the words.
    """
    active = active_points(sound, attention.seconds)
    named = find_tokens(attention.tokens, words)
    others = [number for number, token in enumerate(attention.tokens) if number not in named and token not in NOT_WORDS]
    if not FEWEST <= active.double().mean() <= 1 - FEWEST:
        return dict.fromkeys(("words", "other_words", "loudness"), math.nan)
    heat = attention.heat_map()
    scores = {
        "words": heat[named].sum(0),
        "other_words": heat[others].sum(0) if others else torch.zeros_like(heat[0]),
        "loudness": levels(original, attention.seconds),
    }
    return {name: area_under_roc(score=score, active=active) for name, score in scores.items()}


def localisation(
    system: LatentSystem, edits: Iterable[Mapping[str, Any]], *, batch_size: int = 8, **settings: Any
) -> dict[str, Any]:
    """The claim, over a list of edits.

    Args:
        system: a flow editor or a diffusion editor.
        edits: `task`, `instruction`, `removed_words`, and the waveforms `original` and `removed` (T,) at 16 kHz; those
            that remove nothing are left out.
        batch_size: edits of one length that are recorded together, at most.
        **settings: of the call, such as n_steps.

    Returns:
        "per_item": the three AUC of each edit with its task; "by_task": task -> "n", and of each AUC the mean and its
        95 % interval, over edits where it is defined; "overall" likewise.
    """
    asked = [edit for edit in edits if edit.get("removed_words")]
    items: list[dict[str, Any]] = [{} for _ in asked]
    grouped = by_length(len(asked), asked.__getitem__, lambda edit: edit["original"].shape[-1], batch_size=batch_size)
    for numbers, batch in grouped:
        originals = torch.stack([edit["original"] for edit in batch])
        instructions = [edit["instruction"] for edit in batch]
        recorded = record_attentions(system, originals, instructions, listen=False, **settings)
        for number, edit, attention in zip(numbers, batch, recorded, strict=True):
            found = localise(attention, edit["removed_words"], edit["removed"], edit["original"])
            items[number] = {"task": edit["task"], "instruction": edit["instruction"], **found}
    tasks = sorted({item["task"] for item in items})
    return {
        "per_item": items,
        "overall": summarise(items),
        "by_task": {task: summarise([item for item in items if item["task"] == task]) for task in tasks},
    }


def summarise(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of what `localise` found in several edits.

    Args:
        items: its answers.

    Returns:
        "n", of how many edits the AUC are defined, and "n_all", of how many in all; for each AUC its mean, and under
        its name and "_interval" the ends of the 95 % interval of the mean; NaN where there is nothing to tell.
    """
    defined = [item for item in items if math.isfinite(item["words"])]
    summary: dict[str, Any] = {"n": len(defined), "n_all": len(items)}
    for name in ("words", "other_words", "loudness"):
        values = torch.tensor([item[name] for item in defined], dtype=torch.float64)
        summary[name] = float(values.mean()) if len(values) else math.nan
        summary[f"{name}_interval"] = list(bootstrap_interval(values)) if len(values) > 1 else [math.nan, math.nan]
    return summary
