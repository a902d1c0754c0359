"""Stand-ins with known answers, which several files of tests use: `from doubles import LetterEncoder`."""

import os
import signal
from collections.abc import Callable

import torch

from lasslab.models.text import TextEmbedding
from lasslab.signal.mel import MelConfig


class LetterEncoder:
    """A text encoder by hand: one token per letter; remembers what it was asked."""

    dim = 6
    name = "letters"
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def to(self, device) -> "LetterEncoder":
        return self

    def __call__(self, texts) -> TextEmbedding:
        self.encoded += texts
        (text,) = texts
        codes = torch.tensor([float(ord(letter)) for letter in text])
        tokens = torch.sin(codes[:, None] * torch.arange(1.0, 7.0))[None]
        return TextEmbedding(tokens, torch.ones(1, len(text), dtype=torch.bool))


class Hum:
    """A vocoder by hand: a fixed wave, which repeats in every frame, as loud as the frame's mean magnitude."""

    name = "hum"

    def __init__(self, mel: MelConfig) -> None:
        self.mel, self.lengths = mel, []

    def __call__(self, log_mel: torch.Tensor) -> torch.Tensor:
        self.lengths.append(log_mel.shape[-1])
        hop = self.mel.hop_length
        wave = torch.sin(2 * torch.pi * torch.arange(hop) / hop * 3)
        return log_mel.exp().mean(1).repeat_interleave(hop, dim=-1) * wave.repeat(log_mel.shape[-1])


class Bands:
    """An embedding known by hand: the share of a sound's energy in three bands; classes are the squares."""

    name = "by-hand"
    labels = ("low", "middle", "high")
    fingerprint = "abc"
    calls = 0

    def embed_audio(self, waveforms, *, sample_rate=16_000):
        self.calls += 1
        power = torch.fft.rfft(waveforms.double(), n=8_000).abs().square()
        bands = torch.stack([part.sum(-1) for part in power.split([500, 1_500, 2_001], dim=-1)], dim=-1) + 1e-9
        return (bands / bands.sum(-1, keepdim=True)).sqrt().float()

    def embed_text(self, texts):
        return torch.stack([torch.eye(3)[self.labels.index(text.split()[-1])] for text in texts])

    def classify(self, waveforms, *, sample_rate=16_000):
        return self.embed_audio(waveforms, sample_rate=sample_rate).square()


class Scripted:
    """A separator or an editor by hand."""

    def __init__(self, answer, name="scripted"):
        self.answer, self.name = answer, name

    def __call__(self, waveform, words, *, sample_rate=16_000, generator=None):
        return self.answer(waveform, words)


class Dice:
    """A system that draws random numbers, about one recording at a time."""

    name = "dice"

    def __call__(self, waveform, words, *, sample_rate=16_000, generator=None):
        return waveform + 0.1 * torch.randn(waveform.shape, generator=generator)


class BatchedDice(Dice):
    """The same, about several at once, as a separator and as an editor."""

    def separate_batch(self, waveforms, words, *, sample_rate=16_000, generators=None):
        rows = zip(waveforms, words, generators, strict=True)
        return torch.stack([self(waveform, each, generator=generator) for waveform, each, generator in rows])

    edit_batch = separate_batch


def stopping(plain: Callable, at: int) -> Callable:
    """A method that asks its own process to end, as a scheduler does, at the call of that number."""
    calls = []

    def method(self, *arguments):
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, *arguments)

    return method
