"""`--steps` and `--guidance`: a row for each number of steps, and a refusal where no system samples."""

from dataclasses import dataclass

import pytest

from lasslab.cli.evaluation import _sampled
from lasslab.systems.separation import Silence


@dataclass(frozen=True)
class Sampling:
    """A system with settings."""

    name: str = "flow"
    n_steps: int = 10
    guidance_scale: float = 1.0

    def with_sampling(self, *, n_steps=None, guidance_scale=None):
        """As `LatentSeparator.with_sampling`."""
        n_steps = self.n_steps if n_steps is None else n_steps
        name = self.name if n_steps == self.n_steps else f"{self.name}, {n_steps} steps"
        return Sampling(name, n_steps, self.guidance_scale if guidance_scale is None else guidance_scale)


def test_every_number_of_steps_is_a_row_and_other_systems_stay():
    loaded = {"silence": Silence(), "runs/a": Sampling()}
    found = _sampled(loaded, n_steps=[1, 10, 50], guidance_scale=[2.0])
    assert list(found) == ["silence", "runs/a, 1 steps", "runs/a", "runs/a, 50 steps"]
    assert found["silence"] is loaded["silence"]
    sampled = [each for name, each in found.items() if name != "silence"]
    assert [(each.n_steps, each.guidance_scale) for each in sampled] == [(1, 2.0), (10, 2.0), (50, 2.0)]


def test_without_options_everything_is_as_it_was():
    loaded = {"silence": Silence(), "flow": Sampling()}
    nothing = {"n_steps": None, "guidance_scale": [None]}
    assert _sampled(loaded, **nothing) == loaded
    assert _sampled({"silence": Silence()}, **nothing) == {"silence": Silence()}


@pytest.mark.parametrize(("steps", "guidance", "option"), [([5], None, "--steps"), (None, 2.0, "--guidance")])
def test_where_no_system_samples_the_option_is_refused(steps, guidance, option):
    with pytest.raises(ValueError, match=f"{option} is for systems that sample, silence does not: leave it out"):
        _sampled({"silence": Silence()}, n_steps=steps, guidance_scale=[guidance])
