"""The masking objective: each term against its formula, its best mask, finite gradients, and one step that helps."""

import math

import pytest
import torch
from torch import nn

from lasslab.evaluation.metrics import sdr, si_sdr
from lasslab.models.resunetpp import ResUNetPlusPlus, ResUNetPlusPlusConfig
from lasslab.models.text import TextEmbedding
from lasslab.signal.spectral import stft
from lasslab.training.objectives import (
    Masking,
    MaskingWeights,
    level_db,
    limited_sdr,
    log_magnitude_distance,
    spectral_convergence,
)

RATE = 16_000
EVERY_TERM = MaskingWeights(spectral_convergence=1.0, log_magnitude=1.0, waveform=1.0, sdr=1.0, si_sdr=1.0)
TINY = ResUNetPlusPlusConfig(channels=(4, 4, 8, 8), text_dim=6, text_width=8, head_dim=4, rates=(1,), final_rates=(1,))


def noise(*shape: int, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class LetterEncoder:
    """One token per letter."""

    dim = 6
    name = "letters"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts) -> TextEmbedding:
        self.asked += texts
        (text,) = texts
        codes = torch.tensor([float(ord(letter)) for letter in text])
        return TextEmbedding(torch.sin(codes[:, None] * torch.arange(1.0, 7.0))[None], torch.ones(1, len(text)).bool())


class Constant(nn.Module):
    """A mask of one value that can learn."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, scaled, tokens, token_mask):
        return self.value * torch.ones_like(scaled)


class Given(nn.Module):
    """A mask made beforehand."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.mask = nn.Parameter(mask)

    def forward(self, scaled, tokens, token_mask):
        return self.mask


def batch(n: int = 3, n_samples: int = 4_000, snr_db: float = 0.0) -> dict:
    """Noise below 2 kHz, asked for in noise above 4 kHz."""

    def band(low: int, high: int, seed: int) -> torch.Tensor:
        spectrum = torch.fft.rfft(noise(n, n_samples, seed=seed))
        frequency = torch.arange(spectrum.shape[-1]) * RATE / n_samples
        return torch.fft.irfft(spectrum * ((frequency >= low) & (frequency < high)), n=n_samples)

    return {
        "target": band(0, 2_000, 1),
        "interference": band(4_000, 8_000, 2),
        "snr_db": torch.full((n,), snr_db),
        "query": ["a dog", "rain", "a dog"][:n],
    }


def terms(network: nn.Module, data: dict, weights: MaskingWeights = EVERY_TERM) -> tuple[torch.Tensor, dict]:
    return Masking(LetterEncoder(), weights).loss(network, data, torch.Generator())


# --- the terms


def test_spectral_convergence_of_known_spectra():
    target = noise(3, 5, 7, level=1).abs()
    assert spectral_convergence(estimate=target, target=target).tolist() == [0, 0, 0]
    for gain in (0.0, 0.5, 3.0):
        value = spectral_convergence(estimate=gain * target, target=target)
        assert torch.allclose(value, torch.full((3,), abs(1 - gain)), atol=1e-6)
    a, b = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[0.0, 0.0]]])
    assert spectral_convergence(estimate=b, target=a).item() == 1
    assert spectral_convergence(estimate=torch.tensor([[[3.0, 1.0]]]), target=a).item() == pytest.approx(3 / 5)
    assert spectral_convergence(estimate=a, target=b).isfinite().all(), "a silent target"


def test_log_magnitude_distance_of_known_spectra():
    target = 1 + noise(3, 5, 7, level=0.1).abs()
    assert log_magnitude_distance(estimate=target, target=target).tolist() == [0, 0, 0]
    for gain in (0.5, 2.0, 10.0):
        value = log_magnitude_distance(estimate=gain * target, target=target)
        assert torch.allclose(value, torch.full((3,), abs(math.log(gain))), atol=1e-5)
    # floored 80 dB below the target's loudest bin: silence costs ln(10^4), and not infinity
    flat = torch.ones(2, 5, 7)
    value = log_magnitude_distance(estimate=torch.zeros_like(flat), target=flat)
    assert torch.allclose(value, torch.full((2,), 4 * math.log(10)), atol=1e-4)
    value = log_magnitude_distance(estimate=1e-7 * flat, target=flat, floor_db=20.0)
    assert torch.allclose(value, torch.full((2,), math.log(10)), atol=1e-4)


def test_limited_sdr_is_the_sdr_below_its_ceiling():
    target = noise(4, 8_000, seed=1)
    estimate = 0.7 * target + noise(4, 8_000, seed=2) * torch.tensor([2.0, 1.0, 0.3, 0.01])[:, None]
    for metric, scale_invariant in ((sdr, False), (si_sdr, True)):
        value = limited_sdr(estimate=estimate, target=target, ceiling_db=100.0, scale_invariant=scale_invariant)
        assert torch.allclose(value.double(), metric(estimate=estimate, target=target), atol=0.01)


@pytest.mark.parametrize("ceiling_db", [20.0, 30.0])
def test_the_ceiling_is_soft_and_is_where_it_says(ceiling_db):
    target, other = noise(1, 8_000, seed=1), noise(1, 8_000, seed=2)
    other = other * target.norm() / other.norm()
    for true_db in (-10.0, 0.0, 10.0, 20.0, 30.0, 60.0):
        estimate = target + 10 ** (-true_db / 20) * other
        value = limited_sdr(estimate=estimate, target=target, ceiling_db=ceiling_db).item()
        assert value == pytest.approx(-10 * math.log10(10 ** (-true_db / 10) + 10 ** (-ceiling_db / 10)), abs=0.01)
        assert value < ceiling_db + 0.01
    exact = limited_sdr(estimate=target, target=target, ceiling_db=ceiling_db)
    assert exact.item() == pytest.approx(ceiling_db, abs=0.01)


def test_a_gain_costs_sdr_and_no_si_sdr():
    target = noise(2, 8_000, seed=1)
    half = limited_sdr(estimate=0.5 * target, target=target, ceiling_db=30.0)
    assert torch.allclose(half, torch.full((2,), 10 * math.log10(1 / (0.25 + 0.001))), atol=0.01)
    invariant = limited_sdr(estimate=0.5 * target, target=target, ceiling_db=30.0, scale_invariant=True)
    assert torch.allclose(invariant, torch.full((2,), 30.0), atol=0.01)


# --- the loss


def test_a_perfect_mask_has_the_smallest_loss_there_is():
    data = batch()
    data = data | {"mixture": data["target"], "interference": torch.zeros_like(data["target"])}
    loss, parts = terms(Constant(1.0), data)
    expected = {"spectral_convergence": 0, "log_magnitude": 0, "waveform": 0, "sdr": -3, "si_sdr": -3}
    assert {name: pytest.approx(value.item(), abs=1e-3) for name, value in parts.items()} == expected
    assert loss.item() == pytest.approx(-6, abs=1e-3)
    for value in (0.0, 0.5, 0.9):
        assert terms(Constant(value), data)[0] > loss + 0.1


def test_the_oracle_beats_every_flat_mask():
    data = batch(snr_db=0.0)
    mixture = Masking(LetterEncoder()).estimate(Constant(1.0), data)[0]
    spectra = [stft(mixture[name]).abs() for name in ("target", "interference")]
    oracle = spectra[0].square() / (spectra[0].square() + spectra[1].square() + 1e-12)
    _, best = terms(Given(oracle), data)
    for value in (0.0, 0.25, 0.5, 1.0):
        _, flat = terms(Constant(value), data)
        assert best["spectral_convergence"] < flat["spectral_convergence"] - 0.2
        assert best["sdr"] < flat["sdr"] - 0.5
        assert best["si_sdr"] < flat["si_sdr"] - 0.5 or value == 0
        assert best["waveform"] < flat["waveform"]


def test_the_terms_of_a_flat_mask_are_analytic():
    """Target and interference share no bin, and are equally strong: half the mixture has an SDR of 3.01 dB."""
    _, parts = terms(Constant(0.5), batch(n_samples=32_000), MaskingWeights(1, 0, 1, 1, 1))
    limited = 10 * math.log10(1 / (0.5 + 0.001))
    assert parts["sdr"].item() == pytest.approx(-limited / 10, abs=5e-3)
    assert parts["si_sdr"].item() == pytest.approx(-10 * math.log10(1 / 1.001) / 10, abs=5e-3)
    # | S - |S + N| / 2 |: S / 2 where the target is, N / 2 where it is not
    assert parts["spectral_convergence"].item() == pytest.approx(math.sqrt(0.5), abs=0.02)
    assert "log_magnitude" not in parts


def test_the_loss_is_the_weighted_sum_of_its_terms():
    weights = MaskingWeights(spectral_convergence=0.5, log_magnitude=0.1, waveform=2.0, sdr=1.0, si_sdr=0.25)
    loss, parts = terms(Constant(0.3), batch(), weights)
    assert loss.item() == pytest.approx(sum(getattr(weights, name) * value.item() for name, value in parts.items()))
    assert not any(value.requires_grad for value in parts.values()) and loss.requires_grad
    thesis, parts = terms(Constant(0.3), batch(), MaskingWeights())
    assert set(parts) == {"spectral_convergence", "log_magnitude"}
    assert thesis.item() == pytest.approx(sum(value.item() for value in parts.values()))


@pytest.mark.parametrize("value", [0.0, 1e-20, 1.0])
def test_gradients_are_finite_at_the_ends_of_the_mask(value):
    """The slope of a square root, of a logarithm and of a norm at 0 are all infinite."""
    data = batch()
    network = Given(torch.full_like(stft(data["target"]).abs(), value))
    loss, _ = terms(network, data)
    loss.backward()
    assert loss.isfinite() and network.mask.grad.isfinite().all()
    if value == 0:
        assert network.mask.grad.abs().sum() > 0


def test_gradients_are_finite_in_digital_silence():
    data = batch()
    data["target"][:, 1_000:] = 0
    data["interference"][:, 2_000:] = 0  # the second half of the mixture is exactly 0
    network = Constant(0.5)
    loss, _ = terms(network, data)
    loss.backward()
    assert loss.isfinite() and network.value.grad.isfinite()


def test_the_estimate_is_the_masked_mixture():
    data = batch()
    mixed, spectrum, waveform = Masking(LetterEncoder()).estimate(Constant(0.25), data)
    assert torch.allclose(spectrum, 0.25 * stft(mixed["mixture"]), atol=1e-6)
    assert torch.allclose(waveform, 0.25 * mixed["mixture"], atol=1e-5)
    assert torch.equal(mixed["mixture"], mixed["target"] + mixed["interference"])


def test_a_mixture_that_is_there_is_not_mixed_again():
    data = batch() | {"mixture": noise(3, 4_000, seed=5)}
    mixed, _, waveform = Masking(LetterEncoder()).estimate(Constant(1.0), data)
    assert torch.equal(mixed["mixture"], data["mixture"])
    assert torch.allclose(waveform, data["mixture"], atol=1e-5)


def test_the_network_hears_neither_the_level_nor_the_target():
    heard = []

    class Listener(Constant):
        def forward(self, scaled, tokens, token_mask):
            heard.append((scaled, tokens, token_mask))
            return super().forward(scaled, tokens, token_mask)

    mixture = noise(3, 4_000, seed=5)
    for gain, seed in ((1.0, 1), (0.01, 2)):
        data = batch() | {"mixture": gain * mixture, "target": noise(3, 4_000, seed=seed)}
        terms(Listener(0.5), data)
    (first, tokens, mask), (second, _, _) = heard
    assert torch.allclose(first, second, atol=1e-4)
    assert first.min() >= 0 and first.max() <= 1
    assert mask.sum(1).tolist() == [5, 4, 5] and tokens.shape == (3, 5, 6)


def test_each_sentence_is_encoded_once():
    encoder = LetterEncoder()
    objective = Masking(encoder)
    for _ in range(3):
        objective.loss(Constant(0.5), batch(), torch.Generator())
    assert sorted(encoder.asked) == ["a dog", "rain"]


# --- what the training loop asks for besides


def test_validation_gives_figures_per_example():
    data = batch(snr_db=0.0, n_samples=32_000)
    figures = Masking(LetterEncoder()).validate(Constant(0.5), data)
    assert all(value.shape == (3,) for value in figures.values()) and Masking.monitor in figures
    assert figures["sdr"].tolist() == pytest.approx([3.01] * 3, abs=0.05)
    assert figures["sdri"].tolist() == pytest.approx([3.01] * 3, abs=0.05)
    assert figures["si_sdr"].tolist() == pytest.approx([0.0] * 3, abs=0.05)
    # a target twice as strong: |s|^2 / (|s|^2 / 4 + |s|^2 / 16)
    figures = Masking(LetterEncoder()).validate(Constant(0.5), batch(snr_db=20 * math.log10(2), n_samples=32_000))
    expected = {"sdr": 10 * math.log10(3.2), "sdri": 10 * math.log10(0.8), "si_sdr": 20 * math.log10(2)}
    assert {name: pytest.approx(value.mean().item(), abs=0.05) for name, value in figures.items()} == expected


def test_pictures_share_the_mixture_s_scale():
    pictures = Masking(LetterEncoder()).picture(Constant(0.0), batch())
    assert list(pictures) == ["mixture", "target", "prediction"]
    for picture in pictures.values():
        assert picture.shape == stft(batch()["target"]).shape[1:]
        assert picture.min() >= 0 and picture.max() <= 1
    assert pictures["mixture"].max().item() == pytest.approx(1, abs=1e-5)
    assert not pictures["prediction"].any(), "nothing is black"
    same = Masking(LetterEncoder()).picture(Constant(1.0), batch())
    assert torch.allclose(same["prediction"], same["mixture"], atol=1e-5)
    assert same["target"][:60].mean() > 5 * same["target"][140:].mean(), "low frequencies first"


def test_training_steps_lower_the_loss_on_their_batch():
    torch.manual_seed(0)
    network = ResUNetPlusPlus(TINY).train()
    objective = Masking(LetterEncoder(), EVERY_TERM)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss, _ = objective.loss(network, batch(), torch.Generator())
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[1] < losses[0] and losses[5] < losses[0] - 0.05


def test_half_precision_costs_little():
    """Under autocast the network computes in bfloat16; spectra and losses must not."""
    torch.manual_seed(0)
    network = ResUNetPlusPlus(TINY).train()
    full, _ = terms(network, batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, _ = terms(network, batch())
        exact, _ = terms(Constant(0.37), batch())
    assert half.dtype == torch.float32 and half.item() == pytest.approx(full.item(), rel=0.03)
    assert exact.item() == pytest.approx(terms(Constant(0.37), batch())[0].item(), rel=1e-6)


# --- questions about what is not there


def test_the_level_of_an_estimate_has_a_soft_floor():
    mixture = noise(3, 1_000)
    kept = level_db(estimate=torch.tensor([1.0, 0.1, 0.0])[:, None] * mixture, mixture=mixture, floor_db=30.0)
    expected = [10 * math.log10(ratio + 1e-3) for ratio in (1.0, 0.01, 0.0)]
    torch.testing.assert_close(kept, torch.tensor(expected), atol=1e-4, rtol=0)


def absent_batch(absent: list[bool]) -> dict:
    return batch() | {"absent": torch.tensor(absent)}


def test_an_absent_example_counts_by_its_level_alone():
    weights = MaskingWeights(spectral_convergence=1.0, log_magnitude=1.0, sdr=1.0, si_sdr=1.0, absent=2.0)
    objective = Masking(LetterEncoder(), weights)
    mixed, without = absent_batch([True, True, True]), objective
    total, terms = without.loss(Constant(0.1), mixed, torch.Generator())
    assert set(terms) == {"absent"}
    assert terms["absent"].item() == pytest.approx(math.log10(0.01 + 1e-3), abs=1e-3)
    assert total.item() == pytest.approx(2 * terms["absent"].item(), abs=1e-5)


def test_each_example_has_the_same_weight_whether_its_sound_is_there_or_not():
    objective = Masking(LetterEncoder(), MaskingWeights(1.0, 1.0, 0.0, 1.0, 0.5, absent=1.0))
    network = Constant(0.4)
    total, terms = objective.loss(network, absent_batch([False, True, False]), torch.Generator())
    kept = {key: value[[0, 2]] if torch.is_tensor(value) else [value[0], value[2]] for key, value in batch().items()}
    present, parts = objective.loss(network, kept, torch.Generator())
    assert total.item() == pytest.approx((2 * present.item() + terms["absent"].item()) / 3, abs=1e-5)
    for name, value in parts.items():
        torch.testing.assert_close(terms[name], value)


def test_the_absent_term_teaches_silence_and_gradients_stay_finite():
    objective = Masking(LetterEncoder(), MaskingWeights(absent=1.0))
    for value in (1.0, 0.3, 1e-4):
        network = Constant(value)
        objective.loss(network, absent_batch([True, True, True]), torch.Generator())[0].backward()
        assert network.value.grad.isfinite() and network.value.grad > 0, "less is better"


def test_without_a_weight_an_absent_example_is_passed_over():
    objective = Masking(LetterEncoder(), MaskingWeights())
    network = Constant(0.5)
    total, terms = objective.loss(network, absent_batch([True, False, True]), torch.Generator())
    assert "absent" not in terms and total.isfinite()
    total.backward()
