"""What FlowSep's released code does and its paper does not say: one test for each, which that behaviour would fail.

Where it is cheap, the released behaviour is written out beside the test, and shown to fail the same assertion.
"""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from doubles import Hum, LetterEncoder
from torch import nn

from lasslab.data.clips import Clip
from lasslab.data.mixtures import MixtureDataset, mix_at_snr, mix_batch
from lasslab.data.synthesis import EVENT_CLASSES
from lasslab.data.tagging import tag_clips
from lasslab.flow import flow_loss
from lasslab.models.text import TextEmbedding
from lasslab.models.vae import MelVAE, VAEConfig
from lasslab.models.velocity import VelocityConfig, condition_on
from lasslab.signal.mel import MelConfig, log_mel_spectrogram
from lasslab.systems.generative import FlowSeparator
from lasslab.training.latents import encode_pairs

VAE = VAEConfig(channels=(4, 8), latent_channels=16, n_mels=16)
TINY = VelocityConfig(channels=(8, 16), attention=(False, True), head_width=8, latent_channels=16, text_dim=6)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Folding(nn.Module):
    """A VAE by hand: 4 x 4 points of the log-mel, brought to about unit variance, are the 16 channels of the latent."""

    config = VAE
    mel = VAE.mel()
    silence = math.log(VAE.mel().floor)

    def encode(self, log_mel: torch.Tensor) -> torch.Tensor:
        return F.pixel_unshuffle((log_mel.mT[:, None] + 5) / 3, 4)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return (3 * F.pixel_shuffle(latent, 4)[:, 0].mT - 5).clamp(min=self.silence)


class Known(nn.Module):
    """The field that ends at the mixture's latent, moved by what the words say."""

    config = TINY

    def __init__(self, heed: float = 1.0) -> None:
        super().__init__()
        self.weight, self.heed = nn.Parameter(torch.zeros(1)), heed

    def forward(self, x_t, t, *, mixture, tokens, token_mask):
        words = (tokens.mean(-1) * token_mask).sum(1) / token_mask.sum(1)
        return (mixture + self.heed * words[:, None, None, None] - x_t) / (1 - t[:, None, None, None])


def tiny_vae() -> MelVAE:
    torch.manual_seed(0)
    return MelVAE(VAE).eval().requires_grad_(False)


def separator(heed: float = 1.0, **settings) -> FlowSeparator:
    vae = Folding()
    return FlowSeparator(Known(heed), vae, Hum(vae.mel), LetterEncoder(), **settings)


# --- guidance is accepted and ignored


def test_the_guidance_scale_changes_the_sample():
    """Released: `unconditional_guidance_scale` reaches the sampler, which calls the network with the words only."""
    mixture, text = randn(1, 1, 16, 6, 4), LetterEncoder()(["a dog"])
    shift = text.tokens.mean()

    def obeys(sample) -> bool:
        one, three = sample(1.0), sample(3.0)
        return torch.allclose(three - one, (2 * shift).expand_as(one), atol=1e-3)

    system = separator()
    assert obeys(lambda scale: system.generate(mixture, text, n_steps=4, guidance_scale=scale))

    def released(scale: float) -> torch.Tensor:  # Euler on the conditional branch, whatever the scale
        x = randn(1, 16, 6, 4)
        for step in range(4):
            t = torch.tensor([step / 4])
            x = x + system.network(x, t, mixture=mixture[0], tokens=text.tokens, token_mask=text.mask) / 4
        return x[None]

    assert not obeys(released)


def test_the_guidance_scale_is_heard():
    """The same from the waveform on: what a user sets in the call."""
    system, waveform = separator(), 0.1 * randn(8_000)
    one, three = (system(waveform, "a dog", guidance_scale=scale, n_steps=3) for scale in (1.0, 3.0))
    assert not torch.allclose(one, three, atol=1e-3 * float(one.abs().max()))


# --- longer audio is cut to a random 10.24 s, and its level is lost


def test_a_long_recording_comes_back_whole_and_in_place():
    """Released: a random 10.24 s of the file are read, so 15 s become 10.24 s from somewhere."""
    n = 15 * 16_000
    swelling = torch.linspace(0.1, 1, n) * torch.sin(2 * torch.pi * 440 * torch.arange(n) / 16_000)
    waveform = 0.3 * swelling

    def is_whole(estimate: torch.Tensor) -> bool:
        if estimate.shape != waveform.shape:
            return False
        loudness = [part.square().mean() for part in estimate.split(16_000)]
        return all(before < after for before, after in zip(loudness[1:-2], loudness[2:-1], strict=True))

    system = separator(heed=0.0, n_steps=2)
    estimate = system(waveform, "a tone")
    assert is_whole(estimate)

    start = int(torch.randint(n - 163_840, (1,), generator=torch.Generator().manual_seed(0)))
    cropped = waveform[start : start + 163_840]
    assert not is_whole(system(cropped, "a tone"))
    assert torch.equal(system(waveform, "a tone"), estimate), (
        "and nothing is drawn at random but the noise, by its seed"
    )


@pytest.mark.parametrize("gain_db", [-30, 0, 12])
def test_the_level_comes_back(gain_db):
    """Released: the waveform is scaled to a peak of 0.5 and stays there."""
    system, gain = separator(heed=0.0, n_steps=2), 10 ** (gain_db / 20)
    waveform = 0.05 * randn(16_000) * torch.linspace(0.2, 1, 16_000)
    reference = system(waveform, "noise")

    def keeps_level(separate) -> bool:
        estimate = separate(gain * waveform)
        return torch.allclose(estimate, gain * reference, rtol=5e-3, atol=5e-3 * gain * float(reference.abs().max()))

    assert reference.abs().max() > 0 and keeps_level(lambda x: system(x, "noise"))
    if gain_db:
        assert not keeps_level(lambda x: system(0.5 * x / x.abs().max(), "noise"))


# --- the empty target is a log-mel of zeros


def test_nothing_to_separate_is_silence_in_the_log_mel_and_in_the_latent():
    """Released: `torch.zeros_like(log_mel)`, a magnitude of 1 in every band; silence is log(1e-5) = -11.5."""
    noise = 0.1 * randn(4, 8_000)
    items = {"target": noise, "interference": noise.flip(0), "snr_db": torch.zeros(4), "absent": torch.ones(4).bool()}
    batch, vae = mix_batch(items), tiny_vae()

    def is_silent(log_mel: torch.Tensor) -> bool:
        return bool((log_mel.exp() < 2e-5).all())

    ours = log_mel_spectrogram(batch["target"], vae.mel)
    released = torch.zeros_like(ours)
    assert is_silent(ours) and not is_silent(released)
    loudest = log_mel_spectrogram(batch["mixture"], vae.mel).max()
    assert released.min() > loudest, "louder in every band than the loudest of the mixture"
    # through the cache of latents, which is what a flow is trained on
    _, target = encode_pairs(vae, batch["mixture"], batch["target"])
    torch.testing.assert_close(target, vae.encode(torch.full_like(ours, math.log(1e-5))))
    assert not torch.allclose(target, vae.encode(released), atol=0.05)


def test_a_vocoder_hears_nothing_in_it():
    """What a network has learned to give for an absent sound is what comes out: it must not be a roar."""
    mel = MelConfig()
    silent, zeros = (Hum(mel)(torch.full((1, 64, 20), value)) for value in (math.log(mel.floor), 0.0))
    assert silent.abs().max() < 2e-5 and zeros.abs().max() > 0.9


# --- mixtures are de-clipped, targets are not rescaled with them


def test_what_rescales_a_mixture_rescales_its_parts():
    """Released: a mixture beyond 1 is brought to a peak of 0.9, and its target left as loud as it was."""
    target, interference = torch.sin(torch.arange(4_000) * 0.3), torch.sin(torch.arange(4_000) * 0.31)

    def consistent(mixture: torch.Tensor, target: torch.Tensor, interference: torch.Tensor) -> bool:
        return torch.allclose(mixture, target + interference, atol=1e-6) and bool(mixture.abs().max() <= 1)

    ours = mix_at_snr(target, interference, snr_db=0.0)
    assert (target + interference).abs().max() > 1.5, "it would have clipped"
    assert consistent(*ours)
    raw = target + interference
    assert not consistent(0.9 * raw / raw.abs().max(), target, interference)


@pytest.mark.parametrize("snr_db", [-15.0, 0.0, 15.0])
def test_a_target_is_never_louder_than_its_mixture_allows(snr_db):
    """The share of the mixture's energy is the SNR's, also where the peak had to come down."""
    target, interference = 0.9 * randn(2, 16_000).clamp(-1, 1), 0.9 * randn(2, 16_000, seed=1).clamp(-1, 1)
    batch = mix_batch({"target": target, "interference": interference, "snr_db": torch.full((2,), snr_db)})
    peak = batch["mixture"].abs().amax(-1)
    assert (peak <= 1 + 1e-6).all()
    found = 10 * (batch["target"].square().sum(-1) / batch["interference"].square().sum(-1)).log10()
    assert found.tolist() == pytest.approx([snr_db] * 2, abs=1e-3)
    assert torch.equal(batch["mixture"], batch["target"] + batch["interference"])


# --- words are dropped for whole batches


def test_words_are_dropped_for_each_example():
    """Released: one random number for a batch: in a tenth of the batches nobody has words, in the others everybody."""
    n, seen = 200, []

    def network(x_t, t, *, mixture, tokens, token_mask):
        seen.append((tokens == 0).all(dim=(1, 2)))
        return x_t

    text = TextEmbedding(randn(n, 3, 6), torch.ones(n, 3).bool())
    condition, null = condition_on(randn(n, 2, 4, 4), text)

    def mixed(dropped: torch.Tensor) -> bool:
        return bool(dropped.any()) and not bool(dropped.all())

    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        flow_loss(network, randn(n, 2, 4, 4), condition, generator=generator, null=null, dropout=0.1)
    assert all(mixed(dropped) for dropped in seen)
    share = torch.cat(seen).float().mean().item()
    assert share == pytest.approx(0.1, abs=0.04)

    def released(generator: torch.Generator) -> torch.Tensor:
        return (torch.rand(1, generator=generator) < 0.1).expand(n)

    assert not any(mixed(released(torch.Generator().manual_seed(seed))) for seed in range(100))


# --- two clips of one class are mixed


class Ears:
    """A tagger that hears by a clip's synthesis class, which the clip itself hides."""

    name = "ears"

    def __init__(self, kinds: list[str]) -> None:
        self.labels, self.heard = tuple(dict.fromkeys(kinds)), kinds
        self.asked = 0

    def classify(self, waveforms: torch.Tensor, *, sample_rate: int = 16_000) -> torch.Tensor:
        rows = [self.labels.index(kind) for kind in self.heard[self.asked : self.asked + len(waveforms)]]
        self.asked += len(waveforms)
        return torch.eye(len(self.labels))[rows]


def captioned() -> tuple[list[Clip], list[str]]:
    """Four recordings of each of three classes, which say what they are in their captions only."""
    kinds = [kind for kind in sorted(EVENT_CLASSES)[:3] for _ in range(4)]
    clips = [
        Clip(label=kind, captions=(f"sentence {i}",), source=f"clip{i}", corpus="synthesis", seed=i, seconds=0.5)
        for i, kind in enumerate(kinds)
    ]
    return clips, kinds


def pairs_of_one_kind(clips: list[Clip], kinds: list[str], n: int = 300) -> int:
    """How often a dataset of captioned clips draws two clips of one kind."""
    dataset = MixtureDataset(clips, n=n, seconds=0.1, snr_db=(0.0, 0.0))
    kind_of = {clip.label: kind for clip, kind in zip(clips, kinds, strict=True)}
    items = [dataset[index] for index in range(n)]
    return sum(kind_of[item["label"]] == kind_of[item["interference_label"]] for item in items)


class Recording(Clip):
    """A clip whose label is its recording, as corpora with sentences give it; it sounds like its class."""

    def load(self, *, sample_rate: int = 16_000) -> torch.Tensor:
        return SOUNDS[self.source]


SOUNDS: dict[str, torch.Tensor] = {}


def test_clips_that_share_a_class_are_never_mixed_though_they_have_captions_only():
    """Released: clips are tagged by PANNs and the tags are never asked; every draw of a pair is accepted."""
    sounding, kinds = captioned()
    SOUNDS.update({clip.source: clip.load() for clip in sounding})
    clips = [
        Recording(label=clip.source, captions=clip.captions, source=clip.source, corpus="own", seed=0)
        for clip in sounding
    ]
    untagged = pairs_of_one_kind(clips, kinds)
    assert untagged > 50, "3 of the 11 other clips are of the same class: 82 of 300 are expected"
    tagged = tag_clips(clips, Ears(kinds))
    assert [clip.tags for clip in tagged] == [(kind,) for kind in kinds]
    assert pairs_of_one_kind(tagged, kinds) == 0
    ignored = [replace(clip, tags=()) for clip in tagged]  # what asking nobody amounts to
    assert pairs_of_one_kind(ignored, kinds) > 50
