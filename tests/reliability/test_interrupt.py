"""A training in a process of its own, ended by real signals, goes on to the numbers of one that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

# The training, for this process and for the one that gets the signals. An item takes `pause` seconds to make.
TRAINING = """
import time
import torch
from torch import nn
from torch.utils.data import Dataset
from lasslab.training.fit import FitConfig, fit

torch.set_num_threads(1)


class Sums(Dataset):
    def __init__(self, pause):
        self.pause = pause

    def __len__(self):
        return 60  # less than a run reads: it goes on into a second pass

    def __getitem__(self, index):
        time.sleep(self.pause)
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return {"x": x, "y": x.sum()}


class Regression:
    monitor = "score"

    def loss(self, network, batch, generator):
        noise = 0.1 * torch.randn(batch["x"].shape, generator=generator)
        loss = (network(batch["x"] + noise).squeeze(-1) - batch["y"]).square().mean()
        return loss, {"mse": loss.detach()}

    def validate(self, network, batch):
        return {"score": -(network(batch["x"]).squeeze(-1) - batch["y"]).square()}

    def picture(self, network, batch):
        return {"mixture": torch.rand(4, 4)}


def train(directory, *, pause=0.0, n_workers=0, resume=False):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1))
    config = FitConfig(
        n_steps=25, batch_size=2, accumulate=2, warmup_steps=3, ema_decay=0.9, log_every=1, validate_every=4,
        save_every=4, picture_every=0, n_workers=n_workers, device="cpu",
    )
    data = Sums(0.0)
    validation = [{name: torch.stack([data[200 + k][name] for k in range(6)]) for name in ("x", "y")}]
    return fit(
        network, Regression(), Sums(pause), directory=directory, config=config, validation=validation,
        checkpoint_config={"kind": "test"}, resume=resume, progress=False,
    )
"""

# Imports and warms up once, then forks a training for every line "directory n_workers", in a process group of its own.
SERVER = (
    TRAINING
    + """
import os, sys, tempfile

with tempfile.TemporaryDirectory() as folder:
    train(folder + "/run")
for line in sys.stdin:
    directory, n_workers = line.split()
    child = os.fork()
    if child == 0:
        os.setsid()
        result = train(directory, pause=0.02, n_workers=int(n_workers))
        os._exit(10 if result.stopped else 11)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
)

here: dict = {}
exec(TRAINING, here)  # noqa: S102
train = here["train"]


@pytest.fixture(scope="module")
def server():
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SERVER], env=environment, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("whole") / "run"
    train(directory)
    return directory


def rows(directory: Path) -> list[dict]:
    path = directory / "history.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def differences(a, b, name: str = "") -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [path for key in a if key != "seconds" for path in differences(a[key], b[key], f"{name}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [path for k in range(len(a)) for path in differences(a[k], b[k], f"{name}/{k}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [name]
    return [] if a == b else [name]


def state(directory: Path) -> dict:
    return torch.load(directory / "training_state.pt", weights_only=True)


def interrupt(server, directory: Path, number: int, *, n_workers: int = 0, group: bool = False, after: int = 9) -> int:
    """Start a training, send the signal after some steps, and return the exit code."""
    server.stdin.write(f"{directory} {n_workers}\n")
    server.stdin.flush()
    child = int(server.stdout.readline())
    deadline = time.monotonic() + 60
    while not (directory / "history.jsonl").exists() or (directory / "history.jsonl").read_bytes().count(b"\n") < after:
        assert time.monotonic() < deadline, "the training does not start"
        time.sleep(0.005)
    (os.killpg if group else os.kill)(child, number)
    return int(server.stdout.readline())


@pytest.mark.parametrize(
    ("number", "n_workers", "group"),
    [
        (signal.SIGTERM, 0, False),
        (signal.SIGINT, 1, True),  # Ctrl-C in a terminal reaches every process of the group
        (signal.SIGTERM, 1, True),  # and so does a scheduler that ends a job
    ],
    ids=["terminate", "ctrl-c with a worker", "terminate the group"],
)
def test_a_signal_ends_the_run_with_everything_saved(server, whole, tmp_path, number, n_workers, group):
    directory = tmp_path / "run"
    assert interrupt(server, directory, number, n_workers=n_workers, group=group) == 10, "stopped, and no traceback"
    reached = state(directory)["step"]
    assert 7 <= reached < 25 and rows(directory)[-1]["step"] == reached, "not one finished step is lost"
    assert json.loads((directory / "run.json").read_text())["step"] == reached
    result = train(directory, resume=True)
    assert result.step == 25
    assert differences(state(directory), state(whole)) == []
    assert rows(directory) == rows(whole)
    for file in ("best/model.safetensors", "last/model.safetensors"):
        assert (directory / file).read_bytes() == (whole / file).read_bytes()


@pytest.mark.parametrize("after", [8, 9])  # just before a checkpoint, and while it is written
def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(server, whole, tmp_path, after):
    directory = tmp_path / "run"
    assert interrupt(server, directory, signal.SIGKILL, after=after) == -signal.SIGKILL
    assert state(directory)["step"] % 4 == 0
    train(directory, resume=True)
    assert differences(state(directory), state(whole)) == []
    assert rows(directory) == rows(whole), "steps that were done twice are in the history once"
    left = {
        path.name for path in directory.iterdir() if not path.name.startswith(".")
    }  # the kill may cut a write short
    assert left == {path.name for path in whole.iterdir()}
