"""The control that asks a mixture: what a query, a choice and a failure leave on the page."""

import re

import nbformat
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from traitlets.config import Config

from lasslab.course.runner import run_notebook
from lasslab.models.text import check_query
from lasslab.notebook.widgets import PROMPT, QueryPanel, ask

T = 16_000
TARGET = 0.1 * torch.sin(2 * torch.pi * 440 * torch.arange(T) / T)
INTERFERENCE = 0.1 * torch.sin(2 * torch.pi * 2_000 * torch.arange(T) / T)
MIXTURE = TARGET + INTERFERENCE


class Scripted:
    """A system that gives mostly the low tone, silence for "nothing", and fails on demand."""

    name = "scripted"

    def __init__(self):
        self.asked = []

    def __call__(self, waveform, query, *, sample_rate=16_000, generator=None):
        self.asked.append(query)
        check_query(query)
        if query == "crash":
            raise RuntimeError("out of\nmemory")
        return waveform * 0 if query == "nothing" else (TARGET + 0.01 * INTERFERENCE).expand_as(waveform)


@pytest.fixture
def panel():
    config = Config()
    config.HistoryManager.enabled = False
    InteractiveShell.instance(config=config)  # pictures and players are collected from IPython's display
    yield QueryPanel(Scripted(), MIXTURE, suggestions=["low", "high"], sources={"low": TARGET, "high": INTERFERENCE})
    InteractiveShell.clear_instance()


def test_a_typed_query_is_answered_with_players_a_picture_and_figures(panel):
    panel.text.value = "low"
    assert panel.separator.asked == ["low"]
    assert panel.result.value.count("<audio ") == 2 and panel.result.value.count("<img ") == 1
    assert re.search(
        r'<img [^>]*alt="Spectrograms of the mixture and of what the query “low” keeps', panel.result.value
    )
    assert panel.status.value.startswith("Level -3.0 dB re the mixture. SI-SDR ")  # half of the energy
    to_low, to_high = (float(number) for number in re.findall(r"([-+][\d.]+) dB to", panel.status.value))
    assert (to_low, to_high) == (40.0, -40.0)


def test_choosing_a_sentence_writes_it_into_the_box_and_asks_it(panel):
    panel.choice.value = "high"
    assert panel.text.value == "high" and panel.separator.asked == ["high"]
    assert panel.choice.value == PROMPT
    panel.text.value = "low"
    panel.choice.value = "high"
    assert panel.text.value == "high" and panel.separator.asked == ["high", "low", "high"]


def test_leaving_the_box_for_the_button_asks_once(panel):
    panel.text.value = "low"
    panel.button.click()
    assert panel.separator.asked == ["low"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?!", '<b style="color:#b3261e">Not possible:</b> the query is empty: describe the sound'),
        ("x" * 1_001, "the query has 1001 characters"),
        ("crash", "RuntimeError: out of memory"),
    ],
)
def test_a_failure_is_one_line_and_takes_the_old_answer_away(panel, query, words):
    panel.text.value = "low"
    panel.text.value = query
    assert words in panel.status.value and "\n" not in panel.status.value
    assert panel.result.value == ""
    panel.text.value = "low"
    assert "<audio " in panel.result.value and "Not possible" not in panel.status.value


def test_a_silent_answer_is_said_in_words(panel):
    panel.text.value = "nothing"
    assert panel.status.value == "Nothing is kept: the answer is silent."
    assert "<audio " in panel.result.value


def test_markup_in_a_query_stays_text(panel):
    panel.text.value = '<script>alert("x")</script>'
    assert "<script" not in panel.result.value + panel.status.value


def test_stereo_mixtures_are_answered(panel):
    stereo = torch.stack([MIXTURE, 0.5 * MIXTURE])
    panel = QueryPanel(Scripted(), stereo)
    panel.separate("low")
    assert "<audio " in panel.result.value and panel.status.value.startswith("Level ")


def test_a_source_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"source 'low' is \(100,\), the mixture is \(16000,\)"):
        ask(Scripted(), MIXTURE, query="low", sources={"low": TARGET[:100]})


def test_a_run_without_a_page_saves_the_first_answer(tmp_path):
    header = "# 00 Asking\n\n| time | memory | device |\n|---|---|---|\n| 20 s | 1 GB | CPU |"
    source = (
        "import torch\n"
        "from lasslab.notebook.widgets import ask\n"
        "from lasslab.systems.separation import ConstantGain\n"
        "ask(ConstantGain(), torch.randn(8_000) / 10, query='half of it', suggestions=['all of it'])"
    )
    parameters = new_code_cell("seed = 0", metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[new_markdown_cell(header), parameters, new_code_cell(source)])
    nbformat.write(notebook, tmp_path / "00_asking.ipynb")
    result = run_notebook(tmp_path / "00_asking.ipynb", output_dir=tmp_path / "out")
    executed = nbformat.read(result.notebook, 4)
    state = executed.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    values = [model["state"].get("value", "") for model in state]
    assert "half of it" in values and "Level -6.0 dB re the mixture." in values
    assert any("<audio " in str(value) and "<img " in str(value) for value in values)
