"""What a run ran on and with: versions and hardware, as plain values for records and headings."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

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


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()
