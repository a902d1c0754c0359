"""Separation by generation: FlowSep, and DiffusionSep to compare with.

    mixture at one level -> log-mel -> VAE -> z_m;  noise -> z_1, step by step, told z_m and the words;
    z_1 -> VAE -> log-mel -> vocoder -> waveform at the mixture's level

Nothing is cut out of the mixture: the sound is made anew, so it has no spectral holes, and it shares no sample with the
target. That is why SDR says nothing here.

- Level: the mixture is brought to -20 dB for the networks, and what they make is brought back by the same gain: a gain
  of the input is a gain of the output. Silence comes back as silence.
- Length: a recording longer than a window is sampled as a whole, in windows that agree at every step (see
  `lasslab.systems.windows`). The noise belongs to the place: the first ten seconds of a long recording start from the
  same noise as the same ten seconds alone.
- Channels: each is made by itself from the same noise, at one level for all. Equal channels come out equal.
- Seeds: the same generator, the same estimate; without one, seed 0.
- Batches: `separate_batch` puts several queries into one call of the network; with guidance, both branches too.

References: Yuan et al., FlowSep, 2024. Notebooks 12 and 13.
"""

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from lasslab.diffusion import sample as sample_diffusion
from lasslab.flow import SOLVERS, Field, guided, solve, time_grid
from lasslab.models.bigvgan import load_vocoder
from lasslab.models.checkpoints import (
    CONFIG_FILE,
    build_config,
    build_network,
    check_fields,
    load_weights,
    weights_sha256,
)
from lasslab.models.text import TextCache, TextEmbedding, TextEncoder, check_query, load_text_encoder
from lasslab.models.vae import MelVAE, load_vae
from lasslab.models.velocity import VelocityConfig, VelocityNetwork, condition_on
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.systems.codec import LatentCodec
from lasslab.systems.request import at_model_rate, check_request, check_samples, check_text_width
from lasslab.systems.windows import Windows

NOISE_BLOCK = 64  # points in time of one draw of noise
LARGEST_BATCH = 32  # windows in one call of the network

#: called with each time and the latents at it, as `observe` of `lasslab.flow.solve`
Observer = Callable[[Tensor, Tensor], None]


class LatentSeparator:
    """What the flow and the diffusion share: everything but how a sample is drawn.

    Args:
        network: velocity network, or one that predicts the noise.
        vae: latent space it was trained in.
        vocoder: log-mel (B, M, N) -> waveform (B, N hop), with `.mel`.
        text_encoder: `load_text_encoder(...)`, or a `TextCache` to share; each distinct query is encoded once.
        n_steps: calls of the network, unless a call says otherwise.
        guidance_scale: 1 is none.
        window_seconds: longest piece that the network sees at once.
        name: how tables call the system.

    Raises:
        ValueError: VAE and vocoder read different mels, or a setting is out of range.
    """

    def __init__(
        self,
        network: VelocityNetwork,
        vae: MelVAE,
        vocoder: Any,
        text_encoder: TextEncoder | TextCache,
        *,
        n_steps: int = 10,
        guidance_scale: float = 1.0,
        window_seconds: float = 10.24,
        name: str = "generative",
    ) -> None:
        self.codec = LatentCodec(vae, vocoder)
        if vae.config.latent_channels != network.config.latent_channels:
            raise ValueError(
                f"the VAE has {vae.config.latent_channels} latent channels, the network expects "
                f"{network.config.latent_channels}: use the VAE it was trained with"
            )
        _check_sampling(n_steps, guidance_scale)
        if not 0 < window_seconds < math.inf:
            raise ValueError(f"window_seconds must be a positive number of seconds, got {window_seconds}")
        self.network = network.eval().to(memory_format=torch.channels_last)
        self.text_encoder = text_encoder if isinstance(text_encoder, TextCache) else TextCache(text_encoder)
        self.n_steps, self.guidance_scale, self.window_seconds = n_steps, guidance_scale, window_seconds
        self.name = name

    #: a long recording needs no cross-fades: it is sampled as a whole, see `lasslab.systems.streaming`
    any_length = True

    def with_sampling(self, *, n_steps: int | None = None, guidance_scale: float | None = None) -> Self:
        """The same system, networks shared, with other settings where they are given.

        Args:
            n_steps: see the constructor.
            guidance_scale: see the constructor.

        Returns:
            A copy; its name says the steps where they are others.

        Raises:
            ValueError: a setting is out of range.
        """
        other = copy.copy(self)
        other.n_steps = self.n_steps if n_steps is None else n_steps
        other.guidance_scale = self.guidance_scale if guidance_scale is None else guidance_scale
        _check_sampling(other.n_steps, other.guidance_scale)
        if other.n_steps != self.n_steps:
            other.name = f"{self.name}, {other.n_steps} steps"
        return other

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.network.parameters()).device

    def sample(self, field: Field, noise: Tensor, n_steps: int, *, observe: Observer | None = None) -> Tensor:
        """Latents (B, Z, N', M') from noise, `n_steps` calls of the field."""
        raise NotImplementedError

    def __call__(
        self,
        waveform: Tensor,
        query: str,
        *,
        sample_rate: int = SAMPLE_RATE,
        generator: torch.Generator | None = None,
        n_steps: int | None = None,
        guidance_scale: float | None = None,
        progress: bool = False,
        observe: Observer | None = None,
    ) -> Tensor:
        """Separate one recording.

        Args:
            waveform: mixture, shape (T,) or (C, T), at least one frame long.
            query: what to make, in words.
            sample_rate: Hz.
            generator: of the noise, on the CPU; seed 0 when left out.
            n_steps: as in the constructor.
            guidance_scale: as in the constructor.
            progress: show a bar over the steps.
            observe: called with each time and the latents (C, Z, N', M') at it.

        Returns:
            Estimate: shape, type, device, rate and level of waveform.

        Raises:
            ValueError: unusable or too short samples, an empty or far too long query, an impossible rate or setting.
        """
        check_request(waveform, query, sample_rate, n_fft=self.codec.n_fft)
        channels = waveform.reshape(1, -1, waveform.shape[-1])  # (1, C, T)
        generators = None if generator is None else [generator]
        estimate = self._separate(
            channels, [query], sample_rate, generators, n_steps, guidance_scale, progress=progress, observe=observe
        )
        return estimate.reshape(waveform.shape)

    def separate_batch(
        self,
        mixtures: Tensor,
        queries: Sequence[str],
        *,
        sample_rate: int = SAMPLE_RATE,
        generators: Sequence[torch.Generator] | None = None,
        n_steps: int | None = None,
        guidance_scale: float | None = None,
        progress: bool = False,
        observe: Observer | None = None,
    ) -> Tensor:
        """Separate several mono recordings of one length at once.

        Args:
            mixtures: shape (B, T).
            queries: B sentences.
            sample_rate: Hz.
            generators: one for each recording, on the CPU; seed 0 for each when left out.
            n_steps, guidance_scale, progress, observe: as in `__call__`.

        Returns:
            Estimates, shape (B, T), the same as from B calls up to rounding.

        Raises:
            ValueError: see `__call__`; or another number of queries or generators than mixtures.
        """
        if mixtures.dim() != 2 or len(queries) != len(mixtures):
            raise ValueError(f"expected mixtures (B, T) and B queries, got {tuple(mixtures.shape)} and {len(queries)}")
        if generators is not None and len(generators) != len(mixtures):
            raise ValueError(f"expected a generator for each of {len(mixtures)} mixtures, got {len(generators)}")
        check_samples(mixtures, sample_rate, n_fft=self.codec.n_fft)
        return self._separate(
            mixtures[:, None],
            queries,
            sample_rate,
            generators,
            n_steps,
            guidance_scale,
            progress=progress,
            observe=observe,
        )[:, 0]

    def _separate(
        self,
        waveforms: Tensor,
        queries: Sequence[str],
        sample_rate: int,
        generators: Sequence[torch.Generator] | None,
        n_steps: int | None,
        guidance_scale: float | None,
        *,
        progress: bool,
        observe: Observer | None,
    ) -> Tensor:
        """(B, C, T) and B queries -> (B, C, T)."""
        n_steps = self.n_steps if n_steps is None else n_steps
        guidance_scale = self.guidance_scale if guidance_scale is None else guidance_scale
        _check_sampling(n_steps, guidance_scale)
        # Outside inference mode: the cache may be shared with a training run, which needs ordinary tensors.
        text = self.text_encoder([check_query(query) for query in queries]).to(self.device)

        def process(inside: Tensor) -> Tensor:
            latent, gain = self.codec.encode(inside.to(self.device))
            with _Bar(n_steps, observe, progress) as watch:
                made = self.generate(
                    latent, text, generators, n_steps=n_steps, guidance_scale=guidance_scale, observe=watch
                )
            return self.codec.decode(made, gain, n_samples=inside.shape[-1])

        with torch.inference_mode():
            estimates = at_model_rate(process, waveforms, sample_rate)
        return estimates.clone().to(waveforms)  # ordinary tensors again: the caller may change them in place

    def generate(
        self,
        mixture: Tensor,
        text: TextEmbedding,
        generators: Sequence[torch.Generator] | None = None,
        *,
        n_steps: int,
        guidance_scale: float = 1.0,
        observe: Observer | None = None,
    ) -> Tensor:
        """Latents made for the latents of mixtures.

        Args:
            mixture: (B, C, Z, N', M').
            text: token embeddings of B queries.
            generators: one for each query, on the CPU; seed 0 for each when left out.
            n_steps, guidance_scale, observe: as in `__call__`.

        Returns:
            Latents (B, C, Z, N', M').
        """
        n_channels = mixture.shape[1]
        generators = generators or [torch.Generator().manual_seed(0) for _ in mixture]
        noise = torch.stack([draw_noise(mixture.shape[2:], generator) for generator in generators])
        noise = noise.to(mixture)[:, None].expand_as(mixture).flatten(0, 1)
        repeated = TextEmbedding(*(part.repeat_interleave(n_channels, dim=0) for part in text))
        field = self._field(mixture.flatten(0, 1), repeated, guidance_scale)
        return self.sample(field, noise, n_steps, observe=observe).unflatten(0, (-1, n_channels))

    def _field(self, mixture: Tensor, text: TextEmbedding, guidance_scale: float) -> Field:
        """What `sample` follows: the guided network, in windows where the mixture is longer than one."""
        window = max(self.codec.points(self.window_seconds), 4)
        windows = Windows(mixture.shape[2], window=window, overlap=window // 4)
        cut = windows.cut(mixture)
        tokens, mask = (part.repeat(len(windows), *[1] * (part.dim() - 1)) for part in text)
        fields = []
        for first in range(0, len(cut), LARGEST_BATCH):
            rows = slice(first, first + LARGEST_BATCH)
            condition, null = condition_on(cut[rows], TextEmbedding(tokens[rows], mask[rows]))
            fields.append(guided(self.network, condition, null, guidance_scale))
        if len(fields) == len(windows) == 1:
            return fields[0]

        def field(x: Tensor, t: Tensor) -> Tensor:
            parts = windows.cut(x).split(LARGEST_BATCH)
            return windows.join(torch.cat([each(part, t) for each, part in zip(fields, parts, strict=True)]))

        return field


class FlowSeparator(LatentSeparator):
    """FlowSep: rectified flow from noise to the target's latent, along nearly straight lines.

    Args:
        network, vae, vocoder, text_encoder, n_steps, guidance_scale, window_seconds, name: see `LatentSeparator`.
        method: "euler", "midpoint" or "heun"; the last two call the network twice a step.

    Raises:
        ValueError: see `LatentSeparator`; or an unknown method.

    Notebook: 12.
    """

    def __init__(self, *args: Any, method: str = "euler", **settings: Any) -> None:
        if method not in SOLVERS:
            raise ValueError(f"unknown method {method!r}: use one of {', '.join(SOLVERS)}")
        super().__init__(*args, **settings)
        self.method = method

    def sample(self, field: Field, noise: Tensor, n_steps: int, *, observe: Observer | None = None) -> Tensor:
        """Solve the flow from t = 0 to 1 in equal steps."""
        return solve(field, noise, time_grid(n_steps), method=self.method, observe=observe)


class DiffusionSeparator(LatentSeparator):
    """DiffusionSep: the same network trained to predict the noise, sampled by DDIM.

    Args:
        network, vae, vocoder, text_encoder, n_steps, guidance_scale, window_seconds, name: see `LatentSeparator`.

    Notebook: 13.
    """

    def sample(self, field: Field, noise: Tensor, n_steps: int, *, observe: Observer | None = None) -> Tensor:
        """DDIM from t = 0 to 1."""
        return sample_diffusion(field, noise, n_steps, observe=observe)


SYSTEMS: dict[str, type[LatentSeparator]] = {"flow": FlowSeparator, "diffusion": DiffusionSeparator}


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


def _check_sampling(n_steps: int, guidance_scale: float) -> None:
    if not isinstance(n_steps, int) or n_steps < 1:
        raise ValueError(f"n_steps must be a whole number of at least 1, got {n_steps}: 10 is usual")
    if not (math.isfinite(guidance_scale) and guidance_scale >= 0):
        raise ValueError(f"guidance_scale must be 0 or more, got {guidance_scale}: 1 is no guidance")


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


# config.json of a generative checkpoint: field -> default; "system" and "network" must be given. "recipe",
# "provenance" and "started_from" say how it was trained, for people and for the card.
GENERATIVE_FIELDS: dict[str, Any] = {
    "system": "flow",
    "network": {},
    "vae": "mel-vae-lab",
    "vae_sha256": "",
    "vocoder": "bigvgan-lab",
    "text_encoder": "minilm",
    "sample_rate": SAMPLE_RATE,
    "window_seconds": 10.24,
    "n_steps": 10,
    "guidance_scale": 1.0,
    "recipe": {},
    "provenance": {},
    "started_from": {},
}


def load_generative_separator(folder: Path, config: dict[str, Any], device: torch.device) -> LatentSeparator:
    """A generative system from its checkpoint, with the VAE, vocoder and text encoder that it names.

    Args:
        folder: the checkpoint.
        config: what its configuration says.
        device: where to put the networks.

    Returns:
        The system.

    Raises:
        ValueError: one line that names the file and the remedy.
    """
    path = folder / CONFIG_FILE
    check_fields(config, GENERATIVE_FIELDS, path=path)
    config = GENERATIVE_FIELDS | config
    sizes = build_config(VelocityConfig, config["network"], path=path)
    network = build_network(VelocityNetwork, sizes, path=path)
    load_weights(network, folder)
    text_encoder = load_text_encoder(config["text_encoder"], device=device)
    check_text_width(text_encoder, network.config.text_dim, name=config["text_encoder"], path=path)
    settings = {name: config[name] for name in ("n_steps", "guidance_scale", "window_seconds")}
    try:
        vae = load_vae(config["vae"], device=device)
        if config["vae_sha256"] and config["vae_sha256"] != weights_sha256(vae):
            raise ValueError(
                f"the VAE {config['vae']!r} has other weights than the one this network was trained with: restore it, "
                "or train the network again"
            )
        return SYSTEMS[config["system"]](
            network.to(device).requires_grad_(False),
            vae,
            load_vocoder(config["vocoder"], device=device),
            text_encoder,
            **settings,
            name=folder.resolve().name,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
