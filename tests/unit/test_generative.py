"""FlowSeparator and DiffusionSeparator with networks whose answer is known: what goes in by level, length, seed and
words comes out so."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from doubles import Hum, LetterEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lasslab import diffusion
from lasslab.flow import Trajectory
from lasslab.models.checkpoints import save_network
from lasslab.models.text import TextEmbedding, load_text_encoder
from lasslab.models.vae import MelVAE, VAEConfig
from lasslab.models.velocity import VelocityConfig, VelocityNetwork
from lasslab.signal.levels import level_gain
from lasslab.signal.mel import MelConfig, log_mel_spectrogram
from lasslab.systems import latent, separation
from lasslab.systems.codec import LatentCodec, RoundTrip
from lasslab.systems.generative import DiffusionSeparator, FlowSeparator, LatentSeparator
from lasslab.systems.latent import draw_noise
from lasslab.systems.separation import load_separator
from lasslab.systems.streaming import Streaming

VAE = VAEConfig(channels=(4, 8), latent_channels=16, n_mels=16)
TINY = VelocityConfig(channels=(8, 16), attention=(False, True), head_width=8, latent_channels=16, text_dim=6)
KINDS: dict[str, type[LatentSeparator]] = {"flow": FlowSeparator, "diffusion": DiffusionSeparator}
both_kinds = pytest.mark.parametrize("kind", KINDS)


class Folding(nn.Module):
    """A VAE by hand: 4 x 4 points of the log-mel, brought to about unit variance, are the 16 channels of the latent."""

    config = VAE
    mel = VAE.mel()
    silence = math.log(VAE.mel().floor)

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []

    def encode(self, log_mel: torch.Tensor) -> torch.Tensor:
        self.lengths.append(log_mel.shape[-1])
        return F.pixel_unshuffle((log_mel.mT[:, None] + 5) / 3, 4)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return (3 * F.pixel_shuffle(latent, 4)[:, 0].mT - 5).clamp(min=self.silence)


class Known(nn.Module):
    """The field whose flow ends at `answer(mixture, words)`, wherever it begins: v = (answer - x) / (1 - t).

    For the diffusion, the noise that would be in x_t if the data were that answer.
    """

    config = TINY

    def __init__(self, answer=lambda mixture, words: mixture, kind: str = "flow") -> None:
        super().__init__()
        self.answer, self.kind = answer, kind
        self.weight = nn.Parameter(torch.zeros(1))
        self.rows: list[int] = []
        self.lengths: list[int] = []

    def forward(self, x_t, t, *, mixture, tokens, token_mask):
        self.rows.append(len(x_t))
        self.lengths.append(x_t.shape[2])
        words = (tokens.mean(-1) * token_mask).sum(1) / token_mask.sum(1)  # 0 without words
        answer, t = self.answer(mixture, words[:, None, None, None]), t[:, None, None, None]
        if self.kind == "flow":
            return (answer - x_t) / (1 - t)
        data = diffusion.interpolate(torch.zeros(()), torch.ones(1), t.flatten()[:1])
        noise = diffusion.interpolate(torch.ones(()), torch.zeros(1), t.flatten()[:1])
        return (x_t - data * answer) / noise


class Still(Known):
    """A flow that does not move: the noise stays what it was. As a diffusion: the state is nothing but noise."""

    def forward(self, x_t, t, **condition):
        self.rows.append(len(x_t))
        return torch.zeros_like(x_t) if self.kind == "flow" else x_t


class Untrained(Still):
    """A real network with random weights; for the diffusion, close enough to the noise not to run off to infinity."""

    def __init__(self, kind: str = "flow") -> None:
        super().__init__(kind=kind)
        self.network = tiny_network()

    def forward(self, x_t, t, **condition):
        velocity = self.network(x_t, t, **condition)
        return velocity if self.kind == "flow" else x_t + 0.02 * velocity


def tiny_vae(**changes) -> MelVAE:
    torch.manual_seed(0)
    return MelVAE(replace(VAE, **changes)).eval().requires_grad_(False)


def tiny_network() -> VelocityNetwork:
    torch.manual_seed(1)
    return VelocityNetwork(TINY).eval().requires_grad_(False)


def separator(
    network: nn.Module | None = None, kind: str = "flow", *, vae: nn.Module | None = None, **arguments
) -> LatentSeparator:
    vae = vae or Folding()
    network = Known(kind=kind) if network is None else network
    return KINDS[kind](network, vae, Hum(vae.mel), LetterEncoder(), **arguments)


def noise(*shape: int, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def swelling(n: int, sample_rate: int = 16_000) -> torch.Tensor:
    """Noise that comes and goes within half a second, so that time can be told from its level."""
    return noise(n) * (1.1 + torch.sin(4 * torch.pi * torch.arange(n) / sample_rate))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text(*queries: str) -> TextEmbedding:
    encoder = LetterEncoder()
    rows = [encoder([query]).tokens[0] for query in queries]
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return TextEmbedding(tokens, torch.arange(tokens.shape[1]) < lengths[:, None])


# --- the known answer


@both_kinds
@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_a_network_that_answers_the_mixture_gives_back_its_log_mel_at_its_level(kind, n_steps):
    system, waveform = separator(kind=kind, n_steps=n_steps), swelling(9_000)
    estimate = system(waveform, "a dog")
    gain = level_gain(waveform)
    expected = Hum(system.codec.vae.mel)(log_mel_spectrogram((gain * waveform)[None], system.codec.vae.mel))[0] / gain
    assert expected.std() > 1e-3 and estimate.shape == waveform.shape
    torch.testing.assert_close(estimate, expected[:9_000], rtol=1e-2, atol=1e-3 * float(expected.abs().max()))
    torch.testing.assert_close(RoundTrip(system.codec).reconstruct(waveform), expected[:9_000], rtol=1e-3, atol=1e-6)


@both_kinds
def test_the_latent_made_is_the_one_the_network_knows(kind):
    answer = lambda mixture, words: 0.5 * mixture.flip(1) + words  # noqa: E731
    system, mixture = separator(Known(answer, kind), kind), noise(2, 3, 16, 10, 4, level=1.0)
    queries = text("a dog", "rain falling")
    made = system.generate(mixture, queries, n_steps=5)
    words = (queries.tokens.mean(-1) * queries.mask).sum(1) / queries.mask.sum(1)
    expected = 0.5 * mixture.flip(2) + words[:, None, None, None, None]
    torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-3)


# --- shapes, types, level


@both_kinds
@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000]),
    st.sampled_from([None, 1, 2]),
    st.integers(0, 9_000),
    st.booleans(),
)
def test_shape_type_and_silence_are_kept(kind, sample_rate, channels, extra, silent):
    shortest = -(-1024 * sample_rate // 16_000)
    shape = (shortest + extra,) if channels is None else (channels, shortest + extra)
    waveform = torch.zeros(shape) if silent else noise(*shape, seed=extra)
    before, system = waveform.clone(), separator(Still(kind=kind), kind, n_steps=2)
    estimate = system(waveform, "a dog", sample_rate=sample_rate)
    assert estimate.shape == waveform.shape and estimate.dtype == torch.float32 and estimate.isfinite().all()
    assert torch.equal(waveform, before)
    assert bool((estimate == 0).all()) == silent, "noise in gives sound out, silence gives silence"
    with pytest.raises(ValueError, match="at least"):
        system(waveform[..., : shortest - 1], "a dog", sample_rate=sample_rate)


@both_kinds
def test_a_silent_channel_stays_silent_and_does_not_change_the_other(kind):
    """One level for both channels, but none that lifts silence: a network makes sound of that, too."""
    system, sound = separator(Known(lambda mixture, words: torch.ones_like(mixture), kind), kind), noise(9_000)
    estimate = system(torch.stack([sound, torch.zeros(9_000)]), "a dog")
    assert estimate[0].abs().max() > 0 and not estimate[1].any()


@both_kinds
def test_a_pause_of_the_mixture_is_a_pause_of_the_estimate(kind):
    system = separator(Known(lambda mixture, words: torch.ones_like(mixture), kind), kind)
    mixture = noise(24_000)
    mixture[8_000:20_000] = 0
    estimate = system(mixture, "a dog")
    assert not estimate[9_000:19_000].any(), "silence in, silence out, also for a while"
    assert estimate[:8_000].unfold(0, 1_000, 1_000).abs().amax(-1).min() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_types_come_back_as_they_went_in(dtype):
    waveform = noise(4_000).to(dtype)
    estimate = separator()(waveform, "a dog")
    assert estimate.dtype == dtype
    torch.testing.assert_close(estimate.float(), separator()(waveform.float(), "a dog"), rtol=1e-2, atol=1e-3)
    estimate *= 2  # an ordinary tensor, not one of inference


@both_kinds
@pytest.mark.parametrize("gain_db", [-40, -20, 20])
def test_a_gain_of_the_input_is_a_gain_of_the_output(kind, gain_db):
    system, waveform, gain = separator(Untrained(kind), kind, n_steps=3), swelling(9_000), 10 ** (gain_db / 20)
    plain, louder = system(waveform, "a dog"), system(gain * waveform, "a dog")
    assert plain.abs().max() > 0
    torch.testing.assert_close(louder, gain * plain, rtol=2e-3, atol=2e-3 * gain * float(plain.abs().max()))


def test_all_channels_share_one_gain():
    """A channel that is 20 dB fainter is so inside too: each to its own level would lose where the sound comes from."""
    waveform, seen = torch.stack([swelling(8_000), 0.1 * swelling(8_000)]), []
    system = separator(Known(lambda mixture, words: (seen.append(mixture.clone()), mixture)[1]), n_steps=1)
    system(waveform, "a dog")
    (mixture,) = seen
    latents, gain = system.codec.encode(waveform[None])
    torch.testing.assert_close(mixture, latents[0])
    assert gain[0, 0] == gain[0, 1] > 0 and not torch.allclose(mixture[0], mixture[1], atol=0.05)
    rms = (waveform * gain[0]).square().mean().sqrt()
    assert 20 * rms.log10().item() == pytest.approx(-20, abs=1e-3)


def test_equal_channels_come_out_equal_and_as_the_mono_result():
    mono = swelling(9_000)
    for network in (tiny_network(), Still()):
        system = separator(network, n_steps=3)
        stereo = system(torch.stack([mono, mono]), "a dog")
        assert torch.allclose(stereo[0], stereo[1], atol=1e-5)
        torch.testing.assert_close(stereo[0], system(mono, "a dog"), rtol=1e-3, atol=1e-5)


def test_another_rate_keeps_what_is_in_place():
    """The swelling of 2 Hz is where it was, to a frame, at 44.1 kHz."""
    n, rate = 66_150, 44_100
    waveform = swelling(n, rate)
    system = separator(n_steps=2)
    estimate, inside = (
        system(waveform, "a dog", sample_rate=rate),
        RoundTrip(system.codec).reconstruct(waveform, sample_rate=rate),
    )
    torch.testing.assert_close(estimate, inside, rtol=1e-2, atol=1e-2 * float(inside.abs().max()))
    assert estimate.shape == (n,)


# --- seeds


@both_kinds
def test_the_seed_decides_and_nothing_else(kind):
    system, waveform = separator(Untrained(kind), kind, n_steps=3), swelling(8_000)
    torch.manual_seed(5)
    first = system(waveform, "a dog", generator=seeded(1))
    torch.manual_seed(6)
    assert torch.equal(system(waveform, "a dog", generator=seeded(1)), first)
    assert not torch.allclose(system(waveform, "a dog", generator=seeded(2)), first, atol=1e-5)
    assert torch.equal(system(waveform, "a dog"), system(waveform, "a dog", generator=seeded(0)))
    generator = seeded(1)
    system(waveform, "a dog", generator=generator)
    assert not torch.equal(system(waveform, "a dog", generator=generator), first), "the generator has moved on"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200))
def test_noise_belongs_to_its_place(short, long):
    short, long = sorted((short, long))
    one, other = (draw_noise((2, n, 3), seeded(4)) for n in (short, long))
    assert one.shape == (2, short, 3) and torch.equal(one, other[:, :short])


def test_noise_is_standard_normal():
    drawn = draw_noise((4, 2_000, 4), seeded(0))
    assert drawn.mean().abs() < 0.02 and drawn.std().item() == pytest.approx(1, abs=0.02)
    blocks = drawn[:, :1920].unflatten(1, (30, 64)).transpose(0, 1).flatten(1)
    correlation = torch.corrcoef(blocks) - torch.eye(30)
    assert correlation.abs().max() < 0.2, "no block repeats another"


def test_the_first_part_of_a_long_recording_starts_from_the_same_noise():
    system = separator(Still(), window_seconds=0.64)
    starts = []
    for n in (16, 150):
        system.generate(
            noise(1, 2, 16, n, 4), text("a dog"), [seeded(9)], n_steps=1, observe=lambda t, x: starts.append(x)
        )
    short, long = starts[0], starts[2]
    assert torch.equal(long[:, :, :16], short) and torch.equal(short[0], short[1]), "and every channel"


# --- batches


@both_kinds
def test_a_batch_is_the_same_as_one_by_one(kind):
    mixtures = torch.stack([swelling(8_000), 0.01 * noise(8_000, seed=3), torch.zeros(8_000)])
    queries = ["a dog", "a much longer sentence about rain", "A dog!"]
    system = separator(Untrained(kind), kind, n_steps=3, guidance_scale=1.5)
    together = system.separate_batch(mixtures, queries, generators=[seeded(n) for n in range(3)])
    for number, (estimate, mixture, query) in enumerate(zip(together, mixtures, queries, strict=True)):
        alone = system(mixture, query, generator=seeded(number))
        torch.testing.assert_close(estimate, alone, rtol=1e-2, atol=1e-3 * max(float(alone.abs().max()), 1e-6))
    assert (together[2] == 0).all() and together[1].abs().max() > 0
    default = system.separate_batch(mixtures[:1].expand(2, -1), ["a dog", "a dog"])
    torch.testing.assert_close(default[0], default[1])
    with pytest.raises(ValueError, match="B sentences"):
        system.separate_batch(mixtures, queries[:2])
    with pytest.raises(ValueError, match="generator for each of 3"):
        system.separate_batch(mixtures, queries, generators=[seeded(0)])


def test_a_batch_larger_than_one_call_takes_is_the_same(monkeypatch):
    network = Known(lambda mixture, words: mixture * words)
    system, mixtures = separator(network, n_steps=2), noise(5, 4_000)
    queries = ["a", "bb", "ccc", "dd", "e"]
    whole = system.separate_batch(mixtures, queries)
    network.rows.clear()
    monkeypatch.setattr(latent, "LARGEST_BATCH", 2)
    torch.testing.assert_close(system.separate_batch(mixtures, queries), whole)
    assert network.rows == [2, 2, 1] * 2


# --- words and guidance


@both_kinds
def test_the_query_steers(kind):
    system, waveform = separator(Untrained(kind), kind, n_steps=3), swelling(8_000)
    dog, rain = system(waveform, "a dog"), system(waveform, "rain falling")
    assert not torch.allclose(dog, rain, atol=1e-3 * float(dog.abs().max()))


def test_each_query_is_encoded_once_in_its_normalised_form():
    system = separator(n_steps=6, guidance_scale=3.0)
    for query in ("A dog, barking!", "a dog barking", "rain"):
        system(noise(2_000), query)
    assert system.text_encoder.encoder.encoded == ["a dog barking", "rain"], "not once a step, nor once a branch"
    tokens = system.text_encoder(["rain"]).tokens  # ordinary tensors, which a training step may share
    nn.Linear(6, 1)(tokens).sum().backward()


@both_kinds
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_guidance_is_used_by_its_formula(kind, scale):
    """Both fields are linear in the answer, so the guided answer is null + scale (cond - null), exactly."""
    answer = lambda mixture, words: mixture + words  # noqa: E731
    system, mixture, query = separator(Known(answer, kind), kind), noise(1, 1, 16, 6, 4, level=1.0), text("a dog")
    made = system.generate(mixture, query, n_steps=4, guidance_scale=scale)
    torch.testing.assert_close(made, mixture + scale * query.tokens.mean(), rtol=1e-3, atol=2e-3)


@both_kinds
@pytest.mark.parametrize("scale, rows", [(1.0, 2), (2.5, 4)])
@pytest.mark.parametrize("n_steps", [1, 10])
def test_one_call_a_step_with_both_branches_in_one_batch(kind, scale, rows, n_steps):
    network = Known(kind=kind)
    system = separator(network, kind)
    system(noise(2, 4_000), "a dog", n_steps=n_steps, guidance_scale=scale)  # two channels
    assert network.rows == [rows] * n_steps


def test_a_scale_of_one_is_the_conditional_branch_bit_for_bit():
    network, mixture, query = tiny_network(), noise(1, 1, 16, 6, 4), text("a dog")
    system = separator(network)
    with_scale = system.generate(mixture, query, n_steps=4, guidance_scale=1.0)
    x = draw_noise((16, 6, 4), seeded(0))[None]
    for t in torch.linspace(0, 1, 5)[:-1]:
        x = x + 0.25 * network(x, t[None], mixture=mixture[0], tokens=query.tokens, token_mask=query.mask)
    torch.testing.assert_close(with_scale[0], x)
    assert not torch.allclose(system.generate(mixture, query, n_steps=4, guidance_scale=2.0)[0], x, atol=1e-4)


@pytest.mark.parametrize("method, calls", [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_the_solver_is_a_choice(method, calls):
    network = Still()
    separator(network, method=method, n_steps=4)(noise(2_000), "a dog")
    assert len(network.rows) == 4 * calls
    other = separator(Still(), n_steps=4).with_sampling(method=method)
    assert other.method == method and len(other.network.rows) == 0
    other(noise(2_000), "a dog")
    assert len(other.network.rows) == 4 * calls
    with pytest.raises(ValueError, match="unknown method 'rk4': use one of euler, midpoint, heun"):
        separator(method="rk4")
    with pytest.raises(ValueError, match="has no setting method: it has n_steps"):
        separator(kind="diffusion").with_sampling(method=method)


def test_settings_of_the_system_hold_unless_a_call_says_otherwise():
    network = Known()
    system = separator(network, n_steps=4, guidance_scale=2.0)
    waveform = noise(2_000)
    system(waveform, "a dog")
    system(waveform, "a dog", n_steps=2, guidance_scale=1.0)
    assert network.rows == [2] * 4 + [1] * 2
    other = system.with_sampling(n_steps=3, guidance_scale=1.0)
    network.rows.clear()
    other(waveform, "a dog")
    assert network.rows == [1] * 3 and other.network is system.network and other.name == "generative, 3 steps"
    assert (system.n_steps, system.guidance_scale, system.name) == (4, 2.0, "generative")
    with pytest.raises(ValueError, match="n_steps"):
        system.with_sampling(n_steps=0)


@both_kinds
def test_a_mixture_that_is_the_answer_is_handed_on_where_asked(kind):
    """A network that answers the mixture: what VAE and vocoder cost is no change."""
    system, mixtures = separator(kind=kind), noise(2, 4_000)
    assert system.keep_db == 0.0, "as published"
    assert not torch.allclose(system(mixtures, "a dog"), mixtures, atol=0.05)
    kept = system(mixtures, "a dog", keep_db=3.0)
    torch.testing.assert_close(kept, mixtures, rtol=0, atol=1e-5)
    together = system.separate_batch(mixtures, ["a dog", "rain"], keep_db=3.0)
    torch.testing.assert_close(together, mixtures, rtol=0, atol=1e-5)


# --- watching


@both_kinds
def test_an_observer_sees_every_state_from_noise_to_data(kind):
    system, trajectory = separator(kind=kind), Trajectory()
    system(noise(2, 4_000), "a dog", n_steps=5, observe=trajectory)
    torch.testing.assert_close(trajectory.times.float(), torch.linspace(0, 1, 6))
    assert trajectory.states.shape == (6, 2, 16, 7, 4), "steps + 1, channels, Z, N', M'"
    assert torch.equal(trajectory.states[0, 0], draw_noise((16, 7, 4), seeded(0)))
    latents, _ = system.codec.encode(noise(1, 2, 4_000).reshape(1, 2, 4_000))
    torch.testing.assert_close(trajectory.states[-1], latents[0], rtol=1e-3, atol=1e-3)


def test_a_diffusion_may_take_the_noise_for_a_later_state():
    system, trajectory = separator(kind="diffusion", t_start=0.1), Trajectory()
    system(noise(1, 4_000), "a dog", n_steps=3, observe=trajectory)
    torch.testing.assert_close(trajectory.times.float(), torch.tensor([0.1, 0.4, 0.7, 1.0]))
    assert torch.equal(trajectory.states[0, 0], draw_noise((16, 7, 4), seeded(0))), "all of it noise"
    latents, _ = system.codec.encode(noise(1, 1, 4_000))
    torch.testing.assert_close(trajectory.states[-1], latents[0], rtol=1e-3, atol=1e-3)
    assert system.with_sampling(t_start=0.3).t_start == 0.3 and system.t_start == 0.1
    with pytest.raises(ValueError, match=r"t_start is a time in \[0, 1\), got 1"):
        system.with_sampling(t_start=1.0)
    with pytest.raises(ValueError, match="has no setting t_start: it has n_steps, guidance_scale"):
        separator(kind="flow").with_sampling(t_start=0.1)


def test_a_bar_shows_the_steps_only_where_it_is_asked_for(capfd):
    system, seen = separator(), []
    system(noise(2_000), "a dog", n_steps=6)
    assert capfd.readouterr() == ("", "")
    plain = system(noise(2_000), "a dog", n_steps=6)
    watched = system(noise(2_000), "a dog", n_steps=6, progress=True, observe=lambda t, x: seen.append(float(t)))
    assert "6/6" in capfd.readouterr().err and len(seen) == 7
    assert torch.equal(plain, watched)

    def stop(t, x):
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        system(noise(2_000), "a dog", progress=True, observe=stop)


# --- length


def test_windows_of_a_pointwise_network_are_the_whole():
    network = Known(lambda mixture, words: mixture.tanh() + words)
    waveform = swelling(60_000)
    whole = separator(network, window_seconds=10.0)(waveform, "a dog")
    assert network.lengths[0] == 94
    network.lengths.clear()
    windowed = separator(network, window_seconds=0.64)(waveform, "a dog")
    assert set(network.lengths) == {16}
    torch.testing.assert_close(windowed, whole, rtol=1e-4, atol=1e-5)


def test_no_seam_where_windows_disagree():
    """A network that answers each window with a level of its own: no two points in time differ by more than a ramp."""

    class Moody(Known):
        def forward(self, x_t, t, **condition):
            rows = torch.arange(len(x_t), dtype=torch.float32)[:, None, None, None] % 2
            return (rows - x_t) / (1 - t[:, None, None, None])

    made = separator(Moody(), window_seconds=1.28).generate(torch.zeros(1, 1, 16, 300, 4), text("a dog"), n_steps=3)
    level = made[0, 0, 0, :, 0]
    assert level.max() - level.min() > 0.8, "they do disagree"
    assert level.diff().abs().max() < 0.2, "a cut would be a step of 1"


def test_windows_agree_at_every_step_and_not_at_the_end_only():
    """Not a cross-fade of two finished samples: from the second step on, each window sees what its neighbours moved."""
    seen = []

    class Watching(Known):
        def forward(self, x_t, t, **condition):
            seen.append(x_t.clone())
            rows = torch.arange(len(x_t), dtype=torch.float32)[:, None, None, None]
            return rows.expand_as(x_t)

    separator(Watching(), window_seconds=0.32).generate(torch.zeros(1, 1, 16, 14, 4), text("a dog"), n_steps=2)
    first, second = seen
    assert first.shape[0] == 2 and first.shape[2] == 8
    overlap_of_first, overlap_of_second = second[0, :, -2:], second[1, :, :2]
    assert torch.equal(overlap_of_first, overlap_of_second)


@both_kinds
def test_two_minutes_in_bounded_memory(kind, monkeypatch):
    monkeypatch.setattr(latent, "LARGEST_BATCH", 8)
    network = Known(kind=kind)
    system = separator(network, kind, window_seconds=2.56, n_steps=2, guidance_scale=2.0)
    encoded = system.codec.vae.lengths
    waveform = swelling(120 * 16_000)
    estimate = system(waveform, "a dog")
    assert estimate.shape == waveform.shape and estimate.isfinite().all()
    assert max(network.rows) == 16 and set(network.lengths) == {64}, "eight windows, with and without words"
    most = 2_000 + 2 * 80  # frames of a piece, and of its context on both sides
    assert max(encoded) <= most and max(system.codec.vocoder.lengths) <= most
    assert sum(encoded) >= 12_000
    # what comes out swells where it did: no piece is shifted or missing
    frames = lambda x: x[: 119 * 16_000].unflatten(0, (-1, 800)).square().mean(-1)  # noqa: E731
    mel = system.codec.vae.mel
    whole = Hum(mel)(log_mel_spectrogram(waveform[None] * level_gain(waveform), mel))[0] / level_gain(waveform)
    torch.testing.assert_close(frames(estimate), frames(whole[: len(waveform)]), rtol=0.02, atol=1e-7)


def test_a_stream_hands_over_the_whole_recording():
    """Windows of ten seconds, each with a sound of its own, would be cross-faded otherwise."""
    network = Known()
    system, waveform = separator(network, n_steps=1, window_seconds=2.56), swelling(12 * 16_000)
    assert torch.equal(Streaming(system)(waveform, "a dog"), system(waveform, "a dog"))
    assert len(network.rows) == 2


# --- refusals


@both_kinds
@pytest.mark.parametrize(
    "waveform, query, sample_rate, words",
    [
        (torch.tensor([float("nan")] * 1_100), "a dog", 16_000, "NaN"),
        (torch.tensor([float("inf")] * 1_100), "a dog", 16_000, "NaN or infinite"),
        (torch.zeros(0), "a dog", 16_000, "at least 1024"),
        (torch.zeros(1_023), "a dog", 16_000, "at least 1024"),
        (torch.zeros(0, 1_100), "a dog", 16_000, "at least"),
        (torch.zeros(2, 3, 1_100), "a dog", 16_000, "shape"),
        (torch.zeros(1_100, dtype=torch.int16), "a dog", 16_000, "int16"),
        (torch.zeros(1_100), "", 16_000, "query is empty"),
        (torch.zeros(1_100), "a" * 10_000, 16_000, "10000 characters"),
        (torch.zeros(1_100), None, 16_000, "string"),
        (torch.zeros(1_100), "a dog", 0, "sample_rate"),
    ],
)
def test_bad_input_is_refused_in_one_line(kind, waveform, query, sample_rate, words):
    network = Known(kind=kind)
    with pytest.raises(ValueError, match=words) as error:
        separator(network, kind)(waveform, query, sample_rate=sample_rate)
    assert "\n" not in str(error.value) and not network.rows, "before anything is computed"


@both_kinds
@pytest.mark.parametrize(
    "setting, words",
    [
        ({"n_steps": 0}, "n_steps must be a whole number from 1 to 10000, got 0"),
        ({"n_steps": 10**30}, "n_steps must be a whole number from 1 to 10000, got 1000"),
        ({"n_steps": 2.5}, "n_steps"),
        ({"n_steps": 10.0}, "n_steps"),
        ({"n_steps": float("nan")}, "n_steps"),
        ({"guidance_scale": -1.0}, "guidance_scale must be 0 to 100, got -1"),
        ({"guidance_scale": 1e30}, "guidance_scale must be 0 to 100, got 1e\\+30"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"guidance_scale": float("inf")}, "guidance_scale"),
        ({"keep_db": -1.0}, "keep_db is a change in dB, 0 or more, got -1"),
        ({"keep_db": float("nan")}, "keep_db is a change in dB"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(kind, setting, words):
    system = separator(kind=kind)
    for refuse in (
        lambda: separator(kind=kind, **setting),
        lambda: system(noise(2_000), "a dog", **setting),
        lambda: system.separate_batch(noise(1, 2_000), ["a dog"], **setting),
        lambda: system.with_sampling(**setting),
    ):
        with pytest.raises(ValueError, match=words) as error:
            refuse()
        assert "\n" not in str(error.value)


def test_parts_that_do_not_belong_together_are_refused():
    vae, encoder = Folding(), LetterEncoder()
    with pytest.raises(ValueError, match="n_mels 16 against 64") as error:
        FlowSeparator(Known(), vae, Hum(MelConfig()), encoder)
    assert "\n" not in str(error.value)
    other = tiny_vae(latent_channels=3)
    with pytest.raises(ValueError, match="3 latent channels, the network expects 16"):
        FlowSeparator(Known(), other, Hum(other.mel), encoder)
    for seconds in (0.0, -1.0, float("nan"), float("inf"), 1e300):
        with pytest.raises(ValueError, match="window_seconds must be above 0 and at most 3600 seconds"):
            separator(window_seconds=seconds)
    with pytest.raises(ValueError, match="n_steps must be 1 to 1000"):
        separator(kind="diffusion")(noise(2_000), "a dog", n_steps=1_001)


# --- the ceiling


def test_the_round_trip_is_of_the_target():
    vae = Folding()
    ceiling = RoundTrip(LatentCodec(vae, Hum(vae.mel)))
    target = torch.stack([swelling(6_000), 0.3 * swelling(6_000)])
    estimate = ceiling(target + noise(2, 6_000, seed=8), "a dog", target=target)
    assert torch.equal(estimate, ceiling.reconstruct(target)) and estimate.shape == target.shape
    torch.testing.assert_close(ceiling.reconstruct(10 * target), 10 * estimate, rtol=2e-3, atol=1e-4)
    assert (ceiling(target, "a dog", target=torch.zeros_like(target)) == 0).all()
    for wrong in (None, target[0], target[:, :-1]):
        with pytest.raises(ValueError, match="round trip needs target= of shape"):
            ceiling(target, "a dog", target=wrong)
    with pytest.raises(ValueError, match="query is empty"):
        ceiling(target, "", target=target)


# --- loading by name


@pytest.fixture
def root(tmp_path: Path, monkeypatch) -> Path:
    """Checkpoints "tiny", a flow, and "tiny-vae"; the vocoder is the hum, the text encoder the letters."""
    monkeypatch.setenv("LASSLAB_CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr(latent, "load_text_encoder", lambda name, device: LetterEncoder())
    monkeypatch.setattr(latent, "load_vocoder", lambda name, device: Hum(VAE.mel()))
    save_network(tmp_path / "tiny-vae", tiny_vae(), {"system": "vae", "network": VAE})
    config = {"system": "flow", "network": TINY, "vae": "tiny-vae", "window_seconds": 1.28, "n_steps": 3}
    save_network(tmp_path / "tiny", tiny_network(), config)
    return tmp_path


def edit_config(root: Path, **changes) -> None:
    path = root / "tiny" / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


@both_kinds
def test_a_saved_network_loads_and_separates_alike(root, kind):
    edit_config(root, system=kind, guidance_scale=1.5)
    waveform = swelling(30_000)
    settings_ = {"n_steps": 3, "guidance_scale": 1.5, "window_seconds": 1.28}
    expected = separator(tiny_network(), kind, vae=tiny_vae(), **settings_)(waveform, "a dog")
    for name in ("tiny", root / "tiny"):
        loaded = load_separator(name, device="cpu")
        assert type(loaded) is KINDS[kind] and loaded.name == "tiny" and loaded.device == torch.device("cpu")
        assert not any(p.requires_grad for p in loaded.network.parameters())
        torch.testing.assert_close(
            loaded(waveform, "a dog"), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
        )


def test_the_start_of_a_diffusion_is_part_of_its_checkpoint(root):
    edit_config(root, system="diffusion")
    assert load_separator("tiny", device="cpu").t_start == 0.0
    edit_config(root, t_start=0.1)
    assert load_separator("tiny", device="cpu").t_start == 0.1


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"t_start": 0.1}, "unknown fields t_start"),
        ({"system": "diffusion", "t_start": 1.5}, "t_start is a time"),
        ({"system": None}, "missing fields system"),
        ({"network": None}, "missing fields network"),
        ({"system": "magic"}, "'magic'"),
        ({"system": ["flow"]}, r"system is \['flow'\], a separator is one of"),
        ({"system": {}}, "system is {}, a separator is one of"),
        ({"vae": 3}, "vae is 3, expected a value like 'mel-vae-lab'"),
        ({"vae_network": {"mel_mean": "low"}}, "mel_mean is 'low'"),
        ({"text_encoder": []}, r"text_encoder is \[\]"),
        ({"colour": "red"}, "unknown fields colour"),
        ({"sample_rate": 8_000}, "8000"),
        ({"n_steps": 0}, "n_steps"),
        ({"n_steps": "ten"}, "n_steps is 'ten'"),
        ({"guidance_scale": -2}, "guidance_scale"),
        ({"window_seconds": 0}, "window_seconds"),
        ({"window_seconds": 1e300}, "window_seconds must be above 0 and at most 3600 seconds, got 1e"),
        ({"vae": "nowhere"}, "no checkpoint 'nowhere'"),
        ({"network": {"width": 3}}, "unknown fields width"),
        ({"network": {"channels": [4, 4]}}, "refuses"),
        ({"network": {"channels": [8, "x"]}}, "refuses"),
        ({"network": {}}, "weights"),
        ({"network": TINY.to_dict() | {"latent_channels": 3}}, "weights"),
        ({"network": TINY.to_dict() | {"text_dim": 5}}, "weights"),
    ],
)
def test_a_wrong_config_is_named(root, changes, words):
    edit_config(root, **changes)
    with pytest.raises(ValueError, match=words) as error:
        load_separator("tiny", device="cpu")
    message = str(error.value)
    assert "\n" not in message and str(root / "tiny") in message


def test_a_text_encoder_that_is_not_there_is_named_with_the_file(root, monkeypatch):
    monkeypatch.setattr(latent, "load_text_encoder", load_text_encoder)
    edit_config(root, text_encoder="")
    with pytest.raises(ValueError, match=r"tiny/config\.json: unknown text encoder ''"):
        load_separator("tiny", device="cpu")


@both_kinds
def test_a_network_with_a_gate_is_sampled_by_its_own_process_only(root, kind):
    """Its gate mixes in an answer of that process: sampled by the other, the estimate comes out 50 dB too loud."""
    other = "diffusion" if kind == "flow" else "flow"
    for copies in (kind, other):
        sizes = replace(TINY, copies=copies)
        save_network(root / "tiny", VelocityNetwork(sizes), {"system": kind, "network": sizes, "vae": "tiny-vae"})
        if copies == kind:
            assert load_separator("tiny", device="cpu").process == kind
            continue
        with pytest.raises(ValueError, match=f"config.json: .*copies says '{other}', .* samples by '{kind}'") as error:
            load_separator("tiny", device="cpu")
        assert "\n" not in str(error.value)


def test_another_encoder_vae_or_vocoder_than_the_trained_one_is_named(root, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(LetterEncoder, "dim", 7)
        with pytest.raises(ValueError, match="7 wide.*text_dim 6"):
            load_separator("tiny", device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(latent, "load_vocoder", lambda name, device: Hum(MelConfig()))
        with pytest.raises(ValueError, match="config.json.*n_mels 16 against 64"):
            load_separator("tiny", device="cpu")
    other = replace(VAE, latent_channels=3)
    save_network(root / "tiny-vae", MelVAE(other), {"system": "vae", "network": other})
    with pytest.raises(ValueError, match="config.json.*3 latent channels, the network expects 16"):
        load_separator("tiny", device="cpu")


def test_the_ceiling_loads_by_name(monkeypatch):
    monkeypatch.setattr(separation, "load_vae", lambda device: tiny_vae())
    monkeypatch.setattr(separation, "load_vocoder", lambda device: Hum(VAE.mel()))
    assert load_separator("round-trip", device="cpu").name == "round-trip"
