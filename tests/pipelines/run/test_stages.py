from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.run import local
from pipelines.run.stages import (
    ClipItem,
    DecodedClip,
    DecodeStage,
    ModelStage,
    clip_shape,
    failed_rows,
    group_by_video,
    with_prune,
)
from videoprune.config import PruneConfig, preset
from videoprune.engine import Engine
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.types import Answer, Outcome, Sample, VideoFrames
from videoprune.video import Sampling, read


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    return Engine(str(tiny), preset("balanced"), device="cpu")


@pytest.fixture(scope="module")
def items(clips: Path) -> list[ClipItem]:
    return group_by_video(load(clips))


def without_seconds(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_clip_shape_is_what_the_loaded_model_says(tiny: Path, engine: Engine) -> None:
    assert clip_shape(str(tiny)) == (engine.num_frames, engine.frame_size)


def test_questions_of_a_video_come_together_in_order() -> None:
    samples = [Sample(f"q{i}", video, "?") for i, video in enumerate("abacb")]
    assert [(i.video, [s.question_id for s in i.samples]) for i in group_by_video(samples)] == [
        ("a", ["q0", "q2"]),
        ("b", ["q1", "q4"]),
        ("c", ["q3"]),
    ]
    assert group_by_video([]) == []


def test_rows_are_what_the_engine_says(engine: Engine, items: list[ClipItem]) -> None:
    decode = DecodeStage(engine.num_frames, engine.frame_size)
    rows = [r for part in local.run(items, decode, ModelStage.around(engine, max_new_tokens=1)) for r in part]
    expected: list[tuple[Sample, Answer]] = []
    for item in items:
        frames = read(item.video, Sampling(max_frames=engine.num_frames), size=engine.frame_size)
        tokens, _ = engine.encode([frames])
        expected += zip(item.samples, engine.answer(tokens, item.samples, max_new_tokens=1), strict=True)
    assert len(rows) == 9
    assert {row["prediction"] for row in rows} - {""}  # the model does choose letters
    for row, (sample, answer) in zip(rows, expected, strict=True):
        assert (row["question_id"], row["answer"]) == (sample.question_id, sample.answer)
        assert (row["prediction"], row["text"]) == (answer.choice, answer.text)
        assert row["correct"] == (answer.choice == sample.answer)
        assert row["tokens"] == answer.trace.as_dict()
        assert (row["outcome"], row["backend"], row["category"]) == (
            "complete",
            "decord",
            sample.meta["category"],
        )
        assert set(row["seconds"]) == {"decode", "encode", "fuse", "llm", "llm_prune"}


def test_smaller_batches_give_the_same_rows(engine: Engine, items: list[ClipItem]) -> None:
    found = []
    for batch in (1, 2, 8):
        decode = DecodeStage(engine.num_frames, engine.frame_size)
        stage = ModelStage.around(engine, batch=batch, max_new_tokens=2)
        found.append(without_seconds([r for part in local.run(items, decode, stage) for r in part]))
    assert found[0] == found[1] == found[2]


def test_a_clips_seconds_are_shared_by_its_questions(engine: Engine, items: list[ClipItem]) -> None:
    decode = DecodeStage(engine.num_frames, engine.frame_size)
    decode.setup()
    decoded = replace(decode.process(items[0]), seconds=6.0)
    decode.close()
    stage = ModelStage.around(engine, max_new_tokens=1)
    stage.setup()
    assert [row["seconds"]["decode"] for row in stage.process(decoded)] == [2.0, 2.0, 2.0]


def test_clips_that_cannot_be_read_or_answered_become_failed_rows(
    engine: Engine, items: list[ClipItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    strange = [
        ClipItem(str(broken), items[0].samples),
        ClipItem(str(tmp_path / "no.mp4"), items[1].samples[:1]),
    ]
    decode = DecodeStage(engine.num_frames, engine.frame_size)
    stage = ModelStage.around(engine, max_new_tokens=1)
    first, second, third = local.run([*strange, items[2]], decode, stage)
    assert [row["outcome"] for row in (*first, *second, *third)] == ["failed"] * 4 + ["complete"] * 3
    assert first[0]["reason"].startswith("not_a_video: ")
    assert second[0]["reason"].startswith("missing: ")
    assert set(first[0]) == set(third[0])
    assert (first[0]["prediction"], first[0]["correct"], first[0]["tokens"]) == ("", False, None)

    def burst(self: Engine, frames: list[VideoFrames]) -> None:
        raise RuntimeError("out of memory")

    decode.setup()
    decoded = decode.process(items[0])
    decode.close()
    stage = ModelStage.around(engine)
    stage.setup()
    monkeypatch.setattr(Engine, "encode", burst)
    assert {row["reason"] for row in stage.process(decoded)} == {"RuntimeError: out of memory"}


def test_settings_that_cannot_work_are_told_before_the_first_clip(tiny: Path, items: list[ClipItem]) -> None:
    decode = DecodeStage(4, (32, 32))
    for changes in (
        {"llm.method": "fixed", "llm.keep": 0.01},
        {"encoder.method": "evoprune", "encoder.keep": 0.03},
    ):
        stage = ModelStage(str(tiny), PruneConfig().replace(**changes), device="cpu")
        with pytest.raises(ValueError, match="reach"):
            next(local.run(items, decode, stage))
    with pytest.raises(ValueError, match="batch=0"):
        ModelStage(str(tiny), PruneConfig(), batch=0)
    with pytest.raises(ValueError, match="ahead=0"):
        next(local.run(items, decode, stage, ahead=0))


def test_stages_can_be_pickled_before_setup(tiny: Path) -> None:
    for stage in (DecodeStage(4, (32, 32)), ModelStage(str(tiny), preset("balanced"))):
        assert vars(pickle.loads(pickle.dumps(stage))) == vars(stage)


def test_with_prune_changes_a_copy_on_the_same_model(engine: Engine) -> None:
    other = with_prune(engine, PruneConfig())
    assert (other.prune, engine.prune) == (PruneConfig(), preset("balanced"))
    assert other.model is engine.model
    with pytest.raises(ValueError, match="not calibrated"):
        with_prune(engine, preset("balanced").replace(**{"llm.keep": 0.123}))


def test_a_failed_row_has_its_reason_and_its_share_of_time() -> None:
    item = ClipItem("v", (Sample("a", "v", "?"), Sample("b", "v", "?")))
    rows = failed_rows(item, "why", {"decode": 1.0})
    assert [(r["question_id"], r["reason"], r["seconds"]) for r in rows] == [
        ("a", "why", {"decode": 0.5}),
        ("b", "why", {"decode": 0.5}),
    ]
    assert Outcome("failed", rows[0]["reason"]).kind == rows[0]["outcome"]


def test_the_local_executor_decodes_ahead_but_not_too_far(engine: Engine, items: list[ClipItem]) -> None:
    started: list[str] = []

    class Noting(DecodeStage):
        def process(self, item: ClipItem) -> DecodedClip:
            started.append(item.video)
            return super().process(item)

    many = items * 3
    run = local.run(many, Noting(4, (32, 32)), ModelStage.around(engine, max_new_tokens=1), ahead=2)
    for done, _ in enumerate(run, start=1):
        assert len(started) <= min(done + 2, len(many))
    assert started == [item.video for item in many]
