"""What a run ran on and with: versions and hardware, as plain values for records and headings."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from videoprune.config import config_dir

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("videoprune", "torch", "transformers", "av", "decord", "numpy", "ray")


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that shape the results."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an optional one, such as decord on macOS
            found[name] = ""
    return found


def hardware() -> dict[str, Any]:
    """cpu: its name. cores: usable by this process. threads: of torch. gpu: names, one per device."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"cpu": _cpu_name(), "cores": cores, "threads": torch.get_num_threads(), "gpu": gpus}


def hardware_line(found: dict[str, Any]) -> str:
    """One line for a heading: "Intel Xeon, 2 cores, 1 torch thread, no GPU"."""
    gpu = " + ".join(found["gpu"]) or "no GPU"
    threads = f"{found['threads']} torch thread{'s' if found['threads'] > 1 else ''}"
    return f"{found['cpu']}, {found['cores']} core{'s' if found['cores'] > 1 else ''}, {threads}, {gpu}"


def gpu_details() -> dict[str, Any]:
    """Versions of CUDA, cuDNN and the driver, and bytes of the first GPU's memory; None for what is not there."""
    there = torch.cuda.is_available()
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _said(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
        if there
        else None,
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory if there else None,
    }


def revision() -> str | None:
    """Commit of the checkout that this file lies in, "-changed" behind it where tracked files differ; None outside of
    one."""
    if not (_ROOT / ".git").exists():
        return None
    commit = _said(["git", "-C", str(_ROOT), "rev-parse", "HEAD"])
    changed = _said(["git", "-C", str(_ROOT), "status", "--porcelain", "--untracked-files=no"])
    return f"{commit}-changed" if commit and changed else commit


def source_digest() -> str:
    """12 hex digits over the library's code and presets, for copies of it that are no checkout."""
    total = hashlib.sha256()
    for folder, names in ((_ROOT / "videoprune", "*.py"), (config_dir() / "presets", "*.yaml")):
        for path in sorted(folder.rglob(names)):
            total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return total.hexdigest()[:12]


def _said(command: list[str]) -> str | None:
    """What a program writes, stripped; None if it is not there, fails or has nothing to say."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None if done.returncode == 0 else None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()
