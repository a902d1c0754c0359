"""The strict runner on tiny notebooks: what it refuses, where it finds hidden errors, what it leaves behind."""

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lasslab.course import outputs, parameters, runner
from lasslab.course.report import markdown_to_html, notebook_page, read_amount

PARAMETERS = """
seed = 7
corpus = "synthesis"  # one of: synthesis, esc50 (real recordings)
n_pairs = 4  # mixtures
learning_rate = 1e-3
snr_db = [-15.0, 15.0]  # dB
filtered = True
"""
HEADER = "# 04 Cosine filtering\n\n| time | memory | device |\n|---|---|---|\n| 2 min | 1.5 GB | CPU |"


def write_notebook(folder: Path, *sources: str, name: str = "04_test", cell: str | None = PARAMETERS, tags=()) -> Path:
    cells = [new_markdown_cell(HEADER)]
    if cell is not None:
        cells.append(new_code_cell(cell, metadata={"tags": ["parameters"]}))
    cells += [new_code_cell(source, metadata={"tags": list(tags)} if tags else {}) for source in sources]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


# Parameters: refused before anything runs.


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n_pair": 3}, "04_test.ipynb has no parameter 'n_pair'; did you mean n_pairs?"),
        ({"zzz": 3}, "has no parameter 'zzz'; it has seed, corpus"),
        ({"n_pairs": 2.5}, "n_pairs takes int, got 2.5 (float)"),
        ({"n_pairs": "3"}, "n_pairs takes int, got '3' (str)"),
        ({"n_pairs": True}, "n_pairs takes int, got True (bool)"),
        ({"learning_rate": False}, "learning_rate takes float, got False (bool)"),
        ({"filtered": 1}, "filtered takes bool, got 1 (int)"),
        ({"seed": None}, "seed takes int, got None"),
        ({"snr_db": 3.0}, "snr_db takes a list of float, got 3.0 (float)"),
        ({"snr_db": [0.0, "loud"]}, "snr_db takes a list of float"),
        ({"corpus": "esc51"}, "corpus is one of synthesis, esc50; got 'esc51'"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line_and_nothing_runs(tmp_path, given, words):
    path = write_notebook(tmp_path, "open('ran', 'w')")
    with pytest.raises(ValueError) as refusal:
        runner.run_notebook(path, parameters=given, output_dir=tmp_path / "out")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_int_becomes_float_where_the_default_is_one(tmp_path):
    path = write_notebook(tmp_path)
    values = parameters.check_parameters(path, {"learning_rate": 1, "snr_db": [0, 5]})
    assert type(values["learning_rate"]) is float
    assert values["snr_db"] == [0, 5]


def test_command_line_strings_are_read_by_the_type_of_the_default(tmp_path):
    path = write_notebook(tmp_path)
    strings = {"seed": "3", "corpus": "esc50", "learning_rate": "2e-4", "snr_db": "[-5, 5]", "filtered": "false"}
    assert parameters.parse_parameters(path, strings) == {
        "seed": 3,
        "corpus": "esc50",
        "learning_rate": 2e-4,
        "snr_db": [-5, 5],
        "filtered": False,
    }


@pytest.mark.parametrize("strings", [{"seed": "3.5"}, {"seed": "many"}, {"filtered": "perhaps"}, {"snr_db": "[1, x]"}])
def test_command_line_strings_of_the_wrong_type_are_refused(tmp_path, strings):
    with pytest.raises(ValueError, match=next(iter(strings))):
        parameters.parse_parameters(write_notebook(tmp_path), strings)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (None, "one code cell tagged 'parameters', found 0"),
        ("n = 3\nm = 2 * n", "holds 'm = 2 * n'"),
        ("import os", "holds 'import os'"),
        ("a, b = 1, 2", "holds 'a, b = 1, 2'"),
        ("n = (", "does not parse"),
    ],
)
def test_parameters_cell_must_hold_plain_values(tmp_path, cell, words):
    with pytest.raises(ValueError, match="04_test.ipynb") as refusal:
        parameters.read_parameters(write_notebook(tmp_path, cell=cell))
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_missing_and_broken_notebooks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no notebook at .*nothing.ipynb"):
        runner.run_notebook(tmp_path / "nothing.ipynb", output_dir=tmp_path / "out")
    (tmp_path / "broken.ipynb").write_text("{not json")
    with pytest.raises(ValueError, match="not a readable notebook"):
        runner.run_notebook(tmp_path / "broken.ipynb", output_dir=tmp_path / "out")


def test_preset_fills_parameters_and_explicit_ones_win(tmp_path):
    path = write_notebook(tmp_path, "from lasslab.course import record\nrecord('n', n_pairs)\nrecord('seed', seed)")
    write_preset(tmp_path, "lab", "04_test: {n_pairs: 50, seed: 1}")
    result = runner.run_notebook(path, parameters={"seed": 2}, preset="lab", output_dir=tmp_path / "out")
    assert {name: metric["value"] for name, metric in result.metrics.items()} == {"n": 50, "seed": 2}
    assert result.parameters["n_pairs"] == 50 and result.parameters["corpus"] == "synthesis"


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("huge", "no preset 'huge' for 04_test.ipynb; available: lab"),
        ("lab", "preset 'lab': 04_test.ipynb has no parameter 'n_pares'; did you mean n_pairs?"),
    ],
)
def test_unknown_and_wrong_presets_are_refused(tmp_path, preset, words):
    path = write_notebook(tmp_path)
    write_preset(tmp_path, "lab", "04_test: {n_pares: 50}")
    with pytest.raises(ValueError) as refusal:
        runner.run_notebook(path, preset=preset, output_dir=tmp_path / "out")
    assert str(refusal.value) == words


def test_preset_without_a_section_for_the_notebook_is_refused(tmp_path):
    path = write_notebook(tmp_path)
    write_preset(tmp_path, "lab", "05_other: {}")
    with pytest.raises(ValueError, match="no section '04_test' in lab.yml"):
        runner.run_notebook(path, preset="lab", output_dir=tmp_path / "out")


def write_preset(folder: Path, name: str, text: str) -> None:
    (folder / "presets").mkdir()
    (folder / "presets" / f"{name}.yml").write_text(text)


# A run that passes.


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    """One run with everything in it: where it ran, on what, and what it recorded."""
    folder = tmp_path_factory.mktemp("course")
    path = write_notebook(
        folder / "notebooks",
        "import os, sys, torch\nfrom lasslab.course import record",
        "record('SDRi', torch.tensor(6.4142), unit='dB')\nrecord('SDRi', 6.51, unit='dB')\nrecord('pairs', n_pairs)",
        "print(os.getcwd(), sys.executable, os.environ['LASSLAB_DATA'], sep='|')\nblock = bytearray(300 * 2**20)",
        "import ipywidgets\nout = ipywidgets.Output()\nwith out:\n    record('in a widget', True)\nout",
    )
    before = os.getcwd()
    os.environ["LASSLAB_DATA"], old = "relative/data", os.environ.get("LASSLAB_DATA")
    try:
        result = runner.run_notebook(path, parameters={"n_pairs": 9}, output_dir=folder / "out")
    finally:
        os.environ.pop("LASSLAB_DATA")
        if old is not None:
            os.environ["LASSLAB_DATA"] = old
    assert os.getcwd() == before
    return result, path


def test_run_uses_this_interpreter_in_the_notebooks_own_folder(passed):
    result, path = passed
    printed = [o.text for c in nbformat.read(result.notebook, 4).cells for o in c.get("outputs", []) if "text" in o]
    folder, interpreter, data = printed[0].strip().split("|")
    assert Path(folder) == path.parent
    assert interpreter == sys.executable
    assert data == str(Path("relative/data").resolve()), "a relative data folder must not move with the notebook"


def test_run_json_says_what_was_run_and_what_came_out(passed):
    result, _ = passed
    saved = json.loads(result.run_json.read_text())
    assert saved["parameters"] == {
        "seed": 7,
        "corpus": "synthesis",
        "n_pairs": 9,
        "learning_rate": 1e-3,
        "snr_db": [-15.0, 15.0],
        "filtered": True,
    }
    assert saved["seed"] == 7
    assert saved["metrics"] == {
        "SDRi": {"value": 6.51, "unit": "dB"},
        "pairs": {"value": 9, "unit": ""},
        "in a widget": {"value": True, "unit": ""},
    }
    assert saved["declared"] == {"time": "2 min", "memory": "1.5 GB", "device": "CPU"}
    assert saved["versions"]["torch"].startswith("2.") and saved["device"] and saved["python"]
    assert 0 < saved["seconds"] < 60
    assert 300 < saved["peak_memory_mb"] < 3000, "the notebook held 300 MB"
    assert "commit" in saved


def test_executed_notebook_can_be_committed_as_it_is(passed):
    result, path = passed
    executed = nbformat.read(result.notebook, 4)
    nbformat.validate(executed)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert executed.metadata.kernelspec.name == "python3"
    assert "papermill" not in executed.metadata
    metadata = json.dumps([cell.metadata for cell in executed.cells])
    assert str(path.parent.parent) not in metadata


def test_only_finished_files_are_left_and_the_page_fetches_nothing(passed):
    result, _ = passed
    assert {file.name for file in result.notebook.parent.iterdir()} == {"04_test.ipynb", "04_test.html", "run.json"}
    page = result.page.read_text()
    assert "04 Cosine filtering" in page
    assert "<script" not in page and "cdnjs" not in page and "unpkg" not in page


# Runs that fail.

HIDDEN = "import ipywidgets\nout = ipywidgets.Output()\nwith out:\n    raise KeyError('lost')\nout"
NESTED = (
    "import ipywidgets\ninner = ipywidgets.Output()\n"
    "with inner:\n    raise KeyError('lost')\nipywidgets.VBox([ipywidgets.Accordion([inner])])"
)
INTERACT = "import ipywidgets\n@ipywidgets.interact(x=3)\ndef f(x):\n    return {}['lost']"
THREAD = "import threading\nt = threading.Thread(target=lambda: {}['lost'])\nt.start(); t.join()"


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ("{}['lost']", "cell 3: KeyError: 'lost'"),
        (HIDDEN, "inside a widget: KeyError: 'lost'"),
        (NESTED, "inside a widget: KeyError: 'lost'"),
        (INTERACT, "inside a widget: KeyError: 'lost'"),
        (THREAD, "cell 3: traceback on stderr: KeyError: 'lost'"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "cell 3: DeadKernelError"),
    ],
    ids=["cell", "widget", "nested widget", "interact", "thread", "killed"],
)
def test_error_is_found_wherever_it_hides_and_named(tmp_path, source, where):
    path = write_notebook(tmp_path, source, "after = 1")
    with pytest.raises(RuntimeError) as failure:
        runner.run_notebook(path, output_dir=tmp_path / "out")
    assert str(failure.value).startswith(f"04_test.ipynb, {where}")
    assert "\n" not in str(failure.value)
    left = {file.name for file in (tmp_path / "out").iterdir()}
    assert left == {"04_test.failed.ipynb", "04_test.failed.html"}, "no run.json, no notebook that looks finished"


def test_cell_over_its_time_fails(tmp_path):
    path = write_notebook(tmp_path, "import time\ntime.sleep(60)")
    with pytest.raises(RuntimeError, match="cell 3: CellTimeoutError"):
        runner.run_notebook(path, output_dir=tmp_path / "out", timeout=1)


def test_error_on_purpose_is_allowed_where_the_cell_says_so(tmp_path):
    path = write_notebook(tmp_path, "{}['lost']", tags=["raises-exception"])
    assert runner.run_notebook(path, output_dir=tmp_path / "out").passed


def test_success_clears_the_traces_of_an_earlier_failure(tmp_path):
    with pytest.raises(RuntimeError):
        runner.run_notebook(write_notebook(tmp_path, "1 / 0"), output_dir=tmp_path / "out")
    runner.run_notebook(write_notebook(tmp_path, "1 / 1"), output_dir=tmp_path / "out")
    assert {f.suffix for f in (tmp_path / "out").iterdir()} == {".ipynb", ".html", ".json"}
    assert not list((tmp_path / "out").glob("*failed*"))


CHECK = """
from lasslab.course.exercises import CheckResult
from IPython.display import display
result = CheckResult("04.x", passed={passed}, done={done}, expected="one", got="two", hint="count")
display(result._mimebundle(), raw=True)
"""


def test_failed_exercise_fails_the_run(tmp_path):
    path = write_notebook(tmp_path, CHECK.format(passed=False, done=True))
    with pytest.raises(RuntimeError, match="cell 3: exercise 04.x: expected one, got two"):
        runner.run_notebook(path, output_dir=tmp_path / "out", allow_undone=True)


def test_undone_exercise_fails_except_in_the_student_edition(tmp_path):
    path = write_notebook(tmp_path, CHECK.format(passed=False, done=False), CHECK.format(passed=True, done=True))
    with pytest.raises(RuntimeError, match="exercise 04.x: not done yet"):
        runner.run_notebook(path, output_dir=tmp_path / "out")
    assert runner.run_notebook(path, output_dir=tmp_path / "out", allow_undone=True).passed


def write_executed(folder: Path, *, printed: str, tag: str) -> Path:
    """A notebook that prints 7, and holds as its output what is given."""
    path = write_notebook(folder, "print(seed)", "import time; print(time.time_ns())", tags=[tag])
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[3].metadata = {}  # what differs from run to run is not tagged
    for cell, text in zip(notebook.cells[2:], (printed, "0\n"), strict=True):
        cell.outputs = [new_output("stream", name="stdout", text=text)]
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize("compare", [False, True])
def test_another_output_fails_where_the_cell_is_tagged_and_the_run_compares(tmp_path, compare):
    differs = write_executed(tmp_path, printed="6\n", tag=outputs.CHECKED_TAG)
    if compare:
        with pytest.raises(RuntimeError, match=r"04_test.ipynb, cell 3: another output: '7' where '6' is committed"):
            runner.run_notebook(differs, output_dir=tmp_path / "out", compare=True)
        runner.run_notebook(differs, parameters={"seed": 8}, output_dir=tmp_path / "out", compare=True)
    else:
        runner.run_notebook(differs, output_dir=tmp_path / "out")


@pytest.mark.parametrize(("printed", "tag"), [("7\n", outputs.CHECKED_TAG), ("6\n", "other")])
def test_the_same_output_passes_and_so_does_what_is_not_tagged(tmp_path, printed, tag):
    path = write_executed(tmp_path, printed=printed, tag=tag)
    runner.run_notebook(path, output_dir=tmp_path / "out", compare=True)


def test_a_line_more_is_a_difference():
    def notebook(text):
        shown = [new_output("stream", name="stdout", text=text), new_output("stream", name="stderr", text=text)]
        return new_notebook(cells=[new_code_cell("", outputs=shown, metadata={"tags": [outputs.CHECKED_TAG]})])

    assert not outputs.find_difference(notebook("a\nb\n"), notebook("a\nb\n"))
    assert "'b' where None is committed" in outputs.find_difference(notebook("a\nb\n"), notebook("a\n"))
    assert "None where 'b' is committed" in outputs.find_difference(notebook("a\n"), notebook("a\nb\n"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "loud", [1.0, 2.0], None])
def test_record_takes_one_finite_number(value):
    with pytest.raises(ValueError, match="one finite number"):
        outputs.record("SDRi", value)


# The whole course.


@pytest.fixture
def course(tmp_path):
    folder = tmp_path / "notebooks"
    write_notebook(folder, "1 / 0", name="00_fails")
    write_notebook(folder, "from lasslab.course import record\nrecord('SDRi', 6.0, unit='dB')", name="01_passes")
    write_notebook(folder, name="02_cannot_start", cell="n = undefined")
    return folder


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_course_goes_on_after_a_failure_reports_it_and_exits_with_1(course, tmp_path, monkeypatch, capsys, jobs):
    monkeypatch.setenv("LASSLAB_DATA", str(tmp_path))
    code = runner.main(["--notebooks", str(course), "--out", str(tmp_path / "out"), "--jobs", jobs])
    lines = capsys.readouterr().out.splitlines()
    assert code == 1
    assert [line.split()[0] for line in lines[:3]] == ["00_fails", "01_passes", "02_cannot_start"]
    assert "FAILED  00_fails.ipynb, cell 3: ZeroDivisionError" in lines[0]
    assert lines[1].endswith("passed")
    assert "FAILED" in lines[2]
    assert lines[3].startswith("1 of 3 runs passed")
    page = (tmp_path / "out" / "index.html").read_text()
    assert 'href="01_passes/01_passes.html"' in page and 'href="00_fails/00_fails.failed.html"' in page
    assert "6.0 dB" in page and "ZeroDivisionError" in page and "1 of 3 passed" in page
    assert "declared 2 min" in page and "declared 1.5 GB" in page
    assert "http" not in page.replace('lang="en"', "")


def test_course_that_passes_exits_with_0(course, tmp_path, monkeypatch):
    monkeypatch.setenv("LASSLAB_DATA", str(tmp_path))
    assert runner.main(["--notebooks", str(course), "--out", str(tmp_path / "out"), "--only", "01"]) == 0
    assert "1 of 1 passed" in (tmp_path / "out" / "index.html").read_text()


def test_no_notebook_at_a_time_is_refused(course, tmp_path, capsys):
    assert runner.main(["--notebooks", str(course), "--out", str(tmp_path / "out"), "--jobs", "0"]) == 2
    assert "n_jobs" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_course_without_notebooks_exits_with_2(tmp_path, capsys):
    assert runner.main(["--notebooks", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_real_recordings_give_three_notebooks_a_second_run(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    for name in ("07_c", "04_b", "03_a", "00_start"):
        write_notebook(folder, name=name)
    monkeypatch.setenv("LASSLAB_DATA", str(tmp_path))
    assert [name for _, name, _ in runner.course_plan(folder)] == ["00_start", "03_a", "04_b", "07_c"]
    (tmp_path / "ESC-50").mkdir()
    plan = [(name, given) for _, name, given in runner.course_plan(folder)]
    real = {"corpus": "esc50"}
    assert plan == [
        ("00_start", {}),
        ("03_a", {}),
        ("03_a-esc50", real),
        ("04_b", {}),
        ("04_b-esc50", real),
        ("07_c", {}),
        ("07_c-esc50", real),
    ]


# Pages.


def test_formulas_become_mathml_and_keep_their_numbers():
    page = markdown_to_html(r"Energy $x^2$ and $$\hat S = M \odot |X| \tag{3}$$")
    assert page.count("<math") == 2 and "<msup>" in page
    assert "(3)" in page and r"\tag" not in page
    assert markdown_to_html("code `$x$`").count("<math") == 0


def test_formula_that_does_not_convert_stays_readable():
    assert r"\frac{" in markdown_to_html(r"$$\frac{$$")


def test_page_of_a_widget_says_that_it_is_interactive():
    cell = new_code_cell("slider")
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "IntSlider()"}
    cell.outputs = [nbformat.v4.new_output("display_data", data=view)]
    assert "interactive control" in notebook_page(new_notebook(cells=[cell]), title="widgets")


@pytest.mark.parametrize(
    ("text", "amount"), [("60 s", 60), ("1.5 min", 90), ("800 MB", 800), ("2 GB", 2048), ("soon", None)]
)
def test_declared_limits_are_read_in_seconds_and_megabytes(text, amount):
    assert read_amount(text) == amount


# The kernel client.


def test_reply_is_found_although_its_wake_up_was_swallowed():
    import asyncio

    import zmq
    import zmq.asyncio
    from jupyter_client.session import Session

    class Deaf(zmq.asyncio.Socket):
        """Tells what is there when asked, and sleeps through what arrives meanwhile."""

        async def poll(self, timeout=None, flags=zmq.POLLIN):
            ready = zmq.Socket.shadow(self.underlying).poll(0)
            if not ready:
                await asyncio.sleep(timeout / 1000)
            return ready

    async def exchange() -> str:
        context = zmq.asyncio.Context()
        ours, theirs = Deaf(context, zmq.DEALER), context.socket(zmq.DEALER)
        port = theirs.bind_to_random_port("tcp://127.0.0.1")
        ours.connect(f"tcp://127.0.0.1:{port}")
        session = Session(key=b"test")
        channel = runner._looking_channel()(ours, session)
        waiting = asyncio.create_task(channel.get_msg(timeout=20))
        await asyncio.sleep(0.1)
        session.send(theirs, "execute_reply", {"status": "ok"})
        try:
            return (await asyncio.wait_for(waiting, 5))["msg_type"]
        finally:
            ours.close(linger=0)
            theirs.close(linger=0)
            context.term()

    assert asyncio.run(exchange()) == "execute_reply"


# Naming a notebook.


def test_notebook_is_found_by_path_number_or_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_notebook(tmp_path / "notebooks")
    assert runner.find_notebook(path) == path
    assert runner.find_notebook("04").resolve() == runner.find_notebook("04_test").resolve() == path
    with pytest.raises(ValueError, match="no notebook '05' in notebooks; it has 04_test"):
        runner.find_notebook("05")
    with pytest.raises(ValueError, match="no notebook at lost.ipynb"):
        runner.find_notebook("lost.ipynb")


@pytest.mark.parametrize("fails", [False, True])
def test_the_kernel_ends_with_its_run(tmp_path, fails):
    import psutil

    path = write_notebook(tmp_path, f"import os\nopen('pid', 'w').write(str(os.getpid()))\nassert not {fails}")
    if fails:
        with pytest.raises(RuntimeError):
            runner.run_notebook(path, output_dir=tmp_path / "out")
    else:
        runner.run_notebook(path, output_dir=tmp_path / "out")
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
