"""Checks of notebook 07, the cross-attention ResUNet++."""

import torch

from lasslab.course.exercises import Wrong, expect_close, expect_shape
from lasslab.models.resunetpp import SqueezeExcitation
from lasslab.training.objectives import spectral_convergence


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check_squeeze_excitation(answer):
    """The package's block, from its two linear layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = SqueezeExcitation(channels=16, reduction=4)
    x = _random(2, 16, 5, 7) + _random(1, 16, 1, 1, seed=1)
    with torch.no_grad():
        got, expected = answer(x, block.squeeze, block.excite), block(x)
        hidden = block.squeeze(x.mean(dim=(2, 3)))
        gate = torch.sigmoid(block.excite(torch.relu(hidden)))
        without_relu = x * torch.sigmoid(block.excite(hidden))[:, :, None, None]
        without_sigmoid = x * block.excite(torch.relu(hidden))[:, :, None, None]
    if hasattr(got, "shape") and tuple(got.shape) == tuple(gate.shape):
        raise Wrong(
            expected=f"the map x times its gates, of shape {tuple(x.shape)}",
            got=f"shape {tuple(got.shape)}: these look like the gates alone",
            hint="Multiply: gate[:, :, None, None] * x gives every channel its gate, at every position.",
        )
    expect_shape(
        got,
        tuple(x.shape),
        what="the weighted map",
        hint="Mean over the last two dimensions, two layers, then multiply every channel of x by its gate.",
    )
    if torch.allclose(got, without_relu, atol=1e-5):
        raise Wrong(
            expected="a ReLU between the two layers",
            got="what comes out without it",
            hint="Two linear layers in a row are one linear layer: equation (4) has a ReLU between them.",
        )
    if torch.allclose(got, without_sigmoid, atol=1e-5):
        raise Wrong(
            expected="gates between 0 and 1",
            got="what comes out without the sigmoid",
            hint="The sigmoid is the last step of the gate in equation (4).",
        )
    expect_close(
        got,
        expected,
        what="the weighted map",
        hint="Equation (4): gate = sigmoid(excite(relu(squeeze(mean of x over both axes)))).",
    )


def check_attention(answer):
    """softmax(Q K^T / sqrt(d)) V with padded tokens left out."""
    batch, positions, tokens, width = 2, 6, 4, 9
    query = 2 * _random(batch, positions, width, seed=2)
    key, value = 2 * _random(batch, tokens, width, seed=3), _random(batch, tokens, width, seed=4)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    got = answer(query, key, value, mask)
    expect_shape(
        got,
        (batch, positions, width),
        what="what every position has read",
        hint="Scores are (B, P, L): query @ key.transpose(1, 2). Softmax over the tokens, then @ value.",
    )
    scores = query @ key.transpose(1, 2)
    scaled = (scores / width**0.5).masked_fill(~mask[:, None], -torch.inf)
    wrong = {
        "the padded tokens are read too": (
            (scores / width**0.5).softmax(-1) @ value,
            "Before the softmax, set the scores of padded tokens to -inf: scores.masked_fill(~mask[:, None, :], -inf).",
        ),
        "the scores are not divided by sqrt(d)": (
            scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1) @ value,
            "d is the last dimension of the queries: query.shape[-1] ** 0.5.",
        ),
        "the softmax runs over the positions": (
            (scores / width**0.5).softmax(1).masked_fill(~mask[:, None], 0) @ value,
            "Each position shares out a weight of 1 among the tokens: softmax(dim=-1).",
        ),
        "weights set to 0 after the softmax no longer add up to 1": (
            (scores / width**0.5).softmax(-1).masked_fill(~mask[:, None], 0) @ value,
            "Mask before the softmax, with -inf, so that the other tokens share the whole weight.",
        ),
    }
    for what, (values, hint) in wrong.items():
        if torch.allclose(torch.as_tensor(got, dtype=values.dtype), values, atol=1e-5):
            raise Wrong(expected="equation (7) with the mask", got=f"something else: {what}", hint=hint)
    expect_close(
        got,
        scaled.softmax(-1) @ value,
        what="what every position has read",
        hint="Equation (7), with the scores of padded tokens at -inf before the softmax.",
    )


def check_spectral_convergence(answer):
    """||S - S_hat|| / ||S||, one value per example."""
    target = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[30.0, 0.0], [0.0, 40.0]]])
    expect_shape(
        answer(estimate=0.5 * target, target=target),
        (2,),
        what="the distances of a batch of two",
        hint="Sum over bins and frames only: dim=(-2, -1).",
    )
    got = torch.as_tensor(answer(estimate=0.5 * target, target=target))
    if torch.allclose(got, torch.full((2,), 0.25), atol=1e-5):
        raise Wrong(
            expected="0.5 for half the target",
            got="0.25",
            hint="The Frobenius norm is a square root: take it of both sums.",
        )
    expect_close(got, [0.5, 0.5], what="the distance of half the target", hint="Divide by the target's norm.")
    expect_close(
        answer(estimate=0 * target, target=target),
        [1.0, 1.0],
        what="the distance of silence",
        hint="Divide by the norm of the target, not of the estimate: silence is at distance 1.",
    )
    a, b = _random(3, 5, 7).abs(), _random(3, 5, 7, seed=1).abs()
    expect_close(
        answer(estimate=a, target=b),
        spectral_convergence(estimate=a, target=b),
        what="the distance of two random spectrograms",
        hint="Equation (8): norm of the difference over norm of the target.",
    )


CHECKS = {
    "07.squeeze_excitation": check_squeeze_excitation,
    "07.attention": check_attention,
    "07.spectral_convergence": check_spectral_convergence,
}
