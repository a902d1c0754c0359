"""The contrastive objective: its loss by hand, its ranking figures, its augmentation, and one short training."""

import math
from dataclasses import asdict, fields, replace

import pytest
import torch
from doubles import LetterEncoder
from torch import nn

from lasslab.data.corpora import Clip
from lasslab.data.synthesis import EVENT_CLASSES
from lasslab.models.checkpoints import read_config
from lasslab.models.clap import CLAP, CLAPConfig, CLAPOutput, load_clap
from lasslab.training.clap_card import measure, publish
from lasslab.training.contrastive import (
    CONTRASTIVE_PRESETS,
    Contrastive,
    ContrastiveRecipe,
    average_precision,
    contrastive_loss,
    train_contrastive,
    training_sounds,
    validation_sounds,
)
from lasslab.training.fit import FitConfig
from lasslab.training.recipes import PRESETS, recipe_class, train_recipe
from lasslab.training.runs import read_recipe

TINY = CLAPConfig(channels=(4, 8), hidden=8, dim=6, n_labels=3, text_dim=6, n_mels=16)
LABELS = ("dog", "rain", "siren")
SMALL = replace(
    CONTRASTIVE_PRESETS["quick"],
    n_per_class=1,
    seconds=0.5,
    n_steps=2,
    batch_size=4,
    log_every=1,
    validate_every=1,
    save_every=1,
    picture_every=2,
    device="cpu",
)


def noise(*shape: int, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(labels=("dog", "rain", "dog")) -> dict:
    n = len(labels)
    return {
        "target": noise(n, 8000, seed=1),
        "interference": noise(n, 8000, seed=2),
        "snr_db": torch.full((n,), 20.0),
        "label": list(labels),
        "query": [f"a {label}" for label in labels],
    }


@pytest.fixture
def objective() -> Contrastive:
    return Contrastive(LetterEncoder(), LABELS)


# --- the loss


def test_with_distinct_labels_it_is_the_loss_of_clap():
    audio, text = (nn.functional.normalize(noise(4, 5, seed=s), dim=-1) for s in (1, 2))
    loss = contrastive_loss(audio=audio, text=text, scale=torch.tensor(10.0), labels=torch.arange(4))
    similarity = 10 * audio @ text.T
    rows = -similarity.log_softmax(1).diag().mean()
    columns = -similarity.log_softmax(0).diag().mean()
    assert loss.item() == pytest.approx(((rows + columns) / 2).item(), rel=1e-6)


def test_sentences_of_one_class_are_no_mistakes_of_each_other():
    """Two dogs, one rain, and a network that is right: no loss is left but the choice between the two dogs."""
    points = torch.eye(2)[[0, 0, 1]]
    loss = contrastive_loss(audio=points, text=points, scale=torch.tensor(100.0), labels=torch.tensor([0, 0, 1]))
    assert loss.item() == pytest.approx(2 / 3 * math.log(2), abs=1e-5)
    confused = contrastive_loss(
        audio=points, text=points[[2, 1, 0]], scale=torch.tensor(100.0), labels=torch.tensor([0, 0, 1])
    )
    assert confused > 10


def test_average_precision_by_hand():
    similarity = torch.tensor([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1], [0.1, 0.2, 0.3]])
    relevant = torch.tensor([[True, False, True], [False, True, False], [False, False, True]])
    assert average_precision(similarity, relevant).tolist() == pytest.approx([(1 + 2 / 3) / 2, 1 / 2, 1.0])


def test_average_precision_equals_scikit_learn_s_definition():
    similarity = noise(5, 30, level=1.0)
    relevant = noise(5, 30, seed=9) > 0.05
    for row, wanted, got in zip(similarity, relevant, average_precision(similarity, relevant), strict=True):
        hits, total = 0, 0.0
        for rank, index in enumerate(row.argsort(descending=True).tolist(), start=1):
            if wanted[index]:
                hits += 1
                total += hits / rank
        assert got.item() == pytest.approx(total / hits)


# --- augmentation


def test_augmentation_follows_its_generator_and_leaves_the_batch_alone(objective):
    one = batch()
    before = one["target"].clone()
    first, again, other = (objective.augment(one, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(one["target"], before)


def test_augmented_levels_and_remains_stay_in_their_ranges():
    objective = Contrastive(LetterEncoder(), LABELS, gain_db=6.0, noise_db=30.0)
    one = batch(("dog",) * 200)
    for key, seed in (("target", 3), ("interference", 4)):
        one[key] = noise(200, 2000, seed=seed)
    sound = objective.augment(one, torch.Generator().manual_seed(0)).double()
    target = one["target"].double()
    gain = (sound * target).sum(-1) / target.square().sum(-1)
    level = 20 * gain.log10()
    assert -6.3 < level.min() < -5 and 5 < level.max() < 6.3
    left = 10 * ((sound - gain[:, None] * target).square().sum(-1) / (gain * gain * target.square().sum(-1))).log10()
    mixed = left > -25  # the other sound 20 dB below; noise alone is 30 to 60 dB below
    assert 60 < mixed.sum() < 140, "half of them"
    assert left.max() < -19 and (left[~mixed] < -29.5).all()


# --- the objective on a network


def test_loss_has_its_parts_and_descends(objective):
    torch.manual_seed(0)
    network = CLAP(replace(TINY, dropout=0.0))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss, parts = objective.loss(network, batch(), torch.Generator().manual_seed(0))
        assert loss.item() == pytest.approx((parts["contrast"] + parts["classes"]).item(), rel=1e-5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


class Oracle(nn.Module):
    """Points and logits given beforehand."""

    def __init__(self, audio, text, logits) -> None:
        super().__init__()
        self.config = TINY
        self.output = CLAPOutput(audio, text, logits, torch.tensor(10.0))

    def forward(self, log_mel, tokens, mask):
        return self.output


def test_validation_figures_by_hand(objective):
    """Sounds: dog, rain, dog. The second dog sounds like rain, and rain's sentence finds it first."""
    audio = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    logits = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 3, 0]])
    figures = objective.validate(Oracle(audio, text, logits), batch())
    assert figures["accuracy"].tolist() == [1, 1, 0]
    assert figures["text_to_audio"].tolist() == [1, 0, 1]
    assert figures["audio_to_text"].tolist() == [1, 1, 0]
    assert figures["average_precision"].tolist() == pytest.approx([(1 + 2 / 3) / 2, 1 / 2, (1 + 2 / 3) / 2])
    assert objective.monitor in figures
    picture = objective.picture(Oracle(audio, text, logits), batch())["similarity"]
    assert picture.shape == (3, 3) and picture.min() >= 0 and picture.max() <= 1
    assert picture[0].tolist() == pytest.approx([1.0, 0.5, 0.8]), "dog's sentence against dog, dog, rain"


class ByHand:
    """One dimension for each class; the second rain is heard as a dog."""

    labels = ("dog", "rain")
    points = torch.tensor([[1.0, 0.0], [0.1, 0.9], [0.8, 0.6]])

    def embed_audio(self, waveforms, *, sample_rate=16_000):
        return self.points

    def classify(self, waveforms, *, sample_rate=16_000):
        return self.points.softmax(-1)

    def embed_text(self, texts):
        return torch.tensor([[1.0, 0.0] if "dog" in text else [0.0, 1.0] for text in texts])


def test_the_card_s_figures_by_hand():
    names = ("dog", "rain", "rain")
    clips = [
        Clip(label=label, captions=(f"a {label}",), source=str(i), corpus="synthesis", seed=i, seconds=0.1)
        for i, label in enumerate(names)
    ]
    figures = measure(ByHand(), clips, seconds=0.1)
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["text_to_audio"] == 1 and figures["audio_to_text"] == pytest.approx(2 / 3)
    assert figures["average_precision"] == 1, "both rains come before the dog"
    assert 0 < figures["paraphrase_text_to_audio"] <= 1
    with pytest.raises(ValueError, match="no clip"):
        measure(ByHand(), [])


# --- recipes


def test_presets_are_plugged_in():
    assert PRESETS["clap"] is CONTRASTIVE_PRESETS and recipe_class("clap") is ContrastiveRecipe
    assert CONTRASTIVE_PRESETS["quick"].corpus == "synthesis", "the default needs no download"
    for recipe in CONTRASTIVE_PRESETS.values():
        assert not set(recipe.folds) & set(recipe.validation_folds)


def test_every_setting_of_the_loop_reaches_it():
    changed = {
        field.name: (0.123 if isinstance(field.default, float) else 7)
        for field in fields(FitConfig)
        if field.name not in ("device", "mixed_precision")
    }
    config = replace(ContrastiveRecipe(), **changed, device="cpu", mixed_precision="bf16").fit_config()
    assert asdict(config) == changed | {"device": "cpu", "mixed_precision": "bf16"}


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="size is one of quick, lab"):
        ContrastiveRecipe(size="huge")


def test_training_and_validation_share_no_sound():
    training = {clip.source for clip in training_sounds(SMALL).clips}
    (held_out,) = validation_sounds(SMALL)
    assert len(training) == len(EVENT_CLASSES) and held_out["target"].shape == (2 * len(EVENT_CLASSES), 80_000)
    assert set(held_out["label"]) == set(EVENT_CLASSES)
    for label, query in zip(held_out["label"], held_out["query"], strict=True):
        assert query in EVENT_CLASSES[label].captions


def test_a_training_leaves_an_embedding_that_loads(tmp_path):
    result = train_recipe(SMALL, tmp_path / "run", progress=False)
    assert result.step == 2 and result.best is not None
    assert read_recipe(tmp_path / "run", ContrastiveRecipe) == SMALL
    embedding = load_clap(tmp_path / "run" / "best")
    assert embedding.labels == tuple(EVENT_CLASSES)
    assert embedding.classify(noise(1, 16_000)).shape == (1, 36)
    config = read_config(tmp_path / "run" / "best")
    assert config["system"] == "clap" and config["recipe"]["n_steps"] == 2 and config["provenance"]["commit"]
    assert list((tmp_path / "run" / "pictures").glob("*.png"))
    destination = publish(tmp_path / "run", tmp_path / "shipped-clap")
    card = (destination / "README.md").read_text()
    assert "# shipped-clap" in card and "FAD (shipped-clap)" in card and "lasslab train clap --preset lab" in card
    assert "--set n_steps=2" in card and "2 of 2" in card and "synthesised clips of another seed" in card
    assert (destination / "model.safetensors").stat().st_size < (
        tmp_path / "run" / "best" / "model.safetensors"
    ).stat().st_size
    with pytest.raises(ValueError, match="holds a training already"):
        train_contrastive(SMALL, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="n_steps=2"):
        train_contrastive(replace(SMALL, n_steps=3), tmp_path / "run", resume=True, progress=False)
