"""Provenance of a result: versions, commit, command line, hardware."""

import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def provenance(device: torch.device) -> dict[str, Any]:
    """Return, as JSON, what the results of this process may depend on."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "commit": git_commit(Path(__file__).parent),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in ("skipless", "torch", "timm")},
        "hardware": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
    }


def git_commit(folder: Path) -> str | None:
    """Return the commit of the git checkout that tracks this package, with `+` appended if files were changed.

    None if no checkout tracks it: an installed package may lie inside the checkout of another project.
    """
    git = shutil.which("git")
    if git is None or _git(git, folder, "ls-files", "--error-unmatch", "provenance.py") is None:
        return None
    commit = _git(git, folder, "rev-parse", "HEAD")
    changed = _git(git, folder.parents[1], "status", "--porcelain", "--untracked-files=no", ".")
    return f"{commit}+" if commit and changed else commit


def _git(git: str, folder: Path, *arguments: str) -> str | None:
    done = subprocess.run([git, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
