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
    log_spectral_distance,
)
from lasslab.evaluation.metrics import bootstrap_interval
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

#: figures of a set, and the least that each can be
SET_METRICS = {"fad": 0.0, "is": 1.0}
ITEM_METRICS = ("kl", "clap_score", "clap_score_a", "lsd")
N_FFT = 2048  # of the log-spectral distance; shorter clips are padded with silence


@dataclass(frozen=True, eq=False)
class EmbeddingScores:
    """What one system, floor or ceiling scored.

    Args:
        items: each of `ITEM_METRICS` -> (n,).
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
        for metric in ITEM_METRICS:
            found[metric] = _mean(self.items[metric], self.seed)
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
        for metric in ITEM_METRICS:
            found[metric] = _mean(self.items[metric] - other.items[metric], self.seed)
        return found


def _mean(values: Tensor, seed: int) -> dict[str, Any]:
    interval = bootstrap_interval(values, confidence=CONFIDENCE, seed=seed)
    return {"value": values.mean().item(), "interval": list(interval)}


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
        self.queries = [""] * n
        self._audio: dict[str | None, Tensor] = {}  # None is the target
        self._classes: dict[str | None, Tensor] = {}
        self._lsd = {name: torch.empty(n, dtype=torch.float64) for name in names}

    def add(
        self, numbers: Sequence[int], queries: Sequence[str], target: Tensor, estimates: Mapping[str, Tensor]
    ) -> None:
        """Embed a batch.

        Args:
            numbers: positions of its items.
            queries: what was asked, one for each item.
            target: (B, T).
            estimates: name -> (B, T), every one of `names`.

        Raises:
            ValueError: what the embedding refuses; names the system.
        """
        for number, query in zip(numbers, queries, strict=True):
            self.queries[number] = query
        self._embed(None, numbers, target)
        padded = fit_length(target, max(target.shape[-1], N_FFT))
        for name, estimate in estimates.items():
            try:
                self._embed(name, numbers, estimate)
                self._lsd[name][numbers] = log_spectral_distance(
                    estimate=fit_length(estimate, padded.shape[-1]), target=padded, n_fft=N_FFT
                )
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error

    def _embed(self, name: str | None, numbers: Sequence[int], waveforms: Tensor) -> None:
        audio, classes = embed_and_classify(self.embedding, waveforms, sample_rate=self.sample_rate)
        for kept, values in ((self._audio, audio), (self._classes, classes)):
            if name not in kept:
                kept[name] = torch.empty(self.n, values.shape[-1])
            kept[name][numbers] = values.float()

    def scores(self, *, seed: int, n_resamples: int = N_RESAMPLES) -> dict[str, EmbeddingScores]:
        """Score what was collected.

        Args:
            seed: of the bootstrap.
            n_resamples: draws of the items for the figures of a set.

        Returns:
            Name -> scores.
        """
        target, target_classes = self._audio[None], self._classes[None]
        distinct = list(dict.fromkeys(self.queries))
        texts = self.embedding.embed_text(distinct)[[distinct.index(query) for query in self.queries]]
        sets: dict[str, dict[str, tuple[float, Tensor]]] = {name: {} for name in self._lsd}
        if self.n > 1:
            draws = draw_items(self.n, n_resamples=n_resamples, seed=seed)
            estimates = {name: self._audio[name] for name in self._lsd}
            for name, replicates in resample_frechet(estimates, target=target, draws=draws).items():
                classes = self._classes[name]
                sets[name] = {
                    "fad": (quiet_frechet(estimate=estimates[name], target=target), replicates),
                    "is": (inception_score(estimate=classes).item(), resample_inception(classes, draws=draws)),
                }
        return {
            name: EmbeddingScores(
                items={
                    "kl": kl_divergence(estimate=self._classes[name], target=target_classes),
                    "clap_score": clap_score(estimate=self._audio[name], query=texts),
                    "clap_score_a": clap_score_audio(estimate=self._audio[name], target=target),
                    "lsd": lsd,
                },
                sets=sets[name],
                seed=seed,
            )
            for name, lsd in self._lsd.items()
        }

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
