"""The vocoder's card: its figures by hand, what it stands beside, and a folder that loads."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from lasslab.models.bigvgan import BigVGAN, BigVGANConfig, BigVGANVocoder, load_vocoder
from lasslab.models.checkpoints import load_weights, save_network
from lasslab.models.vocoders import GriffinLim, mel_distance
from lasslab.signal.mel import MelConfig, log_mel_spectrogram
from lasslab.training import vocoder_card
from lasslab.training.vocoder_card import CorrectedNoise, compared, main, measure, publish
from lasslab.training.vocoding import VOCODER_PRESETS

TINY = BigVGANConfig(
    upsample_rates=(5, 4, 4, 2), upsample_kernels=(15, 8, 8, 4), initial_channels=16,
    block_kernels=(3,), block_dilations=((1,),),
)  # fmt: skip


class Loudness:
    """An "embedding" of two numbers, the level of each half: enough to tell what it was given."""

    name = "halves"

    def embed_audio(self, waveforms, *, sample_rate=16_000):
        return torch.stack([half.square().mean(-1) for half in waveforms.chunk(2, dim=-1)], dim=-1) + 1e-6


class Sound:
    """What `measure` asks of a clip."""

    def __init__(self, samples: torch.Tensor) -> None:
        self.samples = samples

    def load(self) -> torch.Tensor:
        return self.samples


def clip(seed: int, *, level: float = 0.1) -> Sound:
    return Sound(level * torch.randn(16_000, generator=torch.Generator().manual_seed(seed)))


class Half:
    """A vocoder that knows the clips and gives them at half the level."""

    name, mel = "half", MelConfig()

    def __init__(self, clips) -> None:
        self.waveforms = [clip.load() for clip in clips]
        self.calls = 0

    def __call__(self, log_mel):
        self.calls += 1
        return self.waveforms[max(self.calls - 2, 0)][None] / 2  # the first call is to warm up


def run_folder(folder):
    recipe = asdict(replace(VOCODER_PRESETS["quick"], size="quick"))
    config = {
        "system": "vocoder", "architecture": "bigvgan", "network": TINY.to_dict(), "corrections": 2,
        "recipe": recipe, "provenance": {"commit": "c0ffee", "torch": "2", "device": "cpu"},
    }  # fmt: skip
    torch.manual_seed(0)
    for part in ("best", "last"):
        save_network(folder / part, BigVGAN(TINY), config)
    (folder / "run.json").write_text(json.dumps({"step": 100, "best_step": 50, "best": -0.5, "seconds": 600.0}))
    return folder


def test_figures_are_those_of_the_waveforms():
    clips = [clip(0), clip(1)]
    figures = measure({"half": Half(clips)}, clips, embedding=Loudness(), seconds=1.0)["half"]
    assert figures["mel_distance"].tolist() == pytest.approx([math.log(2)] * 2, rel=1e-4)
    assert figures["lsd"].tolist() == pytest.approx([20 * math.log10(2)] * 2, rel=1e-3)
    assert (figures["clap_score_a"] > 0.99).all() and (figures["seconds"] > 0).all()


def test_silent_clips_are_left_out():
    silent = Sound(torch.zeros(16_000))
    clips = [silent, clip(0)]
    figures = measure({"half": Half(clips[1:])}, clips, embedding=Loudness(), seconds=1.0)
    assert figures["half"]["lsd"].shape == (1,)
    with pytest.raises(ValueError, match="no clip to measure on"):
        measure({"half": Half([silent])}, [silent], embedding=Loudness())


def test_noise_through_the_corrections_is_a_line_of_its_own():
    log_mel = log_mel_spectrogram(clip(7).load()[None])[..., :100]  # other noise than its own
    distances = []
    for corrections in (1, 4):
        noise = CorrectedNoise(MelConfig(), corrections=corrections)
        assert torch.equal(noise(log_mel), noise(log_mel)) and noise(log_mel).shape == (1, 16_000)
        distances.append(mel_distance(estimate=log_mel_spectrogram(noise(log_mel))[..., :100], target=log_mel).item())
    assert distances[1] < distances[0] < 0.4


def test_it_stands_beside_itself_griffin_lim_and_noise():
    vocoder = BigVGANVocoder(BigVGAN(TINY), name="tiny", corrections=3)
    beside = compared(vocoder)
    assert list(beside) == [
        "**tiny**, 3 corrections", "tiny, the network alone", "Griffin-Lim, 32 repetitions",
        "white noise, 3 corrections",
    ]  # fmt: skip
    ours, alone, griffin_lim, noise = beside.values()
    assert ours is vocoder and alone.corrections == 0 and alone.network is vocoder.network
    assert isinstance(griffin_lim, GriffinLim) and griffin_lim.n_iter == 32 and noise.corrections == 3


@pytest.mark.parametrize(("part", "corrections"), [("last", None), ("best", 5)])
def test_a_folder_that_loads_and_a_card_with_its_figures(tmp_path, monkeypatch, part, corrections):
    monkeypatch.setattr(vocoder_card, "held_out_clips", lambda recipe, n_per_class: [clip(0), clip(1)])
    monkeypatch.setattr(vocoder_card, "SECONDS", 1.0)
    run = run_folder(tmp_path / "run")
    folder = publish(run, tmp_path / "shipped-name", part=part, corrections=corrections, embedding=Loudness())
    vocoder, card = load_vocoder(folder), (folder / "README.md").read_text()
    assert (vocoder.name, vocoder.corrections) == ("shipped-name", corrections or 2)
    load_weights(BigVGAN(TINY), folder)
    half = 2 * sum(parameter.numel() for parameter in vocoder.network.parameters())
    assert (folder / "model.safetensors").stat().st_size < 1.5 * half + 10_000, "float16"
    at = {"last": 100, "best": 50}[part]
    assert f"{at} of 100" in card and "c0ffee" in card and "lasslab train vocoder --preset quick" in card
    assert f"**shipped-name**, {corrections or 2} corrections" in card and "CLAPScore_A (halves)" in card
    rows = [line for line in card.splitlines() if line.startswith("| ") and "[" in line]
    assert len(rows) == 4 and all(row.count("[") == 3 for row in rows)
    config = json.loads((folder / "config.json").read_text())
    assert config["provenance"]["at_step"] == at and config["provenance"]["part"] == part


def test_the_command_refuses_what_is_no_training(tmp_path, monkeypatch, capsys):
    for folder, arguments, words in (
        ("nothing", [], "config.json is missing"),
        ("run", ["--corrections", "-1"], "corrections is 0 or more"),
    ):
        run_folder(tmp_path / "run")
        monkeypatch.setattr("sys.argv", ["card", str(tmp_path / folder), "-o", str(tmp_path / "out"), *arguments])
        assert main() == 2
        message = capsys.readouterr().err
        assert words in message and message.count("\n") == 1 and not (tmp_path / "out").exists()
