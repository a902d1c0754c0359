"""Ship a trained mel VAE: half-precision weights, and a card with figures that this very run measured.

    python -m lasslab.training.vae_card RUN -o data/checkpoints/NAME

RUN is a folder that `lasslab train vae` wrote. The VAE is measured as it ships, in float16, on the mixtures and targets
that it was validated on.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lasslab.evaluation.provenance import git_commit
from lasslab.models.checkpoints import save_network
from lasslab.models.vae import REDUCTION, MelVAE, load_vae
from lasslab.signal.files import write_text
from lasslab.signal.mel import DB_PER_NAT, log_mel_spectrogram
from lasslab.training.autoencoding import VAE_PRESETS, Autoencoding, VAERecipe, validation_sounds
from lasslab.training.card_parts import (
    CARD_FILE,
    card_parser,
    data_section,
    exit_code,
    part_of,
    ship_command,
    trained_config,
    training_section,
)
from lasslab.training.runs import recipe_from

AWAKE = 0.1  # nats that a channel tells at least


@torch.no_grad()
def measure(vae: MelVAE, batches: Sequence[dict]) -> dict[str, float]:
    """Reconstruction and latents of mixtures and their targets at the systems' level.

    Args:
        vae: what to measure.
        batches: mixtures, as `validation_sounds` gives them.

    Returns:
        "error" in nats of the log-mel; "error_audible" the same over the points within 60 dB of each sound's loudest;
        "kl" in nats for each number of the latent; "awake", the number of channels that tell more than `AWAKE`;
        "mean" and "deviation" of the scaled latents; "n" sounds.
    """
    sounds = torch.cat([Autoencoding().sounds(batch) for batch in batches])
    log_mels = log_mel_spectrogram(sounds, vae.mel)
    errors, audible, kl, channels, latents = [], [], [], [], []
    for log_mel in log_mels.split(4):
        posterior = vae.posterior(log_mel)
        latent = posterior.mean * vae.config.scaling_factor
        error = (vae.decode(latent, n_frames=log_mel.shape[-1]) - log_mel).abs()
        heard = log_mel > log_mel.amax(dim=(1, 2), keepdim=True) - 60 / DB_PER_NAT
        errors.append(error.mean(dim=(1, 2)))
        audible.append((error * heard).sum(dim=(1, 2)) / heard.sum(dim=(1, 2)))
        kl.append(posterior.kl())
        channels.append(posterior.channel_kl())
        latents.append(latent)
    scaled = torch.cat(latents)
    figures = {"error": torch.cat(errors), "error_audible": torch.cat(audible), "kl": torch.cat(kl)}
    return {name: values.mean().item() for name, values in figures.items()} | {
        "mean": scaled.mean().item(),
        "deviation": scaled.std().item(),
        "awake": int((torch.cat(channels).mean(0) > AWAKE).sum()),
        "n": len(sounds),
    }


def publish(run: str | Path, destination: str | Path, *, part: str = "best") -> Path:
    """Write a checkpoint folder with float16 weights and its card.

    Args:
        run: training folder, with `run.json` and `best/`.
        destination: checkpoint folder to write; its name is the model's.
        part: "best" or "last".

    Returns:
        The destination.

    Raises:
        ValueError: when a file of the run is missing or does not fit.
    """
    run, destination = Path(run), Path(destination)
    config = trained_config(run, part)
    save_network(destination, load_vae(run / part), config, float16=True)
    vae = load_vae(destination)  # what was written can be read back, and is what is measured
    recipe = recipe_from(config["recipe"], VAERecipe)
    card = vae_card(destination.name, config, measure(vae, validation_sounds(recipe)), vae=vae)
    write_text(destination / CARD_FILE, card)
    return destination


def vae_card(name: str, config: dict[str, Any], figures: dict[str, float], *, vae: MelVAE) -> str:
    """Write the card.

    Args:
        name: of the checkpoint.
        config: its `config.json`.
        figures: see `measure`.
        vae: the loaded checkpoint.

    Returns:
        Markdown.
    """
    n_parameters = sum(parameter.numel() for parameter in vae.parameters())
    size, mel = vae.config, vae.mel
    lines = [
        f"# {name}",
        "",
        f"A mel VAE ({n_parameters / 1e6:.2f} M parameters, {config['recipe']['size']} size): log-mel spectrograms of"
        f" {mel.n_mels} bands at {mel.sample_rate / mel.hop_length:g} frames a second become latents of"
        f" {size.latent_channels} channels, {REDUCTION} times smaller on both axes, and come back. The flow and the"
        " diffusion of this project work in such latents. Weights are float16.",
        "",
        "```python",
        "from lasslab.models.vae import load_vae",
        "from lasslab.signal.mel import log_mel_spectrogram",
        f'vae = load_vae("{name}")',
        "latent = vae.encode(log_mel_spectrogram(waveforms, vae.mel))  # (B, Z, N / 4, M / 4)",
        "log_mel = vae.decode(latent)",
        "```",
        "",
        *data_section(config),
        "## Training",
        "",
        *training_section(
            config, kind_of=lambda recipe: ("vae", VAE_PRESETS), ship=ship_command("vae_card", name, config)
        ),
        "",
        "Every setting is in `config.json`, under `recipe`. It heard mixtures at a root mean square of -20 dB, 10 dB"
        " either way, their targets as loud as they are in them, and some silence.",
        "",
        "## Results",
        "",
        f"On {figures['n']} sounds of 5 s (mixtures at 0 dB and their targets) that training never heard"
        f" (`python -m lasslab.training.vae_card`, commit {git_commit()})."
        + (" The best step was chosen on the same ones." if part_of(config) == "best" else ""),
        "",
        "| | |",
        "|---|---:|",
        f"| mean error of the log-mel | {figures['error']:.3f} nats = {figures['error'] * DB_PER_NAT:.2f} dB |",
        f"| within 60 dB of the loudest point | {figures['error_audible']:.3f} nats ="
        f" {figures['error_audible'] * DB_PER_NAT:.2f} dB |",
        f"| KL divergence from a standard normal | {figures['kl']:.3f} nats for each number of the latent |",
        f"| channels that tell more than {AWAKE:g} nats | {figures['awake']} of {size.latent_channels} |",
        f"| scaling factor | {size.scaling_factor:g} |",
        f"| scaled latents, mean and deviation | {figures['mean']:.3f} and {figures['deviation']:.3f} |",
        "",
        "## Limits",
        "",
        "It knows sounds at the systems' level: bring a recording to -20 dB first (`lasslab.signal.levels`). What a"
        " 64-band mel spectrogram does not hold, it cannot give back. Trained on few recordings: sounds far from its"
        " corpora come back less exactly.",
        "",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """`python -m lasslab.training.vae_card`."""
    options = card_parser("Ship a trained mel VAE with its card.").parse_args(arguments)
    return exit_code(lambda: publish(options.run, options.output, part=options.part))


if __name__ == "__main__":
    sys.exit(main())
