"""Controls for notebooks: ask a mixture in one's own words, and hear and see the answer.

`ask` shows the control and answers a first query at once, so that a notebook run without a person has a result
to show. Whatever goes wrong in a query is said in one line beside the text box; nothing is raised.

Notebook 00.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import ipywidgets
import torch
from IPython.utils.capture import capture_output
from torch import Tensor

from lasslab.evaluation.metrics import si_sdr
from lasslab.notebook import plots
from lasslab.notebook.players import play_many
from lasslab.signal.audio import SAMPLE_RATE, to_mono
from lasslab.signal.spectral import HOP_LENGTH, stft

if TYPE_CHECKING:
    from lasslab.systems.separation import Separator

PROMPT = "or choose a sentence"


def ask(
    separator: Separator,
    mixture: Tensor,
    *,
    query: str,
    suggestions: Sequence[str] = (),
    sources: Mapping[str, Tensor] | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> None:
    """Show a text box and a list of sentences; each query is answered by a player and a spectrogram.

    Args:
        separator: any separation system.
        mixture: what is asked, (T,) or (C, T).
        query: first query, answered at once.
        suggestions: sentences to choose from.
        sources: name -> one sound of the mixture, (T,) or (C, T), where they are known: the answer is measured
            against each.
        sample_rate: Hz.

    Raises:
        ValueError: a source has another shape than the mixture.

    Notebook: 00.
    """
    from IPython.display import display

    panel = QueryPanel(separator, mixture, suggestions=suggestions, sources=sources, sample_rate=sample_rate)
    display(panel.box)
    panel.text.value = query  # is answered like a typed one


class QueryPanel:
    """The control that `ask` shows: a text box, a list of sentences, a button, one line of status and the result.

    Status and result are HTML. (An Output area would be filled by the page, which a run without a page lacks.)

    Args:
        separator: any separation system.
        mixture: what is asked, (T,) or (C, T).
        suggestions: sentences to choose from.
        sources: name -> one sound of the mixture, where they are known.
        sample_rate: Hz.

    Raises:
        ValueError: a source has another shape than the mixture.
    """

    def __init__(
        self,
        separator: Separator,
        mixture: Tensor,
        *,
        suggestions: Sequence[str] = (),
        sources: Mapping[str, Tensor] | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> None:
        self.separator, self.mixture, self.sample_rate = separator, mixture, sample_rate
        self.sources = dict(sources or {})
        for name, source in self.sources.items():
            if source.shape != mixture.shape:
                shapes = f"{tuple(source.shape)}, the mixture is {tuple(mixture.shape)}"
                raise ValueError(f"source {name!r} is {shapes}: give the parts as they are in the mixture")
        self._asked = ""
        self.text = ipywidgets.Text(
            description="keep",
            placeholder="describe a sound, then press Enter",
            continuous_update=False,
            layout=ipywidgets.Layout(width="24rem"),
        )
        self.choice = ipywidgets.Dropdown(
            options=[PROMPT, *suggestions], layout=ipywidgets.Layout(width="16rem"), tooltip=PROMPT
        )
        self.button = ipywidgets.Button(description="Separate", button_style="primary")
        self.status = ipywidgets.HTML()
        self.result = ipywidgets.HTML()
        controls = ipywidgets.HBox([self.text, self.choice, self.button])
        controls.layout.flex_flow = "row wrap"
        self.box = ipywidgets.VBox([controls, self.status, self.result])
        self.box.add_class("lasslab-ask")
        self.text.observe(lambda change: self.separate(change["new"]), names="value")
        self.choice.observe(self._choose, names="value")
        self.button.on_click(lambda _: self.separate(self.text.value))

    def separate(self, query: str) -> None:
        """Answer a query below the controls. The same query twice in a row is answered once."""
        if query == self._asked:  # leaving the text box for the button asks already
            return
        self._asked = query
        self._say("Separating …")
        self.result.value = ""
        try:
            estimate = self.separator(self.mixture, query, sample_rate=self.sample_rate)
            self.result.value = self._picture(estimate, query)
            self._say(self._describe(estimate))
        except Exception as error:  # a control that dies in silence helps nobody: any failure is told in its line
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            self._say(f"{kind}{' '.join(str(error).split())}", wrong=True)

    def _choose(self, change: dict) -> None:
        if change["new"] != PROMPT:
            self.text.value = change["new"]
            self.choice.value = PROMPT  # so that the same sentence can be chosen again

    def _picture(self, estimate: Tensor, query: str) -> str:
        """Players and spectrograms of the mixture and the answer, as HTML."""
        heard = {"mixture": self.mixture, f"“{query}”": estimate}
        with capture_output(stdout=False, stderr=False) as captured:
            play_many(heard, sample_rate=self.sample_rate)
            plots.spectrograms(
                {name: stft(to_mono(torch.atleast_2d(sound))) for name, sound in heard.items()},
                alt=f"Spectrograms of the mixture and of what the query “{query}” keeps of it.",
                sample_rate=self.sample_rate,
                hop_length=HOP_LENGTH,
            )
        return "".join(output.data["text/html"] for output in captured.outputs)

    def _describe(self, estimate: Tensor) -> str:
        """The answer's level, and how near it is to each known source."""
        energy = estimate.square().sum() / self.mixture.square().sum().clamp(min=1e-12)
        if energy < 1e-6:
            return "Nothing is kept: the answer is silent."
        words = [f"Level {10 * float(energy.log10()):+.1f} dB re the mixture."]
        scores = {
            name: round(float(si_sdr(estimate=estimate.flatten(), target=source.flatten())), 1) + 0.0  # no -0.0
            for name, source in self.sources.items()
        }
        if scores:
            words.append("SI-SDR " + ", ".join(f"{score:+.1f} dB to {name}" for name, score in scores.items()) + ".")
        return " ".join(words)

    def _say(self, words: str, *, wrong: bool = False) -> None:
        """One line of status; a failure is marked by a word, not by colour alone."""
        text = html.escape(words)
        self.status.value = f'<b style="color:#b3261e">Not possible:</b> {text}' if wrong else text
