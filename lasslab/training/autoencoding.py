"""Train the mel VAE: reconstruct spectrograms through a small, nearly normal latent.

    loss = mean |x - x(z)| / s + beta mean_c max(KL_c, free)                                                     (1)

with x the log-mel in nats, s its scale inside the network, and KL_c that of channel c of the latent, averaged over the
batch. The first nats of each channel may cost nothing ("free bits", Kingma et al., NeurIPS 2016). Without them six of
the eight channels of `mel-vae-lab` fell asleep before the decoder had learned to read them; with them all eight of
`mel-vae-lab-awake` stay awake. They tell twice as much, and the sound comes back 3 % closer for it: 0.191 in place of
0.198 nats. So the flow works in the first, which leaves it half as much to get right.

An error averaged over points is least for a smooth spectrogram; where that matters more than exactness, an adversary
that looks at patches (`loss_adversarial`) asks for the texture back, as in latent diffusion's own VAEs. The lab's has
none: its latent is only half the size of what it holds, and little is smoothed away. It hears what the systems will
show it: mixtures at one level, their targets as loud as they are in them, and silence.

`lasslab train vae`. Notebook 09.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lasslab.data.mixtures import MixtureDataset, mix_batch
from lasslab.models.checkpoints import CONFIG_FILE, load_weights, read_config
from lasslab.models.discriminators import SpectrogramDiscriminator, adversarial_loss, judge_both
from lasslab.models.vae import SIZES, MelVAE, VAEConfig
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.signal.files import write_json
from lasslab.signal.levels import level_gain
from lasslab.signal.mel import log_mel_spectrogram
from lasslab.training.fit import Adversary, FitResult, check_at_least, check_positive, check_shares
from lasslab.training.runs import check_folder, fit_recipe, start_weights
from lasslab.training.sounds import SoundRecipe, check_size, drawn_mixtures, held_out_mixtures, mixed_batches


class Autoencoding:
    """Train a mel VAE: mixtures and their targets in, the same out.

    Args:
        beta: weight of the KL term.
        free_nats: of each channel's KL, for each number of the latent, that cost nothing; 0 is the plain VAE.
        gain_db: the level varies by up to this around that of the systems, either way.
        silence: share of the sounds replaced by silence.
        adversarial: weight of the adversary's term, where there is an adversary.
    """

    monitor = "reconstruction"

    def __init__(
        self,
        *,
        beta: float = 0.02,
        free_nats: float = 0.0,
        gain_db: float = 10.0,
        silence: float = 0.02,
        adversarial: float = 0.0,
    ) -> None:
        self.beta, self.free_nats = beta, free_nats
        self.gain_db, self.silence, self.adversarial = gain_db, silence, adversarial
        self.last: dict[str, Tensor] = {}  # what the last `loss` made, for `adversary_loss`

    def sounds(self, batch: dict, generator: torch.Generator | None = None) -> Tensor:
        """The batch's mixtures and targets (2 B, T) at the level of the systems; varied where there is a generator."""
        batch = batch if "mixture" in batch else mix_batch(batch)
        gain = level_gain(batch["mixture"])
        if generator is not None:
            uniform = torch.rand(2, len(gain), 1, generator=generator, device=generator.device).to(gain)
            gain = gain * 10 ** (self.gain_db * (2 * uniform[0] - 1) / 20) * (uniform[1] >= self.silence)
        return torch.cat([batch["mixture"] * gain, batch["target"] * gain])

    def loss(
        self, network: nn.Module, batch: dict, generator: torch.Generator, adversary: nn.Module | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The module's loss, and its parts: the first in nats of the log-mel."""
        config = _config(network)
        log_mel = log_mel_spectrogram(self.sounds(batch, generator), config.mel())
        estimate, posterior = network(log_mel, generator)
        error, channel_kl = (estimate - log_mel).abs().mean(), posterior.channel_kl().mean(0)
        total = error / config.mel_scale + self.beta * channel_kl.clamp(min=self.free_nats).mean()
        terms = {"error": error, "kl": channel_kl.mean()}
        if adversary is not None:
            terms["adversarial"] = adversarial_loss(adversary(estimate))
            total = total + self.adversarial * terms["adversarial"]
            self.last = {"real": log_mel, "made": estimate.detach()}
        return total, {name: term.detach() for name, term in terms.items()}

    def adversary_loss(self, adversary: nn.Module) -> Tensor:
        """Equation (1) of `lasslab.models.discriminators`, of what the last `loss` made."""
        return judge_both(adversary, **self.last)

    def validate(self, network: nn.Module, batch: dict) -> dict[str, Tensor]:
        """Per example: minus the mean error in nats of the log-mel, for the mean of q(z | x); the KL; and the share of
        the channels that are awake, with a KL above 0.1 nats."""
        log_mel = log_mel_spectrogram(self.sounds(batch), _config(network).mel())
        estimate, posterior = network(log_mel)
        awake = (posterior.channel_kl() > 0.1).double().mean(1)
        return {"reconstruction": -(estimate - log_mel).abs().mean(dim=(1, 2)), "kl": posterior.kl(), "awake": awake}

    def picture(self, network: nn.Module, batch: dict) -> dict[str, Tensor]:
        """The first mixture's log-mel and its reconstruction, from silence to the loudest band."""
        log_mel = log_mel_spectrogram(self.sounds(batch)[:1], _config(network).mel())
        low, high = log_mel.min(), log_mel.max()
        pictures = {"input": log_mel[0], "reconstruction": network(log_mel)[0][0]}
        return {name: ((mel - low) / (high - low).clamp(min=1e-6)).clamp(0, 1) for name, mel in pictures.items()}


def _config(network: nn.Module) -> VAEConfig:
    return getattr(network, "module", network).config


@dataclass(frozen=True)
class VAERecipe(SoundRecipe):
    """A mel VAE, the sounds it sees, and how it is trained.

    Args:
        size: of the network, see `lasslab.models.vae.SIZES`.
        start_from: a checkpoint, by name or folder, to start the weights from; "" starts anew.
        beta, free_nats, gain_db, silence: see `Autoencoding`.
        loss_adversarial: weight of an adversary's term; 0 trains without one.
        adversary_from: step at which it begins to count.
        adversary_learning_rate: of its optimiser.
        n_validation: mixtures to validate on, at 0 dB.
        corpus … device: see `lasslab.training.sounds.SoundRecipe`.
    """

    size: str = "lab"
    start_from: str = ""
    synthesis_share: float = 0.4
    seconds: float = 1.27  # 128 frames
    snr_low: float = -15.0
    snr_high: float = 15.0
    beta: float = 0.02
    free_nats: float = 0.0
    gain_db: float = 10.0
    silence: float = 0.02
    loss_adversarial: float = 0.0
    adversary_from: int = 1_000
    adversary_learning_rate: float = 2e-4
    shift: bool = False
    reverse_polarity: bool = False
    n_validation: int = 16
    n_steps: int = 3_000
    batch_size: int = 4  # mixtures; the network sees twice as many spectrograms
    ema_decay: float = 0.995
    validate_every: int = 250
    save_every: int = 250

    def __post_init__(self) -> None:
        check_size(self.size, SIZES)
        check_at_least(self, 0, "beta", "free_nats", "gain_db", "loss_adversarial", "adversary_from")
        check_at_least(self, 1, "n_validation")
        check_positive(self, "adversary_learning_rate")
        check_shares(self, "silence")
        super().__post_init__()


VAE_PRESETS: dict[str, VAERecipe] = {
    "quick": VAERecipe(
        size="quick",
        corpus="synthesis",
        n_per_class=4,
        n_steps=60,
        warmup_steps=5,
        learning_rate=3e-3,
        ema_decay=0.9,
        n_validation=4,
        validate_every=30,
        save_every=30,
        picture_every=30,
    ),
    "lab": VAERecipe(),
    "lab_awake": VAERecipe(beta=0.01, free_nats=0.5),
    # AudioLDM's layout trained anew: 10.24 s, its learning rate; a GPU's work
    "full": VAERecipe(
        size="full",
        corpus="esc50",
        seconds=10.23,
        n_steps=500_000,
        batch_size=8,
        beta=1e-6,
        free_nats=0.0,
        loss_adversarial=0.5,
        adversary_from=50_000,
        adversary_learning_rate=4.5e-6,
        learning_rate=4.5e-6,
        ema_decay=0.0,
        mixed_precision="bf16",
        n_workers=4,
        validate_every=1_000,
        save_every=1_000,
        picture_every=5_000,
    ),
}


def train_vae(recipe: VAERecipe, directory: str | Path, *, resume: bool = False, progress: bool = True) -> FitResult:
    """Train a mel VAE as a recipe says, into a folder that `load_vae` reads.

    At the end, or when it is stopped, the scaling factor is measured and written into the checkpoints.

    Args:
        recipe: everything that decides the run.
        directory: folder of the training.
        resume: continue the training in the folder.
        progress: show a bar.

    Returns:
        What was reached.

    Raises:
        ValueError: when a corpus or a setting is not there; see `fit`.
    """
    check_folder(recipe, directory, resume=resume)
    config = SIZES[recipe.size]
    torch.manual_seed(recipe.seed)  # the initial weights
    network = MelVAE(config)
    start_weights(network, recipe, resume=resume)
    validation = validation_sounds(recipe)
    objective = Autoencoding(
        beta=recipe.beta,
        free_nats=recipe.free_nats,
        gain_db=recipe.gain_db,
        silence=recipe.silence,
        adversarial=recipe.loss_adversarial,
    )
    adversary = None
    if recipe.loss_adversarial:
        judge = SpectrogramDiscriminator()
        adversary = Adversary(judge, start=recipe.adversary_from, learning_rate=recipe.adversary_learning_rate)
    result = fit_recipe(
        recipe,
        network,
        objective,
        training_sounds(recipe),
        directory=directory,
        validation=validation,
        about={"system": "vae", "network": config.to_dict(), "sample_rate": SAMPLE_RATE},
        adversary=adversary,
        resume=resume,
        progress=progress,
    )
    for name in ("best", "last"):
        if (Path(directory) / name).is_dir():
            write_scaling_factor(Path(directory) / name, objective, validation)
    return result


def write_scaling_factor(folder: Path, objective: Autoencoding, batches: Sequence[dict]) -> float:
    """Measure 1 / standard deviation of a checkpoint's latents, and write it into the checkpoint's configuration.

    Args:
        folder: the checkpoint.
        objective: makes sounds of batches.
        batches: mixtures, at the systems' level.

    Returns:
        The scaling factor.
    """
    config = read_config(folder)
    vae = MelVAE(replace(VAEConfig(**config["network"]), scaling_factor=1.0))
    load_weights(vae, folder)
    with torch.no_grad():
        log_mels = (log_mel_spectrogram(objective.sounds(batch), vae.mel) for batch in batches)
        latents = torch.cat([vae.eval().posterior(log_mel).mean for log_mel in log_mels])
    factor = round(1 / latents.std().item(), 6)
    config["network"]["scaling_factor"] = factor
    write_json(folder / CONFIG_FILE, config)
    return factor


def training_sounds(recipe: VAERecipe) -> MixtureDataset:
    """Every mixture of the run, each seen once."""
    return drawn_mixtures(recipe)


def validation_sounds(recipe: VAERecipe) -> list[dict]:
    """Fixed 5 s mixtures at 0 dB of clips that training never hears."""
    return mixed_batches(held_out_mixtures(recipe, n=recipe.n_validation), batch_size=4)
