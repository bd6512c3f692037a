"""`videoprune speedup --engine vllm` end to end: vLLM's own pruning beside ours, interrupted and gone on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.run.results import read_rows
from pipelines.vllm.worker_process import WorkerProcess
from videoprune.eval.benchmarks.moving_shapes.make import make_benchmark

METHODS = "none,balanced-serve,vllm-vidcom2"


def test_the_same_tokens_stay_and_an_interrupted_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = make_benchmark(tmp_path / "bench", clips=4, seed=2, workers=1), tmp_path / "out"
    words = ["speedup", "moving-shapes", "--data", str(data), "--model", "qwen-demo", "--engine", "vllm"]
    words += ["--methods", METHODS, "--retain", "0.25", "--concurrency", "1,2", "--runs", "1"]
    words += ["--requests", "4", "--out", str(out)]
    begun: list[WorkerProcess] = []
    ask = WorkerProcess.ask

    def interrupted(worker: WorkerProcess, what: str, **request: Any) -> dict[str, Any]:
        begun.append(worker)
        if what == "answers":
            raise KeyboardInterrupt
        return ask(worker, what, **request)

    monkeypatch.setattr(WorkerProcess, "ask", interrupted)
    assert main(words) == 130
    processes = [worker._process for worker in begun]
    assert all(process is not None and process.poll() is not None for process in processes)
    rates = (out / "rates.jsonl").read_bytes()
    assert len(rates.splitlines()) == 6
    assert read_rows(out / "answers.jsonl") == {}

    monkeypatch.setattr(WorkerProcess, "ask", ask)
    assert main(words) == 0
    assert (out / "rates.jsonl").read_bytes() == rates
    results = json.loads((out / "results.json").read_text())
    assert results["meta"]["versions"]["vllm"] == "0.32.0"
    rows = {row["label"]: row for row in results["rows"]}
    assert {label: row["visual_tokens"] for label, row in rows.items()} == {
        "none": 144,
        "balanced-serve@0.25": 36,
        "vllm-vidcom2@0.25": 36,
    }
    for row in rows.values():
        assert row["accuracy"]["questions"] == 12
        assert row["accuracy"]["all"] > 0.5  # the demo model sees the clips
        for figures in row["in_flight"].values():
            assert figures["requests"] == 4
            assert figures["times_unpruned"]["median"] > 0
    answers = read_rows(out / "answers.jsonl").values()
    assert {row["prompt_tokens"] for row in answers if row["setting"] == "none"} != {
        row["prompt_tokens"] for row in answers if row["setting"] != "none"
    }
