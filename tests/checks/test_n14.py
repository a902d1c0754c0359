"""The exercises of notebook 14: right answers pass, stubs are not done, wrong ones get the right hint."""

import torch

from lasslab import flow
from lasslab.course.exercises import evaluate_answer
from lasslab.data.edits import edit_batch
from lasslab.evaluation.edit_metrics import judge_edits


def edit_pair(base, removed, added):
    original, target = base + removed, base + added
    peak = max(1.0, original.abs().max().item(), target.abs().max().item())
    return original / peak, target / peak


def edit_pair_by_package(base, removed, added):
    batch = edit_batch({"base": base[None], "removed": removed[None], "added": added[None]})
    return [batch["original"][0], batch["target"][0]]


def lora(x, W, bias, A, B, alpha):
    return x @ W.T + bias + alpha / len(A) * (x @ A.T @ B.T)


def lora_merged(x, W, bias, A, B, alpha):
    return torch.nn.functional.linear(x, W + alpha / B.shape[1] * B @ A, bias)


def edit_latent(velocity, x_orig, noise, t_start, n_steps):
    x = (1 - t_start) * noise + t_start * x_orig
    step = (1 - t_start) / n_steps
    for number in range(n_steps):
        x = x + step * velocity(x, t_start + number * step)
    return x


def edit_latent_by_package(velocity, x_orig, noise, t_start, n_steps):
    start = flow.interpolate(noise, x_orig, t_start)
    return flow.solve(velocity, start, flow.time_grid(n_steps, start=t_start))


def log_odds(p, low=0.001):
    p = p.double().clamp(low, 1 - low)
    return (p / (1 - p)).log()


def heard(estimate, original, target):
    r, r_original, r_target = (log_odds(p) for p in (estimate, original, target))
    return torch.where(r_target - r_original >= 1, (r >= (r_original + r_target) / 2).double(), torch.nan)


def heard_by_package(estimate, original, target):
    n = len(target)
    parts = {"estimate": estimate[:, None], "original": original[:, None], "target": target[:, None]}
    nothing, comes = torch.full((n,), -1), torch.zeros(n, dtype=torch.long)
    return judge_edits(**parts, removed=nothing, added=comes).heard


RIGHT = {
    "14.edit_pair": [edit_pair, edit_pair_by_package],
    "14.lora": [lora, lora_merged],
    "14.edit_latent": [edit_latent, edit_latent_by_package],
    "14.heard": [heard, heard_by_package],
}


def scaled(divide):
    """The two sums, and what their peaks make of them."""

    def answer(base, removed, added):
        pair = torch.stack([base + removed, base + added])
        return tuple(divide(pair, pair.abs().amax(dim=1)))

    return answer


def in_place(base, removed, added):
    target = base + added
    base += removed
    peak = max(1.0, base.abs().max().item(), target.abs().max().item())
    return base / peak, target / peak


def added_lora(scale):
    return lambda x, W, bias, A, B, alpha: x @ W.T + bias + scale(alpha, A) * (x @ A.T @ B.T)


def lora_in_place(x, W, bias, A, B, alpha):
    W += alpha / len(A) * B @ A
    return x @ W.T + bias


def sampled(start=None, step=None, offset=0.0, calls=0, factor=None):
    """The sampler with one thing changed."""

    def answer(velocity, x_orig, noise, t_start, n_steps):
        x = (start or (lambda o, e, s: (1 - s) * e + s * o))(x_orig, noise, t_start)
        h = step(t_start, n_steps) if step else (1 - t_start) / n_steps
        for number in range(n_steps + calls):
            x = x + (factor or h) * velocity(x, t_start + (number + offset) * h)
        return x

    return answer


def judged(threshold, margin, low=0.001):
    def answer(estimate, original, target):
        r, r_original, r_target = (log_odds(p, low) for p in (estimate, original, target))
        verdict = threshold(r, r_original, r_target)
        return torch.where(margin(r_target - r_original), verdict.double(), torch.nan)

    return answer


def middle(r, r_original, r_target):
    return r >= (r_original + r_target) / 2


def heard_by_probability(estimate, original, target):
    decided = log_odds(target) - log_odds(original) >= 1
    return torch.where(decided, (estimate >= (original + target) / 2).double(), torch.nan)


WRONG = [
    ("14.edit_pair", scaled(lambda pair, peaks: pair), "Samples beyond 1 clip"),
    ("14.edit_pair", scaled(lambda pair, peaks: pair.flip(0) / peaks.max().clamp(min=1)), "swapped"),
    ("14.edit_pair", scaled(lambda pair, peaks: pair / peaks.clamp(min=1)[:, None]), "One divisor for both"),
    ("14.edit_pair", scaled(lambda pair, peaks: pair / peaks.max()), "Only what would clip"),
    ("14.edit_pair", scaled(lambda pair, peaks: pair / peaks[0].clamp(min=1)), "The target's peak counts"),
    ("14.edit_pair", scaled(lambda pair, peaks: pair / peaks[1].clamp(min=1)), "The original's peak counts"),
    ("14.edit_pair", scaled(lambda pair, peaks: pair.clamp(-1, 1)), "Clamping cuts the tops off"),
    ("14.edit_pair", scaled(lambda pair, peaks: pair / 2), "the larger of 1 and the two peaks"),
    ("14.edit_pair", lambda base, removed, added: base + added - removed, "Return both sides"),
    ("14.edit_pair", in_place, "write base + removed"),
    ("14.lora", added_lora(lambda alpha, A: 0.0), "The update is missing"),
    ("14.lora", added_lora(lambda alpha, A: 1.0), "counts alpha / r times"),
    ("14.lora", added_lora(lambda alpha, A: alpha), "divided by the rank"),
    ("14.lora", added_lora(lambda alpha, A: alpha / A.shape[1]), "not of columns"),
    ("14.lora", lambda x, W, bias, A, B, alpha: lora(x, W, 0, A, B, alpha), "own bias stays"),
    ("14.lora", lambda x, W, bias, A, B, alpha: alpha / len(A) * (x @ A.T @ B.T), "stands beside the frozen layer"),
    ("14.lora", lambda x, W, bias, A, B, alpha: x @ A.T, "x @ A.T @ B.T"),
    ("14.lora", lora_in_place, "W is frozen"),
    ("14.edit_latent", sampled(start=lambda o, e, s: e), "a share t_start of the original"),
    ("14.edit_latent", sampled(start=lambda o, e, s: o), "nearly all noise"),
    ("14.edit_latent", sampled(start=lambda o, e, s: s * e + (1 - s) * o), "swapped"),
    ("14.edit_latent", sampled(start=lambda o, e, s: e + s * o), "scaled down by 1 - t_start"),
    ("14.edit_latent", sampled(step=lambda s, n: 1 / n), "What is left to go"),
    ("14.edit_latent", sampled(calls=1), "One call for each step"),
    ("14.edit_latent", sampled(offset=1.0), "the beginning of each step"),
    ("14.edit_latent", sampled(factor=1.0), "multiplied by the step"),
    ("14.edit_latent", sampled(factor=0.05), "n_steps times"),
    ("14.heard", judged(lambda r, o, t: r >= 0, lambda gap: gap >= 1), "in log-odds"),
    ("14.heard", heard_by_probability, "in log-odds"),
    ("14.heard", judged(lambda r, o, t: r > -2, lambda gap: gap >= 1), "No fixed threshold"),
    ("14.heard", judged(lambda r, o, t: r < (o + t) / 2, lambda gap: gap >= 1), "the target is past it"),
    ("14.heard", judged(middle, lambda gap: gap > -9), "undecided"),
    ("14.heard", judged(middle, lambda gap: gap.abs() >= 1), "The margin has a direction"),
    ("14.heard", judged(middle, lambda gap: (gap >= 1) & gap.isfinite(), low=0.0), "clip the probabilities"),
    ("14.heard", lambda estimate, original, target: (estimate > original).double().mean(), "One verdict for each"),
]


def test_an_error_is_told_in_words():
    result = evaluate_answer("14.lora", lambda x, W, bias, A, B, alpha: W @ x + bias)
    assert not result.passed and "RuntimeError" in result.got
