"""Attention while a network samples: one table whose rows share one unit, and how well it finds a sound."""

import math

import pytest
import torch
from doubles import Hum
from sklearn.metrics import roc_auc_score

from lasslab.evaluation.localisation import active_points, area_under_roc, levels, localisation, localise
from lasslab.models.text import load_text_encoder
from lasslab.models.vae import MelVAE, VAEConfig
from lasslab.models.velocity import VelocityConfig, VelocityNetwork
from lasslab.systems.attention import Attention, find_tokens, normalised, record_attention, record_attentions
from lasslab.systems.editing import FlowEditor, InversionEditor

VAE = VAEConfig(channels=(4, 8), latent_channels=2, n_mels=16)
TINY = VelocityConfig(channels=(8, 16), attention=(True, True), head_width=8, latent_channels=2, text_dim=384)
INSTRUCTION = "remove the dog barking"


def editor(kind: type = FlowEditor, **settings) -> FlowEditor:
    torch.manual_seed(0)
    vae, network = MelVAE(VAE).eval(), VelocityNetwork(TINY)
    return kind(network, vae, Hum(VAE.mel()), load_text_encoder("minilm"), **settings)


def noise(n: int) -> torch.Tensor:
    return 0.1 * torch.randn(n, generator=torch.Generator().manual_seed(0))


# --- recording


@pytest.fixture(scope="module")
def recorded() -> Attention:
    return record_attention(editor(guidance_scale=2.0), noise(16_000), INSTRUCTION, n_steps=3)


def test_every_step_and_point_shares_one_unit_among_the_tokens(recorded):
    assert recorded.tokens == ["[CLS]", "remove", "the", "dog", "barking", "[SEP]"]
    assert recorded.weights.shape == (3, 26, 6), "1 s: 101 frames, 26 points"
    torch.testing.assert_close(recorded.weights.sum(-1), torch.ones(3, 26))
    torch.testing.assert_close(recorded.times, torch.tensor([0.01, 0.34, 0.67]))
    assert recorded.seconds[0] == pytest.approx(0.02) and recorded.seconds[-1] == pytest.approx(1.02)
    assert recorded.heat_map().shape == (6, 26)
    torch.testing.assert_close(recorded.of("dog barking"), recorded.weights[..., 3:5].sum(-1))


def test_recording_changes_nothing_and_sees_a_long_recording_at_once(recorded):
    system = editor(guidance_scale=2.0, window_seconds=0.5)
    seen = record_attention(system, noise(16_000), INSTRUCTION, n_steps=3)
    torch.testing.assert_close(seen.weights, recorded.weights, rtol=1e-3, atol=1e-4)
    assert system.window_seconds == 0.5
    plain = editor(guidance_scale=2.0)(noise(16_000), INSTRUCTION, n_steps=3)
    torch.testing.assert_close(recorded.made, plain, rtol=1e-2, atol=1e-3 * float(plain.abs().max()))


def test_the_branch_with_words_is_the_one_that_is_kept(recorded):
    """The null branch attends to its only token: a row of 1 and zeros."""
    alone = record_attention(editor(), noise(16_000), INSTRUCTION, n_steps=1)
    torch.testing.assert_close(alone.weights[0], recorded.weights[0], rtol=1e-3, atol=1e-4)
    assert recorded.weights.max() < 0.9


def test_several_at_once_are_the_same_as_one_by_one(recorded):
    """Sentences of different lengths, whose padding nobody attends to; another noise for the second."""
    system, waveforms = editor(guidance_scale=2.0), torch.stack([noise(16_000), noise(16_000).flip(0)])
    words = [INSTRUCTION, "replace the dog barking with a crowing rooster"]
    start = [torch.Generator().manual_seed(seed) for seed in (0, 7)]
    generators = [each.clone_state() for each in start]
    both = record_attentions(system, waveforms, words, generators=generators, n_steps=3)
    torch.testing.assert_close(both[0].weights, recorded.weights, rtol=1e-3, atol=1e-4)
    unheard = record_attentions(
        system, waveforms, words, generators=[each.clone_state() for each in start], listen=False, n_steps=3
    )
    assert unheard[0].made is None and torch.equal(unheard[1].weights, both[1].weights)
    assert system.to_waveforms.__name__ == "to_waveforms", "the system itself is as it was"
    alone = record_attention(system, waveforms[1], words[1], generator=torch.Generator().manual_seed(7), n_steps=3)
    assert both[1].tokens == alone.tokens and len(alone.tokens) > len(recorded.tokens)
    torch.testing.assert_close(both[1].weights, alone.weights, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(both[1].made, alone.made, rtol=1e-2, atol=1e-3 * float(alone.made.abs().max()))


def test_words_of_several_pieces_are_found():
    encoder = load_text_encoder("minilm")
    tokens = encoder.tokens("remove the chirping of crickets")
    assert [tokens[n] for n in find_tokens(tokens, "chirping")] == ["chi", "##rp", "##ing"]
    assert [tokens[n] for n in find_tokens(tokens, "Crickets!")] == ["cricket", "##s"]
    assert find_tokens(["▁remove", "▁the", "▁do", "g", "</s>"], "the dog") == [1, 2, 3]
    for wrong in ("cat", "", "the crickets"):
        with pytest.raises(ValueError, match="is not in the sentence"):
            find_tokens(tokens, wrong)


def test_each_row_is_normalised_by_itself():
    rows = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]])
    assert normalised(rows).tolist() == [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]


def test_what_has_no_such_attention_is_refused():
    with pytest.raises(ValueError, match="one channel"):
        record_attention(editor(), noise(16_000).expand(2, -1), INSTRUCTION)
    with pytest.raises(ValueError, match="no single sample"):
        record_attention(editor(InversionEditor), noise(16_000), INSTRUCTION)
    with pytest.raises(ValueError, match="at most 32 recordings"):
        record_attentions(editor(), noise(16_000).expand(33, -1), [INSTRUCTION] * 33)


# --- finding a sound


def test_the_area_is_that_of_an_independent_library():
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        active = torch.rand(50, generator=generator) < 0.3
        score = torch.randn(50, generator=generator).round(decimals=0) + active  # ties, and some skill
        assert area_under_roc(score=score, active=active) == pytest.approx(roc_auc_score(active, score))
    assert math.isnan(area_under_roc(score=torch.rand(4), active=torch.ones(4, dtype=torch.bool)))


def test_levels_and_activity_of_a_burst():
    sound = torch.zeros(16_000)
    sound[4_000:8_000] = 0.1
    seconds = (torch.arange(20) + 0.5) * 0.05
    level = levels(sound, seconds)
    assert level[5:10].tolist() == pytest.approx([-20.0] * 5) and (level[10:] < -150).all()
    assert active_points(sound, seconds).nonzero().flatten().tolist() == [5, 6, 7, 8, 9]
    assert not active_points(torch.zeros(16_000), seconds).any()
    assert len(levels(sound[:7_000], seconds)) == 20


def made_up(where: torch.Tensor) -> Attention:
    """Attention of "dog" where it is told, the rest shared by "remove" and "the"."""
    dog = 0.1 + 0.5 * where.double()
    weights = torch.stack([0 * dog, (1 - dog) / 2, (1 - dog) / 2, dog, 0 * dog], dim=-1)[None].repeat(2, 1, 1)
    seconds = (torch.arange(20) + 0.5) * 0.05
    return Attention(["[CLS]", "remove", "the", "dog", "[SEP]"], torch.tensor([0.0, 0.5]), seconds, weights, noise(1))


def test_attention_that_follows_the_sound_and_attention_that_follows_loudness():
    sound = torch.zeros(16_000)
    sound[4_000:8_000] = 0.1
    loud = 0.01 * torch.ones(16_000)
    loud[8_000:] = 0.5  # something else is louder, later
    where = torch.zeros(20, dtype=torch.bool)
    where[5:10] = True
    found = localise(made_up(where), "dog", sound, sound + loud)
    assert found == {"words": 1.0, "other_words": 0.0, "loudness": pytest.approx(5 / 15)}
    blind = localise(made_up(torch.zeros(20)), "dog", sound, sound + loud)
    assert blind["words"] == blind["other_words"] == 0.5
    always = localise(made_up(where), "dog", torch.ones(16_000), loud)
    assert all(math.isnan(value) for value in always.values()), "a sound that never stops cannot be found"


def test_over_a_list_by_task():
    burst = torch.zeros(16_000)
    burst[4_000:8_000] = 0.1
    edits = [
        {
            "task": task,
            "instruction": words,
            "removed_words": named,
            "original": noise(16_000) + burst,
            "removed": burst,
        }
        for task, words, named in (
            ("remove", "remove the dog", "dog"),
            ("replace", "replace the dog with rain", "the dog"),
            ("add", "add rain", ""),
            ("remove", "delete rain", "rain"),
        )
    ]
    report = localisation(editor(), edits, n_steps=2)
    assert [item["task"] for item in report["per_item"]] == ["remove", "replace", "remove"]
    assert report["overall"]["n"] == 3 and report["by_task"]["remove"]["n"] == 2
    mean = sum(item["words"] for item in report["per_item"]) / 3
    assert report["overall"]["words"] == pytest.approx(mean)
    low, high = report["overall"]["words_interval"]
    assert low <= mean <= high and report["overall"]["loudness"] == 1.0
    one_by_one = localisation(editor(), edits, n_steps=2, batch_size=1)["per_item"]
    for item, alone in zip(report["per_item"], one_by_one, strict=True):
        assert item["words"] == pytest.approx(alone["words"], abs=0.02), "near ties may fall the other way"


def test_recordings_of_two_lengths_keep_their_places():
    edits = [
        {
            "task": "remove",
            "instruction": "remove the dog",
            "removed_words": "dog",
            "original": noise(n) + torch.cat([torch.ones(4_000), torch.zeros(n - 4_000)]),
            "removed": torch.cat([torch.ones(4_000), torch.zeros(n - 4_000)]),
        }
        for n in (16_000, 12_000, 16_000)
    ]
    report = localisation(editor(), edits, n_steps=1)
    assert report["overall"]["n"] == 3
    assert report["per_item"][0] == report["per_item"][2] != report["per_item"][1]
