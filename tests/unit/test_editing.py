"""Editors with networks whose answer is known: where they start, where they turn, what they are told."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from doubles import Hum, LetterEncoder
from torch import nn

from lasslab import diffusion
from lasslab.flow import Trajectory, interpolate
from lasslab.models.checkpoints import save_network
from lasslab.models.editing import EditNetwork, save_edit_network
from lasslab.models.lora import LoRAConfig, adapt
from lasslab.models.text import load_text_encoder
from lasslab.models.vae import MelVAE, VAEConfig
from lasslab.models.velocity import VelocityConfig, VelocityNetwork
from lasslab.systems import latent
from lasslab.systems.codec import RoundTrip
from lasslab.systems.editing import (
    DiffusionEditor,
    FlowEditor,
    InversionEditor,
    Unedited,
    UnknownTask,
    in_words,
    load_editor,
)
from lasslab.systems.latent import draw_noise
from lasslab.systems.separation import load_separator

VAE = VAEConfig(channels=(4, 8), latent_channels=2, n_mels=16)
TINY = VelocityConfig(channels=(8, 16), attention=(False, True), head_width=8, latent_channels=2, text_dim=6)
KINDS = {"flow": FlowEditor, "diffusion": DiffusionEditor}
both_kinds = pytest.mark.parametrize("kind", KINDS)


class Spy(nn.Module):
    """A field by hand, which remembers what it is called with."""

    config = TINY

    def __init__(self, answer=lambda x_t, t, words, told: 0 * x_t) -> None:
        super().__init__()
        self.answer, self.calls = answer, []
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x_t, t, *, mixture, tokens, token_mask):
        self.calls.append({"x_t": x_t, "t": t, "told": mixture, "tokens": tokens, "mask": token_mask})
        words = (tokens.mean(-1) * token_mask).sum(1) / token_mask.sum(1)  # 0 without words
        return self.answer(x_t, t[:, None, None, None], words[:, None, None, None], mixture)


def vae() -> MelVAE:
    torch.manual_seed(0)
    return MelVAE(VAE).eval().requires_grad_(False)


def editor(kind: type, network: nn.Module | None = None, **settings):
    return kind(network or Spy(), vae(), Hum(VAE.mel()), LetterEncoder(), **settings)


def network() -> VelocityNetwork:
    torch.manual_seed(1)
    return VelocityNetwork(TINY).eval().requires_grad_(False)


def noise(*shape: int, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def words_of(sentence: str) -> torch.Tensor:
    return LetterEncoder()([sentence]).tokens.mean()


# --- where it starts: equation (4)


@pytest.mark.parametrize("t_start", [0.0, 0.001, 0.01, 0.1, 0.3])
def test_a_flow_starts_at_equation_4_and_ends_at_1(t_start):
    system, states = editor(FlowEditor, t_start=t_start), Trajectory()
    told = noise(1, 1, 2, 6, 4, level=1.0)
    system.generate(told, system.read(["add a dog"]), n_steps=5, observe=states)
    expected = interpolate(draw_noise((2, 6, 4), torch.Generator().manual_seed(0))[None], told[0], t_start)
    torch.testing.assert_close(states.states[0], expected)
    torch.testing.assert_close(states.times, torch.linspace(t_start, 1, 6))
    assert len(system.network.calls) == 5, "one call a step"


def test_the_papers_start_is_the_default_and_audit_starts_from_noise():
    assert (editor(FlowEditor).t_start, editor(DiffusionEditor).t_start) == (0.01, 0.0)
    assert editor(FlowEditor).n_steps == 25


@pytest.mark.parametrize("t_start", [0.0, 0.3])
def test_a_diffusion_starts_under_its_own_noise(t_start):
    system, states = editor(DiffusionEditor, Spy(lambda x, t, words, told: x), t_start=t_start), Trajectory()
    told = noise(1, 1, 2, 6, 4, level=1.0)
    system.generate(told, system.read(["add a dog"]), n_steps=4, observe=states)
    drawn = draw_noise((2, 6, 4), torch.Generator().manual_seed(0))[None]
    expected = drawn if t_start == 0 else diffusion.interpolate(drawn, told[0], t_start)
    torch.testing.assert_close(states.states[0], expected)


def test_the_later_it_starts_the_more_stays():
    """A field that knows nothing: what is in the end is what was in the start."""
    system, told = editor(FlowEditor), noise(1, 1, 2, 8, 4, level=1.0)
    kept = []
    for t_start in (0.0, 0.1, 0.5, 0.9):
        made = system.with_sampling(t_start=t_start).generate(told, system.read(["add a dog"]), n_steps=2)
        kept.append(float((made * told).sum() / told.square().sum()))
    assert kept == sorted(kept) and kept[-1] == pytest.approx(0.9, abs=0.05)


# --- what it is told


@both_kinds
def test_it_is_told_the_original_and_the_instruction_at_every_step(kind):
    system = editor(KINDS[kind], n_steps=3, guidance_scale=2.0)
    told = noise(2, 1, 2, 6, 4, level=1.0)
    system.generate(told, system.read(["Add a dog!", "remove rain"]), n_steps=3, guidance_scale=2.0)
    for call in system.network.calls:
        torch.testing.assert_close(call["told"], torch.cat([told[:, 0], told[:, 0]]))
        assert (call["tokens"][2:] == 0).all() and call["mask"][2:].sum(1).tolist() == [1, 1]
    assert system.text_encoder.encoder.encoded == ["add a dog", "remove rain"]


@both_kinds
def test_shape_level_and_seed(kind):
    system = editor(KINDS[kind], network(), n_steps=2)
    waveform = noise(2, 9_000)
    edited = system(waveform, "add a dog", sample_rate=22_050)
    assert edited.shape == waveform.shape and edited.abs().max() > 0
    torch.testing.assert_close(system(waveform, "add a dog", sample_rate=22_050), edited)
    other = system(waveform, "add a dog", sample_rate=22_050, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(other, edited)
    louder = system(10 * waveform, "add a dog", sample_rate=22_050)
    torch.testing.assert_close(louder, 10 * edited, rtol=1e-2, atol=1e-3 * float(louder.abs().max()))
    assert (system(torch.zeros(9_000), "add a dog") == 0).all()


@pytest.mark.parametrize("kind", [FlowEditor, InversionEditor])
def test_a_batch_is_the_same_as_one_by_one(kind):
    system = editor(kind, network(), n_steps=2, guidance_scale=1.5)
    originals, instructions = noise(3, 8_000), ["add a dog", "remove the rain and the wind", "replace a with b"]
    together = system.edit_batch(originals, instructions)
    for edited, original, instruction in zip(together, originals, instructions, strict=True):
        alone = system(original, instruction)
        torch.testing.assert_close(edited, alone, rtol=1e-2, atol=1e-3 * float(alone.abs().max()))
    with pytest.raises(ValueError, match="B sentences"):
        system.edit_batch(originals, instructions[:2])


def test_an_unknown_task_is_attempted_and_told():
    system = editor(FlowEditor, network(), n_steps=1)
    with pytest.warns(UnknownTask, match="'louder, please' was read as no known task"):
        assert system(noise(8_000), "louder, please").abs().max() > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        system(noise(8_000), "please remove the dog from this")


@pytest.mark.parametrize(
    "words, setting, found",
    [
        ("", {}, "the instruction is empty: say what shall change"),
        ("?!", {}, "the instruction is empty"),
        ("x" * 1_001, {}, "the instruction has 1001 characters"),
        ("add a dog", {"t_start": 1.0}, "t_start is a time in"),
        ("add a dog", {"t_start": -0.1}, "t_start is a time in"),
        ("add a dog", {"n_steps": 0}, "n_steps"),
        ("add a dog", {"guidance_scale": -1.0}, "guidance_scale"),
        ("add a dog", {"keep_db": -1.0}, "keep_db is a change in dB, 0 or more, got -1"),
        ("add a dog", {"keep_db": float("nan")}, "keep_db is a change in dB"),
    ],
)
def test_bad_input_is_refused_in_one_line(words, setting, found):
    for kind in (FlowEditor, DiffusionEditor, InversionEditor):
        with pytest.raises(ValueError, match=found) as error:
            editor(kind, network())(noise(8_000), words, **setting)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="no setting t_start"):
        FlowSeparatorLike().with_sampling(t_start=0.1)


class FlowSeparatorLike(latent.LatentSystem):
    name, n_steps, guidance_scale = "separator", 1, 1.0

    def __init__(self) -> None:
        pass


# --- a replacement in turn


def encode(told: torch.Tensor, words: str) -> torch.Tensor:
    """What `follow` makes of a latent."""
    return told + words_of(words)


def follow(x, t, words, told):
    """A field that leads straight to `encode(told, words)`."""
    return (told + words - x) / (1 - t).clamp(min=1e-3)


@both_kinds
def test_a_replacement_in_turn_removes_and_then_adds(kind):
    system = editor(KINDS[kind], Spy(), in_turn=True)
    told = noise(1, 1, 2, 6, 4, level=1.0)
    text = system.read(["please replace the rain with a dog"])
    made = system.generate(told, text, n_steps=5)
    assert system.text_encoder.encoder.encoded == ["remove the rain", "add a dog"]
    assert len(system.network.calls) == system.with_sampling(n_steps=5).n_calls(text) == 5, "no more than at once"
    assert [torch.equal(call["told"], told[:, 0]) for call in system.network.calls] == [True] * 2 + [False] * 3
    assert torch.equal(system.network.calls[2]["told"], system.network.calls[4]["told"])
    assert not torch.equal(made[:, 0], system.network.calls[2]["told"]), "the second turn has noise of its own"


def test_the_second_turn_is_told_what_the_first_has_made():
    system = editor(FlowEditor, Spy(follow), in_turn=True, t_start=0.0)
    told, watched = noise(1, 1, 2, 6, 4, level=1.0), []
    text = system.read(["replace a with bcd"])
    made = system.generate(told, text, n_steps=8, observe=lambda t, x: watched.append((float(t), x)))
    torch.testing.assert_close(system.network.calls[4]["told"], encode(told[0], "remove a"), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(made, encode(encode(told, "remove a"), "add bcd"), rtol=1e-3, atol=1e-3)
    assert [t for t, _ in watched] == [0, 0.25, 0.5, 0.75, 1, 0.25, 0.5, 0.75, 1], (
        "a state for each call, and the start"
    )


def test_other_instructions_are_the_same_in_turn_and_at_once():
    at_once, in_turn = (editor(FlowEditor, network(), n_steps=3, in_turn=flag) for flag in (False, True))
    for instruction in ("add a dog", "remove the rain", "exchange everything", "louder, please"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnknownTask)
            assert torch.equal(at_once(noise(8_000), instruction), in_turn(noise(8_000), instruction))
    replaced = "replace the rain with a dog"
    assert not torch.allclose(at_once(noise(8_000), replaced), in_turn(noise(8_000), replaced))
    assert torch.equal(in_turn(noise(8_000), replaced, in_turn=False), at_once(noise(8_000), replaced))


@both_kinds
def test_a_batch_in_turn_is_the_same_as_one_by_one(kind):
    system = editor(KINDS[kind], network(), n_steps=4, guidance_scale=1.5, in_turn=True)
    instructions = ["replace the rain with a dog", "add a dog", "swap a for b", "remove the rain and the wind"]
    originals, calls = noise(4, 8_000), []
    together = system.edit_batch(originals, instructions, observe=lambda t, x: calls.append(len(x)))
    assert calls == [2] * (1 + 2 * 4), "the two replacements are a batch of their own"
    for edited, original, instruction in zip(together, originals, instructions, strict=True):
        alone = system(original, instruction)
        torch.testing.assert_close(edited, alone, rtol=1e-2, atol=1e-3 * float(alone.abs().max()))
    stereo = system(originals[:1].expand(2, -1), instructions[0])
    assert stereo.shape == (2, 8_000) and torch.equal(stereo[0], stereo[1])
    assert system(originals[0], instructions[0], n_steps=1).isfinite().all(), "a step each at least"


def test_inversion_knows_no_turns():
    with pytest.raises(ValueError, match="has no setting in_turn"):
        editor(InversionEditor, network())(noise(8_000), "replace a with b", in_turn=True)


# --- what is kept


@pytest.mark.parametrize("kind", [FlowEditor, DiffusionEditor, InversionEditor])
def test_an_editor_that_changes_little_hands_on_the_recording(kind):
    """Latents that lead back to the original: the VAE's and the vocoder's own errors do not count."""
    waveform = noise(2, 9_000)
    plain = editor(kind, n_steps=2)
    assert plain.keep_db == 0.0, "as published"
    plain.sample = lambda field, start, told, n_steps, **_: told  # inversion has none: its velocity of 0 does the same
    assert not torch.allclose(plain(waveform, "add a dog"), waveform, atol=0.05)
    kept = plain(waveform, "add a dog", keep_db=3.0)
    assert kept.shape == waveform.shape
    torch.testing.assert_close(kept, waveform, rtol=0, atol=1e-5)
    assert (plain(torch.zeros(9_000), "add a dog", keep_db=3.0) == 0).all()


def test_what_changes_much_is_the_edit():
    waveform = noise(1, 9_000)
    system = editor(FlowEditor, n_steps=2)
    system.sample = lambda field, start, told, n_steps, **_: -told
    made, kept = system(waveform, "add a dog"), system(waveform, "add a dog", keep_db=1e-4)
    assert (made - kept).square().mean() < 0.02 * made.square().mean()
    assert not torch.allclose(kept, waveform, atol=0.05)


# --- inversion


def test_in_words_of_the_three_tasks():
    assert in_words("Add a dog barking") == ("", "a dog barking")
    assert in_words("get rid of the rain") == ("the rain", "")
    assert in_words("Replace the rain with a dog.") == ("the rain", "a dog")
    assert in_words("a dog in the rain") == ("", "a dog in the rain")


def test_inversion_walks_back_under_what_is_there_and_forth_under_what_shall_be():
    system, states = editor(InversionEditor, t_start=0.25), Trajectory()
    told = noise(1, 1, 2, 6, 4, level=1.0)
    system.generate(told, system.read(["replace rain with a dog"]), n_steps=3, guidance_scale=2.0, observe=states)
    torch.testing.assert_close(states.times, torch.tensor([1, 0.75, 0.5, 0.25, 0.5, 0.75, 1]))
    torch.testing.assert_close(states.states[0], told[0])
    first, last = system.network.calls[:3], system.network.calls[3:]
    assert len(first) == len(last) == 3
    silence = system.codec.vae.silent_latent(6)
    for call in first + last:
        assert all(torch.equal(row, silence[0]) for row in call["told"]), "told silence, it makes sound from words"
    assert all(len(call["x_t"]) == 1 for call in first), "no guidance on the way back"
    mean = lambda call, row: call["tokens"][row, call["mask"][row]].mean()  # noqa: E731
    for call in first:
        assert mean(call, 0) == pytest.approx(float(words_of("rain")), abs=1e-5)
    for call in last:
        assert mean(call, 0) == pytest.approx(float(words_of("a dog")), abs=1e-5)
        assert mean(call, 1) == pytest.approx(float(words_of("rain")), abs=1e-5), "guided away from what is there"


def test_the_same_words_both_ways_bring_the_original_back():
    smooth = Spy(lambda x, t, words, told: torch.sin(x) * (1 + t) + words)
    system = editor(InversionEditor, smooth, t_start=0.0).between("rain", "rain")
    told = noise(1, 1, 2, 6, 4, level=1.0)
    errors = []
    for n_steps in (10, 100):
        made = system.generate(told, system.read(["add a dog"]), n_steps=n_steps)
        errors.append(float((made - told).abs().max()))
    assert errors[1] < 0.15 * errors[0] and errors[1] < 0.05, "an error of first order"


def test_a_difference_in_words_is_a_difference_in_the_sound():
    """v = words: what is added to the state on the way is (1 - t_start) (target - source)."""
    system = editor(InversionEditor, Spy(lambda x, t, words, told: words + 0 * x), t_start=0.5)
    told = noise(1, 1, 2, 6, 4, level=1.0)
    made = system.generate(told, system.read(["replace rain with a dog"]), n_steps=2)
    torch.testing.assert_close(made, told + 0.5 * (words_of("a dog") - words_of("rain")))
    removed = system.generate(told, system.read(["remove rain"]), n_steps=2)
    torch.testing.assert_close(removed, told - 0.5 * words_of("rain"))


# --- floor, and loading by name


def test_the_floor_is_the_original():
    waveform = noise(2, 5_000)
    edited = Unedited()(waveform, "add a dog")
    assert torch.equal(edited, waveform) and edited is not waveform
    with pytest.raises(ValueError, match="instruction is empty"):
        Unedited()(waveform, " ")


@pytest.fixture
def root(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("LASSLAB_CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr(latent, "load_vocoder", lambda name, device: Hum(VAE.mel()))
    save_network(tmp_path / "tiny-vae", vae(), {"system": "vae", "network": VAE})
    return tmp_path


def config(system: str, **changes) -> dict:
    sizes = VelocityConfig(**(TINY.to_dict() | {"text_dim": 384}))
    return {"system": system, "network": sizes, "vae": "tiny-vae", "window_seconds": 1.28, **changes}


@both_kinds
def test_a_checkpoint_with_its_adapter_edits_alike(root, kind):
    torch.manual_seed(2)
    velocity = VelocityNetwork(VelocityConfig(**(TINY.to_dict() | {"text_dim": 384})))
    encoder = adapt(load_text_encoder("minilm"), LoRAConfig(rank=2))
    trained = EditNetwork(velocity, encoder)
    for parameter in trained.adapter.values():
        nn.init.normal_(parameter, std=0.3)
    save_edit_network(root / "tiny", trained, config(f"{kind}-editor", n_steps=3, t_start=0.02))
    loaded = load_editor("tiny", device="cpu")
    assert type(loaded) is KINDS[kind] and (loaded.n_steps, loaded.t_start, loaded.name) == (3, 0.02, "tiny")
    ours, plain = loaded.text_encoder(["add a dog"]).tokens, load_text_encoder("minilm")(["add a dog"]).tokens
    torch.testing.assert_close(ours, encoder(["add a dog"]).tokens)
    assert not torch.allclose(ours, plain, atol=1e-2), "the adapter is in it"
    assert loaded(noise(8_000), "add a dog").abs().max() > 0
    for file in (root / "tiny" / "adapter").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="adapter_model.safetensors is missing"):
        load_editor("tiny", device="cpu")


@pytest.mark.parametrize("system", ["flow", "flow-editor", "diffusion-editor"])
def test_a_network_with_a_gate_is_sampled_by_its_own_process_only(root, system):
    for process in ("flow", "diffusion"):
        sizes = replace(config(system)["network"], copies=process)
        changes = {"network": sizes} | ({"adapter": False} if system.endswith("-editor") else {})
        save_network(root / "gated", VelocityNetwork(sizes), config(system) | changes)
        if system.startswith(process):
            assert load_editor("gated", device="cpu").process == process
        else:
            with pytest.raises(ValueError, match=f"config.json: .*copies says '{process}', .* samples by '"):
                load_editor("gated", device="cpu")


def test_a_separator_edits_by_inversion_and_an_editor_does_not_separate(root):
    sizes = config("flow")["network"]
    save_network(root / "separator", VelocityNetwork(sizes), config("flow", guidance_scale=3.0))
    save_network(root / "editor", VelocityNetwork(sizes), config("flow-editor", adapter=False))
    assert type(load_editor("separator", device="cpu")) is InversionEditor
    save_network(root / "solved", VelocityNetwork(sizes), config("flow", method="heun"))
    assert load_separator("solved", device="cpu").method == "heun"
    assert type(load_editor("solved", device="cpu")) is InversionEditor, "the solver is the separator's own affair"
    assert type(load_editor(root / "editor", device="cpu")) is FlowEditor
    with pytest.raises(ValueError, match="system is 'flow-editor', a separator is one of"):
        load_separator("editor", device="cpu")
    save_network(root / "noise", VelocityNetwork(sizes), config("diffusion"))
    with pytest.raises(ValueError, match="system is 'diffusion', an editor is one of flow-editor, diffusion-editor"):
        load_editor("noise", device="cpu")
    with pytest.raises(ValueError, match="no checkpoint 'nowhere'.*floor and ceiling: original, round-trip"):
        load_editor("nowhere", device="cpu")
    assert type(load_editor("original")) is Unedited
    save_network(root / "slow", VelocityNetwork(sizes), config("flow-editor", adapter=False, sample_rate=8_000))
    with pytest.raises(ValueError, match="sample_rate is 8000, systems work at 16000 Hz"):
        load_editor("slow", device="cpu")


def test_the_ceiling_loads_by_name(root, monkeypatch):
    from lasslab.systems import separation

    monkeypatch.setattr(separation, "load_vae", lambda device: vae())
    monkeypatch.setattr(separation, "load_vocoder", lambda device: Hum(VAE.mel()))
    assert type(load_editor("round-trip", device="cpu")) is RoundTrip
