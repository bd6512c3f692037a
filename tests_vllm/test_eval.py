"""`videoprune eval --engine vllm`: the rows of the engine of transformers, but for seconds."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from pipelines.cli import main
from videoprune.eval.benchmarks.moving_shapes.make import make_benchmark


def rows(out: Path) -> dict[str, dict[str, Any]]:
    found = map(json.loads, (out / "results.jsonl").read_text().splitlines())
    return {row["question_id"]: row for row in found}


def test_rows_and_summary_are_those_of_transformers(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", clips=4, workers=1)
    sorted((data / "data").glob("*.mp4"))[2].write_bytes(b"no video")
    words = [
        "eval",
        "moving-shapes",
        "--data",
        str(data),
        "--model",
        "qwen-demo",
        "--prune",
        "balanced-serve",
    ]
    assert main([*words, "--out", str(tmp_path / "t")]) == 1  # three questions have no video
    assert main([*words, "--out", str(tmp_path / "v"), "--engine", "vllm", "--batch", "6"]) == 1
    theirs, ours = rows(tmp_path / "t"), rows(tmp_path / "v")
    assert list(ours) == list(theirs)
    for key, row in ours.items():
        assert set(row) == set(theirs[key])
        same = set(row) - {"seconds", "key"}
        assert {k: row[k] for k in same} == {k: theirs[key][k] for k in same}
        assert row["key"] != theirs[key]["key"]
    before, after = (json.loads((tmp_path / name / "summary.json").read_text()) for name in "tv")
    assert set(before) == set(after)
    assert (before["engine"], after["engine"]) == ("transformers", "vllm 0.32.0")
    assert before["accuracy"] == after["accuracy"]
    assert before["tokens"] == after["tokens"]
    # In Ray actors: the same, the video that is none among them.
    ray = ["--out", str(tmp_path / "r"), "--engine", "vllm", "--batch", "6", "--executor", "ray"]
    assert main([*words, *ray]) == 1
    apart = rows(tmp_path / "r")
    said = lambda found: {q: {k: r[k] for k in set(r) - {"seconds"}} for q, r in found.items()}  # noqa: E731
    assert said(apart) == said(ours)
    assert not list(Path(tempfile.gettempdir()).glob("videoprune-*/model.safetensors"))
    # Rows of one engine are not taken for those of another.
    assert main([*words, "--out", str(tmp_path / "t"), "--engine", "vllm"]) == 2
