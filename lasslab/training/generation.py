"""Train what generates: the flow (FlowSep) and the diffusion (DiffusionSep), one network, two losses.

Both see the same latents of the same mixtures, with the text dropped from a tenth of the examples, each on its own. The
papers never drop the mixture; the lab's recipes put silence in its place in a tenth of the examples, so that the same
network also makes a sound from words alone, which editing by inversion needs. Validation holds times and noise fixed,
so that two checkpoints are compared on the same draws, and samples a few mixtures to the end.

`lasslab train flow`, `lasslab train diffusion`. Notebooks 12 and 13.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lasslab.data.mixtures import MixtureDataset
from lasslab.diffusion import diffusion_loss
from lasslab.diffusion import sample as sample_diffusion
from lasslab.flow import Condition, Field, flow_loss, guided, solve, time_grid
from lasslab.models.checkpoints import CONFIG_FILE, find_checkpoint, load_weights, read_config, weights_sha256
from lasslab.models.text import TextCache, load_text_encoder
from lasslab.models.vae import MelVAE, load_vae
from lasslab.models.velocity import SIZES, VelocityNetwork, condition_on
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.training.fit import FitResult, check_at_least, check_shares
from lasslab.training.latents import LatentPairs, cached_text
from lasslab.training.runs import check_folder, fit_recipe
from lasslab.training.sounds import SoundRecipe, check_size, collated, drawn_mixtures, held_out_mixtures


def sample_flow(field: Field, x: Tensor, n_steps: int) -> Tensor:
    """Euler from noise to data in equal steps."""
    return solve(field, x, time_grid(n_steps))


#: what a network may be trained for: (its loss, what samples with it)
PROCESSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "flow": (flow_loss, sample_flow),
    "diffusion": (diffusion_loss, sample_diffusion),
}


class _KeepingGate:
    """A network, and the gate (B, 1, N', M') of its last call."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.gate = network, None

    def __call__(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        answer, self.gate = self.network(x_t, t, **condition, with_gate=True)
        return answer


class Generation:
    """Train a velocity network on latents, as a flow or as a diffusion.

    Args:
        text: frozen text encoder; every sentence is encoded once.
        process: "flow" or "diffusion".
        dropout: share of the examples that lose their words.
        mixture_dropout: share of the examples that are told silence in place of the mixture; needs the VAE.
        vae: decodes pictures, without it latents are shown; knows the latent of silence.
        n_steps: steps of a validation sample.
        n_sampled: examples of each validation batch that are sampled to the end; 0 leaves that out.
        time_power: of the times in training, see `lasslab.flow.flow_loss`; validation's are uniform.
        change: mean difference of two latents, whose variance is about 1, from which on a point is a `changed` one.
        change_weight: how much more an error counts where the target is another than what the network is told; see
            `weight`.
        gate_weight: of the gate's own loss, see `gate_loss`; the network must have one.
    """

    monitor = "fit"
    told = "mixture"  # the latent of a batch that the network is told

    def __init__(
        self,
        text: TextCache | None,
        process: str = "flow",
        *,
        dropout: float = 0.1,
        mixture_dropout: float = 0.0,
        vae: MelVAE | None = None,
        n_steps: int = 10,
        n_sampled: int = 4,
        time_power: float = 1.0,
        change: float = 0.5,
        change_weight: float = 0.0,
        gate_weight: float = 0.0,
    ) -> None:
        self.text, self.dropout, self.vae, self.n_steps, self.n_sampled = text, dropout, vae, n_steps, n_sampled
        if mixture_dropout and vae is None:
            raise ValueError("mixture_dropout needs vae=, which knows the latent of silence")
        self.mixture_dropout = mixture_dropout
        self._silence: dict[int, Tensor] = {}  # by length: the VAE is frozen
        self.time_power, self.gate_weight = time_power, gate_weight
        self.change, self.change_weight = change, change_weight
        self.process_loss, self.sample = PROCESSES[process]

    def conditions(self, network: nn.Module, batch: dict) -> tuple[Condition, Condition]:
        """`condition_on` of a batch."""
        return condition_on(batch["mixture"], self.text(batch["query"]).to(batch["mixture"].device))

    def loss(self, network: nn.Module, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean of the loss over the batch, with the gate's own where it counts."""
        if self.mixture_dropout:
            batch = batch | {self.told: self._some_silent(batch[self.told], generator)}
        condition, null = self.conditions(network, batch)
        asked = _KeepingGate(network) if self.gate_weight else network
        changed = self.changed(batch)
        losses = self.process_loss(
            asked,
            batch["target"],
            condition,
            generator=generator,
            null=null,
            dropout=self.dropout,
            time_power=self.time_power,
            weight=self.weight(changed),
        )
        if not self.gate_weight:
            return losses.mean(), {}
        gate = gate_loss(asked.gate, changed).mean()
        return losses.mean() + self.gate_weight * gate, {"gate": gate.detach()}

    def changed(self, batch: dict) -> Tensor:
        """Where the target is another than what the network is told (B, 1, N', M')."""
        return (batch["target"] - batch[self.told]).abs().mean(1, keepdim=True) > self.change

    def weight(self, changed: Tensor) -> Tensor | None:
        """How much the errors of a batch count: 1, and `change_weight` more where something has changed.

        Most of an edit is left as it was, and two noises together are nearly either of them. There an error says
        nothing about the words: a network that hands back what it is told has most of the loss behind it.

        Args:
            changed: where the target is another (B, 1, N', M').

        Returns:
            Weights (B, 1, N', M') with a mean of 1 in each example, for `flow_loss`; None where all count alike.
        """
        if not self.change_weight:
            return None
        weight = 1.0 + self.change_weight * changed
        return weight / weight.mean((1, 2, 3), keepdim=True)

    def _some_silent(self, mixture: Tensor, generator: torch.Generator) -> Tensor:
        """The latents of mixtures (B, Z, N', M'), but that of silence for a share of the examples."""
        silent = torch.rand(len(mixture), generator=generator, device=mixture.device) < self.mixture_dropout
        n_points = mixture.shape[2]
        if n_points not in self._silence:
            self._silence[n_points] = self.vae.silent_latent(n_points)
        return torch.where(silent[:, None, None, None], self._silence[n_points], mixture)

    def validate(self, network: nn.Module, batch: dict) -> dict[str, Tensor]:
        """Per example: minus the loss over eight fixed times and noises, and what `sampled` says of a sample."""
        condition, _ = self.conditions(network, batch)
        generator = torch.Generator(batch["target"].device).manual_seed(0)
        losses = [self.process_loss(network, batch["target"], condition, generator=generator) for _ in range(8)]
        figures = {"fit": -torch.stack(losses).mean(0)}
        if self.n_sampled:
            some = {key: value[: self.n_sampled] for key, value in batch.items()}
            figures |= self.sampled(self.sample_batch(network, some), some)
        return figures

    def sampled(self, made: Tensor, batch: dict) -> dict[str, Tensor]:
        """Per example: minus the mean squared difference to the target's latent, whose variance is about 1.

        It counts what was made up as an error, so it is no measure of quality, but it falls as the words and the
        mixture are understood.
        """
        return {"sampled": -(made - batch["target"]).square().flatten(1).mean(1)}

    def sampling_conditions(self, network: nn.Module, batch: dict) -> tuple[nn.Module, Condition]:
        """The network that is called at every step of a sample, and its condition."""
        return network, self.conditions(network, batch)[0]

    def sample_batch(self, network: nn.Module, batch: dict) -> Tensor:
        """Latents (B, Z, N', M') made for a batch from a fixed noise, without guidance."""
        network, condition = self.sampling_conditions(network, batch)
        generator = torch.Generator(batch["target"].device).manual_seed(0)
        noise = torch.randn(batch["target"].shape, generator=generator, device=generator.device)
        return self.sample(guided(network, condition, None, 1.0), noise, self.n_steps)

    def picture(self, network: nn.Module, batch: dict) -> dict[str, Tensor]:
        """What the network is told, the target and the estimate of the first example as log-mels on one scale."""
        batch = {key: value[:1] for key, value in batch.items()}
        latents = {name: batch[name] for name in (self.told, "target")} | {
            "estimate": self.sample_batch(network, batch)
        }
        if self.vae is None:
            pictures = {name: latent[0, 0].mT for name, latent in latents.items()}
        else:
            pictures = {name: self.vae.decode(latent)[0] for name, latent in latents.items()}
        low, high = pictures[self.told].min(), pictures[self.told].max()
        return {name: ((mel - low) / (high - low).clamp(min=1e-6)).clamp(0, 1) for name, mel in pictures.items()}


def gate_loss(gate: Tensor, changed: Tensor) -> Tensor:
    """Cross-entropy of a gate, taken for the probability that a point is another in the target than in what is told.

    Without it only the mixed answer of `VelocityNetwork` (1) counts, and a gate of one half is as good as any where the
    network's own answer has learned to copy.

    Args:
        gate: m in (0, 1), (B, 1, N', M').
        changed: where the two differ (B, 1, N', M').

    Returns:
        Mean over the points (B,), nats.
    """
    # the probability of what is so; torch's own cross-entropy of probabilities refuses to run under autocast
    right = torch.where(changed, gate, 1 - gate).float()
    return -right.clamp(min=1e-4).log().flatten(1).mean(1)


@dataclass(frozen=True)
class LatentRecipe(SoundRecipe):
    """A velocity network, the latent space it works in and the words it is told: what separation and editing share.

    Args:
        process: "flow" or "diffusion".
        size: of the network, see `lasslab.models.velocity.SIZES`.
        copies: whether the network has a gate that hands on what it is told, see `VelocityNetwork`.
        start_from: a checkpoint in the same latent space, by name or folder, to start the weights from; "" starts anew.
        vae: the latent space, see `lasslab.models.vae.load_vae`.
        text_encoder: see `lasslab.models.text.load_text_encoder`.
        text_dropout: share of the examples that lose their words, which guidance needs.
        time_power: above 1 trains more near noise, see `lasslab.flow.flow_loss`.
        change: difference of two latents from which on a point is another, see `Generation.changed`.
        change_weight: how much more an error counts there, see `Generation.weight`.
        gate_weight: how much the gate is told itself where it must open, see `gate_loss`; needs `copies`.
        n_validation: items to validate on, of clips that training never hears.
        corpus … device: see `lasslab.training.sounds.SoundRecipe`.
    """

    process: str = "flow"
    size: str = "lab"
    copies: bool = False
    start_from: str = ""
    vae: str = "mel-vae-lab"
    text_encoder: str = "minilm"
    seconds: float = 2.55  # 256 frames, 64 of the latent
    text_dropout: float = 0.1
    time_power: float = 1.0
    change: float = 0.5
    change_weight: float = 0.0
    gate_weight: float = 0.0
    reverse_polarity: bool = False  # a log-mel has no polarity
    n_validation: int = 64
    n_steps: int = 6_000
    warmup_steps: int = 200
    save_every: int = 250

    counts: ClassVar[tuple[str, ...]] = ("n_validation",)
    shares: ClassVar[tuple[str, ...]] = ("text_dropout",)

    def __post_init__(self) -> None:
        if self.process not in PROCESSES:
            raise ValueError(f"process is one of {', '.join(PROCESSES)}, got {self.process!r}")
        check_size(self.size, SIZES)
        check_at_least(self, 1, *self.counts)
        check_shares(self, *self.shares)
        if not self.time_power > 0:
            raise ValueError(f"time_power is a power above 0, got {self.time_power}: 1 draws times uniformly")
        for name in ("change", "change_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is 0 or more, got {getattr(self, name)}")
        if not self.gate_weight >= 0 or (self.gate_weight and not self.copies):
            raise ValueError(f"gate_weight is 0 or more and needs copies=true, got {self.gate_weight}")
        super().__post_init__()

    @property
    def where(self) -> str:
        """Device of what is not trained: encoders and the vocoder."""
        return "cuda" if self.device == "auto" and torch.cuda.is_available() else "cpu"

    def network(self, vae: MelVAE, *, text_dim: int) -> VelocityNetwork:
        """The velocity network, as wide as VAE and text encoder, with its initial weights."""
        torch.manual_seed(self.seed)
        sizes = {"text_dim": text_dim, "latent_channels": vae.config.latent_channels}
        return VelocityNetwork(replace(SIZES[self.size], **sizes, copies=self.process if self.copies else ""))

    def start(self, network: VelocityNetwork, vae: MelVAE, *, resume: bool) -> Path | None:
        """Load the weights that the recipe starts from, if any; a resumed run has its own.

        A flow's network gives x_1 - x_0 and a diffusion's x_0. Where one starts from the other, the last layer is
        turned round and halved: as it stands the mean squared error would begin near 5, which throws the network out
        of what it has learned, and so it begins near 0.5.

        Args:
            network: changed in place.
            vae: the latent space.
            resume: whether the run continues what is there.

        Returns:
            The folder of the checkpoint, if one was loaded.

        Raises:
            ValueError: there is no such checkpoint, it does not fit, it has a gate that the recipe has not, or it was
                trained in another latent space.
        """
        if not self.start_from or resume:
            return None
        folder = find_checkpoint(self.start_from)
        about = read_config(folder)
        if about.get("vae_sha256", "") not in ("", weights_sha256(vae)):
            raise ValueError(
                f"{folder / CONFIG_FILE}: its weights were trained with another VAE than this one: start from a "
                "checkpoint of the same latent space, or anew with start_from="
            )
        has_gate = bool(about.get("network", {}).get("copies"))
        if has_gate and not self.copies:
            raise ValueError(f"{folder / CONFIG_FILE}: its network has a gate: start from it with copies=true")
        load_weights(network, folder, translate=network.with_gate if self.copies and not has_gate else None)
        if not about.get("system", self.process).startswith(self.process):
            with torch.no_grad():
                for weights in network.blocks.conv_out.parameters():
                    weights[: vae.config.latent_channels].mul_(-0.5)
        return folder

    def about(self, network: VelocityNetwork, vae: MelVAE) -> dict[str, Any]:
        """What the loader of a checkpoint reads, whatever it is trained for."""
        return {
            "network": network.config.to_dict(),
            "vae": self.vae,
            "vae_sha256": weights_sha256(vae),
            "vae_network": vae.config.to_dict(),
            "text_encoder": self.text_encoder,
            "sample_rate": SAMPLE_RATE,
            "window_seconds": self.seconds,
        }


@dataclass(frozen=True)
class GenerationRecipe(LatentRecipe):
    """A separator that generates, the sounds it sees, and how it is trained.

    Args:
        n_mixtures: mixtures that are encoded, once, and seen again and again.
        absent, hard, reword: shares of the items, see `lasslab.data.mixtures.MixtureDataset`.
        focus: labels with a plus between them that are mixed with each other in `focus_share` of the items; one needs
            the other.
        mixture_dropout: share of the examples that are told silence in place of the mixture; see `Generation`.
        process … device: see `LatentRecipe`; validation is at 0 dB.
    """

    n_mixtures: int = 16_384
    snr_low: float = -15.0
    snr_high: float = 15.0
    absent: float = 0.05
    hard: float = 0.0
    focus: str = ""
    focus_share: float = 0.0
    reword: float = 0.3
    mixture_dropout: float = 0.1
    validate_every: int = 250

    counts: ClassVar[tuple[str, ...]] = ("n_mixtures", "n_validation")
    shares: ClassVar[tuple[str, ...]] = ("text_dropout", "mixture_dropout", "hard", "focus_share")

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.focus) != bool(self.focus_share):
            raise ValueError(
                f"focus and focus_share need each other, got {self.focus!r} and {self.focus_share}: name the labels and"
                " the share of the items, or neither"
            )

    @property
    def objective(self) -> str:
        """What `lasslab train` is asked for."""
        return self.process


#: of every quick recipe in a latent space
QUICK: dict[str, Any] = {
    "size": "quick",
    "corpus": "synthesis",
    "n_per_class": 4,
    "batch_size": 8,
    "warmup_steps": 5,
    "ema_decay": 0.9,
}
#: of FlowSep and RFM-Editing both: 10.24 s, FLAN-T5-large, AudioLDM's VAE, AdamW 5e-5, batch 8, sounds as they are
PUBLISHED: dict[str, Any] = {
    "size": "full",
    "vae": "cvssp/audioldm-s-full-v2",
    "text_encoder": "google/flan-t5-large",
    "corpus": "esc50",
    "seconds": 10.23,
    "absent": 0.0,
    "speed": 0.0,
    "filter_db": 0.0,
    "shift": False,
    "batch_size": 8,
    "learning_rate": 5e-5,
    "warmup_steps": 0,
    "ema_decay": 0.9999,
    "mixed_precision": "bf16",
    "n_workers": 4,
    "save_every": 5_000,
}

FLOW_PRESETS: dict[str, GenerationRecipe] = {
    "quick": GenerationRecipe(
        **QUICK,
        n_mixtures=256,
        n_steps=60,
        n_validation=8,
        validate_every=30,
        save_every=30,
        picture_every=30,
    ),
    # With a gate, which FlowSep has not, and most times near noise, where nothing but mixture and words can say what
    # the sound is. A chainsaw in rain differs from that mixture by 0.3 in the mean: a change is what is well below.
    # Most interferences are rivals: drawn at random, 2.4 % ask for a chainsaw or a helicopter in rain or waves.
    "lab": GenerationRecipe(copies=True, gate_weight=0.5, change=0.2, change_weight=3.0, time_power=3.0, hard=0.75),
    # FlowSep: 1 M steps; the mixture is never dropped
    "full": GenerationRecipe(
        **PUBLISHED,
        n_mixtures=100_000,
        mixture_dropout=0.0,
        reword=0.0,
        n_steps=1_000_000,
        validate_every=5_000,
        picture_every=10_000,
    ),
}

#: the same in everything but the process
DIFFUSION_PRESETS = {name: replace(recipe, process="diffusion") for name, recipe in FLOW_PRESETS.items()}


def train_generation(
    recipe: GenerationRecipe, directory: str | Path, *, resume: bool = False, progress: bool = True
) -> FitResult:
    """Train a velocity network as a recipe says, into a folder that `load_separator` reads.

    Args:
        recipe: everything that decides the run.
        directory: folder of the training.
        resume: continue the training in the folder.
        progress: show bars.

    Returns:
        What was reached.

    Raises:
        ValueError: when a corpus, an encoder, the VAE or a setting is not there; see `fit`.
    """
    check_folder(recipe, directory, resume=resume)
    encoder = load_text_encoder(recipe.text_encoder, device=recipe.where)
    vae = load_vae(recipe.vae, device=recipe.where)
    network = recipe.network(vae, text_dim=encoder.dim)
    recipe.start(network, vae, resume=resume)
    heard, unheard = training_mixtures(recipe), validation_mixtures(recipe)  # both, before the long encoding
    held_out = LatentPairs(unheard, vae, progress=progress)
    dataset = LatentPairs(heard, vae, progress=progress)
    text = cached_text(encoder, {*dataset.sentences, *held_out.sentences})
    return fit_recipe(
        recipe,
        network,
        Generation(
            text,
            recipe.process,
            dropout=recipe.text_dropout,
            mixture_dropout=recipe.mixture_dropout,
            vae=vae,
            time_power=recipe.time_power,
            change=recipe.change,
            change_weight=recipe.change_weight,
            gate_weight=recipe.gate_weight,
        ),
        dataset,
        directory=directory,
        validation=collated([held_out[index] for index in range(len(held_out))], 16),
        about={"system": recipe.process, **recipe.about(network, vae)},
        resume=resume,
        progress=progress,
    )


def training_mixtures(recipe: GenerationRecipe) -> MixtureDataset:
    """The mixtures of the run, as waveforms."""
    return drawn_mixtures(
        recipe,
        n=recipe.n_mixtures,
        absent=recipe.absent,
        hard=recipe.hard,
        focus=recipe.focus.split("+") if recipe.focus else (),
        focus_share=recipe.focus_share,
        reword=recipe.reword,
    )


def validation_mixtures(recipe: GenerationRecipe) -> MixtureDataset:
    """Mixtures at 0 dB of clips that training never hears."""
    return held_out_mixtures(recipe, n=recipe.n_validation, seconds=recipe.seconds)
