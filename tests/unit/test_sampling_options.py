"""`--steps` and `--guidance`: a row for each number of steps, and a refusal where no system samples."""

from dataclasses import dataclass

import pytest

from lasslab.cli.evaluation import _sampled
from lasslab.cli.options import with_sampling
from lasslab.systems.separation import Silence, load_separator


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


def test_every_solver_is_a_row():
    loaded = {"flow": load_separator("flowsep-lab", device="cpu")}
    found = _sampled(loaded, n_steps=[5, 10], method=["euler", "heun"], guidance_scale=[None])
    assert list(found) == ["flow, euler, 5 steps", "flow, heun, 5 steps", "flow, euler", "flow, heun"]
    assert [each.method for each in found.values()] == 2 * ["euler", "heun"]
    with pytest.raises(ValueError, match="--method: unknown method 'rk4': use one of euler, midpoint, heun"):
        _sampled(loaded, method=["rk4"])


def test_without_options_everything_is_as_it_was():
    loaded = {"silence": Silence(), "flow": Sampling()}
    nothing = {"n_steps": None, "guidance_scale": [None]}
    assert _sampled(loaded, **nothing) == loaded
    assert _sampled({"silence": Silence()}, **nothing) == {"silence": Silence()}


@pytest.mark.parametrize(("steps", "guidance", "option"), [([5], None, "--steps"), (None, 2.0, "--guidance")])
def test_where_no_system_samples_the_option_is_refused(steps, guidance, option):
    with pytest.raises(ValueError, match=f"{option} is for systems that sample, silence does not: leave it out"):
        _sampled({"silence": Silence()}, n_steps=steps, guidance_scale=[guidance])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n_steps": [1, 5, 1]}, "--steps 1 is given twice: name each value once"),
        ({"keep_db": [0.0, 3.0, 3.0]}, "--keep-db 3.0 is given twice"),
        ({"t_start": [0.1, 0.1]}, "--t-start 0.1 is given twice"),
        ({"in_turn": [True, True]}, "--in-turn True is given twice"),
    ],
)
def test_a_value_that_comes_twice_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        _sampled({"flow": Sampling()}, **values)


@dataclass(frozen=True)
class Picky(Sampling):
    """A system that refuses what is asked of it."""

    def with_sampling(self, *, n_steps=None, guidance_scale=None):
        if guidance_scale is not None:
            raise ValueError(f"guidance_scale must be 0 to 100, got {guidance_scale}")
        return self


def test_a_setting_that_is_refused_names_its_option():
    with pytest.raises(ValueError, match=r"--guidance: guidance_scale must be 0 to 100, got 1e\+30"):
        with_sampling(Picky(), n_steps=5, guidance_scale=1e30)


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_a_seed_that_no_generator_takes_is_refused_by_every_command(refused, tmp_path, seed):
    out, audio = ("-o", tmp_path / "out.wav"), tmp_path / "in.wav"
    lists = ("--pairs", tmp_path / "pairs.csv", "--audio", tmp_path)
    edits = ("--triplets", tmp_path / "triplets.csv", "--audio", tmp_path)
    for command in (
        ("separate", audio, "a dog", *out),
        ("edit", audio, "add a dog", *out),
        ("evaluate", "separation", *lists),
        ("evaluate", "editing", *edits),
        ("evaluate", "wording", *lists),
        ("mixtures", "-o", tmp_path / "set", "-n", 3, "--corpus", "synthesis"),
        ("triplets", "-o", tmp_path / "set", "-n", 3, "--corpus", "synthesis"),
    ):
        refused(*command, "--seed", seed, words=["--seed", seed])
