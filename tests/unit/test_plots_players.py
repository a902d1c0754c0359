"""Pictures say what they show and show what they say; sounds keep their levels; both stay small."""

import base64
import html
import io
import re

import matplotlib
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from lasslab.notebook import players, plots  # noqa: E402


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would show: one MIME bundle for each call of display."""
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: bundles.append(bundle))
    return bundles


@pytest.fixture
def figures(monkeypatch):
    """The figures themselves, before they become pictures."""
    kept = []
    monkeypatch.setattr(plots, "show", lambda figure, *, alt, caption="": kept.append(figure))
    yield kept
    plt.close("all")


def image_of(bundle: dict[str, str]) -> tuple[Image.Image, str, int]:
    source, alt = re.search(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]*)"', bundle["text/html"]).groups()
    return Image.open(io.BytesIO(base64.b64decode(source))), html.unescape(alt), len(bundle["text/html"])


def spectrum(level: float = 1.0, frames: int = 313, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return level * torch.randn(257, frames, dtype=torch.complex64, generator=generator)


PICTURES = {
    "spectrograms": lambda alt: plots.spectrograms({"a": spectrum(), "b": spectrum(0.1, seed=1)}, alt=alt),
    "mels": lambda alt: plots.mels({"a": torch.randn(64, 100)}, alt=alt),
    "masks": lambda alt: plots.masks({"a": torch.rand(257, 100)}, alt=alt),
    "waveforms": lambda alt: plots.waveforms({"a": torch.randn(16_000), "b": torch.zeros(8_000)}, alt=alt),
    "histogram": lambda alt: plots.histogram(torch.rand(100), alt=alt, label="similarity", threshold=0.7),
    "curves": lambda alt: plots.curves({"loss": [3.0, 2.0, 1.0]}, alt=alt, x_label="step", y_label="loss"),
    "bars": lambda alt: plots.bars({"silence": 0.0, "ours": 7.9}, alt=alt, label="SDRi (dB)"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_picture_has_alt_text_is_shown_once_and_is_small(shown, name):
    PICTURES[name]('Two <panels> & a "line"')
    (bundle,) = shown
    image, alt, size = image_of(bundle)
    assert alt == 'Two <panels> & a "line"'
    assert bundle["text/plain"] == '[picture] Two <panels> & a "line"'
    assert 500 < image.width < 1000 and 150 < image.height < 700
    assert len(image.convert("RGB").getcolors(100_000)) > 5, "an empty picture"
    assert size < 150_000
    assert not plt.get_fignums(), "a figure left open would be shown twice"


@pytest.mark.parametrize("name", PICTURES)
def test_picture_without_alt_text_is_refused(shown, name):
    with pytest.raises(ValueError, match="alt text"):
        PICTURES[name]("  ")
    assert not shown


def test_caption_is_set_below_the_picture(shown):
    plots.masks({"a": torch.rand(5, 5)}, alt="a mask", caption="Louder <than> before")
    assert "<figcaption>Louder &lt;than&gt; before</figcaption>" in shown[0]["text/html"]


def test_spectrogram_panels_share_one_scale_in_db_below_the_loudest(figures):
    loud = torch.zeros(257, 10)
    loud[100, 5] = 10.0
    plots.spectrograms({"loud": loud, "quiet": loud * 0.1}, alt="x", top_db=60.0)
    panels = [axes for axes in figures[0].axes if axes.images]
    levels = [axes.images[0].get_array() for axes in panels]
    assert levels[0].max() == pytest.approx(0.0) and levels[1].max() == pytest.approx(-20.0)
    assert all(level.min() == pytest.approx(-60.0) for level in levels)
    assert [axes.images[0].get_clim() for axes in panels] == [(-60.0, 0.0)] * 2


def test_spectrogram_axes_are_in_seconds_and_kilohertz(figures):
    tone = torch.zeros(257, 126)  # bin 128 of 512 at 16 kHz is 4 kHz; frame 125 at hop 256 is at 2 s
    tone[128, 125] = 1.0
    plots.spectrograms({"tone": tone}, alt="x")
    axes = figures[0].axes[0]
    left, right, bottom, top = axes.images[0].get_extent()
    row, column = np.unravel_index(np.argmax(axes.images[0].get_array()), (257, 126))
    assert bottom + (row + 0.5) * (top - bottom) / 257 == pytest.approx(4.0)
    assert left + (column + 0.5) * (right - left) / 126 == pytest.approx(2.0)
    assert axes.get_xlabel() == "time (s)" and axes.get_ylabel() == "frequency (kHz)"
    assert figures[0].axes[-1].get_ylabel() == "level (dB)"


def test_highest_frequency_shown_can_be_chosen(figures):
    plots.spectrograms({"a": spectrum()}, alt="x", f_max=2_000)
    assert figures[0].axes[0].get_ylim() == (0.0, 2.0)


def test_silence_is_drawn_and_not_a_division_by_zero(figures):
    plots.spectrograms({"silence": torch.zeros(257, 10)}, alt="x")
    assert np.isfinite(figures[0].axes[0].images[0].get_array()).all()


@pytest.mark.parametrize("panels", [1, 2, 3, 4, 5, 7])
def test_any_number_of_panels_fits_and_the_lowest_of_each_column_has_its_time_axis(figures, panels):
    plots.masks({str(i): torch.rand(9, 9) for i in range(panels)}, alt="x")
    drawn = [axes for axes in figures[0].axes if axes.images]
    assert [axes.get_title(loc="left") for axes in drawn] == [str(i) for i in range(panels)]
    labelled = [int(axes.get_title(loc="left")) for axes in drawn if axes.get_xlabel() == "time (s)"]
    assert labelled == list(range(max(0, panels - 3), panels))


def test_waveforms_share_amplitude_and_time(figures):
    x = torch.zeros(32_000)
    x[16_000] = 0.8
    plots.waveforms({"x": x, "half": x / 2}, alt="x")
    limits = [axes.get_ylim() for axes in figures[0].axes]
    assert limits[0] == limits[1] and limits[0][1] >= 0.8
    assert figures[0].axes[0].get_xlim() == (0.0, 2.0)


def test_a_single_loud_sample_survives_in_the_waveform_picture():
    x = np.zeros(160_000)
    x[77_777] = 1.0
    low, high, seconds = plots._envelope(x, 16_000)
    assert high.max() == 1.0 and seconds[high.argmax()] == pytest.approx(77_777 / 16_000, abs=0.01)
    assert len(high) <= 1600


def test_histogram_says_which_share_the_threshold_keeps(figures):
    plots.histogram([0.1, 0.2, 0.3, 0.9], alt="x", label="similarity", threshold=0.5)
    plots.histogram([0.1, 0.2, 0.3, 0.9], alt="x", label="similarity", threshold=0.5, keep="above")
    words = [[text.get_text() for text in figure.axes[0].get_legend().get_texts()] for figure in figures]
    assert "threshold 0.5: 75% kept" in words[0] and "threshold 0.5: 25% kept" in words[1]
    assert "dropped" in words[0]


def test_bars_stand_in_the_given_order_with_their_values(figures):
    plots.bars({"silence": 0.0, "worse": -2.0, "ours": 7.9}, alt="x", label="SDRi (dB)", errors={"ours": (7.2, 8.4)})
    axes = figures[0].axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.0, -2.0, 7.9]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["silence", "worse", "ours"]
    assert {"0.0", "-2.0", "7.9"} <= {text.get_text() for text in axes.texts}
    assert axes.yaxis_inverted()


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: plots.spectrograms({}, alt="x"), "nothing to plot"),
        (lambda: plots.spectrograms({"a": torch.zeros(2, 3, 4)}, alt="x"), "'a' must be a spectrum (F, N)"),
        (lambda: plots.masks({"a": torch.full((3, 3), float("nan"))}, alt="x"), "'a' has NaN"),
        (lambda: plots.waveforms({"a": torch.zeros(2, 9)}, alt="x"), "waveform 'a' must be (T,)"),
        (lambda: plots.waveforms({}, alt="x"), "nothing to plot"),
        (lambda: plots.histogram([], alt="x", label="y"), "no values"),
        (lambda: plots.histogram([1.0], alt="x", label="y", keep="left"), "keep is 'below' or 'above'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(draw, words):
    with pytest.raises(ValueError) as refusal:
        draw()
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_style_is_left_behind_with_the_picture(shown):
    before = plt.rcParams["font.size"], plt.rcParams["axes.grid"]
    plots.masks({"a": torch.rand(5, 5)}, alt="a mask")
    assert (plt.rcParams["font.size"], plt.rcParams["axes.grid"]) == before


# Players.


def sounds_of(bundle: dict[str, str]) -> list[tuple[np.ndarray, int]]:
    sources = re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', bundle["text/html"])
    return [soundfile.read(io.BytesIO(base64.b64decode(source))) for source in sources]


def tone(seconds: float, level: float, sample_rate: int = 16_000) -> torch.Tensor:
    return level * torch.sin(2 * torch.pi * 440 * torch.arange(int(seconds * sample_rate)) / sample_rate)


def level_of(sound: np.ndarray) -> float:
    middle = sound[len(sound) // 4 : -len(sound) // 4]
    return float(np.sqrt(2 * np.mean(middle**2)))


def test_sounds_beside_one_another_keep_their_levels(shown):
    players.play_many({"loud": tone(1, 0.8), "quiet": tone(1, 0.08)})
    (loud, rate), (quiet, _) = sounds_of(shown[0])
    assert rate == 16_000 and loud.ndim == 1
    assert level_of(loud) == pytest.approx(0.8, rel=0.02)
    assert 20 * np.log10(level_of(loud) / level_of(quiet)) == pytest.approx(20, abs=0.5)
    assert "turned down" not in shown[0]["text/html"].lower()


def test_one_gain_for_all_when_a_peak_would_clip_and_the_caption_says_so(shown):
    players.play_many({"too loud": tone(1, 2.0), "half of it": tone(1, 1.0)})
    (first, _), (second, _) = sounds_of(shown[0])
    assert level_of(first) == pytest.approx(1.0, rel=0.02)
    assert level_of(second) == pytest.approx(0.5, rel=0.02)
    assert "All turned down by the same 6.0 dB" in shown[0]["text/html"]


def test_long_sound_is_cut_and_the_caption_says_so(shown):
    players.play(tone(7, 0.5), title="long")
    players.play(tone(3, 0.5), title="short")
    (long, _), (short, _) = sounds_of(shown[0]) + sounds_of(shown[1])
    assert len(long) == pytest.approx(5 * 16_000, abs=2_400) and len(short) == pytest.approx(3 * 16_000, abs=2_400)
    assert "The first 5 s." in shown[0]["text/html"]
    assert "The first" not in shown[1]["text/html"]
    assert len(shown[0]["text/html"]) < 80_000


def test_channels_are_mixed_down(shown):
    players.play(torch.stack([tone(1, 0.8), torch.zeros(16_000)]), title="left only")
    ((sound, _),) = sounds_of(shown[0])
    assert sound.ndim == 1 and level_of(sound) == pytest.approx(0.4, rel=0.02)


def test_player_is_named_and_safe(shown):
    players.play(tone(1, 0.5), title='a <b> "dog"', caption="it <barks>")
    page = shown[0]["text/html"]
    assert 'aria-label="a &lt;b&gt; &quot;dog&quot;"' in page and "it &lt;barks&gt;" in page
    assert "controls" in page and "autoplay" not in page
    assert shown[0]["text/plain"] == '[sound] a <b> "dog"'


def test_noise_of_five_seconds_stays_small(shown):
    players.play(0.3 * torch.randn(80_000, generator=torch.Generator().manual_seed(0)), title="noise")
    assert len(shown[0]["text/html"]) < 60_000


@pytest.mark.parametrize(
    ("sound", "rate", "words"),
    [
        (torch.zeros(0), 16_000, "sound 'x' must be (T,) or (C, T) and not empty"),
        (torch.zeros(2, 2, 2), 16_000, "sound 'x' must be"),
        (torch.tensor([0.0, float("nan")]), 16_000, "sound 'x' has NaN"),
        (torch.zeros(100), 12_345, "MP3 has no sample rate of 12345 Hz"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line(sound, rate, words):
    with pytest.raises(ValueError) as refusal:
        players.play(sound, sample_rate=rate, title="x")
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_nothing_to_play_is_refused():
    with pytest.raises(ValueError, match="nothing to play"):
        players.play_many({})
