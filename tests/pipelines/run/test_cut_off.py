"""Questions with a time at which they are asked: frames are from before it, and shared only at the same time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.measure.sample import video_name
from pipelines.run import local
from pipelines.run.model_stage import ModelStage
from pipelines.run.stages import ClipItem, DecodedClip, DecodeStage, group_by_video
from pipelines.run.tasks import shard_of
from videoprune.config import preset
from videoprune.engine import Engine
from videoprune.eval.benchmarks.base import Recipe
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.types import Sample, VideoFrames


def decoded(item: ClipItem, recipe: Recipe, size: tuple[int, int] | None = (32, 32)) -> DecodedClip:
    stage = DecodeStage(recipe.frames or 8, size, **recipe.sampling())
    stage.setup()
    try:
        return stage.process(item)
    finally:
        stage.close()


def test_items_are_shared_only_at_the_same_time() -> None:
    asked = [("a", 2.0), ("a", None), ("a", 2.0), ("b", 2.0), ("a", 3.0), ("a", None)]
    samples = [Sample(f"q{i}", video, "?", until=until) for i, (video, until) in enumerate(asked)]
    items = group_by_video(samples)
    assert [(i.video, i.until, [s.question_id for s in i.samples]) for i in items] == [
        ("a", 2.0, ["q0", "q2"]),
        ("a", None, ["q1", "q5"]),
        ("b", 2.0, ["q3"]),
        ("a", 3.0, ["q4"]),
    ]
    with pytest.raises(AssertionError, match="different times"):
        ClipItem("a", (samples[0], samples[1]))
    assert [video_name(i) for i in items] == ["a until 2 s", "a", "b until 2 s", "a until 3 s"]


def test_a_shard_has_a_video_with_all_its_times() -> None:
    samples = [Sample(f"{v}{t}", v, "?", until=float(t)) for t in (1, 2) for v in "abc"]
    parts = [shard_of(samples, (i, 2)) for i in (1, 2)]
    assert [[s.question_id for s in part] for part in parts] == [["a1", "c1", "a2", "c2"], ["b1", "b2"]]


@pytest.mark.parametrize("until", [0.0, -3.0, float("inf"), float("nan")])
def test_an_impossible_time_is_refused(until: float) -> None:
    with pytest.raises(ValueError, match=r"until=.*; allowed: finite seconds above 0, or None"):
        Sample("q", "v", "?", until=until)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(frames=16, policy="ends"),
        Recipe(frames=4, policy="last", fps=1.0),
        Recipe(frames=6, window=1.5),
    ],
)
def test_no_frame_from_the_cut_off_on_is_decoded(clips: Path, recipe: Recipe) -> None:
    item = group_by_video(load(clips))[0]
    for until in (0.05, 0.1, 1.0, 1.75, 2.0, 1000.0):
        cut = ClipItem(item.video, tuple(replace(s, until=until) for s in item.samples))
        frames = decoded(cut, recipe).frames
        assert isinstance(frames, VideoFrames)
        assert len(frames) <= (recipe.frames or 8)
        assert all(t < until for t in frames.pts_seconds)
        if recipe.policy in ("last", "ends"):
            newest = frames.pts_seconds[-1]
            assert until == 1000.0 or until - newest <= 0.25 + 1e-6  # of four a second
        if recipe.window and until < 1000.0:
            assert min(frames.pts_seconds) >= until - recipe.window - 1e-6


def test_answers_are_those_of_the_cut_video(tiny: Path, clips: Path) -> None:
    """A question that is asked at 1 s gets what it gets about the first second alone."""
    engine = Engine(str(tiny), preset("none"), device="cpu")
    item = group_by_video(load(clips))[0]
    both = [replace(s, until=1.0) for s in item.samples] + [
        replace(s, question_id=f"{s.question_id} whole") for s in item.samples
    ]
    decode = DecodeStage(4, engine.frame_size)
    rows = [
        row
        for part in local.run(group_by_video(both), decode, ModelStage.around(engine, max_new_tokens=2))
        for row in part
    ]
    cut = decoded(ClipItem(item.video, tuple(both[:3])), Recipe(frames=4), engine.frame_size).frames
    assert isinstance(cut, VideoFrames)
    assert cut.pts_seconds[-1] < 1.0
    expected = engine.answer(engine.encode([cut]), both[:3], max_new_tokens=2)
    assert [row["text"] for row in rows[:3]] == [a.text for a in expected]
    assert [row["question_id"] for row in rows] == [s.question_id for s in both]
