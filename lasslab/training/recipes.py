"""What `lasslab train` trains, by objective and preset.

`quick` shows in about two minutes that the pieces fit; `lab` is what is trained for the course without a GPU; `full` is
the published setting. The checkpoints that ship come from `lab`, most of them in several parts, each of which started
from the one before with other settings: their cards have the commands.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lasslab.training.autoencoding import VAE_PRESETS, VAERecipe, train_vae
from lasslab.training.contrastive import CONTRASTIVE_PRESETS, ContrastiveRecipe, train_contrastive
from lasslab.training.editing import AUDIT_PRESETS, EDIT_PRESETS, EditRecipe, train_editing
from lasslab.training.fit import FitResult
from lasslab.training.generation import DIFFUSION_PRESETS, FLOW_PRESETS, GenerationRecipe, train_generation
from lasslab.training.masking import MASKING_PRESETS, MaskingRecipe, train_masking
from lasslab.training.vocoding import VOCODER_PRESETS, VocoderRecipe, train_vocoder

#: objective -> preset -> recipe
PRESETS: dict[str, dict[str, Any]] = {
    "masking": MASKING_PRESETS,
    "clap": CONTRASTIVE_PRESETS,
    "vae": VAE_PRESETS,
    "vocoder": VOCODER_PRESETS,
    "flow": FLOW_PRESETS,
    "diffusion": DIFFUSION_PRESETS,
    "edit": EDIT_PRESETS,
    "audit": AUDIT_PRESETS,
}

#: class of recipe -> what trains it
TRAINERS: dict[type, Callable[..., FitResult]] = {
    MaskingRecipe: train_masking,
    ContrastiveRecipe: train_contrastive,
    VAERecipe: train_vae,
    VocoderRecipe: train_vocoder,
    GenerationRecipe: train_generation,
    EditRecipe: train_editing,
}


def recipe_class(objective: str) -> type:
    """Class of the recipes of an objective, a key of `PRESETS`."""
    return type(next(iter(PRESETS[objective].values())))


def check_objective(recipe: Any, objective: str, directory: str | Path) -> None:
    """Refuse a recipe of another objective with the same settings: a flow is not a diffusion.

    Args:
        recipe: of the training about to start, or to go on.
        objective: what was asked for, a key of `PRESETS`.
        directory: its folder, for the message.

    Raises:
        ValueError: names the objective that the recipe is of.
    """
    found = getattr(recipe, "objective", objective)
    if found != objective:
        raise ValueError(
            f"{directory}: process is {recipe.process!r}, which is not {objective}: run lasslab train {found}"
        )


def train_recipe(recipe: Any, directory: str | Path, *, resume: bool = False, progress: bool = True) -> FitResult:
    """Train what the recipe is for.

    Args:
        recipe: of one of the classes in `TRAINERS`.
        directory: folder of the training.
        resume: continue the training in the folder.
        progress: show a bar.

    Returns:
        What was reached.

    Raises:
        ValueError: a corpus, an encoder or a setting is not there; see `lasslab.training.fit.fit`.
    """
    return TRAINERS[type(recipe)](recipe, directory, resume=resume, progress=progress)
