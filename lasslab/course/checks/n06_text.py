"""Checks of notebook 06, asking in words."""

import torch

from lasslab.course.exercises import Wrong, expect_close, expect_shape
from lasslab.models.film_resunet import mean_token


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _recognise(got, wrong: dict[str, tuple[torch.Tensor, str]], *, expected: str) -> None:
    """Raise `Wrong` with the fitting hint when the answer is one of the mistakes that are known."""
    for what, (values, hint) in wrong.items():
        actual = torch.as_tensor(got)
        if actual.shape == values.shape and torch.allclose(actual.to(values.dtype), values, atol=1e-5):
            raise Wrong(expected=expected, got=f"something else: {what}", hint=hint)


def check_masked_mean(answer):
    """(B, L, D), (B, L) -> (B, D)."""
    tokens, mask = _random(3, 4, 6, seed=0), torch.arange(4) < torch.tensor([4, 2, 1])[:, None]
    clean = tokens * mask[..., None]  # as the text encoder gives them: zeros where there is no token
    got = answer(clean.clone(), mask.clone())
    expect_shape(
        got,
        (3, 6),
        what="the sentence vectors of three sentences",
        hint="One vector (D,) for each sentence: sum over the tokens, dim=1, and keep batch and width.",
    )
    _recognise(
        got,
        {
            "the mean over real and padded positions": (
                clean.mean(dim=1),
                "Divide by the number of real tokens of each sentence, mask.sum(dim=1, keepdim=True), not by L.",
            ),
            "the sum of the tokens": (
                clean.sum(dim=1),
                "That is the numerator of equation (3); divide it by the number of real tokens.",
            ),
            "the first token": (
                clean[:, 0],
                "One token is not the mean of all; equation (3) sums over every real token.",
            ),
        },
        expected="the mean of the real tokens",
    )
    expect_close(
        got,
        mean_token(clean, mask),
        what="the sentence vectors",
        hint="Equation (3): the sum of m_l h_l over l, divided by the sum of m_l, sentence by sentence.",
    )
    expect_close(
        answer(tokens.clone(), mask.clone()),
        mean_token(tokens, mask),
        what="the sentence vectors when the padded positions are not zero",
        hint="Do not trust the padding to be zero: multiply the tokens by mask[:, :, None] before you sum.",
    )


def check_cosine_matrix(answer):
    """(n, D), (m, D) -> (n, m)."""
    a, b = _random(3, 8, seed=1), _random(5, 8, seed=2)
    got = answer(a.clone(), b.clone())
    expect_shape(
        got,
        (3, 5),
        what="the cosines of 3 vectors with 5 others",
        hint="Every row of the first with every row of the second: a matrix product, a @ b.T.",
    )
    product, norm_a, norm_b = a @ b.T, a.norm(dim=1, keepdim=True), b.norm(dim=1)
    _recognise(
        got,
        {
            "the products themselves": (product, "Divide by both norms: a long vector would win every comparison."),
            "divided by the first vectors' norms only": (product / norm_a, "Divide by both norms, |a| and |b|."),
            "divided by the second vectors' norms only": (product / norm_b, "Divide by both norms, |a| and |b|."),
            "divided by the norms of whole matrices": (
                product / (a.norm() * b.norm()),
                "Each row has a norm of its own: a.norm(dim=1, keepdim=True).",
            ),
            "divided by squared norms": (
                product / (norm_a * norm_b) ** 2,
                "A norm is the square root of the sum of squares.",
            ),
            "the size of the cosine without its sign": (
                (product / (norm_a * norm_b)).abs(),
                "Keep the sign: opposite vectors have a cosine of -1.",
            ),
        },
        expected="equation (4)",
    )
    expect_close(
        got,
        product / (norm_a * norm_b),
        what="the cosine",
        hint="Equation (4): the product of row i of a and row j of b, divided by the norms of the two rows.",
    )


def check_nearest_other(answer):
    """(n, n) cosines -> (n,) indices of the nearest other sentence."""
    similarity = torch.tensor(
        [
            [1.0, 0.2, 0.7, -0.1],
            [0.2, 1.0, 0.3, 0.1],
            [0.7, 0.3, 1.0, 0.0],
            [-0.1, 0.1, 0.0, 1.0],
        ]
    )
    given = similarity.clone()
    got = answer(given)
    expect_shape(got, (4,), what="the nearest other of each of 4 sentences", hint="One index for each row: dim=1.")
    _recognise(
        got,
        {
            "each sentence's own index": (
                similarity.argmax(dim=1),
                "Leave one out: a sentence is nearest to itself. Take the diagonal out of the race first.",
            ),
            "the largest cosines": (
                similarity.masked_fill(torch.eye(4, dtype=torch.bool), -2).amax(dim=1),
                "The index is asked for, not the cosine: argmax, not amax.",
            ),
            "the farthest sentence": (similarity.argmin(dim=1), "Near is a large cosine: argmax, not argmin."),
        },
        expected="the index of the nearest other sentence",
    )
    hint = "In each row the largest cosine outside the diagonal; argmax(dim=1) gives its index."
    expect_close(got, [2, 2, 0, 1], what="the index of the nearest other sentence", hint=hint)
    if not torch.equal(given, similarity):
        raise Wrong(
            expected="the matrix of cosines to be as it was before",
            got="another one",
            hint="fill_diagonal_ changes what it is given: work on similarity.clone(), or use masked_fill.",
        )
    opposite = torch.tensor([[1.0, -0.5, -0.2], [-0.5, 1.0, -0.3], [-0.2, -0.3, 1.0]])
    expect_close(
        answer(opposite.clone()),
        [2, 2, 0],
        what="the nearest other, where all cosines are negative,",
        hint="Put -inf on the diagonal, not 0: zero is larger than a negative cosine.",
    )


def check_attention_weights(answer):
    """(B, P, d), (B, L, d), (B, L) -> (B, P, L)."""
    query, key = 2 * _random(2, 6, 9, seed=3), 2 * _random(2, 4, 9, seed=4)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    got = answer(query.clone(), key.clone(), mask.clone())
    scores = query @ key.transpose(1, 2)
    scaled, out = scores / 3.0, ~mask[:, None, :]
    expect_shape(
        got,
        (2, 6, 4),
        what="the weights of 6 positions over 4 tokens, for two sentences,",
        hint="Scores first: query @ key.transpose(1, 2) is (B, P, L). The values are not needed here.",
    )
    _recognise(
        got,
        {
            "padded tokens get weight": (
                scaled.softmax(-1),
                "Before the softmax set the scores of padded tokens to -inf: "
                "scores.masked_fill(~token_mask[:, None, :], -torch.inf).",
            ),
            "padded tokens have a score of 0": (
                scaled.masked_fill(out, 0.0).softmax(-1),
                "A score of 0 is not nothing: e^0 is 1. Only -inf gives a weight of 0.",
            ),
            "the weights no longer add up to 1": (
                scaled.softmax(-1).masked_fill(out, 0.0),
                "Mask before the softmax, with -inf, so that the real tokens share the whole weight.",
            ),
            "the scores are not divided by the square root of d": (
                scores.masked_fill(out, -torch.inf).softmax(-1),
                "d is the last dimension: divide the scores by query.shape[-1] ** 0.5.",
            ),
            "the real tokens are left out": (
                scaled.masked_fill(~out, -torch.inf).softmax(-1).nan_to_num(),
                "The mask is True for real tokens; fill where it is False: ~token_mask.",
            ),
        },
        expected="equation (5) with the mask",
    )
    if torch.allclose(torch.as_tensor(got).sum(dim=1), torch.ones(2, 4), atol=1e-4):
        raise Wrong(
            expected="weights that add up to 1 over the tokens",
            got="weights that add up to 1 over the positions",
            hint="Each position shares out a weight of 1 among the tokens: softmax(dim=-1).",
        )
    expect_close(
        got,
        scaled.masked_fill(out, -torch.inf).softmax(-1),
        what="the weight",
        hint="Equation (5): scores, divided by sqrt(d), padded ones to -inf, softmax over the tokens.",
    )


CHECKS = {
    "06.masked_mean": check_masked_mean,
    "06.cosine_matrix": check_cosine_matrix,
    "06.nearest_other": check_nearest_other,
    "06.attention_weights": check_attention_weights,
}
