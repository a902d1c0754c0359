"""The notebooks as they are committed: executed in order, small, self-contained, with alt text and exercises."""

import base64
import io
import json
import re
from pathlib import Path

import nbformat
import pytest
import soundfile

from lasslab.course.exercises import load_checks
from lasslab.course.outputs import find_failure, read_declared, read_title
from lasslab.course.parameters import read_parameters, read_preset
from lasslab.course.report import read_amount

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 1.5e6  # bytes
LONGEST = 5.2  # seconds; an MP3 frame more than five
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|tmp|work|Users|mnt|opt|usr|var)/|\b[A-Z]:\\\\")


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def html_outputs(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]


def execution_problem(notebook: nbformat.NotebookNode) -> str:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    return "" if counts == list(range(1, len(counts) + 1)) else f"executed as {counts}, not in order from the top"


every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks_with_numbers_that_differ():
    numbers = [path.stem[:2] for path in NOTEBOOKS]
    assert numbers and all(number.isdigit() for number in numbers)
    assert len(set(numbers)) == len(numbers)


@every_notebook
def test_executed_from_top_to_bottom_without_an_error(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert not execution_problem(notebook)
    assert not find_failure(notebook)


def test_notebook_that_nobody_ran_would_be_noticed():
    notebook = read(NOTEBOOKS[0])
    code_cells(notebook)[-1].execution_count = None
    assert execution_problem(notebook)


@every_notebook
def test_kernel_is_python3_everywhere(path):
    assert read(path).metadata.kernelspec.name == "python3"
    assert read(path).metadata.kernelspec.display_name == "Python 3"


@every_notebook
def test_small_enough_to_open_anywhere(path):
    assert path.stat().st_size < LARGEST


@every_notebook
def test_no_absolute_path_in_source_or_output(path):
    notebook = read(path)
    texts = [cell.source for cell in notebook.cells]
    for output in (output for cell in code_cells(notebook) for output in cell.outputs):
        data = output.get("data", {})
        shown = [output.get("text", ""), *(data.get(kind, "") for kind in ("text/plain", "text/html"))]
        texts += [re.sub(r"base64,[A-Za-z0-9+/=]+", "", "".join(text)) for text in shown]
    found = [match for text in texts for match in ABSOLUTE_PATH.findall(text)]
    assert not found
    assert "pip install" not in json.dumps(texts), "the environment is made once, by make"


@every_notebook
def test_parameters_are_plain_and_have_a_seed_or_need_none(path):
    names = read_parameters(path)
    random = re.search(
        r"generator|manual_seed|synthesise|load_corpus", json.dumps([c.source for c in read(path).cells])
    )
    assert "seed" in names or not random


@every_notebook
def test_title_and_declared_limits(path):
    notebook = read(path)
    assert re.match(rf"{path.stem[:2]}\b", read_title(notebook)), "the title begins with the notebook's number"
    declared = read_declared(notebook)
    assert {"time", "memory", "device"} <= set(declared)
    assert read_amount(declared["time"]) and read_amount(declared["memory"])


@every_notebook
def test_every_picture_has_alt_text(path):
    notebook = read(path)
    for output in (output for cell in code_cells(notebook) for output in cell.outputs):
        kinds = {kind for kind in output.get("data", {}) if kind.startswith("image/")}
        assert not kinds or "text/html" in output.data, "a bare picture has no alt text; show it with plot.show"
    sources = html_outputs(notebook) + [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    images = [image for source in sources for image in re.findall(r"<img\b[^>]*>", source)]
    assert all(re.search(r'\balt="[^"]{15,}"', image) for image in images), "alt text says what there is to see"
    assert not re.search(r"!\[\s*\]\(", "\n".join(sources)), "a Markdown picture without alt text"
    assert images


@every_notebook
def test_sounds_are_short_mono_mp3(path):
    for source in re.findall(r'<audio\b[^>]*\bsrc="([^"]+)"', "\n".join(html_outputs(read(path)))):
        assert source.startswith("data:audio/mpeg;base64,")
        sound, rate = soundfile.read(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert sound.ndim == 1
        assert len(sound) / rate <= LONGEST


@every_notebook
def test_exercises_have_solutions_and_every_check_of_the_notebook_is_used(path):
    source = "\n".join(cell.source for cell in code_cells(read(path)))
    used = re.findall(r"""\bcheck\(\s*["']([^"']+)["']""", source)
    assert len(used) >= 2, "at least two exercises"
    assert set(used) == set(load_checks(path.stem[:2]))
    assert source.count("# BEGIN SOLUTION") == source.count("# END SOLUTION") >= 2


@every_notebook
def test_some_outputs_are_compared_when_it_runs_again(path):
    tagged = [cell for cell in code_cells(read(path)) if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert tagged, "tag the cells whose output is the same everywhere with nbval-check-output"
    assert all(cell.outputs for cell in tagged)


@every_notebook
@pytest.mark.parametrize("preset", ["lab", "full"])
def test_presets_fit_the_notebook(path, preset):
    read_preset(path, preset)


@pytest.mark.parametrize("preset", ["lab", "full"])
def test_presets_name_no_notebook_that_does_not_exist(preset):
    import yaml

    sections = yaml.safe_load((ROOT / "notebooks" / "presets" / f"{preset}.yml").read_text())
    assert set(sections) <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("number", ["03", "04", "07"])
def test_notebooks_that_run_on_real_recordings_too_can_be_told_so(number):
    (path,) = (path for path in NOTEBOOKS if path.stem.startswith(number))
    assert {"synthesis", "esc50"} <= set(read_parameters(path)["corpus"].choices)
