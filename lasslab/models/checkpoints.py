"""Checkpoints: a folder with `config.json` (what to build) and `model.safetensors` (its weights).

Weights are safetensors only. A pickle can run any code when it is opened, so none is ever opened here.
Files are written beside their final name and then renamed: a reader never sees half a file.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from lasslab.signal.files import write_atomically, write_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
NAMED_TENSORS = 3  # how many tensors an error message names before it says "and N more"

Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)


def checkpoint_root() -> Path:
    """Folder that holds the named checkpoints.

    `LASSLAB_CHECKPOINTS` when it is set; else `data/checkpoints` of the repository the package is
    installed from; else `data/checkpoints` of the working directory.
    """
    if named := os.environ.get("LASSLAB_CHECKPOINTS"):
        return Path(named).expanduser()
    beside_package = Path(__file__).resolve().parents[2] / "data" / "checkpoints"
    return beside_package if beside_package.is_dir() else Path("data") / "checkpoints"


def list_checkpoints() -> list[str]:
    """Names of the checkpoints under `checkpoint_root()`, sorted."""
    return sorted(config.parent.name for config in checkpoint_root().glob(f"*/{CONFIG_FILE}"))


def find_checkpoint(name_or_dir: str | os.PathLike[str]) -> Path:
    """Folder of a checkpoint given by name or by path.

    Args:
        name_or_dir: a name under `checkpoint_root()`, or a folder.

    Returns:
        The folder. Of two, the one that holds a configuration; of two of those, the given path.

    Raises:
        ValueError: there is no such folder; the message lists the names that exist.
    """
    given = Path(name_or_dir).expanduser()
    places = (given, checkpoint_root() / given) if str(name_or_dir) else ()
    folders = [folder for folder in places if folder.is_dir()]
    if folders:  # one that is a checkpoint wins over one that merely has the name
        return next((folder for folder in folders if (folder / CONFIG_FILE).is_file()), folders[0])
    if given.is_file():
        raise ValueError(f"{given} is a file: give the checkpoint's folder, the one that holds {CONFIG_FILE}")
    known = ", ".join(list_checkpoints()) or "none"
    where = f"neither a folder nor a name under {checkpoint_root()}"
    raise ValueError(f"no checkpoint {str(name_or_dir)!r}: {where} (there: {known})")


def save_network(
    directory: str | os.PathLike[str], network: nn.Module, config: Mapping[str, Any], *, float16: bool = False
) -> Path:
    """Write a network's weights and its configuration as a checkpoint folder.

    Args:
        directory: folder to write into, made when it is missing.
        network: its whole `state_dict` is written.
        config: what a loader needs to build the network again; JSON values, tuples and dataclasses.
        float16: store the parameters in half precision, for half the size. Buffers keep their type, since
            batch-norm variances may lie outside float16's range.

    Returns:
        The folder.

    Raises:
        ValueError: a weight is NaN, infinite, or too large for float16.
    """
    directory = Path(directory)
    parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    tensors = {}
    for name, tensor in network.state_dict().items():
        halve = float16 and name in parameters and tensor.is_floating_point()
        stored = tensor.detach().to("cpu", torch.float16 if halve else tensor.dtype)
        tensors[name] = stored.clone(memory_format=torch.contiguous_format)
    if broken := _not_finite(tensors):
        limit = " in float16: save with float16=False" if float16 else ": the training has diverged"
        raise ValueError(f"{directory}: {_name_some(broken)} would hold NaN or infinite weights{limit}")
    directory.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt"}
    write_atomically(directory / WEIGHTS_FILE, lambda temporary: save_file(tensors, temporary, metadata))
    write_json(directory / CONFIG_FILE, config)
    return directory


@torch.no_grad()
def blend_weights(network: nn.Module, other: nn.Module, share: float) -> None:
    """Move a network's weights towards another's: w <- (1 - share) w + share w_other.

    A network and its continuation lie in one valley of the loss; a point between them keeps much of what either can.

    Args:
        network: changed in place.
        other: of the same architecture and size, with one training history.
        share: of the other, 0 to 1.

    Raises:
        ValueError: another architecture or size, or a share outside of [0, 1].

    Reference: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is in [0, 1], got {share}")
    ours, theirs = network.state_dict(), other.state_dict()
    if {name: tensor.shape for name, tensor in ours.items()} != {name: tensor.shape for name, tensor in theirs.items()}:
        raise ValueError("the two networks differ in architecture or size: blend a network with its own continuation")
    for name, tensor in ours.items():
        if tensor.is_floating_point():
            tensor.lerp_(theirs[name].to(tensor), share)


def read_config(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the `config.json` of a checkpoint folder.

    Args:
        directory: the folder.

    Returns:
        The object that the file holds.

    Raises:
        ValueError: the file is missing, is not JSON, or does not hold an object.
    """
    path = Path(directory) / CONFIG_FILE
    if not path.is_file():
        raise ValueError(f"{path} is missing: a checkpoint folder holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): restore or rewrite the file") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a JSON {type(config).__name__}: expected an object with named fields")
    return config


def check_fields(fields: Mapping[str, Any], known: Mapping[str, Any], *, path: str | os.PathLike[str]) -> None:
    """Refuse a configuration with unknown fields, or with a field of another type than its known value.

    Args:
        fields: what a file says.
        known: field name -> a value of the expected type; an int is accepted where a float is expected.
        path: file that `fields` came from, for the message.

    Raises:
        ValueError: names the field, what it holds, and what was expected.
    """
    if unknown := sorted(set(fields) - set(known)):
        raise ValueError(f"{path}: unknown fields {', '.join(unknown)}; known fields are {', '.join(known)}")
    for name, value in fields.items():
        if known[name] is None:  # an optional field says nothing about its type
            continue
        expected = float if isinstance(known[name], float) else type(known[name])
        allowed = {float: (float, int), tuple: (tuple, list)}.get(expected, expected)
        if not isinstance(value, allowed) or (isinstance(value, bool) and expected is not bool):
            raise ValueError(f"{path}: {name} is {value!r}, expected a value like {known[name]!r}")


def build_config(cls: type[Config], fields: Mapping[str, Any], *, path: str | os.PathLike[str]) -> Config:
    """Make the configuration dataclass `cls`, whose fields all have defaults, from the fields of a file.

    Args:
        cls: a frozen dataclass.
        fields: what the file says; a list becomes a tuple.
        path: the file, for the message.

    Returns:
        The configuration.

    Raises:
        ValueError: an unknown field, or a value that is refused here or by `cls`; the message names the
            file.
    """
    check_fields(fields, dataclasses.asdict(cls()), path=path)
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    try:
        return cls(**values)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {cls.__name__} refuses its values: {error}") from error


def build_network(build: Callable[[Config], Network], config: Config, *, path: str | os.PathLike[str]) -> Network:
    """Build a network from its configuration, or say in one line that no network has these sizes.

    Args:
        build: makes the network.
        config: of `build_config`.
        path: file that the configuration came from, for the message.

    Returns:
        The network, with random weights.

    Raises:
        ValueError: the sizes do not fit each other.
    """
    try:
        return build(config)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: no network has these sizes ({reason}): restore the file") from error


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 of a network's weights and buffers, with their names, types and shapes.

    A network that was trained again has the same name and another hash.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_weights(
    network: nn.Module,
    path: str | os.PathLike[str],
    *,
    translate: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None,
) -> None:
    """Load weights into a network, strictly: every tensor there, no other, each of the right shape.

    Half-precision weights are widened to the network's own type.

    Args:
        network: changed in place, only after every check has passed.
        path: a `.safetensors` file, or the checkpoint folder that holds `model.safetensors`.
        translate: brings the file's tensors into the network's layout, where they were published in another; raises
            ValueError where it cannot.

    Raises:
        ValueError: the file is missing, is not safetensors (it is not opened by pickle), or does not fit.
    """
    path = Path(path)
    path = path / WEIGHTS_FILE if path.is_dir() else path
    tensors = _read_safetensors(path)
    if translate:
        try:
            tensors = translate(tensors)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    expected = network.state_dict()
    _check_fit(tensors, expected, path)
    if broken := _not_finite(tensors):
        remedy = "the file is damaged or its training diverged, use another"
        raise ValueError(f"{path}: NaN or infinite weights in {_name_some(broken)}: {remedy}")
    network.load_state_dict(tensors, strict=True)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        pickles = sorted(other.name for other in path.parent.glob("*") if other.suffix in PICKLE_SUFFIXES)
        found = f" ({pickles[0]} beside it is a pickle and is never opened: convert it)" if pickles else ""
        raise ValueError(f"{path} is missing{found}: copy the checkpoint's {WEIGHTS_FILE} there")
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: only .safetensors weights are opened, a pickle can run code: convert it")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        with path.open("rb") as file:
            start = file.read(2)
        kind = "holds a pickle" if start[:1] == b"\x80" or start == b"PK" else f"cannot be read ({error})"
        remedy = "nothing was loaded; fetch the file again or convert it"
        raise ValueError(f"{path} is not a safetensors file, it {kind}: {remedy}") from error


def _check_fit(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], path: Path) -> None:
    remedy = f"the weights belong to another network: correct {CONFIG_FILE} or use the matching weights"
    if missing := [name for name in expected if name not in tensors]:
        raise ValueError(f"{path}: missing weights {_name_some(missing)}; {remedy}")
    if extra := [name for name in tensors if name not in expected]:
        raise ValueError(f"{path}: unexpected weights {_name_some(extra)}; {remedy}")
    wrong = [
        f"{name} is {_describe(tensors[name])}, expected {_describe(tensor)}"
        for name, tensor in expected.items()
        if tensors[name].shape != tensor.shape or tensors[name].is_floating_point() != tensor.is_floating_point()
    ]
    if wrong:
        raise ValueError(f"{path}: wrongly shaped weights: {_name_some(wrong)}; {remedy}")


def _describe(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]


def _name_some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMED_TENSORS])
    return shown if len(names) <= NAMED_TENSORS else f"{shown} and {len(names) - NAMED_TENSORS} more"
