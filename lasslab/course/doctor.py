"""What is installed, which device, which data: can this machine run the course?

`lasslab doctor` prints the findings; notebook 00 shows them.
"""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

#: packages the course cannot run without: import name -> name on the package index
REQUIRED = {
    "torch": "torch",
    "accelerate": "accelerate",
    "transformers": "transformers",
    "safetensors": "safetensors",
    "tensorboard": "tensorboard",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "librosa": "librosa",
    "pyloudnorm": "pyloudnorm",
    "matplotlib": "matplotlib",
    "ipywidgets": "ipywidgets",
    "jupyterlab": "jupyterlab",
    "papermill": "papermill",
    "nbconvert": "nbconvert",
}


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Args:
        name: what was looked at.
        ok: False when the course cannot run so.
        detail: what was found.
        remedy: what to do; empty when nothing is needed.
        needed: False for what is only good to have.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True

    def __str__(self) -> str:
        mark = "ok" if self.ok else ("MISSING" if self.needed else "absent")
        return f"{self.name:<16} {mark:<8} {self.detail}" + (f"; {self.remedy}" if self.remedy else "")


def examine() -> list[Finding]:
    """Look at Python, packages, sound files, the text encoder, checkpoints, device, memory, disk and corpora.

    Nothing is downloaded or changed. A check that fails in an unforeseen way is a finding too.
    """
    return [_safely(check) for check in CHECKS]


def is_ready(findings: list[Finding]) -> bool:
    """True when nothing that the course needs is missing."""
    return all(finding.ok for finding in findings if finding.needed)


def _safely(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # the doctor must not fall ill with the patient
        name = check.__name__.removeprefix("check_").replace("_", " ")
        return Finding(name, False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def check_python() -> Finding:
    """Python 3.11 or newer."""
    ok = sys.version_info >= (3, 11)
    remedy = "" if ok else "install Python 3.11 or newer"
    return Finding("Python", ok, f"{platform.python_version()} on {platform.system()} {platform.machine()}", remedy)


def check_packages() -> Finding:
    """Everything in `REQUIRED` is installed. Asked of the metadata: importing all of it would take seconds."""
    missing = [name for name in REQUIRED.values() if not _version(name)]
    if missing:
        return Finding("packages", False, f"missing: {', '.join(missing)}", "pip install -c constraints.txt -e .")
    return Finding("packages", True, f"all {len(REQUIRED)} found, torch {_version('torch')}")


def check_sound_files() -> Finding:
    """libsndfile reads and writes the four formats."""
    import soundfile

    formats = soundfile.available_formats()
    missing = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name not in formats]
    remedy = "pip install -U soundfile" if missing else ""
    detail = f"libsndfile {soundfile.__libsndfile_version__}" + (f" lacks {', '.join(missing)}" if missing else "")
    return Finding("sound files", not missing, detail, remedy)


def check_text_encoder() -> Finding:
    """The packaged MiniLM weights are there and are the published ones."""
    from lasslab.models.text import minilm_folder

    try:
        minilm_folder()
    except ValueError as error:
        return Finding("text encoder", False, str(error))
    return Finding("text encoder", True, "MiniLM, SHA-256 verified")


def check_checkpoints() -> Finding:
    """The trained models that the notebooks and the commands use."""
    from lasslab.models.checkpoints import checkpoint_root, list_checkpoints
    from lasslab.systems.separation import DEFAULT_SEPARATOR

    found = list_checkpoints()
    ok = DEFAULT_SEPARATOR in found
    remedy = "" if ok else "run from a clone of the repository, or set LASSLAB_CHECKPOINTS"
    return Finding("checkpoints", ok, f"{', '.join(found) or 'none'} in {checkpoint_root()}", remedy)


def check_device() -> Finding:
    """What torch computes on. A CPU is enough."""
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding("device", True, f"cuda: {torch.cuda.get_device_name()}, {memory:.0f} GiB")
    return Finding("device", True, f"cpu, {os.cpu_count()} cores, {torch.get_num_threads()} threads")


def check_memory() -> Finding:
    """The notebooks need about 2 GB."""
    import psutil

    free = psutil.virtual_memory().available / 1e9
    return Finding(
        "memory", free > 2, f"{free:.1f} GB free", "" if free > 2 else "close other programs: 2 GB are needed"
    )


def check_disk() -> Finding:
    """Room for outputs and trainings."""
    free = shutil.disk_usage(".").free / 1e9
    return Finding("disk", free > 1, f"{free:.1f} GB free here", "" if free > 1 else "free some space: 1 GB is needed")


def check_real_audio() -> Finding:
    """ESC-50, which corpus="esc50" reads. The course runs without it."""
    from lasslab.data.corpora import data_root, load_corpus

    try:
        clips = load_corpus("esc50")
    except ValueError:
        remedy = 'run lasslab fetch esc50, or set LASSLAB_DATA to the folder that holds it, to use corpus="esc50"'
        return Finding("real audio", False, f"no ESC-50 in {data_root()}", remedy, needed=False)
    return Finding(
        "real audio", True, f"ESC-50, {len(clips)} clips of {len({c.label for c in clips})} classes", needed=False
    )


CHECKS = (
    check_python,
    check_packages,
    check_sound_files,
    check_text_encoder,
    check_checkpoints,
    check_device,
    check_memory,
    check_disk,
    check_real_audio,
)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
