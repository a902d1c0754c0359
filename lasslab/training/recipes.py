"""What `lasslab train` trains: everything that decides a run, as one flat record that the command line can change.

`quick` shows in about two minutes that the pieces fit; `lab` made the checkpoints that ship; `full` is the thesis's
setting.
"""

import difflib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from torch.utils.data import default_collate

from lasslab.data.corpora import Clip, load_corpus
from lasslab.data.mixtures import Augmentation, MixtureDataset, mix_batch
from lasslab.evaluation.provenance import device_name, git_commit
from lasslab.models.resunetpp import SIZES, ResUNetPlusPlus
from lasslab.models.text import load_text_encoder
from lasslab.signal.files import write_json
from lasslab.training.fit import STATE_FILE, FitConfig, FitResult, fit
from lasslab.training.objectives import Masking, MaskingWeights

RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class MaskingRecipe:
    """A masking network, the sounds it hears, and how it is trained.

    Args:
        size: of the network, see `lasslab.models.resunetpp.SIZES`.
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
        speed, filter_db, shift, reverse_polarity: see `lasslab.data.mixtures.Augmentation`.
        loss_*: weights of the terms, see `lasslab.training.objectives.MaskingWeights`.
        n_validation: mixtures to validate on, at 0 dB.
        n_steps … device: see `lasslab.training.fit.FitConfig`.
    """

    size: str = "lab"
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
    speed: float = 0.12
    filter_db: float = 5.0
    shift: bool = True
    reverse_polarity: bool = True
    loss_spectral_convergence: float = 0.5
    loss_log_magnitude: float = 0.1
    loss_waveform: float = 0.0
    loss_sdr: float = 1.0
    loss_si_sdr: float = 0.25
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
        if self.size not in SIZES:
            raise ValueError(f"size is one of {', '.join(SIZES)}, got {self.size!r}")
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
    _check_same_recipe(recipe, Path(directory), resume=resume)
    text = load_text_encoder(recipe.text_encoder)
    network_config = replace(SIZES[recipe.size], text_dim=text.dim)
    torch.manual_seed(recipe.seed)  # the initial weights
    network, objective = ResUNetPlusPlus(network_config), Masking(text, recipe.weights())
    dataset, validation = training_mixtures(recipe), validation_batches(recipe)
    # Everything is there: from here on the folder may be written to.
    Path(directory).mkdir(parents=True, exist_ok=True)
    write_json(Path(directory) / RECIPE_FILE, asdict(recipe))
    return fit(
        network,
        objective,
        dataset,
        directory=directory,
        config=recipe.fit_config(),
        validation=validation,
        checkpoint_config={
            "system": "mask",
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


#: objective -> preset -> recipe
PRESETS: dict[str, dict[str, MaskingRecipe]] = {"masking": MASKING_PRESETS}

#: settings that may change between the parts of one training: they do not touch its numbers
FREE_SETTINGS = {"n_workers", "log_every", "validate_every", "save_every", "picture_every", "device"}


def train_recipe(
    recipe: MaskingRecipe, directory: str | Path, *, resume: bool = False, progress: bool = True
) -> FitResult:
    """Train what the recipe is for."""
    return train_masking(recipe, directory, resume=resume, progress=progress)


def change_recipe(recipe: MaskingRecipe, settings: Sequence[str]) -> MaskingRecipe:
    """Change settings of a recipe by `key=value` strings, read by the type of the value they replace.

    Args:
        recipe: left as it is.
        settings: strings like "n_steps=100".

    Returns:
        A new recipe.

    Raises:
        ValueError: when a key is unknown, a value does not read as its type, or the recipe refuses it.
    """
    changes = {}
    for text in settings:
        key, separator, value = text.partition("=")
        key = key.strip()
        known = asdict(recipe)
        if not separator or key not in known:
            close = difflib.get_close_matches(key, known, n=3) or list(known)
            raise ValueError(f"--set {text!r}: expected KEY=VALUE with a key such as {', '.join(close)}")
        changes[key] = _read_value(key, value.strip(), known[key])
    return replace(recipe, **changes)


def _read_value(key: str, text: str, default: object) -> object:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(int(part) for part in text.strip("()[]").split(",") if part.strip())
        return type(default)(text)
    except (KeyError, ValueError) as error:
        wanted = "numbers like 1,2,3" if isinstance(default, tuple) else f"a value like {default!r}"
        raise ValueError(f"--set {key}={text}: expected {wanted}") from error


def read_recipe(directory: str | Path, objective: str) -> MaskingRecipe:
    """Read the recipe of a training folder.

    Args:
        directory: folder of the training.
        objective: what it trains, a key of `PRESETS`.

    Returns:
        The recipe.

    Raises:
        ValueError: when the folder holds no training of this objective.
    """
    path = Path(directory) / RECIPE_FILE
    if not path.is_file():
        raise ValueError(f"nothing to resume: {path} is missing; start without --resume")
    kind = type(next(iter(PRESETS[objective].values())))
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a recipe of {objective} ({error}): start anew in another folder") from error


def _check_same_recipe(recipe: MaskingRecipe, directory: Path, *, resume: bool) -> None:
    """A resumed training has its own recipe where it matters; a new one has an unused folder."""
    if resume:
        values, before = asdict(recipe), asdict(read_recipe(directory, "masking"))
        changed = [key for key in values if key not in FREE_SETTINGS and values[key] != before[key]]
        if changed:
            was = ", ".join(f"{key}={before[key]!r}" for key in changed)
            raise ValueError(f"{directory} was trained with {was}: resume with the same settings")
    elif (directory / STATE_FILE).exists():  # a recipe alone is of a run that never got as far as a checkpoint
        raise ValueError(f"{directory} holds a training already: resume it (--resume), or choose another folder")


def training_clips(recipe: MaskingRecipe) -> tuple[list[Clip], list[float]]:
    """The clips of a recipe and their weights: labels are equally likely within a corpus."""
    share = {"synthesis": recipe.synthesis_share, "esc50": 1 - recipe.synthesis_share}
    names = recipe.corpus.split("+")
    clips, weights = [], []
    for name in names:
        folds = recipe.folds if name == "esc50" else None
        corpus = load_corpus(name, folds=folds, n_per_class=recipe.n_per_class, seed=recipe.seed)
        per_label = {label: sum(clip.label == label for clip in corpus) for label in {clip.label for clip in corpus}}
        scale = (share[name] if len(names) > 1 else 1.0) / len(per_label)
        clips += corpus
        weights += [scale / per_label[clip.label] for clip in corpus]
    return clips, weights


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
