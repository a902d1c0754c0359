"""Edit accuracy and preservation: cases with a known answer, and what holds for every edit."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lasslab.evaluation.edit_metrics import judge_edits, preservation, silent_points
from lasslab.signal.mel import DB_PER_NAT

NONE = torch.tensor([-1])
FIRST = torch.tensor([0])
SECOND = torch.tensor([1])


def probabilities(*first: float) -> torch.Tensor:
    """One item each: p of the first class, the rest of it of the third, little of the second."""
    return torch.tensor([[p, 0.001, 0.999 - p] for p in first])


def odds(p: float) -> float:
    return math.log(p / (1 - p))


def judge(estimate, original, target, removed=NONE, added=NONE):
    return judge_edits(estimate=estimate, original=original, target=target, removed=removed, added=added)


# --- edit accuracy


@pytest.mark.parametrize(("p", "heard"), [(0.5, 1), (0.11, 1), (0.09, 0), (0.02, 0), (0.9, 1)])
def test_an_addition_is_heard_beyond_the_middle_of_the_log_odds(p, heard):
    original, target = 1 / (1 + 81), 0.5  # log-odds -log 81 and 0: the middle is -log 9, p = 0.1
    found = judge(probabilities(p), probabilities(original), probabilities(target), added=FIRST)
    assert found.heard.item() == found.accurate.item() == heard
    assert found.gone.isnan().all(), "nothing was to go"


@pytest.mark.parametrize(("p", "gone"), [(0.5, 0), (0.11, 0), (0.09, 1), (0.001, 1)])
def test_a_removal_is_the_same_the_other_way_round(p, gone):
    original, target = 0.5, 1 / (1 + 81)
    found = judge(probabilities(p), probabilities(original), probabilities(target), removed=FIRST)
    assert found.gone.item() == found.accurate.item() == gone and found.heard.isnan().all()


def test_a_replacement_needs_both():
    before, after = torch.tensor([[0.8, 0.01, 0.19]]), torch.tensor([[0.01, 0.8, 0.19]])
    cases = {(0.8, 0.8): (1, 0, 0), (0.01, 0.01): (0, 1, 0), (0.01, 0.8): (1, 1, 1), (0.8, 0.01): (0, 0, 0)}
    for (first, second), expected in cases.items():
        estimate = torch.tensor([[first, second, 1.0]])
        found = judge(estimate, before, after, removed=FIRST, added=SECOND)
        assert tuple(part.item() for part in found) == expected


def test_what_the_tagger_itself_cannot_tell_is_left_undecided():
    for original, target in ((0.2, 0.3), (0.3, 0.2), (0.0002, 0.0009)):  # too little, backwards, below the clip
        found = judge(probabilities(0.9), probabilities(original), probabilities(target), added=FIRST)
        assert all(part.isnan().all() for part in found)
    sure, unsure = torch.tensor([[0.8, 0.2]]), torch.tensor([[0.01, 0.25]])
    found = judge(sure, sure, unsure, removed=FIRST, added=SECOND)
    assert found.gone.item() == 0 and found.heard.isnan() and found.accurate.isnan(), "half a verdict is none"


def test_nothing_asked_for_is_no_edit():
    found = judge(probabilities(0.5), probabilities(0.1), probabilities(0.9))
    assert all(part.isnan().all() for part in found)


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=8), st.booleans())
def test_the_target_always_passes_and_the_original_never(values, adds):
    estimate, original, target = (probabilities(*column) for column in zip(*values, strict=True))
    classes = torch.zeros(len(values), dtype=torch.long)
    roles = {"added" if adds else "removed": classes, "removed" if adds else "added": -torch.ones_like(classes)}
    best, worst, found = (judge(each, original, target, **roles).accurate for each in (target, original, estimate))
    decided = best.isfinite()
    assert torch.equal(decided, worst.isfinite()) and torch.equal(decided, found.isfinite())
    assert (best[decided] == 1).all() and (worst[decided] == 0).all()


def test_shapes_and_classes_are_checked():
    one, two = probabilities(0.5), probabilities(0.5, 0.5)
    with pytest.raises(ValueError, match="expected probabilities"):
        judge(one, two, two, added=torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="class numbers are from 0 to 2"):
        judge(one, one, one, added=torch.tensor([3]))


# --- preservation


def edit(seed: int = 0, *, level: float = 1.0, n: int = 16_000) -> dict[str, torch.Tensor]:
    """Noise as the base all along; a sound that goes in the first quarter, one that comes in the second."""
    random = torch.Generator().manual_seed(seed)
    base, first, second = 0.05 * torch.randn(3, n, generator=random)
    removed, added = torch.zeros(2, n)
    removed[: n // 4], added[n // 4 : n // 2] = level * first[: n // 4], level * second[n // 4 : n // 2]
    return {"original": base + removed, "target": base + added, "removed": removed, "added": added}


def test_the_target_is_perfectly_preserved():
    made = edit()
    assert preservation(estimate=made["target"], **made).item() == 0


@pytest.mark.parametrize("gain_db", [-3.0, 0.5, 6.0])
def test_a_gain_is_that_many_decibels(gain_db):
    made = edit()
    found = preservation(estimate=10 ** (gain_db / 20) * made["target"], **made)
    assert DB_PER_NAT * found.item() == pytest.approx(abs(gain_db), abs=1e-3), "all of the noise lies above the floor"


def test_what_changes_where_the_edit_is_does_not_count():
    made = edit(level=3.0)
    silent, _ = silent_points(original=made["original"], removed=made["removed"], added=made["added"])
    n_frames = silent.shape[-1]
    assert not silent[:, : n_frames // 2].any() and silent[:, n_frames // 2 + 4 :].all()
    estimate = made["target"].clone()
    estimate[1_000:7_000] = 0
    assert preservation(estimate=estimate, **made).item() == 0
    estimate = made["target"].clone()
    estimate[10_000:12_000] *= 2
    assert preservation(estimate=estimate, **made).item() > 0.1


def test_silence_that_is_filled_counts_and_what_lies_below_the_floor_does_not():
    made = edit(level=3.0)
    for name in ("original", "target"):
        made[name][12_000:] = 0
    hiss = torch.zeros(16_000)
    hiss[12_000:] = torch.randn(4_000, generator=torch.Generator().manual_seed(1))
    loud = preservation(estimate=made["target"] + 1e-3 * hiss, **made)
    faint = preservation(estimate=made["target"] + 1e-6 * hiss, **made)
    assert loud.item() > 0.3 and faint.item() < 0.01


def test_an_edit_that_covers_everything_has_no_preservation():
    made = edit()
    noise = 0.05 * torch.randn(16_000, generator=torch.Generator().manual_seed(5))
    everywhere = {"original": made["target"] - made["added"] + noise, "target": made["target"] - made["added"]}
    found = preservation(estimate=everywhere["target"], **everywhere, removed=noise, added=torch.zeros_like(noise))
    assert found.isnan()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1_000), st.floats(-60, 20), st.floats(0.2, 1))
def test_the_original_is_never_further_than_the_mask_allows(seed, level_db, quiet):
    made = edit(seed, level=10 ** (level_db / 20), n=8_000)
    for name in ("original", "target"):  # a base that is faint in its second half
        made[name][4_000:] *= 1 - quiet
    found = preservation(estimate=made["original"], **made)
    assert found.isnan() or DB_PER_NAT * found.item() <= 20 * math.log10(1.1 / 0.9)


def test_batches_are_their_items():
    items = [edit(seed, level=seed + 1.0) for seed in range(3)]
    together = {name: torch.stack([item[name] for item in items]) for name in items[0]}
    found = preservation(estimate=together["original"], **together)
    alone = torch.stack([preservation(estimate=item["original"], **item) for item in items])
    torch.testing.assert_close(found, alone)


def test_waveforms_are_checked():
    made = edit()
    with pytest.raises(ValueError, match="waveforms of one shape"):
        preservation(estimate=made["target"][:-1], **made)
    with pytest.raises(ValueError, match="original is silent"):
        nothing = torch.zeros(16_000)
        preservation(estimate=nothing, original=nothing, target=nothing, removed=nothing, added=nothing)
