"""The pictured pairs are the best, the median and the worst, with their own sounds and scores."""

import pytest
import torch

from lasslab.data.pairs import Pair, load_pair
from lasslab.evaluation.benchmark import evaluate
from lasslab.evaluation.metrics import sdr
from lasslab.evaluation.pictures import describe, examples, ranks, write_examples
from lasslab.signal.audio import load_audio, save_audio

GAINS = {
    "tone 250": 0.9,
    "tone 500": 0.2,
    "tone 1000": 0.5,
    "tone 2000": 0.99,
    "tone $x^2$": 0.4,
}  # SDR -20 log10(1 - g)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tones")
    time = torch.arange(8_000) / 16_000
    made = []
    for number, caption in enumerate(GAINS):
        wave = 0.2 * torch.sin(2 * torch.pi * 250 * 2**number * time)
        save_audio(folder / f"target-{number}.wav", wave, sample_rate=16_000)
        made.append(Pair(f"p{number}", caption, folder / f"target-{number}.wav", folder / "noise.wav"))
    noise = 0.1 * torch.randn(8_000, generator=torch.Generator().manual_seed(0))
    save_audio(folder / "noise.wav", noise, sample_rate=16_000)
    return made


class Known:
    """Returns the target of the pair that is asked for, times a gain: its SDR is -20 log10(1 - gain)."""

    name = "runs/known: a"

    def __init__(self, pairs):
        self.targets = {pair.caption: load_pair(pair).target for pair in pairs}

    def __call__(self, waveform, query, *, sample_rate=16_000, generator=None):
        return GAINS[query] * self.targets[query]


@pytest.fixture(scope="module")
def report(pairs):
    return evaluate(Known(pairs), pairs, progress=False)


def test_best_median_and_worst(report, pairs):
    assert ranks(report) == {"best": 3, "median": 2, "worst": 1}
    assert ranks(evaluate(Known(pairs), pairs[:2], progress=False)) == {"best": 0, "median": 1, "worst": 1}
    assert ranks(evaluate(Known(pairs), pairs[:1], progress=False)) == {"best": 0, "median": 0, "worst": 0}


def test_an_example_holds_the_sounds_of_its_pair(report, pairs):
    best, _, worst = examples(report, Known(pairs), pairs)
    assert (best.rank, best.number, best.item["idx"]) == ("best", 3, "p3")
    mixture = load_pair(pairs[1])
    assert list(worst.sounds) == ["mixture", "target", "estimate", "ceiling"]
    torch.testing.assert_close(worst.sounds["mixture"], mixture.mixture)
    torch.testing.assert_close(worst.sounds["estimate"], 0.2 * mixture.target)
    for name, scores in (("estimate", worst.scores), ("ceiling", worst.ceiling)):
        again = sdr(estimate=worst.sounds[name], target=worst.sounds["target"])
        assert again.item() == pytest.approx(scores[0].item(), abs=1e-3)
    assert describe(worst, report) == (
        "Worst of 5 pairs by SDRi: runs/known: a, asked for “tone 500”\npair p1: target-1.wav + noise.wav"
    )


def test_pictures_and_sounds_on_disk(report, pairs, tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures"
    written = write_examples(folder, report, Known(pairs), pairs, sounds=True)
    assert sorted(written) == sorted(folder.iterdir()) and len(written) == 15
    assert [path.name for path in written[:2]] == ["runs-known-a-best.png", "runs-known-a-best-mixture.wav"]
    for rank, idx in (("best", "p3"), ("median", "p2"), ("worst", "p1")):
        with Image.open(folder / f"runs-known-a-{rank}.png") as picture:
            assert picture.width >= 900 and f"pair {idx}" in picture.info["Description"]
            assert len(picture.convert("L").getcolors()) > 100, "spectrograms have shades"
    estimate = load_audio(folder / "runs-known-a-worst-estimate.wav", sample_rate=16_000)
    torch.testing.assert_close(estimate, 0.2 * load_pair(pairs[1]).target, atol=1e-6, rtol=0)


def test_a_caption_is_text_not_mathematics(pairs, tmp_path):
    only = [pairs[4]]
    (path, *_) = write_examples(tmp_path, evaluate(Known(pairs), only, progress=False), Known(pairs), only)
    assert path.is_file()
