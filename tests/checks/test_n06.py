"""The exercises of notebook 06: right answers pass, stubs are not done, wrong ones get the right hint."""

import torch
import torch.nn.functional as F

from lasslab.course.exercises import evaluate_answer
from lasslab.models.film_resunet import mean_token


def masked_mean(tokens, mask):
    weight = mask[:, :, None].to(tokens.dtype)
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1)


def cosine_matrix(a, b):
    return a @ b.T / (a.norm(dim=1, keepdim=True) * b.norm(dim=1))


def nearest_other(similarity):
    itself = torch.eye(len(similarity), dtype=torch.bool)
    return similarity.masked_fill(itself, -torch.inf).argmax(dim=1)


def attention_weights(query, key, token_mask):
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    return scores.masked_fill(~token_mask[:, None, :], -torch.inf).softmax(dim=-1)


def mean_by_loop(tokens, mask):
    return torch.stack([sentence[real].mean(dim=0) for sentence, real in zip(tokens, mask, strict=True)])


def nearest_by_loop(similarity):
    n = len(similarity)
    return [max((j for j in range(n) if j != i), key=lambda j: similarity[i, j].item()) for i in range(n)]


def weights_by_package(query, key, token_mask):
    """The weights are what attention reads when every token's value is a unit vector of its own."""
    unit = torch.eye(key.shape[1]).expand(len(key), -1, -1)
    return F.scaled_dot_product_attention(query, key, unit, attn_mask=token_mask[:, None, :])


RIGHT = {
    "06.masked_mean": [masked_mean, mean_token, mean_by_loop],
    "06.cosine_matrix": [
        cosine_matrix,
        lambda a, b: F.normalize(a, dim=1) @ F.normalize(b, dim=1).T,
        lambda a, b: F.cosine_similarity(a[:, None], b[None], dim=-1),
    ],
    "06.nearest_other": [
        nearest_other,
        lambda similarity: torch.tensor(nearest_by_loop(similarity)),
        lambda similarity: similarity.clone().fill_diagonal_(-2).argmax(dim=1),
    ],
    "06.attention_weights": [attention_weights, weights_by_package],
}


def trusting_the_padding(tokens, mask):
    return tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True)


def mask_after_softmax(query, key, token_mask):
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    return scores.softmax(dim=-1) * token_mask[:, None, :]


def mask_by_zero_score(query, key, token_mask):
    return (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5 * token_mask[:, None, :]).softmax(dim=-1)


def over_positions(query, key, token_mask):
    return (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(dim=1)


def mask_turned_round(query, key, token_mask):
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    return scores.masked_fill(token_mask[:, None, :], -torch.inf).softmax(dim=-1).nan_to_num()


def diagonal_in_place(similarity):
    return similarity.fill_diagonal_(-2).argmax(dim=1)


def diagonal_zero(similarity):
    return similarity.masked_fill(torch.eye(len(similarity), dtype=torch.bool), 0.0).argmax(dim=1)


WRONG = [
    ("06.masked_mean", lambda tokens, mask: tokens.mean(dim=1), "not by L"),
    ("06.masked_mean", lambda tokens, mask: (tokens * mask[..., None]).sum(dim=1), "divide it"),
    ("06.masked_mean", lambda tokens, mask: tokens[:, 0], "One token is not the mean"),
    ("06.masked_mean", trusting_the_padding, "Do not trust the padding"),
    ("06.masked_mean", lambda tokens, mask: tokens[mask].mean(dim=0), "keep batch and width"),
    ("06.cosine_matrix", lambda a, b: a @ b.T, "Divide by both norms"),
    ("06.cosine_matrix", lambda a, b: a @ b.T / a.norm(dim=1, keepdim=True), "both norms, |a| and |b|"),
    ("06.cosine_matrix", lambda a, b: a @ b.T / (a.norm() * b.norm()), "a norm of its own"),
    ("06.cosine_matrix", lambda a, b: cosine_matrix(a, b).abs(), "Keep the sign"),
    ("06.cosine_matrix", lambda a, b: cosine_matrix(b, a), "a @ b.T"),
    ("06.cosine_matrix", lambda a, b: torch.cdist(a, b), "Equation (4)"),
    ("06.nearest_other", lambda similarity: similarity.argmax(dim=1), "Leave one out"),
    ("06.nearest_other", lambda similarity: similarity.argmin(dim=1), "argmax, not argmin"),
    ("06.nearest_other", lambda s: s.clone().fill_diagonal_(-2).amax(dim=1), "index is asked for"),
    ("06.nearest_other", diagonal_in_place, "changes what it is given"),
    ("06.nearest_other", diagonal_zero, "Put -inf on the diagonal"),
    ("06.attention_weights", lambda q, k, m: attention_weights(q, k, torch.ones_like(m)), "Before the softmax"),
    ("06.attention_weights", mask_by_zero_score, "A score of 0 is not nothing"),
    ("06.attention_weights", mask_after_softmax, "share the whole weight"),
    ("06.attention_weights", lambda q, k, m: attention_weights(3 * q, k, m), "d is the last dimension"),
    ("06.attention_weights", over_positions, "softmax(dim=-1)"),
    ("06.attention_weights", mask_turned_round, "True for real tokens"),
    ("06.attention_weights", lambda q, k, m: attention_weights(q, k, m) @ k, "The values are not needed"),
]


def test_an_error_is_told_in_words():
    result = evaluate_answer("06.cosine_matrix", lambda a, b: a * b)
    assert not result.passed and "RuntimeError" in result.got
