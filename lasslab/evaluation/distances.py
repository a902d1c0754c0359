"""Metrics that compare sounds in an embedding: for systems that make new waveforms, on which SDR has nothing to say.

A generated dog may be a fine dog and share no sample with the one that was in the mixture. These metrics ask other
questions, each of another object:

- Fréchet distance (FAD, FD): do the estimates, **as a set**, lie where the targets lie? No pairing.
- KL: would a classifier say the same of each estimate as of its target? Paired.
- Inception Score: is a classifier sure of each estimate, and are the estimates various? Needs no target.
- CLAPScore: does the estimate fit the **query**? CLAPScore_A: is it like the **target**? Paired, cosines times 100.
- Log-spectral distance, mel distance: how far apart are the spectra in dB, bin by bin or in bands as broad as the
  ear's? Paired, need no embedding.

All of them but the last two take embeddings (n, D) or class probabilities (n, K) that were computed before, see
`lasslab.models.clap`, and depend on it: a figure without the embedding's name is no figure.
`heading("FAD", embedding)` gives "FAD (clap-lab)"; `embedding_metrics` computes the whole row with such headings.

Sums run in float64. Notebook 08 shows how each of these can be fooled.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lasslab.models.clap import AudioTextEmbedding
from lasslab.signal.audio import SAMPLE_RATE, check_waveform
from lasslab.signal.mel import MelConfig, mel_spectrogram
from lasslab.signal.spectral import stft

PROBABILITY_FLOOR = 1e-6  # AudioLDM's evaluation: one class that was given 0 shall not make the KL infinite
LSD_TOP_DB = 80.0


class FewSamples(UserWarning):
    """A Fréchet distance from fewer sounds than the embedding has dimensions: its bias is of its own size."""


def frechet_distance(*, estimate: Tensor, target: Tensor) -> Tensor:
    """Fréchet distance between two sets of embeddings, each described by one Gaussian (FAD, FD).

    d = |mu_e - mu_t|^2 + tr(C_e + C_t - 2 (C_e C_t)^(1/2)), with covariances over n - 1. 0 for equal means and
    covariances, whatever the samples and their order.

    The trace term is computed without a covariance or a matrix square root. With the centred embeddings A, scaled so
    that C = A' A, the eigenvalues of C_e C_t are the squared singular values of A_e A_t': their sum is
    tr (C_e C_t)^(1/2). No root of a rounded negative number arises, not even for singular covariances, where scipy's
    sqrtm needs a small constant and a discarded imaginary part.

    The estimate of d is too high for few samples, by about a constant over n, and the more dimensions the more.
    For fewer than D + 1 samples a covariance is singular, which the formula allows; a `FewSamples` warning says so.

    Args:
        estimate: embeddings (n, D), n >= 2.
        target: embeddings (m, D), m >= 2; m need not be n.

    Returns:
        The distance, a float64 scalar, 0 or more, in squared units of the embedding.

    Raises:
        ValueError: fewer than two samples, widths that differ, NaN or infinite values.

    Reference: Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982; Kilgour et
    al., "Fréchet audio distance", Interspeech 2019. Notebook: 08.
    """
    estimate, target = _checked_sets(estimate, target, fewest=2)
    fewest, dim = min(len(estimate), len(target)), estimate.shape[1]
    if fewest <= dim:
        warnings.warn(
            f"a Fréchet distance from {fewest} sounds in {dim} dimensions has a singular covariance and a large bias: "
            f"use more than {dim} sounds, and compare only figures of equal numbers",
            FewSamples,
            stacklevel=2,
        )
    means = estimate.mean(dim=0), target.mean(dim=0)
    factors = [
        (samples - mean) / (len(samples) - 1) ** 0.5 for samples, mean in zip((estimate, target), means, strict=True)
    ]
    traces = sum(factor.square().sum() for factor in factors)
    # R of A = Q R has R' R = A' A and at most D rows: the product below is small however many samples there are
    small = [torch.linalg.qr(factor, mode="r").R for factor in factors]
    cross = torch.linalg.svdvals(small[0] @ small[1].T).sum()
    return ((means[0] - means[1]).square().sum() + traces - 2 * cross).clamp(min=0)


def kl_divergence(*, estimate: Tensor, target: Tensor) -> Tensor:
    """How surprised somebody who expects the estimate's classes is by the target's: KL(target || estimate).

    KL = sum_k p_k log(p_k / (q_k + 1e-6)), p of the target, q of the estimate; natural logarithm, pair by pair. This is
    the direction and the floor of AudioLDM's evaluation. The floor bounds a pair at 13.8, and lets KL of equal
    probabilities fall below 0 by up to 1e-6 a class.

    Args:
        estimate: class probabilities (n, K).
        target: class probabilities (n, K) of the same items.

    Returns:
        Divergence of each pair, float64, (n,), in nats.

    Raises:
        ValueError: shapes that differ, or rows that are no probabilities.

    Reference: Kreuk et al., "AudioGen", 2023; Liu et al., "AudioLDM", 2023. Notebook: 08.
    """
    estimate, target = _probabilities(estimate, "estimate"), _probabilities(target, "target")
    if estimate.shape != target.shape:
        raise ValueError(
            f"probabilities are compared in pairs, got {tuple(estimate.shape)} and {tuple(target.shape)}: "
            "give one row for each item, in the same order"
        )
    return torch.special.xlogy(target, target).sum(-1) - (target * (estimate + PROBABILITY_FLOOR).log()).sum(-1)


def inception_score(*, estimate: Tensor) -> Tensor:
    """Sure of each, and various as a whole: exp of the mean KL(p(y | x) || p(y)).

    p(y) is the mean of the probabilities over the set. From 1 (all the same, or no idea) to the number of classes K
    (sure of each, all classes equally often). It knows no target: any confident set of sounds scores high.

    Args:
        estimate: class probabilities (n, K), n >= 2.

    Returns:
        The score, a float64 scalar, over the whole set (no splits).

    Raises:
        ValueError: fewer than two rows, or rows that are no probabilities.

    Reference: Salimans et al., "Improved techniques for training GANs", 2016. Notebook: 08.
    """
    estimate = _probabilities(estimate, "estimate")
    if len(estimate) < 2:
        raise ValueError("the Inception Score of one sound is always 1: give two at least")
    marginal = estimate.mean(dim=0, keepdim=True)
    divergence = torch.special.xlogy(estimate, estimate).sum(-1) - torch.special.xlogy(estimate, marginal).sum(-1)
    return divergence.mean().exp()


def clap_score(*, estimate: Tensor, query: Tensor) -> Tensor:
    """CLAPScore: 100 cos(audio, text), how well each estimate fits its query.

    Args:
        estimate: audio embeddings (n, D).
        query: text embeddings (n, D) of the same items, from the same model.

    Returns:
        Score of each item, float64, (n,), -100 to 100.

    Raises:
        ValueError: shapes that differ, NaN or infinite values, or an embedding of length 0.

    Reference: Xiao et al., "A reference-free metric for language-queried audio source separation using CLAP", 2024;
    FlowSep. Notebook: 08.
    """
    return _cosine(estimate, query)


def clap_score_audio(*, estimate: Tensor, target: Tensor) -> Tensor:
    """CLAPScore_A: 100 cos(audio, audio), how like its target each estimate is.

    Args:
        estimate: audio embeddings (n, D).
        target: audio embeddings (n, D) of the same items, from the same model.

    Returns:
        Score of each item, float64, (n,), -100 to 100.

    Raises:
        ValueError: see `clap_score`.

    Reference: FlowSep; the thesis. Notebook: 08.
    """
    return _cosine(estimate, target)


def log_spectral_distance(
    *, estimate: Tensor, target: Tensor, n_fft: int = 2048, hop_length: int = 512, top_db: float = LSD_TOP_DB
) -> Tensor:
    """Log-spectral distance: root mean square, over the bins, of the difference of levels in dB; mean over the frames.

    LSD = mean_n sqrt(mean_k (L_e[k, n] - L_t[k, n])^2),  L = 20 log10 max(|X|, floor), the floor `top_db` below the
    target's loudest bin. It is symmetric but for the floor, hears no phase, and gives quiet bins the weight of loud
    ones. Some papers leave out the factor 10 before the log10 of the power: theirs are a tenth of ours.

    Args:
        estimate: (..., T).
        target: (..., T), not silent.
        n_fft: STFT frame, samples.
        hop_length: samples between frames.
        top_db: how far below the target's loudest bin levels are told apart, dB.

    Returns:
        Distance in dB, float64, (...), at most about `top_db` plus what the estimate is louder.

    Raises:
        ValueError: the shapes differ, a sample is NaN or infinite, a target is silent, or a frame does not fit.

    Reference: Gray and Markel, "Distance measures for speech processing", 1976. Notebook: 08.
    """
    levels = _levels(estimate, target, lambda w: stft(w.double(), n_fft=n_fft, hop_length=hop_length).abs(), top_db)
    return (levels[0] - levels[1]).square().mean(dim=-2).sqrt().mean(dim=-1)


def log_mel_distance(
    *, estimate: Tensor, target: Tensor, config: MelConfig | None = None, top_db: float = LSD_TOP_DB
) -> Tensor:
    """Mel distance: mean absolute difference of the levels of mel bands in dB.

    d = mean_mn |L_e[m, n] - L_t[m, n]|,  L = 20 log10 max(mel, floor), the floor `top_db` below the target's loudest
    band. Bands are broad where the ear is coarse, so that the fine structure of noise, which no two recordings share,
    counts for less than in `log_spectral_distance`.

    Args:
        estimate: (..., T).
        target: (..., T), not silent.
        config: of the mel spectrograms; MelConfig() when left out.
        top_db: how far below the target's loudest band levels are told apart, dB.

    Returns:
        Distance in dB, float64, (...).

    Raises:
        ValueError: see `log_spectral_distance`.
    """
    levels = _levels(estimate, target, lambda waveform: mel_spectrogram(waveform, config).double(), top_db)
    return (levels[0] - levels[1]).abs().mean(dim=(-2, -1))


def _levels(
    estimate: Tensor, target: Tensor, magnitudes_of: Callable[[Tensor], Tensor], top_db: float
) -> tuple[Tensor, Tensor]:
    """Levels of both in dB, from a floor `top_db` below the target's loudest point on."""
    for name, waveform in (("the estimate", estimate), ("the target", target)):
        check_waveform(waveform, name=name, dims=tuple(range(1, 9)))
    if estimate.shape != target.shape:
        raise ValueError(
            f"estimate and target must have the same shape (..., T), got {tuple(estimate.shape)} and "
            f"{tuple(target.shape)}: crop both to one length with fit_length"
        )
    if not top_db > 0:
        raise ValueError(f"top_db must be positive, got {top_db}: use 80")
    ours, theirs = magnitudes_of(estimate), magnitudes_of(target)
    loudest = theirs.amax(dim=(-2, -1), keepdim=True)
    if not bool((loudest > 0).all()):
        raise ValueError("a target is silent: it has no level to compare with, leave that item out")
    floor = loudest * 10 ** (-top_db / 20)
    return 20 * torch.log10(torch.maximum(ours, floor)), 20 * torch.log10(torch.maximum(theirs, floor))


def heading(metric: str, embedding: AudioTextEmbedding | str) -> str:
    """Heading of a column: the metric and the embedding it was computed in, "FAD (clap-lab)".

    Args:
        metric: its name.
        embedding: the embedding, or its name.

    Returns:
        The heading.
    """
    return f"{metric} ({embedding if isinstance(embedding, str) else embedding.name})"


def embedding_metrics(
    *,
    estimate: Tensor,
    target: Tensor,
    queries: Sequence[str],
    embedding: AudioTextEmbedding,
    sample_rate: int = SAMPLE_RATE,
) -> dict[str, Tensor]:
    """Every metric of this module that needs an embedding, for one system.

    Args:
        estimate: waveforms (n, T), n >= 2.
        target: waveforms (n, T') of the same items.
        queries: the n sentences that were asked.
        embedding: see `lasslab.models.clap.load_clap`.
        sample_rate: Hz.

    Returns:
        Heading -> value: "FAD (name)" and "IS (name)" are scalars of the set; "KL (name)", "CLAPScore (name)" and
        "CLAPScore_A (name)" are (n,), one for each item.

    Raises:
        ValueError: see the metrics.
    """
    if not len(estimate) == len(target) == len(queries):
        raise ValueError(
            f"{len(estimate)} estimates, {len(target)} targets and {len(queries)} queries: give one of each an item"
        )
    audio, classes = embed_and_classify(embedding, estimate, sample_rate=sample_rate)
    reference, expected = embed_and_classify(embedding, target, sample_rate=sample_rate)
    values = {
        "FAD": frechet_distance(estimate=audio, target=reference),
        "KL": kl_divergence(estimate=classes, target=expected),
        "IS": inception_score(estimate=classes),
        "CLAPScore": clap_score(estimate=audio, query=embedding.embed_text(queries)),
        "CLAPScore_A": clap_score_audio(estimate=audio, target=reference),
    }
    return {heading(metric, embedding): value for metric, value in values.items()}


def embed_and_classify(
    embedding: AudioTextEmbedding, waveforms: Tensor, *, sample_rate: int = SAMPLE_RATE
) -> tuple[Tensor, Tensor]:
    """Embeddings (n, D) and class probabilities (n, K) of waveforms (n, T), in one pass where the embedding has one."""
    if hasattr(embedding, "embed_and_classify"):
        return embedding.embed_and_classify(waveforms, sample_rate=sample_rate)
    return (
        embedding.embed_audio(waveforms, sample_rate=sample_rate),
        embedding.classify(waveforms, sample_rate=sample_rate),
    )


def _checked_sets(estimate: Tensor, target: Tensor, *, fewest: int) -> tuple[Tensor, Tensor]:
    for name, samples in (("estimate", estimate), ("target", target)):
        if samples.ndim != 2 or len(samples) < fewest or not samples.shape[1]:
            raise ValueError(
                f"{name} must be embeddings (n, D) with n >= {fewest}, got shape {tuple(samples.shape)}: "
                "embed more sounds"
            )
        if not samples.isfinite().all():
            raise ValueError(f"the {name}'s embeddings have NaN or infinite values: look at the sounds behind them")
    if estimate.shape[1] != target.shape[1]:
        raise ValueError(
            f"embeddings are {estimate.shape[1]} and {target.shape[1]} wide: use one model for both, no two compare"
        )
    return estimate.detach().cpu().double(), target.detach().cpu().double()


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    first, second = _checked_sets(first, second, fewest=1)
    if len(first) != len(second):
        raise ValueError(f"embeddings are compared in pairs, got {len(first)} and {len(second)}: give one of each")
    lengths = first.norm(dim=-1) * second.norm(dim=-1)
    if not bool((lengths > 0).all()):
        raise ValueError("an embedding has length 0 and points nowhere: look at the sound behind it")
    return 100 * (first * second).sum(dim=-1) / lengths


def _probabilities(values: Tensor, name: str) -> Tensor:
    if values.ndim != 2 or not values.numel():
        raise ValueError(f"{name} must be class probabilities (n, K), got shape {tuple(values.shape)}")
    values = values.detach().cpu().double()
    if not (values.isfinite().all() and (values >= 0).all() and ((values.sum(-1) - 1).abs() < 1e-3).all()):
        raise ValueError(f"a row of {name} is no probability distribution: give softmax outputs, not logits")
    return values
