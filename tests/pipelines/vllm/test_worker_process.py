"""A worker that cannot load says why, and is gone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

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
