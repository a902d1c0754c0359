"""pyproject.toml, constraints.txt and environment.yml say the same thing."""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED_BY_MAKE = [*PROJECT["dependencies"], *EXTRAS["offline"], *EXTRAS["dev"], *EXTRAS["corpora"]]
DECLARED = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
ACCELERATOR = ("nvidia-", "cuda-", "triton")  # torch pins these itself, on the machines that have them


def read_constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins), "one name==version per line"
    return dict(pin.split("==") for pin in pins)


def read_environment() -> dict[str, str]:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (by_pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    pins = [entry for entry in by_pip if not entry.startswith("-")]
    assert {"-c constraints.txt", "-e ."} <= set(by_pip)
    return {canonicalize_name(name): version for name, version in (pin.split("==") for pin in pins)}


def needed_by_installed(requirements: list[str]) -> list[tuple[str, Requirement, str]]:
    """Every requirement of the installed packages, followed all the way: (name, requirement, who needs it)."""
    todo = [(Requirement(line), "lasslab") for line in requirements]
    needed, seen = [], set()
    while todo:
        requirement, asker = todo.pop()
        name = canonicalize_name(requirement.name)
        needed.append((name, requirement, asker))
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        for child in map(Requirement, importlib.metadata.distribution(name).requires or []):
            environments = [{"extra": extra} for extra in requirement.extras or [""]]
            if child.marker is None or any(child.marker.evaluate(environment) for environment in environments):
                todo.append((child, name))
    return needed


@pytest.mark.parametrize("line", DECLARED)
def test_every_declared_dependency_has_a_range_and_a_pin_inside_it(line):
    requirement = Requirement(line)
    assert requirement.specifier, f"{requirement.name} has no range"
    pin = read_constraints()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin, prereleases=True), f"{pin} is outside of {line}"


def test_conda_environment_lists_exactly_what_make_installs_at_the_same_versions():
    constraints = read_constraints()
    wanted = {canonicalize_name(Requirement(line).name) for line in INSTALLED_BY_MAKE}
    assert read_environment() == {name: constraints[name] for name in wanted}


def test_conda_python_fits_the_package():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (python,) = (entry for entry in environment["dependencies"] if str(entry).startswith("python="))
    assert Version(python.removeprefix("python=")) >= Version(PROJECT["requires-python"].removeprefix(">="))


def test_transitive_dependencies_are_pinned_and_no_pin_contradicts_a_package():
    constraints = read_constraints()
    for name, requirement, asker in needed_by_installed(INSTALLED_BY_MAKE):
        if name not in constraints:
            assert sys.platform != "linux" or name.startswith(ACCELERATOR), f"{name}, for {asker}, is not pinned"
            continue
        fits = requirement.specifier.contains(constraints[name], prereleases=True)
        assert fits, f"{asker} needs {requirement}, constraints.txt has {constraints[name]}"


def test_constraints_are_sorted_and_carry_no_local_build():
    pins = read_constraints()
    assert list(pins) == sorted(pins)
    assert not [name for name, version in pins.items() if "+" in version]
    assert pins["torch"] == "2.13.0"
