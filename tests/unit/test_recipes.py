"""Recipes: presets, settings as text, which sounds they hear, and a training from start to a separator."""

import json
import math
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lasslab.models.checkpoints import read_config
from lasslab.systems.separation import load_separator
from lasslab.training.fit import FitConfig
from lasslab.training.masking import (
    MASKING_PRESETS,
    MaskingRecipe,
    train_masking,
    training_mixtures,
    validation_batches,
)
from lasslab.training.objectives import MaskingWeights
from lasslab.training.recipes import PRESETS, train_recipe
from lasslab.training.runs import change_recipe, read_recipe
from lasslab.training.sounds import CorpusWarning, held_out_clips, training_clips

SMALL = replace(
    MASKING_PRESETS["quick"],
    n_per_class=1,
    seconds=0.5,
    n_steps=2,
    batch_size=2,
    n_validation=2,
    log_every=1,
    validate_every=1,
    save_every=1,
    picture_every=0,
    device="cpu",
)


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory) -> str:
    """A tiny T5 in a folder: training needs an encoder, not a good one."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<pad>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(["a dog barking rain falling siren"], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    T5EncoderModel(T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(
        folder
    )
    return str(folder)


@pytest.fixture(scope="module")
def trained(text_encoder, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "small"
    train_masking(replace(SMALL, text_encoder=text_encoder), directory, progress=False)
    return directory


@pytest.fixture
def esc50(tmp_path, monkeypatch) -> Path:
    """Four folds of three classes, one recording each, as `LASSLAB_DATA`."""
    folder = tmp_path / "ESC-50"
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in (1, 2, 3, 4):
        for target, label in enumerate(("dog", "rain", "siren")):
            name = f"{fold}-{label}.wav"
            noise = np.random.default_rng([fold, target]).normal(scale=0.1, size=16_000)
            soundfile.write(folder / "audio" / name, noise, 16_000)
            rows.append(f"{name},{fold},{target},{label},True,{fold}{label},A")
    (folder / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.setenv("LASSLAB_DATA", str(tmp_path))
    return folder


# --- presets


def test_the_presets_are_there_and_grow():
    assert list(MASKING_PRESETS) == ["quick", "lab", "lab_second", "full"] and PRESETS["masking"] is MASKING_PRESETS
    sizes = {name: MASKING_PRESETS[name] for name in ("quick", "lab", "full")}
    work = [recipe.n_steps * recipe.batch_size * recipe.seconds for recipe in sizes.values()]
    assert work == sorted(work)
    assert [recipe.size for recipe in sizes.values()] == list(sizes)
    assert MASKING_PRESETS["quick"].corpus == "synthesis", "the default needs no download"


def test_the_second_part_continues_the_first_with_harder_mixtures():
    first, second = MASKING_PRESETS["lab"], MASKING_PRESETS["lab_second"]
    assert not first.start_from and second.start_from and second.seed != first.seed
    assert second.absent > 0 and second.third_source > 0 and second.reword > 0 and second.loss_absent > 0
    assert (second.architecture, second.size, second.folds) == (first.architecture, first.size, first.folds)


def test_the_full_preset_is_the_thesis_s():
    full = MASKING_PRESETS["full"]
    assert full.n_steps == 17_000 * 200 // 16 and full.batch_size == 16
    assert full.learning_rate == 1e-4 and full.min_learning_rate == 1e-6
    assert full.weight_decay == 0 and full.warmup_steps == 0, "Adam with a cosine"
    assert full.equal_loudness and full.max_similarity == 0.75 and full.seconds == 15
    assert full.text_encoder.startswith("google/flan-t5")
    assert full.weights() == MaskingWeights(spectral_convergence=1, log_magnitude=1, waveform=0, sdr=0, si_sdr=0)


def test_validation_never_hears_a_training_fold():
    for recipe in MASKING_PRESETS.values():
        assert not set(recipe.folds) & set(recipe.validation_folds)


def test_every_setting_of_the_loop_and_of_the_loss_reaches_it():
    changed = {
        field.name: (0.123 if isinstance(field.default, float) else 7)
        for field in fields(FitConfig)
        if field.name not in ("device", "mixed_precision")
    }
    config = replace(MaskingRecipe(), **changed, device="cpu", mixed_precision="bf16").fit_config()
    assert asdict(config) == changed | {"device": "cpu", "mixed_precision": "bf16"}
    losses = {"spectral_convergence": 1.5, "log_magnitude": 2.5, "waveform": 3.5, "sdr": 4.5, "si_sdr": 5.5}
    weights = replace(MaskingRecipe(), **{f"loss_{name}": value for name, value in losses.items()}).weights()
    assert {name: getattr(weights, name) for name in losses} == losses


# --- settings as text


def test_settings_are_read_by_their_type():
    recipe = change_recipe(
        MaskingRecipe(),
        ["n_steps=12", " seconds = 1.5", "learning_rate=1e-4", "folds=1,4", "validation_folds=(3)", "shift=False",
         "equal_loudness=true", "corpus=synthesis", "snr_low=-3", "mixed_precision=bf16"],
    )  # fmt: skip
    expected = replace(
        MaskingRecipe(), n_steps=12, seconds=1.5, learning_rate=1e-4, folds=(1, 4), validation_folds=(3,), shift=False,
        equal_loudness=True, corpus="synthesis", snr_low=-3.0, mixed_precision="bf16",
    )  # fmt: skip
    assert recipe == expected
    assert all(type(getattr(recipe, field.name)) is type(field.default) for field in fields(recipe))
    assert change_recipe(MaskingRecipe(), []) == MaskingRecipe()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("n_step=12", "such as n_steps"),
        ("n_steps", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("", "KEY=VALUE"),
        ("n_steps=many", "expected a value like"),
        ("n_steps=1.5", "expected a value like"),
        ("n_steps=0", "n_steps must be at least 1"),
        ("seconds=long", "expected a value like"),
        ("folds=one", "numbers like 1,2,3"),
        ("shift=maybe", "expected a value like True"),
        ("size=huge", "size is one of quick, lab, full"),
        ("device=tpu", "device is"),
        ("learning_rate=nan", "learning_rate must be positive"),
    ],
)
def test_a_setting_that_does_not_read_is_refused(setting, words):
    with pytest.raises(ValueError, match=words) as error:
        change_recipe(MaskingRecipe(), [setting])
    one_line(error)


# --- what is heard


def test_labels_are_equally_likely_within_a_corpus(esc50):
    recipe = replace(SMALL, corpus="synthesis+esc50", n_per_class=2, synthesis_share=0.35)
    clips, weights = training_clips(recipe)
    assert len(clips) == len(weights) and sum(weights) == pytest.approx(1)
    share = {"synthesis": 0.0, "esc50": 0.0}
    per_label: dict[tuple[str, str], float] = {}
    for clip, weight in zip(clips, weights, strict=True):
        share[clip.corpus] += weight
        per_label[clip.corpus, clip.label] = per_label.get((clip.corpus, clip.label), 0) + weight
    assert share == {"synthesis": pytest.approx(0.35), "esc50": pytest.approx(0.65)}
    for corpus in share:
        values = [value for (name, _), value in per_label.items() if name == corpus]
        assert max(values) == pytest.approx(min(values))
    assert {clip.fold for clip in clips if clip.corpus == "esc50"} == {1, 2, 3}


@pytest.fixture
def mine(esc50) -> Path:
    """An own folder of two classes beside ESC-50."""
    folder = esc50.parent / "mine"
    folder.mkdir()
    rows = ["filename,caption,label"]
    for number, label in enumerate(("kettle", "kettle", "bell")):
        noise = np.random.default_rng(number).normal(scale=0.1, size=16_000)
        soundfile.write(folder / f"{number}.wav", noise, 16_000)
        rows.append(f"{number}.wav,a {label} is heard,{label}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize(
    ("corpus", "shares"),
    [
        ("synthesis+mine", {"synthesis": 0.4, "mine": 0.6}),
        ("synthesis+esc50+mine", {"synthesis": 0.4, "esc50": 0.3, "mine": 0.3}),
        ("esc50+mine", {"esc50": 0.5, "mine": 0.5}),
        ("mine", {"mine": 1.0}),
    ],
)
def test_corpora_beside_synthesis_share_what_it_leaves(mine, corpus, shares):
    clips, weights = training_clips(replace(SMALL, corpus=corpus, synthesis_share=0.4))
    for name, share in shares.items():
        of_name = [weight for clip, weight in zip(clips, weights, strict=True) if clip.corpus == name]
        assert sum(of_name) == pytest.approx(share)
    assert sum(weights) == pytest.approx(1)


@pytest.mark.parametrize(("corpus", "on"), [("mine", "synthesised sounds"), ("esc50+mine", "folds of ESC-50")])
def test_what_an_own_folder_is_validated_on_is_told(mine, corpus, on, recwarn):
    held_out_clips(replace(SMALL, corpus=corpus))
    (said,) = recwarn.list
    assert said.category is CorpusWarning and "nothing of mine is held out" in str(said.message)
    assert on in str(said.message)


def test_without_an_own_folder_nothing_is_told(esc50, recwarn):
    recipe = replace(SMALL, corpus="synthesis+esc50")
    training_clips(recipe)
    held_out_clips(recipe)
    assert not recwarn.list


def test_a_folder_whose_name_holds_another_corpus_is_not_that(mine, recwarn):
    mine.rename(mine.parent / "my-esc50")
    assert {clip.corpus for clip in held_out_clips(replace(SMALL, corpus="my-esc50"))} == {"synthesis"}


def test_folds_of_a_corpus_that_is_not_heard_may_be_anything():
    assert replace(SMALL, corpus="synthesis", folds=(4,)).folds == (4,)


def test_every_mixture_of_a_run_is_there_once():
    recipe = replace(SMALL, n_steps=7, batch_size=3, accumulate=2)
    assert len(training_mixtures(recipe)) == 42
    assert len(training_mixtures(replace(recipe, max_similarity=0.9, n_steps=1))) == 6


def test_the_range_of_levels_and_the_length_reach_the_mixtures():
    dataset = training_mixtures(replace(SMALL, snr_low=2.0, snr_high=3.0, n_steps=4))
    items = [dataset[index] for index in range(8)]
    assert all(2 <= item["snr_db"] <= 3 and item["target"].shape == (8_000,) for item in items)
    fixed = training_mixtures(replace(SMALL, equal_loudness=True))
    assert fixed.snr_db is None


def test_validation_is_fixed_at_0_db_and_unheard(esc50):
    recipe = replace(SMALL, corpus="synthesis+esc50", n_validation=10)
    batches = validation_batches(recipe)
    assert [len(batch["query"]) for batch in batches] == [8, 2]
    for batch in batches:
        assert batch["mixture"].shape[1] == 5 * 16_000
        ratio = batch["target"].square().sum(-1) / batch["interference"].square().sum(-1)
        assert torch.allclose(ratio, torch.ones_like(ratio), rtol=1e-3)
        assert all(a != b for a, b in zip(batch["label"], batch["interference_label"], strict=True))
        assert set(batch["label"]) <= {"dog", "rain", "siren"}, "real recordings where there are some"
    again = validation_batches(replace(recipe, n_steps=50, batch_size=4))
    assert torch.equal(batches[0]["mixture"], again[0]["mixture"])
    missing = replace(recipe, validation_folds=(9,))
    with pytest.raises(ValueError, match="asked for"):
        validation_batches(missing)


def test_synthesised_validation_clips_are_not_training_clips(monkeypatch):
    heard = []
    from lasslab.data.corpora import Clip

    load = Clip.load
    monkeypatch.setattr(Clip, "load", lambda clip, **rate: heard.append((clip.label, clip.seed)) or load(clip, **rate))
    recipe = replace(SMALL, n_validation=4, n_per_class=100)
    validation_batches(recipe)
    clips, _ = training_clips(recipe)
    assert heard and not set(heard) & {(clip.label, clip.seed) for clip in clips}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"corpus": "esc51"}, "unknown corpus 'esc51'"),
        ({"corpus": ""}, "unknown corpus ''"),
        ({"corpus": "synthesis+"}, "unknown corpus ''"),
        ({"corpus": "esc50", "folds": (1, 7)}, "asked for"),
        ({"corpus": "esc50", "folds": ()}, "asked for"),
        ({"seconds": math.inf}, "seconds"),
        ({"seconds": -1.0}, "seconds"),
        ({"snr_low": 5.0, "snr_high": -5.0}, "snr_db"),
        ({"n_per_class": 0}, "n_per_class"),
        ({"max_similarity": 2.0}, "max_similarity"),
        ({"corpus": "synthesis+esc50", "synthesis_share": 1.5}, "synthesis_share is a share in"),
        ({"corpus": "synthesis+nosuch"}, "unknown corpus 'nosuch': choose one of"),
        ({"corpus": "esc50", "folds": (1, 4)}, "fold 4 is in folds and in validation_folds"),
        ({"loss_sdr": -1.0}, "loss_sdr must be at least 0"),
        ({"loss_sdr": math.nan}, "loss_sdr must be at least 0, got nan"),
        ({"text_encoder": "flan"}, "unknown text encoder 'flan'"),
    ],
    ids=str,
)
def test_a_training_that_cannot_be_leaves_nothing(tmp_path, esc50, text_encoder, change, words):
    directory = tmp_path / "run"
    with pytest.raises(ValueError, match=words) as error:
        train_masking(replace(SMALL, **({"text_encoder": text_encoder} | change)), directory, progress=False)
    one_line(error)
    assert not directory.exists()


def test_a_missing_corpus_may_be_put_there_and_the_training_started(tmp_path, monkeypatch, text_encoder):
    monkeypatch.setenv("LASSLAB_DATA", str(tmp_path))
    recipe = replace(SMALL, corpus="esc50", text_encoder=text_encoder, n_steps=1)
    with pytest.raises(ValueError, match="LASSLAB_DATA"):
        train_masking(recipe, tmp_path / "run", progress=False)
    result = train_masking(replace(recipe, corpus="synthesis"), tmp_path / "run", progress=False)
    assert result.step == 1


# --- from start to a separator


def test_a_training_becomes_a_separator(trained, text_encoder):
    assert {path.name for path in trained.iterdir()} >= {"best", "last", "recipe.json", "run.json", "history.jsonl"}
    config = read_config(trained / "best")
    assert config["text_encoder"] == text_encoder and config["network"]["text_dim"] == 8
    assert config["recipe"]["n_steps"] == 2 and config["provenance"]["torch"] == torch.__version__
    waveform = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    outputs = []
    for name in ("best", "last"):
        separator = load_separator(trained / name, device="cpu")
        outputs.append(separator(waveform, "a dog barking"))
        assert outputs[-1].shape == waveform.shape and outputs[-1].isfinite().all()
        assert 0 < outputs[-1].abs().max() <= 2 * waveform.abs().max()
        assert not torch.equal(outputs[-1], separator(waveform, "rain falling")), "the words matter"
    history = [json.loads(line) for line in (trained / "history.jsonl").read_text().splitlines()]
    best = max(row["validation"]["sdri"] for row in history if "validation" in row)
    assert json.loads((trained / "run.json").read_text())["best"] == best


def test_the_first_loss_is_the_recipe_s(trained, text_encoder, tmp_path):
    """Initial weights, mixtures and loss come from the recipe alone."""
    torch.manual_seed(99)
    train_recipe(replace(SMALL, text_encoder=text_encoder), tmp_path / "again", progress=False)
    rows = [
        [
            {key: value for key, value in json.loads(line).items() if key != "seconds"}
            for line in (directory / "history.jsonl").read_text().splitlines()
        ]
        for directory in (trained, tmp_path / "again")
    ]
    assert rows[0] == rows[1]
    terms = {"spectral_convergence": 0.5, "log_magnitude": 0.1, "sdr": 1.0, "si_sdr": 0.25}
    first = rows[0][0]
    assert first["loss"] == pytest.approx(sum(weight * first[name] for name, weight in terms.items()), abs=1e-4)


def test_the_recipe_is_kept_and_compared(trained, text_encoder):
    recipe = replace(SMALL, text_encoder=text_encoder)
    assert read_recipe(trained, MaskingRecipe) == recipe
    before = (trained / "training_state.pt").read_bytes()
    result = train_masking(replace(recipe, log_every=5, n_workers=1), trained, resume=True, progress=False)
    assert result.step == 2 and result.history, "what does not touch the numbers may change"
    for change in ({"n_per_class": 2}, {"loss_sdr": 0.0}, {"seconds": 1.0}, {"n_steps": 3}):
        (name,) = change
        with pytest.raises(ValueError, match=f"was trained with {name}={getattr(recipe, name)!r}") as error:
            train_masking(replace(recipe, **change), trained, resume=True, progress=False)
        one_line(error)
    with pytest.raises(ValueError, match="holds a training already"):
        train_masking(recipe, trained, progress=False)
    assert (trained / "training_state.pt").read_bytes() == before


def test_nothing_to_resume_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"nothing to resume: .*recipe\.json is missing") as error:
        train_masking(SMALL, tmp_path / "none", resume=True)
    one_line(error)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"no_such_setting": 1}', '{"n_steps": 0}', '{"size": 3}'])
def test_a_spoiled_recipe_is_refused(tmp_path, content):
    (tmp_path / "recipe.json").write_text(content)
    with pytest.raises(ValueError, match=r"recipe\.json is not a MaskingRecipe") as error:
        read_recipe(tmp_path, MaskingRecipe)
    one_line(error)
