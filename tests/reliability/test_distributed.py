"""Two processes on the CPU, started as `accelerate launch` starts them: one training, two halves of every batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# Trains in every process; in the second half one process alone is told to stop, and both go on later.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
from torch import nn
from torch.utils.data import Dataset
from lasslab.training.fit import FitConfig, fit

torch.set_num_threads(1)
rank = int(os.environ.get("RANK", 0))
out = Path(sys.argv[1])
batch_size = int(sys.argv[2])


class Sums(Dataset):
    def __init__(self, stop_at=None):
        self.seen, self.stop_at = [], stop_at

    def __len__(self):
        return 1_000

    def __getitem__(self, index):
        if index == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        self.seen.append(index)
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return {"x": x, "y": x.sum()}


class Regression:
    monitor = "score"

    def __init__(self, noise):
        self.noise, self.draws = noise, []

    def loss(self, network, batch, generator):
        noise = torch.randn(batch["x"].shape, generator=generator)
        self.draws.append(noise[0, 0].item())
        loss = (network(batch["x"] + self.noise * noise).squeeze(-1) - batch["y"]).square().mean()
        return loss, {"mse": loss.detach()}

    def validate(self, network, batch):
        return {"score": -(network(batch["x"]).squeeze(-1) - batch["y"]).square()}

    def picture(self, network, batch):
        return {"mixture": torch.rand(4, 4)}


def train(name, *, n_steps, noise, data, resume=False, seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1))
    config = FitConfig(
        n_steps=n_steps, batch_size=batch_size, accumulate=2, warmup_steps=1, ema_decay=0.9, log_every=1,
        validate_every=2, save_every=1, picture_every=0, device="cpu",
    )
    objective = Regression(noise)
    validation = [{"x": torch.ones(3, 4), "y": torch.zeros(3)}]
    result = fit(network, objective, data, directory=out / name, config=config, validation=validation, resume=resume,
                 checkpoint_config={"kind": "test"}, progress=False)
    weights = {key: value.tolist() for key, value in network.state_dict().items()}
    return {"step": result.step, "stopped": result.stopped, "seen": data.seen, "draws": objective.draws,
            "weights": weights}


report = {"plain": train("plain", n_steps=3, noise=0.0, data=Sums())}
if "RANK" in os.environ:
    report["whole"] = train("whole", n_steps=6, noise=0.1, data=Sums())
    report["parts"] = train("parts", n_steps=6, noise=0.1, data=Sums(stop_at=22 if rank == 1 else None))
    # other initial weights in each process: what counts is the file
    report["again"] = train("parts", n_steps=6, noise=0.1, data=Sums(), resume=True, seed=5 + rank)
(out / f"report_{rank}.json").write_text(json.dumps(report))
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(arguments: list[str]) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ACCELERATE_")}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3_000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, list[dict], dict]:
    """Folder and reports of two processes with batches of 2, and the report of one process with batches of 4."""
    folder = tmp_path_factory.mktemp("distributed")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    for name in ("two", "one"):
        (folder / name).mkdir()
    # accelerate starts one process with --cpu unless there is an mpirun; those of --multi_gpu may use the CPU as well
    launch = f"-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no \
        --dynamo_backend no --main_process_port {free_port()}"
    start([*launch.split(), str(script), str(folder / "two"), "2"])
    start([str(script), str(folder / "one"), "4"])
    reports = [json.loads((folder / "two" / f"report_{rank}.json").read_text()) for rank in (0, 1)]
    return folder / "two", reports, json.loads((folder / "one" / "report_0.json").read_text())


pytestmark = pytest.mark.slow


def close(a: dict, b: dict, tolerance: float) -> bool:
    return all(torch.allclose(torch.tensor(a[key]), torch.tensor(b[key]), atol=tolerance, rtol=0) for key in a)


def test_both_processes_have_the_same_weights(runs):
    _, (first, second), _ = runs
    for name in ("plain", "whole", "again"):
        assert first[name]["step"] == second[name]["step"] == (3 if name == "plain" else 6)
        assert first[name]["weights"] == second[name]["weights"]


def test_every_item_is_seen_once(runs):
    _, (first, second), _ = runs
    assert len(first["plain"]["seen"]) == len(second["plain"]["seen"]) == 3 * 2 * 2
    assert sorted(first["plain"]["seen"] + second["plain"]["seen"]) == list(range(24))


def test_two_halves_are_one_batch(runs):
    """Two processes with batches of 2 and one with batches of 4 take the same steps."""
    _, (first, _), alone = runs
    assert alone["plain"]["seen"] == list(range(24))
    assert close(first["plain"]["weights"], alone["plain"]["weights"], 1e-6)


def test_each_process_has_its_own_noise(runs):
    _, (first, second), _ = runs
    draws = first["whole"]["draws"] + second["whole"]["draws"]
    assert len(draws) == len(set(draws)) == 2 * 6 * 2


def test_a_signal_to_one_process_stops_both(runs):
    _, (first, second), _ = runs
    assert first["parts"]["stopped"] and second["parts"]["stopped"]
    assert 0 < first["parts"]["step"] == second["parts"]["step"] < 6


def test_a_resumed_run_reaches_the_same_numbers(runs):
    folder, reports, _ = runs
    for report in reports:
        assert report["again"]["weights"] == report["whole"]["weights"]
        assert report["parts"]["draws"] + report["again"]["draws"] == report["whole"]["draws"]
    states = [torch.load(folder / name / "training_state.pt", weights_only=True) for name in ("parts", "whole")]
    for key, value in states[0]["average"].items():
        assert torch.equal(value, states[1]["average"][key])
    assert [states[k]["best"] for k in (0, 1)] == [states[0]["best"]] * 2


def test_one_process_writes(runs):
    folder, _, _ = runs
    steps = [json.loads(line)["step"] for line in (folder / "plain" / "history.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 2, 3, 3], "logged at 1, 2, 3 and validated at 2, 3"
    for name in ("best", "last"):
        assert {path.name for path in (folder / "plain" / name).iterdir()} == {"config.json", "model.safetensors"}
