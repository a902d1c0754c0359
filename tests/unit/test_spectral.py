"""The STFT chain against analytic answers and independent libraries."""

import math

import librosa
import numpy as np
import pytest
import scipy.signal
import torch

from lasslab.signal.spectral import (
    apply_mask,
    check_cola,
    check_invertible,
    hann_window,
    ideal_binary_mask,
    ideal_ratio_mask,
    istft,
    n_frames,
    phase_sensitive_mask,
    scale_log_magnitude,
    stft,
    unscale_log_magnitude,
    with_phase,
)

FRAMES = [(512, 256), (512, 128), (512, 160), (1024, 160), (512, 400), (2048, 320), (16, 5), (2, 1)]
LENGTHS = [1, 2, 100, 255, 256, 257, 511, 512, 513, 4095, 16_000]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def sine(frequency: float, *, seconds: float = 1.0, sample_rate: int = 16_000, amplitude: float = 1.0) -> torch.Tensor:
    n = torch.arange(int(seconds * sample_rate), dtype=torch.float64)  # a float32 phase drifts by 1e-3
    return (amplitude * torch.sin(2 * math.pi * frequency / sample_rate * n)).float()


# --- window and overlap-add conditions


@pytest.mark.parametrize("n_fft", [2, 16, 512, 1024])
def test_window_is_scipys_periodic_hann(n_fft):
    expected = scipy.signal.get_window("hann", n_fft, fftbins=True)
    assert np.allclose(hann_window(n_fft).numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("n_fft", [0, 1, 511, -4])
def test_odd_or_empty_window_is_refused(n_fft):
    with pytest.raises(ValueError, match=f"even.*got {n_fft}"):
        hann_window(n_fft)


@pytest.mark.parametrize(("hop_length", "constant"), [(256, 1.0), (128, 2.0), (64, 4.0)])
def test_cola_constant_of_hann(hop_length, constant):
    assert check_cola(hann_window(512), hop_length) == pytest.approx(constant, rel=1e-6)


@pytest.mark.parametrize("n_fft", [48, 512])
def test_cola_agrees_with_scipy_for_every_hop(n_fft):
    verdicts = set()
    for hop_length in range(1, n_fft + 1):
        constant = n_fft / 2 / hop_length
        # scipy measures from the median, we from the mean: near the tolerance they may differ
        strict, lenient = (
            scipy.signal.check_COLA("hann", n_fft, n_fft - hop_length, tol=factor * 1e-5 * constant)
            for factor in (0.25, 4)
        )
        if strict:
            assert check_cola(hann_window(n_fft), hop_length) == pytest.approx(constant, rel=1e-5)
        elif not lenient:
            with pytest.raises(ValueError, match=f"hop_length {hop_length} breaks constant overlap-add"):
                check_cola(hann_window(n_fft), hop_length)
        verdicts.add((bool(strict), bool(lenient)))
    assert {(True, True), (False, False)} <= verdicts


def test_hop_beyond_the_window_breaks_cola():
    with pytest.raises(ValueError, match="hop_length 600 breaks"):
        check_cola(hann_window(512), 600)


def test_symmetric_window_breaks_cola():
    with pytest.raises(ValueError, match="breaks constant overlap-add"):
        check_cola(torch.hann_window(512, periodic=False), 256)


@pytest.mark.parametrize("hop_length", [480, 512, 513, 2000])
def test_hop_that_skips_samples_is_refused(hop_length):
    with pytest.raises(ValueError, match=f"hop_length {hop_length} leaves samples.*at most n_fft / 2"):
        check_invertible(hann_window(512), hop_length)
    with pytest.raises(ValueError, match=f"hop_length {hop_length} leaves samples"):
        istft(stft(noise(4000), hop_length=hop_length), hop_length=hop_length, length=4000)


def test_smallest_sum_of_squares_is_known():
    # sin^4 + cos^4 is smallest, 1/2, where both are equal
    assert check_invertible(hann_window(512), 256) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("hop_length", [0, -1])
def test_hop_below_one_sample_is_refused(hop_length):
    with pytest.raises(ValueError, match="at least 1 sample"):
        stft(noise(100), hop_length=hop_length)


# --- forward


@pytest.mark.parametrize(("n_fft", "hop_length"), FRAMES)
@pytest.mark.parametrize("n_samples", LENGTHS)
def test_stft_equals_torch(n_fft, hop_length, n_samples):
    waveform = noise(n_samples)
    expected = torch.stft(
        waveform, n_fft, hop_length, window=torch.hann_window(n_fft), pad_mode="constant", return_complex=True
    )
    spectrum = stft(waveform, n_fft=n_fft, hop_length=hop_length)
    assert spectrum.dtype == torch.complex64
    assert spectrum.shape == (n_fft // 2 + 1, n_frames(n_samples, hop_length))
    assert spectrum.shape[-1] - expected.shape[-1] == (n_samples % hop_length > 0)
    torch.testing.assert_close(spectrum[..., : expected.shape[-1]], expected, rtol=1e-5, atol=2e-5)


def test_stft_equals_librosa():
    waveform = noise(2, 8192)
    expected = librosa.stft(waveform.numpy(), n_fft=512, hop_length=256, pad_mode="constant")
    assert np.allclose(stft(waveform).numpy(), expected, atol=1e-4)


def test_one_frame_is_the_numpy_dft_of_the_windowed_samples():
    waveform = noise(2000)
    frame = waveform[3 * 256 - 256 : 3 * 256 + 256].numpy() * scipy.signal.get_window("hann", 512)
    assert np.allclose(stft(waveform)[:, 3].numpy(), np.fft.rfft(frame), atol=1e-4)


@pytest.mark.parametrize("k", [5, 32, 100, 250])
def test_sine_peaks_in_its_bin_with_its_amplitude(k):
    # at the centre of bin k: |X[k]| = A sum(w) / 2 = A n_fft / 4, half of that beside it, and nothing further
    magnitude = stft(sine(k * 16_000 / 512, amplitude=0.8)).abs()[:, 10]
    assert magnitude.argmax() == k
    assert magnitude[k] == pytest.approx(0.8 * 512 / 4, rel=1e-4)
    assert magnitude[k + 1] == pytest.approx(0.8 * 512 / 8, rel=1e-3)
    assert magnitude[: k - 1].max() < 1e-2 and magnitude[k + 2 :].max() < 1e-2


def test_parseval():
    # sum |X[k]|^2 over all n_fft bins is n_fft times the windowed frame's energy; inner bins count twice
    waveform = noise(512 * 20)
    power = stft(waveform).abs().square()
    both_sides = 2 * power.sum(dim=0) - power[0] - power[-1]
    padded = torch.nn.functional.pad(waveform, (256, 256))
    energy = (padded.unfold(0, 512, 256) * torch.hann_window(512)).square().sum(dim=-1)
    torch.testing.assert_close(both_sides / 512, energy, rtol=1e-4, atol=1e-4)


def test_shift_by_one_hop_shifts_the_frames():
    waveform = noise(5120)
    later = torch.nn.functional.pad(waveform, (256, 0))
    torch.testing.assert_close(stft(later)[:, 3:20], stft(waveform)[:, 2:19], rtol=1e-5, atol=1e-5)


def test_leading_dimensions_are_free():
    waveform = noise(2, 3, 4, 1000)
    spectrum = stft(waveform)
    assert spectrum.shape == (2, 3, 4, 257, 5)
    torch.testing.assert_close(spectrum[1, 2, 3], stft(waveform[1, 2, 3]))
    torch.testing.assert_close(istft(spectrum, length=1000)[0, 1], istft(spectrum[0, 1], length=1000))


def test_input_is_not_changed():
    waveform = noise(1000)
    before = waveform.clone()
    spectrum = stft(waveform)
    spectrum_before = spectrum.clone()
    istft(spectrum, length=1000)
    assert torch.equal(waveform, before) and torch.equal(spectrum, spectrum_before)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (torch.zeros(0), "T >= 1"),
        (torch.zeros(2, 0), "T >= 1"),
        (torch.tensor(1.0), "T >= 1"),
        (torch.zeros(10, dtype=torch.int16), "int16"),
        (torch.zeros(10, dtype=torch.float16), "float16"),
        (torch.zeros(10, dtype=torch.complex64), "complex64"),
    ],
)
def test_unusable_samples_are_refused(waveform, message):
    with pytest.raises(ValueError, match=message):
        stft(waveform)


# --- inverse


@pytest.mark.parametrize(("n_fft", "hop_length"), FRAMES)
@pytest.mark.parametrize("n_samples", LENGTHS)
def test_inverse_is_exact(n_fft, hop_length, n_samples):
    waveform = noise(n_samples)
    spectrum = stft(waveform, n_fft=n_fft, hop_length=hop_length)
    again = istft(spectrum, n_fft=n_fft, hop_length=hop_length, length=n_samples)
    assert again.shape == waveform.shape and again.dtype == torch.float32
    assert (again - waveform).abs().max() < 1e-5


def test_inverse_agrees_with_torch_and_librosa_on_a_masked_spectrum():
    spectrum = stft(noise(8192)) * noise(257, 33, seed=1).abs()
    ours = istft(spectrum, length=8192)
    window = torch.hann_window(512)
    torch.testing.assert_close(ours, torch.istft(spectrum, 512, 256, window=window, length=8192), rtol=1e-4, atol=1e-5)
    theirs = librosa.istft(spectrum.numpy(), n_fft=512, hop_length=256, length=8192)
    # the last half frame of librosa's divisor stops at the last window; ours and torch's go on
    assert np.allclose(ours.numpy()[:-256], theirs[:-256], atol=1e-5)


@pytest.mark.parametrize("n_samples", [511, 767, 1023, 8191])
def test_masked_clip_does_not_end_in_a_click(n_samples):
    # the frame beyond the clip's end is there for this: without it torch's inverse peaks above 1000 here
    spectrum = stft(noise(n_samples)) * noise(257, n_frames(n_samples, 256), seed=1).abs()
    assert istft(spectrum, length=n_samples)[-256:].abs().max() < 2


def test_inverse_is_the_least_squares_solution():
    # at the minimum of |STFT(x) - Y|^2 over all waveforms x, the gradient is zero
    target = torch.complex(noise(257, 9), noise(257, 9, seed=1)).to(torch.complex128)
    nearest = istft(target, length=2048).requires_grad_()
    power = (stft(nearest) - target).abs().square()
    (2 * power.sum() - power[0].sum() - power[-1].sum()).backward()  # over all n_fft bins
    assert nearest.grad.abs().max() < 1e-9 * power.sum()


def test_silence_stays_silent():
    assert torch.equal(istft(stft(torch.zeros(1000)), length=1000), torch.zeros(1000))


def test_float64_is_kept_and_exact():
    waveform = noise(1000).double()
    spectrum = stft(waveform)
    assert spectrum.dtype == torch.complex128
    assert (istft(spectrum, length=1000) - waveform).abs().max() < 1e-13


@pytest.mark.parametrize("length", [0, -1, 1025])
def test_length_without_frames_is_refused(length):
    with pytest.raises(ValueError, match=f"5 frames at hop_length 256 make 1 to 1024 samples, not {length}"):
        istft(stft(noise(1000)), length=length)


@pytest.mark.parametrize("spectrum", [torch.zeros(257, 4), torch.zeros(256, 4) + 0j, torch.zeros(257) + 0j])
def test_wrong_spectrum_is_refused(spectrum):
    with pytest.raises(ValueError, match=r"complex, shape \(\.\.\., 257, N\)"):
        istft(spectrum, length=100)


# --- gradients


def test_gradients_through_the_chain():
    waveform = noise(2, 23).double().requires_grad_()

    def masked(samples):
        spectrum = stft(samples, n_fft=8, hop_length=3)
        return istft(spectrum * spectrum.abs(), n_fft=8, hop_length=3, length=23)

    assert torch.autograd.gradcheck(masked, (waveform,))


def test_gradient_of_scaling_and_masks_is_finite_even_in_silence():
    for clip in (noise(2000), torch.zeros(2000), torch.cat([torch.zeros(1000), noise(1000)])):
        samples = clip.requires_grad_()
        spectrum = stft(samples)
        scaled, low, high = scale_log_magnitude(spectrum.abs())
        mask = ideal_ratio_mask(spectrum, 0.5 * spectrum.detach())
        mask = mask + phase_sensitive_mask(0.5 * spectrum.detach(), spectrum)
        (scaled.sum() + unscale_log_magnitude(scaled, low, high).sum() + mask.sum()).backward()
        assert samples.grad.isfinite().all()


# --- log-magnitude scaling


def test_scaling_spans_zero_to_one_and_returns():
    magnitude = stft(noise(3, 4000)).abs()
    scaled, low, high = scale_log_magnitude(magnitude)
    assert low.shape == high.shape == (3, 1, 1)
    assert torch.equal(scaled.amin(dim=(1, 2)), torch.zeros(3)) and torch.equal(scaled.amax(dim=(1, 2)), torch.ones(3))
    torch.testing.assert_close(unscale_log_magnitude(scaled, low, high), magnitude, rtol=1e-4, atol=0)


def test_scaling_by_hand():
    # 0, -20, -40 and -60 dB with 40 dB kept: 1, 0.5, 0, 0
    magnitude = torch.tensor([[2.0, 0.2], [0.02, 0.002]])
    scaled, low, high = scale_log_magnitude(magnitude, top_db=40)
    torch.testing.assert_close(scaled, torch.tensor([[1.0, 0.5], [0.0, 0.0]]), rtol=0, atol=1e-6)
    assert low.item() == pytest.approx(math.log(0.02), rel=1e-5) and high.item() == pytest.approx(math.log(2))
    restored = unscale_log_magnitude(scaled, low, high)
    torch.testing.assert_close(restored, torch.tensor([[2.0, 0.2], [0.02, 0.02]]), rtol=1e-5, atol=0)


def test_scaling_is_per_clip_and_ignores_its_level():
    magnitude = stft(noise(4000)).abs()
    quiet, loud = scale_log_magnitude(torch.stack([1e-3 * magnitude, 7 * magnitude])).scaled
    torch.testing.assert_close(quiet, loud, rtol=0, atol=1e-5)


def test_scaling_of_a_network_output_matches_decibels():
    magnitude = stft(noise(4000)).abs()
    decibels = librosa.amplitude_to_db(magnitude.numpy(), ref=np.max, amin=1e-10, top_db=80)
    span = -decibels.min()
    assert np.allclose(scale_log_magnitude(magnitude).scaled.numpy(), decibels / span + 1, atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 1e-30, 3.0])
def test_constant_magnitude_scales_to_zero_and_returns(level):
    scaled, low, high = scale_log_magnitude(torch.full((257, 4), level))
    assert torch.equal(scaled, torch.zeros(257, 4))
    torch.testing.assert_close(
        unscale_log_magnitude(scaled, low, high), torch.full((257, 4), level), rtol=1e-4, atol=1e-37
    )


@pytest.mark.parametrize(
    ("magnitude", "top_db"), [(torch.ones(2, 2) + 0j, 80), (torch.ones(2, 2), 0), (torch.ones(3), 9)]
)
def test_scaling_refuses(magnitude, top_db):
    with pytest.raises(ValueError, match="expected a real magnitude|top_db must be positive"):
        scale_log_magnitude(magnitude, top_db=top_db)


# --- masks

S = torch.polar(torch.tensor([[3.0, 1.0, 0.0, 0.0]]), torch.tensor([[0.3, 1.0, 0.0, 0.0]]))
N = torch.polar(torch.tensor([[1.0, 1.0, 2.0, 0.0]]), torch.tensor([[2.0, -1.0, 0.5, 0.0]]))


def test_binary_mask_by_hand():
    assert ideal_binary_mask(S, N).tolist() == [[1, 1, 0, 1]]
    assert ideal_binary_mask(S, N, threshold_db=9.0).tolist() == [[1, 0, 0, 1]]
    assert ideal_binary_mask(S, N, threshold_db=10.0).tolist() == [[0, 0, 0, 1]]  # 3 : 1 is 9.54 dB


@pytest.mark.parametrize(("exponent", "first"), [(1.0, 0.75), (2.0, 0.9), (3.0, 27 / 28)])
def test_ratio_mask_by_hand(exponent, first):
    mask = ideal_ratio_mask(S, N, exponent=exponent)
    torch.testing.assert_close(mask, torch.tensor([[first, 0.5, 0.0, 1.0]]))


def test_ratio_mask_keeps_faint_bins_apart():
    # squared in float32, both magnitudes would be zero
    faint = 1e-30 * torch.ones(1, 1, dtype=torch.complex64)
    assert ideal_ratio_mask(3 * faint, faint).item() == pytest.approx(0.9)


@pytest.mark.parametrize("exponent", [0, -1])
def test_ratio_mask_refuses_exponent(exponent):
    with pytest.raises(ValueError, match="exponent must be positive"):
        ideal_ratio_mask(S, N, exponent=exponent)


def test_phase_sensitive_mask_of_in_phase_opposite_and_quadrature():
    target = torch.tensor([[1.0, 1.0, 1.0, 1.0]]) + 0j
    mixture = torch.tensor([[4.0 + 0j, -2.0 + 0j, 3j, 0.25 + 0j]])
    free = phase_sensitive_mask(target, mixture, limits=None)
    torch.testing.assert_close(free, torch.tensor([[0.25, -0.5, 0.0, 4.0]]))
    torch.testing.assert_close(phase_sensitive_mask(target, mixture), torch.tensor([[0.25, 0.0, 0.0, 1.0]]))


def test_phase_sensitive_mask_is_its_formula_and_the_best_real_gain():
    target, mixture = stft(noise(2000)), stft(noise(2000, seed=1))
    mask = phase_sensitive_mask(target, mixture, limits=None)
    formula = target.abs() / mixture.abs() * torch.cos(target.angle() - mixture.angle())
    torch.testing.assert_close(mask, formula, rtol=1e-3, atol=1e-4)
    error = (target - mask * mixture).abs()
    for nudge in (0.99, 1.01):
        assert (error <= (target - nudge * mask * mixture).abs() + 1e-5).all()


@pytest.mark.parametrize("samples", [noise(2000), torch.zeros(2000)])
def test_silent_interference_leaves_everything(samples):
    target = stft(samples)
    nothing = torch.zeros_like(target)
    for mask in (
        ideal_binary_mask(target, nothing),
        ideal_ratio_mask(target, nothing),
        phase_sensitive_mask(target, target),
    ):
        torch.testing.assert_close(mask, torch.ones_like(mask), rtol=0, atol=1e-6)


def test_silent_target_leaves_nothing():
    interference = stft(noise(2000))
    nothing = torch.zeros_like(interference)
    for mask in (
        ideal_binary_mask(nothing, interference),
        ideal_ratio_mask(nothing, interference),
        phase_sensitive_mask(nothing, interference),
    ):
        assert torch.equal(mask, torch.zeros_like(mask))


def test_masks_separate_sounds_that_share_no_bin():
    low, high = sine(1000, amplitude=0.5), sine(5000, amplitude=0.5)
    mixture = stft(low + high)
    for mask in (
        ideal_binary_mask(stft(low), stft(high)),
        ideal_ratio_mask(stft(low), stft(high)),
        phase_sensitive_mask(stft(low), mixture),
    ):
        estimate = istft(apply_mask(mask, mixture), length=16_000)
        assert 10 * torch.log10(low.square().sum() / (low - estimate).square().sum()) > 40  # dB


def test_better_masks_separate_better():
    # binary < ratio < phase-sensitive (unlimited), on two noises that overlap everywhere
    target, interference = noise(16_000), noise(16_000, seed=1)
    s, n = stft(target), stft(interference)
    masks = [ideal_binary_mask(s, n), ideal_ratio_mask(s, n), phase_sensitive_mask(s, s + n, limits=None)]
    errors = [(s - apply_mask(mask, s + n)).abs().square().sum().item() for mask in masks]
    assert errors == sorted(errors, reverse=True)


def test_applied_mask_keeps_the_mixtures_phase():
    mixture = stft(noise(2000))
    masked = apply_mask(torch.full(mixture.shape, 0.25), mixture)
    torch.testing.assert_close(masked.abs(), 0.25 * mixture.abs())
    torch.testing.assert_close(masked.angle(), mixture.angle())


def test_phase_of_the_mixture_is_given_to_a_magnitude():
    mixture = stft(noise(2000))
    torch.testing.assert_close(with_phase(mixture.abs(), mixture), mixture, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(with_phase(torch.ones(1, 1), torch.zeros(1, 1) + 0j), torch.ones(1, 1) + 0j)


def test_shapes_that_differ_are_refused():
    a, b = stft(noise(1000)), stft(noise(2000))
    for call in (ideal_binary_mask, ideal_ratio_mask, phase_sensitive_mask):
        with pytest.raises(ValueError, match="same shape"):
            call(a, b)
    with pytest.raises(ValueError, match="mask of the spectrum's shape"):
        apply_mask(b.abs(), a)
    for magnitude in (b.abs(), a):  # another shape, a complex one
        with pytest.raises(ValueError, match="expected a real"):
            with_phase(magnitude, a)


def test_a_complex_mask_turns_the_phase():
    spectrum = stft(noise(4000))
    turned = apply_mask(torch.full(spectrum.shape, 0.5j), spectrum)
    torch.testing.assert_close(turned, 0.5j * spectrum)
    torch.testing.assert_close(
        istft(apply_mask(torch.full(spectrum.shape, -1 + 0j), spectrum), length=4000), -noise(4000)
    )
