"""The training loop on a problem small enough to check: every number, every file, and every way a run can end."""

import json
import math
import os
import pickle
import signal
import threading
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.image
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from lasslab.models import checkpoints
from lasslab.models.checkpoints import load_weights, read_config
from lasslab.training.fit import FitConfig, PositionSampler, SlowPrecision, fit, learning_rate_factor, stop_requests

CONFIG = FitConfig(
    n_steps=10,
    batch_size=2,
    accumulate=2,
    learning_rate=1e-2,
    warmup_steps=2,
    ema_decay=0.8,
    log_every=1,
    validate_every=3,
    save_every=2,
    picture_every=4,
    device="cpu",
)


class Sums(Dataset):
    """y = sum x: item i is a function of i. `at` and `event` let something happen when an item is read."""

    def __init__(self, n: int = 100, *, at: int = -1, event=None) -> None:
        self.n, self.at, self.event = n, at, event
        self.seen: list[int] = []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> dict:
        if index == self.at:
            self.event()
        self.seen.append(index)
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return {"x": x, "y": x.sum(), "index": index}


class Regression:
    """Mean squared error; `noise` makes the loss use the generator that fit passes."""

    monitor = "score"

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise
        self.draws: list[float] = []

    def loss(self, network, batch, generator):
        noise = torch.randn(batch["x"].shape, generator=generator)
        self.draws.append(noise[0, 0].item())
        assert network.training
        loss = (network(batch["x"] + self.noise * noise).squeeze(-1) - batch["y"]).square().mean()
        return loss, {"mse": loss.detach()}

    def validate(self, network, batch):
        assert not network.training and not torch.is_grad_enabled()
        return {"score": -(network(batch["x"]).squeeze(-1) - batch["y"]).square()}

    def picture(self, network, batch):
        assert not network.training
        ramp = torch.linspace(0, 1, 12)[:, None].expand(12, 10)
        return {"mixture": ramp, "target": torch.zeros(12, 10), "prediction": torch.ones(12, 10)}


class Scripted(Regression):
    """Losses or validation scores that are spelled out."""

    def __init__(self, *, losses: list[float] | None = None, scores: list[float] | None = None) -> None:
        super().__init__()
        self.losses, self.scores = losses, scores

    def loss(self, network, batch, generator):
        loss, terms = super().loss(network, batch, generator)
        return (loss * self.losses.pop(0) if self.losses else loss), terms

    def validate(self, network, batch):
        figures = super().validate(network, batch)
        return {"score": torch.full_like(figures["score"], self.scores.pop(0))} if self.scores else figures


def network(*, seed: int = 0) -> nn.Module:
    """With everything that has a state of its own: batch norm's statistics, dropout's random numbers."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1))


def linear(*, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(4, 1)


def batches(n: int = 2) -> list[dict]:
    data = Sums()
    items = [[data[1_000 + 5 * k + j] for j in range(5)] for k in range(n)]
    return [{name: torch.stack([item[name] for item in batch]) for name in ("x", "y")} for batch in items]


def train(directory: Path, *, config: FitConfig = CONFIG, model=None, objective=None, data=None, **arguments):
    model = model if model is not None else network()
    arguments = {"validation": batches(), "checkpoint_config": {"kind": "test"}, "progress": False} | arguments
    return fit(
        model, objective or Regression(noise=0.1), data or Sums(), directory=directory, config=config, **arguments
    )


def state(directory: Path) -> dict:
    return torch.load(directory / "training_state.pt", weights_only=True)


def differences(a, b, name: str = "") -> list[str]:
    """Paths at which two nested structures differ, not even by one bit."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [path for key in a if key != "seconds" for path in differences(a[key], b[key], f"{name}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [path for k in range(len(a)) for path in differences(a[k], b[k], f"{name}/{k}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [name]
    return [] if type(a) is type(b) and a == b else [name]


def assert_same_run(a: Path, b: Path) -> None:
    assert differences(state(a), state(b)) == []
    for file in ("best/model.safetensors", "last/model.safetensors", "best/config.json"):
        assert (a / file).read_bytes() == (b / file).read_bytes(), file
    histories = [[json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()] for path in (a, b)]
    assert differences(*histories) == []
    assert sorted(path.name for path in (a / "pictures").iterdir()) == sorted(
        path.name for path in (b / "pictures").iterdir()
    )


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


# --- it trains


def test_it_solves_a_tiny_problem(tmp_path):
    config = FitConfig(n_steps=150, batch_size=8, learning_rate=0.1, warmup_steps=2, log_every=1, device="cpu")
    model = linear()
    result = train(tmp_path / "run", config=config, model=model, objective=Regression(), data=Sums(16))
    assert result.step == 150 and not result.stopped and result.best_step == 150
    assert result.history[0]["loss"] > 0.5 and result.history[-2]["loss"] < 1e-5 and result.best > -1e-4
    assert torch.allclose(model.weight, torch.ones(1, 4), atol=1e-2) and abs(model.bias.item()) < 1e-2


@pytest.mark.parametrize("accumulate", [1, 2, 3, 4])
def test_steps_items_and_passes_are_as_many_as_asked_for(tmp_path, accumulate):
    data, objective = Sums(1_000), Regression()
    config = replace(CONFIG, accumulate=accumulate)
    result = train(tmp_path / "run", config=config, data=data, objective=objective)
    assert result.step == 10 and len(objective.draws) == 10 * accumulate
    assert data.seen == list(range(10 * 2 * accumulate)), "the first pass is in the dataset's own order"


def test_accumulation_is_a_larger_batch(tmp_path):
    weights = []
    for batch_size, accumulate in ((8, 1), (4, 2), (2, 4)):
        model = linear()
        config = replace(CONFIG, batch_size=batch_size, accumulate=accumulate)
        train(tmp_path / str(accumulate), config=config, model=model, objective=Regression())
        weights.append(model.weight.detach())
    assert torch.allclose(weights[0], weights[1], atol=1e-6) and torch.allclose(weights[0], weights[2], atol=1e-6)
    assert not torch.allclose(weights[0], linear().weight, atol=1e-3)


def test_the_schedule_is_warm_up_and_half_a_cosine():
    config = FitConfig(n_steps=110, warmup_steps=10, learning_rate=1e-3, min_learning_rate=1e-5)
    factor = [learning_rate_factor(step, config) for step in range(112)]
    assert factor[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])
    assert factor[10] == max(factor) == 1
    assert factor[60] == pytest.approx((1 + 0.01) / 2)
    assert factor[35] == pytest.approx(0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2)
    assert factor[110] == factor[111] == pytest.approx(0.01)
    assert all(a > b for a, b in zip(factor[10:110], factor[11:111], strict=True))
    assert learning_rate_factor(0, FitConfig(n_steps=5, warmup_steps=0)) == 1
    assert learning_rate_factor(3, FitConfig(n_steps=5, warmup_steps=9)) == pytest.approx(0.4)


def test_the_schedule_is_the_one_that_runs(tmp_path):
    result = train(tmp_path / "run")
    rates = {row["step"]: row["learning_rate"] for row in result.history if "loss" in row}
    expected = {step: 1e-2 * learning_rate_factor(step, CONFIG) for step in range(1, 11)}
    assert rates == {step: pytest.approx(rate) for step, rate in expected.items()}


def test_gradients_are_clipped(tmp_path):
    """After one step Adam's first moment is a tenth of the gradient that it was given."""
    norms = []
    for limit in (0.0, 1e-3):
        directory = tmp_path / str(limit)
        train(directory, config=replace(CONFIG, n_steps=1, max_grad_norm=limit))
        moments = [entry["exp_avg"].flatten() for entry in state(directory)["optimiser"]["state"].values()]
        norms.append(10 * torch.cat(moments).norm().item())
    assert norms[0] > 0.1 and norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_the_moving_average_is_its_recursion(tmp_path):
    """Of weights and of batch norm's statistics alike: a network needs the statistics of its own weights."""
    torch.manual_seed(0)
    model, seen = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1)), []

    def remember() -> None:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})

    class Watching(Regression):
        def loss(self, network, batch, generator):
            remember()
            return super().loss(network, batch, generator)

    config = replace(CONFIG, accumulate=1, n_steps=8, ema_decay=0.3)
    train(tmp_path / "run", config=config, model=model, objective=Watching())
    remember()
    average = seen[1]  # after the first step
    for count, value in enumerate(seen[2:], start=1):
        keep = min(0.3, (1 + count) / (10 + count))
        average = {name: keep * average[name] + (1 - keep) * value[name] for name in average}
    shipped = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1))
    load_weights(shipped, tmp_path / "run" / "last")
    for name, value in shipped.state_dict().items():
        if name == "0.num_batches_tracked":
            assert value == 8
            continue
        assert torch.allclose(value, average[name], atol=1e-6), name
    for name in ("1.weight", "0.running_mean"):  # the network itself keeps its last ones
        assert not torch.allclose(shipped.state_dict()[name], model.state_dict()[name], atol=1e-4)


def test_without_an_average_the_weights_themselves_are_shipped(tmp_path):
    model = network()
    train(tmp_path / "run", config=replace(CONFIG, ema_decay=0.0), model=model)
    shipped = network(seed=9)
    load_weights(shipped, tmp_path / "run" / "last")
    assert differences(shipped.state_dict(), model.state_dict()) == []


@pytest.mark.parametrize("n_workers", [0, 1])
def test_the_seed_decides_everything(tmp_path, n_workers):
    train(tmp_path / "a")
    torch.manual_seed(1234)
    train(tmp_path / "b", config=replace(CONFIG, n_workers=n_workers))
    assert differences(state(tmp_path / "a")["network"], state(tmp_path / "b")["network"]) == []
    train(tmp_path / "c", config=replace(CONFIG, seed=1))
    assert differences(state(tmp_path / "a")["network"], state(tmp_path / "c")["network"]) != []


def test_noise_is_new_in_every_pass(tmp_path):
    objective = Regression()
    train(tmp_path / "run", objective=objective)
    assert len(set(objective.draws)) == 20
    assert abs(sum(objective.draws)) / math.sqrt(20) < 4, "and has mean 0"


# --- the order of the data


def test_positions_pass_through_the_data_again_and_again():
    order = list(PositionSampler(7, start=0, stop=25, seed=3))
    passes = [order[k : k + 7] for k in (0, 7, 14)]
    assert passes[0] == list(range(7))
    assert all(sorted(part) == list(range(7)) for part in passes)
    assert passes[1] != passes[2] and passes[1] != passes[0]
    assert len(order) == len(PositionSampler(7, start=0, stop=25, seed=3)) == 25


@pytest.mark.parametrize("start", [0, 3, 7, 12, 14, 24, 25])
def test_positions_continue_anywhere(start):
    whole = list(PositionSampler(7, start=0, stop=25, seed=3))
    assert (
        list(PositionSampler(7, start=0, stop=start, seed=3)) + list(PositionSampler(7, start=start, stop=25, seed=3))
        == whole
    )
    assert list(PositionSampler(7, start=7, stop=25, seed=4)) != whole[7:]


# --- what it leaves behind


def test_the_folder_holds_what_the_docstring_says(tmp_path):
    directory = tmp_path / "runs" / "x"
    result = train(directory)
    assert {path.name for path in directory.iterdir()} == {
        "best", "last", "training_state.pt", "history.jsonl", "run.json", "tensorboard", "pictures",
    }  # fmt: skip
    for name in ("best", "last"):
        assert read_config(directory / name) == {"kind": "test"}
        load_weights(network(seed=5), directory / name)
    assert result.history == [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in result.history if "loss" in row] == list(range(1, 11))
    assert [row["step"] for row in result.history if "validation" in row] == [3, 6, 9, 10]
    scores = {row["step"]: row["validation"]["score"] for row in result.history if "validation" in row}
    assert result.best == max(scores.values()) == scores[result.best_step]
    run = json.loads((directory / "run.json").read_text())
    assert run["step"] == 10 and run["best"] == result.best and run["config"] == asdict(CONFIG)


def test_the_best_checkpoint_is_the_one_with_the_best_score(tmp_path):
    scores = [s for score in (1.0, 5.0, 2.0, 5.0) for s in (score, score)]  # two batches each
    result = train(tmp_path / "run", objective=Scripted(scores=scores))
    assert (result.best, result.best_step) == (5.0, 6), "a draw is no improvement"
    earlier = tmp_path / "earlier"
    train(earlier, config=replace(CONFIG, validate_every=6), objective=Scripted(scores=[5.0, 5.0, 0.0, 0.0]))
    best = [(path / "best" / "model.safetensors").read_bytes() for path in (tmp_path / "run", earlier)]
    assert best[0] == best[1] != (tmp_path / "run" / "last" / "model.safetensors").read_bytes()


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path):
    scores = [math.nan, math.nan, 1.0, 1.0, math.inf, math.inf, 0.5, 0.5]
    result = train(tmp_path / "run", objective=Scripted(scores=scores))
    assert (result.best, result.best_step) == (1.0, 6)
    everything = train(tmp_path / "nan", objective=Scripted(scores=[math.nan] * 8))
    assert everything.best is None and (tmp_path / "nan" / "last" / "model.safetensors").is_file()


def test_tensorboard_can_be_read(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"images": 0}).Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == {"train/loss", "train/mse", "train/learning_rate", "validation/score"}
    losses = {row["step"]: row["loss"] for row in result.history if "loss" in row}
    assert {entry.step: entry.value for entry in events.Scalars("train/loss")} == pytest.approx(losses)
    assert [entry.step for entry in events.Images("mixture | target | prediction")] == [4, 8]


def test_pictures_show_low_frequencies_at_the_bottom(tmp_path):
    train(tmp_path / "run")
    paths = sorted((tmp_path / "run" / "pictures").iterdir())
    assert [path.name for path in paths] == ["step_0000004.png", "step_0000008.png"]
    image = matplotlib.image.imread(paths[0])[..., :3]
    assert image.shape == (12, 3 * 18, 3)
    brightness = image.mean(-1)
    assert brightness[-1, 0] < 0.05 < 0.8 < brightness[0, 0], "the ramp grows upwards"
    assert (brightness[:, 18:28] < 0.05).all() and (brightness[:, 36:46] > 0.8).all()


def test_what_is_never_due_is_not_written(tmp_path):
    config = replace(CONFIG, log_every=0, validate_every=0, save_every=0, picture_every=0)
    result = train(tmp_path / "run", config=config)
    assert [row["step"] for row in result.history] == [10, 10], "the last step is logged and validated"
    assert not (tmp_path / "run" / "pictures").exists()
    assert state(tmp_path / "run")["step"] == 10
    result = train(tmp_path / "other", config=config, validation=())
    assert result.best is None and not (tmp_path / "other" / "best").exists()


def test_it_is_silent_when_asked_to_be(tmp_path, capfd):
    train(tmp_path / "run")
    stop = Sums(at=8, event=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert train(tmp_path / "stopped", data=stop).stopped
    assert capfd.readouterr() == ("", "")


def test_the_bar_shows_loss_and_rate(tmp_path, capfd):
    train(tmp_path / "run", progress=True)
    shown = capfd.readouterr().err
    assert "10/10" in shown and "loss=" in shown and "rate=" in shown


# --- resuming


def interrupted(directory: Path, *, at: int, event, config: FitConfig = CONFIG) -> Path:
    data = Sums(at=at, event=event)
    try:
        result = train(directory, data=data, config=config)
    except KeyboardInterrupt:
        return directory
    assert result.stopped and result.step < config.n_steps
    return directory


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("event", [terminate, raise_interrupt], ids=["sigterm", "interrupt"])
@pytest.mark.parametrize("at", [14, 27])
def test_a_resumed_run_reaches_the_same_numbers(tmp_path, event, at):
    train(tmp_path / "whole")
    directory = interrupted(tmp_path / "parts", at=at, event=event)
    reached = state(directory)["step"]
    # item 14 belongs to the fourth step; one batch is read ahead
    assert 0 < reached < 10 and reached % 2 == 0 or event is terminate
    data = Sums()
    result = train(directory, data=data, model=network(seed=77), resume=True)
    assert result.step == 10 and not result.stopped
    assert data.seen == list(range(4 * reached, 40)), "it goes on with the next item"
    assert_same_run(tmp_path / "whole", directory)


def test_a_run_may_be_resumed_many_times(tmp_path):
    train(tmp_path / "whole")
    directory = tmp_path / "parts"
    for count, at in enumerate((5, 13, 22, 33)):
        train(directory, data=Sums(at=at, event=terminate), model=network(seed=count), resume=count > 0)
    assert state(directory)["step"] < 10
    train(directory, model=network(seed=1), resume=True)
    assert_same_run(tmp_path / "whole", directory)


def test_resuming_with_few_items_continues_within_a_pass(tmp_path):
    train(tmp_path / "whole", data=Sums(7))
    data = Sums(7)
    stop = {"left": 23}

    class Stopping(Sums):
        def __getitem__(self, index):
            stop["left"] -= 1
            if stop["left"] == 0:
                terminate()
            return super().__getitem__(index)

    assert train(tmp_path / "parts", data=Stopping(7)).stopped
    train(tmp_path / "parts", data=data, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_how_often_to_write_may_change(tmp_path):
    train(tmp_path / "whole")
    interrupted(tmp_path / "parts", at=20, event=terminate)
    config = replace(CONFIG, n_workers=1, save_every=5, log_every=5, validate_every=5, picture_every=0)
    train(tmp_path / "parts", config=config, resume=True)
    for part in ("network", "average", "optimiser", "schedule", "random"):
        assert differences(state(tmp_path / "whole")[part], state(tmp_path / "parts")[part]) == []


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    first = train(tmp_path / "run")
    before = state(tmp_path / "run"), (tmp_path / "run" / "history.jsonl").read_bytes()
    data = Sums()
    again = train(tmp_path / "run", data=data, model=network(seed=3), resume=True)
    assert (again.step, again.best, again.best_step) == (first.step, first.best, first.best_step)
    assert data.seen == [] and differences(again.history, first.history) == []
    assert differences(state(tmp_path / "run"), before[0]) == []
    assert (tmp_path / "run" / "history.jsonl").read_bytes() == before[1]


def test_half_a_line_of_history_is_forgotten(tmp_path):
    train(tmp_path / "whole")
    interrupted(tmp_path / "parts", at=20, event=terminate)
    with (tmp_path / "parts" / "history.jsonl").open("a") as file:
        file.write('{"step": 9, "loss": 0.1}\n{"step": 10, "lo')  # as a run that was killed leaves it
    train(tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    "change",
    [
        {"n_steps": 12}, {"batch_size": 4}, {"accumulate": 1}, {"learning_rate": 0.5}, {"ema_decay": 0.0},
        {"seed": 1}, {"warmup_steps": 1}, {"mixed_precision": "bf16"}, {"max_grad_norm": 0.0}, {"weight_decay": 0.0},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_other_settings_are_refused(tmp_path_factory, change):
    directory = tmp_path_factory.getbasetemp() / "settings"
    if not directory.exists():
        train(directory, config=replace(CONFIG, n_steps=4))
    before = (directory / "training_state.pt").read_bytes()
    config = replace(CONFIG, n_steps=4)
    (name,) = change
    with pytest.raises(ValueError, match=f"was trained with {name}={getattr(config, name)!r}: resume with") as error:
        train(directory, config=replace(config, **change), resume=True)
    assert str(directory) in one_line(error)
    assert (directory / "training_state.pt").read_bytes() == before


def test_a_folder_in_use_or_empty_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to resume: .*training_state.pt is missing") as error:
        train(tmp_path / "run", resume=True)
    one_line(error)
    assert not (tmp_path / "run").exists()
    train(tmp_path / "run")
    before = (tmp_path / "run" / "training_state.pt").read_bytes()
    with pytest.raises(ValueError, match="holds a training already: resume it .*--resume") as error:
        train(tmp_path / "run")
    assert str(tmp_path / "run") in one_line(error)
    assert (tmp_path / "run" / "training_state.pt").read_bytes() == before


def test_a_run_that_never_saved_may_be_started_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", data=Sums(at=6, event=raise_interrupt))
    assert not (tmp_path / "run" / "training_state.pt").exists()
    train(tmp_path / "run")
    train(tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


class Dangerous:
    """A pickle that leaves a mark when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("not a state"),
        lambda path: path.write_bytes(pickle.dumps(Dangerous(path.parent / "run.mark"), protocol=2)),
        lambda path: torch.save(Dangerous(path.parent / "run.mark"), path),
        lambda path: torch.save({"step": 3}, path),
        lambda path: torch.save(torch.zeros(3), path),
    ],
    ids=["half", "empty", "text", "pickle", "pickle in a zip", "lacks parts", "tensor"],
)
def test_a_spoiled_state_is_refused(tmp_path, spoil):
    interrupted(tmp_path / "run", at=20, event=terminate)
    spoil(tmp_path / "run" / "training_state.pt")
    with pytest.raises(ValueError, match="training_state.pt cannot be read as a training state") as error:
        train(tmp_path / "run", resume=True)
    assert "another folder" in one_line(error)
    assert not (tmp_path / "run" / "run.mark").exists(), "a pickle was run"


def test_a_state_of_another_network_is_refused(tmp_path):
    interrupted(tmp_path / "run", at=20, event=terminate)
    with pytest.raises(ValueError, match="is of another network") as error:
        train(tmp_path / "run", model=linear(), resume=True)
    one_line(error)
    torch.manual_seed(0)
    wider = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9), nn.Dropout(0.3), nn.ReLU(), nn.Linear(9, 1))
    with pytest.raises(ValueError, match="is of another network .*size mismatch") as error:
        train(tmp_path / "run", model=wider, resume=True)
    one_line(error)


# --- when something goes wrong


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(tmp_path):
    for bad in (math.nan, math.inf):
        directory = tmp_path / str(bad)
        objective = Scripted(losses=[1.0] * 12 + [bad])  # two passes a step: in the seventh step
        with pytest.raises(FloatingPointError, match="at step 7: lower learning_rate .*untouched") as error:
            train(directory, objective=objective)
        one_line(error)
        saved = state(directory)
        assert saved["step"] == 6 and all(value.isfinite().all() for value in saved["network"].values())
        load_weights(network(), directory / "last")


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """A finite loss can have an infinite gradient: the weights are spoiled before any loss says so."""

    class Steep(Regression):
        def loss(self, network, batch, generator):
            loss, terms = super().loss(network, batch, generator)
            if len(self.draws) == 7 * 2 + 2:  # the last pass of step 8, which is saved
                loss = loss + (network(batch["x"]).sum() * 0).sqrt()
            return loss, terms

    with pytest.raises((ValueError, FloatingPointError), match="NaN") as error:
        train(tmp_path / "run", objective=Steep())
    one_line(error)
    saved = state(tmp_path / "run")
    assert saved["step"] == 6 and all(value.isfinite().all() for value in saved["network"].values())
    load_weights(network(), tmp_path / "run" / "last")


def half_then_fail(write, *, after: int):
    """`write(content, path, ...)` that from call `after` on writes half a file and fails, as a full disk does."""
    calls = []

    def spoiled(content, path, *arguments, **keywords):
        write(content, path, *arguments, **keywords)
        calls.append(path)
        if len(calls) > after:
            written = Path(path).read_bytes()
            Path(path).write_bytes(written[: len(written) // 2])
            raise OSError("no space left on device")

    return spoiled


def test_a_full_disk_leaves_the_previous_state(tmp_path, monkeypatch):
    train(tmp_path / "whole")
    monkeypatch.setattr(torch, "save", half_then_fail(torch.save, after=2))
    with pytest.raises(OSError, match="no space"):
        train(tmp_path / "parts")
    monkeypatch.undo()
    assert state(tmp_path / "parts")["step"] == 4
    assert not [path for path in (tmp_path / "parts").rglob("*") if "tmp" in path.name or "part" in path.name]
    load_weights(network(), tmp_path / "parts" / "last")
    train(tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_full_disk_leaves_the_previous_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "save_file", half_then_fail(checkpoints.save_file, after=3))
    with pytest.raises(OSError, match="no space"):
        train(tmp_path / "run")
    monkeypatch.undo()
    for name in ("best", "last"):
        load_weights(network(), tmp_path / "run" / name)
    train(tmp_path / "run", resume=True)


def test_stop_requests_restores_the_handlers():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_requests() as event:
        assert not event.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        assert event.wait(1), "the first one is a request"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(1)
        os.kill(os.getpid(), signal.SIGTERM)  # as often as one likes
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_training_runs_outside_of_the_main_thread(tmp_path):
    """Where Python allows no signal handlers."""
    results = []
    thread = threading.Thread(target=lambda: results.append(train(tmp_path / "run")))
    thread.start()
    thread.join()
    assert results[0].step == 10


# --- precision


def test_bfloat16_trains_on_the_cpu(tmp_path):
    kinds = []

    class Watching(Regression):
        def loss(self, network, batch, generator):
            kinds.append(torch.is_autocast_enabled("cpu"))
            return super().loss(network, batch, generator)

    model = network()
    result = train(tmp_path / "run", config=replace(CONFIG, mixed_precision="bf16"), model=model, objective=Watching())
    assert result.step == 10 and all(kinds)
    assert all(value.dtype != torch.bfloat16 for value in model.state_dict().values())
    # the caller's network computes in float32 again, also where accelerate had wrapped it
    model.eval()
    x = torch.randn(3, 4)
    expected = network(seed=1).eval()
    expected.load_state_dict(model.state_dict())
    assert torch.equal(model(x), expected(x)) and "_original_forward" not in vars(model)


AVX2 = {"architecture": "x86_64", "avx2": True, "avx512_bw": False, "cpu_name": "AMD EPYC"}


@pytest.mark.parametrize(
    ("can", "precision", "n_warnings"),
    [
        (AVX2, "bf16", 1),
        (AVX2, "no", 0),
        (AVX2 | {"avx512_bw": True}, "bf16", 0),
        (AVX2 | {"avx_ne_convert": True}, "bf16", 0),
        ({"architecture": "aarch64"}, "bf16", 0),
        ({}, "bf16", 0),  # unknown
    ],
)
def test_a_precision_without_arithmetic_is_told(tmp_path, monkeypatch, recwarn, can, precision, n_warnings):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    train(tmp_path / "run", config=replace(CONFIG, mixed_precision=precision, n_steps=1))
    told = [str(each.message) for each in recwarn if each.category is SlowPrecision]
    assert len(told) == n_warnings and all("AMD EPYC has no fast bfloat16" in each for each in told)


def test_a_second_training_may_have_another_precision(tmp_path):
    for precision in ("no", "bf16", "no"):
        train(
            tmp_path / f"{precision}{len(list(tmp_path.iterdir()))}", config=replace(CONFIG, mixed_precision=precision)
        )
    assert differences(state(tmp_path / "no0")["network"], state(tmp_path / "no2")["network"]) == []
    assert differences(state(tmp_path / "no0")["network"], state(tmp_path / "bf161")["network"]) != []


# --- settings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_steps": 0}, "n_steps must be at least 1"),
        ({"batch_size": -1}, "batch_size must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": math.nan}, "learning_rate must be positive"),
        ({"learning_rate": math.inf}, "learning_rate must be a finite number, got inf"),
        ({"min_learning_rate": -1e-6}, "min_learning_rate must be at least 0"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, got -1"),
        ({"n_workers": -1}, "n_workers must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"validate_every": -1}, "validate_every must be at least 0"),
        ({"max_grad_norm": math.nan}, "max_grad_norm must be at least 0, got nan"),
        ({"max_grad_norm": math.inf}, "max_grad_norm must be a finite number"),
        ({"weight_decay": math.nan}, "weight_decay must be at least 0, got nan"),
        ({"ema_decay": 1.0}, "ema_decay must be in"),
        ({"ema_decay": -0.1}, "ema_decay must be in"),
        ({"mixed_precision": "fp8"}, "mixed_precision is"),
        ({"device": "tpu"}, "device is"),
    ],
)
def test_impossible_settings_are_refused(change, words):
    with pytest.raises(ValueError, match=words) as error:
        FitConfig(**change)
    one_line(error)
