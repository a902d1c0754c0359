"""Training of editors: what learns and what stays, what validation hears, trainings that go on as they were."""

import copy
import itertools
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from doubles import Hum, stopping
from safetensors.torch import load_file
from torch.utils.data import default_collate

from lasslab.models import velocity as velocity_module
from lasslab.models.checkpoints import read_config, save_network
from lasslab.models.editing import UNSAID, EditNetwork, instruct, save_edit_network
from lasslab.models.lora import LoRAConfig, adapt
from lasslab.models.text import load_text_encoder
from lasslab.models.vae import MelVAE, VAEConfig
from lasslab.models.velocity import VelocityConfig, VelocityNetwork, condition_on
from lasslab.systems import latent
from lasslab.systems.codec import LatentCodec
from lasslab.systems.editing import FlowEditor, load_editor
from lasslab.training import edit_card, editing, generation_card
from lasslab.training.card_parts import gate_section, training_section
from lasslab.training.editing import (
    AUDIT_PRESETS,
    EDIT_PRESETS,
    AsEdits,
    Editing,
    EditRecipe,
    rehearsed_mixtures,
    shuffled,
    train_editing,
    training_edits,
    validation_edits,
)
from lasslab.training.fit import FitConfig, fit
from lasslab.training.generation import FLOW_PRESETS, PROCESSES, training_mixtures
from lasslab.training.generation_card import publish
from lasslab.training.latents import LatentPairs, describe
from lasslab.training.recipes import PRESETS, train_recipe

TINY = VelocityConfig(channels=(8, 16), attention=(False, True), head_width=8, latent_channels=2, text_dim=384)
VAE = VAEConfig(channels=(4, 8), latent_channels=2, n_mels=16)
every_process = pytest.mark.parametrize("process", PROCESSES)


class Loudness:
    """An embedding by hand: loud and soft sounds lie at right angles, and so do sentences with and without "and"."""

    def embed_audio(self, waveforms: torch.Tensor, *, sample_rate: int = 16_000) -> torch.Tensor:
        self.heard = waveforms
        loud = (waveforms.square().mean(-1) > 1e-3).float()
        return torch.stack([loud, 1 - loud], dim=-1)

    def embed_text(self, texts) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0] if "and" in text else [0.0, 1.0] for text in texts])


def vae() -> MelVAE:
    torch.manual_seed(0)
    return MelVAE(VAE).eval().requires_grad_(False)


def network(seed: int = 0) -> EditNetwork:
    torch.manual_seed(seed)
    return EditNetwork(VelocityNetwork(TINY), adapt(load_text_encoder("minilm"), LoRAConfig(rank=2)))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(n: int = 4) -> dict:
    return {
        "original": randn(n, 2, 6, 4),
        "target": randn(n, 2, 6, 4, seed=1),
        "instruction": ["add a dog", "remove the rain and the wind", "replace a with b", "add rain"][:n],
        "task": ["add", "remove", "replace", "add"][:n],
        "caption": ["rain and a dog", "rain", "b", "x and y"][:n],
    }


# --- the network


def test_only_velocity_and_adapter_are_in_the_state_and_only_they_learn():
    trained = network()
    assert {name.partition(".")[0] for name in trained.state_dict()} == {"velocity", "adapter"}
    assert sum(p.numel() for p in trained.adapter.values()) == 6 * 2 * 2 * 2 * 384, "6 layers, q and v, A and B, rank 2"
    frozen = {name: p.clone() for name, p in trained.encoder.model.named_parameters() if "lora_" not in name}
    before = {name: p.clone() for name, p in trained.state_dict().items()}
    optimiser = torch.optim.Adam(trained.parameters(), lr=1e-2)
    for seed in range(3):  # the first step moves only B: A's gradient passes through B, which starts at zero
        loss, _ = Editing().loss(trained, batch(), torch.Generator().manual_seed(seed))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    moved = {name for name, p in trained.state_dict().items() if not torch.equal(p, before[name])}
    assert {name for name in moved if name.startswith("adapter")} == {n for n in before if n.startswith("adapter")}
    assert any(name.startswith("velocity") for name in moved)
    for name, parameter in trained.encoder.model.named_parameters():
        if "lora_" not in name:
            assert torch.equal(parameter, frozen[name])


def test_a_copy_has_its_own_adapter_in_its_own_encoder():
    """The moving average is a copy: what is averaged must be what its encoder reads with."""
    trained = network()
    average = copy.deepcopy(trained)
    for parameter in average.adapter.values():
        torch.nn.init.normal_(parameter, std=0.3)
    texts = ["add a dog"]
    assert not torch.allclose(average.encoder(texts).tokens, trained.encoder(texts).tokens, atol=1e-3)
    assert torch.equal(trained.encoder(texts).tokens, load_text_encoder("minilm")(texts).tokens)


def test_it_is_the_separator_s_network_with_the_original_in_the_mixture_s_place():
    trained, one = network().eval(), batch()
    ids, mask = trained.encoder.tokenise(one["instruction"])
    condition, null = instruct(one["original"], ids, mask)
    x, t = randn(4, 2, 6, 4, seed=3), torch.rand(4)
    with torch.no_grad():
        words, silent = condition_on(one["original"], trained.encoder(one["instruction"]))
        torch.testing.assert_close(trained(x, t, **condition), trained.velocity(x, t, **words))
        torch.testing.assert_close(trained(x, t, **null), trained.velocity(x, t, **silent))
    assert (null["ids"] == UNSAID).all()


# --- the objective


@every_process
def test_each_example_loses_its_words_on_its_own_and_never_its_original(process):
    calls, trained = [], network()
    trained.velocity.forward = lambda x_t, t, **condition: calls.append(condition) or 0 * x_t
    many = {
        name: value.repeat(16, 1, 1, 1) if isinstance(value, torch.Tensor) else value * 16
        for name, value in batch().items()
    }
    Editing(process=process, dropout=0.5).loss(trained, many, torch.Generator().manual_seed(0))
    dropped = (calls[0]["tokens"] == 0).all(dim=(1, 2))
    assert 18 < dropped.sum() < 46
    assert torch.equal(calls[0]["mixture"], many["original"])
    assert calls[0]["token_mask"][dropped].sum(1).unique().tolist() == [1]


def test_what_is_rehearsed_never_loses_its_words():
    """Without words an editor would expect less of the base, where single sounds were its answer too."""
    trained, one = network(), batch() | {"task": ["add", "separate", "replace", "separate"]}
    condition, null = Editing().conditions(trained, one)
    assert (null["ids"][:, 0] == UNSAID).tolist() == [True, False, True, False]
    for name in condition:
        assert torch.equal(null[name][[1, 3]], condition[name][[1, 3]])


def test_errors_count_more_where_the_edit_changes_something():
    original = torch.zeros(2, 2, 4, 4)
    target = original.clone()
    target[0, :, :2] = 0.3  # half of the first example; in the second the sound is not there
    objective = Editing(change=0.2, change_weight=3.0)
    changed = objective.changed({"original": original, "target": target})
    assert not Editing(change=0.4).changed({"original": original, "target": target}).any()
    weight = objective.weight(changed)
    assert weight.shape == (2, 1, 4, 4)
    assert weight[0, 0, :, 0].tolist() == pytest.approx([1.6, 1.6, 0.4, 0.4]), "4 to 1, and 1 in the mean"
    assert (weight[1] == 1).all()
    assert torch.equal(Editing(change_weight=3).weight(changed), weight), "a whole number is a weight, too"
    assert Editing().weight(changed) is None


@every_process
def test_the_loss_takes_the_weight_of_each_error(process):
    process_loss, _ = PROCESSES[process]

    def loss(**settings) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return process_loss(lambda x, t: torch.zeros_like(x), randn(3, 2, 4), {}, generator=generator, **settings)

    left = torch.tensor([1.0, 1.0, 0.0, 0.0])
    torch.testing.assert_close(loss(weight=torch.ones(1, 4)), loss())
    torch.testing.assert_close(loss(weight=left) + loss(weight=1 - left), loss())


def test_validation_asks_how_close_an_edit_is_to_its_target_s_caption():
    codec, embedding = LatentCodec(vae(), Hum(VAE.mel())), Loudness()
    objective, trained = Editing(codec, embedding, n_steps=2), network().eval()
    assert objective.monitor == "clap" and Editing().monitor == "fit"
    figures = objective.validate(trained, batch())
    assert {name: value.shape for name, value in figures.items()} == {
        "fit": (4,),
        "clap": (4,),
        "sampled": (4,),
    }
    expected = (embedding.embed_audio(embedding.heard) * embedding.embed_text(batch()["caption"])).sum(-1)
    assert torch.equal(figures["clap"], expected) and embedding.heard.shape == (4, 6 * 4 * 160)
    again = objective.validate(trained, batch())
    assert all(torch.equal(figures[name], again[name]) for name in figures)
    assert set(objective.picture(trained, batch())) == {"original", "target", "estimate"}
    assert set(Editing().validate(trained, batch())) == {"fit"}


# --- recipes


def test_edit_and_audit_differ_in_process_and_start_only():
    assert PRESETS["edit"] is EDIT_PRESETS and PRESETS["audit"] is AUDIT_PRESETS
    for name, recipe in EDIT_PRESETS.items():
        other = asdict(AUDIT_PRESETS[name])
        assert {key for key, value in asdict(recipe).items() if value != other[key]} <= {"process", "start_from"}
        assert recipe.objective == "edit" and AUDIT_PRESETS[name].objective == "audit"
    assert (EDIT_PRESETS["lab"].start_from, AUDIT_PRESETS["lab"].start_from) == ("flowsep-lab", "diffsep-lab")
    full = EDIT_PRESETS["full"]
    assert full.learning_rate == 5e-5 and full.n_edits % 6 == 0 and full.text_encoder == "google/flan-t5-large"
    assert 99 < full.n_steps * full.batch_size / full.n_edits < 101, "100 epochs"


@pytest.mark.parametrize(
    "change, words",
    [
        ({"process": "magic"}, "process is one of flow, diffusion"),
        ({"size": "huge"}, "size is one of"),
        ({"n_edits": 0}, "n_edits must be at least 1"),
        ({"rank": -1}, "rank is 0 or more"),
        ({"adapter_rate": 0.0}, "adapter_rate positive"),
        ({"alpha": 0.0}, "alpha and adapter_rate positive"),
        ({"text_dropout": 2.0}, "text_dropout"),
        ({"time_power": 0.0}, "time_power is a power above 0, got 0.0"),
        ({"gate_weight": -1.0}, "gate_weight is 0 or more and needs copies=true, got -1"),
        ({"gate_weight": 0.5}, "gate_weight is 0 or more and needs copies=true, got 0.5"),
        ({"change_weight": -1.0}, "change_weight is 0 or more, got -1"),
        ({"change": -0.1}, "change is 0 or more, got -0.1"),
        ({"n_rehearsed": -1}, "n_rehearsed is a number of mixtures, 0 or more, got -1"),
    ],
)
def test_impossible_settings_are_refused_at_once(change, words):
    with pytest.raises(ValueError, match=words):
        replace(EditRecipe(), **change)


def test_training_and_validation_share_no_sound_and_all_tasks_are_there():
    recipe = replace(EDIT_PRESETS["quick"], n_per_class=1, n_edits=6, n_validation=6)
    heard, held_out = training_edits(recipe), validation_edits(recipe)
    assert not {(c.label, c.seed) for c in heard.crops.clips} & {(c.label, c.seed) for c in held_out.crops.clips}
    assert [held_out[i]["task"] for i in range(6)] == ["add", "add", "remove", "remove", "replace", "replace"]
    assert (heard.absent, held_out.absent) == (recipe.absent, 0.0), "validation edits can be carried out"


def test_what_is_rehearsed_is_what_the_separator_learned_from(small):
    """The same latents from the same cache; an item looks like an edit that keeps what the query names."""
    rehearsed = rehearsed_mixtures(replace(small, n_rehearsed=3, snr_low=-1.0))
    separation = replace(FLOW_PRESETS["quick"], seconds=0.25, n_per_class=1, n_mixtures=3)
    assert describe(rehearsed) == describe(training_mixtures(separation))
    pairs = LatentPairs(rehearsed, vae(), progress=False)
    item, pair = AsEdits(pairs)[2], pairs[2]
    assert len(AsEdits(pairs)) == 3 and item["instruction"] == item["caption"] == pair["query"]
    assert torch.equal(item["original"], pair["mixture"]) and torch.equal(item["target"], pair["target"])
    edits = LatentPairs(training_edits(small), vae(), progress=False)
    default_collate([item, edits[0]])  # the same names and shapes
    assert item.keys() == edits[0].keys()


def test_the_first_pass_is_in_random_order_too():
    """A training took the six edits of one scene for a batch, and rehearsed when they were over."""
    orders = [[shuffled(range(600), seed=seed)[i] for i in range(600)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == list(range(600))
    first = orders[0][:200]
    assert 40 < sum(item >= 400 for item in first) < 95, "a third of it is from the last third"
    assert sum(abs(a - b) < 6 for a, b in itertools.pairwise(first)) < 12, "neighbours are far apart"


def test_edits_and_what_is_rehearsed_are_seen_in_one_training(small, tmp_path, monkeypatch):
    seen, loss = [], Editing.loss

    def looking(self, network, batch, generator):
        seen.extend(batch["task"])
        return loss(self, network, batch, generator)

    monkeypatch.setattr(Editing, "loss", looking)
    train_editing(replace(small, n_rehearsed=2, time_power=2.0), tmp_path / "run", progress=False)
    assert sorted(seen) == ["add", "add", "remove", "remove", "replace", "replace", "separate", "separate"]


# --- trainings


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workshop")
    save_network(folder / "checkpoints" / "tiny-vae", vae(), {"system": "vae", "network": VAE})
    (folder / "checkpoints" / "bigvgan-lab").mkdir()  # the hum has its place
    return folder


@pytest.fixture
def small(workshop, monkeypatch) -> EditRecipe:
    monkeypatch.setenv("LASSLAB_CHECKPOINTS", str(workshop / "checkpoints"))
    monkeypatch.delenv("LASSLAB_CACHE", raising=False)
    monkeypatch.setitem(velocity_module.SIZES, "quick", TINY)
    for module in (editing, latent):
        monkeypatch.setattr(module, "load_vocoder", lambda name, device: Hum(VAE.mel()))
    monkeypatch.setattr(editing, "load_clap", lambda name, device: Loudness())
    return replace(
        EDIT_PRESETS["quick"],
        vae="tiny-vae",
        n_per_class=1,
        n_edits=6,
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


def weights(run: Path) -> dict[str, torch.Tensor]:
    folder = run / "last"
    return load_file(folder / "model.safetensors") | load_file(folder / "adapter" / "adapter_model.safetensors")


@every_process
def test_a_training_leaves_an_editor(small, tmp_path, process):
    recipe = replace(small, process=process)
    result = train_recipe(recipe, tmp_path / "run", progress=False)
    assert result.step == 4 and 0 <= result.best <= 1
    config = read_config(tmp_path / "run" / "best")
    assert config["system"] == f"{process}-editor" and config["adapter"] is True
    assert config["t_start"] == {"flow": 0.01, "diffusion": 0.0}[process]
    trained, total = config["trained_text_parameters"]
    assert trained == 6 * 2 * 2 * 8 * 384 and total > 22e6
    system = load_editor(tmp_path / "run" / "best", device="cpu")
    assert system(0.1 * randn(6_000), "add a dog", n_steps=1).shape == (6_000,)
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert any("clap" in line.get("validation", {}) for line in history)


@pytest.mark.parametrize("copies", [False, True])
def test_an_editor_ships_with_half_the_bytes_and_its_adapter(small, tmp_path, capsys, copies):
    train_editing(replace(small, copies=copies), tmp_path / "run", progress=False)
    shipped = publish(
        tmp_path / "run", tmp_path / "shipped", guidance_scale=2.0, t_start=0.05, keep_db=3.0, in_turn=True
    )
    ours, theirs = load_editor(shipped, device="cpu"), load_editor(tmp_path / "run" / "best", device="cpu")
    assert (ours.guidance_scale, ours.t_start, ours.keep_db, ours.n_steps) == (2.0, 0.05, 3.0, 25)
    assert ours.in_turn and (theirs.keep_db, theirs.in_turn) == (0.0, False), "a training's own editor is the paper's"
    for left, right in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)
    assert torch.equal(ours.text_encoder(["add a dog"]).tokens, theirs.text_encoder(["add a dog"]).tokens)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (shipped, tmp_path / "run" / "best")]
    assert sizes[0] < 0.6 * sizes[1]
    config = read_config(shipped)
    assert config["network"]["copies"] == ("flow" if copies else "")
    assert ("a gate" in "".join(gate_section(config, paper="RFM-Editing"))) is copies, "the card says what is ours"
    shutil.rmtree(tmp_path / "run" / "best" / "adapter")
    assert edit_card.main([str(tmp_path / "run"), "-o", str(tmp_path / "again")]) == 2
    assert "adapter is missing" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["t_start", "in_turn"])
def test_a_separator_does_not_ship_with_an_editors_settings(tmp_path, monkeypatch, setting):
    monkeypatch.setattr(generation_card, "trained_config", lambda run, part: {"system": "flow"})
    with pytest.raises(ValueError, match=f"run holds a flow, which knows no {setting}: leave it out"):
        publish(tmp_path / "run", tmp_path / "shipped", **{setting: 0.1})
    assert not (tmp_path / "shipped").exists()


def test_a_card_tells_every_stage_by_its_own_objective():
    edit, flow = (json.loads(json.dumps(asdict(p))) for p in (EDIT_PRESETS["lab"], FLOW_PRESETS["lab"]))
    assert edit_card.kind_of(edit)[0] == "edit" and edit_card.kind_of(flow)[0] == "flow"
    assert edit_card.kind_of(edit | {"process": "diffusion"})[0] == "audit"
    config = {"recipe": edit, "provenance": {}, "started_from": {"recipe": flow, "provenance": {}}}
    lines = training_section(config, kind_of=edit_card.kind_of)
    assert lines[1] == "lasslab train flow --preset lab -o runs/part_1"
    assert lines[2].startswith("lasslab train edit --preset lab --set start_from=runs/part_1/")
    newer = ("copies", "gate_weight")  # than a recipe of a time before there were gates
    old = {name: value for name, value in edit.items() if name not in newer}
    line = training_section(config | {"recipe": old}, kind_of=edit_card.kind_of)[2]
    assert "--set copies=False" in line and EDIT_PRESETS["lab"].copies
    assert "--set gate_weight=0.0" in line and EDIT_PRESETS["lab"].gate_weight
    far = flow | {name: getattr(FLOW_PRESETS["quick"], name) for name in ("n_mixtures", "n_steps", "corpus", "copies")}
    far |= {"gate_weight": 0.0, "change_weight": 0.0, "change": 0.5, "time_power": 1.0, "n_per_class": 4}
    first = training_section({"recipe": far, "provenance": {}}, kind_of=edit_card.kind_of)[1]
    assert first.startswith("lasslab train flow --preset lab "), "a lab network is told from the lab's preset"


def test_a_stopped_training_goes_on_to_the_same_numbers(small, tmp_path, monkeypatch):
    train_editing(small, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(Editing, "loss", stopping(Editing.loss, at=3))
        assert train_editing(small, tmp_path / "parts", progress=False).stopped
    assert train_editing(small, tmp_path / "parts", resume=True, progress=False).step == 4
    ours, theirs = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_it_starts_from_a_separator_or_an_editor_of_the_same_space_only(small, workshop, tmp_path):
    from lasslab.models.checkpoints import weights_sha256

    frozen = replace(small, n_steps=1, learning_rate=1e-12, min_learning_rate=0.0)
    start = VelocityNetwork(TINY)
    about = {"system": "flow", "network": TINY, "vae": "tiny-vae", "vae_sha256": weights_sha256(vae())}
    save_network(workshop / "checkpoints" / "separator", start, about)
    train_editing(replace(frozen, start_from="separator"), tmp_path / "first", progress=False)
    made = load_file(tmp_path / "first" / "last" / "model.safetensors")
    assert all(torch.allclose(made[name], value, atol=1e-6) for name, value in start.state_dict().items())
    torch.manual_seed(7)
    trained = network()
    for parameter in trained.adapter.values():
        torch.nn.init.normal_(parameter, std=0.3)
    save_edit_network(workshop / "checkpoints" / "editor", trained, about | {"system": "flow-editor"})
    train_editing(replace(frozen, start_from="editor"), tmp_path / "second", progress=False)
    system: FlowEditor = load_editor(tmp_path / "second" / "last", device="cpu")
    torch.testing.assert_close(
        system.text_encoder(["add a dog"]).tokens, trained.encoder(["add a dog"]).tokens, rtol=1e-3, atol=1e-4
    )
    save_network(workshop / "checkpoints" / "elsewhere", start, about | {"vae_sha256": "0"})
    with pytest.raises(ValueError, match="elsewhere.*trained with another VAE"):
        train_editing(replace(frozen, start_from="elsewhere"), tmp_path / "third", progress=False)
    assert not (tmp_path / "third").exists()
    with pytest.raises(ValueError, match="'none' has no words"):
        train_editing(replace(small, text_encoder="none"), tmp_path / "fourth", progress=False)


def test_an_audit_is_not_resumed_as_an_edit(small, tmp_path, refused):
    train_editing(replace(small, n_steps=1), tmp_path / "run", progress=False)
    refused("train", "audit", "--resume", "-o", tmp_path / "run", words=["'flow'", "lasslab train edit"])


def test_the_adapter_learns_at_a_rate_of_its_own(tmp_path):
    """At the network's rate it forgot which sound is named. The first step of Adam moves every weight by its rate."""
    start, trained = network(), network()
    assert trained.adapter_rate == 0.1 and EDIT_PRESETS["lab"].adapter_rate == 0.1
    config = FitConfig(
        n_steps=1, batch_size=4, learning_rate=1e-3, warmup_steps=0, weight_decay=0.0, ema_decay=0.0, device="cpu"
    )
    examples = [{key: value[i] for key, value in batch().items()} for i in range(4)]
    fit(trained, Editing(dropout=0.0), examples, directory=tmp_path, config=config, progress=False)
    moved = {
        name: (parameter - before).abs().max().item()
        for (name, parameter), before in zip(trained.named_parameters(), start.parameters(), strict=True)
    }
    assert max(move for name, move in moved.items() if name.startswith("adapter")) == pytest.approx(1e-4, rel=0.01)
    assert max(move for name, move in moved.items() if name.startswith("velocity")) == pytest.approx(1e-3, rel=0.01)
