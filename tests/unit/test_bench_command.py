"""`lasslab bench`: lists what is there, hands options through, reports the script's own exit code."""

import runpy

import pytest

from lasslab import cli
from lasslab.cli import benchmarks


@pytest.fixture
def lasslab(monkeypatch, capfd):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["lasslab", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capfd.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def scripts(monkeypatch, tmp_path):
    """A folder with one benchmark and the module that benchmarks share."""
    (tmp_path / "quick.py").write_text("import sys; print(sys.argv[1:]); sys.exit(3)\n")
    (tmp_path / "measure.py").write_text("")
    monkeypatch.setattr(benchmarks, "FOLDER", tmp_path)
    return tmp_path


def test_the_repository_s_benchmarks_are_listed(lasslab):
    code, out, _ = lasslab("bench")
    assert code == 0 and {"long_audio", "mixtures"} <= set(out.split()) and "measure" not in out.split()


def test_options_go_to_the_script_and_its_exit_code_comes_back(lasslab, scripts):
    code, out, _ = lasslab("bench", "quick", "-n", "5", "--fast")
    assert code == 3 and out.strip() == "['-n', '5', '--fast']"


def test_an_unknown_name_and_a_missing_folder_are_told_in_one_line(lasslab, scripts, monkeypatch, tmp_path):
    code, _, err = lasslab("bench", "slow")
    assert code == 2 and err.strip() == "lasslab: unknown benchmark 'slow': choose one of quick"
    monkeypatch.setattr(benchmarks, "FOLDER", tmp_path / "none")
    code, _, err = lasslab("bench")
    assert code == 2 and "there are no benchmarks" in err and len(err.strip().splitlines()) == 1


def test_sampling_is_measured_for_any_size(lasslab):
    options = ("--size", "quick", "--steps", "2", "--seconds", "0.5", "--runs", "5", "--batch-sizes", "1", "2")
    code, out, err = lasslab("bench", "generation", *options)
    assert code == 0, err
    rows = [line.split("|")[1:-1] for line in out.splitlines() if line.startswith("|")][2:]
    assert [[int(cell) for cell in row[:2]] for row in rows] == [[1, 2], [2, 2]]
    for row in rows:
        total, call, ends, outside, a_clip, peak, times = map(float, row[2:])
        # each is of runs of its own, so that on a busy machine no one need be below another
        assert min(total, call, ends, times) > 0 and 0 <= outside < 100 and peak >= 0
        assert a_clip == pytest.approx(total / int(row[0]), abs=1e-3)


def test_the_seconds_of_a_call_are_of_that_call(monkeypatch):
    monkeypatch.syspath_prepend(str(benchmarks.FOLDER))
    clock = runpy.run_path(str(benchmarks.FOLDER / "generation.py"))["Clock"]
    ticks = iter([0.0, 1.0, 10.0, 12.0, 20.0, 23.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    doubled = clock(lambda x, *, by: by * x)
    assert [doubled(number, by=2) for number in (1, 2, 3)] == [2, 4, 6]
    assert doubled.seconds == [1.0, 2.0, 3.0]
