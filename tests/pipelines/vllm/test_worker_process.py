"""A worker that cannot load says why, and is gone."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from pipelines.vllm import worker_process
from pipelines.vllm.worker import Spec
from pipelines.vllm.worker_process import WorkerError, WorkerProcess
from videoprune.config import PruneConfig


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is there")
def test_without_vllm_the_reason_is_told(tmp_path: Path) -> None:
    spec = Spec("qwen-demo", PruneConfig().as_dict(), "", (8, 96, 96), 1, 4, str(tmp_path))
    worker = WorkerProcess(spec, tmp_path / "none.log")
    with pytest.raises(WorkerError, match="No module named 'vllm'"):
        worker.begin()
    with pytest.raises(WorkerError, match="the process died with status 1"):
        worker.ask("rate", asked=[], in_flight=1)
    worker.close()
    assert "Traceback" in (tmp_path / "none.log").read_text()


def test_one_that_was_killed_says_what_may_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process.sys, "executable", shutil.which("false"))
    spec = Spec("qwen-demo", PruneConfig().as_dict(), "", (8, 96, 96), 1, 4, str(tmp_path))
    worker = WorkerProcess(spec, tmp_path / "none.log")
    with pytest.raises(WorkerError, match="the process died with status 1"):
        worker.begin()
    script = tmp_path / "killed"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(worker_process.sys, "executable", str(script))
    with pytest.raises(WorkerError, match="memory runs out: --one-at-a-time"):
        worker.begin()
