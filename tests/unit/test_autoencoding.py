"""Training of the mel VAE: what it hears, its loss by hand, and a short training whose scaling factor is measured."""

import math
import os
import signal
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lasslab.models import vae as vae_module
from lasslab.models.checkpoints import read_config
from lasslab.models.vae import MelVAE, VAEConfig, load_vae
from lasslab.signal.mel import log_mel_spectrogram
from lasslab.training.autoencoding import (
    VAE_PRESETS,
    Autoencoding,
    VAERecipe,
    train_vae,
    training_sounds,
    validation_sounds,
)
from lasslab.training.fit import FitConfig
from lasslab.training.recipes import PRESETS, recipe_class
from lasslab.training.runs import read_recipe

TINY = VAEConfig(channels=(4, 8), latent_channels=2, n_mels=16)
SMALL = replace(
    VAE_PRESETS["quick"],
    n_per_class=1,
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


def noise(*shape: int, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(n: int = 3, n_samples: int = 4_000) -> dict:
    return {
        "target": noise(n, n_samples),
        "interference": noise(n, n_samples, seed=1),
        "snr_db": torch.linspace(-5.0, 5.0, n),
    }


def level_db(waveform: torch.Tensor) -> torch.Tensor:
    return 10 * waveform.square().mean(-1).log10()


@pytest.fixture
def vae() -> MelVAE:
    torch.manual_seed(0)
    return MelVAE(TINY).eval()


@pytest.fixture
def tiny_size(monkeypatch):
    monkeypatch.setitem(vae_module.SIZES, "quick", TINY)


# --- what it hears


def test_mixtures_stand_at_the_systems_level_and_targets_as_loud_as_in_them():
    sounds = Autoencoding().sounds(batch())
    assert sounds.shape == (6, 4_000)
    assert level_db(sounds[:3]).tolist() == pytest.approx([-20.0] * 3, abs=1e-3)
    # the target's share of an SNR of -5, 0 and 5 dB; target and interference are nearly at right angles
    shares = [-10 * math.log10(1 + 10 ** (-snr / 10)) for snr in (-5, 0, 5)]
    assert level_db(sounds[3:]).tolist() == pytest.approx([-20 + share for share in shares], abs=0.5)


def test_levels_vary_within_their_range_and_some_sounds_are_silent():
    objective = Autoencoding(gain_db=6.0, silence=0.25)
    sounds = objective.sounds(batch(400, 500), torch.Generator().manual_seed(0))
    silent = (sounds[:400] == 0).all(-1)
    assert torch.equal(silent, (sounds[400:] == 0).all(-1)), "a mixture and its target together"
    assert 70 < silent.sum() < 130
    levels = level_db(sounds[:400][~silent])
    assert -26.01 < levels.min() < -25.5 and -14.5 < levels.max() < -13.99
    again, other = (objective.sounds(batch(400, 500), torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(sounds, again) and not torch.equal(sounds, other)


# --- the loss


def test_the_loss_is_its_two_parts(vae):
    objective = Autoencoding(beta=0.3)
    loss, parts = objective.loss(vae, batch(), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    log_mel = log_mel_spectrogram(objective.sounds(batch(), generator), vae.mel)
    estimate, posterior = vae(log_mel, generator)
    error, kl = (estimate - log_mel).abs().mean(), posterior.kl().mean()
    torch.testing.assert_close(loss, error / TINY.mel_scale + 0.3 * kl)
    torch.testing.assert_close(parts["error"], error)
    torch.testing.assert_close(parts["kl"], kl)
    assert not any(part.requires_grad for part in parts.values())


def test_validation_is_the_error_per_example_of_the_mean_latent(vae):
    objective = Autoencoding()
    figures = objective.validate(vae, batch())
    log_mel = log_mel_spectrogram(objective.sounds(batch()), vae.mel)
    expected = -(vae.decode(vae.encode(log_mel), n_frames=log_mel.shape[-1]) - log_mel).abs().mean((1, 2))
    assert figures["reconstruction"].shape == figures["kl"].shape == (6,)
    torch.testing.assert_close(figures["reconstruction"], expected)
    assert all(torch.equal(figures[name], value) for name, value in objective.validate(vae, batch()).items())
    assert objective.monitor in figures


def test_pictures_share_a_scale(vae):
    pictures = Autoencoding().picture(vae, batch())
    assert set(pictures) == {"input", "reconstruction"}
    assert all(picture.shape == (16, 26) and 0 <= picture.min() <= picture.max() <= 1 for picture in pictures.values())
    assert pictures["input"].min() == 0 and pictures["input"].max() == 1
    silent = {name: torch.zeros(1, 4_000) for name in ("mixture", "target")}
    assert all(picture.isfinite().all() for picture in Autoencoding().picture(vae, silent).values())


# --- recipes


def test_presets_are_plugged_in():
    assert PRESETS["vae"] is VAE_PRESETS and recipe_class("vae") is VAERecipe
    assert VAE_PRESETS["quick"].corpus == "synthesis", "the default needs no download"
    for recipe in VAE_PRESETS.values():
        assert not set(recipe.folds) & set(recipe.validation_folds)
    assert 1 + round(VAE_PRESETS["full"].seconds * 16_000) // 160 == 1024, "AudioLDM's 10.24 s"
    with pytest.raises(ValueError, match="size is one of quick, lab, full"):
        VAERecipe(size="huge")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta": -1.0}, "beta must be at least 0, got -1.0"),
        ({"free_nats": -1.0}, "free_nats must be at least 0"),
        ({"silence": 5.0}, "silence is a share in"),
        ({"seconds": 0.0001}, "seconds must be at least 0.064"),
        ({"adversary_learning_rate": 0.0}, "adversary_learning_rate must be positive"),
        ({"gain_db": math.nan}, "gain_db must be at least 0, got nan"),
    ],
)
def test_impossible_recipes_are_refused(change, words):
    with pytest.raises(ValueError, match=words) as error:
        replace(VAERecipe(), **change)
    assert "\n" not in str(error.value)


def test_every_setting_of_the_loop_reaches_it():
    changed = {
        field.name: (0.123 if isinstance(field.default, float) else 7)
        for field in fields(FitConfig)
        if field.name not in ("device", "mixed_precision")
    }
    config = replace(VAERecipe(), **changed, device="cpu", mixed_precision="bf16").fit_config()
    assert asdict(config) == changed | {"device": "cpu", "mixed_precision": "bf16"}


def test_training_and_validation_share_no_sound():
    training = {(clip.label, clip.seed) for clip in training_sounds(SMALL).clips}
    assert len(training_sounds(SMALL)) == 8, "each mixture is seen once"
    held_out = validation_sounds(replace(SMALL, n_validation=6))
    assert [len(each["mixture"]) for each in held_out] == [4, 2] and held_out[0]["mixture"].shape[1] == 80_000
    heard = training_sounds(replace(SMALL, seed=SMALL.seed + 1)).clips
    assert not training & {(clip.label, clip.seed) for clip in heard}


# --- a training


def scaling_factor(folder: Path) -> float:
    return read_config(folder)["network"]["scaling_factor"]


def latent_deviation(folder: Path, recipe: VAERecipe) -> float:
    vae, objective = load_vae(folder), Autoencoding()
    sounds = (objective.sounds(each) for each in validation_sounds(recipe))
    return torch.cat([vae.encode(log_mel_spectrogram(each, vae.mel)) for each in sounds]).std().item()


def test_a_training_leaves_vaes_whose_latents_have_unit_variance(tiny_size, tmp_path):
    result = train_vae(SMALL, tmp_path / "run", progress=False)
    assert result.step == 4 and result.best is not None
    for name in ("best", "last"):
        folder = tmp_path / "run" / name
        assert scaling_factor(folder) != 1
        assert latent_deviation(folder, SMALL) == pytest.approx(1, abs=1e-3)
    config = read_config(tmp_path / "run" / "best")
    assert config["system"] == "vae" and config["recipe"]["n_steps"] == 4 and config["provenance"]["commit"]
    assert read_recipe(tmp_path / "run", VAERecipe) == SMALL
    assert list((tmp_path / "run" / "pictures").glob("*.png"))
    with pytest.raises(ValueError, match="holds a training already"):
        train_vae(SMALL, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="beta=0.02"):
        train_vae(replace(SMALL, beta=0.1), tmp_path / "run", resume=True, progress=False)
    # another training starts from it, by folder and by name
    before = load_file(tmp_path / "run" / "best" / "model.safetensors")
    frozen = replace(SMALL, n_steps=1, learning_rate=1e-12, min_learning_rate=0.0, validate_every=1, save_every=1)
    train_vae(replace(frozen, start_from=str(tmp_path / "run" / "best")), tmp_path / "next", progress=False)
    after = load_file(tmp_path / "next" / "last" / "model.safetensors")
    assert all(torch.allclose(after[name], tensor, atol=1e-6) for name, tensor in before.items())
    with pytest.raises(ValueError, match="no checkpoint 'nowhere'"):
        train_vae(replace(frozen, start_from="nowhere"), tmp_path / "third", progress=False)
    assert not (tmp_path / "third").exists()


def test_a_stopped_training_has_its_factor_and_goes_on_to_the_same_numbers(tiny_size, tmp_path, monkeypatch):
    train_vae(SMALL, tmp_path / "whole", progress=False)
    plain, calls = Autoencoding.loss, []

    def stopping(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Autoencoding, "loss", stopping)
        assert train_vae(SMALL, tmp_path / "parts", progress=False).stopped
    assert scaling_factor(tmp_path / "parts" / "last") != 1, "a stopped training is usable"
    result = train_vae(SMALL, tmp_path / "parts", resume=True, progress=False)
    assert result.step == 4 and not result.stopped
    ours, theirs = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("parts", "whole"))
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert scaling_factor(tmp_path / "parts" / "last") == scaling_factor(tmp_path / "whole" / "last")


def test_the_first_nats_of_each_channel_cost_nothing(vae):
    log_mel = Autoencoding().sounds(batch())
    kl = vae.posterior(log_mel_spectrogram(log_mel, vae.mel)).channel_kl().mean(0)
    free = kl.median().item()
    generator = torch.Generator()
    losses = {
        nats: Autoencoding(beta=1.0, free_nats=nats, gain_db=0.0, silence=0.0).loss(
            vae, batch(), generator.manual_seed(0)
        )[0]
        for nats in (0.0, free)
    }
    assert (losses[free] - losses[0.0]).item() == pytest.approx((free - kl).clamp(min=0).mean().item(), rel=1e-3)


def test_a_channel_that_sleeps_gets_no_pull_towards_sleep(vae):
    objective = Autoencoding(beta=1e3, free_nats=1e3)
    loss, terms = objective.loss(vae, batch(), torch.Generator().manual_seed(0))
    without = Autoencoding(beta=0.0).loss(vae, batch(), torch.Generator().manual_seed(0))[0]
    gradients = [torch.autograd.grad(each, list(vae.parameters()), allow_unused=True) for each in (loss, without)]
    pairs = [(a, b) for a, b in zip(*gradients, strict=True) if b is not None]
    assert pairs and all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)
