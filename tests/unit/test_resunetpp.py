"""ResUNet++: every block of the thesis, each against its formula, and what the whole network promises."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lasslab.models.resunetpp import (
    ASPP,
    SIZES,
    AttentionGate,
    CrossAttention,
    DecoderBlock,
    EncoderBlock,
    ResidualBlock,
    ResUNetPlusPlus,
    ResUNetPlusPlusConfig,
    SqueezeExcitation,
    Stem,
)

TINY = ResUNetPlusPlusConfig(
    channels=(8, 8, 16, 16), text_dim=12, text_width=8, head_dim=4, rates=(1, 2), final_rates=(1, 2), patch=2
)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(config: ResUNetPlusPlusConfig = TINY, *, seed: int = 0) -> ResUNetPlusPlus:
    torch.manual_seed(seed)
    return ResUNetPlusPlus(config)


def inputs(batch: int = 2, n_bins: int = 257, n_frames: int = 20, n_tokens: int = 4, *, text_dim: int = 12):
    scaled = torch.rand(batch, n_bins, n_frames, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(batch, n_tokens, dtype=torch.bool)
    return scaled, randn(batch, n_tokens, text_dim, seed=2), mask


def settled(network: ResUNetPlusPlus) -> ResUNetPlusPlus:
    """In evaluation mode, after its batch norms have seen data: their initial statistics are those of no network."""
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(*inputs(4, text_dim=network.config.text_dim))
    return network.eval()


# --- the thesis's table


def test_every_block_of_the_thesis_is_there_and_named():
    network = make()
    modules = dict(network.named_modules())
    expected = {"stem": Stem, "aspp": ASPP, "cross_attention": CrossAttention}
    for k in range(3):
        expected |= {
            f"encoder.{k}": EncoderBlock,
            f"encoder.{k}.residual": ResidualBlock,
            f"encoder.{k}.squeeze_excitation": SqueezeExcitation,
            f"encoder.{k}.cross_attention": CrossAttention,
            f"decoder.{k}": DecoderBlock,
            f"decoder.{k}.attention_gate": AttentionGate,
            f"decoder.{k}.residual": ResidualBlock,
            f"decoder.{k}.cross_attention": CrossAttention,
            f"decoder.{k}.squeeze_excitation": SqueezeExcitation,
        }
    expected |= {"final_cross_attention": CrossAttention, "final_aspp": ASPP, "mask": nn.Conv2d}
    for name, kind in expected.items():
        assert type(modules[name]) is kind, name
    assert len(network.encoder) == len(network.decoder) == 3
    assert network.mask.kernel_size == (1, 1)


def test_the_blocks_run_in_the_thesis_s_order():
    network = make().eval()
    names = {module: name for name, module in network.named_modules()}
    order = []
    kinds = (Stem, ResidualBlock, SqueezeExcitation, CrossAttention, ASPP, AttentionGate)
    for module in network.modules():
        if isinstance(module, kinds) or module is network.mask:
            module.register_forward_hook(lambda module, _, __: order.append(names[module]))
    network(*inputs())
    encoder = [
        f"encoder.{k}.{block}" for k in range(3) for block in ("residual", "squeeze_excitation", "cross_attention")
    ]
    decoder = [
        f"decoder.{k}.{block}"
        for k in range(3)
        for block in ("attention_gate", "residual", "cross_attention", "squeeze_excitation")
    ]
    bottleneck, last = ["aspp", "cross_attention"], ["final_cross_attention", "final_aspp", "mask"]
    assert order == ["stem", *encoder, *bottleneck, *decoder, *last]


def test_three_halvings_and_three_doublings():
    network = make().eval()
    shapes = {}
    for name, module in network.named_modules():
        if isinstance(module, EncoderBlock | DecoderBlock | Stem | ASPP):
            module.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    network(*inputs(n_frames=32))  # 257 bins: 256 in patches of 2 are 128
    assert shapes["stem"] == (8, 128, 16)
    assert [shapes[f"encoder.{k}"] for k in range(3)] == [(8, 64, 8), (16, 32, 4), (16, 16, 2)]
    assert shapes["aspp"] == (16, 16, 2)
    assert [shapes[f"decoder.{k}"] for k in range(3)] == [(16, 32, 4), (8, 64, 8), (8, 128, 16)]
    assert shapes["final_aspp"] == (8, 128, 16)


@pytest.mark.parametrize(("size", "low", "high"), [("quick", 0.2, 0.4), ("lab", 1.8, 2.3), ("full", 3.5, 15.0)])
def test_sizes_in_millions_of_parameters(size, low, high):
    with torch.device("meta"):
        network = ResUNetPlusPlus(SIZES[size])
    assert low < sum(parameter.numel() for parameter in network.parameters()) / 1e6 < high


def test_the_full_size_has_the_reference_backbone():
    full = SIZES["full"]
    assert full.channels == (32, 64, 128, 256) and full.rates == (1, 6, 12, 18)
    assert full.se_reduction == 8 and full.patch == 1
    with torch.device("meta"):
        aspp = ResUNetPlusPlus(full).aspp
    assert [branch[0].dilation for branch in aspp.branches] == [(1, 1), (6, 6), (12, 12), (18, 18)]


def test_a_configuration_survives_its_file():
    config = ResUNetPlusPlusConfig(channels=[8, 8, 16, 16], rates=[1, 3], head_dim=8)
    assert ResUNetPlusPlusConfig(**config.to_dict()) == config and hash(config)
    assert isinstance(config.channels, tuple)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"channels": (8, 16, 32)}, "4 widths"), ({"channels": (8, 16, 32, 60), "head_dim": 8}, "multiple of head_dim=8")],
)
def test_impossible_configurations_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words) as error:
        ResUNetPlusPlusConfig(**arguments)
    assert "\n" not in str(error.value)


# --- each block against its formula


def test_cross_attention_against_numpy():
    torch.manual_seed(0)
    block = CrossAttention(8, 6, 4).eval()
    x, tokens = randn(2, 8, 3, 5, seed=1), randn(2, 4, 6, seed=2)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    weights = {name: value.detach().double().numpy() for name, value in block.named_parameters()}
    expected = np.empty((2, 8, 3, 5))
    for b in range(2):
        for h in range(3):
            for w in range(5):
                position = x[b, :, h, w].double().numpy()
                normed = (position - position.mean()) / np.sqrt(position.var() + 1e-5)
                normed = normed * weights["norm.weight"] + weights["norm.bias"]
                query = weights["query.weight"] @ normed
                key_value = tokens[b, mask[b]].double().numpy() @ weights["key_value.weight"].T
                key, value = key_value[:, :8], key_value[:, 8:]
                read = []
                for head in range(2):
                    part = slice(4 * head, 4 * head + 4)
                    score = key[:, part] @ query[part] / np.sqrt(4)
                    share = np.exp(score - score.max()) / np.exp(score - score.max()).sum()
                    read.append(share @ value[:, part])
                expected[b, :, h, w] = (
                    position + weights["output.weight"] @ np.concatenate(read) + weights["output.bias"]
                )
    assert np.allclose(block(x, tokens, mask).detach().numpy(), expected, atol=1e-5)


def test_squeeze_excitation_is_a_gate_per_channel():
    torch.manual_seed(0)
    block = SqueezeExcitation(16, 8)
    assert block.squeeze.out_features == 4, "never fewer than four"
    x = randn(2, 16, 5, 7)
    gate = torch.sigmoid(block.excite(torch.relu(block.squeeze(x.flatten(2).mean(-1)))))
    assert torch.allclose(block(x), x * gate[..., None, None], atol=1e-6)
    nn.init.zeros_(block.excite.weight)
    nn.init.zeros_(block.excite.bias)
    assert torch.allclose(block(x), x / 2), "sigmoid(0) = 1/2"


def test_the_attention_gate_lets_through_what_the_coarse_map_asks_for():
    torch.manual_seed(0)
    gate = AttentionGate(8, 16)
    skip, coarse = randn(2, 8, 6, 8), randn(2, 16, 3, 4, seed=1)
    asked = gate.from_coarse(coarse).repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    alpha = torch.sigmoid(gate.gate(torch.relu(gate.from_skip(skip) + asked)))
    assert alpha.shape == (2, 1, 6, 8)
    assert torch.allclose(gate(skip, coarse), alpha * skip, atol=1e-6)
    nn.init.zeros_(gate.gate.weight)
    for bias, expected in ((50.0, skip), (-50.0, torch.zeros_like(skip)), (0.0, skip / 2)):
        nn.init.constant_(gate.gate.bias, bias)
        assert torch.allclose(gate(skip, coarse), expected, atol=1e-6)


def test_aspp_looks_as_far_as_its_rates():
    """An impulse comes out at 0 and +-rate of each branch and nowhere else."""
    torch.manual_seed(0)
    aspp = ASPP(4, 24, rates=(1, 3, 7)).eval()
    for branch in aspp.branches:
        nn.init.constant_(branch[0].weight, 1.0)
    nn.init.constant_(aspp.project.weight, 1.0)
    nn.init.zeros_(aspp.project.bias)
    x = torch.zeros(1, 4, 31, 31)
    x[0, 0, 15, 15] = 1
    rows, columns = (aspp(x)[0, 0].abs() > 1e-6).nonzero().T
    reached = {(row.item() - 15, column.item() - 15) for row, column in zip(rows, columns, strict=True)}
    assert reached == {(i * rate, j * rate) for rate in (1, 3, 7) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    # three branches meet in the middle, and each of their 8 channels carries 1
    assert aspp(x)[0, 0, 15, 15].item() == pytest.approx(3 * 8, rel=1e-3)
    assert aspp(x)[0, 0, 15, 18].item() == pytest.approx(8, rel=1e-3)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_residual_block_is_its_formula(stride):
    torch.manual_seed(0)
    block = ResidualBlock(8, 12, stride=stride).eval()
    for norm in (block.norm_1, block.norm_2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = randn(2, 8, 6, 10)
    normed = x / np.sqrt(1 + 1e-5) * block.norm_1.weight[:, None, None] + block.norm_1.bias[:, None, None]
    inner = F.conv2d(torch.relu(normed), block.conv_1.weight, stride=stride, padding=1)
    inner = inner / np.sqrt(1 + 1e-5) * block.norm_2.weight[:, None, None] + block.norm_2.bias[:, None, None]
    branch = F.conv2d(torch.relu(inner), block.conv_2.weight, padding=1)
    pooled = x if stride == 1 else x.unflatten(2, (3, 2)).unflatten(4, (5, 2)).mean(dim=(3, 5))
    expected = branch + torch.einsum("oi,bihw->bohw", block.shortcut.weight[..., 0, 0], pooled)
    assert torch.allclose(block(x), expected, atol=1e-5)


# --- the whole network


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("n_frames", [1, 2, 15, 16, 17, 33, 100, 159, 160, 200])
def test_the_mask_has_the_spectrogram_s_shape(patch, n_frames):
    network = make(ResUNetPlusPlusConfig(**(TINY.to_dict() | {"patch": patch}))).eval()
    mask = network(*inputs(n_frames=n_frames))
    assert mask.shape == (2, 257, n_frames) and mask.dtype == torch.float32
    assert ((mask >= 0) & (mask <= 1)).all() and mask.std() > 0


@pytest.mark.parametrize("n_bins", [1, 2, 16, 17, 100, 129, 250, 513])
def test_other_frame_lengths_work_too(n_bins):
    mask = make().eval()(*inputs(n_bins=n_bins, n_frames=9))
    assert mask.shape == (2, n_bins, 9) and ((mask >= 0) & (mask <= 1)).all()


def test_the_nyquist_bin_takes_its_neighbour_s_mask():
    scaled, tokens, mask = inputs()
    network = settled(make())
    out = network(scaled, tokens, mask)
    assert torch.equal(out[:, 256], out[:, 255]) and not torch.equal(out[:, 255], out[:, 254])


def test_extreme_inputs_stay_in_range():
    network = settled(make())
    for value in (0.0, 1.0):
        scaled, tokens, mask = inputs()
        out = network(torch.full_like(scaled, value), 100 * tokens, mask)
        assert out.isfinite().all() and ((out >= 0) & (out <= 1)).all()


def test_padding_tokens_have_no_influence():
    network = settled(make())
    scaled, tokens, mask = inputs(n_tokens=3)
    alone = network(scaled, tokens, mask)
    garbage = torch.cat([tokens, 1e3 * randn(2, 5, 12, seed=9)], dim=1)
    padded = network(scaled, garbage, torch.cat([mask, torch.zeros(2, 5, dtype=torch.bool)], dim=1))
    assert torch.allclose(alone, padded, atol=1e-6)


def test_the_sentence_changes_the_mask_and_its_word_order_does_not():
    network = settled(make())
    scaled, tokens, mask = inputs()
    out = network(scaled, tokens, mask)
    assert (out - network(scaled, randn(2, 4, 12, seed=7), mask)).abs().max() > 1e-3
    assert (out - network(scaled, tokens[:, :1], mask[:, :1])).abs().max() > 1e-4
    # attention has no sense of order of its own: that is the text encoder's to give
    assert torch.allclose(out, network(scaled, tokens.flip(1), mask), atol=1e-5)


def test_the_height_of_a_sound_matters():
    """The same pattern at another frequency gets another mask, which a convolution alone would not give it."""
    network = settled(make())
    scaled, tokens, mask = inputs(1, n_frames=16)
    scaled = torch.zeros_like(scaled)
    low, high = scaled.clone(), scaled.clone()
    low[:, 64:80], high[:, 176:192] = 1.0, 1.0
    a, b = network(low, tokens, mask)[:, 64:80], network(high, tokens, mask)[:, 176:192]
    assert (a - b).abs().max() > 1e-4


def test_every_parameter_learns():
    network = make().train()
    network(*inputs(n_frames=32)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def test_channels_last_changes_the_speed_only():
    scaled, tokens, mask = inputs(n_frames=48)
    network = settled(make())
    contiguous = network(scaled, tokens, mask)
    network = network.to(memory_format=torch.channels_last)
    assert torch.allclose(network(scaled, tokens, mask), contiguous, atol=1e-5)


def test_gradients_in_channels_last_are_those_of_double_precision():
    def gradients(dtype: torch.dtype, memory_format: torch.memory_format) -> list[torch.Tensor]:
        network = make().to(dtype).to(memory_format=memory_format).train()
        scaled, tokens, mask = inputs(n_frames=32)
        network(scaled.to(dtype), tokens.to(dtype), mask).square().mean().backward()
        return [parameter.grad.double() for parameter in network.parameters()]

    exact = gradients(torch.float64, torch.contiguous_format)
    fast = gradients(torch.float32, torch.channels_last)
    largest = max(gradient.abs().max() for gradient in exact)
    for a, b in zip(exact, fast, strict=True):
        assert torch.allclose(a, b, rtol=1e-2, atol=1e-4 * largest.item())


def test_examples_of_a_batch_do_not_meet():
    network = settled(make())
    scaled, tokens, mask = inputs(4)
    mask[2, 2:] = False
    together = network(scaled, tokens, mask)
    for row in range(4):
        alone = network(scaled[row : row + 1], tokens[row : row + 1], mask[row : row + 1])
        assert torch.allclose(together[row], alone[0], atol=1e-5)


def test_evaluation_is_deterministic_and_the_input_is_left_alone():
    network = settled(make())
    scaled, tokens, mask = inputs()
    before = scaled.clone(), tokens.clone()
    assert torch.equal(network(scaled, tokens, mask), network(scaled, tokens, mask))
    assert torch.equal(scaled, before[0]) and torch.equal(tokens, before[1])


def test_a_training_step_at_the_quick_size_does_not_crash():
    """oneDNN's strided 1x1 backward wrote out of bounds at 8 channels in channels-last order (torch 2.13)."""
    script = """
import torch
from lasslab.models.resunetpp import SIZES, ResUNetPlusPlus
torch.manual_seed(0)
network = ResUNetPlusPlus(SIZES["quick"]).to(memory_format=torch.channels_last)
optimiser = torch.optim.AdamW(network.parameters())
for _ in range(2):
    mask = network(torch.rand(4, 257, 64), torch.randn(4, 6, 384), torch.ones(4, 6, dtype=torch.bool))
    mask.square().mean().backward()
    optimiser.step()
assert all(parameter.isfinite().all() for parameter in network.parameters())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s, t, m: (s[0], t, m), r"scaled must be \(batch, bins, frames\), got shape \(257, 20\)"),
        (lambda s, t, m: (s[:, None], t, m), "scaled must be"),
        (lambda s, t, m: (s, t[..., :11], m), r"tokens must be \(batch, tokens, 12\), got \(2, 4, 11\): use the text"),
        (lambda s, t, m: (s, t[0], m[0]), "tokens must be"),
        (lambda s, t, m: (s, t, m[:, :3]), "batches disagree"),
        (lambda s, t, m: (s[:1], t, m), "batches disagree"),
        (lambda s, t, m: (s, t[:1], m[:1]), "batches disagree"),
    ],
)
def test_wrong_shapes_are_refused(change, words):
    with pytest.raises(ValueError, match=words) as error:
        make()(*change(*inputs()))
    assert "\n" not in str(error.value)
