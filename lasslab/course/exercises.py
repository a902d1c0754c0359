"""Exercises that answer in words: what was expected, what came, a hint.

A notebook calls ``check("04.cosine_similarity", my_function)``. The checks of notebook 04 live in the module
``lasslab/course/checks/n04_<topic>.py``, which has a dictionary ``CHECKS`` from names to functions.

How to write one. The function takes the learner's answer, returns when it is right, and else raises `Wrong`:

    from lasslab.course.exercises import Wrong, expect_close

    def check_cosine_similarity(answer):
        a = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
        expect_close(answer(a, 2 * a), 1.0, what="the cosine of a and 2 a", hint="Divide by both norms.")
        if answer(a, -a) > 0:
            raise Wrong(expected="a negative cosine of a and -a", got="a positive one", hint="Keep the sign.")

    CHECKS = {"04.cosine_similarity": check_cosine_similarity}

The name begins with the notebook's number, by which the module is found. `check` sees to the rest. An
answer that is None, NotImplemented or ..., or a function that returns one of these or raises
NotImplementedError, is "not done yet"; an exception in the learner's code is told in words, never raised.
"""

from __future__ import annotations

import functools
import html
import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

CHECK_MIME = "application/vnd.lasslab.check+json"

Check = Callable[[Any], None]


class Wrong(Exception):
    """An answer that is not right, in three plain sentences: what was expected, what came, and a hint."""

    def __init__(self, *, expected: str, got: str, hint: str) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected, self.got, self.hint = expected, got, hint


class NotDone(Exception):
    """The exercise is still a stub."""


@dataclass(frozen=True)
class CheckResult:
    """What `check` found: `passed`, `done` (False for a stub), and the words it showed."""

    name: str
    passed: bool
    done: bool = True
    expected: str = ""
    got: str = ""
    hint: str = ""

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        if self.passed:
            return f"{self.name}: correct."
        if not self.done:
            return f"{self.name}: not done yet. {self.hint}".rstrip()
        words = f"  expected: {self.expected}\n  got:      {self.got}\n  hint:     {self.hint}"
        return f"{self.name}: not yet.\n{words}"

    def _ipython_display_(self) -> None:
        """Show nothing: `check` has shown the result already; as a cell's last line it would appear twice."""

    def _mimebundle(self) -> dict[str, Any]:
        return {"text/plain": str(self), "text/html": _as_html(self), CHECK_MIME: asdict(self)}


def check(name: str, answer: Any) -> CheckResult:
    """Check an exercise's answer and show the verdict in words.

    Args:
        name: the exercise, for example ``"04.cosine_similarity"``.
        answer: what the learner made: a number, a tensor, a function.

    Returns:
        The result; true when the answer is right.

    Raises:
        ValueError: no exercise has this name. A wrong answer raises nothing.
    """
    from IPython.display import display

    result = evaluate_answer(name, answer)
    display(result._mimebundle(), raw=True)
    return result


def evaluate_answer(name: str, answer: Any) -> CheckResult:
    """Check an exercise's answer without showing anything; `check` is this with a display."""
    run = find_check(name)
    if _is_stub(answer):
        return _not_done(name)
    try:
        run(_watch_for_stubs(answer))
    except (NotDone, NotImplementedError):
        return _not_done(name)
    except Wrong as wrong:
        return CheckResult(name, passed=False, expected=wrong.expected, got=wrong.got, hint=wrong.hint)
    except Exception as error:  # the learner's code may raise anything, and every kind is told in words
        return CheckResult(
            name,
            passed=False,
            expected="an answer that runs",
            got=f"{type(error).__name__}: {error}",
            hint="Call it yourself in a new cell on a small example, and look at what goes in.",
        )
    return CheckResult(name, passed=True)


def find_check(name: str) -> Check:
    """Return the check registered under `name`, loading only the modules of its notebook."""
    checks = load_checks(name.split(".")[0])
    if name not in checks:
        known = sorted(checks) or sorted(load_checks())
        close = get_close_matches(name, known, n=3, cutoff=0.3) or known
        raise ValueError(f"no exercise is called {name!r}; the nearest are {', '.join(close)}")
    return checks[name]


def load_checks(notebook: str = "") -> dict[str, Check]:
    """Merge the `CHECKS` of every check module, or of one notebook's (`notebook` is its number, "04")."""
    from lasslab.course import checks

    merged: dict[str, Check] = {}
    for info in pkgutil.iter_modules(checks.__path__):
        if info.name.startswith(f"n{notebook}"):
            merged.update(importlib.import_module(f"{checks.__name__}.{info.name}").CHECKS)
    return merged


def expect_close(got: Any, expected: Any, *, what: str, hint: str, atol: float = 1e-4) -> None:
    """Raise `Wrong`, in words, unless `got` equals `expected` within `atol` in shape, finiteness and values.

    Args:
        got: number, list, array or tensor that the learner computed.
        expected: the same kind of thing.
        what: names the quantity, "the mixture's SNR in dB".
        hint: shown when it is wrong.
        atol: largest absolute difference that still counts as equal.
    """
    import numpy as np

    if _is_stub(got):
        raise NotDone
    actual, wanted = _as_array(got, what, hint), _as_array(expected, what, hint)
    if actual.shape != wanted.shape:
        raise Wrong(expected=f"{what} {_shape(wanted.shape)}", got=_shape(actual.shape), hint=hint)
    if not np.isfinite(actual).all():
        raise Wrong(expected=f"{what} to be finite", got="some values are NaN or infinite", hint=hint)
    error = float(np.abs(actual - wanted).max(initial=0.0))
    if error > atol:
        if wanted.ndim == 0:
            raise Wrong(expected=f"{what} to be {_number(wanted)}", got=_number(actual), hint=hint)
        where = tuple(int(i) for i in np.unravel_index(np.abs(actual - wanted).argmax(), actual.shape))
        raise Wrong(
            expected=f"{what} to be {_number(wanted[where])} at index {list(where)}",
            got=f"{_number(actual[where])} there, the largest of the differences",
            hint=hint,
        )


def expect_shape(got: Any, shape: tuple[int, ...], *, what: str, hint: str) -> None:
    """Raise `Wrong` unless `got` is a tensor or array of exactly this shape."""
    if _is_stub(got):
        raise NotDone
    if not hasattr(got, "shape"):
        raise Wrong(expected=f"{what} {_shape(shape)}", got=f"a {type(got).__name__}", hint=hint)
    if tuple(got.shape) != tuple(shape):
        raise Wrong(expected=f"{what} {_shape(shape)}", got=_shape(got.shape), hint=hint)


def _is_stub(answer: Any) -> bool:
    return answer is None or answer is NotImplemented or answer is Ellipsis


def _not_done(name: str) -> CheckResult:
    return CheckResult(name, passed=False, done=False, hint="Fill in the cell above, then run both again.")


def _watch_for_stubs(answer: Any) -> Any:
    """Make a plain function raise NotDone when it returns nothing, so that no check need think of stubs."""
    if not inspect.isroutine(answer):
        return answer

    @functools.wraps(answer)
    def watched(*args: Any, **kwargs: Any) -> Any:
        value = answer(*args, **kwargs)
        if _is_stub(value):
            raise NotDone
        return value

    return watched


def _as_array(value: Any, what: str, hint: str) -> Any:
    """Turn a number, list or tensor into a float64 (or complex128) array."""
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu().resolve_conj().numpy()
    try:
        array = np.asarray(value)
        return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
    except (TypeError, ValueError):
        got = f"a {type(value).__name__}"
        raise Wrong(expected=f"{what} as a number or a tensor", got=got, hint=hint) from None


def _shape(shape: Any) -> str:
    return f"of shape {tuple(int(n) for n in shape)}" if len(shape) else "as one number"


def _number(value: Any) -> str:
    number = complex(value)
    if number.imag:
        return f"{number:.4g}"
    return f"{number.real:.4g}" if math.isfinite(number.real) else str(number.real)


def _as_html(result: CheckResult) -> str:
    """A small box that reads well on a light and a dark page; the verdict is in words, not colour alone."""
    colour, verdict = ("#2e8b57", "Correct") if result.passed else ("#c4690a", "Not yet")
    if not result.done:
        colour, verdict = "#6b7280", "Not done yet"
    rows = [("Expected", result.expected), ("Got", result.got), ("Hint", result.hint)]
    body = "".join(f"<div><b>{label}:</b> {html.escape(text)}</div>" for label, text in rows if text)
    return (
        f'<div style="border-left:4px solid {colour};padding:6px 12px;margin:4px 0;line-height:1.5">'
        f'<div><b style="color:{colour}">{verdict}</b> <code>{html.escape(result.name)}</code></div>'
        f"{body}</div>"
    )
