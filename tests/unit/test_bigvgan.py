"""Vocoders: Snake and its filters against their formulas, published layouts, the shift by half a hop, the call."""

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from lasslab.models.bigvgan import (
    LEVEL_REACH,
    SIZES,
    AMPBlock,
    BigVGAN,
    BigVGANConfig,
    BigVGANVocoder,
    DoubleAMPBlock,
    at_samples,
    convert_pickle,
    convolve,
    load_vocoder,
)
from lasslab.models.checkpoints import save_network
from lasslab.models.discriminators import (
    DiscriminatorConfig,
    Discriminators,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from lasslab.models.snake import AntiAliased, SnakeBeta, downsample, kaiser_sinc, low_pass, upsample
from lasslab.models.vocoders import (
    GriffinLim,
    HiFiGAN,
    centred,
    check_log_mel,
    check_same_mel,
    match_mel,
    mel_distance,
)
from lasslab.signal.mel import MelConfig, griffin_lim, log_mel_spectrogram, mel_filterbank, mel_to_magnitude
from lasslab.signal.spectral import stft

SILENCE = math.log(1e-5)
TINY = BigVGANConfig(
    upsample_rates=(5, 4, 4, 2), upsample_kernels=(15, 8, 8, 4), initial_channels=16,
    block_kernels=(3, 5), block_dilations=((1, 2), (1,)),
)  # fmt: skip
# NVIDIA's layout, tiny; FlowSep's rates and kernels, whose first stage adds a frame
PUBLISHED = {
    "resblock": "1",
    "upsample_rates": [5, 4, 2, 2, 2],
    "upsample_kernel_sizes": [16, 16, 8, 4, 4],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3], [1, 3]],
    "activation": "snakebeta",
    "snake_logscale": True,
    "num_mels": 64,
    "n_fft": 1024,
    "hop_size": 160,
    "win_size": 1024,
    "sampling_rate": 16000,
    "fmin": 0,
    "fmax": 8000,
    "fmax_for_loss": None,
    "segment_size": 8192,
}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sound(n_samples: int = 16_000, *, seed: int = 0) -> torch.Tensor:
    """Noise under a slow envelope and three partials."""
    time = torch.arange(n_samples) / 16_000
    partials = sum(torch.sin(2 * math.pi * frequency * time) for frequency in (220.0, 440.0, 1760.0))
    return 0.1 * random(n_samples, seed=seed) * (1 + torch.sin(6 * time)) + 0.1 * partials


def sine(cycles_per_sample: float, n: int) -> torch.Tensor:
    return torch.sin(2 * math.pi * cycles_per_sample * torch.arange(n, dtype=torch.float32))


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def varied(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """Every parameter drawn anew, Snake's above all: a wrong name must not go unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = 0.5 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.1
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return network


# --- Snake and its filters


@pytest.mark.parametrize("log_scale", [True, False])
def test_snake_is_its_formula(log_scale):
    act = SnakeBeta(3, log_scale=log_scale)
    alpha, beta = torch.tensor([0.5, 1.0, 3.0]), torch.tensor([2.0, 1.0, 0.25])
    with torch.no_grad():
        act.alpha.copy_(alpha.log() if log_scale else alpha)
        act.beta.copy_(beta.log() if log_scale else beta)
    x = random(2, 3, 1, 50)
    expected = x + torch.sin(alpha[:, None, None] * x).square() / beta[:, None, None]
    torch.testing.assert_close(act(x), expected)


def test_snake_starts_with_frequency_and_magnitude_one():
    x = random(1, 2, 1, 9)
    for log_scale in (True, False):
        torch.testing.assert_close(SnakeBeta(2, log_scale=log_scale)(x), x + x.sin().square())


def test_the_filter_is_scipy_s():
    """Kaiser's window by scipy, a sinc by numpy."""
    import numpy as np
    from scipy.signal import kaiser_atten, kaiser_beta
    from scipy.signal.windows import kaiser

    taps = low_pass()
    # scipy counts a width in units of half the sample rate: 4 half widths of 0.3 over 2
    beta = kaiser_beta(kaiser_atten(6, 4 * 0.3))
    n = np.arange(12) - 5.5
    expected = 0.5 * np.sinc(0.5 * n) * kaiser(12, beta)
    assert taps.numpy() == pytest.approx(expected / expected.sum(), abs=1e-6)
    assert torch.equal(taps, taps.flip(0)) and taps.sum() == pytest.approx(1, abs=1e-6)


def test_the_filter_passes_low_and_stops_high_frequencies():
    response = torch.fft.rfft(low_pass().double(), n=4096).abs()  # 0 to half of the doubled rate
    assert response[0] == pytest.approx(1, abs=1e-6)
    assert response[2048 // 2] == pytest.approx(0.5, abs=0.05), "half at the cutoff, a quarter of the rate"
    assert (response[: 2048 // 5] > 0.9).all() and (response[-2048 // 10 :] < 0.02).all()
    steep = kaiser_sinc(cutoff=0.25, half_width=0.03, n_taps=200)  # beta's other formula: above 50 dB
    response = torch.fft.rfft(steep.double(), n=4096).abs()
    assert (20 * response[-800:].log10() < -50).all()
    assert kaiser_sinc(cutoff=0.25, half_width=0.001, n_taps=12).isfinite().all()


@pytest.mark.parametrize("length", [1, 2, 5, 16, 33])
def test_constants_and_lengths_are_kept(length):
    x = torch.full((2, 3, 1, length), 0.7)
    up = upsample(x, low_pass())
    down = downsample(up, low_pass())
    assert up.shape == (2, 3, 1, 2 * length) and down.shape == x.shape
    # each of the two phases of the up-sampling filter sums to 1 but for 0.1 %
    torch.testing.assert_close(up, torch.full_like(up, 0.7), atol=2e-3, rtol=0)
    torch.testing.assert_close(down, x, atol=2e-3, rtol=0)


def test_up_and_down_is_nearly_the_identity_for_band_limited_signals():
    n = 400
    x = torch.stack([sine(f, n) for f in (0.01, 0.05, 0.1, 0.2)])[None, :, None]  # shares of the rate
    back = downsample(upsample(x, low_pass()), low_pass())
    error = (back - x)[..., 20:-20].square().mean(-1) / x[..., 20:-20].square().mean(-1)
    assert (10 * error.log10() < -30).all(), 10 * error.log10()
    stretched = upsample(x, low_pass())[0, 1, 0]
    expected = sine(0.025, 2 * n + 2)[:-2]  # sample 2 k of the doubled rate lies a quarter sample before k
    shifted = torch.sin(2 * math.pi * 0.025 * (torch.arange(2 * n) - 0.5))
    assert (stretched - shifted)[20:-20].abs().max() < 0.03 < (stretched - expected)[20:-20].abs().max()


def test_the_activation_suppresses_aliasing():
    """Snake bends a strong sine of f = 0.11 of the rate: 2 f and 4 f stay, 6 f and 8 f fold back to 0.34 and 0.12."""
    x = 3 * sine(0.11, 1000)[None, None, None]
    act = SnakeBeta(1).requires_grad_(False)
    plain, clean = (
        torch.fft.rfft((out[0, 0, 0, 100:-100] * torch.hann_window(800, periodic=False)).double()).abs()
        for out in (act(x), AntiAliased(act)(x))
    )

    def level(spectrum: torch.Tensor, frequency: float) -> float:
        return 20 * math.log10(spectrum[round(800 * frequency) - 2 : round(800 * frequency) + 3].max().item())

    for harmonic in (0.11, 0.22):
        assert level(clean, harmonic) == pytest.approx(level(plain, harmonic), abs=0.5), "what belongs there stays"
    suppressed = {alias: level(plain, alias) - level(clean, alias) for alias in (0.34, 0.12)}
    assert suppressed[0.34] > 15 and suppressed[0.12] > 40, suppressed


def test_the_activation_is_the_one_of_its_definition():
    """Written with plain one-dimensional convolutions, as the paper's reference describes it."""
    x, taps = random(2, 3, 41), low_pass()
    act = varied(SnakeBeta(3))
    filters = taps.expand(3, 1, 12)
    up = 2 * F.conv_transpose1d(F.pad(x, (5, 5), mode="replicate"), filters, stride=2, groups=3)[..., 15:-15]
    bent = act(up[:, :, None])[:, :, 0]
    expected = F.conv1d(F.pad(bent, (5, 6), mode="replicate"), filters, stride=2, groups=3)
    torch.testing.assert_close(AntiAliased(act)(x[:, :, None])[:, :, 0], expected, atol=1e-6, rtol=1e-5)


def test_constants_are_not_in_checkpoints():
    assert set(AntiAliased(SnakeBeta(2)).state_dict()) == {"act.alpha", "act.beta"}


# --- the generator


@pytest.mark.parametrize("dilation", [1, 3])
def test_layers_are_one_dimensional_convolutions(dilation):
    x = random(2, 4, 30)
    layer = nn.Conv1d(4, 6, 5, padding=2 * dilation, dilation=dilation)
    torch.testing.assert_close(convolve(layer, x[:, :, None])[:, :, 0], layer(x), atol=1e-5, rtol=1e-5)
    up = nn.ConvTranspose1d(4, 6, 16, stride=5, padding=5)
    torch.testing.assert_close(convolve(up, x[:, :, None])[:, :, 0], up(x), atol=1e-5, rtol=1e-5)


def test_blocks_add_to_what_came_in():
    x = random(1, 4, 1, 60)
    for block in (AMPBlock(4, 3, (1, 3), TINY), DoubleAMPBlock(4, 3, (1, 3), TINY)):
        with torch.no_grad():
            for name, parameter in block.named_parameters():
                if "conv" in name:
                    parameter.zero_()
        assert torch.equal(block(x), x)
    single, double = AMPBlock(4, 7, (1, 3, 5), TINY), DoubleAMPBlock(4, 7, (1, 3, 5), TINY)
    n_weights = [sum(p.numel() for name, p in b.named_parameters() if "conv" in name) for b in (single, double)]
    assert n_weights[1] == 2 * n_weights[0]


def test_full_is_flowsep_s_in_size():
    network = BigVGAN(SIZES["full"])
    folded = sum(parameter.numel() for parameter in network.parameters())
    gains = sum(m.weight.shape[0] for m in network.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d))
    assert folded == 13_953_825
    assert folded + gains == 13_964_258, "13.96 M with the gains of the weight norm, as published"
    config = SIZES["full"]
    assert (config.final_tanh, config.frame_levels, config.frame_offset) == (True, False, 80)


def test_lab_is_small_enough_to_ship():
    n_parameters = {name: sum(p.numel() for p in BigVGAN(SIZES[name]).parameters()) for name in ("quick", "lab")}
    assert n_parameters["quick"] < 50_000 < n_parameters["lab"]
    assert 2 * n_parameters["lab"] < 5e6, "bytes in float16"


@pytest.mark.parametrize("n_frames", [1, 2, 7, 40, 63])
def test_every_frame_makes_a_hop_of_samples(n_frames):
    network = BigVGAN(TINY)
    waveform = network(random(2, 64, n_frames) - 5)
    assert waveform.shape == (2, 160 * n_frames) and waveform.abs().max() <= 1
    vocoder = BigVGANVocoder(network, name="tiny", corrections=2)
    assert vocoder(random(2, 64, n_frames) - 5).shape == (2, 160 * n_frames)


def test_examples_of_a_batch_do_not_hear_each_other():
    network = varied(BigVGAN(TINY)).eval()
    log_mel = random(3, 64, 20) - 5
    together = network(log_mel)
    for k in range(3):
        torch.testing.assert_close(together[k], network(log_mel[k : k + 1])[0], atol=1e-5, rtol=1e-4)


def test_a_louder_spectrogram_is_a_louder_waveform_and_nothing_else():
    """What `frame_levels` is for: 60 dB fainter is the same task."""
    network = varied(BigVGAN(TINY)).eval()
    log_mel = random(1, 64, 30) - 2
    loud, faint = network(log_mel), network(log_mel - math.log(1000))
    assert loud.abs().max() < 1
    torch.testing.assert_close(1000 * faint, loud, atol=1e-5, rtol=1e-3)
    plain = varied(BigVGAN(replace(TINY, frame_levels=False))).eval()
    assert not torch.allclose(1000 * plain(log_mel - math.log(1000)), plain(log_mel), atol=1e-3)


def test_silence_is_silent_whatever_the_weights():
    network = varied(BigVGAN(TINY), seed=3).eval()
    log_mel = torch.full((1, 64, 50), SILENCE)
    for corrections in (0, 4):
        waveform = BigVGANVocoder(network, name="tiny", corrections=corrections)(log_mel)
        assert waveform.abs().max() < 1e-3, "below -60 dB"
        assert log_mel_spectrogram(waveform)[..., :50].max() < SILENCE + 4


def test_silence_between_sounds_is_silent():
    log_mel = torch.cat([random(1, 64, 30) - 1, torch.full((1, 64, 40), SILENCE), random(1, 64, 30) - 1], dim=-1)
    waveform = BigVGANVocoder(varied(BigVGAN(TINY)), name="tiny", corrections=4)(log_mel)
    assert waveform[:, 36 * 160 : 64 * 160].abs().max() < 1e-3 < 0.02 < waveform[:, : 30 * 160].abs().max()


def test_levels_run_in_straight_lines_between_frames():
    values = torch.tensor([[0.0, 1.0, -1.0]])
    assert torch.equal(at_samples(values, 4)[0], torch.tensor([0, 0.25, 0.5, 0.75, 1, 0.5, 0, -0.5, -1, -1, -1, -1]))


def test_far_frames_are_not_heard():
    """So a long clip can be vocoded in pieces that know a little of their surroundings."""
    network = varied(BigVGAN(TINY)).eval()
    log_mel = random(1, 64, 200) - 5
    louder = log_mel.clone()
    louder[..., 150:] += 3
    reach = LEVEL_REACH + 20  # frames: levels, and the convolutions besides
    near, far = 160 * 148, 160 * (150 - reach)
    difference = (network(louder) - network(log_mel)).abs()[0]
    assert difference[:far].max() == 0 and difference[far:near].max() > 0


def test_gradients_reach_every_parameter():
    network = varied(BigVGAN(replace(TINY, double_convolution=True)))
    network(random(1, 64, 12) - 3).square().sum().backward()
    still = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hop_length": 100}, "the stages make 160 samples of a frame, hop_length is 100"),
        ({"upsample_kernels": (15, 8, 8)}, "must be as many as upsample_rates"),
        ({"upsample_kernels": (4, 8, 8, 4)}, "each at least its rate"),
        ({"block_kernels": (3, 4)}, "must be odd"),
        ({"block_dilations": ((1,),)}, "one row of block_dilations each"),
        ({"initial_channels": 24}, "cannot be halved 4 times"),
        ({"initial_channels": 0}, "at least 1"),
        ({"upsample_rates": (5, 4, 0, 2)}, "at least 1"),
        ({"f_max": 9000.0}, "sample_rate / 2"),
    ],
)
def test_impossible_sizes_are_refused(change, words):
    with pytest.raises(ValueError, match=words) as error:
        replace(TINY, **change)
    one_line(error)


# --- the last touch


def test_match_mel_leaves_a_waveform_that_has_the_mel():
    waveform = sound()
    log_mel = log_mel_spectrogram(waveform)[None, :, :100]
    matched = match_mel(waveform[None], log_mel, n_iter=2)
    inner = slice(0, -1024)  # the frame centred on the end is not in the mel
    assert (matched - waveform)[:, inner].square().mean() < 1e-8 * waveform[inner].square().mean()


def test_match_mel_comes_nearer_with_every_repetition():
    log_mel = log_mel_spectrogram(sound())[None, :, :100]
    distances, waveform = [], 0.3 * random(1, 16_000, seed=5)
    for _ in range(6):
        distances.append(mel_distance(estimate=log_mel_spectrogram(waveform)[..., :100], target=log_mel).item())
        waveform = match_mel(waveform, log_mel)
    assert all(after < before for before, after in zip(distances[:-1], distances[1:], strict=True))
    assert distances[0] > 0.5 and distances[1] < 0.3 and distances[-1] < 0.15


def test_match_mel_is_its_equation():
    config, waveform = MelConfig(), 0.3 * random(1, 3_200)
    log_mel = log_mel_spectrogram(sound(3_200))[None, :, :20]
    spectrum, filters = stft(waveform, n_fft=1024, hop_length=160), mel_filterbank(config)
    wanted = torch.cat([log_mel, log_mel[..., -1:]], dim=-1).exp()
    gain = wanted / (filters @ spectrum.abs()).clamp_min(1e-5)
    spread = torch.einsum("mk,bmn->bkn", filters, gain) / filters.sum(0).clamp_min(1e-12)[:, None]
    spread[:, 0], spread[:, -1] = spread[:, 1], spread[:, -2]  # no filter reaches 0 Hz and 8 kHz
    expected = torch.istft(spectrum * spread, 1024, 160, window=torch.hann_window(1024), length=3_200, center=True)
    torch.testing.assert_close(match_mel(waveform, log_mel, config), expected, atol=1e-5, rtol=1e-3)
    assert match_mel(waveform, log_mel, config, n_iter=0) is waveform


def test_match_mel_does_not_raise_what_lies_on_the_floor():
    log_mel = torch.full((1, 64, 20), SILENCE)
    for level in (1e-7, 0.3):
        waveform = level * random(1, 3_200)
        matched = match_mel(waveform, log_mel, n_iter=3)
        assert matched.abs().max() < 1.001 * waveform.abs().max() and matched.abs().max() < 1e-4


def test_match_mel_can_be_differentiated():
    waveform = torch.zeros(1, 1_600).requires_grad_()  # at silence, where a magnitude has no slope
    match_mel(waveform, random(1, 64, 10) - 3, n_iter=2).square().sum().backward()
    assert waveform.grad.isfinite().all()
    with pytest.raises(ValueError, match="10 frames .* are 1600 samples, the waveform has 1500") as error:
        match_mel(torch.zeros(1, 1_500), torch.zeros(1, 64, 10))
    one_line(error)


# --- the call


def test_what_is_no_log_mel_is_refused():
    mel = MelConfig()
    for bad in (torch.zeros(64, 10), torch.zeros(1, 80, 10), torch.zeros(1, 64, 0), torch.zeros(1, 64, 10).cfloat()):
        with pytest.raises(ValueError, match=r"a vocoder reads log-mels \(B, 64, N\)") as error:
            check_log_mel(bad, mel)
        one_line(error)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="NaN or infinite"):
            check_log_mel(torch.full((1, 64, 3), value), mel)
    assert check_log_mel(torch.full((1, 64, 3), -80.0), mel).min() == pytest.approx(SILENCE)


def test_another_mel_is_refused_by_name():
    check_same_mel(MelConfig(), MelConfig())
    with pytest.raises(
        ValueError, match="not the vocoder's: hop_length 160 against 256, n_mels 64 against 80;"
    ) as error:
        check_same_mel(MelConfig(), MelConfig(hop_length=256, n_mels=80))
    one_line(error)
    with pytest.raises(ValueError, match="f_max 8000 against 7600"):
        check_same_mel(MelConfig(), MelConfig(f_max=7600.0))


def test_griffin_lim_is_the_package_s():
    vocoder = load_vocoder("griffin-lim")
    assert isinstance(vocoder, GriffinLim) and vocoder.name == "griffin-lim" and vocoder.mel == MelConfig()
    log_mel = log_mel_spectrogram(sound(8_000))[None, :, :50]
    waveform = vocoder(log_mel)
    frames = torch.cat([log_mel, log_mel[..., -1:]], dim=-1).exp()
    expected = griffin_lim(mel_to_magnitude(frames), n_fft=1024, hop_length=160, length=8_000)
    assert waveform.shape == (1, 8_000) and torch.equal(waveform, expected)
    assert torch.equal(waveform, vocoder(log_mel)), "the same at every call"


@pytest.mark.parametrize("vocoder", [GriffinLim(), BigVGANVocoder(varied(BigVGAN(TINY)), name="tiny", corrections=8)])
def test_a_click_stays_where_it_was(vocoder):
    """Sample n hop is the centre of frame n: a click at frame 30 comes back within a quarter of a hop of its place."""
    waveform = torch.zeros(1, 16_000)
    waveform[0, 4_800] = 1.0
    made = vocoder(log_mel_spectrogram(waveform)[..., :100])
    energy = made[0].square()
    centre = (energy * torch.arange(16_000)).sum() / energy.sum()
    assert abs(centre.item() - 4_800) < 40, centre


class Painter(nn.Module):
    """A network that paints each frame's loudest mel's level as one sample, `offset` after the frame's beginning."""

    def __init__(self, offset: int, extra: int) -> None:
        super().__init__()
        self.offset, self.extra = offset, extra

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        waveform = torch.zeros(len(log_mel), log_mel.shape[-1] * 160 + self.extra)
        waveform[:, self.offset :: 160][:, : log_mel.shape[-1]] = log_mel.amax(dim=1)
        return waveform


@pytest.mark.parametrize("extra", [0, 32])
def test_a_shift_of_half_a_hop_is_put_right(extra):
    log_mel = random(2, 64, 9)
    made = centred(Painter(80, extra), log_mel, offset=80, hop_length=160)
    assert made.shape == (2, 9 * 160)
    assert torch.equal(made[:, ::160], log_mel.amax(dim=1)), "frame n on sample n hop, the last one too"
    as_it_is = centred(Painter(0, extra), log_mel, offset=0, hop_length=160)
    assert torch.equal(as_it_is, made)


def test_published_frames_are_centred_half_a_hop_later():
    """Why the shift: their padding of (n_fft - hop) / 2 centres the frame n that hears a click at n hop + hop / 2."""
    for position in (800, 880):
        waveform = torch.zeros(4_000)
        waveform[position] = 1.0
        padded = F.pad(waveform, (432, 432))
        theirs = padded.unfold(0, 1024, 160)[:24] * torch.hann_window(1024)
        ours = stft(waveform, n_fft=1024, hop_length=160)
        levels = {"theirs": theirs.square().sum(1).sqrt(), "ours": ours[0].abs()[:24]}
        n = position // 160
        symmetric = {name: abs(level[n + 1] - level[n - 1]).item() < 1e-6 for name, level in levels.items()}
        assert symmetric == {"theirs": position == 880, "ours": position == 800}


# --- checkpoints: ours


def lab_folder(folder: Path, *, config: BigVGANConfig = TINY, **fields) -> Path:
    about = {"system": "vocoder", "architecture": "bigvgan", "network": config.to_dict(), "corrections": 2} | fields
    return save_network(folder, varied(BigVGAN(config)), about)


def test_a_checkpoint_comes_back(tmp_path):
    vocoder = load_vocoder(lab_folder(tmp_path / "tiny"))
    log_mel = random(1, 64, 12) - 4
    assert (vocoder.name, vocoder.corrections, vocoder.mel) == ("tiny", 2, MelConfig())
    expected = match_mel(varied(BigVGAN(TINY))(log_mel), log_mel, n_iter=2).clamp(-1, 1)
    torch.testing.assert_close(vocoder(log_mel), expected.detach())
    assert not vocoder.network.training and not vocoder(log_mel).requires_grad


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"system": "mask"}, "it is of a 'mask' model, expected 'vocoder'"),
        ({"architecture": "vocos"}, "expected architecture 'bigvgan'"),
        ({"corrections": -1}, "corrections of 0 or more"),
        ({"corrections": "many"}, "corrections is 'many'"),
        ({"colour": 1}, "unknown fields colour"),
        ({"network": {"initial_channels": "many"}}, "initial_channels is 'many'"),
        ({"network": {"hop_length": 99}}, "BigVGANConfig refuses its values"),
        ({"network": TINY.to_dict() | {"initial_channels": 32}}, "wrongly shaped weights"),
        ({"network": TINY.to_dict() | {"double_convolution": True}}, "missing weights"),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path, change, words):
    folder = lab_folder(tmp_path / "tiny", **change)
    with pytest.raises(ValueError, match=words) as error:
        load_vocoder(folder)
    assert str(folder) in one_line(error)


def test_damaged_folders_are_one_line(tmp_path):
    folder = lab_folder(tmp_path / "tiny")
    about = json.loads((folder / "config.json").read_text())
    del about["network"]
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="missing field network") as error:
        load_vocoder(folder)
    one_line(error)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_vocoder(folder)
    other = lab_folder(tmp_path / "other")
    (other / "model.safetensors").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ValueError, match="holds a pickle") as error:
        load_vocoder(other)
    one_line(error)
    with pytest.raises(ValueError, match="no checkpoint 'nothing'.*or 'griffin-lim', or a hub name") as error:
        load_vocoder("nothing")
    one_line(error)


# --- checkpoints: NVIDIA's and FlowSep's layout


class ReferenceAMP(nn.Module):
    """The published block in torch's own one-dimensional layers under torch's own weight norm."""

    def __init__(self, channels: int, kernel: int, dilations, norm) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            return norm(nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=(kernel - 1) // 2 * dilation))

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
        self.activations = nn.ModuleList(ReferenceActivation(channels) for _ in range(2 * len(dilations)))

    def forward(self, x):
        for k, (conv1, conv2) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            x = x + conv2(self.activations[2 * k + 1](conv1(self.activations[2 * k](x))))
        return x


class ReferenceFilter(nn.Module):
    def __init__(self, lowpass: bool) -> None:
        super().__init__()
        inner = nn.Module() if lowpass else self
        inner.register_buffer("filter", low_pass()[None, None])
        if lowpass:
            self.lowpass = inner


class ReferenceActivation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = SnakeBeta(channels)
        self.upsample, self.downsample = ReferenceFilter(False), ReferenceFilter(True)

    def forward(self, x):
        channels, taps = x.shape[1], low_pass().expand(x.shape[1], 1, 12)
        up = 2 * F.conv_transpose1d(F.pad(x, (5, 5), mode="replicate"), taps, stride=2, groups=channels)[..., 15:-15]
        bent = self.act(up[:, :, None])[:, :, 0]
        return F.conv1d(F.pad(bent, (5, 6), mode="replicate"), taps, stride=2, groups=channels)


class Reference(nn.Module):
    """The published generator, for checking: what its `state_dict` holds is the layout."""

    def __init__(self, config: dict, norm) -> None:
        super().__init__()
        channels = config["upsample_initial_channel"]
        self.conv_pre = norm(nn.Conv1d(config["num_mels"], channels, 7, padding=3))
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(config["upsample_rates"], config["upsample_kernel_sizes"], strict=True):
            up = nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(nn.ModuleList([norm(up)]))
            channels //= 2
            for size, dilations in zip(config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], strict=True):
                self.resblocks.append(ReferenceAMP(channels, size, dilations, norm))
        self.activation_post = ReferenceActivation(channels)
        self.conv_post = norm(nn.Conv1d(channels, 1, 7, padding=3))
        self.n_blocks = len(config["resblock_kernel_sizes"])

    def forward(self, log_mel):
        x = self.conv_pre(log_mel)
        for stage, (up,) in enumerate(self.ups):
            x = up(x)
            blocks = self.resblocks[stage * self.n_blocks : (stage + 1) * self.n_blocks]
            x = sum(block(x) for block in blocks) / self.n_blocks
        return torch.tanh(self.conv_post(self.activation_post(x)))[:, 0]


NORMS = {"weight_g": nn.utils.weight_norm, "parametrizations": nn.utils.parametrizations.weight_norm}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize(
    ("norm", "prefix"), [("weight_g", "generator."), ("weight_g", "generator._orig_mod."), ("parametrizations", "")]
)
def test_nvidia_s_layout_computes_what_torch_computes(tmp_path, norm, prefix):
    reference = varied(Reference(PUBLISHED, NORMS[norm])).eval()
    state = {f"{prefix}{name}": value.clone() for name, value in reference.state_dict().items()}
    assert any("lowpass.filter" in name for name in state) and any("_g" in n or "original0" in n for n in state)
    tmp_path.joinpath("config.json").write_text(json.dumps(PUBLISHED))
    save_file(state, tmp_path / "model.safetensors")
    vocoder = load_vocoder(tmp_path)
    log_mel = random(2, 64, 11) - 3
    with torch.no_grad():
        expected = reference(log_mel)
    assert expected.shape == (2, 11 * 160 + 32), "FlowSep's kernels make 32 samples more"
    torch.testing.assert_close(vocoder.network(log_mel), expected, atol=1e-6, rtol=1e-4)
    with torch.no_grad():
        shifted = reference(F.pad(log_mel, (0, 1), mode="replicate"))[:, 80 : 80 + 11 * 160]
    torch.testing.assert_close(vocoder(log_mel), shifted, atol=1e-6, rtol=1e-4)
    assert vocoder.mel == MelConfig() and vocoder.corrections == 0


def test_flowsep_s_own_configuration_is_the_full_size():
    from lasslab.models.bigvgan_published import published_fields

    flowsep = PUBLISHED | {
        "upsample_initial_channel": 512,
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5]] * 3,
        "batch_size": 64,
        "num_freq": 1025,
    }
    assert BigVGANConfig(**published_fields(flowsep, path="config.json")) == SIZES["full"]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize(
    ("config", "weights", "words"),
    [
        ({"activation": "snake"}, {}, "activation is 'snake', only 'snakebeta'"),
        ({"win_size": 800}, {}, "win_size is 800, only 1024"),
        ({"hop_size": 256}, {}, "the stages make 160 samples"),
        ({"num_mels": None}, {}, "missing fields num_mels"),
        ({"resblock": "2"}, {}, "missing weights resblocks.0.convs.0"),
        ({}, {"conv_pre.weight_g": None}, "conv_pre.weight_v is half of a weight norm"),
        ({}, {"conv_post.bias": None}, "missing weights conv_post.bias"),
        ({}, {"extra": torch.zeros(1)}, "unexpected weights extra"),
        ({}, {"activation_post.upsample.filter": torch.ones(1, 1, 12) / 12}, "not the low-pass filter"),
    ],
)
def test_published_files_that_do_not_fit_are_one_line(tmp_path, config, weights, words):
    state = {**Reference(PUBLISHED, nn.utils.weight_norm).state_dict(), **weights}
    kept = {name: value.clone() for name, value in state.items() if value is not None}
    save_file(kept, tmp_path / "model.safetensors")
    about = {name: value for name, value in (PUBLISHED | config).items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=words) as error:
        load_vocoder(tmp_path)
    assert str(tmp_path) in one_line(error)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("wrap", [lambda state: {"generator": state}, lambda state: state])
def test_a_published_pickle_is_converted_on_request(tmp_path, wrap):
    """FlowSep's `g_01000000`: refused as it is, converted when asked to."""
    reference = varied(Reference(PUBLISHED, nn.utils.weight_norm)).eval()
    source = tmp_path / "published"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(PUBLISHED))
    torch.save(wrap(reference.state_dict()), source / "g_01000000.pt")
    with pytest.raises(ValueError, match="g_01000000.pt beside it is a pickle and is never opened: convert it"):
        load_vocoder(source)
    folder = convert_pickle(source / "g_01000000.pt", source / "config.json", tmp_path / "converted")
    vocoder, log_mel = load_vocoder(folder), random(1, 64, 8) - 3
    with torch.no_grad():
        torch.testing.assert_close(vocoder.network(log_mel), reference(log_mel), atol=1e-6, rtol=1e-4)
    assert json.loads((folder / "config.json").read_text())["provenance"] == {"converted_from": "g_01000000.pt"}


class Dangerous:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["dangerous", "torch", "text", "empty", "tensor", "missing", "other"])
def test_a_pickle_that_is_no_generator_is_one_line(tmp_path, kind):
    source, mark = tmp_path / "weights.pt", tmp_path / "mark"
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    if kind == "dangerous":
        source.write_bytes(pickle.dumps(Dangerous(mark), protocol=2))
    elif kind == "torch":
        torch.save(Dangerous(mark), source)
    elif kind == "text":
        source.write_text("not weights")
    elif kind == "empty":
        source.write_bytes(b"")
    elif kind == "tensor":
        torch.save(torch.zeros(3), source)
    elif kind == "other":
        torch.save({"generator": nn.Conv1d(1, 1, 1).state_dict()}, source)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="weights.pt") as error:
        convert_pickle(source, tmp_path / "config.json", tmp_path / "converted")
    one_line(error)
    assert sorted(tmp_path.iterdir()) == before and not mark.exists()


# --- checkpoints: AudioLDM's HiFi-GAN


def hifigan(folder: Path, **changes):
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    torch.manual_seed(0)
    settings = {
        "model_in_dim": 64, "sampling_rate": 16_000, "upsample_initial_channel": 32, "upsample_rates": [5, 4, 2, 2, 2],
        "upsample_kernel_sizes": [16, 16, 8, 4, 4], "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]],
        "normalize_before": False,
    }  # fmt: skip
    model = SpeechT5HifiGan(SpeechT5HifiGanConfig(**settings | changes)).eval()
    varied(model)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("subfolder", ["", "vocoder"])
def test_audioldm_s_vocoder_computes_what_transformers_computes(tmp_path, subfolder):
    model = hifigan(tmp_path / subfolder)
    vocoder = load_vocoder(tmp_path)
    assert isinstance(vocoder, HiFiGAN) and vocoder.mel == MelConfig()
    log_mel = random(2, 64, 7) - 4
    with torch.no_grad():
        whole = model(F.pad(log_mel, (0, 1), mode="replicate").mT)
    assert whole.shape == (2, 8 * 160 + 32)
    torch.testing.assert_close(vocoder(log_mel), whole[:, 80 : 80 + 7 * 160])
    assert vocoder(log_mel[:1, :, :1]).shape == (1, 160)


def test_audioldm_s_old_name_of_the_model_is_known(tmp_path):
    hifigan(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "hifigan"}
    (tmp_path / "config.json").write_text(json.dumps(about))
    assert load_vocoder(tmp_path).name == tmp_path.name


def test_a_speech_vocoder_is_refused(tmp_path):
    hifigan(tmp_path, normalize_before=True)
    with pytest.raises(ValueError, match="standardises its input") as error:
        load_vocoder(tmp_path)
    one_line(error)


def test_hifigan_reads_the_mel_it_is_told(tmp_path):
    model = hifigan(tmp_path)
    assert HiFiGAN(model, name="x", mel=MelConfig(f_min=50.0)).mel.f_min == 50
    with pytest.raises(ValueError, match="reads 64 mels at 16000 Hz every 160 samples, mel= says 80") as error:
        HiFiGAN(model, name="x", mel=MelConfig(n_mels=80))
    one_line(error)


def test_hifigan_files_that_are_not_there_are_one_line(tmp_path, monkeypatch):
    hifigan(tmp_path)
    weights = tmp_path / "model.safetensors"
    half = weights.read_bytes()[: weights.stat().st_size // 2]
    weights.write_bytes(half)
    with pytest.raises(ValueError, match="could not be loaded") as error:
        load_vocoder(tmp_path)
    one_line(error)
    weights.unlink()
    with pytest.raises(ValueError, match="could not be loaded") as error:
        load_vocoder(tmp_path)
    one_line(error)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="'nobody/nothing' could not be loaded.*'bigvgan-lab' offline") as error:
        load_vocoder("nobody/nothing")
    one_line(error)


# --- the adversary


def judged(scores, features):
    return [
        (torch.tensor(score), [torch.tensor(feature) for feature in row])
        for score, row in zip(scores, features, strict=True)
    ]


def test_the_losses_by_hand():
    real = judged([[1.0, 0.0], [0.5]], [[[1.0, 2.0], [0.0]], [[1.0]]])
    made = judged([[0.0, 1.0], [0.5]], [[[0.0, 0.0], [2.0]], [[4.0]]])
    # (0 + 1) / 2 + (0 + 1) / 2, then 0.25 + 0.25
    assert discriminator_loss(real=real, generated=made) == pytest.approx(0.5 + 0.5 + 0.25 + 0.25)
    assert adversarial_loss(made) == pytest.approx(0.5 + 0.25)
    assert feature_loss(real=real, generated=made) == pytest.approx((1.5 + 2.0) / 2 + 3.0)
    perfect = judged([[1.0]], [[[1.0]]])
    assert discriminator_loss(real=perfect, generated=judged([[0.0]], [[[1.0]]])) == 0 == adversarial_loss(perfect)


def test_discriminators_see_what_their_names_say():
    config = DiscriminatorConfig(periods=(3,), period_channels=(4, 4), resolutions=((64, 16),), resolution_channels=4)
    network = varied(Discriminators(config))
    waveform = random(2, 700)
    (period, period_features), (resolution, resolution_features) = network(waveform)
    assert period.shape[0] == resolution.shape[0] == 2
    assert [f.shape[-1] for f in period_features] == [3, 3] and len(resolution_features) == 5
    assert resolution_features[0].shape == (2, 4, 1 + -(-700 // 16), 33), "frames and bins of the magnitude"
    # a change of every third sample is seen in one column of the folded waveform alone
    changed = waveform.clone()
    changed[:, 1::3] += 1
    (moved, _), _ = network(changed)
    same = (moved == period).flatten(1).unflatten(1, (-1, 3)).all(dim=1)
    assert same.tolist() == [[True, False, True]] * 2
    # polarity changes what the period discriminator sees, not a magnitude
    (flipped, _), (magnitude, _) = network(-waveform)
    assert torch.equal(magnitude, resolution) and not torch.equal(flipped, period)


def test_features_of_real_sounds_are_constants():
    network = Discriminators(DiscriminatorConfig(periods=(2,), period_channels=(4,), resolutions=()))
    real, made = random(1, 100).requires_grad_(), random(1, 100, seed=1).requires_grad_()
    feature_loss(real=network(real), generated=network(made)).backward()
    assert real.grad is None and made.grad.abs().sum() > 0


def test_silence_has_a_finite_slope():
    network = Discriminators(DiscriminatorConfig(periods=(2,), period_channels=(4,), resolutions=((64, 16),)))
    waveform = torch.zeros(1, 400).requires_grad_()
    adversarial_loss(network(waveform)).backward()
    assert waveform.grad.isfinite().all()
