"""What a figure needs beside it: the commit it came from and the device it was computed on."""

import os
import platform
import subprocess
from pathlib import Path

import torch


def git_commit(folder: str | os.PathLike[str] | None = None) -> str | None:
    """The commit of a working tree.

    Args:
        folder: somewhere in the tree; default the one the package runs from.

    Returns:
        Forty hexadecimal digits, with "-modified" when tracked files differ from it; None outside a repository.
    """
    root = Path(folder) if folder is not None else Path(__file__).resolve().parents[2]
    if folder is None and not (root / ".git").exists():
        return None  # an installed package must not report the repository that happens to lie around it
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=-modified", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def device_name(device: torch.device | str | None = None) -> str:
    """A device in words.

    Args:
        device: default the one torch would train on.

    Returns:
        For example "cuda, NVIDIA H200" or "cpu, 2 cores, x86_64".
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(chosen)}"
    return f"{chosen.type}, {os.cpu_count()} cores, {platform.machine()}"
