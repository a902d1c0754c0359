"""Editing: a recording and an instruction in, the recording with that one change out.

    original -> latent x_orig;  x_start = (1 - (1 - sigma_min) t_start) noise + t_start x_orig                    (4)
    x_(t + dt) = x_t + dt v(x_t, x_orig, t, E_I)   from t = t_start to 1                                          (5)
    latent -> waveform at the original's level

Numbers as in RFM-Editing. The network is told the whole original at every step, so it can copy what the instruction
does not name; and a little of the original is in the state it starts from. With `keep_db` above 0, what the edit hardly
changes is the recording itself and not made anew (ours, see `lasslab.systems.keeping`); with `in_turn`, a replacement
is a removal and then an addition (ours, see `TripletEditor`). Level, length, channels, seeds and batches are those of
every system that generates latents, see `lasslab.systems.latent`; the level is the original's.

- `FlowEditor`: RFM-Editing, trained on triplets.
- `DiffusionEditor`: AUDIT, the same network and triplets, trained as a diffusion.
- `InversionEditor`: needs no triplets. A flow that makes sounds from words is run backwards on the original under the
  words for what is there, then forwards under the words for what shall be there.

Every editor is called `editor(waveform, instruction, *, sample_rate=16_000, generator=None, ...)`. An instruction in
which no task is recognised is carried out all the same, with a warning that says how it was read.

References: Gao et al., RFM-Editing, 2025; Wang et al., AUDIT, NeurIPS 2023; Song, Meng and Ermon, DDIM, ICLR 2021
(inversion). Notebooks 14 and 15.
"""

import copy
import os
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from lasslab import diffusion, flow
from lasslab.data.instructions import read_instruction, split_replacement
from lasslab.flow import Field, solve, time_grid
from lasslab.models.text import TextEmbedding, check_instruction
from lasslab.models.velocity import without_words
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.systems.generative import FIELDS
from lasslab.systems.latent import LATENT_FIELDS, LaterStart, Observer, load_latent_system, repeat
from lasslab.systems.request import check_samples, choose_device, open_checkpoint
from lasslab.systems.separation import ROUND_TRIP, load_separator

DEFAULT_EDITOR = "rfm-editing-lab"
N_STEPS = 25  # of an editor, unless its checkpoint says otherwise
T_START = 0.01  # of a flow editor: RFM-Editing's


class Editor(Protocol):
    """What every editing system is."""

    name: str

    def __call__(
        self,
        waveform: Tensor,
        instruction: str,
        *,
        sample_rate: int = SAMPLE_RATE,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(T,) or (C, T) in, the same out."""


class UnknownTask(UserWarning):
    """An instruction in which no task was recognised."""


class LatentEditor(LaterStart):
    """What the editors share: the call, and a start that is not all noise.

    Args:
        network, vae, vocoder, text_encoder, n_steps, guidance_scale, keep_db, window_seconds, name: see
            `lasslab.systems.latent.LatentSystem`.
        t_start: time in [0, 1) at which sampling starts; 0 is noise alone, the nearer to 1 the more stays as it is.

    Raises:
        ValueError: VAE and vocoder read different mels, or a setting is out of range.
    """

    def __init__(self, *args: Any, n_steps: int = N_STEPS, **settings: Any) -> None:
        super().__init__(*args, n_steps=n_steps, **settings)

    def check_words(self, words: str) -> str:
        """An instruction as the text encoder shall see it; warns where no task is recognised."""
        instruction = check_instruction(words)
        _tell(words)
        return instruction

    def __call__(
        self,
        waveform: Tensor,
        instruction: str,
        *,
        sample_rate: int = SAMPLE_RATE,
        generator: torch.Generator | None = None,
        n_steps: int | None = None,
        guidance_scale: float | None = None,
        t_start: float | None = None,
        keep_db: float | None = None,
        in_turn: bool | None = None,
        progress: bool = False,
        observe: Observer | None = None,
    ) -> Tensor:
        """Edit one recording.

        Args:
            waveform: original, shape (T,) or (C, T), at least one frame long.
            instruction: what shall change, in words.
            sample_rate: Hz.
            generator: of the noise, on the CPU; seed 0 when left out.
            n_steps, guidance_scale, t_start, keep_db, in_turn: as in the constructor.
            progress: show a bar over the steps.
            observe: called with each time and the latents (C, Z, N', M') at it.

        Returns:
            The edited recording: shape, type, device, rate and level of waveform. Silence stays silence.

        Raises:
            ValueError: unusable or too short samples, an empty or far too long instruction, an impossible rate or
                setting.
        """
        return self.call(
            waveform,
            instruction,
            sample_rate,
            generator,
            n_steps=n_steps,
            guidance_scale=guidance_scale,
            t_start=t_start,
            keep_db=keep_db,
            in_turn=in_turn,
            progress=progress,
            observe=observe,
        )

    def edit_batch(
        self,
        originals: Tensor,
        instructions: Sequence[str],
        *,
        sample_rate: int = SAMPLE_RATE,
        generators: Sequence[torch.Generator] | None = None,
        n_steps: int | None = None,
        guidance_scale: float | None = None,
        t_start: float | None = None,
        keep_db: float | None = None,
        in_turn: bool | None = None,
        progress: bool = False,
        observe: Observer | None = None,
    ) -> Tensor:
        """Edit several mono recordings of one length at once, each by its own instruction.

        Args:
            originals: shape (B, T).
            instructions: B sentences.
            sample_rate: Hz.
            generators: one for each recording, on the CPU; seed 0 for each when left out.
            n_steps, guidance_scale, t_start, keep_db, in_turn, progress, observe: as in `__call__`. In turn,
                replacements are a batch of their own, behind the others.

        Returns:
            Edited recordings, shape (B, T), the same as from B calls up to rounding.

        Raises:
            ValueError: see `__call__`; or another number of instructions or generators than recordings.
        """
        return self.call_batch(
            originals,
            instructions,
            sample_rate,
            generators,
            n_steps=n_steps,
            guidance_scale=guidance_scale,
            t_start=t_start,
            keep_db=keep_db,
            in_turn=in_turn,
            progress=progress,
            observe=observe,
        )


class Turns(NamedTuple):
    """Edits of a batch that take the same number of turns.

    Attributes:
        rows: which of the batch's sentences.
        text: token embeddings of as many sentences, for each turn.
    """

    rows: list[int]
    text: list[TextEmbedding]


class TripletEditor(LatentEditor):
    """An editor that was trained to follow instructions: what RFM-Editing and AUDIT share.

    A replacement asks for two things at once, and a small network hears one of them. With `in_turn` it is asked for one
    after the other, in as many steps altogether:

        x_1 = the edit of x_orig by "remove A", in half the steps
        x_2 = the edit of x_1 by "add B", in the other half

    All in the latent space: VAE and vocoder are called once. Where the instruction is no replacement, or one whose
    sounds are not found in it (`lasslab.data.instructions.split_replacement`), nothing is different.

    Args:
        network, vae, vocoder, text_encoder, n_steps, guidance_scale, keep_db, window_seconds, name, t_start: see
            `LatentEditor`. Its text encoder has the adapter that was trained with the network.
        in_turn: remove first, then add, where a sound is replaced; False does both at once, as published.
    """

    settings = (*LatentEditor.settings, "in_turn")

    def __init__(self, *args: Any, in_turn: bool = False, **settings: Any) -> None:
        self.in_turn = in_turn
        super().__init__(*args, **settings)

    def read(self, words: Sequence[str]) -> TextEmbedding | list[Turns]:
        """Token embeddings of B sentences; in turn, those of each turn where there are several."""
        turns = [split_replacement(each) if self.in_turn else (each,) for each in words]
        encode = super().read
        counts = sorted({len(each) for each in turns})
        if counts == [1]:
            return encode(words)
        found = []
        for n_turns in counts:
            rows = [row for row, each in enumerate(turns) if len(each) == n_turns]
            by_turn = zip(*(turns[row] for row in rows), strict=True)
            found.append(Turns(rows, [encode(sentences) for sentences in by_turn]))
        return found

    def n_calls(self, text: TextEmbedding | list[Turns]) -> int:
        """Calls of the network for what `read` gave."""
        return super().n_calls(text) * (1 if isinstance(text, TextEmbedding) else len(text))

    def generate(
        self,
        told: Tensor,
        text: TextEmbedding | list[Turns],
        generators: Sequence[torch.Generator] | None = None,
        *,
        n_steps: int,
        guidance_scale: float = 1.0,
        observe: Observer | None = None,
    ) -> Tensor:
        """Latents (B, C, Z, N', M') of the edit of those of the originals; see `LatentSystem.generate`."""
        if isinstance(text, TextEmbedding):
            return super().generate(
                told, text, generators, n_steps=n_steps, guidance_scale=guidance_scale, observe=observe
            )
        generators = generators or [torch.Generator().manual_seed(0) for _ in told]
        edited = torch.empty_like(told)
        for rows, sentences in text:
            part, left = told[rows], n_steps
            for turn, sentence in enumerate(sentences):
                steps = max(left // (len(sentences) - turn), 1)
                left -= steps
                part = super().generate(
                    part,
                    sentence,
                    [generators[row] for row in rows],
                    n_steps=steps,
                    guidance_scale=guidance_scale,
                    observe=observe,
                )
                observe = _without_first(observe)
            edited[rows] = part
        return edited


class FlowEditor(TripletEditor):
    """RFM-Editing: a rectified flow, told the original, from nearly noise to the edited latent.

    Args:
        network, vae, vocoder, text_encoder, n_steps, guidance_scale, keep_db, window_seconds, name, t_start, in_turn:
            see `TripletEditor`.

    Notebook: 14.
    """

    process = "flow"

    def __init__(self, *args: Any, t_start: float = T_START, **settings: Any) -> None:
        super().__init__(*args, t_start=t_start, **settings)

    def sample(
        self, field: Field, noise: Tensor, told: Tensor, n_steps: int, *, observe: Observer | None = None
    ) -> Tensor:
        """Equations (4) and (5)."""
        start = flow.interpolate(noise, told, self.t_start)
        return solve(field, start, time_grid(n_steps, start=self.t_start), observe=observe)


class DiffusionEditor(TripletEditor):
    """AUDIT: the same network, trained to predict the noise; from noise alone unless `t_start` says otherwise.

    Args:
        network, vae, vocoder, text_encoder, n_steps, guidance_scale, keep_db, window_seconds, name, t_start, in_turn:
            see `TripletEditor`.

    Notebook: 14.
    """

    process = "diffusion"

    def sample(
        self, field: Field, noise: Tensor, told: Tensor, n_steps: int, *, observe: Observer | None = None
    ) -> Tensor:
        """DDIM from `t_start` to 1."""
        start = noise if self.t_start == 0 else diffusion.interpolate(noise, told, self.t_start)
        return diffusion.sample(field, start, n_steps, t_start=self.t_start, observe=observe)


class InversionEditor(LatentEditor):
    """Editing without triplets: a flow from words to sound is run backwards and forwards again.

        x_start = original, along the flow of the words for what is there, from t = 1 down to t_start
        edited  = x_start, along the flow of the words for what shall be there, from t_start up to 1

    The network is one that was trained to make a sound out of words alone, told silence in place of a mixture. With the
    same words both ways and small steps, the original comes back. An instruction is turned into the two sentences by
    rule: "add B" goes from no words to B, "remove A" from A to no words, "replace A with B" from A to B; an instruction
    that cannot be read names what shall be there. The first sentence is also the null branch of the guidance, which
    therefore leads away from what is there.

    No noise is drawn: seeds do not matter. There are `n_steps` steps each way.

    Args:
        network, vae, vocoder, text_encoder, n_steps, guidance_scale, window_seconds, name: see `LatentEditor`.
        t_start: where to turn; the nearer to 1, the more stays as it is.

    Notebook: 14.
    """

    passes = 2
    process = "flow"

    def __init__(self, *args: Any, t_start: float = 0.3, **settings: Any) -> None:
        self.captions: tuple[str, str] | None = None
        super().__init__(*args, t_start=t_start, **settings)

    def between(self, source: str, target: str) -> "InversionEditor":
        """The same editor with the two sentences given, whatever the instruction says; "" is no words.

        Args:
            source: what is there.
            target: what shall be there.

        Returns:
            A copy, networks shared.
        """
        other = copy.copy(self)
        other.captions = (source, target)
        return other

    def read(self, words: Sequence[str]) -> tuple[TextEmbedding, TextEmbedding]:
        """Token embeddings of B sentences for what is there, and of B for what shall be there."""
        pairs = [self.captions or in_words(check_instruction(each)) for each in words]
        if self.captions is None:
            for each in words:
                _tell(each)
        sentences = [source for source, _ in pairs] + [target for _, target in pairs]
        text = self.text_encoder([sentence or "nothing" for sentence in sentences]).to(self.device)
        unsaid = torch.tensor([not sentence for sentence in sentences], device=self.device)
        text = without_words(text, unsaid)
        return tuple(TextEmbedding(*half) for half in zip(*(part.chunk(2) for part in text), strict=True))

    def generate(
        self,
        told: Tensor,
        text: tuple[TextEmbedding, TextEmbedding],
        generators: Sequence[torch.Generator] | None = None,
        *,
        n_steps: int,
        guidance_scale: float = 1.0,
        observe: Observer | None = None,
    ) -> Tensor:
        """Latents (B, C, Z, N', M') of the edit of those of the originals; see `LatentSystem.generate`."""
        n_channels = told.shape[1]
        source, target = (repeat(words, n_channels) for words in text)
        original = told.flatten(0, 1)
        silence = self.codec.vae.silent_latent(original.shape[2]).expand_as(original)
        backwards = self.field(silence, source, 1.0)
        forwards = self.field(silence, target, guidance_scale, against=source)
        turn = solve(backwards, original, time_grid(n_steps, start=1.0, stop=self.t_start), observe=observe)
        made = solve(forwards, turn, time_grid(n_steps, start=self.t_start), observe=_without_first(observe))
        return made.unflatten(0, (-1, n_channels))


def in_words(instruction: str) -> tuple[str, str]:
    """What is there and what shall be there, by rule, of an instruction; "" where it does not say."""
    found = read_instruction(instruction)
    if found.task is None or not (found.removed or found.added):
        return "", instruction
    return found.removed, found.added


def _without_first(observe: Observer | None) -> Observer | None:
    """An observer that is not told the state from which the second half starts: it has seen it."""
    if observe is None:
        return None
    seen: list[bool] = []

    def watch(t: Tensor, x: Tensor) -> None:
        if seen:
            observe(t, x)
        seen.append(True)

    return watch


def _tell(instruction: str) -> None:
    """Warn where no task was recognised; the edit is attempted all the same."""
    found = read_instruction(instruction)
    if found.task is None:
        warnings.warn(
            f"the instruction {instruction!r} was read as {found}: it is passed on as it stands; add, remove and "
            "replace are what editors were trained for",
            UnknownTask,
            stacklevel=2,
        )


class Unedited:
    """The original as it is: the floor of every editor."""

    name = "original"

    def __call__(
        self,
        waveform: Tensor,
        instruction: str,
        *,
        sample_rate: int = SAMPLE_RATE,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The waveform, copied; what every editor refuses is refused."""
        check_samples(waveform, sample_rate, n_fft=1)
        check_instruction(instruction)
        return waveform.clone()


EDITOR_FIELDS: dict[str, Any] = LATENT_FIELDS | {
    "system": "flow-editor",
    "n_steps": N_STEPS,
    "t_start": T_START,
    "in_turn": False,
    "adapter": True,
    "trained_text_parameters": [],
}

#: "system" of a checkpoint's config.json -> what it is
EDITORS: dict[str, type[LatentEditor]] = {"flow-editor": FlowEditor, "diffusion-editor": DiffusionEditor}


def load_editor(name_or_dir: str | os.PathLike[str] = DEFAULT_EDITOR, *, device: str = "auto") -> Any:
    """Load an editor by name.

    Args:
        name_or_dir: a checkpoint under `checkpoint_root()`, or a folder; the checkpoint of a flow for separation edits
            by inversion. Or "original" (a floor) or "round-trip" (a ceiling).
        device: "auto", "cpu", "cuda" ...

    Returns:
        The editor.

    Raises:
        ValueError: an unknown name; a missing, broken or unfitting file; an unusable device. One line that names the
            file and the remedy.

    Notebook: 14.
    """
    if str(name_or_dir) == Unedited.name:
        return Unedited()
    if str(name_or_dir) == ROUND_TRIP:
        return load_separator(ROUND_TRIP, device=device)
    others = f"floor and ceiling: {Unedited.name}, {ROUND_TRIP}"
    folder, config = open_checkpoint(name_or_dir, kinds=(*EDITORS, "flow"), what="an editor", others=others)
    if config["system"] == "flow":  # of its settings, the window alone is an editor's too
        editor, fields, settings = InversionEditor, FIELDS["flow"], ("window_seconds",)
    else:
        editor, fields, settings = EDITORS[config["system"]], EDITOR_FIELDS, None
    return load_latent_system(editor, folder, config, choose_device(device), fields=fields, settings=settings)
