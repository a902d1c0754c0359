"""The metrics of `distances` for everything in a table: collected batch by batch, scored at the end.

Every waveform is embedded once, and target and query once for all systems. Means of items have the bootstrap interval
of `metrics.bootstrap_interval`, figures of a set that of `resampling`; the same draws serve all systems, so that their
differences are paired. Notebook 08.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lasslab.evaluation.distances import (
    clap_score,
    clap_score_audio,
    embed_and_classify,
    inception_score,
    kl_divergence,
    log_mel_distance,
    log_spectral_distance,
)
from lasslab.evaluation.metrics import mean_interval
from lasslab.evaluation.resampling import (
    N_RESAMPLES,
    centred_figure,
    draw_items,
    quiet_frechet,
    resample_frechet,
    resample_inception,
)
from lasslab.evaluation.tables import CONFIDENCE
from lasslab.models.clap import AudioTextEmbedding
from lasslab.signal.audio import fit_length
from lasslab.signal.mel import MelConfig

#: figures of a set, and the least that each can be
SET_METRICS = {"fad": 0.0, "is": 1.0}
ITEM_METRICS = ("kl", "clap_score", "clap_score_a", "lsd", "mel")
N_FFT = 2048  # of the log-spectral distance, the longest frame of any metric; shorter clips are padded with silence


@dataclass(frozen=True, eq=False)
class EmbeddingScores:
    """What one system, floor or ceiling scored.

    Args:
        items: each of `ITEM_METRICS`, and further metrics of items, -> (n,); NaN where one is undefined.
        sets: each of `SET_METRICS` -> the figure, and its replicates (R,); empty for fewer than two items.
        seed: of the bootstrap.
    """

    items: dict[str, Tensor]
    sets: dict[str, tuple[float, Tensor]]
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Metric -> value and interval, of the set's figures also their bias; None where it is undefined."""
        found: dict[str, Any] = {}
        for metric, lowest in SET_METRICS.items():
            if metric not in self.sets:
                found[metric] = {"value": None, "interval": None, "bias": None}
                continue
            figure = centred_figure(*self.sets[metric], confidence=CONFIDENCE, lowest=lowest)
            interval = [figure.low, figure.high]
            found[metric] = {"value": figure.value, "interval": interval, "bias": figure.bias}
        for metric, values in self.items.items():
            found[metric] = _mean(values, self.seed)
        return found

    def minus(self, other: "EmbeddingScores") -> dict[str, Any]:
        """Paired differences to another system on the same items, as in `to_json`."""
        found: dict[str, Any] = {}
        for metric in SET_METRICS:
            if metric not in self.sets:
                found[metric] = {"value": None, "interval": None}
                continue
            (value, replicates), (other_value, other_replicates) = self.sets[metric], other.sets[metric]
            figure = centred_figure(value - other_value, replicates - other_replicates, confidence=CONFIDENCE)
            found[metric] = {"value": figure.value, "interval": [figure.low, figure.high]}
        for metric, values in self.items.items():
            found[metric] = _mean(values - other.items[metric], self.seed)
        return found


def _mean(values: Tensor, seed: int) -> dict[str, Any]:
    values = values[values.isfinite()]
    if not len(values):
        return {"value": None, "interval": None}
    return {"value": values.mean().item(), "interval": mean_interval(values, confidence=CONFIDENCE, seed=seed)}


@dataclass(frozen=True, eq=False)
class EmbeddingReport:
    """The part of a report that stands on an embedding.

    Args:
        about: name, weights and sizes of the embedding.
        own: the system's scores.
        floors: those of the floors and ceilings.
    """

    about: dict[str, Any]
    own: EmbeddingScores
    floors: dict[str, EmbeddingScores]

    def to_json(self) -> dict[str, Any]:
        """The section "embedding" of a report."""
        return {
            **self.about,
            "metrics": self.own.to_json(),
            "floors": {name: scores.to_json() for name, scores in self.floors.items()},
            "against_mixture": self.own.minus(self.floors["mixture"]),
        }


class EmbeddingScorer:
    """Collects embeddings, then scores them.

    Args:
        embedding: see `lasslab.models.clap.load_clap`.
        n: number of items.
        names: what is scored: systems, floors, ceilings.
        sample_rate: of the waveforms, Hz.
    """

    def __init__(self, embedding: AudioTextEmbedding, *, n: int, names: Sequence[str], sample_rate: int) -> None:
        self.embedding, self.n, self.sample_rate = embedding, n, sample_rate
        self.names = tuple(names)
        self.queries = [""] * n
        self._audio: dict[str | None, Tensor] = {}  # None is the target
        self._classes: dict[str | None, Tensor] = {}
        self._texts: dict[str, Tensor] = {}
        self._lsd = {name: torch.empty(n, dtype=torch.float64) for name in names}
        self._mel = {name: torch.empty(n, dtype=torch.float64) for name in names}

    def add(
        self, numbers: Sequence[int], queries: Sequence[str], target: Tensor, estimates: Mapping[str, Tensor]
    ) -> None:
        """Embed a batch.

        Args:
            numbers: positions of its items.
            queries: what was asked, one for each item; "" where nothing was.
            target: (B, T).
            estimates: name -> (B, T), every one of `names`.

        Raises:
            ValueError: what the embedding refuses; names the system.
        """
        for number, query in zip(numbers, queries, strict=True):
            self.queries[number] = query
        self._embed(None, numbers, target)
        padded = fit_length(target, max(target.shape[-1], N_FFT))
        mel = MelConfig(sample_rate=self.sample_rate, f_max=min(8000.0, self.sample_rate / 2))
        for name, estimate in estimates.items():
            try:
                self._embed(name, numbers, estimate)
                pair = {"estimate": fit_length(estimate, padded.shape[-1]), "target": padded}
                self._lsd[name][numbers] = log_spectral_distance(**pair, n_fft=N_FFT)
                self._mel[name][numbers] = log_mel_distance(**pair, config=mel)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error

    def _embed(self, name: str | None, numbers: Sequence[int], waveforms: Tensor) -> None:
        audio, classes = embed_and_classify(self.embedding, waveforms, sample_rate=self.sample_rate)
        for kept, values in ((self._audio, audio), (self._classes, classes)):
            if name not in kept:
                kept[name] = torch.empty(self.n, values.shape[-1])
            kept[name][numbers] = values.float()

    def probabilities(self, name: str | None) -> Tensor:
        """Class probabilities (n, K) of what was collected; the targets' for None."""
        return self._classes[name]

    def scores(
        self, *, seed: int, n_resamples: int = N_RESAMPLES, numbers: Sequence[int] | None = None
    ) -> dict[str, EmbeddingScores]:
        """Score what was collected.

        Args:
            seed: of the bootstrap.
            n_resamples: draws of the items for the figures of a set.
            numbers: score these items alone, as a set of their own; all when left out.

        Returns:
            Name -> scores; CLAPScore is NaN where there was no query ("").
        """
        chosen = torch.arange(self.n) if numbers is None else torch.as_tensor(numbers)
        target, target_classes = self._audio[None][chosen], self._classes[None][chosen]
        queries = [self.queries[number] for number in chosen.tolist()]
        sets: dict[str, dict[str, tuple[float, Tensor]]] = {name: {} for name in self._lsd}
        estimates = {name: self._audio[name][chosen] for name in self._lsd}
        if len(chosen) > 1:
            draws = draw_items(len(chosen), n_resamples=n_resamples, seed=seed)
            for name, replicates in resample_frechet(estimates, target=target, draws=draws).items():
                classes = self._classes[name][chosen]
                sets[name] = {
                    "fad": (quiet_frechet(estimate=estimates[name], target=target), replicates),
                    "is": (inception_score(estimate=classes).item(), resample_inception(classes, draws=draws)),
                }
        return {
            name: EmbeddingScores(
                items={
                    "kl": kl_divergence(estimate=self._classes[name][chosen], target=target_classes),
                    "clap_score": self._clap_score(estimates[name], queries),
                    "clap_score_a": clap_score_audio(estimate=estimates[name], target=target),
                    "lsd": lsd[chosen],
                    "mel": self._mel[name][chosen],
                },
                sets=sets[name],
                seed=seed,
            )
            for name, lsd in self._lsd.items()
        }

    def _clap_score(self, estimate: Tensor, queries: Sequence[str]) -> Tensor:
        asked = [row for row, query in enumerate(queries) if query]
        found = torch.full((len(queries),), torch.nan, dtype=torch.float64)
        if asked:
            texts = self._embed_text([queries[row] for row in asked])
            found[asked] = clap_score(estimate=estimate[asked], query=texts)
        return found

    def _embed_text(self, queries: Sequence[str]) -> Tensor:
        """(n, D), each distinct sentence embedded once."""
        if missing := [query for query in dict.fromkeys(queries) if query not in self._texts]:
            self._texts |= zip(missing, self.embedding.embed_text(missing), strict=True)
        return torch.stack([self._texts[query] for query in queries])

    def about(self, *, n_resamples: int = N_RESAMPLES) -> dict[str, Any]:
        """What the figures stand on: JSON values."""
        encoder = getattr(self.embedding, "text_encoder", None)
        return {
            "name": self.embedding.name,
            "weights_sha256": getattr(self.embedding, "fingerprint", None),
            "text_encoder": getattr(encoder, "name", None),
            "dimensions": self._audio[None].shape[-1],
            "classes": len(self.embedding.labels),
            "items": self.n,
            "n_resamples": n_resamples,
        }
