"""The exercises of notebook 15: right answers pass, stubs are not done, wrong ones get the right hint."""

import math

import torch

from lasslab import flow
from lasslab.course.exercises import evaluate_answer
from lasslab.evaluation.localisation import area_under_roc


def attention(query, key, mask):
    scores = query @ key.T / query.shape[-1] ** 0.5
    return scores.masked_fill(~mask, -math.inf).softmax(dim=-1)


def attention_by_loop(query, key, mask):
    rows = []
    for place in query:
        scores = [float(place @ token) / len(place) ** 0.5 for token in key]
        numbers = [math.exp(score) * real for score, real in zip(scores, mask.tolist(), strict=True)]
        rows.append([number / sum(numbers) for number in numbers])
    return torch.tensor(rows)


def attention_by_torch(query, key, mask):
    """The kernel that the network usually runs, with the identity for values."""
    values = torch.eye(len(key))
    return torch.nn.functional.scaled_dot_product_attention(query, key, values, attn_mask=mask.expand(len(query), -1))


def token_curve(weights, tokens, seconds):
    n = weights.shape[1]
    return (torch.arange(n) + 0.5) * seconds / n, weights[..., tokens].sum(-1).mean(dim=(0, 2))


def auc(score, active):
    higher = score[active][:, None] - score[~active]
    return ((higher > 0).double() + 0.5 * (higher == 0).double()).mean()


def auc_by_loop(score, active):
    won = pairs = 0.0
    for a in score[active].tolist():
        for b in score[~active].tolist():
            won += 1.0 if a > b else 0.5 if a == b else 0.0
            pairs += 1
    return won / pairs


def start_snr(x, t_start):
    return 10 * torch.log10((t_start * x).square().mean() / (1 - t_start) ** 2)


def start_snr_by_package(x, t_start):
    """Signal and noise one by one through the package's path; its sigma is far below the tolerance."""
    signal = flow.interpolate(torch.zeros_like(x), x, t_start)
    noise = flow.interpolate(torch.ones_like(x), torch.zeros_like(x), t_start)
    return 10 * torch.log10(signal.square().mean() / noise.square().mean())


RIGHT = {
    "15.attention": [attention, attention_by_loop, attention_by_torch],
    "15.token_curve": [token_curve, lambda *given: [part.tolist() for part in token_curve(*given)]],
    "15.auc": [auc, auc_by_loop, lambda score, active: area_under_roc(score=score, active=active)],
    "15.start_snr": [start_snr, start_snr_by_package, lambda x, t: float(start_snr(x, t))],
}


def curve_of(times, curve):
    return lambda weights, tokens, seconds: (times(weights.shape[1], seconds), curve(weights[..., tokens]))


def centres(n, seconds):
    return (torch.arange(n) + 0.5) * seconds / n


def pieces_together(columns):
    return columns.sum(-1).mean(dim=(0, 2))


WRONG = [
    ("15.attention", lambda q, k, m: (q @ k.T).masked_fill(~m, -math.inf).softmax(-1), "square root of d: without"),
    (
        "15.attention",
        lambda q, k, m: (q @ k.T / q.shape[-1]).masked_fill(~m, -math.inf).softmax(-1),
        "not by d",
    ),
    ("15.attention", lambda q, k, m: (q @ k.T / q.shape[-1] ** 0.5).softmax(-1) * m, "before the softmax"),
    ("15.attention", lambda q, k, m: (q @ k.T / q.shape[-1] ** 0.5).softmax(-1), "Padding is no word"),
    (
        "15.attention",
        lambda q, k, m: (q @ k.T / q.shape[-1] ** 0.5).masked_fill(~m, 0.0).softmax(-1),
        "exp(0) is 1",
    ),
    (
        "15.attention",
        lambda q, k, m: (q @ k.T / q.shape[-1] ** 0.5).masked_fill(~m, -math.inf).softmax(0).nan_to_num(),
        "over the tokens, the last dimension",
    ),
    ("15.attention", lambda q, k, m: (q @ k.T / q.shape[-1] ** 0.5).masked_fill(~m, -math.inf), "These are the scores"),
    ("15.attention", lambda q, k, m: attention(q, k, m).T, "A row for each place"),
    ("15.token_curve", curve_of(centres, lambda columns: columns.mean(-1).mean(dim=(0, 2))), "Pieces of one name"),
    ("15.token_curve", curve_of(centres, lambda columns: columns.sum(-1).mean(dim=(0, 1))), "time is what is left"),
    ("15.token_curve", curve_of(centres, lambda columns: columns.sum(-1).amax(dim=(0, 2))), "mean over heads"),
    ("15.token_curve", curve_of(lambda n, s: torch.arange(n) * s / n, pieces_together), "stands for its middle"),
    ("15.token_curve", curve_of(lambda n, s: torch.linspace(0, s, n), pieces_together), "is not at 0"),
    ("15.token_curve", curve_of(lambda n, s: torch.arange(n), pieces_together), "numbers of columns"),
    ("15.token_curve", lambda weights, tokens, seconds: pieces_together(weights[..., tokens]), "when, and how much"),
    ("15.auc", lambda s, a: (s[a][:, None] > s[~a]).double().mean(), "A pair of equal scores"),
    ("15.auc", lambda s, a: (s[a][:, None] >= s[~a]).double().mean(), "A pair of equal scores"),
    ("15.auc", lambda s, a: 1 - auc(s, a), "always right is 1"),
    ("15.auc", lambda s, a: max(auc(s, a), 1 - auc(s, a)), "whichever of the two is larger"),
    ("15.auc", lambda s, a: ((s > 0.5) == a).double().mean(), "number of pairs"),
    ("15.auc", lambda s, a: s[a].mean() - s[~a].mean(), "always right is 1"),
    ("15.start_snr", lambda x, t: start_snr(x, t) / 2, "square the amplitudes"),
    ("15.start_snr", lambda x, t: -start_snr(x, t), "Signal over noise"),
    ("15.start_snr", lambda x, t: 20 * math.log10(t / (1 - t)), "a power of its own"),
    ("15.start_snr", lambda x, t: 10 * torch.log10((t * x).square().mean()), "The noise is scaled"),
    ("15.start_snr", lambda x, t: 10 * torch.log10(t * x.square().mean() / (1 - t)), "goes with its square"),
    ("15.start_snr", lambda x, t: start_snr(x, max(t, 1e-6)), "minus infinity"),
]


def test_an_error_is_told_in_words():
    result = evaluate_answer("15.auc", lambda score, active: score @ active)
    assert not result.passed and "RuntimeError" in result.got
