"""Checks of notebook 00, and the mixture of its puzzle."""

import torch

from lasslab.course.exercises import Wrong, expect_close, expect_shape
from lasslab.data.mixtures import Mixture, mix_at_snr
from lasslab.data.synthesis import synthesise
from lasslab.evaluation.metrics import si_sdr

ENOUGH_DB = 5.0  # SI-SDR; the mixture itself has 0 dB


def puzzle_mixture() -> Mixture:
    """Two sounds that the notebook does not name, equally strong; the first is to be pulled out."""
    return mix_at_snr(synthesise("whistle", seed=1001), synthesise("helicopter", seed=1001), snr_db=0.0)


def check_puzzle(answer):
    """The whistle, pulled out of the mixture by a query of the learner's own."""
    puzzle = puzzle_mixture()
    expect_shape(
        answer,
        tuple(puzzle.mixture.shape),
        what="the separated sound",
        hint="Hand in what separator(puzzle, my_query) returns: a waveform as long as the mixture.",
    )
    answer = torch.as_tensor(answer).float()
    if not bool(answer.any()):
        raise Wrong(expected="a sound", got="silence", hint="Ask for a sound that you can hear in the mixture.")
    high = si_sdr(estimate=answer, target=puzzle.target)
    low = si_sdr(estimate=answer, target=puzzle.interference)
    if high >= ENOUGH_DB:
        return
    if low >= ENOUGH_DB:
        raise Wrong(
            expected="the high sound of the two",
            got="the low one, very well separated",
            hint="The query decides: describe the other sound.",
        )
    if si_sdr(estimate=answer, target=puzzle.mixture) > 20:
        raise Wrong(
            expected="one of the two sounds",
            got="the mixture, at most louder or softer",
            hint="Call separator(puzzle, my_query) and hand in what it returns.",
        )
    raise Wrong(
        expected=f"an SI-SDR of at least {ENOUGH_DB:.0f} dB to the high sound",
        got=f"{high:.1f} dB",
        hint="Say what makes the sound, in plain words: 'a dog barking' rather than 'the louder part'.",
    )


def check_turn_down(answer):
    """x 10^(-d / 20)."""
    x = torch.tensor([1.0, -0.5, 0.25, 0.0])
    got = answer(x, 20.0)
    expect_shape(got, (4,), what="the waveform, turned down", hint="Every sample is multiplied by one factor.")
    if abs(float(got[0]) - 0.01) < 1e-4:
        raise Wrong(
            expected="a factor of 0.1 for 20 dB",
            got="0.01",
            hint="Decibels count energy, which goes with the square of the amplitude: divide by 20, not by 10.",
        )
    if float(got[0]) > 1:
        raise Wrong(expected="a softer sound", got="a louder one", hint="Down means a factor below 1: mind the sign.")
    expect_close(got, 0.1 * x, what="x turned down by 20 dB", hint="The factor is 10 ** (-decibels / 20).")
    expect_close(answer(x, 6.0), 0.501187 * x, what="x turned down by 6 dB", hint="6 dB is close to one half.")
    expect_close(answer(x, 0.0), x, what="x turned down by 0 dB", hint="0 dB changes nothing.")


CHECKS = {"00.puzzle": check_puzzle, "00.turn_down": check_turn_down}
