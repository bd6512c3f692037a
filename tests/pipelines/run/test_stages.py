from __future__ import annotations

import pickle
import re
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.run import local
from pipelines.run.lost_device import LostDeviceError
from pipelines.run.model_stage import ModelStage
from pipelines.run.rows import failed_rows
from pipelines.run.stages import ClipItem, DecodedClip, DecodeStage, Failure, group_by_video
from videoprune.config import PruneConfig, preset
from videoprune.engine import Engine
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.models.loading import clip_shape
from videoprune.result_row import result_row
from videoprune.types import STAGES, Answer, Encoded, Sample, Trace, VideoFrames
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
        encoded = engine.encode([frames])
        expected += zip(item.samples, engine.answer(encoded, item.samples, max_new_tokens=1), strict=True)
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
        assert set(row["seconds"]) == set(STAGES)
        assert result_row(row) == row


def test_smaller_batches_give_the_same_rows(engine: Engine, items: list[ClipItem]) -> None:
    found = []
    for batch in (1, 2, 3, 8, 16):
        decode = DecodeStage(engine.num_frames, engine.frame_size)
        stage = ModelStage.around(engine, batch=batch, max_new_tokens=2)
        found.append(without_seconds([r for part in local.run(items, decode, stage) for r in part]))
    assert all(rows == found[0] for rows in found)


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
        raise RuntimeError("no room")

    assert {(row["kind"], row["traceback"]) for row in (*first, *second)} == {
        ("not_a_video", ""),
        ("missing", ""),
    }

    decode.setup()
    decoded = decode.process(items[0])
    decode.close()
    stage = ModelStage.around(engine)
    stage.setup()
    monkeypatch.setattr(Engine, "encode", burst)
    for row in stage.process(decoded):
        assert (row["kind"], row["reason"]) == ("RuntimeError", "RuntimeError: no room")
        assert "in burst\n" in row["traceback"]
        assert row["traceback"].endswith("RuntimeError: no room\n")


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


def test_a_failed_row_has_its_reason_and_its_share_of_time() -> None:
    item = ClipItem("v", (Sample("a", "v", "?"), Sample("b", "v", "?")))
    rows = failed_rows(item, Failure("missing", "why"), {"decode": 1.0})
    assert [(r["question_id"], r["reason"], r["seconds"]) for r in rows] == [
        ("a", "why", {"decode": 0.5}),
        ("b", "why", {"decode": 0.5}),
    ]
    assert {(r["outcome"], r["kind"]) for r in rows} == {("failed", "missing")}


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 12))
def test_groups_are_neighbours_up_to_the_batch(questions: list[int], batch: int) -> None:
    made = [ClipItem(str(i), (Sample("q", "v", "?"),) * n) for i, n in enumerate(questions)]
    groups = list(ModelStage("", PruneConfig(), batch=batch).groups(made))
    assert [item for group in groups for item in group] == made
    for group, after in zip_longest(groups, groups[1:]):
        asked = sum(len(item.samples) for item in group)
        assert asked <= batch or len(group) == 1
        assert after is None or asked + len(after[0].samples) > batch  # the next one did not fit


def test_a_strange_clip_costs_its_group_nothing(
    engine: Engine, items: list[ClipItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(asked: list[ClipItem]) -> list[list[dict]]:
        decode = DecodeStage(engine.num_frames, engine.frame_size)
        return list(local.run(asked, decode, ModelStage.around(engine, max_new_tokens=1)))

    expected = run(items)
    encode, strange = Engine.encode, items[1].video

    def burst(self: Engine, frames: list[VideoFrames], **more: bool) -> list[Encoded]:
        if any(one.path == strange for one in frames):
            raise RuntimeError("no room")
        return encode(self, frames, **more)

    missing = ClipItem(str(tmp_path / "no.mp4"), items[0].samples[:1])
    monkeypatch.setattr(Engine, "encode", burst)
    found = run([items[0], missing, *items[1:]])
    assert [row["kind"] for row in found[1]] == ["missing"]
    assert {row["reason"] for row in found[2]} == {"RuntimeError: no room"}
    for rows, those in zip((found[0], found[3]), (expected[0], expected[2]), strict=True):
        assert without_seconds(rows) == without_seconds(those)


def test_a_strange_question_costs_its_clip_nothing(engine: Engine, items: list[ClipItem]) -> None:
    """A text that no model could read, in the middle of a clip's questions."""

    def run(asked: list[ClipItem]) -> list[dict]:
        decode = DecodeStage(engine.num_frames, engine.frame_size)
        stage = ModelStage.around(engine, max_new_tokens=1)
        return [row for rows in local.run(asked, decode, stage) for row in rows]

    expected = run(items)
    endless = replace(items[0].samples[0], question_id="endless", question="which " * 10_000)
    first = replace(items[0], samples=(items[0].samples[0], endless, *items[0].samples[1:]))
    found = {row["question_id"]: row for row in run([first, *items[1:]])}
    lost = found.pop("endless")
    assert (lost["outcome"], lost["kind"]) == ("failed", "ValueError")
    assert re.fullmatch(r"ValueError: question: \d{5} tokens; allowed: at most \d+, .*", lost["reason"])
    assert without_seconds(list(found.values())) == without_seconds(expected)


def test_a_lost_device_ends_the_stage(
    engine: Engine, items: list[ClipItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every later question would fail too: the process must go, not the questions."""

    def lost(*_: object, **__: object) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    for name in ("answer", "encode"):
        with monkeypatch.context() as patched:
            patched.setattr(Engine, name, lost)
            decode = DecodeStage(engine.num_frames, engine.frame_size)
            stage = ModelStage.around(engine, max_new_tokens=1)
            stage.setup = lambda: None  # type: ignore[method-assign]
            with pytest.raises(LostDeviceError, match="device-side assert"):
                list(local.run(items, decode, stage))


class FakeEngine:
    """Notes what it is asked for."""

    num_frames, frame_size, prune = 2, (8, 8), PruneConfig()

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def encode(self, frames: list[VideoFrames]) -> list[Encoded]:
        return [Encoded(Trace(20, {}, 20), None) for _ in frames]

    def answer(self, encoded: list[Encoded], questions: list[Sample], *, max_new_tokens: int) -> None:
        self.asked.append((len(questions), max_new_tokens))


def test_the_warm_up_takes_decoding_steps_at_the_batch_size_of_the_run() -> None:
    fake = FakeEngine()
    stage = ModelStage.around(fake, batch=5, max_new_tokens=1)  # type: ignore[arg-type]
    stage.setup()
    assert fake.asked == [(5, 3)]  # the first token comes from the prefill
    stage.tokens = 40
    stage.setup()
    assert fake.asked[1:] == [(2, 3)]  # no call of the run is larger


def test_calls_of_the_llm_have_a_budget_of_questions_and_of_tokens() -> None:
    stage = ModelStage("", PruneConfig(), batch=4, tokens=100)
    fused = (30, 30, 60, 150)
    encoded = [Encoded(Trace(n, {}, n), None) for n in fused]
    made = [ClipItem(str(i), (Sample("a", "v", "?"), Sample("b", "v", "?"))) for i in range(4)]
    calls = [[(i, s.question_id) for i, s in call] for call in stage._calls(made, encoded)]
    assert calls == [
        [(0, "a"), (0, "b"), (1, "a")],
        [(1, "b"), (2, "a")],
        [(2, "b")],
        [(3, "a")],
        [(3, "b")],
    ]
    many = ModelStage("", PruneConfig(), batch=3, tokens=1000)._calls(made, encoded)
    assert [len(call) for call in many] == [3, 3, 2]
    with pytest.raises(ValueError, match="tokens=0"):
        ModelStage("", PruneConfig(), tokens=0)


def test_what_decoding_raises_is_a_failure_with_its_traceback(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = DecodeStage(2, (32, 32), columns=2)
    monkeypatch.setattr("pipelines.run.stages.grid_view", lambda frames, columns: frames.nothing)
    decode.setup()
    found = decode.process(group_by_video(load(clips))[0]).frames
    decode.close()
    assert isinstance(found, Failure)
    assert found.kind == "AttributeError"
    assert "stages.py" in found.traceback


def test_the_local_executor_decodes_ahead_but_not_too_far(engine: Engine, items: list[ClipItem]) -> None:
    started: list[str] = []

    class Noting(DecodeStage):
        def process(self, item: ClipItem) -> DecodedClip:
            started.append(item.video)
            return super().process(item)

    many = items * 3
    stage = ModelStage.around(engine, batch=3, max_new_tokens=1)  # each clip is a group
    run = local.run(many, Noting(4, (32, 32)), stage, ahead=2)
    for done, _ in enumerate(run, start=1):
        assert len(started) <= min(done + 2, len(many))
    assert started == [item.video for item in many]
