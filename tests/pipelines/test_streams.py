"""Benchmarks of streams from their folders to their scores by the offline path, and what only a session can answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.run.results import read_rows
from tests.eval.benchmarks import made
from videoprune.eval.benchmarks.moving_stream.make import make_streams


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams") / "made"
    return make_streams(folder, streams=1, minutes=4, size=48, fps=1, workers=1)


@pytest.mark.parametrize("protocol", ["official", "minute", "recent"])
def test_a_stream_is_asked_and_scored(
    protocol: str, streams: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "moving-stream", "--data", str(streams), "--model", str(tiny), "--prune", "none"]
    words += ["--protocol", protocol, "--out", str(tmp_path), "--max-new-tokens", "2", "--frames", "4"]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "4 standing questions are left out: --executor stream asks those" in shown.err
    assert f"MovingShapes streams test, protocol {protocol}" in " ".join(shown.out.split())
    rows = read_rows(tmp_path / "results.jsonl")
    assert len(rows) == 28
    assert {r["outcome"] for r in rows.values()} == {"complete"}
    scores = json.loads((tmp_path / "summary.json").read_text())["scores"]
    assert scores["metrics"]["accuracy"]["all"]["n"] == 28
    assert {k: v["n"] for k, v in scores["metrics"]["accuracy"].items() if k in ("now", "when")} == {
        "now": 4,
        "when": 4,
    }
    assert main(words) == 0  # nothing is asked again
    assert main(["score", "moving-stream", str(tmp_path), "--data", str(streams), "--json"]) == 1
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["metrics"]["accuracy"]["all"]["sum"] == scores["metrics"]["accuracy"]["all"]["sum"]
    assert "4 standing questions were not asked and do not count" in again["notes"]


def test_streams_are_made_where_no_folder_is_named(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["eval", "moving-stream", "--clips", "1", "--minutes", "4", "--seed", "3", "--limit", "7"]
    assert (
        main([*words, "--model", str(tiny), "--prune", "none", "--frames", "2", "--max-new-tokens", "1"]) == 0
    )
    assert (tmp_path / "runs" / "moving-stream-4min-3-1" / "test.jsonl").is_file()


def test_ovobench_and_streamingbench_from_their_folders(
    streams: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (video,) = (streams / "data").glob("*.mp4")
    ovo, bench = tmp_path / "ovo", tmp_path / "bench"
    made.write_ovobench(ovo, made.ovobench_items())
    made.write_streamingbench(bench)
    for path in (ovo / "src_videos/COIN/v0.mp4", ovo / "src_videos/COIN/v1.mp4"):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, path)
    for name in ("sample_0_real", "sample_1_real"):
        (bench / "videos").mkdir(exist_ok=True)
        shutil.copy(video, bench / "videos" / f"{name}.mp4")
    few = ["--model", str(tiny), "--prune", "none", "--frames", "2", "--max-new-tokens", "2"]
    assert main(["eval", "ovobench", "--data", str(ovo), "--out", str(tmp_path / "a"), *few]) == 0
    assert len(read_rows(tmp_path / "a" / "results.jsonl")) == 16
    assert (
        json.loads((tmp_path / "a" / "summary.json").read_text())["scores"]["headline"]["metric"]
        == "official"
    )
    real = ["eval", "streamingbench", "--data", str(bench), "--split", "real", *few]
    for protocol in ("official", "official-60s", "recent"):
        assert main([*real, "--protocol", protocol, "--out", str(tmp_path / protocol)]) == 0
    capsys.readouterr()
    proactive = ["eval", "streamingbench", "--data", str(bench), "--split", "proactive", *few]
    assert main(proactive) == 2
    assert "all its questions are standing ones, which only --executor stream asks" in capsys.readouterr().err
    assert main([*real[:4], *few]) == 2
    assert "split=None; name one for streamingbench with --split: real, omni" in capsys.readouterr().err
