"""The training loop with an adversary: who learns when, to the bit the same when resumed, and what is refused."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from lasslab.training.fit import Adversary, FitConfig, fit, learning_rate_factor

CONFIG = FitConfig(
    n_steps=8,
    batch_size=2,
    accumulate=2,
    learning_rate=1e-2,
    warmup_steps=2,
    ema_decay=0.8,
    log_every=1,
    validate_every=4,
    save_every=2,
    picture_every=0,
    device="cpu",
)


class Points(Dataset):
    """Item i is a function of i; reading item `at` stops the run as a scheduler would."""

    def __init__(self, at: int = -1) -> None:
        self.at = at

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> dict:
        if index == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"x": torch.randn(4, generator=torch.Generator().manual_seed(index))}


class Imitation:
    """The network makes points of noise; the adversary tells them from real ones by least squares."""

    monitor = "score"

    def __init__(self) -> None:
        self.seen: list[tuple[bool, bool | None]] = []  # of each loss: was there an adversary, was it frozen

    def loss(self, network, batch, generator, adversary=None):
        noise = torch.randn(batch["x"].shape, generator=generator)
        made = network(noise)
        frozen = None if adversary is None else not any(p.requires_grad for p in adversary.parameters())
        self.seen.append((adversary is not None, frozen))
        loss = (made.mean(0) - batch["x"].mean(0)).square().mean()
        terms = {"mean": loss.detach()}
        if adversary is not None:
            fooled = (adversary(made) - 1).square().mean()
            loss, terms = loss + fooled, terms | {"fooled": fooled.detach()}
            self.last = (batch["x"], made.detach())
        return loss, terms

    def adversary_loss(self, adversary):
        assert all(parameter.requires_grad for parameter in adversary.parameters())
        real, made = adversary(torch.cat(self.last)).chunk(2)
        return (real - 1).square().mean() + made.square().mean()

    def validate(self, network, batch):
        return {"score": -network(batch["x"]).square().mean(1)}

    def picture(self, network, batch):
        return {"picture": torch.zeros(4, 4)}


class NaNJudgement(Imitation):
    def adversary_loss(self, adversary):
        return super().adversary_loss(adversary) * float("nan")


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 4))


def judge(seed: int = 7) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 8)), nn.LeakyReLU(), nn.Linear(8, 1))


def train(directory: Path, *, config=CONFIG, start=2, data=None, model=None, judges=None, objective=None, **arguments):
    return fit(
        model or network(),
        objective or Imitation(),
        data or Points(),
        directory=directory,
        config=config,
        validation=[{"x": torch.ones(3, 4)}],
        checkpoint_config={},
        adversary=Adversary(judges or judge(), start=start, learning_rate=5e-3),
        progress=False,
        **arguments,
    )


def state(directory: Path) -> dict:
    return torch.load(directory / "training_state.pt", weights_only=True)


def differences(a, b, name: str = "") -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [path for key in a if key != "seconds" for path in differences(a[key], b[key], f"{name}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [path for k in range(len(a)) for path in differences(a[k], b[k], f"{name}/{k}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [name]
    return [] if type(a) is type(b) and a == b else [name]


def parameters(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_one_step_changes_both(tmp_path):
    model, judges = network(), judge()
    before = parameters(model), parameters(judges)
    train(tmp_path / "run", config=replace(CONFIG, n_steps=1), start=0, model=model, judges=judges)
    after = parameters(model), parameters(judges)
    assert all((a != b).float().mean() > 0.5 for a, b in zip(before, after, strict=True))
    assert all(parameter.requires_grad for parameter in judges.parameters()), "and is left as it was found"


def test_it_takes_part_from_its_start_and_is_frozen_in_the_other_s_loss(tmp_path):
    objective, judges = Imitation(), judge()
    before = parameters(judges)
    result = train(tmp_path / "run", objective=objective, judges=judges, start=5)
    assert objective.seen == [(False, None)] * 5 * 2 + [(True, True)] * 3 * 2
    rows = [row for row in result.history if "loss" in row]
    assert ["adversary" in row for row in rows] == ["fooled" in row for row in rows] == [False] * 5 + [True] * 3
    assert not torch.equal(before, parameters(judges))
    never = judge()
    train(tmp_path / "never", judges=never, start=8)
    assert torch.equal(before, parameters(never))


def test_the_network_s_loss_alone_decides_its_gradient(tmp_path):
    """The same first step as by hand: the adversary's own loss leaves nothing behind in the network."""
    model, judges = network(), judge()
    config = replace(CONFIG, n_steps=1, accumulate=1, max_grad_norm=0.0, weight_decay=0.0, ema_decay=0.0)
    train(tmp_path / "run", config=config, start=0, model=model, judges=judges)
    hand, hand_judge = network(), judge()
    objective, items = Imitation(), Points()
    batch = {"x": torch.stack([items[0]["x"], items[1]["x"]])}
    torch.manual_seed(CONFIG.seed)  # dropout's randomness
    generator = torch.Generator().manual_seed(0)
    hand_judge.requires_grad_(False)
    objective.loss(hand.train(), batch, generator, adversary=hand_judge)[0].backward()
    rate = 1e-2 * learning_rate_factor(0, config)
    moved = torch.optim.AdamW(hand.parameters(), lr=rate, weight_decay=0.0)
    moved.step()
    torch.testing.assert_close(parameters(model), parameters(hand))
    hand_judge.requires_grad_(True)
    objective.adversary_loss(hand_judge).backward()
    torch.optim.AdamW(hand_judge.parameters(), lr=5e-3 / 3, betas=(0.8, 0.99), weight_decay=0.0).step()
    torch.testing.assert_close(parameters(judges), parameters(hand_judge))


@pytest.mark.parametrize("at", [6, 14, 25])
def test_a_resumed_run_reaches_the_same_numbers(tmp_path, at):
    """Stopped before the adversary's start, and after."""
    train(tmp_path / "whole")
    result = train(tmp_path / "parts", data=Points(at=at))
    assert result.stopped and result.step < 8
    train(tmp_path / "parts", model=network(3), judges=judge(4), resume=True)
    assert differences(state(tmp_path / "whole"), state(tmp_path / "parts")) == []
    histories = [
        [json.loads(line) for line in (tmp_path / name / "history.jsonl").open()] for name in ("whole", "parts")
    ]
    assert differences(*histories) == []
    for name in ("best", "last"):
        ours, theirs = ((tmp_path / part / name / "model.safetensors").read_bytes() for part in ("whole", "parts"))
        assert ours == theirs


def test_the_state_holds_all_of_the_adversary(tmp_path):
    judges = judge()
    train(tmp_path / "run", judges=judges)
    kept = state(tmp_path / "run")["adversary"]
    assert kept["settings"] == {"start": 2, "learning_rate": 5e-3, "betas": [0.8, 0.99]}
    assert differences(kept["network"], dict(judges.state_dict())) == []
    assert all(entry["step"] == 6 for entry in kept["optimiser"]["state"].values()), "8 steps, from the third on"
    assert not any("adversary" in name for name in os.listdir(tmp_path / "run")), "it is not shipped"


def test_its_rate_is_the_run_s_with_a_warm_up_of_its_own(tmp_path):
    rates = []

    class Watching(Imitation):
        def adversary_loss(self, adversary):
            rates.append(None)
            return super().adversary_loss(adversary)

    for n_steps in (3, 4, 8):  # the schedule's last rate is what the state keeps
        config = replace(CONFIG, n_steps=n_steps, warmup_steps=2)
        train(tmp_path / str(n_steps), config=config, objective=Watching())
        done = n_steps - 2
        warm = min(1.0, (done + 1) / 3)
        expected = 5e-3 * warm * learning_rate_factor(2 + done, config)
        (rate,) = state(tmp_path / str(n_steps))["adversary"]["schedule"]["_last_lr"]
        assert rate == pytest.approx(expected)
    assert len(rates) == 2 * (1 + 2 + 6)


@pytest.mark.parametrize("change", [{"start": 3}, {"learning_rate": 1e-3}, {"betas": (0.5, 0.9)}])
def test_another_adversary_is_refused(tmp_path, change):
    train(tmp_path / "run", config=replace(CONFIG, n_steps=4))
    settings = {"start": 2, "learning_rate": 5e-3, "betas": (0.8, 0.99)} | change
    arguments = {
        "directory": tmp_path / "run", "config": replace(CONFIG, n_steps=4), "resume": True, "progress": False,
    }  # fmt: skip
    with pytest.raises(ValueError, match="was trained with adversary=.*'start': 2.*resume with the same") as error:
        fit(network(), Imitation(), Points(), adversary=Adversary(judge(), **settings), **arguments)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="was trained with adversary="):
        fit(network(), Imitation(), Points(), **arguments)


def test_an_adversary_of_another_size_is_refused(tmp_path):
    train(tmp_path / "run", config=replace(CONFIG, n_steps=4))
    with pytest.raises(ValueError, match="is of another network") as error:
        train(tmp_path / "run", config=replace(CONFIG, n_steps=4), judges=nn.Linear(4, 1), resume=True)
    assert "\n" not in str(error.value)


def test_a_judgement_that_is_not_finite_ends_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match="at step 3: lower learning_rate"):
        train(tmp_path / "run", objective=NaNJudgement())
    assert state(tmp_path / "run")["step"] == 2


def test_half_precision_with_a_loss_scale_is_refused(tmp_path):
    with pytest.raises(ValueError, match="trains in 'bf16' or 'no'"):
        train(tmp_path / "run", config=replace(CONFIG, mixed_precision="fp16"))
    assert not (tmp_path / "run").exists()
    train(tmp_path / "bf16", config=replace(CONFIG, mixed_precision="bf16"))


def test_impossible_adversaries_are_refused():
    for settings in ({"start": -1}, {"learning_rate": 0.0}):
        with pytest.raises(ValueError, match="an adversary starts at a step of 0 or more"):
            Adversary(judge(), **settings)


def test_its_gradients_can_be_clipped(tmp_path):
    norms = []
    for limit in (0.0, 1e-3):
        directory = tmp_path / str(limit)
        adversary = Adversary(judge(), learning_rate=5e-3, max_grad_norm=limit)
        config = replace(CONFIG, n_steps=1)
        fit(network(), Imitation(), Points(), directory=directory, config=config, adversary=adversary, progress=False)
        moments = [entry["exp_avg"].flatten() for entry in state(directory)["adversary"]["optimiser"]["state"].values()]
        norms.append(5 * torch.cat(moments).norm().item())  # one step's first moment: a fifth of the gradient
    assert norms[0] > 0.1 and norms[1] == pytest.approx(1e-3, rel=1e-3)
