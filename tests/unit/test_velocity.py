"""The velocity network: what it is told and what it must not notice, any size of latent, and its attention maps."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lasslab.diffusion import sample
from lasslab.flow import flow_loss, guided, solve, time_grid, velocity_to
from lasslab.models.text import TextEmbedding
from lasslab.models.velocity import (
    ANSWERS,
    GATE_BIAS,
    SIZES,
    TIME_SCALE,
    VelocityConfig,
    VelocityNetwork,
    capture_attention,
    condition_on,
)

TINY = VelocityConfig(channels=(16, 32), attention=(False, True), head_width=8, latent_channels=2, text_dim=6)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> VelocityNetwork:
    torch.manual_seed(0)
    return VelocityNetwork(TINY).eval().requires_grad_(False)


def inputs(batch: int = 2, n: int = 8, height: int = 4, n_tokens: int = 5) -> dict:
    return {
        "x_t": randn(batch, 2, n, height),
        "t": torch.linspace(0.2, 0.9, batch),
        "mixture": randn(batch, 2, n, height, seed=1),
        "tokens": randn(batch, n_tokens, 6, seed=2),
        "token_mask": torch.ones(batch, n_tokens, dtype=torch.bool),
    }


# --- sizes


def test_the_sizes_have_the_parameters_they_say():
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in VelocityNetwork(config).parameters()) for name, config in SIZES.items()}
    assert {name: round(count / 1e6, 1) for name, count in counts.items()} == {"quick": 1.4, "lab": 6.0, "full": 187.9}


def test_the_full_size_is_flowsep_s():
    full = SIZES["full"]
    assert [width / 128 for width in full.channels] == [1, 2, 3, 5] and full.n_res_blocks == 2
    assert full.attention == (False, True, True, True), "at downsampling 2, 4 and 8"
    assert full.head_width == 32 and full.text_dim == 1024 and full.latent_channels == 8
    with torch.device("meta"):
        blocks = VelocityNetwork(full).blocks
    assert blocks.conv_in.in_channels == 16 and blocks.conv_out.out_channels == 8
    attentions = [m for name, m in blocks.named_modules() if name.endswith("attn2")]
    assert attentions and all(m.to_q.out_features == 32 * m.heads for m in attentions)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"channels": ()}, "positive"),
        ({"text_dim": 0}, "positive"),
        ({"n_res_blocks": 10**30}, "at most 64 residual blocks"),
        ({"channels": (16, 36)}, "multiples of 8"),
        ({"attention": (True,)}, "one yes or no for each level"),
        ({"copies": "magic"}, "copies is one of flow, diffusion, or nothing, got 'magic'"),
        ({"head_width": 12}, "multiples of head_width 12"),
        ({"channels": (16, 24), "head_width": 16, "attention": (True, False)}, "multiples of head_width 16"),
    ],
)
def test_impossible_sizes_are_refused(changes, words):
    with pytest.raises(ValueError, match=words) as error:
        replace(TINY, **changes)
    assert "\n" not in str(error.value)


# --- a gate


def gated(network: VelocityNetwork, process: str, logit: float) -> VelocityNetwork:
    """The same network with a gate that is open or closed everywhere."""
    other = VelocityNetwork(replace(TINY, copies=process)).eval().requires_grad_(False)
    other.load_state_dict(other.with_gate(network.state_dict()))
    other.blocks.conv_out.bias[-1] = logit
    return other


@pytest.mark.parametrize("process", ANSWERS)
def test_an_open_gate_leaves_the_answer_and_a_closed_one_hands_on_what_the_network_is_told(network, process):
    told = inputs()
    torch.testing.assert_close(gated(network, process, 30.0)(**told), network(**told), atol=1e-6, rtol=1e-5)
    closed = gated(network, process, -30.0)
    condition = {name: told[name] for name in ("mixture", "tokens", "token_mask")}
    draw = {"flow": lambda field, x: solve(field, x, time_grid(4)), "diffusion": lambda field, x: sample(field, x, 4)}
    made = draw[process](guided(closed, condition, None, 1.0), told["x_t"])
    torch.testing.assert_close(made, told["mixture"], atol=1e-2, rtol=0)


def test_a_new_gate_is_nearly_open_and_learns(network):
    told, plain = inputs(), network(**inputs())
    other = VelocityNetwork(replace(TINY, copies="flow"))
    other.load_state_dict(other.with_gate(network.state_dict()))
    share = torch.sigmoid(torch.tensor(GATE_BIAS))
    answer = other(**told)
    copied = velocity_to(told["x_t"], told["t"], told["mixture"])
    torch.testing.assert_close(answer, share * plain + (1 - share) * copied)
    own, gate = other.own_answer(**told)
    torch.testing.assert_close(own, plain)
    assert gate.shape == (2, 1, 8, 4) and network.own_answer(**told)[1] is None
    both = other(**told, with_gate=True)
    assert torch.equal(both[0], answer) and torch.equal(both[1], gate)
    assert network(**told, with_gate=True)[1] is None
    (answer - copied).square().mean().backward()  # the target is what it was told: the gate shall close
    assert other.blocks.conv_out.bias.grad[-1] > 0


# --- what it is told


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 23), st.sampled_from([3, 4, 5]), st.integers(1, 4))
def test_any_size_of_latent(network, batch, n, height, n_tokens):
    given_ = inputs(batch, n, height, n_tokens)
    velocity = network(**given_)
    assert velocity.shape == given_["x_t"].shape and velocity.isfinite().all()


def test_padded_tokens_never_matter(network):
    given_ = inputs()
    given_["token_mask"][0, 3:] = False
    expected = network(**given_)
    for filling in (0.0, 1e4, -7.0):
        other = given_ | {"tokens": given_["tokens"].clone()}
        other["tokens"][0, 3:] = filling
        torch.testing.assert_close(network(**other), expected, rtol=0, atol=1e-6)
    shorter = {name: value[:1] for name, value in given_.items()}
    shorter |= {"tokens": shorter["tokens"][:, :3], "token_mask": shorter["token_mask"][:, :3]}
    torch.testing.assert_close(network(**shorter), expected[:1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["x_t", "t", "mixture", "tokens"])
def test_everything_it_is_told_matters_to_its_own_example_only(network, name):
    given_ = inputs()
    before = network(**given_)
    changed = given_ | {name: given_[name].clone()}
    changed[name][1] += 0.5 if name != "t" else -0.5
    after = network(**changed)
    assert not torch.allclose(after[1], before[1], atol=1e-4)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=1e-5)


def test_the_mixture_is_a_channel_without_noise(network):
    """In training the network sees x_t with its noise, and the mixture as it is, whatever the time."""
    seen = []

    def spy(x_t, t, **condition):
        seen.append((x_t, condition["mixture"]))
        return network(x_t, t, **condition)

    given_ = inputs(batch=4)
    target = randn(4, 2, 8, 4, seed=7)
    condition, null = condition_on(given_["mixture"], TextEmbedding(given_["tokens"], given_["token_mask"]))
    generator = torch.Generator().manual_seed(0)
    flow_loss(spy, target, condition, generator=generator, null=null, dropout=1.0)
    ((x_t, mixture),) = seen
    assert torch.equal(mixture, given_["mixture"])
    assert not torch.allclose(x_t, target, atol=0.1)
    (first,) = entering(network, given_)
    assert torch.equal(first[:, :2], given_["x_t"]) and torch.equal(first[:, 2:4], given_["mixture"])


def entering(network: VelocityNetwork, given_: dict) -> list[torch.Tensor]:
    found = []
    hook = network.blocks.conv_in.register_forward_pre_hook(lambda module, arguments: found.append(arguments[0]))
    network(**given_)
    hook.remove()
    return found


def test_the_coordinate_channel_says_how_high_a_point_is():
    given_ = inputs(height=5)
    with_height, without = (VelocityNetwork(replace(TINY, coordinate=yes)) for yes in (True, False))
    (x,), (plain,) = entering(with_height, given_), entering(without, given_)
    assert x.shape[1] == 5 and plain.shape[1] == 4
    assert x[:, 4].unique(dim=1).shape[1] == 1, "the same at every time"
    torch.testing.assert_close(x[0, 4, 0], torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]))


def test_times_reach_the_sines_in_their_range(network):
    """Sines of 0 to 1 would hardly move: the embedding's highest frequency has a period of 2 pi."""
    found = []
    hook = network.blocks.time_proj.register_forward_pre_hook(lambda module, arguments: found.append(arguments[0]))
    network(**inputs())
    hook.remove()
    torch.testing.assert_close(found[0], TIME_SCALE * torch.tensor([0.2, 0.9]))


def test_one_time_as_a_view_does_as_well_as_many(network):
    given_ = inputs()
    one = torch.tensor(0.3)
    torch.testing.assert_close(
        network(**given_ | {"t": one.expand(2)}), network(**given_ | {"t": torch.full((2,), 0.3)})
    )


# --- conditions


def test_without_words_the_mixture_stays():
    given_ = inputs(n_tokens=3)
    given_["token_mask"][1, 1:] = False
    text = TextEmbedding(given_["tokens"], given_["token_mask"])
    condition, null = condition_on(given_["mixture"], text)
    assert condition["tokens"] is text.tokens and condition["token_mask"] is text.mask
    assert condition["mixture"] is given_["mixture"] and null["mixture"] is given_["mixture"]
    assert (null["tokens"] == 0).all() and null["tokens"].shape == text.tokens.shape
    assert null["token_mask"].tolist() == [[True, False, False]] * 2, "one token, so that attention has somewhere to go"
    assert set(condition) == set(null)


def test_without_words_is_the_same_whatever_the_words_were(network):
    given_ = inputs(n_tokens=4)
    results = []
    for n_tokens in (1, 4):
        text = TextEmbedding(randn(2, n_tokens, 6, seed=n_tokens), torch.ones(2, n_tokens, dtype=torch.bool))
        _, null = condition_on(given_["mixture"], text)
        results.append(network(given_["x_t"], given_["t"], **null))
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)
    with_words = network(**given_)
    assert not torch.allclose(with_words, results[0], atol=1e-4)


# --- attention maps


def test_capturing_changes_nothing_and_leaves_nothing(network):
    given_ = inputs()
    given_["token_mask"][0, 3:] = False
    processors, expected = dict(network.blocks.attn_processors), network(**given_)
    n_hooks = count_hooks(network)
    with capture_attention(network) as maps:
        captured = network(**given_)
    torch.testing.assert_close(captured, expected, rtol=1e-4, atol=1e-5)
    assert network.blocks.attn_processors == processors and count_hooks(network) == n_hooks
    n_maps = len(maps)
    assert torch.equal(network(**given_), expected) and len(maps) == n_maps


def count_hooks(network: VelocityNetwork) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in network.modules())


def test_an_exception_inside_leaves_the_network_as_it_was(network):
    given_ = inputs()
    processors, expected, n_hooks = dict(network.blocks.attn_processors), network(**given_), count_hooks(network)
    with pytest.raises(RuntimeError, match="stopped"), capture_attention(network):
        network(**given_)
        raise RuntimeError("stopped")
    assert network.blocks.attn_processors == processors and count_hooks(network) == n_hooks
    assert torch.equal(network(**given_), expected)


def test_one_capture_inside_another(network):
    with capture_attention(network) as outer:
        network(**inputs())
        with capture_attention(network) as inner:
            network(**inputs())
        network(**inputs())
    assert len(inner) > 0 and len(outer) == 2 * len(inner)


def test_a_map_for_each_layer_and_call_over_time_height_and_tokens(network):
    given_ = inputs(n=7, height=5)  # odd: the second level is 4 x 3
    given_["token_mask"][0, 3:] = False
    with capture_attention(network) as maps:
        network(**given_)
        network(**given_)
    layers = [m.layer for m in maps]
    assert layers[: len(layers) // 2] == layers[len(layers) // 2 :] and len(set(layers)) == len(layers) // 2
    assert all(layer.endswith("attn2") for layer in layers)
    assert any("down_blocks" in layer for layer in layers) and any("mid_block" in layer for layer in layers)
    for each in maps:
        assert each.weights.shape == (2, 4, 4, 3, 5)
        torch.testing.assert_close(each.weights.sum(-1), torch.ones(2, 4, 4, 3), rtol=0, atol=1e-5)
        assert (each.weights[0, ..., 3:] == 0).all(), "padding is never listened to"
        assert (each.weights[1] > 0).all() and (each.weights[0, ..., :3] > 0).all()


def test_a_map_equals_attention_computed_by_hand(network):
    given_ = inputs(n=6, height=4)
    given_["token_mask"][1, 2:] = False
    name = "mid_block.attentions.0.transformer_blocks.0.attn2"
    layer = network.blocks.get_submodule(name)
    heard = []
    hook = layer.register_forward_pre_hook(lambda module, arguments: heard.append(arguments[0]))
    with capture_attention(network) as maps:
        network(**given_)
    hook.remove()
    (found,) = [each.weights for each in maps if each.layer == name]
    (hidden,) = heard  # (B, n, C), points row by row: time, then height
    n_points, heads, width = 3 * 2, layer.heads, 8
    assert hidden.shape == (2, n_points, 32)
    query = (hidden @ layer.to_q.weight.T).reshape(2, n_points, heads, width)
    key = (given_["tokens"] @ layer.to_k.weight.T).reshape(2, 5, heads, width)
    scores = torch.einsum("bnhd,blhd->bhnl", query, key) / math.sqrt(width)
    scores = scores.masked_fill(~given_["token_mask"][:, None, None], -math.inf)
    torch.testing.assert_close(found, scores.softmax(-1).reshape(2, heads, 3, 2, 5), rtol=1e-4, atol=1e-6)


def test_gradients_pass_while_maps_are_read():
    torch.manual_seed(0)
    network = VelocityNetwork(TINY)
    with capture_attention(network) as maps:
        network(**inputs()).square().mean().backward()
    assert not any(each.weights.requires_grad for each in maps)
    gradient = network.blocks.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2.to_k").weight.grad
    assert gradient.abs().max() > 0
