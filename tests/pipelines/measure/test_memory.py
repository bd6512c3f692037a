"""Peak memory of pieces of work whose size is known."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pipelines.measure import memory
from pipelines.measure.memory import peak_above

MIB = 2**20
measured = pytest.mark.skipif(
    peak_above(lambda: None, "cpu") is None, reason="the kernel does not tell a process its peak"
)


def hold(mebibytes: int) -> None:
    torch.ones(mebibytes * MIB, dtype=torch.uint8)  # written, so resident; free again at once


@measured
def test_the_peak_is_what_was_held_and_later_work_starts_anew() -> None:
    for size in (96, 32, 64, 0):
        peak = peak_above(lambda size=size: hold(size), "cpu")
        assert abs(peak - size * MIB) < 8 * MIB


@measured
def test_what_is_held_before_does_not_count() -> None:
    kept = torch.ones(64 * MIB, dtype=torch.uint8)
    assert peak_above(lambda: hold(32), "cpu") < 40 * MIB
    assert kept[-1] == 1


@measured
def test_the_peak_is_the_same_where_freed_memory_is_kept() -> None:
    """In a process of its own: the C library cannot be told to forget it."""
    code = (
        "import torch; from pipelines.measure.memory import keep_freed, peak_above; keep_freed();"
        "hold = lambda n: torch.ones(n << 20, dtype=torch.uint8); hold(96);"
        "print(peak_above(lambda: hold(64), 'cpu') >> 20)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert abs(int(out.stdout) - 64) < 8


def test_nothing_is_done_where_the_kernel_does_not_tell(tmp_path, monkeypatch) -> None:
    done = []
    monkeypatch.setattr(memory, "_PROC", tmp_path / "nowhere")
    assert peak_above(lambda: done.append(1), "cpu") is None
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    (tmp_path / "status").write_text("Name: python\n")
    assert peak_above(lambda: done.append(1), "cpu") is None
    assert not done
