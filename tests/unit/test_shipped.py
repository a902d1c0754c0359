"""The checkpoints that ship: each loads with what it names, has a card, and all together stay small."""

import importlib
import math
import shlex
from collections import defaultdict

import pytest
import torch
from safetensors import safe_open

from lasslab.data.corpora import load_corpus
from lasslab.data.edits import at_level
from lasslab.evaluation.distances import log_mel_distance
from lasslab.evaluation.localisation import area_under_roc
from lasslab.flow import interpolate
from lasslab.models.bigvgan import load_vocoder
from lasslab.models.checkpoints import checkpoint_root, list_checkpoints, read_config
from lasslab.models.clap import load_clap
from lasslab.models.vae import load_vae
from lasslab.models.velocity import condition_on
from lasslab.signal.mel import log_mel_spectrogram
from lasslab.systems.editing import load_editor
from lasslab.systems.separation import load_separator
from lasslab.training import card, clap_card, edit_card, generation_card, vae_card, vocoder_card
from lasslab.training.editing import EDIT_PRESETS
from lasslab.training.generation_card import read_report
from lasslab.training.lineage import read_record

LOADERS = {"mask": load_separator, "flow": load_separator, "diffusion": load_separator, "clap": load_clap}
LOADERS |= {"vae": load_vae, "vocoder": load_vocoder, "flow-editor": load_editor, "diffusion-editor": load_editor}
EDITORS = [name for name in list_checkpoints() if read_config(checkpoint_root() / name)["system"].endswith("-editor")]
MOST_MEGABYTES = 80


def unheard(label: str) -> torch.Tensor:
    """Three synthesised sounds (3, T) of a seed that no training had."""
    clips = load_corpus("synthesis", labels=[label], n_per_class=3, seconds=2.55, seed=3)
    return torch.stack([clip.load()[:40_800] for clip in clips])


@pytest.mark.parametrize("name", list_checkpoints())
def test_a_checkpoint_loads_and_has_a_card_that_says_how_it_was_trained(name):
    folder = checkpoint_root() / name
    config = read_config(folder)
    assert LOADERS[config["system"]](name, device="cpu").name == name if config["system"] != "vae" else load_vae(name)
    card = (folder / "README.md").read_text()
    assert card.startswith(f"# {name}\n") and "lasslab train " in card and "## Limits" in card


@pytest.mark.parametrize(
    ("name", "report", "write"),
    [
        ("flowsep-lab", "generative", generation_card.generation_card),
        ("diffsep-lab", "generative", generation_card.generation_card),
        ("rfm-editing-lab", "editing", edit_card.edit_card),
        ("audit-lab", "editing-audit", edit_card.edit_card),
    ],
)
def test_a_card_is_what_its_configuration_and_its_report_give(name, report, write):
    """Its commands name what differs from a preset: a preset that changes makes them wrong, until cards are remade."""
    folder = checkpoint_root() / name
    with safe_open(folder / "model.safetensors", "pt") as file:
        n_parameters = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    found = read_report(checkpoint_root().parent / "reports" / f"{report}.json", name)
    assert write(name, read_config(folder), found, n_parameters) == (folder / "README.md").read_text(encoding="utf-8")


def untouched_by_figures(card: str) -> str:
    """What is before the results, and so of the configuration alone."""
    return card.partition("## Results")[0]


def test_the_card_of_a_mask_network_is_what_its_configuration_and_its_reports_give():
    reports = checkpoint_root().parent / "reports"
    for name in ("resunetpp-lab", "film-resunet-lab"):
        network = load_separator(name, device="cpu").network
        report = read_report(reports / "fold4.json", name)
        wording = read_record(reports / f"wording-{name}.json")
        n_parameters = sum(parameter.numel() for parameter in network.parameters())
        text = card.model_card(name, read_config(checkpoint_root() / name), report, wording, n_parameters=n_parameters)
        assert text == (checkpoint_root() / name / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["mel-vae-lab", "mel-vae-lab-awake", "bigvgan-lab", "clap-lab"])
def test_what_a_card_says_beside_its_figures_is_what_its_configuration_gives(name):
    """These cards measure their figures themselves."""
    config, ones = read_config(checkpoint_root() / name), torch.ones(2)
    if config["system"] == "vae":
        text = vae_card.vae_card(name, config, defaultdict(float), vae=load_vae(name))
    elif config["system"] == "vocoder":
        text = vocoder_card.vocoder_card(
            load_vocoder(name), config, {"x": defaultdict(lambda: ones)}, embedding_name="clap-lab"
        )
    else:
        run = {"step": 700, "best_step": 600, "seconds": 58 * 60}
        embedding = load_clap(name)
        text = clap_card.embedding_card(name, config, run, defaultdict(float), embedding=embedding, clips=[])
    found = (checkpoint_root() / name / "README.md").read_text(encoding="utf-8")
    assert untouched_by_figures(text) == untouched_by_figures(found)


@pytest.mark.parametrize("name", list_checkpoints())
def test_the_last_command_of_a_card_ships_what_ships(name, monkeypatch):
    """The weights alone are not the system: steps, guidance and window are not those of its training."""
    folder = checkpoint_root() / name
    config = read_config(folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("python -m lasslab.training.")]
    words = shlex.split(line)
    asked = {}
    module = importlib.import_module(words[2])
    publishes = generation_card if module is edit_card else module
    monkeypatch.setattr(publishes, "publish", lambda run, output, **said: asked.update(said, run=run, output=output))
    monkeypatch.setattr("sys.argv", words[2:])
    assert module.main() == 0
    assert asked["output"].name == name and f" -o {asked['run']}\n" in text
    if "part" in config["provenance"]:
        assert asked["part"] == config["provenance"]["part"]
        assert ("for choosing the best step" in text) is (asked["part"] == "best")
    sampled_with = {key: config.get(key) for key in generation_card.OPTIONS} if "vae" in config else {}
    beside = {"corrections": config["corrections"]} if "corrections" in config else {}
    beside |= {"share": config["provenance"]["share"]} if "share" in config["provenance"] else {}
    assert {key: asked[key] for key in sampled_with | beside} == sampled_with | beside


def test_they_stay_small():
    weights = list(checkpoint_root().rglob("*.safetensors"))
    assert weights and sum(path.stat().st_size for path in weights) < MOST_MEGABYTES * 1e6


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in list_checkpoints()
        if read_config(checkpoint_root() / name)["system"] in ("mask", "flow", "diffusion")
    ],
)
def test_a_separator_gives_back_what_it_was_given_in_shape_and_no_louder_than_it_may_be(name):
    mixture = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    estimate = load_separator(name, device="cpu")(mixture, "a dog barking")
    assert estimate.shape == mixture.shape and estimate.isfinite().all()
    assert estimate.square().mean() < 4 * mixture.square().mean()


@pytest.mark.parametrize("name", ["flowsep-lab", "diffsep-lab"])
def test_a_generator_makes_nothing_where_the_mixture_is_silent(name):
    """Told silence, the networks make sound from words alone, as they were taught: a pause must not become rain."""
    sound = 0.1 * torch.randn(24_000, generator=torch.Generator().manual_seed(0))
    silence = torch.zeros(24_000)
    system = load_separator(name, device="cpu")
    one_channel = system(torch.stack([sound, silence]), "rain falling")
    assert one_channel[0].square().mean() > 1e-6 and not one_channel[1].any()
    pause = system(torch.cat([sound, silence]), "rain falling")
    assert pause[:24_000].square().mean() > 1e-6 and not pause[25_000:].any()


@pytest.mark.parametrize("name", EDITORS)
def test_a_removal_of_what_is_not_there_changes_less_than_one_of_what_is(name):
    """A loose bound: "nearly as it was" is measured by `lasslab evaluate editing`, over a list."""
    editor = load_editor(name, device="cpu")
    rain = unheard("rain")

    def change(instruction: str) -> torch.Tensor:
        edited = editor.edit_batch(rain, [instruction] * len(rain), n_steps=10)
        return log_mel_distance(estimate=edited, target=rain, top_db=60).mean()

    absent, present = change("remove the siren wailing"), change("remove the rain falling")
    assert absent < present and absent < 10, f"{absent:.1f} dB, {present:.1f} dB"


def test_the_gate_of_the_editor_opens_where_the_sound_is_that_shall_go():
    """Near noise, where the state does not show it yet: an edit is decided there."""
    editor = load_editor("rfm-editing-lab", device="cpu")
    rain, dog = unheard("rain"), unheard("dog")
    original = torch.stack([base + at_level(sound, base, level_db=3.0) for base, sound in zip(rain, dog, strict=True)])
    with torch.inference_mode():
        told, gains = editor.codec.encode(original[:, None])
        told = told[:, 0]
        wanted = editor.codec.vae.encode(log_mel_spectrogram(gains[:, 0] * rain, editor.codec.vae.mel))
        text = editor.text_encoder(["remove the dog barking"] * len(rain))
        noise = torch.randn(told.shape, generator=torch.Generator().manual_seed(0))
        t = torch.full((len(rain),), 0.02)
        condition, _ = condition_on(told, text)
        _, gate = editor.network(interpolate(noise, wanted, t), t, **condition, with_gate=True)
    changed = (told - wanted).abs().mean(1) > EDIT_PRESETS["lab"].change
    found = area_under_roc(score=gate[:, 0].flatten(), active=changed.flatten())
    assert found > 0.75 and gate[:, 0][~changed].mean() < 0.3, (found, gate[:, 0][~changed].mean())
