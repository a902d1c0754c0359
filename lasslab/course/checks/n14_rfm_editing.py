"""Checks of notebook 14, editing by rectified flow."""

import torch

from lasslab.course.exercises import Wrong, expect_close, expect_shape


def check_edit_pair(answer):
    """(base, removed, added), (T,) each -> original and target (T,), divided by the larger peak where it exceeds 1."""
    base = torch.tensor([0.5, -0.25, 0.0, 0.25])
    silence = torch.zeros(4)
    soft, middling, loud = (torch.tensor([a, b, c, 0.0]) for a, b, c in ((0, 0.5, 0.25), (1, 0, -0.5), (1.5, 0, -0.5)))
    for what, removed, added in (
        ("an addition that fits", silence, soft),
        ("a replacement with peaks of 1.5 and 2", middling, loud),
        ("a replacement with peaks of 2 and 1.5", loud, middling),
        ("a removal with a peak of 2", loud, silence),
        ("an addition with a peak of 2", silence, loud),
    ):
        given = [base.clone(), removed.clone(), added.clone()]
        values = answer(*given)
        if not isinstance(values, (tuple, list)) or len(values) != 2:
            raise Wrong(
                expected="two values, (original, target)",
                got=f"a {type(values).__name__}",
                hint="Return both sides of the edit.",
            )
        if not all(torch.equal(now, before) for now, before in zip(given, (base, removed, added), strict=True)):
            raise Wrong(
                expected="three sounds that are left as they came",
                got="a change in what was passed in",
                hint="base += removed changes the base itself: write base + removed.",
            )
        original, target = (torch.as_tensor(value) for value in values)
        for name, value in (("original", original), ("target", target)):
            expect_shape(value, (4,), what=f"the {name}", hint="Add sample by sample; the length stays.")
        pair = torch.stack([base + removed, base + added])
        peaks = pair.abs().amax(dim=1)
        right = pair / peaks.max().clamp(min=1.0)
        _refuse_known(torch.stack([original, target]), right, pair, peaks, what)
        expect_close(
            torch.stack([original, target]),
            right,
            what=f"original and target of {what}",
            hint="original = base + removed, target = base + added, both divided by the larger of 1 and the two peaks.",
        )


def _refuse_known(got, right, pair, peaks, what):
    """Mistakes that can be named."""
    for wrong, hint in (
        (pair.flip(0), "The two are swapped: what goes is in the original, what comes is in the target."),
        (pair, "Samples beyond 1 clip when they are written: divide both by the larger peak where it exceeds 1."),
        (
            pair / peaks.clamp(min=1.0)[:, None],
            "One divisor for both: divided each by its own peak, the base is no longer the same on both sides.",
        ),
        (pair / peaks.max(), "Only what would clip is turned down: divide by 1 where both peaks are below it."),
        (pair / peaks[0].clamp(min=1.0), "The target's peak counts, too: take the larger of the two."),
        (pair / peaks[1].clamp(min=1.0), "The original's peak counts, too: take the larger of the two."),
        (pair.clamp(-1, 1), "Clamping cuts the tops off, on one side only; turn both sides down instead."),
    ):
        if not torch.allclose(wrong, right, atol=1e-4) and torch.allclose(got.to(wrong), wrong, atol=1e-4):
            raise Wrong(
                expected=f"original and target of {what}, at one level", got="another scaling of them", hint=hint
            )


def check_lora(answer):
    """(x, W, bias, A, B, alpha) -> h = W x + bias + (alpha / r) B A x, for x (..., d_in)."""
    generator = torch.Generator().manual_seed(0)
    for d_in, d_out, rank, alpha in ((6, 4, 2, 8.0), (5, 5, 3, 3.0), (4, 6, 1, 16.0)):
        W, bias = torch.randn(d_out, d_in, generator=generator), torch.randn(d_out, generator=generator)
        A, B = torch.randn(rank, d_in, generator=generator), torch.randn(d_out, rank, generator=generator)
        x = torch.randn(2, 3, d_in, generator=generator)
        before = W.clone()
        got = answer(x.clone(), W, bias, A, B, alpha)
        if not torch.equal(W, before):
            raise Wrong(
                expected="a W that is left as it came",
                got="a change in W itself",
                hint="W is frozen. W += ... changes it for every later call: add the update to the answer.",
            )
        expect_shape(
            got,
            (2, 3, d_out),
            what=f"h for x (2, 3, {d_in}) and W ({d_out}, {d_in})",
            hint="x holds its vectors as rows, so W x is x @ W.T, and B A x is x @ A.T @ B.T.",
        )
        plain, update = x @ W.T + bias, x @ A.T @ B.T
        right = plain + alpha / rank * update
        for wrong, hint in (
            (plain, "The update is missing: add (alpha / r) B A x."),
            (plain + update, "The update counts alpha / r times, not once."),
            (plain + alpha * update, "alpha is divided by the rank r, the number of rows of A."),
            (plain + alpha / d_in * update, "r is the number of rows of A, not of columns."),
            (right - bias, "The layer's own bias stays: LoRA is added to all that the layer did."),
            (alpha / rank * update, "W x and the bias are still there: LoRA stands beside the frozen layer."),
        ):
            if not torch.allclose(wrong, right, atol=1e-4) and torch.allclose(torch.as_tensor(got), wrong, atol=1e-4):
                raise Wrong(expected="W x + bias + (alpha / r) B A x", got="another sum", hint=hint)
        expect_close(
            got,
            right,
            what=f"h for rank {rank} and alpha {alpha:g}",
            hint="A comes first and makes r numbers of x, B makes d_out of them; r is the number of rows of A.",
        )


def check_edit_latent(answer):
    """(velocity, x_orig, noise, t_start, n_steps) -> equations (4) and (5), with sigma_min = 0."""
    generator = torch.Generator().manual_seed(0)
    x_orig, noise = torch.randn(2, 3, generator=generator), torch.randn(2, 3, generator=generator)
    goal = torch.randn(2, 3, generator=generator)
    for t_start, n_steps in ((0.2, 4), (0.0, 5), (0.5, 1)):
        seen = []

        def velocity(x, t, seen=seen):
            seen.append((x.clone(), float(t)))
            return goal + 3 * float(t) ** 2

        got = answer(velocity, x_orig.clone(), noise.clone(), t_start, n_steps)
        expect_shape(got, (2, 3), what="the latent at t = 1", hint="Return the state after the last step.")
        if len(seen) != n_steps:
            raise Wrong(
                expected=f"{n_steps} calls of the velocity for n_steps = {n_steps}",
                got=f"{len(seen)} calls",
                hint="One call for each step: n steps begin at n times, the last of which is one step before 1.",
            )
        start, first = seen[0]
        right_start = (1 - t_start) * noise + t_start * x_orig
        for wrong, hint in (
            (noise, "Equation (4): a share t_start of the original is in the start."),
            (x_orig, "Equation (4): the start is nearly all noise; t_start is the share of the original."),
            (t_start * noise + (1 - t_start) * x_orig, "Noise and original are swapped: t = 0 is noise."),
            (noise + t_start * x_orig, "The noise is scaled down by 1 - t_start: the start lies on the path."),
        ):
            if not torch.allclose(wrong, right_start, atol=1e-4) and torch.allclose(start, wrong, atol=1e-4):
                raise Wrong(expected=f"the start of equation (4) for t_start = {t_start}", got="another", hint=hint)
        expect_close(
            start, right_start, what=f"the start for t_start = {t_start}", hint="(1 - t_start) noise + t_start x_orig."
        )
        step = (1 - t_start) / n_steps
        times = torch.tensor([t for _, t in seen])
        wanted = torch.tensor([t_start + number * step for number in range(n_steps)])
        if abs(first - t_start) > 1e-4:
            raise Wrong(
                expected=f"a first call at t = t_start = {t_start}",
                got=f"t = {first:g}",
                hint="The network is asked at the time the state is at, the beginning of each step.",
            )
        if n_steps > 1 and torch.allclose(times.diff(), torch.tensor(1 / n_steps), atol=1e-4) and t_start:
            raise Wrong(
                expected=f"steps of {step:g}, from {t_start} to 1",
                got=f"steps of {1 / n_steps:g}, which lead beyond t = 1",
                hint="What is left to go is 1 - t_start: a step is (1 - t_start) / n_steps.",
            )
        expect_close(
            times, wanted, what="the times of the calls", hint="Equal steps from t_start; the last begins one before 1."
        )
        right = right_start + sum(step * (goal + 3 * t.item() ** 2) for t in wanted)
        if torch.allclose(torch.as_tensor(got), right_start + sum(goal + 3 * t.item() ** 2 for t in wanted), atol=1e-3):
            raise Wrong(
                expected="x + step v at each step",
                got="x + v, a whole unit of time at each step",
                hint="Equation (5): the velocity is multiplied by the step.",
            )
        expect_close(
            got,
            right,
            what=f"the latent at t = 1 for t_start = {t_start} and {n_steps} step{'s' * (n_steps > 1)}",
            hint="Equation (5): x + step v(x, t), n_steps times, with a step of (1 - t_start) / n_steps.",
        )


def check_heard(answer):
    """Probabilities (n,) of the class that comes, in estimate, original and target -> 1, 0, or NaN where undecided."""

    def probability(log_odds):
        return torch.sigmoid(torch.tensor(log_odds))

    nan = float("nan")
    cases = (  # log-odds in the original, target and estimate; the verdict; what it is; a hint
        (-4.0, 2.0, 2.0, 1.0, "the target itself", "The middle is between original and target: the target is past it."),
        (-4.0, 2.0, -4.0, 0.0, "the unedited original", "The original is on the wrong side of the middle."),
        (-4.0, 2.0, 4.0, 1.0, "an estimate heard more than the target", "Beyond the target is past the middle, too."),
        (
            -4.0,
            0.0,
            -1.5,
            1.0,
            "an estimate past the middle of the log-odds, at a probability of 0.18",
            "Halve the way in log-odds, log p / (1 - p): 0.02 and 0.5 have their middle at 0.12.",
        ),
        (
            1.0,
            4.0,
            2.0,
            0.0,
            "an estimate short of the middle, at a probability of 0.88",
            "No fixed threshold: each item brings its own scale, from its original to its target.",
        ),
        (1.0, 1.5, 1.4, nan, "an item whose target has a log-odds of only 0.5 more", "Less than 1 apart: undecided."),
        (
            2.0,
            -2.0,
            0.0,
            nan,
            "an item in whose target the class is heard less than in the original",
            "The margin has a direction: r(target) - r(original) must be at least 1, not its size.",
        ),
    )
    original, target, estimate = (probability([case[place] for case in cases]) for place in (0, 1, 2))
    got = answer(estimate.clone(), original.clone(), target.clone())
    expect_shape(got, (len(cases),), what="the verdicts of seven items", hint="One verdict for each item.")
    verdicts = torch.as_tensor(got).double()
    for found, (*_, right, what, hint) in zip(verdicts.tolist(), cases, strict=True):
        same = found == right or (found != found and right != right)
        if not same:
            words = {1.0: "1, heard", 0.0: "0, not heard"}
            raise Wrong(
                expected=f"{words.get(right, 'NaN, undecided')}, for {what}",
                got="NaN" if found != found else f"{found:g}",
                hint=hint,
            )
    certain = torch.tensor([0.0]), torch.tensor([1.0])
    got = torch.as_tensor(answer(certain[1].clone(), certain[0].clone(), certain[1].clone())).double()
    if got.tolist() != [1.0]:
        raise Wrong(
            expected="1 where the tagger is certain: probabilities 0 in the original, 1 in target and estimate",
            got=str(got.tolist()),
            hint="The log-odds of 0 and 1 are infinite: clip the probabilities to [0.001, 0.999] first.",
        )


CHECKS = {
    "14.edit_pair": check_edit_pair,
    "14.lora": check_lora,
    "14.edit_latent": check_edit_latent,
    "14.heard": check_heard,
}
