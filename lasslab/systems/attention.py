"""Where a network listens while it samples: its cross-attention, from every call, in one table.

    A[s, n, l] = mean over layers, heads and the mel axis of the attention that the point n in time pays to token l at
    step s;   sum_l A[s, n, l] = 1

Layers that see a coarser grid are brought to the latent's own points in time. Of it, RFM-Editing shows the trajectory
of a token over audio time and steps (its Fig. 2) and the mean over steps, token by time (Fig. 3). Every row shares one
unit of attention among all tokens, those that begin and end a sentence included, so what a token has, another lacks: a
high value says "rather this token than the others", not "here it is". Whether it says where a sound is can be measured,
see `lasslab.evaluation.localisation`.

Notebook 15.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lasslab.models.text import normalise_query
from lasslab.models.vae import REDUCTION
from lasslab.models.velocity import capture_attention
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.systems.latent import LARGEST_BATCH, LatentSystem

NOT_WORDS = ("[CLS]", "[SEP]", "</s>", "<pad>", "[PAD]")


@dataclass(frozen=True)
class Attention:
    """What was recorded of one sample.

    Args:
        tokens: the pieces of the sentence as the text encoder sees them, L.
        times: of the calls, (S,), from noise to data.
        seconds: of the points in time, (N',): the middle of each.
        weights: A, (S, N', L).
        made: the waveform that was made, (T,); None where nobody was to listen.
    """

    tokens: list[str]
    times: Tensor
    seconds: Tensor
    weights: Tensor
    made: Tensor | None

    def of(self, words: str) -> Tensor:
        """Attention to some words of the sentence, their pieces added up.

        Args:
            words: as they stand in the sentence.

        Returns:
            (S, N').

        Raises:
            ValueError: the sentence does not hold them.
        """
        return self.weights[..., find_tokens(self.tokens, words)].sum(-1)

    def heat_map(self) -> Tensor:
        """Mean over the steps, token by time (L, N'): RFM-Editing's Fig. 3."""
        return self.weights.mean(0).T


def record_attention(
    system: LatentSystem,
    waveform: Tensor,
    words: str,
    *,
    sample_rate: int = SAMPLE_RATE,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> Attention:
    """Run a system on one mono recording and keep its cross-attention.

    The maps come from the branch that is told the words, also under guidance. A recording that is longer than the
    system's window is seen in one all the same, so that every point has one map.

    Args:
        system: an editor or a separator that samples.
        waveform: (T,).
        words: query or instruction.
        sample_rate: Hz.
        generator: of the noise.
        **settings: of the call, such as n_steps and guidance_scale.

    Returns:
        Its attention, and what it made.

    Raises:
        ValueError: more than one channel, a system without words of its own, or what the system refuses.
    """
    if waveform.dim() != 1:
        raise ValueError(f"expected one channel (T,), got {tuple(waveform.shape)}: choose one")
    generators = None if generator is None else [generator]
    return record_attentions(
        system, waveform[None], [words], sample_rate=sample_rate, generators=generators, **settings
    )[0]


def record_attentions(
    system: LatentSystem,
    waveforms: Tensor,
    words: Sequence[str],
    *,
    sample_rate: int = SAMPLE_RATE,
    generators: Sequence[torch.Generator] | None = None,
    listen: bool = True,
    **settings: Any,
) -> list[Attention]:
    """`record_attention` of several recordings of one length at once, which takes less time.

    Args:
        system: an editor or a separator that samples.
        waveforms: (B, T), at most 32 of them.
        words: B queries or instructions.
        sample_rate: Hz.
        generators: one for each recording.
        listen: whether VAE and vocoder make waveforms at the end, which can take as long as the sampling.
        **settings: of the call, such as n_steps and guidance_scale.

    Returns:
        B, the same as one by one up to rounding.

    Raises:
        ValueError: too many at once, a system without words of its own, or what the system refuses.
    """
    if system.passes != 1 or not hasattr(system.text_encoder.encoder, "tokens"):
        raise ValueError(f"{system.name} has no single sample that is told these words: use a flow or a diffusion")
    if len(waveforms) > LARGEST_BATCH:
        raise ValueError(f"at most {LARGEST_BATCH} recordings at once, got {len(waveforms)}: record them in parts")
    whole = copy.copy(system)
    if "in_turn" in system.settings:
        settings["in_turn"] = False  # the words that are looked at are those of the whole sentence
    whole.window_seconds = max(system.window_seconds, waveforms.shape[-1] / sample_rate + 1)
    if not listen:
        whole.to_waveforms = _nothing_to_hear
    times: list[tuple[Tensor, int]] = []
    with capture_attention(whole.network) as maps:
        made = whole.call_batch(
            waveforms,
            words,
            sample_rate,
            generators,
            progress=False,
            observe=lambda t, x: times.append((t.detach().cpu(), x.shape[2])),
            **settings,
        )
    n_points, n_steps = times[0][1], len(times) - 1
    n_layers = len(maps) // n_steps
    steps = [
        torch.stack([_in_time(each.weights[: len(words)], n_points) for each in maps[first : first + n_layers]]).mean(0)
        for first in range(0, len(maps), n_layers)
    ]
    weights = torch.stack(steps, dim=1)  # (B, S, N', L)
    hop = whole.codec.vae.mel.hop_length * REDUCTION / SAMPLE_RATE
    tokens = [system.text_encoder.encoder.tokens(normalise_query(each)) for each in words]
    return [
        Attention(
            tokens=pieces,
            times=torch.stack([t for t, _ in times[:-1]]),
            seconds=(torch.arange(n_points) + 0.5) * hop,
            weights=of_one[..., : len(pieces)],  # beyond is padding, to which nobody attends
            made=waveform if listen else None,
        )
        for pieces, of_one, waveform in zip(tokens, weights, made, strict=True)
    ]


def _nothing_to_hear(made: Tensor, told: Tensor, waveforms: Tensor, gain: Tensor) -> Tensor:
    """In place of `LatentSystem.to_waveforms`: silence (B, C, T)."""
    return torch.zeros_like(waveforms)


def _in_time(weights: Tensor, n_points: int) -> Tensor:
    """A layer's weights (B, heads, N_l, M_l, L) over time (B, N', L)."""
    over_time = weights.mean(dim=(1, 3))
    return F.interpolate(over_time.mT, size=n_points, mode="linear").mT


def find_tokens(tokens: list[str], words: str) -> list[int]:
    """Numbers of the pieces that spell some words.

    Args:
        tokens: pieces of a sentence, of WordPiece ("##" continues a word) or SentencePiece ("▁" begins one).
        words: as they stand in the sentence, after normalisation.

    Returns:
        Consecutive numbers; the first place where they stand.

    Raises:
        ValueError: no word, or the sentence does not hold them.
    """
    wanted = normalise_query(words).replace(" ", "")
    plain = ["" if token in NOT_WORDS else token.removeprefix("##").replace("▁", "") for token in tokens]
    for first in range(len(tokens)):
        spelt = ""
        for last in range(first, len(tokens)):
            spelt += plain[last]
            if spelt == wanted and spelt and plain[first]:
                return list(range(first, last + 1))
            if not wanted.startswith(spelt):
                break
    raise ValueError(f"{words!r} is not in the sentence {' '.join(tokens)!r}: name words that stand in it")


def normalised(weights: Tensor) -> Tensor:
    """Attention over time brought to 0 ... 1, each row by itself, as in RFM-Editing's Fig. 2.

    Args:
        weights: (..., N').

    Returns:
        (..., N'); a row that does not change is 0.
    """
    low, high = weights.amin(-1, keepdim=True), weights.amax(-1, keepdim=True)
    return (weights - low) / (high - low).clamp(min=torch.finfo(weights.dtype).tiny)
