"""The networks that predict a mask, by the name that a checkpoint's `config.json` and a recipe use.

Each is called `network(scaled (B, F, N), tokens (B, L, D), token_mask (B, L)) -> mask (B, F, N)`, so that objectives,
systems and recipes need not know which one they hold.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from lasslab.models import film_resunet, resunetpp


class MaskNetwork(NamedTuple):
    """How to build one: `build(config)` from a `config` dataclass, `sizes` by name, and what people call it."""

    build: Callable[[Any], nn.Module]
    config: type
    sizes: dict[str, Any]
    title: str


MASK_NETWORKS: dict[str, MaskNetwork] = {
    "resunetpp": MaskNetwork(
        resunetpp.ResUNetPlusPlus, resunetpp.ResUNetPlusPlusConfig, resunetpp.SIZES, "cross-attention ResUNet++"
    ),
    "film_resunet": MaskNetwork(
        film_resunet.FiLMResUNet, film_resunet.FiLMResUNetConfig, film_resunet.SIZES, "FiLM ResUNet"
    ),
}
