"""What every system that generates latents shares: everything but what it is asked and how a sample is drawn.

    waveform at one level -> log-mel -> VAE -> latent that the network is told
    noise -> step by step, told that latent and the words -> VAE -> log-mel -> vocoder -> waveform at the level it had

- Level: the recording is brought to -20 dB for the networks, and what they make is brought back by the same gain: a
  gain of the input is a gain of the output. Silence comes back as silence, also that of one channel.
- Length: a recording longer than a window is sampled as a whole, in windows that agree at every step (see
  `lasslab.systems.windows`). The noise belongs to the place: the first ten seconds of a long recording start from the
  same noise as the same ten seconds alone.
- Channels: each is made by itself from the same noise, at one level for all. Equal channels come out equal.
- Seeds: the same generator, the same result; without one, seed 0.
- What is left alone: with `keep_db` above 0, what the network hardly changes is the recording itself and not made anew
  (see `lasslab.systems.keeping`).
- Batches: several recordings of one length go into one call of the network; with guidance, both branches too.

`generative` holds the separators, `editing` the editors.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from lasslab.flow import Field, guided
from lasslab.models.bigvgan import load_vocoder
from lasslab.models.checkpoints import (
    CONFIG_FILE,
    build_config,
    build_network,
    check_fields,
    load_weights,
    weights_sha256,
)
from lasslab.models.lora import load_adapter
from lasslab.models.text import TextCache, TextEmbedding, TextEncoder, check_query, load_text_encoder
from lasslab.models.vae import REDUCTION, MelVAE, VAEConfig, load_vae
from lasslab.models.velocity import VelocityConfig, VelocityNetwork, condition_on
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.signal.levels import SILENT_DB
from lasslab.systems.codec import LatentCodec
from lasslab.systems.keeping import change_db, keep_unchanged
from lasslab.systems.request import at_model_rate, check_samples, check_text_width
from lasslab.systems.windows import Windows

NOISE_BLOCK = 64  # points in time of one draw of noise
LARGEST_BATCH = 32  # windows in one call of the network
MOST_STEPS = 10_000  # a slip of the keyboard beyond: a sample changes no more after a hundred
MOST_GUIDANCE = 100.0  # likewise; 1 to 10 is usual, and far above it latents grow beyond what a VAE can decode
LONGEST_WINDOW = 3600.0  # seconds; attention over an hour fits into no memory

#: called with each time and the latents at it, as `observe` of `lasslab.flow.solve`
Observer = Callable[[Tensor, Tensor], None]


class LatentSystem:
    """A network that generates latents, between a VAE and a vocoder.

    Args:
        network: velocity network, or one that predicts the noise.
        vae: latent space it was trained in.
        vocoder: log-mel (B, M, N) -> waveform (B, N hop), with `.mel`.
        text_encoder: `load_text_encoder(...)`, or a `TextCache` to share; each distinct sentence is encoded once.
        n_steps: calls of the network, unless a call says otherwise.
        guidance_scale: 1 is none.
        keep_db: where what is made differs from the recording by less, in the log-mel, the recording is handed on as it
            is, see `lasslab.systems.keeping`; 0 makes all of it anew, as published.
        window_seconds: longest piece that the network sees at once.
        name: how tables call the system.

    Raises:
        ValueError: VAE and vocoder read different mels, the network answers for another process, or a setting is out of
            range.
    """

    #: settings that a call, or `with_sampling`, may change
    settings: tuple[str, ...] = ("n_steps", "guidance_scale", "keep_db")
    #: a long recording needs no cross-fades: it is sampled as a whole, see `lasslab.systems.streaming`
    any_length = True
    #: root mean square, dB of full scale, below which a recording is silence to it
    silent_db = SILENT_DB
    #: how often a sample walks from one end of time to the other
    passes = 1
    #: what `sample` takes the network's answer for, of `lasslab.models.velocity.ANSWERS`
    process: str

    def __init__(
        self,
        network: VelocityNetwork,
        vae: MelVAE,
        vocoder: Any,
        text_encoder: TextEncoder | TextCache,
        *,
        n_steps: int = 10,
        guidance_scale: float = 1.0,
        keep_db: float = 0.0,
        window_seconds: float = 10.24,
        name: str = "generative",
    ) -> None:
        self.codec = LatentCodec(vae, vocoder)
        if vae.config.latent_channels != network.config.latent_channels:
            raise ValueError(
                f"the VAE has {vae.config.latent_channels} latent channels, the network expects "
                f"{network.config.latent_channels}: use the VAE it was trained with"
            )
        if network.config.copies not in ("", self.process):
            raise ValueError(
                f"the network's copies says {network.config.copies!r}, {type(self).__name__} samples by "
                f"{self.process!r}: use the system that it was trained for"
            )
        if not 0 < window_seconds <= LONGEST_WINDOW:
            raise ValueError(
                f"window_seconds must be above 0 and at most {LONGEST_WINDOW:g} seconds, got {window_seconds}: "
                "use the length that the network was trained on"
            )
        self.network = network.eval().to(memory_format=torch.channels_last)
        self.text_encoder = text_encoder if isinstance(text_encoder, TextCache) else TextCache(text_encoder)
        self.n_steps, self.guidance_scale, self.keep_db = n_steps, guidance_scale, keep_db
        self.window_seconds, self.name = window_seconds, name
        self.check_settings()

    def check_settings(self) -> None:
        """Refuse a setting that is out of range."""
        if not isinstance(self.n_steps, int) or not 1 <= self.n_steps <= MOST_STEPS:
            raise ValueError(f"n_steps must be a whole number from 1 to {MOST_STEPS}, got {self.n_steps}: 10 is usual")
        if not 0 <= self.guidance_scale <= MOST_GUIDANCE:
            raise ValueError(
                f"guidance_scale must be 0 to {MOST_GUIDANCE:g}, got {self.guidance_scale}: 1 is no guidance"
            )
        if not 0 <= self.keep_db < math.inf:
            raise ValueError(f"keep_db is a change in dB, 0 or more, got {self.keep_db}: 0 makes all anew")

    def with_sampling(self, **settings: Any) -> Self:
        """The same system, networks shared, with other settings where they are given.

        Args:
            **settings: of `settings`, see the constructor; None leaves one as it is.

        Returns:
            A copy; its name says the steps where they are others.

        Raises:
            ValueError: a setting is out of range, or one that this system does not have.
        """
        other = copy.copy(self)
        for name, value in settings.items():
            if value is None:
                continue
            if name not in self.settings:
                raise ValueError(f"{self.name} has no setting {name}: it has {', '.join(self.settings)}")
            setattr(other, name, value)
        other.check_settings()
        if other.n_steps != self.n_steps:
            other.name = f"{self.name}, {other.n_steps} steps"
        return other

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.network.parameters()).device

    def check_words(self, words: str) -> str:
        """A sentence as the text encoder shall see it; refuses what cannot be one."""
        return check_query(words)

    def read(self, words: Sequence[str]) -> Any:
        """What `generate` is told of B sentences."""
        return self.text_encoder([self.check_words(each) for each in words]).to(self.device)

    def n_calls(self, text: Any) -> int:
        """Calls of the network for what `read` gave."""
        return self.passes * self.n_steps

    def sample(
        self, field: Field, noise: Tensor, told: Tensor, n_steps: int, *, observe: Observer | None = None
    ) -> Tensor:
        """Latents (B, Z, N', M') from noise, `n_steps` calls of the field; `told` is what the network is told."""
        raise NotImplementedError

    def call(
        self,
        waveform: Tensor,
        words: str,
        sample_rate: int,
        generator: torch.Generator | None,
        *,
        progress: bool,
        observe: Observer | None,
        **settings: Any,
    ) -> Tensor:
        """One recording (T,) or (C, T) and one sentence -> the same shape, type, device, rate and level."""
        check_samples(waveform, sample_rate, n_fft=self.codec.n_fft)
        channels = waveform.reshape(1, -1, waveform.shape[-1])  # (1, C, T)
        generators = None if generator is None else [generator]
        made = self.with_sampling(**settings)._run(channels, [words], sample_rate, generators, progress, observe)
        return made.reshape(waveform.shape)

    def call_batch(
        self,
        waveforms: Tensor,
        words: Sequence[str],
        sample_rate: int,
        generators: Sequence[torch.Generator] | None,
        *,
        progress: bool,
        observe: Observer | None,
        **settings: Any,
    ) -> Tensor:
        """Mono recordings (B, T) and B sentences -> (B, T), the same as from B calls up to rounding."""
        if waveforms.dim() != 2 or len(words) != len(waveforms):
            raise ValueError(
                f"expected recordings (B, T) and B sentences, got {tuple(waveforms.shape)} and {len(words)}"
            )
        if generators is not None and len(generators) != len(waveforms):
            raise ValueError(f"expected a generator for each of {len(waveforms)} recordings, got {len(generators)}")
        check_samples(waveforms, sample_rate, n_fft=self.codec.n_fft)
        system = self.with_sampling(**settings)
        return system._run(waveforms[:, None], words, sample_rate, generators, progress, observe)[:, 0]

    def _run(
        self,
        waveforms: Tensor,
        words: Sequence[str],
        sample_rate: int,
        generators: Sequence[torch.Generator] | None,
        progress: bool,
        observe: Observer | None,
    ) -> Tensor:
        """(B, C, T) and B sentences -> (B, C, T)."""
        # Outside inference mode: the cache may be shared with a training run, which needs ordinary tensors.
        text = self.read(words)

        def process(inside: Tensor) -> Tensor:
            latent, gain = self.codec.encode(inside.to(self.device))
            with _Bar(self.n_calls(text), observe, progress) as watch:
                made = self.generate(
                    latent,
                    text,
                    generators,
                    n_steps=self.n_steps,
                    guidance_scale=self.guidance_scale,
                    observe=watch,
                )
            return self.to_waveforms(made, latent, inside, gain)

        with torch.inference_mode():
            made = at_model_rate(process, waveforms, sample_rate)
        return made.clone().to(waveforms)  # ordinary tensors again: the caller may change them in place

    def to_waveforms(self, made: Tensor, told: Tensor, waveforms: Tensor, gain: Tensor) -> Tensor:
        """What is heard of the latents made, and the recording itself where `keep_db` says so.

        Args:
            made: (B, C, Z, N', M').
            told: latents of the recordings, as many.
            waveforms: the recordings (B, C, T) at 16 kHz.
            gain: (B, C, 1), see `LatentCodec.encode`.

        Returns:
            Waveforms (B, C, T).
        """
        log_mel = self.codec.log_mel(made)
        heard = self.codec.vocode(log_mel, gain, n_samples=waveforms.shape[-1])
        if not self.keep_db:
            return heard
        kept = keep_unchanged(
            heard.flatten(0, 1),
            waveforms.to(heard).flatten(0, 1),
            change_db(log_mel, self.codec.log_mel(told)).flatten(0, 1),
            keep_db=self.keep_db,
            mel=self.codec.vae.mel,
            **self.codec.pieces(REDUCTION),
        )
        return kept.unflatten(0, heard.shape[:2])

    def generate(
        self,
        told: Tensor,
        text: Any,
        generators: Sequence[torch.Generator] | None = None,
        *,
        n_steps: int,
        guidance_scale: float = 1.0,
        observe: Observer | None = None,
    ) -> Tensor:
        """Latents made for the latents of recordings.

        Args:
            told: (B, C, Z, N', M').
            text: what `read` gave of B sentences, their token embeddings.
            generators: one for each recording, on the CPU; seed 0 for each when left out.
            n_steps, guidance_scale: see the constructor.
            observe: called with each time and the latents (B C, Z, N', M') at it.

        Returns:
            Latents (B, C, Z, N', M').
        """
        n_channels = told.shape[1]
        generators = generators or [torch.Generator().manual_seed(0) for _ in told]
        noise = torch.stack([draw_noise(told.shape[2:], generator) for generator in generators])
        noise = noise.to(told)[:, None].expand_as(told).flatten(0, 1)
        told = told.flatten(0, 1)
        field = self.field(told, repeat(text, n_channels), guidance_scale)
        return self.sample(field, noise, told, n_steps, observe=observe).unflatten(0, (-1, n_channels))

    def field(
        self, told: Tensor, text: TextEmbedding, guidance_scale: float, *, against: TextEmbedding | None = None
    ) -> Field:
        """What a sample follows: the guided network, in windows where the recording is longer than one.

        Args:
            told: latents (B, Z, N', M').
            text: token embeddings of B sentences.
            guidance_scale: see the constructor.
            against: words of the null branch, as long as `text`; none when left out.

        Returns:
            The field, of states like `told`.
        """
        window = max(self.codec.points(self.window_seconds), 4)
        windows = Windows(told.shape[2], window=window, overlap=window // 4)
        cut = windows.cut(told)
        text, against = (None if words is None else repeat_whole(words, len(windows)) for words in (text, against))
        fields = []
        for first in range(0, len(cut), LARGEST_BATCH):
            rows = slice(first, first + LARGEST_BATCH)
            condition, null = condition_on(cut[rows], TextEmbedding(*(part[rows] for part in text)))
            if against is not None:
                null, _ = condition_on(cut[rows], TextEmbedding(*(part[rows] for part in against)))
            fields.append(guided(self.network, condition, null, guidance_scale))
        if len(fields) == len(windows) == 1:
            return fields[0]

        def field(x: Tensor, t: Tensor) -> Tensor:
            parts = windows.cut(x).split(LARGEST_BATCH)
            return windows.join(torch.cat([each(part, t) for each, part in zip(fields, parts, strict=True)]))

        return field


class LaterStart(LatentSystem):
    """A system whose sampling need not start at t = 0.

    Args:
        network, vae, vocoder, text_encoder, n_steps, guidance_scale, keep_db, window_seconds, name: see `LatentSystem`.
        t_start: time in [0, 1) at which sampling starts.

    Raises:
        ValueError: see `LatentSystem`; or no such time.
    """

    settings = (*LatentSystem.settings, "t_start")

    def __init__(self, *args: Any, t_start: float = 0.0, **settings: Any) -> None:
        self.t_start = t_start
        super().__init__(*args, **settings)

    def check_settings(self) -> None:
        """Refuse a setting that is out of range."""
        super().check_settings()
        if not 0 <= self.t_start < 1:
            raise ValueError(f"t_start is a time in [0, 1), got {self.t_start}: 0 is noise, and at 1 nothing changes")


def repeat(text: TextEmbedding, n: int) -> TextEmbedding:
    """Each sentence n times in a row, for the channels of its recording."""
    return TextEmbedding(*(part.repeat_interleave(n, dim=0) for part in text))


def repeat_whole(text: TextEmbedding, n: int) -> TextEmbedding:
    """All sentences, n times over, for the windows of their recordings."""
    return TextEmbedding(*(part.repeat(n, *[1] * (part.dim() - 1)) for part in text))


def draw_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard normal noise (Z, N', M') that does not depend on what comes later in time.

    Args:
        shape: Z, N' and M'.
        generator: on the CPU.

    Returns:
        Noise; the first points in time are the same whatever N' is.
    """
    n_channels, n_times, height = shape
    n_blocks = -(-n_times // NOISE_BLOCK)
    blocks = [torch.randn(n_channels, NOISE_BLOCK, height, generator=generator) for _ in range(n_blocks)]
    return torch.cat(blocks, dim=1)[:, :n_times]


class _Bar:
    """A progress bar over the steps, around an observer; without `progress`, the observer alone."""

    def __init__(self, n_steps: int, observe: Observer | None, progress: bool) -> None:
        self.n_steps, self.observe, self.progress = n_steps, observe, progress

    def __enter__(self) -> Observer | None:
        if not self.progress:
            return self.observe
        from tqdm.auto import tqdm

        self.tqdm, self.calls = tqdm(total=self.n_steps, unit="step"), 0
        return self._watch

    def _watch(self, t: Tensor, x: Tensor) -> None:
        self.tqdm.update(self.calls > 0)  # the first call is of the start
        self.calls += 1
        if self.observe is not None:
            self.observe(t, x)

    def __exit__(self, *_: object) -> None:
        if self.progress:
            self.tqdm.close()


#: config.json of a checkpoint: field -> default; "system" and "network" must be given. "vae_sha256" and "vae_network"
#: say which VAE it was trained with, by its weights and by its configuration: mean and scale of its spectrograms are in
#: no weight. "recipe", "provenance" and "started_from" say how it was trained, for people and for the card.
LATENT_FIELDS: dict[str, Any] = {
    "system": "flow",
    "network": {},
    "vae": "mel-vae-lab",
    "vae_sha256": "",
    "vae_network": {},
    "vocoder": "bigvgan-lab",
    "text_encoder": "minilm",
    "sample_rate": SAMPLE_RATE,
    "window_seconds": 10.24,
    "n_steps": 10,
    "guidance_scale": 1.0,
    "keep_db": 0.0,
    "recipe": {},
    "provenance": {},
    "started_from": {},
}


def load_latent_system(
    build: type[LatentSystem],
    folder: Path,
    config: dict[str, Any],
    device: torch.device,
    *,
    fields: Mapping[str, Any] = LATENT_FIELDS,
    settings: Sequence[str] | None = None,
) -> LatentSystem:
    """A system from its checkpoint, with the VAE, vocoder and text encoder that it names.

    Args:
        build: class of the system.
        folder: the checkpoint.
        config: what its configuration says.
        device: where to put the networks.
        fields: what a configuration may say, with defaults; with an "adapter" that is true, the text encoder has the
            adapter that lies in the folder.
        settings: names of the fields that are settings of the system; when left out, `window_seconds` and all that the
            class has.

    Returns:
        The system.

    Raises:
        ValueError: one line that names the file and the remedy.
    """
    path = folder / CONFIG_FILE
    check_fields(config, fields, path=path)
    config = {**fields, **config}
    sizes = build_config(VelocityConfig, config["network"], path=path)
    network = build_network(VelocityNetwork, sizes, path=path)
    trained_vae = build_config(VAEConfig, config["vae_network"], path=path) if config["vae_network"] else None
    load_weights(network, folder)
    try:
        text_encoder = load_text_encoder(config["text_encoder"], device=device)
        check_text_width(text_encoder, network.config.text_dim, name=config["text_encoder"])
        if config.get("adapter"):
            text_encoder = load_adapter(text_encoder, folder)
        vae = load_vae(config["vae"], device=device)
        if other := _differences(vae, config["vae_sha256"], trained_vae):
            raise ValueError(
                f"the VAE {config['vae']!r} has other {other} than the one this network was trained with: restore it, "
                "or train the network again"
            )
        return build(
            network.to(device).requires_grad_(False),
            vae,
            load_vocoder(config["vocoder"], device=device),
            text_encoder,
            **{name: config[name] for name in settings or (*build.settings, "window_seconds")},
            name=folder.resolve().name,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _differences(vae: MelVAE, sha256: str, trained: VAEConfig | None) -> str:
    """How a VAE differs from the one that a checkpoint tells of, in words; "" where it does not, or is not told."""
    if sha256 and sha256 != weights_sha256(vae):
        return "weights"
    now, then = asdict(vae.config), asdict(trained or vae.config)
    return ", ".join(f"{name} ({now[name]} against {then[name]})" for name in now if now[name] != then[name])
