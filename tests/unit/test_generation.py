"""Training of flow and diffusion: who loses its words, fixed validation, trainings that go on as they were."""

import json
import math
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from doubles import LetterEncoder, stopping
from safetensors.torch import load_file

from lasslab.models import velocity as velocity_module
from lasslab.models.checkpoints import find_checkpoint, read_config, save_network
from lasslab.models.text import TextCache
from lasslab.models.vae import MelVAE, VAEConfig
from lasslab.models.velocity import GATE_BIAS, VelocityConfig, VelocityNetwork
from lasslab.training.card_parts import trained_config, training_section
from lasslab.training.fit import FitConfig
from lasslab.training.generation import (
    DIFFUSION_PRESETS,
    FLOW_PRESETS,
    PROCESSES,
    Generation,
    GenerationRecipe,
    gate_loss,
    train_generation,
    training_mixtures,
    validation_mixtures,
)
from lasslab.training.generation_card import generation_card, kind_of, read_report
from lasslab.training.recipes import PRESETS, check_objective, recipe_class, train_recipe
from lasslab.training.runs import read_recipe

TINY = VelocityConfig(channels=(8, 16), attention=(False, True), head_width=8, latent_channels=2, text_dim=6)
every_process = pytest.mark.parametrize("process", PROCESSES)


class Spy(torch.nn.Module):
    """Remembers what it is called with, and answers with half of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict] = []

    def forward(self, x_t, t, **condition):
        self.calls.append({"x_t": x_t, "t": t, **condition})
        return 0.5 * x_t


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(n: int = 6) -> dict:
    return {
        "mixture": randn(n, 2, 6, 4),
        "target": randn(n, 2, 6, 4, seed=1),
        "query": [f"sound {number}" for number in range(n)],
        "label": ["x"] * n,
    }


def generation(process: str = "flow", **settings) -> Generation:
    return Generation(TextCache(LetterEncoder()), process, **settings)


# --- the objective


def test_the_gates_own_loss_is_a_cross_entropy():
    gate = torch.tensor([[0.9, 0.2], [0.5, 1.0]])[:, None, None]  # (2, 1, 1, 2)
    changed = torch.tensor([[True, False], [True, False]])[:, None, None]
    expected = torch.nn.functional.binary_cross_entropy(gate[0], changed[0].float())
    first, second = gate_loss(gate, changed)
    torch.testing.assert_close(first, expected)
    assert second.item() == pytest.approx((math.log(2) + math.log(1e4)) / 2), "sure and wrong: dear, but finite"


@every_process
def test_a_gate_is_told_where_the_target_is_another_than_the_mixture(process):
    data = batch()
    data["target"][:, :, :3] = data["mixture"][:, :, :3]
    data["target"][:, :, 3:] = data["mixture"][:, :, 3:] + 3.0
    network = VelocityNetwork(replace(TINY, copies=process))
    network.load_state_dict(network.with_gate(VelocityNetwork(TINY).state_dict()))
    losses, gradients = {}, {}
    for weight in (0.0, 0.5):
        objective = generation(process, gate_weight=weight)
        assert objective.changed(data)[:, :, 3:].all() and not objective.changed(data)[:, :, :3].any()
        network.zero_grad()
        losses[weight], figures = objective.loss(network, data, torch.Generator().manual_seed(0))
        losses[weight].backward()
        gradients[weight] = network.blocks.conv_out.weight.grad[-1].clone()
        assert set(figures) == ({"gate"} if weight else set())
    # a new gate is the same everywhere, and right in one half of the points
    right = torch.sigmoid(torch.tensor([GATE_BIAS, -GATE_BIAS])).log().mean()
    torch.testing.assert_close(figures["gate"], -right)
    torch.testing.assert_close(losses[0.5], losses[0.0] - 0.5 * right)
    assert not torch.allclose(gradients[0.5], gradients[0.0])


@every_process
def test_each_example_loses_its_words_on_its_own_and_never_its_mixture(process):
    """FlowSep's released code draws once for the whole batch: one batch in ten then teaches nothing but v_null."""
    objective, network, n = generation(process, dropout=0.5), Spy(), 64
    objective.loss(network, batch(n), torch.Generator().manual_seed(0))
    (call,) = network.calls
    words = objective.text(batch(n)["query"])
    dropped = (call["tokens"] == 0).all(dim=(1, 2))
    assert 18 < dropped.sum() < 46, "some of a batch, not all or none"
    assert torch.equal(call["tokens"][~dropped], words.tokens[~dropped])
    assert call["token_mask"][dropped].sum(1).unique().tolist() == [1]
    assert torch.equal(call["mixture"], batch(n)["mixture"])


@every_process
def test_some_are_told_silence_in_place_of_the_mixture(process):
    """The latent of silent log-mels, which is no zero latent; the words stay."""
    torch.manual_seed(0)
    vae = MelVAE(VAEConfig(channels=(4, 8), latent_channels=2, n_mels=16)).eval().requires_grad_(False)
    objective, network, n = generation(process, dropout=0.0, mixture_dropout=0.5, vae=vae), Spy(), 64
    objective.loss(network, batch(n), torch.Generator().manual_seed(0))
    (call,) = network.calls
    silence = vae.encode(torch.full((1, 16, 24), vae.silence))
    silent = (call["mixture"] == silence).flatten(1).all(1)
    assert 18 < silent.sum() < 46 and silence.abs().max() > 0.1
    assert torch.equal(call["mixture"][~silent], batch(n)["mixture"][~silent])
    assert torch.equal(call["tokens"], objective.text(batch(n)["query"]).tokens)
    objective.validate(network, batch())
    assert all(torch.equal(later["mixture"][:4], batch()["mixture"][:4]) for later in network.calls[1:])
    with pytest.raises(ValueError, match="mixture_dropout needs vae="):
        generation(process, mixture_dropout=0.1)


@every_process
@pytest.mark.parametrize("dropout, share", [(0.0, 0.0), (1.0, 1.0), (0.1, 0.1)])
def test_the_share_is_the_one_asked_for(process, dropout, share):
    objective, network = generation(process, dropout=dropout), Spy()
    for seed in range(20):
        objective.loss(network, batch(50), torch.Generator().manual_seed(seed))
    dropped = torch.cat([(call["tokens"] == 0).all(dim=(1, 2)) for call in network.calls]).float()
    assert dropped.mean().item() == pytest.approx(share, abs=0.03)


@every_process
def test_the_loss_is_the_process_s_and_follows_its_generator(process):
    objective, network = generation(process), Spy()
    first, again, other = (
        objective.loss(network, batch(), torch.Generator().manual_seed(seed))[0].item() for seed in (0, 0, 1)
    )
    assert first == again != other
    loss, _ = PROCESSES[process]
    condition, null = objective.conditions(network, batch())
    by_hand = loss(
        network, batch()["target"], condition, generator=torch.Generator().manual_seed(0), null=null, dropout=0.1
    )
    assert first == pytest.approx(by_hand.mean().item())


@every_process
def test_validation_is_fixed_whatever_else_draws_numbers(process):
    objective, one, two = generation(process), Spy(), Spy()
    torch.manual_seed(1)
    first = objective.validate(one, batch())
    torch.manual_seed(2)
    torch.randn(5)
    second = objective.validate(two, batch())
    for name, values in first.items():
        assert torch.equal(values, second[name])
    for ours, theirs in zip(one.calls, two.calls, strict=True):
        assert torch.equal(ours["x_t"], theirs["x_t"]) and torch.equal(ours["t"], theirs["t"])
    assert objective.monitor in first and first["fit"].shape == (6,) and first["sampled"].shape == (4,)
    assert not any((call["tokens"] == 0).all() for call in one.calls), "nobody loses its words"
    losses = [call["t"] for call in one.calls[:8]]
    assert torch.cat(losses).unique().numel() == 48, "eight times for each example"


@every_process
def test_a_network_that_knows_the_answer_has_the_best_figures(process):
    """The field of one target: v = (x_1 - x_t) / (1 - t), or the noise that is in x_t."""
    objective, one = generation(process), batch(4)
    knowing, guessing = objective.validate(Knowing(process, one["target"]), one), objective.validate(Spy(), one)
    assert (knowing["fit"] > guessing["fit"]).all()
    assert (knowing["sampled"] > -1e-3).all() and (guessing["sampled"] < -0.1).all()
    assert objective.validate(Spy(), batch()).keys() == {"fit", "sampled"}
    assert generation(process, n_sampled=0).validate(Spy(), batch()).keys() == {"fit"}


class Knowing(torch.nn.Module):
    def __init__(self, process: str, target: torch.Tensor) -> None:
        super().__init__()
        self.process, self.target = process, target

    def forward(self, x_t, t, **condition):
        from lasslab import diffusion

        t = t.reshape(-1, 1, 1, 1)
        if self.process == "flow":
            return (self.target - x_t) / (1 - t).clamp(min=1e-4)
        signal = diffusion.interpolate(torch.zeros_like(x_t), torch.ones_like(x_t), t.flatten())
        noise = diffusion.interpolate(torch.ones_like(x_t), torch.zeros_like(x_t), t.flatten())
        return (x_t - signal * self.target) / noise.clamp(min=1e-4)


def test_pictures_with_and_without_a_vae():
    torch.manual_seed(0)
    vae = MelVAE(VAEConfig(channels=(4, 8), latent_channels=2, n_mels=16)).eval()
    for objective, shape in ((generation(), (4, 6)), (generation(vae=vae), (16, 24))):
        pictures = objective.picture(Spy(), batch())
        assert set(pictures) == {"mixture", "target", "estimate"}
        assert all(picture.shape == shape and 0 <= picture.min() <= picture.max() <= 1 for picture in pictures.values())


# --- recipes


def test_flow_and_diffusion_differ_in_the_process_only():
    assert PRESETS["flow"] is FLOW_PRESETS and PRESETS["diffusion"] is DIFFUSION_PRESETS
    assert FLOW_PRESETS.keys() == DIFFUSION_PRESETS.keys() == {"quick", "lab", "full"}
    for name, recipe in FLOW_PRESETS.items():
        other = asdict(DIFFUSION_PRESETS[name])
        assert {key for key, value in asdict(recipe).items() if value != other[key]} == {"process"}
    assert FLOW_PRESETS["quick"].corpus == "synthesis", "the default needs no download"
    for recipe in FLOW_PRESETS.values():
        assert not set(recipe.folds) & set(recipe.validation_folds)


def test_the_full_preset_is_flowsep_s():
    full = FLOW_PRESETS["full"]
    assert (full.learning_rate, full.batch_size, full.n_steps, full.ema_decay) == (5e-5, 8, 1_000_000, 0.9999)
    assert full.text_encoder == "google/flan-t5-large" and full.vae.startswith("cvssp/audioldm")
    assert (full.snr_low, full.snr_high, full.text_dropout) == (-15, 15, 0.1)
    assert 1 + round(full.seconds * 16_000) // 160 == 1024


def test_every_setting_of_the_loop_reaches_it():
    changed = {
        field.name: (0.123 if isinstance(field.default, float) else 7)
        for field in fields(FitConfig)
        if field.name not in ("device", "mixed_precision")
    }
    config = replace(GenerationRecipe(), **changed, device="cpu", mixed_precision="bf16").fit_config()
    assert asdict(config) == changed | {"device": "cpu", "mixed_precision": "bf16"}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"process": "magic"}, "process is one of flow, diffusion, got 'magic'"),
        ({"size": "huge"}, "size is one of quick, lab, full"),
        ({"n_mixtures": 0}, "n_mixtures must be at least 1"),
        ({"text_dropout": 1.5}, "text_dropout"),
        ({"text_dropout": -0.1}, "text_dropout"),
        ({"n_validation": -1}, "n_validation"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"change_weight": math.inf}, "change_weight must be a finite number, got inf"),
        ({"snr_high": math.nan}, "snr_high must be a finite number, got nan"),
        ({"seconds": 0.0001}, "seconds must be at least 0.064, a frame of a spectrogram, got 0.0001"),
        ({"focus": "dog+rain"}, "focus and focus_share need each other, got 'dog.rain' and 0.0"),
        ({"focus_share": 0.4}, "focus and focus_share need each other, got '' and 0.4"),
    ],
)
def test_impossible_settings_are_refused_at_once(change, words):
    with pytest.raises(ValueError, match=words) as error:
        replace(GenerationRecipe(), **change)
    assert "\n" not in str(error.value)


def test_training_and_validation_share_no_sound():
    recipe = replace(FLOW_PRESETS["quick"], n_per_class=1, n_mixtures=3, n_validation=2)
    heard, held_out = training_mixtures(recipe), validation_mixtures(recipe)
    assert len(heard) == 3 and len(held_out) == 2 and held_out.snr_db == (0.0, 0.0)
    assert not {(c.label, c.seed) for c in heard.clips} & {(c.label, c.seed) for c in held_out.clips}


# --- trainings


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """Checkpoints with a tiny VAE, and a cache that the trainings of this file share."""
    folder = tmp_path_factory.mktemp("workshop")
    torch.manual_seed(0)
    config = VAEConfig(channels=(4, 8), latent_channels=2, n_mels=16)
    save_network(folder / "checkpoints" / "tiny-vae", MelVAE(config), {"system": "vae", "network": config})
    return folder


@pytest.fixture
def small(workshop, monkeypatch) -> GenerationRecipe:
    monkeypatch.setenv("LASSLAB_CHECKPOINTS", str(workshop / "checkpoints"))
    monkeypatch.delenv("LASSLAB_CACHE", raising=False)
    monkeypatch.setitem(velocity_module.SIZES, "quick", TINY)
    return replace(
        FLOW_PRESETS["quick"],
        vae="tiny-vae",
        text_encoder="none",
        n_per_class=1,
        n_mixtures=6,
        seconds=0.25,
        n_steps=4,
        batch_size=2,
        n_validation=2,
        warmup_steps=0,
        log_every=1,
        validate_every=2,
        save_every=2,
        picture_every=4,
        device="cpu",
    )


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run / name / "model.safetensors")


@every_process
def test_a_training_leaves_a_checkpoint_that_says_what_it_is(small, tmp_path, process):
    recipe = replace(small, process=process)
    result = train_recipe(recipe, tmp_path / "run", progress=False)
    assert result.step == 4 and result.best is not None and result.best < 0
    assert read_recipe(tmp_path / "run", GenerationRecipe) == recipe
    config = read_config(tmp_path / "run" / "best")
    assert (config["system"], config["vae"], config["text_encoder"]) == (process, "tiny-vae", "none")
    assert config["window_seconds"] == 0.25 and config["recipe"]["n_steps"] == 4 and config["provenance"]["commit"]
    network = VelocityNetwork(VelocityConfig(**config["network"]))
    assert network.config.text_dim == 384 and network.config.latent_channels == 2, "as wide as encoder and VAE"
    network.load_state_dict(weights(tmp_path / "run", "best"))
    assert list((tmp_path / "run" / "pictures").glob("*.png"))
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert any("sampled" in str(line) for line in history)
    with pytest.raises(ValueError, match="holds a training already"):
        train_generation(recipe, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="seconds=0.25"):
        train_generation(replace(recipe, seconds=0.3), tmp_path / "run", resume=True, progress=False)


@every_process
def test_a_stopped_training_goes_on_to_the_same_numbers(small, tmp_path, monkeypatch, process):
    recipe = replace(small, process=process, text_dropout=0.5, n_mixtures=3)  # a second epoch begins on the way
    train_generation(recipe, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(Generation, "loss", stopping(Generation.loss, at=3))
        assert train_generation(recipe, tmp_path / "parts", progress=False).stopped
    result = train_generation(recipe, tmp_path / "parts", resume=True, progress=False)
    assert result.step == 4 and not result.stopped
    ours, theirs = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    start = VelocityNetwork(replace(TINY, text_dim=384))
    assert theirs.keys() == start.state_dict().keys()


def test_flow_and_diffusion_share_the_latents_and_learn_other_things(small, workshop, tmp_path):
    for process in PROCESSES:
        train_generation(replace(small, process=process, n_steps=1), tmp_path / process, progress=False)
    before = sorted((workshop / "cache").rglob("*.safetensors"))
    train_generation(replace(small, n_steps=1, learning_rate=1e-4), tmp_path / "again", progress=False)
    assert sorted((workshop / "cache").rglob("*.safetensors")) == before
    flow, diffusion = weights(tmp_path / "flow"), weights(tmp_path / "diffusion")
    assert any(not torch.equal(flow[name], tensor) for name, tensor in diffusion.items())


def test_a_diffusion_that_starts_from_a_flow_turns_its_output_round(small, workshop, tmp_path):
    """A flow that gave x_1 - x_0 shall begin as (x_0 - x_1) / 2: as it was, such a training never left a loss of 1."""
    frozen = replace(small, n_steps=1, learning_rate=1e-12, min_learning_rate=0.0)
    train_generation(replace(small, n_steps=1), tmp_path / "0", progress=False)
    for number, process in enumerate(("diffusion", "flow")):
        recipe = replace(frozen, process=process, start_from=str(tmp_path / str(number) / "last"))
        train_generation(recipe, tmp_path / str(number + 1), progress=False)
        after = weights(tmp_path / str(number + 1))
        for name, tensor in weights(tmp_path / str(number)).items():
            factor = -0.5 if ".conv_out." in name else 1.0
            assert torch.allclose(after[name], factor * tensor, atol=1e-6), name


@every_process
def test_a_network_with_a_gate_starts_from_one_without_and_from_its_own(small, workshop, tmp_path, process):
    frozen = replace(small, n_steps=1, learning_rate=1e-12, min_learning_rate=0.0, copies=True, process=process)
    train_generation(replace(small, n_steps=1, process=process), tmp_path / "plain", progress=False)
    before = weights(tmp_path / "plain")
    for name, start in (("gated", "plain"), ("next", "gated")):
        train_generation(replace(frozen, start_from=str(tmp_path / start / "last")), tmp_path / name, progress=False)
        after = weights(tmp_path / name)
        for key, tensor in before.items():
            if ".conv_out." in key:
                gate = torch.full_like(tensor[:1], GATE_BIAS if key.endswith("bias") else 0.0)
                tensor = torch.cat([tensor, gate])
            assert torch.allclose(after[key], tensor, atol=1e-6), key
        assert read_config(tmp_path / name / "last")["network"]["copies"] == process
    assert read_config(tmp_path / "plain" / "last")["network"]["copies"] == ""
    without = replace(frozen, copies=False, start_from=str(tmp_path / "gated" / "last"))
    with pytest.raises(ValueError, match=r"has a gate: start from it with copies=true"):
        train_generation(without, tmp_path / "without", progress=False)


def test_a_training_may_start_from_another_by_name_or_folder(small, workshop, tmp_path):
    train_generation(replace(small, n_steps=1), tmp_path / "first", progress=False)
    frozen = replace(small, n_steps=1, learning_rate=1e-12, min_learning_rate=0.0, seed=5)
    train_generation(replace(frozen, start_from=str(tmp_path / "first" / "last")), tmp_path / "next", progress=False)
    before, after = weights(tmp_path / "first"), weights(tmp_path / "next")
    assert all(torch.allclose(after[name], tensor, atol=1e-6) for name, tensor in before.items())


def test_what_a_training_started_from_is_recorded_when_it_begins(small, workshop, tmp_path):
    """Its result may ship under the name of what it started from: the card would tell of its own stage twice."""
    train_generation(replace(small, n_steps=1), tmp_path / "first", progress=False)
    shipped = workshop / "checkpoints" / "shipped"
    shutil.copytree(tmp_path / "first" / "last", shipped)
    recipe = replace(small, n_steps=2, save_every=1, start_from="shipped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Generation, "loss", stopping(Generation.loss, at=1))
        assert train_generation(recipe, tmp_path / "second", progress=False).stopped
    shutil.copytree(tmp_path / "second" / "last", shipped, dirs_exist_ok=True)
    train_generation(recipe, tmp_path / "second", resume=True, progress=False)
    for config in (read_config(tmp_path / "second" / "last"), trained_config(tmp_path / "second", "last")):
        assert config["started_from"]["recipe"]["n_steps"] == 1 and "started_from" not in config["started_from"]
    assert trained_config(tmp_path / "second", "last")["provenance"]["at_step"] == 2


def test_what_ships_names_no_folder_of_the_machine_that_trained(small, tmp_path):
    start = ""
    for name in ("first", "second", "third"):
        train_generation(replace(small, n_steps=1, start_from=start), tmp_path / name, progress=False)
        start = str(tmp_path / name / "last")
    config = trained_config(tmp_path / "third", "last")
    assert config["recipe"]["start_from"] == "second/last"
    assert config["started_from"]["recipe"]["start_from"] == "first/last"
    assert str(tmp_path) not in json.dumps(config)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"vae": "nowhere"}, "no checkpoint 'nowhere'"),
        ({"text_encoder": "nowhere"}, "unknown text encoder 'nowhere'"),
        ({"start_from": "nowhere"}, "no checkpoint 'nowhere'"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_written(small, tmp_path, change, words):
    with pytest.raises(ValueError, match=words) as error:
        train_generation(replace(small, **change), tmp_path / "run", progress=False)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


# --- the command


def test_a_flow_is_not_resumed_as_a_diffusion(small, tmp_path, refused):
    """Both have one class of recipe; the folder's own recipe would be resumed silently."""
    train_generation(replace(small, n_steps=1), tmp_path / "run", progress=False)
    run = tmp_path / "run"
    line = refused("train", "diffusion", "--resume", "-o", run, words=[run, "'flow'", "lasslab train flow"])
    assert "not diffusion" in line
    refused("train", "flow", "--set", "process=diffusion", "-o", tmp_path / "other", words=["'diffusion'", "not flow"])
    refused("train", "flow", "--resume", "--set", "process=diffusion", "-o", run, words=["'diffusion'", "not flow"])
    refused("train", "vae", "--resume", "-o", run, words=[run / "recipe.json", "VAERecipe"])
    refused("train", "diffusion", "-o", run, "--set", "n_mixtures=0", words=["n_mixtures"])
    check_objective(replace(small, process="diffusion"), "diffusion", run)
    assert recipe_class("flow") is recipe_class("diffusion")


def test_the_command_resumes_what_it_began(small, tmp_path, lasslab):
    run = tmp_path / "run"
    settings = []
    for name, value in asdict(small).items():
        if value != getattr(FLOW_PRESETS["quick"], name):
            settings += ["--set", f"{name}={value}"]
    for extra in ([], ["--resume"]):
        code, out, _ = lasslab("train", "flow", *(extra or settings), "-o", run)
        assert code == 0 and "step 4" in out


def test_the_card_of_a_diffusion_that_began_as_a_flow_gives_a_command_for_each():
    def stage(process, **more):
        return {"recipe": asdict(PRESETS[process]["lab"]) | more, "provenance": {}}

    config = stage("diffusion", start_from="flow") | {"started_from": stage("flow")}
    lines = training_section(config, kind_of=kind_of)
    assert [line.split()[2] for line in lines if line.startswith("lasslab train ")] == ["flow", "diffusion"]
    assert not any("process=" in line for line in lines)


@pytest.mark.parametrize(("hard", "focus_share", "keep_db"), [(0.75, 0.4, 3.0), (0.75, 0.0, 0.0), (0.0, 0.0, 0.0)])
def test_a_card_says_what_is_not_the_paper_s(hard, focus_share, keep_db):
    report_path = Path(__file__).parents[2] / "data" / "reports" / "generative.json"
    report = read_report(report_path, "flowsep-lab")
    config = read_config(find_checkpoint("flowsep-lab")) | {"keep_db": keep_db}
    focus = "rain+wind" if focus_share else ""
    config["recipe"] = config["recipe"] | {"hard": hard, "focus": focus, "focus_share": focus_share}
    text = generation_card("flowsep-lab", config, report, 6_000_000)
    assert ("less than 3 dB, the mixture itself is handed on" in text) is bool(keep_db)
    assert ("40% of the mixtures are of rain, wind among themselves" in text) is bool(focus_share)
    assert ("75% of the other interferences are rivals" in text) is bool(focus_share)
    assert ("In the last row" in text) is bool(hard)
