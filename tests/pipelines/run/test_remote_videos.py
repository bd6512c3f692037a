"""Runs whose videos lie elsewhere: the rows of a local run, reasons in rows, and going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipelines.arguments import size
from pipelines.cli import main
from pipelines.run.results import read_rows
from tests.pipelines.benchmark_folders import FOLDERS
from tests.video.remote.web import serving as serving_web
from tests.video.remote.web import shared, status
from videoprune.eval.benchmarks.registry import benchmark
from videoprune.types import UNUSABLE
from videoprune.video.folder import video_folder


def evaluate(data: Path, model: Path, out: Path, *more: str) -> int:
    common = [
        "--prune",
        "none",
        "--device",
        "cpu",
        "--max-new-tokens",
        "1",
        "--cache",
        str(out.parent / "cache"),
    ]
    return main(
        [
            "eval",
            "moving-shapes",
            "--data",
            str(data),
            "--model",
            str(model),
            "--out",
            str(out),
            *common,
            *more,
        ]
    )


def rows_of(out: Path, *without: str) -> dict[str, dict[str, Any]]:
    rows = read_rows(out / "results.jsonl")
    return {q: {k: v for k, v in r.items() if k not in ("seconds", *without)} for q, r in rows.items()}


@pytest.fixture
def memory(clips: Path, request: pytest.FixtureRequest) -> str:
    address = f"memory://{request.node.name}"
    fsspec.filesystem("memory").put(f"{clips / 'data'}/", f"{address}/", recursive=True)
    return address


def test_remote_videos_give_the_rows_of_local_ones(
    tiny: Path, clips: Path, memory: str, tmp_path: Path
) -> None:
    assert evaluate(clips, tiny, tmp_path / "local") == 0
    local = rows_of(tmp_path / "local", "key")
    assert len(local) == 9
    assert evaluate(clips, tiny, tmp_path / "memory", "--videos", memory) == 0
    assert rows_of(tmp_path / "memory", "key") == local
    with shared(clips) as address:
        assert evaluate(clips, tiny, tmp_path / "http", "--videos", address) == 0
        assert evaluate(clips, tiny, tmp_path / "named", "--videos", f"{address}/data/{{}}.mp4") == 0
    assert rows_of(tmp_path / "http", "key") == rows_of(tmp_path / "named", "key") == local
    assert evaluate(clips, tiny, tmp_path / "other", "--videos", f"file://{clips}") == 0
    assert rows_of(tmp_path / "other") == rows_of(tmp_path / "local")


def test_going_on_asks_what_failed_and_refuses_other_videos(
    tiny: Path, clips: Path, memory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fs, out = fsspec.filesystem("memory"), tmp_path / "out"
    names = sorted(p.name for p in (clips / "data").iterdir())
    broken, gone = f"{memory}/{names[0]}", f"{memory}/{names[1]}"
    fs.pipe(broken, b"no video at all")
    fs.rm(gone)
    assert evaluate(clips, tiny, out, "--videos", memory) == 1
    assert "1 of 3 videos are missing" in capsys.readouterr().err
    rows = read_rows(out / "results.jsonl")
    assert [rows[q]["kind"] for q in sorted(rows)] == ["not_a_video"] * 3 + ["missing"] * 3 + [""] * 3
    said = {row["reason"] for row in rows.values()}
    assert f"not_a_video: {broken}: not a video file that FFmpeg knows" in said
    first = (out / "results.jsonl").read_bytes()
    for name in names[:2]:
        fs.put(str(clips / "data" / name), f"{memory}/{name}")
    assert evaluate(clips, tiny, out, "--videos", memory) == 0
    assert (out / "results.jsonl").read_bytes().startswith(first)
    assert json.loads((out / "summary.json").read_text())["questions_asked"] == 6
    assert evaluate(clips, tiny, out, "--videos", memory) == 0  # nothing is left, nothing is asked
    capsys.readouterr()
    fs.put(str(clips / "data" / names[1]), f"{memory}/{names[2]}")
    assert evaluate(clips, tiny, out, "--videos", memory) == 2
    assert "3 of its rows" in capsys.readouterr().err
    assert evaluate(clips, tiny, out) == 2  # the same videos, but who knows


def test_what_cannot_be_fetched_is_a_failed_row(tiny: Path, clips: Path, tmp_path: Path) -> None:
    with serving_web() as web:
        files = sorted((clips / "data").iterdir())
        bodies = [path.read_bytes() for path in files]
        largest = max(map(len, bodies[1:]))
        web.put(f"/{files[0].name}", bytes(largest + 1))
        web.put(f"/{files[1].name}", bodies[1], status(403))
        web.put(f"/{files[2].name}", bodies[2])
        more = ("--videos", f"{web.address}/{{}}.mp4", "--largest-video", str(largest), "--cache-size", "1M")
        assert evaluate(clips, tiny, tmp_path / "out", *more) == 1
        rows = read_rows(tmp_path / "out" / "results.jsonl")
        assert [rows[q]["kind"] for q in sorted(rows)] == ["too_large"] * 3 + ["forbidden"] * 3 + [""] * 3
        assert len(web.gets) == 2  # its header was enough to refuse the first
        assert f"{web.address}/{files[0].name}: {largest + 1:,} bytes" in rows[min(rows)]["reason"]


def test_a_plan_counts_what_a_listing_says(
    tiny: Path, clips: Path, memory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fsspec.filesystem("memory").pipe(f"{memory}/more.mp4", bytes(2**22))  # nobody asks about it
    evaluate(clips, tiny, tmp_path / "out", "--videos", memory, "--plan")
    remote = capsys.readouterr().out
    evaluate(clips, tiny, tmp_path / "out", "--plan")
    reads = [
        line.split(",")[0]
        for said in (remote, capsys.readouterr().out)
        for line in said.split("\n")
        if "Reads" in line
    ]
    assert len(reads) == 2
    assert reads[0] == reads[1]


@pytest.mark.parametrize("name", FOLDERS)
def test_benchmarks_find_the_same_videos_elsewhere(name: str, clips: Path, tmp_path: Path) -> None:
    folder = FOLDERS[name](tmp_path / "data", clips)
    fs, found = fsspec.filesystem("memory"), benchmark(name)
    fs.put(f"{folder}/", f"/elsewhere-{name}/", recursive=True)
    options: dict[str, Any] = {"split": "test"}
    local = found.load(folder, **options)
    for video in folder.rglob("*"):
        if video.suffix in (".mp4", ".mkv", ".webm", ".avi"):
            video.unlink()
    remote = found.load(folder, **options, videos=video_folder(f"memory://elsewhere-{name}"))
    assert {UNUSABLE in s.meta for s in local} == ({True, False} if name == "videomme" else {False})
    for here, there in zip(local, remote, strict=True):
        assert there.video == here.video.replace(str(folder), f"memory://elsewhere-{name}")
        assert (there.question_id, UNUSABLE in there.meta) == (here.question_id, UNUSABLE in here.meta)
    assert all(UNUSABLE in s.meta for s in found.load(folder, **options))


def test_clips_that_would_be_made_cannot_lie_elsewhere(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "moving-shapes", "--videos", "file:///none", "--model", str(tiny)]) == 2
    assert "data=None; moving-shapes with videos elsewhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "found"),
    [("300", 300), ("20M", 20 * 2**20), ("1.5g", 3 * 2**29), ("2GiB", 2**31), ("4KB", 4096)],
)
def test_sizes(text: str, found: int) -> None:
    assert size(text) == found


@pytest.mark.parametrize("text", ["0", "", "x", "-1", "1X", "1.2.3M"])
def test_sizes_that_cannot_be(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["eval", "moving-shapes", f"--cache-size={text}"])
    assert "argument --cache-size" in capsys.readouterr().err
