"""Embedding metrics against scipy's matrix square root, numpy, Gaussians whose distance is known, and their limits."""

import math
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch

from lasslab.evaluation.distances import (
    FewSamples,
    clap_score,
    clap_score_audio,
    embedding_metrics,
    frechet_distance,
    heading,
    inception_score,
    kl_divergence,
    log_mel_distance,
    log_spectral_distance,
)
from lasslab.signal.mel import mel_spectrogram


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def by_sqrtm(estimate: torch.Tensor, target: torch.Tensor) -> float:
    """The textbook way: covariances and a matrix square root."""
    e, t = estimate.double().numpy(), target.double().numpy()
    c_e, c_t = np.cov(e, rowvar=False), np.cov(t, rowvar=False)
    root = scipy.linalg.sqrtm(c_e @ c_t).real
    return float(((e.mean(0) - t.mean(0)) ** 2).sum() + np.trace(c_e + c_t - 2 * root))


# --- Fréchet distance


@pytest.mark.parametrize(("n", "m", "dim"), [(200, 300, 8), (50, 50, 32), (1000, 40, 16)])
def test_frechet_equals_scipy_s_matrix_square_root(n, m, dim):
    turn = noise(dim, dim, seed=3)
    estimate = noise(n, dim, seed=1) @ turn + 0.3
    target = noise(m, dim, seed=2) * torch.linspace(0.1, 3, dim)
    assert frechet_distance(estimate=estimate, target=target).item() == pytest.approx(
        by_sqrtm(estimate, target), rel=1e-9
    )


def test_frechet_of_two_gaussians_is_the_closed_form():
    """Samples whose mean and covariance are exact: for commuting covariances, d = |m|^2 + sum (s_e - s_t)^2."""
    dim = 4
    base = noise(40, dim)
    base = base - base.mean(0)
    base = base @ torch.linalg.inv(torch.linalg.cholesky(base.T @ base / 39)).T  # covariance I
    s_e, s_t, shift = torch.tensor([[1, 2, 0.5, 3], [2, 2, 0.1, 1], [1, 0, -2, 0.5]], dtype=torch.float64)
    distance = frechet_distance(estimate=base * s_e + shift, target=base.flip(0) * s_t)
    assert distance.item() == pytest.approx((shift.square().sum() + (s_e - s_t).square().sum()).item(), abs=1e-9)


def test_frechet_in_one_dimension_is_the_difference_of_means_and_deviations():
    a, b = noise(30, 1, seed=1), 2 * noise(20, 1, seed=2) + 3
    expected = (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2
    assert frechet_distance(estimate=a, target=b).item() == pytest.approx(expected.item(), rel=1e-12)


def test_frechet_hears_no_order_and_no_pairing():
    target = noise(60, 8)
    shuffled = target[torch.randperm(60, generator=torch.Generator().manual_seed(1))]
    assert frechet_distance(estimate=shuffled, target=target).item() == pytest.approx(0, abs=1e-9)


def test_frechet_is_symmetric_turns_with_the_space_and_scales_with_its_square():
    a, b = noise(50, 6, seed=1) + 1, noise(40, 6, seed=2) @ noise(6, 6, seed=3)
    distance = frechet_distance(estimate=a, target=b).item()
    turn = torch.linalg.qr(noise(6, 6, seed=4)).Q
    assert frechet_distance(estimate=b, target=a).item() == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(estimate=a @ turn + 5, target=b @ turn + 5).item() == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(estimate=3 * a, target=3 * b).item() == pytest.approx(9 * distance, rel=1e-9)


def test_frechet_of_few_samples_is_finite_and_not_negative_and_warns():
    """Five sounds in 64 dimensions: both covariances are singular, sqrtm of their product is not to be trusted."""
    a, b = noise(5, 64, seed=1), noise(5, 64, seed=2)
    with pytest.warns(FewSamples, match="5 sounds in 64 dimensions"):
        distance = frechet_distance(estimate=a, target=b)
    # the same through eigenvalues of the symmetric form C_t^(1/2) C_e C_t^(1/2), in numpy
    c_e, c_t = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    values, vectors = np.linalg.eigh(c_t)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ c_e @ root), 0, None)).sum()
    means = ((a.mean(0) - b.mean(0)) ** 2).sum().item()
    assert distance.item() == pytest.approx(means + np.trace(c_e) + np.trace(c_t) - 2 * cross, rel=1e-6)
    with pytest.warns(FewSamples):
        assert 0 <= frechet_distance(estimate=a, target=a.flip(0)).item() < 1e-9


def test_frechet_warns_of_nothing_where_there_are_enough():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(estimate=noise(9, 8), target=noise(9, 8, seed=1))


def test_frechet_of_float32_embeddings_is_that_of_float64():
    a, b = noise(100, 16, seed=1).float(), noise(100, 16, seed=2).float()
    assert frechet_distance(estimate=a, target=b) == frechet_distance(estimate=a.double(), target=b.double())


def test_the_bias_of_frechet_falls_as_one_over_n():
    """Two sets from one Gaussian are 0 apart; what is measured is bias, and n times the bias is about constant."""
    bias = {
        n: np.mean(
            [
                frechet_distance(estimate=noise(n, 8, seed=2 * k), target=noise(n, 8, seed=2 * k + 1)).item()
                for k in range(30)
            ]
        )
        for n in (50, 200)
    }
    assert bias[50] > 0.2
    assert bias[50] * 50 == pytest.approx(bias[200] * 200, rel=0.15)


@pytest.mark.parametrize(
    ("estimate", "target", "words"),
    [
        (noise(1, 4), noise(9, 4), "n >= 2"),
        (noise(9, 4), noise(1, 4), "n >= 2"),
        (noise(4), noise(9, 4), "embeddings"),
        (noise(9, 4), noise(9, 5), "4 and 5 wide"),
        (noise(9, 4) * math.nan, noise(9, 4), "NaN"),
    ],
)
def test_frechet_refuses_what_has_no_distance(estimate, target, words):
    with pytest.raises(ValueError) as error:
        frechet_distance(estimate=estimate, target=target)
    assert words in one_line(error)


# --- probabilities


def test_kl_is_of_the_target_against_the_estimate():
    target = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    estimate = torch.tensor([[0.25, 0.25, 0.5], [0.5, 0.5, 0.0]])
    got = kl_divergence(estimate=estimate, target=target)
    assert got.tolist() == pytest.approx([math.log(2), math.log(2)], abs=1e-5)
    other_way = kl_divergence(estimate=target, target=estimate)
    assert other_way[0] > 5, "the other direction pays for what the estimate adds, up to the floor"


def test_kl_equals_scipy_s_entropy():
    from scipy.stats import entropy

    p, q = noise(20, 36, seed=1).softmax(-1), noise(20, 36, seed=2).softmax(-1)
    expected = [entropy(p[i].numpy(), q[i].numpy()) for i in range(20)]
    assert kl_divergence(estimate=q, target=p).tolist() == pytest.approx(expected, abs=1e-3)


def test_kl_has_a_ceiling_and_none_of_itself():
    one, other = torch.eye(2)[:1], torch.eye(2)[1:]
    assert kl_divergence(estimate=one, target=other).item() == pytest.approx(-math.log(1e-6))
    assert abs(kl_divergence(estimate=one, target=one).item()) < 1e-5


def test_inception_score_at_its_limits():
    assert inception_score(estimate=torch.eye(6)).item() == pytest.approx(6), "sure of each, all different"
    assert inception_score(estimate=torch.full((6, 6), 1 / 6)).item() == pytest.approx(1), "no idea"
    assert inception_score(estimate=torch.eye(6)[:1].repeat(5, 1)).item() == pytest.approx(1), "sure, and all the same"


def test_inception_score_equals_numpy():
    p = noise(30, 10).softmax(-1).numpy()
    expected = np.exp((p * (np.log(p) - np.log(p.mean(0, keepdims=True)))).sum(1).mean())
    assert inception_score(estimate=torch.from_numpy(p)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "rows", [torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 0.6]]), torch.tensor([[math.nan, 1.0]]), torch.ones(3)]
)
def test_logits_are_no_probabilities(rows):
    for metric in (
        lambda: inception_score(estimate=rows),
        lambda: kl_divergence(estimate=rows, target=torch.eye(2)[:1]),
        lambda: kl_divergence(estimate=torch.eye(2)[:1], target=rows),
    ):
        with pytest.raises(ValueError) as error:
            metric()
        assert "probabilit" in one_line(error)


def test_a_score_of_one_sound_and_unpaired_rows_are_refused():
    with pytest.raises(ValueError, match="always 1"):
        inception_score(estimate=torch.eye(3)[:1])
    with pytest.raises(ValueError, match="in pairs"):
        kl_divergence(estimate=torch.eye(3), target=torch.eye(3)[:2])


# --- cosines


def test_clap_scores_are_cosines_in_percent():
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
    b = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-3.0, -4.0]])
    for score in (clap_score(estimate=a, query=b), clap_score_audio(estimate=a, target=b)):
        assert score.tolist() == pytest.approx([100, 0, -100])


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.eye(3), torch.eye(3)[:2], "in pairs"),
        (torch.zeros(3, 3), torch.eye(3), "length 0"),
        (torch.eye(3), torch.eye(4)[:3], "one model"),
    ],
)
def test_clap_scores_refuse_what_has_no_angle(a, b, words):
    with pytest.raises(ValueError) as error:
        clap_score_audio(estimate=a, target=b)
    assert words in one_line(error)


# --- log-spectral distance


def test_lsd_of_a_gain_is_the_gain():
    target = noise(2, 16_000)
    for gain_db in (6.0, -6.0):
        estimate = target * 10 ** (gain_db / 20)
        distance = log_spectral_distance(estimate=estimate, target=target)
        assert distance.tolist() == pytest.approx([6.0, 6.0], abs=0.02)
    assert log_spectral_distance(estimate=-target, target=target).abs().max() < 1e-9, "it hears no phase"


def test_lsd_equals_frames_cut_by_hand():
    target, estimate = noise(16_384, seed=1), 0.3 * noise(16_384, seed=2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    levels = []
    for waveform in (estimate, target):
        padded = np.pad(waveform.numpy(), 1024)
        frames = np.stack([padded[512 * i : 512 * i + 2048] for i in range(33)])
        levels.append(20 * np.log10(np.abs(np.fft.rfft(frames * window, axis=1))))
    expected = np.sqrt(((levels[0] - levels[1]) ** 2).mean(axis=1)).mean()
    got = log_spectral_distance(estimate=estimate, target=target, top_db=300)
    assert got.item() == pytest.approx(expected, rel=1e-6)


def test_mel_distance_of_a_gain_is_the_gain_and_it_hears_no_phase():
    target = 0.1 * noise(2, 16_000)
    for gain_db in (-6.0, 3.0):
        distance = log_mel_distance(estimate=target * 10 ** (gain_db / 20), target=target)
        assert distance.shape == (2,)
        assert distance.tolist() == pytest.approx([abs(gain_db)] * 2, abs=1e-4)
    assert log_mel_distance(estimate=-target, target=target).abs().max() < 1e-5


def test_mel_distance_counts_less_of_what_no_two_noises_share_than_lsd():
    first, second = 0.1 * noise(16_000, seed=1), 0.1 * noise(16_000, seed=2)
    pair = {"estimate": first, "target": second}
    assert log_mel_distance(**pair) < log_spectral_distance(**pair) / 3


def test_mel_distance_of_silence_is_the_height_above_the_floor():
    target = 0.1 * noise(16_000)
    levels = 20 * torch.log10(mel_spectrogram(target.float()).double())
    floor = levels.max() - 60
    expected = (levels.clamp(min=floor) - floor).mean().item()
    found = log_mel_distance(estimate=torch.zeros(16_000), target=target.float(), top_db=60).item()
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("estimate", "target", "options", "words"),
    [
        (torch.ones(4_000), torch.zeros(4_000), {}, "a target is silent"),
        (torch.ones(4_000), torch.ones(5_000), {}, "the same shape"),
        (torch.ones(4_000), torch.ones(4_000), {"top_db": 0}, "top_db must be positive"),
    ],
)
def test_mel_distance_refuses_what_has_no_level(estimate, target, options, words):
    with pytest.raises(ValueError) as error:
        log_mel_distance(estimate=estimate, target=target, **options)
    assert words in one_line(error)


def test_lsd_of_silence_is_bounded_by_the_floor():
    target = noise(16_000)
    distance = log_spectral_distance(estimate=torch.zeros(16_000), target=target, top_db=60)
    assert 30 < distance < 60


@pytest.mark.parametrize(
    ("estimate", "target", "words"),
    [
        (noise(4000), noise(4001), "same shape"),
        (noise(4000), torch.zeros(4000), "silent"),
        (noise(4000) * math.nan, noise(4000), "NaN"),
    ],
)
def test_lsd_refuses_what_has_no_level(estimate, target, words):
    with pytest.raises(ValueError) as error:
        log_spectral_distance(estimate=estimate, target=target)
    assert words in one_line(error)


# --- one row of a table


class Loudness:
    """An embedding that is known by hand: level and brightness of a sound, on the unit circle."""

    name = "by-hand"
    labels = ("low", "high")

    def embed_audio(self, waveforms, *, sample_rate=16_000):
        rough = (waveforms[:, 1:] - waveforms[:, :-1]).square().mean(-1)
        angle = torch.atan2(rough, waveforms.square().mean(-1))
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    def embed_text(self, texts):
        return torch.tensor([[1.0, 0.0] if text == "low" else [0.0, 1.0] for text in texts])

    def classify(self, waveforms, *, sample_rate=16_000):
        return self.embed_audio(waveforms).square()


def test_a_row_names_its_embedding_and_equals_the_metrics():
    time = torch.arange(800) / 800
    target = torch.stack([torch.sin(2 * math.pi * f * time) for f in (3, 10, 200, 300)])
    queries = ["low", "low", "high", "high"]
    embedding = Loudness()
    row = embedding_metrics(estimate=target.flip(0), target=target, queries=queries, embedding=embedding)
    assert list(row) == [f"{m} (by-hand)" for m in ("FAD", "KL", "IS", "CLAPScore", "CLAPScore_A")]
    assert heading("FAD", embedding) == heading("FAD", "by-hand") == "FAD (by-hand)"
    assert row["FAD (by-hand)"].item() == pytest.approx(0, abs=1e-6), "the same set in another order"
    assert (row["CLAPScore_A (by-hand)"] < 99).all(), "but every pair is wrong"
    exact = embedding_metrics(estimate=target, target=target, queries=queries, embedding=embedding)
    assert exact["CLAPScore_A (by-hand)"].tolist() == pytest.approx([100] * 4)
    assert (exact["CLAPScore (by-hand)"] > row["CLAPScore (by-hand)"]).all()
    assert exact["KL (by-hand)"].abs().max() < 1e-5 < row["KL (by-hand)"].min()
    with pytest.raises(ValueError, match="one of each"):
        embedding_metrics(estimate=target, target=target, queries=queries[:2], embedding=embedding)
