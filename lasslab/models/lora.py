"""LoRA: a frozen text encoder learns a task through small matrices beside its own.

    h = W x + (alpha / r) B A x,   A (r, d_in) random, B (d_out, r) zero                                           (1)

At the start B A is 0 and the encoder is what it was; only A and B are trained, a few per mille of its weights. It is
how RFM-Editing teaches FLAN-T5 what instructions ask for (section 2.1). Through peft; works for T5 and for BERT-like
encoders such as MiniLM, and for any other whose module names are given.

An adapter is saved beside the checkpoint it belongs to, in a folder `adapter` in peft's own layout.

Reference: Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022. Notebook 14.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from lasslab.models.text import TextEncoder

ADAPTER_FOLDER = "adapter"

#: type of model -> the modules that LoRA adapts by default: query and value of the attention, as in its paper
TARGET_MODULES: dict[str, tuple[str, ...]] = {"t5": ("q", "v"), "bert": ("query", "value")}


@dataclass(frozen=True)
class LoRAConfig:
    """Sizes of the adapter.

    Args:
        rank: r.
        alpha: the update counts alpha / r times.
        dropout: share of the inputs of A that are dropped in training.
        target_modules: names of the linear layers that are adapted; empty takes those of `TARGET_MODULES`.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_modules", tuple(self.target_modules))  # JSON knows lists only
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"rank and alpha must be positive, got {self.rank} and {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    def to_dict(self) -> dict:
        """Plain values for `config.json`."""
        return asdict(self)


def adapt(encoder: TextEncoder, config: LoRAConfig | None = None) -> TextEncoder:
    """A text encoder with an adapter, of which nothing but the adapter is trainable. At first it answers as before.

    Args:
        encoder: T5 or BERT-like; its model is wrapped in place, so use the returned one from now on.
        config: sizes.

    Returns:
        The encoder with the adapter.

    Raises:
        ValueError: no module has one of the target names.
    """
    from peft import LoraConfig, get_peft_model

    config = config or LoRAConfig()
    kind = getattr(encoder.model.config, "model_type", "")
    targets = config.target_modules or TARGET_MODULES.get(kind, ())
    known = sorted({name.rpartition(".")[2] for name, module in encoder.model.named_modules() if _is_linear(module)})
    if not targets or not set(targets) & set(known):
        asked = ", ".join(targets) or f"none for a {kind or 'model of unknown type'}"
        raise ValueError(f"LoRA finds no module to adapt (asked: {asked}); linear layers are named {', '.join(known)}")
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(targets),
        bias="none",
    )
    with _quiet():
        model = get_peft_model(encoder.model, settings)
    adapted = TextEncoder(encoder.tokenizer, model, encoder.name)
    for name, parameter in adapted.model.named_parameters():  # a `TextEncoder` freezes everything
        parameter.requires_grad_("lora_" in name)
    return adapted


def trainable_parameters(module: nn.Module) -> tuple[int, int]:
    """How many parameters are trained, and how many there are."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(n for n, trained in counts if trained), sum(n for n, _ in counts)


def save_adapter(encoder: TextEncoder, directory: str | os.PathLike[str]) -> Path:
    """Write an adapter as DIRECTORY/adapter, safetensors only.

    Args:
        encoder: from `adapt` or `load_adapter`.
        directory: folder of the checkpoint.

    Returns:
        The adapter's folder.
    """
    folder = Path(directory) / ADAPTER_FOLDER
    for settings in encoder.model.peft_config.values():
        settings.base_model_name_or_path = encoder.name  # peft has the folder of the model on this machine
    # no embedding is adapted; "auto" would look for the model's configuration by that name, on a hub too
    encoder.model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's template; the card is the checkpoint's
    return folder


def load_adapter(encoder: TextEncoder, directory: str | os.PathLike[str], *, trainable: bool = False) -> TextEncoder:
    """A text encoder with the adapter that lies beside a checkpoint.

    Args:
        encoder: the one that was adapted, without its adapter.
        directory: folder of the checkpoint.
        trainable: whether the adapter shall be trained further.

    Returns:
        The encoder with the adapter.

    Raises:
        ValueError: the adapter is missing, damaged, or of another encoder; names the folder.
    """
    from peft import PeftModel

    folder = Path(directory) / ADAPTER_FOLDER
    if not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(f"{folder / 'adapter_model.safetensors'} is missing: copy the checkpoint's adapter there")
    try:
        with _quiet():
            model = PeftModel.from_pretrained(encoder.model, str(folder), is_trainable=trainable)
    except Exception as error:  # peft and safetensors raise a dozen kinds
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{folder} is no adapter of the text encoder {encoder.name!r} ({reason}): use the one it was trained on"
        ) from error
    adapted = TextEncoder(encoder.tokenizer, model, encoder.name)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable and "lora_" in name)
    return adapted


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """peft asks transformers by a name that is about to change; its user can do nothing about that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        yield


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)
