"""BigVGAN as NVIDIA publishes it, brought into the layout of `lasslab.models.bigvgan`. FlowSep's vocoder is alike.

There, every convolution carries a weight norm, the constants of the low-pass filters lie among the weights, the
configuration has HiFi-GAN's names, and spectrograms begin (n_fft - hop) / 2 samples before the clip, which centres
frame n on sample n * hop + hop / 2.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lasslab.models.snake import low_pass


def published_fields(config: Mapping[str, Any], *, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of our `BigVGANConfig` of a `config.json` in NVIDIA's layout.

    Args:
        config: what the file holds.
        path: the file, for messages.

    Returns:
        The fields; frames are centred half a hop later than ours.

    Raises:
        ValueError: a field is missing, or says what this generator cannot do.
    """
    needed = {
        "upsample_rates", "upsample_kernel_sizes", "upsample_initial_channel", "resblock_kernel_sizes",
        "resblock_dilation_sizes", "num_mels", "n_fft", "hop_size", "sampling_rate",
    }  # fmt: skip
    if missing := sorted(needed - set(config)):
        raise ValueError(f"{path}: missing fields {', '.join(missing)}: copy the file from the checkpoint again")
    expected = {"activation": "snakebeta", "win_size": config["n_fft"]}
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise ValueError(f"{path}: {name} is {config[name]!r}, only {value!r} is supported")
    rate, hop_length = config["sampling_rate"], config["hop_size"]
    return {
        "upsample_rates": config["upsample_rates"],
        "upsample_kernels": config["upsample_kernel_sizes"],
        "initial_channels": config["upsample_initial_channel"],
        "block_kernels": config["resblock_kernel_sizes"],
        "block_dilations": config["resblock_dilation_sizes"],
        "double_convolution": str(config.get("resblock", "1")) == "1",
        "log_scale": config.get("snake_logscale", True),
        "final_tanh": config.get("use_tanh_at_final", True),
        "final_bias": config.get("use_bias_at_final", True),
        "frame_levels": False,
        "frame_offset": hop_length // 2,
        "sample_rate": rate,
        "n_fft": config["n_fft"],
        "hop_length": hop_length,
        "n_mels": config["num_mels"],
        "f_min": config.get("fmin") or 0.0,
        "f_max": config.get("fmax") or rate / 2,
    }


def published_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in NVIDIA's layout as this generator's: weight norm multiplied out, constants left out.

    w = g v / |v|, the norm over all axes but the first; `weight_g` and `weight_v`, or the newer
    `parametrizations.weight.original0` and `original1`.

    Args:
        tensors: by name; names may begin with "generator." and hold torch.compile's "_orig_mod.".

    Returns:
        Tensors by our names.

    Raises:
        ValueError: half of a weight norm is missing, or a low-pass filter is not the one computed here.
    """
    clean = {name.replace("_orig_mod.", "").removeprefix("generator."): tensor for name, tensor in tensors.items()}
    clean = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in clean.items()
    }
    taps = low_pass()
    ours: dict[str, Tensor] = {}
    for name, tensor in clean.items():
        if name.endswith("sample.filter") or name.endswith("lowpass.filter"):
            if tensor.numel() != len(taps) or not torch.allclose(tensor.float().flatten(), taps, atol=1e-3):
                raise ValueError(f"{name} is not the low-pass filter of BigVGAN: the weights belong to another network")
        elif name.endswith((".weight_g", ".weight_v")):
            stem = name.removesuffix("_g").removesuffix("_v")
            if f"{stem}_g" not in clean or f"{stem}_v" not in clean:
                raise ValueError(f"{name} is half of a weight norm, its other half is missing: fetch the file again")
            if name.endswith("_v"):
                g = clean[f"{stem}_g"].float()
                ours[stem] = tensor.float() * (g / tensor.float().flatten(1).norm(dim=1).view(g.shape))
        else:
            ours[name] = tensor
    return ours
