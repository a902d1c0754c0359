"""The vocoder's training: its loss by hand, what it hears, one step against the adversary, and a short run."""

import json
import math
from dataclasses import asdict, fields, replace

import pytest
import torch
from torch import nn
from torch.utils.data import default_collate

from lasslab.data.corpora import Clip
from lasslab.models import bigvgan
from lasslab.models.bigvgan import BigVGAN, BigVGANConfig, load_vocoder
from lasslab.models.checkpoints import read_config
from lasslab.models.discriminators import DiscriminatorConfig, Discriminators, discriminator_loss
from lasslab.models.vocoders import match_mel, mel_distance
from lasslab.signal.mel import MelConfig, log_mel_spectrogram, mel_filterbank
from lasslab.signal.spectral import stft
from lasslab.training.fit import FitConfig
from lasslab.training.recipes import PRESETS, recipe_class, train_recipe
from lasslab.training.runs import read_recipe
from lasslab.training.vocoding import (
    SCALES,
    VOCODER_PRESETS,
    MultiScaleMel,
    VocoderRecipe,
    Vocoding,
    griffin_lim_distance,
    train_vocoder,
    training_sounds,
    validation_sounds,
)

TINY = BigVGANConfig(
    upsample_rates=(5, 4, 4, 2), upsample_kernels=(15, 8, 8, 4), initial_channels=16,
    block_kernels=(3,), block_dilations=((1,),),
)  # fmt: skip
JUDGES = DiscriminatorConfig(periods=(2,), period_channels=(4, 4), resolutions=((256, 64),), resolution_channels=2)
SMALL = replace(
    VOCODER_PRESETS["quick"],
    n_per_class=1,
    seconds=0.1,
    n_steps=3,
    adversary_from=1,
    batch_size=2,
    n_validation=1,
    log_every=1,
    validate_every=2,
    save_every=1,
    picture_every=3,
    device="cpu",
)
MEL = MelConfig()


def noise(*shape: int, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(n: int = 3, n_samples: int = 3_200) -> dict:
    return {
        "target": noise(n, n_samples),
        "interference": noise(n, n_samples, seed=1),
        "snr_db": torch.zeros(n),
    }


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the loss


def test_the_loss_is_the_mean_over_scales():
    real, made = noise(2, 3_200), noise(2, 3_200, seed=1, level=0.2)
    expected = 0.0
    for n_fft, hop_length, n_mels in SCALES:
        filters = mel_filterbank(MelConfig(n_fft=n_fft, hop_length=hop_length, n_mels=n_mels))
        mels = [
            (filters @ stft(w, n_fft=n_fft, hop_length=hop_length).abs()).clamp_min(1e-5).log() for w in (real, made)
        ]
        expected = expected + (mels[0] - mels[1]).abs().mean() / len(SCALES)
    distance = MultiScaleMel(MEL)
    assert distance(estimate=made, target=real) == pytest.approx(expected.item(), rel=1e-4)
    assert distance(estimate=real, target=real) == 0
    assert (MEL.n_fft, MEL.hop_length, MEL.n_mels) in SCALES, "what the vocoder reads is one of them"


def test_half_the_level_is_log_2():
    real = noise(1, 16_000)
    assert MultiScaleMel(MEL)(estimate=real / 2, target=real) == pytest.approx(math.log(2), rel=1e-4)
    target = log_mel_spectrogram(real)
    assert mel_distance(estimate=log_mel_spectrogram(real / 2), target=target).item() == pytest.approx(math.log(2))


def test_silence_has_a_slope_that_is_finite():
    made = torch.zeros(1, 3_200).requires_grad_()
    MultiScaleMel(MEL)(estimate=made, target=noise(1, 3_200)).backward()
    assert made.grad.isfinite().all()


def test_the_loss_has_an_adversary_s_terms_only_where_there_is_one():
    objective, network = Vocoding(MEL, adversarial=0.3, features=0.2), BigVGAN(TINY)
    alone, terms = objective.loss(network, batch(), generator())
    assert set(terms) == {"mel"} and alone.item() == terms["mel"].item() and objective.last == {}
    total, terms = objective.loss(network, batch(), generator(), adversary=Discriminators(JUDGES))
    assert total.item() == pytest.approx((terms["mel"] + 0.3 * terms["adversarial"] + 0.2 * terms["features"]).item())
    assert terms["mel"].item() == alone.item(), "the same sounds from the same generator"


def test_the_adversary_judges_what_the_loss_made():
    objective, network, judges = Vocoding(MEL), BigVGAN(TINY), Discriminators(JUDGES)
    objective.loss(network, batch(), generator(), adversary=judges)
    real, made = objective.last["real"], objective.last["made"]
    assert torch.equal(real, objective.sounds(batch(), generator())) and not made.requires_grad
    torch.testing.assert_close(made, network(objective.log_mel(real)).detach())
    expected = discriminator_loss(real=judges(real), generated=judges(made))
    torch.testing.assert_close(objective.adversary_loss(judges), expected, atol=1e-5, rtol=1e-4)


def test_steps_on_one_batch_lower_the_loss():
    objective, network = Vocoding(MEL), BigVGAN(TINY)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(12):
        loss, _ = objective.loss(network, batch(), generator(4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0] and losses[1] < losses[0]


def test_the_adversary_learns_to_tell():
    objective, network, judges = Vocoding(MEL), BigVGAN(TINY), Discriminators(JUDGES)
    objective.loss(network, batch(), generator(), adversary=judges)
    optimiser = torch.optim.Adam(judges.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = objective.adversary_loss(judges)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


# --- what it hears


def test_shares_of_sounds_are_as_asked_for():
    n = 400
    many = batch(n, 320)
    singles = Vocoding(MEL, mixtures=0.0, silences=0.0, gain_db=0.0).sounds(many, generator())
    peak = many["target"].abs().amax(dim=-1, keepdim=True)
    torch.testing.assert_close(singles, many["target"] / peak)
    mixed = Vocoding(MEL, mixtures=0.25, silences=0.0, gain_db=0.0).sounds(many, generator())
    share = ((mixed - singles).abs().amax(dim=-1) > 1e-3).float().mean().item()
    assert 0.18 < share < 0.32
    gated = Vocoding(MEL, mixtures=0.0, silences=0.5, gain_db=0.0).sounds(many, generator())
    silent = gated == 0
    assert 0.4 < silent.any(dim=-1).float().mean() < 0.6
    edges = (silent[:, 1:] != silent[:, :-1]).sum(dim=-1)
    assert edges.max() <= 2, "one span"
    torch.testing.assert_close(gated[~silent], singles[~silent])


def test_levels_are_spread_evenly_in_decibels():
    sounds = Vocoding(MEL, silences=0.0, gain_db=40.0).sounds(batch(500, 320), generator())
    peaks = 20 * sounds.abs().amax(dim=-1).log10()
    assert -40 <= peaks.min() < -38 and -2 < peaks.max() <= 1e-4 and peaks.mean() == pytest.approx(-20, abs=1.5)


def test_the_generator_decides_the_sounds():
    objective = Vocoding(MEL)
    first, again, other = (objective.sounds(batch(), generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    before = batch()
    objective.sounds(before, generator())
    assert torch.equal(before["target"], batch()["target"]), "the batch is left as it was"


# --- validation


class Echo(nn.Module):
    """A network that knows the answer, at another level."""

    def __init__(self, waveform: torch.Tensor, gain: float) -> None:
        super().__init__()
        self.waveform, self.gain = waveform, gain

    def forward(self, log_mel):
        return self.gain * self.waveform


def test_validation_is_minus_the_mel_distance():
    objective, sounds = Vocoding(MEL, corrections=1), noise(2, 16_000)
    given = {"target": sounds, "griffin_lim_mel_similarity": torch.tensor([-0.1, -0.2])}
    figures = objective.validate(Echo(sounds, 0.5), given)
    assert set(figures) == {"mel_similarity", "corrected_mel_similarity", "griffin_lim_mel_similarity"}
    assert figures["mel_similarity"].tolist() == pytest.approx([-math.log(2)] * 2, rel=1e-4)
    log_mel = objective.log_mel(sounds)
    corrected = mel_distance(estimate=objective.log_mel(match_mel(sounds / 2, log_mel)), target=log_mel)
    assert torch.equal(figures["corrected_mel_similarity"], -corrected) and corrected.max() < 0.05
    assert figures["griffin_lim_mel_similarity"].tolist() == pytest.approx([-0.1, -0.2])
    assert objective.monitor in figures


def test_griffin_lim_s_distance_is_that_of_its_waveform():
    sounds = noise(1, 8_000)
    nearer, farther = (griffin_lim_distance(sounds, MEL, n_iter=n_iter) for n_iter in (32, 0))
    assert nearer.shape == (1,) and 0 < nearer.item() < 0.15 < farther.item()


def test_pictures_are_spectrograms_between_0_and_1():
    objective, sounds = Vocoding(MEL), noise(2, 8_000)
    pictures = objective.picture(Echo(sounds[:1], 1.0), {"target": sounds})
    assert list(pictures) == ["target", "prediction", "corrected"]
    for picture in pictures.values():
        assert picture.shape == (64, 50) and picture.min() >= 0 and picture.max() <= 1
    assert torch.equal(pictures["target"], pictures["prediction"])


# --- recipes


def test_the_presets_are_there_and_grow():
    assert (
        list(VOCODER_PRESETS) == ["quick", "lab", "lab_second", "lab_long", "full"]
        and PRESETS["vocoder"] is VOCODER_PRESETS
    )
    assert recipe_class("vocoder") is VocoderRecipe
    quick, lab, full = (VOCODER_PRESETS[name] for name in ("quick", "lab", "full"))
    assert quick.n_steps < lab.n_steps < full.n_steps and (quick.size, lab.size, full.size) == ("quick", "lab", "full")
    assert quick.corpus == "synthesis", "the default needs no download"
    names = {field.name for field in fields(FitConfig)}
    for recipe in VOCODER_PRESETS.values():
        assert asdict(recipe.fit_config()) == {name: getattr(recipe, name) for name in names}
        assert recipe.adversary_from < recipe.n_steps, "every preset shows an adversary"


def test_the_second_training_goes_on_from_the_first():
    first, second = VOCODER_PRESETS["lab"], VOCODER_PRESETS["lab_second"]
    assert second.start_from == "runs/bigvgan-lab/last" and second.size == first.size and second.seed != first.seed


def test_the_full_preset_is_bigvgan_s():
    full = VOCODER_PRESETS["full"]
    assert (full.n_steps, full.batch_size, full.learning_rate, full.adversary_from) == (1_000_000, 32, 1e-4, 0)
    assert full.loss_adversarial == pytest.approx(1 / 45) and full.loss_features == pytest.approx(2 / 45)
    assert full.corrections == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": "huge"}, "size is one of quick, lab, full"),
        ({"seconds": 0.123}, "whole number of frames of 0.01 s, got 0.123"),
        ({"seconds": 0.0}, "whole number of frames"),
        ({"mixtures": 1.5}, "mixtures is a share"),
        ({"silences": -0.1}, "silences is a share"),
        ({"corrections": -1}, "corrections is 0 or more"),
        ({"adversary_learning_rate": -1.0}, "adversary_learning_rate must be positive, got -1.0"),
        ({"adversary_from": -1}, "adversary_from must be at least 0"),
        ({"loss_features": -0.1}, "loss_features must be at least 0"),
        ({"gain_db": math.inf}, "gain_db must be a finite number"),
        ({"n_steps": 0}, "n_steps must be at least 1"),
    ],
)
def test_impossible_recipes_are_refused(change, words):
    with pytest.raises(ValueError, match=words) as error:
        replace(SMALL, **change)
    assert "\n" not in str(error.value)


def test_training_hears_the_recipe_s_corpora(monkeypatch):
    asked = []

    def corpus(name, **settings):
        asked.append((name, settings["folds"]))
        return [Clip(label, (f"a {label}",), f"{name}/{label}/0", name, seed=0) for label in ("dog", "rain")]

    monkeypatch.setattr("lasslab.training.sounds.load_corpus", corpus)
    dataset = training_sounds(replace(SMALL, corpus="synthesis+esc50", batch_size=3, accumulate=2))
    assert asked == [("synthesis", None), ("esc50", (1, 2, 3))]
    assert len(dataset) == 3 * 3 * 2 and dataset[0]["target"].shape == (1_600,)


def test_validation_sounds_are_others_and_bring_griffin_lim_along():
    (sounds,) = validation_sounds(SMALL)
    assert sounds["target"].shape == (1, 80_000)
    torch.testing.assert_close(sounds["griffin_lim_mel_similarity"], -griffin_lim_distance(sounds["target"], MEL))
    training = training_sounds(SMALL)
    assert training.clips and not any(torch.equal(sounds["target"][0], clip.load()[:80_000]) for clip in training.clips)


# --- a training


def test_a_training_leaves_a_vocoder(tmp_path):
    result = train_recipe(SMALL, tmp_path / "run", progress=False)
    assert result.step == 3 and result.best is not None
    losses = [row for row in result.history if "loss" in row]
    assert ["adversary" in row for row in losses] == [False, True, True], "from step adversary_from on"
    for name in ("best", "last"):
        vocoder = load_vocoder(tmp_path / "run" / name)
        assert vocoder.corrections == SMALL.corrections and vocoder(torch.zeros(1, 64, 5)).shape == (1, 800)
    config = read_config(tmp_path / "run" / "last")
    assert config["system"] == "vocoder" and config["recipe"]["adversary_from"] == 1
    assert read_recipe(tmp_path / "run", VocoderRecipe) == SMALL
    assert (tmp_path / "run" / "pictures" / "step_0000003.png").is_file()


def test_a_resumed_training_reaches_the_same_numbers(tmp_path):
    train_vocoder(SMALL, tmp_path / "whole", progress=False)
    shorter = replace(SMALL, validate_every=0)
    stopped = {"left": 2}

    class Stopping(Vocoding):
        def loss(self, *arguments, **keywords):
            stopped["left"] -= 1
            if stopped["left"] < 0:
                raise KeyboardInterrupt
            return super().loss(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("lasslab.training.vocoding.Vocoding", Stopping)
        train_vocoder(shorter, tmp_path / "parts", progress=False)
    assert json.loads((tmp_path / "parts" / "run.json").read_text())["step"] == 2
    train_vocoder(shorter, tmp_path / "parts", resume=True, progress=False)
    ours, theirs = (tmp_path / name / "last" / "model.safetensors" for name in ("whole", "parts"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_training_may_start_from_a_checkpoint(tmp_path):
    train_vocoder(replace(SMALL, n_steps=1, adversary_from=1), tmp_path / "first", progress=False)
    second = replace(SMALL, n_steps=1, learning_rate=1e-12, start_from=str(tmp_path / "first" / "last"), seed=5)
    train_vocoder(second, tmp_path / "second", progress=False)
    log_mel = torch.zeros(1, 64, 5)
    waveforms = [load_vocoder(tmp_path / name / "last")(log_mel) for name in ("first", "second")]
    torch.testing.assert_close(*waveforms, atol=1e-5, rtol=1e-3)


def test_without_an_adversary_none_is_kept(tmp_path):
    train_vocoder(replace(SMALL, n_steps=1, adversary_from=1), tmp_path / "run", progress=False)
    state = torch.load(tmp_path / "run" / "training_state.pt", weights_only=True)
    assert state["adversary"] is None


def test_the_command_trains_a_vocoder(tmp_path, lasslab):
    settings = {"n_steps": 1, "adversary_from": 0, "batch_size": 2, "seconds": 0.1, "n_per_class": 1, "n_validation": 1}
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    code, out, err = lasslab("train", "vocoder", "--preset", "quick", *options, "-o", tmp_path / "run")
    assert code == 0, err
    assert "step 1" in out and load_vocoder(tmp_path / "run" / "best").name == "best"


def test_the_command_refuses_a_wrong_setting(tmp_path, refused):
    refused("train", "vocoder", "--set", "seconds=0.123", "-o", tmp_path / "run", words=["whole number of frames"])
    refused(
        "train", "vocoder", "--set", "start_from=nothing", "-o", tmp_path / "run", words=["no checkpoint 'nothing'"]
    )


def test_collated_items_are_what_the_objective_reads():
    dataset = training_sounds(SMALL)
    items = default_collate([dataset[k] for k in range(2)])
    sounds = Vocoding(bigvgan.SIZES["quick"].mel()).sounds(items, generator())
    assert sounds.shape == (2, 1_600) and sounds.isfinite().all()
