"""Train a network that masks: the sounds it hears, the sentences it reads, and the settings of its presets.

Everything that decides a run is one flat record, which the command line can change.
"""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from torch.utils.data import default_collate

from lasslab.data.corpora import load_corpus
from lasslab.data.crops import Augmentation
from lasslab.data.mixtures import MixtureDataset, mix_batch
from lasslab.evaluation.provenance import device_name, git_commit
from lasslab.models.checkpoints import find_checkpoint, load_weights
from lasslab.models.mask_networks import MASK_NETWORKS
from lasslab.models.text import load_text_encoder
from lasslab.training.fit import FitConfig, FitResult, fit
from lasslab.training.objectives import Masking, MaskingWeights
from lasslab.training.runs import check_folder, write_recipe
from lasslab.training.sounds import training_clips


@dataclass(frozen=True)
class MaskingRecipe:
    """A masking network, the sounds it hears, and how it is trained.

    Args:
        architecture: of the network, see `lasslab.models.mask_networks`.
        size: of the network, a key of its `SIZES`.
        start_from: checkpoint, by name or folder, whose weights the training starts with; empty for random ones.
        text_encoder: see `lasslab.models.text.load_text_encoder`.
        corpus: "synthesis", "esc50", or "synthesis+esc50".
        folds: ESC-50 folds to train on.
        validation_folds: ESC-50 folds to validate on; with synthesis alone, clips of another seed.
        n_per_class: synthesised clips of each class.
        synthesis_share: probability that a clip is a synthesised one, where both corpora are there.
        seconds: length of a training mixture.
        snr_low, snr_high: range of the SNR in dB.
        equal_loudness: mix at equal loudness instead (the thesis).
        max_similarity: threshold of the cosine filter; 0 is no filter.
        third_source, absent, reword: shares of the items, see `lasslab.data.mixtures.MixtureDataset`.
        speed, filter_db, shift, reverse_polarity: see `lasslab.data.crops.Augmentation`.
        loss_*: weights of the terms, see `lasslab.training.objectives.MaskingWeights`.
        n_validation: mixtures to validate on, at 0 dB.
        n_steps … device: see `lasslab.training.fit.FitConfig`.
    """

    architecture: str = "resunetpp"
    size: str = "lab"
    start_from: str = ""
    text_encoder: str = "minilm"
    corpus: str = "synthesis+esc50"
    folds: tuple[int, ...] = (1, 2, 3)
    validation_folds: tuple[int, ...] = (4,)
    n_per_class: int = 40
    synthesis_share: float = 0.35
    seconds: float = 2.544  # 160 frames: no padding inside the network
    snr_low: float = -10.0
    snr_high: float = 10.0
    equal_loudness: bool = False
    max_similarity: float = 0.0
    third_source: float = 0.0
    absent: float = 0.0
    reword: float = 0.0
    speed: float = 0.12
    filter_db: float = 5.0
    shift: bool = True
    reverse_polarity: bool = True
    loss_spectral_convergence: float = 0.5
    loss_log_magnitude: float = 0.1
    loss_waveform: float = 0.0
    loss_sdr: float = 1.0
    loss_si_sdr: float = 0.25
    loss_absent: float = 1.0
    n_validation: int = 64
    n_steps: int = 3_600
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-6
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_grad_norm: float = 5.0
    ema_decay: float = 0.998
    mixed_precision: str = "no"
    n_workers: int = 1
    log_every: int = 10
    validate_every: int = 250
    save_every: int = 250
    picture_every: int = 500
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.architecture not in MASK_NETWORKS:
            raise ValueError(f"architecture is one of {', '.join(MASK_NETWORKS)}, got {self.architecture!r}")
        sizes = MASK_NETWORKS[self.architecture].sizes
        if self.size not in sizes:
            raise ValueError(f"size is one of {', '.join(sizes)}, got {self.size!r}")
        self.fit_config()  # checks its own values

    def fit_config(self) -> FitConfig:
        """The part that `fit` reads."""
        return FitConfig(**{field.name: getattr(self, field.name) for field in fields(FitConfig)})

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
    if recipe.start_from and not resume:
        load_weights(network, find_checkpoint(recipe.start_from))
    dataset, validation = training_mixtures(recipe), validation_batches(recipe)
    # Everything is there: from here on the folder may be written to.
    write_recipe(recipe, directory)
    return fit(
        network,
        objective,
        dataset,
        directory=directory,
        config=recipe.fit_config(),
        validation=validation,
        checkpoint_config={
            "system": "mask",
            "architecture": recipe.architecture,
            "network": network_config.to_dict(),
            "text_encoder": recipe.text_encoder,
            "sample_rate": 16_000,
            "n_fft": 512,
            "hop_length": 256,
            "top_db": 80.0,
            "recipe": asdict(recipe),
            "provenance": {
                "commit": git_commit(),
                "torch": torch.__version__,
                "device": device_name(None if recipe.device == "auto" else recipe.device),
            },
        },
        resume=resume,
        progress=progress,
    )


def training_mixtures(recipe: MaskingRecipe) -> MixtureDataset:
    """Every mixture of the run, each seen once; with a filter, 17,000 as in the thesis, seen again and again."""
    clips, weights = training_clips(recipe)
    needed = recipe.n_steps * recipe.batch_size * recipe.accumulate
    return MixtureDataset(
        clips,
        n=min(needed, 17_000) if recipe.max_similarity else needed,
        seconds=recipe.seconds,
        snr_db=None if recipe.equal_loudness else (recipe.snr_low, recipe.snr_high),
        max_similarity=recipe.max_similarity or None,
        weights=weights,
        augmentation=Augmentation(
            speed=recipe.speed,
            filter_db=recipe.filter_db,
            shift=recipe.shift,
            reverse_polarity=recipe.reverse_polarity,
        ),
        third_source=recipe.third_source,
        absent=recipe.absent,
        reword=recipe.reword,
        seed=recipe.seed,
    )


def validation_batches(recipe: MaskingRecipe) -> list[dict]:
    """Fixed 5 s mixtures at 0 dB of clips that training never hears."""
    if "esc50" in recipe.corpus:
        clips = load_corpus("esc50", folds=recipe.validation_folds)
    else:
        clips = load_corpus("synthesis", n_per_class=2, seed=recipe.seed + 1)
    dataset = MixtureDataset(clips, n=recipe.n_validation, seconds=5.0, snr_db=(0.0, 0.0), seed=recipe.seed + 1)
    items = [dataset[index] for index in range(len(dataset))]
    return [mix_batch(default_collate(items[first : first + 8])) for first in range(0, len(items), 8)]
