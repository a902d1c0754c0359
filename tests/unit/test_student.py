"""The student edition: stubs in place of solutions, no trace of these anywhere, nobody's work overwritten."""

import copy
import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lasslab.course import student
from lasslab.course.outputs import find_failure
from lasslab.course.parameters import read_notebook, read_parameters, read_preset
from lasslab.course.runner import run_notebook
from lasslab.course.student import MANIFEST, student_notebook, write_student_edition

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
QUICKEST = ("01", "03")  # 10 and 15 seconds of one core; the same rule keeps the others running
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

HALVE = '''# BEGIN SOLUTION
def halve(waveform):
    """Half the amplitude."""
    gain = 10 ** (-6.0206 / 20)
    return gain * waveform
# END SOLUTION
check("04.halve", halve)'''


def make(*cells, outputs=()):
    """A notebook of code cells; `outputs` maps a cell's index to what it shows."""
    shown = dict(outputs)
    made = []
    for index, source in enumerate(cells):
        text = new_output("display_data", data={"text/plain": shown[index]}) if index in shown else None
        made.append(new_code_cell(source, outputs=[text] if text else [], execution_count=index + 1))
    return new_notebook(cells=made)


def stubbed(*cells, outputs=()):
    return student_notebook(make(*cells, outputs=outputs), name="04_test.ipynb")


def strings_of(part):
    if isinstance(part, str):
        return [part]
    parts = [*part, *part.values()] if isinstance(part, dict) else part if isinstance(part, list) else []
    return [text for each in parts for text in strings_of(each)]


# What becomes of a solution.


@pytest.mark.parametrize(
    ("solution", "use", "stub"),
    [
        ("x = 2 * 3", "x", "x = None  # not done yet"),
        ("a, b = divmod(17, 5)", "(a, b)", "a = None  # not done yet\nb = None  # not done yet"),
        ("helper = 2\nx = helper * 3", "x", "x = None  # not done yet"),
        ("x = 1\nx = x + 1", "x", "x = None  # not done yet"),
        ("f = lambda x: 2 * x", "f", "f = None  # not done yet"),
        ("def f(x): return 2 * x", "f", "def f(x):\n    return None  # not done yet\n"),
        (
            "def f(x, *, n=2):\n    # a hint that is none of theirs\n    return n * x",
            "f",
            "def f(x, *, n=2):\n    return None  # not done yet\n",
        ),
        (
            'def f(\n    x: float,\n    n: int = 2,\n) -> float:\n    """Twice.\n\n    # of two\n    """\n'
            "    return n * x",
            "f",
            'def f(\n    x: float,\n    n: int = 2,\n) -> float:\n    """Twice.\n\n    # of two\n    """\n'
            "    return None  # not done yet\n",
        ),
        (
            "def helper(x):\n    return 2 * x\n\n\n@cache\ndef f(x):\n    return helper(x)",
            "f",
            "@cache\ndef f(x):\n    return None  # not done yet\n",
        ),
        (
            'class Twice(nn.Module):\n    """Doubles."""\n    factor = 2\n\n    def __init__(self):\n'
            "        super().__init__()\n\n    def forward(self, x):\n        return 2 * x",
            "Twice",
            'class Twice(nn.Module):\n    """Doubles."""\n    def __init__(self):\n'
            '        raise NotImplementedError("not done yet")\n\n    def forward(self, x):\n'
            '        raise NotImplementedError("not done yet")\n',
        ),
    ],
)
def test_stubs(solution, use, stub):
    marked = f"# BEGIN SOLUTION\n{solution}\n# END SOLUTION\n"
    edition = stubbed(f'{marked}check("04.x", {use})')
    assert edition.cells[0].source == f'{stub}\ncheck("04.x", {use})'
    compile(edition.cells[0].source, "stub", "exec")


def test_markers_inside_a_function_leave_the_rest_of_it():
    edition = stubbed(
        "def f(x):\n    y = 2 * x  # given\n    # BEGIN SOLUTION\n    return y + 14\n    # END SOLUTION\n"
        'check("04.f", f)'
    )
    assert edition.cells[0].source == (
        'def f(x):\n    y = 2 * x  # given\n    return None  # not done yet\ncheck("04.f", f)'
    )


def test_markers_around_a_part_of_a_statement():
    edition = stubbed(
        "def f(x):\n    if x > 0:\n        # BEGIN SOLUTION\n        y = x + 14\n    else:\n        y = 14 - x\n"
        '        # END SOLUTION\n    return y\ncheck("04.f", f)'
    )
    assert edition.cells[0].source == (
        'def f(x):\n    if x > 0:\n        return None  # not done yet\n    return y\ncheck("04.f", f)'
    )


def test_markers_inside_a_method_raise_what_check_knows_for_a_stub():
    method = "class F:\n    def g(self, x):\n        # BEGIN SOLUTION\n        return x + 14\n        # END SOLUTION\n"
    assert 'raise NotImplementedError("not done yet")' in stubbed(method + 'check("04.f", F)').cells[0].source


def test_two_solutions_in_one_cell():
    two = "# BEGIN SOLUTION\na = 1234 + 1\n# END SOLUTION\n# given\n# BEGIN SOLUTION\nb = 4321 - 1\n# END SOLUTION"
    assert stubbed(two + '\ncheck("04.ab", (a, b))').cells[0].source == (
        'a = None  # not done yet\n# given\nb = None  # not done yet\ncheck("04.ab", (a, b))'
    )


def test_the_teachers_notebook_is_not_touched():
    notebook = make(HALVE, outputs={0: "correct"})
    before = copy.deepcopy(notebook)
    student_notebook(notebook, name="04_test.ipynb")
    assert notebook == before


# What was shown because of a solution goes; the rest stays.


def test_outputs_that_come_of_an_answer_go_and_others_stay():
    cells = [
        "x = 3",
        HALVE,
        "if halved := check('04.halve', halve):\n    level = halve(x)\nelse:\n    level = 0",
        "level",
        "def quarter(x):\n    return halve(halve(x))",
        "if check('04.halve', halve):\n    quarter(x)",
        "level = 7",
        "level, x",
    ]
    edition = stubbed(*cells, outputs={i: f"output {i}" for i in range(len(cells))})
    kept = [index for index, cell in enumerate(edition.cells) if cell.outputs]
    assert kept == [0, 4, 6, 7]
    assert all((cell.execution_count is None) == (index not in kept) for index, cell in enumerate(edition.cells))


def test_a_cleared_cell_is_no_longer_compared_when_the_notebook_runs_again():
    notebook = make(HALVE)
    notebook.cells[0].metadata["tags"] = ["nbval-check-output", "wide"]
    assert student_notebook(notebook, name="04_test.ipynb").cells[0].metadata["tags"] == ["wide"]


def test_widgets_go_when_one_of_them_shows_an_answer():
    notebook = make("show()", HALVE + "\nif check('04.halve', halve):\n    show(halve)")
    for cell in notebook.cells:
        view = {"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/plain": "Widget()"}
        cell.outputs = [new_output("display_data", data=view)]
    state = {"state": {"m": {"state": {"value": "gain * waveform, halved"}}}, "version_major": 2, "version_minor": 0}
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": state}
    edition = student_notebook(notebook, name="04_test.ipynb")
    assert not any(cell.outputs for cell in edition.cells)
    assert "waveform, halved" not in json.dumps(edition)


# What is refused, in one line that names notebook and cell.


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["# BEGIN SOLUTION\nx = 1"], "cell 1, line 1: # BEGIN SOLUTION without # END SOLUTION"),
        (["x = 1\n# END SOLUTION"], "cell 1, line 2: # END SOLUTION without its partner"),
        (["# BEGIN SOLUTION\n# BEGIN SOLUTION\nx = 1\n# END SOLUTION"], "line 2: # BEGIN SOLUTION without its partner"),
        (["# BEGIN SOLUTION\nx = 12 * 3\n# END SOLUTION"], "cell 1: nothing reads what the solution makes"),
        (["# BEGIN SOLUTION\nx = (1\n# END SOLUTION\nx"], "is it Python?"),
        (["if y:\n    # BEGIN SOLUTION\n    x = 1\n    # END SOLUTION\n    z = x"], "a block that is no function"),
        ([HALVE, "y = halve(3)"], "04_test.ipynb, cell 2, line 1: uses halve, which the student edition does not have"),
        ([HALVE, "assert halve(2) == 1"], "put it under `if check(...):`"),
        ([HALVE, "def quarter(x):\n    return halve(halve(x))", "quarter(1)"], "cell 3, line 1: uses quarter"),
        ([HALVE, "if check('04.halve', halve):\n    y = halve(1)", "y + 1"], "cell 3, line 1: uses y"),
        ([HALVE, "if halve(2) == 1:\n    print('good')"], "cell 2, line 1: uses halve"),
        ([HALVE, "gain  =  10 **   (-6.0206 / 20)"], "cell 2 holds a line of the solution in cell 1, 'gain = 10 **"),
    ],
)
def test_notebooks_whose_solutions_cannot_be_taken_out_are_refused(cells, words):
    with pytest.raises(ValueError) as refusal:
        stubbed(*cells)
    assert words in str(refusal.value)
    assert str(refusal.value).startswith("04_test.ipynb, cell") and "\n" not in str(refusal.value)


def test_markers_in_text_are_refused():
    notebook = new_notebook(cells=[new_markdown_cell("# BEGIN SOLUTION\n$g = 1/2$\n# END SOLUTION")])
    with pytest.raises(ValueError, match="cell 1, line 1: # BEGIN SOLUTION outside of a code cell"):
        student_notebook(notebook, name="04_test.ipynb")


@pytest.mark.parametrize("place", ["output", "cell metadata", "notebook metadata", "attachment", "text"])
def test_a_solution_that_shows_through_anywhere_is_refused(place):
    notebook = make("1", HALVE)
    notebook.cells.append(new_markdown_cell("nothing"))
    leak = "one writes\n    gain = 10 **  (-6.0206 / 20)\nfor it"
    if place == "output":
        notebook.cells[0].outputs = [new_output("stream", text=leak)]
    elif place == "cell metadata":
        notebook.cells[0].metadata["note"] = {"author": [leak]}
    elif place == "notebook metadata":
        notebook.metadata["history"] = [leak]
    elif place == "attachment":
        notebook.cells[2]["attachments"] = {"a.txt": {"text/plain": leak}}
    else:
        notebook.cells[2].source = leak
    with pytest.raises(ValueError, match="holds a line of the solution in cell 2"):
        student_notebook(notebook, name="04_test.ipynb")


@pytest.mark.parametrize(
    "guarded",
    [
        "check('04.halve', halve)",
        "good = check('04.halve', halve)\nif good:\n    print(halve(1))",
        "check('04.halve', halve) and print(halve(1))",
        "def halve(x):\n    return x / 2\nhalve(1)",
        "from other import halve\nhalve(1)",
        "mine = None\nif check('04.halve', halve):\n    mine = halve(1)\nprint(mine)",
    ],
)
def test_ways_to_use_an_answer_that_run_without_it(guarded):
    stubbed(HALVE, guarded)


# The course itself.


@every_notebook
def test_no_line_of_a_solution_is_left_in_the_json(path):
    solutions = re.findall(r"# BEGIN SOLUTION\n(.*?)# END SOLUTION", sources(path), flags=re.DOTALL)
    lines = [" ".join(line.split("  #")[0].split()) for text in solutions for line in text.splitlines()]
    telling = [x for x in lines if len(x) > 12 and not re.match(r'def |class |@|#|import |from |"""', x)]
    assert len(telling) >= len(solutions), "nothing to look for"
    edition = nbformat.writes(student_notebook(read_notebook(path), name=path.name))
    everything = [" ".join(text.split()) for text in strings_of(json.loads(edition))]
    everything.append(" ".join("".join(cell.source for cell in nbformat.reads(edition, as_version=4).cells).split()))
    assert not [line for line in telling if any(line in text for text in everything)]
    assert "SOLUTION" not in edition


def sources(path):
    return "\n".join(cell.source for cell in read_notebook(path).cells if cell.cell_type == "code")


@every_notebook
def test_only_the_exercises_differ_and_everything_else_is_kept(path):
    teacher, edition = read_notebook(path), student_notebook(read_notebook(path), name=path.name)
    nbformat.validate(edition)
    assert [cell.id for cell in edition.cells] == [cell.id for cell in teacher.cells]
    for ours, theirs in zip(teacher.cells, edition.cells, strict=True):
        if "# BEGIN SOLUTION" in ours.source:
            assert "not done yet" in theirs.source and "check(" in theirs.source
            assert not theirs.outputs
            for kept in re.findall(r"# BEGIN SOLUTION\n(def \w+\(.*?\).*?:)\n", ours.source, flags=re.DOTALL):
                assert kept in theirs.source, "the signature says what to write"
        else:
            assert theirs.source == ours.source
    pictures = [output for cell in edition.cells for output in cell.get("outputs", [])]
    assert pictures and not find_failure(edition), "the pictures stay, and no verdict of a check"


@pytest.mark.slow
@pytest.mark.parametrize("number", QUICKEST)
def test_the_edition_runs_from_top_to_bottom_and_says_what_is_not_done(number, tmp_path):
    (source,) = (path for path in NOTEBOOKS if path.name.startswith(number))
    (tmp_path / "course").mkdir()
    shutil.copy(source, tmp_path / "course")
    path, _ = write_student_edition(tmp_path / "course", output_dir=tmp_path / "student")
    result = run_notebook(path, output_dir=tmp_path / "out", allow_undone=True)
    executed = nbformat.read(result.notebook, as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    shown = json.dumps(executed)
    exercises = re.findall(r'check\("([^"]+)"', sources(source))
    assert exercises and all(f"{exercise}: not done yet." in shown for exercise in exercises)
    assert "not done yet" in find_failure(executed), "without allow_undone it does not pass"


def test_the_whole_course_with_its_presets(tmp_path):
    write_student_edition(ROOT / "notebooks", output_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.ipynb")) == [path.name for path in NOTEBOOKS]
    for path in sorted(tmp_path.glob("*.ipynb")):
        assert set(read_preset(path, "lab")) <= set(read_parameters(path))
    assert all(path.name in (tmp_path / "README.md").read_text() for path in NOTEBOOKS)


# The folder.


@pytest.fixture
def course(tmp_path):
    """A small course with a preset."""
    folder = tmp_path / "course"
    (folder / "presets").mkdir(parents=True)
    (folder / "presets" / "lab.yml").write_text("04_test: {n: 3}\n05_test: {}\n")
    parameters = new_code_cell("n = 1  # how many", metadata={"tags": ["parameters"]})
    for number in ("04", "05"):
        notebook = make("from lasslab import check", HALVE.replace("04.", f"{number}."), outputs={1: "correct"})
        notebook.cells.insert(0, copy.deepcopy(parameters))
        for index, cell in enumerate(notebook.cells):
            cell["id"] = f"c{index}"
        nbformat.write(notebook, folder / f"{number}_test.ipynb")
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_notebooks_presets_and_a_readme_that_names_the_exercises(course, tmp_path):
    files = write_student_edition(course, output_dir=tmp_path / "s")
    assert [str(file.relative_to(tmp_path / "s")) for file in files] == [
        "04_test.ipynb",
        "05_test.ipynb",
        "README.md",
        "presets/lab.yml",
    ]
    assert read_preset(tmp_path / "s" / "04_test.ipynb", "lab") == {"n": 3}
    assert set(read_parameters(tmp_path / "s" / "05_test.ipynb")) == {"n"}
    readme = (tmp_path / "s" / "README.md").read_text()
    assert "| [05_test.ipynb](05_test.ipynb) | `05.halve` |" in readme and "not done yet" in readme


def test_the_same_course_gives_the_same_bytes_and_a_second_time_changes_nothing(course, tmp_path):
    write_student_edition(course, output_dir=tmp_path / "a")
    write_student_edition(course, output_dir=tmp_path / "b")
    once = contents(tmp_path / "a")
    assert once == contents(tmp_path / "b")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.ipynb")}
    write_student_edition(course, output_dir=tmp_path / "a")
    assert contents(tmp_path / "a") == once
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.ipynb")} == times


def test_making_the_edition_of_an_edition_changes_no_notebook(course, tmp_path):
    write_student_edition(course, output_dir=tmp_path / "a")
    write_student_edition(tmp_path / "a", output_dir=tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_untouched_notebooks_are_renewed_and_ones_that_left_the_course_removed(course, tmp_path):
    write_student_edition(course, output_dir=tmp_path / "s")
    (course / "05_test.ipynb").rename(course / "06_test.ipynb")
    changed = read_notebook(course / "04_test.ipynb")
    changed.cells[1].source += "\nnew = 1"
    nbformat.write(changed, course / "04_test.ipynb")
    write_student_edition(course, output_dir=tmp_path / "s")
    names = set(contents(tmp_path / "s"))
    assert names == {"04_test.ipynb", "06_test.ipynb", "README.md", "presets/lab.yml", MANIFEST}
    assert "new = 1" in (tmp_path / "s" / "04_test.ipynb").read_text()


def test_work_in_the_folder_is_never_overwritten(course, tmp_path):
    folder = tmp_path / "s"
    write_student_edition(course, output_dir=folder)
    work = folder / "04_test.ipynb"
    work.write_text(work.read_text().replace("return None  # not done yet", "return waveform / 2"))
    (folder / "notes.txt").write_text("mine")
    (course / "presets" / "lab.yml").write_text("04_test: {n: 9}\n05_test: {}\n")
    before = contents(folder)
    with pytest.raises(ValueError, match="work that would be lost: 04_test.ipynb changed"):
        write_student_edition(course, output_dir=folder)
    assert contents(folder) == before, "nothing at all was written"
    work.rename(folder / "04_mine.ipynb")
    write_student_edition(course, output_dir=folder)
    assert contents(folder)["04_mine.ipynb"] == before["04_test.ipynb"]
    assert (folder / "notes.txt").read_text() == "mine"


def test_work_in_a_notebook_that_left_the_course_stays(course, tmp_path):
    write_student_edition(course, output_dir=tmp_path / "s")
    work = tmp_path / "s" / "05_test.ipynb"
    work.write_text(work.read_text() + " ")
    (course / "05_test.ipynb").unlink()
    write_student_edition(course, output_dir=tmp_path / "s")
    assert work.is_file()
    write_student_edition(course, output_dir=tmp_path / "s")
    assert work.is_file(), "forgotten by the manifest, and still somebody's"


def test_line_ends_of_another_system_are_not_work(course, tmp_path):
    folder = tmp_path / "s"
    write_student_edition(course, output_dir=folder)
    for path in folder.rglob("*.ipynb"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    write_student_edition(course, output_dir=folder)


def test_a_file_that_is_no_text_counts_as_work(course, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "04_test.ipynb").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="work that would be lost: 04_test.ipynb"):
        write_student_edition(course, output_dir=tmp_path / "s")


def test_a_file_that_was_there_before_counts_as_work(course, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "README.md").write_text("my own")
    with pytest.raises(ValueError, match="work that would be lost: README.md"):
        write_student_edition(course, output_dir=tmp_path / "s")
    assert contents(tmp_path / "s") == {"README.md": b"my own"}


def test_a_failed_write_leaves_a_folder_that_can_be_written_again(course, tmp_path, monkeypatch):
    written = []

    def full_disk(path, text):
        if len(written) == 2:
            raise OSError("no space left on device")
        written.append(path)
        Path(path).write_text(text, encoding="utf-8")

    monkeypatch.setattr(student, "write_text", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_student_edition(course, output_dir=tmp_path / "s")
    monkeypatch.undo()
    write_student_edition(course, output_dir=tmp_path / "s")
    write_student_edition(course, output_dir=tmp_path / "fresh")
    assert contents(tmp_path / "s") == contents(tmp_path / "fresh")


# The command.


@pytest.fixture
def lasslab(monkeypatch, capsys):
    """Run the command; returns exit code, standard output, standard error."""
    from lasslab import cli

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["lasslab", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


def test_the_command_writes_the_edition_and_says_so(lasslab, course, tmp_path):
    code, out, err = lasslab("student", "--notebooks", course, "-o", tmp_path / "s")
    assert (code, err) == (0, "")
    assert out.startswith(f"2 notebooks without solutions in {tmp_path / 's'}")
    assert (tmp_path / "s" / "04_test.ipynb").is_file()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda course, s: s.write_text("a file"), ["is a file"]),
        (lambda course, s: shutil.rmtree(course), ["no notebooks named like", "give the course's folder"]),
        (lambda course, s: s.symlink_to(course), ["holds the course itself"]),
        (lambda course, s: (course / "04_test.ipynb").write_text("{"), ["04_test.ipynb is not a readable notebook"]),
        (
            lambda course, s: (course / "04_test.ipynb").write_text(
                (course / "04_test.ipynb").read_text().replace("# END SOLUTION", "# END")
            ),
            ["04_test.ipynb, cell 3", "without # END SOLUTION"],
        ),
        (lambda course, s: (s.mkdir(), (s / MANIFEST).write_text("[]")), [MANIFEST, "is damaged"]),
        (lambda course, s: (s.mkdir(), (s / MANIFEST).write_text('{"files": 3}')), [MANIFEST, "is damaged"]),
        (lambda course, s: (s / "04_test.ipynb").mkdir(parents=True), ["work that would be lost: 04_test.ipynb"]),
    ],
    ids=["a file", "no course", "the course", "broken", "open marker", "manifest", "manifest 2", "folder in the way"],
)
def test_bad_input_is_one_line_and_nothing_is_written(lasslab, course, tmp_path, spoil, words):
    target = tmp_path / "s"
    spoil(course, target)
    before = contents(tmp_path)
    code, out, err = lasslab("student", "--notebooks", course, "-o", target)
    assert code == 2 and out == ""
    assert err.startswith("lasslab: ") and len(err.strip().splitlines()) == 1
    assert all(word in err for word in words), err
    assert contents(tmp_path) == before


def test_a_manifest_cannot_name_a_file_outside_its_folder(course, tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    write_student_edition(course, output_dir=tmp_path / "s")
    manifest = tmp_path / "s" / MANIFEST
    entries = json.loads(manifest.read_text())
    entries["files"]["../victim.txt"] = student._digest("precious")
    manifest.write_text(json.dumps(entries))
    write_student_edition(course, output_dir=tmp_path / "s")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "arguments", [["student"], ["student", "-o"], ["student", "folder", "-o", "x"]], ids=["none", "no value", "extra"]
)
def test_a_command_that_is_not_one_is_refused(lasslab, arguments):
    code, out, err = lasslab(*arguments)
    assert code == 2 and out == "" and "see lasslab --help" in err
