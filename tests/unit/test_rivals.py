"""What random draws have few of: rivals, interferences like the target, and mixtures of classes alike."""

import math

import pytest
import torch

from lasslab.data.clips import Clip
from lasslab.data.corpora import load_corpus
from lasslab.data.mixtures import MixtureDataset
from lasslab.data.rivals import N_RIVALS, rival_distance
from lasslab.signal.mel import log_mel_spectrogram
from lasslab.training import sounds
from lasslab.training.generation import FLOW_PRESETS, training_mixtures
from lasslab.training.latents import describe
from lasslab.training.runs import change_recipe

LABELS = ["dog", "rain", "engine", "wind", "drum", "whistle"]
CLIPS = load_corpus("synthesis", n_per_class=3, labels=LABELS, seconds=1.0)
DRAW = dict(n=60, seconds=0.5, snr_db=(-5.0, 5.0), seed=3)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_sound_itself_is_at_no_distance_at_any_level():
    target = noise(8000)
    distances = rival_distance(target, torch.stack([target, 0.01 * target, -3 * target]))
    torch.testing.assert_close(distances, torch.zeros(3), atol=1e-4, rtol=0)


def test_a_filter_of_known_gain_is_as_far_as_its_gain():
    """A tone against the same tone that plays half of the time: e^-11.5 where it pauses, 3 dB more where it plays."""
    tone = 0.1 * (2 * math.pi * 1000 / 16_000 * torch.arange(16_000)).sin()
    halved = tone * (torch.arange(16_000) < 8_000)
    expected = log_mel_spectrogram(halved * math.sqrt(2)) - log_mel_spectrogram(tone)
    torch.testing.assert_close(rival_distance(tone, halved[None])[0], expected.abs().mean(), atol=1e-4, rtol=1e-4)


def test_noise_is_a_rival_of_noise_and_a_click_is_not():
    """The mixture with the click is nearly the target, but it is easy: the distance is not that of the mixture."""
    click = torch.zeros(8000)
    click[4000:4040] = 1.0
    other, click = rival_distance(noise(8000), torch.stack([noise(8000, seed=1), click]))
    assert other < 1 < click


def test_silence_is_nobody_s_rival():
    target = noise(4000)
    distances = rival_distance(target, torch.stack([torch.zeros(4000), noise(4000, seed=1)]))
    assert distances[0].isinf() and distances[1].isfinite()
    assert rival_distance(torch.zeros(4000), noise(2, 4000)).isinf().all()


def distance(item: dict) -> float:
    return float(rival_distance(item["target"], item["interference"][None]))


def test_a_hard_item_has_the_nearest_of_five():
    """Of five equally likely distances the least lies below one and the same draw in five of six cases."""
    plain, hard = MixtureDataset(CLIPS, **DRAW), MixtureDataset(CLIPS, hard=1.0, **DRAW)
    pairs = [(plain[number], hard[number]) for number in range(60)]
    assert all(torch.equal(before["target"], after["target"]) for before, after in pairs)
    assert all(after["label"] != after["interference_label"] for _, after in pairs)
    assert sum(distance(after) <= distance(before) for before, after in pairs) > 40
    medians = torch.tensor([[distance(item) for item in pair] for pair in pairs]).median(0).values
    assert medians[1] < 0.8 * medians[0]


def test_the_nearest_is_taken(monkeypatch):
    asked = []

    def remember(target, interferences):
        asked.append(interferences)
        return torch.tensor([3.0, 2.0, 0.5, 1.0, 4.0])

    monkeypatch.setattr("lasslab.data.mixtures.rival_distance", remember)
    item = MixtureDataset(CLIPS, hard=1.0, **DRAW)[0]
    assert asked[0].shape == (N_RIVALS, 8000) and torch.equal(item["interference"], asked[0][2])


def test_the_share_is_one_and_items_are_repeatable():
    plain, some = MixtureDataset(CLIPS, **DRAW), MixtureDataset(CLIPS, hard=0.5, **DRAW)
    again = MixtureDataset(CLIPS, hard=0.5, **DRAW)
    changed = [not torch.equal(plain[n]["interference"], some[n]["interference"]) for n in range(60)]
    assert 15 < sum(changed) < 45  # four standard deviations
    assert all(torch.equal(some[n]["interference"], again[n]["interference"]) for n in (0, 17, 59))


@pytest.mark.parametrize("share", [-0.1, 1.5, math.nan])
def test_another_number_is_refused(share):
    with pytest.raises(ValueError, match="hard is a share in"):
        MixtureDataset(CLIPS, hard=share, **DRAW)


def test_a_focus_is_mixed_with_itself():
    focus = ["rain", "wind", "engine"]
    dataset = MixtureDataset(CLIPS, focus=focus, focus_share=1.0, **DRAW)
    pairs = {(dataset[number]["label"], dataset[number]["interference_label"]) for number in range(60)}
    assert pairs == {(first, second) for first in focus for second in focus if first != second}


def test_its_share_is_one_and_the_rest_is_drawn_as_before():
    """Of random pairs of six labels, one in five has both of three given ones: with half in focus it is 0.6."""
    focus = {"rain", "wind", "engine"}
    dataset = MixtureDataset(
        CLIPS, focus=sorted(focus), focus_share=0.5, hard=0.5, **DRAW | {"n": 400, "seconds": 0.05}
    )
    pairs = [{item["label"], item["interference_label"]} for item in (dataset[number] for number in range(400))]
    assert 190 < sum(pair <= focus for pair in pairs) < 290  # 240, and five standard deviations
    assert set().union(*pairs) == set(LABELS)


def test_without_a_share_a_focus_changes_nothing():
    plain, other = MixtureDataset(CLIPS, **DRAW), MixtureDataset(CLIPS, focus=["rain", "wind"], **DRAW)
    assert all(torch.equal(plain[n]["interference"], other[n]["interference"]) for n in range(5))
    assert plain.settings() == other.settings()


@pytest.mark.parametrize("focus", [[], ["rain"], ["rain", "unicorn"]])
def test_a_focus_needs_two_labels_that_are_there(focus):
    with pytest.raises(ValueError, match="focus=.* needs clips of at least 2 of its labels: there are"):
        MixtureDataset(CLIPS, focus=focus, focus_share=0.5, **DRAW)


def test_a_silent_rival_is_not_taken(monkeypatch):
    """A clip whose pieces are silent has no SNR: mixing would refuse it."""
    real = Clip.load

    def load(clip, **rate):
        waveform = real(clip, **rate)
        return waveform if clip.label != "wind" else torch.cat([waveform[:800], torch.zeros(15_200)])

    monkeypatch.setattr(Clip, "load", load)
    dataset = MixtureDataset(CLIPS, hard=1.0, **DRAW)
    assert all(dataset[number]["interference"].any() for number in range(30))


def test_a_training_draws_as_its_recipe_says_and_its_latents_are_others():
    quick = FLOW_PRESETS["quick"]
    assert quick.hard == 0 and FLOW_PRESETS["lab"].hard == 0.75
    hard = type(quick)(**{**vars(quick), "hard": 0.75})
    assert training_mixtures(hard).hard == 0.75
    assert describe(training_mixtures(hard)) != describe(training_mixtures(quick))
    with pytest.raises(ValueError, match="hard is a share"):
        type(quick)(**{**vars(quick), "hard": 2.0})


def test_how_rare_mixtures_of_noise_and_noise_are_is_what_the_module_says(monkeypatch):
    """The lab's recipe and ESC-10's classes, of which only how many there are matters."""
    ten = ["chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog", "helicopter", "rain", "rooster"]
    ten += ["sea_waves", "sneezing"]

    def corpus(name, **settings):
        return load_corpus("synthesis", n_per_class=1, labels=ten if name == "esc50" else None)

    monkeypatch.setattr(sounds, "load_corpus", corpus)
    clips, weights = sounds.training_clips(FLOW_PRESETS["lab"])
    share = {label: 0.0 for label in {clip.label for clip in clips}}
    for clip, weight in zip(clips, weights, strict=True):
        share[clip.label] += weight
    assert len(share) == 36

    def drawn(target: str, interference: str) -> float:
        return share[target] * share[interference] / (1 - share[target])

    engines, water = ["chainsaw", "helicopter"], ["rain", "sea_waves"]
    four = [*engines, *water]
    assert round(100 * sum(drawn(a, b) for a in four for b in four if a != b), 1) == 7.2
    assert round(100 * sum(drawn(a, b) for a in engines for b in water), 1) == 2.4
    assert round(100 * sum(drawn(a, b) for a in water for b in engines), 1) == 2.4
    assert round(100 * drawn("chainsaw", "rain"), 1) == 0.6


def test_a_recipe_names_its_focus_with_pluses():
    recipe = change_recipe(FLOW_PRESETS["quick"], ["focus=rain+wind", "focus_share=1", "n_mixtures=8"])
    dataset = training_mixtures(recipe)
    assert all({dataset[n]["label"], dataset[n]["interference_label"]} == {"rain", "wind"} for n in range(8))
    with pytest.raises(ValueError, match="focus_share is a share"):
        change_recipe(recipe, ["focus_share=1.5"])
    with pytest.raises(ValueError, match="focus=.'wnid'.* needs clips"):
        training_mixtures(change_recipe(recipe, ["focus=wnid"]))
