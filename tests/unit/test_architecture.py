"""The order of the layers, read from every import statement, and what `import lasslab` brings in."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import lasslab

PACKAGE = Path(lasslab.__file__).parent
# A module imports from layers below its own, and from its own. Where two share a row, "training" may use "evaluation".
LAYERS = [
    {"signal"},
    {"data"},
    {"models", "flow", "diffusion"},
    {"systems"},
    {"training", "evaluation"},
    {"course", "notebook"},
    {"cli", "app"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
LEFT_OUT_OF_THE_CORE = {"pandas", "matplotlib", "ipywidgets", "transformers", "diffusers", "gradio", "IPython"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


class WithoutTypes(ast.NodeTransformer):
    """Drops `if TYPE_CHECKING:`, which never runs."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)


def imports(name: str, *, top_level_only: bool = False, for_types: bool = True) -> list[tuple[str, int]]:
    """Absolute names of what a module imports, with line numbers; in functions too unless told otherwise."""
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    tree = tree if for_types else WithoutTypes().visit(tree)
    package = name if SOURCES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = []
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:  # `from lasslab.data import mixtures` names a module, not a thing in one
                full = f"{base}.{alias.name}"
                found.append((full if full in SOURCES else base, node.lineno))
    return found


def layer(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def allowed(importer: str, imported: str) -> bool:
    a, b = layer(importer), layer(imported)
    if (a, b) == ("evaluation", "training"):
        return False
    return bool(b) and RANK[b] <= RANK[a]


def test_every_module_belongs_to_a_layer():
    assert {layer(name) for name in SOURCES if "." in name} <= set(RANK)
    assert {"signal", "data", "models", "systems", "training", "evaluation"} <= {layer(name) for name in SOURCES}


@pytest.mark.parametrize("name", [name for name in SOURCES if "." in name])
def test_imports_go_down(name):
    upward = [
        f"line {line}: {imported}"
        for imported, line in imports(name)
        if imported.split(".")[0] == "lasslab" and not allowed(name, imported)
    ]
    assert not upward, f"{name} imports upward"


def test_the_rule_sees_what_it_should():
    assert allowed("lasslab.data.mixtures", "lasslab.signal.audio")
    assert allowed("lasslab.training.objectives", "lasslab.evaluation.metrics")
    assert allowed("lasslab.cli", "lasslab.course.doctor") and allowed("lasslab.course.a", "lasslab.notebook.b")
    assert not allowed("lasslab.evaluation.metrics", "lasslab.training.fit")
    assert not allowed("lasslab.signal.audio", "lasslab.data.mixtures")
    assert not allowed("lasslab.models.text", "lasslab.systems.separation")
    assert not allowed("lasslab.data.mixtures", "lasslab"), "the front door leads to the top"
    everywhere = {imported for imported, _ in imports("lasslab.signal.audio")}
    at_the_top = {imported for imported, _ in imports("lasslab.signal.audio", top_level_only=True)}
    assert "torch" in at_the_top and "pyloudnorm" in everywhere - at_the_top
    assert "lasslab.signal.audio" in {imported for imported, _ in imports("lasslab.data.clips")}


def test_no_two_modules_need_each_other():
    graph = {name: {found for found, _ in imports(name, for_types=False)} & set(SOURCES) - {name} for name in SOURCES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle of imports: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize(
    "name",
    [name for name in SOURCES if layer(name) in {"", "signal", "data", "models", "systems", "training", "evaluation"}],
)
def test_heavy_packages_are_imported_where_they_are_used(name):
    heavy = {imported.split(".")[0] for imported, _ in imports(name, top_level_only=True)} & LEFT_OUT_OF_THE_CORE
    assert not heavy, f"{name} imports {heavy} at its top"


def run(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_lasslab_is_quick_and_light():
    # processor time: a busy machine is no slower in it
    seconds, *loaded = run(
        "import sys, time, torch\n"
        "before, start = set(sys.modules), time.process_time()\n"
        "import lasslab\n"
        "print(time.process_time() - start, *set(sys.modules) - before)"
    )
    assert float(seconds) < 1
    packages = {name.split(".")[0] for name in loaded}
    assert not packages & {*LEFT_OUT_OF_THE_CORE, "librosa", "accelerate", "huggingface_hub", "soundfile", "scipy"}


def test_every_public_name_loads_without_plotting_widgets_or_hugging_face():
    names = [name for name in lasslab.__all__ if name != "__version__"]
    loaded = run(
        f"import sys\nfrom lasslab import {', '.join(names)}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    )
    assert not set(loaded) & {*LEFT_OUT_OF_THE_CORE, "librosa", "accelerate", "huggingface_hub"}
    assert {"lasslab", "torch"} <= set(loaded)


def test_the_public_names_are_the_promised_ones():
    promised = """load_audio save_audio Clip load_corpus mix_at_snr cosine_similarity stft istft mel_spectrogram
    load_text_encoder load_separator evaluate fit check plot play""".split()
    assert set(promised) <= set(lasslab.__all__) == set(dir(lasslab))
    for name in lasslab.__all__:
        assert getattr(lasslab, name) is not None
    assert lasslab.fit is importlib.import_module("lasslab.training.fit").fit
    with pytest.raises(AttributeError, match="no attribute 'seperate'"):
        lasslab.seperate  # noqa: B018
