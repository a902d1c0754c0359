"""Train what edits: the flow (RFM-Editing) and the diffusion (AUDIT), one network, two losses, the same triplets.

The network is the one of separation with the original in the mixture's place, so it may start from the weights of a
separator in the same latent space; the words are instructions, which the text encoder learns to read through LoRA.
Validation edits a fixed set to the end and asks the embedding how close each result is to the caption of its target
(RFM-Editing, section 3.2); the best checkpoint by that figure is kept.

`lasslab train edit`, `lasslab train audit`. Notebooks 14 and 15.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from lasslab.data.edits import EditDataset
from lasslab.data.mixtures import MixtureDataset
from lasslab.flow import Condition, drop
from lasslab.models.bigvgan import load_vocoder
from lasslab.models.clap import AudioTextEmbedding, load_clap
from lasslab.models.editing import EditNetwork, instruct, save_edit_network
from lasslab.models.lora import ADAPTER_FOLDER, LoRAConfig, adapt, load_adapter, trainable_parameters
from lasslab.models.text import TextEncoder, load_text_encoder
from lasslab.models.vae import REDUCTION, MelVAE, load_vae
from lasslab.models.velocity import condition_on
from lasslab.systems.codec import LatentCodec
from lasslab.systems.editing import T_START
from lasslab.training.fit import FitResult
from lasslab.training.generation import PUBLISHED, QUICK, Generation, GenerationRecipe, LatentRecipe, training_mixtures
from lasslab.training.latents import LatentPairs
from lasslab.training.runs import check_folder, fit_recipe
from lasslab.training.sounds import collated, held_out_clips, training_clips

REHEARSED = "separate"  # the task of a mixture among the edits
OBJECTIVES = {"flow": "edit", "diffusion": "audit"}  # process -> what `lasslab train` is asked for


class Editing(Generation):
    """Train an edit network on latents, as a flow or as a diffusion.

    Args:
        codec: VAE and vocoder: validation listens to whole edits; None leaves that out.
        embedding: of sounds and sentences, which judges them.
        process, dropout, n_steps, time_power, change, change_weight, gate_weight: see `Generation`.
        n_sampled: examples of each validation batch that are edited to the end; 0 leaves that out.
    """

    told = "original"

    def __init__(
        self,
        codec: LatentCodec | None = None,
        embedding: AudioTextEmbedding | None = None,
        process: str = "flow",
        *,
        dropout: float = 0.1,
        n_steps: int = 10,
        n_sampled: int = 16,
        time_power: float = 1.0,
        change: float = 0.5,
        change_weight: float = 0.0,
        gate_weight: float = 0.0,
    ) -> None:
        super().__init__(
            None,
            process,
            dropout=dropout,
            vae=codec and codec.vae,
            n_steps=n_steps,
            n_sampled=n_sampled if codec and embedding else 0,
            time_power=time_power,
            change=change,
            change_weight=change_weight,
            gate_weight=gate_weight,
        )
        self.codec = codec
        self.embedding = embedding
        self.monitor = "clap" if self.n_sampled else "fit"

    def conditions(self, network: nn.Module, batch: dict) -> tuple[Condition, Condition]:
        """`instruct` of a batch; what is rehearsed keeps its words, its null condition is its condition.

        Without words an editor shall know what edits have in common, their base, and no more. Had it seen single sounds
        without words as well, it would expect less of the base there, and guidance, which goes away from that, would
        make every base too loud.
        """
        ids, mask = _plain(network).encoder.tokenise(batch["instruction"])
        condition, null = instruct(batch["original"], ids, mask)
        rehearsed = torch.tensor([task == REHEARSED for task in batch["task"]], device=ids.device)
        return condition, drop(null, condition, rehearsed)

    def sampling_conditions(self, network: nn.Module, batch: dict) -> tuple[nn.Module, Condition]:
        """The velocity network itself, and its condition: the instruction is read once, not at every step."""
        plain = _plain(network)
        text = plain.encoder.encode(*plain.encoder.tokenise(batch["instruction"]))
        return plain.velocity, condition_on(batch["original"], text)[0]

    def sampled(self, made: Tensor, batch: dict) -> dict[str, Tensor]:
        """How close the sounds made are to the captions of their targets, and their latents to the targets' own."""
        waveforms = self.codec.decode(
            made[:, None],
            torch.ones(len(made), 1, 1, device=made.device),
            n_samples=made.shape[2] * REDUCTION * self.codec.vae.mel.hop_length,
        )[:, 0]
        sounds = self.embedding.embed_audio(waveforms)
        words = self.embedding.embed_text(batch["caption"]).to(sounds)
        return {"clap": (sounds * words).sum(-1).to(made), **super().sampled(made, batch)}


def _plain(network: nn.Module) -> EditNetwork:
    return getattr(network, "module", network)


@dataclass(frozen=True)
class EditRecipe(LatentRecipe):
    """An editor, the edits it sees, and how it is trained.

    Args:
        vocoder: see `lasslab.models.bigvgan.load_vocoder`.
        rank, alpha: of LoRA; rank 0 leaves the text encoder as it is.
        adapter_rate: learning rate of the adapter as a share of the rest's, see `lasslab.models.editing.EditNetwork`.
        embedding: judges validation edits, see `lasslab.models.clap.load_clap`; "" validates by the loss alone.
        n_edits: triplets that are encoded, once, and seen again and again; six to a group.
        n_rehearsed: mixtures among the edits, to be separated by a query as `flow` and `diffusion` learn it. A network
            that starts from a separator and sees edits alone learns to hand back the original first, and forgets
            meanwhile which sound a name means.
        most_base_clips, level_low, level_high, absent: see `lasslab.data.edits.EditDataset`.
        process … device: see `lasslab.training.generation.LatentRecipe`; it may start from a separator or an editor,
            and the SNR is not used.
    """

    vocoder: str = "bigvgan-lab"
    rank: int = 8
    alpha: float = 16.0
    adapter_rate: float = 0.1
    embedding: str = "clap-lab"
    n_edits: int = 12_288
    n_rehearsed: int = 0
    most_base_clips: int = 2
    level_low: float = -3.0
    level_high: float = 9.0
    absent: float = 0.15
    n_validation: int = 48
    batch_size: int = 8
    learning_rate: float = 5e-4
    ema_decay: float = 0.998
    validate_every: int = 500

    counts: ClassVar[tuple[str, ...]] = ("n_edits", "n_validation")

    def __post_init__(self) -> None:
        if self.rank < 0 or not self.alpha > 0 or not self.adapter_rate > 0:
            raise ValueError(
                f"rank is 0 or more, alpha and adapter_rate positive, got {self.rank}, {self.alpha} and "
                f"{self.adapter_rate}"
            )
        if self.n_rehearsed < 0:
            raise ValueError(f"n_rehearsed is a number of mixtures, 0 or more, got {self.n_rehearsed}")
        super().__post_init__()

    @property
    def objective(self) -> str:
        """What `lasslab train` is asked for."""
        return OBJECTIVES[self.process]


EDIT_PRESETS: dict[str, EditRecipe] = {
    "quick": EditRecipe(
        **QUICK,
        n_edits=96,
        n_steps=40,
        n_validation=6,
        validate_every=20,
        save_every=20,
        picture_every=20,
    ),
    # It starts from the separator: the same network, told the original in the mixture's place. Near noise nothing but
    # the original and the words can say what is to change, and there an edit is decided: most of the times are there.
    "lab": EditRecipe(
        start_from="flowsep-lab",
        copies=True,
        n_edits=9_216,
        n_rehearsed=2_304,
        time_power=4.0,
        gate_weight=0.5,
        change_weight=3.0,
        learning_rate=4e-4,
        warmup_steps=50,
    ),
    # RFM-Editing: 100 epochs
    "full": EditRecipe(
        **PUBLISHED,
        adapter_rate=1.0,
        vocoder="cvssp/audioldm-s-full-v2",
        embedding="laion/clap-htsat-unfused",
        n_edits=234_636,
        n_validation=1_000,
        n_steps=2_933_000,
        validate_every=29_330,
        picture_every=29_330,
    ),
}

AUDIT_PRESETS: dict[str, EditRecipe] = {
    name: replace(recipe, process="diffusion", start_from=recipe.start_from and "diffsep-lab")
    for name, recipe in EDIT_PRESETS.items()
}


def train_editing(
    recipe: EditRecipe, directory: str | Path, *, resume: bool = False, progress: bool = True
) -> FitResult:
    """Train an edit network as a recipe says, into a folder that `load_editor` reads.

    Args:
        recipe: everything that decides the run.
        directory: folder of the training.
        resume: continue the training in the folder.
        progress: show bars.

    Returns:
        What was reached.

    Raises:
        ValueError: when a corpus, an encoder, the VAE or a setting is not there, or the weights to start from are of
            another latent space; see `fit`.
    """
    check_folder(recipe, directory, resume=resume)
    vae = load_vae(recipe.vae, device=recipe.where)
    codec = LatentCodec(vae, load_vocoder(recipe.vocoder, device=recipe.where))
    network = edit_network(recipe, vae, resume=resume)
    heard, unheard = training_edits(recipe), validation_edits(recipe)
    held_out = LatentPairs(unheard, vae, progress=progress)
    dataset: Dataset = LatentPairs(heard, vae, progress=progress)
    if recipe.n_rehearsed:
        mixtures = LatentPairs(rehearsed_mixtures(recipe), vae, progress=progress)
        dataset = ConcatDataset([dataset, AsEdits(mixtures)])
    dataset = shuffled(dataset, seed=recipe.seed)
    embedding = load_clap(recipe.embedding, device=recipe.where) if recipe.embedding else None
    n_trained, n_text = trainable_parameters(network.encoder.model)
    return fit_recipe(
        recipe,
        network,
        Editing(
            codec,
            embedding,
            recipe.process,
            dropout=recipe.text_dropout,
            time_power=recipe.time_power,
            change=recipe.change,
            change_weight=recipe.change_weight,
            gate_weight=recipe.gate_weight,
        ),
        dataset,
        directory=directory,
        validation=collated([held_out[index] for index in range(len(held_out))], 16),
        about={
            "system": f"{recipe.process}-editor",
            **recipe.about(network.velocity, vae),
            "vocoder": recipe.vocoder,
            "trained_text_parameters": [n_trained, n_text],
            "t_start": T_START if recipe.process == "flow" else 0.0,
        },
        save=save_edit_network,
        resume=resume,
        progress=progress,
    )


def edit_network(recipe: EditRecipe, vae: MelVAE, *, resume: bool = False) -> EditNetwork:
    """The network of a recipe, with the weights that it starts from.

    Args:
        recipe: says which.
        vae: the latent space.
        resume: whether the run continues what is there, and loads its own weights.

    Returns:
        Velocity network and text encoder with its adapter.

    Raises:
        ValueError: there is no such checkpoint, or it does not fit, or it was trained in another latent space.
    """
    encoder = load_text_encoder(recipe.text_encoder, device=recipe.where)
    if not isinstance(encoder, TextEncoder):
        raise ValueError(f"text_encoder={recipe.text_encoder!r} has no words: an editor is told what to do")
    network = recipe.network(vae, text_dim=encoder.dim)  # it seeds the adapter's initial weights, too
    start = recipe.start(network, vae, resume=resume)
    if start and (start / ADAPTER_FOLDER).is_dir():
        encoder = load_adapter(encoder, start, trainable=True)
    elif recipe.rank:
        encoder = adapt(encoder, LoRAConfig(rank=recipe.rank, alpha=recipe.alpha))
    return EditNetwork(network, encoder, adapter_rate=recipe.adapter_rate)


def training_edits(recipe: EditRecipe) -> EditDataset:
    """The edits of the run, as waveforms."""
    clips, weights = training_clips(recipe)
    return EditDataset(
        clips, n=recipe.n_edits, weights=weights, augmentation=recipe.augmentation(), **_mixing(recipe, recipe.seed)
    )


def validation_edits(recipe: EditRecipe) -> EditDataset:
    """Edits of clips that training never hears, unchanged."""
    settings = _mixing(recipe, recipe.seed + 1) | {"absent": 0.0}
    return EditDataset(held_out_clips(recipe, n_per_class=4), n=recipe.n_validation, **settings)


def rehearsed_mixtures(recipe: EditRecipe) -> MixtureDataset:
    """The mixtures that a separator in the same latent space would be trained on."""
    shared = {field.name: getattr(recipe, field.name) for field in fields(LatentRecipe)}
    for name in ("snr_low", "snr_high"):  # an editor has no use for them; the separator's own
        del shared[name]
    return training_mixtures(GenerationRecipe(**shared, n_mixtures=recipe.n_rehearsed))


def shuffled(dataset: Dataset, *, seed: int) -> Dataset:
    """The items in an order that is random from the start.

    `fit` takes a dataset's own order for random the first time through. Edits come six of three sounds in a row, and
    what is rehearsed after them: a batch would hold one scene, and the rehearsal come when all is forgotten.
    """
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    return Subset(dataset, order.tolist())


class AsEdits(Dataset):
    """Mixtures among edits: the query is the instruction, what it names the target.

    Args:
        mixtures: items as of `LatentPairs` of a `MixtureDataset`.
    """

    def __init__(self, mixtures: LatentPairs) -> None:
        self.mixtures = mixtures

    def __len__(self) -> int:
        return len(self.mixtures)

    def __getitem__(self, index: int) -> dict:
        item = self.mixtures[index]
        words = {"instruction": item["query"], "task": REHEARSED, "caption": item["query"]}
        return {"original": item["mixture"], "target": item["target"], "removed_label": "", "added_label": ""} | words


def _mixing(recipe: EditRecipe, seed: int) -> dict[str, Any]:
    return {
        "seconds": recipe.seconds,
        "most_base_clips": recipe.most_base_clips,
        "level_db": (recipe.level_low, recipe.level_high),
        "absent": recipe.absent,
        "seed": seed,
    }
