"""One training loop for everything that is trained here, over accelerate.

    fit(network, objective, dataset, validation=..., config=FitConfig(...), directory="runs/x")

leaves in the directory:

    best/ last/            config.json and model.safetensors (the averaged weights): ready for `load_separator`
    training_state.pt      everything `resume=True` needs to continue to the same numbers
    history.jsonl          a line per log step and per validation
    tensorboard/ pictures/ scalars, and mixture / target / prediction

An objective may be adversarial: a second network, with its own optimiser, learns to tell real from made, and its
judgement is part of the loss (`Adversary`).

Item i of the data is a function of its number, so the position in the data is one integer. Files are written, then
renamed. Ctrl-C and SIGTERM end the run after the step in progress, with everything saved.
"""

import contextlib
import json
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from lasslab.models.checkpoints import save_network
from lasslab.signal.files import write_atomically, write_json, write_text
from lasslab.training.objectives import Objective

STATE_FILE = "training_state.pt"

#: writes a checkpoint folder: (directory, network, its `config.json`)
Save = Callable[[Path, nn.Module, Mapping], object]


class SlowPrecision(UserWarning):
    """A precision that the processor has no arithmetic for: it trains, and takes many times as long."""


def check_at_least(config: Any, minimum: int, *names: str) -> None:
    """Refuse settings below a number, and those that are no number."""
    for name in names:
        if not getattr(config, name) >= minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {getattr(config, name)}")


def check_positive(config: Any, *names: str) -> None:
    """Refuse settings that are not above 0."""
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}")


def check_shares(config: Any, *names: str) -> None:
    """Refuse settings that are not from 0 to 1."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name} is a share in [0, 1], got {getattr(config, name)}")


@dataclass(frozen=True)
class FitConfig:
    """How to train.

    Args:
        n_steps: optimiser steps.
        batch_size: examples per process and forward pass.
        accumulate: forward passes per optimiser step.
        learning_rate: after the warm-up, at the top of the cosine.
        min_learning_rate: at the end of the cosine.
        warmup_steps: linear rise from zero.
        weight_decay: of AdamW; 0 makes it Adam.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them.
        ema_decay: of the weights' moving average, which is validated and shipped; 0 ships the weights themselves.
        mixed_precision: "no", "bf16" or "fp16".
        n_workers: processes that prepare data; they do not change the data.
        log_every, validate_every, save_every, picture_every: in steps; 0 is never. The last step is always validated
            and saved.
        seed: of everything random that is not the data.
        device: "auto" or "cpu".

    Raises:
        ValueError: a setting is out of its range, or a number, here or in a recipe, is infinite or none; it is named.
    """

    n_steps: int = 1_000
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-6
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    mixed_precision: str = "no"
    n_workers: int = 0
    log_every: int = 10
    validate_every: int = 500
    save_every: int = 500
    picture_every: int = 500
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "n_steps", "batch_size", "accumulate")
        check_at_least(self, 0, "min_learning_rate", "warmup_steps", "weight_decay", "max_grad_norm", "n_workers")
        check_at_least(self, 0, "log_every", "validate_every", "save_every", "picture_every", "seed")
        check_positive(self, "learning_rate")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise ValueError(f"mixed_precision is 'no', 'bf16' or 'fp16', got {self.mixed_precision!r}")
        if self.device not in ("auto", "cpu"):
            raise ValueError(f"device is 'auto' or 'cpu', got {self.device!r}")
        for field in fields(self):  # those of a recipe too; what has no bound of its own is refused here
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.name} must be a finite number, got {value}")


@dataclass(frozen=True)
class Adversary:
    """A second network that learns to tell real from made, for objectives that are adversarial.

    From step `start` on, `objective.loss` is given the network, frozen, as `adversary=`, and after the step of the
    trained network `objective.adversary_loss(adversary)` is the loss that the adversary descends: of what the last
    `loss` made, against what is real. It follows the learning rate of the run, scaled, with a warm-up of its own.

    Args:
        network: the adversary; changed in place.
        start: steps before it takes part.
        learning_rate: at the top of the cosine.
        betas: of its AdamW; adversaries like a short memory.
        max_grad_norm: its gradients are scaled down to this norm; 0 leaves them.
    """

    network: nn.Module
    start: int = 0
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.8, 0.99)
    max_grad_norm: float = 0.0

    def __post_init__(self) -> None:
        if self.start < 0 or not self.learning_rate > 0:
            raise ValueError(
                f"an adversary starts at a step of 0 or more with a positive learning rate, got {self.start} and "
                f"{self.learning_rate}"
            )

    def settings(self) -> dict:
        """What a resumed run must have in common with its first part."""
        return {"start": self.start, "learning_rate": self.learning_rate, "betas": list(self.betas)}


@dataclass
class FitResult:
    """What a run reached: last step, best monitored figure and its step, seconds, and whether it was stopped early."""

    step: int
    best: float | None
    best_step: int
    seconds: float
    stopped: bool
    history: list[dict]


def learning_rate_factor(step: int, config: FitConfig) -> float:
    """Share of the full learning rate at a step: linear warm-up, then half a cosine down to the minimum.

    f = (m + (1 - m) (1 + cos(pi p)) / 2) with p the progress after the warm-up and m = minimum / full.
    """
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    progress = min((step - config.warmup_steps) / max(config.n_steps - config.warmup_steps, 1), 1.0)
    minimum = config.min_learning_rate / config.learning_rate
    return minimum + (1 - minimum) * (1 + math.cos(math.pi * progress)) / 2


class PositionSampler(Sampler):
    """Item numbers from one position to another: the data once through, then again in a new order, and so on.

    Args:
        n_items: length of the dataset.
        start: first position, counted from the beginning of training.
        stop: position after the last.
        seed: of the order; the first pass is in the dataset's own order, which is random already.
    """

    def __init__(self, n_items: int, *, start: int, stop: int, seed: int) -> None:
        self.n_items, self.start, self.stop, self.seed = n_items, start, stop, seed

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[int]:
        position = self.start
        while position < self.stop:
            epoch, first = divmod(position, self.n_items)
            order = range(self.n_items)
            if epoch:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                order = torch.randperm(self.n_items, generator=generator).tolist()
            for item in order[first : first + self.stop - position]:
                yield item
                position += 1


@contextlib.contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C interrupts at once. Handlers are restored on leaving."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers in the main thread only
        yield event
        return

    def handle(number: int, frame: object) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fit(
    network: nn.Module,
    objective: Objective,
    dataset: Dataset,
    *,
    directory: str | Path,
    config: FitConfig | None = None,
    validation: Sequence[dict] = (),
    checkpoint_config: dict | None = None,
    adversary: Adversary | None = None,
    save: Save = save_network,
    resume: bool = False,
    progress: bool = True,
) -> FitResult:
    """Train a network.

    Args:
        network: changed in place; ends with the last step's weights (not their average).
        objective: loss, validation figures and pictures.
        dataset: items that collate to the batches the objective reads.
        directory: where everything is written.
        config: how to train.
        validation: batches that never change; the moving average is judged on them.
        checkpoint_config: written as `config.json` beside the weights, for the loader.
        adversary: of an adversarial objective.
        save: writes `best/` and `last/`, for networks whose checkpoints are more than their weights.
        resume: continue from the directory's `training_state.pt`, to the same numbers as an uninterrupted run.
        progress: show a bar.

    Returns:
        What was reached.

    Raises:
        ValueError: when there is nothing to resume, or it was trained with other settings, or the directory holds a run
            already and `resume` is false; or for an adversary in fp16, whose loss scale two optimisers cannot share.
        FloatingPointError: when the loss is no longer finite; the last checkpoint is kept.
    """
    config = config or FitConfig()
    if adversary and config.mixed_precision == "fp16":
        raise ValueError("an adversary trains in 'bf16' or 'no', not in mixed_precision 'fp16'")
    accelerator = _accelerator(config)
    if accelerator.device.type == "cpu":
        _warn_of_slow_precision(config.mixed_precision)
    run = _Run(network, objective, config, Path(directory), checkpoint_config or {}, accelerator)
    run.save_network = save
    if adversary:
        run.opponent = _Opponent(adversary, config, accelerator)
    if resume:
        run.restore()
    elif run.state_path.exists():
        raise ValueError(f"{directory} holds a training already: resume it (--resume), or choose another folder")
    per_step = config.batch_size * config.accumulate * accelerator.num_processes
    sampler = PositionSampler(len(dataset), start=run.step * per_step, stop=config.n_steps * per_step, seed=config.seed)
    loader = DataLoader(
        dataset,
        batch_size=config.batch_size,
        sampler=sampler,
        num_workers=config.n_workers,
        persistent_workers=False,
        worker_init_fn=_leave_signals_to_the_main_process,
        generator=torch.Generator(),  # else a new iterator, and so a resume, would draw from the network's randomness
    )
    try:
        run.train(accelerator.prepare(loader), validation, progress=progress)
    finally:
        accelerator.unwrap_model(run.network, keep_fp32_wrapper=False)  # the caller's network computes in float32 again
    return run.result()


def _accelerator(config: FitConfig):
    """A fresh accelerator: accelerate keeps a process's first precision and device for good, notebooks train twice."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.accumulate,
        cpu=config.device == "cpu",
    )


def _warn_of_slow_precision(mixed_precision: str) -> None:
    """PyTorch's fast bfloat16 on x86 needs AVX-512: with AVX2 alone, a step took eleven times as long as in float32."""
    can = getattr(torch.cpu, "get_capabilities", dict)()  # older versions do not tell
    slow = can.get("architecture") == "x86_64" and not (can.get("avx512_bw") or can.get("avx_ne_convert"))
    if mixed_precision == "bf16" and slow:
        warnings.warn(
            f"mixed_precision is 'bf16', and {can.get('cpu_name', 'this processor')} has no fast bfloat16: a step can "
            "take ten times as long as with 'no'",
            SlowPrecision,
            stacklevel=3,
        )


def _leave_signals_to_the_main_process(worker: int) -> None:
    """A scheduler signals the whole process group: a worker that died of it would take the last checkpoint with it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _Opponent:
    """The state of an adversary, and its step."""

    def __init__(self, adversary: Adversary, config: FitConfig, accelerator) -> None:
        self.adversary, self.accelerator = adversary, accelerator
        network = adversary.network.to(accelerator.device, memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=adversary.learning_rate, betas=adversary.betas, weight_decay=config.weight_decay
        )
        self.network, self.optimiser = accelerator.prepare(network, optimiser)

        def factor(step: int) -> float:  # counts the adversary's own steps
            warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
            return warm * learning_rate_factor(max(adversary.start + step, config.warmup_steps), config)

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser.optimizer, factor)

    @property
    def judge(self) -> nn.Module:
        """The network itself, without what wraps it for several processes."""
        return self.accelerator.unwrap_model(self.network)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """The network as a part of another's loss: gradients pass through it and leave it alone."""
        self.judge.requires_grad_(False)
        try:
            yield self.judge
        finally:
            self.judge.requires_grad_(True)

    def learn(self, loss: Tensor) -> None:
        """Descend its loss; a step once per accumulated batch."""
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients:
            if self.adversary.max_grad_norm:
                self.accelerator.clip_grad_norm_(self.network.parameters(), self.adversary.max_grad_norm)
            self.optimiser.step()
            self.schedule.step()
            self.optimiser.zero_grad()

    def state_dict(self) -> dict:
        return {
            "settings": self.adversary.settings(),
            "network": self.judge.state_dict(),
            "optimiser": self.optimiser.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.judge.load_state_dict(state["network"])
        self.optimiser.optimizer.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])


class _Run:
    """State of one training: what `training_state.pt` holds, and the steps that change it."""

    def __init__(self, network, objective, config, directory, checkpoint_config, accelerator) -> None:
        self.config, self.objective, self.directory = config, objective, directory
        self.checkpoint_config, self.accelerator = checkpoint_config, accelerator
        self.step, self.best, self.best_step, self.seconds, self.stopped = 0, None, 0, 0.0, False
        self.history: list[dict] = []
        torch.manual_seed(config.seed)
        network = network.to(accelerator.device, memory_format=torch.channels_last)
        self.average = _moving_average(network, config.ema_decay)
        trained = (
            network.parameter_groups(config.learning_rate)
            if hasattr(network, "parameter_groups")
            else network.parameters()
        )
        optimiser = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.network, self.optimiser = accelerator.prepare(network, optimiser)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser.optimizer, lambda step: learning_rate_factor(step, config)
        )
        self.generator = torch.Generator(accelerator.device)
        self.opponent: _Opponent | None = None
        self.save_network: Save = save_network

    def seed_noise(self) -> None:
        """Noise is a function of (seed, step, process), as data is of its number: no state to save or to mix up."""
        number = (self.config.seed * 1_000_003 + self.step) * 1_000_003 + self.accelerator.process_index
        self.generator.manual_seed(number % 2**63)

    @property
    def state_path(self) -> Path:
        return self.directory / STATE_FILE

    @property
    def trained(self) -> nn.Module:
        """The network that is validated and saved: the moving average where there is one."""
        return self.average.module if self.average else self.accelerator.unwrap_model(self.network)

    def result(self) -> FitResult:
        return FitResult(self.step, self.best, self.best_step, self.seconds, self.stopped, self.history)

    def train(self, loader, validation: Sequence[dict], *, progress: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from tqdm.auto import tqdm

        config, main = self.config, self.accelerator.is_main_process
        self.directory.mkdir(parents=True, exist_ok=True)
        if main:
            self._rewrite_history()
        # what a killed run wrote beyond its last checkpoint is not shown twice
        writer = SummaryWriter(self.directory / "tensorboard", purge_step=self.step + 1) if main else None
        bar = tqdm(total=config.n_steps, initial=self.step, disable=not (progress and main), unit="step")
        started = time.monotonic() - self.seconds
        with stop_requests() as stop, contextlib.closing(bar), writer or contextlib.nullcontext():
            self.network.train()
            self.seed_noise()
            for batch in loader:
                loss, terms = self._forward_backward(batch)
                if not self.accelerator.sync_gradients:
                    continue
                self.step += 1
                self.seed_noise()
                self.seconds = time.monotonic() - started
                last = self.step == config.n_steps
                self.stopped = self._any_process(stop.is_set()) and not last
                bar.update()
                if main:
                    if _due(self.step, config.log_every) or last:
                        self._log(writer, bar, loss, terms)
                    if validation and (_due(self.step, config.validate_every) or last):
                        self._validate(writer, validation)
                    if validation and _due(self.step, config.picture_every):
                        self._draw(writer, validation[0])
                    if _due(self.step, config.save_every) or last or self.stopped:
                        self.save()
                if self.stopped:
                    if progress and main:
                        bar.write(f"stopped at step {self.step} of {config.n_steps}; continue with --resume")
                    break

    def _forward_backward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        opponent = self.opponent if self.opponent and self.step >= self.opponent.adversary.start else None
        # once per batch: entering it is what counts the batches
        with self.accelerator.accumulate(self.network, *([opponent.network] if opponent else [])):
            loss, terms = self._loss(batch, opponent)
            self._check(loss)
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                if self.config.max_grad_norm:
                    self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
                self.optimiser.step()
                self.schedule.step()
                self.optimiser.zero_grad()
                if self.average:
                    self.average.update_parameters(self.accelerator.unwrap_model(self.network))
            if opponent:
                with self.accelerator.autocast():
                    judgement = self.objective.adversary_loss(opponent.network)
                self._check(judgement)
                opponent.learn(judgement)
                terms = terms | {"adversary": judgement.detach()}
        return loss.detach(), terms

    def _loss(self, batch: dict, opponent: _Opponent | None) -> tuple[Tensor, dict[str, Tensor]]:
        with self.accelerator.autocast():
            if not opponent:
                return self.objective.loss(self.network, batch, self.generator)
            with opponent.frozen() as judge:
                return self.objective.loss(self.network, batch, self.generator, adversary=judge)

    def _check(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.step + 1}: lower learning_rate (now "
                f"{self.config.learning_rate}); the last checkpoint in {self.directory} is untouched"
            )

    def _any_process(self, flag: bool) -> bool:
        if self.accelerator.num_processes == 1:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device)))

    def _log(self, writer, bar, loss: Tensor, terms: dict[str, Tensor]) -> None:
        rate = self.schedule.get_last_lr()[0]
        row = {"step": self.step, "seconds": round(self.seconds, 1), "learning_rate": rate, "loss": loss.item()}
        row |= {name: term.item() for name, term in terms.items()}
        for name, value in row.items():
            if name not in ("step", "seconds"):
                writer.add_scalar(f"train/{name}", value, self.step)
        bar.set_postfix(loss=f"{row['loss']:.3f}", rate=f"{rate:.1e}")
        self._record(row)

    @torch.no_grad()
    def _validate(self, writer, validation: Sequence[dict]) -> None:
        """Judge the moving average; where it is the best so far, write `best/`."""
        network = self.trained.eval()
        rows = [self.objective.validate(network, self._on_device(batch)) for batch in validation]
        network.train()
        figures = {name: torch.cat([row[name] for row in rows]).mean().item() for name in rows[0]}
        for name, value in figures.items():
            writer.add_scalar(f"validation/{name}", value, self.step)
        self._record({"step": self.step, "seconds": round(self.seconds, 1), "validation": figures})
        value = figures[self.objective.monitor]
        if math.isfinite(value) and (self.best is None or value > self.best):  # NaN would stay the best for ever
            self.best, self.best_step = value, self.step
            self.save_network(self.directory / "best", self.trained, self.checkpoint_config)

    @torch.no_grad()
    def _draw(self, writer, batch: dict) -> None:
        """Mixture, target and prediction side by side, in TensorBoard and as a PNG."""
        import matplotlib
        from matplotlib.image import imsave

        network = self.trained.eval()
        pictures = self.objective.picture(network, self._on_device(batch))
        network.train()
        panels = torch.cat([nn.functional.pad(panel.cpu(), (0, 8), value=1.0) for panel in pictures.values()], dim=1)
        image = matplotlib.colormaps["magma"](panels.flip(0).numpy())[..., :3]
        writer.add_image(" | ".join(pictures), image, self.step, dataformats="HWC")
        folder = self.directory / "pictures"
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"step_{self.step:07d}.png", lambda temporary: imsave(temporary, image, format="png"))

    def _record(self, row: dict) -> None:
        self.history.append(row)
        with (self.directory / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _on_device(self, batch: dict) -> dict:
        device = self.accelerator.device
        return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}

    def save(self) -> None:
        """Write `last/` and the training state."""
        self.save_network(self.directory / "last", self.trained, self.checkpoint_config)
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
            "seconds": self.seconds,
            "network": self.accelerator.unwrap_model(self.network).state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimiser": self.optimiser.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
            "adversary": self.opponent.state_dict() if self.opponent else None,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        write_atomically(self.state_path, lambda temporary: torch.save(state, temporary))
        write_json(
            self.directory / "run.json",
            {
                "step": self.step,
                "best": self.best,
                "best_step": self.best_step,
                "seconds": self.seconds,
                "config": asdict(self.config),
            },
        )

    def restore(self) -> None:
        """Continue from `training_state.pt`."""
        if not self.state_path.is_file():
            raise ValueError(f"nothing to resume: {self.state_path} is missing; start without --resume")
        try:
            # weights_only: tensors, numbers and containers are read, no code is run
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
            missing = {"config", "step", "network", "average", "optimiser", "schedule", "random"} - set(state)
            if missing:
                raise KeyError(*sorted(missing))
        except Exception as error:
            raise ValueError(
                f"{self.state_path} cannot be read as a training state ({type(error).__name__}): "
                "start anew in another folder"
            ) from error
        # What only says how often to write, or where to compute, may change between the parts of one run.
        free = {"log_every", "validate_every", "save_every", "picture_every", "n_workers", "device"}
        changed = [
            name
            for name, value in asdict(self.config).items()
            if name not in free and state["config"].get(name) != value
        ]
        if changed:
            was = ", ".join(f"{name}={state['config'].get(name)!r}" for name in changed)
            raise ValueError(f"{self.directory} was trained with {was}: resume with the same settings")
        ours, theirs = (
            self.opponent.adversary.settings() if self.opponent else None,
            (state.get("adversary") or {}).get("settings"),  # runs before there were adversaries have none
        )
        if ours != theirs:
            raise ValueError(f"{self.directory} was trained with adversary={theirs}: resume with the same settings")
        try:
            self.accelerator.unwrap_model(self.network).load_state_dict(state["network"])
            if self.opponent:
                self.opponent.load_state_dict(state["adversary"])
            if self.average:
                self.average.load_state_dict(state["average"])
            self.optimiser.optimizer.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise ValueError(f"{self.state_path} is of another network ({reason}): resume with the same one") from error
        self.schedule.load_state_dict(state["schedule"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["random_cuda"])
        self.step, self.best, self.best_step = state["step"], state["best"], state["best_step"]
        self.seconds = state["seconds"]
        self.history = self._read_history()

    def _read_history(self) -> list[dict]:
        """The history up to the restored step: a run that was killed may have written further, and half a line."""
        path = self.directory / "history.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return [row for row in rows if row["step"] <= self.step]

    def _rewrite_history(self) -> None:
        text = "".join(json.dumps(row) + "\n" for row in self.history)
        path = self.directory / "history.jsonl"
        write_text(path, text)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _moving_average(network: nn.Module, decay: float):
    """Exponential moving average of weights and buffers, or None for decay 0.

    Early on the average follows faster, (1 + n) / (10 + n) of itself: a network's first steps are soon worthless.
    """
    if not decay:
        return None

    def update(averages: list[Tensor], values: list[Tensor], n: Tensor) -> None:
        keep = min(decay, (1 + int(n)) / (10 + int(n)))
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value.to(average.dtype), 1 - keep)
            else:
                average.copy_(value)

    return torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=update, use_buffers=True)
