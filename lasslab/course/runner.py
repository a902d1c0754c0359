"""Running notebooks strictly: papermill, and the things that papermill lets pass.

`run_notebook` refuses unknown parameters and wrong types before anything starts, runs the notebook with this
very interpreter in the notebook's own folder, and fails on an error wherever it hides: in a cell, inside a
widget, in a traceback on stderr, or in an exercise whose check did not pass.

``python -m lasslab.course.runner --out build/course`` runs the whole course; it is what ``make course`` does.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from lasslab.course.outputs import collect_metrics, find_difference, find_failure, one_line, read_declared, read_title
from lasslab.course.parameters import check_parameters, read_parameters, read_preset
from lasslab.signal.files import write_text

PACKAGES = (
    "lasslab",
    "torch",
    "numpy",
    "scipy",
    "transformers",
    "accelerate",
    "librosa",
    "soundfile",
    "papermill",
)
REAL_AUDIO_NOTEBOOKS = ("03", "04", "07")  # run a second time on ESC-50 where its recordings are present
CELL_TIMEOUT = 1800.0  # seconds
LOOK_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class RunResult:
    """One run of one notebook: what went in, what it took, what it recorded, and the files it left."""

    name: str
    title: str
    parameters: dict[str, Any]
    started: str = ""
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    declared: dict[str, str] = field(default_factory=dict)
    error: str = ""
    notebook: Path | None = None
    page: Path | None = None
    run_json: Path | None = None

    @property
    def passed(self) -> bool:
        return not self.error


def run_notebook(
    path: Path | str,
    *,
    parameters: Mapping[str, Any] | None = None,
    preset: str | None = None,
    output_dir: Path | str,
    timeout: float = CELL_TIMEOUT,
    allow_undone: bool = False,
    compare: bool = False,
) -> RunResult:
    """Run a notebook, and write the executed notebook, its page and run.json into `output_dir`.

    A failed run writes only ``<name>.failed.ipynb`` and ``.html``: the cells that ran, and the error.

    Args:
        path: the notebook.
        parameters: values that replace the defaults in its `parameters` cell.
        preset: a file in ``presets/`` beside it; `parameters` win over the preset's.
        output_dir: made if missing.
        timeout: seconds that any one cell may take.
        allow_undone: accept exercises that are "not done yet", as in the student edition.
        compare: without parameters of one's own, fail where a cell tagged `nbval-check-output` shows another text than
            the notebook holds; see `lasslab.course.outputs.find_difference`.

    Returns:
        The result of a run that passed.

    Raises:
        ValueError: the notebook, the preset or a parameter is not what it should be. Nothing has run.
        RuntimeError: the run failed; the message names the cell and the error.
    """
    path, folder = Path(path), Path(output_dir)
    values = check_parameters(path, parameters or {})
    if preset is not None:
        values = {**read_preset(path, preset), **values}
    result = _run(path, values, folder, timeout=timeout, allow_undone=allow_undone, compare=compare)
    if not result.passed:
        raise RuntimeError(f"{result.error}; see {result.notebook}")
    return result


def _run(
    path: Path, values: dict[str, Any], folder: Path, *, timeout: float, allow_undone: bool, compare: bool
) -> RunResult:
    """Run and write everything, whether the run passes or fails."""
    import nbformat

    started = datetime.now(UTC)
    clock = time.perf_counter()
    executed, failure, peak = _execute(path, values, timeout=timeout)
    failure = failure or find_failure(executed, allow_undone=allow_undone)
    if compare and not values:
        failure = failure or find_difference(executed, nbformat.read(path, as_version=4))
    stem = f"{path.stem}.failed" if failure else path.stem
    result = RunResult(
        name=path.stem,
        title=read_title(executed) or path.stem,
        parameters={name: p.default for name, p in read_parameters(path).items()} | values,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - clock, 1),
        peak_memory_mb=round(peak / 2**20, 1),
        metrics=collect_metrics(executed),
        declared=read_declared(executed),
        error=f"{path.name}, {failure}" if failure else "",
        notebook=folder / f"{stem}.ipynb",
        page=folder / f"{stem}.html",
        run_json=None if failure else folder / "run.json",
    )
    _write_outputs(executed, result, source=path)
    return result


def _execute(path: Path, values: dict[str, Any], *, timeout: float) -> tuple[Any, str, int]:
    """Execute a copy of the notebook.

    Papermill's own pieces, without its last step, which takes an error that a cell shows on purpose (tag
    `raises-exception`) for a failure and lets an error inside a widget pass: `find_failure` judges instead.

    Args:
        path: the notebook.
        values: what replaces its parameters' defaults.
        timeout: seconds that any one cell may take.

    Returns:
        The notebook as far as it got, why the kernel or a cell's time gave out ("" if neither), peak bytes.
    """
    from papermill.engines import papermill_engines
    from papermill.execute import prepare_notebook_metadata
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    notebook = load_notebook_node(str(path))
    if values:
        notebook = parameterize_notebook(notebook, values, kernel_name="python3", language="python")
    notebook = prepare_notebook_metadata(notebook, str(path), "")
    manager = _own_kernel()
    failure = ""
    with _peak_memory(manager) as peak:
        try:
            papermill_engines.execute_notebook_with_engine(
                None,
                notebook,
                kernel_name="python3",
                progress_bar=False,
                execution_timeout=timeout,
                km=manager,
                resources={"metadata": {"path": str(path.resolve().parent)}},
            )
        except (
            TimeoutError,
            RuntimeError,
        ) as error:  # a cell's time is up; the kernel died, often for want of memory
            failure = f"{_last_started(notebook)}: {one_line(type(error).__name__, str(error))}"
        finally:
            _shut_down(manager)
    return _without_run_metadata(notebook), failure, peak[0]


def _own_kernel() -> Any:
    """A manager that starts this interpreter, whatever kernels named `python3` the user has installed."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    from lasslab.data.corpora import data_root

    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    manager.client_factory = _client_class()
    manager.kernel_spec.argv.append("--log-level=ERROR")  # it warns of its local ports on every start
    # A relative data folder means ours; the kernel's working directory is the notebook's folder.
    manager.kernel_spec.env["LASSLAB_DATA"] = str(data_root().resolve())
    # Threads that wait asleep: spinning ones slow a small training tenfold where a browser wants the cores as well.
    manager.kernel_spec.env["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    return manager


def _shut_down(manager: Any) -> None:
    """End the kernel. nbclient leaves one that it was given running, with a gigabyte of tensors in it."""
    from jupyter_core.utils import run_sync

    if manager.has_kernel:
        run_sync(manager.shutdown_kernel)(now=True)


def _client_class() -> type:
    """A kernel client whose shell channel is `_looking_channel`."""
    from jupyter_client.asynchronous.client import AsyncKernelClient
    from traitlets import Type

    return type("LookingClient", (AsyncKernelClient,), {"shell_channel_class": Type(_looking_channel())})


def _looking_channel() -> type:
    """A channel that looks for a message twice a second instead of waiting to be woken for it.

    nbclient answers an Output widget by sending on the very socket on which it waits for the cell's reply. Sending
    can swallow the wake-up of a reply that arrives in that moment, and the run would then stand still for good.
    """
    from queue import Empty

    from jupyter_client.channels import AsyncZMQSocketChannel

    class LookingChannel(AsyncZMQSocketChannel):
        async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
            deadline = None if timeout is None else time.monotonic() + timeout
            while True:
                left = LOOK_EVERY if deadline is None else deadline - time.monotonic()
                try:
                    return await super().get_msg(max(0.0, min(LOOK_EVERY, left)))
                except Empty:
                    if left <= 0:
                        raise

    return LookingChannel


@contextlib.contextmanager
def _peak_memory(manager: Any) -> Iterator[list[int]]:
    """Watch the kernel's resident memory; the first element of the yielded list is its peak in bytes."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            pid = getattr(manager.provisioner, "pid", None)
            if pid:
                peak[0] = max(peak[0], _memory_of(pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _memory_of(pid: int) -> int:
    """Bytes: the kernel's own high-water mark where the system keeps one (Linux), else what it holds now."""
    import psutil

    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).memory_info().rss
    return 0


def _last_started(notebook: Any) -> str:
    started = [i for i, cell in enumerate(notebook.cells) if cell.metadata.get("papermill", {}).get("start_time")]
    return f"cell {started[-1] + 1}" if started else "before the first cell"


def _without_run_metadata(notebook: Any) -> Any:
    """Drop papermill's paths and times, which run.json holds: an executed notebook can be committed."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if not cell.metadata.get("tags", ["keep"]):
            del cell.metadata["tags"]
    return notebook


def provenance(folder: Path) -> dict[str, Any]:
    """Return what a number needs beside it: commit, package versions, device, Python and platform."""
    import importlib.metadata as metadata

    from lasslab.evaluation.provenance import device_name, git_commit

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {
        "commit": git_commit(folder),
        "versions": {package: version(package) for package in PACKAGES},
        "device": device_name(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _write_outputs(notebook: Any, result: RunResult, *, source: Path) -> None:
    """Render everything first, then write and rename each file: all of a run's files or none."""
    import nbformat

    from lasslab.course.report import notebook_page

    texts = {
        result.notebook: nbformat.writes(notebook),
        result.page: notebook_page(notebook, title=result.title),
    }
    if result.run_json is not None:
        texts[result.run_json] = json.dumps(run_record(result, source=source), indent=2) + "\n"
    result.notebook.parent.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_text(file, text)
    for stale in result.notebook.parent.glob(f"{result.name}.failed.*") if result.passed else ():
        stale.unlink()


def run_record(result: RunResult, *, source: Path) -> dict[str, Any]:
    """Return the contents of run.json."""
    return {
        "notebook": result.name,
        "title": result.title,
        "parameters": result.parameters,
        "seed": result.parameters.get("seed"),
        **provenance(source.resolve().parent),
        "started": result.started,
        "seconds": result.seconds,
        "peak_memory_mb": result.peak_memory_mb,
        "declared": result.declared,
        "metrics": result.metrics,
    }


def find_notebook(name: Path | str) -> Path:
    """A notebook by its path, or by its number or name in the course: ``04`` or ``04_cosine_filtering``.

    Args:
        name: path, number or name.

    Returns:
        The path of the notebook.

    Raises:
        ValueError: there is no such notebook, or more than one.
    """
    path = Path(name)
    if path.suffix == ".ipynb" or path.parent != Path("."):
        if not path.is_file():
            raise ValueError(f"no notebook at {path}; give the path of an .ipynb file, or its number in the course")
        return path
    folder = course_folder()
    found = [file for file in sorted(folder.glob("*.ipynb")) if file.stem == path.name or file.stem[:2] == path.name]
    if len(found) != 1:
        known = ", ".join(file.stem for file in sorted(folder.glob("*.ipynb"))) or "none"
        raise ValueError(f"no notebook {path.name!r} in {folder}; it has {known}")
    return found[0]


def course_folder() -> Path:
    """The folder of the course: `notebooks` here, or beside the package."""
    folders = (Path("notebooks"), Path(__file__).resolve().parents[2] / "notebooks")
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def course_plan(notebooks: Path | str) -> list[tuple[Path, str, dict[str, Any]]]:
    """Return every run of the course in order: (notebook, name of the run, parameters).

    Notebooks 03, 04 and 07 run a second time with ``corpus="esc50"`` where ESC-50's recordings are present.

    Args:
        notebooks: the folder of the course.

    Returns:
        The runs, in order.

    Raises:
        ValueError: the folder holds no numbered notebooks.
    """
    from lasslab.data.corpora import data_root

    paths = sorted(Path(notebooks).glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise ValueError(f"no notebooks named like 00_start_here.ipynb in {notebooks}; give the course's folder")
    plan: list[tuple[Path, str, dict[str, Any]]] = [(path, path.stem, {}) for path in paths]
    if (data_root() / "ESC-50").is_dir():
        real = [path for path in paths if path.stem[:2] in REAL_AUDIO_NOTEBOOKS]
        plan += [(path, f"{path.stem}-esc50", {"corpus": "esc50"}) for path in real]
    return sorted(plan, key=lambda run: run[1])


def run_course(
    notebooks: Path | str,
    *,
    output_dir: Path | str,
    only: Sequence[str] = (),
    allow_undone: bool = False,
    compare: bool = False,
    n_jobs: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> list[RunResult]:
    """Run every notebook of the course, one line of progress each in their order, and write the report.

    A failing notebook does not stop the others. Several at a time share the cores among them: a notebook by itself
    keeps one core busy and the others now and then.

    Args:
        notebooks: the folder of the course.
        output_dir: gets index.html and one folder per run.
        only: run just the notebooks whose names begin with one of these, ``("00", "04")``.
        allow_undone: accept exercises that are "not done yet".
        compare: compare the cells that nbval compares, see `run_notebook`.
        n_jobs: notebooks that run at a time, each in a process of its own.
        say: called with each line of progress.

    Returns:
        The results, in the order of the course; `passed` tells which failed.

    Raises:
        ValueError: there is no such notebook, or n_jobs is not positive.
    """
    from lasslab.course.report import course_page

    if n_jobs < 1:
        raise ValueError(f"n_jobs must be at least 1, got {n_jobs}: how many notebooks run at a time")
    folder = Path(output_dir)
    plan = [run for run in course_plan(notebooks) if not only or run[0].name.startswith(tuple(only))]
    if not plan:
        raise ValueError(f"no notebook begins with {' or '.join(only)} in {notebooks}")
    made = provenance(Path(notebooks).resolve())
    commit = f"Commit {made['commit']}" if made["commit"] else "Outside of a repository"
    machine = f"{commit}; {made['device']}; Python {made['python']}; {made['platform']}."
    results: list[RunResult] = []
    tasks = [(path, parameters, folder / name) for path, name, parameters in plan]
    run = partial(_run_or_refuse, allow_undone=allow_undone, compare=compare)
    for (_, name, _), result in zip(plan, _run_all(run, tasks, n_jobs), strict=True):
        results.append(result)
        verdict = "passed" if result.passed else f"FAILED  {result.error}"
        say(f"{name:<32} {result.seconds:7.1f} s {result.peak_memory_mb:8.0f} MB  {verdict}")
        page = course_page(results, base=folder, planned=len(plan), machine=machine)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "index.html", page)
    return results


def _run_all(
    run: Callable[..., RunResult], tasks: Sequence[tuple[Path, dict[str, Any], Path]], n_jobs: int
) -> Iterator[RunResult]:
    """The results of `run` for each of the tasks, in their order."""
    if n_jobs == 1:
        yield from itertools.starmap(run, tasks)
        return
    with ProcessPoolExecutor(
        n_jobs,
        mp_context=multiprocessing.get_context("spawn"),  # a forked process would share the sockets of this one
        initializer=_share_cores,
        initargs=(n_jobs,),
    ) as processes:
        yield from processes.map(run, *zip(*tasks, strict=True))


def _share_cores(n_jobs: int) -> None:
    """Give this process's kernels their part of the cores, unless the user has decided."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // n_jobs, 1)))


def _run_or_refuse(
    path: Path, parameters: dict[str, Any], folder: Path, *, allow_undone: bool, compare: bool
) -> RunResult:
    """Run, and turn a notebook that cannot even start into a failed result."""
    try:
        values = check_parameters(path, parameters)
        return _run(path, values, folder, timeout=CELL_TIMEOUT, allow_undone=allow_undone, compare=compare)
    except ValueError as error:
        return RunResult(name=path.stem, title=path.stem, parameters=parameters, error=str(error))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the course from the command line; 1 when a notebook failed, 2 when the course cannot start."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m lasslab.course.runner", description="Run the whole course.")
    parser.add_argument("--notebooks", default="notebooks", help="the folder of the course")
    parser.add_argument("--out", default="build/course", help="where the report goes")
    parser.add_argument("--only", nargs="*", default=(), metavar="NN", help="numbers of the notebooks to run")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="notebooks that run at a time")
    parser.add_argument("--allow-undone", action="store_true", help="accept exercises that are not done yet")
    parser.add_argument("--compare", action="store_true", help="compare the outputs that nbval compares")
    options = parser.parse_args(arguments)

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    try:
        results = run_course(
            options.notebooks,
            output_dir=options.out,
            only=options.only,
            allow_undone=options.allow_undone,
            compare=options.compare,
            n_jobs=options.jobs,
            say=say,
        )
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    failed = [result for result in results if not result.passed]
    say(f"{len(results) - len(failed)} of {len(results)} runs passed; the report is {options.out}/index.html")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
