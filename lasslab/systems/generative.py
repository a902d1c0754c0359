"""Separation by generation: FlowSep, and DiffusionSep to compare with.

    mixture at one level -> log-mel -> VAE -> z_m;  noise -> z_1, step by step, told z_m and the words;
    z_1 -> VAE -> log-mel -> vocoder -> waveform at the mixture's level

Nothing is cut out of the mixture: the sound is made anew, so it has no spectral holes, and it shares no sample with the
target. That is why SDR says nothing here. Where the mixture pauses, nothing is made: part of a pause is a pause, and
the networks do not know that everywhere. (With `keep_db` above 0 the mixture is handed on where it hardly differs from
what was made: that is ours, and no longer the papers' systems.) Level, length, channels, seeds and batches are those of
every system that generates latents, see `lasslab.systems.latent`.

References: Yuan et al., FlowSep, 2024. Notebooks 12 and 13.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lasslab.diffusion import sample as sample_diffusion
from lasslab.flow import SOLVERS, Field, solve, time_grid
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.signal.levels import where_it_sounds
from lasslab.systems.latent import LATENT_FIELDS, LatentSystem, LaterStart, Observer, load_latent_system


class LatentSeparator(LatentSystem):
    """What the flow and the diffusion share: the call.

    Args:
        network, vae, vocoder, text_encoder, n_steps, guidance_scale, keep_db, window_seconds, name: see
            `lasslab.systems.latent.LatentSystem`.

    Raises:
        ValueError: VAE and vocoder read different mels, or a setting is out of range.
    """

    def __call__(
        self,
        waveform: Tensor,
        query: str,
        *,
        sample_rate: int = SAMPLE_RATE,
        generator: torch.Generator | None = None,
        n_steps: int | None = None,
        guidance_scale: float | None = None,
        keep_db: float | None = None,
        progress: bool = False,
        observe: Observer | None = None,
    ) -> Tensor:
        """Separate one recording.

        Args:
            waveform: mixture, shape (T,) or (C, T), at least one frame long.
            query: what to make, in words.
            sample_rate: Hz.
            generator: of the noise, on the CPU; seed 0 when left out.
            n_steps, guidance_scale, keep_db: as in the constructor.
            progress: show a bar over the steps.
            observe: called with each time and the latents (C, Z, N', M') at it.

        Returns:
            Estimate: shape, type, device, rate and level of waveform.

        Raises:
            ValueError: unusable or too short samples, an empty or far too long query, an impossible rate or setting.
        """
        settings = {"n_steps": n_steps, "guidance_scale": guidance_scale, "keep_db": keep_db}
        return self.call(waveform, query, sample_rate, generator, progress=progress, observe=observe, **settings)

    def separate_batch(
        self,
        mixtures: Tensor,
        queries: Sequence[str],
        *,
        sample_rate: int = SAMPLE_RATE,
        generators: Sequence[torch.Generator] | None = None,
        n_steps: int | None = None,
        guidance_scale: float | None = None,
        keep_db: float | None = None,
        progress: bool = False,
        observe: Observer | None = None,
    ) -> Tensor:
        """Separate several mono recordings of one length at once.

        Args:
            mixtures: shape (B, T).
            queries: B sentences.
            sample_rate: Hz.
            generators: one for each recording, on the CPU; seed 0 for each when left out.
            n_steps, guidance_scale, keep_db, progress, observe: as in `__call__`.

        Returns:
            Estimates, shape (B, T), the same as from B calls up to rounding.

        Raises:
            ValueError: see `__call__`; or another number of queries or generators than mixtures.
        """
        settings = {"n_steps": n_steps, "guidance_scale": guidance_scale, "keep_db": keep_db}
        return self.call_batch(
            mixtures, queries, sample_rate, generators, progress=progress, observe=observe, **settings
        )

    def to_waveforms(self, made: Tensor, told: Tensor, waveforms: Tensor, gain: Tensor) -> Tensor:
        """What is heard of the latents made, and silence where the mixture is silent; see `LatentSystem`."""
        heard = super().to_waveforms(made, told, waveforms, gain)
        return heard * where_it_sounds(waveforms.to(heard) * gain)


class FlowSeparator(LatentSeparator):
    """FlowSep: rectified flow from noise to the target's latent, along nearly straight lines.

    Args:
        network, vae, vocoder, text_encoder, n_steps, guidance_scale, keep_db, window_seconds, name: see
            `lasslab.systems.latent.LatentSystem`.
        method: "euler", as published, "midpoint" or "heun"; the last two call the network twice a step.

    Raises:
        ValueError: see `LatentSeparator`; or an unknown method.

    Notebook: 12.
    """

    process = "flow"
    settings = (*LatentSeparator.settings, "method")

    def __init__(self, *args: Any, method: str = "euler", **settings: Any) -> None:
        self.method = method
        super().__init__(*args, **settings)

    def check_settings(self) -> None:
        """Refuse a setting that is out of range."""
        super().check_settings()
        if not isinstance(self.method, str) or self.method not in SOLVERS:
            raise ValueError(f"unknown method {self.method!r}: use one of {', '.join(SOLVERS)}")

    def sample(
        self, field: Field, noise: Tensor, told: Tensor, n_steps: int, *, observe: Observer | None = None
    ) -> Tensor:
        """Solve the flow from t = 0 to 1 in equal steps."""
        return solve(field, noise, time_grid(n_steps), method=self.method, observe=observe)


class DiffusionSeparator(LaterStart, LatentSeparator):
    """DiffusionSep: the same network trained to predict the noise, sampled by DDIM.

    The first step divides what the network gets wrong by the data's share of the state, 0.012 at t = 0: unless it is
    right to a percent, the guess is far too loud, and the rest of the sample follows it. A start a little later, where
    the noise is taken for a state that holds some data, costs that little data and divides by more: 0.03 at t = 0.1.
    Released code with "leading" steps does so without saying it: with ten steps it starts near t = 0.1.

    Args:
        network, vae, vocoder, text_encoder, n_steps, guidance_scale, keep_db, window_seconds, name: see
            `lasslab.systems.latent.LatentSystem`.
        t_start: time in [0, 1) that the noise is taken to be at.

    Raises:
        ValueError: see `LatentSeparator`; or no such time.

    Notebook: 13.
    """

    process = "diffusion"

    def sample(
        self, field: Field, noise: Tensor, told: Tensor, n_steps: int, *, observe: Observer | None = None
    ) -> Tensor:
        """DDIM from `t_start` to 1."""
        return sample_diffusion(field, noise, n_steps, t_start=self.t_start, observe=observe)


#: "system" of a checkpoint's config.json -> what it is
SYSTEMS: dict[str, type[LatentSeparator]] = {"flow": FlowSeparator, "diffusion": DiffusionSeparator}
#: "system" -> what its config.json may say, with defaults
FIELDS: dict[str, dict[str, Any]] = {
    "flow": LATENT_FIELDS | {"method": "euler"},
    "diffusion": LATENT_FIELDS | {"t_start": 0.0},
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
    system = SYSTEMS[config["system"]]
    return load_latent_system(system, folder, config, device, fields=FIELDS[config["system"]])
