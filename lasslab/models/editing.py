"""The network that is trained to edit: a velocity network and the adapter of the text encoder it listens to.

    v(x_t, t | x_orig, I) = velocity(concat(x_t, x_orig), t, E_I),   E_I = encoder(I), frozen but for its LoRA

Only what is trained is part of the network's state: the velocity network and the adapter. The frozen encoder stands
behind them, is not saved, and is not averaged. A checkpoint is a velocity network like any other, with the adapter in a
folder beside it (`lasslab.models.lora`).

Reference: Gao et al., RFM-Editing, 2025, section 2.1. Notebook 14.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lasslab.flow import Condition
from lasslab.models.checkpoints import save_network
from lasslab.models.lora import save_adapter
from lasslab.models.text import TextEncoder
from lasslab.models.velocity import VelocityNetwork, without_words

UNSAID = -1  # in the place of token numbers: no words


class EditNetwork(nn.Module):
    """A velocity network that reads the instruction itself, so that gradients reach the adapter.

    Args:
        velocity: the network of latents.
        encoder: a text encoder from `lasslab.models.lora.adapt` or `load_adapter(..., trainable=True)`, or without
            anything trainable.
        adapter_rate: learning rate of the adapter, as a share of the velocity network's. At the full rate of a network
            that is trained for minutes the adapter learns to tell add from remove and forgets, within a thousand steps,
            what the sound was: "remove the dog" and "remove the rain" become one sentence.
    """

    def __init__(self, velocity: VelocityNetwork, encoder: TextEncoder, *, adapter_rate: float = 0.1) -> None:
        super().__init__()
        self.adapter_rate = adapter_rate
        self.velocity = velocity
        # the adapter's own tensors, which a copy of this module takes along into its copy of the encoder
        self.adapter = nn.ParameterDict(
            {
                name.replace(".", "/"): parameter
                for name, parameter in encoder.model.named_parameters()
                if parameter.requires_grad
            }
        )
        self._text = (encoder,)  # within a tuple: no part of the state

    @property
    def encoder(self) -> TextEncoder:
        """The text encoder with its adapter."""
        return self._text[0]

    @property
    def config(self) -> Any:
        """Sizes of the velocity network."""
        return self.velocity.config

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """What is trained, for an optimiser: the adapter has a learning rate of its own."""
        groups = [
            {"params": list(self.velocity.parameters()), "lr": learning_rate},
            {"params": list(self.adapter.values()), "lr": self.adapter_rate * learning_rate},
        ]
        return [group for group in groups if group["params"]]

    def forward(
        self, x_t: Tensor, t: Tensor, *, mixture: Tensor, ids: Tensor, token_mask: Tensor, with_gate: bool = False
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """The velocity (or the noise) at x_t.

        Args:
            x_t: state (B, Z, N', M').
            t: times in [0, 1], (B,).
            mixture: latent of the original (B, Z, N', M').
            ids: token numbers (B, L); a row that begins with `UNSAID` has no words.
            token_mask: True where a token is real (B, L).
            with_gate: return the gate as well.

        Returns:
            (B, Z, N', M'); see `VelocityNetwork.forward`.
        """
        text = without_words(self.encoder.encode(ids.clamp(min=0), token_mask), ids[:, 0] == UNSAID)
        return self.velocity(x_t, t, mixture=mixture, tokens=text.tokens, token_mask=text.mask, with_gate=with_gate)


def instruct(original: Tensor, ids: Tensor, mask: Tensor) -> tuple[Condition, Condition]:
    """What an `EditNetwork` is called with, and the same without words.

    Args:
        original: latents (B, Z, N', M').
        ids, mask: of `TextEncoder.tokenise`, (B, L).

    Returns:
        Condition and null condition.
    """
    first = torch.zeros_like(mask)
    first[:, 0] = True
    return (
        {"mixture": original, "ids": ids, "token_mask": mask},
        {"mixture": original, "ids": torch.full_like(ids, UNSAID), "token_mask": first},
    )


def save_edit_network(
    directory: str | os.PathLike[str], network: EditNetwork, config: Mapping[str, Any], *, float16: bool = False
) -> None:
    """Write a checkpoint folder: the velocity network as `save_network` does, and the adapter beside it.

    Args:
        directory: folder to write into.
        network: the network.
        config: for the loader; whether there is an adapter is added.
        float16: store the velocity network in half precision; the adapter keeps its type.
    """
    if network.adapter:
        save_adapter(network.encoder, directory)
    save_network(directory, network.velocity, {**config, "adapter": bool(network.adapter)}, float16=float16)
