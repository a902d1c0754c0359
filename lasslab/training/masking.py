"""Train a network that masks: the sounds it hears, the sentences it reads, and the settings of its presets.

Everything that decides a run is one flat record, which the command line can change.
"""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch

from lasslab.data.mixtures import MixtureDataset
from lasslab.models.mask_networks import MASK_NETWORKS
from lasslab.models.text import load_text_encoder
from lasslab.training.fit import FitResult, check_at_least
from lasslab.training.objectives import Masking, MaskingWeights
from lasslab.training.runs import check_folder, fit_recipe, start_weights
from lasslab.training.sounds import SoundRecipe, check_size, drawn_mixtures, held_out_mixtures, mixed_batches


@dataclass(frozen=True)
class MaskingRecipe(SoundRecipe):
    """A masking network, the sounds it hears, and how it is trained.

    Args:
        architecture: of the network, see `lasslab.models.mask_networks`.
        size: of the network, a key of its `SIZES`.
        start_from: checkpoint, by name or folder, whose weights the training starts with; empty for random ones.
        text_encoder: see `lasslab.models.text.load_text_encoder`.
        equal_loudness: mix at equal loudness instead (the thesis).
        max_similarity: threshold of the cosine filter; 0 is no filter.
        third_source, absent, reword: shares of the items, see `lasslab.data.mixtures.MixtureDataset`.
        loss_*: weights of the terms, see `lasslab.training.objectives.MaskingWeights`.
        n_validation: mixtures to validate on, at 0 dB.
        corpus … device: see `lasslab.training.sounds.SoundRecipe`.
    """

    architecture: str = "resunetpp"
    size: str = "lab"
    start_from: str = ""
    text_encoder: str = "minilm"
    seconds: float = 2.544  # 160 frames: no padding inside the network
    equal_loudness: bool = False
    max_similarity: float = 0.0
    third_source: float = 0.0
    absent: float = 0.0
    reword: float = 0.0
    loss_spectral_convergence: float = 0.5
    loss_log_magnitude: float = 0.1
    loss_waveform: float = 0.0
    loss_sdr: float = 1.0
    loss_si_sdr: float = 0.25
    loss_absent: float = 1.0
    n_validation: int = 64
    n_steps: int = 3_600
    max_grad_norm: float = 5.0
    ema_decay: float = 0.998
    n_workers: int = 1
    validate_every: int = 250
    save_every: int = 250

    def __post_init__(self) -> None:
        if self.architecture not in MASK_NETWORKS:
            raise ValueError(f"architecture is one of {', '.join(MASK_NETWORKS)}, got {self.architecture!r}")
        check_size(self.size, MASK_NETWORKS[self.architecture].sizes)
        check_at_least(self, 0, *(field.name for field in fields(self) if field.name.startswith("loss_")))
        check_at_least(self, 1, "n_validation")
        super().__post_init__()

    def weights(self) -> MaskingWeights:
        """The part that the loss reads."""
        names = {field.name for field in fields(MaskingWeights)}
        return MaskingWeights(
            **{
                name.removeprefix("loss_"): value
                for name, value in asdict(self).items()
                if name.removeprefix("loss_") in names
            }
        )


MASKING_PRESETS: dict[str, MaskingRecipe] = {
    "quick": MaskingRecipe(
        size="quick",
        corpus="synthesis",
        n_per_class=4,
        n_steps=60,
        batch_size=8,
        warmup_steps=5,
        ema_decay=0.9,
        n_validation=16,
        validate_every=30,
        save_every=30,
        picture_every=30,
        n_workers=0,
    ),
    "lab": MaskingRecipe(),
    # what follows "lab": harder mixtures, questions about what is not there, words around the captions
    "lab_second": MaskingRecipe(
        start_from="runs/lab/best",
        synthesis_share=0.3,
        third_source=0.25,
        absent=0.2,
        reword=0.3,
        n_steps=1_000,
        learning_rate=5e-4,
        warmup_steps=50,
        validate_every=100,
        save_every=100,
        seed=1,
    ),
    # 17,000 mixtures x 200 epochs / batch 16; Adam 1e-4 down to 1e-6; 15 s; filtered at 0.75; loss SC + log magnitude
    "full": MaskingRecipe(
        size="full",
        text_encoder="google/flan-t5-base",
        corpus="esc50",
        seconds=15.0,
        equal_loudness=True,
        max_similarity=0.75,
        speed=0.0,
        filter_db=0.0,
        shift=False,
        reverse_polarity=False,
        loss_spectral_convergence=1.0,
        loss_log_magnitude=1.0,
        loss_sdr=0.0,
        loss_si_sdr=0.0,
        loss_absent=0.0,
        n_steps=212_500,
        learning_rate=1e-4,
        warmup_steps=0,
        weight_decay=0.0,
        ema_decay=0.0,
        mixed_precision="bf16",
        n_workers=4,
        validate_every=1_000,
        save_every=1_000,
        picture_every=5_000,
    ),
}


def train_masking(
    recipe: MaskingRecipe, directory: str | Path, *, resume: bool = False, progress: bool = True
) -> FitResult:
    """Train a masking network as a recipe says, into a folder that `load_separator` reads.

    Args:
        recipe: everything that decides the run.
        directory: folder of the training.
        resume: continue the training in the folder.
        progress: show a bar.

    Returns:
        What was reached.

    Raises:
        ValueError: when a corpus, an encoder or a setting is not there; see `fit`.
    """
    check_folder(recipe, directory, resume=resume)
    text = load_text_encoder(recipe.text_encoder)
    kind = MASK_NETWORKS[recipe.architecture]
    network_config = replace(kind.sizes[recipe.size], text_dim=text.dim)
    torch.manual_seed(recipe.seed)  # the initial weights
    network, objective = kind.build(network_config), Masking(text, recipe.weights())
    start_weights(network, recipe, resume=resume)
    return fit_recipe(
        recipe,
        network,
        objective,
        training_mixtures(recipe),
        directory=directory,
        validation=validation_batches(recipe),
        about={
            "system": "mask",
            "architecture": recipe.architecture,
            "network": network_config.to_dict(),
            "text_encoder": recipe.text_encoder,
            "sample_rate": 16_000,
            "n_fft": 512,
            "hop_length": 256,
            "top_db": 80.0,
        },
        resume=resume,
        progress=progress,
    )


def training_mixtures(recipe: MaskingRecipe) -> MixtureDataset:
    """Every mixture of the run, each seen once; with a filter, 17,000 as in the thesis, seen again and again."""
    needed = recipe.n_steps * recipe.batch_size * recipe.accumulate
    changes = {"snr_db": None} if recipe.equal_loudness else {}
    return drawn_mixtures(
        recipe,
        n=min(needed, 17_000) if recipe.max_similarity else needed,
        max_similarity=recipe.max_similarity or None,
        third_source=recipe.third_source,
        absent=recipe.absent,
        reword=recipe.reword,
        **changes,
    )


def validation_batches(recipe: MaskingRecipe) -> list[dict]:
    """Fixed 5 s mixtures at 0 dB of clips that training never hears."""
    return mixed_batches(held_out_mixtures(recipe, n=recipe.n_validation), batch_size=8)
