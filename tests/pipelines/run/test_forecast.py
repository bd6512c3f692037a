"""Forecasts by hand, and of real clips of which one cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.arguments import at_least_at_most
from pipelines.cli import main
from pipelines.run.forecast import Tried, forecast_text, try_videos
from pipelines.run.model_stage import ModelStage
from pipelines.run.stages import ClipItem, DecodeStage, group_by_video
from videoprune.config import preset
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.types import Sample

MIB = 2**20


def made(count: int, folder: Path) -> list[ClipItem]:
    """Videos of 1 MiB, three questions each."""
    items = []
    for i in range(count):
        path = folder / f"{i}.mp4"
        path.write_bytes(b"\0" * MIB)
        items.append(ClipItem(str(path), tuple(Sample(f"{i}-{q}", str(path), "?") for q in range(3))))
    return items


def test_the_text_by_hand(tmp_path: Path) -> None:
    tried = Tried(
        ["/v/a.mp4", "/v/b.mp4"], [1.0, 3.0], [0.5, 0.5], [MIB, 2 * MIB], [MIB] * 2, {"c": "missing: c"}
    )
    text = forecast_text(tried, made(72, tmp_path), models=2, workers=(1, 2))
    assert "Tried on 2 videos: a.mp4, b.mp4." in text
    assert (
        "decoding 2.00 (1.00 to 3.00) s of one core, the model 0.50 (0.50 to 0.50) s; frames 2.0 MiB" in text
    )
    # 72 clips of 2 s on 4 decoders are 36 s; the models alone 18 s. Five decoders a model: 4 and a quarter more.
    assert (
        "All 72 videos with 216 questions, 2 models and up to 2 decoders beside each: 36.0 s, waiting for decoding"
        in text
    )
    assert (
        "A model that never waits takes 18.0 s and asks for 5 decoders, as many cores: --workers 1:5." in text
    )
    assert "Reads 72 MiB of videos, writes 216.0 MiB of rows." in text
    assert "Not to be read: c: missing: c" in text


def test_few_of_many_are_tried_and_a_bad_one_is_told(tiny: Path, clips: Path, tmp_path: Path) -> None:
    items = group_by_video(load(clips))
    bad = ClipItem(str(tmp_path / "no.mp4"), items[0].samples)
    stage = ModelStage(str(tiny), preset("none"), device="cpu", max_new_tokens=1)
    found = try_videos([*items, bad], DecodeStage(4, (32, 32)), stage, count=4)
    assert found.videos == [item.video for item in items]
    assert list(found.failed) == [bad.video]
    assert len(found.decode) == len(found.model) == len(found.frame_bytes) == 3
    assert found.frame_bytes == [4 * 32 * 32 * 3] * 3
    assert min(*found.decode, *found.model) > 0
    assert len(found.row_bytes) == len(load(clips))
    assert len(try_videos(items, DecodeStage(4, (32, 32)), stage, count=2).videos) == 2
    with pytest.raises(ValueError, match="none of 1 can be read; first: missing"):
        try_videos([bad], DecodeStage(4, (32, 32)), stage)


def test_a_plan_keeps_nothing(
    tiny: Path,
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    command = f"eval moving-shapes --data {clips} --model {tiny} --prune none --device cpu --plan"
    assert main(command.split()) == 0
    said = capsys.readouterr().out
    assert "All 3 videos with 9 questions, 1 model and up to 1 decoder beside each" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "found"), [("3", (3, 3)), ("1:8", (1, 8)), ("2:2", (2, 2))])
def test_workers_are_a_number_or_two(text: str, found: tuple[int, int]) -> None:
    assert at_least_at_most(text) == found


@pytest.mark.parametrize("text", ["0", "3:2", "1:", ":4", "a:b"])
def test_workers_that_cannot_be(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["eval", "moving-shapes", "--executor", "ray", "--workers", text])
    assert "argument --workers" in capsys.readouterr().err
