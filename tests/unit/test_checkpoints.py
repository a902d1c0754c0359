"""Checkpoints: what is written loads again, and what does not fit is refused in one line."""

import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lasslab.models import checkpoints
from lasslab.models.checkpoints import (
    build_config,
    check_fields,
    checkpoint_root,
    find_checkpoint,
    load_weights,
    read_config,
    save_network,
)


@dataclasses.dataclass(frozen=True)
class TinyConfig:
    channels: tuple[int, ...] = (2, 3)
    dropout: float = 0.5
    gated: bool = True
    name: str = "tiny"


def tiny_network(*, seed: int = 0, channels: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(1, channels, 3), nn.BatchNorm2d(channels), nn.Conv2d(channels, 1, 1))
    network(torch.randn(2, 1, 8, 8))  # so that the batch-norm buffers are not at their initial values
    return network.to(memory_format=torch.channels_last)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_network(tmp_path / "tiny", tiny_network(), {"system": "mask"})


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_round_trip_is_exact_with_every_buffer(tmp_path):
    network, other = tiny_network(seed=1), tiny_network(seed=2)
    save_network(tmp_path / "a", network, {"network": TinyConfig(), "sample_rate": 16_000})
    load_weights(other, tmp_path / "a")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    config = read_config(tmp_path / "a")
    assert config["sample_rate"] == 16_000
    assert build_config(TinyConfig, config["network"], path="config.json") == TinyConfig()


def test_float16_halves_parameters_and_keeps_buffers(tmp_path):
    network, other = tiny_network(seed=1), tiny_network(seed=2)
    network[1].running_var.fill_(1e6)  # beyond float16's 65504
    save_network(tmp_path / "half", network, {}, float16=True)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert stored["0.weight"].dtype == torch.float16 and stored["1.running_var"].dtype == torch.float32
    load_weights(other, tmp_path / "half")
    assert other[0].weight.dtype == torch.float32
    assert torch.equal(other[1].running_var, network[1].running_var)
    torch.testing.assert_close(other[0].weight, network[0].weight, rtol=1e-3, atol=1e-4)


def test_nothing_but_the_two_files_is_left(folder):
    save_network(folder, tiny_network(seed=3), {"system": "mask"})
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_failed_write_leaves_the_old_file(folder, monkeypatch):
    before = (folder / "model.safetensors").read_bytes()

    def fail(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_network(folder, tiny_network(seed=3), {})
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("value, float16", [(float("nan"), False), (1e6, True)])
def test_weights_that_cannot_be_stored_are_refused_before_writing(tmp_path, value, float16):
    network = tiny_network()
    with torch.no_grad():
        network[0].bias[0] = value
    with pytest.raises(ValueError, match=r"0\.bias") as error:
        save_network(tmp_path / "new", network, {}, float16=float16)
    one_line(error)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.pop("0.weight"), ["missing weights 0.weight"]),
        (lambda t: t.update(gate=torch.zeros(2)), ["unexpected weights gate"]),
        (lambda t: t.update({"0.bias": torch.zeros(5)}), ["0.bias", "(5,)", "expected float32 (4,)"]),
        (lambda t: t.update({"0.bias": torch.zeros(4, dtype=torch.int8)}), ["0.bias", "int8"]),
        (lambda t: t["0.bias"].fill_(float("inf")), ["0.bias", "infinite"]),
        (lambda t: [t.pop(name) for name in list(t)], ["0.weight", "0.bias", "and 6 more"]),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(folder, change, words):
    rewrite(folder, change)
    network = tiny_network(seed=5)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load_weights(network, folder)
    message = one_line(error)
    assert str(folder / "model.safetensors") in message
    assert all(word in message for word in words), message
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("writer", ["pickle", "torch"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pickle_is_refused_and_never_opened(folder, tmp_path, writer, name):
    (folder / "model.safetensors").unlink()
    bomb = {"0.weight": Bomb(tmp_path / "boom")}
    if writer == "pickle":
        (folder / name).write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, folder / name)
    with pytest.raises(ValueError, match="pickle") as error:
        load_weights(tiny_network(), folder)
    assert name in one_line(error)
    with pytest.raises(ValueError, match="pickle|safetensors"):
        load_weights(tiny_network(), folder / name)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64])
def test_a_file_that_is_not_safetensors_is_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="not a safetensors file") as error:
        load_weights(tiny_network(), folder)
    one_line(error)


def test_a_cut_file_is_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_weights(tiny_network(), folder)


def test_missing_weights_file_is_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        load_weights(tiny_network(), folder)


@pytest.mark.parametrize(
    "content, words", [(b"{broken", "not valid JSON"), (b"[1]", "JSON list"), (b"\xff\xfe", "not valid JSON")]
)
def test_broken_config_is_named(folder, content, words):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        read_config(folder)
    assert "config.json" in one_line(error)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="is missing"):
        read_config(folder)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"width": 3}, "unknown fields width"),
        ({"channels": 3}, "channels is 3"),
        ({"dropout": "much"}, "dropout is 'much'"),
        ({"dropout": True}, "dropout is True"),
        ({"gated": 1}, "gated is 1"),
    ],
)
def test_config_fields_are_checked(fields, words):
    with pytest.raises(ValueError, match=words) as error:
        build_config(TinyConfig, fields, path="x/config.json")
    assert one_line(error).startswith("x/config.json")


def test_an_int_is_a_float_and_a_list_a_tuple():
    config = build_config(TinyConfig, {"dropout": 1, "channels": [5]}, path="config.json")
    assert config.dropout == 1 and config.channels == (5,)
    check_fields({"anything": 3}, {"anything": None}, path="config.json")


def test_find_checkpoint_by_name_or_path(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LASSLAB_CHECKPOINTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    assert checkpoint_root() == tmp_path
    assert find_checkpoint("tiny").resolve() == folder.resolve() == find_checkpoint(folder).resolve()
    monkeypatch.chdir(tmp_path / "sub")
    (tmp_path / "sub" / "tiny").mkdir()  # has the name, but is no checkpoint
    assert find_checkpoint("tiny") == folder
    with pytest.raises(ValueError, match="there: tiny"):
        find_checkpoint("tinny")
    with pytest.raises(ValueError, match="there: tiny"):
        find_checkpoint("")
    with pytest.raises(ValueError, match="folder"):
        find_checkpoint(folder / "config.json")


def test_config_is_readable_json(folder):
    assert json.loads((folder / "config.json").read_text()) == {"system": "mask"}
