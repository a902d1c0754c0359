"""Studies: variants differ in what they say and in nothing else, are trained once, scored on the same mixtures."""

import json
from dataclasses import asdict, replace

import pytest

from lasslab.data.corpora import load_corpus
from lasslab.evaluation.readme import make_table
from lasslab.training import studies
from lasslab.training.studies import BASE, STUDIES, main, run_study

SMALL = replace(
    BASE, n_steps=2, batch_size=2, seconds=0.3, n_validation=2, save_every=1, corpus="synthesis", n_per_class=1
)


@pytest.fixture
def held_out(monkeypatch):
    """Synthesised clips in the place of ESC-50."""
    clips = load_corpus("synthesis", n_per_class=1, seconds=1.0, labels=["dog", "rain", "siren"])
    monkeypatch.setattr(studies, "load_corpus", lambda name, **options: clips)


def test_every_variant_is_a_recipe_that_differs_in_one_thing():
    for name, study in STUDIES.items():
        assert not next(iter(study.variants.values())), f"{name}: the first variant is the recipe itself"
        for settings in study.variants.values():
            recipe = replace(study.base, **settings)
            changed = {key for key, value in asdict(recipe).items() if value != asdict(study.base)[key]}
            assert changed == set(settings) and len(changed) <= 1
        assert set(study.folds).isdisjoint(study.base.folds), "judged on recordings that training never hears"


def test_every_training_sees_as_many_mixtures():
    """With a filter `training_mixtures` draws at most 17,000: the studies stay below."""
    assert BASE.n_steps * BASE.batch_size <= 17_000


def test_a_study_trains_once_and_its_reports_make_a_table(tmp_path, held_out):
    study = replace(STUDIES["conditioning"], base=SMALL, n=4)
    reports = run_study(study, tmp_path / "runs", progress=False)
    (report,) = reports.values()
    assert [each["system"] for each in report["reports"]] == ["cross-attention", "FiLM", "no text"]
    assert len(report["differences"]) == 3 and report["study"]["variants"]["no text"] == {"text_encoder": "none"}
    assert all("per_item" not in each for each in report["reports"])
    states = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/last/model.safetensors")}
    assert len(states) == 3
    again = run_study(study, tmp_path / "runs", progress=False)
    assert {path: path.stat().st_mtime_ns for path in states} == states, "nothing is trained twice"
    for name, figures in again.items():
        assert [each["mean"] for each in figures["reports"]] == [each["mean"] for each in reports[name]["reports"]]
    (tmp_path / "conditioning.json").write_text(json.dumps(report))
    table = make_table(["conditioning"], None, tmp_path)
    assert "| **no text** |" in table and "oracle ratio mask" in table


def test_no_text_cannot_tell_two_queries_apart(tmp_path, held_out):
    """The control does what it is for: the answer is the same whatever is asked."""
    import torch

    from lasslab.systems.separation import load_separator

    study = replace(STUDIES["conditioning"], base=SMALL, n=2, variants={"no text": {"text_encoder": "none"}})
    run_study(study, tmp_path, progress=False)
    separator = load_separator(next(tmp_path.glob("*/last")), device="cpu")
    mixture = 0.1 * torch.randn(8_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(separator(mixture, "a dog"), separator(mixture, "rain falling"))


def test_other_settings_in_the_same_folder_are_refused(tmp_path, held_out, capsys, monkeypatch):
    study = replace(STUDIES["conditioning"], base=SMALL, n=2, variants={"cross-attention": {}})
    monkeypatch.setitem(STUDIES, "conditioning", study)
    arguments = ["conditioning", "-o", str(tmp_path / "reports"), "--runs", str(tmp_path / "runs")]
    assert main(arguments) == 0 and (tmp_path / "reports" / "conditioning.json").is_file()
    capsys.readouterr()
    assert main([*arguments, "--set", "learning_rate=1e-4"]) == 2
    message = capsys.readouterr().err.strip()
    assert "was trained with learning_rate=0.002" in message and "\n" not in message
    assert main([*arguments, "--set", "speling=1"]) == 2
